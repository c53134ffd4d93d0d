//! The supervisor itself ends, in every way a process can.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::clock::Moment;
use tests::robot::{ARM, LEFT, RIGHT, START, STILL, Setup};

use crate::scene::play;

/// The most the first stop frames may take after a signal: the real-time thread waits for it like for a
/// frame. The rest is the rig's one processor.
const PROMPT: Duration = Duration::from_millis(50);

/// Fails if a supervisor that starts lets a motor run that it knows nothing of, if front or client cannot
/// go on afterwards, or if the session from before still moves something.
#[test]
fn restarted_supervisor_stops_first_and_the_front_finds_it_again() -> Result<()> {
    play(Setup::base().with(&ARM), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        robot.drive(&mut client, &ARM, 0.4)?;
        robot.supervisor()?.kill()?;
        let start = Moment::now();
        robot.start_supervisor()?;
        for motor in [&LEFT, &RIGHT, &ARM] {
            robot.listener.wait_for_stop(motor, start, START)?;
        }
        robot.front()?.wait_for_line("attached to the supervisor again", START)?;
        for motor in [&LEFT, &RIGHT, &ARM] {
            robot.verified(motor)?;
            robot.sim.wait_for_standstill(motor.node, STILL)?;
        }
        // What was commanded under the dead supervisor must not come back with the new one.
        let attached = Moment::now();
        std::thread::sleep(Duration::from_millis(500));
        for motor in [&LEFT, &RIGHT, &ARM] {
            let moved = robot.listener.first(attached, |frame| motor.drives(frame))?;
            ensure!(moved.is_none(), "{} was moved by nobody's command: {moved:?}", motor.name);
        }
        // The same client goes on; its SDK learns first that the session is over.
        let back = client.call("base_set_velocity", json!({ "name": "base1", "forward": 800.0 }))?;
        if let Err(refusal) = &back.result {
            crate::scene::is_session_expired(refusal)?;
        }
        robot.drive_base(&mut client)
    })
}

/// Fails if SIGTERM leaves a motor running or unproven, takes longer than it should to the first stop
/// frame, or does not end with code 0.
#[test]
fn terminated_supervisor_stops_everything_and_says_so() -> Result<()> {
    play(Setup::base().with(&ARM), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        robot.drive(&mut client, &ARM, 0.4)?;
        let told = Moment::now();
        robot.supervisor()?.signal(Signal::SIGTERM)?;
        for motor in [&LEFT, &RIGHT, &ARM] {
            let stop = robot.listener.wait_for_stop(motor, told, START)?;
            robot.is_prompt(told, PROMPT, &stop)?;
        }
        let ended = robot.supervisor()?.wait(START)?;
        for motor in [&LEFT, &RIGHT, &ARM] {
            let speed = robot.sim.report(motor.node)?.velocity();
            ensure!(
                speed.abs() <= 0.05,
                "{} turns at {speed} rev/s when the supervisor has ended",
                motor.name
            );
        }
        ensure!(ended.code == Some(0), "the supervisor ended with {ended:?}");
        ensure!(ended.printed.iter().any(|line| line.contains("proven to stand still")), "{ended:?}");
        Ok(())
    })
}

/// Fails if a drive that gives no proof makes a supervisor that was told to end wait for ever, or claim
/// success.
#[test]
fn terminated_supervisor_does_not_wait_for_ever() -> Result<()> {
    play(Setup::base().supervisor_key("stage_timeout", "\"200ms\""), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        robot.sim.order("6 mute on")?;
        robot.supervisor()?.signal(Signal::SIGTERM)?;
        let ended = robot.supervisor()?.wait(START)?;
        ensure!(ended.code == Some(1), "the supervisor ended with {ended:?}");
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        robot.sim.wait_for_standstill(RIGHT.node, STILL)
    })
}

/// Fails if a panic of the supervisor takes its stops with it. Debug builds panic on SIGUSR1. The front, which
/// stops what it drives when the supervisor is gone, is kept from helping.
#[test]
fn panicking_supervisor_stops_everything_before_it_aborts() -> Result<()> {
    let setup = Setup::base().with(&ARM).supervisor_key("front_window", "\"5s\"");
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        robot.drive(&mut client, &ARM, 0.4)?;
        robot.signal_front(Signal::SIGSTOP)?;
        let told = Moment::now();
        robot.supervisor()?.signal(Signal::SIGUSR1)?;
        let ended = robot.supervisor()?.wait(START)?;
        ensure!(ended.signal == Some(Signal::SIGABRT as i32), "the supervisor ended with {ended:?}");
        ensure!(
            ended.printed.iter().any(|line| line.contains("SIGUSR1")),
            "the panic is not told: {ended:?}"
        );
        for motor in [&LEFT, &RIGHT, &ARM] {
            let set = robot.listener.wait_for_stop_set(motor, told, START)?;
            robot.is_prompt(told, PROMPT, set.first().context("no stop frame")?)?;
            robot.sim.wait_for_standstill(motor.node, STILL)?;
        }
        Ok(())
    })
}

/// Fails if the front goes on driving for a supervisor that hangs, tells clients that all is well, or
/// cannot go on when it wakes.
#[test]
fn hanging_supervisor_is_noticed_by_the_front() -> Result<()> {
    play(Setup::base().as_installed(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let hangs = Moment::now();
        robot.supervisor()?.signal(Signal::SIGSTOP)?;
        std::thread::sleep(Duration::from_secs(1));
        if let Some(frame) = robot.listener.last_drive(&LEFT, hangs)? {
            // `front_window` (250 ms) is the front's own patience, too; a refresh is 20 ms.
            let after = robot.is_prompt(hangs, Duration::from_millis(300), &frame)?;
            println!("supervisor hangs: last motion frame after {after:.1} ms");
        }
        let refusal = client.call("set_power", json!({ "name": "right", "power": 0.4 }))?.refusal()?;
        ensure!(refusal.status.as_deref() == Some("UNAVAILABLE"), "a command got {refusal:?}");
        robot.supervisor()?.signal(Signal::SIGCONT)?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        let mut fresh = robot.client(clients)?;
        robot.drive(&mut fresh, &LEFT, 0.4)
    })
}
