//! What the kernel sends by itself: how it is divided into jobs, how fast it is, and when the last motor is told.

mod common;

use std::time::Duration;

use common::{COMMON, all, build, cia402, odrive, text};
use drivers::unattended::{BitRates, Ending, Job, MOST_FRAMES, ROUND, Times, Turn};
use drivers::unattended::{jobs, last_first_stop, shortest_gap};
use drivers::{AfterStop, ArbitrationId, Drive, Format, Frame, Stage, StageKind, StopProgramme, Value};

const MS: Duration = Duration::from_millis(1);
const MARKER: ArbitrationId = ArbitrationId::Extended(0x1FBF_FFFF);
const TIMES: Times =
    Times { wait: Duration::from_millis(50), stage: Duration::from_millis(500), shortest_gap: MS };

fn jobs_of(drives: &[Drive]) -> Vec<Job> {
    jobs(&drives.iter().collect::<Vec<_>>(), MARKER, &TIMES)
}

fn first(jobs: &[Job]) -> Vec<&Job> {
    jobs.iter().filter(|job| job.turn == Turn::First).collect()
}

fn vesc(id: i64) -> Drive {
    build("vesc", &COMMON, &[("id", Value::Integer(id)), ("pole_pairs", Value::Integer(7))]).unwrap()
}

/// Every list begins with the marker, and no motor is forgotten or divided.
#[test]
fn the_first_stops_of_all_motors_are_there_in_order() {
    let arm = |node| cia402(node, "pdo", AfterStop::Hold);
    let drives: Vec<Drive> = (0..63).map(|node| odrive(node, "0.6")).chain((1..=126).map(arm)).collect();
    let jobs = jobs_of(&drives);
    assert!(jobs.iter().all(|job| job.frames[0] == Frame::classic(MARKER, &[])));
    assert!(jobs.iter().all(|job| job.frames.len() <= MOST_FRAMES));
    let first = first(&jobs);
    let sent: Vec<Frame> = first.iter().flat_map(|job| job.frames[1..].to_vec()).collect();
    let stage = |drive: &Drive| drive.stop.stage(0).frames.as_slice().to_vec();
    let wanted: Vec<Frame> = drives.iter().flat_map(stage).collect();
    assert_eq!(sent, wanted, "in order, nothing twice, nothing missing");
    assert_eq!(first.len(), 2, "(63 + 126) * 2 frames are too many for one job");
}

#[test]
fn classic_and_fd_frames_have_jobs_of_their_own() {
    let moteus = build("moteus", &COMMON, &[("id", Value::Integer(7))]).unwrap();
    let jobs = jobs_of(&[odrive(4, "0.6"), moteus, odrive(5, "0.6")]);
    let first = first(&jobs);
    let forms: Vec<Format> = first.iter().map(|job| job.frames[0].format()).collect();
    assert_eq!(forms, [Format::Classic, Format::FdBrs]);
    assert_eq!(first[0].frames.len(), 5);
    for job in &jobs {
        assert!(job.frames.iter().all(|frame| frame.format() == job.frames[0].format()));
    }
}

#[test]
fn a_bus_without_motors_has_no_job() {
    assert!(jobs_of(&[]).is_empty());
}

/// Four motors of one frame are stopped by one frame.
#[test]
fn what_several_motors_have_in_common_is_sent_once() {
    let motor = |id| build("dji", &COMMON, &[("model", text("c620")), ("id", Value::Integer(id))]).unwrap();
    let jobs = jobs_of(&[motor(1), motor(2), motor(3), motor(4)]);
    assert_eq!(first(&jobs)[0].frames.len(), 2);
}

/// The round is 10 ms unless that would crowd a slow bus, however many jobs send side by side.
#[test]
fn rounds_are_short_and_buses_not_crowded() {
    let gap = |drives: &[Drive]| first(&jobs_of(drives))[0].gap;
    let drives = |count| (0..count).map(|node| odrive(node, "0.6")).collect::<Vec<_>>();
    assert_eq!(gap(&drives(1)), ROUND / 3);
    assert_eq!(gap(&drives(4)), ROUND / 9);
    assert_eq!(gap(&drives(5)), MS);
    assert_eq!(gap(&drives(63)), MS);
    let arms = (1..=126).map(|node| cia402(node, "pdo", AfterStop::Hold));
    let many: Vec<Drive> = drives(63).into_iter().chain(arms).collect();
    assert_eq!(gap(&many), 2 * MS, "two lists take turns");
}

/// One that stops all drives of a family goes first, and is nothing for a single one.
#[test]
fn a_broadcast_goes_first_and_tells_every_motor_at_once() {
    let drives: Vec<Drive> = (1..=64).map(vesc).collect();
    let jobs = jobs_of(&drives);
    assert_eq!(Some(jobs[0].frames[1]), drives[0].broadcast);
    let all: Vec<&Drive> = drives.iter().collect();
    assert_eq!(last_first_stop(&all, &jobs), TIMES.wait);
    let two = jobs_of(&drives[..2]);
    assert_eq!(Some(two[0].frames[1]), drives[0].broadcast, "two are enough");
    let alone = jobs_of(&drives[..1]);
    assert!(!alone.iter().flat_map(|job| &job.frames).any(|frame| Some(*frame) == drives[0].broadcast));
}

/// The last of 63 ODrives has its second frame behind 125 others.
#[test]
fn the_last_motor_is_told_after_all_others() {
    let drives: Vec<Drive> = (0..63).map(|node| odrive(node, "0.6")).collect();
    let all: Vec<&Drive> = drives.iter().collect();
    assert_eq!(last_first_stop(&all, &jobs_of(&drives)), TIMES.wait + 125 * MS);
    assert_eq!(last_first_stop(&[], &[]), Duration::ZERO);
}

/// Fails if a frame is taken for shorter than it can be: a bus that is kept full has no room for what the drives say.
/// Of classic frames: 55 or 80 bits and ten for each byte (Davis and others, 2007).
#[test]
fn a_frame_takes_as_long_as_its_worst_bits() {
    let (standard, extended) = (ArbitrationId::standard(0x123), ArbitrationId::extended(0x123));
    let slow = BitRates { nominal: 125_000, data: None };
    let fast = BitRates { nominal: 1_000_000, data: None };
    let switched = BitRates { nominal: 1_000_000, data: Some(5_000_000) };
    for (rates, frame, micros) in [
        (fast, Frame::classic(standard, &[]), 55),
        (fast, Frame::classic(standard, &[0; 8]), 135),
        (fast, Frame::classic(extended, &[]), 80),
        (fast, Frame::classic(extended, &[0; 8]), 160),
        (fast, Frame::remote(standard), 55),
        (slow, Frame::classic(standard, &[0; 4]), 760),
        (slow, Frame::classic(extended, &[0; 8]), 1_280),
        (switched, Frame::classic(extended, &[0; 8]), 160),
        // 85 or 110 bits, and at the other rate 60 and ten for each byte.
        (switched, Frame::fd(standard, &[0; 12]), 85 + 36),
        (switched, Frame::fd(extended, &[0; 12]), 110 + 36),
        (switched, Frame::fd(extended, &[]), 110 + 12),
        (fast, Frame::fd(extended, &[0; 12]), 110 + 180),
    ] {
        assert_eq!(rates.time(&frame), Duration::from_micros(micros), "{rates:?} {frame}");
    }
    let none = BitRates { nominal: 0, data: Some(0) };
    assert!(
        none.time(&Frame::fd(extended, &[0; 64])) > Duration::from_secs(1),
        "a rate of 0 is a mistake, and no end"
    );
}

/// A known bit rate is used up to three quarters: 135 bits are the longest frame of an ODrive.
#[test]
fn the_gap_follows_the_bit_rate() {
    let drives = [odrive(3, "0.6")];
    let drives: Vec<&Drive> = drives.iter().collect();
    let gap = |nominal| shortest_gap(&drives, Some(BitRates { nominal, data: None }));
    assert_eq!(gap(1_000_000), Duration::from_micros(200));
    assert_eq!(gap(500_000), Duration::from_micros(360));
    assert_eq!(gap(125_000), Duration::from_micros(1_440));
    assert_eq!(shortest_gap(&drives, None), MS);
}

/// Whoever writes a family must say what feeds its watchdog; where that is every stop, nothing is sent for ever.
#[test]
fn only_what_feeds_nothing_has_no_end() {
    for drive in all() {
        let endless: Vec<Job> = jobs_of(std::slice::from_ref(&drive))
            .into_iter()
            .filter(|job| job.ending == Ending::Never)
            .collect();
        let is_fed_by_a_heartbeat = drive.heartbeat.is_some();
        assert_eq!(!endless.is_empty(), is_fed_by_a_heartbeat, "{}", drive.family);
    }
}

/// Fails if an axis that is to be held is let fall, if one that is to be released keeps its torque, or if a drive is sent
/// no stop at all.
#[test]
fn what_holds_is_sent_no_stage_that_takes_its_torque() {
    let kinds = |drive: &Drive| drive.unattended_stages().map(|stage| stage.kind).collect::<Vec<_>>();
    let (controlled, off, latch) = (StageKind::Controlled, StageKind::TorqueOff, StageKind::Latch);
    let mut drive = odrive(3, "0.6");
    assert_eq!(kinds(&drive), [controlled, off, latch]);
    drive.stop.after = AfterStop::Hold;
    assert_eq!(kinds(&drive), [controlled]);
    let stages = drive.stop.stages().to_vec();
    drive.stop = StopProgramme::new(&stages[1..], AfterStop::Hold);
    assert_eq!(kinds(&drive), [off], "the first stage is what every stop sends");
    let brakes = [stages[0], Stage { kind: StageKind::Quick, ..stages[0] }, stages[1]];
    drive.stop = StopProgramme::new(&brakes, AfterStop::Hold);
    assert_eq!(kinds(&drive), [controlled, StageKind::Quick]);
}

/// Fails if a stage is not sent for about as long as the supervisor would give it, or if the next one begins before, or
/// long after. Three frames make a round of 10 ms.
#[test]
fn stages_follow_each_other_in_time() {
    let jobs = jobs_of(&[odrive(3, "0.6")]);
    let gap = ROUND / 3;
    let slack = 100 * MS;
    let told: Vec<_> =
        jobs.iter().map(|job| (job.turn, job.wait, job.frames.len(), job.gap, job.ending)).collect();
    let stage = TIMES.stage + slack;
    assert_eq!(
        told,
        [
            (Turn::First, TIMES.wait, 3, gap, Ending::After(50)),
            (Turn::Later, TIMES.wait + stage, 2, ROUND / 2, Ending::After(50)),
            (Turn::Later, TIMES.wait + 2 * stage, 3, gap, Ending::After(50)),
        ]
    );
    assert_eq!(jobs[0].end(), Some(TIMES.wait + gap * 150));
    assert_eq!(jobs[1].end(), Some(TIMES.wait + stage + ROUND / 2 * 100));
}

/// Fails if a frame that was lost is not sent again because the stage is short and the bus is full: each is sent three
/// times, and the next stage waits for that.
#[test]
fn a_short_stage_of_a_full_bus_takes_three_rounds() {
    let drives: Vec<Drive> = (0..63).map(|node| odrive(node, "0.6")).collect();
    let times = Times { stage: 100 * MS, ..TIMES };
    let jobs = jobs(&drives.iter().collect::<Vec<_>>(), MARKER, &times);
    let told: Vec<_> = jobs.iter().map(|job| (job.wait, job.frames.len(), job.ending)).collect();
    // 127 and 64 frames, one each millisecond.
    let (first, second) = (3 * 127 * MS + 25 * MS, 3 * 64 * MS + 25 * MS);
    assert_eq!(
        told,
        [
            (times.wait, 127, Ending::After(3)),
            (times.wait + first, 64, Ending::After(3)),
            (times.wait + first + second, 127, Ending::After(3)),
        ]
    );
}

/// Fails if later jobs are put off so seldom that a stage is over meanwhile, or so often that they fill the bus.
#[test]
fn later_jobs_are_put_off_four_times_a_stage() {
    for (stage, slack) in [(40, 20), (80, 20), (200, 50), (400, 100), (2_000, 100)] {
        assert_eq!(Times { stage: stage * MS, ..TIMES }.slack(), slack * MS, "{stage} ms");
    }
}

/// Fails if a job that goes on for ever is told to end, or begins before the last stage is over.
#[test]
fn what_has_no_end_begins_behind_the_last_stage() {
    let jobs = jobs_of(&[cia402(5, "sdo", AfterStop::Release)]);
    let (endless, stages): (Vec<&Job>, Vec<&Job>) = jobs.iter().partition(|job| job.ending == Ending::Never);
    let [endless] = endless[..] else { panic!("{endless:?}") };
    assert_eq!(endless.end(), None);
    assert_eq!(stages.len(), 2);
    assert_eq!(endless.frames, stages[1].frames, "the last stage, once more");
    assert_eq!(endless.wait, TIMES.wait + 2 * (TIMES.stage + 100 * MS));
    assert!(endless.wait > stages[1].end().expect("it ends"));
}
