//! Time on the one clock of Lanyard: `CLOCK_BOOTTIME`, which runs on while the machine sleeps, so that
//! a suspended or paused machine expires its sessions.

use nix::time::{ClockId, clock_gettime};

/// A moment in nanoseconds since boot (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Before every other moment; also "never happened".
    pub const ZERO: Self = Self(0);
    /// After every other moment; also "no deadline".
    pub const NEVER: Self = Self(u64::MAX);

    /// The present moment.
    ///
    /// Should the clock ever fail (it cannot on Linux 2.6.39 and later) the answer is [`Self::NEVER`]:
    /// everything is overdue, everything stops.
    #[must_use]
    pub fn now() -> Self {
        match clock_gettime(ClockId::CLOCK_BOOTTIME) {
            Ok(time) => {
                let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
                let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
                Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
            }
            Err(_) => Self::NEVER,
        }
    }

    /// This moment plus a number of nanoseconds, at most [`Self::NEVER`].
    #[must_use]
    pub const fn after(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` until this moment; 0 if this moment is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How long a session may be silent, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window(pub u64);

impl Window {
    /// A window of that many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The window in whole milliseconds, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}
