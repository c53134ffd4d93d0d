//! What is sent last holds at a server behind Lanyard, too, in whatever order that server runs its calls; and a server
//! with gRPC's own rules for connections is not lost.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::expect;
use tests::python::{Client, Clients};
use tests::robot::{LEFT, RIGHT, Robot, START, STILL, Setup};

use crate::scene::{play, sessionless, start_session};
use crate::upstream::{Upstream, play_behind_within};

const SET_POWER: &str = "/viam.component.motor.v1.MotorService/SetPower";
const GO_FOR: &str = "/viam.component.motor.v1.MotorService/GoFor";
const STOP: &str = "/viam.component.motor.v1.MotorService/Stop";
const STOP_ALL: &str = "/viam.robot.v1.RobotService/StopAll";
/// "motor1" as field 1.
const NAME: &str = "0a066d6f746f7231";

/// How long anybody may be silent here: what is tested is the order, and nobody falls silent on the slowest rig.
const WINDOW: Duration = Duration::from_secs(10);

/// After a Stop its sender moves nothing over another connection for 250 ms.
const HELD: Duration = Duration::from_millis(300);

/// What a program may send for the left wheel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Send {
    Forward,
    Backward,
    Zero,
    Stop,
    StopAll,
}

const ALL: [Send; 5] = [Send::Forward, Send::Backward, Send::Zero, Send::Stop, Send::StopAll];

impl Send {
    /// Path, message in hex, and metadata.
    fn call(self, session: &str) -> Value {
        let (path, message) = match self {
            Self::Forward => (SET_POWER, format!("{NAME}11000000000000e03f")),
            Self::Backward => (SET_POWER, format!("{NAME}11000000000000e0bf")),
            Self::Zero => (SET_POWER, format!("{NAME}110000000000000000")),
            Self::Stop => (STOP, NAME.to_owned()),
            Self::StopAll => (STOP_ALL, String::new()),
        };
        json!([path, message, [["viam-sid", session]]])
    }

    /// Whether the wheel turns as it was told.
    fn is_done(self, speed: f64) -> bool {
        match self {
            Self::Forward => speed > 1.0,
            Self::Backward => speed < -1.0,
            Self::Zero | Self::Stop | Self::StopAll => speed.abs() < 0.1,
        }
    }
}

/// A client whose session is kept alive beside whatever it sends by hand.
fn living(robot: &Robot, clients: &mut Clients) -> Result<(Client, String)> {
    let mut client = sessionless(robot, clients)?;
    let id = start_session(&mut client, "")?;
    client.ask("beat_for_ever", json!({ "sessions": [id], "every": 0.2 }))?;
    Ok((client, id))
}

/// Sends these and waits until the wheel does what the last one says, and goes on doing it.
fn last_holds(robot: &Robot, client: &mut Client, session: &str, sent: &[Send], gap: f64) -> Result<()> {
    // The connection of the round before may have ended with a Stop.
    std::thread::sleep(HELD);
    let calls: Vec<Value> = sent.iter().map(|send| send.call(session)).collect();
    let burst = json!({ "address": robot.address, "calls": calls, "gap": gap });
    let statuses = client.ask("burst", burst)?;
    let last = sent.last().context("nothing to send")?;
    let told = format!("after {sent:?}, {gap} s apart, answered {statuses}");
    ensure!(statuses.as_array().and_then(|all| all.last()) == Some(&json!(0)), "{told}");
    let speed = || Ok::<_, anyhow::Error>(robot.sim.report(LEFT.node)?.velocity());
    expect::within(STILL, &told, || {
        let speed = speed().map_err(|error| format!("{error:#}"))?;
        if last.is_done(speed) { Ok(()) } else { Err(format!("the wheel turns at {speed} rev/s")) }
    })?;
    // Longer than any call lies about at the server.
    let until = Instant::now() + Duration::from_millis(150);
    while Instant::now() < until {
        let speed = speed()?;
        ensure!(last.is_done(speed), "{told}: then the wheel turned at {speed} rev/s");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn every_pair(prepare: impl FnOnce(&mut Upstream) -> Result<()>) -> Result<()> {
    play_behind_within(WINDOW, WINDOW, "", |robot, clients, upstream| {
        upstream.wait_for_names(robot, clients)?;
        prepare(upstream)?;
        let (mut client, id) = living(robot, clients)?;
        // The first pairs of a session that has moved nothing yet, and of one that has.
        for (first, second) in ALL.iter().flat_map(|first| ALL.iter().map(move |second| (*first, *second))) {
            last_holds(robot, &mut client, &id, &[first, second], 0.0)?;
        }
        for second in ALL {
            last_holds(robot, &mut client, &id, &[Send::Forward, second], 0.002)?;
        }
        for last in [Send::Stop, Send::StopAll, Send::Zero] {
            let many = [Send::Forward, Send::Backward, Send::Forward, Send::Backward, last];
            last_holds(robot, &mut client, &id, &many, 0.0)?;
        }
        for second in [Send::Stop, Send::StopAll, Send::Zero, Send::Backward] {
            let (mut new, id) = living(robot, clients)?;
            last_holds(robot, &mut new, &id, &[Send::Forward, second], 0.0)?;
        }
        Ok(())
    })
}

/// Fails if of two calls in one segment, or 2 ms apart, the server behind does the first one last.
#[test]
fn the_last_of_two_holds_behind_viams_component_server() -> Result<()> {
    every_pair(|_| Ok(()))
}

/// Fails if what a server behind does last is not what was sent last, although it runs its calls in any order.
#[test]
fn the_last_of_two_holds_behind_a_server_that_runs_calls_in_any_order() -> Result<()> {
    every_pair(|upstream| upstream.process.ask("disorder", json!({ "seed": 17 })).map(drop))
}

/// Fails if a server that counts PINGs, as gRPC's own do, is lost once within a minute, or a call through to it is.
#[test]
fn a_server_of_grpcs_own_library_is_not_lost() -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    // As short as the rig allows: so often would it be asked whether it lives.
    let section = format!("[upstream]\naddress = \"http://127.0.0.1:{port}\"\nwindow = \"3s\"\n");
    let setup = Setup::new().with(&LEFT).with(&RIGHT).window("10s").section(&section);
    play(setup, |robot, clients| {
        let mut server = clients.fork_grpcio()?;
        server.ask("serve", json!({ "port": port }))?;
        let (mut client, id) = living(robot, clients)?;
        let stop = json!({ "address": robot.address, "path": STOP, "messages": [NAME] });
        expect::within(START, "the server is reached", || match client.ask("raw", stop.clone()) {
            Ok(stopped) if stopped["status"] == 0 => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        std::thread::sleep(HELD);
        let power = json!({ "name": "motor1", "power": 0.4, "session": id });
        let began = Instant::now();
        let mut rounds = 0;
        while began.elapsed() < Duration::from_secs(60) {
            // A move that blocks for 4 s, a set-point that is held for 4 s, and 2 s at rest.
            let revolutions = format!("{NAME}11000000000000f03f190000000000001040");
            let call = json!({
                "address": robot.address, "path": GO_FOR, "messages": [revolutions], "metadata": [["viam-sid", id]],
            });
            let moved = client.ask("raw", call)?;
            ensure!(moved["status"] == 0, "round {rounds}: GoFor: {moved}");
            client.ask("set_power_as", power.clone()).with_context(|| format!("round {rounds}: SetPower"))?;
            std::thread::sleep(Duration::from_secs(4));
            let stopped = client.ask("raw", stop.clone())?;
            ensure!(stopped["status"] == 0, "round {rounds}: Stop: {stopped}");
            std::thread::sleep(Duration::from_secs(2));
            rounds += 1;
        }
        ensure!(client.ask("beats_that_failed", json!({}))? == 0, "the session was closed");
        let said = robot.printed();
        ensure!(!said.contains("is lost") && !said.contains("too_many_pings"), "the server was lost");
        Ok(())
    })
}
