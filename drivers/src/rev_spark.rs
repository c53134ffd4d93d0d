//! REV SPARK MAX and SPARK Flex, firmware 25 and later, over CAN: 29-bit identifiers of the FRC scheme, device
//! type << 24 | manufacturer << 16 | API number << 6 | device number, little-endian payloads.
//!
//! Sources, as cited below:
//! * *frames*: REVrobotics/REV-Specs, `spark-frames-2.0.0-dev.11`; `SparkParameters-v0.1.2`;
//! * *FRC*: wpilibsuite/frc-docs, `can-addressing.rst`;
//! * *layouts*: the bit positions of STATUS_1 and the numbers of commands besides the setpoints were read in
//!   third-party copies of *frames* 2.1.0 only: unverified.
//!
//! **Who may run is said by a heartbeat.** A SPARK follows setpoints only while the secondary heartbeat has its bit
//! set, and acts as disabled 100 ms after the last one (FRC says so of the universal heartbeat; of the secondary
//! one: unverified). The supervisor sends it, with the bits of the motors that may run; a heartbeat without any is
//! what it sends when none may. That frame is addressed to *all* SPARKs of the bus, so it is in no stage: a stage
//! of one motor would switch the motors of other sessions off. The supervisor clears the motor's own bit when its
//! stop reaches the torque-off stage; the duty cycle of 0 in that stage takes the torque away even while the
//! bit is still believed.
//!
//! **No broadcast stop.** The FRC *disable* (00000000, no payload) stops every device of the bus, those of other
//! manufacturers and other sessions too, and takes torque away, where the first stage of this family brakes.
//!
//! **A SPARK that has ever heard the universal heartbeat** (01011840, a roboRIO) obeys that one alone until its next
//! power-up: bits cleared here no longer disable it (frames: `PRIMARY_HEARTBEAT_LOCK`). It is told as a fault,
//! [`flag::PRIMARY_HEARTBEAT`]; the stop's own frames still work.
//!
//! **What the feedback cannot tell.** There is no word "disabled"; the proof is an applied output of exactly 0
//! (STATUS_0) beside the speed (STATUS_2). STATUS_2 is off by default: the supervisor switches it on while it stops
//! the drive, and the enable programme does. A SPARK that follows another one (follower mode) obeys frames of that
//! other one and is not stopped by its own: use no followers.
//!
//! **It cannot hold.** At a velocity of 0 a SPARK pushes as its gains say, and from the factory they are all 0
//! (`SparkParameters`): whether it holds a load is not told by any frame. The idle mode *brake* (parameter 6) shorts
//! the windings, which slows a falling arm down and does not hold it.
//!
//! **State numbers**: 2 when STATUS_2 arrived.

use alloc::borrow::ToOwned as _;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::drive::{Drive, Heartbeat, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Output, name_bits};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::{Revolutions, RevolutionsPerSecond};
use crate::watchdog::{Feeds, Watchdog, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "rev-spark",
    about: "REV SPARK MAX and SPARK Flex, firmware 25 or later",
    keys: &[
        Key {
            name: "device",
            about: "CAN id of the SPARK, 1 to 62. Required. 0 is what an unconfigured one has; 63 addresses all devices of a kind (unverified).",
        },
        Key {
            name: "pid_slot",
            about: "Which of its gains keep the speed, 0 to 3. Default: 0. From the factory all of them are 0, and it does not turn.",
        },
        Key {
            name: "velocity_units_per_rpm",
            about: "The SPARK's own velocity conversion factor (parameter 113), in which it takes and reports speeds, 0.000001 to 1000000. Default: 1.",
        },
        Key {
            name: "position_units_per_rev",
            about: "The SPARK's own position conversion factor (parameter 112), 0.000001 to 1000000. Default: 1.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "applied output 0 (STATUS_0, 10 ms) and speed (STATUS_2, 20 ms)",
        vectors: "layouts of REV-Specs spark-frames-2.0.0-dev.11",
        unverified: &[
            "100 ms window of the secondary heartbeat",
            "bit positions of STATUS_1",
            "command numbers besides the setpoints",
            "noise of the velocity at rest",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("device", Value::Integer(1));
    settings
}

/// Device type *motor controller* and manufacturer REV (FRC).
const SPARK: u32 = 0x0205_0000;

/// Bits by which the secondary heartbeat says who may run (frames: `SECONDARY_HEARTBEAT`).
const SECONDARY_HEARTBEAT: ArbitrationId = ArbitrationId::Extended(0x0205_2C80);
/// What a roboRIO sends (FRC).
const UNIVERSAL_HEARTBEAT: ArbitrationId = ArbitrationId::Extended(0x0101_1840);
/// The bit of it that lets devices run: *system watchdog* (FRC, bit 28 of the packed struct).
const SYSTEM_WATCHDOG: (usize, u8) = (3, 0x10);
/// *Disable* for every device of the bus (FRC).
const DISABLE: ArbitrationId = ArbitrationId::Extended(0);

/// How long a SPARK waits for the next heartbeat (FRC).
const WINDOW: Duration = Duration::from_millis(100);

/// API numbers: class << 4 | index (frames).
mod api {
    pub const VELOCITY: u16 = 0x000;
    pub const DUTY_CYCLE: u16 = 0x002;
    pub const SET_STATUSES_ENABLED: u16 = 0x010;
    pub const CLEAR_FAULTS: u16 = 0x06E;
    pub const STATUS_0: u16 = 0x2E0;
    pub const STATUS_1: u16 = 0x2E1;
    pub const STATUS_2: u16 = 0x2E2;

    /// How many there are: the field has ten bits.
    pub const COUNT: u16 = 0x400;

    /// Neither energise nor move anything: status frames and which of them are sent, answers, faults, blinking,
    /// and reading of versions and parameters (layouts). Whatever else there is counts as motion: setpoints, and
    /// what changes the gains, the sense of rotation, the leader, the device number or the firmware.
    pub const fn is_harmless(api: u16) -> bool {
        matches!(
            api,
            SET_STATUSES_ENABLED
                | 0x011
                | 0x014
                | 0x016
                | 0x018
                | 0x060..=0x066
                | CLEAR_FAULTS
                | 0x076
                | 0x077
                | 0x080
                | 0x081
                | 0x093
                | 0x098
                | 0x0C0
                | 0x0C5
                | 0x0D0..=0x0DF
                | 0x0E1
                | 0x0F0..=0x16F
                | 0x2C0
                | 0x2E0..=0x2E9
                | 0x2F0
        )
    }
}

/// STATUS_0 to STATUS_2 by their numbers: what is asked for and that it is to be on.
const STATUSES: [u8; 4] = [0b111, 0, 0b111, 0];

/// The number of STATUS_2 as a state.
const SPEED_REPORTED: u16 = 2;

/// Default for "stands still", in revolutions per second. A NEO has 42 counts a turn; one of them within the
/// window of its default filter (0.03125 s, mean of 3: `SparkParameters`) is 0.25 rev/s, the least a SPARK
/// reports of such a motor. Its noise at rest is unverified.
const STANDSTILL: RevolutionsPerSecond = RevolutionsPerSecond(0.3);

/// An f32 has no coarsest step of its own; the sensor's is not told.
const RESOLUTION: RevolutionsPerSecond = RevolutionsPerSecond::ZERO;

/// Five readings are 100 ms at the default 20 ms: as long as the default filter looks back, so that a reading of 0
/// between two counts proves nothing by itself.
const SAMPLES: u8 = 5;

/// Bits added to [`Fault`], whose lowest eight are the active faults of STATUS_1.
pub mod flag {
    /// The SPARK obeys a roboRIO's heartbeat and no longer the supervisor's.
    pub const PRIMARY_HEARTBEAT: u32 = 1 << 31;
}

/// Bit 53 of STATUS_0 (frames).
const PRIMARY_HEARTBEAT_LOCK: u8 = 0x20;

/// What differs between two SPARKs.
#[derive(Clone, Copy, Debug)]
struct Model {
    device: u8,
    pid_slot: u8,
    units_per_rpm: f64,
    units_per_rev: f64,
}

impl Model {
    fn id(&self, api: u16) -> ArbitrationId {
        ArbitrationId::extended(SPARK | u32::from(api) << 6 | u32::from(self.device))
    }

    /// The API number of a frame addressed to, or sent by, this SPARK.
    fn api_of(&self, frame: &Frame) -> Option<u16> {
        let ArbitrationId::Extended(id) = frame.id() else { return None };
        let own = id & !0xFFC0 == SPARK | u32::from(self.device);
        own.then_some((id >> 6 & 0x3FF) as u16)
    }

    /// The byte and the bit that stand for this SPARK in the secondary heartbeat.
    const fn mark(&self) -> (usize, u8) {
        (self.device as usize / 8, 1 << (self.device % 8))
    }

    /// f32 setpoint, i16 feed-forward, two bits PID slot, one bit unit of the feed-forward (frames).
    fn setpoint(&self, api: u16, value: f32) -> Frame {
        let [a, b, c, d] = value.to_le_bytes();
        Frame::classic(self.id(api), &[a, b, c, d, 0, 0, self.pid_slot, 0])
    }

    fn velocity_setpoint(&self, velocity: RevolutionsPerSecond) -> Frame {
        #[expect(clippy::cast_possible_truncation, reason = "f32 is what the drive takes")]
        let units = (velocity.rpm() * self.units_per_rpm) as f32;
        self.setpoint(api::VELOCITY, units)
    }

    fn enable_statuses(&self) -> Frame {
        Frame::classic(self.id(api::SET_STATUSES_ENABLED), &STATUSES)
    }

    /// f32 velocity, f32 position. What is not a finite number is not a reading.
    fn encoder(&self, payload: [u8; 8]) -> Option<Observation> {
        let [v0, v1, v2, v3, p0, p1, p2, p3] = payload;
        let velocity = f64::from(f32::from_le_bytes([v0, v1, v2, v3])) / self.units_per_rpm;
        let position = f64::from(f32::from_le_bytes([p0, p1, p2, p3])) / self.units_per_rev;
        velocity.is_finite().then(|| Observation {
            velocity: Some(RevolutionsPerSecond::from_rpm(velocity)),
            position: position.is_finite().then_some(Revolutions(position)),
            state: Some(SPEED_REPORTED),
            ..Observation::default()
        })
    }
}

/// i16 applied output first; bit 53 is the lock. The output is what the SPARK applies, not what it measures, so it is
/// exactly 0 while it is disabled.
fn output(payload: [u8; 8]) -> Observation {
    let [o0, o1, _, _, _, _, flags, _] = payload;
    let locked = flags & PRIMARY_HEARTBEAT_LOCK != 0;
    Observation {
        output: Some(if [o0, o1] == [0, 0] { Output::Zero } else { Output::Driving }),
        fault: locked.then_some(Some(Fault(flag::PRIMARY_HEARTBEAT))),
        ..Observation::default()
    }
}

impl Protocol for Model {
    /// The velocity setpoint, without feed-forward.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        FrameList::new(&[self.velocity_setpoint(velocity)])
    }

    /// The first three status frames, all of eight bytes.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic {
            return None;
        }
        let payload = <[u8; 8]>::try_from(frame.payload()).ok()?;
        match self.api_of(frame)? {
            api::STATUS_0 => Some(output(payload)),
            api::STATUS_1 => {
                let active = u32::from(payload[0]);
                let fault = (active != 0).then_some(Fault(active));
                Some(Observation { fault: Some(fault), ..Observation::default() })
            }
            api::STATUS_2 => self.encoder(payload),
            _ => None,
        }
    }

    fn has_clear_frame(&self) -> bool {
        true
    }

    /// Set-points; the speed without a feed-forward. Whatever is neither that nor a cleared fault is a setting, and shows
    /// nothing of whether somebody drives.
    fn told(&self, frame: &Frame) -> Told {
        match (self.api_of(frame), frame.payload()) {
            (Some(api::VELOCITY), &[a, b, c, d, 0, 0, ..]) => {
                let rpm = f64::from(f32::from_le_bytes([a, b, c, d])) / self.units_per_rpm;
                Told::SetPoint(Demand::Speed(RevolutionsPerSecond::from_rpm(rpm)))
            }
            (Some(..api::SET_STATUSES_ENABLED), _) => Told::SetPoint(Demand::Other),
            (Some(api::CLEAR_FAULTS), _) => Told::Clear,
            (Some(_), _) => Told::Other,
            (None, _) => Told::AsListed,
        }
    }

    /// The heartbeats alone do; a set-point is followed only while they come (FRC; frames).
    fn feeds_watchdog(&self, frame: &Frame) -> Feeds {
        if [SECONDARY_HEARTBEAT, UNIVERSAL_HEARTBEAT].contains(&frame.id()) { Feeds::Yes } else { Feeds::No }
    }

    /// Whether the frame would energise or move this SPARK: a setpoint, an unknown command, or a heartbeat that
    /// lets it run.
    fn is_motion(&self, frame: &Frame) -> bool {
        let allows = |byte: usize, bits: u8| match (frame.format(), <[u8; 8]>::try_from(frame.payload())) {
            (Format::Classic, Ok(payload)) => payload[byte] & bits != 0,
            _ => true,
        };
        if frame.id() == SECONDARY_HEARTBEAT {
            let (byte, bit) = self.mark();
            return allows(byte, bit);
        }
        if frame.id() == UNIVERSAL_HEARTBEAT {
            return allows(SYSTEM_WATCHDOG.0, SYSTEM_WATCHDOG.1);
        }
        match self.api_of(frame) {
            None => false,
            Some(api) if api::is_harmless(api) => false,
            Some(api::VELOCITY | api::DUTY_CYCLE) => !is_zero_setpoint(frame),
            Some(_) => true,
        }
    }

    /// A SPARK hears all of REV's motor controller identifiers and the broadcasts of FRC, whose device type is 0 or,
    /// for the universal heartbeat, 1.
    fn may_hear(&self, id: ArbitrationId) -> bool {
        match id {
            ArbitrationId::Standard(_) => false,
            ArbitrationId::Extended(id) => {
                id & 0xFFFF_0000 == SPARK
                    || id >> 24 == 0
                    || ArbitrationId::Extended(id) == UNIVERSAL_HEARTBEAT
            }
        }
    }

    /// Names of the bits of STATUS_1 (layouts).
    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        name_bits(
            fault.0,
            &[
                (0x01, "other"),
                (0x02, "motor type"),
                (0x04, "sensor"),
                (0x08, "CAN"),
                (0x10, "temperature"),
                (0x20, "gate driver"),
                (0x40, "EEPROM of the controller"),
                (0x80, "firmware"),
                (flag::PRIMARY_HEARTBEAT, "locked to a roboRIO's heartbeat, power-cycle it without one"),
            ],
            out,
        )
    }
}

/// Whether a setpoint is 0 or -0, without feed-forward, and of the form that is known.
fn is_zero_setpoint(frame: &Frame) -> bool {
    const SLOT_AND_UNIT: u8 = 0b111;
    match (frame.format(), <[u8; 8]>::try_from(frame.payload())) {
        (Format::Classic, Ok([a, b, c, d, 0, 0, options, 0])) => {
            f32::from_le_bytes([a, b, c, d]) == 0.0 && options & !SLOT_AND_UNIT == 0
        }
        _ => false,
    }
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    // From a factor so small that no shaft has it to one so large that no f32 of it overflows.
    let factor = |key| settings.number(key, 1e-6..=1e6, Some(1.0));
    let model = Model {
        device: settings.small("device", 1..=62, None)?,
        pid_slot: settings.small("pid_slot", 0..=3, Some(0))?,
        units_per_rpm: factor("velocity_units_per_rpm")?,
        units_per_rev: factor("position_units_per_rev")?,
    };
    if common.after == AfterStop::Hold {
        return Err(SettingsError::new(
            "after_stop",
            "cannot hold: what a SPARK does at standstill depends on gains that no frame tells; use release, and a \
             brake on the axis if it can fall",
        ));
    }
    let still = common.standstill_or(STANDSTILL, RESOLUTION)?;
    let mut commands: Vec<_> =
        (0..api::COUNT).filter(|api| !api::is_harmless(*api)).map(|api| model.id(api)).collect();
    commands.extend([SECONDARY_HEARTBEAT, UNIVERSAL_HEARTBEAT]);
    let (byte, bit) = model.mark();
    let mut mark = [0; 8];
    mark[byte] = bit;
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: enable(&model),
        setpoint: Setpoint::Velocity,
        // Without STATUS_2 nothing is ever proven, and it is off after each power-up. A SPARK that is heard needs
        // no reminder, hence only while it is being stopped.
        poll: FrameList::new(&[model.enable_statuses()]),
        poll_when: PollWhen::WhenSilent,
        broadcast: None,
        heartbeat: Some(Heartbeat { frame: Frame::classic(SECONDARY_HEARTBEAT, &[0; 8]), mark, window: WINDOW }),
        owns: (0..api::COUNT).map(|api| model.id(api)).collect(),
        shares: vec![SECONDARY_HEARTBEAT, UNIVERSAL_HEARTBEAT, DISABLE],
        slot: None,
        reports: [api::STATUS_0, api::STATUS_1, api::STATUS_2].map(|api| model.id(api)).to_vec(),
        commands,
        watchdog: Watchdog {
            set: WatchdogSet::ByLanyard(WINDOW),
            ask: FrameList::EMPTY,
            advice: "nothing to set: a SPARK stops by itself 100 ms after the last heartbeat of the supervisor; keep \
                     roboRIO heartbeats (01011840) off this bus, after the first of them it obeys only those"
                .to_owned(),
        },
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// Two stages. A disabled SPARK does not react to either.
fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    StopProgramme::new(
        &[
            // A setpoint sets the control type as well (frames), so this also ends a movement to a position.
            Stage {
                kind: StageKind::Controlled,
                frames: FrameList::new(&[model.velocity_setpoint(RevolutionsPerSecond::ZERO)]),
                proof: proof(PowerProof::Any),
            },
            // Brakes or coasts as the idle mode says (parameter 6, default coast).
            Stage {
                kind: StageKind::TorqueOff,
                frames: FrameList::new(&[model.setpoint(api::DUTY_CYCLE, 0.0)]),
                proof: proof(PowerProof::NoOutput),
            },
        ],
        after,
    )
}

/// Feedback first; the setpoint is 0 before the supervisor's heartbeat lets the SPARK run.
fn enable(model: &Model) -> EnableProgramme {
    EnableProgramme::new(&[
        EnableStep {
            frames: FrameList::new(&[
                model.velocity_setpoint(RevolutionsPerSecond::ZERO),
                model.enable_statuses(),
            ]),
            until: Some(Until::State(SPEED_REPORTED)),
        },
        EnableStep {
            frames: FrameList::new(&[
                Frame::classic(model.id(api::CLEAR_FAULTS), &[]),
                model.velocity_setpoint(RevolutionsPerSecond::ZERO),
            ]),
            until: None,
        },
    ])
}
