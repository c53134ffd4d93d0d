//! Trips: who is stopped for what reason, and how a trip is cleared.

use core::fmt;

use shm_proto::verdicts::{Counter, Event, EventKind, Reason, SessionState};
use shm_proto::{Nanos, Owner, SlotIndex, TripId, TripSeen};

use super::health::Reach;
use super::motor::{Latch, Motor, Occasion, Why};
use super::wire::Wire;
use super::{Core, Held, motor_index};

/// Why a reset was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetRefused {
    /// No motor is held by that trip.
    NotHeld,
    /// The stop of the trip was violated since the operator looked, or not as often as the reset says.
    Violated {
        /// The trip as it is now.
        now: TripSeen,
    },
    /// A motor of the trip is not proven to stand still.
    NotAtRest {
        /// Its place in the configuration.
        motor: usize,
    },
    /// The drive of a motor of the trip was proven to stand still, but has been silent since.
    NotHeard {
        /// Its place in the configuration.
        motor: usize,
    },
}

impl fmt::Display for ResetRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHeld => write!(f, "no motor is held by that trip; `lanyard status` names the trips"),
            Self::Violated { now } if now.violations == 0 => {
                write!(f, "its stop was not violated; look (`lanyard status`), then: lanyard reset {now}")
            }
            Self::Violated { now } => write!(
                f,
                "its stop was violated since: somebody moved or energised a motor that it holds. Look (`lanyard events`), \
                 then: lanyard reset {now}"
            ),
            Self::NotAtRest { motor } => write!(
                f,
                "motor number {motor} is not proven to stand still; see `lanyard status`, mend the drive, \
                 then reset again"
            ),
            Self::NotHeard { motor } => write!(
                f,
                "the drive of motor number {motor} is silent, so nobody knows whether it still stands still; give it \
                 power, or see to its cable, then reset again"
            ),
        }
    }
}

/// Which motors a trip stops.
#[derive(Clone, Copy, Debug)]
enum Whose {
    /// Those granted to one session.
    Owner(Owner),
    /// Those granted to any session.
    Anyone,
    /// All there are.
    All,
}

/// Whether a session that ends for that reason interrupts nothing when all of its motors are at rest: it, or its
/// client, has gone. Whatever else ends one is worth a look by itself.
const fn interrupts_nothing(reason: Reason) -> bool {
    match reason {
        Reason::Expired | Reason::Overdue | Reason::ClosedByClient | Reason::ClientLost => true,
        Reason::Startup
        | Reason::Closed
        | Reason::FrontDead
        | Reason::FrontSilent
        | Reason::Corrupt
        | Reason::OperatorStop
        | Reason::SelfOverrun
        | Reason::BusFault
        | Reason::DriveFault
        | Reason::Shutdown
        | Reason::Violation
        | Reason::FeedbackLost
        | Reason::SupervisorDied
        | Reason::CutOff
        | Reason::NoProgress
        | Reason::TargetLost
        | Reason::ListenerClosed
        | Reason::UpstreamLost
        | Reason::FrontEnded
        | Reason::MadeDeaf
        | Reason::HeartbeatWithdrawn
        | Reason::Overspeed
        | Reason::WrongWay
        | Reason::OtherMaster
        | Reason::LatchesLost => false,
    }
}

/// Whether any session was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    None,
    Some,
}

impl Core {
    /// Stops every motor a session drives, then ends the session. This is what happens on expiry.
    pub(super) fn trip_session(
        &mut self,
        slot: SlotIndex,
        reason: Reason,
        end: SessionState,
        now: Nanos,
        wire: &mut dyn Wire,
    ) {
        let Some(owner) = self.sessions.owner(slot) else {
            self.sessions.end(slot, end, TripId::NONE);
            return;
        };
        let deadline = self.sessions.deadline(slot);
        self.hand_over_taken(owner, now);
        let why = if interrupts_nothing(reason) && self.is_at_rest_under(owner, now) {
            Why::end_at_rest(reason)
        } else {
            Why::trip(self.next_trip(), reason)
        };
        let mut event = self.stop(Whose::Owner(owner), why, now, wire);
        self.sessions.end(slot, end, why.trip);
        let verdict = self.sessions.verdict(slot);
        event.session = verdict.session;
        event.slot = slot;
        event.last_beat = verdict.last_beat;
        // One that has not passed is not what the motors are stopped for.
        event.deadline = deadline.min(now);
        if reason == Reason::Expired && event.first_stop > deadline {
            self.tally.worst_trip = self.tally.worst_trip.max(event.first_stop.since(deadline));
        }
        self.record(&event);
        self.publish_session(slot);
    }

    /// Whether every motor of a session, of which there is at least one, is proven to be at rest on buses that work, as
    /// far as a loop can tell that was in time itself. One that shares a command frame with them belongs to them.
    fn is_at_rest_under(&self, owner: Owner, now: Nanos) -> bool {
        let belongs = |index: usize| self.motors[index].owner() == Some(owner);
        let is_reached = |index: usize| {
            let is_mate = |other: usize| self.are_mates(index, other) && belongs(other);
            let shares = self.has_mates(index) && self.motors[index].owner().is_some();
            belongs(index) || shares && (0..self.motors.len()).any(is_mate)
        };
        let works = |bus: usize| self.buses[bus].reach() == Reach::Well;
        let rests = |index: usize| {
            let motor = &self.motors[index];
            motor.rests_under_grant(now) && (0..self.buses.len()).all(|bus| works(bus) || !motor.is_on(bus))
        };
        let motors = 0..self.motors.len();
        let in_time = self.lateness(now) <= self.settings.max_lateness;
        in_time && motors.clone().any(belongs) && motors.filter(|index| is_reached(*index)).all(rests)
    }

    /// The stop of a motor whose session ended at rest has to do more than to make sure: it is a trip, as loud as any,
    /// and those that share a command frame with the motor belong to it.
    pub(super) fn trip_after_all(&mut self, index: usize, now: Nanos) {
        if self.motors[index].occasion != Occasion::EndAtRest {
            return;
        }
        let trip = self.next_trip();
        let mut event = Event::new(EventKind::Trip, now);
        (event.trip, event.reason, event.deadline) = (trip, self.motors[index].reason, now);
        for other in 0..self.motors.len() {
            if other != index && !self.are_mates(index, other) {
                continue;
            }
            let motor = &mut self.motors[other];
            if motor.take_for_a_trip(trip, self.settings.policy) {
                event.all_stopped = event.all_stopped.max(motor.first_stop);
                event.motors.insert(motor_index(other));
            }
        }
        event.first_stop = self.motors[index].first_stop;
        self.record(&event);
    }

    /// Trips the session that drives a motor: with one wheel gone the others must not go on.
    pub(super) fn trip_owner_of(&mut self, index: usize, reason: Reason, now: Nanos, wire: &mut dyn Wire) {
        if let Some(owner) = self.motors[index].owner() {
            self.trip_session(owner.slot, reason, SessionState::Tripped, now, wire);
        }
        // Should the session have been gone already, the motor must not stay granted to it.
        self.stop_motor(index, reason, now, wire);
    }

    /// Stops one granted motor and leaves its session alone.
    pub(super) fn stop_motor(&mut self, index: usize, reason: Reason, now: Nanos, wire: &mut dyn Wire) {
        if self.motors[index].owner().is_none() {
            return;
        }
        let trip = self.next_trip();
        let mut event = Event::new(EventKind::Trip, now);
        event.trip = trip;
        event.reason = Some(reason);
        for mate in 0..self.motors.len() {
            if self.are_mates(index, mate) && self.motors[mate].owner().is_some() {
                event.motors.insert(motor_index(mate));
            }
        }
        self.begin_stop(index, Why::trip(trip, reason), now, wire);
        event.first_stop = self.motors[index].first_stop;
        event.all_stopped = event.first_stop;
        event.motors.insert(motor_index(index));
        self.record(&event);
    }

    /// The front is dead or silent: every motor any of its sessions drives is stopped first, then the
    /// sessions are ended.
    pub(super) fn trip_front(&mut self, reason: Reason, now: Nanos, wire: &mut dyn Wire) {
        let front_slot = self.sessions.front_slot();
        let deadline = self.sessions.deadline(front_slot);
        let trip = self.next_trip();
        let mut event = self.stop(Whose::Anyone, Why::trip(trip, reason), now, wire);
        event.slot = front_slot;
        event.last_beat = self.sessions.get(front_slot).map_or(Nanos::ZERO, |front| front.last_beat);
        event.deadline = if reason == Reason::FrontSilent { deadline } else { now };
        if self.end_all_sessions(trip) == Ended::Some {
            // Its clients lost their sessions even if no motor was theirs: the log must say why.
            self.verdicts.event(&event);
            self.publish_stopped(&event);
        } else {
            self.record(&event);
        }
    }

    /// The supervisor's own loop was late: whatever moves is stopped, and its sessions end. Those that drive
    /// nothing live on.
    pub(super) fn trip_late(&mut self, now: Nanos, wire: &mut dyn Wire) {
        for index in 0..self.motors.len() {
            if self.motors[index].owner().is_some() {
                self.trip_owner_of(index, Reason::SelfOverrun, now, wire);
            }
        }
    }

    /// Stops every motor there is and ends every session.
    pub(super) fn trip_all(&mut self, reason: Reason, now: Nanos, wire: &mut dyn Wire) -> TripId {
        let trip = self.next_trip();
        let mut event = self.stop(Whose::All, Why::trip(trip, reason), now, wire);
        self.look_everywhere(now, wire);
        event.last_beat = self.sessions.newest_beat();
        event.deadline = now;
        self.end_all_sessions(trip);
        self.record(&event);
        trip
    }

    /// Stops every motor without a trip of its own.
    pub(super) fn stop_all(&mut self, reason: Reason, trip: TripId, now: Nanos, wire: &mut dyn Wire) {
        let event = self.stop(Whose::All, Why::trip(trip, reason), now, wire);
        self.publish_stopped(&event);
    }

    /// A bus does not work: every session that drives a motor on it is tripped.
    pub(super) fn trip_bus(&mut self, bus: usize, now: Nanos, wire: &mut dyn Wire) {
        for index in 0..self.motors.len() {
            if self.motors[index].is_on(bus) && self.motors[index].owner().is_some() {
                self.trip_owner_of(index, Reason::BusFault, now, wire);
            }
        }
    }

    /// Stops everything until an operator resets the trip.
    pub fn estop(&mut self, now: Nanos, wire: &mut dyn Wire) -> TripId {
        let trip = self.trip_all(Reason::OperatorStop, now, wire);
        self.hold_everything(trip, now);
        trip
    }

    /// Somebody presses stop. While an earlier press holds everything the stop is not begun anew: whoever presses without
    /// end must neither keep a stop from its harder stages nor push its evidence out of the event log.
    pub fn press(&mut self, now: Nanos, wire: &mut dyn Wire) -> TripId {
        if self.latch == TripId::NONE || self.held == Held::Some {
            return self.estop(now, wire);
        }
        // A number of its own all the same: a reset that was meant for the earlier press must not clear this one.
        let trip = self.next_trip();
        for index in 0..self.motors.len() {
            if self.motors[index].trip == self.latch {
                self.motors[index].belong_to(trip);
                self.publish_motor(index);
            }
        }
        self.hold_everything(trip, now);
        trip
    }

    fn hold_everything(&mut self, trip: TripId, now: Nanos) {
        (self.latch, self.held) = (trip, Held::All);
        self.verdicts.latch(trip);
        // Last: whoever reads that stop was pressed finds the trip.
        self.verdicts.pressed(now);
    }

    /// Clears a trip: its motors may be granted again. Nothing moves by this.
    ///
    /// # Errors
    ///
    /// When no motor is held by that trip, it was violated since it was looked at, or one of its motors is not proven to
    /// stand still by feedback that is fresh.
    pub fn reset(&mut self, seen: TripSeen, now: Nanos) -> Result<(), ResetRefused> {
        let trip = seen.trip;
        let held = |motor: &&Motor| motor.trip == trip && motor.latch == Latch::Held;
        let is_latch = self.latch != TripId::NONE && self.latch == trip;
        if trip == TripId::NONE || (!is_latch && !self.motors.iter().any(|motor| held(&motor))) {
            return Err(ResetRefused::NotHeld);
        }
        let present = TripSeen { trip, violations: self.violations_of(trip) };
        if seen != present {
            return Err(ResetRefused::Violated { now: present });
        }
        let moving = self
            .motors
            .iter()
            .position(|motor| held(&motor) && !(motor.is_at_rest() && motor.stands_still()));
        if let Some(motor) = moving {
            return Err(ResetRefused::NotAtRest { motor });
        }
        let silent = self.motors.iter().position(|motor| held(&motor) && !motor.is_heard(now));
        if let Some(motor) = silent {
            return Err(ResetRefused::NotHeard { motor });
        }
        let mut event = Event::new(EventKind::Reset, now);
        event.trip = trip;
        for (index, motor) in self.motors.iter_mut().enumerate() {
            if motor.trip == trip && motor.latch == Latch::Held {
                motor.release();
                event.motors.insert(motor_index(index));
            }
        }
        self.held = Held::Some;
        if is_latch {
            self.latch = TripId::NONE;
            self.verdicts.latch(TripId::NONE);
        }
        self.record(&event);
        Ok(())
    }

    pub(super) fn next_trip(&mut self) -> TripId {
        self.trips.0 += 1;
        // Before anybody sees the number: the next supervisor must not give it to another trip.
        self.verdicts.counter(Counter::Trips, self.trips.0);
        self.trips
    }

    /// The stop itself. Frames of one motor after the other; everything else comes later.
    fn stop(&mut self, whose: Whose, why: Why, now: Nanos, wire: &mut dyn Wire) -> Event {
        let kind = match why.occasion {
            Occasion::Trip => EventKind::Trip,
            Occasion::EndAtRest => EventKind::EndedAtRest,
        };
        let mut event = Event::new(kind, now);
        event.trip = why.trip;
        event.reason = Some(why.reason);
        let meant = |motor: &Motor| match (whose, motor.owner()) {
            (Whose::All, _) | (Whose::Anyone, Some(_)) => true,
            (Whose::Owner(wanted), Some(owner)) => wanted == owner,
            (Whose::Owner(_) | Whose::Anyone, None) => false,
        };
        self.broadcast(meant, now, wire);
        for index in 0..self.motors.len() {
            if meant(&self.motors[index]) {
                self.begin_stop(index, why, now, wire);
                let first = self.motors[index].first_stop;
                if event.first_stop == Nanos::ZERO {
                    event.first_stop = first;
                }
                event.all_stopped = event.all_stopped.max(first);
                event.motors.insert(motor_index(index));
            }
        }
        event
    }

    fn end_all_sessions(&mut self, trip: TripId) -> Ended {
        let mut ended = Ended::None;
        for slot in (0..self.sessions.len()).map(SlotIndex) {
            if self.sessions.owner(slot).is_some() {
                self.sessions.end(slot, SessionState::Tripped, trip);
                self.publish_session(slot);
                ended = Ended::Some;
            }
        }
        ended
    }

    /// Keeps an event that is about motors. The end of a session that drove nothing is published with
    /// the session and not here: a client that opens and drops sessions must not push the evidence of
    /// real stops out of the log.
    fn record(&mut self, event: &Event) {
        if !event.motors.is_empty() {
            self.verdicts.event(event);
        }
        self.publish_stopped(event);
    }

    fn publish_stopped(&self, event: &Event) {
        for motor in event.motors.iter() {
            self.publish_motor(usize::from(motor.0));
        }
    }
}
