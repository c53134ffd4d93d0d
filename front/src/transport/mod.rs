//! The port: connections, their limits, and HTTP on them. Every client protocol shares it.
//!
//! What must never live here: anything of a particular protocol, sessions, or who may do what.
//!
//! | file | its one idea |
//! |---|---|
//! | [`next`] | connections are taken between the turns of everything else |
//! | [`lobby`] | who says nothing waits apart |
//! | [`door`] | plain text or TLS |
//! | [`places`] | how many may be in, and who makes room |
//! | [`connection`] | what is known of one connection |
//! | [`heard`] | when bytes came last |
//! | [`http`] | what one client may have under way |

mod connection;
mod door;
mod heard;
mod http;
mod lobby;
mod next;
mod places;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use config::Config;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::body::Body;
use tower::Service;
use tracing::{debug, warn};

pub use connection::{Connection, Liveness};
pub use door::{Door, PlainText};
pub use heard::Heard;
pub use http::Http;
use lobby::{FIRST_WORD, MOST_WAITING};
pub use next::next;
pub use places::Places;

/// Descriptors for everything that is not a client: buses, the runtime, the supervisor.
const OTHER_DESCRIPTORS: u64 = 128;

/// What clients may do to the port.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// A quiet HTTP/2 client is pinged that often.
    pub ping_every: Duration,
}

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

/// Serves clients for as long as the program runs. When `ending` becomes true, connections end in order: what is
/// under way is finished, and nothing new is taken.
pub async fn serve<S>(
    listener: TcpListener,
    door: Door,
    service: S,
    limits: Limits,
    ending: watch::Receiver<bool>,
) where
    S: Service<::http::Request<Body>, Response = ::http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let places = Places::new(limits.connections, "max_connections in [front]");
    let http = Http::new(limits.ping_every);
    lobby::receive(listener, door, FIRST_WORD, move |stream| {
        let Ok((remote, local)) = stream.ends() else { return };
        let connection = Connection::new(remote, local);
        let Some(place) = places.take(&connection) else { return };
        hurry(stream.tcp());
        let stream = Heard::new(stream, std::sync::Arc::clone(&connection));
        let serving = http.clone().serve(stream, connection, service.clone(), ending.clone());
        tokio::spawn(async move {
            serving.await;
            drop(place);
        });
    })
    .await;
}

/// A heartbeat must not wait for more to fill a segment. Without the option it is only slower.
fn hurry(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!("cannot set TCP_NODELAY: {error}");
    }
}

/// Raises the limit of open files to what the configured connections and listeners need.
pub fn make_room(config: &Config) {
    let kortex = config.kortex.as_ref().map_or(0, |kortex| 3 * kortex.max_connections);
    // A link has two ends, and so has a listener of UDP.
    let tunnels =
        config.tunnel.as_ref().map_or(0, |tunnel| 2 * (tunnel.max_connections + tunnel.max_listeners));
    let most = config.front.max_connections + kortex + tunnels;
    let needed = u64::try_from(most + MOST_WAITING).unwrap_or(u64::MAX).saturating_add(OTHER_DESCRIPTORS);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let raised = needed.min(hard).max(soft);
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        warn!("cannot raise the limit of open files: {error}");
    }
    if hard < needed {
        warn!(
            "{hard} files may be open, but {most} connections and listeners (max_connections in [front], [kortex] and \
             [tunnel], max_listeners) need {needed}; raise LimitNOFILE in the unit, or lower them"
        );
    }
}
