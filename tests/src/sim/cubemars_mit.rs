//! A CubeMars AK actuator in MIT mode.
//!
//! It answers what it is told and never speaks by itself; its replies have no word on the power stage. Where the
//! manual is silent, keys choose.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::mit::{self, Command, Ranges};
use super::model::Model;
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;

/// The kind, for the registry.
pub const KIND: Kind = Kind { name: "cubemars-mit", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
reply_id (0)         identifier of its replies
v_max (50)           range of the velocity, rad/s
t_max (18)           range of the torque, Nm
torque_gain (50)     rev/s^2 for each Nm
reply_bytes (8)      8, or 6 as old firmware: no temperature, no error
idle_answers (off)   whether it answers commands while it is off
watchdog_ms (0)      after how long without a frame it switches off, 0 = never";

#[derive(Clone, Debug)]
struct Config {
    node: u8,
    reply_id: u32,
    ranges: Ranges,
    torque_gain: f64,
    reply_bytes: usize,
    idle_answers: bool,
    watchdog: Duration,
    running: Option<f64>,
    mechanics: Mechanics,
}

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Cubemars::new(take(params)?)))
}

fn take(params: &mut Params) -> Result<Config> {
    Ok(Config {
        node: params.node(1..=255)?,
        reply_id: params.number("reply_id", 0, 0..=0x7FF)?,
        ranges: Ranges {
            position: 12.5,
            velocity: params.number("v_max", 50.0, 1.0..=1e3)?,
            torque: params.number("t_max", 18.0, 1.0..=1e3)?,
        },
        torque_gain: params.number("torque_gain", 50.0, 0.001..=1e6)?,
        reply_bytes: params.choice("reply_bytes", &[("8", 8), ("6", 6)])?,
        idle_answers: params.choice("idle_answers", &[("off", false), ("on", true)])?,
        watchdog: params.millis("watchdog_ms", 0)?,
        running: params.optional("running", -1e3..=1e3)?,
        mechanics: Mechanics::take(params)?,
    })
}

/// One actuator.
#[derive(Debug)]
struct Cubemars {
    config: Config,
    behaviour: Behaviour,
    shaft: Shaft,
    /// In motor mode: torque is produced.
    on: bool,
    error: u8,
    command: Command,
    fed: Time,
    watchdog_tripped: bool,
}

impl Cubemars {
    fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        Self {
            shaft: Shaft::new(&config.mechanics, running, config.node),
            behaviour: Behaviour::default(),
            on: config.running.is_some(),
            error: 0,
            command: Command { velocity: running, kd: 1.0, ..Command::default() },
            fed: Time::ZERO,
            watchdog_tripped: false,
            config,
        }
    }

    fn demand(&self) -> Demand {
        if self.on {
            self.command.demand(self.config.mechanics.accel, self.config.torque_gain)
        } else {
            Demand::Off
        }
    }

    fn advance(&mut self, now: Time) {
        if now > self.expiry() {
            self.shaft.advance(self.expiry(), self.demand());
            self.watchdog_tripped = true;
            self.on = false;
        }
        self.shaft.advance(now, self.demand());
    }

    /// The last moment at which a frame is in time.
    fn expiry(&self) -> Time {
        let watched = self.on && !self.config.watchdog.is_zero();
        if watched { self.fed.saturating_add(self.config.watchdog) } else { Time::MAX }
    }

    fn reply(&mut self, out: &mut Vec<Frame>) {
        if self.behaviour.feedback_loss {
            return;
        }
        let torque = mit::torque(&self.shaft, self.demand(), self.config.torque_gain);
        let velocity = self.shaft.measured_velocity();
        let [p0, p1, v, vt, t] = self.config.ranges.reply(self.shaft.position(), velocity, torque);
        let all = [self.config.node, p0, p1, v, vt, t, 30, self.error];
        let sent = all.get(..self.config.reply_bytes).unwrap_or(&all);
        out.push(Frame::data(self.config.reply_id, sent));
    }

    /// Whether the frame is answered; none if it makes no sense.
    fn take_in(&mut self, data: [u8; 8]) -> Option<bool> {
        match mit::special(data) {
            // Whatever was commanded before is forgotten.
            Some(mit::ENTER) => {
                self.command = Command::default();
                self.on |= self.error == 0;
            }
            Some(mit::EXIT) => self.on &= self.behaviour.refuses(Stop::TorqueOff),
            Some(mit::ZERO) => {}
            Some(_) => return None,
            None => {
                let command = self.config.ranges.command(data);
                if !(self.config.ranges.is_stop(&command) && self.behaviour.refuses(Stop::Controlled)) {
                    self.command = command;
                }
                return Some(self.on || self.config.idle_answers);
            }
        }
        Some(true)
    }
}

impl Model for Cubemars {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        vec![IdRange::one(u32::from(self.config.node))]
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        if frame.extended || frame.remote || frame.id != u32::from(self.config.node) {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        self.fed = now;
        match frame.bytes_at(0).and_then(|data| self.take_in(data)) {
            Some(true) => self.reply(out),
            Some(false) => {}
            None => self.behaviour.frames_refused += 1,
        }
    }

    fn tick(&mut self, now: Time, _out: &mut Vec<Frame>) {
        self.advance(now);
    }

    fn next_due(&self) -> Time {
        self.expiry().saturating_add(Duration::from_nanos(1))
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(code) => {
                self.error = u8::try_from(code).unwrap_or(u8::MAX);
                self.on &= code == 0;
            }
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                self.on = false;
                self.error = 0;
                self.watchdog_tripped = false;
                self.command = Command::default();
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
            "enabled": self.on,
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
    const FC: &str = "fffffffffffffffc";
    const FD: &str = "fffffffffffffffd";
    const DAMP: &str = "8000800000333800";
    /// (10 + 50) rad/s * 4096 / 100 = 0x999.
    const TURN: &str = "8000999000333800";

    fn drive(spec: &str) -> Cubemars {
        let mut params = Params::parse(spec).expect("well formed");
        let drive = Cubemars::new(take(&mut params).expect("valid"));
        params.finish().expect("all known");
        drive
    }

    fn say(drive: &mut Cubemars, ms: u32, id: u32, hex: &str) -> Vec<Frame> {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect();
        let mut out = Vec::new();
        drive.on_frame(MS * ms, &Frame::data(id, &bytes), &mut out);
        out
    }

    fn torque_of(frame: &Frame) -> u16 {
        frame.be_u16_at(4).expect("long enough") & 0xFFF
    }

    #[test]
    fn it_answers_on_the_hosts_id_with_its_own_in_front() {
        let mut a = drive("node=3");
        let replies = say(&mut a, 0, 3, FD);
        assert_eq!(replies, [Frame::data(0, &[3, 0x7F, 0xFF, 0x7F, 0xF7, 0xFF, 30, 0])]);
        assert!(say(&mut a, 0, 3, DAMP).is_empty(), "off, it does not answer commands");
        assert!(say(&mut a, 0, 4, FC).is_empty() && !a.on, "another's");
        assert_eq!(say(&mut drive("node=3,idle_answers=on"), 0, 3, DAMP).len(), 1);
        assert_eq!(say(&mut drive("node=3,reply_bytes=6"), 0, 3, FD)[0].len(), 6);
    }

    #[test]
    fn it_turns_damps_and_switches_off() {
        let mut a = drive("node=1");
        say(&mut a, 0, 1, TURN);
        say(&mut a, 1, 1, FC);
        a.advance(MS * 100);
        assert!(a.shaft.velocity() == 0.0, "what came before it was on is forgotten");
        say(&mut a, 100, 1, TURN);
        a.advance(MS * 1100);
        assert!((a.shaft.velocity() - 10.0 / std::f64::consts::TAU).abs() < 0.02);
        // A turning shaft takes torque: 1.6 rev/s / 0.15 s / 50 = 0.2 Nm are 24 steps.
        let replies = say(&mut a, 1100, 1, TURN);
        assert!(torque_of(&replies[0]) > 0x800 + 20);
        say(&mut a, 1100, 1, DAMP);
        a.advance(MS * 1500);
        assert!(a.on && a.shaft.velocity().abs() < 0.01 && a.shaft.velocity() != 0.0, "it creeps");
        let replies = say(&mut a, 1500, 1, FD);
        assert!(!a.on && (0x7FE..=0x801).contains(&torque_of(&replies[0])));
        let status = a.status(MS * 1500);
        assert_eq!(status["stops_seen"]["controlled"], 1);
        assert_eq!(status["stops_seen"]["torque_off"], 1);
    }

    #[test]
    fn ignored_stops_have_no_effect() {
        let mut a = drive("node=1,running=2");
        a.behaviour.ignore.controlled = true;
        say(&mut a, 0, 1, DAMP);
        a.advance(MS * 900);
        assert!(a.shaft.velocity() == 2.0);
        a.behaviour.ignore.torque_off = true;
        assert_eq!(say(&mut a, 900, 1, FD).len(), 1);
        assert!(a.on);
    }

    #[test]
    fn faults_and_its_watchdog_switch_it_off() {
        let mut a = drive("node=1,running=2,watchdog_ms=100");
        a.advance(MS * 100);
        assert!(a.on);
        a.advance(MS * 101);
        assert!(!a.on && a.watchdog_tripped);
        a.order(MS * 110, &Order::Fault(5), &mut Vec::new());
        assert_eq!(say(&mut a, 111, 1, FC)[0].payload()[7], 5);
        assert!(!a.on);
        a.order(MS * 112, &Order::PowerCycle, &mut Vec::new());
        assert_eq!(say(&mut a, 113, 1, FC)[0].payload()[7], 0);
        assert!(a.on);
    }
}
