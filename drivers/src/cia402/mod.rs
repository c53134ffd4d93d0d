//! CiA 402 drives over CANopen.
//!
//! Sources, as cited below: CiA 301 and CiA 402 as read in python-canopen 2.4.1 (`p402.py`), ros2_canopen
//! (`command.cpp`, `state.cpp`), CANopenNode (`CO_NMT_Heartbeat.h`, `CO_Emergency.h`, `CO_HBconsumer.h`).
//! Where it says *unverified*, no source was at hand and no drive was tried.
//!
//! **How a drive is stopped.** By the controlword: 0x0002 quick stop, then 0x0000 disable voltage.
//! * Not by *halt* (0x010F): its lower bits are those of *enable operation*, so a repeated halt energises
//!   a drive that is switched on, and *halt* is only defined where the mode has it.
//! * Not by NMT *stop*: it ends PDO and SDO, so the statusword can no longer be read and nothing can be
//!   proven, and the drive reacts to it only if it implements 6007 that way.
//! * A node that another master has told NMT *stop*, or to boot, hears neither: NMT *start* goes before the stop
//!   whenever that was heard or the node is silent. It energises nothing.
//! * There is no third stage. What is left, NMT *reset node*, takes the feedback, the drive's watchdog on
//!   the master (1016) and its reaction (6007) away; a drive that does not do what 6040 says has to be
//!   stopped from outside (power, STO).
//!
//! **What 605A decides.** After a quick stop the drive either goes to *switch on disabled* (1, 2: no torque)
//! or stays in *quick stop active* (5, 6: holds). The enable programme writes it to fit
//! [`AfterStop`]; a drive never enabled by Lanyard since its start acts on the value stored in it.
//!
//! **Enabling after a hold takes the torque away for a moment**: from *quick stop active* the way back
//! that all drives know leads through *switch on disabled*. An axis that can fall needs a holding brake.
//!
//! **Two SDO clients.** The supervisor polls and the front enables through the same SDO server. A request
//! that the server drops because it is busy is made good by the next repetition; answers name their
//! object, so they are never mixed up.
//!
//! **State numbers** are those of [`state`]; **answers** are object index << 8 | subindex.

mod enable;
mod keys;
mod objects;
mod statusword;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use statusword::controlword;
pub use statusword::state;

use crate::canopen::{self, sdo};
use crate::drive::{Drive, Heartbeat, PollWhen, Protocol, Setpoint};
use crate::feedback::{Fault, Observation, Refusal};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::math::round;
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::{Revolutions, RevolutionsPerSecond};
use crate::watchdog::{Feeds, Watchdog, WatchdogReading, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "cia402",
    about: "CiA 402 servo drives over CANopen",
    keys: keys::ALL,
    build,
    example,
    sheet: Sheet {
        proof: "statusword 6041 and velocity 606C, asked or by TPDO1",
        vectors: "python-canopen 2.4.1",
        unverified: &["noise of 606C at rest", "default PDO mappings", "factory values of 605A and 6007"],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("node", Value::Integer(5));
    settings.insert("counts_per_rev", Value::Integer(65_536));
    settings
}

/// Heartbeat payload of an operational node.
const OPERATIONAL: u8 = 0x05;

/// Default for "stands still": 0.02 rev/s is 50 s a turn, and some units of any usual encoder. The noise
/// of a drive's velocity is not specified by the profile: unverified on hardware.
const STANDSTILL: f32 = 0.02;

/// Three polls in a row: one stray reading proves nothing.
const SAMPLES: u8 = 3;

/// How commands travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Sdo,
    Pdo,
}

/// What differs between two CiA 402 drives.
#[derive(Clone, Copy, Debug)]
struct Model {
    node: u8,
    transport: Transport,
    /// Position units of a revolution.
    counts_per_rev: f64,
    /// Velocity units of one revolution per second.
    units_per_rps: f64,
}

impl Model {
    /// A connection set's identifier: function code plus node.
    fn id(&self, function: u16) -> ArbitrationId {
        ArbitrationId::standard(function + u16::from(self.node))
    }

    /// Rounded to the nearest unit; beyond i32 the largest one.
    fn units(&self, velocity: RevolutionsPerSecond) -> i32 {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and is meant to")]
        let units = round(f64::from(velocity.0) * self.units_per_rps) as i32;
        units
    }

    /// RPDO1 as the enable programme maps it: controlword and target velocity.
    fn rpdo1(&self, controlword: u16, target: i32) -> Frame {
        let [c0, c1] = controlword.to_le_bytes();
        let [t0, t1, t2, t3] = target.to_le_bytes();
        Frame::classic(self.id(RPDO[0]), &[c0, c1, t0, t1, t2, t3])
    }

    /// A controlword that stops. By SDO in either transport, because a node takes RPDOs only while it is
    /// operational; by RPDO before it, because that has the higher priority on the bus and no answer
    /// to wait for. To a drive whose RPDO1 is still mapped otherwise it is the controlword, too: in the
    /// default mappings of CiA 402 that comes first (unverified).
    fn stopping(&self, controlword: u16) -> FrameList {
        let by_sdo = sdo::write_u16(self.node, objects::CONTROLWORD, controlword);
        match self.transport {
            Transport::Sdo => FrameList::new(&[by_sdo]),
            Transport::Pdo => FrameList::new(&[self.rpdo1(controlword, 0), by_sdo]),
        }
    }

    fn decode_answer(&self, answer: sdo::Answer) -> Option<Observation> {
        match answer {
            sdo::Answer::Written(object) => {
                Some(Observation { answer: Some(object.key()), ..Observation::default() })
            }
            sdo::Answer::Refused(object, code) => Some(Observation {
                refused: Some(Refusal { request: object.key(), code }),
                ..Observation::default()
            }),
            sdo::Answer::Value(objects::STATUSWORD, content) => content.u16().map(statusword::observe),
            sdo::Answer::Value(objects::VELOCITY, content) => content
                .i32()
                .map(|units| Observation { velocity: Some(self.speed(units)), ..Observation::default() }),
            sdo::Answer::Value(objects::POSITION, content) => content.i32().map(|counts| Observation {
                position: Some(Revolutions(f64::from(counts) / self.counts_per_rev)),
                ..Observation::default()
            }),
            sdo::Answer::Value(..) => None,
        }
    }

    /// Statusword alone (the default mapping, before the set-up) or with the velocity.
    fn decode_tpdo1(&self, payload: &[u8]) -> Option<Observation> {
        match *payload {
            [s0, s1] => Some(statusword::observe(u16::from_le_bytes([s0, s1]))),
            [s0, s1, v0, v1, v2, v3] => Some(Observation {
                velocity: Some(self.speed(i32::from_le_bytes([v0, v1, v2, v3]))),
                ..statusword::observe(u16::from_le_bytes([s0, s1]))
            }),
            _ => None,
        }
    }

    fn speed(&self, units: i32) -> RevolutionsPerSecond {
        #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
        RevolutionsPerSecond((f64::from(units) / self.units_per_rps) as f32)
    }
}

impl Protocol for Model {
    /// The velocity setpoint. By RPDO it comes with *enable operation*, so even 0 is a motion frame there.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        let target = self.units(velocity);
        FrameList::new(&[match self.transport {
            Transport::Sdo => sdo::write_i32(self.node, objects::TARGET_VELOCITY, target),
            Transport::Pdo => self.rpdo1(controlword::ENABLE_OPERATION, target),
        }])
    }

    /// SDO answers, emergencies and, with PDOs, TPDO1.
    ///
    /// A node's heartbeat is not news here: it tells the NMT state, from which nothing follows for the
    /// power stage.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic {
            return None;
        }
        let id = frame.id();
        if id == sdo::answer_id(self.node) {
            self.decode_answer(sdo::answer(frame.payload())?)
        } else if id == self.id(EMCY) {
            statusword::emergency(frame.payload())
        } else if id == self.id(TPDO1) && self.transport == Transport::Pdo {
            self.decode_tpdo1(frame.payload())
        } else {
            None
        }
    }

    fn has_clear_frame(&self) -> bool {
        true
    }

    /// The target velocity, by SDO or by PDO; a controlword with a rising bit 7 resets a fault.
    fn told(&self, frame: &Frame) -> Told {
        let id = frame.id();
        if id == sdo::request_id(self.node) {
            return objects::told(sdo::request_of(frame), |units| self.speed(units));
        }
        match (RPDO.iter().any(|function| id == self.id(*function)), frame.payload()) {
            (true, [low, _, 0, 0, 0, 0]) if statusword::resets_fault(*low) => Told::Clear,
            // Only the first has a mapping that is known, and only if Lanyard has set it.
            (true, &[_, _, t0, t1, t2, t3]) if id == self.id(RPDO[0]) && self.transport == Transport::Pdo => {
                Told::SetPoint(Demand::Speed(self.speed(i32::from_le_bytes([t0, t1, t2, t3]))))
            }
            (true, _) => Told::SetPoint(Demand::Other),
            (false, _) => Told::AsListed,
        }
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

    /// The heartbeat of the master does ([`Drive::heartbeat`]), and the remote request of node guarding where a drive is set
    /// up for that (CiA 301). SDO and PDO do not (CANopenNode, `CO_HBconsumer.h`).
    fn feeds_watchdog(&self, frame: &Frame) -> Feeds {
        let is_guarding = frame.id() == self.id(NMT_ERROR_CONTROL) && frame.format() == Format::Remote;
        if is_guarding { Feeds::Yes } else { Feeds::No }
    }

    /// Whether the frame would energise or move this drive: an SDO write (see `objects`), or a receive PDO.
    /// All four receive PDOs of the connection set count, in either transport: a drive that is
    /// operational takes them from anybody.
    fn is_motion(&self, frame: &Frame) -> bool {
        let id = frame.id();
        if id == sdo::request_id(self.node) {
            objects::is_motion(sdo::request_of(frame))
        } else if RPDO.iter().any(|function| id == self.id(*function)) {
            !stops_by_pdo(frame)
        } else {
            false
        }
    }

    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        statusword::fault_words(fault, out)
    }

    /// The first entry of the consumer heartbeat.
    fn watchdog(&self, frame: &Frame) -> Option<WatchdogReading> {
        if frame.format() != Format::Classic || frame.id() != sdo::answer_id(self.node) {
            return None;
        }
        let sdo::Answer::Value(objects::CONSUMER_HEARTBEAT, content) = sdo::answer(frame.payload())? else {
            return None;
        };
        let entry = content.i32()?.cast_unsigned();
        Some(match (entry >> 16, entry & 0xFFFF) {
            (0, _) | (_, 0) => WatchdogReading::Off,
            (_, millis) => WatchdogReading::On(Duration::from_millis(u64::from(millis))),
        })
    }

    /// Whether a CANopen node could take a frame with this identifier for something: all objects of the
    /// predefined connection set end with the heartbeats at 0x77F, and above are only the two of LSS (CiA 305).
    /// CANopen drives take no extended identifiers (CiA 301 allows them for PDOs set up so; nothing here does).
    fn may_hear(&self, id: ArbitrationId) -> bool {
        match id {
            ArbitrationId::Standard(id) => id < NMT_ERROR_CONTROL + 0x80 || LSS.contains(&id),
            ArbitrationId::Extended(_) => false,
        }
    }
}

/// Function codes of the predefined connection set (CiA 301).
const EMCY: u16 = 0x080;
const TPDO1: u16 = 0x180;
const RPDO: [u16; 4] = [0x200, 0x300, 0x400, 0x500];
const NMT_ERROR_CONTROL: u16 = 0x700;
/// Layer setting services, answers and requests (CiA 305, unverified).
const LSS: [u16; 2] = [0x7E4, 0x7E5];

/// Whether a receive PDO can only stop: a controlword that cannot energise and nothing but zeros behind.
/// A remote request carries no setpoint and asks for nothing a receive PDO would send.
fn stops_by_pdo(frame: &Frame) -> bool {
    match (frame.format(), frame.payload()) {
        (Format::Remote, _) => true,
        (Format::Classic, [low, _high, rest @ ..]) => {
            !statusword::may_energise(*low) && rest.iter().all(|byte| *byte == 0)
        }
        _ => false,
    }
}

/// What a node has by CiA 301's predefined connection set: EMCY, four PDOs each way, SDO, heartbeat. Drives
/// have them from the factory, whether Lanyard uses them or not.
const CONNECTION_SET: [u16; 12] =
    [0x080, 0x180, 0x200, 0x280, 0x300, 0x380, 0x400, 0x480, 0x500, 0x580, 0x600, 0x700];

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let keys = keys::read(settings, common)?;
    let model = keys.model;
    // A shaft at rest between two units reads 0 or 1, so one unit must count as standing still.
    let resolution = model.speed(1);
    let still = common.standstill_or(RevolutionsPerSecond(STANDSTILL.max(resolution.0)), resolution)?;
    let mut reports = vec![sdo::answer_id(model.node), model.id(EMCY), model.id(NMT_ERROR_CONTROL)];
    if model.transport == Transport::Pdo {
        reports.push(model.id(TPDO1));
    }
    let mut commands = vec![sdo::request_id(model.node)];
    commands.extend(RPDO.iter().map(|function| model.id(*function)));
    let owns = CONNECTION_SET.iter().map(|function| model.id(*function)).collect();
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: enable::programme(&keys),
        setpoint: Setpoint::Velocity,
        // What the drive watches is the heartbeat, not its SDO server (CANopenNode `CO_HBconsumer.h`).
        poll_when: PollWhen::Always,
        broadcast: None,
        poll: FrameList::new(&[
            sdo::upload(model.node, objects::STATUSWORD),
            sdo::upload(model.node, objects::VELOCITY),
            sdo::upload(model.node, objects::POSITION),
        ]),
        heartbeat: (keys.heartbeat_ms > 0).then(|| Heartbeat {
            frame: Frame::classic(
                ArbitrationId::standard(NMT_ERROR_CONTROL + u16::from(keys.master_node)),
                &[OPERATIONAL],
            ),
            mark: [0; 8],
            window: Duration::from_millis(u64::from(keys.heartbeat_ms)),
        }),
        owns,
        shares: Vec::new(),
        slot: None,
        reports,
        commands,
        watchdog: Watchdog {
            set: match keys.heartbeat_ms {
                0 => WatchdogSet::Off,
                millis => WatchdogSet::ByLanyard(Duration::from_millis(u64::from(millis))),
            },
            ask: FrameList::new(&[sdo::upload(model.node, objects::CONSUMER_HEARTBEAT)]),
            advice: format!(
                "set heartbeat_ms above 0; Lanyard then writes object 1016:01 (node {} and that time) and 6007 \
                 whenever it enables the drive",
                keys.master_node
            ),
        },
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// Two stages; why not *halt*, NMT or a third one stands at the head of this file.
fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    StopProgramme::new(
        &[
            Stage {
                kind: StageKind::Controlled,
                frames: model.stopping(controlword::QUICK_STOP),
                proof: proof(PowerProof::NotFollowing),
            },
            Stage {
                kind: StageKind::TorqueOff,
                frames: model.stopping(controlword::DISABLE_VOLTAGE),
                proof: proof(PowerProof::Off),
            },
        ],
        after,
    )
}
