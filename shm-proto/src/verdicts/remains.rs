//! What a supervisor that is gone has left behind: its verdict segment, read by the next one.
//!
//! It is an allegation. The one who wrote it may have been of another version, may have been killed between two
//! words, or may have been broken, which could be why it is gone. So nothing is mapped before seals and size are
//! checked (a memfd that could shrink would end its reader with SIGBUS), of another layout only the header is
//! believed, moments that have not come yet are none, and a number that nobody can have counted up to makes all of it
//! unreadable. What the next supervisor makes of it is its own affair.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use super::entries::{MotorVerdict, PastEvidence};
use super::event::Event;
use super::places::{
    AT_COUNTERS, AT_GENERATION, AT_LATCH, AT_LAYOUT, AT_LOOP_TIME, AT_MAGIC, AT_MOTORS, AT_OPEN, AT_PHASE,
    AT_SESSIONS, AT_STARTED,
};
use super::view::VerdictView;
use super::words::{Counter, Phase};
use crate::ids::{Generation, MotorIndex, TripId};
use crate::layout::{Capacity, HEADER_WORDS, MAGIC, layout_hash};
use crate::time::Nanos;

/// More trips or hand-overs than happen in any life of a machine, and few enough to be counted on from.
const MOST_COUNTED: u64 = 1 << 53;

/// A motor of the supervisor that is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftMotor {
    /// Its name: its place may be another's by now.
    pub name: String,
    /// What was published of it.
    pub verdict: MotorVerdict,
    /// When it was last known to stand still and heard, by that supervisor or those before it.
    pub evidence: PastEvidence,
}

/// What is left of a supervisor.
#[derive(Clone, Debug, PartialEq)]
pub struct Remains {
    /// When it started.
    pub started: Nanos,
    /// When its loop last passed.
    pub seen: Nanos,
    /// What it was doing; `None` if that makes no sense.
    pub phase: Option<Phase>,
    /// The last trip: no higher number was ever shown to anybody.
    pub trips: TripId,
    /// The last hand-over to a front.
    pub generation: Generation,
    /// The trip that kept everything stopped.
    pub latch: TripId,
    /// Motors held or not proven to stand still when it said its last word.
    pub open: u64,
    /// Its motors; `None`: they were laid out otherwise, and cannot be read.
    pub motors: Option<Vec<LeftMotor>>,
    /// The events it still kept, oldest first; their motors are places in `motors`.
    pub events: Vec<Event>,
}

impl Remains {
    /// Reads what `fd` holds; `now` is the present moment.
    ///
    /// # Errors
    ///
    /// When it is no sealed memfd, no verdict segment, or says what cannot be.
    pub fn read(fd: BorrowedFd<'_>, now: Nanos) -> io::Result<Self> {
        crate::memory::check_sealed(fd)?;
        // Sealed, so its size stays what it is. Read, not mapped: how much there is to map is said within.
        let header = Header::read(fd)?;
        let past = |at: Nanos| if at > now { Nanos::ZERO } else { at };
        let mut remains = Self {
            started: past(Nanos(header.word(AT_STARTED))),
            seen: past(Nanos(header.word(AT_LOOP_TIME))),
            phase: Phase::from_number(header.word(AT_PHASE)),
            trips: TripId(header.word(AT_COUNTERS + Counter::Trips as usize)),
            generation: Generation(header.word(AT_GENERATION)),
            latch: TripId(header.word(AT_LATCH)),
            open: header.word(AT_OPEN),
            motors: None,
            events: Vec::new(),
        };
        if header.word(AT_LAYOUT) == layout_hash() {
            let view = VerdictView::map(fd, header.capacity()?)?;
            remains.events = view.events().map(|(_, event)| event).filter(|event| event.at <= now).collect();
            remains.motors =
                Some((0..view.motor_count()).filter_map(|at| motor(&view, MotorIndex(at), past)).collect());
        }
        remains.trips = remains.highest_trip();
        if remains.trips.0 > MOST_COUNTED || remains.generation.0 > MOST_COUNTED {
            return Err(io::Error::other("the verdicts left behind count further than anybody can"));
        }
        Ok(remains)
    }

    /// The counter is published before its trip is shown anywhere; a writer that broke that is believed the most.
    fn highest_trip(&self) -> TripId {
        let motors = self.motors.iter().flatten().map(|motor| motor.verdict.trip);
        let events = self.events.iter().map(|event| event.trip);
        motors.chain(events).chain([self.trips, self.latch]).max().unwrap_or_default()
    }
}

fn motor(view: &VerdictView, at: MotorIndex, past: impl Fn(Nanos) -> Nanos) -> Option<LeftMotor> {
    let verdict = view.motor(at)?;
    let earlier = view.past_evidence(at)?;
    let newest = |now: Nanos, earlier: Nanos| past(now).max(past(earlier));
    let evidence = PastEvidence {
        standstill: newest(verdict.standstill, earlier.standstill),
        feedback: newest(verdict.feedback, earlier.feedback),
    };
    Some(LeftMotor { name: view.motor_name(at), verdict, evidence })
}

/// The words that every layout begins with, for as long as [`MAGIC`] is what it is.
struct Header([u64; HEADER_WORDS]);

impl Header {
    fn read(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let file = File::from(fd.as_fd().try_clone_to_owned()?);
        let mut bytes = [0; HEADER_WORDS * 8];
        file.read_exact_at(&mut bytes, 0)?;
        let mut words = [0; HEADER_WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(bytes);
            *word = u64::from_ne_bytes(eight);
        }
        if words[AT_MAGIC] != MAGIC {
            return Err(io::Error::other("what was left behind are no verdicts of a known version"));
        }
        Ok(Self(words))
    }

    fn word(&self, place: usize) -> u64 {
        self.0.get(place).copied().unwrap_or(0)
    }

    fn capacity(&self) -> io::Result<Capacity> {
        let number = |place| u16::try_from(self.word(place)).ok();
        number(AT_SESSIONS)
            .zip(number(AT_MOTORS))
            .and_then(|(sessions, motors)| Capacity::new(sessions, motors))
            .ok_or_else(|| io::Error::other("the verdicts left behind have an impossible capacity"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::fcntl::{FcntlArg, SealFlag, fcntl};

    use super::super::places::{AT_COUNTERS, AT_PREDECESSOR};
    use super::super::{EventKind, Identity, MotorState, Reason, ResetPolicy, VerdictSegment};
    use super::*;

    const NOW: Nanos = Nanos(1_000);

    fn capacity() -> Capacity {
        Capacity::new(2, 3).expect("capacity")
    }

    fn verdict() -> MotorVerdict {
        MotorVerdict {
            grant: None,
            state: MotorState::Stopped,
            stage: 0,
            trip: TripId(7),
            reason: Some(Reason::Expired),
            first_stop: Nanos(90),
            confirmed: Nanos::ZERO,
            standstill: Nanos(95),
            stops_sent: 3,
            velocity: None,
            position: None,
            power: 0,
            fault: 0,
            feedback: Nanos(99),
            guarded: 0,
            bus: 0,
            latched: 1,
            violations: 0,
            moves: Nanos::ZERO,
        }
    }

    fn rig() -> (VerdictSegment, OwnedFd) {
        let identity = Identity { config_hash: 0, pid: 0, started: Nanos(1), policy: ResetPolicy::Manual };
        let (mut segment, fd) =
            VerdictSegment::create(capacity(), &identity, &["left", "right"], &["can0"]).expect("segment");
        segment.phase(Phase::Armed);
        segment.beat(5, Nanos(100));
        segment.counter(Counter::Trips, 8);
        segment.front(Generation(3), 0);
        segment.motor(MotorIndex(1), &verdict());
        segment.past_evidence(MotorIndex(0), &PastEvidence { standstill: Nanos(11), feedback: Nanos(12) });
        segment.event(&Event { trip: TripId(7), ..Event::new(EventKind::Trip, Nanos(90)) });
        (segment, fd)
    }

    #[test]
    fn everything_is_found_again() {
        let (_segment, fd) = rig();
        let remains = Remains::read(fd.as_fd(), NOW).expect("whole");
        assert_eq!(
            (remains.started, remains.seen, remains.phase),
            (Nanos(1), Nanos(100), Some(Phase::Armed))
        );
        assert_eq!(
            (remains.trips, remains.generation, remains.latch),
            (TripId(8), Generation(3), TripId::NONE)
        );
        let motors = remains.motors.expect("motors");
        assert_eq!(motors.iter().map(|motor| motor.name.as_str()).collect::<Vec<_>>(), ["left", "right"]);
        assert_eq!(motors[1].verdict, verdict());
        // Of a motor that this one never heard, what the one before it knew.
        let evidence = |motor: &LeftMotor| (motor.evidence.standstill.0, motor.evidence.feedback.0);
        assert_eq!((evidence(&motors[0]), evidence(&motors[1])), ((11, 12), (95, 99)));
        assert_eq!(remains.events.iter().map(|event| event.trip).collect::<Vec<_>>(), [TripId(7)]);
    }

    #[test]
    fn whoever_shows_a_trip_that_was_not_counted_is_believed_the_higher_number() {
        for (place, at) in [("motor", 0), ("latch", 1), ("event", 2)] {
            let (mut segment, fd) = rig();
            match at {
                0 => segment.motor(MotorIndex(0), &MotorVerdict { trip: TripId(40), ..verdict() }),
                1 => segment.latch(TripId(40)),
                _ => segment.event(&Event { trip: TripId(40), ..Event::new(EventKind::Trip, Nanos(2)) }),
            }
            assert_eq!(Remains::read(fd.as_fd(), NOW).expect(place).trips, TripId(40), "{place}");
        }
    }

    #[test]
    fn of_another_layout_only_the_header_is_believed() {
        let (segment, fd) = rig();
        segment.put(AT_LAYOUT, layout_hash() ^ 1);
        segment.latch(TripId(6));
        let remains = Remains::read(fd.as_fd(), NOW).expect("a header");
        assert_eq!((remains.motors, remains.events.len()), (None, 0));
        assert_eq!((remains.trips, remains.latch, remains.phase), (TripId(8), TripId(6), Some(Phase::Armed)));
    }

    #[test]
    fn moments_to_come_never_happened() {
        let (mut segment, fd) = rig();
        let later = Nanos(NOW.0 + 1);
        segment.beat(6, later);
        segment
            .motor(MotorIndex(1), &MotorVerdict { feedback: later, standstill: Nanos::NEVER, ..verdict() });
        segment.event(&Event::new(EventKind::Trip, later));
        let remains = Remains::read(fd.as_fd(), NOW).expect("whole");
        assert_eq!((remains.seen, remains.events.len()), (Nanos::ZERO, 1));
        assert_eq!(remains.motors.expect("motors")[1].evidence, PastEvidence::default());
    }

    #[test]
    fn what_is_no_sealed_segment_of_that_size_is_refused() {
        let null = OwnedFd::from(File::open("/dev/null").expect("it is there"));
        Remains::read(null.as_fd(), NOW).expect_err("no memfd");
        let (_segment, fd) = rig();
        let whole = File::from(fd);
        let length = usize::try_from(whole.metadata().expect("a size").len()).expect("small");
        let mut bytes = vec![0; length];
        whole.read_exact_at(&mut bytes, 0).expect("readable");
        let copy = |bytes: &[u8]| {
            let fd = crate::memory::create("copy", bytes.len() / 8).expect("memfd");
            let file = File::from(fd);
            file.write_all_at(bytes, 0).expect("writable");
            OwnedFd::from(file)
        };
        let unsealed = copy(&bytes);
        Remains::read(unsealed.as_fd(), NOW).expect_err("could shrink under its reader");
        let mut other = bytes.clone();
        other[AT_LAYOUT * 8] ^= 1;
        Remains::read(copy(&other).as_fd(), NOW).expect_err("the same of another layout");
        fcntl(&unsealed, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK))
            .expect("seals");
        Remains::read(unsealed.as_fd(), NOW).expect_err("could be written to");
        for length in [0, 8, HEADER_WORDS * 8 - 8, HEADER_WORDS * 8, length - 8] {
            let cut = copy(&bytes[..length]);
            crate::memory::seal(cut.as_fd()).expect("seals");
            Remains::read(cut.as_fd(), NOW).expect_err("cut");
        }
        let same = copy(&bytes);
        crate::memory::seal(same.as_fd()).expect("seals");
        Remains::read(same.as_fd(), NOW).expect("whole");
    }

    #[test]
    fn no_word_makes_its_reader_panic_or_count_without_end() {
        const FEW: usize = 24;
        let (segment, _) = rig();
        let words = segment.layout.words();
        let extremes = [u64::MAX, MOST_COUNTED + 1, 1 << 32, 0];
        let places = (0..HEADER_WORDS).chain((HEADER_WORDS..words).step_by(words / FEW));
        for place in places.filter(|place| *place != AT_PREDECESSOR) {
            for word in extremes {
                let (segment, fd) = rig();
                segment.put(place, word);
                if let Ok(remains) = Remains::read(fd.as_fd(), NOW) {
                    assert!(remains.trips.0 <= MOST_COUNTED && remains.generation.0 <= MOST_COUNTED);
                    assert!(remains.motors.is_none_or(|motors| motors.len() <= 3));
                }
            }
        }
        let (segment, fd) = rig();
        segment.put(AT_COUNTERS + Counter::Trips as usize, u64::MAX);
        Remains::read(fd.as_fd(), NOW).expect_err("nobody trips that often");
    }
}
