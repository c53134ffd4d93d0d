//! What systemd does for a service with `FileDescriptorStoreMax=`: keeps descriptors by name, and passes them
//! to the next start (sd_notify(3), sd_listen_fds(3)).

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::cmsg_space;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::process::Process;

/// How often the thread looks whether it shall end.
const PASS: Duration = Duration::from_millis(50);
/// Numbers for descriptors on their way to a new program: above those a program begins with.
const ABOVE: RawFd = 20;
/// The first number systemd passes.
const FIRST: RawFd = 3;

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Vec<(String, OwnedFd)>>,
    said: Mutex<Vec<String>>,
    ending: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store and its socket.
#[derive(Debug)]
pub struct FdStore {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl FdStore {
    /// Listens at `path`.
    ///
    /// # Errors
    /// It cannot.
    pub fn open(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path).with_context(|| format!("cannot bind {}", path.display()))?;
        socket.set_read_timeout(Some(PASS))?;
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("fd-store".to_owned())
            .spawn(move || run(&socket, &for_thread))?;
        Ok(Self { path: path.to_owned(), shared, thread: Some(thread) })
    }

    /// The names of what it keeps.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        locked(&self.shared.kept).iter().map(|(name, _)| name.clone()).collect()
    }

    /// Everything it was told.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        locked(&self.shared.said).clone()
    }

    /// Second descriptors of everything it keeps, for the caller to hold.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn copies(&self) -> Result<Vec<OwnedFd>> {
        let kept = locked(&self.shared.kept);
        kept.iter().map(|(_, fd)| fd.try_clone().context("cannot duplicate")).collect()
    }

    /// Closes everything it keeps.
    pub fn forget_all(&self) {
        locked(&self.shared.kept).clear();
    }

    /// Starts a program as systemd would: with the socket's path, and everything that is kept.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, program: &Path, arguments: &[&str]) -> Result<Process> {
        let kept = locked(&self.shared.kept);
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        // Without close-on-exec, until the program has them.
        let copies: Vec<OwnedFd> = kept.iter().map(|(_, fd)| copy(fd)).collect::<Result<_>>()?;
        let moves: Vec<String> = (FIRST..)
            .zip(&copies)
            .map(|(number, fd)| format!("{number}<&{fd} {fd}<&-", fd = fd.as_raw_fd()))
            .collect();
        // WATCHDOG_USEC is what the unit has (WatchdogSec=2). $$ is the process that becomes the program. bash, because others know no numbers above 9.
        let script = format!(
            "export NOTIFY_SOCKET='{}' WATCHDOG_USEC=2000000 LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES='{}'; exec \"$0\" \"$@\" {}",
            self.path.display(),
            copies.len(),
            names.join(":"),
            moves.join(" ")
        );
        let program = program.to_str().context("a path in UTF-8")?;
        let mut all = vec!["-c", script.as_str(), program];
        all.extend(arguments);
        Process::start(Path::new("/bin"), "bash", all)
    }
}

impl Drop for FdStore {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot fail but by a panic, which has been shown.
            drop(thread.join());
        }
    }
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd> {
    let number = fcntl(fd, FcntlArg::F_DUPFD(ABOVE)).context("cannot duplicate")?;
    // SAFETY: the kernel has just made this descriptor; nobody else here knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn run(socket: &UnixDatagram, shared: &Shared) {
    while !shared.ending.load(Ordering::Relaxed) {
        let mut bytes = [0; 4096];
        let mut control = cmsg_space!([RawFd; 64]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let Ok(message) = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) else {
            continue;
        };
        let length = message.bytes;
        let mut fds = Vec::new();
        for part in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has just made these descriptors; each gets exactly one owner.
                fds.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        obey(&text, fds, shared);
        locked(&shared.said).push(text);
    }
}

fn obey(text: &str, fds: Vec<OwnedFd>, shared: &Shared) {
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
    let mut kept = locked(&shared.kept);
    if text.lines().any(|line| line == "FDSTOREREMOVE=1") {
        kept.retain(|(other, _)| *other != name);
    } else if text.lines().any(|line| line == "FDSTORE=1") {
        kept.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
    }
}
