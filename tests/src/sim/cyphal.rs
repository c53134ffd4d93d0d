//! A drive on Cyphal/CAN with the UDRAL actuator service.
//!
//! Identifier (29 bits) = priority << 26 | 3 << 21 | subject << 8 | source node. It takes setpoints and readiness in
//! single classic frames from any node.

use std::f64::consts::TAU;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::cycle::Cycle;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::{to_f32, to_i32};
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;
use super::transfer::{Receiver, crc, from_half};

/// The kind, for the registry.
pub const KIND: Kind = Kind { name: "cyphal", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
index (0)            its element of a setpoint
setpoint (100)       subject
readiness (101)      subject
feedback (102)       subject
dynamics (103)       subject
mode (speed)         speed or ratio: what a setpoint means
full_rpm (3000)      speed at a ratio of 1
feedback_ms (20)     feedback and dynamics
timeout_ms (1000)    CONTROL_TIMEOUT, 0 = never
fd (off)             whether it sends CAN FD frames";

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Servo::new(Config::take(params)?)))
}

/// Of `uavcan.node.Heartbeat`.
const HEARTBEAT: u32 = 7509;
const RESERVED: u32 = 3 << 21;
const NOMINAL: u32 = 4;

#[derive(Clone, Debug)]
struct Config {
    node: u8,
    index: usize,
    setpoint: u32,
    readiness: u32,
    feedback: u32,
    dynamics: u32,
    ratio: bool,
    full: f64,
    period: Duration,
    heartbeat: Duration,
    timeout: Duration,
    fd: bool,
    running: Option<f64>,
    mechanics: Mechanics,
}

impl Config {
    fn take(params: &mut Params) -> Result<Self> {
        Ok(Self {
            node: params.node(0..=127)?,
            index: params.number("index", 0, 0..=30)?,
            setpoint: params.number("setpoint", 100, 0..=8191)?,
            readiness: params.number("readiness", 101, 0..=8191)?,
            feedback: params.number("feedback", 102, 0..=8191)?,
            dynamics: params.number("dynamics", 103, 0..=8191)?,
            ratio: params.choice("mode", &[("speed", false), ("ratio", true)])?,
            full: params.number("full_rpm", 3000.0, 1.0..=1e5)? / 60.0,
            period: params.millis("feedback_ms", 20)?,
            heartbeat: params.millis("heartbeat_ms", 100)?,
            timeout: params.millis("timeout_ms", 1000)?,
            fd: params.choice("fd", &[("off", false), ("on", true)])?,
            running: params.optional("running", -1e3..=1e3)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// What it is ready for, with the numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Sleep = 0,
    Standby = 2,
    Engaged = 3,
}

/// One drive.
#[derive(Debug)]
struct Servo {
    config: Config,
    behaviour: Behaviour,
    receiver: Receiver,
    shaft: Shaft,
    /// rev/s.
    setpoint: f64,
    ready: Ready,
    told_setpoint: Time,
    told_ready: Time,
    watchdog_tripped: bool,
    health: u8,
    transfer: u8,
    heartbeat_transfer: u8,
    feedback: Cycle,
    heartbeat: Cycle,
}

impl Servo {
    fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        Self {
            shaft: Shaft::new(&config.mechanics, running, config.node),
            behaviour: Behaviour::default(),
            receiver: Receiver::default(),
            setpoint: running,
            ready: if config.running.is_some() { Ready::Engaged } else { Ready::Standby },
            told_setpoint: Time::ZERO,
            told_ready: Time::ZERO,
            watchdog_tripped: false,
            health: 0,
            transfer: 0,
            heartbeat_transfer: 0,
            feedback: Cycle::new(Time::ZERO, config.period),
            heartbeat: Cycle::new(Time::ZERO, config.heartbeat),
            config,
        }
    }

    fn demand(&self) -> Demand {
        match self.ready {
            Ready::Engaged if self.health < 3 => {
                Demand::Velocity { velocity: self.setpoint, rate: self.config.mechanics.accel }
            }
            _ => Demand::Off,
        }
    }

    fn advance(&mut self, now: Time) {
        self.shaft.advance(now, self.demand());
        let late =
            |told: Time| !self.config.timeout.is_zero() && now.saturating_sub(told) > self.config.timeout;
        if late(self.told_setpoint) {
            self.setpoint = 0.0;
        }
        if self.ready != Ready::Standby && late(self.told_ready) {
            self.ready = Ready::Standby;
            self.watchdog_tripped = true;
        }
    }

    fn on_setpoint(&mut self, now: Time, payload: &[u8]) {
        // What a message does not have is zero, and so is what is no number.
        let byte = |at: usize| payload.get(2 * self.config.index + at).copied().unwrap_or(0);
        let value = from_half(u16::from_le_bytes([byte(0), byte(1)]));
        let value = if value.is_finite() { value } else { 0.0 };
        let wanted = if self.config.ratio { value.clamp(-1.0, 1.0) * self.config.full } else { value / TAU };
        self.told_setpoint = now;
        if wanted != 0.0 || !self.behaviour.refuses(Stop::Controlled) {
            self.setpoint = wanted;
        }
    }

    fn on_readiness(&mut self, now: Time, payload: &[u8]) -> bool {
        let ready = match payload.first().copied().unwrap_or(0) & 3 {
            0 => Ready::Sleep,
            2 => Ready::Standby,
            3 => Ready::Engaged,
            _ => return false,
        };
        self.told_ready = now;
        if ready == Ready::Engaged {
            self.ready = ready;
            self.watchdog_tripped = false;
        } else if !self.behaviour.refuses(Stop::TorqueOff) {
            self.ready = ready;
        }
        true
    }

    /// One transfer in as many frames as it takes.
    fn send(&self, subject: u32, number: u8, payload: &[u8], out: &mut Vec<Frame>) {
        let id = NOMINAL << 26 | RESERVED | subject << 8 | u32::from(self.config.node);
        let most = if self.config.fd { 63 } else { 7 };
        if payload.len() <= most {
            let mut data = payload.to_vec();
            data.push(0xE0 | number);
            let frame = if self.config.fd { Frame::fd(id, &data) } else { Frame::data(id, &data) };
            out.push(frame.with_extended(true));
            return;
        }
        let mut all = payload.to_vec();
        all.extend(crc(0xFFFF, payload).to_be_bytes());
        let last = all.len().div_ceil(7) - 1;
        for (place, part) in all.chunks(7).enumerate() {
            let start = if place == 0 { 0x80 } else { 0 };
            let end = if place == last { 0x40 } else { 0 };
            let toggle = if place % 2 == 0 { 0x20 } else { 0 };
            let mut data = part.to_vec();
            data.push(start | end | toggle | number);
            out.push(Frame::data(id, &data).with_extended(true));
        }
    }

    fn send_feedback(&mut self, now: Time, out: &mut Vec<Frame>) {
        let demand = match self.demand() {
            Demand::Velocity { velocity, .. } => to_i32(velocity / self.config.full * 100.0).clamp(-127, 127),
            _ => 0,
        };
        let [demand, ..] = demand.to_le_bytes();
        self.send(self.config.feedback, self.transfer, &[self.ready as u8, self.health, demand], out);
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX).to_le_bytes();
        let mut dynamics = micros[..7].to_vec();
        let velocity = self.shaft.measured_velocity();
        for value in [self.shaft.position() * TAU, velocity * TAU, 0.0, 0.0] {
            dynamics.extend(to_f32(value).to_le_bytes());
        }
        self.send(self.config.dynamics, self.transfer, &dynamics, out);
        self.transfer = (self.transfer + 1) % 32;
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
        let own = |subject: u32| {
            IdRange::extended(RESERVED | subject << 8 | u32::from(self.config.node), 0x03FF_FFFF)
        };
        vec![own(self.config.feedback), own(self.config.dynamics)]
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        // Any priority and any source, with or without a number of its own; the reserved bits do not matter.
        let heard = |subject: u32| IdRange::extended(subject << 8, 0x029F_FF80);
        let mut all = self.own_ids();
        all.extend([heard(self.config.setpoint), heard(self.config.readiness)]);
        all
    }

    fn has_fd(&self) -> bool {
        self.config.fd
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, _out: &mut Vec<Frame>) {
        let subject = frame.id >> 8 & 0x1FFF;
        let known = subject == self.config.setpoint || subject == self.config.readiness;
        if !frame.extended || frame.remote || frame.id & 0x0280_0080 != 0 || !known {
            return;
        }
        let Some((tail, payload)) = frame.payload().split_last() else { return };
        self.advance(now);
        self.behaviour.frames_seen += 1;
        let session = subject << 8 | frame.id & 0x7F;
        let fresh = self.receiver.is_new(now, session, tail & 0x1F);
        // Transfers of several frames are not put together.
        let understood = fresh
            && tail & 0xE0 == 0xE0
            && if subject == self.config.setpoint {
                self.on_setpoint(now, payload);
                true
            } else {
                self.on_readiness(now, payload)
            };
        if !understood {
            self.behaviour.frames_refused += 1;
        }
        self.shaft.advance(now, self.demand());
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.feedback.due(now) && !self.behaviour.feedback_loss {
            self.send_feedback(now, out);
        }
        if self.heartbeat.due(now) {
            let [a, b, c, d] = u32::try_from(now.as_secs()).unwrap_or(u32::MAX).to_le_bytes();
            self.send(HEARTBEAT, self.heartbeat_transfer, &[a, b, c, d, self.health, 0, 0], out);
            self.heartbeat_transfer = (self.heartbeat_transfer + 1) % 32;
        }
    }

    fn next_due(&self) -> Time {
        let cyclic = self.feedback.next().min(self.heartbeat.next());
        let watched = !self.config.timeout.is_zero() && self.ready != Ready::Standby;
        let expiry =
            self.told_ready.saturating_add(self.config.timeout).saturating_add(Duration::from_nanos(1));
        if watched { cyclic.min(expiry) } else { cyclic }
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(code) => self.health = code.to_le_bytes()[0] & 3,
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                self.setpoint = 0.0;
                self.ready = Ready::Standby;
                self.health = 0;
                self.watchdog_tripped = false;
                self.receiver.forget();
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
            "target": self.setpoint,
            "enabled": self.ready == Ready::Engaged,
            "readiness": self.ready as u8,
            "faults": self.health,
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

    const MS: Time = Time::from_millis(1);

    fn servo(keys: &str) -> Servo {
        let mut params = Params::parse(keys).expect("well formed");
        let servo = Servo::new(Config::take(&mut params).expect("valid"));
        params.finish().expect("no other keys");
        servo
    }

    fn say(servo: &mut Servo, ms: u32, id: u32, data: &[u8]) {
        servo.on_frame(MS * ms, &Frame::data(id, data).with_extended(true), &mut Vec::new());
    }

    const SETPOINT: u32 = 0x0060_640A;
    const READINESS: u32 = 0x0060_650A;

    #[test]
    fn it_follows_while_it_is_told_to_be_engaged() {
        let mut s = servo("node=20");
        // Ratio or rad/s: 10 rad/s as half precision is 0x4900.
        say(&mut s, 0, SETPOINT, &[0x00, 0x49, 0, 0, 0, 0, 0xE0]);
        s.advance(MS * 500);
        assert!(s.shaft.velocity() == 0.0, "standby");
        for ms in (500..1500).step_by(100) {
            let number = u8::try_from(ms / 100 % 2).expect("small");
            say(&mut s, ms, READINESS, &[3, 0xE0 | number]);
            say(&mut s, ms, SETPOINT, &[0x00, 0x49, 0, 0, 0, 0, 0xE0 | number]);
        }
        assert!((s.shaft.velocity() - 10.0 / TAU).abs() < 1e-9);
        s.advance(MS * 2401);
        s.advance(MS * 6000);
        assert!(s.watchdog_tripped && s.ready == Ready::Standby && s.shaft.velocity() == 0.0);
    }

    /// Fails if a repeated transfer number counts: a drive then would seem to hear what a real one does not.
    #[test]
    fn a_repeated_number_is_not_heard() {
        let mut s = servo("node=20,timeout_ms=0,running=2");
        say(&mut s, 0, READINESS, &[3, 0xE5]);
        say(&mut s, 100, READINESS, &[2, 0xE5]);
        assert!(s.ready == Ready::Engaged);
        say(&mut s, 101, READINESS, &[2, 0xE6]);
        assert!(s.ready == Ready::Standby);
    }

    /// Bytes of pycyphal 1.27.1.
    #[test]
    fn dynamics_take_four_frames_or_one() {
        let mut out = Vec::new();
        let mut s = servo("node=20");
        s.transfer = 7;
        s.send_feedback(Duration::from_micros(123_456_789), &mut out);
        let wanted: [(u32, &[u8]); 5] = [
            (0x1060_6614, &[2, 0, 0, 0xE7]),
            (0x1060_6714, &[0x15, 0xCD, 0x5B, 0x07, 0, 0, 0, 0xA7]),
            (0x1060_6714, &[0, 0, 0, 0, 0, 0, 0, 0x07]),
            (0x1060_6714, &[0, 0, 0, 0, 0, 0, 0, 0x27]),
            (0x1060_6714, &[0, 0, 0x50, 0x3C, 0x47]),
        ];
        assert_eq!(out, wanted.map(|(id, data)| Frame::data(id, data).with_extended(true)));
        out.clear();
        servo("node=20,fd=on").send_feedback(Duration::ZERO, &mut out);
        assert!(out.len() == 2 && out.iter().all(Frame::is_fd) && out[1].len() == 24);
    }

    #[test]
    fn a_short_setpoint_is_zero() {
        let mut s = servo("node=20,index=2,running=2,timeout_ms=0");
        say(&mut s, 0, SETPOINT, &[0x00, 0x49, 0xE0]);
        s.advance(MS * 500);
        assert!(s.shaft.velocity() == 0.0 && s.ready == Ready::Engaged);
    }

    #[test]
    fn ignored_stops_have_no_effect_one_kind_at_a_time() {
        let mut s = servo("node=20,running=2,timeout_ms=0");
        s.order(MS, &Order::IgnoreVelocityZero(true), &mut Vec::new());
        say(&mut s, 2, SETPOINT, &[0, 0, 0, 0, 0, 0, 0xE0]);
        s.advance(MS * 500);
        assert!(s.shaft.velocity() == 2.0);
        let torque_off = Ignore { torque_off: true, ..Ignore::default() };
        s.order(MS * 500, &Order::Ignore(torque_off, true), &mut Vec::new());
        say(&mut s, 500, READINESS, &[2, 0xE0]);
        assert!(s.ready == Ready::Engaged);
        s.order(MS * 501, &Order::Ignore(torque_off, false), &mut Vec::new());
        say(&mut s, 502, READINESS, &[2, 0xE1]);
        assert!(s.ready == Ready::Standby);
    }

    #[test]
    fn a_warning_takes_the_torque_away() {
        let mut s = servo("node=20,running=2,timeout_ms=0");
        s.order(MS, &Order::Fault(3), &mut Vec::new());
        s.advance(MS * 3000);
        assert!(s.shaft.velocity() == 0.0);
    }
}
