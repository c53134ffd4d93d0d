//! The rules of the AgileX family: a whole base for one motor.

mod common;

use common::{COMMON, build, enable_frames, frame, stop_frames};
use drivers::agilex::flag;
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Power, PowerProof, RevolutionsPerSecond, StageKind,
    Standstill, Value,
};

const VECTORS: &str = include_str!("vectors/agilex.txt");

fn base(common: &Common) -> Drive {
    let keys = [("wheel_circumference_mm", Value::Integer(510)), ("track_width_mm", Value::Integer(600))];
    build("agilex", common, &keys).unwrap_or_else(|error| panic!("{error}"))
}

/// The speed that a motion state tells, in millimetres per second.
fn speed(payload: &str) -> f32 {
    base(&COMMON).decode(&frame("221", payload)).expect(payload).velocity.expect(payload).0 * 510.0
}

#[test]
fn frames_are_those_of_the_sdk() {
    let drive = base(&COMMON);
    let mut ours = stop_frames(&drive);
    ours.extend(enable_frames(&drive));
    for speed in [1.0, -1.0] {
        ours.extend(drive.velocity(RevolutionsPerSecond(speed)).expect("in bounds").as_slice());
    }
    let (mut told, mut heard) = (0, 0);
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let [message, id, payload] = parts[..] else { panic!("{line}") };
        let golden = frame(id, payload);
        if !message.starts_with("RX") {
            assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
            told += 1;
            continue;
        }
        let seen = drive.decode(&golden).expect(message);
        match message {
            "RX SystemState normal CAN 25.2 V no error" => {
                assert_eq!((seen.power, seen.fault), (Some(Power::On), Some(None)));
            }
            "RX SystemState normal STANDBY 25.2 V no remote control" => {
                assert_eq!((seen.power, seen.fault), (Some(Power::Off), Some(Some(Fault(4)))));
                assert_eq!(drive.explain(Fault(4)), "no remote control");
            }
            "RX SystemState exception CAN 25.2 V motor driver" => {
                let fault = Fault(flag::EXCEPTION | 0x100);
                assert_eq!((seen.power, seen.fault), (Some(Power::QuickStop), Some(Some(fault))));
                assert_eq!(drive.explain(fault), "exception, motor driver");
            }
            "RX MotionState 0" => assert_eq!(seen.velocity, Some(RevolutionsPerSecond::ZERO)),
            "RX MotionState -0.255 m/s" => assert_eq!(seen.velocity, Some(RevolutionsPerSecond(-0.5))),
            other => panic!("no expectation for {other}"),
        }
        heard += 1;
    }
    assert_eq!((told, heard), (7, 5));
}

#[test]
fn turning_on_the_spot_and_going_sideways_are_no_standstill() {
    // 1 rad/s moves the sides, 300 mm from the middle, at 300 mm/s; either way it counts.
    assert!((speed("000003E800000000") - 300.0).abs() < 0.01);
    assert!((speed("0000FC1800000000") - 300.0).abs() < 0.01);
    assert!((speed("00000000FF380000") - 200.0).abs() < 0.01, "sideways");
    assert!(speed("00000000000003E8").abs() < 0.01, "a steering angle alone is no movement");
    // The greatest of them, forwards with its sign.
    assert!((speed("FE0C000000000000") + 500.0).abs() < 0.01);
    assert!((speed("FE0C03E800C80000") + 500.0).abs() < 0.01);
    assert!((speed("FF9C03E800000000") - 300.0).abs() < 0.01);
    assert!((speed("8000000000000000") + 32_768.0).abs() < 1.0);
    let proof = base(&COMMON).stop.stage(0).proof;
    let proven = |payload: &str, times: usize| {
        let mut still = Standstill::NOTHING_SEEN;
        let seen = base(&COMMON).decode(&frame("221", payload)).expect(payload);
        (0..times).any(|_| still.observe(&proof, &seen))
    };
    assert!(proven("000A000000000000", 5) && !proven("000A000000000000", 4));
    assert!(!proven("000B000000000000", 100));
    // 33 mrad/s of 300 mm are 9.9 mm/s, 34 are 10.2.
    assert!(proven("0000002100000000", 5) && !proven("0000002200000000", 100));
}

#[test]
fn only_the_mode_says_off() {
    let power = |vehicle: u8, mode: u8| {
        let payload = [vehicle, mode, 0, 0xFC, 0, 0, 0, 0];
        base(&COMMON)
            .decode(&Frame::classic(ArbitrationId::standard(0x211), &payload))
            .expect("a state")
            .power
    };
    for vehicle in 0..=255 {
        for mode in 0..=255 {
            let expected = match (mode, vehicle) {
                (0, _) => Power::Off,
                (1, 0) => Power::On,
                // An emergency stop may well hold with torque.
                (1, _) => Power::QuickStop,
                _ => Power::Transition,
            };
            assert_eq!(power(vehicle, mode), Some(expected), "vehicle {vehicle}, mode {mode}");
        }
    }
}

#[test]
fn the_programme_goes_from_gentle_to_final() {
    let stages = |common: &Common| -> Vec<_> {
        let drive = base(common);
        let text = |stage: &drivers::Stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power);
        drive.stop.stages().iter().map(text).collect()
    };
    let expected = [
        (StageKind::Controlled, "[111#0000000000000000]".to_owned(), PowerProof::Any),
        (StageKind::Quick, "[131#0100000000000000, 111#0000000000000000]".to_owned(), PowerProof::Any),
        (StageKind::TorqueOff, "[111#0000000000000000, 421#0000000000000000]".to_owned(), PowerProof::Off),
    ];
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    assert_eq!((stages(&COMMON), stages(&hold)), (expected.to_vec(), expected.to_vec()));
    assert_eq!((base(&COMMON).stop.release(0), base(&hold).stop.release(0)), (Some(2), None));
    let texts: Vec<_> = enable_frames(&base(&COMMON)).iter().map(Frame::to_string).collect();
    assert_eq!(texts, ["111#0000000000000000", "131#0000000000000000", "421#0100000000000000"]);
}

#[test]
fn motion_is_told_from_harmless() {
    let drive = base(&COMMON);
    for (id, payload, motion) in [
        ("111", "0000000000000000", false),
        ("111", "0001000000000000", true),
        ("111", "0000000100000000", true),
        ("111", "0000000000010000", true),
        ("111", "0000000000000001", true),
        ("111", "00000000000000", true),
        ("111", "", true),
        ("131", "0100000000000000", false),
        ("131", "0107", false),
        ("131", "0000000000000000", true),
        ("131", "", true),
        ("421", "0000000000000000", false),
        ("421", "00", false),
        ("421", "01", true),
        ("421", "0200000000000000", true),
        ("421", "", true),
        ("141", "0000000000000000", true),
        ("431", "EE00000000000000", true),
        ("441", "0000000000000000", true),
        ("121", "0101000000000000", false),
        ("211", "0001000000000000", false),
        ("411", "0100000000000000", false),
    ] {
        assert_eq!(drive.is_motion(&frame(id, payload)), motion, "{id}#{payload}");
    }
    assert!(drive.is_motion(&Frame::remote(ArbitrationId::standard(0x421))));
    assert!(!drive.is_motion(&Frame::classic(ArbitrationId::extended(0x111), &[1; 8])));
}

#[test]
fn only_its_reports_tell_of_it() {
    let drive = base(&COMMON);
    let good = frame("221", "0000000000000000");
    for other in [
        frame("221", "00000000000000"),
        frame("222", "0000000000000000"),
        frame("111", "0000000000000000"),
        Frame::classic(ArbitrationId::extended(0x221), good.payload()),
        Frame::fd(good.id(), good.payload()),
        Frame::remote(good.id()),
    ] {
        assert_eq!(drive.decode(&other), None, "{other}");
    }
    assert!(drive.decode(&good).is_some());
}

#[test]
fn speeds_beyond_the_frame_are_its_greatest() {
    let sent =
        |rps: f32| base(&COMMON).protocol.velocity(RevolutionsPerSecond(rps)).as_slice()[0].to_string();
    assert_eq!(sent(1e9), "111#7FFF000000000000");
    assert_eq!(sent(-1e9), "111#8000000000000000");
    assert_eq!(sent(f32::NAN), "111#0000000000000000");
    assert_eq!(sent(0.0009), "111#0000000000000000");
    assert_eq!(sent(-0.001), "111#FFFF000000000000");
}

#[test]
fn wrong_keys_are_named() {
    let (wheel, track) = ("wheel_circumference_mm", "track_width_mm");
    let number = Value::Integer;
    // 0.9 mm/s, of which the base reports whole ones; and of a wide base 1 mrad/s is 2.5 mm/s.
    let fine = Common { standstill: Some(RevolutionsPerSecond(0.0017)), ..COMMON };
    let wide = Common { standstill: Some(RevolutionsPerSecond(0.0048)), ..COMMON };
    for (common, keys, key) in [
        (COMMON, vec![(track, number(600))], wheel),
        (COMMON, vec![(wheel, number(510))], track),
        (COMMON, vec![(wheel, number(9)), (track, number(600))], wheel),
        (COMMON, vec![(wheel, number(510)), (track, number(10_001))], track),
        (COMMON, vec![(wheel, number(510)), (track, number(600)), ("node", number(1))], "node"),
        (fine, vec![(wheel, number(510)), (track, number(600))], "standstill_rpm"),
        (wide, vec![(wheel, number(510)), (track, number(5_000))], "standstill_rpm"),
    ] {
        assert_eq!(build("agilex", &common, &keys).unwrap_err().key, key);
    }
    assert!(build("agilex", &wide, &[(wheel, number(510)), (track, number(600))]).is_ok());
}
