//! Real clients: the unmodified TypeScript SDK of Viam, each client a process of its own, in Node or in a browser.

use std::ffi::OsStr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::folder::Folder;
use crate::python::Client;
use crate::robot::{Robot, START};

const SCRIPTS: [(&str, &str); 4] = [
    ("robot.mjs", include_str!("../clients/robot.mjs")),
    ("viam_client.mjs", include_str!("../clients/viam_client.mjs")),
    ("viam_browser.mjs", include_str!("../clients/viam_browser.mjs")),
    ("viam_page.mjs", include_str!("../clients/viam_page.mjs")),
];
/// How long Node may take to read the SDK: a megabyte of JavaScript, seconds on the slowest rig.
const IMPORT: Duration = Duration::from_secs(60);
/// How long a browser may take to open a page: half a minute on the slowest rig.
pub const OPEN: Duration = Duration::from_secs(180);

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

/// What `cargo xtask test` has put into the environment.
fn named(name: &str) -> Result<PathBuf> {
    let named = std::env::var_os(name).map(PathBuf::from);
    named.with_context(|| format!("{name} is not set; `cargo xtask test` sets it"))
}

impl Node {
    /// Node as `LANYARD_NODE` and `LANYARD_NODE_PACKAGES` name it.
    ///
    /// # Errors
    /// They are not set.
    pub fn find() -> Result<Self> {
        let folder = Folder::new()?;
        for (name, text) in SCRIPTS {
            std::fs::write(folder.file(name), text).with_context(|| format!("cannot write {name}"))?;
        }
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
        let transport = match transport {
            Transport::GrpcWeb => "grpc-web",
            Transport::Grpc => "grpc",
        };
        let mut client = self.start("viam_client.mjs", &[transport.as_ref()])?;
        client
            .call_within(START, "connect", json!({ "address": robot.address }))?
            .value()
            .context("cannot connect")?;
        Ok(client)
    }

    /// A page in a browser of its own (`LANYARD_CHROMIUM`), opened under that name; not connected to anything yet.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn page(&mut self, host: &str) -> Result<Client> {
        let chromium = named("LANYARD_CHROMIUM")?;
        let profile = self.folder.file(&format!("profile-{}", self.started));
        self.start("viam_browser.mjs", &[chromium.as_ref(), profile.as_ref(), host.as_ref()])
    }

    fn start(&mut self, script: &str, arguments: &[&OsStr]) -> Result<Client> {
        self.started += 1;
        let path = self.folder.file(&format!("{}.sock", self.started));
        let listener = UnixListener::bind(&path).context("cannot listen for a client")?;
        listener.set_nonblocking(true)?;
        let shown = std::env::var_os("LANYARD_SHOW").is_some();
        let mut child = Command::new(&self.program)
            .arg(self.folder.file(script))
            .args([&self.packages, &path])
            .args(arguments)
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
        Client::new(stream)
    }
}
