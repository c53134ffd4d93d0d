//! AgileX mobile bases (Scout, Hunter, Bunker, Ranger, Tracer) over protocol v2: the base is one motor.
//!
//! Sources, as cited below:
//! * *sdk*: agilexrobotics/ugv_sdk fd728d4, `agilex_protocol_v2.h`, `agilex_msg_parser_v2.c`,
//!   `agilex_types.h`;
//! * *manual*: AgileX Scout 2.0 and Scout Mini user manuals, table of the motion command (receive timeout 500
//!   ms).
//!
//! **What is controlled is the chassis**, not its wheels: one "motor" whose shaft turns once while the base
//! goes `wheel_circumference_mm`. Only driving straight can be commanded. Turning on the spot, steering and
//! going sideways are seen, though: the speed that must vanish is the greatest of the forward speed, the
//! sideways speed, and what the sides of the base do when it turns.
//!
//! **What the feedback cannot tell.** The control mode says whose commands the base follows. What is sent
//! here as STANDBY is 0; newer releases of the sdk call the same number *remote control*. So "off" means that
//! the base no longer follows this computer; that its motors are without torque then is unverified, and
//! whoever holds the remote control may drive it, which has precedence over everything on the bus (manual). A
//! pressed emergency stop is reported as ESTOP (sdk), by some bases as an exception without an error code
//! (one owner's measurement of a Ranger): both count as not following, and prove no lack of torque.
//!
//! **Error codes are no faults by themselves**: one of them says that no remote control is switched on.
//!
//! **Own watchdog.** The base stops 500 ms after the last motion command (manual, of protocol v1; unverified
//! for v2). It cannot be set. Motion commands feed it, with zeros, too; nothing is polled.

use alloc::borrow::ToOwned as _;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Power, name_bits};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::math::round;
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::RevolutionsPerSecond;
use crate::watchdog::{Feeds, Watchdog, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "agilex",
    about: "AgileX mobile bases over protocol v2, as a whole",
    keys: &[
        Key {
            name: "wheel_circumference_mm",
            about: "How far the base goes in one turn of the shaft, 10 to 10000 mm. Required: all speeds \
                are turns of the shaft.",
        },
        Key {
            name: "track_width_mm",
            about: "From the left to the right wheels, 10 to 10000 mm. Required: without it turning on the \
                spot would look like standing still.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "motion state (20 ms), control mode of the system state",
        vectors: "built from the layout in agilexrobotics/ugv_sdk fd728d4",
        unverified: &[
            "that control mode 0 leaves no torque; newer releases of the sdk call it remote control",
            "that every base has the brake of 0x131, and takes it with 8 bytes",
            "the base's own timeout of 500 ms",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("wheel_circumference_mm", Value::Integer(510));
    settings.insert("track_width_mm", Value::Integer(583));
    settings
}

/// Identifiers (sdk, `agilex_protocol_v2.h`).
mod id {
    use crate::frame::ArbitrationId;

    pub const MOTION_COMMAND: ArbitrationId = ArbitrationId::Standard(0x111);
    pub const BRAKE: ArbitrationId = ArbitrationId::Standard(0x131);
    /// Which of its ways to move a base with steered wheels uses.
    pub const MOTION_MODE: ArbitrationId = ArbitrationId::Standard(0x141);
    pub const SYSTEM_STATE: ArbitrationId = ArbitrationId::Standard(0x211);
    pub const MOTION_STATE: ArbitrationId = ArbitrationId::Standard(0x221);
    pub const CONTROL_MODE: ArbitrationId = ArbitrationId::Standard(0x421);
    /// Takes the present angle of the steering for straight ahead.
    pub const STEER_NEUTRAL: ArbitrationId = ArbitrationId::Standard(0x431);
    /// Takes errors away, after which the base may follow again.
    pub const STATE_RESET: ArbitrationId = ArbitrationId::Standard(0x441);

    /// Everything else the protocol names: lights, remote control, single wheels, sensors, batteries,
    /// versions.
    pub const OTHERS: &[core::ops::RangeInclusive<u16>] = &[
        0x121..=0x123,
        0x13A..=0x13A,
        0x231..=0x233,
        0x241..=0x241,
        0x251..=0x258,
        0x261..=0x268,
        0x271..=0x271,
        0x281..=0x281,
        0x291..=0x291,
        0x311..=0x311,
        0x321..=0x323,
        0x331..=0x331,
        0x341..=0x348,
        0x351..=0x354,
        0x361..=0x362,
        0x411..=0x411,
        0x41A..=0x41A,
        0x43A..=0x43A,
        0x4A1..=0x4A1,
    ];
}

/// Control modes (sdk, `agilex_types.h`): 0 standby or remote control, 1 CAN, 2 serial port.
const STANDBY: u8 = 0;
const CAN: u8 = 1;

/// Vehicle states (sdk, `agilex_types.h`); 2 is an exception.
const NORMAL: u8 = 0;
const ESTOP: u8 = 1;

/// The brake (sdk, `AgxBrakeMode`).
const LOCK: u8 = 1;
const UNLOCK: u8 = 0;

/// Bits added to [`Fault`] for the vehicle state; the base's own code has 16.
pub mod flag {
    /// An emergency stop is pressed.
    pub const ESTOP: u32 = 1 << 16;
    /// The base reports an exception.
    pub const EXCEPTION: u32 = 1 << 17;
}

/// Default for "stands still", millimetres per second: ten steps of the feedback; at this speed a base needs
/// 100 s for a metre. The noise of the feedback at rest is unverified.
const STANDSTILL_MM_PER_SEC: f64 = 10.0;

/// Five readings are 100 ms at the 20 ms of the motion state: longer than a base needs to turn round at zero.
const SAMPLES: u8 = 5;

/// A base and its measures.
#[derive(Clone, Copy, Debug)]
struct Model {
    /// Millimetres per revolution.
    circumference: f64,
    /// Millimetres that a side goes, per radian.
    half_track: f64,
}

impl Model {
    fn shaft(&self, mm_per_sec: f64) -> RevolutionsPerSecond {
        #[expect(clippy::cast_possible_truncation, reason = "f32 is far finer than a millimetre per second")]
        RevolutionsPerSecond((mm_per_sec / self.circumference) as f32)
    }

    /// Forwards, turning (mrad/s), sideways, steering angle; i16, big-endian (sdk). The steering angle is no
    /// movement.
    fn motion(&self, payload: [u8; 8]) -> Observation {
        let [f0, f1, a0, a1, s0, s1, _, _] = payload;
        let forward = f64::from(i16::from_be_bytes([f0, f1]));
        let side = f64::from(i16::from_be_bytes([a0, a1])).abs() / 1_000.0 * self.half_track;
        let sideways = f64::from(i16::from_be_bytes([s0, s1])).abs();
        let greatest = if forward.abs() >= side.max(sideways) { forward } else { side.max(sideways) };
        Observation { velocity: Some(self.shaft(greatest)), ..Observation::default() }
    }
}

/// Vehicle state, control mode, battery voltage, error code u16, motion mode, counter (sdk).
fn system_state(payload: [u8; 8]) -> Observation {
    let [vehicle, mode, _, _, e0, e1, _, _] = payload;
    let flags = match vehicle {
        NORMAL => 0,
        ESTOP => flag::ESTOP,
        // Unknown states are exceptions.
        _ => flag::EXCEPTION,
    };
    let fault = u32::from(u16::from_be_bytes([e0, e1])) | flags;
    let power = match (mode, vehicle) {
        (STANDBY, _) => Power::Off,
        (CAN, NORMAL) => Power::On,
        (CAN, _) => Power::QuickStop,
        // Somebody else commands it.
        _ => Power::Transition,
    };
    Observation {
        power: Some(power),
        state: Some(u16::from(mode)),
        fault: Some((fault != 0).then_some(Fault(fault))),
        ..Observation::default()
    }
}

/// A frame whose first byte says everything.
const fn setting(id: ArbitrationId, value: u8) -> Frame {
    Frame::classic(id, &[value, 0, 0, 0, 0, 0, 0, 0])
}

/// Forwards at this speed, neither turning nor sideways, wheels straight.
fn forwards(mm_per_sec: i16) -> Frame {
    let [high, low] = mm_per_sec.to_be_bytes();
    Frame::classic(id::MOTION_COMMAND, &[high, low, 0, 0, 0, 0, 0, 0])
}

impl Protocol for Model {
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        // `as` keeps to the bounds of its type, and makes 0 of what is not a number.
        #[expect(clippy::cast_possible_truncation, reason = "the bounds of the frame are those of the type")]
        let mm_per_sec = round(f64::from(velocity.0) * self.circumference) as i16;
        FrameList::new(&[forwards(mm_per_sec)])
    }

    /// System and motion state, both exactly eight bytes.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic {
            return None;
        }
        let payload = <[u8; 8]>::try_from(frame.payload()).ok()?;
        match frame.id() {
            id::SYSTEM_STATE => Some(system_state(payload)),
            id::MOTION_STATE => Some(self.motion(payload)),
            _ => None,
        }
    }

    fn has_clear_frame(&self) -> bool {
        true
    }

    /// Driving forwards and nothing else is a speed; an error that is taken away lets the base follow again.
    fn told(&self, frame: &Frame) -> Told {
        match (frame.id(), frame.payload()) {
            (id::MOTION_COMMAND, &[high, low, 0, 0, 0, 0, 0, 0]) => {
                let mm_per_sec = f64::from(i16::from_be_bytes([high, low]));
                Told::SetPoint(Demand::Speed(self.shaft(mm_per_sec)))
            }
            (id::MOTION_COMMAND, _) => Told::SetPoint(Demand::Other),
            (id::STATE_RESET, _) => Told::Clear,
            (id::STEER_NEUTRAL, _) => Told::Other,
            _ => Told::AsListed,
        }
    }

    /// Motion commands do (manual); whether the brake and the mode do is unverified, so they count.
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// Motion commands other than zeros, modes other than standby, letting go of the brake; and what changes
    /// how the base moves.
    fn is_motion(&self, frame: &Frame) -> bool {
        let payload = frame.payload();
        let understood = frame.format() == Format::Classic;
        match frame.id() {
            id::MOTION_COMMAND => !(understood && payload == [0; 8]),
            id::BRAKE => !(understood && payload.first() == Some(&LOCK)),
            id::CONTROL_MODE => !(understood && payload.first() == Some(&STANDBY)),
            id::MOTION_MODE | id::STEER_NEUTRAL | id::STATE_RESET => true,
            _ => false,
        }
    }

    /// Beyond what the protocol names, the firmware update of some bases.
    fn may_hear(&self, id: ArbitrationId) -> bool {
        matches!(id, ArbitrationId::Standard(0x0A1 | 0x0B0..=0x0BF | 0x100..=0x4FF))
    }

    /// The bits of the error code (sdk, `SYSTEM_ERROR_*_MASK`).
    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        let names = [
            (flag::ESTOP, "emergency stop"),
            (flag::EXCEPTION, "exception"),
            (0x0001, "battery fault"),
            (0x0002, "battery warning"),
            (0x0004, "no remote control"),
            (0x0008, "motor 1 does not communicate"),
            (0x0010, "motor 2 does not communicate"),
            (0x0020, "motor 3 does not communicate"),
            (0x0040, "motor 4 does not communicate"),
            (0x0080, "steering encoder"),
            (0x0100, "motor driver"),
            (0x0200, "communication inside the base"),
        ];
        name_bits(fault.0, &names, out)
    }
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let circumference = settings.number("wheel_circumference_mm", 10.0..=10_000.0, None)?;
    let half_track = settings.number("track_width_mm", 10.0..=10_000.0, None)? / 2.0;
    let model = Model { circumference, half_track };
    // 1 mm/s forwards; 1 mrad/s where the base is so wide that its sides go further.
    let step = f64::max(1.0, half_track / 1_000.0);
    let default = f64::max(STANDSTILL_MM_PER_SEC, step);
    let still = common.standstill_or(model.shaft(default), model.shaft(step))?;
    let commands = [
        id::MOTION_COMMAND,
        id::BRAKE,
        id::CONTROL_MODE,
        id::MOTION_MODE,
        id::STEER_NEUTRAL,
        id::STATE_RESET,
    ];
    let reports = [id::SYSTEM_STATE, id::MOTION_STATE];
    let others = id::OTHERS.iter().cloned().flatten().map(ArbitrationId::standard);
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(still, common),
        enable: enable(),
        setpoint: Setpoint::Velocity,
        poll: FrameList::EMPTY,
        poll_when: PollWhen::Always,
        broadcast: None,
        heartbeat: None,
        // The identifiers have no number of the base in them: there can be one on a bus.
        owns: commands.into_iter().chain(reports).chain(others).collect(),
        shares: Vec::new(),
        slot: None,
        reports: reports.to_vec(),
        commands: commands.to_vec(),
        watchdog: Watchdog {
            set: WatchdogSet::Missing,
            ask: FrameList::EMPTY,
            advice: "none can be set; the base is said to stop by itself 500 ms after the last command: try \
                it, by \
                     pulling the cable while it drives slowly"
                .to_owned(),
        },
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// Three stages, none of which makes an idle base move or follow.
fn stop(still: RevolutionsPerSecond, common: &Common) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    StopProgramme::new(
        &[
            Stage {
                kind: StageKind::Controlled,
                frames: FrameList::new(&[forwards(0)]),
                proof: proof(PowerProof::Any),
            },
            Stage {
                kind: StageKind::Quick,
                frames: FrameList::new(&[setting(id::BRAKE, LOCK), forwards(0)]),
                proof: proof(PowerProof::Any),
            },
            // Zeros first: a base that does not leave the mode should stand.
            Stage {
                kind: StageKind::TorqueOff,
                frames: FrameList::new(&[forwards(0), setting(id::CONTROL_MODE, STANDBY)]),
                proof: proof(PowerProof::Off),
            },
        ],
        common.after,
    )
}

/// The set-point is 0 before the base follows it, and the brake of an earlier stop is let go.
fn enable() -> EnableProgramme {
    EnableProgramme::new(&[EnableStep {
        frames: FrameList::new(&[forwards(0), setting(id::BRAKE, UNLOCK), setting(id::CONTROL_MODE, CAN)]),
        until: Some(Until::Power(Power::On)),
    }])
}
