//! Words to systemd (`Type=notify`), without waiting for an answer, and the descriptors it keeps for us.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::sys;

/// Number of the first descriptor that systemd passes (SD_LISTEN_FDS_START).
const FIRST_PASSED: RawFd = 3;

/// The way to systemd, if it started us.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

impl Notifier {
    /// Connects to `$NOTIFY_SOCKET`; without it every word goes nowhere.
    #[must_use]
    pub fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|path| {
            let socket = UnixDatagram::unbound().ok()?;
            let address = match path.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name).ok()?,
                None => SocketAddr::from_pathname(&path).ok()?,
            };
            socket.connect_addr(&address).ok()?;
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        });
        Self { socket }
    }

    /// Whether systemd started us.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Says something, for example `READY=1`. A busy or dead systemd is no reason to wait.
    pub fn say(&self, word: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(word.as_bytes());
        }
    }

    /// Gives systemd descriptors to keep under that name while we are gone. It does so if the service has
    /// `FileDescriptorStoreMax=`, and does not say whether.
    ///
    /// # Errors
    ///
    /// When systemd is busy or gone.
    pub fn store(&self, name: &str, fds: &[OwnedFd]) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        // FDPOLL=0: systemd would drop a socket that reports an error, and these do when an interface goes down.
        let words = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(words.as_bytes())], &rights, flags, None)?;
        Ok(())
    }

    /// Has systemd close what it keeps under that name.
    pub fn forget(&self, name: &str) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }
}

/// The descriptors systemd kept while we were gone whose name `ours` says yes to, with their names. To be
/// called once: they are handed over.
#[must_use]
pub fn kept_for_us(ours: impl Fn(&str) -> bool) -> Vec<(String, OwnedFd)> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    // Meant for a parent of ours, perhaps, that started us with its environment.
    if variable("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Vec::new();
    }
    let count: RawFd = variable("LISTEN_FDS").parse().unwrap_or(0);
    (FIRST_PASSED..FIRST_PASSED.saturating_add(count))
        .zip(variable("LISTEN_FDNAMES").split(':'))
        .filter(|(_, name)| ours(name))
        .filter_map(|(number, name)| Some((name.to_owned(), sys::inherited(number)?)))
        .collect()
}
