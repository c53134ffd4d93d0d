//! An ESC on DroneCAN.
//!
//! Identifier (29 bits) = priority << 24 | data type << 8 | source node. It obeys RawCommand and RPMCommand in single
//! frames, and ArmingStatus, from any node.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::cycle::Cycle;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::{to_f32, to_i32, to_u32};
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;
use super::transfer::{Receiver, crc, half};

/// The kind, for the registry.
pub const KIND: Kind = Kind { name: "dronecan", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
index (0)            its element of a command, 0 to 19
full_rpm (3000)      speed at a raw command of 8191
status_ms (20)       esc.Status
timeout_ms (200)     stops this long after the last command, 0 = never
arming (needed)      needed or ignored
zero (brake)         brake or coast at a command of 0";

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Esc::new(Config::take(params)?)))
}

const NODE_STATUS: u32 = 341;
const RAW_COMMAND: u32 = 1030;
const RPM_COMMAND: u32 = 1031;
const STATUS: u32 = 1034;
const ARMING_STATUS: u32 = 1100;

/// Of `uavcan.equipment.esc.Status`; a checksum begins with it.
const STATUS_SIGNATURE: u64 = 0xA9AF_28AE_A2FB_B254;

#[derive(Clone, Debug)]
struct Config {
    node: u8,
    index: u8,
    full: f64,
    status: Duration,
    node_status: Duration,
    timeout: Duration,
    arming: bool,
    brakes: bool,
    running: Option<f64>,
    mechanics: Mechanics,
}

impl Config {
    fn take(params: &mut Params) -> Result<Self> {
        Ok(Self {
            node: params.node(1..=127)?,
            index: params.number("index", 0, 0..=19)?,
            full: params.number("full_rpm", 3000.0, 1.0..=1e5)? / 60.0,
            status: params.millis("status_ms", 20)?,
            node_status: params.millis("heartbeat_ms", 100)?,
            timeout: params.millis("timeout_ms", 200)?,
            arming: params.choice("arming", &[("needed", true), ("ignored", false)])?,
            brakes: params.choice("zero", &[("brake", true), ("coast", false)])?,
            running: params.optional("running", -1e3..=1e3)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// The element at `index` of an array of signed numbers of `width` bits: its lower bytes first, the bits of each
/// from the highest down. `None` when the array does not reach that far.
fn element(payload: &[u8], index: u8, width: usize) -> Option<i32> {
    let bit = |at: usize| payload.get(at / 8).map(|byte| byte >> (7 - at % 8) & 1);
    let first = usize::from(index) * width;
    let mut value = 0;
    let mut done = 0;
    while done < width {
        let chunk = (width - done).min(8);
        let mut part = 0;
        for at in 0..chunk {
            part = part << 1 | i32::from(bit(first + done + at)?);
        }
        value |= part << done;
        done += chunk;
    }
    let sign = 1 << (width - 1);
    Some((value ^ sign) - sign)
}

/// One ESC.
#[derive(Debug)]
struct Esc {
    config: Config,
    behaviour: Behaviour,
    receiver: Receiver,
    shaft: Shaft,
    /// rev/s.
    command: f64,
    armed: bool,
    fed: Time,
    watchdog_tripped: bool,
    errors: u32,
    transfer: u8,
    node_transfer: u8,
    status: Cycle,
    node_status: Cycle,
}

impl Esc {
    fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        Self {
            shaft: Shaft::new(&config.mechanics, running, config.node),
            behaviour: Behaviour::default(),
            receiver: Receiver::default(),
            command: running,
            armed: config.running.is_some() || !config.arming,
            fed: Time::ZERO,
            watchdog_tripped: false,
            errors: 0,
            transfer: 0,
            node_transfer: 0,
            status: Cycle::new(Time::ZERO, config.status),
            node_status: Cycle::new(Time::ZERO, config.node_status),
            config,
        }
    }

    fn drives(&self) -> bool {
        self.armed && !self.watchdog_tripped && self.errors == 0
    }

    fn demand(&self) -> Demand {
        if !self.drives() || (self.command == 0.0 && !self.config.brakes) {
            Demand::Off
        } else if self.command == 0.0 {
            Demand::Velocity { velocity: 0.0, rate: self.config.mechanics.quick_decel }
        } else {
            Demand::Velocity { velocity: self.command, rate: self.config.mechanics.accel }
        }
    }

    fn advance(&mut self, now: Time) {
        self.shaft.advance(now, self.demand());
        if !self.config.timeout.is_zero() && now.saturating_sub(self.fed) > self.config.timeout {
            self.watchdog_tripped = true;
        }
    }

    /// Amperes: more the faster it turns, none when it is not driven.
    fn current(&self) -> f64 {
        let velocity = self.shaft.velocity();
        match self.demand() {
            Demand::Velocity { velocity: wanted, .. } if wanted != 0.0 || velocity != 0.0 => {
                1.0 + 0.1 * velocity.abs()
            }
            _ => 0.0,
        }
    }

    fn set(&mut self, now: Time, command: f64) {
        self.fed = now;
        self.watchdog_tripped = false;
        if command != 0.0 || !self.behaviour.refuses(Stop::Controlled) {
            self.command = command;
        }
    }

    fn on_message(&mut self, now: Time, data_type: u32, payload: &[u8]) -> Option<()> {
        match data_type {
            // Without its element it is not commanded at all.
            RAW_COMMAND => {
                if let Some(raw) = element(payload, self.config.index, 14) {
                    self.set(now, f64::from(raw) / 8191.0 * self.config.full);
                }
            }
            RPM_COMMAND => {
                if let Some(rpm) = element(payload, self.config.index, 18) {
                    self.set(now, f64::from(rpm) / 60.0);
                }
            }
            ARMING_STATUS => match payload.first()? {
                255 => self.armed = true,
                _ if !self.config.arming => {}
                _ => {
                    if !self.behaviour.refuses(Stop::TorqueOff) {
                        self.armed = false;
                    }
                }
            },
            _ => return None,
        }
        Some(())
    }

    fn send(&self, priority: u32, data_type: u32, data: &[u8], out: &mut Vec<Frame>) {
        let id = priority << 24 | data_type << 8 | u32::from(self.config.node);
        out.push(Frame::data(id, data).with_extended(true));
    }

    /// The 14 bytes of a Status: error count, voltage, current, temperature, then 18 bits of rpm, 7 of power and 5
    /// of index.
    fn status_payload(&mut self) -> Vec<u8> {
        let rpm = to_i32(self.shaft.measured_velocity() * 60.0).clamp(-131_072, 131_071);
        let [low, middle, high, _] = rpm.to_le_bytes();
        let current = to_f32(self.current());
        let power = u16::try_from(to_u32(f64::from(current).min(100.0))).unwrap_or_default();
        let mut payload = self.errors.to_le_bytes().to_vec();
        for value in [24.0, current, 300.0] {
            payload.extend(half(value).to_le_bytes());
        }
        payload.extend([low, middle]);
        let rest = u16::from(high & 3) << 14 | power << 7 | u16::from(self.config.index) << 2;
        payload.extend(rest.to_be_bytes());
        payload
    }

    fn send_status(&mut self, out: &mut Vec<Frame>) {
        let payload = self.status_payload();
        let sum = crc(crc(0xFFFF, &STATUS_SIGNATURE.to_le_bytes()), &payload);
        let mut all = sum.to_le_bytes().to_vec();
        all.extend(payload);
        let last = all.len().div_ceil(7) - 1;
        for (place, part) in all.chunks(7).enumerate() {
            let start = if place == 0 { 0x80 } else { 0 };
            let end = if place == last { 0x40 } else { 0 };
            let toggle = if place % 2 == 1 { 0x20 } else { 0 };
            let mut data = part.to_vec();
            data.push(start | end | toggle | self.transfer);
            self.send(16, STATUS, &data, out);
        }
        self.transfer = (self.transfer + 1) % 32;
    }
}

impl Model for Esc {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        // Whatever it sends has its number at the end.
        vec![IdRange::extended(STATUS << 8 | u32::from(self.config.node), 0x00FF_FFFF)]
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        // Any priority and any source.
        let commands = [RAW_COMMAND, RPM_COMMAND, ARMING_STATUS];
        let mut heard = self.own_ids();
        heard.extend(commands.map(|data_type| IdRange::extended(data_type << 8, 0x00FF_FF80)));
        heard
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, _out: &mut Vec<Frame>) {
        let data_type = frame.id >> 8 & 0xFFFF;
        let known = matches!(data_type, RAW_COMMAND | RPM_COMMAND | ARMING_STATUS);
        if !frame.extended || frame.remote || frame.id & 0x80 != 0 || !known {
            return;
        }
        let Some((tail, payload)) = frame.payload().split_last() else { return };
        self.advance(now);
        self.behaviour.frames_seen += 1;
        let session = data_type << 8 | frame.id & 0x7F;
        let fresh = self.receiver.is_new(now, session, tail & 0x1F);
        // Transfers of several frames are not put together.
        let single = tail & 0xC0 == 0xC0;
        if !(fresh && single && self.on_message(now, data_type, payload).is_some()) {
            self.behaviour.frames_refused += 1;
        }
        self.shaft.advance(now, self.demand());
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.status.due(now) && !self.behaviour.feedback_loss {
            self.send_status(out);
        }
        if self.node_status.due(now) {
            let [a, b, c, d] = u32::try_from(now.as_secs()).unwrap_or(u32::MAX).to_le_bytes();
            self.send(16, NODE_STATUS, &[a, b, c, d, 0, 0, 0, 0xC0 | self.node_transfer], out);
            self.node_transfer = (self.node_transfer + 1) % 32;
        }
    }

    fn next_due(&self) -> Time {
        let cyclic = self.status.next().min(self.node_status.next());
        let watched = !self.config.timeout.is_zero() && !self.watchdog_tripped;
        let expiry = self.fed.saturating_add(self.config.timeout).saturating_add(Duration::from_nanos(1));
        if watched { cyclic.min(expiry) } else { cyclic }
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(code) => self.errors = code,
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                self.command = 0.0;
                self.armed = !self.config.arming;
                self.errors = 0;
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
            "target": self.command,
            "enabled": self.drives(),
            "armed": self.armed,
            "current": self.current(),
            "faults": self.errors,
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

    fn esc(keys: &str) -> Esc {
        let mut params = Params::parse(keys).expect("well formed");
        let esc = Esc::new(Config::take(&mut params).expect("valid"));
        params.finish().expect("no other keys");
        esc
    }

    fn say(esc: &mut Esc, ms: u32, id: u32, data: &[u8]) {
        esc.on_frame(MS * ms, &Frame::data(id, data).with_extended(true), &mut Vec::new());
    }

    const RAW: u32 = 0x0004_060A;
    const RPM: u32 = 0x0004_070A;
    const ARMING: u32 = 0x0004_4C0A;
    const ZERO: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 0xC0];

    /// Bytes of pydronecan 1.0.27.
    #[test]
    fn elements_are_read() {
        for (payload, index, value) in [
            ([0xFF, 0x7C, 0, 0, 0, 0, 0], 0, 8191),
            ([0, 0, 0xE3, 0xF0, 0, 0, 0], 1, -200),
            ([0, 0, 0, 0, 0x18, 0, 0], 2, -8191),
            ([0, 0, 0, 0, 0, 0, 0x10], 3, 4096),
        ] {
            assert_eq!(element(&payload, index, 14), Some(value));
        }
        assert_eq!(element(&[0, 0, 0x22, 0x3F, 0xF0, 0, 0], 1, 18), Some(-120));
        assert_eq!(element(&[0, 0], 1, 14), None);
    }

    /// Bytes of pydronecan 1.0.27: 7 errors, 24 V, 0 A, 300 K.
    #[test]
    fn a_status_has_three_frames() {
        let mut e = esc("node=20");
        e.errors = 7;
        let mut out = Vec::new();
        e.send_status(&mut out);
        let wanted: [&[u8]; 3] =
            [&[0x59, 0x9F, 7, 0, 0, 0, 0, 0x80], &[0x4E, 0, 0, 0xB0, 0x5C, 0, 0, 0x20], &[0, 0, 0x40]];
        assert_eq!(out, wanted.map(|data| Frame::data(0x1004_0A14, data).with_extended(true)));
    }

    #[test]
    fn it_turns_when_armed_and_commanded_anew() {
        let mut e = esc("node=20,timeout_ms=0");
        let turn = [0x00, 0x0F, 0, 0, 0, 0, 0, 0xC0];
        say(&mut e, 0, RPM, &turn);
        e.advance(MS * 100);
        assert!(e.shaft.velocity() == 0.0, "not armed");
        say(&mut e, 100, ARMING, &[255, 0xC0]);
        e.advance(MS * 1000);
        let speed = e.shaft.velocity();
        assert!(speed > 0.0);
        // The number of the last one: a repetition.
        say(&mut e, 1000, RPM, &ZERO);
        e.advance(MS * 1500);
        assert!(e.shaft.velocity() >= speed);
        say(&mut e, 1500, RPM, &[0, 0, 0, 0, 0, 0, 0, 0xC1]);
        e.advance(MS * 3000);
        assert!(e.shaft.velocity() == 0.0 && e.current() == 0.0);
    }

    #[test]
    fn a_missing_element_commands_nothing() {
        let mut e = esc("node=20,index=1,running=2,timeout_ms=0");
        say(&mut e, 0, RAW, &[0, 0, 0xC0]);
        e.advance(MS * 500);
        assert!(e.shaft.velocity() == 2.0);
    }

    #[test]
    fn disarming_takes_the_torque_away_and_silence_too() {
        let mut e = esc("node=20,running=2,timeout_ms=0");
        assert!(e.current() > 1.0);
        say(&mut e, 0, ARMING, &[0, 0xC0]);
        e.advance(MS * 150);
        assert!((e.shaft.velocity() - 2.0 / std::f64::consts::E).abs() < 1e-9 && e.current() == 0.0);
        let mut e = esc("node=20,running=2");
        e.advance(MS * 201);
        e.advance(MS * 3000);
        assert!(e.watchdog_tripped && e.shaft.velocity() == 0.0);
    }

    #[test]
    fn ignored_stops_have_no_effect_one_kind_at_a_time() {
        let mut e = esc("node=20,running=2,timeout_ms=0");
        e.order(MS, &Order::IgnoreVelocityZero(true), &mut Vec::new());
        say(&mut e, 2, RAW, &ZERO);
        e.advance(MS * 500);
        assert!(e.shaft.velocity() == 2.0);
        let torque_off = Ignore { torque_off: true, ..Ignore::default() };
        e.order(MS * 500, &Order::Ignore(torque_off, true), &mut Vec::new());
        say(&mut e, 500, ARMING, &[0, 0xC0]);
        assert!(e.armed);
        e.order(MS * 501, &Order::Ignore(torque_off, false), &mut Vec::new());
        say(&mut e, 502, ARMING, &[0, 0xC1]);
        assert!(!e.armed);
    }
}
