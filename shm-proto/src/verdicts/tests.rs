//! What only the inside of the segment can show.

use std::os::fd::{AsFd, OwnedFd};

use super::places::{
    AT_BUSES, AT_CONFIG, AT_COUNTERS, AT_DEGRADED, AT_EVENT_COUNT, AT_FRONT_BEAT, AT_FRONT_PID,
    AT_GENERATION, AT_LATCH, AT_LATCH_CHANGES, AT_LATCHES_KEPT, AT_LAYOUT, AT_LOOP, AT_LOOP_TIME, AT_MAGIC,
    AT_MOTORS, AT_MOTORS_USED, AT_OPEN, AT_PHASE, AT_PID, AT_POLICY, AT_PREDECESSOR, AT_PREDECESSOR_SEEN,
    AT_PRESSED, AT_REJECTS, AT_SESSIONS, AT_STARTED, AT_WATCHDOG_RESET, BUS_WORDS, EVENT_WORDS, EVENTS,
    MOST_BUSES, MOTOR_REASON, MOTOR_STATE, MOTOR_WORDS, SESSION_STATE, SESSION_WORDS, VerdictLayout,
};
use super::{
    Counter, Event, EventKind, Identity, MotorState, ResetPolicy, SessionState, VerdictSegment, VerdictView,
};
use crate::beat::Reject;
use crate::ids::{Incarnation, MotorIndex, SlotIndex, TripId};
use crate::layout::{Capacity, HEADER_WORDS};
use crate::time::Nanos;

const SLOT: SlotIndex = SlotIndex(0);
const MOTOR: MotorIndex = MotorIndex(0);

fn capacity() -> Capacity {
    Capacity::new(2, 2).expect("capacity")
}

fn rig() -> (VerdictSegment, OwnedFd, VerdictView) {
    let identity = Identity { config_hash: 0, pid: 0, started: Nanos(1), policy: ResetPolicy::Auto };
    let names = ["a", "b"];
    let (segment, fd) = VerdictSegment::create(capacity(), &identity, &names, &names).expect("segment");
    let view = VerdictView::map(fd.as_fd(), capacity()).expect("view");
    (segment, fd, view)
}

#[test]
fn no_two_places_overlap() {
    let most = Capacity::new(Capacity::MOST_SESSIONS, Capacity::MOST_MOTORS).expect("capacity");
    let least = Capacity::new(1, 1).expect("capacity");
    for capacity in [least, capacity(), Capacity::DEFAULT, most] {
        let layout = VerdictLayout { capacity };
        let mut taken = vec![false; layout.words()];
        let mut take = |what: &str, from: usize, words: usize| {
            let places = &mut taken[from..from + words];
            assert!(!places.contains(&true), "{what} overlaps at word {from} of {capacity:?}");
            places.fill(true);
        };
        take("header", 0, HEADER_WORDS);
        capacity.slots().for_each(|slot| take("session", layout.session(slot), SESSION_WORDS));
        for motor in (0..capacity.motors()).map(MotorIndex) {
            take("motor", layout.motor(motor), MOTOR_WORDS);
        }
        (0..MOST_BUSES).for_each(|bus| take("bus", layout.bus(bus), BUS_WORDS));
        (1..=EVENTS as u64).for_each(|number| take("event", layout.event(number), EVENT_WORDS));
        assert!(taken.iter().all(|taken| *taken), "no word is left over in {capacity:?}");
    }
}

#[test]
fn no_two_words_of_the_header_or_an_entry_overlap() {
    let header = [
        AT_MAGIC,
        AT_LAYOUT,
        AT_CONFIG,
        AT_SESSIONS,
        AT_MOTORS,
        AT_BUSES,
        AT_PID,
        AT_STARTED,
        AT_LOOP,
        AT_LOOP_TIME,
        AT_PHASE,
        AT_DEGRADED,
        AT_LATCH,
        AT_LATCHES_KEPT,
        AT_LATCH_CHANGES,
        AT_POLICY,
        AT_GENERATION,
        AT_FRONT_PID,
        AT_FRONT_BEAT,
        AT_EVENT_COUNT,
        AT_MOTORS_USED,
        AT_PREDECESSOR,
        AT_PREDECESSOR_SEEN,
        AT_OPEN,
        AT_WATCHDOG_RESET,
        AT_PRESSED,
    ];
    let counters = Counter::ALL.iter().map(|counter| AT_COUNTERS + *counter as usize);
    let rejects = Reject::ALL.iter().map(|reject| AT_REJECTS + *reject as usize);
    let mut taken = [false; HEADER_WORDS];
    for place in header.into_iter().chain(counters).chain(rejects) {
        assert!(!core::mem::replace(&mut taken[place], true), "word {place} is used twice");
    }
}

#[test]
fn unknown_numbers_decode_to_the_safe_value() {
    let (segment, _fd, view) = rig();
    for unknown in [5, 99, 0xffff] {
        segment.put(segment.layout.session(SLOT) + SESSION_STATE, unknown | 7 << 16);
        assert_eq!(view.session_state(SLOT), (Incarnation::new(7), SessionState::Tripped));
        assert_eq!(view.session(SLOT).map(|session| session.state), Some(SessionState::Tripped));
    }
    for unknown in [5, 99, u64::MAX] {
        segment.put(segment.layout.motor(MOTOR) + MOTOR_STATE, unknown);
        segment.put(segment.layout.motor(MOTOR) + MOTOR_REASON, unknown | 1 << 20);
        let motor = view.motor(MOTOR).expect("motor");
        assert_eq!((motor.state, motor.reason), (MotorState::Unverified, None));
        segment.put(AT_PHASE, unknown);
        segment.put(AT_POLICY, unknown);
        assert_eq!((view.phase(), view.policy()), (None, None));
    }
}

#[test]
fn another_header_is_refused() {
    for place in [AT_MAGIC, AT_LAYOUT, AT_SESSIONS, AT_MOTORS] {
        let (segment, fd, view) = rig();
        let right = view.get(place);
        segment.put(place, right ^ 1);
        let error = VerdictView::map(fd.as_fd(), capacity()).expect_err("another header");
        assert!(error.to_string().contains("another layout"), "word {place}: {error}");
        segment.put(place, right);
        VerdictView::map(fd.as_fd(), capacity()).expect("the right header");
    }
}

#[test]
fn counts_beyond_the_capacity_are_not_believed() {
    let (segment, _fd, view) = rig();
    for count in [3, 1 << 16, u64::MAX] {
        segment.put(AT_MOTORS_USED, count);
        segment.put(AT_BUSES, count | 1 << 20);
        assert!(view.motor_count() <= 2 && view.bus_count() <= MOST_BUSES);
        assert_eq!((view.motor(MotorIndex(2)), view.bus(MOST_BUSES)), (None, None));
    }
    segment.put(AT_EVENT_COUNT, u64::MAX);
    assert_eq!((view.event(u64::MAX), view.events().count()), (None, 0));
}

#[test]
fn an_overtaken_event_is_not_taken_for_its_successor() {
    let (mut segment, _fd, view) = rig();
    let event = |number| Event { trip: TripId(number), ..Event::new(EventKind::Trip, Nanos(number)) };
    let all = EVENTS as u64;
    (1..=all).for_each(|number| segment.event(&event(number)));
    assert_eq!(view.event(1).map(|event| event.trip), Some(TripId(1)));
    // The next event lies in the place of the first, and its writer has not counted it yet.
    let count = view.event_count();
    segment.event(&event(all + 1));
    segment.put(AT_EVENT_COUNT, count);
    assert_eq!(view.event(1), None);
    assert_eq!(view.events().map(|(number, _)| number).collect::<Vec<_>>(), (2..=all).collect::<Vec<_>>());
}

#[test]
fn an_event_being_written_is_none() {
    let (mut segment, _fd, view) = rig();
    segment.event(&Event::new(EventKind::Armed, Nanos(1)));
    let place = segment.layout.event(1);
    segment.put(place, view.get(place) - 1);
    assert_eq!((view.event(1), view.events().count()), (None, 0));
}

/// Fails if a stop that was pressed before, or one that was reset, passes for the one that is asked about.
#[test]
fn only_a_later_press_that_still_holds_is_a_stop() {
    let (segment, _fd, view) = rig();
    assert_eq!(view.stopped_since(Nanos(0)), None, "nothing was pressed");
    segment.latch(TripId(7));
    segment.pressed(Nanos(100));
    assert_eq!(view.stopped_since(Nanos(100)), Some(TripId(7)));
    assert_eq!(view.stopped_since(Nanos(101)), None, "pressed before");
    segment.latch(TripId::NONE);
    assert_eq!(view.stopped_since(Nanos(100)), None, "reset");
}
