//! Who calls, and what they may do.
//!
//! What lives here: the identity behind every request. It is known before anything of the request is acted on.

use std::time::Duration;

use http::Extensions;
use tonic::Status;

use crate::sessions::Entity;

/// Who calls; part of the extensions of every request that passed the gate.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose sessions these are.
    pub entity: Entity,
    /// The longest window of their sessions, if theirs is shorter than everybody's.
    pub window: Option<Duration>,
}

impl Caller {
    /// Who did not have to say who they are.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { entity: Entity::anonymous(), window: None }
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
