//! The kernel's harmless frame: an identifier that no drive of a bus hears.

mod common;

use common::{all, cia402, odrive, odrive_extended};
use drivers::{AfterStop, ArbitrationId, Drive, marker};

fn arm(node: i64) -> Drive {
    cia402(node, "sdo", AfterStop::Hold)
}

fn unheard(drives: &[Drive]) -> ArbitrationId {
    marker::unheard(drives.iter()).expect("some identifier is free")
}

/// Whether CANSimple would take the identifier for a command to some axis: (id >> 5) is its number.
fn addresses_an_axis(id: ArbitrationId, extended: bool) -> bool {
    match id {
        ArbitrationId::Standard(id) => !extended && id >> 5 <= 63,
        ArbitrationId::Extended(id) => extended && id >> 5 <= 63,
    }
}

/// Fails if the marker feeds the watchdog of any axis, configured or new out of the box (node 63).
#[test]
fn odrive_buses_have_a_marker_that_addresses_no_axis() {
    for drives in [vec![odrive(3, "0.5"), odrive(6, "0.6")], vec![odrive(63, "0.6")], vec![odrive(0, "0.5")]]
    {
        assert!(!addresses_an_axis(unheard(&drives), false));
    }
    let extended = [odrive_extended(3), odrive_extended(63)];
    assert!(!addresses_an_axis(unheard(&extended), true));
    let both = [odrive(3, "0.6"), odrive_extended(4)];
    let id = unheard(&both);
    assert!(!addresses_an_axis(id, false) && !addresses_an_axis(id, true));
}

/// Fails if the marker is any object of CANopen's predefined connection set, above all a heartbeat
/// (0x700 + node): a drive may watch one of a node that nobody has configured here.
#[test]
fn canopen_buses_have_a_marker_outside_the_connection_set() {
    for drives in [vec![arm(1)], vec![arm(126)], vec![arm(40), cia402(41, "pdo", AfterStop::Release)]] {
        let ArbitrationId::Standard(id) = unheard(&drives) else { panic!("a standard one is free") };
        assert!((0x780..0x7F0).contains(&id), "{id:03X}");
        assert!(!matches!(id, 0x7E4 | 0x7E5), "{id:03X} is LSS");
    }
}

#[test]
fn the_marker_is_free_on_a_mixed_bus_too() {
    let drives = [odrive(3, "0.6"), arm(40)];
    let id = unheard(&drives);
    assert_eq!(id, ArbitrationId::Extended(0x1FBF_FFFF), "every standard one addresses some axis");
}

/// Fails if an identifier a drive is known to use could be taken, whatever its family says otherwise.
#[test]
fn nothing_that_a_drive_uses_is_ever_the_marker() {
    for drive in all() {
        let heartbeat = drive.heartbeat.iter().map(|heartbeat| heartbeat.frame.id());
        let stops = drive.stop.stages().iter().flat_map(|stage| stage.frames.as_slice()).map(|f| f.id());
        let known = drive.owns.iter().chain(&drive.reports).chain(&drive.commands).copied();
        for id in known.chain(heartbeat).chain(stops) {
            assert!(drive.may_hear(id), "{id}");
        }
        assert!(!drive.may_hear(unheard(std::slice::from_ref(&drive))));
    }
}

/// Seven recessive bits at the beginning are an error to a controller that keeps to CAN 2.0 as Bosch wrote it.
#[test]
fn the_marker_is_legal_for_old_controllers() {
    for drives in [vec![odrive(3, "0.6")], vec![arm(40)], vec![]] {
        let first_seven = match unheard(&drives) {
            ArbitrationId::Standard(id) => u32::from(id) >> 4,
            ArbitrationId::Extended(id) => id >> 22,
        };
        assert_ne!(first_seven, 0x7F);
    }
}
