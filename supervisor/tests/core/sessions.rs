//! Sessions, fronts and grants: who may move a motor, until when, and what ends it.

use shm_proto::beat::{RawBeat, Reject};
use shm_proto::verdicts::{EventKind, MotorState, Reason, ResetPolicy, SessionState};
use shm_proto::{Ending, Incarnation, Nanos, Owner, SlotIndex};

use crate::support::{A, B, Bench, C, MS, TICK, WINDOW};
use crate::{SET_VELOCITY_MODE, ZERO_VELOCITY, state};

#[test]
fn start_stops_every_motor_before_anything_is_granted() {
    let mut bench = Bench::cold(ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY]);
    assert_eq!(bench.sent_to(C), [SET_VELOCITY_MODE, ZERO_VELOCITY]);
    let writer = bench.open(0);
    bench.take(&writer, A);
    bench.run(4 * TICK);
    assert_eq!(bench.view.granted(A), None, "no grant before standstill is proven");
    bench.rest(A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), Some(writer.owner()));
}

#[test]
fn expiry_stops_what_the_session_drives_and_nothing_else() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut first = bench.drive(0, &[A]);
    let mut second = bench.drive(1, &[C]);
    bench.run(TICK / 3);
    bench.beat(&mut first);
    let last_beat = bench.now;
    // The other session goes on beating.
    while bench.now < last_beat.after(WINDOW.0 - 1) {
        bench.beat(&mut second);
        bench.odrive_says(C, 8, 1.0);
        let step = (WINDOW.0 - 1 - bench.now.since(last_beat)).min(4 * TICK);
        bench.run(step.max(1));
    }
    assert_eq!(bench.sent_to(A), Vec::<String>::new(), "not a moment before the deadline");
    // Off the ticks: a core that notices only on ticks is late here.
    bench.run(TICK);
    assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY]);
    assert_eq!(bench.view.granted(A), None);
    assert_eq!(bench.sent_to(C), Vec::<String>::new(), "another session's motor is left alone");
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Tripped);
    let [trip] = bench.events(EventKind::Trip)[..] else { panic!("one trip is kept") };
    assert_eq!(trip.reason, Some(Reason::Expired));
    assert_eq!((trip.last_beat, trip.deadline), (last_beat, last_beat.after(WINDOW.0)));
    assert_eq!(trip.at, trip.deadline, "at the deadline, not at a tick");
    assert!(trip.motors.contains(A) && !trip.motors.contains(C));
}

#[test]
fn a_beat_just_before_the_deadline_keeps_the_session() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    bench.beat(&mut writer);
    for _ in 0..10 {
        bench.run(WINDOW.0 - 2);
        bench.odrive_says(A, 8, 1.0);
        bench.beat(&mut writer);
        bench.run(1);
    }
    assert_eq!(bench.sent_to(A), Vec::<String>::new());
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Live);
}

#[test]
fn an_older_beat_takes_nothing_back() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    bench.run(TICK);
    bench.beat(&mut writer);
    let newest = bench.now;
    writer.beat_at(Nanos(newest.0 - 3 * TICK));
    bench.run(WINDOW.0 - 1);
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Live);
    bench.run(TICK);
    let trip = bench.events(EventKind::Trip)[0];
    assert_eq!((trip.last_beat, trip.deadline), (newest, newest.after(WINDOW.0)));
}

#[test]
fn a_tripped_session_never_moves_anything_again() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    bench.run(2 * WINDOW.0);
    bench.rest(A);
    assert_eq!(state(&bench, A), MotorState::Stopped);
    for _ in 0..5 {
        bench.beat(&mut writer);
        bench.take(&writer, A);
        bench.run(2 * TICK);
    }
    assert_eq!(bench.view.granted(A), None, "late beats of the dead session change nothing");
    let next = bench.drive(1, &[A]);
    assert_eq!(bench.view.granted(A), Some(next.owner()), "a new session may take the motor");
}

#[test]
fn the_session_that_used_a_motor_last_has_it() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _first = bench.drive(0, &[A]);
    let mut second = bench.drive(1, &[A]);
    bench.run(WINDOW.0 / 2);
    bench.beat(&mut second);
    bench.run(WINDOW.0 * 3 / 4);
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Tripped);
    assert_eq!(bench.sent_to(A), Vec::<String>::new(), "the first one's end is not the motor's");
    bench.run(WINDOW.0);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE, "the last user's end is");
}

#[test]
fn a_motor_taken_over_in_the_last_moment_goes_to_the_taker() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let first = bench.drive(0, &[A]);
    let deadline = bench.view.session(SlotIndex(0)).expect("slot 0").deadline;
    let mut second = bench.drive(1, &[B]);
    bench.run(deadline.since(bench.now) - 1);
    bench.beat(&mut second);
    // The word changes after the last tick and before the deadline.
    bench.take(&second, A);
    bench.run(1);
    assert_eq!(bench.view.granted(A), Some(second.owner()), "{:?} expired", first.owner());
    assert_eq!(bench.sent_to(A), Vec::<String>::new());
}

#[test]
fn a_closed_session_stops_its_motors_and_a_successor_may_use_the_slot() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    let old = writer.owner();
    let new = writer.open_at(shm_proto::SessionId(99), WINDOW, bench.now);
    bench.run(2 * TICK);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::ClosedByClient));
    assert_ne!(old, new);
    let (incarnation, state) = bench.view.session_state(SlotIndex(0));
    assert_eq!((incarnation, state), (new.incarnation, SessionState::Live));
}

/// Fails if the end of a session is told with another cause than the front gave, or with a deadline that had not come.
#[test]
fn a_session_is_ended_for_the_reason_that_its_front_gives() {
    for ending in Ending::ALL {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let mut writer = bench.drive(0, &[A]);
        writer.close_at(ending, bench.now);
        bench.run(2 * TICK);
        assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE, "{ending:?}");
        let [trip] = bench.events(EventKind::Trip)[..] else { panic!("{ending:?}: one trip is kept") };
        assert_eq!(trip.reason, Some(ending.reason()));
        assert_eq!(trip.deadline, trip.at, "{ending:?}: the session had time left");
        assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Closed, "{ending:?}");
    }
}

/// Fails if a session that is replaced without a goodbye is only forgotten: its motors would run on, granted to
/// nobody who could fall silent.
#[test]
fn a_session_that_is_replaced_without_goodbye_is_ended_first() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    let new = writer.open_at(shm_proto::SessionId(99), WINDOW, bench.now);
    bench.run(2 * TICK);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE);
    assert_eq!(bench.view.granted(A), None);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::Closed));
    let (incarnation, state) = bench.view.session_state(SlotIndex(0));
    assert_eq!((incarnation, state), (new.incarnation, SessionState::Live));
}

#[test]
fn the_last_beat_of_a_tripped_session_does_not_hide_its_successor() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    let in_time = bench.now;
    bench.run(2 * WINDOW.0);
    bench.rest(A);
    // Written before the deadline, visible after the trip.
    writer.beat_at(in_time);
    writer.open_at(shm_proto::SessionId(99), WINDOW, bench.now);
    bench.take(&writer, A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), Some(writer.owner()));
}

#[test]
fn sessions_that_come_and_go_between_two_ticks_are_all_seen_off() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    writer.open_at(shm_proto::SessionId(99), WINDOW, bench.now);
    let last = writer.owner();
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    let (incarnation, state) = bench.view.session_state(SlotIndex(0));
    assert_eq!((incarnation, state), (last.incarnation, SessionState::Closed));
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE);
}

#[test]
fn a_silent_front_stops_everything_granted_and_may_come_back() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut first = bench.drive(0, &[A]);
    bench.drive(1, &[C]);
    bench.front_beats(false);
    bench.beat(&mut first);
    bench.run(101 * MS);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE);
    assert_eq!(bench.sent_to(C)[0], SET_VELOCITY_MODE);
    assert_eq!(bench.sent_to(B), Vec::<String>::new(), "nobody drove it");
    let [trip] = bench.events(EventKind::Trip)[..] else { panic!("one trip for all of it") };
    assert_eq!(trip.reason, Some(Reason::FrontSilent));
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Tripped, "despite its own beat");

    bench.rest_all();
    bench.front_beats(true);
    let writer = bench.open(2);
    bench.take(&writer, A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), Some(writer.owner()), "a front that beats again may go on");
}

#[test]
fn while_a_front_stays_silent_its_sessions_get_no_motor() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.drive(0, &[A]);
    bench.front_beats(false);
    bench.run(101 * MS);
    bench.rest_all();
    bench.run(4 * TICK);
    // Half of it lives on: sessions are opened and beat.
    let mut writer = bench.open(1);
    bench.take(&writer, A);
    for _ in 0..50 {
        bench.run(TICK);
        bench.beat(&mut writer);
        assert_eq!(bench.view.granted(A), None);
    }
    assert_eq!(bench.view.session_state(SlotIndex(1)).1, SessionState::Live);
    bench.front_beats(true);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), Some(writer.owner()), "it is heard again");
}

#[test]
fn a_front_that_falls_silent_with_sessions_is_on_record_even_if_nothing_moved() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _writer = bench.open(0);
    bench.run(2 * TICK);
    bench.front_beats(false);
    bench.run(101 * MS);
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Tripped);
    let [trip] = bench.events(EventKind::Trip)[..] else { panic!("it is kept") };
    assert_eq!((trip.reason, trip.motors.is_empty()), (Some(Reason::FrontSilent), true));
    bench.run(10 * TICK);
    assert_eq!(bench.events(EventKind::Trip).len(), 1, "once");
}

#[test]
fn a_dead_front_stops_everything_granted_at_once() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.drive(0, &[A]);
    let view = bench.core.detach(Reason::FrontDead, bench.now, &mut bench.wire);
    assert!(view.is_some(), "the segment comes back for unmapping elsewhere");
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE);
    assert_eq!(bench.view.front().1, 0);
    bench.run(100 * TICK);
    assert_eq!(bench.view.granted(A), None);
}

#[test]
fn an_owner_word_that_names_nobody_alive_stops_the_motor() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A, B]);
    let ghost = Owner { slot: SlotIndex(5), incarnation: Incarnation::new(77) };
    bench.beats.take_motor(A, ghost);
    bench.run(2 * TICK);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::Corrupt));
    assert_eq!(bench.view.granted(B), Some(writer.owner()), "the session itself is not to blame");
    bench.beat(&mut writer);
    bench.run(TICK);
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Live);
}

#[test]
fn beats_that_lie_are_counted_and_extend_nothing() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    let deadline = bench.view.session(SlotIndex(0)).expect("slot 0").deadline;
    // From the future, properly signed.
    writer.beat_at(bench.now.after(3_600_000 * MS));
    // Nonsense.
    writer.write_raw(&RawBeat { counter: 3, crc: 1, ..RawBeat::default() });
    bench.run(deadline.since(bench.now) + 1);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::Corrupt));
    bench.run(2 * TICK);
    assert!(bench.view.rejects(Reject::Future) >= 1);
    assert!(bench.view.rejects(Reject::Corrupt) >= 1);
}

#[test]
fn one_spoilt_beat_does_not_hide_the_good_ones_behind_it() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    writer.beat_at(bench.now.after(3_600_000 * MS));
    bench.run(WINDOW.0 / 2);
    bench.beat(&mut writer);
    bench.run(WINDOW.0 * 3 / 4);
    assert_eq!(bench.sent_to(A), Vec::<String>::new());
}

#[test]
fn a_new_front_begins_with_nothing() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let writer = bench.drive(0, &[A]);
    let capacity = shm_proto::Capacity::new(8, 8).expect("in range");
    let (_beats, view) = crate::support::segment(capacity, shm_proto::Generation(2));
    let before = bench.core.attach(view, 43, bench.now, &mut bench.wire);
    assert!(before.is_some());
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE, "the old front's sessions are tripped");
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Vacant, "{:?}", writer.owner());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
    /// Whatever the front writes into a ring or an owner word: no panic, no deadline beyond now plus
    /// the longest window, and time goes on.
    #[test]
    fn no_content_breaks_the_core(words in proptest::collection::vec(
        (0_u16..8, 1_u64..200, proptest::num::u64::ANY, proptest::num::u64::ANY, proptest::num::u64::ANY), 1..60)) {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let mut writers: Vec<_> = (0..8).map(|slot| bench.open(slot)).collect();
        for (slot, counter, window, timestamp, tag) in words {
            let raw = RawBeat { counter, session: u128::from(tag), window, timestamp, tag, crc: 0 };
            let mut signed = raw;
            signed.crc = shm_proto::beat::checksum(&raw, SlotIndex(slot), shm_proto::Generation(1)).into();
            writers[usize::from(slot)].write_raw(&signed);
            if let Some(owner) = Owner::from_word(tag) {
                bench.beats.take_motor(A, owner);
            }
            bench.run(TICK);
            for slot in (0..8).map(SlotIndex) {
                let verdict = bench.view.session(slot).expect("the slot exists");
                let longest = bench.now.after(60_000 * MS);
                proptest::prop_assert!(verdict.deadline == Nanos::NEVER || verdict.deadline <= longest);
            }
        }
    }
}

/// A suspended machine wakes, and the front's beat is there before the supervisor has looked.
#[test]
fn a_beat_after_the_deadline_does_not_save_the_session() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    bench.beat(&mut writer);
    let deadline = bench.now.after(WINDOW.0);
    // Nobody runs for a while; the front's own window is not the point here.
    bench.now = deadline.after(1);
    bench.beat(&mut writer);
    bench.front.beat_at(bench.now);
    bench.core.step(bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY]);
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Tripped);
}
