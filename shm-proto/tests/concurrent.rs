//! Writer and reader at full speed: the reader never sees what was never written.

mod common;

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use common::{Rig, SESSION, WINDOW, vacant};
use shm_proto::beat::{Bound, Context, Reject, Word};
use shm_proto::beats::{Look, SlotReader};
use shm_proto::memory::Segment;
use shm_proto::{Incarnation, Nanos, SlotIndex, record};

const SLOT: SlotIndex = SlotIndex(0);
const TURNS: u64 = 1_500_000;

#[test]
fn a_record_is_read_whole_or_not_at_all() {
    const WORDS: usize = 7;
    let content = |turn: u64| core::array::from_fn::<_, WORDS, _>(|at| turn << 8 | at as u64);
    let segment = Segment::private(8).expect("memory");
    let record = || segment.readable(0, 8).expect("inside");
    let write = |turn| record::write(segment.writable(0, 8).expect("inside"), turn, content(turn));
    write(0);
    let done = AtomicBool::new(false);
    let (mut whole, mut last) = (0_u64, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 1..=TURNS {
                write(turn);
            }
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            let Some(words) = record::read(record()) else { continue };
            let turn = words[0] >> 8;
            assert_eq!(words, content(turn), "a mixture of two turns");
            assert!(turn >= last, "turn {turn} after {last}");
            (whole, last) = (whole + 1, turn);
        }
    });
    assert_eq!(record::read(record()), Some(content(TURNS)));
    assert!(whole > 0);
}

#[test]
fn the_reader_finds_only_beats_that_were_written() {
    // Each beat's time follows from its counter, so a beat that was put together from two shows.
    let time_of = |counter: u64| Nanos(counter * 3);
    let rig = Rig::new(1, 1);
    let mut writer = rig.beats.writer(SLOT).expect("slot");
    let owner = writer.open(SESSION, WINDOW);
    let bound = Bound { session: SESSION, incarnation: owner.incarnation, window: WINDOW };
    let context =
        Context { now: Nanos::NEVER, bound: Some(bound), newest: Incarnation::new(1), ..vacant(SLOT) };
    let done = AtomicBool::new(false);
    let mut last = 1;
    let mut reader = SlotReader::default();
    rig.look(&mut reader, Look::Onward, &context);
    thread::scope(|scope| {
        scope.spawn(|| {
            for counter in 2..=TURNS {
                writer.beat_at(time_of(counter));
            }
            done.store(true, Relaxed);
        });
        for how in [Look::Onward, Look::Everywhere].into_iter().cycle() {
            let finished = done.load(Relaxed);
            reader.look(&rig.view, how, context, |found| match found {
                Ok(beat) => {
                    assert!(beat.counter > last, "{beat:?} after {last}");
                    assert_eq!((beat.at, beat.word), (time_of(beat.counter), Word::Alive));
                    last = beat.counter;
                }
                Err(reject) => assert_eq!(reject, Reject::Torn, "an honest writer, lapping the reader"),
            });
            if finished {
                break;
            }
        }
    });
    assert_eq!(last, TURNS, "the newest beat is found at the latest when the writer rests");
}
