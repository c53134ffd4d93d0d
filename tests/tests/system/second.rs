//! The second boot: the hardware watchdog has reset the machine, because nobody fed it; and the adapter's driver is not
//! loaded, as if somebody had pulled it out meanwhile.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use tests::clock::Moment;
use tests::robot::{LEFT, STILL};

use crate::machine::{FRONT, SOON, SUPERVISOR, TARGET, Unit, journal_of_this_boot, run};
use crate::scene::{NEAR, Scene, lanyard};

/// `WDIOF_CARDRESET`: the watchdog was the reason for the last reset.
const CARD_RESET: u32 = 0x20;

/// Plays a test once the adapter is there.
fn play(act: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    run("modprobe", &["kvaser_pci"])?;
    crate::scene::play(act)
}

/// Fails if a machine without its adapter does not boot to the end, if its supervisor does not say what it waits for, if the
/// front serves anybody meanwhile; or if nobody can drive once the adapter is there. Named to be the first.
#[test]
fn a_boot_without_the_adapter_is_not_held_up() -> Result<()> {
    ensure!(!Path::new("/sys/class/net").join(NEAR).exists(), "the adapter is there");
    Unit::wait("multi-user.target", "is reached", |unit| unit.state() == "active")?;
    let unit =
        Unit::wait(SUPERVISOR, "says what it waits for", |unit| unit.get("StatusText").contains(NEAR))?;
    ensure!(unit.state() == "activating", "it is {}", unit.state());
    println!("{}", unit.get("StatusText"));
    let front = Unit::show(FRONT)?;
    ensure!(front.state() == "inactive", "the front is {}", front.state());
    run("modprobe", &["kvaser_pci"])?;
    Unit::wait(SUPERVISOR, "is armed", |unit| unit.state() == "active")?;
    operator_stop_is_still_there()?;
    play(|scene| scene.drive().map(drop).context("after the adapter appeared"))
}

/// Fails if what was stopped before the watchdog reset the machine is not held: runner.sh has pressed stop then. Whoever
/// plays a scene resets it.
fn operator_stop_is_still_there() -> Result<()> {
    let told = fs::read_to_string("/var/lib/boot-test/estop").context("nobody has pressed stop")?;
    println!("{told}");
    let number = told.strip_prefix("trip ").and_then(|rest| rest.split(':').next()).context("no trip")?;
    let trip: u64 = number.parse()?;
    let lanyard = lanyard();
    let status = lanyard.status()?;
    ensure!(status["latch"] == trip, "trip {trip} is forgotten: {}", status["latch"]);
    let motor = lanyard.motor(LEFT.name)?;
    ensure!(motor.trip() == Some(trip) && motor.reason() == "operator stop", "{}", motor.0);
    ensure!(motor.0["latched"] == true, "the wheel is not held");
    Ok(())
}

/// Fails if the watchdog does not say that it has reset the machine.
#[test]
fn the_hardware_watchdog_was_the_reason() -> Result<()> {
    play(|_| {
        let text = fs::read_to_string("/sys/class/watchdog/watchdog0/bootstatus").context("no bootstatus")?;
        let bits: u32 = text.trim().parse()?;
        ensure!(bits & CARD_RESET != 0, "bootstatus is {bits}");
        Ok(())
    })
}

/// Fails if one of those whom an operator asks keeps it back: the log, the events, the status, the doctor.
#[test]
fn everybody_tells_that_the_machine_was_reset() -> Result<()> {
    play(|scene| {
        let said = journal_of_this_boot(SUPERVISOR)?;
        let told = said.iter().find(|line| line.contains("this machine was reset by its hardware watchdog"));
        println!("{}", told.with_context(|| format!("the supervisor's log does not: {}", said.join(" | ")))?);
        let events = scene.lanyard.events()?;
        let resets = events.iter().filter(|event| event.kind() == "watchdog reset").count();
        // Once for a start of the machine, whoever else was started since.
        ensure!(resets == 1, "{resets} events say so");
        ensure!(scene.lanyard.status()?["watchdog_reset"] == true, "the status does not");
        let doctor = scene.lanyard.run(&["doctor"])?;
        let found = doctor.stdout.lines().find(|line| line.contains("was reset by its hardware watchdog"));
        println!("{}", found.with_context(|| format!("the doctor does not: {}", doctor.stdout))?);
        Ok(())
    })
}

/// Fails if a robot that was reset cannot drive again.
#[test]
fn the_robot_drives_again() -> Result<()> {
    play(|scene| scene.drive().map(drop))
}

/// Fails if the package is taken from a running robot before the wheel was stopped, or does not say that it stops it; if a
/// service goes on; if what somebody wrote is lost before it is to be; or if it stays when it is not to. Named to be
/// the last: nothing is left of Lanyard.
#[test]
fn uninstalling_stops_the_wheel_first_and_purging_leaves_nothing() -> Result<()> {
    const FOLDER: &str = "/etc/lanyard";
    play(|scene| {
        let client = scene.drive()?;
        let from = Moment::now();
        let said = run("dpkg", &["--force-unsafe-io", "--remove", "lanyard"])?;
        println!("{said}");
        // systemd has forgotten the unit by now, and when it ended.
        let removed = Moment::now();
        let stop = scene.listener.wait_for_stop(&LEFT, from, SOON)?;
        ensure!(
            stop.at < removed,
            "the package was removed {:.0} ms before the stop",
            stop.at.millis_since(removed)
        );
        ensure!(said.contains("stopping every motor before the removal"), "it does not say that it stops");
        ensure!(said.contains("proved that it stands still"), "it does not say how that went");
        scene.nobody_drives_since(&stop)?;
        scene.sim()?.wait_for_standstill(LEFT.node, STILL)?;
        drop(client);
        for unit in [TARGET, SUPERVISOR, FRONT] {
            let unit = Unit::show(unit)?;
            ensure!(unit.state() == "inactive", "{} is {}", unit.get("Id"), unit.state());
            ensure!(unit.get("LoadState") == "not-found", "{} is still there", unit.get("Id"));
        }
        let config = Path::new(FOLDER).join("lanyard.toml");
        ensure!(config.exists(), "the configuration is gone");
        fs::write(Path::new(FOLDER).join("keys.toml"), "")?;
        let said = run("dpkg", &["--force-unsafe-io", "--purge", "lanyard"])?;
        println!("{said}");
        ensure!(said.contains("removed the keys of all clients"), "it does not say that keys were removed");
        ensure!(!Path::new(FOLDER).exists(), "{FOLDER} is left");
        ensure!(!Path::new("/var/lib/lanyard").exists(), "what waited for a reset is left");
        Ok(())
    })
}
