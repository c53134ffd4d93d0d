//! What holds at the very moment, speed or number that a rule names, and one beside it.

use drivers::{AfterStop, ArbitrationId, Frame, StopProgramme};
use shm_proto::beat::{RawBeat, Reject};
use shm_proto::verdicts::{Counter, EventKind, MotorState, Reason, ResetPolicy, SessionState};
use shm_proto::{Ending, Incarnation, MotorIndex, Nanos, SessionId, SlotIndex, TripId, TripSeen};
use supervisor::core::{Origin, ResetRefused, SendError};
use supervisor::kernel_stop;

use crate::support::{A, B, Bench, C, MS, TICK, WINDOW};
use crate::{SET_VELOCITY_MODE, TO_IDLE, ZERO_VELOCITY, state};

/// The default standstill speed of an ODrive, revolutions per second.
const STILL: f32 = 0.05;
/// What a power stage says while it is neither on nor off.
const CALIBRATING: u8 = 6;

/// Stopped by a goodbye and proven to stand still; the log holds nothing else of it.
fn stopped(motor: MotorIndex) -> Bench {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[motor]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    for _ in 0..3 {
        bench.odrive_says(motor, 8, 0.0);
    }
    if state(&bench, motor) == MotorState::Stopping {
        bench.rest(motor);
    }
    assert_eq!(state(&bench, motor), MotorState::Stopped);
    bench
}

/// Fails if a session is granted a motor in the very moment in which it is over: it would move it for a tick.
#[test]
fn a_session_whose_deadline_is_now_is_granted_nothing() {
    for (late, granted) in [(0, false), (1, true)] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let tick = bench.core.next_wakeup();
        let mut writer = bench.beats.writer(SlotIndex(0)).expect("slot 0");
        writer.open_at(SessionId(1), WINDOW, Nanos(tick.0 - WINDOW.0 + late));
        bench.take(&writer, A);
        bench.run(tick.since(bench.now));
        assert_eq!(bench.view.granted(A).is_some(), granted, "{late} ns before its deadline");
    }
}

/// Fails if a motor is handed over to a session that ends in the same moment: it would be stopped later, and
/// by another's trip.
#[test]
fn a_motor_is_not_handed_to_a_session_that_ends_in_the_same_moment() {
    for (longer, heir) in [(0, false), (1, true)] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let mut first = bench.drive(0, &[A]);
        let mut second = bench.drive(1, &[B]);
        first.beat_at(bench.now);
        second.beat_at(bench.now.after(longer));
        let deadline = bench.now.after(WINDOW.0);
        bench.run(WINDOW.0 - 1);
        bench.take(&second, A);
        bench.run(1);
        assert_eq!(bench.now, deadline);
        let trips = bench.events(EventKind::Trip);
        let stopped_by = trips.iter().find(|trip| trip.motors.contains(A)).map(|trip| trip.slot);
        assert_eq!(stopped_by, (!heir).then_some(SlotIndex(0)), "with the session that drove it");
        assert_eq!(bench.view.granted(A).is_some(), heir, "{longer} ns longer");
    }
}

/// Fails if a beat in the very last moment is taken for one that came too late.
#[test]
fn a_beat_at_the_deadline_saves_the_session() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    bench.beat(&mut writer);
    let deadline = bench.now.after(WINDOW.0);
    bench.run(WINDOW.0 - 1);
    bench.now = deadline;
    bench.beat(&mut writer);
    bench.front.beat_at(bench.now);
    bench.core.step(bench.now, &mut bench.wire);
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Live);
}

/// Fails if a deadline that is a little over is passed over: the loop never wakes in the very moment.
#[test]
fn a_deadline_that_is_just_over_is_over() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    bench.beat(&mut writer);
    bench.run(WINDOW.0 - 1);
    bench.now = bench.now.after(2);
    bench.beat(&mut writer);
    bench.front.beat_at(bench.now);
    bench.core.step(bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY]);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::Expired));
}

/// Fails if a held motor counts as moving before three times its standstill speed, or not beyond.
#[test]
fn a_held_motor_violates_its_stop_above_three_times_standstill() {
    for (speed, wanted) in [
        (0.0, MotorState::Stopped),
        (STILL * 2.0, MotorState::Stopped),
        (STILL * 3.0, MotorState::Stopped),
        (STILL * -3.0, MotorState::Stopped),
        (STILL * 3.01, MotorState::Stopping),
        (STILL * -3.01, MotorState::Stopping),
    ] {
        let mut bench = stopped(C);
        bench.odrive_says(C, 8, speed);
        assert_eq!(state(&bench, C), wanted, "{speed}");
    }
}

/// Fails if a released motor that is energised again is overlooked because it stands still, or if one that is
/// rolled by hand or only says that it is busy is stopped again.
#[test]
fn a_released_motor_violates_its_stop_as_soon_as_it_has_torque() {
    for (power, speed, wanted) in [
        (1, 5.0, MotorState::Stopped),
        (CALIBRATING, 0.0, MotorState::Stopped),
        (CALIBRATING, 5.0, MotorState::Stopping),
        (8, 0.0, MotorState::Stopping),
    ] {
        let mut bench = stopped(A);
        bench.odrive_says(A, power, speed);
        assert_eq!(state(&bench, A), wanted, "state {power} at {speed}");
    }
}

/// Fails if a running drive counts as silent before 500 ms, or not on the tick behind them.
#[test]
fn a_running_drive_may_be_silent_for_half_a_second() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    bench.run(bench.core.next_wakeup().since(bench.now));
    bench.odrive_says(A, 8, 1.0);
    for _ in 0..10 {
        bench.beat(&mut writer);
        bench.run(50 * MS);
    }
    assert_eq!(bench.events(EventKind::Trip).len(), 0, "500 ms and not more");
    bench.beat(&mut writer);
    bench.run(TICK);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::FeedbackLost));
}

/// Fails if a drive that has not been seen running is held to account: the front may still be enabling it.
#[test]
fn a_drive_that_was_never_on_may_fault_and_fall_silent() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    let fault = Frame::classic(ArbitrationId::standard(0x61), &[1, 0, 0, 0, 1, 0, 0, 0]);
    bench.core.received(0, Origin::Wire, &fault, bench.now, &mut bench.wire);
    bench.odrive_says(A, 1, 0.0);
    for _ in 0..14 {
        bench.beat(&mut writer);
        bench.run(50 * MS);
    }
    assert_eq!(bench.events(EventKind::Trip).len(), 0);
    assert_eq!(bench.view.granted(A), Some(writer.owner()));
}

/// Fails if a stage is left out or sent for two turns, or if what is published is not the stage in force.
#[test]
fn every_stage_has_its_turn_and_the_last_one_stays() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    let began = bench.events(EventKind::Trip)[0].at;
    let stage = |bench: &Bench| bench.view.motor(A).expect("motor a").stage;
    for (elapsed, wanted, escalated, unverified) in [
        (95, 0, 0, 0),
        (105, 1, 1, 0),
        (195, 1, 1, 0),
        (205, 2, 2, 0),
        (295, 2, 2, 0),
        (305, 2, 2, 1),
        (500, 2, 2, 1),
    ] {
        bench.run(began.after(elapsed * MS).since(bench.now));
        let told = [EventKind::Escalated, EventKind::Unverified].map(|kind| bench.events(kind).len());
        assert_eq!((stage(&bench), told), (wanted, [escalated, unverified]), "after {elapsed} ms");
    }
    assert_eq!(state(&bench, A), MotorState::Unverified);
    bench.wire.sent.clear();
    bench.run(100 * MS);
    let repeated = bench.sent_to(A).len();
    assert!((8..=12).contains(&repeated), "two frames every 20 ms, not every tick: {repeated}");
}

/// Fails if what gets out first over a bus that comes back unannounced is the stage whose turn it would be: the
/// drive has run on and would lose its torque at full speed.
#[test]
fn over_a_bus_that_was_down_the_first_stage_goes_first() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _writer = bench.drive(0, &[A]);
    bench.wire.failures.push((0, vec![SendError::Down; 10_000].into()));
    bench.core.bus_down(0, SendError::Down.errno(), bench.now, &mut bench.wire);
    bench.run(600 * MS);
    assert_eq!(state(&bench, A), MotorState::Unverified);
    bench.wire.failures.clear();
    bench.run(30 * MS);
    assert_eq!(bench.sent_to(A)[..2], [SET_VELOCITY_MODE, ZERO_VELOCITY]);
    assert!(!bench.sent_to(A).iter().any(|frame| frame == TO_IDLE));
}

/// Fails if a drive that knows only one way to stop is sent it for ever, because torque is to be released.
#[test]
fn a_drive_without_a_second_stage_is_done_with_the_first() {
    let mut bench = Bench::with_drives(ResetPolicy::Auto, |drive| {
        let only = *drive.stop.stage(0);
        drive.stop = StopProgramme::new(&[only], AfterStop::Release);
    });
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    for _ in 0..3 {
        bench.odrive_says(A, 8, 0.0);
    }
    assert_eq!(state(&bench, A), MotorState::Stopped);
}

/// Fails if a front that came back is not watched again: its next silence would stop nothing.
#[test]
fn a_front_that_came_back_is_watched_again() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    for silences in 1..=3 {
        let slot = u16::try_from(silences).expect("small");
        bench.drive(slot, &[A]);
        let last = bench.now;
        bench.front_beats(false);
        bench.run(100 * MS);
        let trips = bench.events(EventKind::Trip);
        assert_eq!((trips.len(), trips[silences - 1].reason), (silences, Some(Reason::FrontSilent)));
        assert_eq!(trips[silences - 1].deadline, last.after(100 * MS), "its own deadline");
        bench.rest_all();
        bench.front_beats(true);
        bench.run(4 * TICK);
    }
    bench.core.detach(Reason::FrontDead, bench.now, &mut bench.wire);
}

/// Fails if a front that has never beaten is waited for: its sessions would have no watchman.
#[test]
fn a_front_that_never_beats_is_silent_after_its_window() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let capacity = shm_proto::Capacity::new(8, 8).expect("in range");
    let (beats, view) = crate::support::segment(capacity, shm_proto::Generation(2));
    bench.core.attach(view, 43, bench.now, &mut bench.wire);
    let attached = bench.now;
    beats.writer(SlotIndex(0)).expect("slot 0").open_at(SessionId(1), WINDOW, bench.now);
    bench.run(100 * MS - 1);
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Live);
    bench.run(1);
    let [trip] = bench.events(EventKind::Trip)[..] else { panic!("one trip") };
    assert_eq!((trip.reason, trip.deadline), (Some(Reason::FrontSilent), attached.after(100 * MS)));
}

/// Fails if the end of a dead front's sessions is told with a deadline: there was none, it was seen at once.
#[test]
fn a_dead_front_is_told_with_the_moment_it_was_seen() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _writer = bench.drive(0, &[A]);
    bench.core.detach(Reason::FrontDead, bench.now, &mut bench.wire);
    let [trip] = bench.events(EventKind::Trip)[..] else { panic!("one trip") };
    assert_eq!((trip.deadline, trip.at), (bench.now, bench.now));
}

/// Fails if a goodbye whose session was never seen ends somebody, or puts one on record who never was.
#[test]
fn a_goodbye_of_nobody_is_no_news() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.open(0);
    // Its first beat is spoilt, so that nobody has ever come.
    writer.write_raw(&RawBeat { counter: 1, crc: 1, ..RawBeat::default() });
    writer.close_at(Ending::Client, bench.now);
    bench.run(4 * TICK);
    assert!(bench.view.rejects(Reject::Corrupt) >= 1);
    assert_eq!(bench.view.session_state(SlotIndex(0)), (Incarnation::NONE, SessionState::Vacant));
}

/// Fails if what is published of a session grows old although it beats: its rings are looked into in turn.
#[test]
fn every_session_is_published_fresh() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writers: Vec<_> = (0..8).map(|slot| bench.open(slot)).collect();
    bench.run(2 * TICK);
    for _ in 0..9 {
        for writer in &mut writers {
            writer.beat_at(bench.now);
        }
        let beaten = bench.now;
        bench.run(TICK);
        for slot in (0..8).map(SlotIndex) {
            assert_eq!(bench.view.session(slot).expect("it exists").last_beat, beaten, "{slot:?}");
        }
    }
}

/// Fails if an operator's stop does not tell how fresh the last beats were: of those who lived, written but not
/// looked at yet, and not of somebody long gone.
#[test]
fn an_operator_stop_tells_the_last_beat_of_the_living() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut living = bench.drive(0, &[A]);
    let mut gone = bench.drive(1, &[C]);
    bench.run(TICK);
    bench.beat(&mut living);
    let last = bench.now;
    bench.run(TICK);
    bench.beat(&mut gone);
    bench.run(TICK);
    gone.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    bench.core.estop(bench.now, &mut bench.wire);
    assert_eq!(bench.events(EventKind::Trip)[1].last_beat, last);

    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut living = bench.drive(0, &[A]);
    bench.run(TICK);
    bench.beat(&mut living);
    bench.core.estop(bench.now, &mut bench.wire);
    assert_eq!(bench.events(EventKind::Trip)[0].last_beat, bench.now, "not looked at before");
}

/// Fails if what is stopped is not told at once, or not from its first to its last frame.
#[test]
fn a_trip_is_told_at_once_from_its_first_frame_to_its_last() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _writer = bench.drive(0, &[A, C]);
    bench.core.estop(bench.now, &mut bench.wire);
    assert_eq!([A, B, C].map(|motor| state(&bench, motor)), [MotorState::Stopping; 3]);
    let [trip] = bench.events(EventKind::Trip)[..] else { panic!("one trip") };
    let first = bench.view.motor(A).expect("motor a").first_stop;
    let last = bench.view.motor(C).expect("motor c").first_stop;
    assert_eq!((trip.first_stop, trip.all_stopped), (first, last));
    assert!(Nanos::ZERO < first && first < last);
}

/// Fails if a reset clears what another trip holds, or asks standstill of motors that are not its own.
#[test]
fn a_reset_is_of_one_trip_only() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let mut left = bench.drive(0, &[A]);
    let mut right = bench.drive(1, &[C]);
    left.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    right.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    bench.rest(A);
    let latched = |bench: &Bench| [A, B, C].map(|motor| bench.view.motor(motor).expect("it exists").latched);
    assert_eq!(latched(&bench), [1, 0, 1]);
    let [first, second] = bench.events(EventKind::Trip)[..] else { panic!("two trips") };
    assert_eq!(bench.core.reset(first.trip.into(), bench.now), Ok(()), "the other's motor may still move");
    bench.run(TICK);
    assert_eq!(latched(&bench), [0, 0, 1]);
    assert_eq!(state(&bench, A), MotorState::Idle);
    assert_eq!(bench.core.reset(second.trip.into(), bench.now), Err(ResetRefused::NotAtRest { motor: 2 }));
    let [reset] = bench.events(EventKind::Reset)[..] else { panic!("one reset") };
    assert_eq!((reset.trip, reset.motors), (first.trip, first.motors));
}

/// Fails if a wrong number clears an operator's stop, or the stop of one motor does.
#[test]
fn an_operator_stop_is_cleared_by_its_own_number_only() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    let earlier = bench.events(EventKind::Trip)[0].trip;
    let trip = bench.core.estop(bench.now, &mut bench.wire);
    bench.rest_all();
    for wrong in [earlier, TripId(trip.0 + 1), TripId::NONE] {
        assert_eq!(bench.core.reset(wrong.into(), bench.now), Err(ResetRefused::NotHeld), "{wrong:?}");
    }
    // What holds one motor by now is another trip than what holds them all.
    let motion = Frame::classic(ArbitrationId::standard(0x6D), &[0, 0, 128, 63, 0, 0, 0, 0]);
    bench.core.received(0, Origin::Wire, &motion, bench.now, &mut bench.wire);
    assert_eq!(bench.view.latch(), trip);
    bench.rest_all();
    // Somebody moves a motor that it holds: the bare number is that of an operator who does not know.
    let seen = TripSeen { trip, violations: 1 };
    assert_eq!(bench.core.reset(trip.into(), bench.now), Err(ResetRefused::Violated { now: seen }));
    let unseen = TripSeen { trip, violations: 2 };
    assert_eq!(bench.core.reset(unseen, bench.now), Err(ResetRefused::Violated { now: seen }));
    assert_eq!(bench.core.reset(seen, bench.now), Ok(()));
    assert_eq!(bench.view.latch(), TripId::NONE);
}

/// Fails if the operator is not told what to do.
#[test]
fn a_refused_reset_says_why() {
    assert!(ResetRefused::NotHeld.to_string().contains("lanyard status"));
    assert!(ResetRefused::NotAtRest { motor: 7 }.to_string().contains("motor number 7"));
}

/// Fails if what the guard answers is not counted over all motors.
#[test]
fn the_guard_counts_over_all_motors() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    for (bus, node) in [(0, 3), (0, 4), (1, 3)] {
        let motion = Frame::classic(ArbitrationId::standard(node << 5 | 0x0D), &[0, 0, 128, 63, 0, 0, 0, 0]);
        bench.core.received(bus, Origin::Wire, &motion, bench.now, &mut bench.wire);
    }
    bench.run(TICK);
    assert_eq!(bench.view.counter(Counter::Guarded), 3);
}

/// Fails if motors that the kernel has stopped go on by themselves when the loop comes round again.
#[test]
fn a_loop_that_the_kernel_has_overtaken_is_a_trip() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let writer = bench.drive(0, &[A]);
    assert_eq!(bench.view.granted(A), Some(writer.owner()));
    let mut tally = kernel_stop::Tally { rearms: 8, errors: 0, overtaken: 0 };
    bench.core.kernel_stop(tally, bench.now, &mut bench.wire);
    assert_eq!(bench.view.granted(A), Some(writer.owner()));
    tally.overtaken = 1;
    bench.core.kernel_stop(tally, bench.now, &mut bench.wire);
    assert_eq!(bench.view.granted(A), None);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::SelfOverrun));
    bench.rest_all();
    bench.core.kernel_stop(tally, bench.now, &mut bench.wire);
    assert_eq!(bench.events(EventKind::Trip).len(), 1, "it is told once");
}
