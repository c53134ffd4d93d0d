//! The instruments themselves: what is recorded on the bus can be sent again, in every form a frame can have,
//! and the simulated drives live on an interface with and without CAN FD.

use std::time::Duration;

use anyhow::{Result, ensure};
use socketcan::id::FdFlags;
use tests::clock::Moment;
use tests::expect;
use tests::folder::Folder;
use tests::interface::{Changed, far_end};
use tests::intruder::Intruder;
use tests::listener::Listener;
use tests::simulation::Simulation;
use tests::wire::Seen;

/// Nothing here depends on how fast the machine is.
const SOON: Duration = Duration::from_secs(10);

/// Set_Axis_State of ODrive node 3, idle.
const IDLE: u32 = 0x067;

fn classic(id: u32, data: &[u8]) -> Seen {
    Seen { at: Moment(0), id, extended: false, remote: false, fd: None, data: data.to_vec() }
}

/// Sends a frame and waits until the listener has it so often, exactly as it is. All that it has ever heard
/// counts: a stamp from another clock may be a little earlier than the sending.
fn passes(intruder: &Intruder, listener: &Listener, frame: &Seen, times: usize) -> Result<Seen> {
    intruder.send_seen(frame)?;
    expect::within(SOON, &format!("{frame} has been seen {times} times"), || {
        let seen = listener.since(Moment(0)).map_err(|error| format!("{error:#}"))?;
        let same: Vec<_> =
            seen.iter().filter(|seen| **seen == Seen { at: seen.at, ..frame.clone() }).collect();
        match same.last() {
            Some(last) if same.len() == times => Ok((*last).clone()),
            _ => Err(format!("{} of {} frames are the same", same.len(), seen.len())),
        }
    })
}

/// Fails if the listener does not see FD frames or the 29-bit form, or a frame is sent again in another form
/// than it was seen in.
#[test]
fn recorded_frame_can_be_sent_again() -> Result<()> {
    let listener = Listener::open("vcan0")?;
    let intruder = Intruder::node("vcan0")?;
    let plain = classic(0x123, &[1, 2, 3]);
    let long: Vec<u8> = (0..64).collect();
    for frame in [
        plain.clone(),
        Seen { extended: true, ..plain.clone() },
        Seen { remote: true, data: vec![0; 8], ..plain.clone() },
        Seen { fd: Some(FdFlags::empty()), ..plain.clone() },
        Seen { fd: Some(FdFlags::BRS), extended: true, data: long, ..plain },
    ] {
        let recorded = passes(&intruder, &listener, &frame, 1)?;
        passes(&intruder, &listener, &recorded, 2)?;
    }
    Ok(())
}

/// Fails if a simulated drive without CAN FD obeys an FD frame, or is lost when one comes.
#[test]
fn drive_without_fd_makes_nothing_of_an_fd_frame() -> Result<()> {
    let folder = Folder::new()?;
    let sim = Simulation::start(
        &tests::process::programs()?,
        "vcan0",
        &["odrive:node=3,running=1".to_owned()],
        folder.file("sim.sock"),
    )?;
    let intruder = Intruder::node("vcan0")?;
    let idle = classic(IDLE, &[1, 0, 0, 0]);
    intruder.send_seen(&Seen { fd: Some(FdFlags::BRS), ..idle.clone() })?;
    intruder.send_seen(&Seen { extended: true, ..idle.clone() })?;
    // Frames arrive in order: what came before the one that stops it has been taken or left by then.
    intruder.send_seen(&idle)?;
    sim.wait_for_standstill(3, SOON)?;
    let report = sim.report(3)?;
    ensure!(report.stops("torque_off") == 1, "the drive obeyed more than one frame");
    ensure!(!report.enabled(), "the drive has torque");
    Ok(())
}

/// Fails if the simulated drives, the listener or the intruder need an interface with CAN FD.
#[test]
fn classic_interface_will_do() -> Result<()> {
    let folder = Folder::new()?;
    let changed = Changed::classic(&far_end("vcan1"))?;
    let listener = Listener::open("vcan1")?;
    let sim = Simulation::start(
        &tests::process::programs()?,
        "vcan1",
        &["odrive:node=3,running=1".to_owned()],
        folder.file("sim.sock"),
    )?;
    listener.wait(Moment(0), SOON, "heartbeat", |frame| frame.id == 0x061 && frame.fd.is_none())?;
    let intruder = Intruder::node("vcan1")?;
    let idle = classic(IDLE, &[1, 0, 0, 0]);
    ensure!(
        intruder.send_seen(&Seen { fd: Some(FdFlags::BRS), ..idle.clone() }).is_err(),
        "an FD frame was taken by an interface without FD"
    );
    intruder.send_seen(&idle)?;
    sim.wait_for_standstill(3, SOON)?;
    drop(sim);
    changed.restore()
}
