//! Damiao DM actuators: commands on the id of the motor, feedback on an id that is set in it.
//!
//! Sources, as cited below:
//! * *openarm*: enactic/openarm_can 9866604, `dm_motor_control.cpp`;
//! * *damiao-motor*: the Python package damiao-motor 1.0.6, `core/motor.py`: a third party's reading of the
//!   vendor's documents. No vendor source is public.
//!
//! **Two modes.** `vel` (the default): the drive keeps a speed, an f32 in rad/s on id 0x200 + n. `mit`: the
//! frame of [`crate::mit`] on id n with kp = 0, so that kd alone pulls the shaft to a speed; under load it does
//! not get there, and it cannot hold a position. The enable programme writes the mode into register 10
//! `CTRL_MODE`; a drive that is in another one does not respond to the frames of this one (damiao-motor).
//!
//! **Feedback comes only in answer** to a command or to the refresh frame (0x7FF, `CC`: openarm). Its first byte
//! has the drive's own word on its power stage: upper four bits the state, lower four the low bits of the id,
//! which is why ids above 15 are refused: they could not be told apart. openarm ignores the state.
//!
//! **An answer to a register request looks like feedback** of a drive that is switched off: it comes on the same
//! id and begins with the id, whose upper bits are 0 as the state DISABLED. See [`is_register_answer`].
//!
//! **The drive's watchdog** is register 9 `TIMEOUT`, in units of 50 us (damiao-motor), which sets state
//! `LOST_COMM` and takes the torque away. It is written whenever the drive is enabled and not stored. A motor that is
//! granted and not driven, or holds, would run into it: nobody commands it. So a silent drive is asked by
//! "velocity 0", too, which ends when the supervisor does. Whether the refresh frame feeds it is unverified; a
//! drive that talks is not asked.
//!
//! **What would enable it**: `FC`, and `FB` (clear error) after `LOST_COMM` (damiao-motor). Neither is polled.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Power};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::meaning::{Demand, Told};
use crate::mit::{self, Reply, Steps, special};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::RevolutionsPerSecond;
use crate::watchdog::{Feeds, Watchdog, WatchdogReading, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "damiao",
    about: "Damiao DM actuators, velocity mode or MIT mode",
    keys: &[
        Key {
            name: "id",
            about: "ESC_ID of the drive (register 8), 1 to 15: its answers tell four bits of it. Required.",
        },
        Key {
            name: "feedback_id",
            about: "MST_ID of the drive (register 7), to which it answers, 0 to 0x7FE. Several drives may \
                    have one. Default: 0, as from the factory.",
        },
        Key {
            name: "model",
            about: "Such as \"4310\"; one of 3507, 4310, 4310P, 4340, 4340P, 6006, 8006, 8009, 10010L, \
                    10010, H3510, G6215, H6220, JH11, 6248P. Required: it fixes the ranges of speed and \
                    position, and a wrong one scales every speed.",
        },
        Key {
            name: "v_max",
            about: "VMAX of the drive (register 22), if it was changed, 1 to 1000 rad/s. Default: that of \
                    the model.",
        },
        Key {
            name: "p_max",
            about: "PMAX of the drive (register 21), if it was changed, 1 to 1000 rad. Default: that of the \
                    model.",
        },
        Key {
            name: "mode",
            about: "\"vel\" (default: the drive keeps the speed) or \"mit\" (kd alone pulls the shaft to it; \
                    cannot hold).",
        },
        Key {
            name: "kd",
            about: "Only with mode = \"mit\": damping with which speeds are followed and the controlled stop \
                    brakes, 0.05 to 5 Nm s/rad. Default: 1.",
        },
        Key {
            name: "watchdog_ms",
            about: "Written to TIMEOUT (register 9): after how long without a command the drive takes its torque \
                    away, 700 to 60000 ms; 0: not written. Default: 1500, because a motor that is granted and not \
                    driven hears from Lanyard every 0.6 s only.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "state nibble and velocity of every answer",
        vectors: "damiao-motor 1.0.6",
        unverified: &[
            "whether TIMEOUT is fed by the refresh frame",
            "answers to register writes",
            "noise of the velocity at rest",
            "whether FB energises a drive other than after LOST_COMM",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("id", Value::Integer(1));
    settings.insert("feedback_id", Value::Integer(0x11));
    settings.insert("model", Value::Text("4310".to_owned()));
    settings
}

/// Position and velocity range of each model, radians and rad/s (damiao-motor, `_MOTOR_LIMIT_PARAM`).
const MODELS: &[(&str, f64, f64)] = &[
    ("3507", 12.566, 50.0),
    ("4310", 12.5, 30.0),
    ("4310P", 12.5, 50.0),
    ("4340", 12.5, 10.0),
    ("4340P", 12.5, 10.0),
    ("6006", 12.5, 45.0),
    ("8006", 12.5, 45.0),
    ("8009", 12.5, 45.0),
    ("10010L", 12.5, 25.0),
    ("10010", 12.5, 20.0),
    ("H3510", 12.5, 280.0),
    ("G6215", 12.5, 45.0),
    ("H6220", 12.5, 45.0),
    ("JH11", 12.5, 10.0),
    ("6248P", 12.566, 20.0),
];

/// Register frames of all drives (damiao-motor; openarm).
const REGISTERS: u16 = 0x7FF;
/// What a frame on [`REGISTERS`] asks for, in its third byte.
mod request {
    pub const READ: u8 = 0x33;
    pub const WRITE: u8 = 0x55;
    pub const STORE: u8 = 0xAA;
    pub const REFRESH: u8 = 0xCC;
}
/// Register numbers (damiao-motor, `REGISTER_TABLE`).
mod register {
    pub const TIMEOUT: u8 = 9;
    pub const CTRL_MODE: u8 = 10;
    /// The highest there is.
    pub const LAST: u8 = 81;
}

/// States (damiao-motor, `_STATE_NAME_MAP`).
mod state {
    pub const DISABLED: u8 = 0x0;
    pub const ENABLED: u8 = 0x1;
    pub const FIRST_FAULT: u8 = 0x8;
    pub const LAST_FAULT: u8 = 0xE;
}

/// Units of [`register::TIMEOUT`] in a millisecond (damiao-motor, `set_can_timeout`).
const TIMEOUT_UNITS_PER_MS: u32 = 20;

/// Default time of the drive's watchdog, ms. A drive that nobody commands hears "velocity 0" from the supervisor
/// every 0.6 s at worst (every second question, each after 0.25 s of silence), and one of them may be lost.
const WATCHDOG_MS: i64 = 1_500;
/// The least: a drive that waits must not take that for silence.
const LEAST_WATCHDOG_MS: i64 = 700;
/// Default damping: that of the golden frames.
const KD: f64 = 1.0;
/// Full scale of kd (damiao-motor, `KD_MAX`).
const KD_SPAN: f64 = 5.0;

/// Default for "stands still": 0.02 rev/s is 7 degrees a second at the output, nine steps of a DM4310. Never
/// below two steps of the twelve bits: a shaft at rest reads half a step to either side of zero, and the noise
/// of the estimate is unverified.
const STANDSTILL: f32 = 0.02;

/// Three answers in a row: one stray reading proves nothing.
const SAMPLES: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Velocity,
    Mit,
}

impl Mode {
    /// What register 10 calls it.
    const fn number(self) -> u32 {
        match self {
            Self::Mit => 1,
            Self::Velocity => 3,
        }
    }
}

/// What differs between two drives.
#[derive(Clone, Copy, Debug)]
struct Model {
    id: u8,
    feedback: u16,
    /// Largest velocity of the twelve bits, rad/s.
    v_max: f64,
    /// Largest position of the sixteen bits, radians.
    p_max: f64,
    mode: Mode,
    /// On the wire.
    kd: u16,
    /// In the drive's units; 0: not written.
    timeout: u32,
}

impl Model {
    fn id(&self, base: u16) -> ArbitrationId {
        ArbitrationId::standard(base + u16::from(self.id))
    }

    /// Which of its ids takes the set-points of which mode.
    fn ids(&self) -> [ArbitrationId; 4] {
        [self.id(MIT), self.id(POSITION), self.id(VELOCITY), self.id(FORCE)]
    }

    fn special(&self, meaning: u8) -> Frame {
        mit::special(self.id(MIT), meaning)
    }

    fn setpoint(&self, velocity: RevolutionsPerSecond) -> Frame {
        let radians = mit::radians_per_second(velocity);
        match self.mode {
            Mode::Velocity => {
                #[expect(clippy::cast_possible_truncation, reason = "the drive takes an f32")]
                let [a, b, c, d] = (radians as f32).to_le_bytes();
                Frame::classic(self.id(VELOCITY), &[a, b, c, d, 0, 0, 0, 0])
            }
            Mode::Mit => {
                let middle = |bits| Steps::Between.encode(0.0, 1.0, bits);
                let command = mit::Command {
                    position: middle(16),
                    velocity: Steps::Between.encode(radians, self.v_max, 12),
                    kp: 0,
                    kd: self.kd,
                    torque: middle(12),
                };
                Frame::classic(self.id(MIT), &command.bytes())
            }
        }
    }

    fn register(&self, request: u8, register: u8, value: u32) -> Frame {
        let [a, b, c, d] = value.to_le_bytes();
        Frame::classic(ArbitrationId::standard(REGISTERS), &[self.id, 0, request, register, a, b, c, d])
    }

    fn read(&self, register: u8) -> Frame {
        self.register(request::READ, register, 0)
    }

    fn write(&self, register: u8, value: u32) -> Frame {
        self.register(request::WRITE, register, value)
    }

    fn refresh(&self) -> Frame {
        self.register(request::REFRESH, 0, 0)
    }

    /// Whether eight bytes on the feedback id are an answer to a register request of this drive: id, zero, what
    /// was asked for, register. As feedback the same bytes would be a drive that is switched off, at one of
    /// four positions out of 65536 and backwards at more than half its range: nothing is lost with that.
    fn is_register_answer(&self, payload: [u8; 8]) -> bool {
        let asked = [request::READ, request::WRITE, request::STORE, request::REFRESH];
        payload[0] == self.id
            && payload[1] == 0
            && asked.contains(&payload[2])
            && payload[3] <= register::LAST
    }

    /// Register and value of such an answer, if it tells one.
    fn register_answer(&self, frame: &Frame) -> Option<(u8, u32)> {
        let payload = self.payload(frame)?;
        let [_, _, asked, register, a, b, c, d] = payload;
        let tells = self.is_register_answer(payload) && matches!(asked, request::READ | request::WRITE);
        tells.then_some((register, u32::from_le_bytes([a, b, c, d])))
    }

    /// Eight bytes on the feedback id that begin with this drive's.
    fn payload(&self, frame: &Frame) -> Option<[u8; 8]> {
        let addressed =
            frame.format() == Format::Classic && frame.id() == ArbitrationId::standard(self.feedback);
        let payload = <[u8; 8]>::try_from(frame.payload()).ok().filter(|_| addressed)?;
        (payload[0] & 0x0F == self.id).then_some(payload)
    }

    /// What was written is in force: the value that is asked for is the one that was sent.
    fn confirmed(&self, register: u8, value: u32) -> Option<Observation> {
        let wanted = match register {
            register::CTRL_MODE => self.mode.number(),
            register::TIMEOUT => self.timeout,
            _ => return None,
        };
        (value == wanted).then(|| Observation { answer: Some(u32::from(register)), ..Observation::default() })
    }

    fn feedback(&self, payload: [u8; 8]) -> Observation {
        let [first, p0, p1, v, vt, t, ..] = payload;
        let reply = Reply::read([p0, p1, v, vt, t]);
        let state = first >> 4;
        let fault = (state::FIRST_FAULT..=state::LAST_FAULT).contains(&state);
        Observation {
            power: Some(match state {
                state::DISABLED => Power::Off,
                state::ENABLED => Power::On,
                _ if fault => Power::Fault,
                _ => Power::Transition,
            }),
            state: Some(u16::from(state)),
            velocity: Some(reply.velocity(self.v_max)),
            position: reply.position(self.p_max),
            fault: Some(fault.then_some(Fault(u32::from(state)))),
            ..Observation::default()
        }
    }
}

/// Identifiers of a motor, to which its id is added (damiao-motor).
const MIT: u16 = 0x000;
const POSITION: u16 = 0x100;
const VELOCITY: u16 = 0x200;
const FORCE: u16 = 0x300;

impl Protocol for Model {
    /// The set-point of the mode.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        FrameList::new(&[self.setpoint(velocity)])
    }

    /// Feedback and answers about registers, all eight bytes long.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if let Some((register, value)) = self.register_answer(frame) {
            return self.confirmed(register, value);
        }
        let payload = self.payload(frame)?;
        (!self.is_register_answer(payload)).then(|| self.feedback(payload))
    }

    fn has_clear_frame(&self) -> bool {
        true
    }

    /// Set-points of all four modes. Registers that are read, and what is stored, command nothing.
    fn told(&self, frame: &Frame) -> Told {
        let payload = frame.payload();
        let [mit, position, velocity, force] = self.ids();
        match frame.id() {
            id if id == mit => match mit::special_of(payload) {
                Some(special::CLEAR_ERROR) => Told::Clear,
                Some(_) => Told::AsListed,
                None => Told::SetPoint(mit::demand(payload, self.v_max)),
            },
            id if id == velocity => Told::SetPoint(match *payload {
                [a, b, c, d, ..] => {
                    let radians = f64::from(f32::from_le_bytes([a, b, c, d]));
                    Demand::Speed(mit::revolutions_per_second(radians))
                }
                _ => Demand::Other,
            }),
            id if id == position || id == force => Told::SetPoint(Demand::Other),
            _ => match payload.get(2) {
                Some(&request::WRITE) => Told::AsListed,
                _ => Told::Other,
            },
        }
    }

    /// A register frame names its drive in its first two bytes; one that is not understood may mean anybody.
    fn is_reached_by(&self, frame: &Frame) -> Option<bool> {
        if frame.id() != ArbitrationId::standard(REGISTERS) {
            return None;
        }
        let understood = frame.format() == Format::Classic && frame.payload().len() >= 4;
        Some(!understood || frame.payload().starts_with(&[self.id, 0]))
    }

    /// Which frames TIMEOUT counts is unverified: all count, the refresh too.
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// Whether the frame would energise or move this drive, in whatever mode it is.
    fn is_motion(&self, frame: &Frame) -> bool {
        let classic = frame.format() == Format::Classic;
        let payload = frame.payload();
        if frame.id() == ArbitrationId::standard(REGISTERS) {
            !classic || self.register_moves(payload)
        } else if frame.id() == self.id(MIT) {
            !classic || !(mit::special_of(payload) == Some(special::EXIT) || mit::only_damps(payload))
        } else if frame.id() == self.id(VELOCITY) {
            !classic || !is_zero_speed(payload)
        } else {
            // A position has no harmless value.
            self.ids().contains(&frame.id())
        }
    }

    fn may_hear(&self, id: ArbitrationId) -> bool {
        match id {
            ArbitrationId::Standard(id) => id < FORCE + 0x100 || id == REGISTERS,
            ArbitrationId::Extended(_) => false,
        }
    }

    /// The state in words (damiao-motor, `_STATE_NAME_MAP`).
    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        let name = match fault.0 {
            0x8 => "overvoltage",
            0x9 => "undervoltage",
            0xA => "overcurrent",
            0xB => "driver too hot",
            0xC => "motor too hot",
            0xD => "lost communication (its own watchdog)",
            0xE => "overload",
            other => return write!(out, "{other:#x}"),
        };
        out.write_str(name)
    }

    /// Register 9.
    fn watchdog(&self, frame: &Frame) -> Option<WatchdogReading> {
        let (register::TIMEOUT, units) = self.register_answer(frame)? else { return None };
        Some(match units {
            0 => WatchdogReading::Off,
            units => WatchdogReading::On(Duration::from_micros(u64::from(units) * 50)),
        })
    }
}

impl Model {
    /// A register frame names the drive it is for in its first two bytes. Reading and refreshing are harmless,
    /// so is storing what is set already; of the registers only the watchdog may be written: another mode lets
    /// an old set-point come into force, another id would make the drive deaf to its stop.
    fn register_moves(&self, payload: &[u8]) -> bool {
        let [low, high, request, register, ..] = *payload else { return true };
        let ours = low == self.id && high == 0;
        ours && match request {
            request::READ | request::REFRESH | request::STORE => false,
            request::WRITE => register != register::TIMEOUT || payload.len() != 8,
            _ => true,
        }
    }
}

/// f32 0 or -0, alone (openarm sends four bytes) or followed by zeros (damiao-motor sends eight).
fn is_zero_speed(payload: &[u8]) -> bool {
    match payload {
        [a, b, c, d, rest @ ..] => {
            f32::from_le_bytes([*a, *b, *c, *d]) == 0.0
                && matches!(rest.len(), 0 | 4)
                && rest.iter().all(|byte| *byte == 0)
        }
        _ => false,
    }
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let model = read(settings, common)?;
    let resolution = mit::revolutions_per_second(mit::step(model.v_max, 12));
    let still = common.standstill_or(RevolutionsPerSecond(STANDSTILL.max(2.0 * resolution.0)), resolution)?;
    let registers = ArbitrationId::standard(REGISTERS);
    let feedback = ArbitrationId::standard(model.feedback);
    let mut commands = model.ids().to_vec();
    commands.push(registers);
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: enable(&model, common.after),
        setpoint: Setpoint::Velocity,
        poll: FrameList::new(&[model.refresh(), model.setpoint(RevolutionsPerSecond::ZERO)]),
        poll_when: PollWhen::WhenSilent,
        broadcast: None,
        heartbeat: None,
        owns: model.ids().to_vec(),
        shares: vec![feedback, registers],
        slot: None,
        reports: vec![feedback],
        commands,
        watchdog: watchdog(&model),
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

fn watchdog(model: &Model) -> Watchdog {
    Watchdog {
        set: match model.timeout {
            0 => WatchdogSet::Off,
            units => WatchdogSet::ByLanyard(Duration::from_millis(u64::from(units / TIMEOUT_UNITS_PER_MS))),
        },
        ask: FrameList::new(&[model.read(register::TIMEOUT)]),
        advice: format!(
            "set watchdog_ms above 0; Lanyard then writes register 9 TIMEOUT whenever it enables the drive. To \
             keep 1.5 s in the drive: cansend can0 {}, then cansend can0 {}",
            model.write(register::TIMEOUT, 1_500 * TIMEOUT_UNITS_PER_MS),
            model.register(request::STORE, 1, 0),
        ),
    }
}

/// The family's own keys, checked.
fn read(settings: &Settings, common: &Common) -> Result<Model, SettingsError> {
    let id: u8 = settings.small("id", 1..=15, None)?;
    let feedback: u16 = settings.small("feedback_id", 0..=0x7FE, Some(0))?;
    let names: Vec<&str> = MODELS.iter().map(|(name, ..)| *name).collect();
    let name = settings.choice("model", &names, None)?;
    let (p_max, v_max) = MODELS
        .iter()
        .find(|(known, ..)| *known == name)
        .map_or((12.5, 30.0), |(_, p_max, v_max)| (*p_max, *v_max));
    let mode = match settings.choice("mode", &["vel", "mit"], Some("vel"))? {
        "mit" => Mode::Mit,
        _ => Mode::Velocity,
    };
    if mode == Mode::Velocity && settings.get("kd").is_some() {
        return Err(SettingsError::new("kd", "is used with mode = \"mit\" only; remove it"));
    }
    if mode == Mode::Mit && common.after == AfterStop::Hold {
        return Err(SettingsError::new(
            "after_stop",
            "damping without stiffness cannot hold a position: use mode = \"vel\", or release, and a brake where the \
             load can fall",
        ));
    }
    let millis: u32 = settings.small("watchdog_ms", 0..=60_000, Some(WATCHDOG_MS))?;
    if millis != 0 && i64::from(millis) < LEAST_WATCHDOG_MS {
        return Err(SettingsError::new(
            "watchdog_ms",
            format!("must be 0 (left as it is in the drive) or {LEAST_WATCHDOG_MS} to 60000, not {millis}"),
        ));
    }
    let kd = settings.number("kd", 0.05..=KD_SPAN, Some(KD))?;
    let model = Model {
        id,
        feedback,
        v_max: settings.number("v_max", 1.0..=1_000.0, Some(v_max))?,
        p_max: settings.number("p_max", 1.0..=1_000.0, Some(p_max))?,
        mode,
        kd: Steps::Between.encode_from(kd, KD_SPAN, 12),
        timeout: millis * TIMEOUT_UNITS_PER_MS,
    };
    if model.ids().contains(&ArbitrationId::standard(feedback)) {
        return Err(SettingsError::new(
            "feedback_id",
            format!("must not be one of the motor's own command ids, as {feedback:#x} is"),
        ));
    }
    Ok(model)
}

/// Two stages: no frame of this family brakes harder than the speed loop does.
fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    StopProgramme::new(
        &[
            Stage {
                kind: StageKind::Controlled,
                frames: FrameList::new(&[model.setpoint(RevolutionsPerSecond::ZERO)]),
                // The drive stays enabled and holds, or damps; standing still is all it can show.
                proof: proof(PowerProof::Any),
            },
            Stage {
                kind: StageKind::TorqueOff,
                frames: FrameList::new(&[model.special(special::EXIT)]),
                proof: proof(PowerProof::Off),
            },
        ],
        after,
    )
}

/// Errors away, mode, watchdog, on; the set-point is 0 before every frame that may switch on. A drive that holds
/// keeps its torque meanwhile. What was written is read back: whether a write is answered is unverified.
fn enable(model: &Model, after: AfterStop) -> EnableProgramme {
    let still = model.setpoint(RevolutionsPerSecond::ZERO);
    let clear = model.special(special::CLEAR_ERROR);
    let set = |register, value| EnableStep {
        frames: FrameList::new(&[model.write(register, value), model.read(register)]),
        until: Some(Until::Answer(u32::from(register))),
    };
    let mut steps = vec![match after {
        AfterStop::Release => EnableStep {
            frames: FrameList::new(&[still, clear, model.special(special::EXIT)]),
            until: Some(Until::Power(Power::Off)),
        },
        AfterStop::Hold => EnableStep {
            frames: FrameList::new(&[still, clear, model.refresh()]),
            until: Some(Until::NotPower(Power::Fault)),
        },
    }];
    steps.push(set(register::CTRL_MODE, model.mode.number()));
    if model.timeout != 0 {
        steps.push(set(register::TIMEOUT, model.timeout));
    }
    steps.push(EnableStep {
        frames: FrameList::new(&[still, model.special(special::ENTER)]),
        until: Some(Until::Power(Power::On)),
    });
    EnableProgramme::new(&steps)
}
