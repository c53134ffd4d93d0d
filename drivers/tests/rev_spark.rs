//! REV SPARK: golden bytes, and the rules that no table of bytes shows.

mod common;

use common::{COMMON, build, bytes, enable_frames, stop_frames};
use drivers::registry::Common;
use drivers::rev_spark::flag;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Heartbeat, Output, PollWhen, PowerProof, Revolutions,
    RevolutionsPerSecond, StageKind, Standstill, Until, Value,
};

const VECTORS: &str = include_str!("vectors/rev_spark.txt");

fn spark(device: i64) -> Drive {
    build("rev-spark", &COMMON, &[("device", Value::Integer(device))]).unwrap()
}

fn frame(id: &str, hex: &str) -> Frame {
    Frame::classic(ArbitrationId::extended(u32::from_str_radix(id, 16).unwrap()), &bytes(hex))
}

fn vectors() -> impl Iterator<Item = (&'static str, Frame)> {
    VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let [message, id, payload] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        (message, frame(id, payload))
    })
}

/// The heartbeat as the supervisor composes it when this drive alone may run.
fn marked(heartbeat: &Heartbeat) -> Frame {
    let mut payload = <[u8; 8]>::try_from(heartbeat.frame.payload()).unwrap();
    payload.iter_mut().zip(heartbeat.mark).for_each(|(byte, bits)| *byte |= bits);
    Frame::classic(heartbeat.frame.id(), &payload)
}

/// What is golden but never sent, and why.
const NOT_SENT: &[(&str, &str)] = &[
    ("FRC broadcast Disable", "stops the devices of everybody on the bus"),
    ("FRC broadcast System Halt (api index 1)", "stops the devices of everybody on the bus"),
    ("FRC universal heartbeat disabled", "locks every SPARK to a roboRIO's heartbeat"),
];

#[test]
fn commands_match_the_vectors() {
    let drive = spark(1);
    let heartbeat = drive.heartbeat.unwrap();
    let mut ours = stop_frames(&drive);
    ours.extend(enable_frames(&drive));
    ours.extend([heartbeat.frame, marked(&heartbeat)]);
    let mut checked = 0;
    for (message, golden) in vectors().filter(|(message, _)| !message.starts_with("RX")) {
        match NOT_SENT.iter().find(|(name, _)| *name == message) {
            Some((_, why)) => assert!(!ours.contains(&golden), "{message} is sent, though it {why}"),
            None => assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 7);
}

#[test]
fn feedback_of_the_vectors_is_understood() {
    let drive = spark(1);
    let mut checked = 0;
    for (message, golden) in vectors() {
        let Some(message) = message.strip_prefix("RX ") else { continue };
        let seen = drive.decode(&golden).expect(message);
        match message {
            "SPARK Status0 dev1 all 0" => {
                assert_eq!((seen.output, seen.fault, seen.power), (Some(Output::Zero), None, None));
            }
            "SPARK Status2 dev1 vel=0 pos=1.5" => {
                assert_eq!(seen.velocity, Some(RevolutionsPerSecond::ZERO));
                assert_eq!(seen.position, Some(Revolutions(1.5)));
            }
            other => panic!("no expectation for {other}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 2);
}

#[test]
fn speeds_travel_in_the_sparks_own_units() {
    let rpm = spark(5).velocity(RevolutionsPerSecond(2.0)).unwrap();
    assert_eq!(format!("{rpm:?}"), "[02050005#0000F04200000000]"); // 120 rpm
    let keys = [
        ("device", Value::Integer(5)),
        ("pid_slot", Value::Integer(2)),
        ("velocity_units_per_rpm", Value::Float(0.1)),
        ("position_units_per_rev", Value::Integer(36)),
    ];
    let geared = build("rev-spark", &COMMON, &keys).unwrap();
    let frames = geared.velocity(RevolutionsPerSecond(2.0)).unwrap();
    assert_eq!(format!("{frames:?}"), "[02050005#0000404100000200]"); // 12 units, slot 2
    let mut payload = 12.0f32.to_le_bytes().to_vec();
    payload.extend(18.0f32.to_le_bytes());
    let seen = geared.decode(&Frame::classic(ArbitrationId::extended(0x0205_B885), &payload)).unwrap();
    assert_eq!((seen.velocity, seen.position), (Some(RevolutionsPerSecond(2.0)), Some(Revolutions(0.5))));
}

#[test]
fn the_programme_brakes_and_then_takes_the_torque_away() {
    let drive = spark(1);
    let texts: Vec<_> = drive
        .stop
        .stages()
        .iter()
        .map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power))
        .collect();
    assert_eq!(
        texts,
        [
            (StageKind::Controlled, "[02050001#0000000000000000]".to_owned(), PowerProof::Any),
            (StageKind::TorqueOff, "[02050081#0000000000000000]".to_owned(), PowerProof::NoOutput),
        ]
    );
    assert_eq!(drive.stop.release(0), Some(1));
    assert_eq!(drive.broadcast, None);
}

/// Fails if a stage holds the heartbeat: it would switch the motors of other sessions off.
#[test]
fn no_stage_speaks_to_other_sparks() {
    for device in [1, 62] {
        let own = spark(device);
        let other = spark(33);
        for frame in stop_frames(&own).iter().chain(own.poll.as_slice()) {
            assert!(own.owns.contains(&frame.id()), "{frame}");
            assert!(!other.owns.contains(&frame.id()), "{frame}");
        }
    }
}

#[test]
fn every_device_has_its_own_bit() {
    let mut all = 0u64;
    for device in 1..=62 {
        let drive = spark(device);
        let heartbeat = drive.heartbeat.unwrap();
        assert_eq!(heartbeat.frame.payload(), [0; 8]);
        assert_eq!(u64::from_le_bytes(heartbeat.mark), 1 << device);
        assert!(drive.is_motion(&marked(&heartbeat)) && !drive.is_motion(&heartbeat.frame));
        assert!(!spark(if device == 1 { 2 } else { device - 1 }).is_motion(&marked(&heartbeat)));
        all |= u64::from_le_bytes(heartbeat.mark);
    }
    assert_eq!(all, ((1 << 62) - 1) << 1);
}

#[test]
fn motion_is_told_from_harmless() {
    for (id, payload, motion) in [
        // Velocity and duty cycle of 0 and -0, in any slot.
        ("02050001", "0000000000000000", false),
        ("02050001", "0000008000000300", false),
        ("02050081", "0000000000000000", false),
        ("02050001", "0000803f00000000", true),
        ("02050001", "0000c07f00000000", true),
        // Feed-forward, unknown option, short.
        ("02050001", "0000000001000000", true),
        ("02050081", "0000000000800000", true),
        ("02050001", "0000000000000800", true),
        ("02050001", "0000000000000001", true),
        ("02050081", "00000000", true),
        ("02050081", "", true),
        // Position, voltage, current, MAXMotion; what an old firmware would take for a velocity.
        ("02050101", "0000000000000000", true),
        ("02050141", "0000000000000000", true),
        ("02050181", "0000000000000000", true),
        ("02050241", "0000000000000000", true),
        ("02050481", "0000000000000000", true),
        // Parameter write, reset, another device number.
        ("02053801", "0600000000", true),
        ("02050541", "0000", true),
        ("02052541", "00", true),
        // Statuses, faults, reads, reports.
        ("02050401", "07000700", false),
        ("02051B81", "", false),
        ("02053C01", "", false),
        ("0205B801", "ff00000000000000", false),
        // Heartbeats: the bit of this device, the bit of another one, not understood.
        ("02052C80", "0200000000000000", true),
        ("02052C80", "0400000000000000", false),
        ("02052C80", "02", true),
        ("01011840", "0000000000000000", false),
        ("01011840", "0000001000000000", true),
        ("01011840", "0000000000000010", false),
        // Stops for everybody, other devices, other manufacturers.
        ("00000000", "", false),
        ("00000040", "", false),
        ("02050002", "0000803f00000000", false),
        ("02040001", "0000803f00000000", false),
    ] {
        assert_eq!(spark(1).is_motion(&frame(id, payload)), motion, "{id}#{payload}");
    }
    assert!(spark(1).is_motion(&Frame::remote(ArbitrationId::extended(0x0205_0001))));
    assert!(!spark(1).is_motion(&Frame::classic(ArbitrationId::standard(1), &[1; 8])));
}

/// Any output at all, however small, is none of "no output"; speed alone proves nothing.
#[test]
fn only_an_output_of_exactly_zero_proves_the_last_stage() {
    let drive = spark(1);
    let proof = drive.stop.stages()[1].proof;
    let still = drive.decode(&frame("0205B881", "0000000000000000")).unwrap();
    for (output, proven) in [("0000", true), ("0100", false), ("ffff", false), ("0080", false)] {
        let mut tracker = Standstill::NOTHING_SEEN;
        let status_0 = drive.decode(&frame("0205B801", &format!("{output}ffffffffdfff"))).unwrap();
        assert!(!tracker.observe(&proof, &status_0));
        let met = (0..10).any(|_| tracker.observe(&proof, &still));
        assert_eq!(met, proven, "{output}");
    }
    let mut tracker = Standstill::NOTHING_SEEN;
    assert!(!(0..10).any(|_| tracker.observe(&proof, &still)), "nothing known of the output");
}

#[test]
fn the_lock_and_the_faults_are_told() {
    let drive = spark(1);
    let locked = drive.decode(&frame("0205B801", "0000000000002000")).unwrap();
    assert_eq!(locked.fault, Some(Some(Fault(flag::PRIMARY_HEARTBEAT))));
    assert!(drive.explain(Fault(flag::PRIMARY_HEARTBEAT)).contains("roboRIO"));
    let hot = drive.decode(&frame("0205B841", "1800000000000000")).unwrap();
    assert_eq!(hot.fault, Some(Some(Fault(0x18))));
    assert_eq!(drive.explain(Fault(0x18)), "CAN, temperature");
    assert_eq!(drive.decode(&frame("0205B841", "00ffffffffffffff")).unwrap().fault, Some(None));
}

/// What firmware before 25 sends under STATUS_0 of its day says "all faults, no output" whatever happens.
#[test]
fn frames_of_old_firmware_and_of_others_tell_nothing() {
    let drive = spark(1);
    for id in ["02051801", "0205B802", "0204B801", "0205B8C1", "0305B801"] {
        assert_eq!(drive.decode(&frame(id, "0000000000000000")), None, "{id}");
    }
    for short in ["", "00", "00000000000000"] {
        assert_eq!(drive.decode(&frame("0205B801", short)), None);
        assert_eq!(drive.decode(&frame("0205B881", short)), None);
    }
    assert_eq!(drive.decode(&frame("0205B881", "0000c07f00000000")), None, "no number, no reading");
}

/// STATUS_2 is off at power-up, and without it a motor is never proven to stand still and never granted: it must be
/// switched on by what is sent while the supervisor stops it at its start.
#[test]
fn the_poll_switches_the_speed_on() {
    let drive = spark(1);
    assert_eq!(format!("{:?}", drive.poll), "[02050401#07000700]");
    assert_eq!(drive.poll_when, PollWhen::WhenSilent);
    let first = drive.enable.steps()[0];
    assert!(first.frames.as_slice().contains(&drive.poll.as_slice()[0]));
    let speed = drive.decode(&frame("0205B881", "0000000000000000")).unwrap();
    assert!(first.until.is_some_and(|until| until.met_by(&speed)));
    let output = drive.decode(&frame("0205B801", "0000000000000000")).unwrap();
    assert!(!first.until.is_some_and(|until| until.met_by(&output)));
    assert_eq!(first.until, Some(Until::State(2)));
}

#[test]
fn wrong_keys_are_named() {
    let device = ("device", Value::Integer(1));
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    for (common, keys, key) in [
        (COMMON, vec![], "device"),
        (COMMON, vec![("device", Value::Integer(0))], "device"),
        (COMMON, vec![("device", Value::Integer(63))], "device"),
        (COMMON, vec![device.clone(), ("pid_slot", Value::Integer(4))], "pid_slot"),
        (
            COMMON,
            vec![device.clone(), ("velocity_units_per_rpm", Value::Integer(0))],
            "velocity_units_per_rpm",
        ),
        (
            COMMON,
            vec![device.clone(), ("position_units_per_rev", Value::Integer(-1))],
            "position_units_per_rev",
        ),
        (COMMON, vec![device.clone(), ("node", Value::Integer(1))], "node"),
        (hold, vec![device.clone()], "after_stop"),
        (
            Common { standstill: Some(RevolutionsPerSecond(-1.0)), ..COMMON },
            vec![device.clone()],
            "standstill_rpm",
        ),
    ] {
        assert_eq!(build("rev-spark", &common, &keys).unwrap_err().key, key);
    }
}
