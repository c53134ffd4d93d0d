//! What the robot says of its own methods. viam-server asks its remotes, and so does Viam's mobile app: what is not marked
//! there as monitored is under no session of theirs, and a client of theirs that dies is not stopped.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::robot::Setup;

use crate::scene::play;

/// Fails if a client that reads the robot's own description does not find which methods end with their client's heartbeats,
/// or cannot read it because a file that it needs is missing.
#[test]
fn reflection_marks_what_ends_with_its_client() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = clients.fork()?;
        for (service, wanted) in [
            ("viam.component.motor.v1.MotorService", json!(["SetPower", "GoFor", "GoTo", "SetRPM"])),
            (
                "viam.component.base.v1.BaseService",
                json!(["MoveStraight", "Spin", "SetPower", "SetVelocity"]),
            ),
        ] {
            let marked = client.ask("monitored", json!({ "address": robot.address, "service": service }))?;
            ensure!(marked == wanted, "{service} marks {marked}, not {wanted}");
        }
        Ok(())
    })
}
