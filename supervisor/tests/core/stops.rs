//! The stop of a motor: stages, proof, refused frames, buses that fail, and who fights it.

use drivers::{ArbitrationId, Frame};
use shm_proto::verdicts::{BusHealth, Counter, EventKind, MotorState, Reason, ResetPolicy, SessionState};
use shm_proto::{Ending, Nanos, SlotIndex};
use supervisor::core::{Origin, Report, SendError};

use crate::support::{A, B, Bench, C, MS, TICK, WINDOW};
use crate::{SET_VELOCITY_MODE, TO_IDLE, ZERO_VELOCITY, state};

#[test]
fn a_stage_is_repeated_until_proof_then_torque_is_taken() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(50 * MS);
    assert!(bench.sent_to(A).len() >= 4, "repeated: {:?}", bench.sent_to(A));
    assert!(!bench.sent_to(A).iter().any(|frame| frame == TO_IDLE));
    for _ in 0..3 {
        bench.odrive_says(A, 8, 0.0);
    }
    assert_eq!(bench.sent_to(A).last().map(String::as_str), Some(TO_IDLE), "released at standstill");
    assert_eq!(state(&bench, A), MotorState::Stopping, "torque-off has its own proof");
    bench.odrive_says(A, 1, 0.0);
    assert_eq!(state(&bench, A), MotorState::Stopping, "what was seen before a stage proves nothing for it");
    for _ in 0..2 {
        bench.odrive_says(A, 1, 0.0);
    }
    assert_eq!(state(&bench, A), MotorState::Stopped);
    let verdict = bench.view.motor(A).expect("motor a");
    assert!(verdict.standstill >= verdict.first_stop && verdict.first_stop > Nanos::ZERO);
}

#[test]
fn a_held_motor_keeps_its_torque_and_is_watched() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[C]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    for _ in 0..3 {
        bench.odrive_says(C, 8, 0.0);
    }
    assert_eq!(state(&bench, C), MotorState::Stopped);
    bench.wire.sent.clear();
    bench.run(10 * TICK);
    assert_eq!(bench.sent_to(C), Vec::<String>::new(), "proven: no more frames");
    bench.odrive_says(C, 8, 2.0);
    assert_eq!(state(&bench, C), MotorState::Stopping, "it moves under torque: stop again");
    assert_eq!(bench.sent_to(C)[0], SET_VELOCITY_MODE);
}

#[test]
fn a_drive_that_ignores_a_stage_gets_the_next_and_silence_is_never_proof() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    for _ in 0..25 {
        bench.odrive_says(A, 8, 3.0);
        bench.run(TICK);
    }
    assert!(bench.sent_to(A).iter().any(|frame| frame == TO_IDLE), "escalated: {:?}", bench.sent_to(A));
    assert_eq!(bench.events(EventKind::Escalated).len(), 1);
    bench.run(400 * MS);
    assert_eq!(state(&bench, A), MotorState::Unverified, "nothing was heard: nothing is proven");
    let so_far = bench.sent_to(A).len();
    bench.run(100 * MS);
    assert!(bench.sent_to(A).len() > so_far, "the last stage goes on");
    let writer = bench.open(1);
    bench.take(&writer, A);
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), None, "an unverified motor is nobody's");
    bench.rest(A);
    assert_eq!(state(&bench, A), MotorState::Stopped, "late proof is proof");
}

#[test]
fn a_full_queue_is_tried_again_on_the_next_tick() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    bench.wire.failures.push((0, [SendError::QueueFull, SendError::QueueFull].into()));
    writer.close_at(Ending::Client, bench.now);
    bench.run_until_trip();
    assert_eq!(bench.sent_to(A), Vec::<String>::new(), "both frames were refused");
    bench.run(TICK);
    assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY], "not only after the repeat time");
    assert_eq!(bench.view.counter(Counter::SendErrors), 2);
}

/// Fails if a motor that happens to stand still counts as stopped while its stop has not even been sent: frames that
/// were queued before may still set it in motion.
#[test]
fn standing_still_proves_nothing_before_a_stop_was_handed_over() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[C]);
    bench.wire.failures.push((1, vec![SendError::QueueFull; 2].into()));
    writer.close_at(Ending::Client, bench.now);
    while bench.events(EventKind::Trip).is_empty() {
        bench.run(MS / 10);
    }
    for _ in 0..5 {
        bench.odrive_says(C, 8, 0.0);
    }
    assert_eq!(state(&bench, C), MotorState::Stopping, "no stop frame was taken yet");
    bench.run(TICK);
    for _ in 0..3 {
        bench.odrive_says(C, 8, 0.0);
    }
    assert_eq!(state(&bench, C), MotorState::Stopped);
}

#[test]
fn a_dead_bus_trips_its_sessions_and_never_delays_the_other() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _writer = bench.drive(0, &[A, C]);
    bench.wire.failures.push((0, vec![SendError::Down; 1_000].into()));
    bench.core.bus_down(0, libc_enetdown(), bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(C)[0], SET_VELOCITY_MODE, "the session's motor on the good bus stops too");
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::BusFault));
    bench.run(600 * MS);
    assert_eq!(state(&bench, A), MotorState::Unverified);
    bench.wire.failures.clear();
    bench.core.bus_up(0, bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE, "from the gentlest stage on");
}

fn libc_enetdown() -> i32 {
    SendError::Down.errno()
}

#[test]
fn the_guard_answers_motion_for_a_motor_that_is_nobodys() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let motion =
        drivers::Frame::classic(drivers::ArbitrationId::standard(0x6D), &[0, 0, 128, 63, 0, 0, 0, 0]);
    bench.core.received(0, Origin::Wire, &motion, bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(A)[0], SET_VELOCITY_MODE, "at once, in the same pass");
    assert_eq!(bench.view.motor(A).expect("motor a").guarded, 1);
    bench.rest(A);
    bench.run(2 * TICK);
    let _writer = bench.drive(0, &[A]);
    bench.wire.sent.clear();
    bench.core.received(0, Origin::Local, &motion, bench.now, &mut bench.wire);
    assert_eq!(bench.sent_to(A), Vec::<String>::new(), "under a grant motion is wanted");
}

#[test]
fn a_running_drive_that_faults_or_falls_silent_trips_its_session() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A, B]);
    bench.odrive_says(A, 8, 1.0);
    let fault = drivers::Frame::classic(drivers::ArbitrationId::standard(0x61), &[1, 0, 0, 0, 1, 0, 0, 0]);
    bench.core.received(0, Origin::Wire, &fault, bench.now, &mut bench.wire);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::DriveFault));
    assert!(bench.events(EventKind::Trip)[0].motors.contains(B), "one wheel gone, both stop");
    bench.rest_all();

    writer = {
        let mut next = bench.drive(1, &[B]);
        next.beat_at(bench.now);
        drop(writer);
        next
    };
    bench.odrive_says(B, 8, 1.0);
    for _ in 0..12 {
        bench.beat(&mut writer);
        bench.run(50 * MS);
    }
    assert_eq!(bench.events(EventKind::Trip)[1].reason, Some(Reason::FeedbackLost));
}

/// A drive that has no word on its power stage.
const WORDLESS: &str = r#"
[[bus]]
name = "can0"
[[bus]]
name = "can1"
[[motor]]
name = "a"
bus = "can0"
driver = "cubemars-servo"
id = 1
pole_pairs = 21
gear = 9
after_stop = "release"
max_rpm = 60
"#;

/// What it reports, and how many trips there are then.
fn wordless_says(bench: &mut Bench, speed: u8, current: u8, error: u8) -> usize {
    let id = ArbitrationId::extended(0x2901);
    let status = Frame::classic(id, &[0, 0, 0, speed, current, 0, 30, error]);
    bench.core.received(0, Origin::Wire, &status, bench.now, &mut bench.wire);
    bench.events(EventKind::Trip).len()
}

fn wordless() -> Bench {
    let mut bench = Bench::of(WORDLESS, 8, ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    for _ in 0..6 {
        assert_eq!(wordless_says(&mut bench, 0, 0, 0), 0);
    }
    assert_eq!(state(&bench, A), MotorState::Idle);
    bench.run(40 * TICK);
    bench
}

/// Fails if a drive without a word on its power stage runs on with a fault, or is stopped for one that is over.
#[test]
fn a_running_drive_that_tells_nothing_but_faults_trips_its_session() {
    let mut bench = wordless();
    let _writer = bench.drive(0, &[A]);
    assert_eq!(
        wordless_says(&mut bench, 0, 0, 2),
        0,
        "before it runs, a fault is for the front to deal with"
    );
    assert_eq!(wordless_says(&mut bench, 0, 1, 0), 0, "what is over is no reason");
    assert_eq!(wordless_says(&mut bench, 0, 1, 2), 1);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::DriveFault));
}

/// Fails if a drive without a word on its power stage may be set in motion again after its stop, or if one that is
/// pushed by hand, without current, is taken for one that is.
#[test]
fn a_drive_that_only_measures_current_is_stopped_again_when_it_pushes() {
    let mut bench = wordless();
    let mut writer = bench.drive(0, &[A]);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    for _ in 0..6 {
        wordless_says(&mut bench, 0, 0, 0);
    }
    assert_eq!(state(&bench, A), MotorState::Stopped);
    // 10 000 electrical rpm, without and with 10 A.
    let status = |bench: &mut Bench, current: [u8; 2]| {
        let [high, low] = current;
        let frame = Frame::classic(ArbitrationId::extended(0x2901), &[0, 0, 3, 0xE8, high, low, 30, 0]);
        bench.core.received(0, Origin::Wire, &frame, bench.now, &mut bench.wire);
    };
    status(&mut bench, [0, 0]);
    assert_eq!(state(&bench, A), MotorState::Stopped, "pushed by hand: no frame can hold it");
    status(&mut bench, [3, 0xE8]);
    assert_eq!(state(&bench, A), MotorState::Stopping);
    assert_eq!(bench.view.motor(A).expect("it exists").reason, Some(Reason::Violation));
}

/// Fails if a drive at the very speed that counts as standing still is known to run.
#[test]
fn a_drive_that_stands_still_by_its_own_threshold_does_not_run() {
    let robot = WORDLESS.replace(
        "driver = \"cubemars-servo\"\nid = 1\npole_pairs = 21\ngear = 9",
        "driver = \"rmd\"\nid = 1",
    );
    for (speed, trips) in [(3, 0), (4, 1)] {
        let mut bench = Bench::of(&robot, 8, ResetPolicy::Auto);
        bench.core.start(bench.now, &mut bench.wire);
        let says = |bench: &mut Bench, speed: u8| {
            let frame = Frame::classic(ArbitrationId::standard(0x241), &[0x9C, 30, 0, 0, speed, 0, 0, 0]);
            bench.core.received(0, Origin::Wire, &frame, bench.now, &mut bench.wire);
        };
        (0..9).for_each(|_| says(&mut bench, 0));
        bench.run(40 * TICK);
        let mut writer = bench.drive(0, &[A]);
        says(&mut bench, speed);
        for _ in 0..120 {
            bench.beat(&mut writer);
            bench.run(TICK);
        }
        assert_eq!(bench.events(EventKind::Trip).len(), trips, "at {speed} degrees a second");
    }
}

/// Fails if a drive that turns with less current than it can tell from none is not known to run: its silence would
/// be no reason to stop.
#[test]
fn a_turning_drive_that_falls_silent_trips_its_session_however_little_it_pushes() {
    let mut bench = wordless();
    let mut writer = bench.drive(0, &[A]);
    // 1000 electrical rpm.
    assert_eq!(wordless_says(&mut bench, 100, 0, 0), 0);
    for _ in 0..120 {
        bench.beat(&mut writer);
        bench.run(TICK);
    }
    assert_eq!(
        bench.events(EventKind::Trip).first().map(|trip| trip.reason),
        Some(Some(Reason::FeedbackLost))
    );
}

#[test]
fn a_late_loop_stops_whatever_moves() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut driving = bench.drive(0, &[A]);
    let mut watching = bench.open(1);
    bench.run(2 * TICK);
    let due = bench.core.next_wakeup();
    let mut wake_at = |bench: &mut Bench, at: Nanos| {
        bench.now = at;
        bench.beat(&mut driving);
        bench.beat(&mut watching);
        bench.front.beat_at(at);
        bench.core.step(at, &mut bench.wire);
    };
    // As late as allowed, and later.
    wake_at(&mut bench, due.after(4 * TICK));
    assert_eq!(bench.sent_to(A), Vec::<String>::new());
    assert_eq!(bench.view.counter(Counter::SelfOverruns), 0);
    let due = bench.core.next_wakeup();
    wake_at(&mut bench, due.after(4 * TICK + 1));
    assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY]);
    assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::SelfOverrun));
    assert_eq!(bench.view.session_state(SlotIndex(0)).1, SessionState::Tripped);
    assert_eq!(bench.view.session_state(SlotIndex(1)).1, SessionState::Live, "it drives nothing");
    bench.run(TICK);
    assert_eq!(bench.view.counter(Counter::SelfOverruns), 1);
}

#[test]
fn a_bus_that_cannot_be_heard_stops_who_drives_on_it() {
    for (classes, details, health) in
        [(0x004, [0, 0x20, 0, 0, 0, 0, 0, 0], BusHealth::Passive), (0x040, [0; 8], BusHealth::BusOff)]
    {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let _left = bench.drive(0, &[A]);
        let mut right = bench.drive(1, &[C]);
        let warning = Report::new(0x004 | 0x200, [0, 0x08, 0, 0, 0, 0, 96, 3]);
        bench.core.reported(0, Origin::Wire, warning, bench.now, &mut bench.wire);
        assert_eq!(bench.sent_to(A), Vec::<String>::new(), "a disturbed bus still carries stops");
        bench.core.reported(0, Origin::Wire, Report::new(classes, details), bench.now, &mut bench.wire);
        assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY], "at once, not with the next tick");
        assert_eq!(bench.events(EventKind::Trip)[0].reason, Some(Reason::BusFault));
        bench.beat(&mut right);
        bench.run(2 * TICK);
        let bus = bench.view.bus(0).expect("bus 0");
        assert_eq!((bus.health, bus.up, bus.error_frames), (health, 0, 2));
        assert_eq!((bus.tx_errors, bus.rx_errors), (96, 3));
        assert_eq!(bench.sent_to(C), Vec::<String>::new(), "the other bus is well");
        assert_eq!(bench.events(EventKind::BusDown).len(), 1);
        bench.wire.sent.clear();
        bench.core.reported(0, Origin::Wire, Report::new(0x100, [0; 8]), bench.now, &mut bench.wire);
        if health == BusHealth::BusOff {
            assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY], "nothing has reached the drive");
        } else {
            assert_eq!(bench.sent_to(A), Vec::<String>::new(), "what was sent may have reached the drive");
        }
        assert_eq!(bench.events(EventKind::BusUp).len(), 1);
    }
}

/// An interface says that, for as long as the drive of motor A turns on.
fn turns_on_while(bench: &mut Bench, millis: u64, says: impl Fn(u64) -> BusHealth) {
    for passed in (0..millis).step_by(10) {
        bench.core.bus_health(0, says(passed), bench.now, &mut bench.wire);
        bench.odrive_says(A, 8, 2.0);
        bench.run(10 * MS);
    }
}

/// The one, then the other, for 40 ms each.
fn in_turns(one: BusHealth, other: BusHealth) -> impl Fn(u64) -> BusHealth {
    move |passed| if (passed / 40).is_multiple_of(2) { one } else { other }
}

#[test]
fn on_a_doubtful_bus_the_harder_stages_are_sent_not_only_told() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.drive(0, &[A]);
    turns_on_while(&mut bench, 150, |_| BusHealth::Passive);
    assert_eq!(bench.events(EventKind::Escalated).len(), 1);
    assert!(
        bench.sent_to(A).iter().any(|frame| frame == TO_IDLE),
        "told, and not sent: {:?}",
        bench.sent_to(A)
    );
}

#[test]
fn a_bus_that_wavers_delays_no_stage_and_does_not_fill_the_log() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.drive(0, &[A]);
    let before = bench.view.event_count();
    turns_on_while(&mut bench, 10_000, in_turns(BusHealth::Passive, BusHealth::Warning));
    assert_eq!(state(&bench, A), MotorState::Unverified, "it has an end that is told");
    assert_eq!(bench.events(EventKind::Escalated).len(), 2);
    let told = bench.view.event_count() - before;
    assert!(told <= 10, "{told} events push the trip out of the log");
}

#[test]
fn a_bus_that_comes_and_goes_begins_a_stop_again_a_few_times_only() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.drive(0, &[A]);
    turns_on_while(&mut bench, 1_000, in_turns(BusHealth::BusOff, BusHealth::Active));
    assert_eq!(state(&bench, A), MotorState::Unverified, "four times three stages of 100 ms are over");
    assert!(bench.sent_to(A).iter().any(|frame| frame == TO_IDLE), "{:?}", bench.sent_to(A));
    // One that comes back once after that is no reason to be gentle either: the programme is over.
    bench.wire.sent.clear();
    turns_on_while(&mut bench, 100, |_| BusHealth::Active);
    assert_ne!(bench.sent_to(A)[0], SET_VELOCITY_MODE);
}

#[test]
fn an_echo_confirms_the_stop_it_belongs_to() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _writer = bench.drive(0, &[A, B]);
    let velocity = |bench: &Bench, motor| {
        let sent = bench.wire.sent.iter().rev().find(|(_, frame)| frame.to_string().starts_with(motor));
        sent.expect("it was sent").1
    };
    bench.run(WINDOW.0 + 2 * TICK);
    let stop_of_a = velocity(&bench, "06D");
    let before = bench.view.motor(A).expect("motor a");
    assert_eq!(before.confirmed, Nanos::ZERO, "handed over is not confirmed");
    bench.core.confirmed(0, &stop_of_a, bench.now);
    bench.run(TICK);
    let (a, b) = (bench.view.motor(A).expect("motor a"), bench.view.motor(B).expect("motor b"));
    assert!(a.confirmed >= a.first_stop && a.confirmed != Nanos::ZERO);
    assert_eq!(b.confirmed, Nanos::ZERO, "another motor's stop says nothing of this one");
    assert_eq!(bench.view.bus(0).expect("bus 0").confirmed, 1);
}

#[test]
fn who_fights_the_stop_does_not_fill_the_log() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let before = bench.view.event_count();
    let motion = Frame::classic(ArbitrationId::standard(0x06D), &[0, 0, 128, 63, 0, 0, 0, 0]);
    for _ in 0..100 {
        bench.wire.sent.clear();
        bench.core.received(0, Origin::Wire, &motion, bench.now, &mut bench.wire);
        assert_eq!(bench.sent_to(A), [SET_VELOCITY_MODE, ZERO_VELOCITY], "every time, at once");
        bench.rest(A);
        bench.run(10 * MS);
    }
    assert_eq!(bench.view.motor(A).expect("motor a").guarded, 100, "all are counted");
    assert!(bench.view.event_count() - before <= 4, "told: {}", bench.view.event_count() - before);
    bench.run(5_000 * MS);
    bench.core.received(0, Origin::Wire, &motion, bench.now, &mut bench.wire);
    assert_eq!(bench.events(EventKind::Guarded).len(), 2, "told again after a while");
}
