//! The beat segment: one ring of beats per session, one owner word per motor.
//!
//! The newest record wins: the ring is never full, no index in shared memory is trusted, and at a trip
//! the ring is the evidence, the last 64 beats. The front writes with [`BeatWriter`] (wait-free, no
//! system call but the clock read); the supervisor reads with [`SlotReader`] (wait-free, bounded).

use core::ops::Range;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::beat::{
    Bound, Context, Ending, RawBeat, Reject, SumPrefix, ValidBeat, Word, high_word, join_words, low_word,
    tag, validate,
};
use crate::ids::{Generation, Incarnation, MotorIndex, Owner, SessionId, SlotIndex};
use crate::layout::{
    BeatLayout, Capacity, MAGIC, RECORD_WORDS, RING_RECORDS, RING_WORDS, in_ring, layout_hash,
};
use crate::memory::{Access, Segment, Words};
use crate::record;
use crate::sync::Ordering;
use crate::time::{Nanos, Window};

const PLACE_MAGIC: usize = 0;
const PLACE_LAYOUT: usize = 1;
const PLACE_GENERATION: usize = 2;
const PLACE_CAPACITY: usize = 3;

const WORDS_BEHIND_SEQUENCE: usize = 7;
const RING: u64 = RING_RECORDS as u64;

fn capacity_word(capacity: Capacity) -> u64 {
    u64::from(capacity.sessions()) << 16 | u64::from(capacity.motors())
}

/// The front's side of the beat segment.
#[derive(Debug)]
pub struct BeatSegment {
    segment: Segment,
    layout: BeatLayout,
    capacity: Capacity,
    generation: Generation,
}

impl BeatSegment {
    /// Maps the memfd for writing and marks it as this layout's. Do it before the supervisor seals.
    ///
    /// # Errors
    ///
    /// When size or mapping do not fit.
    pub fn map(fd: BorrowedFd<'_>, capacity: Capacity, generation: Generation) -> io::Result<Arc<Self>> {
        let layout = BeatLayout::new(capacity);
        let segment = Segment::map(fd, layout.words(), Access::ReadWrite)?;
        segment.keep_from_children()?;
        segment.store(PLACE_LAYOUT, layout_hash(), Ordering::Relaxed);
        segment.store(PLACE_GENERATION, generation.0, Ordering::Relaxed);
        segment.store(PLACE_CAPACITY, capacity_word(capacity), Ordering::Relaxed);
        segment.store(PLACE_MAGIC, MAGIC, Ordering::Release);
        Ok(Arc::new(Self { segment, layout, capacity, generation }))
    }

    /// How many sessions and motors there is room for.
    #[must_use]
    pub const fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The writer of a session slot, or of the front's own slot. There must be at most one per slot:
    /// two writers of one ring only spoil each other's beats.
    ///
    /// `None` when the slot does not exist.
    #[must_use]
    pub fn writer(self: &Arc<Self>, slot: SlotIndex) -> Option<BeatWriter> {
        (slot <= self.layout.front_slot()).then(|| BeatWriter {
            segment: Arc::clone(self),
            slot,
            ring: self.layout.ring(slot),
            counter: 0,
            session: SessionId::default(),
            incarnation: Incarnation::NONE,
            window: Window::default(),
            alive: SumPrefix::of(&RawBeat::default(), slot, self.generation),
        })
    }

    /// The writer of the front's own ring.
    #[must_use]
    pub fn front_writer(self: &Arc<Self>) -> BeatWriter {
        match self.writer(self.layout.front_slot()) {
            Some(writer) => writer,
            None => unreachable!("the layout always has the front's slot"),
        }
    }

    /// Notes which session used the motor last: a wish, which the supervisor answers with a grant.
    pub fn take_motor(&self, motor: MotorIndex, owner: Owner) {
        if self.capacity.has_motor(motor) {
            self.segment.store(self.layout.owner(motor), owner.to_word(), Ordering::SeqCst);
        }
    }

    /// The owner the front noted last.
    #[must_use]
    pub fn owner(&self, motor: MotorIndex) -> Option<Owner> {
        if !self.capacity.has_motor(motor) {
            return None;
        }
        Owner::from_word(self.segment.load(self.layout.owner(motor), Ordering::SeqCst))
    }
}

/// Writes the beats of one slot.
#[derive(Debug)]
pub struct BeatWriter {
    segment: Arc<BeatSegment>,
    slot: SlotIndex,
    /// First word of the slot's ring.
    ring: usize,
    counter: u64,
    session: SessionId,
    incarnation: Incarnation,
    window: Window,
    /// What all "I am alive" of this session have in common.
    alive: SumPrefix,
}

impl BeatWriter {
    /// The slot.
    #[must_use]
    pub const fn slot(&self) -> SlotIndex {
        self.slot
    }

    /// The session that beats here, as the owner words name it.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        Owner { slot: self.slot, incarnation: self.incarnation }
    }

    /// Begins a new session in the slot with its first beat and returns its owner word.
    pub fn open(&mut self, session: SessionId, window: Window) -> Owner {
        self.open_at(session, window, Nanos::now())
    }

    /// Begins a new session whose first beat happened at `at`, not later than now.
    pub fn open_at(&mut self, session: SessionId, window: Window, at: Nanos) -> Owner {
        self.session = session;
        self.window = window;
        self.incarnation = self.incarnation.next();
        self.alive = SumPrefix::of(&self.next(0, at), self.slot, self.segment.generation);
        self.beat_at(at);
        self.announce_change();
        self.owner()
    }

    /// "I am alive": one clock read and nine stores.
    #[inline]
    pub fn beat(&mut self) {
        self.beat_at(Nanos::now());
    }

    /// A beat that happened at `at`, not later than now.
    #[inline]
    pub fn beat_at(&mut self, at: Nanos) {
        let beat = self.next(0, at);
        self.write(beat, self.alive);
    }

    /// Ends the session and says why: the supervisor stops what it drives.
    pub fn close(&mut self, ending: Ending) {
        self.close_at(ending, Nanos::now());
    }

    /// Ends the session as of `at`, not later than now.
    pub fn close_at(&mut self, ending: Ending, at: Nanos) {
        let goodbye = self.next(ending.flags(), at);
        self.write(goodbye, SumPrefix::of(&goodbye, self.slot, self.segment.generation));
        self.announce_change();
    }

    /// The next beat, unsigned.
    #[inline]
    fn next(&self, flags: u64, at: Nanos) -> RawBeat {
        RawBeat {
            counter: self.counter + 1,
            session: self.session.0,
            window: self.window.0,
            timestamp: at.0,
            tag: tag(flags, self.incarnation),
            crc: 0,
        }
    }

    #[inline]
    fn write(&mut self, mut beat: RawBeat, prefix: SumPrefix) {
        self.counter = beat.counter;
        beat.crc = u64::from(prefix.checksum(beat.counter, beat.timestamp));
        self.write_raw(&beat);
    }

    /// Writes a record exactly as given, at the place of its counter. This is how tests play a front
    /// that lies.
    #[inline]
    pub fn write_raw(&mut self, raw: &RawBeat) {
        let ring = self.segment.segment.writable(self.ring, RING_WORDS);
        if let Some(record) = ring.and_then(|ring| ring.part(in_ring(raw.counter), RECORD_WORDS)) {
            record::write(record, raw.counter, to_words(raw));
        }
    }

    fn announce_change(&self) {
        let place = self.segment.layout.change(self.slot);
        self.segment.segment.store(place, self.counter, Ordering::Release);
    }
}

const fn to_words(raw: &RawBeat) -> [u64; WORDS_BEHIND_SEQUENCE] {
    [raw.counter, high_word(raw.session), low_word(raw.session), raw.window, raw.timestamp, raw.tag, raw.crc]
}

const fn from_words(words: [u64; WORDS_BEHIND_SEQUENCE]) -> RawBeat {
    let [counter, high, low, window, timestamp, tag, crc] = words;
    RawBeat { counter, session: join_words(high, low), window, timestamp, tag, crc }
}

/// Whether the record at the place of that counter was never written, or last in the lap before. Most of a ring is
/// such content.
#[inline]
fn is_no_news(record: Words<'_>, expected: u64) -> bool {
    record::is_untouched_since(record, expected.saturating_sub(RING))
}

/// Whether any record at these places is of another turn than expected: `first` at the first place, `step` more at each next.
/// One load and one comparison for each: this runs between a deadline and its stop.
#[inline]
fn any_touched(ring: Words<'_>, places: Range<usize>, first: u64, step: u64) -> bool {
    let mut turn = first;
    for place in places {
        if !record::is_of_turn(ring, place * RECORD_WORDS, turn) {
            return true;
        }
        turn = turn.wrapping_add(step);
    }
    false
}

/// Whether the record after that one is no news.
#[inline]
fn ends_behind(ring: Words<'_>, accepted: u64) -> bool {
    let next = accepted.wrapping_add(1);
    ring.part(in_ring(next), RECORD_WORDS).is_some_and(|record| is_no_news(record, next))
}

/// The supervisor's side of the beat segment: loads only.
#[derive(Debug)]
pub struct BeatView {
    segment: Segment,
    layout: BeatLayout,
    capacity: Capacity,
    generation: Generation,
}

impl BeatView {
    /// Maps a sealed memfd for reading.
    ///
    /// # Errors
    ///
    /// When seals, size or mapping do not fit.
    pub fn map(fd: BorrowedFd<'_>, capacity: Capacity, generation: Generation) -> io::Result<Self> {
        crate::memory::check_sealed(fd)?;
        let layout = BeatLayout::new(capacity);
        let segment = Segment::map(fd, layout.words(), Access::Read)?;
        Ok(Self { segment, layout, capacity, generation })
    }

    /// How many sessions and motors there is room for.
    #[must_use]
    pub const fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Which hand-over this segment came from.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The same segment as that of another hand-over: for copies.
    #[must_use]
    pub const fn handed_over_as(mut self, generation: Generation) -> Self {
        self.generation = generation;
        self
    }

    /// All words, for whoever copies them.
    pub(crate) const fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The slot of the front's own beats.
    #[must_use]
    pub const fn front_slot(&self) -> SlotIndex {
        self.layout.front_slot()
    }

    /// The change word of a slot: differs from the last look whenever a session opened or closed. It
    /// says where to look first, nothing else.
    #[must_use]
    pub fn change(&self, slot: SlotIndex) -> u64 {
        if slot > self.layout.front_slot() {
            return 0;
        }
        self.segment.load(self.layout.change(slot), Ordering::Acquire)
    }

    /// The owner word of a motor, as the front alleges it.
    #[must_use]
    pub fn owner_word(&self, motor: MotorIndex) -> u64 {
        if !self.capacity.has_motor(motor) {
            return Owner::NOBODY;
        }
        self.segment.load(self.layout.owner(motor), Ordering::SeqCst)
    }
}

/// How far one look into a ring goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// From the last accepted beat until nothing newer follows: the usual case, two records.
    Onward,
    /// All 64 records: before a session is called silent, one spoilt record must not hide a good one.
    Everywhere,
}

/// The supervisor's memory of one slot: what it has accepted so far. Lives in private memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotReader {
    last_counter: u64,
    last_crc: u64,
    change: u64,
}

impl SlotReader {
    /// Whether the change word differs from the last time this was asked.
    pub fn changed(&mut self, view: &BeatView, slot: SlotIndex) -> bool {
        let change = view.change(slot);
        let differs = change != self.change;
        self.change = change;
        differs
    }

    /// Whether any record may hold a beat newer than the last accepted one: the whole ring at the cost of one load
    /// for each record, for the moment between a deadline and its stop. That of the last accepted beat is not one
    /// of them, whatever it says now.
    #[inline]
    #[must_use]
    pub fn may_have_news(&self, view: &BeatView, slot: SlotIndex) -> bool {
        let Some(ring) = view.segment.readable(view.layout.ring(slot), RING_WORDS) else { return false };
        // Counters follow one another from place to place. Up to the next beat's place they are of its lap, from there
        // on of the lap before, if there was one.
        let next = self.last_counter.wrapping_add(1);
        let place = in_ring(next) / RECORD_WORDS;
        let rest = match next.checked_sub(RING) {
            Some(before) => any_touched(ring, place..RING_RECORDS, before, 1),
            // Nothing was written there before.
            None => any_touched(ring, place..RING_RECORDS, 0, 0),
        };
        rest || any_touched(ring, 0..place, next - next % RING, 1)
    }

    /// Looks for beats newer than the last accepted one, hands each to `found` in their order, and
    /// reads at most [`RING_RECORDS`] records whatever they hold.
    ///
    /// An accepted beat of a higher incarnation binds the slot anew for the beats after it, and a goodbye
    /// ends the bond.
    #[inline]
    pub fn look(
        &mut self,
        view: &BeatView,
        look: Look,
        mut context: Context,
        mut found: impl FnMut(Result<ValidBeat, Reject>),
    ) {
        context.generation = view.generation;
        let Some(ring) = view.segment.readable(view.layout.ring(context.slot), RING_WORDS) else { return };
        let start = self.last_counter;
        for step in 0..RING {
            let expected = start.wrapping_add(1).wrapping_add(step);
            let Some(record) = ring.part(in_ring(expected), RECORD_WORDS) else { return };
            // The last place is that of the last accepted beat, which must not say anything else now.
            if look == Look::Everywhere && step < RING - 1 && is_no_news(record, expected) {
                continue;
            }
            let outcome = match record::read(record) {
                None => Some(Err(Reject::Torn)),
                Some(words) => self.judge(&from_words(words), expected, &context),
            };
            match outcome {
                Some(Ok(beat)) => {
                    self.last_counter = beat.counter;
                    found(Ok(beat));
                    if look == Look::Onward && ends_behind(ring, expected) {
                        return;
                    }
                    context.newest = context.newest.max(beat.incarnation);
                    // After a goodbye only a higher incarnation is believed, in this look as in the next.
                    context.bound = (beat.word == Word::Alive).then_some(Bound {
                        session: beat.session,
                        incarnation: beat.incarnation,
                        window: beat.window,
                    });
                }
                Some(Err(reject)) => {
                    found(Err(reject));
                    if look == Look::Onward {
                        return;
                    }
                }
                None if look == Look::Onward => return,
                None => {}
            }
        }
    }

    /// Whether a record with this counter, at the place of that one, is the ring's older content: written
    /// before the last accepted beat, and not overwritten since.
    #[inline]
    const fn is_older(&self, counter: u64, expected: u64) -> bool {
        counter < self.last_counter && self.last_counter - counter < RING && counter % RING == expected % RING
    }

    /// `None`: nothing new at this place.
    #[inline]
    fn judge(
        &mut self,
        raw: &RawBeat,
        expected: u64,
        context: &Context,
    ) -> Option<Result<ValidBeat, Reject>> {
        if raw.counter > self.last_counter && raw.counter % RING == expected % RING {
            return Some(validate(raw, context).inspect(|_| self.last_crc = raw.crc));
        }
        if *raw == RawBeat::default() || self.is_older(raw.counter, expected) {
            return None;
        }
        if raw.counter == self.last_counter {
            return (raw.crc != self.last_crc).then_some(Err(Reject::Repeated));
        }
        if raw.counter % RING != expected % RING {
            return Some(Err(Reject::Misplaced));
        }
        // Anything that was overwritten once must not come back: who wrote the last accepted beat had written
        // every place since the lap before it.
        Some(Err(Reject::Falling))
    }
}
