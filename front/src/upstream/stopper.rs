//! The upstream's own Stop for what a session that has ended used last.
//!
//! It comes beside the stop on CAN, never before it or in its place: only when the supervisor has published the end
//! of the session, which it does after its stop frames, or when that takes too long. Each resource is on its own: one
//! whose Stop hangs holds up no other. While a Stop is under way, commands for that resource wait for its end, so that
//! it never stops what the next user has just begun; and what somebody else uses by then is not stopped.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shm_proto::SessionId;
use shm_proto::verdicts::SessionState;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tracing::{error, info, warn};

use super::lane::Lane;
use super::monitored;
use crate::sessions::{Cause, Hold};

/// How long the supervisor's word on the end of a session is waited for. It comes within some milliseconds; a
/// supervisor that is gone says nothing more.
const WORD: Duration = Duration::from_millis(200);
/// How often it is looked for; a look costs nanoseconds.
const LOOK: Duration = Duration::from_millis(1);
/// How often a Stop is tried while the upstream can be reached.
const TRIES: u32 = 5;
/// Pause after the first try, doubled with each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// Stops under way.
#[derive(Debug)]
pub struct Stops {
    under_way: Mutex<HashSet<Box<str>>>,
    over: Notify,
    /// Resources that are still to be stopped.
    owed: watch::Sender<usize>,
}

impl Default for Stops {
    fn default() -> Self {
        Self { under_way: Mutex::default(), over: Notify::new(), owed: watch::Sender::new(0) }
    }
}

/// A Stop under way; over when this is dropped.
struct UnderWay<'a> {
    stops: &'a Stops,
    resource: &'a str,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.stops.under_way().remove(self.resource);
        self.stops.over.notify_waiters();
    }
}

/// A resource that is to be stopped; done or given up when this is dropped.
struct Owed(Arc<Stops>);

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.owed.send_modify(|owed| *owed = owed.saturating_sub(1));
    }
}

impl Stops {
    fn under_way(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when no Stop of that resource is under way. To be asked by a command after its use was noted.
    pub async fn quiet(&self, resource: &str) {
        loop {
            let mut over = std::pin::pin!(self.over.notified());
            over.as_mut().enable();
            if !self.under_way().contains(resource) {
                return;
            }
            over.await;
        }
    }

    /// Returns when nothing is to be stopped any more.
    pub async fn settled(&self) {
        // The sender lives in `self`.
        drop(self.owed.subscribe().wait_for(|owed| *owed == 0).await);
    }

    fn begin<'a>(&'a self, resource: &'a str) -> UnderWay<'a> {
        self.under_way().insert(resource.into());
        UnderWay { stops: self, resource }
    }
}

/// What a Stop needs to know.
pub struct Errand {
    /// The resource's key: `arm/arm1`.
    pub resource: Box<str>,
    /// The session that has ended.
    pub session: SessionId,
    /// Why it has.
    pub cause: Cause,
    /// Its end, as the supervisor sees it.
    pub hold: Hold,
    /// How long one call may take.
    pub within: Duration,
}

/// Whom a Stop goes to and what it says of itself.
pub trait Behind: Send + Sync + 'static {
    /// The lane that nothing but stops is on.
    fn lane(&self) -> &Lane;
    /// One call of a Stop, within a time.
    fn stop(
        &self,
        path: &str,
        resource: &str,
        message: &[u8],
        within: Duration,
    ) -> impl Future<Output = Result<(), Status>> + Send;
    /// Whether a session that lives has used the resource since.
    fn is_used(&self, resource: &str) -> bool;
    /// How long the server may still be at work for commands of the resource that were taken back.
    fn unsettled(&self, resource: &str) -> Option<Duration>;
}

/// Stops one resource, however often it must be tried, in a task of its own. A kind that has no Stop is left alone.
pub fn stop<B: Behind>(stops: &Arc<Stops>, behind: Arc<B>, errand: Errand) {
    let Some((kind, name)) = errand.resource.split_once('/') else { return };
    let Some(path) = monitored::stop_path(kind) else { return };
    let name = name.to_owned();
    stops.owed.send_modify(|owed| *owed += 1);
    let owed = Owed(Arc::clone(stops));
    tokio::spawn(async move {
        published(&errand.hold).await;
        carry_out(&owed.0, &*behind, &errand, &path, &name).await;
    });
}

/// Waits for the supervisor's word that the session is over, but not for long.
async fn published(hold: &Hold) {
    let until = Instant::now() + WORD;
    loop {
        let (incarnation, state) = hold.attachment.verdicts.session_state(hold.owner.slot);
        let over = incarnation > hold.owner.incarnation
            || (incarnation == hold.owner.incarnation && state != SessionState::Live);
        if over || Instant::now() >= until {
            return;
        }
        sleep(LOOK).await;
    }
}

async fn carry_out<B: Behind>(stops: &Stops, behind: &B, errand: &Errand, path: &str, name: &str) {
    let Errand { resource, session, cause, within, .. } = errand;
    let message = named(name);
    let mut pause = PAUSE;
    for number in 1..=TRIES {
        // An upstream that is away is waited for: it may come back with what it was doing.
        behind.lane().open().await;
        // What is at work now may come after this Stop.
        let settles = behind.unsettled(resource);
        let tried = {
            let _under_way = stops.begin(resource);
            if behind.is_used(resource) {
                info!("{resource} is not stopped after session {session}: somebody else uses it by now");
                return;
            }
            behind.stop(path, resource, &message, *within).await
        };
        let why = match tried {
            Ok(()) => {
                info!("{resource} was stopped upstream after session {session} ended: {cause}");
                let Some(settles) = settles else { return };
                info!("{resource} is stopped once more when its commands that were taken back have settled");
                sleep(settles).await;
                continue;
            }
            Err(why) => why,
        };
        let told = format!("{:?}, {}", why.code(), why.message());
        if matches!(why.code(), Code::Unimplemented | Code::NotFound) {
            warn!("{resource} cannot be stopped upstream after session {session}: {told}");
            return;
        }
        if number == TRIES {
            error!("{resource} was not stopped upstream after session {session}: {told}; given up");
            return;
        }
        warn!("{resource} was not stopped upstream after session {session}: {told}; trying again");
        sleep(pause).await;
        pause *= 2;
    }
}

/// A message with this as its field 1.
fn named(name: &str) -> Vec<u8> {
    use prost::Message as _;
    #[derive(Clone, PartialEq, prost::Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    Named { name: name.to_owned() }.encode_to_vec()
}
