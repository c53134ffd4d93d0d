//! Everything that is published is read back equal, and nothing but that.

use core::sync::atomic::Ordering::Relaxed;
use std::os::fd::{AsFd, OwnedFd};

use shm_proto::beat::Reject;
use shm_proto::memory::{self, Access, Segment};
use shm_proto::verdicts::{
    BusHealth, BusVerdict, Counter, Degraded, EVENTS, Event, EventKind, Identity, MOST_BUSES, MotorSet,
    MotorState, MotorVerdict, NAME_BYTES, PastEvidence, Phase, Predecessor, Reason, ResetPolicy,
    SessionState, SessionVerdict, VerdictSegment, VerdictView,
};
use shm_proto::{Capacity, Generation, Incarnation, MotorIndex, Nanos, Owner, SessionId, SlotIndex, TripId};

const IDENTITY: Identity =
    Identity { config_hash: 0xc0ff_ee00, pid: 4321, started: Nanos(77), policy: ResetPolicy::Manual };

fn rig(capacity: Capacity) -> (VerdictSegment, OwnedFd, VerdictView) {
    let motors: Vec<_> = (0..capacity.motors()).map(|motor| format!("motor {motor}")).collect();
    let buses: Vec<_> = (0..MOST_BUSES).map(|bus| format!("can{bus}")).collect();
    let motors: Vec<_> = motors.iter().map(String::as_str).collect();
    let buses: Vec<_> = buses.iter().map(String::as_str).collect();
    let (segment, fd) = VerdictSegment::create(capacity, &IDENTITY, &motors, &buses).expect("segment");
    let view = VerdictView::map(fd.as_fd(), capacity).expect("view");
    (segment, fd, view)
}

fn small() -> (VerdictSegment, OwnedFd, VerdictView) {
    rig(Capacity::new(3, 3).expect("capacity"))
}

/// A number that no other place gets.
struct Fresh(u64);

impl Fresh {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    fn nanos(&mut self) -> Nanos {
        Nanos(self.next())
    }
}

fn any_of<T: Copy>(all: &[T], number: u64) -> T {
    let index = usize::try_from(number).expect("small") % all.len();
    all[index]
}

fn session(fresh: &mut Fresh) -> SessionVerdict {
    let number = fresh.next();
    SessionVerdict {
        session: SessionId(u128::from(number) << 64 | u128::from(fresh.next())),
        incarnation: Incarnation::new((1 << 47) + fresh.next()),
        state: any_of(SessionState::ALL, number),
        deadline: fresh.nanos(),
        last_beat: fresh.nanos(),
        trip: TripId(fresh.next()),
        beats: fresh.next(),
        window: fresh.next(),
    }
}

fn motor(fresh: &mut Fresh) -> MotorVerdict {
    let number = fresh.next();
    let slot = SlotIndex(u16::try_from(number % 1000).expect("small"));
    let small = f32::from(slot.0);
    MotorVerdict {
        grant: (!number.is_multiple_of(3)).then_some(Owner { slot, incarnation: Incarnation::new(number) }),
        state: any_of(MotorState::ALL, number),
        stage: fresh.next(),
        trip: TripId(fresh.next()),
        reason: (!number.is_multiple_of(5)).then_some(any_of(Reason::ALL, number)),
        first_stop: fresh.nanos(),
        confirmed: fresh.nanos(),
        standstill: fresh.nanos(),
        stops_sent: fresh.next(),
        velocity: (!number.is_multiple_of(2)).then_some(-small / 3.0),
        position: (!number.is_multiple_of(7)).then_some(f64::from(small) / -3.0),
        power: fresh.next(),
        fault: fresh.next(),
        feedback: fresh.nanos(),
        guarded: fresh.next(),
        violations: fresh.next(),
        bus: fresh.next(),
        latched: fresh.next(),
        moves: fresh.nanos(),
    }
}

fn bus(fresh: &mut Fresh) -> BusVerdict {
    BusVerdict {
        up: fresh.next(),
        sent: fresh.next(),
        errors: fresh.next(),
        last_error: fresh.next(),
        received: fresh.next(),
        health: any_of(BusHealth::ALL, fresh.next()),
        confirms: fresh.next(),
        confirmed: fresh.next(),
        error_frames: fresh.next(),
        queue_full: fresh.next(),
        tx_errors: fresh.next(),
        rx_errors: fresh.next(),
        disbelieved: fresh.next(),
        disbelieved_at: Nanos(fresh.next()),
    }
}

fn event(fresh: &mut Fresh) -> Event {
    let number = fresh.next();
    let mut motors = MotorSet::default();
    motors.insert(MotorIndex(u16::try_from(number % 256).expect("small")));
    Event {
        kind: any_of(EventKind::ALL, number),
        at: fresh.nanos(),
        trip: TripId(fresh.next()),
        reason: (!number.is_multiple_of(3)).then_some(any_of(Reason::ALL, number)),
        session: SessionId(u128::from(number) << 64 | u128::from(fresh.next())),
        slot: SlotIndex(u16::try_from(number % 1024).expect("small")),
        last_beat: fresh.nanos(),
        deadline: fresh.nanos(),
        first_stop: fresh.nanos(),
        all_stopped: fresh.nanos(),
        motors,
    }
}

#[test]
fn all_that_is_published_at_once_is_read_back_equal() {
    let least = Capacity::new(1, 1).expect("capacity");
    let most = Capacity::new(Capacity::MOST_SESSIONS, Capacity::MOST_MOTORS).expect("capacity");
    for capacity in [least, Capacity::DEFAULT, most] {
        let (mut segment, _fd, view) = rig(capacity);
        let mut fresh = Fresh(1 << 32);
        let sessions: Vec<_> = capacity.slots().map(|slot| (slot, session(&mut fresh))).collect();
        let motors: Vec<_> =
            (0..capacity.motors()).map(|index| (MotorIndex(index), motor(&mut fresh))).collect();
        let buses: Vec<_> = (0..MOST_BUSES).map(|index| (index, bus(&mut fresh))).collect();
        let events: Vec<_> = (1..=EVENTS as u64).map(|number| (number, event(&mut fresh))).collect();
        let counters: Vec<_> = Counter::ALL.iter().map(|counter| (*counter, fresh.next())).collect();
        let rejects: Vec<_> = Reject::ALL.iter().map(|reject| (*reject, fresh.next())).collect();

        for (slot, verdict) in &sessions {
            segment.session(*slot, verdict);
        }
        for (index, verdict) in &motors {
            segment.motor(*index, verdict);
            segment.grant(*index, verdict.grant);
        }
        for (index, verdict) in &buses {
            segment.bus(*index, verdict);
        }
        for (_, event) in &events {
            segment.event(event);
        }
        for (counter, value) in &counters {
            segment.counter(*counter, *value);
        }
        for (reject, value) in &rejects {
            segment.rejects(*reject, *value);
        }
        segment.beat(11, Nanos(12));
        segment.phase(Phase::Armed);
        segment.degraded(Degraded::Scheduling.number() | Degraded::Memory.number());
        segment.latch(TripId(13));
        segment.front(Generation(14), 15);
        segment.front_beat(Nanos(16));
        assert!(!view.watchdog_reset());
        segment.watchdog_reset();
        segment.predecessor(Predecessor::Died, Nanos(17));
        let past = |index: MotorIndex| PastEvidence {
            standstill: Nanos(18 + u64::from(index.0)),
            feedback: Nanos(1 << 20 | u64::from(index.0)),
        };
        for (index, _) in &motors {
            segment.past_evidence(*index, &past(*index));
        }

        for (slot, verdict) in sessions {
            assert_eq!(view.session(slot), Some(verdict));
            assert_eq!(view.session_state(slot), (verdict.incarnation, verdict.state));
        }
        for (index, verdict) in motors {
            assert_eq!(view.motor(index), Some(verdict));
            assert_eq!(view.past_evidence(index), Some(past(index)));
            assert_eq!(view.granted(index), verdict.grant);
            assert_eq!(view.motor_name(index), format!("motor {}", index.0));
        }
        for (index, verdict) in buses {
            assert_eq!(view.bus(index), Some(verdict));
            assert_eq!(view.bus_name(index), format!("can{index}"));
        }
        assert!(view.events().eq(events));
        for (counter, value) in counters {
            assert_eq!(view.counter(counter), value, "{}", counter.name());
        }
        for (reject, value) in rejects {
            assert_eq!(view.rejects(reject), value, "{}", reject.name());
        }
        assert_eq!((view.beat(), view.phase()), ((11, Nanos(12)), Some(Phase::Armed)));
        assert!(view.degraded().eq([Degraded::Scheduling, Degraded::Memory]));
        assert_eq!((view.latch(), view.front()), (TripId(13), (Generation(14), 15)));
        assert!(view.watchdog_reset());
        assert_eq!(view.predecessor(), (Predecessor::Died, Nanos(17)));
        assert_eq!((view.front_beat(), view.event_count()), (Nanos(16), EVENTS as u64));
        assert_eq!((view.config_hash(), view.pid()), (IDENTITY.config_hash, 4321));
        assert_eq!((view.started(), view.policy()), (Nanos(77), Some(ResetPolicy::Manual)));
        assert_eq!((view.capacity(), view.motor_count()), (capacity, capacity.motors()));
        assert_eq!(view.bus_count(), MOST_BUSES);
    }
}

#[test]
fn a_new_segment_says_nothing_good() {
    let (_segment, _fd, view) = small();
    assert_eq!(view.phase(), Some(Phase::Starting));
    assert_eq!(view.session_state(SlotIndex(0)), (Incarnation::NONE, SessionState::Vacant));
    assert_eq!(view.granted(MotorIndex(0)), None);
    let motor = view.motor(MotorIndex(0)).expect("motor");
    assert_eq!((motor.state, motor.reason, motor.trip), (MotorState::Idle, None, TripId::NONE));
    assert_eq!((motor.velocity, motor.position), (None, None), "nobody has measured anything");
    assert_eq!((view.event_count(), view.events().count(), view.event(1)), (0, 0, None));
}

#[test]
fn places_that_do_not_exist_read_as_nothing() {
    let (segment, _fd, view) = rig(Capacity::new(1, 2).expect("capacity"));
    assert_eq!(view.session(SlotIndex(1)), None);
    assert_eq!(view.session_state(SlotIndex(u16::MAX)), (Incarnation::NONE, SessionState::Vacant));
    assert_eq!((view.motor(MotorIndex(2)), view.granted(MotorIndex(2))), (None, None));
    assert_eq!((view.motor_name(MotorIndex(2)), view.bus_name(MOST_BUSES)), (String::new(), String::new()));
    assert_eq!(view.bus(MOST_BUSES), None);
    segment.bus(usize::MAX, &bus(&mut Fresh(0)));
}

#[test]
fn publishing_for_a_place_that_does_not_exist_changes_no_other() {
    let capacity = Capacity::new(2, 2).expect("capacity");
    let (segment, _fd, view) = rig(capacity);
    let everything = |view: &VerdictView| {
        let sessions: Vec<_> = capacity.slots().map(|slot| view.session(slot)).collect();
        let motors: Vec<_> = (0..2).map(|motor| view.motor(MotorIndex(motor))).collect();
        let buses: Vec<_> = (0..MOST_BUSES).map(|bus| (view.bus(bus), view.bus_name(bus))).collect();
        (sessions, motors, buses, view.events().count())
    };
    let before = everything(&view);
    let mut fresh = Fresh(1);
    for beyond in [2, 3, 4, 300] {
        segment.session(SlotIndex(beyond), &session(&mut fresh));
        segment.motor(MotorIndex(beyond), &motor(&mut fresh));
        let owner = Owner { slot: SlotIndex(1), incarnation: Incarnation::new(1) };
        segment.grant(MotorIndex(beyond), Some(owner));
        assert_eq!(everything(&view), before, "place {beyond} of 2");
    }
}

#[test]
fn names_beyond_the_capacity_change_nothing_else() {
    let capacity = Capacity::new(1, 1).expect("capacity");
    let many = ["a name"; 40];
    let (_segment, fd) = VerdictSegment::create(capacity, &IDENTITY, &many, &[]).expect("segment");
    let view = VerdictView::map(fd.as_fd(), capacity).expect("view");
    assert_eq!((view.motor_count(), view.motor_name(MotorIndex(0)).as_str()), (1, "a name"));
    let raw = Segment::map(fd.as_fd(), segment_words(&fd), Access::Read).expect("mapping");
    let name = u64::from_le_bytes(*b"a name\0\0");
    let found = (0..raw.words()).filter(|place| raw.load(*place, Relaxed) == name).count();
    assert_eq!(found, 1, "only the one motor has a name");
}

fn segment_words(fd: &OwnedFd) -> usize {
    let bytes = nix::sys::stat::fstat(fd).expect("size").st_size;
    usize::try_from(bytes).expect("size") / 8
}

#[test]
fn names_that_are_too_long_are_cut() {
    let long = "x".repeat(NAME_BYTES + 9);
    let umlauts = "ü".repeat(NAME_BYTES);
    let capacity = Capacity::new(1, 3).expect("capacity");
    let names = ["", long.as_str(), umlauts.as_str()];
    let (_segment, fd) = VerdictSegment::create(capacity, &IDENTITY, &names, &["can0"]).expect("segment");
    let view = VerdictView::map(fd.as_fd(), capacity).expect("view");
    assert_eq!(view.motor_name(MotorIndex(0)), "");
    assert_eq!(view.motor_name(MotorIndex(1)), long[..NAME_BYTES]);
    assert_eq!(view.motor_name(MotorIndex(2)), umlauts[..NAME_BYTES]);
    assert_eq!((view.bus_name(0).as_str(), view.bus_count()), ("can0", 1));
}

#[test]
fn numbers_survive_and_are_unlike_each_other() {
    macro_rules! check {
        ($($name:ident),+) => {$(
            for (index, value) in $name::ALL.iter().enumerate() {
                assert_eq!($name::from_number(value.number()), Some(*value));
                assert!(!value.name().is_empty());
                for other in &$name::ALL[..index] {
                    assert_ne!(value.number(), other.number());
                    assert_ne!(value.name(), other.name());
                }
            }
            assert_eq!($name::from_number(u64::MAX), None);
        )+};
    }
    check!(Phase, SessionState, MotorState, Reason, EventKind, ResetPolicy, Degraded, Counter);
    for (index, reject) in Reject::ALL.iter().enumerate() {
        assert_eq!(*reject as usize, index, "the place of {}", reject.name());
        assert!(Reject::ALL[..index].iter().all(|other| other.name() != reject.name()));
    }
    for flag in Degraded::ALL {
        assert_eq!(flag.number().count_ones(), 1, "{} is one bit", flag.name());
    }
}

#[test]
fn the_newest_256_events_are_kept() {
    let (mut segment, _fd, view) = small();
    let mut fresh = Fresh(0);
    let mut all = Vec::new();
    for number in 1..=3 * EVENTS as u64 + 5 {
        let event = event(&mut fresh);
        segment.event(&event);
        all.push((number, event));
        let kept = &all[all.len().saturating_sub(EVENTS)..];
        assert_eq!(view.event(number), Some(event));
        assert_eq!(view.event(kept[0].0), Some(kept[0].1));
        if number % 61 == 0 || number % EVENTS as u64 <= 1 {
            assert!(view.events().eq(kept.iter().copied()), "after {number}");
        }
        for gone in [0, kept[0].0 - 1, number + 1, number + EVENTS as u64, u64::MAX] {
            assert_eq!(view.event(gone), None, "event {gone} after {number}");
        }
    }
}

#[test]
fn motor_sets_hold_every_motor_and_no_other() {
    let mut set = MotorSet::default();
    assert!(set.is_empty());
    for motor in [0, 63, 64, 127, 128, 255, 256, u16::MAX] {
        set.insert(MotorIndex(motor));
    }
    assert!(set.iter().eq([0, 63, 64, 127, 128, 255].map(MotorIndex)));
    assert!(!set.contains(MotorIndex(1)) && !set.contains(MotorIndex(256)) && !set.is_empty());
}

#[test]
fn a_view_of_another_capacity_is_refused() {
    let (_segment, fd, _view) = small();
    for (sessions, motors) in [(4, 3), (3, 4), (2, 3), (1024, 256)] {
        let capacity = Capacity::new(sessions, motors).expect("capacity");
        assert!(VerdictView::map(fd.as_fd(), capacity).is_err(), "{sessions} x {motors}");
    }
    // Four sessions take the words of one motor: the sizes agree and only the header tells.
    let capacity = Capacity::new(7, 2).expect("capacity");
    let error = VerdictView::map(fd.as_fd(), capacity).expect_err("another capacity");
    assert!(error.to_string().contains("another layout"), "{error}");
}

#[test]
fn nobody_else_can_write() {
    let (segment, fd, view) = small();
    memory::check_sealed(fd.as_fd()).expect("sealed at once");
    let words = segment_words(&fd);
    assert!(Segment::map(fd.as_fd(), words, Access::ReadWrite).is_err());
    let reader = Segment::map(fd.as_fd(), words, Access::Read).expect("read-only mapping");
    segment.beat(1, Nanos(2));
    for place in 0..words {
        reader.store(place, u64::MAX, Relaxed);
    }
    assert_eq!(view.beat(), (1, Nanos(2)));
}

#[test]
fn an_unsealed_segment_is_refused() {
    let (_segment, fd, _view) = small();
    let words = segment_words(&fd);
    let copy = memory::create("lanyard-copy", words).expect("memfd");
    let from = Segment::map(fd.as_fd(), words, Access::Read).expect("original");
    let to = Segment::map(copy.as_fd(), words, Access::ReadWrite).expect("copy");
    for place in 0..words {
        to.store(place, from.load(place, Relaxed), Relaxed);
    }
    let capacity = Capacity::new(3, 3).expect("capacity");
    assert!(VerdictView::map(copy.as_fd(), capacity).is_err());
    memory::seal(copy.as_fd()).expect("seals");
    VerdictView::map(copy.as_fd(), capacity).expect("the copy is complete");
}
