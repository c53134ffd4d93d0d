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

#[derive(Debug)]
struct Party {
    sender: Sender,
    /// Oldest first: some of those that came, and the newest.
    stops: VecDeque<Note>,
    fault: Option<Note>,
}

impl Party {
    fn note_stop(&mut self, new: Note) {
        let before_last = self.stops.len().checked_sub(2).and_then(|place| self.stops.get(place));
        if before_last.is_some_and(|before| new.arrived.since(before.arrived) < NOTE_SPACING_NANOS) {
            self.stops.pop_back();
        }
        if self.stops.len() >= MAX_NOTES {
            self.stops.pop_front();
        }
        self.stops.push_back(new);
    }
}

/// What the parties have taken note of, for one motor.
#[derive(Debug, Default)]
pub struct Intent(Mutex<Vec<Party>>);

impl Intent {
    fn parties(&self) -> MutexGuard<'_, Vec<Party>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a party has taken note, and was answered at `answered`.
    pub fn note(&self, origin: &Origin, notes: Notes, answered: Nanos) {
        let new = Note { arrived: origin.complete().at(), answered };
        let mut parties = self.parties();
        let known = parties.iter().position(|party| party.sender.is_same_party(origin.sender()));
        let mut party = match known {
            Some(place) => parties.remove(place),
            None => Party { sender: origin.sender().clone(), stops: VecDeque::new(), fault: None },
        };
        party.note_stop(new);
        match notes {
            Notes::Stop => {}
            Notes::StopAndDriveFault => party.fault = Some(new),
        }
        if parties.len() >= MAX_PARTIES {
            parties.remove(0);
        }
        parties.push(party);
    }

    /// Says when the party was answered that has taken note of a stop which began at `stopped`: the first time since.
    fn answered_since(&self, sender: &Sender, stopped: Nanos) -> Option<Nanos> {
        let parties = self.parties();
        let party = parties.iter().find(|party| party.sender.is_same_party(sender))?;
        party.stops.iter().find(|note| note.arrived > stopped).map(|note| note.answered)
    }

    /// Says whether the party has taken note of a fault that is there since `since`.
    fn covers_fault(&self, sender: &Sender, since: Nanos) -> bool {
        let parties = self.parties();
        let party = parties.iter().find(|party| party.sender.is_same_party(sender));
        party.and_then(|party| party.fault).is_some_and(|fault| fault.arrived > since)
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
        (!intent.covers_fault(origin.sender(), since)).then_some(Objection::DriveFault)
    }

    fn neutral_objection(&self, intent: &Intent, origin: &Origin) -> Option<Objection> {
        let Self { verdict, policy, hold, .. } = *self;
        let applies = policy == ResetPolicy::Neutral
            && verdict.state == MotorState::Stopped
            && verdict.trip != TripId::NONE;
        if !applies {
            return None;
        }
        let Some(answered) = intent.answered_since(origin.sender(), verdict.first_stop) else {
            return Some(Objection::NoNeutral(verdict.trip));
        };
        let passed = Duration::from_nanos(origin.began().at().since(answered));
        let left = hold.checked_sub(passed).filter(|left| !left.is_zero());
        left.map(Objection::TooSoon)
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
