//! What every test begins with: a robot whose supervisor and drives are at two ends of a wire, and a report
//! when the test fails.

use anyhow::{Context, Result};
use serde_json::Value;
use shm_proto::handover;
use tests::robot::{Robot, Setup};

use crate::adapter;
use crate::player::Player;

/// The supervisor's interface, and whatever commands motors.
pub const NEAR: &str = "can0";
/// The drives' interface, and the witness's.
pub const FAR: &str = "can1";

/// An identifier that no drive of the robot has.
pub const NOBODYS: u16 = 0x7F1;

/// Two wheels at the far end of the wire, and no front.
pub fn setup() -> Setup {
    // The played front has longer windows than a real one.
    Setup::base()
        .on(NEAR)
        .drives_on(FAR)
        .without_front()
        .supervisor_key("front_window", "\"2s\"")
        .supervisor_key("cpu", &adapter::COMMON.to_string())
}

/// The same; a stop stays in its first stage however long a test keeps the adapter from sending it.
pub fn patient_setup() -> Setup {
    setup().supervisor_key("stage_timeout", "\"10s\"")
}

/// Starts the robot and a played front, and runs `act`; shows what the programs said if it fails.
pub fn play(setup: Setup, act: impl FnOnce(&mut Robot, &Player) -> Result<()>) -> Result<()> {
    adapter::separate(NEAR, FAR).context("is this the machine of `cargo xtask test --only controller`?")?;
    let mut robot = setup.start()?;
    let player = Player::attach(&robot, NEAR)?;
    let outcome = act(&mut robot, &player);
    if let Err(error) = &outcome {
        robot.report_failure(error);
    }
    outcome
}

/// Presses stop; returns once every motor has been told to stop. This is what `lanyard estop` says to the
/// supervisor, without the second it takes to start that program here.
pub fn press_stop(robot: &Robot) -> Result<()> {
    handover::estop(&robot.lanyard.socket).map(drop).context("pressing stop")
}

/// What `lanyard status` says of the only bus.
pub fn bus(robot: &Robot) -> Result<Value> {
    let status = robot.lanyard.status()?;
    status["buses"].get(0).cloned().context("no bus in the status")
}
