//! What people decide: policies, operator stops, resets, shutdown.

use shm_proto::verdicts::{EventKind, MotorState, ResetPolicy};
use shm_proto::{Ending, TripId, TripSeen};
use supervisor::core::{Origin, ResetRefused};

use crate::SET_VELOCITY_MODE;
use crate::support::{A, B, Bench, C, TICK};

#[test]
fn manual_policy_holds_motors_until_the_right_trip_is_reset() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    let trip = bench.events(EventKind::Trip)[0].trip;
    assert_eq!(bench.core.reset(trip.into(), bench.now), Err(ResetRefused::NotAtRest { motor: 0 }));
    bench.rest(A);
    let writer = bench.open(1);
    bench.take(&writer, A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), None, "not before the reset");
    assert_eq!(bench.core.reset(TripId(trip.0 + 1).into(), bench.now), Err(ResetRefused::NotHeld));
    assert_eq!(bench.core.reset(TripId::NONE.into(), bench.now), Err(ResetRefused::NotHeld));
    bench.wire.sent.clear();
    assert_eq!(bench.core.reset(trip.into(), bench.now), Ok(()));
    assert_eq!(bench.wire.sent.len(), 0, "a reset moves nothing");
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), Some(writer.owner()));
    assert_eq!(bench.core.reset(trip.into(), bench.now), Err(ResetRefused::NotHeld), "only once");
}

/// That a Stop comes first is the front's to see to: it alone knows what clients have sent.
#[test]
fn neutral_policy_latches_as_little_as_automatic_reset() {
    let mut bench = Bench::new(ResetPolicy::Neutral);
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    assert_eq!(bench.view.motor(A).map(|motor| motor.latched), Some(0));
    let writer = bench.open(1);
    bench.take(&writer, A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), None, "not before standstill is proven");
    bench.rest(A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), Some(writer.owner()));
}

#[test]
fn an_operator_stop_holds_everything_under_every_policy() {
    for &policy in ResetPolicy::ALL {
        an_operator_stop_holds_everything(policy);
    }
}

fn an_operator_stop_holds_everything(policy: ResetPolicy) {
    let mut bench = Bench::new(policy);
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
    assert_eq!(bench.core.reset(trip.into(), bench.now), Ok(()));
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
fn what_the_guard_holds_can_be_reset_by_a_number_of_its_own() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let motion =
        drivers::Frame::classic(drivers::ArbitrationId::standard(0x6D), &[0, 0, 128, 63, 0, 0, 0, 0]);
    let violate = |bench: &mut Bench| {
        bench.core.received(0, Origin::Wire, &motion, bench.now, &mut bench.wire);
        bench.rest(A);
        bench.view.motor(A).expect("motor a").trip
    };
    // Nothing has tripped since the start.
    let first = violate(&mut bench);
    assert_ne!(first, TripId::NONE, "a motor that is held by no trip could never be reset");
    assert_eq!(violate(&mut bench), first, "while it is held, it is the same trip");
    let seen = TripSeen { trip: first, violations: 1 };
    assert_eq!(bench.core.reset(first.into(), bench.now), Err(ResetRefused::Violated { now: seen }));
    assert_eq!(bench.core.reset(seen, bench.now), Ok(()));
    let second = violate(&mut bench);
    assert_ne!(second, first);
    assert_eq!(
        bench.core.reset(first.into(), bench.now),
        Err(ResetRefused::NotHeld),
        "a late reset of the old trip"
    );
    assert_eq!(bench.core.reset(second.into(), bench.now), Ok(()));
}

#[test]
fn a_press_holds_everything_under_every_policy() {
    for &policy in ResetPolicy::ALL {
        let mut bench = Bench::new(policy);
        let _writer = bench.drive(0, &[A]);
        bench.wire.sent.clear();
        let before = bench.now;
        let trip = bench.core.press(bench.now, &mut bench.wire);
        for motor in [A, B, C] {
            assert!(!bench.sent_to(motor).is_empty(), "{motor:?} was not stopped under {policy:?}");
        }
        assert_eq!(bench.view.stopped_since(before), Some(trip));
        bench.rest_all();
        let writer = bench.open(1);
        bench.take(&writer, A);
        bench.run(2 * TICK);
        assert_eq!(bench.view.granted(A), None, "{policy:?}");
        assert_eq!(bench.core.reset(trip.into(), bench.now), Ok(()));
        bench.run(2 * TICK);
        assert_eq!(bench.view.granted(A), Some(writer.owner()), "{policy:?}");
    }
}

/// Fails if a reset that was meant for the first press clears the second, or if the second begins the stop anew.
#[test]
fn a_second_press_has_a_number_of_its_own_and_sends_nothing() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let first = bench.core.press(bench.now, &mut bench.wire);
    bench.rest_all();
    bench.run(2 * TICK);
    bench.wire.sent.clear();
    let pressed = bench.now;
    let second = bench.core.press(bench.now, &mut bench.wire);
    assert!(second > first);
    assert_eq!(bench.wire.sent.len(), 0, "the stop was begun anew");
    assert_eq!(bench.view.stopped_since(pressed), Some(second), "whoever pressed learns that it was heard");
    assert_eq!(bench.core.reset(first.into(), bench.now), Err(ResetRefused::NotHeld));
    assert_eq!(bench.view.latch(), second);
    for motor in [A, B, C] {
        assert_eq!(bench.view.motor(motor).map(|motor| (motor.trip, motor.latched)), Some((second, 1)));
    }
    assert_eq!(bench.core.reset(second.into(), bench.now), Ok(()));
    assert_eq!(bench.view.latch(), TripId::NONE);
    let third = bench.core.press(bench.now, &mut bench.wire);
    assert!(third > second);
    assert!(!bench.wire.sent.is_empty(), "after a reset it is a stop again");
}

/// Fails if whoever presses without end keeps a stop from its harder stages, or pushes trips out of the event log.
#[test]
fn presses_without_end_delay_no_stage_and_fill_no_log() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    let evidence = bench.events(EventKind::Trip)[0].trip;
    bench.core.press(bench.now, &mut bench.wire);
    // Without feedback, until every stage has had its time: a release is the last.
    for _ in 0..400 {
        bench.core.press(bench.now, &mut bench.wire);
        bench.run(TICK);
    }
    assert_eq!(bench.view.motor(A).map(|motor| motor.state), Some(MotorState::Unverified));
    let trips: Vec<TripId> = bench.events(EventKind::Trip).iter().map(|event| event.trip).collect();
    assert_eq!(trips.len(), 2, "{trips:?}");
    assert_eq!(trips[0], evidence);
}
