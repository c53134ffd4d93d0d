//! The rules of the CiA 402 family that no table of bytes shows.

mod common;

use std::time::Duration;

use common::{COMMON, build, cia402, enable_frames, frame, stop_frames, text};
use drivers::cia402::state;
use drivers::enable::Until;
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Power, PowerProof, Refusal, Revolutions,
    RevolutionsPerSecond, StageKind, Value,
};

fn sdo() -> Drive {
    cia402(5, "sdo", AfterStop::Release)
}

fn pdo() -> Drive {
    cia402(5, "pdo", AfterStop::Release)
}

#[test]
fn two_stages_each_with_its_proof() {
    for (drive, quick, off) in [
        (sdo(), "[605#2B40600002000000]", "[605#2B40600000000000]"),
        (pdo(), "[205#020000000000, 605#2B40600002000000]", "[205#000000000000, 605#2B40600000000000]"),
    ] {
        let stages: Vec<_> = drive
            .stop
            .stages()
            .iter()
            .map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power))
            .collect();
        assert_eq!(
            stages,
            [
                (StageKind::Controlled, quick.to_owned(), PowerProof::NotFollowing),
                (StageKind::TorqueOff, off.to_owned(), PowerProof::Off),
            ]
        );
    }
}

#[test]
fn a_step_never_holds_two_sdo_requests() {
    let request = ArbitrationId::Standard(0x605);
    for drive in [sdo(), pdo()] {
        let lists = drive.enable.steps().iter().map(|step| step.frames);
        for list in lists.chain(drive.stop.stages().iter().map(|stage| stage.frames)) {
            assert!(list.as_slice().iter().filter(|frame| frame.id() == request).count() <= 1, "{list:?}");
        }
    }
}

#[test]
fn every_enable_step_waits_for_the_drive() {
    for drive in [sdo(), pdo()] {
        assert!(drive.enable.steps().iter().all(|step| step.until.is_some()));
    }
}

#[test]
fn the_enable_programme_by_sdo() {
    let steps: Vec<_> =
        sdo().enable.steps().iter().map(|step| (format!("{:?}", step.frames), step.until.unwrap())).collect();
    let expected = [
        ("[000#0105, 605#2B40600000000000]", Until::Answer(0x604000)),
        ("[605#2B17100064000000]", Until::Answer(0x101700)),
        ("[605#2B07600003000000]", Until::Answer(0x600700)),
        ("[605#2B5A600002000000]", Until::Answer(0x605A00)),
        ("[605#23161001FA007F00]", Until::Answer(0x101601)),
        ("[605#2F60600003000000]", Until::Answer(0x606000)),
        ("[605#23FF600000000000]", Until::Answer(0x60FF00)),
        ("[000#0105, 605#2B40600080000000]", Until::State(0x40)),
        ("[605#2B40600006000000]", Until::State(0x21)),
        ("[605#2B40600007000000]", Until::State(0x23)),
        ("[605#2B4060000F000000]", Until::Power(Power::On)),
    ];
    assert_eq!(steps.len(), expected.len());
    for (ours, (frames, until)) in steps.iter().zip(expected) {
        assert_eq!((ours.0.as_str(), ours.1), (frames, until));
    }
}

#[test]
fn pdos_are_mapped_while_they_are_off_and_the_node_pre_operational() {
    let texts: Vec<_> = enable_frames(&pdo()).iter().map(Frame::to_string).collect();
    assert_eq!(texts[0], "000#8005");
    assert_eq!(
        texts[2..17],
        [
            "605#2300140105020080", // 1400:01 = 0x80000205
            "605#2F001402FF000000",
            "605#2F00160000000000",
            "605#2300160110004060", // 1600:01 = 0x60400010
            "605#230016022000FF60", // 1600:02 = 0x60FF0020
            "605#2F00160002000000",
            "605#2300140105020000", // 1400:01 = 0x00000205
            "605#23001801850100C0", // 1800:01 = 0xC0000185
            "605#2F001802FF000000",
            "605#2B00180332000000",
            "605#2F001A0000000000",
            "605#23001A0110004160", // 1A00:01 = 0x60410010
            "605#23001A0220006C60", // 1A00:02 = 0x606C0020
            "605#2F001A0002000000",
            "605#2300180185010040", // 1800:01 = 0x40000185
        ]
    );
}

/// (mask, value) of each state as python-canopen 2.4.1 has them (`p402.py`, `SW_MASK`).
const STATES: [(u16, u16, u16, Power); 8] = [
    (0x4F, 0x00, state::NOT_READY, Power::Transition),
    (0x4F, 0x40, state::SWITCH_ON_DISABLED, Power::Off),
    (0x6F, 0x21, state::READY_TO_SWITCH_ON, Power::Off),
    (0x6F, 0x23, state::SWITCHED_ON, Power::Transition),
    (0x6F, 0x27, state::OPERATION_ENABLED, Power::On),
    (0x4F, 0x08, state::FAULT, Power::Fault),
    (0x4F, 0x0F, state::FAULT_REACTION, Power::Transition),
    (0x6F, 0x07, state::QUICK_STOP_ACTIVE, Power::QuickStop),
];

#[test]
fn all_statuswords() {
    let drive = sdo();
    for word in 0..=u16::MAX {
        let [low, high] = word.to_le_bytes();
        let answer = Frame::classic(ArbitrationId::standard(0x585), &[0x4B, 0x41, 0x60, 0, low, high, 0, 0]);
        let seen = drive.decode(&answer).unwrap();
        match STATES.iter().find(|(mask, value, ..)| word & mask == *value) {
            Some((_, _, state, power)) => {
                assert_eq!((seen.state, seen.power), (Some(*state), Some(*power)), "{word:04X}");
            }
            None => assert_eq!(seen.power, Some(Power::Transition), "{word:04X}"),
        }
        // In these two there is a fault, and the emergency message that came before says which.
        let is_faulty = word & 0x4F == 0x08 || word & 0x4F == 0x0F;
        assert_eq!(seen.fault, (!is_faulty).then_some(None), "{word:04X}");
    }
}

#[test]
fn answers() {
    let drive = sdo();
    let seen = |payload| drive.decode(&frame("585", payload));
    assert_eq!(seen("436c60000cfeffff").unwrap().velocity, Some(RevolutionsPerSecond(-0.5)));
    assert_eq!(seen("426c6000f4010000").unwrap().velocity, Some(RevolutionsPerSecond(0.5)));
    assert_eq!(seen("43646000d0070000").unwrap().position, Some(Revolutions(2.0)));
    assert_eq!(seen("6040600000000000").unwrap().answer, Some(0x604000));
    let refused = seen("8016100100000206").unwrap();
    assert_eq!(refused.refused, Some(Refusal { request: 0x101601, code: 0x0602_0000 }));
    assert_eq!(refused.power, None);
    // Of a width the object does not have, of another subindex, too short, a segment.
    assert_eq!(seen("4b6c600000000000"), None);
    assert_eq!(seen("4341600040000000"), None);
    assert_eq!(seen("4b41600140000000"), None);
    assert_eq!(seen("4b416000400000"), None);
    assert_eq!(seen("0041600040000000"), None);
}

#[test]
fn emergencies() {
    let drive = sdo();
    assert_eq!(drive.decode(&frame("085", "3081110000000000")).unwrap().fault, Some(Some(Fault(0x8130))));
    assert_eq!(drive.decode(&frame("085", "0000000000000000")).unwrap().fault, Some(None));
    assert_eq!(drive.decode(&frame("085", "308111")), None);
}

#[test]
fn a_nodes_heartbeat_proves_nothing() {
    for byte in ["00", "04", "05", "7f"] {
        assert_eq!(sdo().decode(&frame("705", byte)), None);
        assert_eq!(pdo().decode(&frame("705", byte)), None);
    }
}

#[test]
fn tpdo1_counts_only_where_its_mapping_is_known() {
    let both = frame("185", "4002f4010000");
    assert_eq!(sdo().decode(&both), None);
    let seen = pdo().decode(&both).unwrap();
    assert_eq!((seen.power, seen.velocity), (Some(Power::Off), Some(RevolutionsPerSecond(0.5))));
    let alone = pdo().decode(&frame("185", "2706")).unwrap();
    assert_eq!((alone.power, alone.velocity), (Some(Power::On), None));
    assert_eq!(pdo().decode(&frame("185", "270600000000ff")), None);
    assert_eq!(pdo().decode(&frame("185", "2706000000")), None);
}

#[test]
fn motion_is_told_from_harmless() {
    for (id, payload, motion) in [
        // Controlwords: disable voltage, quick stop, fault reset; then those that energise.
        ("605", "2b40600000000000", false),
        ("605", "2b40600002000000", false),
        ("605", "2b40600080000000", false),
        ("605", "2b4060000b000000", false),
        ("605", "2b4060000d000000", false),
        ("605", "2b40600006000000", true),
        ("605", "2b40600007000000", true),
        ("605", "2b4060000f000000", true),
        ("605", "2b4060000f010000", true),
        ("605", "2b40600086000000", true),
        // The same word of a size not given, and in a long transfer.
        ("605", "224060000f000000", true),
        ("605", "2240600002000000", false),
        ("605", "2140600002000000", true),
        // Setpoints.
        ("605", "23ff600000000000", false),
        ("605", "23ff600001000000", true),
        ("605", "2b42600000000000", false),
        ("605", "2b42600000010000", true),
        ("605", "2b71600000000000", false),
        ("605", "2b71600001000000", true),
        ("605", "237a600000000000", true),
        // Set-up.
        ("605", "2317100064000000", false),
        ("605", "2b5a600006000000", false),
        ("605", "2f60600003000000", false),
        // Manufacturer's objects, second axis, segments, block writes, cut-off frames.
        ("605", "2300200000000000", true),
        ("605", "2b40680000000000", true),
        ("605", "000f000000000000", true),
        ("605", "c240600000000000", true),
        ("605", "2b406000", true),
        // Reads and aborts.
        ("605", "4041600000000000", false),
        ("605", "6000000000000000", false),
        ("605", "a040600000000000", false),
        ("605", "8040600000000000", false),
        // Receive PDOs.
        ("205", "020000000000", false),
        ("205", "000000000000", false),
        ("205", "0000", false),
        ("205", "8000", false),
        ("205", "0f0000000000", true),
        ("205", "020001000000", true),
        ("205", "0600", true),
        ("205", "00", true),
        ("205", "", true),
        ("305", "0f0003", true),
        ("405", "0f0000000000", true),
        ("505", "0f0000000000", true),
        // Other nodes, NMT, reports.
        ("606", "2b4060000f000000", false),
        ("206", "0f0000000000", false),
        ("000", "0105", false),
        ("585", "4b40600000000000", false),
    ] {
        for drive in [sdo(), pdo()] {
            assert_eq!(drive.is_motion(&frame(id, payload)), motion, "{id}#{payload}");
        }
    }
}

#[test]
fn remote_requests_command_nothing() {
    for id in [0x205, 0x305, 0x605] {
        assert!(!pdo().is_motion(&Frame::remote(ArbitrationId::standard(id))));
    }
}

#[test]
fn velocity_by_each_transport() {
    let speed = RevolutionsPerSecond(-0.5);
    assert_eq!(format!("{:?}", sdo().velocity(speed).unwrap()), "[605#23FF60000CFEFFFF]");
    assert_eq!(format!("{:?}", pdo().velocity(speed).unwrap()), "[205#0F000CFEFFFF]");
}

#[test]
fn drives_that_count_velocity_otherwise() {
    let keys = [
        ("node", Value::Integer(5)),
        ("counts_per_rev", Value::Integer(4096)),
        ("velocity_units_per_rps", Value::Integer(60)),
    ];
    let drive = build("cia402", &COMMON, &keys).unwrap();
    let frames = drive.velocity(RevolutionsPerSecond(10.0)).unwrap();
    assert_eq!(format!("{frames:?}"), "[605#23FF600058020000]"); // 600 rpm
    let seen = drive.decode(&frame("585", "436c600058020000")).unwrap();
    assert_eq!(seen.velocity, Some(RevolutionsPerSecond(10.0)));
    let seen = drive.decode(&frame("585", "4364600000100000")).unwrap();
    assert_eq!(seen.position, Some(Revolutions(1.0)));
}

#[test]
fn standstill_is_never_finer_than_the_drive() {
    let coarse = [("node", Value::Integer(5)), ("counts_per_rev", Value::Integer(10))];
    let drive = build("cia402", &COMMON, &coarse).unwrap();
    assert_eq!(drive.stop.stage(0).proof.max_speed, RevolutionsPerSecond(0.1));
    let fine = [("node", Value::Integer(5)), ("counts_per_rev", Value::Integer(4096))];
    let drive = build("cia402", &COMMON, &fine).unwrap();
    assert_eq!(drive.stop.stage(0).proof.max_speed, RevolutionsPerSecond(0.02));
    let asked = |rps| Common { standstill: Some(RevolutionsPerSecond(rps)), ..COMMON };
    assert_eq!(build("cia402", &asked(0.05), &coarse).unwrap_err().key, "standstill_rpm");
    let drive = build("cia402", &asked(0.3), &coarse).unwrap();
    assert_eq!(drive.stop.stage(1).proof.max_speed, RevolutionsPerSecond(0.3));
}

#[test]
fn the_masters_heartbeat() {
    let heartbeat = sdo().heartbeat.unwrap();
    assert_eq!(heartbeat.frame.to_string(), "77F#05");
    assert_eq!(heartbeat.window, Duration::from_millis(250));
    let keys = [
        ("node", Value::Integer(5)),
        ("counts_per_rev", Value::Integer(10)),
        ("heartbeat_ms", Value::Integer(0)),
        ("drive_heartbeat_ms", Value::Integer(0)),
    ];
    let without = build("cia402", &COMMON, &keys).unwrap();
    assert!(without.heartbeat.is_none());
    let written: Vec<_> = enable_frames(&without).iter().map(Frame::to_string).collect();
    assert!(!written.iter().any(|text| text.contains("1610") || text.contains("1710")), "{written:?}");
}

#[test]
fn hold_and_release_set_the_quick_stop_option() {
    let has = |drive: &Drive, text: &str| enable_frames(drive).iter().any(|frame| frame.to_string() == text);
    assert!(has(&cia402(5, "sdo", AfterStop::Hold), "605#2B5A600006000000"));
    assert!(has(&cia402(5, "sdo", AfterStop::Release), "605#2B5A600002000000"));
}

#[test]
fn no_stop_frame_is_halt_or_nmt() {
    for drive in [sdo(), pdo()] {
        for frame in stop_frames(&drive) {
            assert_ne!(frame.id(), ArbitrationId::Standard(0));
            assert!(!drive.is_motion(&frame));
        }
    }
}

#[test]
fn wrong_keys_are_named() {
    let base = [("node", Value::Integer(5)), ("counts_per_rev", Value::Integer(1000))];
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    let fast = Common { max_speed: RevolutionsPerSecond(1e9), ..COMMON };
    for (common, key, value) in [
        (COMMON, "transport", text("usb")),
        (COMMON, "quick_stop_option", Value::Integer(3)),
        (COMMON, "quick_stop_option", text("2")),
        (hold, "quick_stop_option", Value::Integer(2)),
        (COMMON, "abort_option", Value::Integer(1)),
        (COMMON, "heartbeat_ms", Value::Integer(65_536)),
        (COMMON, "master_node", Value::Integer(5)),
        (COMMON, "master_node", Value::Integer(128)),
        (COMMON, "mode", text("torque")),
        (COMMON, "velocity_units_per_rps", Value::Float(0.5)),
        (COMMON, "colour", text("red")),
    ] {
        let keys: Vec<_> = base.iter().cloned().chain([(key, value)]).collect();
        assert_eq!(build("cia402", &common, &keys).unwrap_err().key, key);
    }
    assert_eq!(build("cia402", &fast, &base).unwrap_err().key, "max_rpm");
    assert_eq!(build("cia402", &COMMON, &base[..1]).unwrap_err().key, "counts_per_rev");
    assert_eq!(build("cia402", &COMMON, &base[1..]).unwrap_err().key, "node");
    for node in [0, 128] {
        let keys = [("node", Value::Integer(node)), base[1].clone()];
        assert_eq!(build("cia402", &COMMON, &keys).unwrap_err().key, "node");
    }
}
