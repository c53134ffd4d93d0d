//! How many connections may be open, and who makes room when all places are taken.
//!
//! A connection that has never carried a call costs its owner nothing, so it is the first to go: whoever only
//! holds connections open keeps nobody out who has something to say. When everybody has called, a new one is
//! closed at once, because a client that is told nothing waits, and one that is refused tries again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::connection::Connection;

/// The places.
#[derive(Debug)]
pub struct Places {
    most: usize,
    /// What in the configuration says so.
    setting: &'static str,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// By number, so that the oldest comes first.
    connections: BTreeMap<u64, Arc<Connection>>,
    said_to_be_full: bool,
}

/// A taken place; free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    id: u64,
}

impl Places {
    /// That many places, all free. `setting`: what in the configuration says so.
    #[must_use]
    pub fn new(most: usize, setting: &'static str) -> Arc<Self> {
        Arc::new(Self { most, setting, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for this connection, if need be that of one which has never called.
    pub fn take(self: &Arc<Self>, connection: &Arc<Connection>) -> Option<Place> {
        let mut taken = self.taken();
        if taken.connections.len() >= self.most {
            let silent = taken.connections.values().find(|other| !other.has_called()).map(|other| other.id);
            if let Some(oldest) = silent.and_then(|id| taken.connections.remove(&id)) {
                oldest.dismiss();
            } else {
                if !std::mem::replace(&mut taken.said_to_be_full, true) {
                    warn!("{} connections are in use; more are closed at once ({})", self.most, self.setting);
                }
                return None;
            }
        } else {
            taken.said_to_be_full = false;
        }
        taken.connections.insert(connection.id, Arc::clone(connection));
        Some(Place { places: Arc::clone(self), id: connection.id })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().connections.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::connection::Connection;
    use super::Places;

    fn connection() -> Arc<Connection> {
        let address = ([127, 0, 0, 1], 1).into();
        Connection::new(address, address)
    }

    #[tokio::test]
    async fn who_has_never_called_makes_room_and_who_has_called_stays() {
        let places = Places::new(2, "max_connections");
        let (idle, busy, late) = (connection(), connection(), connection());
        let _idle = places.take(&idle).unwrap();
        let kept = places.take(&busy).unwrap();
        busy.note_call(http::Version::HTTP_2);
        let _late = places.take(&late).unwrap();
        idle.dismissed().await;
        late.note_call(http::Version::HTTP_2);
        assert!(places.take(&connection()).is_none(), "both have called");
        drop(kept);
        assert!(places.take(&connection()).is_some());
    }
}
