//! The supervisor's core: `supervisor/src/core`, function by function and under the same names.
//!
//! Left out is what no decision depends on: the content of frames, counters, moments. Time is counted in
//! ticks. A stage times out at its second tick, a running drive may be unheard for one tick; the real
//! numbers are larger, but nothing in the code tells the third repetition from the second.
//! `tests/conformance.rs` runs the real core with exactly these times.

use drivers::AfterStop;
use shm_proto::verdicts::{EventKind, Reason, ResetPolicy, SessionState};

use crate::drive::{Drive, STAGES};
use crate::shared::{Beats, Owner, SLOTS, Session, Word};
use crate::wire::{Heard, Sent};

/// A trip's number; 0 is no trip.
pub type TripId = u8;
/// No trip.
pub const NO_TRIP: TripId = 0;

/// A trip as an operator saw it, and how often its stop had been violated by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TripSeen {
    /// The trip.
    pub trip: TripId,
    /// How often its stop had been violated.
    pub violations: u8,
}

impl TripSeen {
    /// None was looked at.
    pub const NONE: Self = Self { trip: NO_TRIP, violations: 0 };
}

/// Ticks after which a stage has timed out.
pub const STAGE_TIMEOUT: u8 = 2;
/// How often a stop begins again because the bus came back.
pub const MOST_RESTARTS: u8 = 3;
/// Ticks after which a drive has been silent for too long.
const FEEDBACK_WINDOW: u8 = 2;

/// `core::motor::State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nobody's; may be granted.
    Idle,
    /// Follows a session.
    Granted {
        /// Which one.
        owner: Owner,
        /// Whether its drive has been seen running.
        run: Run,
    },
    /// In a stage of its stop programme.
    Stopping {
        /// Which stage.
        stage: u8,
        /// For how many ticks.
        since: u8,
    },
    /// Proven to stand still.
    Stopped {
        /// The stage that was proven.
        stage: u8,
    },
    /// Every stage timed out.
    Unverified,
}

/// `core::motor::Run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    /// Not yet, and no motion frame was heard.
    NotSeen,
    /// Not yet, but it is commanded.
    Commanded {
        /// Ticks since the first motion frame, or since the drive was heard after it.
        unheard: u8,
    },
    /// It has.
    Seen {
        /// Ticks since the drive was heard.
        unheard: u8,
    },
}

/// `core::motor::Latch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Latch {
    /// May be granted.
    Open,
    /// Not before a reset.
    Held,
}

/// `Motor::first_stop`: whether any frame of the stop in force has been handed over to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// All were refused so far, or none was sent.
    Refused,
    /// Yes.
    HandedOver,
}

/// `core::motor::Occasion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// A trip, or the start.
    Trip,
    /// A session ended at proven rest.
    EndAtRest,
}

/// `core::rest::Rest`: what the last reports of a granted drive prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rest {
    /// Nothing.
    Unknown,
    /// That it stands still, and has no fault.
    Proven {
        /// Ticks since the report.
        unheard: u8,
    },
}

impl Rest {
    /// A tick later.
    const fn aged(self) -> Self {
        match self {
            Self::Proven { unheard } if unheard + 1 < FEEDBACK_WINDOW => {
                Self::Proven { unheard: unheard + 1 }
            }
            Self::Proven { .. } | Self::Unknown => Self::Unknown,
        }
    }
}

/// `core::rest::Movement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Movement {
    /// None, and no motion frame.
    None,
    /// Motion frames were heard.
    Commanded,
    /// Movement came before any motion frame.
    Unexplained,
}

/// `core::motor::Motor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Motor {
    /// What it is doing.
    pub state: State,
    /// Whether a reset is needed.
    pub latch: Latch,
    /// The trip that stopped it last.
    pub trip: TripId,
    /// How often the stop of that trip was violated.
    pub violations: u8,
    /// Why.
    pub reason: Reason,
    /// Whether the stop got out.
    pub stop: Stop,
    /// What the stop is made for.
    pub occasion: Occasion,
    /// How often it has begun again because the bus came back.
    pub restarts: u8,
    /// Of a motor at rest: ticks since its drive was heard.
    pub unheard: u8,
    /// Of a granted motor.
    pub rest: Rest,
    /// Of a granted motor.
    pub movement: Movement,
}

impl Motor {
    /// `Motor::belong_to`.
    fn belong_to(&mut self, trip: TripId) {
        if self.trip != trip && self.latch == Latch::Open {
            self.violations = 0;
        }
        self.trip = trip;
    }

    /// `Motor::owner`.
    #[must_use]
    pub const fn owner(&self) -> Option<Owner> {
        match self.state {
            State::Granted { owner, .. } => Some(owner),
            _ => None,
        }
    }

    /// `Motor::is_at_rest`.
    #[must_use]
    pub const fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Idle | State::Stopped { .. })
    }

    /// `Motor::is_heard`.
    #[must_use]
    pub const fn is_heard(&self) -> bool {
        self.unheard < FEEDBACK_WINDOW
    }

    /// A tick later.
    fn age(&mut self) {
        self.rest = self.rest.aged();
        if self.is_at_rest() {
            self.unheard = FEEDBACK_WINDOW.min(self.unheard + 1);
        }
    }

    /// `Motor::may_be_granted`.
    #[must_use]
    pub fn may_be_granted(&self) -> bool {
        self.latch == Latch::Open && self.is_at_rest() && self.is_heard()
    }

    /// `Motor::stage_in_force`.
    #[must_use]
    pub const fn stage_in_force(&self) -> u8 {
        match self.state {
            State::Stopping { stage, .. } | State::Stopped { stage } => stage,
            State::Unverified => STAGES - 1,
            State::Idle | State::Granted { .. } => 0,
        }
    }
}

/// An event about motors or sessions, as `lanyard events` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// The trip it belongs to.
    pub trip: TripId,
    /// Why.
    pub reason: Option<Reason>,
}

/// What is configured.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How trips are cleared.
    pub policy: ResetPolicy,
    /// What becomes of the torque at standstill.
    pub after: AfterStop,
}

/// `core::Held`: what became of the motor that an operator's stop holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// Nothing was reset since.
    All,
    /// Another trip was reset meanwhile.
    Some,
}

/// For how long the loop did not come round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pause {
    /// Not longer than `max_lateness`.
    Short,
    /// Longer, and not as long as feedback is believed.
    Late,
    /// Longer than that, too.
    Long,
}

/// `core::health::Reach`: what a stop can expect of the bus, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bus {
    /// Frames get through.
    Well,
    /// They may.
    Doubtful,
    /// None does.
    Gone,
}

/// `core::Core`, with one motor on one bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    /// Whether a front is attached.
    pub front: bool,
    /// Whether the front's own silence has a deadline.
    pub front_watched: bool,
    /// The slots.
    pub sessions: [Session; SLOTS as usize],
    /// The motor.
    pub motor: Motor,
    /// What is known of the bus.
    pub bus: Bus,
    /// The trip that holds everything, if any.
    pub latch: TripId,
    /// What became of the motor that it holds.
    pub held: Held,
    /// The last trip's number.
    pub trips: TripId,
    /// A stage whose frames are decided on and not handed over yet: between the two the front may run.
    pub outbox: Option<u8>,
}

/// What one step did besides changing the core: for comparison with the real one.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Events, oldest first.
    pub events: Vec<Event>,
}

impl Log {
    fn note(&mut self, kind: EventKind, trip: TripId, reason: Option<Reason>) {
        self.events.push(Event { kind, trip, reason });
    }
}

/// The core within one step: what it may look at, and what it writes down.
pub struct Step<'a> {
    /// The core.
    pub core: &'a mut Core,
    /// The configuration.
    pub settings: Settings,
    /// The front's segment.
    pub beats: &'a Beats,
    /// For how long the pass before lies back.
    pub pause: Pause,
    /// What happened.
    pub log: &'a mut Log,
}

/// `trips::interrupts_nothing`.
fn interrupts_nothing(reason: Reason) -> bool {
    matches!(reason, Reason::Expired | Reason::Overdue | Reason::ClosedByClient | Reason::ClientLost)
}

/// Whether a slot's deadline has passed without a newer beat.
pub type Due = [bool; SLOTS as usize];
/// Every session has beaten in time.
pub const NONE_DUE: Due = [false; SLOTS as usize];

/// How the supervisor before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Before {
    /// There was none.
    None,
    /// It died while a session drove the motor.
    DiedDriving,
    /// It died, or ended, with this trip open.
    LeftOpen(Reason),
}

/// `inheritance::inherit` and `Core::inherit`: what holds the motor before anything has happened.
#[must_use]
pub fn inherit(before: Before, settings: Settings) -> (Motor, TripId, TripId) {
    let started = Core::started().motor;
    let policy = if settings.policy == ResetPolicy::Manual { Latch::Held } else { Latch::Open };
    match before {
        Before::None => (started, NO_TRIP, NO_TRIP),
        Before::DiedDriving => {
            (Motor { trip: 1, reason: Reason::SupervisorDied, latch: policy, ..started }, NO_TRIP, 1)
        }
        Before::LeftOpen(Reason::OperatorStop) => {
            (Motor { trip: 1, reason: Reason::OperatorStop, latch: Latch::Held, ..started }, 1, 1)
        }
        Before::LeftOpen(reason) => (Motor { trip: 1, reason, latch: policy, ..started }, NO_TRIP, 1),
    }
}

impl Core {
    /// After `Core::inherit` and `Core::start`, with a front attached.
    #[must_use]
    pub fn started_after(before: Before, settings: Settings) -> Self {
        let (motor, latch, trips) = inherit(before, settings);
        Self { motor, latch, trips, ..Self::started() }
    }

    /// After `Core::start`, with a front attached.
    #[must_use]
    pub const fn started() -> Self {
        Self {
            front: true,
            front_watched: true,
            sessions: [Session::VACANT; SLOTS as usize],
            motor: Motor {
                state: State::Stopping { stage: 0, since: 0 },
                latch: Latch::Open,
                trip: NO_TRIP,
                violations: 0,
                reason: Reason::Startup,
                stop: Stop::HandedOver,
                occasion: Occasion::Trip,
                restarts: 0,
                unheard: 0,
                rest: Rest::Unknown,
                movement: Movement::None,
            },
            bus: Bus::Well,
            latch: NO_TRIP,
            held: Held::All,
            trips: NO_TRIP,
            outbox: None,
        }
    }

    /// After the death of this one `inherit` and `Core::start` of the next, whose start has its frames decided on and not
    /// handed over. No front is attached yet.
    #[must_use]
    pub fn succeeded(&self, settings: Settings, log: &mut Log) -> Self {
        let died = self.trips + 1;
        let mut next = Self::started();
        (next.front, next.front_watched) = (false, false);
        (next.latch, next.trips) = (self.latch, self.trips);
        next.motor.stop = Stop::Refused;
        next.outbox = Some(0);
        let Some((trip, reason, latch, violations)) = self.left(settings, died) else { return next };
        let motor = &mut next.motor;
        (motor.trip, motor.reason, motor.latch, motor.violations) = (trip, reason, latch, violations);
        if trip == died {
            next.trips = died;
            log.note(EventKind::Trip, died, Some(reason));
        }
        next
    }

    /// `inheritance::fate` and `Heir::inherited`: what holds the motor, or stopped it last, when the next one starts.
    fn left(&self, settings: Settings, died: TripId) -> Option<(TripId, Reason, Latch, u8)> {
        let motor = &self.motor;
        let policy = match (self.latch, settings.policy) {
            (NO_TRIP, ResetPolicy::Neutral | ResetPolicy::Auto) => Latch::Open,
            _ => Latch::Held,
        };
        let driven = (died, Reason::SupervisorDied, policy, 0);
        match motor.state {
            _ if motor.latch == Latch::Held && motor.trip != NO_TRIP => {
                Some((motor.trip, motor.reason, Latch::Held, motor.violations))
            }
            _ if motor.latch == Latch::Held => Some(driven),
            State::Granted { .. } => Some(driven),
            State::Stopping { .. } | State::Stopped { .. } | State::Unverified if motor.trip != NO_TRIP => {
                let latch = if motor.reason == Reason::OperatorStop { Latch::Held } else { policy };
                Some((motor.trip, motor.reason, latch, motor.violations))
            }
            _ if self.latch != NO_TRIP => Some((self.latch, Reason::OperatorStop, Latch::Held, 0)),
            _ => None,
        }
    }

    /// So long did nothing run that nothing the drive has said is believed any more.
    pub fn forget_feedback(&mut self) {
        let motor = &mut self.motor;
        motor.rest = Rest::Unknown;
        if motor.is_at_rest() {
            motor.unheard = FEEDBACK_WINDOW;
        }
    }

    /// `Sessions::live`.
    #[must_use]
    pub fn live(&self, owner: Owner) -> bool {
        let session = &self.sessions[usize::from(owner.slot)];
        session.state == SessionState::Live && session.incarnation == owner.incarnation
    }

    /// `grants::may_drive`.
    fn may_drive(&self, owner: Owner) -> bool {
        self.live(owner) && self.front_watched
    }

    /// `Sessions::owner`.
    #[must_use]
    pub fn owner(&self, slot: u8) -> Option<Owner> {
        let session = self.sessions[usize::from(slot)];
        (session.state == SessionState::Live).then_some(Owner { slot, incarnation: session.incarnation })
    }

    /// The kernel has answered: what [`Core::outbox`] held is handed over or refused. A refused stage is
    /// sent again on the next tick, as every stage is.
    pub fn sent(&mut self, outcome: Sent) {
        if self.outbox.take().is_some() && outcome == Sent::Ok {
            self.motor.stop = Stop::HandedOver;
        }
        if outcome == Sent::Down {
            self.bus = Bus::Gone;
        }
    }
}

impl Step<'_> {
    /// `Core::step` on a tick. Every session that lives has beaten.
    pub fn tick(&mut self) {
        self.core.motor.age();
        match self.pause {
            Pause::Short => {}
            Pause::Late => self.trip_late(),
            Pause::Long => {
                self.core.forget_feedback();
                self.trip_late();
            }
        }
        self.look_for_changes();
        self.settle_grant();
        self.tend_motors();
    }

    /// `Core::expire`, between two ticks.
    pub fn expire(&mut self, due: Due) {
        for slot in 0..SLOTS {
            if !due[usize::from(slot)] || self.core.owner(slot).is_none() {
                continue;
            }
            if self.said_goodbye(slot) {
                self.trip_session(slot, Reason::ClosedByClient, SessionState::Closed, due);
            } else {
                self.trip_session(slot, Reason::Expired, SessionState::Tripped, due);
            }
        }
    }

    /// `Core::expire`, when the front itself has been silent for too long.
    pub fn front_silent(&mut self) {
        self.trip_front(Reason::FrontSilent);
        self.core.front_watched = false;
    }

    /// `Core::detach`.
    pub fn detach(&mut self, reason: Reason) {
        if self.core.front {
            self.trip_front(reason);
            self.core.front_watched = false;
            self.core.front = false;
        }
    }

    /// `Core::attach`.
    pub fn attach(&mut self) {
        self.detach(Reason::FrontDead);
        self.core.sessions = [Session::VACANT; SLOTS as usize];
        self.core.front = true;
        self.core.front_watched = true;
    }

    /// `Core::received`.
    pub fn received(&mut self, heard: Heard) {
        match heard {
            Heard::Motion if self.core.motor.owner().is_none() => self.guard(),
            Heard::Motion => self.commanded(),
            Heard::OtherMaster if self.core.motor.owner().is_none() => self.guard(),
            Heard::OtherMaster => {
                self.commanded();
                self.trip_owner_of(Reason::OtherMaster);
            }
            Heard::Forged => {}
            Heard::Report(drive) => self.observe(drive),
        }
    }

    /// `Motor::commanded`.
    fn commanded(&mut self) {
        let motor = &mut self.core.motor;
        motor.rest = Rest::Unknown;
        if motor.movement == Movement::None {
            motor.movement = Movement::Commanded;
        }
        if let State::Granted { run: run @ Run::NotSeen, .. } = &mut motor.state {
            *run = Run::Commanded { unheard: 0 };
        }
    }

    /// `Core::estop`.
    pub fn estop(&mut self) {
        let trip = self.next_trip();
        self.begin_trip(trip, Reason::OperatorStop);
        self.end_all_sessions();
        self.log.note(EventKind::Trip, trip, Some(Reason::OperatorStop));
        self.hold_everything(trip);
    }

    /// `Core::press`.
    pub fn press(&mut self) {
        if self.core.latch == NO_TRIP || self.core.held == Held::Some {
            self.estop();
            return;
        }
        let trip = self.next_trip();
        if self.core.motor.trip == self.core.latch {
            self.core.motor.belong_to(trip);
        }
        self.hold_everything(trip);
    }

    fn hold_everything(&mut self, trip: TripId) {
        (self.core.latch, self.core.held) = (trip, Held::All);
    }

    /// `Core::kernel_stop`, when a job was put off that the kernel had begun to send.
    pub fn overtaken(&mut self) {
        self.trip_late();
    }

    /// `trips::trip_late`.
    fn trip_late(&mut self) {
        if self.core.motor.owner().is_some() {
            self.trip_owner_of(Reason::SelfOverrun);
        }
    }

    /// `Core::reset`; says whether it was accepted.
    pub fn reset(&mut self, seen: TripSeen) -> bool {
        let TripSeen { trip, violations } = seen;
        let motor = &mut self.core.motor;
        let held = motor.trip == trip && motor.latch == Latch::Held;
        let is_latch = self.core.latch != NO_TRIP && self.core.latch == trip;
        if trip == NO_TRIP || !(is_latch || held) || (held && !(motor.is_at_rest() && motor.is_heard())) {
            return false;
        }
        if violations != if held { motor.violations } else { 0 } {
            return false;
        }
        if held {
            motor.latch = Latch::Open;
            motor.state = State::Idle;
            self.log.note(EventKind::Reset, trip, None);
        }
        self.core.held = Held::Some;
        if is_latch {
            self.core.latch = NO_TRIP;
        }
        true
    }

    /// `Core::bus_health`.
    pub fn bus(&mut self, bus: Bus) {
        let before = std::mem::replace(&mut self.core.bus, bus);
        if before == bus {
            return;
        }
        if bus != Bus::Well {
            self.trip_bus();
        }
        if before == Bus::Gone {
            self.restart_stop();
        }
    }

    /// `motor::restart_stop`.
    fn restart_stop(&mut self) {
        let motor = &mut self.core.motor;
        let is_under_way = matches!(motor.state, State::Stopping { .. } | State::Unverified);
        if is_under_way && motor.restarts < MOST_RESTARTS {
            motor.restarts += 1;
            self.enter_stage(0);
        }
    }

    /// `Core::look_for_changes`: sessions that opened or closed.
    fn look_for_changes(&mut self) {
        if !self.core.front {
            return;
        }
        for slot in 0..SLOTS {
            let ring = self.beats.rings[usize::from(slot)];
            let session = &mut self.core.sessions[usize::from(slot)];
            if ring.incarnation > session.incarnation {
                *session = Session { incarnation: ring.incarnation, state: SessionState::Live };
            }
            if self.core.owner(slot).is_some() && self.said_goodbye(slot) {
                self.trip_session(slot, Reason::ClosedByClient, SessionState::Closed, NONE_DUE);
            }
        }
        // The front's own ring: a front that beats again is watched again.
        self.core.front_watched |= self.beats.front_beats;
    }

    fn said_goodbye(&self, slot: u8) -> bool {
        self.beats.rings[usize::from(slot)].word == Word::Close
    }

    /// `grants::settle_grant`.
    fn settle_grant(&mut self) {
        if !self.core.front {
            return;
        }
        let held = self.core.motor.owner();
        let wished = self.beats.owner_word;
        if wished.is_some() && wished == held {
            return;
        }
        let alive = wished.filter(|owner| self.core.may_drive(*owner));
        match (held, alive) {
            (_, Some(owner)) => self.grant(owner),
            (Some(_), None) => self.stop_motor(Reason::Corrupt),
            (None, None) => {}
        }
    }

    /// `grants::grant`.
    fn grant(&mut self, owner: Owner) {
        let motor = &mut self.core.motor;
        let run = match motor.state {
            State::Granted { run, .. } => run,
            _ if motor.may_be_granted() => Run::NotSeen,
            _ => return,
        };
        if motor.owner().is_none() {
            (motor.rest, motor.movement) = (Rest::Unknown, Movement::None);
        }
        motor.state = State::Granted { owner, run };
        motor.unheard = 0;
    }

    /// `grants::hand_over_taken`.
    fn hand_over_taken(&mut self, loser: Owner, due: Due) {
        if self.core.motor.owner() != Some(loser) || !self.core.front {
            return;
        }
        let taker = self
            .beats
            .owner_word
            .filter(|owner| *owner != loser)
            .filter(|owner| self.core.may_drive(*owner))
            .filter(|owner| !due[usize::from(owner.slot)]);
        if let Some(taker) = taker {
            self.grant(taker);
        }
    }

    /// `trips::trip_session`.
    fn trip_session(&mut self, slot: u8, reason: Reason, end: SessionState, due: Due) {
        let Some(owner) = self.core.owner(slot) else { return };
        self.hand_over_taken(owner, due);
        let stopped = self.core.motor.owner() == Some(owner);
        if stopped && interrupts_nothing(reason) && self.rests_under_grant() {
            self.begin_stop(NO_TRIP, reason, Occasion::EndAtRest);
            self.core.sessions[usize::from(slot)].state = end;
            self.log.note(EventKind::EndedAtRest, NO_TRIP, Some(reason));
            return;
        }
        let trip = self.next_trip();
        if stopped {
            self.begin_trip(trip, reason);
        }
        self.core.sessions[usize::from(slot)].state = end;
        if stopped {
            self.log.note(EventKind::Trip, trip, Some(reason));
        }
    }

    /// `trips::is_at_rest_under`.
    fn rests_under_grant(&self) -> bool {
        let motor = &self.core.motor;
        motor.rest != Rest::Unknown
            && motor.movement != Movement::Unexplained
            && self.core.bus == Bus::Well
            && self.pause == Pause::Short
    }

    /// `trips::trip_owner_of`.
    fn trip_owner_of(&mut self, reason: Reason) {
        if let Some(owner) = self.core.motor.owner() {
            self.trip_session(owner.slot, reason, SessionState::Tripped, NONE_DUE);
        }
        self.stop_motor(reason);
    }

    /// `trips::stop_motor`.
    fn stop_motor(&mut self, reason: Reason) {
        if self.core.motor.owner().is_some() {
            let trip = self.next_trip();
            self.begin_trip(trip, reason);
            self.log.note(EventKind::Trip, trip, Some(reason));
        }
    }

    /// `trips::trip_front`.
    fn trip_front(&mut self, reason: Reason) {
        let trip = self.next_trip();
        let stopped = self.core.motor.owner().is_some();
        if stopped {
            self.begin_trip(trip, reason);
        }
        let ended = self.end_all_sessions();
        if stopped || ended {
            self.log.note(EventKind::Trip, trip, Some(reason));
        }
    }

    /// `trips::trip_bus`.
    fn trip_bus(&mut self) {
        if self.core.motor.owner().is_some() {
            self.trip_owner_of(Reason::BusFault);
        }
    }

    /// `trips::end_all_sessions`; says whether there were any.
    fn end_all_sessions(&mut self) -> bool {
        let mut ended = false;
        for session in &mut self.core.sessions {
            if session.state == SessionState::Live {
                session.state = SessionState::Tripped;
                ended = true;
            }
        }
        ended
    }

    fn next_trip(&mut self) -> TripId {
        self.core.trips += 1;
        self.core.trips
    }

    /// `motor::begin_stop`, for a trip.
    fn begin_trip(&mut self, trip: TripId, reason: Reason) {
        let latch = self.latched_by(reason);
        self.begin_stop(trip, reason, Occasion::Trip);
        self.core.motor.latch = latch;
    }

    /// `motor::begin_stop`.
    fn begin_stop(&mut self, trip: TripId, reason: Reason, occasion: Occasion) {
        let motor = &mut self.core.motor;
        motor.belong_to(trip);
        motor.reason = reason;
        motor.stop = Stop::Refused;
        motor.occasion = occasion;
        motor.restarts = 0;
        motor.unheard = 0;
        // Of no motor but a granted one.
        (motor.rest, motor.movement) = (Rest::Unknown, Movement::None);
        self.enter_stage(0);
    }

    /// `Motor::latched_by`.
    fn latched_by(&self, reason: Reason) -> Latch {
        let manual = self.settings.policy == ResetPolicy::Manual;
        match reason {
            Reason::OperatorStop => Latch::Held,
            Reason::Startup | Reason::Shutdown => self.core.motor.latch,
            _ if manual => Latch::Held,
            _ => self.core.motor.latch,
        }
    }

    /// `trips::trip_after_all`.
    fn trip_after_all(&mut self) {
        if self.core.motor.occasion == Occasion::EndAtRest {
            let trip = self.next_trip();
            let reason = self.core.motor.reason;
            self.core.motor.occasion = Occasion::Trip;
            self.core.motor.belong_to(trip);
            self.core.motor.latch = self.latched_by(reason);
            self.log.note(EventKind::Trip, trip, Some(reason));
        }
    }

    /// `motor::enter_stage`.
    fn enter_stage(&mut self, stage: u8) {
        self.core.motor.state = State::Stopping { stage, since: 0 };
        self.send_stage();
    }

    /// `motor::send_stage`.
    fn send_stage(&mut self) {
        let stage = if self.core.bus == Bus::Gone { 0 } else { self.core.motor.stage_in_force() };
        self.core.outbox = Some(stage);
    }

    /// `motor::tend_motors`.
    fn tend_motors(&mut self) {
        if self.core.bus != Bus::Well {
            self.trip_bus();
        }
        match self.core.motor.state {
            // Decided on within this very tick.
            State::Stopping { .. } if self.core.outbox.is_some() => {}
            State::Stopping { stage, since } => {
                let passed = match self.pause {
                    Pause::Short | Pause::Late => 1,
                    Pause::Long => STAGE_TIMEOUT,
                };
                if since + passed >= STAGE_TIMEOUT {
                    self.escalate(stage);
                } else {
                    self.core.motor.state = State::Stopping { stage, since: since + 1 };
                    self.send_stage();
                }
            }
            State::Unverified => self.send_stage(),
            State::Granted { run: Run::Commanded { unheard } | Run::Seen { unheard }, .. }
                if unheard + 1 >= FEEDBACK_WINDOW =>
            {
                self.trip_owner_of(Reason::FeedbackLost);
            }
            State::Granted { owner, run } => {
                let run = match run {
                    Run::NotSeen => Run::NotSeen,
                    Run::Commanded { unheard } => Run::Commanded { unheard: unheard + 1 },
                    Run::Seen { unheard } => Run::Seen { unheard: unheard + 1 },
                };
                self.core.motor.state = State::Granted { owner, run };
            }
            State::Idle | State::Stopped { .. } => {}
        }
    }

    /// `motor::escalate`.
    fn escalate(&mut self, stage: u8) {
        self.trip_after_all();
        let last = stage + 1 >= STAGES;
        if last {
            self.core.motor.state = State::Unverified;
            self.send_stage();
        } else {
            self.enter_stage(stage + 1);
        }
        self.record_motor(if last { EventKind::Unverified } else { EventKind::Escalated });
    }

    /// `motor::observe`, for enough readings in a row to prove a stage.
    fn observe(&mut self, drive: Drive) {
        let motor = &mut self.core.motor;
        // `Rest::observe`
        motor.rest = match drive {
            Drive::Off | Drive::Holding if motor.owner().is_some() => Rest::Proven { unheard: 0 },
            _ => Rest::Unknown,
        };
        if motor.owner().is_some() && drive == Drive::Turning && motor.movement == Movement::None {
            motor.movement = Movement::Unexplained;
        }
        match motor.state {
            State::Stopping { .. } | State::Unverified if motor.stop == Stop::Refused => {}
            State::Stopping { .. } | State::Unverified => {
                let stage = motor.stage_in_force();
                if drive.proves(stage) {
                    self.proven(stage);
                }
            }
            State::Stopped { .. } | State::Idle => {
                motor.unheard = 0;
                if drive.violates(self.stage_at_rest()) {
                    self.stop_again();
                }
            }
            State::Granted { owner, run } => match (drive, run) {
                (Drive::Faulted, Run::Seen { .. }) => self.trip_owner_of(Reason::DriveFault),
                (Drive::Holding | Drive::Turning, _) | (Drive::Off, Run::Seen { .. }) => {
                    motor.state = State::Granted { owner, run: Run::Seen { unheard: 0 } };
                }
                (Drive::Off | Drive::Faulted, Run::Commanded { .. }) => {
                    motor.state = State::Granted { owner, run: Run::Commanded { unheard: 0 } };
                }
                (Drive::Off | Drive::Faulted, Run::NotSeen) => {}
            },
        }
    }

    /// `motor::proven`.
    fn proven(&mut self, stage: u8) {
        if self.settings.after == AfterStop::Release && stage == 0 {
            self.enter_stage(1);
            return;
        }
        let motor = &mut self.core.motor;
        motor.state = State::Stopped { stage };
        motor.unheard = 0;
        if motor.reason == Reason::Startup && motor.latch == Latch::Open {
            motor.state = State::Idle;
        }
        self.record_motor(EventKind::Standstill);
    }

    /// `motor::guard`.
    fn guard(&mut self) {
        if self.core.motor.is_at_rest() {
            self.stop_again();
        } else {
            self.trip_after_all();
            self.send_stage();
        }
    }

    /// `motor::stop_again`.
    fn stop_again(&mut self) {
        let trip = self.trip_of_violation();
        let violations = match self.core.motor.latch {
            Latch::Held => self.core.motor.violations.saturating_add(1),
            Latch::Open => 0,
        };
        self.begin_trip(trip, Reason::Violation);
        self.core.motor.violations = violations;
        self.record_motor(EventKind::Guarded);
    }

    /// `Motor::stage_at_rest`.
    fn stage_at_rest(&self) -> u8 {
        match (self.core.motor.state, self.settings.after) {
            (State::Stopped { stage }, _) => stage,
            (_, AfterStop::Release) => 1,
            (_, AfterStop::Hold) => 0,
        }
    }

    /// `motor::trip_of_violation`.
    fn trip_of_violation(&mut self) -> TripId {
        match self.core.motor.latch {
            Latch::Held => self.core.motor.trip,
            Latch::Open => self.next_trip(),
        }
    }

    fn record_motor(&mut self, kind: EventKind) {
        self.log.note(kind, self.core.motor.trip, Some(self.core.motor.reason));
    }
}
