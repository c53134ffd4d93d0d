//! What outlives the supervisor: who else holds the sockets of the kernel-armed stop and the verdicts, and until when.
//!
//! What lives here: the order in which the holder process and systemd's store get the sockets before arming,
//! and in which those of a supervisor that died are let go after it: at no moment is nothing armed. The same two keep
//! the verdict segment, so that the next supervisor knows what the one before has left open. What
//! must never: the jobs themselves, which are the real-time thread's alone ([`crate::kernel_stop`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::Config;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use shm_proto::verdicts::{Counter, Degraded, Phase, Remains};
use shm_proto::{Nanos, VerdictView};

use crate::holder::{self, Duties, Heard, Place, Word};
use crate::inheritance::{self, Found};
use crate::kernel_stop::KernelStop;
use crate::notify::{self, Notifier};
use crate::privileges::Become;
use crate::{log, sys};

/// What the sockets are called in systemd's store; a number follows.
const SOCKETS: &str = "kernel-stop";
/// What the verdict segment is called there; a number follows.
const VERDICTS: &str = "verdicts";
/// Passes of housekeeping (50 ms) that the holder of the supervisor before may take to let go: 2 s.
const PATIENCE: u32 = 40;

/// The holder of a supervisor that died.
#[derive(Debug)]
enum Predecessor {
    /// There is none, or it has let go.
    None,
    /// It holds, and is to until our jobs are armed.
    Holds(OwnedFd),
    /// It was told to let go that many passes ago.
    Told(OwnedFd, u32),
}

/// Descriptors that systemd is to keep.
#[derive(Debug)]
struct Deposit {
    /// What they are called there; a number follows.
    name: &'static str,
    fds: Vec<OwnedFd>,
    /// The whole name, once systemd took them.
    stored: Option<String>,
}

impl Deposit {
    const fn new(name: &'static str, fds: Vec<OwnedFd>) -> Self {
        Self { name, fds, stored: None }
    }

    /// Gives them to systemd, under a name that none of the old ones has: those go by name later. A busy systemd is
    /// asked again in the next pass.
    fn store(&mut self, notifier: &Notifier, kept: &[(String, OwnedFd)]) {
        if self.stored.is_some() || self.fds.is_empty() || !notifier.is_there() {
            return;
        }
        let names = (0..).map(|number: u32| format!("{}-{number}", self.name));
        let free = |name: &String| !kept.iter().any(|(old, _)| old == name);
        let Some(name) = names.into_iter().find(free) else { return };
        if notifier.store(&name, &self.fds).is_ok() {
            self.stored = Some(name);
        }
    }
}

/// Everything housekeeping owns of what outlives the supervisor.
#[derive(Debug)]
pub struct Keeper {
    /// Second descriptors of the sockets, by bus.
    sockets: Deposit,
    /// The verdict segment. systemd keeps it over a clean end, too: trips stay open until they are reset.
    verdicts: Deposit,
    holder: Option<OwnedFd>,
    path: PathBuf,
    predecessor: Predecessor,
    notifier: Notifier,
    /// What systemd had kept of the supervisor before, with its names.
    kept: Vec<(String, OwnedFd)>,
}

/// How the supervisor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Every motor is proven to stand still.
    Proven,
    /// Not every one.
    Unproven,
}

/// What is ready before arming.
#[derive(Debug)]
pub struct Prepared {
    /// For the real-time thread.
    pub kernel_stop: KernelStop,
    /// For housekeeping.
    pub keeper: Keeper,
    /// What the supervisor before has left behind.
    pub found: Found,
    /// What the system refused, as a sum of [`Degraded`] bits.
    pub degraded: u64,
}

/// Opens the sockets and splits off the holder. To be called before there is any thread, and after the
/// hand-over socket is bound: where that can be had, no other supervisor lives. What fails is said and flagged,
/// and keeps nothing else from starting.
#[must_use]
pub fn prepare(config: &Config, whom: Become, verdicts: OwnedFd) -> Prepared {
    let mut degraded = 0;
    let mut flag = |problem: String| {
        log::line(&format!("WARNING: degraded: {problem}"));
        degraded = Degraded::KernelStop.number();
    };
    let kept = notify::kept_for_us(|name| [SOCKETS, VERDICTS].iter().any(|ours| name.starts_with(ours)));
    let notifier = Notifier::from_environment();
    let kernel_stop = KernelStop::open(config).unwrap_or_else(|problem| {
        flag(format!("the kernel will not stop the motors if this supervisor hangs or is killed: {problem}"));
        KernelStop::none()
    });
    let path = beside(&config.supervisor.socket, ".holder");
    let predecessor = predecessor(&path);
    let left = left_behind(&kept, &predecessor);
    let was_armed = matches!(predecessor, Predecessor::Holds(_)) || !kept.is_empty();
    let read = |fd: &OwnedFd| Remains::read(fd.as_fd(), Nanos::now());
    let found = match inheritance::newest(left.iter().map(read).collect()) {
        Some(remains) => Found::Left(remains),
        None if was_armed && left.is_empty() => Found::ArmedOnly,
        None => Found::Nothing,
    };
    let mut keeper = Keeper {
        sockets: Deposit::new(SOCKETS, Vec::new()),
        verdicts: Deposit::new(VERDICTS, vec![verdicts]),
        holder: None,
        path,
        predecessor,
        notifier,
        kept,
    };
    if !kernel_stop.is_empty()
        && let Err(error) =
            keeper.split_off(&kernel_stop, left, whom, &beside(&config.supervisor.socket, ".holder~"))
    {
        flag(format!(
            "there is no second process that holds the kernel-armed stop ({error}): the kernel stops the motors \
             if this supervisor hangs, but not if it is killed. The folder of [supervisor] socket must be \
             writable and its path shorter than 100 bytes; the kernel must be 5.9 or newer"
        ));
    }
    Prepared { kernel_stop, keeper, found, degraded }
}

/// The path with something more at its end.
fn beside(socket: &Path, end: &str) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(end);
    path.into()
}

fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// Finds the holder of a supervisor that died.
fn predecessor(path: &Path) -> Predecessor {
    let call = || -> io::Result<OwnedFd> {
        let socket = packet_socket()?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(socket)
    };
    match call() {
        Ok(socket) => {
            log::line(
                "the supervisor before this one died while armed: the kernel sends its stops until this one is \
                 armed",
            );
            Predecessor::Holds(socket)
        }
        // None was ever there, or it ended, or was killed.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ECONNREFUSED)) => {
            Predecessor::None
        }
        Err(error) => {
            log::line(&format!(
                "WARNING: the holder of the supervisor before this one cannot be reached at {} ({error}): the \
                 kernel may go on sending its stops. Start this supervisor as the same user, or kill the \
                 process lanyard-holder",
                path.display()
            ));
            Predecessor::None
        }
    }
}

/// What supervisors that died had published, as systemd or else the holder has it. The holder has what counts until
/// its own supervisor has begun, too.
fn left_behind(kept: &[(String, OwnedFd)], predecessor: &Predecessor) -> Vec<OwnedFd> {
    let ours = kept.iter().filter(|(name, _)| name.starts_with(VERDICTS));
    let stored: Vec<OwnedFd> = ours.filter_map(|(_, fd)| fd.try_clone().ok()).collect();
    match predecessor {
        Predecessor::Holds(holder) if stored.is_empty() => holder::ask_for_verdicts(holder.as_fd())
            .unwrap_or_else(|error| {
                log::line(&format!(
                    "WARNING: the holder does not hand out what the dead supervisor left: {error}"
                ));
                Vec::new()
            }),
        _ => stored,
    }
}

/// A listening socket for the user alone.
fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = packet_socket()?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    listen(&listener, Backlog::new(1)?)?;
    Ok(listener)
}

impl Keeper {
    /// Nothing to keep: for a benchmark, or wherever the kernel has no CAN.
    #[must_use]
    pub fn without_jobs() -> Self {
        Self {
            sockets: Deposit::new(SOCKETS, Vec::new()),
            verdicts: Deposit::new(VERDICTS, Vec::new()),
            holder: None,
            path: PathBuf::new(),
            predecessor: Predecessor::None,
            notifier: Notifier::from_environment(),
            kept: Vec::new(),
        }
    }

    /// The holder listens at `place` until it is armed: until then the old path leads to the one before it.
    fn split_off(
        &mut self,
        jobs: &KernelStop,
        left: Vec<OwnedFd>,
        whom: Become,
        place: &Path,
    ) -> io::Result<()> {
        self.sockets.fds = jobs.duplicate()?;
        let mut verdicts =
            self.verdicts.fds.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
        verdicts.extend(left);
        let predecessor = match &self.predecessor {
            Predecessor::Holds(socket) => Some(socket.try_clone()?),
            Predecessor::None | Predecessor::Told(..) => None,
        };
        let duties = Duties {
            held: jobs.spares()?,
            verdicts,
            listener: listen_at(place)?,
            predecessor,
            whom,
            place: if self.notifier.is_there() { Place::Service } else { Place::Alone },
        };
        self.holder = Some(holder::start(duties)?);
        Ok(())
    }

    /// To be called right before arming, as the last thing that can be undone: from now on the holder holds,
    /// and is found where the one before it was.
    pub fn hold(&mut self) {
        if let Some(holder) = &self.holder {
            // One that has ended is noticed in the first pass.
            let _ = holder::say(holder.as_fd(), Word::Hold);
            if let Err(error) = std::fs::rename(beside(&self.path, "~"), &self.path) {
                log::line(&format!("WARNING: {}: {error}", self.path.display()));
            }
        }
        self.store();
    }

    /// Gives systemd what it does not have yet.
    fn store(&mut self) {
        self.sockets.store(&self.notifier, &self.kept);
        self.verdicts.store(&self.notifier, &self.kept);
    }

    /// One pass of housekeeping. Returns what is newly refused, as a sum of [`Degraded`] bits.
    pub fn pass(&mut self, verdicts: &VerdictView) -> u64 {
        self.store();
        if self.is_armed(verdicts) {
            self.let_go();
        }
        self.watch_holder()
    }

    fn is_armed(&self, verdicts: &VerdictView) -> bool {
        let armed = matches!(verdicts.phase(), Some(Phase::Armed | Phase::Stopping));
        // Without jobs of our own the old ones go all the same: the core now stops what must be stopped, and
        // nothing could ever be driven against them.
        armed && (self.sockets.fds.is_empty() || verdicts.counter(Counter::KernelStopRearms) > 0)
    }

    /// Lets go of what the supervisor before had armed.
    fn let_go(&mut self) {
        for (name, socket) in std::mem::take(&mut self.kept) {
            self.notifier.forget(&name);
            drop(socket);
        }
        self.predecessor = match std::mem::replace(&mut self.predecessor, Predecessor::None) {
            Predecessor::None => Predecessor::None,
            Predecessor::Holds(socket) => {
                // One that has ended is heard below, in the next pass.
                let _ = holder::say(socket.as_fd(), Word::LetGo);
                Predecessor::Told(socket, 0)
            }
            Predecessor::Told(socket, passes) => told(socket, passes),
        };
    }

    fn watch_holder(&mut self) -> u64 {
        let Some(holder) = &self.holder else { return 0 };
        if holder::hear(holder.as_fd()) != Heard::End {
            return 0;
        }
        self.holder = None;
        let (what, degraded) = match self.sockets.stored {
            Some(_) => ("systemd still holds it, if the service has FileDescriptorStoreMax=", 0),
            None => ("the kernel would not stop the motors", Degraded::KernelStop.number()),
        };
        log::line(&format!(
            "WARNING: the process lanyard-holder has ended. If this supervisor is killed now, {what}. Restart it \
             when the robot stands still"
        ));
        degraded
    }

    /// Connects the socket of a bus to the interface with that number: the one it had is gone, and with it its
    /// jobs.
    ///
    /// # Errors
    ///
    /// When it is no CAN interface, or gone again.
    pub fn rebind(&self, bus: usize, interface: u32) -> io::Result<()> {
        self.sockets.fds.get(bus).map_or(Ok(()), |socket| reconnect(socket.as_fd(), interface))
    }

    /// The last word: with every motor proven to stand still nothing is held any more, otherwise everything.
    pub fn end(&self, rest: Rest) {
        if self.sockets.fds.is_empty() {
            return;
        }
        if rest == Rest::Unproven {
            log::line(
                "WARNING: the kernel goes on sending stop frames until a supervisor starts again (the process \
                 lanyard-holder, or systemd, keeps them)",
            );
            return;
        }
        if let Some(name) = &self.sockets.stored {
            self.notifier.forget(name);
        }
        if let Some(holder) = &self.holder {
            let _ = holder::say(holder.as_fd(), Word::End);
            // Another user's, if this process has changed over; then it is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn told(socket: OwnedFd, passes: u32) -> Predecessor {
    if holder::hear(socket.as_fd()) == Heard::End {
        log::line("armed, so the kernel's stops of the supervisor before are ended");
        return Predecessor::None;
    }
    if passes == PATIENCE {
        log::line(
            "WARNING: the holder of the supervisor before does not let go: the kernel goes on sending its stops. \
             Kill the older process lanyard-holder",
        );
    }
    Predecessor::Told(socket, passes.saturating_add(1))
}

/// A socket that is connected to an interface which is still there is left as it is.
fn reconnect(socket: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    match sys::connect_can(socket, interface) {
        Err(error) if error.raw_os_error() == Some(libc::EISCONN) => Ok(()),
        other => other,
    }
}
