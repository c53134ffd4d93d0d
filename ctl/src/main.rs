//! The `lanyard` command: what a robot engineer types to see, stop and reset.
//!
//! What lives here: the command line, reading the verdict segment, rendering it as text or JSON; the doctor, who
//! asks drives harmless questions; and the keys of clients.
//!
//! What must never live here: a decision. Who may move and what is stopped is the supervisor's; this
//! program can only look, ask for a stop, ask for a reset, and say who may log in.
#![forbid(unsafe_code)]

mod check;
mod clock;
mod commands;
mod doctor;
mod estop;
mod events;
#[cfg(test)]
mod fixture;
mod groups;
mod health;
mod import;
mod keys;
mod manual;
mod output;
mod password;
mod source;
mod spans;
mod status;
mod table;
mod text;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use config::{Config, Supervisor};
use shm_proto::TripSeen;

use crate::estop::Ways;
use crate::source::Source;

const DEFAULT_SOCKET: &str = "/run/lanyard/supervisor.sock";

/// Everything went well, and `status` found everything in order.
const SUCCESS: u8 = 0;
/// The command failed; for `check`: the file has mistakes.
const FAILURE: u8 = 1;
/// `status` found something that needs a human.
const NOT_IN_ORDER: u8 = 2;
/// `doctor` found something to mend.
const TO_MEND: u8 = 1;
/// `doctor` could not look: there is no valid configuration that says at what.
const CANNOT_LOOK: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  lanyard status                     what every motor, session and bus is doing
  lanyard status --watch             the same on the whole screen, twice a second; q quits
  lanyard status --json | jq .motors one JSON object for scripts
  lanyard estop                      stop every motor now and keep it stopped
  lanyard reset 7                    allow motion again after trip 7
  lanyard reset 7.2                  the same, after its stop was violated twice
  lanyard events --follow            why did it stop? every trip with its figures
  lanyard check robot.toml           is this configuration right?
  lanyard doctor                     is this machine fit for it, and what has to be mended?
  lanyard keys add panel --role operate
                                     a key with which a client of that name may drive
  lanyard import-viam robot.json     a lanyard.toml for standing in front of that viam-server

Exit codes:
  0  done; for status: armed and everything in order
  1  an error: no supervisor, refused, a configuration with mistakes; doctor: something has to be mended
  2  status: something is tripped, latched, unverified, degraded or broken; doctor: cannot look

This is a protective stop on loss of communication. It is not a certified emergency stop.";

/// See, stop and reset a robot guarded by Lanyard, the dead-man's switch.
#[derive(Debug, Parser)]
#[command(name = "lanyard", version, after_help = EXAMPLES)]
struct Cli {
    /// Socket of the supervisor, beside which are those of `reset` and `estop` [default: /run/lanyard/supervisor.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Take the socket's path from this configuration file
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the supervisor, the motors, sessions and buses are doing
    ///
    /// Lines that begin with !! need you. Stages of a stop are counted from 1: a controlled stop, then
    /// torque off, then the drive's own emergency latch if it has one. Exit code 0: armed and in order;
    /// 2: something is tripped, latched, unverified, degraded or broken; 1: the supervisor could not be
    /// asked.
    Status {
        /// Print one JSON object; times ending in _ns are CLOCK_BOOTTIME, absent values are null
        #[arg(long)]
        json: bool,
        /// Redraw twice a second until q is pressed; without a terminal, print a block each second
        #[arg(long)]
        watch: bool,
    },
    /// Stop every motor now and keep all of them stopped until the trip is reset
    ///
    /// A protective stop in software, over the CAN bus. It does not replace the red button. It says "told to stop" once
    /// the supervisor shows it. Exit code 0: every motor was told to stop; those that are not proven to stand still are
    /// named. 1: nothing was stopped, or nothing shows that it was; the text says which.
    Estop,
    /// Clear one trip, so that its motors may be driven again; nothing moves by this
    ///
    /// Refused while a motor of the trip is not proven to stand still. The id is in `lanyard status`; it
    /// is asked for so that a late or blind reset never clears a trip that nobody has looked at. When somebody has moved
    /// a motor that the trip holds, `lanyard status` adds how often, and the bare number is refused.
    ///
    /// Only members of the group lanyard-operators may (`[supervisor] operator_group`).
    Reset {
        /// Number of the trip; 7.2 after its stop was violated twice
        #[arg(value_name = "TRIP")]
        trip: TripSeen,
    },
    /// Show what happened, oldest first: the last 256 trips, standstills, resets and faults
    ///
    /// For a trip: how long after the last beat the deadline lay, how long after the deadline the first
    /// stop frame was handed to the kernel, and how much later that of the last motor.
    Events {
        /// Print one JSON object a line; times ending in _ns are CLOCK_BOOTTIME, absent values are null
        #[arg(long)]
        json: bool,
        /// Go on with what happens from now on, across restarts of the supervisor
        #[arg(long)]
        follow: bool,
    },
    /// Check a configuration file without touching the machine
    ///
    /// Prints what it holds and what deserves a second look, or every mistake with its line.
    Check {
        /// The file [default: /etc/lanyard/lanyard.toml]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Look at what no file can show: this machine, its CAN interfaces, its drives, and who can call
    ///
    /// Says of each thing why it matters and what mends it: kernel, processors and clock; what the running
    /// supervisor was given; the CAN interfaces; the services and what watches over them; the keys and what is open
    /// to other computers. Asks every drive, over CAN, for the setting of its own watchdog, where its protocol can
    /// tell and while nobody drives it. Nothing is changed, nothing moves. Exit code 0: nothing has to be mended; 1:
    /// something has; 2: it cannot look.
    Doctor {
        /// The configuration [default: /etc/lanyard/lanyard.toml]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Print one JSON array of findings
        #[arg(long)]
        json: bool,
        /// Look at nothing else
        #[arg(long, value_enum, value_name = "AREA")]
        only: Option<doctor::Area>,
    },
    /// Make, list and revoke the keys with which clients log in
    ///
    /// The front notices a change within a second or two, also that a key is gone. See docs/access.md.
    Keys {
        #[command(subcommand)]
        what: keys::Command,
        /// The file of keys [default: "keys" in [front] of the configuration]
        #[arg(long, global = true, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Write a lanyard.toml for standing in front of a viam-server, from that server's own configuration
    ///
    /// What only a person can know (which drive hangs on which bus) is marked FILL IN, and `lanyard check` names
    /// these lines. What is not taken over is listed on stderr and in the file. Secrets are not copied.
    ImportViam {
        /// viam-server's configuration, as JSON: its own file, or what the Viam app shows under CONFIGURE, JSON
        #[arg(value_name = "ROBOT_JSON")]
        robot: PathBuf,
        /// Write to this file, which must not exist, instead of stdout
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print what a shell needs to complete this command's words; the package brings it for bash, zsh and fish
    ///
    /// For bash: lanyard completions bash > ~/.local/share/bash-completion/completions/lanyard
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages of this command and its subcommands, as the package brings them
    #[command(hide = true)]
    Man {
        /// The folder, which must exist
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap's own code for a wrong command line is 2, which means something else here.
            let code = if error.use_stderr() { FAILURE } else { SUCCESS };
            let _ = error.print();
            return code.into();
        }
    };
    match run(&cli) {
        Ok(code) => code.into(),
        // Whoever read our output has seen enough (`lanyard events | head`).
        Err(error) if output::reader_is_gone(&error) => SUCCESS.into(),
        Err(error) => {
            eprintln!("lanyard: {error:#}");
            FAILURE.into()
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<u8> {
    let mut out = io::stdout().lock();
    match &cli.command {
        Command::Status { json, watch: true } => {
            let mut source = Source::connect(&socket(cli)?)?.explained_by(explaining(cli));
            watch::run(&mut source, *json, &mut out)?;
            Ok(SUCCESS)
        }
        Command::Status { json, watch: false } => {
            let source = Source::connect(&socket(cli)?)?.explained_by(explaining(cli));
            let status = source.status();
            output::status(&mut out, &status, *json)?;
            Ok(if status.healthy { SUCCESS } else { NOT_IN_ORDER })
        }
        Command::Estop => {
            let ways = ways(cli).context(estop::NOT_STOPPED)?;
            estop::run(&ways, &mut out, &mut io::stderr().lock())?;
            Ok(SUCCESS)
        }
        Command::Reset { trip } => {
            commands::reset(&ways(cli)?.operator, *trip, &mut out)?;
            Ok(SUCCESS)
        }
        Command::Events { json, follow } => {
            let mut source = Source::connect(&socket(cli)?)?;
            events::run(&mut source, *json, *follow, &mut out)?;
            Ok(SUCCESS)
        }
        Command::Check { file } => {
            let well = check::run(configuration(cli, file.as_deref()), &mut out, &mut io::stderr().lock())?;
            Ok(if well { SUCCESS } else { FAILURE })
        }
        Command::Doctor { file, json, only } => {
            let (file, socket) = (configuration(cli, file.as_deref()), cli.socket.as_deref());
            match doctor::run(doctor::Order { file, socket, only: *only, json: *json }, &mut out) {
                Ok(well) => Ok(if well { SUCCESS } else { TO_MEND }),
                Err(error) if output::reader_is_gone(&error) => Err(error),
                Err(error) => {
                    eprintln!("lanyard: {error:#}");
                    Ok(CANNOT_LOOK)
                }
            }
        }
        Command::Keys { what, file } => {
            keys::run(what, file.as_deref(), configuration(cli, None), &mut password::ask_here, &mut out)?;
            Ok(SUCCESS)
        }
        Command::ImportViam { robot, out: file } => {
            import::run(robot, file.as_deref(), &mut out, &mut io::stderr().lock())?;
            Ok(SUCCESS)
        }
        Command::Completions { shell } => {
            manual::completions(Cli::command(), *shell, &mut out)?;
            Ok(SUCCESS)
        }
        Command::Man { out: folder } => {
            manual::pages(Cli::command(), folder)?;
            Ok(SUCCESS)
        }
    }
}

/// The configuration that says what the drives' faults mean, if it is there; no status fails for want of it.
fn explaining(cli: &Cli) -> Option<Config> {
    Config::load(configuration(cli, None)).ok()
}

/// The file a command is about.
fn configuration<'a>(cli: &'a Cli, file: Option<&'a Path>) -> &'a Path {
    file.or(cli.config.as_deref()).unwrap_or(Path::new(config::DEFAULT_PATH))
}

fn socket(cli: &Cli) -> anyhow::Result<PathBuf> {
    Ok(ways(cli)?.socket)
}

/// Where the supervisor is reached.
fn ways(cli: &Cli) -> anyhow::Result<Ways> {
    let beside = |socket: PathBuf| Ways {
        fifo: config::estop_beside(&socket),
        operator: config::operator_socket_beside(&socket),
        socket,
    };
    match (&cli.socket, &cli.config) {
        (Some(socket), _) => Ok(beside(socket.clone())),
        (None, Some(file)) => {
            let config = Config::load(file).context("the socket's path is in no valid configuration")?;
            let Supervisor { estop, operator_socket, socket, .. } = config.supervisor;
            Ok(Ways { fifo: estop, operator: operator_socket, socket })
        }
        (None, None) => Ok(beside(PathBuf::from(DEFAULT_SOCKET))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_socket_comes_from_the_command_line_or_the_configuration() {
        let socket_of = |args: &[&str]| Cli::try_parse_from(args).map(|cli| socket(&cli).ok());
        assert_eq!(socket_of(&["lanyard", "estop"]).ok(), Some(Some(DEFAULT_SOCKET.into())));
        assert_eq!(socket_of(&["lanyard", "estop", "--socket", "/a"]).ok(), Some(Some("/a".into())));
        assert_eq!(socket_of(&["lanyard", "--socket", "/a", "estop"]).ok(), Some(Some("/a".into())));
        assert_eq!(socket_of(&["lanyard", "estop", "--config", "/no/such/file"]).ok(), Some(None));
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../lanyard.example.toml");
        let from_file = socket_of(&["lanyard", "estop", "--config", example]);
        assert_eq!(from_file.ok(), Some(Some(DEFAULT_SOCKET.into())));
        assert!(socket_of(&["lanyard", "estop", "--config", "/a", "--socket", "/b"]).is_err());
    }

    #[test]
    fn a_reset_needs_a_trip() {
        for args in [
            &["lanyard", "reset"][..],
            &["lanyard", "reset", "0"],
            &["lanyard", "reset", "7.0"],
            &["lanyard", "reset", "all"],
        ] {
            assert!(Cli::try_parse_from(args).is_err(), "{args:?}");
        }
    }
}
