//! The supervisor's own signs of life on CAN: drives that watch one stop by themselves when it ends.
//!
//! They come from the pass that looks after deadlines and from nowhere else, never from a timer of the kernel:
//! whoever hangs falls silent. In some families the frame also says which drives may run; those bits are
//! composed here, from what holds at the moment of sending.

use drivers::Frame;
use shm_proto::Nanos;

use super::Core;
use super::motor::Motor;
use super::wire::Wire;

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
}

impl Periodic {
    /// The frame as it is now.
    fn composed(&self, motors: &[Motor]) -> Frame {
        let permitted = self.marks.iter().filter(|(motor, _)| motors.get(*motor).is_some_and(Motor::may_run));
        permitted.fold(self.frame, |frame, (_, bits)| frame.marked(*bits))
    }
}

impl Core {
    /// Sends what is due.
    pub(super) fn beat_on_buses(&mut self, now: Nanos, wire: &mut impl Wire) {
        for index in 0..self.heartbeats.len() {
            if now >= self.heartbeats[index].due {
                self.beat(index, now, wire);
            }
        }
        for bus in 0..self.buses.len() {
            self.publish_bus(bus);
        }
    }

    /// Tells drives at once whether a motor may still run, on each bus where they are told at all.
    pub(super) fn permit(&mut self, motor: usize, now: Nanos, wire: &mut impl Wire) {
        for index in 0..self.heartbeats.len() {
            if self.heartbeats[index].marks.iter().any(|(marked, _)| *marked == motor) {
                self.beat(index, now, wire);
            }
        }
    }

    fn beat(&mut self, index: usize, now: Nanos, wire: &mut impl Wire) {
        let heartbeat = &mut self.heartbeats[index];
        heartbeat.due = now.after(heartbeat.period);
        let bus = heartbeat.bus;
        let frame = heartbeat.composed(&self.motors);
        self.send_one(bus, &frame, now, wire);
    }
}
