//! The real core with two motors in one frame, driven so that it sees exactly one input per step.
//!
//! Its tick is so short that no drive is silent for too long in a walk: the model has no silence.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use config::Config;
use drivers::{ArbitrationId, Frame};
use lanyard_model::joint::{Joint, MOTORS, Pair, Part, Session, State};
use shm_proto::layout::BeatLayout;
use shm_proto::verdicts::{Identity, MotorState, Reason, ResetPolicy};
use shm_proto::{
    BeatSegment, BeatView, BeatWriter, Capacity, Generation, Incarnation, MotorIndex, Nanos, Owner,
    SessionId, SlotIndex, VerdictSegment, VerdictView, Window,
};
use supervisor::core::{Core, Motor, Origin, SendError, Settings, Wire};
use supervisor::start::speed_limits;

use super::Input;

const MS: u64 = 1_000_000;
/// When every walk begins.
const START: Nanos = Nanos(5_000_000 * MS);
const TICK: u64 = 5 * MS;
/// Over on the second tick of a stage, wherever within [`ASIDE`] of a tick it began.
const STAGE_TIMEOUT: u64 = 7 * MS;
/// Within what time after a tick everything happens that is told until the next.
const ASIDE: u64 = 2 * MS;
/// From a tick to the first deadline behind it, and from one such deadline to the next.
const EXPIRY: u64 = MS / 10;
/// From one input to the next.
const STEP: u64 = 100;
/// Longer than a walk.
const WINDOW: Window = Window::from_millis(1_000);
/// The readings that the family takes for proof.
const READINGS: usize = 20;

const ROBOT: &str = r#"
[[bus]]
name = "can0"
[[motor]]
name = "a"
bus = "can0"
driver = "dji"
model = "c620"
id = 1
after_stop = "release"
max_rpm = 1000
[[motor]]
name = "b"
bus = "can0"
driver = "dji"
model = "c620"
id = 2
after_stop = "release"
max_rpm = 1000
[[base]]
name = "base"
left = ["a"]
right = ["b"]
wheel_circumference_mm = 300
width_mm = 500
"#;

/// Takes everything, and keeps it.
#[derive(Debug, Default)]
struct Kernel {
    given: Vec<Frame>,
}

impl Wire for Kernel {
    fn send(&mut self, _: usize, frame: &Frame) -> Result<(), SendError> {
        self.given.push(*frame);
        Ok(())
    }

    fn now(&mut self) -> Nanos {
        Nanos::ZERO
    }
}

/// The real core and all it needs.
pub struct Real {
    core: Core,
    kernel: Kernel,
    view: VerdictView,
    beats: Arc<BeatSegment>,
    own: BeatWriter,
    sessions: Vec<BeatWriter>,
    now: Nanos,
    last_tick: Nanos,
}

impl Real {
    /// Both motors at rest, both sessions open.
    pub fn started(path: &[Input]) -> Self {
        let config = Config::parse(Path::new("joint.toml"), ROBOT).expect("the robot is valid");
        let identity = Identity { config_hash: 1, pid: 1, started: Nanos(1), policy: ResetPolicy::Auto };
        let (verdicts, fd) =
            VerdictSegment::create(capacity(), &identity, &["a", "b"], &["can0"]).expect("a memfd");
        let view = VerdictView::map(fd.as_fd(), capacity()).expect("a mapping");
        let settings = Settings {
            front_window: WINDOW,
            windows: (WINDOW, WINDOW),
            stop_repeat: MS,
            tick: TICK,
            max_lateness: u64::MAX,
            proof_span: 0,
            violation_pause: 0,
            policy: ResetPolicy::Auto,
        };
        let motor = |motor: &config::Motor| {
            Motor::new(0, motor.drive.clone(), STAGE_TIMEOUT, speed_limits(motor), WINDOW)
        };
        let motors = config.motors.iter().map(motor).collect();
        let mut core = Core::new(settings, motors, 1, Vec::new(), verdicts, 2);
        let mut kernel = Kernel::default();
        core.start(START, &mut kernel);
        let fd =
            shm_proto::memory::create("joint-beats", BeatLayout::new(capacity()).words()).expect("a memfd");
        let beats = BeatSegment::map(fd.as_fd(), capacity(), Generation(1)).expect("a mapping");
        shm_proto::memory::seal(fd.as_fd()).expect("seals");
        let attached = BeatView::map(fd.as_fd(), capacity(), Generation(1)).expect("a mapping");
        let mut own = beats.front_writer();
        own.open_at(SessionId(7), WINDOW, START);
        core.attach(attached, 1, START, &mut kernel);
        let mut sessions: Vec<BeatWriter> =
            [0, 1].map(|slot| beats.writer(SlotIndex(slot)).expect("the slot exists")).into();
        for writer in &mut sessions {
            writer.open_at(SessionId(1), WINDOW, Nanos(START.0 + TICK - WINDOW.0 + EXPIRY));
        }
        let mut real = Self { core, kernel, view, beats, own, sessions, now: START, last_tick: START };
        for motor in MOTORS {
            real.report(motor, Part::Zero);
        }
        real.tick(&[Session::Live; 2], path);
        real
    }

    /// Gives the core one input. `pair` is the model after it, `rest` what comes after it.
    pub fn apply(&mut self, pair: &Pair, input: Input, rest: &[Input]) {
        self.kernel.given.clear();
        self.now = self.now.after(STEP);
        assert!(self.now.since(self.last_tick) < ASIDE, "too much happens between two ticks");
        match input {
            Input::Tick => self.tick(&pair.sessions, rest),
            Input::Expire(_) => {
                let since = self.now.since(self.last_tick);
                self.now = self.last_tick.after((since / EXPIRY + 1) * EXPIRY);
                self.core.step(self.now, &mut self.kernel);
            }
            Input::Frame(frame) => self.receive(Origin::Local, 0x200, command(frame)),
            Input::Report(motor, part) => self.report(motor, part),
            Input::Take(motor, session) => self.beats.take_motor(motor_index(motor), owner(session)),
        }
        assert_eq!(self.core.check_invariants(), None, "after {input:?}");
    }

    fn tick(&mut self, sessions: &[Session; 2], rest: &[Input]) {
        self.now = self.last_tick.after(TICK);
        self.last_tick = self.now;
        self.own.beat_at(self.now);
        let until_next: Vec<Input> = rest.iter().copied().take_while(|input| *input != Input::Tick).collect();
        let mut expiries = until_next.iter().filter(|input| matches!(input, Input::Expire(_)));
        let place = |session: u16| {
            expiries.clone().position(|input| *input == Input::Expire(u8::try_from(session).unwrap_or(0)))
        };
        let deadlines = [0, 1].map(|session| match place(session) {
            Some(place) => self.last_tick.after(EXPIRY * (place as u64 + 1)),
            None => self.last_tick.after(TICK + EXPIRY),
        });
        let _ = expiries.next();
        for (slot, deadline) in deadlines.into_iter().enumerate() {
            if sessions[slot] == Session::Live {
                self.sessions[slot].beat_at(Nanos(deadline.0 - WINDOW.0));
            }
        }
        self.core.step(self.now, &mut self.kernel);
    }

    /// Readings until they have an effect, and at most as many as a proof takes.
    fn report(&mut self, motor: usize, part: Part) {
        let (rpm, current): (i16, i16) = match part {
            Part::Zero => (0, 0),
            Part::Motion => (60, 1000),
        };
        let ([v0, v1], [c0, c1]) = (rpm.to_be_bytes(), current.to_be_bytes());
        let id = if motor == 0 { 0x201 } else { 0x202 };
        let before = self.state(motor);
        for _ in 0..READINGS {
            self.receive(Origin::Wire, id, [0, 0, v0, v1, c0, c1, 0, 0]);
            if self.state(motor) != before {
                return;
            }
        }
    }

    fn receive(&mut self, origin: Origin, id: u16, payload: [u8; 8]) {
        let frame = Frame::classic(ArbitrationId::standard(id), &payload);
        self.core.received(0, origin, &frame, self.now, &mut self.kernel);
    }

    fn state(&self, motor: usize) -> (MotorState, Option<Reason>) {
        let verdict = self.view.motor(motor_index(motor)).expect("the motor exists");
        (verdict.state, verdict.reason)
    }

    /// What differs between the two, if anything.
    pub fn difference(&self, pair: &Pair, sends: bool) -> Option<String> {
        for motor in MOTORS {
            let agrees = match (pair.motors[motor], self.state(motor).0) {
                (State::AtRest, state) => matches!(state, MotorState::Idle | MotorState::Stopped),
                (State::Granted(_), state) => state == MotorState::Granted,
                (State::Stopping(_), state) => state == MotorState::Stopping,
                (State::Unverified, state) => state == MotorState::Unverified,
            };
            let granted = self.view.granted(motor_index(motor));
            let wanted = match pair.motors[motor] {
                State::Granted(session) => Some(owner(session)),
                _ => None,
            };
            if !agrees || granted != wanted {
                return Some(format!(
                    "motor {motor}: model {:?}, code {:?}, granted {granted:?}",
                    pair.motors[motor],
                    self.state(motor)
                ));
            }
        }
        let zeros = Frame::classic(ArbitrationId::standard(0x200), &[0; 8]);
        if self.kernel.given.iter().any(|frame| *frame != zeros) {
            return Some(format!("something else than zeros: {:?}", self.kernel.given));
        }
        (sends == self.kernel.given.is_empty())
            .then(|| format!("stops: model {sends}, code {:?}", self.kernel.given))
    }
}

fn command(frame: Joint) -> [u8; 8] {
    let part = |motor: usize| if frame[motor] == Part::Motion { 1 } else { 0 };
    [part(0), 0, part(1), 0, 0, 0, 0, 0]
}

fn owner(session: u8) -> Owner {
    Owner { slot: SlotIndex(session.into()), incarnation: Incarnation::new(1) }
}

fn motor_index(motor: usize) -> MotorIndex {
    MotorIndex(u16::try_from(motor).unwrap_or(0))
}

fn capacity() -> Capacity {
    Capacity::new(2, 2).expect("in range")
}
