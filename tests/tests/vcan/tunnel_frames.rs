//! Links of CAN frames: which of them reach the bus, what keeps a motor moving, and what becomes of it when its target is gone.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::bound::ensure_within;
use tests::clock::Moment;
use tests::robot::{LEFT, RIGHT, STILL};
use tests::tunnel::{BRISK, EVERY, Program, Site, Target, WINDOW};

use crate::scene::{no_stop_for, play};
use crate::tunnel::{AT_ONCE, play_changed, play_tunnel};

/// Fails if a program that has a link for one motor moves another one, which somebody else drives over a link of its own; or
/// if either is disturbed by the attempt.
#[test]
fn link_for_one_motor_does_not_move_another() -> Result<()> {
    let site = Site::free()?;
    // The same server under another name, for the other motor.
    let other = site.target().replace("127.0.0.1", "localhost");
    let more = format!(
        "[[tunnel.target]]\nname = \"other\"\naddress = \"{other}\"\n{}",
        Site::socketcand(&[RIGHT], "")
    );
    let target = Site::socketcand(&[LEFT], &more);
    play(site.robot(&[LEFT, RIGHT], "", &target), |robot, clients| {
        let _server = Target::socketcand(clients, &site)?;
        let mut theirs = Program::idle(clients)?;
        let opened = theirs.create(&site, "tcp", &other)?;
        ensure!(opened.status == 200, "no listener: {opened:?}");
        theirs.open_bus(&format!("127.0.0.1:{}", opened.body["port"]))?;
        theirs.turn(robot, &[RIGHT])?;
        let mut ours = Program::idle(clients)?;
        let address = ours.opened(&site, "tcp")?;
        ours.open_bus(&address)?;
        ours.turn(robot, &[LEFT])?;
        let from = Moment::now();
        // Speed -3.0 as f32, little-endian.
        let data = "000040c000000000";
        for _ in 0..20 {
            ours.ask("send", json!({ "identifier": u32::from(RIGHT.node) << 5 | 0x0D, "data": data }))?;
        }
        no_stop_for(&robot.listener, &LEFT, WINDOW)?;
        no_stop_for(&robot.listener, &RIGHT, WINDOW / 4)?;
        let reached = robot.listener.first(from, |frame| RIGHT.drives(frame) && frame.data[3] == 0xC0)?;
        ensure!(reached.is_none(), "{reached:?} reached the bus");
        let stats = ours.stats(&site, "tcp", &address)?;
        let why = stats["reason"].as_str().unwrap_or_default();
        ensure!(stats["refused"] == 20 && stats["trips"] == 0, "not counted: {stats}");
        ensure!(why.contains(RIGHT.name), "not said: {stats}");
        Ok(())
    })
}

/// Fails if a frame that has nothing to do with a motor keeps it moving after its program has died, whatever is configured.
#[test]
fn unrelated_frames_keep_no_motor_moving() -> Result<()> {
    for keys in [
        "",
        "beat = \"commands\"",
        "beat = \"bytes\"",
        "require_progress = \"1s\"",
        "min_rate = 2\nbeat = \"commands\"\nrequire_progress = \"1s\"",
    ] {
        for also in ["", "also = [\"7A0\"]\n"] {
            play_tunnel(&[LEFT], "", &format!("{also}{keys}"), |scene| {
                let (mut program, _) = scene.driver(&[LEFT])?;
                program.ask("rest_silently", json!({}))?;
                let last = Moment::now();
                program.ask("noise", json!({ "identifier": 0x7A0, "every": EVERY }))?;
                let stop = scene.robot.listener.wait_for_stop(&LEFT, last, STILL)?;
                let stalled = scene.robot.stalls.between(last, stop.at);
                // The sender's thread may have been about to send once more.
                let limit = Duration::from_secs_f64(EVERY) + WINDOW + AT_ONCE + stalled;
                ensure_within(stop.at.since(last), limit, || format!("{stop} came late with {also}{keys}"))?;
                scene.robot.verified(&LEFT)?;
                scene.robot.no_motion_after(&LEFT, &stop)
            })?;
        }
    }
    Ok(())
}

/// Fails if a motor turns on that is driven by datagrams to a cannelloni that is dead.
#[test]
fn target_of_datagrams_that_dies_stops_what_was_driven() -> Result<()> {
    let site = Site::free()?;
    let target = site.cannelloni(&[LEFT], "");
    play(site.robot(&[LEFT], "", &target), |robot, clients| {
        let mut end = Target::cannelloni(clients, &site)?;
        let mut program = Program::idle(clients)?;
        let address = program.opened(&site, "udp")?;
        program.ask("open_udp", json!({ "name": "one", "address": address }))?;
        let from = Moment::now();
        let turn = json!({ "name": "one", "node": LEFT.node, "speed": BRISK, "every": EVERY });
        program.ask("stream_datagrams", turn)?;
        robot.moves(&LEFT, from, BRISK)?;
        let death = end.kill()?;
        let stop = robot.listener.wait_for_stop(&LEFT, death, STILL)?;
        // The next datagram finds nobody.
        robot.is_prompt(death + Duration::from_secs_f64(EVERY), AT_ONCE, &stop)?;
        robot.verified(&LEFT)?;
        robot.no_motion_after(&LEFT, &stop)?;
        let stats = program.stats(&site, "udp", &address)?;
        let why = stats["reason"].as_str().unwrap_or_default();
        ensure!(stats["state"] == "expired" && why.contains("its target is lost"), "not said: {stats}");
        Ok(())
    })
}

/// Fails if a cannelloni that only connects over TCP trips anything, if it cannot drive then, or if its silence is not seen.
#[test]
fn cannelloni_over_tcp_drives_after_its_greeting() -> Result<()> {
    let site = Site::free()?;
    let target = Site::cannelloni_over_tcp(&[LEFT]);
    play(site.robot(&[LEFT], "", &target), |robot, clients| {
        let _end = Target::cannelloni_over_tcp(clients, &site)?;
        let mut program = Program::idle(clients)?;
        let address = program.opened(&site, "tcp")?;
        program.ask("dial", json!({ "name": "one", "address": address }))?;
        program.ask("say", json!({ "name": "one", "text": "CANNELLONIv1" }))?;
        let heard = program.ask("hear_text", json!({ "name": "one", "length": 12 }))?;
        ensure!(heard == "CANNELLONIv1", "greeted with {heard}");
        std::thread::sleep(2 * WINDOW);
        let stats = program.stats(&site, "tcp", &address)?;
        ensure!(stats["state"] == "waiting" && stats["trips"] == 0, "a greeting is no command: {stats}");
        let from = Moment::now();
        let turn = json!({ "name": "one", "node": LEFT.node, "speed": BRISK, "every": EVERY });
        program.ask("stream_frames", turn)?;
        robot.moves(&LEFT, from, BRISK)?;
        no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        let (_, stop) = robot.stopped_at_deadline(&LEFT, asleep, WINDOW)?;
        robot.verified(&LEFT)?;
        robot.no_motion_after(&LEFT, &stop)
    })
}

/// Fails if a speed above `max_rpm` reaches the bus, or leaves the motor turning that was driven over the same link.
#[test]
fn speed_above_the_greatest_ends_the_link() -> Result<()> {
    play_changed(
        &[LEFT],
        "",
        &Site::socketcand(&[LEFT], ""),
        |setup| setup,
        |scene| {
            let (mut program, address) = scene.driver(&[LEFT])?;
            let from = Moment::now();
            // 1000 turns a second as f32, little-endian.
            let data = "00007a4400000000";
            program.ask("send", json!({ "identifier": u32::from(LEFT.node) << 5 | 0x0D, "data": data }))?;
            let stop = scene.robot.listener.wait_for_stop(&LEFT, from, STILL)?;
            scene.robot.is_prompt(from, AT_ONCE, &stop)?;
            scene.robot.verified(&LEFT)?;
            let fast = scene
                .robot
                .listener
                .first(from, |frame| LEFT.drives(frame) && frame.data[2..4] == [0x7A, 0x44])?;
            ensure!(fast.is_none(), "{fast:?} reached the bus");
            let stats = scene.office.stats(&scene.site, "tcp", &address)?;
            let why = stats["reason"].as_str().unwrap_or_default();
            ensure!(why.contains("max_rpm") && why.contains(LEFT.name), "not said: {stats}");
            Ok(())
        },
    )
}
