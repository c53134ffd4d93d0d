//! The golden bytes of the CubeMars MIT family and its rules that no table of bytes shows.

mod common;

use core::f32::consts::TAU;

use common::{COMMON, build, enable_frames, frame, stop_frames, text};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Output, PowerProof, RevolutionsPerSecond, StageKind,
    Standstill, Until, Value, WatchdogSet,
};

const VECTORS: &str = include_str!("vectors/cubemars_mit.txt");

fn keys(more: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let mut keys = vec![("id", Value::Integer(1)), ("model", text("AK80-9"))];
    for (key, value) in more {
        keys.retain(|(known, _)| known != key);
        keys.push((key, value.clone()));
    }
    keys
}

fn cubemars(more: &[(&'static str, Value)]) -> Drive {
    build("cubemars-mit", &COMMON, &keys(more)).unwrap()
}

#[test]
fn commands_match_the_golden_bytes() {
    let drive = cubemars(&[]);
    let mut ours = stop_frames(&drive);
    ours.extend(enable_frames(&drive));
    let mut checked = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let [message, id, payload] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert!(ours.contains(&frame(id, payload)), "{message} is not among {ours:?}");
        checked += 1;
    }
    assert_eq!(checked, 3);
}

#[test]
fn the_programme_goes_from_gentle_to_final() {
    let drive = cubemars(&[]);
    let stages = drive.stop.stages().iter();
    let texts: Vec<_> =
        stages.map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power)).collect();
    assert_eq!(
        texts,
        [
            (StageKind::Controlled, "[001#8000800000333800]".to_owned(), PowerProof::Any),
            (StageKind::TorqueOff, "[001#FFFFFFFFFFFFFFFD]".to_owned(), PowerProof::NoOutput),
        ]
    );
    assert_eq!(drive.stop.release(0), Some(1));
}

/// The manual's way to read a state is to switch the drive on. What switches it off would end a gentle stop,
/// for a stopping drive is asked all the time.
#[test]
fn it_is_asked_with_its_gentle_stop_and_only_when_silent() {
    let drive = cubemars(&[]);
    assert_eq!(format!("{:?} {:?}", drive.poll_when, drive.poll), "WhenSilent [001#8000800000333800]");
}

#[test]
fn enabling_waits_for_an_answer_without_error() {
    let drive = cubemars(&[]);
    let [step] = drive.enable.steps() else { panic!("one step") };
    assert_eq!(format!("{:?}", step.frames), "[001#FFFFFFFFFFFFFFFC]");
    assert_eq!(step.until, Some(Until::State(0)));
    let met = |payload| step.until.unwrap().met_by(&drive.decode(&frame("000", payload)).unwrap());
    assert!(met("017fff7ff7ff1e00"));
    assert!(met("017fff7ff7ff"), "old firmware");
    assert!(!met("017fff7ff7ff1e05"));
}

#[test]
fn speeds_are_cut_to_twelve_bits() {
    let drive = cubemars(&[]);
    for (radians_per_second, payload) in [
        (0.0, "8000800000333800"),
        (-0.0, "8000800000333800"),
        // (10 + 50) * 40.96 = 2457.6
        (10.0, "8000999000333800"),
        (-10.0, "8000666000333800"),
        (50.0, "8000fff000333800"),
        (300.0, "8000fff000333800"),
        (-50.0, "8000000000333800"),
    ] {
        let frames = drive.velocity(RevolutionsPerSecond(radians_per_second / TAU)).unwrap();
        assert_eq!(frames.as_slice(), [frame("001", payload)], "{radians_per_second}");
    }
    assert_eq!(
        drive.protocol.velocity(RevolutionsPerSecond(f32::NAN)).as_slice(),
        [frame("001", "8000800000333800")]
    );
    let stiff = cubemars(&[("kd", Value::Float(5.0))]);
    assert_eq!(
        stiff.velocity(RevolutionsPerSecond(0.0)).unwrap().as_slice(),
        [frame("001", "8000800000fff800")]
    );
}

#[test]
fn answers_are_understood() {
    let drive = cubemars(&[]);
    let seen = drive.decode(&frame("000", "01ffff9007ff1e00")).unwrap();
    assert_eq!((seen.output, seen.power, seen.fault), (Some(Output::Zero), None, Some(None)));
    assert_eq!(seen.position, None, "the end of the range is no position");
    let speed = seen.velocity.unwrap().0 * TAU;
    assert!((speed - (f32::from(0x900u16) * 100.0 / 4095.0 - 50.0)).abs() < 1e-4, "{speed}");
    let seen = drive.decode(&frame("000", "01c0007ff8021e02")).unwrap();
    assert_eq!((seen.output, seen.fault), (Some(Output::Driving), Some(Some(Fault(2)))));
    assert!((seen.position.unwrap().0 * f64::from(TAU) - 6.25).abs() < 1e-3);
    assert_eq!(drive.explain(Fault(2)), "overcurrent");
    // Six bytes of old firmware tell nothing of errors.
    let seen = drive.decode(&frame("000", "01c0007ff802")).unwrap();
    assert_eq!((seen.output, seen.fault), (Some(Output::Driving), None));
}

/// A torque of more than a step and a half, or a speed, or another's answer, or one of another form proves nothing.
#[test]
fn only_no_output_of_its_own_proves_torque_off() {
    let drive = cubemars(&[]);
    let proof = drive.stop.stages()[1].proof;
    let proven = |report: Frame| {
        let mut tracker = Standstill::NOTHING_SEEN;
        (0..10).any(|_| drive.decode(&report).is_some_and(|seen| tracker.observe(&proof, &seen)))
    };
    for torque in ["7fe", "7ff", "800", "801"] {
        assert!(proven(frame("000", &format!("017fff7ff{torque}1e00"))), "{torque}");
    }
    for torque in ["7fd", "802", "000", "fff"] {
        assert!(!proven(frame("000", &format!("017fff7ff{torque}1e00"))), "{torque}");
    }
    assert!(!proven(frame("000", "017fff8107ff1e00")), "turning");
    assert!(!proven(frame("000", "027fff7ff7ff1e00")), "another motor");
    assert!(!proven(frame("001", "017fff7ff7ff1e00")), "another id");
    assert!(!proven(frame("000", "017fff7ff7ff1e")), "seven bytes");
    assert!(!proven(frame("000", "017fff7ff7")), "five bytes");
    let payload = [1, 0x7F, 0xFF, 0x7F, 0xF7, 0xFF, 30, 0];
    assert!(!proven(Frame::classic(ArbitrationId::extended(0), &payload)));
    assert!(!proven(Frame::fd(ArbitrationId::standard(0), &payload)));
    let coarse = cubemars(&[("zero_torque", Value::Float(0.1))]);
    let seen = |torque| coarse.decode(&frame("000", &format!("017fff7ff{torque}1e00"))).unwrap().output;
    // 0.1 Nm are 11.4 steps of 36/4095 Nm.
    assert_eq!((seen("80a"), seen("80b")), (Some(Output::Zero), Some(Output::Driving)));
}

#[test]
fn motion_is_told_from_harmless() {
    let drive = cubemars(&[]);
    for (id, payload, motion) in [
        ("001", "fffffffffffffffd", false),
        ("001", "fffffffffffffffc", true),
        ("001", "fffffffffffffffe", true),
        ("001", "8000800000333800", false),
        ("001", "00007ff0005557ff", false),
        // Without damping no speed is followed.
        ("001", "8000fff000000800", false),
        ("001", "8000801000333800", true),
        ("001", "8000800001333800", true),
        ("001", "8000800000333801", true),
        ("001", "80008000003338", true),
        ("001", "", true),
        ("002", "fffffffffffffffc", false),
        ("000", "017fff9007ff1e00", false),
    ] {
        assert_eq!(drive.is_motion(&frame(id, payload)), motion, "{id}#{payload}");
    }
    assert!(drive.is_motion(&Frame::remote(ArbitrationId::standard(1))));
    // Servo mode's frames are another family's.
    assert!(!drive.is_motion(&Frame::classic(ArbitrationId::extended(1), &[0xFF; 8])));
}

#[test]
fn the_model_scales() {
    let still = |model| cubemars(&[("model", text(model))]).stop.stage(0).proof.max_speed.0;
    assert!((still("AK80-9") - 0.02).abs() < 1e-6);
    assert!((still("AK80-64") - 0.02).abs() < 1e-6);
    let fast = cubemars(&[("v_max", Value::Integer(400))]);
    assert!((fast.stop.stage(0).proof.max_speed.0 - 2.0 * 800.0 / 4095.0 / TAU).abs() < 1e-5);
    assert_eq!(fast.watchdog.set, WatchdogSet::ByHand);
}

#[test]
fn wrong_keys_are_named() {
    let integer = Value::Integer;
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    let tight = Common { standstill: Some(RevolutionsPerSecond(0.003)), ..COMMON };
    for (common, more, key) in [
        (COMMON, ("id", integer(0)), "id"),
        (COMMON, ("id", integer(256)), "id"),
        (COMMON, ("reply_id", integer(1)), "reply_id"),
        (COMMON, ("reply_id", integer(0x800)), "reply_id"),
        (COMMON, ("model", text("AK47")), "model"),
        (COMMON, ("kd", integer(0)), "kd"),
        (COMMON, ("kd", integer(6)), "kd"),
        (COMMON, ("zero_torque", Value::Float(0.01)), "zero_torque"),
        (COMMON, ("zero_torque", integer(2)), "zero_torque"),
        (COMMON, ("v_max", integer(0)), "v_max"),
        (hold, ("kd", integer(1)), "after_stop"),
        (tight, ("kd", integer(1)), "standstill_rpm"),
    ] {
        assert_eq!(build("cubemars-mit", &common, &keys(&[more])).unwrap_err().key, key);
    }
    assert_eq!(build("cubemars-mit", &COMMON, &[("id", integer(1))]).unwrap_err().key, "model");
    assert_eq!(build("cubemars-mit", &COMMON, &[("model", text("AK80-9"))]).unwrap_err().key, "id");
}
