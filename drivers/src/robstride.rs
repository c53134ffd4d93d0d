//! RobStride actuators and Xiaomi's CyberGear in the private protocol: extended identifier = type << 24 |
//! 16 bits of data << 8 | target.
//!
//! Sources, as cited below:
//! * *cybergear*: belovictor/cybergear-docs 22c05e2, a machine translation of Xiaomi's manual;
//! * *robstride*: RobStride/SampleProgram 5f59868, `Robstride01.cpp`; RobStride/robstride_ros_sample 4ea2e8f, `motor_cfg`;
//! * *dynamics*: the Python package robstride-dynamics 0.0.1; *python-cybergear*: 0.1.2.
//!
//! **Power is two bits.** A report's identifier has the drive's own word on its power stage in bits 22 and 23:
//! 0 off, 1 calibrating, 2 running (cybergear; robstride masks with 0xC00000). A decoder in public use masks only
//! the lower one and takes a running drive for one that is off.
//!
//! **Feedback comes only in answer**: every enable, stop and write of a parameter is answered with a report
//! (cybergear 4.1; dynamics waits for it). RobStride's reports by themselves (type 24) are not used. Asking is
//! writing the speed 0, the controlled stop itself: type 4, which asks as well, takes the torque away. So only a
//! silent drive is asked; it also keeps the drive's watchdog while a motor is granted and not driven, or holds, and
//! ends when the supervisor does.
//!
//! **What this cannot see.** The 16 bits of data have the sender in them: the guard watches all 256 of them for the
//! types that energise, calibrate, set zero or write a parameter. Not watched is type 1, whose 16 bits are a torque,
//! and which moves only a drive that is on and in its run mode 0: both take frames that are watched; and type 7,
//! another id, which makes a drive deaf to its stop.
//!
//! **Enabling takes the torque away for a moment**: faults are cleared by a stop, and the run mode is changed in a
//! drive that is off. An axis that can fall needs a holding brake.
//!
//! **Watchdog.** RobStride: parameter 0x7028 `canTimeout`. That its unit is 50 us rests on one remark ("20000 = 1 s")
//! and is unverified, as is whether it is in every firmware; it is written whenever the drive is enabled and not
//! stored. CyberGear: its `CAN_TIMEOUT` (0x200C) was found to have no effect (python-cybergear), so there is none.
//!
//! A RobStride drive that was switched to its MIT protocol speaks other frames and is not of this family.
//!
//! **State numbers** are the two bits; **answers** are numbers of parameters.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::f64::consts::PI;
use core::fmt;
use core::time::Duration;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Power, name_bits};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::meaning::{Demand, Told};
use crate::mit;
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::RevolutionsPerSecond;
use crate::watchdog::{Feeds, Watchdog, WatchdogReading, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "robstride",
    about: "RobStride actuators and Xiaomi CyberGear, private protocol",
    keys: &[
        Key { name: "id", about: "CAN id of the drive, 1 to 127; 127 from the factory. Required." },
        Key {
            name: "host",
            about: "Sender in what Lanyard sends, and where answers go, 0 to 255. Default: 255, above all \
                    drives.",
        },
        Key {
            name: "model",
            about: "\"cybergear\", \"rs00\", \"rs01\", \"rs02\", \"rs03\" or \"rs04\". Required: it fixes \
                    the range of speed, and a wrong one scales every speed.",
        },
        Key {
            name: "v_max",
            about: "Speed that the end of the 16 bits stands for, 1 to 1000 rad/s. Default: that of the \
                    model; for rs00 sources differ (50, another 33).",
        },
        Key {
            name: "watchdog_ms",
            about: "Written to canTimeout (0x7028), not for cybergear: after how long without a command the drive \
                    stops by itself, 400 to 60000 ms; 0: not written. Default: 1000, because a motor that is \
                    granted and not driven hears from Lanyard every 0.3 s only. The unit is unverified.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "two mode bits and velocity of every answer",
        vectors: "robstride 0.1.0 and robstride-dynamics 0.0.1",
        unverified: &[
            "unit and presence of canTimeout (0x7028)",
            "noise of the velocity at rest",
            "speed range of rs00",
            "that every write is answered in every firmware",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("id", Value::Integer(0x7F));
    settings.insert("model", Value::Text("rs02".to_owned()));
    settings
}

/// Velocity range of each model, rad/s (cybergear; robstride `motor_cfg`; dynamics).
const MODELS: &[(&str, f64)] =
    &[(CYBERGEAR, 30.0), ("rs00", 50.0), ("rs01", 44.0), ("rs02", 44.0), ("rs03", 50.0), ("rs04", 15.0)];
const CYBERGEAR: &str = "cybergear";

/// Position range of every model, radians.
const P_MAX: f64 = 4.0 * PI;

/// Types of frames (cybergear 4.1).
mod kind {
    /// Position, speed, stiffness, damping and, in the identifier, torque (robstride).
    pub const CONTROL: u8 = 1;
    pub const REPORT: u8 = 2;
    pub const ENABLE: u8 = 3;
    pub const STOP: u8 = 4;
    /// Turns the motor to calibrate its encoder (python-cybergear, from recorded traffic).
    pub const CALIBRATE: u8 = 5;
    pub const SET_ZERO: u8 = 6;
    pub const READ: u8 = 0x11;
    pub const WRITE: u8 = 0x12;
    pub const FAULTS: u8 = 0x15;

    /// Those that may energise or move.
    pub const MOVING: [u8; 4] = [ENABLE, CALIBRATE, SET_ZERO, WRITE];
}

/// Parameters (cybergear 4.1.12; dynamics).
mod parameter {
    pub const RUN_MODE: u16 = 0x7005;
    pub const CURRENT: u16 = 0x7006;
    pub const SPEED: u16 = 0x700A;
    pub const POSITION: u16 = 0x7016;
    /// RobStride only.
    pub const CAN_TIMEOUT: u16 = 0x7028;

    /// Limits, gains and what is reported: neither energises nor moves, with whatever value.
    pub const HARMLESS: &[u16] = &[
        0x700B,
        0x7010,
        0x7011,
        0x7014,
        0x7017,
        0x7018,
        0x701E,
        0x701F,
        0x7020,
        0x7021,
        0x7022,
        0x7024,
        0x7025,
        0x7026,
        CAN_TIMEOUT,
    ];
}

/// Run mode "speed" (cybergear 4.1.12).
const SPEED_MODE: u32 = 2;

/// Mode bits of a report.
mod mode {
    pub const RESET: u8 = 0;
    pub const CALIBRATING: u8 = 1;
    pub const RUN: u8 = 2;
    pub const ALL: [u8; 3] = [RESET, CALIBRATING, RUN];
}

/// How many combinations the six fault bits of a report have.
const REPORT_FAULTS: u8 = 64;
/// Where they stand in a [`Fault`]: above those of a fault frame, which count otherwise.
const REPORT_FAULTS_AT: u32 = 24;

/// Units of [`parameter::CAN_TIMEOUT`] in a millisecond (unverified).
const TIMEOUT_UNITS_PER_MS: u32 = 20;

/// Default time of the drive's watchdog, ms. A drive that nobody commands hears "speed 0" from the supervisor every
/// 0.3 s, and two of them may be lost.
const WATCHDOG_MS: i64 = 1_000;
/// The least: a drive that waits must not take that for silence.
const LEAST_WATCHDOG_MS: i64 = 400;

/// Default for "stands still": 0.02 rev/s is 7 degrees a second at the output, some ninety steps of the 16 bits. The
/// noise of the estimate is unverified.
const STANDSTILL: f32 = 0.02;

/// Three answers in a row: one stray reading proves nothing.
const SAMPLES: u8 = 3;

/// What differs between two drives.
#[derive(Clone, Copy, Debug)]
struct Model {
    id: u8,
    host: u8,
    /// Largest velocity of the 16 bits, rad/s.
    v_max: f64,
    /// In the drive's units; 0: not written.
    timeout: u32,
}

/// Type, 16 bits of data, target.
fn id(kind: u8, data: u16, target: u8) -> ArbitrationId {
    ArbitrationId::extended(u32::from(kind) << 24 | u32::from(data) << 8 | u32::from(target))
}

impl Model {
    fn request(&self, kind: u8, payload: [u8; 8]) -> Frame {
        Frame::classic(id(kind, u16::from(self.host), self.id), &payload)
    }

    fn stop(&self) -> Frame {
        self.request(kind::STOP, [0; 8])
    }

    /// A stop that clears faults, too (cybergear 4.1.5).
    fn clear(&self) -> Frame {
        self.request(kind::STOP, [1, 0, 0, 0, 0, 0, 0, 0])
    }

    fn write(&self, parameter: u16, value: u32) -> Frame {
        let [p0, p1] = parameter.to_le_bytes();
        let [a, b, c, d] = value.to_le_bytes();
        self.request(kind::WRITE, [p0, p1, 0, 0, a, b, c, d])
    }

    fn read(&self, parameter: u16) -> Frame {
        let [p0, p1] = parameter.to_le_bytes();
        self.request(kind::READ, [p0, p1, 0, 0, 0, 0, 0, 0])
    }

    fn speed(&self, velocity: RevolutionsPerSecond) -> Frame {
        #[expect(clippy::cast_possible_truncation, reason = "the drive takes an f32")]
        let radians = mit::radians_per_second(velocity) as f32;
        self.write(parameter::SPEED, radians.to_bits())
    }

    /// The identifier of a report with these mode and fault bits.
    fn report(&self, mode: u8, faults: u8) -> ArbitrationId {
        id(kind::REPORT, u16::from(mode << 6 | faults) << 8 | u16::from(self.id), self.host)
    }

    /// The identifier of another answer. The data's upper byte is 0: for a read it says that it succeeded.
    fn answer(&self, kind: u8) -> ArbitrationId {
        id(kind, u16::from(self.id), self.host)
    }

    /// Mode and faults are in the identifier.
    fn decode_report(&self, status: u8, payload: [u8; 8]) -> Option<Observation> {
        let (mode, faults) = (status >> 6, status & (REPORT_FAULTS - 1));
        let power = match mode {
            mode::RESET if faults != 0 => Power::Fault,
            mode::RESET => Power::Off,
            mode::CALIBRATING => Power::Transition,
            mode::RUN => Power::On,
            _ => return None,
        };
        let [p0, p1, v0, v1, ..] = payload;
        let velocity = f64::from(u16::from_be_bytes([v0, v1])) * mit::step(self.v_max, 16) - self.v_max;
        Some(Observation {
            power: Some(power),
            state: Some(u16::from(mode)),
            velocity: Some(mit::revolutions_per_second(velocity)),
            position: mit::position(u16::from_be_bytes([p0, p1]), P_MAX),
            fault: Some((faults != 0).then(|| Fault(u32::from(faults) << REPORT_FAULTS_AT))),
            ..Observation::default()
        })
    }

    /// Parameter and value of an answer to a read.
    fn read_answer(&self, frame: &Frame) -> Option<(u16, u32)> {
        let addressed = frame.format() == Format::Classic && frame.id() == self.answer(kind::READ);
        let payload = <[u8; 8]>::try_from(frame.payload()).ok().filter(|_| addressed)?;
        let [p0, p1, _, _, a, b, c, d] = payload;
        Some((u16::from_le_bytes([p0, p1]), u32::from_le_bytes([a, b, c, d])))
    }

    /// What was written is in force: the value that was read is the one that was sent. The run mode is one byte.
    fn confirmed(&self, parameter: u16, value: u32) -> Option<Observation> {
        let as_sent = match parameter {
            parameter::RUN_MODE => value & 0xFF == SPEED_MODE,
            parameter::CAN_TIMEOUT => value == self.timeout,
            _ => false,
        };
        as_sent.then(|| Observation { answer: Some(u32::from(parameter)), ..Observation::default() })
    }

    fn decode_data(&self, frame: &Frame) -> Option<Observation> {
        let ArbitrationId::Extended(number) = frame.id() else { return None };
        let [kind, status, from, to] = number.to_be_bytes();
        let payload = <[u8; 8]>::try_from(frame.payload()).ok()?;
        if from != self.id || to != self.host {
            return None;
        }
        match (kind, status) {
            (kind::REPORT, status) => self.decode_report(status, payload),
            (kind::READ, 0) => {
                self.read_answer(frame).and_then(|(which, value)| self.confirmed(which, value))
            }
            (kind::FAULTS, 0) => {
                let [a, b, c, d, ..] = payload;
                let faults = u32::from_le_bytes([a, b, c, d]);
                let fault = Some((faults != 0).then_some(Fault(faults)));
                Some(Observation { fault, ..Observation::default() })
            }
            _ => None,
        }
    }
}

impl Protocol for Model {
    /// The speed reference, an f32 in rad/s.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        FrameList::new(&[self.speed(velocity)])
    }

    /// Reports, fault frames, and answers to what the enable programme reads, all eight bytes long.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        (frame.format() == Format::Classic).then(|| self.decode_data(frame)).flatten()
    }

    fn has_clear_frame(&self) -> bool {
        true
    }

    /// A write of the speed or the current reference, and control in the motion mode. The stop whose first byte is 1
    /// clears faults, too.
    fn told(&self, frame: &Frame) -> Told {
        let ArbitrationId::Extended(number) = frame.id() else { return Told::AsListed };
        let [kind, ..] = number.to_be_bytes();
        match (kind, frame.payload()) {
            (kind::CONTROL, _) => Told::SetPoint(Demand::Other),
            (kind::STOP, [1, ..]) => Told::Clear,
            (kind::WRITE, &[p0, p1, _, _, a, b, c, d]) => match u16::from_le_bytes([p0, p1]) {
                parameter::SPEED => {
                    let radians = f64::from(f32::from_le_bytes([a, b, c, d]));
                    Told::SetPoint(Demand::Speed(mit::revolutions_per_second(radians)))
                }
                parameter::CURRENT | parameter::POSITION => Told::SetPoint(Demand::Other),
                parameter::RUN_MODE => Told::AsListed,
                _ => Told::Other,
            },
            (kind::ENABLE | kind::STOP, _) => Told::AsListed,
            _ => Told::Other,
        }
    }

    /// Whatever has this drive's id for its target, of whatever kind and host: a command of a kind that nothing is known
    /// of reaches it as well.
    fn is_reached_by(&self, frame: &Frame) -> Option<bool> {
        let ArbitrationId::Extended(number) = frame.id() else { return None };
        let [kind, _, _, target] = number.to_be_bytes();
        let is_request = !matches!(kind, kind::REPORT | kind::FAULTS);
        (is_request && target == self.id).then_some(true)
    }

    /// Which frames `canTimeout` counts is unverified: all count.
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// Whether the frame would energise or move this drive, whoever sends it; see the head of this file for what
    /// cannot be told.
    fn is_motion(&self, frame: &Frame) -> bool {
        let ArbitrationId::Extended(number) = frame.id() else { return false };
        let [kind, 0, _host, target] = number.to_be_bytes() else { return false };
        if target != self.id || !kind::MOVING.contains(&kind) {
            return false;
        }
        let writes = frame.format() == Format::Classic && kind == kind::WRITE;
        !(writes && <[u8; 8]>::try_from(frame.payload()).is_ok_and(harmless_write))
    }

    /// Any drive of the family on the bus takes extended identifiers, and one in MIT protocol standard ones: its
    /// id in the lower byte (robstride), what kind of frame above.
    fn may_hear(&self, id: ArbitrationId) -> bool {
        match id {
            ArbitrationId::Extended(_) => true,
            ArbitrationId::Standard(id) => id & 0xFF <= 0x7F,
        }
    }

    /// The bits of a report, and those of a fault frame (cybergear 4.1.2 and 4.1.10).
    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        name_bits(
            fault.0,
            &[
                (1 << REPORT_FAULTS_AT, "undervoltage"),
                (2 << REPORT_FAULTS_AT, "overcurrent"),
                (4 << REPORT_FAULTS_AT, "too hot"),
                (8 << REPORT_FAULTS_AT, "magnetic encoder error"),
                (16 << REPORT_FAULTS_AT, "HALL encoder error (CyberGear) or stalled (RobStride)"),
                (32 << REPORT_FAULTS_AT, "not calibrated"),
            ],
            out,
        )
    }

    /// Parameter 0x7028.
    fn watchdog(&self, frame: &Frame) -> Option<WatchdogReading> {
        let (parameter::CAN_TIMEOUT, units) = self.read_answer(frame)? else { return None };
        Some(match units {
            0 => WatchdogReading::Off,
            units => WatchdogReading::On(Duration::from_micros(
                u64::from(units) * 1_000 / u64::from(TIMEOUT_UNITS_PER_MS),
            )),
        })
    }
}

/// Limits and gains; a speed or a current of 0. Another run mode lets an old set-point come into force, a position
/// has no harmless value, and what is unknown is not known to be harmless.
fn harmless_write([p0, p1, _, _, a, b, c, d]: [u8; 8]) -> bool {
    match u16::from_le_bytes([p0, p1]) {
        parameter::SPEED | parameter::CURRENT => f32::from_le_bytes([a, b, c, d]) == 0.0,
        parameter => parameter::HARMLESS.contains(&parameter),
    }
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let (model, watchdog) = read(settings)?;
    let resolution = mit::revolutions_per_second(mit::step(model.v_max, 16));
    let still = common.standstill_or(RevolutionsPerSecond(STANDSTILL.max(2.0 * resolution.0)), resolution)?;
    let mut reports: Vec<ArbitrationId> = mode::ALL
        .iter()
        .flat_map(|mode| (0..REPORT_FAULTS).map(move |faults| model.report(*mode, faults)))
        .collect();
    reports.extend([model.answer(kind::READ), model.answer(kind::FAULTS)]);
    let commands: Vec<ArbitrationId> = kind::MOVING
        .iter()
        .flat_map(|kind| (0..=u8::MAX).map(move |host| id(*kind, u16::from(host), model.id)))
        .collect();
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: enable(&model),
        setpoint: Setpoint::Velocity,
        poll: FrameList::new(&[model.speed(RevolutionsPerSecond::ZERO)]),
        poll_when: PollWhen::WhenSilent,
        broadcast: None,
        heartbeat: None,
        owns: commands.iter().chain(&reports).copied().collect(),
        shares: Vec::new(),
        slot: None,
        reports,
        commands,
        watchdog,
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// The family's own keys, checked.
fn read(settings: &Settings) -> Result<(Model, Watchdog), SettingsError> {
    let id: u8 = settings.small("id", 1..=127, None)?;
    let host: u8 = settings.small("host", 0..=255, Some(0xFF))?;
    if host == id {
        return Err(SettingsError::new("host", format!("must differ from \"id\" ({id})")));
    }
    let names: Vec<&str> = MODELS.iter().map(|(name, _)| *name).collect();
    let name = settings.choice("model", &names, None)?;
    let v_max = MODELS.iter().find(|(known, _)| *known == name).map_or(30.0, |(_, v_max)| *v_max);
    let v_max = settings.number("v_max", 1.0..=1_000.0, Some(v_max))?;
    let timeout = if name == CYBERGEAR {
        if settings.get("watchdog_ms").is_some() {
            return Err(SettingsError::new(
                "watchdog_ms",
                "is not for CyberGear, whose CAN_TIMEOUT has no effect; remove it",
            ));
        }
        0
    } else {
        timeout(settings)?
    };
    let model = Model { id, host, v_max, timeout };
    let watchdog = if name == CYBERGEAR { no_watchdog() } else { watchdog(&model) };
    Ok((model, watchdog))
}

/// In the drive's units.
fn timeout(settings: &Settings) -> Result<u32, SettingsError> {
    let millis: u32 = settings.small("watchdog_ms", 0..=60_000, Some(WATCHDOG_MS))?;
    if millis != 0 && i64::from(millis) < LEAST_WATCHDOG_MS {
        return Err(SettingsError::new(
            "watchdog_ms",
            format!("must be 0 (left as it is in the drive) or {LEAST_WATCHDOG_MS} to 60000, not {millis}"),
        ));
    }
    Ok(millis * TIMEOUT_UNITS_PER_MS)
}

fn no_watchdog() -> Watchdog {
    Watchdog {
        set: WatchdogSet::Missing,
        ask: FrameList::EMPTY,
        advice:
            "CyberGear has no watchdog that is known to work: when this computer fails, only a relay in the \
                 motor's supply stops it"
                .to_owned(),
    }
}

fn watchdog(model: &Model) -> Watchdog {
    Watchdog {
        set: match model.timeout {
            0 => WatchdogSet::Off,
            units => WatchdogSet::ByLanyard(Duration::from_millis(u64::from(units / TIMEOUT_UNITS_PER_MS))),
        },
        ask: FrameList::new(&[model.read(parameter::CAN_TIMEOUT)]),
        advice: format!(
            "set watchdog_ms above 0; Lanyard then writes parameter 0x7028 canTimeout whenever it enables the drive \
             (1 s: cansend can0 {}). Its unit of 50 us is unverified: pull the CAN plug once and time it",
            model.write(parameter::CAN_TIMEOUT, 1_000 * TIMEOUT_UNITS_PER_MS)
        ),
    }
}

/// Two stages: no frame of this family brakes harder than the speed loop does.
fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    StopProgramme::new(
        &[
            // The drive stays on and holds; standing still is all it can show. In another run mode it has no effect.
            Stage {
                kind: StageKind::Controlled,
                frames: FrameList::new(&[model.speed(RevolutionsPerSecond::ZERO)]),
                proof: proof(PowerProof::Any),
            },
            Stage {
                kind: StageKind::TorqueOff,
                frames: FrameList::new(&[model.stop()]),
                proof: proof(PowerProof::Off),
            },
        ],
        after,
    )
}

/// Off and without faults, run mode, watchdog, on; the speed is 0 before the drive follows it. What was written is
/// read back: the report that answers a write does not tell.
fn enable(model: &Model) -> EnableProgramme {
    let still = model.speed(RevolutionsPerSecond::ZERO);
    let set = |parameter, value| EnableStep {
        frames: FrameList::new(&[model.write(parameter, value), model.read(parameter)]),
        until: Some(Until::Answer(u32::from(parameter))),
    };
    let mut steps = vec![EnableStep {
        frames: FrameList::new(&[still, model.clear()]),
        until: Some(Until::Power(Power::Off)),
    }];
    steps.push(set(parameter::RUN_MODE, SPEED_MODE));
    if model.timeout != 0 {
        steps.push(set(parameter::CAN_TIMEOUT, model.timeout));
    }
    steps.push(EnableStep {
        frames: FrameList::new(&[still, model.request(kind::ENABLE, [0; 8])]),
        until: Some(Until::Power(Power::On)),
    });
    EnableProgramme::new(&steps)
}
