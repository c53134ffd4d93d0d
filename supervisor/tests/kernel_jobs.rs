//! What the kernel makes of the words that arm its jobs, played as `net/can/bcm.c` of Linux 6.1 does: for every family, no
//! frame that feeds a drive's own watchdog is sent for longer than a time that is known beforehand.

use std::time::Duration;

use drivers::unattended::{self, Times};
use drivers::{
    AfterStop, ArbitrationId, Drive, Feeds, Frame, PollWhen, RevolutionsPerSecond, Settings, Value, marker,
    registry,
};
use supervisor::bcm;

const MS: Duration = Duration::from_millis(1);
/// How long each job is played: far beyond every bound of these tests.
const WATCHED: Duration = Duration::from_secs(120);
const TIMES: Times =
    Times { wait: Duration::from_millis(50), stage: Duration::from_millis(500), shortest_gap: MS };

/// One job in the kernel (`struct bcm_op`).
#[derive(Debug, Default)]
struct Op {
    frames: Vec<(u32, Vec<u8>)>,
    current: usize,
    count: u32,
    first: Duration,
    second: Duration,
    /// When the timer fires next.
    timer: Option<Duration>,
    sent: Vec<(Duration, (u32, Vec<u8>))>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn time(bytes: &[u8], at: usize) -> Duration {
    let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    Duration::from_secs(long(at)) + Duration::from_micros(long(at + 8))
}

impl Op {
    /// `bcm_tx_setup`, at time 0.
    fn set_up(&mut self, message: &[u8]) {
        const MAX_NFRAMES: u32 = 256;
        let (opcode, flags) = (word(message, 0), word(message, 4));
        let number = word(message, 52);
        assert_eq!(opcode, 1);
        assert!((1..=MAX_NFRAMES).contains(&number), "{number} frames are refused");
        assert!(self.frames.is_empty() || self.frames.len() == number as usize, "E2BIG, or begun anew");
        let size = if flags & 0x800 == 0 { 16 } else { 72 };
        self.frames = message[56..]
            .chunks(size)
            .map(|frame| (word(frame, 0), frame[8..8 + usize::from(frame[4])].to_vec()))
            .collect();
        assert_eq!(self.frames.len(), number as usize);
        if flags & 0x200 != 0 {
            self.current = 0;
        }
        if flags & 1 != 0 {
            (self.count, self.first, self.second) = (word(message, 8), time(message, 16), time(message, 32));
            if self.first.is_zero() && self.second.is_zero() {
                self.timer = None;
            }
        }
        if flags & 2 != 0 {
            self.send(Duration::ZERO);
            self.count = self.count.saturating_sub(1);
            self.timer = self.interval();
        }
    }

    fn send(&mut self, now: Duration) {
        self.sent.push((now, self.frames[self.current].clone()));
        self.current = (self.current + 1) % self.frames.len();
    }

    /// `bcm_tx_set_expiry`.
    fn interval(&self) -> Option<Duration> {
        let first = (self.count > 0).then_some(self.first).filter(|first| !first.is_zero());
        first.or(Some(self.second).filter(|second| !second.is_zero()))
    }

    /// `bcm_tx_timeout_handler`, until then.
    fn play(&mut self, until: Duration) {
        while let Some(now) = self.timer.filter(|timer| *timer <= until) {
            if self.count > 0 && !self.first.is_zero() {
                self.count -= 1;
                self.send(now);
            } else if !self.second.is_zero() {
                self.send(now);
            }
            self.timer = self.interval().map(|interval| now + interval);
        }
    }
}

/// What is on the wire after the words were written as far as `messages` says, and then nothing more.
fn played(jobs: &[unattended::Job], messages: usize) -> Vec<(Duration, (u32, Vec<u8>))> {
    let mut all = Vec::new();
    for (key, job) in (0..).zip(jobs) {
        let mut op = Op::default();
        for message in bcm::put_off(key, job).iter().take(messages) {
            op.set_up(message);
        }
        op.play(WATCHED);
        all.extend(op.sent);
    }
    all.sort_by_key(|(at, _)| *at);
    all
}

fn raw(frame: &Frame) -> (u32, Vec<u8>) {
    let id = match frame.id() {
        ArbitrationId::Standard(id) => u32::from(id),
        ArbitrationId::Extended(id) => id | 0x8000_0000,
    };
    (id, frame.payload().to_vec())
}

/// A drive with these keys, or the family's example without any; `None` where the family cannot do that.
fn drive(family: &str, keys: &[(&str, Value)], after: AfterStop) -> Option<Drive> {
    let family = registry::family(family).unwrap();
    let mut settings = if keys.is_empty() { (family.example)() } else { Settings::default() };
    for (key, value) in keys {
        settings.insert(*key, value.clone());
    }
    let common = registry::Common { after, standstill: None, max_speed: RevolutionsPerSecond(5.0) };
    registry::build(family, &settings, &common).ok()
}

/// Every family alone, holding and released where it can, and mixed buses of drives that get along.
fn buses() -> Vec<Vec<Drive>> {
    let after = [AfterStop::Release, AfterStop::Hold];
    let mut buses: Vec<Vec<Drive>> = registry::FAMILIES
        .iter()
        .flat_map(|family| after.map(|after| drive(family.name, &[], after)))
        .flatten()
        .map(|drive| vec![drive])
        .collect();
    assert!(buses.len() > registry::FAMILIES.len(), "some can hold");
    let text = |text: &str| Value::Text(text.to_owned());
    let arm = |after, transport: &str| {
        let keys = [
            ("node", Value::Integer(40)),
            ("counts_per_rev", Value::Integer(4096)),
            ("transport", text(transport)),
        ];
        drive("cia402", &keys, after).unwrap()
    };
    let odrive = |node, after| {
        drive("odrive", &[("node", Value::Integer(node)), ("firmware", text("0.6"))], after).unwrap()
    };
    buses.push(vec![odrive(3, AfterStop::Hold), odrive(5, AfterStop::Release), arm(AfterStop::Hold, "sdo")]);
    buses.push(vec![odrive(3, AfterStop::Release), arm(AfterStop::Release, "pdo")]);
    let id = |id| ("id", Value::Integer(id));
    for family in ["rmd", "moteus"] {
        buses
            .push((1..=20).map(|number| drive(family, &[id(number)], AfterStop::Release).unwrap()).collect());
    }
    let vesc = |number| [id(number), ("pole_pairs", Value::Integer(7))];
    buses.push((1..=20).map(|number| drive("vesc", &vesc(number), AfterStop::Release).unwrap()).collect());
    buses.push((0..63).map(|node| odrive(node, AfterStop::Release)).collect());
    buses
}

fn planned(bus: &[Drive]) -> (Vec<unattended::Job>, Frame) {
    let drives: Vec<&Drive> = bus.iter().collect();
    let marker = marker::unheard(drives.iter().copied()).unwrap();
    (unattended::jobs(&drives, marker, &TIMES), Frame::classic(marker, &[]))
}

/// The frames that a drive's programme or heartbeat could be sent by, and that feed its watchdog.
fn feeding(drive: &Drive) -> Vec<(u32, Vec<u8>)> {
    let stages = drive.stop.stages().iter().flat_map(|stage| stage.frames.as_slice());
    let heartbeat = drive.heartbeat.iter().map(|heartbeat| &heartbeat.frame);
    let all = stages.chain(drive.poll.as_slice()).chain(heartbeat).chain(&drive.broadcast);
    all.filter(|frame| drive.feeds_watchdog(frame) == Feeds::Yes).map(raw).collect()
}

/// Fails if a drive that obeys no stop is kept turning by the kernel: the last frame that feeds its watchdog comes
/// within the bound that is told, and that follows from the times alone.
#[test]
fn what_feeds_a_watchdog_ends() {
    for bus in buses() {
        let (jobs, _) = planned(&bus);
        let told = jobs.iter().filter_map(unattended::Job::end).max().unwrap();
        let stages = bus.iter().map(|drive| drive.unattended_stages().count()).max().unwrap();
        // A large bus needs three rounds a stage, whatever the times say.
        let frames = jobs.iter().map(|job| job.frames.len()).max().unwrap();
        let stage = TIMES.stage.max(3 * MS * u32::try_from(2 * frames).unwrap());
        let bound = TIMES.wait + (stage + TIMES.slack()) * u32::try_from(stages).unwrap();
        assert!(told <= bound, "{}: {told:?} > {bound:?}", bus[0].family);
        let wire = played(&jobs, usize::MAX);
        for drive in &bus {
            let feeding = feeding(drive);
            let fed = wire.iter().filter(|(_, frame)| feeding.contains(frame)).map(|(at, _)| *at).max();
            assert!(fed.is_none_or(|last| last <= told), "{}: fed until {fed:?}", drive.family);
        }
    }
}

/// Fails if a process that dies between the two messages of a job leaves one that never ends.
#[test]
fn half_a_putting_off_ends_too() {
    for bus in buses() {
        let (jobs, _) = planned(&bus);
        let slow = |job: &unattended::Job| job.wait * u32::try_from(job.frames.len()).unwrap();
        let bound = jobs.iter().map(slow).max().unwrap();
        let wire = played(&jobs, 1);
        for drive in &bus {
            let feeding = feeding(drive);
            let fed = wire.iter().filter(|(_, frame)| feeding.contains(frame)).map(|(at, _)| *at).max();
            assert!(fed.is_none_or(|last| last <= bound.min(WATCHED)), "{}: {fed:?}", drive.family);
        }
        // It stops all the same, if slowly.
        let first = bus[0].stop.stage(0).frames;
        assert!(wire.iter().any(|(_, frame)| *frame == raw(&first.as_slice()[0])), "{}", bus[0].family);
    }
}

/// Fails if a stage is not sent, is sent out of turn, or if the first one is late.
#[test]
fn every_stage_is_sent_in_its_turn() {
    for bus in buses() {
        let (jobs, _) = planned(&bus);
        let wire = played(&jobs, usize::MAX);
        let drives: Vec<&Drive> = bus.iter().collect();
        let last = unattended::last_first_stop(&drives, &jobs);
        for drive in &bus {
            let mut before = TIMES.wait;
            let mut known: Vec<(u32, Vec<u8>)> = Vec::new();
            for (index, stage) in drive.unattended_stages().enumerate() {
                let own: Vec<_> = stage.frames.as_slice().iter().map(raw).collect();
                // Only the frames that no stage before has: of those one can tell when they began.
                let new: Vec<_> = own.iter().filter(|frame| !known.contains(frame)).collect();
                for frame in &new {
                    let times: Vec<_> =
                        wire.iter().filter(|(_, sent)| sent == *frame).map(|(at, _)| *at).collect();
                    assert!(times.len() >= 3, "{} stage {index}: {} times", drive.family, times.len());
                    assert!(times[0] >= before, "{} stage {index}: {:?}", drive.family, times[0]);
                    if index == 0 && drive.broadcast.is_none() {
                        assert!(times[0] <= last, "{}: {:?} after {last:?}", drive.family, times[0]);
                    }
                }
                if !new.is_empty() {
                    before += TIMES.stage;
                }
                known.extend(own);
            }
        }
    }
}

/// Fails if the kernel lets an axis fall that is to be held.
#[test]
fn what_holds_keeps_its_torque() {
    let mut holding = 0;
    for bus in buses() {
        let (jobs, _) = planned(&bus);
        let wire = played(&jobs, usize::MAX);
        for drive in bus.iter().filter(|drive| drive.stop.after == AfterStop::Hold) {
            holding += 1;
            let stages = drive.stop.stages();
            let frames = |torque: bool| {
                let stages = stages.iter().filter(move |stage| stage.kind.leaves_torque() == torque);
                stages.flat_map(|stage| stage.frames.as_slice().iter().map(raw)).collect::<Vec<_>>()
            };
            let (keeps, takes) = (frames(true), frames(false));
            assert!(!keeps.is_empty(), "{}", drive.family);
            let fall = wire.iter().find(|(_, frame)| takes.contains(frame) && !keeps.contains(frame));
            assert_eq!(fall, None, "{}", drive.family);
        }
    }
    assert!(holding > 5);
}

/// Fails if a drive whose watchdog no stop feeds is left alone: it is sent its last stage as long as the machine runs.
#[test]
fn what_feeds_nothing_goes_on() {
    for family in ["cia402", "rev-spark"] {
        let bus = [drive(family, &[], AfterStop::Release).unwrap()];
        let (jobs, _) = planned(&bus);
        let wire = played(&jobs, usize::MAX);
        let (at, last) = wire.last().unwrap();
        assert!(*at > WATCHED - 100 * MS, "{family}: silent since {at:?}");
        let stages = bus[0].stop.stages();
        assert!(stages.last().unwrap().frames.as_slice().iter().any(|frame| raw(frame) == *last));
    }
}

/// Fails if the supervisor's own signs of life are among what is sent without it, or if what it does send at any time
/// feeds a watchdog: marker and polls.
#[test]
fn signs_of_life_need_a_judge() {
    for bus in buses() {
        let (jobs, marker) = planned(&bus);
        for drive in &bus {
            assert_eq!(drive.feeds_watchdog(&marker), Feeds::No, "{}", drive.family);
            let heartbeat = drive.heartbeat.map(|heartbeat| heartbeat.frame);
            let sent = jobs.iter().flat_map(|job| &job.frames);
            assert!(!sent.into_iter().any(|frame| Some(*frame) == heartbeat), "{}", drive.family);
            if let Some(heartbeat) = heartbeat {
                assert_eq!(drive.feeds_watchdog(&heartbeat), Feeds::Yes, "{}", drive.family);
            }
            let fed = drive.poll.as_slice().iter().any(|poll| drive.feeds_watchdog(poll) == Feeds::Yes);
            assert!(!fed || drive.poll_when == PollWhen::WhenSilent, "{}: polled at any time", drive.family);
        }
    }
}
