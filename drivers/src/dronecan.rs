//! ESCs over DroneCAN (UAVCAN v0): identifier = priority << 24 | data type << 8 | source node; the last byte of each
//! frame, the *tail*, says where in its transfer the frame stands and carries the 5-bit transfer number.
//!
//! Sources, as cited below:
//! * *DSDL*: dronecan/DSDL: `uavcan.equipment.esc` 1030 RawCommand, 1031 RPMCommand, 1034 Status, and
//!   `uavcan.equipment.safety` 1100 ArmingStatus;
//! * *libcanard*: dronecan/libcanard, `canard.c`, `canardHandleRxFrame`; *libuavcan*: `uc_transfer_receiver.cpp`.
//!
//! **One message commands all ESCs of a bus.** Each takes the element of its index from whatever RawCommand or
//! RPMCommand it hears, from any node. All four (raw) or three (rpm) that one frame holds are always in it: an index
//! that is missing is not commanded. So the ESCs of a bus are one [`Slot`] family with one `source_node`, and a
//! second group on the same bus cannot be: its frame would command the first. More ESCs than one frame holds need
//! transfers of several frames, whose checksum is over all of them; they are not supported.
//!
//! **Transfer numbers.** A receiver drops a transfer with the number of the one before (libuavcan:
//! `not_previous_tid`); any other number it takes (libuavcan restarts its session; libcanard takes single frames with
//! any number at all). Frames built in advance have constant numbers, so everything is sent **twice, as number 0 and
//! number 1**: whatever came before, at least the second has another number than its predecessor, and both say the
//! same. `source_node` must be the number of no other node of the bus.
//!
//! **ArmingStatus is a broadcast**, too: *disarmed* in the torque-off stage reaches all ESCs of the bus, which are
//! stopped together anyway, and whatever else listens to it. "Some nodes may refuse to operate unless the system is
//! fully armed" (DSDL), others ignore it; the command of 0 is what stops those.
//!
//! **The feedback is read from one frame.** Status takes three frames, and each is looked at by itself. The
//! second holds the current and the lower 16 of the 18 bits of the speed: up to 32767 rpm that is the speed, and a
//! faster `max_rpm` is refused. A speed beyond is read as another one of the other sign; from 65536 rpm on, and when
//! the third frame names another index (one node that reports for several ESCs), the third frame takes the proof
//! back, and the index is told as a fault. The checksum of the transfer is not verified; each frame has CAN's own.
//!
//! **What the feedback cannot tell.** There is no word on the power stage; the proof is no current beside the speed.
//! An ESC that does not measure its current says NaN and is never proven to be without torque.
//!
//! **It cannot hold**: 0 means no rotation, by coasting or braking as the ESC is set up.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use core::fmt;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint, Slot};
use crate::enable::{EnableProgramme, EnableStep};
use crate::feedback::{Fault, Observation, Output, name_bits};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::half::from_half;
use crate::math::round;
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::RevolutionsPerSecond;
use crate::watchdog::{Feeds, Watchdog, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "dronecan",
    about: "ESCs over DroneCAN, up to four on a bus",
    keys: &[
        Key {
            name: "esc_node",
            about: "Node number of the ESC, under which it reports, 1 to 127. Required. A node that reports for several ESCs cannot be told apart.",
        },
        Key {
            name: "index",
            about: "Its place in the command, 0 to 3 with \"raw\", 0 to 2 with \"rpm\": what one frame holds. Required.",
        },
        Key {
            name: "command",
            about: "\"raw\" (RawCommand) or \"rpm\" (RPMCommand). Required: an ESC ignores the one it does not know.",
        },
        Key {
            name: "full_rpm",
            about: "Speed at a raw command of 8191, 1 to 32767 rpm; speeds are scaled by it, and nobody keeps them. Required with \"raw\".",
        },
        Key {
            name: "source_node",
            about: "Node number under which Lanyard commands, 1 to 125, of no other node, and the same for all ESCs of a bus. Default: 125, the highest that is not for service tools (unverified).",
        },
        Key {
            name: "idle_amps",
            about: "At most this current counts as none, 0.01 to 10 A. Default: 0.2, above the offset of usual sensors and far below what moves a motor.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "speed and current of esc.Status, second frame",
        vectors: "dronecan 1.0.27",
        unverified: &[
            "whether a given ESC brakes or coasts at 0",
            "offset of the measured current at rest",
            "an ESC stays armed until told otherwise",
            "node numbers above 125 are for service tools",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("esc_node", Value::Integer(20));
    settings.insert("index", Value::Integer(0));
    settings.insert("command", Value::Text("rpm".to_owned()));
    settings
}

/// Data type numbers (DSDL).
mod data_type {
    pub const RAW_COMMAND: u16 = 1030;
    pub const RPM_COMMAND: u16 = 1031;
    pub const STATUS: u16 = 1034;
    pub const ARMING_STATUS: u16 = 1100;
}

/// Priorities go from 0, the highest, to 31 (DSDL).
const PRIORITIES: u8 = 32;
/// Of every command: it may be a stop.
const HIGHEST: u8 = 0;
/// Of the arming: what a node uses for everything that does not hurry.
const MEDIUM: u8 = 16;
/// Node numbers have seven bits; 0 is a node without a number, whose messages cannot be these.
const NODES: core::ops::RangeInclusive<u8> = 1..=127;

/// ArmingStatus (DSDL).
const DISARMED: u8 = 0;
const FULLY_ARMED: u8 = 255;

/// Bits of the tail.
mod tail {
    pub const START: u8 = 0x80;
    pub const END: u8 = 0x40;
    pub const TOGGLE: u8 = 0x20;
    /// All that says where in its transfer a frame stands.
    pub const PLACE: u8 = START | END | TOGGLE;
    /// The only frame of its transfer.
    pub const SINGLE: u8 = START | END;
    /// Second of three.
    pub const SECOND: u8 = TOGGLE;
    /// Third of three.
    pub const THIRD: u8 = END;
}

/// The transfer numbers of everything that is sent; why two stands at the head of this file.
const TRANSFERS: [u8; 2] = [0, 1];

/// What comes before the tail in a full frame.
const PAYLOAD_BITS: u32 = 56;

/// The largest element of a RawCommand (DSDL: int14).
const FULL_RAW: f64 = 8191.0;
/// The largest element of an RPMCommand (DSDL: int18).
const FULL_RPM: f64 = 131_071.0;

/// Default for "stands still", in revolutions per second: 30 rpm. Most ESCs measure by the back-EMF or the commutation
/// steps and see nothing slower: unverified, as it differs from one to the next.
const STANDSTILL: RevolutionsPerSecond = RevolutionsPerSecond(0.5);

/// One rpm.
const RESOLUTION: RevolutionsPerSecond = RevolutionsPerSecond(1.0 / 60.0);

/// More than the four ESCs of a node that reports for several: one of them that turns interrupts the row.
const SAMPLES: u8 = 5;

/// Bits of [`Fault`].
pub mod flag {
    /// The node reports for another ESC index than the configured one, or a speed out of range.
    pub const OTHER_ESC: u32 = 1;
}

/// Which message commands the ESC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Raw,
    Rpm,
}

impl Command {
    /// Bits of an element.
    const fn width(self) -> u32 {
        match self {
            Self::Raw => 14,
            Self::Rpm => 18,
        }
    }

    const fn data_type(self) -> u16 {
        match self {
            Self::Raw => data_type::RAW_COMMAND,
            Self::Rpm => data_type::RPM_COMMAND,
        }
    }

    /// Where the element of that index begins, counted from the lowest bit of the 56, if it is in a single frame.
    const fn lowest_bit(self, index: u8) -> Option<u32> {
        PAYLOAD_BITS.checked_sub(self.width() * (index as u32 + 1))
    }

    /// An element as it travels: its bytes from the lowest on, of the highest only the bits it has (DSDL).
    const fn stream(self, value: i32) -> u64 {
        let value = value.cast_unsigned();
        let bits = match self {
            Self::Raw => (value & 0xFF) << 6 | value >> 8 & 0x3F,
            Self::Rpm => (value & 0xFF) << 10 | (value >> 8 & 0xFF) << 2 | value >> 16 & 0x3,
        };
        bits as u64
    }

    /// The element of that index among the 56 bits, if it is in a single frame: the reverse of [`Self::stream`].
    fn element(self, bits: u64, index: u8) -> Option<i32> {
        let element = bits >> self.lowest_bit(index)? & ((1 << self.width()) - 1);
        let value = match self {
            Self::Raw => element >> 6 & 0xFF | (element & 0x3F) << 8,
            Self::Rpm => element >> 10 & 0xFF | (element >> 2 & 0xFF) << 8 | (element & 0x3) << 16,
        };
        let unused = 32 - self.width();
        let value = u32::try_from(value).ok()?;
        Some((value << unused).cast_signed() >> unused)
    }

    /// The bits of the element of that index among the 56.
    const fn mask(self, index: u8) -> u64 {
        match self.lowest_bit(index) {
            Some(lowest) => ((1 << self.width()) - 1) << lowest,
            None => 0,
        }
    }
}

/// The seven bytes before the tail as a number, the first byte highest.
fn bits_of(payload: &[u8]) -> u64 {
    payload.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
        << (8 * (7usize.saturating_sub(payload.len())))
}

/// The bits of the only frame of a transfer.
fn single(frame: &Frame) -> Option<u64> {
    let (last, payload) = frame.payload().split_last()?;
    (last & tail::SINGLE == tail::SINGLE && payload.len() <= 7).then(|| bits_of(payload))
}

const fn message_id(priority: u8, data_type: u16, source: u8) -> ArbitrationId {
    ArbitrationId::extended((priority as u32) << 24 | (data_type as u32) << 8 | source as u32)
}

/// Data type and source of a message with a known source; `None` for services and others.
fn message_of(id: ArbitrationId) -> Option<(u16, u8)> {
    const SERVICE: u32 = 0x80;
    let ArbitrationId::Extended(id) = id else { return None };
    let source = (id & 0x7F) as u8;
    (id & SERVICE == 0 && NODES.contains(&source)).then_some(((id >> 8 & 0xFFFF) as u16, source))
}

/// What differs between two ESCs.
#[derive(Clone, Copy, Debug)]
struct Model {
    esc_node: u8,
    source_node: u8,
    index: u8,
    command: Command,
    /// Speed at a raw command of 8191; not used otherwise.
    full_rpm: f64,
    idle_amps: f32,
}

impl Model {
    fn command_id(&self) -> ArbitrationId {
        message_id(HIGHEST, self.command.data_type(), self.source_node)
    }

    /// The command of all ESCs with this one's element, the others 0, as both transfers.
    fn command(&self, value: i32) -> [Frame; 2] {
        let lowest = self.command.lowest_bit(self.index).unwrap_or(0);
        let [_, a, b, c, d, e, f, g] = (self.command.stream(value) << lowest).to_be_bytes();
        TRANSFERS
            .map(|number| Frame::classic(self.command_id(), &[a, b, c, d, e, f, g, tail::SINGLE | number]))
    }

    fn arming(&self, priority: u8, status: u8) -> [Frame; 2] {
        let id = message_id(priority, data_type::ARMING_STATUS, self.source_node);
        TRANSFERS.map(|number| Frame::classic(id, &[status, tail::SINGLE | number]))
    }

    /// The element that commands this speed, the nearest there is.
    fn element(&self, velocity: RevolutionsPerSecond) -> i32 {
        let (value, most) = match self.command {
            Command::Raw => (velocity.rpm() / self.full_rpm * FULL_RAW, FULL_RAW),
            Command::Rpm => (velocity.rpm(), FULL_RPM),
        };
        #[expect(clippy::cast_possible_truncation, reason = "within the range; NaN becomes 0")]
        let element = round(value.clamp(-most, most)) as i32;
        element
    }

    /// Whether a RawCommand or RPMCommand commands this ESC anything but 0.
    fn commands_motion(&self, command: Command, frame: &Frame) -> bool {
        let Some((last, payload)) = frame.payload().split_last() else { return true };
        // libcanard does not look at the toggle of a single frame.
        match last & tail::SINGLE {
            tail::SINGLE if payload.len() <= 7 => bits_of(payload) & command.mask(self.index) != 0,
            tail::SINGLE => true,
            // The first frame of a longer transfer begins with its checksum. Which element is whose is not
            // looked at.
            tail::START => payload.iter().skip(2).any(|byte| *byte != 0),
            _ => payload.iter().any(|byte| *byte != 0),
        }
    }

    /// Second frame of a Status: the upper byte of the voltage, f16 current, f16 temperature, the lower 16 bits of
    /// the speed (DSDL; two bytes of checksum and five of content are in the first frame).
    fn speed_and_current(&self, payload: [u8; 7]) -> Observation {
        let [_, i0, i1, _, _, r0, r1] = payload;
        let amps = from_half(u16::from_le_bytes([i0, i1]));
        let output = if amps.is_nan() {
            None
        } else if amps.abs() <= self.idle_amps {
            Some(Output::Zero)
        } else {
            Some(Output::Driving)
        };
        let rpm = i16::from_le_bytes([r0, r1]);
        Observation {
            velocity: Some(RevolutionsPerSecond::from_rpm(f64::from(rpm))),
            output,
            ..Observation::default()
        }
    }

    /// Third frame of a Status: two bits of speed, seven of power, five of index. Tells something only when it takes
    /// back what the second frame told.
    fn contradiction(&self, payload: [u8; 2]) -> Option<Observation> {
        let [high, low] = payload;
        let in_range = matches!(high >> 6, 0b00 | 0b11);
        let same = low >> 2 & 0x1F == self.index;
        (!(in_range && same)).then(|| Observation {
            output: Some(Output::Driving),
            fault: Some(Some(Fault(flag::OTHER_ESC))),
            ..Observation::default()
        })
    }
}

impl Protocol for Model {
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        FrameList::new(&self.command(self.element(velocity)))
    }

    /// The second and the third frame of Status, at any priority.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic
            || message_of(frame.id()) != Some((data_type::STATUS, self.esc_node))
        {
            return None;
        }
        let (last, payload) = frame.payload().split_last()?;
        match last & tail::PLACE {
            tail::SECOND => Some(self.speed_and_current(payload.try_into().ok()?)),
            tail::THIRD => self.contradiction(payload.try_into().ok()?),
            _ => None,
        }
    }

    /// The element of the kind that is configured, in a single frame; of the other kind, and of longer transfers, only
    /// that it is a set-point.
    fn told(&self, frame: &Frame) -> Told {
        match message_of(frame.id()) {
            Some((data_type::RAW_COMMAND | data_type::RPM_COMMAND, _)) => {}
            _ => return Told::AsListed,
        }
        let is_ours = message_of(frame.id()).is_some_and(|(kind, _)| kind == self.command.data_type());
        let element =
            single(frame).filter(|_| is_ours).and_then(|bits| self.command.element(bits, self.index));
        Told::SetPoint(element.map_or(Demand::Other, |element| {
            let rpm = match self.command {
                Command::Raw => f64::from(element) / FULL_RAW * self.full_rpm,
                Command::Rpm => f64::from(element),
            };
            Demand::Speed(RevolutionsPerSecond::from_rpm(rpm))
        }))
    }

    /// Commands do; what else an ESC counts is its vendor's choice, so everything counts.
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// Whether the frame would arm or move this ESC: commands of either kind, from any node at any priority.
    fn is_motion(&self, frame: &Frame) -> bool {
        let Some((data_type, _)) = message_of(frame.id()) else { return false };
        let understood = frame.format() == Format::Classic;
        match data_type {
            data_type::RAW_COMMAND => !understood || self.commands_motion(Command::Raw, frame),
            data_type::RPM_COMMAND => !understood || self.commands_motion(Command::Rpm, frame),
            data_type::ARMING_STATUS => {
                let disarms = |payload: &[u8]| matches!(payload, [DISARMED, last] if last & tail::PLACE == tail::SINGLE);
                !(understood && disarms(frame.payload()))
            }
            _ => false,
        }
    }

    /// DroneCAN uses every extended identifier and no standard one.
    fn may_hear(&self, id: ArbitrationId) -> bool {
        matches!(id, ArbitrationId::Extended(_))
    }

    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        name_bits(fault.0, &[(flag::OTHER_ESC, "reports another ESC index or a speed above 32767 rpm")], out)
    }
}

fn read(settings: &Settings, common: &Common) -> Result<Model, SettingsError> {
    let command = match settings.choice("command", &["raw", "rpm"], None)? {
        "raw" => Command::Raw,
        _ => Command::Rpm,
    };
    let last = if command == Command::Raw { 3 } else { 2 };
    // What the second frame of a Status can say is the limit of every speed.
    let most = f64::from(i16::MAX);
    let full = settings.number("full_rpm", 1.0..=most, (command == Command::Rpm).then_some(most))?;
    if common.max_speed.rpm() > full {
        return Err(SettingsError::new(
            "max_rpm",
            format!("is more than this drive can turn or report, {full:.0}"),
        ));
    }
    if common.after == AfterStop::Hold {
        return Err(SettingsError::new(
            "after_stop",
            "cannot hold: an ESC without a command coasts or brakes; use release, and a brake on the axis if it can \
             fall",
        ));
    }
    let model = Model {
        esc_node: settings.small("esc_node", 1..=127, None)?,
        source_node: settings.small("source_node", 1..=125, Some(125))?,
        index: settings.small("index", 0..=last, None)?,
        command,
        full_rpm: full,
        #[expect(clippy::cast_possible_truncation, reason = "a configured current")]
        idle_amps: settings.number("idle_amps", 0.01..=10.0, Some(0.2))? as f32,
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
    let still = common.standstill_or(STANDSTILL, RESOLUTION)?;
    let from_anybody = |data_type| {
        NODES.flat_map(move |source| {
            (0..PRIORITIES).map(move |priority| message_id(priority, data_type, source))
        })
    };
    let reports: Vec<_> =
        (0..PRIORITIES).map(|priority| message_id(priority, data_type::STATUS, model.esc_node)).collect();
    let [_, mask @ ..] = model.command.mask(model.index).to_be_bytes();
    let [a, b, c, d, e, f, g] = mask;
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: enable(&model),
        setpoint: Setpoint::Velocity,
        // Status comes by itself.
        poll: FrameList::EMPTY,
        poll_when: PollWhen::Always,
        broadcast: None,
        heartbeat: None,
        owns: reports.clone(),
        shares: vec![
            message_id(HIGHEST, data_type::RAW_COMMAND, model.source_node),
            message_id(HIGHEST, data_type::RPM_COMMAND, model.source_node),
            message_id(HIGHEST, data_type::ARMING_STATUS, model.source_node),
            message_id(MEDIUM, data_type::ARMING_STATUS, model.source_node),
        ],
        slot: Some(Slot { id: model.command_id(), mask: [a, b, c, d, e, f, g, 0] }),
        reports,
        commands: [data_type::RAW_COMMAND, data_type::RPM_COMMAND, data_type::ARMING_STATUS]
            .into_iter()
            .flat_map(from_anybody)
            .collect(),
        watchdog: Watchdog {
            set: WatchdogSet::ByHand,
            ask: FrameList::EMPTY,
            advice: "in the DroneCAN GUI tool, parameters of the ESC: set its command timeout (each vendor has its own \
                     name for it) to several times [front] refresh, for example 100 to 200 ms, and store it"
                .to_owned(),
        },
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// Two stages, of all ESCs at once. A disarmed or idle ESC does not react to either.
fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    let [zero, zero_again] = model.command(0);
    let [disarm, disarm_again] = model.arming(HIGHEST, DISARMED);
    StopProgramme::new(
        &[
            Stage {
                kind: StageKind::Controlled,
                frames: FrameList::new(&[zero, zero_again]),
                proof: proof(PowerProof::Any),
            },
            Stage {
                kind: StageKind::TorqueOff,
                frames: FrameList::new(&[zero, zero_again, disarm, disarm_again]),
                proof: proof(PowerProof::NoOutput),
            },
        ],
        after,
    )
}

/// The command is 0 before the ESCs are armed. No ESC says that it is.
fn enable(model: &Model) -> EnableProgramme {
    let [zero, zero_again] = model.command(0);
    let [arm, arm_again] = model.arming(MEDIUM, FULLY_ARMED);
    EnableProgramme::new(&[EnableStep {
        frames: FrameList::new(&[zero, zero_again, arm, arm_again]),
        until: None,
    }])
}
