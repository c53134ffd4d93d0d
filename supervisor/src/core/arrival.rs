//! When a frame arrived, as far as that is known.
//!
//! A frame waits in its socket until the loop reads it: mostly for microseconds, after a loop that hung for as long as that.
//! So what is read now says how things stood at some moment since the socket was last seen to be empty. Proof counts from the
//! earliest of these moments.

use shm_proto::Nanos;

/// The moments between which a frame arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Not before: everything that had come until then was read.
    pub earliest: Nanos,
    /// Now, when it is read.
    pub now: Nanos,
}

impl From<Nanos> for Arrival {
    /// Of a frame that is read as it arrives.
    fn from(now: Nanos) -> Self {
        Self { earliest: now, now }
    }
}
