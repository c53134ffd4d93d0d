//! The hand-over socket: bound, or taken back from systemd, which keeps it while no supervisor runs.
//!
//! Whoever comes while the supervisor is started again, `lanyard estop` above all, then waits in its queue for some
//! milliseconds instead of being turned away. What systemd has kept is believed only if it is what would have been made
//! anew: a listening socket of that kind and that name, to which the path still leads.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt::{AcceptConn, PeerCredentials, SockType as KindOf};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockname, getsockopt,
    listen, socket,
};

use crate::notify::{self, Notifier};
use crate::{log, sys};

/// What it is called in systemd's store.
const NAME: &str = "handover";
/// Who may connect: the user and the group, which is front and operators.
const MODE: u32 = 0o660;
/// Who waits while nobody answers: one front and a few operators; the next ones wait in `connect`.
const BACKLOG: i32 = 16;

/// The hand-over socket and who has come to it already.
#[derive(Debug)]
pub struct Listener {
    /// Where the next ones come.
    pub socket: OwnedFd,
    /// Connections that waited while there was no supervisor.
    pub waiting: Vec<OwnedFd>,
    /// Who closes it, and removes its path, when the supervisor ends.
    pub keeper: Keeper,
}

/// Who has the socket besides this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// Nobody: with the process it ends.
    Nobody,
    /// systemd, until the service is stopped for good.
    Systemd,
}

/// Takes the hand-over socket back from systemd, or binds it and has systemd keep it.
///
/// # Errors
///
/// When another supervisor listens there, or the path cannot be used; the text says what to do.
pub fn open(path: &Path, notifier: &Notifier) -> Result<Listener, String> {
    let keeper = if notifier.is_there() { Keeper::Systemd } else { Keeper::Nobody };
    let mut kept = notify::kept_for_us(|name| name == NAME).into_iter().map(|(_, socket)| socket);
    if let Some(socket) = kept.next() {
        match take_back(socket.as_fd(), path) {
            Ok(waiting) => return Ok(Listener { socket, waiting, keeper }),
            Err(why) => log::line(&format!(
                "the hand-over socket that systemd kept is not used ({why}); whoever waits there must come again"
            )),
        }
        drop(socket);
        notifier.forget(NAME);
    }
    let socket = listen_at(path)?;
    if keeper == Keeper::Systemd
        && let Err(error) = notifier.store_patiently(NAME, &socket)
    {
        log::line(&format!("systemd does not keep the hand-over socket ({error})"));
        return Ok(Listener { socket, waiting: Vec::new(), keeper: Keeper::Nobody });
    }
    Ok(Listener { socket, waiting: Vec::new(), keeper })
}

/// Whether a socket that was kept is the one at that path; then with the connections that wait there.
fn take_back(socket: BorrowedFd<'_>, path: &Path) -> Result<Vec<OwnedFd>, String> {
    let words = |error: io::Error| error.to_string();
    let kind = getsockopt(&socket, KindOf).map_err(|error| words(error.into()))?;
    let listens = getsockopt(&socket, AcceptConn).map_err(|error| words(error.into()))?;
    if kind != SockType::SeqPacket || !listens {
        return Err("it is no listening socket of packets".to_owned());
    }
    let name: UnixAddr = getsockname(socket.as_raw_fd()).map_err(|error| words(error.into()))?;
    if name.path() != Some(path) {
        return Err(format!("it was bound to {}", name.path().unwrap_or(Path::new("no path")).display()));
    }
    fcntl(socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| words(error.into()))?;
    let waiting = leads_to(path, socket).map_err(words)?;
    let waiting = waiting.ok_or_else(|| format!("{} leads elsewhere", path.display()))?;
    // As it was when it was made: somebody may have changed it since.
    std::fs::set_permissions(path, PermissionsExt::from_mode(MODE)).map_err(|error| {
        // It leads to this very socket, which nobody answers any more.
        let _ = std::fs::remove_file(path);
        words(error)
    })?;
    Ok(waiting)
}

/// Whether who connects to the path comes to this socket. Nothing but trying tells: a name can be bound again after its
/// file was removed. Whoever came before is accepted by this, and given back.
fn leads_to(path: &Path, listener: BorrowedFd<'_>) -> io::Result<Option<Vec<OwnedFd>>> {
    // Room for the trial.
    let mut waiting = accept_all(listener);
    let trial = packet_socket()?;
    match connect(trial.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(
            nix::Error::ENOENT | nix::Error::ECONNREFUSED | nix::Error::ENOTSOCK | nix::Error::EPROTOTYPE,
        ) => {
            return Ok(None);
        }
        other => other?,
    }
    let ourselves = nix::unistd::getpid().as_raw();
    let is_trial =
        |socket: &OwnedFd| getsockopt(socket, PeerCredentials).is_ok_and(|peer| peer.pid() == ourselves);
    let (trials, others): (Vec<_>, Vec<_>) = accept_all(listener).into_iter().partition(is_trial);
    waiting.extend(others);
    Ok((!trials.is_empty()).then_some(waiting))
}

fn accept_all(listener: BorrowedFd<'_>) -> Vec<OwnedFd> {
    let next = || accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).ok().map(sys::own);
    std::iter::from_fn(next).collect()
}

fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// Binds the hand-over socket.
///
/// # Errors
///
/// When another supervisor listens there, or the path cannot be used; the text says what to do.
pub fn listen_at(path: &Path) -> Result<OwnedFd, String> {
    let name = path.display();
    let explain = |error: io::Error| format!("[supervisor] socket \"{name}\": {error}");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(explain)?;
    }
    let address = UnixAddr::new(path).map_err(|error| explain(error.into()))?;
    if path.exists() {
        if connect(packet_socket().map_err(explain)?.as_raw_fd(), &address).is_ok() {
            return Err(format!(
                "[supervisor] socket \"{name}\": another supervisor is running here; stop it first, or give \
                 this one another socket"
            ));
        }
        std::fs::remove_file(path).map_err(explain)?;
    }
    let listener = packet_socket().map_err(explain)?;
    bind(listener.as_raw_fd(), &address).map_err(|error| explain(error.into()))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(MODE)).map_err(explain)?;
    let backlog = Backlog::new(BACKLOG).map_err(|error| explain(error.into()))?;
    listen(&listener, backlog).map_err(|error| explain(error.into()))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("lanyard-listener-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn come(path: &Path) -> OwnedFd {
        let socket = packet_socket().unwrap();
        connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        socket
    }

    /// Fails if who waited is lost, or if the permissions are not as they were.
    #[test]
    fn the_same_socket_is_taken_back_with_who_waits() {
        let path = place("same");
        let listener = listen_at(&path).unwrap();
        let _waits = come(&path);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        // The trial is told from others by its process, which is that of this test here, too.
        assert!(take_back(listener.as_fd(), &path).is_ok_and(|waiting| waiting.len() == 1));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let _later = come(&path);
        assert_eq!(accept_all(listener.as_fd()).len(), 1, "it listens on");
        std::fs::remove_file(&path).unwrap();
    }

    /// Fails if a supervisor listens where nobody comes, or at something that is no listener.
    #[test]
    fn any_other_socket_is_not() {
        let path = place("other");
        let old = listen_at(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(take_back(old.as_fd(), &path).is_err(), "there is no path");
        let new = listen_at(&path).unwrap();
        let why = take_back(old.as_fd(), &path).unwrap_err();
        assert!(why.contains("leads elsewhere"), "{why}");
        assert_eq!(accept_all(new.as_fd()).len(), 1, "the trial came to the other one");
        let elsewhere = place("elsewhere");
        let why = take_back(new.as_fd(), &elsewhere).unwrap_err();
        assert!(why.contains("was bound to"), "{why}");
        assert!(take_back(packet_socket().unwrap().as_fd(), &path).is_err(), "it does not listen");
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert!(take_back(null.as_fd(), &path).is_err(), "it is no socket");
        std::fs::remove_file(&path).unwrap();
    }
}
