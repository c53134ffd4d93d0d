//! `lanyard-sim`: simulated motor drives on a CAN interface.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use tests::processor;
use tests::sim::bus::Bus;
use tests::sim::control::Control;
use tests::sim::{Drive, check_together, registry};

/// Behaves on a CAN interface as real motor drives would, and as broken ones do when told to.
///
/// Prints "lanyard-sim: ready" when the drives are on the bus, and ends on SIGTERM or SIGINT.
#[derive(Debug, Parser)]
#[command(name = "lanyard-sim", after_help = after_help())]
struct Arguments {
    /// CAN interface, for example vcan0
    #[arg(long, value_name = "INTERFACE")]
    bus: String,

    /// A drive: odrive:node=3,firmware=0.6,... or cia402:node=5,... (repeatable)
    #[arg(long = "drive", value_name = "KIND:KEY=VALUE,...", required = true)]
    drives: Vec<String>,

    /// Unix stream socket for commands, one a line
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// Real-time priority (SCHED_FIFO): real drives have processors of their own, which no other program slows
    #[arg(long, value_name = "1..99")]
    priority: Option<i32>,

    /// End when the program that started this one ends
    #[arg(long)]
    exit_with_parent: bool,
}

const COMMANDS_HELP: &str = "\
Commands on the control socket:
  status | NODE status
  NODE ignore controlled|quick|torque-off|all on|off
  NODE ignore-velocity-zero on|off
  NODE mute|offline|feedback-loss|jam [on|off]
  NODE push VELOCITY|off
  NODE fault CODE      0 takes all faults away
  NODE power-cycle
  NODE mark            note the first stop of each kind anew";

fn after_help() -> String {
    format!("{}\n\n{COMMANDS_HELP}", registry::keys_help())
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.exit_with_parent {
        prctl::set_pdeathsig(Signal::SIGTERM).context("cannot watch the parent process")?;
    }
    let mut drives = arguments.drives.iter().map(|d| Drive::from_spec(d)).collect::<Result<Vec<_>>>()?;
    check_together(&drives)?;

    let mut ending = SigSet::empty();
    ending.add(Signal::SIGTERM);
    ending.add(Signal::SIGINT);
    ending.thread_block().context("cannot block signals")?;
    let signals = SignalFd::with_flags(&ending, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("cannot receive signals")?;

    let bus = Bus::open(&arguments.bus, &drives)?;
    let control = arguments.control.as_deref().map(Control::listen).transpose()?;
    if let Some(priority) = arguments.priority
        && let Err(error) = processor::run_before_others(0, priority)
    {
        eprintln!("lanyard-sim: other programs slow the drives: {error:#}");
    }
    println!("lanyard-sim: ready");
    bus.run(&mut drives, control, &signals)
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lanyard-sim: {e:#}");
            ExitCode::FAILURE
        }
    }
}
