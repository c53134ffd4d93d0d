//! Clients that open no session, and the rules that go beyond Viam's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::clock::Moment;
use tests::robot::{AFTER_STOP, LATE, LEFT, RIGHT, START, STILL, Setup};

use crate::scene::{is_session_expired, no_stop_for, play, sessionless};

/// Long enough for pings to and fro on a rig that stands still now and then.
const WINDOW: Duration = Duration::from_secs(2);

fn setup() -> Setup {
    Setup::base().front_key("lease_window", "\"2s\"")
}

/// Where answers to pings keep a lease alive.
fn pinged() -> Setup {
    setup().front_key("lease", "\"pings\"")
}

/// Fails if a client without session that commands nothing more is let drive on because its library, or whatever stands
/// before it, answers pings; or if it is not said why it was stopped, and which key lets pings count.
#[test]
fn a_client_without_session_that_only_answers_pings_is_stopped() -> Result<()> {
    play(setup(), |robot, clients| {
        let mut client = sessionless(robot, clients)?;
        let commanded = Moment::now();
        client.ask("set_power", json!({ "name": "left", "power": 0.4 }))?;
        let driven = Moment::now();
        let stop = robot.listener.wait_for_stop(&LEFT, driven, 3 * WINDOW)?;
        robot.is_prompt(driven, WINDOW + LATE, &stop)?;
        ensure!(stop.at >= commanded + WINDOW, "stopped before a window had passed since its command");
        robot.lanyard.wait_for_trip(commanded, "session expired", "left", START)?;
        robot.verified(&LEFT)?;
        let told = robot.front()?.wait_for_line("pings", START)?;
        ensure!(told.contains("lease") && told.contains("no command"), "the front says only {told:?}");
        Ok(())
    })
}

/// Fails if a client without session is stopped while it goes on commanding.
#[test]
fn a_client_without_session_that_goes_on_commanding_drives_on() -> Result<()> {
    play(setup(), |robot, clients| {
        let mut client = sessionless(robot, clients)?;
        client.ask("set_power", json!({ "name": "left", "power": 0.4 }))?;
        // To switch the drive on takes a frame that a stop has, too.
        let from = Moment::now();
        while Moment::now() < from + 3 * WINDOW {
            client.ask("set_power", json!({ "name": "left", "power": 0.4 }))?;
            std::thread::sleep(WINDOW / 4);
        }
        let stop = robot.listener.first(from, |frame| LEFT.is_stop(frame) || LEFT.is_torque_off(frame))?;
        ensure!(stop.is_none(), "it was stopped by {stop:?}");
        robot.sim.wait_for_speed(LEFT.node, 1.9, STILL)
    })
}

/// Fails if a client without session is let drive unprotected, is stopped although it answers pings where these count, or
/// may go on with what it had sent before it fell silent, without a Stop.
#[test]
fn a_silent_client_without_session_is_stopped() -> Result<()> {
    play(pinged(), |robot, clients| {
        let mut client = sessionless(robot, clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        // It says nothing more by itself; only its library answers.
        no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;

        let silent = Moment::now();
        client.signal(Signal::SIGSTOP)?;
        let stop = robot.listener.wait_for_stop(&LEFT, silent, 3 * WINDOW)?;
        let after = robot.is_prompt(silent, WINDOW + LATE, &stop)?;
        let trip = robot.lanyard.wait_for_trip(silent, "session expired", "left", START)?;
        let deadline = trip.deadline().context("no deadline")?;
        ensure!(stop.at >= deadline, "stopped before its deadline");
        robot.is_prompt(deadline, LATE, &stop)?;
        // It was pinged four times a window; more than two of these lost is no lease.
        ensure!(after > 1e3, "stopped {after} ms after it fell silent");
        robot.verified(&LEFT)?;

        client.signal(Signal::SIGCONT)?;
        let refusal = client.call("set_power", json!({ "name": "left", "power": 0.4 }))?.refusal()?;
        ensure!(
            refusal.status.as_deref() == Some("FAILED_PRECONDITION") && refusal.message.contains("lease"),
            "got {refusal:?}"
        );
        let again = client.call("set_power", json!({ "name": "left", "power": 0.4 }))?.refusal()?;
        ensure!(again.message.contains("send Stop first"), "got {again:?}");
        robot.no_motion_after(&LEFT, &stop)?;
        client.ask("stop", json!({ "name": "left" }))?;
        std::thread::sleep(AFTER_STOP);
        robot.drive(&mut client, &LEFT, 0.4)
    })
}

/// Fails if the death of a client without session leaves its motor running, or stops another's.
#[test]
fn a_killed_client_without_session_is_stopped() -> Result<()> {
    play(pinged(), |robot, clients| {
        let mut client = sessionless(robot, clients)?;
        let mut other = sessionless(robot, clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        robot.drive(&mut other, &RIGHT, 0.4)?;
        let death = client.kill()?;
        let stop = robot.listener.wait_for_stop(&LEFT, death, 3 * WINDOW)?;
        robot.is_prompt(death, WINDOW + LATE, &stop)?;
        robot.lanyard.wait_for_trip(death, "session expired", "left", START)?;
        robot.verified(&LEFT)?;
        no_stop_for(&robot.listener, &RIGHT, WINDOW)?;
        robot.sim.wait_for_speed(RIGHT.node, 1.9, STILL)
    })
}

/// Viam's own behaviour, where it is asked for. Fails if it differs: the motor runs on without its client.
#[test]
fn unprotected_motion_is_what_viam_has() -> Result<()> {
    play(setup().front_key("sessionless", "\"viam\""), |robot, clients| {
        let mut client = sessionless(robot, clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        client.kill()?;
        no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
        let mut other = sessionless(robot, clients)?;
        let told = Moment::now();
        other.ask("stop", json!({ "name": "left" }))?;
        robot.listener.wait_for_stop(&LEFT, told, START)?;
        Ok(())
    })
}

/// Fails if a session takes what another one keeps, or cannot have it when that one has ended.
#[test]
fn what_is_held_exclusively_is_kept() -> Result<()> {
    play(setup().front_key("takeover", "\"exclusive\""), |robot, clients| {
        let mut first = robot.client(clients)?;
        let mut second = robot.client(clients)?;
        robot.drive(&mut first, &LEFT, 0.4)?;
        let refusal = second.call("base_set_power", json!({ "name": "base1", "forward": 0.3 }))?.refusal()?;
        ensure!(
            refusal.status.as_deref() == Some("FAILED_PRECONDITION") && refusal.message.contains("held by"),
            "got {refusal:?}"
        );
        robot.sim.wait_for_speed(LEFT.node, 1.9, STILL)?;
        let death = first.kill()?;
        robot.lanyard.wait_for_trip(death, "session expired", "left", START)?;
        robot.verified(&LEFT)?;
        robot.drive_base(&mut second)
    })
}

/// Fails if heartbeats from a thread keep a motor running whose program has hung, or if standing still counts as
/// having hung.
#[test]
fn progress_is_required_of_what_moves() -> Result<()> {
    let setup = Setup::new().with_keys(&LEFT, "require_progress = \"1s\"\n", "").with(&RIGHT);
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        client.ask("stop", json!({ "name": "left" }))?;
        robot.drive(&mut client, &RIGHT, 0.4)?;
        no_stop_for(&robot.listener, &RIGHT, 2 * WINDOW)?;

        let id = client.ask("session", json!({}))?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let commanded = Moment::now();
        let stop = robot.listener.wait_for_stop(&LEFT, commanded, 3 * WINDOW)?;
        robot.is_prompt(commanded, Duration::from_secs(1) + 10 * LATE, &stop)?;
        robot.lanyard.wait_for_trip(commanded, "no progress", "left", START)?;
        let mut other = sessionless(robot, clients)?;
        let refusal = other.call("heartbeat", json!({ "id": id }))?.refusal()?;
        is_session_expired(&refusal)
    })
}

/// Fails if a motor with a window of its own runs as long as its session's window allows.
#[test]
fn a_motor_may_have_a_shorter_window_than_its_session() -> Result<()> {
    let setup = Setup::new().with_keys(&LEFT, "window = \"1s\"\n", "").window("10s");
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
        let death = client.kill()?;
        let stop = robot.listener.wait_for_stop(&LEFT, death, 3 * WINDOW)?;
        robot.is_prompt(death, Duration::from_secs(1) + 10 * LATE, &stop)?;
        robot.lanyard.wait_for_trip(death, "window of a part expired", "left", START)?;
        robot.verified(&LEFT)?;
        Ok(())
    })
}
