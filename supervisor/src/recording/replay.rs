//! Plays a recording: the same core, from the same beginning, is given the same inputs and must answer the same.

use core::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use config::Config;
use drivers::Frame;
use shm_proto::crc::Crc;
use shm_proto::verdicts::Identity;
use shm_proto::{BeatCopy, Nanos, VerdictSegment, VerdictView};

use super::entry::{Entry, Fields, Kind};
use super::header::Header;
use super::input::{Input, read_frame};
use crate::core::{SendError, Wire};
use crate::start;

/// A recording that was played and has come out the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Calls of the core.
    pub inputs: u64,
    /// Frames that it has sent, and looks at what it has published.
    pub outputs: u64,
    /// How the recording ends.
    pub end: End,
}

/// How a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the last word of its supervisor.
    Complete,
    /// In the middle: the supervisor was killed, has panicked, or still runs, or its disk took no more.
    Cut,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} inputs, {} outputs, identical", self.inputs, self.outputs)?;
        match self.end {
            End::Complete => Ok(()),
            End::Cut => {
                write!(
                    f,
                    "; the recording ends in the middle: its supervisor was killed or still runs, or its disk was full"
                )
            }
        }
    }
}

/// Plays the recording that these bytes are.
///
/// # Errors
/// With the first difference; or why it cannot be played: it is none, broken, damaged, or of another version.
pub fn replay(bytes: &[u8]) -> Result<Replayed, String> {
    let words: Vec<u64> =
        bytes.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes).collect();
    let (header, entries, sum) = Header::read(&words)?;
    let config = Config::parse(Path::new("the recording"), &header.config)
        .map_err(|error| format!("its configuration is not valid for this program: {error}"))?;
    let Header { pid, started, inheritance, .. } = header;
    let names: Vec<&str> = config.motors.iter().map(|motor| motor.name.as_str()).collect();
    let buses: Vec<&str> = config.buses.iter().map(|bus| bus.name.as_str()).collect();
    let identity = Identity { config_hash: config.hash, pid, started, policy: config.supervisor.reset };
    let capacity = config.supervisor.capacity;
    let memory = |error: io::Error| format!("shared memory: {error}");
    let (verdicts, fd) = VerdictSegment::create(capacity, &identity, &names, &buses).map_err(memory)?;
    let view = VerdictView::map(fd.as_fd(), capacity).map_err(memory)?;
    let mut core = start::build_core(&config, buses.len(), verdicts);
    core.inherit(&inheritance);

    let mut stage = Stage::new(entries, sum);
    let mut front: Option<BeatCopy> = None;
    while let Some(entry) = stage.next()? {
        let given = Input::read(&entry).map_err(|damaged| stage.at(damaged))?;
        if let Some(input) = given {
            stage.inputs += 1;
            stage.last = Some(input);
            // Made outside of the call, so that a refusal of the kernel is told as such.
            let mut came = match input {
                Input::Attach { .. } => Some(BeatCopy::new(capacity).map_err(memory)?),
                _ => None,
            };
            input.give(&mut core, &mut stage, |generation| {
                let (copy, view) = came.take()?;
                front = Some(copy);
                Some(view.handed_over_as(generation))
            });
            stage.difference.take().map_or(Ok(()), Err)?;
            continue;
        }
        let mut fields = entry.fields();
        let mut word = || fields.take().map_err(|damaged| stage.at(damaged));
        match entry.kind() {
            Kind::Word => {
                let (place, value) = (word()?, word()?);
                let place = usize::try_from(place).unwrap_or(usize::MAX);
                front.iter().for_each(|front| front.set(place, value));
            }
            Kind::Verdicts => {
                let (recorded, published) = (word()?, u64::from(view.digest()));
                stage.outputs += 1;
                if recorded != published {
                    return Err(stage.at("what the core has published by now is not what was recorded"));
                }
            }
            Kind::Lost => {
                return Err(format!(
                    "the recording is broken: {} entries are missing behind the first {} inputs, so that nothing can be \
                     said of it",
                    word()?,
                    stage.inputs
                ));
            }
            Kind::Complete => return Ok(stage.replayed(End::Complete)),
            _ => {
                return Err(stage
                    .at(format!("the core does not send or ask what was recorded here: {}", Told(&entry))));
            }
        }
    }
    Ok(stage.replayed(End::Cut))
}

/// The recording as far as it was played; to the core it is the buses and the clock.
struct Stage<'a> {
    rest: &'a [u64],
    sum: Crc,
    inputs: u64,
    outputs: u64,
    last: Option<Input>,
    difference: Option<String>,
}

impl<'a> Stage<'a> {
    fn new(rest: &'a [u64], sum: Crc) -> Self {
        Self { rest, sum, inputs: 0, outputs: 0, last: None, difference: None }
    }

    /// The next entry; `None` at the end, or where the last one is not whole.
    fn next(&mut self) -> Result<Option<Entry>, String> {
        let mut fields = Fields(self.rest);
        let Ok(signed) = fields.take() else { return Ok(None) };
        let head = signed & u64::from(u32::MAX);
        let length = Entry::length(head).map_err(|damaged| self.at(damaged))?;
        let Ok(words) = fields.take_some(length as u64) else { return Ok(None) };
        let sum = words.iter().fold(self.sum.word(head), |sum, word| sum.word(*word));
        if u64::from(sum.finish()) != signed >> 32 {
            return Err(self.at("the recording is damaged here"));
        }
        (self.rest, self.sum) = (fields.0, sum);
        Entry::read(head, words).map(Some).map_err(|damaged| self.at(damaged))
    }

    /// Says what is wrong, and where.
    fn at(&self, what: impl fmt::Display) -> String {
        match &self.last {
            None => format!("at the beginning: {what}"),
            Some(input) => format!("at input {}, {input:?}: {what}", self.inputs),
        }
    }

    fn replayed(&self, end: End) -> Replayed {
        Replayed { inputs: self.inputs, outputs: self.outputs, end }
    }

    /// The next entry, which must be of that kind: the core does something. Without one, the difference is noted.
    fn expect(&mut self, kind: Kind, done: impl fmt::Display) -> Option<Entry> {
        if self.difference.is_some() {
            return None;
        }
        match self.next() {
            Ok(Some(entry)) if entry.kind() == kind => Some(entry),
            // It ends here: no difference.
            Ok(None) => {
                self.rest = &[];
                None
            }
            Ok(Some(entry)) => {
                self.difference = Some(self.at(format!("the core {done}; recorded: {}", Told(&entry))));
                None
            }
            Err(problem) => {
                self.difference = Some(problem);
                None
            }
        }
    }
}

impl Wire for Stage<'_> {
    fn send(&mut self, bus: usize, frame: &Frame) -> Result<(), SendError> {
        let sends = format!("sends {frame} on bus {bus}");
        let Some(entry) = self.expect(Kind::Sent, &sends) else { return Ok(()) };
        let Some((answer, recorded_bus, recorded)) = read_sent(&entry) else {
            self.difference = Some(self.at("the recording is damaged here"));
            return Ok(());
        };
        if (recorded_bus, recorded) != (bus, *frame) {
            self.difference = Some(self.at(format!("the core {sends}; recorded: {}", Told(&entry))));
        }
        self.outputs += 1;
        answer
    }

    fn now(&mut self) -> Nanos {
        let entry = self.expect(Kind::Now, "asks for the moment");
        entry.and_then(|entry| entry.words().first().copied()).map_or(Nanos::ZERO, Nanos)
    }
}

/// What became of a frame, its bus, and the frame.
fn read_sent(entry: &Entry) -> Option<(Result<(), SendError>, usize, Frame)> {
    let mut fields = entry.fields();
    let errno = fields.number::<u32>().ok()?.cast_signed();
    let answer = if errno == 0 { Ok(()) } else { Err(SendError::from_errno(errno)) };
    Some((answer, fields.number().ok()?, read_frame(&mut fields).ok()?))
}

/// An entry in words.
struct Told<'a>(&'a Entry);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.kind(), read_sent(self.0), Input::read(self.0)) {
            (Kind::Sent, Some((_, bus, frame)), _) => write!(f, "it sends {frame} on bus {bus}"),
            (Kind::Now, ..) => write!(f, "it asks for the moment"),
            (_, _, Ok(Some(input))) => write!(f, "the next input, {input:?}"),
            (kind, ..) => write!(f, "{kind:?}"),
        }
    }
}
