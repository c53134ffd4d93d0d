//! Any drive at all: its frames and its proof as the configuration writes them.
//!
//! What lives here: the profile for drives that no family is written for. The person who writes it takes the
//! place of a family's author, and everything a family must see to is theirs to see to:
//!
//! * **No stop or poll frame may energise or move the drive**, from whatever state. What can be told from the
//!   frames is checked: a stop that commands a speed, a poll that also enables.
//! * **The last stage must leave no torque, and show it**: by the drive's own word on its power stage
//!   (`power_*`), or by a measured current (`output_*`). Without either the profile is refused: a wheel that
//!   is held looks just like one that is released.
//! * **Every identifier on which the drive can be moved** must be known, for the bus guard and so that the
//!   kernel's own stop does not use one: those of the configured frames are, others go into `motion`.
//!
//! # Keys
//!
//! What each means stands in [`FAMILY`]. Frames are written as `cansend` takes them (see [`text`]); a list
//! holds at most four frames, which are sent together, `enable` up to 32. Whoever gives a key of `position_`,
//! `power_` or `output_` gives them all but those that have a default.
//!
//! Types are `i8`, `u8`, `i16`, `u16`, `i32`, `u32`, `f32`, the wider ones with `le` or `be`.
//!
//! **What counts as motion.** On an identifier of a stop, enable or velocity frame, or of `motion`: every
//! frame but the stop and poll frames themselves, byte for byte. An unknown read on such an identifier is
//! answered with a stop, too, when the motor is nobody's.

mod number;
mod text;

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::drive::{Drive, PollWhen, Protocol, Setpoint};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::{Fault, Observation, Output, Power};
use crate::frame::{ArbitrationId, Format, Frame, FrameList, MAX_FRAMES};
use crate::meaning::{Demand, Told};
use crate::registry::{Common, Family, Key, Sheet};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::{AfterStop, PowerProof, Proof, Stage, StageKind, StopProgramme};
use crate::units::{Revolutions, RevolutionsPerSecond};
use crate::watchdog::{Feeds, Watchdog, WatchdogSet};
use number::{Field, Number};
use text::{Pattern, parse_id};

/// The family.
pub const FAMILY: Family = Family {
    name: "frames",
    about: "any drive, its frames and its proof written in the configuration",
    keys: &[
        Key {
            name: "torque_off",
            about: "List of frames that take the torque away. Required: the last stage that can be relied \
                on.",
        },
        Key {
            name: "controlled",
            about: "List of frames of a ramp to a stop under the drive's own control. Default: none, and \
                the first stage is the next harder one.",
        },
        Key { name: "quick", about: "List of frames of the hardest brake. Default: none." },
        Key { name: "latch", about: "List of frames of the drive's own emergency function. Default: none." },
        Key {
            name: "broadcast",
            about: "One frame that does what the first stage does, to all such drives of the bus at once. \
                Default: none.",
        },
        Key {
            name: "enable",
            about: "List of up to 32 frames that bring the drive to follow commands. Default: none, for \
                drives that need nothing.",
        },
        Key {
            name: "poll",
            about: "List of frames that ask for feedback, one a turn. Default: none, for drives that report \
                by themselves.",
        },
        Key {
            name: "poll_feeds_watchdog",
            about: "Whether a poll feeds the drive's own watchdog. Default: true, so that the drive is only \
                asked when it is silent or being stopped, which is never wrong.",
        },
        Key {
            name: "velocity",
            about: "The frame that commands a speed; the bytes of the speed are replaced. Required.",
        },
        Key { name: "velocity_byte", about: "First byte of the speed in it, from 0. Required." },
        Key {
            name: "velocity_type",
            about: "Type of the speed: i8, u8, i16le, i16be, u16le, u16be, i32le, i32be, u32le, u32be, \
                f32le or f32be. Required; it must reach max_rpm either way.",
        },
        Key {
            name: "velocity_rpm_per_count",
            about: "The speed that 1 means, rpm of the shaft, negative where the drive counts backwards. \
                Required.",
        },
        Key { name: "velocity_zero", about: "The number that means standing still. Default: 0." },
        Key {
            name: "feedback",
            about: "The frame that has the measured speed, with dots for digits that may be anything: \
                241#9C.............. Required.",
        },
        Key { name: "speed_byte", about: "First byte of the measured speed in it, from 0. Required." },
        Key { name: "speed_type", about: "Its type, as for velocity_type. Required." },
        Key {
            name: "speed_rpm_per_count",
            about: "The speed that 1 means, rpm of the shaft. Required; standstill_rpm cannot be less.",
        },
        Key { name: "speed_zero", about: "The number that means standing still. Default: 0." },
        Key {
            name: "position_frame",
            about: "The frame that has the position, with dots. Default: that of feedback.",
        },
        Key {
            name: "position_byte",
            about: "First byte of a position that does not wrap. Default: none; without one no distances \
                can be turned.",
        },
        Key { name: "position_type", about: "Its type, as for velocity_type." },
        Key { name: "position_revs_per_count", about: "How many revolutions 1 means." },
        Key {
            name: "power_frame",
            about: "The frame that says what the power stage does, with dots. Default: that of feedback.",
        },
        Key {
            name: "power_byte",
            about: "The byte of it that says so, from 0. Default: none; then output_byte is required.",
        },
        Key { name: "power_mask", about: "The bits of it that count, 1 to 255. Default: 255, all." },
        Key {
            name: "power_on",
            about: "List of its values, 0 to 255, that mean that commands are followed. Any value in no \
                list is between on and off.",
        },
        Key {
            name: "power_off",
            about: "List of its values that mean that there is no torque: they prove the last stage.",
        },
        Key {
            name: "power_fault",
            about: "List of its values that mean a fault without torque. Default: none.",
        },
        Key {
            name: "output_frame",
            about: "The frame that has a measured current, with dots. Default: that of feedback.",
        },
        Key {
            name: "output_byte",
            about: "First byte of a measured current, torque or duty. Default: none; then power_byte is \
                required.",
        },
        Key { name: "output_type", about: "Its type, as for velocity_type." },
        Key {
            name: "output_threshold",
            about: "Up to this much of it, either way, counts as none: the noise of the measurement, in the \
                numbers of the field.",
        },
        Key {
            name: "motion",
            about: "List of further identifiers on which the drive can be moved, three or eight digits. \
                Default: none.",
        },
        Key {
            name: "shared",
            about: "List of identifiers that are not this drive's alone: broadcasts, a common reply \
                identifier. Default: none.",
        },
        Key {
            name: "watchdog_ms",
            about: "What the enable frames set the drive's own watchdog to, 1 to 60000 ms. Default: absent, \
                it is to be set by hand.",
        },
    ],
    build,
    example,
    sheet: Sheet {
        proof: "as configured: speed, and the drive's word on its power stage or a measured current",
        vectors: "the same drives as the families of their own, written as frames",
        unverified: &["everything: what is configured is taken at its word"],
    },
};

/// The drive of the *RMD* vectors (`MyActuator` RMD-X, motor 1), written as frames.
fn example() -> Settings {
    let mut settings = Settings::default();
    let text = |text: &str| Value::Text(text.to_owned());
    let list = |text: &str| Value::Texts(vec![text.to_owned()]);
    for (key, value) in [
        ("controlled", list("141#8100000000000000")),
        ("torque_off", list("141#8000000000000000")),
        ("poll", list("141#9C00000000000000")),
        ("velocity", text("141#A200000000000000")),
        ("velocity_byte", Value::Integer(4)),
        ("velocity_type", text("i32le")),
        // 0.01 degrees per second.
        ("velocity_rpm_per_count", Value::Float(0.001_666_666_7)),
        ("feedback", text("241#9C..............")),
        ("speed_byte", Value::Integer(4)),
        ("speed_type", text("i16le")),
        // 1 degree per second.
        ("speed_rpm_per_count", Value::Float(0.166_666_67)),
        ("output_byte", Value::Integer(2)),
        ("output_type", text("i16le")),
        // 0.1 A.
        ("output_threshold", Value::Integer(10)),
    ] {
        settings.insert(key, value);
    }
    settings
}

/// Default for "stands still", in revolutions per second, unless the drive cannot resolve it: a turn takes 20
/// s. What noise the feedback of an unknown drive has nobody can say; whoever knows sets `standstill_rpm`.
const STANDSTILL: RevolutionsPerSecond = RevolutionsPerSecond(0.05);

/// Three readings in a row: one stray reading proves nothing, and a reversal does not stay slow for three
/// reports.
const SAMPLES: u8 = 3;

/// The most frames of an enable programme: eight steps of four.
const MOST_ENABLE_FRAMES: usize = 32;

/// Added to the power byte to make a fault number: a drive may well say 0 for a fault, and no fault is 0.
const FAULT: u32 = 0x100;

/// The power byte and what its values mean.
#[derive(Clone, Debug)]
struct PowerByte {
    pattern: Pattern,
    at: usize,
    mask: u8,
    on: Vec<u8>,
    off: Vec<u8>,
    fault: Vec<u8>,
}

impl PowerByte {
    /// A value in no list is between: it proves nothing, and a drive that says it does not follow commands.
    fn read(&self, payload: &[u8]) -> Option<(Power, Option<Fault>)> {
        let value = payload.get(self.at)? & self.mask;
        Some(if self.fault.contains(&value) {
            (Power::Fault, Some(Fault(FAULT | u32::from(value))))
        } else if self.off.contains(&value) {
            (Power::Off, None)
        } else if self.on.contains(&value) {
            (Power::On, None)
        } else {
            (Power::Transition, None)
        })
    }
}

/// A number in one kind of frame.
#[derive(Clone, Debug)]
struct Reading {
    pattern: Pattern,
    field: Field,
}

impl Reading {
    fn read(&self, frame: &Frame) -> Option<f64> {
        if self.pattern.matches(frame) { self.field.read(frame.payload()) } else { None }
    }
}

/// A measured current and how much of it is none.
#[derive(Clone, Debug)]
struct OutputReading {
    reading: Reading,
    threshold: f64,
}

/// What the configuration says of a drive.
#[derive(Clone, Debug)]
struct Model {
    velocity: Frame,
    velocity_field: Field,
    speed: Reading,
    position: Option<Reading>,
    power: Option<PowerByte>,
    output: Option<OutputReading>,
    /// Stop and poll frames: what may be seen without anything moving.
    quiet: Vec<Frame>,
    /// The polls, if `poll_feeds_watchdog` is false.
    idle_polls: Vec<Frame>,
    commands: Vec<ArbitrationId>,
}

impl Model {
    /// Every kind of frame it reports with.
    fn patterns(&self) -> Vec<Pattern> {
        let mut patterns = vec![self.speed.pattern];
        patterns.extend(self.position.iter().map(|position| position.pattern));
        patterns.extend(self.power.iter().map(|power| power.pattern));
        patterns.extend(self.output.iter().map(|output| output.reading.pattern));
        patterns
    }
}

impl Protocol for Model {
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList {
        FrameList::new(&[self.velocity_field.written(&self.velocity, f64::from(velocity.0))])
    }

    fn decode(&self, frame: &Frame) -> Option<Observation> {
        let mut seen = Observation::default();
        #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution drives report")]
        let speed = self.speed.read(frame).map(|speed| RevolutionsPerSecond(speed as f32));
        seen.velocity = speed;
        seen.position = self.position.as_ref().and_then(|place| place.read(frame)).map(Revolutions);
        if let Some(power) = &self.power
            && power.pattern.matches(frame)
            && let Some((state, fault)) = power.read(frame.payload())
        {
            seen.power = Some(state);
            seen.fault = Some(fault);
        }
        if let Some(output) = &self.output
            && output.reading.pattern.matches(frame)
        {
            // What is no number may be any current.
            let is_none = output.reading.read(frame).is_some_and(|value| value.abs() <= output.threshold);
            seen.output = Some(if is_none { Output::Zero } else { Output::Driving });
        }
        (seen != Observation::default()).then_some(seen)
    }

    /// A frame that is the configured one but for the bytes of the speed says that speed.
    fn told(&self, frame: &Frame) -> Told {
        let field = &self.velocity_field;
        match field.read(frame.payload()) {
            Some(speed) if field.written(frame, 0.0) == field.written(&self.velocity, 0.0) =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
                Told::SetPoint(Demand::Speed(RevolutionsPerSecond(speed as f32)))
            }
            _ => Told::AsListed,
        }
    }

    /// Everything counts but the polls of which the configuration says that they do not.
    fn feeds_watchdog(&self, frame: &Frame) -> Feeds {
        if self.idle_polls.contains(frame) { Feeds::No } else { Feeds::Yes }
    }

    fn is_motion(&self, frame: &Frame) -> bool {
        self.commands.contains(&frame.id()) && !self.quiet.contains(frame)
    }

    /// What other identifiers such a drive hears nobody has said.
    fn may_hear(&self, _: ArbitrationId) -> bool {
        false
    }

    fn fault_words(&self, fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "power byte {:#04x}", fault.0 & !FAULT)
    }
}

/// A frame of the text of `key`.
fn frame(key: &str, text: &str) -> Result<Frame, SettingsError> {
    let pattern = Pattern::parse(text).map_err(|problem| SettingsError::new(key, problem))?;
    pattern.exact().ok_or_else(|| {
        SettingsError::new(
            key,
            format!("cannot be \"{text}\": this frame is sent, so every digit must be given"),
        )
    })
}

/// The frames of a list, at most `most`.
fn frames(settings: &Settings, key: &str, most: usize) -> Result<Vec<Frame>, SettingsError> {
    let texts = settings.texts(key)?;
    if texts.len() > most {
        return Err(SettingsError::new(key, format!("may hold up to {most} frames, not {}", texts.len())));
    }
    texts.iter().map(|text| frame(key, text)).collect()
}

/// The identifiers of a list.
fn ids(settings: &Settings, key: &str) -> Result<Vec<ArbitrationId>, SettingsError> {
    let id = |text: &String| parse_id(text).map_err(|problem| SettingsError::new(key, problem));
    settings.texts(key)?.iter().map(id).collect()
}

/// A text that must be there.
fn required<'a>(settings: &'a Settings, key: &str, wanted: &str) -> Result<&'a str, SettingsError> {
    settings.text(key)?.ok_or_else(|| SettingsError::new(key, format!("is missing; give {wanted}")))
}

/// The pattern of feedback frames that `key` names, or else that of `feedback`.
fn pattern(settings: &Settings, key: &str) -> Result<Pattern, SettingsError> {
    let wanted = "the frame that the drive reports its speed with, like 241#9C..............";
    let (key, text) = match settings.text(key)? {
        Some(text) => (key, text),
        None => ("feedback", required(settings, "feedback", wanted)?),
    };
    let pattern = Pattern::parse(text).map_err(|problem| SettingsError::new(key, problem))?;
    if pattern.format() == Format::Remote {
        return Err(SettingsError::new(key, "cannot be a remote request: it carries nothing"));
    }
    Ok(pattern)
}

/// The place of `{name}_byte`, for a field of that many bytes.
fn place(settings: &Settings, name: &str, bytes: usize, length: usize) -> Result<usize, SettingsError> {
    let key = format!("{name}_byte");
    if length < bytes {
        let problem = format!("does not fit: the field has {bytes} bytes and the frame {length}");
        return Err(SettingsError::new(&key, problem));
    }
    settings.small(&key, 0..=i64::try_from(length - bytes).unwrap_or(0), None)
}

/// The type of `{name}_type`.
fn kind(settings: &Settings, name: &str) -> Result<Number, SettingsError> {
    let key = format!("{name}_type");
    let word = settings.choice(&key, number::NAMES, None)?;
    Number::named(word).ok_or_else(|| SettingsError::new(&key, "is not a type"))
}

/// What 1 is worth, from the key `key`; 0 would say nothing.
fn step(settings: &Settings, key: &str) -> Result<f64, SettingsError> {
    let step = settings.number(key, -1e6..=1e6, None)?;
    // Below a billionth no drive counts, and the inverse would leave all bounds.
    if step.abs() < 1e-9 {
        return Err(SettingsError::new(key, format!("must be at least 0.000000001 either way, not {step}")));
    }
    Ok(step)
}

/// A number of the feedback: `{name}_byte` and `{name}_type` in `{name}_frame`.
fn reading(settings: &Settings, name: &str, zero: f64, step: f64) -> Result<Reading, SettingsError> {
    let pattern = pattern(settings, &format!("{name}_frame"))?;
    let number = kind(settings, name)?;
    let at = place(settings, name, number.bytes(), pattern.length())?;
    free(&pattern, name, at, number.bytes())?;
    Ok(Reading { pattern, field: Field { number, at, zero, step } })
}

/// A number cannot stand where the pattern demands certain digits: it would always be the same.
fn free(pattern: &Pattern, name: &str, at: usize, bytes: usize) -> Result<(), SettingsError> {
    if pattern.leaves_free(at..at + bytes) {
        return Ok(());
    }
    let problem = format!(
        "points at digits that the frame has given: bytes {at} to {} must be dots in it",
        at + bytes - 1
    );
    Err(SettingsError::new(&format!("{name}_byte"), problem))
}

/// Whether any of the keys that begin with `name` is there.
fn any_of(settings: &Settings, name: &str) -> bool {
    FAMILY.keys.iter().any(|key| key.name.starts_with(name) && settings.get(key.name).is_some())
}

fn power(settings: &Settings) -> Result<Option<PowerByte>, SettingsError> {
    if !any_of(settings, "power_") {
        return Ok(None);
    }
    let pattern = pattern(settings, "power_frame")?;
    let at = place(settings, "power", 1, pattern.length())?;
    free(&pattern, "power", at, 1)?;
    let mask: u8 = settings.small("power_mask", 1..=255, Some(255))?;
    let mut taken: Vec<u8> = Vec::new();
    let mut values = |key: &str| -> Result<Vec<u8>, SettingsError> {
        let mut values = Vec::new();
        for number in settings.integers(key, 0..=255)? {
            let value = u8::try_from(*number).unwrap_or(u8::MAX);
            if value & !mask != 0 {
                let problem = format!("can never be {value}: it has bits that power_mask {mask} takes away");
                return Err(SettingsError::new(key, problem));
            }
            if taken.contains(&value) {
                return Err(SettingsError::new(key, format!("names {value}, which already means something")));
            }
            taken.push(value);
            values.push(value);
        }
        Ok(values)
    };
    let (on, off, fault) = (values("power_on")?, values("power_off")?, values("power_fault")?);
    for (key, values) in [("power_on", &on), ("power_off", &off)] {
        if values.is_empty() {
            return Err(SettingsError::new(
                key,
                "is missing; give the values of the power byte that mean it",
            ));
        }
    }
    Ok(Some(PowerByte { pattern, at, mask, on, off, fault }))
}

fn output(settings: &Settings) -> Result<Option<OutputReading>, SettingsError> {
    if !any_of(settings, "output_") {
        return Ok(None);
    }
    let reading = reading(settings, "output", 0.0, 1.0)?;
    let threshold = settings.number("output_threshold", 0.0..=1e9, None)?;
    Ok(Some(OutputReading { reading, threshold }))
}

/// The frame that commands a speed, and where the speed stands in it.
fn velocity(settings: &Settings, common: &Common) -> Result<(Frame, Field), SettingsError> {
    let frame = frame("velocity", required(settings, "velocity", "the frame that commands a speed")?)?;
    if frame.format() == Format::Remote {
        return Err(SettingsError::new("velocity", "cannot be a remote request: it carries nothing"));
    }
    let number = kind(settings, "velocity")?;
    let at = place(settings, "velocity", number.bytes(), frame.payload().len())?;
    let rpm = step(settings, "velocity_rpm_per_count")?;
    let zero = settings.number("velocity_zero", -1e9..=1e9, Some(0.0))?;
    let field = Field { number, at, zero, step: rpm / 60.0 };
    let (least, most) = number.range();
    let reach = f64::from(common.max_speed.0) / field.step.abs();
    if zero - reach < least || zero + reach > most {
        let problem = format!(
            "cannot say every speed from -{0:.1} to {0:.1} rpm (max_rpm): 1 is {rpm} rpm, {zero} stands \
             still, and the \
             type ends at {least} and {most}",
            common.max_speed.rpm()
        );
        return Err(SettingsError::new("velocity_type", problem));
    }
    Ok((frame, field))
}

/// The lists of stop frames, gentlest first.
const STAGES: [(&str, StageKind); 4] = [
    ("controlled", StageKind::Controlled),
    ("quick", StageKind::Quick),
    ("torque_off", StageKind::TorqueOff),
    ("latch", StageKind::Latch),
];

/// A frame that commands a speed neither stops nor asks.
fn commands_no_speed(key: &str, frames: &[Frame], model: &Model) -> Result<(), SettingsError> {
    let field = &model.velocity_field;
    for frame in frames {
        let alike = field.written(frame, 0.0) == field.written(&model.velocity, 0.0);
        let speed = field.read(frame.payload()).unwrap_or(0.0);
        if alike && speed.abs() > field.step.abs() / 2.0 {
            let rpm = speed * 60.0;
            return Err(SettingsError::new(key, format!("has {frame}, which commands {rpm:.3} rpm")));
        }
    }
    Ok(())
}

fn build(settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    let mut model = model(settings, common)?;
    let stop = stop(settings, common, &model)?;
    let poll = frames(settings, "poll", MAX_FRAMES)?;
    let enable = frames(settings, "enable", MOST_ENABLE_FRAMES)?;
    let broadcast = settings.text("broadcast")?.map(|text| frame("broadcast", text)).transpose()?;
    harmless(settings, &model, &stop, &poll, &enable)?;

    let stops: Vec<Frame> = stop.stages().iter().flat_map(|stage| stage.frames.as_slice()).copied().collect();
    let feeds = settings.flag("poll_feeds_watchdog", true)?;
    model.idle_polls = if feeds { Vec::new() } else { poll.clone() };
    model.quiet = stops.iter().chain(&poll).chain(&broadcast).copied().collect();
    let told = stops.iter().chain(&enable).chain(&broadcast).chain([&model.velocity]);
    let commands = unique(ids(settings, "motion")?.into_iter().chain(told.map(Frame::id)));
    model.commands.clone_from(&commands);
    let patterns = model.patterns();
    let reports = unique(patterns.iter().map(Pattern::id));
    if let Some(both) = reports.iter().find(|id| commands.contains(id)) {
        let problem = format!(
            "has identifier {both}, on which the drive is also commanded: its reports would count as commands"
        );
        return Err(SettingsError::new("feedback", problem));
    }
    let shares = unique(ids(settings, "shared")?.into_iter().chain(broadcast.iter().map(Frame::id)));
    let used = poll.iter().map(Frame::id).chain(commands.iter().chain(&reports).copied());
    let owns = unique(used.filter(|id| !shares.contains(id)));
    let sent = model.quiet.iter().chain(&enable).chain([&model.velocity]).map(Frame::format);
    let is_fd = sent.chain(patterns.iter().map(Pattern::format)).any(|format| format == Format::FdBrs);
    let until = model.power.is_some().then_some(Until::Power(Power::On));
    Ok(Drive {
        family: FAMILY.name,
        protocol: Arc::new(model),
        stop,
        enable: enable_programme(&enable, until),
        setpoint: Setpoint::Velocity,
        poll: FrameList::new(&poll),
        poll_when: if feeds { PollWhen::WhenSilent } else { PollWhen::Always },
        broadcast,
        heartbeat: None,
        owns,
        shares,
        slot: None,
        reports,
        commands,
        watchdog: watchdog(settings)?,
        max_speed: common.max_speed,
        format: if is_fd { Format::FdBrs } else { Format::Classic },
    })
}

/// What the drive reports and how a speed is commanded; what is quiet comes from the stops.
fn model(settings: &Settings, common: &Common) -> Result<Model, SettingsError> {
    let (velocity, velocity_field) = velocity(settings, common)?;
    let rpm = step(settings, "speed_rpm_per_count")?;
    let zero = settings.number("speed_zero", -1e9..=1e9, Some(0.0))?;
    let position = if any_of(settings, "position_") {
        let revolutions = step(settings, "position_revs_per_count")?;
        Some(reading(settings, "position", 0.0, revolutions)?)
    } else {
        None
    };
    Ok(Model {
        velocity,
        velocity_field,
        speed: reading(settings, "speed", zero, rpm / 60.0)?,
        position,
        power: power(settings)?,
        output: output(settings)?,
        quiet: Vec::new(),
        idle_polls: Vec::new(),
        commands: Vec::new(),
    })
}

/// Refuses what can be seen to move or enable the drive where nothing may.
fn harmless(
    settings: &Settings,
    model: &Model,
    stop: &StopProgramme,
    poll: &[Frame],
    enable: &[Frame],
) -> Result<(), SettingsError> {
    for ((key, _), stage) in stages_given(settings)?.iter().zip(stop.stages()) {
        commands_no_speed(key, stage.frames.as_slice(), model)?;
    }
    commands_no_speed("poll", poll, model)?;
    match poll.iter().find(|frame| enable.contains(frame)) {
        None => Ok(()),
        Some(both) => {
            let problem = format!("has {both}, which is also in enable: asking would enable the drive");
            Err(SettingsError::new("poll", problem))
        }
    }
}

/// The stages that have frames.
fn stages_given(settings: &Settings) -> Result<Vec<(&'static str, StageKind)>, SettingsError> {
    let mut given = Vec::new();
    for stage in STAGES {
        if !settings.texts(stage.0)?.is_empty() {
            given.push(stage);
        }
    }
    Ok(given)
}

fn stop(settings: &Settings, common: &Common, model: &Model) -> Result<StopProgramme, SettingsError> {
    if settings.texts("torque_off")?.is_empty() {
        return Err(SettingsError::new(
            "torque_off",
            "is missing; give the frames that take the torque away",
        ));
    }
    let no_torque = match (&model.power, &model.output) {
        (Some(_), _) => PowerProof::Off,
        (None, Some(_)) => PowerProof::NoOutput,
        (None, None) => {
            return Err(SettingsError::new(
                "torque_off",
                "could not be proven: give power_byte with power_on and power_off, or output_byte with \
                 output_type and output_threshold",
            ));
        }
    };
    #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution drives report")]
    let step = RevolutionsPerSecond(model.speed.field.step.abs() as f32);
    // A float has no coarsest step: its noise is what limits it.
    let resolution = if model.speed.field.number.has_steps() { step } else { RevolutionsPerSecond::ZERO };
    let default = if resolution.0 > STANDSTILL.0 { resolution } else { STANDSTILL };
    let max_speed = common.standstill_or(default, resolution)?;
    let given = stages_given(settings)?;
    if common.after == AfterStop::Hold && !given.iter().any(|(_, kind)| kind.leaves_torque()) {
        return Err(SettingsError::new(
            "after_stop",
            "cannot hold without frames in controlled or quick: use release, and a brake where a load would \
             fall",
        ));
    }
    let mut stages = Vec::new();
    for (key, kind) in given {
        let power = if kind.leaves_torque() { PowerProof::Any } else { no_torque };
        let frames = FrameList::new(&frames(settings, key, MAX_FRAMES)?);
        stages.push(Stage { kind, frames, proof: Proof { max_speed, samples: SAMPLES, power } });
    }
    Ok(StopProgramme::new(&stages, common.after))
}

/// As many steps as the frames need; only the last one waits, for power where the drive has a word on it.
fn enable_programme(frames: &[Frame], until: Option<Until>) -> EnableProgramme {
    let mut steps: Vec<EnableStep> = frames
        .chunks(MAX_FRAMES)
        .map(|frames| EnableStep { frames: FrameList::new(frames), until: None })
        .collect();
    if let Some(last) = steps.last_mut() {
        last.until = until;
    }
    EnableProgramme::new(&steps)
}

fn watchdog(settings: &Settings) -> Result<Watchdog, SettingsError> {
    let set = match settings.get("watchdog_ms") {
        None => WatchdogSet::ByHand,
        Some(_) => {
            WatchdogSet::ByLanyard(Duration::from_millis(settings.small("watchdog_ms", 1..=60_000, None)?))
        }
    };
    let advice =
        "see the drive's manual: a timeout after which it stops by itself when no command comes, several \
                  times [front] refresh; if one of the enable frames sets it, say so with watchdog_ms"
            .to_owned();
    Ok(Watchdog { set, ask: FrameList::EMPTY, advice })
}

/// Each of them once.
fn unique(ids: impl Iterator<Item = ArbitrationId>) -> Vec<ArbitrationId> {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
