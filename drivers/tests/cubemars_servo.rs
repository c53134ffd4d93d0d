//! The golden bytes of the CubeMars servo family and its rules that no table of bytes shows.

mod common;

use common::{COMMON, build, bytes, enable_frames, stop_frames};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Output, PowerProof, RevolutionsPerSecond, StageKind,
    Standstill, Until, Value, WatchdogSet,
};

const VECTORS: &str = include_str!("vectors/cubemars_servo.txt");

fn keys(more: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let mut keys =
        vec![("id", Value::Integer(1)), ("pole_pairs", Value::Integer(21)), ("gear", Value::Integer(9))];
    for (key, value) in more {
        keys.retain(|(known, _)| known != key);
        keys.push((key, value.clone()));
    }
    keys
}

fn servo(more: &[(&'static str, Value)]) -> Drive {
    build("cubemars-servo", &COMMON, &keys(more)).unwrap()
}

fn frame(id: &str, hex: &str) -> Frame {
    Frame::classic(ArbitrationId::extended(u32::from_str_radix(id, 16).unwrap()), &bytes(hex))
}

#[test]
fn commands_match_the_golden_bytes() {
    let drive = servo(&[("brake_current", Value::Integer(2))]);
    let ours = stop_frames(&drive);
    let mut checked = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let [_, message, id, payload] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let golden = frame(id, payload);
        if message.starts_with("RX") {
            let seen = drive.decode(&golden).expect(message);
            assert_eq!((seen.velocity, seen.output), (Some(RevolutionsPerSecond(0.0)), Some(Output::Zero)));
            assert_eq!((seen.fault, seen.state, seen.power), (Some(None), Some(0), None));
        } else {
            assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
        }
        checked += 1;
    }
    assert_eq!(checked, 4);
}

#[test]
fn the_programme_goes_from_gentle_to_final() {
    let drive = servo(&[]);
    let stages = drive.stop.stages().iter();
    let texts: Vec<_> =
        stages.map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power)).collect();
    assert_eq!(
        texts,
        [
            (StageKind::Controlled, "[00000301#00000000]".to_owned(), PowerProof::Any),
            (StageKind::Quick, "[00000201#00001388]".to_owned(), PowerProof::Any),
            (StageKind::TorqueOff, "[00000101#00000000]".to_owned(), PowerProof::NoOutput),
        ]
    );
    assert_eq!((drive.stop.release(0), drive.stop.release(1)), (Some(2), Some(2)));
    let hold = build("cubemars-servo", &Common { after: AfterStop::Hold, ..COMMON }, &keys(&[])).unwrap();
    assert_eq!(hold.stop.release(0), None);
    assert!(hold.watchdog.advice.contains("ends a hold") && !drive.watchdog.advice.contains("ends a hold"));
    assert_eq!(drive.watchdog.set, WatchdogSet::ByHand);
}

/// The programme runs again while the shaft turns, so it must not send what would stop it.
#[test]
fn enabling_only_listens() {
    let drive = servo(&[]);
    assert!(enable_frames(&drive).is_empty() && drive.poll.as_slice().is_empty());
    let [step] = drive.enable.steps() else { panic!("one step") };
    assert_eq!(step.until, Some(Until::State(0)));
    let met = |payload| step.until.unwrap().met_by(&drive.decode(&frame("2901", payload)).unwrap());
    assert!(met("0000000000001e00") && !met("0000000000001e01"));
}

/// 60 s * 21 pole pairs * gear 9 are 11340 electrical turns a minute for each turn a second at the output.
#[test]
fn speeds_are_of_the_output_shaft() {
    let drive = servo(&[]);
    for (speed, payload) in
        [(1.0, "00002c4c"), (-1.0, "ffffd3b4"), (0.0, "00000000"), (-0.0, "00000000"), (0.5, "00001626")]
    {
        let frames = drive.velocity(RevolutionsPerSecond(speed)).unwrap();
        assert_eq!(frames.as_slice(), [frame("301", payload)], "{speed}");
    }
    let far = drive.protocol.velocity(RevolutionsPerSecond(f32::MAX));
    assert_eq!(far.as_slice(), [frame("301", "7fffffff")]);
    // 1134 steps of 10, 90.0 degrees, -5.1 A, overcurrent.
    let seen = drive.decode(&frame("2901", "0384046efe021e02")).unwrap();
    assert_eq!(seen.velocity, Some(RevolutionsPerSecond(1.0)));
    assert!((seen.position.unwrap().0 - 0.25).abs() < 1e-9);
    assert_eq!((seen.output, seen.fault), (Some(Output::Driving), Some(Some(Fault(2)))));
    let seen = drive.decode(&frame("2901", "7d00fb9200001e00")).unwrap();
    assert_eq!(seen.velocity, Some(RevolutionsPerSecond(-1.0)));
    assert_eq!(seen.position, None, "the end of the range is no position");
}

#[test]
fn only_no_output_of_its_own_proves_torque_off() {
    let drive = servo(&[]);
    let proof = drive.stop.stages()[2].proof;
    let proven = |report: Frame| {
        let mut tracker = Standstill::NOTHING_SEEN;
        (0..10).any(|_| drive.decode(&report).is_some_and(|seen| tracker.observe(&proof, &seen)))
    };
    for current in ["0000", "0014", "ffec"] {
        assert!(proven(frame("2901", &format!("00000000{current}1e00"))), "{current}");
    }
    for current in ["0015", "ffeb", "7fff", "8000"] {
        assert!(!proven(frame("2901", &format!("00000000{current}1e00"))), "{current}");
    }
    // 22 steps are 0.0194 rev/s, 23 are 0.0203.
    assert!(proven(frame("2901", "0000001600001e00")) && !proven(frame("2901", "0000001700001e00")));
    assert!(!proven(frame("2902", "0000000000001e00")), "another motor");
    assert!(!proven(frame("2801", "0000000000001e00")), "another message");
    assert!(!proven(frame("2901", "0000000000001e")), "too short");
    assert!(!proven(frame("12901", "0000000000001e00")), "another prefix");
    assert!(!proven(Frame::classic(ArbitrationId::standard(0x101), &[0; 8])));
    assert!(!proven(Frame::fd(ArbitrationId::extended(0x2901), &[0; 8])));
    assert!(!proven(Frame::remote(ArbitrationId::extended(0x2901))));
}

#[test]
fn motion_is_told_from_harmless() {
    let drive = servo(&[]);
    for (id, payload, motion) in [
        ("001", "00000000", false),
        ("001", "00000001", true),
        ("101", "00000000", false),
        ("101", "000003e8", true),
        ("201", "00001388", false),
        ("301", "00000000", false),
        ("301", "fffffc18", true),
        // No harmless payload, in whatever command.
        ("401", "00000000", true),
        ("501", "00", true),
        ("601", "0000000000000000", true),
        ("801", "8000800000333800", true),
        ("F01", "", true),
        // Not understood: another length.
        ("101", "000000", true),
        ("101", "0000000000", true),
        ("301", "", true),
        // To all.
        ("1FF", "000003e8", true),
        ("1FF", "00000000", false),
        ("2FF", "00001388", false),
        // Of others, and reports.
        ("302", "000003e8", false),
        ("10301", "000003e8", false),
        ("2901", "0000046e00001e00", false),
    ] {
        assert_eq!(drive.is_motion(&frame(id, payload)), motion, "{id}#{payload}");
    }
    assert!(drive.is_motion(&Frame::remote(ArbitrationId::extended(0x301))));
    assert!(!drive.is_motion(&Frame::classic(ArbitrationId::standard(0x301), &[0, 0, 3, 0xE8])));
}

#[test]
fn wrong_keys_are_named() {
    let integer = Value::Integer;
    let tight = Common { standstill: Some(RevolutionsPerSecond(0.0008)), ..COMMON };
    for (common, more, key) in [
        (COMMON, ("id", integer(-1)), "id"),
        (COMMON, ("id", integer(255)), "id"),
        (COMMON, ("pole_pairs", integer(0)), "pole_pairs"),
        (COMMON, ("gear", Value::Float(0.5)), "gear"),
        (COMMON, ("brake_current", integer(61)), "brake_current"),
        (COMMON, ("zero_current", Value::Float(0.01)), "zero_current"),
        (tight, ("gear", integer(9)), "standstill_rpm"),
    ] {
        assert_eq!(build("cubemars-servo", &common, &keys(&[more])).unwrap_err().key, key);
    }
    for missing in ["id", "pole_pairs", "gear"] {
        let rest: Vec<_> = keys(&[]).into_iter().filter(|(key, _)| *key != missing).collect();
        assert_eq!(build("cubemars-servo", &COMMON, &rest).unwrap_err().key, missing);
    }
}
