//! `--kortex`: an arm on CAN that a program for Kinova's arms drives, as docs/kortex.md says. The program is killed, and
//! another one is paused.
//!
//! Kinova's own packages are in no registry: the program is `clients/kortex.py`, which does on the wire what they do.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{Act, NOTICED, PROMPT, Report, Timeline, act, show, stopped, wait_for_stops};
use crate::clock::Moment;
use crate::kortex::{BRISK, JOINTS, Ports, Program, Times, Transport};
use crate::python::Clients;
use crate::robot::{LEFT, RIGHT, Robot, START};
use crate::wire::Motor;

/// The motors of the joints.
const MOTORS: [Motor; 2] = [LEFT, RIGHT];
/// Several keep-alives of a program that has woken up.
const AWAKE: Duration = Duration::from_millis(500);

/// Plays all acts; what was measured until something fails is in the report.
pub fn play(bus: &str, programs: &Path, clients: &mut Clients, timeline: &mut Timeline) -> Report {
    let mut report = Report::default();
    let outcome = Ports::free().and_then(|ports| {
        timeline
            .say("starting simulated drives, lanyard-supervisor and lanyard-front with a [kortex] section:");
        for line in ports.section("").lines().filter(|line| !line.is_empty()) {
            timeline.line(&format!("               {line}"));
        }
        let setup = ports.robot("").on(bus).programs(programs).as_installed();
        let robot = setup.start().context("the robot does not start")?;
        let played = play_acts(&robot, &ports, clients, timeline, &mut report.acts);
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
    robot: &Robot,
    ports: &Ports,
    clients: &mut Clients,
    timeline: &mut Timeline,
    acts: &mut Vec<Act>,
) -> Result<()> {
    timeline.act("The program is killed");
    acts.push(killed(robot, ports, clients, timeline)?);
    timeline.act("Another program drives, and is paused");
    acts.push(paused(robot, ports, clients, timeline)?);
    Ok(())
}

/// A program that drives both joints, proven by the bus and by the shafts.
fn drive(robot: &Robot, ports: &Ports, clients: &mut Clients, timeline: &mut Timeline) -> Result<Program> {
    let mut program = Program::open(clients, ports, Transport::Tcp, Times::USUAL)?;
    program.drive(robot, BRISK)?;
    let speeds = program.method("GetMeasuredJointSpeeds", json!({}))?;
    let of = |joint: usize| speeds["joint_speeds"][joint]["value"].as_f64().unwrap_or(f64::NAN);
    let said: Vec<String> = (0..JOINTS.len()).map(|joint| format!("{:.0}", of(joint))).collect();
    timeline.say(&format!(
        "CreateSession, SendJointSpeedsCommand; GetMeasuredJointSpeeds: {} deg/s",
        said.join(", ")
    ));
    Ok(program)
}

fn killed(robot: &Robot, ports: &Ports, clients: &mut Clients, timeline: &mut Timeline) -> Result<Act> {
    let mut program = drive(robot, ports, clients, timeline)?;
    let death = program.kill()?;
    timeline
        .at(death, "SIGKILL for the program: its kernel closes its connection, and with it goes its session");
    let stops = wait_for_stops(robot, &MOTORS, death, NOTICED + PROMPT)?;
    show(timeline, &stops, death);
    let trip = robot.lanyard.wait_for_trip(death, "client connection ended", LEFT.name, START)?;
    act("program killed", robot, timeline, &stops, trip.last_beat(), death)
}

fn paused(robot: &Robot, ports: &Ports, clients: &mut Clients, timeline: &mut Timeline) -> Result<Act> {
    let mut program = drive(robot, ports, clients, timeline)?;
    let session = program.state()?["session"].clone();
    let asleep = Moment::now();
    program.signal(Signal::SIGSTOP)?;
    let mut stops = Vec::new();
    let mut last = None;
    for motor in &MOTORS {
        let (trip, stop) = robot.stopped_at_deadline(motor, asleep, Times::USUAL.window())?;
        last = last.or(trip.last_beat().zip(trip.deadline()));
        stops.push(stopped(robot, motor.clone(), stop.at)?);
    }
    let (last_beat, deadline) = last.context("no trip")?;
    timeline.at(last_beat, "its last frame");
    timeline.at(asleep, "SIGSTOP for the program: its connection stays open, and nothing comes over it");
    timeline.at(deadline, "deadline: connection_inactivity_timeout, 2 s, is over");
    show(timeline, &stops, deadline);
    let act = act("program paused", robot, timeline, &stops, Some(last_beat), deadline)?;
    program.signal(Signal::SIGCONT)?;
    std::thread::sleep(AWAKE);
    for stop in &stops {
        let frame = robot.listener.wait_for_stop(&stop.motor, stop.first, START)?;
        robot.no_motion_after(&stop.motor, &frame)?;
    }
    timeline.say("SIGCONT: its keep-alives go on, and nothing moves");
    let refusal = program.call("speeds", json!({ "speeds": BRISK }))?.refusal()?;
    timeline.say(&format!("its next command is refused: {}", refusal.message));
    program.drive_again(robot, BRISK)?;
    ensure!(program.state()?["session"] == session, "its session was not the same");
    timeline.say("it calls Stop, and what it commands after that drives again, in the same session");
    Ok(act)
}
