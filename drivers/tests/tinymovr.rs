//! Tinymovr: golden bytes, and the rules that no table of bytes shows.

mod common;

use common::{COMMON, build, bytes, enable_frames, stop_frames, text};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Format, Frame, PollWhen, Power, PowerProof, Refusal, Revolutions,
    RevolutionsPerSecond, StageKind, Standstill, Until, Value, WatchdogReading, WatchdogSet,
};

const VECTORS: &str = include_str!("vectors/tinymovr.txt");

/// Lowest eight bits of the hash of spec 2.4, where an identifier has them.
const HASH: u32 = 0x9E << 12;

/// 1000 ticks a turn.
fn keys(node: i64, firmware: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("node", Value::Integer(node)),
        ("firmware", text(firmware)),
        ("ticks_per_rev", Value::Integer(1000)),
    ]
}

fn tinymovr(node: i64, firmware: &str) -> Drive {
    build("tinymovr", &COMMON, &keys(node, firmware)).unwrap()
}

fn id(number: u32) -> ArbitrationId {
    ArbitrationId::extended(number)
}

/// A frame for, or of, node 1.
fn node1(endpoint: u32, hex: &str) -> Frame {
    Frame::classic(id(1 << 21 | endpoint), &bytes(hex))
}

/// The same with the hash of spec 2.4.
fn hashed(endpoint: u32, hex: &str) -> Frame {
    node1(endpoint | HASH, hex)
}

fn sendable(drive: &Drive) -> Vec<Frame> {
    let mut all = stop_frames(drive);
    all.extend(enable_frames(drive));
    all.extend(drive.poll.as_slice());
    all.extend(drive.velocity(RevolutionsPerSecond(1.0)).unwrap().as_slice());
    all
}

/// Reads as they are; writes with the hash, which keeps another firmware from taking them.
#[test]
fn frames_match_the_vendors_client() {
    let ours = sendable(&tinymovr(1, "2.4"));
    let mut checked = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let [message, number, hex] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let number = u32::from_str_radix(number, 16).unwrap();
        let golden = match hex {
            "R" => Frame::remote(id(number)),
            hex => Frame::classic(id(number | HASH), &bytes(hex)),
        };
        assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
        checked += 1;
    }
    assert_eq!(checked, 4);
}

#[test]
fn every_write_carries_the_hash_and_every_read_none() {
    for (firmware, low) in [("2.4", 0x9E), ("2.5", 0x3B), ("2.6", 0xA6), ("3.0", 0xF3), ("3.1", 0x2E)] {
        for frame in sendable(&tinymovr(200, firmware)) {
            let ArbitrationId::Extended(number) = frame.id() else { panic!("{frame}") };
            assert_eq!(number >> 21, 200);
            let expected = if frame.format() == Format::Remote { 0 } else { low };
            assert_eq!(number >> 12 & 0x1FF, expected, "{firmware} {frame}");
        }
    }
}

#[test]
fn answers_are_understood() {
    let drive = tinymovr(1, "2.4");
    let seen = |endpoint, hex| drive.decode(&node1(endpoint, hex)).unwrap();
    for (hex, power) in [("00", Power::Off), ("01", Power::Transition), ("02", Power::On)] {
        let state = u16::from_str_radix(hex, 16).unwrap();
        assert_eq!((seen(21, hex).power, seen(21, hex).state), (Some(power), Some(state)));
    }
    // -250.0 of 1000 ticks, 2500.0 of 1000 ticks.
    assert_eq!(seen(59, "00007ac3").velocity, Some(RevolutionsPerSecond(-0.25)));
    assert_eq!(seen(58, "00401c45").position, Some(Revolutions(2.5)));
    assert_eq!((seen(24, "00").fault, seen(24, "03").fault), (Some(None), Some(Some(Fault(3)))));
    assert_eq!(drive.explain(Fault(3)), "current limit exceeded, current before closed loop exceeded");
    assert_eq!(drive.decode(&node1(21, "03")), None, "no such state");
    for none in ["0000c07f", "0000807f"] {
        assert_eq!(drive.decode(&node1(59, none)), None);
        assert_eq!(drive.decode(&node1(58, none)), None);
    }
}

#[test]
fn a_drive_of_another_firmware_is_not_enabled() {
    let drive = tinymovr(1, "2.4");
    let step = drive.enable.steps()[0];
    assert_eq!(step.frames.as_slice(), [Frame::remote(id(1 << 21))]);
    assert_eq!(step.until, Some(Until::Answer(0)));
    let right = drive.decode(&node1(0, "9e756aee")).unwrap();
    assert!(step.until.unwrap().met_by(&right) && right.fault.is_none());
    let wrong = drive.decode(&node1(0, "1f7575f5")).unwrap();
    assert!(!step.until.unwrap().met_by(&wrong));
    let refusal = Refusal { request: 0, code: 0xF575_751F };
    assert_eq!(step.until.unwrap().refused_by(&wrong), Some(refusal));
    let heartbeat = |hex: &str| drive.decode(&Frame::classic(id(0x701), &bytes(hex))).unwrap();
    let healthy = heartbeat("9e756aee322e342e");
    assert_eq!((healthy.fault, healthy.answer, healthy.power), (None, None, None));
    let other = heartbeat("1f7575f5312e362e");
    let fault = other.fault.flatten().unwrap();
    assert_eq!((other.answer, other.refused), (None, None));
    assert!(drive.explain(fault).starts_with("wrong protocol"), "{}", drive.explain(fault));
}

/// Spec 3.1 has one endpoint more before the trajectories, so the watchdog is one further.
#[test]
fn endpoint_numbers_are_those_of_the_firmware() {
    let numbers = |firmware| {
        let frames = enable_frames(&tinymovr(1, firmware));
        let number = |frame: &Frame| match frame.id() {
            ArbitrationId::Extended(id) => id & 0xFFF,
            ArbitrationId::Standard(_) => panic!("{frame}"),
        };
        frames.iter().map(number).collect::<Vec<_>>()
    };
    let before = [0, 99, 97, 22, 27, 33, 21, 21, 58];
    assert_eq!(numbers("2.4"), before);
    assert_eq!(numbers("3.0"), before);
    assert_eq!(numbers("3.1"), [0, 100, 98, 22, 27, 33, 21, 21, 58]);
    let motion = |firmware, low: u32, endpoint| {
        tinymovr(1, firmware).is_motion(&Frame::remote(id(1 << 21 | low << 12 | endpoint)))
    };
    // The call that homes: 96 there, 97 here, where 97 is a setting there.
    assert!(motion("2.4", 0x9E, 96) && !motion("2.4", 0x9E, 97));
    assert!(motion("3.1", 0x2E, 97) && !motion("3.1", 0x2E, 96));
    // The moves: 86 and 87 there, 87 and 88 here.
    assert!(motion("2.4", 0x9E, 86) && !motion("2.4", 0x9E, 88));
    assert!(motion("3.1", 0x2E, 88) && !motion("3.1", 0x2E, 86));
    // What was put in is a setting.
    let added = Frame::classic(id(1 << 21 | 0x2E << 12 | 80), &[1]);
    assert!(tinymovr(1, "3.1").is_motion(&added));
}

#[test]
fn the_watchdog_is_written_before_the_drive_is_enabled() {
    let texts = |drive: &Drive| {
        drive.enable.steps().iter().map(|step| format!("{:?}", step.frames)).collect::<Vec<_>>()
    };
    let drive = tinymovr(1, "2.4");
    assert_eq!(
        texts(&drive),
        [
            "[00200000#R]",
            "[0029E063#CDCC4C3E, 0029E061#01]",
            "[0029E016#01, 0029E01B#00000000, 0029E021#00000000]",
            "[0029E015#02, 00200015#R, 0020003A#R]",
        ]
    );
    let without = |after| {
        let mut keys = keys(1, "2.4");
        keys.push(("watchdog_ms", Value::Integer(0)));
        build("tinymovr", &Common { after, ..COMMON }, &keys).unwrap()
    };
    assert_eq!(texts(&without(AfterStop::Hold))[1], "[0029E061#00]");
    assert_eq!(without(AfterStop::Hold).watchdog.set, WatchdogSet::Off);
    assert_eq!(drive.watchdog.set, WatchdogSet::ByLanyard(core::time::Duration::from_millis(200)));
    let reading = |endpoint, hex| drive.protocol.watchdog(&node1(endpoint, hex));
    assert_eq!(reading(97, "00"), Some(WatchdogReading::Off));
    assert_eq!(reading(97, "01"), None, "on, but after what time?");
    assert_eq!(reading(99, "0000003e"), Some(WatchdogReading::On(core::time::Duration::from_millis(125))));
    assert_eq!(reading(99, "000080bf"), None);
    assert_eq!(
        (without(AfterStop::Release).stop.release(0), without(AfterStop::Hold).stop.release(0)),
        (Some(1), None)
    );
}

#[test]
fn the_programme_stops_whatever_drove_it() {
    let drive = tinymovr(1, "2.4");
    let stages: Vec<_> = drive
        .stop
        .stages()
        .iter()
        .map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power))
        .collect();
    assert_eq!(
        stages,
        [
            (
                StageKind::Controlled,
                "[0029E016#01, 0029E01B#00000000, 0029E021#00000000]".to_owned(),
                PowerProof::Any
            ),
            (StageKind::TorqueOff, "[0029E015#00]".to_owned(), PowerProof::Off),
        ]
    );
}

#[test]
fn a_running_drive_is_not_off() {
    let drive = tinymovr(1, "2.4");
    let proof = drive.stop.stages()[1].proof;
    let proven = |state: &str, speed: &str| {
        let mut tracker = Standstill::NOTHING_SEEN;
        (0..50).any(|_| {
            let state = drive.decode(&node1(21, state)).unwrap();
            let speed = drive.decode(&node1(59, speed)).unwrap();
            tracker.observe(&proof, &state) | tracker.observe(&proof, &speed)
        })
    };
    // 50 and 51 of 1000 ticks a second.
    assert!(proven("00", "00004842"));
    assert!(!proven("00", "00004c42"), "it still turns");
    assert!(!proven("02", "00000000") && !proven("01", "00000000"));
}

/// Whoever drives it feeds its watchdog and hears its answers; the supervisor asks only when nobody does.
#[test]
fn each_command_asks() {
    let drive = tinymovr(1, "2.4");
    assert_eq!(drive.poll_when, PollWhen::WhenSilent);
    let frames = format!("{:?}", drive.velocity(RevolutionsPerSecond(-1.5)).unwrap());
    assert_eq!(frames, "[0029E01B#0080BBC4, 0020003B#R, 00200015#R, 0020003A#R]");
}

#[test]
fn others_and_other_forms_tell_nothing() {
    let drive = tinymovr(1, "2.4");
    assert!(drive.decode(&node1(21, "00")).is_some());
    for other in [
        Frame::classic(id(2 << 21 | 21), &[0]),
        Frame::classic(ArbitrationId::standard(21), &[0]),
        // Somebody else's read, or write: only ours have the hash 0.
        hashed(21, "00"),
        hashed(59, "00000000"),
        node1(21, ""),
        node1(21, "0000"),
        node1(59, "000000"),
        node1(59, "0000000000000000"),
        node1(24, "0000"),
        node1(0, "9e756a"),
        Frame::classic(id(0x702), &[0; 8]),
        Frame::classic(id(0x701), &[0; 4]),
        Frame::fd(id(1 << 21 | 21), &[0]),
        Frame::remote(id(1 << 21 | 21)),
    ] {
        assert_eq!(drive.decode(&other), None, "{other}");
    }
}

#[test]
fn motion_is_told_from_harmless() {
    let drive = tinymovr(1, "2.4");
    for (endpoint, hex, motion) in [
        // State, mode.
        (21, "00", false),
        (21, "01", true),
        (21, "02", true),
        (21, "", true),
        (21, "0000", true),
        (22, "01", false),
        (22, "00", true),
        (22, "02", true),
        (22, "04", true),
        // Setpoints: a velocity or a current of 0 stops, a position of 0 does not.
        (27, "00000000", false),
        (27, "00000080", false),
        (27, "0000803f", true),
        (27, "0000c07f", true),
        (27, "00", true),
        (33, "00000000", false),
        (33, "0000803f", true),
        (25, "00000000", true),
        // Limits and gains of a drive that may be running.
        (28, "00000000", true),
        (60, "00000000", true),
        // Calls.
        (42, "", true),
        (43, "", false),
        (45, "", true),
        (47, "0000000000000000", true),
        (86, "00000000", true),
        (96, "", true),
        (16, "", true),
        // Another node number.
        (49, "02000000", true),
        // Its watchdog.
        (97, "01", false),
        (97, "0100", true),
        (99, "cdcc4c3e", false),
        (99, "cdcc", true),
        // Read only, and beyond the last.
        (59, "00000000", false),
        (24, "00", false),
        (100, "00", false),
    ] {
        let frame = hashed(endpoint, hex);
        assert_eq!(drive.is_motion(&frame), motion, "{frame}");
        assert!(!motion || drive.commands.contains(&frame.id()), "{frame} is not watched");
        // The hash 0 is taken by every firmware; of the state it is an answer, to a read of ours.
        let answer = endpoint == 21 && hex.len() == 2;
        assert_eq!(drive.is_motion(&node1(endpoint, hex)), motion && !answer, "{frame}");
        // Of any other hash nothing is taken.
        assert!(!drive.is_motion(&node1(endpoint | 0x55 << 12, hex)));
    }
    // A remote request reads, or calls.
    for (endpoint, motion) in
        [(21, false), (27, false), (42, true), (43, false), (44, true), (96, true), (59, false)]
    {
        for hash in [0, HASH] {
            let frame = Frame::remote(id(1 << 21 | hash | endpoint));
            assert_eq!(drive.is_motion(&frame), motion, "{frame}");
        }
    }
    // Others.
    assert!(!drive.is_motion(&Frame::classic(id(2 << 21 | HASH | 21), &[2])));
    assert!(!drive.is_motion(&Frame::classic(ArbitrationId::standard(21), &[2])));
}

#[test]
fn nodes_are_apart() {
    let (a, b) = (tinymovr(1, "2.4"), tinymovr(2, "2.4"));
    assert!(a.owns.iter().all(|id| !b.owns.contains(id)) && a.shares.is_empty() && a.broadcast.is_none());
    assert!(a.owns.contains(&id(0x701)));
    // A marker must not feed a watchdog: nothing with a node is free, nor what the filter may take for this one.
    assert!(a.may_hear(id(0x1F_BFFF << 8)) && a.may_hear(ArbitrationId::standard(1 << 3)));
    assert!(!a.may_hear(ArbitrationId::standard(0x7EF)));
}

/// An ODrive leaves no standard identifier, and a Tinymovr only the extended ones without a node: half a thousand
/// million come before.
#[test]
fn a_marker_is_found_in_time() {
    let drives = [tinymovr(1, "2.4"), common::odrive(3, "0.6")];
    assert_eq!(drivers::marker::unheard(drives.iter()), Some(id(0x1F_FFFF)));
}

#[test]
fn wrong_keys_are_named() {
    let with = |key: &'static str, value: Value| {
        let mut keys: Vec<_> = keys(1, "2.4").into_iter().filter(|(name, _)| *name != key).collect();
        keys.push((key, value));
        keys
    };
    let without = |key: &str| keys(1, "2.4").into_iter().filter(|(name, _)| *name != key).collect::<Vec<_>>();
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    let slow = Common { standstill: Some(RevolutionsPerSecond(0.0)), ..COMMON };
    for (common, keys, key) in [
        (COMMON, without("node"), "node"),
        (COMMON, with("node", Value::Integer(0)), "node"),
        (COMMON, with("node", Value::Integer(256)), "node"),
        (COMMON, without("firmware"), "firmware"),
        (COMMON, with("firmware", text("1.6")), "firmware"),
        (COMMON, without("ticks_per_rev"), "ticks_per_rev"),
        (COMMON, with("ticks_per_rev", Value::Integer(0)), "ticks_per_rev"),
        (COMMON, with("watchdog_ms", Value::Integer(50)), "watchdog_ms"),
        (COMMON, with("hash", Value::Integer(50)), "hash"),
        (hold, keys(1, "2.4"), "watchdog_ms"),
        (slow, keys(1, "2.4"), "standstill_rpm"),
    ] {
        assert_eq!(build("tinymovr", &common, &keys).unwrap_err().key, key);
    }
}
