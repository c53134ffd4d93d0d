//! From what the front alleges to what the supervisor may act on: one pure function.
//!
//! A [`RawBeat`] is an allegation: seven words that some process wrote, nothing more. It becomes a
//! [`ValidBeat`] only through [`validate`], which cannot panic, allocate, loop or reach outside its
//! arguments, whatever the words are.
#![forbid(unsafe_code)]

use crate::crc::Crc;
use crate::ids::{Generation, Incarnation, SessionId, SlotIndex};
use crate::time::{Nanos, Window};
use crate::verdicts::Reason;

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
    /// Flags and alleged ending in the low 16 bits, alleged incarnation in the high 48.
    pub tag: u64,
    /// CRC-32C in the low 32 bits; the others are 0.
    pub crc: u64,
}

/// The session says goodbye with this beat; the high byte of the flags says why, as [`Ending::number`] has it.
pub const FLAG_CLOSE: u64 = 1;
const FLAG_BITS: u32 = 16;
const ENDING_SHIFT: u32 = 8;

/// Why the front ends a session, in its own words: people are told, and nothing moves on the strength of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The front does not say, or says what this version does not know.
    Unsaid,
    /// The client closed its session.
    Client,
    /// The client's connection ended without that.
    ClientLost,
    /// The client sent what is not allowed, and was cut off.
    CutOff,
    /// The client goes on beating and commands nothing.
    NoProgress,
    /// The client was silent for longer than something it used allows.
    Overdue,
    /// The target of a tunnel is lost.
    TargetLost,
    /// The listener of a tunnel was closed.
    ListenerClosed,
    /// The server behind what it used is lost.
    UpstreamLost,
    /// The front ends in order.
    FrontEnds,
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 10] = [
        Self::Unsaid,
        Self::Client,
        Self::ClientLost,
        Self::CutOff,
        Self::NoProgress,
        Self::Overdue,
        Self::TargetLost,
        Self::ListenerClosed,
        Self::UpstreamLost,
        Self::FrontEnds,
    ];

    /// The number it has in a record.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Unsaid => 0,
            Self::Client => 1,
            Self::ClientLost => 2,
            Self::CutOff => 3,
            Self::NoProgress => 4,
            Self::Overdue => 5,
            Self::TargetLost => 6,
            Self::ListenerClosed => 7,
            Self::UpstreamLost => 8,
            Self::FrontEnds => 9,
        }
    }

    /// The ending with that number. One that nobody knows is an allegation like any other: the session is over all
    /// the same, and why remains unsaid.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Client,
            2 => Self::ClientLost,
            3 => Self::CutOff,
            4 => Self::NoProgress,
            5 => Self::Overdue,
            6 => Self::TargetLost,
            7 => Self::ListenerClosed,
            8 => Self::UpstreamLost,
            9 => Self::FrontEnds,
            _ => Self::Unsaid,
        }
    }

    /// The reason for which motors are stopped then.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Unsaid => Reason::Closed,
            Self::Client => Reason::ClosedByClient,
            Self::ClientLost => Reason::ClientLost,
            Self::CutOff => Reason::CutOff,
            Self::NoProgress => Reason::NoProgress,
            Self::Overdue => Reason::Overdue,
            Self::TargetLost => Reason::TargetLost,
            Self::ListenerClosed => Reason::ListenerClosed,
            Self::UpstreamLost => Reason::UpstreamLost,
            Self::FrontEnds => Reason::FrontEnded,
        }
    }

    /// The flags of a goodbye for that reason.
    #[must_use]
    pub const fn flags(self) -> u64 {
        FLAG_CLOSE | (self.number() as u64) << ENDING_SHIFT
    }
}

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
    Close(Ending),
}

impl Word {
    /// What the flags of a record say; `None` for flags that nobody has defined.
    const fn from_flags(flags: u64) -> Option<Self> {
        let [low, high, ..] = flags.to_le_bytes();
        match (low as u64, high) {
            (0, 0) => Some(Self::Alive),
            (FLAG_CLOSE, ending) => Some(Self::Close(Ending::from_number(ending))),
            _ => None,
        }
    }
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
    let Some(word) = Word::from_flags(raw.tag & ((1 << FLAG_BITS) - 1)) else {
        return Err(Reject::BadFlags);
    };
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
