//! Drives that must be asked, and drives that watch a sign of life: CiA 402 by SDO.

use drivers::Frame;
use shm_proto::verdicts::{EventKind, MotorState, ResetPolicy};
use shm_proto::{MotorIndex, Nanos};
use supervisor::core::{Origin, SendError};

use crate::support::{Bench, HEARTBEAT, MS, TICK};

/// Two drives on one bus.
const ROBOT: &str = r#"
[[bus]]
name = "can0"
[[bus]]
name = "can1"
[[motor]]
name = "left"
bus = "can0"
driver = "cia402"
node = 5
counts_per_rev = 1000
after_stop = "hold"
max_rpm = 300
[[motor]]
name = "right"
bus = "can0"
driver = "cia402"
node = 6
counts_per_rev = 1000
after_stop = "hold"
max_rpm = 300
"#;

const LEFT: MotorIndex = MotorIndex(0);
const RIGHT: MotorIndex = MotorIndex(1);

fn started() -> Bench {
    let mut bench = Bench::of(ROBOT, 8, ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    bench
}

/// The answers of a drive that is off and still.
fn rest(bench: &mut Bench, motor: MotorIndex) {
    let id = drivers::ArbitrationId::standard(0x585 + motor.0);
    // Statusword 0x0040: switch-on disabled. Velocity 0.
    let answers = [[0x4B, 0x41, 0x60, 0, 0x40, 0, 0, 0], [0x43, 0x6C, 0x60, 0, 0, 0, 0, 0]];
    for _ in 0..4 {
        for answer in answers {
            bench.core.received(0, Origin::Wire, &Frame::classic(id, &answer), bench.now, &mut bench.wire);
        }
    }
    assert_eq!(bench.view.motor(motor).expect("it exists").state, MotorState::Idle);
}

/// The objects one drive was asked for since the last time, in order.
fn asked(bench: &mut Bench, motor: MotorIndex) -> Vec<u16> {
    let prefix = format!("{:03X}#40", 0x605 + motor.0);
    let (ours, others): (Vec<_>, Vec<_>) =
        bench.wire.sent.drain(..).partition(|(_, frame)| frame.to_string().starts_with(&prefix));
    bench.wire.sent = others;
    ours.iter().map(|(_, frame)| u16::from_le_bytes([frame.payload()[1], frame.payload()[2]])).collect()
}

const STATUSWORD: u16 = 0x6041;
const VELOCITY: u16 = 0x606C;
const POSITION: u16 = 0x6064;

/// Fails if a stopping drive is not asked at once whether it stands still, or asked in the pass that has just
/// sent its stop: an SDO server takes one request at a time.
#[test]
fn a_stopping_drive_is_asked_on_every_tick_that_sends_no_stop() {
    let mut bench = started();
    let stops = |bench: &Bench| {
        bench.wire.sent.iter().filter(|(_, frame)| frame.to_string().starts_with("605#2B")).count()
    };
    assert_eq!((asked(&mut bench, LEFT), stops(&bench)), (vec![], 1));
    let mut objects = Vec::new();
    // Repeated after 20 ms, on the fourth tick.
    for sent in [1, 1, 1, 2, 2, 2, 2, 3] {
        let before = stops(&bench);
        bench.run(TICK);
        let new = asked(&mut bench, LEFT);
        assert_eq!(new.len(), usize::from(before == sent), "asked or stopped, never both");
        assert_eq!(stops(&bench), sent);
        objects.extend(new);
    }
    assert_eq!(objects, [VELOCITY, POSITION, STATUSWORD, VELOCITY, POSITION, STATUSWORD], "in turn");
}

/// Fails if a drive that stands still is no longer asked: nobody would see it move. All of one bus at the same
/// moment would crowd it.
#[test]
fn a_drive_at_rest_is_asked_every_eight_ticks_and_not_with_its_neighbour() {
    let mut bench = started();
    rest(&mut bench, LEFT);
    rest(&mut bench, RIGHT);
    let mut when = [Vec::new(), Vec::new()];
    for tick in 0..24 {
        bench.run(TICK);
        for motor in [LEFT, RIGHT] {
            when[usize::from(motor.0)].extend(asked(&mut bench, motor).iter().map(|_| tick));
        }
    }
    let [left, right] = when;
    for ticks in [&left, &right] {
        assert_eq!(ticks.len(), 3);
        assert!(ticks.windows(2).all(|pair| pair[1] == pair[0] + 8), "{ticks:?}");
    }
    assert_eq!((right[0] + 1) % 8, left[0] % 8, "{left:?} {right:?}");
}

/// Fails if asking depends on what else wakes the loop: with one frame between two ticks, every time, a drive
/// would never be asked, and count as silent.
#[test]
fn drives_are_asked_however_often_the_loop_is_woken_between_ticks() {
    let mut bench = started();
    rest(&mut bench, LEFT);
    rest(&mut bench, RIGHT);
    for woken in 1..9 {
        let mut times = [0, 0];
        for _ in 0..8 {
            for _ in 0..woken {
                bench.core.step(bench.now, &mut bench.wire);
            }
            bench.run(TICK);
            for motor in [LEFT, RIGHT] {
                times[usize::from(motor.0)] += asked(&mut bench, motor).len();
            }
        }
        assert_eq!(times, [1, 1], "{woken} passes more between two ticks");
    }
}

/// Fails if questions are put to a bus that does not work: they would only be refused, or pile up.
#[test]
fn nobody_is_asked_on_a_bus_that_is_down() {
    let mut bench = started();
    bench.core.bus_down(0, SendError::Down.errno(), bench.now, &mut bench.wire);
    bench.run(20 * TICK);
    assert_eq!(asked(&mut bench, LEFT), []);
    bench.core.bus_up(0, bench.now, &mut bench.wire);
    bench.run(TICK);
    assert_eq!(asked(&mut bench, LEFT).len(), 1);
}

/// Fails if a drive whose stop is unverified is no longer asked: late proof would never come.
#[test]
fn an_unverified_drive_is_still_asked() {
    let mut bench = started();
    // Two stages of 100 ms, then more.
    bench.run(250 * MS);
    assert_eq!(bench.view.motor(LEFT).expect("left").state, MotorState::Unverified);
    assert_eq!(bench.events(EventKind::Unverified).len(), 2, "one for each");
    bench.wire.sent.clear();
    bench.run(4 * TICK);
    let stops = bench.wire.sent.iter().filter(|(_, frame)| frame.to_string().starts_with("605#2B")).count();
    assert_eq!((asked(&mut bench, LEFT).len(), stops), (3, 1), "asked, but for the tick that stops");
}

/// Fails if the sign of life that drives watch comes too rarely, too often, or on a bus without them.
#[test]
fn the_sign_of_life_goes_out_in_its_period() {
    let mut bench = started();
    let mut times: Vec<Nanos> = Vec::new();
    for _ in 0..40 {
        bench.run(TICK);
        let signs = bench.wire.sent.drain(..).filter(|(_, frame)| frame.to_string().starts_with("77F#"));
        for (bus, _) in signs {
            assert_eq!(bus, 0);
            times.push(bench.now);
        }
    }
    assert!(times.len() >= 3, "one sign for both drives: {times:?}");
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) == HEARTBEAT), "{times:?}");
}
