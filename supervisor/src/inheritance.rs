//! What a supervisor makes of what the one before it has left behind.
//!
//! What lives here: the pure decision, from an allegation ([`Remains`]) to what the core takes over
//! ([`Inheritance`]). In doubt a motor counts as driven and comes up tripped: it stands still already, and what a
//! needless trip costs is a new session, or one `lanyard reset`. What must never: descriptors, and anything that
//! would let a motor move.

use std::io;

use config::Config;
use shm_proto::verdicts::{
    Event, EventKind, LeftMotor, MotorSet, MotorState, PastEvidence, Phase, Predecessor, Reason, Remains,
    ResetPolicy,
};
use shm_proto::{MotorIndex, Nanos, TripId};

use crate::core::{Inheritance, Inherited, Latch};

/// What is known of the supervisor before this one.
#[derive(Debug)]
pub enum Found {
    /// Nothing: it is the first, or nobody kept what was left.
    Nothing,
    /// What it left behind, or why that cannot be read.
    Left(io::Result<Remains>),
    /// It was armed when it died, for what it had armed is still held; but of itself it left nothing.
    ArmedOnly,
}

/// Of several that died one after the other, the last that had begun: until it begins, a supervisor has nothing to
/// leave. One that cannot be read may be that one.
#[must_use]
pub fn newest(found: Vec<io::Result<Remains>>) -> Option<io::Result<Remains>> {
    let mut newest: Option<Remains> = None;
    for remains in found {
        let remains = match remains {
            Ok(remains) => remains,
            Err(error) => return Some(Err(error)),
        };
        let had_begun = remains.phase != Some(Phase::Starting);
        if had_begun && newest.as_ref().is_none_or(|other| other.started <= remains.started) {
            newest = Some(remains);
        }
    }
    newest.map(Ok)
}

/// What the core takes over, and what to tell the log.
#[must_use]
pub fn inherit(found: Found, config: &Config, now: Nanos) -> (Inheritance, Vec<String>) {
    let count = config.motors.len();
    match found {
        Found::Nothing => (Inheritance::nothing(count), Vec::new()),
        Found::Left(Ok(remains)) => Heir { config, remains }.inherit(),
        Found::Left(Err(error)) => {
            unreadable(config, now, &format!("what it left behind cannot be read ({error})"))
        }
        Found::ArmedOnly => unreadable(config, now, "it left nothing behind but its stops in the kernel"),
    }
}

/// Nobody knows what it did: as if it had driven every motor. Its trips had numbers that nobody knows either; one for
/// each millisecond that the machine runs are more than it can have had.
fn unreadable(config: &Config, now: Nanos, why: &str) -> (Inheritance, Vec<String>) {
    let trips = TripId(now.0 / 1_000_000 + 1);
    let died =
        Inherited { trip: trips, reason: Reason::SupervisorDied, latch: latch_of(config), violations: 0 };
    let said = format!(
        "WARNING: of the supervisor before this one: {why}. Every motor counts as tripped by its end"
    );
    let mut inheritance = Inheritance::nothing(config.motors.len());
    inheritance.ending = Predecessor::Unreadable;
    inheritance.trips = trips;
    inheritance.motors.fill(Some(died));
    inheritance.died = Some(trips);
    (inheritance, vec![said])
}

fn latch_of(config: &Config) -> Latch {
    match config.supervisor.reset {
        ResetPolicy::Manual => Latch::Held,
        ResetPolicy::Neutral | ResetPolicy::Auto => Latch::Open,
    }
}

/// What a motor's last entry says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing holds or drives it.
    Free,
    /// A trip stopped it, and no reset or new session has come since.
    Tripped { trip: TripId, reason: Reason, latch: Latch },
    /// A session drove it.
    Driven,
}

/// The last entry of a motor may have been written in part only: its grant goes first and its state comes last. So
/// each sign that it was driven counts by itself.
fn fate(motor: &LeftMotor, ended: bool) -> Fate {
    let verdict = &motor.verdict;
    let held = verdict.latched != 0;
    let reason = verdict.reason.unwrap_or(Reason::SupervisorDied);
    let tripped = |latch| Fate::Tripped { trip: verdict.trip, reason, latch };
    match verdict.state {
        _ if held && verdict.trip != TripId::NONE => tripped(Latch::Held),
        // Held by no trip: nobody could ever reset that.
        _ if held => Fate::Driven,
        _ if verdict.grant.is_some() => Fate::Driven,
        MotorState::Granted => Fate::Driven,
        // The stop of a start, which is made again, or of a session that ended at rest, which that does, too.
        _ if verdict.trip == TripId::NONE => Fate::Free,
        MotorState::Idle => Fate::Free,
        MotorState::Stopped if ended && reason == Reason::Shutdown => Fate::Free,
        MotorState::Stopping | MotorState::Stopped | MotorState::Unverified => tripped(Latch::Open),
    }
}

/// The way from the one's motors to the other's.
struct Heir<'a> {
    config: &'a Config,
    remains: Remains,
}

impl Heir<'_> {
    fn inherit(self) -> (Inheritance, Vec<String>) {
        let Remains { seen, trips, generation, latch, .. } = self.remains;
        let ended = self.remains.phase == Some(Phase::Ended);
        let died = TripId(trips.0 + 1);
        let mut inheritance = Inheritance::nothing(self.config.motors.len());
        (inheritance.seen, inheritance.generation, inheritance.latch) = (seen, generation, latch);
        inheritance.ending = if ended { Predecessor::Ended } else { Predecessor::Died };
        for (place, motor) in self.config.motors.iter().enumerate() {
            let left = self.left(&motor.name);
            inheritance.evidence[place] = left.map_or_else(PastEvidence::default, |left| left.evidence);
            inheritance.motors[place] = self.inherited(left, ended, died);
        }
        let is_driven = |inherited: &Option<Inherited>| inherited.is_some_and(|of| of.trip == died);
        inheritance.died = inheritance.motors.iter().any(is_driven).then_some(died);
        inheritance.trips = inheritance.died.unwrap_or(trips);
        inheritance.events = self.beginnings(&inheritance);
        let said = self.tell(&inheritance);
        (inheritance, said)
    }

    fn left(&self, name: &str) -> Option<&LeftMotor> {
        self.remains.motors.as_ref()?.iter().find(|left| left.name == name)
    }

    fn inherited(&self, left: Option<&LeftMotor>, ended: bool, died: TripId) -> Option<Inherited> {
        let stop = self.remains.latch;
        let fate = match (&self.remains.motors, left) {
            (Some(_), Some(left)) => fate(left, ended),
            // New in the configuration: nobody drove it.
            (Some(_), None) => Fate::Free,
            (None, _) if ended && self.remains.open == 0 => Fate::Free,
            (None, _) => Fate::Driven,
        };
        // Whatever an operator stopped is everything there is, also what came later, and whatever it says of itself.
        let policy = if stop == TripId::NONE { latch_of(self.config) } else { Latch::Held };
        Some(match fate {
            Fate::Free if stop != TripId::NONE => {
                Inherited { trip: stop, reason: Reason::OperatorStop, latch: Latch::Held, violations: 0 }
            }
            Fate::Free => return None,
            Fate::Tripped { trip, reason, latch } => {
                let held = latch == Latch::Held || reason == Reason::OperatorStop;
                let violations = left.map_or(0, |left| left.verdict.violations);
                Inherited { trip, reason, latch: if held { Latch::Held } else { policy }, violations }
            }
            Fate::Driven => {
                Inherited { trip: died, reason: Reason::SupervisorDied, latch: policy, violations: 0 }
            }
        })
    }

    /// How the trips began that are taken over, with motors under their present places; of one whose event is no
    /// longer there, what its motors say.
    fn beginnings(&self, inheritance: &Inheritance) -> Vec<Event> {
        let mut trips: Vec<Inherited> = Vec::new();
        for inherited in inheritance.motors.iter().flatten() {
            let known = trips.iter().any(|other| other.trip == inherited.trip);
            if !known && Some(inherited.trip) != inheritance.died {
                trips.push(*inherited);
            }
        }
        trips.sort_unstable_by_key(|inherited| inherited.trip);
        trips.iter().map(|inherited| self.beginning(*inherited, &inheritance.motors)).collect()
    }

    fn beginning(&self, of: Inherited, motors: &[Option<Inherited>]) -> Event {
        let begins = |event: &&Event| {
            event.trip == of.trip && matches!(event.kind, EventKind::Trip | EventKind::Guarded)
        };
        if let Some(event) = self.remains.events.iter().find(begins) {
            return Event { motors: self.renumbered(event.motors), ..*event };
        }
        let mut event = Event::new(EventKind::Trip, self.remains.seen);
        (event.trip, event.reason) = (of.trip, Some(of.reason));
        for (place, inherited) in motors.iter().enumerate() {
            if inherited.is_some_and(|other| other.trip == of.trip) {
                event.motors.insert(index(place));
                let left = self.left(&self.config.motors[place].name);
                let first_stop = left.map_or(Nanos::ZERO, |left| left.verdict.first_stop);
                event.first_stop = event.first_stop.max(first_stop).min(self.remains.seen);
            }
        }
        event
    }

    fn renumbered(&self, set: MotorSet) -> MotorSet {
        let mut renumbered = MotorSet::default();
        let old = self.remains.motors.as_deref().unwrap_or_default();
        for left in set.iter().filter_map(|motor| old.get(usize::from(motor.0))) {
            let place = self.config.motors.iter().position(|motor| motor.name == left.name);
            if let Some(place) = place {
                renumbered.insert(index(place));
            }
        }
        renumbered
    }

    fn tell(&self, inheritance: &Inheritance) -> Vec<String> {
        let mut lines = Vec::new();
        if inheritance.ending == Predecessor::Died {
            lines.push("the supervisor before this one died; its trips are taken over".to_owned());
        }
        if self.remains.motors.is_none() {
            lines.push(
                "WARNING: the supervisor before this one was of another version: which of its motors were tripped is \
                 not known. Unless it ended with none, every motor counts as tripped"
                    .to_owned(),
            );
        }
        for event in &inheritance.events {
            let names: Vec<&str> = event
                .motors
                .iter()
                .filter_map(|motor| Some(self.config.motors.get(usize::from(motor.0))?.name.as_str()))
                .collect();
            let reason = event.reason.map_or("reason unknown", Reason::name);
            lines.push(format!(
                "trip {} of the supervisor before is still open: {reason}: {}",
                event.trip,
                names.join(", ")
            ));
        }
        let gone = self.remains.motors.iter().flatten().filter(|left| {
            let known = self.config.motors.iter().any(|motor| motor.name == left.name);
            !known && left.verdict.latched != 0
        });
        lines.extend(gone.map(|left| {
            format!(
                "WARNING: motor \"{}\" was held by trip {} and is no longer in the configuration: nobody watches it",
                left.name, left.verdict.trip
            )
        }));
        lines
    }
}

fn index(place: usize) -> MotorIndex {
    MotorIndex(u16::try_from(place).unwrap_or(u16::MAX))
}
