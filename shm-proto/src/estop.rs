//! The operator's stop, from the side of whoever presses it: one byte into a FIFO.
//!
//! The real-time thread of the supervisor waits for that FIFO. No queue, no connection and no other thread of the supervisor
//! lies between. The supervisor's verdicts tell afterwards that the stop was made ([`VerdictView::stopped_since`]).
//!
//! [`VerdictView::stopped_since`]: crate::VerdictView::stopped_since

use core::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::time::Nanos;

/// What is written. The supervisor does not look at it: that there is something to read is the command.
const BYTE: u8 = b'!';

/// Why the FIFO was not written.
#[derive(Debug)]
pub enum NotPressed {
    /// There is no FIFO at the path.
    Absent,
    /// No supervisor has it open.
    NotHeard,
    /// The system does not let this user write it.
    Forbidden,
    /// It is full: nothing reads it, and thousands of presses lie in it.
    Full,
    /// Anything else.
    Other(io::Error),
}

impl NotPressed {
    fn of(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Self::Absent,
            Some(libc::ENXIO | libc::EPIPE) => Self::NotHeard,
            Some(libc::EACCES | libc::EPERM) => Self::Forbidden,
            Some(libc::EAGAIN) => Self::Full,
            _ => Self::Other(error),
        }
    }
}

impl fmt::Display for NotPressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "there is no such FIFO (does lanyard-supervisor run?)"),
            Self::NotHeard => write!(f, "no supervisor listens to it (does lanyard-supervisor run?)"),
            Self::Forbidden => write!(f, "this user may not write it"),
            Self::Full => write!(f, "it is full, so the supervisor's housekeeping hangs"),
            Self::Other(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for NotPressed {}

/// Presses stop, without waiting for anything. Returns a moment before it: a stop that the supervisor made at that moment
/// or later is this one, or as good.
///
/// # Errors
///
/// When the FIFO cannot be written; then nothing was stopped by this.
pub fn press(fifo: &Path) -> Result<Nanos, NotPressed> {
    let before = Nanos::now();
    // Without O_NONBLOCK opening waits for a reader, and writing for room.
    let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(fifo);
    let mut file = opened.map_err(NotPressed::of)?;
    if !file.metadata().map_err(NotPressed::of)?.file_type().is_fifo() {
        return Err(NotPressed::Absent);
    }
    file.write_all(&[BYTE]).map_err(NotPressed::of)?;
    Ok(before)
}
