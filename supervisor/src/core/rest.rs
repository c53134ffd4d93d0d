//! Whether a granted motor stands still with nothing commanded since: the only state in which the end of its session
//! interrupts nothing.
//!
//! Everything is in doubt until the drive's own feedback says otherwise. Doubt costs a trip that was not needed; the
//! opposite would hide one that was.

use drivers::{Observation, PowerProof, Proof};
use shm_proto::Nanos;

use super::FEEDBACK_WINDOW;
use super::arrival::Arrival;
use super::evidence::Evidence;

/// What was seen of a motor since it was granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    evidence: Evidence,
    /// The last speed reading of a row that proves standstill; zero while none does.
    proven: Nanos,
    movement: Movement,
}

/// How the motion of a granted motor is accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Movement {
    /// No motion frame was heard, and the motor has not moved.
    None,
    /// Motion frames were heard.
    Commanded,
    /// The motor moved before any motion frame was heard: there are frames that this process does not get to hear.
    Unexplained,
}

impl Rest {
    /// Nothing is known: what was seen before the grant proves nothing.
    pub(super) const UNKNOWN: Self =
        Self { evidence: Evidence::NONE, proven: Nanos::ZERO, movement: Movement::None };

    /// A motion frame for the motor was heard: rest has to be proven by what the drive says after it.
    pub(super) fn commanded(&mut self) {
        let movement = match self.movement {
            Movement::None | Movement::Commanded => Movement::Commanded,
            Movement::Unexplained => Movement::Unexplained,
        };
        *self = Self { movement, ..Self::UNKNOWN };
    }

    /// Takes in what the drive says. `proof` is that of the first stage of its stop, of which only the speed counts: a
    /// motor that holds is at rest, too, once every reading of `span` nanoseconds says so.
    pub(super) fn observe(&mut self, proof: &Proof, seen: &Observation, arrival: Arrival, span: u64) {
        let Some(velocity) = seen.velocity else { return };
        let still = Proof { power: PowerProof::Any, ..*proof };
        let is_proven = self.evidence.observe(&still, seen, arrival, span);
        self.proven = if is_proven { arrival.earliest } else { Nanos::ZERO };
        // Written so that NaN counts as moving.
        let stands = velocity.0.abs() <= proof.max_speed.0;
        if !stands && self.movement == Movement::None {
            self.movement = Movement::Unexplained;
        }
    }

    /// Whether the motor is proven to be at rest by feedback that is fresh.
    pub(super) fn holds(&self, now: Nanos) -> bool {
        self.movement != Movement::Unexplained
            && self.proven != Nanos::ZERO
            && now.since(self.proven) <= FEEDBACK_WINDOW
    }
}
