//! Which session a call that moves something belongs to.
//!
//! Viam marks some methods as monitored: Motor SetPower, GoFor, GoTo and SetRPM, Base MoveStraight, Spin,
//! SetPower and SetVelocity. Only these look at `viam-sid`; older clients send it with every call, so
//! everywhere else it is tolerated unread. The check comes before everything else of the call, and what
//! becomes of the call afterwards does not undo it.

use std::sync::Arc;

use config::Sessionless;
use http::{Extensions, HeaderMap};
use shm_proto::MotorIndex;
use tonic::Status;

use super::metadata;
use super::refusal::because;
use crate::access::Caller;
use crate::order::Origin;
use crate::sessions::{Driven, Hold, Sessions, Use};
use crate::transport::Connection;

const NO_SESSION: &str = "this robot moves only under a session, so that it stops when its client falls silent, \
     and this call carries none (no viam-sid). Use a client that opens sessions: in the Viam Python and Go \
     SDKs they are on unless the dial options disable them; other clients call RobotService/StartSession, \
     keep it alive with SendSessionHeartbeat, and send its id as viam-sid with every command";

/// A call that moves something, and the session or the client it belongs to.
#[derive(Clone, Debug)]
pub struct Monitored {
    /// When it arrived, and from whom.
    pub origin: Origin,
    driver: Driver,
}

/// Under what a call drives.
#[derive(Clone, Debug)]
enum Driver {
    /// A session that lives, and was kept alive by the call.
    Session(Hold),
    /// The lease of its client, which depends on what it drives.
    Lease(Arc<Connection>),
}

impl Monitored {
    /// Takes the session under which the call drives a resource.
    ///
    /// # Errors
    ///
    /// For a client without a session: FAILED_PRECONDITION while its lease has run out and it has not sent Stop, UNAVAILABLE
    /// when nobody watches.
    pub fn hold(&self, sessions: &Sessions, driven: Driven<'_>) -> Result<Hold, Status> {
        match &self.driver {
            Driver::Session(hold) => Ok(hold.clone()),
            Driver::Lease(connection) => Ok(sessions.lease(&self.origin, connection, driven)?),
        }
    }

    /// Notes that the call brings a resource to rest: a session is the last to use it, and a lease is kept alive by it.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION where another session keeps it.
    pub fn rests(
        &self,
        sessions: &Sessions,
        resource: &str,
        motors: &[MotorIndex],
    ) -> Result<Option<Use>, Status> {
        match &self.driver {
            Driver::Session(hold) => {
                let at = self.origin.began().at();
                Ok(Some(sessions.use_resource_since(hold, resource, motors, at)?))
            }
            Driver::Lease(connection) => {
                sessions.feed_lease(&self.origin, connection, resource);
                Ok(None)
            }
        }
    }
}

/// Checks a monitored call: its session lives, and is kept alive by it. A call without one belongs to the lease of its
/// client, where there are leases.
///
/// # Errors
///
/// FAILED_PRECONDITION without a session, UNKNOWN for metadata that names none clearly,
/// INVALID_ARGUMENT "SESSION_EXPIRED" for one that is over, UNAVAILABLE when nobody watches.
pub fn monitored(
    sessions: &Sessions,
    extensions: &Extensions,
    headers: &HeaderMap,
) -> Result<Monitored, Status> {
    let caller = Caller::of(extensions)?;
    let driver = match (metadata::session_id(headers)?, sessions.rules().sessionless) {
        (Some(id), _) => {
            let held = sessions.hold(&caller.entity, id);
            Driver::Session(held.map_err(|error| because(error.into(), sessions.why(&caller.entity, id)))?)
        }
        (None, Sessionless::Refuse) => return Err(Status::failed_precondition(NO_SESSION)),
        (None, Sessionless::Lease | Sessionless::Viam) => {
            let connection = extensions.get::<Arc<Connection>>();
            let connection = connection.ok_or_else(|| Status::failed_precondition(NO_SESSION))?;
            Driver::Lease(Arc::clone(connection))
        }
    };
    Ok(Monitored { origin: Origin::of(extensions)?, driver })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::Sessionless;
    use http::{Extensions, HeaderMap};
    use shm_proto::Window;
    use tonic::Code;

    use super::{Caller, Connection, Driven, Sessions, monitored};
    use crate::link::Link;
    use crate::order::Stamp;
    use crate::sessions::testing::Watcher;
    use crate::sessions::{Peer, Rules};

    fn with(ids: &[String]) -> HeaderMap {
        let mut metadata = HeaderMap::new();
        for id in ids {
            metadata.append("viam-sid", id.parse().unwrap());
        }
        metadata
    }

    fn over(connection: &Arc<Connection>) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(Caller::anonymous());
        extensions.insert(Arc::clone(connection));
        extensions.insert(Stamp::whole(&HeaderMap::new()));
        extensions
    }

    fn connection() -> Arc<Connection> {
        let address = ([127, 0, 0, 1], 1).into();
        Connection::new(address, address)
    }

    #[test]
    fn a_monitored_call_needs_exactly_one_living_session() {
        let watcher = Watcher::with_room(1);
        let link = Link::to(watcher.attachment.clone());
        let rules = Rules { sessionless: Sessionless::Refuse, ..Rules::relaxed() };
        let sessions = Sessions::new(link.clone(), rules);
        let (me, extensions) = (Caller::anonymous().entity, over(&connection()));
        let check =
            |ids: &[String]| monitored(&sessions, &extensions, &with(ids)).map_err(|status| status.code());
        let opened = sessions.open(&me, Peer::default(), Window::from_millis(60_000)).unwrap();
        let id = opened.id.to_string();

        assert_eq!(check(&[]).err(), Some(Code::FailedPrecondition));
        assert_eq!(check(&["x".to_owned()]).err(), Some(Code::Unknown));
        assert_eq!(check(&[id.clone(), id.clone()]).err(), Some(Code::Unknown));
        assert_eq!(check(&[uuid::Uuid::new_v4().to_string()]).err(), Some(Code::InvalidArgument));
        assert!(check(std::slice::from_ref(&id)).is_ok());
        let nobody = monitored(&sessions, &Extensions::new(), &with(std::slice::from_ref(&id)));
        assert_eq!(nobody.err().map(|status| status.code()), Some(Code::Unauthenticated));

        link.set(None);
        assert_eq!(check(&[id]).err(), Some(Code::Unavailable));
        assert_eq!(check(&[]).err(), Some(Code::FailedPrecondition));
    }

    #[test]
    fn a_call_without_session_gets_a_lease_of_its_own() {
        let watcher = Watcher::with_room(2);
        let sessions = Sessions::new(Link::to(watcher.attachment.clone()), Rules::relaxed());
        let (first, second) = (connection(), connection());
        first.note_call(http::Version::HTTP_2);
        second.note_call(http::Version::HTTP_2);
        let lease = |connection| {
            let call = monitored(&sessions, &over(connection), &with(&[])).unwrap();
            call.hold(&sessions, Driven { resource: "motor/left", motors: &[] }).unwrap().owner
        };
        assert_eq!(lease(&first), lease(&first));
        assert_ne!(lease(&first), lease(&second));
    }

    #[test]
    fn an_ended_session_is_told_why() {
        let watcher = Watcher::with_room(2);
        let sessions = Sessions::new(Link::to(watcher.attachment.clone()), Rules::relaxed());
        let me = Caller::anonymous().entity;
        let id = sessions.open(&me, Peer::default(), Window::from_millis(60_000)).unwrap().id;
        sessions.close(&me, id).unwrap();
        let refused = monitored(&sessions, &over(&connection()), &with(&[id.to_string()])).unwrap_err();
        assert_eq!(refused.message(), "SESSION_EXPIRED");
        assert_eq!(refused.metadata().get("lanyard-reason").unwrap(), "its client closed it");
    }
}
