//! The API in words: an OpenAPI document, and a page that shows it and can try it; and whether anybody is there. All of it is for
//! everybody: it tells nothing of the robot. The page needs nothing from elsewhere; robots are often without the internet.

use axum::Json;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Router, http::HeaderValue};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use serde_json::{Value, json};

/// OpenAPI 3.0.3.
pub const DOCUMENT: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
/// The page runs its own script and asks this server; nothing that the document or an answer says can make it do more.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Every route that takes no token.
pub fn routes() -> [(&'static str, MethodRouter); 8] {
    let page = || get(|| async { text("text/html; charset=utf-8", PAGE) });
    let document = || get(|| async { text("application/json", DOCUMENT) });
    [
        ("/startedz", get(alive)),
        ("/readyz", get(alive)),
        ("/healthyz", get(alive)),
        ("/api-docs/openapi.json", document()),
        ("/api-docs2/openapi.json", document()),
        ("/api-docs/page.js", get(|| async { text("text/javascript; charset=utf-8", SCRIPT) })),
        ("/scalar", page()),
        ("/swagger-ui", page()),
    ]
}

/// What takes no token.
pub fn open() -> Router {
    routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

async fn alive() -> Json<Value> {
    Json(json!({ "status": "OK" }))
}

fn text(content: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, content),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), text).into_response()
}
