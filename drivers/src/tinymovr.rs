//! Tinymovr over CAN: extended identifier = node << 21 | hash << 12 | endpoint, little-endian payloads. A
//! remote request reads an endpoint, a data frame writes it; the answer to a read has the identifier of the
//! request.
//!
//! Sources, as cited below:
//! * *fw*: tinymovr/Tinymovr, `firmware/src/can/can.c`, `can_func.c`, `controller/controller.c`;
//! * *spec*: the same, `tinymovr_2_4_x.yaml` to `tinymovr_3_1_x.yaml`, as in the Python package tinymovr 3.2.0
//!   (*client*).
//!
//! **Endpoint numbers** are places in the spec a firmware was built from, and every spec has a hash. What is
//! checked:
//! * the key `firmware` says which spec, and with it the numbers and the hash; specs before 2.4 have others and
//!   are not known;
//! * every write carries the lowest eight bits of the hash; a drive of another firmware takes none of them
//!   (fw), one in 256 excepted;
//! * before a drive is enabled, its whole hash is read and must be that of the spec. A drive with another one
//!   is never enabled, and its heartbeat, which tells the hash each second, is shown as the fault *wrong
//!   protocol*.
//!
//! **Reads** carry the hash 0, which every drive takes. An answer to a read looks like a write of the same
//! value; with different hashes, the answers to these reads are not taken for somebody's command. So a *write*
//! of the state by somebody who uses the hash 0 is taken for an answer: the drive's state is then known, and a
//! motor that was stopped is stopped again when it moves. Every other write counts with either hash.
//!
//! **Polls** only when the drive is silent: every frame that reaches it, a read included, feeds its watchdog
//! (fw, `CAN_process_interrupt`). Writes are not answered, so each velocity is sent with reads behind it:
//! whoever drives the motor may feed the watchdog, and then the drive is never silent.
//!
//! **State numbers**: 0 idle, 1 calibrating, 2 closed loop (spec).
//!
//! **What the feedback cannot tell.** Errors and state are different endpoints; after an error the drive goes
//! idle (fw), which shows as *off* with a fault. Nothing clears an error but a reset (fw: unverified for later
//! releases).
//!
//! **Unverified:** noise of the velocity at rest; whether standard identifiers reach the drive (its acceptance
//! filter compares the first eight bits: fw).

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Power, Refusal, name_bits};
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::{Revolutions, RevolutionsPerSecond};
use crate::watchdog::{Feeds, Watchdog, WatchdogReading, WatchdogSet};

/// The family.
pub const FAMILY: Family = Family {
    name: "tinymovr",
    about: "Tinymovr over CAN, firmware 2.4 to 3.1",
    keys: &[
        Key { name: "node", about: "The drive's comms.can.id, 1 to 255. Required." },
        Key {
            name: "firmware",
            about: "Which spec it was built from: \"2.4\", \"2.5\", \"2.6\", \"3.0\" or \"3.1\". Required: \
                    endpoint numbers depend on it.",
        },
        Key {
            name: "ticks_per_rev",
            about: "Ticks of the user frame in one turn of the shaft, 1 to 16777216. Required.",
        },
        Key {
            name: "watchdog_ms",
            about: "The drive's own watchdog, in milliseconds: 100 to 10000, 200 unless given (at least \
                    twice the 50 ms after which a frame that enables is repeated, ten times the usual \
                    refresh); written whenever the drive is enabled. 0 switches it off, and is what \
                    after_stop = \"hold\" needs, since it takes the torque away.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "velocity estimate and controller state, read when the drive is silent and with every command",
        vectors: "arbitration_from_ids of the Python package tinymovr 3.2.0",
        unverified: &[
            "noise of the velocity at rest",
            "whether standard identifiers feed the drive's watchdog",
            "what clears an error",
        ],
    },
};

fn example() -> Settings {
    let mut settings = Settings::default();
    settings.insert("node", Value::Integer(1));
    settings.insert("firmware", Value::Text("2.4".to_owned()));
    settings.insert("ticks_per_rev", Value::Integer(8192));
    settings
}

/// Endpoints by their numbers in spec 2.4; up to 79 they are the same in all that are known.
mod endpoint {
    /// In every spec ever.
    pub const PROTOCOL_HASH: u16 = 0;
    pub const STATE: u16 = 21;
    pub const MODE: u16 = 22;
    pub const ERRORS: u16 = 24;
    pub const VELOCITY_SETPOINT: u16 = 27;
    pub const CURRENT_SETPOINT: u16 = 33;
    /// A call.
    pub const IDLE: u16 = 43;
    pub const POSITION_ESTIMATE: u16 = 58;
    pub const VELOCITY_ESTIMATE: u16 = 59;
    pub const WATCHDOG_ENABLED: u16 = 97;
    pub const WATCHDOG_TIMEOUT: u16 = 99;

    /// Position, current, and position with speed in one call.
    pub const SET_POINTS: &[u16] = &[25, CURRENT_SETPOINT, 47];

    /// Read only, and so without effect on the motor whatever is sent.
    pub const READ_ONLY: &[u16] = &[
        PROTOCOL_HASH,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        13,
        14,
        15,
        18,
        19,
        20,
        23,
        ERRORS,
        34,
        36,
        38,
        41,
        55,
        57,
        POSITION_ESTIMATE,
        VELOCITY_ESTIMATE,
        62,
        63,
        66,
        67,
        68,
        69,
        72,
        73,
        74,
        77,
        78,
        79,
        88,
        92,
        98,
    ];

    /// Calls: configuration, reset, calibration, modes, both setpoints, movements, homing.
    pub const CALLS: &[u16] = &[11, 12, 16, 17, 42, IDLE, 44, 45, 46, 47, 86, 87, 96];
}

/// A spec: the numbers that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spec {
    /// The word after `firmware =`.
    name: &'static str,
    /// First four bytes of the SHA-256 of the spec as the client writes it in JSON (avlos 0.9.3),
    /// little-endian; the same calculation gives for spec 1.6 the number that the client lists for it.
    hash: u32,
    /// The first number that is one higher than in 2.4, if any: a setting that was put in has the number
    /// before.
    moved: Option<u16>,
}

const SPECS: [Spec; 5] = [
    Spec { name: "2.4", hash: 0xEE6A_759E, moved: None },
    Spec { name: "2.5", hash: 0x7429_7F3B, moved: None },
    Spec { name: "2.6", hash: 0x2B0F_FEA6, moved: None },
    Spec { name: "3.0", hash: 0xE1B8_75F3, moved: None },
    Spec { name: "3.1", hash: 0x3918_582E, moved: Some(81) },
];

impl Spec {
    /// The number of an endpoint that has the given one in 2.4.
    fn number(&self, endpoint: u16) -> u16 {
        endpoint + u16::from(self.moved.is_some_and(|moved| endpoint + 1 >= moved))
    }

    /// The number in 2.4 of an endpoint of this spec; `None` for one that 2.4 does not have.
    fn in_2_4(&self, number: u16) -> Option<u16> {
        match self.moved {
            Some(moved) if number + 1 == moved => None,
            Some(moved) if number >= moved => Some(number - 1),
            _ => Some(number),
        }
    }

    /// All numbers of it; the watchdog's time is the last.
    fn numbers(&self) -> core::ops::RangeInclusive<u16> {
        endpoint::PROTOCOL_HASH..=self.number(endpoint::WATCHDOG_TIMEOUT)
    }

    /// Those that can be written or called.
    fn writable(&self) -> impl Iterator<Item = u16> + use<'_> {
        self.numbers().filter(|number| {
            self.in_2_4(*number).is_none_or(|endpoint| !endpoint::READ_ONLY.contains(&endpoint))
        })
    }
}

/// States (spec).
const IDLE: u8 = 0;
const CALIBRATING: u8 = 1;
const CLOSED_LOOP: u8 = 2;

/// Mode 1 (spec).
const VELOCITY: u8 = 1;

/// Heartbeats: identifiers without a node, with the node in the lowest bits (fw).
const HEARTBEAT: u32 = 0x700;

/// The hash of a frame that every firmware takes (fw).
const ANY_HASH: u8 = 0;

/// A fault of ours: the drive's hash is another than that of the spec. Above those of the drive, which have
/// eight bits.
const WRONG_PROTOCOL: u32 = 1 << 16;

/// Default for "stands still", in revolutions per second. At this speed a shaft needs 20 s for a turn. The
/// noise of the estimate is unverified.
const STANDSTILL: RevolutionsPerSecond = RevolutionsPerSecond(0.05);

/// An f32 in ticks per second has no coarsest step of its own.
const RESOLUTION: RevolutionsPerSecond = RevolutionsPerSecond::ZERO;

/// Three readings: one stray reading proves nothing.
const SAMPLES: u8 = 3;

/// The shortest watchdog: twice the 50 ms after which the front repeats a frame that enables.
const SHORTEST_WATCHDOG_MS: u16 = 100;

/// What differs between two drives.
#[derive(Clone, Copy, Debug)]
struct Model {
    node: u8,
    spec: Spec,
    ticks_per_rev: f64,
}

/// The lowest eight bits of a hash, as frames carry them.
const fn low(hash: u32) -> u8 {
    hash.to_le_bytes()[0]
}

impl Model {
    fn id(&self, hash: u8, number: u16) -> ArbitrationId {
        ArbitrationId::extended(u32::from(self.node) << 21 | u32::from(hash) << 12 | u32::from(number))
    }

    /// The hash and the number of a frame for this drive, of those that it takes; no drive takes another hash.
    fn parts(&self, frame: &Frame) -> Option<(u8, u16)> {
        let ArbitrationId::Extended(id) = frame.id() else { return None };
        let hashes = [ANY_HASH, low(self.spec.hash)];
        let hash = hashes.into_iter().find(|hash| u32::from(*hash) == id >> 12 & 0x1FF)?;
        let number = u16::try_from(id & 0xFFF).ok()?;
        (id >> 21 == u32::from(self.node) && self.spec.numbers().contains(&number)).then_some((hash, number))
    }

    fn write(&self, endpoint: u16, payload: &[u8]) -> Frame {
        Frame::classic(self.id(low(self.spec.hash), self.spec.number(endpoint)), payload)
    }

    fn read(&self, endpoint: u16) -> Frame {
        Frame::remote(self.id(ANY_HASH, self.spec.number(endpoint)))
    }

    fn heartbeat_id(&self) -> ArbitrationId {
        ArbitrationId::extended(HEARTBEAT | u32::from(self.node))
    }

    fn velocity_setpoint(&self, velocity: RevolutionsPerSecond) -> Frame {
        #[expect(clippy::cast_possible_truncation, reason = "f32 is what the drive takes")]
        let ticks = (f64::from(velocity.0) * self.ticks_per_rev) as f32;
        self.write(endpoint::VELOCITY_SETPOINT, &ticks.to_le_bytes())
    }

    /// The endpoint of an answer to one of our reads, as in 2.4.
    fn answered(&self, frame: &Frame) -> Option<u16> {
        let (hash, number) = self.parts(frame)?;
        (hash == ANY_HASH).then(|| self.spec.in_2_4(number)).flatten()
    }

    fn hash(&self, bytes: [u8; 4]) -> Observation {
        let request = u32::from(endpoint::PROTOCOL_HASH);
        let hash = u32::from_le_bytes(bytes);
        if hash == self.spec.hash {
            Observation { answer: Some(request), ..Observation::default() }
        } else {
            Observation {
                refused: Some(Refusal { request, code: hash }),
                fault: Some(Some(Fault(WRONG_PROTOCOL))),
                ..Observation::default()
            }
        }
    }

    /// Ticks as revolutions; what is not a finite number is not a reading.
    fn revolutions(&self, ticks: f32) -> Option<f64> {
        ticks.is_finite().then(|| f64::from(ticks) / self.ticks_per_rev)
    }
}

fn state(state: u8) -> Option<Observation> {
    let power = match state {
        IDLE => Power::Off,
        CALIBRATING => Power::Transition,
        CLOSED_LOOP => Power::On,
        _ => return None,
    };
    Some(Observation { power: Some(power), state: Some(u16::from(state)), ..Observation::default() })
}

impl Protocol for Model {
    /// The setpoint, and behind it what nobody else asks for meanwhile.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        FrameList::new(&[
            self.velocity_setpoint(velocity),
            self.read(endpoint::VELOCITY_ESTIMATE),
            self.read(endpoint::STATE),
            self.read(endpoint::POSITION_ESTIMATE),
        ])
    }

    /// Answers to our reads, each of one length, and the heartbeat.
    fn decode(&self, frame: &Frame) -> Option<Observation> {
        if frame.format() != Format::Classic {
            return None;
        }
        if frame.id() == self.heartbeat_id() {
            // u32 hash, four characters of a version (fw).
            let &[a, b, c, d, _, _, _, _] = frame.payload() else { return None };
            let seen = self.hash([a, b, c, d]);
            return Some(Observation { answer: None, refused: None, ..seen });
        }
        match (self.answered(frame)?, frame.payload()) {
            (endpoint::PROTOCOL_HASH, &[a, b, c, d]) => Some(self.hash([a, b, c, d])),
            (endpoint::STATE, &[number]) => state(number),
            (endpoint::ERRORS, &[errors]) => Some(Observation {
                fault: Some((errors != 0).then_some(Fault(u32::from(errors)))),
                ..Observation::default()
            }),
            (endpoint::VELOCITY_ESTIMATE, &[a, b, c, d]) => {
                let speed = self.revolutions(f32::from_le_bytes([a, b, c, d]))?;
                #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
                let velocity = Some(RevolutionsPerSecond(speed as f32));
                Some(Observation { velocity, ..Observation::default() })
            }
            (endpoint::POSITION_ESTIMATE, &[a, b, c, d]) => {
                let turns = self.revolutions(f32::from_le_bytes([a, b, c, d]))?;
                Some(Observation { position: Some(Revolutions(turns)), ..Observation::default() })
            }
            _ => None,
        }
    }

    /// The two set-points, and positions by number; what asks, and what sets up, drives nothing.
    fn told(&self, frame: &Frame) -> Told {
        let Some((_, number)) = self.parts(frame) else { return Told::AsListed };
        match (frame.format(), self.spec.in_2_4(number), frame.payload()) {
            (Format::Remote, ..) => Told::Other,
            (_, Some(endpoint::VELOCITY_SETPOINT), &[a, b, c, d]) => {
                let speed = f64::from(f32::from_le_bytes([a, b, c, d])) / self.ticks_per_rev;
                #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
                Told::SetPoint(Demand::Speed(RevolutionsPerSecond(speed as f32)))
            }
            (_, Some(endpoint), _) if endpoint::SET_POINTS.contains(&endpoint) => {
                Told::SetPoint(Demand::Other)
            }
            (_, Some(endpoint::STATE | endpoint::MODE), _) => Told::AsListed,
            _ => Told::Other,
        }
    }

    /// Every frame that passes the acceptance filter does, a read too (fw, `CAN_process_interrupt`).
    fn feeds_watchdog(&self, _frame: &Frame) -> Feeds {
        Feeds::Yes
    }

    /// Whether the frame would energise or move this drive.
    ///
    /// A remote request reads, except of an endpoint that is a call: a call is carried out whatever asks for it
    /// (fw, the generated `avlos_` functions).
    fn is_motion(&self, frame: &Frame) -> bool {
        let Some((hash, number)) = self.parts(frame) else { return false };
        let endpoint = self.spec.in_2_4(number);
        if endpoint.is_some_and(|endpoint| endpoint::READ_ONLY.contains(&endpoint)) {
            return false;
        }
        match (frame.format(), endpoint, frame.payload()) {
            (Format::Remote | Format::Classic, Some(endpoint::IDLE), _) => false,
            (Format::Remote, endpoint, _) => {
                endpoint.is_some_and(|endpoint| endpoint::CALLS.contains(&endpoint))
            }
            // An answer to a read of ours has the hash 0: see the head of this file.
            (Format::Classic, Some(endpoint::STATE), [state]) => *state != IDLE && hash != ANY_HASH,
            (Format::Classic, Some(endpoint::MODE), payload) => payload != [VELOCITY],
            (
                Format::Classic,
                Some(endpoint::VELOCITY_SETPOINT | endpoint::CURRENT_SETPOINT),
                &[a, b, c, d],
            ) => f32::from_le_bytes([a, b, c, d]) != 0.0,
            (Format::Classic, Some(endpoint::WATCHDOG_ENABLED), payload) => payload.len() != 1,
            (Format::Classic, Some(endpoint::WATCHDOG_TIMEOUT), payload) => payload.len() != 4,
            _ => true,
        }
    }

    /// The controller's errors (spec), and our own.
    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        let names = [
            (0x01, "current limit exceeded"),
            (0x02, "current before closed loop exceeded"),
            (WRONG_PROTOCOL, "wrong protocol: the drive's firmware is another than configured"),
        ];
        name_bits(fault.0, &names, out)
    }

    /// Off, when it says so; else its time, which says nothing of whether it is on. Asked in this order, the
    /// first answer that tells is the one.
    fn watchdog(&self, frame: &Frame) -> Option<WatchdogReading> {
        if frame.format() != Format::Classic {
            return None;
        }
        match (self.answered(frame)?, frame.payload()) {
            (endpoint::WATCHDOG_ENABLED, [0]) => Some(WatchdogReading::Off),
            (endpoint::WATCHDOG_TIMEOUT, &[a, b, c, d]) => {
                Duration::try_from_secs_f32(f32::from_le_bytes([a, b, c, d])).ok().map(WatchdogReading::On)
            }
            _ => None,
        }
    }

    /// Any extended identifier with a node other than 0. Of the standard ones those whose first eight bits are
    /// this node: the acceptance filter may not tell the forms apart (unverified).
    fn may_hear(&self, id: ArbitrationId) -> bool {
        match id {
            ArbitrationId::Standard(id) => id >> 3 == u16::from(self.node),
            ArbitrationId::Extended(id) => id >> 21 != 0,
        }
    }
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let node = settings.small("node", 1..=255, None)?;
    let names = SPECS.map(|spec| spec.name);
    let firmware = settings.choice("firmware", &names, None)?;
    let spec = SPECS.into_iter().find(|spec| spec.name == firmware).unwrap_or(SPECS[0]);
    let ticks_per_rev = settings.number("ticks_per_rev", 1.0..=16_777_216.0, None)?;
    let watchdog_ms: u16 = settings.small("watchdog_ms", 0..=10_000, Some(200))?;
    if (1..SHORTEST_WATCHDOG_MS).contains(&watchdog_ms) {
        return Err(SettingsError::new(
            "watchdog_ms",
            format!("must be 0 (off) or {SHORTEST_WATCHDOG_MS} to 10000, not {watchdog_ms}"),
        ));
    }
    if common.after == AfterStop::Hold && watchdog_ms > 0 {
        return Err(SettingsError::new(
            "watchdog_ms",
            "must be 0 where after_stop is \"hold\": the drive's watchdog takes the torque away that is to hold",
        ));
    }
    let watchdog = (watchdog_ms > 0).then(|| Duration::from_millis(u64::from(watchdog_ms)));
    let model = Model { node, spec, ticks_per_rev };
    let still = common.standstill_or(STANDSTILL, RESOLUTION)?;
    let hashes = [ANY_HASH, low(spec.hash)];
    let all = |hash| spec.numbers().map(move |number| model.id(hash, number));
    let written = |hash| spec.writable().map(move |number| model.id(hash, number)).collect::<Vec<_>>();
    let mut owns: Vec<_> = hashes.into_iter().flat_map(all).collect();
    owns.push(model.heartbeat_id());
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop: stop(&model, still, common.after),
        enable: enable(&model, watchdog),
        setpoint: Setpoint::Velocity,
        poll: FrameList::new(&POLLED.map(|endpoint| model.read(endpoint))),
        poll_when: PollWhen::WhenSilent,
        broadcast: None,
        heartbeat: None,
        owns,
        shares: Vec::new(),
        slot: None,
        reports: POLLED
            .iter()
            .chain(&[endpoint::PROTOCOL_HASH])
            .map(|endpoint| model.id(ANY_HASH, spec.number(*endpoint)))
            .chain([model.heartbeat_id()])
            .collect(),
        commands: hashes.into_iter().flat_map(written).collect(),
        watchdog: Watchdog {
            set: watchdog.map_or(WatchdogSet::Off, WatchdogSet::ByLanyard),
            ask: FrameList::new(&[
                model.read(endpoint::WATCHDOG_ENABLED),
                model.read(endpoint::WATCHDOG_TIMEOUT),
            ]),
            advice: "set watchdog_ms above 0; Lanyard then writes watchdog.timeout and watchdog.enabled whenever it enables the \
                     drive"
                .to_owned(),
        },
        max_speed: common.max_speed,
        format: Format::Classic,
    })
}

/// What is asked for while the drive is silent.
const POLLED: [u16; 4] =
    [endpoint::STATE, endpoint::VELOCITY_ESTIMATE, endpoint::ERRORS, endpoint::POSITION_ESTIMATE];

/// Two stages. None of their frames energises an idle drive.
fn stop(model: &Model, still: RevolutionsPerSecond, after: AfterStop) -> StopProgramme {
    let proof = |power| Proof { max_speed: still, samples: SAMPLES, power };
    StopProgramme::new(
        &[
            // The mode first: a trajectory overwrites the setpoint in each cycle. The current setpoint is added
            // to what the velocity loop wants (fw, `CLControlStep`), and may be left from somebody who drove by
            // current.
            Stage {
                kind: StageKind::Controlled,
                frames: FrameList::new(&[
                    model.write(endpoint::MODE, &[VELOCITY]),
                    model.velocity_setpoint(RevolutionsPerSecond::ZERO),
                    model.write(endpoint::CURRENT_SETPOINT, &[0; 4]),
                ]),
                proof: proof(PowerProof::Any),
            },
            Stage {
                kind: StageKind::TorqueOff,
                frames: FrameList::new(&[model.write(endpoint::STATE, &[IDLE])]),
                proof: proof(PowerProof::Off),
            },
        ],
        after,
    )
}

/// The hash, the watchdog, the mode, the state.
fn enable(model: &Model, watchdog: Option<Duration>) -> EnableProgramme {
    let guarded = match watchdog {
        Some(time) => FrameList::new(&[
            model.write(endpoint::WATCHDOG_TIMEOUT, &time.as_secs_f32().to_le_bytes()),
            model.write(endpoint::WATCHDOG_ENABLED, &[1]),
        ]),
        None => FrameList::new(&[model.write(endpoint::WATCHDOG_ENABLED, &[0])]),
    };
    EnableProgramme::new(&[
        EnableStep {
            frames: FrameList::new(&[model.read(endpoint::PROTOCOL_HASH)]),
            until: Some(Until::Answer(u32::from(endpoint::PROTOCOL_HASH))),
        },
        EnableStep { frames: guarded, until: None },
        EnableStep {
            frames: FrameList::new(&[
                model.write(endpoint::MODE, &[VELOCITY]),
                model.velocity_setpoint(RevolutionsPerSecond::ZERO),
                model.write(endpoint::CURRENT_SETPOINT, &[0; 4]),
            ]),
            until: None,
        },
        EnableStep {
            frames: FrameList::new(&[
                model.write(endpoint::STATE, &[CLOSED_LOOP]),
                model.read(endpoint::STATE),
                model.read(endpoint::POSITION_ESTIMATE),
            ]),
            until: Some(Until::Power(Power::On)),
        },
    ])
}
