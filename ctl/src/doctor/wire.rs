//! Questions to drives, over CAN: one frame out, and whatever its drive says to it within a time.

use std::io;
use std::time::{Duration, Instant};

use config::Config;
use drivers::{Frame, WatchdogReading, socket};
use socketcan::{CanFdSocket, Socket};

/// How long an answer may take. A drive that is not busy answers within some milliseconds; ten times that on a bus that
/// is.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a question is put: the supervisor asks the same drive, which may drop the second of two questions.
const TRIES: usize = 3;

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The drive has answered.
    Reading(WatchdogReading),
    /// It has not.
    Nothing,
    /// There is no bus to ask it over; the text says why and what to do.
    NoBus(String),
}

/// Takes questions to drives.
pub trait Wire {
    /// Puts a question on the bus of that place in the configuration; `read` knows the answer from other frames.
    fn ask(
        &mut self,
        bus: usize,
        question: &Frame,
        read: &dyn Fn(&Frame) -> Option<WatchdogReading>,
    ) -> Answer;
}

/// The CAN interfaces of a configuration.
pub struct Can {
    interfaces: Vec<String>,
}

impl Can {
    /// Opens nothing yet.
    pub fn new(config: &Config) -> Self {
        Self { interfaces: config.buses.iter().map(|bus| bus.interface.clone()).collect() }
    }
}

impl Wire for Can {
    fn ask(
        &mut self,
        bus: usize,
        question: &Frame,
        read: &dyn Fn(&Frame) -> Option<WatchdogReading>,
    ) -> Answer {
        let Some(interface) = self.interfaces.get(bus) else { return Answer::Nothing };
        match ask(interface, question, read) {
            Ok(Some(reading)) => Answer::Reading(reading),
            Ok(None) => Answer::Nothing,
            Err(error) => Answer::NoBus(format!(
                "CAN interface \"{interface}\": {error}; is it there and up? ip link set {interface} up"
            )),
        }
    }
}

fn ask(
    interface: &str,
    question: &Frame,
    read: &dyn Fn(&Frame) -> Option<WatchdogReading>,
) -> io::Result<Option<WatchdogReading>> {
    let can = CanFdSocket::open(interface)?;
    let frame = socket::to_socket(question).ok_or(io::ErrorKind::InvalidInput)?;
    for _ in 0..TRIES {
        can.write_frame(&frame)?;
        let until = Instant::now() + PATIENCE;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let answer = match can.read_frame_timeout(left) {
                Ok(frame) => socket::from_socket(&frame),
                Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                    break;
                }
                Err(error) => return Err(error),
            };
            if let Some(reading) = answer.as_ref().and_then(read) {
                return Ok(Some(reading));
            }
        }
    }
    Ok(None)
}
