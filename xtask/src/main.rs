//! `cargo xtask`: everything a contributor does beyond `cargo build`.
//!
//! What lives here: the command line and nothing else. Each subcommand has a file of its own
//! ([`mod@demo`], [`mod@test`], [`mod@fuzz`], [`mod@bench`], [`mod@drives`], [`mod@campaign`]); the machine with CAN interfaces is in [`rig`]; what gets
//! installed on a fresh machine is in [`install`], [`packages`], [`python`], [`node`] and [`proxies`].

#![forbid(unsafe_code)]

mod against;
mod bench;
mod campaign;
mod demo;
mod drives;
mod fuzz;
mod install;
mod jobs;
mod mutants;
mod node;
mod order;
mod package;
mod packages;
mod proxies;
mod python;
mod retried;
mod rig;
mod rules;
mod shard;
mod system;
mod tally;
mod test;
mod told;
mod units;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Lanyard's development tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run a command on a machine that has CAN interfaces (exit code, stdout and stderr pass through)
    Rig(rig::RigArgs),
    /// Show the whole chain at work: clients, front, supervisor and simulated drives on a vcan
    Demo(demo::DemoArgs),
    /// Format, lints, dependency rules, unit tests and the tests on CAN interfaces
    Test(test::TestArgs),
    /// Play sequences of commands that nobody awaits, many times, and count how they end
    Order(order::OrderArgs),
    /// Feed any bytes to the supervisor's core as the whole beat segment, guided by coverage
    Fuzz(fuzz::FuzzArgs),
    /// Build for release, print the supervisor's size and run the benchmarks
    Bench(bench::BenchArgs),
    /// Play every fault of a drive in every state, on every kind of bus, under a supervisor that lives, hangs or is dead
    Campaign(campaign::CampaignArgs),
    /// Build the Debian packages, and try them: install, upgrade, remove, purge; arm64 under emulation
    Package(package::PackageArgs),
    /// Print the table of drive families (docs/drives.md), from what the code says of them
    Drives(drives::DrivesArgs),
    /// Change the deciding code in every way cargo-mutants knows, part by part, and see whether the tests notice
    Mutants(mutants::MutantsArgs),
}

/// Exit code when the task itself could not do its work, as opposed to what it ran having failed.
/// For `rig` it must not look like an exit code of the command, hence the value env(1) and
/// timeout(1) use.
const TASK_FAILED: u8 = 125;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = Workspace::find().and_then(|workspace| match &cli.task {
        Task::Rig(args) => rig::main(&workspace, args),
        Task::Demo(args) => demo::main(&workspace, args),
        Task::Test(args) => test::main(&workspace, args),
        Task::Order(args) => order::main(&workspace, args),
        Task::Fuzz(args) => fuzz::main(&workspace, args),
        Task::Bench(args) => bench::main(&workspace, args),
        Task::Campaign(args) => campaign::main(&workspace, args),
        Task::Package(args) => package::main(&workspace, args),
        Task::Drives(args) => drives::main(&workspace, args),
        Task::Mutants(args) => mutants::main(&workspace, args),
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::from(TASK_FAILED)
        }
    }
}
