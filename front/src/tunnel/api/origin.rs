//! Web pages as clients: which of them may call, as [`crate::web`] has it for gRPC.
//!
//! hoprd lets every page call. Here that would be every page that somebody on the robot's network happens to open.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use config::Origins;
use http::header::{ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ORIGIN};
use http::{HeaderValue, Method, Request, StatusCode};

use super::refusal::{Kind, Refusal};
use crate::web;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS, DELETE");
/// How long a browser may remember a permission, seconds: as hoprd. It is only that, a refusal comes all the same.
const REMEMBER: HeaderValue = HeaderValue::from_static("86400");

/// Refuses pages that may not call, answers browsers that ask, and lets pages that may call read the answer.
pub async fn check(State(origins): State<Arc<Origins>>, request: Request<Body>, next: Next) -> Response {
    let asks = request.method() == Method::OPTIONS;
    let Some(origin) = request.headers().get(ORIGIN).cloned() else {
        // No page: programs do not say where they come from.
        return if asks { empty() } else { next.run(request).await };
    };
    if !origin.to_str().is_ok_and(|origin| origins.allow(origin)) {
        let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        let error = format!(
            "pages from {origin:?} may not call this robot; add the origin to \"origins\" in [front] if they should"
        );
        return Refusal::new(Kind::Forbidden, error).into_response();
    }
    let mut response = if asks { permission(&request) } else { next.run(request).await };
    web::permit(response.headers_mut(), &origin);
    response
}

fn empty() -> Response {
    StatusCode::OK.into_response()
}

/// The answer to a browser that asks; before any token, which it does not send yet.
fn permission(question: &Request<Body>) -> Response {
    let mut response = empty();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, REMEMBER);
    web::permit_headers(headers, question.headers());
    response
}
