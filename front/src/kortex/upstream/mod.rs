//! A real base behind: what is not served here goes there and back unchanged but for the numbers of session and message.
//!
//! Each session here has one there, over a connection of its own, kept alive for as long as its client has one here. When
//! what it drives must stop, the base is told so beside the supervisor's stop on CAN, and told again until it answers.
//! If Lanyard itself is gone, the base hears nothing more and stops by its own rule.
//!
//! | file | its one idea |
//! |---|---|
//! | [`line`] | one connection to the base: calls there, answers back |
//! | [`mqtt`] | the client's side of generation 3 |
//! | [`reading`] | which methods move nothing |

mod line;
mod mqtt;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::KortexUpstream;
use prost::Message as _;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::channel::{Channel, Transport};
use super::frame::{Frame, Header, SessionNumber};
use super::method;
use super::refusal::{Refusal, Sub};
use super::roster::{Gone, Leaving};
use crate::proto::kortex::CreateSessionInfo;
use line::{Line, Place};
pub use reading::moves;

/// How long an ordinary call may take: what real clients wait for one.
const CALL: Duration = Duration::from_secs(10);
/// How often a session is kept alive there: as real clients do.
const KEEP_ALIVE: Duration = Duration::from_millis(150);
/// How often a Stop is sent before it is given up. The supervisor has stopped what hangs on CAN.
const STOP_TRIES: u32 = 5;
/// Pause between two tries: a base that is busy gets time, a person waits no moment longer.
const STOP_PAUSE: Duration = Duration::from_millis(100);

/// A session's other half.
struct Half {
    line: Arc<Line>,
    /// Its number there.
    number: SessionNumber,
    beating: JoinHandle<()>,
}

impl Drop for Half {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

/// The base.
pub struct Base {
    settings: KortexUpstream,
    /// By their numbers here.
    halves: Mutex<HashMap<SessionNumber, Arc<Half>>>,
}

impl Base {
    /// The base of a configuration; nobody is connected yet.
    #[must_use]
    pub fn new(settings: KortexUpstream) -> Arc<Self> {
        Arc::new(Self { settings, halves: Mutex::default() })
    }

    fn halves(&self) -> MutexGuard<'_, HashMap<SessionNumber, Arc<Half>>> {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, transport: Transport) -> Option<Place> {
        match transport {
            Transport::Tcp => self.settings.tcp.map(Place::Tcp),
            Transport::Udp => self.settings.udp.map(Place::Udp),
            Transport::Mqtt => self.settings.mqtt.map(Place::Mqtt),
        }
    }

    /// Opens the other half of a session. Returns when the base has answered; `lost` runs when the connection to it ends
    /// before the session does.
    ///
    /// # Errors
    ///
    /// The base's own refusal, or why it was not reached.
    pub async fn open(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        session: SessionNumber,
        info: &CreateSessionInfo,
        lost: impl FnOnce() + Send + 'static,
    ) -> Result<(), Refusal> {
        let Some(place) = self.place(channel.transport) else {
            let text = format!("[kortex.upstream] names no base for clients over {:?}", channel.transport);
            return Err(Refusal::device(Sub::RouterUnavailable, text));
        };
        let info = self.credentials(info).await?;
        let (line, ended) =
            Line::open(place, self.settings.stop_timeout, Arc::downgrade(channel), session).await?;
        let asked = info.encode_to_vec().into();
        let answer = line.call(method::CREATE_SESSION, 0, SessionNumber::default(), asked, CALL).await?;
        if let Some(refusal) = Refusal::of(&answer) {
            return Err(refusal);
        }
        let number = answer.header.session;
        let beating = tokio::spawn(beat(Arc::clone(&line), number));
        self.halves().insert(session, Arc::new(Half { line, number, beating }));
        let base = Arc::downgrade(self);
        tokio::spawn(async move {
            let why = ended.await;
            let known = base.upgrade().and_then(|base| base.halves().remove(&session));
            if known.is_some() {
                warn!("the base behind Kortex session {session} is lost: {why}");
                lost();
            }
        });
        Ok(())
    }

    /// Whom to log in as there.
    async fn credentials(&self, info: &CreateSessionInfo) -> Result<CreateSessionInfo, Refusal> {
        let Some(login) = &self.settings.login else { return Ok(info.clone()) };
        let password = tokio::fs::read_to_string(&login.password_file).await.map_err(|error| {
            let text = format!("cannot log in at the base: {}: {error}", login.password_file.display());
            Refusal::device(Sub::RouterUnavailable, text)
        })?;
        Ok(CreateSessionInfo {
            username: login.user.clone(),
            password: password.trim_end().to_owned(),
            ..info.clone()
        })
    }

    fn half(&self, session: SessionNumber) -> Result<Arc<Half>, Refusal> {
        self.halves().get(&session).cloned().ok_or_else(|| {
            let text = "the connection to the base behind is lost: close this session and open another";
            Refusal::device(Sub::RouterUnavailable, text)
        })
    }

    /// Passes a call on. Returns the base's answer, under the numbers that its client knows.
    ///
    /// # Errors
    ///
    /// When the base is lost, or does not answer.
    pub async fn pass(&self, session: SessionNumber, request: &Frame) -> Result<Frame, Refusal> {
        let half = self.half(session)?;
        let Header { method, device, .. } = request.header;
        let answer = half.line.call(method, device, half.number, request.payload.clone(), CALL).await?;
        let header = Header { session, message: request.header.message, ..answer.header };
        Ok(Frame { header, payload: answer.payload })
    }

    /// Has the base stop what a session moves, and tells it again until it answers.
    pub async fn stop(&self, session: SessionNumber) {
        let Ok(half) = self.half(session) else { return };
        for attempt in 1..=STOP_TRIES {
            let stop =
                half.line.call(method::STOP, 0, half.number, bytes::Bytes::new(), self.settings.stop_timeout);
            let why = match stop.await {
                Ok(answer) => match Refusal::of(&answer) {
                    None => return info!("the base was told to stop for Kortex session {session}"),
                    Some(refusal) => refusal,
                },
                Err(why) => why,
            };
            warn!(
                "the base did not stop for Kortex session {session} (try {attempt} of {STOP_TRIES}): {why}"
            );
            sleep(STOP_PAUSE).await;
        }
    }

    /// Ends the other half of a session that is over here; what it may have moved is stopped first.
    pub async fn close(&self, Gone { session, leaving }: Gone) {
        match leaving {
            Leaving::Moving => self.stop(session).await,
            Leaving::Nothing => {}
        }
        let Some(half) = self.halves().remove(&session) else { return };
        // A base that does not answer closes it by itself.
        let close = half.line.call(
            method::CLOSE_SESSION,
            0,
            half.number,
            bytes::Bytes::new(),
            self.settings.stop_timeout,
        );
        drop(close.await);
    }
}

async fn beat(line: Arc<Line>, number: SessionNumber) {
    let mut ticks = interval(KEEP_ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Lost datagrams are made up for by the next one; a lost connection ends all this.
        drop(line.call(method::KEEP_ALIVE, 0, number, bytes::Bytes::new(), KEEP_ALIVE).await);
    }
}
