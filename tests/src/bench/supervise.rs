//! A supervisor in a process of its own, as `lanyard-supervisor` is one but for the sink in the place of CAN.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use config::Config;
use shm_proto::Generation;
use supervisor::bus::Rebind;
use supervisor::doors::Visitor;
use supervisor::doors::door::{self, Door};
use supervisor::doors::listener::{self, Listener};
use supervisor::estop::{self, Drain};
use supervisor::keeper::Keeper;
use supervisor::latches::{Disk, Keeping, Latches, Store};
use supervisor::netlink::Netlink;
use supervisor::notify::Notifier;
use supervisor::privileges::{Access, Become};
use supervisor::queue::Requesters;
use supervisor::service::{Parts, Service};
use tests::folder::Folder;

use super::child::{Background, hush, role};
use super::ports::sink;
use super::realtime;
use super::robot::{Shape, at_rest};

/// Motors it watches: a base and an arm.
const MOTORS: u16 = 8;
/// Longer than the span of time that a proof of standstill takes.
const PROOF: Duration = Duration::from_millis(50);
/// How long a process may take to come up on a machine that is starved.
const PATIENCE: Duration = Duration::from_secs(20);

/// The role `supervise`: never ends by itself.
///
/// # Errors
/// The system refuses anything.
pub fn run(config: &Path) -> Result<ExitCode> {
    let config = Config::load(config)?;
    let fifo = estop::open_or_make(&config.supervisor.estop, Access::default());
    let fifo = fifo.map_err(|problem| anyhow!(problem))?;
    let (ports, drives) = sink()?;
    let armed = realtime::arm(&config, ports, Some(fifo.as_fd()))?;
    // Motors that are not proven to stand still would be stopped over and over: not what is measured.
    for _ in 0..2 {
        for motor in 0..u16::try_from(config.motors.len())? {
            at_rest(motor).iter().for_each(|frame| drives.say(frame));
        }
        std::thread::sleep(PROOF);
    }
    let state = config.supervisor.state.clone();
    let (config, verdicts) = (Arc::new(config), Arc::new(armed.verdicts));
    let Requesters { housekeeping, fronts, lookers, .. } = armed.requesters;
    for (visitor, requester) in [(Visitor::Looker, lookers), (Visitor::Front, fronts)] {
        let socket = listener::listen_at(visitor, visitor.path(&config), Access::default());
        let socket = socket.map_err(|problem| anyhow!(problem))?;
        let door = Door::new(door::Parts {
            visitor,
            config: Arc::clone(&config),
            listener: Listener { socket, waiting: Vec::new(), keeper: listener::Keeper::Nobody },
            verdicts_fd: armed.verdicts_fd.try_clone()?,
            verdicts: Arc::clone(&verdicts),
            requester,
            generation: Generation(0),
        });
        std::thread::spawn(|| door.run());
    }
    let parts = Parts {
        config,
        paths: Vec::new(),
        verdicts,
        requester: housekeeping,
        notifier: Notifier::from_environment(),
        rebind: Rebind::default(),
        netlink: Netlink::open()?,
        keeper: Keeper::without_jobs(),
        watchdog: None,
        estop: Drain::new(fifo),
    };
    let (store, _) = Store::open(&state, Become::SamePerson);
    let latches = Latches::default();
    store.write(&latches.to_bytes())?;
    let (disk, _) = Disk::start(store);
    let code = Service::new(parts, Keeping::new(disk, state, Some(latches), Vec::new())).run();
    drop(drives);
    Ok(code)
}

/// A running supervisor and the folder with its configuration and socket.
#[derive(Debug)]
pub struct Supervisor {
    /// Its process.
    pub process: Background,
    /// Its configuration.
    pub config: Config,
    /// The file of that.
    pub file: PathBuf,
    _folder: Folder,
}

/// Which program supervises.
#[derive(Clone, Copy, Debug)]
pub enum Program<'a> {
    /// This one, with a sink.
    Sink,
    /// The real one, on a CAN interface.
    Real(&'a Path, &'a str),
}

/// Starts a supervisor with room for that many sessions and waits until it listens.
///
/// # Errors
/// It does not come up.
pub fn start(program: Program<'_>, sessions: u16, listen: &str) -> Result<Supervisor> {
    start_with(program, sessions, listen, "")
}

/// Starts a supervisor whose configuration has more sections.
///
/// # Errors
/// It does not come up.
pub fn start_with(program: Program<'_>, sessions: u16, listen: &str, more: &str) -> Result<Supervisor> {
    let folder = Folder::new()?;
    let (file, socket) = (folder.file("bench.toml"), folder.file("s"));
    let interface = match program {
        Program::Sink => "lo",
        Program::Real(_, interface) => interface,
    };
    let shape = Shape { interface, sessions, motors: MOTORS, socket: &socket, listen };
    std::fs::write(&file, shape.text()? + more)?;
    let config = Config::load(&file)?;
    let mut command = match program {
        Program::Sink => role("supervise", [&file])?,
        Program::Real(path, _) => {
            let mut command = std::process::Command::new(path);
            command.arg("--config").arg(&file);
            super::child::die_with_parent(&mut command);
            command
        }
    };
    hush(&mut command);
    let process = Background::start(&mut command)?;
    let begun = Instant::now();
    while shm_proto::handover::observe(&socket).is_err() {
        ensure!(begun.elapsed() < PATIENCE, "the supervisor does not come up; LANYARD_SHOW=1 shows why");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Supervisor { process, config, file, _folder: folder })
}
