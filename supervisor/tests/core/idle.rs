//! A motor that no session has is watched all the same: a drive that was switched off and on, another master, or an input
//! of the drive's own may turn it.

use shm_proto::verdicts::{EventKind, MotorState, Reason, ResetPolicy};

use crate::state;
use crate::support::{A, Bench, C, TICK};

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

#[test]
fn an_idle_motor_that_is_pushed_by_hand_gets_no_frame_that_would_hold_it() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.odrive_says(A, WITHOUT_TORQUE, 2.0);
    assert_eq!(state(&bench, A), MotorState::Idle);
    assert!(bench.sent_to(A).is_empty());
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
