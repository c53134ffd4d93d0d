//! A Damiao DM actuator: modes MIT, position and velocity, registers, and its own watchdog.
//!
//! Where the documents are silent it does what is worst for who relies on it: set-points are kept while it is
//! disabled and come into force when it is enabled, and every frame feeds its watchdog, the refresh too.

use std::f64::consts::TAU;
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
pub const KIND: Kind = Kind { name: "damiao", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
feedback_id (0)      identifier of its feedback
mode (3)             register 10 at power-on: 1 MIT, 2 position, 3 velocity
watchdog_ms (0)      register 9 at power-on, 0 = off
p_max (12.5)         range of the position, rad
v_max (30)           range of the velocity, rad/s
t_max (10)           range of the torque, Nm
torque_gain (50)     rev/s^2 for each Nm";

const REGISTERS: u32 = 0x7FF;
const MIT: u32 = 1;
const VELOCITY: u32 = 3;
/// The watchdog's unit.
const UNIT: Duration = Duration::from_micros(50);
const LOST_COMM: u8 = 0xD;

#[derive(Clone, Debug)]
struct Config {
    node: u8,
    feedback_id: u32,
    mode: u32,
    watchdog: Duration,
    ranges: Ranges,
    torque_gain: f64,
    running: Option<f64>,
    mechanics: Mechanics,
}

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Damiao::new(take(params)?)))
}

fn take(params: &mut Params) -> Result<Config> {
    Ok(Config {
        node: params.node(1..=15)?,
        feedback_id: params.number("feedback_id", 0, 0..=0x7FF)?,
        mode: params.number("mode", VELOCITY, 1..=4)?,
        watchdog: params.millis("watchdog_ms", 0)?,
        ranges: Ranges {
            position: params.number("p_max", 12.5, 1.0..=1e3)?,
            velocity: params.number("v_max", 30.0, 1.0..=1e3)?,
            torque: params.number("t_max", 10.0, 1.0..=1e3)?,
        },
        torque_gain: params.number("torque_gain", 50.0, 0.001..=1e6)?,
        running: params.optional("running", -1e3..=1e3)?,
        mechanics: Mechanics::take(params)?,
    })
}

/// One actuator.
#[derive(Debug)]
struct Damiao {
    config: Config,
    behaviour: Behaviour,
    shaft: Shaft,
    enabled: bool,
    /// The state that is not "disabled" or "enabled"; 0 for none.
    error: u8,
    mode: u32,
    /// Register 9.
    timeout: u32,
    fed: Time,
    /// rev/s.
    velocity: f64,
    command: Command,
    watchdog_tripped: bool,
}

impl Damiao {
    fn new(config: Config) -> Self {
        let mut drive = Self {
            shaft: Shaft::new(&config.mechanics, config.running.unwrap_or_default(), config.node),
            behaviour: Behaviour::default(),
            enabled: config.running.is_some(),
            error: 0,
            mode: config.mode,
            timeout: 0,
            fed: Time::ZERO,
            velocity: config.running.unwrap_or_default(),
            command: Command { velocity: config.running.unwrap_or_default(), kd: 1.0, ..Command::default() },
            watchdog_tripped: false,
            config,
        };
        drive.timeout = drive.units_of(drive.config.watchdog);
        drive
    }

    fn units_of(&self, time: Duration) -> u32 {
        u32::try_from(time.as_micros() / UNIT.as_micros()).unwrap_or(u32::MAX)
    }

    fn demand(&self) -> Demand {
        let rate = self.config.mechanics.accel;
        match (self.enabled, self.mode) {
            (false, _) => Demand::Off,
            (true, MIT) => self.command.demand(rate, self.config.torque_gain),
            (true, VELOCITY) => Demand::Velocity { velocity: self.velocity, rate },
            (true, _) => Demand::Velocity { velocity: 0.0, rate },
        }
    }

    fn advance(&mut self, now: Time) {
        if now > self.expiry() {
            self.shaft.advance(self.expiry(), self.demand());
            self.watchdog_tripped = true;
            self.fail(LOST_COMM);
        }
        self.shaft.advance(now, self.demand());
    }

    /// The last moment at which a frame is in time.
    fn expiry(&self) -> Time {
        if self.enabled && self.timeout > 0 {
            self.fed.saturating_add(UNIT.saturating_mul(self.timeout))
        } else {
            Time::MAX
        }
    }

    fn fail(&mut self, error: u8) {
        self.error = error;
        self.enabled = false;
    }

    fn state(&self) -> u8 {
        if self.error == 0 { u8::from(self.enabled) } else { self.error }
    }

    fn feedback(&mut self, out: &mut Vec<Frame>) {
        if self.behaviour.feedback_loss {
            return;
        }
        let torque = mit::torque(&self.shaft, self.demand(), self.config.torque_gain);
        let velocity = self.shaft.measured_velocity();
        let [p0, p1, v, vt, t] = self.config.ranges.reply(self.shaft.position(), velocity, torque);
        let first = self.state() << 4 | self.config.node;
        out.push(Frame::data(self.config.feedback_id, &[first, p0, p1, v, vt, t, 30, 32]));
    }

    /// A frame on the motor's own id.
    fn on_own(&mut self, data: [u8; 8]) -> Option<()> {
        match mit::special(data) {
            Some(mit::CLEAR_ERROR) => {
                // After a lost master it is on again at once.
                self.enabled |= self.error == LOST_COMM;
                self.error = 0;
                self.watchdog_tripped = false;
            }
            Some(mit::ENTER) => self.enabled |= self.error == 0,
            Some(mit::EXIT) => {
                if !self.behaviour.refuses(Stop::TorqueOff) {
                    self.enabled = false;
                }
            }
            Some(mit::ZERO) => {}
            Some(_) => return None,
            None if self.mode != MIT => return None,
            None => {
                let command = self.config.ranges.command(data);
                if !(self.config.ranges.is_stop(&command) && self.behaviour.refuses(Stop::Controlled)) {
                    self.command = command;
                }
            }
        }
        Some(())
    }

    fn on_velocity(&mut self, frame: &Frame) -> Option<()> {
        let velocity = f64::from(frame.f32_at(0)?);
        if self.mode != VELOCITY {
            return None;
        }
        if velocity != 0.0 || !self.behaviour.refuses(Stop::Controlled) {
            self.velocity = velocity / TAU;
        }
        Some(())
    }

    /// Requests about registers, answered on the id of the feedback.
    fn on_register(&mut self, data: [u8; 8], out: &mut Vec<Frame>) -> Option<()> {
        let [_, _, request, number, a, b, c, d] = data;
        let value = u32::from_le_bytes([a, b, c, d]);
        match (request, number) {
            (0xCC, _) => {
                self.feedback(out);
                return Some(());
            }
            (0x55, 9) => self.timeout = value,
            (0x55, 10) if (1..=4).contains(&value) => self.mode = value,
            (0x33, 7..=10) | (0xAA, _) => {}
            _ => return None,
        }
        let held = match number {
            7 => self.config.feedback_id,
            8 => u32::from(self.config.node),
            9 => self.timeout,
            10 => self.mode,
            _ => 0,
        };
        let [a, b, c, d] = held.to_le_bytes();
        out.push(Frame::data(self.config.feedback_id, &[self.config.node, 0, request, number, a, b, c, d]));
        Some(())
    }

    fn power_up(&mut self, now: Time) {
        self.enabled = false;
        self.error = 0;
        self.watchdog_tripped = false;
        self.mode = self.config.mode;
        self.timeout = self.units_of(self.config.watchdog);
        self.velocity = 0.0;
        self.command = Command::default();
        self.fed = now;
    }
}

impl Model for Damiao {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        let node = u32::from(self.config.node);
        [0x000, 0x100, 0x200, 0x300].map(|base| IdRange::one(base + node)).to_vec()
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        let mut heard = self.own_ids();
        heard.push(IdRange::one(REGISTERS));
        heard
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        let node = u32::from(self.config.node);
        let ours = match frame.id {
            REGISTERS => frame.u16_at(0) == Some(u16::from(self.config.node)),
            id => id & 0xFF == node && id >> 8 <= 3,
        };
        if frame.extended || frame.remote || !ours {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        self.fed = now;
        let done = match (frame.id, frame.id >> 8) {
            (REGISTERS, _) => frame.bytes_at(0).and_then(|data| self.on_register(data, out)),
            (_, 0) => frame.bytes_at(0).and_then(|data| self.on_own(data)),
            (_, 2) => self.on_velocity(frame),
            _ => None,
        };
        match done {
            None => self.behaviour.frames_refused += 1,
            Some(()) if frame.id != REGISTERS => self.feedback(out),
            Some(()) => {}
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
            Order::Fault(0) => self.error = 0,
            Order::Fault(code) => self.fail(u8::try_from(code).unwrap_or(0xE).clamp(0x8, 0xE)),
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => self.power_up(now),
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
            "state_code": self.state(),
            "enabled": self.enabled,
            "faults": self.error,
            "watchdog_tripped": self.watchdog_tripped,
            "mode": self.mode,
            "timeout": self.timeout,
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

    fn drive(spec: &str) -> Damiao {
        let mut params = Params::parse(spec).expect("well formed");
        let drive = Damiao::new(take(&mut params).expect("valid"));
        params.finish().expect("all known");
        drive
    }

    fn say(drive: &mut Damiao, ms: u32, id: u32, hex: &str) -> Vec<Frame> {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect();
        let mut out = Vec::new();
        drive.on_frame(MS * ms, &Frame::data(id, &bytes), &mut out);
        out
    }

    const FD: &str = "fffffffffffffffd";
    const FC: &str = "fffffffffffffffc";
    const FB: &str = "fffffffffffffffb";

    #[test]
    fn feedback_has_the_published_form() {
        let mut a = drive("node=1,feedback_id=17");
        let seen = say(&mut a, 0, 0x7FF, "0100cc0000000000");
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].id, &seen[0].payload()[..6]), (0x11, &[0x01, 0x7F, 0xFF, 0x7F, 0xF7, 0xFF][..]));
        assert_eq!(say(&mut a, 1, 0x001, FC)[0].payload()[0], 0x11);
        assert!(say(&mut a, 2, 0x7FF, "0200cc0000000000").is_empty(), "another's");
        assert!(say(&mut a, 2, 0x002, FC).is_empty());
    }

    #[test]
    fn it_turns_when_enabled_and_stops_in_stages() {
        let mut a = drive("node=1");
        say(&mut a, 0, 0x201, "0000c94000000000");
        a.advance(MS * 500);
        assert!(a.shaft.velocity() == 0.0, "disabled");
        say(&mut a, 500, 0x001, FC);
        a.advance(MS * 1500);
        assert!((a.shaft.velocity() - 1.0).abs() < 0.01, "the set-point was kept");
        assert_eq!(say(&mut a, 1500, 0x201, "00000000")[0].payload()[0], 0x11);
        a.advance(MS * 2000);
        assert!(a.shaft.velocity() == 0.0 && a.enabled, "it holds");
        say(&mut a, 2000, 0x001, FD);
        assert!(!a.enabled);
        let status = a.status(MS * 2000);
        assert_eq!(status["stops_seen"]["controlled"], 1);
        assert_eq!(status["stops_seen"]["torque_off"], 1);
    }

    #[test]
    fn ignored_stops_have_no_effect() {
        let mut a = drive("node=1,running=2");
        a.behaviour.ignore.controlled = true;
        say(&mut a, 0, 0x201, "0000000000000000");
        a.advance(MS * 900);
        assert!(a.shaft.velocity() == 2.0);
        a.behaviour.ignore.torque_off = true;
        say(&mut a, 900, 0x001, FD);
        assert!(a.enabled);
        let mut a = drive("node=1,mode=1,running=2");
        a.behaviour.ignore.controlled = true;
        say(&mut a, 0, 0x001, "7fff7ff0003337ff");
        a.advance(MS * 900);
        assert!(a.shaft.velocity() == 2.0);
    }

    #[test]
    fn registers_are_answered_and_a_frame_of_another_mode_is_not() {
        let mut a = drive("node=1,feedback_id=17,mode=1");
        assert!(say(&mut a, 0, 0x201, "0000000000000000").is_empty());
        let answer = say(&mut a, 1, 0x7FF, "0100550a03000000");
        assert_eq!(answer, [Frame::data(0x11, &[1, 0, 0x55, 10, 3, 0, 0, 0])]);
        assert_eq!(say(&mut a, 2, 0x201, "0000000000000000").len(), 1);
        assert!(say(&mut a, 2, 0x001, "7fff7ff0003337ff").is_empty());
        let answer = say(&mut a, 3, 0x7FF, "0100330a00000000");
        assert_eq!(answer, [Frame::data(0x11, &[1, 0, 0x33, 10, 3, 0, 0, 0])]);
    }

    #[test]
    fn its_watchdog_takes_the_torque_and_clearing_gives_it_back() {
        let mut a = drive("node=1,running=2");
        say(&mut a, 0, 0x7FF, "01005509d0070000");
        assert_eq!(a.next_due(), MS * 100 + Duration::from_nanos(1));
        a.advance(MS * 100);
        assert!(a.enabled);
        a.advance(MS * 101);
        assert!(!a.enabled && a.error == LOST_COMM && a.watchdog_tripped);
        assert_eq!(say(&mut a, 110, 0x001, FC)[0].payload()[0] >> 4, LOST_COMM, "not while it has an error");
        assert_eq!(say(&mut a, 120, 0x001, FB)[0].payload()[0] >> 4, 1, "armed again");
        a.order(MS * 121, &Order::PowerCycle, &mut Vec::new());
        assert!(!a.enabled && a.timeout == 0);
    }

    #[test]
    fn damping_creeps() {
        let mut a = drive("node=1,mode=1,running=2");
        say(&mut a, 0, 0x001, "7fff7ff0003337ff");
        a.advance(MS * 1000);
        // Half a step of velocity, and of torque over kd: 0.0073 + 0.0024 rad/s.
        assert!((a.shaft.velocity() * TAU + 0.0097).abs() < 2e-4, "{}", a.shaft.velocity() * TAU);
    }

    #[test]
    fn a_fault_takes_the_torque() {
        let mut a = drive("node=1,running=2");
        a.order(MS, &Order::Fault(0xA), &mut Vec::new());
        assert!(!a.enabled);
        assert_eq!(say(&mut a, 2, 0x7FF, "0100cc0000000000")[0].payload()[0], 0xA1);
    }
}
