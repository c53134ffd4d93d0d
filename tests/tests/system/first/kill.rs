//! Each process is killed while it drives, and all of them at once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::clock::Moment;
use tests::expect;
use tests::holder;
use tests::robot::LEFT;
use tests::wire::Seen;

use crate::client::Client;
use crate::machine::{Dropin, FRONT, SOON, SUPERVISOR, Unit, started};
use crate::scene::{A_WHILE, PROMPT, Scene, before_the_next_supervisor, play, signal};

/// How long systemd is told to wait before it starts the supervisor again where it matters who stops the wheel: longer
/// than [`PROMPT`], so that a stop in time is nobody's but the kernel's.
const PAUSE: &str = "[Service]\nRestartSec=4\n";

/// The supervisor runs again, armed, and says that the one before it died while this wheel was driven; the client that
/// drove, which beats on, does not drive any more; a new one does.
fn next_supervisor_knows(
    scene: &Scene,
    before: i32,
    from: Moment,
    stop: &Seen,
    client: Client,
) -> Result<()> {
    Unit::wait_for_successor(SUPERVISOR, before)?;
    scene.lanyard.wait_for_trip(from, "supervisor died", LEFT.name, SOON)?;
    std::thread::sleep(A_WHILE);
    scene.nobody_drives_since(stop)?;
    drop(client);
    scene.verified()?;
    scene.drive().map(drop).context("a new client, after the supervisor came back")
}

/// Fails if a front that is killed is not followed by a stop at once, does not come back, or cannot drive again.
#[test]
fn killed_front_is_a_stop_and_comes_back() -> Result<()> {
    play(|scene| {
        let client = scene.drive()?;
        let front = Unit::show(FRONT)?.pid()?;
        let from = signal(front, Signal::SIGKILL)?;
        let stop = scene.stopped_since(from, PROMPT)?;
        scene.lanyard.wait_for_trip(from, "front dead", LEFT.name, SOON)?;
        scene.nobody_drives_since(&stop)?;
        drop(client);
        Unit::wait_for_successor(FRONT, front)?;
        scene.verified()?;
        scene.drive().map(drop).context("a new client, after the front came back")
    })
}

/// Fails if a supervisor that is killed is not followed by a stop while nobody else is there to send one but the
/// kernel, or if its successor does not come up by itself, tripped, and knowing why.
#[test]
fn killed_supervisor_is_a_stop_by_the_kernel() -> Result<()> {
    play(|scene| {
        let _pause = Dropin::add(SUPERVISOR, PAUSE)?;
        let client = scene.drive()?;
        let before = Unit::show(SUPERVISOR)?.pid()?;
        let from = signal(before, Signal::SIGKILL)?;
        let stop = scene.stopped_since(from, PROMPT)?;
        next_supervisor_knows(scene, before, from, &stop, client)?;
        before_the_next_supervisor(&stop).map(drop)
    })
}

/// Fails if the same does not hold with the times an installed robot has: systemd starts the next one at once.
#[test]
fn killed_supervisor_is_started_again_at_once() -> Result<()> {
    play(|scene| {
        let client = scene.drive()?;
        let before = Unit::show(SUPERVISOR)?.pid()?;
        let from = signal(before, Signal::SIGKILL)?;
        let stop = scene.stopped_since(from, PROMPT)?;
        next_supervisor_knows(scene, before, from, &stop, client)?;
        let started = started(SUPERVISOR)?;
        println!("started again {:.0} ms after", started.millis_since(from));
        // RestartSec=0, and systemd itself needs tenths of a second here.
        ensure!(started <= from + Duration::from_secs(3), "{:.0} ms passed", started.millis_since(from));
        Ok(())
    })
}

/// Fails if both die and nothing stops the wheel, or if one of them stays away.
#[test]
fn both_killed_at_once_are_a_stop() -> Result<()> {
    play(|scene| {
        let client = scene.drive()?;
        let (supervisor, front) = (Unit::show(SUPERVISOR)?.pid()?, Unit::show(FRONT)?.pid()?);
        let from = signal(supervisor, Signal::SIGKILL)?;
        signal(front, Signal::SIGKILL)?;
        let stop = scene.stopped_since(from, PROMPT)?;
        Unit::wait_for_successor(FRONT, front)?;
        next_supervisor_knows(scene, supervisor, from, &stop, client)
    })
}

/// Fails if a holder that is killed disturbs anything, or if systemd's store does not take its place: then nothing
/// would stop the wheel when the supervisor is killed, too, before the next one does.
#[test]
fn killed_holder_is_replaced_by_what_systemd_keeps() -> Result<()> {
    play(|scene| {
        let _pause = Dropin::add(SUPERVISOR, PAUSE)?;
        let unit = Unit::show(SUPERVISOR)?;
        ensure!(unit.number("NFileDescriptorStore")? > 0, "systemd keeps nothing for the supervisor");
        let client = scene.drive()?;
        let before = unit.pid()?;
        let killed = Moment::now();
        holder::murder(holder::of(before.unsigned_abs())?)?;
        expect::throughout(A_WHILE, "the wheel turns on", || {
            match scene.listener.first(killed, |f| LEFT.is_stop(f)) {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        // The one that has taken its place, if any: systemd's store alone is to be seen at work.
        if let Ok(next) = holder::of(before.unsigned_abs()) {
            holder::murder(next)?;
        }
        let from = signal(before, Signal::SIGKILL)?;
        let stop = scene.stopped_since(from, PROMPT)?;
        next_supervisor_knows(scene, before, from, &stop, client)?;
        before_the_next_supervisor(&stop).map(drop)
    })
}
