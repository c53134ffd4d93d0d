//! The one configuration file of Lanyard, read by supervisor, front and `lanyard check` alike.
//!
//! What lives here: the shape of `lanyard.toml`, its defaults and its checks. Every error names file,
//! line and key and says what would be right; all errors of a file are reported together. A file
//! with any error yields no [`Config`] at all: nothing runs half-configured.
//!
//! What must never live here: anything that touches the machine (interfaces, sockets, users). Whether
//! `can0` exists is for the supervisor to find out.
#![forbid(unsafe_code)]

mod access;
mod check;
pub mod duration;
pub mod error;
pub mod exit;
mod exposure;
mod ids;
pub mod kernel_plan;
mod kortex;
mod origins;
mod reader;
mod sessions;
mod tunnel;
mod upstream;
mod windows;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drivers::Drive;
use shm_proto::Capacity;
use shm_proto::verdicts::ResetPolicy;

pub use access::{Access, DEFAULT_KEYS, TlsFiles};
pub use check::MOTOR_KEYS;
pub use error::ConfigError;
pub use exposure::{Danger, Exposure, Logins, Port, Service};
pub use kortex::{Joint, Kortex, KortexLogin, KortexUpstream, LONGEST_SESSION_TIMEOUT};
pub use origins::Origins;
pub use sessions::{LeaseFeed, ResourceRules, SessionRules, Sessionless, Takeover};
pub use tunnel::{
    AfterExpiry, BeatOf, Cyclic, LOWEST_PORT, Speaks, Tunnel, TunnelClients, TunnelProtocol, TunnelTarget,
};
pub use upstream::{Address, HostPort, Login, OnLoss, Trust, Upstream, UpstreamResource, ViamSid};

/// Where the file lies unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/lanyard/lanyard.toml";

/// Shortest window a session may have. Viam's own lower bound; below it an unchanged Python client
/// false-expires even on an idle machine (measured: beats up to 29.9 ms apart at a window of 30 ms).
pub const SHORTEST_WINDOW: Duration = Duration::from_millis(30);
/// Longest window a session may have: Viam's own upper bound.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(60);

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, as given.
    pub path: PathBuf,
    /// Hash of the file's bytes: supervisor and front must have read the same.
    pub hash: u64,
    /// `[supervisor]`.
    pub supervisor: Supervisor,
    /// `[front]`.
    pub front: Front,
    /// `[[bus]]`, in order.
    pub buses: Vec<Bus>,
    /// `[[motor]]`, in order: a motor's index is its place here.
    pub motors: Vec<Motor>,
    /// `[[base]]`, in order.
    pub bases: Vec<Base>,
    /// `[upstream]`: the server behind, if there is one.
    pub upstream: Option<Upstream>,
    /// `[kortex]`: clients of Kinova arms, if they are served.
    pub kortex: Option<Kortex>,
    /// `[tunnel]`: supervised links of TCP and UDP, if there are any.
    pub tunnel: Option<Tunnel>,
}

/// `[supervisor]`.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// `socket`: where programs that look meet the supervisor, and where a stop is taken as well.
    pub socket: PathBuf,
    /// `front_socket`: where the front attaches.
    pub front_socket: PathBuf,
    /// `front_group`: the group whose members may be the front.
    pub front_group: String,
    /// `operator_socket`: where trips are reset.
    pub operator_socket: PathBuf,
    /// `operator_group`: the group whose members may reset them.
    pub operator_group: String,
    /// `estop`: the FIFO into which an operator's stop is written.
    pub estop: PathBuf,
    /// `estop_group`: the group that may write it.
    pub estop_group: String,
    /// `state`: the folder in which what waits for a reset is kept over a stop, a reboot, a power loss.
    pub state: PathBuf,
    /// `cpu`: the CPU the real-time thread is pinned to; `None`: not pinned.
    pub cpu: Option<usize>,
    /// `priority`: SCHED_FIFO priority, 1 to 98.
    pub priority: u8,
    /// `tick`: how often grants, stops and health are looked after. Deadlines do not wait for it.
    pub tick: Duration,
    /// `front_window`: how long the front may be silent.
    pub front_window: Duration,
    /// `stop_repeat`: how often a stop stage is sent again until it is proven.
    pub stop_repeat: Duration,
    /// `stage_timeout`: after how long without proof the next stage follows.
    pub stage_timeout: Duration,
    /// `max_lateness`: the loop being later than this is a reason to stop everything.
    pub max_lateness: Duration,
    /// `kernel_stop`: after how long without a word from the supervisor the kernel sends the stops.
    pub kernel_stop: Duration,
    /// `watchdog`, `watchdog_timeout`: the device that resets the machine when the supervisor no longer feeds it.
    pub watchdog: Option<HardwareWatchdog>,
    /// `user`: whom the supervisor becomes after its preparations, when it was started as root.
    pub user: String,
    /// `reset`: how trips are cleared.
    pub reset: ResetPolicy,
    /// `max_sessions`, `max_motors`.
    pub capacity: Capacity,
}

/// Where the FIFO of the operator's stop is, unless the configuration says otherwise: beside the supervisor's socket.
#[must_use]
pub fn estop_beside(socket: &Path) -> PathBuf {
    // Two supervisors on one computer have two sockets, and so two FIFOs.
    socket.with_extension("estop")
}

/// Where the front attaches, unless the configuration says otherwise: in a folder of its own beside the supervisor's socket.
#[must_use]
pub fn front_socket_beside(socket: &Path) -> PathBuf {
    beside(socket, "front")
}

/// Where trips are reset, unless the configuration says otherwise: in a folder of its own beside the supervisor's socket.
#[must_use]
pub fn operator_socket_beside(socket: &Path) -> PathBuf {
    beside(socket, "operator")
}

/// The folder decides which group comes in: a file that is made in it gets the folder's group (set-group-ID), which a
/// supervisor without privileges could not give it.
fn beside(socket: &Path, folder: &str) -> PathBuf {
    let name = socket.file_name().unwrap_or_default();
    socket.with_file_name(folder).join(name)
}

/// `watchdog` and `watchdog_timeout` of `[supervisor]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardwareWatchdog {
    /// The device, as `/dev/watchdog0`.
    pub device: PathBuf,
    /// After how long without a sign of the real-time loop it resets the machine; whole seconds.
    pub timeout: Duration,
}

/// `[front]`.
#[derive(Clone, Debug)]
pub struct Front {
    /// `listen`: where gRPC clients connect.
    pub listen: SocketAddr,
    /// `heartbeat_window`: the window of Viam sessions.
    pub heartbeat_window: Duration,
    /// `refresh`: how often a running motor's set-point is sent again, for the drive's own watchdog.
    pub refresh: Duration,
    /// `grant_timeout`: how long a command waits for the supervisor's grant.
    pub grant_timeout: Duration,
    /// `enable_timeout`: how long a command waits for the drive to come up.
    pub enable_timeout: Duration,
    /// `stop_hold`: for how long after a Stop the same party moves what it stopped over no other connection, and for how
    /// long after the answer to a Stop no command counts as given after it.
    pub stop_hold: Duration,
    /// `max_connections`: connections served at once; more are closed at once.
    pub max_connections: usize,
    /// What sessions must keep to.
    pub sessions: SessionRules,
    /// Who may call, and how the way is protected.
    pub access: Access,
    /// `origins`: the web pages that may call.
    pub origins: Origins,
}

/// One `[[bus]]`.
#[derive(Clone, Debug)]
pub struct Bus {
    /// `name`.
    pub name: String,
    /// `interface`: the CAN network interface; the name unless given.
    pub interface: String,
    /// `fd = true`: the interface must carry CAN FD.
    pub format: BusFormat,
    /// `broadcast_stop`: whether frames that stop all drives of a family may be sent on it.
    pub broadcasts: Broadcasts,
    /// `local_drives`: where its drives are.
    pub drives: Drives,
}

/// Where the drives of a bus are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drives {
    /// On the wire: what a program of this computer sends is never a drive's word.
    OnTheWire,
    /// Programs of this computer (`local_drives = true`): what they send cannot be told from what others send.
    Local,
}

/// Whether frames to all drives of a family may be sent on a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broadcasts {
    /// All its drives are motors of this configuration, or may be stopped with them.
    Allowed,
    /// Drives of somebody else are on it, too.
    Forbidden,
}

/// What a bus carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusFormat {
    /// Classic CAN only.
    Classic,
    /// CAN FD and classic CAN.
    Fd,
}

/// One `[[motor]]`.
#[derive(Clone, Debug)]
pub struct Motor {
    /// `name`.
    pub name: String,
    /// `bus`: its place in [`Config::buses`].
    pub bus: usize,
    /// `second_bus`: another bus that reaches the same drive.
    pub second_bus: Option<usize>,
    /// `driver`: the family's name.
    pub driver: &'static str,
    /// Its drive, everything prebuilt.
    pub drive: Drive,
    /// `reversed = true`: which way positive is.
    pub direction: Direction,
    /// `max_rpm`: what full power means, and the most that may be commanded.
    pub max_rpm: f64,
    /// `stage_timeout`: this motor's own, else the supervisor's.
    pub stage_timeout: Duration,
    /// When it counts as too fast.
    pub overspeed: Overspeed,
    /// `other_masters`, where it is given; what holds is [`Config::commanders`].
    pub other_masters: Option<Commanders>,
    /// `max_window`: how long at most whatever drives it may be silent.
    pub max_window: Duration,
    /// What whoever drives it must keep to.
    pub rules: ResourceRules,
}

/// Where those may be that command a motor while a session drives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commanders {
    /// On this computer: the front, or a server behind it that is here, too.
    Here,
    /// Also elsewhere on the bus.
    Anywhere,
}

impl Config {
    /// Where those may be that command the motor with that index while a session drives it. A server, a base or the target of
    /// a tunnel on another computer has an interface of its own to the bus.
    #[must_use]
    pub fn commanders(&self, motor: usize) -> Commanders {
        let elsewhere = || {
            let upstream = self.upstream.as_ref().filter(|upstream| upstream.drives(motor));
            let base = self.kortex.as_ref().and_then(|kortex| kortex.upstream.as_ref());
            let base = base.filter(|base| base.motors.contains(&motor));
            let targets = self.tunnel.iter().flat_map(|tunnel| &tunnel.targets);
            let mut targets = targets.filter(|target| target.motors.contains(&motor));
            upstream.is_some_and(|upstream| !upstream.address.is_here())
                || base.is_some_and(|base| !base.is_here())
                || targets.any(|target| !target.address.is_here())
        };
        let given = self.motors.get(motor).and_then(|motor| motor.other_masters);
        given.unwrap_or_else(|| if elsewhere() { Commanders::Anywhere } else { Commanders::Here })
    }
}

impl Motor {
    /// The buses that reach it, the one over which it is driven first.
    pub fn buses(&self) -> impl Iterator<Item = usize> + use<> {
        std::iter::once(self.bus).chain(self.second_bus)
    }

    /// Whether that bus reaches it.
    #[must_use]
    pub fn is_on(&self, bus: usize) -> bool {
        self.buses().any(|reaches| reaches == bus)
    }
}

/// When a motor is too fast, which stops it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overspeed {
    /// `overspeed_margin`: how much faster than `max_rpm` it may turn, as a part of that.
    pub margin: f64,
    /// `overspeed_time`: for how long it may be faster than that.
    pub time: Duration,
}

/// Which way positive commands turn a motor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// As the drive has it.
    Forward,
    /// The other way round.
    Reversed,
}

impl Direction {
    /// 1 or -1.
    #[must_use]
    pub const fn sign(self) -> f64 {
        match self {
            Self::Forward => 1.0,
            Self::Reversed => -1.0,
        }
    }
}

/// One `[[base]]`: a differential base over named motors.
#[derive(Clone, Debug)]
pub struct Base {
    /// `name`.
    pub name: String,
    /// `left`: motors of the left side, by place in [`Config::motors`].
    pub left: Vec<usize>,
    /// `right`: motors of the right side.
    pub right: Vec<usize>,
    /// `wheel_circumference_mm`.
    pub wheel_circumference_mm: f64,
    /// `width_mm`: distance between the wheels.
    pub width_mm: f64,
    /// What whoever drives it must keep to.
    pub rules: ResourceRules,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or with everything that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        Self::parse(path, &text)
    }

    /// Whether the front itself drives that motor, and not a server or base behind it.
    #[must_use]
    pub fn is_native(&self, motor: usize) -> bool {
        let base = self.kortex.as_ref().and_then(|kortex| kortex.upstream.as_ref());
        self.upstream.as_ref().is_none_or(|upstream| !upstream.drives(motor))
            && base.is_none_or(|base| !base.motors.contains(&motor))
    }

    /// Checks a text; `path` is for messages.
    ///
    /// # Errors
    ///
    /// With everything that is wrong in it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        check::config(path, text)
    }
}
