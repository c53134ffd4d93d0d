//! Misbehaviour that a test can order at run time, and what a drive has seen and sent.

use serde_json::{Value, json};

use super::Time;

/// The ways of stopping a motor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ramp down in the loop: velocity zero, or halt.
    Controlled,
    /// The drive's emergency ramp or e-stop message.
    Quick,
    /// Take the torque away.
    TorqueOff,
}

/// Which kinds of stop commands have no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    /// [`Stop::Controlled`]
    pub controlled: bool,
    /// [`Stop::Quick`]
    pub quick: bool,
    /// [`Stop::TorqueOff`]
    pub torque_off: bool,
}

/// An order for one drive from the control socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// Whether the stops marked in the mask have no effect from now on. Stops not marked are left as they are.
    Ignore(Ignore, bool),
    /// Whether a command of zero speed (ODrive) or a quick stop or zero speed (CiA 402) has no effect.
    IgnoreVelocityZero(bool),
    /// Whether the drive sends nothing at all, though it still obeys.
    Mute(bool),
    /// Whether the drive neither hears nor sends, as if unplugged.
    Offline(bool),
    /// Whether cyclic encoder feedback is missing while heartbeats go on.
    FeedbackLoss(bool),
    /// A fault of this code arises; 0 takes all faults away.
    Fault(u32),
    /// Whether the shaft is blocked.
    Jam(bool),
    /// Something turns the shaft at this velocity (rev/s), or nothing does any more.
    Push(Option<f64>),
    /// Power off and on again: what injected orders changed stays changed.
    PowerCycle,
    /// From now on the first stop of each kind is noted anew.
    Mark,
}

/// How a drive misbehaves, and its counters.
#[derive(Debug, Default)]
pub struct Behaviour {
    /// Stops without effect.
    pub ignore: Ignore,
    /// Sends nothing.
    pub mute: bool,
    /// Neither hears nor sends.
    pub offline: bool,
    /// No cyclic encoder feedback.
    pub feedback_loss: bool,
    /// Frames that were addressed to this drive.
    pub frames_seen: usize,
    /// Frames that this drive sent.
    pub frames_sent: usize,
    /// Frames addressed to this drive that made no sense: too short, unknown, refused.
    pub frames_refused: usize,
    stops: [u32; 3],
    stops_ignored: u32,
    /// When the first stop of each kind arrived since [`Order::Mark`].
    first_stops: [Option<Time>; 3],
}

impl Behaviour {
    /// Whether nothing of this drive reaches the bus.
    pub fn silent(&self) -> bool {
        self.mute || self.offline
    }

    /// Counts a stop command; true if it must have no effect.
    pub fn refuses(&mut self, stop: Stop) -> bool {
        let (count, ignored) = match stop {
            Stop::Controlled => (&mut self.stops[0], self.ignore.controlled),
            Stop::Quick => (&mut self.stops[1], self.ignore.quick),
            Stop::TorqueOff => (&mut self.stops[2], self.ignore.torque_off),
        };
        *count = count.saturating_add(1);
        self.stops_ignored = self.stops_ignored.saturating_add(u32::from(ignored));
        ignored
    }

    /// How many stops of each kind have arrived.
    pub fn stops(&self) -> [u32; 3] {
        self.stops
    }

    /// Notes the moment of the first stops, given how many there were before it.
    pub fn note_stops(&mut self, before: [u32; 3], now: Time) {
        for (first, (count, old)) in self.first_stops.iter_mut().zip(self.stops.iter().zip(before)) {
            if *count > old {
                first.get_or_insert(now);
            }
        }
    }

    /// Carries out the orders that need no knowledge of the drive.
    pub fn order(&mut self, order: &Order) {
        match *order {
            Order::Ignore(which, on) => {
                let set = |flag: &mut bool, chosen: bool| *flag = if chosen { on } else { *flag };
                set(&mut self.ignore.controlled, which.controlled);
                set(&mut self.ignore.quick, which.quick);
                set(&mut self.ignore.torque_off, which.torque_off);
            }
            Order::Mute(on) => self.mute = on,
            Order::Offline(on) => self.offline = on,
            Order::FeedbackLoss(on) => self.feedback_loss = on,
            Order::Mark => self.first_stops = [None; 3],
            Order::IgnoreVelocityZero(_)
            | Order::Fault(_)
            | Order::Jam(_)
            | Order::Push(_)
            | Order::PowerCycle => {}
        }
    }

    /// The part of a status report that is the same for all drives, added to `status`.
    pub fn report(&self, status: &mut Value) {
        let [controlled, quick, torque_off] = self.stops;
        status["frames_seen"] = json!(self.frames_seen);
        status["frames_sent"] = json!(self.frames_sent);
        status["frames_refused"] = json!(self.frames_refused);
        status["stops_seen"] = json!({
            "controlled": controlled, "quick": quick, "torque_off": torque_off, "ignored": self.stops_ignored,
        });
        let [controlled, quick, torque_off] = self.first_stops.map(|at| at.map(|at| at.as_secs_f64()));
        status["first_stops"] = json!({ "controlled": controlled, "quick": quick, "torque_off": torque_off });
        status["ignore"] = json!({
            "controlled": self.ignore.controlled,
            "quick": self.ignore.quick,
            "torque_off": self.ignore.torque_off,
        });
        status["mute"] = json!(self.mute);
        status["offline"] = json!(self.offline);
        status["feedback_loss"] = json!(self.feedback_loss);
    }
}
