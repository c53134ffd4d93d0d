//! What is told about the latches besides themselves: whether they are on disk, and whether some were lost.

use shm_proto::verdicts::{Degraded, Reason};

use super::Core;
use super::motor::Latch;

/// What the disk has of the latches, as housekeeping has found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// All of them, with that many changes ([`shm_proto::VerdictView::latch_changes`]).
    OnDisk {
        /// How many.
        changes: u64,
    },
    /// It refuses, or does not answer.
    Refused,
}

impl Core {
    /// Publishes what the disk has of the latches.
    pub fn latches_kept(&mut self, kept: Kept) {
        self.kept = kept;
        if let Kept::OnDisk { changes } = kept {
            self.verdicts.latches_kept(changes);
        }
        self.publish_degraded();
    }

    /// Publishes what weakens a guarantee now: what the system refused, which stays, and the state of the latches, which
    /// can be mended.
    pub(super) fn publish_degraded(&self) {
        let is_lost =
            |motor: &super::Motor| motor.latch == Latch::Held && motor.reason == Some(Reason::LatchesLost);
        let lost = if self.motors.iter().any(is_lost) { Degraded::LatchesLost.number() } else { 0 };
        let refused = match self.kept {
            Kept::OnDisk { .. } => 0,
            Kept::Refused => Degraded::LatchesNotKept.number(),
        };
        self.verdicts.degraded(self.degraded | lost | refused);
    }
}
