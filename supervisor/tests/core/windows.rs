//! The longest silence that a motor may be driven through: the configuration sets it, not the front.

use shm_proto::verdicts::{EventKind, Reason, ResetPolicy};
use shm_proto::{MotorIndex, Nanos, SlotIndex};

use crate::support::{A, Bench, C, MS, ROBOT, TICK, WINDOW};

/// What motor a allows: a quarter of what every session here is opened with.
const SHORT: u64 = WINDOW.0 / 4;

/// The robot whose motor a allows 50 ms.
fn strict() -> Bench {
    let robot = ROBOT.replacen("name = \"a\"\n", "name = \"a\"\nmax_window = \"50ms\"\n", 1);
    assert_ne!(robot, ROBOT);
    Bench::of(&robot, 8, ResetPolicy::Auto).at_rest()
}

fn deadline(bench: &Bench, slot: u16) -> Nanos {
    bench.view.session(SlotIndex(slot)).expect("the slot exists").deadline
}

/// Keeps drives heard while time passes.
fn pass(bench: &mut Bench, motors: &[MotorIndex], until: Nanos) {
    while bench.now < until {
        motors.iter().for_each(|motor| bench.odrive_says(*motor, 8, 1.0));
        bench.run(until.since(bench.now).min(4 * TICK));
    }
}

/// Fails if the front's word makes the supervisor wait for longer than the configuration allows.
#[test]
fn a_window_that_is_too_long_is_cut() {
    let mut bench = strict();
    let mut writer = bench.drive(0, &[A]);
    bench.beat(&mut writer);
    let last_beat = bench.now;
    pass(&mut bench, &[A], last_beat.after(SHORT - 1));
    assert_eq!(bench.view.granted(A), Some(writer.owner()), "not a moment before");
    bench.run(TICK);
    assert_eq!(bench.view.granted(A), None);
    let [trip] = bench.events(EventKind::Trip)[..] else { panic!("one trip") };
    assert_eq!((trip.reason, trip.deadline), (Some(Reason::Expired), last_beat.after(SHORT)));
}

/// Fails if a beat gives the session its own window again, or if what is published is not what holds.
#[test]
fn it_holds_for_every_beat_and_is_told() {
    let mut bench = strict();
    let mut writer = bench.drive(0, &[A]);
    for _ in 0..5 {
        bench.beat(&mut writer);
        let beat = bench.now;
        pass(&mut bench, &[A], beat.after(SHORT - MS));
        assert_eq!(deadline(&bench, 0), beat.after(SHORT));
        assert_eq!(bench.view.session(SlotIndex(0)).expect("a session").window, SHORT);
    }
}

/// Fails if a motor without such a limit, or a session that never had one with it, is cut short as well.
#[test]
fn others_keep_their_own_windows() {
    let mut bench = strict();
    let writer = bench.drive(1, &[C]);
    let opened = bench.view.session(SlotIndex(1)).expect("a session").last_beat;
    pass(&mut bench, &[C], opened.after(WINDOW.0 - MS));
    assert_eq!(bench.view.granted(C), Some(writer.owner()));
}

/// Fails if a session that has been silent for too long gets a motor at rest, to be tripped at once.
#[test]
fn a_silent_session_waits_for_its_next_beat() {
    let mut bench = strict();
    let mut silent = bench.open(0);
    let opened = bench.now;
    while bench.now < opened.after(2 * SHORT) {
        bench.odrive_says(A, 1, 0.0);
        bench.run(4 * TICK);
    }
    bench.take(&silent, A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), None);
    bench.beat(&mut silent);
    bench.odrive_says(A, 1, 0.0);
    // Rings are looked into in turn.
    bench.run(4 * TICK);
    assert_eq!(bench.view.granted(A), Some(silent.owner()));
    assert_eq!(bench.events(EventKind::Trip).len(), 0);
}

/// Fails if a motor runs on by the command of a session whose place another one has taken that is not heard.
#[test]
fn a_silent_session_that_takes_a_driven_motor_stops_it() {
    let mut bench = strict();
    let silent = bench.open(0);
    let opened = bench.now;
    let mut holder = bench.drive(1, &[A]);
    while bench.now < opened.after(2 * SHORT) {
        bench.beat(&mut holder);
        bench.odrive_says(A, 8, 1.0);
        bench.run(4 * TICK);
    }
    bench.take(&silent, A);
    bench.beat(&mut holder);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), None);
    let [trip] = bench.events(EventKind::Trip)[..] else { panic!("one trip") };
    assert_eq!(trip.reason, Some(Reason::Overdue));
}
