//! Sizes and places of both segments, in 64-bit words, and the hash that must be equal on both sides.

use crate::ids::{MotorIndex, SlotIndex};

/// How many sessions and motors the segments have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    sessions: u16,
    motors: u16,
}

impl Capacity {
    /// Unless the configuration says otherwise.
    pub const DEFAULT: Self = Self { sessions: 64, motors: 64 };
    /// More sessions than the largest known client server allows (Viam: 1025), rounded.
    pub const MOST_SESSIONS: u16 = 1024;
    /// Two full CAN buses of 127 CANopen nodes.
    pub const MOST_MOTORS: u16 = 256;

    /// A capacity in the allowed range; `None` when either number is 0 or too large.
    #[must_use]
    pub const fn new(sessions: u16, motors: u16) -> Option<Self> {
        let fits =
            sessions >= 1 && sessions <= Self::MOST_SESSIONS && motors >= 1 && motors <= Self::MOST_MOTORS;
        if fits { Some(Self { sessions, motors }) } else { None }
    }

    /// Number of session slots.
    #[must_use]
    pub const fn sessions(self) -> u16 {
        self.sessions
    }

    /// Number of motors.
    #[must_use]
    pub const fn motors(self) -> u16 {
        self.motors
    }

    /// Whether the slot exists.
    #[must_use]
    pub const fn has_slot(self, slot: SlotIndex) -> bool {
        slot.0 < self.sessions
    }

    /// Whether the motor exists.
    #[must_use]
    pub const fn has_motor(self, motor: MotorIndex) -> bool {
        motor.0 < self.motors
    }

    /// Every session slot.
    pub fn slots(self) -> impl Iterator<Item = SlotIndex> {
        (0..self.sessions).map(SlotIndex)
    }
}

/// Words of one beat record: one cache line, so that a beat touches one line only.
pub const RECORD_WORDS: usize = 8;
/// Beats a ring keeps. At the shortest window (30 ms, beaten every 6 ms) this is the last 0.4 s, at the
/// default window the last 25 s: enough to see how a session died.
#[cfg(not(loom))]
pub const RING_RECORDS: usize = 64;
/// The model checker tries every order of loads and stores, so a lap must be short there.
#[cfg(loom)]
pub const RING_RECORDS: usize = 2;
/// Words of one ring.
pub const RING_WORDS: usize = RECORD_WORDS * RING_RECORDS;

/// Words of the header of either segment.
pub const HEADER_WORDS: usize = 64;

/// First word of both segments: "LANYARD" and a version that changes when the header changes.
pub const MAGIC: u64 = u64::from_be_bytes(*b"LANYARD1");

/// Places in the beat segment: header, one change word per slot, one owner word per motor, one ring per
/// slot and one for the front itself.
#[derive(Clone, Copy, Debug)]
pub struct BeatLayout {
    capacity: Capacity,
    /// First word behind the change and owner words.
    rings: usize,
}

impl BeatLayout {
    /// The places for that capacity.
    #[must_use]
    pub const fn new(capacity: Capacity) -> Self {
        let words_before =
            round_to_line(capacity.sessions as usize + 1) + round_to_line(capacity.motors as usize);
        Self { capacity, rings: HEADER_WORDS + words_before }
    }

    /// The slot of the front's own beats: behind the last session.
    #[must_use]
    pub const fn front_slot(self) -> SlotIndex {
        SlotIndex(self.capacity.sessions)
    }

    /// The word that changes whenever a session of the slot opens or closes.
    #[must_use]
    pub const fn change(self, slot: SlotIndex) -> usize {
        HEADER_WORDS + slot.0 as usize
    }

    /// The owner word of a motor.
    #[must_use]
    pub const fn owner(self, motor: MotorIndex) -> usize {
        HEADER_WORDS + round_to_line(self.capacity.sessions as usize + 1) + motor.0 as usize
    }

    /// First word of the first record: behind it lie rings and nothing else.
    #[must_use]
    pub const fn first_record(self) -> usize {
        self.rings
    }

    /// First word of a slot's ring.
    #[inline]
    #[must_use]
    pub const fn ring(self, slot: SlotIndex) -> usize {
        self.rings + slot.0 as usize * RING_WORDS
    }

    /// First word of the record that holds the beat with that counter.
    #[must_use]
    pub const fn record(self, slot: SlotIndex, counter: u64) -> usize {
        self.ring(slot) + in_ring(counter)
    }

    /// Words of the whole segment.
    #[must_use]
    pub const fn words(self) -> usize {
        self.record(SlotIndex(self.capacity.sessions + 1), 0)
    }
}

/// Where, within its ring, the record begins that holds the beat with that counter.
#[inline]
#[must_use]
pub const fn in_ring(counter: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "below RING_RECORDS")]
    let index = (counter % RING_RECORDS as u64) as usize;
    index * RECORD_WORDS
}

const fn round_to_line(words: usize) -> usize {
    words.div_ceil(RECORD_WORDS) * RECORD_WORDS
}

/// Everything both sides must agree on, folded into one word. A front built from another layout has
/// another hash and is refused before it maps anything.
#[must_use]
pub const fn layout_hash() -> u64 {
    // FNV-1a over the numbers that define the layout; a hand-counted version stands for what no number
    // shows (the meaning of fields).
    const MEANING: u64 = 9;
    let numbers = [
        MAGIC,
        MEANING,
        RECORD_WORDS as u64,
        RING_RECORDS as u64,
        HEADER_WORDS as u64,
        crate::verdicts::SESSION_WORDS as u64,
        crate::verdicts::MOTOR_WORDS as u64,
        crate::verdicts::BUS_WORDS as u64,
        crate::verdicts::EVENT_WORDS as u64,
        crate::verdicts::EVENTS as u64,
        crate::verdicts::MOST_BUSES as u64,
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < numbers.len() {
        let bytes = numbers[at].to_le_bytes();
        let mut byte = 0;
        while byte < bytes.len() {
            hash = (hash ^ bytes[byte] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            byte += 1;
        }
        at += 1;
    }
    hash
}
