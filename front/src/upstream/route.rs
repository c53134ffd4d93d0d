//! The way to the upstream: TCP, TLS over TCP, or a Unix socket, as the configuration has it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use config::{Address, HostPort, Trust};
use http::uri::{Authority, Scheme};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::transport::Heard;

/// Why the way cannot be taken, before anybody tries it.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The certificates of those who may have signed the upstream's cannot be used.
    #[error("[upstream]: \"certificate_authority\" {path}: {what}")]
    Authority {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The system has none either.
    #[error(
        "[upstream]: this system has no certificate authorities to check {address} with ({what}); give \
         \"certificate_authority\""
    )]
    NoAuthorities {
        /// The upstream.
        address: String,
        /// What the system said.
        what: String,
    },
    /// A name that no certificate can be for.
    #[error("[upstream]: \"server_name\" \"{0}\" is no name of a server")]
    Name(String),
    /// TLS cannot be set up.
    #[error("[upstream]: TLS: {0}")]
    Tls(String),
}

#[derive(Clone)]
enum Kind {
    Tcp(HostPort),
    Tls(HostPort, TlsConnector, ServerName<'static>),
    Unix(std::path::PathBuf),
}

/// How the upstream is reached.
#[derive(Clone)]
pub struct Route {
    kind: Kind,
    /// As messages call it.
    pub shown: Arc<str>,
    /// For calls that come without one of their own.
    pub authority: Authority,
}

impl Route {
    /// The way to that address. Reads the certificates.
    ///
    /// # Errors
    ///
    /// When they cannot be used.
    pub fn new(address: &Address) -> Result<Self, RouteError> {
        let shown: Arc<str> = address.to_string().into();
        let (kind, authority) = match address {
            Address::Plain(host) => (Kind::Tcp(host.clone()), authority(host)),
            Address::Unix(path) => (Kind::Unix(path.clone()), Authority::from_static("localhost")),
            Address::Tls(host, trust) => {
                let name = ServerName::try_from(trust.server_name.clone())
                    .map_err(|_| RouteError::Name(trust.server_name.clone()))?;
                let connector = TlsConnector::from(Arc::new(client_config(trust, &shown)?));
                (Kind::Tls(host.clone(), connector, name), authority(host))
            }
        };
        Ok(Self { kind, shown, authority })
    }

    /// The scheme that requests on this way have.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match self.kind {
            Kind::Tls(..) => Scheme::HTTPS,
            Kind::Tcp(_) | Kind::Unix(_) => Scheme::HTTP,
        }
    }

    /// Goes it.
    ///
    /// # Errors
    ///
    /// When nobody is there, or somebody else is.
    pub async fn connect(&self) -> io::Result<Wire> {
        let stream: Box<dyn Stream> = match &self.kind {
            Kind::Tcp(host) => Box::new(tcp(host).await?),
            Kind::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Kind::Tls(host, connector, name) => {
                let stream = connector.connect(name.clone(), tcp(host).await?).await?;
                if stream.get_ref().1.alpn_protocol() != Some(H2) {
                    return Err(io::Error::other("it speaks TLS, but no HTTP/2"));
                }
                Box::new(stream)
            }
        };
        Ok(Heard::new(stream, Arc::default()))
    }
}

const H2: &[u8] = b"h2";

/// When the kernel looks whether the other end of an idle connection is still there, and how often after that. What was
/// sent is acknowledged within that time, too, or the connection is given up. Servers count none of it.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(3);
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

async fn tcp(host: &HostPort) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host.host.trim_matches(['[', ']']), host.port)).await?;
    // A call must not wait for more to fill a segment.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_EVERY))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}

fn authority(host: &HostPort) -> Authority {
    // The configuration lets no other through than what is one.
    Authority::try_from(format!("{}:{}", host.host, host.port))
        .unwrap_or_else(|_| Authority::from_static("localhost"))
}

fn client_config(trust: &Trust, shown: &str) -> Result<ClientConfig, RouteError> {
    let mut roots = RootCertStore::empty();
    match &trust.authority {
        Some(path) => {
            let wrong = |what: String| RouteError::Authority { path: path.display().to_string(), what };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("there is no certificate in it; PEM is expected".to_owned()));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let what = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
                return Err(RouteError::NoAuthorities { address: shown.to_owned(), what });
            }
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RouteError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(config)
}

/// What all ways come to.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that counts how often something was heard on it.
pub type Wire = Heard<Box<dyn Stream>, Arc<AtomicU64>>;
