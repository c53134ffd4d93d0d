//! `lanyard-bench`: what Lanyard's hot paths cost, beside peers in the same minute. Started by
//! `cargo xtask bench`, which builds it and installs what it compares with.

#[path = "../bench/mod.rs"]
mod bench;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use bench::harness::Outlet;
use bench::{Tools, goals};

/// Measures, prints a table and whether each goal is met.
#[derive(Parser)]
#[command(name = "lanyard-bench", version)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Also write the figures to this file as one flat JSON object
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only what has names that begin with this
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// cyclictest of rt-tests
    #[arg(long, value_name = "PROGRAM", default_value = "cyclictest")]
    cyclictest: PathBuf,
    /// A Python that has python-can
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// The real supervisor, built for release
    #[arg(long, value_name = "PROGRAM", default_value = "lanyard-supervisor")]
    supervisor: PathBuf,
    /// xtask, for what needs CAN
    #[arg(long, value_name = "PROGRAM")]
    rig: Option<PathBuf>,
}

/// What this program does when a measurement starts it again.
#[derive(Subcommand)]
enum Role {
    /// Keep every core busy
    #[command(hide = true)]
    Burn,
    /// Read the beat segment on stdin
    #[command(hide = true)]
    ReadBeats,
    /// Trip sessions one after the other
    #[command(hide = true)]
    Trips { millis: u64, pitch_micros: u64, interface: Option<String> },
    /// Stop 64 motors at once
    #[command(hide = true)]
    Stop64 { rounds: usize, interface: Option<String> },
    /// The watchdog in tokio
    #[command(hide = true)]
    NaiveTokio { millis: u64 },
    /// A supervisor with a sink
    #[command(hide = true)]
    Supervise { config: PathBuf },
    /// Sessions that beat
    #[command(hide = true)]
    Beat { config: PathBuf, sessions: u16 },
    /// The front with a sink
    #[command(hide = true)]
    Front { config: PathBuf, core: Option<usize> },
    /// A server of bare tonic
    #[command(hide = true)]
    Echo { address: String, core: Option<usize> },
    /// A relay of bare tokio
    #[command(hide = true)]
    Relay { listen: String, target: String },
    /// What needs CAN
    #[command(hide = true)]
    Guest { supervisor: PathBuf, cyclictest: PathBuf },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.role {
        None => return measure(arguments),
        Some(Role::Burn) => bench::load::burn(),
        Some(Role::ReadBeats) => bench::oneway::read_beats()?,
        Some(Role::Trips { millis, pitch_micros, interface }) => {
            let (time, pitch) = (Duration::from_millis(millis), Duration::from_micros(pitch_micros));
            print(&bench::trips::run(outlet_of(interface.as_deref()), time, pitch)?);
        }
        Some(Role::Stop64 { rounds, interface }) => {
            print(&bench::stop64::run(outlet_of(interface.as_deref()), rounds)?);
        }
        Some(Role::NaiveTokio { millis }) => print(&bench::naive::run(Duration::from_millis(millis))?),
        Some(Role::Supervise { config }) => return bench::supervise::run(&config),
        Some(Role::Beat { config, sessions }) => bench::beats::run(&config, sessions)?,
        Some(Role::Front { config, core }) => bench::grpc::serve_front(&config, core)?,
        Some(Role::Echo { address, core }) => bench::grpc::serve_echo(&address, core)?,
        Some(Role::Relay { listen, target }) => bench::relay::run(&listen, &target)?,
        Some(Role::Guest { supervisor, cyclictest }) => bench::guest::run(&supervisor, &cyclictest)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { role: _, json, only, cyclictest, python, supervisor, rig } = arguments;
    let figures = bench::run(&Tools { cyclictest, python, supervisor, rig }, &only)?;
    figures.print();
    println!();
    goals::print(&figures);
    if let Some(path) = json {
        figures.write(&path)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn outlet_of(interface: Option<&str>) -> Outlet<'_> {
    interface.map_or(Outlet::Sink, Outlet::Can)
}

/// One number a line: how roles answer.
fn print(numbers: &[u64]) {
    numbers.iter().for_each(|number| println!("{number}"));
}
