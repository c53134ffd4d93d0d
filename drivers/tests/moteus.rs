//! moteus: the golden bytes of its vendor's client, and the rules that no table of bytes shows.

mod common;

use common::{COMMON, build, bytes, enable_frames, stop_frames};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Format, Frame, Power, PowerProof, Revolutions,
    RevolutionsPerSecond, StageKind, Standstill, Until, Value, WatchdogSet,
};

const VECTORS: &str = include_str!("vectors/moteus.txt");

/// What a frame is filled with (docs/protocol/can.md).
const NOP: u8 = 0x50;

/// All lengths a CAN FD frame can have (ISO 11898-1).
const LENGTHS: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64];

fn moteus(pairs: &[(&str, i64)]) -> Drive {
    let keys: Vec<_> = pairs.iter().map(|(key, number)| (*key, Value::Integer(*number))).collect();
    build("moteus", &COMMON, &keys).unwrap()
}

fn filled(mut payload: Vec<u8>) -> Vec<u8> {
    let length = LENGTHS.into_iter().find(|length| *length >= payload.len()).unwrap();
    payload.resize(length, NOP);
    payload
}

fn id(form: &str, number: &str) -> ArbitrationId {
    let number = u32::from_str_radix(number, 16).unwrap();
    match form {
        "S" => ArbitrationId::standard(u16::try_from(number).unwrap()),
        "E" => ArbitrationId::extended(number),
        other => panic!("{other}"),
    }
}

fn fd(form: &str, number: &str, hex: &str) -> Frame {
    Frame::fd(id(form, number), &filled(bytes(hex)))
}

fn lines() -> impl Iterator<Item = (&'static str, Frame)> {
    VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let [message, form, number, hex] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        (message, fd(form, number, hex))
    })
}

fn sendable(drive: &Drive) -> Vec<Frame> {
    let mut all = stop_frames(drive);
    all.extend(enable_frames(drive));
    all.extend(drive.poll.as_slice());
    all.extend(drive.velocity(RevolutionsPerSecond(1.0)).unwrap().as_slice());
    all.extend(drive.broadcast);
    all
}

/// What is golden but never sent as it is, and why.
const NOT_SENT: &[(&str, &str)] = &[
    ("make_stop()", "asks for no answer"),
    ("make_brake()", "asks for no answer"),
    (
        "make_position(position=nan,velocity=0,accel_limit=2.0,query=True)",
        "overrides the drive's own acceleration",
    ),
    ("make_position(position=nan,velocity=1.0)", "has no watchdog of its own and asks for no answer"),
];

/// Sent with the query behind, so that each command is answered.
const WITH_QUERY: &str = "make_position(position=nan,velocity=1.0,watchdog_timeout=0.1)";

#[test]
fn commands_match_the_vendors_client() {
    let mut checked = 0;
    for (message, golden) in lines().filter(|(message, _)| !message.starts_with("RX")) {
        let (number, call) = message.split_once(' ').unwrap();
        let number = number.strip_prefix("id").unwrap().parse().unwrap();
        let mut ours = sendable(&moteus(&[("id", number), ("watchdog_ms", 100)]));
        ours.extend(sendable(&moteus(&[("id", number), ("watchdog_ms", 0)])));
        if let Some((call, why)) = NOT_SENT.iter().find(|(name, _)| *name == call) {
            assert!(!ours.contains(&golden), "{call} is sent, though it {why}");
        } else if call == WITH_QUERY {
            let mut payload = golden.payload()[..19].to_vec();
            payload.extend(bytes("11001f01130d"));
            let with_query = fd("E", &format!("{:X}", 0x8000 + number), "");
            let with_query = Frame::fd(with_query.id(), &filled(payload));
            assert!(ours.contains(&with_query), "{message}: {with_query} is not among {ours:?}");
        } else {
            assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
        }
        checked += 1;
    }
    assert_eq!(checked, 19);
}

#[test]
fn answers_are_understood() {
    let drive = moteus(&[("id", 1)]);
    let seen = |hex: &str| drive.decode(&fd("S", "100", hex)).unwrap();
    let mut checked = 0;
    for (message, frame) in lines().filter(|(message, _)| message.starts_with("RX")) {
        let seen = drive.decode(&frame).expect(message);
        match message {
            "RX reply id1->host0, example of docs/protocol/can.md" => {
                assert_eq!((seen.power, seen.state, seen.fault), (Some(Power::On), Some(10), Some(None)));
                assert_eq!(seen.velocity, Some(RevolutionsPerSecond(0.064)));
                assert_eq!(seen.position, None, "an int16 ends after three turns");
            }
            "RX reply id1->host0 stopped mode0 vel0" => {
                assert_eq!((seen.power, seen.fault), (Some(Power::Off), Some(None)));
                assert_eq!(seen.velocity, Some(RevolutionsPerSecond(0.0)));
                assert_eq!(seen.position, Some(Revolutions(1.0)));
            }
            "RX reply id1->host0 fault mode1 code33" => {
                assert_eq!((seen.power, seen.fault), (Some(Power::Fault), Some(Some(Fault(33)))));
            }
            other => panic!("no expectation for {other}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 3);
    assert_eq!(drive.explain(Fault(33)), "motor driver fault");
    // What limits a running drive is no fault.
    assert_eq!(seen("21000a210f63").fault, Some(None));
    // A fault without its code is one all the same.
    assert_eq!((seen("210001").power, seen("210001").fault), (Some(Power::Fault), None));
}

/// 0.064 rev/s are well below one step of 0.1, and 0 in int8.
#[test]
fn coarse_readings_are_no_readings() {
    let drive = moteus(&[("id", 1)]);
    let seen = drive.decode(&fd("S", "100", "210000210200")).unwrap();
    assert_eq!((seen.power, seen.velocity), (Some(Power::Off), None));
    let seen = drive.decode(&fd("S", "100", "2902000000802502ffff")).unwrap();
    assert_eq!(seen.velocity, Some(RevolutionsPerSecond(-0.000_25)), "the later one of two");
    // What is not a number, and the numbers that stand for it.
    for none in ["2d020000c07f", "2d020000807f", "290200000080", "25020080"] {
        assert_eq!(drive.decode(&fd("S", "100", none)), None, "{none}");
    }
}

/// Fails if a number is scaled wrongly: whoever asks may have it in another width than Lanyard does.
#[test]
fn each_width_has_its_steps() {
    let drive = moteus(&[("id", 1)]);
    let seen = |hex: &str| drive.decode(&fd("S", "100", hex)).unwrap();
    // Velocity: 0.00001 rev/s in int32, 0.00025 in int16, itself as a float.
    for (hex, rps) in
        [("2902e0930400", 3.0), ("2902206cfbff", -3.0), ("2502e02e", 3.0), ("2d0200004040", 3.0)]
    {
        assert_eq!(seen(hex).velocity, Some(RevolutionsPerSecond(rps)), "{hex}");
    }
    // Position: 0.00001 revolutions in int32, itself as a float; the narrow ones end within a few turns.
    for (hex, turns) in [("2901e0930400", 3.0), ("2901206cfbff", -3.0), ("2d0100004040", 3.0)] {
        let position = seen(hex).position.unwrap();
        assert!((position.0 - turns).abs() < 1e-9, "{hex}: {position:?}");
    }
    assert_eq!(drive.decode(&fd("S", "100", "25010a00")), None);
}

#[test]
fn each_mode_has_its_meaning() {
    let drive = moteus(&[("id", 1)]);
    for number in 0..=255u8 {
        let expected = match number {
            0 => Some(Power::Off),
            1 => Some(Power::Fault),
            2..=4 => Some(Power::Transition),
            11 | 12 | 15 => Some(Power::QuickStop),
            // Negative int8 is no mode.
            128.. => None,
            _ => Some(Power::On),
        };
        let seen = drive.decode(&fd("S", "100", &format!("2100{number:02x}")));
        assert_eq!(seen.and_then(|seen| seen.power), expected, "{number}");
    }
}

#[test]
fn others_and_other_forms_tell_nothing() {
    let drive = moteus(&[("id", 1)]);
    let stopped = bytes("2100002f010000803f0000000000000000230d301e005050");
    assert!(drive.decode(&Frame::fd(ArbitrationId::standard(0x100), &stopped)).is_some());
    for other in [
        Frame::fd(ArbitrationId::standard(0x200), &stopped),
        Frame::fd(ArbitrationId::standard(0x101), &stopped),
        Frame::fd(ArbitrationId::extended(0x100), &stopped),
        Frame::classic(ArbitrationId::standard(0x100), &stopped[..3]),
        Frame::remote(ArbitrationId::standard(0x100)),
        // Cut off, or with something behind that is not filling.
        Frame::fd(ArbitrationId::standard(0x100), &stopped[..20]),
        fd("S", "100", "21000001000a"),
        fd("S", "100", "210000ff"),
    ] {
        assert_eq!(drive.decode(&other), None, "{other}");
    }
    let far = moteus(&[("id", 9), ("host", 3), ("prefix", 5)]);
    assert_eq!(far.reports, [ArbitrationId::extended(0x5_0903)]);
    assert!(far.decode(&Frame::fd(ArbitrationId::extended(0x5_0903), &stopped)).is_some());
    assert_eq!(moteus(&[("id", 9)]).reports, [ArbitrationId::extended(0x900)]);
}

#[test]
fn the_programme_goes_from_damping_to_off() {
    let drive = moteus(&[("id", 5)]);
    let stages: Vec<_> = drive
        .stop
        .stages()
        .iter()
        .map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power))
        .collect();
    let frame = |mode: &str| format!("[00008005##10100{mode}11001F01130D505050]");
    assert_eq!(
        stages,
        [
            (StageKind::Controlled, frame("0C"), PowerProof::NotFollowing),
            (StageKind::Quick, frame("0F"), PowerProof::NotFollowing),
            (StageKind::TorqueOff, frame("00"), PowerProof::Off),
        ]
    );
    assert_eq!(drive.stop.release(0), Some(2));
    assert_eq!(drive.broadcast, Some(Frame::fd(ArbitrationId::standard(0x7F), &[1, 0, 12])));
}

#[test]
fn a_running_drive_is_not_stopped_however_slow() {
    let drive = moteus(&[("id", 1)]);
    for stage in drive.stop.stages() {
        let mut tracker = Standstill::NOTHING_SEEN;
        for _ in 0..50 {
            let still = fd("S", "100", "21000a2f010000803f0000000000000000230d301e00");
            assert!(!tracker.observe(&stage.proof, &drive.decode(&still).unwrap()), "{:?}", stage.kind);
        }
    }
}

#[test]
fn enabling_clears_first() {
    let drive = moteus(&[("id", 1)]);
    let steps: Vec<_> =
        drive.enable.steps().iter().map(|step| (format!("{:?}", step.frames), step.until)).collect();
    assert_eq!(
        steps[0],
        ("[00008001##101000011001F01130D505050]".to_owned(), Some(Until::Power(Power::Off)))
    );
    assert_eq!(steps[1].1, Some(Until::Power(Power::On)));
    assert!(steps[1].0.starts_with("[00008001##101000A0E200000C07F00000000"), "{}", steps[1].0);
}

/// NaN in register 0x027 would switch the drive's watchdog off for as long as nobody else commands it.
#[test]
fn motion_always_has_an_end() {
    for (millis, time) in [(100, Some(0.1f32)), (200, Some(0.2)), (10_000, Some(10.0)), (0, None)] {
        let drive = moteus(&[("id", 1), ("watchdog_ms", millis)]);
        for rps in [0.0, 1.0, -50.0] {
            let frames = drive.velocity(RevolutionsPerSecond(rps)).unwrap();
            let [frame] = frames.as_slice() else { panic!("one frame") };
            let payload = frame.payload();
            assert_eq!(payload[..5], [0x01, 0x00, 0x0A, 0x0E, 0x20]);
            assert!(f32::from_le_bytes(payload[5..9].try_into().unwrap()).is_nan(), "nowhere to go to");
            assert_eq!(f32::from_le_bytes(payload[9..13].try_into().unwrap()), rps);
            let given = (payload[13..15] == [0x0D, 0x27])
                .then(|| f32::from_le_bytes(payload[15..19].try_into().unwrap()));
            assert_eq!(given, time);
        }
    }
    let set = |millis| moteus(&[("id", 1), ("watchdog_ms", millis)]).watchdog.set;
    assert_eq!(set(200), WatchdogSet::ByLanyard(core::time::Duration::from_millis(200)));
    assert_eq!(set(0), WatchdogSet::ByHand);
}

#[test]
fn every_frame_has_a_length_that_exists() {
    for keys in [[("id", 1), ("watchdog_ms", 200)], [("id", 1), ("watchdog_ms", 0)]] {
        for frame in sendable(&moteus(&keys)) {
            assert_eq!(frame.format(), Format::FdBrs);
            assert!(LENGTHS.contains(&frame.payload().len()), "{frame}");
        }
    }
}

#[test]
fn motion_is_told_from_harmless() {
    let drive = moteus(&[("id", 5)]);
    for (form, number, hex, motion) in [
        // Modes.
        ("S", "005", "010000", false),
        ("S", "005", "01000c", false),
        ("S", "005", "01000f", false),
        ("S", "005", "01000a", true),
        ("S", "005", "010005", true),
        ("S", "005", "010009", true),
        ("S", "005", "01000d", true),
        ("S", "005", "01000e", true),
        ("S", "005", "01000b", true),
        // The same in other widths, and with the count behind.
        ("S", "005", "05000000", false),
        ("S", "005", "05000a00", true),
        ("S", "005", "09000a000000", true),
        ("S", "005", "0d0000002041", true),
        ("S", "005", "0d0000000000", true),
        ("S", "005", "00010000", false),
        ("S", "005", "0001000a", true),
        // A stop with anything else in the frame; a mode among several registers.
        ("S", "005", "0100000d210000803f", true),
        ("S", "005", "01000001000a", true),
        ("S", "005", "02000000", true),
        // Another register: it may move the position that is held.
        ("S", "005", "0d21000000", true),
        ("S", "005", "0e3001000080bf", true),
        // The console.
        ("S", "005", "40010a6420706f73206e616e20", true),
        ("S", "005", "400100", false),
        ("S", "005", "420130", false),
        // Reads, filling, nothing.
        ("E", "00008005", "11001f01130d", false),
        ("E", "00008005", "5050", false),
        ("E", "00008005", "", false),
        // What is not understood, and zeros for filling.
        ("E", "00008005", "60", true),
        ("E", "00008005", "010000000000", true),
        ("E", "00008005", "0100", true),
        ("E", "00008005", "00ffffffff7f", true),
        // Any sender, any form, broadcast.
        ("E", "00001205", "01000a", true),
        ("E", "0000FF05", "01000a", true),
        ("S", "705", "01000a", true),
        ("E", "00000005", "01000a", true),
        ("S", "07F", "01000a", true),
        ("E", "0000807F", "01000a", true),
        ("S", "07F", "01000c", false),
        // Others: another drive, another prefix, an answer to host 0.
        ("S", "006", "01000a", false),
        ("E", "00018005", "01000a", false),
        ("E", "00000500", "01000a", false),
    ] {
        let frame = fd(form, number, hex);
        assert_eq!(drive.is_motion(&frame), motion, "{frame}");
        assert!(!motion || drive.commands.contains(&frame.id()), "{frame} is not watched");
    }
    // The drive takes classic frames as well; a remote request is not understood.
    assert!(drive.is_motion(&Frame::classic(ArbitrationId::standard(5), &[1, 0, 10])));
    assert!(!drive.is_motion(&Frame::classic(ArbitrationId::standard(5), &[1, 0, 0])));
    assert!(drive.is_motion(&Frame::remote(ArbitrationId::standard(5))));
    // With a prefix, standard identifiers are heard all the same.
    let prefixed = moteus(&[("id", 5), ("prefix", 1)]);
    assert!(prefixed.is_motion(&fd("E", "00018005", "01000a")));
    assert!(prefixed.is_motion(&fd("S", "005", "01000a")));
    assert!(!prefixed.is_motion(&fd("E", "00008005", "01000a")));
    assert!(prefixed.commands.contains(&id("S", "005")) && prefixed.commands.contains(&id("E", "00018005")));
}

#[test]
fn two_drives_share_the_broadcast_only() {
    let (a, b) = (moteus(&[("id", 1)]), moteus(&[("id", 2)]));
    assert!(a.owns.iter().all(|id| !b.owns.contains(id) && !b.shares.contains(id)));
    assert_eq!((&a.shares, a.broadcast), (&b.shares, b.broadcast));
    // A marker is for nobody: no destination has the eighth bit.
    assert!(!a.may_hear(ArbitrationId::standard(0x7EF)));
    assert!(a.may_hear(ArbitrationId::standard(0x76F)));
}

#[test]
fn wrong_keys_are_named() {
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    let slow = Common { standstill: Some(RevolutionsPerSecond(0.0)), ..COMMON };
    for (common, keys, key) in [
        (COMMON, vec![], "id"),
        (COMMON, vec![("id", 0)], "id"),
        (COMMON, vec![("id", 127)], "id"),
        (COMMON, vec![("id", 3), ("host", 3)], "host"),
        (COMMON, vec![("id", 3), ("host", 127)], "host"),
        (COMMON, vec![("id", 3), ("prefix", 8192)], "prefix"),
        (COMMON, vec![("id", 3), ("watchdog_ms", 99)], "watchdog_ms"),
        (COMMON, vec![("id", 3), ("watchdog_ms", 10_001)], "watchdog_ms"),
        (COMMON, vec![("id", 3), ("node", 3)], "node"),
        (hold, vec![("id", 3)], "after_stop"),
        (slow, vec![("id", 3)], "standstill_rpm"),
    ] {
        let keys: Vec<_> = keys.into_iter().map(|(key, number)| (key, Value::Integer(number))).collect();
        assert_eq!(build("moteus", &common, &keys).unwrap_err().key, key, "{keys:?}");
    }
    let error = build("moteus", &COMMON, &[("id", Value::Integer(127))]).unwrap_err();
    assert_eq!(error.to_string(), "\"id\" must be 1 to 126, not 127");
}
