//! Both generations over UDP: a datagram is a frame, an address and port is a connection.
//!
//! Nothing is kept of an address that has no session, and what it is answered is hardly longer than what it sent. Whoever
//! can forge an address can keep its session alive by forging its number, too: UDP proves no more than that.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

use super::channel::{Channel, Transport};
use super::desk::Desk;
use super::frame::Frame;
use super::intake::Heard;
use super::tcp::ask;
use crate::transport::Connection;

/// Largest datagram there is.
const MOST_DATAGRAM: usize = 65_507;
/// How often addresses without a session are forgotten.
const LOOK: Duration = Duration::from_millis(250);
/// How long an address is remembered that has asked for a session and has none yet: a login takes a moment.
const FLEDGLING: u64 = 5_000_000_000;
/// Pause after a failed receive.
const PAUSE: Duration = Duration::from_millis(50);

/// An address that has, or is about to get, a session.
struct Guest {
    channel: Arc<Channel>,
    /// Sends what is not answered at once.
    sending: JoinHandle<()>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

struct Port {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    desk: Arc<Desk>,
    guests: HashMap<SocketAddr, Guest>,
}

/// Serves datagrams for as long as the program runs. When `ending` becomes true, sessions end.
pub async fn serve(socket: UdpSocket, desk: Arc<Desk>, mut ending: watch::Receiver<bool>) {
    let socket = Arc::new(socket);
    let local = socket.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
    let mut port = Port { socket: Arc::clone(&socket), local, desk, guests: HashMap::new() };
    let mut datagram = vec![0; MOST_DATAGRAM];
    let mut told_to_end = std::pin::pin!(async { drop(ending.wait_for(|ending| *ending).await) });
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = socket.recv_from(&mut datagram) => match received {
                Ok((length, from)) => port.receive(&datagram[..length], from).await,
                Err(error) => {
                    warn!("cannot receive Kortex datagrams: {error}");
                    sleep(PAUSE).await;
                }
            },
            _ = looks.tick() => port.forget(),
            () = &mut told_to_end => break,
        }
    }
    for guest in port.guests.values() {
        port.desk.left(&guest.channel);
    }
}

impl Port {
    async fn receive(&mut self, bytes: &[u8], from: SocketAddr) {
        let heard = Heard::now();
        let known = self.guests.get(&from).map(|guest| Arc::clone(&guest.channel));
        let channel = match known {
            Some(channel) => channel,
            None => match self.welcome(from) {
                Some(channel) => channel,
                None => return,
            },
        };
        channel.connection.note_heard();
        if let Some(answer) = ask(&self.desk, &channel, bytes, heard) {
            send(&self.socket, &answer, from).await;
        }
        // Most that come without a session stay without, and are not kept.
        if !channel.connection.has_called() && channel.is_idle() {
            self.guests.remove(&from);
        }
    }

    /// Takes in an address, if there is room.
    fn welcome(&mut self, from: SocketAddr) -> Option<Arc<Channel>> {
        if self.guests.len() >= self.desk.most_connections() {
            debug!("a datagram from {from} is not looked at: too many addresses have sessions");
            return None;
        }
        let (channel, outbox) = Channel::new(Connection::new(from, self.local), Transport::Udp);
        let sending = tokio::spawn(forward(Arc::clone(&self.socket), outbox, from));
        self.guests.insert(from, Guest { channel: Arc::clone(&channel), sending });
        Some(channel)
    }

    /// Forgets addresses whose sessions are over.
    fn forget(&mut self) {
        let now = shm_proto::Nanos::now();
        let desk = &self.desk;
        self.guests.retain(|_, guest| {
            let fresh = now.since(guest.channel.connection.heard()) < FLEDGLING;
            let stays = !guest.channel.connection.is_dismissed()
                && (fresh || !desk.sessions_of(&guest.channel).is_empty());
            if !stays {
                desk.left(&guest.channel);
            }
            stays
        });
    }
}

async fn forward(socket: Arc<UdpSocket>, mut outbox: mpsc::Receiver<Frame>, to: SocketAddr) {
    while let Some(frame) = outbox.recv().await {
        send(&socket, &frame, to).await;
    }
}

async fn send(socket: &UdpSocket, frame: &Frame, to: SocketAddr) {
    if let Err(error) = socket.send_to(&frame.encode(), to).await {
        debug!("cannot answer {to}: {error}");
    }
}
