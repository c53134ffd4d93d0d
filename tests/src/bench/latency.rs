//! How late trips are beside cyclictest, on an idle machine and on a busy one, and the watchdogs that users write.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::child::{die_with_parent, numbers, role};
use super::figures::Figures;
use super::progress;
use super::{Tools, cyclictest, load};
use tests::stats::{Summary, summary};

/// What is measured on an idle machine begins with one of these.
pub const IDLE: &[&str] = &["trip.idle.", "cyclictest.idle."];
/// What is measured on a busy one begins with one of these.
pub const LOADED: &[&str] = &["trip.loaded.", "cyclictest.loaded.", "naive."];

/// Ours and cyclictest take turns, so that both see the same machine.
const SLICES: usize = 10;
/// Time of one slice of either: 10 of them are some 14000 wake-ups, of which 14 lie beyond the p99.9.
const SLICE: Duration = Duration::from_millis(1500);
/// From one trip to the next, and from one wake-up to the next: about cyclictest's own default, and no multiple of
/// the supervisor's tick.
const PITCH: Duration = Duration::from_micros(1037);
/// Time of each naive watchdog.
const NAIVE: Duration = Duration::from_secs(6);
/// The watchdog in Python.
const SCRIPT: &str = include_str!("../../clients/naive_watchdog.py");

/// An idle machine, as far as we are concerned.
///
/// # Errors
/// Anything that is measured cannot be started.
pub fn idle(tools: &Tools, figures: &mut Figures) -> Result<()> {
    both("idle", &tools.cyclictest, figures)
}

/// Four busy threads per core.
///
/// # Errors
/// Anything that is measured cannot be started.
pub fn loaded(tools: &Tools, figures: &mut Figures) -> Result<()> {
    let _load = load::start()?;
    both("loaded", &tools.cyclictest, figures)?;
    let millis = NAIVE.as_millis().to_string();
    progress("the watchdog in tokio");
    let tokio = numbers(&mut role("naive-tokio", [&millis])?)?;
    figures.note("naive.tokio.loaded.p99_us", some(tokio)?.p99);
    progress("the watchdog with python-can");
    let mut python = Command::new(&tools.python);
    python.args(["-c", SCRIPT, &millis]);
    die_with_parent(&mut python);
    figures.note("naive.python_can.loaded.p99_us", some(numbers(&mut python)?)?.p99);
    Ok(())
}

fn both(state: &str, program: &Path, figures: &mut Figures) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for slice in 1..=SLICES {
        progress(&format!("trips and cyclictest, {state}, slice {slice} of {SLICES}"));
        ours.extend(trips(SLICE, PITCH, None)?);
        theirs.extend(cyclictest::run(program, SLICE, PITCH)?);
    }
    figures.note(format!("trip.{state}.trips"), f64::from(u32::try_from(ours.len())?));
    figures.note_quantiles(&format!("trip.{state}"), &some(ours)?);
    figures.note_quantiles(&format!("cyclictest.{state}"), &some(theirs)?);
    Ok(())
}

/// Trips in a process of their own, as the supervisor is one.
///
/// # Errors
/// It fails.
pub fn trips(time: Duration, pitch: Duration, interface: Option<&str>) -> Result<Vec<u64>> {
    let arguments = [time.as_millis().to_string(), pitch.as_micros().to_string()];
    numbers(&mut role("trips", arguments.iter().map(String::as_str).chain(interface))?)
}

fn some(samples: Vec<u64>) -> Result<Summary> {
    summary(samples).context("not a single sample")
}
