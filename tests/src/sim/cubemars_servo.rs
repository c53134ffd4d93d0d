//! A CubeMars AK actuator in servo mode: commands numbered as VESC's, and a status that it sends by itself.
//!
//! Speeds of the shaft are those of the output.

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
pub const KIND: Kind = Kind { name: "cubemars-servo", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
pole_pairs (21)      of the rotor
gear (9)             turns of the rotor for one of the output
status_ms (10)       how often it sends its status, 0 = never
current_gain (20)    rev/s^2 for each ampere
broadcast (on)       whether it takes commands for motor 255
watchdog_ms (0)      after how long without a command it releases, 0 = never";

const STATUS: u32 = 0x29;
const ALL: u32 = 255;

#[derive(Clone, Debug)]
struct Config {
    node: u8,
    erpm_per_rps: f64,
    status: Duration,
    current_gain: f64,
    broadcast: bool,
    watchdog: Duration,
    running: Option<f64>,
    mechanics: Mechanics,
}

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Servo::new(take(params)?)))
}

fn take(params: &mut Params) -> Result<Config> {
    let pole_pairs = params.number("pole_pairs", 21.0, 1.0..=100.0)?;
    let gear = params.number("gear", 9.0, 1.0..=500.0)?;
    Ok(Config {
        node: params.node(0..=254)?,
        erpm_per_rps: pole_pairs * gear * 60.0,
        status: params.millis("status_ms", 10)?,
        current_gain: params.number("current_gain", 20.0, 0.001..=1e6)?,
        broadcast: params.choice("broadcast", &[("on", true), ("off", false)])?,
        watchdog: params.millis("watchdog_ms", 0)?,
        running: params.optional("running", -1e3..=1e3)?,
        mechanics: Mechanics::take(params)?,
    })
}

/// What it was told last.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Setpoint {
    /// No current.
    Released,
    /// Of full duty, which is taken for a speed here.
    Speed(f64),
    /// A, against the motion.
    Brake(f64),
    /// A.
    Current(f64),
}

/// Output speed at full duty, rev/s.
const FULL_DUTY: f64 = 4.0;

/// One actuator.
#[derive(Debug)]
struct Servo {
    config: Config,
    behaviour: Behaviour,
    shaft: Shaft,
    setpoint: Setpoint,
    error: u8,
    fed: Time,
    watchdog_tripped: bool,
    status: Cycle,
}

impl Servo {
    fn new(config: Config) -> Self {
        Self {
            shaft: Shaft::new(&config.mechanics, config.running.unwrap_or_default(), config.node),
            behaviour: Behaviour::default(),
            setpoint: config.running.map_or(Setpoint::Released, Setpoint::Speed),
            error: 0,
            fed: Time::ZERO,
            watchdog_tripped: false,
            status: Cycle::new(Time::ZERO, config.status),
            config,
        }
    }

    fn demand(&self) -> Demand {
        let gain = self.config.current_gain;
        match self.setpoint {
            Setpoint::Released => Demand::Off,
            Setpoint::Speed(velocity) => Demand::Velocity { velocity, rate: self.config.mechanics.accel },
            Setpoint::Brake(current) => Demand::Velocity { velocity: 0.0, rate: current * gain },
            Setpoint::Current(current) => Demand::Torque { acceleration: current * gain },
        }
    }

    fn advance(&mut self, now: Time) {
        if now > self.expiry() {
            self.shaft.advance(self.expiry(), self.demand());
            self.watchdog_tripped = true;
            self.setpoint = Setpoint::Released;
        }
        self.shaft.advance(now, self.demand());
    }

    /// The last moment at which a command is in time.
    fn expiry(&self) -> Time {
        let watched = self.setpoint != Setpoint::Released && !self.config.watchdog.is_zero();
        if watched { self.fed.saturating_add(self.config.watchdog) } else { Time::MAX }
    }

    fn command(&mut self, command: u32, frame: &Frame) -> Option<()> {
        let value = frame.be_i32_at(0).filter(|_| frame.len() == 4)?;
        let (setpoint, stop) = match (command, f64::from(value)) {
            (0, duty) => (Setpoint::Speed(duty / 1e5 * FULL_DUTY), Stop::Controlled),
            (1, 0.0) => (Setpoint::Released, Stop::TorqueOff),
            (1, current) => (Setpoint::Current(current / 1000.0), Stop::TorqueOff),
            (2, current) => (Setpoint::Brake(current.abs() / 1000.0), Stop::Quick),
            (3, erpm) => (Setpoint::Speed(erpm / self.config.erpm_per_rps), Stop::Controlled),
            _ => return None,
        };
        let stops = value == 0 || command == 2;
        if !(stops && self.behaviour.refuses(stop)) && self.error == 0 {
            self.setpoint = setpoint;
        }
        Some(())
    }

    fn status(&mut self) -> Frame {
        let turns = self.shaft.position();
        let erpm = self.shaft.measured_velocity() * self.config.erpm_per_rps;
        let current = self.shaft.effort(self.demand()) / self.config.current_gain;
        let [p0, p1] = to_i16((turns * 3600.0).clamp(-32_000.0, 32_000.0)).to_be_bytes();
        let [s0, s1] = to_i16(erpm / 10.0).to_be_bytes();
        let [c0, c1] = to_i16(current * 100.0).to_be_bytes();
        let id = STATUS << 8 | u32::from(self.config.node);
        Frame::data(id, &[p0, p1, s0, s1, c0, c1, 30, self.error]).with_extended(true)
    }
}

impl Model for Servo {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        let node = u32::from(self.config.node);
        vec![IdRange::extended(node, 0x1FFF_F0FF), IdRange::extended(STATUS << 8 | node, 0x1FFF_FFFF)]
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        let mut heard = self.own_ids();
        if self.config.broadcast {
            heard.push(IdRange::extended(ALL, 0x1FFF_F0FF));
        }
        heard
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, _out: &mut Vec<Frame>) {
        let to = frame.id & 0xFF;
        let ours = to == u32::from(self.config.node) || (to == ALL && self.config.broadcast);
        if !frame.extended || frame.remote || !ours || frame.id >> 8 > 0x0F {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        self.fed = now;
        if self.command(frame.id >> 8, frame).is_none() {
            self.behaviour.frames_refused += 1;
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.status.due(now) && !self.behaviour.feedback_loss {
            let status = Servo::status(self);
            out.push(status);
        }
    }

    fn next_due(&self) -> Time {
        self.status.next().min(self.expiry().saturating_add(Duration::from_nanos(1)))
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(0) => self.error = 0,
            Order::Fault(code) => {
                self.error = u8::try_from(code).unwrap_or(u8::MAX);
                self.setpoint = Setpoint::Released;
            }
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                self.setpoint = Setpoint::Released;
                self.error = 0;
                self.watchdog_tripped = false;
                self.status = Cycle::new(now, self.config.status);
            }
            Order::Ignore(..) | Order::Mute(_) | Order::Offline(_) | Order::FeedbackLoss(_) | Order::Mark => {
            }
        }
        self.shaft.advance(now, self.demand());
    }

    fn status(&mut self, now: Time) -> Value {
        self.advance(now);
        let mut status = json!({
            "node": self.config.node,
            "kind": KIND.name,
            "velocity": self.shaft.velocity(),
            "position": self.shaft.position(),
            "target": match self.demand() { Demand::Velocity { velocity, .. } => velocity, _ => 0.0 },
            "enabled": self.setpoint != Setpoint::Released,
            "faults": self.error,
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

    const MS: Duration = Duration::from_millis(1);

    fn drive(spec: &str) -> Servo {
        let mut params = Params::parse(spec).expect("well formed");
        let drive = Servo::new(take(&mut params).expect("valid"));
        params.finish().expect("all known");
        drive
    }

    fn say(drive: &mut Servo, ms: u32, id: u32, value: i32) {
        let frame = Frame::data(id, &value.to_be_bytes()).with_extended(true);
        drive.on_frame(MS * ms, &frame, &mut Vec::new());
    }

    #[test]
    fn its_status_has_the_published_form() {
        let mut a = drive("node=1");
        let mut out = Vec::new();
        a.tick(MS * 10, &mut out);
        assert_eq!(out, [Frame::data(0x2901, &[0, 0, 0, 0, 0, 0, 30, 0]).with_extended(true)]);
        a.shaft.pushed = Some(-1.0);
        a.advance(MS * 10);
        a.tick(MS * 20, &mut out);
        // -11340 electrical turns a minute, in tens.
        assert_eq!(out[1].be_i16_at(2), Some(-1134));
        a.behaviour.feedback_loss = true;
        a.tick(MS * 30, &mut out);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn speed_brake_and_release() {
        let mut a = drive("node=1");
        say(&mut a, 0, 0x301, 11_340);
        a.advance(MS * 1000);
        assert!((a.shaft.velocity() - 1.0).abs() < 1e-9);
        assert!(Servo::status(&mut a).be_i16_at(4) > Some(20), "a turning shaft takes current");
        say(&mut a, 1000, 0x301, 0);
        a.advance(MS * 1500);
        assert!(a.shaft.velocity() == 0.0 && a.setpoint == Setpoint::Speed(0.0), "it holds");
        say(&mut a, 1500, 0x201, 5000);
        say(&mut a, 1500, 0x101, 0);
        assert!(a.setpoint == Setpoint::Released);
        assert_eq!(Servo::status(&mut a).be_i16_at(4), Some(0));
        let stops = &Model::status(&mut a, MS * 1500)["stops_seen"];
        assert!(stops["controlled"] == 1 && stops["quick"] == 1 && stops["torque_off"] == 1);
    }

    #[test]
    fn ignored_stops_have_no_effect_one_kind_at_a_time() {
        let mut a = drive("node=1,running=2");
        a.behaviour.ignore.controlled = true;
        say(&mut a, 0, 0x301, 0);
        a.advance(MS * 100);
        assert!(a.shaft.velocity() == 2.0);
        say(&mut a, 100, 0x201, 5000);
        a.advance(MS * 110);
        assert!(a.shaft.velocity() < 2.0 && a.shaft.velocity() > 0.0);
        a.advance(MS * 300);
        assert!(a.shaft.velocity() == 0.0, "a brake does not turn it back");
    }

    #[test]
    fn others_frames_do_nothing_and_those_to_all_do() {
        let mut a = drive("node=1,running=2");
        say(&mut a, 0, 0x302, 0);
        let standard = Frame::data(0x301, &[0; 4]);
        a.on_frame(Time::ZERO, &standard, &mut Vec::new());
        assert!(a.setpoint == Setpoint::Speed(2.0));
        let long = Frame::data(0x301, &[0; 8]).with_extended(true);
        a.on_frame(Time::ZERO, &long, &mut Vec::new());
        assert!(a.setpoint == Setpoint::Speed(2.0) && a.behaviour.frames_refused == 1);
        say(&mut a, 0, 0x1FF, 0);
        assert!(a.setpoint == Setpoint::Released);
        let mut deaf = drive("node=1,running=2,broadcast=off");
        say(&mut deaf, 0, 0x1FF, 0);
        assert!(deaf.setpoint == Setpoint::Speed(2.0));
    }

    #[test]
    fn faults_and_its_watchdog_release() {
        let mut a = drive("node=1,running=2,watchdog_ms=100,status_ms=0");
        assert_eq!(a.next_due(), MS * 100 + Duration::from_nanos(1));
        a.advance(MS * 101);
        assert!(a.setpoint == Setpoint::Released && a.watchdog_tripped);
        a.order(MS * 110, &Order::Fault(3), &mut Vec::new());
        say(&mut a, 111, 0x301, 11_340);
        assert!(a.setpoint == Setpoint::Released);
        assert_eq!(Servo::status(&mut a).payload()[7], 3);
        a.order(MS * 112, &Order::PowerCycle, &mut Vec::new());
        say(&mut a, 113, 0x301, 11_340);
        assert!(a.setpoint == Setpoint::Speed(1.0));
    }
}
