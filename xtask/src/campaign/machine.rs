//! The emulated PC in which the campaign runs, and the programs that run in it.
//!
//! Its clock counts instructions: the host may be busy, and nothing gets late by it. The guest sees the host's files over 9p, and
//! while it waits for them its clock leaps; so everything that runs is copied into its memory first.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::PROGRAM;
use crate::install::stripped;
use crate::jobs;
use crate::python;
use crate::rig::{self, Clock, Kind, Request, WhereArgs};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// The programs under test and the simulated drives.
const BINARIES: [&str; 4] = ["lanyard", "lanyard-front", "lanyard-sim", "lanyard-supervisor"];
/// The test program with the tests of the kernel-armed stop.
const VCAN: &str = "vcan";

/// All tests of the kernel-armed stop.
const KERNEL_TESTS: [&str; 2] = ["kernel_stop::", "kernel_stages::"];

/// Where everything that runs is in the guest's memory.
const INSIDE: &str = "/tmp/campaign";

/// By the host's clock, how long a cell may take: ten times what it does on a quiet computer, whose emulated PC is as fast as
/// its own clock.
const CELL_SECONDS: u64 = 60;
/// The same for the start of the machine.
const START_SECONDS: u64 = 240;

/// Programs that are ready for the guest.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
    /// Of the bytes of those that play cells.
    pub digest: u64,
    /// Of the bytes of the tests of the kernel-armed stop.
    pub tests_digest: u64,
}

impl Programs {
    /// Builds them and puts them side by side.
    ///
    /// # Errors
    /// When something does not build.
    pub fn build(workspace: &Workspace) -> Result<Self> {
        workspace.run_cargo(&["build", "--workspace", "--bins"])?;
        let tests = jobs::test_programs(workspace, &["test", "--workspace", "--no-run"])?;
        let folder = workspace.target.join("campaign/programs");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let built = BINARIES.iter().map(|name| (*name, workspace.target.join("debug").join(name)));
        let found = tests.into_iter().filter_map(|test| {
            let name = [PROGRAM, VCAN].into_iter().find(|name| test.name == *name)?;
            Some((name, test.path))
        });
        let (mut hasher, mut tests_hasher) = (DefaultHasher::new(), DefaultHasher::new());
        let mut programs: Vec<(&str, PathBuf)> = built.chain(found).collect();
        programs.sort();
        if programs.len() != BINARIES.len() + 2 {
            bail!("the crate `tests` lacks one of the test programs {PROGRAM} and {VCAN}");
        }
        for (name, path) in programs {
            let copy = folder.join(name);
            stripped(&path, &copy)?;
            let bytes = fs::read(&copy).with_context(|| format!("cannot read {}", copy.display()))?;
            bytes.hash(if name == VCAN { &mut tests_hasher } else { &mut hasher });
        }
        Ok(Self { folder, digest: hasher.finish(), tests_digest: tests_hasher.finish() })
    }

    /// The names of all cells.
    ///
    /// # Errors
    /// When the program does not list them.
    pub fn cells(&self) -> Result<Vec<String>> {
        let output =
            Command::new(self.folder.join(PROGRAM)).arg("list").output().context("cannot list the cells")?;
        if !output.status.success() {
            bail!("the campaign lists no cells: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }
}

/// Plays cells; each adds a line to the results.
///
/// # Errors
/// When the machine cannot be had, or dies.
pub fn play(workspace: &Workspace, programs: &Programs, cells: &[String], results: &Path) -> Result<()> {
    let mut command: Vec<OsString> =
        vec![format!("./{PROGRAM}").into(), "play".into(), "--results".into(), results.into()];
    command.extend(cells.iter().map(OsString::from));
    let count = u64::try_from(cells.len()).unwrap_or(u64::MAX);
    let seconds = START_SECONDS + CELL_SECONDS * count;
    run(workspace, programs, command, seconds, &[], &mut rig::pass_through)
}

/// Is healthy for so long; adds a line to the results.
///
/// # Errors
/// When the machine cannot be had, or dies.
pub fn healthy(workspace: &Workspace, programs: &Programs, seconds: u64, results: &Path) -> Result<()> {
    let command: Vec<OsString> = vec![
        format!("./{PROGRAM}").into(),
        "healthy".into(),
        "--results".into(),
        results.into(),
        seconds.to_string().into(),
    ];
    // By the host's clock it takes about as long, on a busy one a few times that.
    run(workspace, programs, command, START_SECONDS + 10 * seconds, &[], &mut rig::pass_through)
}

/// Runs all tests of the kernel-armed stop at the times of an installed robot.
///
/// # Errors
/// When the machine cannot be had, or dies.
pub fn kernel(workspace: &Workspace, programs: &Programs) -> Result<Tally> {
    /// All of them take ten minutes.
    const SECONDS: u64 = 2400;
    // The interpreter's libraries and the clients', with the date of each file: what was compiled of them stays valid. The
    // system's libraries are in the guest's memory once they were loaded, and the clock has leapt before the tests begin.
    const COPY: &str = "set -e; cp -a \"$1\" venv; for lib in /usr/lib/python3*; do cp -a \"$lib\" \"python-${lib##*/}\"; \
                        mount --bind \"python-${lib##*/}\" \"$lib\"; done; shift; \
                        venv/bin/python -c 'import can, canopen, grpc, paho.mqtt.client, viam.robot.client'; exec \"$@\"";
    let python = python::ensure_venv(workspace, &python::CLIENTS)?;
    let venv = python.parent().and_then(Path::parent).context("an interpreter outside of an environment")?;
    let mut command: Vec<OsString> = vec!["sh".into(), "-c".into(), COPY.into(), "sh".into(), venv.into()];
    command.extend([format!("./{VCAN}").into(), "--test-threads=1".into()]);
    command.extend(KERNEL_TESTS.iter().map(OsString::from));
    let mut tally = Tally::default();
    let environment = [
        ("LANYARD_PYTHON", format!("{INSIDE}/venv/bin/python").into()),
        ("LANYARD_SHIPPED_TIMES", "yes".into()),
    ];
    run(workspace, programs, command, SECONDS, &environment, &mut |bytes| {
        rig::pass_through(bytes);
        tally.feed(bytes);
    })?;
    if tally.passed + tally.failed == 0 {
        bail!("no test of the kernel-armed stop was run");
    }
    Ok(tally)
}

/// Copies the programs into the guest's memory and runs a command beside them.
fn run(
    workspace: &Workspace,
    programs: &Programs,
    command: Vec<OsString>,
    seconds: u64,
    environment: &[(&str, OsString)],
    stdout: rig::sandbox::Sink<'_>,
) -> Result<()> {
    const COPY: &str = "mkdir -p \"$1\" && cp \"$2\"/* \"$1\"/ && cd \"$1\" && shift 2 && exec \"$@\"";
    let mut words: Vec<OsString> = vec![
        "sh".into(),
        "-c".into(),
        COPY.into(),
        "sh".into(),
        INSIDE.into(),
        programs.folder.clone().into(),
    ];
    words.extend(command);
    let place = WhereArgs { kind: Some(Kind::Qemu), mem: "2G".into(), cpus: None };
    // Some tests read files of their crate.
    let folder = workspace.root.join("tests");
    let mut request = Request::new(&place, &folder, Duration::from_secs(seconds), words);
    request.clock = Clock::Instructions;
    request.env = vec![
        ("LANYARD_BIN_DIR".into(), INSIDE.into()),
        ("CARGO_MANIFEST_DIR".into(), folder.clone().into()),
        ("RUST_BACKTRACE".into(), "1".into()),
    ];
    request.env.extend(environment.iter().map(|(name, value)| (OsString::from(name), value.clone())));
    match rig::run(workspace, &request, stdout)? {
        // 101: the test harness has counted failures.
        0 | 101 => Ok(()),
        rig::TIMED_OUT => bail!("the campaign's machine was not done after {seconds} s"),
        code => bail!("the campaign's machine ended with exit code {code}"),
    }
}
