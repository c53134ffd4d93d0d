//! VESC: golden bytes, and the rules that no table of bytes shows.

mod common;

use common::{COMMON, build, bytes, enable_frames, stop_frames};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Frame, Output, PowerProof, Revolutions, RevolutionsPerSecond, StageKind,
    Standstill, Value,
};

const VECTORS: &str = include_str!("vectors/vesc.txt");

/// One pole pair, so that ERPM are revolutions a minute.
fn vesc(id: i64, more: &[(&str, Value)]) -> Drive {
    let mut keys = vec![("id", Value::Integer(id))];
    if more.iter().all(|(key, _)| *key != "pole_pairs") {
        keys.push(("pole_pairs", Value::Integer(1)));
    }
    keys.extend_from_slice(more);
    build("vesc", &COMMON, &keys).unwrap()
}

fn frame(id: &str, hex: &str) -> Frame {
    Frame::classic(ArbitrationId::extended(u32::from_str_radix(id, 16).unwrap()), &bytes(hex))
}

fn lines() -> impl Iterator<Item = (&'static str, Frame)> {
    VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let [message, id, hex] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        (message, frame(id, hex))
    })
}

/// What is golden but never sent, and why.
const NOT_SENT: &[(&str, &str)] = &[
    ("doc example SET_CURRENT 51 A id23", "pushes"),
    ("SET_CURRENT 0 BROADCAST id255", "is not the first stage"),
    ("SET_CURRENT_BRAKE 5 A BROADCAST", "is not the first stage"),
    ("SET_DUTY 0 id1", "brakes for ever, however hard"),
    ("HANDBRAKE 5 A id1", "pulls the rotor to an angle"),
];

#[test]
fn commands_match_the_documentation() {
    let drive = vesc(1, &[]);
    let mut ours = stop_frames(&drive);
    ours.extend(drive.velocity(RevolutionsPerSecond(0.0)).unwrap().as_slice());
    ours.extend(drive.broadcast);
    assert!(enable_frames(&drive).is_empty() && drive.poll.as_slice().is_empty());
    let mut checked = 0;
    for (message, golden) in lines().filter(|(message, _)| !message.starts_with("RX")) {
        match NOT_SENT.iter().find(|(name, _)| *name == message) {
            Some((name, why)) => assert!(!ours.contains(&golden), "{name} is sent, though it {why}"),
            None => assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 8);
    assert_eq!(drive.broadcast, Some(frame("000003FF", "00000000")));
    assert!(
        ours.iter().all(|frame| frame.payload().len() == 4),
        "from six bytes on they mean something else"
    );
}

#[test]
fn reports_are_understood() {
    let drive = vesc(1, &[("pole_pairs", Value::Integer(7))]);
    let mut checked = 0;
    for (message, frame) in lines().filter(|(message, _)| message.starts_with("RX")) {
        let seen = drive.decode(&frame).expect(message);
        match message {
            "RX STATUS(9) id1 erpm=0 cur=0 duty=0" => {
                assert_eq!(seen.velocity, Some(RevolutionsPerSecond(0.0)));
                assert_eq!((seen.output, seen.power, seen.fault), (Some(Output::Zero), None, None));
            }
            "RX STATUS(9) id1 erpm=-1234 cur=-5.1A duty=-0.250" => {
                assert_eq!(seen.velocity, Some(RevolutionsPerSecond(-1234.0 / 420.0)));
                assert_eq!(seen.output, Some(Output::Driving));
            }
            other => panic!("no expectation for {other}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 2);
    // 84 steps of the tachometer are 14 electrical revolutions, two of the shaft.
    for tail in ["00f0", "00f00000"] {
        let seen = drive.decode(&frame("00001B01", &format!("ffffffac{tail}"))).unwrap();
        assert_eq!((seen.position, seen.velocity, seen.output), (Some(Revolutions(-2.0)), None, None));
    }
}

#[test]
fn the_pole_pairs_reach_the_bytes() {
    let drive = vesc(23, &[("pole_pairs", Value::Integer(7))]);
    for (rps, hex) in [(1.0, "000001a4"), (-1.0, "fffffe5c"), (50.0, "00005208"), (0.001, "00000000")] {
        let frames = drive.velocity(RevolutionsPerSecond(rps)).unwrap();
        assert_eq!(frames.as_slice(), [frame("00000317", hex)], "{rps}");
    }
}

/// Each of the two alone is a push: current without duty is a motor that is held, duty without current one that
/// turns idly.
#[test]
fn no_output_is_neither_current_nor_duty() {
    let drive = vesc(1, &[]);
    for (tail, output) in [
        ("00050000", Output::Zero),
        ("fffb000a", Output::Zero),
        ("00060000", Output::Driving),
        ("fffa0000", Output::Driving),
        ("0000000b", Output::Driving),
        ("0000fff5", Output::Driving),
        ("80008000", Output::Driving),
    ] {
        let seen = drive.decode(&frame("00000901", &format!("00000000{tail}"))).unwrap();
        assert_eq!(seen.output, Some(output), "{tail}");
    }
    let coarse = vesc(1, &[("zero_current", Value::Float(2.0))]);
    let seen = coarse.decode(&frame("00000901", "0000000000140000")).unwrap();
    assert_eq!(seen.output, Some(Output::Zero));
}

#[test]
fn a_drive_that_pushes_is_never_off() {
    let drive = vesc(1, &[]);
    let proof = drive.stop.stages()[2].proof;
    let proven = |hex: &str| {
        let mut tracker = Standstill::NOTHING_SEEN;
        (0..50).any(|_| tracker.observe(&proof, &drive.decode(&frame("00000901", hex)).unwrap()))
    };
    assert!(proven("0000000000000000"));
    assert!(!proven("0000000000320000"), "held with 5 A");
    assert!(!proven("0000000400000000"), "4 rpm are more than 0.05 rev/s");
}

#[test]
fn the_programme_goes_from_ramp_to_release() {
    let drive = vesc(1, &[("brake_current", Value::Float(12.5))]);
    let stages: Vec<_> = drive
        .stop
        .stages()
        .iter()
        .map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power))
        .collect();
    assert_eq!(
        stages,
        [
            (StageKind::Controlled, "[00000301#00000000]".to_owned(), PowerProof::Any),
            (StageKind::Quick, "[00000201#000030D4]".to_owned(), PowerProof::Any),
            (StageKind::TorqueOff, "[00000101#00000000]".to_owned(), PowerProof::NoOutput),
        ]
    );
    assert_eq!(drive.stop.release(0), Some(2));
}

#[test]
fn others_and_other_forms_tell_nothing() {
    let drive = vesc(1, &[]);
    let status = [0; 8];
    for other in [
        Frame::classic(ArbitrationId::extended(0x902), &status),
        Frame::classic(ArbitrationId::extended(0x9FF), &status),
        Frame::classic(ArbitrationId::extended(0x1_0901), &status),
        Frame::classic(ArbitrationId::standard(0x101), &status),
        Frame::classic(ArbitrationId::extended(0x901), &status[..7]),
        Frame::classic(ArbitrationId::extended(0x1B01), &status[..5]),
        Frame::classic(ArbitrationId::extended(0x1B01), &status[..7]),
        Frame::fd(ArbitrationId::extended(0x901), &status),
        Frame::remote(ArbitrationId::extended(0x901)),
        // Temperatures and consumption tell nothing of movement.
        Frame::classic(ArbitrationId::extended(0x1001), &status),
        Frame::classic(ArbitrationId::extended(0xE01), &status),
    ] {
        assert_eq!(drive.decode(&other), None, "{other}");
    }
}

#[test]
fn motion_is_told_from_harmless() {
    let drive = vesc(1, &[]);
    for (id, hex, motion) in [
        // Duty, even 0; currents; speeds; positions.
        ("00000001", "00000000", true),
        ("00000101", "00000000", false),
        ("00000101", "00000001", true),
        ("00000101", "0000000000", true),
        ("00000101", "000000000000", true),
        ("00000101", "", true),
        ("00000301", "00000000", false),
        ("00000301", "000003e8", true),
        ("00000401", "00000000", true),
        ("00000A01", "00000000", false),
        ("00000A01", "00002710", true),
        // Brakes only ever oppose, but the handbrake pulls.
        ("00000201", "00001388", false),
        ("00000201", "0000138800", true),
        ("00000B01", "00001388", false),
        ("00000C01", "00001388", true),
        ("00000D01", "00000000", true),
        // Packets: only those that are passed on say nothing to this drive.
        ("00000501", "0001020304", false),
        ("00000701", "050000040000", true),
        ("00000801", "050008000007d0", true),
        ("00000801", "05020800", true),
        ("00000801", "05010800", false),
        ("00000801", "05", true),
        // Detection turns the motor; ping does not. Unknown ones may.
        ("00001301", "0000000000", true),
        ("00001101", "05", false),
        ("00003F01", "", true),
        // Everybody.
        ("000003FF", "000003e8", true),
        ("000001FF", "00000000", false),
        ("000000FF", "00000000", true),
        // Others: another id, bits that are not used, a report.
        ("00000302", "000003e8", false),
        ("00010301", "000003e8", false),
        ("00000901", "0000000000000000", false),
        ("00004001", "", false),
    ] {
        let frame = frame(id, hex);
        assert_eq!(drive.is_motion(&frame), motion, "{frame}");
        assert!(!motion || drive.commands.contains(&frame.id()), "{frame} is not watched");
    }
    assert!(!drive.is_motion(&Frame::classic(ArbitrationId::standard(0x301), &[0, 0, 3, 232])));
    assert!(drive.is_motion(&Frame::remote(ArbitrationId::extended(0x101))));
}

#[test]
fn two_drives_share_the_broadcast_only() {
    let (a, b) = (vesc(1, &[]), vesc(2, &[("brake_current", Value::Integer(20))]));
    assert!(a.owns.iter().all(|id| !b.owns.contains(id) && !b.shares.contains(id)));
    assert_eq!((&a.shares, a.broadcast), (&b.shares, b.broadcast));
    assert!(!a.may_hear(ArbitrationId::standard(0x7EF)) && a.may_hear(ArbitrationId::extended(0x30C)));
}

#[test]
fn wrong_keys_are_named() {
    let whole = Value::Integer;
    let (id, poles) = (("id", whole(1)), ("pole_pairs", whole(7)));
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    // One ERPM is 1/420 rev/s.
    let slow = Common { standstill: Some(RevolutionsPerSecond(0.002)), ..COMMON };
    let fast = Common { max_speed: RevolutionsPerSecond(6e6), ..COMMON };
    for (common, keys, key) in [
        (COMMON, vec![poles.clone()], "id"),
        (COMMON, vec![("id", whole(255)), poles.clone()], "id"),
        (COMMON, vec![id.clone()], "pole_pairs"),
        (COMMON, vec![id.clone(), ("pole_pairs", whole(0))], "pole_pairs"),
        (COMMON, vec![id.clone(), poles.clone(), ("brake_current", whole(0))], "brake_current"),
        (COMMON, vec![id.clone(), poles.clone(), ("zero_current", Value::Float(0.01))], "zero_current"),
        (COMMON, vec![id.clone(), poles.clone(), ("node", whole(1))], "node"),
        (hold, vec![id.clone(), poles.clone()], "after_stop"),
        (slow, vec![id.clone(), poles.clone()], "standstill_rpm"),
        (fast, vec![id, poles], "max_rpm"),
    ] {
        assert_eq!(build("vesc", &common, &keys).unwrap_err().key, key);
    }
}
