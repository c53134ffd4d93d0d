//! `cargo xtask order`: sequences of commands that nobody awaits, far more often than the tests play them.
//!
//! What lives here: making sure that everything is there, and starting it on a rig. The sequences and what is right are
//! in the crate `tests`, whose program `lanyard-order` prints the table.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::python;
use crate::rig::{self, Request, WhereArgs};
use crate::workspace::{Workspace, say};

/// Robots side by side: three keep the one processor of user-mode Linux busy; more only make each other late.
const ROBOTS: u32 = 3;

/// Arguments of `cargo xtask order`.
#[derive(Args, Debug)]
pub struct OrderArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// How often each sequence is played
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// How many robots play side by side, each on a CAN interface of its own: most of a sequence is waiting
    #[arg(long, default_value_t = ROBOTS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    robots: u32,
    /// Play only sequences with this in their name, such as "one segment: Stop" or "held"
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Leave out the first N of them, which were played before
    #[arg(long, default_value_t = 0, value_name = "N")]
    skip: usize,
    /// Everything is killed after this time
    #[arg(long, default_value_t = 43_200, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// `cargo xtask order`. The exit code is 0 when every sequence ended right every time.
///
/// # Errors
/// When something that it needs cannot be had.
pub fn main(workspace: &Workspace, args: &OrderArgs) -> Result<u8> {
    let python = python::ensure_venv(workspace, &python::CLIENTS)?;
    let packages = ["supervisor", "front", "ctl", "tests"];
    let build = ["build", "--release", "--bins"]
        .into_iter()
        .chain(packages.iter().flat_map(|package| ["-p", package]));
    workspace.run_cargo(&build.collect::<Vec<_>>())?;
    let programs = workspace.target.join("release");
    let mut command: Vec<OsString> = vec![programs.join("lanyard-order").into()];
    command.extend(["--bin-dir".into(), programs.into(), "--python".into(), python.into()]);
    command.extend(["--times".into(), args.times.to_string().into()]);
    command.extend(["--skip".into(), args.skip.to_string().into()]);
    command.extend(["--robots".into(), args.robots.to_string().into()]);
    command.extend(args.only.iter().flat_map(|only| ["--only".into(), only.into()]));
    say("playing sequences of commands; the progress is on stderr, the table on stdout");
    let mut request = Request::new(&args.place, &workspace.root, Duration::from_secs(args.timeout), command);
    request.vcans = args.robots;
    rig::run(workspace, &request, &mut rig::pass_through)
}
