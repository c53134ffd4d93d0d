//! `lanyard-supervisor`: reads its configuration and starts; see [`supervisor::start`] for the order.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::Config;
use config::exit::{WRONG_COMMAND_LINE, WRONG_CONFIGURATION};
use supervisor::log;
use supervisor::recording::replay;
use supervisor::start::{self, Missing, Recording};

const HELP: &str = "\
lanyard-supervisor: stops the motors when whoever drives the robot goes silent

Usage: lanyard-supervisor [--config FILE] [--wait-for-can] [--record FILE]
       lanyard-supervisor --replay FILE

  --config FILE   the configuration (default /etc/lanyard/lanyard.toml);
                  check it first with: lanyard check FILE
  --wait-for-can  wait for CAN interfaces that are not there, down or not set up, and
                  say so, instead of ending
  --record FILE   write everything that decisions depend on into a new file, and every
                  decision; for the rig and for reports of faults, never for every day
  --replay FILE   play such a file without a robot: the same inputs must make the same
                  frames and verdicts; prints the first difference (exit code 1) or none (0)
  --help          this text
  --version       the version

It needs the CAN interfaces of the configuration to be up. For full effect run it as root or with
CAP_SYS_NICE and unlimited RLIMIT_MEMLOCK; without them it runs, warns, and says `degraded` in
`lanyard status`. SIGTERM stops every motor, then exits (0: all proven to stand still).

Exit codes: 0 and 1 after SIGTERM (1: not all proven to stand still), 1 whatever keeps it from arming,
64 a wrong command line, 78 a configuration with mistakes. With 64 and 78 it is of no use to start it
again as it is.";

fn main() -> ExitCode {
    let Arguments { path, missing, recording } = match arguments() {
        Ok(Some(Task::Watch(arguments))) => arguments,
        Ok(Some(Task::Replay(file))) => return play(&file),
        Ok(None) => return ExitCode::SUCCESS,
        Err(problem) => {
            log::line(&format!("{problem}; try --help"));
            return WRONG_COMMAND_LINE.into();
        }
    };
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            error.to_string().lines().for_each(log::line);
            return WRONG_CONFIGURATION.into();
        }
    };
    let recording = match recording.map(|file| record(&file, &config)).transpose() {
        Ok(recording) => recording,
        Err(problem) => {
            log::line(&problem);
            return ExitCode::FAILURE;
        }
    };
    let Err(problems) = start::run(config, missing, recording);
    problems.iter().for_each(|problem| log::line(problem));
    ExitCode::FAILURE
}

/// Makes the file of a recording.
fn record(file: &Path, config: &Config) -> Result<Recording, String> {
    let explain = |error| format!("cannot record to {}: {error}", file.display());
    let text = std::fs::read_to_string(&config.path).map_err(explain)?;
    if Config::parse(&config.path, &text).is_ok_and(|again| again.hash == config.hash) {
        let file = File::options().write(true).create_new(true).mode(0o600).open(file).map_err(explain)?;
        Ok(Recording { file, text })
    } else {
        Err(format!("{}: the file has just changed; start again", config.path.display()))
    }
}

/// Plays a recording, and says whether it comes out the same.
fn play(file: &Path) -> ExitCode {
    let played = std::fs::read(file).map_err(|error| error.to_string()).and_then(|bytes| replay(&bytes));
    match played {
        Ok(replayed) => {
            println!("{replayed}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            println!("{}: {problem}", file.display());
            ExitCode::FAILURE
        }
    }
}

/// What is to be done.
enum Task {
    Watch(Arguments),
    Replay(PathBuf),
}

/// What the command line says of a robot.
struct Arguments {
    path: PathBuf,
    missing: Missing,
    recording: Option<PathBuf>,
}

/// Reads the command line; `None` when there is nothing more to do.
fn arguments() -> Result<Option<Task>, String> {
    let mut path = Path::new(config::DEFAULT_PATH).to_owned();
    let mut missing = Missing::Refuse;
    let mut recording = None;
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--config") => {
                path = arguments.next().ok_or("--config needs a file")?.into();
            }
            Some("--record") => recording = Some(arguments.next().ok_or("--record needs a file")?.into()),
            Some("--replay") => {
                return Ok(Some(Task::Replay(arguments.next().ok_or("--replay needs a file")?.into())));
            }
            Some("--wait-for-can") => missing = Missing::WaitFor,
            Some("--help" | "-h") => {
                println!("{HELP}");
                return Ok(None);
            }
            Some("--version" | "-V") => {
                println!("lanyard-supervisor {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            _ => return Err(format!("unknown argument {}", argument.display())),
        }
    }
    Ok(Some(Task::Watch(Arguments { path, missing, recording })))
}

#[cfg(test)]
mod tests {
    use super::HELP;

    #[test]
    fn every_option_of_the_help_is_in_the_manual_page() {
        let page = include_str!("../lanyard-supervisor.8").replace("\\-", "-");
        let options: Vec<&str> = HELP
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .filter(|word| word.starts_with("--"))
            .collect();
        assert!(options.len() > 3, "{options:?}");
        for option in options {
            assert!(page.lines().any(|line| line.starts_with(".B") && line.contains(option)), "{option}");
        }
    }
}
