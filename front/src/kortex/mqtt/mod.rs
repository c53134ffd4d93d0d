//! Generation 3 over MQTT 5: the end of a broker that Kortex's clients see.
//!
//! What lives here: MQTT's packets, the topics that Kortex's clients use, and their connections. What must never live here:
//! a message from one client to another, one that outlives its connection (retained, a last will, a QoS above 0, a session
//! of MQTT's), or the payload of a call.
//!
//! Clients of this generation send nothing by themselves that shows that they run: they answer PINGs. A session is
//! therefore asked four times within its window for as long as its client has subscribed to `ping/<session>`, and each answer
//! is a beat. That proves that the client's network thread runs; what else beats is its own calls. MQTT's keep alive is no
//! beat: it speaks for no session.
//!
//! A client is told of changes, and of sessions, only while it has a session itself. `sessions/killed` can be subscribed to,
//! and nothing is ever published there: what Kinova's arms say there is not known, and a session that is over shows in the
//! next answer.
//!
//! | file | its one idea |
//! |---|---|
//! | [`packet`] | packets on a byte stream |
//! | [`topics`] | what topics there are |
//! | [`names`] | what clients are called |
//! | [`client`] | what a client has subscribed to, and what becomes of what it publishes |
//! | [`connection`] | the first packet, those that follow, the end |

mod client;
mod connection;
mod names;
pub mod packet;
#[cfg(test)]
mod tests;
mod topics;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use self::connection::converse;
use self::names::Names;
use super::accept::accept;
use super::desk::Desk;

/// Serves connections for as long as the program runs. When `ending` becomes true they are closed.
pub async fn serve(listener: TcpListener, desk: Arc<Desk>, ending: watch::Receiver<bool>) {
    let names = Arc::new(Names::default());
    let most = desk.most_connections();
    accept(listener, most, |stream, connection| {
        let (desk, names, ending) = (Arc::clone(&desk), Arc::clone(&names), ending.clone());
        async move { converse(stream, connection, &desk, &names, ending).await }
    })
    .await;
}

/// Any bytes as what a client has sent: packets come off its beginning, and never more of them than there are bytes.
///
/// # Panics
///
/// When something does not hold that must.
pub fn feed(bytes: &[u8]) {
    let mut come = bytes::BytesMut::from(bytes);
    while let Ok(Some(_)) = packet::take(&mut come) {
        assert!(come.len() < bytes.len(), "a packet of no bytes");
    }
    assert!(bytes.ends_with(&come) || come.is_empty());
}
