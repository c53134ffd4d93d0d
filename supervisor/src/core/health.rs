//! How well each bus works, and what follows from it.
//!
//! Three witnesses: what the kernel says when a frame is handed over, what the interface reports in error
//! frames, and what its driver says of the controller's state. A controller that is error-passive can hardly
//! make itself heard any more, so a stop might not get through: whoever drives on that bus is stopped while
//! it may still work. Its frames may get through all the same, so every stage of the stop is sent on it. On a
//! bus that is off or down nothing does: the stop begins again, gently, when it is back.

use drivers::Frame;
use shm_proto::Nanos;
use shm_proto::verdicts::{BusHealth, BusVerdict, Event, EventKind};

use super::origin::{Drives, Origin};
use super::wire::Wire;
use super::{Bus, Core, motor_index};

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

/// What a stop can expect of a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Frames get through.
    Well,
    /// They may.
    Doubtful,
    /// None does.
    Gone,
}

impl Reach {
    const fn of(health: BusHealth) -> Self {
        match health {
            BusHealth::Unknown | BusHealth::Active | BusHealth::Warning => Self::Well,
            BusHealth::Passive => Self::Doubtful,
            BusHealth::BusOff | BusHealth::Down => Self::Gone,
        }
    }
}

/// What the event log has of a bus.
#[derive(Debug)]
pub(super) struct BusLog {
    /// Whether it works, in the words of `BusVerdict::up`.
    up: u64,
    /// Events since then.
    events: u32,
    since: Nanos,
}

/// Events of one bus in one pause: that it went, and that it came back.
const MOST_BUS_EVENTS: u32 = 2;

impl BusLog {
    /// Nothing is told: a bus that was just opened works.
    pub(super) const NOTHING: Self = Self { up: 1, events: 0, since: Nanos::ZERO };

    /// Counts an event, if there is room for one.
    fn may_be_told(&mut self, now: Nanos, pause: u64) -> bool {
        if now.since(self.since) >= pause {
            (self.events, self.since) = (0, now);
        }
        let may = self.events < MOST_BUS_EVENTS;
        self.events += u32::from(may);
        may
    }
}

impl Bus {
    /// A bus of which nothing is known.
    pub(super) const FRESH: Self =
        Self { verdict: BusVerdict::FRESH, log: BusLog::NOTHING, drives: Drives::OnTheWire };

    pub(super) const fn reach(&self) -> Reach {
        Reach::of(self.verdict.health)
    }

    fn learn(&mut self, health: BusHealth) {
        self.verdict.health = health;
        self.verdict.up = u64::from(matches!(self.reach(), Reach::Well));
    }
}

impl Core {
    /// An error frame came in on a bus: its interface reports something, unless a program of this computer made it up.
    pub fn reported(&mut self, bus: usize, origin: Origin, report: Report, now: Nanos, wire: &mut dyn Wire) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        if !state.believes(origin) {
            self.disbelieve(bus, now);
            return;
        }
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
    pub fn bus_health(&mut self, bus: usize, health: BusHealth, now: Nanos, wire: &mut dyn Wire) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        if state.verdict.health == health {
            return;
        }
        let before = state.reach();
        state.learn(health);
        let after = state.reach();
        if after != Reach::Well {
            self.trip_bus(bus, now, wire);
        }
        if before == Reach::Gone && after != Reach::Gone {
            self.restart_stops(bus, now, wire);
        }
        self.tell_bus(bus, now);
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
    pub fn bus_down(&mut self, bus: usize, errno: i32, now: Nanos, wire: &mut dyn Wire) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        state.verdict.last_error = u64::from(errno.unsigned_abs());
        self.bus_health(bus, BusHealth::Down, now, wire);
    }

    /// The interface of a bus is up again, and nothing is known of its controller.
    pub fn bus_up(&mut self, bus: usize, now: Nanos, wire: &mut dyn Wire) {
        self.bus_health(bus, BusHealth::Unknown, now, wire);
    }

    /// A bus works again: motors that could not be reached are stopped from the first stage on.
    fn restart_stops(&mut self, bus: usize, now: Nanos, wire: &mut dyn Wire) {
        for index in 0..self.motors.len() {
            if self.motors[index].is_on(bus) {
                self.restart_stop(index, now, wire);
            }
        }
    }

    /// Writes into the event log whether a bus works, if that is news. After a few such events a little later, and only what
    /// holds then: a bus that comes and goes must not push the evidence of a stop out of the log.
    pub(super) fn tell_bus(&mut self, bus: usize, now: Nanos) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        if state.verdict.up == state.log.up || !state.log.may_be_told(now, self.settings.violation_pause) {
            return;
        }
        state.log.up = state.verdict.up;
        let kind = if state.verdict.up == 1 { EventKind::BusUp } else { EventKind::BusDown };
        self.verdicts.event(&self.event_of_bus(kind, bus, now));
    }

    pub(super) fn event_of_bus(&self, kind: EventKind, bus: usize, now: Nanos) -> Event {
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
        state.learn(BusHealth::Down);
        self.tell_bus(bus, now);
    }
}
