//! The socket of a door: bound, or taken back from systemd, which keeps it while no supervisor runs.
//!
//! A process that comes while the supervisor is started again, `lanyard reset` for example, then waits in its queue for some
//! milliseconds instead of being turned away. What systemd has kept is believed only if it is what would have been made
//! anew: a listening socket of that kind and that name, to which the path still leads.
//!
//! The group of the socket's file decides which users come in. A supervisor that may not give a file to another group lets
//! the folder do it: the package makes one for each group, with the set-group-ID bit.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt::{AcceptConn, PeerCredentials, SockType as KindOf};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockname, getsockopt,
    listen, socket,
};
use nix::unistd::chown;

use super::Visitor;
use crate::notify::{self, Notifier};
use crate::privileges::{Access, UNSEEN_GROUP};
use crate::{log, sys};

/// The user and the group may connect.
const SOCKET_MODE: u32 = 0o660;
/// The user may, and root.
const OWNER_MODE: u32 = 0o600;
/// Connections taken from the queue at the start, at most: it has no more places, and one that fills them anew all the time
/// must not keep the supervisor from arming.
const MAX_WAITING: usize = 64;
/// The user may do everything in a door's folder, the group may pass through; what is made there gets its group.
const FOLDER_MODE: u32 = 0o2710;
/// Processes that wait while no supervisor answers: the next ones wait in `connect`.
const BACKLOG: i32 = 16;

/// The socket of a door and the connections that came to it already.
#[derive(Debug)]
pub struct Listener {
    /// Where the next ones come.
    pub socket: OwnedFd,
    /// Connections that waited while there was no supervisor.
    pub waiting: Vec<OwnedFd>,
    /// What closes it, and removes its path, when the supervisor ends.
    pub keeper: Keeper,
}

/// What has the socket besides this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// Nothing: with the process it ends.
    Nobody,
    /// systemd, until the service is stopped for good.
    Systemd,
}

/// Takes a door's socket back from systemd, or binds it and has systemd keep it.
///
/// # Errors
///
/// When another supervisor listens there, or the path cannot be used; the text says what to do.
pub fn open(visitor: Visitor, path: &Path, access: Access, notifier: &Notifier) -> Result<Listener, String> {
    let name = visitor.name();
    let keeper = if notifier.is_there() { Keeper::Systemd } else { Keeper::Nobody };
    let mut kept = notify::kept_for_us(|kept| kept == name).into_iter().map(|(_, socket)| socket);
    if let Some(socket) = kept.next() {
        match take_back(visitor, socket.as_fd(), path, access) {
            Ok(waiting) => return Ok(Listener { socket, waiting, keeper }),
            Err(why) => log::line(&format!(
                "the socket \"{}\" that systemd kept is not used ({why}); a process that waits there must come again",
                path.display()
            )),
        }
        drop(socket);
        notifier.forget(name);
    }
    let socket = listen_at(visitor, path, access)?;
    if keeper == Keeper::Systemd
        && let Err(error) = notifier.store_patiently(name, &socket)
    {
        log::line(&format!("systemd does not keep the socket \"{}\" ({error})", path.display()));
        return Ok(Listener { socket, waiting: Vec::new(), keeper: Keeper::Nobody });
    }
    Ok(Listener { socket, waiting: Vec::new(), keeper })
}

/// Whether a socket that was kept is the one at that path; then with the connections that wait there.
fn take_back(
    visitor: Visitor,
    socket: BorrowedFd<'_>,
    path: &Path,
    access: Access,
) -> Result<Vec<OwnedFd>, String> {
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
    give(visitor, path, access).map_err(|error| {
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
    std::iter::from_fn(next).take(MAX_WAITING).collect()
}

fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// Binds the socket of a door.
///
/// # Errors
///
/// When another supervisor listens there, or the path cannot be used; the text says what to do.
pub fn listen_at(visitor: Visitor, path: &Path, access: Access) -> Result<OwnedFd, String> {
    let (key, name) = (visitor.key(), path.display());
    let explain = |error: io::Error| format!("[supervisor] {key} \"{name}\": {error}");
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        make_folder(visitor, folder, access).map_err(explain)?;
    }
    let address = UnixAddr::new(path).map_err(|error| explain(error.into()))?;
    if path.exists() {
        let answer = connect(packet_socket().map_err(explain)?.as_raw_fd(), &address);
        // A full queue is somebody's, too.
        if matches!(answer, Ok(()) | Err(nix::Error::EAGAIN)) {
            return Err(format!(
                "[supervisor] {key} \"{name}\": another supervisor is running here; stop it first, or give \
                 this one another socket"
            ));
        }
        std::fs::remove_file(path).map_err(explain)?;
    }
    let listener = packet_socket().map_err(explain)?;
    bind(listener.as_raw_fd(), &address).map_err(|error| explain(error.into()))?;
    give(visitor, path, access).map_err(explain)?;
    let backlog = Backlog::new(BACKLOG).map_err(|error| explain(error.into()))?;
    listen(&listener, backlog).map_err(|error| explain(error.into()))?;
    Ok(listener)
}

/// Makes the folder of a door's socket. One that only some users may pass through keeps the others out by itself.
fn make_folder(visitor: Visitor, folder: &Path, access: Access) -> io::Result<()> {
    if let Some(above) = folder.parent() {
        std::fs::create_dir_all(above)?;
    }
    match visitor {
        // The folder of all that the supervisor has in /run: other doors lie behind it.
        Visitor::Looker => std::fs::create_dir(folder)?,
        Visitor::Front | Visitor::Operator => std::fs::DirBuilder::new().mode(0o700).create(folder)?,
    }
    // Of a group that cannot be given `give` speaks.
    if chown(folder, access.user, access.group).is_err() {
        let _ = chown(folder, access.user, None);
    }
    match visitor {
        Visitor::Looker => Ok(()),
        Visitor::Front | Visitor::Operator => {
            std::fs::set_permissions(folder, PermissionsExt::from_mode(FOLDER_MODE))
        }
    }
}

/// Gives the socket's file to its user and group, and takes it from everybody else. Where the operators' group cannot be
/// had, nobody but root and the supervisor's user resets.
fn give(visitor: Visitor, path: &Path, Access { user, group }: Access) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    let user = user.filter(|user| user.as_raw() != found.uid());
    if user.is_some() {
        chown(path, user, None)?;
    }
    let name = (path.display(), visitor.key());
    let mut is_groups = group.is_some();
    if let Some(wanted) = group.filter(|group| group.as_raw() != found.gid())
        && let Err(error) = chown(path, None, Some(wanted))
        // The folder that the package has made has the right group, which this process cannot see.
        && found.gid() != UNSEEN_GROUP
    {
        is_groups = false;
        log::line(&format!(
            "WARNING: \"{}\" ([supervisor] {}) cannot be given to group {wanted} ({error}). Mend it as root: \
             systemd-tmpfiles --create lanyard.conf, then restart the supervisor",
            name.0, name.1
        ));
    }
    let mode = match visitor {
        Visitor::Operator if !is_groups => {
            log::line(&format!(
                "WARNING: only root can reset trips: the group for \"{}\" ([supervisor] operator_group) is not there",
                name.0
            ));
            OWNER_MODE
        }
        Visitor::Front | Visitor::Looker | Visitor::Operator => SOCKET_MODE,
    };
    // Last: a change of owner takes permissions away.
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn listen_here(path: &Path) -> OwnedFd {
        listen_at(Visitor::Looker, path, Access::default()).unwrap()
    }

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
        let listener = listen_here(&path);
        let _waits = come(&path);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        // The trial is told from others by its process, which is that of this test here, too.
        assert!(
            take_back(Visitor::Looker, listener.as_fd(), &path, Access::default())
                .is_ok_and(|waiting| waiting.len() == 1)
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        let _later = come(&path);
        assert_eq!(accept_all(listener.as_fd()).len(), 1, "it listens on");
        std::fs::remove_file(&path).unwrap();
    }

    /// Fails if a supervisor listens where nobody comes, or at something that is no listener.
    #[test]
    fn any_other_socket_is_not() {
        let path = place("other");
        let old = listen_here(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(
            take_back(Visitor::Looker, old.as_fd(), &path, Access::default()).is_err(),
            "there is no path"
        );
        let new = listen_here(&path);
        let why = take_back(Visitor::Looker, old.as_fd(), &path, Access::default()).unwrap_err();
        assert!(why.contains("leads elsewhere"), "{why}");
        assert_eq!(accept_all(new.as_fd()).len(), 1, "the trial came to the other one");
        let elsewhere = place("elsewhere");
        let why = take_back(Visitor::Looker, new.as_fd(), &elsewhere, Access::default()).unwrap_err();
        assert!(why.contains("was bound to"), "{why}");
        assert!(
            take_back(Visitor::Looker, packet_socket().unwrap().as_fd(), &path, Access::default()).is_err(),
            "it does not listen"
        );
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert!(
            take_back(Visitor::Looker, null.as_fd(), &path, Access::default()).is_err(),
            "it is no socket"
        );
        std::fs::remove_file(&path).unwrap();
    }
}
