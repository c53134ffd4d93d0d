//! The rig itself: whether its kernel keeps the vector registers of the programs that it switches between. One that loses
//! them makes any test's result an accident; user-mode Linux writes them in a way that the rig completes (xtask/xstate).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::process::{Process, programs};

/// How long the programs are busy.
const SECONDS: u64 = 3;

/// Beside others on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fewer switches than this show nothing; four busy threads that share 3 s see one for each tick of 10 ms at the least.
const ENOUGH: u64 = 10;

/// Fails if one of two busy programs, or a thread of theirs, finds a sum wrong that it kept in vector registers, or if
/// they were not switched.
#[test]
fn vector_registers_survive_switches_between_busy_programs() -> Result<()> {
    let folder = programs()?;
    let seconds = SECONDS.to_string();
    let start = |seed| {
        let arguments = ["--seed", seed, "--processor", "0", "--seconds", &seconds];
        Process::start(&folder, "lanyard-vectors", arguments)
    };
    let mut busy = [start("1")?, start("2")?];
    for program in &mut busy {
        let ended = program.wait(PATIENCE)?;
        println!("{}", ended.printed.join("\n"));
        ensure!(ended.code == Some(0), "it ended with {ended:?}");
        ensure!(ended.printed.len() == 2, "two threads have a line each: {ended:?}");
        for line in &ended.printed {
            let (_, switches) = line.split_once("right, ").context("no number of switches")?;
            let switches: u64 = switches.split(' ').next().unwrap_or_default().parse()?;
            ensure!(switches >= ENOUGH, "hardly switched: {line}");
        }
    }
    Ok(())
}
