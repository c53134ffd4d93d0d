//! Links over TCP to a socketcand: python-can drives a motor through a listener that was asked for over hoprd's session API, and
//! falls silent in every way there is.
//!
//! What is common to all tests of tunnels is here, too.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::bound::ensure_within;
use tests::clock::Moment;
use tests::python::Clients;
use tests::robot::{LATE, LEFT, RIGHT, Robot, STILL, Setup};
use tests::tunnel::{BRISK, CUT, EVERY, Network, Program, Site, Target, WINDOW, is_gone};
use tests::wire::{Motor, Seen};

use crate::scene::{no_stop_for, play};

/// Everything that a test of tunnels has.
pub struct Scene<'a> {
    pub robot: &'a mut Robot,
    pub clients: &'a mut Clients,
    pub site: Site,
    /// What is at the end of the tunnel.
    pub target: Target,
    /// Who asks what there is, and lives on.
    pub office: Program,
}

impl Scene<'_> {
    /// A program that has opened a listener of TCP and drives over it; and where that is.
    pub fn driver(&mut self, motors: &[Motor]) -> Result<(Program, String)> {
        let mut program = Program::idle(self.clients)?;
        let address = program.opened(&self.site, "tcp")?;
        program.open_bus(&address)?;
        program.ask("listen", json!({}))?;
        program.turn(self.robot, motors)?;
        Ok((program, address))
    }

    /// Silence has cut the link, then stopped the motors at the deadline, and closed the listener, which everybody sees.
    pub fn cut_and_stopped(&mut self, motors: &[Motor], from: Moment, address: &str) -> Result<Vec<Seen>> {
        let mut stops = Vec::new();
        for motor in motors {
            let (_, stop) = self.robot.stopped_at_deadline(motor, from, WINDOW)?;
            stops.push(stop);
        }
        self.was_cut_before(motors, &stops, from, address)?;
        Ok(stops)
    }

    /// The link was cut before these stops, nothing came after them, and the listener is closed.
    pub fn was_cut_before(
        &mut self,
        motors: &[Motor],
        stops: &[Seen],
        from: Moment,
        address: &str,
    ) -> Result<()> {
        let first = stops.iter().map(|stop| stop.at).min().context("no motors")?;
        let end = self.target.wait_for_end(from)?;
        println!("the target saw the cut {:.3} ms before the first stop frame", first.millis_since(end));
        // It is made 20 ms before; when the server gets to see it is for the scheduler of a rig that may stand still.
        let stalled = self.robot.stalls.between(from, first.max(end));
        ensure!(
            end <= first + stalled,
            "the target was cut {:.3} ms after the stop",
            end.millis_since(first)
        );
        self.target.got_no_command_since(end)?;
        is_gone(&mut self.office, &self.site, "tcp", address)?;
        let stats = self.office.stats(&self.site, "tcp", address)?;
        ensure!(stats["state"] == "expired" && stats["trips"] == 1, "not expired once: {stats}");
        for (motor, stop) in motors.iter().zip(stops) {
            self.robot.verified(motor)?;
            self.robot.no_motion_after(motor, stop)?;
        }
        Ok(())
    }

    /// The end of a link, which came after `from` and not after `ended`, has stopped the motors at once, for its own
    /// reason, and for good.
    pub fn stopped_at_once(
        &mut self,
        reason: &str,
        motors: &[Motor],
        from: Moment,
        ended: Moment,
    ) -> Result<()> {
        for motor in motors {
            let stop = self.robot.listener.wait_for_stop(motor, from, STILL)?;
            self.robot.is_prompt(ended, AT_ONCE, &stop)?;
            self.robot.lanyard.wait_for_trip(from, reason, motor.name, STILL)?;
            self.rests(motor, from, ended)?;
        }
        Ok(())
    }

    /// A motor has come to rest and stays there: what was on its way when its link ended was outrun.
    pub fn rests(&mut self, motor: &Motor, from: Moment, ended: Moment) -> Result<()> {
        self.robot.verified(motor)?;
        let stop = self.robot.listener.wait_for_stop(motor, from, STILL)?;
        let last = self.robot.listener.last_drive(motor, stop.at)?;
        if let Some(last) = last {
            println!(
                "a frame that was under way came {:.3} ms after the stop",
                last.at.millis_since(stop.at)
            );
            let stalled = self.robot.stalls.between(ended, last.at);
            ensure_within(last.at.since(ended), AT_ONCE + stalled, || {
                format!("{last} moves {} after {stop}", motor.name)
            })?;
        }
        Ok(())
    }
}

/// What "at once" is for the end of a connection: the kernel tells the front, the front the supervisor.
pub const AT_ONCE: Duration = Duration::from_millis(200);

/// Plays with a robot of these motors behind a socketcand.
pub fn play_tunnel(
    motors: &[Motor],
    keys: &str,
    target: &str,
    act: impl FnOnce(&mut Scene<'_>) -> Result<()>,
) -> Result<()> {
    play_changed(motors, keys, &Site::socketcand(motors, target), |setup| setup, act)
}

/// The same with another configuration of the robot and of the target.
pub fn play_changed(
    motors: &[Motor],
    keys: &str,
    target: &str,
    change: impl FnOnce(Setup) -> Setup,
    act: impl FnOnce(&mut Scene<'_>) -> Result<()>,
) -> Result<()> {
    let site = Site::free()?;
    play(change(site.robot(motors, keys, target)), |robot, clients| {
        let target = Target::socketcand(clients, &site)?;
        let office = Program::idle(clients)?;
        act(&mut Scene { robot, clients, site, target, office })
    })
}

/// Fails if python-can cannot drive through a listener, is stopped while it does, goes on for longer than its window after
/// its death, if the link is not cut before the stop, or if the listener lives on.
#[test]
fn killed_program_is_cut_and_its_motors_stopped() -> Result<()> {
    play_tunnel(&[LEFT, RIGHT], "", "", |scene| {
        let (mut program, address) = scene.driver(&[LEFT, RIGHT])?;
        no_stop_for(&scene.robot.listener, &LEFT, 2 * WINDOW)?;
        let heard = program.ask("heard_frames", json!({}))?.as_u64();
        ensure!(heard.is_some_and(|heard| heard > 0), "nothing of the bus came back");
        ensure!(scene.office.listed(&scene.site, "tcp")? == [address.clone()], "not in the list");
        let stats = scene.office.stats(&scene.site, "tcp", &address)?;
        ensure!(stats["state"] == "active" && stats["activeLinks"] == 1, "not active: {stats}");
        let death = program.kill()?;
        scene.stopped_at_once("client connection ended", &[LEFT, RIGHT], death, death)?;
        scene.target.wait_for_end(death)?;
        // Its kernel has said goodbye for it: nobody fell silent, and the listener is there for the next one.
        let mut next = Program::idle(scene.clients)?;
        next.open_bus(&address)?;
        next.turn(scene.robot, &[LEFT])
    })
}

/// Fails if a program that is suspended goes on driving after its window, if what it sends when it wakes moves anything, or
/// if it can go on without asking for a new listener.
#[test]
fn suspended_program_is_cut_and_must_ask_anew() -> Result<()> {
    play_tunnel(&[LEFT, RIGHT], "", "", |scene| {
        let (mut program, address) = scene.driver(&[LEFT, RIGHT])?;
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        let stops = scene.cut_and_stopped(&[LEFT, RIGHT], asleep, &address)?;
        program.signal(Signal::SIGCONT)?;
        program.ask("bus_is_over", json!({}))?;
        std::thread::sleep(WINDOW);
        scene.robot.no_motion_after(&LEFT, &stops[0])?;
        scene.robot.no_motion_after(&RIGHT, &stops[1])?;
        let refused = program.call("dial", json!({ "name": "again", "address": address }))?.refusal()?;
        ensure!(refused.kind == "ConnectionRefusedError", "the old listener: {refused:?}");
        ensure!(scene.office.close(&scene.site, "tcp", &address)? == 404, "it could be closed once more");
        scene.driver(&[LEFT, RIGHT]).map(drop)
    })
}

/// Fails if a program whose network is gone, so that not even its kernel can say goodbye, drives on after its window.
#[test]
fn program_whose_network_is_gone_is_cut() -> Result<()> {
    play_tunnel(&[LEFT], "clients = \"anybody\"", "", |scene| {
        let network = Network::with("10.99.0.1")?;
        let mut program = Program::idle(scene.clients)?;
        let address = program.opened(&scene.site, "tcp")?;
        program.ask("dial", json!({ "name": "far", "address": address, "source": network.address() }))?;
        program.ask("handshake", json!({ "name": "far", "channel": "vcan0" }))?;
        let from = Moment::now();
        let turn = json!({ "name": "far", "node": LEFT.node, "speed": BRISK, "every": EVERY });
        program.ask("stream", turn)?;
        scene.robot.moves(&LEFT, from, BRISK)?;
        let lost = Moment::now();
        drop(network);
        // Taking it away is the work of another program; what was sent meanwhile still came through.
        let gone = Moment::now();
        let trip = scene.robot.lanyard.wait_for_trip(lost, "session expired", LEFT.name, STILL)?;
        let (beat, deadline) = trip.last_beat().zip(trip.deadline()).context("no deadline")?;
        ensure!(deadline == beat + WINDOW, "the deadline is not the last command plus {WINDOW:?}");
        ensure!(beat <= gone + AT_ONCE, "a command came through after the network was gone");
        let stop = scene.robot.listener.wait_for_stop(&LEFT, lost, STILL)?;
        scene.robot.is_prompt(deadline, LATE, &stop)?;
        scene.was_cut_before(&[LEFT], &[stop], lost, &address)
    })
}

/// Fails if a job that the target's kernel repeats by itself is let in unless that is allowed.
#[test]
fn cyclic_jobs_are_refused() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        let mut program = Program::idle(scene.clients)?;
        let address = program.opened(&scene.site, "tcp")?;
        cyclic_link(&mut program, &address)?;
        let from = Moment::now();
        program.ask("say", json!({ "name": "jobs", "text": job(&LEFT) }))?;
        let refusal = "< error refused: it would go on without its client >";
        let said = program.ask("hear_text", json!({ "name": "jobs", "length": refusal.len() }))?;
        ensure!(said == refusal, "said {said}");
        std::thread::sleep(WINDOW);
        scene.target.got_no_command_since(from)?;
        let moved = scene.robot.listener.first(from, |frame| LEFT.drives(frame))?;
        ensure!(moved.is_none(), "{moved:?} was sent all the same");
        // It is not held against the rest of what it says.
        program.ask("say", json!({ "name": "jobs", "text": "< echo >" }))?;
        let said = program.ask("hear_text", json!({ "name": "jobs", "length": 8 }))?;
        ensure!(said == "< echo >", "said {said}");
        Ok(())
    })
}

/// In BCM mode, as after opening a bus.
fn cyclic_link(program: &mut Program, address: &str) -> Result<()> {
    program.ask("dial", json!({ "name": "jobs", "address": address }))?;
    for (said, answer) in [("", "< hi >"), ("< open vcan0 >", "< ok >")] {
        program.ask("say", json!({ "name": "jobs", "text": said }))?;
        let heard = program.ask("hear_text", json!({ "name": "jobs", "length": answer.len() }))?;
        ensure!(heard == answer, "{heard} instead of {answer}");
    }
    Ok(())
}

/// Elements that get an ODrive ready.
fn ready(motor: &Motor) -> String {
    let id = u32::from(motor.node) << 5;
    format!("< send {:03X} 8 2 0 0 0 1 0 0 0 >< send {:03X} 4 8 0 0 0 >", id | 0x0B, id | 0x07)
}

/// An element that has the kernel of the target keep it turning every 10 ms.
fn job(motor: &Motor) -> String {
    // 2.0 as f32.
    format!("< add 0 10000 {:03X} 8 0 0 0 40 0 0 0 0 >", u32::from(motor.node) << 5 | 0x0D)
}

/// Fails if a job of the target's kernel that was allowed outlives the link of a silent client or of one that was closed, if it
/// follows the stop, or if it ends earlier than its client.
#[test]
fn cyclic_jobs_end_with_their_link() -> Result<()> {
    play_tunnel(&[LEFT], "", "cyclic = \"allow\"\nbeat = \"bytes\"", |scene| {
        for ends in ["silence", "closing"] {
            let mut program = Program::idle(scene.clients)?;
            let address = program.opened(&scene.site, "tcp")?;
            cyclic_link(&mut program, &address)?;
            let from = Moment::now();
            program.ask("say", json!({ "name": "jobs", "text": ready(&LEFT) + &job(&LEFT) }))?;
            scene.robot.moves(&LEFT, from, BRISK)?;
            // The kernel's frames are no sign of life; the client's echoes are.
            for _ in 0..20 {
                program.ask("say", json!({ "name": "jobs", "text": "< echo >" }))?;
                std::thread::sleep(WINDOW / 10);
            }
            let tripped = scene.robot.lanyard.events()?;
            ensure!(
                !tripped.iter().any(|event| event.kind() == "trip" && event.at() > from),
                "stopped while it said something"
            );
            program.ask("say", json!({ "name": "jobs", "text": "< echo >" }))?;
            let last = Moment::now();
            if ends == "silence" {
                scene.cut_and_stopped(&[LEFT], last, &address).context(ends)?;
            } else {
                ensure!(scene.office.close(&scene.site, "tcp", &address)? == 204, "not closed");
                scene.stopped_at_once("listener closed", &[LEFT], last, Moment::now()).context(ends)?;
            }
            // Long enough for a hundred of the job's frames.
            let stopped = Moment::now();
            std::thread::sleep(WINDOW);
            let late = scene.robot.listener.last_drive(&LEFT, stopped)?;
            ensure!(late.is_none(), "{ends}: the job goes on: {late:?}");
        }
        Ok(())
    })
}

/// Fails if closing a listener over the API leaves what it drives turning, with its own port or with port 0, or if the
/// program can go on.
#[test]
fn closing_a_listener_stops_what_it_drives() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        for all in [false, true] {
            let (mut program, address) = scene.driver(&[LEFT])?;
            let closed = if all { "127.0.0.1:0" } else { &address };
            let from = Moment::now();
            ensure!(scene.office.close(&scene.site, "tcp", closed)? == 204, "{closed} was not closed");
            scene
                .stopped_at_once("listener closed", &[LEFT], from, Moment::now())
                .context(closed.to_owned())?;
            ensure!(scene.office.listed(&scene.site, "tcp")?.is_empty(), "it is in the list still");
            ensure!(scene.office.close(&scene.site, "tcp", &address)? == 404, "closed twice");
            program.ask("bus_is_over", json!({}))?;
            scene.target.wait_for_end(from)?;
            let stats = scene.office.stats(&scene.site, "tcp", &address)?;
            ensure!(stats["state"] == "closed" && stats["trips"] == 0, "another end: {stats}");
        }
        Ok(())
    })
}

/// Fails if a program that only listens is cut, opens a session or moves anything.
#[test]
fn program_that_only_listens_is_not_watched() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        let mut program = Program::idle(scene.clients)?;
        let address = program.opened(&scene.site, "tcp")?;
        let from = Moment::now();
        program.open_bus(&address)?;
        program.ask("listen", json!({}))?;
        std::thread::sleep(2 * WINDOW + CUT);
        let heard = program.ask("heard_frames", json!({}))?.as_u64();
        ensure!(heard.is_some_and(|heard| heard > 10), "it has heard {heard:?} frames of the bus");
        let stats = scene.office.stats(&scene.site, "tcp", &address)?;
        ensure!(stats["state"] == "waiting" && stats["activeLinks"] == 1, "it is watched: {stats}");
        let moved = scene.robot.listener.first(from, |frame| LEFT.drives(frame) || LEFT.energises(frame))?;
        ensure!(moved.is_none(), "{moved:?}");
        // Silence was no fault: it may drive when it likes.
        program.turn(scene.robot, &[LEFT])
    })
}
