//! The API over real connections, in front of real listeners.

mod bad;
mod pages;
mod replay;
mod rules;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use config::Config;
use keys::{Draft, KeyId, KeysFile, Role};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::{Api, Means, Serving, Tunnels};
use crate::access::Access;
use crate::link::Link;
use crate::motion::{Motion, NoWire};
use crate::sessions::testing::Watcher;
use crate::sessions::{Rules, Sessions};
use crate::transport::{Door, Limits};

pub const NODE: &str = "12D3KooWR4uwjKCDCAY1xsEFB4esuWLF9Q5ijYvCjz5PNkTbnu33";
/// What the recorded clients sent as their token.
const RECORDED_TOKEN: &str = "^^LOCAL-testing-123^^";
/// Clients of hoprd give up after that at the earliest.
const PATIENCE: Duration = Duration::from_secs(1);

const ROBOT: &str = r#"
[[bus]]
name = "can0"

[[motor]]
name = "left"
bus = "can0"
driver = "odrive"
node = 1
firmware = "0.6"
after_stop = "hold"
max_rpm = 600

[tunnel]
ports = "50200-50399"

[[tunnel.target]]
name = "can"
protocol = "tcp"
address = "127.0.0.1:29536"
aliases = ["localhost:29536"]

[[tunnel.target]]
name = "panel"
protocol = "tcp"
address = "127.0.0.1:8080"
aliases = ["localhost:8080", "a:1"]
service = 0

[[tunnel.target]]
name = "frames"
protocol = "udp"
address = "127.0.0.1:20000"
aliases = ["can0.robot:20000", "localhost:20000"]
service = 0
"#;

/// A robot whose API is served.
pub struct Scene {
    folder: PathBuf,
    keys: KeysFile,
    pub token: String,
    pub tunnels: Arc<Tunnels>,
    pub api: SocketAddr,
    /// The same API without its port.
    pub router: Router,
    _serving: Serving,
    _watcher: Watcher,
    _ending: watch::Sender<bool>,
}

impl Scene {
    /// With keys; the first is that of an operator.
    pub async fn new() -> Self {
        Self::with("", ROBOT, Some(Role::Operate)).await
    }

    /// `front`: what else `[front]` says.
    pub async fn with(front: &str, robot: &str, first: Option<Role>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("lanyard-tunnel-api-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let keys = KeysFile::at(&folder.join("keys.toml"));
        let token = first.map(|role| add(&keys, role).1).unwrap_or_default();
        let front = format!("[front]\nkeys = \"{}\"\n{front}", keys.path().display());
        let config = Config::parse(Path::new("test.toml"), &format!("{front}{robot}"));
        let config = Arc::new(config.unwrap_or_else(|error| panic!("{error}")));
        let watcher = Watcher::with_room(8);
        let sessions = Arc::new(Sessions::new(Link::to(watcher.attachment.clone()), Rules::relaxed()));
        let motion = Motion::start_over(Arc::clone(&config), &[Arc::new(NoWire)]);
        let (access, _) = Access::start(&config).unwrap();
        let means = Means { sessions, motion };
        let tunnels =
            Tunnels::new(config.tunnel.as_ref().unwrap(), Arc::clone(&config), Arc::clone(&access), means);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = listener.local_addr().unwrap();
        let limits = Limits { connections: 64, ping_every: Duration::from_secs(10) };
        let origins = config.front.origins.clone();
        let router = super::router(Arc::clone(&tunnels), Arc::clone(&access), origins.clone());
        let (ending, end) = watch::channel(false);
        let serving = Api { listener, door: Door::Plain, limits, origins }.serve(&tunnels, access, end);
        Self {
            folder,
            keys,
            token,
            tunnels,
            api,
            router,
            _serving: serving,
            _watcher: watcher,
            _ending: ending,
        }
    }

    /// Another key; its token is good as soon as the front has read the file again.
    pub async fn add(&self, role: Role) -> (KeyId, String) {
        let (id, token) = add(&self.keys, role);
        while self.get("/api/v3/session/tcp", &token).await.code == 401 {
            // Not so often that it counts as guessing.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        (id, token)
    }

    pub fn revoke(&self, id: KeyId) {
        self.keys.revoke(id).unwrap();
    }

    pub async fn client(&self) -> Client {
        Client(TcpStream::connect(self.api).await.unwrap())
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, request: &str) -> Answer {
        self.client().await.send(request.as_bytes()).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask(&head("GET", path, token, "")).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask(&head("DELETE", path, &self.token, "")).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(&post(path, &self.token, body)).await
    }

    /// Opens a listener wherever there is a port; its address.
    pub async fn open(&self, protocol: &str) -> SocketAddr {
        let target = if protocol == "tcp" { "localhost:8080" } else { "localhost:20000" };
        let opened = self.post(&format!("/api/v3/session/{protocol}"), &wanted(target, None)).await;
        assert_eq!(opened.code, 200, "{opened:?}");
        opened.address()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn add(keys: &KeysFile, role: Role) -> (KeyId, String) {
    let name = format!("k{}", keys.load().unwrap().iter().count());
    let (key, secret) = keys.add(&Draft::new(&name, role, None).unwrap(), None).unwrap();
    (key.id, format!("{}.{}", key.id, secret.reveal()))
}

/// The body of a request for that target.
pub fn wanted(target: &str, listen: Option<&str>) -> String {
    let listen = listen.map(|listen| format!(r#","listenHost":"{listen}""#)).unwrap_or_default();
    format!(r#"{{"destination":"{NODE}","path":{{"Hops":0}},"target":{{"Plain":"{target}"}}{listen}}}"#)
}

/// The text of a request without a body; `more`: further lines of its head.
pub fn head(method: &str, path: &str, token: &str, more: &str) -> String {
    let token = if token.is_empty() { String::new() } else { format!("X-Auth-Token: {token}\r\n") };
    format!("{method} {path} HTTP/1.1\r\nHost: robot\r\n{token}{more}\r\n")
}

pub fn post(path: &str, token: &str, body: &str) -> String {
    let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    head("POST", path, token, &more) + body
}

/// A client's connection.
pub struct Client(pub TcpStream);

impl Client {
    /// Sends a request and reads the answer to it, as quickly as the most impatient client wants it.
    pub async fn send(&mut self, request: &[u8]) -> Answer {
        let has_body = !request.starts_with(b"HEAD ");
        let answered = timeout(PATIENCE, async {
            self.0.write_all(request).await.unwrap();
            self.answer(has_body).await
        });
        answered.await.unwrap_or_else(|_| panic!("no answer to {}", String::from_utf8_lossy(request)))
    }

    pub async fn answer(&mut self, has_body: bool) -> Answer {
        let mut read = Vec::new();
        let end = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert_ne!(self.0.read_buf(&mut read).await.unwrap(), 0, "the connection was closed");
        };
        let mut answer = Answer::parse(std::str::from_utf8(&read[..end]).unwrap());
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        assert_eq!(answer.header("transfer-encoding"), None);
        if has_body {
            while read.len() < end + length {
                assert_ne!(self.0.read_buf(&mut read).await.unwrap(), 0, "the connection was closed");
            }
        }
        answer.body = String::from_utf8(read[end..].to_vec()).unwrap();
        answer
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    fn parse(head: &str) -> Self {
        let mut lines = head.trim_end().lines();
        let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Self { code, headers: lines.map(header).collect(), body: String::new() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code, and what an error says.
    #[track_caller]
    pub fn error(&self) -> (u16, String, String) {
        let json = self.json();
        let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("{json}")).to_owned();
        assert_eq!(json.as_object().unwrap().len(), 2, "{json}");
        (self.code, text("status"), text("error"))
    }

    /// Where a listener is that was opened.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        let json = self.json();
        let ip = json["ip"].as_str().unwrap().parse().unwrap();
        SocketAddr::new(ip, u16::try_from(json["port"].as_u64().unwrap()).unwrap())
    }
}
