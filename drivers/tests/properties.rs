//! What must hold for every frame and every speed.

mod common;

use common::{all, cia402, enable_frames, examples, odrive, stop_frames};
use drivers::frame::MAX_FRAMES;
use drivers::{
    AfterStop, Amperes, ArbitrationId, Drive, Fault, Format, Frame, Power, PowerProof, Proof,
    RevolutionsPerSecond, Setpoint, Standstill, Until, VelocityError, registry,
};
use proptest::prelude::*;

/// Any frame; every second one on an id of the drive, so that its content matters.
fn any_frame(drive: &Drive) -> impl Strategy<Value = Frame> + use<> {
    let own: Vec<_> = drive.reports.iter().chain(&drive.commands).copied().collect();
    let id = prop_oneof![
        proptest::sample::select(own),
        any::<u16>().prop_map(ArbitrationId::standard),
        any::<u32>().prop_map(ArbitrationId::extended),
    ];
    (id, proptest::collection::vec(any::<u8>(), 0..=64), 0..8u8).prop_map(
        |(id, payload, format)| match format {
            0 => Frame::remote(id),
            1 => Frame::fd(id, &payload),
            _ => Frame::classic(id, &payload),
        },
    )
}

/// The two families whose last proof is the drive's own word "off", and nothing less.
fn odrive_and_canopen() -> Vec<Drive> {
    let drives = vec![
        odrive(3, "0.5"),
        odrive(3, "0.6"),
        cia402(5, "sdo", AfterStop::Release),
        cia402(5, "pdo", AfterStop::Hold),
    ];
    assert!(drives.iter().all(|drive| drive.stop.stages().last().unwrap().proof.power == PowerProof::Off));
    drives
}

/// One drive of every kind with a frame for it.
fn drive_and_frame() -> impl Strategy<Value = (Drive, Frame)> {
    proptest::sample::select(all()).prop_flat_map(|drive| {
        let frame = any_frame(&drive);
        (Just(drive), frame)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_frame_makes_it_panic((drive, frame) in drive_and_frame()) {
        let _ = drive.decode(&frame);
        let _ = drive.is_motion(&frame);
    }

    #[test]
    fn only_the_drives_own_ids_tell_of_it((drive, frame) in drive_and_frame()) {
        if drive.decode(&frame).is_some() {
            prop_assert!(drive.reports.contains(&frame.id()));
        }
    }

    #[test]
    fn every_motion_frame_is_on_a_watched_id((drive, frame) in drive_and_frame()) {
        if drive.is_motion(&frame) {
            prop_assert!(drive.commands.contains(&frame.id()));
        }
    }

    /// However many frames come from elsewhere, or with nothing in them, they prove nothing.
    #[test]
    fn foreign_and_empty_frames_prove_nothing((drive, frame) in drive_and_frame()) {
        if !drive.reports.contains(&frame.id()) {
            prop_assert_eq!(drive.decode(&frame), None);
        }
        for id in &drive.reports {
            for empty in [Frame::classic(*id, &[]), Frame::fd(*id, &[]), Frame::remote(*id)] {
                prop_assert_eq!(drive.decode(&empty), None);
            }
        }
    }

    /// The final proof takes the drive's own word, or its own measurement, that there is no torque; and whatever
    /// frames come, it is not met while the last word is another.
    #[test]
    fn a_running_drive_is_never_proven_stopped(
        (drive, frames) in proptest::sample::select(all()).prop_flat_map(|drive| {
            let frames = proptest::collection::vec(any_frame(&drive), 1..40);
            (Just(drive), frames)
        }),
    ) {
        let proof = drive.stop.stages().last().unwrap().proof;
        prop_assert!(matches!(proof.power, PowerProof::Off | PowerProof::NoOutput));
        let mut tracker = Standstill::NOTHING_SEEN;
        let (mut power, mut output) = (None, None);
        for seen in frames.iter().filter_map(|frame| drive.decode(frame)) {
            power = seen.power.or(power);
            output = seen.output.or(output);
            prop_assert!(proof.power.met_by(power, output) || !tracker.observe(&proof, &seen));
        }
    }

    /// Their reports have two, six or eight bytes; of any other length they tell nothing.
    #[test]
    fn malformed_frames_of_odrive_and_canopen_prove_nothing(
        (drive, id) in proptest::sample::select(odrive_and_canopen()).prop_flat_map(|drive| {
            let id = proptest::sample::select(drive.reports.clone());
            (Just(drive), id)
        }),
        payload in proptest::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..=64),
    ) {
        if ![2, 6, 8].contains(&payload.len()) {
            prop_assert_eq!(drive.decode(&Frame::fd(id, &payload)), None);
            if payload.len() <= 8 {
                prop_assert_eq!(drive.decode(&Frame::classic(id, &payload)), None);
            }
        }
    }

    /// By ODrive as the f32 itself; by CiA 402 as the nearest of 1000 counts a turn.
    #[test]
    fn the_frame_says_the_speed(rps in -50.0f32..50.0) {
        for drive in odrive_and_canopen() {
            let frames = drive.velocity(RevolutionsPerSecond(rps)).unwrap();
            let [frame] = frames.as_slice() else { panic!("one frame") };
            let payload = frame.payload();
            let word = |at: usize| <[u8; 4]>::try_from(&payload[at..at + 4]).unwrap();
            if drive.family == "odrive" {
                prop_assert_eq!(f32::from_le_bytes(word(0)), rps);
                continue;
            }
            let at = payload.len() - 4;
            let counts = f64::from(i32::from_le_bytes(word(at)));
            prop_assert!((counts / 1000.0 - f64::from(rps)).abs() <= 0.000_500_1);
        }
    }

    #[test]
    fn a_speed_that_is_seen_is_motion(rps in prop_oneof![0.1f32..50.0, -50.0f32..-0.1]) {
        for drive in all() {
            let frames = match drive.setpoint {
                Setpoint::Velocity => drive.velocity(RevolutionsPerSecond(rps)).unwrap(),
                Setpoint::Current(_) => drive.protocol.current(Amperes(rps)),
            };
            prop_assert!(frames.as_slice().iter().any(|frame| drive.is_motion(frame)));
        }
    }

    #[test]
    fn a_speed_out_of_bounds_is_refused(rps in any::<f32>()) {
        for drive in all() {
            let allowed = rps.is_finite() && rps.abs() <= 50.0;
            prop_assert_eq!(drive.velocity(RevolutionsPerSecond(rps)).is_ok(), allowed);
        }
    }

    /// The protocol itself takes any speed at all, even one that its drive would refuse.
    #[test]
    fn no_speed_overflows(rps in any::<f32>()) {
        for drive in all() {
            let _ = drive.protocol.velocity(RevolutionsPerSecond(rps));
            let _ = drive.protocol.current(Amperes(rps));
        }
    }
}

/// Most families do not speak CAN FD: such a frame tells nothing, and on a command id it cannot be
/// understood.
#[test]
fn fd_frames_are_not_taken_for_classic_ones() {
    for drive in all().into_iter().filter(|drive| drive.format == Format::Classic) {
        for id in &drive.reports {
            for length in 0..=8 {
                assert_eq!(drive.decode(&Frame::fd(*id, &[0; 8][..length])), None);
            }
        }
        for frame in enable_frames(&drive).iter().chain(&stop_frames(&drive)) {
            let fd = Frame::fd(frame.id(), frame.payload());
            assert_eq!(drive.is_motion(&fd), drive.commands.contains(&fd.id()), "{fd}");
        }
    }
}

#[test]
fn what_is_not_a_number_is_no_speed() {
    for drive in all() {
        for rps in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let refused = drive.velocity(RevolutionsPerSecond(rps)).unwrap_err();
            assert_eq!(refused, VelocityError::NotFinite);
        }
    }
}

#[test]
fn stop_poll_and_heartbeat_are_never_motion() {
    for drive in all() {
        let heartbeat = drive.heartbeat.map(|heartbeat| heartbeat.frame);
        for frame in stop_frames(&drive).iter().chain(drive.poll.as_slice()).chain(&heartbeat) {
            assert!(!drive.is_motion(frame), "{frame}");
        }
    }
}

/// What brings a drive's power up must not pass the bus guard when a stranger sends it.
#[test]
fn the_step_that_enables_is_motion() {
    for drive in all() {
        for step in drive.enable.steps().iter().filter(|step| step.until == Some(Until::Power(Power::On))) {
            assert!(step.frames.as_slice().iter().any(|frame| drive.is_motion(frame)), "{}", drive.family);
        }
    }
}

/// A motor without torque is what the last stage leaves, and no stage is gentler than the one before it.
#[test]
fn stages_go_from_gentle_to_final() {
    for drive in all() {
        let kinds: Vec<_> = drive.stop.stages().iter().map(|stage| stage.kind).collect();
        assert!(kinds.is_sorted(), "{}: {kinds:?}", drive.family);
        assert!(!kinds.last().unwrap().leaves_torque(), "{}: {kinds:?}", drive.family);
    }
}

/// What several drives have in common is nobody's own, and what stops them all is on such an identifier.
#[test]
fn shared_ids_are_not_owned() {
    for drive in all() {
        for id in &drive.shares {
            assert!(!drive.owns.contains(id), "{}: {id}", drive.family);
        }
        let common = drive.broadcast.iter().map(Frame::id).chain(drive.slot.iter().map(|slot| slot.id));
        for id in common {
            assert!(drive.shares.contains(&id), "{}: {id}", drive.family);
        }
        assert!(drive.slot.is_none_or(|slot| slot.mask != [0; 8]));
        assert!(drive.broadcast.is_none_or(|frame| !drive.is_motion(&frame)), "{}", drive.family);
        assert!(drive.stop.stages().iter().all(|stage| stage.frames.as_slice().len() <= MAX_FRAMES));
        assert!(drive.owns.iter().chain(&drive.shares).any(|id| drive.reports.contains(id)));
    }
}

/// Its documents can be written: every family says what proves its standstill and how its watchdog is set.
#[test]
fn every_family_describes_itself() {
    for (drive, family) in examples().iter().zip(registry::FAMILIES) {
        let sheet = family.sheet;
        assert!(!sheet.proof.is_empty() && !sheet.vectors.is_empty(), "{}", family.name);
        assert!(!drive.watchdog.advice.is_empty(), "{}", family.name);
        assert_eq!(drive.family, family.name);
        assert_eq!(registry::FAMILIES.iter().filter(|other| other.name == family.name).count(), 1);
        for fault in [0, 1, 0x8130, u32::MAX] {
            assert!(!drive.explain(Fault(fault)).is_empty());
        }
    }
}

#[test]
fn even_the_first_stage_proves_nothing_of_nothing() {
    for drive in all() {
        for stage in drive.stop.stages() {
            let Proof { samples, max_speed, .. } = stage.proof;
            assert!(samples >= 1 && max_speed.0 > 0.0);
        }
    }
}
