//! Kinova's Kortex: programs that were written for its session API drive an arm whose joints hang on CAN, and losing them
//! stops it. Both generations are served: 2 over TCP, 3 over MQTT, either over UDP.
//!
//! What lives here: Kortex's frames, its transports and services, and what its sessions are on top of ours. What must
//! never live here: a CAN frame, a decision on when a session of ours is over, or an answer that waits behind another.
//!
//! | file | its one idea |
//! |---|---|
//! | [`frame`], [`method`], [`refusal`] | what is said, in Kortex's numbers |
//! | [`accept`] | connections as they come in |
//! | [`stream`], [`tcp`] | frames on a byte stream |
//! | [`udp`] | a datagram is a frame |
//! | [`mqtt`] | a message is a frame |
//! | [`channel`] | a client's end, whatever carries its frames |
//! | [`desk`] | all services |
//! | [`roster`] | Kortex's sessions on top of ours |
//! | [`numbers`] | numbers for them |
//! | [`intake`], [`sequence`] | when each frame arrived, and in which order datagrams were sent |
//! | [`intent`] | whether a session that was stopped means to move again |
//! | [`control`] | who has the arm |
//! | [`arm`] | joints whose motors hang on CAN |
//! | [`topics`] | who wants to be told of changes |
//! | [`parsers`] | what reads clients' bytes, for the fuzzer |
//! | [`upstream`] | a real base behind, for what is not served here |

mod accept;
mod arm;
mod channel;
mod control;
mod desk;
mod frame;
mod intake;
mod intent;
mod method;
mod mqtt;
mod numbers;
mod parsers;
mod refusal;
mod roster;
mod sequence;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod topics;
mod udp;
mod upstream;
#[cfg(test)]
mod vectors;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use config::Kortex;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use arm::Parts;
use desk::Desk;
pub use parsers::PARSERS;

use crate::access::Access;

/// The ports, bound and not yet served: what can fail comes before the supervisor sees a front.
#[derive(Debug)]
pub struct Ports {
    tcp: Option<TcpListener>,
    udp: Option<UdpSocket>,
    mqtt: Option<TcpListener>,
}

impl Ports {
    /// Binds the ports of a configuration.
    ///
    /// # Errors
    ///
    /// When an address cannot be had.
    pub async fn bind(settings: &Kortex) -> anyhow::Result<Self> {
        let tcp = match settings.tcp {
            None => None,
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| failed("tcp", address))?),
        };
        let udp = match settings.udp {
            None => None,
            Some(address) => Some(UdpSocket::bind(address).await.with_context(|| failed("udp", address))?),
        };
        let mqtt = match settings.mqtt {
            None => None,
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| failed("mqtt", address))?),
        };
        Ok(Self { tcp, udp, mqtt })
    }

    /// Serves them. They end when this is dropped.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn serve(
        self,
        settings: &Kortex,
        access: Arc<Access>,
        parts: Parts,
        ending: &watch::Receiver<bool>,
    ) -> Tasks {
        let desk = Desk::new(settings, access, parts);
        let mut tasks = vec![tokio::spawn(Arc::clone(&desk).keep())];
        if let Some(listener) = self.tcp {
            tasks.push(tokio::spawn(tcp::serve(listener, Arc::clone(&desk), ending.clone())));
        }
        if let Some(socket) = self.udp {
            tasks.push(tokio::spawn(udp::serve(socket, Arc::clone(&desk), ending.clone())));
        }
        if let Some(listener) = self.mqtt {
            tasks.push(tokio::spawn(mqtt::serve(listener, Arc::clone(&desk), ending.clone())));
        }
        Tasks { desk, tasks }
    }
}

fn failed(key: &str, address: SocketAddr) -> String {
    format!("cannot listen on {address} ({key} in [kortex]); another program may have the port")
}

/// The tasks of the ports.
pub struct Tasks {
    desk: Arc<Desk>,
    tasks: Vec<JoinHandle<()>>,
}

impl Tasks {
    /// Returns when a base behind has been told of every session that is over, but in time for the program's end.
    pub async fn settle(&self) {
        self.desk.settle().await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
