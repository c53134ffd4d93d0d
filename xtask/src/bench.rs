//! `cargo xtask bench`: what the release build weighs and how fast it is.
//!
//! What lives here: building for release, the size of the supervisor, and starting the benchmark
//! program `lanyard-bench` of the crate `tests`. It runs on this machine itself, because time measured
//! inside an emulated machine means nothing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::Workspace;

/// Arguments of `cargo xtask bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Also write the results to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// `cargo xtask bench`.
///
/// # Errors
/// When something does not build, or there is no benchmark program.
pub fn main(workspace: &Workspace, args: &BenchArgs) -> Result<u8> {
    workspace.run_cargo(&["build", "--release", "--bins", "-p", "supervisor"])?;
    let release = workspace.target.join("release");
    for name in workspace.binaries_of("supervisor") {
        // The release profile strips what it builds.
        let path = release.join(&name);
        let size = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
        println!("{name}: {size} bytes, stripped");
    }
    if !workspace.binaries_of("tests").iter().any(|name| name == "lanyard-bench") {
        bail!("there are no benchmarks yet: the crate `tests` has no program lanyard-bench");
    }
    workspace.run_cargo(&["build", "--release", "-p", "tests", "--bin", "lanyard-bench"])?;
    let mut command = Command::new(release.join("lanyard-bench"));
    if let Some(file) = &args.json {
        command.arg("--json").arg(file);
    }
    let status = command.status().context("cannot start lanyard-bench")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
