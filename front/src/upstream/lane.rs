//! One HTTP/2 connection to the upstream: made, watched, and made anew when it is lost.
//!
//! It is `h2` itself and not a client on top of it: one task less on the way of every call, the upstream's own
//! reset codes, and PINGs of our own. A lane is open only once a PING was answered: a process that was
//! stopped has a kernel that accepts connections in its name.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::gathering::Gathering;
use super::route::{Route, Wire};

/// Pause before the second try, doubled with each further one up to the last. The first is short against the time
/// a server needs to start, the last short against a person's patience.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// PINGs in one window, so that one that is late does not look like silence.
const PINGS_PER_WINDOW: u32 = 4;
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
pub enum State {
    /// Yes, with this.
    Open(SendRequest<Bytes>),
    /// No, and why.
    Closed(Arc<str>),
}

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
    /// A lane that is open as long as the upstream lets it be. `window`: silent for so long, it is lost. `name`:
    /// what it is for, in the log.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn keep(route: Route, window: Duration, name: &'static str) -> (Self, Keeper) {
        let first: Arc<str> = format!("the upstream {} has not answered yet", route.shown).into();
        let (state, states) = watch::channel(State::Closed(first));
        let (losses, lost) = watch::channel(0);
        let lane = Self { state: states, losses: lost, route: route.clone() };
        let keeping = tokio::spawn(keep(route, window, name, state, losses));
        (lane, Keeper(keeping))
    }

    /// What calls go out with.
    ///
    /// # Errors
    ///
    /// Why they cannot.
    pub fn sender(&self) -> Result<SendRequest<Bytes>, Arc<str>> {
        match &*self.state.borrow() {
            State::Open(sender) => Ok(sender.clone()),
            State::Closed(why) => Err(Arc::clone(why)),
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

async fn keep(
    route: Route,
    window: Duration,
    name: &'static str,
    state: watch::Sender<State>,
    losses: watch::Sender<u64>,
) {
    let shown = Arc::clone(&route.shown);
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let why = match Line::open(&route, window).await {
            Ok((sender, line)) => {
                info!("the upstream {shown} answers ({name})");
                (pause, told) = (FIRST_PAUSE, false);
                state.send_replace(State::Open(sender));
                let why = line.until_lost().await;
                let why: Arc<str> = format!("the upstream {shown} is lost: {why}").into();
                warn!("{why} ({name})");
                state.send_replace(State::Closed(Arc::clone(&why)));
                losses.send_modify(|losses| *losses += 1);
                why
            }
            Err(why) => {
                let why: Arc<str> = format!("the upstream {shown} cannot be reached: {why}").into();
                if !std::mem::replace(&mut told, true) {
                    warn!("{why} ({name}); trying again until it can");
                }
                why
            }
        };
        state.send_replace(State::Closed(why));
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// A connection that is open.
struct Line {
    running: JoinHandle<Result<(), h2::Error>>,
    pings: PingPong,
    heard: Arc<AtomicU64>,
    window: Duration,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Line {
    /// Connects, and waits for the first sign of life.
    async fn open(route: &Route, window: Duration) -> io::Result<(SendRequest<Bytes>, Self)> {
        let silent = |what: &str| {
            io::Error::new(io::ErrorKind::TimedOut, format!("{what} for {} ms", window.as_millis()))
        };
        let wire = timeout(window, route.connect())
            .await
            .unwrap_or_else(|_| Err(silent("nobody took the connection")))?;
        let heard = Arc::clone(wire.listener());
        let (sender, mut connection) = handshake(wire).await.map_err(io::Error::other)?;
        let pings = connection.ping_pong().ok_or_else(|| io::Error::other("no PING is possible"))?;
        let mut line = Self { running: tokio::spawn(Gathering::new(connection)), pings, heard, window };
        match timeout(window, line.pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => Ok((sender, line)),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(silent("it took the connection but answered no PING")),
        }
    }

    /// Returns when the connection has ended, or was silent for the window; says why.
    async fn until_lost(mut self) -> String {
        tokio::select! {
            ended = &mut self.running => match ended {
                Ok(Err(error)) => error.to_string(),
                Ok(Ok(())) => "it closed the connection".to_owned(),
                Err(error) => error.to_string(),
            },
            why = silence(&mut self.pings, &self.heard, self.window) => why,
        }
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

/// Returns when no PING was answered and nothing else was heard for the window, or PINGs are impossible.
async fn silence(pings: &mut PingPong, heard: &AtomicU64, window: Duration) -> String {
    let every = window / PINGS_PER_WINDOW;
    loop {
        sleep(every).await;
        let mut before = heard.load(Ordering::Relaxed);
        let mut until = Instant::now() + (window - every);
        let pong = pings.ping(Ping::opaque());
        tokio::pin!(pong);
        loop {
            match tokio::time::timeout_at(until, &mut pong).await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => return error.to_string(),
                // A long message may be under way in front of the answer.
                Err(_) if heard.load(Ordering::Relaxed) != before => {
                    before = heard.load(Ordering::Relaxed);
                    until = Instant::now() + window;
                }
                Err(_) => return format!("it was silent for {} ms", window.as_millis()),
            }
        }
    }
}
