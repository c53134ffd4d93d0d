//! Real clients: the unmodified TypeScript SDK of Viam in Node, each client a process of its own.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::folder::Folder;
use crate::python::Client;
use crate::robot::{Robot, START};

const SCRIPT: &str = include_str!("../clients/viam_client.mjs");
/// How long Node may take to read the SDK: a megabyte of JavaScript, seconds on the slowest rig.
const IMPORT: Duration = Duration::from_secs(60);

/// How the SDK speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// gRPC-web by `fetch`, over HTTP/1.1: its own way, and the only one in a browser.
    GrpcWeb,
    /// Native gRPC over HTTP/2, with the transport of `@connectrpc/connect-node`.
    Grpc,
}

/// Node, and where its packages are.
#[derive(Debug)]
pub struct Node {
    program: PathBuf,
    packages: PathBuf,
    folder: Folder,
    started: u32,
}

impl Node {
    /// Node as `LANYARD_NODE` and `LANYARD_NODE_PACKAGES` name it.
    ///
    /// # Errors
    /// They are not set.
    pub fn find() -> Result<Self> {
        let named = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .with_context(|| format!("{name} is not set; `cargo xtask test` sets it"))
        };
        let folder = Folder::new()?;
        std::fs::write(folder.file("viam_client.mjs"), SCRIPT).context("cannot write viam_client.mjs")?;
        Ok(Self {
            program: named("LANYARD_NODE")?,
            packages: named("LANYARD_NODE_PACKAGES")?,
            folder,
            started: 0,
        })
    }

    /// A new client in a process of its own, connected to the robot.
    ///
    /// # Errors
    /// It cannot be started, or cannot connect.
    pub fn client(&mut self, robot: &Robot, transport: Transport) -> Result<Client> {
        self.started += 1;
        let path = self.folder.file(&format!("{}.sock", self.started));
        let listener = UnixListener::bind(&path).context("cannot listen for a client")?;
        listener.set_nonblocking(true)?;
        let shown = std::env::var_os("LANYARD_SHOW").is_some();
        let mut child = Command::new(&self.program)
            .arg(self.folder.file("viam_client.mjs"))
            .args([&self.packages, &path])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(if shown { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        // Whoever kills it does not wait for it.
        std::thread::spawn(move || child.wait());
        let (stream, _) = crate::expect::within(IMPORT, "a client in Node connects", || {
            listener.accept().map_err(|error| error.to_string())
        })?;
        stream.set_nonblocking(false)?;
        let mut client = Client::new(stream)?;
        let transport = match transport {
            Transport::GrpcWeb => "grpc-web",
            Transport::Grpc => "grpc",
        };
        let arguments = json!({ "address": robot.address, "transport": transport });
        client.call_within(START, "connect", arguments)?.value().context("cannot connect")?;
        Ok(client)
    }
}
