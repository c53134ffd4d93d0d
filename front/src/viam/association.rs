//! Which session a call that moves something belongs to.
//!
//! Viam marks some methods as monitored: Motor SetPower, GoFor, GoTo and SetRPM, Base MoveStraight, Spin,
//! SetPower and SetVelocity. Only these look at `viam-sid`; older clients send it with every call, so
//! everywhere else it is tolerated unread. The check comes before everything else of the call, and what
//! becomes of the call afterwards does not undo it.

use tonic::Status;
use tonic::metadata::MetadataMap;

use super::metadata;
use crate::sessions::{Entity, Hold, Sessions};

const NO_SESSION: &str = "this robot moves only under a session, so that it stops when its client falls silent, \
     and this call carries none (no viam-sid). Use a client that opens sessions: in the Viam Python and Go \
     SDKs they are on unless the dial options disable them; other clients call RobotService/StartSession, \
     keep it alive with SendSessionHeartbeat, and send its id as viam-sid with every command";

/// The session of a monitored call, checked and kept alive by it.
///
/// # Errors
///
/// FAILED_PRECONDITION without a session, UNKNOWN for metadata that names none clearly,
/// INVALID_ARGUMENT "SESSION_EXPIRED" for one that is over, UNAVAILABLE when nobody watches.
pub fn monitored(sessions: &Sessions, entity: &Entity, metadata: &MetadataMap) -> Result<Hold, Status> {
    let id = metadata::session_id(metadata)?.ok_or_else(|| Status::failed_precondition(NO_SESSION))?;
    Ok(sessions.hold(entity, id)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shm_proto::Window;
    use tonic::Code;
    use tonic::metadata::MetadataMap;

    use super::{Entity, Sessions, monitored};
    use crate::link::Link;
    use crate::sessions::Peer;
    use crate::sessions::testing::Watcher;

    fn with(ids: &[String]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for id in ids {
            metadata.append("viam-sid", id.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn a_monitored_call_needs_exactly_one_living_session() {
        let watcher = Watcher::with_room(1);
        let link = Link::to(watcher.attachment.clone());
        let sessions = Sessions::new(link.clone(), Duration::from_secs(60));
        let me = Entity::anonymous();
        let check = |ids: &[String]| monitored(&sessions, &me, &with(ids)).map_err(|status| status.code());
        let opened = sessions.open(&me, Peer::default(), Window::from_millis(60_000)).unwrap();
        let id = opened.id.to_string();

        assert_eq!(check(&[]).err(), Some(Code::FailedPrecondition));
        assert_eq!(check(&["x".to_owned()]).err(), Some(Code::Unknown));
        assert_eq!(check(&[id.clone(), id.clone()]).err(), Some(Code::Unknown));
        assert_eq!(check(&[uuid::Uuid::new_v4().to_string()]).err(), Some(Code::InvalidArgument));
        assert!(check(std::slice::from_ref(&id)).is_ok());

        link.set(None);
        assert_eq!(check(&[id]).err(), Some(Code::Unavailable));
        assert_eq!(check(&[]).err(), Some(Code::FailedPrecondition));
    }
}
