//! Ends that interrupt nothing: a session whose motors are all proven to be at rest ends without a trip, and in doubt
//! with one.

use drivers::{ArbitrationId, Frame};
use shm_proto::verdicts::{BusHealth, Event, EventKind, MotorState, Reason, ResetPolicy, SessionState};
use shm_proto::{BeatWriter, Ending, MotorIndex, Nanos, Owner, SessionId, SlotIndex, TripId, Window};
use supervisor::core::Origin;

use crate::support::{A, B, Bench, C, MS, TICK, WINDOW};
use crate::{SET_VELOCITY_MODE, TO_IDLE, ZERO_VELOCITY, state};

/// Axis states of an ODrive.
const IDLE: u8 = 1;
const FULL_CALIBRATION: u8 = 3;
const CLOSED_LOOP: u8 = 8;

/// A session that has driven these motors and brought them to rest.
fn rested(bench: &mut Bench, motors: &[MotorIndex]) -> BeatWriter {
    let writer = bench.drive(0, motors);
    motors.iter().for_each(|motor| bench.comes_to_rest(*motor));
    bench.wire.sent.clear();
    writer
}

fn trips(bench: &Bench) -> Vec<Event> {
    bench.events(EventKind::Trip)
}

/// Which trip stopped a motor last, why, and whether it must be reset.
fn told(bench: &Bench, motor: MotorIndex) -> (TripId, Option<Reason>, u64) {
    let verdict = bench.view.motor(motor).expect("the motor exists");
    (verdict.trip, verdict.reason, verdict.latched)
}

/// How a session can end without anything going wrong.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    Says(Ending),
    Silent,
}

/// The session ends; its motors' drives are as fresh as they were.
fn ends(bench: &mut Bench, writer: &mut BeatWriter, how: Leaves) {
    match how {
        Leaves::Says(ending) => {
            writer.close_at(ending, bench.now);
            bench.run(2 * TICK);
        }
        Leaves::Silent => bench.run(WINDOW.0),
    }
}

/// Fails if an orderly end, or silence, of a session whose motors stand still needs a hand on the console; if its stop
/// is not made all the same; or if the session can go on.
#[test]
fn a_session_that_ends_at_rest_is_no_trip() {
    for (how, reason, end) in [
        (Leaves::Says(Ending::Client), Reason::ClosedByClient, SessionState::Closed),
        (Leaves::Says(Ending::ClientLost), Reason::ClientLost, SessionState::Closed),
        (Leaves::Says(Ending::Overdue), Reason::Overdue, SessionState::Closed),
        (Leaves::Silent, Reason::Expired, SessionState::Tripped),
    ] {
        let mut bench = Bench::new(ResetPolicy::Manual);
        let mut writer = rested(&mut bench, &[A, C]);
        ends(&mut bench, &mut writer, how);
        assert_eq!(trips(&bench), [], "{how:?}");
        let [event] = bench.events(EventKind::EndedAtRest)[..] else { panic!("{how:?}: told once") };
        assert_eq!((event.trip, event.reason), (TripId::NONE, Some(reason)));
        assert_eq!((event.session, event.slot), (SessionId(1), SlotIndex(0)));
        assert_eq!(event.motors.iter().collect::<Vec<_>>(), [A, C]);
        assert!(event.first_stop > Nanos::ZERO && event.all_stopped >= event.first_stop);
        assert_eq!(bench.sent_to(A)[..2], [SET_VELOCITY_MODE, ZERO_VELOCITY], "{how:?}: stopped as ever");
        assert_eq!(bench.sent_to(C)[..2], [SET_VELOCITY_MODE, ZERO_VELOCITY], "{how:?}: stopped as ever");
        assert_eq!([A, C].map(|motor| bench.view.granted(motor)), [None; 2], "{how:?}");
        let session = bench.view.session(SlotIndex(0)).expect("slot 0");
        assert_eq!((session.state, session.trip), (end, TripId::NONE), "{how:?}");
        for motor in [A, C] {
            assert_eq!(told(&bench, motor), (TripId::NONE, Some(reason), 0), "{how:?}");
        }

        // It is over for good.
        bench.rest(A);
        bench.rest(C);
        bench.beat(&mut writer);
        bench.take(&writer, A);
        bench.run(4 * TICK);
        assert_eq!(bench.view.granted(A), None, "{how:?}: the session that ended drives again");
        let next = bench.drive(1, &[A, C]);
        assert_eq!(bench.view.granted(A), Some(next.owner()), "{how:?}: no reset was needed");
        assert_eq!(trips(&bench), [], "{how:?}");
    }
}

/// Fails if the stop after an end at rest does less than any other: it is repeated until the drive proves it, and takes
/// the torque away where that is configured.
#[test]
fn the_stop_after_an_end_at_rest_is_repeated_until_it_is_proven() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let mut writer = rested(&mut bench, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(60 * MS);
    assert!(bench.sent_to(A).iter().filter(|frame| *frame == ZERO_VELOCITY).count() >= 3);
    assert_eq!(state(&bench, A), MotorState::Stopping, "what was seen before the stop proves nothing for it");
    for _ in 0..3 {
        bench.odrive_says(A, CLOSED_LOOP, 0.0);
    }
    assert_eq!(bench.sent_to(A).last().map(String::as_str), Some(TO_IDLE));
    bench.rest(A);
    assert_eq!(state(&bench, A), MotorState::Stopped);
    let still = *bench.events(EventKind::Standstill).last().expect("told");
    assert_eq!((still.trip, still.reason), (TripId::NONE, Some(Reason::ClosedByClient)));
    assert_eq!(trips(&bench), []);
}

/// Fails if a drive that does not prove the stop after an end at rest is escalated quietly.
#[test]
fn a_stop_that_has_to_escalate_is_a_trip_after_all() {
    for policy in [ResetPolicy::Auto, ResetPolicy::Manual] {
        let mut bench = Bench::new(policy);
        let mut writer = rested(&mut bench, &[A]);
        writer.close_at(Ending::Client, bench.now);
        bench.run(4 * TICK);
        assert_eq!(trips(&bench), [], "{policy:?}");
        bench.run(100 * MS);
        let [trip] = trips(&bench)[..] else { panic!("{policy:?}: one trip") };
        assert_eq!((trip.trip, trip.reason), (TripId(1), Some(Reason::ClosedByClient)));
        assert_eq!(trip.motors.iter().collect::<Vec<_>>(), [A]);
        assert!(trip.first_stop > Nanos::ZERO && trip.first_stop < trip.at);
        let [escalated] = bench.events(EventKind::Escalated)[..] else { panic!("{policy:?}: told") };
        assert_eq!(escalated.trip, trip.trip);
        let manual = u64::from(policy == ResetPolicy::Manual);
        assert_eq!(told(&bench, A), (trip.trip, Some(Reason::ClosedByClient), manual), "{policy:?}");
        bench.rest(A);
        assert_eq!(bench.core.reset(trip.trip.into(), bench.now).is_ok(), manual == 1);
        let next = bench.drive(1, &[A]);
        assert_eq!(bench.view.granted(A), Some(next.owner()));
    }
}

/// Fails if a motion frame that was under way when its session ended at rest is met as if nothing had happened.
#[test]
fn a_motion_frame_after_an_end_at_rest_makes_it_a_trip() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let mut writer = rested(&mut bench, &[A, B]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    bench.wire.sent.clear();
    bench.front_commands(A);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE, "answered at once");
    let [trip] = trips(&bench)[..] else { panic!("one trip") };
    assert_eq!(trip.motors.iter().collect::<Vec<_>>(), [A]);
    assert_eq!(told(&bench, A), (trip.trip, Some(Reason::ClosedByClient), 1));
    assert_eq!(told(&bench, B).0, TripId::NONE, "a motor of its own frame");
    bench.front_commands(A);
    assert_eq!(trips(&bench).len(), 1, "once");
    // At rest it is a violation like any other.
    bench.rest(B);
    bench.front_commands(B);
    assert_eq!(told(&bench, B), (TripId(trip.trip.0 + 1), Some(Reason::Violation), 1));
}

/// A way in which rest is not proven, and whether the session's end alone tells.
type Doubt = (&'static str, fn(&mut Bench) -> BeatWriter);

/// Fails if a session ends without a trip while anything is in doubt.
#[test]
fn in_doubt_an_end_is_a_trip() {
    let doubts: &[Doubt] = &[
        ("no feedback under this grant", |bench| bench.drive(0, &[A])),
        ("a motion frame after the proof", |bench| {
            let writer = rested(bench, &[A]);
            bench.front_commands(A);
            writer
        }),
        ("a frame that energises after the proof", |bench| {
            let writer = rested(bench, &[A]);
            let enable = Frame::classic(ArbitrationId::standard(0x67), &[8, 0, 0, 0, 0, 0, 0, 0]);
            bench.core.received(0, Origin::Local, &enable, bench.now, &mut bench.wire);
            writer
        }),
        ("a set-point that nobody understands after the proof", |bench| {
            let writer = rested(bench, &[A]);
            let odd = Frame::classic(ArbitrationId::standard(0x6D), &[0; 3]);
            bench.core.received(0, Origin::Local, &odd, bench.now, &mut bench.wire);
            writer
        }),
        ("too few readings since the last motion frame", |bench| {
            let writer = rested(bench, &[A]);
            bench.front_commands(A);
            bench.odrive_says(A, CLOSED_LOOP, 0.0);
            bench.odrive_says(A, CLOSED_LOOP, 0.0);
            writer
        }),
        ("it moves", |bench| {
            let writer = rested(bench, &[A]);
            bench.odrive_says(A, CLOSED_LOOP, 0.5);
            writer
        }),
        ("it has moved just now", |bench| {
            let writer = rested(bench, &[A]);
            bench.odrive_says(A, CLOSED_LOOP, 0.5);
            bench.odrive_says(A, CLOSED_LOOP, 0.0);
            bench.odrive_says(A, CLOSED_LOOP, 0.0);
            writer
        }),
        ("its speed is no number", |bench| {
            let writer = rested(bench, &[A]);
            bench.front_commands(A);
            for _ in 0..5 {
                bench.odrive_says(A, CLOSED_LOOP, f32::NAN);
            }
            writer
        }),
        ("it has moved, and no motion frame was heard", |bench| {
            let writer = bench.drive(0, &[A]);
            bench.odrive_says(A, CLOSED_LOOP, 1.0);
            for _ in 0..5 {
                bench.odrive_says(A, CLOSED_LOOP, 0.0);
            }
            writer
        }),
        ("the same, and a motion frame was heard only then", |bench| {
            let writer = bench.drive(0, &[A]);
            bench.odrive_says(A, CLOSED_LOOP, 1.0);
            bench.comes_to_rest(A);
            writer
        }),
        ("one of two motors moves", |bench| {
            let writer = rested(bench, &[A, B]);
            bench.odrive_says(B, CLOSED_LOOP, 0.5);
            writer
        }),
        ("one of two motors was never heard", |bench| {
            let writer = bench.drive(0, &[A, C]);
            bench.comes_to_rest(A);
            writer
        }),
        ("its drive reports a fault", |bench| {
            let writer = bench.drive(0, &[A]);
            bench.rest(A);
            let fault = Frame::classic(ArbitrationId::standard(0x61), &[1, 0, 0, 0, IDLE, 0, 0, 0]);
            bench.core.received(0, Origin::Wire, &fault, bench.now, &mut bench.wire);
            writer
        }),
        ("its drive is busy with itself", |bench| {
            let writer = bench.drive(0, &[A]);
            for _ in 0..5 {
                bench.odrive_says(A, FULL_CALIBRATION, 0.0);
            }
            writer
        }),
    ];
    for (doubt, begin) in doubts {
        for how in [Leaves::Says(Ending::Client), Leaves::Silent] {
            let mut bench = Bench::new(ResetPolicy::Manual);
            let mut writer = begin(&mut bench);
            ends(&mut bench, &mut writer, how);
            let [trip] = trips(&bench)[..] else { panic!("{doubt}, {how:?}: one trip") };
            assert_eq!(bench.events(EventKind::EndedAtRest), [], "{doubt}, {how:?}");
            let motors: Vec<_> = trip.motors.iter().collect();
            assert!(motors.contains(&A), "{doubt}, {how:?}: {motors:?}");
            for motor in motors {
                let (number, _, latched) = told(&bench, motor);
                assert_eq!((number, latched), (trip.trip, 1), "{doubt}, {how:?}");
            }
        }
    }
}

/// Fails if feedback that is old by now proves that a motor rests: a drive that has never been energised may be silent
/// for as long as it likes.
#[test]
fn stale_feedback_proves_no_rest() {
    for (age, is_trip) in [(450 * MS, false), (550 * MS, true)] {
        let mut bench = Bench::new(ResetPolicy::Manual);
        let mut writer = bench.beats.writer(SlotIndex(0)).expect("slot 0");
        writer.open_at(SessionId(1), Window::from_millis(5_000), bench.now);
        bench.take(&writer, A);
        bench.run(2 * TICK);
        assert_eq!(bench.view.granted(A), Some(writer.owner()));
        bench.rest(A);
        bench.run(age);
        writer.close_at(Ending::Client, bench.now);
        bench.run(2 * TICK);
        assert_eq!(trips(&bench).len(), usize::from(is_trip), "{} ms", age / MS);
        assert_eq!(bench.events(EventKind::EndedAtRest).len(), usize::from(!is_trip), "{} ms", age / MS);
    }
}

/// Fails if a motor that its session has never commanded counts as at rest without its drive's word, or not with it.
#[test]
fn a_motor_that_was_never_commanded_rests_by_its_drives_word() {
    for axis in [IDLE, CLOSED_LOOP] {
        let mut bench = Bench::new(ResetPolicy::Manual);
        let mut writer = bench.drive(0, &[C]);
        for _ in 0..3 {
            bench.odrive_says(C, axis, 0.0);
        }
        writer.close_at(Ending::Client, bench.now);
        bench.run(2 * TICK);
        assert_eq!(trips(&bench), [], "axis state {axis}");
        assert_eq!(bench.events(EventKind::EndedAtRest).len(), 1, "axis state {axis}");
    }
}

/// Fails if what the former session of a motor has commanded is forgotten when the motor changes hands as it runs.
#[test]
fn rest_is_proven_for_whoever_has_the_motor() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let mut first = bench.drive(0, &[A]);
    bench.front_commands(A);
    bench.odrive_says(A, CLOSED_LOOP, 1.0);
    let mut second = bench.drive(1, &[A]);
    bench.odrive_says(A, CLOSED_LOOP, 1.0);
    first.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), Some(second.owner()), "the first one's end is not the motor's");
    for _ in 0..3 {
        bench.odrive_says(A, CLOSED_LOOP, 0.0);
    }
    second.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    assert_eq!(trips(&bench), []);
    assert_eq!(bench.events(EventKind::EndedAtRest).len(), 1);
}

/// Something that goes wrong while a session's motor rests.
type Mishap = fn(&mut Bench, &mut BeatWriter);

/// Fails if a cause that is worth a look by itself is hidden by motors that happen to stand still.
#[test]
fn what_goes_wrong_at_rest_is_a_trip() {
    let at_rest = [Ending::Client, Ending::ClientLost, Ending::Overdue];
    for ending in Ending::ALL.into_iter().filter(|ending| !at_rest.contains(ending)) {
        let mut bench = Bench::new(ResetPolicy::Manual);
        let mut writer = rested(&mut bench, &[A]);
        writer.close_at(ending, bench.now);
        bench.run(2 * TICK);
        assert_eq!(told(&bench, A), (TripId(1), Some(ending.reason()), 1));
    }
    let others: [(Reason, Mishap); 7] = [
        (Reason::FrontDead, |bench, _| {
            bench.core.detach(Reason::FrontDead, bench.now, &mut bench.wire);
        }),
        (Reason::FrontSilent, |bench, _| {
            bench.front_beats(false);
            bench.run(101 * MS);
        }),
        (Reason::OperatorStop, |bench, _| {
            bench.core.estop(bench.now, &mut bench.wire);
        }),
        (Reason::Corrupt, |bench, writer| {
            bench.beats.take_motor(A, Owner { slot: SlotIndex(5), ..writer.owner() });
            bench.run(2 * TICK);
        }),
        (Reason::SelfOverrun, |bench, _| {
            bench.now = bench.now.after(TICK + 5 * TICK);
            bench.core.step(bench.now, &mut bench.wire);
        }),
        (Reason::BusFault, |bench, _| {
            bench.core.bus_health(0, BusHealth::Passive, bench.now, &mut bench.wire)
        }),
        (Reason::DriveFault, |bench, _| {
            let fault = Frame::classic(ArbitrationId::standard(0x61), &[1, 0, 0, 0, IDLE, 0, 0, 0]);
            bench.core.received(0, Origin::Wire, &fault, bench.now, &mut bench.wire);
        }),
    ];
    for (reason, happens) in others {
        let mut bench = Bench::new(ResetPolicy::Manual);
        let mut writer = rested(&mut bench, &[A]);
        happens(&mut bench, &mut writer);
        let [trip] = trips(&bench)[..] else { panic!("{reason:?}: one trip") };
        assert_eq!(trip.reason, Some(reason));
        assert_eq!(told(&bench, A), (trip.trip, Some(reason), 1));
    }
}

/// Beats that are not to be believed are no silence.
#[test]
fn corrupt_beats_at_rest_are_a_trip() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let mut writer = rested(&mut bench, &[A]);
    writer.beat_at(bench.now.after(60_000 * MS));
    bench.run(WINDOW.0);
    assert_eq!(told(&bench, A), (TripId(1), Some(Reason::Corrupt), 1));
}

const TWO_OF_ONE_FRAME: &str = r#"
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
[[motor]]
name = "b"
bus = "can0"
driver = "dji"
model = "c620"
id = 2
after_stop = "release"
max_rpm = 300
[[base]]
name = "base1"
left = ["a"]
right = ["b"]
wheel_circumference_mm = 500
width_mm = 400
"#;

/// Two controllers that one frame commands, proven at rest since the frame that last drove both.
fn two_of_one_frame() -> (Bench, BeatWriter) {
    let mut bench = Bench::of(TWO_OF_ONE_FRAME, 8, ResetPolicy::Manual);
    bench.core.start(bench.now, &mut bench.wire);
    for motor in [1, 2] {
        dji_says(&mut bench, motor, 0);
    }
    bench.run(4 * TICK);
    let writer = bench.drive(0, &[A, B]);
    joint_frame(&mut bench, [0, 100, 0, 100]);
    for motor in [1, 2] {
        dji_says(&mut bench, motor, 600);
        dji_says(&mut bench, motor, 0);
    }
    bench.wire.sent.clear();
    (bench, writer)
}

/// Twenty reports of a controller.
fn dji_says(bench: &mut Bench, id: u16, rpm: i16) {
    let [high, low] = rpm.to_be_bytes();
    let report = Frame::classic(ArbitrationId::standard(0x200 + id), &[0, 0, high, low, 0, 0, 30, 0]);
    for _ in 0..20 {
        bench.core.received(0, Origin::Wire, &report, bench.now, &mut bench.wire);
    }
}

/// The currents of both motors, as the front sends them.
fn joint_frame(bench: &mut Bench, currents: [u8; 4]) {
    let [a0, a1, b0, b1] = currents;
    let frame = Frame::classic(ArbitrationId::standard(0x200), &[a0, a1, b0, b1, 0, 0, 0, 0]);
    bench.core.received(0, Origin::Local, &frame, bench.now, &mut bench.wire);
}

/// Fails if a motor that one frame commands together with another is judged by itself.
#[test]
fn motors_of_one_frame_rest_together_or_not_at_all() {
    for (what, currents, rpm, is_trip) in [
        ("both rest", [0, 0, 0, 0], 0, false),
        ("one was commanded since", [0, 0, 0, 100], 0, true),
        ("one moves", [0, 0, 0, 0], 600, true),
    ] {
        let (mut bench, mut writer) = two_of_one_frame();
        joint_frame(&mut bench, currents);
        if rpm != 0 {
            dji_says(&mut bench, 2, rpm);
        }
        writer.close_at(Ending::Client, bench.now);
        bench.run(2 * TICK);
        let (number, _, latched) = told(&bench, A);
        assert_eq!(number, told(&bench, B).0, "{what}");
        assert_eq!((number != TripId::NONE, latched == 1), (is_trip, is_trip), "{what}");
        assert_eq!(trips(&bench).len(), usize::from(is_trip), "{what}");
        assert!(bench.wire.sent.iter().any(|(_, frame)| frame.to_string() == "200#0000000000000000"));
    }
}

/// Fails if of two motors of one frame only one belongs to the trip that their stop becomes.
#[test]
fn motors_of_one_frame_trip_together_when_their_stop_escalates() {
    let (mut bench, mut writer) = two_of_one_frame();
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    assert_eq!(trips(&bench), []);
    bench.run(100 * MS);
    let [trip] = trips(&bench)[..] else { panic!("one trip for both") };
    assert_eq!(trip.motors.iter().collect::<Vec<_>>(), [A, B]);
    for motor in [A, B] {
        assert_eq!(told(&bench, motor), (trip.trip, Some(Reason::ClosedByClient), 1));
        assert_eq!(state(&bench, motor), MotorState::Unverified);
    }
}

/// Fails if a bus that dies right at the end of a session at rest hides that the stop never got out.
#[test]
fn an_end_at_rest_whose_stop_does_not_get_out_becomes_a_trip() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let mut writer = rested(&mut bench, &[A]);
    bench.wire.failures.push((0, vec![supervisor::core::SendError::Down; 1_000].into()));
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    assert_eq!(bench.events(EventKind::EndedAtRest).len(), 1);
    bench.run(150 * MS);
    assert_eq!(told(&bench, A), (TripId(1), Some(Reason::ClosedByClient), 1));
    assert_eq!(trips(&bench).len(), 1);
}

/// Fails if a loop that comes too late to know what happened meanwhile takes old feedback for proof.
#[test]
fn a_late_supervisor_proves_no_rest() {
    let mut bench = Bench::new(ResetPolicy::Manual);
    let _writer = rested(&mut bench, &[A]);
    let deadline = bench.view.session(SlotIndex(0)).expect("slot 0").deadline;
    bench.run(deadline.since(bench.now) - 1);
    bench.odrive_says(A, CLOSED_LOOP, 0.0);
    bench.now = bench.now.after(6 * TICK);
    bench.front.beat_at(bench.now);
    bench.core.step(bench.now, &mut bench.wire);
    assert_eq!(told(&bench, A), (TripId(1), Some(Reason::Expired), 1));
    assert_eq!(bench.events(EventKind::EndedAtRest), []);
}

const ON_TWO_BUSES: &str = r#"
[[bus]]
name = "can0"
[[bus]]
name = "can1"
[[motor]]
name = "a"
bus = "can0"
second_bus = "can1"
driver = "odrive"
node = 3
firmware = "0.6"
after_stop = "hold"
max_rpm = 300
"#;

/// Fails if feedback that another bus brings proves rest after a motion frame that it may have been before.
#[test]
fn feedback_over_the_other_bus_proves_no_rest() {
    for (bus, is_trip) in [(0, false), (1, true)] {
        let mut bench = Bench::of(ON_TWO_BUSES, 8, ResetPolicy::Manual);
        bench.core.start(bench.now, &mut bench.wire);
        bench.rest(A);
        bench.run(4 * TICK);
        let mut writer = bench.drive(0, &[A]);
        bench.front_commands(A);
        for _ in 0..3 {
            let still = Frame::classic(ArbitrationId::standard(0x69), &[0; 8]);
            bench.core.received(bus, Origin::Wire, &still, bench.now, &mut bench.wire);
        }
        writer.close_at(Ending::Client, bench.now);
        bench.run(2 * TICK);
        assert_eq!(trips(&bench).len(), usize::from(is_trip), "bus {bus}");
    }
}
