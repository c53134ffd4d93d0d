//! Generation 2 over TCP: connections, and frames with heads on them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::debug;

use super::accept::accept;
use super::channel::{Channel, Transport};
use super::desk::{Answer, Desk};
use super::frame::Frame;
use super::intake::{Heard, Intake};
use super::refusal::{Refusal, Sub};
use super::stream;
use crate::transport::Connection;

/// How long a client may leave an answer unread: its kernel takes megabytes before.
const UNREAD: Duration = Duration::from_secs(5);
/// What is read at a time: a hundred calls.
const PIECE: usize = 8 * 1024;

/// Serves connections for as long as the program runs. When `ending` becomes true they are closed.
pub async fn serve(listener: TcpListener, desk: Arc<Desk>, ending: watch::Receiver<bool>) {
    let most = desk.most_connections();
    accept(listener, most, |stream, connection| {
        let (desk, ending) = (Arc::clone(&desk), ending.clone());
        async move { converse(stream, connection, &desk, ending).await }
    })
    .await;
}

/// Serves one connection until it ends; then its sessions end, too.
async fn converse(
    stream: TcpStream,
    connection: Arc<Connection>,
    desk: &Arc<Desk>,
    mut ending: watch::Receiver<bool>,
) {
    let (channel, outbox) = Channel::new(Arc::clone(&connection), Transport::Tcp);
    let told_to_end = async { drop(ending.wait_for(|ending| *ending).await) };
    let ended = tokio::select! {
        ended = exchange(stream, &channel, outbox, desk) => ended,
        () = connection.dismissed() => Err(io::Error::other("it is closed from this side")),
        () = told_to_end => Ok(()),
    };
    desk.left(&channel);
    if let Err(error) = ended {
        debug!("Kortex connection {} from {}: {error}", connection.id, connection.remote);
    }
}

async fn exchange(
    mut stream: TcpStream,
    channel: &Arc<Channel>,
    mut outbox: mpsc::Receiver<Frame>,
    desk: &Arc<Desk>,
) -> io::Result<()> {
    // A keep-alive's answer must not wait for more to fill a segment.
    stream.set_nodelay(true)?;
    let (mut come, mut intake) = (BytesMut::with_capacity(PIECE), Intake::default());
    loop {
        tokio::select! {
            read = stream.read_buf(&mut come) => {
                if read? == 0 {
                    return Ok(());
                }
                channel.connection.note_heard();
                loop {
                    let (frames, ended) = intake.take_apart(&mut come, stream::take);
                    let none = frames.is_empty();
                    for (bytes, heard) in frames {
                        if let Some(answer) = ask(desk, channel, &bytes, heard) {
                            write(&mut stream, &answer).await?;
                        }
                    }
                    ended.map_err(io::Error::other)?;
                    if none {
                        break;
                    }
                }
            }
            // The channel holds a sender, so that there is always a next one.
            Some(frame) = outbox.recv() => write(&mut stream, &frame).await?,
        }
    }
}

/// What a frame is answered with at once, if it is.
pub fn ask(desk: &Arc<Desk>, channel: &Arc<Channel>, bytes: &[u8], heard: Heard) -> Option<Frame> {
    match desk.ask(channel, bytes, heard) {
        Answer::Now(frame) => Some(frame),
        Answer::Nothing => None,
        Answer::Later(call) => {
            if channel.attend(call) {
                return None;
            }
            let busy = Refusal::device(Sub::MethodFailed, "too many calls of this connection are under way");
            Frame::read(bytes).ok().map(|frame| Frame::refused(&frame.header, &busy))
        }
    }
}

/// In one write, see [`stream::put`].
async fn write(stream: &mut TcpStream, frame: &Frame) -> io::Result<()> {
    let bytes = stream::put(&frame.encode());
    timeout(UNREAD, stream.write_all(&bytes)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
