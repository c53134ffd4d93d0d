//! `cargo xtask bench`: what the release build weighs and how fast it is.
//!
//! What lives here: building for release, getting what it is compared with (cyclictest, python-can), and
//! starting the benchmark program `lanyard-bench` of the crate `tests`. It runs on this machine itself; for
//! what needs CAN it starts this program's qemu rig with a clock of instructions. Nothing is measured in
//! user-mode Linux, where time means nothing. The comparison with another commit is in [`crate::against`].

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use clap::Args;

use crate::against;
use crate::install::{CYCLICTEST, ensure_tool};
use crate::python;
use crate::workspace::{Workspace, say};

/// Arguments of `cargo xtask bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Also write the results to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only what has names that begin with this, such as shm. or trip.loaded
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Build this commit, too, run its benchmark and this tree's in turns, and print the ratios
    #[arg(long, value_name = "COMMIT")]
    against: Option<String>,
    /// How often each side of --against runs; every figure is the median of its runs
    #[arg(long, value_name = "N", default_value_t = 3, requires = "against", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// `cargo xtask bench`.
///
/// # Errors
/// When something does not build, or what it is compared with cannot be had.
pub fn main(workspace: &Workspace, args: &BenchArgs) -> Result<u8> {
    // Before anything is built: a name that is none shall not cost ten minutes.
    let old = args.against.as_deref().map(|commit| against::check_out(workspace, commit)).transpose()?;
    let peers = Peers {
        cyclictest: ensure_tool(CYCLICTEST)?,
        python: python::ensure_venv(workspace, &python::CLIENTS)?,
    };
    let program = Program::build(workspace)?;
    if let Some(old) = old {
        let sides = against::Sides { new: program, old: Program::build(&old.workspace)?, commit: old.commit };
        return against::compare(&sides, &peers, args.only.as_deref(), args.rounds, args.json.as_deref());
    }
    say("measuring; leave the machine alone meanwhile");
    let status = program.run(&peers, args.only.as_deref(), args.json.as_deref(), Stdio::inherit())?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Other people's programs that ours are measured beside.
#[derive(Debug)]
pub struct Peers {
    cyclictest: PathBuf,
    python: PathBuf,
}

/// One commit's benchmark, built for release.
#[derive(Debug)]
pub struct Program {
    bench: PathBuf,
    supervisor: PathBuf,
}

impl Program {
    /// Builds it and prints what the supervisor weighs.
    ///
    /// # Errors
    /// When something does not build.
    pub fn build(workspace: &Workspace) -> Result<Self> {
        workspace.run_cargo(&["build", "--release", "--bins", "-p", "supervisor"])?;
        let release = workspace.target.join("release");
        for name in workspace.binaries_of("supervisor") {
            // The release profile strips what it builds.
            let path = release.join(&name);
            let size = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
            println!("{name}: {size} bytes, stripped");
        }
        // By itself: built together with the supervisor, cargo would give both the features of either.
        workspace.run_cargo(&[
            "build",
            "--release",
            "-p",
            "tests",
            "--features",
            "bench",
            "--bin",
            "lanyard-bench",
        ])?;
        Ok(Self { bench: release.join("lanyard-bench"), supervisor: release.join("lanyard-supervisor") })
    }

    /// Runs it; the table for people goes to `table`, the figures to the file `json`.
    ///
    /// # Errors
    /// When it cannot be started. A benchmark that fails is a status.
    pub fn run(
        &self,
        peers: &Peers,
        only: Option<&str>,
        json: Option<&Path>,
        table: Stdio,
    ) -> Result<ExitStatus> {
        let mut command = Command::new(&self.bench);
        command.arg("--cyclictest").arg(&peers.cyclictest);
        command.arg("--python").arg(&peers.python);
        command.arg("--supervisor").arg(&self.supervisor);
        command.arg("--rig").arg(env::current_exe().context("cannot find this program")?);
        if let Some(file) = json {
            command.arg("--json").arg(file);
        }
        if let Some(only) = only {
            command.arg("--only").arg(only);
        }
        command.stdout(table).status().with_context(|| format!("cannot start {}", self.bench.display()))
    }
}
