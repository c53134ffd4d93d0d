//! The gRPC port and what one connection may have under way.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tracing::warn;

use crate::lobby::{self, MOST_WAITING};

/// Pings to a quiet client, and how long it may take to answer. Generous, since a Python program that
/// computes answers no pings meanwhile; sessions do not wait for this.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(60);
/// Calls one connection may have under way.
const MOST_CALLS: u32 = 256;
/// Bytes of headers a call may have.
const MOST_HEADER_BYTES: u32 = 16 * 1024;
/// Descriptors for everything that is not a client: buses, the runtime, the supervisor.
const OTHER_DESCRIPTORS: u64 = 128;

/// Opens the port.
///
/// # Errors
///
/// When the address is taken or not this machine's.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!(
            "cannot listen on {address}: {error}. Check \"listen\" in [front], and that no other program \
             (another lanyard-front, a viam-server) has the port"
        )
    })
}

/// Serves `most` connections at once, for as long as the program runs.
///
/// # Errors
///
/// When the server itself cannot go on.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    most: usize,
) -> Result<(), tonic::transport::Error> {
    make_room(most);
    let (admitted, connections) = mpsc::channel(1);
    let admitting = tokio::spawn(lobby::admit(listener, most, admitted));
    let served = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(MOST_CALLS)
        .http2_max_header_list_size(MOST_HEADER_BYTES)
        .add_routes(routes)
        .serve_with_incoming(ReceiverStream::new(connections))
        .await;
    admitting.abort();
    served
}

/// Raises the limit of open files to what that many connections need.
fn make_room(most: usize) {
    let needed = u64::try_from(most + MOST_WAITING).unwrap_or(u64::MAX).saturating_add(OTHER_DESCRIPTORS);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let raised = needed.min(hard).max(soft);
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        warn!("cannot raise the limit of open files: {error}");
    }
    if hard < needed {
        warn!(
            "{hard} files may be open, but {most} connections (max_connections in [front]) need {needed}; \
             raise LimitNOFILE in the unit, or lower max_connections"
        );
    }
}
