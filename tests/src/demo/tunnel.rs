//! `--tunnel`: a program that knows nothing of Lanyard drives two motors over CAN through a link that it was given by hoprd's
//! session API, as docs/tunnels.md says. It is killed, another one is paused, and a third one's link is closed.
//!
//! The program is python-can's own client of socketcand; what is at the end of the link stands in for a socketcand, which is
//! in no registry.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{Act, NOTICED, PROMPT, Report, Timeline, act, show, stopped, wait_for_stops};
use crate::clock::Moment;
use crate::python::Clients;
use crate::robot::{LEFT, RIGHT, Robot, START};
use crate::tunnel::{Program, Site, Target, WINDOW, is_gone};
use crate::wire::Motor;

/// The motors behind the target.
const MOTORS: [Motor; 2] = [LEFT, RIGHT];
/// What a program that has woken up would need to be heard again.
const AWAKE: Duration = Duration::from_millis(500);

/// What the acts share.
struct Scene<'a> {
    robot: Robot,
    clients: &'a mut Clients,
    site: Site,
    target: Target,
    office: Program,
    timeline: &'a mut Timeline,
}

/// Plays all acts; what was measured until something fails is in the report.
pub fn play(bus: &str, programs: &Path, clients: &mut Clients, timeline: &mut Timeline) -> Report {
    let mut report = Report::default();
    let outcome = set_up(bus, programs, clients, timeline).and_then(|mut scene| {
        let played = play_acts(&mut scene, &mut report.acts);
        played.with_context(|| format!("the programs have printed:\n{}", scene.robot.printed()))
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

fn set_up<'a>(
    bus: &str,
    programs: &Path,
    clients: &'a mut Clients,
    timeline: &'a mut Timeline,
) -> Result<Scene<'a>> {
    let site = Site::free()?;
    let target = Site::socketcand(&MOTORS, "");
    timeline.say("starting simulated drives, lanyard-supervisor and lanyard-front with a [tunnel] section:");
    for line in site.section("", &target).lines().filter(|line| !line.is_empty()) {
        timeline.line(&format!("               {line}"));
    }
    let setup = site.robot(&MOTORS, "", &target).on(bus).programs(programs).as_installed();
    let robot = setup.start().context("the robot does not start")?;
    let target = Target::socketcand(clients, &site)?;
    let office = Program::idle(clients)?;
    Ok(Scene { robot, clients, site, target, office, timeline })
}

fn play_acts(scene: &mut Scene<'_>, acts: &mut Vec<Act>) -> Result<()> {
    scene.timeline.act("The program is killed");
    acts.push(killed(scene)?);
    scene.timeline.act("Another program drives, and is paused");
    acts.push(paused(scene)?);
    scene.timeline.act("A third program drives, and its listener is closed");
    acts.push(closed(scene)?);
    Ok(())
}

/// A program that drives both motors, proven by the bus and by the shafts; and where its listener is.
fn drive(scene: &mut Scene<'_>) -> Result<(Program, String)> {
    let mut program = Program::idle(scene.clients)?;
    let address = program.opened(&scene.site, "tcp")?;
    scene
        .timeline
        .say(&format!("POST /api/v3/session/tcp for {}: a listener at {address}", scene.site.target()));
    program.open_bus(&address)?;
    program.ask("listen", json!({}))?;
    program.turn(&scene.robot, &MOTORS)?;
    for motor in &MOTORS {
        scene.robot.sim.wait_for_speed(motor.node, 1.9, START)?;
    }
    scene
        .timeline
        .say("an unmodified python-can connects there as to a socketcand, and drives both motors: 2 rev/s");
    Ok((program, address))
}

fn killed(scene: &mut Scene<'_>) -> Result<Act> {
    let (mut program, _) = drive(scene)?;
    let death = program.kill()?;
    scene.timeline.at(death, "SIGKILL for the program: its kernel closes its connection");
    let stops = wait_for_stops(&scene.robot, &MOTORS, death, NOTICED + PROMPT)?;
    show(scene.timeline, &stops, death);
    let trip = scene.robot.lanyard.wait_for_trip(death, "client connection ended", LEFT.name, START)?;
    act("program killed", &scene.robot, scene.timeline, &stops, trip.last_beat(), death)
}

fn paused(scene: &mut Scene<'_>) -> Result<Act> {
    let (program, address) = drive(scene)?;
    let asleep = Moment::now();
    program.signal(Signal::SIGSTOP)?;
    let mut stops = Vec::new();
    let mut last = None;
    for motor in &MOTORS {
        let (trip, stop) = scene.robot.stopped_at_deadline(motor, asleep, WINDOW)?;
        last = last.or(trip.last_beat().zip(trip.deadline()));
        stops.push(stopped(&scene.robot, motor.clone(), stop.at)?);
    }
    let (last_beat, deadline) = last.context("no trip")?;
    let cut = scene.target.wait_for_end(asleep)?;
    scene.timeline.at(last_beat, "its last command");
    scene
        .timeline
        .at(asleep, "SIGSTOP for the program: its connection stays open, and nothing comes over it");
    scene.timeline.at(cut, "the target's connection is reset: nothing that was on its way goes on");
    let window = WINDOW.as_millis();
    scene.timeline.at(deadline, &format!("deadline: the window of the target, {window} ms, is over"));
    show(scene.timeline, &stops, deadline);
    let act = act("program paused", &scene.robot, scene.timeline, &stops, Some(last_beat), deadline)?;
    is_gone(&mut scene.office, &scene.site, "tcp", &address)?;
    program.signal(Signal::SIGCONT)?;
    std::thread::sleep(AWAKE);
    for stop in &stops {
        let frame = scene.robot.listener.wait_for_stop(&stop.motor, stop.first, START)?;
        scene.robot.no_motion_after(&stop.motor, &frame)?;
    }
    scene.timeline.say("SIGCONT: its commands reach nobody, and GET does not list its listener any more");
    Ok(act)
}

fn closed(scene: &mut Scene<'_>) -> Result<Act> {
    let (_program, address) = drive(scene)?;
    let from = Moment::now();
    let status = scene.office.close(&scene.site, "tcp", &address)?;
    ensure!(status == 204, "DELETE was answered with {status}");
    let answered = Moment::now();
    scene.timeline.at(from, "DELETE /api/v3/session/tcp/...: the operator ends the link");
    let mut stops = Vec::new();
    for motor in &MOTORS {
        let stop = scene.robot.listener.wait_for_stop(motor, from, START)?;
        // The request itself takes the client's time.
        scene.robot.is_prompt(answered, PROMPT, &stop)?;
        stops.push(stopped(&scene.robot, motor.clone(), stop.at)?);
    }
    show(scene.timeline, &stops, from);
    scene.timeline.at(answered, "204: the link is cut");
    let trip = scene.robot.lanyard.wait_for_trip(from, "listener closed", LEFT.name, START)?;
    act("listener closed", &scene.robot, scene.timeline, &stops, trip.last_beat(), from)
}
