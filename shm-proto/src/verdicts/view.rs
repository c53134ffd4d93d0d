//! Everybody else's side: loads only.

use std::io;
use std::os::fd::BorrowedFd;

use super::entries::{BusVerdict, MotorVerdict, PastEvidence, SessionVerdict};
use super::event::Event;
use super::places::{
    AT_BUSES, AT_CONFIG, AT_COUNTERS, AT_DEGRADED, AT_EVENT_COUNT, AT_FRONT_BEAT, AT_FRONT_PID,
    AT_GENERATION, AT_LATCH, AT_LATCH_CHANGES, AT_LATCHES_KEPT, AT_LAYOUT, AT_LOOP, AT_LOOP_TIME, AT_MAGIC,
    AT_MOTORS, AT_MOTORS_USED, AT_PHASE, AT_PID, AT_POLICY, AT_PREDECESSOR, AT_PREDECESSOR_SEEN, AT_PRESSED,
    AT_REJECTS, AT_SESSIONS, AT_STARTED, AT_WATCHDOG_RESET, BUS_CONFIRMED, BUS_CONFIRMS, BUS_DISBELIEVED,
    BUS_DISBELIEVED_AT, BUS_ERROR_FRAMES, BUS_ERRORS, BUS_HEALTH, BUS_LAST_ERROR, BUS_NAME, BUS_QUEUE_FULL,
    BUS_RECEIVED, BUS_RX_ERRORS, BUS_SENT, BUS_STATE, BUS_TX_ERRORS, EVENT_WORDS, EVENTS, MOST_BUSES,
    MOTOR_BUS, MOTOR_CONFIRMED, MOTOR_FAULT, MOTOR_FEEDBACK, MOTOR_FIRST_STOP, MOTOR_GRANT, MOTOR_GUARDED,
    MOTOR_LATCHED, MOTOR_MOVES, MOTOR_NAME, MOTOR_PAST_FEEDBACK, MOTOR_PAST_STANDSTILL, MOTOR_POSITION,
    MOTOR_POWER, MOTOR_REASON, MOTOR_STAGE, MOTOR_STANDSTILL, MOTOR_STATE, MOTOR_STOPS_SENT, MOTOR_TRIP,
    MOTOR_VELOCITY, MOTOR_VIOLATIONS, NAME_WORDS, NO_READING, SESSION_BEATS, SESSION_DEADLINE, SESSION_HIGH,
    SESSION_LAST_BEAT, SESSION_LOW, SESSION_STATE, SESSION_TRIP, SESSION_WINDOW, VerdictLayout,
};
use super::words::{
    BusHealth, Counter, Degraded, Keeping, MotorState, Phase, Predecessor, Reason, ResetPolicy, SessionState,
};
use crate::beat::Reject;
use crate::crc::Crc;
use crate::ids::{Generation, Incarnation, MotorIndex, Owner, SessionId, SlotIndex, TripId};
use crate::layout::{Capacity, MAGIC, layout_hash};
use crate::memory::{Access, Segment};
use crate::record;
use crate::sync::Ordering;
use crate::time::Nanos;

/// Everybody else's side: loads only.
#[derive(Debug)]
pub struct VerdictView {
    segment: Segment,
    layout: VerdictLayout,
}

impl VerdictView {
    /// Maps a segment that was handed over. The capacity comes with the hand-over and must agree with
    /// the segment's own header.
    ///
    /// # Errors
    ///
    /// When seals, size, magic word, layout or capacity do not fit.
    pub fn map(fd: BorrowedFd<'_>, capacity: Capacity) -> io::Result<Self> {
        crate::memory::check_sealed(fd)?;
        let layout = VerdictLayout { capacity };
        let segment = Segment::map(fd, layout.words(), Access::Read)?;
        let view = Self { segment, layout };
        let expected = [
            (AT_MAGIC, MAGIC),
            (AT_LAYOUT, layout_hash()),
            (AT_SESSIONS, u64::from(capacity.sessions())),
            (AT_MOTORS, u64::from(capacity.motors())),
        ];
        if expected.iter().any(|(place, value)| view.get(*place) != *value) {
            return Err(io::Error::other("the verdict segment has another layout than this program"));
        }
        Ok(view)
    }

    pub(super) fn get(&self, place: usize) -> u64 {
        self.segment.load(place, Ordering::Acquire)
    }

    fn get_name(&self, place: usize) -> String {
        let bytes: Vec<u8> = (0..NAME_WORDS)
            .flat_map(|offset| self.get(place + offset).to_le_bytes())
            .take_while(|byte| *byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many sessions and motors there is room for.
    #[must_use]
    pub const fn capacity(&self) -> Capacity {
        self.layout.capacity
    }

    /// Hash of the configuration the supervisor runs with.
    #[must_use]
    pub fn config_hash(&self) -> u64 {
        self.get(AT_CONFIG)
    }

    /// Number of configured motors.
    #[must_use]
    pub fn motor_count(&self) -> u16 {
        u16::try_from(self.get(AT_MOTORS_USED)).unwrap_or(0).min(self.layout.capacity.motors())
    }

    /// Number of configured buses.
    #[must_use]
    pub fn bus_count(&self) -> usize {
        usize::try_from(self.get(AT_BUSES)).unwrap_or(0).min(MOST_BUSES)
    }

    /// Name of a motor.
    #[must_use]
    pub fn motor_name(&self, motor: MotorIndex) -> String {
        if motor.0 >= self.motor_count() {
            return String::new();
        }
        self.get_name(self.layout.motor(motor) + MOTOR_NAME)
    }

    /// Name of a bus.
    #[must_use]
    pub fn bus_name(&self, bus: usize) -> String {
        if bus >= self.bus_count() {
            return String::new();
        }
        self.get_name(self.layout.bus(bus) + BUS_NAME)
    }

    /// Process id of the supervisor.
    #[must_use]
    pub fn pid(&self) -> u64 {
        self.get(AT_PID)
    }

    /// When the supervisor started.
    #[must_use]
    pub fn started(&self) -> Nanos {
        Nanos(self.get(AT_STARTED))
    }

    /// Number and moment of the supervisor's last loop: it lives while they change.
    #[must_use]
    pub fn beat(&self) -> (u64, Nanos) {
        (self.get(AT_LOOP), Nanos(self.get(AT_LOOP_TIME)))
    }

    /// The phase; `None` if unknown to this program.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        Phase::from_number(self.get(AT_PHASE))
    }

    /// What the system refused the supervisor.
    pub fn degraded(&self) -> impl Iterator<Item = Degraded> {
        let bits = self.get(AT_DEGRADED);
        Degraded::ALL.iter().copied().filter(move |flag| bits & flag.number() != 0)
    }

    /// The trip that keeps everything stopped until it is reset.
    #[must_use]
    pub fn latch(&self) -> TripId {
        TripId(self.get(AT_LATCH))
    }

    /// The trip that holds every motor, if an operator pressed stop at that moment or later.
    #[must_use]
    pub fn stopped_since(&self, moment: Nanos) -> Option<TripId> {
        // In this order: the writer publishes the trip first.
        let pressed = Nanos(self.get(AT_PRESSED));
        let latch = self.latch();
        (pressed >= moment && latch != TripId::NONE).then_some(latch)
    }

    /// How often a latch was set, given another number, or cleared. Whoever reads it first and the latches then has read
    /// every change up to it.
    #[must_use]
    pub fn latch_changes(&self) -> u64 {
        self.get(AT_LATCH_CHANGES)
    }

    /// Whether every latch that is published now is on disk.
    #[must_use]
    pub fn keeping(&self) -> Keeping {
        // In this order: what is kept never runs ahead of what has changed.
        let changes = self.latch_changes();
        if self.degraded().any(|flag| flag == Degraded::LatchesNotKept) {
            Keeping::Refused
        } else if self.get(AT_LATCHES_KEPT) >= changes {
            Keeping::OnDisk
        } else {
            Keeping::Pending
        }
    }

    /// Reset policy; `None` if unknown to this program.
    #[must_use]
    pub fn policy(&self) -> Option<ResetPolicy> {
        ResetPolicy::from_number(self.get(AT_POLICY))
    }

    /// Generation and process id of the attached front; process id 0: none.
    #[must_use]
    pub fn front(&self) -> (Generation, u64) {
        (Generation(self.get(AT_GENERATION)), self.get(AT_FRONT_PID))
    }

    /// The front's last accepted beat.
    #[must_use]
    pub fn front_beat(&self) -> Nanos {
        Nanos(self.get(AT_FRONT_BEAT))
    }

    /// A counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.get(AT_COUNTERS + usize::try_from(counter.number()).unwrap_or(0))
    }

    /// How many beats were rejected for one reason.
    #[must_use]
    pub fn rejects(&self, reject: Reject) -> u64 {
        self.get(AT_REJECTS + reject as usize)
    }

    /// The word in a motor's grant: compare it with one's own owner word.
    #[must_use]
    pub fn granted(&self, motor: MotorIndex) -> Option<Owner> {
        if !self.layout.capacity.has_motor(motor) {
            return None;
        }
        let place = self.layout.motor(motor) + MOTOR_GRANT;
        Owner::from_word(self.segment.load(place, Ordering::SeqCst))
    }

    /// Incarnation and state of the session in a slot, from one word.
    #[must_use]
    pub fn session_state(&self, slot: SlotIndex) -> (Incarnation, SessionState) {
        if !self.layout.capacity.has_slot(slot) {
            return (Incarnation::NONE, SessionState::Vacant);
        }
        let word = self.segment.load(self.layout.session(slot) + SESSION_STATE, Ordering::SeqCst);
        // A state this program does not know is no licence to move.
        let state = SessionState::from_number(word & 0xffff).unwrap_or(SessionState::Tripped);
        (Incarnation::new(word >> 16), state)
    }

    /// All about the session in a slot.
    #[must_use]
    pub fn session(&self, slot: SlotIndex) -> Option<SessionVerdict> {
        if !self.layout.capacity.has_slot(slot) {
            return None;
        }
        let at = self.layout.session(slot);
        let (incarnation, state) = self.session_state(slot);
        Some(SessionVerdict {
            session: SessionId(crate::beat::join_words(
                self.get(at + SESSION_HIGH),
                self.get(at + SESSION_LOW),
            )),
            incarnation,
            state,
            deadline: Nanos(self.get(at + SESSION_DEADLINE)),
            last_beat: Nanos(self.get(at + SESSION_LAST_BEAT)),
            trip: TripId(self.get(at + SESSION_TRIP)),
            beats: self.get(at + SESSION_BEATS),
            window: self.get(at + SESSION_WINDOW),
        })
    }

    /// All about a motor.
    #[must_use]
    pub fn motor(&self, motor: MotorIndex) -> Option<MotorVerdict> {
        if motor.0 >= self.motor_count() {
            return None;
        }
        let at = self.layout.motor(motor);
        Some(MotorVerdict {
            grant: self.granted(motor),
            // A state this program does not know is no proof of anything.
            state: MotorState::from_number(self.get(at + MOTOR_STATE)).unwrap_or(MotorState::Unverified),
            stage: self.get(at + MOTOR_STAGE),
            trip: TripId(self.get(at + MOTOR_TRIP)),
            reason: Reason::from_number(self.get(at + MOTOR_REASON)),
            first_stop: Nanos(self.get(at + MOTOR_FIRST_STOP)),
            confirmed: Nanos(self.get(at + MOTOR_CONFIRMED)),
            standstill: Nanos(self.get(at + MOTOR_STANDSTILL)),
            stops_sent: self.get(at + MOTOR_STOPS_SENT),
            velocity: u32::try_from(self.get(at + MOTOR_VELOCITY)).ok().map(f32::from_bits),
            position: Some(self.get(at + MOTOR_POSITION)).filter(|w| *w != NO_READING).map(f64::from_bits),
            power: self.get(at + MOTOR_POWER),
            fault: self.get(at + MOTOR_FAULT),
            feedback: Nanos(self.get(at + MOTOR_FEEDBACK)),
            guarded: self.get(at + MOTOR_GUARDED),
            bus: self.get(at + MOTOR_BUS),
            latched: self.get(at + MOTOR_LATCHED),
            violations: self.get(at + MOTOR_VIOLATIONS),
            moves: Nanos(self.get(at + MOTOR_MOVES)),
        })
    }

    /// What the supervisor before this one last knew of a motor; nothing of it is a proof.
    #[must_use]
    pub fn past_evidence(&self, motor: MotorIndex) -> Option<PastEvidence> {
        if motor.0 >= self.motor_count() {
            return None;
        }
        let at = self.layout.motor(motor);
        Some(PastEvidence {
            standstill: Nanos(self.get(at + MOTOR_PAST_STANDSTILL)),
            feedback: Nanos(self.get(at + MOTOR_PAST_FEEDBACK)),
        })
    }

    /// How the supervisor before this one ended, and when it was last seen alive.
    #[must_use]
    pub fn predecessor(&self) -> (Predecessor, Nanos) {
        let ending = Predecessor::from_number(self.get(AT_PREDECESSOR)).unwrap_or(Predecessor::Unreadable);
        (ending, Nanos(self.get(AT_PREDECESSOR_SEEN)))
    }

    /// Whether this machine was last reset by its hardware watchdog.
    #[must_use]
    pub fn watchdog_reset(&self) -> bool {
        self.get(AT_WATCHDOG_RESET) != 0
    }

    /// All about a bus.
    #[must_use]
    pub fn bus(&self, bus: usize) -> Option<BusVerdict> {
        if bus >= self.bus_count() {
            return None;
        }
        let at = self.layout.bus(bus);
        Some(BusVerdict {
            up: self.get(at + BUS_STATE),
            sent: self.get(at + BUS_SENT),
            errors: self.get(at + BUS_ERRORS),
            last_error: self.get(at + BUS_LAST_ERROR),
            received: self.get(at + BUS_RECEIVED),
            // A number this program does not know is no good news.
            health: BusHealth::from_number(self.get(at + BUS_HEALTH)).unwrap_or(BusHealth::Down),
            confirms: self.get(at + BUS_CONFIRMS),
            confirmed: self.get(at + BUS_CONFIRMED),
            error_frames: self.get(at + BUS_ERROR_FRAMES),
            queue_full: self.get(at + BUS_QUEUE_FULL),
            tx_errors: self.get(at + BUS_TX_ERRORS),
            rx_errors: self.get(at + BUS_RX_ERRORS),
            disbelieved: self.get(at + BUS_DISBELIEVED),
            disbelieved_at: Nanos(self.get(at + BUS_DISBELIEVED_AT)),
        })
    }

    /// A checksum over everything that is published. Only the writer's own thread finds one that means anything.
    #[must_use]
    pub fn digest(&self) -> u32 {
        (0..self.layout.words()).fold(Crc::START, |sum, place| sum.word(self.get(place))).finish()
    }

    /// How many events have happened since start.
    #[must_use]
    pub fn event_count(&self) -> u64 {
        self.get(AT_EVENT_COUNT)
    }

    /// The event with that number, from 1; `None` when it has fallen out or is being overwritten.
    #[must_use]
    pub fn event(&self, number: u64) -> Option<Event> {
        let count = self.event_count();
        if number == 0 || number > count || count - number >= EVENTS as u64 {
            return None;
        }
        let record = self.segment.readable(self.layout.event(number), EVENT_WORDS)?;
        Event::from_words(record::read_turn(record, number)?)
    }

    /// The events still kept, oldest first, each with its number.
    pub fn events(&self) -> impl Iterator<Item = (u64, Event)> {
        let count = self.event_count();
        let first = count.saturating_sub(EVENTS as u64 - 1).max(1);
        (first..=count).filter_map(|number| Some((number, self.event(number)?)))
    }
}
