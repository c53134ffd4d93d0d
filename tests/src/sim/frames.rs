//! A drive of no known family, for the profile whose frames stand in the configuration.
//!
//! Node n takes commands on 0x300 + n, little-endian: `00` torque off, `01` speed (i16, 0.1 rpm, in the bytes
//! 2 and 3), `02` quick stop, `03` enable. It reports on 0x380 + n every 10 ms: state (0 off, 1 on, 2 quick
//! stop, 0xE1 to 0xEF fault), node, speed (i16, 0.1 rpm), current (i16, mA), two zeros. After `watchdog_ms`
//! without a command it takes the torque away.

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
pub const KIND: Kind = Kind { name: "frames", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
feedback_ms (10)     0 = never
watchdog_ms (0)      torque off after so long without a command, 0 = never";

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Frames::new(Config::take(params)?)))
}

/// What holds the shaft takes this current, mA: a drive without torque shows none.
const HOLDING_CURRENT: i16 = 300;

/// What the power stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Off,
    On,
    QuickStop,
    Fault(u8),
}

impl State {
    fn wire(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::On => 1,
            Self::QuickStop => 2,
            Self::Fault(code) => 0xE0 | code,
        }
    }
}

/// What a drive is configured to at power-on.
#[derive(Clone, Debug)]
pub struct Config {
    node: u8,
    feedback: Duration,
    watchdog: Duration,
    running: Option<f64>,
    mechanics: Mechanics,
}

impl Config {
    /// Takes the keys of the drive.
    ///
    /// # Errors
    /// A value that cannot be read or is out of range, a missing node id.
    pub fn take(params: &mut Params) -> Result<Self> {
        Ok(Self {
            node: params.node(0..=127)?,
            feedback: params.millis("feedback_ms", 10)?,
            watchdog: params.millis("watchdog_ms", 0)?,
            running: params.optional("running", -50.0..=50.0)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// One drive.
#[derive(Debug)]
pub struct Frames {
    config: Config,
    /// Injected misbehaviour and counters.
    pub behaviour: Behaviour,
    shaft: Shaft,
    state: State,
    target: f64,
    fed: Time,
    watchdog_tripped: bool,
    feedback: Cycle,
}

impl Frames {
    /// A drive that is switched on at time zero.
    pub fn new(config: Config) -> Self {
        let target = config.running.unwrap_or_default();
        Self {
            shaft: Shaft::new(&config.mechanics, target, config.node),
            behaviour: Behaviour::default(),
            state: if config.running.is_some() { State::On } else { State::Off },
            target,
            fed: Time::ZERO,
            watchdog_tripped: false,
            feedback: Cycle::new(Time::ZERO, config.feedback),
            config,
        }
    }

    fn command_id(&self) -> u32 {
        0x300 + u32::from(self.config.node)
    }

    fn report_id(&self) -> u32 {
        0x380 + u32::from(self.config.node)
    }

    fn demand(&self) -> Demand {
        let Mechanics { accel, quick_decel, .. } = self.config.mechanics;
        match self.state {
            State::Off | State::Fault(_) => Demand::Off,
            State::On => Demand::Velocity { velocity: self.target, rate: accel },
            State::QuickStop => Demand::Velocity { velocity: 0.0, rate: quick_decel },
        }
    }

    fn is_watched(&self) -> bool {
        !self.config.watchdog.is_zero() && matches!(self.state, State::On | State::QuickStop)
    }

    fn advance(&mut self, now: Time) {
        let demand = self.demand();
        self.shaft.advance(now, demand);
        if self.is_watched() && now.saturating_sub(self.fed) > self.config.watchdog {
            self.state = State::Off;
            self.watchdog_tripped = true;
        }
    }

    /// Carries out a command; none if it is unknown or too short.
    fn command(&mut self, frame: &Frame) -> Option<()> {
        match frame.payload().first()? {
            0x00 => {
                if !self.behaviour.refuses(Stop::TorqueOff) && !matches!(self.state, State::Fault(_)) {
                    self.state = State::Off;
                }
            }
            0x01 => {
                let speed = f64::from(frame.i16_at(2)?) / 600.0;
                if speed != 0.0 || !self.behaviour.refuses(Stop::Controlled) {
                    self.target = speed;
                }
            }
            0x02 => {
                if !self.behaviour.refuses(Stop::Quick) && self.state == State::On {
                    self.state = State::QuickStop;
                }
            }
            // Speeds given earlier apply again.
            0x03 if !matches!(self.state, State::Fault(_)) => self.state = State::On,
            _ => return None,
        }
        Some(())
    }

    fn report(&mut self) -> Frame {
        let [v0, v1] = to_i16(self.shaft.measured_velocity() * 600.0).to_le_bytes();
        let current = if self.demand() == Demand::Off { 0 } else { HOLDING_CURRENT };
        let [c0, c1] = current.to_le_bytes();
        Frame::data(self.report_id(), &[self.state.wire(), self.config.node, v0, v1, c0, c1, 0, 0])
    }
}

impl Model for Frames {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        vec![IdRange::one(self.command_id()), IdRange::one(self.report_id())]
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, _out: &mut Vec<Frame>) {
        if frame.id != self.command_id() || frame.extended {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        if self.command(frame).is_some() {
            self.fed = now;
            self.watchdog_tripped = false;
        } else {
            self.behaviour.frames_refused += 1;
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.feedback.due(now) && !self.behaviour.feedback_loss {
            let report = self.report();
            out.push(report);
        }
    }

    fn next_due(&self) -> Time {
        // It expires after its time has passed, not when it has.
        let expiry = self.fed.saturating_add(self.config.watchdog).saturating_add(Duration::from_nanos(1));
        if self.is_watched() { self.feedback.next().min(expiry) } else { self.feedback.next() }
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(0) => self.state = State::Off,
            // Fifteen faults, of which 0 is none.
            Order::Fault(code) => self.state = State::Fault(u8::try_from(code.clamp(1, 15)).unwrap_or(15)),
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                (self.state, self.target, self.watchdog_tripped) = (State::Off, 0.0, false);
                self.fed = now;
                self.feedback = Cycle::new(now, self.config.feedback);
            }
            Order::Ignore(..) | Order::Mute(_) | Order::Offline(_) | Order::FeedbackLoss(_) | Order::Mark => {
            }
        }
        // A push or a jam shows at once.
        self.shaft.advance(now, self.demand());
    }

    fn status(&mut self, now: Time) -> Value {
        self.advance(now);
        let mut status = json!({
            "node": self.config.node,
            "kind": KIND.name,
            "velocity": self.shaft.velocity(),
            "position": self.shaft.position(),
            "target": self.target,
            "state_code": self.state.wire(),
            "enabled": self.state == State::On,
            "faults": match self.state { State::Fault(code) => code, _ => 0 },
            "watchdog_tripped": self.watchdog_tripped,
            "jammed": self.shaft.jammed,
            "pushed": self.shaft.pushed,
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

    fn drive(keys: &str) -> Frames {
        let mut params = Params::parse(keys).expect("well formed");
        let config = Config::take(&mut params).expect("valid");
        params.finish().expect("no unknown key");
        Frames::new(config)
    }

    fn tell(drive: &mut Frames, ms: u32, data: &[u8]) {
        drive.on_frame(MS * ms, &Frame::data(0x304, data), &mut Vec::new());
    }

    fn report(drive: &mut Frames, ms: u32) -> Frame {
        let mut out = Vec::new();
        drive.tick(MS * ms, &mut out);
        out.pop().expect("it is due")
    }

    #[test]
    fn it_is_enabled_driven_and_reports() {
        let mut drive = drive("node=4");
        tell(&mut drive, 0, &[1, 0, 0x58, 2]);
        assert_eq!(report(&mut drive, 10), Frame::data(0x384, &[0, 4, 0, 0, 0, 0, 0, 0]), "it is off");
        tell(&mut drive, 10, &[3]);
        assert_eq!(report(&mut drive, 1000), Frame::data(0x384, &[1, 4, 0x58, 2, 0x2C, 1, 0, 0]));
        tell(&mut drive, 1000, &[9]);
        tell(&mut drive, 1000, &[1, 0, 1]);
        assert_eq!(drive.behaviour.frames_refused, 2);
    }

    #[test]
    fn each_stop_has_its_own_effect() {
        let after = |data: &[u8]| {
            let mut drive = drive("node=4,running=2");
            tell(&mut drive, 0, data);
            drive.advance(MS * 20);
            (drive.shaft.velocity(), drive.state)
        };
        let (ramp, state) = after(&[1, 0, 0, 0]);
        assert!((ramp - 1.6).abs() < 1e-9 && state == State::On);
        let (quick, state) = after(&[2]);
        assert!((quick - 0.8).abs() < 1e-9 && state == State::QuickStop);
        let (coast, state) = after(&[0]);
        assert!((1.7..1.8).contains(&coast) && state == State::Off);
    }

    #[test]
    fn stops_can_be_without_effect() {
        let mut drive = drive("node=4,running=2");
        drive.order(
            MS,
            &Order::Ignore(Ignore { controlled: true, quick: true, torque_off: true }, true),
            &mut vec![],
        );
        for data in [&[1, 0, 0, 0][..], &[2], &[0]] {
            tell(&mut drive, 2, data);
        }
        drive.advance(MS * 500);
        assert!(drive.shaft.velocity() == 2.0 && drive.state == State::On);
        assert_eq!(drive.status(MS * 500)["stops_seen"]["ignored"], 3);
    }

    #[test]
    fn a_fault_a_timeout_and_a_power_cycle_take_the_torque() {
        let mut drive = drive("node=4,running=2,watchdog_ms=100");
        drive.advance(MS * 100);
        assert!(drive.state == State::On);
        drive.advance(MS * 101);
        assert!(drive.state == State::Off && drive.watchdog_tripped);
        tell(&mut drive, 102, &[3]);
        drive.order(MS * 103, &Order::Fault(5), &mut vec![]);
        assert_eq!(report(&mut drive, 110).payload()[0], 0xE5);
        tell(&mut drive, 111, &[3]);
        assert_eq!(drive.state, State::Fault(5), "it must be taken away first");
        drive.order(MS * 112, &Order::PowerCycle, &mut vec![]);
        assert!(drive.state == State::Off && drive.target == 0.0);
    }
}
