//! What a protocol's reader says of what a client has sent.

use thiserror::Error;

/// What was in one read of a client's, or in one datagram, of what goes on to the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Something whole was there: a sign of life.
    pub beats: bool,
    /// How many things that may move something, now or later.
    pub commands: u32,
}

impl Content {
    /// One more thing that moves nothing.
    pub(super) const fn beat(&mut self) {
        self.beats = true;
    }

    /// One more that may.
    pub(super) const fn command(&mut self) {
        self.beats = true;
        self.commands = self.commands.saturating_add(1);
    }
}

/// Bytes that no client of a protocol sends. What comes after them cannot be told apart, so the link ends here; over UDP
/// it is the datagram that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Something else than white space between two elements.
    #[error("byte {0:#04x} stands outside of < ... >; is the client one for socketcand?")]
    Outside(u8),
    /// An element begins before the last one has ended.
    #[error("a < within < ... >")]
    Nested,
    /// Neither a printable character nor a blank.
    #[error("byte {0:#04x} within < ... >, where only printable characters are")]
    Unprintable(u8),
    /// The end does not come.
    #[error("more than {0} bytes without the > that ends them")]
    Endless(usize),
    /// Too short for what it says it holds.
    #[error("{0} bytes, in which the datagram is not complete")]
    Short(usize),
    /// Bytes after the last frame.
    #[error("{0} bytes after the last frame")]
    Trailing(usize),
    /// A version of cannelloni's format that is not known.
    #[error("version {0} of cannelloni's format; 2 is known (is its other end a cannelloni over UDP?)")]
    Version(u8),
    /// A datagram that carries no frames.
    #[error("operation {0} of cannelloni's format; 0, data, is known")]
    Operation(u8),
    /// An identifier that no frame has.
    #[error("identifier {0:#010x}, which no frame to send has")]
    Identifier(u32),
    /// A length that no frame has.
    #[error("a frame of length byte {0:#04x}")]
    Length(u8),
}
