//! Somebody else on the bus: a node that nobody has reckoned with.

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt::Priority};
use socketcan::{CanErrorFrame, CanFrame, CanSocket, EmbeddedFrame, Socket, StandardId};

use crate::clock::Moment;

/// Linux's highest priority that needs no privilege; pfifo_fast puts it into its first band.
const URGENT: libc::c_int = 6;
/// Ten times the usual length of a CAN interface's transmit queue: more is no stall.
const MOST: usize = 100;

fn is_queue_full(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.and_then(std::io::Error::raw_os_error) == Some(libc::ENOBUFS)
}

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

    /// On this interface, in the band of its transmit queue that is served before all others.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn urgent(interface: &str) -> Result<Self> {
        let this = Self::open(interface)?;
        setsockopt(&this.0, Priority, &URGENT).context("cannot set the priority")?;
        Ok(this)
    }

    /// Sends a frame over and over until the transmit queue is full; returns how often it was taken.
    ///
    /// # Errors
    /// The interface does not work, or its queue does not fill.
    pub fn fill(&self, id: u16, data: &[u8]) -> Result<usize> {
        for taken in 0..MOST {
            match self.send(id, data) {
                Ok(_) => {}
                Err(error) if is_queue_full(&error) => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
        bail!("the transmit queue has taken {MOST} frames and is not full")
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

    /// Sends an error frame as the interface's own driver would; returns the moment before. `classes` and
    /// `details` as in `linux/can/error.h`.
    ///
    /// # Errors
    /// The interface does not take it.
    pub fn report(&self, classes: u32, details: [u8; 8]) -> Result<Moment> {
        let frame = CanErrorFrame::new_error(classes, &details).context("not an error frame")?;
        let before = Moment::now();
        self.0.write_frame(&CanFrame::Error(frame)).context("cannot send")?;
        Ok(before)
    }
}
