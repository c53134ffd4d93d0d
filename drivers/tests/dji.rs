//! The rules of the DJI family: one frame for four motors, and a proof without any word on power.

mod common;

use common::{COMMON, build, frame, stop_frames, text};
use drivers::registry::Common;
use drivers::{
    AfterStop, Amperes, ArbitrationId, Drive, Frame, Observation, Output, PowerProof, RevolutionsPerSecond,
    Setpoint, Slot, StageKind, Standstill, Value, WatchdogSet,
};

const VECTORS: &str = include_str!("vectors/dji.txt");

fn dji(model: &str, id: i64) -> Drive {
    let keys = [("model", text(model)), ("id", Value::Integer(id))];
    build("dji", &COMMON, &keys).unwrap_or_else(|error| panic!("{model} {id}: {error}"))
}

/// The frame of that current.
fn current(drive: &Drive, amperes: f32) -> Frame {
    let frames = drive.protocol.current(Amperes(amperes));
    let [frame] = frames.as_slice() else { panic!("one frame") };
    *frame
}

fn feedback(id: u16, rpm: i16, counts: i16) -> Frame {
    let ([v0, v1], [c0, c1]) = (rpm.to_be_bytes(), counts.to_be_bytes());
    Frame::classic(ArbitrationId::standard(id), &[0x0F, 0xFF, v0, v1, c0, c1, 30, 0])
}

#[test]
fn frames_are_those_of_the_example() {
    let (mut told, mut heard) = (0, 0);
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let [motor, message, id, payload] = parts[..] else { panic!("{line}") };
        let (model, number) = motor.split_once(' ').expect("model and number");
        let drive = dji(model, number.parse().expect("a number"));
        let golden = frame(id, payload);
        if message.starts_with("RX") {
            let seen = drive.decode(&golden).expect(message);
            let rpm = if message.contains("rpm=0") { 0.0 } else { -482.0 };
            let speed = Some(RevolutionsPerSecond(rpm / 60.0));
            let output = Some(Output::Zero);
            assert_eq!(seen, Observation { velocity: speed, output, ..Observation::default() }, "{message}");
            heard += 1;
            continue;
        }
        let mut ours = stop_frames(&drive);
        // 1000 of 16384 counts, of which 20 A are all.
        ours.push(current(&drive, 1000.0 * 20.0 / 16_384.0));
        assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
        told += 1;
    }
    assert_eq!((told, heard), (4, 2));
}

#[test]
fn every_number_has_its_place_in_its_frame() {
    for (model, id, command, first, report) in [
        ("c620", 1, 0x200, 0, 0x201),
        ("c620", 4, 0x200, 6, 0x204),
        ("c610", 5, 0x1FF, 0, 0x205),
        ("c620", 8, 0x1FF, 6, 0x208),
        ("gm6020", 1, 0x1FF, 0, 0x205),
        ("gm6020", 4, 0x1FF, 6, 0x208),
        ("gm6020", 5, 0x2FF, 0, 0x209),
        ("gm6020", 7, 0x2FF, 4, 0x20B),
    ] {
        let drive = dji(model, id);
        let slot = drive.slot.expect("a slot");
        assert_eq!(slot, Slot::of_bytes(ArbitrationId::standard(command), first, 2));
        assert_eq!(drive.reports, [ArbitrationId::standard(report)], "{model} {id}");
        assert_eq!(drive.owns, drive.reports);
        let full = current(&drive, 1000.0);
        let counts: i16 = match model {
            "c610" => 10_000,
            "c620" => 16_384,
            _ => 30_000,
        };
        let mut payload = [0; 8];
        payload[first..first + 2].copy_from_slice(&counts.to_be_bytes());
        assert_eq!(full, Frame::classic(slot.id, &payload), "{model} {id}: its own two bytes and no others");
    }
    // Who answers on one identifier has one place: the configuration refuses the two together.
    assert_eq!(dji("c620", 5).owns, dji("gm6020", 1).owns);
}

#[test]
fn currents_are_rounded_bounded_and_never_made_of_nothing() {
    let drive = dji("c610", 1);
    for (amperes, bytes) in [
        (0.0, "0000"),
        (1.0, "03E8"),
        (-1.0, "FC18"),
        (0.0004, "0000"),
        (0.0006, "0001"),
        (99.0, "2710"),
        (-99.0, "D8F0"),
        (f32::INFINITY, "2710"),
        (f32::NAN, "0000"),
    ] {
        assert_eq!(current(&drive, amperes).to_string(), format!("200#{bytes}000000000000"), "{amperes}");
    }
}

#[test]
fn the_only_stage_takes_the_torque_of_the_whole_frame() {
    for drive in [dji("c620", 3), dji("c610", 8), dji("gm6020", 6)] {
        let [stage] = drive.stop.stages() else { panic!("one stage") };
        assert_eq!((stage.kind, stage.proof.power), (StageKind::TorqueOff, PowerProof::NoOutput));
        let [frame] = stage.frames.as_slice() else { panic!("one frame") };
        assert_eq!((frame.id(), frame.payload()), (drive.slot.expect("a slot").id, &[0; 8][..]));
        assert_eq!(drive.watchdog.set, WatchdogSet::Missing);
        assert!(drive.enable.steps().is_empty() && drive.poll.as_slice().is_empty());
        assert!(drive.velocity(RevolutionsPerSecond(1.0)).expect("in bounds").as_slice().is_empty());
    }
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    let error = build("dji", &hold, &[("model", text("c620")), ("id", Value::Integer(1))]).unwrap_err();
    assert_eq!(error.key, "after_stop");
    assert!(error.problem.contains("brake"), "{error}");
}

#[test]
fn proof_is_standing_still_without_current() {
    let drive = dji("c620", 2);
    let proof = drive.stop.stage(0).proof;
    let proven = |rpm: i16, counts: i16, times: usize| {
        let mut still = Standstill::NOTHING_SEEN;
        (0..times)
            .any(|_| still.observe(&proof, &drive.decode(&feedback(0x202, rpm, counts)).expect("feedback")))
    };
    assert!(proven(0, 0, 20) && proven(10, 200, 20) && proven(-10, -200, 20));
    assert!(!proven(0, 0, 19), "19 ms are not enough");
    assert!(!proven(11, 0, 1000) && !proven(-11, 0, 1000), "it turns");
    assert!(!proven(0, 201, 1000) && !proven(0, -201, 1000), "it pushes against something");
    assert!(!proven(0, i16::MIN, 1000));
}

#[test]
fn only_its_own_reports_tell_of_it() {
    let drive = dji("c620", 1);
    let good = feedback(0x201, 0, 0);
    assert!(drive.decode(&good).is_some());
    assert_eq!(drive.decode(&feedback(0x202, 0, 0)), None, "another motor");
    assert_eq!(drive.decode(&Frame::classic(ArbitrationId::extended(0x201), good.payload())), None);
    assert_eq!(drive.decode(&Frame::fd(good.id(), good.payload())), None);
    assert_eq!(drive.decode(&Frame::classic(good.id(), &good.payload()[..7])), None);
    assert_eq!(drive.decode(&frame("201", "2000000000001e00")), None, "no angle is 8192");
    assert!(drive.decode(&frame("201", "1fff000000001eff")).is_some(), "the last byte means nothing");
}

#[test]
fn a_frame_moves_a_motor_by_its_own_part() {
    let drive = dji("c620", 2);
    for (id, payload, motion) in [
        ("200", "0000000000000000", false),
        ("200", "03E8000003E803E8", false),
        ("200", "0000000100000000", true),
        ("200", "0000010000000000", true),
        ("200", "0000FFFF00000000", true),
        // Not understood.
        ("200", "00000000000000", true),
        ("200", "", true),
        ("1FF", "0000000100000000", false),
        ("202", "0000000100000000", false),
    ] {
        assert_eq!(drive.is_motion(&frame(id, payload)), motion, "{id}#{payload}");
    }
    assert!(drive.is_motion(&Frame::remote(ArbitrationId::standard(0x200))));
    assert!(!drive.is_motion(&Frame::classic(ArbitrationId::extended(0x200), &[1; 8])));
    // Newer GM6020 can be driven by currents, too.
    let drive = dji("gm6020", 6);
    assert!(
        drive.is_motion(&frame("2FE", "0000000100000000"))
            && !drive.is_motion(&frame("1FE", "0000000100000000"))
    );
    assert!(
        drive.is_motion(&frame("2FF", "0000000100000000"))
            && !drive.is_motion(&frame("2FF", "0100000001000000"))
    );
    assert!(!dji("c620", 2).commands.contains(&ArbitrationId::standard(0x1FE)));
}

#[test]
fn wrong_keys_are_named() {
    let model = |name: &str| ("model", text(name));
    let id = |id: i64| ("id", Value::Integer(id));
    let slow = Common { standstill: Some(RevolutionsPerSecond(0.016)), ..COMMON };
    for (common, keys, key, why) in [
        (COMMON, vec![id(1)], "model", "c610, c620, gm6020"),
        (COMMON, vec![model("c630"), id(1)], "model", "c610, c620, gm6020"),
        (COMMON, vec![model("c620")], "id", "1 to 8"),
        (COMMON, vec![model("c620"), id(0)], "id", "1 to 8"),
        (COMMON, vec![model("c620"), id(9)], "id", "1 to 8"),
        (COMMON, vec![model("gm6020"), id(8)], "id", "1 to 7"),
        (COMMON, vec![model("c610"), id(1), ("limit", Value::Float(10.1))], "limit", "0.1 to 10"),
        (COMMON, vec![model("c620"), id(1), ("limit", Value::Integer(0))], "limit", "0.1 to 20"),
        (COMMON, vec![model("c620"), id(1), ("proportional", Value::Float(-0.1))], "proportional", "0 to 10"),
        (COMMON, vec![model("c620"), id(1), ("integral", Value::Integer(101))], "integral", "0 to 100"),
        (
            COMMON,
            vec![model("c620"), id(1), ("idle_current", Value::Integer(0))],
            "idle_current",
            "1 to 5000",
        ),
        (COMMON, vec![model("c620"), id(1), ("gear", Value::Integer(19))], "gear", "not a key"),
        (slow, vec![model("c620"), id(1)], "standstill_rpm", "1.000"),
    ] {
        let error = build("dji", &common, &keys).unwrap_err();
        assert_eq!(error.key, key, "{error}");
        assert!(error.problem.contains(why), "{error}");
    }
}

#[test]
fn the_speed_loop_is_as_configured() {
    let keys = [
        ("model", text("gm6020")),
        ("id", Value::Integer(1)),
        ("limit", Value::Integer(12)),
        ("proportional", Value::Float(0.25)),
        ("integral", Value::Integer(2)),
    ];
    let Setpoint::Current(speed_loop) = build("dji", &COMMON, &keys).expect("good keys").setpoint else {
        panic!("it takes currents");
    };
    assert_eq!((speed_loop.proportional, speed_loop.integral), (0.25, 2.0));
    assert_eq!(speed_loop.limit, Amperes(12.0));
}
