//! A private copy of a front's beat segment, for whoever writes down what the supervisor reads of it.
//!
//! The original changes at any moment, so two reads of it are no record of each other. A copy is brought up to date at known
//! moments only, tells each word that it changes, and can be built again from those words alone.

use std::io;
use std::os::fd::AsFd;

use crate::beats::BeatView;
use crate::ids::Generation;
use crate::layout::{BeatLayout, Capacity, RECORD_WORDS};
use crate::memory::{Access, Segment, Words, create, seal};
use crate::record::READ_TRIES;
use crate::sync::Ordering;

/// The copy, from the side of whoever keeps it up to date.
#[derive(Debug)]
pub struct BeatCopy {
    words: Segment,
    layout: BeatLayout,
}

impl BeatCopy {
    /// Makes a copy of nothing, and a view of it as the supervisor reads a front's segment.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the memory.
    pub fn new(capacity: Capacity) -> io::Result<(Self, BeatView)> {
        let layout = BeatLayout::new(capacity);
        let fd = create("lanyard-beat-copy", layout.words())?;
        let words = Segment::map(fd.as_fd(), layout.words(), Access::ReadWrite)?;
        seal(fd.as_fd())?;
        let view = BeatView::map(fd.as_fd(), capacity, Generation::default())?;
        Ok((Self { words, layout }, view))
    }

    /// Forgets everything, as a segment is that no front has written to.
    pub fn clear(&self) {
        (0..self.words.words()).for_each(|place| self.set(place, 0));
    }

    /// Sets one word; a place outside the segment changes nothing.
    pub fn set(&self, place: usize, value: u64) {
        if place < self.words.words() {
            self.words.store(place, value, Ordering::Release);
        }
    }

    /// Brings the copy up to date, and tells each word that changes. Of a record that says by its sequence word that it was
    /// not written, no other word is looked at.
    pub fn follow(&self, original: &BeatView, mut changed: impl FnMut(usize, u64)) {
        let from = original.segment();
        if from.words() != self.words.words() {
            return;
        }
        let mut set = |place: usize, value: u64| {
            if self.words.load(place, Ordering::Relaxed) != value {
                self.set(place, value);
                changed(place, value);
            }
        };
        let first_record = self.layout.first_record();
        (0..first_record).for_each(|place| set(place, from.load(place, Ordering::Acquire)));
        for place in (first_record..from.words()).step_by(RECORD_WORDS) {
            let Some(record) = from.readable(place, RECORD_WORDS) else { continue };
            if record.load(0, Ordering::Relaxed) == self.words.load(place, Ordering::Relaxed) {
                continue;
            }
            for (offset, word) in whole(record).into_iter().enumerate() {
                set(place + offset, word);
            }
        }
    }
}

/// A record as it was between two writes, or, after some tries, as one that is being written.
fn whole(record: Words<'_>) -> [u64; RECORD_WORDS] {
    let read = || core::array::from_fn(|offset| record.load(offset, Ordering::Acquire));
    let mut words: [u64; RECORD_WORDS] = read();
    for _ in 0..READ_TRIES {
        if words[0].is_multiple_of(2) && record.load(0, Ordering::Acquire) == words[0] {
            return words;
        }
        words = read();
    }
    words[0] |= 1;
    words
}
