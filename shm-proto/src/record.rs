//! A few words that change together: a sequence lock that never waits.
//!
//! The first word is the sequence: odd while the writer is at work, even when done. A writer that dies
//! in the middle leaves it odd, and readers see "no news". Readers try a fixed number of times and
//! never spin: a real-time reader that waits for a preempted writer on its own CPU waits for ever.

use crate::memory::{Words, WritableWords};
use crate::sync::{Ordering, fence};

/// How often a reader tries. A writer needs some ten nanoseconds for a record; a reader that meets it
/// four times in a row meets a writer that stands still or means harm.
pub const READ_TRIES: usize = 4;

/// Writes `words` behind the sequence word of a record; `turn` must differ from the turn before.
#[inline]
pub fn write<const WORDS: usize>(record: WritableWords<'_>, turn: u64, words: [u64; WORDS]) {
    let sequence = turn.wrapping_mul(2);
    // SYNC POINT: pairs with the fence in `read`: no reader that sees a new word sees the old, even
    // sequence afterwards.
    record.store(0, sequence.wrapping_sub(1), Ordering::Relaxed);
    fence(Ordering::Release);
    for (offset, word) in words.into_iter().enumerate() {
        record.store(1 + offset, word, Ordering::Relaxed);
    }
    // SYNC POINT: pairs with the acquiring load in `read`.
    record.store(0, sequence, Ordering::Release);
}

/// Reads the words behind the sequence word of a record; `None` when they changed during every try.
#[inline]
#[must_use]
pub fn read<const WORDS: usize>(record: Words<'_>) -> Option<[u64; WORDS]> {
    read_sequenced(record).map(|(_, words)| words)
}

/// As [`read`], but `None` also for words of any other turn than `turn`.
#[must_use]
pub fn read_turn<const WORDS: usize>(record: Words<'_>, turn: u64) -> Option<[u64; WORDS]> {
    let (sequence, words) = read_sequenced(record)?;
    (sequence == turn.wrapping_mul(2)).then_some(words)
}

/// Whether a record was last written in that turn, or never, and is not being written: enough to see that it is
/// no news, for one load. Who writes another turn than its content belongs to is overlooked, which harms nobody
/// else.
#[inline]
#[must_use]
pub fn is_untouched_since(record: Words<'_>, turn: u64) -> bool {
    // Relaxed: no other word is read on the strength of this one.
    let sequence = record.load(0, Ordering::Relaxed);
    sequence == turn.wrapping_mul(2) || sequence == 0
}

/// Whether the record that begins at `offset` was last written in that turn, and is not being written. Turn 0: never written.
#[inline]
#[must_use]
pub fn is_of_turn(words: Words<'_>, offset: usize, turn: u64) -> bool {
    // Relaxed, as there.
    words.load(offset, Ordering::Relaxed) == turn.wrapping_mul(2)
}

#[inline]
fn read_sequenced<const WORDS: usize>(record: Words<'_>) -> Option<(u64, [u64; WORDS])> {
    for _ in 0..READ_TRIES {
        let before = record.load(0, Ordering::Acquire);
        if before % 2 == 1 {
            continue;
        }
        let words = core::array::from_fn(|offset| record.load(1 + offset, Ordering::Relaxed));
        fence(Ordering::Acquire);
        if record.load(0, Ordering::Relaxed) == before {
            return Some((before, words));
        }
    }
    None
}
