//! The session id in a call's metadata, which is its headers.

use http::HeaderMap;
use shm_proto::SessionId;
use tonic::Status;

const KEY: &str = "viam-sid";

/// The session id of a call, if it carries one.
///
/// # Errors
///
/// UNKNOWN, as Viam's own server has it: for more than one id, or one that is no UUID.
pub fn session_id(headers: &HeaderMap) -> Result<Option<SessionId>, Status> {
    let mut ids = headers.get_all(KEY).iter();
    let Some(id) = ids.next() else { return Ok(None) };
    if ids.next().is_some() {
        return Err(Status::unknown("found more than one session id in metadata"));
    }
    let text = id.to_str().map_err(|_| Status::unknown("the session id in viam-sid is not a text"))?;
    parse(text).map(Some)
}

/// A session id as clients write it.
///
/// # Errors
///
/// UNKNOWN when it is no UUID.
pub fn parse(text: &str) -> Result<SessionId, Status> {
    match uuid::Uuid::try_parse(text) {
        Ok(id) => Ok(SessionId(id.as_u128())),
        Err(error) => Err(Status::unknown(format!("the session id is not a UUID: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{HeaderMap, KEY, SessionId, session_id};
    use tonic::Code;

    fn metadata(ids: &[&str]) -> HeaderMap {
        let mut metadata = HeaderMap::new();
        for id in ids {
            metadata.append(KEY, id.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn none_or_one_id_is_fine() {
        let id = SessionId(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
        assert_eq!(session_id(&metadata(&[])).unwrap(), None);
        assert_eq!(session_id(&metadata(&[&id.to_string()])).unwrap(), Some(id));
    }

    #[test]
    fn two_ids_are_refused_in_viams_words() {
        let error = session_id(&metadata(&["a", "b"])).unwrap_err();
        assert_eq!(error.code(), Code::Unknown);
        assert_eq!(error.message(), "found more than one session id in metadata");
    }

    #[test]
    fn what_is_no_uuid_is_unknown() {
        for text in ["", "x", "0123", "0123456789ab4def81234567-89abcdef-----"] {
            assert_eq!(session_id(&metadata(&[text])).unwrap_err().code(), Code::Unknown, "{text}");
        }
    }
}
