//! What front and supervisor know of each other: the beat segment, as far as decisions depend on it.
//!
//! The verdict segment has no place of its own here: what it holds (grant, session states, motor, latch)
//! is published within the step that decides it, so the front reads it from [`crate::supervisor`].

use shm_proto::verdicts::SessionState;

/// Session slots.
pub const SLOTS: u8 = 2;

/// An owner word: slot and incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The slot.
    pub slot: u8,
    /// Which session of the slot, counted from 1.
    pub incarnation: u8,
}

/// The last word in a ring that was not a mere sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// The session is open.
    Alive,
    /// It said goodbye.
    Close,
}

/// One ring. Beats are not modelled: a session that beats in time changes nothing, and one that does not
/// is the action `Expire`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ring {
    /// The newest session of the slot; 0 if there was none.
    pub incarnation: u8,
    /// Its last word.
    pub word: Word,
}

/// What the front has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Beats {
    /// One ring per slot.
    pub rings: [Ring; SLOTS as usize],
    /// The session that used the motor last.
    pub owner_word: Option<Owner>,
    /// Whether the process beats for itself.
    pub front_beats: bool,
}

impl Beats {
    /// A fresh segment.
    pub const FRESH: Self = Self {
        rings: [Ring { incarnation: 0, word: Word::Close }; SLOTS as usize],
        owner_word: None,
        front_beats: true,
    };

    /// The newest session of a slot.
    #[must_use]
    pub const fn newest(&self, slot: u8) -> Owner {
        Owner { slot, incarnation: self.rings[slot as usize].incarnation }
    }
}

/// A slot as the supervisor knows and publishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Which session of the slot.
    pub incarnation: u8,
    /// What became of it.
    pub state: SessionState,
}

impl Session {
    /// Nobody yet.
    pub const VACANT: Self = Self { incarnation: 0, state: SessionState::Vacant };
}
