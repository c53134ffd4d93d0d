//! Roboteq over CANopen: golden bytes, and the rules that no table of bytes shows.

mod common;

use common::{COMMON, build, enable_frames, frame, stop_frames, text};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Power, PowerProof, Refusal, Revolutions,
    RevolutionsPerSecond, StageKind, Standstill, Until, Value,
};

const VECTORS: &str = include_str!("vectors/roboteq.txt");

type Keys = Vec<(&'static str, Value)>;

fn keys(channel: i64, mode: &str, speed: &str) -> Keys {
    let mut keys = vec![
        ("node", Value::Integer(5)),
        ("channel", Value::Integer(channel)),
        ("loop", text(mode)),
        ("speed", text(speed)),
        ("full_rpm", Value::Integer(3000)),
    ];
    if speed != "feedback" {
        keys.push(("counts_per_rev", Value::Integer(1000)));
    }
    keys
}

fn roboteq(channel: i64, mode: &str, speed: &str) -> Drive {
    build("roboteq", &COMMON, &keys(channel, mode, speed)).unwrap()
}

fn vectors() -> impl Iterator<Item = (&'static str, Frame)> {
    VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let [message, id, payload] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        (message, frame(id, payload))
    })
}

#[test]
fn commands_match_python_canopen() {
    let mut ours = Vec::new();
    for (drive, rpms) in [
        (roboteq(1, "speed", "encoder"), vec![120.0]),
        (roboteq(2, "speed", "encoder"), vec![-300.0]),
        (roboteq(1, "open", "feedback"), vec![-1500.0]),
        (roboteq(1, "speed", "brushless"), vec![]),
    ] {
        ours.extend(stop_frames(&drive));
        ours.extend(enable_frames(&drive));
        ours.extend(drive.poll.as_slice());
        for rpm in rpms {
            ours.extend(drive.velocity(RevolutionsPerSecond::from_rpm(rpm)).unwrap().as_slice());
        }
    }
    let mut checked = 0;
    for (message, golden) in vectors().filter(|(message, _)| !message.starts_with("RX")) {
        assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
        checked += 1;
    }
    assert_eq!(checked, 16);
}

#[test]
fn feedback_of_the_vectors_is_understood() {
    let drive = roboteq(1, "speed", "encoder");
    let mut checked = 0;
    for (message, golden) in vectors() {
        let Some(message) = message.strip_prefix("RX ") else { continue };
        let seen = drive.decode(&golden).expect(message);
        match message {
            "2111 power stage off" => assert_eq!(seen.power, Some(Power::Off)),
            "2111 power stage on" => assert_eq!(seen.power, Some(Power::On)),
            "2112 emergency stop" => {
                assert_eq!((seen.fault, seen.power), (Some(Some(Fault(0x10))), None));
                assert_eq!(drive.explain(Fault(0x10)), "emergency stop");
            }
            "2103 encoder speed 120 rpm" => {
                assert_eq!(seen.velocity, Some(RevolutionsPerSecond(2.0)));
            }
            "2103 encoder speed -300 rpm in four bytes" => {
                assert_eq!(seen.velocity, Some(RevolutionsPerSecond(-5.0)));
            }
            "200E written" => assert_eq!(seen.answer, Some(0x0020_0E00)),
            other => panic!("no expectation for {other}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 6);
}

#[test]
fn the_programme_stops_the_channel_and_then_the_controller() {
    let drive = roboteq(2, "open", "encoder");
    let texts: Vec<_> = drive
        .stop
        .stages()
        .iter()
        .map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power))
        .collect();
    assert_eq!(
        texts,
        [
            (StageKind::Controlled, "[605#2F0E200002000000]".to_owned(), PowerProof::Any),
            (StageKind::Latch, "[605#2F0C200001000000]".to_owned(), PowerProof::Off),
        ]
    );
    assert_eq!(drive.stop.release(0), Some(1));
    let held =
        build("roboteq", &Common { after: AfterStop::Hold, ..COMMON }, &keys(1, "speed", "encoder")).unwrap();
    assert_eq!(held.stop.release(0), None);
}

/// Fails if the shutdown is taken back while an old command may still be in force.
#[test]
fn it_is_told_zero_before_it_is_released() {
    let drive = roboteq(1, "speed", "encoder");
    let texts: Vec<_> = enable_frames(&drive).iter().map(Frame::to_string).collect();
    assert_eq!(texts, ["605#2F0E200001000000", "605#2B02200100000000", "605#2F0D200001000000"]);
    assert_eq!(drive.enable.steps()[2].until, Some(Until::Power(Power::On)));
    assert!(
        drive.enable.steps().iter().all(|step| step.frames.as_slice().len() == 1),
        "one request at a time"
    );
}

#[test]
fn motion_is_told_from_harmless() {
    for (id, payload, motion) in [
        // Commands: 0 on any channel, else motion.
        ("605", "2300200100000000", false),
        ("605", "2300200200000000", false),
        ("605", "2300200101000000", true),
        ("605", "2b02200100000000", false),
        ("605", "2b02200178000000", true),
        // A position has no harmless value, nor has DS402.
        ("605", "2301200100000000", true),
        ("605", "2b4060000f000000", true),
        ("605", "23ff600000000000", true),
        // Stops, release.
        ("605", "2f0e200001000000", false),
        ("605", "2f0c200001000000", false),
        ("605", "2f0d200001000000", true),
        // Reads, abort, communication profile.
        ("605", "4011210000000000", false),
        ("605", "8000000000000000", false),
        ("605", "2b17100064000000", false),
        // Not understood: short, segments, blocks, long write.
        ("605", "2300", true),
        ("605", "", true),
        ("605", "0000000000000000", true),
        ("605", "c100200104000000", true),
        ("605", "2100200104000000", true),
        // Receive PDOs; other nodes; what the controller itself sends.
        ("205", "0000000000000000", true),
        ("505", "", true),
        ("185", "ff00", false),
        ("604", "2300200101000000", false),
        ("585", "6000200100000000", false),
    ] {
        assert_eq!(roboteq(1, "speed", "encoder").is_motion(&frame(id, payload)), motion, "{id}#{payload}");
    }
    assert!(!roboteq(1, "speed", "encoder").is_motion(&Frame::remote(ArbitrationId::standard(0x605))));
}

/// Fails if another channel's, or another sensor's, reading is taken for this motor's.
#[test]
fn only_the_configured_sensor_of_the_channel_tells_the_speed() {
    let encoder = roboteq(1, "speed", "encoder");
    for (payload, told) in [
        ("4b03210100000000", true),
        ("4b03210200000000", false),
        ("4b0a210100000000", false),
        ("4b10210100000000", false),
    ] {
        assert_eq!(encoder.decode(&frame("585", payload)).is_some(), told, "{payload}");
    }
    let feedback = roboteq(1, "open", "feedback");
    let seen = feedback.decode(&frame("585", "4b1021010cfe0000")).unwrap();
    assert_eq!(seen.velocity, Some(RevolutionsPerSecond(-25.0)), "half of 3000 rpm");
    let brushless = roboteq(2, "speed", "brushless");
    assert_eq!(
        brushless.decode(&frame("585", "4305210218fcffff")).unwrap().position,
        Some(Revolutions(-1.0))
    );
}

#[test]
fn a_power_stage_that_is_on_proves_nothing() {
    let drive = roboteq(1, "speed", "encoder");
    let proof = drive.stop.stages()[1].proof;
    let still = drive.decode(&frame("585", "4b03210100000000")).unwrap();
    for (flags, proven) in [("0800", true), ("0900", true), ("0000", false), ("f700", false)] {
        let status = drive.decode(&frame("585", &format!("4b112100{flags}0000"))).unwrap();
        let mut tracker = Standstill::NOTHING_SEEN;
        assert!(!tracker.observe(&proof, &status));
        assert_eq!((0..5).any(|_| tracker.observe(&proof, &still)), proven, "{flags}");
    }
    // An emergency stop that is only a fault flag says nothing of the power stage.
    let fault = drive.decode(&frame("585", "4b12210010000000")).unwrap();
    let mut tracker = Standstill::NOTHING_SEEN;
    assert!(!tracker.observe(&proof, &fault) && !(0..5).any(|_| tracker.observe(&proof, &still)));
}

#[test]
fn a_refusal_is_told() {
    let seen = roboteq(1, "speed", "encoder").decode(&frame("585", "8002200100000206")).unwrap();
    assert_eq!(seen.refused, Some(Refusal { request: 0x0020_0201, code: 0x0602_0000 }));
}

#[test]
fn wrong_keys_are_named() {
    let with = |key: &'static str, value: Value| {
        let mut keys = keys(1, "speed", "encoder");
        keys.retain(|(name, _)| *name != key);
        keys.push((key, value));
        keys
    };
    let without = |key: &str, mut keys: Keys| {
        keys.retain(|(name, _)| *name != key);
        keys
    };
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    let fast = Common { max_speed: RevolutionsPerSecond(600.0), ..COMMON };
    let fine = Common { standstill: Some(RevolutionsPerSecond(0.01)), ..COMMON };
    for (common, keys, key) in [
        (COMMON, without("node", keys(1, "speed", "encoder")), "node"),
        (COMMON, with("node", Value::Integer(128)), "node"),
        (COMMON, with("channel", Value::Integer(4)), "channel"),
        (COMMON, without("loop", keys(1, "speed", "encoder")), "loop"),
        (COMMON, without("speed", keys(1, "speed", "encoder")), "speed"),
        (COMMON, with("speed", text("hall")), "speed"),
        (COMMON, without("full_rpm", keys(1, "open", "encoder")), "full_rpm"),
        (COMMON, without("full_rpm", keys(1, "speed", "feedback")), "full_rpm"),
        (COMMON, with("speed", text("feedback")), "counts_per_rev"),
        (COMMON, with("counts_per_rev", Value::Integer(0)), "counts_per_rev"),
        (hold, keys(1, "open", "encoder"), "after_stop"),
        (fast, keys(1, "speed", "encoder"), "max_rpm"),
        (Common { max_speed: RevolutionsPerSecond(50.1), ..COMMON }, keys(1, "open", "encoder"), "max_rpm"),
        // One rpm is the least it can report.
        (fine, keys(1, "speed", "encoder"), "standstill_rpm"),
    ] {
        assert_eq!(build("roboteq", &common, &keys).unwrap_err().key, key);
    }
}
