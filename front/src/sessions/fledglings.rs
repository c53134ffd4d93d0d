//! Sessions that ended before their client's first beat.
//!
//! The Viam Python client beats once while it still holds the lock under which it opened the session. If
//! that one beat is answered with SESSION_EXPIRED, the client deadlocks for ever (measured). So the first
//! beat of a session that has died in the meantime is answered with success. It revives nothing; the
//! next call tells the truth, and every client copes with that.

use std::collections::VecDeque;

use shm_proto::{Nanos, SessionId};

use super::identity::Entity;

/// More than can be opened at once.
const MOST: usize = 1024;
/// A client that has not beaten by then has no call under way.
const KEPT: u64 = 60_000_000_000;

/// The ids whose first beat is still to come, oldest first.
#[derive(Debug, Default)]
pub struct Fledglings(VecDeque<(SessionId, Entity, Nanos)>);

impl Fledglings {
    /// Remembers one; the oldest falls out when there are too many.
    pub fn note(&mut self, id: SessionId, entity: Entity, now: Nanos) {
        self.forget_old(now);
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((id, entity, now));
    }

    /// Whether this is the first beat of such a session. True once.
    pub fn take(&mut self, id: SessionId, entity: &Entity, now: Nanos) -> bool {
        self.forget_old(now);
        let found = self.0.iter().position(|(known, owner, _)| *known == id && owner.is(entity));
        found.is_some_and(|place| self.0.remove(place).is_some())
    }

    fn forget_old(&mut self, now: Nanos) {
        while self.0.front().is_some_and(|(_, _, noted)| now.since(*noted) > KEPT) {
            self.0.pop_front();
        }
    }
}
