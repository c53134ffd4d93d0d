//! A VESC in VESC CAN mode.
//!
//! Extended identifier = command << 8 | id; numbers are big-endian, speeds electrical revolutions a minute.

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

/// The kind.
pub const KIND: Kind = Kind {
    name: "vesc",
    keys_help: "\
pole_pairs (7)       half the number of magnets
status_ms (20)       STATUS and STATUS_5, 0 = never, as from the factory
temperature_ms (100) STATUS_4, 0 = never
timeout_ms (1000)    the drive's own watchdog, 0 = off
timeout_brake (0)    A with which it then brakes; 0 lets go
min_erpm (900)       below this speed the drive lets go",
    build: |params| Ok(Box::new(Vesc::new(Config::take(params)?))),
};

const SET_DUTY: u32 = 0;
const SET_CURRENT: u32 = 1;
const SET_CURRENT_BRAKE: u32 = 2;
const SET_RPM: u32 = 3;
const STATUS: u32 = 9;
const STATUS_4: u32 = 16;
const STATUS_5: u32 = 27;

const EVERYBODY: u32 = 255;

/// Below this current there is none.
const LEAST_CURRENT: f64 = 0.05;
/// What a motor takes that turns without load, A.
const IDLE_CURRENT: f64 = 1.0;
/// rev/s^2 for each A.
const TORQUE_GAIN: f64 = 4.0;
/// rev/s at full duty.
const FULL_SPEED: f64 = 100.0;

/// What a drive is configured to.
#[derive(Clone, Debug)]
pub struct Config {
    node: u8,
    pole_pairs: f64,
    status: Duration,
    temperature: Duration,
    timeout: Duration,
    timeout_brake: f64,
    min_erpm: f64,
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
            node: params.node(0..=254)?,
            pole_pairs: f64::from(params.number("pole_pairs", 7u8, 1..=100)?),
            status: params.millis("status_ms", 20)?,
            temperature: params.millis("temperature_ms", 100)?,
            timeout: params.millis("timeout_ms", 1000)?,
            timeout_brake: params.number("timeout_brake", 0.0, 0.0..=500.0)?,
            min_erpm: params.number("min_erpm", 900.0, 0.0..=1e6)?,
            running: params.optional("running", -1e3..=1e3)?,
            mechanics: Mechanics::take(params)?,
        })
    }
}

/// What the drive does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Control {
    Released,
    /// A share of full speed.
    Duty(f64),
    /// A.
    Current(f64),
    /// A.
    Brake(f64),
    /// rev/s.
    Speed(f64),
}

/// One drive.
#[derive(Debug)]
pub struct Vesc {
    config: Config,
    behaviour: Behaviour,
    shaft: Shaft,
    control: Control,
    fault: u32,
    fed: Time,
    timed_out: bool,
    status: Cycle,
    temperature: Cycle,
}

impl Vesc {
    /// A drive that is switched on at time zero.
    pub fn new(config: Config) -> Self {
        Self {
            shaft: Shaft::new(&config.mechanics, config.running.unwrap_or_default(), config.node),
            behaviour: Behaviour::default(),
            control: config.running.map_or(Control::Released, Control::Speed),
            fault: 0,
            fed: Time::ZERO,
            timed_out: false,
            status: Cycle::new(Time::ZERO, config.status),
            temperature: Cycle::new(Time::ZERO, config.temperature),
            config,
        }
    }

    /// ERPM of one rev/s.
    fn erpm(&self) -> f64 {
        60.0 * self.config.pole_pairs
    }

    /// rev/s below which the speed loop lets go.
    fn least_speed(&self) -> f64 {
        self.config.min_erpm / self.erpm()
    }

    fn demand(&self) -> Demand {
        let rate = self.config.mechanics.accel;
        match self.control {
            Control::Released => Demand::Off,
            Control::Duty(share) => Demand::Velocity { velocity: share * FULL_SPEED, rate },
            Control::Current(current) => Demand::Torque { acceleration: current * TORQUE_GAIN },
            Control::Brake(current) => Demand::Velocity { velocity: 0.0, rate: current * TORQUE_GAIN },
            Control::Speed(velocity) if velocity.abs() >= self.least_speed() => {
                Demand::Velocity { velocity, rate }
            }
            // Ramps down to the least speed and lets go there.
            Control::Speed(_) if self.shaft.velocity().abs() > self.least_speed() => {
                Demand::Velocity { velocity: self.least_speed().copysign(self.shaft.velocity()), rate }
            }
            Control::Speed(_) => Demand::Off,
        }
    }

    fn advance(&mut self, now: Time) {
        let end = self.fed.saturating_add(self.config.timeout);
        if !self.config.timeout.is_zero() && !self.timed_out && end < now && self.control != Control::Released
        {
            self.glide(end);
            self.timed_out = true;
            self.control = match self.config.timeout_brake {
                none if none < LEAST_CURRENT => Control::Released,
                current => Control::Brake(current),
            };
        }
        self.glide(now);
    }

    /// To `now` under one command, which the speed loop may carry out in two parts.
    fn glide(&mut self, now: Time) {
        let before = self.shaft.velocity().abs();
        if let (Control::Speed(_), Demand::Velocity { velocity, rate }) = (self.control, self.demand())
            && velocity.abs() <= self.least_speed()
            && before > velocity.abs()
        {
            let ramp = Duration::try_from_secs_f64((before - velocity.abs()) / rate).unwrap_or(Duration::MAX);
            let since = self.shaft.time();
            if since.saturating_add(ramp) < now {
                self.shaft.advance(since.saturating_add(ramp), Demand::Velocity { velocity, rate });
                self.shaft.advance(now, Demand::Off);
                return;
            }
        }
        let demand = self.demand();
        self.shaft.advance(now, demand);
    }

    /// Motor current and duty as they are reported.
    fn output(&self) -> (f64, f64) {
        let velocity = self.shaft.velocity();
        match (self.control, self.demand()) {
            (Control::Current(current), _) => (current, velocity / FULL_SPEED),
            (Control::Brake(_), _) if velocity == 0.0 => (0.0, 0.0),
            (Control::Brake(current), _) => (-current.copysign(velocity), velocity / FULL_SPEED),
            (_, Demand::Off) => (0.0, 0.0),
            _ => (IDLE_CURRENT.copysign(velocity), velocity / FULL_SPEED),
        }
    }

    fn command(&mut self, command: u32, number: i32) -> Option<()> {
        let number = f64::from(number);
        let (stop, control) = match command {
            SET_DUTY => (None, Control::Duty(number / 1e5)),
            SET_CURRENT if number.abs() / 1000.0 < LEAST_CURRENT => {
                (Some(Stop::TorqueOff), Control::Released)
            }
            SET_CURRENT => (None, Control::Current(number / 1000.0)),
            SET_CURRENT_BRAKE => (Some(Stop::Quick), Control::Brake(number.abs() / 1000.0)),
            SET_RPM => {
                let speed = Control::Speed(number / self.erpm());
                // A drive that is off stays off below the least speed.
                let off = self.control == Control::Released && number.abs() < self.config.min_erpm;
                ((number == 0.0).then_some(Stop::Controlled), if off { Control::Released } else { speed })
            }
            _ => return None,
        };
        if !stop.is_some_and(|stop| self.behaviour.refuses(stop)) && self.fault == 0 {
            self.control = control;
        }
        Some(())
    }

    fn send(&self, command: u32, data: &[u8], out: &mut Vec<Frame>) {
        let id = command << 8 | u32::from(self.config.node);
        out.push(Frame::data(id, data).with_extended(true));
    }
}

impl Model for Vesc {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn node(&self) -> u8 {
        self.config.node
    }

    fn own_ids(&self) -> Vec<IdRange> {
        vec![IdRange::extended(u32::from(self.config.node), 0x1FFF_00FF)]
    }

    fn heard_ids(&self) -> Vec<IdRange> {
        let mut heard = self.own_ids();
        heard.push(IdRange::extended(EVERYBODY, 0x1FFF_00FF));
        heard
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        &mut self.behaviour
    }

    fn on_frame(&mut self, now: Time, frame: &Frame, _out: &mut Vec<Frame>) {
        let (command, id) = (frame.id >> 8, frame.id & 0xFF);
        let mine = id == u32::from(self.config.node) || id == EVERYBODY;
        if !frame.extended || !mine || command > 0xFF || [STATUS, STATUS_4, STATUS_5].contains(&command) {
            return;
        }
        self.advance(now);
        self.behaviour.frames_seen += 1;
        // From six bytes on the first two of a current are a delay; that is not simulated.
        let number = (frame.len() == 4).then(|| frame.be_i32_at(0)).flatten();
        if number.and_then(|number| self.command(command, number)).is_some() {
            self.fed = now;
            self.timed_out = false;
        } else {
            self.behaviour.frames_refused += 1;
        }
        self.advance(now);
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        self.advance(now);
        if self.status.due(now) && !self.behaviour.feedback_loss {
            let (current, duty) = self.output();
            let mut data = to_i32(self.shaft.measured_velocity() * self.erpm()).to_be_bytes().to_vec();
            data.extend(to_i16(current * 10.0).to_be_bytes());
            data.extend(to_i16(duty * 1000.0).to_be_bytes());
            self.send(STATUS, &data, out);
            let mut data =
                to_i32(self.shaft.position() * self.config.pole_pairs * 6.0).to_be_bytes().to_vec();
            // 36.0 V.
            data.extend([0x01, 0x68, 0, 0]);
            self.send(STATUS_5, &data, out);
        }
        if self.temperature.due(now) {
            // 30.0 degrees twice, no current from the supply, no position.
            self.send(STATUS_4, &[0x01, 0x2C, 0x01, 0x2C, 0, 0, 0, 0], out);
        }
    }

    fn next_due(&self) -> Time {
        let cyclic = self.status.next().min(self.temperature.next());
        if self.config.timeout.is_zero() || self.timed_out || self.control == Control::Released {
            return cyclic;
        }
        // The watchdog expires after its time has passed, not when it has.
        cyclic.min(self.fed.saturating_add(self.config.timeout).saturating_add(Duration::from_nanos(1)))
    }

    fn order(&mut self, now: Time, order: &Order, _out: &mut Vec<Frame>) {
        self.advance(now);
        self.behaviour.order(order);
        match *order {
            Order::IgnoreVelocityZero(on) => self.behaviour.ignore.controlled = on,
            Order::Fault(code) => {
                self.fault = code;
                self.control = if code == 0 { self.control } else { Control::Released };
            }
            Order::Jam(on) => self.shaft.jammed = on,
            Order::Push(velocity) => self.shaft.pushed = velocity,
            Order::PowerCycle => {
                (self.control, self.fault, self.timed_out, self.fed) = (Control::Released, 0, false, now);
                self.status = Cycle::new(now, self.config.status);
                self.temperature = Cycle::new(now, self.config.temperature);
            }
            Order::Ignore(..) | Order::Mute(_) | Order::Offline(_) | Order::FeedbackLoss(_) | Order::Mark => {
            }
        }
        // A push or a jam shows at once.
        self.advance(now);
    }

    fn status(&mut self, now: Time) -> Value {
        self.advance(now);
        let (current, duty) = self.output();
        let mut status = json!({
            "node": self.config.node,
            "kind": KIND.name,
            "velocity": self.shaft.velocity(),
            "position": self.shaft.position(),
            "target": match self.demand() { Demand::Velocity { velocity, .. } => velocity, _ => 0.0 },
            "state": match self.control {
                Control::Released => "released",
                Control::Duty(_) => "duty",
                Control::Current(_) => "current",
                Control::Brake(_) => "brake",
                Control::Speed(_) => "speed",
            },
            "enabled": self.control != Control::Released,
            "current": current,
            "duty": duty,
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

    fn drive(spec: &str) -> Vesc {
        let mut params = Params::parse(spec).expect("well formed");
        let drive = Vesc::new(Config::take(&mut params).expect("valid"));
        params.finish().expect("all known");
        drive
    }

    fn say(drive: &mut Vesc, ms: u32, id: u32, number: i32) {
        let frame = Frame::data(id, &number.to_be_bytes()).with_extended(true);
        drive.on_frame(MS * ms, &frame, &mut Vec::new());
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn reports_match_the_documented_layout() {
        let mut d = drive("node=1,pole_pairs=1,temperature_ms=0");
        d.shaft.pushed = Some(-1234.0 / 60.0);
        d.advance(MS);
        (d.control, d.shaft.pushed) = (Control::Current(-5.1), Some(-1234.0 / 60.0));
        let mut out = Vec::new();
        d.tick(MS * 20, &mut out);
        assert_eq!((out[0].id, out[0].extended), (0x901, true));
        assert_eq!(out[0].payload()[..6], [0xFF, 0xFF, 0xFB, 0x2E, 0xFF, 0xCD]);
        assert_eq!(out[1].id, 0x1B01);
        let mut d = drive("node=1,status_ms=0");
        d.tick(MS * 1000, &mut out);
        assert_eq!(out.last().map(|frame| frame.id), Some(0x1001), "off from the factory");
    }

    #[test]
    fn speed_zero_ramps_and_lets_go() {
        let mut d = drive("node=1,pole_pairs=1,running=30");
        // 30 rev/s are 1800 ERPM; at 20 rev/s^2 the least speed of 15 rev/s is reached after 750 ms.
        say(&mut d, 0, 0x301, 0);
        d.advance(MS * 500);
        assert!(near(d.shaft.velocity(), 20.0) && d.output().0 > 0.0);
        d.advance(MS * 900);
        assert!(near(d.shaft.velocity(), 15.0 / std::f64::consts::E) && d.output() == (0.0, 0.0));
        // The same, looked at once only.
        let mut e = drive("node=1,pole_pairs=1,running=30");
        say(&mut e, 0, 0x301, 0);
        e.advance(MS * 900);
        assert!(near(e.shaft.velocity(), d.shaft.velocity()));
    }

    #[test]
    fn a_drive_that_is_off_stays_off() {
        let mut d = drive("node=1,pole_pairs=1");
        for number in [0, 899, -899] {
            say(&mut d, 0, 0x301, number);
            assert_eq!(d.control, Control::Released);
        }
        say(&mut d, 1, 0x301, 900);
        d.advance(MS * 1001);
        assert!(near(d.shaft.velocity(), 15.0) && d.output().0 > 0.0);
    }

    #[test]
    fn brake_and_release() {
        let mut d = drive("node=1,running=30");
        say(&mut d, 0, 0x201, 5000);
        d.advance(MS * 500);
        assert!(near(d.shaft.velocity(), 20.0) && d.output().0 == -5.0);
        say(&mut d, 500, 0x101, 0);
        d.advance(MS * 650);
        assert!(near(d.shaft.velocity(), 20.0 / std::f64::consts::E) && d.output() == (0.0, 0.0));
    }

    #[test]
    fn everybody_and_nobody() {
        let mut d = drive("node=1,running=30");
        say(&mut d, 0, 0x102, 0);
        d.on_frame(MS, &Frame::data(0x101, &[0; 4]), &mut Vec::new());
        d.on_frame(MS, &Frame::data(0x101, &[0; 6]).with_extended(true), &mut Vec::new());
        assert_eq!((d.control, d.behaviour.frames_refused), (Control::Speed(30.0), 1));
        say(&mut d, 1, 0x1FF, 0);
        assert_eq!(d.control, Control::Released);
    }

    #[test]
    fn only_commands_feed_the_watchdog() {
        let mut d = drive("node=1,running=30,timeout_ms=200,timeout_brake=5");
        say(&mut d, 150, 0x301, 12_600);
        // A ping.
        d.on_frame(MS * 340, &Frame::data(0x1101, &[5]).with_extended(true), &mut Vec::new());
        assert_eq!(d.next_due(), MS * 20);
        d.advance(MS * 350);
        assert!(!d.timed_out);
        d.advance(MS * 450);
        assert!(d.timed_out && d.control == Control::Brake(5.0));
        assert!(near(d.shaft.velocity(), 28.0), "braked since 350 ms: {}", d.shaft.velocity());
        let mut forever = drive("node=1,running=30,timeout_ms=0");
        forever.advance(MS * 60_000);
        assert!(near(forever.shaft.velocity(), 30.0));
    }

    #[test]
    fn a_fault_releases_and_keeps_so() {
        let mut d = drive("node=1,running=30");
        d.order(MS, &Order::Fault(3), &mut Vec::new());
        say(&mut d, 2, 0x301, 9000);
        assert_eq!(d.control, Control::Released);
        d.order(MS * 3, &Order::Fault(0), &mut Vec::new());
        say(&mut d, 4, 0x301, 9000);
        assert_ne!(d.control, Control::Released);
    }

    #[test]
    fn ignored_stops_have_no_effect_one_kind_at_a_time() {
        let mut d = drive("node=1,running=30");
        d.order(MS, &Order::IgnoreVelocityZero(true), &mut Vec::new());
        say(&mut d, 2, 0x301, 0);
        assert_eq!(d.control, Control::Speed(30.0));
        say(&mut d, 3, 0x201, 5000);
        assert_eq!(d.control, Control::Brake(5.0));
        let stops = &d.status(MS * 4)["stops_seen"];
        assert!(stops["controlled"] == 1 && stops["quick"] == 1 && stops["ignored"] == 1, "{stops}");
    }

    #[test]
    fn lost_feedback_leaves_the_temperatures() {
        let mut d = drive("node=1");
        d.order(Time::ZERO, &Order::FeedbackLoss(true), &mut Vec::new());
        let mut out = Vec::new();
        for ms in 0..=200 {
            d.tick(MS * ms, &mut out);
        }
        assert_eq!(out.iter().map(|frame| frame.id).collect::<Vec<_>>(), [0x1001, 0x1001]);
    }
}
