//! Calls by hand, as grpcurl makes them: what a client may ask before it knows anything, what is Lanyard's own, and
//! which pages may call. Messages are written out byte by byte: nothing here shares a schema with the front.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::clock::Moment;
use tests::expect;
use tests::python::{Client, Clients};
use tests::robot::{LATE, LEFT, RIGHT, Robot, START, STILL, Setup};

use crate::scene::{no_stop_for, play, sessionless, start_session};

const OK: i64 = 0;
const PERMISSION_DENIED: i64 = 7;
const NOT_FOUND: i64 = 5;
const FAILED_PRECONDITION: i64 = 9;
const UNIMPLEMENTED: i64 = 12;
const INVALID_ARGUMENT: i64 = 3;
const UNAVAILABLE: i64 = 14;

/// What came back.
struct Answer {
    status: i64,
    message: String,
    headers: Value,
    /// The bytes of all messages, one after the other.
    body: Vec<u8>,
}

impl Answer {
    fn of(value: &Value) -> Result<Self> {
        let messages = value["messages"].as_array().context("no messages")?;
        let mut body = Vec::new();
        for message in messages {
            let hex = message.as_str().context("no hex")?.as_bytes();
            for pair in hex.chunks(2) {
                body.push(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
            }
        }
        // A stream that goes on has no status.
        let status = value["status"].as_i64().unwrap_or(OK);
        let message = value["message"].as_str().unwrap_or_default().to_owned();
        Ok(Self { status, message, headers: value["headers"].clone(), body })
    }

    fn has(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn is(&self, status: i64, words: &str) -> Result<()> {
        ensure!(
            self.status == status && self.message.contains(words),
            "expected status {status} with {words:?}, not {} {:?}",
            self.status,
            self.message
        );
        Ok(())
    }
}

fn call(robot: &Robot, client: &mut Client, path: &str, message: &str, metadata: &Value) -> Result<Answer> {
    let arguments =
        json!({ "address": robot.address, "path": path, "messages": [message], "metadata": metadata });
    Answer::of(&client.ask("raw", arguments)?)
}

/// A text as field `field` of a message, in hex.
fn text(field: u8, text: &str) -> Result<String> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 0x80).context("a longer length")?;
    let bytes = [field << 3 | 2, length].into_iter().chain(text.bytes());
    Ok(bytes.map(|byte| format!("{byte:02x}")).collect())
}

/// A small number as field `field` of a message, in hex.
fn number(field: u8, number: u64) -> Result<String> {
    ensure!(number < 0x80, "a longer number");
    Ok(format!("{:02x}{number:02x}", field << 3))
}

/// The number in field 1 of a message that has nothing else.
fn first_number(body: &[u8]) -> Result<u64> {
    ensure!(body.first() == Some(&0x08), "no number in {body:02x?}");
    Ok(body[1..].iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f)))
}

fn with_raw(
    setup: Setup,
    act: impl FnOnce(&mut Robot, &mut Clients, &mut Client) -> Result<()>,
) -> Result<()> {
    play(setup, |robot, clients| {
        let mut client = clients.fork()?;
        act(robot, clients, &mut client)
    })
}

/// Fails if a client without schema cannot find the services, in either version, or a service cannot be described.
#[test]
fn reflection_lists_and_describes_the_services() -> Result<()> {
    with_raw(Setup::base(), |robot, _, client| {
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            let list = call(robot, client, &path, &text(7, "*")?, &json!([]))?;
            for service in [
                "viam.robot.v1.RobotService",
                "viam.component.motor.v1.MotorService",
                "viam.component.base.v1.BaseService",
                "lanyard.v1.LanyardService",
                "grpc.health.v1.Health",
            ] {
                ensure!(list.has(service), "{version} does not list {service}");
            }
            let symbol = text(4, "viam.component.motor.v1.MotorService")?;
            let file = call(robot, client, &path, &symbol, &json!([]))?;
            ensure!(file.has("viam/component/motor/v1/motor.proto") && file.has("SetPower"), "{version}");
        }
        Ok(())
    })
}

/// Fails if health is promised although nobody would stop the motors, or is not told in time.
#[test]
fn health_is_serving_while_somebody_watches() -> Result<()> {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    with_raw(Setup::base(), |robot, _, client| {
        let serving = call(robot, client, CHECK, "", &json!([]))?;
        ensure!(serving.status == OK && serving.body == [0x08, 1], "{:02x?}", serving.body);
        let motor = text(1, "viam.component.motor.v1.MotorService")?;
        ensure!(call(robot, client, CHECK, &motor, &json!([]))?.body == [0x08, 1]);
        call(robot, client, CHECK, &text(1, "no.such.Service")?, &json!([]))?.is(NOT_FOUND, "no service")?;

        let watch = json!({
            "address": robot.address, "path": "/grpc.health.v1.Health/Watch", "messages": [""], "answers": 2,
        });
        let watching = client.begin("raw", watch)?;
        std::thread::sleep(Duration::from_millis(500));
        robot.supervisor()?.kill()?;
        expect::within(STILL, "the front says that nobody watches", || {
            match call(robot, client, CHECK, "", &json!([])) {
                Ok(answer) if answer.body == [0x08, 2] => Ok(()),
                Ok(answer) => Err(format!("{:02x?}", answer.body)),
                Err(error) => Err(format!("{error:#}")),
            }
        })?;
        let told = Answer::of(&client.finish(watching, STILL)?.value()?)?;
        ensure!(told.body == [0x08, 1, 0x08, 2], "who watched was told {:02x?}", told.body);
        Ok(())
    })
}

/// Fails if what nobody knows is answered with anything but "unimplemented", if a call without session drives where only
/// sessions may, or if an operation has no id.
#[test]
fn strange_calls_are_refused_with_their_reason() -> Result<()> {
    const SET_POWER: &str = "/viam.component.motor.v1.MotorService/SetPower";
    const OPID: &str = "01234567-89ab-4def-8123-456789abcdef";
    with_raw(Setup::base().front_key("sessionless", "\"refuse\""), |robot, _, client| {
        for path in ["/viam.component.motor.v1.MotorService/Fly", "/no.such.Service/Method"] {
            ensure!(call(robot, client, path, "", &json!([]))?.status == UNIMPLEMENTED, "{path}");
        }
        // name = "left", power_pct = 1.0
        let drive = format!("{}11000000000000f03f", text(1, "left")?);
        let from = Moment::now();
        let refused = call(robot, client, SET_POWER, &drive, &json!([["opid", OPID]]))?;
        refused.is(FAILED_PRECONDITION, "under a session")?;
        ensure!(refused.headers["opid"] == OPID, "its id came back as {}", refused.headers["opid"]);
        ensure!(robot.listener.last_drive(&LEFT, from)?.is_none(), "it was driven all the same");
        let new = call(robot, client, SET_POWER, &drive, &json!([["opid", "none"]]))?;
        ensure!(new.headers["opid"].as_str().is_some_and(|id| id.len() == OPID.len() && id != OPID));
        Ok(())
    })
}

/// Fails if a page of somebody else reaches the robot, or one of this computer does not.
#[test]
fn foreign_pages_are_refused_by_the_server_itself() -> Result<()> {
    const STOP_ALL: &str = "/viam.robot.v1.RobotService/StopAll";
    with_raw(Setup::base(), |robot, clients, client| {
        let mut driver = robot.client(clients)?;
        robot.drive(&mut driver, &LEFT, 0.4)?;
        let foreign = json!([["origin", "https://evil.example"]]);
        call(robot, client, STOP_ALL, "", &foreign)?.is(PERMISSION_DENIED, "evil.example")?;
        no_stop_for(&robot.listener, &LEFT, Duration::from_millis(500))?;
        let told = Moment::now();
        let page = call(robot, client, STOP_ALL, "", &json!([["origin", "http://localhost:3000"]]))?;
        page.is(OK, "")?;
        ensure!(page.headers["access-control-allow-origin"] == "http://localhost:3000");
        robot.listener.wait_for_stop(&LEFT, told, START)?;
        Ok(())
    })
}

/// Fails if a client that ends its session leaves its motors running for its window, stops another's, or can end what is
/// no session.
#[test]
fn a_session_is_ended_at_once_by_its_client() -> Result<()> {
    const END: &str = "/lanyard.v1.LanyardService/EndSession";
    with_raw(Setup::base().window("30s"), |robot, clients, client| {
        let mut driver = sessionless(robot, clients)?;
        let mut other = robot.client(clients)?;
        let id = start_session(&mut driver, "")?;
        let from = Moment::now();
        driver.ask("set_power_as", json!({ "name": "left", "power": 0.4, "session": id }))?;
        robot.moves(&LEFT, from, 0.4)?;
        robot.drive(&mut other, &RIGHT, 0.4)?;
        let told = Moment::now();
        call(robot, client, END, &text(1, &id)?, &json!([]))?.is(OK, "")?;
        let stop = robot.listener.wait_for_stop(&LEFT, told, START)?;
        // The order itself takes a while to reach the front on the slowest rig; the window is 30 s.
        robot.is_prompt(told, Duration::from_secs(2) + LATE, &stop)?;
        robot.lanyard.wait_for_trip(told, "closed by client", "left", START)?;
        robot.verified(&LEFT)?;
        call(robot, client, END, &text(1, &id)?, &json!([]))?.is(NOT_FOUND, "it is over")?;
        call(robot, client, END, &text(1, "x")?, &json!([]))?.is(INVALID_ARGUMENT, "not a UUID")?;
        no_stop_for(&robot.listener, &RIGHT, Duration::from_millis(500))
    })
}

/// Fails if an operator without a shell cannot stop everything, see why it stands, and let it move again; or if a reset
/// clears another trip than the one that was named.
#[test]
fn an_operator_stops_looks_and_resets_over_grpc() -> Result<()> {
    const OWN: &str = "/lanyard.v1.LanyardService";
    with_raw(Setup::base(), |robot, clients, client| {
        let mut driver = robot.client(clients)?;
        robot.drive_base(&mut driver)?;
        let status = call(robot, client, &format!("{OWN}/GetStatus"), "", &json!([]))?;
        ensure!(status.has("armed") && status.has("granted") && status.has("driven by a session"));

        let told = Moment::now();
        let stopped = call(robot, client, &format!("{OWN}/EmergencyStop"), "", &json!([]))?;
        stopped.is(OK, "")?;
        let trip = first_number(&stopped.body)?;
        for motor in [&LEFT, &RIGHT] {
            robot.listener.wait_for_stop(motor, told, START)?;
            robot.verified(motor)?;
        }
        ensure!(robot.lanyard.status()?["latch"] == trip, "the supervisor knows of no such stop");
        let status = call(robot, client, &format!("{OWN}/GetStatus"), "", &json!([]))?;
        let why = format!("proven to stand still; stopped last by trip {trip} (operator stop)");
        ensure!(status.has("operator stop") && status.has(&why), "the status does not say why");
        let mut drive =
            || -> Result<_> { driver.call("set_power", json!({ "name": "left", "power": 0.4 }))?.refusal() };
        let mut refusal = drive()?;
        if crate::scene::is_session_expired(&refusal).is_ok() {
            // It came before the SDK's next heartbeat; told so, the SDK opens another session.
            refusal = drive()?;
        }
        ensure!(refusal.status.as_deref() == Some("FAILED_PRECONDITION"), "got {refusal:?}");

        let reset = format!("{OWN}/Reset");
        call(robot, client, &reset, "", &json!([]))?.is(INVALID_ARGUMENT, "which trip?")?;
        call(robot, client, &reset, &number(1, trip)?, &json!([]))?
            .is(FAILED_PRECONDITION, &format!("lanyard reset {trip}"))?;
        ensure!(robot.lanyard.status()?["latch"] == trip, "a trip was reset over the network");
        ensure!(robot.lanyard.reset(trip)?.code == Some(0), "trip {trip} cannot be reset beside the robot");
        robot.drive_base(&mut robot.client(clients)?)?;

        robot.supervisor()?.kill()?;
        let unheard = call(robot, client, &format!("{OWN}/EmergencyStop"), "", &json!([]))?;
        unheard.is(UNAVAILABLE, "use the red button")
    })
}
