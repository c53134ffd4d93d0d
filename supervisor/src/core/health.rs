//! How well each bus works, and what follows from it.
//!
//! Three witnesses: what the kernel says when a frame is handed over, what the interface reports in error
//! frames, and what its driver says of the controller's state. A controller that is error-passive can no
//! longer make itself heard, so a stop might not get through: whoever drives on that bus is stopped while
//! it may still work, as on a bus that is off or down.

use drivers::Frame;
use shm_proto::Nanos;
use shm_proto::verdicts::{BusHealth, Event, EventKind};

use super::wire::Wire;
use super::{Core, motor_index};

/// What an interface reports in one error frame. Source: `include/uapi/linux/can/error.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it says of the controller's state, if it does.
    pub health: Option<BusHealth>,
    /// The transmit and receive error counters, if it gives them.
    pub counters: Option<(u8, u8)>,
}

impl Report {
    const CONTROLLER: u32 = 0x004;
    const BUS_OFF: u32 = 0x040;
    const RESTARTED: u32 = 0x100;
    const COUNTERS: u32 = 0x200;
    /// In the second byte, one bit for each counter: receive or transmit at 96, at 128, and both below 96
    /// again.
    const WARNING: u8 = 0x0C;
    const PASSIVE: u8 = 0x30;
    const ACTIVE: u8 = 0x40;

    /// Reads the classes and details of an error frame.
    #[must_use]
    pub const fn new(classes: u32, details: [u8; 8]) -> Self {
        let controller = if classes & Self::CONTROLLER == 0 { 0 } else { details[1] };
        let health = if classes & Self::BUS_OFF != 0 {
            Some(BusHealth::BusOff)
        } else if controller & Self::PASSIVE != 0 {
            Some(BusHealth::Passive)
        } else if controller & Self::WARNING != 0 {
            Some(BusHealth::Warning)
        } else if controller & Self::ACTIVE != 0 || classes & Self::RESTARTED != 0 {
            Some(BusHealth::Active)
        } else {
            None
        };
        let counters = if classes & Self::COUNTERS == 0 { None } else { Some((details[6], details[7])) };
        Self { health, counters }
    }
}

/// Whether stops can be relied upon to get through.
const fn carries_stops(health: BusHealth) -> bool {
    match health {
        BusHealth::Unknown | BusHealth::Active | BusHealth::Warning => true,
        BusHealth::Passive | BusHealth::BusOff | BusHealth::Down => false,
    }
}

impl Core {
    /// The interface of a bus reports something.
    pub fn reported(&mut self, bus: usize, report: Report, now: Nanos, wire: &mut impl Wire) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        state.verdict.error_frames += 1;
        if let Some((transmit, receive)) = report.counters {
            state.verdict.tx_errors = u64::from(transmit);
            state.verdict.rx_errors = u64::from(receive);
        }
        if let Some(health) = report.health {
            self.bus_health(bus, health, now, wire);
        }
    }

    /// A bus is as well as that: learnt from a report or from the driver.
    pub fn bus_health(&mut self, bus: usize, health: BusHealth, now: Nanos, wire: &mut impl Wire) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        if state.verdict.health == health {
            return;
        }
        state.verdict.health = health;
        if carries_stops(health) {
            self.bus_works(bus, now, wire);
        } else {
            self.bus_fails(bus, now, wire);
        }
        self.publish_bus(bus);
    }

    /// The controller's error counters, as its driver gives them.
    pub fn bus_counters(&mut self, bus: usize, transmit: u16, receive: u16) {
        if let Some(state) = self.buses.get_mut(bus) {
            state.verdict.tx_errors = u64::from(transmit);
            state.verdict.rx_errors = u64::from(receive);
        }
    }

    /// Whether the interface tells which frames were acknowledged on the wire.
    pub fn bus_confirms(&mut self, bus: usize, confirms: bool) {
        if let Some(state) = self.buses.get_mut(bus) {
            state.verdict.confirms = u64::from(confirms);
        }
    }

    /// A frame of ours was acknowledged on the wire.
    pub fn confirmed(&mut self, bus: usize, frame: &Frame, now: Nanos) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        state.verdict.confirmed += 1;
        for motor in &mut self.motors {
            if motor.is_on(bus) {
                motor.note_confirmed(frame, now);
            }
        }
    }

    /// A bus does not work: sessions that drive motors on it are tripped.
    pub fn bus_down(&mut self, bus: usize, errno: i32, now: Nanos, wire: &mut impl Wire) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        state.verdict.last_error = u64::from(errno.unsigned_abs());
        self.bus_health(bus, BusHealth::Down, now, wire);
    }

    /// The interface of a bus is up again, and nothing is known of its controller.
    pub fn bus_up(&mut self, bus: usize, now: Nanos, wire: &mut impl Wire) {
        self.bus_health(bus, BusHealth::Unknown, now, wire);
    }

    /// Stops who drives on a bus that fails, and says so once.
    fn bus_fails(&mut self, bus: usize, now: Nanos, wire: &mut impl Wire) {
        self.trip_bus(bus, now, wire);
        let Some(state) = self.buses.get_mut(bus) else { return };
        if state.verdict.up == 1 {
            state.verdict.up = 0;
            self.verdicts.event(&self.event_of_bus(EventKind::BusDown, bus, now));
        }
    }

    /// A bus works again: motors that could not be reached are stopped from the first stage on.
    fn bus_works(&mut self, bus: usize, now: Nanos, wire: &mut impl Wire) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        if state.verdict.up == 1 {
            return;
        }
        state.verdict.up = 1;
        for index in 0..self.motors.len() {
            if self.motors[index].is_on(bus) {
                self.restart_stop(index, now, wire);
            }
        }
        self.verdicts.event(&self.event_of_bus(EventKind::BusUp, bus, now));
    }

    fn event_of_bus(&self, kind: EventKind, bus: usize, now: Nanos) -> Event {
        let mut event = Event::new(kind, now);
        for (index, motor) in self.motors.iter().enumerate() {
            if motor.is_on(bus) {
                event.motors.insert(motor_index(index));
            }
        }
        event
    }

    /// The kernel refused a frame because the interface does not work. Only marked here; `tend_motors` trips
    /// the sessions of the bus right after the frames at hand, so that one dead bus never delays the stop on
    /// another.
    pub(super) fn mark_down(&mut self, bus: usize, now: Nanos) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        state.verdict.health = BusHealth::Down;
        if state.verdict.up == 1 {
            state.verdict.up = 0;
            self.verdicts.event(&self.event_of_bus(EventKind::BusDown, bus, now));
        }
    }
}
