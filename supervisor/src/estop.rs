//! The operator's stop: a FIFO that becomes readable.
//!
//! That there is something to read is the command. The real-time thread waits for it (`wakeups`) and reads nothing, so the
//! stop depends on no queue, no connection and no other thread. Housekeeping reads the bytes later, and only to make room.
//!
//! The supervisor opens the FIFO for reading and writing: so it never sees an end, however many writers come and go. The
//! FIFO stays when the supervisor ends. Without a supervisor nothing has it open, and writers are told so (ENXIO).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::{fchown, mkfifo, read};

use crate::notify::{self, Notifier};
use crate::privileges::{Access, UNSEEN_GROUP};
use crate::{log, sys};

/// What it is called in systemd's store.
const NAME: &str = "estop";
/// The supervisor reads and writes, the group writes. A group that could read could take the bytes away.
const MODE: u32 = 0o620;
/// Bytes read in one pass of housekeeping: one page, which makes room for any number of people. A writer without end
/// fills the FIFO, and waits for nothing that anybody else needs.
const ROOM: usize = 4096;
/// Passes of the loop after which the real-time thread has certainly slept, and woken, since a moment: the pass that was
/// under way may have woken before it.
const PASSES: u64 = 2;

/// Takes the FIFO back from systemd, or opens it, or makes it. Bytes that lie in it stay there: they are a stop.
///
/// # Errors
///
/// When the path cannot be used; the text says what to do.
pub fn open(path: &Path, access: Access, notifier: &Notifier) -> Result<OwnedFd, String> {
    let explain = |error: io::Error| format!("[supervisor] estop \"{}\": {error}", path.display());
    let mut kept = notify::kept_for_us(|name| name == NAME).into_iter().map(|(_, fifo)| fifo);
    if let Some(fifo) = kept.next() {
        if is_at(fifo.as_fd(), path) {
            give(&fifo, path, access).map_err(explain)?;
            return Ok(fifo);
        }
        notifier.forget(NAME);
    }
    let fifo = open_or_make(path, access)?;
    if let Err(error) = notifier.store_patiently(NAME, &fifo) {
        log::line(&format!("systemd does not keep the FIFO of the operator's stop ({error})"));
    }
    Ok(fifo)
}

/// Opens the FIFO at a path; makes it if there is none.
///
/// # Errors
///
/// When the path cannot be used; the text says what to do.
pub fn open_or_make(path: &Path, access: Access) -> Result<OwnedFd, String> {
    let name = path.display();
    let explain = |error: io::Error| format!("[supervisor] estop \"{name}\": {error}");
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_fifo() => {
            return Err(format!(
                "[supervisor] estop \"{name}\": something else is in the place of the FIFO; remove it, or give \
                 another path"
            ));
        }
        // One that cannot be opened, or given to the right group, is replaced.
        Ok(_) => match open_there(path, access) {
            Ok(fifo) => return Ok(fifo),
            Err(_) => std::fs::remove_file(path).map_err(explain)?,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(explain(error)),
    }
    mkfifo(path, Mode::from_bits_truncate(0o600)).map_err(|error| explain(error.into()))?;
    open_there(path, access).map_err(explain)
}

fn open_there(path: &Path, access: Access) -> io::Result<OwnedFd> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let fifo = OwnedFd::from(OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?);
    if !is_at(fifo.as_fd(), path) {
        return Err(io::Error::other("somebody replaces the file"));
    }
    give(&fifo, path, access)?;
    Ok(fifo)
}

/// Whether a descriptor is the FIFO at that path.
fn is_at(fifo: BorrowedFd<'_>, path: &Path) -> bool {
    let (Ok(copy), Ok(there)) = (fifo.try_clone_to_owned(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    let Ok(open) = std::fs::File::from(copy).metadata() else { return false };
    let same = (open.dev(), open.ino()) == (there.dev(), there.ino());
    same && open.file_type().is_fifo()
}

/// Gives it to its user and group, and takes it from everybody else.
fn give(fifo: &OwnedFd, path: &Path, Access { user, group }: Access) -> io::Result<()> {
    let file = std::fs::File::from(fifo.try_clone()?);
    let found = file.metadata()?;
    let user = user.filter(|user| user.as_raw() != found.uid());
    if user.is_some() {
        fchown(fifo, user, None)?;
    }
    let group = group.filter(|group| group.as_raw() != found.gid());
    if let Some(wanted) = group
        && let Err(error) = fchown(fifo, None, Some(wanted))
        // The package has made it, with the right group.
        && found.gid() != UNSEEN_GROUP
    {
        log::line(&format!(
            "WARNING: only group {} can press stop with \"{}\", not group {wanted} as [supervisor] estop_group says \
             ({error}). Mend it as root: chgrp {wanted} {}",
            found.gid(),
            path.display(),
            path.display()
        ));
    }
    // Last: a change of owner takes permissions away.
    file.set_permissions(std::fs::Permissions::from_mode(MODE))
}

/// Bytes that lay in the FIFO at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    bytes: usize,
    passes: u64,
}

/// Reads the bytes that the real-time thread has noticed, and no others: the kernel tells an edge only if there is still
/// something to read when the thread asks for it.
#[derive(Debug)]
pub struct Drain {
    fifo: OwnedFd,
    seen: Option<Seen>,
}

impl Drain {
    /// Of that FIFO.
    #[must_use]
    pub const fn new(fifo: OwnedFd) -> Self {
        Self { fifo, seen: None }
    }

    /// Makes room, if the loop has come round since the bytes lay there. `passes` is how often it has.
    pub fn pass(&mut self, passes: u64) {
        if let Some(seen) = self.seen {
            if passes < seen.passes.saturating_add(PASSES) {
                return;
            }
            let mut place = [0; ROOM];
            // The oldest come first, so these are the ones that were seen. Nothing is left to do if it fails.
            let _ = read(&self.fifo, &mut place[..seen.bytes]);
        }
        let waiting = sys::unread(self.fifo.as_fd()).unwrap_or(0).min(ROOM);
        self.seen = (waiting > 0).then_some(Seen { bytes: waiting, passes });
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use shm_proto::estop::press;

    use super::*;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("lanyard-fifo-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn waiting(fifo: &OwnedFd) -> usize {
        sys::unread(fifo.as_fd()).unwrap()
    }

    /// Fails if others may write it, if a stop that was pressed is lost at the next start, or if a press finds another FIFO.
    #[test]
    fn the_same_fifo_is_opened_again_with_what_lies_in_it() {
        let path = place("same");
        let before = open_or_make(&path, Access::default()).unwrap();
        assert_eq!(mode(&path), MODE);
        press(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let after = open_or_make(&path, Access::default()).unwrap();
        assert_eq!(mode(&path), MODE);
        drop(before);
        assert_eq!(waiting(&after), 1);
        press(&path).unwrap();
        assert_eq!(waiting(&after), 2);
        assert!(is_at(after.as_fd(), &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(after.as_fd(), &path), "there is no path");
    }

    #[test]
    fn anything_else_at_the_path_is_left_alone() {
        let path = place("other");
        std::fs::write(&path, "a file").unwrap();
        let why = open_or_make(&path, Access::default()).unwrap_err();
        assert!(why.contains("something else is in the place of the FIFO"), "{why}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
        std::fs::remove_file(&path).unwrap();
        // Not followed, wherever it leads.
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(open_or_make(&path, Access::default()).is_err());
        std::fs::remove_file(&path).unwrap();
    }

    /// Fails if bytes are read that the real-time thread may not have noticed, or if the FIFO fills up.
    #[test]
    fn only_what_the_loop_has_come_round_for_is_read() {
        let path = place("drain");
        let fifo = open_or_make(&path, Access::default()).unwrap();
        let mut drain = Drain::new(fifo.try_clone().unwrap());
        drain.pass(10);
        press(&path).unwrap();
        drain.pass(10);
        press(&path).unwrap();
        for passes in [10, 11] {
            drain.pass(passes);
            assert_eq!(waiting(&fifo), 2, "the loop has not slept since the first");
        }
        drain.pass(12);
        assert_eq!(waiting(&fifo), 1, "the second came later");
        drain.pass(13);
        assert_eq!(waiting(&fifo), 1);
        drain.pass(14);
        assert_eq!(waiting(&fifo), 0);
        for _ in 0..ROOM + 10 {
            press(&path).unwrap();
        }
        for passes in [16, 18] {
            drain.pass(passes);
        }
        assert_eq!(waiting(&fifo), 10, "one pass reads a bounded number");
        std::fs::remove_file(&path).unwrap();
    }
}
