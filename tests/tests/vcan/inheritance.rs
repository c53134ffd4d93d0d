//! What a supervisor that died or ended leaves to the next one, as an operator and a client see it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::clock::Moment;
use tests::expect::within;
use tests::fd_store::FdStore;
use tests::holder;
use tests::robot::{ARM, LEFT, RIGHT, Robot, START, STILL, Setup};

use crate::kernel_stop::start_as_service;
use crate::scene::play;

/// The service is killed, and what is left of it with it.
fn kill_service(robot: &mut Robot) -> Result<()> {
    let holder = holder::of(robot.supervisor()?.pid())?;
    robot.supervisor()?.kill()?;
    nix::sys::signal::kill(holder, Signal::SIGTERM)?;
    holder::wait_for_end(holder)
}

fn trip_of(robot: &Robot, motor: &str) -> Result<(u64, String, bool)> {
    let status = robot.lanyard.motor(motor)?;
    let trip = status.trip().unwrap_or(0);
    let reason = status.0["reason"].as_str().unwrap_or_default().to_owned();
    Ok((trip, reason, status.0["latched"] == true))
}

/// Fails if what a client drove comes back free, if a living front's session, by its heartbeats or by a command, moves
/// it before the reset, if an open trip gets lost, or if a number comes twice.
#[test]
fn restarted_service_is_tripped_and_knows_why() -> Result<()> {
    play(Setup::base().with(&ARM).manual().drives_only(), |robot, clients| {
        let store = FdStore::open(&robot.file("notify.sock"))?;
        start_as_service(robot, &store)?;
        robot.start_front()?;
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        kill_service(robot)?;
        let restart = Moment::now();
        start_as_service(robot, &store)?;
        robot.front()?.wait_for_line("attached to the supervisor again", START)?;
        for motor in [&LEFT, &RIGHT] {
            ensure!(trip_of(robot, motor.name)? == (1, "supervisor died".to_owned(), true), "{}", motor.name);
            robot.verified(motor)?;
        }
        ensure!(!trip_of(robot, ARM.name)?.2, "nobody drove the arm");
        let status = robot.lanyard.status()?;
        ensure!(status["predecessor"]["ending"] == "died", "{status}");
        let heard = status["motors"][0]["before_restart"]["feedback_ns"].as_i64();
        ensure!(heard.is_some_and(|at| at < restart.0), "{status}");
        // The client's own process beats on.
        let quiet = Moment::now();
        std::thread::sleep(Duration::from_secs(1));
        client.call("base_set_velocity", json!({ "name": "base1", "forward": 800.0 }))?.refusal()?;
        let refusal =
            client.call("base_set_velocity", json!({ "name": "base1", "forward": 800.0 }))?.refusal()?;
        ensure!(refusal.message.contains("lanyard reset 1"), "{refusal:?}");
        for motor in [&LEFT, &RIGHT] {
            let moved = robot.listener.first(quiet, |frame| motor.drives(frame) || motor.energises(frame))?;
            ensure!(moved.is_none(), "{} was moved: {moved:?}", motor.name);
        }
        ensure!(robot.lanyard.reset(1)?.code == Some(0), "trip 1 cannot be reset");
        robot.drive_base(&mut client)?;

        // An operator stop, over a kill and an orderly end.
        let stop = robot.lanyard.estop()?;
        ensure!(stop == 2, "it is trip {stop}");
        robot.verified(&LEFT)?;
        let told = robot.lanyard.wait_for_trip(restart, "operator stop", LEFT.name, START)?;
        kill_service(robot)?;
        start_as_service(robot, &store)?;
        robot.verified(&ARM)?;
        robot.supervisor()?.signal(Signal::SIGTERM)?;
        robot.supervisor()?.wait(START)?;
        start_as_service(robot, &store)?;
        for motor in [&LEFT, &RIGHT, &ARM] {
            ensure!(trip_of(robot, motor.name)? == (2, "operator stop".to_owned(), true), "{}", motor.name);
            robot.verified(motor)?;
        }
        let again = robot.lanyard.wait_for_trip(restart, "operator stop", LEFT.name, START)?;
        ensure!((again.trip(), again.at()) == (told.trip(), told.at()), "{again:?} is not {told:?}");
        ensure!(robot.lanyard.reset(2)?.code == Some(0), "trip 2 cannot be reset");
        let next = robot.lanyard.estop()?;
        ensure!(next > 2, "trip {next} again");
        Ok(())
    })
}

/// Fails if without systemd nothing is left of a killed supervisor, or if under `auto` a new session may not go on.
#[test]
fn holder_keeps_what_a_killed_supervisor_left() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        robot.supervisor()?.kill()?;
        drop(client);
        robot.start_supervisor()?;
        ensure!(
            trip_of(robot, LEFT.name)? == (1, "supervisor died".to_owned(), false),
            "{:?}",
            trip_of(robot, LEFT.name)?
        );
        ensure!(trip_of(robot, RIGHT.name)?.0 == 0, "nobody drove the other one");
        robot.front()?.wait_for_line("attached to the supervisor again", START)?;
        robot.verified(&LEFT)?;
        let mut fresh = robot.client(clients)?;
        robot.drive(&mut fresh, &LEFT, 0.4)
    })
}

/// Fails if who comes while there is no supervisor is turned away, or if socket, mode or owner are others afterwards.
#[test]
fn who_comes_during_a_restart_waits() -> Result<()> {
    play(Setup::base().drives_only(), |robot, _| {
        let store = FdStore::open(&robot.file("notify.sock"))?;
        start_as_service(robot, &store)?;
        robot.start_front()?;
        let look = |robot: &Robot| -> Result<(u64, u32, u32)> {
            let found = std::fs::metadata(&robot.lanyard.socket)?;
            Ok((found.ino(), found.permissions().mode(), found.uid()))
        };
        let before = look(robot)?;
        for end in [Signal::SIGKILL, Signal::SIGTERM] {
            robot.supervisor()?.signal(end)?;
            robot.supervisor()?.wait(START)?;
            for (holder, _) in holder::all()? {
                let _ = nix::sys::signal::kill(holder, Signal::SIGTERM);
            }
            let lanyard = robot.lanyard.clone();
            let operator = std::thread::spawn(move || lanyard.estop());
            std::thread::sleep(Duration::from_millis(500));
            ensure!(!operator.is_finished(), "the operator was turned away: {:?}", operator.join());
            start_as_service(robot, &store)?;
            let trip = operator.join().ok().context("a panic")??;
            ensure!(trip_of(robot, LEFT.name)? == (trip, "operator stop".to_owned(), true), "trip {trip}");
            robot.verified(&LEFT)?;
            robot.verified(&RIGHT)?;
            ensure!(robot.lanyard.reset(trip)?.code == Some(0), "trip {trip} cannot be reset");
            ensure!(look(robot)? == before, "{:?} is not {before:?}", look(robot)?);
            within(STILL, "the front is attached", || {
                let status = robot.lanyard.status().map_err(|error| format!("{error:#}"))?;
                if status["front"].is_null() { Err(status.to_string()) } else { Ok(()) }
            })?;
        }
        Ok(())
    })
}

/// Fails if a supervisor listens where nobody comes: its path was bound by another one meanwhile.
#[test]
fn socket_that_the_path_no_longer_leads_to_is_not_used() -> Result<()> {
    play(Setup::base().drives_only(), |robot, _| {
        let store = FdStore::open(&robot.file("notify.sock"))?;
        start_as_service(robot, &store)?;
        kill_service(robot)?;
        std::fs::remove_file(&robot.lanyard.socket)?;
        start_as_service(robot, &store)?;
        robot.supervisor()?.wait_for_line("that systemd kept is not used", START)?;
        ensure!(robot.lanyard.status()?["phase"] == "armed", "nobody answers at the path");
        let kept = store.names().iter().filter(|name| *name == "handover").count();
        ensure!(kept == 1, "systemd keeps {:?}", store.names());
        Ok(())
    })
}
