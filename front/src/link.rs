//! The link to the supervisor: attached at start, watched, and made anew in place when it breaks.
//!
//! What lives here: the hand-over from the front's side, the front's own beat, and the end of both.
//! The beat comes from a task of the runtime on purpose: a runtime that hangs falls silent, and the
//! supervisor stops the motors.
//!
//! What must never live here: sessions, or anything a client can reach.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use config::Config;
use shm_proto::handover::{self, PACKET};
use shm_proto::{BeatSegment, BeatWriter, SessionId, VerdictView, Window};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

/// How long the front waits for the supervisor at start, and for a refusal to be taken back later.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two tries: short against everything an operator notices, long against a hand-over.
const RETRY: Duration = Duration::from_millis(200);
/// Beats within one window: four may be late or lost before the supervisor takes the front for dead.
const BEATS_PER_WINDOW: u32 = 5;

/// What one hand-over gave. It ends with the supervisor; a new supervisor means a new one.
#[derive(Debug)]
pub struct Attachment {
    /// The beats, for writing.
    pub beats: Arc<BeatSegment>,
    /// The verdicts, for reading.
    pub verdicts: VerdictView,
    gone: AtomicBool,
}

impl Attachment {
    /// Both sides of the shared memory, just handed over.
    #[must_use]
    pub fn new(beats: Arc<BeatSegment>, verdicts: VerdictView) -> Arc<Self> {
        Arc::new(Self { beats, verdicts, gone: AtomicBool::new(false) })
    }

    /// Whether the supervisor of this hand-over is gone: nobody reads these beats any more, and no
    /// grant in these verdicts means anything.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }
}

/// The present attachment, if there is one.
#[derive(Debug, Default)]
pub struct Link {
    current: RwLock<Option<Arc<Attachment>>>,
}

impl Link {
    /// The present attachment; `None` while there is no supervisor.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Attachment>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A link to exactly this attachment, as if it had just been handed over.
    #[cfg(test)]
    pub fn to(attachment: Arc<Attachment>) -> Arc<Self> {
        let link = Arc::new(Self::default());
        link.set(Some(attachment));
        link
    }

    /// What happens when the supervisor goes (`None`) or another one comes.
    pub(crate) fn set(&self, attachment: Option<Arc<Attachment>>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = current.take() {
            old.gone.store(true, Ordering::SeqCst);
        }
        *current = attachment;
    }
}

/// Why there is no link, for good.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody answered for [`PATIENCE`].
    #[error("{0}; gave up after {seconds} s. Start lanyard-supervisor first", seconds = PATIENCE.as_secs())]
    Unreachable(handover::Error),
    /// The supervisor said no.
    #[error(
        "{0}. Check that no other lanyard-front runs and that both programs come from the same version \
         and read the same configuration file (after a change, restart the supervisor first)"
    )]
    Refused(handover::Error),
    /// The system did not let the front watch the connection.
    #[error("cannot watch the connection to the supervisor: {0}")]
    Watch(std::io::Error),
}

/// What the hand-over needs to know.
#[derive(Clone, Debug)]
struct Terms {
    socket: PathBuf,
    config_hash: u64,
    window: Duration,
}

/// One live connection and the beat that belongs to it.
#[derive(Debug)]
struct Bond {
    connection: UnixStream,
    pulse: JoinHandle<()>,
}

impl Drop for Bond {
    fn drop(&mut self) {
        self.pulse.abort();
    }
}

/// Keeps the link up for as long as the program runs.
#[derive(Debug)]
pub struct Keeper {
    link: Arc<Link>,
    terms: Terms,
    bond: Bond,
}

/// Attaches for the first time.
///
/// # Errors
///
/// When the supervisor refuses, or is not there for ten seconds.
pub async fn attach(config: &Config) -> Result<(Arc<Link>, Keeper), LinkError> {
    let terms = Terms {
        socket: config.supervisor.front_socket.clone(),
        config_hash: config.hash,
        window: config.supervisor.front_window,
    };
    let link = Arc::new(Link::default());
    let begun = Instant::now();
    let mut waiting = false;
    let bond = loop {
        match terms.hand_over(&link).await {
            Ok(bond) => break bond,
            Err(LinkError::Unreachable(why)) if begun.elapsed() < PATIENCE => {
                if !waiting {
                    warn!("{why}; trying again for {} s", PATIENCE.as_secs());
                    waiting = true;
                }
                sleep(RETRY).await;
            }
            Err(other) => return Err(other),
        }
    };
    info!("attached to the supervisor at {}", terms.socket.display());
    Ok((Arc::clone(&link), Keeper { link, terms, bond }))
}

impl Keeper {
    /// Watches the connection and attaches again whenever it ended. Clients stay connected meanwhile;
    /// their sessions do not survive, because a new supervisor knows nothing of them.
    ///
    /// Returns only when the supervisor went on refusing: then another start, with the configuration
    /// as it is by then, is the only way on.
    pub async fn keep(mut self) -> LinkError {
        loop {
            end_of(&self.bond.connection).await;
            self.link.set(None);
            self.bond.pulse.abort();
            warn!("the supervisor is gone; all sessions are forgotten and nothing moves until it is back");
            match self.attach_again().await {
                Ok(bond) => self.bond = bond,
                Err(error) => return error,
            }
        }
    }

    async fn attach_again(&self) -> Result<Bond, LinkError> {
        let begun = Instant::now();
        let mut refused_since: Option<Instant> = None;
        loop {
            match self.terms.hand_over(&self.link).await {
                Ok(bond) => {
                    info!("attached to the supervisor again after {:.1} s", begun.elapsed().as_secs_f64());
                    return Ok(bond);
                }
                Err(LinkError::Unreachable(_)) => refused_since = None,
                Err(error) => {
                    let since = *refused_since.get_or_insert_with(|| {
                        error!("{error}; trying again for {} s", PATIENCE.as_secs());
                        Instant::now()
                    });
                    if since.elapsed() >= PATIENCE {
                        return Err(error);
                    }
                }
            }
            sleep(RETRY).await;
        }
    }
}

impl Terms {
    /// One try. On success the link has its attachment and the front beats.
    async fn hand_over(&self, link: &Link) -> Result<Bond, LinkError> {
        let Self { socket, config_hash, window } = self.clone();
        let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let done = tokio::task::spawn_blocking(move || {
            let attached = handover::attach(&socket, config_hash)?;
            let mut writer = attached.beats.front_writer();
            // The supervisor's patience with the front begins now, not when the task gets its turn.
            writer.open(SessionId(uuid::Uuid::new_v4().as_u128()), Window(nanos));
            Ok((attached, writer))
        })
        .await
        .map_err(|panicked| LinkError::Watch(std::io::Error::other(panicked)))?;
        let (attached, writer) = done.map_err(|error| match error {
            handover::Error::Io(..) => LinkError::Unreachable(error),
            handover::Error::Refused(_) | handover::Error::Unexpected => LinkError::Refused(error),
        })?;
        let connection = StdUnixStream::from(attached.connection);
        connection.set_nonblocking(true).map_err(LinkError::Watch)?;
        let connection = UnixStream::from_std(connection).map_err(LinkError::Watch)?;
        let pulse = tokio::spawn(pulse(writer, window / BEATS_PER_WINDOW));
        link.set(Some(Attachment::new(attached.beats, attached.verdicts)));
        Ok(Bond { connection, pulse })
    }
}

/// The front's own beat, until it is aborted.
async fn pulse(mut writer: BeatWriter, period: Duration) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        writer.beat();
    }
}

/// Waits until the other side is gone. Packets that come meanwhile mean nothing here.
async fn end_of(connection: &UnixStream) {
    let mut packet = [0; PACKET];
    loop {
        if connection.readable().await.is_err() {
            return;
        }
        match connection.try_read(&mut packet) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
