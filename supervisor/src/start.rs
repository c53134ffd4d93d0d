//! The order of starting: everything that can fail first, everything that moves time after, arming last.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, SystemTime};

use config::{Commanders, Config, Drives, LONGEST_WINDOW, SHORTEST_WINDOW};
use drivers::RevolutionsPerSecond;
use nix::poll::ppoll;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use shm_proto::verdicts::{Degraded, Identity, Predecessor};
use shm_proto::{Nanos, VerdictSegment, VerdictView, Window};

use crate::bus::{Buses, Rebind};
use crate::core::{Core, First, Inheritance, Kept, Motor, Periodic, Settings, SpeedLimits};
use crate::doors::Visitor;
use crate::doors::door::{self, Door};
use crate::doors::listener::{self, Listener};
use crate::estop::{self, Drain};
use crate::inheritance::inherit;
use crate::intake::Intake;
use crate::keeper::Prepared;
use crate::latches::{Clock, Disk, Found, HeldMotor, Keeping, Latches, Store, hold_all, take_over};
use crate::netlink::Netlink;
use crate::notify::Notifier;
use crate::privileges::{Access, Become, close_the_way_back, drop_capabilities, drop_root, find_group};
use crate::queue::{self, Requesters};
use crate::recording::{Finish, Header, Input, QUEUE_ENTRIES, Recorded, Tape, Writer};
use crate::runtime::{Ports, Presses, Runtime};
use crate::service::{Parts, Service};
use crate::{hardware_watchdog, keeper, last_words, log, realtime, sys, syscalls};

/// Stack of a thread that is started here, bytes: twice what is touched in advance. Of the rest, only what is used takes memory.
pub const STACK: usize = 128 * 1024;

/// Stack of a door's thread, bytes: it does little.
const DOOR_STACK: usize = 64 * 1024;

/// For how long every reading of a proof of standstill must have been slow, nanoseconds. A motor that reverses at 100 rev/s2,
/// which is brisk, is slower than the usual 0.05 rev/s for 1 ms; ten times that. A burst of three frames that waited behind a
/// busy bus takes 0.4 ms at 1 Mbit/s.
const PROOF_SPAN_NS: u64 = 10_000_000;

/// How often a motor's violations are told, nanoseconds: the log keeps 256 events, which shall reach back
/// minutes even when somebody fights the stop without pause.
const VIOLATION_PAUSE: u64 = 5_000_000_000;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What is done while the interface of a bus is not there, down, or not set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing: somebody is there who reads why.
    Refuse,
    /// It is waited for: at boot an adapter may come late, and to be started again for ever would bury the reason.
    WaitFor,
}

/// Where everything that the core is given is to be written, and the text of its configuration.
#[derive(Debug)]
pub struct Recording {
    /// A new file.
    pub file: File,
    /// What was read of the configuration's file.
    pub text: String,
}

/// Starts and watches; the process ends when told to and every motor was told to stop.
///
/// The calling thread becomes the real-time one and housekeeping is split off, not the other way round: so systemd
/// can give it policy, priority and processor, and the service need not be allowed to ask for any.
///
/// # Errors
///
/// With everything that keeps the supervisor from arming; nothing is half-armed.
pub fn run(
    config: Config,
    missing: Missing,
    recording: Option<Recording>,
) -> Result<Infallible, Vec<String>> {
    let one = |problem: String| vec![problem];
    let path = config.path.display().to_string();
    let named = |problems: Vec<String>| {
        problems.into_iter().map(|problem| format!("{path}: {problem}")).collect::<Vec<_>>()
    };
    // First of all, while there is nothing yet that another process would inherit.
    let whom = Become::find(&config.supervisor.user);
    let pressing = find_group(&config.supervisor.estop_group);
    let groups = Visitor::ALL.map(|visitor| match visitor.group(&config) {
        Some(name) => find_group(name),
        None => whom.group(),
    });
    // While whoever started us can still be reached: not every user may.
    let notifier = Notifier::from_environment();
    let mut buses = match missing {
        Missing::Refuse => Buses::open(&config).map_err(named)?,
        Missing::WaitFor => wait_for_buses(&config, &notifier),
    };
    let listeners = Visitor::ALL.into_iter().zip(groups).map(|(visitor, group)| {
        // Without operators nobody but root resets: the front, for one, is in the supervisor's group.
        let other = match visitor {
            Visitor::Operator => None,
            Visitor::Front | Visitor::Looker => whom.group(),
        };
        let access = Access { user: whom.user(), group: group.or(other) };
        Ok((visitor, listener::open(visitor, visitor.path(&config), access, &notifier)?))
    });
    let listeners: Vec<(Visitor, Listener)> =
        listeners.collect::<Result<_, _>>().map_err(one).map_err(named)?;
    // Not before the sockets, which show whether another supervisor runs here.
    let access = Access { user: whom.user(), group: pressing.or(whom.group()) };
    let fifo = estop::open(&config.supervisor.estop, access, &notifier).map_err(one).map_err(named)?;
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
    let view = Arc::new(view);

    let netlink = Netlink::open().map_err(|error| vec![format!("netlink: {error}")])?;
    let confirms = buses.listen(&config).map_err(|error| vec![format!("CAN sockets: {error}")])?;
    close_the_way_back();
    let kept = verdicts_fd.try_clone().map_err(shared)?;
    let Prepared { kernel_stop, mut keeper, found, degraded: unarmed } = keeper::prepare(&config, whom, kept);
    let mut rebind = Rebind::default();
    rebind.add(&buses).map_err(|error| vec![format!("CAN sockets: {error}")])?;
    last_words::prepare(&config, &mut rebind).map_err(named)?;
    let (mut inheritance, told) = inherit(found, &config, Nanos::now());
    told.iter().for_each(|line| log::line(line));
    let latches = take_over_latches(&mut inheritance, &config, whom);
    let mut core = build_core(&config, buses.len(), verdicts);
    core.inherit(&inheritance);
    let refused = latches.on_disk.is_none().then_some(Input::Kept { kept: Kept::Refused });
    let reset = tell_of_watchdog(inheritance.ending);
    let confirms = confirms.into_iter().enumerate().map(|(bus, confirms)| Input::Confirms { bus, confirms });
    let first: Vec<Input> = refused.into_iter().chain(reset).chain(confirms).collect();
    first.iter().for_each(|input| input.give(&mut core, &mut buses, |_| None));
    let (requesters, responders) = queue::connect();
    let epoll = |error: io::Error| vec![format!("epoll: {error}")];
    let mut wakeups = buses.wakeups(&signals).map_err(epoll)?;
    wakeups.watch_stop(fifo.as_fd()).map_err(epoll)?;
    let (presses, intake) = (Presses::default(), Intake::NOTHING_READ);
    let runtime =
        Runtime { core, buses, responders, wakeups, signals, front: None, kernel_stop, presses, intake };
    // Before memory is locked: its queue is used by the real-time thread.
    let recorded = recording
        .map(|recording| {
            let Identity { pid, started, .. } = identity;
            let header = Header { config: recording.text, pid, started, inheritance: inheritance.clone() };
            let (tape, taken) = Tape::new(QUEUE_ENTRIES, capacity, Arc::clone(&view))?;
            Ok((tape, Writer::new(recording.file, &header, taken)?))
        })
        .transpose()
        .map_err(|error: io::Error| vec![format!("cannot record: {error}")])?;
    let (tape, writer) = recorded.unzip();

    let degraded = unarmed | realtime::lock_memory();
    let (_held_for_life, refused) = realtime::limit_cpu_sleep();
    // From now on it counts: whatever is left to do takes milliseconds.
    let (watchdog, unwatched) = hardware_watchdog::open(config.supervisor.watchdog.as_ref(), &notifier);
    let arming = Arc::new(Arming::new(degraded | refused | unwatched | local_drives(&config)));
    keeper.hold();
    let wanted = RealTime::of(&config);
    let config = Arc::new(config);
    let alone = |(_, listener): &&(Visitor, Listener)| listener.keeper == listener::Keeper::Nobody;
    let paths = listeners.iter().filter(alone).map(|(visitor, _)| visitor.path(&config).to_owned()).collect();
    let Requesters { housekeeping, fronts, lookers, operators } = requesters;
    let mut doors = Vec::new();
    // Both in the order of `Visitor::ALL`.
    for ((visitor, listener), requester) in listeners.into_iter().zip([lookers, fronts, operators]) {
        doors.push(Door::new(door::Parts {
            visitor,
            config: Arc::clone(&config),
            listener,
            verdicts_fd: verdicts_fd.try_clone().map_err(shared)?,
            verdicts: Arc::clone(&view),
            requester,
            generation: inheritance.generation,
        }));
    }
    let parts = Parts {
        config,
        paths,
        verdicts: view,
        requester: housekeeping,
        notifier,
        rebind,
        netlink,
        keeper,
        watchdog,
        estop: Drain::new(fifo),
    };
    start_housekeeping(parts, doors, latches, writer, whom, &arming)
        .map_err(|error| vec![format!("cannot start housekeeping: {error}")])?;
    match tape {
        None => watch(runtime, &wanted, &arming),
        Some(tape) => {
            let mut runtime = runtime.over(|buses| Recorded::new(buses, tape));
            first.iter().for_each(|input| runtime.buses.note(input));
            watch(runtime, &wanted, &arming)
        }
    }
}

/// Says which buses have drives that any program can speak for; as a sum of [`Degraded`] bits.
fn local_drives(config: &Config) -> u64 {
    let is_local = |bus: &&config::Bus| bus.drives == Drives::Local;
    let names: Vec<&str> = config.buses.iter().filter(is_local).map(|bus| bus.name.as_str()).collect();
    if names.is_empty() {
        return 0;
    }
    log::line(&format!(
        "WARNING: degraded: local_drives = true on bus {}: whatever a program of this computer says in the name of a drive \
         counts. For simulated drives only, never on a robot",
        names.join(", ")
    ));
    Degraded::LocalDrives.number()
}

/// Says that the machine was reset, if it was: once to the log, and to whoever asks by the call that it returns.
fn tell_of_watchdog(before: Predecessor) -> Option<Input> {
    let devices = hardware_watchdog::has_reset_machine();
    if devices.is_empty() {
        return None;
    }
    let first = match before {
        Predecessor::None => First::SinceTheMachineStarted,
        Predecessor::Ended | Predecessor::Died | Predecessor::Unreadable => First::AfterAnother,
    };
    if first == First::SinceTheMachineStarted {
        log::line(&format!(
            "WARNING: this machine was reset by its hardware watchdog ({}): it had hung, or its supervisor had. Nobody \
             stopped the motors at that moment but their drives' own watchdogs. Find out why: journalctl -b -1",
            devices.join(", ")
        ));
    }
    Some(Input::WatchdogReset { first, now: Nanos::now() })
}

/// How often interfaces that are not there are looked for. A person who plugs one in does not notice.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Opens the buses once they all can be; says what is missing whenever that changes.
fn wait_for_buses(config: &Config, notifier: &Notifier) -> Buses {
    let mut said = Vec::new();
    loop {
        let problems = match Buses::open(config) {
            Ok(buses) => return buses,
            Err(problems) => problems,
        };
        if problems != said {
            problems.iter().for_each(|problem| log::line(&format!("waiting: {problem}")));
            notifier.say(&format!("STATUS=Not armed, waiting: {}", problems.join("; ")));
            said = problems;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// How the threads wait for each other before arming, and what the system refused them.
#[derive(Debug)]
struct Arming {
    degraded: AtomicU64,
    has_priority: Barrier,
    may_arm: Barrier,
}

impl Arming {
    fn new(degraded: u64) -> Self {
        // The real-time thread, housekeeping, and the doors.
        let everybody = 2 + Visitor::ALL.len();
        Self {
            degraded: AtomicU64::new(degraded),
            has_priority: Barrier::new(2),
            may_arm: Barrier::new(everybody),
        }
    }

    fn add(&self, degraded: u64) {
        self.degraded.fetch_or(degraded, Ordering::Relaxed);
    }

    fn has(&self, degraded: Degraded) -> bool {
        self.degraded.load(Ordering::Relaxed) & degraded.number() != 0
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

/// What the configuration wants of the real-time thread.
struct RealTime {
    cpu: Option<usize>,
    priority: u8,
    kernel_stop: Duration,
}

impl RealTime {
    fn of(config: &Config) -> Self {
        let supervisor = &config.supervisor;
        Self { cpu: supervisor.cpu, priority: supervisor.priority, kernel_stop: supervisor.kernel_stop }
    }
}

/// The latches on disk, before arming.
struct Held {
    store: Store,
    /// What was written; `None`: the disk has refused.
    on_disk: Option<Latches>,
    elsewhere: Vec<HeldMotor>,
}

impl Held {
    /// Has a thread of its own keep them. Returns what the system refused it, too.
    fn keep(self) -> (Keeping, u64) {
        let path = self.store.path().to_owned();
        let (disk, refused) = Disk::start(self.store);
        (Keeping::new(disk, path, self.on_disk, self.elsewhere), refused)
    }
}

/// Adds what the disk has kept, and writes it back: a disk that takes nothing is found out now, and not by the first
/// operator who presses stop.
fn take_over_latches(inheritance: &mut Inheritance, config: &Config, whom: Become) -> Held {
    let path = &config.supervisor.state;
    let (store, found) = Store::open(path, whom);
    let calendar = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let calendar_ms = u64::try_from(calendar.as_millis()).unwrap_or(0);
    let at = Clock { now: Nanos::now(), calendar_ms };
    let taken = take_over(inheritance, &found, config, at);
    if matches!(found, Found::FirstStart) {
        log::line(&format!(
            "{}: no record of an earlier supervisor: this is a first start, and nothing is held. If it is not, look at the \
             robot, and find out what became of that folder",
            path.display()
        ));
    }
    taken.told.iter().for_each(|line| log::line(&format!("{}: {line}", path.display())));
    let latches = Latches::of(inheritance, config, &taken.elsewhere);
    let on_disk = match store.begin(&latches.to_bytes(), whom) {
        Ok(()) => Some(latches),
        Err(error) => {
            if !matches!(found, Found::Lost(_)) {
                let why = format!("what waits for a reset cannot be written to disk ({error})");
                let told = hold_all(inheritance, &why, at.now);
                told.iter().for_each(|line| log::line(&format!("{}: {line}", path.display())));
            }
            None
        }
    };
    Held { store, on_disk, elsewhere: taken.elsewhere }
}

/// Splits off housekeeping, which ends the process when the real-time thread has said its last word.
fn start_housekeeping(
    parts: Parts,
    doors: Vec<Door>,
    latches: Held,
    recording: Option<Writer<File>>,
    whom: Become,
    arming: &Arc<Arming>,
) -> io::Result<()> {
    let arming = Arc::clone(arming);
    sys::share_heap();
    // The fuse is for the thread that it is about; a thread starts with the mask of the one that starts it.
    let fuse = SigSet::from(Signal::SIGXCPU);
    fuse.thread_block()?;
    let housekeeping = move || {
        // It feeds the watchdogs, also when the computer has no memory left.
        sys::prefault_stack();
        arming.add(realtime::become_ordinary());
        arming.wait_for_priority();
        arming.add(drop_root(whom, &parts.config.supervisor.user));
        // Only now: they start as what this thread has become, and may not become anything themselves.
        for door in doors {
            if let Err(error) = open_door(door, &arming) {
                log::line(&format!("cannot start: no thread for the supervisor's sockets: {error}"));
                std::process::exit(1);
            }
        }
        // Not before: a thread of its own could not become another user once it is confined.
        let (latches, refused) = latches.keep();
        arming.add(refused);
        let recording = recording.and_then(|writer| record(writer, &arming));
        let service = Service::new(parts, latches);
        // Every thread has its stack. Where nothing could be locked, a limit on what comes would only keep fronts out.
        if !arming.has(Degraded::Memory) {
            arming.add(realtime::lock_later_memory_whole());
        }
        arming.add(syscalls::confine_housekeeping());
        arming.go();
        let code = service.run();
        recording.into_iter().for_each(Finish::wait);
        std::process::exit(i32::from(code != ExitCode::SUCCESS));
    };
    std::thread::Builder::new().name("lanyard-keep".to_owned()).stack_size(STACK).spawn(housekeeping)?;
    Ok(fuse.thread_unblock()?)
}

/// Starts the thread of a recording. Without it the robot is as safe, so that it goes on.
fn record(writer: Writer<File>, arming: &Arming) -> Option<Finish> {
    match writer.start() {
        Ok((finish, refused)) => {
            arming.add(refused);
            Some(finish)
        }
        Err(error) => {
            log::line(&format!("WARNING: nothing is recorded: no thread for it: {error}"));
            None
        }
    }
}

/// Starts the thread of a door, which serves once everything is ready.
fn open_door(door: Door, arming: &Arc<Arming>) -> io::Result<()> {
    let arming = Arc::clone(arming);
    let serve = move || -> Infallible {
        arming.add(syscalls::confine_door());
        arming.go();
        door.run()
    };
    std::thread::Builder::new().name("lanyard-door".to_owned()).stack_size(DOOR_STACK).spawn(serve)?;
    Ok(())
}

/// Makes this thread the real-time one and runs the loop; whoever else is needed is ready.
fn watch<P: Ports>(mut runtime: Runtime<P>, wanted: &RealTime, arming: &Arming) -> ! {
    // Under that name tools like top show it among the threads. A name too long would be cut, not refused.
    let _ = nix::sys::prctl::set_name(c"lanyard-rt");
    arming.add(realtime::become_real_time(wanted.cpu, wanted.priority));
    arming.add(realtime::set_fuse(wanted.kernel_stop));
    arming.wait_for_priority();
    arming.go();
    // Not before: becoming another user, which housekeeping has done for all threads, takes one.
    arming.add(drop_capabilities());
    arming.add(syscalls::confine_real_time());
    runtime.degraded(arming.degraded.load(Ordering::Relaxed));
    runtime.run();
    // Releasing what it owns would take system calls it may not make: the end of the process does it.
    loop {
        let _ = ppoll(&mut [], None, None);
    }
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
        proof_span: PROOF_SPAN_NS,
        violation_pause: VIOLATION_PAUSE,
        policy: supervisor.reset,
    }
}

/// A motor of a configuration, with its place there, whose stop stages take at most `stage_timeout` nanoseconds each.
#[must_use]
pub fn build_motor(config: &Config, index: usize, motor: &config::Motor, stage_timeout: u64) -> Motor {
    let max_window = Window(nanos(motor.max_window));
    let plain = Motor::new(motor.bus, motor.drive.clone(), stage_timeout, speed_limits(motor), max_window);
    let plain = commanded_by(plain, config.commanders(index));
    motor.second_bus.into_iter().fold(plain, Motor::also_on)
}

/// The core for a configuration with that many buses open.
#[must_use]
pub fn build_core(config: &Config, buses: usize, verdicts: VerdictSegment) -> Core {
    let motors = config
        .motors
        .iter()
        .enumerate()
        .map(|(index, motor)| build_motor(config, index, motor, nanos(motor.stage_timeout)))
        .collect();
    let sessions = config.supervisor.capacity.sessions();
    let mut core = Core::new(settings(config), motors, buses, heartbeats(config), verdicts, sessions);
    for (bus, known) in config.buses.iter().enumerate() {
        match known.drives {
            Drives::OnTheWire => {}
            Drives::Local => core.drives_are_local(bus),
        }
    }
    core
}

/// The motor, commanded from where its configuration says.
#[must_use]
pub fn commanded_by(motor: Motor, commanders: Commanders) -> Motor {
    match commanders {
        Commanders::Here => motor,
        Commanders::Anywhere => motor.with_other_masters(),
    }
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
                    known.hearers.push(index);
                }
                None => {
                    let frame = heartbeat.frame;
                    let marks = mark.into_iter().collect();
                    all.push(Periodic::new(bus, frame, period, index, marks));
                }
            }
        }
    }
    all
}

/// What a motor's speed is compared with while it is driven. What a drive may report of a shaft that stands still is added:
/// a slow motor's noise is no overspeed.
#[must_use]
pub fn speed_limits(motor: &config::Motor) -> SpeedLimits {
    /// A tenth of full speed against all commands is no rocking of a load.
    const WRONG_WAY: f64 = 0.1;
    let noise = motor.drive.stop.stage(0).proof.max_speed.0;
    let limit = |rpm: f64| RevolutionsPerSecond(RevolutionsPerSecond::from_rpm(rpm).0 + noise);
    SpeedLimits {
        most: limit(motor.max_rpm * (1.0 + motor.overspeed.margin)),
        wrong_way: limit(motor.max_rpm * WRONG_WAY),
        patience: nanos(motor.overspeed.time),
    }
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
