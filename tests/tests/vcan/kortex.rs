//! Programs for an arm of Kinova's, generation 2 over TCP and UDP: who drives, who falls silent, who is not let, and who
//! breaks the rules. The arm is two ODrives.
//!
//! A program's keep-alive comes 164 ms after the last frame it sent, whatever the rest of it does.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::clock::Moment;
use tests::expect;
use tests::folder::Folder;
use tests::kortex::{BRISK, Ports, Program, Times, Transport, has_codes, turns};
use tests::process::programs;
use tests::python::{Clients, Outcome};
use tests::robot::{LATE, LEFT, RIGHT, Robot, START, STILL, Setup};
use tests::wire::Seen;

use crate::scene::{no_stop_for, play};

/// What "at once" is for the end of a connection: the kernel tells the front, the front the supervisor. A tenth of the
/// shortest deadline that it is told from.
pub const NOTICED: Duration = Duration::from_millis(200);
/// Long enough for keep-alives every 164 ms on a rig that stands still now and then.
const TIMES: Times = Times::connection(1_000);

/// Starts a robot with an arm and runs `act` with it.
pub fn play_arm(keys: &str, act: impl FnOnce(&mut Robot, &mut Clients, &Ports) -> Result<()>) -> Result<()> {
    play_changed(keys, |setup| setup, act)
}

/// The same, with more to be changed.
pub fn play_changed(
    keys: &str,
    change: impl FnOnce(Setup) -> Setup,
    act: impl FnOnce(&mut Robot, &mut Clients, &Ports) -> Result<()>,
) -> Result<()> {
    let ports = Ports::free()?;
    play(change(ports.robot(keys)), |robot, clients| act(robot, clients, &ports))
}

/// A program that drives both joints.
pub fn driver(
    robot: &Robot,
    clients: &mut Clients,
    ports: &Ports,
    transport: Transport,
    times: Times,
) -> Result<Program> {
    let mut program = Program::open(clients, ports, transport, times)?;
    program.drive(robot, BRISK)?;
    Ok(program)
}

/// A program that is killed or hangs up has closed nothing.
pub const HUNG_UP: &str = "client connection ended";
/// A program that has closed its session.
pub const CLOSED: &str = "closed by client";

/// The end of a connection or session stops both motors for its own reason, without waiting for a deadline.
pub fn stopped_at_once(robot: &Robot, reason: &str, from: Moment) -> Result<()> {
    for motor in [&LEFT, &RIGHT] {
        let stop = robot.listener.wait_for_stop(motor, from, STILL)?;
        robot.is_prompt(from, NOTICED, &stop)?;
        robot.lanyard.wait_for_trip(from, reason, motor.name, STILL)?;
        robot.verified(motor)?;
        robot.no_motion_after(motor, &stop)?;
    }
    Ok(())
}

/// Silence stops both motors at the deadline of the last frame. Returns the stop frames.
pub fn stopped_at_deadline(robot: &Robot, from: Moment, window: Duration) -> Result<[Seen; 2]> {
    let (trip, left) = robot.stopped_at_deadline(&LEFT, from, window)?;
    let (_, right) = robot.stopped_at_deadline(&RIGHT, from, window)?;
    let deadline = trip.deadline().context("no deadline")?;
    println!(
        "stop frames {:.3} and {:.3} ms after the deadline (limit {LATE:?})",
        left.at.millis_since(deadline),
        right.at.millis_since(deadline)
    );
    for (motor, stop) in [(&LEFT, &left), (&RIGHT, &right)] {
        robot.verified(motor)?;
        robot.no_motion_after(motor, stop)?;
    }
    Ok([left, right])
}

/// Fails if any of the robot's motors tripped since.
fn no_trip_since(robot: &Robot, from: Moment) -> Result<()> {
    let events = robot.lanyard.events()?;
    let trip = events.iter().find(|event| event.kind() == "trip" && event.at() >= from);
    ensure!(trip.is_none(), "tripped: {trip:?}");
    Ok(())
}

/// Fails if joints do not turn as fast, or the way, they are told to, if their gears do not count, if what is said of them is
/// not what they do, or if Stop does not stop them.
#[test]
fn joints_turn_as_commanded_and_tell_of_it() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = Program::open(clients, ports, Transport::Tcp, Times::USUAL)?;
        ensure!(program.method("GetActuatorCount", json!({}))? == json!({ "count": 2 }), "not two joints");
        let [forward, backward] = [720.0, -180.0];
        program.drive(robot, [forward, backward])?;
        let speeds = program.method("GetMeasuredJointSpeeds", json!({}))?;
        let feedback = program.method("RefreshFeedback", json!({}))?;
        for (number, wanted) in [(0, forward), (1, backward)] {
            // The shaft is within a twentieth of a revolution a second, the drive's estimate near it.
            let right = |said: &Value| said.as_f64().is_some_and(|said| (said - wanted).abs() < 36.0);
            ensure!(right(&speeds["joint_speeds"][number]["value"]), "joint {number}: {speeds}");
            ensure!(right(&feedback["actuators"][number]["velocity"]), "joint {number}: {feedback}");
        }
        let angle = |values: &Value| values["joint_angles"][1]["value"].as_f64().context("no angle");
        let first = angle(&program.method("GetMeasuredJointAngles", json!({}))?)?;
        expect::within(STILL, "the angle changes", || {
            let now = program.method("GetMeasuredJointAngles", json!({})).and_then(|values| angle(&values));
            let now = now.map_err(|error| format!("{error:#}"))?;
            let on = (0.0..360.0).contains(&now) && (now - first).abs() > 1.0;
            if on { Ok(()) } else { Err(now.to_string()) }
        })?;
        // 9 is ARM_SERVOING_MANUALLY_CONTROLLED, 2 SINGLE_LEVEL_SERVOING.
        ensure!(program.method("GetArmState", json!({}))?["active_state"] == 9, "another state");
        ensure!(program.method("GetServoingMode", json!({}))?["servoing_mode"] == 2, "another mode");
        program.method("Stop", json!({}))?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        robot.sim.wait_for_standstill(RIGHT.node, STILL)?;
        program.drive(robot, BRISK)
    })
}

/// Fails if a joint that a command does not name goes on, or if a command for a single joint stops the others.
#[test]
fn joints_that_are_not_named_rest_and_single_ones_leave_the_others() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Tcp, Times::USUAL)?;
        let single = |joint: u32, value: f64| json!({ "joint_identifier": joint, "value": value });
        program.method("SendSelectedJointSpeedCommand", single(1, 90.0))?;
        turns(robot, [720.0, 90.0])?;
        program.method("SendSelectedJointSpeedCommand", single(1, 0.0))?;
        turns(robot, [720.0, 0.0])?;
        no_stop_for(&robot.listener, &LEFT, TIMES.window())?;
        program.ask("speeds", json!({ "speeds": [null, 180.0] }))?;
        turns(robot, [0.0, 180.0])?;
        for wrong in [
            json!({ "joint_speeds": [] }),
            json!({ "joint_speeds": [single(2, 10.0)] }),
            json!({ "joint_speeds": [single(0, 10.0), single(0, 10.0)] }),
            json!({ "joint_speeds": [{ "joint_identifier": 0, "value": "NaN" }] }),
            json!({ "joint_speeds": [{ "joint_identifier": 0, "value": "Infinity" }] }),
        ] {
            has_codes(&program.refused("SendJointSpeedsCommand", wrong)?, "1/3")?;
        }
        // What is refused changes nothing.
        turns(robot, [0.0, 180.0])
    })
}

/// Fails if the end of a program, of its connection or of its session leaves the arm turning, or makes it wait for its
/// deadline.
#[test]
fn end_of_a_connection_stops_the_arm_at_once() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Tcp, Times::USUAL)?;
        let death = program.kill()?;
        stopped_at_once(robot, HUNG_UP, death).context("killed")?;
        for (end, reason) in [("hang_up", HUNG_UP), ("half_close", HUNG_UP), ("close_session", CLOSED)] {
            let mut program = driver(robot, clients, ports, Transport::Tcp, Times::USUAL)?;
            let from = Moment::now();
            program.ask(end, json!({}))?;
            stopped_at_once(robot, reason, from).context(end)?;
        }
        Ok(())
    })
}

/// Fails if the arm of a suspended program is stopped before connection_inactivity_timeout or later than that, if anything
/// moves it when the program wakes, or if the program's session does not live on until it means to drive again.
#[test]
fn suspended_program_is_stopped_and_its_session_lives_on() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Tcp, TIMES)?;
        let session = program.state()?["session"].clone();
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        let stops = stopped_at_deadline(robot, asleep, TIMES.window())?;
        program.signal(Signal::SIGCONT)?;
        // Some of its keep-alives, which go on.
        std::thread::sleep(Duration::from_millis(700));
        robot.no_motion_after(&LEFT, &stops[0])?;
        robot.no_motion_after(&RIGHT, &stops[1])?;
        program.drive_again(robot, BRISK)?;
        let state = program.state()?;
        ensure!(state["session"] == session && state["keeps"] == true, "{session} has become {state}");
        no_stop_for(&robot.listener, &LEFT, 2 * TIMES.window())
    })
}

/// Fails if a session outlives session_inactivity_timeout, if its program is told otherwise than by error 54, loses its
/// connection by it, or cannot go on with a new session.
#[test]
fn session_that_was_silent_for_long_is_over_and_its_connection_is_not() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let times = Times { connection: 500, session: 1_500 };
        let mut program = driver(robot, clients, ports, Transport::Tcp, times)?;
        let old = program.state()?["session"].as_u64();
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        robot.stopped_at_deadline(&LEFT, asleep, times.window())?;
        std::thread::sleep(Duration::from_millis(times.session.into()));
        program.signal(Signal::SIGCONT)?;
        has_codes(&program.refused("GetArmState", json!({}))?, "1/54")?;
        expect::within(STILL, "the keep-alive ends by the same", || {
            let state = program.state().map_err(|error| format!("{error:#}"))?;
            if state["ended_by"] == "1/54" { Ok(()) } else { Err(state.to_string()) }
        })?;
        ensure!(program.state()?["open"] == true, "the connection was closed");
        let new = program.create_session(TIMES)?;
        ensure!(Some(new) != old, "the same number again");
        program.drive(robot, BRISK)
    })
}

/// Fails if keep-alives do not count, so that a joint stops that nobody commands again.
///
/// A keep-alive every 164 ms against 300 ms leaves little for a rig that stands still: one of five tries must do.
#[test]
fn keep_alives_alone_keep_joints_turning() -> Result<()> {
    let times = Times::connection(300);
    play_arm("", |robot, clients, ports| {
        let mut program = Program::open(clients, ports, Transport::Tcp, times)?;
        let mut seen = Vec::new();
        for _ in 0..5 {
            // May itself take longer than the window, in which case the next try has a drive that is ready.
            let tried = program.drive_again(robot, BRISK);
            let beats = program.state()?["beats"].as_u64();
            match tried.and_then(|()| no_stop_for(&robot.listener, &LEFT, 6 * times.window())) {
                Ok(()) => {
                    let beaten = program.state()?["beats"].as_u64().zip(beats).map(|(now, then)| now - then);
                    // 1.8 s hold eleven of them; five must be there for no window to be without.
                    ensure!(
                        beaten.is_some_and(|beaten| beaten >= 5),
                        "kept turning by {beaten:?} keep-alives"
                    );
                    return robot.sim.wait_for_speed(LEFT.node, 1.9, STILL);
                }
                Err(error) => seen.push(format!("{error:#}")),
            }
        }
        bail!("stopped every time: {seen:?}")
    })
}

/// Fails if a connection_inactivity_timeout that is shorter than the pause between keep-alives is not kept to, or if being
/// stopped by it ends the session.
#[test]
fn keep_alives_are_too_rare_for_a_tenth_of_a_second() -> Result<()> {
    let times = Times::connection(100);
    play_arm("", |robot, clients, ports| {
        // Both drives are ready, and take the next command at once.
        driver(robot, clients, ports, Transport::Tcp, Times::USUAL)?;
        robot.verified(&LEFT)?;
        let mut program = Program::open(clients, ports, Transport::Tcp, times)?;
        for _ in 0..2 {
            program.acknowledge("Stop")?;
            let from = Moment::now();
            // Its answer may come when the deadline has passed already.
            let outcome = program.call("speeds", json!({ "speeds": BRISK }))?;
            if let Err(refusal) = &outcome.result {
                has_codes(refusal, "3/54")?;
            }
            let trip = robot.lanyard.wait_for_trip(from, "session expired", "left", STILL)?;
            let (deadline, beat) = trip.deadline().zip(trip.last_beat()).context("no deadline")?;
            ensure!(deadline == beat + times.window(), "the deadline is not the last frame plus 100 ms");
            let stop = robot.listener.wait_for_stop(&LEFT, deadline, STILL)?;
            robot.is_prompt(deadline, LATE, &stop)?;
            robot.verified(&LEFT)?;
        }
        ensure!(program.state()?["keeps"] == true, "the session was ended");
        Ok(())
    })
}

/// Fails if a program whose keep-alive goes on while the rest of it hangs keeps the arm turning where progress is required,
/// or if its session ends by that.
#[test]
fn progress_is_required_of_what_turns() -> Result<()> {
    let progress = Duration::from_secs(1);
    play_arm("require_progress = \"1s\"\n", |robot, clients, ports| {
        let mut program = Program::open(clients, ports, Transport::Tcp, Times::USUAL)?;
        let from = Moment::now();
        program.speeds(BRISK)?;
        let commanded = Moment::now();
        robot.moves(&LEFT, from, 1.0)?;
        let stop = robot.listener.wait_for_stop(&LEFT, commanded, STILL)?;
        // It is looked for every 10 ms, by a program without priority.
        robot.is_prompt(commanded, progress + 10 * LATE, &stop)?;
        robot.lanyard.wait_for_trip(from, "no progress", "left", STILL)?;
        robot.verified(&LEFT)?;
        let state = program.state()?;
        ensure!(state["keeps"] == true && state["ended_by"].is_null(), "the keep-alive ended: {state}");
        // Who rests makes all the progress there is to make.
        program.drive_again(robot, BRISK)?;
        program.speeds([0.0, 0.0])?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        let rests = Moment::now();
        std::thread::sleep(2 * progress);
        no_trip_since(robot, rests)
    })
}

/// Fails if a command with a duration goes on for longer, ends as a trip, or ends a newer command.
#[test]
fn duration_brings_joints_to_rest() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Tcp, Times::USUAL)?;
        program.method("Stop", json!({}))?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        let from = Moment::now();
        program.ask("speeds", json!({ "speeds": BRISK, "duration": 1 }))?;
        robot.moves(&LEFT, from, 1.0)?;
        let drive = robot.listener.wait_for_drive(&LEFT, from, STILL)?;
        let stop = robot.listener.wait_for_stop(&LEFT, drive.at, STILL)?;
        let after = stop.at.millis_since(drive.at);
        // The second counts from when the motors have it, and is kept by a program without priority.
        ensure!(after >= 900.0, "at rest after {after} ms");
        robot.is_prompt(drive.at, Duration::from_millis(1_500), &stop)?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        robot.sim.wait_for_standstill(RIGHT.node, STILL)?;
        no_trip_since(robot, from)?;

        program.ask("speeds", json!({ "speeds": BRISK, "duration": 1 }))?;
        program.speeds([360.0, 90.0])?;
        turns(robot, [360.0, 90.0])?;
        no_stop_for(&robot.listener, &LEFT, Duration::from_secs(2))?;
        turns(robot, [360.0, 90.0])
    })
}

/// Fails if datagrams do not drive the arm, if losing three of ten both ways stops it within a window of 2 s, or if a killed
/// program's arm is not stopped at the deadline: nobody tells the front that a datagram's sender is gone.
#[test]
fn datagrams_drive_survive_losses_and_are_missed() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Udp, Times::USUAL)?;
        let before = program.state()?;
        program.ask("lose", json!({ "losing": true }))?;
        no_stop_for(&robot.listener, &LEFT, 3 * Times::USUAL.window())?;
        let after = program.state()?;
        let grown =
            |key: &str| after[key].as_u64().zip(before[key].as_u64()).map_or(0, |(now, then)| now - then);
        let (beats, unanswered, lost) = (grown("beats"), grown("unanswered"), grown("dropped"));
        println!("6 s with losses: {beats} keep-alives answered, {unanswered} not, {lost} datagrams lost");
        ensure!(lost >= 3 && unanswered >= 3 && beats >= 3, "this was no test of losses: {after}");
        program.ask("lose", json!({ "losing": false }))?;
        program.drive(robot, [360.0, 180.0])?;
        let death = program.kill()?;
        stopped_at_deadline(robot, death, Times::USUAL.window()).map(drop)
    })
}

/// Fails if a program that is connected twice, as those for low-level servoing are, is stopped by the end or the silence of
/// the connection that commands nothing.
#[test]
fn idle_second_session_ends_and_stops_nothing() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = Program::open(clients, ports, Transport::Tcp, Times::USUAL)?;
        for (name, transport) in [("udp", Transport::Udp), ("tcp", Transport::Tcp)] {
            let place = json!({ "address": ports.address(transport), "transport": name, "on": name });
            program.ask("connect", place)?;
            let wish = json!({ "session_ms": 3_000, "connection_ms": 500, "keep_alive": false, "on": name });
            program.ask("create_session", wish)?;
        }
        let listed = program.method("GetConnections", json!({}))?;
        ensure!(
            listed["connection"].as_array().is_some_and(|all| all.len() == 3),
            "not three sessions: {listed}"
        );
        program.drive(robot, BRISK)?;
        program.ask("hang_up", json!({ "on": "tcp" }))?;
        // Longer than both times of the one that says nothing more.
        no_stop_for(&robot.listener, &LEFT, Duration::from_secs(4))?;
        let listed = program.method("GetConnections", json!({}))?;
        ensure!(listed["connection"].as_array().is_some_and(|all| all.len() == 1), "still there: {listed}");
        turns(robot, BRISK)
    })
}

/// Fails if a second program can take the arm away from one that commands it, is not told why, or does not get it when the
/// first has commanded nothing for the time of grace; or if the first's end then stops the second's arm.
#[test]
fn arm_stays_with_who_commands_it() -> Result<()> {
    let grace = Duration::from_secs(3);
    play_arm("control_grace = \"3s\"\n", |robot, clients, ports| {
        let mut first = driver(robot, clients, ports, Transport::Tcp, TIMES)?;
        let mut second = Program::open(clients, ports, Transport::Tcp, TIMES)?;
        first.speeds([360.0, 90.0])?;
        let refusal = second.call("speeds", json!({ "speeds": BRISK }))?.refusal()?;
        has_codes(&refusal, "3/130")?;
        turns(robot, [360.0, 90.0])?;
        // Whoever it is may stop it.
        second.method("Stop", json!({}))?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        std::thread::sleep(grace);
        second.drive(robot, BRISK)?;
        second.speeds(BRISK)?;
        let refusal = first.call("speeds", json!({ "speeds": [0.0, 0.0] }))?.refusal()?;
        has_codes(&refusal, "3/130")?;
        first.kill()?;
        no_stop_for(&robot.listener, &LEFT, 2 * TIMES.window())?;
        // A session that ends lets go at once.
        second.kill()?;
        robot.verified(&LEFT)?;
        driver(robot, clients, ports, Transport::Tcp, TIMES).map(drop)
    })
}

/// Fails if a session's number is worth anything on another connection, tells whether the session exists, or keeps it alive.
#[test]
fn number_of_a_session_is_worth_nothing_to_others() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut victim = driver(robot, clients, ports, Transport::Tcp, TIMES)?;
        let number = victim.state()?["session"].as_u64().context("no session")?;
        for transport in [Transport::Tcp, Transport::Udp] {
            let mut thief = Program::connected(clients, ports, transport)?;
            // Keep-alive, the list of sessions, Stop, a command, the end of the session.
            for (uid, payload) in
                [(0x1_0003, ""), (0x1_0004, ""), (0x2_0070, ""), (0x2_0084, "0a051500002041"), (0x1_0002, "")]
            {
                let mut told = |session: u64| {
                    let call = json!({ "uid": uid, "payload": payload, "session": session });
                    let answer = thief.ask("call_bytes", call)?;
                    anyhow::Ok((answer["codes"].clone(), answer["text"].clone()))
                };
                let nobodys = if number > 1_000 { number - 1_000 } else { number + 1_000 };
                let (real, unknown) = (told(number)?, told(nobodys)?);
                ensure!(real == unknown && real.0 == "1/54", "{uid:#x}: {real:?}, {unknown:?}");
            }
        }
        turns(robot, BRISK)?;
        let mut thief = Program::connected(clients, ports, Transport::Udp)?;
        let asleep = Moment::now();
        victim.signal(Signal::SIGSTOP)?;
        let insisting = thief.begin("insist", json!({ "session": number, "seconds": 2.0 }))?;
        stopped_at_deadline(robot, asleep, TIMES.window())?;
        let answers = thief.finish(insisting, START)?.value()?;
        ensure!(answers.as_object().is_some_and(|all| all.keys().all(|key| key == "1/54")), "{answers}");
        Ok(())
    })
}

/// Fails if an emergency stop leaves a joint turning, lets anything move before an operator has reset it, ClearFaults or not, or
/// does so for ever after.
#[test]
fn emergency_stop_holds_until_an_operator_resets_it() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Tcp, Times::USUAL)?;
        let mut other = Program::open(clients, ports, Transport::Udp, Times::USUAL)?;
        let pressed = Moment::now();
        other.method("ApplyEmergencyStop", json!({}))?;
        for motor in [&LEFT, &RIGHT] {
            let stop = robot.listener.wait_for_stop(motor, pressed, START)?;
            robot.verified(motor)?;
            robot.no_motion_after(motor, &stop)?;
        }
        let held = Moment::now();
        let refusal = program.call("speeds", json!({ "speeds": BRISK }))?.refusal()?;
        has_codes(&refusal, "3/22")?;
        // 4 is ARM_IN_FAULT, the bit is EMERGENCY_STOP_ACTIVATED.
        ensure!(program.method("GetArmState", json!({}))?["active_state"] == 4, "no fault is told");
        let bits = program.method("RefreshFeedback", json!({}))?["base"]["fault_bank_a"].as_u64();
        ensure!(bits.is_some_and(|bits| bits & 0x80_0000 != 0), "the e-stop's bit is missing: {bits:?}");
        let refusal = program.refused("ClearFaults", json!({}))?;
        has_codes(&refusal, "3/22")?;
        let trip = robot.lanyard.wait_for_trip(pressed, "operator stop", LEFT.name, STILL)?;
        let trip = trip.trip().context("a trip without number")?;
        ensure!(refusal.message.contains(&format!("`lanyard reset {trip}`")), "{}", refusal.message);
        std::thread::sleep(Duration::from_millis(300));
        has_codes(&program.call("speeds", json!({ "speeds": BRISK }))?.refusal()?, "3/22")?;
        robot.lanyard.reset(trip)?;
        std::thread::sleep(Duration::from_millis(300));
        let moved = robot.listener.first(held, |frame| LEFT.drives(frame) || RIGHT.drives(frame))?;
        ensure!(moved.is_none(), "moved by {moved:?}");
        // It has cleared its own faults meanwhile.
        program.drive(robot, BRISK)
    })
}

/// Fails if changes are not told to who subscribed, under another handle than it was given, to others, or after it has
/// unsubscribed.
#[test]
fn changes_are_told_to_who_subscribed() -> Result<()> {
    const MODE: u64 = 0x2_009A;
    const STATE: u64 = 0x2_00B0;
    play_arm("", |robot, clients, ports| {
        let mut program = Program::open(clients, ports, Transport::Tcp, Times::USUAL)?;
        let mut silent = Program::open(clients, ports, Transport::Tcp, Times::USUAL)?;
        let handle = |value: Value| value["identifier"].as_u64().context("no handle");
        let mode = handle(program.method("ServoingModeTopic", json!({}))?)?;
        let state = handle(program.method("ArmStateTopic", json!({}))?)?;
        ensure!(mode != 0 && state != 0 && mode != state, "handles {mode} and {state}");
        program.drive(robot, BRISK)?;
        program.method("SetServoingMode", json!({ "servoing_mode": 2 }))?;
        has_codes(&program.refused("SetServoingMode", json!({ "servoing_mode": 3 }))?, "1/3")?;
        let of = |notes: &Value, topic: u64| -> Vec<Value> {
            notes.as_array().into_iter().flatten().filter(|note| note["topic"] == topic).cloned().collect()
        };
        expect::within(STILL, "both are told", || {
            let notes = program.ask("notifications", json!({})).map_err(|error| format!("{error:#}"))?;
            let mode =
                of(&notes, MODE).iter().any(|note| note["handle"] == mode && note["servoing_mode"] == 2);
            let turns =
                of(&notes, STATE).iter().any(|note| note["handle"] == state && note["active_state"] == 9);
            if mode && turns { Ok(()) } else { Err(notes.to_string()) }
        })?;
        has_codes(&silent.refused("Unsubscribe", json!({ "identifier": mode }))?, "1/3")?;
        program.method("Unsubscribe", json!({ "identifier": mode }))?;
        let before = of(&program.ask("notifications", json!({}))?, MODE).len();
        program.method("SetServoingMode", json!({ "servoing_mode": 2 }))?;
        // 4 is ARM_IN_FAULT: what is told of next shows that the first would have been told.
        program.method("ApplyEmergencyStop", json!({}))?;
        expect::within(STILL, "the fault is told", || {
            let notes = program.ask("notifications", json!({})).map_err(|error| format!("{error:#}"))?;
            let told = of(&notes, STATE).iter().any(|note| note["active_state"] == 4);
            if told { Ok(()) } else { Err(notes.to_string()) }
        })?;
        ensure!(
            of(&program.ask("notifications", json!({}))?, MODE).len() == before,
            "told after Unsubscribe"
        );
        ensure!(silent.ask("notifications", json!({}))? == json!([]), "told without having asked");
        Ok(())
    })
}

/// Fails if a front that is told to end leaves the arm to its deadline, over any transport.
#[test]
fn front_that_is_told_to_end_stops_the_arm() -> Result<()> {
    for transport in [Transport::Tcp, Transport::Udp] {
        play_arm("", |robot, clients, ports| {
            let _program =
                driver(robot, clients, ports, transport, Times { connection: 5_000, session: 60_000 })?;
            let told = robot.signal_front(Signal::SIGTERM)?;
            for motor in [&LEFT, &RIGHT] {
                let stop = robot.listener.wait_for_stop(motor, told, STILL)?;
                robot.is_prompt(told, Duration::from_millis(500), &stop)?;
                robot.lanyard.wait_for_trip(told, "front ended", motor.name, STILL)?;
                robot.verified(motor)?;
                robot.no_motion_after(motor, &stop)?;
            }
            ensure!(robot.front()?.wait(START)?.code == Some(0), "it did not end in good order");
            Ok(())
        })?;
    }
    Ok(())
}

/// Fails if the arm runs on after the front's death, if a new front knows sessions of the dead one, or if a program cannot
/// drive with that one.
#[test]
fn killed_front_stops_the_arm_and_a_new_one_knows_no_old_session() -> Result<()> {
    // What an installed robot has.
    let front_window = Duration::from_millis(250);
    play_changed("", Setup::as_installed, |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Udp, Times::USUAL)?;
        let number = program.state()?["session"].as_u64();
        let death = Moment::now();
        robot.front()?.kill()?;
        for motor in [&LEFT, &RIGHT] {
            let stop = robot.listener.wait_for_stop(motor, death, STILL)?;
            robot.is_prompt(death, front_window, &stop)?;
            robot.lanyard.wait_for_trip(death, "front dead", motor.name, STILL)?;
            robot.verified(motor)?;
            robot.no_motion_after(motor, &stop)?;
        }
        robot.start_front()?;
        // The same socket, and nobody has told the program anything.
        let answer =
            program.ask("call_bytes", json!({ "uid": 0x2_0070, "session": number, "timeout": 5.0 }))?;
        ensure!(answer["codes"] == "1/54", "an old session got {answer}");
        program.create_session(Times::USUAL)?;
        program.drive(robot, BRISK)
    })
}

/// Fails if the number of requests is more to the server than what its answer is found by.
#[test]
fn message_numbers_wrap() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Tcp, Times::USUAL)?;
        program.ask("preset", json!({ "message": 0xFFFC }))?;
        for _ in 0..8 {
            program.method("GetArmState", json!({}))?;
        }
        let state = program.state()?;
        ensure!(
            state["message"].as_u64().is_some_and(|number| number < 1_000),
            "it has not wrapped: {state}"
        );
        ensure!(state["unregistered"] == 0 && state["dropped"] == 0, "answers went astray: {state}");
        program.drive(robot, [360.0, 180.0])
    })
}

/// Fails if times that cannot be kept are taken, or if those of a program that names none are not the configured ones.
#[test]
fn times_are_checked_and_have_defaults() -> Result<()> {
    play_arm("connection_timeout = \"1s\"\n", |robot, clients, ports| {
        let mut program = Program::connected(clients, ports, Transport::Tcp)?;
        for (connection_ms, session_ms) in [(29, 60_000), (4_000_000_000_u32, 60_000), (2_000, 1)] {
            let wish = json!({ "connection_ms": connection_ms, "session_ms": session_ms });
            has_codes(&program.call("create_session", wish)?.refusal()?, "1/3")?;
        }
        program.create_session(Times { connection: 0, session: 0 })?;
        program.drive(robot, BRISK)?;
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        stopped_at_deadline(robot, asleep, Duration::from_secs(1)).map(drop)
    })
}

/// Fails if a program may be silent for as long as it likes: its motors are for drivers that are heard every 2 s.
#[test]
fn a_long_wish_is_shortened() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let wish = Times { connection: 30_000, session: 60_000 };
        let program = driver(robot, clients, ports, Transport::Tcp, wish)?;
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        stopped_at_deadline(robot, asleep, Duration::from_secs(2)).map(drop)
    })
}

/// Another program drives, and must not notice anything of what `act` does.
fn while_another_drives(
    robot: &mut Robot,
    clients: &mut Clients,
    ports: &Ports,
    act: impl FnOnce(&mut Robot, &mut Clients) -> Result<()>,
) -> Result<()> {
    let mut other =
        driver(robot, clients, ports, Transport::Tcp, Times { connection: 3_000, session: 60_000 })?;
    let from = Moment::now();
    act(robot, clients)?;
    let stop = robot.listener.first(from, |frame| LEFT.is_stop(frame) || LEFT.is_torque_off(frame))?;
    ensure!(stop.is_none(), "the arm of another program was stopped by {stop:?}");
    let worst = other.ask("slowest_beat", json!({ "count": 20 }))?;
    // A round trip takes 5 to 30 ms on the slowest rig.
    ensure!(worst.as_f64().is_some_and(|worst| worst < 0.3), "a keep-alive took {worst} s");
    ensure!(other.state()?["open"] == true, "its connection was closed");
    other.drive(robot, [360.0, 180.0])
}

/// Fails if bytes that are no frames are put up with, take the connection of another program with them, or stop its arm; or if
/// a frame that asks for what there is not is answered otherwise than with its error.
#[test]
fn nonsense_costs_its_sender_only() -> Result<()> {
    play_changed(
        "",
        |setup| setup.supervisor_key("front_window", "\"2s\""),
        |robot, clients, ports| {
            while_another_drives(robot, clients, ports, |_, clients| {
                let mut rude = Program::idle(clients)?;
                for kind in [
                    "wrong_magic",
                    "http",
                    "no_length",
                    "four_gigabytes",
                    "truncated",
                    "no_protobuf",
                    "other_header",
                    "noise",
                    "datagrams",
                ] {
                    let transport = if kind == "datagrams" { Transport::Udp } else { Transport::Tcp };
                    let order = json!({ "kind": kind, "address": ports.address(transport) });
                    let outcome = rude.call_within(Duration::from_secs(60), "misbehave", order)?.value()?;
                    println!("{kind}: {outcome}");
                    let text = outcome.as_str().unwrap_or_default();
                    ensure!(!text.contains("TimeoutError"), "{kind} was put up with: {text}");
                }
                for transport in [Transport::Tcp, Transport::Udp] {
                    let mut odd = Program::open(clients, ports, transport, Times::USUAL)?;
                    // Method and payload, device, type; and what each is answered with.
                    for (call, codes) in [
                        (json!({ "uid": 0x2_0030 }), "1/5"),
                        (json!({ "uid": 0x1_00FF }), "1/5"),
                        (json!({ "uid": 0x17_0001 }), "1/4"),
                        (json!({ "uid": 0x2_0084, "payload": "ffffffff" }), "1/13"),
                        (json!({ "uid": 0x2_0070, "device": 3 }), "1/52"),
                        (json!({ "uid": 0x1_0003, "kind": 4 }), "1/10"),
                        (json!({ "uid": 0x3_0001, "payload": "12050d01000100" }), "3/75"),
                    ] {
                        let answer = odd.ask("call_bytes", call.clone())?;
                        ensure!(answer["codes"] == codes, "{call} is answered with {answer}, not {codes}");
                    }
                    ensure!(
                        odd.ask("slowest_beat", json!({ "count": 1 })).is_ok(),
                        "its own session has ended"
                    );
                }
                Ok(())
            })
        },
    )
}

/// Fails if connections that say nothing keep a program out, or take the place of one that drives.
#[test]
fn three_hundred_idle_connections_make_room() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        while_another_drives(robot, clients, ports, |_, clients| {
            let mut crowd = Program::idle(clients)?;
            let order = json!({ "address": ports.address(Transport::Tcp), "count": 300 });
            let opened = crowd.call_within(Duration::from_secs(60), "crowd_in", order)?.value()?;
            ensure!(opened == 300, "only {opened} came about");
            let mut another = Program::open(clients, ports, Transport::Tcp, Times::USUAL)?;
            another.method("GetArmState", json!({}))?;
            // One that comes and goes is no trouble either.
            drop(TcpStream::connect(ports.address(Transport::Tcp))?);
            another.method("GetArmState", json!({})).map(drop)
        })
    })
}

/// Makes a user with the operator's command, as a script would.
pub fn add_user(keys: &Path, name: &str, role: &str, password: &str) -> Result<()> {
    let mut command = Command::new(programs()?.join("lanyard"));
    command.args(["keys", "--file"]).arg(keys).args(["add", name, "--role", role, "--password"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(format!("{password}\n").as_bytes())?;
    let ended = child.wait_with_output()?;
    ensure!(ended.status.success(), "lanyard keys: {}", String::from_utf8_lossy(&ended.stderr));
    Ok(())
}

/// Fails if anybody gets in without their password, learns whether a user exists, may more than their role says, or drives on
/// when their key has been revoked; or if who only looks may not stop.
#[test]
fn users_log_in_and_may_what_their_roles_say() -> Result<()> {
    let folder = Folder::new()?;
    let keys = folder.file("keys.toml");
    for (name, role) in [("looker", "observe"), ("driver", "operate"), ("boss", "administer")] {
        add_user(&keys, name, role, &format!("password of {name}"))?;
    }
    let key = format!("\"{}\"", keys.display());
    play_changed(
        "",
        |setup| setup.front_key("keys", &key),
        |robot, clients, ports| {
            let mut log_in = |user: &str, password: &str| -> Result<(Program, Outcome)> {
                let mut program = Program::connected(clients, ports, Transport::Tcp)?;
                let wish = json!({ "user": user, "password": password, "connection_ms": 2_000 });
                let outcome = program.call("create_session", wish)?;
                Ok((program, outcome))
            };
            let mut texts = Vec::new();
            for (user, password) in [("driver", "wrong"), ("nobody", "password of driver"), ("", "")] {
                let refusal = log_in(user, password)?.1.refusal()?;
                has_codes(&refusal, "3/15")?;
                texts.push(refusal.message);
            }
            ensure!(texts.iter().all(|text| *text == texts[0]), "told apart: {texts:?}");
            let mut user = |name: &str| -> Result<Program> {
                let (program, outcome) = log_in(name, &format!("password of {name}"))?;
                outcome.value().with_context(|| name.to_owned())?;
                Ok(program)
            };
            let (mut looker, mut driver, mut boss) = (user("looker")?, user("driver")?, user("boss")?);
            has_codes(&looker.call("speeds", json!({ "speeds": BRISK }))?.refusal()?, "1/54")?;
            has_codes(&looker.refused("ApplyEmergencyStop", json!({}))?, "1/54")?;
            driver.drive(robot, BRISK)?;
            looker.method("GetMeasuredJointAngles", json!({}))?;
            looker.method("Stop", json!({}))?;
            robot.sim.wait_for_standstill(LEFT.node, STILL)?;
            let pressed = Moment::now();
            driver.method("ApplyEmergencyStop", json!({}))?;
            has_codes(&looker.refused("ClearFaults", json!({}))?, "1/54")?;
            // Whatever its role: no client resets what waits for an operator.
            has_codes(&driver.refused("ClearFaults", json!({}))?, "3/22")?;
            has_codes(&boss.refused("ClearFaults", json!({}))?, "3/22")?;
            let trip = robot.lanyard.wait_for_trip(pressed, "operator stop", LEFT.name, STILL)?;
            for motor in [&LEFT, &RIGHT] {
                robot.verified(motor)?;
            }
            robot.lanyard.reset(trip.trip().context("a trip without number")?)?;
            driver.acknowledge("ClearFaults")?;
            driver.drive(robot, BRISK)?;

            let listed = robot.lanyard.run(&["keys", "--file", &keys.display().to_string(), "list"])?.stdout;
            let line = listed.lines().find(|line| line.contains("driver")).context("no key in the list")?;
            let id = line.split_whitespace().next().context("no id")?;
            let from = Moment::now();
            robot.lanyard.run(&["keys", "--file", &keys.display().to_string(), "revoke", id])?;
            for motor in [&LEFT, &RIGHT] {
                // The file is looked at each second; then the connection ends, with all that hangs on it.
                robot.listener.wait_for_stop(motor, from, STILL)?;
                robot.lanyard.wait_for_trip(from, "client connection ended", motor.name, STILL)?;
                robot.verified(motor)?;
            }
            expect::within(STILL, "its connection is closed", || {
                let state = driver.state().map_err(|error| format!("{error:#}"))?;
                if state["open"] == false { Ok(()) } else { Err(state.to_string()) }
            })?;
            looker.method("GetArmState", json!({})).map(drop)
        },
    )
}
