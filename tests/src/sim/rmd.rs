//! A MyActuator RMD motor, protocol V4.
//!
//! Commands go to 0x140 + id and are answered on 0x240 + id, eight bytes each, little-endian; 0x280 is for all
//! motors. Speeds are degrees a second of the output shaft.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::{to_i16, to_i32, to_u16};
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;

/// The kind.
pub const KIND: Kind = Kind {
    name: "rmd",
    keys_help: "\
brake (off)          a holding brake is fitted
watchdog_ms (0)      communication interruption protection, 0 = off
load_current (0.5)   A of torque current while the loop is closed, turning or holding",
    build: |params| Ok(Box::new(Rmd::new(Config::take(params)?))),
};

const EVERYBODY: u32 = 0x280;

/// What a motor is configured to.
#[derive(Clone, Debug)]
pub struct Config {
    node: u8,
    brake: bool,
    watchdog: Duration,
    load_current: f64,
    running: Option<f64>,
    mechanics: Mechanics,
}

impl Config {
    /// Takes the keys.
    ///
    /// # Errors
    /// A value that cannot be read or is out of range, a missing node id.
    pub fn take(params: &mut Params) -> Result<Self> {
        Ok(Self {
            node: params.node(1..=32)?,
            brake: params.choice("brake", &[("off", false), ("on", true)])?,
            watchdog: params.millis("watchdog_ms", 0)?,
            load_current: params.number("load_current", 0.5, 0.0..=300.0)?,
            running: params.optional("running", -1e2..=1e2)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// What the motor does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Control {
    Off,
    /// Closed loop, rev/s.
    Speed(f64),
    /// A.
    Torque(f64),
}

/// The holding brake.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Brake {
    Missing,
    Open,
    Locked,
}

/// One motor.
#[derive(Debug)]
pub struct Rmd {
    config: Config,
    behaviour: Behaviour,
    shaft: Shaft,
    control: Control,
    brake: Brake,
    errors: u32,
    /// It survives a power cycle.
    watchdog: Duration,
    fed: Time,
    cut_off: bool,
}

impl Rmd {
    /// A motor that is switched on at time zero.
    pub fn new(config: Config) -> Self {
        let mut motor = Self {
            shaft: Shaft::new(&config.mechanics, config.running.unwrap_or_default(), config.node),
            behaviour: Behaviour::default(),
            control: Control::Off,
            brake: if config.brake { Brake::Locked } else { Brake::Missing },
            errors: 0,
            watchdog: config.watchdog,
            fed: Time::ZERO,
            cut_off: false,
            config,
        };
        if let Some(velocity) = motor.config.running {
            motor.close(Control::Speed(velocity));
        }
        motor
    }

    /// A closed loop opens the brake.
    fn close(&mut self, control: Control) {
        self.control = control;
        if self.brake == Brake::Locked {
            self.brake = Brake::Open;
        }
    }

    fn lock(&mut self) {
        if self.brake == Brake::Open {
            self.brake = Brake::Locked;
        }
    }

    fn demand(&self) -> Demand {
        if self.brake == Brake::Locked {
            return Demand::Velocity { velocity: 0.0, rate: self.config.mechanics.quick_decel };
        }
        match self.control {
            Control::Off => Demand::Off,
            Control::Speed(velocity) => Demand::Velocity { velocity, rate: self.config.mechanics.accel },
            Control::Torque(current) => Demand::Torque { acceleration: current * 4.0 },
        }
    }

    fn advance(&mut self, now: Time) {
        let end = self.fed.saturating_add(self.watchdog);
        if !self.watchdog.is_zero() && !self.cut_off && end < now {
            self.shaft.advance(end, self.demand());
            self.cut_off = true;
            self.control = Control::Off;
            self.lock();
        }
        self.shaft.advance(now, self.demand());
    }

    fn current(&self) -> f64 {
        match self.control {
            Control::Off => 0.0,
            Control::Speed(velocity) => self.config.load_current.copysign(velocity),
            Control::Torque(current) => current,
        }
    }

    /// 30 degrees, current, speed, angle: the answer to every command that moves.
    fn status_2(&mut self) -> [u8; 7] {
        let [c0, c1] = to_i16(self.current() * 100.0).to_le_bytes();
        let [s0, s1] = to_i16(self.shaft.measured_velocity() * 360.0).to_le_bytes();
        let [a0, a1] = to_i16(self.shaft.position() * 360.0).to_le_bytes();
        [30, c0, c1, s0, s1, a0, a1]
    }

    /// Carries out a command; what is answered, or none.
    fn command(&mut self, data: [u8; 8]) -> Option<[u8; 7]> {
        let [command, b1, b2, b3, b4, b5, b6, b7] = data;
        let word = [b4, b5, b6, b7];
        let echo = [b1, b2, b3, b4, b5, b6, b7];
        Some(match command {
            0x80 => {
                if !self.behaviour.refuses(Stop::TorqueOff) {
                    self.control = Control::Off;
                }
                echo
            }
            0x81 => {
                // It stays in the loop in which it is; off, it stays off.
                if !self.behaviour.refuses(Stop::Controlled) && self.control != Control::Off {
                    self.control = Control::Speed(0.0);
                }
                echo
            }
            0x78 => {
                if !self.behaviour.refuses(Stop::Quick) {
                    self.lock();
                }
                echo
            }
            0x77 => {
                if self.brake == Brake::Locked {
                    self.brake = Brake::Open;
                }
                echo
            }
            0x9A => {
                let brake = u8::from(self.brake != Brake::Locked);
                let [e0, e1, ..] = self.errors.to_le_bytes();
                let [v0, v1] = to_u16(485.0).to_le_bytes();
                [30, 0, brake, v0, v1, e0, e1]
            }
            0x9C => self.status_2(),
            0x92 => {
                let [a0, a1, a2, a3] = to_i32(self.shaft.position() * 36_000.0).to_le_bytes();
                [0, 0, 0, a0, a1, a2, a3]
            }
            0xA1 => {
                if self.errors == 0 {
                    // It does not open the brake.
                    self.control = Control::Torque(f64::from(i16::from_le_bytes([b4, b5])) / 100.0);
                }
                self.status_2()
            }
            0xA2 => {
                if self.errors == 0 {
                    self.close(Control::Speed(f64::from(i32::from_le_bytes(word)) / 36_000.0));
                }
                self.status_2()
            }
            0xB3 => {
                self.watchdog = Duration::from_millis(u64::from(u32::from_le_bytes(word)));
                echo
            }
            _ => return None,
        })
    }
}

impl Model for Rmd {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        [0x140, 0x240, 0x400, 0x500].map(|base| IdRange::one(base + u32::from(self.config.node))).to_vec()
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        let mut heard = self.own_ids();
        heard.extend([EVERYBODY, 0x300].map(IdRange::one));
        heard
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        let node = u32::from(self.config.node);
        if frame.extended || ![0x140 + node, EVERYBODY].contains(&frame.id) {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        // "Communication": every frame.
        (self.fed, self.cut_off) = (now, false);
        let data = frame.bytes_at::<8>(0);
        let answer = data.and_then(|data| Some((data[0], self.command(data)?)));
        let Some((command, rest)) = answer else {
            self.behaviour.frames_refused += 1;
            return;
        };
        self.advance(now);
        if self.behaviour.feedback_loss && command != 0x9A {
            return;
        }
        let mut data = vec![command];
        data.extend(rest);
        out.push(Frame::data(0x240 + node, &data));
    }

    fn tick(&mut self, now: Time, _out: &mut Vec<Frame>) {
        self.advance(now);
    }

    fn next_due(&self) -> Time {
        if self.watchdog.is_zero() || self.cut_off {
            return Time::MAX;
        }
        // It expires after its time has passed, not when it has.
        self.fed.saturating_add(self.watchdog).saturating_add(Duration::from_nanos(1))
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(code) => {
                self.errors = code;
                if code != 0 {
                    self.control = Control::Off;
                }
            }
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                (self.control, self.errors, self.fed, self.cut_off) = (Control::Off, 0, now, false);
                self.lock();
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
            "target": match self.demand() { Demand::Velocity { velocity, .. } => velocity, _ => 0.0 },
            "state": match self.control {
                Control::Off => "off",
                Control::Speed(_) => "speed",
                Control::Torque(_) => "torque",
            },
            "enabled": self.control != Control::Off,
            "brake": match self.brake {
                Brake::Missing => "missing",
                Brake::Open => "open",
                Brake::Locked => "locked",
            },
            "current": self.current(),
            "faults": self.errors,
            "watchdog_tripped": self.cut_off,
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

    fn drive(spec: &str) -> Rmd {
        let mut params = Params::parse(spec).expect("well formed");
        let drive = Rmd::new(Config::take(&mut params).expect("valid"));
        params.finish().expect("all known");
        drive
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
    }

    fn say(drive: &mut Rmd, ms: u32, id: u32, hex: &str) -> Vec<Frame> {
        let mut out = Vec::new();
        drive.on_frame(MS * ms, &Frame::data(id, &bytes(hex)), &mut out);
        out
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn answers_match_the_manual() {
        let mut d = drive("node=1,load_current=1");
        assert_eq!(
            say(&mut d, 0, 0x141, "8000000000000000"),
            [Frame::data(0x241, &bytes("8000000000000000"))]
        );
        // 1 A, 500 degrees a second, 45 degrees; the manual's motor has 50 degrees, this one 30.
        d.shaft.pushed = Some(500.0 / 360.0);
        d.advance(MS * 90);
        d.control = Control::Speed(500.0 / 360.0);
        assert_eq!(
            say(&mut d, 90, 0x141, "9c00000000000000"),
            [Frame::data(0x241, &bytes("9c1e6400f4012d00"))]
        );
        // 360 degrees.
        d.advance(MS * 720);
        assert_eq!(
            say(&mut d, 720, 0x141, "9200000000000000"),
            [Frame::data(0x241, &bytes("92000000a08c0000"))]
        );
        d.order(MS * 720, &Order::Fault(4), &mut Vec::new());
        assert_eq!(
            say(&mut d, 720, 0x141, "9a00000000000000"),
            [Frame::data(0x241, &bytes("9a1e0001e5010400"))]
        );
    }

    #[test]
    fn speed_stop_hold_and_release() {
        let mut d = drive("node=1");
        // 100 degrees a second, as in the manual.
        let answer = say(&mut d, 0, 0x141, "a200000010270000");
        assert_eq!(answer[0].payload()[0], 0xA2);
        d.advance(MS * 100);
        assert!(near(d.shaft.velocity(), 100.0 / 360.0));
        say(&mut d, 100, 0x141, "8100000000000000");
        d.advance(MS * 200);
        assert!(d.shaft.velocity() == 0.0 && d.current() == 0.5, "it holds");
        say(&mut d, 200, 0x141, "8000000000000000");
        assert!(d.current() == 0.0);
        say(&mut d, 210, 0x141, "8100000000000000");
        assert_eq!(d.control, Control::Off, "off stays off");
    }

    #[test]
    fn the_brake_locks_and_a_speed_opens_it() {
        let mut d = drive("node=1,brake=on,running=4");
        assert_eq!(d.brake, Brake::Open);
        say(&mut d, 0, 0x141, "7800000000000000");
        d.advance(MS * 100);
        assert!(d.shaft.velocity() == 0.0 && d.brake == Brake::Locked);
        say(&mut d, 100, 0x141, "a100000064000000");
        assert_eq!(d.brake, Brake::Locked, "a torque does not open it");
        say(&mut d, 110, 0x141, "a200000010270000");
        assert_eq!(d.brake, Brake::Open);
        let mut without = drive("node=1,running=4");
        say(&mut without, 0, 0x141, "7800000000000000");
        without.advance(MS * 100);
        assert!(near(without.shaft.velocity(), 4.0));
    }

    #[test]
    fn everybody_answers_on_an_id_of_its_own() {
        let mut d = drive("node=2,running=4");
        assert!(say(&mut d, 0, 0x141, "8000000000000000").is_empty());
        assert_eq!(say(&mut d, 0, 0x280, "8000000000000000")[0].id, 0x242);
        assert_eq!(d.control, Control::Off);
        // Too short, unknown.
        assert!(
            say(&mut d, 0, 0x142, "80").is_empty() && say(&mut d, 0, 0x142, "0000000000000000").is_empty()
        );
        assert_eq!(d.behaviour.frames_refused, 2);
    }

    #[test]
    fn its_watchdog_cuts_the_torque_and_any_frame_feeds_it() {
        let mut d = drive("node=1,brake=on,running=4");
        say(&mut d, 0, 0x141, "b3000000c8000000");
        say(&mut d, 150, 0x141, "9c00000000000000");
        assert_eq!(d.next_due(), MS * 350 + Duration::from_nanos(1));
        d.advance(MS * 350);
        assert_eq!(d.control, Control::Speed(4.0));
        d.advance(MS * 450);
        assert!(d.cut_off && d.control == Control::Off && d.brake == Brake::Locked);
        assert!(d.shaft.velocity() == 0.0);
        // It is kept when switched off.
        d.order(MS * 500, &Order::PowerCycle, &mut Vec::new());
        assert_eq!(d.next_due(), MS * 700 + Duration::from_nanos(1));
    }

    #[test]
    fn a_faulty_motor_takes_no_speed() {
        let mut d = drive("node=1,running=4");
        d.order(MS, &Order::Fault(2), &mut Vec::new());
        say(&mut d, 2, 0x141, "a200000010270000");
        assert_eq!(d.control, Control::Off);
    }

    #[test]
    fn ignored_stops_have_no_effect_one_kind_at_a_time() {
        let mut d = drive("node=1,running=4");
        d.order(MS, &Order::IgnoreVelocityZero(true), &mut Vec::new());
        say(&mut d, 2, 0x141, "8100000000000000");
        assert_eq!(d.control, Control::Speed(4.0));
        say(&mut d, 3, 0x141, "8000000000000000");
        assert_eq!(d.control, Control::Off);
        let stops = &d.status(MS * 4)["stops_seen"];
        assert!(stops["controlled"] == 1 && stops["torque_off"] == 1 && stops["ignored"] == 1, "{stops}");
    }

    #[test]
    fn lost_feedback_leaves_the_errors() {
        let mut d = drive("node=1");
        d.order(MS, &Order::FeedbackLoss(true), &mut Vec::new());
        assert!(say(&mut d, 2, 0x141, "9c00000000000000").is_empty());
        assert_eq!(say(&mut d, 2, 0x141, "9a00000000000000").len(), 1);
    }
}
