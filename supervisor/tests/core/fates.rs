//! What one entry of a motor means to the next supervisor, over all that such an entry may say; and which of several supervisors
//! that died counts.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use config::Config;
use shm_proto::verdicts::{MotorState, MotorVerdict, Phase, Reason, Remains, ResetPolicy};
use shm_proto::{Nanos, TripId};
use supervisor::core::{Inherited, Latch};
use supervisor::inheritance::{Found, inherit, newest};

use crate::support::{A, Bench, ROBOT};

/// The trip that the entry names, if it names one, and the number that the supervisor's own end gets.
const NAMED: TripId = TripId(7);
const DIED: TripId = TripId(10);

/// What a supervisor leaves that has driven a motor.
fn remains() -> Remains {
    let mut dead = Bench::new(ResetPolicy::Auto);
    let _writer = dead.drive(0, &[A]);
    let remains = Remains::read(dead.left.as_fd(), dead.now).expect("it can be read");
    Remains { trips: TripId(DIED.0 - 1), ..remains }
}

/// What becomes of the first motor whose last entry was changed so.
fn inherited(phase: Phase, change: impl Fn(&mut MotorVerdict)) -> Option<Inherited> {
    let mut remains = remains();
    remains.phase = Some(phase);
    change(&mut remains.motors.as_mut().expect("motors")[0].verdict);
    let config = Config::parse(Path::new("test.toml"), &format!("[supervisor]\nreset = \"auto\"\n{ROBOT}"))
        .expect("the test robot is valid");
    inherit(Found::Left(Ok(remains)), &config, Nanos(1)).0.motors[0]
}

fn trip_and_latch(inherited: Option<Inherited>) -> Option<(TripId, Latch)> {
    inherited.map(|of| (of.trip, of.latch))
}

#[test]
fn what_was_held_stays_held_by_a_trip_that_can_be_reset() {
    for state in MotorState::ALL.iter().copied() {
        for phase in [Phase::Armed, Phase::Ended] {
            for granted in [true, false] {
                let held = |trip| {
                    let of = inherited(phase, |verdict| {
                        (verdict.state, verdict.latched, verdict.trip) = (state, 1, trip);
                        verdict.grant = verdict.grant.filter(|_| granted);
                    });
                    trip_and_latch(of)
                };
                let context = format!("{state:?} {phase:?} granted: {granted}");
                assert_eq!(held(NAMED), Some((NAMED, Latch::Held)), "{context}");
                // No reset could ever name it.
                assert_eq!(held(TripId::NONE), Some((DIED, Latch::Open)), "{context}");
            }
        }
    }
}

#[test]
fn each_sign_that_a_motor_was_driven_counts_by_itself() {
    for trip in [NAMED, TripId::NONE] {
        for state in MotorState::ALL.iter().copied() {
            let of = inherited(Phase::Armed, |verdict| {
                assert!(verdict.grant.is_some(), "the robot is driven");
                (verdict.state, verdict.latched, verdict.trip) = (state, 0, trip);
            });
            assert_eq!(trip_and_latch(of), Some((DIED, Latch::Open)), "granted, and {state:?}");
        }
        let of = inherited(Phase::Armed, |verdict| {
            (verdict.state, verdict.latched, verdict.trip) = (MotorState::Granted, 0, trip);
            verdict.grant = None;
        });
        assert_eq!(trip_and_latch(of), Some((DIED, Latch::Open)), "called granted, by no grant");
    }
}

#[test]
fn a_stop_that_nothing_has_ended_is_taken_over_and_every_other_is_not() {
    for state in [MotorState::Idle, MotorState::Stopping, MotorState::Stopped, MotorState::Unverified] {
        for phase in [Phase::Armed, Phase::Ended] {
            for reason in [Reason::Expired, Reason::Shutdown] {
                let free = |trip| {
                    let of = inherited(phase, |verdict| {
                        (verdict.state, verdict.latched, verdict.trip) = (state, 0, trip);
                        (verdict.grant, verdict.reason) = (None, Some(reason));
                    });
                    trip_and_latch(of)
                };
                let context = format!("{state:?} {phase:?} {reason:?}");
                assert_eq!(free(TripId::NONE), None, "{context}: no trip");
                let ended_in_order =
                    state == MotorState::Stopped && phase == Phase::Ended && reason == Reason::Shutdown;
                let expected = (state != MotorState::Idle && !ended_in_order).then_some((NAMED, Latch::Open));
                assert_eq!(free(NAMED), expected, "{context}");
            }
        }
    }
}

#[test]
fn of_several_that_died_the_last_that_had_begun_counts() {
    let died = |started, phase| Remains { started: Nanos(started), phase, ..remains() };
    let counts = |found: Vec<Remains>| {
        newest(found.into_iter().map(Ok).collect()).map(|of| of.expect("it can be read").started.0)
    };
    for phase in [Some(Phase::Armed), Some(Phase::Ended), None] {
        assert_eq!(counts(vec![died(1, phase), died(2, phase)]), Some(2), "{phase:?}");
        assert_eq!(counts(vec![died(2, phase), died(1, phase)]), Some(2), "{phase:?}");
        let starting = Some(Phase::Starting);
        assert_eq!(counts(vec![died(1, phase), died(2, starting)]), Some(1), "{phase:?}");
        assert_eq!(counts(vec![died(2, starting), died(1, phase)]), Some(1), "{phase:?}");
        assert_eq!(counts(vec![died(2, starting)]), None, "{phase:?}");
    }
    // Started in the same nanosecond: what is kept longer comes first.
    let mut same = [died(5, Some(Phase::Armed)), died(5, Some(Phase::Armed))];
    same[1].trips = TripId(99);
    let counted = newest(same.into_iter().map(Ok).collect()).expect("one").expect("it can be read");
    assert_eq!(counted.trips, TripId(99));
    assert!(newest(Vec::new()).is_none());
    let unreadable = || Err(io::Error::other("torn"));
    for found in [vec![unreadable(), Ok(remains())], vec![Ok(remains()), unreadable()]] {
        assert!(newest(found).expect("one").is_err(), "it may be that one");
    }
}
