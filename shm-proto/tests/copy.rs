//! A copy of a front's segment says what the segment says, and can be built again from what it tells.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use shm_proto::beat::Context;
use shm_proto::beats::Look;
use shm_proto::layout::BeatLayout;
use shm_proto::memory::{self, Access, Segment};
use shm_proto::{
    BeatCopy, BeatSegment, BeatView, Capacity, Generation, Incarnation, MotorIndex, Nanos, Reject, SessionId,
    SlotIndex, SlotReader, Window,
};

const GENERATION: Generation = Generation(3);
const SLOT: SlotIndex = SlotIndex(1);
const MOTOR: MotorIndex = MotorIndex(0);

fn capacity() -> Capacity {
    Capacity::new(2, 2).expect("capacity")
}

/// A front's segment, its view, and the descriptor by which a hostile front writes anything.
fn original() -> (Arc<BeatSegment>, BeatView, Segment) {
    let words = BeatLayout::new(capacity()).words();
    let fd: OwnedFd = memory::create("test-beats", words).expect("a memfd");
    let beats = BeatSegment::map(fd.as_fd(), capacity(), GENERATION).expect("a mapping");
    let wild = Segment::map(fd.as_fd(), words, Access::ReadWrite).expect("a mapping");
    memory::seal(fd.as_fd()).expect("seals");
    let view = BeatView::map(fd.as_fd(), capacity(), GENERATION).expect("a view");
    (beats, view, wild)
}

/// What a reader that has seen nothing yet finds in a slot: counters, and what it rejects.
fn found(view: &BeatView) -> (Vec<u64>, Vec<Reject>) {
    let context = Context {
        slot: SLOT,
        generation: view.generation(),
        now: Nanos(1_000_000),
        bound: None,
        newest: Incarnation::NONE,
        shortest: Window(1),
        longest: Window(u64::MAX),
    };
    let (mut counters, mut rejects) = (Vec::new(), Vec::new());
    SlotReader::default().look(view, Look::Everywhere, context, |beat| match beat {
        Ok(beat) => counters.push(beat.counter),
        Err(reject) => rejects.push(reject),
    });
    (counters, rejects)
}

/// Fails if a beat, an owner or a change is missing in the copy or in one that is built from what it told; or if a word is
/// told that has not changed.
#[test]
fn a_copy_says_what_the_front_says_and_tells_what_has_changed() {
    let (beats, view, _) = original();
    let (copy, copied) = BeatCopy::new(capacity()).expect("a copy");
    let (again, built) = BeatCopy::new(capacity()).expect("a copy");
    let (copied, built) = (copied.handed_over_as(GENERATION), built.handed_over_as(GENERATION));
    let follow = || {
        let mut told = 0;
        copy.follow(&view, |place, value| {
            again.set(place, value);
            told += 1;
        });
        told
    };
    let mut writer = beats.writer(SLOT).expect("the slot");
    let owner = writer.open_at(SessionId(9), Window(500), Nanos(100));
    beats.take_motor(MOTOR, owner);
    assert!(follow() > 0);
    for lap in 0..200 {
        writer.beat_at(Nanos(200 + lap));
        // In the second lap the session, its window and its tag are there already.
        let most = if lap < 64 { 8 } else { 5 };
        assert!((1..=most).contains(&follow()), "lap {lap}");
        assert_eq!(follow(), 0, "nothing has changed since");
        for other in [&copied, &built] {
            assert_eq!(found(other), found(&view), "lap {lap}");
            assert_eq!(other.owner_word(MOTOR), owner.to_word());
            assert_eq!(other.change(SLOT), view.change(SLOT));
        }
    }
    copy.clear();
    assert_eq!((found(&copied), copied.owner_word(MOTOR)), ((vec![], vec![]), 0));
}

/// Fails if a record that is being written is copied as if it were whole.
#[test]
fn a_torn_record_is_torn_in_the_copy() {
    let (beats, view, wild) = original();
    let (copy, copied) = BeatCopy::new(capacity()).expect("a copy");
    let copied = copied.handed_over_as(GENERATION);
    let mut writer = beats.writer(SLOT).expect("the slot");
    writer.open_at(SessionId(9), Window(500), Nanos(100));
    wild.store(BeatLayout::new(capacity()).record(SLOT, 1), 1, Relaxed);
    copy.follow(&view, |_, _| ());
    assert_eq!(found(&copied), (vec![], vec![Reject::Torn]));
    assert_eq!(found(&copied), found(&view));
}
