//! What is sent to the drives of a bus while no program judges: the kernel's part after the end of the supervisor.
//!
//! What lives here: for one bus, which frames follow each other, from when on, how fast, and how it ends. Each drive is
//! sent its stop programme in small: the stages one after the other, for about the time that the supervisor would give
//! them. An axis that is to be held is sent no stage that takes its torque away.
//!
//! **A stop that is repeated is a sign of life, too.** Many drives have a watchdog of their own that any command feeds,
//! a stop included ([`Drive::feeds_watchdog`]). A drive that does not obey its stop would be kept turning by it. So
//! what feeds the watchdog of any drive of the bus ends after its stage, and then silence lets that watchdog bite. Only
//! what feeds none is repeated without end.
//!
//! What must never live here: how a kernel is told, or a clock.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::drive::Drive;
use crate::frame::{ArbitrationId, Format, Frame};
use crate::stop::{AfterStop, MAX_STAGES, Stage};
use crate::watchdog::Feeds;

/// Frames that one job may have: what Linux takes for one (`net/can/bcm.c`, MAX_NFRAMES).
pub const MOST_FRAMES: usize = 256;

/// How long a round over all frames of a bus should take: a frame that was lost is sent again as soon as the supervisor
/// itself would (20 ms), or sooner.
pub const ROUND: Duration = Duration::from_millis(10);

/// How often each frame of a stage is sent at least, however short the stage: one may be lost, and a second one may meet a
/// full queue.
const FEWEST_ROUNDS: u32 = 3;

/// How much longer than needed the jobs of later stages wait at most. They are put off less often than the first, since each
/// time costs a frame on the bus; this is the time between two of them.
const LONGEST_SLACK: Duration = Duration::from_millis(100);

/// The supervisor's longest tick: it can put nothing off more often.
const SHORTEST_SLACK: Duration = Duration::from_millis(20);

/// The gap between two frames where the bit rate is not known: the longest classic frame takes 1.28 ms at 125 kbit/s, and
/// 1 ms keeps a bus of 250 kbit/s or more from being full.
const GAP_OF_ANY_BUS: Duration = Duration::from_millis(1);

/// The shortest gap at any bit rate: 5000 timers a second are little work for any computer, more could become some.
const SHORTEST_GAP: Duration = Duration::from_micros(200);

/// Bit rates of a bus, bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRates {
    /// That of identifiers, and of classic frames as a whole.
    pub nominal: u32,
    /// That of the payload of CAN FD frames with bit-rate switch, where the bus has one.
    pub data: Option<u32>,
}

impl BitRates {
    /// How long a frame takes at most, stuffed as much as can be, with the pause behind it.
    ///
    /// Bits of classic frames: Davis, Burns, Bril, Lukkien, Real-Time Systems 35 (2007). Those of CAN FD are an estimate from
    /// above: 30 more bits at the nominal rate than an empty classic frame has, and 10 for each byte and 60 for length and
    /// checksum at the other.
    #[must_use]
    pub fn time(&self, frame: &Frame) -> Duration {
        let bytes = frame.payload().len() as u64;
        let empty = match frame.id() {
            ArbitrationId::Standard(_) => 55,
            ArbitrationId::Extended(_) => 80,
        };
        let micros = |bits: u64, rate: u32| (bits * 1_000_000).div_ceil(u64::from(rate.max(1)));
        Duration::from_micros(match Layout::of(frame.format()) {
            Layout::Classic => micros(empty + 10 * bytes, self.nominal),
            Layout::Fd => {
                micros(empty + 30, self.nominal) + micros(60 + 10 * bytes, self.data.unwrap_or(self.nominal))
            }
        })
    }
}

/// The shortest gap between two stops for these drives. Of a bus with a known bit rate it leaves a quarter free: the drives
/// report meanwhile.
#[must_use]
pub fn shortest_gap(drives: &[&Drive], rates: Option<BitRates>) -> Duration {
    let Some(rates) = rates else { return GAP_OF_ANY_BUS };
    let stages = drives.iter().flat_map(|drive| drive.unattended_stages());
    let frames = stages.flat_map(|stage| stage.frames.as_slice());
    let longest = frames.map(|frame| rates.time(frame)).max().unwrap_or(SHORTEST_GAP);
    SHORTEST_GAP.max(longest * 4 / 3)
}

/// The times that a plan keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From the last word of the supervisor to the first stop.
    pub wait: Duration,
    /// How long a stage is sent before the next one.
    pub stage: Duration,
    /// From one frame to the next on this bus, at least.
    pub shortest_gap: Duration,
}

impl Times {
    /// How early the jobs of later stages may begin, measured from their own time: they are put off that seldom.
    #[must_use]
    pub fn slack(&self) -> Duration {
        (self.stage / 4).clamp(SHORTEST_SLACK, LONGEST_SLACK)
    }
}

/// One list of frames that is sent by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The frames, sent in order and then from the beginning. The first is the marker, which no drive hears; all have one
    /// layout.
    pub frames: Vec<Frame>,
    /// From the last putting off to the first frame behind the marker.
    pub wait: Duration,
    /// From one frame to the next.
    pub gap: Duration,
    /// How it ends.
    pub ending: Ending,
    /// When it has to be put off.
    pub turn: Turn,
}

/// How a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, when the whole list was sent so often.
    After(u32),
    /// Never: none of its frames feeds a watchdog.
    Never,
}

/// How often a job is put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its wait is that of the first stop.
    First,
    /// Its wait is longer; each [`Times::slack`] is enough.
    Later,
}

impl Job {
    /// How long from the last putting off to its last frame; `None`: it goes on for ever.
    #[must_use]
    pub fn end(&self) -> Option<Duration> {
        let length = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
        match self.ending {
            Ending::After(rounds) => Some(self.wait + self.gap * length.saturating_mul(rounds)),
            Ending::Never => None,
        }
    }
}

impl Drive {
    /// The stages that may be sent to this drive while no program judges, gentlest first; never none.
    ///
    /// An axis that is to be held may fall without torque, and only the supervisor sees whether it obeys.
    pub fn unattended_stages(&self) -> impl Iterator<Item = &Stage> {
        let holds = self.stop.after == AfterStop::Hold;
        let mut stages = self.stop.stages().iter().enumerate();
        // The first stage is what every stop sends.
        core::iter::from_fn(move || {
            stages.find(|(index, stage)| *index == 0 || !holds || stage.kind.leaves_torque())
        })
        .map(|(_, stage)| stage)
    }
}

/// The jobs of a bus: the stages of all its drives one after the other, and what may go on for ever.
///
/// The first stage begins with the frames that stop all drives of a family at once. A drive's frames stay together.
#[must_use]
pub fn jobs(drives: &[&Drive], marker: ArbitrationId, times: &Times) -> Vec<Job> {
    let phases: Vec<Phase> = (0..=MAX_STAGES).map(|stage| Phase::of(drives, stage, marker)).collect();
    let mut jobs = Vec::new();
    let mut wait = times.wait;
    let mut paces = Vec::new();
    for (index, phase) in phases.iter().enumerate() {
        let endless = phases[..=index].iter().flat_map(|phase| &phase.endless);
        paces.push(pace(phase.ends.iter().chain(endless).map(Vec::len), times.shortest_gap));
    }
    for (index, phase) in phases.into_iter().enumerate() {
        let turn = if index == 0 { Turn::First } else { Turn::Later };
        let gap = paces[index];
        // An endless list is still being sent when others begin beside it.
        let slowest = paces[index..].iter().copied().max().unwrap_or(gap);
        let longest = phase.ends.iter().map(Vec::len).max().unwrap_or(0);
        let round = gap * u32::try_from(longest).unwrap_or(u32::MAX);
        let rounds = rounds(times.stage, round);
        let ending = Ending::After(rounds);
        jobs.extend(phase.ends.into_iter().map(|frames| Job { frames, wait, gap, ending, turn }));
        let ending = Ending::Never;
        jobs.extend(phase.endless.into_iter().map(|frames| Job { frames, wait, gap: slowest, ending, turn }));
        wait += times.stage.max(round * rounds) + times.slack();
    }
    jobs
}

/// How often a round fits into a stage, and no less than is needed.
fn rounds(stage: Duration, round: Duration) -> u32 {
    let fit = stage.as_micros().checked_div(round.as_micros()).unwrap_or(0);
    u32::try_from(fit).unwrap_or(u32::MAX).max(FEWEST_ROUNDS)
}

/// After which time at most the last of these drives is sent the end of its first stop, or the one that all of its family
/// hear. Zero without drives.
#[must_use]
pub fn last_first_stop(drives: &[&Drive], jobs: &[Job]) -> Duration {
    let first: Vec<&Job> = jobs.iter().filter(|job| job.turn == Turn::First).collect();
    let when = |job: &Job, frame: &Frame| {
        let place = job.frames.iter().position(|known| known == frame)?;
        Some(job.wait + job.gap * u32::try_from(place.saturating_sub(1)).unwrap_or(u32::MAX))
    };
    let of_drive = |drive: &&Drive| {
        let broadcast = drive.broadcast.filter(|frame| broadcasts(drives).contains(frame));
        let last = drive.unattended_stages().next()?.frames.as_slice().last().copied();
        first.iter().find_map(|job| when(job, &broadcast.or(last)?))
    };
    drives.iter().filter_map(of_drive).max().unwrap_or(Duration::ZERO)
}

/// Lists that begin together.
#[derive(Debug, Default)]
struct Phase {
    /// Those that end.
    ends: Vec<Vec<Frame>>,
    /// Those that do not.
    endless: Vec<Vec<Frame>>,
}

impl Phase {
    /// The given stage of every drive that has it, and the last stage of those whose stages are over, once.
    fn of(drives: &[&Drive], stage: usize, marker: ArbitrationId) -> Self {
        let mut phase = Self::default();
        if stage == 0 {
            for frame in broadcasts(drives) {
                put(&mut phase.ends, marker, &[frame]);
            }
        }
        for drive in drives {
            if let Some(stage) = drive.unattended_stages().nth(stage) {
                put(&mut phase.ends, marker, stage.frames.as_slice());
            } else if drive.unattended_stages().count() == stage
                && let Some(last) = drive.unattended_stages().last()
                && feeds_none(drives, last)
            {
                put(&mut phase.endless, marker, last.frames.as_slice());
            }
        }
        phase
    }
}

/// Whether no watchdog of the bus takes a frame of the stage for a sign of life.
fn feeds_none(drives: &[&Drive], stage: &Stage) -> bool {
    let feeds_any = |frame: &Frame| drives.iter().any(|drive| drive.feeds_watchdog(frame) == Feeds::Yes);
    !stage.frames.as_slice().iter().any(feeds_any)
}

/// The frames that stop every drive of a family at once: where all drives of the family on this bus have the same one. A
/// single drive gains nothing by it.
fn broadcasts(drives: &[&Drive]) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    for drive in drives {
        let Some(frame) = drive.broadcast else { continue };
        let mut family = drives.iter().filter(|other| other.family == drive.family);
        let is_single = family.clone().count() < 2;
        if !is_single && !all.contains(&frame) && family.all(|other| other.broadcast == Some(frame)) {
            all.push(frame);
        }
    }
    all
}

/// Puts frames that belong together into the first list of their layout that has room. What several drives have in common
/// is there once.
fn put(lists: &mut Vec<Vec<Frame>>, marker: ArbitrationId, frames: &[Frame]) {
    let Some(layout) = frames.first().map(|frame| Layout::of(frame.format())) else { return };
    if lists.iter().any(|list| list.windows(frames.len()).any(|known| known == frames)) {
        return;
    }
    let fits = |list: &&mut Vec<Frame>| {
        Layout::of(list[0].format()) == layout && list.len() + frames.len() <= MOST_FRAMES
    };
    match lists.iter_mut().find(fits) {
        Some(list) => list.extend(frames),
        None => {
            let mut list = vec![layout.marker(marker)];
            list.extend(frames);
            lists.push(list);
        }
    }
}

/// How the frames of a job are laid out: a job has one layout only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Classic frames, remote requests too.
    Classic,
    /// CAN FD.
    Fd,
}

impl Layout {
    /// The layout of frames of that format.
    #[must_use]
    pub const fn of(format: Format) -> Self {
        match format {
            Format::Classic | Format::Remote => Self::Classic,
            Format::FdBrs => Self::Fd,
        }
    }

    const fn marker(self, id: ArbitrationId) -> Frame {
        match self {
            Self::Classic => Frame::classic(id, &[]),
            Self::Fd => Frame::fd(id, &[]),
        }
    }
}

/// The time between two frames of a list, for lists of these lengths that are sent side by side.
fn pace(lengths: impl Iterator<Item = usize> + Clone, shortest: Duration) -> Duration {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).max(1);
    let (frames, lists) = (count(lengths.clone().sum()), count(lengths.count()));
    (ROUND / frames).clamp(shortest.min(ROUND), ROUND) * lists
}
