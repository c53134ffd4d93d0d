//! The folder with the file: what is found at the start, and how a new file takes the place of the old one.
//!
//! A file that is missing is no proof that nothing was held: whoever deletes it must not let motors go. So an empty
//! beginning has to be said: by a folder that is not there, or by the empty file [`FIRST_START`] in it, which a package
//! leaves when it is installed for the first time. The first supervisor takes it away.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use super::format::{Latches, MOST_BYTES};
use crate::privileges::Become;

/// The file.
const FILE: &str = "latches";
/// The next one, while it is being written.
const DRAFT: &str = "latches.new";
/// Says that there was no supervisor before.
pub const FIRST_START: &str = "first-start";
/// How a draft is opened: it must not be there, so that nothing else can be written.
pub(crate) const DRAFT_FLAGS: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_CREAT)
    .union(OFlag::O_EXCL)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);
/// For the supervisor alone: whoever wants to look has `lanyard status`.
const FILE_MODE: u32 = 0o600;
/// The supervisor's group may see that the file is there. As the unit has it (StateDirectoryMode=).
const FOLDER_MODE: u32 = 0o750;

/// What the disk says of the time before this supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There was no supervisor before.
    FirstStart,
    /// What waited for a reset.
    Latches(Latches),
    /// It cannot be known, and why.
    Lost(String),
}

/// The folder.
#[derive(Debug)]
pub struct Store {
    folder: Result<Flock<OwnedFd>, Errno>,
    path: PathBuf,
}

impl Store {
    /// Opens the folder, or makes it, and reads the file. To be called when this process no longer splits off others:
    /// the folder is locked against a second supervisor for as long as anybody has it open.
    #[must_use]
    pub fn open(path: &Path, whom: Become) -> (Self, Found) {
        let (folder, found) = match open_or_make(path, whom) {
            Ok(Opened::Made(folder)) => (Ok(folder), Found::FirstStart),
            Ok(Opened::There(folder)) => {
                let found = look(&folder);
                if !matches!(found, Found::Lost(_)) {
                    // Whose it is may have changed in the configuration. Of a folder without a word of ours nothing says
                    // that it is for us.
                    let _ = whom.give(path);
                }
                (Ok(folder), found)
            }
            Err(errno) => (Err(errno), Found::Lost(explain(errno).to_owned())),
        };
        (Self { folder, path: path.to_owned() }, found)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of its descriptor, the only one through which [`Self::write`] reaches files.
    pub(crate) fn number(&self) -> Option<RawFd> {
        self.folder.as_ref().ok().map(|folder| folder.as_raw_fd())
    }

    /// Replaces the file, and returns when the disk has it: before and after a loss of power at any moment there is
    /// either the old file or the new one, whole.
    ///
    /// # Errors
    ///
    /// When the system refuses; then it is not known which of both there is.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let folder = self.folder.as_ref().map_err(|errno| *errno)?;
        match unlinkat(folder.as_fd(), DRAFT, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mode = Mode::from_bits_truncate(FILE_MODE);
        let mut draft = File::from(openat(folder.as_fd(), DRAFT, DRAFT_FLAGS, mode)?);
        draft.write_all(bytes)?;
        fsync(&draft)?;
        drop(draft);
        renameat(folder.as_fd(), DRAFT, folder.as_fd(), FILE)?;
        Ok(fsync(folder.as_fd())?)
    }

    /// Writes the first file of this start, for whom the supervisor is about to become, and takes away what says that
    /// there was none before: from now on its absence is a loss.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn begin(&self, bytes: &[u8], whom: Become) -> io::Result<()> {
        self.write(bytes)?;
        whom.give(&self.path.join(FILE))?;
        let folder = self.folder.as_ref().map_err(|errno| *errno)?;
        match unlinkat(folder.as_fd(), FIRST_START, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
            Ok(()) => Ok(fsync(folder.as_fd())?),
        }
    }
}

/// A folder, locked.
enum Opened {
    /// It was there.
    There(Flock<OwnedFd>),
    /// It was not.
    Made(Flock<OwnedFd>),
}

fn open_or_make(path: &Path, whom: Become) -> Result<Opened, Errno> {
    match open_folder(path) {
        Err(Errno::ENOENT) => {}
        other => return other.map(Opened::There),
    }
    mkdirat(AT_FDCWD, path, Mode::from_bits_truncate(FOLDER_MODE))?;
    let folder = open_folder(path)?;
    whom.give(path).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    // Else a loss of power could take the folder away, and with it whatever it is to keep.
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fsync(openat(AT_FDCWD, parent, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)?;
    }
    Ok(Opened::Made(folder))
}

fn open_folder(path: &Path) -> Result<Flock<OwnedFd>, Errno> {
    let folder = openat(AT_FDCWD, path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)
}

fn explain(errno: Errno) -> &'static str {
    match errno {
        Errno::EWOULDBLOCK => "another supervisor uses this folder; give each its own",
        other => other.desc(),
    }
}

fn is_first_start(folder: &OwnedFd) -> bool {
    fstatat(folder, FIRST_START, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
}

/// What is in the folder.
fn look(folder: &OwnedFd) -> Found {
    // Not one that somebody else would have to write into first, nor one elsewhere.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let open = |name: &str| openat(folder, name, flags, Mode::empty());
    let file = match open(FILE) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) if is_first_start(folder) => return Found::FirstStart,
        Err(Errno::ENOENT) => return Found::Lost("the file is missing, and its folder is there".to_owned()),
        Err(errno) => return Found::Lost(errno.desc().to_owned()),
    };
    let mut bytes = Vec::new();
    // One byte more, so that a file that is too long shows.
    match file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes) {
        Ok(_) => Latches::from_bytes(&bytes).map_or_else(|why| Found::Lost(why.to_string()), Found::Latches),
        Err(error) => Found::Lost(error.to_string()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use shm_proto::TripId;
    use shm_proto::verdicts::Reason;

    use super::super::format::HeldMotor;
    use super::*;

    /// A folder that is not there, in one that is gone when the test is.
    pub struct Scratch(PathBuf);

    impl Scratch {
        pub fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lanyard-latches-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub fn state(&self) -> PathBuf {
            self.0.join("state")
        }

        pub fn open(&self) -> (Store, Found) {
            Store::open(&self.state(), Become::SamePerson)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    pub fn stopped() -> Latches {
        let left = HeldMotor { name: "left".to_owned(), trip: TripId(3), reason: Reason::OperatorStop };
        Latches { last: TripId(3), reserved: TripId(19), stop: TripId(3), held: vec![left] }
    }

    fn lost(found: &Found) -> &str {
        match found {
            Found::Lost(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_written_is_found_by_the_next() {
        let scratch = Scratch::new("next");
        let (store, found) = scratch.open();
        assert_eq!(found, Found::FirstStart, "there is no folder");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&scratch.state()) & 0o027, 0, "others may not look");
        store.write(&Latches::default().to_bytes()).unwrap();
        store.begin(&stopped().to_bytes(), Become::SamePerson).unwrap();
        assert_eq!(mode(&scratch.state().join(FILE)), FILE_MODE);
        drop(store);
        assert_eq!(scratch.open().1, Found::Latches(stopped()));
        assert_eq!(fs::read_dir(scratch.state()).unwrap().count(), 1, "a draft is left");
    }

    /// Fails if a file that somebody has deleted lets motors go, or if a package cannot say that there was none.
    #[test]
    fn a_file_that_is_missing_is_no_first_start_unless_that_is_said() {
        let scratch = Scratch::new("missing");
        fs::create_dir(scratch.state()).unwrap();
        assert!(lost(&scratch.open().1).contains("missing"));
        fs::write(scratch.state().join(FIRST_START), "").unwrap();
        let (store, found) = scratch.open();
        assert_eq!(found, Found::FirstStart);
        drop(store);
        let (store, found) = scratch.open();
        assert_eq!(found, Found::FirstStart, "nothing was written yet");
        store.begin(&stopped().to_bytes(), Become::SamePerson).unwrap();
        drop(store);
        fs::remove_file(scratch.state().join(FILE)).unwrap();
        assert!(lost(&scratch.open().1).contains("missing"));
    }

    /// Fails if a power loss between the file and the sign taken away makes the latches forgotten.
    #[test]
    fn the_file_counts_beside_the_sign_of_a_first_start() {
        let scratch = Scratch::new("both");
        let (store, _) = scratch.open();
        store.write(&stopped().to_bytes()).unwrap();
        fs::write(scratch.state().join(FIRST_START), "").unwrap();
        drop(store);
        assert_eq!(scratch.open().1, Found::Latches(stopped()));
    }

    #[test]
    fn what_is_no_file_of_ours_is_lost_and_left_alone() {
        let scratch = Scratch::new("strange");
        fs::create_dir(scratch.state()).unwrap();
        let file = scratch.state().join(FILE);
        for bytes in [vec![], vec![0; 56], vec![0; MOST_BYTES + 8], stopped().to_bytes()[..100].to_vec()] {
            fs::write(&file, &bytes).unwrap();
            assert_eq!(lost(&scratch.open().1), "it is damaged");
            assert_eq!(fs::read(&file).unwrap(), bytes);
        }
        fs::remove_file(&file).unwrap();
        let elsewhere = scratch.0.join("elsewhere");
        fs::write(&elsewhere, stopped().to_bytes()).unwrap();
        symlink(&elsewhere, &file).unwrap();
        lost(&scratch.open().1);
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, Mode::from_bits_truncate(0o600)).unwrap();
        lost(&scratch.open().1);
        let blocked = Store::open(&elsewhere, Become::SamePerson);
        lost(&blocked.1);
        assert!(blocked.0.write(b"").is_err());
        assert_eq!(fs::read(&elsewhere).unwrap(), stopped().to_bytes());
    }

    /// Fails if two supervisors write the same file, each without what the other holds.
    #[test]
    fn a_folder_has_one_supervisor() {
        let scratch = Scratch::new("two");
        let (first, _) = scratch.open();
        first.write(&stopped().to_bytes()).unwrap();
        let (second, found) = scratch.open();
        assert!(lost(&found).contains("another supervisor"), "{found:?}");
        assert!(second.write(&Latches::default().to_bytes()).is_err());
        drop(first);
        assert_eq!(scratch.open().1, Found::Latches(stopped()));
    }

    /// Fails if what a write leaves that was cut short is taken for the file, or keeps the next one from being written.
    #[test]
    fn a_draft_is_neither_read_nor_in_the_way() {
        let scratch = Scratch::new("draft");
        let (store, _) = scratch.open();
        store.write(&stopped().to_bytes()).unwrap();
        fs::write(scratch.state().join(DRAFT), "half").unwrap();
        drop(store);
        let (store, found) = scratch.open();
        assert_eq!(found, Found::Latches(stopped()));
        store.write(&Latches::default().to_bytes()).unwrap();
        drop(store);
        assert_eq!(scratch.open().1, Found::Latches(Latches::default()));
    }
}
