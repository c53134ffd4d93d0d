//! A RoboMaster motor: a C620 or C610 controller with its motor, or a GM6020.
//!
//! It takes two bytes of a frame for four motors, big-endian, and reports every millisecond. It follows the
//! last command for as long as it has power, unless it is given a timeout.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::Time;
use super::cycle::Cycle;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::{to_i16, to_u16};
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;

/// The kind, for the registry.
pub const KIND: Kind = Kind { name: "dji", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
model (c620)         c620, c610 or gm6020
feedback_ms (1)      0 = never
watchdog_ms (0)      no current after so long without a command, 0 = never
torque_gain (200)    rev/s^2 for each ampere (of a GM6020: volt)";

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Dji::new(Config::take(params)?)))
}

/// A kind of controller: how many there are, where they report, and what the largest command means.
#[derive(Clone, Copy, Debug)]
struct Make {
    name: &'static str,
    last: u8,
    reports_from: u32,
    most: i16,
    units: f64,
}

const C620: Make = Make { name: "c620", last: 8, reports_from: 0x200, most: 16_384, units: 20.0 };
const C610: Make = Make { name: "c610", last: 8, reports_from: 0x200, most: 10_000, units: 10.0 };
const GM6020: Make = Make { name: "gm6020", last: 7, reports_from: 0x204, most: 30_000, units: 24.0 };

/// What a motor is configured to at power-on.
#[derive(Clone, Debug)]
pub struct Config {
    node: u8,
    make: Make,
    feedback: Duration,
    watchdog: Duration,
    torque_gain: f64,
    running: Option<f64>,
    mechanics: Mechanics,
}

impl Config {
    /// Takes the keys of a RoboMaster motor.
    ///
    /// # Errors
    /// A value that cannot be read or is out of range, a missing number.
    pub fn take(params: &mut Params) -> Result<Self> {
        let config = Self {
            node: params.node(1..=8)?,
            make: params.choice("model", &[("c620", C620), ("c610", C610), ("gm6020", GM6020)])?,
            feedback: params.millis("feedback_ms", 1)?,
            watchdog: params.millis("watchdog_ms", 0)?,
            torque_gain: params.number("torque_gain", 200.0, 0.001..=1e6)?,
            running: params.optional("running", -400.0..=400.0)?,
            mechanics: Mechanics::take(params)?,
        };
        if config.node > config.make.last {
            bail!("node={}: a {} has a number up to {}", config.node, config.make.name, config.make.last);
        }
        Ok(config)
    }
}

/// One motor.
#[derive(Debug)]
pub struct Dji {
    config: Config,
    /// Injected misbehaviour and counters.
    pub behaviour: Behaviour,
    shaft: Shaft,
    /// The last command, counts.
    counts: i16,
    /// Why it produces nothing, whatever it is told; 0: it does as it is told.
    fault: u32,
    fed: Time,
    watchdog_tripped: bool,
    feedback: Cycle,
}

impl Dji {
    /// A motor that is switched on at time zero.
    pub fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        let mut motor = Self {
            shaft: Shaft::new(&config.mechanics, running, config.node),
            behaviour: Behaviour::default(),
            counts: 0,
            fault: 0,
            fed: Time::ZERO,
            watchdog_tripped: false,
            feedback: Cycle::new(Time::ZERO, config.feedback),
            config,
        };
        // What keeps it at that speed against friction.
        let units = running / motor.config.mechanics.friction / motor.config.torque_gain;
        let make = motor.config.make;
        motor.counts = to_i16(units / make.units * f64::from(make.most)).clamp(-make.most, make.most);
        motor
    }

    /// The frame that commands it, and the first of its two bytes there.
    fn place(&self) -> (u32, usize) {
        let index = usize::from(self.config.node - 1);
        let frames = if self.config.make.reports_from == 0x204 { [0x1FF, 0x2FF] } else { [0x200, 0x1FF] };
        (frames[index / 4], index % 4 * 2)
    }

    fn report_id(&self) -> u32 {
        self.config.make.reports_from + u32::from(self.config.node)
    }

    fn effective(&self) -> i16 {
        if self.fault == 0 { self.counts } else { 0 }
    }

    fn demand(&self) -> Demand {
        let make = self.config.make;
        match self.effective() {
            0 => Demand::Off,
            counts => {
                let units = f64::from(counts) / f64::from(make.most) * make.units;
                Demand::Torque { acceleration: units * self.config.torque_gain }
            }
        }
    }

    fn advance(&mut self, now: Time) {
        let demand = self.demand();
        self.shaft.advance(now, demand);
        let quiet = now.saturating_sub(self.fed);
        if !self.config.watchdog.is_zero() && quiet > self.config.watchdog && self.counts != 0 {
            self.counts = 0;
            self.watchdog_tripped = true;
        }
    }

    fn report(&mut self) -> Frame {
        let angle = to_u16((self.shaft.position().rem_euclid(1.0) * 8192.0).floor()).min(8191);
        let rpm = to_i16(self.shaft.measured_velocity() * 60.0);
        let [a0, a1] = angle.to_be_bytes();
        let [v0, v1] = rpm.to_be_bytes();
        let [c0, c1] = self.effective().to_be_bytes();
        Frame::data(self.report_id(), &[a0, a1, v0, v1, c0, c1, 30, 0])
    }
}

impl Model for Dji {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        vec![IdRange::one(self.report_id())]
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        vec![IdRange::one(self.place().0)]
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, _out: &mut Vec<Frame>) {
        let (id, first) = self.place();
        if frame.id != id || frame.extended {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        let part = if frame.len() == 8 { frame.be_i16_at(first) } else { None };
        match part {
            None => {
                self.behaviour.frames_refused += 1;
                return;
            }
            Some(0) => {
                if !self.behaviour.refuses(Stop::TorqueOff) {
                    self.counts = 0;
                }
            }
            Some(counts) => self.counts = counts.clamp(-self.config.make.most, self.config.make.most),
        }
        self.fed = now;
        self.watchdog_tripped = false;
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.feedback.due(now) && !self.behaviour.feedback_loss {
            let report = self.report();
            out.push(report);
        }
    }

    fn next_due(&self) -> Time {
        if self.config.watchdog.is_zero() || self.counts == 0 {
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
            // A zero is all that it knows of stopping.
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.torque_off = on,
            Order::Fault(code) => self.fault = code,
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                self.counts = 0;
                self.fault = 0;
                self.watchdog_tripped = false;
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
            "model": self.config.make.name,
            "velocity": self.shaft.velocity(),
            "position": self.shaft.position(),
            "counts": self.counts,
            "enabled": self.effective() != 0,
            "faults": self.fault,
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

    fn motor(keys: &str) -> Dji {
        let mut params = Params::parse(keys).expect("well formed");
        let config = Config::take(&mut params).expect("valid");
        params.finish().expect("no unknown key");
        Dji::new(config)
    }

    fn tell(motor: &mut Dji, ms: u32, id: u32, data: [u8; 8]) {
        motor.on_frame(MS * ms, &Frame::data(id, &data), &mut Vec::new());
    }

    fn report(motor: &mut Dji, ms: u32) -> Frame {
        let mut out = Vec::new();
        motor.tick(MS * ms, &mut out);
        out.pop().expect("it is due")
    }

    #[test]
    fn a_part_is_for_one_motor() {
        let mut third = motor("node=3");
        tell(&mut third, 1, 0x200, [0xFF; 8].map(|_| 0x11));
        assert_eq!(third.counts, 0x1111);
        tell(&mut third, 2, 0x200, [0x22, 0x22, 0, 0, 0x03, 0xE8, 0, 0]);
        assert_eq!(third.counts, 1000);
        tell(&mut third, 3, 0x1FF, [0; 8]);
        assert_eq!(third.counts, 1000, "that frame is for others");
        third.on_frame(MS * 4, &Frame::data(0x200, &[0; 7]), &mut Vec::new());
        assert_eq!((third.counts, third.behaviour.frames_refused), (1000, 1));
        tell(&mut third, 5, 0x200, [0x22, 0x22, 0, 0, 0, 0, 0, 0]);
        assert_eq!(third.counts, 0);
        let places = ["node=1", "node=8", "node=4,model=gm6020", "node=5,model=gm6020"];
        let places = places.map(|keys| (motor(keys).place(), motor(keys).report_id()));
        assert_eq!(
            places,
            [((0x200, 0), 0x201), ((0x1FF, 6), 0x208), ((0x1FF, 6), 0x208), ((0x2FF, 0), 0x209)]
        );
    }

    #[test]
    fn commands_are_bounded_by_what_it_can_do() {
        let mut small = motor("node=1,model=c610");
        tell(&mut small, 1, 0x200, [0x7F, 0xFF, 0, 0, 0, 0, 0, 0]);
        assert_eq!(small.counts, 10_000);
        assert!(Config::take(&mut Params::parse("node=8,model=gm6020").expect("well formed")).is_err());
    }

    #[test]
    fn it_reports_what_it_does() {
        let mut motor = motor("node=1,running=10");
        // 10 rev/s against a friction of 0.15 s at 200 rev/s² for each ampere: a third of an ampere.
        assert_eq!(motor.counts, 273);
        let frame = report(&mut motor, 1);
        assert_eq!(frame.id, 0x201);
        assert_eq!((frame.be_i16_at(2), frame.be_i16_at(4)), (Some(600), Some(273)));
        tell(&mut motor, 2, 0x200, [0; 8]);
        let frame = report(&mut motor, 152);
        let rpm = frame.be_i16_at(2).expect("eight bytes");
        assert!((220..=222).contains(&rpm), "it coasts: {rpm}");
        assert_eq!(frame.be_i16_at(4), Some(0));
        assert!(frame.be_u16_at(0).expect("eight bytes") < 8192);
        assert_eq!(report(&mut motor, 3000).be_i16_at(2), Some(0));
    }

    #[test]
    fn a_stop_can_be_without_effect() {
        let mut motor = motor("node=1,running=10");
        let ignore = Ignore { torque_off: true, ..Ignore::default() };
        motor.order(MS, &Order::Ignore(ignore, true), &mut Vec::new());
        tell(&mut motor, 2, 0x200, [0; 8]);
        assert_ne!(motor.counts, 0);
        assert_eq!(motor.status(MS * 3)["stops_seen"]["torque_off"], 1);
        motor.order(MS * 4, &Order::Ignore(ignore, false), &mut Vec::new());
        tell(&mut motor, 5, 0x200, [0; 8]);
        assert_eq!(motor.counts, 0);
    }

    #[test]
    fn only_a_timeout_stops_it_when_nobody_commands() {
        let mut forever = motor("node=1,running=10");
        forever.advance(MS * 60_000);
        assert!(forever.shaft.velocity() > 9.9);
        let mut motor = motor("node=1,running=10,watchdog_ms=100");
        assert_eq!(motor.next_due(), MS);
        motor.advance(MS * 100);
        assert!(!motor.watchdog_tripped);
        motor.advance(MS * 101);
        assert!(motor.watchdog_tripped && motor.counts == 0);
    }

    #[test]
    fn a_fault_takes_the_current_and_a_power_cycle_the_command() {
        let mut motor = motor("node=1,running=10");
        motor.order(MS, &Order::Fault(4), &mut Vec::new());
        assert_eq!(report(&mut motor, 2).be_i16_at(4), Some(0));
        motor.order(MS * 3, &Order::Fault(0), &mut Vec::new());
        assert_ne!(report(&mut motor, 4).be_i16_at(4), Some(0));
        motor.order(MS * 5, &Order::PowerCycle, &mut Vec::new());
        assert_eq!(report(&mut motor, 6).be_i16_at(4), Some(0));
    }
}
