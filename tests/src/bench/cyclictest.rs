//! The yardstick: how late this machine wakes a thread that does nothing, as cyclictest of rt-tests measures it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::readings::histogram;

use super::child::{die_with_parent, printed};
use super::realtime;

/// Latencies that are kept apart, microseconds. Longer ones only count.
const MOST: u64 = 100_000;

/// Wakes for that time every `pitch`, at the priority and on the CPU of what is measured; returns the latency of each wake-up,
/// nanoseconds (cyclictest reports whole microseconds, rounded down).
///
/// # Errors
/// It cannot be started, or prints something unknown.
pub fn run(program: &Path, time: Duration, pitch: Duration) -> Result<Vec<u64>> {
    let interval = u64::try_from(pitch.as_micros())?;
    let loops = u64::try_from(time.as_micros())? / interval;
    let mut command = Command::new(program);
    command
        .args(["--quiet", "--mlockall", "--policy=fifo", "--threads=1"])
        .arg(format!("--priority={}", realtime::PRIORITY))
        .arg(format!("--affinity={}", realtime::last_cpu()))
        .arg(format!("--interval={interval}"))
        .arg(format!("--loops={loops}"))
        .arg(format!("--histogram={MOST}"));
    die_with_parent(&mut command);
    let text = printed(&mut command)?;
    let (latencies, overflows) = histogram(&text)?;
    ensure!(overflows == 0, "cyclictest woke {overflows} times more than {MOST} us late");
    Ok(latencies)
}
