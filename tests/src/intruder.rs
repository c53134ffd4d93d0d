//! Somebody else on the bus: a node that nobody has reckoned with.

use anyhow::{Context, Result};
use socketcan::{CanFrame, CanSocket, EmbeddedFrame, Socket, StandardId};

use crate::clock::Moment;

/// The node.
#[derive(Debug)]
pub struct Intruder(CanSocket);

impl Intruder {
    /// On this interface.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn open(interface: &str) -> Result<Self> {
        Ok(Self(CanSocket::open(interface).with_context(|| format!("cannot open {interface}"))?))
    }

    /// Sends a frame; returns the moment before.
    ///
    /// # Errors
    /// The interface does not take it.
    pub fn send(&self, id: u16, data: &[u8]) -> Result<Moment> {
        let id = StandardId::new(id).context("not a standard identifier")?;
        let frame = CanFrame::new(id, data).context("too long a payload")?;
        let before = Moment::now();
        self.0.write_frame(&frame).context("cannot send")?;
        Ok(before)
    }
}
