//! The number and the moment of one arrival.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shm_proto::Nanos;

/// An arrival: its place among all of this process, and its moment (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    number: u64,
    at: Nanos,
}

impl Arrival {
    /// Takes the next number, now. To be called where bytes come in from a socket, never later.
    #[must_use]
    pub fn now() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), at: Nanos::now() }
    }

    /// Makes an arrival with a number and a moment of the test's choice.
    #[cfg(test)]
    #[must_use]
    pub const fn of(number: u64, at: Nanos) -> Self {
        Self { number, at }
    }

    /// Says whether this one came before the other.
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        self.number < other.number
    }

    /// Says how much longer than this arrival a pause lasts that began at `began`; `None` when it is over.
    #[must_use]
    pub fn left_of(self, pause: Duration, began: Nanos) -> Option<Duration> {
        let passed = Duration::from_nanos(self.at.since(began));
        pause.checked_sub(passed).filter(|left| !left.is_zero())
    }

    /// The moment, by the clock that goes on while the machine is suspended.
    #[must_use]
    pub const fn at(self) -> Nanos {
        self.at
    }
}
