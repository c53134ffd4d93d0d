//! Calls of the front's own to the upstream: one message there, one back, within a time.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use tonic::Status;
use tonic::body::Body;

use super::call::{Terms, UNREAD, pass_on};
use super::lane::Lane;
use super::peek::Replayed;

/// What comes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Longest `grpc-timeout` in its notation: eight digits.
const MOST_TIMEOUT: u128 = 99_999_999;

/// What the front's own calls say of their sender.
pub const USER_AGENT: &str = concat!("lanyard/", env!("CARGO_PKG_VERSION"));

/// A message as it stands in a body.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX + message.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// A body of these bytes.
#[must_use]
pub fn body_of(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes))
}

/// Calls a method with a message and the headers `more`, and returns the message that comes back.
///
/// # Errors
///
/// The upstream's own status, UNAVAILABLE when it cannot be reached, DEADLINE_EXCEEDED when it takes longer than `within`.
pub async fn ask(
    lane: &Lane,
    path: &str,
    more: HeaderMap,
    message: &[u8],
    within: Duration,
) -> Result<Bytes, Status> {
    let mut request = Request::post(path)
        .version(http::Version::HTTP_2)
        .body(Replayed::untouched(body_of(framed(message))))
        .map_err(|error| Status::internal(error.to_string()))?;
    *request.headers_mut() = more;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let micros = within.as_micros().min(MOST_TIMEOUT);
    if let Ok(timeout) = HeaderValue::try_from(format!("{micros}u")) {
        headers.insert("grpc-timeout", timeout);
    }
    let asking = async {
        let (message, _) = message_of(pass_on(lane, request, Terms::default(), UNREAD).await).await?;
        Ok(message)
    };
    match tokio::time::timeout(within, asking).await {
        Ok(answered) => answered,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "the upstream {} has not answered {path} within {} ms",
            lane.route.shown,
            within.as_millis()
        ))),
    }
}

/// The one message of an answer, and its trailers.
///
/// # Errors
///
/// The status it carries, when that is not OK; INTERNAL when there is no such message.
pub async fn message_of(response: Response<Body>) -> Result<(Bytes, HeaderMap), Status> {
    let (parts, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&parts.headers)
        && status.code() != tonic::Code::Ok
    {
        return Err(status);
    }
    let whole = body.collect().await?;
    let trailers = whole.trailers().cloned().unwrap_or_default();
    if let Some(status) = Status::from_header_map(&trailers)
        && status.code() != tonic::Code::Ok
    {
        return Err(status);
    }
    let bytes = whole.to_bytes();
    match bytes.first() {
        Some(0) if bytes.len() >= PREFIX => Ok((bytes.slice(PREFIX..), trailers)),
        None => Err(Status::internal(format!("an answer without a message (HTTP {})", parts.status))),
        Some(_) => Err(Status::internal("an answer in an encoding that nobody asked for")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Body, HeaderMap, body_of, framed, message_of};
    use tonic::{Code, Status};

    #[tokio::test]
    async fn messages_and_statuses_are_told_apart() {
        let answer = |body: Body| http::Response::new(body);
        assert_eq!(message_of(answer(body_of(framed(b"hello")))).await.unwrap().0, "hello");
        assert_eq!(message_of(answer(Body::empty())).await.unwrap_err().code(), Code::Internal);
        let refused = Status::not_found("no arm").into_http();
        let status = message_of(refused).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "no arm"));
        let squeezed = message_of(answer(body_of([1, 0, 0, 0, 0].to_vec().into()))).await.unwrap_err();
        assert_eq!(squeezed.code(), Code::Internal);
        assert_eq!(HeaderMap::new().len(), 0);
    }
}
