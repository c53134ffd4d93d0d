//! Every drive family, one after the other through the same life: driven, left alone, disobedient, silent, and
//! commanded by a stranger.
//!
//! What a frame means is not asked here. Whether the motor stands still is known from the simulated shaft, which no
//! frame can talk out of turning; whether Lanyard knows it, from what it publishes. A stranger's frames are the very ones
//! that have driven the motor before.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::clock::Moment;
use tests::expect;
use tests::families::{self, Bus, COMMON, Family};
use tests::intruder::Intruder;
use tests::python::{Client, Clients};
use tests::robot::{MOVE, Robot, START, STILL, Setup};
use tests::simulation::Report;
use tests::wire::Seen;

use crate::scene::play;

/// The motor's name.
const NAME: &str = "joint";
/// Three fifths of the speed that is asked for, rev/s: reached on the ramp by every drive, and by none that was not told.
const TURNING: f64 = 1.2;

fn live(case: &Family) -> Result<()> {
    let setup = Setup::new()
        .window("1s")
        // A ramp down from 2 rev/s takes 0.1 s; coasting to a standstill 0.7 s.
        .supervisor_key("stage_timeout", "\"1s\"")
        .with_drive(NAME, &case.table(), case.drive);
    let setup = if case.bus == Bus::Fd { setup.fd() } else { setup };
    play(setup, |robot, clients| {
        let driven = is_driven_and_stopped(robot, clients, case)?;
        strangers_are_answered(robot, case, &driven)?;
        if case.stages.len() > 1 {
            disobedience_is_answered_with_the_next_stage(robot, clients, case)?;
        }
        silence_proves_nothing(robot, clients, case)?;
        let bus = robot.lanyard.status()?["buses"][0].clone();
        ensure!(bus["disbelieved"] == 0, "the front's own frames were taken for feedback: {bus}");
        Ok(())
    })
}

fn report(robot: &Robot, case: &Family) -> Result<Report> {
    robot.sim.report(case.node)
}

/// Drives the motor, lets the client die, and waits for what has to follow. Returns the frames by which it turned.
fn is_driven_and_stopped(robot: &Robot, clients: &mut Clients, case: &Family) -> Result<Vec<Seen>> {
    let mut client = robot.client(clients)?;
    // A drive that is off may answer to nothing but the second stage of the stop at the start, which comes later than a
    // command waits for its grant.
    robot
        .lanyard
        .wait_for_motor(NAME, STILL, "is proven at rest after the start", |motor| motor.state() == "idle")?;
    let from = Moment::now();
    client.ask("set_power", json!({ "name": NAME, "power": 0.4 }))?;
    robot.sim.wait_for_speed(case.node, TURNING, MOVE)?;
    let is_right = |speed: f64| (speed - 2.0).abs() < 0.2;
    expect::within(MOVE, "2 rev/s, as asked for", || {
        let report = report(robot, case).map_err(|error| format!("{error:#}"))?;
        if is_right(report.velocity()) { Ok(()) } else { Err(report.0.to_string()) }
    })?;
    // Not only on the way up: a drive that stops by itself is no drive that follows. One whose speed the front regulates (dji) is off
    // it for a moment whenever the rig stands still, and comes back.
    std::thread::sleep(Duration::from_millis(300));
    expect::within(MOVE, "still 2 rev/s", || {
        let report = report(robot, case).map_err(|error| format!("{error:#}"))?;
        if is_right(report.velocity()) { Ok(()) } else { Err(report.0.to_string()) }
    })?;
    ensure!(robot.lanyard.motor(NAME)?.state() == "granted", "it turns without a grant");
    let death = client.kill()?;
    robot.lanyard.wait_for_trip(death, "session expired", NAME, START)?;
    robot.sim.wait_for_standstill(case.node, STILL)?;
    let stopped =
        robot.lanyard.wait_for_motor(NAME, STILL, "is stopped", |motor| motor.state() == "stopped")?;
    println!("stopped in stage {:?} after {} frames", stopped.stage(), stopped.stops_sent());
    let report = report(robot, case)?;
    // The proof is allowed up to the family's own threshold; 0.05 rev/s is a turn in 20 s.
    ensure!(report.velocity().abs() <= 0.05, "proven to stand still, and turns: {report:?}");
    let frames = robot.listener.since(from)?.into_iter().filter(|frame| frame.at < death);
    Ok(frames.collect())
}

/// Everything that was on the bus while it was driven is sent again by somebody else.
fn strangers_are_answered(robot: &Robot, case: &Family, driven: &[Seen]) -> Result<()> {
    let before = robot.lanyard.motor(NAME)?.guarded();
    let stranger = Intruder::node("vcan0")?;
    let mut sent = BTreeSet::new();
    for frame in driven {
        if sent.insert(frame.to_string()) {
            stranger.send_seen(frame)?;
        }
    }
    robot
        .lanyard
        .wait_for_motor(NAME, STILL, "is stopped again", |motor| {
            motor.guarded() > before && motor.state() == "stopped"
        })
        .with_context(|| format!("a stranger's {} frames were not answered", sent.len()))?;
    robot.sim.wait_for_standstill(case.node, STILL)
}

/// A drive that does not do what the first stage says gets the next.
fn disobedience_is_answered_with_the_next_stage(
    robot: &Robot,
    clients: &mut Clients,
    case: &Family,
) -> Result<()> {
    let node = case.node;
    let from = Moment::now();
    let mut client = robot.client(clients)?;
    client.ask("set_power", json!({ "name": NAME, "power": 0.4 }))?;
    robot.sim.wait_for_speed(node, TURNING, MOVE)?;
    for order in ["ignore controlled on", "ignore-velocity-zero on"] {
        robot.sim.order(&format!("{node} {order}"))?;
    }
    client.kill()?;
    robot.lanyard.wait_for_event(from, START, "escalated", |event| {
        event.kind() == "escalated" && event.concerns(NAME)
    })?;
    robot.sim.wait_for_standstill(node, STILL)?;
    let stopped =
        robot.lanyard.wait_for_motor(NAME, STILL, "is stopped", |motor| motor.state() == "stopped")?;
    ensure!(stopped.stage() > Some(1), "stopped in stage {:?}", stopped.stage());
    for order in ["ignore controlled off", "ignore-velocity-zero off"] {
        robot.sim.order(&format!("{node} {order}"))?;
    }
    Ok(())
}

/// A drive that says nothing is never called still, and its stop is repeated until it speaks.
fn silence_proves_nothing(robot: &Robot, clients: &mut Clients, case: &Family) -> Result<()> {
    let node = case.node;
    let mut client = robot.client(clients)?;
    client.ask("set_power", json!({ "name": NAME, "power": 0.4 }))?;
    robot.sim.wait_for_speed(node, TURNING, MOVE)?;
    let mute = Moment::now();
    robot.sim.order(&format!("{node} mute on"))?;
    robot.lanyard.wait_for_trip(mute, "feedback lost", NAME, START)?;
    let first =
        robot.lanyard.wait_for_motor(NAME, START, "is unverified", |motor| motor.state() == "unverified")?;
    // It hears all the same.
    robot.sim.wait_for_standstill(node, STILL)?;
    let sent = first.stops_sent();
    robot.lanyard.wait_for_motor(NAME, START, "is stopped over and over", |motor| {
        motor.state() == "unverified" && motor.stops_sent() >= sent + 5
    })?;
    robot.sim.order(&format!("{node} mute off"))?;
    robot.lanyard.wait_for_motor(NAME, STILL, "is stopped", |motor| motor.state() == "stopped").map(drop)
}

/// A test of its own for each family, so that one does not hide another.
macro_rules! families {
    ($($name:ident;)*) => {
        /// Those that have a test.
        const TESTED: &[&str] = &[$(stringify!($name)),*];

        $(
            #[test]
            fn $name() -> Result<()> {
                live(families::find(stringify!($name)).context("no such family")?)
            }
        )*
    };
}

families! {
    agilex;
    cia402;
    cubemars_mit;
    cubemars_servo;
    damiao;
    dji;
    frames;
    moteus;
    odrive;
    rmd;
    robstride;
    tinymovr;
    vesc;
    cyphal;
    dronecan_raw;
    dronecan_rpm;
    rev_spark;
    roboteq;
}

/// Fails if a family of the list has no test here.
#[test]
fn every_family_is_tested() {
    let names: Vec<&str> = families::ALL.iter().map(|family| family.name).collect();
    assert_eq!(TESTED, names);
}

/// All RMDs of a bus listen to it (manual 3.1).
const RMD_BROADCAST: u32 = 0x280;

/// Fails if the one frame that stops all drives of a family is not the first when all are to be stopped, or if it
/// touches the motor of another session.
#[test]
fn a_broadcast_stops_all_at_once_and_nobody_elses_motor() -> Result<()> {
    let table = |id: u8| format!("{COMMON}driver = \"rmd\"\nid = {id}\nafter_stop = \"hold\"");
    let setup = Setup::new().window("1s").with_drive("one", &table(1), "rmd:node=1").with_drive(
        "two",
        &table(2),
        "rmd:node=2",
    );
    let is_broadcast = |frame: &Seen| frame.id == RMD_BROADCAST && !frame.extended;
    let is_own = |frame: &Seen| matches!(frame.id, 0x141 | 0x142) && frame.data.first() == Some(&0x81);
    play(setup, |robot, clients| {
        let turn = |client: &mut Client, motor: &str, node: u8| -> Result<()> {
            client.ask("set_power", json!({ "name": motor, "power": 0.4 }))?;
            robot.sim.wait_for_speed(node, TURNING, MOVE)
        };
        let mut both = robot.client(clients)?;
        turn(&mut both, "one", 1)?;
        turn(&mut both, "two", 2)?;
        let death = both.kill()?;
        let first =
            robot.listener.wait(death, START, "stop", |frame| is_broadcast(frame) || is_own(frame))?;
        ensure!(is_broadcast(&first), "the first stop was {first}");
        for node in [1, 2] {
            robot.sim.wait_for_standstill(node, STILL)?;
        }
        for motor in ["one", "two"] {
            robot.lanyard.wait_for_motor(motor, STILL, "is stopped", |motor| motor.state() == "stopped")?;
        }
        let from = Moment::now();
        let (mut mortal, mut other) = (robot.client(clients)?, robot.client(clients)?);
        turn(&mut mortal, "one", 1)?;
        turn(&mut other, "two", 2)?;
        let death = mortal.kill()?;
        robot.lanyard.wait_for_trip(death, "session expired", "one", START)?;
        robot.sim.wait_for_standstill(1, STILL)?;
        ensure!(
            robot.listener.first(from, is_broadcast)?.is_none(),
            "another session's motor was stopped, too"
        );
        let speed = robot.sim.report(2)?.velocity();
        ensure!((speed - 2.0).abs() < 0.2, "the other session's motor turns at {speed} rev/s");
        Ok(())
    })
}

/// Fails if a drive with a watchdog of its own lets go, or has its session tripped, because its driver has it stand
/// still for longer than that.
#[test]
fn a_motor_that_waits_keeps_its_session_and_its_watchdog() -> Result<()> {
    let table = format!("{COMMON}driver = \"odrive\"\nnode = 3\nfirmware = \"0.6\"\nafter_stop = \"hold\"");
    // Half a second: on the rig the front itself may be late by some hundred milliseconds.
    let setup =
        Setup::new().window("2s").with_drive(NAME, &table, "odrive:node=3,watchdog_ms=500,watchdog_idle=off");
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        client.ask("set_power", json!({ "name": NAME, "power": 0.4 }))?;
        robot.sim.wait_for_speed(3, TURNING, MOVE)?;
        let stopped = Moment::now();
        client.ask("set_power", json!({ "name": NAME, "power": 0.0 }))?;
        std::thread::sleep(Duration::from_secs(2));
        let trip =
            robot.lanyard.events()?.into_iter().find(|event| event.at() > stopped && event.kind() == "trip");
        ensure!(trip.is_none(), "tripped while it waited: {trip:?}");
        ensure!(robot.lanyard.motor(NAME)?.state() == "granted", "no longer granted");
        ensure!(robot.sim.report(3)?.enabled(), "its own watchdog took the torque away");
        client.ask("set_power", json!({ "name": NAME, "power": 0.4 }))?;
        robot.sim.wait_for_speed(3, TURNING, MOVE)
    })
}

/// Fails if what the kernel sends for a supervisor that was killed is not what a CAN FD drive understands.
#[test]
fn the_kernel_stops_a_drive_that_speaks_can_fd() -> Result<()> {
    let table = format!("{COMMON}driver = \"moteus\"\nid = 1\nafter_stop = \"release\"");
    // Without a front nobody is left to send anything.
    let setup = Setup::new().fd().with_drive(NAME, &table, "moteus:node=1").without_front();
    play(setup, |robot, _| {
        robot.lanyard.wait_for_motor(NAME, STILL, "is at rest", |motor| motor.state() == "idle")?;
        let before = robot.sim.report(1)?.stops("controlled");
        let grief = Moment::now();
        robot.supervisor()?.signal(Signal::SIGKILL)?;
        // Mode 12, zero velocity.
        let is_stop = |frame: &Seen| frame.fd.is_some() && frame.data.starts_with(&[0x01, 0x00, 0x0C]);
        let stop = robot.listener.wait(grief, START, "stop by the kernel", is_stop)?;
        println!("{stop} after {:.1} ms", stop.at.millis_since(grief));
        expect::within(START, "the drive understands it", || {
            let seen = robot.sim.report(1).map_err(|error| format!("{error:#}"))?.stops("controlled");
            if seen > before { Ok(()) } else { Err(format!("{seen} stops")) }
        })
    })
}
