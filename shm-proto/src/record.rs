//! A few words that change together: a sequence lock that never waits.
//!
//! The first word is the sequence: odd while the writer is at work, even when done. A writer that dies
//! in the middle leaves it odd, and readers see "no news". Readers try a fixed number of times and
//! never spin: a real-time reader that waits for a preempted writer on its own CPU waits for ever.

use core::sync::atomic::{Ordering, fence};

use crate::memory::Segment;

/// How often a reader tries. A writer needs some ten nanoseconds for a record; a reader that meets it
/// four times in a row meets a writer that stands still or means harm.
pub const READ_TRIES: usize = 4;

/// Writes `words` behind the sequence word at `place`; `turn` must differ from the turn before.
pub fn write<const WORDS: usize>(segment: &Segment, place: usize, turn: u64, words: [u64; WORDS]) {
    let sequence = turn.wrapping_mul(2);
    // SYNC POINT: pairs with the fence in `read`: no reader that sees a new word sees the old, even
    // sequence afterwards.
    segment.store(place, sequence.wrapping_sub(1), Ordering::Relaxed);
    fence(Ordering::Release);
    for (offset, word) in words.into_iter().enumerate() {
        segment.store(place + 1 + offset, word, Ordering::Relaxed);
    }
    // SYNC POINT: pairs with the acquiring load in `read`.
    segment.store(place, sequence, Ordering::Release);
}

/// Reads the words behind the sequence word at `place`; `None` when they changed during every try.
#[must_use]
pub fn read<const WORDS: usize>(segment: &Segment, place: usize) -> Option<[u64; WORDS]> {
    read_sequenced(segment, place).map(|(_, words)| words)
}

/// As [`read`], but `None` also for words of any other turn than `turn`.
#[must_use]
pub fn read_turn<const WORDS: usize>(segment: &Segment, place: usize, turn: u64) -> Option<[u64; WORDS]> {
    let (sequence, words) = read_sequenced(segment, place)?;
    (sequence == turn.wrapping_mul(2)).then_some(words)
}

fn read_sequenced<const WORDS: usize>(segment: &Segment, place: usize) -> Option<(u64, [u64; WORDS])> {
    for _ in 0..READ_TRIES {
        let before = segment.load(place, Ordering::Acquire);
        if before % 2 == 1 {
            continue;
        }
        let mut words = [0; WORDS];
        for (offset, word) in words.iter_mut().enumerate() {
            *word = segment.load(place + 1 + offset, Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        if segment.load(place, Ordering::Relaxed) == before {
            return Some((before, words));
        }
    }
    None
}
