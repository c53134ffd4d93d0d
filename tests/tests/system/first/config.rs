//! Somebody makes a mistake in the configuration and restarts everything.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::clock::Moment;
use tests::robot::LEFT;

use crate::machine::{Bookmark, FRONT, SUPERVISOR, TARGET, Unit, run};
use crate::scene::{A_WHILE, Scene, play};

const CONFIG: &str = "/etc/lanyard/lanyard.toml";
/// EX_CONFIG.
const WRONG_CONFIGURATION: &str = "78";

/// A configuration with a mistake in it; the old one again when this is dropped.
struct Mistaken(String);

impl Mistaken {
    fn write() -> Result<Self> {
        let right = fs::read_to_string(CONFIG)?;
        let wrong = right.replace("max_lateness", "max_latness");
        ensure!(wrong != right, "there is no max_lateness to misspell");
        let mistaken = Self(right);
        fs::write(CONFIG, wrong)?;
        Ok(mistaken)
    }
}

impl Drop for Mistaken {
    fn drop(&mut self) {
        fs::write(CONFIG, &self.0).expect("the configuration can be written: it was a moment ago");
    }
}

fn both_stay_failed(scene: &Scene, journal: &Bookmark) -> Result<()> {
    // As the message of `lanyard check` has it: with the file, the line and the key.
    let check = scene.lanyard.run(&["check", CONFIG])?;
    ensure!(check.code == Some(1), "lanyard check: exit code {:?}", check.code);
    let said = format!("{}{}", check.stdout, check.stderr);
    let message =
        said.lines().find(|line| line.contains("max_latness")).context("lanyard check does not name it")?;
    let message = message.trim_start_matches("lanyard: ").trim_start_matches("error: ").trim();
    ensure!(message.contains(CONFIG), "no file in: {message}");
    println!("{message}");
    for name in [SUPERVISOR, FRONT] {
        let unit = Unit::wait(name, "has failed", |unit| unit.state() == "failed")?;
        ensure!(
            unit.get("ExecMainStatus") == WRONG_CONFIGURATION,
            "{name}: exit code {}",
            unit.get("ExecMainStatus")
        );
        journal.wait(name, message)?;
    }
    // One that is started again is so after 200 ms at the latest.
    let restarts = |name| -> Result<u64> { Unit::show(name)?.number("NRestarts") };
    let before = [restarts(SUPERVISOR)?, restarts(FRONT)?];
    std::thread::sleep(A_WHILE);
    for name in [SUPERVISOR, FRONT] {
        let unit = Unit::show(name)?;
        ensure!(unit.state() == "failed", "{name} is {} again", unit.state());
    }
    ensure!([restarts(SUPERVISOR)?, restarts(FRONT)?] == before, "somebody was started again");
    Ok(())
}

/// Fails if a mistake is not told in the journal of both services as `lanyard check` tells it, with file and line; if
/// one of them is started again and again; if the wheel was not stopped; or if they do not run once it is mended.
#[test]
fn services_stay_failed_on_a_mistake_until_it_is_mended() -> Result<()> {
    play(|scene| {
        let client = scene.drive()?;
        let journal = Bookmark::now()?;
        let from = Moment::now();
        let mistaken = Mistaken::write()?;
        run("systemctl", &["restart", "--no-block", TARGET])?;
        let stop = scene.listener.wait_for_stop(&LEFT, from, Duration::from_secs(1))?;
        let failed = both_stay_failed(scene, &journal);
        drop((mistaken, client));
        failed?;
        scene.nobody_drives_since(&stop)?;
        scene.sim()?.wait_for_standstill(LEFT.node, A_WHILE)?;
        run("systemctl", &["restart", TARGET])?;
        Unit::wait(SUPERVISOR, "runs", |unit| unit.state() == "active")?;
        Unit::wait(FRONT, "runs", |unit| unit.state() == "active")?;
        scene.verified()?;
        scene.drive().map(drop).context("a new client, after the mistake was mended")
    })
}
