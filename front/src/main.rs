//! `lanyard-front`: reads its configuration and serves clients; see the library for everything else.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use config::Config;
use config::exit::{WRONG_COMMAND_LINE, WRONG_CONFIGURATION};
use front::Outlet;

/// For who starts it.
const EXIT_CODES: &str = "Exit codes: 0 after SIGTERM, 1 whatever keeps it from serving, 64 a wrong command line, \
    78 a configuration with mistakes. With 64 and 78 it is of no use to start it again as it is.";

/// Lets Viam clients drive the robot, under the eyes of lanyard-supervisor.
#[derive(Debug, Parser)]
#[command(name = "lanyard-front", version, after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration file, the same that the supervisor reads.
    ///
    /// How much is logged (to stderr) is set by the environment variable RUST_LOG, for example
    /// RUST_LOG=debug.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(message) => {
            // The help and the version are such messages, too.
            let _ = message.print();
            return if message.use_stderr() { WRONG_COMMAND_LINE.into() } else { ExitCode::SUCCESS };
        }
    };
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("lanyard-front: error: {error}");
            return WRONG_CONFIGURATION.into();
        }
    };
    match front::run(config, Outlet::Interfaces) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lanyard-front: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    #[test]
    fn every_option_is_in_the_manual_page() {
        let page = include_str!("../lanyard-front.8").replace("\\-", "-");
        let mut command = Arguments::command();
        command.build();
        let options: Vec<String> =
            command.get_arguments().filter_map(|option| Some(format!("--{}", option.get_long()?))).collect();
        assert!(options.len() > 2, "{options:?}");
        for option in options {
            assert!(page.lines().any(|line| line.starts_with(".B") && line.contains(&option)), "{option}");
        }
    }
}
