//! What is asked for, and what there is, in the API's words.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use config::TunnelProtocol as Protocol;
use serde_json::Value;

/// Whom a listener is to lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `host:port`.
    Plain(String),
    /// The number of a named target.
    Service(u32),
}

impl std::fmt::Display for Wish {
    /// As hoprd's answers have it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::Service(number) => write!(f, "#{number}"),
        }
    }
}

/// A listener that somebody wants.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it speaks.
    pub protocol: Protocol,
    /// Whom it is to lead to.
    pub wish: Wish,
    /// Where it is to be; port 0: wherever there is one.
    pub listen: SocketAddr,
    /// The robot that is meant, as its client has it.
    pub destination: String,
    /// What else its answers repeat, known to the API alone.
    pub echoed: Arc<Value>,
}

/// A listener that there is.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What it speaks.
    pub protocol: Protocol,
    /// Whom it leads to.
    pub wish: Wish,
    /// Where it is.
    pub address: SocketAddr,
    /// The robot that was meant.
    pub destination: String,
    /// What else answers repeat.
    pub echoed: Arc<Value>,
    /// Its links at present, by number.
    pub links: Vec<u128>,
}

/// Why there is no listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another one is there already, or another program.
    AddressTaken,
    /// It is not allowed, or cannot be; in words.
    Refused(String),
}

/// How a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody drives over it.
    Waiting,
    /// A link drives.
    Active,
    /// Its last link that drove was cut; unless it has ended, a client may come again.
    Expired,
    /// It was closed.
    Closed,
}

/// What is known of a listener, also for a while after its end.
#[derive(Clone, Debug)]
pub struct Stats {
    /// What it speaks.
    pub protocol: Protocol,
    /// Whom it leads to.
    pub wish: Wish,
    /// Where it is, or was.
    pub address: SocketAddr,
    /// When it was opened.
    pub created: SystemTime,
    /// When its client last sent something.
    pub last_activity: Option<SystemTime>,
    /// How long it has been open.
    pub uptime: Duration,
    /// For how long nothing has come from its client, or for how long it has been open.
    pub idle: Duration,
    /// How it is.
    pub state: State,
    /// Why its last link was cut or refused, or why it has ended.
    pub why: Option<String>,
    /// Bytes that went on to the target.
    pub to_target: u64,
    /// Bytes that went on to clients.
    pub to_client: u64,
    /// Links so far.
    pub links: u64,
    /// Links at present.
    pub clients: usize,
    /// Links that were cut because their client fell silent, or because its session ended.
    pub trips: u64,
    /// What was not let through: connections, and datagrams of others.
    pub refused: u64,
}
