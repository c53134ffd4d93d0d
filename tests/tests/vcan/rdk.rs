//! The session tests of Viam's own server and client libraries, under their own names, in our form: with real
//! processes, and with a motor on a bus in the place of a counter.
//!
//! What has no motor in it is beside the code it is about: `front/src/sessions/rdk.rs`, `config/tests/mistakes.rs`.
#![expect(non_snake_case, reason = "the names are theirs")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::clock::Moment;
use tests::python::Client;
use tests::robot::{LATE, LEFT, RIGHT, STILL, Setup};

use crate::scene::{no_stop_for, play, sessionless, start_session};

/// The window where a test does not need the default of 2 s.
const WINDOW: Duration = Duration::from_secs(1);

/// How many sessions the robot has.
fn sessions(client: &mut Client) -> Result<usize> {
    let listed = client.ask("sessions", json!({}))?;
    Ok(listed.as_array().context("no list")?.len())
}

/// Fails if the death of the client that no longer drives the motor stops
/// it, or the death of the one that does, does not.
#[test]
fn TestSessionsMixedClients() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let mut first = robot.client(clients)?;
        let mut second = robot.client(clients)?;
        robot.drive(&mut first, &LEFT, 0.2)?;
        let from = Moment::now();
        second.begin("go_for", json!({ "name": "left", "rpm": 90.0, "revolutions": 500.0 }))?;
        robot.moves(&LEFT, from, 1.0)?;
        robot.sim.wait_for_speed(LEFT.node, 1.4, STILL)?;
        first.kill()?;
        no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
        // Nobody waits for the motion any more, so the front stops it at once; the session runs out later.
        let death = second.kill()?;
        let stop = robot.listener.wait_for_stop(&LEFT, death, 2 * WINDOW)?;
        let ended = robot.lanyard.wait_for_end_at_rest(death, "session expired", "left", 3 * WINDOW)?;
        let deadline = ended.deadline().context("no deadline")?;
        robot.is_prompt(deadline, LATE, &stop)?;
        robot.verified(&LEFT)?;
        robot.no_motion_after(&LEFT, &stop)
    })
}

/// Fails if without authentication a second client cannot use or
/// resume the session of the first, or if the motor goes on when nobody keeps that session alive.
#[test]
fn TestSessionsMixedOwnersNoAuth() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let mut first = robot.client(clients)?;
        let mut second = sessionless(robot, clients)?;
        robot.drive(&mut first, &LEFT, 0.2)?;
        let id = first.ask("session", json!({}))?;
        second.ask("set_power_as", json!({ "name": "left", "power": 0.4, "session": id }))?;
        robot.sim.wait_for_speed(LEFT.node, 1.9, STILL)?;
        ensure!(start_session(&mut second, id.as_str().context("no id")?)? == id, "resumed another session");
        let death = first.kill()?;
        robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
        robot.verified(&LEFT)?;
        Ok(())
    })
}

/// Fails if a session does not outlive its connection, if its resumption does not keep the motor running,
/// or if an expired one can be taken up again.
#[test]
fn TestClientSessionResume() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut first = sessionless(robot, clients)?;
        let id = start_session(&mut first, "")?;
        let from = Moment::now();
        first.ask("set_power_as", json!({ "name": "left", "power": 0.4, "session": id }))?;
        robot.moves(&LEFT, from, 0.4)?;
        first.ask("beat_for_ever", json!({ "sessions": [id], "every": 0.4 }))?;
        let mut second = sessionless(robot, clients)?;
        first.kill()?;
        ensure!(start_session(&mut second, &id)? == id, "resumption gave another id");
        second.ask("beat_for_ever", json!({ "sessions": [id], "every": 0.4 }))?;
        no_stop_for(&robot.listener, &LEFT, Duration::from_secs(4))?;
        let death = second.kill()?;
        robot.stopped_at_deadline(&LEFT, death, Duration::from_secs(2))?;
        let mut third = sessionless(robot, clients)?;
        ensure!(start_session(&mut third, &id)? != id, "an expired session was resumed");
        Ok(())
    })
}

/// rdk/robot/client. Fails if an unchanged client does not beat about five times in its window, or if one whose sessions are
/// disabled gets a session although the configuration refuses that.
#[test]
fn TestClientSessionOptions() -> Result<()> {
    play(Setup::base().window("5s").front_key("sessionless", "\"refuse\""), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let beats = || -> Result<u64> {
            let status = robot.lanyard.status()?;
            status["sessions"][0]["beats"].as_u64().context("no session in the status")
        };
        let before = beats()?;
        std::thread::sleep(Duration::from_secs(5));
        let beaten = beats()? - before;
        // Five and the time a beat takes to and fro; a rig that stands still for a while loses one or two.
        ensure!((3..=6).contains(&beaten), "{beaten} heartbeats in a window of 5 s");

        let mut other = sessionless(robot, clients)?;
        other.call("set_power", json!({ "name": "right", "power": 0.4 }))?.refusal()?;
        ensure!(sessions(&mut other)? == 1, "a client without sessions has got one");
        Ok(())
    })
}

/// rdk/robot/client. Fails if the next command after an expiry does not open another session, or if that has the id of
/// the first.
#[test]
fn TestClientSessionExpiration() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        let mut ids: Vec<Value> = Vec::new();
        for _ in 0..3 {
            robot.drive(&mut client, &LEFT, 0.4)?;
            ids.push(client.ask("session", json!({}))?);
            let asleep = Moment::now();
            client.signal(nix::sys::signal::Signal::SIGSTOP)?;
            robot.stopped_at_deadline(&LEFT, asleep, WINDOW)?;
            robot.verified(&LEFT)?;
            client.signal(nix::sys::signal::Signal::SIGCONT)?;
            // The library finds out by a heartbeat or by this command; either way the one after it is let through.
            drop(client.call("set_power", json!({ "name": "left", "power": 0.0 }))?);
        }
        ids.dedup();
        ensure!(ids.len() == 3 && ids[0] != ids[2], "not three sessions: {ids:?}");
        Ok(())
    })
}

/// rdk/robot/server and rdk/operation (TestCreateWithSession). Fails if a call under way does not say to which session it
/// belongs, or if the list of sessions does not say from where they were opened.
#[test]
fn TestServerGetOperationsAndSessions() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        let mut watcher = sessionless(robot, clients)?;
        let from = Moment::now();
        client.begin("go_for", json!({ "name": "left", "rpm": 60.0, "revolutions": 500.0 }))?;
        robot.moves(&LEFT, from, 1.0)?;
        let id = client.ask("session", json!({}))?;
        let operations = watcher.ask("operations", json!({}))?;
        let operation = operations.as_array().and_then(|list| list.first()).context("no operation")?;
        ensure!(operation["method"] == "/viam.component.motor.v1.MotorService/GoFor", "{operation}");
        ensure!(operation["session_id"] == id, "{operation} is not of session {id}");
        let listed = watcher.ask("sessions", json!({}))?;
        let found = listed.as_array().and_then(|list| list.iter().find(|session| session["id"] == id));
        let remote = found.and_then(|session| session["remote"].as_str()).context("not listed")?;
        ensure!(remote.starts_with("127.0.0.1:"), "opened from {remote}");
        client.ask("stop", json!({ "name": "left" }))?;
        Ok(())
    })
}

/// viam-python-sdk, `test_heartbeat_thread_blocked`. Fails if a client whose program does nothing else for six seconds,
/// asleep or at work, is taken for dead although its library beats.
#[test]
fn test_heartbeat_thread_blocked() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        for busy in [false, true] {
            let blocked = client.begin("block", json!({ "seconds": 6.0, "busy": busy }))?;
            no_stop_for(&robot.listener, &LEFT, Duration::from_secs(5))?;
            client.finish(blocked, STILL)?.value()?;
        }
        robot.sim.wait_for_speed(LEFT.node, 1.9, STILL)
    })
}

/// viam-python-sdk #1001. Fails if a client's first commands, given together, end up in two sessions, of which one is
/// then forgotten.
#[test]
fn two_first_commands_share_one_session() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        let calls = [&LEFT, &RIGHT]
            .map(|motor| client.begin("set_power", json!({ "name": motor.name, "power": 0.4 })));
        for call in calls {
            client.finish(call?, STILL)?.value()?;
        }
        ensure!(sessions(&mut client)? == 1, "not one session");
        no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
        let death = client.kill()?;
        for motor in [&LEFT, &RIGHT] {
            robot.stopped_at_deadline(motor, death, WINDOW)?;
        }
        Ok(())
    })
}

/// The Python client deadlocks for ever when its very first heartbeat is answered with SESSION_EXPIRED. Fails if any call
/// of a client hangs whose sessions often end before that.
#[test]
fn the_first_heartbeat_never_deadlocks_a_client() -> Result<()> {
    play(Setup::base().window("30ms"), |robot, clients| {
        for round in 0..12 {
            let mut client = robot.client(clients)?;
            for call in 0..3 {
                let command = json!({ "name": "left", "power": 0.1 });
                let outcome = client.call("set_power", command);
                outcome.with_context(|| format!("client {round}, call {call}: it hangs"))?;
            }
        }
        Ok(())
    })
}
