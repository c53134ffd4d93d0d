//! What a core begins with that the supervisor before it has left open: its trips are this one's until they are
//! reset, and what was driven when it died counts as tripped.
//!
//! Only decisions are taken over, never what a drive said: every motor is stopped at the start, and proven anew.

use shm_proto::verdicts::{Event, EventKind, PastEvidence, Predecessor, Reason};
use shm_proto::{Generation, Nanos, TripId};

use super::motor::Latch;
use super::{Core, motor_index};

/// What holds a motor, or stopped it last, since before this supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The trip.
    pub trip: TripId,
    /// Why.
    pub reason: Reason,
    /// Whether it must be reset.
    pub latch: Latch,
    /// How often the stop of that trip was violated.
    pub violations: u64,
}

/// Everything a core takes over. Motors are places in its own configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inheritance {
    /// How the supervisor before ended.
    pub ending: Predecessor,
    /// When it was last seen alive.
    pub seen: Nanos,
    /// The last trip's number: the next one is higher.
    pub trips: TripId,
    /// The last hand-over to a front: the next one is higher.
    pub generation: Generation,
    /// The trip that keeps everything stopped.
    pub latch: TripId,
    /// What each motor takes over.
    pub motors: Vec<Option<Inherited>>,
    /// What was known of each motor; told, and proof of nothing.
    pub evidence: Vec<PastEvidence>,
    /// How the trips that are taken over began.
    pub events: Vec<Event>,
    /// The trip of those that were driven when the supervisor died; its stops are yet to be sent.
    pub died: Option<TripId>,
}

impl Inheritance {
    /// Of a supervisor that is the first, with that many motors.
    #[must_use]
    pub fn nothing(motors: usize) -> Self {
        Self {
            ending: Predecessor::None,
            seen: Nanos::ZERO,
            trips: TripId::NONE,
            generation: Generation(0),
            latch: TripId::NONE,
            motors: vec![None; motors],
            evidence: vec![PastEvidence::default(); motors],
            events: Vec::new(),
            died: None,
        }
    }
}

impl Core {
    /// Takes over what the supervisor before has left open. To be called once, before [`Core::start`].
    pub fn inherit(&mut self, inheritance: &Inheritance) {
        self.trips = inheritance.trips;
        self.latch = inheritance.latch;
        for (motor, inherited) in self.motors.iter_mut().zip(&inheritance.motors) {
            let Some(Inherited { trip, reason, latch, violations }) = *inherited else { continue };
            (motor.trip, motor.violations) = (trip, violations);
            motor.reason = Some(reason);
            motor.latch = latch;
        }
        for (place, evidence) in inheritance.evidence.iter().enumerate() {
            self.verdicts.past_evidence(motor_index(place), evidence);
        }
        inheritance.events.iter().for_each(|event| self.verdicts.event(event));
        self.verdicts.front(inheritance.generation, 0);
        self.verdicts.predecessor(inheritance.ending, inheritance.seen);
        // All of it is published before the phase is: who finds this segment when this supervisor is gone as well finds
        // it whole, or finds that it had not begun and believes the one before.
        self.died = inheritance.died.map(|trip| (trip, inheritance.seen));
    }

    /// Tells, once they are stopped, which motors were driven when the supervisor before died.
    pub(super) fn tell_of_death(&mut self, now: Nanos) {
        let Some((trip, seen)) = self.died.take() else { return };
        let mut event = Event::new(EventKind::Trip, now);
        event.trip = trip;
        event.reason = Some(Reason::SupervisorDied);
        event.deadline = seen;
        for (place, motor) in self.motors.iter().enumerate().filter(|(_, motor)| motor.trip == trip) {
            if event.first_stop == Nanos::ZERO {
                event.first_stop = motor.first_stop;
            }
            event.all_stopped = event.all_stopped.max(motor.first_stop);
            event.motors.insert(motor_index(place));
        }
        self.verdicts.event(&event);
    }
}
