//! `cargo xtask demo`: the whole chain at work, on any machine.
//!
//! What lives here: making sure that everything the demo needs is there, and starting it on a rig.
//! The demo itself is the program `lanyard-demo` in the crate `tests`.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::python;
use crate::rig::{self, Kind, Request, WhereArgs};
use crate::workspace::{Workspace, say};

/// Arguments of `cargo xtask demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Put Lanyard in front of a server of Viam's, as docs/viam.md says
    #[arg(long)]
    viam_upstream: bool,
    /// Have a program for Kinova's arms drive two motors, as docs/kortex.md says
    #[arg(long, conflicts_with = "viam_upstream")]
    kortex: bool,
    /// Have an unmodified python-can drive two motors through a tunnel, as docs/tunnels.md says
    #[arg(long, conflicts_with_all = ["viam_upstream", "kortex"])]
    tunnel: bool,
    /// Print the measurements as JSON, and nothing else, to stdout
    #[arg(long)]
    json: bool,
    /// Everything is killed after this time
    #[arg(long, default_value_t = 300, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// `cargo xtask demo`.
///
/// # Errors
/// When something the demo needs cannot be had. A demo that fails is an exit code.
pub fn main(workspace: &Workspace, args: &DemoArgs) -> Result<u8> {
    if !workspace.binaries_of("tests").iter().any(|name| name == "lanyard-demo") {
        bail!("the crate `tests` has no program lanyard-demo (tests/src/bin/lanyard-demo.rs)");
    }
    let python = python::ensure_venv(workspace, &python::CLIENTS)?;
    workspace.run_cargo(&[
        "build",
        "--bins",
        "-p",
        "supervisor",
        "-p",
        "front",
        "-p",
        "ctl",
        "-p",
        "tests",
    ])?;
    let programs = workspace.target.join("debug");
    let mut command: Vec<OsString> = vec![programs.join("lanyard-demo").into()];
    command.extend(["--bin-dir".into(), programs.into(), "--python".into(), python.into()]);
    if args.viam_upstream {
        command.push("--viam-upstream".into());
    }
    if args.kortex {
        command.push("--kortex".into());
    }
    if args.tunnel {
        command.push("--tunnel".into());
    }
    if args.json {
        command.push("--json".into());
    }
    say("starting the demo");
    let mut request = Request::new(&args.place, &workspace.root, Duration::from_secs(args.timeout), command);
    match rig::run(workspace, &request, &mut rig::pass_through) {
        // The command has not begun, so nothing was printed yet.
        Err(error) if args.place.kind.is_none() && rig::is_uml_dead(&error) => {
            say(format!("{error:#}"));
            say("going on in an emulated PC (--kind qemu), which takes longer");
            request.place.kind = Some(Kind::Qemu);
            rig::run(workspace, &request, &mut rig::pass_through)
        }
        outcome => outcome.map_err(|error| rig::with_way_out(error, "cargo xtask demo --kind qemu")),
    }
}
