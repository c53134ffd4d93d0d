//! A RobStride actuator or a CyberGear in the private protocol: identifier = type << 24 | 16 bits << 8 | target.
//!
//! It answers every command with a report, sent to whoever commanded; the two mode bits and the faults are in the
//! report's identifier.

use std::f64::consts::{PI, TAU};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::to_u16;
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;

/// The kind, for the registry.
pub const KIND: Kind = Kind { name: "robstride", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
v_max (44)           range of the velocity, rad/s
t_max (17)           range of the torque, Nm
torque_gain (50)     rev/s^2 for each Nm
run_mode (0)         at power-on: 0 MIT, 1 position, 2 speed, 3 current
can_timeout (on)     whether there is a parameter 0x7028; CyberGear has none
watchdog_ms (0)      its value at power-on, 0 = off";

/// Run modes.
const MIT: u8 = 0;
const SPEED: u8 = 2;
/// The unit of 0x7028.
const UNIT: Duration = Duration::from_micros(50);
/// kd at full scale.
const KD: f64 = 5.0;

#[derive(Clone, Debug)]
struct Config {
    node: u8,
    v_max: f64,
    t_max: f64,
    torque_gain: f64,
    run_mode: u8,
    can_timeout: bool,
    watchdog: Duration,
    running: Option<f64>,
    mechanics: Mechanics,
}

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Robstride::new(take(params)?)))
}

fn take(params: &mut Params) -> Result<Config> {
    Ok(Config {
        node: params.node(1..=127)?,
        v_max: params.number("v_max", 44.0, 1.0..=1e3)?,
        t_max: params.number("t_max", 17.0, 1.0..=1e3)?,
        torque_gain: params.number("torque_gain", 50.0, 0.001..=1e6)?,
        run_mode: params.number("run_mode", MIT, 0..=3)?,
        can_timeout: params.choice("can_timeout", &[("on", true), ("off", false)])?,
        watchdog: params.millis("watchdog_ms", 0)?,
        running: params.optional("running", -1e3..=1e3)?,
        mechanics: Mechanics::take(params)?,
    })
}

/// One actuator.
#[derive(Debug)]
struct Robstride {
    config: Config,
    behaviour: Behaviour,
    shaft: Shaft,
    run: bool,
    /// Six bits.
    faults: u8,
    run_mode: u8,
    /// rev/s.
    speed: f64,
    /// In the units of 0x7028.
    timeout: u32,
    fed: Time,
    watchdog_tripped: bool,
}

impl Robstride {
    fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        let mut drive = Self {
            shaft: Shaft::new(&config.mechanics, running, config.node),
            behaviour: Behaviour::default(),
            run: config.running.is_some(),
            faults: 0,
            run_mode: if config.running.is_some() { SPEED } else { config.run_mode },
            speed: running,
            timeout: 0,
            fed: Time::ZERO,
            watchdog_tripped: false,
            config,
        };
        drive.timeout = drive.configured_timeout();
        drive
    }

    fn configured_timeout(&self) -> u32 {
        u32::try_from(self.config.watchdog.as_micros() / UNIT.as_micros()).unwrap_or(u32::MAX)
    }

    /// In MIT mode a command with damping is followed as a speed; position and current modes hold still here.
    fn demand(&self) -> Demand {
        let rate = self.config.mechanics.accel;
        match (self.run, self.run_mode) {
            (false, _) => Demand::Off,
            (true, MIT | SPEED) => Demand::Velocity { velocity: self.speed, rate },
            (true, _) => Demand::Velocity { velocity: 0.0, rate },
        }
    }

    fn advance(&mut self, now: Time) {
        if now > self.expiry() {
            self.shaft.advance(self.expiry(), self.demand());
            self.watchdog_tripped = true;
            self.run = false;
        }
        self.shaft.advance(now, self.demand());
    }

    /// The last moment at which a frame is in time.
    fn expiry(&self) -> Time {
        if self.run && self.timeout > 0 {
            self.fed.saturating_add(UNIT.saturating_mul(self.timeout))
        } else {
            Time::MAX
        }
    }

    fn identifier(&self, kind: u32, upper: u8, host: u8) -> u32 {
        kind << 24 | u32::from(upper) << 16 | u32::from(self.config.node) << 8 | u32::from(host)
    }

    fn report(&mut self, host: u8, out: &mut Vec<Frame>) {
        if self.behaviour.feedback_loss {
            return;
        }
        let raw = |value: f64, most: f64| to_u16((value + most) / (2.0 * most) * 65_535.0).to_be_bytes();
        let torque = self.shaft.effort(self.demand()) / self.config.torque_gain;
        let [p0, p1] = raw(self.shaft.position() * TAU, 4.0 * PI);
        let [v0, v1] = raw(self.shaft.measured_velocity() * TAU, self.config.v_max);
        let [t0, t1] = raw(torque, self.config.t_max);
        // 30.5 degrees, in tenths.
        let data = [p0, p1, v0, v1, t0, t1, 0x01, 0x31];
        let mode = if self.run { 2 } else { 0 };
        let id = self.identifier(2, mode << 6 | self.faults, host);
        out.push(Frame::data(id, &data).with_extended(true));
    }

    /// One parameter, in RAM.
    fn write(&mut self, number: u16, frame: &Frame) -> Option<()> {
        match number {
            0x7005 => {
                let mode = *frame.payload().get(4)?;
                if mode > 3 || self.run {
                    return None;
                }
                self.run_mode = mode;
                self.speed = 0.0;
            }
            0x700A => {
                let speed = f64::from(frame.f32_at(4)?);
                if speed != 0.0 || !self.behaviour.refuses(Stop::Controlled) {
                    self.speed = speed / TAU;
                }
            }
            0x7028 if self.config.can_timeout => self.timeout = frame.u32_at(4)?,
            0x700B | 0x7010..=0x7021 => {}
            _ => return None,
        }
        Some(())
    }

    /// Answers a request for a parameter; one that does not exist with a mark in the identifier.
    fn read(&self, number: u16, host: u8, out: &mut Vec<Frame>) {
        let value = match number {
            0x7005 => Some(u32::from(self.run_mode)),
            0x700A => Some(super::num::to_f32(self.speed * TAU).to_bits()),
            0x7028 if self.config.can_timeout => Some(self.timeout),
            _ => None,
        };
        let [n0, n1] = number.to_le_bytes();
        let [a, b, c, d] = value.unwrap_or_default().to_le_bytes();
        let id = self.identifier(0x11, u8::from(value.is_none()), host);
        out.push(Frame::data(id, &[n0, n1, 0, 0, a, b, c, d]).with_extended(true));
    }

    /// A command in MIT mode: position, velocity, kp, kd, 16 bits each.
    fn operate(&mut self, frame: &Frame) -> Option<()> {
        let velocity =
            f64::from(frame.be_u16_at(2)?) / 65_535.0 * 2.0 * self.config.v_max - self.config.v_max;
        let kd = f64::from(frame.be_u16_at(6)?) / 65_535.0 * KD;
        if self.run_mode != MIT {
            return None;
        }
        self.speed = if kd > 0.0 { velocity / TAU } else { 0.0 };
        Some(())
    }

    /// Whether a report answers it; none if it makes no sense.
    fn take_in(&mut self, kind: u32, host: u8, frame: &Frame, out: &mut Vec<Frame>) -> Option<bool> {
        let number = frame.u16_at(0).filter(|_| frame.len() == 8)?;
        match kind {
            1 => self.operate(frame)?,
            3 => self.run |= self.faults == 0,
            4 => {
                if !self.behaviour.refuses(Stop::TorqueOff) {
                    self.run = false;
                }
                if frame.payload().first() == Some(&1) {
                    self.faults = 0;
                    self.watchdog_tripped = false;
                }
            }
            0x11 => {
                self.read(number, host, out);
                return Some(false);
            }
            0x12 => self.write(number, frame)?,
            _ => return None,
        }
        Some(true)
    }
}

impl Model for Robstride {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    /// To it: types 0, 1, 3 to 7, 0x11, 0x12, 0x16 to 0x19 with any data and its id at the end. From it: types 2 and
    /// 0x15 with its id before the host. A bus that has others than these drives keeps both apart.
    fn own_ids(&self) -> Vec<IdRange> {
        let node = u32::from(self.config.node);
        let to = [1, 3, 4, 5, 6, 7, 0x12].map(|kind| IdRange::extended(kind << 24 | node, 0x1F00_00FF));
        let from = [2, 0x15].map(|kind| IdRange::extended(kind << 24 | node << 8, 0x1F00_FF00));
        to.into_iter().chain(from).collect()
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        vec![IdRange::extended(u32::from(self.config.node), 0xFF)]
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        let [kind, _, host, target] = frame.id.to_be_bytes();
        // What drives send ends with the host, which may be a number that a drive has, too.
        if !frame.extended || frame.remote || target != self.config.node || matches!(kind, 0x02 | 0x15) {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        self.fed = now;
        match self.take_in(u32::from(kind), host, frame, out) {
            Some(true) => self.report(host, out),
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
            Order::Fault(0) => self.faults = 0,
            Order::Fault(code) => {
                self.faults = u8::try_from(code & 0x3F).unwrap_or_default().max(1);
                self.run = false;
            }
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                self.run = false;
                self.faults = 0;
                self.watchdog_tripped = false;
                self.run_mode = self.config.run_mode;
                self.speed = 0.0;
                self.timeout = self.configured_timeout();
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
            "enabled": self.run,
            "faults": self.faults,
            "watchdog_tripped": self.watchdog_tripped,
            "run_mode": self.run_mode,
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

    fn drive(spec: &str) -> Robstride {
        let mut params = Params::parse(spec).expect("well formed");
        let drive = Robstride::new(take(&mut params).expect("valid"));
        params.finish().expect("all known");
        drive
    }

    fn say(drive: &mut Robstride, ms: u32, id: u32, hex: &str) -> Vec<Frame> {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect();
        let mut out = Vec::new();
        drive.on_frame(MS * ms, &Frame::data(id, &bytes).with_extended(true), &mut out);
        out
    }

    const NOTHING: &str = "0000000000000000";
    /// 700A = 0 and = 6.2831855 rad/s.
    const STILL: &str = "0a70000000000000";
    const ONE: &str = "0a700000db0fc940";

    #[test]
    fn reports_have_the_published_form() {
        let mut a = drive("node=127");
        assert_eq!(
            say(&mut a, 0, 0x0400_AA7F, NOTHING),
            [Frame::data(0x0200_7FAA, &[0x80, 0, 0x80, 0, 0x80, 0, 0x01, 0x31]).with_extended(true)]
        );
        assert_eq!(say(&mut a, 0, 0x0300_AA7F, NOTHING)[0].id, 0x0280_7FAA);
        assert_eq!(say(&mut a, 0, 0x0400_FF7F, NOTHING)[0].id, 0x0200_7FFF, "to whoever commands");
        assert!(say(&mut a, 0, 0x0300_AA7E, NOTHING).is_empty(), "another's");
        assert!(say(&mut a, 0, 0x0200_017F, NOTHING).is_empty(), "another drive's report to host 7F");
    }

    #[test]
    fn it_turns_in_speed_mode_and_stops_in_stages() {
        let mut a = drive("node=1");
        say(&mut a, 0, 0x1200_FF01, "0570000002000000");
        say(&mut a, 1, 0x0300_FF01, NOTHING);
        say(&mut a, 2, 0x1200_FF01, ONE);
        a.advance(MS * 1000);
        assert!((a.shaft.velocity() - 1.0).abs() < 1e-6);
        say(&mut a, 1000, 0x1200_FF01, STILL);
        a.advance(MS * 1500);
        assert!(a.shaft.velocity() == 0.0 && a.run, "it holds");
        say(&mut a, 1500, 0x0400_FF01, NOTHING);
        assert!(!a.run);
        let stops = &a.status(MS * 1500)["stops_seen"];
        assert!(stops["controlled"] == 1 && stops["torque_off"] == 1);
    }

    #[test]
    fn parameters_are_read_back() {
        let mut a = drive("node=1");
        assert_eq!(say(&mut a, 0, 0x1100_FF01, "0570000000000000")[0].payload()[4], MIT);
        say(&mut a, 0, 0x1200_FF01, "0570000002000000");
        let answer = say(&mut a, 1, 0x1100_FF01, "0570000000000000");
        assert_eq!(answer, [Frame::data(0x1100_01FF, &[5, 0x70, 0, 0, 2, 0, 0, 0]).with_extended(true)]);
        say(&mut a, 2, 0x0300_FF01, NOTHING);
        say(&mut a, 3, 0x1200_FF01, "0570000001000000");
        assert_eq!((a.run_mode, a.behaviour.frames_refused), (SPEED, 1), "not while it runs");
        let mut cybergear = drive("node=1,can_timeout=off");
        assert_eq!(say(&mut cybergear, 0, 0x1100_FF01, "2870000000000000")[0].id, 0x1101_01FF);
    }

    #[test]
    fn ignored_stops_have_no_effect() {
        let mut a = drive("node=1,running=2");
        a.behaviour.ignore.controlled = true;
        say(&mut a, 0, 0x1200_FF01, STILL);
        a.advance(MS * 900);
        assert!(a.shaft.velocity() == 2.0);
        a.behaviour.ignore.torque_off = true;
        assert_eq!(say(&mut a, 900, 0x0400_FF01, NOTHING)[0].id, 0x0280_01FF, "and says so");
    }

    #[test]
    fn faults_and_its_watchdog_take_the_torque() {
        let mut a = drive("node=1,running=2");
        say(&mut a, 0, 0x1200_FF01, "28700000d0070000");
        a.advance(MS * 100);
        assert!(a.run);
        a.advance(MS * 101);
        assert!(!a.run && a.watchdog_tripped);
        a.order(MS * 110, &Order::Fault(4), &mut Vec::new());
        assert_eq!(say(&mut a, 111, 0x0300_FF01, NOTHING)[0].id, 0x0204_01FF);
        assert_eq!(say(&mut a, 112, 0x0400_FF01, "0100000000000000")[0].id, 0x0200_01FF);
        assert_eq!(say(&mut a, 113, 0x0300_FF01, NOTHING)[0].id, 0x0280_01FF);
        a.order(MS * 114, &Order::PowerCycle, &mut Vec::new());
        assert!(!a.run && a.timeout == 0 && a.run_mode == MIT);
    }

    #[test]
    fn operation_control_moves_it_in_mode_0_only() {
        let mut a = drive("node=1");
        say(&mut a, 0, 0x0300_FF01, NOTHING);
        // Velocity 0xC000 of ±44 rad/s, kd at half.
        say(&mut a, 1, 0x017F_FF01, "8000c00000008000");
        a.advance(MS * 1000);
        assert!((a.shaft.velocity() - 22.0 / TAU).abs() < 0.01);
        let mut b = drive("node=1,run_mode=2");
        say(&mut b, 0, 0x0300_FF01, NOTHING);
        say(&mut b, 1, 0x017F_FF01, "8000c00000008000");
        b.advance(MS * 1000);
        assert!(b.shaft.velocity() == 0.0);
    }
}
