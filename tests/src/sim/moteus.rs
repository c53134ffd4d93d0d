//! A moteus controller over CAN FD.
//!
//! Identifier = source << 8 | destination, the highest bit of the source asking for an answer; the data is a
//! row of subframes that write, read and tell registers, little-endian. Filling is 0x50.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Time;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order, Stop};
use super::model::Model;
use super::num::{to_f32, to_i16, to_i32};
use super::params::Params;
use super::physics::{Demand, Mechanics, Shaft};
use super::registry::Kind;

/// The kind.
pub const KIND: Kind = Kind {
    name: "moteus",
    keys_help: "\
timeout_ms (100)     servo.default_timeout_s: how long a command is valid that does not say; 0 = for ever
timeout_mode (zero)  what follows: zero, stop, brake
prepare_ms (5)       from stopped to running, in the modes between",
    build: |params| Ok(Box::new(Moteus::new(Config::take(params)?))),
};

const STOPPED: u8 = 0;
const FAULT: u8 = 1;
const PREPARING: u8 = 3;
const POSITION: u8 = 10;
const TIMEOUT: u8 = 11;
const ZERO_VELOCITY: u8 = 12;
const BRAKE: u8 = 15;

const BROADCAST: u8 = 0x7F;
const NOP: u8 = 0x50;

/// What a controller is configured to.
#[derive(Clone, Debug)]
pub struct Config {
    node: u8,
    timeout: Duration,
    timeout_mode: u8,
    prepare: Duration,
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
            node: params.node(1..=126)?,
            timeout: params.millis("timeout_ms", 100)?,
            timeout_mode: params
                .choice("timeout_mode", &[("zero", ZERO_VELOCITY), ("stop", STOPPED), ("brake", BRAKE)])?,
            prepare: params.millis("prepare_ms", 5)?,
            running: params.optional("running", -1e3..=1e3)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// What a frame commands, once it has written the mode.
#[derive(Clone, Copy, Debug)]
struct Command {
    mode: u8,
    velocity: f64,
    /// Seconds; 0 is the default, not a number is for ever.
    timeout: f64,
}

/// How a subframe carries its values.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Carry {
    I8,
    I16,
    I32,
    F32,
}

impl Carry {
    fn of(kind: u8) -> Self {
        [Self::I8, Self::I16, Self::I32, Self::F32][usize::from(kind >> 2 & 3)]
    }

    /// The next value of `bytes`, with the step of an integer of this width.
    fn take(self, bytes: &mut &[u8], steps: [f64; 3]) -> Option<f64> {
        let number = |raw: i32, least: i32, step: f64| {
            if raw == least { f64::NAN } else { f64::from(raw) * step }
        };
        let [small, middle, large] = steps;
        Some(match self {
            Self::I8 => number(i32::from(i8::from_le_bytes(array(bytes)?)), i32::from(i8::MIN), small),
            Self::I16 => number(i32::from(i16::from_le_bytes(array(bytes)?)), i32::from(i16::MIN), middle),
            Self::I32 => number(i32::from_le_bytes(array(bytes)?), i32::MIN, large),
            Self::F32 => f64::from(f32::from_le_bytes(array(bytes)?)),
        })
    }

    fn put(self, value: f64, steps: [f64; 3], out: &mut Vec<u8>) {
        let [small, middle, large] = steps;
        match self {
            Self::I8 => out.push(to_i16(value / small).clamp(-127, 127).to_le_bytes()[0]),
            Self::I16 => out.extend(to_i16(value / middle).max(-i16::MAX).to_le_bytes()),
            Self::I32 => out.extend(to_i32(value / large).max(-i32::MAX).to_le_bytes()),
            Self::F32 => out.extend(to_f32(value).to_le_bytes()),
        }
    }
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// Seven bits a byte, least significant first.
fn number(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..32).step_by(7) {
        let [byte] = array(bytes)?;
        value |= u32::from(byte & 0x7F).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The steps of a register as int8, int16 and int32.
fn steps(register: u32) -> [f64; 3] {
    match register {
        0x001 | 0x020 => [0.01, 0.0001, 0.000_01],
        0x002 | 0x021 => [0.1, 0.000_25, 0.000_01],
        0x003 => [0.5, 0.01, 0.001],
        0x00D => [0.5, 0.1, 0.001],
        0x027 => [0.01, 0.001, 0.000_001],
        _ => [1.0; 3],
    }
}

/// One controller.
#[derive(Debug)]
pub struct Moteus {
    config: Config,
    behaviour: Behaviour,
    shaft: Shaft,
    mode: u8,
    fault: u8,
    /// Where to after preparing, and when that is done.
    next: Option<(Time, u8)>,
    velocity: f64,
    /// When the command is no longer valid.
    until: Option<Time>,
    timed_out: bool,
}

impl Moteus {
    /// A controller that is switched on at time zero.
    pub fn new(config: Config) -> Self {
        let running = config.running.unwrap_or_default();
        Self {
            shaft: Shaft::new(&config.mechanics, running, config.node),
            behaviour: Behaviour::default(),
            // Whoever set it running has said that it is to go on for ever.
            mode: if config.running.is_some() { POSITION } else { STOPPED },
            fault: 0,
            next: None,
            velocity: running,
            until: None,
            timed_out: false,
            config,
        }
    }

    fn demand(&self) -> Demand {
        let brake = Demand::Velocity { velocity: 0.0, rate: self.config.mechanics.quick_decel };
        match self.mode {
            POSITION => Demand::Velocity { velocity: self.velocity, rate: self.config.mechanics.accel },
            TIMEOUT if self.config.timeout_mode == STOPPED => Demand::Off,
            TIMEOUT | ZERO_VELOCITY | BRAKE => brake,
            _ => Demand::Off,
        }
    }

    fn advance(&mut self, now: Time) {
        if let Some((at, mode)) = self.next.filter(|(at, _)| *at <= now) {
            self.shaft.advance(at, self.demand());
            self.mode = mode;
            self.next = None;
        }
        if let Some(at) = self.until.filter(|at| *at < now) {
            self.shaft.advance(at, self.demand());
            self.until = None;
            if self.mode == POSITION {
                self.mode = TIMEOUT;
                self.timed_out = true;
            }
        }
        self.shaft.advance(now, self.demand());
    }

    /// Obeys, if the mode it is in allows that: out of a fault or a timeout there is only *stop*.
    fn obey(&mut self, now: Time, command: Command) -> Option<()> {
        let stop = match command.mode {
            STOPPED => Some(Stop::TorqueOff),
            ZERO_VELOCITY => Some(Stop::Controlled),
            BRAKE => Some(Stop::Quick),
            POSITION => None,
            _ => return None,
        };
        if stop.is_some_and(|stop| self.behaviour.refuses(stop)) {
            return Some(());
        }
        if command.mode == STOPPED {
            (self.mode, self.fault, self.timed_out) = (STOPPED, 0, false);
            (self.next, self.until) = (None, None);
            return Some(());
        }
        if matches!(self.mode, FAULT | TIMEOUT) {
            return None;
        }
        if command.mode == POSITION {
            self.velocity = if command.velocity.is_nan() { 0.0 } else { command.velocity };
        }
        if matches!(self.mode, STOPPED | PREPARING) {
            let ready = self.next.map_or(now.saturating_add(self.config.prepare), |(at, _)| at);
            self.mode = PREPARING;
            self.next = Some((ready, command.mode));
        } else {
            self.mode = command.mode;
        }
        let valid = match command.timeout {
            0.0 => self.config.timeout,
            seconds => Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        };
        self.until = (!valid.is_zero() && command.mode == POSITION).then(|| now.saturating_add(valid));
        Some(())
    }

    /// Carries out the subframes and collects the answer; none if something made no sense.
    fn subframes(&mut self, now: Time, mut bytes: &[u8], answer: &mut Vec<u8>) -> Option<()> {
        let mut command: Option<Command> = None;
        while let Some((kind, rest)) = bytes.split_first() {
            bytes = rest;
            if *kind == NOP {
                continue;
            }
            if *kind >= 0x20 {
                return None;
            }
            let count = match kind & 3 {
                0 => number(&mut bytes)?,
                few => u32::from(few),
            };
            let first = number(&mut bytes)?;
            let carry = Carry::of(*kind);
            if *kind >= 0x10 {
                self.tell(carry, first, count, answer);
                continue;
            }
            for register in (first..).take(usize::try_from(count).ok()?) {
                let value = carry.take(&mut bytes, steps(register))?;
                match (register, &mut command) {
                    (0x000, _) => {
                        let mode = u8::try_from(to_i32(value)).ok()?;
                        command = Some(Command { mode, velocity: 0.0, timeout: 0.0 });
                    }
                    // A position to go to is not simulated.
                    (0x020, Some(_)) if !value.is_nan() => return None,
                    (0x021, Some(command)) => command.velocity = value,
                    (0x027, Some(command)) => command.timeout = value,
                    // Without a mode before, nothing becomes of it.
                    _ => {}
                }
            }
        }
        command.map_or(Some(()), |command| self.obey(now, command))
    }

    fn tell(&mut self, carry: Carry, first: u32, count: u32, answer: &mut Vec<u8>) {
        // Encoder feedback that is missing is not told; the rest is.
        if count == 0 || count > 3 || (self.behaviour.feedback_loss && (1..=3).contains(&first)) {
            return;
        }
        let width = match carry {
            Carry::I8 => 0x20,
            Carry::I16 => 0x24,
            Carry::I32 => 0x28,
            Carry::F32 => 0x2C,
        };
        answer.extend([width | count.to_le_bytes()[0], first.to_le_bytes()[0]]);
        for register in (first..).take(usize::try_from(count).unwrap_or_default()) {
            let value = match register {
                0x000 => f64::from(self.mode),
                0x001 => self.shaft.position(),
                0x002 => self.shaft.measured_velocity(),
                0x00D => 24.0,
                0x00E => 30.0,
                0x00F => f64::from(self.fault),
                _ => 0.0,
            };
            carry.put(value, steps(register), answer);
        }
    }
}

impl Model for Moteus {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    /// What is for it, in either form, and what it answers to host 0, as standard or extended as its id makes
    /// it.
    fn own_ids(&self) -> Vec<IdRange> {
        let node = u32::from(self.config.node);
        let mine = IdRange { first: node, mask: 0xFF, extended: false };
        let answer = IdRange {
            first: node << 8,
            mask: if node < 8 { 0x7FF } else { 0x1FFF_FFFF },
            extended: node >= 8,
        };
        vec![mine, IdRange::extended(node, 0x1FFF_00FF), answer]
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        let everybody = u32::from(BROADCAST);
        let mut heard = self.own_ids();
        heard.push(IdRange { first: everybody, mask: 0xFF, extended: false });
        heard.push(IdRange::extended(everybody, 0x1FFF_00FF));
        heard
    }

    fn has_fd(&self) -> bool {
        true
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        let [destination, source, _, _] = frame.id.to_le_bytes();
        if frame.id > 0xFFFF || frame.remote || ![self.config.node, BROADCAST].contains(&destination) {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        let mut answer = Vec::new();
        if self.subframes(now, frame.payload(), &mut answer).is_none() {
            self.behaviour.frames_refused += 1;
        }
        self.advance(now);
        if source & 0x80 != 0 {
            let id = u32::from(self.config.node) << 8 | u32::from(source & 0x7F);
            let full = [12, 16, 20, 24, 32, 48, 64].into_iter().find(|length| *length >= answer.len());
            if answer.len() > 8 {
                answer.resize(full.unwrap_or(64), NOP);
            }
            let reply = if frame.is_fd() || answer.len() > 8 { Frame::fd } else { Frame::data };
            out.push(reply(id, &answer).with_extended(id > 0x7FF));
        }
    }

    fn tick(&mut self, now: Time, _out: &mut Vec<Frame>) {
        self.advance(now);
    }

    fn next_due(&self) -> Time {
        let ready = self.next.map_or(Time::MAX, |(at, _)| at);
        // The command ends after its time has passed, not when it has.
        ready.min(self.until.map_or(Time::MAX, |at| at.saturating_add(Duration::from_nanos(1))))
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(0) | Order::PowerCycle => {
                (self.mode, self.fault, self.timed_out) = (STOPPED, 0, false);
                (self.next, self.until) = (None, None);
            }
            Order::Fault(code) => {
                self.mode = FAULT;
                self.fault = u8::try_from(code).unwrap_or(33);
                (self.next, self.until) = (None, None);
            }
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
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
            "state": match self.mode {
                STOPPED => "stopped",
                FAULT => "fault",
                POSITION => "position",
                TIMEOUT => "timeout",
                ZERO_VELOCITY => "zero-velocity",
                BRAKE => "brake",
                _ => "preparing",
            },
            "state_code": self.mode,
            "enabled": self.mode == POSITION,
            "faults": self.fault,
            "watchdog_tripped": self.timed_out,
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
    const QUERY: &str = "11001f01130d";

    fn drive(spec: &str) -> Moteus {
        let mut params = Params::parse(spec).expect("well formed");
        let drive = Moteus::new(Config::take(&mut params).expect("valid"));
        params.finish().expect("all known");
        drive
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
    }

    fn say(drive: &mut Moteus, ms: u32, id: u32, hex: &str) -> Vec<Frame> {
        let mut out = Vec::new();
        drive.on_frame(MS * ms, &Frame::fd(id, &bytes(hex)).with_extended(id > 0x7FF), &mut out);
        out
    }

    /// 1 rev/s for 0.1 s, as the vendor's client says it.
    fn start(drive: &mut Moteus, ms: u32) {
        say(drive, ms, 0x001, "01000a0e200000c07f0000803f0d27cdcccc3d50");
    }

    #[test]
    fn answers_match_the_vendors_client() {
        let mut d = drive("node=1");
        d.shaft.pushed = Some(1.0);
        d.advance(MS * 1000);
        d.shaft.jammed = true;
        let answer = say(&mut d, 1500, 0x8001, QUERY);
        let [frame] = answer.as_slice() else { panic!("{answer:?}") };
        assert!(frame.is_fd() && frame.id == 0x100 && !frame.extended && frame.len() == 24);
        let golden = "2100002f010000803f0000000000000000230d301e00";
        assert_eq!(frame.payload(), bytes(&format!("{golden}5050")));
        assert!(say(&mut d, 1500, 0x0001, QUERY).is_empty(), "nobody asked for an answer");
        assert_eq!(say(&mut drive("node=9"), 0, 0x8009, QUERY)[0].id, 0x900);
        assert!(say(&mut drive("node=9"), 0, 0x8009, QUERY)[0].extended);
        // As in the example of the documentation: 0.064 rev/s as int16 are 256 steps.
        let mut out = Vec::new();
        Carry::I16.put(0.064, steps(2), &mut out);
        assert_eq!(out, bytes("0001"));
    }

    #[test]
    fn a_command_is_valid_for_its_time_only() {
        let mut d = drive("node=1");
        start(&mut d, 0);
        assert_eq!(d.mode, PREPARING);
        d.advance(MS * 5);
        assert_eq!(d.mode, POSITION);
        d.advance(MS * 60);
        assert!(d.shaft.velocity() == 1.0);
        // Reading is no command.
        say(&mut d, 90, 0x8001, QUERY);
        assert!(d.next_due() > MS * 100 && d.next_due() < MS * 101, "{:?}", d.next_due());
        d.advance(MS * 102);
        assert!(d.mode == TIMEOUT && d.timed_out);
        d.advance(MS * 200);
        assert!(d.shaft.velocity() == 0.0, "it damps by itself");
        // Only a stop leads out.
        start(&mut d, 210);
        assert_eq!(d.mode, TIMEOUT);
        say(&mut d, 220, 0x001, "010000");
        start(&mut d, 230);
        assert_eq!(d.mode, PREPARING);
    }

    #[test]
    fn not_a_number_is_for_ever_and_nothing_is_the_default() {
        let mut d = drive("node=1");
        say(&mut d, 0, 0x001, "01000a0e200000c07f0000803f0d270000c07f50");
        d.advance(MS * 60_000);
        assert_eq!(d.mode, POSITION);
        let mut d = drive("node=1,timeout_ms=300");
        say(&mut d, 0, 0x001, "01000a0e200000c07f0000803f505050");
        d.advance(MS * 300);
        assert_eq!(d.mode, POSITION);
        d.advance(MS * 301);
        assert_eq!(d.mode, TIMEOUT);
    }

    #[test]
    fn the_three_stops() {
        for (hex, ms, speed) in
            [("01000c", 100, 0.0), ("01000f", 100, 0.0), ("010000", 150, 4.0 / std::f64::consts::E)]
        {
            let mut d = drive("node=5,running=4");
            say(&mut d, 0, 0x8005, &format!("{hex}{QUERY}505050"));
            d.advance(MS * ms);
            assert!((d.shaft.velocity() - speed).abs() < 1e-9, "{hex}");
        }
        // To everybody, in a classic frame too; without an answer.
        let mut d = drive("node=5,running=4");
        let mut out = Vec::new();
        d.on_frame(MS, &Frame::data(0x07F, &[1, 0, 12]), &mut out);
        assert!(d.mode == ZERO_VELOCITY && out.is_empty());
        // To others.
        let mut d = drive("node=5,running=4");
        say(&mut d, 0, 0x006, "010000");
        say(&mut d, 0, 0x0001_0005, "010000");
        assert_eq!(d.mode, POSITION);
    }

    #[test]
    fn zeros_for_filling_are_writes() {
        let mut d = drive("node=1");
        // 19 bytes that should have been filled with 0x50: the zero behind them begins a write that never ends.
        let mut out = Vec::new();
        let filled = Frame::fd(0x001, &bytes("01000a0e200000c07f0000803f0d27cdcccc3d"));
        d.on_frame(MS, &filled, &mut out);
        assert_eq!((d.mode, d.behaviour.frames_refused), (STOPPED, 1));
    }

    #[test]
    fn a_fault_leaves_only_by_a_stop() {
        let mut d = drive("node=1,running=2");
        d.order(MS, &Order::Fault(33), &mut Vec::new());
        say(&mut d, 2, 0x001, "01000c");
        let answer = say(&mut d, 2, 0x8001, QUERY);
        assert_eq!(answer[0].payload()[..3], bytes("210001")[..]);
        assert_eq!(answer[0].payload()[21], 33);
        say(&mut d, 3, 0x001, "010000");
        assert!(d.mode == STOPPED && d.fault == 0);
    }

    #[test]
    fn ignored_stops_have_no_effect_one_kind_at_a_time() {
        let mut d = drive("node=1,running=2");
        d.order(MS, &Order::IgnoreVelocityZero(true), &mut Vec::new());
        say(&mut d, 2, 0x001, "01000c");
        assert_eq!(d.mode, POSITION);
        say(&mut d, 3, 0x001, "01000f");
        assert_eq!(d.mode, BRAKE);
        let stops = &d.status(MS * 4)["stops_seen"];
        assert!(stops["controlled"] == 1 && stops["quick"] == 1 && stops["ignored"] == 1, "{stops}");
    }

    #[test]
    fn lost_feedback_leaves_the_mode() {
        let mut d = drive("node=1");
        d.order(MS, &Order::FeedbackLoss(true), &mut Vec::new());
        assert_eq!(say(&mut d, 2, 0x8001, QUERY)[0].payload(), bytes("210000230d301e00"));
    }
}
