//! MyActuator RMD-X, -H and -L (driver V3, protocol V4): standard identifiers, eight bytes, little-endian; a
//! command goes to 0x140 + id and is answered on 0x240 + id.
//!
//! Sources, as cited below:
//! * *manual*: "Motor Motion Protocol V4.2-250208", by section;
//! * *tests*: 2b-t/myactuator_rmd, `test/protocol/*.cpp`.
//!
//! **Speeds** are those of the output shaft (manual 2.15), behind the gear. One step of the report is 1 degree
//! a second.
//!
//! **Polls** only when the drive is silent. Its own watchdog is on "communication" (manual 2.30); which frames
//! count is not said, so a read may. A drive that somebody drives is heard all the same: it answers every
//! command with speed, current and angle. While active replies (B6) are on, the drive does not answer, but
//! tells the same by itself (manual 2.33).
//!
//! **What stops.** 81 stops and stays in closed loop, which holds; what it does to a drive that is off is not
//! said (unverified: nothing). 80 takes the torque away. 78 closes the holding brake, if one is fitted. That 80
//! closes it by itself is not said. A2 opens it (manual 2.19, in its words on A1, which does not).
//!
//! **What the feedback cannot tell.** Whether the drive is on: the answer to 80 says only that it was taken,
//! and the mode (70) has no "off". No torque current is the most it can show. Faults (9A) are told while the
//! drive is stopped or asked, not along with commands; what follows from one for the power stage is not said,
//! so it is shown and is no reason to stop.
//!
//! **Everybody** listens to 0x280, unless the identifier filter is on (function 2 of command 20: manual 2.34);
//! every drive answers it, all at once.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Output, name_bits};
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
    name: "rmd",
    about: "MyActuator RMD-X, -H, -L (driver V3, protocol V4)",
    keys: &[
        Key { name: "id", about: "The drive's id, 1 to 32. Required." },
        Key {
            name: "brake",
            about: "Whether a holding brake is fitted: true or false, false unless given. Then the second \
                    stage closes it, and it is closed before the torque is taken away.",
        },
        Key {
            name: "zero_current",
            about: "Torque current up to which there is none, 0.05 to 5 A. 0.2 unless given: one step of the \
                    report is 0.01 A, and how far the measurement is off at rest is unverified.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "status 2: speed and torque current near 0",
        vectors: "the manual's examples and the test vectors of 2b-t/myactuator_rmd; no independent encoder",
        unverified: &[
            "which frames feed the drive's own watchdog",
            "what 81 does to a drive that is off",
            "offset of the current at rest",
            "whether 80 closes the holding brake",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("id", Value::Integer(1));
    settings
}

/// The first byte (manual, by section).
mod command {
    /// 2.17.
    pub const SHUTDOWN: u8 = 0x80;
    /// 2.18.
    pub const STOP: u8 = 0x81;
    /// 2.27.
    pub const BRAKE_LOCK: u8 = 0x78;
    /// 2.14: temperature, brake, voltage, errors.
    pub const STATUS_1: u8 = 0x9A;
    /// 2.15: temperature, current, speed, angle.
    pub const STATUS_2: u8 = 0x9C;
    /// 2.12: the angle over many turns.
    pub const READ_ANGLE: u8 = 0x92;
    /// 2.20.
    pub const SPEED: u8 = 0xA2;
    /// 2.28: opens the brake.
    pub const BRAKE_RELEASE: u8 = 0x77;
    /// 2.19, 2.21 to 2.23 and those of newer releases: torque, and all kinds of position.
    pub const SET_POINTS: &[u8] = &[0xA1, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9];
    /// 4: sets or tells the id, on an identifier of its own.
    pub const CAN_ID: u8 = 0x79;

    /// Answered in the form of status 2: torque, speed, and three of position (2.19 to 2.23).
    pub const ANSWERED_AS_STATUS_2: &[u8] = &[STATUS_2, 0xA1, SPEED, 0xA4, 0xA6, 0xA8];

    /// Neither energise nor move anything: the stops, reads (2.1, 2.4, 2.6 to 2.8, 2.11 to 2.16, 2.24, 2.28,
    /// 2.29, 2.32), the watchdog's time (2.30) and active replies (2.33).
    ///
    /// Absent on purpose, besides the setpoints: 31, 32 and 43 change gains and accelerations under way, 63 and
    /// 64 the zero that a position is held to, 76 resets, 77 opens the brake, 79 and B4 take the drive where no
    /// stop reaches it, 20 has many functions.
    pub const HARMLESS: &[u8] = &[
        SHUTDOWN, STOP, BRAKE_LOCK, STATUS_1, STATUS_2, READ_ANGLE, 0x30, 0x42, 0x60, 0x61, 0x62, 0x70, 0x90,
        0x94, 0x9D, 0xB1, 0xB2, 0xB3, 0xB5, 0xB6,
    ];
}

/// Identifiers (manual 1.1.2, 3, 4, 5); to the first, the second and the last two the id is added.
const COMMAND: u16 = 0x140;
const ANSWER: u16 = 0x240;
const EVERYBODY: u16 = 0x280;
const SET_ID: u16 = 0x300;
const MOTION_MODE: u16 = 0x400;
const MOTION_MODE_ANSWER: u16 = 0x500;

/// The highest id (manual 1.1.2).
const MOST: u16 = 32;

/// One step of the reported speed: 1 degree a second.
const RESOLUTION: RevolutionsPerSecond = RevolutionsPerSecond(1.0 / 360.0);

/// Default for "stands still": three steps. A shaft at rest between two steps reads 0 or 1, and one more for
/// the estimate, whose noise is unverified. At this speed the output shaft needs two minutes for a turn.
const STANDSTILL: RevolutionsPerSecond = RevolutionsPerSecond(3.0 / 360.0);

/// Three readings: one stray reading proves nothing.
const SAMPLES: u8 = 3;

/// The report has 16 bits for the speed: beyond, it could not tell a fast shaft from a slow one.
const FASTEST: RevolutionsPerSecond = RevolutionsPerSecond(32_767.0 / 360.0);

/// What differs between two drives.
#[derive(Clone, Copy, Debug)]
struct Model {
    id: u16,
    /// In steps of the report, 0.01 A.
    zero_current: u16,
}

impl Model {
    fn command(&self, command: u8) -> Frame {
        Frame::classic(self.own(COMMAND), &[command, 0, 0, 0, 0, 0, 0, 0])
    }

    fn own(&self, base: u16) -> ArbitrationId {
        ArbitrationId::standard(base + self.id)
    }

    /// i8 temperature, i16 current in 0.01 A, i16 speed in degrees a second, i16 angle in degrees (manual
    /// 2.15). The angle ends after 91 turns and is no position to travel by; 92 is asked for that.
    fn status_2(&self, [_temperature, c0, c1, s0, s1, _a0, _a1]: [u8; 7]) -> Observation {
        let current = i16::from_le_bytes([c0, c1]).unsigned_abs();
        let driving = current > self.zero_current;
        Observation {
            velocity: Some(RevolutionsPerSecond(f32::from(i16::from_le_bytes([s0, s1])) / 360.0)),
            output: Some(if driving { Output::Driving } else { Output::Zero }),
            ..Observation::default()
        }
    }
}

/// i32 angle in 0.01 degrees, over many turns (manual 2.12).
fn angle([_, _, _, a0, a1, a2, a3]: [u8; 7]) -> Observation {
    let hundredths = f64::from(i32::from_le_bytes([a0, a1, a2, a3]));
    Observation { position: Some(Revolutions(hundredths / 36_000.0)), ..Observation::default() }
}

/// Temperature, nothing, brake, voltage, u16 errors (manual 2.14).
fn status_1([.., e0, e1]: [u8; 7]) -> Observation {
    let errors = u32::from(u16::from_le_bytes([e0, e1]));
    Observation { fault: Some((errors != 0).then_some(Fault(errors))), ..Observation::default() }
}

impl Protocol for Model {
    /// In hundredths of a degree a second; beyond i32 the largest. The angle is asked for along with it, since
    /// nobody else asks while the drive is driven.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and is meant to")]
        let speed = round(f64::from(velocity.0) * 36_000.0) as i32;
        let [s0, s1, s2, s3] = speed.to_le_bytes();
        let speed = Frame::classic(self.own(COMMAND), &[command::SPEED, 0, 0, 0, s0, s1, s2, s3]);
        FrameList::new(&[speed, self.command(command::READ_ANGLE)])
    }

    /// Each answer says which command it answers. What says nothing more is a sign of life.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.id() != self.own(ANSWER) || frame.format() != Format::Classic {
            return None;
        }
        let &[command, b1, b2, b3, b4, b5, b6, b7] = frame.payload() else { return None };
        let rest = [b1, b2, b3, b4, b5, b6, b7];
        let seen = match command {
            command::STATUS_1 => status_1(rest),
            command::READ_ANGLE => angle(rest),
            _ if command::ANSWERED_AS_STATUS_2.contains(&command) => self.status_2(rest),
            _ => Observation::default(),
        };
        Some(Observation { answer: Some(u32::from(command)), ..seen })
    }

    /// The speed loop's set-point, those of the other loops, and the motion mode; everything else is a setting or a
    /// question. No frame clears an error.
    fn told(&self, frame: &Frame) -> Told {
        if frame.id() == self.own(MOTION_MODE) {
            return Told::SetPoint(Demand::Other);
        }
        match *frame.payload() {
            [command::SPEED, _, _, _, s0, s1, s2, s3] => {
                let speed = f64::from(i32::from_le_bytes([s0, s1, s2, s3])) / 36_000.0;
                #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
                Told::SetPoint(Demand::Speed(RevolutionsPerSecond(speed as f32)))
            }
            [command, ..] if command::SET_POINTS.contains(&command) => Told::SetPoint(Demand::Other),
            [command::BRAKE_RELEASE, ..] => Told::AsListed,
            _ => Told::Other,
        }
    }

    /// Any communication may (manual 2.30 does not say which): all frames count.
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// Whether the frame would energise or move this drive. A speed of 0 closes the loop and opens the brake,
    /// so A2 always does.
    fn is_motion(&self, frame: &Frame) -> bool {
        let ArbitrationId::Standard(id) = frame.id() else { return false };
        if id == MOTION_MODE + self.id {
            return true;
        }
        if ![COMMAND + self.id, EVERYBODY, SET_ID].contains(&id) {
            return false;
        }
        match (frame.format(), frame.payload()) {
            // Byte 2: 1 reads, 0 writes.
            (Format::Classic, [command::CAN_ID, _, flag, _, _, _, _, _]) => *flag != 1,
            (Format::Classic, [command, _, _, _, _, _, _, _]) => {
                id == SET_ID || !command::HARMLESS.contains(command)
            }
            _ => true,
        }
    }

    /// The errors of status 1 (manual 2.14).
    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        let names = [
            (0x0002, "motor stall"),
            (0x0004, "low voltage"),
            (0x0008, "over voltage"),
            (0x0010, "over current"),
            (0x0040, "power overrun"),
            (0x0080, "calibration parameter writing error"),
            (0x0100, "speeding"),
            (0x1000, "motor over temperature"),
            (0x2000, "encoder calibration error"),
        ];
        name_bits(fault.0, &names, out)
    }

    fn may_hear(&self, id: ArbitrationId) -> bool {
        match id {
            ArbitrationId::Standard(EVERYBODY | SET_ID) => true,
            ArbitrationId::Standard(id) => {
                [COMMAND, MOTION_MODE].iter().any(|base| (base + 1..=base + MOST).contains(&id))
            }
            ArbitrationId::Extended(_) => false,
        }
    }
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let id = settings.small("id", 1..=i64::from(MOST), None)?;
    let brake = match settings.get("brake") {
        None | Some(Value::Flag(false)) => Brake::None,
        Some(Value::Flag(true)) => Brake::Fitted,
        Some(_) => return Err(SettingsError::new("brake", "must be true or false")),
    };
    let zero_current = settings.number("zero_current", 0.05..=5.0, Some(0.2))?;
    if common.max_speed.0 > FASTEST.0 {
        return Err(SettingsError::new(
            "max_rpm",
            format!("must be at most {:.0}, the most the drive can report", FASTEST.rpm()),
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "5 to 500, by the range of the key"
    )]
    let model = Model { id, zero_current: round(zero_current * 100.0) as u16 };
    let still = common.standstill_or(STANDSTILL, RESOLUTION)?;
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, brake, still, common.after),
        enable: enable(&model),
        setpoint: Setpoint::Velocity,
        poll: FrameList::new(&[
            model.command(command::STATUS_2),
            model.command(command::STATUS_1),
            model.command(command::STATUS_2),
            model.command(command::READ_ANGLE),
        ]),
        poll_when: PollWhen::WhenSilent,
        broadcast: Some(Frame::classic(
            ArbitrationId::standard(EVERYBODY),
            &[command::STOP, 0, 0, 0, 0, 0, 0, 0],
        )),
        heartbeat: None,
        owns: [COMMAND, ANSWER, MOTION_MODE, MOTION_MODE_ANSWER].map(|base| model.own(base)).to_vec(),
        shares: [EVERYBODY, SET_ID].map(ArbitrationId::standard).to_vec(),
        slot: None,
        reports: vec![model.own(ANSWER)],
        commands: vec![
            model.own(COMMAND),
            model.own(MOTION_MODE),
            ArbitrationId::standard(EVERYBODY),
            ArbitrationId::standard(SET_ID),
        ],
        watchdog: watchdog(&model),
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// Whether the motor has a holding brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brake {
    None,
    Fitted,
}

fn stop(model: &Model, brake: Brake, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let stage = |kind, commands: &[u8], power| {
        let frames: Vec<_> = commands.iter().map(|command| model.command(*command)).collect();
        Stage {
            kind,
            frames: FrameList::new(&frames),
            proof: Proof { max_speed: still, samples: SAMPLES, power },
        }
    };
    let controlled = stage(StageKind::Controlled, &[command::STOP], PowerProof::Any);
    match brake {
        Brake::None => StopProgramme::new(
            &[controlled, stage(StageKind::TorqueOff, &[command::SHUTDOWN], PowerProof::NoOutput)],
            after,
        ),
        Brake::Fitted => StopProgramme::new(
            &[
                controlled,
                stage(StageKind::Quick, &[command::BRAKE_LOCK], PowerProof::Any),
                stage(StageKind::TorqueOff, &[command::BRAKE_LOCK, command::SHUTDOWN], PowerProof::NoOutput),
            ],
            after,
        ),
    }
}

/// A speed of 0, until the drive says that it was taken.
fn enable(model: &Model) -> EnableProgramme {
    EnableProgramme::new(&[EnableStep {
        frames: model.velocity(RevolutionsPerSecond::ZERO),
        until: Some(Until::Answer(u32::from(command::SPEED))),
    }])
}

/// Written to ROM, so not by Lanyard, whenever it enables (manual 2.30).
fn watchdog(model: &Model) -> Watchdog {
    // Twice the 250 ms after which a silent drive is asked: a motor that is held must not fall while somebody
    // watches.
    const ADVISED: Duration = Duration::from_millis(500);
    let millis = u32::try_from(ADVISED.as_millis()).unwrap_or(u32::MAX);
    let [m0, m1, m2, m3] = millis.to_le_bytes();
    let frame = Frame::classic(model.own(COMMAND), &[0xB3, 0, 0, 0, m0, m1, m2, m3]);
    Watchdog {
        set: WatchdogSet::ByHand,
        // Nothing reads it back.
        ask: FrameList::EMPTY,
        advice: format!(
            "cansend can0 {frame} ({} ms, kept when switched off; the drive then cuts the torque and closes its brake; \
             0 is off)",
            ADVISED.as_millis()
        ),
    }
}
