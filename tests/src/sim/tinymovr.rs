//! A Tinymovr controller.
//!
//! Extended identifier = node << 21 | hash << 12 | endpoint, little-endian. A remote request reads; the answer
//! has the identifier of the request.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::cycle::Cycle;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::to_f32;
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;

/// The kind.
pub const KIND: Kind = Kind {
    name: "tinymovr",
    keys_help: "\
firmware (2.4)       2.4 or 3.1: the numbers of endpoints
hash                 protocol hash, unless it is that of the firmware
ticks_per_rev (8192) ticks in one turn
heartbeat_ms (1000)  after the last frame sent, 0 = never
watchdog_ms (0)      its watchdog at power-on, 0 = off",
    build: |params| Ok(Box::new(Tinymovr::new(Config::take(params)?))),
};

/// States.
const IDLE: u8 = 0;
const CLOSED_LOOP: u8 = 2;

/// Modes.
const CURRENT: u8 = 0;
const VELOCITY: u8 = 1;
const POSITION: u8 = 2;
/// The last there is: homing.
const LAST_MODE: u8 = 4;

/// Protocol hash, and the endpoint of `watchdog.enabled`; `triggered` and `timeout` follow.
type Firmware = (u32, u32);

/// What a controller is configured to.
#[derive(Clone, Debug)]
pub struct Config {
    node: u8,
    hash: u32,
    watchdog_endpoint: u32,
    ticks_per_rev: f64,
    heartbeat: Duration,
    watchdog: Duration,
    running: Option<f64>,
    mechanics: Mechanics,
}

impl Config {
    /// Takes the keys.
    ///
    /// # Errors
    /// A value that cannot be read or is out of range, a missing node id.
    pub fn take(params: &mut Params) -> Result<Self> {
        let known: [(&str, Firmware); 2] = [("2.4", (3_999_954_334, 97)), ("3.1", (957_896_750, 98))];
        let (hash, watchdog_endpoint) = params.choice("firmware", &known)?;
        Ok(Self {
            node: params.node(1..=255)?,
            hash: params.number("hash", hash, 0..=u32::MAX)?,
            watchdog_endpoint,
            ticks_per_rev: params.number("ticks_per_rev", 8192.0, 1.0..=1e9)?,
            heartbeat: params.millis("heartbeat_ms", 1000)?,
            watchdog: params.millis("watchdog_ms", 0)?,
            running: params.optional("running", -1e3..=1e3)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// One controller.
#[derive(Debug)]
pub struct Tinymovr {
    config: Config,
    behaviour: Behaviour,
    shaft: Shaft,
    state: u8,
    mode: u8,
    errors: u8,
    /// rev/s.
    velocity: f64,
    /// A.
    current: f64,
    watchdog_enabled: bool,
    timeout: Duration,
    fed: Time,
    triggered: bool,
    heartbeat: Cycle,
}

impl Tinymovr {
    /// A controller that is switched on at time zero.
    pub fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        let mut controller = Self {
            shaft: Shaft::new(&config.mechanics, running, config.node),
            behaviour: Behaviour::default(),
            state: IDLE,
            mode: CURRENT,
            errors: 0,
            velocity: 0.0,
            current: 0.0,
            watchdog_enabled: false,
            timeout: Duration::ZERO,
            fed: Time::ZERO,
            triggered: false,
            heartbeat: Cycle::new(Time::ZERO, config.heartbeat),
            config,
        };
        controller.power_on(Time::ZERO);
        if controller.config.running.is_some() {
            (controller.state, controller.mode, controller.velocity) = (CLOSED_LOOP, VELOCITY, running);
        }
        controller
    }

    fn power_on(&mut self, now: Time) {
        (self.state, self.mode, self.errors, self.triggered) = (IDLE, CURRENT, 0, false);
        (self.velocity, self.current) = (0.0, 0.0);
        self.watchdog_enabled = !self.config.watchdog.is_zero();
        // One second unless somebody says otherwise.
        self.timeout = if self.watchdog_enabled { self.config.watchdog } else { Duration::from_secs(1) };
        self.fed = now;
        self.heartbeat = Cycle::new(now, self.config.heartbeat);
    }

    fn demand(&self) -> Demand {
        let rate = self.config.mechanics.accel;
        match (self.state, self.mode) {
            (CLOSED_LOOP, CURRENT) => Demand::Torque { acceleration: self.current * 4.0 },
            // A current that is left adds a torque, against which the loop holds a wrong speed for a while.
            (CLOSED_LOOP, VELOCITY) => {
                Demand::Velocity { velocity: self.velocity + self.current * 0.1, rate }
            }
            (CLOSED_LOOP, _) => Demand::Velocity { velocity: 0.0, rate },
            _ => Demand::Off,
        }
    }

    fn advance(&mut self, now: Time) {
        let end = self.fed.saturating_add(self.timeout);
        if self.watchdog_enabled && !self.triggered && end < now {
            self.shaft.advance(end, self.demand());
            self.triggered = true;
            self.state = IDLE;
        }
        self.shaft.advance(now, self.demand());
    }

    fn float(&self, revolutions: f64) -> Vec<u8> {
        to_f32(revolutions * self.config.ticks_per_rev).to_le_bytes().to_vec()
    }

    /// The value of an endpoint; empty for one that is not simulated.
    fn value(&mut self, endpoint: u32) -> Vec<u8> {
        let watchdog = self.config.watchdog_endpoint;
        match endpoint {
            0 => self.config.hash.to_le_bytes().to_vec(),
            9 => vec![0],
            21 => vec![self.state],
            22 => vec![self.mode],
            24 => vec![self.errors],
            27 => self.float(self.velocity),
            33 => to_f32(self.current).to_le_bytes().to_vec(),
            58 if !self.behaviour.feedback_loss => self.float(self.shaft.position()),
            59 if !self.behaviour.feedback_loss => {
                let velocity = self.shaft.measured_velocity();
                self.float(velocity)
            }
            _ if endpoint == watchdog => vec![u8::from(self.watchdog_enabled)],
            _ if endpoint == watchdog + 1 => vec![u8::from(self.triggered)],
            _ if endpoint == watchdog + 2 => self.timeout.as_secs_f32().to_le_bytes().to_vec(),
            _ => Vec::new(),
        }
    }

    /// Closed loop only from idle and without errors; anything else that is new is idle.
    fn set_state(&mut self, state: u8) {
        if state == self.state {
            return;
        }
        if state == CLOSED_LOOP && self.state == IDLE && self.errors == 0 {
            self.state = CLOSED_LOOP;
        } else if state != IDLE || !self.behaviour.refuses(Stop::TorqueOff) {
            self.state = IDLE;
        }
    }

    /// Carries out a write or a call; none if it makes no sense.
    fn write(&mut self, endpoint: u32, frame: &Frame) -> Option<()> {
        let watchdog = self.config.watchdog_endpoint;
        match endpoint {
            21 => {
                let state = u8::from_le_bytes(frame.bytes_at(0)?);
                // A stop is one even when nothing changes.
                if state == IDLE && self.state == IDLE {
                    self.behaviour.refuses(Stop::TorqueOff);
                }
                self.set_state(state);
            }
            22 => {
                let mode = u8::from_le_bytes(frame.bytes_at(0)?);
                if mode > LAST_MODE {
                    return None;
                }
                self.mode = mode;
            }
            27 => {
                let velocity = f64::from(frame.f32_at(0)?) / self.config.ticks_per_rev;
                if velocity != 0.0 || !self.behaviour.refuses(Stop::Controlled) {
                    self.velocity = velocity;
                }
            }
            33 => self.current = f64::from(frame.f32_at(0)?),
            _ if endpoint == watchdog => self.watchdog_enabled = frame.bytes_at::<1>(0)? != [0],
            _ if endpoint == watchdog + 2 => {
                self.timeout = Duration::try_from_secs_f32(frame.f32_at(0)?).ok()?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether an endpoint is a call, which any frame carries out, a remote request too.
    fn call(&mut self, endpoint: u32) -> bool {
        match endpoint {
            43 => self.set_state(IDLE),
            44..=46 => {
                self.mode = [POSITION, VELOCITY, CURRENT][usize::try_from(endpoint - 44).unwrap_or_default()];
                self.set_state(CLOSED_LOOP);
            }
            _ => return false,
        }
        true
    }
}

impl Model for Tinymovr {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        let node = u32::from(self.config.node);
        vec![IdRange::extended(node << 21, 0xFF << 21), IdRange::extended(0x700 | node, 0x1FFF_FFFF)]
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        if !frame.extended || frame.id >> 21 != u32::from(self.config.node) {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        let (hash, endpoint) = (frame.id >> 12 & 0x1FF, frame.id & 0xFFF);
        let mine = hash == 0 || hash == self.config.hash & 0xFF;
        let understood = if !mine {
            false
        } else if self.call(endpoint) {
            true
        } else if frame.remote {
            let value = self.value(endpoint);
            if !value.is_empty() {
                self.heartbeat = Cycle::new(now, self.config.heartbeat);
                out.push(Frame::data(frame.id, &value).with_extended(true));
            }
            !value.is_empty()
        } else {
            self.write(endpoint, frame).is_some()
        };
        if !understood {
            self.behaviour.frames_refused += 1;
        }
        // Whatever it was, it feeds the watchdog.
        (self.fed, self.triggered) = (now, false);
        self.advance(now);
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.heartbeat.due(now) {
            let mut data = self.config.hash.to_le_bytes().to_vec();
            data.extend(*b"2.4.");
            let id = 0x700 | u32::from(self.config.node);
            out.push(Frame::data(id, &data).with_extended(true));
        }
    }

    fn next_due(&self) -> Time {
        if !self.watchdog_enabled || self.triggered {
            return self.heartbeat.next();
        }
        // The watchdog expires after its time has passed, not when it has.
        let expiry = self.fed.saturating_add(self.timeout).saturating_add(Duration::from_nanos(1));
        self.heartbeat.next().min(expiry)
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(code) => {
                self.errors = code.to_le_bytes()[0];
                if self.errors != 0 {
                    self.state = IDLE;
                }
            }
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => self.power_on(now),
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
            "state": if self.state == IDLE { "idle" } else { "closed-loop" },
            "state_code": self.state,
            "enabled": self.state == CLOSED_LOOP,
            "control_mode": self.mode,
            "faults": self.errors,
            "watchdog_enabled": self.watchdog_enabled,
            "watchdog_tripped": self.triggered,
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
    /// Node 1, hash 0.
    const NODE: u32 = 1 << 21;

    fn drive(spec: &str) -> Tinymovr {
        let mut params = Params::parse(spec).expect("well formed");
        let drive = Tinymovr::new(Config::take(&mut params).expect("valid"));
        params.finish().expect("all known");
        drive
    }

    fn write(drive: &mut Tinymovr, ms: u32, id: u32, data: &[u8]) {
        let mut out = Vec::new();
        drive.on_frame(MS * ms, &Frame::data(id, data).with_extended(true), &mut out);
        assert!(out.is_empty(), "writes are not answered");
    }

    fn read(drive: &mut Tinymovr, ms: u32, id: u32) -> Option<Frame> {
        let mut out = Vec::new();
        drive.on_frame(MS * ms, &Frame::request(id, 0).with_extended(true), &mut out);
        out.pop()
    }

    /// 1 rev/s with 1000 ticks a turn.
    fn start(drive: &mut Tinymovr, ms: u32) {
        write(drive, ms, NODE | 22, &[1]);
        write(drive, ms, NODE | 27, &1000.0f32.to_le_bytes());
        write(drive, ms, NODE | 21, &[2]);
    }

    #[test]
    fn reads_are_answered_on_their_identifier() {
        let mut d = drive("node=1,ticks_per_rev=1000");
        let answer = |data: &[u8], id| Some(Frame::data(id, data).with_extended(true));
        // 0x0020_0015 and 0x0020_003B, as the vendor's client has them.
        assert_eq!(read(&mut d, 0, 0x0020_0015), answer(&[0], 0x0020_0015));
        d.shaft.pushed = Some(-0.25);
        d.advance(MS);
        assert_eq!(read(&mut d, 1, 0x0020_003B), answer(&(-250.0f32).to_le_bytes(), 0x0020_003B));
        // With the right hash, with a wrong one, another node, a standard frame.
        assert!(read(&mut d, 1, NODE | 0x9E << 12 | 21).is_some());
        assert!(read(&mut d, 1, NODE | 0x9F << 12 | 21).is_none());
        assert!(read(&mut d, 1, 2 << 21 | 21).is_none());
        let mut out = Vec::new();
        d.on_frame(MS, &Frame::request(21, 0), &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn the_heartbeat_tells_the_hash_and_nothing_else() {
        let mut d = drive("node=3");
        let mut out = Vec::new();
        d.tick(MS * 1000, &mut out);
        assert_eq!((out[0].id, out[0].extended), (0x703, true));
        assert_eq!(out[0].u32_at(0), Some(3_999_954_334));
        // It waits a second after anything else was sent.
        read(&mut d, 1500, 3 << 21 | 21);
        assert_eq!(d.next_due(), MS * 2500);
    }

    #[test]
    fn velocity_and_idle() {
        let mut d = drive("node=1,ticks_per_rev=1000");
        start(&mut d, 0);
        d.advance(MS * 100);
        assert!(d.shaft.velocity() == 1.0);
        write(&mut d, 100, NODE | 27, &[0; 4]);
        d.advance(MS * 200);
        assert!(d.shaft.velocity() == 0.0 && d.state == CLOSED_LOOP);
        write(&mut d, 200, NODE | 21, &[0]);
        assert_eq!(d.state, IDLE);
    }

    #[test]
    fn a_current_that_is_left_disturbs_the_stop() {
        let mut d = drive("node=1,ticks_per_rev=1000");
        start(&mut d, 0);
        write(&mut d, 0, NODE | 33, &5.0f32.to_le_bytes());
        write(&mut d, 100, NODE | 27, &[0; 4]);
        d.advance(MS * 300);
        assert!(d.shaft.velocity() > 0.1);
        write(&mut d, 300, NODE | 33, &[0; 4]);
        d.advance(MS * 400);
        assert!(d.shaft.velocity() == 0.0);
    }

    #[test]
    fn a_call_is_carried_out_by_a_read_too() {
        let mut d = drive("node=1");
        assert!(read(&mut d, 0, NODE | 45).is_none());
        assert!(d.state == CLOSED_LOOP && d.mode == VELOCITY);
        read(&mut d, 0, NODE | 43);
        assert_eq!(d.state, IDLE);
    }

    #[test]
    fn whatever_reaches_it_feeds_its_watchdog() {
        for endpoint in [97, 98] {
            let firmware = if endpoint == 97 { "2.4" } else { "3.1" };
            let mut d = drive(&format!("node=1,running=1,firmware={firmware}"));
            write(&mut d, 0, NODE | (endpoint + 2), &0.2f32.to_le_bytes());
            write(&mut d, 0, NODE | endpoint, &[1]);
            read(&mut d, 150, NODE | 21);
            // A wrong hash has no other effect.
            write(&mut d, 300, NODE | 0x55 << 12 | 27, &[0; 4]);
            d.advance(MS * 490);
            assert!(d.state == CLOSED_LOOP && d.velocity == 1.0);
            assert!(d.next_due() > MS * 500 && d.next_due() < MS * 501);
            d.advance(MS * 501);
            assert!(d.state == IDLE && d.triggered);
            assert_eq!(
                read(&mut d, 502, NODE | (endpoint + 1)).and_then(|frame| frame.bytes_at(0)),
                Some([1])
            );
        }
    }

    #[test]
    fn an_error_ends_the_loop_until_it_is_switched_off() {
        let mut d = drive("node=1,running=1");
        d.order(MS, &Order::Fault(1), &mut Vec::new());
        write(&mut d, 2, NODE | 21, &[2]);
        assert_eq!(d.state, IDLE);
        assert_eq!(read(&mut d, 3, NODE | 24).and_then(|frame| frame.bytes_at(0)), Some([1]));
        d.order(MS * 4, &Order::PowerCycle, &mut Vec::new());
        write(&mut d, 5, NODE | 21, &[2]);
        assert_eq!(d.state, CLOSED_LOOP);
    }

    #[test]
    fn ignored_stops_have_no_effect_one_kind_at_a_time() {
        let mut d = drive("node=1,running=1");
        d.order(MS, &Order::IgnoreVelocityZero(true), &mut Vec::new());
        write(&mut d, 2, NODE | 27, &[0; 4]);
        assert!(d.velocity == 1.0);
        write(&mut d, 3, NODE | 21, &[0]);
        write(&mut d, 4, NODE | 21, &[0]);
        assert_eq!(d.state, IDLE);
        let stops = &d.status(MS * 4)["stops_seen"];
        assert!(stops["controlled"] == 1 && stops["torque_off"] == 2 && stops["ignored"] == 1, "{stops}");
    }

    #[test]
    fn lost_feedback_leaves_the_state() {
        let mut d = drive("node=1");
        d.order(MS, &Order::FeedbackLoss(true), &mut Vec::new());
        assert!(read(&mut d, 2, NODE | 59).is_none() && read(&mut d, 2, NODE | 58).is_none());
        assert!(read(&mut d, 2, NODE | 21).is_some());
    }
}
