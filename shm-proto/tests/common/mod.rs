//! What the tests share: a handed-over beat segment with a third mapping that can write anything.
#![allow(dead_code, reason = "every test file uses its own part of this")]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use shm_proto::beat::{
    Bound, Context, RawBeat, Reject, ValidBeat, checksum, high_word, join_words, low_word, tag,
};
use shm_proto::beats::{BeatSegment, BeatView, Look, SlotReader};
use shm_proto::layout::{BeatLayout, RECORD_WORDS, RING_RECORDS};
use shm_proto::memory::{self, Access, Segment};
use shm_proto::{Capacity, Generation, Incarnation, Nanos, SessionId, SlotIndex, Window};

use core::sync::atomic::Ordering::Relaxed;

pub const GENERATION: Generation = Generation(7);
pub const NOW: Nanos = Nanos(1_000_000_000_000);
pub const SHORTEST: Window = Window::from_millis(30);
pub const WINDOW: Window = Window::from_millis(100);
pub const LONGEST: Window = Window::from_millis(2_000);
pub const SESSION: SessionId = SessionId(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);
pub const RING: u64 = RING_RECORDS as u64;

/// A beat segment as both sides hold it, and a mapping that was made before the seals and obeys nobody.
pub struct Rig {
    pub fd: OwnedFd,
    pub beats: Arc<BeatSegment>,
    pub wild: Segment,
    pub view: BeatView,
    pub layout: BeatLayout,
}

impl Rig {
    pub fn new(sessions: u16, motors: u16) -> Self {
        let capacity = Capacity::new(sessions, motors).expect("capacity");
        let layout = BeatLayout::new(capacity);
        let fd = memory::create("lanyard-test", layout.words()).expect("memfd");
        let beats = BeatSegment::map(fd.as_fd(), capacity, GENERATION).expect("front's mapping");
        let wild = Segment::map(fd.as_fd(), layout.words(), Access::ReadWrite).expect("wild mapping");
        memory::seal(fd.as_fd()).expect("seals");
        let view = BeatView::map(fd.as_fd(), capacity, GENERATION).expect("supervisor's mapping");
        Self { fd, beats, wild, view, layout }
    }

    /// First word of the record that has that counter's place.
    pub fn place(&self, slot: SlotIndex, counter: u64) -> usize {
        self.layout.record(slot, counter)
    }

    /// The record at a counter's place, as its words say.
    pub fn raw(&self, slot: SlotIndex, counter: u64) -> RawBeat {
        let word = |at| self.wild.load(self.place(slot, counter) + 1 + at, Relaxed);
        let session = join_words(word(1), word(2));
        RawBeat { counter: word(0), session, window: word(3), timestamp: word(4), tag: word(5), crc: word(6) }
    }

    /// Changes one word of a record by exclusive or; word 0 is the sequence.
    pub fn spoil(&self, slot: SlotIndex, counter: u64, word: usize, bits: u64) {
        let place = self.place(slot, counter) + word;
        self.wild.store(place, self.wild.load(place, Relaxed) ^ bits, Relaxed);
    }

    /// Copies a whole record, sequence word included.
    pub fn copy(&self, from: (SlotIndex, u64), to: (SlotIndex, u64)) {
        for word in 0..RECORD_WORDS {
            let value = self.wild.load(self.place(from.0, from.1) + word, Relaxed);
            self.wild.store(self.place(to.0, to.1) + word, value, Relaxed);
        }
    }

    /// Looks once and returns all that was found.
    pub fn look(
        &self,
        reader: &mut SlotReader,
        look: Look,
        context: &Context,
    ) -> Vec<Result<ValidBeat, Reject>> {
        let mut all = Vec::new();
        reader.look(&self.view, look, *context, |found| all.push(found));
        assert!(all.len() <= RING_RECORDS, "{} findings in one look", all.len());
        all
    }
}

/// Nobody has been in the slot.
pub fn vacant(slot: SlotIndex) -> Context {
    Context {
        slot,
        generation: GENERATION,
        now: NOW,
        bound: None,
        newest: Incarnation::NONE,
        shortest: SHORTEST,
        longest: LONGEST,
    }
}

/// [`SESSION`] lives in the slot with [`WINDOW`].
pub fn bound(slot: SlotIndex, incarnation: u64) -> Context {
    let incarnation = Incarnation::new(incarnation);
    let bound = Bound { session: SESSION, incarnation, window: WINDOW };
    Context { bound: Some(bound), newest: incarnation, ..vacant(slot) }
}

/// A beat of [`SESSION`] that nothing is wrong with.
pub fn honest(counter: u64, incarnation: u64) -> RawBeat {
    RawBeat {
        counter,
        session: SESSION.0,
        window: WINDOW.0,
        timestamp: NOW.0 - 1_000,
        tag: tag(0, Incarnation::new(incarnation)),
        crc: 0,
    }
}

/// The record with the checksum that belongs to it.
pub fn signed(raw: RawBeat, slot: SlotIndex) -> RawBeat {
    RawBeat { crc: u64::from(checksum(&raw, slot, GENERATION)), ..raw }
}

/// The words behind the sequence word, in their order in shared memory.
pub fn words(raw: &RawBeat) -> [u64; RECORD_WORDS - 1] {
    [raw.counter, high_word(raw.session), low_word(raw.session), raw.window, raw.timestamp, raw.tag, raw.crc]
}

/// Counters of the accepted beats.
pub fn counters(found: &[Result<ValidBeat, Reject>]) -> Vec<u64> {
    found.iter().filter_map(|one| one.ok()).map(|beat| beat.counter).collect()
}

/// The rejections.
pub fn rejects(found: &[Result<ValidBeat, Reject>]) -> Vec<Reject> {
    found.iter().filter_map(|one| one.err()).collect()
}
