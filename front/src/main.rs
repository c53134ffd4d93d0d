//! `lanyard-front`: reads its configuration and serves clients; see the library for everything else.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use config::Config;
use front::Outlet;

/// Lets Viam clients drive the robot, under the eyes of lanyard-supervisor.
#[derive(Debug, Parser)]
#[command(name = "lanyard-front", version)]
struct Arguments {
    /// The configuration file, the same that the supervisor reads.
    ///
    /// How much is logged (to stderr) is set by the environment variable RUST_LOG, for example
    /// RUST_LOG=debug.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lanyard-front: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    front::run(Config::load(&arguments.config)?, Outlet::Interfaces)
}
