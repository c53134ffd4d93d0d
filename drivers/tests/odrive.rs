//! The rules of the ODrive family that no table of bytes shows.

mod common;

use common::{COMMON, build, enable_frames, frame, odrive, odrive_extended, stop_frames, text};
use drivers::odrive::flag;
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Fault, Format, Frame, Power, PowerProof, RevolutionsPerSecond, StageKind, Value,
};

#[test]
fn the_programme_goes_from_gentle_to_final() {
    let drive = odrive(3, "0.6");
    let texts: Vec<_> = drive
        .stop
        .stages()
        .iter()
        .map(|stage| (stage.kind, format!("{:?}", stage.frames), stage.proof.power))
        .collect();
    assert_eq!(
        texts,
        [
            (
                StageKind::Controlled,
                "[06B#0200000001000000, 06D#0000000000000000]".to_owned(),
                PowerProof::Any
            ),
            (StageKind::TorqueOff, "[067#0100000000000000]".to_owned(), PowerProof::Off),
            (StageKind::Latch, "[062#, 067#0100000000000000]".to_owned(), PowerProof::Off),
        ]
    );
    assert_eq!(drive.stop.after, AfterStop::Release);
}

#[test]
fn nothing_is_polled_because_reads_feed_the_watchdog() {
    assert!(odrive(3, "0.5").poll.as_slice().is_empty());
    assert!(odrive(3, "0.6").poll.as_slice().is_empty());
}

#[test]
fn the_setpoint_is_zero_before_the_axis_is_enabled() {
    let frames = enable_frames(&odrive(0, "0.5"));
    let texts: Vec<_> = frames.iter().map(Frame::to_string).collect();
    assert_eq!(texts, ["018#", "00B#0200000001000000", "00D#0000000000000000", "007#0800000000000000"]);
}

#[test]
fn motion_is_told_from_harmless() {
    for (id, payload, motion) in [
        // Set_Axis_State: only IDLE is harmless, in eight bytes or four.
        ("067", "0800000000000000", true),
        ("067", "0300000000000000", true),
        ("067", "0101000000000000", true),
        ("067", "01", true),
        ("067", "", true),
        ("067", "0100000000000000", false),
        ("067", "01000000", false),
        // Velocity: 0 and -0 without torque.
        ("06D", "0000000000000000", false),
        ("06D", "0000008000000000", false),
        ("06D", "0000000000000080", false),
        ("06D", "0100000000000000", true),
        ("06D", "000000000000803f", true),
        ("06D", "0000c07f00000000", true),
        ("06D", "00000000", true),
        // Position has no harmless value.
        ("06C", "0000000000000000", true),
        ("06E", "00000000", false),
        ("06E", "0000803f", true),
        // Modes: velocity passthrough only.
        ("06B", "0200000001000000", false),
        ("06B", "0300000001000000", true),
        ("06B", "0100000001000000", true),
        ("06B", "0200000002000000", true),
        // Estop, errors, limits, reads.
        ("062", "", false),
        ("078", "00", false),
        ("06F", "0000803f00008040", false),
        ("069", "", false),
        ("063", "", false),
        ("064", "000100000000", false),
        // 0.6: writes an endpoint.
        ("064", "0101000000000000", true),
        // Another node number, anticogging, reboot, unknown numbers.
        ("066", "04000000", true),
        ("070", "", true),
        ("076", "00", true),
        ("07E", "", true),
        ("07F", "", true),
        // Other nodes: the last number of the one before, the first of the one behind.
        ("05F", "", false),
        ("080", "", false),
        ("047", "0800000000000000", false),
        ("087", "0800000000000000", false),
        ("0E7", "0800000000000000", false),
    ] {
        assert_eq!(odrive(3, "0.6").is_motion(&frame(id, payload)), motion, "{id}#{payload}");
    }
    // In 0.5 the number 4 reads the encoder error.
    assert!(!odrive(3, "0.5").is_motion(&frame("064", "0101000000000000")));
}

#[test]
fn remote_requests_read_but_to_set_commands_they_are_taken_for_the_command() {
    let drive = odrive(3, "0.5");
    assert!(!drive.is_motion(&Frame::remote(ArbitrationId::standard(0x069))));
    assert!(drive.is_motion(&Frame::remote(ArbitrationId::standard(0x067))));
    assert!(drive.is_motion(&Frame::remote(ArbitrationId::standard(0x06D))));
}

#[test]
fn the_id_format_is_part_of_the_address() {
    let extended = odrive_extended(3);
    let estimates = [0, 0, 0, 0, 0, 0, 0, 0];
    assert!(extended.decode(&Frame::classic(ArbitrationId::extended(0x69), &estimates)).is_some());
    assert!(extended.decode(&Frame::classic(ArbitrationId::standard(0x69), &estimates)).is_none());
    assert!(odrive(3, "0.6").decode(&Frame::classic(ArbitrationId::extended(0x69), &estimates)).is_none());
    assert!(stop_frames(&extended).iter().all(|frame| matches!(frame.id(), ArbitrationId::Extended(_))));
    assert!(extended.is_motion(&Frame::classic(ArbitrationId::extended(0x67), &[8, 0, 0, 0])));
    assert!(!extended.is_motion(&Frame::classic(ArbitrationId::standard(0x67), &[8, 0, 0, 0])));
    // The same lowest eleven bits, another address.
    assert!(!extended.is_motion(&Frame::classic(ArbitrationId::extended(0x1_0067), &[8, 0, 0, 0])));
}

#[test]
fn a_speed_that_is_no_number_is_no_reading() {
    let drive = odrive(0, "0.6");
    let seen = drive.decode(&frame("009", "0000803f0000c07f")).unwrap();
    assert_eq!(seen.velocity, None);
    assert!(seen.position.is_some());
    assert_eq!(drive.decode(&frame("009", "0000c07f0000807f")), None);
}

#[test]
fn states_between_are_transitions() {
    let drive = odrive(0, "0.6");
    for state in (0..=255u8).filter(|state| *state != 1 && *state != 8) {
        let seen = drive.decode(&Frame::classic(ArbitrationId::standard(1), &[0, 0, 0, 0, state, 0, 0, 0]));
        assert_eq!(seen.unwrap().power, Some(Power::Transition), "{state}");
    }
}

/// Fails if two signs of an error make none.
#[test]
fn every_sign_of_an_error_is_a_fault() {
    let drive = odrive(0, "0.5");
    for (payload, fault) in [
        ("0000000001010000", flag::MOTOR),
        ("0000000001000100", flag::ENCODER),
        ("0000000001000001", flag::CONTROLLER),
        ("0000000001010100", flag::MOTOR | flag::ENCODER),
        ("4000000001000001", 0x40 | flag::CONTROLLER),
        // Should the register ever have a bit where the flags are.
        ("0000002001010000", flag::MOTOR),
        ("0000004001000100", flag::ENCODER),
    ] {
        let seen = drive.decode(&frame("001", payload)).unwrap();
        assert_eq!(seen.fault, Some(Some(Fault(fault))), "{payload}");
        assert_eq!(seen.power, Some(Power::Fault), "{payload}");
    }
}

#[test]
fn reports_and_commands_are_apart() {
    let drive = odrive(63, "0.6");
    assert!(drive.reports.iter().all(|id| !drive.commands.contains(id)));
    assert!(drive.commands.contains(&ArbitrationId::Standard(0x7E7)));
    assert_eq!(drive.format, Format::Classic);
}

#[test]
fn wrong_keys_are_named() {
    let node = ("node", Value::Integer(3));
    let firmware = ("firmware", text("0.6"));
    let too_slow = Common { standstill: Some(RevolutionsPerSecond(0.0)), ..COMMON };
    for (common, keys, key) in [
        (COMMON, vec![firmware.clone()], "node"),
        (COMMON, vec![("node", Value::Integer(64)), firmware.clone()], "node"),
        (COMMON, vec![node.clone()], "firmware"),
        (COMMON, vec![node.clone(), ("firmware", text("0.4"))], "firmware"),
        (COMMON, vec![node.clone(), firmware.clone(), ("id_format", text("long"))], "id_format"),
        (COMMON, vec![node.clone(), firmware.clone(), ("nod", Value::Integer(1))], "nod"),
        (too_slow, vec![node, firmware], "standstill_rpm"),
    ] {
        assert_eq!(build("odrive", &common, &keys).unwrap_err().key, key);
    }
}
