//! The campaign: every fault that the simulated drives can play, in every state of a motor, on every kind of bus, with the
//! supervisor alive, hung and dead; all at the times of an installed robot.
//!
//! What lives here: the program that plays it, one cell after the other, in a machine whose clock counts instructions;
//! `cargo xtask campaign` starts it. What must never: a bound taken from what was seen. See [`bounds`].

mod bounds;
mod cell;
#[expect(dead_code, reason = "from within a network namespace only the booted machine connects")]
#[path = "../system/client.rs"]
mod client;
mod health;
mod outcome;
mod scene;
mod watch;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use crate::cell::Cell;

/// Plays cells of the campaign, each with a robot of its own on vcan0.
#[derive(Debug, Parser)]
#[command(name = "campaign")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Print the names of all cells
    List,
    /// Play cells and add a line of JSON for each to a file
    Play {
        /// The file
        #[arg(long, value_name = "FILE")]
        results: PathBuf,
        /// Names of cells
        #[arg(required = true, value_name = "CELL")]
        cells: Vec<String>,
    },
    /// Drive in peace for a time and add a line of JSON to a file
    Healthy {
        /// The file
        #[arg(long, value_name = "FILE")]
        results: PathBuf,
        /// How long, seconds
        #[arg(value_name = "SECONDS")]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("campaign: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.task {
        Task::List => cell::all().iter().for_each(|cell| println!("{cell}")),
        Task::Play { results, cells } => {
            let cells = cells.iter().map(|name| Cell::read(name)).collect::<Result<Vec<_>>>()?;
            let mut results = open(results)?;
            for cell in cells {
                let name = cell.to_string();
                let line = scene::play(&cell).line(&name);
                println!("{name}: {} {}", line["verdict"].as_str().unwrap_or_default(), line["why"]);
                write(&mut results, &line)?;
            }
        }
        Task::Healthy { results, seconds } => {
            let line = match health::play(Duration::from_secs(*seconds)) {
                Ok(line) => line,
                Err(error) => json!({ "seconds": seconds, "failure": format!("{error:#}") }),
            };
            println!("{line}");
            write(&mut open(results)?, &line)?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

fn write(file: &mut File, line: &Value) -> Result<()> {
    writeln!(file, "{line}").context("cannot write a result")
}
