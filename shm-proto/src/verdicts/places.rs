//! Where each word of the verdict segment lies.

use crate::ids::{MotorIndex, SlotIndex};
use crate::layout::{Capacity, HEADER_WORDS};

/// Words of one session's entry.
pub const SESSION_WORDS: usize = 8;
/// Words of one motor's entry.
pub const MOTOR_WORDS: usize = 32;
/// Words of one bus's entry.
pub const BUS_WORDS: usize = 24;
/// Words of one event, its sequence word included.
pub const EVENT_WORDS: usize = 16;
/// Events kept; the oldest is overwritten.
#[cfg(not(loom))]
pub const EVENTS: usize = 256;
/// Few for the model checker, which pays for every word.
#[cfg(loom)]
pub const EVENTS: usize = 2;
/// More CAN interfaces than any robot computer carries.
pub const MOST_BUSES: usize = 16;

// Places in the header.
pub(super) const AT_MAGIC: usize = 0;
pub(super) const AT_LAYOUT: usize = 1;
pub(super) const AT_CONFIG: usize = 2;
pub(super) const AT_SESSIONS: usize = 3;
pub(super) const AT_MOTORS: usize = 4;
pub(super) const AT_BUSES: usize = 5;
pub(super) const AT_PID: usize = 6;
pub(super) const AT_STARTED: usize = 7;
pub(super) const AT_LOOP: usize = 8;
pub(super) const AT_LOOP_TIME: usize = 9;
pub(super) const AT_PHASE: usize = 10;
pub(super) const AT_DEGRADED: usize = 11;
pub(super) const AT_LATCH: usize = 12;
pub(super) const AT_POLICY: usize = 13;
pub(super) const AT_GENERATION: usize = 14;
pub(super) const AT_FRONT_PID: usize = 15;
pub(super) const AT_FRONT_BEAT: usize = 16;
pub(super) const AT_EVENT_COUNT: usize = 17;
pub(super) const AT_MOTORS_USED: usize = 18;
pub(super) const AT_PREDECESSOR: usize = 19;
pub(super) const AT_PREDECESSOR_SEEN: usize = 20;
pub(super) const AT_OPEN: usize = 21;
pub(super) const AT_WATCHDOG_RESET: usize = 22;
pub(super) const AT_PRESSED: usize = 23;
pub(super) const AT_COUNTERS: usize = 24;
pub(super) const AT_REJECTS: usize = 48;
pub(super) const AT_LATCH_CHANGES: usize = 60;
pub(super) const AT_LATCHES_KEPT: usize = 61;

pub(super) const NAME_WORDS: usize = 4;
/// Bytes a motor's or bus's name may have.
pub const NAME_BYTES: usize = NAME_WORDS * 8;

// Places in a session's entry.
pub(super) const SESSION_HIGH: usize = 0;
pub(super) const SESSION_LOW: usize = 1;
pub(super) const SESSION_STATE: usize = 2;
pub(super) const SESSION_DEADLINE: usize = 3;
pub(super) const SESSION_LAST_BEAT: usize = 4;
pub(super) const SESSION_TRIP: usize = 5;
pub(super) const SESSION_BEATS: usize = 6;
pub(super) const SESSION_WINDOW: usize = 7;

// Places in a motor's entry.
pub(super) const MOTOR_GRANT: usize = 0;
pub(super) const MOTOR_STATE: usize = 1;
pub(super) const MOTOR_STAGE: usize = 2;
pub(super) const MOTOR_TRIP: usize = 3;
pub(super) const MOTOR_REASON: usize = 4;
pub(super) const MOTOR_FIRST_STOP: usize = 5;
pub(super) const MOTOR_STANDSTILL: usize = 6;
pub(super) const MOTOR_STOPS_SENT: usize = 7;
pub(super) const MOTOR_VELOCITY: usize = 8;
pub(super) const MOTOR_POSITION: usize = 9;
pub(super) const MOTOR_POWER: usize = 10;
pub(super) const MOTOR_FAULT: usize = 11;
pub(super) const MOTOR_FEEDBACK: usize = 12;
pub(super) const MOTOR_GUARDED: usize = 13;
pub(super) const MOTOR_BUS: usize = 14;
pub(super) const MOTOR_LATCHED: usize = 15;
pub(super) const MOTOR_NAME: usize = 16;
pub(super) const MOTOR_CONFIRMED: usize = 20;
pub(super) const MOTOR_PAST_STANDSTILL: usize = 21;
pub(super) const MOTOR_PAST_FEEDBACK: usize = 22;
pub(super) const MOTOR_VIOLATIONS: usize = 23;
pub(super) const MOTOR_MOVES: usize = 24;
/// A velocity or position that nobody has measured yet. No speed has it, and only one odd NaN does.
pub(super) const NO_READING: u64 = u64::MAX;

// Places in a bus's entry.
pub(super) const BUS_STATE: usize = 0;
pub(super) const BUS_SENT: usize = 1;
pub(super) const BUS_ERRORS: usize = 2;
pub(super) const BUS_LAST_ERROR: usize = 3;
pub(super) const BUS_RECEIVED: usize = 4;
pub(super) const BUS_HEALTH: usize = 5;
pub(super) const BUS_CONFIRMED: usize = 6;
pub(super) const BUS_ERROR_FRAMES: usize = 7;
pub(super) const BUS_NAME: usize = 8;
pub(super) const BUS_QUEUE_FULL: usize = 12;
pub(super) const BUS_TX_ERRORS: usize = 13;
pub(super) const BUS_RX_ERRORS: usize = 14;
pub(super) const BUS_CONFIRMS: usize = 15;
pub(super) const BUS_DISBELIEVED: usize = 16;
pub(super) const BUS_DISBELIEVED_AT: usize = 17;

#[derive(Clone, Copy, Debug)]
pub(super) struct VerdictLayout {
    pub(super) capacity: Capacity,
}

impl VerdictLayout {
    pub(super) const fn session(self, slot: SlotIndex) -> usize {
        HEADER_WORDS + slot.0 as usize * SESSION_WORDS
    }

    pub(super) const fn motor(self, motor: MotorIndex) -> usize {
        self.session(SlotIndex(self.capacity.sessions())) + motor.0 as usize * MOTOR_WORDS
    }

    pub(super) const fn bus(self, bus: usize) -> usize {
        self.motor(MotorIndex(self.capacity.motors())) + bus * BUS_WORDS
    }

    pub(super) const fn event(self, number: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "below EVENTS")]
        let index = (number % EVENTS as u64) as usize;
        self.bus(MOST_BUSES) + index * EVENT_WORDS
    }

    pub(super) const fn words(self) -> usize {
        self.bus(MOST_BUSES) + EVENTS * EVENT_WORDS
    }
}
