//! How late the machine itself is: a thread above the supervisor's priority that only looks at the clock.
//!
//! The rig is a guest on a machine that does other things, too; sometimes all of it stands still for tens of
//! milliseconds. A limit on lateness would then measure the neighbours. This thread sleeps until moments
//! known beforehand; how late it wakes is what no program on the machine could have done better. It says
//! nothing in favour of a supervisor that is late by itself: that one has the lower priority.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

use crate::clock::Moment;
use crate::processor;

/// How often it looks. A stall is seen with this resolution, and it costs 2 % of the slowest rig.
const STEP: Duration = Duration::from_millis(5);
/// Wakes that are later than this are noted.
const NOTEWORTHY: Duration = Duration::from_millis(1);
/// Above the supervisor, which has 80 unless told otherwise.
const PRIORITY: i32 = 90;

#[derive(Debug, Default)]
struct Shared {
    /// When a wake was due and when it came.
    late: Mutex<Vec<(Moment, Moment)>>,
    ending: AtomicBool,
}

/// The thread and what it has seen.
#[derive(Debug)]
pub struct Stalls {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Stalls {
    /// Watches from now on.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn watch() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("stalls".to_owned())
            .spawn(move || run(&for_thread))
            .context("cannot start a thread")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How much of the time between two moments the machine stood still, as far as it was seen.
    #[must_use]
    pub fn between(&self, from: Moment, until: Moment) -> Duration {
        let late = self.shared.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.iter().fold(Duration::ZERO, |sum, (due, came)| {
            let overlap = (*came).min(until).0 - (*due).max(from).0;
            sum + Duration::from_nanos(u64::try_from(overlap).unwrap_or(0))
        })
    }
}

impl Stalls {
    /// The longest single stall so far.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let late = self.shared.late.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = late.iter().map(|(due, came)| came.0 - due.0).max();
        Duration::from_nanos(longest.and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0))
    }
}

impl fmt::Display for Stalls {
    /// The longest stalls, and when each began.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut late = self.shared.late.lock().unwrap_or_else(PoisonError::into_inner).clone();
        late.sort_by_key(|(due, came)| due.0 - came.0);
        late.iter().take(5).try_for_each(|(due, came)| {
            let millis = came.millis_since(*due);
            write!(f, "{millis:.1} ms at {due}; ")
        })
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot fail but by a panic, which has been shown.
            drop(thread.join());
        }
    }
}

fn run(shared: &Shared) {
    // Where it is refused, this thread is merely a worse witness.
    let _ = processor::run_before_others(0, PRIORITY);
    while !shared.ending.load(Ordering::Relaxed) {
        let due = Moment::now() + STEP;
        let time = TimeSpec::new(due.0 / 1_000_000_000, due.0 % 1_000_000_000);
        let slept = clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::TIMER_ABSTIME, &time);
        let came = Moment::now();
        if slept.is_ok() && came > due + NOTEWORTHY {
            shared.late.lock().unwrap_or_else(PoisonError::into_inner).push((due, came));
        }
    }
}
