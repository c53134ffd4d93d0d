//! A session that drives a whole bus of motors falls silent: from the first to the last frame handed over.

use anyhow::{Result, ensure};
use shm_proto::{Nanos, SlotIndex};

use super::harness::{Harness, Outlet};

/// As many as one bus of ODrives has.
const MOTORS: u16 = 64;
/// Time ahead of the deadline, nanoseconds: enough for 64 grants.
const AHEAD: u64 = 60_000_000;
/// The stops are repeated after 200 ms: a longer round was interrupted and cannot be told from its repetition.
const ONE_ROUND: u64 = 150_000_000;

/// Stops all of them that many times; how long each took, nanoseconds.
///
/// # Errors
/// The real-time thread cannot be had, or grants nothing.
pub fn run(outlet: Outlet<'_>, rounds: usize) -> Result<Vec<u64>> {
    let mut harness = Harness::start(outlet, MOTORS)?;
    let motors: Vec<u16> = (0..MOTORS).collect();
    let mut spans = Vec::new();
    for round in 0..rounds {
        let slot = SlotIndex(u16::try_from(round % 64)?);
        let owner = harness.open(slot, &motors, Nanos::now().after(AHEAD))?;
        harness.until("all motors are granted", |harness| {
            let waiting: Vec<u16> =
                motors.iter().copied().filter(|motor| !harness.is_granted(*motor, owner)).collect();
            // A proof that is older than half a second is good for no grant.
            harness.let_some_rest(&waiting);
            waiting.is_empty()
        })?;
        harness.until("all motors are stopped", |harness| {
            motors.iter().all(|motor| harness.stamps.first(*motor).is_some())
        })?;
        let first = motors.iter().filter_map(|motor| harness.stamps.first(*motor)).min();
        let last = motors.iter().map(|motor| harness.stamps.last(*motor)).max();
        let span = last.unwrap_or(Nanos::NEVER).since(first.unwrap_or(Nanos::ZERO));
        if span < ONE_ROUND {
            spans.push(span);
        }
        harness.settle(MOTORS)?;
    }
    ensure!(spans.len() * 2 > rounds, "most rounds were interrupted for longer than {ONE_ROUND} ns");
    Ok(spans)
}
