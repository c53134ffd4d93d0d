//! The real core, driven so that it sees exactly one input per step.
//!
//! Time is the path's: a tick every [`TICK`], everything else within the first part of the time between
//! two ticks. Deadlines are set by the times that beats allege. As the whole path is known, a session that
//! expires before the next tick is given a deadline there on the tick before, and every other one a
//! deadline just behind the next tick.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use config::Config;
use drivers::{AfterStop, ArbitrationId, Drive as RealDrive, Frame};
use lanyard_model::drive::{Drive, STAGES};
use lanyard_model::shared::{Owner, SLOTS, Word};
use lanyard_model::supervisor::{Before, Bus, Latch, Settings, State};
use lanyard_model::wire::Sent;
use shm_proto::layout::BeatLayout;
use shm_proto::verdicts::{
    BusHealth, EventKind, Identity, LeftMotor, MotorState, MotorVerdict, PastEvidence, Phase, Reason,
    Remains, ResetPolicy,
};
use shm_proto::{
    BeatSegment, BeatView, BeatWriter, Capacity, Ending, Generation, Incarnation, MotorIndex, Nanos,
    SessionId, SlotIndex, TripId, TripSeen, VerdictSegment, VerdictView, Window,
};
use supervisor::core::{Core, Motor, Origin, SendError, Settings as RealSettings, Wire};
use supervisor::inheritance::{Found, inherit};
use supervisor::kernel_stop::Tally;
use supervisor::start::speed_limits;

use super::{Done, Input, Lateness, Move, Twin};

const MS: u64 = 1_000_000;
/// When every path begins.
const START: Nanos = Nanos(5_000_000 * MS);
/// More than half of the core's feedback window of 500 ms, and less than all of it: a drive may be unheard
/// for one tick and not for two, as in the model.
const TICK: u64 = 300 * MS;
/// A tick that comes so much later has been late, and none of a path is by chance.
const MAX_LATENESS: u64 = 50 * MS;
/// How much later such a tick comes: a drive that was heard since the tick before it still counts as heard, a stage that
/// began on that tick is not over.
const LATE: u64 = 100 * MS;
/// The same, longer than the core's feedback window after the tick before.
const VERY_LATE: u64 = 400 * MS;
/// Over on the second tick of a stage, wherever between two ticks the stage began.
const STAGE_TIMEOUT: u64 = 450 * MS;
/// Repeated on every tick.
const STOP_REPEAT: u64 = 100 * MS;
/// The window of sessions and of the front: longer than anything here takes between two ticks.
const WINDOW: Window = Window::from_millis(2_000);
/// From a tick to the first deadline behind it, and from one such deadline to the next.
const EXPIRY: u64 = 10 * MS;
/// From one input to the next.
const STEP: u64 = 1_000;

/// A set-point of one revolution a second.
const VELOCITY: [u8; 8] = [0, 0, 128, 63, 0, 0, 0, 0];

const MOTOR: MotorIndex = MotorIndex(0);
const NODE: u16 = 3;

/// Answers as told and keeps what it was given, taken or not.
#[derive(Debug)]
struct Kernel {
    answer: Sent,
    given: Vec<Frame>,
}

impl Wire for Kernel {
    fn send(&mut self, _: usize, frame: &Frame) -> Result<(), SendError> {
        self.given.push(*frame);
        match self.answer {
            Sent::Ok => Ok(()),
            Sent::QueueFull => Err(SendError::QueueFull),
            Sent::Down => Err(SendError::Down),
        }
    }

    fn now(&mut self) -> Nanos {
        Nanos::ZERO
    }
}

/// The front's segment.
struct Front {
    beats: Arc<BeatSegment>,
    own: BeatWriter,
    sessions: Vec<BeatWriter>,
}

/// The real core and all it needs.
pub struct Real {
    config: Config,
    policy: ResetPolicy,
    core: Core,
    /// What the core publishes, for the next supervisor to read.
    verdicts: OwnedFd,
    overtaken: u64,
    kernel: Kernel,
    view: VerdictView,
    drive: RealDrive,
    front: Front,
    generation: Generation,
    now: Nanos,
    last_tick: Nanos,
    events_seen: u64,
}

/// What a step did besides publishing.
#[derive(Debug, Default)]
pub struct Outcome {
    reset: Option<bool>,
}

impl Real {
    /// After `Core::inherit` and `Core::start`, with a front attached.
    pub fn started(before: Before, settings: Settings, path: &[Move]) -> Self {
        let after = match settings.after {
            AfterStop::Release => "release",
            AfterStop::Hold => "hold",
        };
        let robot = format!(
            "[[bus]]\nname = \"can0\"\n[[motor]]\nname = \"a\"\nbus = \"can0\"\ndriver = \"odrive\"\n\
             node = {NODE}\nfirmware = \"0.6\"\nafter_stop = \"{after}\"\nmax_rpm = 300\n"
        );
        let mut config = Config::parse(Path::new("model.toml"), &robot).expect("the robot is valid");
        config.supervisor.reset = settings.policy;
        let drive = config.motors[0].drive.clone();
        let (mut core, verdicts) = new_core(&config, settings.policy);
        let view = VerdictView::map(verdicts.as_fd(), capacity()).expect("a mapping");
        let mut kernel = Kernel { answer: Sent::Ok, given: Vec::new() };
        let now = START;
        let (inheritance, _) = inherit(left_by(before, settings, now), &config, now);
        core.inherit(&inheritance);
        core.start(now, &mut kernel);
        let generation = Generation(1);
        let (front, beats) = Front::new(generation, now);
        core.attach(beats, 1, watched_since(now, path), &mut kernel);
        let events_seen = view.event_count();
        let policy = settings.policy;
        Self {
            config,
            policy,
            core,
            verdicts,
            overtaken: 0,
            kernel,
            view,
            drive,
            front,
            generation,
            now,
            last_tick: now,
            events_seen,
        }
    }

    /// The core is gone; the next one finds what it has published, and starts.
    fn be_killed(&mut self) {
        let remains = Remains::read(self.verdicts.as_fd(), self.now);
        let (inheritance, _) = inherit(Found::Left(remains), &self.config, self.now);
        (self.core, self.verdicts) = new_core(&self.config, self.policy);
        self.view = VerdictView::map(self.verdicts.as_fd(), capacity()).expect("a mapping");
        self.core.inherit(&inheritance);
        self.events_seen = self.view.event_count();
        self.core.start(self.now, &mut self.kernel);
        (self.last_tick, self.overtaken) = (self.now, 0);
    }

    /// Gives the core one input. `twin` is the model before it, `rest` what comes after it.
    pub fn apply(&mut self, twin: &Twin, step: Move, rest: &[Move]) -> Outcome {
        self.kernel.answer = step.answer;
        self.kernel.given.clear();
        let mut outcome = Outcome::default();
        self.now = self.now.after(STEP);
        match step.input {
            Input::Tick => self.tick(0, twin, rest),
            Input::LateTick(Lateness::BelievesFeedback) => self.tick(LATE, twin, rest),
            Input::LateTick(Lateness::DistrustsFeedback) => self.tick(VERY_LATE, twin, rest),
            Input::Overtaken => {
                self.overtaken += 1;
                let tally = Tally { overtaken: self.overtaken, ..Tally::default() };
                self.core.kernel_stop(tally, self.now, &mut self.kernel);
            }
            Input::Killed => self.be_killed(),
            Input::Press => {
                self.core.press(self.now, &mut self.kernel);
            }
            Input::Expire(_) | Input::FrontSilent => self.expire(),
            Input::FrontEnded => {
                self.core.detach(Reason::FrontDead, self.now, &mut self.kernel);
            }
            Input::Attach => {
                self.generation = Generation(self.generation.0 + 1);
                let (front, view) = Front::new(self.generation, self.now);
                self.front = front;
                if until_next_tick(rest).contains(&Input::FrontSilent) {
                    // Attached in the past, so that its silence is due in time; the stop with which
                    // `attach` begins is not to be in the past.
                    self.core.detach(Reason::FrontDead, self.now, &mut self.kernel);
                    self.core.attach(view, 1, watched_since(self.last_tick, rest), &mut self.kernel);
                } else {
                    self.core.attach(view, 1, self.now, &mut self.kernel);
                }
            }
            Input::Motion => self.receive(Origin::Local, 0x0D, VELOCITY),
            Input::OtherMaster => self.receive(Origin::Wire, 0x0D, VELOCITY),
            Input::Report(drive) => self.report(Origin::Wire, drive),
            Input::Forged(drive) => self.report(Origin::Local, drive),
            Input::Estop => {
                self.core.estop(self.now, &mut self.kernel);
            }
            Input::Reset(which) => {
                let seen = twin.trip(which);
                let seen = TripSeen { trip: TripId(seen.trip.into()), violations: seen.violations.into() };
                outcome.reset = Some(self.core.reset(seen, self.now).is_ok());
            }
            Input::Bus(Bus::Gone) => self.core.bus_down(0, libc::ENETDOWN, self.now, &mut self.kernel),
            Input::Bus(Bus::Doubtful) => {
                self.core.bus_health(0, BusHealth::Passive, self.now, &mut self.kernel);
            }
            Input::Bus(Bus::Well) => self.core.bus_up(0, self.now, &mut self.kernel),
            Input::Open(slot) => {
                // What it alleges is so old that its deadline is over by the tick that sees it, unless
                // the beat of that tick moves it.
                let at = alleged_for(self.now);
                let writer = &mut self.front.sessions[usize::from(slot)];
                writer.open_at(SessionId(u128::from(slot) + 1), WINDOW, at);
            }
            Input::Close(slot) => self.front.sessions[usize::from(slot)].close_at(Ending::Client, self.now),
            Input::Take(owner) => self.front.beats.take_motor(MOTOR, real_owner(owner)),
            Input::FrontDies | Input::FrontSpeaks => {}
        }
        assert_eq!(self.core.check_invariants(), None, "after {:?}", step.input);
        outcome
    }

    fn tick(&mut self, late: u64, twin: &Twin, rest: &[Move]) {
        self.now = self.last_tick.after(TICK + late);
        self.last_tick = self.now;
        for slot in 0..SLOTS {
            let ring = twin.beats.rings[usize::from(slot)];
            let lives = twin.core.owner(slot).is_some()
                || ring.incarnation > twin.core.sessions[usize::from(slot)].incarnation;
            if lives && ring.word == Word::Alive {
                let deadline = deadline(
                    self.last_tick,
                    rest,
                    |input| matches!(input, Input::Expire(due) if due[usize::from(slot)]),
                );
                self.front.sessions[usize::from(slot)].beat_at(alleged_for(deadline));
            }
        }
        if twin.core.front_watched || twin.beats.front_beats {
            let deadline = deadline(self.last_tick, rest, |input| *input == Input::FrontSilent);
            self.front.own.beat_at(alleged_for(deadline));
        }
        self.core.step(self.now, &mut self.kernel);
    }

    fn expire(&mut self) {
        let since = self.now.since(self.last_tick);
        self.now = self.last_tick.after((since / EXPIRY + 1) * EXPIRY);
        assert!(self.now < self.last_tick.after(TICK / 3), "too much happens between two ticks");
        self.core.step(self.now, &mut self.kernel);
    }

    /// Readings until they have an effect, and at most as many as a proof takes. The drive tells its state and its speed one after
    /// the other, so the second comes also when the first has had an effect: what is said then is all known from then.
    fn report(&mut self, origin: Origin, drive: Drive) {
        let (error, state, velocity) = match drive {
            Drive::Off => (0, 1, 0.0_f32),
            Drive::Holding => (0, 8, 0.0),
            Drive::Turning => (0, 8, 2.0),
            Drive::Faulted => (1, 1, 0.0),
        };
        let [v0, v1, v2, v3] = velocity.to_le_bytes();
        let before = self.place();
        for _ in 0..3 {
            for (command, payload) in
                [(0x01, [error, 0, 0, 0, state, 0, 0, 0]), (0x09, [0, 0, 0, 0, v0, v1, v2, v3])]
            {
                self.receive(origin, command, payload);
            }
            if self.place() != before {
                return;
            }
        }
    }

    fn place(&self) -> (MotorState, u64, u64) {
        let verdict = self.view.motor(MOTOR).expect("the motor exists");
        (verdict.state, verdict.stage, verdict.trip.0)
    }

    fn receive(&mut self, origin: Origin, command: u16, payload: [u8; 8]) {
        let frame = Frame::classic(ArbitrationId::standard(NODE << 5 | command), &payload);
        self.core.received(0, origin, &frame, self.now, &mut self.kernel);
    }

    /// What differs between the two, if anything.
    pub fn difference(&mut self, twin: &Twin, done: &Done, outcome: &Outcome) -> Option<String> {
        let verdict = self.view.motor(MOTOR).expect("the motor exists");
        let motor = &twin.core.motor;
        let state = match motor.state {
            State::Idle => MotorState::Idle,
            State::Granted { .. } => MotorState::Granted,
            State::Stopping { .. } => MotorState::Stopping,
            State::Stopped { .. } => MotorState::Stopped,
            State::Unverified => MotorState::Unverified,
        };
        let sessions = |slot: u8| {
            (
                u64::from(twin.core.sessions[usize::from(slot)].incarnation),
                twin.core.sessions[usize::from(slot)].state,
            )
        };
        let published = |slot: u8| {
            let (incarnation, state) = self.view.session_state(SlotIndex(u16::from(slot)));
            (incarnation.get(), state)
        };
        let events: Vec<_> =
            done.log.events.iter().map(|event| (event.kind, u64::from(event.trip), event.reason)).collect();
        let pairs = [
            differs("motor", &state, &verdict.state),
            differs("stage", &u64::from(motor.stage_in_force()), &verdict.stage),
            differs("grant", &motor.owner().map(real_owner), &self.view.granted(MOTOR)),
            differs("latched", &u64::from(motor.latch == Latch::Held), &verdict.latched),
            differs("trip", &u64::from(motor.trip), &verdict.trip.0),
            differs("reason", &Some(motor.reason), &verdict.reason),
            differs("latch", &u64::from(twin.core.latch), &self.view.latch().0),
            differs("session 0", &sessions(0), &published(0)),
            differs("session 1", &sessions(1), &published(1)),
            differs("reset", &done.reset, &outcome.reset),
            differs("frames", &done.stage.map_or(Vec::new(), |stage| self.frames(stage)), &self.kernel.given),
            differs("events", &events, &self.new_events()),
        ];
        self.events_seen = self.view.event_count();
        pairs.into_iter().flatten().next()
    }

    fn frames(&self, stage: u8) -> Vec<Frame> {
        assert_eq!(
            usize::from(STAGES),
            self.drive.stop.stages().len(),
            "the model's programme is the drive's"
        );
        self.drive.stop.stage(usize::from(stage)).frames.as_slice().to_vec()
    }

    /// Events about motors and sessions. Those about buses and fronts only repeat what was told.
    fn new_events(&self) -> Vec<(EventKind, u64, Option<Reason>)> {
        let new =
            (self.events_seen + 1..=self.view.event_count()).filter_map(|number| self.view.event(number));
        new.filter(|event| {
            !matches!(
                event.kind,
                EventKind::BusDown
                    | EventKind::BusUp
                    | EventKind::FrontAttached
                    | EventKind::Armed
                    | EventKind::Disbelieved
                    | EventKind::ForeignStops
            )
        })
        .map(|event| (event.kind, event.trip.0, event.reason))
        .collect()
    }
}

/// A core of that robot, and what it publishes.
fn new_core(config: &Config, policy: ResetPolicy) -> (Core, OwnedFd) {
    let identity = Identity { config_hash: 1, pid: 1, started: Nanos(1), policy };
    let (verdicts, fd) = VerdictSegment::create(capacity(), &identity, &["a"], &["can0"]).expect("a memfd");
    let times = RealSettings {
        front_window: WINDOW,
        windows: (WINDOW, WINDOW),
        stop_repeat: STOP_REPEAT,
        tick: TICK,
        max_lateness: MAX_LATENESS,
        // The model has no time: a report stands for enough readings.
        proof_span: 0,
        violation_pause: 0,
        policy,
    };
    let motor = &config.motors[0];
    let motors = vec![Motor::new(0, motor.drive.clone(), STAGE_TIMEOUT, speed_limits(motor), WINDOW)];
    (Core::new(times, motors, 1, Vec::new(), verdicts, u16::from(SLOTS)), fd)
}

/// What a supervisor leaves that ended so.
fn left_by(before: Before, settings: Settings, now: Nanos) -> Found {
    let driven = MotorVerdict {
        grant: shm_proto::Owner::from_word(1),
        state: MotorState::Granted,
        stage: 0,
        trip: TripId::NONE,
        reason: None,
        first_stop: Nanos::ZERO,
        confirmed: Nanos::ZERO,
        standstill: now,
        stops_sent: 0,
        velocity: None,
        position: None,
        power: 0,
        fault: 0,
        feedback: now,
        guarded: 0,
        violations: 0,
        moves: Nanos::ZERO,
        bus: 0,
        latched: 0,
    };
    let (verdict, trips) = match before {
        Before::None => return Found::Nothing,
        Before::DiedDriving => (driven, TripId::NONE),
        Before::LeftOpen(reason) => {
            let held = settings.policy == ResetPolicy::Manual || reason == Reason::OperatorStop;
            let (trip, reason, latched) = (TripId(1), Some(reason), u64::from(held));
            (
                MotorVerdict { grant: None, state: MotorState::Stopped, trip, reason, latched, ..driven },
                TripId(1),
            )
        }
    };
    let latch = if before == Before::LeftOpen(Reason::OperatorStop) { trips } else { TripId::NONE };
    let motor = LeftMotor { name: "a".to_owned(), verdict, evidence: PastEvidence::default() };
    Found::Left(Ok(Remains {
        started: Nanos(1),
        seen: now,
        phase: Some(Phase::Armed),
        trips,
        generation: Generation(0),
        latch,
        open: 0,
        motors: Some(vec![motor]),
        events: Vec::new(),
    }))
}

impl Front {
    fn new(generation: Generation, now: Nanos) -> (Self, BeatView) {
        let fd =
            shm_proto::memory::create("model-beats", BeatLayout::new(capacity()).words()).expect("a memfd");
        let beats = BeatSegment::map(fd.as_fd(), capacity(), generation).expect("a mapping");
        shm_proto::memory::seal(fd.as_fd()).expect("seals");
        let view = BeatView::map(fd.as_fd(), capacity(), generation).expect("a mapping");
        let mut own = beats.front_writer();
        own.open_at(SessionId(7), WINDOW, alleged_for(now));
        let sessions = (0..SLOTS)
            .map(|slot| beats.writer(SlotIndex(u16::from(slot))).expect("the slot exists"))
            .collect();
        (Self { beats, own, sessions }, view)
    }
}

/// How late the next tick is.
fn next_lateness(rest: &[Move]) -> u64 {
    match rest.iter().find(|step| is_tick(&step.input)).map(|step| step.input) {
        Some(Input::LateTick(Lateness::BelievesFeedback)) => LATE,
        Some(Input::LateTick(Lateness::DistrustsFeedback)) => VERY_LATE,
        _ => 0,
    }
}

fn until_next_tick(rest: &[Move]) -> Vec<Input> {
    rest.iter().map(|step| step.input).take_while(|input| !is_tick(input)).collect()
}

const fn is_tick(input: &Input) -> bool {
    matches!(input, Input::Tick | Input::LateTick(_))
}

/// The moment in the time to come at which something is to expire, or one just behind the next tick.
fn deadline(last_tick: Nanos, rest: &[Move], expires: impl Fn(&Input) -> bool) -> Nanos {
    let (until_next, late) = (until_next_tick(rest), next_lateness(rest));
    let mut expiries =
        until_next.iter().filter(|input| matches!(input, Input::Expire(_) | Input::FrontSilent));
    match expiries.position(expires) {
        Some(place) => last_tick.after(EXPIRY * (place as u64 + 1)),
        None => last_tick.after(TICK + late + EXPIRY),
    }
}

/// When a front must have been attached that is to be called silent as the path has it.
fn watched_since(last_tick: Nanos, rest: &[Move]) -> Nanos {
    alleged_for(deadline(last_tick, rest, |input| *input == Input::FrontSilent))
}

fn capacity() -> Capacity {
    Capacity::new(u16::from(SLOTS), 1).expect("in range")
}

/// When a beat must have happened so that its deadline is this one.
const fn alleged_for(deadline: Nanos) -> Nanos {
    Nanos(deadline.0 - WINDOW.0)
}

fn real_owner(owner: Owner) -> shm_proto::Owner {
    shm_proto::Owner {
        slot: SlotIndex(u16::from(owner.slot)),
        incarnation: Incarnation::new(u64::from(owner.incarnation)),
    }
}

fn differs<T: PartialEq + std::fmt::Debug>(what: &str, model: &T, code: &T) -> Option<String> {
    (model != code).then(|| format!("{what}: model {model:?}, code {code:?}"))
}
