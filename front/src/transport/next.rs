//! The next connection, taken between two turns of everything else.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;

/// Takes the next connection, after everything else that is ready has had a turn.
///
/// Without that, up to 128 connections that wait are taken in one go (tokio's budget of a task), and each brings tasks of its
/// own. On a slow processor the front's own beat then waits behind hundreds of strangers for longer than its window.
/// Nothing is lost when the call is dropped.
///
/// # Errors
///
/// When the system has no descriptor left, or the connection is gone already.
pub async fn next(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    yield_now().await;
    listener.accept().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::{SocketAddr, TcpStream};
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::task::{LocalSet, yield_now};
    use tokio::time::timeout;

    use super::next;

    const FLOOD: usize = 100;
    const SOON: Duration = Duration::from_secs(30);

    fn flood(address: SocketAddr) -> Vec<TcpStream> {
        (0..FLOOD).map(|_| TcpStream::connect(address).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_flood_of_connections_is_taken_between_the_turns_of_others() {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let waiting = flood(listener.local_addr().unwrap());
        let taken = Rc::new(Cell::new(0));
        let most_at_once = Rc::new(Cell::new(0));
        let local = LocalSet::new();
        local.spawn_local({
            let taken = Rc::clone(&taken);
            async move {
                let mut kept = Vec::new();
                loop {
                    kept.push(next(&listener).await.unwrap());
                    taken.set(kept.len());
                }
            }
        });
        let others = local.run_until({
            let most_at_once = Rc::clone(&most_at_once);
            async move {
                let mut before = 0;
                while before < FLOOD {
                    yield_now().await;
                    most_at_once.set(most_at_once.get().max(taken.get() - before));
                    before = taken.get();
                }
            }
        });
        timeout(SOON, others).await.unwrap();
        assert_eq!(most_at_once.get(), 1, "connections taken between two turns of another task");
        drop(waiting);
    }
}
