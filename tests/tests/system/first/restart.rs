//! A person restarts a service while the robot is driven.

use anyhow::{Context, Result, ensure};
use tests::clock::Moment;
use tests::robot::LEFT;

use crate::machine::{FRONT, SUPERVISOR, Unit, ended, run};
use crate::scene::{PROMPT, Scene, play};

fn restart(scene: &Scene, unit: &str) -> Result<()> {
    let _client = scene.drive()?;
    let before = Unit::show(unit)?.pid()?;
    let from = Moment::now();
    run("systemctl", &["restart", unit])?;
    let stop = scene.listener.wait_for_stop(&LEFT, from, PROMPT)?;
    let ended = ended(unit)?;
    println!(
        "stop {:.0} ms after the command, {:.0} ms before the end",
        stop.at.millis_since(from),
        ended.millis_since(stop.at)
    );
    ensure!(stop.at < ended, "{unit} had ended {:.0} ms before the stop", stop.at.millis_since(ended));
    Unit::wait_for_successor(unit, before)?;
    scene.nobody_drives_since(&stop)?;
    scene.verified()
}

/// Fails if a supervisor that is restarted ends before it has stopped the wheel, or does not come back.
#[test]
fn restarted_supervisor_stops_the_wheel_before_it_ends() -> Result<()> {
    play(|scene| {
        restart(scene, SUPERVISOR)?;
        scene.drive().map(drop).context("a new client, after the restart")
    })
}

/// Fails if a front that is restarted ends before the wheel was stopped, or does not come back.
#[test]
fn restarted_front_stops_the_wheel_before_it_ends() -> Result<()> {
    play(|scene| {
        restart(scene, FRONT)?;
        scene.drive().map(drop).context("a new client, after the restart")
    })
}
