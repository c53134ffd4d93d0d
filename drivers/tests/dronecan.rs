//! ESCs over DroneCAN: golden bytes, and the rules that no table of bytes shows.

mod common;

use common::{COMMON, build, bytes, enable_frames, stop_frames, text};
use drivers::registry::Common;
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Frame, Output, PowerProof, RevolutionsPerSecond, StageKind,
    Standstill, Value,
};

const VECTORS: &str = include_str!("vectors/dronecan.txt");

type Keys = Vec<(&'static str, Value)>;

fn keys(index: i64, command: &str) -> Keys {
    let mut keys = vec![
        ("esc_node", Value::Integer(20)),
        ("source_node", Value::Integer(10)),
        ("index", Value::Integer(index)),
        ("command", text(command)),
    ];
    if command == "raw" {
        keys.push(("full_rpm", Value::Float(8191.0)));
    }
    keys
}

fn esc(index: i64, command: &str) -> Drive {
    let common = Common { max_speed: RevolutionsPerSecond::from_rpm(8191.0), ..COMMON };
    build("dronecan", &common, &keys(index, command)).unwrap()
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

fn commands(drive: &Drive, rpm: f64) -> Vec<Frame> {
    drive.velocity(RevolutionsPerSecond::from_rpm(rpm)).unwrap().as_slice().to_vec()
}

/// 8057.5002 of 8191 rounds up. With 30694 rpm kept in revolutions per second, as an f32, it came to 8057.4997.
#[test]
fn the_speed_of_a_full_command_is_kept_as_it_was_given() {
    let mut keys = keys(0, "raw");
    keys.retain(|(name, _)| *name != "full_rpm");
    keys.push(("full_rpm", Value::Float(30_694.0)));
    let common = Common { max_speed: RevolutionsPerSecond::from_rpm(30_600.0), ..COMMON };
    let drive = build("dronecan", &common, &keys).unwrap();
    let sent = drive.velocity(RevolutionsPerSecond(-503.228_97)).unwrap();
    assert_eq!(sent.as_slice()[0].payload(), bytes("86800000000000c0"));
}

/// What is golden but never sent, and why.
const NOT_SENT: &[(&str, &str)] = &[
    ("esc.RawCommand cmd=[0] ", "leaves the others of the bus without a command"),
    ("esc.RawCommand cmd=[0]*8 ", "is a transfer of several frames"),
];

#[test]
fn commands_match_pydronecan() {
    let mut ours = Vec::new();
    for drive in [esc(0, "raw"), esc(2, "rpm")] {
        ours.extend(stop_frames(&drive));
        ours.extend(enable_frames(&drive));
    }
    let mut checked = 0;
    for (message, golden) in vectors().filter(|(message, _)| !message.starts_with("RX")) {
        if let [kind @ ("RAW" | "RPM"), index, value, _] = message.split(' ').collect::<Vec<_>>()[..] {
            let drive = esc(index.parse().unwrap(), &kind.to_lowercase());
            let sent = commands(&drive, value.parse().unwrap());
            assert!(sent.contains(&golden), "{message}: {golden} is not among {sent:?}");
        } else if let Some((_, why)) = NOT_SENT.iter().find(|(name, _)| message.starts_with(name)) {
            assert!(!ours.contains(&golden), "{message} is sent, though it {why}");
        } else {
            assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
        }
        checked += 1;
    }
    assert_eq!(checked, 19);
}

#[test]
fn feedback_of_pydronecan_is_understood() {
    let drive = esc(0, "raw");
    let rpm = |rpm| Some(RevolutionsPerSecond::from_rpm(rpm));
    let mut checked = 0;
    for (message, golden) in vectors() {
        let Some(message) = message.strip_prefix("RX ") else { continue };
        let seen = drive.decode(&golden);
        let told = seen.map(|seen| (seen.velocity, seen.output));
        let expected = match message {
            "esc.Status rpm=0 current=0 frame0" | "esc.Status rpm=0 current=0 frame2" => None,
            "esc.Status rpm=0 current=0 frame1" => Some((rpm(0.0), Some(Output::Zero))),
            "esc.Status rpm=1234 current=12.5 frame1" => Some((rpm(1234.0), Some(Output::Driving))),
            "esc.Status rpm=-1234 current=-0.5 frame1" => Some((rpm(-1234.0), Some(Output::Driving))),
            "esc.Status rpm=32767 current=0.1 frame1" => Some((rpm(32767.0), Some(Output::Zero))),
            "esc.Status rpm=0 current=nan frame1" => Some((rpm(0.0), None)),
            "esc.Status index=3 power=0 frame2" => Some((None, Some(Output::Driving))),
            "esc.Status index=0 power=100 frame2" => None,
            other => panic!("no expectation for {other}"),
        };
        assert_eq!(told, expected, "{message}");
        checked += 1;
    }
    assert_eq!(checked, 9);
}

/// A receiver as libuavcan has it: a transfer with the number of the one before is dropped.
#[derive(Default)]
struct Receiver {
    last: Option<u8>,
}

impl Receiver {
    fn takes(&mut self, frame: &Frame) -> bool {
        let number = frame.payload().last().unwrap() & 0x1F;
        self.last.replace(number) != Some(number)
    }
}

/// Fails if a repeated command has one transfer number: nothing after the first would be heard.
#[test]
fn of_every_repetition_a_receiver_takes_one_and_the_last_word_wins() {
    for drive in [esc(1, "raw"), esc(1, "rpm")] {
        let lists = [
            commands(&drive, 500.0),
            drive.stop.stages()[0].frames.as_slice().to_vec(),
            drive.stop.stages()[1].frames.as_slice().to_vec(),
            enable_frames(&drive),
        ];
        for before in 0..32 {
            for list in &lists {
                // Sessions are by data type: each has its own number.
                for id in [drive.slot.unwrap().id, message_id(list, 1100)] {
                    let of_id: Vec<_> = list.iter().filter(|frame| frame.id() == id).collect();
                    let mut receiver = Receiver { last: Some(before) };
                    for _ in 0..3 {
                        let taken = of_id.iter().filter(|frame| receiver.takes(frame)).count();
                        assert!(of_id.is_empty() || taken >= 1, "{list:?} after number {before}");
                    }
                    let said: Vec<_> =
                        of_id.iter().map(|frame| frame.payload().split_last().unwrap().1).collect();
                    assert!(said.windows(2).all(|two| two[0] == two[1]), "both say the same");
                }
            }
        }
    }
}

/// The identifier of the list's frame of that data type; of none if there is none.
fn message_id(list: &[Frame], data_type: u32) -> ArbitrationId {
    let is = |id: &ArbitrationId| matches!(id, ArbitrationId::Extended(id) if id >> 8 & 0xFFFF == data_type);
    list.iter().map(Frame::id).find(is).unwrap_or(ArbitrationId::standard(0))
}

/// Fails if a part reaches into a neighbour's, or does not hold the whole command.
#[test]
fn the_parts_of_one_frame_fit_together() {
    for (command, count) in [("raw", 4), ("rpm", 3)] {
        let drives: Vec<_> = (0..count).map(|index| esc(index, command)).collect();
        let masks: Vec<_> = drives.iter().map(|drive| u64::from_be_bytes(drive.slot.unwrap().mask)).collect();
        let all = masks.iter().fold(0, |all, mask| {
            assert_eq!(all & mask, 0, "parts overlap");
            all | mask
        });
        assert_eq!(all & 0xFF, 0, "the tail is nobody's");
        // Each ESC's own command laid over the first one's.
        let rpms = [1000.0, -2000.0, 3000.0, -4000.0];
        let own: Vec<_> = drives.iter().zip(rpms).map(|(drive, rpm)| commands(drive, rpm)).collect();
        for transfer in 0..2 {
            let joint = drives.iter().zip(&own).fold(own[0][transfer], |joint, (drive, own)| {
                drive.slot.unwrap().overlay(&joint, &own[transfer])
            });
            assert_eq!(joint.payload().last(), own[0][transfer].payload().last());
            for (drive, (own, mask)) in drives.iter().zip(own.iter().zip(&masks)) {
                let bits = |frame: &Frame| u64::from_be_bytes(frame.payload().try_into().unwrap()) & mask;
                assert_eq!(bits(&joint), bits(&own[transfer]));
                assert!(drive.is_motion(&joint));
            }
        }
        // A command for one is no motion of the others, and to lay it over another frame changes nothing.
        assert!(!drives[1].is_motion(&own[0][0]) && drives[0].is_motion(&own[0][0]));
        let other = frame("0004060B", "00000000000000c0");
        assert_eq!(drives[0].slot.unwrap().overlay(&other, &own[0][0]), other);
    }
}

#[test]
fn the_programme_commands_zero_and_disarms() {
    let texts: Vec<_> = esc(1, "rpm")
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
                "[0004070A#00000000000000C0, 0004070A#00000000000000C1]".to_owned(),
                PowerProof::Any
            ),
            (
                StageKind::TorqueOff,
                "[0004070A#00000000000000C0, 0004070A#00000000000000C1, 00044C0A#00C0, 00044C0A#00C1]"
                    .to_owned(),
                PowerProof::NoOutput
            ),
        ]
    );
}

#[test]
fn motion_is_told_from_harmless() {
    for (id, payload, motion) in [
        // Another node, another priority, either message: only the element of index 1 counts.
        ("0004060A", "0000e3f0000000c0", true),
        ("1F04067F", "0000e3f0000000c0", true),
        ("1F04067F", "ff7c0000000000c0", false),
        ("0004070A", "0000223ff00000c1", true),
        ("0004070A", "b80b0000000000c1", false),
        // Too short to hold index 1, and just long enough.
        ("0004060A", "ff7cc0", false),
        ("0004060A", "000001c0", true),
        // Transfers of several frames: all zero behind the checksum, or not.
        ("0004060A", "8d99000000000080", false),
        ("0004060A", "8d99000100000080", true),
        ("0004060A", "0000000000000020", false),
        ("0004060A", "000140", true),
        // Not understood.
        ("0004060A", "", true),
        ("0004060A", "0000e3f0000000e0", true),
        // Arming.
        ("00044C0A", "00c0", false),
        ("10044C7F", "ffc0", true),
        ("10044C7F", "01c0", true),
        ("10044C7F", "c0", true),
        // Status, other messages, services, nodes without a number.
        ("10040A14", "ffffffffffffffc0", false),
        ("1001550A", "ffffffffffffffc0", false),
        ("0004068A", "0000e3f0000000c0", false),
        ("00040600", "0000e3f0000000c0", false),
    ] {
        assert_eq!(esc(1, "raw").is_motion(&frame(id, payload)), motion, "{id}#{payload}");
    }
    assert!(esc(1, "raw").is_motion(&Frame::remote(ArbitrationId::extended(0x0004_060A))));
    assert!(esc(1, "raw").commands.contains(&ArbitrationId::extended(0x1F04_067F)));
}

#[test]
fn only_no_current_proves_the_last_stage() {
    let drive = esc(0, "raw");
    let proof = drive.stop.stages()[1].proof;
    // f16 current: 0, 0.1, 0.2998, -0.5, NaN, infinite.
    for (current, proven) in
        [("0000", true), ("662e", true), ("cc34", false), ("00b8", false), ("007e", false), ("007c", false)]
    {
        let status = drive.decode(&frame("10040A14", &format!("4e{current}b05c000020"))).unwrap();
        let mut tracker = Standstill::NOTHING_SEEN;
        assert_eq!((0..10).any(|_| tracker.observe(&proof, &status)), proven, "{current}");
    }
    let turning = drive.decode(&frame("10040A14", "4e0000b05cd20425")).unwrap();
    let mut tracker = Standstill::NOTHING_SEEN;
    assert!(!(0..10).any(|_| tracker.observe(&proof, &turning)));
}

/// Fails if a node that reports for several ESCs lets one that stands prove another that turns.
#[test]
fn another_index_takes_the_proof_back() {
    let drive = esc(0, "raw");
    let proof = drive.stop.stages()[1].proof;
    let mut tracker = Standstill::NOTHING_SEEN;
    let frames = ["4e0000b05c000020", "000040", "4e0000b05c000021", "000441", "4e0000b05c000022", "000842"];
    let turning = "4e0000b05cd20425";
    let mut faults = 0;
    for _ in 0..20 {
        for payload in frames.iter().chain([&turning]) {
            let Some(seen) = drive.decode(&frame("10040A14", payload)) else { continue };
            faults += usize::from(seen.fault == Some(Some(Fault(1))));
            assert!(!tracker.observe(&proof, &seen));
        }
    }
    assert_eq!(faults, 40);
    // A speed beyond 16 bits: 65536 rpm has 0 in the second frame.
    assert_eq!(drive.decode(&frame("10040A14", "400040")).unwrap().output, Some(Output::Driving));
}

#[test]
fn frames_of_others_tell_nothing() {
    let drive = esc(0, "raw");
    for id in ["10040A15", "10040B14", "10040A94", "10040A00"] {
        assert_eq!(drive.decode(&frame(id, "4e0000b05c000020")), None, "{id}");
    }
    // First and only frames, a toggled third, wrong lengths.
    for payload in ["4e0000b05c000080", "4e0000b05c0000c0", "000c60", "4e0000b05c0020", "0c41", "00000c41"] {
        assert_eq!(drive.decode(&frame("10040A14", payload)), None, "{payload}");
    }
}

#[test]
fn wrong_keys_are_named() {
    let with = |command: &str, key: &'static str, value: Value| {
        let mut keys = keys(0, command);
        keys.retain(|(name, _)| *name != key);
        keys.push((key, value));
        keys
    };
    let without = |key: &str| {
        let mut keys = keys(0, "raw");
        keys.retain(|(name, _)| *name != key);
        keys
    };
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    let fast = Common { max_speed: RevolutionsPerSecond(600.0), ..COMMON };
    let fine = Common { standstill: Some(RevolutionsPerSecond(0.01)), ..COMMON };
    for (common, keys, key) in [
        (COMMON, without("esc_node"), "esc_node"),
        (COMMON, without("index"), "index"),
        (COMMON, without("command"), "command"),
        (COMMON, without("full_rpm"), "full_rpm"),
        (COMMON, with("raw", "esc_node", Value::Integer(128)), "esc_node"),
        (COMMON, with("raw", "index", Value::Integer(4)), "index"),
        (COMMON, with("rpm", "index", Value::Integer(3)), "index"),
        (COMMON, with("rpm", "source_node", Value::Integer(126)), "source_node"),
        (COMMON, with("rpm", "source_node", Value::Integer(20)), "source_node"),
        (COMMON, with("rpm", "idle_amps", Value::Integer(0)), "idle_amps"),
        (COMMON, with("raw", "full_rpm", Value::Integer(2999)), "max_rpm"),
        (fast, keys(0, "rpm"), "max_rpm"),
        (hold, keys(0, "rpm"), "after_stop"),
        (fine, keys(0, "rpm"), "standstill_rpm"),
    ] {
        assert_eq!(build("dronecan", &common, &keys).unwrap_err().key, key);
    }
}
