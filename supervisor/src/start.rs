//! The order of starting: everything that can fail first, everything that moves time after, arming last.

use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use config::{Config, LONGEST_WINDOW, SHORTEST_WINDOW};
use nix::poll::ppoll;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use shm_proto::verdicts::Identity;
use shm_proto::{Nanos, VerdictSegment, VerdictView, Window};

use crate::bus::{Buses, Confirms, Rebind};
use crate::core::{Core, Motor, Periodic, Settings};
use crate::keeper::Prepared;
use crate::netlink::Netlink;
use crate::notify::Notifier;
use crate::privileges::{Become, close_the_way_back, drop_capabilities, drop_root};
use crate::queue::DEPTH;
use crate::runtime::{Ports as _, Runtime};
use crate::service::{Parts, Service, listen_at};
use crate::{keeper, last_words, realtime, syscalls};

/// Stack of the real-time thread: twice what is pre-faulted, small enough to be locked as a whole.
pub const STACK: usize = 128 * 1024;

/// How often a motor's violations are told, nanoseconds: the log keeps 256 events, which shall reach back
/// minutes even when somebody fights the stop without pause.
const VIOLATION_PAUSE: u64 = 5_000_000_000;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Starts, watches, and returns when told to exit and every motor was told to stop.
///
/// # Errors
///
/// With everything that keeps the supervisor from arming; nothing is half-armed.
pub fn run(config: Config) -> Result<ExitCode, Vec<String>> {
    let one = |problem: String| vec![problem];
    let path = config.path.display().to_string();
    let named = |problems: Vec<String>| {
        problems.into_iter().map(|problem| format!("{path}: {problem}")).collect::<Vec<_>>()
    };
    // First of all, while there is nothing yet that another process would inherit.
    let whom = Become::find(&config.supervisor.user);
    let buses = Buses::open(&config).map_err(named)?;
    let folder = config.supervisor.socket.parent().filter(|folder| !folder.exists());
    let listener = listen_at(&config.supervisor.socket).map_err(one).map_err(named)?;
    let signals = take_signals().map_err(|error| vec![format!("signals: {error}")])?;

    let names: Vec<&str> = config.motors.iter().map(|motor| motor.name.as_str()).collect();
    let bus_names: Vec<&str> = config.buses.iter().map(|bus| bus.name.as_str()).collect();
    let identity = Identity {
        config_hash: config.hash,
        pid: std::process::id(),
        started: Nanos::now(),
        policy: config.supervisor.reset,
    };
    let capacity = config.supervisor.capacity;
    let shared = |error: std::io::Error| vec![format!("shared memory: {error}")];
    let (verdicts, verdicts_fd) =
        VerdictSegment::create(capacity, &identity, &names, &bus_names).map_err(shared)?;
    let view = VerdictView::map(std::os::fd::AsFd::as_fd(&verdicts_fd), capacity).map_err(shared)?;

    let netlink = Netlink::open().map_err(|error| vec![format!("netlink: {error}")])?;
    let confirms = buses.listen(&config).map_err(|error| vec![format!("CAN sockets: {error}")])?;
    // While whoever started us can still be reached: not every user may.
    let notifier = Notifier::from_environment();
    close_the_way_back();
    let Prepared { kernel_stop, mut keeper, degraded: unarmed } = keeper::prepare(&config, whom);
    let mut rebind = Rebind::default();
    rebind.add(&buses).map_err(|error| vec![format!("CAN sockets: {error}")])?;
    last_words::prepare(&config, &mut rebind).map_err(named)?;
    // A folder that was made here has no other owner, who would have to clean it up.
    folder
        .into_iter()
        .chain([config.supervisor.socket.as_path()])
        .try_for_each(|path| whom.give(path))
        .map_err(|error| one(format!("[supervisor] socket: {error}")))
        .map_err(named)?;
    let mut core = build_core(&config, buses.len(), verdicts);
    for (bus, confirms) in confirms.into_iter().enumerate() {
        core.bus_confirms(bus, confirms == Confirms::OnTheWire);
    }
    let (command_sender, commands) = rtrb::RingBuffer::new(DEPTH);
    let (replies, reply_receiver) = rtrb::RingBuffer::new(DEPTH);
    let wakeups = buses.wakeups(&signals).map_err(|error| vec![format!("epoll: {error}")])?;
    let runtime = Runtime { core, buses, commands, replies, wakeups, signals, front: None, kernel_stop };

    let degraded = unarmed | realtime::lock_memory();
    let (_held_for_life, refused) = realtime::limit_cpu_sleep();
    let arming = Arc::new(Arming::new(degraded | refused));
    keeper.hold();
    start_real_time(&config, runtime, &arming)
        .map_err(|error| vec![format!("cannot start the real-time thread: {error}")])?;
    arming.wait_for_priority();
    arming.add(drop_root(whom, &config.supervisor.user));
    // The fuse is for the thread that it is about.
    SigSet::from(Signal::SIGXCPU).thread_block().map_err(|error| vec![format!("signals: {error}")])?;

    let parts = Parts {
        config,
        listener,
        verdicts_fd,
        verdicts: view,
        commands: command_sender,
        replies: reply_receiver,
        notifier,
        rebind,
        netlink,
        keeper,
    };
    let service = Service::new(parts);
    arming.add(syscalls::confine_housekeeping());
    arming.go();
    Ok(service.run())
}

/// How the two threads wait for each other before arming, and what the system refused them.
#[derive(Debug)]
struct Arming {
    degraded: AtomicU64,
    has_priority: Barrier,
    may_arm: Barrier,
}

impl Arming {
    fn new(degraded: u64) -> Self {
        Self { degraded: AtomicU64::new(degraded), has_priority: Barrier::new(2), may_arm: Barrier::new(2) }
    }

    fn add(&self, degraded: u64) {
        self.degraded.fetch_or(degraded, Ordering::Relaxed);
    }

    /// Root is needed until the real-time thread has its priority.
    fn wait_for_priority(&self) {
        self.has_priority.wait();
    }

    /// Everything that weakens or strengthens the process is done.
    fn go(&self) {
        self.may_arm.wait();
    }
}

fn start_real_time(config: &Config, mut runtime: Runtime<Buses>, arming: &Arc<Arming>) -> io::Result<()> {
    let (cpu, priority) = (config.supervisor.cpu, config.supervisor.priority);
    let arming = Arc::clone(arming);
    let start = move || {
        arming.add(realtime::become_real_time(cpu, priority));
        arming.wait_for_priority();
        arming.go();
        // Not before: becoming another user, which housekeeping has done for all threads, takes one.
        arming.add(drop_capabilities());
        arming.add(syscalls::confine_real_time());
        runtime.core.degraded(arming.degraded.load(Ordering::Relaxed));
        runtime.run();
        // Releasing what it owns would take system calls it may not make: the end of the process does it.
        loop {
            let _ = ppoll(&mut [], None, None);
        }
    };
    std::thread::Builder::new().name("lanyard-rt".to_owned()).stack_size(STACK).spawn(start).map(|_| ())
}

/// What the core needs to know of a configuration.
#[must_use]
pub fn settings(config: &Config) -> Settings {
    let supervisor = &config.supervisor;
    Settings {
        front_window: Window(nanos(supervisor.front_window)),
        windows: (Window(nanos(SHORTEST_WINDOW)), Window(nanos(LONGEST_WINDOW))),
        stop_repeat: nanos(supervisor.stop_repeat),
        tick: nanos(supervisor.tick),
        max_lateness: nanos(supervisor.max_lateness),
        violation_pause: VIOLATION_PAUSE,
        policy: supervisor.reset,
    }
}

/// The core for a configuration with that many buses open.
#[must_use]
pub fn build_core(config: &Config, buses: usize, verdicts: VerdictSegment) -> Core {
    let motors = config
        .motors
        .iter()
        .map(|motor| {
            let plain = Motor::new(motor.bus, motor.drive.clone(), nanos(motor.stage_timeout));
            motor.second_bus.into_iter().fold(plain, Motor::also_on)
        })
        .collect();
    let sessions = config.supervisor.capacity.sessions();
    Core::new(settings(config), motors, buses, heartbeats(config), verdicts, sessions)
}

/// One heartbeat per bus and frame, as often as its most impatient drive needs.
#[must_use]
pub fn heartbeats(config: &Config) -> Vec<Periodic> {
    let mut all: Vec<Periodic> = Vec::new();
    for (index, motor) in config.motors.iter().enumerate() {
        let Some(heartbeat) = &motor.drive.heartbeat else { continue };
        // Four within the drive's window: it may lose two and still hear one in time.
        let period = nanos(heartbeat.window) / 4;
        let mark = (heartbeat.mark != [0; 8]).then_some((index, heartbeat.mark));
        for bus in motor.buses() {
            match all.iter_mut().find(|known| known.bus == bus && known.frame == heartbeat.frame) {
                Some(known) => {
                    known.period = known.period.min(period);
                    known.marks.extend(mark);
                }
                None => {
                    let frame = heartbeat.frame;
                    let marks = mark.into_iter().collect();
                    all.push(Periodic { bus, frame, period, due: Nanos::ZERO, marks });
                }
            }
        }
    }
    all
}

/// Takes the signals out of their usual way: the real-time thread reads them from a descriptor.
///
/// # Errors
///
/// When the kernel refuses the mask or the descriptor.
pub fn take_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    if cfg!(debug_assertions) {
        set.add(Signal::SIGUSR1);
        set.add(Signal::SIGUSR2);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
