//! An adapter that stalls for long: stops wait, or are refused, and none is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use shm_proto::verdicts::{Counter, MotorState};
use tests::clock::Moment;
use tests::expect;
use tests::intruder::Intruder;
use tests::robot::{LEFT, RIGHT, Robot, START, STILL};

use crate::adapter::Stall;
use crate::player::Player;
use crate::scene::{NEAR, NOBODYS, bus, patient_setup, play, press_stop, setup};

/// The most from the moment the adapter goes on to a stop at the far end. What waits in the queue leaves with
/// the next interrupt; what was refused is tried again on every tick (10 ms); the rest is for a machine that
/// emulates another.
const SOON: Duration = Duration::from_millis(100);

fn refusals(player: &Player) -> u64 {
    player.verdicts().counter(Counter::SendErrors)
}

fn wait_for_refusals(player: &Player, before: u64) -> Result<()> {
    expect::within(START, "the kernel refuses stop frames", || {
        let now = refusals(player);
        if now > before { Ok(()) } else { Err(format!("{now} refused, as before")) }
    })
}

/// Fails if `lanyard status` does not tell of frames that were refused.
fn refusals_are_told(robot: &Robot) -> Result<()> {
    let counted = robot.lanyard.status()?["counters"]["send_errors"].as_u64();
    ensure!(counted > Some(0), "send_errors is {counted:?}");
    let bus = bus(robot)?;
    ensure!(bus["errors"].as_u64() > Some(0), "no errors on the bus: {bus}");
    ensure!(bus["last_error"] == libc::ENOBUFS, "the last error is another: {bus}");
    ensure!(bus["up"] == true, "a stalled adapter is not an interface that is down: {bus}");
    Ok(())
}

/// Fails if a client that dies while the adapter is stalled is forgotten, if refused frames are not counted, if
/// anything is called stopped meanwhile, or if the stop needs help once the adapter goes on.
#[test]
fn client_that_dies_during_a_stall_is_stopped_when_it_ends() -> Result<()> {
    play(setup(), |robot, player| {
        player.drive(robot)?;
        // Stale motion frames would call the bus guard, and so help the stop on.
        player.withhold();
        let before = refusals(player);
        let others = Intruder::local(NEAR)?;
        let from = Moment::now();
        let stall = Stall::begin(NEAR)?;
        others.fill(NOBODYS, &[])?;
        player.lose_client();
        // Every stage of the stop times out after half a second.
        player.wait_for_left(MotorState::Unverified)?;
        wait_for_refusals(player, before)?;
        let early = robot.listener.first(from, |frame| LEFT.is_stop(frame))?;
        ensure!(early.is_none(), "the adapter was not stalled: {early:?} has crossed the wire");
        robot.sim.wait_for_speed(LEFT.node, 1.0, START)?;
        let released = stall.end()?;
        let stop = robot.listener.wait_for_stop(&LEFT, released, START)?;
        let waited = robot.is_prompt(released, SOON, &stop)?;
        // The last stage is what is in force by now.
        let off = robot.listener.wait(released, START, "torque off", |frame| LEFT.is_torque_off(frame))?;
        let anew = robot.is_prompt(released, SOON, &off)?;
        println!(
            "{:.0} ms of stall; first stop {waited:.2} ms after its end, the last stage {anew:.2} ms",
            released.millis_since(from)
        );
        refusals_are_told(robot)?;
        robot.verified(&LEFT)?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        player.drive(robot)
    })
}

/// Fails if a stop whose every frame was refused is not sent again once there is room. Nothing but the supervisor
/// itself reminds it: no motion frame is on the bus, and no stage times out.
#[test]
fn stop_that_was_refused_gets_out_by_itself() -> Result<()> {
    play(patient_setup(), |robot, player| {
        player.drive(robot)?;
        player.withhold();
        let before = refusals(player);
        let ordinary = Intruder::local(NEAR)?;
        let urgent = Intruder::urgent(NEAR)?;
        let from = Moment::now();
        let stall = Stall::begin(NEAR)?;
        ordinary.fill(NOBODYS, &[])?;
        urgent.fill(NOBODYS, &[])?;
        press_stop(robot)?;
        wait_for_refusals(player, before)?;
        let released = stall.end()?;
        // The other wheel has never moved: what its drive has said meanwhile may prove it still at once.
        let stop = robot.listener.wait_for_stop(&LEFT, released, START)?;
        let waited = robot.is_prompt(released, SOON, &stop)?;
        println!("stop {waited:.2} ms after the end of the stall");
        let trip = robot.lanyard.wait_for_trip(from, "operator stop", "left", START)?;
        ensure!(trip.0["first_stop_ns"].is_null(), "a stop frame was taken: {}", trip.0);
        refusals_are_told(robot)?;
        for motor in [&LEFT, &RIGHT] {
            robot.verified(motor)?;
            robot.sim.wait_for_standstill(motor.node, STILL)?;
        }
        Ok(())
    })
}
