//! `cargo xtask bench`: what the release build weighs and how fast it is.
//!
//! What lives here: building for release, getting what it is compared with (cyclictest, python-can), and
//! starting the benchmark program `lanyard-bench` of the crate `tests`. It runs on this machine itself; for
//! what needs CAN it starts this program's qemu rig with a clock of instructions. Nothing is measured in
//! user-mode Linux, where time means nothing.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

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
}

/// `cargo xtask bench`.
///
/// # Errors
/// When something does not build, or what it is compared with cannot be had.
pub fn main(workspace: &Workspace, args: &BenchArgs) -> Result<u8> {
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
    let mut command = Command::new(release.join("lanyard-bench"));
    command.arg("--cyclictest").arg(ensure_tool(CYCLICTEST)?);
    command.arg("--python").arg(python::ensure_venv(workspace, &python::CLIENTS)?);
    command.arg("--supervisor").arg(release.join("lanyard-supervisor"));
    command.arg("--rig").arg(env::current_exe().context("cannot find this program")?);
    if let Some(file) = &args.json {
        command.arg("--json").arg(file);
    }
    if let Some(only) = &args.only {
        command.arg("--only").arg(only);
    }
    say("measuring; leave the machine alone meanwhile");
    let status = command.status().context("cannot start lanyard-bench")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
