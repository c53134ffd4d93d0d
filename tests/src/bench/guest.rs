//! What needs CAN where the host has none: measured inside QEMU, whose clock counts instructions (icount) and so
//! does not depend on how busy the host is.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::child::{die_with_parent, numbers, printed, role};
use super::figures::Figures;
use super::{Tools, cyclictest, footprint, latency, progress};
use tests::stats::{micros, summary};

/// What is measured in there.
pub const NAMES: &[&str] = &[
    "trip.icount.",
    "cyclictest.icount.",
    "stop64.icount_us",
    "supervisor.rss_kib",
    "supervisor.private_kib.",
    "supervisor.faults",
    "supervisor.allocations",
];

/// The rig's interface.
const INTERFACE: &str = "vcan0";
/// Time of either by the guest's clock, and from one trip to the next: a processor of 125 MIPS needs about a
/// millisecond for all that belongs to a trip, the front's and the drive's part included.
const TIME: Duration = Duration::from_secs(4);
const PITCH: Duration = Duration::from_micros(10_370);
/// The guest's disk is the host's over 9p, and while it is waited for the guest's clock leaps: everything is
/// copied to memory first.
const COPY: &str = "cp \"$1\" \"$2\" \"$3\" /tmp/ && cd /tmp && \
                    exec ./lanyard-bench guest ./lanyard-supervisor ./cyclictest";
/// Stops of 64 motors.
pub const ROUNDS: usize = 10;

/// Starts the guest with the role `guest` in it and takes over its figures.
///
/// # Errors
/// There is no rig, or a measurement in it fails.
pub fn measure(tools: &Tools, figures: &mut Figures) -> Result<()> {
    progress("what needs CAN, in QEMU with icount (about a minute)");
    let rig = tools.rig.as_deref().context("no rig: start the benchmark with `cargo xtask bench`")?;
    let mut command = Command::new(rig);
    command
        .args(["rig", "--kind", "qemu", "--icount", "--timeout", "240", "--"])
        .args(["sh", "-c", COPY, "sh"])
        .arg(std::env::current_exe()?)
        .arg(&tools.supervisor)
        .arg(&tools.cyclictest);
    die_with_parent(&mut command);
    let text = printed(&mut command)?;
    let json = text.lines().rfind(|line| line.starts_with('{')).context("the guest printed no figures")?;
    figures.take_over(json)
}

/// The role `guest`: prints its figures as JSON.
///
/// # Errors
/// A measurement fails.
pub fn run(supervisor: &Path, program: &Path) -> Result<()> {
    let mut figures = Figures::default();
    progress("guest: trips");
    let ours = summary(latency::trips(TIME, PITCH, Some(INTERFACE))?).context("no trip")?;
    figures.note("trip.icount.avg_us", ours.avg);
    figures.note("trip.icount.max_us", ours.max);
    progress("guest: cyclictest");
    let theirs = summary(cyclictest::run(program, TIME, PITCH)?).context("no wake-up")?;
    figures.note("cyclictest.icount.avg_us", theirs.avg);
    figures.note("cyclictest.icount.max_us", theirs.max);
    progress("guest: 64 motors");
    let mut spans = numbers(&mut role("stop64", [&ROUNDS.to_string(), INTERFACE])?)?;
    spans.sort_unstable();
    figures.note("stop64.icount_us", micros(spans[spans.len() / 2]));
    progress("guest: memory");
    footprint::memory(supervisor, INTERFACE, &mut figures)?;
    println!("{}", figures.to_json()?);
    Ok(())
}
