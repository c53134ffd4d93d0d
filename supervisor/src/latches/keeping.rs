//! When there is something to write, and what is told about it.
//!
//! Nothing is handed over when a latch is set or cleared. Each pass compares what the verdicts say with what the disk has,
//! so a housekeeping that was late, or a disk that refused for a while, has missed nothing.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shm_proto::verdicts::{Counter, Phase, Reason};
use shm_proto::{MotorIndex, Nanos, TripId, VerdictView};

use super::disk::Disk;
use super::format::{HeldMotor, Latches};
use crate::core::Kept;
use crate::log;
use crate::notify::Notifier;

/// How long a disk may take before the supervisor counts as degraded, nanoseconds: an old SD card that is busy with
/// something else takes seconds at times.
const SLOW: u64 = 5_000_000_000;
/// Between two tries at a disk that refuses, nanoseconds.
const AGAIN: u64 = 1_000_000_000;
/// How long the end of the supervisor waits for the disk: a service has 30 s to stop, of which the motors need most.
const ENDING: Duration = Duration::from_secs(5);
/// How often a systemd is told meanwhile that this is no hang.
const SIGN: Duration = Duration::from_millis(250);

/// What the disk does.
#[derive(Debug)]
enum Work {
    /// Nothing.
    None,
    /// It writes these, since that moment.
    Writing { latches: Latches, since: Nanos },
    /// It has refused, and is left alone until that moment.
    Pause { why: io::Error, until: Nanos },
}

/// What was said of the disk last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Nothing, or it was not heard.
    Nothing,
    /// That it has the latches with that many changes.
    OnDisk(u64),
    /// That it has not.
    Refused,
}

/// The file, kept equal to the verdicts.
#[derive(Debug)]
pub struct Keeping {
    disk: Disk,
    /// Where it is, for the log.
    path: PathBuf,
    /// Held motors that are not in the configuration.
    elsewhere: Vec<HeldMotor>,
    /// What the disk is known to have.
    on_disk: Option<Latches>,
    work: Work,
    said: Said,
}

impl Keeping {
    /// The same as `on_disk`, which was written before arming; `None` when that was refused, and told.
    #[must_use]
    pub const fn new(disk: Disk, path: PathBuf, on_disk: Option<Latches>, elsewhere: Vec<HeldMotor>) -> Self {
        let said = if on_disk.is_some() { Said::Nothing } else { Said::Refused };
        Self { disk, path, elsewhere, on_disk, work: Work::None, said }
    }

    /// One pass of housekeeping. Returns what is to be published, if that has changed; [`Self::was_not_heard`] has it
    /// returned again.
    pub fn pass(&mut self, verdicts: &VerdictView, now: Nanos) -> Option<Kept> {
        let answer = self.disk.answer();
        self.take(answer, now);
        let (changes, latches) = published(verdicts, &self.elsewhere)?;
        match &self.work {
            Work::Writing { since, .. } if now.since(*since) > SLOW => {
                return self.refused("it does not answer".to_owned());
            }
            Work::Writing { .. } => {}
            Work::Pause { why, until } if now < *until => return self.refused(why.to_string()),
            Work::Pause { .. } | Work::None => self.work = Work::None,
        }
        let on_disk = self.on_disk.as_ref();
        let holds = on_disk.is_some_and(|on_disk| on_disk.hold_the_same_as(&latches));
        let is_short = on_disk.is_none_or(|on_disk| on_disk.run_out_of_numbers(latches.last));
        // While a file is being written that differs in its numbers only, the one before holds the same.
        let will_hold = match &self.work {
            Work::Writing { latches: next, .. } => next.hold_the_same_as(&latches),
            Work::Pause { .. } | Work::None => {
                if !holds || is_short {
                    self.order(latches.with_numbers_ahead(), now);
                }
                holds
            }
        };
        if !(holds && will_hold) {
            return None;
        }
        let news = Said::OnDisk(changes);
        if self.said == news {
            return None;
        }
        if self.said == Said::Refused {
            log::line(&format!("{}: what waits for a reset is on disk again", self.path.display()));
        }
        self.said = news;
        Some(Kept::OnDisk { changes })
    }

    /// Takes note that what was to be published was not heard.
    pub const fn was_not_heard(&mut self) {
        self.said = Said::Nothing;
    }

    /// Writes the last file, when the real-time thread has ended; waits for the disk, but not for ever.
    pub fn end(&mut self, verdicts: &VerdictView, notifier: &Notifier) {
        let until = Instant::now() + ENDING;
        let Some((_, latches)) = published(verdicts, &self.elsewhere) else { return };
        let latches = latches.with_no_numbers_ahead();
        if let Work::Pause { .. } = self.work {
            self.work = Work::None;
        }
        while Instant::now() < until {
            match &self.work {
                Work::None if self.on_disk.as_ref() == Some(&latches) => return,
                Work::None => self.order(latches.clone(), Nanos::now()),
                Work::Pause { .. } => break,
                Work::Writing { .. } => {}
            }
            // The real-time thread has ended, so nothing else would say it, and there is nothing left to guard.
            notifier.say("WATCHDOG=1");
            let answer = self.disk.wait(SIGN);
            self.take(answer, Nanos::now());
        }
        log::line(&format!(
            "WARNING: {}: the disk has not taken what waits for a reset. The next supervisor holds what it finds there and \
             what systemd has kept",
            self.path.display()
        ));
    }

    fn order(&mut self, latches: Latches, now: Nanos) {
        self.disk.order(latches.to_bytes());
        self.work = Work::Writing { latches, since: now };
    }

    /// Takes note of an answer of the disk.
    fn take(&mut self, answer: Option<io::Result<()>>, now: Nanos) {
        let Some(answer) = answer else { return };
        match (answer, std::mem::replace(&mut self.work, Work::None)) {
            (Ok(()), Work::Writing { latches, .. }) => self.on_disk = Some(latches),
            (Ok(()), work) => self.work = work,
            (Err(why), _) => {
                // It has the old file or the new one.
                self.on_disk = None;
                self.work = Work::Pause { why, until: now.after(AGAIN) };
            }
        }
    }

    fn refused(&mut self, why: String) -> Option<Kept> {
        if self.said == Said::Refused {
            return None;
        }
        log::line(&format!(
            "WARNING: degraded: {}: what waits for a reset cannot be written ({why}). An operator's stop holds while this \
             supervisor runs, and is forgotten when it is stopped or the machine loses power. Make room there, or make it \
             writable",
            self.path.display()
        ));
        self.said = Said::Refused;
        Some(Kept::Refused)
    }
}

/// What the verdicts say waits for a reset, and how many changes of it that includes at least. `None` before they say
/// anything: what the supervisor has taken over is not published at once.
fn published(verdicts: &VerdictView, elsewhere: &[HeldMotor]) -> Option<(u64, Latches)> {
    match verdicts.phase() {
        Some(Phase::Armed | Phase::Stopping | Phase::Ended) => {}
        Some(Phase::Starting) | None => return None,
    }
    // First: whatever is read after it is as new or newer.
    let changes = verdicts.latch_changes();
    let stop = verdicts.latch();
    let motors = (0..verdicts.motor_count()).map(MotorIndex);
    let held = motors.filter_map(|motor| {
        let verdict = verdicts.motor(motor).filter(|verdict| verdict.latched != 0)?;
        let reason = verdict.reason.unwrap_or(Reason::LatchesLost);
        Some(HeldMotor { name: verdicts.motor_name(motor), trip: verdict.trip, reason })
    });
    let held: Vec<HeldMotor> = held.collect();
    if held.iter().any(|held| held.trip == TripId::NONE) {
        // Read while it was being written; the next pass sees it whole.
        return None;
    }
    let held: Vec<HeldMotor> = held.into_iter().chain(elsewhere.iter().cloned()).collect();
    let highest = held.iter().map(|held| held.trip).chain([stop]).max().unwrap_or_default();
    // Last: no number that was read before is above it, and a writer that broke that is believed the most.
    let last = TripId(verdicts.counter(Counter::Trips)).max(highest);
    Some((changes, Latches { last, reserved: last, stop, held }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use shm_proto::verdicts::{Identity, MotorState, MotorVerdict, ResetPolicy};
    use shm_proto::{Capacity, VerdictSegment};

    use super::*;
    use crate::handoff::{Giver, Taker, Waited};

    const SECOND: u64 = 1_000_000_000;

    /// A supervisor's verdicts, and a disk that the test plays.
    struct Rig {
        segment: VerdictSegment,
        view: VerdictView,
        keeping: Keeping,
        orders: Taker<Vec<u8>>,
        answers: Giver<io::Result<()>>,
        now: Nanos,
    }

    impl Rig {
        fn new(on_disk: Option<Latches>) -> Self {
            let identity =
                Identity { config_hash: 0, pid: 1, started: Nanos(1), policy: ResetPolicy::Manual };
            let (segment, fd) =
                VerdictSegment::create(Capacity::DEFAULT, &identity, &["left", "right"], &[]).unwrap();
            let view = VerdictView::map(fd.as_fd(), Capacity::DEFAULT).unwrap();
            segment.phase(Phase::Armed);
            let (disk, orders, answers) = Disk::by_hand();
            let keeping = Keeping::new(disk, "/state".into(), on_disk, Vec::new());
            Self { segment, view, keeping, orders, answers, now: Nanos(SECOND) }
        }

        fn pass(&mut self) -> Option<Kept> {
            self.now = self.now.after(50_000_000);
            self.keeping.pass(&self.view, self.now)
        }

        fn ordered(&self) -> Option<Latches> {
            match self.orders.wait_for(Duration::ZERO) {
                Waited::Value(bytes) => Some(Latches::from_bytes(&bytes).expect("what is written is sound")),
                Waited::Nothing | Waited::Gone => None,
            }
        }

        fn hold(&self, motor: u16, trip: u64, latched: u64) {
            let verdict = MotorVerdict {
                grant: None,
                state: MotorState::Stopping,
                stage: 0,
                trip: TripId(trip),
                reason: Some(Reason::Expired),
                first_stop: Nanos::ZERO,
                confirmed: Nanos::ZERO,
                standstill: Nanos::ZERO,
                stops_sent: 0,
                velocity: None,
                position: None,
                power: 0,
                fault: 0,
                feedback: Nanos::ZERO,
                guarded: 0,
                violations: 0,
                moves: Nanos::ZERO,
                bus: 0,
                latched,
            };
            self.segment.counter(Counter::Trips, trip);
            self.segment.motor(MotorIndex(motor), &verdict);
        }
    }

    fn nothing() -> Option<Latches> {
        Some(Latches::default().with_numbers_ahead())
    }

    #[test]
    fn a_latch_is_written_in_the_next_pass_and_told_in_the_one_after() {
        let mut rig = Rig::new(nothing());
        assert_eq!(rig.pass(), Some(Kept::OnDisk { changes: 0 }));
        rig.hold(1, 3, 1);
        assert_eq!(rig.pass(), None, "not yet");
        let written = rig.ordered().expect("a file");
        assert_eq!(
            (written.held.len(), written.held[0].name.as_str(), written.held[0].trip),
            (1, "right", TripId(3))
        );
        assert_eq!((written.last, written.reserved), (TripId(3), TripId(1027)));
        assert_eq!(rig.pass(), None, "the disk is busy");
        rig.answers.give(Ok(()));
        assert_eq!(rig.pass(), Some(Kept::OnDisk { changes: 1 }));
        assert_eq!((rig.pass(), rig.ordered()), (None, None), "nothing is new");
        // A stop of everything, while a file is under way; then a reset.
        rig.hold(1, 4, 1);
        rig.pass();
        rig.segment.latch(TripId(4));
        rig.pass();
        assert_eq!(rig.ordered().map(|latches| latches.stop), Some(TripId::NONE));
        rig.answers.give(Ok(()));
        assert_eq!(rig.pass(), None, "that file is out of date");
        assert_eq!(rig.ordered().map(|latches| latches.stop), Some(TripId(4)));
        rig.answers.give(Ok(()));
        assert_eq!(rig.pass(), Some(Kept::OnDisk { changes: 3 }));
        rig.segment.latch(TripId::NONE);
        rig.hold(1, 4, 0);
        rig.pass();
        let written = rig.ordered().expect("a file");
        assert_eq!((written.held.len(), written.stop), (0, TripId::NONE));
    }

    /// Fails if what was taken over is forgotten on disk before it is published.
    #[test]
    fn nothing_is_written_before_the_verdicts_say_anything() {
        let held = HeldMotor { name: "left".to_owned(), trip: TripId(1), reason: Reason::Expired };
        let mut rig = Rig::new(Some(Latches { held: vec![held], last: TripId(1), ..Latches::default() }));
        rig.segment.phase(Phase::Starting);
        assert_eq!((rig.pass(), rig.ordered()), (None, None));
    }

    #[test]
    fn a_disk_that_refuses_is_told_once_and_tried_again() {
        let mut rig = Rig::new(nothing());
        rig.pass();
        rig.hold(0, 1, 1);
        rig.pass();
        assert!(rig.ordered().is_some());
        rig.answers.give(Err(io::Error::from_raw_os_error(libc::ENOSPC)));
        assert_eq!(rig.pass(), Some(Kept::Refused));
        for _ in 0..17 {
            assert_eq!((rig.pass(), rig.ordered()), (None, None), "it is left alone for a second");
        }
        rig.now = rig.now.after(SECOND);
        assert_eq!(rig.pass(), None);
        assert!(rig.ordered().is_some(), "tried again");
        rig.answers.give(Ok(()));
        assert_eq!(rig.pass(), Some(Kept::OnDisk { changes: 1 }));
        // Not heard: told again.
        rig.keeping.was_not_heard();
        assert_eq!(rig.pass(), Some(Kept::OnDisk { changes: 1 }));
    }

    #[test]
    fn a_disk_that_does_not_answer_counts_as_one_that_refuses_until_it_does() {
        let mut rig = Rig::new(nothing());
        rig.pass();
        rig.hold(0, 1, 1);
        rig.pass();
        assert_eq!(rig.pass(), None);
        rig.now = rig.now.after(SLOW);
        assert_eq!(rig.pass(), Some(Kept::Refused));
        assert_eq!(rig.pass(), None);
        assert!(rig.ordered().is_some());
        assert!(rig.ordered().is_none(), "one at a time");
        rig.answers.give(Ok(()));
        assert_eq!(rig.pass(), Some(Kept::OnDisk { changes: 1 }));
    }

    #[test]
    fn numbers_are_given_out_ahead_and_taken_back_at_the_end() {
        let mut rig = Rig::new(nothing());
        rig.pass();
        for trip in 1..=512 {
            rig.segment.counter(Counter::Trips, trip);
            rig.pass();
            assert_eq!(rig.ordered(), None, "trip {trip}");
        }
        rig.segment.counter(Counter::Trips, 513);
        rig.pass();
        let written = rig.ordered().expect("a file");
        assert_eq!((written.last, written.reserved), (TripId(513), TripId(1537)));
        rig.answers.give(Ok(()));
        rig.segment.phase(Phase::Ended);
        let Rig { segment: _segment, view, mut keeping, orders, answers, .. } = rig;
        let disk = std::thread::spawn(move || {
            let bytes = orders.wait().expect("the last file");
            answers.give(Ok(()));
            bytes
        });
        keeping.end(&view, &Notifier::from_environment());
        let written = Latches::from_bytes(&disk.join().unwrap()).expect("what is written is sound");
        assert_eq!((written.last, written.reserved), (TripId(513), TripId(513)));
    }

    /// Fails if a latch that the disk has is told as one that it has not, only because numbers are used up meanwhile.
    #[test]
    fn numbers_alone_make_no_latch_doubtful() {
        let mut rig = Rig::new(nothing());
        rig.pass();
        rig.hold(1, 3, 1);
        rig.pass();
        assert!(rig.ordered().is_some());
        rig.answers.give(Ok(()));
        rig.segment.counter(Counter::Trips, 2_000);
        assert_eq!(rig.pass(), Some(Kept::OnDisk { changes: 1 }), "the file of the latch has come");
        assert!(rig.ordered().is_some(), "and one with more numbers is under way");
        rig.keeping.was_not_heard();
        assert_eq!(rig.pass(), Some(Kept::OnDisk { changes: 1 }), "while the disk is busy with it");
    }

    /// Fails if the end waits for ever, or does not try a disk that has refused before.
    #[test]
    fn the_end_waits_for_the_disk_but_not_for_ever() {
        let mut rig = Rig::new(None);
        rig.segment.phase(Phase::Ended);
        rig.answers.give(Err(io::Error::from_raw_os_error(libc::EROFS)));
        let began = Instant::now();
        rig.keeping.end(&rig.view, &Notifier::from_environment());
        assert!(rig.ordered().is_some() && began.elapsed() < ENDING);
        let mut rig = Rig::new(None);
        rig.segment.phase(Phase::Ended);
        rig.keeping.end(&rig.view, &Notifier::from_environment());
        assert!(began.elapsed() >= ENDING && began.elapsed() < 4 * ENDING);
    }
}
