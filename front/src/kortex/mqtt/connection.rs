//! One connection: its first packet, those that follow, and its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt5_protocol::packet::connack::ConnAckPacket;
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::packet::disconnect::DisconnectPacket;
use mqtt5_protocol::{Packet, ReasonCode};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::super::channel::{Channel, Transport};
use super::super::desk::Desk;
use super::super::frame::Frame;
use super::super::intake::Intake;
use super::client::{Answered, Client};
use super::names::{Name, Names};
use super::packet::{Fault, MOST_PACKET, put, take};
use crate::transport::Connection;

/// How long a client has for its first packet.
const FIRST_PACKET: Duration = Duration::from_secs(5);
/// How long a client may leave a message unread: its kernel takes megabytes before.
const UNREAD: Duration = Duration::from_secs(5);
/// What is read at a time: a hundred calls.
const PIECE: usize = 8 * 1024;
/// Answers that wait to be sent: as many as calls may be under way.
const MOST_LATE: usize = 32;

/// Why a connection ends.
#[derive(Debug, Error)]
enum End {
    /// The network says so.
    #[error("{0}")]
    Network(#[from] std::io::Error),
    /// Its first packet is not what is taken.
    #[error("not taken: {0}")]
    Refused(Fault),
    /// It is told so.
    #[error("{0}")]
    Told(#[from] Fault),
}

/// Serves one connection until it ends; then its sessions end, too.
pub async fn converse(
    mut stream: TcpStream,
    connection: Arc<Connection>,
    desk: &Arc<Desk>,
    names: &Arc<Names>,
    mut ending: watch::Receiver<bool>,
) {
    let (channel, outbox) = Channel::new(Arc::clone(&connection), Transport::Mqtt);
    let told_to_end = async { drop(ending.wait_for(|ending| *ending).await) };
    let ended = tokio::select! {
        ended = exchange(&mut stream, &channel, outbox, desk, names) => ended,
        () = connection.dismissed() => {
            Err(Fault::new(ReasonCode::AdministrativeAction, "it is closed from this side").into())
        }
        () = told_to_end => Err(Fault::new(ReasonCode::ServerShuttingDown, "this program ends").into()),
    };
    // First of all: what its sessions drive stops now.
    desk.left(&channel);
    if let Err(end) = ended {
        debug!("Kortex connection {} from {}: {end}", connection.id, connection.remote);
        bid_farewell(&mut stream, &end).await;
    }
}

/// Tells a client why its connection ends, if it reads at all: nothing waits for it.
async fn bid_farewell(stream: &mut TcpStream, end: &End) {
    let mut out = BytesMut::new();
    let put = match end {
        End::Network(_) => return,
        // A client of another version understands that much; what is no client at all gets nothing.
        End::Refused(fault) if fault.reason == ReasonCode::MalformedPacket => return,
        End::Refused(fault) => put(&mut out, &ConnAckPacket::new(false, fault.reason)),
        End::Told(fault) => put(&mut out, &DisconnectPacket::new(fault.reason)),
    };
    if put.is_ok() && stream.try_write(&out).is_ok() {
        // Without this, what was not read yet would reset the connection, and take the word back. It does not wait.
        drop(stream.shutdown().await);
    }
}

async fn exchange(
    stream: &mut TcpStream,
    channel: &Arc<Channel>,
    mut outbox: mpsc::Receiver<Frame>,
    desk: &Arc<Desk>,
    names: &Arc<Names>,
) -> Result<(), End> {
    // A heartbeat's answer must not wait for more to fill a segment.
    stream.set_nodelay(true)?;
    let (mut come, mut out, mut intake) = (BytesMut::new(), BytesMut::new(), Intake::default());
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no CONNECT");
    let connect = timeout(FIRST_PACKET, first(stream, &mut come)).await.map_err(|_| late())??;
    let name = names.take(&connect.client_id, channel.id());
    welcome(&connect, &name, &mut out)?;
    let (send, mut answers) = mpsc::channel::<Answered>(MOST_LATE);
    let mut client = Client::new(desk, channel, name, longest(&connect)?, send);
    let patience = Duration::from_secs(connect.keep_alive.into()) * 3 / 2;
    let mut heard = Instant::now();
    let mut status = desk.status();
    loop {
        // Those that came at once, too, before anything is waited for.
        loop {
            let (packets, ended) = intake.take_apart(&mut come, take);
            let none = packets.is_empty();
            for (packet, arrived) in packets {
                heard = Instant::now();
                if !client.receive(packet, arrived, &mut out)? {
                    return Ok(());
                }
                write(stream, &mut out).await?;
            }
            ended?;
            if none {
                break;
            }
        }
        write(stream, &mut out).await?;
        come.reserve(PIECE);
        let silent = (patience > Duration::ZERO).then_some(heard + patience);
        tokio::select! {
            // What has come counts, however late this program comes to look.
            biased;
            read = stream.read_buf(&mut come) => {
                if read? == 0 {
                    return Ok(());
                }
                channel.connection.note_heard();
            }
            () = until(silent) => {
                return Err(Fault::new(ReasonCode::KeepAliveTimeout, "silent for 1.5 times its keep alive").into());
            }
            () = until(client.next_ping()) => client.ping(Instant::now(), &mut out)?,
            // The client holds a sender, and so does the channel, so that there is always a next one.
            Some(answered) = answers.recv() => client.answer(&answered, &mut out)?,
            Some(frame) = outbox.recv() => client.notify(&frame, &mut out)?,
            Ok(()) = status.changed() => {
                let status = status.borrow_and_update().clone();
                client.tell_status(&status, &mut out)?;
            }
        }
    }
}

/// The first packet, which is a CONNECT.
async fn first(stream: &mut TcpStream, come: &mut BytesMut) -> Result<ConnectPacket, End> {
    loop {
        match take(come).map_err(End::Refused)? {
            Some(Packet::Connect(connect)) => return Ok(*connect),
            Some(other) => {
                let text = format!("{} comes first", other.packet_type_name());
                return Err(End::Refused(Fault::new(ReasonCode::MalformedPacket, text)));
            }
            None => {
                come.reserve(PIECE);
                if stream.read_buf(come).await? == 0 {
                    return Err(End::Network(std::io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }
}

/// Takes a client in, and says what is not to be had. Its name is always said: Kortex's clients insist on it.
///
/// A last will is taken, and thrown away. Kortex's C++ client reconnects with one, and refusing would keep it out; what it
/// says, that the session has ended, is known here as soon as the connection ends, and would be told by nobody else.
fn welcome(connect: &ConnectPacket, name: &Name, out: &mut BytesMut) -> Result<(), End> {
    if connect.properties.get_authentication_method().is_some() {
        let text = "authentication is done by CreateSession";
        return Err(End::Refused(Fault::new(ReasonCode::BadAuthenticationMethod, text)));
    }
    let largest = u32::try_from(MOST_PACKET).unwrap_or(u32::MAX);
    let mut taken = ConnAckPacket::new(false, ReasonCode::Success)
        .with_assigned_client_id(name.as_str().to_owned())
        .with_maximum_qos(0)
        .with_retain_available(false)
        .with_maximum_packet_size(largest)
        .with_wildcard_subscription_available(false)
        .with_subscription_identifier_available(false)
        .with_shared_subscription_available(false);
    if connect.properties.get_session_expiry_interval().is_some_and(|seconds| seconds > 0) {
        taken = taken.with_session_expiry_interval(0);
    }
    Ok(put(out, &taken)?)
}

/// Longest packet that the client takes.
fn longest(connect: &ConnectPacket) -> Result<usize, End> {
    match connect.properties.get_maximum_packet_size() {
        Some(0) => {
            let text = "a client that takes no packet";
            Err(End::Refused(Fault::new(ReasonCode::ProtocolError, text)))
        }
        Some(most) => Ok(usize::try_from(most).unwrap_or(usize::MAX)),
        None => Ok(usize::MAX),
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn write(stream: &mut TcpStream, out: &mut BytesMut) -> Result<(), End> {
    if out.is_empty() {
        return Ok(());
    }
    let bytes: Bytes = out.split().freeze();
    let written = timeout(UNREAD, stream.write_all(&bytes)).await;
    Ok(written.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?)
}
