//! For how long a drive must say that it stands still: as long as the supervisor itself asks, 10 ms.
//!
//! A shaft that reverses is slow for a moment, and frames that waited behind a busy bus arrive in one burst.

use shm_proto::Ending;
use shm_proto::verdicts::{EventKind, MotorState, ResetPolicy};

use crate::state;
use crate::support::{A, Bench, MS, TICK};

/// What every reading of a proof spans, as the documents say.
const SPAN: u64 = 10 * MS;

/// Axis states of an ODrive.
const IDLE: u8 = 1;
const CLOSED_LOOP: u8 = 8;

/// As many readings of one moment as any family asks for, and more.
fn burst(bench: &mut Bench, axis_state: u8) {
    for _ in 0..40 {
        bench.odrive_says(A, axis_state, 0.0);
    }
}

/// Fails if a burst of readings, however many they are, proves a stop.
#[test]
fn a_burst_of_readings_proves_no_stop() {
    let mut bench = Bench::with_the_supervisors_proof(ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    burst(&mut bench, IDLE);
    assert_eq!(state(&bench, A), MotorState::Stopping);
    bench.run(SPAN - 1);
    burst(&mut bench, IDLE);
    assert_eq!(state(&bench, A), MotorState::Stopping, "a nanosecond too early");
    bench.run(1);
    bench.odrive_says(A, IDLE, 0.0);
    // That was the first stage. The one that takes the torque away asks for a span of its own.
    burst(&mut bench, IDLE);
    bench.run(SPAN - 1);
    burst(&mut bench, IDLE);
    assert_eq!(state(&bench, A), MotorState::Stopping);
    bench.run(1);
    bench.odrive_says(A, IDLE, 0.0);
    assert_eq!(state(&bench, A), MotorState::Idle, "proven, and held by nothing");
}

/// Fails if a session whose motor was slow for a moment only ends without a trip.
#[test]
fn a_burst_of_readings_is_no_rest() {
    for (slow_for, trips) in [(0, 1), (SPAN - 1, 1), (SPAN, 0)] {
        let mut bench = Bench::with_the_supervisors_proof(ResetPolicy::Manual);
        bench.core.start(bench.now, &mut bench.wire);
        for _ in 0..10 {
            bench.rest_all();
            bench.run(SPAN);
        }
        let mut writer = bench.drive(0, &[A]);
        bench.front_commands(A);
        bench.odrive_says(A, CLOSED_LOOP, 1.0);
        burst(&mut bench, CLOSED_LOOP);
        bench.run(slow_for);
        burst(&mut bench, CLOSED_LOOP);
        writer.close_at(Ending::Client, bench.now);
        bench.run(2 * TICK);
        assert_eq!(bench.events(EventKind::Trip).len(), trips, "slow for {slow_for} ns");
        assert_eq!(bench.events(EventKind::EndedAtRest).len(), 1 - trips, "slow for {slow_for} ns");
    }
}

/// Fails if the time that readings have waited counts as time for which the motor stood still.
#[test]
fn readings_that_waited_prove_no_span() {
    for (waited, state_then) in [(SPAN, MotorState::Stopping), (0, MotorState::Stopped)] {
        let mut bench = Bench::with_the_supervisors_proof(ResetPolicy::Auto);
        bench.core.start(bench.now, &mut bench.wire);
        for _ in 0..10 {
            bench.rest_all();
            bench.run(SPAN);
        }
        let _session = bench.drive(0, &[A]);
        bench.core.estop(bench.now, &mut bench.wire);
        bench.run(5 * SPAN);
        burst(&mut bench, IDLE);
        bench.run(SPAN);
        for _ in 0..40 {
            bench.odrive_said(A, IDLE, 0.0, waited);
        }
        // The stage that takes the torque away asks for a span of its own.
        bench.run(SPAN);
        for _ in 0..40 {
            bench.odrive_said(A, IDLE, 0.0, waited);
        }
        assert_eq!(state(&bench, A), state_then, "they waited for {waited} ns");
    }
}
