//! The supervisor's own signs of life on CAN: drives that watch one stop by themselves when it ends.
//!
//! They come from the pass that looks after deadlines and from nowhere else, never from a timer of the kernel:
//! whoever hangs falls silent. In some families the frame also says which drives may run; those bits are
//! composed here, from what holds at the moment of sending.
//!
//! A sign of life must not keep running what nothing else can stop. One motor that is not proven to stand still after its
//! last stage ends it: all others that hear it are stopped first. An axis that is to hold must not lose its torque by the
//! drive's own watchdog, so a sign of life that one hears goes on.

use drivers::Frame;
use shm_proto::Nanos;
use shm_proto::verdicts::{Event, EventKind, Reason};

use super::motor::Motor;
use super::wire::Wire;
use super::{Core, motor_index};

/// A frame that is sent over and over on one bus.
#[derive(Clone, Debug)]
pub struct Periodic {
    /// The bus.
    pub bus: usize,
    /// The frame, as it is while no motor may run.
    pub frame: Frame,
    /// How often, nanoseconds.
    pub period: u64,
    /// When next.
    pub due: Nanos,
    /// Motors whose running it permits, with their bits. None in families where the frame says nothing.
    pub marks: Vec<(usize, [u8; 8])>,
    /// All motors whose drives hear it.
    pub hearers: Vec<usize>,
    pub(super) voice: Voice,
}

/// Whether a sign of life is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    Speaks,
    Withdrawn,
}

impl Periodic {
    /// A frame that one motor hears, due at once.
    #[must_use]
    pub fn new(bus: usize, frame: Frame, period: u64, hearer: usize, marks: Vec<(usize, [u8; 8])>) -> Self {
        Self { bus, frame, period, due: Nanos::ZERO, marks, hearers: vec![hearer], voice: Voice::Speaks }
    }

    /// Whether it is no longer sent.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.voice == Voice::Withdrawn
    }

    /// Whether it feeds the watchdog of a drive that nothing has stopped, and no axis needs it to keep its torque.
    fn is_to_end(&self, motors: &[Motor]) -> bool {
        let hearers = || self.hearers.iter().filter_map(|index| motors.get(*index));
        hearers().any(Motor::is_beyond_stages) && !hearers().any(Motor::is_to_hold)
    }

    /// The frame as it is now.
    fn composed(&self, motors: &[Motor]) -> Frame {
        let permitted = self.marks.iter().filter(|(motor, _)| motors.get(*motor).is_some_and(Motor::may_run));
        permitted.fold(self.frame, |frame, (_, bits)| frame.marked(*bits))
    }
}

impl Core {
    /// Sends what is due.
    pub(super) fn beat_on_buses(&mut self, now: Nanos, wire: &mut dyn Wire) {
        for index in 0..self.heartbeats.len() {
            self.judge_voice(index, now, wire);
            if now >= self.heartbeats[index].due {
                self.beat(index, now, wire);
            }
        }
        for bus in 0..self.buses.len() {
            self.publish_bus(bus);
        }
    }

    /// Tells drives at once whether a motor may still run, on each bus where they are told at all.
    pub(super) fn permit(&mut self, motor: usize, now: Nanos, wire: &mut dyn Wire) {
        for index in 0..self.heartbeats.len() {
            if self.heartbeats[index].marks.iter().any(|(marked, _)| *marked == motor) {
                self.beat(index, now, wire);
            }
        }
    }

    /// Withdraws a sign of life once nothing that hears it is driven or being stopped, and gives it back when there is no
    /// reason left.
    fn judge_voice(&mut self, index: usize, now: Nanos, wire: &mut dyn Wire) {
        if !self.heartbeats[index].is_to_end(&self.motors) {
            self.heartbeats[index].voice = Voice::Speaks;
            return;
        }
        let mut all_done = true;
        for place in 0..self.heartbeats[index].hearers.len() {
            let hearer = self.heartbeats[index].hearers[place];
            self.trip_owner_of(hearer, Reason::HeartbeatWithdrawn, now, wire);
            let motor = &self.motors[hearer];
            all_done &= motor.is_at_rest() || motor.is_beyond_stages();
        }
        if all_done && self.heartbeats[index].voice == Voice::Speaks {
            self.heartbeats[index].voice = Voice::Withdrawn;
            let mut event = Event::new(EventKind::HeartbeatWithdrawn, now);
            for hearer in &self.heartbeats[index].hearers {
                event.motors.insert(motor_index(*hearer));
            }
            self.verdicts.event(&event);
        }
    }

    /// Whether a drive would be started without the sign of life that it watches.
    pub(super) fn lacks_sign_of_life(&self, motor: usize) -> bool {
        self.heartbeats
            .iter()
            .any(|heartbeat| heartbeat.hearers.contains(&motor) && heartbeat.is_to_end(&self.motors))
    }

    fn beat(&mut self, index: usize, now: Nanos, wire: &mut dyn Wire) {
        let heartbeat = &mut self.heartbeats[index];
        if heartbeat.voice == Voice::Withdrawn {
            return;
        }
        heartbeat.due = now.after(heartbeat.period);
        let bus = heartbeat.bus;
        let frame = heartbeat.composed(&self.motors);
        self.send_one(bus, &frame, now, wire);
    }
}
