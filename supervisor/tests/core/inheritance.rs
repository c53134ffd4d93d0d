//! What is left of a supervisor that is gone, and what the next one makes of it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use config::Config;
use shm_proto::verdicts::{EventKind, MotorState, MotorVerdict, Phase, Predecessor, Reason, ResetPolicy};
use shm_proto::{Ending, MotorIndex, Nanos, TripId, TripSeen};
use supervisor::core::ResetRefused;
use supervisor::inheritance::{Found, inherit};

use crate::state;
use crate::support::{A, B, Bench, C, ROBOT, TICK};

const POLICIES: &[ResetPolicy] = ResetPolicy::ALL;

/// The next supervisor, started; its drives have said nothing yet.
fn next(dead: &Bench, policy: ResetPolicy) -> Bench {
    started(Bench::heir(&[&dead.left], ROBOT, policy).0)
}

fn started(mut bench: Bench) -> Bench {
    bench.core.start(bench.now, &mut bench.wire);
    bench.wire.sent.clear();
    bench
}

/// Which trip stopped a motor, why, and whether it must be reset.
fn held(bench: &Bench, motor: MotorIndex) -> (u64, Option<Reason>, bool) {
    let verdict = bench.view.motor(motor).expect("the motor exists");
    (verdict.trip.0, verdict.reason, verdict.latched != 0)
}

/// Whether a new session gets the motor.
fn can_be_driven(bench: &mut Bench, motor: MotorIndex) -> bool {
    let mut writer = bench.open(motor.0);
    bench.take(&writer, motor);
    bench.run(2 * TICK);
    bench.beat(&mut writer);
    bench.view.granted(motor) == Some(writer.owner())
}

#[test]
fn what_was_driven_when_it_died_is_tripped_and_nothing_else() {
    for &policy in POLICIES {
        let mut dead = Bench::new(policy);
        let _writer = dead.drive(0, &[A]);
        let mut bench = next(&dead, policy);
        let manual = policy == ResetPolicy::Manual;
        assert_eq!(held(&bench, A), (1, Some(Reason::SupervisorDied), manual), "{policy:?}");
        for motor in [B, C] {
            assert_eq!(held(&bench, motor), (0, Some(Reason::Startup), false), "{motor:?}");
        }
        let trips = bench.events(EventKind::Trip);
        assert_eq!(trips.len(), 1);
        assert_eq!((trips[0].trip, trips[0].reason), (TripId(1), Some(Reason::SupervisorDied)));
        assert_eq!(trips[0].motors.iter().collect::<Vec<_>>(), [A]);
        assert_eq!(trips[0].deadline, dead.view.beat().1, "since it was last seen alive");
        assert_ne!(trips[0].first_stop, shm_proto::Nanos::ZERO);
        assert_eq!(bench.view.predecessor(), (Predecessor::Died, dead.view.beat().1));
        bench.rest_all();
        assert_eq!(state(&bench, A), MotorState::Stopped);
        assert_eq!(state(&bench, B), MotorState::Idle);
        assert!(can_be_driven(&mut bench, B), "it was nobody's");
        assert_eq!(can_be_driven(&mut bench, A), !manual, "{policy:?}");
        if manual {
            assert_eq!(bench.core.reset(TripId(1).into(), bench.now), Ok(()));
            assert!(can_be_driven(&mut bench, A), "after its reset");
        }
    }
}

#[test]
fn open_trips_keep_number_reason_and_moment_and_numbers_go_on() {
    let mut dead = Bench::new(ResetPolicy::Manual);
    let mut writer = dead.drive(0, &[A, B]);
    writer.close_at(Ending::Client, dead.now);
    dead.run(2 * TICK);
    dead.rest_all();
    let begun = dead.events(EventKind::Trip)[0];
    let mut bench = next(&dead, ResetPolicy::Manual);
    for motor in [A, B] {
        assert_eq!(held(&bench, motor), (1, Some(Reason::ClosedByClient), true));
    }
    assert_eq!(bench.events(EventKind::Trip), [begun], "as it was, and not again");
    assert_eq!(bench.core.reset(TripId(1).into(), bench.now), Err(ResetRefused::NotAtRest { motor: 0 }));
    bench.rest_all();
    assert!(!can_be_driven(&mut bench, A));
    assert_eq!(bench.core.reset(TripId(2).into(), bench.now), Err(ResetRefused::NotHeld));
    assert_eq!(bench.core.reset(TripId(1).into(), bench.now), Ok(()));
    assert!(can_be_driven(&mut bench, A));
    assert_eq!(bench.core.estop(bench.now, &mut bench.wire), TripId(2), "a number of its own");
}

#[test]
fn a_trip_that_was_reset_is_not_taken_over() {
    let mut dead = Bench::new(ResetPolicy::Manual);
    let mut writer = dead.drive(0, &[A]);
    writer.close_at(Ending::Client, dead.now);
    dead.run(2 * TICK);
    dead.rest_all();
    assert_eq!(dead.core.reset(TripId(1).into(), dead.now), Ok(()));
    dead.run(2 * TICK);
    let mut bench = next(&dead, ResetPolicy::Manual);
    assert_eq!(held(&bench, A), (0, Some(Reason::Startup), false));
    assert!(bench.events(EventKind::Trip).is_empty());
    assert_eq!(bench.core.estop(bench.now, &mut bench.wire), TripId(2));
}

#[test]
fn an_operator_stop_holds_what_came_into_the_configuration_later_too() {
    let mut dead = Bench::of(&ROBOT.replace("\"b\"", "\"gone\""), 8, ResetPolicy::Auto);
    dead.core.start(dead.now, &mut dead.wire);
    let trip = dead.core.estop(dead.now, &mut dead.wire);
    let mut bench = next(&dead, ResetPolicy::Auto);
    for motor in [A, B, C] {
        assert_eq!(held(&bench, motor), (trip.0, Some(Reason::OperatorStop), true), "{motor:?}");
    }
    assert_eq!(bench.view.latch(), trip);
    bench.rest_all();
    assert!(!can_be_driven(&mut bench, B));
    assert_eq!(bench.core.reset(trip.into(), bench.now), Ok(()));
    assert_eq!(bench.view.latch(), TripId::NONE);
    assert!(can_be_driven(&mut bench, B));
}

#[test]
fn motors_are_found_by_name() {
    let mut dead = Bench::new(ResetPolicy::Manual);
    let _writer = dead.drive(0, &[A]);
    // What was called "a" is called "c" now, and the other way round.
    let swapped = ROBOT.replace("\"a\"", "\"x\"").replace("\"c\"", "\"a\"").replace("\"x\"", "\"c\"");
    let bench = started(Bench::heir(&[&dead.left], &swapped, ResetPolicy::Manual).0);
    assert_eq!(held(&bench, C), (1, Some(Reason::SupervisorDied), true));
    assert_eq!(held(&bench, A), (0, Some(Reason::Startup), false));
}

#[test]
fn an_orderly_end_leaves_open_what_was_not_reset_and_what_was_not_proven() {
    // All proven, nothing held: only the numbers go on.
    let mut dead = Bench::new(ResetPolicy::Auto);
    let _writer = dead.drive(0, &[A]);
    dead.core.shut_down(dead.now, &mut dead.wire);
    dead.rest_all();
    dead.core.end(dead.now);
    let mut bench = next(&dead, ResetPolicy::Auto);
    assert_eq!(bench.view.predecessor().0, Predecessor::Ended);
    assert_eq!(held(&bench, A), (0, Some(Reason::Startup), false));
    assert!(bench.events(EventKind::Trip).is_empty());
    assert_eq!(bench.core.estop(bench.now, &mut bench.wire), TripId(2));

    // Not proven: the stop of the end is still open.
    let mut dead = Bench::new(ResetPolicy::Manual);
    let _writer = dead.drive(0, &[A]);
    dead.core.shut_down(dead.now, &mut dead.wire);
    dead.rest(B);
    dead.rest(C);
    dead.core.end(dead.now);
    let bench = next(&dead, ResetPolicy::Manual);
    assert_eq!(held(&bench, A), (1, Some(Reason::Shutdown), true));
    assert_eq!(held(&bench, B), (0, Some(Reason::Startup), false));

    // Held before: by the number it was told with, not by that of the end.
    let mut dead = Bench::new(ResetPolicy::Manual);
    let mut writer = dead.drive(0, &[A]);
    writer.close_at(Ending::Client, dead.now);
    dead.run(2 * TICK);
    dead.rest_all();
    dead.core.shut_down(dead.now, &mut dead.wire);
    dead.rest_all();
    dead.core.end(dead.now);
    let bench = next(&dead, ResetPolicy::Manual);
    assert_eq!(held(&bench, A), (1, Some(Reason::ClosedByClient), true));
    assert_eq!(bench.events(EventKind::Trip).len(), 1);
}

#[test]
fn a_policy_that_became_stricter_holds_what_was_open_and_one_that_became_milder_lets_nothing_go() {
    for (before, after, expected) in
        [(ResetPolicy::Auto, ResetPolicy::Manual, true), (ResetPolicy::Manual, ResetPolicy::Auto, true)]
    {
        let mut dead = Bench::new(before);
        let mut writer = dead.drive(0, &[A]);
        writer.close_at(Ending::Client, dead.now);
        dead.run(2 * TICK);
        dead.rest_all();
        assert_eq!(held(&next(&dead, after), A), (1, Some(Reason::ClosedByClient), expected), "{before:?}");
    }
}

/// Fails if a supervisor that dies while it makes sure of an end at rest leaves a trip that never was.
#[test]
fn an_end_at_rest_holds_nothing() {
    for &policy in POLICIES {
        let mut dead = Bench::new(policy);
        let mut writer = dead.drive(0, &[A]);
        dead.comes_to_rest(A);
        writer.close_at(Ending::Client, dead.now);
        dead.run(2 * TICK);
        assert_eq!(state(&dead, A), MotorState::Stopping);
        let mut bench = next(&dead, policy);
        assert_eq!(held(&bench, A), (0, Some(Reason::Startup), false), "{policy:?}");
        assert_eq!(state(&bench, A), MotorState::Stopping, "{policy:?}: stopped like any other");
        bench.rest_all();
        assert!(can_be_driven(&mut bench, A), "{policy:?}");
    }
}

#[test]
fn evidence_is_told_and_proves_nothing() {
    let mut dead = Bench::new(ResetPolicy::Auto);
    dead.rest_all();
    let proven = dead.view.motor(A).expect("motor");
    assert_ne!((proven.standstill.0, proven.feedback.0), (0, 0));
    let mut bench = next(&dead, ResetPolicy::Auto);
    let past = bench.view.past_evidence(A).expect("motor");
    assert_eq!((past.standstill, past.feedback), (proven.standstill, proven.feedback));
    let verdict = bench.view.motor(A).expect("motor");
    assert_eq!((verdict.standstill.0, verdict.feedback.0), (0, 0), "nothing was heard yet");
    bench.run(4 * TICK);
    assert_eq!(state(&bench, A), MotorState::Stopping);
    assert!(!can_be_driven(&mut bench, A), "it was proven to the one before only");
    // It goes on to the one after, if this one never hears the drive.
    let after = next(&bench, ResetPolicy::Auto);
    assert_eq!(after.view.past_evidence(A).expect("motor"), past);
}

#[test]
fn who_dies_before_it_began_leaves_nothing_and_the_one_before_counts() {
    let mut first = Bench::new(ResetPolicy::Manual);
    let _writer = first.drive(0, &[A]);
    let (second, _) = Bench::heir(&[&first.left], ROBOT, ResetPolicy::Manual);
    let (third, _) = Bench::heir(&[&second.left, &first.left], ROBOT, ResetPolicy::Manual);
    let third = started(third);
    assert_eq!(held(&third, A), (1, Some(Reason::SupervisorDied), true));
    // Once begun, it is the last that counts, and what it took over is not tripped anew.
    let fourth = started(Bench::heir(&[&third.left], ROBOT, ResetPolicy::Manual).0);
    assert_eq!(held(&fourth, A), (1, Some(Reason::SupervisorDied), true));
    assert_eq!(fourth.events(EventKind::Trip), third.events(EventKind::Trip));
    // The first of all has nothing before it.
    let (nobody, told) = Bench::heir(&[&Bench::cold(ResetPolicy::Manual).left], ROBOT, ResetPolicy::Manual);
    assert_eq!((nobody.view.predecessor().0, told.len()), (Predecessor::None, 0));
}

/// The segment with some words changed, sealed as the real one is.
fn changed(bench: &Bench, words: &[(usize, u64)]) -> OwnedFd {
    let file = File::from(bench.left.try_clone().expect("a descriptor"));
    let mut bytes = vec![0; usize::try_from(file.metadata().expect("a size").len()).expect("small")];
    file.read_exact_at(&mut bytes, 0).expect("readable");
    for (place, word) in words {
        bytes[place * 8..place * 8 + 8].copy_from_slice(&word.to_ne_bytes());
    }
    let copy = File::from(shm_proto::memory::create("copy", bytes.len() / 8).expect("a memfd"));
    copy.write_all_at(&bytes, 0).expect("writable");
    shm_proto::memory::seal(copy.as_fd()).expect("seals");
    copy.into()
}

/// The word that names the layout, and the first.
const LAYOUT: usize = 1;
const MAGIC: usize = 0;

#[test]
fn of_another_version_everything_counts_as_driven_unless_it_ended_with_nothing_open() {
    let mut dead = Bench::new(ResetPolicy::Manual);
    let _writer = dead.drive(0, &[A]);
    let (bench, told) = Bench::heir(&[&changed(&dead, &[(LAYOUT, 7)])], ROBOT, ResetPolicy::Manual);
    assert!(told.iter().any(|line| line.contains("another version")), "{told:?}");
    let bench = started(bench);
    for motor in [A, B, C] {
        assert_eq!(held(&bench, motor), (1, Some(Reason::SupervisorDied), true));
    }
    dead.core.shut_down(dead.now, &mut dead.wire);
    dead.rest_all();
    dead.core.end(dead.now);
    let ended = changed(&dead, &[(LAYOUT, 7)]);
    let mut bench = started(Bench::heir(&[&ended], ROBOT, ResetPolicy::Manual).0);
    assert_eq!(held(&bench, A), (0, Some(Reason::Startup), false));
    assert_eq!(
        bench.core.estop(bench.now, &mut bench.wire),
        TripId(2),
        "the count is in every version's header"
    );

    let mut dead = Bench::new(ResetPolicy::Manual);
    let mut writer = dead.drive(0, &[A]);
    writer.close_at(Ending::Client, dead.now);
    dead.run(2 * TICK);
    dead.rest_all();
    dead.core.shut_down(dead.now, &mut dead.wire);
    dead.rest_all();
    dead.core.end(dead.now);
    let held_one = changed(&dead, &[(LAYOUT, 7)]);
    let bench = started(Bench::heir(&[&held_one], ROBOT, ResetPolicy::Manual).0);
    assert!(held(&bench, A).2, "it was held, and nobody knows that it was the only one");
}

/// Fails if an operator's stop is known and a motor can be driven all the same, because of all else nothing is known.
#[test]
fn an_operator_stop_holds_what_counts_as_driven_too() {
    let mut dead = Bench::new(ResetPolicy::Auto);
    let _writer = dead.drive(0, &[A]);
    let stop = dead.core.estop(dead.now, &mut dead.wire);
    let of_another_version = changed(&dead, &[(LAYOUT, 7)]);
    let mut bench = started(Bench::heir(&[&of_another_version], ROBOT, ResetPolicy::Auto).0);
    assert_eq!(bench.view.latch(), stop);
    bench.rest_all();
    for motor in [A, B, C] {
        assert_eq!(held(&bench, motor), (2, Some(Reason::SupervisorDied), true), "{motor:?}");
        assert!(!can_be_driven(&mut bench, motor), "{motor:?}");
    }
    for trip in [TripId(2), stop] {
        assert_eq!(bench.core.reset(trip.into(), bench.now), Ok(()));
    }
    assert!(can_be_driven(&mut bench, A));
}

#[test]
fn what_cannot_be_read_counts_as_everything_driven() {
    let dead = Bench::new(ResetPolicy::Manual);
    let (bench, told) = Bench::heir(&[&changed(&dead, &[(MAGIC, 7)])], ROBOT, ResetPolicy::Manual);
    assert!(told.iter().any(|line| line.contains("cannot be read")), "{told:?}");
    let mut bench = started(bench);
    let (trip, reason, latched) = held(&bench, B);
    assert_eq!((reason, latched), (Some(Reason::SupervisorDied), true));
    assert!(trip > 1_000, "far from any number that was told: {trip}");
    assert_eq!(bench.view.predecessor().0, Predecessor::Unreadable);
    bench.rest_all();
    assert_eq!(bench.core.reset(TripId(trip).into(), bench.now), Ok(()));
    assert!(can_be_driven(&mut bench, B));
}

/// Fails if a trip gets a number that an operator has seen before: one for each millisecond that the machine runs is more
/// than the supervisor before can have given out.
#[test]
fn numbers_go_on_behind_any_that_nobody_knows() {
    let config = Config::parse(Path::new("test.toml"), ROBOT).expect("the test robot is valid");
    for (now, trip) in [(Nanos(0), 1), (Nanos(999_999), 1), (Nanos(5_000_999_999), 5_001)] {
        let (inheritance, _) = inherit(Found::ArmedOnly, &config, now);
        assert_eq!((inheritance.trips, inheritance.died), (TripId(trip), Some(TripId(trip))), "{now:?}");
    }
}

/// Whatever words a broken supervisor leaves, the next one starts, and holds nothing that could not be reset.
#[test]
fn no_word_left_behind_keeps_the_next_one_from_starting() {
    let mut dead = Bench::new(ResetPolicy::Manual);
    let mut closing = dead.drive(0, &[A]);
    let _driving = dead.drive(1, &[B]);
    closing.close_at(Ending::Client, dead.now);
    dead.run(2 * TICK);
    dead.core.estop(dead.now, &mut dead.wire);
    let words =
        usize::try_from(File::from(dead.left.try_clone().expect("fd")).metadata().expect("size").len())
            .expect("small")
            / 8;
    let mut random = 0x5EED_u64;
    let mut next_random = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 11
    };
    let mut whole = 0;
    for round in 0..400 {
        let mut words_changed = Vec::new();
        for _ in 0..1 + round % 8 {
            let place = usize::try_from(next_random()).expect("small") % words;
            let word = match next_random() % 5 {
                0 => u64::MAX,
                1 => next_random() % 8,
                2 => 1 << (next_random() % 64),
                _ => next_random(),
            };
            // Header and motors are worth more tries than the events.
            let place = if round % 2 == 0 { place % 328 } else { place };
            words_changed.push((place, word));
        }
        let policy = POLICIES[round % POLICIES.len()];
        let (bench, _) = Bench::heir(&[&changed(&dead, &words_changed)], ROBOT, policy);
        let mut bench = started(bench);
        whole += usize::from(bench.view.predecessor().0 == Predecessor::Died);
        bench.rest_all();
        for motor in [A, B, C] {
            let (trip, _, latched) = held(&bench, motor);
            assert!(!latched || trip != 0, "{motor:?} is held by nothing: {words_changed:?}");
            if latched {
                let of_it = |motor: &MotorVerdict| motor.trip == TripId(trip) && motor.latched != 0;
                let motors = [A, B, C].map(|motor| bench.view.motor(motor).expect("a motor"));
                let violations = motors.iter().filter(|m| of_it(m)).map(|m| m.violations).max().unwrap_or(0);
                let seen = TripSeen { trip: TripId(trip), violations };
                assert!(bench.core.reset(seen, bench.now).is_ok(), "{words_changed:?}");
            }
        }
        bench.rest_all();
        let numbers: Vec<u64> = [A, B, C].iter().map(|motor| held(&bench, *motor).0).collect();
        let estop = bench.core.estop(bench.now, &mut bench.wire);
        assert!(numbers.iter().all(|number| *number < estop.0), "{numbers:?} and then {estop}");
    }
    assert!(whole > 200, "most of them can be read: {whole}");
}

/// The order in which a motor's words are written, cut at every place: killed there, it is tripped or was never granted.
#[test]
fn a_supervisor_killed_within_a_stop_leaves_no_motor_free() {
    // While the frames go out the grant is gone already and nothing else is published: what the wire sees last.
    let mut dead = Bench::new(ResetPolicy::Manual);
    let mut writer = dead.drive(0, &[A]);
    let before = dead.view.motor(A).expect("motor");
    assert_eq!(before.state, MotorState::Granted);
    let granted = MotorState::Granted.number();
    writer.close_at(Ending::Client, dead.now);
    dead.run(2 * TICK);
    let after = dead.view.motor(A).expect("motor");
    assert_eq!((after.state, dead.view.phase()), (MotorState::Stopping, Some(Phase::Armed)));
    // Words of a motor from the last that is published to the first; the grant has gone before all of them.
    let at = 64 + 8 * 8;
    let old = [(0, 0), (1, granted), (15, 0), (4, 0), (3, before.trip.0)];
    for torn in 0..old.len() {
        let words: Vec<(usize, u64)> = old[..=torn].iter().map(|(place, word)| (at + place, *word)).collect();
        let bench = started(Bench::heir(&[&changed(&dead, &words)], ROBOT, ResetPolicy::Manual).0);
        let (trip, _, latched) = held(&bench, A);
        assert!(latched && trip > 0, "with {words:?} it is free");
    }
}
