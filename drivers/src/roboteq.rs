//! Roboteq motor controllers over CANopen: their own objects (not DS402), read and written by SDO.
//!
//! Sources, as cited below:
//! * *objects*: tidewise/drivers-motors_roboteq_canopen, `Objects.hpp`, `ControllerStatus.hpp` (a library, not the
//!   vendor's);
//! * *CAN manual*: Roboteq, CANBus Networking Manual V2.0, object dictionary and SDO examples;
//! * *user manual*: Roboteq, Advanced Digital Motor Controller User Manual V1.8, `RWD`.
//!
//! **How it is stopped.** By *stop in all modes* (MS, 200E) for its channel, then by *emergency shutdown* (EX, 200C):
//! that switches the power stage off and latches until *release shutdown* (MG, 200D). Nothing between them takes
//! the torque away in every mode: a command of 0 is held by a speed loop. In the controller's own words the power
//! stage is off when bit 3 of the status flags 2111 is set, and only that proves it.
//!
//! **One motor a controller.** EX, MG and the status flags are of the whole controller, so the stop of one channel
//! is the stop of the other: a second motor with the same node is refused. MiniCAN, RawCAN and RoboCAN have no stop
//! in their protocols and are not this family; a controller in DS402 mode is `cia402`.
//!
//! **Its own watchdog resumes.** `RWD` stops the motor when no runtime command has come for a while (default 1000 ms),
//! "as soon as a valid command is received, motor operation will resume at whichever speed motors were running"
//! (user manual). A stop is such a command and replaces the speed by 0. Queries are not commands in the words of the
//! manual, hence polled at any time; that a query by SDO does not feed `RWD` is unverified.
//!
//! **What the feedback cannot tell.** A sensor that is not fitted, or not the one that is read, says 0: a motor that
//! turns then looks still. So nothing is guessed: `speed` must say which one the motor has. The object *feedback*
//! (2110) is a speed only where the channel's loop is one of speed.
//!
//! **State numbers**: none. **Answers** are object index << 8 | subindex.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::canopen::{self, Object, sdo};
use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Power, Refusal, name_bits};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::math::round;
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::{Revolutions, RevolutionsPerSecond};
use crate::watchdog::{Feeds, Watchdog, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "roboteq",
    about: "Roboteq motor controllers over CANopen, one motor each",
    keys: &[
        Key {
            name: "node",
            about: "CANopen node id of the controller, 1 to 127. Required. One motor a node: its emergency stop is of all channels.",
        },
        Key { name: "channel", about: "Channel of the motor, 1 to 3. Default: 1." },
        Key {
            name: "loop",
            about: "Operating mode of the channel (MMOD): \"speed\" or \"open\". Required: the same command means a speed in one and a voltage in the other.",
        },
        Key {
            name: "speed",
            about: "Where the speed is read: \"encoder\" (2103, rpm), \"brushless\" (210A, rpm) or \"feedback\" (2110, thousandths of full_rpm; a speed only with loop = \"speed\"). Required, never guessed: a sensor that is not fitted reads 0, as if the motor stood still.",
        },
        Key {
            name: "full_rpm",
            about: "Speed at a command of 1000 (MXRPM), 1 to 100000. Required with loop = \"open\" and with speed = \"feedback\".",
        },
        Key {
            name: "counts_per_rev",
            about: "Counts of the encoder or the hall sensors in one revolution of the motor shaft, 1 to 10000000. Without it there is no position, and no distance can be turned.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "power stage off (2111) and the speed that is configured (2103, 210A or 2110), asked",
        vectors: "python-canopen 2.4.1",
        unverified: &[
            "what MS (200E) does to the torque in each mode, and that its value is the channel",
            "whether a query by SDO feeds RWD",
            "widths of the speed objects in all firmwares (two and four bytes are understood)",
            "bits of 2111 and 2112",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("node", Value::Integer(1));
    settings.insert("loop", Value::Text("speed".to_owned()));
    settings.insert("speed", Value::Text("encoder".to_owned()));
    settings.insert("counts_per_rev", Value::Integer(4096));
    settings
}

/// The objects (objects; CAN manual).
mod object {
    use super::Object;

    /// i32, motor command in thousandths of what the mode can do, by channel.
    pub const COMMAND: u16 = 0x2000;
    /// i16, speed in rpm, by channel.
    pub const SPEED: u16 = 0x2002;
    /// u8, 1: emergency shutdown of the whole controller (CAN manual, SDO example 2).
    pub const EMERGENCY_STOP: Object = Object::at(0x200C, 0);
    /// u8, 1: takes the shutdown back.
    pub const RELEASE: Object = Object::at(0x200D, 0);
    /// u8, the channel: stops it in all modes.
    pub const MOTOR_STOP: Object = Object::at(0x200E, 0);
    /// i16 or i32, measured speed in rpm by channel.
    pub const ENCODER_SPEED: u16 = 0x2103;
    pub const BRUSHLESS_SPEED: u16 = 0x210A;
    /// i32, counts by channel.
    pub const ENCODER_COUNTER: u16 = 0x2104;
    pub const BRUSHLESS_COUNTER: u16 = 0x2105;
    /// i16 or i32, measured speed in thousandths of the highest, by channel.
    pub const FEEDBACK: u16 = 0x2110;
    /// u16.
    pub const STATUS_FLAGS: Object = Object::at(0x2111, 0);
    /// u16.
    pub const FAULT_FLAGS: Object = Object::at(0x2112, 0);
}

/// Of the status flags: no torque is possible.
const POWER_STAGE_OFF: u16 = 0x08;

/// The whole range of a motor command, and of the feedback.
const FULL: f64 = 1000.0;

/// Default for "stands still", in revolutions per second: 3 rpm, 20 s a turn. The speed is a whole number of rpm made
/// of counts in a fixed time, and flickers by one or two when the shaft rests on the edge of a count; how much is not
/// specified: unverified on hardware.
const STANDSTILL: f32 = 0.05;

/// Three polls in a row: one stray reading proves nothing.
const SAMPLES: u8 = 3;

/// The operating mode of the channel, which decides what a command means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loop {
    /// The controller keeps the speed: commands in rpm.
    Speed,
    /// The command is a voltage: thousandths of the full one.
    Open,
}

/// Where the speed is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sensor {
    Encoder,
    Brushless,
    Feedback,
}

/// What differs between two controllers.
#[derive(Clone, Copy, Debug)]
struct Model {
    node: u8,
    channel: u8,
    mode: Loop,
    sensor: Sensor,
    /// Speed at a command, or a feedback, of 1000; not used otherwise.
    full_rpm: f64,
    counts_per_rev: Option<f64>,
}

impl Model {
    fn id(&self, function: u16) -> ArbitrationId {
        ArbitrationId::standard(function + u16::from(self.node))
    }

    fn of_channel(&self, index: u16) -> Object {
        Object::at(index, self.channel)
    }

    fn speed_object(&self) -> Object {
        self.of_channel(match self.sensor {
            Sensor::Encoder => object::ENCODER_SPEED,
            Sensor::Brushless => object::BRUSHLESS_SPEED,
            Sensor::Feedback => object::FEEDBACK,
        })
    }

    /// Where the position is read, if its unit is known.
    fn position_object(&self) -> Option<Object> {
        let index = match self.sensor {
            Sensor::Encoder => object::ENCODER_COUNTER,
            Sensor::Brushless => object::BRUSHLESS_COUNTER,
            Sensor::Feedback => return None,
        };
        self.counts_per_rev.map(|_| self.of_channel(index))
    }

    /// The speed that a reading of the speed object stands for.
    fn speed(&self, reading: i32) -> RevolutionsPerSecond {
        match self.sensor {
            Sensor::Encoder | Sensor::Brushless => RevolutionsPerSecond::from_rpm(f64::from(reading)),
            Sensor::Feedback => RevolutionsPerSecond::from_rpm(f64::from(reading) / FULL * self.full_rpm),
        }
    }

    fn setpoint(&self, velocity: RevolutionsPerSecond) -> Frame {
        // Rounded to the nearest; the casts saturate, and are meant to.
        match self.mode {
            Loop::Speed => {
                #[expect(clippy::cast_possible_truncation, reason = "saturates")]
                let rpm = round(velocity.rpm()) as i16;
                sdo::write_i16(self.node, self.of_channel(object::SPEED), rpm)
            }
            Loop::Open => {
                let command = round((velocity.rpm() / self.full_rpm * FULL).clamp(-FULL, FULL));
                #[expect(clippy::cast_possible_truncation, reason = "within the full range; NaN becomes 0")]
                sdo::write_i32(self.node, self.of_channel(object::COMMAND), command as i32)
            }
        }
    }

    /// Whether a write of that object is this motor's set-point in the mode that is configured.
    fn takes_setpoint(&self, object: Object) -> bool {
        object
            == self.of_channel(match self.mode {
                Loop::Speed => object::SPEED,
                Loop::Open => object::COMMAND,
            })
    }

    fn motor_stop(&self) -> Frame {
        sdo::write_u8(self.node, object::MOTOR_STOP, self.channel)
    }

    fn observe(&self, answer: sdo::Answer) -> Option<Observation> {
        let nothing = Observation::default();
        match answer {
            sdo::Answer::Written(object) => Some(Observation { answer: Some(object.key()), ..nothing }),
            sdo::Answer::Refused(object, code) => {
                Some(Observation { refused: Some(Refusal { request: object.key(), code }), ..nothing })
            }
            sdo::Answer::Value(object::STATUS_FLAGS, content) => content.u16().map(|flags| {
                let power = if flags & POWER_STAGE_OFF != 0 { Power::Off } else { Power::On };
                Observation { power: Some(power), ..nothing }
            }),
            sdo::Answer::Value(object::FAULT_FLAGS, content) => content.u16().map(|flags| {
                let fault = (flags != 0).then_some(Fault(u32::from(flags)));
                Observation { fault: Some(fault), ..nothing }
            }),
            sdo::Answer::Value(object, content) if object == self.speed_object() => {
                Some(Observation { velocity: Some(self.speed(content.signed())), ..nothing })
            }
            sdo::Answer::Value(object, content) if Some(object) == self.position_object() => {
                let counts = f64::from(content.i32()?);
                Some(Observation {
                    position: self.counts_per_rev.map(|per| Revolutions(counts / per)),
                    ..nothing
                })
            }
            sdo::Answer::Value(..) => None,
        }
    }
}

impl Protocol for Model {
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        FrameList::new(&[self.setpoint(velocity)])
    }

    /// SDO answers alone.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic || frame.id() != sdo::answer_id(self.node) {
            return None;
        }
        self.observe(sdo::answer(frame.payload())?)
    }

    fn has_clear_frame(&self) -> bool {
        true
    }

    /// The two objects that take a set-point, of this channel. A release takes the emergency stop back, after which the
    /// motor may follow again: it is what clears.
    fn told(&self, frame: &Frame) -> Told {
        if frame.id() != sdo::request_id(self.node) {
            return Told::AsListed;
        }
        let [a, b, c, d] = match sdo::request_of(frame) {
            sdo::Request::Write(object::RELEASE, _) => return Told::Clear,
            sdo::Request::Write(object, data) if self.takes_setpoint(object) => data,
            sdo::Request::Write(Object { index: object::COMMAND | object::SPEED, .. }, _) => {
                return Told::SetPoint(Demand::Other);
            }
            sdo::Request::Write(object::MOTOR_STOP | object::EMERGENCY_STOP, _) => return Told::AsListed,
            sdo::Request::Harmless
            | sdo::Request::Write(..)
            | sdo::Request::LongWrite(_)
            | sdo::Request::Unknown => return Told::Other,
        };
        let rpm = match self.mode {
            Loop::Speed => f64::from(i16::from_le_bytes([a, b])),
            Loop::Open => f64::from(i32::from_le_bytes([a, b, c, d])) / FULL * self.full_rpm,
        };
        Told::SetPoint(Demand::Speed(RevolutionsPerSecond::from_rpm(rpm)))
    }

    fn is_reached_by(&self, frame: &Frame) -> Option<bool> {
        canopen::is_for_everybody(frame, self.node)
    }

    fn wake(&self) -> Option<Frame> {
        Some(canopen::start(self.node))
    }

    /// NMT stop and the two resets.
    fn deafens(&self, frame: &Frame) -> bool {
        canopen::deafens(frame, self.node)
    }

    /// Runtime commands do, the stops too (user manual, `RWD`). A query is none in the words of the manual.
    fn feeds_watchdog(&self, frame: &Frame) -> Feeds {
        if frame.id() != sdo::request_id(self.node) {
            return Feeds::Yes;
        }
        match sdo::request_of(frame) {
            sdo::Request::Harmless => Feeds::No,
            sdo::Request::Write(..) | sdo::Request::LongWrite(_) | sdo::Request::Unknown => Feeds::Yes,
        }
    }

    /// Whether the frame would energise or move this motor: a write of anything but a stop, a setpoint of 0 or the
    /// communication profile, on any channel, since the watchdog resumes on any command; and every receive PDO, which
    /// a script or a mapping may take for anything.
    fn is_motion(&self, frame: &Frame) -> bool {
        if RPDO.iter().any(|function| frame.id() == self.id(*function)) {
            return frame.format() != Format::Remote;
        }
        if frame.id() != sdo::request_id(self.node) {
            return false;
        }
        match sdo::request_of(frame) {
            sdo::Request::Harmless => false,
            sdo::Request::Unknown => true,
            sdo::Request::Write(object, _) | sdo::Request::LongWrite(object)
                if (0x1000..=0x1FFF).contains(&object.index) =>
            {
                false
            }
            sdo::Request::Write(object::EMERGENCY_STOP | object::MOTOR_STOP, _) => false,
            sdo::Request::Write(Object { index: object::COMMAND | object::SPEED, .. }, data) => {
                data != [0; 4]
            }
            sdo::Request::Write(..) | sdo::Request::LongWrite(_) => true,
        }
    }

    /// The predefined connection set, as in `cia402`, and LSS (CiA 305).
    fn may_hear(&self, id: ArbitrationId) -> bool {
        match id {
            ArbitrationId::Standard(id) => id < 0x780 || matches!(id, 0x7E4 | 0x7E5),
            ArbitrationId::Extended(_) => false,
        }
    }

    /// Names of the fault flags 2112 (objects).
    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        name_bits(
            fault.0,
            &[
                (0x01, "overheat"),
                (0x02, "overvoltage"),
                (0x04, "undervoltage"),
                (0x08, "short circuit"),
                (0x10, "emergency stop"),
                (0x20, "setup"),
                (0x40, "MOSFET failure"),
                (0x80, "not configured"),
            ],
            out,
        )
    }
}

/// Function codes of the receive PDOs (CiA 301).
const RPDO: [u16; 4] = [0x200, 0x300, 0x400, 0x500];

/// What a node has by CiA 301's predefined connection set: EMCY, four PDOs each way, SDO, heartbeat.
const CONNECTION_SET: [u16; 12] =
    [0x080, 0x180, 0x200, 0x280, 0x300, 0x380, 0x400, 0x480, 0x500, 0x580, 0x600, 0x700];

fn read(settings: &Settings, common: &Common) -> Result<Model, SettingsError> {
    let mode = match settings.choice("loop", &["speed", "open"], None)? {
        "speed" => Loop::Speed,
        _ => Loop::Open,
    };
    let sensor = match settings.choice("speed", &["encoder", "brushless", "feedback"], None)? {
        "encoder" => Sensor::Encoder,
        "brushless" => Sensor::Brushless,
        _ => Sensor::Feedback,
    };
    let needs_full = mode == Loop::Open || sensor == Sensor::Feedback;
    let full = settings.number("full_rpm", 1.0..=100_000.0, (!needs_full).then_some(1.0))?;
    let counts_per_rev = match settings.get("counts_per_rev") {
        None => None,
        Some(_) if sensor == Sensor::Feedback => {
            return Err(SettingsError::new("counts_per_rev", "means nothing with speed = \"feedback\""));
        }
        Some(_) => Some(settings.number("counts_per_rev", 1.0..=1e7, None)?),
    };
    let most = if mode == Loop::Open { full } else { f64::from(i16::MAX) };
    if common.max_speed.rpm() > most {
        let problem = format!("is more than this drive can be told to turn, {most:.0}");
        return Err(SettingsError::new("max_rpm", problem));
    }
    if common.after == AfterStop::Hold && mode == Loop::Open {
        return Err(SettingsError::new(
            "after_stop",
            "cannot hold: with loop = \"open\" nothing keeps the shaft where it is; use release, and a brake on the \
             axis if it can fall",
        ));
    }
    Ok(Model {
        node: settings.small("node", 1..=127, None)?,
        channel: settings.small("channel", 1..=3, Some(1))?,
        mode,
        sensor,
        full_rpm: full,
        counts_per_rev,
    })
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let model = read(settings, common)?;
    let resolution = model.speed(1);
    let still = common.standstill_or(RevolutionsPerSecond(STANDSTILL.max(resolution.0)), resolution)?;
    let mut commands = vec![sdo::request_id(model.node)];
    commands.extend(RPDO.iter().map(|function| model.id(*function)));
    let mut poll = vec![
        sdo::upload(model.node, object::STATUS_FLAGS),
        sdo::upload(model.node, model.speed_object()),
        sdo::upload(model.node, object::FAULT_FLAGS),
    ];
    poll.extend(model.position_object().map(|object| sdo::upload(model.node, object)));
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: enable(&model),
        setpoint: Setpoint::Velocity,
        poll: FrameList::new(&poll),
        poll_when: PollWhen::Always,
        broadcast: None,
        heartbeat: None,
        owns: CONNECTION_SET.iter().map(|function| model.id(*function)).collect(),
        shares: Vec::new(),
        slot: None,
        reports: vec![sdo::answer_id(model.node)],
        commands,
        watchdog: Watchdog {
            set: WatchdogSet::ByHand,
            // The configuration is not among its objects (CAN manual).
            ask: FrameList::EMPTY,
            advice: "in Roborun+ or on the serial console: ^RWD 200 (milliseconds, several times [front] refresh; \
                     1000 from the factory, 0 is off), then %EESAV"
                .to_owned(),
        },
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// Two stages; why nothing is between them stands at the head of this file. One request each: an SDO server takes no
/// second one before it has answered the first.
fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    StopProgramme::new(
        &[
            Stage {
                kind: StageKind::Controlled,
                frames: FrameList::new(&[model.motor_stop()]),
                // The power stage stays on, whether it holds or not.
                proof: proof(PowerProof::Any),
            },
            Stage {
                kind: StageKind::Latch,
                frames: FrameList::new(&[sdo::write_u8(model.node, object::EMERGENCY_STOP, 1)]),
                proof: proof(PowerProof::Off),
            },
        ],
        after,
    )
}

/// Stopped and told 0 before the shutdown is taken back.
fn enable(model: &Model) -> EnableProgramme {
    let setpoint = match model.mode {
        Loop::Speed => model.of_channel(object::SPEED),
        Loop::Open => model.of_channel(object::COMMAND),
    };
    let step = |frame, until| EnableStep { frames: FrameList::new(&[frame]), until: Some(until) };
    EnableProgramme::new(&[
        step(model.motor_stop(), Until::Answer(object::MOTOR_STOP.key())),
        step(model.setpoint(RevolutionsPerSecond::ZERO), Until::Answer(setpoint.key())),
        step(sdo::write_u8(model.node, object::RELEASE, 1), Until::Power(Power::On)),
    ])
}
