//! Whose arbitration ids are whose: what drives on one bus may and may not have in common.

use std::collections::HashMap;

use drivers::{Amperes, ArbitrationId, Drive, Frame, FrameList, RevolutionsPerSecond, Setpoint};

use crate::reader::{Problems, Span};
use crate::{Bus, Motor};

/// Ids that are taken, bus by bus.
#[derive(Debug, Default)]
pub struct Ids {
    /// By one motor alone.
    owned: HashMap<(usize, ArbitrationId), String>,
    /// By all motors of a family: the family, and the first motor of it.
    shared: HashMap<(usize, ArbitrationId), (&'static str, String)>,
}

impl Ids {
    /// Takes the ids of a motor's drive on a bus; what to say when one is taken already.
    pub fn take(&mut self, bus: usize, bus_name: &str, motor: &str, drive: &Drive) -> Result<(), String> {
        let belongs = |id: ArbitrationId, other: &str| {
            format!(
                "needs arbitration id 0x{id} on bus \"{bus_name}\", which belongs to motor \"{other}\"; give \
                 one of them another node id"
            )
        };
        for id in &drive.owns {
            if let Some(other) = self.owned.get(&(bus, *id)).filter(|other| *other != motor) {
                return Err(belongs(*id, other));
            }
            if let Some((family, other)) = self.shared.get(&(bus, *id)) {
                return Err(common(*id, bus_name, family, other));
            }
        }
        for id in &drive.shares {
            if let Some(other) = self.owned.get(&(bus, *id)).filter(|other| *other != motor) {
                return Err(belongs(*id, other));
            }
            let shared = self.shared.get(&(bus, *id)).filter(|(family, _)| *family != drive.family);
            if let Some((family, other)) = shared {
                return Err(common(*id, bus_name, family, other));
            }
        }
        self.owned.extend(drive.owns.iter().map(|id| ((bus, *id), motor.to_owned())));
        for id in &drive.shares {
            self.shared.entry((bus, *id)).or_insert_with(|| (drive.family, motor.to_owned()));
        }
        Ok(())
    }
}

fn common(id: ArbitrationId, bus: &str, family: &str, other: &str) -> String {
    format!(
        "needs arbitration id 0x{id} on bus \"{bus}\", which {family} drives (motor \"{other}\") have in \
         common there; put one of them on another bus"
    )
}

/// The heartbeat that a drive watches comes from the supervisor; no drive may speak on its id or take it
/// for a command.
pub fn heartbeats_are_free(problems: &mut Problems, motors: &[Motor], spans: &[Span], buses: &[Bus]) {
    for (motor, span) in motors.iter().zip(spans) {
        let Some(heartbeat) = &motor.drive.heartbeat else { continue };
        let id = heartbeat.frame.id();
        for bus in motor.buses() {
            let other = motors.iter().find(|other| other.is_on(bus) && other.drive.owns.contains(&id));
            if let Some(other) = other {
                let text = format!(
                    "motor \"{}\": the supervisor's heartbeat has arbitration id 0x{id} on bus \"{}\", which \
                     belongs to motor \"{}\"; choose another master_node",
                    motor.name, buses[bus].name, other.name
                );
                problems.note(span.clone(), text);
            }
        }
    }
}

/// A frame that commands several motors stops all of them, so they have to belong to one another: members of
/// one base or upstream resource (`together`), reached by the same buses. Two clients could otherwise drive what only
/// one frame can command.
pub fn joint_frames_are_whole(
    problems: &mut Problems,
    motors: &[Motor],
    spans: &[Span],
    together: &[Vec<usize>],
) {
    let belong = |one: usize, other: usize| {
        together.iter().any(|group| group.contains(&one))
            && together.iter().all(|group| group.contains(&one) == group.contains(&other))
    };
    for (index, (motor, span)) in motors.iter().zip(spans).enumerate() {
        let Some(slot) = motor.drive.slot else { continue };
        let shares = |other: &&Motor| {
            other.buses().any(|bus| motor.is_on(bus)) && other.drive.slot.is_some_and(|its| its.id == slot.id)
        };
        let Some((first, other)) = motors.iter().enumerate().take(index).find(|(_, other)| shares(other))
        else {
            continue;
        };
        let both = format!(
            "motor \"{}\": it and motor \"{}\" are commanded by one frame, 0x{}",
            motor.name, other.name, slot.id
        );
        if (motor.bus, motor.second_bus) != (other.bus, other.second_bus) {
            problems.note(
                span.clone(),
                format!("{both}, so \"bus\" and \"second_bus\" must be the same for both"),
            );
        }
        if !belong(index, first) {
            problems.note(
                span.clone(),
                format!(
                    "{both}, so only one session can drive them; make both members of one [[base]] or of one of \
                     [upstream.resources], or give one of them an id in another frame"
                ),
            );
        }
    }
}

/// Whether a command for one motor would move another: the same place in a joint frame, two groups under one
/// command, a frame of the `frames` profile that another drive understands. Whoever drives one would drive both.
pub fn commands_are_apart(problems: &mut Problems, motors: &[Motor], spans: &[Span]) {
    for (index, (motor, span)) in motors.iter().zip(spans).enumerate() {
        let neighbours = motors.iter().take(index).filter(|other| other.buses().any(|bus| motor.is_on(bus)));
        for other in neighbours.filter(|other| moves(motor, other) || moves(other, motor)) {
            let text = format!(
                "motor \"{}\": a command for it and one for motor \"{}\" on the same bus move the other, too; give \
                 them different ids or places, or put one on another bus",
                motor.name, other.name
            );
            problems.note(span.clone(), text);
        }
    }
}

/// Whether the fastest commands of one motor would move the other.
fn moves(one: &Motor, other: &Motor) -> bool {
    let fastest = one.drive.max_speed.0;
    let frames = [fastest, -fastest].map(|speed| match one.drive.setpoint {
        Setpoint::Velocity => one.drive.protocol.velocity(RevolutionsPerSecond(speed)),
        Setpoint::Current(law) => one.drive.protocol.current(Amperes(law.limit.0.copysign(speed))),
    });
    // Besides the joint frame, motors of one joint frame may be told things in common.
    let joint = one.drive.slot.zip(other.drive.slot).filter(|(a, b)| a.id == b.id).map(|(slot, _)| slot.id);
    let is_meant = |frame: &&Frame| joint.is_none_or(|id| frame.id() == id);
    frames.iter().flat_map(FrameList::as_slice).filter(is_meant).any(|frame| other.drive.is_motion(frame))
}

/// Drives that are not to be stopped all at once on a bus where others of their family belong to somebody else.
pub fn without_broadcast(
    broadcast: Option<Frame>,
    motor_buses: impl Iterator<Item = usize>,
    buses: &[Bus],
) -> Option<Frame> {
    let mut motor_buses = motor_buses;
    let allowed = motor_buses.all(|bus| buses[bus].broadcasts == crate::Broadcasts::Allowed);
    broadcast.filter(|_| allowed)
}
