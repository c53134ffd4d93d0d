//! What the core hands frames to, and what tells it how long that took.

use drivers::Frame;
use shm_proto::Nanos;

/// Why the kernel did not take a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The transmit queue is full; the frame must be sent again.
    QueueFull,
    /// The interface is down.
    Down,
    /// The interface is gone.
    Gone,
    /// Anything else, by its error number.
    Other(i32),
}

impl SendError {
    /// The error number, as published.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::QueueFull => libc::ENOBUFS,
            Self::Down => libc::ENETDOWN,
            Self::Gone => libc::ENODEV,
            Self::Other(errno) => errno,
        }
    }

    /// The kind for an error number of `send`.
    #[must_use]
    pub const fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ENOBUFS | libc::EAGAIN | libc::EINTR | libc::ENOMEM => Self::QueueFull,
            libc::ENETDOWN => Self::Down,
            libc::ENODEV | libc::ENXIO | libc::ENETUNREACH => Self::Gone,
            other => Self::Other(other),
        }
    }

    /// Whether the bus as a whole does not work, as opposed to being busy.
    #[must_use]
    pub const fn is_fatal_for_bus(self) -> bool {
        matches!(self, Self::Down | Self::Gone)
    }
}

/// Takes frames for buses. It never waits: what cannot be taken at once is refused.
pub trait Wire {
    /// Hands a frame to the bus with that index.
    ///
    /// # Errors
    ///
    /// When the frame was not taken; it is then as good as never sent.
    fn send(&mut self, bus: usize, frame: &Frame) -> Result<(), SendError>;

    /// The moment after what was just sent or read: a pass takes time, which the moment it was called with does not know
    /// of. An answer from before that moment counts as that moment, so whoever has no clock answers [`Nanos::ZERO`].
    fn now(&mut self) -> Nanos;
}
