//! The operator's stop while what is not real-time of the supervisor hangs.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use shm_proto::estop::press;
use shm_proto::handover::observe;
use tests::clock::Moment;
use tests::expect::within;
use tests::process::Process;
use tests::robot::{LEFT, RIGHT, Robot, START, Setup};
use tests::status::Answer;

use crate::doors::{PLACES, QUEUE, block_door, take_places};
use crate::scene::play;

/// The most a stop may take that needs nothing but the real-time thread. On the rig a hundredth of it is usual. Half of what
/// a silent connection is put up with (10 s), and less than a lingering socket lingers.
const SOON: Duration = Duration::from_secs(5);
fn fifo(robot: &Robot) -> PathBuf {
    robot.lanyard.socket.with_extension("estop")
}

/// Waits for the stops of both wheels, and fails if they come late.
fn both_stop(robot: &Robot, since: Moment) -> Result<()> {
    for motor in [&LEFT, &RIGHT] {
        let stop = robot.listener.wait_for_stop(motor, since, SOON)?;
        println!("{} stopped after {:.1} ms", motor.name, stop.at.millis_since(since));
        robot.no_motion_after(motor, &stop)?;
    }
    Ok(())
}

/// Fails if the command does not say that every motor was told to stop.
fn was_told(answer: &Answer) -> Result<()> {
    ensure!(answer.code == Some(0) && answer.stdout.contains("every motor was told to stop"), "{answer:?}");
    Ok(())
}

/// Waits for a status, and fails if no stop holds.
fn stop_holds(robot: &Robot) -> Result<()> {
    let latch = within(START, "a status", || match robot.lanyard.status() {
        Ok(status) => Ok(status["latch"].clone()),
        Err(error) => Err(format!("{error:#}")),
    })?;
    ensure!(!latch.is_null(), "the stop does not hold");
    Ok(())
}

/// Fails if a reader of the log that stands still keeps the stop from being made, or from being told.
#[test]
fn estop_works_while_the_log_hangs() -> Result<()> {
    play(Setup::base().drives_only(), |robot, clients| {
        let log = robot.file("log");
        mkfifo(&log, Mode::from_bits_truncate(0o600))?;
        let mut open = std::fs::File::options();
        let mut full = open.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&log)?;
        while full.write(&[b'x'; 4096]).is_ok() {}
        let script = format!(
            "exec '{}' --config '{}' 2>'{}'",
            robot.programs.join("lanyard-supervisor").display(),
            robot.config.display(),
            log.display()
        );
        let _supervisor = Process::start(Path::new("/bin"), "bash", ["-c", &script])?;
        within(START, "the supervisor is armed", || match robot.lanyard.status() {
            Ok(status) if status["phase"] == "armed" => Ok(()),
            Ok(status) => Err(status["phase"].to_string()),
            Err(error) => Err(format!("{error:#}")),
        })?;
        robot.start_front()?;
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let before = Moment::now();
        let trip = robot.lanyard.estop()?;
        both_stop(robot, before)?;
        ensure!(robot.lanyard.status()?["latch"] == trip, "the status does not name the stop");
        drop(full);
        Ok(())
    })
}

/// Fails if connections that say nothing take the stop away from the operator, or if the command tells a stop that it
/// cannot have seen.
#[test]
fn estop_works_with_48_silent_connections() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let silent = take_places(&robot.lanyard.socket, PLACES + QUEUE);
        println!("{} silent connections", silent.len());
        let before = Moment::now();
        let lanyard = robot.lanyard.clone();
        let command = std::thread::spawn(move || lanyard.run(&["estop"]));
        both_stop(robot, before)?;
        let answer = command.join().ok().context("a panic")??;
        was_told(&answer)?;
        drop(silent);
        stop_holds(robot)
    })
}

/// Fails if the stop, or the proof that it was made, needs the door at which others look.
#[test]
fn estop_works_while_nobody_can_look() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let deaf = {
            let door = robot.lanyard.socket.clone();
            block_door(robot, &door)?
        };
        std::thread::sleep(Duration::from_millis(500));
        let socket = robot.lanyard.socket.clone();
        let looks = std::thread::spawn(move || observe(&socket).map(drop));
        std::thread::sleep(Duration::from_millis(500));
        ensure!(!looks.is_finished(), "the door answers: this shows nothing");
        let before = Moment::now();
        let lanyard = robot.lanyard.clone();
        let command = std::thread::spawn(move || lanyard.run(&["estop"]));
        both_stop(robot, before)?;
        let answer = command.join().ok().context("a panic")??;
        ensure!(!looks.is_finished(), "the door answered meanwhile: this shows nothing");
        was_told(&answer)?;
        drop(deaf);
        let _ = looks.join();
        stop_holds(robot)
    })
}

/// Fails if a writer without end ends the supervisor, fills the event log, or keeps the stop from being proven.
#[test]
fn presses_without_end_are_one_stop() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let before = Moment::now();
        let fifo = fifo(robot);
        let begun = Instant::now();
        let mut presses = 0_u64;
        while begun.elapsed() < Duration::from_secs(3) {
            presses += u64::from(press(&fifo).is_ok());
        }
        println!("{presses} presses");
        both_stop(robot, before)?;
        robot.verified(&LEFT)?;
        robot.verified(&RIGHT)?;
        ensure!(robot.supervisor()?.runs(), "the supervisor has ended");
        let stops = robot.lanyard.events()?;
        let stops = stops.iter().filter(|event| event.kind() == "trip" && event.reason() == "operator stop");
        ensure!(stops.count() == 1, "more than one event");
        within(START, "a reset", || {
            let latch = robot.lanyard.status().map_err(|error| format!("{error:#}"))?["latch"].as_u64();
            match robot.lanyard.reset(latch.ok_or("nothing is latched")?) {
                Ok(answer) if answer.code == Some(0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        // What lay in the FIFO was pressed before.
        std::thread::sleep(Duration::from_secs(1));
        ensure!(robot.lanyard.status()?["latch"].is_null(), "an old press is a new stop");
        robot.drive_base(&mut robot.client(clients)?)
    })
}

/// Fails if anybody but the supervisor's user and its group may write the FIFO, or anybody read it.
#[test]
fn only_the_group_presses_stop() -> Result<()> {
    play(Setup::base().supervisor_key("estop_group", "\"7777\"").without_front(), |robot, _| {
        let found = std::fs::metadata(fifo(robot))?;
        let mode = found.permissions().mode() & 0o7777;
        ensure!((mode, found.gid()) == (0o620, 7777), "mode {mode:o}, group {}", found.gid());
        Ok(())
    })
}
