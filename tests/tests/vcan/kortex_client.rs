//! Whether our program for Kinova's arms does on the wire what the real one does: a base of paper answers it with what the
//! real one was answered with, byte by byte. (`front/tests/vectors`; recorded from kortex_api 2.6.0 and 3.3.0.)
//!
//! What would be wrong in the client and in Lanyard alike would otherwise not show.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use tests::expect;
use tests::kortex::{Program, has_codes};
use tests::python::Clients;
use tests::robot::STILL;

use crate::scene::with_clients;

const RECORDED: &str = include_str!("../../../front/tests/vectors/kortex2.txt");
const RECORDED_MQTT: &str = include_str!("../../../front/tests/vectors/kortex3_mqtt.txt");
/// Magic, length.
const HEAD: usize = 12;

/// What the client says, and what it is answered with.
struct Exchange {
    what: String,
    request: Vec<u8>,
    answers: Vec<Vec<u8>>,
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let hex = hex.trim();
    let byte = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..hex.len()).step_by(2).map(byte).collect::<Option<_>>().with_context(|| format!("no hex: {hex}"))
}

/// A section of the recording, such as "A".
fn recorded(section: &str) -> Result<Vec<Exchange>> {
    let begin = format!("## {section}:");
    let lines = RECORDED.lines().skip_while(|line| !line.starts_with(&begin)).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("## ")).collect();
    let mut exchanges: Vec<Exchange> = Vec::new();
    for pair in lines.windows(2) {
        if pair[0].starts_with("TCP C->S") {
            let (what, request) = (pair[0].to_owned(), bytes(pair[1])?);
            exchanges.push(Exchange { what, request, answers: Vec::new() });
        } else if pair[0].starts_with("TCP S->C") {
            let last = exchanges.last_mut().context("an answer to nothing")?;
            last.answers.push(bytes(pair[1])?);
        }
    }
    ensure!(!exchanges.is_empty(), "nothing was recorded under {begin}");
    Ok(exchanges)
}

/// One frame with its head.
fn read(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head)?;
    let length = usize::try_from(u32::from_be_bytes([head[8], head[9], head[10], head[11]]))?;
    let mut frame = vec![0; HEAD + length];
    frame[..HEAD].copy_from_slice(&head);
    stream.read_exact(&mut frame[HEAD..])?;
    Ok(frame)
}

/// A base that expects these requests from one client, in this order.
fn base(exchanges: Vec<Exchange>) -> Result<(String, JoinHandle<Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let serve = move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(STILL))?;
        for Exchange { what, request, answers } in exchanges {
            let said = read(&mut stream).with_context(|| what.clone())?;
            ensure!(said == request, "{what}: said {said:02x?} instead of {request:02x?}");
            for answer in answers {
                stream.write_all(&answer)?;
            }
        }
        Ok(())
    };
    Ok((address, std::thread::spawn(serve)))
}

fn joined(base: JoinHandle<Result<()>>) -> Result<()> {
    base.join().map_err(|_| anyhow!("the base panicked"))?
}

fn connected(clients: &mut Clients, address: &str) -> Result<Program> {
    let mut program = Program::idle(clients)?;
    program.ask("connect", json!({ "address": address }))?;
    Ok(program)
}

/// Without the keep-alive, whose moment is not recorded.
fn session(password: &str) -> Value {
    json!({ "password": password, "session_ms": 60_000, "connection_ms": 2_000, "keep_alive": false })
}

/// Fails if the client says one byte that the real one does not, or reads anything else from what that was answered with.
#[test]
fn client_says_what_the_real_one_says() -> Result<()> {
    with_clients(|clients| {
        let mut exchanges = recorded("A")?;
        exchanges.extend(recorded("A2")?);
        exchanges.extend(recorded("A3")?);
        let (address, base) = base(exchanges)?;
        let mut program = connected(clients, &address)?;
        ensure!(program.ask("create_session", session("admin"))? == 1, "another session than the base's");
        program.method("KeepAlive", json!({}))?;
        // Keep-alives that were not recorded.
        program.ask("preset", json!({ "message": 5 }))?;
        ensure!(program.method("GetServoingMode", json!({}))?["servoing_mode"] == 2, "another mode");
        let twist = json!({ "uid": 0x2_0079, "payload": "080212050dcdcc4c3d" });
        ensure!(program.ask("call_bytes", twist.clone())?["codes"] == "0/0", "an error that was none");
        program.ask("speeds", json!({ "speeds": [10.0, 10.0] }))?;
        for method in ["Stop", "ApplyEmergencyStop", "ClearFaults", "ServoingModeTopic"] {
            program.method(method, json!({}))?;
        }
        let notes = expect::within(STILL, "the notification", || {
            let notes = program.ask("notifications", json!({})).map_err(|error| format!("{error:#}"))?;
            if notes[0].is_null() { Err(notes.to_string()) } else { Ok(notes) }
        })?;
        ensure!(notes[0]["handle"] == 1 && notes[0]["servoing_mode"] == 3, "another notification: {notes}");
        let listed = program.method("GetConnections", json!({}))?;
        ensure!(
            listed["connection"][0]["connection_information"] == "type=TCP;ip=127.0.0.1",
            "another connection: {listed}"
        );
        let refused = program.ask("call_bytes", twist)?;
        ensure!(refused["codes"] == "3/130" && refused["text"] == "session not in control", "got {refused}");
        program.ask("close_session", json!({}))?;
        joined(base)
    })
}

/// Fails if the client takes a refusal for something else than the real one does.
#[test]
fn client_reads_refusals_as_the_real_one() -> Result<()> {
    with_clients(|clients| {
        let (address, wrong) = base(recorded("B")?)?;
        let mut program = connected(clients, &address)?;
        has_codes(&program.call("create_session", session("wrong"))?.refusal()?, "3/15")?;
        joined(wrong)?;
        let (address, stranger) = base(recorded("C")?)?;
        let mut program = connected(clients, &address)?;
        has_codes(&program.refused("Stop", json!({}))?, "1/54")?;
        joined(stranger)
    })
}

/// A base that creates a session and then answers keep-alives, or does not. Returns `count` times between them.
fn pauses(clients: &mut Clients, count: usize, answers: bool) -> Result<Vec<Duration>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let watch = move || -> Result<Vec<Instant>> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STILL))?;
        let mut moments = Vec::new();
        // The first is CreateSession, which is answered in any case.
        for number in 0..count + 2 {
            let mut frame = read(&mut stream)?;
            if number > 0 {
                moments.push(Instant::now());
            }
            if number == 0 || answers {
                // The kind of frame is in the last byte of its first word: a request becomes a response.
                frame[HEAD + 6] = 0x13;
                stream.write_all(&frame)?;
            }
        }
        Ok(moments)
    };
    let base = std::thread::spawn(watch);
    let mut program = connected(clients, &address)?;
    program.ask("create_session", json!({}))?;
    let moments = base.join().map_err(|_| anyhow!("the base panicked"))??;
    Ok(moments.windows(2).map(|pair| pair[1] - pair[0]).collect())
}

/// Fails if the client beats more often than the real one (163 ms were measured), less often, or if it does not wait for an
/// answer before the next keep-alive (283 ms).
#[test]
fn keep_alives_come_as_often_as_the_real_ones() -> Result<()> {
    with_clients(|clients| {
        for (answers, real) in [(true, 163), (false, 283)] {
            let pauses = pauses(clients, 10, answers)?;
            let shortest = pauses.iter().min().context("no keep-alive")?.as_millis();
            println!("answered: {answers}; pauses {pauses:?}");
            // The shortest of ten: a machine that stands still makes pauses longer, and the one after a late arrival shorter.
            ensure!(
                (real - 60..real + 40).contains(&shortest),
                "{shortest} ms instead of {real}: {pauses:?}"
            );
        }
        Ok(())
    })
}

/// Fails if the client of generation 3 introduces itself otherwise than the real one.
#[test]
fn mqtt_begins_as_the_real_client_begins() -> Result<()> {
    with_clients(|clients| {
        let line = RECORDED_MQTT.lines().skip_while(|line| !line.contains("C->S CONNECT")).nth(1);
        let real = bytes(line.context("no CONNECT was recorded")?)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let mut program = Program::idle(clients)?;
        program.begin("connect", json!({ "address": address, "transport": "mqtt" }))?;
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(STILL))?;
        let mut said = vec![0; real.len()];
        stream.read_exact(&mut said)?;
        ensure!(said == real, "said {said:02x?} instead of {real:02x?}");
        Ok(())
    })
}
