//! Listeners and their links, over this computer's own network. The test plays the supervisor.

mod frames;
mod listeners;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::Config;
use serde_json::Value;
use shm_proto::MotorIndex;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Listed, Means, OpenError, Protocol, Request, State, Stats, Tunnels, Wish};
use crate::access::{Access, Caller};
use crate::link::Link;
use crate::motion::{Motion, NoWire};
use crate::sessions::testing::Watcher;
use crate::sessions::{Entity, Rules, Sessions};

const MOTOR: MotorIndex = MotorIndex(0);
/// Long against everything that a test waits for.
const SOON: Duration = Duration::from_secs(20);
/// What would have happened has happened by then.
const A_WHILE: Duration = Duration::from_millis(100);
const LOCAL: &str = "127.0.0.1";
/// A set-point for the motor: Set_Input_Vel of axis 1, two turns a second.
const TURN: &str = "< send 02D 8 0 0 0 40 0 0 0 0 >";

const HEAD: &str = r#"
[supervisor]
reset = "neutral"
[front]
keys = "/nonexistent/keys.toml"
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
[[motor]]
name = "right"
bus = "can0"
driver = "odrive"
node = 2
firmware = "0.6"
after_stop = "hold"
max_rpm = 600
"#;

/// A target with a motor behind it, of whose bytes nothing is known. No test lasts as long as the window, unless it says so.
const DRIVES: &str = "motors = [\"left\"]\nwindow = \"60s\"\nbeat = \"bytes\"\n";
const SHORT: &str = "motors = [\"left\"]\nwindow = \"200ms\"\nbeat = \"bytes\"\n";
/// The same for those that speak of CAN frames.
const DRIVES_FRAMES: &str = "motors = [\"left\"]\nwindow = \"60s\"\n";
const SHORT_FRAMES: &str = "motors = [\"left\"]\nwindow = \"300ms\"\nafter_expiry = \"wait\"\n";

/// A robot with one target.
struct Robot {
    tunnels: Arc<Tunnels>,
    sessions: Arc<Sessions>,
    watcher: Arc<Watcher>,
    willing: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Robot {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Robot {
    /// `more` is what else there is to the target, `general` what else `[tunnel]` says.
    fn new(protocol: &str, target: SocketAddr, more: &str, general: &str) -> Self {
        let text = format!(
            "{HEAD}[tunnel]\n{general}\n[[tunnel.target]]\nname = \"t\"\nservice = 1\nprotocol = \"{protocol}\"\n\
             address = \"{target}\"\n{more}\n"
        );
        let config = Config::parse(Path::new("test.toml"), &text).unwrap_or_else(|error| panic!("{error}"));
        let config = Arc::new(config);
        let watcher = Arc::new(Watcher::with_room(64));
        let link = Link::to(Arc::clone(&watcher.attachment));
        let rules = Rules { patience: Rules::relaxed().patience, ..Rules::of(&config) };
        let sessions = Arc::new(Sessions::new(link, rules));
        let motion = Motion::start_over(Arc::clone(&config), &[Arc::new(NoWire)]);
        let (access, _) = Access::start(&config).unwrap();
        let means = Means { sessions: Arc::clone(&sessions), motion };
        let tunnels = Tunnels::new(config.tunnel.as_ref().unwrap(), Arc::clone(&config), access, means);
        let willing = Arc::new(AtomicBool::new(true));
        let reaping = tokio::spawn({
            let sessions = Arc::clone(&sessions);
            async move { sessions.reap().await }
        });
        let granting = tokio::spawn({
            let (watcher, willing) = (Arc::clone(&watcher), Arc::clone(&willing));
            async move {
                loop {
                    let owner = watcher.attachment.beats.owner(MOTOR);
                    watcher.verdicts.grant(MOTOR, owner.filter(|_| willing.load(Ordering::Relaxed)));
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
        Self { tunnels, sessions, watcher, willing, tasks: vec![reaping, granting] }
    }

    async fn try_open(&self, protocol: Protocol, listen: &str) -> Result<Listed, OpenError> {
        self.try_open_from(LOCAL, protocol, listen).await
    }

    async fn try_open_from(&self, from: &str, protocol: Protocol, listen: &str) -> Result<Listed, OpenError> {
        let request = Request {
            protocol,
            wish: Wish::Service(1),
            listen: listen.parse().unwrap(),
            destination: "anybody".to_owned(),
            echoed: Arc::new(Value::Null),
        };
        self.tunnels.open(&Caller::anonymous(), from.parse().unwrap(), request).await
    }

    async fn open(&self, protocol: Protocol) -> SocketAddr {
        self.try_open(protocol, "127.0.0.1:0").await.unwrap().address
    }

    fn stats(&self, protocol: Protocol, address: SocketAddr) -> Stats {
        self.tunnels.stats(protocol, address).unwrap()
    }

    /// How many sessions there are that drive.
    fn driving(&self) -> usize {
        self.sessions.list().len()
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("it never came to be that {what}"));
    }
}

/// A TCP target, whose connections the test takes.
async fn tcp_target() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn accept(target: &TcpListener) -> TcpStream {
    timeout(SOON, target.accept()).await.expect("the target is connected to").unwrap().0
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    timeout(SOON, stream.read_exact(&mut got)).await.expect("in time").unwrap();
    assert_eq!(got, wanted);
}

/// Everything until the end, and how that came.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, Result<(), std::io::ErrorKind>) {
    let mut got = Vec::new();
    let end = timeout(SOON, stream.read_to_end(&mut got)).await.expect("it ends");
    (got, end.map(drop).map_err(|error| error.kind()))
}

const RESET: Result<(), std::io::ErrorKind> = Err(std::io::ErrorKind::ConnectionReset);

async fn udp_socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((LOCAL, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn datagram(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut got = vec![0; 1 << 16];
    let (length, from) = timeout(SOON, socket.recv_from(&mut got)).await.expect("in time").unwrap();
    got.truncate(length);
    (got, from)
}

async fn nothing_comes(socket: &UdpSocket) {
    let mut got = [0; 16];
    assert!(timeout(A_WHILE, socket.recv_from(&mut got)).await.is_err(), "{got:?}");
}
