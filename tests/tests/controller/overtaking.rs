//! A stop behind a queue full of motion frames: it overtakes them, and follows them once more.

use std::time::Duration;

use anyhow::{Result, ensure};
use shm_proto::verdicts::Counter;
use tests::clock::Moment;
use tests::expect;
use tests::intruder::Intruder;
use tests::robot::{LEFT, Robot, START};
use tests::wire::Seen;

use crate::adapter::Stall;
use crate::player::{FORWARD, Player, SET_VELOCITY};
use crate::scene::{NEAR, patient_setup, play, press_stop};

/// Frames that nothing can overtake any more: an SJA1000 holds one, and the kernel has taken the next one out
/// of the queue for it already (the requeued frame of a queue that was empty when it came).
const INSIDE: usize = 2;
/// The length of a CAN interface's transmit queue unless somebody changes it (`txqueuelen`).
const QUEUE: usize = 10;

/// What came of a stop while the adapter was stalled with motion frames before it.
struct Jam {
    /// When the first motion frame was sent.
    from: Moment,
    /// How many the interface has taken.
    motion: usize,
    /// When the adapter went on.
    released: Moment,
}

/// Drives, stalls the adapter, stuffs its queue with motion frames of an ordinary socket, presses stop, checks
/// that the kernel takes the stop while it refuses the others, and lets the adapter go on.
fn stop_behind_a_full_queue(robot: &Robot, player: &Player) -> Result<Jam> {
    player.drive(robot)?;
    player.withhold();
    let before = player.verdicts().counter(Counter::StopFrames);
    let others = Intruder::local(NEAR)?;
    let stall = Stall::begin(NEAR)?;
    let from = Moment::now();
    let motion = others.fill(SET_VELOCITY, &FORWARD)?;
    ensure!(motion >= QUEUE, "the queue was full after {motion} frames");
    press_stop(robot)?;
    expect::within(Duration::from_secs(2), "the kernel takes a stop frame", || {
        let now = player.verdicts().counter(Counter::StopFrames);
        if now > before { Ok(()) } else { Err(format!("{now} stop frames, as before")) }
    })?;
    let more = others.fill(SET_VELOCITY, &FORWARD)?;
    ensure!(more == 0, "the queue took {more} more motion frames: the adapter is not stalled");
    let released = stall.end()?;
    println!("{motion} motion frames taken before the stop");
    Ok(Jam { from, motion, released })
}

/// All that crossed the wire since the jam began, once the last stuffed motion frame has.
fn wait_for_the_rest(robot: &Robot, jam: &Jam) -> Result<Vec<Seen>> {
    expect::within(START, "every motion frame crosses the wire", || {
        let frames = robot.listener.since(jam.from).map_err(|error| format!("{error:#}"))?;
        let seen = frames.iter().filter(|frame| LEFT.drives(frame)).count();
        if seen == jam.motion { Ok(frames) } else { Err(format!("{seen} of {}", jam.motion)) }
    })
}

/// Fails if a stop is refused because motion frames fill the transmit queue, or waits behind them.
#[test]
fn stop_overtakes_the_motion_frames_in_the_queue() -> Result<()> {
    play(patient_setup(), |robot, player| {
        let jam = stop_behind_a_full_queue(robot, player)?;
        let frames = wait_for_the_rest(robot, &jam)?;
        let stop = frames.iter().position(|frame| LEFT.is_stop(frame));
        let before = frames.iter().take(stop.unwrap_or(frames.len())).filter(|frame| LEFT.drives(frame));
        let before = before.count();
        println!("{before} motion frames before the stop, {} behind it", jam.motion - before);
        ensure!(
            before <= INSIDE,
            "{before} motion frames crossed the wire before the stop; at most {INSIDE} are out of reach"
        );
        robot.verified(&LEFT).map(drop)
    })
}

/// Fails if the motion frames that a stop has overtaken set the motor in motion again.
#[test]
fn stop_follows_the_motion_frames_it_has_overtaken() -> Result<()> {
    play(patient_setup(), |robot, player| {
        let jam = stop_behind_a_full_queue(robot, player)?;
        let frames = wait_for_the_rest(robot, &jam)?;
        let last = frames.iter().rfind(|frame| LEFT.drives(frame)).cloned();
        let Some(last) = last else { anyhow::bail!("no motion frame") };
        ensure!(last.at > jam.released, "no motion frame was left when the adapter went on");
        let again = robot.listener.wait(last.at, START, "stop behind the motion frames", |frame| {
            frame.at > last.at && LEFT.is_stop(frame)
        })?;
        // The guard answers the frame itself, and a stop in force is repeated every 20 ms, both rounded up to
        // ticks of 10 ms; twice that for a machine that emulates another.
        let after = robot.is_prompt(last.at, Duration::from_millis(60), &again)?;
        println!("stopped again {after:.2} ms after the last motion frame");
        ensure!(robot.verified(&LEFT)?.guarded() > 0, "the bus guard has heard none of them");
        robot.sim.wait_for_standstill(LEFT.node, START)
    })
}
