//! What follows when the first of the kernel's stops has no effect: the supervisor is killed, its front hangs, and the drive
//! goes on turning. The harder stages come, or the drive's own watchdog takes the torque, because no stop feeds it any more.
//!
//! Each bound is computed from the times that the robot is configured with.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::bound::ensure_within;
use tests::clock::Moment;
use tests::expect::within;
use tests::holder;
use tests::python::{Client, Clients};
use tests::robot::{LATE, LEFT, MOVE, Robot, START, STILL, Setup};
use tests::shipped;
use tests::wire::Seen;

use crate::scene::play;

/// `kernel_stop`, longer than the rig as a whole stands still.
const LONG: Duration = Duration::from_millis(200);
const STAGE: Duration = Duration::from_millis(500);
/// How much longer the kernel gives a stage at most: its jobs are put off this seldom, before and after.
const SLACK: Duration = Duration::from_millis(200);
/// The drive's own watchdog.
const WATCHDOG: Duration = Duration::from_millis(300);
/// How long a stop is watched that must not come.
const WATCHED: Duration = Duration::from_secs(3);

/// `kernel_stop` of these robots.
fn kernel_stop() -> Duration {
    shipped::or(shipped::KERNEL_STOP, LONG)
}

/// After which time at most the kernel has sent so many stages.
fn over(stages: u32) -> Duration {
    kernel_stop() + (STAGE + SLACK) * stages
}

/// An ODrive with its watchdog on, which it has whatever its configuration in Lanyard says.
fn odrive(after_stop: &str) -> Setup {
    let table = format!(
        "driver = \"odrive\"\nfirmware = \"0.6\"\nnode = 3\nmax_rpm = 300\nafter_stop = \"{after_stop}\""
    );
    patient(&table, "odrive:node=3,watchdog_ms=300,watchdog_idle=off")
}

/// Front and sessions may be silent for long: what stops a motor is the kernel, or the drive.
fn patient(table: &str, drive: &str) -> Setup {
    Setup::new()
        .with_drive(LEFT.name, table, drive)
        .window("20s")
        .supervisor_key("front_window", "\"5s\"")
        .kernel_stop(kernel_stop().as_millis())
        .supervisor_key("stage_timeout", &format!("\"{}ms\"", STAGE.as_millis()))
}

/// Drives the motor, has its drive ignore some stops, and kills the supervisor; the holder lives. The client is to live
/// on, too: the end of its connection would be another reason to stop.
fn dies_before_a_deaf_drive(
    robot: &mut Robot,
    clients: &mut Clients,
    node: u8,
    ignored: &str,
) -> Result<(Client, Moment)> {
    let mut client = robot.client(clients)?;
    client.ask("set_power", json!({ "name": LEFT.name, "power": 0.4 }))?;
    robot.sim.wait_for_speed(node, 1.0, MOVE)?;
    robot.sim.order(&format!("{node} ignore {ignored} on"))?;
    let holder = holder::of(robot.supervisor()?.pid())?;
    robot.signal_front(Signal::SIGSTOP)?;
    let grief = Moment::now();
    robot.supervisor()?.kill()?;
    ensure!(holder::all()?.iter().any(|(pid, _)| *pid == holder), "the holder has died, too");
    Ok((client, grief))
}

/// Waits until the drive has no torque, and checks that it was not later than the bound after `grief`.
fn loses_its_torque(robot: &Robot, node: u8, grief: Moment, bound: Duration) -> Result<()> {
    within(START, "the drive has no torque", || {
        let report = robot.sim.report(node).map_err(|error| format!("{error:#}"))?;
        if report.enabled() { Err(report.0.to_string()) } else { Ok(()) }
    })?;
    let took = Moment::now().since(grief);
    let stalled = robot.stalls.between(grief, Moment::now());
    // Reports are asked for one after the other, hence the last part.
    let late = LATE + Duration::from_millis(100);
    ensure_within(took, bound + stalled + late, || {
        format!("only after {took:?}, and {bound:?} is the bound")
    })?;
    println!("without torque after {took:?}, {bound:?} is the bound");
    robot.sim.wait_for_standstill(node, STILL)
}

/// The kernel's own stops of this ODrive: nothing but the marker may come once they are over.
fn is_for_the_axis(frame: &Seen) -> bool {
    const REPORTS: [u32; 2] = [0x01, 0x09];
    !frame.extended && frame.id >> 5 == 3 && !REPORTS.contains(&(frame.id & 0x1F))
}

/// Fails if the kernel repeats a stop that has no effect: a harder one follows after the stage's time.
#[test]
fn drive_that_ignores_the_gentle_stop_is_released() -> Result<()> {
    play(odrive("release"), |robot, clients| {
        let (_client, grief) = dies_before_a_deaf_drive(robot, clients, 3, "controlled")?;
        let off = robot.listener.wait(grief, START, "torque off", |frame| LEFT.is_torque_off(frame))?;
        robot.is_prompt(grief, over(1) + LATE, &off)?;
        loses_its_torque(robot, 3, grief, over(1))?;
        // The stages came in their order.
        let gentle = robot.listener.first(grief, |frame| LEFT.is_stop(frame))?.context("no gentle stop")?;
        ensure!(gentle.at < off.at, "{off} came before {gentle}");
        Ok(())
    })
}

/// Fails if the kernel feeds the watchdog of a drive that obeys no stop at all, or goes on when that has bitten.
#[test]
fn drive_that_ignores_every_stop_is_left_to_its_watchdog() -> Result<()> {
    play(odrive("release"), |robot, clients| {
        let (_client, grief) = dies_before_a_deaf_drive(robot, clients, 3, "all")?;
        loses_its_torque(robot, 3, grief, over(3) + WATCHDOG)?;
        let later = Moment::now();
        std::thread::sleep(WATCHED);
        let fed = robot.listener.first(later, is_for_the_axis)?;
        ensure!(fed.is_none(), "the kernel still sends {fed:?}");
        Ok(())
    })
}

/// Fails if the kernel lets an axis fall that is to be held. Its own watchdog is fed by the stop that holds, so that ends
/// after its stage.
#[test]
fn held_axis_gets_no_torque_off_from_the_kernel() -> Result<()> {
    play(odrive("hold"), |robot, clients| {
        let (_client, grief) = dies_before_a_deaf_drive(robot, clients, 3, "controlled")?;
        loses_its_torque(robot, 3, grief, over(1) + WATCHDOG)?;
        std::thread::sleep(WATCHED);
        let fall = robot.listener.first(grief, |frame| LEFT.is_torque_off(frame))?;
        ensure!(fall.is_none(), "the kernel takes the torque of a held axis: {fall:?}");
        let gentle = robot.listener.first(grief, |frame| LEFT.is_stop(frame))?;
        ensure!(gentle.is_some(), "the kernel has sent nothing, which shows nothing");
        Ok(())
    })
}

/// Fails if stops keep a VESC turning that obeys none: each of its commands feeds its timeout.
#[test]
fn vesc_that_ignores_every_stop_is_left_to_its_timeout() -> Result<()> {
    let table = "driver = \"vesc\"\nid = 1\npole_pairs = 14\nmax_rpm = 300\nafter_stop = \"release\"";
    play(patient(table, "vesc:node=1,pole_pairs=14,timeout_ms=300"), |robot, clients| {
        let (_client, grief) = dies_before_a_deaf_drive(robot, clients, 1, "all")?;
        let bound = over(3) + WATCHDOG;
        within(START, "its timeout has bitten", || {
            let report = robot.sim.report(1).map_err(|error| format!("{error:#}"))?;
            if report.0["watchdog_tripped"] == json!(true) { Ok(()) } else { Err(report.0.to_string()) }
        })?;
        let took = Moment::now().since(grief);
        let late = robot.stalls.between(grief, Moment::now()) + LATE + Duration::from_millis(100);
        ensure_within(took, bound + late, || format!("only after {took:?}, and {bound:?} is the bound"))?;
        robot.sim.wait_for_standstill(1, STILL)
    })
}
