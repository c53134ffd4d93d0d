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
use tests::sim::{Drive, check_together};

/// Behaves on a CAN interface as real motor drives would, and as broken ones do when told to.
///
/// Prints "lanyard-sim: ready" when the drives are on the bus, and ends on SIGTERM or SIGINT.
#[derive(Debug, Parser)]
#[command(name = "lanyard-sim", after_help = AFTER_HELP)]
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

const AFTER_HELP: &str = "\
Keys of all drives (default):
  node                 node id
  accel (20)           acceleration limit, rev/s^2
  quick_decel (60)     deceleration of a quick stop, rev/s^2
  friction (0.15)      time constant of coasting, s
  noise (0)            noise of the reported velocity, rev/s
  running              already turning at this velocity, rev/s
  heartbeat_ms (100)   0 = never

Keys of odrive:
  firmware (0.6)       0.5 or 0.6
  extended (off)       29-bit identifiers
  encoder_ms (10)      encoder estimates, 0 = never
  watchdog_ms (0)      the drive's own watchdog, 0 = off
  watchdog_idle (on)   whether the watchdog also runs while idle
  control_mode (3)     at power-on: 1 torque, 2 velocity, 3 position
  torque_gain (20)     rev/s^2 for each Nm
  vel_limit (50)       rev/s

Keys of cia402:
  tpdo_ms (10)         TPDO 1, 0 = never
  counts_per_rev (4096)
  mode (3)             object 6060: 0, 3, 9
  abort_option (1)     object 6007: 0 nothing, 1 fault, 2 disable voltage, 3 quick stop
  nmt_stop_aborts (on) whether NMT stop applies object 6007
  quick_stop_option (2), halt_option (1), fault_reaction (2)   objects 605A, 605D, 605E
  consumer_node, consumer_ms (0)   object 1016:1
  rpdo_type, tpdo_type (255)       objects 1400:2, 1800:2

Commands on the control socket:
  status | NODE status
  NODE ignore controlled|quick|torque-off|all on|off
  NODE ignore-velocity-zero on|off
  NODE mute|offline|feedback-loss|jam [on|off]
  NODE push VELOCITY|off
  NODE fault CODE      0 takes all faults away
  NODE power-cycle";

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
