//! One door: its connections, what they may ask for, and the thread that serves them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use config::Config;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockFlag, accept4, getsockopt, sockopt::PeerCredentials};
use shm_proto::handover::{Message, receive, send};
use shm_proto::layout::layout_hash;
use shm_proto::{Generation, Nanos, VerdictView};

use super::Visitor;
use super::listener::Listener;
use crate::queue::{Command, Reply, Requester};
use crate::{log, sys};

/// How often a door looks for answers of the real-time thread while anybody may wait for one, milliseconds.
const BUSY_PASS_MS: u16 = 50;
/// How often it comes round else, milliseconds: a front that is gone may still leave something to release.
const IDLE_PASS_MS: u16 = 1_000;
/// Connections held at once: one front, or a few people with `lanyard`. For more the one that is silent for longest is closed.
const MAX_CONNECTIONS: usize = 32;
/// How long a connection may say nothing before it is closed, unless it is the front's, nanoseconds.
const SILENCE_NS: u64 = 10_000_000_000;

/// What a connection is waiting for.
#[derive(Debug)]
pub(super) enum Stage {
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

/// A process at the door.
#[derive(Debug)]
pub(super) struct Connection {
    serial: u64,
    pub(super) socket: OwnedFd,
    pub(super) pid: u32,
    pub(super) stage: Stage,
    heard: Nanos,
}

impl Connection {
    /// Whether it keeps the door waiting: nothing is under way for it.
    const fn is_silent(&self) -> bool {
        match self.stage {
            Stage::New | Stage::Offered { .. } => true,
            Stage::Attaching | Stage::Front | Stage::Commanded => false,
        }
    }
}

/// Whether a connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Yes,
    No,
}

/// Everything the thread of a door owns.
#[derive(Debug)]
pub struct Door {
    visitor: Visitor,
    pub(super) config: Arc<Config>,
    listener: OwnedFd,
    pub(super) verdicts_fd: OwnedFd,
    pub(super) verdicts: Arc<VerdictView>,
    requester: Requester,
    pub(super) connections: Vec<Connection>,
    /// Connections whose command the real-time thread has yet to answer, in order: it answers in order.
    awaiting: VecDeque<u64>,
    accepted: u64,
    /// The last hand-over to a front: the next has a higher number.
    pub(super) generation: Generation,
}

/// What a door is given to work with.
#[derive(Debug)]
pub struct Parts {
    /// The kind of process that comes.
    pub visitor: Visitor,
    /// The configuration.
    pub config: Arc<Config>,
    /// The bound socket, and the connections that wait there.
    pub listener: Listener,
    /// The verdict segment, for handing out.
    pub verdicts_fd: OwnedFd,
    /// The same, for reading.
    pub verdicts: Arc<VerdictView>,
    /// To the real-time thread.
    pub requester: Requester,
    /// The last hand-over to a front of the supervisor before.
    pub generation: Generation,
}

impl Door {
    /// Makes a door of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Listener { socket, waiting, .. } = parts.listener;
        let mut door = Self {
            visitor: parts.visitor,
            config: parts.config,
            listener: socket,
            verdicts_fd: parts.verdicts_fd,
            verdicts: parts.verdicts,
            requester: parts.requester,
            connections: Vec::new(),
            awaiting: VecDeque::new(),
            accepted: 0,
            generation: parts.generation,
        };
        let now = Nanos::now();
        waiting.into_iter().for_each(|socket| door.admit(socket, now));
        door
    }

    /// Serves until the process ends.
    pub fn run(mut self) -> Infallible {
        loop {
            self.pass();
        }
    }

    /// Waits for somebody to come or to say something, and serves them.
    fn pass(&mut self) {
        let is_quiet = self.connections.iter().all(|c| matches!(c.stage, Stage::Front));
        let timeout = if is_quiet { IDLE_PASS_MS } else { BUSY_PASS_MS };
        let mut fds: Vec<PollFd> =
            self.connections.iter().map(|c| PollFd::new(c.socket.as_fd(), PollFlags::POLLIN)).collect();
        fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        // A wait that a signal has ended is over early, and nothing else.
        let _ = poll(&mut fds, PollTimeout::from(timeout));
        let ready: Vec<bool> =
            fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect();
        let now = Nanos::now();
        let (incoming, present) = (ready.last() == Some(&true), self.connections.len());
        for ready in ready.into_iter().take(present) {
            // Taken out while it is served, so that the others can be looked at.
            let mut connection = self.connections.remove(0);
            let keep = if ready { self.serve(&mut connection, now) } else { patience(&connection, now) };
            if keep == Keep::Yes {
                self.connections.push(connection);
            }
        }
        if incoming {
            self.welcome(now);
        }
        self.take_replies();
    }

    /// Accepts everybody who waits, up to a full house.
    fn welcome(&mut self, now: Nanos) {
        for _ in 0..MAX_CONNECTIONS {
            let Ok(raw) = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) else { return };
            self.admit(sys::own(raw), now);
        }
    }

    /// Takes a connection in. In a full house the one that has been silent for longest makes room: people who come to
    /// say something say it at once.
    fn admit(&mut self, socket: OwnedFd, now: Nanos) {
        if self.connections.len() >= MAX_CONNECTIONS {
            let silent = self.connections.iter().enumerate().filter(|(_, other)| other.is_silent());
            let oldest = silent.min_by_key(|(_, other)| (other.heard, other.serial)).map(|(place, _)| place);
            // Without one they are all being answered, within a few passes.
            let Some(oldest) = oldest else { return };
            self.connections.remove(oldest);
        }
        let pid = getsockopt(&socket, PeerCredentials).map_or(0, |peer| peer.pid());
        let pid = u32::try_from(pid).unwrap_or(0);
        self.accepted += 1;
        let serial = self.accepted;
        self.connections.push(Connection { serial, socket, pid, stage: Stage::New, heard: now });
    }

    /// Takes one message and answers it.
    fn serve(&mut self, connection: &mut Connection, now: Nanos) -> Keep {
        connection.heard = now;
        let (message, _) = match receive(connection.socket.as_fd()) {
            Ok(Some(received)) => received,
            Ok(None) => return self.hang_up(connection),
            Err(error) => {
                let _ = refuse(connection, &format!("{error}; are both programs of one version?"));
                return self.hang_up(connection);
            }
        };
        match (message, self.visitor, &connection.stage) {
            (Message::Estop, _, Stage::New) => self.command(connection, Command::Estop),
            (Message::Attach { layout, config }, Visitor::Front, Stage::New) => {
                self.offer(connection, layout, config)
            }
            (Message::Mapped, Visitor::Front, Stage::Offered { .. }) => self.attach(connection),
            (Message::Observe { layout }, Visitor::Looker | Visitor::Operator, Stage::New) => {
                self.show(connection, layout)
            }
            // An operator who gave up waiting was told that nothing was reset, and may be standing beside the robot.
            (Message::Reset { .. }, Visitor::Operator, Stage::New) if has_hung_up(connection) => Keep::No,
            (Message::Reset { seen }, Visitor::Operator, Stage::New) => {
                self.command(connection, Command::Reset { seen })
            }
            (message, _, Stage::New) if let Some(visitor) = visitor_of(&message) => {
                refuse(connection, &self.elsewhere(visitor))
            }
            _ => {
                let _ = refuse(connection, "that message makes no sense at this point");
                self.hang_up(connection)
            }
        }
    }

    /// Says at which door a message is taken.
    fn elsewhere(&self, visitor: Visitor) -> String {
        let path = visitor.path(&self.config).display();
        let group = visitor.group(&self.config).unwrap_or(&self.config.supervisor.user);
        match visitor {
            Visitor::Front => format!("the front attaches at {path} (group {group}), not here"),
            Visitor::Looker => format!("the verdicts are shown at {path} (group {group}), not here"),
            Visitor::Operator => {
                format!("trips are reset at {path} (group {group}), not here: lanyard reset TRIP")
            }
        }
    }

    /// A front that is no longer connected is no longer trusted, even while its process lives.
    fn hang_up(&mut self, connection: &Connection) -> Keep {
        if matches!(connection.stage, Stage::Front | Stage::Attaching) {
            // Should the queue be full, the front's own beats decide.
            let _ = self.requester.commands.push(Command::Detach);
        }
        Keep::No
    }

    fn show(&self, connection: &Connection, layout: u64) -> Keep {
        if layout != layout_hash() {
            return refuse(
                connection,
                "the shared-memory layouts differ: this program and the supervisor are of different versions",
            );
        }
        let view = Message::View { capacity: self.config.supervisor.capacity };
        // Whatever comes of it, there is nothing more to say.
        let _ = send(connection.socket.as_fd(), &view, &[self.verdicts_fd.as_fd()]);
        Keep::No
    }

    pub(super) fn command(&mut self, connection: &mut Connection, command: Command) -> Keep {
        if !matches!(connection.stage, Stage::Attaching) {
            connection.stage = Stage::Commanded;
        }
        if self.requester.commands.push(command).is_err() {
            return refuse(connection, "the real-time thread does not take commands; see `lanyard status`");
        }
        self.awaiting.push_back(connection.serial);
        Keep::Yes
    }

    /// Hands the real-time thread's answers on.
    fn take_replies(&mut self) {
        while let Ok(reply) = self.requester.replies.pop() {
            match reply {
                Reply::Attached => self.answer(&Message::Armed),
                Reply::Stopped { trip } => self.answer(&Message::Done { trip }),
                Reply::Reset { trip, outcome: Ok(()) } => self.answer(&Message::Done { trip }),
                Reply::Reset { trip, outcome: Err(why) } => {
                    self.answer(&Message::Refused(format!("trip {trip}: {why}")));
                }
                Reply::FrontGone => self.connections.retain(|c| !matches!(c.stage, Stage::Front)),
                Reply::Retired(retired) => drop(retired),
                // Said to housekeeping only, which ends the process.
                Reply::Ended { .. } => {}
            }
        }
    }

    fn answer(&mut self, message: &Message) {
        let Some(waiting) = self.awaiting.pop_front() else { return };
        let Some(at) = self.connections.iter().position(|c| c.serial == waiting) else { return };
        let connection = &mut self.connections[at];
        let sent = send(connection.socket.as_fd(), message, &[]);
        match (&connection.stage, sent) {
            (Stage::Attaching, Ok(())) => connection.stage = Stage::Front,
            _ => {
                let gone = self.connections.remove(at);
                self.hang_up(&gone);
            }
        }
    }
}

/// The door at which a first message is taken; `None` for one that is none.
const fn visitor_of(message: &Message) -> Option<Visitor> {
    match message {
        Message::Attach { .. } => Some(Visitor::Front),
        Message::Observe { .. } => Some(Visitor::Looker),
        Message::Reset { .. } => Some(Visitor::Operator),
        Message::Estop
        | Message::Mapped
        | Message::Offer { .. }
        | Message::View { .. }
        | Message::Armed
        | Message::Done { .. }
        | Message::Refused(_) => None,
    }
}

/// Whether the other side has closed the connection; what it said before can still be read.
fn has_hung_up(connection: &Connection) -> bool {
    let mut fds = [PollFd::new(connection.socket.as_fd(), PollFlags::POLLIN)];
    let ended = PollFlags::POLLHUP | PollFlags::POLLERR;
    poll(&mut fds, PollTimeout::ZERO).is_err()
        || fds[0].revents().is_none_or(|events| events.intersects(ended))
}

fn patience(connection: &Connection, now: Nanos) -> Keep {
    match connection.stage {
        Stage::Front => Keep::Yes,
        _ if now.since(connection.heard) > SILENCE_NS => Keep::No,
        _ => Keep::Yes,
    }
}

pub(super) fn refuse(connection: &Connection, why: &str) -> Keep {
    log::line(&format!("refused process {}: {why}", connection.pid));
    let _ = send(connection.socket.as_fd(), &Message::Refused(why.to_owned()), &[]);
    Keep::No
}
