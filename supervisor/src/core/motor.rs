//! One motor: `Idle -> Granted -> Stopping(stage) -> Stopped | Unverified -> Idle`.

use drivers::meaning;
use drivers::{AfterStop, Drive, Frame, FrameList, Observation, Output, PollWhen, Power};
use shm_proto::verdicts::{Event, EventKind, MotorState, MotorVerdict, Reason, ResetPolicy};
use shm_proto::{Nanos, Owner, TripId, Window};

use super::arrival::Arrival;
use super::evidence::Evidence;
use super::foreign_stops::ForeignStops;
use super::health::Reach;
use super::heard::Heard;
use super::origin::Origin;
use super::plausibility::{Plausibility, SpeedLimits};
use super::rest::Rest;
use super::unpowered::{Turning, Unpowered};
use super::wire::Wire;
use super::{Core, FEEDBACK_WINDOW, motor_index};

/// What a motor is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    /// Nobody's; may be granted.
    Idle {
        /// The stage in which it was last proven to stand still.
        stage: usize,
    },
    /// Follows a session.
    Granted {
        /// Which one.
        owner: Owner,
        /// Whether its drive has been seen running under this grant.
        run: Run,
    },
    /// In a stage of its stop programme.
    Stopping {
        /// Which stage.
        stage: usize,
        /// When the stage began.
        since: Nanos,
        /// When its frames are sent again.
        again: Nanos,
    },
    /// Proven to stand still.
    Stopped {
        /// The stage that was proven.
        stage: usize,
    },
    /// Every stage timed out; the last one is repeated until proof.
    Unverified {
        /// When its frames are sent again.
        again: Nanos,
    },
}

/// Whether a granted drive has been seen producing torque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Not yet, and no motion frame was heard: a fault is what the front's enabling has to deal with.
    NotSeen,
    /// Not yet, but it is being commanded: a fault is still the enabling's, silence is a reason to stop.
    Commanded {
        /// When the first motion frame was heard.
        since: Nanos,
    },
    /// It has: from now on fault and silence are reasons to stop.
    Seen,
}

/// Whether an operator must clear the trip before the motor may be granted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latch {
    /// No.
    Open,
    /// Yes.
    Held,
}

/// Where those are that command a granted motor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Masters {
    /// On this computer: the front, and servers behind it.
    ThisComputer,
    /// Anywhere.
    Any,
}

/// Whether a drive that needs the supervisor's permission to run has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// It was granted, and its stop has not come to the stage that takes the torque away: a ramp needs torque.
    Given,
    /// Nobody drives it.
    Withheld,
}

/// What a stop is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// Something went wrong, or motion was interrupted, or may have been.
    Trip,
    /// A session ended while all of its motors were proven to be at rest. The stop only makes sure, and becomes a trip
    /// when it has to do more.
    EndAtRest,
}

/// Whether a drive hears its stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    /// As far as is known.
    Listens,
    /// Another master has told it not to, and it has not told its speed since.
    Deaf,
}

/// Whether a stop is told in the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Yes.
    Yes,
    /// Only counted: a commander that fights the stop must not push the evidence out of the log.
    No,
}

/// One motor with all that is known of it.
#[derive(Debug)]
pub struct Motor {
    /// The bus over which it is driven.
    bus: usize,
    /// Another bus on which its drive hears stops and says the same.
    second: Option<usize>,
    pub(super) drive: Drive,
    /// Whether the supervisor's heartbeat lets it run, in families where that says so.
    pub(super) permit: Permit,
    stage_timeout: u64,
    pub(super) state: State,
    pub(super) latch: Latch,
    pub(super) trip: TripId,
    /// How often the stop of that trip was violated, as [`MotorVerdict::violations`] counts it.
    pub(super) violations: u64,
    pub(super) reason: Option<Reason>,
    pub(super) first_stop: Nanos,
    pub(super) confirmed: Nanos,
    pub(super) standstill: Nanos,
    pub(super) occasion: Occasion,
    told: Told,
    violation_told: Nanos,
    /// How often the stop in force has begun again because a bus came back.
    pub(super) restarts: u8,
    evidence: Evidence,
    /// Of a granted motor: whether its session could end now and interrupt nothing.
    rest: Rest,
    /// Of a granted motor: whether it does what it is told.
    plausibility: Plausibility,
    /// Of a granted motor: what others have sent to stop it.
    pub(super) foreign_stops: ForeignStops,
    /// Of a motor that is nobody's: whether it turns with its power off.
    unpowered: Unpowered,
    masters: Masters,
    limits: SpeedLimits,
    /// How long at most the session that drives it may be silent.
    pub(super) max_window: Window,
    seen: Observation,
    heard: Heard,
    hearing: Hearing,
    next_poll: usize,
    stops_sent: u64,
    guarded: u64,
}

/// What a stop is told with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Why {
    /// The trip; none for a stop that is no trip.
    pub trip: TripId,
    pub reason: Reason,
    pub occasion: Occasion,
}

impl Why {
    /// A trip with that number.
    pub(super) const fn trip(trip: TripId, reason: Reason) -> Self {
        Self { trip, reason, occasion: Occasion::Trip }
    }

    /// A session has ended at rest.
    pub(super) const fn end_at_rest(reason: Reason) -> Self {
        Self { trip: TripId::NONE, reason, occasion: Occasion::EndAtRest }
    }
}

/// How often a granted or stopped drive that must be asked is asked, nanoseconds: a drive that answers one of four
/// questions at a time has answered all of them within a third of [`FEEDBACK_WINDOW`]. A stopping one is asked on every
/// tick that sends no stop frame.
const POLL_PERIOD: u64 = 40_000_000;

/// How often a stop begins again because a bus came back: a loose plug or a controller that leaves bus-off comes back a few
/// times within a second. A bus that goes on coming and going must not keep a drive from its harder stages.
pub(super) const MOST_RESTARTS: u8 = 3;

/// After how long without a word a drive is asked whose polls are not for every day: early enough for several
/// answers before its silence is a reason to stop, and later than a drive that is commanded answers.
const SILENCE: u64 = FEEDBACK_WINDOW / 2;

impl Motor {
    /// A motor that nothing is known of.
    #[must_use]
    pub fn new(
        bus: usize,
        drive: Drive,
        stage_timeout: u64,
        limits: SpeedLimits,
        max_window: Window,
    ) -> Self {
        Self {
            bus,
            second: None,
            drive,
            permit: Permit::Withheld,
            stage_timeout,
            state: State::Idle { stage: 0 },
            latch: Latch::Open,
            trip: TripId::NONE,
            violations: 0,
            reason: None,
            first_stop: Nanos::ZERO,
            confirmed: Nanos::ZERO,
            standstill: Nanos::ZERO,
            occasion: Occasion::Trip,
            told: Told::Yes,
            violation_told: Nanos::ZERO,
            restarts: 0,
            evidence: Evidence::NONE,
            rest: Rest::UNKNOWN,
            plausibility: Plausibility::NOTHING_TOLD,
            foreign_stops: ForeignStops::NONE,
            unpowered: Unpowered::NONE,
            masters: Masters::ThisComputer,
            limits,
            max_window,
            seen: Observation::default(),
            heard: Heard::NOTHING,
            hearing: Hearing::Listens,
            next_poll: 0,
            stops_sent: 0,
            guarded: 0,
        }
    }

    /// The same motor, which a second bus reaches, too: stops and signs of life go to both, feedback is taken
    /// from either.
    #[must_use]
    pub fn also_on(mut self, bus: usize) -> Self {
        self.second = Some(bus).filter(|second| *second != self.bus);
        self
    }

    /// The same motor, which others on the bus may command while it is granted.
    #[must_use]
    pub fn with_other_masters(mut self) -> Self {
        self.masters = Masters::Any;
        self
    }

    /// Whether a motion frame is one of another master, who drives it beside its session. The front sends over the first bus
    /// only; where both lead to one wire, its frames come in over the second as from there.
    fn is_of_another_master(&self, bus: usize, origin: Origin, frame: &Frame) -> bool {
        match (self.masters, origin) {
            (Masters::Any, _) | (_, Origin::Local | Origin::Job) => false,
            (Masters::ThisComputer, Origin::Wire) => {
                // Some drives answer on the identifiers of their commands, and permission to run is the supervisor's own word.
                let is_command = !matches!(
                    self.drive.hears(frame),
                    Some(meaning::Heard::Report | meaning::Heard::Heartbeat)
                );
                bus == self.bus && is_command
            }
        }
    }

    /// Whether its session's commands go out on that bus.
    pub(super) fn is_driven_over(&self, bus: usize) -> bool {
        self.bus == bus
    }

    /// Whether whatever commands it while it is granted is on this computer.
    pub(super) const fn has_its_masters_here(&self) -> bool {
        matches!(self.masters, Masters::ThisComputer)
    }

    /// Whether that bus reaches it.
    pub(super) fn is_on(&self, bus: usize) -> bool {
        self.bus == bus || self.second == Some(bus)
    }

    pub(super) fn family(&self) -> &'static str {
        self.drive.family
    }

    /// The frame that stops it and all others of its family.
    pub(super) fn broadcast(&self) -> Option<Frame> {
        self.drive.broadcast
    }

    /// Whether it was stopped by every means there is and is still not proven to stand still.
    pub(super) fn is_beyond_stages(&self) -> bool {
        matches!(self.state, State::Unverified { .. })
    }

    /// Whether it may not lose its torque at standstill.
    pub(super) fn is_to_hold(&self) -> bool {
        self.drive.stop.after == AfterStop::Hold
    }

    /// The buses that reach it, the one over which it is driven first.
    fn buses(&self) -> [Option<usize>; 2] {
        [Some(self.bus), self.second]
    }

    /// Whether one frame commands both.
    pub(super) fn shares_frame_with(&self, other: &Self) -> bool {
        let same = |one: drivers::Slot, other: drivers::Slot| one.id == other.id;
        self.bus == other.bus && self.drive.slot.zip(other.drive.slot).is_some_and(|(a, b)| same(a, b))
    }

    /// Whether its drive, if it needs permission, may run.
    pub(super) fn may_run(&self) -> bool {
        self.permit == Permit::Given
    }

    /// It is granted from now on. What is known of its motion stays known when it is taken over as it runs.
    pub(super) fn follow(&mut self, owner: Owner, run: Run) {
        if self.owner().is_none() {
            self.rest = Rest::UNKNOWN;
            self.plausibility = Plausibility::NOTHING_TOLD;
            self.foreign_stops.begin();
        }
        self.unpowered.end();
        self.state = State::Granted { owner, run };
        self.permit = Permit::Given;
    }

    /// It is nobody's from now on, and may be granted: what held it was cleared.
    pub(super) fn release(&mut self) {
        self.latch = Latch::Open;
        if let Some(stage) = self.proven_stage() {
            self.state = State::Idle { stage };
        }
    }

    /// Proven to stand still, or never moved since it was.
    pub(super) fn is_at_rest(&self) -> bool {
        self.proven_stage().is_some()
    }

    /// The stage in which a motor at rest was last proven to stand still.
    fn proven_stage(&self) -> Option<usize> {
        match self.state {
            State::Idle { stage } | State::Stopped { stage } => Some(stage),
            State::Granted { .. } | State::Stopping { .. } | State::Unverified { .. } => None,
        }
    }

    /// Since when everything that the proof of its standstill needs has been known: proof that is old proves nothing.
    fn known_since(&self) -> Nanos {
        let stage = self.proven_stage().unwrap_or(0);
        self.heard.all_of(&self.drive.stop.stage(stage).proof)
    }

    /// Whether what is known of its standstill is fresh.
    pub(super) fn is_heard(&self, now: Nanos) -> bool {
        now.since(self.known_since()) <= FEEDBACK_WINDOW
    }

    /// Granted, proven to stand still since the last motion frame that was heard, and nothing speaks against it.
    pub(super) fn rests_under_grant(&self, now: Nanos) -> bool {
        let in_order = match self.seen.power {
            Some(Power::Fault | Power::Transition) => false,
            Some(Power::Off | Power::On | Power::QuickStop) | None => true,
        };
        self.owner().is_some() && in_order && self.seen.fault.flatten().is_none() && self.rest.holds(now)
    }

    pub(super) fn longest_stop(&self) -> u64 {
        self.stage_timeout.saturating_mul(self.drive.stop.stages().len() as u64)
    }

    /// The session it is granted to.
    pub(super) fn owner(&self) -> Option<Owner> {
        match self.state {
            State::Granted { owner, .. } => Some(owner),
            _ => None,
        }
    }

    /// Whether a live session may take it. Silence since the proof may be a drive that has lost its power, or was set in
    /// motion by somebody else.
    pub(super) fn may_be_granted(&self, now: Nanos) -> bool {
        self.latch == Latch::Open && self.is_at_rest() && self.is_heard(now)
    }

    /// Whether a stop for that reason leaves the trip that stopped the motor before in force: to start and to end are
    /// no reasons of the motor's own, and what holds it must be found by the number it was told with.
    fn keeps_its_trip(&self, reason: Reason) -> bool {
        match reason {
            Reason::Startup => self.trip != TripId::NONE,
            Reason::Shutdown => self.latch == Latch::Held,
            _ => false,
        }
    }

    /// Its stop was no trip and is one from now on. Says whether that was so.
    pub(super) fn take_for_a_trip(&mut self, trip: TripId, policy: ResetPolicy) -> bool {
        let was_none = self.occasion == Occasion::EndAtRest && !self.is_at_rest();
        if was_none {
            self.occasion = Occasion::Trip;
            self.belong_to(trip);
            self.latch = self.reason.map_or(self.latch, |reason| self.latched_by(reason, policy));
        }
        was_none
    }

    /// Makes it a motor of that trip. What was violated while it was held goes on to the trip that holds it next: somebody who
    /// presses stop again, or a front that does, must not wipe it out.
    pub(super) fn belong_to(&mut self, trip: TripId) {
        if self.trip != trip && self.latch == Latch::Open {
            self.violations = 0;
        }
        self.trip = trip;
    }

    /// What a trip for that reason makes of the latch.
    fn latched_by(&self, reason: Reason, policy: ResetPolicy) -> Latch {
        match reason {
            Reason::OperatorStop => Latch::Held,
            Reason::Startup | Reason::Shutdown => self.latch,
            _ if policy == ResetPolicy::Manual => Latch::Held,
            _ => self.latch,
        }
    }

    /// The stage whose frames answer a motion frame that should not be.
    fn stage_in_force(&self) -> usize {
        match self.state {
            State::Stopping { stage, .. } | State::Stopped { stage } => stage,
            State::Unverified { .. } => self.drive.stop.stages().len() - 1,
            State::Idle { .. } | State::Granted { .. } => 0,
        }
    }

    /// The stage of its stop in which a motor at rest ought to be: the one that was proven, or, where nothing holds it any
    /// more, the one without torque if it is to be released.
    fn stage_at_rest(&self) -> usize {
        match self.state {
            State::Stopped { stage } => stage,
            State::Idle { .. }
            | State::Granted { .. }
            | State::Stopping { .. }
            | State::Unverified { .. } => self.drive.stop.release(0).unwrap_or(0),
        }
    }

    /// Keeps the newest of everything an observation says.
    fn learn(&mut self, seen: &Observation, at: Nanos) {
        self.heard.note(seen, at);
        if seen.velocity.is_some() {
            self.hearing = Hearing::Listens;
        }
        self.seen.power = seen.power.or(self.seen.power);
        self.seen.output = seen.output.or(self.seen.output);
        self.seen.velocity = seen.velocity.or(self.seen.velocity);
        self.seen.position = seen.position.or(self.seen.position);
        self.seen.fault = seen.fault.or(self.seen.fault);
        let runs = seen.power == Some(Power::On) || seen.output == Some(Output::Driving) || self.turns(seen);
        if let State::Granted { run, .. } = &mut self.state
            && runs
        {
            *run = Run::Seen;
        }
    }

    /// Whether a drive that has no word on its power stage turns: a light load needs less current than it can
    /// tell from none.
    fn turns(&self, seen: &Observation) -> bool {
        let slow = self.drive.stop.stage(0).proof.max_speed.0;
        self.seen.power.is_none() && seen.velocity.is_some_and(|velocity| velocity.0.abs() > slow)
    }

    /// Whether a motor that was proven to stand still has been set in motion or energised since.
    fn violates(&self) -> bool {
        let proven = self.drive.stop.stage(self.stage_at_rest());
        if !self.is_energised() {
            // Pushed by hand or rolling without torque: no frame can hold it.
            return false;
        }
        let moving = self
            .seen
            .velocity
            .is_some_and(|velocity| velocity.0.abs() > proven.proof.max_speed.0 * MOVING_AGAIN);
        let enabled_again = !proven.kind.leaves_torque() && self.seen.power == Some(Power::On);
        moving || enabled_again
    }

    /// Whether its drive may have torque, as far as it says.
    fn is_energised(&self) -> bool {
        match self.seen.power {
            Some(power) => !matches!(power, Power::Off | Power::Fault),
            None => self.seen.output == Some(Output::Driving),
        }
    }

    /// Whether nothing was seen of it that turns although it has no power.
    pub(super) fn stands_still(&self) -> bool {
        self.unpowered.since() == Nanos::ZERO
    }

    /// How it turns without torque.
    fn turning_without_power(&self) -> Turning {
        let slow = self.drive.stop.stage(self.stage_at_rest()).proof.max_speed.0;
        match self.seen.velocity {
            _ if self.is_energised() => Turning::No,
            // A drive that has no speed for once does not stand still by that.
            None => Turning::Barely,
            Some(velocity) if velocity.0.abs() <= slow => Turning::No,
            Some(velocity) if velocity.0.abs() <= slow * MOVING_AGAIN => Turning::Barely,
            // Also a speed that is no number.
            Some(_) => Turning::Yes,
        }
    }

    /// A frame of ours was acknowledged on the wire. Whether it was the first of this stop.
    pub(super) fn note_confirmed(&mut self, frame: &Frame, now: Nanos) {
        let is_stop = self.drive.stop.stage(self.stage_in_force()).frames.as_slice().contains(frame);
        if is_stop && self.first_stop != Nanos::ZERO && self.confirmed == Nanos::ZERO {
            self.confirmed = now;
        }
    }

    /// Whether a drive that is not being stopped may be asked for feedback now. One that is driven is left alone while it
    /// says anything: in some families a question is a gentle stop.
    fn may_be_asked(&self, now: Nanos) -> bool {
        match self.drive.poll_when {
            PollWhen::Always => true,
            PollWhen::WhenSilent if self.is_at_rest() => now.since(self.known_since()) > SILENCE,
            PollWhen::WhenSilent => now.since(self.heard.anything) > SILENCE,
        }
    }

    /// The frame that a drive needs before it can hear anything else, if it may be deaf: it was made so, or is silent.
    fn wake(&self, now: Nanos) -> Option<Frame> {
        let may_be_deaf = self.hearing == Hearing::Deaf || now.since(self.heard.speed) > SILENCE;
        self.drive.protocol.wake().filter(|_| may_be_deaf)
    }

    /// The next frame that asks the drive, in turn. Where questions go unanswered without torque, the frames that took it
    /// away are sent again between them: some drives that are off answer nothing else, and they cannot energise it.
    fn next_question(&mut self, now: Nanos) -> Option<Frame> {
        let answers_its_stop = |stage: &usize| {
            self.drive.poll_when == PollWhen::WhenSilent
                && !self.drive.stop.stage(*stage).kind.leaves_torque()
        };
        let polls = self.drive.poll;
        let again = match self.proven_stage().filter(answers_its_stop) {
            Some(stage) => self.drive.stop.stage(stage).frames,
            None => FrameList::EMPTY,
        };
        // While it is stopped, each repetition begins with it; while it is driven, its silence ends that.
        let wake = self.proven_stage().and_then(|_| self.wake(now));
        let count = polls.as_slice().len() + again.as_slice().len() + usize::from(wake.is_some());
        self.next_poll = (self.next_poll + 1).checked_rem(count)?;
        polls.as_slice().iter().chain(again.as_slice()).chain(&wake).nth(self.next_poll).copied()
    }

    /// Takes in what a frame tells the drive, if it is a command, and says whether it is a motion frame.
    fn listen(&mut self, frame: &Frame, now: Nanos) -> Commands {
        let moves = self.drive.is_motion(frame);
        if self.owner().is_none() {
            return if moves { Commands::Unwanted } else { Commands::None };
        }
        if self.drive.commands.contains(&frame.id())
            && let Some(meaning::Heard::Command(meaning)) = self.drive.hears(frame)
        {
            self.plausibility.told(&meaning, now);
        }
        if moves {
            self.commanded(now);
            return Commands::Motion;
        }
        Commands::None
    }

    /// A motion frame for it was heard while it was granted.
    fn commanded(&mut self, now: Nanos) {
        self.rest.commanded();
        if let State::Granted { run: run @ Run::NotSeen, .. } = &mut self.state {
            *run = Run::Commanded { since: now };
        }
    }

    /// Why a granted motor must not go on, if so.
    fn fails(&self, now: Nanos) -> Option<Reason> {
        let State::Granted { run, .. } = self.state else { return None };
        let commanded = match run {
            // An hour may lie between the grant and the first command.
            Run::NotSeen => return None,
            Run::Commanded { since } => since,
            Run::Seen => Nanos::ZERO,
        };
        // Of all that a drive says, its speed is what tells that it runs as it should: other messages may go on without.
        if now.since(self.heard.speed.max(commanded)) > FEEDBACK_WINDOW {
            return Some(Reason::FeedbackLost);
        }
        if run != Run::Seen {
            return None;
        }
        let faulty = match self.seen.power {
            Some(power) => power == Power::Fault,
            // A family without a word on its power stage may still have one on faults.
            None => self.seen.fault.flatten().is_some(),
        };
        faulty.then_some(Reason::DriveFault)
    }

    pub(super) fn verdict(&self) -> MotorVerdict {
        MotorVerdict {
            grant: self.owner(),
            state: match self.state {
                State::Idle { .. } => MotorState::Idle,
                State::Granted { .. } => MotorState::Granted,
                State::Stopping { .. } => MotorState::Stopping,
                State::Stopped { .. } => MotorState::Stopped,
                State::Unverified { .. } => MotorState::Unverified,
            },
            stage: self.stage_in_force() as u64,
            trip: self.trip,
            reason: self.reason,
            first_stop: self.first_stop,
            confirmed: self.confirmed,
            standstill: self.standstill,
            stops_sent: self.stops_sent,
            velocity: self.seen.velocity.map(|velocity| velocity.0),
            position: self.seen.position.map(|position| position.0),
            power: self.seen.power.map_or(0, |power| match power {
                Power::Off => 1,
                Power::Transition => 2,
                Power::On => 3,
                Power::QuickStop => 4,
                Power::Fault => 5,
            }),
            fault: self.seen.fault.flatten().map_or(0, |fault| u64::from(fault.0)),
            feedback: self.known_since(),
            guarded: self.guarded,
            bus: self.bus as u64,
            latched: u64::from(self.latch == Latch::Held),
            violations: self.violations,
            moves: self.unpowered.since(),
        }
    }
}

/// What a frame commands a motor to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commands {
    /// Nothing that moves it.
    None,
    /// Motion, under a grant.
    Motion,
    /// Motion, and no session has it.
    Unwanted,
}

/// What became of a stage's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handed {
    /// No bus that is there has refused any, and one has taken all.
    All,
    /// A bus that is there has refused some.
    NotAll,
    /// No bus is there.
    Nothing,
}

impl Handed {
    /// Of two buses.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NotAll, _) | (_, Self::NotAll) => Self::NotAll,
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Nothing, Self::Nothing) => Self::Nothing,
        }
    }
}

/// A held motor counts as moving again above this multiple of its standstill speed: a held rotor
/// dithers around zero, and the proof itself already allows up to the standstill speed.
const MOVING_AGAIN: f32 = 3.0;

impl Core {
    /// Takes the motor's grant away and sends the first stage of its stop; the same for those it shares a
    /// command frame with, because that stage reaches them, too.
    pub(super) fn begin_stop(&mut self, index: usize, why: Why, now: Nanos, wire: &mut dyn Wire) {
        self.begin_own_stop(index, why, now, wire);
        if !self.has_mates(index) {
            return;
        }
        for mate in 0..self.motors.len() {
            if self.are_mates(index, mate) && self.motors[mate].owner().is_some() {
                self.begin_own_stop(mate, why, now, wire);
                self.publish_motor(mate);
            }
        }
    }

    fn begin_own_stop(&mut self, index: usize, why: Why, now: Nanos, wire: &mut dyn Wire) {
        // Revoked before the frame goes out: a front that checks its grant after sending then knows.
        self.verdicts.grant(motor_index(index), None);
        let Why { trip, reason, occasion } = why;
        let motor = &mut self.motors[index];
        if !motor.keeps_its_trip(reason) {
            motor.belong_to(trip);
            motor.reason = Some(reason);
        }
        motor.occasion = occasion;
        motor.restarts = 0;
        motor.unpowered.end();
        motor.told = Told::Yes;
        motor.first_stop = Nanos::ZERO;
        motor.confirmed = Nanos::ZERO;
        motor.standstill = Nanos::ZERO;
        motor.latch = match occasion {
            Occasion::Trip => motor.latched_by(reason, self.settings.policy),
            Occasion::EndAtRest => motor.latch,
        };
        self.enter_stage(index, 0, now, wire);
    }

    fn enter_stage(&mut self, index: usize, stage: usize, now: Nanos, wire: &mut dyn Wire) {
        let motor = &mut self.motors[index];
        motor.evidence = Evidence::NONE;
        motor.state = State::Stopping { stage, since: now, again: now };
        if !motor.drive.stop.stage(stage).kind.leaves_torque() {
            motor.permit = Permit::Withheld;
        }
        self.send_stage(index, now, wire);
    }

    /// Sends the frames of the stage in force, and sees to it that they are sent again: soon when the
    /// kernel did not take them, else after the repeat time.
    fn send_stage(&mut self, index: usize, now: Nanos, wire: &mut dyn Wire) {
        let mut outcome = Handed::Nothing;
        for bus in self.motors[index].buses().into_iter().flatten() {
            outcome = outcome.and(self.send_stage_on(bus, index, now, wire));
        }
        self.permit(index, now, wire);
        // A refused frame goes out again on the next tick, not in the pass that is under way.
        let pause = if outcome == Handed::All { self.settings.stop_repeat } else { 1 };
        let motor = &mut self.motors[index];
        if let State::Stopping { again, .. } | State::Unverified { again } = &mut motor.state {
            *again = now.after(pause);
        }
    }

    /// The same on one bus. One that is known to be gone does not count: it is tried with every stage all the
    /// same, and must not have the others repeated in haste.
    fn send_stage_on(&mut self, bus: usize, index: usize, now: Nanos, wire: &mut dyn Wire) -> Handed {
        let motor = &self.motors[index];
        let was_there = self.buses[bus].reach() != Reach::Gone;
        // A bus that does not work may come back before anybody says so. What gets out first then has to be
        // gentle: the drive has run on, whatever stage has timed out meanwhile.
        let stage = if was_there { motor.stage_in_force() } else { 0 };
        let frames = motor.drive.stop.stage(stage).frames;
        if let Some(wake) = motor.wake(now) {
            self.send_one(bus, &wake, now, wire);
        }
        let sent = self.send(bus, &frames, now, wire);
        let motor = &mut self.motors[index];
        if sent {
            let count = frames.as_slice().len() as u64;
            motor.stops_sent += count;
            self.tally.stop_frames += count;
            if motor.first_stop == Nanos::ZERO {
                motor.first_stop = now.max(wire.now());
            }
        }
        match (sent, was_there) {
            (true, _) => Handed::All,
            (false, true) => Handed::NotAll,
            (false, false) => Handed::Nothing,
        }
    }

    /// After a bus came back: whatever was not proven begins again, gently, a bounded number of times.
    pub(super) fn restart_stop(&mut self, index: usize, now: Nanos, wire: &mut dyn Wire) {
        let motor = &mut self.motors[index];
        let is_under_way = matches!(motor.state, State::Stopping { .. } | State::Unverified { .. });
        if is_under_way && motor.restarts < MOST_RESTARTS {
            motor.restarts += 1;
            self.enter_stage(index, 0, now, wire);
            self.publish_motor(index);
        }
    }

    /// Repeats, escalates, polls, and trips what must not go on.
    pub(super) fn tend_motors(&mut self, now: Nanos, wire: &mut dyn Wire) {
        for bus in 0..self.buses.len() {
            if self.buses[bus].reach() != Reach::Well {
                self.trip_bus(bus, now, wire);
            }
            self.tell_bus(bus, now);
        }
        for index in 0..self.motors.len() {
            match self.motors[index].state {
                State::Stopping { since, again, stage } => {
                    if now.since(since) >= self.motors[index].stage_timeout {
                        self.escalate(index, stage, now, wire);
                    } else if now >= again {
                        self.send_stage(index, now, wire);
                    } else {
                        self.poll(index, now, wire);
                    }
                }
                State::Unverified { again } if now >= again => self.send_stage(index, now, wire),
                State::Unverified { .. } => self.poll(index, now, wire),
                State::Idle { .. } | State::Stopped { .. } | State::Granted { .. } => {
                    if let Some(reason) = self.motors[index].fails(now) {
                        self.trip_owner_of(index, reason, now, wire);
                    } else if (self.ticks + index as u64).is_multiple_of(self.ticks_between_polls())
                        && self.motors[index].may_be_asked(now)
                    {
                        self.poll(index, now, wire);
                    }
                }
            }
            self.publish_motor(index);
        }
    }

    fn escalate(&mut self, index: usize, stage: usize, now: Nanos, wire: &mut dyn Wire) {
        let last = stage + 1 >= self.motors[index].drive.stop.stages().len();
        let kind = if last { EventKind::Unverified } else { EventKind::Escalated };
        if last {
            self.motors[index].state = State::Unverified { again: now };
            self.send_stage(index, now, wire);
        } else {
            self.enter_stage(index, stage + 1, now, wire);
        }
        self.trip_after_all(index, now);
        self.record_motor(kind, index, now);
    }

    /// Asks the drive for the next piece of feedback, one frame at a time: an SDO server takes one
    /// request at a time.
    fn poll(&mut self, index: usize, now: Nanos, wire: &mut dyn Wire) {
        let is_there = |bus: &usize| self.buses[*bus].reach() != Reach::Gone;
        let Some(bus) = self.motors[index].buses().into_iter().flatten().find(is_there) else { return };
        let Some(frame) = self.motors[index].next_question(now) else { return };
        self.send_one(bus, &frame, now, wire);
    }

    fn ticks_between_polls(&self) -> u64 {
        (POLL_PERIOD / self.settings.tick.max(1)).max(1)
    }

    /// What a frame that came in on that bus means for a motor. What tells the drive something counts whoever has sent it:
    /// the drive hears it.
    pub(super) fn observe(
        &mut self,
        index: usize,
        (bus, origin): (usize, Origin),
        frame: &Frame,
        arrival: Arrival,
        wire: &mut dyn Wire,
    ) {
        let now = arrival.now;
        let motor = &mut self.motors[index];
        if motor.drive.protocol.deafens(frame) {
            motor.hearing = Hearing::Deaf;
            self.trip_owner_of(index, Reason::MadeDeaf, now, wire);
            return;
        }
        let commands = motor.listen(frame, now);
        if commands == Commands::Unwanted {
            self.guard(index, now, wire);
            return;
        }
        let is_told = commands == Commands::Motion && !self.buses[bus].has_local_drives();
        if is_told && motor.is_of_another_master(bus, origin, frame) {
            self.trip_owner_of(index, Reason::OtherMaster, now, wire);
            return;
        }
        self.heed_foreign_stop(index, (bus, origin), frame, now, wire);
        let motor = &mut self.motors[index];
        let Some(seen) = motor.drive.decode(frame) else { return };
        if !self.buses[bus].believes(origin) {
            // A command that looks like an answer is nobody's feedback.
            if motor.drive.is_only_report(frame.id()) {
                self.disbelieve(bus, now);
            }
            return;
        }
        motor.learn(&seen, arrival.earliest);
        // Between two buses there is no order: on the other one this may be from before the last motion frame.
        if commands == Commands::None && bus == motor.bus {
            motor.rest.observe(&motor.drive.stop.stage(0).proof, &seen, arrival, self.settings.proof_span);
        }
        match motor.state {
            // Standing still proves nothing while frames that were queued before the stop may still set it in motion.
            State::Stopping { .. } | State::Unverified { .. } if motor.first_stop == Nanos::ZERO => {}
            // It may have waited in the socket since before the stop.
            State::Stopping { .. } | State::Unverified { .. } if arrival.earliest < motor.first_stop => {}
            State::Stopping { .. } | State::Unverified { .. } => {
                let stage = motor.stage_in_force();
                let proof = motor.drive.stop.stage(stage).proof;
                if motor.evidence.observe(&proof, &seen, arrival, self.settings.proof_span) {
                    self.proven(index, stage, now, wire);
                }
            }
            // Also an idle one: its drive was switched off and on, or another master or an input of its own commands it.
            State::Stopped { .. } | State::Idle { .. } => {
                if motor.violates() {
                    self.stop_again(index, now, wire);
                } else {
                    self.watch_unpowered(index, now);
                }
            }
            State::Granted { .. } => {
                let implausible =
                    seen.velocity.and_then(|speed| motor.plausibility.measured(speed, &motor.limits, now));
                if let Some(reason) = motor.fails(now).or(implausible) {
                    self.trip_owner_of(index, reason, now, wire);
                }
            }
        }
    }

    /// A stage has its proof: torque is taken away next if the configuration wants that, else done.
    fn proven(&mut self, index: usize, stage: usize, now: Nanos, wire: &mut dyn Wire) {
        let motor = &mut self.motors[index];
        if motor.standstill == Nanos::ZERO {
            motor.standstill = now;
        }
        if let Some(release) = motor.drive.stop.release(stage) {
            self.enter_stage(index, release, now, wire);
        } else {
            motor.state = State::Stopped { stage };
            if motor.reason == Some(Reason::Startup) && motor.latch == Latch::Open {
                motor.state = State::Idle { stage };
            }
            self.record_motor(EventKind::Standstill, index, now);
        }
        self.publish_motor(index);
    }

    /// The bus guard: somebody sent a motion frame to a motor that nobody may move.
    fn guard(&mut self, index: usize, now: Nanos, wire: &mut dyn Wire) {
        self.tally.guarded += 1;
        let motor = &mut self.motors[index];
        motor.guarded += 1;
        if motor.is_at_rest() {
            self.stop_again(index, now, wire);
        } else {
            self.send_stage(index, now, wire);
            self.trip_after_all(index, now);
            self.publish_motor(index);
        }
    }

    /// Somebody moves or energises a motor that was proven to stand still.
    fn stop_again(&mut self, index: usize, now: Nanos, wire: &mut dyn Wire) {
        let trip = self.trip_of_violation(index);
        // Of one that begins a trip there is nothing yet that somebody may have overlooked.
        let violations = match self.motors[index].latch {
            Latch::Held => self.violations_of(trip).saturating_add(1),
            Latch::Open => 0,
        };
        self.begin_stop(index, Why::trip(trip, Reason::Violation), now, wire);
        let motor = &mut self.motors[index];
        motor.violations = violations;
        if motor.violation_told == Nanos::ZERO
            || now.since(motor.violation_told) >= self.settings.violation_pause
        {
            motor.violation_told = now;
            self.record_motor(EventKind::Guarded, index, now);
        } else {
            motor.told = Told::No;
        }
        self.publish_motor(index);
    }

    /// Tells of a motor that turns with its power off. It gets no frame: none without torque holds it.
    fn watch_unpowered(&mut self, index: usize, now: Nanos) {
        let motor = &mut self.motors[index];
        let turning = motor.turning_without_power();
        if !motor.unpowered.observe(turning, now, self.settings.violation_pause) {
            return;
        }
        let mut event = Event::new(EventKind::MovesWithoutPower, now);
        if motor.latch == Latch::Held {
            event.trip = motor.trip;
        }
        event.motors.insert(motor_index(index));
        self.verdicts.event(&event);
        self.publish_motor(index);
    }

    /// The trip that a violated stop belongs to: the one that holds the motor, or else a new one. A
    /// number that was reset before must not name what has happened since, and what begins a hold under
    /// manual policy must have a number that can be reset, even when nothing has tripped before.
    fn trip_of_violation(&mut self, index: usize) -> TripId {
        match self.motors[index].latch {
            Latch::Held => self.motors[index].trip,
            Latch::Open => self.next_trip(),
        }
    }

    /// How often the stop of a trip was violated: the highest number that a motor of it has.
    pub(super) fn violations_of(&self, trip: TripId) -> u64 {
        let of_it = self.motors.iter().filter(|motor| motor.trip == trip && motor.latch == Latch::Held);
        of_it.map(|motor| motor.violations).max().unwrap_or(0)
    }

    fn record_motor(&mut self, kind: EventKind, index: usize, now: Nanos) {
        let motor = &self.motors[index];
        if motor.told == Told::No {
            return;
        }
        let mut event = Event::new(kind, now);
        event.trip = motor.trip;
        event.reason = motor.reason;
        event.first_stop = motor.first_stop;
        event.motors.insert(motor_index(index));
        self.verdicts.event(&event);
    }

    pub(super) fn publish_motor(&self, index: usize) {
        if let Some(motor) = self.motors.get(index) {
            self.verdicts.motor(motor_index(index), &motor.verdict());
        }
    }
}
