//! Whether a command for a motor that was stopped is meant: fresh, and after somebody has taken note of the stop.
//!
//! What a client gave before a trip ended moves nothing afterwards, whatever kept it waiting. Under `reset = "neutral"` what
//! was stopped moves again only after its party has sent a Stop, or speed 0, and has had time to read the answer. A drive's
//! fault is cleared only once the party that wants to drive has acknowledged it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shm_proto::verdicts::{MotorState, MotorVerdict, Reason, ResetPolicy};
use shm_proto::{Nanos, TripId};

use crate::order::{Origin, Sender};

/// Parties whose acknowledgements are remembered for one motor; the oldest is forgotten, and must give it again.
const MAX_PARTIES: usize = 16;

/// What a party's Stop, or another call that clears, takes note of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notes {
    /// That the motor was stopped.
    Stop,
    /// That, and the fault that its drive reported.
    StopAndDriveFault,
}

/// When a party took note, and when it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    arrived: Nanos,
    answered: Nanos,
}

/// How far apart the notes of one party are that are kept beside its newest one.
const NOTE_SPACING_NANOS: u64 = 250_000_000;
/// Notes of one party that are kept: three seconds of a client that repeats its Stop, longer than `stop_hold` can be.
const MAX_NOTES: usize = 12;

/// Notes of one kind of one party, oldest first: some of those that came, and the newest.
#[derive(Debug, Default)]
struct Notebook(VecDeque<Note>);

impl Notebook {
    fn note(&mut self, new: Note) {
        let before_last = self.0.len().checked_sub(2).and_then(|place| self.0.get(place));
        if before_last.is_some_and(|before| new.arrived.since(before.arrived) < NOTE_SPACING_NANOS) {
            self.0.pop_back();
        }
        if self.0.len() >= MAX_NOTES {
            self.0.pop_front();
        }
        self.0.push_back(new);
    }

    /// Says when the first note was answered that arrived after that moment.
    fn answered_since(&self, moment: Nanos) -> Option<Nanos> {
        self.0.iter().find(|note| note.arrived > moment).map(|note| note.answered)
    }
}

#[derive(Debug)]
struct Party {
    sender: Sender,
    stops: Notebook,
    faults: Notebook,
    /// When its last command arrived that was taken.
    commanded: Option<Nanos>,
}

/// What the parties have done and taken note of, for one motor.
#[derive(Debug, Default)]
pub struct Intent(Mutex<Vec<Party>>);

impl Intent {
    fn parties(&self) -> MutexGuard<'_, Vec<Party>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a party has taken note, and was answered at `answered`.
    pub fn note(&self, origin: &Origin, notes: Notes, answered: Nanos) {
        let new = Note { arrived: origin.complete().at(), answered };
        self.with(origin.sender(), |party| {
            party.stops.note(new);
            match notes {
                Notes::Stop => {}
                Notes::StopAndDriveFault => party.faults.note(new),
            }
        });
    }

    /// Remembers that a command of a party was taken: the next trip is one of what it drives.
    pub fn note_command(&self, origin: &Origin) {
        self.with(origin.sender(), |party| party.commanded = Some(origin.began().at()));
    }

    fn with(&self, sender: &Sender, act: impl FnOnce(&mut Party)) {
        let mut parties = self.parties();
        let known = parties.iter().position(|party| party.sender.is_same_party(sender));
        let mut party = match known {
            Some(place) => parties.remove(place),
            None => Party {
                sender: sender.clone(),
                stops: Notebook::default(),
                faults: Notebook::default(),
                commanded: None,
            },
        };
        act(&mut party);
        if parties.len() >= MAX_PARTIES {
            parties.remove(0);
        }
        parties.push(party);
    }

    fn of<T>(&self, sender: &Sender, look: impl FnOnce(&Party) -> Option<T>) -> Option<T> {
        let parties = self.parties();
        look(parties.iter().find(|party| party.sender.is_same_party(sender))?)
    }

    /// Says whether the party has commanded the motor before that moment, and not since.
    fn commanded_before(&self, sender: &Sender, moment: Nanos) -> bool {
        self.of(sender, |party| party.commanded).is_some_and(|at| at < moment)
    }
}

/// Why a command is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    /// The motor is held or being stopped; its verdict tells the rest.
    NotNow,
    /// The command is older than the end of that trip.
    Old(TripId),
    /// Nobody of its party has taken note of that trip.
    NoNeutral(TripId),
    /// Its party has taken note, and may have read so for that much too short a time.
    TooSoon(Duration),
    /// The drive reports a fault, or was stopped for one, that the party has not acknowledged.
    DriveFault,
}

/// What is known when a command is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The supervisor's verdict on the motor.
    pub verdict: &'a MotorVerdict,
    /// The trip that keeps everything stopped.
    pub latch: TripId,
    /// How trips are cleared.
    pub policy: ResetPolicy,
    /// Since when the drive reports a fault, if it does.
    pub fault_since: Option<Nanos>,
    /// For how long after the answer to a Stop a command cannot be meant as one after it.
    pub hold: Duration,
}

impl Facts<'_> {
    /// Says what keeps a command from being carried out, if anything does.
    pub fn objection(&self, intent: &Intent, origin: &Origin) -> Option<Objection> {
        let Self { verdict, latch, .. } = *self;
        if latch != TripId::NONE || verdict.latched != 0 {
            return Some(Objection::NotNow);
        }
        let began = origin.began().at();
        if verdict.trip != TripId::NONE {
            match verdict.state {
                MotorState::Stopping | MotorState::Unverified => return Some(Objection::NotNow),
                MotorState::Idle | MotorState::Granted | MotorState::Stopped => {}
            }
            if began < verdict.standstill {
                return Some(Objection::Old(verdict.trip));
            }
        }
        self.fault_objection(intent, origin).or_else(|| self.neutral_objection(intent, origin))
    }

    /// An operator's reset puts a motor to rest that was held; it acknowledges a fault that was there before.
    fn fault_objection(&self, intent: &Intent, origin: &Origin) -> Option<Objection> {
        let Self { verdict, fault_since, .. } = *self;
        let stopped_for_it = verdict.trip != TripId::NONE && verdict.reason == Some(Reason::DriveFault);
        let was_reset = stopped_for_it && verdict.state == MotorState::Idle;
        let tripped = (stopped_for_it && verdict.state == MotorState::Stopped).then_some(verdict.first_stop);
        let reported = fault_since.filter(|since| !(was_reset && *since <= verdict.standstill));
        let since = tripped.into_iter().chain(reported).max()?;
        match intent.of(origin.sender(), |party| party.faults.answered_since(since)) {
            None => Some(Objection::DriveFault),
            Some(answered) => self.too_soon(answered, origin),
        }
    }

    /// Under `neutral` a motor that nobody has had since its trip wants a Stop of whoever takes it; of those who drove it
    /// before the trip it wants one even when somebody else has had it since.
    fn neutral_objection(&self, intent: &Intent, origin: &Origin) -> Option<Objection> {
        let Self { verdict, policy, .. } = *self;
        let stopped = verdict.first_stop;
        let applies = policy == ResetPolicy::Neutral
            && verdict.trip != TripId::NONE
            && (verdict.state == MotorState::Stopped || intent.commanded_before(origin.sender(), stopped));
        if !applies {
            return None;
        }
        match intent.of(origin.sender(), |party| party.stops.answered_since(stopped)) {
            None => Some(Objection::NoNeutral(verdict.trip)),
            Some(answered) => self.too_soon(answered, origin),
        }
    }

    fn too_soon(&self, answered: Nanos, origin: &Origin) -> Option<Objection> {
        origin.began().left_of(self.hold, answered).map(Objection::TooSoon)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{
        Duration, Facts, Intent, MotorState, MotorVerdict, Nanos, Notes, Objection, Origin, Reason,
        ResetPolicy, Sender, TripId,
    };
    use crate::motion::tests::nothing_known;
    use crate::order::Arrival;
    use crate::sessions::Entity;
    use crate::transport::Connection;

    const HOLD: Duration = Duration::from_millis(250);
    const MS: u64 = 1_000_000;

    fn sender(entity: &str) -> Sender {
        let address: SocketAddr = ([127, 0, 0, 1], 1).into();
        Sender::new(Entity::new(entity), &Connection::new(address, address))
    }

    fn at(sender: &Sender, millis: u64) -> Origin {
        let arrival = Arrival::of(millis, Nanos(millis * MS));
        Origin::between(arrival, arrival, sender.clone())
    }

    /// A motor that was tripped after 1000 ms and has stood still since 1100 ms.
    fn stopped(reason: Reason) -> MotorVerdict {
        MotorVerdict {
            state: MotorState::Stopped,
            trip: TripId(7),
            reason: Some(reason),
            first_stop: Nanos(1_000 * MS),
            standstill: Nanos(1_100 * MS),
            ..nothing_known()
        }
    }

    fn facts(verdict: &MotorVerdict, policy: ResetPolicy) -> Facts<'_> {
        Facts { verdict, latch: TripId::NONE, policy, fault_since: None, hold: HOLD }
    }

    #[test]
    fn what_was_given_before_the_end_of_a_trip_moves_nothing_under_any_policy() {
        let me = sender("me");
        let intent = Intent::default();
        for policy in [ResetPolicy::Auto, ResetPolicy::Neutral, ResetPolicy::Manual] {
            for state in [MotorState::Stopped, MotorState::Idle, MotorState::Granted] {
                let verdict = MotorVerdict { state, ..stopped(Reason::Expired) };
                let objection = facts(&verdict, policy).objection(&intent, &at(&me, 1_099));
                assert_eq!(objection, Some(Objection::Old(TripId(7))), "{policy:?} {state:?}");
            }
        }
        let verdict = stopped(Reason::Expired);
        assert_eq!(facts(&verdict, ResetPolicy::Auto).objection(&intent, &at(&me, 1_101)), None);
    }

    #[test]
    fn while_it_is_stopped_or_held_it_is_refused_at_once() {
        let (me, intent) = (sender("me"), Intent::default());
        let verdict = MotorVerdict { latched: 1, ..stopped(Reason::Expired) };
        let late = at(&me, 9_000);
        assert_eq!(facts(&verdict, ResetPolicy::Manual).objection(&intent, &late), Some(Objection::NotNow));
        for state in [MotorState::Stopping, MotorState::Unverified] {
            let verdict = MotorVerdict { state, ..stopped(Reason::Expired) };
            let objection = facts(&verdict, ResetPolicy::Auto).objection(&intent, &late);
            assert_eq!(objection, Some(Objection::NotNow), "{state:?}");
        }
        // The stop with which a supervisor begins is nobody's trip: a command waits for its end.
        let verdict = MotorVerdict { state: MotorState::Stopping, ..nothing_known() };
        assert_eq!(facts(&verdict, ResetPolicy::Auto).objection(&intent, &late), None);
        let all = Facts { latch: TripId(9), ..facts(&verdict, ResetPolicy::Auto) };
        assert_eq!(all.objection(&intent, &late), Some(Objection::NotNow));
    }

    #[test]
    fn neutral_wants_a_stop_of_the_party_and_time_to_read_its_answer() {
        let (me, other) = (sender("me"), sender("other"));
        let intent = Intent::default();
        let verdict = stopped(Reason::Expired);
        let ask =
            |who: &Sender, millis| facts(&verdict, ResetPolicy::Neutral).objection(&intent, &at(who, millis));
        assert_eq!(ask(&me, 2_000), Some(Objection::NoNeutral(TripId(7))));
        intent.note(&at(&me, 999), Notes::Stop, Nanos(1_200 * MS));
        assert_eq!(ask(&me, 2_000), Some(Objection::NoNeutral(TripId(7))), "it came before the trip");
        intent.note(&at(&me, 2_000), Notes::Stop, Nanos(2_010 * MS));
        assert_eq!(ask(&me, 2_100), Some(Objection::TooSoon(Duration::from_millis(160))));
        intent.note(&at(&me, 2_200), Notes::Stop, Nanos(2_210 * MS));
        assert_eq!(ask(&me, 2_260), None, "the first stop after the trip counts");
        assert_eq!(ask(&other, 5_000), Some(Objection::NoNeutral(TripId(7))), "somebody else's stop");
        assert_eq!(facts(&verdict, ResetPolicy::Auto).objection(&intent, &at(&other, 5_000)), None);
    }

    #[test]
    fn who_drove_before_the_trip_does_not_drive_on_because_somebody_else_has_the_motor() {
        let (driver, operator, third) = (sender("driver"), sender("operator"), sender("third"));
        let intent = Intent::default();
        intent.note_command(&at(&driver, 990));
        let verdict = MotorVerdict { state: MotorState::Granted, ..stopped(Reason::Expired) };
        let ask = |who: &Sender| facts(&verdict, ResetPolicy::Neutral).objection(&intent, &at(who, 5_000));
        assert_eq!((ask(&operator), ask(&third)), (None, None));
        assert_eq!(ask(&driver), Some(Objection::NoNeutral(TripId(7))));
        intent.note(&at(&driver, 3_000), Notes::Stop, Nanos(3_000 * MS));
        assert_eq!(ask(&driver), None);
    }

    #[test]
    fn a_fault_that_is_acknowledged_in_passing_is_not_driven_into_at_once() {
        let (me, intent) = (sender("me"), Intent::default());
        let verdict = stopped(Reason::DriveFault);
        intent.note(&at(&me, 2_000), Notes::StopAndDriveFault, Nanos(2_000 * MS));
        let ask = |millis| facts(&verdict, ResetPolicy::Auto).objection(&intent, &at(&me, millis));
        assert_eq!(ask(2_100), Some(Objection::TooSoon(Duration::from_millis(150))));
        intent.note(&at(&me, 2_200), Notes::StopAndDriveFault, Nanos(2_200 * MS));
        assert_eq!(ask(2_250), None, "the first one since the fault counts");
    }

    #[test]
    fn a_drive_fault_waits_for_the_party_that_wants_to_drive() {
        let (me, other) = (sender("me"), sender("other"));
        let intent = Intent::default();
        let verdict = stopped(Reason::DriveFault);
        let ask = |who: &Sender, fault_since: Option<u64>| {
            let fault_since = fault_since.map(|millis| Nanos(millis * MS));
            let facts = Facts { fault_since, ..facts(&verdict, ResetPolicy::Auto) };
            facts.objection(&intent, &at(who, 5_000))
        };
        assert_eq!(ask(&me, None), Some(Objection::DriveFault));
        intent.note(&at(&me, 2_000), Notes::Stop, Nanos(2_000 * MS));
        assert_eq!(ask(&me, None), Some(Objection::DriveFault), "a Kortex Stop clears no fault");
        intent.note(&at(&me, 3_000), Notes::StopAndDriveFault, Nanos(3_000 * MS));
        assert_eq!(ask(&me, Some(990)), None);
        assert_eq!(ask(&me, Some(3_500)), Some(Objection::DriveFault), "another fault since");
        assert_eq!(ask(&other, None), Some(Objection::DriveFault));
    }

    #[test]
    fn an_operators_reset_acknowledges_the_fault_it_was_for_and_no_later_one() {
        let (me, intent) = (sender("me"), Intent::default());
        let verdict = MotorVerdict { state: MotorState::Idle, ..stopped(Reason::DriveFault) };
        for (since, expected) in [(990, None), (4_000, Some(Objection::DriveFault))] {
            let fault_since = Some(Nanos(since * MS));
            let facts = Facts { fault_since, ..facts(&verdict, ResetPolicy::Manual) };
            assert_eq!(facts.objection(&intent, &at(&me, 5_000)), expected);
        }
        let first = nothing_known();
        let facts = Facts { fault_since: Some(Nanos(1)), ..facts(&first, ResetPolicy::Auto) };
        assert_eq!(facts.objection(&intent, &at(&me, 5_000)), Some(Objection::DriveFault), "since the start");
    }
}
