//! What a program of this computer says in the name of a drive, or of the interface, counts for nothing; what it commands is
//! answered like anybody's.

use shm_proto::verdicts::{EventKind, MotorState, Reason, ResetPolicy};
use supervisor::core::{Origin, Report};

use crate::state;
use crate::support::{A, B, Bench, MS, TICK, WINDOW};

/// An ODrive without torque, and in closed loop.
const IDLE: u8 = 1;
const CLOSED_LOOP: u8 = 8;
/// Longer than any word of a drive counts.
const TOO_LONG: u64 = 600 * MS;
/// Class and details of an error frame: the controller has left the bus.
const BUS_OFF: (u32, [u8; 8]) = (0x040, [0; 8]);

fn disbelieved(bench: &Bench) -> u64 {
    bench.view.bus(0).expect("bus 0").disbelieved
}

fn trips(bench: &Bench) -> Vec<Reason> {
    bench.events(EventKind::Trip).iter().filter_map(|trip| trip.reason).collect()
}

#[test]
fn local_feedback_proves_no_standstill() {
    for (origin, expected) in [(Origin::Local, MotorState::Unverified), (Origin::Wire, MotorState::Stopped)] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let _silent = bench.drive(0, &[A]);
        bench.odrive_says(A, CLOSED_LOOP, 2.0);
        bench.run(WINDOW.0 + TICK);
        let before = bench.events(EventKind::Standstill).len();
        // Long enough for every stage.
        for _ in 0..100 {
            bench.is_said_in_its_name(origin, A, IDLE, 0.0);
            bench.run(TICK);
        }
        assert_eq!(state(&bench, A), expected, "{origin:?}");
        let proven = bench.events(EventKind::Standstill).len() - before;
        assert_eq!(proven, usize::from(origin == Origin::Wire), "{origin:?}");
    }
}

#[test]
fn local_feedback_is_no_grant() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.run(TOO_LONG);
    let mut session = bench.open(0);
    bench.take(&session, A);
    for origin in [Origin::Local, Origin::Wire] {
        for _ in 0..40 {
            bench.beat(&mut session);
            bench.is_said_in_its_name(origin, A, IDLE, 0.0);
            bench.run(TICK);
        }
        let granted = bench.view.granted(A).is_some();
        assert_eq!(granted, origin == Origin::Wire, "{origin:?}");
    }
}

#[test]
fn local_feedback_keeps_no_mute_drive_going_and_stops_no_good_one() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut session = bench.drive(0, &[A, B]);
    for _ in 0..100 {
        bench.beat(&mut session);
        bench.odrive_says(A, CLOSED_LOOP, 2.0);
        bench.odrive_says(B, CLOSED_LOOP, 2.0);
        // Far too fast, and then a disarmed axis.
        bench.is_said_in_its_name(Origin::Local, A, CLOSED_LOOP, 50.0);
        bench.is_said_in_its_name(Origin::Local, A, IDLE, 0.0);
        bench.run(2 * TICK);
    }
    assert_eq!(trips(&bench), [], "a stranger's words stop nothing");
    for _ in 0..70 {
        bench.beat(&mut session);
        bench.odrive_says(B, CLOSED_LOOP, 2.0);
        bench.is_said_in_its_name(Origin::Local, A, CLOSED_LOOP, 2.0);
        bench.run(2 * TICK);
    }
    assert_eq!(trips(&bench), [Reason::FeedbackLost], "its drive is mute");
}

#[test]
fn a_local_command_for_a_motor_that_is_nobodys_is_answered() {
    for origin in [Origin::Local, Origin::Wire] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        bench.is_commanded(origin, A);
        assert_eq!(state(&bench, A), MotorState::Stopping, "{origin:?}");
        assert!(!bench.sent_to(A).is_empty(), "{origin:?}");
        assert_eq!(disbelieved(&bench), 0, "a command speaks for nobody");
    }
}

#[test]
fn a_local_error_frame_is_not_believed() {
    for (origin, expected) in [(Origin::Local, &[][..]), (Origin::Wire, &[Reason::BusFault])] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let mut session = bench.drive(0, &[A]);
        bench.core.reported(0, origin, Report::new(BUS_OFF.0, BUS_OFF.1), bench.now, &mut bench.wire);
        bench.beat(&mut session);
        bench.run(2 * TICK);
        assert_eq!(trips(&bench), expected, "{origin:?}");
        let bus = bench.view.bus(0).expect("bus 0");
        assert_eq!((bus.up, bus.error_frames), if expected.is_empty() { (1, 0) } else { (0, 1) });
        assert_eq!(bus.disbelieved, u64::from(expected.is_empty()));
    }
}

#[test]
fn what_is_not_believed_is_counted_and_told_once_for_each_bus() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    for _ in 0..10 {
        bench.is_said_in_its_name(Origin::Local, A, IDLE, 0.0);
        bench.run(2 * TICK);
    }
    let bus = bench.view.bus(0).expect("bus 0");
    assert_eq!(bus.disbelieved, 20, "two frames each");
    assert!(bench.now.since(bus.disbelieved_at) <= 4 * TICK, "{:?}", bus.disbelieved_at);
    let [told] = bench.events(EventKind::Disbelieved)[..] else { panic!("told once") };
    assert!(told.motors.iter().eq([A, B]), "{told:?}");
    assert_eq!(bench.view.bus(1).expect("bus 1").disbelieved, 0);
}

#[test]
fn where_the_drives_are_local_their_frames_count() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.core.drives_are_local(0);
    bench.run(TOO_LONG);
    let mut session = bench.open(0);
    bench.take(&session, A);
    for _ in 0..40 {
        bench.beat(&mut session);
        bench.is_said_in_its_name(Origin::Local, A, IDLE, 0.0);
        bench.run(TICK);
    }
    assert_eq!(state(&bench, A), MotorState::Granted);
    bench.core.reported(0, Origin::Local, Report::new(BUS_OFF.0, BUS_OFF.1), bench.now, &mut bench.wire);
    assert_eq!(trips(&bench), [Reason::BusFault]);
    assert_eq!((disbelieved(&bench), bench.events(EventKind::Disbelieved)), (0, Vec::new()));
}
