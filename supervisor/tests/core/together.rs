//! Motors that have a frame in common: broadcasts, frames for several motors, heartbeats that permit; and motors
//! that two buses reach.

use std::time::Duration;

use drivers::{ArbitrationId, Drive, Frame, FrameList, Heartbeat, PollWhen, Slot};
use shm_proto::verdicts::{Counter, EventKind, MotorState, Reason, ResetPolicy};
use shm_proto::{Ending, MotorIndex};
use supervisor::core::{Arrival, Origin, SendError};

use crate::support::{A, B, Bench, C, MS, TICK};
use crate::{SET_VELOCITY_MODE, state};

/// An identifier no ODrive of the robot has.
const COMMON: ArbitrationId = ArbitrationId::Standard(0x7C0);

fn sent(bench: &Bench) -> Vec<String> {
    bench.wire.sent.iter().map(|(bus, frame)| format!("{bus}:{frame}")).collect()
}

fn sent_common(bench: &Bench) -> Vec<String> {
    sent(bench).into_iter().filter(|frame| frame.contains(":7C0#")).collect()
}

fn with_broadcast() -> Bench {
    let stop = Frame::classic(COMMON, &[0x81]);
    Bench::with_drives(ResetPolicy::Auto, |drive| drive.broadcast = Some(stop))
}

/// Fails if the one frame that stops all of them at once is not the first.
#[test]
fn a_trip_that_covers_a_family_on_a_bus_is_broadcast_first() {
    let mut bench = with_broadcast();
    let mut writer = bench.drive(0, &[A, B]);
    bench.wire.sent.clear();
    bench.run(TICK);
    let before = bench.view.counter(Counter::StopFrames);
    writer.close_at(Ending::Client, bench.now);
    bench.run_until_trip();
    bench.run(TICK);
    assert_eq!(bench.view.counter(Counter::StopFrames), before + 5, "the broadcast is one of them");
    let sent = sent(&bench);
    assert_eq!(sent[0], "0:7C0#81", "{sent:?}");
    assert_eq!(sent_common(&bench).len(), 1, "once, and not on the other bus: {sent:?}");
    assert_eq!(sent.len(), 5, "then each motor's own: {sent:?}");
}

/// Fails if the stop of one session reaches the motor of another.
#[test]
fn a_broadcast_never_reaches_another_sessions_motor() {
    let mut bench = with_broadcast();
    let mut writer = bench.drive(0, &[A]);
    let mut other = bench.drive(1, &[B]);
    bench.wire.sent.clear();
    writer.close_at(Ending::Client, bench.now);
    // Three stages of 100 ms.
    for _ in 0..70 {
        bench.beat(&mut other);
        bench.run(TICK);
    }
    assert_eq!(state(&bench, A), MotorState::Unverified);
    assert_eq!(sent_common(&bench), Vec::<String>::new());
    assert_eq!(bench.view.granted(B), Some(other.owner()));
}

/// Fails if a motor that nobody drives is taken for one that may be stopped along with others.
#[test]
fn nor_a_motor_that_is_nobodys() {
    let mut bench = with_broadcast();
    let mut writer = bench.drive(0, &[A]);
    bench.wire.sent.clear();
    writer.close_at(Ending::Client, bench.now);
    bench.run_until_trip();
    assert_eq!(sent_common(&bench), Vec::<String>::new());
}

#[test]
fn an_operators_stop_is_broadcast_on_every_bus_that_gains_by_it() {
    let mut bench = with_broadcast();
    bench.wire.sent.clear();
    bench.core.estop(bench.now, &mut bench.wire);
    // On the other bus there is only one motor.
    assert_eq!(sent_common(&bench), ["0:7C0#81"]);
}

/// Fails if drives of another family on the bus keep the broadcast from going out: it does not reach them.
#[test]
fn other_families_on_the_bus_do_not_matter() {
    let robot = r#"
[[bus]]
name = "can0"
[[bus]]
name = "can1"
[[motor]]
name = "a"
bus = "can0"
driver = "rmd"
id = 1
after_stop = "hold"
max_rpm = 100
[[motor]]
name = "b"
bus = "can0"
driver = "rmd"
id = 2
after_stop = "hold"
max_rpm = 100
[[motor]]
name = "c"
bus = "can0"
driver = "odrive"
node = 30
firmware = "0.6"
after_stop = "hold"
max_rpm = 100
"#;
    let mut bench = Bench::of(robot, 8, ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    let broadcasts = sent(&bench).into_iter().filter(|frame| frame.starts_with("0:280#81"));
    assert_eq!(broadcasts.count(), 1, "{:?}", sent(&bench));
}

/// Fails if a front that looks at its grant after sending may still find it once the broadcast is out.
#[test]
fn grants_go_before_the_broadcast() {
    let mut bench = with_broadcast();
    bench.drive(0, &[A, B]);
    bench.wire.on_send = Some((bench.view.clone(), Vec::new()));
    bench.core.estop(bench.now, &mut bench.wire);
    let (_, granted) = bench.wire.on_send.take().expect("put there");
    assert!(!granted[0], "granted while the broadcast went out");
}

fn with_slots() -> Bench {
    Bench::with_drives(ResetPolicy::Auto, |drive| {
        drive.slot = Some(Slot::of_bytes(COMMON, 0, 2));
    })
}

/// Fails if two sessions may drive what one frame commands.
#[test]
fn motors_of_one_frame_follow_one_session() {
    let mut bench = with_slots();
    let mut writer = bench.drive(0, &[A]);
    let mut other = bench.open(1);
    bench.take(&other, B);
    for _ in 0..4 {
        bench.beat(&mut writer);
        bench.beat(&mut other);
        bench.run(TICK);
    }
    assert_eq!(bench.view.granted(B), None, "the other session has its own frame only");
    bench.take(&writer, B);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(B), Some(writer.owner()));
    // Taken over as a whole.
    bench.take(&other, A);
    bench.take(&other, B);
    bench.run(2 * TICK);
    assert_eq!([A, B].map(|motor| bench.view.granted(motor)), [Some(other.owner()); 2]);
    // On the other bus the same identifier is another frame.
    bench.take(&writer, C);
    bench.beat(&mut writer);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(C), Some(writer.owner()));
}

/// Fails if two sessions get what one frame commands because the one that had it ends: they are stopped with it then.
#[test]
fn motors_of_one_frame_go_to_one_session_when_theirs_ends() {
    for takes_both in [true, false] {
        let mut bench = with_slots();
        let mut writer = bench.drive(0, &[A, B]);
        let (mut second, mut third) = (bench.open(1), bench.open(2));
        for _ in 0..8 {
            for session in [&mut writer, &mut second, &mut third] {
                bench.beat(session);
            }
            bench.run(TICK);
        }
        bench.take(&second, A);
        bench.take(if takes_both { &second } else { &third }, B);
        writer.close_at(Ending::Client, bench.now);
        bench.run(2 * TICK);
        let granted = [A, B].map(|motor| bench.view.granted(motor));
        if takes_both {
            assert_eq!(granted, [Some(second.owner()); 2]);
        } else {
            assert_eq!(granted, [None; 2]);
            assert_eq!([A, B].map(|motor| state(&bench, motor)), [MotorState::Stopping; 2]);
        }
    }
}

/// Fails if a motor goes on being driven in a frame whose other motor is being stopped, or is granted again
/// before that one is at rest.
#[test]
fn motors_of_one_frame_are_stopped_together() {
    let mut bench = with_slots();
    let mut writer = bench.drive(0, &[A, B]);
    // An owner word that names nobody.
    bench.beats.take_motor(A, shm_proto::Owner { slot: shm_proto::SlotIndex(5), ..writer.owner() });
    bench.run(2 * TICK);
    assert_eq!([A, B].map(|motor| state(&bench, motor)), [MotorState::Stopping; 2]);
    let trips = bench.events(EventKind::Trip);
    assert_eq!(trips.len(), 1);
    assert_eq!(trips[0].motors.iter().collect::<Vec<_>>(), [A, B]);
    bench.rest(B);
    bench.beat(&mut writer);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(B), None, "its mate is still being stopped");
    bench.rest(A);
    bench.beat(&mut writer);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(B), Some(writer.owner()));
}

/// The first motor's drive needs bit 0, the second's bit 1, and so on by node.
fn with_permits() -> Bench {
    Bench::with_drives(ResetPolicy::Auto, |drive: &mut Drive| {
        let node = drive.owns.iter().map(|id| format!("{id}")).min().expect("it has ids");
        let bit = if node == "060" { 1 } else { 2 };
        drive.heartbeat = Some(Heartbeat {
            frame: Frame::classic(COMMON, &[0; 8]),
            mark: [bit, 0, 0, 0, 0, 0, 0, 0],
            window: Duration::from_millis(100),
        });
    })
}

fn last_permits(bench: &Bench) -> Option<String> {
    sent_common(bench).into_iter().rfind(|frame| frame.starts_with("0:"))
}

/// Fails if a drive may run that nobody drives, or that is granted and may not.
#[test]
fn the_heartbeat_permits_those_that_are_granted() {
    let mut bench = with_permits();
    bench.run(70 * MS);
    assert_eq!(last_permits(&bench).as_deref(), Some("0:7C0#0000000000000000"));
    let mut writer = bench.drive(0, &[A]);
    bench.run(70 * MS);
    assert_eq!(last_permits(&bench).as_deref(), Some("0:7C0#0100000000000000"));
    let other = bench.drive(1, &[B]);
    bench.beat(&mut writer);
    bench.run(70 * MS);
    assert_eq!(last_permits(&bench).as_deref(), Some("0:7C0#0300000000000000"));
    drop(other);
}

/// Fails if the ramp of a stop loses its torque, if a drive keeps its permission beyond, or if the end of one
/// session's permission takes away another's.
#[test]
fn a_permission_ends_with_the_stage_that_takes_the_torque_away() {
    let mut bench = with_permits();
    let mut writer = bench.drive(0, &[A]);
    let mut other = bench.drive(1, &[B]);
    bench.wire.sent.clear();
    writer.close_at(Ending::Client, bench.now);
    bench.run_until_trip();
    assert_eq!(sent_common(&bench), ["0:7C0#0300000000000000"], "told at once, and the ramp has its torque");
    for _ in 0..3 {
        bench.odrive_says(A, 8, 0.0);
    }
    assert_eq!(last_permits(&bench).as_deref(), Some("0:7C0#0200000000000000"), "told at once");
    bench.rest(A);
    for _ in 0..14 {
        bench.beat(&mut other);
        bench.run(TICK);
    }
    assert_eq!(last_permits(&bench).as_deref(), Some("0:7C0#0200000000000000"));
    bench.core.estop(bench.now, &mut bench.wire);
    bench.rest(B);
    bench.run(70 * MS);
    assert_eq!(last_permits(&bench).as_deref(), Some("0:7C0#0000000000000000"));
}

/// Fails if a drive is energised by the stop that a start begins with.
#[test]
fn nobody_is_permitted_by_the_stop_at_the_start() {
    let mut bench = with_permits();
    bench.core.estop(bench.now, &mut bench.wire);
    bench.run(70 * MS);
    assert!(sent_common(&bench).iter().all(|frame| frame.ends_with("#0000000000000000")));
}

const TWO_BUSES: &str = r#"
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
after_stop = "release"
max_rpm = 300
[[motor]]
name = "b"
bus = "can0"
driver = "odrive"
node = 4
firmware = "0.6"
after_stop = "release"
max_rpm = 300
"#;

fn on_two_buses() -> Bench {
    let mut bench = Bench::of(TWO_BUSES, 8, ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    bench.rest(A);
    bench.rest(B);
    bench.run(40 * TICK);
    bench.wire.sent.clear();
    bench
}

fn stops_on(bench: &Bench, bus: usize) -> usize {
    let stop = format!("{bus}:{SET_VELOCITY_MODE}");
    sent(bench).iter().filter(|frame| **frame == stop).count()
}

/// Fails if a stop goes to one of the two only.
#[test]
fn a_stop_goes_to_both_buses() {
    let mut bench = on_two_buses();
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run_until_trip();
    assert_eq!([0, 1].map(|bus| stops_on(&bench, bus)), [1, 1]);
}

/// Fails if a bus that refuses frames, or is down, keeps the other from getting them in time.
#[test]
fn a_failing_bus_does_not_delay_the_other() {
    for error in [SendError::QueueFull, SendError::Down] {
        let mut bench = on_two_buses();
        let mut writer = bench.drive(0, &[A]);
        bench.wire.failures.push((0, [error; 400].into()));
        writer.close_at(Ending::Client, bench.now);
        bench.run_until_trip();
        assert_eq!([0, 1].map(|bus| stops_on(&bench, bus)), [0, 1], "{error:?}");
        let first = bench.view.motor(A).expect("it exists").first_stop;
        assert!(first.0 > 0, "{error:?}: it was stopped");
        // Its feedback comes over the bus that works.
        for axis_state in [8, 8, 8, 1, 1, 1] {
            for (command, payload) in [(1, [0, 0, 0, 0, axis_state, 0, 0, 0]), (9, [0; 8])] {
                let frame = Frame::classic(ArbitrationId::standard(3 << 5 | command), &payload);
                bench.core.received(1, Origin::Wire, &frame, bench.now.max(bench.wire.now), &mut bench.wire);
            }
        }
        assert_eq!(state(&bench, A), MotorState::Stopped, "{error:?}");
    }
}

/// Fails if a bus that is never seen empty, so that all it brings may be old, takes back what the other one has brought.
#[test]
fn a_bus_that_is_flooded_makes_no_word_of_the_other_old() {
    let mut bench = on_two_buses();
    let mut writer = bench.drive(0, &[A]);
    let flooded_since = bench.now;
    for _ in 0..100 {
        bench.beat(&mut writer);
        bench.odrive_says(A, 8, 1.0);
        bench.front_commands(A);
        for (command, payload) in [(1, [0, 0, 0, 0, 8, 0, 0, 0]), (9, [0, 0, 0, 0, 0, 0, 0x80, 0x3F])] {
            let frame = Frame::classic(ArbitrationId::standard(3 << 5 | command), &payload);
            let arrival = Arrival { earliest: flooded_since, now: bench.now };
            bench.core.received(1, Origin::Wire, &frame, arrival, &mut bench.wire);
        }
        bench.run(2 * TICK);
    }
    assert_eq!(state(&bench, A), MotorState::Granted);
    assert_eq!(bench.events(EventKind::Trip), []);
}

/// Fails if a bus that is known to be down has the stop repeated on the other on every tick.
#[test]
fn a_bus_that_is_down_does_not_hurry_the_other() {
    let mut bench = on_two_buses();
    bench.wire.failures.push((0, [SendError::Down; 400].into()));
    bench.core.estop(bench.now, &mut bench.wire);
    bench.run(TICK);
    bench.wire.sent.clear();
    bench.run(100 * MS);
    let repeats = stops_on(&bench, 1);
    assert!((4..=6).contains(&repeats), "{repeats} repeats in 100 ms, of one in 20 ms");
}

/// Fails if the loss of either bus is no reason to stop who drives a motor on both.
#[test]
fn the_fault_of_either_bus_stops_the_motor_on_both() {
    for broken in [0, 1] {
        let mut bench = on_two_buses();
        bench.drive(0, &[A]);
        bench.wire.sent.clear();
        bench.core.bus_down(broken, libc::ENETDOWN, bench.now, &mut bench.wire);
        let trips = bench.events(EventKind::Trip);
        assert_eq!(trips.iter().map(|trip| trip.reason).collect::<Vec<_>>(), [Some(Reason::BusFault)]);
        assert_eq!(stops_on(&bench, 1 - broken), 1, "over the bus that works");
    }
}

const POLL: Frame = Frame::classic(ArbitrationId::Standard(0x7C1), &[0x9C]);

/// Fails if a drive whose polls feed its own watchdog is asked while it reports, or if a silent one is not.
#[test]
fn polls_that_feed_a_watchdog_are_for_silent_drives() {
    let mut bench = Bench::with_drives(ResetPolicy::Auto, |drive| {
        drive.poll = FrameList::new(&[POLL]);
        drive.poll_when = PollWhen::WhenSilent;
    });
    let polls = |bench: &Bench| bench.wire.sent.iter().filter(|(_, frame)| *frame == POLL).count();
    let mut writer = bench.drive(0, &[A]);
    bench.odrive_says(A, 8, 2.0);
    bench.rest(B);
    bench.rest(C);
    bench.wire.sent.clear();
    for _ in 0..40 {
        for motor in [A, B, C] {
            bench.odrive_says(motor, if motor == MotorIndex(0) { 8 } else { 1 }, 0.0);
        }
        bench.beat(&mut writer);
        bench.run(TICK);
    }
    assert_eq!(polls(&bench), 0, "every drive reports by itself");
    for _ in 0..60 {
        for motor in [B, C] {
            bench.odrive_says(motor, 1, 0.0);
        }
        bench.beat(&mut writer);
        bench.run(TICK);
    }
    // From 250 ms on, every eighth tick, until 300 ms.
    assert!((1..=2).contains(&polls(&bench)), "{} polls", polls(&bench));
    assert_eq!(bench.events(EventKind::Trip), []);
}
