//! Who a session belongs to and where it came from, whatever the protocol.

use std::net::SocketAddr;
use std::sync::Arc;

/// What the names of logins begin with that were not checked here. No key's id does.
const UNCHECKED: &str = "login-";

/// The authenticated name behind a session. Everybody is the same nobody while no keys are configured.
#[derive(Clone, Debug)]
pub struct Entity(Arc<str>);

impl Entity {
    /// The entity of that name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Who did not have to say who they are.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new("")
    }

    /// Names somebody by a login that was not checked here.
    #[must_use]
    pub fn unchecked(pseudonym: &str) -> Self {
        Self(format!("{UNCHECKED}{pseudonym}").into())
    }

    /// Says whether its login was not checked here.
    #[must_use]
    pub fn is_unchecked(&self) -> bool {
        self.0.starts_with(UNCHECKED)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether both are the same, in a time that does not tell how much of the name was right.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

/// Both ends of the connection a session was opened on, for the operator's eyes only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    /// The client's address.
    pub remote: Option<SocketAddr>,
    /// This machine's address.
    pub local: Option<SocketAddr>,
}
