//! One client's connection, as everything behind the transport knows it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::Version;
use shm_proto::Nanos;
use tokio::sync::Notify;

use crate::order::Ahead;

/// What shows that the program at the other end runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It answers our pings (HTTP/2).
    Pings,
    /// Only what it sends by itself (HTTP/1).
    OwnBytes,
}

/// A connection; part of the extensions of every request that came over it.
#[derive(Debug)]
pub struct Connection {
    /// Its number; no other connection of this process ever has it.
    pub id: u64,
    /// The client's address.
    pub remote: SocketAddr,
    /// This machine's address.
    pub local: SocketAddr,
    /// Its stops that were not looked at yet.
    pub ahead: Arc<Ahead>,
    heard: AtomicU64,
    called: AtomicBool,
    pings: AtomicBool,
    dismissal: Notify,
    is_dismissed: AtomicBool,
}

impl Connection {
    /// A connection that has just been made.
    #[must_use]
    pub fn new(remote: SocketAddr, local: SocketAddr) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            remote,
            local,
            ahead: Arc::default(),
            heard: AtomicU64::new(Nanos::now().0),
            called: AtomicBool::new(false),
            pings: AtomicBool::new(false),
            dismissal: Notify::new(),
            is_dismissed: AtomicBool::new(false),
        })
    }

    /// When bytes came from the client last.
    #[must_use]
    pub fn heard(&self) -> Nanos {
        Nanos(self.heard.load(Ordering::Relaxed))
    }

    /// Bytes have come from the client.
    pub fn note_heard(&self) {
        self.heard.store(Nanos::now().0, Ordering::Relaxed);
    }

    /// What shows that its client runs; known from its first request on.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        if self.pings.load(Ordering::Relaxed) { Liveness::Pings } else { Liveness::OwnBytes }
    }

    /// A request has come over it, in that version of HTTP.
    pub fn note_call(&self, version: Version) {
        self.called.store(true, Ordering::Relaxed);
        self.pings.store(version == Version::HTTP_2, Ordering::Relaxed);
    }

    /// Whether it has ever carried a request.
    #[must_use]
    pub fn has_called(&self) -> bool {
        self.called.load(Ordering::Relaxed)
    }

    /// Asks whoever serves it to close it at once.
    pub fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Relaxed);
        self.dismissal.notify_one();
    }

    /// Whether it is to be closed.
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        self.is_dismissed.load(Ordering::Relaxed)
    }

    /// Returns when it is to be closed.
    pub async fn dismissed(&self) {
        self.dismissal.notified().await;
    }
}
