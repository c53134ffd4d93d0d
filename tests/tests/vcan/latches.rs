//! What waits for a reset, over an end of the supervisor after which nobody but the disk has kept anything.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::clock::Moment;
use tests::expect::within;
use tests::holder;
use tests::python::Client;
use tests::robot::{LEFT, RIGHT, Robot, START, STATE, Setup};

use crate::scene::play;

/// Whom the supervisor becomes in tests.
const NOBODY: u32 = 65_534;

/// The file.
fn file(robot: &Robot) -> PathBuf {
    robot.file(STATE).join("latches")
}

/// Ends the supervisor in order, as `systemctl stop` does. There is no systemd whose store could keep anything.
fn stop(robot: &mut Robot) -> Result<()> {
    robot.supervisor()?.signal(Signal::SIGTERM)?;
    robot.supervisor()?.wait(START)?;
    Ok(())
}

/// Kills the supervisor and whoever holds something for it, as a loss of power does.
fn kill_all(robot: &mut Robot) -> Result<()> {
    let holder = holder::of(robot.supervisor()?.pid())?;
    robot.supervisor()?.kill()?;
    holder::murder(holder)
}

fn start(robot: &mut Robot) -> Result<()> {
    robot.start_supervisor()?;
    robot.front()?.wait_for_line("attached to the supervisor again", START)?;
    for motor in [&LEFT, &RIGHT] {
        robot.verified(motor)?;
    }
    Ok(())
}

/// The trip of a motor, its reason, and whether it must be reset.
fn trip_of(robot: &Robot, motor: &str) -> Result<(u64, String, bool)> {
    let status = robot.lanyard.motor(motor)?;
    Ok((status.trip().unwrap_or(0), status.reason().to_owned(), status.0["latched"] == true))
}

fn is_refused(robot: &Robot, client: &mut Client, trip: u64) -> Result<()> {
    let from = Moment::now();
    let refusal = client.call("set_power", json!({ "name": "left", "power": 0.4 }))?.refusal()?;
    ensure!(refusal.message.contains(&format!("lanyard reset {trip}")), "{refusal:?}");
    let moved = robot.listener.first(from, |frame| LEFT.drives(frame) || LEFT.energises(frame))?;
    ensure!(moved.is_none(), "it was moved: {moved:?}");
    Ok(())
}

fn is_on_disk(robot: &Robot, expected: &str) -> Result<()> {
    within(START, &format!("the latches are {expected}"), || {
        let status = robot.lanyard.status().map_err(|error| format!("{error:#}"))?;
        if status["latches_kept"] == expected { Ok(()) } else { Err(status["latches_kept"].to_string()) }
    })
}

fn is_degraded(robot: &Robot, by: &str) -> Result<bool> {
    let status = robot.lanyard.status()?;
    let flags = status["degraded"].as_array().context("a list")?;
    Ok(flags.iter().any(|flag| flag == by))
}

/// Fails if a stop of the service, as every upgrade makes one, or a loss of power lets go what an operator has stopped, or
/// if the number that holds it is another one then.
#[test]
fn operator_stop_holds_over_an_end_of_the_supervisor() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        // Root has written it, before it became nobody.
        ensure!(
            fs::metadata(file(robot))?.uid() == NOBODY,
            "the next one, if it is not root, could not read it"
        );
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let told = robot.lanyard.run(&["estop"])?;
        ensure!(told.code == Some(0) && told.stdout.contains("It is on disk"), "{told:?}");
        let trip = robot.lanyard.status()?["latch"].as_u64().context("nothing is latched")?;
        for end in [stop, kill_all] {
            robot.verified(&LEFT)?;
            robot.verified(&RIGHT)?;
            end(robot)?;
            start(robot)?;
            ensure!(robot.lanyard.status()?["latch"] == trip, "the stop is forgotten");
            for motor in [&LEFT, &RIGHT] {
                let found = trip_of(robot, motor.name)?;
                ensure!(found == (trip, "operator stop".to_owned(), true), "{}: {found:?}", motor.name);
            }
            let mut client = robot.client(clients)?;
            is_refused(robot, &mut client, trip)?;
        }
        ensure!(robot.lanyard.reset(trip)?.code == Some(0), "trip {trip} cannot be reset");
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        // What was reset stays so.
        is_on_disk(robot, "on disk")?;
        drop(client);
        stop(robot)?;
        start(robot)?;
        ensure!(robot.lanyard.status()?["latch"].is_null(), "it is back");
        let next = robot.lanyard.estop()?;
        ensure!(next > trip, "trip {next} after trip {trip}");
        Ok(())
    })
}

/// The same for a trip of single motors, under the policy that wants a reset.
#[test]
fn manual_trip_holds_over_an_end_of_the_supervisor() -> Result<()> {
    play(Setup::base().manual().window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let death = client.kill()?;
        let (event, _) = robot.stopped_at_deadline(&LEFT, death, Duration::from_secs(1))?;
        let trip = event.trip().context("a trip without a number")?;
        robot.verified(&LEFT)?;
        stop(robot)?;
        start(robot)?;
        let found = trip_of(robot, LEFT.name)?;
        ensure!(found == (trip, "session expired".to_owned(), true), "{found:?}");
        ensure!(!trip_of(robot, RIGHT.name)?.2, "nothing has held the other one");
        let mut client = robot.client(clients)?;
        is_refused(robot, &mut client, trip)?;
        robot.drive(&mut client, &RIGHT, 0.4)?;
        ensure!(robot.lanyard.reset(trip)?.code == Some(0), "trip {trip} cannot be reset");
        robot.drive(&mut client, &LEFT, 0.4)
    })
}

/// Fails if a file that is damaged or deleted lets go what it held, or if the loss is kept from whoever looks.
#[test]
fn file_that_is_lost_holds_every_motor() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let damage = |robot: &Robot| -> Result<()> {
            let mut bytes = fs::read(file(robot))?;
            bytes[40] ^= 1;
            Ok(fs::write(file(robot), bytes)?)
        };
        let delete = |robot: &Robot| -> Result<()> { Ok(fs::remove_file(file(robot))?) };
        for lose in [&damage as &dyn Fn(&Robot) -> Result<()>, &delete] {
            let stopped = robot.lanyard.estop()?;
            robot.verified(&LEFT)?;
            robot.verified(&RIGHT)?;
            stop(robot)?;
            lose(robot)?;
            start(robot)?;
            robot.supervisor()?.wait_for_line("cannot be read from disk", START)?;
            let (trip, reason, held) = trip_of(robot, LEFT.name)?;
            ensure!(held && reason == "latches lost" && trip > stopped, "trip {trip}: {reason}");
            ensure!(trip_of(robot, RIGHT.name)? == (trip, reason, true), "the other one is not held");
            ensure!(is_degraded(robot, "latches lost")?, "it is not degraded");
            ensure!(robot.lanyard.run(&["status"])?.code == Some(2), "it is in order");
            let mut client = robot.client(clients)?;
            is_refused(robot, &mut client, trip)?;
            drop(client);
            // The loss itself is on disk by now.
            stop(robot)?;
            start(robot)?;
            ensure!(trip_of(robot, LEFT.name)? == (trip, "latches lost".to_owned(), true), "it is forgotten");
            ensure!(robot.lanyard.reset(trip)?.code == Some(0), "trip {trip} cannot be reset");
            let mut client = robot.client(clients)?;
            robot.drive_base(&mut client)?;
            ensure!(!is_degraded(robot, "latches lost")?, "somebody has looked");
        }
        Ok(())
    })
}

/// Fails if a disk that takes nothing keeps a stop from being made, or if the stop is said to be kept all the same.
#[test]
fn stop_is_made_and_told_as_not_kept_while_the_disk_refuses() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        is_on_disk(robot, "on disk")?;
        // The supervisor is nobody by now.
        chown(robot.file(STATE), Some(0), Some(0))?;
        let before = Moment::now();
        let told = robot.lanyard.run(&["estop"])?;
        for motor in [&LEFT, &RIGHT] {
            let stop = robot.listener.wait_for_stop(motor, before, START)?;
            robot.no_motion_after(motor, &stop)?;
        }
        ensure!(told.code == Some(0) && told.stdout.contains("NOT ON DISK"), "{told:?}");
        ensure!(!told.stdout.contains("It is on disk"), "{told:?}");
        is_on_disk(robot, "refused")?;
        ensure!(is_degraded(robot, "latches not on disk")?, "it is not degraded");
        let status = robot.lanyard.run(&["status"])?;
        ensure!(status.stdout.contains("NOT ON DISK"), "{status:?}");
        robot.supervisor()?.wait_for_line("what waits for a reset cannot be written", START)?;
        chown(robot.file(STATE), Some(NOBODY), Some(NOBODY))?;
        is_on_disk(robot, "on disk")?;
        ensure!(!is_degraded(robot, "latches not on disk")?, "it is still degraded");
        let trip = robot.lanyard.status()?["latch"].as_u64().context("nothing is latched")?;
        stop(robot)?;
        start(robot)?;
        ensure!(robot.lanyard.status()?["latch"] == trip, "the stop is forgotten");
        Ok(())
    })
}

/// Fails if a supervisor whose folder can never be written lets motors go as if nothing could have been held.
#[test]
fn folder_that_cannot_be_had_holds_every_motor() -> Result<()> {
    play(Setup::base().supervisor_key("state", "\"/dev/null/state\"").without_front(), |robot, _| {
        robot.verified(&LEFT)?;
        let (trip, reason, held) = trip_of(robot, LEFT.name)?;
        ensure!(held && reason == "latches lost", "trip {trip}: {reason}");
        ensure!(is_degraded(robot, "latches lost")? && is_degraded(robot, "latches not on disk")?);
        robot.verified(&RIGHT)?;
        ensure!(robot.lanyard.reset(trip)?.code == Some(0), "trip {trip} cannot be reset");
        ensure!(!trip_of(robot, LEFT.name)?.2, "it is still held");
        ensure!(is_degraded(robot, "latches not on disk")?, "nothing can be kept");
        Ok(())
    })
}
