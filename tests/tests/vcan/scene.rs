//! What every test begins with: a robot, the clients, and a report when it fails.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::clock::Moment;
use tests::listener::Listener;
use tests::python::{Client, Clients, Refusal};
use tests::robot::{RIGHT, Robot, Setup};
use tests::wire::Motor;

/// One interpreter for all tests: importing the SDK takes seconds.
static CLIENTS: Mutex<Option<Clients>> = Mutex::new(None);

/// Runs `act` with the clients.
pub fn with_clients(act: impl FnOnce(&mut Clients) -> Result<()>) -> Result<()> {
    let mut place = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    let clients = match &mut *place {
        Some(clients) => clients,
        empty => empty.insert(Clients::start()?),
    };
    act(clients)
}

/// Starts the robot and runs `act`; shows what the programs said if it fails.
pub fn play(setup: Setup, act: impl FnOnce(&mut Robot, &mut Clients) -> Result<()>) -> Result<()> {
    with_clients(|clients| {
        let mut robot = setup.start()?;
        let outcome = act(&mut robot, clients);
        if let Err(error) = &outcome {
            robot.report_failure(error);
        }
        outcome
    })
}

/// The status and message by which a client learns that its session is over: it compares both.
pub fn is_session_expired(refusal: &Refusal) -> Result<()> {
    ensure!(
        refusal.status.as_deref() == Some("INVALID_ARGUMENT") && refusal.message == "SESSION_EXPIRED",
        "expected INVALID_ARGUMENT \"SESSION_EXPIRED\", not {refusal:?}"
    );
    Ok(())
}

/// A client that opens no session of its own, so that a test can choose the session of every command.
pub fn sessionless(robot: &Robot, clients: &mut Clients) -> Result<Client> {
    robot.client_with(clients, json!({ "sessions": false }))
}

/// Starts a session by hand; returns its id.
pub fn start_session(client: &mut Client, resume: &str) -> Result<String> {
    let started = client.ask("start_session", json!({ "resume": resume }))?;
    Ok(started["id"].as_str().context("a session without id")?.to_owned())
}

/// Lets another client drive the right motor while `act` goes on, and fails if it is stopped meanwhile. Returns that
/// client, which has still to show that it can go on.
pub fn undisturbed(
    robot: &mut Robot,
    clients: &mut Clients,
    act: impl FnOnce(&mut Robot, &mut Clients) -> Result<()>,
) -> Result<Client> {
    let mut other = robot.client(clients)?;
    robot.drive(&mut other, &RIGHT, 0.4)?;
    let from = Moment::now();
    act(robot, clients)?;
    let stop = robot.listener.first(from, |frame| RIGHT.is_stop(frame) || RIGHT.is_torque_off(frame))?;
    ensure!(stop.is_none(), "the motor of another session was stopped by {stop:?}");
    Ok(other)
}

/// Fails if a motor gets a stop frame within `span` from now.
pub fn no_stop_for(listener: &Listener, motor: &Motor, span: Duration) -> Result<()> {
    let from = Moment::now();
    std::thread::sleep(span);
    let stop = listener.first(from, |frame| motor.is_stop(frame) || motor.is_torque_off(frame))?;
    match stop {
        None => Ok(()),
        Some(frame) => anyhow::bail!(
            "{} was stopped by {frame} {} ms after it was to run on",
            motor.name,
            frame.at.millis_since(from)
        ),
    }
}
