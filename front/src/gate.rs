//! The gate: every request passes here, and behind it everybody knows who calls.
//!
//! What it lets in without a token is not looked at again, so nothing that answers by itself may stand behind it
//! for other methods than it was asked for. Answers to the preflights of browsers, which carry no token, belong before
//! the gate.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::access::{self, Access, Caller, Login, Need};
use crate::proto::rpc::auth_service_server::AuthServiceServer;
use crate::transport::Connection;

/// An id and a secret; more is not read.
const MOST_LOGIN_BYTES: usize = 4 * 1024;

/// Notes who calls, and lets in who may.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    inner: S,
    access: Arc<Access>,
    login: AuthServiceServer<Login>,
}

impl<S> Gate<S> {
    /// The gate before `inner`.
    #[must_use]
    pub fn new(inner: S, access: Arc<Access>) -> Self {
        let login = AuthServiceServer::new(Login::new(Arc::clone(&access)));
        Self { inner, access, login: login.max_decoding_message_size(MOST_LOGIN_BYTES) }
    }
}

/// Who sends this request, if they may.
fn admit(access: &Access, request: &Request<Body>) -> Result<Caller, Status> {
    let path = request.uri().path();
    match access::need(path) {
        Need::Nothing => Ok(Caller::stranger()),
        Need::Role(needed) => {
            let connection = request.extensions().get::<Arc<Connection>>();
            let caller = access.caller(request.headers(), connection)?;
            if caller.role >= needed {
                Ok(caller)
            } else {
                Err(Status::permission_denied(format!(
                    "a key of the role \"{}\" may not call {}: it takes the role \"{needed}\"",
                    caller.role,
                    path.trim_start_matches('/')
                )))
            }
        }
    }
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Without keys a login is none of ours: whatever else is served here may know what to do with it.
        if request.uri().path() == Login::PATH && self.access.is_required() {
            return Box::pin(self.login.call(request));
        }
        match admit(&self.access, &request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                // A token of ours is nobody else's: a server behind this one could use it against us.
                if self.access.is_required() {
                    request.headers_mut().remove(AUTHORIZATION);
                }
                Box::pin(self.inner.call(request))
            }
            Err(refusal) => Box::pin(ready(Ok(refusal.into_http()))),
        }
    }
}
