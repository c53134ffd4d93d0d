//! Housekeeping: the hand-over socket, operator commands, interfaces that come and go, the log.
//!
//! Runs in the main thread with ordinary scheduling. It may be slow or stuck; the real-time thread
//! does not notice.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use config::Config;
use drivers::Fault;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockFlag, accept4, getsockopt, sockopt::PeerCredentials};
use rtrb::{Consumer, Producer};
use shm_proto::beats::BeatView;
use shm_proto::handover::{Message, receive, send};
use shm_proto::layout::{BeatLayout, Capacity, layout_hash};
use shm_proto::verdicts::{BusHealth, Event, EventKind, Reason};
use shm_proto::{Generation, Nanos, TripId, VerdictView};

use crate::bus::Rebind;
use crate::estop::Drain;
use crate::hardware_watchdog::HardwareWatchdog;
use crate::keeper::{self, Rest};
use crate::latches::Keeping;
use crate::listener::{Keeper, Listener};
use crate::netlink::{Link, Netlink};
use crate::notify::{Notifier, Watchdog};
use crate::queue::{Command, Reply};
use crate::{bus, log, sys};

/// How often housekeeping looks at queues and interfaces, milliseconds.
const PASS: u8 = 50;
/// Connections held at once: one front and a few people with `lanyard`. More wait in the backlog.
const MOST_CONNECTIONS: usize = 32;
/// Passes a connection may say nothing before it is closed, unless it is the front's: 10 s.
const PATIENCE: u32 = 200;

/// What a connection is waiting for.
#[derive(Debug)]
enum Stage {
    /// Its first message.
    New,
    /// "Mapped", after a beat memfd was offered.
    Offered { beats: OwnedFd, generation: Generation },
    /// The real-time thread's "attached".
    Attaching,
    /// Nothing more: it is the front.
    Front,
    /// The real-time thread's answer to a command.
    Commanded,
}

#[derive(Debug)]
struct Connection {
    serial: u64,
    socket: OwnedFd,
    pid: u32,
    stage: Stage,
    idle: u32,
}

/// Whether a connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

/// Everything housekeeping owns.
#[derive(Debug)]
pub struct Service {
    config: Config,
    capacity: Capacity,
    listener: OwnedFd,
    /// Its path, if it is to be removed at the end.
    path: Option<PathBuf>,
    verdicts_fd: OwnedFd,
    verdicts: VerdictView,
    commands: Producer<Command>,
    replies: Consumer<Reply>,
    connections: Vec<Connection>,
    /// Connections whose command the real-time thread has yet to answer, in order: it answers in order.
    awaiting: VecDeque<u64>,
    accepted: u64,
    generation: Generation,
    interfaces: Vec<Interface>,
    logged: u64,
    notifier: Notifier,
    watchdog: Watchdog,
    rebind: Rebind,
    netlink: Netlink,
    keeper: keeper::Keeper,
    hardware_watchdog: Option<HardwareWatchdog>,
    estop: Drain,
    latches: Keeping,
}

/// What was last seen of a bus's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interface {
    number: Option<u32>,
    health: BusHealth,
    counters: Option<(u16, u16)>,
}

impl Interface {
    const GONE: Self = Self { number: None, health: BusHealth::Down, counters: None };
}

/// What housekeeping is given to work with.
#[derive(Debug)]
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// The bound hand-over socket, and who waits there.
    pub listener: Listener,
    /// The verdict segment, for handing out.
    pub verdicts_fd: OwnedFd,
    /// The verdict segment, for reading events. Those that are there already were told before.
    pub verdicts: VerdictView,
    /// The last hand-over of the supervisor before: the next has a higher number.
    pub generation: Generation,
    /// To the real-time thread.
    pub commands: Producer<Command>,
    /// From the real-time thread.
    pub replies: Consumer<Reply>,
    /// To systemd.
    pub notifier: Notifier,
    /// Every CAN socket, for interfaces that vanish and come back.
    pub rebind: Rebind,
    /// To ask the kernel about interfaces.
    pub netlink: Netlink,
    /// Who else holds the kernel-armed stop.
    pub keeper: keeper::Keeper,
    /// What resets the machine when the loop stands still, if anything does.
    pub watchdog: Option<HardwareWatchdog>,
    /// The FIFO of the operator's stop, of which it reads what the real-time thread has noticed.
    pub estop: Drain,
}

impl Service {
    /// Housekeeping over these parts, and over what waits for a reset on disk.
    #[must_use]
    pub fn new(parts: Parts, latches: Keeping) -> Self {
        let number = |bus: &config::Bus| bus::interface_number(&bus.interface);
        // Open a moment ago; how they are is looked up in the first pass.
        let seen = |bus| Interface { number: number(bus), health: BusHealth::Unknown, counters: None };
        let interfaces = parts.config.buses.iter().map(seen).collect();
        let Listener { socket, waiting, keeper } = parts.listener;
        let mut service = Self {
            capacity: parts.config.supervisor.capacity,
            path: (keeper == Keeper::Nobody).then(|| parts.config.supervisor.socket.clone()),
            config: parts.config,
            listener: socket,
            verdicts_fd: parts.verdicts_fd,
            // Taken over from the supervisor before, and told with that.
            logged: parts.verdicts.event_count(),
            verdicts: parts.verdicts,
            commands: parts.commands,
            replies: parts.replies,
            connections: Vec::new(),
            awaiting: VecDeque::new(),
            accepted: 0,
            generation: parts.generation,
            interfaces,
            notifier: parts.notifier,
            watchdog: Watchdog::from_environment(),
            rebind: parts.rebind,
            netlink: parts.netlink,
            keeper: parts.keeper,
            hardware_watchdog: parts.watchdog,
            estop: parts.estop,
            latches,
        };
        waiting.into_iter().for_each(|socket| service.admit(socket));
        service
    }

    /// Runs until the real-time thread has ended.
    pub fn run(mut self) -> ExitCode {
        loop {
            self.wait_and_serve();
            self.watch_interfaces();
            self.watch_kernel_stop();
            self.keep_latches();
            self.log_events();
            let (passes, _) = self.verdicts.beat();
            self.estop.pass(passes);
            let now = Nanos::now();
            self.watchdog.feed(&self.notifier, passes, now);
            if let Some(watchdog) = &mut self.hardware_watchdog {
                watchdog.feed(&self.notifier, passes, now);
            }
            if let Some(code) = self.take_replies() {
                self.log_events();
                self.latches.end(&self.verdicts, &self.notifier);
                if let Some(watchdog) = &mut self.hardware_watchdog {
                    watchdog.end(&self.notifier);
                }
                // One that systemd keeps is found again by the next supervisor; it goes when the service is stopped.
                if let Some(path) = &self.path {
                    let _ = std::fs::remove_file(path);
                }
                return code;
            }
        }
    }

    fn wait_and_serve(&mut self) {
        let room = self.connections.len() < MOST_CONNECTIONS;
        let mut fds: Vec<PollFd> =
            self.connections.iter().map(|c| PollFd::new(c.socket.as_fd(), PollFlags::POLLIN)).collect();
        if room {
            fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        }
        if poll(&mut fds, PollTimeout::from(PASS)).is_err() {
            return;
        }
        let ready: Vec<bool> =
            fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect();
        let incoming = room && ready.last().copied().unwrap_or(false);
        let present = self.connections.len();
        for ready in ready.into_iter().take(present) {
            // Taken out while it is served, so that the others can be looked at.
            let mut connection = self.connections.remove(0);
            connection.idle += 1;
            let keep = if ready { self.serve(&mut connection) } else { patience(&connection) };
            if keep == Keep::Yes {
                self.connections.push(connection);
            }
        }
        if incoming {
            self.welcome();
        }
    }

    fn welcome(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let Ok(raw) = accept4(self.listener.as_raw_fd(), flags) else { return };
        self.admit(sys::own(raw));
    }

    fn admit(&mut self, socket: OwnedFd) {
        let pid = getsockopt(&socket, PeerCredentials).map_or(0, |peer| peer.pid());
        let pid = u32::try_from(pid).unwrap_or(0);
        self.accepted += 1;
        self.connections.push(Connection { serial: self.accepted, socket, pid, stage: Stage::New, idle: 0 });
    }

    /// Takes one message and answers it.
    fn serve(&mut self, connection: &mut Connection) -> Keep {
        connection.idle = 0;
        let (message, _) = match receive(connection.socket.as_fd()) {
            Ok(Some(received)) => received,
            Ok(None) => return self.hang_up(connection),
            Err(error) => {
                let _ = refuse(connection, &format!("{error}; are both programs of one version?"));
                return self.hang_up(connection);
            }
        };
        match (message, &connection.stage) {
            (Message::Attach { layout, config }, Stage::New) => self.offer(connection, layout, config),
            (Message::Observe { layout }, Stage::New) => self.show(connection, layout),
            (Message::Estop, Stage::New) => self.command(connection, Command::Estop),
            // Who gave up waiting was told that nothing was reset, and may be standing beside the robot.
            (Message::Reset { .. }, Stage::New) if has_hung_up(connection) => Keep::No,
            (Message::Reset { trip }, Stage::New) => self.command(connection, Command::Reset { trip }),
            (Message::Mapped, Stage::Offered { .. }) => self.attach(connection),
            _ => {
                let _ = refuse(connection, "that message makes no sense at this point");
                self.hang_up(connection)
            }
        }
    }

    /// A front that is no longer connected is no longer trusted, even while its process lives.
    fn hang_up(&mut self, connection: &Connection) -> Keep {
        if matches!(connection.stage, Stage::Front | Stage::Attaching) {
            // Should the queue be full, the front's own beats decide.
            let _ = self.commands.push(Command::Detach);
        }
        Keep::No
    }

    /// Whether a front is attached or about to be, other than through this connection.
    fn front_is_taken(&self) -> bool {
        let (_, pid) = self.verdicts.front();
        pid != 0 || self.connections.iter().any(|c| matches!(c.stage, Stage::Attaching))
    }

    fn offer(&mut self, connection: &mut Connection, layout: u64, config: u64) -> Keep {
        if layout != layout_hash() {
            return refuse(
                connection,
                "the shared-memory layouts differ: front and supervisor are of different versions; install \
                 both from one package",
            );
        }
        if config != self.config.hash {
            return refuse(
                connection,
                &format!(
                    "the configuration differs from the one this supervisor started with ({}); restart the \
                     supervisor, or start the front with the same file",
                    self.config.path.display()
                ),
            );
        }
        let (_, front) = self.verdicts.front();
        let attaching = self.connections.iter().any(|other| matches!(other.stage, Stage::Attaching));
        if front != 0 || attaching {
            return refuse(
                connection,
                &format!("another front is attached (process {front}); stop it first"),
            );
        }
        if connection.pid == 0 {
            return refuse(
                connection,
                "the process id of the front is not visible here (another namespace?)",
            );
        }
        self.generation.0 += 1;
        let words = BeatLayout::new(self.capacity).words();
        let beats = match shm_proto::memory::create("lanyard-beats", words) {
            Ok(beats) => beats,
            Err(error) => return refuse(connection, &format!("no shared memory: {error}")),
        };
        let offer = Message::Offer { generation: self.generation, capacity: self.capacity };
        let fds = [beats.as_fd(), self.verdicts_fd.as_fd()];
        if send(connection.socket.as_fd(), &offer, &fds).is_err() {
            return Keep::No;
        }
        connection.stage = Stage::Offered { beats, generation: self.generation };
        Keep::Yes
    }

    fn refuse_second(&self, connection: &Connection) -> Keep {
        let (_, pid) = self.verdicts.front();
        refuse(connection, &format!("another front is attached (process {pid}); stop it first"))
    }

    /// The front has mapped: from now on nobody may map for writing or resize.
    fn attach(&mut self, connection: &mut Connection) -> Keep {
        // Two may have been offered a segment; the first to map it is the front.
        if self.front_is_taken() {
            return self.refuse_second(connection);
        }
        let Stage::Offered { beats, generation } = std::mem::replace(&mut connection.stage, Stage::Attaching)
        else {
            return Keep::No;
        };
        let view = shm_proto::memory::seal(beats.as_fd())
            .and_then(|()| BeatView::map(beats.as_fd(), self.capacity, generation));
        let process = sys::pidfd_open(connection.pid);
        let (view, pidfd) = match (view, process) {
            (Ok(view), Ok(pidfd)) => (view, pidfd),
            (Err(error), _) | (_, Err(error)) => {
                return refuse(connection, &format!("the hand-over failed: {error}"));
            }
        };
        self.command(connection, Command::Attach { view, pid: connection.pid, pidfd })
    }

    fn show(&self, connection: &mut Connection, layout: u64) -> Keep {
        if layout != layout_hash() {
            return refuse(
                connection,
                "the shared-memory layouts differ: this program and the supervisor are of different versions",
            );
        }
        let view = Message::View { capacity: self.capacity };
        // Whatever comes of it, there is nothing more to say.
        let _ = send(connection.socket.as_fd(), &view, &[self.verdicts_fd.as_fd()]);
        Keep::No
    }

    fn command(&mut self, connection: &mut Connection, command: Command) -> Keep {
        if !matches!(connection.stage, Stage::Attaching) {
            connection.stage = Stage::Commanded;
        }
        if self.commands.push(command).is_err() {
            return refuse(connection, "the real-time thread does not take commands; see `lanyard status`");
        }
        self.awaiting.push_back(connection.serial);
        Keep::Yes
    }

    /// Hands the real-time thread's answers on; `Some` when it has ended.
    fn take_replies(&mut self) -> Option<ExitCode> {
        while let Ok(reply) = self.replies.pop() {
            match reply {
                Reply::Attached => self.answer(&Message::Armed),
                Reply::Stopped { trip } => self.answer(&Message::Done { trip }),
                Reply::Reset { trip, outcome: Ok(()) } => self.answer(&Message::Done { trip }),
                Reply::Reset { trip, outcome: Err(why) } => {
                    self.answer(&Message::Refused(format!("trip {trip}: {why}")));
                }
                Reply::FrontGone => self.connections.retain(|c| !matches!(c.stage, Stage::Front)),
                Reply::Retired(retired) => drop(retired),
                Reply::Ended { at_rest: true } => {
                    log::line("every motor is proven to stand still; bye");
                    self.keeper.end(Rest::Proven);
                    return Some(ExitCode::SUCCESS);
                }
                Reply::Ended { at_rest: false } => {
                    log::line("WARNING: not every motor was proven to stand still; stop frames were sent");
                    self.keeper.end(Rest::Unproven);
                    return Some(ExitCode::FAILURE);
                }
            }
        }
        None
    }

    fn answer(&mut self, message: &Message) {
        let Some(waiting) = self.awaiting.pop_front() else { return };
        let Some(at) = self.connections.iter().position(|c| c.serial == waiting) else { return };
        let connection = &mut self.connections[at];
        let sent = send(connection.socket.as_fd(), message, &[]);
        match (&connection.stage, sent) {
            (Stage::Attaching, Ok(())) => connection.stage = Stage::Front,
            _ => {
                self.connections.remove(at);
            }
        }
    }

    /// Tells the real-time thread how the interfaces are whenever that has changed.
    fn watch_interfaces(&mut self) {
        for bus in 0..self.interfaces.len() {
            let (before, mut seen) = (self.interfaces[bus], self.look_at(bus));
            if seen.health == BusHealth::Down {
                // The sockets change over to a new interface when it is up, not when it appears.
                seen.number = before.number;
            }
            // What the real-time thread has found out by itself counts until the interface is looked at.
            let believed = self.verdicts.bus(bus).map(|verdict| verdict.health);
            // A driver that does not tell contradicts nobody, but for an interface that is up again.
            let agrees = believed == Some(seen.health)
                || (seen.health == BusHealth::Unknown && believed != Some(BusHealth::Down));
            let is_deaf = seen.health != BusHealth::Down
                && seen.number.is_some_and(|number| !self.rebind.is_bound(bus, number));
            if before == seen && agrees && !is_deaf {
                continue;
            }
            self.interfaces[bus] = seen;
            if (seen.number != before.number || is_deaf)
                && let Some(number) = seen.number
                && let Err(error) =
                    self.rebind.rebind(bus, number).and_then(|()| self.keeper.rebind(bus, number))
            {
                let name = &self.config.buses[bus].interface;
                log::line(&format!("interface \"{name}\" is back, but cannot be used: {error}"));
                self.interfaces[bus] = Interface::GONE;
                continue;
            }
            let Interface { health, counters, .. } = seen;
            if self.commands.push(Command::Bus { bus, health, counters }).is_err() {
                self.interfaces[bus] = before;
                continue;
            }
            if health == BusHealth::BusOff && before.health != health {
                let name = &self.config.buses[bus].interface;
                log::line(&format!(
                    "interface \"{name}\" is bus-off: the controller has left the bus. Look for a short or a \
                     wrong bit rate, then: ip link set {name} type can restart (or set restart-ms)"
                ));
            }
        }
    }

    fn look_at(&self, bus: usize) -> Interface {
        let name = &self.config.buses[bus].interface;
        match self.netlink.look_at(name) {
            Ok(Some(Link { number, health, counters, .. })) => {
                Interface { number: Some(number), health, counters }
            }
            // Not to know is no reason to stop: sending tells, too.
            Err(_) => self.interfaces[bus],
            Ok(None) => Interface::GONE,
        }
    }

    fn watch_kernel_stop(&mut self) {
        let bits = self.keeper.pass(&self.verdicts);
        if bits != 0 {
            // Should the queue be full, the log has it.
            let _ = self.commands.push(Command::Degraded { bits });
        }
    }

    fn keep_latches(&mut self) {
        if let Some(kept) = self.latches.pass(&self.verdicts, Nanos::now())
            && self.commands.push(Command::Latches(kept)).is_err()
        {
            self.latches.was_not_heard();
        }
    }

    fn log_events(&mut self) {
        let newest = self.verdicts.event_count();
        let view = &self.verdicts;
        for (number, event) in view.events() {
            if number > self.logged {
                log::line(&(describe(view, &event) + &faults(view, &event, &self.config)));
                if event.kind == EventKind::Armed {
                    self.notifier.say("READY=1");
                    self.notifier.say("STATUS=Armed");
                }
            }
        }
        self.logged = newest;
    }
}

/// Whether the other side has closed the connection; what it said before can still be read.
fn has_hung_up(connection: &Connection) -> bool {
    let mut fds = [PollFd::new(connection.socket.as_fd(), PollFlags::POLLIN)];
    let ended = PollFlags::POLLHUP | PollFlags::POLLERR;
    poll(&mut fds, PollTimeout::ZERO).is_err()
        || fds[0].revents().is_none_or(|events| events.intersects(ended))
}

fn patience(connection: &Connection) -> Keep {
    match connection.stage {
        Stage::Front => Keep::Yes,
        _ if connection.idle > PATIENCE => Keep::No,
        _ => Keep::Yes,
    }
}

fn refuse(connection: &Connection, why: &str) -> Keep {
    log::line(&format!("refused process {}: {why}", connection.pid));
    let _ = send(connection.socket.as_fd(), &Message::Refused(why.to_owned()), &[]);
    Keep::No
}

/// For a trip because of a drive: what its motors' drives say of themselves, in their own words.
fn faults(view: &VerdictView, event: &Event, config: &Config) -> String {
    if event.kind != EventKind::Trip || event.reason != Some(Reason::DriveFault) {
        return String::new();
    }
    let words = event.motors.iter().filter_map(|motor| {
        let fault = u32::try_from(view.motor(motor)?.fault).ok().filter(|fault| *fault != 0)?;
        let known = config.motors.get(usize::from(motor.0))?;
        Some(format!("; {}: {}", known.name, known.drive.explain(Fault(fault))))
    });
    words.collect()
}

/// One line about an event.
fn describe(view: &VerdictView, event: &Event) -> String {
    let names: Vec<String> = event.motors.iter().map(|motor| view.motor_name(motor)).collect();
    let motors = if names.is_empty() { "no motor".to_owned() } else { names.join(", ") };
    let reason = event.reason.map_or("", |reason| reason.name());
    let session = if event.session.0 == 0 { String::new() } else { format!(" {}", event.session) };
    match event.kind {
        EventKind::Trip => format!("trip {}: {reason}{session}: stopped {motors}", event.trip),
        EventKind::EndedAtRest => format!("no trip: {reason}{session}: at rest already: {motors}"),
        EventKind::Reset => format!("trip {} reset by operator: {motors}", event.trip),
        EventKind::FrontAttached => {
            let (generation, pid) = view.front();
            format!("front attached: process {pid}, generation {}", generation.0)
        }
        EventKind::Armed => "armed".to_owned(),
        EventKind::Disbelieved => {
            let concerned = |bus: &usize| view.bus(*bus).is_some_and(|verdict| verdict.disbelieved > 0);
            let buses: Vec<_> =
                (0..view.bus_count()).filter(concerned).map(|bus| view.bus_name(bus)).collect();
            format!(
                "WARNING: feedback on bus {} comes from a program of this computer and is not believed, so nothing is proven \
                 or granted by it: set local_drives = true in its [[bus]] if the drives are simulated here; if they are real, \
                 that program forges what they say",
                buses.join(", ")
            )
        }
        kind if event.trip == TripId::NONE => format!("{}: {motors}", kind.name()),
        kind => format!("{}: {motors} (trip {}, {reason})", kind.name(), event.trip),
    }
}
