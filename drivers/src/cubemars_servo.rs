//! CubeMars (T-Motor) AK actuators in servo mode: extended identifier = command << 8 | motor, big-endian payloads,
//! numbered as those of VESC.
//!
//! Sources, as cited below:
//! * *tmotor*: the Python package TMotorCANControl 1.2.6, `servo_can.py`: a third party's code. Its own senders do
//!   not run (a name is missing), so that the command bytes here are built from its layout, not by it;
//! * *motor_python*: the Python package motor_python 0.0.11, `cube_mars_motor_can.py`;
//! * *VESC*: vedderb/bldc b9d287b, `comm_can.c`: the firmware whose numbering this is. What is taken from there is
//!   unverified here.
//!
//! **What the feedback cannot tell.** There is no word on the power stage, and nothing that enables: a set-point is
//! followed at once. What proves torque off is a speed near zero with next to no current. A drive that is told
//! speed 0, at rest and without load, looks the same as one that is released.
//!
//! **How it is stopped.** Speed 0, which an idle drive takes as an order to hold: it brakes and never moves. Then a
//! brake current, which only ever works against the motion. Then current 0, which releases. In VESC, a speed loop
//! below its least speed releases; whether that holds here is unverified, and with it whether speed 0 holds
//! against a load: an axis that can fall needs a brake of its own.
//!
//! **Feedback comes by itself**, at the rate set in the drive (R-Link); at rate 0 nothing can be proven. Nothing is
//! polled.
//!
//! **Broadcast.** VESC takes motor 255 for all. Whether these drives do is unverified: it is watched as if they
//! did, and not used.
//!
//! **State numbers** are the error byte, 0 without error.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::cubemars_mit::fault_words;
use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Output};
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
    name: "cubemars-servo",
    about: "CubeMars (T-Motor) AK actuators in servo mode",
    keys: &[
        Key { name: "id", about: "CAN id of the drive, 0 to 254. Required." },
        Key {
            name: "pole_pairs",
            about: "Pole pairs of the rotor, 1 to 100 (21 in an AK80-9). Required: the drive reports \
                    electrical turns.",
        },
        Key {
            name: "gear",
            about: "Turns of the rotor for one of the output shaft, 1 to 500 (9 in an AK80-9). Required: \
                    speeds and positions are those of the output shaft.",
        },
        Key {
            name: "brake_current",
            about: "Current of the second stop stage, 0.1 to 60 A. Default: 5; a heavy load needs more.",
        },
        Key {
            name: "zero_current",
            about: "Up to which a measured current counts as none, 0.02 to 5 A. Default: 0.2.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "speed and current of the cyclic status; no word on the power stage",
        vectors: "TMotorCANControl 1.2.6 (status); commands from its layout",
        unverified: &[
            "whether speed 0 holds against a load",
            "noise of speed and current at rest",
            "that the position is the output shaft's",
            "broadcasts to 255",
            "whether a drive with an error takes its torque away",
            "a CAN timeout of the drive",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("id", Value::Integer(1));
    settings.insert("pole_pairs", Value::Integer(21));
    settings.insert("gear", Value::Float(9.0));
    settings
}

/// Commands, the second byte of the identifier (tmotor, `CAN_PACKET_ID`).
mod command {
    pub const DUTY: u8 = 0;
    pub const CURRENT: u8 = 1;
    pub const BRAKE: u8 = 2;
    pub const SPEED: u8 = 3;
    pub const POSITION: u8 = 4;
    pub const POSITION_AND_SPEED: u8 = 6;
    /// How many are watched. The positions, and origin 5 between them, have no harmless payload; the others are of newer
    /// firmware, or unknown.
    pub const COUNT: u8 = 16;
    /// What the drive sends (tmotor; motor_python).
    pub const STATUS: u8 = 0x29;
}

/// The motor number that VESC takes for all motors.
const ALL: u8 = 255;

/// Default for "stands still": 0.02 rev/s is 7 degrees a second at the output. Never below two steps of 10 ERPM.
/// The noise of the estimate is unverified.
const STANDSTILL: f32 = 0.02;
/// One step of the reported speed, in electrical turns a minute (tmotor, `parse_servo_message`).
const SPEED_STEP: f64 = 10.0;
/// One step of the reported current, A.
const CURRENT_STEP: f64 = 0.01;
/// One step of the reported position, degrees.
const POSITION_STEP: f64 = 0.1;
/// At this position, 3200 degrees, the range ends: the shaft may be anywhere beyond (tmotor, `P_max`).
const POSITION_END: u16 = 32_000;
/// Default of `brake_current`, A.
const BRAKE_CURRENT: f64 = 5.0;
/// Default of `zero_current`, A: some noise of a current sensor that measures tens of amperes (unverified).
const ZERO_CURRENT: f64 = 0.2;

/// Three reports in a row: one stray reading proves nothing.
const SAMPLES: u8 = 3;

/// What differs between two drives.
#[derive(Clone, Copy, Debug)]
struct Model {
    id: u8,
    /// Electrical turns a minute of one revolution per second at the output.
    erpm_per_rps: f64,
    /// On the wire, mA.
    brake: i32,
    /// In steps of the reported current.
    zero_current: u16,
}

fn id(command: u8, motor: u8) -> ArbitrationId {
    ArbitrationId::extended(u32::from(command) << 8 | u32::from(motor))
}

impl Model {
    fn frame(&self, command: u8, value: i32) -> Frame {
        Frame::classic(id(command, self.id), &value.to_be_bytes())
    }

    /// Which command a frame to this drive, or to all, is.
    fn command_of(&self, frame: &Frame) -> Option<u8> {
        let ArbitrationId::Extended(number) = frame.id() else { return None };
        let [0, 0, command, motor] = number.to_be_bytes() else { return None };
        ((motor == self.id || motor == ALL) && command < command::COUNT).then_some(command)
    }

    /// The speed of so many electrical turns a minute.
    fn speed_of(&self, erpm: i32) -> RevolutionsPerSecond {
        #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
        RevolutionsPerSecond((f64::from(erpm) / self.erpm_per_rps) as f32)
    }

    fn speed(&self, steps: i16) -> RevolutionsPerSecond {
        #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
        RevolutionsPerSecond((f64::from(steps) * SPEED_STEP / self.erpm_per_rps) as f32)
    }
}

impl Protocol for Model {
    /// The speed in electrical turns a minute, rounded; beyond i32 the largest one.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and is meant to")]
        let erpm = round(f64::from(velocity.0) * self.erpm_per_rps) as i32;
        FrameList::new(&[self.frame(command::SPEED, erpm)])
    }

    /// The status, eight bytes: position, speed, current, temperature, error.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic || frame.id() != id(command::STATUS, self.id) {
            return None;
        }
        let [p0, p1, s0, s1, c0, c1, _temperature, error] = <[u8; 8]>::try_from(frame.payload()).ok()?;
        let position = i16::from_be_bytes([p0, p1]);
        let current = i16::from_be_bytes([c0, c1]);
        let still = current.unsigned_abs() <= self.zero_current;
        Some(Observation {
            output: Some(if still { Output::Zero } else { Output::Driving }),
            state: Some(u16::from(error)),
            velocity: Some(self.speed(i16::from_be_bytes([s0, s1]))),
            position: (position.unsigned_abs() < POSITION_END)
                .then(|| Revolutions(f64::from(position) * POSITION_STEP / 360.0)),
            fault: Some((error != 0).then_some(Fault(u32::from(error)))),
            ..Observation::default()
        })
    }

    /// Set-points of any kind; of those beyond them (origin, newer firmware) nothing is known.
    fn told(&self, frame: &Frame) -> Told {
        let value = <[u8; 4]>::try_from(frame.payload()).map(i32::from_be_bytes);
        match (self.command_of(frame), value) {
            (Some(command::SPEED), Ok(erpm)) => Told::SetPoint(Demand::Speed(self.speed_of(erpm))),
            (Some(..=command::SPEED | command::POSITION | command::POSITION_AND_SPEED), _) => {
                Told::SetPoint(Demand::Other)
            }
            (Some(_), _) => Told::Other,
            (None, _) => Told::AsListed,
        }
    }

    /// Which frames a CAN timeout counts is not documented: all count.
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// Whether the frame would move this drive: a set-point other than 0. A brake current works against the motion,
    /// whatever its amount; a current of 0 releases.
    fn is_motion(&self, frame: &Frame) -> bool {
        let Some(command) = self.command_of(frame) else { return false };
        let value = <[u8; 4]>::try_from(frame.payload()).map(i32::from_be_bytes);
        let harmless = matches!(
            (command, value),
            (command::BRAKE, Ok(_)) | (command::DUTY | command::CURRENT | command::SPEED, Ok(0))
        );
        !(frame.format() == Format::Classic && harmless)
    }

    fn may_hear(&self, id: ArbitrationId) -> bool {
        match id {
            ArbitrationId::Standard(_) => false,
            ArbitrationId::Extended(id) => id <= 0xFFFF,
        }
    }

    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        fault_words(fault, out)
    }
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let model = read(settings)?;
    let resolution = model.speed(1);
    let still = common.standstill_or(RevolutionsPerSecond(STANDSTILL.max(2.0 * resolution.0)), resolution)?;
    let status = id(command::STATUS, model.id);
    let own = (0..command::COUNT).map(|command| id(command, model.id));
    let all: Vec<ArbitrationId> = (0..command::COUNT).map(|command| id(command, ALL)).collect();
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: enable(),
        setpoint: Setpoint::Velocity,
        poll: FrameList::EMPTY,
        poll_when: PollWhen::Always,
        broadcast: None,
        heartbeat: None,
        owns: own.clone().chain([status]).collect(),
        shares: all.clone(),
        slot: None,
        reports: vec![status],
        commands: own.chain(all).collect(),
        watchdog: watchdog(common.after),
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// As far as is known. Nothing is sent to a motor that is not driven.
fn watchdog(after: AfterStop) -> Watchdog {
    let of_a_hold = match after {
        AfterStop::Hold => "; it also ends a hold, because nothing is sent to a motor that holds",
        AfterStop::Release => "",
    };
    Watchdog {
        set: WatchdogSet::ByHand,
        ask: FrameList::EMPTY,
        advice: format!(
            "in the CubeMars tool (R-Link), set the CAN timeout of the drive, if its firmware has one (unverified), to \
             several times [front] refresh{of_a_hold}. Take it for off until a pulled CAN plug has stopped the motor"
        ),
    }
}

/// The family's own keys, checked.
fn read(settings: &Settings) -> Result<Model, SettingsError> {
    let pole_pairs: u8 = settings.small("pole_pairs", 1..=100, None)?;
    let gear = settings.number("gear", 1.0..=500.0, None)?;
    let brake = settings.number("brake_current", 0.1..=60.0, Some(BRAKE_CURRENT))?;
    let zero_current = settings.number("zero_current", 0.02..=5.0, Some(ZERO_CURRENT))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded above: 60 A and 5 A"
    )]
    Ok(Model {
        id: settings.small("id", 0..=254, None)?,
        erpm_per_rps: 60.0 * f64::from(pole_pairs) * gear,
        brake: round(brake * 1000.0) as i32,
        zero_current: round(zero_current / CURRENT_STEP) as u16,
    })
}

fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let stage = |kind, command, value, power| Stage {
        kind,
        frames: FrameList::new(&[model.frame(command, value)]),
        proof: Proof { max_speed: still, samples: SAMPLES, power },
    };
    StopProgramme::new(
        &[
            stage(StageKind::Controlled, command::SPEED, 0, PowerProof::Any),
            stage(StageKind::Quick, command::BRAKE, model.brake, PowerProof::Any),
            stage(StageKind::TorqueOff, command::CURRENT, 0, PowerProof::NoOutput),
        ],
        after,
    )
}

/// There is nothing to switch on; but a drive that is not heard, or says that it has an error, must not be driven.
/// No frame is sent: the programme runs again for every command, also while the shaft turns.
fn enable() -> EnableProgramme {
    EnableProgramme::new(&[EnableStep { frames: FrameList::EMPTY, until: Some(Until::State(0)) }])
}
