//! Plain text or TLS: the first byte of a connection tells.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::access::Tls;

/// The first byte of TLS: a record of its handshake. No HTTP begins with it.
const HANDSHAKE: u8 = 0x16;

/// How clients come in.
#[derive(Clone, Debug)]
pub enum Door {
    /// There is no certificate: plain text.
    Plain,
    /// TLS; plain text is for those given.
    Tls(Arc<Tls>, PlainText),
}

/// Who may come in plain text where there is TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainText {
    /// This computer, whose traffic nobody hears.
    Loopback,
    /// Everybody.
    Everybody,
}

impl Door {
    /// Lets a client in that has begun with this byte; with TLS that takes a handshake, which the caller ends in time.
    ///
    /// # Errors
    ///
    /// When the handshake fails, or this is not the way in for that client.
    pub async fn open(&self, stream: TcpStream, first: u8) -> io::Result<Stream> {
        match self.way(first, stream.peer_addr()?.ip()) {
            Ok(None) => Ok(Stream::Plain(stream)),
            Ok(Some(tls)) => Ok(Stream::Tls(Box::new(tls.acceptor().accept(stream).await?))),
            Err(why) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
        }
    }

    /// The way in for a client at that address that has begun with this byte: TLS, or `None` for plain text.
    fn way(&self, first: u8, client: IpAddr) -> Result<Option<&Tls>, &'static str> {
        match (self, first == HANDSHAKE) {
            // What HTTP answers to a TLS greeting tells clients that there is none, and that they may do without.
            (Self::Plain, _) | (Self::Tls(_, PlainText::Everybody), false) => Ok(None),
            (Self::Tls(tls, _), true) => Ok(Some(tls)),
            (Self::Tls(_, PlainText::Loopback), false) if client.to_canonical().is_loopback() => Ok(None),
            (Self::Tls(_, PlainText::Loopback), false) => {
                Err("it speaks plain text, and is not this computer")
            }
        }
    }
}

/// A client's byte stream.
#[derive(Debug)]
pub enum Stream {
    /// As it comes.
    Plain(TcpStream),
    /// Under TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The connection below.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The client's address and this machine's.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn ends(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.tcp().peer_addr()?, self.tcp().local_addr()?))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::time::timeout;
    use tokio_rustls::TlsConnector;

    use super::super::lobby;
    use super::*;
    use crate::access::testing::Pair;

    const SOON: Duration = Duration::from_secs(5);
    /// What an HTTP/2 client sends first.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// A port with that door, and who came in by it.
    async fn port(door: Door) -> (SocketAddr, mpsc::UnboundedReceiver<Stream>) {
        patient_port(door, lobby::FIRST_WORD).await
    }

    async fn patient_port(door: Door, patience: Duration) -> (SocketAddr, mpsc::UnboundedReceiver<Stream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (admitted, streams) = mpsc::unbounded_channel();
        let admit = move |stream| drop(admitted.send(stream));
        tokio::spawn(lobby::receive(listener, door, patience, admit));
        (address, streams)
    }

    fn connector(pair: &Pair) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(pair.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    #[test]
    fn plain_text_from_elsewhere_comes_in_only_where_it_is_meant_to() {
        let pair = Pair::new("way");
        let tls = || Arc::new(Tls::load(&pair.files).unwrap());
        let (here, mapped) = (IpAddr::from([127, 0, 0, 1]), "::ffff:127.0.0.1".parse().unwrap());
        let there = IpAddr::from([192, 168, 0, 7]);
        let plain = |door: &Door, client| door.way(PREFACE[0], client).map(|tls| tls.is_some());
        let careful = Door::Tls(tls(), PlainText::Loopback);
        assert_eq!((plain(&careful, here), plain(&careful, mapped)), (Ok(false), Ok(false)));
        assert!(plain(&careful, there).unwrap_err().contains("not this computer"));
        assert_eq!(plain(&Door::Tls(tls(), PlainText::Everybody), there), Ok(false));
        assert_eq!(plain(&Door::Plain, there), Ok(false));
        assert!(careful.way(HANDSHAKE, there).is_ok_and(|tls| tls.is_some()));
        assert!(Door::Plain.way(HANDSHAKE, here).is_ok_and(|tls| tls.is_none()));
    }

    #[tokio::test]
    async fn tls_and_plain_text_share_a_port() {
        let pair = Pair::new("share");
        let door = Door::Tls(Arc::new(Tls::load(&pair.files).unwrap()), PlainText::Loopback);
        let (address, mut streams) = port(door).await;
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(PREFACE).await.unwrap();
        let stream = timeout(SOON, streams.recv()).await.unwrap().unwrap();
        assert!(matches!(stream, Stream::Plain(_)));

        let name = ServerName::try_from("localhost").unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut client = connector(&pair).connect(name, tcp).await.unwrap();
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(client.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        client.write_all(PREFACE).await.unwrap();
        let mut stream = timeout(SOON, streams.recv()).await.unwrap().unwrap();
        let mut heard = [0; PREFACE.len()];
        timeout(SOON, stream.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, PREFACE);
    }

    #[tokio::test]
    async fn who_does_not_finish_the_handshake_takes_no_place_and_keeps_nobody_out() {
        let pair = Pair::new("slow");
        let door = Door::Tls(Arc::new(Tls::load(&pair.files).unwrap()), PlainText::Loopback);
        let (address, mut streams) = port(door).await;
        let mut slow = Vec::new();
        for _ in 0..50 {
            let mut client = TcpStream::connect(address).await.unwrap();
            // The head of a record of 512 bytes, and no more than its beginning.
            client.write_all(&[HANDSHAKE, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
            client.write_all(&[0; 20]).await.unwrap();
            slow.push(client);
        }
        let name = ServerName::try_from("localhost").unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let client = timeout(SOON, connector(&pair).connect(name, tcp)).await.unwrap().unwrap();
        let stream = timeout(SOON, streams.recv()).await.unwrap().unwrap();
        assert_eq!(stream.ends().unwrap().0, client.get_ref().0.local_addr().unwrap());
        assert!(streams.try_recv().is_err(), "somebody came in without a handshake");
        drop(slow);
    }

    #[tokio::test]
    async fn who_does_not_finish_the_handshake_in_time_is_shown_out() {
        let pair = Pair::new("late");
        let door = Door::Tls(Arc::new(Tls::load(&pair.files).unwrap()), PlainText::Loopback);
        let (address, mut streams) = patient_port(door, Duration::from_millis(100)).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&[HANDSHAKE, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
        client.write_all(&[0; 20]).await.unwrap();
        let gone = timeout(SOON, client.read(&mut [0])).await.unwrap();
        assert!(matches!(gone, Ok(0) | Err(_)));
        assert!(streams.try_recv().is_err());
    }
}
