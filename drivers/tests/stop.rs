//! The stop programme: which stage follows which, and which one takes the torque away.

mod common;

use common::all;
use drivers::stop::MAX_STAGES;
use drivers::{
    AfterStop, ArbitrationId, Frame, FrameList, PowerProof, Proof, RevolutionsPerSecond, Stage, StageKind,
    StopProgramme,
};

/// A stage of that kind; the payload of its frame is its number.
fn stage(kind: StageKind, number: u8) -> Stage {
    Stage {
        kind,
        frames: FrameList::new(&[Frame::classic(ArbitrationId::standard(1), &[number])]),
        proof: Proof { max_speed: RevolutionsPerSecond(0.1), samples: 3, power: PowerProof::Any },
    }
}

fn programme(kinds: &[StageKind], after: AfterStop) -> StopProgramme {
    let stages: Vec<Stage> = (0..).zip(kinds).map(|(number, kind)| stage(*kind, number)).collect();
    StopProgramme::new(&stages, after)
}

const ALL: [StageKind; MAX_STAGES] =
    [StageKind::Controlled, StageKind::Quick, StageKind::TorqueOff, StageKind::Latch];

/// Fails if the torque of an axis that is to be held is taken away, or if one that is to be released keeps it.
#[test]
fn torque_is_taken_away_at_standstill_only_where_that_is_wanted() {
    let release = programme(&ALL, AfterStop::Release);
    assert_eq!([0, 1, 2, 3].map(|index| release.release(index)), [Some(2), Some(2), None, None]);
    let hold = programme(&ALL, AfterStop::Hold);
    assert_eq!([0, 1, 2, 3].map(|index| hold.release(index)), [None; 4]);
    let latch = programme(&[StageKind::Controlled, StageKind::Latch], AfterStop::Release);
    assert_eq!(latch.release(0), Some(1), "nothing gentler takes it away");
    let brake = programme(&[StageKind::Controlled, StageKind::Quick], AfterStop::Release);
    assert_eq!([brake.release(0), brake.release(1)], [None; 2], "nothing takes it away");
}

/// Fails if a stop that has gone through all its stages has nothing left to send.
#[test]
fn behind_the_last_stage_the_last_one_goes_on() {
    for count in 1..=MAX_STAGES {
        let programme = programme(&ALL[..count], AfterStop::Release);
        assert_eq!(programme.stages().len(), count);
        for index in 0..10 {
            let wanted = index.min(count - 1);
            assert_eq!(programme.stage(index).kind, ALL[wanted]);
            let sent = programme.stage(index).frames;
            assert_eq!(sent.as_slice()[0].payload(), [u8::try_from(wanted).unwrap()]);
        }
    }
}

#[test]
#[should_panic(expected = "a programme has 1 to 4 stages")]
fn a_programme_without_stages_is_a_mistake() {
    programme(&[], AfterStop::Release);
}

#[test]
#[should_panic(expected = "a programme has 1 to 4 stages")]
fn a_programme_of_five_stages_is_a_mistake() {
    programme(&[StageKind::Controlled; MAX_STAGES + 1], AfterStop::Release);
}

/// Fails if status and events name a stage wrongly.
#[test]
fn stages_are_called_what_the_documents_call_them() {
    assert_eq!(ALL.map(StageKind::name), ["controlled", "quick", "torque-off", "latch"]);
    assert_eq!(ALL.map(StageKind::leaves_torque), [true, true, false, false]);
}

/// Fails if a drive that is to be released keeps its torque for want of a stage that takes it.
#[test]
fn every_drive_that_is_to_be_released_can_be() {
    for drive in all().into_iter().filter(|drive| drive.stop.after == AfterStop::Release) {
        for (index, stage) in drive.stop.stages().iter().enumerate() {
            let takes = drive.stop.release(index).map(|later| drive.stop.stage(later).kind.leaves_torque());
            let wanted = stage.kind.leaves_torque().then_some(false);
            assert_eq!(takes, wanted, "{}, {}", drive.family, stage.kind.name());
        }
    }
}
