//! A motor that no session has is watched all the same: a drive that was switched off and on, another master, or an input
//! of the drive's own may turn it.

use drivers::{ArbitrationId, Frame};
use shm_proto::verdicts::{Event, EventKind, MotorState, Reason, ResetPolicy};
use shm_proto::{MotorIndex, Nanos, TripId};
use supervisor::core::{Origin, ResetRefused};

use crate::state;
use crate::support::{A, Bench, C, MS, TICK};

/// An ODrive's closed loop: torque is on.
const CLOSED_LOOP: u8 = 8;
/// An ODrive without torque.
const WITHOUT_TORQUE: u8 = 1;

#[test]
fn an_idle_motor_that_turns_is_stopped_and_told_of() {
    for motor in [A, C] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        assert_eq!(state(&bench, motor), MotorState::Idle);
        bench.odrive_says(motor, CLOSED_LOOP, 2.0);
        assert_eq!(state(&bench, motor), MotorState::Stopping, "{motor:?}");
        assert!(!bench.sent_to(motor).is_empty(), "{motor:?} got no stop frame");
        let told = bench.events(EventKind::Guarded);
        assert_eq!(told.len(), 1, "{motor:?}");
        assert_eq!(told[0].reason, Some(Reason::Violation));
    }
}

#[test]
fn an_idle_motor_has_torque_only_where_it_is_to_hold() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    for motor in [A, C] {
        bench.odrive_says(motor, CLOSED_LOOP, 0.0);
    }
    assert_eq!(state(&bench, A), MotorState::Stopping, "it is to be released at standstill");
    assert_eq!(state(&bench, C), MotorState::Idle, "it is to be held");
}

/// Since when a motor moves without power, as published.
fn moves(bench: &Bench, motor: MotorIndex) -> Nanos {
    bench.view.motor(motor).expect("the motor exists").moves
}

fn told(bench: &Bench) -> Vec<Event> {
    bench.events(EventKind::MovesWithoutPower)
}

/// Fails if a motor that is pushed by hand gets a frame that would hold it, if nobody is told, or if the log fills with it.
#[test]
fn an_idle_motor_that_is_pushed_by_hand_is_told_of_and_gets_no_frame() {
    for motor in [A, C] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let began = bench.now;
        bench.odrive_says(motor, WITHOUT_TORQUE, 2.0);
        assert_eq!(state(&bench, motor), MotorState::Idle);
        assert_eq!(moves(&bench, motor), began, "shown at once");
        for _ in 0..2_000 {
            bench.odrive_says(motor, WITHOUT_TORQUE, -2.0);
            bench.run(2 * TICK);
        }
        assert_eq!(moves(&bench, motor), began, "for as long as it lasts");
        let [event] = told(&bench)[..] else { panic!("{motor:?}: told once") };
        assert_eq!((event.at, event.trip, event.reason), (began, TripId::NONE, None));
        assert_eq!(event.motors.iter().collect::<Vec<_>>(), [motor]);
        assert_eq!(bench.sent_to(motor), [""; 0], "{motor:?}");
        assert_eq!(bench.events(EventKind::Guarded), [], "it is no violation");
        bench.odrive_says(motor, WITHOUT_TORQUE, 0.0);
        bench.run(2 * TICK);
        assert_eq!(moves(&bench, motor), Nanos::ZERO, "until it stands still");
    }
}

/// Fails if a motor that is pushed to and fro fills the log, or if a push that lasts is never told because another was.
#[test]
fn a_motor_that_is_pushed_again_and_again_is_told_of_now_and_then() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    for push in 0..100 {
        bench.odrive_says(A, WITHOUT_TORQUE, if push % 2 == 0 { 2.0 } else { 0.0 });
        bench.run(20 * MS);
    }
    assert_eq!(told(&bench).len(), 1);
    let began = bench.now;
    while bench.now.since(began) < 4_000 * MS {
        bench.odrive_says(A, WITHOUT_TORQUE, 2.0);
        bench.run(20 * MS);
    }
    assert_eq!(moves(&bench, A), began);
    assert_eq!(told(&bench).len(), 2, "it goes on");
}

/// Fails if a rotor that trembles begins it, or a slow one ends it.
#[test]
fn a_motor_moves_from_a_clear_speed_until_a_proof_of_standstill() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.odrive_says(A, WITHOUT_TORQUE, 0.1);
    assert_eq!(moves(&bench, A), Nanos::ZERO);
    bench.odrive_says(A, WITHOUT_TORQUE, 0.2);
    let began = moves(&bench, A);
    assert_ne!(began, Nanos::ZERO);
    bench.run(2 * TICK);
    bench.odrive_says(A, WITHOUT_TORQUE, 0.1);
    bench.run(2 * TICK);
    assert_eq!(moves(&bench, A), began);
    bench.odrive_says(A, WITHOUT_TORQUE, 0.04);
    bench.run(2 * TICK);
    assert_eq!(moves(&bench, A), Nanos::ZERO);
}

/// Fails if a motor that is held is not watched, or if what happens to it is told without the trip that holds it.
#[test]
fn a_held_motor_that_is_pushed_is_told_of_with_its_trip() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let trip = bench.core.estop(bench.now, &mut bench.wire);
    bench.rest_all();
    bench.run(4 * TICK);
    bench.wire.sent.clear();
    bench.odrive_says(A, WITHOUT_TORQUE, 2.0);
    assert_eq!(state(&bench, A), MotorState::Stopped);
    assert_eq!(moves(&bench, A), bench.now);
    let [event] = told(&bench)[..] else { panic!("told once") };
    assert_eq!(event.trip, trip);
    assert_eq!(bench.sent_to(A), [""; 0]);
}

/// Fails if a trip is reset while one of its motors is pushed: its proof of standstill is older than the push.
#[test]
fn a_trip_is_not_reset_while_its_motor_is_pushed() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let trip = bench.core.estop(bench.now, &mut bench.wire);
    bench.rest_all();
    bench.run(4 * TICK);
    bench.odrive_says(A, WITHOUT_TORQUE, 2.0);
    assert_eq!(bench.core.reset(trip.into(), bench.now), Err(ResetRefused::NotAtRest { motor: 0 }));
    bench.odrive_says(A, WITHOUT_TORQUE, 0.0);
    assert_eq!(bench.core.reset(trip.into(), bench.now), Ok(()));
}

/// Fails if it is still shown of a motor that is driven, or that has torque.
#[test]
fn it_ends_with_a_stop_and_with_a_grant() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.odrive_says(A, WITHOUT_TORQUE, 2.0);
    bench.odrive_says(A, CLOSED_LOOP, 2.0);
    assert_eq!((state(&bench, A), moves(&bench, A)), (MotorState::Stopping, Nanos::ZERO));
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.odrive_says(A, WITHOUT_TORQUE, 2.0);
    bench.drive(0, &[A]);
    assert_eq!((state(&bench, A), moves(&bench, A)), (MotorState::Granted, Nanos::ZERO));
    bench.odrive_says(A, WITHOUT_TORQUE, 2.0);
    bench.run(2 * TICK);
    assert_eq!(moves(&bench, A), Nanos::ZERO, "whoever has it answers for it");
}

/// A drive without a word on its power stage: what it tells is a current.
const WITHOUT_A_WORD: &str = r#"
[[bus]]
name = "can0"
[[motor]]
name = "a"
bus = "can0"
driver = "dji"
model = "c620"
id = 1
after_stop = "release"
max_rpm = 300
"#;

/// Fails if a drive that has no word on its power stage is stopped, and so energised, when it is pushed without a current;
/// or if it is not told of.
#[test]
fn without_a_word_on_its_power_stage_no_current_counts_as_off() {
    fn says(bench: &mut Bench, rpm: i16, current: i16) {
        let [[r0, r1], [c0, c1]] = [rpm.to_be_bytes(), current.to_be_bytes()];
        let frame = Frame::classic(ArbitrationId::standard(0x201), &[0, 0, r0, r1, c0, c1, 0, 0]);
        bench.core.received(0, Origin::Wire, &frame, bench.now, &mut bench.wire);
    }
    let mut bench = Bench::of(WITHOUT_A_WORD, 8, ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    for _ in 0..40 {
        says(&mut bench, 0, 0);
    }
    bench.run(4 * TICK);
    assert_eq!(state(&bench, A), MotorState::Idle);
    bench.wire.sent.clear();
    says(&mut bench, 120, 0);
    assert_eq!((state(&bench, A), moves(&bench, A)), (MotorState::Idle, bench.now));
    assert_eq!((told(&bench).len(), &bench.wire.sent[..]), (1, &[][..]));
    says(&mut bench, 120, 5_000);
    assert_eq!((state(&bench, A), moves(&bench, A)), (MotorState::Stopping, Nanos::ZERO));
    assert_eq!(bench.events(EventKind::Guarded).len(), 1);
}

#[test]
fn a_motor_that_turns_after_its_reset_is_held_by_a_new_trip() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let trip = bench.core.estop(bench.now, &mut bench.wire);
    bench.rest_all();
    bench.run(4 * TICK);
    bench.core.reset(trip.into(), bench.now).expect("everything stands still");
    assert_eq!(state(&bench, A), MotorState::Idle);
    bench.odrive_says(A, CLOSED_LOOP, 2.0);
    let verdict = bench.view.motor(A).expect("the motor exists");
    assert_eq!((verdict.state, verdict.latched), (MotorState::Stopping, 1));
    assert_ne!(verdict.trip, trip, "a late reset would clear what has happened since");
}
