//! Moments on CLOCK_BOOTTIME, the clock that Lanyard's own reports use.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// A moment, nanoseconds since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

impl Moment {
    /// The present one.
    #[must_use]
    pub fn now() -> Self {
        Self(read(ClockId::CLOCK_BOOTTIME))
    }

    /// The time from `earlier` to here; none if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// Milliseconds from `earlier` to here; negative if it is later.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "differences within a test are far below 2^52 ns")]
    pub fn millis_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / 1e6
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + nanos(span))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0 - nanos(span))
    }
}

impl fmt::Display for Moment {
    #[expect(clippy::cast_precision_loss, reason = "for reading; microseconds are kept for 285 years")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6} s", self.0 as f64 / 1e9)
    }
}

/// How often the clocks are compared at most, and what is near enough: three reads cost 75 us on the slowest
/// rig. A thread that is interrupted between them must try again.
const COMPARISONS: usize = 10;
const NEAR: i64 = 200_000;

/// How far CLOCK_BOOTTIME is ahead of CLOCK_REALTIME, nanoseconds: what the kernel stamps frames with is
/// the latter.
#[must_use]
pub fn boottime_minus_realtime() -> i64 {
    let mut best = (i64::MAX, 0);
    for _ in 0..COMPARISONS {
        let before = read(ClockId::CLOCK_REALTIME);
        let boot = read(ClockId::CLOCK_BOOTTIME);
        let after = read(ClockId::CLOCK_REALTIME);
        let span = after - before;
        if span < best.0 {
            best = (span, boot - (before + span / 2));
        }
        if best.0 <= NEAR {
            break;
        }
    }
    best.1
}

/// Nanoseconds of a time from the kernel.
#[must_use]
pub fn nanos_of(time: TimeSpec) -> i64 {
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn read(clock: ClockId) -> i64 {
    // Neither clock can be missing on a kernel that has CAN.
    clock_gettime(clock).map_or(0, nanos_of)
}
