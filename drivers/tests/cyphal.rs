//! Drives over Cyphal: golden bytes, and the rules that no table of bytes shows.

mod common;

use std::f64::consts::TAU;

use common::{COMMON, build, bytes, enable_frames, stop_frames, text};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Observation, Power, PowerProof, RevolutionsPerSecond,
    StageKind, Standstill, Until, Value,
};

const VECTORS: &str = include_str!("vectors/cyphal.txt");

type Keys = Vec<(&'static str, Value)>;

fn keys(index: i64, mode: &str) -> Keys {
    let number = Value::Integer;
    vec![
        ("esc_node", number(20)),
        ("source_node", number(10)),
        ("index", number(index)),
        ("setpoint_subject", number(100)),
        ("readiness_subject", number(101)),
        ("feedback_subject", number(102)),
        ("dynamics_subject", number(103)),
        ("mode", text(mode)),
        ("full_rpm", number(3000)),
    ]
}

fn drive(index: i64, mode: &str) -> Drive {
    build("cyphal", &COMMON, &keys(index, mode)).unwrap()
}

fn frame(id: &str, hex: &str) -> Frame {
    let (id, payload) = (ArbitrationId::extended(u32::from_str_radix(id, 16).unwrap()), bytes(hex));
    if payload.len() > 8 { Frame::fd(id, &payload) } else { Frame::classic(id, &payload) }
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
fn commands_match_pycyphal() {
    let mut ours = stop_frames(&drive(0, "speed"));
    ours.extend(enable_frames(&drive(0, "speed")));
    let mut checked = 0;
    for (message, golden) in vectors().filter(|(message, _)| !message.starts_with("RX")) {
        if let ["SPEED", index, value, _] = message.split(' ').collect::<Vec<_>>()[..] {
            let value: f64 = value.parse().unwrap();
            #[expect(clippy::cast_possible_truncation, reason = "f32 is the speed's type")]
            let speed = RevolutionsPerSecond((value / TAU) as f32);
            let sent = drive(index.parse().unwrap(), "speed").velocity(speed).unwrap();
            assert!(sent.as_slice().contains(&golden), "{message}: {golden} is not among {sent:?}");
        } else {
            assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
        }
        checked += 1;
    }
    assert_eq!(checked, 9);
}

#[test]
fn feedback_of_pycyphal_is_understood() {
    let drive = drive(0, "speed");
    let power = |power, fault: Option<u32>| {
        Some(Observation { power: Some(power), fault: Some(fault.map(Fault)), ..Observation::default() })
    };
    let mut checked = 0;
    for (message, golden) in vectors() {
        let Some(message) = message.strip_prefix("RX ") else { continue };
        let seen = drive.decode(&golden);
        let near =
            |value: Option<f64>, wanted: f64| assert!((value.unwrap() - wanted).abs() < 1e-3, "{message}");
        let velocity = || seen.unwrap().velocity.map(|velocity| f64::from(velocity.0) * TAU);
        let position = || seen.unwrap().position.map(|position| position.0);
        match message {
            "feedback STANDBY nominal 0% frame0" | "feedback SLEEP frame0" => {
                assert_eq!(seen, power(Power::Off, None))
            }
            "feedback ENGAGED nominal 35% frame0" => assert_eq!(seen, power(Power::On, None)),
            "feedback STANDBY warning frame0" => {
                assert_eq!(seen, power(Power::Off, Some(3)));
                assert_eq!(drive.explain(Fault(3)), "warning");
            }
            "dynamics pos=0.000 vel=0.0 frame2" => assert_eq!(velocity(), Some(0.0)),
            "dynamics pos=9.425 vel=-62.8 frame2" => near(velocity(), -128.0),
            "dynamics pos=0.000 vel=1.0 frame2" => near(velocity(), 2.0),
            "dynamics pos=9.425 vel=-62.8 frame1" => near(position(), 1.5),
            "dynamics FD pos=9.425 vel=-62.8 frame0" => {
                near(velocity(), -62.8);
                near(position(), 1.5);
            }
            _ if message.ends_with("frame1") => assert_eq!(position(), Some(0.0)),
            _ if message.starts_with("dynamics") => assert_eq!(seen, None, "{message}"),
            other => panic!("no expectation for {other}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 17);
}

/// Fails if a bound is ever below the speed, or more than 4 times it: a drive that turns must not look still.
#[test]
fn the_speed_on_a_classic_bus_is_never_told_too_small() {
    let drive = drive(0, "speed");
    for step in -600i16..600 {
        for sign in [1.0f32, -1.0] {
            let real = sign * 10f32.powf(f32::from(step) / 60.0) * 0.01;
            let [_, _, _, highest] = real.to_le_bytes();
            let third =
                Frame::classic(ArbitrationId::extended(0x1060_6714), &[highest, 0, 0, 0, 0, 0, 0, 0x20]);
            let told = f64::from(drive.decode(&third).unwrap().velocity.unwrap().0) * TAU;
            let ratio = told / f64::from(real);
            assert!((0.999..=4.001).contains(&ratio), "{real} rad/s is told as {told}");
        }
    }
    for unknown in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let third = [unknown.to_le_bytes()[3], 0, 0, 0, 0, 0, 0, 0x20];
        assert_eq!(drive.decode(&Frame::classic(ArbitrationId::extended(0x1060_6714), &third)), None);
    }
}

/// A receiver as pycyphal has it: a transfer with the number of the one before is dropped.
fn taken(frames: &[&Frame], before: u8) -> usize {
    let numbers = frames.iter().map(|frame| frame.payload().last().unwrap() & 0x1F);
    let (_, count) =
        numbers.fold((before, 0), |(last, count), number| (number, count + usize::from(number != last)));
    count
}

/// Fails if a repeated command has one transfer number: nothing after the first would be heard.
#[test]
fn of_every_repetition_a_receiver_takes_one() {
    let drive = drive(1, "speed");
    let lists = [
        drive.velocity(RevolutionsPerSecond(3.0)).unwrap().as_slice().to_vec(),
        drive.stop.stages()[0].frames.as_slice().to_vec(),
        drive.stop.stages()[1].frames.as_slice().to_vec(),
        enable_frames(&drive),
    ];
    for list in &lists {
        for id in list.iter().map(Frame::id) {
            let of_id: Vec<_> = list.iter().filter(|frame| frame.id() == id).collect();
            for before in 0..32 {
                assert!(taken(&of_id, before) >= 1, "{list:?} after number {before}");
            }
            let said: Vec<_> = of_id.iter().map(|frame| frame.payload().split_last().unwrap().1).collect();
            assert!(said.windows(2).all(|two| two[0] == two[1]), "both say the same");
        }
    }
}

#[test]
fn the_programme_commands_zero_and_stands_by() {
    let drive = drive(1, "speed");
    let texts: Vec<_> = drive
        .stop
        .stages()
        .iter()
        .map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power))
        .collect();
    let zero = "0060640A#000000000000E0, 0060640A#000000000000E1";
    assert_eq!(
        texts,
        [
            (StageKind::Controlled, format!("[{zero}]"), PowerProof::Any),
            (StageKind::TorqueOff, format!("[{zero}, 0060650A#02E0, 0060650A#02E1]"), PowerProof::Off),
        ]
    );
    assert_eq!(drive.stop.release(0), Some(1));
    let enable = drive.enable.steps()[0];
    assert_eq!(format!("{:?}", enable.frames), format!("[{zero}, 0060650A#03E0, 0060650A#03E1]"));
    assert_eq!(enable.until, Some(Until::Power(Power::On)));
}

/// Fails if a drive that is driven falls back to STANDBY because nobody says otherwise.
#[test]
fn every_setpoint_says_engaged_again() {
    let frames = drive(0, "speed").velocity(RevolutionsPerSecond(1.0)).unwrap();
    let engaged = frames.as_slice().iter().filter(|frame| frame.id() == ArbitrationId::extended(0x0060_650A));
    assert!(engaged.clone().count() == 2 && engaged.clone().all(|frame| frame.payload()[0] == 3));
}

#[test]
fn the_parts_of_one_frame_fit_together() {
    let drives: Vec<_> = (0..3).map(|index| drive(index, "ratio")).collect();
    let speeds = [25.0, -12.5, 50.0].map(RevolutionsPerSecond);
    let own: Vec<_> = drives
        .iter()
        .zip(speeds)
        .map(|(drive, speed)| drive.velocity(speed).unwrap().as_slice()[1])
        .collect();
    let joint =
        drives.iter().zip(&own).fold(own[0], |joint, (drive, own)| drive.slot.unwrap().overlay(&joint, own));
    assert_eq!(joint.to_string(), "0060640A#003800B4003CE1", "0.5, -0.25, 1");
    assert!(drives.iter().all(|drive| drive.is_motion(&joint)));
    assert!(!drives[1].is_motion(&own[0]) && drives[0].is_motion(&own[0]));
}

#[test]
fn motion_is_told_from_harmless() {
    for (id, payload, motion) in [
        // Another node, another priority, a node without a number: only the element of index 1 counts.
        ("0060640A", "000040c60000e1", true),
        ("1C60647F", "000040c60000e1", true),
        ("1D60647F", "000040c60000e1", true),
        ("0060640A", "004900000000e1", false),
        ("0060640A", "000000800000e1", false),
        // No number; too short to hold index 1; half of it.
        ("0060640A", "0000007e0000e1", true),
        ("0060640A", "0049e0", false),
        ("0060640A", "000001e0", true),
        // Transfers of several frames, the form of version 0, empty.
        ("0060640A", "00000000000000a0", true),
        ("0060640A", "000000000000c0", true),
        ("0060640A", "", true),
        // Readiness.
        ("0060650A", "02e0", false),
        ("0060650A", "00e0", false),
        ("0060650A", "e0", false),
        ("0060650A", "03e0", true),
        ("0060650A", "01e0", true),
        ("0060650A", "fee0", false),
        // Other subjects, services, other protocols.
        ("0060660A", "ffffffffffffe0", false),
        ("0260640A", "ffffffffffffe0", false),
        ("00E0640A", "ffffffffffffe0", false),
        ("0060648A", "ffffffffffffe0", false),
    ] {
        assert_eq!(drive(1, "speed").is_motion(&frame(id, payload)), motion, "{id}#{payload}");
    }
    assert!(drive(1, "speed").is_motion(&Frame::remote(ArbitrationId::extended(0x0060_640A))));
    assert!(drive(1, "speed").commands.contains(&ArbitrationId::extended(0x1D60_647F)));
}

#[test]
fn a_drive_that_is_engaged_proves_nothing() {
    let drive = drive(0, "speed");
    let proof = drive.stop.stages()[1].proof;
    let still = drive.decode(&frame("10606714", "0000000000000027")).unwrap();
    for (ready, proven) in [("02", true), ("00", true), ("03", false), ("01", false)] {
        let status = drive.decode(&frame("10606614", &format!("{ready}0000e3"))).unwrap();
        let mut tracker = Standstill::NOTHING_SEEN;
        assert!(!tracker.observe(&proof, &status));
        assert_eq!((0..5).any(|_| tracker.observe(&proof, &still)), proven, "{ready}");
    }
    let standby = drive.decode(&frame("10606614", "020000e3")).unwrap();
    let turning = drive.decode(&frame("10606714", "4000000000000029")).unwrap();
    let mut tracker = Standstill::NOTHING_SEEN;
    assert!(!tracker.observe(&proof, &standby) && !(0..5).any(|_| tracker.observe(&proof, &turning)));
}

#[test]
fn frames_of_others_tell_nothing() {
    let drive = drive(0, "speed");
    for id in ["10606615", "10606814", "11606614", "12606614", "10E06614", "10006614", "10606694"] {
        assert_eq!(drive.decode(&frame(id, "020000e3")), None, "{id}");
    }
    // Short; part of a longer transfer; version 0.
    for payload in ["0200e3", "e3", "", "020000a3", "020000c3"] {
        assert_eq!(drive.decode(&frame("10606614", payload)), None, "{payload}");
    }
    for payload in ["00000000000027", "0000000000000067", "00000000000000a7"] {
        assert_eq!(drive.decode(&frame("10606714", payload)), None, "{payload}");
    }
}

#[test]
fn wrong_keys_are_named() {
    let with = |key: &'static str, value: Value| {
        let mut keys = keys(0, "ratio");
        keys.retain(|(name, _)| *name != key);
        keys.push((key, value));
        keys
    };
    let without = |key: &str| {
        let mut keys = keys(0, "ratio");
        keys.retain(|(name, _)| *name != key);
        keys
    };
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    let fast = Common { max_speed: RevolutionsPerSecond(50.1), ..COMMON };
    let none = Common { standstill: Some(RevolutionsPerSecond(0.0)), ..COMMON };
    for (common, keys, key) in [
        (COMMON, without("esc_node"), "esc_node"),
        (COMMON, without("index"), "index"),
        (COMMON, without("mode"), "mode"),
        (COMMON, without("full_rpm"), "full_rpm"),
        (COMMON, without("setpoint_subject"), "setpoint_subject"),
        (COMMON, without("dynamics_subject"), "dynamics_subject"),
        (COMMON, with("index", Value::Integer(3)), "index"),
        (COMMON, with("esc_node", Value::Integer(128)), "esc_node"),
        (COMMON, with("source_node", Value::Integer(20)), "source_node"),
        (COMMON, with("setpoint_subject", Value::Integer(8192)), "setpoint_subject"),
        (COMMON, with("readiness_subject", Value::Integer(100)), "readiness_subject"),
        (COMMON, with("dynamics_subject", Value::Integer(102)), "dynamics_subject"),
        (hold, keys(0, "speed"), "after_stop"),
        (fast, keys(0, "ratio"), "max_rpm"),
        (none, keys(0, "speed"), "standstill_rpm"),
    ] {
        assert_eq!(build("cyphal", &common, &keys).unwrap_err().key, key);
    }
}
