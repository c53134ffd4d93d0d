//! What is on disk, beside what is left of the supervisor before or instead of it.

use std::os::fd::OwnedFd;
use std::path::Path;

use config::Config;
use shm_proto::verdicts::{Degraded, EventKind, Keeping, Phase, Reason, ResetPolicy};
use shm_proto::{Ending, MotorIndex, Nanos, TripId};
use supervisor::core::{Inheritance, Kept};
use supervisor::latches::{Clock, Found, HeldMotor, Latches, hold_all, take_over};

use crate::support::{A, B, Bench, C, CALENDAR_MS, ROBOT, TICK};

const POLICIES: &[ResetPolicy] = ResetPolicy::ALL;

fn held(name: &str, trip: u64, reason: Reason) -> HeldMotor {
    HeldMotor { name: name.to_owned(), trip: TripId(trip), reason }
}

fn disk(last: u64, stop: u64, held: &[HeldMotor]) -> Found {
    let latches =
        Latches { last: TripId(last), stop: TripId(stop), held: held.to_vec(), ..Latches::default() };
    Found::Latches(latches.with_numbers_ahead())
}

/// The next supervisor, started and at rest.
fn next(left: &[&OwnedFd], disk: &Found, policy: ResetPolicy) -> (Bench, Vec<String>) {
    let (mut bench, told) = Bench::heir_with_disk(left, disk, ROBOT, policy);
    bench.core.start(bench.now, &mut bench.wire);
    bench.rest_all();
    bench.run(40 * TICK);
    (bench, told)
}

/// Which trip stopped a motor, why, and whether it must be reset.
fn state(bench: &Bench, motor: MotorIndex) -> (u64, Option<Reason>, bool) {
    let verdict = bench.view.motor(motor).expect("the motor exists");
    (verdict.trip.0, verdict.reason, verdict.latched != 0)
}

fn can_be_driven(bench: &mut Bench, motor: MotorIndex) -> bool {
    let mut writer = bench.open(motor.0);
    bench.take(&writer, motor);
    bench.run(2 * TICK);
    bench.beat(&mut writer);
    bench.view.granted(motor) == Some(writer.owner())
}

fn is_degraded(bench: &Bench, by: Degraded) -> bool {
    bench.view.degraded().any(|flag| flag == by)
}

/// Fails if a stop of the service, an upgrade or a reboot lets go what an operator has stopped.
#[test]
fn an_operator_stop_on_disk_holds_everything_under_every_policy() {
    for &policy in POLICIES {
        let kept = disk(4, 4, &[held("a", 4, Reason::OperatorStop), held("b", 4, Reason::OperatorStop)]);
        let (mut bench, told) = next(&[], &kept, policy);
        for motor in [A, B, C] {
            assert_eq!(state(&bench, motor), (4, Some(Reason::OperatorStop), true), "{motor:?}");
            assert!(!can_be_driven(&mut bench, motor));
        }
        assert_eq!(bench.view.latch(), TripId(4));
        assert!(told[0].contains("3 motors are held"), "{told:?}");
        let trips = bench.events(EventKind::Trip);
        assert_eq!((trips.len(), trips[0].trip, trips[0].reason), (1, TripId(4), Some(Reason::OperatorStop)));
        assert_eq!(bench.core.reset(TripId(4).into(), bench.now), Ok(()));
        assert_eq!(bench.view.latch(), TripId::NONE);
        assert!(can_be_driven(&mut bench, A));
        assert_eq!(
            bench.core.estop(bench.now, &mut bench.wire),
            TripId(1029),
            "above all that were given ahead"
        );
    }
}

#[test]
fn a_manual_trip_on_disk_holds_its_motors_and_no_others() {
    let kept = disk(6, 0, &[held("b", 5, Reason::Expired)]);
    // A policy that became milder lets nothing go.
    let (mut bench, _) = next(&[], &kept, ResetPolicy::Auto);
    assert_eq!(state(&bench, B), (5, Some(Reason::Expired), true));
    assert!(!can_be_driven(&mut bench, B));
    assert!(can_be_driven(&mut bench, A));
    assert!(!is_degraded(&bench, Degraded::LatchesLost));
    assert_eq!(bench.core.reset(TripId(5).into(), bench.now), Ok(()));
    assert!(can_be_driven(&mut bench, B));
}

/// Fails if one of both sources makes the other forgotten.
#[test]
fn a_latch_in_either_holds() {
    let mut dead = Bench::new(ResetPolicy::Manual);
    let mut writer = dead.drive(0, &[A]);
    writer.close_at(Ending::Client, dead.now);
    dead.run(2 * TICK);
    let kept = disk(1, 0, &[held("b", 1, Reason::Expired)]);
    let (mut bench, _) = next(&[&dead.left], &kept, ResetPolicy::Manual);
    assert_eq!(state(&bench, A), (1, Some(Reason::ClosedByClient), true), "as systemd's store has it");
    assert_eq!(state(&bench, B), (1, Some(Reason::Expired), true), "as the disk has it");
    assert!(!can_be_driven(&mut bench, A) && !can_be_driven(&mut bench, B));
    assert!(can_be_driven(&mut bench, C));
    // The store's number is exact: nothing is skipped.
    assert_eq!(bench.core.estop(bench.now, &mut bench.wire), TripId(2));

    // A later number of the same stop, which the disk had not heard of.
    let mut dead = Bench::new(ResetPolicy::Auto);
    let stop = dead.core.estop(dead.now, &mut dead.wire);
    let again = dead.core.press(dead.now, &mut dead.wire);
    let (bench, _) =
        next(&[&dead.left], &disk(1, stop.0, &[held("a", 1, Reason::OperatorStop)]), ResetPolicy::Auto);
    assert_eq!((bench.view.latch(), state(&bench, A).0), (again, again.0));
}

/// Fails if what is more in the store of systemd is replaced by the little that the disk knows.
#[test]
fn the_store_of_systemd_counts_for_what_it_holds() {
    let mut dead = Bench::new(ResetPolicy::Manual);
    let mut writer = dead.drive(0, &[A]);
    writer.close_at(Ending::Client, dead.now);
    dead.run(2 * TICK);
    let begun = dead.events(EventKind::Trip)[0];
    let kept = disk(1, 0, &[held("a", 1, Reason::LatchesLost)]);
    let (bench, _) = next(&[&dead.left], &kept, ResetPolicy::Manual);
    assert_eq!(state(&bench, A), (1, Some(Reason::ClosedByClient), true));
    assert_eq!(bench.events(EventKind::Trip), [begun]);
}

#[test]
fn what_cannot_be_known_holds_every_motor_and_is_told() {
    for &policy in POLICIES {
        let (mut bench, told) = next(&[], &Found::Lost("it is damaged".to_owned()), policy);
        let trip = CALENDAR_MS + 1;
        for motor in [A, B, C] {
            assert_eq!(state(&bench, motor), (trip, Some(Reason::LatchesLost), true));
            assert!(!can_be_driven(&mut bench, motor));
        }
        assert!(
            told[0].contains("it is damaged") && told[0].contains(&format!("lanyard reset {trip}")),
            "{told:?}"
        );
        assert!(is_degraded(&bench, Degraded::LatchesLost));
        assert_eq!(bench.core.reset(TripId(trip).into(), bench.now), Ok(()));
        bench.run(2 * TICK);
        assert!(!is_degraded(&bench, Degraded::LatchesLost), "somebody has looked");
        assert!(can_be_driven(&mut bench, A));
    }
}

/// Fails if what the store of systemd has is forgotten, or given another number, because the disk is of no use.
#[test]
fn a_lost_file_takes_nothing_from_what_the_store_of_systemd_holds() {
    let mut dead = Bench::new(ResetPolicy::Auto);
    let _writer = dead.drive(0, &[A]);
    let stop = dead.core.estop(dead.now, &mut dead.wire);
    let (bench, told) = next(&[&dead.left], &Found::Lost("it is missing".to_owned()), ResetPolicy::Auto);
    for motor in [A, B, C] {
        assert_eq!(state(&bench, motor), (stop.0, Some(Reason::OperatorStop), true));
    }
    assert!(told.iter().any(|line| line.contains("it is missing")), "{told:?}");
    // Whereas what was driven and left open is held now.
    let mut dead = Bench::new(ResetPolicy::Auto);
    let _writer = dead.drive(0, &[A]);
    let (bench, _) = next(&[&dead.left], &Found::Lost("it is missing".to_owned()), ResetPolicy::Auto);
    for motor in [A, B, C] {
        assert_eq!(state(&bench, motor), (2, Some(Reason::LatchesLost), true), "after trip 1, its death");
    }
    assert_eq!(bench.events(EventKind::Trip).len(), 1, "nothing is told of motors that it no longer has");
}

/// Fails if the death of a supervisor gets a number that was given before the machine was started again.
#[test]
fn no_number_comes_twice() {
    let mut dead = Bench::new(ResetPolicy::Manual);
    let _writer = dead.drive(0, &[A]);
    let (bench, _) = next(&[&dead.left], &disk(40, 0, &[]), ResetPolicy::Manual);
    assert_eq!(state(&bench, A), (41, Some(Reason::SupervisorDied), true));
    assert_eq!(bench.events(EventKind::Trip)[0].trip, TripId(41));
}

#[test]
fn a_motor_that_left_the_configuration_is_held_when_it_comes_back() {
    let config = Config::parse(Path::new("test.toml"), ROBOT).expect("the test robot is valid");
    let kept = disk(3, 0, &[held("gone", 2, Reason::Expired), held("a", 3, Reason::Expired)]);
    let at = Clock { now: Nanos(1), calendar_ms: 0 };
    let mut inheritance = Inheritance::nothing(3);
    let taken = take_over(&mut inheritance, &kept, &config, at);
    assert_eq!(taken.elsewhere, [held("gone", 2, Reason::Expired)]);
    assert!(taken.told.iter().any(|line| line.contains("\"gone\"")), "{:?}", taken.told);
    let written = Latches::of(&inheritance, &config, &taken.elsewhere);
    assert_eq!(written.held, [held("a", 3, Reason::Expired), held("gone", 2, Reason::Expired)]);
    assert_eq!(Latches::from_bytes(&written.to_bytes()), Ok(written.clone()));
    let back = Config::parse(Path::new("test.toml"), &ROBOT.replace("\"c\"", "\"gone\"")).expect("valid");
    let mut inheritance = Inheritance::nothing(3);
    assert_eq!(take_over(&mut inheritance, &Found::Latches(written), &back, at).elsewhere, []);
    assert_eq!(inheritance.motors[2].map(|inherited| inherited.trip), Some(TripId(2)));
}

/// Fails if a disk that takes nothing is found out only when an operator presses stop.
#[test]
fn a_disk_that_takes_nothing_holds_every_motor() {
    let config = Config::parse(Path::new("test.toml"), ROBOT).expect("the test robot is valid");
    let at = Clock { now: Nanos(1), calendar_ms: 0 };
    let mut inheritance = Inheritance::nothing(3);
    let _ = take_over(&mut inheritance, &disk(3, 0, &[held("a", 3, Reason::Expired)]), &config, at);
    let told = hold_all(&mut inheritance, "it is full", at.now);
    assert!(told[0].contains("it is full"), "{told:?}");
    let trips: Vec<u64> = inheritance.motors.iter().flatten().map(|inherited| inherited.trip.0).collect();
    assert_eq!(trips, [3, 1028, 1028], "what is held stays so; the rest by a number above those given ahead");
    assert_eq!(inheritance.trips, TripId(1028));
}

/// Fails if a stop is called kept that is not, or if the counts of a change come before its words.
#[test]
fn whether_a_latch_is_on_disk_is_told() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    assert_eq!(bench.view.keeping(), Keeping::OnDisk, "there is none");
    let before = bench.view.latch_changes();
    bench.core.estop(bench.now, &mut bench.wire);
    assert_eq!(bench.view.keeping(), Keeping::Pending);
    let changes = bench.view.latch_changes();
    assert!(changes > before);
    bench.core.latches_kept(Kept::OnDisk { changes: changes - 1 });
    assert_eq!(bench.view.keeping(), Keeping::Pending, "not all of it");
    bench.core.latches_kept(Kept::Refused);
    assert_eq!(bench.view.keeping(), Keeping::Refused);
    bench.run(4 * TICK);
    assert!(is_degraded(&bench, Degraded::LatchesNotKept));
    bench.core.latches_kept(Kept::OnDisk { changes });
    assert_eq!(bench.view.keeping(), Keeping::OnDisk);
    assert!(!is_degraded(&bench, Degraded::LatchesNotKept));
    bench.run(4 * TICK);
    assert_eq!(
        (bench.view.keeping(), bench.view.latch_changes()),
        (Keeping::OnDisk, changes),
        "nothing changes"
    );
    bench.rest_all();
    assert_eq!(bench.core.reset(bench.view.latch().into(), bench.now), Ok(()));
    assert_eq!(bench.view.keeping(), Keeping::Pending, "a reset is a change, too");
    assert_eq!(bench.view.phase(), Some(Phase::Armed));
}
