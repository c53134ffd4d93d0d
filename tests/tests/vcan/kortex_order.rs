//! What a program for Kinova's arms commanded last is what happens: pipelined commands, datagrams in another order, networks
//! that come back, programs that wake up, drives with a fault. The arm is two ODrives.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::clock::Moment;
use tests::expect;
use tests::kortex::{BRISK, JOINTS, Program, STOP_HOLD, Times, Transport, has_codes, turns};
use tests::relay::Relay;
use tests::robot::{LEFT, RIGHT, Robot, START, STILL, Setup};
use tests::wire::{Family, Motor, Seen};

use crate::kortex::{driver, play_arm, play_changed};
use crate::scene::no_stop_for;

/// Long enough for keep-alives every 164 ms, and for PINGs, on a rig that stands still now and then.
const TIMES: Times = Times::connection(1_000);
/// How long is looked whether anything moves: five times `stop_hold`, and many frames of a program that streams.
const WATCHED: Duration = Duration::from_millis(1_300);
/// How long a program waits for an answer before it gives up, in seconds.
const PATIENCE: f64 = 1.0;
/// `Clear_Errors` of an ODrive.
const CLEAR_ERRORS: u32 = 0x18;

fn named(speeds: [f64; 2]) -> Value {
    let joint = |(number, speed): (usize, &f64)| json!({ "joint_identifier": number, "value": speed });
    json!({ "joint_speeds": speeds.iter().enumerate().map(joint).collect::<Vec<_>>() })
}

/// Fails if a motor is told to turn, or given torque, since then, or stands not still now.
fn nothing_has_moved(robot: &Robot, since: Moment) -> Result<()> {
    let moves = |seen: &Seen| JOINTS.iter().any(|(motor, _)| motor.drives(seen) || motor.energises(seen));
    let moved = robot.listener.first(since, moves)?;
    ensure!(moved.is_none(), "moved by {moved:?}");
    for (motor, _) in &JOINTS {
        robot.sim.wait_for_standstill(motor.node, Duration::ZERO)?;
    }
    Ok(())
}

/// Fails if a program that was stopped moves anything before it has shown that it knows, is not told so, or cannot drive
/// after that.
fn drives_only_when_it_means_to(robot: &Robot, program: &mut Program) -> Result<()> {
    let asked = Moment::now();
    let refusal = program.refused("SendJointSpeedsCommand", named(BRISK))?;
    has_codes(&refusal, "3/54")?;
    ensure!(refusal.message.contains("call ClearFaults or Stop, then command again"), "{}", refusal.message);
    // Sent with the Stop, it cannot follow the answer.
    let together = json!([["Stop", {}], ["SendJointSpeedsCommand", named(BRISK)]]);
    let codes = program.ask("pipeline", json!({ "calls": together }))?;
    ensure!(codes == json!(["0/0", "3/54"]), "Stop and a command are answered with {codes}");
    nothing_has_moved(robot, asked)?;
    std::thread::sleep(STOP_HOLD);
    program.drive(robot, BRISK)
}

/// One command of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Command {
    Speeds([f64; 2]),
    Stop,
}

const COMMANDS: [Command; 4] = [
    Command::Speeds([360.0, 90.0]),
    Command::Speeds([-180.0, 180.0]),
    Command::Speeds([0.0, 0.0]),
    Command::Stop,
];

impl Command {
    fn call(self) -> Value {
        match self {
            Self::Speeds(speeds) => json!(["SendJointSpeedsCommand", named(speeds)]),
            Self::Stop => json!(["Stop", {}]),
        }
    }

    const fn outcome(self) -> [f64; 2] {
        match self {
            Self::Speeds(speeds) => speeds,
            Self::Stop => [0.0; 2],
        }
    }
}

/// Fails if, of two commands that are sent without waiting between them, anything but the last one happens; over UDP the
/// last one comes first, and a Stop that comes late stops all the same.
#[test]
fn of_two_commands_the_last_one_happens_over_every_transport() -> Result<()> {
    for transport in [Transport::Tcp, Transport::Mqtt, Transport::Udp] {
        play_arm("", |robot, clients, ports| {
            let mut program = driver(robot, clients, ports, transport, Times::USUAL)?;
            for first in COMMANDS {
                for second in COMMANDS {
                    // Where in the pair the one is that counts: a late Stop does, a late command does not.
                    let (order, counts) = match (transport, first) {
                        (Transport::Udp, Command::Stop) => ([1, 0], 0),
                        (Transport::Udp, Command::Speeds(_)) => ([1, 0], 1),
                        (Transport::Tcp | Transport::Mqtt, _) => ([0, 1], 1),
                    };
                    let calls = json!({ "calls": [first.call(), second.call()], "order": order });
                    let codes = program.ask("pipeline", calls)?;
                    let pair = format!("{transport:?}, {first:?}, {second:?}: {codes}");
                    let outcome = [first, second][counts].outcome();
                    ensure!(codes[counts] == "0/0", "{pair}");
                    turns(robot, outcome).with_context(|| pair.clone())?;
                    std::thread::sleep(Duration::from_millis(150));
                    turns(robot, outcome).with_context(|| format!("{pair}, a moment later"))?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Fails if a command that was sent while the network was away moves anything when it is back: its program has given up, and
/// the arm was stopped.
#[test]
fn command_that_waited_out_an_outage_moves_nothing() -> Result<()> {
    for transport in [Transport::Tcp, Transport::Mqtt] {
        play_arm("", |robot, clients, ports| {
            let network = Relay::start(&ports.address(transport))?;
            let mut program = Program::connected_at(clients, &network.address, transport)?;
            program.create_session(TIMES)?;
            program.drive(robot, BRISK)?;
            let gone = Moment::now();
            network.hold();
            for speeds in [[1_080.0, 540.0], [720.0, 360.0]] {
                let wish = json!({
                    "method": "SendJointSpeedsCommand", "values": named(speeds), "timeout": PATIENCE,
                });
                let outcome = program.call("call", wish)?;
                ensure!(outcome.result.is_err(), "answered over a network that is away: {outcome:?}");
            }
            robot.lanyard.wait_for_trip(gone, "session expired", LEFT.name, STILL)?;
            for motor in [&LEFT, &RIGHT] {
                robot.verified(motor)?;
            }
            let back = Moment::now();
            network.release();
            std::thread::sleep(WATCHED);
            nothing_has_moved(robot, back).with_context(|| format!("over {transport:?}"))?;
            drives_only_when_it_means_to(robot, &mut program)
        })?;
    }
    Ok(())
}

/// Has a program stream commands while something stops its arm, and fails if it moves again before the program has stopped
/// streaming and shown that it means to.
fn streams_through(
    robot: &mut Robot,
    program: &mut Program,
    reason: &str,
    interruption: impl FnOnce(&mut Robot, &Program) -> Result<Moment>,
) -> Result<()> {
    let began = Moment::now();
    let streaming = program.begin("stream", json!({ "speeds": BRISK, "seconds": 8.0 }))?;
    turns(robot, BRISK)?;
    let over = interruption(robot, program)?;
    robot.lanyard.wait_for_trip(began, reason, LEFT.name, STILL)?;
    for motor in [&LEFT, &RIGHT] {
        robot.verified(motor)?;
    }
    let outcomes = program.finish(streaming, START)?.value()?;
    println!("{reason}: {outcomes}");
    nothing_has_moved(robot, over)?;
    ensure!(outcomes["3/54"].as_u64().is_some_and(|refused| refused > 0), "never refused: {outcomes}");
    drives_only_when_it_means_to(robot, program)
}

/// Fails if a program that slept through the stop of its arm, and streams on, moves it.
#[test]
fn program_that_wakes_up_and_streams_on_moves_nothing() -> Result<()> {
    for transport in [Transport::Tcp, Transport::Mqtt] {
        play_arm("", |robot, clients, ports| {
            let mut program = Program::open(clients, ports, transport, TIMES)?;
            streams_through(robot, &mut program, "session expired", |robot, program| {
                let asleep = Moment::now();
                program.signal(Signal::SIGSTOP)?;
                robot.stopped_at_deadline(&LEFT, asleep, TIMES.window())?;
                for motor in [&LEFT, &RIGHT] {
                    robot.verified(motor)?;
                }
                let awake = Moment::now();
                program.signal(Signal::SIGCONT)?;
                Ok(awake)
            })
        })?;
    }
    Ok(())
}

/// Fails if a front that slept through the stop of the arm moves it with what has come meanwhile.
#[test]
fn front_that_wakes_up_moves_nothing() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = Program::open(clients, ports, Transport::Tcp, Times::connection(10_000))?;
        streams_through(robot, &mut program, "front silent", |robot, _| {
            robot.signal_front(Signal::SIGSTOP)?;
            for motor in [&LEFT, &RIGHT] {
                robot.sim.wait_for_standstill(motor.node, STILL)?;
            }
            std::thread::sleep(Duration::from_millis(500));
            robot.signal_front(Signal::SIGCONT)
        })
    })
}

/// Fails if an arm whose supervisor was killed and came back is moved by who drove it before, and does not mean to.
#[test]
fn supervisor_that_comes_back_moves_nothing() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = Program::open(clients, ports, Transport::Tcp, Times::connection(10_000))?;
        streams_through(robot, &mut program, "supervisor died", |robot, _| {
            robot.supervisor()?.kill()?;
            for motor in [&LEFT, &RIGHT] {
                robot.sim.wait_for_standstill(motor.node, STILL)?;
            }
            let back = Moment::now();
            robot.start_supervisor()?;
            Ok(back)
        })
    })
}

/// Fails if a fault of a drive is cleared by anything but ClearFaults, or if its session moves before.
#[test]
fn fault_of_a_drive_waits_for_clear_faults() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = Program::open(clients, ports, Transport::Tcp, Times::USUAL)?;
        let streaming = program.begin("stream", json!({ "speeds": BRISK, "seconds": 4.0 }))?;
        turns(robot, BRISK)?;
        let fault = Moment::now();
        robot.sim.order(&format!("{} fault 64", LEFT.node))?;
        robot.lanyard.wait_for_trip(fault, "drive fault", LEFT.name, STILL)?;
        let stop = robot.listener.wait_for_stop(&RIGHT, fault, STILL)?;
        let outcomes = program.finish(streaming, START)?.value()?;
        ensure!(outcomes["3/22"].as_u64().is_some_and(|refused| refused > 0), "never refused: {outcomes}");
        robot.no_motion_after(&RIGHT, &stop)?;
        let untouched = |program: &mut Program| -> Result<()> {
            let refusal = program.refused("SendJointSpeedsCommand", named(BRISK))?;
            has_codes(&refusal, "3/22")?;
            ensure!(refusal.message.contains("ClearFaults"), "{}", refusal.message);
            // 4 is ARM_IN_FAULT.
            ensure!(program.method("GetArmState", json!({}))?["active_state"] == 4, "no fault is told");
            let cleared = robot.listener.first(fault, |seen| clears_errors(&LEFT, seen))?;
            ensure!(cleared.is_none(), "cleared by {cleared:?}");
            robot.no_motion_after(&RIGHT, &stop)
        };
        untouched(&mut program)?;
        program.acknowledge("Stop")?;
        untouched(&mut program)?;
        program.acknowledge("ClearFaults")?;
        program.drive(robot, BRISK)
    })
}

/// Whether a frame clears the errors of an ODrive.
fn clears_errors(motor: &Motor, seen: &Seen) -> bool {
    motor.family == Family::Odrive && !seen.extended && seen.id == u32::from(motor.node) << 5 | CLEAR_ERRORS
}

/// Fails if a program over MQTT that connects again after the front was killed is stopped because it is never asked whether
/// it lives: it subscribes to the question only when its session's number changes.
#[test]
fn program_over_mqtt_drives_on_with_the_next_front() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Mqtt, TIMES)?;
        for _ in 0..2 {
            let old = program.state()?["session"].clone();
            robot.front()?.kill()?;
            for motor in [&LEFT, &RIGHT] {
                robot.verified(motor)?;
            }
            robot.start_front()?;
            program.ask("reconnect", json!({}))?;
            let new = program.create_session(TIMES)?;
            ensure!(old != new, "the number {new} again");
            program.drive(robot, BRISK)?;
            no_stop_for(&robot.listener, &LEFT, 3 * TIMES.window())?;
        }
        Ok(())
    })
}

/// Fails if a program that ends in good order, or says nothing more when its arm stands still, leaves a trip that an operator
/// has to reset.
#[test]
fn orderly_end_leaves_nothing_to_reset() -> Result<()> {
    play_changed("", Setup::manual, |robot, clients, ports| {
        for rests in [
            json!({ "method": "Stop" }),
            json!({ "method": "SendJointSpeedsCommand", "values": named([0.0; 2]) }),
        ] {
            let mut program = driver(robot, clients, ports, Transport::Tcp, Times::USUAL)?;
            let from = Moment::now();
            program.ask("call", rests.clone())?;
            for (motor, _) in &JOINTS {
                robot.sim.wait_for_standstill(motor.node, STILL)?;
            }
            // Some readings that prove it.
            std::thread::sleep(Duration::from_millis(500));
            program.ask("close_session", json!({}))?;
            std::thread::sleep(Duration::from_millis(300));
            let trips: Vec<_> = robot
                .lanyard
                .events()?
                .into_iter()
                .filter(|event| event.kind() == "trip" && event.at() >= from)
                .collect();
            ensure!(trips.is_empty(), "{rests}: {trips:?}");
            for (motor, _) in &JOINTS {
                expect::within(STILL, "nothing is held", || {
                    let status = robot.lanyard.motor(motor.name).map_err(|error| format!("{error:#}"))?;
                    if status.state() == "idle" || status.trip().is_none() {
                        Ok(())
                    } else {
                        Err(format!("{status:?}"))
                    }
                })?;
            }
        }
        driver(robot, clients, ports, Transport::Tcp, Times::USUAL).map(drop)
    })
}

/// Fails if a client that uses its right to operate can clear what waits for a person at the robot.
#[test]
fn clear_faults_resets_no_latch() -> Result<()> {
    play_changed("", Setup::manual, |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Tcp, TIMES)?;
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        let (trip, _) = robot.stopped_at_deadline(&LEFT, asleep, TIMES.window())?;
        program.signal(Signal::SIGCONT)?;
        for motor in [&LEFT, &RIGHT] {
            robot.verified(motor)?;
        }
        let number = trip.trip().context("a trip without number")?;
        for _ in 0..2 {
            let refusal = program.refused("ClearFaults", json!({}))?;
            has_codes(&refusal, "3/22")?;
            ensure!(refusal.message.contains(&format!("`lanyard reset {number}`")), "{}", refusal.message);
        }
        std::thread::sleep(STOP_HOLD);
        let refused = program.call("speeds", json!({ "speeds": BRISK }))?;
        // grant_timeout is half a second: nothing is waited for that is known.
        ensure!(refused.seconds < 0.4, "a refusal took {} s", refused.seconds);
        has_codes(&refused.refusal()?, "3/22")?;
        robot.lanyard.reset(number)?;
        // What was noted while it was latched counts.
        program.drive(robot, BRISK)
    })
}

/// Fails if, under `reset = "neutral"`, a new session drives an arm that was stopped under another before it has shown that it
/// knows, or if that is not enough.
#[test]
fn new_session_shows_that_it_knows_of_a_stop_under_neutral() -> Result<()> {
    play_changed(
        "",
        |setup| setup.supervisor_key("reset", "\"neutral\""),
        |robot, clients, ports| {
            for notice in ["Stop", "ClearFaults"] {
                let mut dead = Program::open(clients, ports, Transport::Tcp, Times::USUAL)?;
                dead.acknowledge("Stop")?;
                dead.drive(robot, BRISK)?;
                dead.kill()?;
                for motor in [&LEFT, &RIGHT] {
                    robot.sim.wait_for_standstill(motor.node, STILL)?;
                    robot.verified(motor)?;
                }
                let mut next = Program::open(clients, ports, Transport::Tcp, Times::USUAL)?;
                let refusal = next.refused("SendJointSpeedsCommand", named(BRISK))?;
                has_codes(&refusal, "3/22")?;
                ensure!(refusal.message.contains("call ClearFaults or Stop"), "{}", refusal.message);
                next.acknowledge(notice)?;
                next.drive(robot, BRISK)?;
                next.kill()?;
                for motor in [&LEFT, &RIGHT] {
                    robot.sim.wait_for_standstill(motor.node, STILL)?;
                    robot.verified(motor)?;
                }
            }
            Ok(())
        },
    )
}
