//! Motors that have a frame in common: a broadcast that stops them all, or a frame that commands them all.
//!
//! A broadcast goes out only when *every* motor it reaches is to be stopped anyway; it never touches a motor of
//! another session. A frame that commands several motors cannot be sent for one alone, so the motors in it
//! follow one session at a time and are stopped together.

use drivers::Frame;
use shm_proto::Nanos;

use super::motor::Motor;
use super::wire::Wire;
use super::{Core, motor_index};

/// A frame that stops several motors of one bus at once.
#[derive(Clone, Debug)]
pub(super) struct Broadcast {
    bus: usize,
    frame: Frame,
    motors: Vec<usize>,
}

/// The broadcasts there are: one for each bus and family whose motors there all have the same one. A single
/// motor gains nothing by it.
pub(super) fn broadcasts(motors: &[Motor], buses: usize) -> Vec<Broadcast> {
    let mut all = Vec::new();
    for bus in 0..buses {
        let mut families: Vec<&str> = Vec::new();
        for motor in motors.iter().filter(|motor| motor.is_on(bus)) {
            if families.contains(&motor.family()) {
                continue;
            }
            families.push(motor.family());
            let reached: Vec<usize> = (0..motors.len())
                .filter(|index| motors[*index].is_on(bus) && motors[*index].family() == motor.family())
                .collect();
            let Some(frame) = motor.broadcast() else { continue };
            let agreed = reached.iter().all(|index| motors[*index].broadcast() == Some(frame));
            if agreed && reached.len() > 1 {
                all.push(Broadcast { bus, frame, motors: reached });
            }
        }
    }
    all
}

/// For each motor, the first of those it shares a command frame with, which names the unit; none for a motor that
/// is commanded alone, so that its stop looks for no others.
pub(super) fn units(motors: &[Motor]) -> Vec<Option<usize>> {
    let is_mate =
        |index: usize, other: usize| index != other && motors[other].shares_frame_with(&motors[index]);
    let unit = |index: usize| {
        let mate = (0..motors.len()).find(|other| is_mate(index, *other))?;
        Some(mate.min(index))
    };
    (0..motors.len()).map(unit).collect()
}

impl Core {
    /// Sends the broadcasts that reach no motor but those in `meant`. Their grants go first: a front that looks
    /// at its grant after sending then knows.
    pub(super) fn broadcast(&mut self, meant: impl Fn(&Motor) -> bool, now: Nanos, wire: &mut dyn Wire) {
        for index in 0..self.broadcasts.len() {
            let Broadcast { bus, frame, motors } = &self.broadcasts[index];
            if !motors.iter().all(|motor| meant(&self.motors[*motor])) {
                continue;
            }
            for motor in motors {
                self.verdicts.grant(motor_index(*motor), None);
            }
            let (bus, frame) = (*bus, *frame);
            if self.send_one(bus, &frame, now, wire) {
                self.tally.stop_frames += 1;
            }
        }
    }

    /// Whether another motor shares a command frame with this one.
    pub(super) fn are_mates(&self, one: usize, other: usize) -> bool {
        one != other && self.units[one].is_some() && self.units[one] == self.units[other]
    }

    /// Whether any other motor does.
    pub(super) fn has_mates(&self, motor: usize) -> bool {
        self.units[motor].is_some()
    }
}
