//! Drives that do not do as they are told, buses that fail, strangers on the bus: sent is not stopped.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::clock::Moment;
use tests::interface::Changed;
use tests::intruder::Intruder;
use tests::listener::Listener;
use tests::robot::{AFTER_STOP, ARM, ARM_PDO, LEFT, MOVE, RIGHT, Robot, START, STILL, Setup};

use crate::scene::play;

const WINDOW: Duration = Duration::from_secs(1);

/// Fails if a stop that has no effect is taken for one, or is not followed by the next stage.
#[test]
fn drive_that_ignores_the_controlled_stop_loses_its_torque() -> Result<()> {
    // Without torque the wheel coasts from 2 rev/s to a standstill in 0.6 s: less than a stage may take.
    play(Setup::base().window("1s").supervisor_key("stage_timeout", "\"1s\""), |robot, clients| {
        robot.sim.order("3 ignore controlled on")?;
        robot.sim.order("3 ignore-velocity-zero on")?;
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let death = client.kill()?;
        let (_, stop) = robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
        let off = robot.listener.wait(stop.at, START, "torque off", |frame| LEFT.is_torque_off(frame))?;
        // Not before `stage_timeout`; a tick and its work may be added.
        let after = robot.is_prompt(stop.at, Duration::from_millis(1100), &off)?;
        ensure!(after >= 995.0, "torque was taken away after {after} ms");
        let status = robot.verified(&LEFT)?;
        ensure!(status.stage() == Some(2), "stopped in stage {:?}", status.stage());
        ensure!(!robot.sim.report(LEFT.node)?.enabled(), "the drive still has torque");
        robot.lanyard.wait_for_event(death, START, "escalated", |event| {
            event.kind() == "escalated" && event.concerns("left")
        })?;
        // The other wheel obeyed: its stop stays gentle.
        ensure!(robot.verified(&RIGHT)?.stage() == Some(1), "the other wheel was escalated, too");
        Ok(())
    })
}

/// Fails if a drive that says nothing is called still, if its stop is not repeated, or if its proof is not
/// taken when it speaks again.
#[test]
fn mute_drive_is_unverified_until_it_speaks() -> Result<()> {
    play(Setup::base().supervisor_key("stage_timeout", "\"200ms\""), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let mute = Moment::now();
        robot.sim.order("3 mute on")?;
        // A running drive that has said nothing for half a second is a reason to stop.
        robot.lanyard.wait_for_trip(mute, "feedback lost", "left", START)?;
        robot
            .lanyard
            .wait_for_motor("left", START, "is unverified", |motor| motor.state() == "unverified")?;
        ensure!(robot.lanyard.run(&["status"])?.code == Some(2), "status calls that healthy");
        let from = Moment::now();
        std::thread::sleep(Duration::from_millis(500));
        let repeats = robot.listener.count(from, Moment::now(), |frame| LEFT.is_torque_off(frame))?;
        // Every 20 ms, rounded up to ticks: 20 to 25 in half a second.
        ensure!(repeats >= 10, "the last stage was repeated {repeats} times in 500 ms");
        let speaks = Moment::now();
        robot.sim.order("3 mute off")?;
        robot.verified(&LEFT)?;
        robot.lanyard.wait_for_event(speaks, START, "standstill", |event| {
            event.kind() == "standstill" && event.concerns("left")
        })?;
        Ok(())
    })
}

/// Fails if a drive that was not on the bus when it was to stop runs on when it comes back.
#[test]
fn absent_drive_is_stopped_when_it_comes_back() -> Result<()> {
    play(Setup::base().supervisor_key("stage_timeout", "\"200ms\""), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        robot.sim.order("3 offline on")?;
        robot
            .lanyard
            .wait_for_motor("left", START, "is unverified", |motor| motor.state() == "unverified")?;
        let speed = robot.sim.report(LEFT.node)?.velocity();
        ensure!(speed > 1.0, "the unplugged drive was to run on, but turns at {speed} rev/s");
        robot.sim.order("3 offline off")?;
        robot.verified(&LEFT)?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)
    })
}

/// Fails if a dead bus is no reason to stop, if what could not be stopped is not stopped anew from the gentle
/// stage on when it is back, or if the motors cannot be driven again afterwards.
#[test]
fn bus_that_fails_trips_and_the_stops_follow_when_it_is_back() -> Result<()> {
    let setup = Setup::base().window("5s").supervisor_key("stage_timeout", "\"200ms\"");
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let before = Moment::now();
        let bus = Changed::down("vcan0")?;
        robot.lanyard.wait_for_trip(before, "bus fault", "left", START)?;
        robot
            .lanyard
            .wait_for_motor("left", START, "is unverified", |motor| motor.state() == "unverified")?;
        let up = Moment::now();
        bus.restore()?;
        for motor in [&LEFT, &RIGHT] {
            let stop = robot.listener.wait_for_stop(motor, up, START)?;
            println!("bus up: {} stopped after {:.1} ms", motor.name, stop.at.millis_since(up));
            robot.verified(motor)?;
            robot.sim.wait_for_standstill(motor.node, STILL)?;
        }
        let mut fresh = robot.client(clients)?;
        robot.drive_base(&mut fresh)
    })
}

/// Fails if a frame of a stranger sets a stopped motor in motion and nobody answers it.
#[test]
fn stranger_that_moves_a_stopped_motor_is_answered_with_the_stop() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let death = client.kill()?;
        robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
        robot.verified(&LEFT)?;
        let stranger = Intruder::node("vcan0")?;
        // 2.0 rev/s for node 3: 0x0D is the velocity.
        let sent = stranger.send(0x06D, &[0, 0, 0, 0x40, 0, 0, 0, 0])?;
        let answer = robot.listener.wait_for_stop(&LEFT, sent, START)?;
        let after = robot.is_prompt(sent, Duration::from_millis(20), &answer)?;
        println!("bus guard: answered after {after:.2} ms");
        let status = robot.verified(&LEFT)?;
        ensure!(status.guarded() >= 1, "not counted: {status:?}");
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        // A stranger's reading of something is no reason for anything.
        let guarded = robot.lanyard.motor("left")?.guarded();
        stranger.send(0x077, &[])?;
        std::thread::sleep(Duration::from_millis(100));
        ensure!(robot.lanyard.motor("left")?.guarded() == guarded, "a harmless frame was answered");
        Ok(())
    })
}

/// Fails if a fault of a running drive does not stop everything its session drives.
#[test]
fn faulty_drive_stops_its_whole_session() -> Result<()> {
    play(Setup::base().window("5s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let fault = Moment::now();
        robot.sim.order("3 fault 0x1000")?;
        robot.lanyard.wait_for_trip(fault, "drive fault", "left", START)?;
        // In the journal, in the family's words; this bit has none.
        robot.supervisor()?.wait_for_line("left: 0x1000", START)?;
        let stop = robot.listener.wait_for_stop(&RIGHT, fault, START)?;
        // The fault is told by the heartbeat, every 100 ms.
        robot.is_prompt(fault, Duration::from_millis(250), &stop)?;
        robot.verified(&RIGHT)?;
        robot.sim.order("3 fault 0")?;
        let mut fresh = robot.client(clients)?;
        // Nobody has acknowledged it yet.
        fresh.ask("stop_all", json!({}))?;
        std::thread::sleep(AFTER_STOP);
        robot.drive_base(&mut fresh)
    })
}

/// Fails if a CiA 402 drive that gets its commands by PDO is not driven or not stopped by them.
#[test]
fn cia402_by_pdo_is_stopped_at_the_deadline() -> Result<()> {
    play(Setup::new().with_keys(&ARM_PDO, "", "").window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &ARM_PDO, 0.4)?;
        let death = client.kill()?;
        let (_, stop) = robot.stopped_at_deadline(&ARM_PDO, death, WINDOW)?;
        let set = robot.listener.wait_for_stop_set(&ARM_PDO, stop.at, START)?;
        ensure!(set.len() == 2, "the stop goes out by PDO and by SDO: {set:?}");
        let status = robot.verified(&ARM_PDO)?;
        ensure!(status.stage() == Some(1), "stopped in stage {:?}", status.stage());
        robot.no_motion_after(&ARM_PDO, &stop)?;
        let mut fresh = robot.client(clients)?;
        robot.drive(&mut fresh, &ARM_PDO, -0.4)
    })
}

/// Fails if the quick stop of a CiA 402 drive (by SDO) is not the ramp it is configured to, or if a drive
/// that ignores it keeps its torque.
#[test]
fn cia402_by_sdo_escalates_to_disable_voltage() -> Result<()> {
    play(Setup::new().with(&ARM).window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &ARM, 0.4)?;
        robot.sim.order("40 ignore quick on")?;
        let death = client.kill()?;
        let (_, stop) = robot.stopped_at_deadline(&ARM, death, WINDOW)?;
        let off = robot.listener.wait(stop.at, START, "torque off", |frame| ARM.is_torque_off(frame))?;
        ensure!(off.at > stop.at, "torque was taken away before the controlled stop");
        ensure!(robot.verified(&ARM)?.stage() == Some(2), "not in the second stage");
        ensure!(!robot.sim.report(ARM.node)?.enabled(), "the drive still has torque");
        Ok(())
    })
}

/// Fails if a supervisor that starts beside running motors arms without stopping them.
#[test]
fn motors_that_run_at_start_are_stopped_first() -> Result<()> {
    let setup = Setup::new()
        .with_keys(&LEFT, "", "running=2.0,control_mode=2")
        .with_keys(&ARM, "", "running=2.0")
        .drives_only();
    play(setup, |robot, _| {
        robot.sim.wait_for_speed(LEFT.node, 1.5, MOVE)?;
        robot.sim.wait_for_speed(ARM.node, 1.5, MOVE)?;
        let start = Moment::now();
        robot.start_supervisor()?;
        for motor in [&LEFT, &ARM] {
            robot.listener.wait_for_stop(motor, start, START)?;
            robot.verified(motor)?;
            robot.sim.wait_for_standstill(motor.node, STILL)?;
        }
        let armed = robot.lanyard.events()?.into_iter().find(|event| event.kind() == "armed");
        armed.context("never armed").map(drop)
    })
}

/// Fails if a motor that two buses reach is stopped on one only, if a bus that is down delays the other, or if
/// feedback from the second is not believed.
#[test]
fn two_buses_both_get_the_stop_and_a_dead_one_delays_nothing() -> Result<()> {
    let listener = Listener::open("vcan1")?;
    play(Setup::base().also_on("vcan1").window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let death = client.kill()?;
        let (_, stop) = robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
        let twin = listener.wait_for_stop(&LEFT, death, START)?;
        println!("on the second bus {:.3} ms after the first", twin.at.millis_since(stop.at));
        // One pass of the loop sends both.
        ensure!(twin.at.millis_since(stop.at).abs() < 50.0, "the second bus got its stop much later");
        robot.verified(&LEFT)?;
        robot.verified(&RIGHT)?;
        let mut fresh = robot.client(clients)?;
        robot.drive_base(&mut fresh)?;
        let before = Moment::now();
        let bus = Changed::down("vcan0")?;
        robot.lanyard.wait_for_trip(before, "bus fault", "left", START)?;
        for motor in [&LEFT, &RIGHT] {
            let stop = listener.wait_for_stop(motor, before, START)?;
            println!("{}: over the other bus after {:.1} ms", motor.name, stop.at.millis_since(before));
        }
        bus.restore()?;
        robot.verified(&LEFT).map(drop)
    })
}

/// Fails if the doctor does not read a drive's own watchdog from the drive, or is content with one that is off.
#[test]
fn the_doctor_reads_the_watchdog_from_the_drive() -> Result<()> {
    let watched = |robot: &Robot| -> Result<(Option<i32>, Value)> {
        let config = robot.config.display().to_string();
        let answer = robot.lanyard.run(&["doctor", &config, "--json", "--only", "drives"])?;
        Ok((answer.code, serde_json::from_str(&answer.stdout).context(answer.stderr)?))
    };
    play(Setup::new().with(&ARM).with(&LEFT).window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &ARM, 0.4)?;
        let (_, findings) = watched(robot)?;
        ensure!(findings[0]["verdict"] == "unknown", "a drive in use was asked: {findings}");
        client.kill()?;
        robot.verified(&ARM)?;
        let (code, findings) = watched(robot)?;
        let found = findings[0]["found"].as_str().unwrap_or_default();
        ensure!(found.contains("250 ms, read from the drive"), "{findings}");
        ensure!(findings[1]["verdict"] == "unknown", "an ODrive's cannot be read: {findings}");
        ensure!(code == Some(0), "exit code {code:?}");
        robot.sim.order("40 offline on")?;
        let (code, findings) = watched(robot)?;
        ensure!((code, &findings[0]["verdict"]) == (Some(1), &Value::from("attention")), "{findings}");
        robot.sim.order("40 offline off").map(drop)
    })
}
