//! Health at the times of an installed robot: three motors are driven, nothing goes wrong, and nothing may be stopped.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::clock::Moment;
use tests::robot::{ARM, LEFT, MOVE, RIGHT, Robot, Setup};
use tests::wire::Motor;

use crate::client::Client;

const ALL: [&Motor; 3] = [&LEFT, &RIGHT, &ARM];
/// What each motor is told, rpm: 2 revolutions a second.
const RPM: f64 = 120.0;
/// Half of that, rev/s.
const TURNING_REV_PER_S: f64 = 1.0;
/// The frames of so long are looked at together.
const STEP: Duration = Duration::from_secs(1);
/// The job of the kernel is put off once in so long at least: each time its marker is sent (a tick of 5 ms, and a
/// loop that may be late).
const MARKER_PAUSE: Duration = Duration::from_millis(20);
/// The identifier of the marker on a bus with ODrives.
const MARKER: u32 = 0x1FBF_FFFF;

/// Drives for `span` and returns what was seen as a line of the results.
///
/// # Errors
/// Something was stopped, or is not well, or the scene failed; with what the programs have printed.
pub fn play(span: Duration) -> Result<Value> {
    let robot = Setup::base().with(&ARM).as_shipped().start()?;
    healthy(&robot, span).map_err(|error| error.context(robot.printed()))
}

fn healthy(robot: &Robot, span: Duration) -> Result<Value> {
    let clients = ALL.iter().map(|motor| drive(robot, motor)).collect::<Result<Vec<Client>>>()?;
    let begin = Moment::now();
    let (mut from, mut markers) = (begin, 0_u64);
    while from < begin + span {
        std::thread::sleep(STEP);
        let now = Moment::now();
        for frame in robot.listener.since(from)? {
            markers += u64::from(frame.id == MARKER);
            let stopped = ALL.iter().find(|motor| motor.is_stop(&frame) || motor.is_torque_off(&frame));
            ensure!(
                stopped.is_none(),
                "{frame} stopped a motor {} ms after the beginning",
                frame.at.millis_since(begin)
            );
        }
        robot.listener.forget(now);
        from = now;
    }
    for motor in ALL {
        robot.sim.wait_for_speed(motor.node, TURNING_REV_PER_S, STEP)?;
    }
    let events = robot.lanyard.events()?;
    let trip = events.iter().find(|event| event.kind() == "trip" && event.at() > begin);
    ensure!(trip.is_none(), "{trip:?}");
    let expected = span.as_millis() / MARKER_PAUSE.as_millis();
    ensure!(
        u128::from(markers) > expected,
        "only {markers} markers in {span:?}: the kernel's stop was not put off"
    );
    drop(clients);
    Ok(json!({ "seconds": span.as_secs(), "markers": markers, "stops": 0, "trips": 0 }))
}

/// Has a client of its own drive a motor.
fn drive(robot: &Robot, motor: &Motor) -> Result<Client> {
    let client = Client::connect(&robot.address)?;
    client.turn(motor.name, RPM)?;
    robot.sim.wait_for_speed(motor.node, TURNING_REV_PER_S, MOVE)?;
    Ok(client)
}
