//! An ODrive axis that speaks CANSimple, firmware 0.5 or 0.6.
//!
//! Identifier = node << 5 | command; numbers are little-endian, velocities f32 in rev/s.

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

/// The kind, for the registry.
pub const KIND: Kind = Kind { name: "odrive", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
firmware (0.6)       0.5 or 0.6
extended (off)       29-bit identifiers
encoder_ms (10)      encoder estimates, 0 = never
watchdog_ms (0)      the drive's own watchdog, 0 = off
watchdog_idle (on)   whether the watchdog also runs while idle
control_mode (3)     at power-on: 1 torque, 2 velocity, 3 position
torque_gain (20)     rev/s^2 for each Nm
vel_limit (50)       rev/s";

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Odrive::new(Config::take(params)?)))
}

const GET_VERSION: u32 = 0x00;
const HEARTBEAT: u32 = 0x01;
const ESTOP: u32 = 0x02;
const GET_ERROR: u32 = 0x03;
const SET_AXIS_STATE: u32 = 0x07;
const ENCODER_ESTIMATES: u32 = 0x09;
const SET_CONTROLLER_MODE: u32 = 0x0B;
const SET_INPUT_POS: u32 = 0x0C;
const SET_INPUT_VEL: u32 = 0x0D;
const SET_INPUT_TORQUE: u32 = 0x0E;
const SET_LIMITS: u32 = 0x0F;
const GET_IQ: u32 = 0x14;
const REBOOT: u32 = 0x16;
const GET_BUS_VOLTAGE_CURRENT: u32 = 0x17;
const CLEAR_ERRORS: u32 = 0x18;

const TORQUE_CONTROL: u32 = 1;
const VELOCITY_CONTROL: u32 = 2;
const POSITION_CONTROL: u32 = 3;

/// `procedure_result` of firmware 0.6: the last procedure ended well, or an error ended it.
const RESULT_SUCCESS: u8 = 0;
const RESULT_DISARMED: u8 = 3;

/// The generation of the firmware: error bits and the heartbeat differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// 0.5.x, on boards up to v3.6.
    V05,
    /// 0.6.x, on S1, Pro and Micro.
    V06,
}

impl Firmware {
    fn estop_error(self) -> u32 {
        match self {
            Self::V05 => 0x4000,
            Self::V06 => 0x0200_0000,
        }
    }

    fn watchdog_error(self) -> u32 {
        match self {
            Self::V05 => 0x800,
            Self::V06 => 0x0100_0000,
        }
    }
}

/// The states of an axis that the simulation knows, with their numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisState {
    /// No torque.
    Idle = 1,
    /// The controller runs.
    ClosedLoop = 8,
}

impl AxisState {
    fn wire(self) -> u8 {
        match self {
            Self::Idle => 1,
            Self::ClosedLoop => 8,
        }
    }
}

/// What an axis is configured to at power-on.
#[derive(Clone, Debug)]
pub struct Config {
    node: u8,
    extended: bool,
    firmware: Firmware,
    heartbeat: Duration,
    encoder: Duration,
    watchdog: Duration,
    watchdog_idle: bool,
    control_mode: u32,
    torque_gain: f64,
    vel_limit: f64,
    running: Option<f64>,
    mechanics: Mechanics,
}

impl Config {
    /// Takes the keys of an ODrive axis.
    ///
    /// # Errors
    /// A value that cannot be read or is out of range, a missing node id.
    pub fn take(params: &mut Params) -> Result<Self> {
        Ok(Self {
            node: params.node(0..=63)?,
            extended: params.choice("extended", &[("off", false), ("on", true)])?,
            firmware: params.choice("firmware", &[("0.6", Firmware::V06), ("0.5", Firmware::V05)])?,
            heartbeat: params.millis("heartbeat_ms", 100)?,
            encoder: params.millis("encoder_ms", 10)?,
            watchdog: params.millis("watchdog_ms", 0)?,
            watchdog_idle: params.choice("watchdog_idle", &[("on", true), ("off", false)])?,
            control_mode: params.number("control_mode", POSITION_CONTROL, 0..=3)?,
            torque_gain: params.number("torque_gain", 20.0, 0.0..=1e6)?,
            vel_limit: params.number("vel_limit", 50.0, 0.001..=1e6)?,
            running: params.optional("running", -1e3..=1e3)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// The data of a heartbeat: the two firmwares agree on the first five bytes only.
pub fn heartbeat(firmware: Firmware, errors: u32, state: AxisState, result: u8, done: bool) -> [u8; 8] {
    let [a, b, c, d] = errors.to_le_bytes();
    match firmware {
        // No motor, encoder or controller error is ever modelled, so their flags stay clear.
        Firmware::V05 => [a, b, c, d, state.wire(), 0, 0, u8::from(done) << 7],
        Firmware::V06 => [a, b, c, d, state.wire(), result, u8::from(done), 0],
    }
}

/// One axis.
#[derive(Debug)]
pub struct Odrive {
    config: Config,
    /// Injected misbehaviour and counters.
    pub behaviour: Behaviour,
    shaft: Shaft,
    state: AxisState,
    errors: u32,
    disarm_reason: u32,
    result: u8,
    trajectory_done: bool,
    watchdog_tripped: bool,
    fed: Time,
    control_mode: u32,
    input_mode: u32,
    input_pos: f64,
    input_vel: f64,
    input_torque: f64,
    vel_limit: f64,
    heartbeat: Cycle,
    encoder: Cycle,
}

impl Odrive {
    /// An axis that is switched on at time zero.
    pub fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        let mut axis = Self {
            shaft: Shaft::new(&config.mechanics, running, config.node),
            behaviour: Behaviour::default(),
            state: AxisState::Idle,
            errors: 0,
            disarm_reason: 0,
            result: RESULT_SUCCESS,
            trajectory_done: true,
            watchdog_tripped: false,
            fed: Time::ZERO,
            control_mode: config.control_mode,
            input_mode: 1,
            input_pos: 0.0,
            input_vel: 0.0,
            input_torque: 0.0,
            vel_limit: config.vel_limit,
            heartbeat: Cycle::new(Time::ZERO, config.heartbeat),
            encoder: Cycle::new(Time::ZERO, config.encoder),
            config,
        };
        if axis.config.running.is_some() {
            axis.control_mode = VELOCITY_CONTROL;
            axis.input_vel = running;
            axis.state = AxisState::ClosedLoop;
        }
        axis
    }

    fn id(&self, command: u32) -> u32 {
        (u32::from(self.config.node) << 5) | command
    }

    fn send(&self, command: u32, data: [u8; 8], out: &mut Vec<Frame>) {
        out.push(Frame::data(self.id(command), &data).with_extended(self.config.extended));
    }

    fn demand(&self) -> Demand {
        let rate = self.config.mechanics.accel;
        match (self.state, self.control_mode) {
            (AxisState::Idle, _) => Demand::Off,
            (AxisState::ClosedLoop, VELOCITY_CONTROL) => {
                Demand::Velocity { velocity: self.input_vel.clamp(-self.vel_limit, self.vel_limit), rate }
            }
            (AxisState::ClosedLoop, TORQUE_CONTROL) => {
                Demand::Torque { acceleration: self.input_torque * self.config.torque_gain }
            }
            // Position control holds still: a velocity is only feed-forward there.
            (AxisState::ClosedLoop, _) => Demand::Velocity { velocity: 0.0, rate },
        }
    }

    fn advance(&mut self, now: Time) {
        let demand = self.demand();
        self.shaft.advance(now, demand);
        let quiet = now.saturating_sub(self.fed);
        let watching = self.config.watchdog_idle || self.state == AxisState::ClosedLoop;
        if !self.config.watchdog.is_zero() && watching && quiet > self.config.watchdog {
            self.watchdog_tripped = true;
            self.disarm(self.config.firmware.watchdog_error());
        }
    }

    /// An error takes the torque away and stays until it is cleared.
    fn disarm(&mut self, error: u32) {
        if self.state != AxisState::Idle {
            self.disarm_reason |= error;
            self.result = RESULT_DISARMED;
        }
        self.errors |= error;
        self.state = AxisState::Idle;
    }

    fn clear_errors(&mut self) {
        self.errors = 0;
        self.disarm_reason = 0;
        self.result = RESULT_SUCCESS;
        self.watchdog_tripped = false;
    }

    /// Answers a request, if this firmware does.
    fn answer(&mut self, command: u32, out: &mut Vec<Frame>) -> bool {
        let data = match (command, self.config.firmware) {
            // Protocol 2, hardware 4.4-58, firmware 0.6.10.
            (GET_VERSION, Firmware::V06) => [2, 4, 4, 58, 0, 6, 10, 0],
            (HEARTBEAT, Firmware::V06) => self.heartbeat_data(),
            (GET_ERROR, Firmware::V06) => {
                two_words(self.errors.to_le_bytes(), self.disarm_reason.to_le_bytes())
            }
            // In 0.5 this command reads the errors of the motor, of which there are none.
            (GET_ERROR, Firmware::V05) | (GET_IQ, _) => [0; 8],
            (ENCODER_ESTIMATES, _) => self.encoder_data(),
            (GET_BUS_VOLTAGE_CURRENT, _) => two_words(24.0_f32.to_le_bytes(), 0.0_f32.to_le_bytes()),
            _ => return false,
        };
        self.send(command, data, out);
        true
    }

    /// Carries out a command; none if it is unknown or too short.
    fn command(&mut self, now: Time, command: u32, frame: &Frame) -> Option<()> {
        match command {
            ESTOP => {
                if !self.behaviour.refuses(Stop::Quick) {
                    self.disarm(self.config.firmware.estop_error());
                }
            }
            SET_AXIS_STATE => match frame.u32_at(0)? {
                1 => {
                    if !self.behaviour.refuses(Stop::TorqueOff) {
                        self.state = AxisState::Idle;
                    }
                }
                8 => self.arm(),
                _ => return None,
            },
            SET_CONTROLLER_MODE => {
                let mode = frame.u32_at(0)?;
                self.input_mode = frame.u32_at(4)?;
                self.control_mode = mode;
            }
            SET_INPUT_POS => self.input_pos = f64::from(frame.f32_at(0)?),
            SET_INPUT_VEL => {
                let velocity = f64::from(frame.f32_at(0)?);
                if velocity != 0.0 || !self.behaviour.refuses(Stop::Controlled) {
                    self.input_vel = velocity;
                }
            }
            SET_INPUT_TORQUE => {
                let torque = f64::from(frame.f32_at(0)?);
                if torque != 0.0 || !self.behaviour.refuses(Stop::Controlled) {
                    self.input_torque = torque;
                }
            }
            SET_LIMITS => self.vel_limit = f64::from(frame.f32_at(0)?).abs(),
            REBOOT => self.reboot(now),
            CLEAR_ERRORS => self.clear_errors(),
            _ => return None,
        }
        Some(())
    }

    /// Closed loop is refused while there are errors. Inputs given earlier apply again.
    fn arm(&mut self) {
        if self.errors == 0 {
            self.state = AxisState::ClosedLoop;
            self.result = RESULT_SUCCESS;
        } else {
            self.result = RESULT_DISARMED;
        }
    }

    fn reboot(&mut self, now: Time) {
        self.state = AxisState::Idle;
        self.clear_errors();
        self.control_mode = self.config.control_mode;
        self.input_mode = 1;
        (self.input_pos, self.input_vel, self.input_torque) = (0.0, 0.0, 0.0);
        self.vel_limit = self.config.vel_limit;
        self.fed = now;
        self.heartbeat = Cycle::new(now, self.config.heartbeat);
        self.encoder = Cycle::new(now, self.config.encoder);
    }

    fn heartbeat_data(&self) -> [u8; 8] {
        heartbeat(self.config.firmware, self.errors, self.state, self.result, self.trajectory_done)
    }

    fn encoder_data(&mut self) -> [u8; 8] {
        let velocity = to_f32(self.shaft.measured_velocity());
        two_words(to_f32(self.shaft.position()).to_le_bytes(), velocity.to_le_bytes())
    }
}

impl Model for Odrive {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        let all = if self.config.extended { 0x1FFF_FFFF } else { 0x7FF };
        vec![IdRange { first: self.id(0), mask: all & !0x1F, extended: self.config.extended }]
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        if frame.id & !0x1F != self.id(0) || frame.extended != self.config.extended {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        // Every frame with this node id feeds the watchdog: queries and nonsense too.
        self.fed = now;
        let command = frame.id & 0x1F;
        // A request is a remote frame or, for drivers that cannot send those, an empty one.
        let understood = match command {
            GET_VERSION | HEARTBEAT | GET_ERROR | ENCODER_ESTIMATES | GET_IQ | GET_BUS_VOLTAGE_CURRENT => {
                (frame.remote || frame.is_empty()) && self.answer(command, out)
            }
            _ if frame.remote => false,
            _ => self.command(now, command, frame).is_some(),
        };
        if !understood {
            self.behaviour.frames_refused += 1;
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.heartbeat.due(now) {
            let data = self.heartbeat_data();
            self.send(HEARTBEAT, data, out);
        }
        if self.encoder.due(now) && !self.behaviour.feedback_loss {
            let data = self.encoder_data();
            self.send(ENCODER_ESTIMATES, data, out);
        }
    }

    fn next_due(&self) -> Time {
        let cyclic = self.heartbeat.next().min(self.encoder.next());
        let watched = !self.config.watchdog.is_zero() && !self.watchdog_tripped;
        // The watchdog expires after its time has passed, not when it has.
        let expiry = self.fed.saturating_add(self.config.watchdog).saturating_add(Duration::from_nanos(1));
        if watched && (self.config.watchdog_idle || self.state == AxisState::ClosedLoop) {
            cyclic.min(expiry)
        } else {
            cyclic
        }
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(0) => self.clear_errors(),
            Order::Fault(code) => self.disarm(code),
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => self.reboot(now),
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
            "kind": "odrive",
            "firmware": match self.config.firmware { Firmware::V05 => "0.5", Firmware::V06 => "0.6" },
            "velocity": self.shaft.velocity(),
            "position": self.shaft.position(),
            "target": match self.demand() { Demand::Velocity { velocity, .. } => velocity, _ => 0.0 },
            "state": match self.state { AxisState::Idle => "idle", AxisState::ClosedLoop => "closed-loop" },
            "state_code": self.state.wire(),
            "enabled": self.state == AxisState::ClosedLoop,
            "faults": self.errors,
            "disarm_reason": self.disarm_reason,
            "watchdog_tripped": self.watchdog_tripped,
            "control_mode": self.control_mode,
            "input_mode": self.input_mode,
            "input_pos": self.input_pos,
            "input_vel": self.input_vel,
            "input_torque": self.input_torque,
            "jammed": self.shaft.jammed,
            "pushed": self.shaft.pushed,
        });
        self.behaviour.report(&mut status);
        status
    }
}

fn two_words(first: [u8; 4], second: [u8; 4]) -> [u8; 8] {
    let [a, b, c, d] = first;
    let [e, f, g, h] = second;
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn axis(spec: &str) -> Odrive {
        let mut params = Params::parse(spec).expect("well formed");
        let axis = Odrive::new(Config::take(&mut params).expect("valid"));
        params.finish().expect("all known");
        axis
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
    }

    fn say(axis: &mut Odrive, ms: u32, id: u32, hex: &str) -> Vec<Frame> {
        let mut out = Vec::new();
        axis.on_frame(MS * ms, &Frame::data(id, &bytes(hex)), &mut out);
        out
    }

    fn ask(axis: &mut Odrive, ms: u32, id: u32) -> Vec<Frame> {
        let mut out = Vec::new();
        axis.on_frame(MS * ms, &Frame::request(id, 8), &mut out);
        out
    }

    /// Velocity control, closed loop, 1.5 rev/s: as a client would, in frames of node 3.
    fn start(axis: &mut Odrive, ms: u32) {
        say(axis, ms, 0x06B, "0200000001000000");
        say(axis, ms, 0x067, "0800000000000000");
        say(axis, ms, 0x06D, "0000c03f00000000");
    }

    #[test]
    fn heartbeats_match_the_published_layouts() {
        use AxisState::{ClosedLoop, Idle};
        use Firmware::{V05, V06};
        assert_eq!(heartbeat(V06, 0, Idle, 0, false).as_slice(), bytes("0000000001000000"));
        assert_eq!(
            heartbeat(V06, V06.watchdog_error(), Idle, 3, false).as_slice(),
            bytes("0000000101030000")
        );
        assert_eq!(heartbeat(V06, 0, ClosedLoop, 0, true).as_slice(), bytes("0000000008000100"));
        assert_eq!(heartbeat(V05, V05.estop_error(), Idle, 0, true).as_slice(), bytes("0040000001000080"));
    }

    #[test]
    fn encoder_estimates_match_the_published_layout() {
        let mut a = axis("node=0");
        a.shaft.pushed = Some(2.25);
        a.shaft.advance(MS * 1000, Demand::Off);
        a.shaft.pushed = Some(-0.125);
        a.shaft.advance(MS * 1000, Demand::Off);
        assert_eq!(ask(&mut a, 1000, 0x009), [Frame::data(0x009, &bytes("00001040000000be"))]);
    }

    #[test]
    fn velocity_needs_velocity_control() {
        let mut a = axis("node=3");
        say(&mut a, 0, 0x067, "08000000");
        say(&mut a, 0, 0x06D, "0000c03f00000000");
        a.advance(MS * 1000);
        assert!(a.shaft.velocity() == 0.0, "position control holds");
        say(&mut a, 1000, 0x06B, "0200000001000000");
        a.advance(MS * 2000);
        assert!(a.shaft.velocity() == 1.5);
        say(&mut a, 2000, 0x06D, "0000000000000000");
        a.advance(MS * 2050);
        assert!((a.shaft.velocity() - 0.5).abs() < 1e-9, "20 rev/s² for 50 ms");
        a.advance(MS * 2100);
        assert!(a.shaft.velocity() == 0.0);
    }

    #[test]
    fn idle_coasts() {
        let mut a = axis("node=3");
        start(&mut a, 0);
        a.advance(MS * 500);
        say(&mut a, 500, 0x067, "0100000000000000");
        a.advance(MS * 650);
        assert!((a.shaft.velocity() - 1.5 / std::f64::consts::E).abs() < 1e-9);
        a.advance(MS * 3000);
        assert!(a.shaft.velocity() == 0.0);
    }

    #[test]
    fn the_watchdog_disarms_and_every_frame_feeds_it() {
        for (firmware, error) in [("0.5", 0x800), ("0.6", 0x0100_0000)] {
            let mut a = axis(&format!("node=3,firmware={firmware},watchdog_ms=100"));
            start(&mut a, 0);
            // Requests, an unknown command and a frame of the wrong length feed it too.
            ask(&mut a, 90, 0x069);
            say(&mut a, 180, 0x07F, "");
            say(&mut a, 270, 0x067, "01");
            a.advance(MS * 370);
            assert!(a.state == AxisState::ClosedLoop);
            // A frame to another node does not.
            say(&mut a, 370, 0x08D, "0000000000000000");
            assert_eq!(
                a.next_due(),
                a.heartbeat.next().min(a.encoder.next()).min(MS * 370 + Duration::from_nanos(1))
            );
            a.advance(MS * 371);
            assert!(a.state == AxisState::Idle && a.errors == error && a.watchdog_tripped);
            // It cannot be armed before the errors are cleared.
            say(&mut a, 380, 0x067, "08000000");
            assert!(a.state == AxisState::Idle);
            say(&mut a, 390, 0x078, "00");
            say(&mut a, 390, 0x067, "08000000");
            assert!(a.state == AxisState::ClosedLoop && !a.watchdog_tripped);
        }
    }

    #[test]
    fn estop_latches() {
        let mut a = axis("node=3,running=4");
        say(&mut a, 10, 0x062, "");
        assert!(a.state == AxisState::Idle);
        assert_eq!(ask(&mut a, 11, 0x063), [Frame::data(0x063, &bytes("0000000200000002"))]);
        let mut out = Vec::new();
        a.tick(MS * 100, &mut out);
        assert_eq!(out.first(), Some(&Frame::data(0x061, &bytes("0000000201030100"))));
    }

    #[test]
    fn the_version_tells_the_firmwares_apart() {
        assert_eq!(ask(&mut axis("node=3"), 1, 0x060).first().map(|f| f.payload()[0]), Some(2));
        assert!(ask(&mut axis("node=3,firmware=0.5"), 1, 0x060).is_empty());
    }

    #[test]
    fn ignored_stops_have_no_effect_one_kind_at_a_time() {
        let mut a = axis("node=3,running=4");
        a.order(MS, &Order::IgnoreVelocityZero(true), &mut Vec::new());
        say(&mut a, 2, 0x06D, "0000000000000000");
        a.advance(MS * 1000);
        assert!(a.shaft.velocity() == 4.0);
        say(&mut a, 1000, 0x067, "01000000");
        assert!(a.state == AxisState::Idle, "torque off is not ignored");
    }

    #[test]
    fn feedback_loss_leaves_the_heartbeat() {
        let mut a = axis("node=3");
        let mut out = Vec::new();
        a.order(Time::ZERO, &Order::FeedbackLoss(true), &mut out);
        for ms in 0..=200 {
            a.tick(MS * ms, &mut out);
        }
        assert_eq!(out.iter().map(|f| f.id).collect::<Vec<_>>(), [0x061, 0x061]);
    }
}
