//! A client's end, as the services know it, whatever carries its frames.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Semaphore, mpsc, watch};
use tracing::debug;

use super::frame::{Frame, Method};
use crate::transport::Connection;

/// Frames that may wait for a client to read them: a client of generation 2 that reads at all has none.
const MOST_UNREAD: usize = 64;
/// Calls of one client that may be under way: they wait for drives, and a newer command takes over from an older one.
const MOST_UNDER_WAY: usize = 32;

/// What carries a client's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Generation 2, with a head before each frame.
    Tcp,
    /// Both generations, a datagram for each frame.
    Udp,
    /// Generation 3, a message for each frame.
    Mqtt,
}

/// A call that takes its time.
pub type Later = Pin<Box<dyn Future<Output = Frame> + Send>>;

/// The end.
#[derive(Debug)]
pub struct Channel {
    /// The connection below; of UDP, the two addresses.
    pub connection: Arc<Connection>,
    /// What carries its frames.
    pub transport: Transport,
    /// What it wants to be told of by a base behind. Over MQTT only: with the others it is a call that asks for it.
    pub wanted: watch::Sender<BTreeSet<Method>>,
    outbox: mpsc::Sender<Frame>,
    under_way: Arc<Semaphore>,
    has_left: AtomicBool,
}

impl Channel {
    /// A client's end, and what is to be sent to it besides immediate answers.
    #[must_use]
    pub fn new(connection: Arc<Connection>, transport: Transport) -> (Arc<Self>, mpsc::Receiver<Frame>) {
        let (outbox, unread) = mpsc::channel(MOST_UNREAD);
        let under_way = Arc::new(Semaphore::new(MOST_UNDER_WAY));
        let channel = Self {
            connection,
            transport,
            wanted: watch::Sender::default(),
            outbox,
            under_way,
            has_left: AtomicBool::new(false),
        };
        (Arc::new(channel), unread)
    }

    /// Its number; no other connection of this process ever has it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.connection.id
    }

    /// Sends what the client has not asked for just now. A client that does not read loses its connection: what it
    /// missed it would take for not having happened.
    pub fn notify(&self, frame: Frame) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.outbox.try_send(frame) {
            debug!("connection {} from {} does not read", self.connection.id, self.connection.remote);
            self.connection.dismiss();
        }
    }

    /// Its connection is over, whatever is still under way.
    pub fn leave(&self) {
        self.has_left.store(true, Ordering::Release);
    }

    /// Whether its connection is over.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Acquire)
    }

    /// Whether no call is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.under_way.available_permits() == MOST_UNDER_WAY
    }

    /// Carries a call out beside others, and sends its answer. `false`: too many are under way.
    #[must_use]
    pub fn attend(&self, call: Later) -> bool {
        let outbox = self.outbox.clone();
        // Fails when the client has gone.
        self.carry_out(async move { drop(outbox.send(call.await).await) })
    }

    /// Carries something out beside others, even if the client goes. `false`: too many are under way.
    #[must_use]
    pub fn carry_out(&self, work: impl Future<Output = ()> + Send + 'static) -> bool {
        let Ok(permit) = Arc::clone(&self.under_way).try_acquire_owned() else { return false };
        tokio::spawn(async move {
            work.await;
            drop(permit);
        });
        true
    }
}
