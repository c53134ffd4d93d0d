//! What a protocol's reader says of what a client has sent.

use shm_proto::MotorIndex;
use thiserror::Error;

use super::reach::{Effect, Passage, Refusal};

/// What was in one read of a client's, or in one datagram, of what goes on to the target; and what does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Something whole was there that is no listed frame.
    pub beats: bool,
    /// How many things that command the target's motors, now or later.
    pub commands: u32,
    /// How many of these drive them: set-points, 0 included, and enabling frames.
    pub motion: u32,
    /// The motors must be granted before it goes on.
    pub needs_grant: bool,
    /// Motors that were asked to stand still.
    pub resting: Vec<MotorIndex>,
    /// Motors whose fault the client has seen, by the family's clear frame.
    pub cleared: Vec<MotorIndex>,
    /// How many frames do not go on.
    pub refused: u64,
    /// Why the last of these does not.
    pub why: Option<Refusal>,
}

impl Content {
    /// What is in bytes of which nothing is known: everything, as far as anybody can tell.
    #[must_use]
    pub const fn unknown() -> Self {
        Self {
            beats: true,
            commands: 1,
            motion: 1,
            needs_grant: true,
            resting: Vec::new(),
            cleared: Vec::new(),
            refused: 0,
            why: None,
        }
    }

    /// Whether its client has taken note of something by it.
    #[must_use]
    pub const fn acknowledges(&self) -> bool {
        !self.resting.is_empty() || !self.cleared.is_empty()
    }

    /// One more thing that commands nothing.
    pub(super) const fn beat(&mut self) {
        self.beats = true;
    }

    /// One more frame, of a target of whose motors nothing is known.
    pub(super) const fn unjudged(&mut self) {
        self.beats = true;
        self.commands = self.commands.saturating_add(1);
        self.motion = self.motion.saturating_add(1);
        self.needs_grant = true;
    }

    /// One more frame, which passes.
    pub(super) fn frame(&mut self, passage: &Passage) {
        match passage {
            Passage::Listed => {}
            Passage::Ours(effect) => self.add(effect),
        }
    }

    fn add(&mut self, effect: &Effect) {
        self.beats = true;
        self.commands = self.commands.saturating_add(u32::from(effect.commands));
        self.motion = self.motion.saturating_add(u32::from(effect.drives));
        self.needs_grant |= effect.needs_grant;
        for (all, more) in [(&mut self.resting, &effect.resting), (&mut self.cleared, &effect.cleared)] {
            let news: Vec<_> = more.iter().filter(|motor| !all.contains(motor)).copied().collect();
            all.extend(news);
        }
    }

    /// One more frame, which does not pass.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refused = self.refused.saturating_add(1);
        self.why = Some(refusal);
    }
}

/// Bytes that no client of a protocol sends. What comes after them cannot be told apart, so the link ends here; over UDP
/// it is the datagram that is dropped.
#[derive(Clone, Debug, PartialEq, Error)]
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
    /// A stream that does not begin as cannelloni's does.
    #[error("it does not begin with CANNELLONIv1; is its client a cannelloni over TCP?")]
    Greeting,
    /// A frame that must not pass, in a datagram, or at a speed that ends the link.
    #[error("{0}")]
    Refused(Refusal),
    /// A length that no frame has.
    #[error("a frame of length byte {0:#04x}")]
    Length(u8),
}
