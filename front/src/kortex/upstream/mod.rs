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
//! | [`turns`] | calls go there in the order in which they came |
//! | [`reading`] | which methods move nothing |

mod line;
mod mqtt;
mod reading;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::KortexUpstream;
use prost::Message as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::channel::{Channel, Transport};
use super::frame::{Frame, Header, SessionNumber};
use super::method;
use super::refusal::{Refusal, Sub};
use super::roster::{Gone, Leaving};
use crate::proto::kortex::CreateSessionInfo;
use line::{Call, Line, Place};
pub use reading::moves;
use turns::{Turn, Turns};

/// How long an ordinary call may take: what real clients wait for one.
const CALL: Duration = Duration::from_secs(10);
/// How often a session is kept alive there: as real clients do.
const KEEP_ALIVE: Duration = Duration::from_millis(150);
/// Silent for so long, the base hangs: it has left a dozen keep-alives unanswered. Clients in C++ give a call up after 3 s,
/// and are told why before.
const SILENCE: Duration = Duration::from_secs(2);
/// How long the end of this program waits for sessions to be ended there: for every try of a Stop that may take as long as
/// it does unless configured.
const FAREWELL: Duration = Duration::from_secs(4);
/// How often a Stop is sent before it is given up. The supervisor has stopped what hangs on CAN.
const STOP_TRIES: u32 = 5;
/// Pause between two tries: a base that is busy gets time, a person waits no moment longer.
const STOP_PAUSE: Duration = Duration::from_millis(100);

/// A session's other half.
struct Half {
    line: Arc<Line>,
    /// Its number there.
    number: SessionNumber,
    /// Whose it is.
    channel: u64,
    turns: Arc<Turns>,
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
    /// How many are being ended.
    closing: watch::Sender<usize>,
}

impl Base {
    /// The base of a configuration; nobody is connected yet.
    #[must_use]
    pub fn new(settings: KortexUpstream) -> Arc<Self> {
        Arc::new(Self { settings, halves: Mutex::default(), closing: watch::Sender::new(0) })
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
        let (base, client) = (Arc::downgrade(self), Arc::downgrade(channel));
        let news = move |frame| {
            if let (Some(base), Some(client)) = (base.upgrade(), client.upgrade()) {
                base.tell(&client, session, frame);
            }
        };
        let wanted = channel.wanted.subscribe();
        let (line, ended) = Line::open(place, self.settings.stop_timeout, wanted, news).await?;
        let payload = info.encode_to_vec().into();
        let login = Call { payload, ..Call::plain(method::CREATE_SESSION, SessionNumber::default()) };
        let answer = line.call(login, CALL).await?;
        if let Some(refusal) = Refusal::of(&answer) {
            return Err(refusal);
        }
        let number = answer.header.session;
        let beating = tokio::spawn(beat(Arc::clone(&line), number));
        let half = Half { line, number, channel: channel.id(), turns: Arc::default(), beating };
        self.halves().insert(session, Arc::new(half));
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

    /// Passes news on. Over MQTT they are for a client, not for a session, and each of its sessions hears them.
    fn tell(&self, client: &Channel, session: SessionNumber, frame: Frame) {
        let mine =
            |(number, half): (&SessionNumber, &Arc<Half>)| (half.channel == client.id()).then_some(*number);
        let is_told = match client.transport {
            Transport::Tcp | Transport::Udp => true,
            Transport::Mqtt => self.halves().iter().filter_map(mine).min() == Some(session),
        };
        if is_told {
            let header = Header { session, ..frame.header };
            client.notify(Frame { header, payload: frame.payload });
        }
    }

    fn half(&self, session: SessionNumber) -> Result<Arc<Half>, Refusal> {
        self.halves().get(&session).cloned().ok_or_else(|| {
            let text = "the connection to the base behind is lost: close this session and open another";
            Refusal::device(Sub::RouterUnavailable, text)
        })
    }

    /// A place for a call that is about to be passed on, behind those of its session that came before.
    ///
    /// # Errors
    ///
    /// When the base is lost.
    pub fn turn(&self, session: SessionNumber) -> Result<Turn, Refusal> {
        Ok(self.half(session)?.turns.take())
    }

    /// Passes a call on, whether or not its turn has come, which is over as soon as it is on its way. Returns the base's
    /// answer, under the numbers that its client knows.
    ///
    /// # Errors
    ///
    /// When the base is lost, or does not answer.
    pub async fn pass(&self, session: SessionNumber, request: &Frame, turn: Turn) -> Result<Frame, Refusal> {
        let half = self.half(session)?;
        let Header { method, device, .. } = request.header;
        let payload = request.payload.clone();
        let call = Call { method, device, session: half.number, payload, turn: Some(turn) };
        let answer = tokio::select! {
            answer = half.line.call(call, CALL) => answer?,
            () = half.line.silent_for(SILENCE) => {
                let text = format!("the base behind says nothing, for {} ms by now", SILENCE.as_millis());
                return Err(Refusal::device(Sub::MethodTimeout, text));
            }
        };
        let header = Header { session, message: request.header.message, ..answer.header };
        Ok(Frame { header, payload: answer.payload })
    }

    /// Has the base stop what a session moves, and tells it again until it answers.
    pub async fn stop(&self, session: SessionNumber) {
        let Ok(half) = self.half(session) else { return };
        for attempt in 1..=STOP_TRIES {
            let stop = Call::plain(method::STOP, half.number);
            let why = match half.line.call(stop, self.settings.stop_timeout).await {
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

    /// Ends the other half of a session that is over here; what it may have moved is stopped first. Nobody waits for it.
    pub fn close(self: &Arc<Self>, gone: Gone) {
        self.closing.send_modify(|closing| *closing += 1);
        let base = Arc::clone(self);
        tokio::spawn(async move {
            base.end(gone).await;
            base.closing.send_modify(|closing| *closing -= 1);
        });
    }

    /// Returns when every session that is over here has been ended there or given up, but in time for the program's end.
    pub async fn settle(&self) {
        let mut closing = self.closing.subscribe();
        // Past it the supervisor has stopped what hangs on CAN, and the base does not answer.
        drop(timeout(FAREWELL, closing.wait_for(|closing| *closing == 0)).await);
    }

    async fn end(&self, Gone { session, leaving }: Gone) {
        match leaving {
            Leaving::Moving => self.stop(session).await,
            Leaving::Nothing => {}
        }
        let Some(half) = self.halves().remove(&session) else { return };
        // A base that does not answer closes it by itself.
        let close = Call::plain(method::CLOSE_SESSION, half.number);
        drop(half.line.call(close, self.settings.stop_timeout).await);
    }
}

async fn beat(line: Arc<Line>, number: SessionNumber) {
    let mut ticks = interval(KEEP_ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Lost datagrams are made up for by the next one; a lost connection ends all this.
        drop(line.call(Call::plain(method::KEEP_ALIVE, number), KEEP_ALIVE).await);
    }
}
