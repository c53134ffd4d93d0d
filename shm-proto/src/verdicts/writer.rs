//! The supervisor's side: it alone can write.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::entries::{BusVerdict, MotorVerdict, PastEvidence, SessionVerdict};
use super::event::Event;
use super::places::{
    AT_BUSES, AT_CONFIG, AT_COUNTERS, AT_DEGRADED, AT_EVENT_COUNT, AT_FRONT_BEAT, AT_FRONT_PID,
    AT_GENERATION, AT_LATCH, AT_LATCH_CHANGES, AT_LATCHES_KEPT, AT_LAYOUT, AT_LOOP, AT_LOOP_TIME, AT_MAGIC,
    AT_MOTORS, AT_MOTORS_USED, AT_OPEN, AT_PHASE, AT_PID, AT_POLICY, AT_PREDECESSOR, AT_PREDECESSOR_SEEN,
    AT_PRESSED, AT_REJECTS, AT_SESSIONS, AT_STARTED, AT_WATCHDOG_RESET, BUS_CONFIRMED, BUS_CONFIRMS,
    BUS_DISBELIEVED, BUS_DISBELIEVED_AT, BUS_ERROR_FRAMES, BUS_ERRORS, BUS_HEALTH, BUS_LAST_ERROR, BUS_NAME,
    BUS_QUEUE_FULL, BUS_RECEIVED, BUS_RX_ERRORS, BUS_SENT, BUS_STATE, BUS_TX_ERRORS, EVENT_WORDS, MOST_BUSES,
    MOTOR_BUS, MOTOR_CONFIRMED, MOTOR_FAULT, MOTOR_FEEDBACK, MOTOR_FIRST_STOP, MOTOR_GRANT, MOTOR_GUARDED,
    MOTOR_LATCHED, MOTOR_MOVES, MOTOR_NAME, MOTOR_PAST_FEEDBACK, MOTOR_PAST_STANDSTILL, MOTOR_POSITION,
    MOTOR_POWER, MOTOR_REASON, MOTOR_STAGE, MOTOR_STANDSTILL, MOTOR_STATE, MOTOR_STOPS_SENT, MOTOR_TRIP,
    MOTOR_VELOCITY, MOTOR_VIOLATIONS, NAME_BYTES, NO_READING, SESSION_BEATS, SESSION_DEADLINE, SESSION_HIGH,
    SESSION_LAST_BEAT, SESSION_LOW, SESSION_STATE, SESSION_TRIP, SESSION_WINDOW, VerdictLayout,
};
use super::words::{Counter, Phase, Predecessor, Reason, ResetPolicy};
use crate::beat::Reject;
use crate::ids::{Generation, Incarnation, MotorIndex, Owner, SlotIndex, TripId};
use crate::layout::{Capacity, MAGIC, layout_hash};
use crate::memory::{Access, Segment};
use crate::record;
use crate::sync::Ordering;
use crate::time::Nanos;

/// The supervisor's side: it alone can write.
#[derive(Debug)]
pub struct VerdictSegment {
    segment: Segment,
    pub(super) layout: VerdictLayout,
    events: u64,
}

/// What is published of a motor, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldMotor {
    /// Whose it is.
    pub grant: Option<Owner>,
    /// The number of its state.
    pub state: u64,
    /// The stage of its stop.
    pub stage: u64,
    /// The trip that stopped it last.
    pub trip: TripId,
    /// 1 when that must be reset.
    pub latched: u64,
}

/// What never changes after start.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Hash of the configuration file's bytes: both processes must have read the same file.
    pub config_hash: u64,
    /// Process id of the supervisor.
    pub pid: u32,
    /// When it started.
    pub started: Nanos,
    /// Reset policy.
    pub policy: ResetPolicy,
}

impl VerdictSegment {
    /// Creates, maps and seals the segment; the descriptor is for handing out.
    ///
    /// # Errors
    ///
    /// When the kernel refuses any step.
    pub fn create(
        capacity: Capacity,
        identity: &Identity,
        motors: &[&str],
        buses: &[&str],
    ) -> io::Result<(Self, OwnedFd)> {
        let layout = VerdictLayout { capacity };
        let fd = crate::memory::create("lanyard-verdicts", layout.words())?;
        let segment = Segment::map(fd.as_fd(), layout.words(), Access::ReadWrite)?;
        crate::memory::seal(fd.as_fd())?;
        let this = Self { segment, layout, events: 0 };
        this.put(AT_LAYOUT, layout_hash());
        this.put(AT_CONFIG, identity.config_hash);
        this.put(AT_SESSIONS, u64::from(capacity.sessions()));
        this.put(AT_MOTORS, u64::from(capacity.motors()));
        this.put(AT_MOTORS_USED, motors.len() as u64);
        this.put(AT_BUSES, buses.len() as u64);
        this.put(AT_PID, u64::from(identity.pid));
        this.put(AT_STARTED, identity.started.0);
        this.put(AT_POLICY, identity.policy.number());
        this.put(AT_PHASE, Phase::Starting.number());
        for motor in (0..capacity.motors()).map(MotorIndex) {
            this.put(layout.motor(motor) + MOTOR_VELOCITY, NO_READING);
            this.put(layout.motor(motor) + MOTOR_POSITION, NO_READING);
            if let Some(name) = motors.get(usize::from(motor.0)) {
                this.put_name(layout.motor(motor) + MOTOR_NAME, name);
            }
        }
        for (bus, name) in buses.iter().enumerate().take(MOST_BUSES) {
            this.put_name(layout.bus(bus) + BUS_NAME, name);
        }
        this.segment.store(AT_MAGIC, MAGIC, Ordering::Release);
        Ok((this, fd))
    }

    fn get(&self, place: usize) -> u64 {
        // What this side alone has written.
        self.segment.load(place, Ordering::Relaxed)
    }

    pub(super) fn put(&self, place: usize, value: u64) {
        self.segment.store(place, value, Ordering::Release);
    }

    fn put_name(&self, place: usize, name: &str) {
        let mut bytes = [0_u8; NAME_BYTES];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        for (offset, chunk) in bytes.chunks_exact(8).enumerate() {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.put(place + offset, u64::from_le_bytes(word));
        }
    }

    /// Publishes the grant of a motor: the one word the front waits for before every frame.
    pub fn grant(&self, motor: MotorIndex, grant: Option<Owner>) {
        if !self.layout.capacity.has_motor(motor) {
            return;
        }
        let word = grant.map_or(Owner::NOBODY, Owner::to_word);
        self.segment.store(self.layout.motor(motor) + MOTOR_GRANT, word, Ordering::SeqCst);
    }

    /// Counts a change of the latches; after the words that it is about, so that whoever sees the count sees them.
    fn latches_changed(&self) {
        self.put(AT_LATCH_CHANGES, self.get(AT_LATCH_CHANGES) + 1);
    }

    /// Publishes all of a motor but its grant.
    pub fn motor(&self, motor: MotorIndex, verdict: &MotorVerdict) {
        if !self.layout.capacity.has_motor(motor) {
            return;
        }
        let at = self.layout.motor(motor);
        let before = (self.get(at + MOTOR_LATCHED), self.get(at + MOTOR_TRIP));
        self.put(at + MOTOR_STAGE, verdict.stage);
        self.put(at + MOTOR_TRIP, verdict.trip.0);
        self.put(at + MOTOR_REASON, verdict.reason.map_or(0, Reason::number));
        self.put(at + MOTOR_FIRST_STOP, verdict.first_stop.0);
        self.put(at + MOTOR_CONFIRMED, verdict.confirmed.0);
        self.put(at + MOTOR_STANDSTILL, verdict.standstill.0);
        self.put(at + MOTOR_STOPS_SENT, verdict.stops_sent);
        self.put(at + MOTOR_VELOCITY, verdict.velocity.map_or(NO_READING, |v| u64::from(v.to_bits())));
        self.put(at + MOTOR_POSITION, verdict.position.map_or(NO_READING, f64::to_bits));
        self.put(at + MOTOR_POWER, verdict.power);
        self.put(at + MOTOR_FAULT, verdict.fault);
        self.put(at + MOTOR_FEEDBACK, verdict.feedback.0);
        self.put(at + MOTOR_GUARDED, verdict.guarded);
        self.put(at + MOTOR_BUS, verdict.bus);
        self.put(at + MOTOR_LATCHED, verdict.latched);
        self.put(at + MOTOR_VIOLATIONS, verdict.violations);
        self.put(at + MOTOR_MOVES, verdict.moves.0);
        self.put(at + MOTOR_STATE, verdict.state.number());
        let (was_latched, trip) = before;
        if verdict.latched != was_latched || verdict.latched != 0 && verdict.trip.0 != trip {
            self.latches_changed();
        }
    }

    /// Publishes what the supervisor before this one last knew of a motor.
    pub fn past_evidence(&self, motor: MotorIndex, past: &PastEvidence) {
        if !self.layout.capacity.has_motor(motor) {
            return;
        }
        let at = self.layout.motor(motor);
        self.put(at + MOTOR_PAST_STANDSTILL, past.standstill.0);
        self.put(at + MOTOR_PAST_FEEDBACK, past.feedback.0);
    }

    /// What is published of a motor, for whoever checks this side.
    #[must_use]
    pub fn told_motor(&self, motor: MotorIndex) -> ToldMotor {
        let at = self.layout.motor(motor);
        ToldMotor {
            grant: Owner::from_word(self.get(at + MOTOR_GRANT)),
            state: self.get(at + MOTOR_STATE),
            stage: self.get(at + MOTOR_STAGE),
            trip: TripId(self.get(at + MOTOR_TRIP)),
            latched: self.get(at + MOTOR_LATCHED),
        }
    }

    /// What is published of the session in a slot: which one, and the number of its state.
    #[must_use]
    pub fn told_session(&self, slot: SlotIndex) -> (Incarnation, u64) {
        let word = self.get(self.layout.session(slot) + SESSION_STATE);
        (Incarnation::new(word >> 16), word & 0xffff)
    }

    /// The published trip that keeps everything stopped.
    #[must_use]
    pub fn told_latch(&self) -> TripId {
        TripId(self.get(AT_LATCH))
    }

    /// How often the published latches have changed, and how many of these changes are on disk.
    #[must_use]
    pub fn told_latch_changes(&self) -> (u64, u64) {
        (self.get(AT_LATCH_CHANGES), self.get(AT_LATCHES_KEPT))
    }

    /// A published counter.
    #[must_use]
    pub fn told_counter(&self, counter: Counter) -> u64 {
        self.get(AT_COUNTERS + usize::try_from(counter.number()).unwrap_or(0))
    }

    /// The number of the published phase.
    #[must_use]
    pub fn told_phase(&self) -> u64 {
        self.get(AT_PHASE)
    }

    /// Publishes how the supervisor before this one ended, and when it was last seen alive.
    pub fn predecessor(&self, ending: Predecessor, seen: Nanos) {
        self.put(AT_PREDECESSOR_SEEN, seen.0);
        self.put(AT_PREDECESSOR, ending.number());
    }

    /// Publishes that this machine was last reset by its hardware watchdog.
    pub fn watchdog_reset(&self) {
        self.put(AT_WATCHDOG_RESET, 1);
    }

    /// Publishes, before the last word, how many motors are held or not proven to stand still.
    pub fn left_open(&self, motors: u64) {
        self.put(AT_OPEN, motors);
    }

    /// Publishes a session.
    pub fn session(&self, slot: SlotIndex, verdict: &SessionVerdict) {
        if !self.layout.capacity.has_slot(slot) {
            return;
        }
        let at = self.layout.session(slot);
        self.put(at + SESSION_HIGH, crate::beat::high_word(verdict.session.0));
        self.put(at + SESSION_LOW, crate::beat::low_word(verdict.session.0));
        self.put(at + SESSION_DEADLINE, verdict.deadline.0);
        self.put(at + SESSION_LAST_BEAT, verdict.last_beat.0);
        self.put(at + SESSION_TRIP, verdict.trip.0);
        self.put(at + SESSION_BEATS, verdict.beats);
        self.put(at + SESSION_WINDOW, verdict.window);
        // State and incarnation in one word, last: who sees it sees the rest.
        let state = verdict.state.number() | verdict.incarnation.get() << 16;
        self.segment.store(at + SESSION_STATE, state, Ordering::SeqCst);
    }

    /// Publishes a bus.
    pub fn bus(&self, bus: usize, verdict: &BusVerdict) {
        if bus >= MOST_BUSES {
            return;
        }
        let at = self.layout.bus(bus);
        self.put(at + BUS_SENT, verdict.sent);
        self.put(at + BUS_ERRORS, verdict.errors);
        self.put(at + BUS_LAST_ERROR, verdict.last_error);
        self.put(at + BUS_RECEIVED, verdict.received);
        self.put(at + BUS_HEALTH, verdict.health.number());
        self.put(at + BUS_CONFIRMS, verdict.confirms);
        self.put(at + BUS_CONFIRMED, verdict.confirmed);
        self.put(at + BUS_ERROR_FRAMES, verdict.error_frames);
        self.put(at + BUS_QUEUE_FULL, verdict.queue_full);
        self.put(at + BUS_TX_ERRORS, verdict.tx_errors);
        self.put(at + BUS_RX_ERRORS, verdict.rx_errors);
        self.put(at + BUS_DISBELIEVED, verdict.disbelieved);
        self.put(at + BUS_DISBELIEVED_AT, verdict.disbelieved_at.0);
        self.put(at + BUS_STATE, verdict.up);
    }

    /// Publishes the supervisor's own beat: number and moment of the last loop.
    pub fn beat(&self, number: u64, at: Nanos) {
        self.put(AT_LOOP, number);
        self.put(AT_LOOP_TIME, at.0);
    }

    /// Publishes the phase.
    pub fn phase(&self, phase: Phase) {
        self.put(AT_PHASE, phase.number());
    }

    /// Publishes what the system refused, as a sum of [`Degraded`] bits.
    pub fn degraded(&self, bits: u64) {
        self.put(AT_DEGRADED, bits);
    }

    /// Publishes the trip that keeps everything stopped until it is reset.
    pub fn latch(&self, trip: TripId) {
        let before = self.get(AT_LATCH);
        self.put(AT_LATCH, trip.0);
        if trip.0 != before {
            self.latches_changed();
        }
    }

    /// Publishes that the disk has the latches with that many changes ([`VerdictView::latch_changes`]).
    ///
    /// [`VerdictView::latch_changes`]: super::view::VerdictView::latch_changes
    pub fn latches_kept(&self, changes: u64) {
        self.put(AT_LATCHES_KEPT, changes);
    }

    /// Publishes when an operator last pressed stop; after the trip that this made, which readers then find.
    pub fn pressed(&self, at: Nanos) {
        self.put(AT_PRESSED, at.0);
    }

    /// Publishes which front is attached; process id 0: none.
    pub fn front(&self, generation: Generation, pid: u32) {
        self.put(AT_GENERATION, generation.0);
        self.put(AT_FRONT_PID, u64::from(pid));
    }

    /// Publishes the front's last accepted beat.
    pub fn front_beat(&self, at: Nanos) {
        self.put(AT_FRONT_BEAT, at.0);
    }

    /// Publishes a counter.
    pub fn counter(&self, counter: Counter, value: u64) {
        self.put(AT_COUNTERS + usize::try_from(counter.number()).unwrap_or(0), value);
    }

    /// Publishes how many beats were rejected for one reason.
    pub fn rejects(&self, reject: Reject, value: u64) {
        self.put(AT_REJECTS + reject as usize, value);
    }

    /// Publishes an event; the oldest one falls out.
    pub fn event(&mut self, event: &Event) {
        self.events += 1;
        if let Some(record) = self.segment.writable(self.layout.event(self.events), EVENT_WORDS) {
            record::write(record, self.events, event.to_words());
        }
        self.put(AT_EVENT_COUNT, self.events);
    }
}
