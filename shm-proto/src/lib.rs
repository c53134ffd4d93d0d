//! The two shared-memory segments between front and supervisor, and how they are handed over.
//!
//! What lives here: the layout of both segments, the lock-free beat rings, the types that turn what
//! the front *alleges* ([`RawBeat`]) into what the supervisor may act on ([`ValidBeat`]), and the
//! memfd hand-over over a Unix socket.
//!
//! What must never live here: I/O beyond memfd, mmap, SCM_RIGHTS and the byte of [`estop`]; an allocation or a lock on the
//! beat path; a slice, a reference, a `bool` or an `enum` inside shared memory. All access to a
//! mapping goes through [`memory::Segment`], word by word, as atomics.
//!
//! | segment | written by | mapped read-only by | module |
//! |---|---|---|---|
//! | beats | front | supervisor | [`beats`] |
//! | verdicts | supervisor | front, `lanyard` | [`verdicts`] |

pub mod beat;
pub mod beats;
pub mod copy;
pub mod crc;
pub mod estop;
pub mod handover;
pub mod ids;
pub mod layout;
pub mod memory;
pub mod record;
pub mod sync;
pub mod time;
pub mod verdicts;

pub use beat::{Ending, RawBeat, Reject, ValidBeat};
pub use beats::{BeatSegment, BeatView, BeatWriter, SlotReader};
pub use copy::BeatCopy;
pub use ids::{Generation, Incarnation, MotorIndex, NotATrip, Owner, SessionId, SlotIndex, TripId, TripSeen};
pub use layout::Capacity;
pub use time::{Nanos, Window};
pub use verdicts::{VerdictSegment, VerdictView};
