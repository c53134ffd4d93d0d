//! Reverse proxies that speak HTTP/2 on both sides, as they stand before many a gRPC server: haproxy and nginx.

use std::ffi::OsString;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::expect;
use crate::folder::Folder;
use crate::process::Process;

/// How long a proxy may take to listen on the slowest rig.
const START: Duration = Duration::from_secs(20);

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It keeps its connections to the server, shares them among its clients and answers pings by itself.
    Haproxy,
    /// With `grpc_pass`; it keeps idle connections to the server, and answers no pings on them.
    Nginx,
}

impl Kind {
    const fn variable(self) -> &'static str {
        match self {
            Self::Haproxy => "LANYARD_HAPROXY",
            Self::Nginx => "LANYARD_NGINX",
        }
    }

    fn config(self, folder: &Path, port: u16, target: &str) -> String {
        match self {
            Self::Haproxy => format!(
                "global\n  maxconn 200\n\
                 defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
                 frontend near\n  bind 127.0.0.1:{port} proto h2\n  default_backend far\n\
                 backend far\n  server robot {target} proto h2\n"
            ),
            Self::Nginx => {
                let folder = folder.display();
                let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let scratch: String =
                    kinds.iter().map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n")).collect();
                format!(
                    "daemon off;\nmaster_process off;\nerror_log stderr;\npid {folder}/nginx.pid;\n\
                     events {{ worker_connections 256; }}\n\
                     http {{\n  access_log off;\n{scratch}  upstream robot {{ server {target}; keepalive 4; }}\n\
                     \x20 server {{\n    listen 127.0.0.1:{port} http2;\n    location / {{\n      grpc_pass \
                     grpc://robot;\n      grpc_read_timeout 1h;\n      grpc_send_timeout 1h;\n    }}\n  }}\n}}\n"
                )
            }
        }
    }

    fn arguments(self, folder: &Path, config: &Path) -> Vec<OsString> {
        match self {
            Self::Haproxy => vec!["-db".into(), "-f".into(), config.into()],
            Self::Nginx => {
                vec!["-e".into(), "stderr".into(), "-p".into(), folder.into(), "-c".into(), config.into()]
            }
        }
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    process: Process,
    _folder: Folder,
}

impl Proxy {
    /// Starts one before `target`, and waits until it listens.
    ///
    /// # Errors
    /// The environment does not name its program, or it does not start.
    pub fn start(kind: Kind, target: &str) -> Result<Self> {
        let variable = kind.variable();
        let program = std::env::var_os(variable)
            .with_context(|| format!("{variable} is not set; `cargo xtask test` sets it"))?;
        let folder = Folder::new()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = folder.file("proxy.conf");
        std::fs::write(&config, kind.config(folder.path(), port, target))
            .context("cannot write the proxy's configuration")?;
        let mut libraries = OsString::from("LD_LIBRARY_PATH=");
        libraries.push(std::env::var_os("LANYARD_PROXY_LIBRARIES").unwrap_or_default());
        let arguments = [libraries, program].into_iter().chain(kind.arguments(folder.path(), &config));
        let process = Process::start(Path::new("/usr/bin"), "env", arguments)?;
        let mut proxy = Self { address: format!("127.0.0.1:{port}"), process, _folder: folder };
        expect::within(START, &format!("{kind:?} listens on {}", proxy.address), || {
            if !proxy.process.runs() {
                return Err(format!("it has ended: {}", proxy.process.printed().join(" | ")));
            }
            TcpStream::connect(&proxy.address).map(drop).map_err(|error| error.to_string())
        })?;
        Ok(proxy)
    }
}
