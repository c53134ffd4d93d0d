//! Tunnels: links of TCP and UDP into the robot, for programs that know nothing of sessions. A link to a target with motors
//! is watched: when its client falls silent, the link is cut and the motors behind it are stopped.
//!
//! What lives here: hoprd's session API, listeners, and the links that come in over them. What must never live here: a
//! CAN frame of our own, a target that is not in the configuration, or bytes that wait to be sent later.
//!
//! | file | its one idea |
//! |---|---|
//! | [`api`] | hoprd's session API, over HTTP |
//! | [`request`] | what is asked for, and what there is, in the API's words |
//! | [`targets`] | what can be reached, and nothing else |
//! | [`listeners`] | every listener, from its request to its end |
//! | [`facts`] | what is known of one |
//! | [`drive`] | a session for as long as a link drives |
//! | [`tcp`], [`udp`] | bytes and datagrams on their way |
//! | [`buffer`] | where they lie meanwhile |
//! | [`reader`], [`content`] | what a client's bytes mean |
//! | [`reach`] | which CAN frames may go on, and what they do to the target's motors |
//! | [`socketcand`], [`cannelloni`] | in which protocol |
//! | [`parsers`] | what reads clients' bytes, for the fuzzer |

mod api;
mod buffer;
mod cannelloni;
mod content;
mod drive;
mod facts;
mod listeners;
mod parsers;
mod reach;
mod reader;
mod request;
mod socketcand;
mod targets;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub use drive::Means;
pub use listeners::Tunnels;
pub use parsers::PARSERS;
pub use request::{Listed, OpenError, Protocol, Request, State, Stats, Wish};

use std::net::SocketAddr;
use std::sync::Arc;

use config::Origins;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tower::ServiceExt as _;

use crate::access::Access;
use crate::transport::{self, Door, Limits};

/// Opens the port of the API.
///
/// # Errors
///
/// When the address is taken or not this machine's.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!(
            "cannot listen on {address} (listen in [tunnel]): {error}; another program may have the port, a hoprd for \
             one"
        )
    })
}

/// The port of the API, and how it is served.
pub struct Api {
    /// The port.
    pub listener: TcpListener,
    /// How clients come in.
    pub door: Door,
    /// What they may do to the port.
    pub limits: Limits,
    /// Which web pages may call.
    pub origins: Origins,
}

impl Api {
    /// Serves it until the [`Serving`] is dropped; listeners go on. When `ending` becomes true, connections end in order.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn serve(
        self,
        tunnels: &Arc<Tunnels>,
        access: Arc<Access>,
        ending: watch::Receiver<bool>,
    ) -> Serving {
        let router = api::router(Arc::clone(tunnels), access, self.origins);
        let service = router
            .map_request(|request: http::Request<Body>| request.map(axum::body::Body::new))
            .map_response(|response: http::Response<axum::body::Body>| response.map(Body::new));
        let serving = transport::serve(self.listener, self.door, service, self.limits, ending);
        Serving(tokio::spawn(serving))
    }
}

/// The API's task.
#[derive(Debug)]
#[must_use]
pub struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}
