//! `lanyard-demo`: Lanyard at work, from a client's last heartbeat to the proof that every motor stands still.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use tests::demo::{Report, Timeline, behind, kortex, play, tunnel};
use tests::python::Clients;
use tests::robot::Setup;

/// Drives a simulated robot with an unmodified Viam client over a CAN interface, kills the client, the front,
/// and ends the supervisor, and shows what the bus saw.
///
/// Exit code 0: everything that is claimed held.
#[derive(Debug, Parser)]
#[command(name = "lanyard-demo")]
struct Arguments {
    /// Folder with lanyard-supervisor, lanyard-front, lanyard and lanyard-sim
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,

    /// Python with viam-sdk
    #[arg(long, value_name = "PROGRAM")]
    python: PathBuf,

    /// CAN interface to use; nothing else may be on it
    #[arg(long, value_name = "INTERFACE", default_value = "vcan0")]
    bus: String,

    /// Put Lanyard in front of a server of Viam's that drives the motors by itself, as docs/viam.md says, and kill
    /// the client and that server
    #[arg(long)]
    viam_upstream: bool,

    /// Have a program for Kinova's arms drive two motors as the joints of one, as docs/kortex.md says; kill it, and pause
    /// another one
    #[arg(long, conflicts_with = "viam_upstream")]
    kortex: bool,

    /// Have an unmodified python-can drive two motors through a supervised link that hoprd's session API has opened, as
    /// docs/tunnels.md says; kill it, pause another one, and close the link of a third
    #[arg(long, conflicts_with_all = ["viam_upstream", "kortex"])]
    tunnel: bool,

    /// Print the measurements as one JSON object to stdout; the text for people goes to stderr
    #[arg(long)]
    json: bool,
}

const ALONE: &str = "Lanyard stops a robot whose driver falls silent. Two ODrive wheels and a CiA 402 arm are simulated\n\
     on a CAN bus; everything else is real. Times of frames are the kernel's, taken by a witness on the\n\
     bus. A window is how long a client may be silent: 2 s here, as with viam-server.\n";

const BEHIND: &str = "Lanyard in front of a server of Viam's, which changes nothing. Two ODrive wheels are simulated on a CAN\n\
     bus, and the server drives them by itself; everything else is real. Times of frames are the kernel's,\n\
     taken by a witness on the bus. A window is how long a client may be silent: 2 s, as it was.";

const KORTEX: &str = "A program for Kinova's arms (Kortex 2) drives two motors on a CAN bus as the joints of an arm. The motors and\n\
     the program are written for this; everything else is real. Times of frames are the kernel's, taken by a\n\
     witness on the bus. The program may be silent for 2 s, as in Kinova's examples.\n";

const TUNNEL: &str = "A program that knows nothing of Lanyard drives two motors on a CAN bus: python-can, unmodified, over a link that\n\
     hoprd's session API has opened. The motors are simulated, and so is the socketcand at the end of the link,\n\
     with real CAN sockets; everything else is real. Times of frames are the kernel's, taken by a witness on the\n\
     bus. The program may be silent for 2 s.\n";

fn run(arguments: &Arguments) -> Result<Report> {
    let out: Box<dyn Write> = if arguments.json { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
    let mut timeline = Timeline::new(out);
    let mut clients = Clients::start_with(&arguments.python)?;
    let report = if arguments.viam_upstream {
        timeline.line(BEHIND);
        behind::play(&arguments.bus, &arguments.bin_dir, &mut clients, &mut timeline)
    } else if arguments.kortex {
        timeline.line(KORTEX);
        kortex::play(&arguments.bus, &arguments.bin_dir, &mut clients, &mut timeline)
    } else if arguments.tunnel {
        timeline.line(TUNNEL);
        tunnel::play(&arguments.bus, &arguments.bin_dir, &mut clients, &mut timeline)
    } else {
        timeline.line(ALONE);
        let setup = Setup::base().on(&arguments.bus).programs(&arguments.bin_dir);
        play(setup, &mut clients, &mut timeline)
    };
    timeline.line("");
    for act in &report.acts {
        let slowest = act.motors.iter().map(|motor| motor.standstill_ms).fold(0.0, f64::max);
        timeline.line(&format!(
            "{:<22} stop frames {:.3} ms after the deadline, all motors still {slowest:.0} ms after that",
            act.name,
            act.deadline_to_stop_us / 1e3,
        ));
    }
    timeline.line(if report.ok { "everything held" } else { "NOT everything held" });
    Ok(report)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let report = run(&arguments).unwrap_or_else(|error| {
        eprintln!("lanyard-demo: {error:#}");
        Report { error: Some(format!("{error:#}")), ..Report::default() }
    });
    if arguments.json {
        let json = serde_json::to_string(&report).context("the report as JSON");
        println!("{}", json.unwrap_or_else(|error| format!("{{\"ok\":false,\"error\":\"{error}\"}}")));
    }
    if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
