//! What must hold for every frame and every speed.

mod common;

use common::{all, enable_frames, stop_frames};
use drivers::{
    ArbitrationId, Drive, Frame, PowerProof, Proof, RevolutionsPerSecond, Standstill, VelocityError,
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

    /// However many frames come from elsewhere, or of a length no report has, they prove nothing.
    #[test]
    fn foreign_and_malformed_frames_prove_nothing(
        (drive, frame) in drive_and_frame(),
        length in 0..=64usize,
    ) {
        let payload = vec![0; length];
        let zeros = match frame.format() {
            drivers::Format::FdBrs => Frame::fd(frame.id(), &payload),
            _ => Frame::classic(frame.id(), &payload),
        };
        for frame in [frame, zeros] {
            let foreign = !drive.reports.contains(&frame.id());
            if foreign || ![2, 6, 8].contains(&frame.payload().len()) {
                prop_assert_eq!(drive.decode(&frame), None);
            }
        }
    }

    /// Of whatever frames on its ids: as long as none says "off" or "fault", the final proof is not met.
    #[test]
    fn a_running_drive_is_never_proven_stopped(
        (drive, frames) in proptest::sample::select(all()).prop_flat_map(|drive| {
            let frames = proptest::collection::vec(any_frame(&drive), 1..40);
            (Just(drive), frames)
        }),
    ) {
        let proof = drive.stop.stages().last().unwrap().proof;
        prop_assert_eq!(proof.power, PowerProof::Off);
        let mut tracker = Standstill::NOTHING_SEEN;
        for seen in frames.iter().filter_map(|frame| drive.decode(frame)) {
            let says_off = seen.power.is_some_and(|power| proof.power.met_by(power));
            prop_assert!(says_off || !tracker.observe(&proof, &seen));
        }
    }

    /// By ODrive as the f32 itself; by CiA 402 as the nearest of 1000 counts a turn.
    #[test]
    fn the_frame_says_the_speed(rps in -50.0f32..50.0) {
        for drive in all() {
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
    fn a_speed_that_is_seen_is_motion(rps in prop_oneof![0.01f32..50.0, -50.0f32..-0.01]) {
        for drive in all() {
            let frames = drive.velocity(RevolutionsPerSecond(rps)).unwrap();
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
        }
    }
}

/// None of these families speaks CAN FD: such a frame tells nothing, and on a command id it cannot be
/// understood.
#[test]
fn fd_frames_are_not_taken_for_classic_ones() {
    for drive in all() {
        for id in &drive.reports {
            for length in [2, 6, 8] {
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

#[test]
fn the_step_that_enables_is_motion() {
    for drive in all() {
        let last = drive.enable.steps().last().unwrap();
        assert!(last.frames.as_slice().iter().any(|frame| drive.is_motion(frame)));
        assert!(enable_frames(&drive).iter().filter(|frame| drive.is_motion(frame)).count() >= 1);
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
