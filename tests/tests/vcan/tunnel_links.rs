//! Links over TCP whose other parts fail: the target, the front, the supervisor, the reading of a program; and several links at
//! a time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::bound::ensure_within;
use tests::clock::Moment;
use tests::expect;
use tests::robot::{LEFT, RIGHT, STILL};
use tests::tunnel::{BRISK, CUT, EVERY, Program, Site, Target, WINDOW};

use crate::scene::no_stop_for;
use crate::tunnel::{AT_ONCE, Scene, play_changed, play_tunnel};

/// What a program that connects while nobody is at the other end learns, and when: it is closed without a byte.
fn is_turned_away(scene: &mut Scene<'_>, address: &str, limit: Duration) -> Result<()> {
    let mut program = Program::idle(scene.clients)?;
    let from = Moment::now();
    let dialled = program.call("dial", json!({ "name": "link", "address": address }))?;
    match dialled.result {
        Ok(_) => drop(program.ask("is_over", json!({ "name": "link" }))?),
        // It was so soon that it was part of connecting.
        Err(refusal) => ensure!(refusal.kind == "ConnectionResetError", "another end: {refusal:?}"),
    }
    let took = Moment::now().since(from);
    ensure_within(took, limit, || format!("it was turned away only after {took:?}"))
}

/// Fails if a program is kept, or taken for one that drives, while its target is down; or if the listener is of no use
/// when the target is back.
#[test]
fn target_that_is_down_turns_programs_away() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        let address = scene.office.opened(&scene.site, "tcp")?;
        scene.target.kill()?;
        is_turned_away(scene, &address, CUT)?;
        let stats = scene.office.stats(&scene.site, "tcp", &address)?;
        let why = stats["reason"].as_str().unwrap_or_default();
        ensure!(stats["state"] == "waiting" && why.contains("cannot be reached"), "not said: {stats}");
        ensure!(scene.robot.lanyard.status()?["sessions"].as_array().is_some_and(Vec::is_empty), "a session");
        scene.target = Target::socketcand(scene.clients, &scene.site)?;
        let mut program = Program::idle(scene.clients)?;
        program.open_bus(&address)?;
        program.turn(scene.robot, &[LEFT])
    })
}

/// Fails if the end of the target leaves the motors turning that were driven through it, or its program connected.
#[test]
fn target_that_ends_stops_what_was_driven_through_it() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        let (mut program, _) = scene.driver(&[LEFT])?;
        let from = Moment::now();
        scene.target.ask("hang_up_on_all", json!({}))?;
        let ended = Moment::now();
        program.ask("bus_is_over", json!({}))?;
        scene.stopped_at_once("target lost", &[LEFT], from, ended)
    })
}

/// Fails if a program that says nothing to a target that says nothing either is taken for one that drives, or if a motor
/// turns on that was driven through a target that hangs: neither while it hangs nor when it wakes, and with it the commands
/// that its own kernel had kept for it, which nobody can take back. The guard on the bus answers each with the stop.
#[test]
fn target_that_hangs_moves_nothing_when_it_wakes() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        let (program, address) = scene.driver(&[LEFT])?;
        scene.target.signal(Signal::SIGSTOP)?;
        let mut waits = Program::idle(scene.clients)?;
        waits.ask("dial", json!({ "name": "link", "address": address }))?;
        // The program goes on beating.
        std::thread::sleep(WINDOW);
        let stats = scene.office.stats(&scene.site, "tcp", &address)?;
        ensure!(stats["activeLinks"] == 2 && stats["trips"] == 0, "another state: {stats}");
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        let (_, stop) = scene.robot.stopped_at_deadline(&LEFT, asleep, WINDOW)?;
        scene.robot.verified(&LEFT)?;
        scene.robot.no_motion_after(&LEFT, &stop)?;
        ensure!(scene.office.listed(&scene.site, "tcp")?.is_empty(), "{address} lives on");
        waits.ask("is_over", json!({ "name": "link" }))?;
        let awake = Moment::now();
        scene.target.signal(Signal::SIGCONT)?;
        scene.target.wait_for_end(awake)?;
        std::thread::sleep(WINDOW);
        let late = scene.robot.listener.count(awake, Moment::now(), |frame| LEFT.drives(frame))?;
        println!("{late} commands came when the target woke, {} were answered by the guard", {
            scene.robot.lanyard.motor(LEFT.name)?.guarded()
        });
        if let Some(last) = scene.robot.listener.last_drive(&LEFT, awake)? {
            let answer = scene.robot.listener.wait_for_stop(&LEFT, last.at, STILL)?;
            scene.robot.is_prompt(last.at, AT_ONCE, &answer)?;
        }
        scene.robot.verified(&LEFT).map(drop)
    })
}

/// Fails if a program that never reads, so that everything between it and the target fills up, escapes its window, or if
/// what has piled up is sent when it has been cut.
#[test]
fn program_that_never_reads_is_watched_all_the_same() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        let mut program = Program::idle(scene.clients)?;
        let address = program.opened(&scene.site, "tcp")?;
        program.ask("dial", json!({ "name": "link", "address": address }))?;
        program.ask("handshake", json!({ "name": "link", "channel": "vcan0" }))?;
        let from = Moment::now();
        let turn = json!({ "name": "link", "node": LEFT.node, "speed": BRISK, "every": EVERY });
        program.ask("stream", turn)?;
        scene.robot.moves(&LEFT, from, BRISK)?;
        no_stop_for(&scene.robot.listener, &LEFT, 3 * WINDOW)?;
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        scene.cut_and_stopped(&[LEFT], asleep, &address).map(drop)
    })
}

/// Fails if commands that come in a burst after a gap, as a network delivers them that was away, revive a link that is over,
/// or if any of them reaches the target.
#[test]
fn burst_after_a_gap_revives_nothing() -> Result<()> {
    play_tunnel(&[LEFT], "", "after_expiry = \"wait\"", |scene| {
        let mut program = Program::idle(scene.clients)?;
        let address = program.opened(&scene.site, "tcp")?;
        program.open_bus(&address)?;
        program.turn(scene.robot, &[LEFT])?;
        let last = Moment::now();
        program.ask("rest_silently", json!({}))?;
        let (_, stop) = scene.robot.stopped_at_deadline(&LEFT, last, WINDOW)?;
        for _ in 0..20 {
            // Until it notices that nobody takes it any more.
            let data = "0000004000000000";
            drop(
                program
                    .call("send", json!({ "identifier": u32::from(LEFT.node) << 5 | 0x0D, "data": data }))?,
            );
        }
        std::thread::sleep(WINDOW);
        scene.target.got_no_command_since(stop.at)?;
        scene.robot.verified(&LEFT)?;
        scene.robot.no_motion_after(&LEFT, &stop)?;
        // The listener was to wait for the next link.
        let stats = scene.office.stats(&scene.site, "tcp", &address)?;
        ensure!(stats["state"] == "expired" && stats["trips"] == 1, "not expired once: {stats}");
        let mut next = Program::idle(scene.clients)?;
        next.open_bus(&address)?;
        next.turn(scene.robot, &[LEFT])
    })
}

/// Fails if of two programs on one listener the end of one goes unnoticed, or disturbs one that only listens.
#[test]
fn two_programs_on_one_listener() -> Result<()> {
    play_tunnel(&[LEFT], "clients = \"anybody\"", "", |scene| {
        let (mut program, address) = scene.driver(&[LEFT])?;
        let mut listens = Program::idle(scene.clients)?;
        listens.open_bus(&address)?;
        listens.ask("listen", json!({}))?;
        let stats = scene.office.stats(&scene.site, "tcp", &address)?;
        ensure!(stats["activeLinks"] == 2, "not two links: {stats}");
        let death = program.kill()?;
        scene.stopped_at_once("client connection ended", &[LEFT], death, death)?;
        let heard = listens.ask("heard_frames", json!({}))?.as_u64();
        expect::within(STILL, "the other goes on listening", || {
            let now = listens.ask("heard_frames", json!({})).map_err(|error| format!("{error:#}"))?.as_u64();
            if now > heard { Ok(()) } else { Err(format!("{now:?}")) }
        })?;
        // And may drive now.
        listens.turn(scene.robot, &[LEFT])
    })
}

/// Fails if a second program that commands the same motors leaves them without a watch: whoever drove last is watched, and
/// the other loses its link.
#[test]
fn motors_follow_one_link_at_a_time() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        let (mut first, _) = scene.driver(&[LEFT])?;
        let (second, address) = scene.driver(&[LEFT])?;
        first.ask("bus_is_over", json!({}))?;
        no_stop_for(&scene.robot.listener, &LEFT, 2 * WINDOW)?;
        let asleep = Moment::now();
        second.signal(Signal::SIGSTOP)?;
        let (_, stop) = scene.robot.stopped_at_deadline(&LEFT, asleep, WINDOW)?;
        scene.robot.verified(&LEFT)?;
        scene.robot.no_motion_after(&LEFT, &stop)?;
        ensure!(!scene.office.listed(&scene.site, "tcp")?.contains(&address), "{address} lives on");
        Ok(())
    })
}

/// Fails if a listener that is closed while it carries as much as it can leaves anything moving, does not answer in time, or
/// leaves its port taken.
#[test]
fn listener_that_is_closed_under_load_is_gone_at_once() -> Result<()> {
    // The flood is a link of its own, which takes the motor from the first one.
    play_tunnel(&[LEFT], "", "after_expiry = \"wait\"", |scene| {
        let (mut program, address) = scene.driver(&[LEFT])?;
        program.ask("dial", json!({ "name": "flood", "address": address }))?;
        program.ask("handshake", json!({ "name": "flood", "channel": "vcan0" }))?;
        let burst = json!({ "name": "flood", "node": LEFT.node, "speed": BRISK, "count": 20_000 });
        let pending = program.begin("burst", burst)?;
        std::thread::sleep(Duration::from_millis(50));
        let from = Moment::now();
        // The client of the API waits one second for an answer, as those around hoprd do.
        ensure!(scene.office.close(&scene.site, "tcp", &address)? == 204, "not closed");
        let stop = scene.robot.listener.wait_for_stop(&LEFT, from, STILL)?;
        scene.robot.verified(&LEFT)?;
        let still = Moment::now();
        std::thread::sleep(WINDOW);
        let late = scene.robot.listener.last_drive(&LEFT, still)?;
        ensure!(late.is_none(), "{late:?} came long after {stop}");
        program.finish(pending, STILL)?;
        // The same place again, at once.
        let again =
            json!({ "protocol": "tcp", "target": { "Plain": scene.site.target() }, "listen_host": address });
        let answer = program.rest(&scene.site, "create", again)?;
        ensure!(answer.status == 200, "the port is not free: {answer:?}");
        Ok(())
    })
}

/// Fails if the death of the front leaves motors turning that are driven through it.
#[test]
fn front_that_is_killed_stops_what_its_tunnels_drive() -> Result<()> {
    play_tunnel(&[LEFT, RIGHT], "", "", |scene| {
        let (mut program, _) = scene.driver(&[LEFT, RIGHT])?;
        let from = Moment::now();
        scene.robot.front()?.kill()?;
        program.ask("bus_is_over", json!({}))?;
        for motor in [&LEFT, &RIGHT] {
            let stop = scene.robot.listener.wait_for_stop(motor, from, STILL)?;
            scene.robot.is_prompt(from, AT_ONCE, &stop)?;
            scene.robot.lanyard.wait_for_trip(from, "front dead", motor.name, STILL)?;
            scene.rests(motor, from, from)?;
        }
        Ok(())
    })
}

/// Fails if a link goes on, or the target with what it sends by itself, when nobody watches over it any more.
#[test]
fn supervisor_that_is_gone_ends_links() -> Result<()> {
    play_changed(
        &[LEFT],
        "",
        &Site::socketcand(&[LEFT], "cyclic = \"allow\""),
        |setup| setup.kernel_stop(200),
        |scene| {
            let (mut program, _) = scene.driver(&[LEFT])?;
            let from = Moment::now();
            scene.robot.supervisor()?.kill()?;
            program.ask("bus_is_over", json!({}))?;
            scene.target.wait_for_end(from)?;
            scene.robot.sim.wait_for_standstill(LEFT.node, STILL)?;
            let still = Moment::now();
            std::thread::sleep(WINDOW);
            let late = scene.robot.listener.last_drive(&LEFT, still)?;
            ensure!(late.is_none(), "{late:?} with nobody to watch");
            // Nor is there a new one.
            let mut next = Program::idle(scene.clients)?;
            let opened = next.create(&scene.site, "tcp", &scene.site.target())?;
            if opened.status == 200 {
                let port = opened.body["port"].as_u64().context("no port")?;
                next.open_bus(&format!("127.0.0.1:{port}"))?;
                let data = "0000004000000000";
                let id = u32::from(LEFT.node) << 5 | 0x0D;
                drop(next.call("send", json!({ "identifier": id, "data": data }))?);
                std::thread::sleep(WINDOW);
                ensure!(scene.robot.listener.last_drive(&LEFT, still)?.is_none(), "it may drive again");
            }
            Ok(())
        },
    )
}

/// Fails if a minimum rate is not kept to: one beat in each window keeps a link, but not one that is to have five a second.
#[test]
fn minimum_rate_is_kept_to() -> Result<()> {
    play_tunnel(&[LEFT], "", "min_rate = 5", |scene| {
        let (mut program, _) = scene.driver(&[LEFT])?;
        no_stop_for(&scene.robot.listener, &LEFT, 2 * WINDOW)?;
        program.ask("rest_silently", json!({}))?;
        let slow = json!({ "node": LEFT.node, "speed": BRISK, "every": 0.5 });
        let from = Moment::now();
        program.ask("turn", slow)?;
        program.ask("bus_is_over", json!({}))?;
        let trip = scene.robot.lanyard.wait_for_trip(from, "no progress", LEFT.name, STILL)?;
        scene.rests(&LEFT, trip.at(), trip.at())
    })
}

/// Fails if echoes keep a link alive where only commands count, or end one where everything counts.
#[test]
fn echoes_count_unless_only_commands_do() -> Result<()> {
    for (beat, holds) in [("motion", false), ("commands", false), ("bytes", true)] {
        play_tunnel(&[LEFT], "", &format!("beat = \"{beat}\""), |scene| {
            let mut program = Program::idle(scene.clients)?;
            let address = program.opened(&scene.site, "tcp")?;
            program.ask("dial", json!({ "name": "link", "address": address }))?;
            program.ask("handshake", json!({ "name": "link", "channel": "vcan0" }))?;
            let from = Moment::now();
            program.ask("burst", json!({ "name": "link", "node": LEFT.node, "speed": 0.0, "count": 1 }))?;
            scene
                .robot
                .lanyard
                .wait_for_motor(LEFT.name, STILL, "is granted", |motor| motor.state() == "granted")?;
            for _ in 0..15 {
                // It is refused once the link is cut.
                drop(program.call("say", json!({ "name": "link", "text": "< echo >" }))?);
                std::thread::sleep(WINDOW / 5);
            }
            let events = scene.robot.lanyard.events()?;
            // The motor stands still all the time: its end is no trip.
            let ends =
                events.iter().filter(|event| event.kind() == "ended at rest" && event.at() > from).count();
            ensure!((ends == 0) == holds, "{ends} ends with beat = {beat}");
            ensure!(
                !events.iter().any(|event| event.kind() == "trip" && event.at() > from),
                "tripped at rest"
            );
            Ok(())
        })?;
    }
    Ok(())
}
