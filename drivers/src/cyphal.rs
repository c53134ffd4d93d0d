//! Drives over Cyphal/CAN (UAVCAN v1) with the UDRAL actuator service: messages have the identifier priority << 26 |
//! subject << 8 | source node, with two reserved bits set; the last byte of each frame, the *tail*, says where in its
//! transfer the frame stands and carries the 5-bit transfer number.
//!
//! Sources, as cited below:
//! * *esc*: OpenCyphal/public_regulated_data_types, `reg/udral/service/actuator/esc/_.0.1`,
//!   `reg/udral/service/actuator/common/Feedback.0.1` and the setpoint types `common.sp`, `Readiness.0.1`,
//!   `reg/udral/physics/dynamics/rotation/PlanarTs.0.1`;
//! * *pycyphal*: pycyphal 1.27.1, `_transfer_reassembler.py`, `_identifier.py`.
//!
//! **Subjects are numbers of the network**, set in the registers of each drive; all four must be given.
//!
//! **Readiness decides who may push.** "The setpoint subject is ignored unless the drive is ENGAGED", a drive that is in
//! STANDBY "is not allowed to deliver power to the load", and it goes there by itself when the readiness is not said
//! again within CONTROL_TIMEOUT (esc): the drive's own watchdog, always on. So the front says ENGAGED again with every
//! setpoint, and the torque-off stage says STANDBY. The subject is heard by every drive that is set to it: **one
//! readiness subject for one setpoint subject**, or the stop of one group is the stop of another.
//!
//! **One message commands all drives of a setpoint subject**: each takes the element of its index, and one that is
//! missing is 0 (esc). The three that one classic frame holds are one [`Slot`] family; more would need transfers of
//! several frames, whose checksum is over all of them, and are not supported.
//!
//! **Transfer numbers.** A receiver drops a transfer with the number of the one before, and takes any other
//! (pycyphal: `not_previous_tid`). Frames built in advance have constant numbers, so everything is sent **twice, as
//! number 0 and number 1**: whatever came before, at least the second has another number than its predecessor, and
//! both say the same. `source_node` must be the number of no other node of the bus.
//!
//! **The speed on a classic bus is an upper bound.** PlanarTs takes four frames there, each looked at by itself, and the
//! speed lies across the border of the second and the third: the third has the sign and the upper seven bits of the
//! exponent. What is told is the largest speed that begins so: 1 to 4 times the real one, and never less. In the
//! single frame of CAN FD it is exact. The position is exact in both.
//!
//! **It cannot hold**: "while stopped, the drive may either allow the load to freewheel or it may force it to a
//! particular parking position" (esc).
//!
//! **A gap.** Receivers ignore the two reserved bits of an identifier; frames of a node that does not set them, as it
//! must, are not seen by the bus guard.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::f64::consts::TAU;

use core::fmt;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint, Slot};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Power};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::half::{from_half, to_half};
use crate::math::power_of_two;
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::{Revolutions, RevolutionsPerSecond};
use crate::watchdog::{Feeds, Watchdog, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "cyphal",
    about: "Drives over Cyphal with the UDRAL actuator service, up to three of a setpoint subject",
    keys: &[
        Key { name: "esc_node", about: "Node number of the drive, 0 to 127. Required." },
        Key { name: "index", about: "Its place in the setpoint, 0 to 2: what one frame holds. Required." },
        Key {
            name: "setpoint_subject",
            about: "Subject of the setpoints (udral.esc.setpoint), 0 to 8191. Required.",
        },
        Key {
            name: "readiness_subject",
            about: "Subject of the readiness (udral.esc.readiness), 0 to 8191. Required. Only drives of the same \
                    setpoint subject may listen to it.",
        },
        Key {
            name: "feedback_subject",
            about: "Subject of the drive's feedback (udral.esc.feedback), 0 to 8191. Required.",
        },
        Key {
            name: "dynamics_subject",
            about: "Subject of the drive's dynamics (udral.esc.dynamics), 0 to 8191. Required.",
        },
        Key {
            name: "mode",
            about: "The drive's control mode: \"speed\" (rad/s) or \"ratio\" (part of the full voltage). Required: the \
                    same number means both.",
        },
        Key {
            name: "full_rpm",
            about: "Speed at a ratio of 1, 1 to 100000 rpm; speeds are scaled by it, and nobody keeps them. Required \
                    with \"ratio\".",
        },
        Key {
            name: "source_node",
            about: "Node number under which Lanyard commands, 0 to 127, of no other node, and the same for all drives \
                    of a setpoint subject. Default: 125.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "readiness (udral.esc.feedback) and speed (udral.esc.dynamics)",
        vectors: "frames by pycyphal 1.27.1, contents from the layouts of public_regulated_data_types",
        unverified: &[
            "CONTROL_TIMEOUT of 1 s",
            "noise of the speed at rest",
            "layout of PlanarTs.0.1 on a real drive",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("esc_node", Value::Integer(20));
    settings.insert("index", Value::Integer(0));
    for (key, subject) in [
        ("setpoint_subject", 100),
        ("readiness_subject", 101),
        ("feedback_subject", 102),
        ("dynamics_subject", 103),
    ] {
        settings.insert(key, Value::Integer(subject));
    }
    settings.insert("mode", Value::Text("speed".to_owned()));
    settings
}

/// Priorities go from 0, the highest, to 7. Of every command: it may be a stop.
const HIGHEST: u8 = 0;
const PRIORITIES: u8 = 8;
const NODES: core::ops::RangeInclusive<u8> = 0..=127;
/// The source is a number made up by a node that has none; its messages are taken like others.
const ANONYMOUS: u32 = 1 << 24;
/// Set by every sender (pycyphal: `_BIT_MSG_SET_IGNORE`).
const RESERVED: u32 = 0b11 << 21;
/// Zero in every message: service, and the two that tell it from other protocols.
const ZERO: u32 = 1 << 25 | 1 << 23 | 1 << 7;

/// Bits of the tail. The toggle of the first frame is set.
mod tail {
    pub const START: u8 = 0x80;
    pub const END: u8 = 0x40;
    pub const TOGGLE: u8 = 0x20;
    /// All that says where in its transfer a frame stands.
    pub const PLACE: u8 = START | END | TOGGLE;
    /// The only frame of its transfer.
    pub const SINGLE: u8 = START | END | TOGGLE;
    /// Second of four.
    pub const SECOND: u8 = 0;
    /// Third of four.
    pub const THIRD: u8 = TOGGLE;
}

/// The transfer numbers of everything that is sent; why two stands at the head of this file.
const TRANSFERS: [u8; 2] = [0, 1];

/// `Readiness.0.1`, two bits.
mod readiness {
    pub const SLEEP: u8 = 0;
    pub const STANDBY: u8 = 2;
    pub const ENGAGED: u8 = 3;
    pub const MASK: u8 = 0b11;
}

/// The elements of a setpoint that fit one classic frame: two bytes each before the tail.
const ELEMENTS: usize = 3;

/// Default for "stands still", in revolutions per second. On a classic bus the bounds are powers of 4 in rad/s: the
/// largest below this one is 2 rad/s. The noise at rest is unverified.
const STANDSTILL: RevolutionsPerSecond = RevolutionsPerSecond(0.5);

/// An f32 has no coarsest step of its own, and its bound shrinks with it.
const RESOLUTION: RevolutionsPerSecond = RevolutionsPerSecond::ZERO;

/// Three readings: at the 50 Hz that drives may throttle to (esc), 60 ms; one stray reading proves nothing.
const SAMPLES: u8 = 3;

/// What a setpoint of 1 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// One rad/s.
    Speed,
    /// The full voltage.
    Ratio,
}

/// The subjects of a drive.
#[derive(Clone, Copy, Debug)]
struct Subjects {
    setpoint: u16,
    readiness: u16,
    feedback: u16,
    dynamics: u16,
}

/// What differs between two drives.
#[derive(Clone, Copy, Debug)]
struct Model {
    esc_node: u8,
    source_node: u8,
    index: u8,
    subjects: Subjects,
    mode: Mode,
    /// Speed at a ratio of 1; not used otherwise.
    full_rpm: f64,
}

const fn message_id(priority: u8, subject: u16, source: u8) -> ArbitrationId {
    ArbitrationId::extended((priority as u32) << 26 | RESERVED | (subject as u32) << 8 | source as u32)
}

/// Subject and source of a message; no source if it is made up.
fn message_of(id: ArbitrationId) -> Option<(u16, Option<u8>)> {
    let ArbitrationId::Extended(id) = id else { return None };
    if id & ZERO != 0 || id & RESERVED != RESERVED {
        return None;
    }
    let source = (id & ANONYMOUS == 0).then_some((id & 0x7F) as u8);
    Some(((id >> 8 & 0x1FFF) as u16, source))
}

impl Model {
    fn setpoint_id(&self) -> ArbitrationId {
        message_id(HIGHEST, self.subjects.setpoint, self.source_node)
    }

    /// The setpoint of all drives with this one's element, the others 0, as both transfers.
    fn setpoint(&self, velocity: RevolutionsPerSecond) -> [Frame; 2] {
        let velocity = match self.mode {
            Mode::Speed => f64::from(velocity.0) * TAU,
            Mode::Ratio => (velocity.rpm() / self.full_rpm).clamp(-1.0, 1.0),
        };
        #[expect(clippy::cast_possible_truncation, reason = "f16 is what the drive takes")]
        let element = to_half(velocity as f32).to_le_bytes();
        let mut elements = [[0; 2]; ELEMENTS];
        elements[usize::from(self.index)] = element;
        let [[a, b], [c, d], [e, f]] = elements;
        TRANSFERS.map(|number| Frame::classic(self.setpoint_id(), &[a, b, c, d, e, f, tail::SINGLE | number]))
    }

    fn readiness(&self, readiness: u8) -> [Frame; 2] {
        let id = message_id(HIGHEST, self.subjects.readiness, self.source_node);
        TRANSFERS.map(|number| Frame::classic(id, &[readiness, tail::SINGLE | number]))
    }

    /// A setpoint and then a readiness.
    fn both(&self, velocity: RevolutionsPerSecond, readiness: u8) -> FrameList {
        let [first, second] = self.setpoint(velocity);
        let [third, fourth] = self.readiness(readiness);
        FrameList::new(&[first, second, third, fourth])
    }

    /// f32 position and velocity in radians, from the whole of a PlanarTs: seven bytes of time, then four numbers.
    fn planar(payload: [u8; 23]) -> Observation {
        let [_, _, _, _, _, _, _, p0, p1, p2, p3, v0, v1, v2, v3, ..] = payload;
        let velocity = f64::from(f32::from_le_bytes([v0, v1, v2, v3])) / TAU;
        #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
        let velocity = velocity.is_finite().then_some(RevolutionsPerSecond(velocity as f32));
        Observation { velocity, ..position([p0, p1, p2, p3]) }
    }
}

/// f32 position in radians. What is not a finite number is not a reading.
fn position(bytes: [u8; 4]) -> Observation {
    let turns = f64::from(f32::from_le_bytes(bytes)) / TAU;
    Observation { position: turns.is_finite().then_some(Revolutions(turns)), ..Observation::default() }
}

/// The largest speed whose f32 in rad/s has this highest byte: the sign and all but the last bit of the exponent.
/// `None` where that may be infinite or no number.
fn bound(highest: u8) -> Option<RevolutionsPerSecond> {
    const EXPONENT_BIAS: i32 = 127;
    let exponent = i32::from(highest & 0x7F);
    if exponent == 0x7F {
        return None;
    }
    // The exponent is at most 2 * exponent + 1, and the fraction below 2.
    let size = if exponent == 0 { 0.0 } else { power_of_two(2 * exponent + 2 - EXPONENT_BIAS) / TAU };
    #[expect(clippy::cast_possible_truncation, reason = "at most 2^127")]
    let size = size as f32;
    Some(RevolutionsPerSecond(if highest & 0x80 == 0 { size } else { -size }))
}

/// Readiness, health, demand; what later versions may add is ignored (esc: `@extent`).
fn feedback(payload: &[u8]) -> Option<Observation> {
    let [ready, health, _demand, ..] = *payload else { return None };
    let power = match ready & readiness::MASK {
        readiness::SLEEP | readiness::STANDBY => Power::Off,
        readiness::ENGAGED => Power::On,
        _ => Power::Transition,
    };
    let health = u32::from(health & 0b11);
    Some(Observation {
        power: Some(power),
        fault: Some((health != 0).then_some(Fault(health))),
        ..Observation::default()
    })
}

/// Content of a frame that is a whole transfer.
fn single(frame: &Frame) -> Option<&[u8]> {
    let (last, payload) = frame.payload().split_last()?;
    (last & tail::PLACE == tail::SINGLE).then_some(payload)
}

impl Protocol for Model {
    /// The setpoint and that it is to be followed: the drive must be told again and again.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        self.both(velocity, readiness::ENGAGED)
    }

    /// Feedback, and the frames of dynamics that say something by themselves, at any priority.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        let (subject, source) = message_of(frame.id())?;
        if source != Some(self.esc_node) || frame.format() == Format::Remote {
            return None;
        }
        if subject == self.subjects.feedback {
            return feedback(single(frame)?);
        }
        if subject != self.subjects.dynamics {
            return None;
        }
        if frame.format() == Format::FdBrs {
            return Some(Self::planar(single(frame)?.try_into().ok()?));
        }
        let (last, payload) = frame.payload().split_last()?;
        let payload = <[u8; 7]>::try_from(payload).ok()?;
        match last & tail::PLACE {
            tail::SECOND => {
                let [p0, p1, p2, p3, ..] = payload;
                Some(position([p0, p1, p2, p3]))
            }
            tail::THIRD => Some(Observation { velocity: Some(bound(payload[0])?), ..Observation::default() }),
            _ => None,
        }
    }

    /// The element of the set-point; a readiness that engages is of the enable programme, whoever sends it.
    fn told(&self, frame: &Frame) -> Told {
        let Some((subject, _)) = message_of(frame.id()) else { return Told::AsListed };
        if subject != self.subjects.setpoint {
            return Told::AsListed;
        }
        let first = 2 * usize::from(self.index);
        let element = single(frame).and_then(|payload| payload.get(first..first + 2)?.try_into().ok());
        Told::SetPoint(element.map_or(Demand::Other, |element| {
            let value = f64::from(from_half(u16::from_le_bytes(element)));
            let speed = match self.mode {
                Mode::Speed => value / TAU,
                Mode::Ratio => value * self.full_rpm / 60.0,
            };
            #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
            Demand::Speed(RevolutionsPerSecond(speed as f32))
        }))
    }

    /// A readiness does, whatever it says; whether a set-point alone does is unverified, so it counts.
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// Whether the frame would engage or move this drive: setpoint and readiness, from any node at any priority.
    fn is_motion(&self, frame: &Frame) -> bool {
        let Some((subject, _)) = message_of(frame.id()) else { return false };
        let understood = (frame.format() == Format::Classic).then(|| single(frame)).flatten();
        if subject == self.subjects.setpoint {
            let first = 2 * usize::from(self.index);
            // What is missing is 0; a number that is none is 0 to the drive, and not trusted here.
            let element = |payload: &[u8]| [0, 1].map(|byte| payload.get(first + byte).copied().unwrap_or(0));
            understood.is_none_or(|payload| u16::from_le_bytes(element(payload)) & 0x7FFF != 0)
        } else if subject == self.subjects.readiness {
            understood.is_none_or(|payload| {
                let ready = payload.first().map_or(readiness::SLEEP, |ready| ready & readiness::MASK);
                !matches!(ready, readiness::SLEEP | readiness::STANDBY)
            })
        } else {
            false
        }
    }

    /// Cyphal uses extended identifiers and no standard one.
    fn may_hear(&self, id: ArbitrationId) -> bool {
        matches!(id, ArbitrationId::Extended(_))
    }

    /// `uavcan.node.Health.1.0`.
    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        match fault.0 {
            1 => write!(out, "advisory"),
            2 => write!(out, "caution"),
            3 => write!(out, "warning"),
            other => write!(out, "{other:#x}"),
        }
    }
}

fn read(settings: &Settings, common: &Common) -> Result<Model, SettingsError> {
    let subject = |key| settings.small(key, 0..=8191, None);
    let subjects = Subjects {
        setpoint: subject("setpoint_subject")?,
        readiness: subject("readiness_subject")?,
        feedback: subject("feedback_subject")?,
        dynamics: subject("dynamics_subject")?,
    };
    let named = [
        ("setpoint_subject", subjects.setpoint),
        ("readiness_subject", subjects.readiness),
        ("feedback_subject", subjects.feedback),
        ("dynamics_subject", subjects.dynamics),
    ];
    for (at, (key, number)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..at].iter().find(|(_, other)| other == number) {
            return Err(SettingsError::new(key, format!("must differ from \"{other}\" ({number})")));
        }
    }
    let mode = match settings.choice("mode", &["speed", "ratio"], None)? {
        "speed" => Mode::Speed,
        _ => Mode::Ratio,
    };
    let full = settings.number("full_rpm", 1.0..=100_000.0, (mode == Mode::Speed).then_some(100_000.0))?;
    if common.max_speed.rpm() > full {
        let problem = format!("is more than this drive can be told to turn, {full:.0}");
        return Err(SettingsError::new("max_rpm", problem));
    }
    if common.after == AfterStop::Hold {
        return Err(SettingsError::new(
            "after_stop",
            "cannot hold: what a stopped drive does is its maker's choice; use release, and a brake on the axis if it \
             can fall",
        ));
    }
    let model = Model {
        esc_node: settings.small("esc_node", 0..=127, None)?,
        source_node: settings.small("source_node", 0..=127, Some(125))?,
        index: settings.small("index", 0..=2, None)?,
        subjects,
        mode,
        full_rpm: full,
    };
    if model.source_node == model.esc_node {
        return Err(SettingsError::new(
            "source_node",
            "must differ from \"esc_node\" and from every node of the bus",
        ));
    }
    Ok(model)
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let model = read(settings, common)?;
    let subjects = model.subjects;
    let still = common.standstill_or(STANDSTILL, RESOLUTION)?;
    let from_drive =
        |subject| (0..PRIORITIES).map(move |priority| message_id(priority, subject, model.esc_node));
    let reports: Vec<_> = from_drive(subjects.feedback).chain(from_drive(subjects.dynamics)).collect();
    let anonymous = |id| match id {
        ArbitrationId::Extended(id) => ArbitrationId::extended(id | ANONYMOUS),
        standard @ ArbitrationId::Standard(_) => standard,
    };
    let from_anybody = |subject| {
        NODES.flat_map(move |source| {
            (0..PRIORITIES).map(move |priority| message_id(priority, subject, source))
        })
    };
    let commands = [subjects.setpoint, subjects.readiness]
        .into_iter()
        .flat_map(from_anybody)
        .flat_map(|id| [id, anonymous(id)])
        .collect();
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: EnableProgramme::new(&[EnableStep {
            // The setpoint is 0 before it is followed.
            frames: model.both(RevolutionsPerSecond::ZERO, readiness::ENGAGED),
            until: Some(Until::Power(Power::On)),
        }]),
        setpoint: Setpoint::Velocity,
        // Feedback and dynamics come by themselves.
        poll: FrameList::EMPTY,
        poll_when: PollWhen::Always,
        broadcast: None,
        // The readiness is one in spirit, but a heartbeat is one frame with one transfer number.
        heartbeat: None,
        owns: reports.clone(),
        shares: vec![model.setpoint_id(), message_id(HIGHEST, subjects.readiness, model.source_node)],
        slot: Some(Slot::of_bytes(model.setpoint_id(), 2 * usize::from(model.index), 2)),
        reports,
        commands,
        watchdog: Watchdog {
            set: WatchdogSet::ByHand,
            ask: FrameList::EMPTY,
            advice: "nothing to switch on: a drive goes to STANDBY when its readiness is not said again within \
                     CONTROL_TIMEOUT (1 s, or less where a register of the drive says so: set that one to several \
                     times [front] refresh)"
                .to_owned(),
        },
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// Two stages. A drive that is not engaged does not react to either.
fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    StopProgramme::new(
        &[
            // Nobody says ENGAGED any more: if this does not stop the drive, CONTROL_TIMEOUT will.
            Stage {
                kind: StageKind::Controlled,
                frames: FrameList::new(&model.setpoint(RevolutionsPerSecond::ZERO)),
                proof: proof(PowerProof::Any),
            },
            Stage {
                kind: StageKind::TorqueOff,
                frames: model.both(RevolutionsPerSecond::ZERO, readiness::STANDBY),
                proof: proof(PowerProof::Off),
            },
        ],
        after,
    )
}
