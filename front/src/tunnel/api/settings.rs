//! The settings of a session that runs, which came with version 4: `/session/config/{id}`.
//!
//! They are how many reply blocks hoprd keeps ready. Here there are none: what a client sets is remembered for as long as the
//! session runs, and shown again, and changes nothing.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{Request, StatusCode};
use lru::LruCache;
use serde::{Deserialize, Serialize};

use super::amount::{Bandwidth, Size};
use super::place::Segments;
use super::refusal::{Kind, Refusal};
use super::{At, sessions, wire};
use crate::tunnel::Protocol;

/// As many as there can be links, about; the longest untouched is forgotten first.
const MOST: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// What can be set.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", expecting = "an object with responseBuffer and maxSurbUpstream")]
pub struct Settings {
    response_buffer: Option<Size>,
    max_surb_upstream: Option<Bandwidth>,
}

/// What clients have set, by link.
#[derive(Debug)]
pub struct Book(Mutex<LruCache<u128, Settings>>);

impl Book {
    /// Nothing has been set.
    pub fn new() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }

    fn set(&self, link: u128, settings: Settings) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(link, settings);
    }

    fn get(&self, link: u128) -> Option<Settings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&link).cloned()
    }
}

/// `GET /session/config/{id}`
pub async fn get(State(at): State<At>, segments: Segments) -> Result<Json<Settings>, Refusal> {
    let link = link(&segments)?;
    let as_asked = as_asked(&at, link)?;
    Ok(Json(at.settings.get(link).unwrap_or(as_asked)))
}

/// `POST /session/config/{id}`
pub async fn set(
    State(at): State<At>,
    segments: Segments,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let link = link(&segments)?;
    let settings = wire::read(&sessions::json(request)?)?;
    as_asked(&at, link)?;
    at.settings.set(link, settings);
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn link(segments: &Segments) -> Result<u128, Refusal> {
    let error = "a session's id is one of \"activeClients\": 32 hexadecimal digits";
    wire::link(segments.get("id")).ok_or_else(|| Refusal::new(Kind::InvalidSessionId, error))
}

/// What was asked for when the listener of that link was opened.
fn as_asked(at: &At, link: u128) -> Result<Settings, Refusal> {
    let listeners = [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(|protocol| at.tunnels.list(protocol));
    let listener = listeners.into_iter().find(|listed| listed.links.contains(&link));
    let gone = || Refusal::new(Kind::SessionNotFound, "there is no such session (any more)");
    let listener = listener.ok_or_else(gone)?;
    Settings::deserialize(&*listener.echoed)
        .map_err(|error| Refusal::new(Kind::UnknownFailure, error.to_string()))
}
