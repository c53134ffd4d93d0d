//! The whole chain over a wire: session, supervisor, controller, wire, drive, and back.

use anyhow::{Result, ensure};
use tests::robot::{LEFT, STILL};

use crate::player::WINDOW;
use crate::scene::{patient_setup, play};

/// Fails if a client that dies is not followed by a stop that crosses the wire in time, or if standstill is not
/// proven by what the drive sends back over it.
#[test]
fn dead_client_is_stopped_across_the_wire() -> Result<()> {
    play(patient_setup(), |robot, player| {
        player.drive(robot)?;
        let death = player.lose_client();
        let (trip, stop) = robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
        let deadline = trip.deadline().unwrap_or_default();
        println!("stop at the far end {:.3} ms after the deadline", stop.at.millis_since(deadline));
        // Not all of it may have crossed yet.
        robot.listener.wait_for_stop_set(&LEFT, stop.at, STILL)?;
        let status = robot.verified(&LEFT)?;
        ensure!(status.stage() == Some(1), "stopped in stage {:?}", status.stage());
        robot.no_motion_after(&LEFT, &stop)?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)
    })
}
