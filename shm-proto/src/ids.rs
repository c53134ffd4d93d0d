//! Identities, each with its own type so that none is passed for another.

use core::fmt;
use core::str::FromStr;

/// A session as its client knows it: 128 random bits, printed as a UUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            hex >> 96,
            (hex >> 80) & 0xffff,
            (hex >> 64) & 0xffff,
            (hex >> 48) & 0xffff,
            hex & 0xffff_ffff_ffff
        )
    }
}

/// Which session slot, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotIndex(pub u16);

/// Which motor, counted from 0 in the order of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MotorIndex(pub u16);

/// Which hand-over of a beat segment: a front that restarts gets a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// Which session of a slot: every new session in a slot has a higher one. 1 to 2^48-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(u64);

impl Incarnation {
    /// Bits an incarnation has, so that it shares a word with a slot index or flags.
    pub const BITS: u32 = 48;
    /// No session has been in the slot yet.
    pub const NONE: Self = Self(0);

    /// The incarnation with that number; bits beyond the 48th are cut off.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number & ((1 << Self::BITS) - 1))
    }

    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.0 + 1)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Which trip, counted from 1. A supervisor goes on from the numbers of the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TripId(pub u64);

impl TripId {
    /// No trip.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for TripId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A trip as an operator saw it: its number, and how often its stop had been violated by then. Written "7", or "7.2".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TripSeen {
    /// The trip.
    pub trip: TripId,
    /// How often its stop had been violated, as [`MotorVerdict::violations`](crate::verdicts::MotorVerdict::violations)
    /// counts it; zero: not at all.
    pub violations: u64,
}

impl From<TripId> for TripSeen {
    /// A trip whose stop was not violated.
    fn from(trip: TripId) -> Self {
        Self { trip, violations: 0 }
    }
}

impl fmt::Display for TripSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.violations {
            0 => self.trip.fmt(f),
            count => write!(f, "{}.{count}", self.trip),
        }
    }
}

impl FromStr for TripSeen {
    type Err = NotATrip;

    fn from_str(text: &str) -> Result<Self, NotATrip> {
        // As `Display` writes them: no sign, no leading zero, and not zero.
        let number = |digits: &str| {
            let number: u64 = digits.parse().ok()?;
            (number != 0 && number.to_string() == digits).then_some(number)
        };
        let (trip, violations) = match text.split_once('.') {
            None => (number(text), Some(0)),
            Some((trip, violations)) => (number(trip), number(violations)),
        };
        let (Some(trip), Some(violations)) = (trip, violations) else { return Err(NotATrip) };
        Ok(Self { trip: TripId(trip), violations })
    }
}

/// The error for a text that is not the number of a trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotATrip;

impl fmt::Display for NotATrip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not the number of a trip; `lanyard status` has it, as 7, or 7.2 after its stop was violated"
        )
    }
}

impl core::error::Error for NotATrip {}

/// "Last used by": the session that used a motor last, in one word. The front writes it as a wish
/// into the beat segment, the supervisor answers with the same word in the verdict segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The session's slot.
    pub slot: SlotIndex,
    /// Which session of that slot.
    pub incarnation: Incarnation,
}

impl Owner {
    /// The word for "nobody".
    pub const NOBODY: u64 = 0;

    /// The word: slot in the high 16 bits, incarnation in the low 48.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        ((self.slot.0 as u64) << Incarnation::BITS) | self.incarnation.get()
    }

    /// The owner a word names; `None` for any word whose incarnation is 0, which nobody has.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        let incarnation = Incarnation::new(word);
        if incarnation.get() == 0 {
            return None;
        }
        let slot = SlotIndex((word >> Incarnation::BITS) as u16);
        Some(Self { slot, incarnation })
    }
}
