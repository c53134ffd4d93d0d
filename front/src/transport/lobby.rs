//! Where connections wait until they have said something.
//!
//! Silence costs an unknown client nothing, so it gets nothing for it: who says nothing waits apart, not
//! for long, and makes room for the next one when too many wait. Only who speaks takes one of the
//! [`Places`](super::places::Places); with TLS, only who has shaken hands.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::door::{Door, Stream};
use super::next::next;

/// Connections that have not spoken yet.
pub const MOST_WAITING: usize = 256;
/// Time for the first word, and the handshake of TLS. A person with a bad connection needs one second.
pub const FIRST_WORD: Duration = Duration::from_secs(10);
/// Its length: what every HTTP/2 client sends first, and less than any HTTP/1 request or TLS greeting.
const FIRST_WORD_BYTES: usize = 24;
/// How often an incomplete first word is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Pause after a failed accept: out of descriptors, which a retry at once would not cure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections for ever and hands on those that come in by the door within `patience`; `admit` is to return
/// soon.
pub async fn receive(
    listener: TcpListener,
    door: Door,
    patience: Duration,
    admit: impl Fn(Stream) + Send + Sync + 'static,
) {
    let (door, admit) = (Arc::new(door), Arc::new(admit));
    let mut waiting: VecDeque<JoinHandle<()>> = VecDeque::new();
    loop {
        let stream = match next(&listener).await {
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
            // Its descriptor is free only when its task has gone: who connects faster than that must not take them all.
            drop(oldest.await);
        }
        let (door, admit) = (Arc::clone(&door), Arc::clone(&admit));
        let greeting = tokio::spawn(async move {
            let greeted = async {
                let first = first_word(&stream).await?;
                door.open(stream, first).await
            };
            match timeout(patience, greeted).await {
                Ok(Ok(stream)) => admit(stream),
                Ok(Err(error)) => debug!("a connection did not get in: {error}"),
                Err(_) => debug!("a connection did not get in: it took too long to speak"),
            }
        });
        waiting.push_back(greeting);
    }
}

/// Returns when enough has arrived, with its first byte; all of it stays to be read.
async fn first_word(stream: &TcpStream) -> io::Result<u8> {
    let mut word = [0; FIRST_WORD_BYTES];
    loop {
        match stream.peek(&mut word).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            FIRST_WORD_BYTES => return Ok(word[0]),
            _ => sleep(LOOK_AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::super::door::Door;
    use super::{FIRST_WORD, FIRST_WORD_BYTES, MOST_WAITING, receive};

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn any_number_of_silent_connections_keeps_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (admitted, mut connections) = mpsc::unbounded_channel();
        tokio::spawn(receive(listener, Door::Plain, FIRST_WORD, move |stream| drop(admitted.send(stream))));

        let mut silent = Vec::new();
        for _ in 0..MOST_WAITING + 2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&[1; FIRST_WORD_BYTES]).await.unwrap();
        assert!(timeout(SOON, connections.recv()).await.unwrap().is_some());
        let gone = timeout(SOON, silent[0].read(&mut [0])).await.unwrap();
        assert!(matches!(gone, Ok(0) | Err(_)), "the oldest made room");
    }
}
