//! ODrive over CANSimple: identifier = node << 5 | command, little-endian payloads.
//!
//! Sources, as cited below:
//! * *can_simple*: odriverobotics/ODrive, `Firmware/communication/can/can_simple.cpp` (firmware 0.5);
//! * *axis*: the same, `Firmware/MotorControl/axis.{hpp,cpp}`;
//! * *DBC*: `odrive-cansimple-0.5.6.dbc` and `-0.6.10.dbc` of the Python package odrive-can 2.1.0.
//!
//! The source of firmware 0.6 is not public: what is cited from *can_simple* is unverified there.
//!
//! **No poll.** Every frame addressed to an axis, a read included, feeds the drive's own watchdog
//! (can_simple, `do_command`): a supervisor that polled would keep alive the very watchdog that is to
//! stop the motor when the commander dies. Feedback is what the drive sends by itself: heartbeat and
//! encoder estimates, whose rates (`heartbeat_rate_ms`, `encoder_rate_ms`) must not be 0. The drive's
//! watchdog is set in the drive (`axis.config.enable_watchdog`, `watchdog_timeout`; default off: axis).
//!
//! **State numbers** are axis states: 1 IDLE, 8 CLOSED_LOOP_CONTROL, others are calibrations.
//!
//! **What the feedback cannot tell.** Firmware 0.5 reports 0 for an estimate that was never valid
//! (can_simple, `value_or(0.0f)`). Such an axis does not enter closed loop, but a shaft turned from
//! outside would look still; its heartbeat carries the encoder flag, reported here as a fault.

use alloc::borrow::ToOwned as _;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Power, name_bits};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::{Revolutions, RevolutionsPerSecond};
use crate::watchdog::{Feeds, Watchdog, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "odrive",
    about: "ODrive over CANSimple, firmware 0.5 or 0.6",
    keys: &[
        Key { name: "node", about: "Node id of the axis (axis0.config.can.node_id), 0 to 63. Required." },
        Key {
            name: "firmware",
            about: "\"0.5\" or \"0.6\". Required: the same frames mean different things in the two.",
        },
        Key {
            name: "id_format",
            about: "Identifiers of 11 bits (\"standard\", the default) or 29 (\"extended\").",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "encoder estimates (10 ms), axis state of the heartbeat (100 ms)",
        vectors: "cantools with the DBC files of odrive-can 2.1.0",
        unverified: &["noise of the velocity estimate at rest", "firmware 0.6 internals (not public)"],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("node", Value::Integer(3));
    settings.insert("firmware", Value::Text("0.6".to_owned()));
    settings
}

/// Command numbers: the lowest five bits of the identifier (can_simple; DBC).
mod command {
    pub const HEARTBEAT: u8 = 0x01;
    pub const ESTOP: u8 = 0x02;
    /// Firmware 0.6 only: writes any endpoint. In 0.5 the same number reads the encoder error.
    pub const RX_SDO: u8 = 0x04;
    pub const SET_AXIS_STATE: u8 = 0x07;
    pub const ENCODER_ESTIMATES: u8 = 0x09;
    pub const SET_CONTROLLER_MODE: u8 = 0x0B;
    pub const SET_INPUT_POS: u8 = 0x0C;
    pub const SET_INPUT_VEL: u8 = 0x0D;
    pub const SET_INPUT_TORQUE: u8 = 0x0E;
    pub const CLEAR_ERRORS: u8 = 0x18;

    /// Neither energise nor move anything, with whatever payload, in either firmware: reports, reads,
    /// Estop, limits, gains and Clear_Errors.
    ///
    /// Absent on purpose, besides the setpoints: 0x06 takes another node number (the axis would no
    /// longer hear its stop), 0x08 what the axis does at start-up, 0x10 starts a calibration that turns
    /// the motor, 0x16 reboots (and the axis may start in closed loop), 0x19 moves the position the
    /// controller holds, 0x1E and 0x1F are unknown or update the firmware.
    pub const HARMLESS: &[u8] = &[
        0x00,
        HEARTBEAT,
        ESTOP,
        0x03,
        0x05,
        ENCODER_ESTIMATES,
        0x0A,
        0x0F,
        0x11,
        0x12,
        0x13,
        0x14,
        0x15,
        0x17,
        CLEAR_ERRORS,
        0x1A,
        0x1B,
        0x1C,
        0x1D,
    ];

    /// How many there are: the field has five bits.
    pub const COUNT: u8 = 32;
}

/// Axis states (DBC `Axis_State`).
const IDLE: u8 = 1;
const CLOSED_LOOP: u8 = 8;

/// Control mode 2 = velocity, input mode 1 = passthrough (DBC `Set_Controller_Mode`). Passthrough,
/// because a ramp or a filter left over from another commander would delay the stop.
const VELOCITY_PASSTHROUGH: [u8; 8] = [2, 0, 0, 0, 1, 0, 0, 0];

/// Default for "stands still", in revolutions per second. The estimate of an encoder that does not move
/// still flickers by some counts within the estimator's bandwidth: with 8192 counts a turn 0.05 rev/s is
/// 410 counts/s. At this speed a shaft needs 20 s for a turn. The noise itself is not specified by the
/// vendor: unverified on hardware.
const STANDSTILL: RevolutionsPerSecond = RevolutionsPerSecond(0.05);

/// An f32 in rev/s has no coarsest step of its own.
const RESOLUTION: RevolutionsPerSecond = RevolutionsPerSecond::ZERO;

/// Three readings are 30 ms at the default `encoder_rate_ms` of 10: a reversal through zero does not
/// stay below the threshold that long, and one stray reading proves nothing.
const SAMPLES: u8 = 3;

/// Bits added to [`Fault`] for the flags of a 0.5 heartbeat, which is all it tells of errors outside the
/// axis register. The register itself ends at bit 19 (unverified: `UNKNOWN_POSITION` is the highest known).
pub mod flag {
    /// The motor reports an error.
    pub const MOTOR: u32 = 1 << 29;
    /// The encoder reports an error.
    pub const ENCODER: u32 = 1 << 30;
    /// The controller reports an error.
    pub const CONTROLLER: u32 = 1 << 31;
}

/// Which CANSimple the drive speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Firmware {
    /// 0.5.x.
    V05,
    /// 0.6.x.
    V06,
}

/// What differs between two ODrive axes.
#[derive(Clone, Copy, Debug)]
struct Model {
    node: u8,
    firmware: Firmware,
    extended: bool,
}

impl Model {
    fn id(&self, command: u8) -> ArbitrationId {
        let id = u16::from(self.node) << 5 | u16::from(command);
        if self.extended { ArbitrationId::extended(u32::from(id)) } else { ArbitrationId::standard(id) }
    }

    /// The command number of a frame addressed to, or sent by, this axis.
    fn command_of(&self, frame: &Frame) -> Option<u8> {
        let id = match (self.extended, frame.id()) {
            (false, ArbitrationId::Standard(id)) => u32::from(id),
            (true, ArbitrationId::Extended(id)) => id,
            _ => return None,
        };
        let command = id.checked_sub(u32::from(self.node) << 5)?;
        u8::try_from(command).ok().filter(|command| *command < command::COUNT)
    }

    fn frame(&self, command: u8, payload: &[u8]) -> Frame {
        Frame::classic(self.id(command), payload)
    }

    fn axis_state(&self, state: u8) -> Frame {
        self.frame(command::SET_AXIS_STATE, &[state, 0, 0, 0, 0, 0, 0, 0])
    }

    fn input_vel(&self, velocity: RevolutionsPerSecond) -> Frame {
        let [a, b, c, d] = velocity.0.to_le_bytes();
        self.frame(command::SET_INPUT_VEL, &[a, b, c, d, 0, 0, 0, 0])
    }

    /// Firmware 0.6 takes one byte (`Identify` = 0), 0.5 none (DBC).
    fn clear_errors(&self) -> Frame {
        let payload: &[u8] = match self.firmware {
            Firmware::V05 => &[],
            Firmware::V06 => &[0],
        };
        self.frame(command::CLEAR_ERRORS, payload)
    }

    /// u32 axis error and u8 axis state are common; in 0.5 bit 0 of the bytes 5, 6, 7 are the flags of
    /// motor, encoder and controller (can_simple, `send_heartbeat`), in 0.6 they are no errors (DBC).
    fn heartbeat(&self, payload: [u8; 8]) -> Observation {
        let [e0, e1, e2, e3, state, motor, encoder, controller] = payload;
        let axis_error = u32::from_le_bytes([e0, e1, e2, e3]);
        let flags = match self.firmware {
            Firmware::V06 => 0,
            Firmware::V05 => [(motor, flag::MOTOR), (encoder, flag::ENCODER), (controller, flag::CONTROLLER)]
                .iter()
                .filter(|(byte, _)| byte & 1 != 0)
                .fold(0, |all, (_, bit)| all | bit),
        };
        let fault = axis_error | flags;
        let power = match state {
            IDLE if fault != 0 => Power::Fault,
            IDLE => Power::Off,
            CLOSED_LOOP => Power::On,
            _ => Power::Transition,
        };
        Observation {
            power: Some(power),
            state: Some(u16::from(state)),
            fault: Some((fault != 0).then_some(Fault(fault))),
            ..Observation::default()
        }
    }
}

impl Protocol for Model {
    /// The velocity setpoint; the torque feed-forward stays 0.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        FrameList::new(&[self.input_vel(velocity)])
    }

    /// Heartbeat and encoder estimates, both exactly eight bytes.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic {
            return None;
        }
        let payload = <[u8; 8]>::try_from(frame.payload()).ok()?;
        match self.command_of(frame)? {
            command::HEARTBEAT => Some(self.heartbeat(payload)),
            command::ENCODER_ESTIMATES => encoder_estimates(payload),
            _ => None,
        }
    }

    /// The bits this family's stops and watchdogs set, and the flags of a 0.5 heartbeat; the rest as a number
    /// (odrive 0.6.11, `enums.py`).
    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        let names: &[(u32, &str)] = match self.firmware {
            Firmware::V05 => &[
                (0x4000, "estop requested"),
                (0x0800, "watchdog expired"),
                (flag::MOTOR, "motor error"),
                (flag::ENCODER, "encoder error"),
                (flag::CONTROLLER, "controller error"),
            ],
            Firmware::V06 => &[(0x0200_0000, "estop requested"), (0x0100_0000, "watchdog expired")],
        };
        name_bits(fault.0, names, out)
    }

    /// Whether an axis could take a frame with this identifier for its own. Any standard one belongs to some
    /// node number; 63, what a new board comes with, has the last of them, where 0x1F may update the firmware
    /// (unverified). Of the extended ones only those an axis can be set to: the node number behind the others is
    /// greater than any (can_simple, `handle_can_message`: both the number and the form are compared).
    fn may_hear(&self, id: ArbitrationId) -> bool {
        match id {
            ArbitrationId::Standard(_) => !self.extended,
            ArbitrationId::Extended(id) => self.extended && id <= 0x7FF,
        }
    }

    fn has_clear_frame(&self) -> bool {
        true
    }

    /// The speed without a feed-forward of torque, and the set-points of the other modes.
    fn told(&self, frame: &Frame) -> Told {
        match (self.command_of(frame), frame.payload()) {
            (Some(command::SET_INPUT_VEL), &[a, b, c, d, ..]) => {
                let speed = f32::from_le_bytes([a, b, c, d]);
                let pushes = !is_zero(frame.payload(), 4);
                // A torque alone would turn the shaft, too.
                let demand = if speed == 0.0 && pushes {
                    Demand::Other
                } else {
                    Demand::Speed(RevolutionsPerSecond(speed))
                };
                Told::SetPoint(demand)
            }
            (Some(command::SET_INPUT_POS | command::SET_INPUT_VEL | command::SET_INPUT_TORQUE), _) => {
                Told::SetPoint(Demand::Other)
            }
            (Some(command::CLEAR_ERRORS), _) => Told::Clear,
            (Some(command::SET_AXIS_STATE | command::SET_CONTROLLER_MODE), _) => Told::AsListed,
            (Some(_), _) => Told::Other,
            (None, _) => Told::AsListed,
        }
    }

    /// Every frame that is addressed to the axis does, an empty or remote one too (can_simple, `do_command`).
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// Whether the frame would energise or move this axis.
    ///
    /// A remote request for a *set* command is taken for that command: the firmware does not look at the
    /// remote flag there and reads a payload that nobody sent (can_simple, `do_command`).
    fn is_motion(&self, frame: &Frame) -> bool {
        let Some(command) = self.command_of(frame) else { return false };
        if command::HARMLESS.contains(&command) {
            return false;
        }
        if command == command::RX_SDO && self.firmware == Firmware::V05 {
            return false;
        }
        if frame.format() != Format::Classic {
            return true;
        }
        let payload = frame.payload();
        match command {
            command::SET_AXIS_STATE => word(payload, 0) != Some(u32::from(IDLE)),
            // In closed loop any other mode than this one may set the shaft moving: position mode
            // drives to an old setpoint, torque mode lets go of a held load.
            command::SET_CONTROLLER_MODE => payload != VELOCITY_PASSTHROUGH,
            // The feed-forward torque behind the velocity turns the shaft, too.
            command::SET_INPUT_VEL => !(is_zero(payload, 0) && is_zero(payload, 4)),
            command::SET_INPUT_TORQUE => !is_zero(payload, 0),
            // Opcode 0 reads, 1 writes (DBC 0.6.10).
            command::RX_SDO => payload.first() != Some(&0),
            _ => true,
        }
    }
}

/// The little-endian word at `at`, if the payload reaches that far.
fn word(payload: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(payload.get(at..at + 4)?.try_into().ok()?))
}

/// Whether the float at `at` is there and is 0 or -0.
fn is_zero(payload: &[u8], at: usize) -> bool {
    word(payload, at).is_some_and(|bits| f32::from_bits(bits) == 0.0)
}

/// f32 position in revolutions, f32 speed in revolutions per second (can_simple; DBC). What is not a
/// finite number is not a reading.
fn encoder_estimates(payload: [u8; 8]) -> Option<Observation> {
    let [p0, p1, p2, p3, v0, v1, v2, v3] = payload;
    let position = Some(f32::from_le_bytes([p0, p1, p2, p3])).filter(|value| value.is_finite());
    let velocity = Some(f32::from_le_bytes([v0, v1, v2, v3])).filter(|value| value.is_finite());
    if position.is_none() && velocity.is_none() {
        return None;
    }
    Some(Observation {
        velocity: velocity.map(RevolutionsPerSecond),
        position: position.map(|value| Revolutions(f64::from(value))),
        ..Observation::default()
    })
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let node = settings.small("node", 0..=63, None)?;
    let firmware = match settings.choice("firmware", &["0.5", "0.6"], None)? {
        "0.5" => Firmware::V05,
        _ => Firmware::V06,
    };
    let extended = settings.choice("id_format", &["standard", "extended"], Some("standard"))? == "extended";
    let model = Model { node, firmware, extended };
    let still = common.standstill_or(STANDSTILL, RESOLUTION)?;
    let commands = (0..command::COUNT)
        .filter(|command| !command::HARMLESS.contains(command))
        .filter(|command| !(*command == command::RX_SDO && firmware == Firmware::V05))
        .map(|command| model.id(command))
        .collect();
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common),
        enable: enable(&model),
        setpoint: Setpoint::Velocity,
        poll: FrameList::EMPTY,
        poll_when: PollWhen::Always,
        broadcast: None,
        heartbeat: None,
        // The low five bits are the command: a frame of another drive on any of the 32 ids is one.
        owns: (0..command::COUNT).map(|command| model.id(command)).collect(),
        shares: Vec::new(),
        slot: None,
        reports: vec![model.id(command::HEARTBEAT), model.id(command::ENCODER_ESTIMATES)],
        commands,
        watchdog: Watchdog {
            set: WatchdogSet::ByHand,
            // Every question feeds it (can_simple), and the endpoints that could be asked differ from release to
            // release.
            ask: FrameList::EMPTY,
            advice:
                "in odrivetool: axis0.config.enable_watchdog = True and axis0.config.watchdog_timeout = 0.2 \
                     (seconds; several times [front] refresh), then save_configuration(). It takes the torque away when \
                     nobody commands the axis, with after_stop = \"hold\" too: what must not fall needs a brake"
                    .to_owned(),
        },
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// Three stages. None of their frames energises an idle axis.
fn stop(model: &Model, still: RevolutionsPerSecond, common: &Common) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    let idle = model.axis_state(IDLE);
    StopProgramme::new(
        &[
            // The mode first: in position mode a velocity of 0 is only a feed-forward to a movement
            // that goes on (can_simple, `set_input_vel_callback`).
            Stage {
                kind: StageKind::Controlled,
                frames: FrameList::new(&[
                    model.frame(command::SET_CONTROLLER_MODE, &VELOCITY_PASSTHROUGH),
                    model.input_vel(RevolutionsPerSecond::ZERO),
                ]),
                // The axis stays in closed loop and holds; standing still is all it can show.
                proof: proof(PowerProof::Any),
            },
            // IDLE coasts: there is no brake behind it.
            Stage {
                kind: StageKind::TorqueOff,
                frames: FrameList::new(&[idle]),
                proof: proof(PowerProof::Off),
            },
            // Estop disarms and leaves an error that only Clear_Errors takes away. It only sets the
            // error, which the control loop acts on (can_simple, `estop_callback`), hence IDLE too. It
            // has no payload; the 0.5.6 DBC does not list it, but the firmware handles it.
            Stage {
                kind: StageKind::Latch,
                frames: FrameList::new(&[model.frame(command::ESTOP, &[]), idle]),
                proof: proof(PowerProof::Off),
            },
        ],
        common.after,
    )
}

/// One step, its frames independent of each other but for the order: the setpoint is 0 before the axis
/// follows it.
fn enable(model: &Model) -> EnableProgramme {
    EnableProgramme::new(&[EnableStep {
        frames: FrameList::new(&[
            model.clear_errors(),
            model.frame(command::SET_CONTROLLER_MODE, &VELOCITY_PASSTHROUGH),
            model.input_vel(RevolutionsPerSecond::ZERO),
            model.axis_state(CLOSED_LOOP),
        ]),
        until: Some(Until::Power(Power::On)),
    }])
}
