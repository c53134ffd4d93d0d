//! A motor that no session has and that turns although its power stage is off: somebody pushes it, or it rolls.
//!
//! No frame can hold it, and one that gave it torque would be worse than none. So it is told, and sent nothing.

use shm_proto::Nanos;

/// How a motor with its power off turns, by the last that its drive said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turning {
    /// Not at all: the reading would prove standstill.
    No,
    /// Faster than that, and slower than a rotor that is turned on purpose: nothing changes.
    Barely,
    /// Yes.
    Yes,
}

/// Motion without power since the motor was last commanded or stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unpowered {
    /// When it began; zero while there is none.
    since: Nanos,
    /// When the motion that goes on was told; zero while it was not.
    told: Nanos,
    /// When any was told last; zero before the first.
    last_told: Nanos,
}

impl Unpowered {
    /// Nothing of the kind was seen.
    pub(super) const NONE: Self = Self { since: Nanos::ZERO, told: Nanos::ZERO, last_told: Nanos::ZERO };

    /// Takes in what the drive says. Says whether the motion is to be told now: once each time it begins, and not before
    /// `pause` nanoseconds after the last time. A cart that is pushed to and fro must not push the evidence out of the log.
    pub(super) fn observe(&mut self, turning: Turning, now: Nanos, pause: u64) -> bool {
        match turning {
            Turning::No => self.end(),
            Turning::Barely => {}
            Turning::Yes if self.since == Nanos::ZERO => self.since = now,
            Turning::Yes => {}
        }
        let is_due = self.last_told == Nanos::ZERO || now.since(self.last_told) >= pause;
        let is_news = self.since != Nanos::ZERO && self.told == Nanos::ZERO && is_due;
        if is_news {
            (self.told, self.last_told) = (now, now);
        }
        is_news
    }

    /// The motor stands still, has power, or is somebody's.
    pub(super) fn end(&mut self) {
        (self.since, self.told) = (Nanos::ZERO, Nanos::ZERO);
    }

    /// Since when it lasts; zero while there is none.
    pub(super) fn since(&self) -> Nanos {
        self.since
    }
}
