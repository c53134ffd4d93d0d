//! What clients write, and what is answered: the JSON of versions 3 and 4 of hoprd's API.
//!
//! Both versions' requests are understood on both, and unknown fields are passed over, as hoprd does: its own client for
//! TypeScript sends one.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Version;
use super::amount::{Bandwidth, Size};
use super::node::Node;
use super::refusal::{Kind, Refusal};
use crate::tunnel::{Listed, Protocol, State, Stats, Wish};

/// Nodes on the way, at most, as in hoprd.
const MOST_HOPS: usize = 3;
/// Characters of a target: the longest name of a host that there is, in brackets, and a port.
const LONGEST_TARGET: usize = 261;
/// Payload of a packet and size of a reply block in hoprd's network, in bytes: what its own documentation shows. Clients compute
/// with them how much they can send; no link here has such a limit.
const HOPR_MTU: u32 = 1_002;
const SURB_LENGTH: u32 = 398;

/// What begins the text about JSON that does not fit, as axum has it.
const MISFIT: &str = "Failed to deserialize the JSON body into the target type: ";

/// A body of JSON.
///
/// # Errors
///
/// 400 when it is none, 422 when it is another.
pub fn read<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Refusal> {
    Json::from_bytes(body).map(|Json(read)| read).map_err(|rejection| {
        let kind = match rejection {
            JsonRejection::JsonDataError(_) => Kind::Unprocessable,
            _ => Kind::InvalidInput,
        };
        Refusal::new(kind, rejection.body_text())
    })
}

/// What a client asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object with destination, path and target")]
pub struct Asked {
    destination: Node,
    path: Option<Path>,
    forward_path: Option<Path>,
    return_path: Option<Path>,
    target: Target,
    listen_host: Option<String>,
    #[serde(default)]
    capabilities: Option<Vec<Capability>>,
    response_buffer: Option<Size>,
    max_surb_upstream: Option<Bandwidth>,
}

/// The way through a network that is not here.
#[derive(Clone, Debug, Deserialize, Serialize)]
enum Path {
    Hops(u64),
    IntermediatePath(Vec<Node>),
}

impl Path {
    fn hops(&self) -> usize {
        match self {
            Self::Hops(hops) => usize::try_from(*hops).unwrap_or(usize::MAX),
            Self::IntermediatePath(nodes) => nodes.len(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
enum Target {
    Plain(String),
    Sealed(String),
    Service(u32),
}

/// What hoprd can do on a link. Nothing of it is needed here: a link carries reads and datagrams of every size, without delay, and
/// must never send anything again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Capability {
    Segmentation,
    Retransmission,
    RetransmissionAckOnly,
    NoDelay,
    NoRateControl,
}

/// What is wanted, once it has been looked at.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whom the listener is to lead to.
    pub wish: Wish,
    /// Where it is to be, as its client wrote it.
    pub listen_host: Option<String>,
    /// The robot that is meant.
    pub destination: String,
    /// What answers repeat.
    pub echoed: Value,
}

impl Asked {
    /// What is wanted by it.
    ///
    /// # Errors
    ///
    /// 422 when something is missing or cannot be.
    pub fn wanted(self, version: Version) -> Result<Wanted, Refusal> {
        let (first, second, missing) = match version {
            Version::Three => (self.path, self.forward_path, "path"),
            Version::Four => (self.forward_path, self.path, "forwardPath"),
        };
        let misfit = |what: &str| Refusal::new(Kind::Unprocessable, format!("{MISFIT}{what}"));
        let forward = first.or(second).ok_or_else(|| misfit(&format!("missing field `{missing}`")))?;
        let back = self.return_path.unwrap_or_else(|| forward.clone());
        let capabilities = self.capabilities.unwrap_or_default();
        if version == Version::Three && capabilities.contains(&Capability::NoRateControl) {
            return Err(misfit("capabilities: `NoRateControl` is of version 4 of this API"));
        }
        if forward.hops().max(back.hops()) > MOST_HOPS {
            return Err(failure(format!("a path has at most {MOST_HOPS} hops")));
        }
        let echoed = json!({
            "path": forward,
            "forwardPath": forward,
            "returnPath": back,
            "responseBuffer": self.response_buffer,
            "maxSurbUpstream": self.max_surb_upstream,
        });
        Ok(Wanted {
            wish: self.target.wish()?,
            listen_host: self.listen_host,
            destination: self.destination.into(),
            echoed,
        })
    }
}

impl Target {
    fn wish(self) -> Result<Wish, Refusal> {
        match self {
            Self::Plain(text) => {
                check_plain(&text).map_err(failure)?;
                Ok(Wish::Plain(text))
            }
            Self::Service(number) => Ok(Wish::Service(number)),
            Self::Sealed(text) if BASE64.decode(&text).is_err() => {
                Err(failure("target: Sealed must be in base 64"))
            }
            Self::Sealed(_) => Err(failure(
                "target: Sealed is for the key of a node at the other end, and there is none here; ask for \
                 {\"Plain\": \"host:port\"} or {\"Service\": number}, as [[tunnel.target]] has them",
            )),
        }
    }
}

/// Whether a text can be the name of a target; whether there is one is not asked here.
fn check_plain(text: &str) -> Result<(), String> {
    if text.len() > LONGEST_TARGET || !text.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(format!("target: must be host:port in at most {LONGEST_TARGET} printable characters"));
    }
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let Some((host, port)) = text.split_once(':') else {
        return Err(format!("target: missing port delimiter in {text:?}; give host:port"));
    };
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(format!("target: {text:?} must be host:port, an IPv6 address in brackets"));
    }
    Ok(())
}

fn failure(error: impl Into<String>) -> Refusal {
    Refusal::new(Kind::UnknownFailure, error)
}

/// A listener, in the words of a version. `connections`: how many clients listeners may have together.
pub fn listener(listed: &Listed, version: Version, connections: usize) -> Value {
    let echoed = |key: &str| listed.echoed.get(key).cloned().unwrap_or_default();
    let mut answer = json!({
        "target": listed.wish.to_string(),
        "protocol": listed.protocol.name(),
        "ip": listed.address.ip().to_string(),
        "path": echoed("path"),
        "port": listed.address.port(),
    });
    let clients = match listed.protocol {
        Protocol::Tcp => connections,
        Protocol::Udp => 1,
    };
    let more = json!({
        "destination": listed.destination,
        "forwardPath": echoed("forwardPath"),
        "returnPath": echoed("returnPath"),
        "hoprMtu": HOPR_MTU,
        "surbLen": SURB_LENGTH,
        "activeClients": listed.links.iter().map(|link| session_id(*link)).collect::<Vec<_>>(),
        "maxClientSessions": clients,
        "maxSurbUpstream": echoed("maxSurbUpstream"),
        "responseBuffer": echoed("responseBuffer"),
        "sessionPool": 0,
    });
    if let (Version::Four, Value::Object(answer), Value::Object(more)) = (version, &mut answer, more) {
        answer.extend(more);
    }
    answer
}

/// A link's number as clients know it.
pub fn session_id(link: u128) -> String {
    format!("{link:032x}")
}

/// The link of that number; `None` when it cannot be one.
pub fn link(id: &str) -> Option<u128> {
    let digits = id.strip_prefix("0x").unwrap_or(id);
    let fits = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(digits, 16).ok().filter(|_| fits)
}

/// What is known of a listener; the times as hoprd has them.
pub fn stats(stats: &Stats) -> Value {
    let state = match stats.state {
        State::Waiting => "waiting",
        State::Active => "active",
        State::Expired => "expired",
        State::Closed => "closed",
    };
    json!({
        "target": stats.wish.to_string(),
        "protocol": stats.protocol.name(),
        "ip": stats.address.ip().to_string(),
        "port": stats.address.port(),
        "createdAtMs": unix(stats.created),
        "lastActivityAtMs": stats.last_activity.map(unix),
        "uptimeMs": milliseconds(stats.uptime),
        "idleMs": milliseconds(stats.idle),
        "state": state,
        "reason": stats.why,
        "bytesToTarget": stats.to_target,
        "bytesToClient": stats.to_client,
        "links": stats.links,
        "activeLinks": stats.clients,
        "trips": stats.trips,
        "refused": stats.refused,
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix(time: SystemTime) -> u64 {
    milliseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}
