//! `lanyard-supervisor`: reads its configuration and starts; see [`supervisor::start`] for the order.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::exit::{WRONG_COMMAND_LINE, WRONG_CONFIGURATION};
use supervisor::log;
use supervisor::start::{self, Missing};

const HELP: &str = "\
lanyard-supervisor: stops the motors when whoever drives the robot goes silent

Usage: lanyard-supervisor [--config FILE] [--wait-for-can]

  --config FILE   the configuration (default /etc/lanyard/lanyard.toml);
                  check it first with: lanyard check FILE
  --wait-for-can  wait for CAN interfaces that are not there, down or not set up, and
                  say so, instead of ending
  --help          this text
  --version       the version

It needs the CAN interfaces of the configuration to be up. For full effect run it as root or with
CAP_SYS_NICE and unlimited RLIMIT_MEMLOCK; without them it runs, warns, and says `degraded` in
`lanyard status`. SIGTERM stops every motor, then exits (0: all proven to stand still).

Exit codes: 0 and 1 after SIGTERM (1: not all proven to stand still), 1 whatever keeps it from arming,
64 a wrong command line, 78 a configuration with mistakes. With 64 and 78 it is of no use to start it
again as it is.";

fn main() -> ExitCode {
    let Arguments { path, missing } = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(problem) => {
            log::line(&format!("{problem}; try --help"));
            return WRONG_COMMAND_LINE.into();
        }
    };
    let config = match config::Config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            error.to_string().lines().for_each(log::line);
            return WRONG_CONFIGURATION.into();
        }
    };
    let Err(problems) = start::run(config, missing);
    problems.iter().for_each(|problem| log::line(problem));
    ExitCode::FAILURE
}

/// What the command line says.
struct Arguments {
    path: PathBuf,
    missing: Missing,
}

/// Reads the command line; `None` when there is nothing more to do.
fn arguments() -> Result<Option<Arguments>, String> {
    let mut path = Path::new(config::DEFAULT_PATH).to_owned();
    let mut missing = Missing::Refuse;
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--config") => {
                path = arguments.next().ok_or("--config needs a file")?.into();
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
    Ok(Some(Arguments { path, missing }))
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
