//! The system machine: a whole Debian that boots, with Lanyard's package installed, and the tests that run in it.
//!
//! What lives here: `cargo xtask test --only system` on the host's side. [`image`] builds the Debian, once;
//! [`first`] is what the machine's kernel starts with, and puts the package into a fresh copy of it; [`machine`] is
//! the emulated PC; [`report`] reads what the tests in it say. The tests themselves are the program `tests/tests/system`.
//! What must never: a test that is left out because something is missing. See docs/rig.md.

mod first;
mod image;
mod machine;
mod report;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::first::Payload;
use self::report::Reading;
use crate::install::stripped;
use crate::package::{self, Arch, Profile};
use crate::packages::remove_folder;
use crate::rig;
use crate::tally::Tally;
use crate::told::Told;
use crate::workspace::{Workspace, say};

/// The test program, a target of the crate `tests`.
pub const PROGRAM: &str = "system";

/// How the folder of one run is called, the number of its process behind it.
const RUN: &str = "run.";

/// What one start of the machine came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the test program counted, in every boot.
    pub tally: Tally,
    /// What the test program told of each test, in every boot.
    pub told: Told,
    /// What went wrong besides failing tests.
    pub problems: Vec<String>,
}

/// What the machine is to do.
#[derive(Debug)]
pub struct Order<'a> {
    /// The test program.
    pub program: &'a Path,
    /// What it is told to run; empty: everything, in all boots.
    pub arguments: &'a [&'a str],
    /// After which time the machine is switched off.
    pub timeout: Duration,
}

/// Boots the machine with the package of this tree, and runs the tests in it.
///
/// # Errors
/// When the machine cannot be had. A machine that hangs or dies is a problem of the [`Outcome`].
pub fn run(workspace: &Workspace, order: &Order<'_>) -> Result<Outcome> {
    let folder = workspace.target.join("system");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let kernel = rig::qemu::kernel(workspace)?;
    let image = image::ensure(workspace, &folder, &kernel)?;
    sweep(&folder)?;
    let run = folder.join(format!("{RUN}{}", std::process::id()));
    fs::create_dir_all(&run)?;
    let outcome = boot(workspace, order, &kernel, &image, &run);
    // More than their last lines, for whoever looks into a failure.
    for log in [machine::JOURNAL, machine::KERNEL_LOG] {
        let _ = fs::rename(run.join(log), folder.join(log));
    }
    remove_folder(&run)?;
    outcome
}

/// Removes what runs have left that were killed.
fn sweep(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let living =
            |pid: &str| Path::new("/proc").join(pid).exists() && pid != std::process::id().to_string();
        if name.strip_prefix(RUN).is_some_and(|pid| !living(pid)) {
            remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

fn boot(
    workspace: &Workspace,
    order: &Order<'_>,
    kernel: &rig::qemu::Kernel,
    image: &Path,
    run: &Path,
) -> Result<Outcome> {
    let package = timed("the package", || package::build(workspace, Arch::Amd64, Profile::Dev))?;
    let (program, sim) = (run.join("system-test"), run.join("lanyard-sim"));
    stripped(order.program, &program)?;
    stripped(&workspace.target.join("debug/lanyard-sim"), &sim)?;
    let payload = Payload {
        package: &package,
        program: &program,
        sim: &sim,
        units: &workspace.root.join("systemd"),
        arguments: order.arguments,
    };
    let initramfs = first::write(workspace, kernel, &payload, run)?;
    say("system: the machine boots (PREEMPT_RT, 2 processors, 2 CAN controllers, hardware watchdog)");
    let started = Instant::now();
    let mut reading = Reading::default();
    let ending = machine::run(kernel, image, &initramfs, run, order.timeout, &mut |bytes| {
        rig::pass_through(bytes);
        reading.feed(bytes);
    })?;
    say(format!("system: the machine was on for {} s", started.elapsed().as_secs()));
    Ok(reading.outcome(ending, order.timeout, order.arguments.is_empty(), || machine::last_words(run)))
}

/// Does something that takes longer than a second, and says how long it took.
fn timed<T>(what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    say(format!("system: {what} ..."));
    let started = Instant::now();
    let made = act()?;
    say(format!("system: {what} took {:.0} s", started.elapsed().as_secs_f64()));
    Ok(made)
}
