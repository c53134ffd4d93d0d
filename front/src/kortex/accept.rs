//! Connections as they come in, for both generations.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::warn;

use crate::transport::{Connection, Places, next};

/// Pause after a failed accept: out of descriptors, which a retry at once would not cure.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections for ever, at most so many at once, and has each served by a task of its own.
pub async fn accept<S>(listener: TcpListener, most: usize, serve: impl Fn(TcpStream, Arc<Connection>) -> S)
where
    S: Future<Output = ()> + Send + 'static,
{
    let places = Places::new(most, "max_connections in [kortex]");
    loop {
        let stream = match next(&listener).await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("cannot accept a Kortex connection: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (Ok(remote), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { continue };
        let connection = Connection::new(remote, local);
        let Some(place) = places.take(&connection) else { continue };
        let serving = serve(stream, connection);
        tokio::spawn(async move {
            serving.await;
            drop(place);
        });
    }
}
