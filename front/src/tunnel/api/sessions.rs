//! Opening, listing and closing listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use serde_json::Value;

use super::place::Segments;
use super::refusal::{Kind, Refusal};
use super::wire::{self, Asked};
use super::{At, body, listen};
use crate::access::Caller;
use crate::transport::Connection;
use crate::tunnel::{OpenError, Request as Opening};

/// `POST /session/{protocol}`
pub async fn open(
    State(at): State<At>,
    Extension(caller): Extension<Caller>,
    Extension(connection): Extension<Arc<Connection>>,
    segments: Segments,
    request: Request<Body>,
) -> Result<Json<Value>, Refusal> {
    let protocol = segments.protocol()?;
    let wanted = wire::read::<Asked>(&json(request)?)?.wanted(at.version)?;
    let default = at.tunnels.settings().default_listen_host;
    let failed = |error| Refusal::new(Kind::UnknownFailure, error);
    let listen = listen::place(wanted.listen_host.as_deref(), default).map_err(failed)?;
    let (wish, destination, echoed) = (wanted.wish, wanted.destination, Arc::new(wanted.echoed));
    let opening = Opening { protocol, wish, listen, destination, echoed };
    let opened = at.tunnels.open(&caller, connection.remote.ip(), opening).await;
    let listed = opened.map_err(|error| match error {
        OpenError::AddressTaken => {
            let error = format!("there is a {} listener at {listen} already", protocol.name());
            Refusal::new(Kind::ListenHostAlreadyUsed, error)
        }
        OpenError::Refused(error) => failed(error),
    })?;
    Ok(Json(wire::listener(&listed, at.version, at.tunnels.settings().max_connections)))
}

/// `GET /session/{protocol}`
pub async fn list(State(at): State<At>, segments: Segments) -> Result<Json<Value>, Refusal> {
    let connections = at.tunnels.settings().max_connections;
    let listed = at.tunnels.list(segments.protocol()?);
    Ok(Json(listed.iter().map(|listed| wire::listener(listed, at.version, connections)).collect()))
}

/// `DELETE /session/{protocol}/{ip}/{port}`
pub async fn close(State(at): State<At>, segments: Segments) -> Result<Response, Refusal> {
    let place = segments.place()?;
    match at.tunnels.close(place.protocol, place.ip, place.port).await {
        0 => Err(Refusal::new(Kind::NoListener, "there is no such listener (any more)")),
        _ => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// `GET /session/stats/{protocol}/{ip}/{port}`
pub async fn stats(State(at): State<At>, segments: Segments) -> Result<Json<Value>, Refusal> {
    let place = segments.place()?;
    let stats = at.tunnels.stats(place.protocol, SocketAddr::new(place.ip, place.port));
    let unknown = || Refusal::new(Kind::NoListener, "there is no such listener, and lately there was none");
    stats.map(|stats| Json(wire::stats(&stats))).ok_or_else(unknown)
}

/// The body of a request that says it is JSON.
///
/// # Errors
///
/// When it says something else, or did not come as it should.
pub fn json(request: Request<Body>) -> Result<Bytes, Refusal> {
    if !is_json(request.headers()) {
        let error = "Expected request with `Content-Type: application/json`";
        return Err(Refusal::new(Kind::UnsupportedMediaType, error));
    }
    body::of(request)
}

/// Whether a body is said to be JSON, as axum has it.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(content) = headers.get(CONTENT_TYPE).and_then(|content| content.to_str().ok()) else {
        return false;
    };
    let (kind, _) = content.split_once(';').unwrap_or((content, ""));
    let kind = kind.trim().to_ascii_lowercase();
    kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
}
