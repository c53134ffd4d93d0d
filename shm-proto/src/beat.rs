//! From what the front alleges to what the supervisor may act on: one pure function.
//!
//! A [`RawBeat`] is an allegation: seven words that some process wrote, nothing more. It becomes a
//! [`ValidBeat`] only through [`validate`], which cannot panic, allocate, loop or reach outside its
//! arguments, whatever the words are.
#![forbid(unsafe_code)]

use crate::crc::Crc;
use crate::ids::{Generation, Incarnation, SessionId, SlotIndex};
use crate::time::{Nanos, Window};

/// The content of one beat record as it was read, unchecked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawBeat {
    /// Alleged number of the beat within its ring, from 1.
    pub counter: u64,
    /// Alleged session.
    pub session: u128,
    /// Alleged window, nanoseconds.
    pub window: u64,
    /// Alleged time of the beat, `CLOCK_BOOTTIME` nanoseconds.
    pub timestamp: u64,
    /// Flags in the low 16 bits, alleged incarnation in the high 48.
    pub tag: u64,
    /// CRC-32C in the low 32 bits; the others are 0.
    pub crc: u64,
}

/// The session says goodbye with this beat.
pub const FLAG_CLOSE: u64 = 1;
const FLAG_BITS: u32 = 16;
const KNOWN_FLAGS: u64 = FLAG_CLOSE;

/// A beat that passed every check of [`validate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidBeat {
    /// Number of the beat within its ring.
    pub counter: u64,
    /// The session that beats.
    pub session: SessionId,
    /// Which session of the slot.
    pub incarnation: Incarnation,
    /// How long it may be silent from now on.
    pub window: Window,
    /// When it beat: the earlier of the alleged and the observed time.
    pub at: Nanos,
    /// What the beat says.
    pub word: Word,
}

/// What a beat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// "I am alive."
    Alive,
    /// "I go; stop what I drive."
    Close,
}

impl ValidBeat {
    /// The moment after which the session counts as silent, unless it beats again.
    #[inline]
    #[must_use]
    pub const fn deadline(&self) -> Nanos {
        self.at.after(self.window.0)
    }
}

/// Why a beat was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// The checksum over record, slot, generation and layout does not fit.
    Corrupt,
    /// The counter does not belong at this place of the ring.
    Misplaced,
    /// The counter of the last accepted beat again, with other content.
    Repeated,
    /// A counter below one accepted before, which is not just the ring's older content.
    Falling,
    /// A time that has not come yet.
    Future,
    /// Not the session that the slot is bound to, or an incarnation that is over.
    WrongSession,
    /// A window outside the configured bounds, or another than the session began with.
    BadWindow,
    /// Flags nobody defined.
    BadFlags,
    /// The record was being written during every try.
    Torn,
}

impl Reject {
    /// Every kind, in the order in which they are counted.
    pub const ALL: [Self; 9] = [
        Self::Corrupt,
        Self::Misplaced,
        Self::Repeated,
        Self::Falling,
        Self::Future,
        Self::WrongSession,
        Self::BadWindow,
        Self::BadFlags,
        Self::Torn,
    ];

    /// The name used in status and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::Misplaced => "misplaced",
            Self::Repeated => "repeated",
            Self::Falling => "falling",
            Self::Future => "future",
            Self::WrongSession => "wrong-session",
            Self::BadWindow => "bad-window",
            Self::BadFlags => "bad-flags",
            Self::Torn => "torn",
        }
    }
}

/// What the supervisor knows when it looks at a beat; none of it comes from the front.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Slot whose ring the record lies in.
    pub slot: SlotIndex,
    /// Generation of the segment.
    pub generation: Generation,
    /// Moment of reading.
    pub now: Nanos,
    /// The session the slot is bound to, if any.
    pub bound: Option<Bound>,
    /// Highest incarnation the slot has been bound to, whether that session lives or is over.
    pub newest: Incarnation,
    /// Smallest window the configuration allows.
    pub shortest: Window,
    /// Largest window the configuration allows.
    pub longest: Window,
}

/// The session a slot is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The session.
    pub session: SessionId,
    /// Which session of the slot.
    pub incarnation: Incarnation,
    /// The window it began with.
    pub window: Window,
}

/// Checks everything about a beat but its counter, which the reader of the ring checks.
///
/// # Errors
///
/// The first thing that is wrong, checksum first: of a corrupt record no other field is looked at.
#[inline]
pub fn validate(raw: &RawBeat, context: &Context) -> Result<ValidBeat, Reject> {
    if raw.crc != u64::from(checksum(raw, context.slot, context.generation)) {
        return Err(Reject::Corrupt);
    }
    let flags = raw.tag & ((1 << FLAG_BITS) - 1);
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Reject::BadFlags);
    }
    let window = Window(raw.window);
    if window < context.shortest || window > context.longest {
        return Err(Reject::BadWindow);
    }
    let session = SessionId(raw.session);
    let incarnation = Incarnation::new(raw.tag >> FLAG_BITS);
    match context.bound {
        Some(bound) if bound.incarnation == incarnation => {
            if bound.session != session {
                return Err(Reject::WrongSession);
            }
            if bound.window != window {
                return Err(Reject::BadWindow);
            }
        }
        // A new session in the slot; one that is over never comes back.
        _ if incarnation > context.newest => {}
        _ => return Err(Reject::WrongSession),
    }
    if raw.timestamp > context.now.0 {
        return Err(Reject::Future);
    }
    let word = if flags & FLAG_CLOSE == 0 { Word::Alive } else { Word::Close };
    // The alleged time is not after the observed one, so it is the earlier of both.
    let at = Nanos(raw.timestamp);
    Ok(ValidBeat { counter: raw.counter, session, incarnation, window, at, word })
}

/// Puts flags and incarnation into one word.
#[inline]
#[must_use]
pub const fn tag(flags: u64, incarnation: Incarnation) -> u64 {
    (incarnation.get() << FLAG_BITS) | flags
}

/// CRC-32C over a record, bound to the slot, generation and layout it was written for, so that a
/// record copied elsewhere does not fit. Castagnoli keeps Hamming distance 6 at this length.
#[inline]
#[must_use]
pub fn checksum(raw: &RawBeat, slot: SlotIndex, generation: Generation) -> u32 {
    SumPrefix::of(raw, slot, generation).checksum(raw.counter, raw.timestamp)
}

/// The sum over what all beats of one session have in common. It comes first, so that whoever writes them
/// keeps it and adds counter and time only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SumPrefix(Crc);

impl SumPrefix {
    /// The prefix for this record's session, window and tag.
    #[inline]
    pub(crate) fn of(raw: &RawBeat, slot: SlotIndex, generation: Generation) -> Self {
        const LAYOUT: u64 = crate::layout::layout_hash();
        let place = [LAYOUT, u64::from(slot.0), generation.0];
        let session = [high_word(raw.session), low_word(raw.session), raw.window, raw.tag];
        Self(place.into_iter().chain(session).fold(Crc::START, Crc::word))
    }

    /// The checksum of the session's record with this counter and time.
    #[inline]
    pub(crate) fn checksum(self, counter: u64, timestamp: u64) -> u32 {
        self.0.word(counter).word(timestamp).finish()
    }
}

/// The upper half of a session id.
#[inline]
#[must_use]
pub const fn high_word(session: u128) -> u64 {
    (session >> 64) as u64
}

/// The lower half of a session id.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
#[must_use]
pub const fn low_word(session: u128) -> u64 {
    session as u64
}

/// Both halves of a session id together.
#[inline]
#[must_use]
pub const fn join_words(high: u64, low: u64) -> u128 {
    ((high as u128) << 64) | low as u128
}
