//! The peer of tunnels: relays of TCP and UDP as one writes them with tokio, which watch nobody.

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::grpc::runtime;

/// More than the longest datagram.
const LONGEST: usize = 1 << 16;

/// The role `relay`: both listen at `listen` and lead to `target`. Never ends by itself.
///
/// # Errors
/// The system refuses anything.
pub fn run(listen: &str, target: &str) -> Result<()> {
    runtime()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        let udp = UdpSocket::bind(listen).await?;
        let far = UdpSocket::bind("127.0.0.1:0").await?;
        far.connect(target).await?;
        let datagrams = tokio::spawn(datagrams(udp, far));
        let streams = tokio::spawn(streams(listener, target.to_owned()));
        datagrams.await??;
        streams.await?
    })
}

async fn streams(listener: TcpListener, target: String) -> Result<()> {
    loop {
        let (mut near, _) = listener.accept().await?;
        let target = target.clone();
        tokio::spawn(async move {
            let mut far = TcpStream::connect(target).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            copy_bidirectional(&mut near, &mut far).await
        });
    }
}

async fn datagrams(near: UdpSocket, far: UdpSocket) -> Result<()> {
    let (mut up, mut down) = (vec![0; LONGEST], vec![0; LONGEST]);
    let mut client = None;
    loop {
        tokio::select! {
            come = near.recv_from(&mut up) => {
                let (length, from) = come?;
                client = Some(from);
                far.send(&up[..length]).await?;
            }
            come = far.recv(&mut down) => {
                let length = come?;
                if let Some(client) = client {
                    near.send_to(&down[..length], client).await?;
                }
            }
        }
    }
}
