//! Web pages as clients: gRPC-web, and which pages may call.
//!
//! A browser says with every call from which page it comes ("Origin"). Pages that may not call are refused here, and
//! not only by the browser, which would send a simple request before it asks. A page whose host is this very server
//! gets no exception: a name of somebody else can be made to resolve to this address (DNS rebinding).
//!
//! What must never live here: who calls and what they may do. A page acts for whoever opened it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use config::Origins;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tonic::Status;
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};

/// What of an answer pages may read besides its body: how the call ended and why, and what Viam's clients look for.
const READABLE: HeaderValue = HeaderValue::from_static(
    "grpc-status, grpc-message, grpc-status-details-bin, opid, viam-smrn, lanyard-reason",
);
/// How long a browser may remember a permission, seconds. Two hours is the most that any of them does.
const REMEMBER: HeaderValue = HeaderValue::from_static("7200");
/// A page of a public address asks for a private one; Chromium wants to be told that this is meant.
const ASKS_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOWS_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Lets web pages call `S`, which speaks gRPC.
#[derive(Clone, Debug)]
pub struct Web<S> {
    inner: GrpcWebService<S>,
    origins: Arc<Origins>,
}

impl<S> Web<S> {
    /// Before `inner`; pages of these origins may call.
    #[must_use]
    pub fn new(inner: S, origins: Origins) -> Self {
        Self { inner: GrpcWebLayer::new().layer(inner), origins: Arc::new(origins) }
    }
}

impl<S> Service<Request<Body>> for Web<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(origin) = request.headers().get(ORIGIN).cloned() else {
            // No page: programs do not say where they come from.
            return Box::pin(self.inner.call(request));
        };
        let asks = is_question(&request);
        if !origin.to_str().is_ok_and(|origin| self.origins.allow(origin)) {
            let refusal = if asks { empty(StatusCode::FORBIDDEN) } else { refused(&origin) };
            return Box::pin(std::future::ready(Ok(refusal)));
        }
        if asks {
            return Box::pin(std::future::ready(Ok(permission(&origin, request.headers()))));
        }
        let call = self.inner.call(request);
        Box::pin(async move {
            let mut response = call.await?;
            let headers = response.headers_mut();
            permit(headers, &origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, READABLE);
            Ok(response)
        })
    }
}

/// Whether a browser only asks if it may call.
fn is_question(request: &Request<Body>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A call from a page that may not. It is told nothing that it could read.
fn refused(origin: &HeaderValue) -> Response<Body> {
    let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
    Status::permission_denied(format!(
        "pages from {origin:?} may not call this robot; add the origin to \"origins\" in [front] if they should"
    ))
    .into_http()
}

/// Lets pages of that origin read an answer.
pub fn permit(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    // The answer to another page is another one: no cache may mix them up.
    headers.append(VARY, HeaderValue::from_static("origin"));
}

/// The answer to a browser that asks. Which headers a page sends is no matter: it may call.
fn permission(origin: &HeaderValue, asked: &HeaderMap) -> Response<Body> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    permit(headers, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, REMEMBER);
    permit_headers(headers, asked);
    response
}

/// Lets a page that may call send what headers it asks for, also when it is not of this network.
pub fn permit_headers(headers: &mut HeaderMap, asked: &HeaderMap) {
    if let Some(wanted) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    if asked.contains_key(ASKS_PRIVATE) {
        headers.insert(ALLOWS_PRIVATE, HeaderValue::from_static("true"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Version;
    use http::header::CONTENT_TYPE;
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;

    /// How a request to a front with these origins is answered, and whether it reached the services.
    async fn ask(origins: Origins, request: Request<Body>) -> (Response<Body>, bool) {
        let reached = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reached);
        let service = service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, Infallible>(Status::ok("").into_http::<Body>()) }
        });
        let response =
            Web::new(service, origins).oneshot(request).await.unwrap_or_else(|never| match never {});
        (response, reached.load(Ordering::Relaxed) == 1)
    }

    fn request(method: Method, content: &'static str, origin: Option<&'static str>) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.version_mut() =
            if content == "application/grpc" { Version::HTTP_2 } else { Version::HTTP_11 };
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        request
    }

    fn question(origin: &'static str) -> Request<Body> {
        let mut question = request(Method::OPTIONS, "text/plain", Some(origin));
        let headers = question.headers_mut();
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-grpc-web,viam-sid"));
        question
    }

    const PAGE: &str = "http://localhost:3000";
    const FOREIGN: &str = "https://evil.example";

    #[tokio::test]
    async fn programs_call_without_an_origin_as_ever() {
        for content in ["application/grpc", "application/grpc-web+proto"] {
            let (response, reached) = ask(Origins::Localhost, request(Method::POST, content, None)).await;
            assert!(reached, "{content}");
            assert_eq!(response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN), None, "{content}");
        }
    }

    #[tokio::test]
    async fn a_page_that_may_call_can_read_how_the_call_ended() {
        let (response, reached) =
            ask(Origins::Localhost, request(Method::POST, "application/grpc-web+proto", Some(PAGE))).await;
        assert!(reached);
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], PAGE);
        assert_eq!(response.headers()[VARY], "origin");
        let readable = response.headers()[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
        for header in ["grpc-status", "grpc-message", "opid", "viam-smrn", "lanyard-reason"] {
            assert!(readable.split(", ").any(|name| name == header), "{header}");
        }
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc-web+proto");
    }

    #[tokio::test]
    async fn a_foreign_page_is_refused_before_anything_moves() {
        for content in ["application/grpc-web+proto", "application/grpc", "text/plain"] {
            let (response, reached) =
                ask(Origins::Localhost, request(Method::POST, content, Some(FOREIGN))).await;
            assert!(!reached, "{content}");
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!(status.code(), Code::PermissionDenied, "{content}");
            assert!(status.message().contains(FOREIGN), "{}", status.message());
            assert_eq!(response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN), None, "it can read nothing");
        }
        let (response, reached) = ask(Origins::Localhost, question(FOREIGN)).await;
        assert!(!reached && response.status() == StatusCode::FORBIDDEN);
        assert_eq!(response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN), None);
    }

    #[tokio::test]
    async fn a_browser_that_asks_is_told_what_it_may() {
        let mut question_from = question(PAGE);
        question_from.headers_mut().insert(ASKS_PRIVATE, HeaderValue::from_static("true"));
        let (response, reached) = ask(Origins::Localhost, question_from).await;
        assert!(!reached && response.status() == StatusCode::NO_CONTENT);
        let headers = response.headers();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], PAGE);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "POST");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "x-grpc-web,viam-sid");
        assert_eq!(headers[ALLOWS_PRIVATE], "true");
        let (response, _) = ask(Origins::Any, question(FOREIGN)).await;
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], FOREIGN);
        assert_eq!(response.headers().get(ALLOWS_PRIVATE), None);
    }
}
