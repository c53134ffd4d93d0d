//! Signs of life and of success without the thing that they stand for: a drive that was silent before its grant, one that
//! tells everything but its speed, one that another master makes deaf, and a heartbeat that keeps a deaf one running.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::clock::Moment;
use tests::intruder::Intruder;
use tests::robot::{ARM, LEFT, MOVE, START, STILL, Setup};
use tests::wire::{Family, Motor};

use crate::scene::play;

/// Longer than any word of a drive counts (half a second).
const TOO_LONG: Duration = Duration::from_millis(800);

/// Fails if a drive that has said nothing since its proof is driven: it was turned at 4.5 rev/s for as long as anybody
/// looked, with no trip. A VESC has no enabling, so no step of one is missing either.
#[test]
fn a_drive_that_fell_silent_before_the_grant_is_not_driven() -> Result<()> {
    const VESC: &str =
        "driver = \"vesc\"\nid = 1\npole_pairs = 14\nafter_stop = \"release\"\nmax_rpm = 300\n";
    let setup = Setup::new().with_drive("joint", VESC, "vesc:node=1,pole_pairs=14");
    play(setup, |robot, clients| {
        robot.lanyard.wait_for_motor("joint", STILL, "is proven", |motor| motor.state() == "idle")?;
        robot.sim.order("1 mute on")?;
        std::thread::sleep(TOO_LONG);
        let mut client = robot.client(clients)?;
        let told = client.ask("set_power", json!({ "name": "joint", "power": 0.9 }));
        ensure!(told.is_err(), "a command for a mute drive was answered {told:?}");
        std::thread::sleep(TOO_LONG);
        let report = robot.sim.report(1)?;
        ensure!(report.velocity().abs() < 0.05, "driven blind: {report:?}");
        robot.sim.order("1 mute off")?;
        std::thread::sleep(TOO_LONG);
        client.ask("set_power", json!({ "name": "joint", "power": 0.4 }))?;
        robot.sim.wait_for_speed(1, 1.2, MOVE).map(drop)
    })
}

/// Fails if heartbeats are taken for feedback: a running drive whose encoder messages had ended turned on without a trip.
#[test]
fn a_running_drive_that_no_longer_tells_its_speed_is_stopped() -> Result<()> {
    play(Setup::base().window("5s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let lost = Moment::now();
        robot.sim.order("3 feedback-loss on")?;
        robot.lanyard.wait_for_trip(lost, "feedback lost", "left", START)?;
        robot.listener.wait_for_stop(&LEFT, lost, START)?;
        robot.sim.wait_for_standstill(LEFT.node, STILL).map(drop)
    })
}

/// Fails if a granted motor is not watched: somebody else's frames turned it at four times its `max_rpm`.
#[test]
fn a_granted_motor_that_somebody_else_drives_too_fast_is_stopped() -> Result<()> {
    play(Setup::base().window("5s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.1)?;
        let stranger = Intruder::local("vcan0")?;
        let from = Moment::now();
        // 20 rev/s backwards, more often than the front commands; 0x0D is the velocity.
        let [v0, v1, v2, v3] = (-20.0_f32).to_le_bytes();
        let fast = || stranger.send(0x06D, &[v0, v1, v2, v3, 0, 0, 0, 0]);
        for _ in 0..500 {
            fast()?;
            std::thread::sleep(Duration::from_millis(4));
        }
        robot.lanyard.wait_for_trip(from, "overspeed", "left", START)?;
        robot.sim.wait_for_standstill(LEFT.node, STILL).map(drop)
    })
}

/// A drive that does not apply its reaction (6007) to NMT stop, as CiA 301 allows.
const NO_REACTION: &str = "nmt_stop_aborts=off";

/// Fails if a driven CANopen drive that another master makes deaf cannot be stopped: no stage reached it, and it turned
/// for as long as anybody looked.
#[test]
fn a_drive_that_another_master_makes_deaf_is_woken_and_stopped() -> Result<()> {
    for family in [Family::Sdo, Family::Pdo] {
        let motor = Motor::new("deaf", ARM.node, family);
        let setup = Setup::new().with_keys(&motor, "", NO_REACTION).window("5s");
        play(setup, |robot, clients| {
            let mut client = robot.client(clients)?;
            robot.drive(&mut client, &motor, 0.4)?;
            let other_master = Intruder::node("vcan0")?;
            let deaf = other_master.send(0x000, &[0x02, ARM.node])?;
            robot.lanyard.wait_for_trip(deaf, "drive made deaf", "deaf", START)?;
            robot.sim.wait_for_standstill(ARM.node, STILL)?;
            robot.verified(&motor)?;
            // Nobody has to send an NMT start by hand.
            let mut fresh = robot.client(clients)?;
            robot.drive(&mut fresh, &motor, 0.4)
        })?;
    }
    Ok(())
}

/// Fails if the supervisor's heartbeat keeps a drive running that obeys no stage: killing the supervisor stopped it.
#[test]
fn the_heartbeat_is_withdrawn_from_a_drive_that_obeys_no_stage() -> Result<()> {
    const TABLE: &str = "driver = \"cia402\"\nnode = 40\ncounts_per_rev = 4096\nafter_stop = \"release\"\n\
                         max_rpm = 300\nheartbeat_ms = 500\n";
    let setup = Setup::new()
        .with_drive("deaf", TABLE, "cia402:node=40")
        .window("1s")
        .supervisor_key("stage_timeout", "\"300ms\"");
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        client.ask("set_power", json!({ "name": "deaf", "power": 0.4 }))?;
        robot.sim.wait_for_speed(40, 1.2, MOVE)?;
        robot.sim.order("40 ignore all on")?;
        let death = client.kill()?;
        robot.lanyard.wait_for_event(death, START, "withdrawn", |event| {
            event.kind() == "heartbeat withdrawn" && event.concerns("deaf")
        })?;
        // By the drive's own reaction to the loss of the heartbeat (1016, 6007).
        robot.sim.wait_for_standstill(40, STILL).map(drop)
    })
}
