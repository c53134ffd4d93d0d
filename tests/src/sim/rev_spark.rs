//! A REV SPARK MAX or Flex with firmware 25.
//!
//! Identifier (29 bits) = 0x02050000 | API number << 6 | device; numbers are little-endian, velocities f32 in rpm.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::cycle::Cycle;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::{to_f32, to_i16};
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;

/// The kind, for the registry.
pub const KIND: Kind = Kind { name: "rev-spark", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
window_ms (100)      disabled this long after the last heartbeat that permits, 0 = never
status_ms (10)       STATUS_0
speed_ms (20)        STATUS_2
speed (off)          whether STATUS_2 is on at power-up
idle (coast)         coast or brake at a duty cycle of 0
free_speed (95)      rev/s at a duty cycle of 1";

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Spark::new(Config::take(params)?)))
}

const BASE: u32 = 0x0205_0000;
const SECONDARY_HEARTBEAT: u32 = 0x0205_2C80;
const UNIVERSAL_HEARTBEAT: u32 = 0x0101_1840;
const DISABLE_ALL: u32 = 0;

const VELOCITY: u32 = 0x000;
const DUTY_CYCLE: u32 = 0x002;
const SET_STATUSES_ENABLED: u32 = 0x010;
const SET_STATUSES_ENABLED_RESPONSE: u32 = 0x011;
const CLEAR_FAULTS: u32 = 0x06E;
const STATUS_0: u32 = 0x2E0;
const STATUS_1: u32 = 0x2E1;
const STATUS_2: u32 = 0x2E2;
const UNIQUE_ID: u32 = 0x2F0;

/// A duty cycle for each unit of the applied output.
const OUTPUT_UNIT: f64 = 3.082_369_457_075_716e-5;

#[derive(Clone, Debug)]
struct Config {
    device: u8,
    window: Duration,
    status: Duration,
    speed: Duration,
    speed_on: bool,
    unique_id: Duration,
    brakes: bool,
    free_speed: f64,
    running: Option<f64>,
    mechanics: Mechanics,
}

impl Config {
    fn take(params: &mut Params) -> Result<Self> {
        Ok(Self {
            device: params.node(1..=62)?,
            window: params.millis("window_ms", 100)?,
            status: params.millis("status_ms", 10)?,
            speed: params.millis("speed_ms", 20)?,
            speed_on: params.choice("speed", &[("off", false), ("on", true)])?,
            unique_id: params.millis("heartbeat_ms", 100)?,
            brakes: params.choice("idle", &[("coast", false), ("brake", true)])?,
            free_speed: params.number("free_speed", 95.0, 1.0..=1e4)?,
            running: params.optional("running", -1e3..=1e3)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// What it was last told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Setpoint {
    Duty(f64),
    Velocity(f64),
}

/// Whose heartbeats it obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obeys {
    Secondary,
    Universal,
}

/// One SPARK.
#[derive(Debug)]
struct Spark {
    config: Config,
    behaviour: Behaviour,
    shaft: Shaft,
    setpoint: Setpoint,
    enabled: bool,
    permitted: Time,
    obeys: Obeys,
    faults: u8,
    statuses: u16,
    watchdog_tripped: bool,
    status_0: Cycle,
    status_1: Cycle,
    status_2: Cycle,
    unique_id: Cycle,
}

impl Spark {
    fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        let at = Time::ZERO;
        Self {
            shaft: Shaft::new(&config.mechanics, running, config.device),
            behaviour: Behaviour::default(),
            setpoint: Setpoint::Velocity(running),
            enabled: config.running.is_some(),
            permitted: at,
            obeys: Obeys::Secondary,
            faults: 0,
            statuses: if config.speed_on { 0b111 } else { 0b011 },
            watchdog_tripped: false,
            status_0: Cycle::new(at, config.status),
            status_1: Cycle::new(at, Duration::from_millis(250)),
            status_2: Cycle::new(at, config.speed),
            unique_id: Cycle::new(at, config.unique_id),
            config,
        }
    }

    fn send(&self, api: u32, data: &[u8], out: &mut Vec<Frame>) {
        let id = BASE | api << 6 | u32::from(self.config.device);
        out.push(Frame::data(id, data).with_extended(true));
    }

    fn demand(&self) -> Demand {
        let at_rest = if self.config.brakes {
            Demand::Velocity { velocity: 0.0, rate: self.config.mechanics.quick_decel }
        } else {
            Demand::Off
        };
        let rate = self.config.mechanics.accel;
        match self.setpoint {
            _ if !self.enabled || self.faults != 0 => at_rest,
            Setpoint::Duty(0.0) => at_rest,
            Setpoint::Duty(duty) => Demand::Velocity { velocity: duty * self.config.free_speed, rate },
            Setpoint::Velocity(velocity) => Demand::Velocity { velocity, rate },
        }
    }

    fn advance(&mut self, now: Time) {
        self.shaft.advance(now, self.demand());
        let quiet = now.saturating_sub(self.permitted);
        if self.enabled && !self.config.window.is_zero() && quiet > self.config.window {
            self.enabled = false;
            self.watchdog_tripped = true;
        }
    }

    /// What it applies: feed-forward of the set-point and a part of what is missing.
    fn output(&self) -> f64 {
        let velocity = self.shaft.velocity();
        match self.setpoint {
            _ if !self.enabled || self.faults != 0 => 0.0,
            Setpoint::Duty(duty) => duty,
            Setpoint::Velocity(wanted) => (wanted + wanted - velocity) / self.config.free_speed,
        }
    }

    fn permit(&mut self, now: Time, permits: bool) {
        if permits {
            self.enabled = true;
            self.watchdog_tripped = false;
            self.permitted = now;
        } else if self.enabled && self.behaviour.refuses(Stop::TorqueOff) {
            self.permitted = now;
        } else {
            self.enabled = false;
        }
    }

    fn on_heartbeat(&mut self, now: Time, frame: &Frame) {
        let Some(bits) = frame.bytes_at::<8>(0) else { return };
        if frame.id == UNIVERSAL_HEARTBEAT {
            self.obeys = Obeys::Universal;
            self.permit(now, u64::from_le_bytes(bits) >> 28 & 1 == 1);
        } else if self.obeys == Obeys::Secondary {
            self.permit(now, u64::from_le_bytes(bits) >> self.config.device & 1 == 1);
        }
    }

    fn command(&mut self, api: u32, frame: &Frame, out: &mut Vec<Frame>) -> Option<()> {
        match api {
            VELOCITY => {
                let velocity = f64::from(frame.f32_at(0)?) / 60.0;
                frame.bytes_at::<8>(0)?;
                if velocity != 0.0 || !self.behaviour.refuses(Stop::Controlled) {
                    self.setpoint = Setpoint::Velocity(velocity);
                }
            }
            DUTY_CYCLE => {
                let duty = f64::from(frame.f32_at(0)?).clamp(-1.0, 1.0);
                frame.bytes_at::<8>(0)?;
                if duty != 0.0 || !self.behaviour.refuses(Stop::TorqueOff) {
                    self.setpoint = Setpoint::Duty(duty);
                }
            }
            SET_STATUSES_ENABLED => {
                let (mask, on) = (frame.u16_at(0)?, frame.u16_at(2)?);
                self.statuses = self.statuses & !mask | on & mask;
                let [m0, m1] = mask.to_le_bytes();
                let [o0, o1] = self.statuses.to_le_bytes();
                self.send(SET_STATUSES_ENABLED_RESPONSE, &[0, m0, m1, o0, o1], out);
            }
            CLEAR_FAULTS => self.faults = 0,
            _ => return None,
        }
        Some(())
    }
}

impl Model for Spark {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.device
    }

    fn own_ids(&self) -> Vec<IdRange> {
        vec![IdRange::extended(BASE | u32::from(self.config.device), 0x1FFF_003F)]
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        let one = |id| IdRange::extended(id, 0x1FFF_FFFF);
        let mut heard = self.own_ids();
        heard.extend([one(SECONDARY_HEARTBEAT), one(UNIVERSAL_HEARTBEAT), one(DISABLE_ALL)]);
        heard
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        if !frame.extended || frame.remote {
            return;
        }
        self.advance(now);
        match frame.id {
            SECONDARY_HEARTBEAT | UNIVERSAL_HEARTBEAT => self.on_heartbeat(now, frame),
            DISABLE_ALL => self.enabled = false,
            id if id & !0xFFC0 == BASE | u32::from(self.config.device) => {
                self.behaviour.frames_seen += 1;
                if self.command(id >> 6 & 0x3FF, frame, out).is_none() {
                    self.behaviour.frames_refused += 1;
                }
            }
            _ => {}
        }
        self.shaft.advance(now, self.demand());
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.status_0.due(now) && self.statuses & 1 != 0 {
            let [o0, o1] = to_i16(self.output() / OUTPUT_UNIT).to_le_bytes();
            let lock = if self.obeys == Obeys::Universal { 0x20 } else { 0 };
            self.send(STATUS_0, &[o0, o1, 0xA4, 0x06, 0, 25, lock, 0], out);
        }
        if self.status_1.due(now) && self.statuses & 2 != 0 {
            self.send(STATUS_1, &[self.faults, 0, 0, self.faults, 0, 0, 0, 0], out);
        }
        if self.status_2.due(now) && self.statuses & 4 != 0 && !self.behaviour.feedback_loss {
            let mut data = to_f32(self.shaft.measured_velocity() * 60.0).to_le_bytes().to_vec();
            data.extend(to_f32(self.shaft.position()).to_le_bytes());
            self.send(STATUS_2, &data, out);
        }
        if self.unique_id.due(now) {
            self.send(UNIQUE_ID, &[0x5A, 0x17, 0, self.config.device], out);
        }
    }

    fn next_due(&self) -> Time {
        let cycles =
            [self.status_0.next(), self.status_1.next(), self.status_2.next(), self.unique_id.next()];
        let cyclic = cycles.into_iter().fold(Time::MAX, Time::min);
        if self.enabled && !self.config.window.is_zero() {
            let expiry = self.permitted.saturating_add(self.config.window);
            cyclic.min(expiry.saturating_add(Duration::from_nanos(1)))
        } else {
            cyclic
        }
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(code) => self.faults = code.to_le_bytes()[0],
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                self.setpoint = Setpoint::Duty(0.0);
                self.enabled = false;
                self.obeys = Obeys::Secondary;
                self.faults = 0;
                self.statuses = if self.config.speed_on { 0b111 } else { 0b011 };
            }
            Order::Ignore(..) | Order::Mute(_) | Order::Offline(_) | Order::FeedbackLoss(_) | Order::Mark => {
            }
        }
        self.shaft.advance(now, self.demand());
    }

    fn status(&mut self, now: Time) -> Value {
        self.advance(now);
        let mut status = json!({
            "node": self.config.device,
            "kind": KIND.name,
            "velocity": self.shaft.velocity(),
            "position": self.shaft.position(),
            "target": match self.demand() { Demand::Velocity { velocity, .. } => velocity, _ => 0.0 },
            "enabled": self.enabled && self.faults == 0,
            "output": self.output(),
            "faults": self.faults,
            "locked": self.obeys == Obeys::Universal,
            "statuses": self.statuses,
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

    fn spark(keys: &str) -> Spark {
        let mut params = Params::parse(keys).expect("well formed");
        let spark = Spark::new(Config::take(&mut params).expect("valid"));
        params.finish().expect("no other keys");
        spark
    }

    fn say(spark: &mut Spark, ms: u32, id: u32, data: &[u8]) -> Vec<Frame> {
        let mut out = Vec::new();
        spark.on_frame(MS * ms, &Frame::data(id, data).with_extended(true), &mut out);
        out
    }

    /// 120 rpm on slot 0.
    const TWO_RPS: [u8; 8] = [0, 0, 0xF0, 0x42, 0, 0, 0, 0];

    fn run(spark: &mut Spark) {
        say(spark, 0, 0x0205_0003, &TWO_RPS);
        for ms in (0..1000).step_by(25) {
            say(spark, ms, SECONDARY_HEARTBEAT, &[0x08, 0, 0, 0, 0, 0, 0, 0]);
        }
        spark.advance(MS * 1000);
        assert!(spark.shaft.velocity() == 2.0);
    }

    #[test]
    fn it_runs_while_its_bit_is_set_and_100_ms_longer() {
        let mut s = spark("node=3");
        say(&mut s, 0, 0x0205_0003, &TWO_RPS);
        say(&mut s, 0, SECONDARY_HEARTBEAT, &[0x04, 0, 0, 0, 0, 0, 0, 0]);
        s.advance(MS * 90);
        assert!(s.shaft.velocity() == 0.0, "another one's bit");
        run(&mut s);
        s.advance(MS * 1075);
        assert!(s.enabled);
        s.advance(MS * 1076);
        assert!(!s.enabled && s.watchdog_tripped);
    }

    #[test]
    fn a_cleared_bit_disables_at_once_unless_it_obeys_a_roborio() {
        let mut s = spark("node=3");
        run(&mut s);
        say(&mut s, 1000, SECONDARY_HEARTBEAT, &[0; 8]);
        assert!(!s.enabled);
        // System watchdog: bit 28 of the little-endian number.
        say(&mut s, 1010, UNIVERSAL_HEARTBEAT, &[0, 0, 0, 0x10, 0, 0, 0, 0]);
        assert!(s.enabled);
        say(&mut s, 1020, SECONDARY_HEARTBEAT, &[0; 8]);
        assert!(s.enabled, "locked");
        let mut out = Vec::new();
        s.tick(MS * 1030, &mut out);
        assert!(out.iter().any(|frame| frame.id == 0x0205_B803 && frame.payload()[6] == 0x20));
        say(&mut s, 1040, DISABLE_ALL, &[]);
        assert!(!s.enabled);
    }

    #[test]
    fn zero_speed_brakes_and_zero_duty_coasts() {
        let mut s = spark("node=3,window_ms=0,running=4");
        say(&mut s, 0, 0x0205_0003, &[0; 8]);
        s.advance(MS * 100);
        assert!((s.shaft.velocity() - 2.0).abs() < 1e-9, "20 rev/s^2 for 100 ms");
        assert!(s.output() < 0.0);
        say(&mut s, 100, 0x0205_0083, &[0; 8]);
        assert!(s.output() == 0.0);
        s.advance(MS * 250);
        assert!((s.shaft.velocity() - 2.0 / std::f64::consts::E).abs() < 1e-9);
    }

    #[test]
    fn the_speed_is_told_when_it_is_asked_for() {
        let mut s = spark("node=3,running=1,window_ms=0");
        let mut out = Vec::new();
        s.tick(MS * 20, &mut out);
        assert!(out.iter().all(|frame| frame.id != 0x0205_B883));
        let answer = say(&mut s, 20, 0x0205_0403, &[7, 0, 7, 0]);
        assert_eq!(answer, [Frame::data(0x0205_0443, &[0, 7, 0, 7, 0]).with_extended(true)]);
        out.clear();
        s.tick(MS * 40, &mut out);
        let speed = out.iter().find(|frame| frame.id == 0x0205_B883).expect("sent");
        assert_eq!(speed.f32_at(0), Some(60.0));
        s.order(MS * 40, &Order::PowerCycle, &mut Vec::new());
        assert_eq!(s.statuses, 0b011);
    }

    #[test]
    fn ignored_stops_have_no_effect_one_kind_at_a_time() {
        let mut s = spark("node=3,window_ms=0,running=4");
        s.order(MS, &Order::IgnoreVelocityZero(true), &mut Vec::new());
        say(&mut s, 2, 0x0205_0003, &[0; 8]);
        s.advance(MS * 500);
        assert!(s.shaft.velocity() == 4.0);
        let torque_off = Ignore { torque_off: true, ..Ignore::default() };
        s.order(MS * 500, &Order::Ignore(torque_off, true), &mut Vec::new());
        say(&mut s, 500, 0x0205_0083, &[0; 8]);
        say(&mut s, 500, SECONDARY_HEARTBEAT, &[0; 8]);
        s.advance(MS * 900);
        assert!(s.shaft.velocity() == 4.0 && s.enabled);
        s.order(MS * 900, &Order::Ignore(torque_off, false), &mut Vec::new());
        say(&mut s, 900, 0x0205_0083, &[0; 8]);
        s.advance(MS * 4000);
        assert!(s.shaft.velocity() == 0.0);
    }

    #[test]
    fn a_fault_disables_until_it_is_cleared() {
        let mut s = spark("node=3,window_ms=0,running=4");
        s.order(MS, &Order::Fault(0x10), &mut Vec::new());
        assert!(s.output() == 0.0);
        let mut out = Vec::new();
        s.tick(MS * 250, &mut out);
        assert!(out.iter().any(|frame| frame.id == 0x0205_B843 && frame.payload()[0] == 0x10));
        say(&mut s, 260, 0x0205_1B83, &[]);
        assert!(s.output() != 0.0);
    }
}
