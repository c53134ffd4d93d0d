//! An AgileX mobile base, protocol v2: the chassis as a whole, big-endian, one on a bus.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::cycle::Cycle;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::to_i16;
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;

/// The kind, for the registry.
pub const KIND: Kind = Kind { name: "agilex", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
circumference_mm (510)  way of one revolution
feedback_ms (20)     system and motion state, 0 = never
watchdog_ms (500)    stands still after so long without a motion command, 0 = never
turning              already turning on the spot at this speed, rad/s";

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Agilex::new(Config::take(params)?)))
}

const MOTION_COMMAND: u32 = 0x111;
const BRAKE: u32 = 0x131;
const SYSTEM_STATE: u32 = 0x211;
const MOTION_STATE: u32 = 0x221;
const CONTROL_MODE: u32 = 0x421;
const STATE_RESET: u32 = 0x441;

/// Whose commands the base follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Standby,
    Can,
}

impl Mode {
    fn wire(self) -> u8 {
        match self {
            Self::Standby => 0,
            Self::Can => 1,
        }
    }
}

/// What a base is configured to at power-on.
#[derive(Clone, Debug)]
pub struct Config {
    node: u8,
    circumference_mm: f64,
    feedback: Duration,
    watchdog: Duration,
    running: Option<f64>,
    turning: Option<f64>,
    mechanics: Mechanics,
}

impl Config {
    /// Takes the keys of a base. Its number only names it.
    ///
    /// # Errors
    /// A value that cannot be read or is out of range, a missing number.
    pub fn take(params: &mut Params) -> Result<Self> {
        Ok(Self {
            node: params.node(0..=255)?,
            circumference_mm: params.number("circumference_mm", 510.0, 10.0..=10_000.0)?,
            feedback: params.millis("feedback_ms", 20)?,
            watchdog: params.millis("watchdog_ms", 500)?,
            running: params.optional("running", -100.0..=100.0)?,
            turning: params.optional("turning", -30.0..=30.0)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// One base.
#[derive(Debug)]
pub struct Agilex {
    config: Config,
    /// Injected misbehaviour and counters.
    pub behaviour: Behaviour,
    /// Forwards, in revolutions of a wheel.
    forwards: Shaft,
    /// About itself, in radians.
    about: Shaft,
    mode: Mode,
    brake: bool,
    error: u16,
    /// What it was told, rev/s and rad/s.
    target: (f64, f64),
    fed: Time,
    watchdog_tripped: bool,
    feedback: Cycle,
}

impl Agilex {
    /// A base that is switched on at time zero.
    pub fn new(config: Config) -> Self {
        let target = (config.running.unwrap_or_default(), config.turning.unwrap_or_default());
        let moves = config.running.is_some() || config.turning.is_some();
        // Turning on the spot is told without noise: the noise is that of the wheels.
        let quiet = Mechanics { noise: 0.0, ..config.mechanics.clone() };
        Self {
            forwards: Shaft::new(&config.mechanics, target.0, config.node),
            about: Shaft::new(&quiet, target.1, config.node),
            behaviour: Behaviour::default(),
            mode: if moves { Mode::Can } else { Mode::Standby },
            brake: false,
            error: 0,
            target,
            fed: Time::ZERO,
            watchdog_tripped: false,
            feedback: Cycle::new(Time::ZERO, config.feedback),
            config,
        }
    }

    /// What it does with one of its two movements.
    fn demand(&self, target: f64) -> Demand {
        let Mechanics { accel, quick_decel, .. } = self.config.mechanics;
        match self.mode {
            _ if self.brake || (self.mode == Mode::Can && self.error != 0) => {
                Demand::Velocity { velocity: 0.0, rate: quick_decel }
            }
            Mode::Standby => Demand::Off,
            Mode::Can => Demand::Velocity { velocity: target, rate: accel },
        }
    }

    fn advance(&mut self, now: Time) {
        let (forwards, about) = (self.demand(self.target.0), self.demand(self.target.1));
        self.forwards.advance(now, forwards);
        self.about.advance(now, about);
        let quiet = now.saturating_sub(self.fed);
        if !self.config.watchdog.is_zero() && quiet > self.config.watchdog && self.target != (0.0, 0.0) {
            self.target = (0.0, 0.0);
            self.watchdog_tripped = true;
        }
    }

    /// Carries out a command; none if it is too short or means nothing now.
    fn command(&mut self, now: Time, frame: &Frame) -> Option<()> {
        let first = || frame.payload().first().copied();
        match frame.id {
            MOTION_COMMAND => {
                let forwards = f64::from(frame.be_i16_at(0)?) / self.config.circumference_mm;
                let about = f64::from(frame.be_i16_at(2)?) / 1_000.0;
                if frame.payload() == [0; 8] {
                    if !self.behaviour.refuses(Stop::Controlled) {
                        self.target = (0.0, 0.0);
                    }
                } else if self.mode == Mode::Can {
                    self.target = (forwards, about);
                } else {
                    return None;
                }
                self.fed = now;
                self.watchdog_tripped = false;
            }
            BRAKE => match first()? {
                0 => self.brake = false,
                1 => {
                    if !self.behaviour.refuses(Stop::Quick) {
                        self.brake = true;
                    }
                }
                _ => return None,
            },
            CONTROL_MODE => match first()? {
                0 => {
                    if !self.behaviour.refuses(Stop::TorqueOff) {
                        self.mode = Mode::Standby;
                        self.target = (0.0, 0.0);
                    }
                }
                1 => self.mode = Mode::Can,
                _ => return None,
            },
            STATE_RESET => self.error = 0,
            _ => return None,
        }
        Some(())
    }

    fn system_state(&self) -> Frame {
        let [high, low] = self.error.to_be_bytes();
        let vehicle = if self.error == 0 { 0 } else { 2 };
        // 25.2 V.
        Frame::data(SYSTEM_STATE, &[vehicle, self.mode.wire(), 0, 252, high, low, 0, 0])
    }

    fn motion_state(&mut self) -> Frame {
        let forwards = to_i16(self.forwards.measured_velocity() * self.config.circumference_mm);
        let about = to_i16(self.about.velocity() * 1_000.0);
        let ([f0, f1], [a0, a1]) = (forwards.to_be_bytes(), about.to_be_bytes());
        Frame::data(MOTION_STATE, &[f0, f1, a0, a1, 0, 0, 0, 0])
    }
}

impl Model for Agilex {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        [MOTION_COMMAND, BRAKE, SYSTEM_STATE, MOTION_STATE, CONTROL_MODE, STATE_RESET]
            .map(IdRange::one)
            .to_vec()
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, _out: &mut Vec<Frame>) {
        if frame.extended || matches!(frame.id, SYSTEM_STATE | MOTION_STATE) {
            return;
        }
        if !self.own_ids().contains(&IdRange::one(frame.id)) {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        if self.command(now, frame).is_none() {
            self.behaviour.frames_refused += 1;
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.feedback.due(now) {
            out.push(self.system_state());
            if !self.behaviour.feedback_loss {
                let motion = self.motion_state();
                out.push(motion);
            }
        }
    }

    fn next_due(&self) -> Time {
        if self.config.watchdog.is_zero() || self.target == (0.0, 0.0) {
            return self.feedback.next();
        }
        // It expires after its time has passed, not when it has.
        let expiry = self.fed.saturating_add(self.config.watchdog).saturating_add(Duration::from_nanos(1));
        self.feedback.next().min(expiry)
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(code) => self.error = u16::try_from(code).unwrap_or(u16::MAX),
            Order::Jam(on) => (self.forwards.jammed, self.about.jammed) = (on, on),
            Order::Push(velocity) => self.forwards.pushed = velocity,
            Order::PowerCycle => {
                self.mode = Mode::Standby;
                (self.brake, self.error, self.target) = (false, 0, (0.0, 0.0));
                self.watchdog_tripped = false;
                self.fed = now;
                self.feedback = Cycle::new(now, self.config.feedback);
            }
            Order::Ignore(..) | Order::Mute(_) | Order::Offline(_) | Order::FeedbackLoss(_) | Order::Mark => {
            }
        }
        // A push or a jam shows at once.
        self.forwards.advance(now, self.demand(self.target.0));
        self.about.advance(now, self.demand(self.target.1));
    }

    fn status(&mut self, now: Time) -> Value {
        self.advance(now);
        let mut status = json!({
            "node": self.config.node,
            "kind": KIND.name,
            "velocity": self.forwards.velocity(),
            "position": self.forwards.position(),
            "turning": self.about.velocity(),
            "target": self.target.0,
            "mode": self.mode.wire(),
            "enabled": self.mode == Mode::Can,
            "brake": self.brake,
            "faults": self.error,
            "watchdog_tripped": self.watchdog_tripped,
            "jammed": self.forwards.jammed,
            "pushed": self.forwards.pushed,
        });
        self.behaviour.report(&mut status);
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::inject::Ignore;

    const MS: Duration = Duration::from_millis(1);

    fn base(keys: &str) -> Agilex {
        let mut params = Params::parse(keys).expect("well formed");
        let config = Config::take(&mut params).expect("valid");
        params.finish().expect("no unknown key");
        Agilex::new(config)
    }

    fn tell(base: &mut Agilex, ms: u32, id: u32, data: &[u8]) {
        base.on_frame(MS * ms, &Frame::data(id, data), &mut Vec::new());
    }

    fn reports(base: &mut Agilex, ms: u32) -> Vec<Frame> {
        let mut out = Vec::new();
        base.tick(MS * ms, &mut out);
        out
    }

    #[test]
    fn it_moves_in_can_mode_only() {
        let mut base = base("node=1,watchdog_ms=0");
        tell(&mut base, 1, MOTION_COMMAND, &[0x01, 0xFE, 0, 0, 0, 0, 0, 0]);
        assert_eq!((base.target, base.behaviour.frames_refused), ((0.0, 0.0), 1));
        tell(&mut base, 2, CONTROL_MODE, &[1]);
        tell(&mut base, 3, MOTION_COMMAND, &[0x01, 0xFE, 0x03, 0xE8, 0, 0, 0, 0]);
        base.advance(MS * 1000);
        let frames = reports(&mut base, 1001);
        assert_eq!(frames[0], Frame::data(SYSTEM_STATE, &[0, 1, 0, 252, 0, 0, 0, 0]));
        assert_eq!((frames[1].be_i16_at(0), frames[1].be_i16_at(2)), (Some(510), Some(1000)));
    }

    #[test]
    fn each_stop_has_its_own_effect() {
        let stopped = |id: u32, data: &[u8]| {
            let mut base = base("node=1,running=2,watchdog_ms=0");
            tell(&mut base, 0, id, data);
            base.advance(MS * 20);
            (base.forwards.velocity(), base.mode)
        };
        let (ramp, mode) = stopped(MOTION_COMMAND, &[0; 8]);
        assert!((ramp - 1.6).abs() < 1e-9 && mode == Mode::Can);
        let (brake, mode) = stopped(BRAKE, &[1, 0, 0, 0, 0, 0, 0, 0]);
        assert!((brake - 0.8).abs() < 1e-9 && mode == Mode::Can);
        let (coast, mode) = stopped(CONTROL_MODE, &[0; 8]);
        assert!((1.7..1.8).contains(&coast) && mode == Mode::Standby);
    }

    #[test]
    fn stops_can_be_without_effect_one_by_one() {
        let mut base = base("node=1,running=2,watchdog_ms=0");
        base.order(
            MS,
            &Order::Ignore(Ignore { controlled: true, quick: true, torque_off: true }, true),
            &mut vec![],
        );
        tell(&mut base, 2, MOTION_COMMAND, &[0; 8]);
        tell(&mut base, 2, BRAKE, &[1]);
        tell(&mut base, 2, CONTROL_MODE, &[0]);
        base.advance(MS * 500);
        assert!(base.forwards.velocity() == 2.0 && base.mode == Mode::Can);
        base.order(MS * 501, &Order::Ignore(Ignore { quick: true, ..Ignore::default() }, false), &mut vec![]);
        tell(&mut base, 502, MOTION_COMMAND, &[0; 8]);
        assert!(base.target == (2.0, 0.0), "still without effect");
        tell(&mut base, 502, BRAKE, &[1]);
        base.advance(MS * 600);
        assert!(base.forwards.velocity() == 0.0);
        assert_eq!(base.status(MS * 600)["stops_seen"]["ignored"], 4);
    }

    #[test]
    fn it_stands_still_when_nobody_commands_it() {
        let mut base = base("node=1,running=2,turning=1");
        base.advance(MS * 500);
        assert!(!base.watchdog_tripped && base.forwards.velocity() == 2.0);
        base.advance(MS * 501);
        base.advance(MS * 1000);
        assert!(base.watchdog_tripped && base.forwards.velocity() == 0.0 && base.about.velocity() == 0.0);
    }

    #[test]
    fn a_fault_stops_it_and_a_reset_takes_the_fault_away() {
        let mut base = base("node=1,running=2,watchdog_ms=0");
        base.order(MS, &Order::Fault(0x100), &mut vec![]);
        assert_eq!(reports(&mut base, 100)[0], Frame::data(SYSTEM_STATE, &[2, 1, 0, 252, 1, 0, 0, 0]));
        assert!(base.forwards.velocity() == 0.0);
        tell(&mut base, 101, STATE_RESET, &[0; 8]);
        assert_eq!(base.error, 0);
        base.order(MS * 102, &Order::PowerCycle, &mut vec![]);
        assert!(base.mode == Mode::Standby && base.target == (0.0, 0.0));
    }

    #[test]
    fn lost_feedback_is_that_of_motion() {
        let mut base = base("node=1");
        base.order(MS, &Order::FeedbackLoss(true), &mut vec![]);
        let ids: Vec<u32> = reports(&mut base, 20).iter().map(|frame| frame.id).collect();
        assert_eq!(ids, [SYSTEM_STATE]);
    }
}
