//! What every request needs before it is looked at: a token, a role, and a client that reads JSON.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{ACCEPT, AUTHORIZATION, HeaderName};
use http::{HeaderMap, Method, Request};
use keys::Role;

use super::body::{self, From};
use super::refusal::{Kind, Refusal};
use crate::access::{Access, Caller, Rejection};
use crate::transport::Connection;

/// hoprd's own header for the token.
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
/// Before the token in `authorization`; this case only, as in version 3 of hoprd's API.
const BEARER: &str = "Bearer ";

/// Lets in who has a token whose key may do that; behind this the caller is among the request's extensions.
pub async fn check(State(access): State<Arc<Access>>, mut request: Request<Body>, next: Next) -> Response {
    match admit(&access, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(body::read(request, From::Caller).await).await
        }
        Err(refusal) => {
            drop(body::read(request, From::Stranger).await);
            refusal.into_response()
        }
    }
}

fn admit(access: &Access, request: &Request<Body>) -> Result<Caller, Refusal> {
    let connection = request.extensions().get::<Arc<Connection>>();
    let connection =
        connection.ok_or_else(|| unauthorized("it is not known where this request comes from"))?;
    let tokens = tokens(request.headers());
    let caller = access.token(&tokens, connection).map_err(|rejection| match rejection {
        Rejection::Later(wait) | Rejection::Busy(wait) => Refusal::later(wait),
        Rejection::Wrong | Rejection::NoRandomness => unauthorized(if tokens.is_empty() {
            "a token is needed: X-Auth-Token or Authorization: Bearer, as `lanyard keys add` shows it"
        } else {
            "this token is not (or no longer) good; `lanyard keys add` makes one"
        }),
    })?;
    let needed = need(request.method());
    if caller.role < needed {
        let (role, method) = (caller.role, request.method());
        let error =
            format!("a key of the role \"{role}\" may not {method} here: it takes the role \"{needed}\"");
        return Err(Refusal::new(Kind::Forbidden, error));
    }
    if !reads_json(request.headers()) {
        let error = "answers are JSON; send \"Accept: application/json\", or no Accept at all";
        return Err(Refusal::new(Kind::NotAcceptable, error));
    }
    Ok(caller)
}

fn unauthorized(error: &str) -> Refusal {
    Refusal::new(Kind::Unauthorized, error)
}

/// The tokens of a request, of which one has to be good. A header that is there twice says nothing.
fn tokens(headers: &HeaderMap) -> Vec<&str> {
    let only = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    let bearer = only(AUTHORIZATION).and_then(|value| value.strip_prefix(BEARER));
    only(TOKEN).into_iter().chain(bearer).collect()
}

/// The role that a method takes.
fn need(method: &Method) -> Role {
    match *method {
        Method::POST | Method::DELETE => Role::Operate,
        _ => Role::Observe,
    }
}

/// Whether a client that says what it reads reads JSON; one that does not say reads everything.
fn reads_json(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().peekable();
    let is_json = |range: &str| {
        let (kind, _) = range.split_once(';').unwrap_or((range, ""));
        let kind = kind.trim();
        ["application/json", "application/*", "*/*"].iter().any(|json| kind.eq_ignore_ascii_case(json))
    };
    accepted.peek().is_none()
        || accepted.any(|value| value.to_str().is_ok_and(|ranges| ranges.split(',').any(is_json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_json_is_known() {
        let reads = |accepted: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in accepted {
                headers.append(ACCEPT, http::HeaderValue::from_static(value));
            }
            reads_json(&headers)
        };
        assert!(reads(&[]) && reads(&["*/*"]) && reads(&["application/*"]) && reads(&["application/json"]));
        assert!(reads(&["text/html, application/json;q=0.9"]) && reads(&["text/html", "*/*"]));
        assert!(
            !reads(&["text/html"]) && !reads(&[""]) && !reads(&["application/jsonx"]) && !reads(&["text/*"])
        );
    }

    #[test]
    fn a_token_is_in_one_of_two_headers_once() {
        let found = |given: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(name, http::HeaderValue::from_static(value));
            }
            tokens(&headers).join("|")
        };
        assert_eq!(found(&[(TOKEN, "a.b")]), "a.b");
        assert_eq!(found(&[(TOKEN, "Bearer a.b")]), "Bearer a.b");
        assert_eq!(found(&[(AUTHORIZATION, "Bearer a.b")]), "a.b");
        assert_eq!(found(&[(AUTHORIZATION, "Bearer a.b"), (TOKEN, "c.d")]), "c.d|a.b");
        for none in ["bearer a.b", "a.b", "Basic a.b", "Bearera.b", ""] {
            assert_eq!(found(&[(AUTHORIZATION, none)]), "", "{none}");
        }
        assert_eq!(found(&[(TOKEN, "a.b"), (TOKEN, "a.b")]), "");
        assert_eq!(found(&[]), "");
    }
}
