//! What waits for a reset, on disk: over a stop of the service, an upgrade, a reboot, a power loss.
//!
//! systemd's store has all of it in more detail ([`crate::inheritance`]), but only while the service is not stopped and the
//! machine not started again. Here is the rest: a small file that housekeeping keeps equal to what the verdict segment
//! says. The real-time thread takes no part in it, and a disk that hangs or refuses keeps no stop from being made.
//!
//! | file | its one idea |
//! |---|---|
//! | `format` | the bytes of the file |
//! | `store` | the folder: what is found there, and how a new file takes the place of the old one |
//! | `merge` | what the next supervisor makes of the file |
//! | `disk` | the thread that waits for the disk, so that nothing else does |
//! | `keeping` | when there is something to write, and what is told about it |

mod disk;
mod format;
mod keeping;
mod merge;
mod store;

pub use disk::Disk;
pub use format::{HeldMotor, Latches, Unreadable};
pub use keeping::Keeping;
pub use merge::{Clock, Taken, hold_all, take_over};
pub(crate) use store::DRAFT_FLAGS;
pub use store::{Found, Store};
