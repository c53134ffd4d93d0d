//! The golden bytes of the Damiao family and its rules that no table of bytes shows.

mod common;

use core::f32::consts::TAU;
use core::time::Duration;

use common::{COMMON, build, enable_frames, frame, stop_frames, text};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Power, PowerProof, RevolutionsPerSecond, StageKind,
    Standstill, Until, Value, WatchdogReading, WatchdogSet,
};

const VECTORS: &str = include_str!("vectors/damiao.txt");

const HOLD: Common = Common { after: AfterStop::Hold, ..COMMON };

fn keys(more: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let mut keys =
        vec![("id", Value::Integer(1)), ("feedback_id", Value::Integer(0x11)), ("model", text("4310"))];
    for (key, value) in more {
        keys.retain(|(known, _)| known != key);
        keys.push((key, value.clone()));
    }
    keys
}

fn damiao(common: &Common, more: &[(&'static str, Value)]) -> Drive {
    build("damiao", common, &keys(more)).unwrap()
}

fn vel() -> Drive {
    damiao(&COMMON, &[("watchdog_ms", Value::Integer(700))])
}

fn mit() -> Drive {
    damiao(&COMMON, &[("mode", text("mit"))])
}

fn lines() -> impl Iterator<Item = (&'static str, Frame)> {
    VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let [message, id, payload] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        (message, frame(id, payload))
    })
}

/// The speed that is 2 rad/s on the wire: the f32 above the nearest one, whose product would be cut below 2.
fn two_radians_per_second() -> RevolutionsPerSecond {
    RevolutionsPerSecond((2.0 / TAU).next_up())
}

#[test]
fn commands_match_the_golden_bytes() {
    let mut ours = Vec::new();
    for drive in [vel(), mit()] {
        ours.extend(stop_frames(&drive));
        ours.extend(enable_frames(&drive));
        ours.extend(drive.velocity(two_radians_per_second()).unwrap().as_slice());
    }
    let mut checked = 0;
    for (message, golden) in lines().filter(|(message, _)| !message.starts_with("RX")) {
        if message == "set TIMEOUT reg9 = 100 ms (2000 x 50us)" {
            // A time that no configuration may have; the frame with another differs in the value alone.
            let [head @ .., a, b, c, d] = golden.payload() else { panic!("{golden}") };
            assert_eq!(u32::from_le_bytes([*a, *b, *c, *d]), 100 * 20);
            let ours = enable_frames(&vel());
            let found = ours.iter().find(|frame| frame.payload().starts_with(head)).expect("it is written");
            assert_eq!((found.id(), &found.payload()[4..]), (golden.id(), &(700u32 * 20).to_le_bytes()[..]));
            checked += 1;
            continue;
        }
        assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
        checked += 1;
    }
    assert_eq!(checked, 5);
}

/// The twelve bits have no zero: -0.0073 rad/s is the half step below it.
#[test]
fn golden_feedback_is_understood() {
    let mut checked = 0;
    for (message, golden) in lines() {
        let Some(message) = message.strip_prefix("RX feedback state ") else { continue };
        let (power, state, fault) = match message {
            "DISABLED" => (Power::Off, 0, None),
            "ENABLED" => (Power::On, 1, None),
            "OVER_CURRENT" => (Power::Fault, 0xA, Some(Fault(0xA))),
            other => panic!("no expectation for {other}"),
        };
        let seen = vel().decode(&golden).expect(message);
        assert_eq!((seen.power, seen.state, seen.fault), (Some(power), Some(state), Some(fault)));
        let speed = seen.velocity.unwrap().0 * TAU;
        assert!((speed + 0.007_326).abs() < 1e-5, "{speed}");
        assert!(seen.position.unwrap().0.abs() < 1e-4);
        checked += 1;
    }
    assert_eq!(checked, 3);
}

#[test]
fn every_state_has_its_meaning() {
    for state in 0..=15u8 {
        let bytes = [state << 4 | 1, 0x7F, 0xFF, 0x7F, 0xF7, 0xFF, 30, 30];
        let seen = vel().decode(&Frame::classic(ArbitrationId::standard(0x11), &bytes)).unwrap();
        let power = match state {
            0 => Power::Off,
            1 => Power::On,
            8..=14 => Power::Fault,
            _ => Power::Transition,
        };
        assert_eq!(seen.power, Some(power), "{state:#x}");
        assert_eq!(seen.fault, Some((power == Power::Fault).then_some(Fault(u32::from(state)))));
    }
}

#[test]
fn the_programme_goes_from_gentle_to_final() {
    let stages = |drive: &Drive| -> Vec<_> {
        let stages = drive.stop.stages().iter();
        stages.map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power)).collect()
    };
    let off = (StageKind::TorqueOff, "[001#FFFFFFFFFFFFFFFD]".to_owned(), PowerProof::Off);
    let gentle = |frames: &str| (StageKind::Controlled, frames.to_owned(), PowerProof::Any);
    assert_eq!(stages(&vel()), [gentle("[201#0000000000000000]"), off.clone()]);
    assert_eq!(stages(&mit()), [gentle("[001#7FFF7FF0003337FF]"), off]);
    assert_eq!(vel().stop.release(0), Some(1));
    assert_eq!(damiao(&HOLD, &[]).stop.release(0), None);
}

#[test]
fn a_motor_on_a_shared_feedback_id_is_told_by_its_nibble() {
    let drives =
        [1, 2].map(|id| damiao(&COMMON, &[("id", Value::Integer(id)), ("feedback_id", Value::Integer(0))]));
    for (first, who) in [("01", 0), ("02", 1), ("11", 0), ("12", 1)] {
        let report = frame("000", &format!("{first}7fff7ff7ff1e20"));
        assert!(drives[who].decode(&report).is_some(), "{report}");
        assert!(drives[1 - who].decode(&report).is_none(), "{report}");
    }
    assert!(drives.iter().all(|drive| drive.shares.contains(&ArbitrationId::Standard(0))));
}

/// A drive that runs, or another's frame, or one of another form proves nothing; the same frame with the right
/// state does.
#[test]
fn only_its_own_word_proves_it_off() {
    let drive = vel();
    let proof = drive.stop.stages()[1].proof;
    let proven = |report: Frame| {
        let mut tracker = Standstill::NOTHING_SEEN;
        (0..10).any(|_| drive.decode(&report).is_some_and(|seen| tracker.observe(&proof, &seen)))
    };
    assert!(proven(frame("011", "017fff7ff7ff1e20")));
    assert!(proven(frame("011", "d17fff7ff7ff1e20")), "a drive that lost its master has no torque");
    assert!(!proven(frame("011", "117fff7ff7ff1e20")), "enabled");
    assert!(!proven(frame("011", "017fff9007ff1e20")), "turning");
    assert!(!proven(frame("011", "027fff7ff7ff1e20")), "another motor");
    assert!(!proven(frame("012", "017fff7ff7ff1e20")), "another id");
    assert!(!proven(frame("011", "017fff7ff7ff1e")), "too short");
    let id = ArbitrationId::extended(0x11);
    assert!(!proven(Frame::classic(id, &[1, 0x7F, 0xFF, 0x7F, 0xF7, 0xFF, 30, 30])));
    assert!(!proven(Frame::remote(ArbitrationId::standard(0x11))));
    assert!(!proven(Frame::fd(ArbitrationId::standard(0x11), &[1, 0x7F, 0xFF, 0x7F, 0xF7, 0xFF, 30, 30])));
}

/// The first byte of such an answer is the id: as feedback it would say DISABLED.
#[test]
fn an_answer_about_a_register_is_no_word_on_the_power_stage() {
    let drive = vel();
    for answer in [
        "01003309d0070000",
        "01005509d0070000",
        "0100330a03000000",
        "0100550a03000000",
        "0100aa0101000000",
        "01003316 0000f041",
        "0100cc0000000000",
    ] {
        let seen = drive.decode(&frame("011", &answer.replace(' ', ""))).unwrap_or_default();
        assert_eq!((seen.power, seen.velocity, seen.fault), (None, None, None), "{answer}");
    }
    // Where a shaft is at rest the fourth byte is 7F or 80, which is no register: nothing is lost.
    assert!(
        drive.decode(&frame("011", "010033 7ff7ff1e20".replace(' ', "").as_str())).unwrap().power.is_some()
    );
}

#[test]
fn enabling_waits_for_what_it_wrote() {
    let drive = vel();
    let texts: Vec<_> =
        drive.enable.steps().iter().map(|step| (format!("{:?}", step.frames), step.until.unwrap())).collect();
    assert_eq!(
        texts,
        [
            (
                "[201#0000000000000000, 001#FFFFFFFFFFFFFFFB, 001#FFFFFFFFFFFFFFFD]".to_owned(),
                Until::Power(Power::Off)
            ),
            ("[7FF#0100550A03000000, 7FF#0100330A00000000]".to_owned(), Until::Answer(10)),
            ("[7FF#01005509B0360000, 7FF#0100330900000000]".to_owned(), Until::Answer(9)),
            ("[201#0000000000000000, 001#FFFFFFFFFFFFFFFC]".to_owned(), Until::Power(Power::On)),
        ]
    );
    let answer = |bytes| drive.decode(&frame("011", bytes)).and_then(|seen| seen.answer);
    assert_eq!(answer("0100330a03000000"), Some(10));
    assert_eq!(answer("0100330a01000000"), None, "still in MIT mode");
    assert_eq!(answer("01003309b0360000"), Some(9));
    assert_eq!(answer("0100330900000000"), None, "still off");
    assert_eq!(answer("01003316 0000f041".replace(' ', "").as_str()), None, "not asked for");
}

/// A drive that holds must not fall when somebody takes it over.
#[test]
fn a_drive_that_holds_keeps_its_torque_while_it_is_set_up() {
    let off = frame("001", "fffffffffffffffd");
    assert!(!enable_frames(&damiao(&HOLD, &[])).contains(&off));
    assert!(enable_frames(&damiao(&COMMON, &[])).contains(&off));
}

#[test]
fn polls_neither_enable_nor_feed_while_it_talks() {
    let texts = |drive: &Drive| format!("{:?} {:?}", drive.poll_when, drive.poll);
    // The second keeps the watchdog of a drive that waits or holds.
    assert_eq!(texts(&vel()), "WhenSilent [7FF#0100CC0000000000, 201#0000000000000000]");
    assert_eq!(texts(&mit()), "WhenSilent [7FF#0100CC0000000000, 001#7FFF7FF0003337FF]");
}

#[test]
fn motion_is_told_from_harmless() {
    for (id, payload, motion) in [
        ("001", "fffffffffffffffd", false),
        ("001", "fffffffffffffffc", true),
        ("001", "fffffffffffffffb", true),
        ("001", "fffffffffffffffe", true),
        // Damping, from any position, with either zero; no torque at all.
        ("001", "7fff7ff0003337ff", false),
        ("001", "1234800000333800", false),
        ("001", "7fff9000000007ff", false),
        // A speed, stiffness, torque.
        ("001", "7fff8010003337ff", true),
        ("001", "7fff7ff0010007ff", true),
        ("001", "7fff7ff000000801", true),
        ("001", "7fff7ff0003337", true),
        ("001", "", true),
        ("101", "0000000000000000", true),
        ("301", "0000000000000000", true),
        ("201", "00000000", false),
        ("201", "0000000000000000", false),
        ("201", "0000008000000000", false),
        ("201", "0000000001000000", true),
        ("201", "0000803f00000000", true),
        ("201", "0000c07f00000000", true),
        ("201", "000000", true),
        ("201", "0000000000", true),
        // Registers: read, refresh, store, the watchdog; the mode, an id, what is unknown or cut.
        ("7FF", "0100330a00000000", false),
        ("7FF", "0100cc0000000000", false),
        ("7FF", "0100aa0100000000", false),
        ("7FF", "01005509d0070000", false),
        ("7FF", "01005509", true),
        ("7FF", "0100550a01000000", true),
        ("7FF", "0100550802000000", true),
        ("7FF", "0100770000000000", true),
        ("7FF", "0100", true),
        // Of others.
        ("7FF", "0200550a01000000", false),
        ("7FF", "0101550a01000000", false),
        ("002", "fffffffffffffffc", false),
        ("202", "0000803f00000000", false),
        ("011", "fffffffffffffffc", false),
    ] {
        for drive in [vel(), mit()] {
            assert_eq!(drive.is_motion(&frame(id, payload)), motion, "{id}#{payload}");
        }
    }
}

#[test]
fn the_watchdog_is_read_back() {
    let drive = vel();
    assert_eq!(drive.watchdog.set, WatchdogSet::ByLanyard(Duration::from_millis(700)));
    assert_eq!(format!("{:?}", drive.watchdog.ask), "[7FF#0100330900000000]");
    let told = |id, bytes| drive.protocol.watchdog(&frame(id, bytes));
    assert_eq!(told("011", "01003309d0070000"), Some(WatchdogReading::On(Duration::from_millis(100))));
    assert_eq!(told("011", "0100330900000000"), Some(WatchdogReading::Off));
    assert_eq!(told("011", "0100330a03000000"), None);
    assert_eq!(told("012", "01003309d0070000"), None);
    assert_eq!(told("011", "017fff7ff7ff1e20"), None);
    let off = damiao(&COMMON, &[("watchdog_ms", Value::Integer(0))]);
    assert_eq!(off.watchdog.set, WatchdogSet::Off);
    assert!(enable_frames(&off).iter().all(|frame| frame.payload()[..4] != [1, 0, 0x55, 9]));
    assert_eq!(damiao(&COMMON, &[]).watchdog.set, WatchdogSet::ByLanyard(Duration::from_millis(1500)));
}

/// What is at the end of the range may be anywhere beyond.
#[test]
fn a_position_at_the_end_of_its_range_is_none() {
    let position = |bytes| vel().decode(&frame("011", bytes)).unwrap().position;
    assert_eq!(position("11ffff7ff7ff1e20"), None);
    assert_eq!(position("1100007ff7ff1e20"), None);
    assert!(position("1100017ff7ff1e20").is_some());
}

#[test]
fn the_model_scales_the_speed() {
    let speed = |more: &[(&'static str, Value)]| {
        damiao(&COMMON, more).decode(&frame("011", "117ffffff7ff1e20")).unwrap().velocity.unwrap().0 * TAU
    };
    assert!((speed(&[]) - 30.0).abs() < 1e-3);
    assert!((speed(&[("model", text("4340"))]) - 10.0).abs() < 1e-3);
    assert!((speed(&[("v_max", Value::Float(45.5))]) - 45.5).abs() < 1e-3);
    // Two steps of 280 rad/s are more than the usual threshold.
    let coarse = damiao(&COMMON, &[("model", text("H3510"))]).stop.stage(0).proof.max_speed.0;
    assert!((coarse - 2.0 * 560.0 / 4095.0 / TAU).abs() < 1e-5, "{coarse}");
}

#[test]
fn what_is_faster_than_the_mit_frame_can_say_is_its_fastest() {
    let frames = mit().velocity(RevolutionsPerSecond(50.0)).unwrap();
    assert_eq!(frames.as_slice(), [frame("001", "7ffffff0003337ff")]);
}

#[test]
fn wrong_keys_are_named() {
    let integer = Value::Integer;
    let tight = Common { standstill: Some(RevolutionsPerSecond(0.002)), ..COMMON };
    for (common, more, key) in [
        (COMMON, ("id", integer(0)), "id"),
        (COMMON, ("id", integer(16)), "id"),
        (COMMON, ("feedback_id", integer(0x7FF)), "feedback_id"),
        (COMMON, ("feedback_id", integer(0x001)), "feedback_id"),
        (COMMON, ("feedback_id", integer(0x201)), "feedback_id"),
        (COMMON, ("model", text("9999")), "model"),
        (COMMON, ("mode", text("position")), "mode"),
        (COMMON, ("kd", Value::Float(1.0)), "kd"),
        (COMMON, ("v_max", integer(0)), "v_max"),
        (COMMON, ("watchdog_ms", integer(699)), "watchdog_ms"),
        (HOLD, ("mode", text("mit")), "after_stop"),
        (tight, ("mode", text("vel")), "standstill_rpm"),
    ] {
        assert_eq!(build("damiao", &common, &keys(&[more])).unwrap_err().key, key);
    }
    let bare = [("id", integer(1)), ("model", text("4310"))];
    assert!(build("damiao", &COMMON, &bare).is_ok());
    for without in 0..2 {
        let (missing, _) = &bare[without];
        assert_eq!(build("damiao", &COMMON, &bare[1 - without..2 - without]).unwrap_err().key, *missing);
    }
}
