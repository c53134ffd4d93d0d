//! The rig: a machine with CAN interfaces and a wire to each (vxcan), wherever this is run.
//!
//! What lives here: what can be asked of a rig ([`Request`]), the choice between its kinds, and
//! `cargo xtask rig`. The kinds have a file each: [`native`] is this machine itself, [`uml`] a
//! user-mode Linux with this machine's files, [`qemu`] an emulated PC with a PREEMPT_RT kernel.
//! [`guest`] is what the last two share, [`death`] what is said of one that does not start, [`sandbox`] what all three do. See
//! docs/rig.md.

pub mod cpio;
pub mod death;
pub mod guest;
pub mod modules;
pub mod native;
pub mod qemu;
pub mod sandbox;
pub mod uml;

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use clap::{Args, ValueEnum};

use self::death::NotStarted;
use crate::workspace::{Workspace, say};

/// Exit code of a run that took too long, the same as timeout(1)'s.
pub const TIMED_OUT: u8 = 124;

/// Interfaces of a machine, unless more are asked for: a robot's bus, and one for what has two.
pub const VCANS: u32 = 2;

/// Which machine the command runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// This machine, if its kernel has CAN
    Native,
    /// User-mode Linux: starts in seconds, one CPU, no meaningful time measurements
    Uml,
    /// An emulated PC with a PREEMPT_RT kernel and several CPUs: slow, closest to the real thing
    Qemu,
}

impl Kind {
    /// The name on the command line and in the variable RIG.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Uml => "uml",
            Self::Qemu => "qemu",
        }
    }
}

/// What the emulated PC has on its CAN besides the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controllers {
    /// Nothing.
    None,
    /// `can0` and `can1`, two SJA1000 (kvaser_pci) on one wire, 500 kbit/s, up.
    Pair,
}

/// What drives the clock of the emulated PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's clock.
    Host,
    /// The instructions the emulated processor has executed: a busy host makes it slower, never later.
    Instructions,
}

/// Where to run, shared by all tasks that use a rig.
#[derive(Args, Clone, Debug)]
pub struct WhereArgs {
    /// Machine to use [default: native if this kernel has CAN, else uml]
    #[arg(long, value_enum)]
    pub kind: Option<Kind>,
    /// Memory of the uml or qemu machine
    #[arg(long, default_value = "1G", value_parser = parse_memory)]
    pub mem: String,
    /// Processors of the qemu machine (uml always has one) [default: 2; with --icount 1]
    #[arg(long)]
    pub cpus: Option<u32>,
}

/// Arguments of `cargo xtask rig`.
#[derive(Args, Debug)]
pub struct RigArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Folder the command may change; elsewhere its changes are lost (target/ always is one of them)
    #[arg(long, value_name = "DIR")]
    rw: Vec<PathBuf>,
    /// Give the machine can0 and can1 too, emulated controllers on one wire (only with --kind qemu)
    #[arg(long)]
    controller: bool,
    /// Tie the machine's clock to the instructions it executes (only with --kind qemu, one processor)
    #[arg(long)]
    icount: bool,
    /// Number of pairs of interfaces: vcan0 and wire0, vcan1 and wire1, ...
    #[arg(long, default_value_t = VCANS, value_name = "N")]
    vcans: u32,
    /// Everything is killed after this time
    #[arg(long, default_value_t = 300, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Variable for the command, NAME=VALUE or only NAME to pass it on; PATH, HOME, USER, LANG,
    /// LANYARD_* and RUST_* are always passed on
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn parse_memory(text: &str) -> Result<String, String> {
    let digits = text.strip_suffix(['M', 'G']).unwrap_or_default();
    match digits.parse::<u32>() {
        Ok(1..) => Ok(text.to_owned()),
        _ => Err("write a whole number and M or G, such as 512M or 1G".into()),
    }
}

/// One command to run on a rig.
#[derive(Debug)]
pub struct Request {
    /// Which machine and how big.
    pub place: WhereArgs,
    /// Folders whose changes are kept, besides the workspace's target folder.
    pub rw: Vec<PathBuf>,
    /// How many pairs of CAN interfaces.
    pub vcans: u32,
    /// What CAN controllers there are; other than none only for [`Kind::Qemu`].
    pub controllers: Controllers,
    /// What drives the clock; other than the host only for [`Kind::Qemu`].
    pub clock: Clock,
    /// After which time everything is killed.
    pub timeout: Duration,
    /// Variables set for the command, over the ones that are always passed on.
    pub env: Vec<(OsString, OsString)>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Program and arguments.
    pub command: Vec<OsString>,
}

impl Request {
    /// A command in the given folder, two interfaces, nothing writable but the target folder.
    pub fn new(place: &WhereArgs, cwd: &Path, timeout: Duration, command: Vec<OsString>) -> Self {
        Self {
            place: place.clone(),
            rw: Vec::new(),
            vcans: VCANS,
            controllers: Controllers::None,
            clock: Clock::Host,
            timeout,
            env: Vec::new(),
            cwd: cwd.to_owned(),
            command,
        }
    }
}

/// `cargo xtask rig`.
///
/// # Errors
/// When no rig can be had. Never when the command fails: that is its exit code.
pub fn main(workspace: &Workspace, args: &RigArgs) -> Result<u8> {
    let cwd = env::current_dir().context("the current folder is gone")?;
    let mut request =
        Request::new(&args.place, &cwd, Duration::from_secs(args.timeout), args.command.clone());
    request.vcans = args.vcans;
    if args.controller {
        request.controllers = Controllers::Pair;
    }
    if args.icount {
        request.clock = Clock::Instructions;
    }
    for folder in &args.rw {
        let full = folder.canonicalize().with_context(|| format!("--rw {}", folder.display()))?;
        if !full.is_dir() {
            bail!("--rw {}: not a folder", folder.display());
        }
        request.rw.push(full);
    }
    for variable in &args.env {
        match variable.split_once('=') {
            Some((name, value)) => request.env.push((name.into(), value.into())),
            None => request.env.extend(env::var_os(variable).map(|value| (variable.into(), value))),
        }
    }
    run(workspace, &request, &mut pass_through)
        .map_err(|error| with_way_out(error, "cargo xtask rig --kind qemu -- COMMAND"))
}

/// Hands a piece of the command's stdout on to ours. Errors are ignored: when nobody reads any
/// more, the command shall still run to its end.
pub fn pass_through(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Runs a command on a rig and returns its exit code, or [`TIMED_OUT`]. The command's stdout goes
/// to `stdout` as it comes, its stderr to ours.
///
/// # Errors
/// When no rig of the wanted kind can be had or it dies. There is no skipping.
pub fn run(workspace: &Workspace, request: &Request, stdout: sandbox::Sink<'_>) -> Result<u8> {
    check(request)?;
    match choose(&request.place, request.vcans) {
        Kind::Native => {
            native::ensure(request.vcans).context("no native rig (--kind native)")?;
            native::run(request, stdout)
        }
        Kind::Uml => uml::run(workspace, request, stdout).context("no uml rig (--kind uml)"),
        Kind::Qemu => qemu::run(workspace, request, stdout).context("no qemu rig (--kind qemu)"),
    }
}

/// Whether user-mode Linux did not even begin with the command. Where it does not start once, it never does.
pub fn is_uml_dead(error: &Error) -> bool {
    error.downcast_ref::<NotStarted>().is_some_and(|dead| dead.kind == Kind::Uml)
}

/// Adds to an error the command that does not need what has failed, if there is one: QEMU in place of user-mode Linux.
pub fn with_way_out(error: Error, command: &str) -> Error {
    if is_uml_dead(&error) { anyhow!("{error:#}. `{command}` uses an emulated PC instead") } else { error }
}

/// The kind of machine that was asked for; otherwise this machine if its kernel has CAN, or user-mode Linux, saying
/// why.
pub fn choose(place: &WhereArgs, vcans: u32) -> Kind {
    place.kind.unwrap_or_else(|| match native::ensure(vcans) {
        Ok(()) => Kind::Native,
        Err(reason) => {
            say(format!("rig: user-mode Linux, because {reason:#}"));
            Kind::Uml
        }
    })
}

/// Refuses what only the emulated PC can do on another machine, instead of leaving it out.
fn check(request: &Request) -> Result<()> {
    let qemu = request.place.kind == Some(Kind::Qemu);
    if request.controllers != Controllers::None && !qemu {
        bail!("--controller needs --kind qemu: only the emulated PC has CAN controllers");
    }
    if request.clock == Clock::Instructions {
        if !qemu {
            bail!("--icount needs --kind qemu: only an emulated processor's instructions can be counted");
        }
        if let Some(cpus) = request.place.cpus.filter(|cpus| *cpus != 1) {
            bail!("--icount goes with one processor, not --cpus {cpus}: two would have to take turns");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use anyhow::{Context, Result, anyhow};

    use super::death::NotStarted;
    use super::{
        Clock, Controllers, Kind, Request, WhereArgs, check, is_uml_dead, parse_memory, with_way_out,
    };

    fn request(kind: Option<Kind>, cpus: Option<u32>) -> Request {
        let place = WhereArgs { kind, mem: "1G".into(), cpus };
        Request::new(&place, Path::new("/"), Duration::from_secs(1), Vec::new())
    }

    #[test]
    fn what_only_qemu_can_do_is_refused_elsewhere() {
        for kind in [None, Some(Kind::Native), Some(Kind::Uml)] {
            assert!(check(&request(kind, None)).is_ok());
            let controller = Request { controllers: Controllers::Pair, ..request(kind, None) };
            assert!(check(&controller).unwrap_err().to_string().contains("--kind qemu"));
            let icount = Request { clock: Clock::Instructions, ..request(kind, None) };
            assert!(check(&icount).unwrap_err().to_string().contains("--kind qemu"));
        }
        let qemu = |cpus| Request {
            controllers: Controllers::Pair,
            clock: Clock::Instructions,
            ..request(Some(Kind::Qemu), cpus)
        };
        assert!(check(&qemu(None)).is_ok());
        assert!(check(&qemu(Some(1))).is_ok());
        assert!(check(&qemu(Some(2))).unwrap_err().to_string().contains("--cpus 2"));
    }

    #[test]
    fn only_a_dead_user_mode_linux_has_a_way_out() {
        let dead = |kind| {
            let cause = "it said nothing".to_owned();
            let result: Result<()> = Err(NotStarted { kind, code: 134, cause, log: "/x".into() }.into());
            result.context("no rig").unwrap_err()
        };
        assert!(is_uml_dead(&dead(Kind::Uml)));
        let told = with_way_out(dead(Kind::Uml), "cargo xtask test --kind qemu").to_string();
        assert!(told.starts_with("no rig: user-mode Linux died"), "{told}");
        assert!(told.contains("`cargo xtask test --kind qemu`") && told.lines().count() == 1, "{told}");
        for other in [dead(Kind::Qemu), anyhow!("no apt-get")] {
            assert!(!is_uml_dead(&other));
            let told = format!("{other:#}");
            assert_eq!(format!("{:#}", with_way_out(other, "cargo xtask test --kind qemu")), told);
        }
    }

    #[test]
    fn memory_sizes() {
        assert_eq!(parse_memory("512M").unwrap(), "512M");
        assert_eq!(parse_memory("2G").unwrap(), "2G");
        for wrong in ["", "G", "0G", "1", "1T", "1 G", "-1G", "1G x=y"] {
            assert!(parse_memory(wrong).is_err(), "{wrong}");
        }
    }
}
