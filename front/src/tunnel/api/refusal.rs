//! What is answered to whom something is refused: always JSON, as hoprd's own errors are.
//!
//! hoprd answers much of what is wrong in plain text, over which its client for TypeScript stumbles: it reads JSON from whatever
//! is no 5xx. The codes are hoprd's; each answer has a `status` to compare and an `error` to read.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde_json::json;

/// What is wrong, in hoprd's word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400: the URL, or what is no JSON at all.
    InvalidInput,
    /// 400: a session's number that cannot be one.
    InvalidSessionId,
    /// 401: no token, or a wrong one.
    Unauthorized,
    /// 403: a key may not do that, or a page may not call.
    Forbidden,
    /// 404: there is no such route.
    NotFound,
    /// 404: there is no such listener. hoprd has this word for it.
    NoListener,
    /// 404: there is no such session.
    SessionNotFound,
    /// 405: the route has other methods.
    MethodNotAllowed,
    /// 406: the client wants something else than JSON.
    NotAcceptable,
    /// 408: the body does not come.
    RequestTimeout,
    /// 409: another listener is there.
    ListenHostAlreadyUsed,
    /// 413: the body is too long.
    PayloadTooLarge,
    /// 415: the body is said to be something else than JSON.
    UnsupportedMediaType,
    /// 422: JSON that does not fit what is asked for.
    Unprocessable,
    /// 422: it fits, but cannot be done.
    UnknownFailure,
    /// 429: too many wrong tokens.
    TooManyRequests,
}

impl Kind {
    const fn code(self) -> StatusCode {
        match self {
            Self::InvalidInput | Self::InvalidSessionId => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound | Self::NoListener | Self::SessionNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::ListenHostAlreadyUsed => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unprocessable | Self::UnknownFailure => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// Those that hoprd has are spelled as there.
    const fn name(self) -> &'static str {
        match self {
            Self::InvalidInput | Self::NoListener | Self::Unprocessable => "INVALID_INPUT",
            Self::InvalidSessionId => "INVALID_SESSION_ID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::SessionNotFound => "SESSION_NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::NotAcceptable => "NOT_ACCEPTABLE",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::ListenHostAlreadyUsed => "LISTEN_HOST_ALREADY_USED",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::UnknownFailure => "UNKNOWN_FAILURE",
            Self::TooManyRequests => "TOO_MANY_REQUESTS",
        }
    }
}

/// An answer that refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    kind: Kind,
    error: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// With what is wrong and what to do, for people.
    pub fn new(kind: Kind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into(), retry_after: None }
    }

    /// Who has failed too often, and may try again after that time.
    pub fn later(wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        let error = format!("too many requests with a wrong token; try again in {seconds} s");
        Self { retry_after: Some(Duration::from_secs(seconds)), ..Self::new(Kind::TooManyRequests, error) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "status": self.kind.name(), "error": self.error });
        let mut response = (self.kind.code(), Json(body)).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        response
    }
}
