//! hoprd's session API, over HTTP and JSON.
//!
//! What lives here: what its clients write and read, versions 3 and 4, and what is made of it. What must never live here: a
//! listener, a target, or what either may do; that is asked of [`Tunnels`].
//!
//! | file | its one idea |
//! |---|---|
//! | [`origin`] | which web pages may call |
//! | [`entry`] | who calls: a token, and its role |
//! | [`body`] | a request is read to its end |
//! | [`sessions`] | open, list, close, stats |
//! | [`settings`] | what version 4 can set, and nothing here needs |
//! | [`place`] | which listener a URL means |
//! | [`wire`] | the JSON of both versions |
//! | [`listen`], [`node`], [`amount`] | texts in it that have a form |
//! | [`refusal`] | errors, always as JSON |
//! | [`description`] | the API in words: OpenAPI, and a page that shows it |

mod amount;
mod body;
mod description;
mod entry;
mod listen;
mod node;
mod origin;
mod place;
mod refusal;
mod sessions;
mod settings;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::routing::{MethodRouter, get, post};
use config::Origins;
use http::{Method, Uri};

use super::Tunnels;
use crate::access::Access;
use refusal::{Kind, Refusal};

/// Of hoprd's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Three,
    Four,
}

impl Version {
    const ALL: [Self; 2] = [Self::Three, Self::Four];

    const fn base(self) -> &'static str {
        match self {
            Self::Three => "/api/v3",
            Self::Four => "/api/v4",
        }
    }
}

/// What handlers need.
#[derive(Clone)]
struct At {
    version: Version,
    tunnels: Arc<Tunnels>,
    settings: Arc<settings::Book>,
}

/// Every route of a version, below its base.
fn routes() -> [(&'static str, MethodRouter<At>); 4] {
    [
        ("/session/{protocol}", get(sessions::list).post(sessions::open)),
        ("/session/{protocol}/{ip}/{port}", axum::routing::delete(sessions::close)),
        ("/session/config/{id}", get(settings::get).merge(post(settings::set))),
        ("/session/stats/{protocol}/{ip}/{port}", get(sessions::stats)),
    ]
}

/// The API, for callers known to `access` and pages of these origins. Requests have their [`crate::transport::Connection`] among
/// their extensions.
pub fn router(tunnels: Arc<Tunnels>, access: Arc<Access>, origins: Origins) -> Router {
    let settings = Arc::new(settings::Book::new());
    let mut closed = Router::new();
    for version in Version::ALL {
        let at = At { version, tunnels: Arc::clone(&tunnels), settings: Arc::clone(&settings) };
        for (path, methods) in routes() {
            closed = closed.route(&format!("{}{path}", version.base()), methods.with_state(at.clone()));
        }
    }
    closed
        .method_not_allowed_fallback(other_method)
        .fallback(nothing)
        .layer(from_fn_with_state(access, entry::check))
        .merge(description::open().method_not_allowed_fallback(other_method))
        .layer(from_fn_with_state(Arc::new(origins), origin::check))
}

async fn nothing(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(80).collect();
    Refusal::new(
        Kind::NotFound,
        format!("there is nothing at {path:?}; /api-docs/openapi.json says what there is"),
    )
}

async fn other_method(method: Method) -> Refusal {
    Refusal::new(Kind::MethodNotAllowed, format!("{method} is not among the methods of this path"))
}

/// Any bytes as the body of a request: it is understood, or refused with a code of the client's side.
///
/// # Panics
///
/// When something does not hold that must.
pub fn feed(bytes: &[u8]) {
    for version in Version::ALL {
        match wire::read::<wire::Asked>(bytes).and_then(|asked| asked.wanted(version)) {
            Ok(wanted) => {
                let default = (std::net::Ipv4Addr::LOCALHOST, 0).into();
                // Any text is understood or refused here, too.
                drop(listen::place(wanted.listen_host.as_deref(), default));
            }
            Err(refusal) => assert!(refusal.into_response().status().is_client_error()),
        }
    }
}
