//! A Roboteq motor controller with its own objects over CANopen.
//!
//! Only what its SDO server does is modelled: no PDOs, no scripts, one channel.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::cycle::Cycle;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::{to_i16, to_i32};
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;

/// The kind, for the registry.
pub const KIND: Kind = Kind { name: "roboteq", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
channel (1)          the motor's
loop (speed)         speed or open: what a command means
full_rpm (3000)      speed at a command of 1000
counts_per_rev (1000)
watchdog_ms (1000)   RWD, 0 = off; the next command resumes";

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Roboteq::new(Config::take(params)?)))
}

const POWER_STAGE_OFF: u16 = 0x08;
const EMERGENCY_STOP: u16 = 0x10;

/// Abort codes (CiA 301).
const NO_SUCH_OBJECT: u32 = 0x0602_0000;
const WRITE_ONLY: u32 = 0x0601_0001;
const READ_ONLY: u32 = 0x0601_0002;
const WRONG_LENGTH: u32 = 0x0607_0010;
const UNKNOWN_COMMAND: u32 = 0x0504_0001;

#[derive(Clone, Debug)]
struct Config {
    node: u8,
    channel: u8,
    open_loop: bool,
    full: f64,
    counts_per_rev: f64,
    watchdog: Duration,
    heartbeat: Duration,
    running: Option<f64>,
    mechanics: Mechanics,
}

impl Config {
    fn take(params: &mut Params) -> Result<Self> {
        Ok(Self {
            node: params.node(1..=127)?,
            channel: params.number("channel", 1, 1..=3)?,
            open_loop: params.choice("loop", &[("speed", false), ("open", true)])?,
            full: params.number("full_rpm", 3000.0, 1.0..=1e5)? / 60.0,
            counts_per_rev: params.number("counts_per_rev", 1000.0, 1.0..=1e7)?,
            watchdog: params.millis("watchdog_ms", 1000)?,
            heartbeat: params.millis("heartbeat_ms", 100)?,
            running: params.optional("running", -1e3..=1e3)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// One controller.
#[derive(Debug)]
struct Roboteq {
    config: Config,
    behaviour: Behaviour,
    shaft: Shaft,
    /// rev/s.
    command: f64,
    shut_down: bool,
    faults: u16,
    fed: Time,
    watchdog_tripped: bool,
    heartbeat: Cycle,
}

impl Roboteq {
    fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        Self {
            shaft: Shaft::new(&config.mechanics, running, config.node),
            behaviour: Behaviour::default(),
            command: running,
            shut_down: false,
            faults: 0,
            fed: Time::ZERO,
            watchdog_tripped: false,
            heartbeat: Cycle::new(Time::ZERO, config.heartbeat),
            config,
        }
    }

    fn powered(&self) -> bool {
        !self.shut_down && self.faults == 0
    }

    fn demand(&self) -> Demand {
        if !self.powered() {
            return Demand::Off;
        }
        let velocity = if self.watchdog_tripped { 0.0 } else { self.command };
        Demand::Velocity { velocity, rate: self.config.mechanics.accel }
    }

    fn advance(&mut self, now: Time) {
        self.shaft.advance(now, self.demand());
        let quiet = now.saturating_sub(self.fed);
        if !self.config.watchdog.is_zero() && quiet > self.config.watchdog {
            self.watchdog_tripped = true;
        }
    }

    fn read(&self, index: u16, sub: u8, speed: f64) -> Result<(u8, i32), u32> {
        let of_channel = sub == self.config.channel;
        let rpm = to_i32(speed * 60.0);
        let thousandths = to_i32(speed / self.config.full * 1000.0);
        let counts = to_i32(self.shaft.position() * self.config.counts_per_rev);
        let status = if self.powered() { 0 } else { POWER_STAGE_OFF };
        let faults = self.faults | if self.shut_down { EMERGENCY_STOP } else { 0 };
        match index {
            0x2103 | 0x210A if of_channel => Ok((2, rpm)),
            0x2110 if of_channel => Ok((2, thousandths)),
            0x2104 | 0x2105 if of_channel => Ok((4, counts)),
            0x2111 if sub == 0 => Ok((2, i32::from(status))),
            0x2112 if sub == 0 => Ok((2, i32::from(faults))),
            0x2000 | 0x2002 | 0x200C..=0x200E => Err(WRITE_ONLY),
            _ => Err(NO_SUCH_OBJECT),
        }
    }

    /// Runtime commands feed the watchdog, and the motor resumes.
    fn write(&mut self, now: Time, index: u16, sub: u8, length: u8, data: [u8; 4]) -> Result<(), u32> {
        let of_channel = sub == self.config.channel;
        let wanted = match index {
            0x2000 if of_channel => 4,
            0x2002 if of_channel => 2,
            0x200C..=0x200E if sub == 0 => 1,
            0x2100..=0x21FF => return Err(READ_ONLY),
            _ => return Err(NO_SUCH_OBJECT),
        };
        if length != wanted {
            return Err(WRONG_LENGTH);
        }
        self.fed = now;
        self.watchdog_tripped = false;
        let [low, high, ..] = data;
        match index {
            0x2000 => self
                .set(f64::from(i32::from_le_bytes(data)).clamp(-1000.0, 1000.0) / 1000.0 * self.config.full),
            // A speed means something to a speed loop only.
            0x2002 if !self.config.open_loop => self.set(f64::from(i16::from_le_bytes([low, high])) / 60.0),
            0x200C if !self.behaviour.refuses(Stop::TorqueOff) => self.shut_down = true,
            0x200D => self.shut_down = false,
            0x200E if low == self.config.channel && !self.behaviour.refuses(Stop::Controlled) => {
                self.command = 0.0
            }
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, command: f64) {
        if command != 0.0 || !self.behaviour.refuses(Stop::Controlled) {
            self.command = command;
        }
    }

    fn on_sdo(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) -> Option<()> {
        let [command, low, high, sub, data @ ..] = frame.bytes_at::<8>(0)?;
        let index = u16::from_le_bytes([low, high]);
        let speed = self.shaft.measured_velocity();
        let result = match command {
            0x40 => self.read(index, sub, speed).map(Some),
            0x2F => self.write(now, index, sub, 1, data).map(|()| None),
            0x2B => self.write(now, index, sub, 2, data).map(|()| None),
            0x23 => self.write(now, index, sub, 4, data).map(|()| None),
            _ => Err(UNKNOWN_COMMAND),
        };
        let (answer, [a, b, c, d]) = match result {
            Ok(Some((2, value))) => {
                let [low, high] = to_i16(f64::from(value)).to_le_bytes();
                (0x4B, [low, high, 0, 0])
            }
            Ok(Some((_, value))) => (0x43, value.to_le_bytes()),
            Ok(None) => (0x60, [0; 4]),
            Err(code) => {
                self.behaviour.frames_refused += 1;
                (0x80, code.to_le_bytes())
            }
        };
        out.push(Frame::data(0x580 + u32::from(self.config.node), &[answer, low, high, sub, a, b, c, d]));
        Some(())
    }
}

impl Model for Roboteq {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        let node = u32::from(self.config.node);
        [0x080, 0x180, 0x200, 0x280, 0x300, 0x380, 0x400, 0x480, 0x500, 0x580, 0x600, 0x700]
            .map(|function| IdRange::one(function + node))
            .to_vec()
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        if frame.extended || frame.remote || frame.id != 0x600 + u32::from(self.config.node) {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        if self.on_sdo(now, frame, out).is_none() {
            self.behaviour.frames_refused += 1;
        }
        if self.behaviour.feedback_loss {
            // Values are missing; that something was written is still said.
            out.retain(|frame| !matches!(frame.payload().first(), Some(0x43 | 0x4B)));
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.heartbeat.due(now) {
            out.push(Frame::data(0x700 + u32::from(self.config.node), &[0x05]));
        }
    }

    fn next_due(&self) -> Time {
        let watched = !self.config.watchdog.is_zero() && !self.watchdog_tripped;
        let expiry = self.fed.saturating_add(self.config.watchdog).saturating_add(Duration::from_nanos(1));
        if watched { self.heartbeat.next().min(expiry) } else { self.heartbeat.next() }
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(code) => {
                let [low, ..] = code.to_le_bytes();
                self.faults = u16::from(low);
            }
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                self.command = 0.0;
                self.shut_down = false;
                self.faults = 0;
                self.fed = now;
                self.watchdog_tripped = false;
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
            "enabled": self.powered(),
            "faults": self.faults,
            "shut_down": self.shut_down,
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

    const MS: Time = Time::from_millis(1);

    fn roboteq(keys: &str) -> Roboteq {
        let mut params = Params::parse(keys).expect("well formed");
        let drive = Roboteq::new(Config::take(&mut params).expect("valid"));
        params.finish().expect("no other keys");
        drive
    }

    /// Says an SDO request and gives the answer's eight bytes.
    fn ask(drive: &mut Roboteq, ms: u32, data: [u8; 8]) -> [u8; 8] {
        let mut out = Vec::new();
        drive.on_frame(MS * ms, &Frame::data(0x605, &data), &mut out);
        out[0].bytes_at(0).expect("eight bytes")
    }

    const MS_STOP: [u8; 8] = [0x2F, 0x0E, 0x20, 0, 1, 0, 0, 0];
    const EX: [u8; 8] = [0x2F, 0x0C, 0x20, 0, 1, 0, 0, 0];
    const MG: [u8; 8] = [0x2F, 0x0D, 0x20, 0, 1, 0, 0, 0];
    const STATUS: [u8; 8] = [0x40, 0x11, 0x21, 0, 0, 0, 0, 0];
    const SPEED: [u8; 8] = [0x40, 0x03, 0x21, 1, 0, 0, 0, 0];

    #[test]
    fn it_follows_speeds_and_reports_them() {
        let mut d = roboteq("node=5,watchdog_ms=0");
        assert_eq!(
            ask(&mut d, 0, [0x2B, 0x02, 0x20, 1, 0x88, 0xFF, 0, 0]),
            [0x60, 0x02, 0x20, 1, 0, 0, 0, 0]
        );
        assert_eq!(ask(&mut d, 1000, SPEED), [0x4B, 0x03, 0x21, 1, 0x88, 0xFF, 0, 0]);
        assert!(d.shaft.velocity() == -2.0);
    }

    #[test]
    fn ms_stops_and_ex_latches() {
        let mut d = roboteq("node=5,running=2,watchdog_ms=0");
        ask(&mut d, 0, MS_STOP);
        d.advance(MS * 50);
        assert!((d.shaft.velocity() - 1.0).abs() < 1e-9, "20 rev/s^2");
        ask(&mut d, 50, EX);
        assert_eq!(ask(&mut d, 60, STATUS)[4], 0x08);
        ask(&mut d, 70, [0x2B, 0x02, 0x20, 1, 120, 0, 0, 0]);
        d.advance(MS * 3000);
        assert!(d.shaft.velocity() == 0.0, "latched");
        ask(&mut d, 3000, MG);
        d.advance(MS * 4000);
        assert!(d.shaft.velocity() == 2.0, "the last command is in force");
    }

    #[test]
    fn the_watchdog_stops_and_the_next_command_resumes_while_queries_do_not() {
        let mut d = roboteq("node=5,running=2,watchdog_ms=200");
        ask(&mut d, 150, SPEED);
        d.advance(MS * 201);
        d.advance(MS * 2000);
        assert!(d.watchdog_tripped && d.shaft.velocity() == 0.0);
        // A command that has nothing to do with the speed.
        ask(&mut d, 2000, MG);
        d.advance(MS * 2150);
        assert!(d.shaft.velocity() == 2.0);
    }

    #[test]
    fn refusals_carry_the_right_code() {
        let mut d = roboteq("node=5");
        for (request, code) in [
            ([0x40, 0x00, 0x20, 1, 0, 0, 0, 0], WRITE_ONLY),
            ([0x2B, 0x11, 0x21, 0, 0, 0, 0, 0], READ_ONLY),
            ([0x2F, 0x02, 0x20, 1, 0, 0, 0, 0], WRONG_LENGTH),
            ([0x40, 0x03, 0x21, 2, 0, 0, 0, 0], NO_SUCH_OBJECT),
            ([0x21, 0x00, 0x20, 1, 8, 0, 0, 0], UNKNOWN_COMMAND),
        ] {
            let answer = ask(&mut d, 1, request);
            assert_eq!(
                (answer[0], u32::from_le_bytes([answer[4], answer[5], answer[6], answer[7]])),
                (0x80, code)
            );
        }
    }

    #[test]
    fn ignored_stops_are_acknowledged_and_have_no_effect() {
        let mut d = roboteq("node=5,running=2,watchdog_ms=0");
        d.order(MS, &Order::IgnoreVelocityZero(true), &mut Vec::new());
        assert_eq!(ask(&mut d, 2, MS_STOP)[0], 0x60);
        d.advance(MS * 1000);
        assert!(d.shaft.velocity() == 2.0);
        ask(&mut d, 1000, EX);
        assert!(!d.powered(), "torque off is not ignored");
    }

    #[test]
    fn an_open_loop_takes_thousandths() {
        let mut d = roboteq("node=5,loop=open,watchdog_ms=0,accel=1000");
        ask(&mut d, 0, [0x2B, 0x02, 0x20, 1, 120, 0, 0, 0]);
        d.advance(MS * 100);
        assert!(d.shaft.velocity() == 0.0, "a speed means nothing");
        ask(&mut d, 100, [0x23, 0x00, 0x20, 1, 0x0C, 0xFE, 0xFF, 0xFF]);
        d.advance(MS * 1000);
        assert!(d.shaft.velocity() == -25.0, "half of 3000 rpm");
    }
}
