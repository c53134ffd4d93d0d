//! HTTP/1.1 and HTTP/2 on one connection, and what one client may have under way.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::body::Body;
use tower::{Service, ServiceExt};
use tracing::debug;

use super::connection::Connection;
use crate::order::{Stamp, StopAhead, stamped};

/// How long a client may take to answer a ping. Generous, since a Python program that computes answers none
/// meanwhile; sessions do not wait for this.
const PING_TIMEOUT: Duration = Duration::from_secs(60);
/// Calls one connection may have under way.
const MOST_CALLS: u32 = 256;
/// Bytes of headers a call may have.
const MOST_HEADER_BYTES: u32 = 16 * 1024;
/// Time for the headers of an HTTP/1 request: they fit one packet.
const HEADERS: Duration = Duration::from_secs(10);
/// Calls that a client may begin and take back before they were looked at: "rapid reset". As many as it may have under way:
/// a client whose calls time out while the network holds them back resets them all, and the Stop behind them must be read.
const MOST_TAKEN_BACK: usize = MOST_CALLS as usize;
/// What a client may be sent before it says that it reads, per call: enough for one large answer.
const MOST_UNREAD_BYTES: usize = 256 * 1024;

/// Notes a request that stops something, until it is looked at.
fn stop_ahead<B>(connection: &Connection, request: &http::Request<B>) -> Option<Arc<StopAhead>> {
    let stamp = request.extensions().get::<Stamp>()?;
    connection.ahead.note(request.uri().path(), stamp.began())
}

/// Serves HTTP connections.
#[derive(Clone, Debug)]
pub struct Http {
    builder: auto::Builder<TokioExecutor>,
}

impl Http {
    /// Pings a quiet HTTP/2 client that often.
    #[must_use]
    pub fn new(ping_every: Duration) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(ping_every)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MOST_CALLS)
            .max_header_list_size(MOST_HEADER_BYTES)
            .max_pending_accept_reset_streams(MOST_TAKEN_BACK)
            .max_send_buf_size(MOST_UNREAD_BYTES);
        Self { builder }
    }

    /// Serves one connection until it ends, is dismissed, or the program ends; then calls under way are
    /// finished and no new ones are taken.
    pub async fn serve<I, S>(
        self,
        io: I,
        connection: Arc<Connection>,
        service: S,
        mut ending: watch::Receiver<bool>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let caller = Arc::clone(&connection);
        let service = service_fn(move |request: http::Request<Incoming>| {
            caller.note_call(request.version());
            // Here, in the connection's own task, requests come in order; what is spawned for each runs in any.
            let mut request = stamped(request);
            if let Some(stop) = stop_ahead(&caller, &request) {
                request.extensions_mut().insert(stop);
            }
            request.extensions_mut().insert(Arc::clone(&caller));
            service.clone().oneshot(request)
        });
        let mut serving = std::pin::pin!(self.builder.serve_connection(TokioIo::new(io), service));
        let told_to_end = async { drop(ending.wait_for(|ending| *ending).await) };
        let ended = tokio::select! {
            ended = serving.as_mut() => Some(ended),
            () = connection.dismissed() => return,
            () = told_to_end => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            debug!("connection {} from {}: {error}", connection.id, connection.remote);
        }
    }
}
