//! Every frame that an independent encoder produced is produced here, byte for byte, and every frame it
//! produced for a drive is understood.

mod common;

use common::{cia402, enable_frames, frame, odrive, stop_frames};
use drivers::odrive::flag;
use drivers::{AfterStop, Drive, Fault, Frame, Power, Revolutions, RevolutionsPerSecond};

const ODRIVE: &str = include_str!("vectors/odrive.txt");
const CIA402: &str = include_str!("vectors/cia402.txt");

fn lines(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('|').map(str::trim).collect())
}

/// All frames that Lanyard can send to the drive, with the given speeds.
fn sendable(drive: &Drive, speeds: &[f32]) -> Vec<Frame> {
    let mut all = stop_frames(drive);
    all.extend(enable_frames(drive));
    all.extend(drive.poll.as_slice());
    for speed in speeds {
        all.extend(drive.velocity(RevolutionsPerSecond(*speed)).unwrap().as_slice());
    }
    all
}

#[test]
fn odrive_commands_match_the_dbc() {
    let mut checked = 0;
    for line in lines(ODRIVE) {
        let [firmware, message, id, payload] = line[..] else { panic!("{line:?}") };
        if message.starts_with("RX") {
            continue;
        }
        let golden = frame(id, payload);
        let node = i64::from(u16::from_str_radix(id, 16).unwrap() >> 5);
        let ours = sendable(&odrive(node, firmware), &[1.5]);
        assert!(ours.contains(&golden), "{firmware} {message}: {golden} is not among {ours:?}");
        checked += 1;
    }
    assert_eq!(checked, 21);
}

#[test]
fn odrive_feedback_of_the_dbc_is_understood() {
    let mut checked = 0;
    for line in lines(ODRIVE) {
        let [firmware, message, id, payload] = line[..] else { panic!("{line:?}") };
        let Some(message) = message.strip_prefix("RX ") else { continue };
        let seen = odrive(0, firmware).decode(&frame(id, payload)).expect(message);
        match message {
            "Heartbeat IDLE no error node0" => {
                assert_eq!((seen.power, seen.state, seen.fault), (Some(Power::Off), Some(1), Some(None)));
            }
            "Heartbeat IDLE after WATCHDOG_TIMER_EXPIRED (0x01000000)" => {
                assert_eq!((seen.power, seen.fault), (Some(Power::Fault), Some(Some(Fault(0x0100_0000)))));
            }
            "Heartbeat CLOSED_LOOP traj done (bit48)" => {
                assert_eq!((seen.power, seen.state, seen.fault), (Some(Power::On), Some(8), Some(None)));
            }
            "Heartbeat IDLE after ESTOP_REQUESTED(0x4000) traj done (bit63)" => {
                assert_eq!((seen.power, seen.fault), (Some(Power::Fault), Some(Some(Fault(0x4000)))));
            }
            "Get_Encoder_Estimates pos=2.25rev vel=0.0rev/s" => {
                assert_eq!(seen.position, Some(Revolutions(2.25)));
                assert_eq!(seen.velocity, Some(RevolutionsPerSecond(0.0)));
                assert_eq!((seen.power, seen.fault), (None, None));
            }
            "Get_Encoder_Estimates pos=2.25 vel=-0.125" => {
                assert_eq!(seen.velocity, Some(RevolutionsPerSecond(-0.125)));
            }
            other => panic!("no expectation for {other}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 8);
}

#[test]
fn the_heartbeat_of_each_odrive_firmware_has_its_own_tail() {
    // Bytes 5 to 7: flags of motor, encoder and controller in 0.5; procedure result and
    // "trajectory done" in 0.6.
    let tail = frame("001", "0000000001010101");
    let old = odrive(0, "0.5").decode(&tail).unwrap();
    assert_eq!(old.fault, Some(Some(Fault(flag::MOTOR | flag::ENCODER | flag::CONTROLLER))));
    assert_eq!(old.power, Some(Power::Fault));
    let new = odrive(0, "0.6").decode(&tail).unwrap();
    assert_eq!((new.power, new.fault), (Some(Power::Off), Some(None)));
}

/// What is golden but never sent, and why.
const NOT_SENT: &[(&str, &str)] = &[
    ("NMT node5 STOPPED", "ends the feedback"),
    ("NMT all STOPPED", "ends the feedback"),
    ("NMT node5 RESET", "takes the drive's watchdog and its feedback away"),
    ("NMT node5 RESET COMMUNICATION", "takes the drive's watchdog and its feedback away"),
    ("SDO node5 6040 halt 0x010F", "its lower bits enable operation"),
    ("SDO node5 6007=2 disable voltage", "only when so configured"),
    ("SDO node5 6060=9 CSV", "only when so configured"),
];

#[test]
fn cia402_commands_match_python_canopen() {
    let mut ours = Vec::new();
    for drive in [cia402(5, "sdo", AfterStop::Hold), cia402(5, "pdo", AfterStop::Release)] {
        ours.extend(sendable(&drive, &[0.0]));
    }
    let mut checked = 0;
    for line in lines(CIA402) {
        let [message, id, payload] = line[..] else { panic!("{line:?}") };
        let golden = frame(id, payload);
        match NOT_SENT.iter().find(|(name, _)| *name == message) {
            Some((name, why)) => assert!(!ours.contains(&golden), "{name} is sent, though it {why}"),
            None => assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 20);
}

#[test]
fn cia402_keys_reach_the_bytes() {
    use common::{COMMON, build, text};
    use drivers::Value;
    let keys = [
        ("node", Value::Integer(5)),
        ("counts_per_rev", Value::Integer(1000)),
        ("abort_option", Value::Integer(2)),
        ("halt_option", Value::Integer(2)),
        ("mode", text("cyclic-velocity")),
    ];
    let frames = enable_frames(&build("cia402", &COMMON, &keys).unwrap());
    // Built as the golden 605A is: python-canopen's SDO download of two bytes.
    assert!(frames.contains(&frame("605", "2b5d600002000000")), "605D");
    for message in ["SDO node5 6007=2 disable voltage", "SDO node5 6060=9 CSV"] {
        let line = lines(CIA402).find(|line| line[0] == message).unwrap();
        assert!(frames.contains(&frame(line[1], line[2])), "{message}");
    }
}
