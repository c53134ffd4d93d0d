//! The interface itself goes down and comes up while a session drives over it.

use anyhow::{Context, Result, ensure};
use shm_proto::verdicts::MotorState;
use tests::clock::Moment;
use tests::interface::Changed;
use tests::robot::{LEFT, MOVE, START, STILL};

use crate::scene::{NEAR, bus, play, setup};

/// Fails if an interface that goes down is no reason to stop, is not told, or is still called up; if what could
/// not be proven is not stopped anew from the gentle stage on when it is up again; or if nobody can drive then.
#[test]
fn interface_that_goes_down_trips_and_its_motors_are_stopped_when_it_is_up() -> Result<()> {
    // A stage may take as long as the drive's ramp does on a machine that emulates another.
    play(setup().supervisor_key("stage_timeout", "\"2s\""), |robot, player| {
        player.drive(robot)?;
        let before = Moment::now();
        let down = Changed::down(NEAR)?;
        player.wait_for_left(MotorState::Unverified)?;
        robot.lanyard.wait_for_trip(before, "bus fault", "left", START)?;
        robot.lanyard.wait_for_event(before, START, "bus down", |event| {
            event.kind() == "bus down" && event.concerns("left") && event.concerns("right")
        })?;
        ensure!(bus(robot)?["up"] == false, "the bus is called up: {}", bus(robot)?);
        ensure!(robot.lanyard.run(&["status"])?.code == Some(2), "status calls that healthy");
        // Nothing reaches the drive: it runs on, and nobody may call it still.
        robot.sim.wait_for_speed(LEFT.node, 1.0, MOVE)?;
        let up = Moment::now();
        down.restore()?;
        let told = robot.lanyard.wait_for_event(up, START, "bus up", |event| event.kind() == "bus up")?;
        let stop = robot
            .listener
            .wait(up, START, "stop", |frame| LEFT.is_stop(frame) || LEFT.is_torque_off(frame))?;
        ensure!(LEFT.is_stop(&stop), "the stop did not begin with its first stage, but with {stop}");
        println!(
            "bus up told {:.1} ms after `ip link set {NEAR} up` began, stop {:.1} ms",
            told.at().millis_since(up),
            stop.at.millis_since(up)
        );
        let status = robot.verified(&LEFT)?;
        ensure!(status.stage() == Some(1), "stopped in stage {:?}", status.stage());
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        ensure!(bus(robot)?["up"] == true, "the bus is called down: {}", bus(robot)?);
        player.drive(robot).context("after the interface was up again")
    })
}
