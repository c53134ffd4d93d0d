//! The hardware watchdog, played by the kernel's softdog: it resets this machine, and with it this test, when it is not fed.
//!
//! That it bites at all is shown by a machine that is meant to be reset, not here.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::expect::within;
use tests::fd_store::FdStore;
use tests::holder;
use tests::robot::{Robot, START, Setup};

/// What the kernel says of the device.
const CLASS: &str = "/sys/class/watchdog/watchdog0";
/// Twice the shortest, for a machine that is emulated.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Where the device is; a supervisor of its own user must not be able to open it by itself.
const DEVICE: &str = "/dev/watchdog0";

fn says(what: &str) -> Result<String> {
    let text = std::fs::read_to_string(Path::new(CLASS).join(what))
        .with_context(|| format!("no {what} of softdog"))?;
    Ok(text.trim().to_owned())
}

fn counts(expected: bool) -> Result<()> {
    let wanted = if expected { "active" } else { "inactive" };
    within(START, &format!("the watchdog is {wanted}"), || {
        let state = says("state").map_err(|error| format!("{error:#}"))?;
        if state == wanted { Ok(()) } else { Err(state) }
    })
}

fn setup() -> Setup {
    Setup::base()
        .drives_only()
        .supervisor_key("watchdog", &format!("\"{DEVICE}\""))
        .supervisor_key("watchdog_timeout", &format!("\"{}s\"", TIMEOUT.as_secs()))
}

fn start_as_service(robot: &mut Robot, store: &FdStore) -> Result<()> {
    let config = robot.config.to_str().context("a path in UTF-8")?.to_owned();
    let process = store.start(&robot.programs.join("lanyard-supervisor"), &["--config", &config])?;
    robot.take_supervisor(process)
}

/// Fails, with the whole machine, if a supervisor that is well does not feed the watchdog, or the next one does not in
/// time; and without that if it does not count while a supervisor runs or after one was killed, or goes on counting after an
/// orderly end.
#[test]
fn watchdog_is_fed_while_the_loop_runs_and_told_when_it_ends() -> Result<()> {
    let mut robot = setup().start()?;
    // Alone: the kernel keeps it counting when the last descriptor goes without a word.
    ensure!(says("state")? == "inactive", "somebody feeds it already");
    robot.start_supervisor()?;
    counts(true)?;
    ensure!(says("timeout")? == TIMEOUT.as_secs().to_string(), "it waits {} s", says("timeout")?);
    // Whoever is not fed for that long has reset the machine.
    std::thread::sleep(TIMEOUT * 2);
    robot.supervisor()?.kill()?;
    counts(true)?;
    robot.start_supervisor()?;
    std::thread::sleep(TIMEOUT * 2);
    robot.supervisor()?.signal(Signal::SIGTERM)?;
    robot.supervisor()?.wait(START)?;
    counts(false)?;

    // As a service: systemd has it, and the next one takes it back, as nobody could open it a second time.
    let store = FdStore::open(&robot.file("notify.sock"))?;
    start_as_service(&mut robot, &store)?;
    ensure!(store.names().iter().any(|name| name == "watchdog"), "systemd keeps {:?}", store.names());
    let holder = holder::of(robot.supervisor()?.pid())?;
    robot.supervisor()?.kill()?;
    holder::murder(holder)?;
    counts(true)?;
    start_as_service(&mut robot, &store)?;
    std::thread::sleep(TIMEOUT * 2);
    ensure!(store.names().iter().filter(|name| *name == "watchdog").count() <= 2, "{:?}", store.names());
    robot.supervisor()?.signal(Signal::SIGTERM)?;
    robot.supervisor()?.wait(START)?;
    within(START, "systemd lets go of it", || {
        if store.names().iter().any(|name| name == "watchdog") {
            Err(format!("{:?}", store.said()))
        } else {
            Ok(())
        }
    })?;
    counts(false)
}

/// Fails if a supervisor that cannot have its watchdog does not start, or does not say why.
#[test]
fn watchdog_that_somebody_else_feeds_is_named() -> Result<()> {
    let mut robot = setup().start()?;
    let mut other = std::fs::File::options().write(true).open(DEVICE)?;
    robot.start_supervisor()?;
    std::io::Write::write_all(&mut other, b"V")?;
    drop(other);
    robot.supervisor()?.wait_for_line("RuntimeWatchdogSec", START)?;
    let status = robot.lanyard.status()?;
    let degraded = status["degraded"].as_array().context("no list")?;
    ensure!(degraded.iter().any(|flag| flag == "no hardware watchdog"), "{status}");
    counts(false)
}
