//! What happened: one record that is read whole or not at all.

use super::places::EVENT_WORDS;
use super::words::{EventKind, Reason};
use crate::ids::{MotorIndex, SessionId, SlotIndex, TripId};
use crate::layout::Capacity;
use crate::time::Nanos;

/// Words of an event behind its sequence word.
pub const EVENT_BODY: usize = EVENT_WORDS - 1;
/// Words of a motor set within an event: one bit per motor.
const SET_WORDS: usize = 4;

/// A set of motors, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MotorSet([u64; SET_WORDS]);

impl MotorSet {
    /// Adds a motor.
    pub fn insert(&mut self, motor: MotorIndex) {
        if let Some(word) = self.0.get_mut(usize::from(motor.0) / 64) {
            *word |= 1 << (motor.0 % 64);
        }
    }

    /// Whether the motor is in the set.
    #[must_use]
    pub fn contains(&self, motor: MotorIndex) -> bool {
        self.0.get(usize::from(motor.0) / 64).is_some_and(|word| word >> (motor.0 % 64) & 1 == 1)
    }

    /// The motors of the set in order.
    pub fn iter(self) -> impl Iterator<Item = MotorIndex> {
        (0..Capacity::MOST_MOTORS).map(MotorIndex).filter(move |motor| self.contains(*motor))
    }

    /// Whether no motor is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; SET_WORDS]
    }
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// When.
    pub at: Nanos,
    /// The trip it belongs to; [`TripId::NONE`] if none.
    pub trip: TripId,
    /// Why, for trips.
    pub reason: Option<Reason>,
    /// The session it is about; 0 if none.
    pub session: SessionId,
    /// Its slot.
    pub slot: SlotIndex,
    /// Its last accepted beat; of a trip of everything, the last of any session.
    pub last_beat: Nanos,
    /// The moment from which the motors should have been stopped: the deadline that passed, or when the
    /// supervisor was told.
    pub deadline: Nanos,
    /// When the first stop frame was handed to the kernel.
    pub first_stop: Nanos,
    /// When the last motor's first stop frame was handed to the kernel.
    pub all_stopped: Nanos,
    /// The motors it is about.
    pub motors: MotorSet,
}

impl Event {
    /// An event of that kind and moment about nothing in particular.
    #[must_use]
    pub fn new(kind: EventKind, at: Nanos) -> Self {
        Self {
            kind,
            at,
            trip: TripId::NONE,
            reason: None,
            session: SessionId::default(),
            slot: SlotIndex::default(),
            last_beat: Nanos::ZERO,
            deadline: Nanos::ZERO,
            first_stop: Nanos::ZERO,
            all_stopped: Nanos::ZERO,
            motors: MotorSet::default(),
        }
    }

    /// The event as words of shared memory.
    #[must_use]
    pub fn to_words(self) -> [u64; EVENT_BODY] {
        let reason = self.reason.map_or(0, Reason::number);
        let [a, b, c, d] = self.motors.0;
        [
            self.kind.number() | reason << 16 | u64::from(self.slot.0) << 32,
            self.at.0,
            self.trip.0,
            crate::beat::high_word(self.session.0),
            crate::beat::low_word(self.session.0),
            self.last_beat.0,
            self.deadline.0,
            self.first_stop.0,
            self.all_stopped.0,
            a,
            b,
            c,
            d,
            0,
            0,
        ]
    }

    /// The event that these words are; `None` for a kind that this program does not know.
    #[must_use]
    pub fn from_words(words: [u64; EVENT_BODY]) -> Option<Self> {
        let [what, at, trip, high, low, last_beat, deadline, first_stop, all_stopped, a, b, c, d, _, _] =
            words;
        #[expect(clippy::cast_possible_truncation, reason = "16 bits are left")]
        let slot = SlotIndex((what >> 32) as u16);
        Some(Self {
            kind: EventKind::from_number(what & 0xffff)?,
            at: Nanos(at),
            trip: TripId(trip),
            reason: Reason::from_number(what >> 16 & 0xffff),
            session: SessionId(crate::beat::join_words(high, low)),
            slot,
            last_beat: Nanos(last_beat),
            deadline: Nanos(deadline),
            first_stop: Nanos(first_stop),
            all_stopped: Nanos(all_stopped),
            motors: MotorSet([a, b, c, d]),
        })
    }
}
