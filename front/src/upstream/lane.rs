//! The way to the upstream for one kind of calls: a connection that is made, watched, and made anew when it is lost.
//!
//! It is `h2` itself and not a client on top of it: one task less on the way of every call, the upstream's own
//! reset codes, and its limit of calls known before one is given away. A lane is open only once a PING was answered: a
//! process that was stopped has a kernel that accepts connections in its name.
//!
//! An upstream that says goodbye to a connection (GOAWAY) is not lost: the next one is opened for new calls, and those
//! under way are finished on the old one.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong, Reason};
use http::{HeaderValue, Request, Uri, Version, header};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tracing::{debug, info, warn};

use super::ask::{USER_AGENT, framed};
use super::gathering::Gathering;
use super::route::{Route, Wire};
use super::streams::{Stream, Streams};

/// Pause before the second try, doubled with each further one up to the last. The first is short against the time
/// a server needs to start, the last short against a person's patience.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How often in one window it is looked whether anything was heard.
const LOOKS_PER_WINDOW: u32 = 4;
/// What is asked when an answer is awaited and nothing is heard. Whatever comes back is a sign of life, also that there
/// is no such method. A question is not a PING: servers of gRPC count those, and close a connection that has many.
const QUESTION: &str = "/grpc.health.v1.Health/Check";
/// How long a call waits until the upstream has room for it. Longer, and its client has given it up or sent a newer one.
const ROOM_WITHIN: Duration = Duration::from_secs(1);
/// The most that the pause between two looks is doubled to when the upstream finds them too many.
const MOST_PATIENCE: u32 = 64;
/// What one call's answer may hold back while its client does not read: what flow control keeps in this process.
const CALL_WINDOW: u32 = 1 << 20;
/// The connection's own window: as large as HTTP/2 has it, so that no number of calls that are not read keeps the
/// others waiting. Each call has its own limit.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// What one call may have written that the upstream has not taken.
const SEND_BUFFER: usize = 1 << 20;
/// Largest frame that is taken: large messages in fewer pieces.
const FRAME: u32 = 1 << 16;

/// Whether calls can go out.
#[derive(Clone)]
enum State {
    /// Yes, with this.
    Open(Open),
    /// No, and why.
    Closed(Arc<str>),
}

/// A connection that takes calls.
#[derive(Clone)]
struct Open {
    sender: SendRequest<Bytes>,
    streams: Arc<Streams>,
    /// Where it is asked whether it lives.
    question: Uri,
}

/// Room for one call.
pub struct Slot {
    /// What it goes out with.
    pub sender: SendRequest<Bytes>,
    /// Its room, to be kept until it has ended.
    pub stream: Stream,
}

/// What a connection says to one more call.
enum Room {
    Free(Slot),
    /// As many as the upstream allows are under way.
    Full,
    /// It takes no more at all: the upstream has said goodbye, or it is lost.
    Over,
}

impl Open {
    fn room(&self) -> Room {
        let mut sender = self.sender.clone();
        // A fresh clone is ready or has failed.
        if let Poll::Ready(Err(_)) = sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            return Room::Over;
        }
        match self.streams.take(sender.current_max_send_streams()) {
            Some(stream) => Room::Free(Slot { sender, stream }),
            None => Room::Full,
        }
    }
}

/// Whether something that the upstream was told goes on although no call is under way.
pub type Awaited = Arc<dyn Fn() -> bool + Send + Sync>;

/// A lane.
#[derive(Clone)]
pub struct Lane {
    state: watch::Receiver<State>,
    /// How often it was lost after it had been open.
    losses: watch::Receiver<u64>,
    /// Where it leads.
    pub route: Route,
}

/// The task behind a lane. The lane closes for good when this is dropped.
#[derive(Debug)]
pub struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Lane {
    /// A lane that is open as long as the upstream lets it be. `window`: silent for so long while an answer is awaited,
    /// it is lost. `name`: what it is for, in the log. `awaited`: whether an answer is awaited although no call is under
    /// way.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn keep(route: Route, window: Duration, name: &'static str, awaited: Awaited) -> (Self, Keeper) {
        let first: Arc<str> = format!("the upstream {} has not answered yet", route.shown).into();
        let (state, states) = watch::channel(State::Closed(first));
        let (losses, lost) = watch::channel(0);
        let lane = Self { state: states, losses: lost, route: route.clone() };
        let keeping = tokio::spawn(keep(Kept { route, window, name, awaited, state, losses }));
        (lane, Keeper(keeping))
    }

    /// Whether calls can go out.
    ///
    /// # Errors
    ///
    /// Why they cannot.
    pub fn is_open(&self) -> Result<(), Arc<str>> {
        match &*self.state.borrow() {
            State::Open(_) => Ok(()),
            State::Closed(why) => Err(Arc::clone(why)),
        }
    }

    /// Whether a call could go out now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        matches!(&*self.state.borrow(), State::Open(open) if matches!(open.room(), Room::Free(_)))
    }

    /// Room for one call, waited for if need be.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE when the upstream is away, or has no room for a second.
    pub async fn slot(&self) -> Result<Slot, Status> {
        if let State::Open(open) = &*self.state.borrow()
            && let Room::Free(slot) = open.room()
        {
            return Ok(slot);
        }
        match timeout(ROOM_WITHIN, self.room()).await {
            Ok(room) => room.map_err(|why| Status::unavailable(&*why)),
            Err(_) => Err(Status::unavailable(format!(
                "the upstream {} had no room for this call for {} ms: as many as it allows on one connection are under \
                 way; it was not passed on",
                self.route.shown,
                ROOM_WITHIN.as_millis()
            ))),
        }
    }

    async fn room(&self) -> Result<Slot, Arc<str>> {
        let mut states = self.state.clone();
        let gone = |_| Arc::from("the front ends");
        loop {
            let open = match &*states.borrow_and_update() {
                State::Open(open) => open.clone(),
                State::Closed(why) => return Err(Arc::clone(why)),
            };
            let mut freed = pin!(open.streams.freed());
            freed.as_mut().enable();
            match open.room() {
                Room::Free(slot) => return Ok(slot),
                Room::Full => tokio::select! {
                    () = freed => {}
                    changed = states.changed() => changed.map_err(gone)?,
                },
                Room::Over => states.changed().await.map_err(gone)?,
            }
        }
    }

    /// Returns when it is open; never once its keeper is gone.
    pub async fn open(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| matches!(state, State::Open(_))).await.is_err() {
            std::future::pending().await
        }
    }

    /// How often it was lost, to be watched.
    #[must_use]
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.losses.clone()
    }
}

/// What a lane's task keeps.
struct Kept {
    route: Route,
    window: Duration,
    name: &'static str,
    awaited: Awaited,
    state: watch::Sender<State>,
    losses: watch::Sender<u64>,
}

async fn keep(kept: Kept) {
    let Kept { route, window, name, awaited, state, losses } = kept;
    let shown = Arc::clone(&route.shown);
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    let mut patience = 1;
    // When the upstream said goodbye to the last connection, while there is no next one.
    let mut goodbye: Option<Instant> = None;
    let mut leaving = JoinSet::new();
    loop {
        // Those that have ended.
        while leaving.try_join_next().is_some() {}
        let looks =
            Looks { window, every: window / LOOKS_PER_WINDOW * patience, awaited: Arc::clone(&awaited) };
        let why = match Line::open(&route, window).await {
            Ok((open, mut line)) => {
                match goodbye.take() {
                    None => info!("the upstream {shown} answers ({name})"),
                    Some(_) => debug!("the upstream {shown} has taken the next connection ({name})"),
                }
                (pause, told) = (FIRST_PAUSE, false);
                state.send_replace(State::Open(open));
                match line.until_over(&looks).await {
                    Over::Goodbye(reason) => {
                        if reason == Reason::ENHANCE_YOUR_CALM {
                            patience = (patience * 2).min(MOST_PATIENCE);
                            warn!(
                                "the upstream {shown} is asked too often whether it lives (too_many_pings); from now on \
                                 it is asked half as often ({name})"
                            );
                        } else {
                            info!(
                                "the upstream {shown} wants new calls on another connection; opening it ({name})"
                            );
                        }
                        goodbye = Some(Instant::now());
                        leaving.spawn(async move { line.until_over(&looks).await });
                        continue;
                    }
                    Over::Lost(why) => format!("the upstream {shown} is lost: {why}"),
                }
            }
            // Between two connections it may be away for a moment.
            Err(_) if goodbye.is_some_and(|since| since.elapsed() < window) => {
                sleep(window / LOOKS_PER_WINDOW).await;
                continue;
            }
            Err(why) if goodbye.is_some() => {
                format!(
                    "the upstream {shown} is lost: it has said goodbye and cannot be reached since: {why}"
                )
            }
            Err(why) => {
                let why: Arc<str> = format!("the upstream {shown} cannot be reached: {why}").into();
                if !std::mem::replace(&mut told, true) {
                    warn!("{why} ({name}); trying again until it can");
                }
                state.send_replace(State::Closed(why));
                sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
                continue;
            }
        };
        goodbye = None;
        warn!("{why} ({name})");
        state.send_replace(State::Closed(why.into()));
        losses.send_modify(|losses| *losses += 1);
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// When and how it is looked whether the upstream lives.
struct Looks {
    window: Duration,
    every: Duration,
    awaited: Awaited,
}

/// How a connection came to its end.
enum Over {
    /// The upstream takes no new calls on it.
    Goodbye(Reason),
    /// It is no more, or silent.
    Lost(String),
}

/// A connection that is open.
struct Line {
    running: JoinHandle<Result<(), h2::Error>>,
    /// Until it was heard.
    goodbye: Option<oneshot::Receiver<Reason>>,
    pings: PingPong,
    heard: Arc<AtomicU64>,
    open: Open,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Line {
    /// Connects, and waits for the first sign of life.
    async fn open(route: &Route, window: Duration) -> io::Result<(Open, Self)> {
        let silent = |what: &str| {
            io::Error::new(io::ErrorKind::TimedOut, format!("{what} for {} ms", window.as_millis()))
        };
        let wire = timeout(window, route.connect())
            .await
            .unwrap_or_else(|_| Err(silent("nobody took the connection")))?;
        let heard = Arc::clone(wire.listener());
        let (sender, mut connection) = handshake(wire).await.map_err(io::Error::other)?;
        let pings = connection.ping_pong().ok_or_else(|| io::Error::other("no PING is possible"))?;
        let (says, goodbye) = oneshot::channel();
        let attentive = Attentive { connection, listening: Some((sender.clone(), says)) };
        let running = tokio::spawn(Gathering::new(attentive));
        let open = Open { sender, streams: Arc::default(), question: question_at(route) };
        let mut line = Self { running, goodbye: Some(goodbye), pings, heard, open: open.clone() };
        match timeout(window, line.pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => Ok((open, line)),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(silent("it took the connection but answered no PING")),
        }
    }

    /// Returns when the upstream has said goodbye, the connection has ended, or it was silent for the window.
    async fn until_over(&mut self, looks: &Looks) -> Over {
        let Self { running, goodbye, pings, heard, open } = self;
        let said = async {
            let Some(says) = goodbye.as_mut() else { return std::future::pending().await };
            match says.await {
                Ok(reason) => {
                    *goodbye = None;
                    reason
                }
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = said => match reason {
                Reason::NO_ERROR | Reason::ENHANCE_YOUR_CALM => Over::Goodbye(reason),
                reason => Over::Lost(format!("it ends the connection: {reason}")),
            },
            ended = running => Over::Lost(match ended {
                Ok(Err(error)) => error.to_string(),
                Ok(Ok(())) => "it closed the connection".to_owned(),
                Err(error) => error.to_string(),
            }),
            why = silence(pings, heard, open, looks) => Over::Lost(why),
        }
    }
}

/// A connection that tells when the upstream wants no new calls on it.
struct Attentive {
    connection: Connection<Wire>,
    listening: Option<(SendRequest<Bytes>, oneshot::Sender<Reason>)>,
}

impl Future for Attentive {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        if let Some((sender, _)) = &mut self.listening
            && let Poll::Ready(Err(error)) = sender.poll_ready(cx)
            && let Some((_, says)) = self.listening.take()
            && error.is_go_away()
            && error.is_remote()
            && let Some(reason) = error.reason()
        {
            // The lane may be gone.
            let _ = says.send(reason);
            // With the last sender gone the connection ends after its last call.
            cx.waker().wake_by_ref();
        }
        polled
    }
}

async fn handshake(wire: Wire) -> Result<(SendRequest<Bytes>, Connection<Wire>), h2::Error> {
    h2::client::Builder::new()
        .initial_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_frame_size(FRAME)
        .enable_push(false)
        .handshake(wire)
        .await
}

/// Returns when an answer is awaited and nothing was heard for the window, or nothing can be asked.
async fn silence(pings: &mut PingPong, heard: &AtomicU64, open: &Open, looks: &Looks) -> String {
    let Looks { window, every, awaited } = looks;
    let mut before = heard.load(Ordering::Relaxed);
    loop {
        sleep(*every).await;
        let now = heard.load(Ordering::Relaxed);
        // A connection that is idle may be silent: what breaks it in the meantime, the kernel notices.
        if std::mem::replace(&mut before, now) != now || (open.streams.is_idle() && !awaited()) {
            continue;
        }
        let mut until = Instant::now() + window.saturating_sub(*every).max(*window / 2);
        let mut sign = pin!(sign_of_life(pings, open));
        loop {
            match tokio::time::timeout_at(until, &mut sign).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => return error.to_string(),
                // A long message may be under way in front of the answer.
                Err(_) if heard.load(Ordering::Relaxed) != before => {
                    before = heard.load(Ordering::Relaxed);
                    until = Instant::now() + *window;
                }
                Err(_) => return format!("it was silent for {} ms", window.as_millis()),
            }
        }
        before = heard.load(Ordering::Relaxed);
    }
}

/// Asks something and waits for the answer, whatever it is. Where there is no room for a call, a PING has to do.
async fn sign_of_life(pings: &mut PingPong, open: &Open) -> Result<(), h2::Error> {
    let Room::Free(Slot { mut sender, stream: _stream }) = open.room() else {
        return pings.ping(Ping::opaque()).await.map(drop);
    };
    let (answer, mut stream) = sender.send_request(question(&open.question), false)?;
    stream.send_data(framed(&[]), true)?;
    let mut body = match answer.await {
        Ok(answer) => answer.into_body(),
        // Refused, it has still been heard.
        Err(error) if error.is_reset() => return Ok(()),
        Err(error) => return Err(error),
    };
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(())
}

fn question_at(route: &Route) -> Uri {
    let whole =
        Uri::builder().scheme(route.scheme()).authority(route.authority.clone()).path_and_query(QUESTION);
    // All three are there, so this is a URI.
    whole.build().unwrap_or_default()
}

fn question(uri: &Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri.clone();
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    request
}
