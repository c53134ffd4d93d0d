//! Every order in which two processes can load and store, tried by the model checker loom on the real code of
//! records, rings and segments. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p shm-proto --test loom --release`, as `cargo xtask test` does.
//!
//! What loom 0.7 covers: interleavings of single loads and stores up to a bounded number of preemptions, stale
//! values of relaxed loads, acquire and release fences, and modification order per word. What it does not:
//! SeqCst accesses, which it takes for acquire and release (weaker, so nothing is believed too easily), stores
//! that become visible before an earlier load of their own thread is done (load buffering), and any reader
//! outside this memory model, such as one that maps with another word size. `tests/concurrent.rs` runs the same
//! code on the machine itself.
#![cfg(loom)]

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;
use shm_proto::beat::{Context, Reject};
use shm_proto::beats::{Look, SlotReader};
use shm_proto::layout::{BeatLayout, RING_RECORDS};
use shm_proto::memory::{self, Segment};
use shm_proto::verdicts::{Identity, ResetPolicy};
use shm_proto::{
    BeatSegment, BeatView, Capacity, Generation, Incarnation, MotorIndex, Nanos, Owner, SessionId, SlotIndex,
    VerdictSegment, VerdictView, Window, record,
};

const SLOT: SlotIndex = SlotIndex(0);
const MOTOR: MotorIndex = MotorIndex(0);
const SESSION: SessionId = SessionId(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);
const WINDOW: Window = Window::from_millis(100);

/// Tries every order in which no more than so many threads are interrupted where they need not be; `None`: every
/// order there is. Two is what most known bugs of this kind need, and what a test of two rings can afford.
fn explore(preemptions: Option<usize>, scenario: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(scenario);
}

/// The words of a turn: no word of any other turn is equal.
fn content(turn: u64) -> [u64; 2] {
    [turn << 8 | 1, turn << 8 | 2]
}

#[test]
fn a_record_is_read_whole_or_not_at_all() {
    explore(Some(3), || {
        let segment = Arc::new(Segment::private(3).expect("memory"));
        let write = |segment: &Segment, turn| {
            record::write(segment.writable(0, 3).expect("inside"), turn, content(turn));
        };
        write(&segment, 1);
        let writer = {
            let segment = Arc::clone(&segment);
            thread::spawn(move || {
                write(&segment, 2);
                write(&segment, 3);
            })
        };
        let mut last = 1;
        for _ in 0..2 {
            let Some(words) = record::read::<2>(segment.readable(0, 3).expect("inside")) else { continue };
            let turn = words[0] >> 8;
            assert_eq!(words, content(turn), "a mixture of two turns");
            assert!(turn >= last, "turn {turn} after {last}");
            last = turn;
        }
        writer.join().expect("the writer");
        let words = record::read(segment.readable(0, 3).expect("inside"));
        assert_eq!(words, Some(content(3)), "nobody writes any more");
    });
}

/// Both sides of a beat segment for one session and one motor.
fn beats() -> (Arc<BeatSegment>, BeatView) {
    let (capacity, generation) = (Capacity::new(1, 1).expect("capacity"), Generation(7));
    let fd = memory::create("lanyard-loom", BeatLayout::new(capacity).words()).expect("memfd");
    let beats = BeatSegment::map(fd.as_fd(), capacity, generation).expect("front's mapping");
    memory::seal(fd.as_fd()).expect("seals");
    (beats, BeatView::map(fd.as_fd(), capacity, generation).expect("supervisor's mapping"))
}

/// What the supervisor knows of a slot nobody has been in.
fn vacant() -> Context {
    Context {
        slot: SLOT,
        generation: Generation(7),
        now: Nanos(1_000),
        bound: None,
        newest: Incarnation::NONE,
        shortest: WINDOW,
        longest: WINDOW,
    }
}

/// The time of a beat follows from its counter, so a beat that was put together from two shows.
fn time_of(counter: u64) -> Nanos {
    Nanos(counter * 3)
}

/// Looks, and checks that only whole beats come, each once and in order, with nothing amiss but torn records.
fn look(view: &BeatView, reader: &mut SlotReader, how: Look, last: &mut u64) {
    reader.look(view, how, vacant(), |found| match found {
        Ok(beat) => {
            assert!(beat.counter > *last, "{beat:?} after {last}");
            assert_eq!((beat.session, beat.at), (SESSION, time_of(beat.counter)));
            *last = beat.counter;
        }
        Err(reject) => assert_eq!(reject, Reject::Torn, "from an honest writer"),
    });
}

fn ring_under(how: Look) {
    explore(Some(2), move || {
        let (beats, view) = beats();
        let mut writer = beats.writer(SLOT).expect("slot");
        writer.open_at(SESSION, WINDOW, time_of(1));
        // One more than the ring holds, so that a record is overwritten while it is read.
        let newest = RING_RECORDS as u64 + 1;
        let writing =
            thread::spawn(move || (2..=newest).for_each(|counter| writer.beat_at(time_of(counter))));
        let (mut reader, mut last) = (SlotReader::default(), 0);
        look(&view, &mut reader, how, &mut last);
        writing.join().expect("the writer");
        look(&view, &mut reader, Look::Everywhere, &mut last);
        assert_eq!(last, newest, "the newest beat is found when the writer rests");
    });
}

#[test]
fn a_look_onward_finds_only_beats_that_were_written() {
    ring_under(Look::Onward);
}

#[test]
fn a_look_everywhere_finds_only_beats_that_were_written() {
    ring_under(Look::Everywhere);
}

#[test]
fn who_sees_the_change_word_finds_the_session() {
    explore(None, || {
        let (beats, view) = beats();
        let mut writer = beats.writer(SLOT).expect("slot");
        let opening = thread::spawn(move || _ = writer.open_at(SESSION, WINDOW, time_of(1)));
        let (mut reader, mut last) = (SlotReader::default(), 0);
        if reader.changed(&view, SLOT) {
            look(&view, &mut reader, Look::Onward, &mut last);
            assert_eq!(last, 1, "the change word came before the beat it announces");
        }
        opening.join().expect("the front");
    });
}

/// What lies in a bus's queue, whose lock orders the sends of both processes as the kernel's does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Motion,
    Stop,
}

/// How the front sends a motion frame.
#[derive(Clone, Copy, Debug)]
enum Front {
    /// It looks at its grant before and after: `Actor::send_permitted`.
    LooksTwice,
    /// It looks before only.
    LooksOnce,
}

/// How the supervisor stops a motor.
#[derive(Clone, Copy, Debug)]
enum Supervisor {
    /// It revokes the grant, then sends: `Core::begin_stop`.
    RevokesFirst,
    /// It sends, then revokes.
    SendsFirst,
}

/// A session asks for a motor and moves it, while the supervisor grants it and takes it back. At the end a stop
/// must be the last thing on the bus if anything moved.
fn handshake(front: Front, supervisor: Supervisor) {
    explore(None, move || {
        let capacity = Capacity::new(1, 1).expect("capacity");
        let identity = Identity { config_hash: 1, pid: 1, started: Nanos(1), policy: ResetPolicy::Auto };
        let (verdicts, fd) = VerdictSegment::create(capacity, &identity, &[], &[]).expect("verdicts");
        let verdict_view = VerdictView::map(fd.as_fd(), capacity).expect("front's view");
        let (beats, beat_view) = beats();
        let owner = Owner { slot: SLOT, incarnation: Incarnation::new(1) };
        let bus = Arc::new(Mutex::new(Vec::new()));

        let front_bus = Arc::clone(&bus);
        let moving = thread::spawn(move || {
            let send = |frame| front_bus.lock().expect("the bus").push(frame);
            beats.take_motor(MOTOR, owner);
            let holds = || verdict_view.granted(MOTOR) == Some(owner);
            if !holds() {
                return;
            }
            send(Frame::Motion);
            if matches!(front, Front::LooksTwice) && !holds() {
                send(Frame::Stop);
            }
        });

        let send = |frame| bus.lock().expect("the bus").push(frame);
        if beat_view.owner_word(MOTOR) == owner.to_word() {
            verdicts.grant(MOTOR, Some(owner));
            match supervisor {
                Supervisor::RevokesFirst => {
                    verdicts.grant(MOTOR, None);
                    send(Frame::Stop);
                }
                Supervisor::SendsFirst => {
                    send(Frame::Stop);
                    verdicts.grant(MOTOR, None);
                }
            }
        }
        moving.join().expect("the front");
        let frames = bus.lock().expect("the bus").clone();
        assert!(
            !frames.contains(&Frame::Motion) || frames.last() == Some(&Frame::Stop),
            "a motion frame is left unanswered: {frames:?}"
        );
    });
}

#[test]
fn no_motion_frame_is_left_unanswered_after_a_revocation() {
    handshake(Front::LooksTwice, Supervisor::RevokesFirst);
}

#[test]
#[should_panic(expected = "a motion frame is left unanswered")]
fn a_front_that_looks_once_leaves_a_frame_unanswered() {
    handshake(Front::LooksOnce, Supervisor::RevokesFirst);
}

#[test]
#[should_panic(expected = "a motion frame is left unanswered")]
fn a_supervisor_that_sends_before_it_revokes_leaves_a_frame_unanswered() {
    handshake(Front::LooksTwice, Supervisor::SendsFirst);
}
