//! The verdict segment: what the supervisor has decided, for everybody to read.
//!
//! The supervisor maps it read-write and seals it at once, so that everybody else can only map it
//! read-only. Words are published one by one; what belongs together and must not be mixed (an event)
//! is a seqlock record.

use core::sync::atomic::Ordering;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::beat::Reject;
use crate::ids::{Generation, Incarnation, MotorIndex, Owner, SessionId, SlotIndex, TripId};
use crate::layout::{Capacity, HEADER_WORDS, MAGIC, layout_hash};
use crate::memory::{Access, Segment};
use crate::record;
use crate::time::Nanos;

/// Words of one session's entry.
pub const SESSION_WORDS: usize = 8;
/// Words of one motor's entry.
pub const MOTOR_WORDS: usize = 24;
/// Words of one bus's entry.
pub const BUS_WORDS: usize = 16;
/// Words of one event, its sequence word included.
pub const EVENT_WORDS: usize = 16;
/// Events kept; the oldest is overwritten.
pub const EVENTS: usize = 256;
/// More CAN interfaces than any robot computer carries.
pub const MOST_BUSES: usize = 16;

macro_rules! numbered {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal, $text:literal;)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The number it has in shared memory.
            #[must_use]
            pub const fn number(self) -> u64 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The value with that number, if there is one.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// The name used in status, events and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

numbered! {
    /// What the supervisor is doing.
    Phase {
        /// Stopping every motor before anything may move.
        Starting = 1, "starting";
        /// Watching.
        Armed = 2, "armed";
        /// Told to exit: stopping every motor.
        Stopping = 3, "stopping";
        /// About to exit; every motor was told to stop.
        Ended = 4, "ended";
    }
}

numbered! {
    /// The verdict on a session.
    SessionState {
        /// Nobody is in the slot.
        Vacant = 0, "vacant";
        /// It beats in time.
        Live = 1, "live";
        /// It fell silent, or was ended; it never moves anything again.
        Tripped = 2, "tripped";
        /// Its client said goodbye.
        Closed = 3, "closed";
    }
}

numbered! {
    /// What a motor is doing, as far as the supervisor knows.
    MotorState {
        /// Nobody's; may be granted.
        Idle = 0, "idle";
        /// Granted to the session in the grant word.
        Granted = 1, "granted";
        /// Being stopped.
        Stopping = 2, "stopping";
        /// Proven to stand still.
        Stopped = 3, "stopped";
        /// Every stage was sent and timed out without proof; the last one is repeated.
        Unverified = 4, "unverified";
    }
}

numbered! {
    /// Why motors were stopped.
    Reason {
        /// The supervisor started and did not know what the motors were doing.
        Startup = 1, "startup";
        /// A session was silent for longer than its window.
        Expired = 2, "session expired";
        /// The client closed its session.
        Closed = 3, "session closed";
        /// The front process ended.
        FrontDead = 4, "front dead";
        /// The front process lives but does not beat.
        FrontSilent = 5, "front silent";
        /// The beats of a session or an owner word were not to be believed.
        Corrupt = 6, "corrupt beats";
        /// Somebody pressed stop: `lanyard estop`, or a client's StopAll.
        OperatorStop = 7, "operator stop";
        /// The supervisor's own loop was late.
        SelfOverrun = 8, "self overrun";
        /// The bus the motor hangs on does not work.
        BusFault = 9, "bus fault";
        /// The drive reported a fault.
        DriveFault = 10, "drive fault";
        /// The supervisor was told to exit.
        Shutdown = 11, "shutdown";
        /// A stopped motor moved or was energised again.
        Violation = 12, "stop violated";
        /// A running drive has said nothing for too long.
        FeedbackLost = 13, "feedback lost";
    }
}

numbered! {
    /// What an event tells.
    EventKind {
        /// The supervisor is armed.
        Armed = 1, "armed";
        /// A front was handed its segments.
        FrontAttached = 2, "front attached";
        /// Motors were stopped, or a session that owned none ended.
        Trip = 3, "trip";
        /// A motor was proven to stand still after a trip.
        Standstill = 4, "standstill";
        /// Every stage of a motor's stop timed out without proof.
        Unverified = 5, "unverified";
        /// A stage of a motor's stop timed out; the next one follows.
        Escalated = 6, "escalated";
        /// An operator reset a trip.
        Reset = 7, "reset";
        /// A bus stopped working.
        BusDown = 8, "bus down";
        /// A bus works again.
        BusUp = 9, "bus up";
        /// The bus guard answered a motion frame for a stopped motor.
        Guarded = 10, "guarded";
    }
}

numbered! {
    /// How trips are cleared.
    ResetPolicy {
        /// A new session may take a motor that stands still.
        Auto = 1, "auto";
        /// `lanyard reset TRIP_ID` must come first.
        Manual = 2, "manual";
    }
}

numbered! {
    /// What the system refused the supervisor; each weakens a guarantee. The number is a bit.
    Degraded {
        /// Not scheduled with SCHED_FIFO.
        Scheduling = 1, "not SCHED_FIFO";
        /// Not pinned to its CPU.
        Affinity = 2, "not pinned";
        /// Memory is not locked.
        Memory = 4, "memory not locked";
    }
}

numbered! {
    /// Whole-supervisor counters. The number is the place.
    Counter {
        /// Passes of the real-time loop.
        Loops = 0, "loops";
        /// Passes that came later than a whole tick.
        LateLoops = 1, "late-loops";
        /// Longest lateness of a pass, nanoseconds.
        WorstLatenessNanos = 2, "worst-lateness-ns";
        /// Beats accepted.
        Beats = 3, "beats";
        /// Trips.
        Trips = 4, "trips";
        /// Stop frames handed to the kernel.
        StopFrames = 5, "stop-frames";
        /// Frames the kernel refused.
        SendErrors = 6, "send-errors";
        /// Motion frames answered by the bus guard.
        Guarded = 7, "guarded";
        /// Owner words that named no live session.
        BadOwners = 8, "bad-owners";
        /// Longest time from a deadline to the first stop frame, nanoseconds.
        WorstTripNanos = 9, "worst-trip-ns";
    }
}

// Places in the header.
const AT_MAGIC: usize = 0;
const AT_LAYOUT: usize = 1;
const AT_CONFIG: usize = 2;
const AT_SESSIONS: usize = 3;
const AT_MOTORS: usize = 4;
const AT_BUSES: usize = 5;
const AT_PID: usize = 6;
const AT_STARTED: usize = 7;
const AT_LOOP: usize = 8;
const AT_LOOP_TIME: usize = 9;
const AT_PHASE: usize = 10;
const AT_DEGRADED: usize = 11;
const AT_LATCH: usize = 12;
const AT_POLICY: usize = 13;
const AT_GENERATION: usize = 14;
const AT_FRONT_PID: usize = 15;
const AT_FRONT_BEAT: usize = 16;
const AT_EVENT_COUNT: usize = 17;
const AT_MOTORS_USED: usize = 18;
const AT_COUNTERS: usize = 24;
const AT_REJECTS: usize = 48;

const NAME_WORDS: usize = 4;
/// Bytes a motor's or bus's name may have.
pub const NAME_BYTES: usize = NAME_WORDS * 8;

// Places in a session's entry.
const SESSION_HIGH: usize = 0;
const SESSION_LOW: usize = 1;
const SESSION_STATE: usize = 2;
const SESSION_DEADLINE: usize = 3;
const SESSION_LAST_BEAT: usize = 4;
const SESSION_TRIP: usize = 5;
const SESSION_BEATS: usize = 6;
const SESSION_WINDOW: usize = 7;

// Places in a motor's entry.
const MOTOR_GRANT: usize = 0;
const MOTOR_STATE: usize = 1;
const MOTOR_STAGE: usize = 2;
const MOTOR_TRIP: usize = 3;
const MOTOR_REASON: usize = 4;
const MOTOR_FIRST_STOP: usize = 5;
const MOTOR_STANDSTILL: usize = 6;
const MOTOR_STOPS_SENT: usize = 7;
const MOTOR_VELOCITY: usize = 8;
const MOTOR_POSITION: usize = 9;
const MOTOR_POWER: usize = 10;
const MOTOR_FAULT: usize = 11;
const MOTOR_FEEDBACK: usize = 12;
const MOTOR_GUARDED: usize = 13;
const MOTOR_BUS: usize = 14;
const MOTOR_LATCHED: usize = 15;
const MOTOR_NAME: usize = 16;
/// A velocity or position that nobody has measured yet. No speed has it, and only one odd NaN does.
const NO_READING: u64 = u64::MAX;

// Places in a bus's entry.
const BUS_STATE: usize = 0;
const BUS_SENT: usize = 1;
const BUS_ERRORS: usize = 2;
const BUS_LAST_ERROR: usize = 3;
const BUS_RECEIVED: usize = 4;
const BUS_NAME: usize = 8;

/// Words that the sequence word of an event guards.
const EVENT_BODY: usize = EVENT_WORDS - 1;
/// Words of a motor set within an event: one bit per motor.
const SET_WORDS: usize = 4;

/// A set of motors, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MotorSet([u64; SET_WORDS]);

impl MotorSet {
    /// Adds a motor.
    pub fn insert(&mut self, motor: MotorIndex) {
        if let Some(word) = self.0.get_mut(usize::from(motor.0) / 64) {
            *word |= 1 << (motor.0 % 64);
        }
    }

    /// Whether the motor is in the set.
    #[must_use]
    pub fn contains(&self, motor: MotorIndex) -> bool {
        self.0.get(usize::from(motor.0) / 64).is_some_and(|word| word >> (motor.0 % 64) & 1 == 1)
    }

    /// The motors of the set in order.
    pub fn iter(self) -> impl Iterator<Item = MotorIndex> {
        (0..Capacity::MOST_MOTORS).map(MotorIndex).filter(move |motor| self.contains(*motor))
    }

    /// Whether no motor is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; SET_WORDS]
    }
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// When.
    pub at: Nanos,
    /// The trip it belongs to; [`TripId::NONE`] if none.
    pub trip: TripId,
    /// Why, for trips.
    pub reason: Option<Reason>,
    /// The session it is about; 0 if none.
    pub session: SessionId,
    /// Its slot.
    pub slot: SlotIndex,
    /// Its last accepted beat; of a trip of everything, the last of any session.
    pub last_beat: Nanos,
    /// The moment from which the motors should have been stopped: the deadline that passed, or when the
    /// supervisor was told.
    pub deadline: Nanos,
    /// When the first stop frame was handed to the kernel.
    pub first_stop: Nanos,
    /// When the last motor's first stop frame was handed to the kernel.
    pub all_stopped: Nanos,
    /// The motors it is about.
    pub motors: MotorSet,
}

impl Event {
    /// An event of that kind and moment about nothing in particular.
    #[must_use]
    pub fn new(kind: EventKind, at: Nanos) -> Self {
        Self {
            kind,
            at,
            trip: TripId::NONE,
            reason: None,
            session: SessionId::default(),
            slot: SlotIndex::default(),
            last_beat: Nanos::ZERO,
            deadline: Nanos::ZERO,
            first_stop: Nanos::ZERO,
            all_stopped: Nanos::ZERO,
            motors: MotorSet::default(),
        }
    }

    fn to_words(self) -> [u64; EVENT_BODY] {
        let reason = self.reason.map_or(0, Reason::number);
        let [a, b, c, d] = self.motors.0;
        [
            self.kind.number() | reason << 16 | u64::from(self.slot.0) << 32,
            self.at.0,
            self.trip.0,
            crate::beat::high_word(self.session.0),
            crate::beat::low_word(self.session.0),
            self.last_beat.0,
            self.deadline.0,
            self.first_stop.0,
            self.all_stopped.0,
            a,
            b,
            c,
            d,
            0,
            0,
        ]
    }

    fn from_words(words: [u64; EVENT_BODY]) -> Option<Self> {
        let [what, at, trip, high, low, last_beat, deadline, first_stop, all_stopped, a, b, c, d, _, _] =
            words;
        #[expect(clippy::cast_possible_truncation, reason = "16 bits are left")]
        let slot = SlotIndex((what >> 32) as u16);
        Some(Self {
            kind: EventKind::from_number(what & 0xffff)?,
            at: Nanos(at),
            trip: TripId(trip),
            reason: Reason::from_number(what >> 16 & 0xffff),
            session: SessionId(crate::beat::join_words(high, low)),
            slot,
            last_beat: Nanos(last_beat),
            deadline: Nanos(deadline),
            first_stop: Nanos(first_stop),
            all_stopped: Nanos(all_stopped),
            motors: MotorSet([a, b, c, d]),
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct VerdictLayout {
    capacity: Capacity,
}

impl VerdictLayout {
    const fn session(self, slot: SlotIndex) -> usize {
        HEADER_WORDS + slot.0 as usize * SESSION_WORDS
    }

    const fn motor(self, motor: MotorIndex) -> usize {
        self.session(SlotIndex(self.capacity.sessions())) + motor.0 as usize * MOTOR_WORDS
    }

    const fn bus(self, bus: usize) -> usize {
        self.motor(MotorIndex(self.capacity.motors())) + bus * BUS_WORDS
    }

    const fn event(self, number: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "below EVENTS")]
        let index = (number % EVENTS as u64) as usize;
        self.bus(MOST_BUSES) + index * EVENT_WORDS
    }

    const fn words(self) -> usize {
        self.bus(MOST_BUSES) + EVENTS * EVENT_WORDS
    }
}

/// What is published about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionVerdict {
    /// The session.
    pub session: SessionId,
    /// Which session of the slot.
    pub incarnation: Incarnation,
    /// The verdict.
    pub state: SessionState,
    /// When it will count as silent.
    pub deadline: Nanos,
    /// Its last accepted beat.
    pub last_beat: Nanos,
    /// The trip that ended it.
    pub trip: TripId,
    /// Beats accepted.
    pub beats: u64,
    /// Its window, nanoseconds.
    pub window: u64,
}

/// What is published about a motor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MotorVerdict {
    /// Whose it is.
    pub grant: Option<Owner>,
    /// What it is doing.
    pub state: MotorState,
    /// Index of the stop stage it is in or ended in.
    pub stage: u64,
    /// The trip that stopped it last.
    pub trip: TripId,
    /// Why it was stopped last.
    pub reason: Option<Reason>,
    /// When the first stop frame of that trip was handed to the kernel.
    pub first_stop: Nanos,
    /// When standstill was proven after that trip; zero while it is not.
    pub standstill: Nanos,
    /// Stop frames sent since the supervisor started.
    pub stops_sent: u64,
    /// Measured speed, revolutions per second; `None` before the first reading.
    pub velocity: Option<f32>,
    /// Measured position, revolutions; `None` before the first reading.
    pub position: Option<f64>,
    /// The drive's word on its power stage, as [`MotorVerdict::POWER_NAMES`] numbers it; 0 unknown.
    pub power: u64,
    /// The drive's fault code; 0 none.
    pub fault: u64,
    /// When the drive was heard last.
    pub feedback: Nanos,
    /// Motion frames answered by the bus guard.
    pub guarded: u64,
    /// Index of its bus.
    pub bus: u64,
    /// 1 when an operator must clear [`MotorVerdict::trip`] before the motor may be granted again.
    pub latched: u64,
}

impl MotorVerdict {
    /// Names of the power numbers.
    pub const POWER_NAMES: [&'static str; 6] = ["unknown", "off", "transition", "on", "quick stop", "fault"];
}

/// Whether a bus works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusVerdict {
    /// 1 works, 0 does not.
    pub up: u64,
    /// Frames handed to the kernel.
    pub sent: u64,
    /// Frames the kernel refused.
    pub errors: u64,
    /// The last error number, 0 if none.
    pub last_error: u64,
    /// Frames received.
    pub received: u64,
}

/// The supervisor's side: it alone can write.
#[derive(Debug)]
pub struct VerdictSegment {
    segment: Segment,
    layout: VerdictLayout,
    events: u64,
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

    fn put(&self, place: usize, value: u64) {
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

    /// Publishes all of a motor but its grant.
    pub fn motor(&self, motor: MotorIndex, verdict: &MotorVerdict) {
        if !self.layout.capacity.has_motor(motor) {
            return;
        }
        let at = self.layout.motor(motor);
        self.put(at + MOTOR_STAGE, verdict.stage);
        self.put(at + MOTOR_TRIP, verdict.trip.0);
        self.put(at + MOTOR_REASON, verdict.reason.map_or(0, Reason::number));
        self.put(at + MOTOR_FIRST_STOP, verdict.first_stop.0);
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
        self.put(at + MOTOR_STATE, verdict.state.number());
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
        self.put(AT_LATCH, trip.0);
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
        record::write(&self.segment, self.layout.event(self.events), self.events, event.to_words());
        self.put(AT_EVENT_COUNT, self.events);
    }
}

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

    fn get(&self, place: usize) -> u64 {
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
        })
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
        })
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
        Event::from_words(record::read_turn(&self.segment, self.layout.event(number), number)?)
    }

    /// The events still kept, oldest first, each with its number.
    pub fn events(&self) -> impl Iterator<Item = (u64, Event)> {
        let count = self.event_count();
        let first = count.saturating_sub(EVENTS as u64 - 1).max(1);
        (first..=count).filter_map(|number| Some((number, self.event(number)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: SlotIndex = SlotIndex(0);
    const MOTOR: MotorIndex = MotorIndex(0);

    fn capacity() -> Capacity {
        Capacity::new(2, 2).expect("capacity")
    }

    fn rig() -> (VerdictSegment, OwnedFd, VerdictView) {
        let identity = Identity { config_hash: 0, pid: 0, started: Nanos(1), policy: ResetPolicy::Auto };
        let names = ["a", "b"];
        let (segment, fd) = VerdictSegment::create(capacity(), &identity, &names, &names).expect("segment");
        let view = VerdictView::map(fd.as_fd(), capacity()).expect("view");
        (segment, fd, view)
    }

    #[test]
    fn no_two_places_overlap() {
        let most = Capacity::new(Capacity::MOST_SESSIONS, Capacity::MOST_MOTORS).expect("capacity");
        let least = Capacity::new(1, 1).expect("capacity");
        for capacity in [least, capacity(), Capacity::DEFAULT, most] {
            let layout = VerdictLayout { capacity };
            let mut taken = vec![false; layout.words()];
            let mut take = |what: &str, from: usize, words: usize| {
                let places = &mut taken[from..from + words];
                assert!(!places.contains(&true), "{what} overlaps at word {from} of {capacity:?}");
                places.fill(true);
            };
            take("header", 0, HEADER_WORDS);
            capacity.slots().for_each(|slot| take("session", layout.session(slot), SESSION_WORDS));
            for motor in (0..capacity.motors()).map(MotorIndex) {
                take("motor", layout.motor(motor), MOTOR_WORDS);
            }
            (0..MOST_BUSES).for_each(|bus| take("bus", layout.bus(bus), BUS_WORDS));
            (1..=EVENTS as u64).for_each(|number| take("event", layout.event(number), EVENT_WORDS));
            assert!(taken.iter().all(|taken| *taken), "no word is left over in {capacity:?}");
        }
    }

    #[test]
    fn no_two_words_of_the_header_or_an_entry_overlap() {
        let header = [
            AT_MAGIC,
            AT_LAYOUT,
            AT_CONFIG,
            AT_SESSIONS,
            AT_MOTORS,
            AT_BUSES,
            AT_PID,
            AT_STARTED,
            AT_LOOP,
            AT_LOOP_TIME,
            AT_PHASE,
            AT_DEGRADED,
            AT_LATCH,
            AT_POLICY,
            AT_GENERATION,
            AT_FRONT_PID,
            AT_FRONT_BEAT,
            AT_EVENT_COUNT,
            AT_MOTORS_USED,
        ];
        let counters = Counter::ALL.iter().map(|counter| AT_COUNTERS + *counter as usize);
        let rejects = Reject::ALL.iter().map(|reject| AT_REJECTS + *reject as usize);
        let mut taken = [false; HEADER_WORDS];
        for place in header.into_iter().chain(counters).chain(rejects) {
            assert!(!core::mem::replace(&mut taken[place], true), "word {place} is used twice");
        }
    }

    #[test]
    fn unknown_numbers_decode_to_the_safe_value() {
        let (segment, _fd, view) = rig();
        for unknown in [5, 99, 0xffff] {
            segment.put(segment.layout.session(SLOT) + SESSION_STATE, unknown | 7 << 16);
            assert_eq!(view.session_state(SLOT), (Incarnation::new(7), SessionState::Tripped));
            assert_eq!(view.session(SLOT).map(|session| session.state), Some(SessionState::Tripped));
        }
        for unknown in [5, 99, u64::MAX] {
            segment.put(segment.layout.motor(MOTOR) + MOTOR_STATE, unknown);
            segment.put(segment.layout.motor(MOTOR) + MOTOR_REASON, unknown | 1 << 20);
            let motor = view.motor(MOTOR).expect("motor");
            assert_eq!((motor.state, motor.reason), (MotorState::Unverified, None));
            segment.put(AT_PHASE, unknown);
            segment.put(AT_POLICY, unknown);
            assert_eq!((view.phase(), view.policy()), (None, None));
        }
    }

    #[test]
    fn another_header_is_refused() {
        for place in [AT_MAGIC, AT_LAYOUT, AT_SESSIONS, AT_MOTORS] {
            let (segment, fd, view) = rig();
            let right = view.get(place);
            segment.put(place, right ^ 1);
            let error = VerdictView::map(fd.as_fd(), capacity()).expect_err("another header");
            assert!(error.to_string().contains("another layout"), "word {place}: {error}");
            segment.put(place, right);
            VerdictView::map(fd.as_fd(), capacity()).expect("the right header");
        }
    }

    #[test]
    fn counts_beyond_the_capacity_are_not_believed() {
        let (segment, _fd, view) = rig();
        for count in [3, 1 << 16, u64::MAX] {
            segment.put(AT_MOTORS_USED, count);
            segment.put(AT_BUSES, count | 1 << 20);
            assert!(view.motor_count() <= 2 && view.bus_count() <= MOST_BUSES);
            assert_eq!((view.motor(MotorIndex(2)), view.bus(MOST_BUSES)), (None, None));
        }
        segment.put(AT_EVENT_COUNT, u64::MAX);
        assert_eq!((view.event(u64::MAX), view.events().count()), (None, 0));
    }

    #[test]
    fn an_overtaken_event_is_not_taken_for_its_successor() {
        let (mut segment, _fd, view) = rig();
        let event = |number| Event { trip: TripId(number), ..Event::new(EventKind::Trip, Nanos(number)) };
        let all = EVENTS as u64;
        (1..=all).for_each(|number| segment.event(&event(number)));
        assert_eq!(view.event(1).map(|event| event.trip), Some(TripId(1)));
        // The next event lies in the place of the first, and its writer has not counted it yet.
        let count = view.event_count();
        segment.event(&event(all + 1));
        segment.put(AT_EVENT_COUNT, count);
        assert_eq!(view.event(1), None);
        assert_eq!(
            view.events().map(|(number, _)| number).collect::<Vec<_>>(),
            (2..=all).collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_event_being_written_is_none() {
        let (mut segment, _fd, view) = rig();
        segment.event(&Event::new(EventKind::Armed, Nanos(1)));
        let place = segment.layout.event(1);
        segment.put(place, view.get(place) - 1);
        assert_eq!((view.event(1), view.events().count()), (None, 0));
    }
}
