//! `lanyard-order`: what was commanded last is what happens, played often. Started by `cargo xtask order` on a rig.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;

use tests::order::patterns::{pairs, triples};
use tests::order::trial::Guard;
use tests::order::{Bench, Pattern, Start, Verdict, Way};
use tests::python::Clients;
use tests::robot::{Robot, Setup};

/// Plays every pair and every triple of commands, unawaited, against simulated robots, and counts how each ended.
///
/// Exit code 0: every sequence ended right every time.
#[derive(Debug, Parser)]
#[command(name = "lanyard-order")]
struct Arguments {
    /// Folder with lanyard-supervisor, lanyard-front, lanyard and lanyard-sim
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,

    /// Python with viam-sdk
    #[arg(long, value_name = "PROGRAM")]
    python: PathBuf,

    /// How many robots play at once, each on a CAN interface of its own: vcan0, vcan1, ...
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    robots: u32,

    /// How often each sequence is played
    #[arg(long, default_value_t = 50, value_name = "N")]
    times: u32,

    /// Play only sequences with this in their name
    #[arg(long, default_value = "", value_name = "NAME")]
    only: String,

    /// Leave out so many of them, which were played before
    #[arg(long, default_value_t = 0, value_name = "N")]
    skip: usize,
}

/// The window of the client's session: as short as a rig allows that stands still now and then.
const WINDOW: Duration = Duration::from_secs(2);
/// Outages below and above it.
const BELOW: Duration = Duration::from_millis(800);
const ABOVE: Duration = Duration::from_millis(3_000);
/// How often a client that lost its session is replaced before the run is given up.
const CONNECTS: u32 = 5;
/// In the table: the rig stood still for a whole window, which has shown nothing.
const NOT_PLAYED: &str = "not played";
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Every sequence that is played.
fn patterns() -> Vec<Pattern> {
    let both =
        |of: fn(Way, Start) -> Vec<Pattern>, way| [of(way, Start::Stopped), of(way, Start::Turning)].concat();
    [
        both(pairs, Way::OneSegment),
        both(pairs, Way::TwoMillisApart),
        pairs(Way::Held(BELOW), Start::Turning),
        pairs(Way::Held(ABOVE), Start::Turning),
        triples(Way::OneSegment, Start::Turning),
        triples(Way::TwoMillisApart, Start::Stopped),
    ]
    .concat()
}

/// How often one sequence ended in which way, by the way's name.
type Counts = BTreeMap<String, u32>;

/// The sequences that are still to be played, and what was seen of the others.
struct Work<'a> {
    waiting: VecDeque<&'a Pattern>,
    table: Vec<Counts>,
    done: usize,
    wrong: usize,
    begun: Instant,
    told: Instant,
}

/// Plays them all on robots side by side and prints a line for each; returns what was counted.
fn play(arguments: &Arguments, patterns: &[Pattern]) -> Result<Vec<Counts>> {
    let work = Mutex::new(Work {
        waiting: patterns.iter().collect(),
        table: Vec::new(),
        done: 0,
        wrong: 0,
        begun: Instant::now(),
        told: Instant::now(),
    });
    let shared = &work;
    let total = patterns.len() * usize::try_from(arguments.times)?;
    thread::scope(|scope| {
        let robots: Vec<_> = (0..arguments.robots)
            .map(|number| scope.spawn(move || drive(arguments, number, shared, total)))
            .collect();
        robots
            .into_iter()
            .try_for_each(|robot| robot.join().map_err(|_| anyhow!("a robot's thread panicked"))?)
    })?;
    Ok(work.into_inner().unwrap_or_else(PoisonError::into_inner).table)
}

/// Plays sequences on one robot until none waits.
fn drive(arguments: &Arguments, number: u32, work: &Mutex<Work<'_>>, total: usize) -> Result<()> {
    let lock = || work.lock().unwrap_or_else(PoisonError::into_inner);
    let mut clients = Clients::start_with(&arguments.python)?;
    let robot = Setup::base()
        .on(&format!("vcan{number}"))
        .programs(&arguments.bin_dir)
        .window(&format!("{}ms", WINDOW.as_millis()))
        .supervisor_key("front_window", "\"5s\"")
        .start()?;
    let mut bench = connect(&robot, &mut clients)?;
    loop {
        let Some(pattern) = lock().waiting.pop_front() else { return Ok(()) };
        let mut counts = Counts::new();
        let (mut played, mut lost) = (0, 0);
        while played < arguments.times {
            let way = match one(&mut bench, pattern) {
                Ok(verdict) => verdict,
                Err(error) => {
                    // A rig that stood still for too long costs the session, not the whole run.
                    eprintln!("order: not played: {error:#}");
                    bench = connect(&robot, &mut clients)
                        .with_context(|| format!("after {pattern}\n{}", robot.printed()))?;
                    *counts.entry(NOT_PLAYED.to_owned()).or_default() += 1;
                    lost += 1;
                    ensure!(lost <= arguments.times, "{pattern}: this rig stands still too often");
                    continue;
                }
            };
            played += 1;
            *counts.entry(way.to_string()).or_default() += 1;
            let mut work = lock();
            work.wrong += usize::from(way != Verdict::Right);
            work.done += 1;
            if work.told.elapsed() > PROGRESS {
                work.told = Instant::now();
                let minutes = work.begun.elapsed().as_secs() / 60;
                eprintln!(
                    "order: {} of {total} played, {} wrong, {minutes} min: {pattern}",
                    work.done, work.wrong
                );
            }
        }
        // At once: a run of hours that is ended early has shown something all the same.
        println!("{}", line(pattern, &counts));
        lock().table.push(counts);
    }
}

/// A client with a session that drives. On a rig that stands still for a window it takes more than one.
fn connect<'a>(robot: &'a Robot, clients: &mut Clients) -> Result<Bench<'a>> {
    let mut connected = Bench::new(robot, clients, Guard::Session);
    for _ in 1..CONNECTS {
        match connected {
            Ok(_) => break,
            Err(error) => eprintln!("order: {error:#}; once more"),
        }
        connected = Bench::new(robot, clients, Guard::Session);
    }
    connected
}

fn one(bench: &mut Bench<'_>, pattern: &Pattern) -> Result<Verdict> {
    match pattern.way {
        Way::Held(gap) if gap > WINDOW => bench.play_too_late(pattern),
        Way::OneSegment | Way::TwoMillisApart | Way::Held(_) => bench.play(pattern),
    }
}

/// One sequence's line of the table.
fn line(pattern: &Pattern, counts: &Counts) -> String {
    let ways: Vec<String> = counts.iter().map(|(way, count)| format!("{count} x {way}")).collect();
    format!("{:<70} {}", pattern.to_string(), ways.join(", "))
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut chosen = patterns();
    chosen.retain(|pattern| pattern.to_string().contains(&arguments.only));
    chosen.drain(..arguments.skip.min(chosen.len()));
    ensure!(!chosen.is_empty(), "no sequence is left with {:?} in its name", arguments.only);
    eprintln!("order: {} sequences, each {} times", chosen.len(), arguments.times);
    let table = play(&arguments, &chosen)?;
    let right = Verdict::Right.to_string();
    let always = table
        .iter()
        .filter(|counts| counts.keys().all(|way| [right.as_str(), NOT_PLAYED].contains(&way.as_str())))
        .count();
    println!("\n{always} of {} sequences ended right every time", table.len());
    Ok(if always == table.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
