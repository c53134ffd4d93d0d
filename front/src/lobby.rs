//! Where connections wait until they have said something, and how many may come in.
//!
//! Silence costs an unknown client nothing, so it gets nothing for it: who says nothing waits apart, not
//! for long, and makes room for the next one when too many wait. Only who speaks takes one of the
//! places; when these are taken, more are closed at once, because a client that is told nothing waits,
//! and one that is refused tries again.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

/// Connections that have not spoken yet.
pub const MOST_WAITING: usize = 256;
/// Time for the first word. A person with a bad connection needs one second.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Its length: what every HTTP/2 client sends first, and less than any HTTP/1 request.
const FIRST_WORD_BYTES: usize = 24;
/// How often an incomplete first word is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Pause after a failed accept: out of descriptors, which a retry at once would not cure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The places, and whether it was said that they are taken.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    most: usize,
    full: AtomicBool,
}

/// Accepts connections for ever and hands on those that speak.
pub async fn admit(listener: TcpListener, most: usize, admitted: mpsc::Sender<io::Result<Connection>>) {
    let places = Arc::new(Places {
        free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
        most,
        full: AtomicBool::new(false),
    });
    let mut waiting: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        waiting.retain(|waiting| !waiting.is_finished());
        if waiting.len() >= MOST_WAITING
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.abort();
        }
        let greeting = tokio::spawn(greet(stream, Arc::clone(&places), admitted.clone()));
        waiting.push_back(greeting.abort_handle());
    }
}

async fn greet(stream: TcpStream, places: Arc<Places>, admitted: mpsc::Sender<io::Result<Connection>>) {
    match timeout(FIRST_WORD, first_word(&stream)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return debug!("a connection ended before its first word: {error}"),
        Err(_) => return debug!("a connection said nothing"),
    }
    let Ok(place) = Arc::clone(&places.free).try_acquire_owned() else {
        if !places.full.swap(true, Ordering::Relaxed) {
            warn!(
                "{} connections are open; more are closed at once (max_connections in [front])",
                places.most
            );
        }
        return;
    };
    places.full.store(false, Ordering::Relaxed);
    // A heartbeat must not wait for more to fill a segment. Without the option it is only slower.
    if let Err(error) = stream.set_nodelay(true) {
        debug!("cannot set TCP_NODELAY: {error}");
    }
    // A server that has ended takes no more, and then the program ends.
    let _ = admitted.send(Ok(Connection { stream, _place: place })).await;
}

/// Returns when enough has arrived; it stays to be read.
async fn first_word(stream: &TcpStream) -> io::Result<()> {
    let mut word = [0; FIRST_WORD_BYTES];
    loop {
        match stream.peek(&mut word).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            FIRST_WORD_BYTES => return Ok(()),
            _ => sleep(LOOK_AGAIN).await,
        }
    }
}

/// A connection with its place among those that may be open.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::{FIRST_WORD_BYTES, MOST_WAITING, admit};

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn any_number_of_silent_connections_keeps_nobody_out_and_places_are_limited() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (admitted, mut connections) = mpsc::channel(8);
        tokio::spawn(admit(listener, 2, admitted));

        let mut silent = Vec::new();
        for _ in 0..MOST_WAITING + 2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let speak = || async {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&[1; FIRST_WORD_BYTES]).await.unwrap();
            client
        };
        let (_first, _second) = (speak().await, speak().await);
        let first = timeout(SOON, connections.recv()).await.unwrap();
        let second = timeout(SOON, connections.recv()).await.unwrap();
        assert!(first.is_some() && second.is_some());
        let gone = timeout(SOON, silent[0].read(&mut [0])).await.unwrap();
        assert!(matches!(gone, Ok(0) | Err(_)), "the oldest made room");

        let mut third = speak().await;
        let refused = timeout(SOON, third.read(&mut [0])).await.unwrap();
        assert!(matches!(refused, Ok(0) | Err(_)), "both places are taken");
        drop(first);
        let _fourth = speak().await;
        assert!(timeout(SOON, connections.recv()).await.unwrap().is_some(), "a place is free again");
    }
}
