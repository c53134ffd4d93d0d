//! Where frames go: a bus, or a record of it in tests.

use drivers::Frame;

/// Why a frame did not go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The transmit queue is full; a later try may do.
    Busy,
    /// Nothing goes out until somebody does something: what, and what to do.
    Down(String),
}

/// Takes frames one by one and never waits.
pub trait Wire: Send + Sync {
    /// Hands one frame to the kernel.
    ///
    /// # Errors
    ///
    /// When it was not taken.
    fn send(&self, frame: &Frame) -> Result<(), SendError>;
}

/// A bus on which every frame is lost, for tests that look at something else.
#[cfg(test)]
pub struct NoWire;

#[cfg(test)]
impl Wire for NoWire {
    fn send(&self, _: &Frame) -> Result<(), SendError> {
        Ok(())
    }
}
