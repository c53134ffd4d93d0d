//! The calls that one connection has under way, counted here: h2 keeps a call that the server has no room for to itself
//! and sends it when there is room, whatever has happened since.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The calls of one connection.
#[derive(Debug, Default)]
pub struct Streams {
    under_way: AtomicUsize,
    freed: Notify,
}

/// One of them; it has ended when this is dropped.
#[derive(Debug)]
pub struct Stream(Arc<Streams>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_waiters();
    }
}

impl Streams {
    /// Begins a call, if fewer than `most` are under way.
    #[must_use]
    pub fn take(self: &Arc<Self>, most: usize) -> Option<Stream> {
        let more = |under_way: usize| (under_way < most).then_some(under_way + 1);
        let taken = self.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Stream(Arc::clone(self)))
    }

    /// Whether none is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    /// Returns when one has ended.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }
}
