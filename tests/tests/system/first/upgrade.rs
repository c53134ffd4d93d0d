//! A newer version is installed while the robot is driven.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::clock::Moment;
use tests::robot::LEFT;

use crate::machine::{FRONT, SOON, SUPERVISOR, TARGET, Unit, ended, run};
use crate::scene::play;

const PACKAGE: &str = "/usr/lib/boot-test/lanyard.deb";
const NEWER: &str = "/run/newer.deb";
const CONFIG: &str = "/etc/lanyard/lanyard.toml";

/// The package once more, under a higher version that ends so.
fn newer(end: &str) -> Result<String> {
    let folder = "/run/newer";
    run("dpkg-deb", &["-R", PACKAGE, folder])?;
    let control = format!("{folder}/DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let line = text.lines().find(|line| line.starts_with("Version: ")).context("no version")?;
    let version = format!("{}+{end}", line.trim_start_matches("Version: "));
    fs::write(&control, text.replace(line, &format!("Version: {version}")))?;
    run("dpkg-deb", &["--root-owner-group", "-Znone", "-b", folder, NEWER])?;
    fs::remove_dir_all(folder)?;
    Ok(version)
}

/// Fails if an upgrade, or a stop of the service, lets go what an operator has stopped, or gives it another number.
#[test]
fn upgrade_lets_nothing_go_that_an_operator_has_stopped() -> Result<()> {
    play(|scene| {
        newer("held")?;
        let (supervisor, front) = (Unit::show(SUPERVISOR)?.pid()?, Unit::show(FRONT)?.pid()?);
        let told = scene.lanyard.run(&["estop"])?;
        println!("{}", told.stdout);
        ensure!(told.stdout.contains("It is on disk"), "{told:?}");
        let trip = scene.lanyard.status()?["latch"].as_u64().context("nothing is latched")?;
        let said = run("dpkg", &["--force-unsafe-io", "-i", NEWER])?;
        ensure!(said.contains("what waits for a reset goes on waiting"), "it does not say so: {said}");
        Unit::wait_for_successor(SUPERVISOR, supervisor)?;
        Unit::wait_for_successor(FRONT, front)?;
        scene.verified()?;
        scene.is_held_by(trip).context("after the upgrade")?;
        run("systemctl", &["stop", TARGET])?;
        run("systemctl", &["start", TARGET])?;
        for unit in [SUPERVISOR, FRONT] {
            Unit::wait(unit, "runs", |unit| unit.state() == "active")?;
        }
        scene.verified()?;
        scene.is_held_by(trip).context("after a stop and a start")?;
        scene.reset()?;
        scene.drive().map(drop).context("a new client, after the reset")
    })
}

/// Fails if an upgrade replaces a running supervisor before it has stopped the wheel, does not say that it stops it,
/// touches the configuration that somebody wrote, or leaves a robot behind that does not run.
#[test]
fn upgrade_stops_the_wheel_first_and_starts_again() -> Result<()> {
    play(|scene| {
        let version = newer("newer")?;
        let configuration = fs::read(CONFIG)?;
        let client = scene.drive()?;
        let (supervisor, front) = (Unit::show(SUPERVISOR)?.pid()?, Unit::show(FRONT)?.pid()?);
        let from = Moment::now();
        let said = run("dpkg", &["--force-unsafe-io", "-i", NEWER])?;
        println!("{said}");
        let stop = scene.listener.wait_for_stop(&LEFT, from, SOON)?;
        let ended = ended(SUPERVISOR)?;
        ensure!(
            stop.at < ended,
            "the supervisor had ended {:.0} ms before the stop",
            stop.at.millis_since(ended)
        );
        ensure!(said.contains("stopping every motor before the upgrade"), "it does not say that it stops");
        ensure!(said.contains("proved that it stands still"), "it does not say how that went");
        ensure!(said.find("stopping every motor") < said.find("Unpacking"), "files were replaced first");
        Unit::wait_for_successor(SUPERVISOR, supervisor)?;
        Unit::wait_for_successor(FRONT, front)?;
        let installed = run("dpkg-query", &["--show", "--showformat=${Version}", "lanyard"])?;
        ensure!(installed == version, "{installed} is installed, not {version}");
        ensure!(fs::read(CONFIG)? == configuration, "the configuration is another one");
        scene.nobody_drives_since(&stop)?;
        drop(client);
        scene.verified()?;
        scene.drive().map(drop).context("a new client, after the upgrade")
    })
}
