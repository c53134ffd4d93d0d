//! One client's connection, as everything behind the transport knows it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// A connection; part of the extensions of every request that came over it.
#[derive(Debug)]
pub struct Connection {
    /// Its number; no other connection of this process ever has it.
    pub id: u64,
    /// The client's address.
    pub remote: SocketAddr,
    /// This machine's address.
    pub local: SocketAddr,
    called: AtomicBool,
    dismissal: Notify,
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
            called: AtomicBool::new(false),
            dismissal: Notify::new(),
        })
    }

    /// A request has come over it.
    pub fn note_call(&self) {
        self.called.store(true, Ordering::Relaxed);
    }

    /// Whether it has ever carried a request.
    #[must_use]
    pub fn has_called(&self) -> bool {
        self.called.load(Ordering::Relaxed)
    }

    /// Asks whoever serves it to close it at once.
    pub fn dismiss(&self) {
        self.dismissal.notify_one();
    }

    /// Returns when it is to be closed.
    pub async fn dismissed(&self) {
        self.dismissal.notified().await;
    }
}
