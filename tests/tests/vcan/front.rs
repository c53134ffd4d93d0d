//! The front dies, hangs, comes back, or is not alone: motors stop, and nothing moves without a new session.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::clock::Moment;
use tests::expect;
use tests::robot::{ARM, LATE, LEFT, RIGHT, START, Setup};

use crate::scene::{is_session_expired, no_stop_for, play, sessionless, start_session};

/// `front_window`, at its default.
const FRONT_WINDOW: Duration = Duration::from_millis(250);

/// Fails if a motor runs on after the death of the front for longer than the front window, or another
/// front then honours sessions of the dead one, or cannot drive.
#[test]
fn killed_front_stops_everything_and_a_new_one_forgets_old_sessions() -> Result<()> {
    play(Setup::base().with(&ARM).as_installed(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let mut other = sessionless(robot, clients)?;
        let id = start_session(&mut other, "")?;
        let from = Moment::now();
        other.ask("set_power_as", json!({ "name": "arm", "power": 0.4, "session": id }))?;
        robot.moves(&ARM, from, 0.4)?;

        let death = Moment::now();
        robot.front()?.kill()?;
        for motor in [&LEFT, &RIGHT, &ARM] {
            let stop = robot.listener.wait_for_stop(motor, death, 4 * FRONT_WINDOW)?;
            let after = robot.is_prompt(death, FRONT_WINDOW, &stop)?;
            println!("front killed: {} stopped after {after:.1} ms", motor.name);
            robot.lanyard.wait_for_trip(death, "front dead", motor.name, START)?;
            robot.verified(motor)?;
            robot.no_motion_after(motor, &stop)?;
        }

        robot.start_front()?;
        let mut fresh = sessionless(robot, clients)?;
        is_session_expired(&fresh.call("heartbeat", json!({ "id": id }))?.refusal()?)?;
        let old = json!({ "name": "arm", "power": 0.4, "session": id });
        is_session_expired(&fresh.call("set_power_as", old)?.refusal()?)?;
        let mut again = robot.client(clients)?;
        robot.drive_base(&mut again)?;
        robot.drive(&mut again, &ARM, 0.4)
    })
}

/// Fails if a hanging front keeps a motor running beyond its window, is taken for dead before it, or, once
/// it runs again, moves anything for a session from before.
#[test]
fn hanging_front_stops_everything_and_revives_nothing() -> Result<()> {
    play(Setup::base().window("5s").as_installed(), |robot, clients| {
        let mut client = sessionless(robot, clients)?;
        let id = start_session(&mut client, "")?;
        let from = Moment::now();
        client.ask("set_power_as", json!({ "name": "left", "power": 0.4, "session": id }))?;
        robot.moves(&LEFT, from, 0.4)?;

        let hangs = robot.signal_front(Signal::SIGSTOP)?;
        let stop = robot.listener.wait_for_stop(&LEFT, hangs, 8 * FRONT_WINDOW)?;
        let trip = robot.lanyard.wait_for_trip(hangs, "front silent", "left", START)?;
        let deadline = trip.deadline().context("no deadline")?;
        ensure!(stop.at >= deadline, "stopped before the front's deadline");
        robot.is_prompt(deadline, LATE, &stop)?;
        let after = robot.is_prompt(hangs, FRONT_WINDOW + LATE, &stop)?;
        println!("front hangs: first stop frame after {after:.1} ms");
        robot.verified(&LEFT)?;

        robot.signal_front(Signal::SIGCONT)?;
        // Its buffers, timers and refreshes have all had their chance after a second.
        std::thread::sleep(Duration::from_secs(1));
        robot.no_motion_after(&LEFT, &stop)?;
        let old = json!({ "name": "left", "power": 0.4, "session": id });
        is_session_expired(&client.call("set_power_as", old)?.refusal()?)?;
        robot.no_motion_after(&LEFT, &stop)?;
        let mut fresh = robot.client(clients)?;
        robot.drive(&mut fresh, &LEFT, 0.4)
    })
}

/// Fails if a front that is told to end leaves motors to their windows, or does not end in good order.
#[test]
fn terminated_front_closes_its_sessions() -> Result<()> {
    play(Setup::base().window("5s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let told = robot.signal_front(Signal::SIGTERM)?;
        let stop = robot.listener.wait_for_stop(&LEFT, told, START)?;
        robot.is_prompt(told, Duration::from_millis(500), &stop)?;
        let ended = robot.front()?.wait(START)?;
        ensure!(ended.code == Some(0), "the front ended with {ended:?}");
        robot.lanyard.wait_for_trip(told, "front ended", "left", START)?;
        robot.verified(&LEFT)?;
        robot.verified(&RIGHT)?;
        robot.no_motion_after(&LEFT, &stop)
    })
}

/// Fails if a second front gets hold of the motors, or disturbs the first.
#[test]
fn second_front_is_refused() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let mut same = robot.spawn("lanyard-front")?;
        let ended = same.wait(START)?;
        ensure!(ended.code == Some(1), "a second front on the same port ended with {ended:?}");

        // On a port of its own it gets as far as the supervisor.
        let text = std::fs::read_to_string(&robot.config)?.replace(&robot.address, "127.0.0.1:0");
        let config = robot.file("second.toml");
        std::fs::write(&config, text)?;
        let arguments = ["--config".as_ref(), config.as_os_str()];
        let mut second = tests::process::Process::start(&robot.programs, "lanyard-front", arguments)?;
        let ended = second.wait(START)?;
        ensure!(ended.code == Some(1), "a second front ended with {ended:?}");
        ensure!(!ended.printed.iter().any(|line| line.contains("listening on")), "it served: {ended:?}");
        ensure!(ended.printed.iter().any(|line| line.contains("error")), "it says nothing: {ended:?}");
        no_stop_for(&robot.listener, &LEFT, Duration::from_secs(1))?;
        robot.sim.wait_for_speed(LEFT.node, 1.9, START)
    })
}

/// Fails if clients of a front without supervisor are let move anything, or wait instead of being told.
#[test]
fn nothing_moves_without_a_supervisor() -> Result<()> {
    play(Setup::base().as_installed(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let death = Moment::now();
        robot.supervisor()?.kill()?;
        // The front notices that nobody watches, by the end of the connection or by the silence.
        let last = expect::within(START, "the front falls silent", || {
            let last = robot.listener.last_drive(&LEFT, death).map_err(|error| error.to_string())?;
            let quiet_since = last.as_ref().map_or(death, |frame| frame.at);
            if Moment::now() > quiet_since + Duration::from_secs(1) {
                Ok(last)
            } else {
                Err(format!("{last:?}"))
            }
        })?;
        if let Some(frame) = last {
            let after = robot.is_prompt(death, FRONT_WINDOW + LATE, &frame)?;
            println!("supervisor killed: last motion frame after {after:.1} ms");
        }
        let refusal = client.call("set_power", json!({ "name": "left", "power": 0.4 }))?.refusal()?;
        ensure!(
            matches!(refusal.status.as_deref(), Some("UNAVAILABLE" | "INVALID_ARGUMENT")),
            "a command without a supervisor got {refusal:?}"
        );
        Ok(())
    })
}
