//! The core's decisions, one rule per test. Each test names in its message what would be wrong.
//!
//! What lives here: the rules of sessions, grants, stops and resets. [`asking`] has those of drives that must be
//! asked and of the signs of life they watch, [`bounds`] what holds at the very moment or speed that a rule names,
//! [`record`] what is published of it all. What must never: a test that sleeps or measures time.
#![allow(clippy::missing_docs_in_private_items, reason = "tests")]

mod asking;
mod bounds;
mod record;
mod support;

use drivers::{ArbitrationId, Frame};
use shm_proto::beat::{RawBeat, Reject};
use shm_proto::verdicts::{BusHealth, Counter, EventKind, MotorState, Reason, ResetPolicy, SessionState};
use shm_proto::{Incarnation, MotorIndex, Nanos, Owner, SlotIndex, TripId};
use supervisor::core::{Report, ResetRefused, SendError};
use support::{A, B, Bench, C, MS, TICK, WINDOW};

const SET_VELOCITY_MODE: &str = "06B#0200000001000000";
const ZERO_VELOCITY: &str = "06D#0000000000000000";
const TO_IDLE: &str = "067#0100000000000000";

fn state(bench: &Bench, motor: MotorIndex) -> MotorState {
    bench.view.motor(motor).expect("the motor exists").state
}

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
    writer.close();
    let old = writer.owner();
    let new = writer.open_at(shm_proto::SessionId(99), WINDOW, bench.now);
    bench.run(2 * TICK);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::Closed));
    assert_ne!(old, new);
    let (incarnation, state) = bench.view.session_state(SlotIndex(0));
    assert_eq!((incarnation, state), (new.incarnation, SessionState::Live));
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
    writer.close();
    writer.open_at(shm_proto::SessionId(99), WINDOW, bench.now);
    let last = writer.owner();
    writer.close();
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
fn a_stage_is_repeated_until_proof_then_torque_is_taken() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    writer.close();
    bench.run(50 * MS);
    assert!(bench.sent_to(A).len() >= 4, "repeated: {:?}", bench.sent_to(A));
    assert!(!bench.sent_to(A).iter().any(|frame| frame == TO_IDLE));
    for _ in 0..3 {
        bench.odrive_says(A, 8, 0.0);
    }
    assert_eq!(bench.sent_to(A).last().map(String::as_str), Some(TO_IDLE), "released at standstill");
    assert_eq!(state(&bench, A), MotorState::Stopping, "torque-off has its own proof");
    bench.odrive_says(A, 1, 0.0);
    assert_eq!(state(&bench, A), MotorState::Stopping, "what was seen before a stage proves nothing for it");
    for _ in 0..2 {
        bench.odrive_says(A, 1, 0.0);
    }
    assert_eq!(state(&bench, A), MotorState::Stopped);
    let verdict = bench.view.motor(A).expect("motor a");
    assert!(verdict.standstill >= verdict.first_stop && verdict.first_stop > Nanos::ZERO);
}

#[test]
fn a_held_motor_keeps_its_torque_and_is_watched() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[C]);
    writer.close();
    bench.run(2 * TICK);
    for _ in 0..3 {
        bench.odrive_says(C, 8, 0.0);
    }
    assert_eq!(state(&bench, C), MotorState::Stopped);
    bench.wire.sent.clear();
    bench.run(10 * TICK);
    assert_eq!(bench.sent_to(C), Vec::<String>::new(), "proven: no more frames");
    bench.odrive_says(C, 8, 2.0);
    assert_eq!(state(&bench, C), MotorState::Stopping, "it moves under torque: stop again");
    assert_eq!(bench.sent_to(C)[0], SET_VELOCITY_MODE);
}

#[test]
fn a_drive_that_ignores_a_stage_gets_the_next_and_silence_is_never_proof() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    writer.close();
    bench.run(2 * TICK);
    for _ in 0..25 {
        bench.odrive_says(A, 8, 3.0);
        bench.run(TICK);
    }
    assert!(bench.sent_to(A).iter().any(|frame| frame == TO_IDLE), "escalated: {:?}", bench.sent_to(A));
    assert_eq!(bench.events(EventKind::Escalated).len(), 1);
    bench.run(400 * MS);
    assert_eq!(state(&bench, A), MotorState::Unverified, "nothing was heard: nothing is proven");
    let so_far = bench.sent_to(A).len();
    bench.run(100 * MS);
    assert!(bench.sent_to(A).len() > so_far, "the last stage goes on");
    let writer = bench.open(1);
    bench.take(&writer, A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), None, "an unverified motor is nobody's");
    bench.rest(A);
    assert_eq!(state(&bench, A), MotorState::Stopped, "late proof is proof");
}

#[test]
fn a_full_queue_is_tried_again_on_the_next_tick() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    bench.wire.failures.push((0, [SendError::QueueFull, SendError::QueueFull].into()));
    writer.close();
    bench.run_until_trip();
    assert_eq!(bench.sent_to(A), Vec::<String>::new(), "both frames were refused");
    bench.run(TICK);
    assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY], "not only after the repeat time");
    assert_eq!(bench.view.counter(Counter::SendErrors), 2);
}

/// Fails if a motor that happens to stand still counts as stopped while its stop has not even been sent: frames that
/// were queued before may still set it in motion.
#[test]
fn standing_still_proves_nothing_before_a_stop_was_handed_over() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[C]);
    bench.wire.failures.push((1, vec![SendError::QueueFull; 2].into()));
    writer.close();
    while bench.events(EventKind::Trip).is_empty() {
        bench.run(MS / 10);
    }
    for _ in 0..5 {
        bench.odrive_says(C, 8, 0.0);
    }
    assert_eq!(state(&bench, C), MotorState::Stopping, "no stop frame was taken yet");
    bench.run(TICK);
    for _ in 0..3 {
        bench.odrive_says(C, 8, 0.0);
    }
    assert_eq!(state(&bench, C), MotorState::Stopped);
}

#[test]
fn a_dead_bus_trips_its_sessions_and_never_delays_the_other() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _writer = bench.drive(0, &[A, C]);
    bench.wire.failures.push((0, vec![SendError::Down; 1_000].into()));
    bench.core.bus_down(0, libc_enetdown(), bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(C)[0], SET_VELOCITY_MODE, "the session's motor on the good bus stops too");
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::BusFault));
    bench.run(600 * MS);
    assert_eq!(state(&bench, A), MotorState::Unverified);
    bench.wire.failures.clear();
    bench.core.bus_up(0, bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE, "from the gentlest stage on");
}

fn libc_enetdown() -> i32 {
    SendError::Down.errno()
}

#[test]
fn the_guard_answers_motion_for_a_motor_that_is_nobodys() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let motion =
        drivers::Frame::classic(drivers::ArbitrationId::standard(0x6D), &[0, 0, 128, 63, 0, 0, 0, 0]);
    bench.core.received(0, &motion, bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE, "at once, in the same pass");
    assert_eq!(bench.view.motor(A).expect("motor a").guarded, 1);
    bench.rest(A);
    bench.run(2 * TICK);
    let _writer = bench.drive(0, &[A]);
    bench.wire.sent.clear();
    bench.core.received(0, &motion, bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(A), Vec::<String>::new(), "under a grant motion is wanted");
}

#[test]
fn what_the_guard_holds_can_be_reset_by_a_number_of_its_own() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let motion =
        drivers::Frame::classic(drivers::ArbitrationId::standard(0x6D), &[0, 0, 128, 63, 0, 0, 0, 0]);
    let violate = |bench: &mut Bench| {
        bench.core.received(0, &motion, bench.now, &mut bench.wire);
        bench.rest(A);
        bench.view.motor(A).expect("motor a").trip
    };
    // Nothing has tripped since the start.
    let first = violate(&mut bench);
    assert_ne!(first, TripId::NONE, "a motor that is held by no trip could never be reset");
    assert_eq!(violate(&mut bench), first, "while it is held, it is the same trip");
    assert_eq!(bench.core.reset(first, bench.now), Ok(()));
    let second = violate(&mut bench);
    assert_ne!(second, first);
    assert_eq!(
        bench.core.reset(first, bench.now),
        Err(ResetRefused::NotHeld),
        "a late reset of the old trip"
    );
    assert_eq!(bench.core.reset(second, bench.now), Ok(()));
}

#[test]
fn a_running_drive_that_faults_or_falls_silent_trips_its_session() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A, B]);
    bench.odrive_says(A, 8, 1.0);
    let fault = drivers::Frame::classic(drivers::ArbitrationId::standard(0x61), &[1, 0, 0, 0, 1, 0, 0, 0]);
    bench.core.received(0, &fault, bench.now, &mut bench.wire);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::DriveFault));
    assert!(bench.events(EventKind::Trip)[0].motors.contains(B), "one wheel gone, both stop");
    bench.rest_all();

    writer = {
        let mut next = bench.drive(1, &[B]);
        next.beat_at(bench.now);
        drop(writer);
        next
    };
    bench.odrive_says(B, 8, 1.0);
    for _ in 0..12 {
        bench.beat(&mut writer);
        bench.run(50 * MS);
    }
    assert_eq!(bench.events(EventKind::Trip)[1].reason, Some(Reason::FeedbackLost));
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
fn manual_policy_holds_motors_until_the_right_trip_is_reset() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let mut writer = bench.drive(0, &[A]);
    writer.close();
    bench.run(2 * TICK);
    let trip = bench.events(EventKind::Trip)[0].trip;
    assert_eq!(bench.core.reset(trip, bench.now), Err(ResetRefused::NotAtRest { motor: 0 }));
    bench.rest(A);
    let writer = bench.open(1);
    bench.take(&writer, A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), None, "not before the reset");
    assert_eq!(bench.core.reset(TripId(trip.0 + 1), bench.now), Err(ResetRefused::NotHeld));
    assert_eq!(bench.core.reset(TripId::NONE, bench.now), Err(ResetRefused::NotHeld));
    bench.wire.sent.clear();
    assert_eq!(bench.core.reset(trip, bench.now), Ok(()));
    assert_eq!(bench.wire.sent.len(), 0, "a reset moves nothing");
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), Some(writer.owner()));
    assert_eq!(bench.core.reset(trip, bench.now), Err(ResetRefused::NotHeld), "only once");
}

#[test]
fn an_operator_stop_holds_everything_under_either_policy() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _writer = bench.drive(0, &[A]);
    let trip = bench.core.estop(bench.now, &mut bench.wire);
    for motor in [A, B, C] {
        assert_eq!(
            bench.sent_to(motor)[0],
            SET_VELOCITY_MODE.replace("06B", ["06B", "08B", "06B"][usize::from(motor.0)])
        );
    }
    bench.rest_all();
    let writer = bench.open(1);
    bench.take(&writer, A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), None);
    assert_eq!(bench.view.latch(), trip);
    assert_eq!(bench.core.reset(trip, bench.now), Ok(()));
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), Some(writer.owner()));
    assert_eq!(bench.view.latch(), TripId::NONE);
}

#[test]
fn shutdown_stops_everything_and_grants_nothing_more() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let writer = bench.drive(0, &[A]);
    bench.core.shut_down(bench.now, &mut bench.wire);
    assert!(!bench.core.is_at_rest());
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE);
    bench.rest_all();
    assert!(bench.core.is_at_rest());
    let next = bench.open(1);
    bench.take(&next, A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), None, "{:?} is over", writer.owner());
}

#[test]
fn a_new_front_begins_with_nothing() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let writer = bench.drive(0, &[A]);
    let capacity = shm_proto::Capacity::new(8, 8).expect("in range");
    let (_beats, view) = support::segment(capacity, shm_proto::Generation(2));
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

#[test]
fn a_late_loop_stops_whatever_moves() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut driving = bench.drive(0, &[A]);
    let mut watching = bench.open(1);
    bench.run(2 * TICK);
    let due = bench.core.next_wakeup();
    let mut wake_at = |bench: &mut Bench, at: Nanos| {
        bench.now = at;
        bench.beat(&mut driving);
        bench.beat(&mut watching);
        bench.front.beat_at(at);
        bench.core.step(at, &mut bench.wire);
    };
    // As late as allowed, and later.
    wake_at(&mut bench, due.after(4 * TICK));
    assert_eq!(bench.sent_to(A), Vec::<String>::new());
    assert_eq!(bench.view.counter(Counter::SelfOverruns), 0);
    let due = bench.core.next_wakeup();
    wake_at(&mut bench, due.after(4 * TICK + 1));
    assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY]);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::SelfOverrun));
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Tripped);
    assert_eq!(bench.view.session_state(SlotIndex(1)).1, SessionState::Live, "it drives nothing");
    bench.run(TICK);
    assert_eq!(bench.view.counter(Counter::SelfOverruns), 1);
}

#[test]
fn a_bus_that_cannot_be_heard_stops_who_drives_on_it() {
    for (classes, details, health) in
        [(0x004, [0, 0x20, 0, 0, 0, 0, 0, 0], BusHealth::Passive), (0x040, [0; 8], BusHealth::BusOff)]
    {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let _left = bench.drive(0, &[A]);
        let mut right = bench.drive(1, &[C]);
        let warning = Report::new(0x004 | 0x200, [0, 0x08, 0, 0, 0, 0, 96, 3]);
        bench.core.reported(0, warning, bench.now, &mut bench.wire);
        assert_eq!(bench.sent_to(A), Vec::<String>::new(), "a disturbed bus still carries stops");
        bench.core.reported(0, Report::new(classes, details), bench.now, &mut bench.wire);
        assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY], "at once, not with the next tick");
        assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::BusFault));
        bench.beat(&mut right);
        bench.run(2 * TICK);
        let bus = bench.view.bus(0).expect("bus 0");
        assert_eq!((bus.health, bus.up, bus.error_frames), (health, 0, 2));
        assert_eq!((bus.tx_errors, bus.rx_errors), (96, 3));
        assert_eq!(bench.sent_to(C), Vec::<String>::new(), "the other bus is well");
        assert_eq!(bench.events(EventKind::BusDown).len(), 1);
        // Restarted: whatever is not proven is stopped again from the first stage on.
        bench.wire.sent.clear();
        bench.core.reported(0, Report::new(0x100, [0; 8]), bench.now, &mut bench.wire);
        assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY]);
        assert_eq!(bench.events(EventKind::BusUp).len(), 1);
    }
}

#[test]
fn an_echo_confirms_the_stop_it_belongs_to() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _writer = bench.drive(0, &[A, B]);
    let velocity = |bench: &Bench, motor| {
        let sent = bench.wire.sent.iter().rev().find(|(_, frame)| frame.to_string().starts_with(motor));
        sent.expect("it was sent").1
    };
    bench.run(WINDOW.0 + 2 * TICK);
    let stop_of_a = velocity(&bench, "06D");
    let before = bench.view.motor(A).expect("motor a");
    assert_eq!(before.confirmed, Nanos::ZERO, "handed over is not confirmed");
    bench.core.confirmed(0, &stop_of_a, bench.now);
    bench.run(TICK);
    let (a, b) = (bench.view.motor(A).expect("motor a"), bench.view.motor(B).expect("motor b"));
    assert!(a.confirmed >= a.first_stop && a.confirmed != Nanos::ZERO);
    assert_eq!(b.confirmed, Nanos::ZERO, "another motor's stop says nothing of this one");
    assert_eq!(bench.view.bus(0).expect("bus 0").confirmed, 1);
}

#[test]
fn who_fights_the_stop_does_not_fill_the_log() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let before = bench.view.event_count();
    let motion = Frame::classic(ArbitrationId::standard(0x06D), &[0, 0, 128, 63, 0, 0, 0, 0]);
    for _ in 0..100 {
        bench.wire.sent.clear();
        bench.core.received(0, &motion, bench.now, &mut bench.wire);
        assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY], "every time, at once");
        bench.rest(A);
        bench.run(10 * MS);
    }
    assert_eq!(bench.view.motor(A).expect("motor a").guarded, 100, "all are counted");
    assert!(bench.view.event_count() - before <= 4, "told: {}", bench.view.event_count() - before);
    bench.run(5_000 * MS);
    bench.core.received(0, &motion, bench.now, &mut bench.wire);
    assert_eq!(bench.events(EventKind::Guarded).len(), 2, "told again after a while");
}

#[test]
fn the_ring_of_a_dead_session_is_left_alone_although_its_motors_still_name_it() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A, B]);
    bench.run(WINDOW.0 + 2 * TICK);
    assert_eq!(state(&bench, A), MotorState::Stopping);
    // Each look into the ring would count this record once more.
    writer.write_raw(&RawBeat { counter: 3, crc: 1, ..RawBeat::default() });
    let rejects = |bench: &Bench| Reject::ALL.map(|reject| bench.view.rejects(reject)).iter().sum::<u64>();
    let before = rejects(&bench);
    bench.run(20 * TICK);
    assert_eq!(rejects(&bench), before, "every tick looks into a ring that can bring nothing new");
}

#[test]
fn owner_words_that_name_nobody_cost_a_bounded_number_of_looks() {
    const MOTORS: u16 = 100;
    let mut robot =
        "[supervisor]\nmax_motors = 100\n[[bus]]\nname = \"can0\"\n[[bus]]\nname = \"can1\"\n".to_owned();
    for motor in 0..MOTORS {
        let (bus, node) = (motor / 50, motor % 50);
        robot += &format!(
            "[[motor]]\nname = \"m{motor}\"\nbus = \"can{bus}\"\ndriver = \"odrive\"\nnode = {node}\n\
             firmware = \"0.6\"\nafter_stop = \"hold\"\nmax_rpm = 300\n"
        );
    }
    let mut bench = Bench::of(&robot, MOTORS, ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    let mut writer = bench.open(0);
    bench.run(4 * TICK);
    // Each look into the ring counts this record once.
    writer.write_raw(&RawBeat { counter: 3, crc: 1, ..RawBeat::default() });
    let rejects = |bench: &Bench| Reject::ALL.map(|reject| bench.view.rejects(reject)).iter().sum::<u64>();
    let nobody = Owner { slot: SlotIndex(0), incarnation: Incarnation::new(1_000) };
    for motor in (0..MOTORS).map(MotorIndex) {
        bench.beats.take_motor(motor, nobody);
    }
    bench.run(TICK);
    let before = rejects(&bench);
    bench.run(TICK);
    let looks = rejects(&bench) - before;
    // The one more is the look that every ring gets in turn.
    assert!((64..=65).contains(&looks), "{looks} looks in a tick");
}
