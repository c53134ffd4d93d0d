//! The identity behind a request.

use std::time::Duration;

use http::Extensions;
use keys::{Key, Role};
use tonic::Status;

use super::token::Proof;
use crate::sessions::Entity;

/// Who calls; part of the extensions of every request that passed the gate.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose sessions these are.
    pub entity: Entity,
    /// What they may do.
    pub role: Role,
    /// The longest window of their sessions, if theirs is shorter than everybody's.
    pub window: Option<Duration>,
    /// The key that proves it, if one was needed.
    pub(super) proof: Option<Proof>,
}

impl Caller {
    /// Who did not have to say who they are; they may do everything.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { entity: Entity::anonymous(), role: Role::Administer, window: None, proof: None }
    }

    /// Names a caller whose login was not checked here: it is good for telling callers apart, and for nothing else.
    #[must_use]
    pub fn unchecked(pseudonym: &str) -> Self {
        Self { entity: Entity::unchecked(pseudonym), ..Self::anonymous() }
    }

    /// Who was not asked: for what everybody may call.
    #[must_use]
    pub fn stranger() -> Self {
        Self { role: Role::Observe, ..Self::anonymous() }
    }

    /// Who has that key.
    #[must_use]
    pub fn with(key: &Key) -> Self {
        let entity = Entity::new(&key.id.to_string());
        Self { entity, role: key.role, window: key.window, proof: Some(Proof::of(key)) }
    }

    /// The caller of a request.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED when it has not passed the gate.
    pub fn of(extensions: &Extensions) -> Result<&Self, Status> {
        extensions.get::<Self>().ok_or_else(|| Status::unauthenticated("authentication required"))
    }
}
