//! Who speaks: what another program of this computer says in the name of a drive or of the interface counts for nothing, and
//! what comes over the wire is told from it. A motor that a session drives has no master there.
//!
//! The program that forges is this test program once more ([`forger`]), as user `nobody`: a CAN socket needs no privilege.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::clock::Moment;
use tests::holder;
use tests::intruder::Intruder;
use tests::process::Process;
use tests::robot::{LEFT, MOVE, RIGHT, Robot, START, STATE, STILL, Setup};
use tests::wire::Seen;

use crate::scene::{no_stop_for, play};

/// What tells [`forger`] that it is one, and what to send.
const ORDER: &str = "LANYARD_TEST_FORGER";
/// As often as a drive that tells its speed a hundred times a second.
const PERIOD: Duration = Duration::from_millis(10);
/// An ODrive of node 3 that is idle and stands still: heartbeat and encoder estimates.
const STANDS_STILL: [&str; 2] = ["061#0000000001000000", "069#0000000000000000"];
/// An error frame of a controller that has left the bus (CAN_ERR_FLAG, CAN_ERR_BUSOFF).
const BUS_OFF: &str = "20000040#0000000000000000";
/// The bit by which the kernel tells error frames.
const ERROR_FLAG: u32 = 0x2000_0000;

/// A frame in the notation of `cansend`.
fn parse(text: &str) -> Result<(u32, Seen)> {
    let (id, payload) = text.split_once('#').context("id#payload")?;
    let byte = |at: usize| Ok(u8::from_str_radix(payload.get(at..at + 2).context("whole bytes")?, 16)?);
    let data = (0..payload.len()).step_by(2).map(byte).collect::<Result<Vec<u8>>>()?;
    let number = u32::from_str_radix(id, 16)?;
    let extended = id.len() > 3;
    Ok((number, Seen { at: Moment(0), id: number, extended, remote: false, fd: None, data }))
}

/// The forger: sends its frames on its interface, over and over. Does nothing in an ordinary run.
#[test]
fn forger() -> Result<()> {
    let Ok(order) = std::env::var(ORDER) else { return Ok(()) };
    let (interface, frames) = order.split_once(' ').context("interface and frames")?;
    let frames = frames.split(' ').map(parse).collect::<Result<Vec<_>>>()?;
    let socket = Intruder::local(interface)?;
    loop {
        for (number, frame) in &frames {
            if number & ERROR_FLAG == 0 {
                socket.send_seen(frame)?;
            } else {
                let details = frame.data.clone().try_into().ok().context("eight bytes")?;
                socket.report(number & !ERROR_FLAG, details)?;
            }
        }
        std::thread::sleep(PERIOD);
    }
}

/// Starts a forger of these frames.
fn forge<'a>(frames: impl IntoIterator<Item = &'a str>) -> Result<Process> {
    let frames = frames.into_iter().collect::<Vec<_>>().join(" ");
    let program = std::env::current_exe()?;
    let script = format!(
        "{ORDER}='vcan0 {frames}' exec setpriv --reuid nobody --regid nogroup --clear-groups '{}' --exact \
         origin::forger --test-threads=1",
        program.display()
    );
    Process::start(Path::new("/bin"), "sh", ["-c", &script])
}

/// Fails if it is not told that somebody speaks for the drives.
fn is_told(robot: &Robot, from: Moment) -> Result<()> {
    robot.lanyard.wait_for_event(from, START, "a word on the forger", |event| {
        event.kind() == "local feedback" && event.concerns("left")
    })?;
    let told = robot.lanyard.run(&["status"])?;
    ensure!(told.code == Some(2) && told.stdout.contains("NOT BELIEVED"), "status: {}", told.stdout);
    Ok(())
}

/// Whether the drive that turns goes on telling so.
#[derive(Clone, Copy, Debug)]
enum Telemetry {
    GoesOn,
    IsLost,
}

/// Fails if a program of another user can talk a motor into standing still that turns: that was recorded as its
/// standstill, its stop was no longer repeated, and the next stage never came.
#[test]
fn no_local_program_can_say_that_a_motor_stands_still() -> Result<()> {
    for telemetry in [Telemetry::IsLost, Telemetry::GoesOn] {
        let setup = Setup::base().window("1s").supervisor_key("stage_timeout", "\"300ms\"");
        play(setup, |robot, clients| {
            let mut client = robot.client(clients)?;
            robot.drive(&mut client, &LEFT, 0.4)?;
            robot.sim.order("3 ignore all on")?;
            robot.sim.order("3 ignore-velocity-zero on")?;
            let from = Moment::now();
            let _forger = forge(STANDS_STILL)?;
            client.kill()?;
            robot.lanyard.wait_for_trip(from, "session expired", "left", START)?;
            if matches!(telemetry, Telemetry::IsLost) {
                robot.sim.order("3 mute on")?;
            }
            robot.lanyard.wait_for_event(from, START, "unverified", |event| {
                event.kind() == "unverified" && event.concerns("left")
            })?;
            std::thread::sleep(Duration::from_secs(1));
            let turns = robot.sim.report(LEFT.node)?.velocity();
            ensure!(turns > 1.0, "the shaft was to turn on, but has {turns} rev/s");
            let motor = robot.lanyard.motor("left")?;
            ensure!(motor.state() == "unverified", "{telemetry:?}: it turns, and is called {motor:?}");
            let proven =
                |event: &tests::status::Event| event.kind() == "standstill" && event.concerns("left");
            let events = robot.lanyard.events()?;
            let lie = events.into_iter().find(|event| event.at() >= from && proven(event));
            ensure!(lie.is_none(), "{telemetry:?}: recorded as its standstill: {lie:?}");
            is_told(robot, from)
        })?;
    }
    Ok(())
}

/// Fails if a program of another user can stop the robot by speaking for the interface: one frame did.
#[test]
fn no_local_program_can_say_that_the_bus_is_off() -> Result<()> {
    play(Setup::base().window("5s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let from = Moment::now();
        let forger = forge([BUS_OFF])?;
        // Its process takes a while to start.
        no_stop_for(&robot.listener, &LEFT, Duration::from_secs(2))?;
        let bus = robot.lanyard.status()?["buses"][0].clone();
        ensure!(bus["up"] == true && bus["error_frames"] == 0, "{bus}");
        is_told(robot, from)?;
        drop(forger);
        // The interface's own is believed.
        let real = Intruder::node("vcan0")?.report(0x040, [0; 8])?;
        robot.lanyard.wait_for_trip(real, "bus fault", "left", START).map(drop)
    })
}

/// Fails if what a program says for a drive that is mute gets it a grant: it was then driven blind.
#[test]
fn no_local_program_can_speak_for_a_mute_drive() -> Result<()> {
    const VESC: &str =
        "driver = \"vesc\"\nid = 1\npole_pairs = 14\nafter_stop = \"release\"\nmax_rpm = 300\n";
    let setup = Setup::new().with_drive("left", VESC, "vesc:node=1,pole_pairs=14");
    play(setup, |robot, clients| {
        robot.lanyard.wait_for_motor("left", STILL, "is proven", |motor| motor.state() == "idle")?;
        let from = Moment::now();
        std::thread::sleep(Duration::from_millis(500));
        robot.sim.order("1 mute on")?;
        // Each of its own reports once.
        let mut said = robot.listener.since(from)?;
        said.retain(|frame| frame.extended && frame.id & 0xFF == 1 && frame.fd.is_none());
        said.sort_by_key(|frame| frame.id);
        said.dedup_by_key(|frame| frame.id);
        ensure!(!said.is_empty(), "the drive has said nothing");
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        std::thread::sleep(Duration::from_millis(800));
        let forger = forge(said.iter().map(String::as_str))?;
        // Its process takes a while to start.
        std::thread::sleep(Duration::from_secs(2));
        let mut client = robot.client(clients)?;
        let answer = client.ask("set_power", json!({ "name": "left", "power": 0.4 }));
        ensure!(answer.is_err(), "a command for a mute drive was answered {answer:?}");
        let moved = robot.sim.report(1)?.velocity();
        ensure!(moved.abs() < 0.05, "driven blind at {moved} rev/s");
        is_told(robot, from)?;
        drop(forger);
        robot.sim.order("1 mute off")?;
        std::thread::sleep(Duration::from_millis(800));
        client.ask("set_power", json!({ "name": "left", "power": 0.4 }))?;
        robot.sim.wait_for_speed(1, 1.2, MOVE).map(drop)
    })
}

/// Fails if somebody on the bus drives a motor beside its session, and neither is stopped: both commanded it, in turns.
#[test]
fn another_master_on_the_wire_stops_what_a_session_drives() -> Result<()> {
    play(Setup::base().window("5s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let other = Intruder::node("vcan0")?;
        // A reading of the bus voltage moves nothing.
        other.send(0x077, &[])?;
        no_stop_for(&robot.listener, &LEFT, Duration::from_millis(300))?;
        // 0.5 rev/s forward, slower than the client asks for: no speed tells of it.
        let sent = other.send(0x06D, &[0, 0, 0, 0x3F, 0, 0, 0, 0])?;
        for motor in [&LEFT, &RIGHT] {
            let stop = robot.listener.wait_for_stop(motor, sent, START)?;
            let after = robot.is_prompt(sent, Duration::from_millis(20), &stop)?;
            println!("{} stopped after {after:.2} ms", motor.name);
        }
        robot.lanyard.wait_for_trip(sent, "another master", "left", START)?;
        robot.verified(&LEFT)?;
        robot.verified(&RIGHT).map(drop)
    })
}

/// A supervisor of the same motors with a socket and a folder of its own, which was killed: its holder has the kernel send
/// its stops. Ends them when it is dropped.
struct Orphan(PathBuf);

impl Orphan {
    fn leave(robot: &Robot) -> Result<Self> {
        let (socket, config) = (robot.file("other.sock"), robot.file("other.toml"));
        let own = robot.lanyard.socket.to_str().context("a path in UTF-8")?;
        let other = socket.to_str().context("a path in UTF-8")?;
        let state = robot.file(STATE);
        let state = state.to_str().context("a path in UTF-8")?;
        let text = std::fs::read_to_string(&robot.config)?;
        std::fs::write(&config, text.replace(own, other).replace(state, &format!("{state}-other")))?;
        let arguments = ["--config".as_ref(), config.as_os_str()];
        let mut supervisor = Process::start(&robot.programs, "lanyard-supervisor", arguments)?;
        supervisor.wait_for_line("lanyard-supervisor: armed", START)?;
        supervisor.kill()?;
        Ok(Self(socket))
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if let Err(error) = holder::dismiss(&self.0) {
            eprintln!("the other supervisor's stops go on: {error:#}");
        }
    }
}

/// Fails if the stops of a second supervisor of the same motors, which is dead, go on beside a session without a word and
/// without a trip: the motor was `granted`, and jerked.
#[test]
fn the_stops_of_another_supervisors_holder_are_named_and_end_the_grant() -> Result<()> {
    let setup = Setup::base().window("10s").supervisor_key("stage_timeout", "\"10s\"");
    play(setup, |robot, clients| {
        let orphan = Orphan::leave(robot)?;
        for motor in [&LEFT, &RIGHT] {
            robot.verified(motor)?;
        }
        let from = Moment::now();
        let mut client = robot.client(clients)?;
        // It may be stopped before this is answered.
        let answer = client.call("set_power", json!({ "name": "left", "power": 0.4 }))?;
        robot.lanyard.wait_for_event(from, START, "a word on the stops of others", |event| {
            event.kind() == "stops of others" && event.concerns("left")
        })?;
        let trip = robot.lanyard.wait_for_trip(from, "another master", "left", START)?;
        println!("stopped {:.0} ms after the command: {answer:?}", trip.at().millis_since(from));
        let said = robot.supervisor()?.wait_for_line("lanyard-holder", START)?;
        ensure!(said.contains("left"), "which motor: {said}");
        drop(orphan);
        for motor in [&LEFT, &RIGHT] {
            robot.verified(motor)?;
        }
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        no_stop_for(&robot.listener, &LEFT, Duration::from_secs(2))
    })
}

/// Fails if stops that come over the wire, from another computer, go on beside a session without a word and without a trip;
/// or if a single one ends a grant: it has stopped what it was to stop, and the session drives on.
#[test]
fn stops_from_the_wire_are_named_and_end_the_grant_if_they_go_on() -> Result<()> {
    play(Setup::base().window("10s"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let other = Intruder::node("vcan0")?;
        let from = other.send(0x06D, &[0; 8])?;
        robot.lanyard.wait_for_event(from, START, "a word on the stop of somebody else", |event| {
            event.kind() == "stops of others" && event.concerns("left")
        })?;
        has_not_tripped(robot, from)?;
        let from = Moment::now();
        for _ in 0..100 {
            other.send(0x06D, &[0; 8])?;
            std::thread::sleep(PERIOD);
        }
        robot.lanyard.wait_for_trip(from, "another master", "left", START)?;
        robot.verified(&LEFT).map(drop)
    })
}

/// Fails if the supervisor has stopped anything since a moment, or does within two seconds.
fn has_not_tripped(robot: &Robot, from: Moment) -> Result<()> {
    std::thread::sleep(Duration::from_secs(2));
    let events = robot.lanyard.events()?;
    let trip = events.iter().find(|event| event.at() >= from && event.kind() == "trip");
    ensure!(trip.is_none(), "{trip:?}");
    Ok(())
}
