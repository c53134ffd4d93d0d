//! Words to systemd (`Type=notify`), without waiting for an answer, and the descriptors it keeps for us.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use shm_proto::Nanos;

use crate::sys;

/// Number of the first descriptor that systemd passes (SD_LISTEN_FDS_START).
const FIRST_PASSED: RawFd = 3;

/// How often systemd is asked to keep a descriptor; it takes words as fast as it reads them.
const STORE_TRIES: u32 = 10;
/// Between two of these.
const STORE_PAUSE: Duration = Duration::from_millis(10);

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

    /// Gives systemd one descriptor to keep, under a name that is the same at every start: systemd closes what it is given
    /// twice. For the start only: it waits while systemd is busy.
    ///
    /// # Errors
    ///
    /// When systemd is busy for too long, or gone, or there are no descriptors left.
    pub fn store_patiently(&self, name: &str, fd: &OwnedFd) -> io::Result<()> {
        let copy = [fd.try_clone()?];
        let mut last = Ok(());
        for _ in 0..STORE_TRIES {
            last = self.store(name, &copy);
            if last.is_ok() {
                break;
            }
            std::thread::sleep(STORE_PAUSE);
        }
        last
    }

    /// Has systemd close what it keeps under that name.
    pub fn forget(&self, name: &str) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }
}

/// The word that keeps systemd from ending us (`WatchdogSec=`): said for the real-time loop's progress only.
#[derive(Debug)]
pub struct Watchdog {
    /// How often to speak; `None` when systemd does not listen for it.
    period: Option<u64>,
    said: Nanos,
    /// Passes of the loop when it was last said.
    passes: u64,
}

impl Watchdog {
    /// As `$WATCHDOG_USEC` and `$WATCHDOG_PID` ask for it.
    #[must_use]
    pub fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        // Meant for a parent of ours, perhaps, that started us with its environment.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        Self::within(number("WATCHDOG_USEC").filter(|_| ours))
    }

    /// Four times within that many microseconds: one word may be late, and one lost.
    fn within(micros: Option<u64>) -> Self {
        let period = micros.filter(|micros| *micros > 0).map(|micros| micros.saturating_mul(1000) / 4);
        Self { period, said: Nanos::ZERO, passes: 0 }
    }

    /// Speaks if it is time and the loop has come round since the last word. What else of this process lives,
    /// and be it the thread that calls this, says nothing about the loop.
    pub fn feed(&mut self, notifier: &Notifier, passes: u64, now: Nanos) {
        let Some(period) = self.period else { return };
        if now.since(self.said) >= period && passes != self.passes {
            notifier.say("WATCHDOG=1");
            (self.said, self.passes) = (now, passes);
        }
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

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::{Nanos, Notifier, Watchdog};

    /// Fails if systemd is told that all is well while the loop stands still, or more often than it needs.
    #[test]
    fn only_a_loop_that_comes_round_feeds_the_watchdog() {
        let name = format!("lanyard-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect_addr(&address).unwrap();
        let notifier = Notifier { socket: Some(socket) };
        let heard = || {
            let mut word = [0; 32];
            systemd
                .recv(&mut word)
                .map_or(String::new(), |length| String::from_utf8_lossy(&word[..length]).into())
        };
        // 2 s: a word each 500 ms.
        let mut watchdog = Watchdog::within(Some(2_000_000));
        let at = |millis: u64| Nanos(1_000_000_000 + millis * 1_000_000);
        for (millis, passes, said) in [
            (0, 0, ""), // not a single pass yet
            (50, 1, "WATCHDOG=1"),
            (300, 60, ""),
            (550, 100, "WATCHDOG=1"),
            (1050, 100, ""), // the loop hangs
            (9000, 100, ""),
            (9050, 101, "WATCHDOG=1"),
        ] {
            watchdog.feed(&notifier, passes, at(millis));
            assert_eq!(heard(), said, "at {millis} ms");
        }
        for silent in [None, Some(0)] {
            Watchdog::within(silent).feed(&notifier, 7, at(60_000));
            assert_eq!(heard(), "", "nobody has asked for it");
        }
    }
}
