//! The real-time thread's side of a recording: buses that write down what passes between them and the core.
//!
//! It waits for nobody, allocates nothing, and touches no file: what it writes down goes into a queue of fixed size.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drivers::Frame;
use rtrb::{Consumer, Producer, RingBuffer};
use shm_proto::{BeatCopy, BeatView, Capacity, Generation, Nanos, VerdictView};

use super::entry::{Entry, Kind};
use super::input::{Input, write_frame};
use crate::bus::Received;
use crate::core::{SendError, Wire};
use crate::runtime::Ports;

/// Entries that may wait for the file. A busy robot makes some 5000 a second, so that the disk may stand still for more than ten
/// seconds; they take 6 MiB of locked memory.
pub const QUEUE_ENTRIES: usize = 65_536;

/// Whether everything was written down so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    /// What comes after an entry that was lost proves nothing.
    Broken,
}

/// The end of the queue into which the real-time thread writes.
#[derive(Debug)]
pub struct Tape {
    queue: Producer<Entry>,
    state: State,
    lost: Arc<AtomicU64>,
    verdicts: Arc<VerdictView>,
    fronts: Fronts,
}

/// What the thread for the file takes.
#[derive(Debug)]
pub struct Taken {
    pub(super) queue: Consumer<Entry>,
    pub(super) lost: Arc<AtomicU64>,
}

impl Tape {
    /// A tape of so many entries, and the other end of it.
    ///
    /// # Errors
    /// The kernel refuses the memory.
    pub fn new(entries: usize, capacity: Capacity, verdicts: Arc<VerdictView>) -> io::Result<(Self, Taken)> {
        let (queue, other) = RingBuffer::new(entries);
        let lost = Arc::new(AtomicU64::new(0));
        let taken = Taken { queue: other, lost: Arc::clone(&lost) };
        let fronts = Fronts::new(capacity)?;
        Ok((Self { queue, state: State::Whole, lost, verdicts, fronts }, taken))
    }

    /// Writes an entry down, or counts it as lost.
    fn write(&mut self, entry: Entry) {
        push(&mut self.queue, &mut self.state, &self.lost, entry);
    }
}

fn push(queue: &mut Producer<Entry>, state: &mut State, lost: &AtomicU64, entry: Entry) {
    if *state == State::Whole && queue.push(entry).is_ok() {
        return;
    }
    *state = State::Broken;
    lost.fetch_add(1, Ordering::Release);
}

/// The front's segment, and the copies of it that the core reads. There are two: when a front takes the place of another the
/// core has both for a moment.
#[derive(Debug)]
struct Fronts {
    /// The segment that is copied.
    present: Option<BeatView>,
    /// The one before it, which the core has yet to give back.
    former: Option<BeatView>,
    copies: [(BeatCopy, Option<BeatView>); 2],
    /// Which copy the core reads.
    current: usize,
}

impl Fronts {
    fn new(capacity: Capacity) -> io::Result<Self> {
        let copy = || BeatCopy::new(capacity).map(|(copy, view)| (copy, Some(view)));
        Ok(Self { present: None, former: None, copies: [copy()?, copy()?], current: 0 })
    }

    /// A front has come: the core is given a copy, and this the segment.
    fn come(&mut self, segment: BeatView) -> BeatView {
        let generation: Generation = segment.generation();
        self.current = 1 - self.current;
        let (copy, view) = &mut self.copies[self.current];
        let Some(view) = view.take() else {
            // The core has never more than one. Were it so, it would read the segment itself, and the recording would differ.
            return segment;
        };
        copy.clear();
        self.former = self.present.replace(segment);
        view.handed_over_as(generation)
    }

    /// The core gives back what it had: this returns the segment that it was a copy of.
    fn go(&mut self, view: BeatView) -> BeatView {
        let Some(segment) = self.former.take().or_else(|| self.present.take()) else { return view };
        // Of the one before, if a front has taken the place of another.
        let before = 1 - self.current;
        let place = if self.copies[before].1.is_none() { before } else { self.current };
        self.copies[place].1 = Some(view);
        segment
    }
}

/// Buses of which everything is written down.
#[derive(Debug)]
pub struct Recorded<P> {
    ports: P,
    tape: Tape,
}

impl<P> Recorded<P> {
    /// Those buses, on that tape.
    pub fn new(ports: P, tape: Tape) -> Self {
        Self { ports, tape }
    }
}

impl<P: Wire> Wire for Recorded<P> {
    fn send(&mut self, bus: usize, frame: &Frame) -> Result<(), SendError> {
        let outcome = self.ports.send(bus, frame);
        self.tape.write(sent(bus, frame, outcome));
        outcome
    }

    fn now(&mut self) -> Nanos {
        let now = self.ports.now();
        self.tape.write(Entry::new(Kind::Now).with(now.0));
        now
    }
}

/// A frame that was sent, and what became of it: 0, or the error number.
pub(super) fn sent(bus: usize, frame: &Frame, outcome: Result<(), SendError>) -> Entry {
    let errno = outcome.map_or_else(SendError::errno, |()| 0);
    write_frame(Entry::new(Kind::Sent).with(u64::from(errno.cast_unsigned())).with(bus as u64), frame)
}

impl<P: Ports> Ports for Recorded<P> {
    fn count(&self) -> usize {
        self.ports.count()
    }

    fn fd(&self, bus: usize) -> Option<BorrowedFd<'_>> {
        self.ports.fd(bus)
    }

    fn receive(&mut self, bus: usize) -> Received {
        self.ports.receive(bus)
    }

    fn note(&mut self, input: &Input) {
        self.tape.write(input.entry());
    }

    fn look(&mut self) {
        let Tape { queue, state, lost, fronts, .. } = &mut self.tape;
        let Some(segment) = &fronts.present else { return };
        fronts.copies[fronts.current].0.follow(segment, |place, value| {
            push(queue, state, lost, Entry::new(Kind::Word).with(place as u64).with(value));
        });
    }

    fn looked(&mut self) {
        let digest = self.tape.verdicts.digest();
        self.tape.write(Entry::new(Kind::Verdicts).with(u64::from(digest)));
    }

    fn come(&mut self, segment: BeatView) -> BeatView {
        self.tape.fronts.come(segment)
    }

    fn go(&mut self, view: BeatView) -> BeatView {
        self.tape.fronts.go(view)
    }
}
