//! How well the bus is: what an interface reports is believed, and a bus that cannot be relied upon is a reason
//! to stop.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::clock::Moment;
use tests::expect;
use tests::interface::Removed;
use tests::intruder::Intruder;
use tests::robot::{LEFT, RIGHT, Robot, START, STILL, Setup};
use tests::simulation::Simulation;

use crate::scene::{no_stop_for, play};

/// The most the first stop frames may take after a report: it wakes the real-time thread like a frame.
const PROMPT: Duration = Duration::from_millis(50);

/// Error frames as a controller's driver makes them. Source: `include/uapi/linux/can/error.h`: class
/// controller with both counters; in the second byte the state, in the last two the counters.
const CONTROLLER: u32 = 0x204;
const WARNING: [u8; 8] = [0, 0x04, 0, 0, 0, 0, 96, 3];
const PASSIVE: [u8; 8] = [0, 0x20, 0, 0, 0, 0, 128, 3];
const ACTIVE: [u8; 8] = [0, 0x40, 0, 0, 0, 0, 12, 0];
const BUS_OFF: u32 = 0x040;
const RESTARTED: u32 = 0x100;

fn bus(robot: &Robot) -> Result<Value> {
    Ok(robot.lanyard.status()?["buses"][0].clone())
}

fn wait_for_health(robot: &Robot, health: &str) -> Result<Value> {
    expect::within(START, &format!("the bus is {health}"), || {
        let bus = bus(robot).map_err(|error| format!("{error:#}"))?;
        if bus["health"] == health { Ok(bus) } else { Err(bus.to_string()) }
    })
}

/// A report after which the bus cannot be relied upon, and one that ends that.
fn trips_until(robot: &mut Robot, clients: &mut tests::python::Clients, fails: Failure) -> Result<()> {
    let driver = Intruder::node("vcan0")?;
    let mut client = robot.client(clients)?;
    robot.drive_base(&mut client)?;
    let reported = driver.report(fails.report.0, fails.report.1)?;
    for motor in [&LEFT, &RIGHT] {
        let stop = robot.listener.wait_for_stop(motor, reported, START)?;
        let after = robot.is_prompt(reported, PROMPT, &stop)?;
        println!("{}: {} stopped after {after:.1} ms", fails.health, motor.name);
        robot.lanyard.wait_for_trip(reported, "bus fault", motor.name, START)?;
    }
    let seen = wait_for_health(robot, fails.health)?;
    ensure!(seen["up"] == false, "it counts as working: {seen}");
    let told = robot.lanyard.run(&["status"])?;
    ensure!(told.code == Some(2) && told.stdout.contains(fails.remedy), "status: {}", told.stdout);
    robot.verified(&LEFT)?;
    // Nobody drives over such a bus, whoever asks.
    let mut hopeful = robot.client(clients)?;
    let asked = Moment::now();
    // What the front answers depends on how far it has come; that nothing runs on is what matters.
    hopeful.call("set_power", serde_json::json!({ "name": "left", "power": 0.4 }))?;
    std::thread::sleep(Duration::from_millis(300));
    if let Some(moved) = robot.listener.last_drive(&LEFT, asked)? {
        robot.listener.wait_for_stop(&LEFT, moved.at, START)?;
    }
    robot.sim.wait_for_standstill(LEFT.node, STILL)?;

    driver.report(fails.ends.0, fails.ends.1)?;
    let seen = wait_for_health(robot, "error-active")?;
    ensure!(seen["up"] == true, "it still counts as broken: {seen}");
    robot.lanyard.wait_for_event(reported, START, "bus up", |event| event.kind() == "bus up")?;
    let mut fresh = robot.client(clients)?;
    robot.drive_base(&mut fresh)
}

struct Failure {
    report: (u32, [u8; 8]),
    health: &'static str,
    remedy: &'static str,
    ends: (u32, [u8; 8]),
}

/// Fails if a disturbed bus is not told, or is a reason to stop while it still works.
#[test]
fn error_warning_is_told_and_stops_nothing() -> Result<()> {
    play(Setup::base().window("5s"), |robot, clients| {
        let driver = Intruder::node("vcan0")?;
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        driver.report(CONTROLLER, WARNING)?;
        let seen = wait_for_health(robot, "error-warning")?;
        ensure!(seen["up"] == true && seen["tx_errors"] == 96 && seen["rx_errors"] == 3, "{seen}");
        ensure!(seen["error_frames"] == 1, "{seen}");
        no_stop_for(&robot.listener, &LEFT, Duration::from_millis(500))?;
        let told = robot.lanyard.run(&["status"])?;
        ensure!(told.code == Some(2) && told.stdout.contains("termination"), "status: {}", told.stdout);
        driver.report(CONTROLLER, ACTIVE)?;
        wait_for_health(robot, "error-active")?;
        robot.lanyard.is_well()?;
        no_stop_for(&robot.listener, &LEFT, Duration::from_millis(100))
    })
}

/// Fails if a controller that can no longer make itself heard is no reason to stop, or remains one.
#[test]
fn error_passive_trips_who_drives_on_the_bus() -> Result<()> {
    play(Setup::base().window("5s"), |robot, clients| {
        let passive = Failure {
            report: (CONTROLLER, PASSIVE),
            health: "error-passive",
            remedy: "bit rate",
            ends: (CONTROLLER, ACTIVE),
        };
        trips_until(robot, clients, passive)
    })
}

/// Fails if a controller that has left the bus is no reason to stop, or remains one after its restart.
#[test]
fn bus_off_trips_until_the_controller_is_restarted() -> Result<()> {
    play(Setup::base().window("5s"), |robot, clients| {
        let off = Failure {
            report: (BUS_OFF, [0; 8]),
            health: "bus-off",
            remedy: "type can restart",
            ends: (RESTARTED, [0; 8]),
        };
        trips_until(robot, clients, off)
    })
}

/// Fails if a stranger that sends motion frames without pause gets a single one unanswered, moves the motor,
/// or pushes everything else out of the event log.
#[test]
fn stranger_that_never_rests_is_answered_every_time() -> Result<()> {
    const ATTACK: Duration = Duration::from_secs(3);
    play(Setup::base().window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        client.kill()?;
        // Held where it stands, with torque: every frame below would move it at once.
        robot.lanyard.wait_for_motor("left", STILL, "is stopped", |motor| motor.state() == "stopped")?;
        ensure!(robot.sim.report(LEFT.node)?.enabled(), "the drive has no torque");
        let stranger = Intruder::local("vcan0")?;
        let guarded = robot.lanyard.motor("left")?.guarded();
        let before = robot.lanyard.events()?.len();
        let from = Moment::now();
        let start = Instant::now();
        let mut sent = 0_u64;
        let position =
            || -> Result<f64> { robot.sim.report(LEFT.node)?.0["position"].as_f64().context("no position") };
        let began_at = position()?;
        while start.elapsed() < ATTACK {
            // 2.0 rev/s for node 3: 0x0D is the velocity.
            stranger.send(0x06D, &[0, 0, 0, 0x40, 0, 0, 0, 0])?;
            sent += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        robot.verified(&LEFT)?;
        let counted = robot.lanyard.motor("left")?.guarded() - guarded;
        let events = robot.lanyard.events()?.len() - before;
        let moved = (position()? - began_at).abs();
        println!("{sent} frames, {counted} answered, {events} events, moved by {moved:.3} revolutions");
        ensure!(sent >= 300, "the stranger sent only {sent} frames");
        ensure!(counted == sent, "{sent} frames, {counted} answered");
        // Each answer is the whole stop: after the last motion frame as after every other.
        let frames = robot.listener.since(from)?;
        let mut unanswered = 0;
        for frame in &frames {
            if LEFT.drives(frame) {
                unanswered += 1;
            } else if frame.id == 0x06D && LEFT.is_stop(frame) {
                unanswered = 0;
            }
        }
        ensure!(unanswered == 0, "the last {unanswered} frames had no answer");
        // Obeyed, they are 6 revolutions. Answered, the shaft moves for as long as the rig takes between a
        // frame and its answer, which can be tens of milliseconds when all of it stands still.
        ensure!(moved < 0.6, "the motor moved by {moved} revolutions");
        // One every 5 s per motor, and the standstill after it.
        ensure!(events <= 4, "{events} events in {ATTACK:?}");
        Ok(())
    })
}

/// Fails if an interface that is unplugged and plugged in again is lost to the supervisor, which by then may
/// open nothing; if its motors are not stopped from the gentle stage on; or if nobody can drive afterwards.
#[test]
fn interface_that_comes_back_is_taken_up_again() -> Result<()> {
    let setup = Setup::base().on("vcan1").window("5s").supervisor_key("stage_timeout", "\"3s\"");
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let unplugged = Moment::now();
        let removed = Removed::pair("vcan1")?;
        robot.lanyard.wait_for_trip(unplugged, "bus fault", "left", START)?;
        let seen = wait_for_health(robot, "down")?;
        ensure!(seen["up"] == false, "{seen}");
        // Past the gentle stage, so that going back to it can be seen.
        robot
            .lanyard
            .wait_for_motor("left", START, "is in a later stage", |motor| motor.stage() > Some(1))?;
        // The drives have lost their interface, too, and end; others, which run, take their place.
        robot.sim.process.wait(START)?;
        let replugged = Moment::now();
        removed.restore()?;
        robot.listener = tests::listener::Listener::open("vcan1")?;
        let runs = |node: u8| format!("odrive:node={node},running=2.0,control_mode=2");
        let drives = [runs(LEFT.node), runs(RIGHT.node)];
        robot.sim = Simulation::start(&robot.programs, "vcan1", &drives, robot.file("sim2.sock"))?;
        for motor in [&LEFT, &RIGHT] {
            robot.listener.wait_for_stop(motor, replugged, START)?;
            // Proven by feedback that came in over the new interface.
            let status = robot.verified(motor)?;
            ensure!(status.stage() == Some(1), "{} was stopped in stage {:?}", motor.name, status.stage());
            robot.sim.wait_for_standstill(motor.node, STILL)?;
        }
        robot.lanyard.wait_for_event(unplugged, START, "bus up", |event| event.kind() == "bus up")?;
        wait_for_health(robot, "unknown").context("the interface is of the kind that does not tell")?;
        let mut fresh = robot.client(clients)?;
        robot.drive_base(&mut fresh)
    })
}
