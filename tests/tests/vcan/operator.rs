//! The operator's hand: stopping everything, and clearing trips one by one.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::clock::Moment;
use tests::python::Client;
use tests::robot::{LEFT, RIGHT, Robot, START, Setup};

use crate::scene::play;

/// A client's attempt to drive, which must be refused with a way out.
fn is_refused(client: &mut Client, motor: &str, trip: u64) -> Result<()> {
    let refusal = client.call("set_power", json!({ "name": motor, "power": 0.4 }))?.refusal()?;
    ensure!(refusal.status.as_deref() == Some("FAILED_PRECONDITION"), "got {refusal:?}");
    let way_out = format!("lanyard reset {trip}");
    ensure!(refusal.message.contains(&way_out), "the refusal does not name {way_out:?}: {refusal:?}");
    Ok(())
}

fn no_motion_since(robot: &Robot, from: Moment) -> Result<()> {
    for motor in &robot.motors {
        let moved = robot.listener.first(from, |frame| motor.drives(frame))?;
        ensure!(moved.is_none(), "{} was moved by {moved:?}", motor.name);
    }
    Ok(())
}

/// Fails if a trip clears itself, if a wrong number clears it, or if the right one does not.
#[test]
fn manual_trip_holds_until_its_number_is_reset() -> Result<()> {
    play(Setup::base().manual().window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let death = client.kill()?;
        let (event, _) = robot.stopped_at_deadline(&LEFT, death, Duration::from_secs(1))?;
        let trip = event.trip().unwrap_or_default();
        robot.verified(&LEFT)?;
        robot.verified(&RIGHT)?;
        let held = Moment::now();
        let mut fresh = robot.client(clients)?;
        is_refused(&mut fresh, "left", trip)?;
        let wrong = robot.lanyard.reset(trip + 1)?;
        ensure!(wrong.code == Some(1) && !wrong.stderr.is_empty(), "a wrong number: {wrong:?}");
        is_refused(&mut fresh, "right", trip)?;
        no_motion_since(robot, held)?;
        let right = robot.lanyard.reset(trip)?;
        ensure!(right.code == Some(0), "the right number: {right:?}");
        // Nothing moves by a reset.
        std::thread::sleep(Duration::from_millis(300));
        no_motion_since(robot, held)?;
        let again = robot.lanyard.reset(trip)?;
        ensure!(again.code == Some(1), "the same number twice: {again:?}");
        robot.drive_base(&mut fresh)
    })
}

/// Fails if an e-stop leaves a motor running, if any session may move before the reset, or if the reset
/// itself does not let them.
#[test]
fn estop_stops_everything_until_reset() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut first = robot.client(clients)?;
        let mut second = robot.client(clients)?;
        robot.drive(&mut first, &LEFT, 0.4)?;
        robot.drive(&mut second, &RIGHT, 0.4)?;
        let before = Moment::now();
        let trip = robot.lanyard.estop()?;
        for motor in [&LEFT, &RIGHT] {
            let stop = robot.listener.wait_for_stop(motor, before, START)?;
            println!("e-stop: {} stopped after {:.1} ms", motor.name, stop.at.millis_since(before));
            robot.verified(motor)?;
            robot.no_motion_after(motor, &stop)?;
        }
        let held = Moment::now();
        ensure!(robot.lanyard.status()?["latch"] == trip, "the status does not name the e-stop");
        let mut fresh = robot.client(clients)?;
        is_refused(&mut fresh, "left", trip)?;
        no_motion_since(robot, held)?;
        ensure!(robot.lanyard.reset(trip)?.code == Some(0), "the reset was refused");
        ensure!(robot.lanyard.status()?["latch"].is_null(), "the reset did not clear the e-stop");
        robot.drive_base(&mut fresh)
    })
}

/// Fails if a trip can be cleared while a motor of it is not proven to stand still.
#[test]
fn reset_is_refused_while_a_motor_is_unproven() -> Result<()> {
    let setup = Setup::base().manual().supervisor_key("stage_timeout", "\"200ms\"");
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        robot.sim.order("3 mute on")?;
        let unproven = robot
            .lanyard
            .wait_for_motor("left", START, "is unverified", |motor| motor.state() == "unverified")?;
        let trip = unproven.trip().unwrap_or_default();
        let refused = robot.lanyard.reset(trip)?;
        ensure!(refused.code == Some(1), "it was reset: {refused:?}");
        ensure!(refused.stderr.contains("stand still"), "no reason is given: {refused:?}");
        robot.sim.order("3 mute off")?;
        robot.verified(&LEFT)?;
        let cleared = robot.lanyard.reset(trip)?;
        ensure!(cleared.code == Some(0), "it was not reset: {cleared:?}");
        Ok(())
    })
}

/// Fails if status and its exit code do not tell a healthy robot from one that needs a human.
#[test]
fn status_tells_healthy_from_tripped() -> Result<()> {
    play(Setup::base(), |robot, _| {
        robot.verified(&LEFT)?;
        robot.verified(&RIGHT)?;
        robot.lanyard.is_well()?;
        let trip = robot.lanyard.estop()?;
        let tripped = robot.lanyard.run(&["status"])?;
        ensure!(tripped.code == Some(2), "a tripped robot: {tripped:?}");
        ensure!(tripped.stdout.contains(&format!("lanyard reset {trip}")), "no way out: {tripped:?}");
        robot.supervisor()?.kill()?;
        let gone = robot.lanyard.run(&["status"])?;
        ensure!(gone.code == Some(1), "no supervisor: {gone:?}");
        let unheard = robot.lanyard.run(&["estop"])?;
        ensure!(unheard.code == Some(1) && unheard.stderr.contains("STOPPED NOTHING"), "{unheard:?}");
        Ok(())
    })
}
