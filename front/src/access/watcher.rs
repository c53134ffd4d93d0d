//! Files that are read again when they have changed.
//!
//! A thread of its own looks each second: a disk that hangs keeps nobody waiting. A change is seen whoever made it and
//! however: in place, by a new file, by a link that names another.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Who revokes a key, or renews a certificate, waits no longer than that.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another; `None` for no file.
pub type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// The state of a file.
pub fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    let (changed, modified) = ((file.ctime(), file.ctime_nsec()), (file.mtime(), file.mtime_nsec()));
    Some((file.dev(), file.ino(), file.size(), changed, modified))
}

/// Files that belong together, and what to do when one of them has changed.
pub struct Watched {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Their states *before* they were read last.
    pub seen: Vec<Stamp>,
    /// Reads them again.
    pub reload: Box<dyn Fn() + Send>,
}

impl Watched {
    /// Looks once.
    pub fn look(&mut self) {
        let now: Vec<Stamp> = self.files.iter().map(|file| stamp(file)).collect();
        if now != self.seen {
            self.seen = now;
            (self.reload)();
        }
    }
}

/// Looks for as long as the program runs.
///
/// # Errors
///
/// When there is no thread to be had.
pub fn watch(mut watched: Vec<Watched>) -> io::Result<()> {
    let look = move || {
        loop {
            thread::sleep(LOOK_EVERY);
            watched.iter_mut().for_each(Watched::look);
        }
    };
    thread::Builder::new().name("access".to_owned()).spawn(look).map(drop)
}
