//! The body of a request: read to its end before anything is answered, whatever the request is.
//!
//! A connection whose request was not read to its end is closed with the answer, which may be lost by that; hoprd's client for
//! Python sends a body with DELETE, in a packet of its own.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use super::refusal::{Kind, Refusal};

/// A request has a few hundred bytes. hoprd's server takes two megabytes, of which nothing could be used.
const LONGEST: usize = 64 * 1024;
/// A body comes in the same packet as its head, or the next one.
const PATIENCE: Duration = Duration::from_secs(10);
/// For who is refused anyway.
const PATIENCE_WITH_STRANGERS: Duration = Duration::from_secs(1);

/// Whose body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Who was let in.
    Caller,
    /// Who is refused.
    Stranger,
}

/// What came of a body; part of the extensions of a request that has passed here.
#[derive(Clone, Debug)]
struct Come(Result<Bytes, Refusal>);

/// Reads the body, which whoever handles the request then has.
pub async fn read(request: Request<Body>, from: From) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let patience = match from {
        From::Caller => PATIENCE,
        From::Stranger => PATIENCE_WITH_STRANGERS,
    };
    let come = match timeout(patience, Limited::new(body, LONGEST).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let error = format!("a request has at most {LONGEST} bytes");
            Err(Refusal::new(Kind::PayloadTooLarge, error))
        }
        Ok(Err(error)) => Err(Refusal::new(Kind::InvalidInput, format!("the body cannot be read: {error}"))),
        Err(_) => {
            let error = format!("the body has not come within {} s", patience.as_secs());
            Err(Refusal::new(Kind::RequestTimeout, error))
        }
    };
    parts.extensions.insert(Come(come));
    Request::from_parts(parts, Body::empty())
}

/// The body of a request that has passed [`read`].
///
/// # Errors
///
/// When it was too long, or did not come.
pub fn of(mut request: Request<Body>) -> Result<Bytes, Refusal> {
    request.extensions_mut().remove::<Come>().map_or_else(|| Ok(Bytes::new()), |Come(come)| come)
}
