//! Why sessions have ended, for their own clients: a refusal says more than "expired".

use std::collections::VecDeque;

use shm_proto::SessionId;

use super::identity::Entity;

/// More than can be open at once, so that a client that comes back soon is told.
const MOST: usize = 1024;

/// The last endings, oldest first.
#[derive(Debug, Default)]
pub struct Endings(VecDeque<(SessionId, Entity, String)>);

impl Endings {
    /// Remembers one; the oldest falls out when there are too many.
    pub fn note(&mut self, id: SessionId, entity: Entity, why: String) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((id, entity, why));
    }

    /// Why that session of that entity has ended; `None` for one that is unknown or another's.
    pub fn why(&self, id: SessionId, entity: &Entity) -> Option<&str> {
        let ending = self.0.iter().rev().find(|(known, owner, _)| *known == id && owner.is(entity));
        ending.map(|(.., why)| why.as_str())
    }
}
