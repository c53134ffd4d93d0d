//! Links over UDP to a cannelloni: datagrams of CAN frames, one client at a time, and none that is lost sight of.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::clock::Moment;
use tests::expect;
use tests::python::Clients;
use tests::robot::{LEFT, Robot, STILL};
use tests::tunnel::{BRISK, EVERY, Program, Site, Target, WINDOW, is_gone};
use tests::wire::Motor;

use crate::scene::{no_stop_for, play};
use crate::tunnel::AT_ONCE;

/// Everything that a test of cannelloni has.
struct Scene<'a> {
    robot: &'a mut Robot,
    clients: &'a mut Clients,
    site: Site,
    end: Target,
    program: Program,
    address: String,
}

impl Scene<'_> {
    /// A socket towards the listener.
    fn socket(&mut self, name: &str) -> Result<()> {
        self.program.ask("open_udp", json!({ "name": name, "address": self.address })).map(drop)
    }

    /// Has a motor turn over a socket until it is closed.
    fn drives(&mut self, name: &str) -> Result<()> {
        let from = Moment::now();
        let turn = json!({ "name": name, "node": LEFT.node, "speed": BRISK, "every": EVERY });
        self.program.ask("stream_datagrams", turn)?;
        self.robot.moves(&LEFT, from, BRISK)
    }

    /// Silence has stopped the motor at the deadline.
    fn stopped(&mut self, from: Moment) -> Result<()> {
        let (_, stop) = self.robot.stopped_at_deadline(&LEFT, from, WINDOW)?;
        self.robot.verified(&LEFT)?;
        self.robot.no_motion_after(&LEFT, &stop)
    }

    fn stats(&mut self) -> Result<serde_json::Value> {
        self.program.stats(&self.site, "udp", &self.address)
    }
}

fn play_udp(motors: &[Motor], more: &str, act: impl FnOnce(&mut Scene<'_>) -> Result<()>) -> Result<()> {
    let site = Site::free()?;
    let target = site.cannelloni(motors, more);
    play(site.robot(motors, "", &target), |robot, clients| {
        let end = Target::cannelloni(clients, &site)?;
        let mut program = Program::idle(clients)?;
        let address = program.opened(&site, "udp")?;
        act(&mut Scene { robot, clients, site, end, program, address })
    })
}

/// Fails if a motor cannot be driven by datagrams, if nothing of the bus comes back, if datagrams do not come from the address
/// that the target sends to, or if silence does not stop the motor and end the listener.
#[test]
fn silence_stops_what_datagrams_drive() -> Result<()> {
    play_udp(&[LEFT], "", |scene| {
        scene.socket("one")?;
        scene.drives("one")?;
        no_stop_for(&scene.robot.listener, &LEFT, 2 * WINDOW)?;
        let back = scene.program.ask("hear_datagram", json!({ "name": "one" }))?;
        ensure!(back.as_str().is_some_and(|back| back.starts_with("0200")), "not of cannelloni's: {back}");
        let source = scene.site.source();
        for datagram in scene.end.seen(Moment::default())? {
            let from = format!("{}:{}", datagram[0][0].as_str().unwrap_or_default(), datagram[0][1]);
            ensure!(from == source, "a datagram from {from}, not from {source}");
        }
        let last = Moment::now();
        scene.program.ask("hang_up", json!({ "name": "one" }))?;
        scene.stopped(last)?;
        is_gone(&mut scene.program, &scene.site, "udp", &scene.address)?;
        let stats = scene.stats()?;
        ensure!(stats["state"] == "expired" && stats["trips"] == 1, "not expired once: {stats}");
        Ok(())
    })
}

/// Fails if datagrams of another address than the first go on to the target, or keep its link alive.
#[test]
fn foreign_datagrams_neither_pass_nor_beat() -> Result<()> {
    play_udp(&[LEFT], "", |scene| {
        scene.socket("one")?;
        scene.drives("one")?;
        scene.socket("two")?;
        let foreign = json!({ "name": "two", "node": LEFT.node, "speed": -BRISK, "every": EVERY / 4.0 });
        let from = Moment::now();
        scene.program.ask("stream_datagrams", foreign)?;
        no_stop_for(&scene.robot.listener, &LEFT, WINDOW)?;
        // Speed -2.0 as f32 ends with C0.
        let theirs = scene.robot.listener.first(from, |frame| LEFT.drives(frame) && frame.data[3] == 0xC0)?;
        ensure!(theirs.is_none(), "{theirs:?} is of the other one");
        ensure!(scene.stats()?["refused"].as_u64().is_some_and(|refused| refused > 0), "not counted");
        let last = Moment::now();
        scene.program.ask("hang_up", json!({ "name": "one" }))?;
        scene.stopped(last)
    })
}

/// Fails if another address can take the listener earlier than it may, later never, or without a new start.
#[test]
fn another_address_takes_over_after_enough_silence() -> Result<()> {
    play_udp(&[LEFT], "relock = \"4s\"\nafter_expiry = \"wait\"", |scene| {
        scene.socket("one")?;
        scene.drives("one")?;
        let last = Moment::now();
        scene.program.ask("hang_up", json!({ "name": "one" }))?;
        scene.socket("two")?;
        let frames = json!({ "name": "two", "node": LEFT.node, "speed": BRISK });
        scene.stopped(last)?;
        // Not before four seconds of silence; a rig that stood still meanwhile has nothing to show here.
        let early = Moment::now();
        scene.program.ask("send_frames", frames)?;
        if Moment::now().millis_since(last) < 3_500.0 {
            std::thread::sleep(WINDOW / 4);
            let moved = scene.robot.listener.last_drive(&LEFT, early)?;
            ensure!(moved.is_none(), "it took over too early: {moved:?}");
        }
        std::thread::sleep(2 * WINDOW);
        scene.drives("two")?;
        let last = Moment::now();
        scene.program.ask("hang_up", json!({ "name": "two" }))?;
        scene.stopped(last)
    })
}

/// Fails if a datagram with a defect goes on in part, or if one without frames keeps a link alive or opens one.
#[test]
fn only_whole_datagrams_with_frames_count() -> Result<()> {
    play_udp(&[LEFT], "", |scene| {
        scene.socket("one")?;
        let from = Moment::now();
        let velocity = u32::from(LEFT.node) << 5 | 0x0D;
        let sound = format!("{velocity:08x}080000004000000000");
        // A sound frame before one that is cut short; another version; bytes after the last frame; no frames.
        for wrong in [
            format!("0200000002{sound}{velocity:08x}0800"),
            format!("0100000001{sound}"),
            format!("0200000001{sound}00"),
            "0200000000".to_owned(),
        ] {
            scene.program.ask("send_datagram", json!({ "name": "one", "data": wrong }))?;
        }
        std::thread::sleep(WINDOW / 2);
        let driven = scene.robot.listener.first(from, |frame| LEFT.drives(frame))?;
        ensure!(driven.is_none(), "{driven:?}");
        ensure!(scene.robot.lanyard.status()?["sessions"].as_array().is_some_and(Vec::is_empty), "a session");
        scene.drives("one")?;
        let last = Moment::now();
        scene.program.ask("hang_up", json!({ "name": "one" }))?;
        scene.stopped(last)
    })
}

/// Fails if closing the listener leaves the motor turning, or if datagrams still pass.
#[test]
fn closing_a_listener_ends_its_datagrams() -> Result<()> {
    play_udp(&[LEFT], "", |scene| {
        scene.socket("one")?;
        scene.drives("one")?;
        let mut office = Program::idle(scene.clients)?;
        let from = Moment::now();
        ensure!(office.close(&scene.site, "udp", &scene.address)? == 204, "not closed");
        // The session was over before the answer came; how long the way to that takes is the program's own matter.
        let answered = Moment::now();
        let stop = scene.robot.listener.wait_for_stop(&LEFT, from, STILL)?;
        scene.robot.is_prompt(answered, AT_ONCE, &stop)?;
        scene.robot.lanyard.wait_for_trip(from, "listener closed", LEFT.name, STILL)?;
        scene.robot.verified(&LEFT)?;
        let closed = Moment::now();
        std::thread::sleep(WINDOW);
        ensure!(scene.end.seen(closed)?.is_empty(), "datagrams still reach the target");
        expect::within(STILL, "it stands still", || {
            let speed = scene.robot.sim.report(LEFT.node).map_err(|error| format!("{error:#}"))?.velocity();
            if speed.abs() < 0.05 { Ok(()) } else { Err(speed.to_string()) }
        })
    })
}
