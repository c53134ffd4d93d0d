//! CubeMars (T-Motor) AK actuators in MIT mode: the frame of [`crate::mit`] on the id of the motor, replies on
//! an id of the host.
//!
//! Sources, as cited below:
//! * *manual*: CubeMars AK series manual V1.0.8, page 48;
//! * *tmotor*: the Python package TMotorCANControl 1.2.6, `mit_can.py`: a third party's code, in use on hardware.
//!
//! **What the feedback cannot tell.** There is no word on the power stage: a drive that is on, at rest and without
//! load looks as one that is off. What proves torque off is the answer to the frame that switches off (`FD`), a
//! speed near zero, and a measured torque within a step of zero.
//!
//! **Feedback comes only in answer.** The manual's way to read the state of a drive is `FC`, which switches it
//! *on*: it is never sent but by the enable programme. `FD` reads as well and switches off, so it cannot be asked
//! with while a stop is to be gentle, either. What is asked with is the controlled stop itself, and only a drive
//! that is silent: whether one that is off answers it is unverified, but every `FD` of the last stage is answered.
//!
//! **One reply id for all.** Replies come on the host's id, 0 from the factory; their first byte is the id of the
//! drive. Old firmware sends six bytes: no temperature, no error.
//!
//! **It cannot hold.** With kp = 0 the drive damps; stiffness would need a position to hold to, known at the very
//! moment of the stop. `after_stop = "hold"` is refused. And a speed of zero does not exist in twelve bits: the
//! controlled stop creeps by half a step (0.012 rad/s of an AK80-9) until the torque is taken away.
//!
//! **State numbers** are the error byte, 0 without error, and 0 where old firmware does not tell.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Output};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::meaning::Told;
use crate::mit::{self, Reply, Steps, special};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::RevolutionsPerSecond;
use crate::watchdog::{Feeds, Watchdog, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "cubemars-mit",
    about: "CubeMars (T-Motor) AK actuators in MIT mode",
    keys: &[
        Key { name: "id", about: "CAN id of the drive, 1 to 255. Required." },
        Key {
            name: "reply_id",
            about: "CAN id of the host, to which the drive answers, as set in it, 0 to 0x7FF. Several drives \
                    may have one. Default: 0.",
        },
        Key {
            name: "model",
            about: "\"AK80-9\", \"AK10-9\", \"AK60-6\", \"AK70-10\", \"AK80-6\" or \"AK80-64\". Required: it \
                    fixes the ranges of speed and torque, and a wrong one scales every speed.",
        },
        Key {
            name: "v_max",
            about: "Speed that the end of the twelve bits stands for, 1 to 1000 rad/s, for other firmware. \
                    Default: that of the model. Faster speeds are commanded as this one.",
        },
        Key {
            name: "t_max",
            about: "Torque that the end of the twelve bits stands for, 1 to 1000 Nm. Default: that of the \
                    model.",
        },
        Key {
            name: "kd",
            about: "Damping with which speeds are followed and the controlled stop brakes, 0.05 to 5 Nm \
                    s/rad. Under load the shaft lags by torque / kd. Default: 1.",
        },
        Key {
            name: "zero_torque",
            about: "Up to which a measured torque counts as none, from 1.5 steps of the twelve bits to a \
                    tenth of t_max, Nm. Default: 1.5 steps (0.013 Nm with AK80-9).",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "velocity and torque of every answer; no word on the power stage",
        vectors: "TMotorCANControl 1.2.6",
        unverified: &[
            "noise of velocity and torque at rest",
            "whether a drive that is off answers command frames",
            "whether FC disturbs a drive that is on",
            "whether a drive with an error takes its torque away",
            "a CAN timeout of the drive",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("id", Value::Integer(1));
    settings.insert("model", Value::Text("AK80-9".to_owned()));
    settings
}

/// Velocity and torque range of each model, rad/s and Nm (tmotor, `MIT_Params`).
const MODELS: &[(&str, f64, f64)] = &[
    ("AK80-9", 50.0, 18.0),
    ("AK10-9", 50.0, 65.0),
    ("AK60-6", 50.0, 15.0),
    ("AK70-10", 50.0, 25.0),
    ("AK80-6", 76.0, 12.0),
    ("AK80-64", 8.0, 144.0),
];

/// Position range of every model, radians (tmotor).
const P_MAX: f64 = 12.5;
/// Full scale of kd (tmotor).
const KD_SPAN: f64 = 5.0;
/// Default damping: that of the golden frames.
const KD: f64 = 1.0;

/// Steps of measured torque that still count as none: zero reads half a step to either side, and one more.
const ZERO_TORQUE_STEPS: f64 = 1.5;

/// Default for "stands still": 0.02 rev/s is 7 degrees a second at the output, five steps of an AK80-9. Never
/// below two steps: a shaft at rest reads half a step to either side of zero, and the noise of the estimate is
/// unverified.
const STANDSTILL: f32 = 0.02;

/// Three answers in a row: one stray reading proves nothing.
const SAMPLES: u8 = 3;

/// What differs between two drives.
#[derive(Clone, Copy, Debug)]
struct Model {
    id: u8,
    reply: u16,
    /// Largest velocity of the twelve bits, rad/s.
    v_max: f64,
    /// On the wire.
    kd: u16,
    /// Steps of measured torque that count as none.
    zero_torque: f64,
}

impl Model {
    fn id(&self) -> ArbitrationId {
        ArbitrationId::standard(u16::from(self.id))
    }

    fn special(&self, meaning: u8) -> Frame {
        mit::special(self.id(), meaning)
    }

    /// A speed for kd to pull the shaft to: no position, no torque.
    fn setpoint(&self, velocity: RevolutionsPerSecond) -> Frame {
        let middle = |bits| Steps::Power.encode(0.0, 1.0, bits);
        let command = mit::Command {
            position: middle(16),
            velocity: Steps::Power.encode(mit::radians_per_second(velocity), self.v_max, 12),
            kp: 0,
            kd: self.kd,
            torque: middle(12),
        };
        Frame::classic(self.id(), &command.bytes())
    }
}

impl Protocol for Model {
    /// A command frame with kp = 0.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        FrameList::new(&[self.setpoint(velocity)])
    }

    /// Replies of eight bytes, and the six of old firmware.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic || frame.id() != ArbitrationId::standard(self.reply) {
            return None;
        }
        let (numbers, error) = match *frame.payload() {
            [id, a, b, c, d, e] if id == self.id => ([a, b, c, d, e], None),
            [id, a, b, c, d, e, _temperature, error] if id == self.id => ([a, b, c, d, e], Some(error)),
            _ => return None,
        };
        let reply = Reply::read(numbers);
        let still = reply.torque_steps() <= self.zero_torque;
        Some(Observation {
            output: Some(if still { Output::Zero } else { Output::Driving }),
            state: Some(u16::from(error.unwrap_or(0))),
            velocity: Some(reply.velocity(self.v_max)),
            position: reply.position(P_MAX),
            fault: error.map(|error| (error != 0).then_some(Fault(u32::from(error)))),
            ..Observation::default()
        })
    }

    /// Every frame but the special ones is a set-point. No frame only clears: switching on and off is all there is.
    fn told(&self, frame: &Frame) -> Told {
        match mit::special_of(frame.payload()) {
            None if frame.id() == self.id() => Told::SetPoint(mit::demand(frame.payload(), self.v_max)),
            _ => Told::AsListed,
        }
    }

    /// Which frames a CAN timeout counts is not documented: all count.
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// Whether the frame would energise or move this drive: any on its id but `FD` and those that only damp.
    fn is_motion(&self, frame: &Frame) -> bool {
        let payload = frame.payload();
        let harmless = mit::special_of(payload) == Some(special::EXIT) || mit::only_damps(payload);
        frame.id() == self.id() && !(frame.format() == Format::Classic && harmless)
    }

    fn may_hear(&self, id: ArbitrationId) -> bool {
        match id {
            ArbitrationId::Standard(id) => id <= u16::from(u8::MAX),
            ArbitrationId::Extended(_) => false,
        }
    }

    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        fault_words(fault, out)
    }
}

/// The error byte, the same in both modes (manual; tmotor, `ERROR_CODES`).
pub(crate) fn fault_words(fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
    let name = match fault.0 {
        1 => "too hot",
        2 => "overcurrent",
        3 => "overvoltage",
        4 => "undervoltage",
        5 => "encoder error",
        6 => "phase currents unbalanced (the hardware may be damaged)",
        other => return write!(out, "{other:#x}"),
    };
    out.write_str(name)
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    if common.after == AfterStop::Hold {
        return Err(SettingsError::new(
            "after_stop",
            "damping without stiffness cannot hold a position: use release, and a brake where the load can fall",
        ));
    }
    let model = read(settings)?;
    let resolution = mit::revolutions_per_second(mit::step(model.v_max, 12));
    let still = common.standstill_or(RevolutionsPerSecond(STANDSTILL.max(2.0 * resolution.0)), resolution)?;
    let reply = ArbitrationId::standard(model.reply);
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: enable(&model),
        setpoint: Setpoint::Velocity,
        poll: FrameList::new(&[model.setpoint(RevolutionsPerSecond::ZERO)]),
        poll_when: PollWhen::WhenSilent,
        broadcast: None,
        heartbeat: None,
        owns: vec![model.id()],
        shares: vec![reply],
        slot: None,
        reports: vec![reply],
        commands: vec![model.id()],
        watchdog: watchdog(),
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// As far as is known.
fn watchdog() -> Watchdog {
    Watchdog {
        set: WatchdogSet::ByHand,
        ask: FrameList::EMPTY,
        advice: "in the CubeMars tool (R-Link), set the CAN timeout of the drive, if its firmware has one \
                 (unverified), to 1 s: a motor that is granted and not driven hears from Lanyard every 0.3 s only. \
                 Take it for off until a pulled CAN plug has stopped the motor"
            .to_owned(),
    }
}

/// The family's own keys, checked.
fn read(settings: &Settings) -> Result<Model, SettingsError> {
    let id: u8 = settings.small("id", 1..=255, None)?;
    let reply: u16 = settings.small("reply_id", 0..=0x7FF, Some(0))?;
    if reply == u16::from(id) {
        return Err(SettingsError::new("reply_id", format!("must differ from \"id\" ({id})")));
    }
    let names: Vec<&str> = MODELS.iter().map(|(name, ..)| *name).collect();
    let name = settings.choice("model", &names, None)?;
    let (v_max, t_max) = MODELS
        .iter()
        .find(|(known, ..)| *known == name)
        .map_or((50.0, 18.0), |(_, v_max, t_max)| (*v_max, *t_max));
    let v_max = settings.number("v_max", 1.0..=1_000.0, Some(v_max))?;
    let t_max = settings.number("t_max", 1.0..=1_000.0, Some(t_max))?;
    let step = mit::step(t_max, 12);
    let least = ZERO_TORQUE_STEPS * step;
    let zero_torque = settings.number("zero_torque", least..=0.1 * t_max, Some(least))?;
    let kd = settings.number("kd", 0.05..=KD_SPAN, Some(KD))?;
    let kd = Steps::Power.encode_from(kd, KD_SPAN, 12);
    Ok(Model { id, reply, v_max, kd, zero_torque: zero_torque / step })
}

/// Two stages: no frame of this family brakes harder than damping does.
fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    StopProgramme::new(
        &[
            // In a drive that is off it does nothing.
            Stage {
                kind: StageKind::Controlled,
                frames: FrameList::new(&[model.setpoint(RevolutionsPerSecond::ZERO)]),
                proof: proof(PowerProof::Any),
            },
            Stage {
                kind: StageKind::TorqueOff,
                frames: FrameList::new(&[model.special(special::EXIT)]),
                proof: proof(PowerProof::NoOutput),
            },
        ],
        after,
    )
}

/// On, and wait for an answer without error: a drive that is never heard must not be driven.
fn enable(model: &Model) -> EnableProgramme {
    EnableProgramme::new(&[EnableStep {
        frames: FrameList::new(&[model.special(special::ENTER)]),
        until: Some(Until::State(0)),
    }])
}
