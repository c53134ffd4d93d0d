//! MyActuator RMD: golden bytes, and the rules that no table of bytes shows.

mod common;

use common::{COMMON, build, enable_frames, frame, stop_frames};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Output, PollWhen, PowerProof, Revolutions,
    RevolutionsPerSecond, StageKind, Standstill, Until, Value, WatchdogSet,
};

const VECTORS: &str = include_str!("vectors/rmd.txt");

fn rmd(id: i64) -> Drive {
    build("rmd", &COMMON, &[("id", Value::Integer(id))]).unwrap()
}

fn braked() -> Drive {
    build("rmd", &COMMON, &[("id", Value::Integer(1)), ("brake", Value::Flag(true))]).unwrap()
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
    ("0x80 shutdown ALL (0x280)", "is not the first stage"),
    ("0xB3 comms timeout 1000 ms (test vector)", "is written to ROM; it is advised, with another time"),
];

#[test]
fn commands_match_the_manual() {
    let drive = rmd(1);
    let mut ours = stop_frames(&drive);
    ours.extend(enable_frames(&drive));
    ours.extend(drive.poll.as_slice());
    for dps in [100.0, -100.0] {
        ours.extend(drive.velocity(RevolutionsPerSecond(dps / 360.0)).unwrap().as_slice());
    }
    ours.extend(drive.broadcast);
    let mut checked = 0;
    for (message, golden) in lines().filter(|(message, _)| !message.starts_with("RX")) {
        match NOT_SENT.iter().find(|(name, _)| *name == message) {
            Some((name, why)) => assert!(!ours.contains(&golden), "{name} is sent, though it {why}"),
            None => assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 9);
    assert_eq!(drive.broadcast, Some(frame("280", "8100000000000000")));
    assert_eq!(drive.watchdog.set, WatchdogSet::ByHand);
    assert!(
        drive.watchdog.advice.contains("cansend can0 141#B3000000F4010000 "),
        "{}",
        drive.watchdog.advice
    );
}

#[test]
fn answers_are_understood() {
    let drive = rmd(1);
    let mut checked = 0;
    for (message, frame) in lines().filter(|(message, _)| message.starts_with("RX")) {
        let seen = drive.decode(&frame).expect(message);
        let measured = (seen.velocity, seen.output, seen.position, seen.fault);
        match message {
            "RX 0x80 echo = accepted" => {
                assert_eq!((seen.answer, measured), (Some(0x80), (None, None, None, None)));
            }
            "RX 0x9A: 50C, brake released=1, 48.5V, err 0x0004 (test vector)" => {
                assert_eq!(measured, (None, None, None, Some(Some(Fault(4)))));
            }
            "RX 0x9C: 50C, 1 A, 500 dps, 45 deg" => {
                let speed = RevolutionsPerSecond(500.0 / 360.0);
                assert_eq!(measured, (Some(speed), Some(Output::Driving), None, None));
            }
            "RX 0xA2: 50C, -1 A, -500 dps, -45 deg" => {
                let speed = RevolutionsPerSecond(-500.0 / 360.0);
                assert_eq!(measured, (Some(speed), Some(Output::Driving), None, None));
                assert_eq!(seen.answer, Some(0xA2));
            }
            "RX 0x92: 360 deg" => assert_eq!(measured, (None, None, Some(Revolutions(1.0)), None)),
            other => panic!("no expectation for {other}"),
        }
        assert_eq!(seen.power, None, "no answer tells");
        checked += 1;
    }
    assert_eq!(checked, 5);
    let healthy = drive.decode(&frame("241", "9a320001e5010000")).unwrap();
    assert_eq!(healthy.fault, Some(None));
    assert_eq!(drive.explain(Fault(0x16)), "motor stall, low voltage, over current");
}

#[test]
fn the_echo_of_a_stop_proves_nothing() {
    for drive in [rmd(1), braked()] {
        for stage in drive.stop.stages() {
            for command in ["80", "81", "78"] {
                let echo = drive.decode(&frame("241", &format!("{command}00000000000000"))).unwrap();
                let mut tracker = Standstill::NOTHING_SEEN;
                assert!((0..50).all(|_| !tracker.observe(&stage.proof, &echo)));
            }
        }
    }
}

#[test]
fn a_drive_that_pushes_is_never_off() {
    let drive = rmd(1);
    let proof = drive.stop.stages().last().unwrap().proof;
    let proven = |hex: &str| {
        let mut tracker = Standstill::NOTHING_SEEN;
        (0..50).any(|_| tracker.observe(&proof, &drive.decode(&frame("241", hex)).unwrap()))
    };
    // 0.2 A and 3 degrees a second are the limits.
    assert!(proven("9c32140003000000") && proven("9c32ecfffdff0000"));
    assert!(!proven("9c32150000000000") && !proven("9c32ebff00000000"), "held");
    assert!(!proven("9c32000004000000") && !proven("9c320000fcff0000"), "turning");
    assert!(!proven("9c32008000000000"), "the most negative current");
}

#[test]
fn the_brake_is_closed_only_where_there_is_one() {
    let stages = |drive: &Drive| -> Vec<_> {
        let stages = drive.stop.stages().iter();
        stages.map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power)).collect()
    };
    let command = |byte: &str| format!("141#{byte}00000000000000");
    let stop = (StageKind::Controlled, format!("[{}]", command("81")), PowerProof::Any);
    assert_eq!(
        stages(&rmd(1)),
        [stop.clone(), (StageKind::TorqueOff, format!("[{}]", command("80")), PowerProof::NoOutput)]
    );
    assert_eq!(
        stages(&braked()),
        [
            stop,
            (StageKind::Quick, format!("[{}]", command("78")), PowerProof::Any),
            (StageKind::TorqueOff, format!("[{}, {}]", command("78"), command("80")), PowerProof::NoOutput),
        ]
    );
    assert_eq!((rmd(1).stop.release(0), braked().stop.release(0)), (Some(1), Some(2)));
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    let held = build("rmd", &hold, &[("id", Value::Integer(1))]).unwrap();
    assert_eq!(held.stop.release(0), None);
}

#[test]
fn it_is_asked_only_when_it_is_silent() {
    let drive = rmd(7);
    assert_eq!(drive.poll_when, PollWhen::WhenSilent);
    let enable: Vec<_> = drive.enable.steps().iter().map(|step| step.until).collect();
    assert_eq!(enable, [Some(Until::Answer(0xA2))]);
    // Each command asks for the angle, too: nobody else does meanwhile.
    let frames = drive.velocity(RevolutionsPerSecond(1.0)).unwrap();
    assert_eq!(frames.as_slice(), [frame("147", "a2000000a08c0000"), frame("147", "9200000000000000")]);
}

#[test]
fn others_and_other_forms_tell_nothing() {
    let drive = rmd(1);
    let status = [0x9C, 0, 0, 0, 0, 0, 0, 0];
    assert!(drive.decode(&Frame::classic(ArbitrationId::standard(0x241), &status)).is_some());
    for other in [
        Frame::classic(ArbitrationId::standard(0x242), &status),
        Frame::classic(ArbitrationId::standard(0x141), &status),
        Frame::classic(ArbitrationId::standard(0x501), &status),
        Frame::classic(ArbitrationId::extended(0x241), &status),
        Frame::classic(ArbitrationId::standard(0x241), &status[..7]),
        Frame::fd(ArbitrationId::standard(0x241), &status),
        Frame::remote(ArbitrationId::standard(0x241)),
    ] {
        assert_eq!(drive.decode(&other), None, "{other}");
    }
}

#[test]
fn motion_is_told_from_harmless() {
    let drive = rmd(1);
    for (id, hex, motion) in [
        // Stops, reads, the watchdog's time.
        ("141", "8000000000000000", false),
        ("141", "8100000000000000", false),
        ("141", "7800000000000000", false),
        ("141", "9c00000000000000", false),
        ("141", "3001000000000000", false),
        ("141", "b3000000e8030000", false),
        // Setpoints, even of 0: they close the loop and open the brake.
        ("141", "a200000000000000", true),
        ("141", "a100000000000000", true),
        ("141", "a400000000000000", true),
        ("141", "a800000000000000", true),
        // The brake, gains, the zero, reset, id, bit rate, functions.
        ("141", "7700000000000000", true),
        ("141", "3101000000000000", true),
        ("141", "6400000000000000", true),
        ("141", "7600000000000000", true),
        ("141", "7900000000000002", true),
        ("141", "7900010000000000", false),
        ("141", "b400000000000000", true),
        ("141", "2002000001000000", true),
        // What is not understood.
        ("141", "0000000000000000", true),
        ("141", "80", true),
        ("141", "", true),
        // Everybody, the id, motion mode.
        ("280", "8100000000000000", false),
        ("280", "a200000010270000", true),
        ("300", "7900000000000002", true),
        ("300", "7900010000000000", false),
        ("300", "8000000000000000", true),
        ("401", "e66682e052333b55", true),
        ("401", "", true),
        // Others.
        ("142", "a200000010270000", false),
        ("402", "e66682e052333b55", false),
        ("241", "a200000010270000", false),
        ("501", "01e66682e0523300", false),
    ] {
        let frame = frame(id, hex);
        assert_eq!(drive.is_motion(&frame), motion, "{frame}");
        assert!(!motion || drive.commands.contains(&frame.id()), "{frame} is not watched");
    }
    assert!(drive.is_motion(&Frame::remote(ArbitrationId::standard(0x141))));
    assert!(!drive.is_motion(&Frame::classic(ArbitrationId::extended(0x141), &[0xA2, 0, 0, 0, 9, 0, 0, 0])));
}

#[test]
fn two_drives_share_the_broadcast_only() {
    let (a, b) = (rmd(1), rmd(32));
    assert!(a.owns.iter().all(|id| !b.owns.contains(id) && !b.shares.contains(id)));
    assert_eq!((&a.shares, a.broadcast), (&b.shares, b.broadcast));
    for (id, heard) in
        [(0x140, false), (0x141, true), (0x160, true), (0x161, false), (0x420, true), (0x7EF, false)]
    {
        assert_eq!(a.may_hear(ArbitrationId::standard(id)), heard, "{id:x}");
    }
}

#[test]
fn wrong_keys_are_named() {
    let id = ("id", Value::Integer(1));
    // One step is 1/360 rev/s; 91 rev/s fill the report.
    let slow = Common { standstill: Some(RevolutionsPerSecond(0.002)), ..COMMON };
    let fast = Common { max_speed: RevolutionsPerSecond(91.1), ..COMMON };
    for (common, keys, key) in [
        (COMMON, vec![], "id"),
        (COMMON, vec![("id", Value::Integer(0))], "id"),
        (COMMON, vec![("id", Value::Integer(33))], "id"),
        (COMMON, vec![id.clone(), ("brake", Value::Integer(1))], "brake"),
        (COMMON, vec![id.clone(), ("zero_current", Value::Float(0.01))], "zero_current"),
        (COMMON, vec![id.clone(), ("node", Value::Integer(1))], "node"),
        (slow, vec![id.clone()], "standstill_rpm"),
        (fast, vec![id], "max_rpm"),
    ] {
        assert_eq!(build("rmd", &common, &keys).unwrap_err().key, key);
    }
    let error = build("rmd", &COMMON, &[("id", Value::Integer(33))]).unwrap_err();
    assert_eq!(error.to_string(), "\"id\" must be 1 to 32, not 33");
}
