//! Where and how urgently a thread runs.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Gives a thread a real-time priority (SCHED_FIFO, 1 to 99), this one if `thread` is 0.
///
/// # Errors
/// There is no such thread, or the system does not allow it.
pub fn run_before_others(thread: i32, priority: i32) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the call only reads `parameters`, which outlives it.
    let outcome = unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameters) };
    Errno::result(outcome)
        .with_context(|| format!("no real-time priority {priority} for thread {thread}"))
        .map(drop)
}

/// Keeps a thread on one processor, this one if `thread` is 0.
///
/// # Errors
/// There is no such thread or processor, or the kernel wants it elsewhere.
pub fn keep_on(thread: i32, processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(thread), &set)
        .with_context(|| format!("cannot keep thread {thread} on processor {processor}"))
}
