//! DJI RoboMaster motors: C620 and C610 controllers, GM6020 motors. One frame commands four of them.
//!
//! Sources, as cited below:
//! * *example*: RoboMaster/Development-Board-C-Examples 59d12b1,
//!   `20.standard_robot/application/CAN_receive.c` (frames and feedback; ranges of the commands in lines 98
//!   to 195);
//! * *manual*: DJI's manuals of C620, C610 and GM6020, as far as the reference of this project quotes them.
//!
//! **A frame is four motors.** 0x200 commands the C6x0 controllers 1 to 4, 0x1FF those from 5 to 8 or the
//! GM6020 motors 1 to 4, 0x2FF the GM6020 from 5 to 7; each has two bytes of it. Whoever sends such a frame
//! commands all four: a stop of one that was a frame of zeros is a stop of all, and a command to one is a
//! command to all. The front therefore sends each frame with the newest parts of all motors in it ([`Slot`]);
//! the supervisor stops them together.
//!
//! **The one stage is zeros**, and the motor coasts: there is neither a brake, nor a frame that disables, nor
//! a speed loop in the controller. `after_stop = "hold"` is refused. A GM6020 is commanded a *voltage*: with
//! 0 V its windings brake as long as it turns (unverified), and hold nothing.
//!
//! **The speed loop is the front's** ([`Setpoint::Current`]), out of feedback that comes a thousand times a
//! second. No own watchdog is documented: a C620 is *reported* to stop when commands cease (unverified). If
//! this computer dies with a current commanded, nothing that is known stops the motor.
//!
//! **What the feedback cannot tell.** No state and no fault: rotor angle within one turn, rpm, current,
//! temperature. The proof is standing still without current. The angle wraps at every turn, and a decoder
//! that keeps nothing cannot count turns: no position is reported, and no distances can be turned. The rpm
//! are the *rotor's* (an M3508 turns 19 times for one turn of its shaft, an M2006 36 times; from memory): so
//! are `max_rpm` and every speed here.

use alloc::borrow::ToOwned as _;
use alloc::sync::Arc;
use alloc::vec;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint, Slot, SpeedLoop};
use crate::enable::EnableProgramme;
use crate::feedback::{Observation, Output};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::math::round;
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::{Amperes, RevolutionsPerSecond};
use crate::watchdog::{Feeds, Watchdog, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "dji",
    about: "DJI RoboMaster: C610 and C620 controllers, GM6020 motors",
    keys: &[
        Key { name: "model", about: "\"c610\", \"c620\" or \"gm6020\". Required." },
        Key {
            name: "id",
            about: "The number that the controller blinks, 1 to 8; of a GM6020 that of its switches, 1 to \
                7. Required.",
        },
        Key {
            name: "limit",
            about: "The most that is commanded: 0.1 A to 10 A (C610) or 20 A (C620), 0.1 V to 24 V \
                (GM6020). Default: 3 A, 5 A, 10 V, enough for a bench and little enough to be held.",
        },
        Key {
            name: "proportional",
            about: "Gain of the speed loop: A (V) for each revolution per second of the rotor that is \
                missing, 0 to 10. Default: 0.1 (GM6020: 1), gentle, because the loop runs on a computer \
                that is not real-time.",
        },
        Key {
            name: "integral",
            about: "Gain of the speed loop: A (V) per second for each revolution per second that is \
                missing, 0 to 100. Default: 0.5 (GM6020: 5), a few seconds for what friction takes.",
        },
        Key {
            name: "idle_current",
            about: "Up to this much reported current, either way, counts as none, 1 to 5000 counts of the \
                feedback. Default: 200, about 0.25 A of a C620 and 0.2 A of a C610, above the noise of the \
                measurement (unverified).",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "rpm and measured current of the feedback (1 ms)",
        vectors: "built from the layout in RoboMaster/Development-Board-C-Examples 59d12b1",
        unverified: &[
            "that a controller stops when commands cease",
            "noise of rpm and current at rest",
            "scale of the reported current; volts of a GM6020 command",
            "GM6020 in current mode (0x1FE, 0x2FE) is guarded, never commanded",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("model", Value::Text("c620".to_owned()));
    settings.insert("id", Value::Integer(1));
    settings
}

/// The frame of the C6x0 1 to 4 (example).
const FIRST: u16 = 0x200;
/// The frame of the C6x0 5 to 8 and of the GM6020 1 to 4 (example).
const SECOND: u16 = 0x1FF;
/// The frame of the GM6020 5 to 7 (manual).
const THIRD: u16 = 0x2FF;
/// The same motors in current mode, which newer GM6020 firmware has (unverified).
const CURRENT_MODE: [(u16, u16); 2] = [(SECOND, 0x1FE), (THIRD, 0x2FE)];

/// C6x0 number n reports on this plus n (example).
const FEEDBACK_C6X0: u16 = 0x200;
/// GM6020 number n reports on this plus n (example).
const FEEDBACK_GM6020: u16 = 0x204;

/// Positions of the rotor in one turn (example: 0 to 8191).
const POSITIONS: u16 = 8192;

/// The controllers report whole rpm.
const RESOLUTION: RevolutionsPerSecond = RevolutionsPerSecond(1.0 / 60.0);

/// Default for "stands still": ten steps of the feedback, since the speed of an encoder with 8192 positions,
/// taken every millisecond, flickers by some rpm (unverified). Behind the 19:1 gear of an M3508 it is half a
/// turn a minute.
const STANDSTILL: RevolutionsPerSecond = RevolutionsPerSecond(10.0 / 60.0);

/// Twenty readings are 20 ms at 1 kHz. With fewer, a reversal at some hundred rpm per tenth of a second would
/// pass for standing still while it goes through zero.
const SAMPLES: u8 = 20;

/// What differs between the kinds of controllers.
#[derive(Clone, Debug)]
struct Kind {
    ids: core::ops::RangeInclusive<i64>,
    /// Counts of the largest command (example).
    counts: f32,
    /// What they mean: A, or V for a GM6020 (the 20 A are the example's; 10 A and 24 V from memory,
    /// unverified).
    full: f32,
    limit: f64,
    proportional: f64,
    integral: f64,
}

/// 10 000 counts are 10 A.
const C610: Kind =
    Kind { ids: 1..=8, counts: 10_000.0, full: 10.0, limit: 3.0, proportional: 0.1, integral: 0.5 };
/// 16 384 counts are 20 A.
const C620: Kind =
    Kind { ids: 1..=8, counts: 16_384.0, full: 20.0, limit: 5.0, proportional: 0.1, integral: 0.5 };
/// 30 000 counts are the whole supply.
const GM6020: Kind =
    Kind { ids: 1..=7, counts: 30_000.0, full: 24.0, limit: 10.0, proportional: 1.0, integral: 5.0 };

/// Bytes of a motor's part: an i16.
const PART: usize = 2;

/// One motor.
#[derive(Clone, Copy, Debug)]
struct Model {
    slot: Slot,
    /// First of the two bytes of its part.
    first: usize,
    feedback: ArbitrationId,
    /// The frame that would command it in current mode, if it has one.
    other_mode: Option<ArbitrationId>,
    counts_per_unit: f32,
    most_counts: f32,
    idle_current: i16,
}

impl Model {
    fn new(id: u16, is_gm6020: bool, kind: &Kind, idle_current: i16) -> Self {
        let frame = match (is_gm6020, id) {
            (false, 1..=4) => FIRST,
            (false, _) | (true, 1..=4) => SECOND,
            (true, _) => THIRD,
        };
        let base = if is_gm6020 { FEEDBACK_GM6020 } else { FEEDBACK_C6X0 };
        let other_mode = CURRENT_MODE.iter().find(|(voltage, _)| is_gm6020 && *voltage == frame);
        Self {
            slot: Slot::of_bytes(ArbitrationId::standard(frame), place(id), PART),
            first: place(id),
            feedback: ArbitrationId::standard(base + id),
            other_mode: other_mode.map(|(_, current)| ArbitrationId::standard(*current)),
            counts_per_unit: kind.counts / kind.full,
            most_counts: kind.counts,
            idle_current,
        }
    }

    /// This motor's bytes, the other three zero: whoever sends it puts theirs in.
    fn command(&self, counts: i16) -> Frame {
        let mut payload = [0; 8];
        let [high, low] = counts.to_be_bytes();
        payload[self.first] = high;
        payload[self.first + 1] = low;
        Frame::classic(self.slot.id, &payload)
    }
}

/// The first byte of the controller with that number, which has the place `(id - 1) % 4`.
fn place(id: u16) -> usize {
    match id {
        1 | 5 => 0,
        2 | 6 => 2,
        3 | 7 => 4,
        _ => 6,
    }
}

impl Protocol for Model {
    /// Takes no speeds.
    fn velocity(&self, _: RevolutionsPerSecond) -> FrameList {
        FrameList::EMPTY
    }

    fn current(&self, current: Amperes) -> FrameList {
        let counts = (current.0 * self.counts_per_unit).clamp(-self.most_counts, self.most_counts);
        // What is not a number becomes 0.
        #[expect(clippy::cast_possible_truncation, reason = "at most 30 000, and `as` keeps to the bounds")]
        let counts = round(f64::from(counts)) as i16;
        FrameList::new(&[self.command(counts)])
    }

    /// Angle, rpm and current, big-endian, and a temperature; the last byte means nothing (example).
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic || frame.id() != self.feedback {
            return None;
        }
        let [a0, a1, v0, v1, c0, c1, _temperature, _] = <[u8; 8]>::try_from(frame.payload()).ok()?;
        if u16::from_be_bytes([a0, a1]) >= POSITIONS {
            // No angle: not a frame of one of these controllers.
            return None;
        }
        let rpm = i16::from_be_bytes([v0, v1]);
        let current = i16::from_be_bytes([c0, c1]);
        let is_none = current.unsigned_abs() <= self.idle_current.unsigned_abs();
        Some(Observation {
            velocity: Some(RevolutionsPerSecond(f32::from(rpm) / 60.0)),
            output: Some(if is_none { Output::Zero } else { Output::Driving }),
            ..Observation::default()
        })
    }

    /// A part of the frame in either mode is a current or a voltage.
    fn told(&self, frame: &Frame) -> Told {
        if frame.id() == self.slot.id || Some(frame.id()) == self.other_mode {
            Told::SetPoint(Demand::Other)
        } else {
            Told::AsListed
        }
    }

    /// A C620 is only reported to stop when commands cease, so every command counts.
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// A frame with anything but zeros in this motor's part, whatever it tells the other three. One that is
    /// not eight bytes long is not understood.
    fn is_motion(&self, frame: &Frame) -> bool {
        if frame.id() != self.slot.id && Some(frame.id()) != self.other_mode {
            return false;
        }
        let part = frame.payload().get(self.first..self.first + PART);
        let is_zero = part.is_some_and(|part| part.iter().all(|byte| *byte == 0));
        frame.format() != Format::Classic || frame.payload().len() != 8 || !is_zero
    }

    /// Every frame of the family, and what all its motors report on.
    fn may_hear(&self, id: ArbitrationId) -> bool {
        let ArbitrationId::Standard(id) = id else { return false };
        matches!(id, 0x1FE | SECOND | FIRST..=0x20B | 0x2FE | THIRD)
    }
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let model = settings.choice("model", &["c610", "c620", "gm6020"], None)?;
    let (kind, is_gm6020) = match model {
        "c610" => (C610, false),
        "c620" => (C620, false),
        _ => (GM6020, true),
    };
    let id = settings.small("id", kind.ids.clone(), None)?;
    let limit = settings.number("limit", 0.1..=f64::from(kind.full), Some(kind.limit))?;
    let proportional = settings.number("proportional", 0.0..=10.0, Some(kind.proportional))?;
    let integral = settings.number("integral", 0.0..=100.0, Some(kind.integral))?;
    let idle_current = settings.small("idle_current", 1..=5_000, Some(200))?;
    if common.after == AfterStop::Hold {
        return Err(SettingsError::new(
            "after_stop",
            "cannot hold: without a command the motor coasts; use release, and a brake where a load would \
             fall",
        ));
    }
    let still = common.standstill_or(STANDSTILL, RESOLUTION)?;
    let model = Model::new(id, is_gm6020, &kind, idle_current);
    let mut commands = vec![model.slot.id];
    commands.extend(model.other_mode);
    #[expect(clippy::cast_possible_truncation, reason = "configured numbers of two or three digits")]
    let speed_loop = SpeedLoop {
        proportional: proportional as f32,
        integral: integral as f32,
        limit: Amperes(limit as f32),
    };
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: StopProgramme::new(
            &[Stage {
                kind: StageKind::TorqueOff,
                // The whole frame: what stops one of its motors stops all of them.
                frames: FrameList::new(&[model.command(0)]),
                proof: Proof { max_speed: still, samples: SAMPLES, power: PowerProof::NoOutput },
            }],
            common.after,
        ),
        enable: EnableProgramme::new(&[]),
        setpoint: Setpoint::Current(speed_loop),
        poll: FrameList::EMPTY,
        poll_when: PollWhen::Always,
        broadcast: None,
        heartbeat: None,
        owns: vec![model.feedback],
        shares: [FIRST, SECOND, THIRD, 0x1FE, 0x2FE].map(ArbitrationId::standard).to_vec(),
        slot: Some(model.slot),
        reports: vec![model.feedback],
        commands,
        watchdog: Watchdog {
            set: WatchdogSet::Missing,
            ask: FrameList::EMPTY,
            advice: "none is documented: when this computer dies, nothing that is known takes the last \
                current away; \
                     let a relay that the computer holds cut the motors' supply"
                .to_owned(),
        },
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}
