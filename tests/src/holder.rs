//! The second process that holds the kernel-armed stop, as somebody from outside sees it.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;

use crate::expect;

/// What the process calls itself.
const NAME: &str = "lanyard-holder";
/// The word by which the next supervisor has it let go.
const LET_GO: &[u8] = b"L";
/// How long it may take to end.
const PATIENCE: i64 = 5;

/// Where the holder of the supervisor at `socket` listens.
#[must_use]
pub fn place(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".holder");
    path.into()
}

/// Has a holder whose supervisor is dead let go, and waits for its end. Without one there is nothing to do.
///
/// # Errors
/// It does not end.
pub fn dismiss(supervisor: &Path) -> Result<()> {
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&connection, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    if connect(connection.as_raw_fd(), &UnixAddr::new(&place(supervisor))?).is_err() {
        return Ok(());
    }
    // It may be ending at this moment: then there is nobody to take the word, and the end is seen below.
    let _ = send(connection.as_raw_fd(), LET_GO, MsgFlags::MSG_NOSIGNAL);
    match recv(connection.as_raw_fd(), &mut [0], MsgFlags::empty()) {
        Ok(_) | Err(nix::errno::Errno::ECONNRESET) => Ok(()),
        Err(error) => Err(error).context("the holder does not let go"),
    }
}

/// Every holder on this machine, with its parent.
///
/// # Errors
/// There is no `/proc`.
pub fn all() -> Result<Vec<(Pid, Pid)>> {
    let number = |text: &str| text.parse().ok().map(Pid::from_raw);
    let read = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // pid (name) state parent ...
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut rest = rest.split(' ');
        let living = rest.next()? != "Z";
        (name == NAME && living).then_some((number(pid)?, number(rest.next()?)?))
    };
    Ok(std::fs::read_dir("/proc")?.flatten().filter_map(read).collect())
}

/// The holder that a living supervisor has split off.
///
/// # Errors
/// There is none.
pub fn of(supervisor: u32) -> Result<Pid> {
    let found = all()?.into_iter().find(|(_, parent)| parent.as_raw().cast_unsigned() == supervisor);
    Ok(found.context("the supervisor has no holder")?.0)
}

/// Kills one, and waits until it is gone.
///
/// # Errors
/// It cannot be killed.
pub fn murder(holder: Pid) -> Result<()> {
    kill(holder, Signal::SIGKILL).context("cannot kill the holder")?;
    wait_for_end(holder)
}

/// Waits until one is gone.
///
/// # Errors
/// It is not in time.
pub fn wait_for_end(holder: Pid) -> Result<()> {
    let limit = Duration::from_secs(PATIENCE.cast_unsigned());
    expect::within(limit, &format!("holder {holder} ends"), || {
        let all = all().map_err(|error| format!("{error:#}"))?;
        if all.iter().any(|(pid, _)| *pid == holder) { Err("it lives".to_owned()) } else { Ok(()) }
    })
}
