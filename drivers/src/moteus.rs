//! mjbots moteus over CAN FD with bit-rate switch: identifier = prefix << 16 | reply << 15 | source << 8 |
//! destination, payload of *subframes* that read or write registers, little-endian.
//!
//! Sources, as cited below:
//! * *registers*: mjbots/moteus, `docs/protocol/registers.md`; *can*: the same, `docs/protocol/can.md`;
//! * *fw*: the same, `fw/moteus.cc`, `fw/moteus_controller.cc`, `fw/fdcan_micro_server.h`,
//!   `fw/bldc_servo_structs.h`, `fw/bldc_servo_control.h`;
//! * *client*: the Python package moteus 1.1.1, from which the golden bytes come.
//!
//! **Lengths.** A CAN FD frame has 0 to 8, 12, 16, 20, 24, 32, 48 or 64 bytes. What is over is filled with
//! 0x50, which does nothing (can); zeros would be *write* subframes.
//!
//! **Polls** only read. A frame becomes a command by writing register 0x000, so a read does not feed the
//! watchdog (fw, `moteus_controller.cc`). Velocity frames ask for the same registers along with the command.
//!
//! **The watchdog** is part of each velocity frame (register 0x027): the drive goes to mode 11 when the time
//! has passed without another, and stays there until a *stop* (fw). NaN in that register would switch it off
//! for good, and is never sent. The modes 5 to 9 have none; they are never commanded.
//!
//! **State numbers** are modes (register 0x000).
//!
//! **What stops.** Mode 12, *zero velocity*, damps; the drive itself falls into it when its watchdog bites
//! (`servo.timeout_mode`). Mode 15 shorts the phases, mode 0 switches the driver off. There is no gentle stop
//! that leaves a stopped drive alone: a drive in mode 0 has its driver on from the first stage until standstill
//! is proven, with a torque that only opposes movement. A drive in mode 1 (fault) takes nothing but mode 0
//! (unverified: from the order of states in fw). Mode 12 does not hold a load: it sinks, and so `after_stop =
//! "hold"` is refused.
//!
//! **What the feedback cannot tell.** Whether the torque that is reported moves the shaft or holds it.
//!
//! **Unverified:** that every firmware release takes the broadcast address 0x7F (fw: the release read does);
//! noise of the velocity at rest.

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
use crate::frame::{ArbitrationId, Format, Frame, FrameList, MAX_PAYLOAD};
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::{Revolutions, RevolutionsPerSecond};
use crate::watchdog::{Feeds, Watchdog, WatchdogSet};

mod subframe;

use subframe::{Subframe, Subframes, Width};

/// The family.
pub const FAMILY: Family = Family {
    name: "moteus",
    about: "mjbots moteus over CAN FD (1 Mbit/s, 5 Mbit/s)",
    keys: &[
        Key { name: "id", about: "The drive's id.id, 1 to 126. Required; 127 is the broadcast address." },
        Key {
            name: "host",
            about: "Where answers go, 0 to 126 and no motor's id; 0, as the vendor's tools have it, unless \
                    given.",
        },
        Key { name: "prefix", about: "The drive's can.prefix, 0 to 8191; 0 unless given." },
        Key {
            name: "watchdog_ms",
            about: "How long a velocity frame is valid, in milliseconds: 100 to 10000, 200 unless given (at \
                    least twice the 50 ms after which a frame that enables is repeated, ten times the usual \
                    refresh). 0: as long as the drive's servo.default_timeout_s says, 0.1 s from the \
                    factory.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "mode and velocity registers, read by polls",
        vectors: "Python package moteus 1.1.1",
        unverified: &[
            "noise of the velocity at rest",
            "the broadcast address in every firmware release",
            "that a drive in fault takes nothing but stop",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("id", Value::Integer(1));
    settings
}

/// Modes (registers).
mod mode {
    pub const STOPPED: u8 = 0;
    pub const FAULT: u8 = 1;
    pub const POSITION: u8 = 10;
    pub const TIMEOUT: u8 = 11;
    pub const ZERO_VELOCITY: u8 = 12;
    pub const BRAKE: u8 = 15;
}

/// Registers (registers).
mod register {
    pub const MODE: u32 = 0x000;
    pub const POSITION: u32 = 0x001;
    pub const VELOCITY: u32 = 0x002;
    pub const FAULT: u32 = 0x00F;
    /// What position mode is told, and the modes beside it, up to the last of their registers.
    pub const COMMAND_POSITION: u32 = 0x020;
    pub const COMMAND_VELOCITY: u32 = 0x021;
    pub const COMMAND_TIMEOUT: u32 = 0x027;
    pub const LAST_COMMAND: u32 = 0x04F;
}

/// Every drive listens to it besides its own (fw, registers 0x140: "reserved as the broadcast address").
const BROADCAST: u8 = 0x7F;

/// Destination and source have seven bits; the eighth of the source asks for an answer, that of the destination
/// is 0 (can).
const ADDRESS_BITS: u8 = 7;

/// Does nothing: what a frame is filled with (can).
const NOP: u8 = 0x50;

/// Reads mode as int8; position, velocity, torque as f32; voltage, temperature, fault as int8 (client,
/// `make_query`).
const QUERY: [u8; 6] = [0x11, 0x00, 0x1F, 0x01, 0x13, 0x0D];

/// Default for "stands still", in revolutions per second. At this speed a shaft needs 20 s for a turn; the
/// noise of the estimate at rest is not specified by the vendor.
const STANDSTILL: RevolutionsPerSecond = RevolutionsPerSecond(0.05);

/// The velocity is asked for as f32, which has no coarsest step of its own.
const RESOLUTION: RevolutionsPerSecond = RevolutionsPerSecond::ZERO;

/// Three readings: a reversal through zero does not stay below the threshold that long, and one stray reading
/// proves nothing.
const SAMPLES: u8 = 3;

/// The shortest watchdog: twice the 50 ms after which the front repeats a frame that enables.
const SHORTEST_WATCHDOG_MS: u16 = 100;

/// What differs between two drives.
#[derive(Clone, Copy, Debug)]
struct Model {
    id: u8,
    host: u8,
    prefix: u16,
    /// How long a velocity frame is valid; `None`: as long as the drive thinks.
    watchdog: Option<Duration>,
}

/// Whether the drive shall answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Wanted,
    Unwanted,
}

impl Model {
    /// The identifier of that number below the prefix: standard if it fits, as drives and clients send it (fw,
    /// client).
    fn arbitration_id(&self, number: u16) -> ArbitrationId {
        match (self.prefix, number) {
            (0, 0..=0x7FF) => ArbitrationId::standard(number),
            _ => ArbitrationId::extended(u32::from(self.prefix) << 16 | u32::from(number)),
        }
    }

    fn to(&self, destination: u8, answer: Answer, payload: &[u8]) -> Frame {
        let ask = match answer {
            Answer::Wanted => 1 << 15,
            Answer::Unwanted => 0,
        };
        let number = ask | u16::from(self.host) << 8 | u16::from(destination);
        let mut filled = [NOP; MAX_PAYLOAD];
        filled[..payload.len()].copy_from_slice(payload);
        Frame::fd(self.arbitration_id(number), &filled[..legal_length(payload.len())])
    }

    /// Sets a mode and asks for everything.
    fn set_mode(&self, mode: u8) -> Frame {
        let [a, b, c, d, e, f] = QUERY;
        self.to(self.id, Answer::Wanted, &[0x01, 0x00, mode, a, b, c, d, e, f])
    }

    /// Where this drive's answers come from.
    fn answer_id(&self) -> ArbitrationId {
        self.arbitration_id(u16::from(self.id) << 8 | u16::from(self.host))
    }

    /// All identifiers with this destination, whoever sends. Standard ones are heard with any prefix (fw,
    /// `moteus.cc`: the filter for the prefix is one for extended identifiers).
    fn ids_to(&self, destination: u8) -> impl Iterator<Item = ArbitrationId> + use<> {
        let base = u32::from(self.prefix) << 16 | u32::from(destination);
        let standard =
            (0..8).map(move |source: u16| ArbitrationId::standard(source << 8 | u16::from(destination)));
        let extended = (0..256u32).map(move |source| ArbitrationId::extended(base | source << 8));
        standard.chain(extended)
    }

    /// Whether this drive takes a frame with that identifier for one to itself.
    fn is_addressed_by(&self, id: ArbitrationId) -> bool {
        let number = match id {
            ArbitrationId::Standard(id) => u32::from(id),
            ArbitrationId::Extended(id) if id >> 16 == u32::from(self.prefix) => id,
            ArbitrationId::Extended(_) => return false,
        };
        number & 0xFF == u32::from(self.id) || number & 0xFF == u32::from(BROADCAST)
    }
}

/// The shortest length a CAN FD frame can have for that many bytes (ISO 11898-1).
fn legal_length(bytes: usize) -> usize {
    let lengths = [12, 16, 20, 24, 32, 48];
    if bytes <= 8 {
        bytes
    } else {
        lengths.into_iter().find(|length| *length >= bytes).unwrap_or(MAX_PAYLOAD)
    }
}

/// What a mode means. One that is not known may push.
fn power(mode: u8) -> Power {
    match mode {
        mode::STOPPED => Power::Off,
        mode::FAULT => Power::Fault,
        2..=4 => Power::Transition,
        mode::TIMEOUT | mode::ZERO_VELOCITY | mode::BRAKE => Power::QuickStop,
        _ => Power::On,
    }
}

/// Collects what the registers of an answer say.
#[derive(Default)]
struct Reading {
    mode: Option<u8>,
    fault: Option<u8>,
    position: Option<Revolutions>,
    velocity: Option<RevolutionsPerSecond>,
}

impl Reading {
    /// A velocity of int8 has steps of 0.1 rev/s, in which a creeping shaft stands still; a position of int8 or
    /// int16 ends within a few turns (registers). Others may ask for those, on the same identifier; they are no
    /// news.
    fn take(&mut self, register: u32, width: Width, value: &[u8]) {
        match register {
            register::MODE => self.mode = small(width, value),
            register::FAULT => self.fault = small(width, value),
            register::POSITION => {
                self.position = match width {
                    Width::Float => width.float(value).map(f64::from),
                    Width::Int32 => width.integer(value).map(|count| f64::from(count) * 0.000_01),
                    Width::Int8 | Width::Int16 => None,
                }
                .map(Revolutions);
            }
            register::VELOCITY => {
                let scaled = |step: f64| width.integer(value).map(|count| f64::from(count) * step);
                let velocity = match width {
                    Width::Float => width.float(value).map(f64::from),
                    Width::Int32 => scaled(0.000_01),
                    Width::Int16 => scaled(0.000_25),
                    Width::Int8 => None,
                };
                #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
                {
                    self.velocity = velocity.map(|rps| RevolutionsPerSecond(rps as f32));
                }
            }
            _ => {}
        }
    }

    fn observation(&self) -> Option<Observation> {
        let Self { mode, fault, position, velocity } = *self;
        if mode.is_none() && position.is_none() && velocity.is_none() {
            return None;
        }
        // Outside mode 1 the register says what limits the output, if anything (registers).
        let fault = match (mode, fault) {
            (Some(mode::FAULT), Some(0) | None) | (None, _) => None,
            (Some(mode::FAULT), Some(code)) => Some(Some(Fault(u32::from(code)))),
            (Some(_), _) => Some(None),
        };
        Some(Observation {
            power: mode.map(power),
            state: mode.map(u16::from),
            velocity,
            position,
            fault,
            ..Observation::default()
        })
    }
}

/// A register that is a small number by itself.
fn small(width: Width, value: &[u8]) -> Option<u8> {
    width.integer(value).and_then(|number| u8::try_from(number).ok())
}

/// What a payload writes, of what makes up a set-point.
#[derive(Default)]
struct Written {
    mode: Option<u8>,
    velocity: Option<RevolutionsPerSecond>,
    /// A command register is written, with something else than a speed.
    otherwise: bool,
}

impl Written {
    /// A velocity of another width than a float is not read: it is a set-point of which the speed is not known.
    fn take(&mut self, register: u32, width: Width, value: &[u8]) {
        let is_nan = |value: &[u8]| width == Width::Float && width.float(value).is_none();
        match (register, width, value) {
            (register::MODE, ..) => self.mode = small(width, value),
            (register::COMMAND_POSITION, _, value) if is_nan(value) => {}
            (register::COMMAND_VELOCITY, Width::Float, &[a, b, c, d]) => {
                self.velocity = Some(RevolutionsPerSecond(f32::from_le_bytes([a, b, c, d])));
            }
            (register::COMMAND_TIMEOUT, ..) => {}
            (register::COMMAND_POSITION..=register::LAST_COMMAND, ..) => self.otherwise = true,
            _ => {}
        }
    }

    fn told(&self) -> Told {
        match *self {
            Self { mode: Some(mode::STOPPED | mode::ZERO_VELOCITY | mode::BRAKE), .. } => Told::AsListed,
            Self { mode: Some(mode::POSITION), velocity: Some(velocity), otherwise: false } => {
                Told::SetPoint(Demand::Speed(velocity))
            }
            Self { mode: Some(_), .. } | Self { velocity: Some(_), .. } | Self { otherwise: true, .. } => {
                Told::SetPoint(Demand::Other)
            }
            // Questions, settings, and text for the console.
            Self { mode: None, velocity: None, otherwise: false } => Told::Other,
        }
    }
}

/// Whether a payload can do nothing but stop, ask, or read: each write is one of a stopping mode, each piece of
/// text to the console, through which everything can be commanded, is empty.
fn is_harmless(payload: &[u8]) -> bool {
    Subframes::of(payload).all(|subframe| match subframe {
        // Of several registers there is no one number.
        Ok(Subframe::Write { first: register::MODE, width, values }) => {
            matches!(small(width, values), Some(mode::STOPPED | mode::ZERO_VELOCITY | mode::BRAKE))
        }
        Ok(Subframe::Write { .. }) | Err(_) => false,
        Ok(Subframe::ToServer(text)) => text.is_empty(),
        Ok(Subframe::Read | Subframe::Reply { .. } | Subframe::Other) => true,
    })
}

impl Protocol for Model {
    /// Position mode without a position to go to (NaN), at this velocity, valid for the watchdog's time.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        let [v0, v1, v2, v3] = velocity.0.to_le_bytes();
        let [n0, n1, n2, n3] = f32::NAN.to_le_bytes();
        let move_at = [0x01, 0x00, mode::POSITION, 0x0E, 0x20, n0, n1, n2, n3, v0, v1, v2, v3];
        let mut payload = [NOP; 25];
        payload[..13].copy_from_slice(&move_at);
        let mut at = 13;
        if let Some(watchdog) = self.watchdog {
            let [t0, t1, t2, t3] = watchdog.as_secs_f32().to_le_bytes();
            payload[at..at + 6].copy_from_slice(&[0x0D, 0x27, t0, t1, t2, t3]);
            at += 6;
        }
        payload[at..at + QUERY.len()].copy_from_slice(&QUERY);
        FrameList::new(&[self.to(self.id, Answer::Wanted, &payload[..at + QUERY.len()])])
    }

    /// Answers, whoever of those that use our address asked. They carry whatever registers were asked for.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.id() != self.answer_id() || frame.format() != Format::FdBrs {
            return None;
        }
        let mut reading = Reading::default();
        for subframe in Subframes::of(frame.payload()) {
            match subframe.ok()? {
                Subframe::Reply { first, width, values } => {
                    for (register, value) in (first..).zip(values.chunks_exact(width.bytes())) {
                        reading.take(register, width, value);
                    }
                }
                Subframe::Other => {}
                Subframe::Write { .. } | Subframe::Read | Subframe::ToServer(_) => return None,
            }
        }
        reading.observation()
    }

    /// Position mode is what takes set-points; without a position to go to, what it is told is a speed.
    fn told(&self, frame: &Frame) -> Told {
        let mut written = Written::default();
        for subframe in Subframes::of(frame.payload()) {
            if let Ok(Subframe::Write { first, width, values }) = subframe {
                for (register, value) in (first..).zip(values.chunks_exact(width.bytes())) {
                    written.take(register, width, value);
                }
            }
        }
        written.told()
    }

    /// A frame that writes is a command and does, whatever mode it sets; one that only reads does not (fw,
    /// `moteus_controller.cc`).
    fn feeds_watchdog(&self, frame: &Frame) -> Feeds {
        let only_reads = |frame: &Frame| {
            Subframes::of(frame.payload()).all(|subframe| match subframe {
                Ok(Subframe::Read | Subframe::Reply { .. } | Subframe::Other) => true,
                Ok(Subframe::Write { .. } | Subframe::ToServer(_)) | Err(_) => false,
            })
        };
        if frame.format() == Format::FdBrs && only_reads(frame) { Feeds::No } else { Feeds::Yes }
    }

    /// Whatever is not understood, and every write but one of a mode that stops. Classic frames count as well:
    /// the drive takes them (fw, `fdcan_micro_server.h`).
    fn is_motion(&self, frame: &Frame) -> bool {
        self.is_addressed_by(frame.id())
            && (frame.format() == Format::Remote || !is_harmless(frame.payload()))
    }

    /// A destination has seven bits, whatever the prefix.
    fn may_hear(&self, id: ArbitrationId) -> bool {
        let number = match id {
            ArbitrationId::Standard(id) => u32::from(id),
            ArbitrationId::Extended(id) => id,
        };
        number & 0xFF < 1 << ADDRESS_BITS
    }

    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        let words = match fault.0 {
            32 => "calibration fault",
            33 => "motor driver fault",
            34 => "over voltage",
            35 => "encoder fault",
            36 => "motor not configured",
            37 => "pwm cycle overrun",
            38 => "over temperature",
            39 => "outside limit",
            40 => "under voltage",
            41 => "config changed",
            42 => "theta invalid",
            43 => "position invalid",
            44 => "driver enable fault",
            45 => "stop position deprecated",
            46 => "timing violation",
            47 => "bemf feedforward no accel",
            48 => "invalid limits",
            other => return write!(out, "{other}"),
        };
        out.write_str(words)
    }
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let id = settings.small("id", 1..=126, None)?;
    let host = settings.small("host", 0..=126, Some(0))?;
    if host == id {
        return Err(SettingsError::new("host", format!("must differ from \"id\" ({id})")));
    }
    let prefix = settings.small("prefix", 0..=0x1FFF, Some(0))?;
    let watchdog_ms: u16 = settings.small("watchdog_ms", 0..=10_000, Some(200))?;
    if (1..SHORTEST_WATCHDOG_MS).contains(&watchdog_ms) {
        return Err(SettingsError::new(
            "watchdog_ms",
            format!("must be 0 (the drive's own) or {SHORTEST_WATCHDOG_MS} to 10000, not {watchdog_ms}"),
        ));
    }
    if common.after == AfterStop::Hold {
        return Err(SettingsError::new(
            "after_stop",
            "cannot be \"hold\": a moteus that stops only damps, and a load would sink; use \"release\", and a brake \
             where a load must not fall",
        ));
    }
    let watchdog = (watchdog_ms > 0).then(|| Duration::from_millis(u64::from(watchdog_ms)));
    let model = Model { id, host, prefix, watchdog };
    let still = common.standstill_or(STANDSTILL, RESOLUTION)?;
    let mut owns: Vec<_> = model.ids_to(id).collect();
    owns.push(model.answer_id());
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: enable(&model),
        setpoint: Setpoint::Velocity,
        poll: FrameList::new(&[model.to(id, Answer::Wanted, &QUERY)]),
        poll_when: PollWhen::Always,
        // Nobody is asked to answer: all would at once.
        broadcast: Some(model.to(BROADCAST, Answer::Unwanted, &[0x01, 0x00, mode::ZERO_VELOCITY])),
        heartbeat: None,
        owns,
        shares: model.ids_to(BROADCAST).collect(),
        slot: None,
        reports: vec![model.answer_id()],
        commands: model.ids_to(id).chain(model.ids_to(BROADCAST)).collect(),
        watchdog: Watchdog {
            set: watchdog.map_or(WatchdogSet::ByHand, WatchdogSet::ByLanyard),
            // The register tells the last command's time, not the drive's default.
            ask: FrameList::EMPTY,
            advice: "set watchdog_ms above 0, and every velocity frame is valid for that long only; with 0, in tview: \
                     conf set servo.default_timeout_s 0.2, then conf write"
                .to_owned(),
        },
        max_speed: common.max_speed,
        format: Format::FdBrs,
    })
}

fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let stage = |kind, mode, power| Stage {
        kind,
        frames: FrameList::new(&[model.set_mode(mode)]),
        proof: Proof { max_speed: still, samples: SAMPLES, power },
    };
    StopProgramme::new(
        &[
            stage(StageKind::Controlled, mode::ZERO_VELOCITY, PowerProof::NotFollowing),
            // Needs no encoder.
            stage(StageKind::Quick, mode::BRAKE, PowerProof::NotFollowing),
            stage(StageKind::TorqueOff, mode::STOPPED, PowerProof::Off),
        ],
        after,
    )
}

/// *Stop* first: only that takes a drive out of a fault, or out of mode 11, where its watchdog left it (fw).
fn enable(model: &Model) -> EnableProgramme {
    EnableProgramme::new(&[
        EnableStep {
            frames: FrameList::new(&[model.set_mode(mode::STOPPED)]),
            until: Some(Until::Power(Power::Off)),
        },
        EnableStep {
            frames: model.velocity(RevolutionsPerSecond::ZERO),
            until: Some(Until::Power(Power::On)),
        },
    ])
}
