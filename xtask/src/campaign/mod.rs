//! `cargo xtask campaign`: every fault that the simulated drives can play, in every state of a motor, on every kind of bus,
//! with the supervisor alive, hung and dead, at the times of an installed robot.
//!
//! What lives here: which of it is played now, and what is remembered of it. [`machine`] is where it runs: the emulated PC
//! whose clock counts instructions, because every bound is one of time. [`table`] is what came of it. The cells and what has to
//! follow in each are the program `tests/tests/campaign`. What must never: a cell that counts without having been played with
//! the programs of this tree.

mod machine;
mod table;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use self::machine::Programs;
use self::table::Played;
use crate::shard::Shard;
use crate::tally::Tally;
use crate::workspace::{Workspace, say};

/// The test program, a target of the crate `tests`.
pub const PROGRAM: &str = "campaign";

/// A part of the campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Every cell
    Cells,
    /// All tests of the kernel-armed stop
    Kernel,
    /// Half an hour in which nothing may be stopped
    Health,
}

/// Arguments of `cargo xtask campaign`.
#[derive(Args, Debug)]
pub struct CampaignArgs {
    /// Play only a part [default: all]
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Play only every Nth cell, from the Kth on
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
    /// Play only cells with this in their name, such as mute.granted or .vesc
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Play what was played before, too
    #[arg(long)]
    again: bool,
    /// Play nothing: print what was played with the programs of this tree
    #[arg(long)]
    table: bool,
    /// Write the table into docs/realtime.md
    #[arg(long)]
    write: bool,
}

/// How long the whole campaign is to be healthy.
const HEALTH_SECONDS: u64 = 1800;
/// Cells of one start of the machine: its start costs as much as three, and what hangs costs no more than these.
const BATCH: usize = 40;

/// `cargo xtask campaign`. Goes on where it was interrupted.
///
/// # Errors
/// When the machine cannot be had. What fails in it is an exit code.
pub fn main(workspace: &Workspace, args: &CampaignArgs) -> Result<u8> {
    let programs = Programs::build(workspace)?;
    let shard = args.shard.unwrap_or(Shard::ALL);
    let results = Results::of(workspace, &programs, shard);
    let before = if args.again { Played::default() } else { results.read()? };
    let wants = |part| !args.table && args.part.is_none_or(|only| only == part);
    if wants(Part::Cells) {
        let cells = shard.of(programs.cells()?);
        let wanted = args.only.as_deref().unwrap_or_default();
        let cells = cells.into_iter().filter(|cell| cell.contains(wanted)).collect();
        play(workspace, &programs, &results, cells, &before)?;
    }
    if wants(Part::Kernel) && args.only.is_none() && !before.has_kernel(programs.tests_digest) {
        let tally = machine::kernel(workspace, &programs)?;
        results.note_kernel(&tally, programs.tests_digest)?;
    }
    if wants(Part::Health) && args.only.is_none() && !before.has_health(HEALTH_SECONDS) {
        machine::healthy(workspace, &programs, HEALTH_SECONDS, &results.path)?;
    }
    let played = results.read()?;
    println!("{}", played.table());
    played.failures().iter().for_each(|failure| println!("{failure}"));
    if args.write {
        table::write(workspace, &played)?;
    }
    Ok(u8::from(!played.failures().is_empty()))
}

/// Plays cells that were not played before, and says how far it is.
fn play(
    workspace: &Workspace,
    programs: &Programs,
    results: &Results,
    cells: Vec<String>,
    done: &Played,
) -> Result<()> {
    let left: Vec<String> = cells.into_iter().filter(|cell| !done.has(cell)).collect();
    let begun = Instant::now();
    for (number, batch) in left.chunks(BATCH).enumerate() {
        let before = number * BATCH;
        say(format!("campaign: {before} of {} cells after {} s", left.len(), begun.elapsed().as_secs()));
        machine::play(workspace, programs, batch, &results.path)?;
    }
    let played = results.read()?;
    match left.iter().filter(|cell| !played.has(cell)).count() {
        0 => Ok(()),
        missing => bail!("{missing} cells have no result; the same command plays them again"),
    }
}

/// Where is kept what was played with one set of programs: a file for each way of dividing the cells, so that parts can be played
/// side by side.
#[derive(Debug)]
struct Results {
    folder: PathBuf,
    /// How the files of these programs begin.
    prefix: String,
    /// The file that is written.
    path: PathBuf,
}

impl Results {
    fn of(workspace: &Workspace, programs: &Programs, shard: Shard) -> Self {
        let folder = workspace.target.join("campaign");
        let prefix = format!("{:016x}.", programs.digest);
        let path = folder.join(format!("{prefix}{}.jsonl", shard.as_name()));
        Self { folder, prefix, path }
    }

    /// Of a run by itself.
    fn apart(workspace: &Workspace) -> Self {
        let folder = workspace.target.join("campaign");
        let prefix = format!("sample.{}.", std::process::id());
        let path = folder.join(format!("{prefix}jsonl"));
        Self { folder, prefix, path }
    }

    fn read(&self) -> Result<Played> {
        let files =
            fs::read_dir(&self.folder).with_context(|| format!("cannot read {}", self.folder.display()))?;
        let mut files: Vec<PathBuf> = files
            .flatten()
            .filter(|file| file.file_name().to_string_lossy().starts_with(&self.prefix))
            .map(|file| file.path())
            .collect();
        // The file of this run last: the last line of a cell counts.
        files.sort_by_key(|file| *file == self.path);
        let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
        Played::read(&text)
    }

    fn note_kernel(&self, tally: &Tally, tests: u64) -> Result<()> {
        let line = serde_json::json!({ "kernel_passed": tally.passed, "kernel_failed": tally.failed, "tests": tests });
        let before = fs::read_to_string(&self.path).unwrap_or_default();
        fs::write(&self.path, format!("{before}{line}\n")).context("cannot write a result")
    }
}

/// Cells of every test run: each state and each supervisor, each kind of bus, and the faults that need every stage.
const SAMPLE: [&str; 12] = [
    "none.granted.well.alive.front-lives.odrive",
    "none.granted.well.dead.front-hangs.cia402",
    "deaf-to-gentle.granted.well.alive.front-hangs.vesc",
    "deaf-to-gentle.granted.flapping.hung.front-lives.dronecan_raw",
    "deaf-to-all.granted.doubtful.alive.front-lives.moteus",
    "deaf-to-all.granted.well.dead.front-hangs.rev_spark",
    "mute.stage1.gone.dead.front-lives.vesc",
    "no-feedback.granted.doubtful.alive.front-hangs.damiao",
    "offline.stage2.doubtful.hung.front-hangs.odrive",
    "pushed.idle.well.alive.front-lives.tinymovr",
    "power-cycled.stopped.flapping.alive.front-lives.rmd",
    "none.granted.gone.hung.front-hangs.robstride",
];
/// How long every test run is healthy, seconds by the machine's own clock.
const SAMPLE_HEALTH_SECONDS: u64 = 60;

/// The part of the campaign that belongs to every test run: some cells and a minute of health. The tests of the kernel-armed stop are
/// left out: their Python takes four minutes to start in that machine, and the cells ask the same of the kernel. What fails is named in
/// the second of the pair.
///
/// # Errors
/// When the machine cannot be had.
pub fn sample(workspace: &Workspace, wanted: Option<&str>) -> Result<(Tally, Vec<String>)> {
    let programs = Programs::build(workspace)?;
    let results = Results::apart(workspace);
    let mut cells: Vec<String> = SAMPLE.iter().map(|&cell| cell.to_owned()).collect();
    cells.retain(|cell| wanted.is_none_or(|wanted| cell.contains(wanted)));
    let mut tally = Tally::default();
    if !cells.is_empty() {
        machine::play(workspace, &programs, &cells, &results.path)?;
    }
    if wanted.is_none_or(|wanted| "health".contains(wanted)) {
        machine::healthy(workspace, &programs, SAMPLE_HEALTH_SECONDS, &results.path)?;
    }
    let played = results.read()?;
    let mut failures = played.failures();
    failures.extend(cells.iter().filter(|cell| !played.has(cell)).map(|cell| format!("{cell}: no result")));
    let missed = u64::try_from(failures.len()).unwrap_or(u64::MAX);
    tally.passed += played.count().saturating_sub(missed);
    tally.failed += missed;
    if failures.is_empty() {
        let _ = fs::remove_file(&results.path);
    }
    Ok((tally, failures))
}
