//! The adapter of the supervisor's bus is unplugged and plugged in again, or is not there to begin with.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use shm_proto::verdicts::MotorState;
use tests::clock::Moment;
use tests::robot::LEFT;

use crate::machine::{FRONT, SOON, SUPERVISOR, Unit, run};
use crate::scene::{NEAR, Scene, play};

/// Taking a device from its driver is what a pulled plug does to an interface: it is gone, with all that hung on it.
const DRIVER: &str = "/sys/bus/pci/drivers/kvaser_pci";

/// An adapter that is unplugged; plugged in when this is dropped.
struct Unplugged(String);

impl Unplugged {
    fn pull() -> Result<Self> {
        let device = fs::read_link(format!("/sys/class/net/{NEAR}/device")).context("no adapter")?;
        let address =
            PathBuf::from(&device).file_name().context("no address")?.to_string_lossy().into_owned();
        fs::write(format!("{DRIVER}/unbind"), &address).context("cannot unplug it")?;
        Ok(Self(address))
    }

    fn plug_in(self) {
        drop(self);
    }
}

impl Drop for Unplugged {
    fn drop(&mut self) {
        fs::write(format!("{DRIVER}/bind"), &self.0).expect("what was unplugged can be plugged in");
    }
}

fn wait_for_state(scene: &Scene, state: MotorState) -> Result<()> {
    scene
        .lanyard
        .wait_for_motor(LEFT.name, SOON, state.name(), |motor| motor.state() == state.name())
        .map(drop)
}

/// Fails if an adapter that is pulled out is no trip, if the wheel is then called still, if it is not called trouble of
/// the bus; or if the wheel is not stopped, proven still and driven again once the adapter is back, by
/// systemd-networkd's hand alone.
#[test]
fn pulled_adapter_is_a_stop_that_is_unproven_until_it_is_back() -> Result<()> {
    play(|scene| {
        let before = Unit::show(SUPERVISOR)?.pid()?;
        let client = scene.drive()?;
        let from = Moment::now();
        let pulled = Unplugged::pull()?;
        scene.lanyard.wait_for_trip(from, "bus fault", LEFT.name, SOON)?;
        wait_for_state(scene, MotorState::Unverified)?;
        let status = scene.lanyard.status()?;
        ensure!(status["buses"][0]["up"] == false, "the bus is called up");
        ensure!(status["healthy"] == false, "that is called healthy");
        let back = Moment::now();
        pulled.plug_in();
        let stop = scene
            .listener
            .wait(back, SOON, "stop", |frame| LEFT.is_stop(frame) || LEFT.is_torque_off(frame))?;
        println!("stop {:.0} ms after it was plugged in", stop.at.millis_since(back));
        scene.verified()?;
        scene.nobody_drives_since(&stop)?;
        ensure!(Unit::show(SUPERVISOR)?.pid()? == before, "the supervisor was started again");
        drop(client);
        scene.drive().map(drop).context("a new client, after the adapter was plugged in")
    })
}

/// Fails if a supervisor whose adapter is missing does not wait and say for what, or does not arm when it appears.
#[test]
fn missing_adapter_is_waited_for() -> Result<()> {
    play(|scene| {
        run("systemctl", &["stop", SUPERVISOR])?;
        let pulled = Unplugged::pull()?;
        run("systemctl", &["start", "--no-block", SUPERVISOR])?;
        let unit =
            Unit::wait(SUPERVISOR, "says what it waits for", |unit| unit.get("StatusText").contains(NEAR))?;
        ensure!(unit.state() == "activating", "it is {}", unit.state());
        println!("{}", unit.get("StatusText"));
        pulled.plug_in();
        Unit::wait(SUPERVISOR, "runs", |unit| unit.state() == "active")?;
        Unit::wait(FRONT, "runs", |unit| unit.state() == "active")?;
        scene.verified()?;
        scene.drive().map(drop).context("a new client, after the adapter appeared")
    })
}
