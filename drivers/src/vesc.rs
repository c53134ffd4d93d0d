//! VESC in its own CAN mode: extended identifier = command << 8 | id, big-endian payloads.
//!
//! Sources, as cited below:
//! * *doc*: vedderb/bldc, `documentation/comm_can.md`;
//! * *fw*: the same, `comm/comm_can.c`, `motor/mcpwm_foc.c`, `motor/foc_math.c`, `timeout.c`,
//!   `appconf/appconf_default.h`.
//!
//! **No poll.** A drive reports by itself, once it is told to: *App Settings, General, CAN Status Messages* in
//! VESC Tool, STATUS (speed, current, duty) at 50 Hz or more, STATUS_5 (tachometer) for commands that turn by a
//! distance. They are off from the factory (fw, `APPCONF_CAN_STATUS_MSGS_R1` = 0), and without them nothing is
//! ever proven.
//!
//! **Four bytes.** Each command has exactly four. From six bytes on, SET_CURRENT takes the first two for a
//! delay (fw).
//!
//! **The watchdog** is set in the drive; only commands that drive feed it, reports and pings do not (fw).
//!
//! **What stops.** SET_RPM 0 ramps down to the drive's *minimum ERPM* and lets go there; a drive that is off
//! stays off (fw, `mcpwm_foc_set_pid_speed`; releases before 2019 brake with a duty of 0 instead: unverified).
//! Below that minimum (900 ERPM from the factory: unverified) the drive follows no speed either. Nothing holds
//! at standstill but the handbrake, which pulls the rotor to an angle of its own, and so `after_stop = "hold"`
//! is refused. SET_CURRENT_BRAKE brakes with a current, SET_CURRENT 0 lets go.
//!
//! **What the feedback cannot tell.** Whether the drive is on: there is no such flag. No current and no duty is
//! the most it can show. A shaft that is turned from outside can show a duty (what the phases are measured to
//! have: unverified) and then counts as driven. A fault is not in these reports.

use alloc::borrow::ToOwned as _;
use alloc::sync::Arc;
use alloc::vec;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::EnableProgramme;
use crate::feedback::{Observation, Output};
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
    name: "vesc",
    about: "VESC in VESC CAN mode",
    keys: &[
        Key {
            name: "id",
            about: "VESC ID, 0 to 254. Required; 255 is everybody's. The second motor of a double VESC has \
                    an id of its own.",
        },
        Key {
            name: "pole_pairs",
            about: "Half the number of magnets, 1 to 100. Required: the drive counts electrical revolutions \
                    (ERPM).",
        },
        Key {
            name: "brake_current",
            about: "How hard the second stage brakes, 0.1 to 500 A, within the drive's own limits. 5 unless \
                    given: the vendor's own example, which a motor of this kind bears whatever its size.",
        },
        Key {
            name: "zero_current",
            about: "Motor current up to which there is none, 0.1 to 10 A. 0.5 unless given: one step of the \
                    report is 0.1 A, and the offset of the measurement is of that order (unverified).",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "STATUS: ERPM, motor current and duty near 0 (to be switched on in the drive)",
        vectors: "documentation/comm_can.md and the layouts of comm_can.c; no independent encoder",
        unverified: &[
            "noise of speed and current at rest",
            "duty that is shown while the shaft is turned from outside",
            "SET_RPM 0 in old firmware",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("id", Value::Integer(10));
    settings.insert("pole_pairs", Value::Integer(7));
    settings
}

/// Command numbers: bits 8 to 15 of the identifier (doc; fw).
mod command {
    pub const SET_CURRENT: u8 = 1;
    pub const SET_CURRENT_BRAKE: u8 = 2;
    pub const SET_RPM: u8 = 3;
    pub const PROCESS_RX_BUFFER: u8 = 7;
    pub const PROCESS_SHORT_BUFFER: u8 = 8;
    pub const STATUS: u8 = 9;
    pub const SET_CURRENT_REL: u8 = 10;
    pub const SET_CURRENT_BRAKE_REL: u8 = 11;
    pub const STATUS_5: u8 = 27;

    /// Duty, currents, speed, position, and the currents in parts of the greatest, of the hand brake, too (fw).
    pub const SET_POINTS: &[u8] =
        &[0, SET_CURRENT, SET_CURRENT_BRAKE, SET_RPM, 4, SET_CURRENT_REL, SET_CURRENT_BRAKE_REL, 12, 13];

    /// Neither energise nor move anything, with whatever payload: what drives report (9, 14, 15, 16, 27, 28),
    /// pieces of a longer packet (5, 6), which only 7 carries out, ping and pong (17, 18).
    pub const HARMLESS: &[u8] = &[5, 6, STATUS, 14, 15, 16, 17, 18, STATUS_5, 28];

    /// Those of any release that was read are below.
    pub const COUNT: u8 = 64;
}

/// Every VESC listens to it besides its own (fw).
const BROADCAST: u8 = 255;

/// Default for "stands still", in revolutions per second. At this speed a shaft needs 20 s for a turn. How much
/// the estimate of a shaft at rest wanders is unverified.
const STANDSTILL: f32 = 0.05;

/// Three reports in a row: one stray reading proves nothing.
const SAMPLES: u8 = 3;

/// A duty up to which there is none: ten steps of the report (0.001), a hundredth of the supply.
const ZERO_DUTY: u16 = 10;

/// What differs between two drives.
#[derive(Clone, Copy, Debug)]
struct Model {
    id: u8,
    pole_pairs: u8,
    /// In steps of the report, 0.1 A.
    zero_current: u16,
}

fn arbitration_id(command: u8, id: u8) -> ArbitrationId {
    ArbitrationId::extended(u32::from(command) << 8 | u32::from(id))
}

fn frame(command: u8, id: u8, number: i32) -> Frame {
    Frame::classic(arbitration_id(command, id), &number.to_be_bytes())
}

impl Model {
    /// The command number of a frame with this drive's id or everybody's.
    fn command_of(&self, frame: &Frame) -> Option<u8> {
        let ArbitrationId::Extended(id) = frame.id() else { return None };
        let [0, 0, command, id] = id.to_be_bytes() else { return None };
        (id == self.id || id == BROADCAST).then_some(command)
    }

    /// Electrical revolutions a minute for one revolution a second.
    fn erpm_per_rps(&self) -> f64 {
        60.0 * f64::from(self.pole_pairs)
    }

    fn speed(&self, erpm: i32) -> RevolutionsPerSecond {
        #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
        RevolutionsPerSecond((f64::from(erpm) / self.erpm_per_rps()) as f32)
    }

    /// i32 ERPM, i16 current in 0.1 A, i16 duty in 0.001 (doc; fw).
    fn status(&self, payload: &[u8]) -> Option<Observation> {
        let &[e0, e1, e2, e3, c0, c1, d0, d1] = payload else { return None };
        let current = i16::from_be_bytes([c0, c1]).unsigned_abs();
        let duty = i16::from_be_bytes([d0, d1]).unsigned_abs();
        let zero = current <= self.zero_current && duty <= ZERO_DUTY;
        Some(Observation {
            velocity: Some(self.speed(i32::from_be_bytes([e0, e1, e2, e3]))),
            output: Some(if zero { Output::Zero } else { Output::Driving }),
            ..Observation::default()
        })
    }

    /// i32 tachometer, six steps an electrical revolution, i16 supply in 0.1 V, and two bytes that doc does not
    /// list.
    fn status_5(&self, payload: &[u8]) -> Option<Observation> {
        let (&[t0, t1, t2, t3, _, _] | &[t0, t1, t2, t3, _, _, _, _]) = payload else { return None };
        let steps = f64::from(i32::from_be_bytes([t0, t1, t2, t3]));
        Some(Observation {
            position: Some(Revolutions(steps / 6.0 / f64::from(self.pole_pairs))),
            ..Observation::default()
        })
    }
}

impl Protocol for Model {
    /// Rounded to the nearest ERPM; beyond i32 the largest one.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and is meant to")]
        let erpm = round(f64::from(velocity.0) * self.erpm_per_rps()) as i32;
        FrameList::new(&[frame(command::SET_RPM, self.id, erpm)])
    }

    /// STATUS and STATUS_5.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic {
            return None;
        }
        if frame.id() == arbitration_id(command::STATUS, self.id) {
            self.status(frame.payload())
        } else if frame.id() == arbitration_id(command::STATUS_5, self.id) {
            self.status_5(frame.payload())
        } else {
            None
        }
    }

    /// The one-frame set-points. What a packet for the drive's own interpreter says is not looked at: programs ask for
    /// values in this way, which shows nothing of whether somebody drives.
    fn told(&self, frame: &Frame) -> Told {
        let value = <[u8; 4]>::try_from(frame.payload()).map(i32::from_be_bytes);
        match (self.command_of(frame), value) {
            (Some(command::SET_RPM), Ok(erpm)) => Told::SetPoint(Demand::Speed(self.speed(erpm))),
            (Some(command), _) if command::SET_POINTS.contains(&command) => Told::SetPoint(Demand::Other),
            (Some(_), _) => Told::Other,
            (None, _) => Told::AsListed,
        }
    }

    /// Every command that drives, brakes or lets go does; reports and pings do not (fw, `timeout_reset`).
    fn feeds_watchdog(&self, frame: &Frame) -> Feeds {
        match self.command_of(frame) {
            Some(command) if command::HARMLESS.contains(&command) => Feeds::No,
            Some(_) => Feeds::Yes,
            // A report of its own, or of another drive.
            None => Feeds::No,
        }
    }

    /// Whether the frame would energise or move this drive.
    ///
    /// Of the commands, those of zero current or speed do not, nor does a brake current, which only ever
    /// opposes. A packet for the drive's own interpreter can say anything, but one that the drive only passes
    /// on (second byte 1) says nothing to it (fw).
    fn is_motion(&self, frame: &Frame) -> bool {
        let Some(command) = self.command_of(frame) else { return false };
        if command >= command::COUNT || command::HARMLESS.contains(&command) {
            return false;
        }
        if frame.format() != Format::Classic {
            return true;
        }
        match (command, frame.payload()) {
            (command::SET_CURRENT | command::SET_CURRENT_REL | command::SET_RPM, payload) => {
                payload != [0; 4]
            }
            (command::SET_CURRENT_BRAKE | command::SET_CURRENT_BRAKE_REL, payload) => payload.len() != 4,
            (command::PROCESS_RX_BUFFER | command::PROCESS_SHORT_BUFFER, [_sender, 1, ..]) => false,
            _ => true,
        }
    }

    /// Nothing is behind the two bytes of command and id (doc: "unused"), and nothing on standard identifiers.
    fn may_hear(&self, id: ArbitrationId) -> bool {
        matches!(id, ArbitrationId::Extended(id) if id <= 0xFFFF)
    }
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let id = settings.small("id", 0..=254, None)?;
    let pole_pairs = settings.small("pole_pairs", 1..=100, None)?;
    let brake_current = settings.number("brake_current", 0.1..=500.0, Some(5.0))?;
    let zero_current = settings.number("zero_current", 0.1..=10.0, Some(0.5))?;
    if common.after == AfterStop::Hold {
        return Err(SettingsError::new(
            "after_stop",
            "cannot be \"hold\": a VESC lets go below its minimum speed; use \"release\", and a brake where a load must \
             not fall",
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "1 to 100, by the range of the key"
    )]
    let model = Model { id, pole_pairs, zero_current: round(zero_current * 10.0) as u16 };
    let erpm = f64::from(common.max_speed.0) * model.erpm_per_rps();
    if erpm > f64::from(i32::MAX) {
        return Err(SettingsError::new("max_rpm", "is more ERPM than the drive's 32 bits can say"));
    }
    // A shaft at rest between two steps reads 0 or 1, so one step must count as standing still.
    let resolution = model.speed(1);
    let still = common.standstill_or(RevolutionsPerSecond(STANDSTILL.max(resolution.0)), resolution)?;
    #[expect(clippy::cast_possible_truncation, reason = "at most 500 000, by the range of the key")]
    let brake_milliamperes = round(brake_current * 1000.0) as i32;
    let commands = |id| {
        (0..command::COUNT)
            .filter(|command| !command::HARMLESS.contains(command))
            .map(move |command| arbitration_id(command, id))
    };
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, brake_milliamperes, common.after),
        // Any command starts it.
        enable: EnableProgramme::new(&[]),
        setpoint: Setpoint::Velocity,
        poll: FrameList::EMPTY,
        poll_when: PollWhen::Always,
        broadcast: Some(frame(command::SET_RPM, BROADCAST, 0)),
        heartbeat: None,
        owns: (0..=255).map(|command| arbitration_id(command, id)).collect(),
        shares: (0..=255).map(|command| arbitration_id(command, BROADCAST)).collect(),
        slot: None,
        reports: vec![arbitration_id(command::STATUS, id), arbitration_id(command::STATUS_5, id)],
        commands: commands(id).chain(commands(BROADCAST)).collect(),
        watchdog: Watchdog {
            set: WatchdogSet::ByHand,
            // Not among the one-frame commands.
            ask: FrameList::EMPTY,
            advice: "in VESC Tool, App Settings, General: Timeout 200 ms (1000 from the factory, 0 is off) and Timeout \
                     Brake Current as the motor bears it (0 lets go), then write the app configuration"
                .to_owned(),
        },
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// Three stages; the first and the last leave a drive alone that is off.
fn stop(
    model: &Model,
    still: RevolutionsPerSecond,
    brake_milliamperes: i32,
    after: AfterStop,
) -> StopProgramme {
    let stage = |kind, command, number, power| Stage {
        kind,
        frames: FrameList::new(&[frame(command, model.id, number)]),
        proof: Proof { max_speed: still, samples: SAMPLES, power },
    };
    StopProgramme::new(
        &[
            stage(StageKind::Controlled, command::SET_RPM, 0, PowerProof::Any),
            stage(StageKind::Quick, command::SET_CURRENT_BRAKE, brake_milliamperes, PowerProof::Any),
            stage(StageKind::TorqueOff, command::SET_CURRENT, 0, PowerProof::NoOutput),
        ],
        after,
    )
}
