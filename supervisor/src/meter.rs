//! What the real-time thread has cost since it armed: heap, page faults, context switches.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use shm_proto::Nanos;

use crate::allocator;
use crate::core::Cost;

/// How often it is read, nanoseconds: often enough for a person who watches, rarely enough to cost nothing
/// (one system call).
const EVERY: u64 = 100_000_000;

/// Reads the kernel's account of the calling thread.
#[derive(Debug)]
pub struct Meter {
    armed: Cost,
    due: Nanos,
}

impl Meter {
    /// Begins at the present moment, which is called arming: everything before does not count.
    #[must_use]
    pub fn arm() -> Self {
        allocator::watch_this_thread();
        Self { armed: read(), due: Nanos::ZERO }
    }

    /// The cost since arming, when it is time to tell it again.
    pub fn read(&mut self, now: Nanos) -> Option<Cost> {
        if now < self.due {
            return None;
        }
        self.due = now.after(EVERY);
        let total = read();
        Some(Cost {
            allocations: total.allocations - self.armed.allocations,
            minor_faults: total.minor_faults - self.armed.minor_faults,
            major_faults: total.major_faults - self.armed.major_faults,
            voluntary_switches: total.voluntary_switches - self.armed.voluntary_switches,
            involuntary_switches: total.involuntary_switches - self.armed.involuntary_switches,
        })
    }
}

fn read() -> Cost {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok();
    let number =
        |read: fn(&Usage) -> libc::c_long| usage.as_ref().map_or(0, |usage| read(usage).unsigned_abs());
    Cost {
        allocations: allocator::count(),
        minor_faults: number(Usage::minor_page_faults),
        major_faults: number(Usage::major_page_faults),
        voluntary_switches: number(Usage::voluntary_context_switches),
        involuntary_switches: number(Usage::involuntary_context_switches),
    }
}
