//! When a request arrived, and from which party.

use std::net::IpAddr;
use std::sync::Arc;

use http::Extensions;
use shm_proto::Nanos;
use tonic::Status;

use super::arrival::Arrival;
use super::intake::Stamp;
use crate::access::Caller;
use crate::sessions::Entity;
use crate::transport::Connection;

/// The end from which a request came.
#[derive(Clone, Debug)]
pub struct Sender {
    entity: Entity,
    /// [`Connection::id`].
    connection: u64,
    address: IpAddr,
}

impl Sender {
    /// Names the end of a connection that belongs to that entity.
    #[must_use]
    pub fn new(entity: Entity, connection: &Connection) -> Self {
        Self { entity, connection: connection.id, address: connection.remote.ip().to_canonical() }
    }

    /// Names the one client of a test that is not about several.
    #[cfg(test)]
    #[must_use]
    pub fn of_a_test() -> Self {
        Self { entity: Entity::anonymous(), connection: 0, address: IpAddr::from([127, 0, 0, 1]) }
    }

    /// Says whether both are one party: the same entity, or, where nobody has to log in, the same address.
    #[must_use]
    pub fn is_same_party(&self, other: &Self) -> bool {
        let is_known = !self.entity.name().is_empty();
        self.entity.is(&other.entity) && (is_known || self.address == other.address)
    }

    /// Says whether both may be one party: also two logins that were not checked here, from one address.
    fn may_be_same_party(&self, other: &Self) -> bool {
        let is_checked = |sender: &Self| !sender.entity.name().is_empty() && !sender.entity.is_unchecked();
        self.is_same_party(other)
            || (!is_checked(self) && !is_checked(other) && self.address == other.address)
    }

    /// Says whether both came over the same connection, so that the order in which they came is the order in which they
    /// were sent.
    #[must_use]
    pub const fn is_same_connection(&self, other: &Self) -> bool {
        self.connection == other.connection
    }

    /// Says whether both may be one party over different connections, between which there is no order.
    #[must_use]
    pub fn is_elsewhere(&self, other: &Self) -> bool {
        !self.is_same_connection(other) && self.may_be_same_party(other)
    }

    /// Whose sessions these are.
    #[must_use]
    pub const fn entity(&self) -> &Entity {
        &self.entity
    }
}

/// The context of a command or a stop: when it arrived, and from whom.
///
/// A command counts from its beginning and a stop from its end: a request whose bytes come in pieces is an old command
/// and a late stop, which is the safe reading of both. Of requests that are all whole after one read only the order of
/// their beginnings is known.
#[derive(Clone, Debug)]
pub struct Origin {
    began: Arrival,
    complete: Arrival,
    sender: Sender,
    /// When the time is over that its client gave it.
    deadline: Option<Nanos>,
}

impl Origin {
    /// Names what has just been read as a whole from a connection of that entity.
    #[must_use]
    pub fn new(entity: Entity, connection: &Connection) -> Self {
        let arrival = Arrival::now();
        Self { began: arrival, complete: arrival, sender: Sender::new(entity, connection), deadline: None }
    }

    /// Names what the one client of a test has just sent.
    #[cfg(test)]
    #[must_use]
    pub fn of_a_test() -> Self {
        let arrival = Arrival::now();
        Self { began: arrival, complete: arrival, sender: Sender::of_a_test(), deadline: None }
    }

    /// Names something that began and was complete at these arrivals.
    #[must_use]
    pub const fn between(began: Arrival, complete: Arrival, sender: Sender) -> Self {
        Self { began, complete, sender, deadline: None }
    }

    /// Reads the origin of an HTTP request from its extensions.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED when it has not passed the gate, INTERNAL when it did not come in over the transport.
    pub fn of(extensions: &Extensions) -> Result<Self, Status> {
        let caller = Caller::of(extensions)?;
        let connection = extensions.get::<Arc<Connection>>();
        let stamp = extensions.get::<Stamp>();
        let (Some(connection), Some(stamp)) = (connection, stamp) else {
            return Err(Status::internal("the call has no place in the order of its connection"));
        };
        let sender = Sender::new(caller.entity.clone(), connection);
        let deadline = stamp.deadline();
        Ok(Self { deadline, ..Self::between(stamp.began(), stamp.complete(), sender) })
    }

    /// The arrival of its first bytes: what a command counts from.
    #[must_use]
    pub const fn began(&self) -> Arrival {
        self.began
    }

    /// The arrival of its last bytes: what a stop counts from.
    #[must_use]
    pub const fn complete(&self) -> Arrival {
        self.complete
    }

    /// When the time is over that its client gave it, if it gave one.
    #[must_use]
    pub const fn deadline(&self) -> Option<Nanos> {
        self.deadline
    }

    /// Says whether the time is over that its client gave it. A stop is carried out all the same.
    #[must_use]
    pub fn is_over(&self, now: Nanos) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// The end from which it came.
    #[must_use]
    pub const fn sender(&self) -> &Sender {
        &self.sender
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Connection, Entity, Sender};

    fn sender(entity: &str, address: &str) -> Sender {
        let address: SocketAddr = address.parse().unwrap();
        Sender::new(Entity::new(entity), &Connection::new(address, address))
    }

    #[test]
    fn an_entity_is_one_party_wherever_it_is_and_strangers_are_one_by_their_address() {
        let same = |one: &Sender, other: &Sender| one.is_same_party(other);
        assert!(same(&sender("a", "10.0.0.1:1"), &sender("a", "10.0.0.2:1")));
        assert!(!same(&sender("a", "10.0.0.1:1"), &sender("b", "10.0.0.1:1")));
        assert!(same(&sender("", "10.0.0.1:1"), &sender("", "[::ffff:10.0.0.1]:2")));
        assert!(!same(&sender("", "10.0.0.1:1"), &sender("", "10.0.0.2:1")));
        assert!(!same(&sender("", "10.0.0.1:1"), &sender("a", "10.0.0.1:1")));
        let one = sender("a", "10.0.0.1:1");
        assert!(one.is_same_connection(&one.clone()));
        assert!(!one.is_same_connection(&sender("a", "10.0.0.1:1")), "another connection");
    }
}
