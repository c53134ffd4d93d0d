//! What frames of somebody else mean to a drive: its own frames as they are meant, those of others not at all.

mod common;

use common::{all, cia402, enable_frames, odrive, stop_frames};
use drivers::meaning::heard_by;
use drivers::{
    Amperes, ArbitrationId, Demand, Drive, Format, Frame, Heard, Meaning, RevolutionsPerSecond, Role,
    Setpoint, Settings, Value, registry,
};
use proptest::prelude::*;

/// What a frame that must reach the drive tells it.
fn meaning(drive: &Drive, frame: &Frame) -> Meaning {
    match drive.hears(frame) {
        Some(Heard::Command(meaning)) => meaning,
        other => panic!("{}: {frame} is {other:?}", drive.family),
    }
}

/// The frames by which the drive is told a speed.
fn frames_at(drive: &Drive, speed: f32) -> Vec<Frame> {
    drive.protocol.velocity(RevolutionsPerSecond(speed)).as_slice().to_vec()
}

/// The speed that these frames say.
fn said(drive: &Drive, speed: f32) -> f32 {
    let speeds: Vec<_> =
        frames_at(drive, speed).iter().filter_map(|frame| meaning(drive, frame).speed()).collect();
    assert!(!speeds.is_empty(), "{}: {:?}", drive.family, frames_at(drive, speed));
    assert!(speeds.iter().all(|other| *other == speeds[0]), "{}: {speeds:?}", drive.family);
    speeds[0].0
}

/// The coarsest step that its frames can say around a speed.
fn step(drive: &Drive, speed: f32) -> f32 {
    let here = said(drive, speed);
    let further = (0..40).map(|power| speed + 1e-6 * 2f32.powi(power));
    let next = further.map(|speed| said(drive, speed)).find(|there| *there != here);
    (next.expect("it says more than one speed") - here).abs()
}

/// Those that take a speed.
fn fast() -> Vec<Drive> {
    all().into_iter().filter(|drive| drive.setpoint == Setpoint::Velocity).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// One step, or for speeds that are floats what their rounding there and back makes.
    #[test]
    fn the_speed_of_a_set_point_is_read_back(rps in -1.0f32..1.0) {
        for drive in fast() {
            let read = said(&drive, rps);
            let most = step(&drive, rps).max(1e-6);
            prop_assert!((read - rps).abs() <= most, "{}: {rps} is read as {read}, a step is {most}", drive.family);
            for frame in frames_at(&drive, rps) {
                let meaning = meaning(&drive, &frame);
                prop_assert!(meaning.speed().is_none() || meaning.drives(), "{}: {frame}", drive.family);
                // A question behind it is no set-point, nor is the readiness that goes with it.
                prop_assert!(!meaning.is_neutral() || read == 0.0, "{}: {frame}", drive.family);
            }
        }
    }

    #[test]
    fn a_current_is_a_set_point(amperes in prop_oneof![0.1f32..3.0, -3.0f32..-0.1]) {
        for drive in all().into_iter().filter(|drive| drive.setpoint != Setpoint::Velocity) {
            for frame in drive.protocol.current(Amperes(amperes)).as_slice() {
                prop_assert_eq!(meaning(&drive, frame).role, Role::SetPoint(Demand::Other));
            }
        }
    }

    /// Whatever is in a frame, it never makes it panic, and what the guard takes for motion reaches the drive.
    #[test]
    fn every_frame_has_a_meaning(
        (drive, frame) in proptest::sample::select(all()).prop_flat_map(|drive| {
            let own: Vec<_> = drive.reports.iter().chain(&drive.commands).copied().collect();
            let id = prop_oneof![
                proptest::sample::select(own),
                any::<u16>().prop_map(ArbitrationId::standard),
                any::<u32>().prop_map(ArbitrationId::extended),
            ];
            let frame = (id, proptest::collection::vec(any::<u8>(), 0..=64), 0..8u8).prop_map(|(id, payload, format)| {
                match format {
                    0 => Frame::remote(id),
                    1 => Frame::fd(id, &payload),
                    _ => Frame::classic(id, &payload),
                }
            });
            (Just(drive), frame)
        }),
    ) {
        let heard = drive.hears(&frame);
        if drive.is_motion(&frame) {
            prop_assert!(heard.is_some(), "{}: {frame} moves it and does not reach it", drive.family);
        }
        if drive.decode(&frame).is_some() {
            prop_assert!(matches!(heard, Some(Heard::Report)), "{}: {frame} is {heard:?}", drive.family);
        }
        if let Some(Heard::Command(meaning)) = heard && meaning.is_neutral() && !meaning.stops {
            let loops_at_rest = meaning.speed() == Some(RevolutionsPerSecond::ZERO);
            let clears = meaning.role == Role::Clear;
            prop_assert!(loops_at_rest || clears || !drive.is_motion(&frame), "{}: {frame}", drive.family);
        }
    }
}

#[test]
fn its_stops_are_stops_and_neutral() {
    for drive in all() {
        for frame in stop_frames(&drive).iter().chain(&drive.broadcast) {
            let meaning = meaning(&drive, frame);
            assert!(
                meaning.stops && meaning.is_neutral() && !meaning.moves,
                "{}: {frame} {meaning:?}",
                drive.family
            );
            let drives = meaning.speed() == Some(RevolutionsPerSecond::ZERO);
            assert!(
                !meaning.drives() || drives || meaning.role == Role::Enabling,
                "{}: {frame}",
                drive.family
            );
        }
    }
}

/// A set-point of 0, a stop, and what only asks are in between.
#[test]
fn its_enable_programme_enables_or_clears() {
    for drive in all() {
        for frame in enable_frames(&drive) {
            let meaning = meaning(&drive, &frame);
            let in_passing = meaning.stops || meaning.speed() == Some(RevolutionsPerSecond::ZERO);
            let asks = meaning.role == Role::Other && !meaning.moves;
            let expected = matches!(meaning.role, Role::Enabling | Role::Clear);
            assert!(expected || in_passing || asks, "{}: {frame} {meaning:?}", drive.family);
        }
        let brings_up = drive.enable.steps().iter().flat_map(|step| step.frames.as_slice());
        let brings_up = brings_up.filter(|frame| drive.is_motion(frame));
        for frame in brings_up {
            let meaning = meaning(&drive, frame);
            assert!(meaning.drives() || meaning.role == Role::Clear, "{}: {frame} {meaning:?}", drive.family);
        }
    }
}

/// A program that asks and asks does not drive.
#[test]
fn questions_drive_nothing() {
    for drive in all() {
        for frame in drive.poll.as_slice().iter().chain(drive.watchdog.ask.as_slice()) {
            let meaning = meaning(&drive, frame);
            let is_the_gentle_stop = meaning.stops;
            assert!(!meaning.drives() || is_the_gentle_stop, "{}: {frame} {meaning:?}", drive.family);
        }
    }
}

/// The clear frame of each family that has one.
#[test]
fn families_have_their_clear_frames() {
    let clears = |family: &str, frame: Frame| {
        let family = registry::family(family).unwrap();
        let drive = registry::build(family, &(family.example)(), &common::COMMON).unwrap();
        assert_eq!(meaning(&drive, &frame).role, Role::Clear, "{}: {frame}", drive.family);
    };
    let standard = |id: u16, payload: &[u8]| Frame::classic(ArbitrationId::standard(id), payload);
    clears("odrive", standard(0x078, &[0]));
    clears("odrive", standard(0x078, &[0; 8]));
    clears("cia402", standard(0x605, &[0x2B, 0x40, 0x60, 0, 0x80, 0, 0, 0]));
    clears("agilex", standard(0x441, &[0; 8]));
    for (family, needle) in [("damiao", 0xFB), ("robstride", 1), ("rev-spark", 0)] {
        let family = registry::family(family).unwrap();
        let drive = registry::build(family, &(family.example)(), &common::COMMON).unwrap();
        let found =
            enable_frames(&drive).into_iter().find(|frame| meaning(&drive, frame).role == Role::Clear);
        let found = found.unwrap_or_else(|| panic!("{} has none", drive.family));
        assert!(found.payload().is_empty() || found.payload().contains(&needle), "{found}");
    }
}

/// A family says that it has a clear frame exactly if one is found among what it can be told.
#[test]
fn what_says_that_it_can_be_cleared_can() {
    for drive in all() {
        let can = matches!(
            drive.family,
            "agilex" | "cia402" | "damiao" | "odrive" | "rev-spark" | "roboteq" | "robstride"
        );
        assert_eq!(drive.has_clear_frame(), can, "{}", drive.family);
        let found = enable_frames(&drive).iter().any(|frame| meaning(&drive, frame).role == Role::Clear);
        assert!(can || !found, "{}", drive.family);
    }
}

/// The same drive under another number: none of its frames means anything to this one.
fn with_number(family: &registry::Family, key: &str, number: i64) -> Drive {
    let mut settings = Settings::default();
    for (name, value) in (family.example)().entries().filter(|(name, _)| *name != key) {
        settings.insert(name, value.clone());
    }
    settings.insert(key, Value::Integer(number));
    registry::build(family, &settings, &common::COMMON).unwrap()
}

#[test]
fn frames_of_another_drive_never_reach_it() {
    for family in registry::FAMILIES {
        // A base is alone on its bus, frames are as they are written, and what a joint frame commands reaches all in it.
        let Some(key) = ["node", "id", "device"].into_iter().find(|key| family.key_names().contains(key))
        else {
            continue;
        };
        if family.name == "dji" {
            continue;
        }
        let (one, other) = (with_number(family, key, 3), with_number(family, key, 4));
        let speeds = [-0.7, 0.0, 0.7].map(|speed| frames_at(&other, speed)).concat();
        let frames = speeds.into_iter().chain(stop_frames(&other)).chain(enable_frames(&other));
        for frame in frames.chain(other.poll.as_slice().iter().copied()) {
            assert_eq!(one.hears(&frame), None, "{}: {frame}", family.name);
            assert!(matches!(other.hears(&frame), Some(Heard::Command(_))), "{}: {frame}", family.name);
        }
    }
}

/// What commands several drives at once reaches each of them.
#[test]
fn broadcasts_and_joint_frames_reach_all() {
    let pair = |family: &str, key: &str| {
        let family = registry::family(family).unwrap();
        [with_number(family, key, 1), with_number(family, key, 2)]
    };
    for (family, key) in [("vesc", "id"), ("rmd", "id"), ("moteus", "id")] {
        let drives = pair(family, key);
        let broadcast = drives[0].broadcast.unwrap();
        let reached: Vec<_> =
            heard_by(drives.iter().enumerate(), &broadcast).map(|(place, _)| place).collect();
        assert_eq!(reached, [0, 1], "{family}: {broadcast}");
    }
    let drives = pair("dji", "id");
    let joint = drives[0].protocol.current(Amperes(1.0)).as_slice()[0];
    let reached: Vec<_> = heard_by(drives.iter().enumerate(), &joint).collect();
    assert_eq!(reached.len(), 2, "{reached:?}");
    // A part of zeros tells the other motor to stand still, which is a command, too.
    assert!(matches!(
        reached[1].1,
        Heard::Command(Meaning { role: Role::SetPoint(Demand::Still), moves: false, .. })
    ));
    let drives =
        [cia402(5, "sdo", drivers::AfterStop::Release), cia402(6, "pdo", drivers::AfterStop::Release)];
    let reaches = |id: u16, payload: &[u8]| {
        let frame = Frame::classic(ArbitrationId::standard(id), payload);
        heard_by(drives.iter().enumerate(), &frame).map(|(place, _)| place).collect::<Vec<_>>()
    };
    assert_eq!(reaches(0x000, &[0x81, 0]), [0, 1], "NMT for all");
    assert_eq!(reaches(0x000, &[0x81, 6]), [1]);
    assert_eq!(reaches(0x000, &[0x81]), [0, 1], "and what names nobody");
    assert_eq!(reaches(0x080, &[]), [0, 1], "SYNC");
    assert_eq!(reaches(0x7E5, &[4, 1, 0, 0, 0, 0, 0, 0]), [0, 1], "LSS");
    assert_eq!(reaches(0x7E6, &[4, 1, 0, 0, 0, 0, 0, 0]), []);
}

#[test]
fn reports_and_the_supervisors_heartbeat_are_nobody_elses() {
    let drive = odrive(3, "0.6");
    let id = ArbitrationId::standard(3 << 5 | 9);
    assert_eq!(drive.hears(&Frame::classic(id, &[0; 8])), Some(Heard::Report));
    assert_eq!(drive.hears(&Frame::classic(id, &[0; 3])), Some(Heard::Report), "even if it says nothing");
    for asks in [Frame::remote(id), Frame::classic(id, &[])] {
        assert!(!meaning(&drive, &asks).drives(), "{asks}");
    }
    for drive in all() {
        if let Some(heartbeat) = drive.heartbeat {
            assert_eq!(drive.hears(&heartbeat.frame), Some(Heard::Heartbeat), "{}", drive.family);
        }
    }
}

/// What a program with its own library sends is not byte for byte what Lanyard sends.
#[test]
fn other_forms_of_the_same_command_are_understood() {
    let drive = odrive(3, "0.6");
    let at = |command: u16, payload: &[u8]| {
        meaning(&drive, &Frame::classic(ArbitrationId::standard(3 << 5 | command), payload))
    };
    assert_eq!(at(0x07, &[8, 0, 0, 0]).role, Role::Enabling, "an axis state of four bytes");
    assert_eq!(at(0x07, &[1, 0, 0, 0]).role, Role::Other, "idle");
    let speed = at(0x0D, &2.5f32.to_le_bytes());
    assert_eq!(speed.role, Role::SetPoint(Demand::Speed(RevolutionsPerSecond(2.5))));
    let torque = [0f32.to_le_bytes(), 1f32.to_le_bytes()].concat();
    assert_eq!(at(0x0D, &torque).role, Role::SetPoint(Demand::Other), "a feed-forward pushes");
    assert!(!at(0x0D, &torque).is_neutral());
    assert_eq!(at(0x0C, &[0; 8]).role, Role::SetPoint(Demand::Other), "position 0 is a place to go to");
    assert!(!at(0x0C, &[0; 8]).is_neutral());
    assert!(at(0x0E, &[0; 4]).is_neutral(), "no torque");
    assert_eq!(
        at(0x04, &[1, 0, 0, 0, 0, 0, 0, 0]).role,
        Role::Other,
        "a setting moves, and is no sign of driving"
    );
    assert!(at(0x04, &[1, 0, 0, 0, 0, 0, 0, 0]).moves);
    let nan = at(0x0D, &[f32::NAN.to_le_bytes(), [0; 4]].concat());
    assert!(nan.speed().is_some_and(|speed| drive.may_turn_at(speed).is_err()), "no number is no speed");
    let fd = Frame::fd(ArbitrationId::standard(3 << 5 | 0x0D), &[0; 8]);
    assert!(fd.format() == Format::FdBrs && !meaning(&drive, &fd).is_neutral(), "what is not understood");
}
