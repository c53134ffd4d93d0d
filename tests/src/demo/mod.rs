//! The demo: a robot that is driven by a real client, and what becomes of it when something dies.
//!
//! Every figure is measured by the witness on the bus; the supervisor's own report only says when the last
//! beat was and when the deadline. What is claimed is checked, and the demo fails if it does not hold.

pub mod behind;
pub mod kortex;
mod timeline;
pub mod tunnel;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::clock::Moment;
use crate::python::{Client, Clients};
use crate::robot::{ARM, LEFT, MOVE, RIGHT, Robot, START, STILL, Setup};
use crate::simulation;
use crate::wire::Motor;
pub use timeline::Timeline;

/// The motors, in the order they are shown.
const MOTORS: [Motor; 3] = [LEFT, RIGHT, ARM];

/// The window of client sessions, Viam's default.
const WINDOW: Duration = Duration::from_secs(2);
/// `front_window`, and how much longer a killed front may go unnoticed on a machine with one busy
/// processor. Its death is noticed by the kernel's word on the process, so the window is rarely needed.
const FRONT_WINDOW: Duration = Duration::from_millis(250);
const FRONT_MARGIN: Duration = Duration::from_millis(100);
/// The most that may lie between SIGTERM and the first stop frames: a signal wakes the real-time thread
/// like a frame does.
const PROMPT: Duration = Duration::from_millis(50);
/// How long the loss of a killed process may go unnoticed: its connections end with it.
const NOTICED: Duration = Duration::from_millis(250);

/// What the demo has measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The acts that were played.
    pub acts: Vec<Act>,
    /// Whether everything held.
    pub ok: bool,
    /// What did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One act. Where motors differ, the figure is that of the slowest.
#[derive(Debug, Serialize)]
pub struct Act {
    /// What died.
    pub name: &'static str,
    /// From the last beat, of the session or of the front, to the first stop frame on the bus.
    pub last_beat_to_stop_ms: Option<f64>,
    /// From the deadline to the first stop frame on the bus. When a process died that owed no beat, the
    /// deadline is the moment of its death, or of its order to end.
    pub deadline_to_stop_us: f64,
    /// The motors.
    pub motors: Vec<MotorReport>,
}

/// What became of one motor.
#[derive(Debug, Serialize)]
pub struct MotorReport {
    /// Its name.
    pub name: &'static str,
    /// Its first stop frames in the notation of `cansend`.
    pub stop_frames: Vec<String>,
    /// Whether its standstill was proven by its own feedback, and is true.
    pub standstill_verified: bool,
    /// From its first stop frame to that proof.
    pub standstill_ms: f64,
}

/// A motor's first stop frames as they were seen.
#[derive(Debug)]
struct Stopped {
    motor: Motor,
    frames: Vec<String>,
    first: Moment,
}

/// Plays all acts; what was measured until something fails is in the report.
pub fn play(setup: Setup, clients: &mut Clients, timeline: &mut Timeline) -> Report {
    let mut report = Report::default();
    let setup = setup.with(&ARM).as_installed();
    timeline.say("starting simulated drives, lanyard-supervisor and lanyard-front");
    let outcome = setup.start().context("the robot does not start").and_then(|mut robot| {
        let played = play_acts(&mut robot, clients, timeline, &mut report.acts);
        played.with_context(|| format!("the programs have printed:\n{}", robot.printed()))
    });
    match outcome {
        Ok(()) => report.ok = true,
        Err(error) => {
            timeline.say(&format!("FAILED: {error:#}"));
            report.error = Some(format!("{}", error.root_cause()));
        }
    }
    report
}

fn play_acts(
    robot: &mut Robot,
    clients: &mut Clients,
    timeline: &mut Timeline,
    acts: &mut Vec<Act>,
) -> Result<()> {
    timeline.say("armed: every motor was stopped first, nothing may move without a live session");
    timeline.act("The client is killed");
    acts.push(client_killed(robot, clients, timeline)?);
    timeline.act("A new client drives, and the front is killed");
    acts.push(front_killed(robot, clients, timeline)?);
    timeline.act("The front is started again, and the supervisor is told to end");
    robot.start_front()?;
    acts.push(supervisor_terminated(robot, clients, timeline)?);
    Ok(())
}

/// A client that drives everything, proven by the bus and by the shafts.
fn drive(robot: &Robot, clients: &mut Clients, timeline: &mut Timeline) -> Result<Client> {
    let mut client = robot.client(clients)?;
    robot.drive_base(&mut client)?;
    robot.drive(&mut client, &ARM, 0.4)?;
    for motor in &MOTORS {
        robot.sim.wait_for_speed(motor.node, 1.9, MOVE)?;
    }
    let speeds = MOTORS.map(|motor| {
        let speed = robot.sim.report(motor.node).map_or(f64::NAN, |report| report.velocity());
        format!("{} {speed:.2}", motor.name)
    });
    timeline.say(&format!("an unmodified viam-sdk client drives base1 and arm: {} rev/s", speeds.join(", ")));
    Ok(client)
}

fn client_killed(robot: &Robot, clients: &mut Clients, timeline: &mut Timeline) -> Result<Act> {
    let mut client = drive(robot, clients, timeline)?;
    let Expired { last_beat, deadline, stops } = expired(robot, &mut client, &MOTORS, timeline)?;
    act("client killed", robot, timeline, &stops, Some(last_beat), deadline)
}

/// What a client's silence has come to.
struct Expired {
    last_beat: Moment,
    deadline: Moment,
    stops: Vec<Stopped>,
}

/// Kills a client and waits for the stops of what it drove.
fn expired(robot: &Robot, client: &mut Client, motors: &[Motor], timeline: &mut Timeline) -> Result<Expired> {
    let death = client.kill()?;
    let mut stops = Vec::new();
    let mut last = None;
    for motor in motors {
        let (trip, stop) = robot.stopped_at_deadline(motor, death, WINDOW)?;
        last = last.or(trip.last_beat().zip(trip.deadline()));
        stops.push(stopped(robot, motor.clone(), stop.at)?);
    }
    let (last_beat, deadline) = last.context("no trip")?;
    timeline.at(last_beat, "the last heartbeat of its session");
    timeline.at(death, "SIGKILL for the client");
    timeline.at(deadline, "deadline: the heartbeat window of 2 s is over");
    show(timeline, &stops, deadline);
    Ok(Expired { last_beat, deadline, stops })
}

fn front_killed(robot: &mut Robot, clients: &mut Clients, timeline: &mut Timeline) -> Result<Act> {
    let client = drive(robot, clients, timeline)?;
    let death = Moment::now();
    robot.front()?.kill()?;
    timeline.at(death, "SIGKILL for lanyard-front; its client is alive and well");
    let stops = wait_for_stops(robot, &MOTORS, death, FRONT_WINDOW + FRONT_MARGIN)?;
    let trip = robot.lanyard.wait_for_trip(death, "front dead", LEFT.name, START)?;
    show(timeline, &stops, death);
    drop(client);
    act("front killed", robot, timeline, &stops, trip.last_beat(), death)
}

fn supervisor_terminated(robot: &mut Robot, clients: &mut Clients, timeline: &mut Timeline) -> Result<Act> {
    let client = drive(robot, clients, timeline)?;
    // Asked before: afterwards there is nobody left to tell.
    let last_beat = robot.lanyard.last_beat()?;
    let told = Moment::now();
    robot.supervisor()?.signal(Signal::SIGTERM)?;
    timeline.at(told, "SIGTERM for lanyard-supervisor");
    let stops = wait_for_stops(robot, &MOTORS, told, PROMPT)?;
    show(timeline, &stops, told);
    // Nobody is left to ask for a proof afterwards: the shafts themselves are looked at.
    let mut motors = Vec::new();
    for stop in &stops {
        robot.sim.wait_for_standstill(stop.motor.node, STILL)?;
        motors.push((stop, Moment::now()));
    }
    let ended = robot.supervisor()?.wait(START)?;
    let proven = ended.printed.iter().any(|line| line.contains("proven to stand still"));
    ensure!(ended.code == Some(0) && proven, "the supervisor ended with {ended:?}");
    timeline.say("lanyard-supervisor: every motor is proven to stand still; exit code 0");
    drop(client);
    let motors = motors.into_iter().map(|(stop, still)| report(stop, still)).collect();
    figures("supervisor terminated", &stops, last_beat, told, motors)
}

fn wait_for_stops(robot: &Robot, motors: &[Motor], from: Moment, limit: Duration) -> Result<Vec<Stopped>> {
    let mut stops = Vec::new();
    for motor in motors {
        let stop = robot.listener.wait_for_stop(motor, from, START)?;
        robot.is_prompt(from, limit, &stop)?;
        stops.push(stopped(robot, motor.clone(), stop.at)?);
    }
    Ok(stops)
}

/// The whole set of a motor's stop frames, the first of which was seen at `first`.
fn stopped(robot: &Robot, motor: Motor, first: Moment) -> Result<Stopped> {
    let set = robot.listener.wait_for_stop_set(&motor, first, STILL)?;
    Ok(Stopped { motor, frames: set.iter().map(ToString::to_string).collect(), first })
}

fn show(timeline: &mut Timeline, stops: &[Stopped], deadline: Moment) {
    for stop in stops {
        let late = stop.first.millis_since(deadline);
        let frames = stop.frames.join(" ");
        timeline.at(stop.first, &format!("{}: {frames} on the bus, {late:.3} ms later", stop.motor.name));
    }
}

/// Waits for the proof of every motor's standstill.
fn proven(robot: &Robot, timeline: &mut Timeline, stops: &[Stopped]) -> Result<Vec<MotorReport>> {
    let mut motors = Vec::new();
    for stop in stops {
        let status = robot.verified(&stop.motor)?;
        let still = status.standstill().context("no moment of standstill")?;
        ensure!(still > stop.first, "{} is called still since before its stop", stop.motor.name);
        let speed = robot.sim.report(stop.motor.node)?.velocity();
        ensure!(speed.abs() < simulation::STILL, "{} still turns at {speed} rev/s", stop.motor.name);
        timeline.at(still, &format!("{}: proven to stand still by its own feedback", stop.motor.name));
        motors.push(report(stop, still));
    }
    Ok(motors)
}

/// Waits for the proof of every motor's standstill, and sees that nobody moves one after its stop.
fn act(
    name: &'static str,
    robot: &Robot,
    timeline: &mut Timeline,
    stops: &[Stopped],
    last_beat: Option<Moment>,
    deadline: Moment,
) -> Result<Act> {
    let motors = proven(robot, timeline, stops)?;
    for stop in stops {
        let frame = robot.listener.wait_for_stop(&stop.motor, stop.first, START)?;
        robot.no_motion_after(&stop.motor, &frame)?;
    }
    timeline.say("and no motion frame since");
    figures(name, stops, last_beat, deadline, motors)
}

fn figures(
    name: &'static str,
    stops: &[Stopped],
    last_beat: Option<Moment>,
    deadline: Moment,
    motors: Vec<MotorReport>,
) -> Result<Act> {
    let slowest = stops.iter().map(|stop| stop.first).max().unwrap_or(deadline);
    let act = Act {
        name,
        last_beat_to_stop_ms: last_beat.map(|beat| round(slowest.millis_since(beat))),
        deadline_to_stop_us: round(slowest.millis_since(deadline) * 1e3),
        motors,
    };
    ensure!(act.deadline_to_stop_us >= 0.0, "stopped before the deadline");
    Ok(act)
}

fn report(stop: &Stopped, still: Moment) -> MotorReport {
    MotorReport {
        name: stop.motor.name,
        stop_frames: stop.frames.clone(),
        standstill_verified: true,
        standstill_ms: round(still.millis_since(stop.first)),
    }
}

/// To three decimals.
fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}
