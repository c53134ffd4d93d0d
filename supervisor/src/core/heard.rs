//! When a drive last said what: one message may go on while another, that matters more, has ended.

use drivers::{Observation, PowerProof, Proof};
use shm_proto::Nanos;

/// The moments at which the quantities that a proof needs were last heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// Any message that could be read.
    pub anything: Nanos,
    /// The measured speed.
    pub speed: Nanos,
    power: Nanos,
    output: Nanos,
}

impl Heard {
    /// The drive has not said anything yet.
    pub(super) const NOTHING: Self =
        Self { anything: Nanos::ZERO, speed: Nanos::ZERO, power: Nanos::ZERO, output: Nanos::ZERO };

    /// Takes note of what an observation speaks of, and of when it was said at the latest that is sure. Of two buses one may be read
    /// later than the other; what it brings takes nothing back.
    pub(super) fn note(&mut self, seen: &Observation, said: Nanos) {
        self.anything = self.anything.max(said);
        for (at, is_told) in [
            (&mut self.speed, seen.velocity.is_some()),
            (&mut self.power, seen.power.is_some()),
            (&mut self.output, seen.output.is_some()),
        ] {
            if is_told {
                *at = (*at).max(said);
            }
        }
    }

    /// The oldest moment among those of the quantities that this proof needs.
    pub(super) fn all_of(&self, proof: &Proof) -> Nanos {
        self.speed.min(match proof.power {
            PowerProof::Any => Nanos::NEVER,
            PowerProof::NotFollowing | PowerProof::Off => self.power,
            PowerProof::NoOutput => self.output,
        })
    }
}
