//! Where the verdicts come from, across restarts of the supervisor: a segment outlives its writer, so
//! one that has fallen silent is asked for anew, without ever waiting for the answer.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvError, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use config::Config;
use shm_proto::handover::{self, Error};
use shm_proto::{Nanos, VerdictView};

use crate::health::loop_is_stale;
use crate::status::Status;

const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// The verdicts of whichever supervisor runs.
pub struct Source {
    socket: PathBuf,
    config: Option<Config>,
    view: VerdictView,
    asked: Option<Receiver<Result<VerdictView, Error>>>,
    last_try: Instant,
}

/// How long the socket of those who look may take before the operators' is asked, too.
const HEAD_START: Duration = Duration::from_millis(500);

/// Asks for the verdicts: at the socket of those who look, and if that does not answer soon, at the operators', which shows
/// them as well. A program that keeps the one waiting has no way to the other.
pub fn observe(socket: &Path) -> Result<VerdictView, Error> {
    let (answer, answers) = channel();
    let ask = |path: PathBuf| {
        let answer = answer.clone();
        thread::spawn(move || answer.send(handover::observe(&path)));
    };
    ask(socket.to_owned());
    if let Ok(answer) = answers.recv_timeout(HEAD_START) {
        return answer;
    }
    ask(config::operator_socket_beside(socket));
    let either =
        |answer: Result<Result<VerdictView, Error>, RecvError>| answer.unwrap_or(Err(Error::Unexpected));
    // Whoever is no operator is turned away there at once.
    either(answers.recv()).or_else(|_| either(answers.recv()))
}

impl Source {
    /// Asks the supervisor for its verdicts.
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        Ok(Self::of(observe(socket)?, socket))
    }

    /// With verdicts already at hand.
    pub fn of(view: VerdictView, socket: &Path) -> Self {
        Self { socket: socket.to_owned(), config: None, view, asked: None, last_try: Instant::now() }
    }

    /// With a configuration, which explains drives' faults if it is the supervisor's.
    pub fn explained_by(self, config: Option<Config>) -> Self {
        Self { config, ..self }
    }

    /// The present verdicts.
    pub const fn view(&self) -> &VerdictView {
        &self.view
    }

    /// All of them at this moment.
    pub fn status(&self) -> Status {
        Status::read(&self.view, Nanos::now(), self.config.as_ref())
    }

    /// Looks for a new supervisor when the present one is silent. True: there is one.
    pub fn renew(&mut self) -> bool {
        match self.asked.as_ref().map(Receiver::try_recv) {
            None => {
                let silent = loop_is_stale(Nanos::now().since(self.view.beat().1));
                if silent && self.last_try.elapsed() >= BETWEEN_TRIES {
                    self.ask();
                }
                false
            }
            Some(Err(TryRecvError::Empty)) => false,
            Some(Err(TryRecvError::Disconnected) | Ok(Err(_))) => {
                self.asked = None;
                false
            }
            Some(Ok(Ok(view))) => {
                self.asked = None;
                let other = |view: &VerdictView| (view.pid(), view.started());
                if other(&view) == other(&self.view) {
                    return false;
                }
                self.view = view;
                true
            }
        }
    }

    /// On a thread of its own, because a supervisor that hangs takes seconds not to answer.
    fn ask(&mut self) {
        let (answer, asked) = channel();
        let socket = self.socket.clone();
        self.last_try = Instant::now();
        self.asked = Some(asked);
        thread::spawn(move || answer.send(observe(&socket)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_silent_supervisor_is_asked_for_without_waiting() {
        // The fixture's supervisor beat long ago, and nobody listens at the socket.
        let (segment, view) = fixture::healthy();
        segment.beat(1, Nanos::ZERO);
        let mut source = Source::of(view, Path::new("/no/such/socket"));
        source.last_try = Instant::now().checked_sub(BETWEEN_TRIES).unwrap();
        assert!(!source.renew());
        assert!(source.asked.is_some());
        while source.asked.is_some() {
            assert!(!source.renew());
        }
    }

    #[test]
    fn a_live_supervisor_is_left_alone() {
        let (segment, view) = fixture::healthy();
        segment.beat(1, Nanos::now());
        let mut source = Source::of(view, Path::new("/no/such/socket"));
        source.last_try = Instant::now().checked_sub(BETWEEN_TRIES).unwrap();
        assert!(!source.renew());
        assert!(source.asked.is_none());
    }
}
