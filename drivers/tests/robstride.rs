//! The golden bytes of the RobStride family and its rules that no table of bytes shows.

mod common;

use core::f32::consts::TAU;
use core::time::Duration;

use common::{COMMON, build, bytes, enable_frames, stop_frames, text};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Power, PowerProof, RevolutionsPerSecond, StageKind,
    Standstill, Until, Value, WatchdogReading, WatchdogSet,
};

const VECTORS: &str = include_str!("vectors/robstride.txt");

const HOLD: Common = Common { after: AfterStop::Hold, ..COMMON };
const AA: (&str, Value) = ("host", Value::Integer(0xAA));

fn keys(more: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let mut keys = vec![("id", Value::Integer(0x7F)), ("model", text("rs02"))];
    for (key, value) in more {
        keys.retain(|(known, _)| known != key);
        keys.push((key, value.clone()));
    }
    keys
}

fn robstride(common: &Common, more: &[(&'static str, Value)]) -> Drive {
    build("robstride", common, &keys(more)).unwrap()
}

fn cybergear() -> Drive {
    robstride(&COMMON, &[AA, ("model", text("cybergear"))])
}

fn frame(id: &str, hex: &str) -> Frame {
    Frame::classic(ArbitrationId::extended(u32::from_str_radix(id, 16).unwrap()), &bytes(hex))
}

fn lines() -> impl Iterator<Item = (&'static str, Frame)> {
    VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let [_, message, id, payload] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        (message, frame(id, payload))
    })
}

#[test]
fn commands_match_the_golden_bytes() {
    let mut ours = Vec::new();
    for drive in [cybergear(), robstride(&COMMON, &[("watchdog_ms", Value::Integer(500))])] {
        ours.extend(stop_frames(&drive));
        ours.extend(enable_frames(&drive));
    }
    let mut checked = 0;
    for (message, golden) in lines().filter(|(message, _)| !message.starts_with("RX")) {
        if message == "WRITE canTimeout 0x7028=2000" {
            // 100 ms, a time that no configuration may have; the frame with another differs in the value alone.
            let found = ours.iter().find(|frame| {
                frame.id() == golden.id() && frame.payload().starts_with(&golden.payload()[..4])
            });
            assert_eq!(found.expect("it is written").payload()[4..], 10_000u32.to_le_bytes());
            checked += 1;
            continue;
        }
        assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
        checked += 1;
    }
    assert_eq!(checked, 6);
}

/// The golden frame of a running motor is what the package that made it decodes as "Reset".
#[test]
fn golden_reports_are_understood() {
    let drive = robstride(&COMMON, &[AA]);
    let mut checked = 0;
    for (message, golden) in lines() {
        let Some(message) = message.strip_prefix("RX feedback mode=") else { continue };
        let power = if message == "Run" { Power::On } else { Power::Off };
        let seen = drive.decode(&golden).expect(message);
        assert_eq!((seen.power, seen.fault), (Some(power), Some(None)), "{message}");
        let speed = seen.velocity.unwrap().0 * TAU;
        assert!((speed - 0.000_671_397).abs() < 1e-7, "{speed}");
        let angle = seen.position.unwrap().0 * f64::from(TAU);
        assert!((angle - 0.000_191_75).abs() < 1e-6, "{angle}");
        checked += 1;
    }
    assert_eq!(checked, 2);
}

#[test]
fn mode_and_faults_are_told_by_the_identifier() {
    let drive = cybergear();
    let seen =
        |id: u32| drive.decode(&Frame::classic(ArbitrationId::extended(id), &bytes("8000800080000131")));
    for faults in 0..64u32 {
        let fault = Some((faults != 0).then_some(Fault(faults << 24)));
        for (mode, power) in
            [(0, if faults == 0 { Power::Off } else { Power::Fault }), (1, Power::Transition), (2, Power::On)]
        {
            let seen = seen(0x0200_7FAA | mode << 22 | faults << 16).unwrap();
            assert_eq!((seen.power, seen.fault), (Some(power), fault), "{mode} {faults:#x}");
            assert_eq!(seen.state.map(u32::from), Some(mode), "{mode} {faults:#x}");
        }
        assert_eq!(seen(0x0200_7FAA | 3 << 22 | faults << 16), None, "no such mode");
    }
    assert_eq!(drive.explain(Fault(5 << 24)), "undervoltage, too hot");
    assert_eq!(seen(0x1500_7FAA).unwrap().power, None);
    let faults = frame("15007FAA", "0400000001000000");
    assert_eq!(drive.decode(&faults).unwrap().fault, Some(Some(Fault(4))));
    assert_eq!(drive.decode(&frame("15007FAA", "0000000001000000")).unwrap().fault, Some(None));
}

#[test]
fn only_its_own_word_proves_it_off() {
    let drive = robstride(&COMMON, &[AA]);
    let proof = drive.stop.stages()[1].proof;
    let proven = |report: Frame| {
        let mut tracker = Standstill::NOTHING_SEEN;
        (0..10).any(|_| drive.decode(&report).is_some_and(|seen| tracker.observe(&proof, &seen)))
    };
    let still = "8000800080000131";
    assert!(proven(frame("02007FAA", still)));
    assert!(proven(frame("02047FAA", still)), "off with a fault");
    assert!(!proven(frame("02807FAA", still)), "running");
    assert!(!proven(frame("02847FAA", still)), "running with a fault");
    assert!(!proven(frame("02407FAA", still)), "calibrating");
    assert!(!proven(frame("02C07FAA", still)), "no such mode");
    assert!(!proven(frame("02007FAA", "8000900080000131")), "turning");
    assert!(!proven(frame("02007EAA", still)), "another motor");
    assert!(!proven(frame("02007FFF", still)), "to another host");
    assert!(!proven(frame("18007FAA", still)), "another type");
    assert!(!proven(frame("02007FAA", "80008000800001")), "too short");
    assert!(!proven(Frame::remote(ArbitrationId::extended(0x0200_7FAA))));
    assert!(!proven(Frame::fd(ArbitrationId::extended(0x0200_7FAA), &bytes(still))));
}

#[test]
fn the_programme_goes_from_gentle_to_final() {
    let drive = robstride(&COMMON, &[]);
    let stages = drive.stop.stages().iter();
    let texts: Vec<_> =
        stages.map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power)).collect();
    assert_eq!(
        texts,
        [
            (StageKind::Controlled, "[1200FF7F#0A70000000000000]".to_owned(), PowerProof::Any),
            (StageKind::TorqueOff, "[0400FF7F#0000000000000000]".to_owned(), PowerProof::Off),
        ]
    );
    assert_eq!((drive.stop.release(0), robstride(&HOLD, &[]).stop.release(0)), (Some(1), None));
    // A stop would end the controlled stage: it is asked with that stage itself, and only when silent.
    let polls = format!("{:?} {:?}", drive.poll_when, drive.poll);
    assert_eq!(polls, "WhenSilent [1200FF7F#0A70000000000000]");
}

#[test]
fn enabling_waits_for_what_it_wrote() {
    let drive = robstride(&COMMON, &[("watchdog_ms", Value::Integer(500))]);
    let steps = drive.enable.steps().iter();
    let texts: Vec<_> = steps.map(|step| (format!("{:?}", step.frames), step.until.unwrap())).collect();
    assert_eq!(
        texts,
        [
            ("[1200FF7F#0A70000000000000, 0400FF7F#0100000000000000]".to_owned(), Until::Power(Power::Off)),
            ("[1200FF7F#0570000002000000, 1100FF7F#0570000000000000]".to_owned(), Until::Answer(0x7005)),
            ("[1200FF7F#2870000010270000, 1100FF7F#2870000000000000]".to_owned(), Until::Answer(0x7028)),
            ("[1200FF7F#0A70000000000000, 0300FF7F#0000000000000000]".to_owned(), Until::Power(Power::On)),
        ]
    );
    let answer = |id, bytes| drive.decode(&frame(id, bytes)).and_then(|seen| seen.answer);
    assert_eq!(answer("11007FFF", "0570000002000000"), Some(0x7005));
    assert_eq!(answer("11007FFF", "0570000001000000"), None, "still in another mode");
    assert_eq!(answer("11007FFF", "2870000010270000"), Some(0x7028));
    assert_eq!(answer("11007FFF", "2870000000000000"), None, "still off");
    assert_eq!(answer("11017FFF", "0570000002000000"), None, "the read failed");
    assert_eq!(answer("11007FFF", "0a70000000000000"), None, "not asked for");
}

#[test]
fn the_speed_is_in_radians_per_second() {
    let frames = cybergear().velocity(RevolutionsPerSecond(1.0)).unwrap();
    assert_eq!(frames.as_slice(), [frame("1200AA7F", "0a700000db0fc940")]);
    let speed = |more: &[(&'static str, Value)]| {
        robstride(&COMMON, more).decode(&frame("02807FFF", "8000ffff80000131")).unwrap().velocity.unwrap().0
            * TAU
    };
    assert!((speed(&[]) - 44.0).abs() < 1e-3);
    assert!((speed(&[("model", text("rs04"))]) - 15.0).abs() < 1e-3);
    assert!((speed(&[("model", text("rs00")), ("v_max", Value::Integer(33))]) - 33.0).abs() < 1e-3);
    let position = |hex| cybergear().decode(&frame("02807FAA", hex)).unwrap().position;
    assert!(position("0001800080000131").is_some());
    assert_eq!(position("0000800080000131"), None, "the end of the range is no position");
    assert_eq!(position("ffff800080000131"), None);
}

#[test]
fn motion_is_told_from_harmless_whoever_sends_it() {
    let drive = robstride(&COMMON, &[]);
    for (id, payload, motion) in [
        ("0300FF7F", "0000000000000000", true),
        ("0300AA7F", "0000000000000000", true),
        ("0300007F", "", true),
        ("0500FD7F", "0000000000000000", true),
        ("0600FD7F", "0100000000000000", true),
        ("0400FF7F", "0000000000000000", false),
        ("0400AA7F", "0100000000000000", false),
        // Speed and current 0 or -0, limits, the watchdog.
        ("1200AA7F", "0a70000000000000", false),
        ("1200AA7F", "0a70000000000080", false),
        ("1200AA7F", "0a7000000000803f", true),
        ("1200AA7F", "0a7000000000c07f", true),
        ("1200AA7F", "0670000000000000", false),
        ("1200AA7F", "067000000000803f", true),
        ("1200AA7F", "1770000000000040", false),
        ("1200AA7F", "28700000d0070000", false),
        // Run mode, position, what is unknown or cut.
        ("1200AA7F", "0570000002000000", true),
        ("1200AA7F", "1670000000000000", true),
        ("1200AA7F", "0c20000000000000", true),
        ("1200AA7F", "0a700000000000", true),
        // Reads, reports, other motors.
        ("1100AA7F", "0a70000000000000", false),
        ("02807FAA", "8000800080000131", false),
        ("0300AA7E", "0000000000000000", false),
        ("1200AA01", "0a7000000000803f", false),
    ] {
        assert_eq!(drive.is_motion(&frame(id, payload)), motion, "{id}#{payload}");
    }
    assert!(drive.is_motion(&Frame::remote(ArbitrationId::extended(0x0300_AA7F))));
    assert!(!drive.is_motion(&Frame::classic(ArbitrationId::standard(0x7F), &[0xFF; 8])));
}

/// Two motors on one bus do not claim each other's ids, whatever their hosts; two with one id do.
#[test]
fn ids_are_apart() {
    let one = robstride(&COMMON, &[("id", Value::Integer(1))]);
    let two = robstride(&COMMON, &[("id", Value::Integer(2)), AA]);
    let same = robstride(&COMMON, &[("id", Value::Integer(1)), AA]);
    assert!(one.owns.iter().all(|id| !two.owns.contains(id)));
    assert!(one.owns.iter().any(|id| same.owns.contains(id)));
}

#[test]
fn the_watchdog_is_read_back_where_there_is_one() {
    let drive = robstride(&COMMON, &[]);
    assert_eq!(drive.watchdog.set, WatchdogSet::ByLanyard(Duration::from_millis(1000)));
    assert_eq!(format!("{:?}", drive.watchdog.ask), "[1100FF7F#2870000000000000]");
    let told = |id, bytes| drive.protocol.watchdog(&frame(id, bytes));
    let on = Some(WatchdogReading::On(Duration::from_millis(100)));
    assert_eq!(told("11007FFF", "28700000d0070000"), on);
    assert_eq!(told("11007FFF", "2870000000000000"), Some(WatchdogReading::Off));
    assert_eq!(told("11007FFF", "0570000002000000"), None);
    assert_eq!(told("11017FFF", "28700000d0070000"), None);
    assert_eq!(told("02007FFF", "28700000d0070000"), None);
    let off = robstride(&COMMON, &[("watchdog_ms", Value::Integer(0))]);
    assert_eq!((off.watchdog.set, off.enable.steps().len()), (WatchdogSet::Off, 3));
    assert_eq!(cybergear().watchdog.set, WatchdogSet::Missing);
    assert_eq!(cybergear().enable.steps().len(), 3);
    assert!(cybergear().watchdog.ask.as_slice().is_empty());
}

#[test]
fn wrong_keys_are_named() {
    let integer = Value::Integer;
    let tight = Common { standstill: Some(RevolutionsPerSecond(0.0002)), ..COMMON };
    for (common, more, key) in [
        (COMMON, vec![("id", integer(0))], "id"),
        (COMMON, vec![("id", integer(128))], "id"),
        (COMMON, vec![("host", integer(0x7F))], "host"),
        (COMMON, vec![("host", integer(256))], "host"),
        (COMMON, vec![("model", text("rs99"))], "model"),
        (COMMON, vec![("v_max", integer(0))], "v_max"),
        (COMMON, vec![("watchdog_ms", integer(399))], "watchdog_ms"),
        (COMMON, vec![("model", text("cybergear")), ("watchdog_ms", integer(0))], "watchdog_ms"),
        (tight, vec![], "standstill_rpm"),
    ] {
        assert_eq!(build("robstride", &common, &keys(&more)).unwrap_err().key, key);
    }
    assert_eq!(build("robstride", &COMMON, &[("id", integer(1))]).unwrap_err().key, "model");
    assert_eq!(build("robstride", &COMMON, &[("model", text("rs01"))]).unwrap_err().key, "id");
}
