//! Beats, looks and verdicts allocate nothing.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::os::fd::AsFd;

use common::{Rig, SESSION, WINDOW, honest, signed, vacant};
use shm_proto::beat::{Context, RawBeat, Reject};
use shm_proto::beats::{Look, SlotReader};
use shm_proto::verdicts::{
    BusVerdict, Counter, Degraded, Event, EventKind, Identity, MotorState, MotorVerdict, Phase, Reason,
    ResetPolicy, SessionState, SessionVerdict, VerdictSegment, VerdictView,
};
use shm_proto::{Capacity, Ending, Generation, Incarnation, MotorIndex, Nanos, Owner, SlotIndex, TripId};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes unchanged to the system's allocator; counting touches a thread-local cell
// without destructor, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises about the layout are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises about pointer and layout are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations this thread makes while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

const SLOT: SlotIndex = SlotIndex(0);

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(black_box(Box::new(7)))), 1);
}

#[test]
fn the_front_writes_without_allocating() {
    let rig = Rig::new(2, 2);
    let mut writer = rig.beats.writer(SLOT).expect("slot");
    let count = allocations(|| {
        for _ in 0..1_000 {
            let owner = writer.open(SESSION, WINDOW);
            rig.beats.take_motor(MotorIndex(1), owner);
            black_box(rig.beats.owner(MotorIndex(1)));
            writer.beat();
            writer.beat_at(Nanos(1));
            writer.close(Ending::Client);
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn the_supervisor_reads_without_allocating() {
    let rig = Rig::new(2, 2);
    let mut writer = rig.beats.writer(SLOT).expect("slot");
    let good = honest(1, 1);
    let spoilt = [
        signed(good, SLOT),
        good,
        signed(RawBeat { window: 0, ..good }, SLOT),
        signed(RawBeat { timestamp: u64::MAX, ..good }, SLOT),
        signed(RawBeat { tag: 0, ..good }, SLOT),
        signed(RawBeat { tag: 2, ..good }, SLOT),
    ];
    let (mut accepted, mut rejected) = (0, 0);
    let count = allocations(|| {
        for _ in 0..1_000 {
            for raw in &spoilt {
                let mut reader = SlotReader::default();
                writer.write_raw(raw);
                reader.changed(&rig.view, SLOT);
                for how in [Look::Onward, Look::Everywhere] {
                    let context = Context { newest: Incarnation::NONE, ..vacant(SLOT) };
                    reader.look(&rig.view, how, context, |found| match found {
                        Ok(_) => accepted += 1,
                        Err(_) => rejected += 1,
                    });
                }
                black_box(rig.view.owner_word(MotorIndex(0)));
            }
        }
    });
    assert_eq!((count, accepted), (0, 1_000));
    assert_eq!(rejected, 10_000);
}

#[test]
fn verdicts_are_published_and_read_without_allocating() {
    let capacity = Capacity::new(4, 4).expect("capacity");
    let identity = Identity { config_hash: 1, pid: 1, started: Nanos(1), policy: ResetPolicy::Auto };
    let (mut segment, fd) = VerdictSegment::create(capacity, &identity, &["m"], &["b"]).expect("segment");
    let view = VerdictView::map(fd.as_fd(), capacity).expect("view");
    let owner = Owner { slot: SLOT, incarnation: Incarnation::new(1) };
    let motor = MotorVerdict {
        grant: Some(owner),
        state: MotorState::Granted,
        stage: 0,
        trip: TripId(1),
        reason: Some(Reason::Expired),
        first_stop: Nanos(1),
        confirmed: Nanos::ZERO,
        standstill: Nanos(2),
        stops_sent: 3,
        velocity: Some(1.0),
        position: None,
        power: 3,
        fault: 0,
        feedback: Nanos(3),
        guarded: 0,
        violations: 0,
        moves: Nanos::ZERO,
        bus: 0,
        latched: 0,
    };
    let session = SessionVerdict {
        session: SESSION,
        incarnation: owner.incarnation,
        state: SessionState::Live,
        deadline: Nanos(4),
        last_beat: Nanos(3),
        trip: TripId::NONE,
        beats: 9,
        window: WINDOW.0,
    };
    let bus = BusVerdict { up: 1, sent: 2, errors: 0, last_error: 0, received: 5, ..BusVerdict::FRESH };
    let count = allocations(|| {
        for number in 0..1_000 {
            segment.grant(MotorIndex(0), Some(owner));
            segment.motor(MotorIndex(0), &motor);
            segment.session(SLOT, &session);
            segment.bus(0, &bus);
            segment.beat(number, Nanos::now());
            segment.phase(Phase::Armed);
            segment.degraded(Degraded::Affinity.number());
            segment.latch(TripId(number));
            segment.front(Generation(number), 7);
            segment.front_beat(Nanos(number));
            segment.counter(Counter::Loops, number);
            segment.rejects(Reject::Torn, number);
            segment.event(&Event::new(EventKind::Trip, Nanos(number)));
            black_box((view.granted(MotorIndex(0)), view.session_state(SLOT), view.session(SLOT)));
            black_box((view.motor(MotorIndex(0)), view.bus(0), view.beat(), view.events().count()));
        }
    });
    assert_eq!(count, 0);
}
