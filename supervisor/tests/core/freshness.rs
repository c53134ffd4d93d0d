//! What a drive has said counts for half a second: no grant, no reset and no motion on older words, and none on messages
//! that leave out what matters.

use drivers::{ArbitrationId, Frame};
use shm_proto::MotorIndex;
use shm_proto::verdicts::{EventKind, MotorState, Reason, ResetPolicy};
use supervisor::core::{Origin, ResetRefused};

use crate::state;
use crate::support::{A, Bench, MS};

/// Longer than any word of a drive counts.
const TOO_LONG: u64 = 600 * MS;
/// An ODrive's closed loop: torque is on.
const CLOSED_LOOP: u8 = 8;

/// Moves time on, with a session that beats.
fn pass(
    bench: &mut Bench,
    session: &mut shm_proto::BeatWriter,
    nanos: u64,
    mut each: impl FnMut(&mut Bench),
) {
    for _ in 0..nanos / (50 * MS) {
        bench.beat(session);
        bench.run(50 * MS);
        each(bench);
    }
}

/// An ODrive's heartbeat without its encoder frame.
fn heartbeat(bench: &mut Bench, axis_state: u8) {
    let frame = Frame::classic(ArbitrationId::standard(3 << 5 | 1), &[0, 0, 0, 0, axis_state, 0, 0, 0]);
    bench.core.received(0, Origin::Wire, &frame, bench.now, &mut bench.wire);
}

#[test]
fn a_motor_whose_drive_has_fallen_silent_is_given_to_nobody() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.run(TOO_LONG);
    let mut session = bench.open(0);
    bench.take(&session, A);
    pass(&mut bench, &mut session, 200 * MS, |_| {});
    assert_eq!(bench.view.granted(A), None, "its proof is {TOO_LONG} ns old");
    pass(&mut bench, &mut session, 200 * MS, |bench| heartbeat(bench, 1));
    assert_eq!(bench.view.granted(A), None, "no word on its speed");
    bench.odrive_says(A, 1, 0.0);
    pass(&mut bench, &mut session, 50 * MS, |_| {});
    assert_eq!(bench.view.granted(A), Some(session.owner()), "it is heard again");
}

/// Fails if words count as fresh that have waited in the socket while the loop hung: nobody knows how the motor turns by now.
#[test]
fn words_that_waited_are_as_old_as_they_may_be() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    bench.run(TOO_LONG);
    bench.odrive_said(A, 1, 0.0, TOO_LONG);
    let mut session = bench.open(0);
    bench.take(&session, A);
    pass(&mut bench, &mut session, 50 * MS, |_| {});
    assert_eq!(bench.view.granted(A), None, "what it said may be {TOO_LONG} ns old");
    bench.odrive_said(A, 1, 0.0, 5 * MS);
    pass(&mut bench, &mut session, 50 * MS, |_| {});
    assert_eq!(
        bench.view.granted(A),
        Some(session.owner()),
        "it was said in the pass before at the earliest"
    );

    let trip = bench.core.estop(bench.now, &mut bench.wire);
    bench.rest_all();
    bench.run(TOO_LONG);
    bench.odrive_said(A, 1, 0.0, TOO_LONG);
    let refused = bench.core.reset(trip.into(), bench.now);
    assert!(matches!(refused, Err(ResetRefused::NotHeard { .. })), "{refused:?}");
}

/// Fails if readings from before a stop prove it: the loop reads them after its first frame.
#[test]
fn words_from_before_a_stop_do_not_prove_it() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _session = bench.drive(0, &[A]);
    bench.odrive_says(A, CLOSED_LOOP, 2.0);
    bench.core.estop(bench.now, &mut bench.wire);
    for _ in 0..40 {
        bench.odrive_said(A, 1, 0.0, 1);
    }
    assert_eq!(state(&bench, A), MotorState::Stopping, "they may have been said before");
    bench.rest(A);
    assert_eq!(state(&bench, A), MotorState::Stopped);
}

#[test]
fn a_drive_that_is_commanded_and_says_nothing_is_stopped() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut session = bench.drive(0, &[A]);
    pass(&mut bench, &mut session, 3 * TOO_LONG, |_| {});
    assert_eq!(state(&bench, A), MotorState::Granted, "nothing moves that is not commanded");
    pass(&mut bench, &mut session, TOO_LONG, |bench| bench.front_commands(A));
    let trips = bench.events(EventKind::Trip);
    assert_eq!(trips.iter().map(|trip| trip.reason).collect::<Vec<_>>(), [Some(Reason::FeedbackLost)]);
    assert!(!bench.sent_to(A).is_empty());
}

#[test]
fn a_drive_that_no_longer_tells_its_speed_is_stopped_although_it_says_other_things() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut session = bench.drive(0, &[A]);
    bench.odrive_says(A, CLOSED_LOOP, 2.0);
    pass(&mut bench, &mut session, TOO_LONG, |bench| bench.odrive_says(A, CLOSED_LOOP, 2.0));
    assert_eq!(state(&bench, A), MotorState::Granted);
    pass(&mut bench, &mut session, TOO_LONG, |bench| heartbeat(bench, CLOSED_LOOP));
    let trip = bench.events(EventKind::Trip).pop().expect("a trip");
    assert_eq!(trip.reason, Some(Reason::FeedbackLost));
}

#[test]
fn an_old_proof_clears_no_trip() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let trip = bench.core.estop(bench.now, &mut bench.wire);
    bench.rest_all();
    bench.run(TOO_LONG);
    let refused = bench.core.reset(trip.into(), bench.now);
    assert_eq!(refused, Err(ResetRefused::NotHeard { motor: 0 }));
    bench.rest_all();
    assert_eq!(bench.core.reset(trip.into(), bench.now), Ok(()));
}

/// Fails if a drive that is off, and answers only the frame that takes its torque away, is not asked by that frame: it would
/// be given to nobody for ever. `FD` leaves the motor mode (T-Motor, CubeMars: MIT protocol).
#[test]
fn a_drive_that_is_off_is_asked_by_what_took_its_torque_away() {
    const ROBOT: &str = "[[bus]]\nname = \"can0\"\n[[bus]]\nname = \"can1\"\n[[motor]]\nname = \"ak\"\nbus = \"can0\"\n\
                         driver = \"cubemars-mit\"\nid = 7\nmodel = \"AK80-9\"\nafter_stop = \"release\"\nmax_rpm = 60\n";
    const EXIT: &str = "007#FFFFFFFFFFFFFFFD";
    let mut bench = Bench::of(ROBOT, 8, ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    // Position, speed, torque: the middle of their ranges is zero.
    let still = Frame::classic(ArbitrationId::standard(0), &[7, 0x80, 0, 0x80, 0x08, 0x00, 0, 0]);
    let mut answered = 0;
    for _ in 0..400 {
        bench.wire.sent.clear();
        bench.run(5 * MS);
        if bench.wire.sent.iter().any(|(_, frame)| frame.to_string() == EXIT) {
            bench.core.received(0, Origin::Wire, &still, bench.now, &mut bench.wire);
            answered += 1;
        }
    }
    assert_eq!(state(&bench, MotorIndex(0)), MotorState::Idle);
    let session = bench.open(0);
    bench.take(&session, MotorIndex(0));
    bench.run(10 * MS);
    assert_eq!(bench.view.granted(MotorIndex(0)), Some(session.owner()), "answered {answered} times");
}
