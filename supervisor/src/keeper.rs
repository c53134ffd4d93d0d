//! Housekeeping of the kernel-armed stop: who else holds its sockets, and until when.
//!
//! What lives here: the order in which the holder process and systemd's store get the sockets before arming,
//! and in which those of a supervisor that died are let go after it: at no moment is nothing armed. What
//! must never: the jobs themselves, which are the real-time thread's alone ([`crate::kernel_stop`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::Config;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use shm_proto::VerdictView;
use shm_proto::verdicts::{Counter, Degraded, Phase};

use crate::holder::{self, Duties, Heard, Place, Word};
use crate::kernel_stop::KernelStop;
use crate::notify::{self, Notifier};
use crate::privileges::Become;
use crate::{log, sys};

/// What the sockets are called in systemd's store; a number follows.
const NAME: &str = "kernel-stop";
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

/// Everything housekeeping owns of the kernel-armed stop.
#[derive(Debug)]
pub struct Keeper {
    /// Second descriptors of the sockets, by bus.
    sockets: Vec<OwnedFd>,
    holder: Option<OwnedFd>,
    path: PathBuf,
    predecessor: Predecessor,
    notifier: Notifier,
    /// Under what systemd has the sockets; `None` until it took them.
    stored: Option<String>,
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
    /// What the system refused, as a sum of [`Degraded`] bits.
    pub degraded: u64,
}

/// Opens the sockets and splits off the holder. To be called before there is any thread, and after the
/// hand-over socket is bound: where that can be had, no other supervisor lives. What fails is said and flagged,
/// and keeps nothing else from starting.
#[must_use]
pub fn prepare(config: &Config, whom: Become) -> Prepared {
    let mut degraded = 0;
    let mut flag = |problem: String| {
        log::line(&format!("WARNING: degraded: {problem}"));
        degraded = Degraded::KernelStop.number();
    };
    let kept = notify::kept_for_us(|name| name.starts_with(NAME));
    let notifier = Notifier::from_environment();
    let kernel_stop = KernelStop::open(config).unwrap_or_else(|problem| {
        flag(format!("the kernel will not stop the motors if this supervisor hangs or is killed: {problem}"));
        KernelStop::none()
    });
    let path = beside(&config.supervisor.socket, ".holder");
    let predecessor = predecessor(&path);
    let mut keeper =
        Keeper { sockets: Vec::new(), holder: None, path, predecessor, notifier, stored: None, kept };
    if !kernel_stop.is_empty()
        && let Err(error) =
            keeper.split_off(&kernel_stop, whom, &beside(&config.supervisor.socket, ".holder~"))
    {
        flag(format!(
            "there is no second process that holds the kernel-armed stop ({error}): the kernel stops the motors \
             if this supervisor hangs, but not if it is killed. The folder of [supervisor] socket must be \
             writable and its path shorter than 100 bytes; the kernel must be 5.9 or newer"
        ));
    }
    Prepared { kernel_stop, keeper, degraded }
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
            sockets: Vec::new(),
            holder: None,
            path: PathBuf::new(),
            predecessor: Predecessor::None,
            notifier: Notifier::from_environment(),
            stored: None,
            kept: Vec::new(),
        }
    }

    /// The holder listens at `place` until it is armed: until then the old path leads to the one before it.
    fn split_off(&mut self, jobs: &KernelStop, whom: Become, place: &Path) -> io::Result<()> {
        self.sockets = jobs.duplicate()?;
        let predecessor = match &self.predecessor {
            Predecessor::Holds(socket) => Some(socket.try_clone()?),
            Predecessor::None | Predecessor::Told(..) => None,
        };
        let duties = Duties {
            held: jobs.duplicate()?,
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

    /// Gives systemd the sockets, under a name that none of its old ones has: those go by name later.
    fn store(&mut self) {
        if self.stored.is_some() || self.sockets.is_empty() || !self.notifier.is_there() {
            return;
        }
        let names = (0..).map(|number: u32| format!("{NAME}-{number}"));
        let free = |name: &String| !self.kept.iter().any(|(old, _)| old == name);
        let Some(name) = names.into_iter().find(free) else { return };
        // A busy systemd is asked again in the next pass.
        if self.notifier.store(&name, &self.sockets).is_ok() {
            self.stored = Some(name);
        }
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
        armed && (self.sockets.is_empty() || verdicts.counter(Counter::KernelStopRearms) > 0)
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
        let (what, degraded) = match self.stored {
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
        self.sockets.get(bus).map_or(Ok(()), |socket| reconnect(socket.as_fd(), interface))
    }

    /// The last word: with every motor proven to stand still nothing is held any more, otherwise everything.
    pub fn end(&self, rest: Rest) {
        if self.sockets.is_empty() {
            return;
        }
        if rest == Rest::Unproven {
            log::line(
                "WARNING: the kernel goes on sending stop frames until a supervisor starts again (the process \
                 lanyard-holder, or systemd, keeps them)",
            );
            return;
        }
        if let Some(name) = &self.stored {
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
