//! A CANopen drive with the CiA 402 profile: profile velocity and cyclic synchronous velocity.
//!
//! Here are NMT, PDOs, emergency messages and how the parts act together; the power state machine is in
//! [`power`], the object dictionary in `objects`, SDO frames in [`sdo`], network states in [`network`].

pub mod network;
mod objects;
pub mod power;
pub mod sdo;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::cycle::Cycle;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::{to_i32, to_u32};
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;
use network::{Consumer, Nmt};
use objects::Objects;
use power::{Command, State};
use sdo::Request;

/// The kind, for the registry.
pub const KIND: Kind = Kind { name: "cia402", keys_help: KEYS_HELP, build };

const KEYS_HELP: &str = "\
tpdo_ms (10)         TPDO 1, 0 = never
counts_per_rev (4096)
mode (3)             object 6060: 0, 3, 9
abort_option (1)     object 6007: 0 nothing, 1 fault, 2 disable voltage, 3 quick stop
nmt_stop_aborts (on) whether NMT stop applies object 6007
quick_stop_option (2), halt_option (1), fault_reaction (2)   objects 605A, 605D, 605E
consumer_node, consumer_ms (0)   object 1016:1
rpdo_type, tpdo_type (255)       objects 1400:2, 1800:2";

fn build(params: &mut Params) -> Result<Box<dyn Model>> {
    Ok(Box::new(Cia402::new(Config::take(params)?)))
}

/// How often a ramp is looked at whose end changes the state.
const RAMP_STEP: Duration = Duration::from_millis(5);

/// A speed (rev/s) below which the drive calls its shaft stopped.
const SPEED_ZERO: f64 = 0.01;

const HALT: u16 = 0x0100;
const FAULT_RESET: u16 = 0x0080;

const HEARTBEAT_LOST: u16 = 0x8130;
const PDO_LENGTH: u16 = 0x8210;

/// What a drive is configured to at power-on.
#[derive(Clone, Debug)]
pub struct Config {
    node: u8,
    heartbeat: Duration,
    tpdo: Duration,
    counts_per_rev: u32,
    consumer: u32,
    nmt_stop_aborts: bool,
    running: Option<f64>,
    mechanics: Mechanics,
    objects: Objects,
}

impl Config {
    /// Takes the keys of a CiA 402 drive.
    ///
    /// # Errors
    /// A value that cannot be read or is out of range, a missing node id.
    pub fn take(params: &mut Params) -> Result<Self> {
        let counts_per_rev = params.number("counts_per_rev", 4096, 1..=10_000_000)?;
        let mechanics = Mechanics::take(params)?;
        let counts = |per_rev: f64| to_u32(per_rev * f64::from(counts_per_rev)).max(1);
        let consumer_node: u32 = params.number("consumer_node", 0, 0..=127)?;
        let consumer_ms: u32 = params.number("consumer_ms", 0, 0..=65_535)?;
        Ok(Self {
            node: params.node(1..=127)?,
            heartbeat: params.millis("heartbeat_ms", 100)?,
            tpdo: params.millis("tpdo_ms", 10)?,
            counts_per_rev,
            consumer: (consumer_node << 16) | consumer_ms,
            nmt_stop_aborts: params.choice("nmt_stop_aborts", &[("on", true), ("off", false)])?,
            running: params.optional("running", -1e3..=1e3)?,
            objects: Objects {
                error_behaviour: 0,
                rpdo_valid: true,
                rpdo_objects: 2,
                tpdo_objects: 2,
                tpdo_inhibit: 0,
                rpdo_type: params.number("rpdo_type", 255, 0..=255)?,
                tpdo_valid: true,
                tpdo_type: params.number("tpdo_type", 255, 1..=255)?,
                abort_option: params.number("abort_option", 1, 0..=3)?,
                quick_stop_option: params
                    .choice("quick_stop_option", &[("2", 2), ("0", 0), ("1", 1), ("5", 5), ("6", 6)])?,
                halt_option: params.number("halt_option", 1, 0..=2)?,
                fault_reaction: params.number("fault_reaction", 2, 0..=2)?,
                mode: params.choice("mode", &[("3", 3), ("9", 9), ("0", 0)])?,
                target: 0,
                acceleration: counts(mechanics.accel),
                deceleration: counts(mechanics.accel),
                quick_deceleration: counts(mechanics.quick_decel),
            },
            mechanics,
        })
    }
}

/// One drive.
#[derive(Debug)]
pub struct Cia402 {
    config: Config,
    /// Injected misbehaviour and counters.
    pub behaviour: Behaviour,
    shaft: Shaft,
    objects: Objects,
    nmt: Nmt,
    state: State,
    controlword: u16,
    halted: bool,
    error_code: u16,
    heartbeat: Cycle,
    tpdo: Cycle,
    consumer: Consumer,
    waiting_rpdo: Option<Frame>,
    syncs: u8,
    guard_toggle: bool,
    ticked: Time,
    /// Emergency messages that arose since the last frames were sent.
    emergencies: Vec<u16>,
}

impl Cia402 {
    /// A drive that is switched on at time zero.
    pub fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        let mut drive = Self {
            behaviour: Behaviour::default(),
            shaft: Shaft::new(&config.mechanics, running, config.node),
            objects: config.objects.clone(),
            nmt: Nmt::Initialising,
            state: State::NotReady,
            controlword: 0,
            halted: false,
            error_code: 0,
            heartbeat: Cycle::new(Time::ZERO, config.heartbeat),
            tpdo: Cycle::new(Time::ZERO, config.tpdo),
            consumer: Consumer::new(config.consumer),
            waiting_rpdo: None,
            syncs: 0,
            guard_toggle: false,
            ticked: Time::ZERO,
            emergencies: Vec::new(),
            config,
        };
        if drive.config.running.is_some() {
            drive.nmt = Nmt::Operational;
            drive.state = State::Enabled;
            drive.controlword = 0x0F;
            drive.objects.target = to_i32(running * drive.counts());
        }
        drive
    }

    fn id(&self, base: u32) -> u32 {
        base + u32::from(self.config.node)
    }

    /// Counts in a revolution.
    fn counts(&self) -> f64 {
        f64::from(self.config.counts_per_rev)
    }

    fn demand(&self) -> Demand {
        let objects = &self.objects;
        let ramp = |counts: f64, rate: u32| Demand::Velocity {
            velocity: counts / self.counts(),
            rate: f64::from(rate) / self.counts(),
        };
        match self.state {
            State::Enabled if self.halted && objects.halt_option == 0 => Demand::Off,
            State::Enabled if self.halted && objects.halt_option == 2 => {
                ramp(0.0, objects.quick_deceleration)
            }
            State::Enabled if self.halted || objects.mode == 0 => ramp(0.0, objects.deceleration),
            State::Enabled => {
                let target = f64::from(objects.target) / self.counts();
                let slower = target.abs() < self.shaft.velocity().abs();
                let rate = if slower { objects.deceleration } else { objects.acceleration };
                ramp(f64::from(objects.target), rate)
            }
            State::QuickStop if matches!(objects.quick_stop_option, 1 | 5) => ramp(0.0, objects.deceleration),
            State::QuickStop | State::FaultReaction => ramp(0.0, objects.quick_deceleration),
            State::NotReady | State::SwitchOnDisabled | State::Ready | State::SwitchedOn | State::Fault => {
                Demand::Off
            }
        }
    }

    fn demanded_velocity(&self) -> f64 {
        match self.demand() {
            Demand::Velocity { velocity, .. } => velocity,
            Demand::Off | Demand::Torque { .. } => 0.0,
        }
    }

    fn velocity_counts(&mut self) -> i32 {
        to_i32(self.shaft.measured_velocity() * self.counts())
    }

    fn statusword(&self) -> u16 {
        let bit = |n: u16, set: bool| u16::from(set) << n;
        let velocity = self.shaft.velocity();
        let reached = (velocity - self.demanded_velocity()).abs() <= SPEED_ZERO;
        self.state.statusword()
            // Voltage is there, and commands from the bus are obeyed.
            | bit(4, self.state != State::NotReady)
            | bit(9, self.nmt == Nmt::Operational)
            | bit(10, self.state.has_torque() && reached)
            | bit(12, self.objects.mode == 3 && velocity.abs() < SPEED_ZERO)
    }

    fn error_register(&self) -> u8 {
        let lost = self.consumer.is_lost();
        let any = lost || matches!(self.state, State::Fault | State::FaultReaction);
        u8::from(any) | (u8::from(lost) << 4)
    }

    /// Lets the shaft turn until `now`, and the state follow where a ramp or a watch has ended.
    fn advance(&mut self, now: Time) {
        let demand = self.demand();
        self.shaft.advance(now, demand);
        if self.shaft.velocity().abs() < SPEED_ZERO {
            match self.state {
                State::QuickStop if self.objects.quick_stop_option <= 2 => {
                    self.state = State::SwitchOnDisabled;
                }
                State::FaultReaction => self.state = State::Fault,
                _ => {}
            }
        }
        if self.consumer.expired(now) {
            if self.objects.abort_option == 1 {
                self.raise(HEARTBEAT_LOST);
            } else {
                self.error_code = HEARTBEAT_LOST;
                self.emergencies.push(HEARTBEAT_LOST);
                self.abort_connection();
            }
            self.nmt = match (self.nmt, self.objects.error_behaviour) {
                (Nmt::Operational, 0) => Nmt::PreOperational,
                (Nmt::Operational | Nmt::PreOperational, 2) => Nmt::Stopped,
                (nmt, _) => nmt,
            };
        }
    }

    /// Object 6007: what happens to the motor when its master is gone.
    fn abort_connection(&mut self) {
        match self.objects.abort_option {
            1 => self.raise(HEARTBEAT_LOST),
            2 => self.command(Command::DisableVoltage),
            3 => self.command(Command::QuickStop),
            _ => {}
        }
    }

    fn command(&mut self, command: Command) {
        let option = self.objects.quick_stop_option;
        self.state = self.state.after(command, option != 0, matches!(option, 5 | 6));
    }

    /// A fault arises.
    fn raise(&mut self, code: u16) {
        self.error_code = code;
        self.emergencies.push(code);
        if self.state != State::Fault && self.state != State::NotReady {
            let ramps = self.state.has_torque() && self.objects.fault_reaction != 0;
            self.state = if ramps { State::FaultReaction } else { State::Fault };
        }
    }

    fn reset_fault(&mut self) {
        if self.state == State::Fault {
            self.state = State::SwitchOnDisabled;
            self.error_code = 0;
            self.emergencies.push(0);
        }
    }

    /// Object 6040, by SDO or PDO.
    fn set_controlword(&mut self, controlword: u16) {
        let rising = controlword & !self.controlword;
        self.controlword = controlword;
        if rising & FAULT_RESET != 0 {
            self.reset_fault();
        }
        let command = Command::of(controlword);
        let stop = match command {
            Command::QuickStop => Some(Stop::Quick),
            Command::DisableVoltage => Some(Stop::TorqueOff),
            Command::Shutdown | Command::SwitchOn => self.state.has_torque().then_some(Stop::TorqueOff),
            Command::EnableOperation => None,
        };
        if stop.is_none_or(|stop| !self.behaviour.refuses(stop)) {
            self.command(command);
        }
        if command == Command::EnableOperation {
            self.halted = controlword & HALT != 0 && !self.behaviour.refuses(Stop::Controlled);
        }
    }

    /// Object 60FF, by SDO or PDO.
    fn set_target(&mut self, counts: i32) {
        if counts != 0 || !self.behaviour.refuses(Stop::Controlled) {
            self.objects.target = counts;
        }
    }

    fn on_nmt(&mut self, frame: &Frame) -> Option<()> {
        match frame.payload().first()? {
            0x01 => self.nmt = Nmt::Operational,
            0x02 => {
                if self.nmt != Nmt::Stopped && self.config.nmt_stop_aborts {
                    self.abort_connection();
                }
                self.nmt = Nmt::Stopped;
            }
            0x80 => self.nmt = Nmt::PreOperational,
            0x81 => self.power_cycle(),
            0x82 => {
                self.abort_connection();
                self.reset_communication();
            }
            _ => return None,
        }
        Some(())
    }

    /// All forgotten, torque off; the shaft turns on by itself.
    fn power_cycle(&mut self) {
        self.reset_communication();
        self.objects = self.config.objects.clone();
        self.state = State::NotReady;
        self.controlword = 0;
        self.halted = false;
        self.error_code = 0;
        self.emergencies.clear();
    }

    fn reset_communication(&mut self) {
        let defaults = &self.config.objects;
        self.nmt = Nmt::Initialising;
        self.consumer = Consumer::new(self.config.consumer);
        self.objects.error_behaviour = defaults.error_behaviour;
        (self.objects.rpdo_valid, self.objects.rpdo_type) = (defaults.rpdo_valid, defaults.rpdo_type);
        (self.objects.tpdo_valid, self.objects.tpdo_type) = (defaults.tpdo_valid, defaults.tpdo_type);
        (self.objects.rpdo_objects, self.objects.tpdo_objects) =
            (defaults.rpdo_objects, defaults.tpdo_objects);
        self.waiting_rpdo = None;
        self.syncs = 0;
        self.guard_toggle = false;
    }

    fn on_sync(&mut self, out: &mut Vec<Frame>) {
        if let Some(frame) = self.waiting_rpdo.take() {
            self.apply_rpdo(&frame);
        }
        if self.nmt == Nmt::Operational && (1..=240).contains(&self.objects.tpdo_type) {
            self.syncs = self.syncs.saturating_add(1);
            if self.syncs >= self.objects.tpdo_type {
                self.syncs = 0;
                self.send_tpdo(out);
            }
        }
    }

    fn on_sdo(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) -> Option<()> {
        if !self.nmt.has_sdo() || frame.remote {
            return None;
        }
        let request = Request::parse(frame)?;
        let (address, result) = match request {
            Request::Upload(address) => (address, self.read(address).map(Some)),
            Request::Download(address, data, stated) => {
                (address, self.write(now, address, data, stated).map(|()| None))
            }
            Request::Unsupported(address) => (address, Err(sdo::Abort::COMMAND)),
        };
        let answer = match result {
            Ok(Some(value)) => sdo::uploaded(address, value),
            Ok(None) => sdo::downloaded(address),
            Err(abort) => {
                self.behaviour.frames_refused += 1;
                sdo::aborted(address, abort)
            }
        };
        out.push(Frame::data(self.id(0x580), &answer));
        Some(())
    }

    /// PDOs count only while operational.
    fn on_rpdo(&mut self, frame: &Frame) -> bool {
        if self.nmt != Nmt::Operational
            || !self.objects.rpdo_valid
            || self.objects.rpdo_objects == 0
            || frame.remote
        {
            return false;
        }
        // The controlword alone is taken too: the default mapping of many drives.
        if frame.len() != 2 && frame.len() < 6 {
            self.emergencies.push(PDO_LENGTH);
            return false;
        }
        if self.objects.rpdo_type <= 240 {
            self.waiting_rpdo = Some(*frame);
        } else {
            self.apply_rpdo(frame);
        }
        true
    }

    fn apply_rpdo(&mut self, frame: &Frame) {
        if let Some(target) = frame.i32_at(2) {
            self.set_target(target);
        }
        if let Some(controlword) = frame.u16_at(0) {
            self.set_controlword(controlword);
        }
    }

    fn on_heartbeat(&mut self, now: Time, frame: &Frame) -> Option<()> {
        // A boot-up message has the same identifier, and is no heartbeat.
        let state = frame.payload().first()?;
        if *state != 0 && Some(frame.id) == self.consumer.id() && self.consumer.heard(now) {
            self.emergencies.push(0);
        }
        Some(())
    }

    fn send_tpdo(&mut self, out: &mut Vec<Frame>) {
        if self.objects.tpdo_valid && self.objects.tpdo_objects > 0 && !self.behaviour.feedback_loss {
            let [a, b] = self.statusword().to_le_bytes();
            let [c, d, e, f] = self.velocity_counts().to_le_bytes();
            out.push(Frame::data(self.id(0x180), &[a, b, c, d, e, f]));
        }
    }

    fn send_emergencies(&mut self, out: &mut Vec<Frame>) {
        for code in std::mem::take(&mut self.emergencies) {
            if self.nmt.has_sdo() {
                let [low, high] = code.to_le_bytes();
                out.push(Frame::data(self.id(0x080), &[low, high, self.error_register(), 0, 0, 0, 0, 0]));
            }
        }
    }
}

impl Model for Cia402 {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        [0x080, 0x180, 0x200, 0x580, 0x600, 0x700].map(|base| IdRange::one(self.id(base))).to_vec()
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        let heartbeats = IdRange { first: 0x700, mask: 0x780, extended: false };
        vec![
            IdRange::one(0x000),
            IdRange::one(0x080),
            IdRange::one(self.id(0x200)),
            IdRange::one(self.id(0x600)),
            heartbeats,
        ]
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        if frame.extended || self.nmt == Nmt::Initialising {
            return;
        }
        let (sdo, rpdo, guard) = (self.id(0x600), self.id(0x200), self.id(0x700));
        let consumed = self.consumer.id();
        let mine = match frame.id {
            0x000 => frame.payload().get(1).is_some_and(|n| *n == 0 || *n == self.config.node),
            0x080 => false,
            id => id == sdo || id == rpdo || id == guard || Some(id) == consumed,
        };
        if !mine && frame.id != 0x080 {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += usize::from(mine);
        let understood = match frame.id {
            0x000 => self.on_nmt(frame).is_some(),
            0x080 => {
                self.on_sync(out);
                true
            }
            id if id == sdo => self.on_sdo(now, frame, out).is_some(),
            id if id == rpdo => self.on_rpdo(frame),
            id if id == guard && frame.remote => {
                let toggle = u8::from(self.guard_toggle) << 7;
                self.guard_toggle = !self.guard_toggle;
                out.push(Frame::data(id, &[toggle | self.nmt.wire()]));
                true
            }
            _ => self.on_heartbeat(now, frame).is_some(),
        };
        if !understood {
            self.behaviour.frames_refused += 1;
        }
        self.send_emergencies(out);
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        self.ticked = now;
        if self.nmt == Nmt::Initialising {
            out.push(Frame::data(self.id(0x700), &[0]));
            self.nmt = Nmt::PreOperational;
            self.heartbeat = Cycle::new(now, self.config.heartbeat);
            self.tpdo = Cycle::new(now, self.config.tpdo);
            if self.state == State::NotReady {
                self.state = State::SwitchOnDisabled;
            }
        }
        self.send_emergencies(out);
        if self.heartbeat.due(now) {
            out.push(Frame::data(self.id(0x700), &[self.nmt.wire()]));
        }
        if self.tpdo.due(now) && self.nmt == Nmt::Operational && self.objects.tpdo_type > 240 {
            self.send_tpdo(out);
        }
    }

    fn next_due(&self) -> Time {
        if self.nmt == Nmt::Initialising {
            return Time::ZERO;
        }
        let ramping = match self.state {
            State::QuickStop => self.objects.quick_stop_option <= 2,
            State::FaultReaction => true,
            _ => false,
        };
        let ramp = if ramping { self.ticked.saturating_add(RAMP_STEP) } else { Time::MAX };
        // The heartbeat is missing after its time has passed, not when it has.
        let lost =
            self.consumer.deadline().map_or(Time::MAX, |at| at.saturating_add(Duration::from_nanos(1)));
        self.heartbeat.next().min(self.tpdo.next()).min(ramp).min(lost)
    }

    fn order(&mut self, now: Time, order: &Order, out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => {
                self.behaviour.ignore.controlled = on;
                self.behaviour.ignore.quick = on;
            }
            Order::Fault(0) => self.reset_fault(),
            // Emergency codes have 16 bits; anything larger becomes "generic error".
            Order::Fault(code) => self.raise(u16::try_from(code).unwrap_or(0x1000)),
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => self.power_cycle(),
            Order::Ignore(..) | Order::Mute(_) | Order::Offline(_) | Order::FeedbackLoss(_) | Order::Mark => {
            }
        }
        // A push or a jam shows at once.
        self.shaft.advance(now, self.demand());
        self.send_emergencies(out);
    }

    fn status(&mut self, now: Time) -> Value {
        self.advance(now);
        let mut status = json!({
            "node": self.config.node,
            "kind": "cia402",
            "velocity": self.shaft.velocity(),
            "position": self.shaft.position(),
            "target": self.demanded_velocity(),
            "state": self.state.name(),
            "state_code": self.state.statusword(),
            "enabled": self.state.has_torque(),
            "faults": self.error_code,
            "watchdog_tripped": self.consumer.is_lost(),
            "consumer": self.consumer.name(),
            "nmt": self.nmt.name(),
            "controlword": self.controlword,
            "statusword": self.statusword(),
            "mode": self.objects.mode,
            "target_counts": self.objects.target,
            "halted": self.halted,
            "jammed": self.shaft.jammed,
            "pushed": self.shaft.pushed,
        });
        self.behaviour.report(&mut status);
        status
    }
}

#[cfg(test)]
mod tests;
