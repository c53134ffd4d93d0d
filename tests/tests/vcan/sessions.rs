//! Sessions: who falls silent is stopped, and nobody else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::clock::Moment;
use tests::expect;
use tests::robot::{ARM, LATE, LEFT, RIGHT, STILL, Setup};

use crate::scene::{is_session_expired, no_stop_for, play, sessionless, start_session};

/// The window where a test does not need the default of 2 s.
const WINDOW: Duration = Duration::from_secs(1);

/// Fails if any motor of the dead client gets its stop frame before the deadline, more than 15 ms after it,
/// or not at all; if anything moves a motor afterwards; if standstill is not proven, or is not true.
#[test]
fn killed_client_stops_after_its_window_and_not_before() -> Result<()> {
    play(Setup::base().with(&ARM), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        robot.drive(&mut client, &ARM, 0.4)?;
        let death = client.kill()?;
        for motor in [&LEFT, &RIGHT, &ARM] {
            let (_, stop) = robot.stopped_at_deadline(motor, death, Duration::from_secs(2))?;
            robot.verified(motor)?;
            robot.no_motion_after(motor, &stop)?;
        }
        Ok(())
    })
}

/// Fails if a live client is stopped although it beats: the window would be counted from the command.
#[test]
fn living_client_is_left_alone() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        no_stop_for(&robot.listener, &LEFT, 3 * WINDOW)?;
        robot.sim.wait_for_speed(LEFT.node, 1.9, STILL)?;
        client.ask("base_stop", json!({ "name": "base1" }))?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        robot.sim.wait_for_standstill(RIGHT.node, STILL)?;
        // The drives report every 10 ms: what the front knows is as old as that.
        expect::within(STILL, "the base says that it stands", || {
            match client.ask("base_is_moving", json!({ "name": "base1" })) {
                Ok(moving) if moving == false => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    })
}

/// Fails if the stop of one session touches the motor of another, or if the dead one is not stopped.
#[test]
fn a_trip_touches_its_own_motors_only() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let mut first = robot.client(clients)?;
        let mut second = robot.client(clients)?;
        robot.drive(&mut first, &LEFT, 0.4)?;
        robot.drive(&mut second, &RIGHT, -0.4)?;
        let death = first.kill()?;
        robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
        robot.verified(&LEFT)?;
        let touched = robot.listener.first(death, |frame| RIGHT.is_stop(frame))?;
        ensure!(touched.is_none(), "the other session's motor was stopped by {touched:?}");
        robot.sim.wait_for_speed(RIGHT.node, -1.9, STILL)
    })
}

/// Fails if the status or the message differs by a letter from what clients compare with, if an expired
/// session moves anything, or if a new one cannot drive.
#[test]
fn expired_session_is_told_so_and_a_new_one_drives() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let mut client = sessionless(robot, clients)?;
        let id = start_session(&mut client, "")?;
        let from = Moment::now();
        client.ask("set_power_as", json!({ "name": "left", "power": 0.4, "session": id }))?;
        robot.moves(&LEFT, from, 0.4)?;
        let stop = robot.listener.wait_for_stop(&LEFT, from + Duration::from_millis(500), 3 * WINDOW)?;
        robot.verified(&LEFT)?;
        let again = json!({ "name": "left", "power": 0.4, "session": id });
        is_session_expired(&client.call("set_power_as", again)?.refusal()?)?;
        is_session_expired(&client.call("heartbeat", json!({ "id": id }))?.refusal()?)?;
        robot.no_motion_after(&LEFT, &stop)?;
        let mut fresh = robot.client(clients)?;
        robot.drive(&mut fresh, &LEFT, 0.4)
    })
}

/// Fails if a client that was suspended (a laptop closed, a process swapped out) keeps its motor running,
/// or cannot go on with a new session when it wakes.
#[test]
fn suspended_client_is_stopped_and_may_come_back() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let asleep = Moment::now();
        client.signal(Signal::SIGSTOP)?;
        let (_, stop) = robot.stopped_at_deadline(&LEFT, asleep, WINDOW)?;
        robot.verified(&LEFT)?;
        client.signal(Signal::SIGCONT)?;
        std::thread::sleep(Duration::from_millis(500));
        robot.no_motion_after(&LEFT, &stop)?;
        // Its first command may meet SESSION_EXPIRED, unless a heartbeat has met it before.
        let back = client.call("set_power", json!({ "name": "left", "power": 0.4 }))?;
        if let Err(refusal) = &back.result {
            is_session_expired(refusal)?;
        }
        robot.drive(&mut client, &LEFT, 0.4)
    })
}

/// Fails if heartbeats queue behind a command that takes long, or if that command keeps its own session
/// alive without them.
#[test]
fn heartbeats_do_not_wait_for_a_motion() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        let from = Moment::now();
        let call = client.begin("go_for", json!({ "name": "left", "rpm": 60.0, "revolutions": 500.0 }))?;
        robot.moves(&LEFT, from, 1.0)?;
        let id = client.ask("session", json!({}))?;
        let worst = client.ask("slowest_heartbeat", json!({ "id": id, "count": 50 }))?;
        // Behind the motion it would be minutes. A round trip takes 5 to 30 ms on the slowest rig.
        ensure!(worst.as_f64().is_some_and(|worst| worst < 0.3), "a heartbeat took {worst} s");
        no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
        client.ask("stop", json!({ "name": "left" }))?;
        client.finish(call, STILL)?.refusal().context("the motion that was stopped")?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;

        // A motion under way is no sign of life.
        let mut silent = sessionless(robot, clients)?;
        let id = start_session(&mut silent, "")?;
        let from = Moment::now();
        silent.begin("set_power_as", json!({ "name": "right", "power": 0.4, "session": id }))?;
        robot.moves(&RIGHT, from, 1.0)?;
        robot.lanyard.wait_for_trip(from, "session expired", "right", 3 * WINDOW)?;
        Ok(())
    })
}

/// Fails if many open sessions delay the stop of one: looking at all of them must not take milliseconds.
#[test]
fn expiry_is_punctual_with_sixty_sessions_open() -> Result<()> {
    let window = Duration::from_secs(5);
    play(Setup::base().window("5s"), |robot, clients| {
        let mut many = sessionless(robot, clients)?;
        let started =
            many.call_within(STILL, "start_many", json!({ "count": 60, "together": 5 }))?.value()?;
        let ids = started["ids"].as_array().context("no ids")?.clone();
        ensure!(ids.len() == 60, "only {} sessions: {}", ids.len(), started["errors"]);
        many.ask("beat_for_ever", json!({ "sessions": ids, "every": 1.0 }))?;
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let death = client.kill()?;
        let (trip, left) = robot.stopped_at_deadline(&LEFT, death, window)?;
        let (_, right) = robot.stopped_at_deadline(&RIGHT, death, window)?;
        let deadline = trip.deadline().context("no deadline")?;
        println!(
            "61 sessions: stop frames {:.3} and {:.3} ms after the deadline (limit {LATE:?})",
            left.at.millis_since(deadline),
            right.at.millis_since(deadline)
        );
        ensure!(many.ask("beats_that_failed", json!({}))? == 0, "another session was ended");
        Ok(())
    })
}

/// Fails if a motion of known length does not end, ends elsewhere, or leaves the motor running.
#[test]
fn motion_of_known_length_ends_where_it_should() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        let at = |client: &mut tests::python::Client| -> Result<f64> {
            client.ask("get_position", json!({ "name": "left" }))?.as_f64().context("no position")
        };
        // The position is known when the drive has reported it.
        let before = at(&mut client)?;
        let start = Instant::now();
        let go = json!({ "name": "left", "rpm": 120.0, "revolutions": 3.0 });
        client.call_within(STILL, "go_for", go)?.value()?;
        let took = start.elapsed();
        let way = at(&mut client)? - before;
        ensure!((2.9..=3.3).contains(&way), "went {way} revolutions instead of 3");
        ensure!(took >= Duration::from_millis(1400), "3 revolutions at 2 a second took only {took:?}");
        robot.sim.wait_for_standstill(LEFT.node, STILL)
    })
}
