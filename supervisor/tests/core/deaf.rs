//! CANopen drives that another master makes deaf, and the sign of life that must not keep running what nothing stops.

use drivers::{ArbitrationId, Frame};
use shm_proto::verdicts::{EventKind, MotorState, Reason, ResetPolicy};
use shm_proto::{BeatWriter, MotorIndex};
use supervisor::core::Origin;

use crate::support::{Bench, MS, TICK};

const LEFT: MotorIndex = MotorIndex(0);
const RIGHT: MotorIndex = MotorIndex(1);

fn robot(after: &str) -> String {
    let motor = |name: &str, node: u8| {
        format!(
            "[[motor]]\nname = \"{name}\"\nbus = \"can0\"\ndriver = \"cia402\"\nnode = {node}\n\
             counts_per_rev = 1000\nafter_stop = \"{after}\"\nmax_rpm = 300\n"
        )
    };
    let buses = "[[bus]]\nname = \"can0\"\n[[bus]]\nname = \"can1\"\n";
    format!("{buses}{}{}", motor("left", 5), motor("right", 6))
}

fn started(after: &str) -> Bench {
    let mut bench = Bench::of(&robot(after), 8, ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    for motor in [LEFT, RIGHT] {
        says(&mut bench, motor, OFF, 0);
    }
    bench
}

/// Statusword *switch on disabled*, and *operation enabled*.
const OFF: u16 = 0x0040;
const ENABLED: u16 = 0x0027;

/// The answers of a drive to both questions, often enough for a proof.
fn says(bench: &mut Bench, motor: MotorIndex, statusword: u16, velocity: i32) {
    let id = ArbitrationId::standard(0x585 + motor.0);
    let [s0, s1] = statusword.to_le_bytes();
    let [v0, v1, v2, v3] = velocity.to_le_bytes();
    for _ in 0..6 {
        for answer in [[0x4B, 0x41, 0x60, 0, s0, s1, 0, 0], [0x43, 0x6C, 0x60, 0, v0, v1, v2, v3]] {
            bench.core.received(0, Origin::Wire, &Frame::classic(id, &answer), bench.now, &mut bench.wire);
        }
    }
}

fn state(bench: &Bench, motor: MotorIndex) -> MotorState {
    bench.view.motor(motor).expect("the motor exists").state
}

/// Moves time on while both say that, and the session beats.
fn pass(
    bench: &mut Bench,
    session: &mut BeatWriter,
    nanos: u64,
    left: Option<(u16, i32)>,
    right: (u16, i32),
) {
    for _ in 0..nanos / (10 * MS) {
        bench.beat(session);
        bench.run(10 * MS);
        if let Some((statusword, velocity)) = left {
            says(bench, LEFT, statusword, velocity);
        }
        says(bench, RIGHT, right.0, right.1);
    }
}

fn sent(bench: &Bench, wanted: &str) -> usize {
    bench.wire.sent.iter().filter(|(_, frame)| frame.to_string().starts_with(wanted)).count()
}

/// Another master's command to the network's management.
fn nmt(bench: &mut Bench, command: u8, node: u8) {
    let frame = Frame::classic(ArbitrationId::standard(0), &[command, node]);
    bench.core.received(0, Origin::Wire, &frame, bench.now, &mut bench.wire);
}

#[test]
fn a_driven_drive_that_is_made_deaf_is_woken_and_stopped_at_once() {
    for (command, node) in [(0x02, 5), (0x81, 5), (0x82, 5), (0x02, 0), (0x81, 0)] {
        let mut bench = started("hold");
        let mut session = bench.drive(0, &[LEFT]);
        pass(&mut bench, &mut session, 100 * MS, Some((ENABLED, 2_000)), (OFF, 0));
        bench.wire.sent.clear();
        nmt(&mut bench, command, node);
        let frames: Vec<String> = bench.wire.sent.iter().map(|(_, frame)| frame.to_string()).collect();
        assert_eq!(frames, ["000#0105", "605#2B40600002000000"], "{command:02x} {node}");
        let trip = bench.events(EventKind::Trip).pop().expect("a trip");
        assert_eq!(trip.reason, Some(Reason::MadeDeaf));
    }
}

#[test]
fn what_is_meant_for_others_or_leaves_it_hearing_is_no_reason() {
    // Another node; start and pre-operational, in which SDO goes on.
    for (command, node) in [(0x02, 6), (0x01, 5), (0x80, 5), (0x01, 0)] {
        let mut bench = started("hold");
        bench.drive(0, &[LEFT]);
        nmt(&mut bench, command, node);
        assert_eq!(state(&bench, LEFT), MotorState::Granted, "{command:02x} {node}");
    }
}

#[test]
fn a_drive_that_was_made_deaf_at_rest_is_woken_between_questions() {
    let mut bench = started("hold");
    nmt(&mut bench, 0x02, 5);
    bench.wire.sent.clear();
    bench.run(200 * MS);
    assert!(sent(&bench, "000#0105") > 0, "{:?}", bench.wire.sent);
    assert_eq!(sent(&bench, "000#0106"), 0, "the other one hears");
    says(&mut bench, LEFT, OFF, 0);
    bench.wire.sent.clear();
    bench.run(200 * MS);
    assert_eq!(sent(&bench, "000#0105"), 0, "it answers again");
}

#[test]
fn the_stop_of_a_silent_drive_begins_with_its_wakening() {
    let mut bench = started("hold");
    let mut session = bench.drive(0, &[LEFT]);
    pass(&mut bench, &mut session, 100 * MS, Some((ENABLED, 2_000)), (OFF, 0));
    bench.wire.sent.clear();
    pass(&mut bench, &mut session, 600 * MS, None, (OFF, 0));
    let stops: Vec<usize> = positions(&bench, "605#2B4060");
    let wakes: Vec<usize> = positions(&bench, "000#0105");
    assert!(!stops.is_empty() && stops.len() == wakes.len(), "{stops:?} {wakes:?}");
    assert!(stops.iter().zip(&wakes).all(|(stop, wake)| stop == &(wake + 1)), "{stops:?} {wakes:?}");
}

fn positions(bench: &Bench, wanted: &str) -> Vec<usize> {
    let frames = bench.wire.sent.iter().enumerate();
    frames.filter(|(_, (_, frame))| frame.to_string().starts_with(wanted)).map(|(place, _)| place).collect()
}

/// The supervisor's sign of life, node 127.
const SIGN: &str = "77F#05";

#[test]
fn the_sign_of_life_ends_when_a_motor_is_beyond_its_last_stage() {
    let mut bench = started("release");
    let mut session = bench.drive(0, &[LEFT, RIGHT]);
    pass(&mut bench, &mut session, 100 * MS, Some((ENABLED, 2_000)), (ENABLED, 2_000));
    // It obeys nothing, and says so.
    drop(session);
    let mut other = bench.open(1);
    let mut withdrawn = 0;
    for _ in 0..100 {
        let beyond = state(&bench, LEFT) == MotorState::Unverified;
        let right_rests = matches!(state(&bench, RIGHT), MotorState::Stopped | MotorState::Idle);
        bench.wire.sent.clear();
        let right = if state(&bench, RIGHT) == MotorState::Granted { (ENABLED, 2_000) } else { (OFF, 0) };
        pass(&mut bench, &mut other, 100 * MS, Some((ENABLED, 2_000)), right);
        if beyond && right_rests {
            withdrawn += 1;
            assert_eq!(sent(&bench, SIGN), 0, "it feeds the watchdog of a drive that nothing stops");
        }
    }
    assert!(withdrawn > 10, "never beyond its last stage");
    assert_eq!(bench.events(EventKind::HeartbeatWithdrawn).len(), 1);
    // Nothing that hears it may be driven without it.
    bench.take(&other, RIGHT);
    pass(&mut bench, &mut other, 100 * MS, Some((ENABLED, 2_000)), (OFF, 0));
    assert_eq!(bench.view.granted(RIGHT), None);
    // Its own watchdog has stopped it.
    pass(&mut bench, &mut other, 100 * MS, Some((OFF, 0)), (OFF, 0));
    bench.wire.sent.clear();
    pass(&mut bench, &mut other, 200 * MS, Some((OFF, 0)), (OFF, 0));
    assert!(sent(&bench, SIGN) > 0, "nothing keeps it from speaking again");
    assert_eq!(bench.view.granted(RIGHT), Some(other.owner()));
}

#[test]
fn others_that_hear_the_sign_of_life_are_stopped_before_it_ends() {
    let mut bench = started("release");
    let mut left = bench.drive(0, &[LEFT]);
    let mut right = bench.drive(1, &[RIGHT]);
    let both = |bench: &mut Bench, left: &mut BeatWriter, right: &mut BeatWriter, speed| {
        bench.beat(left);
        bench.beat(right);
        bench.run(2 * TICK);
        says(bench, LEFT, ENABLED, 2_000);
        says(bench, RIGHT, speed, if speed == ENABLED { 2_000 } else { 0 });
    };
    (0..10).for_each(|_| both(&mut bench, &mut left, &mut right, ENABLED));
    left.close_at(shm_proto::Ending::Client, bench.now);
    let mut silent_from = None;
    for round in 0..100 {
        bench.wire.sent.clear();
        let driven = state(&bench, RIGHT) == MotorState::Granted;
        both(&mut bench, &mut right, &mut left, if driven { ENABLED } else { OFF });
        if sent(&bench, SIGN) > 0 {
            silent_from = None;
        } else {
            silent_from.get_or_insert(round);
        }
    }
    let trips: Vec<_> = bench.events(EventKind::Trip).iter().filter_map(|trip| trip.reason).collect();
    assert_eq!(trips, [Reason::ClosedByClient, Reason::HeartbeatWithdrawn]);
    assert!(silent_from.is_some_and(|round| round < 60), "{silent_from:?}");
    assert_ne!(state(&bench, RIGHT), MotorState::Granted);
}

#[test]
fn the_sign_of_life_is_never_withdrawn_from_an_axis_that_is_to_hold() {
    let mut bench = started("hold");
    let mut session = bench.drive(0, &[LEFT]);
    pass(&mut bench, &mut session, 100 * MS, Some((ENABLED, 2_000)), (OFF, 0));
    drop(session);
    let mut other = bench.open(1);
    pass(&mut bench, &mut other, 1_000 * MS, Some((ENABLED, 2_000)), (OFF, 0));
    assert_eq!(state(&bench, LEFT), MotorState::Unverified);
    bench.wire.sent.clear();
    pass(&mut bench, &mut other, 200 * MS, Some((ENABLED, 2_000)), (OFF, 0));
    assert!(sent(&bench, SIGN) > 0, "the other axis would fall");
    assert_eq!(bench.events(EventKind::HeartbeatWithdrawn), []);
}
