//! Somebody else on the bus: a node that nobody has reckoned with, or a program of this computer.

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt::Priority};
use socketcan::{
    CanAnyFrame, CanErrorFrame, CanFdFrame, CanFdSocket, CanFrame, EmbeddedFrame, ExtendedId, Id, Socket,
    StandardId,
};

use crate::clock::Moment;
use crate::interface::far_end;
use crate::wire::Seen;

/// Linux's highest priority that needs no privilege; pfifo_fast puts it into its first band.
const URGENT: libc::c_int = 6;
/// Ten times the usual length of a CAN interface's transmit queue: more is no stall.
const MOST: usize = 100;

fn is_queue_full(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.and_then(std::io::Error::raw_os_error) == Some(libc::ENOBUFS)
}

/// The node or the program.
#[derive(Debug)]
pub struct Intruder(CanFdSocket);

impl Intruder {
    /// A node of the bus that the interface is at.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn node(interface: &str) -> Result<Self> {
        Self::local(&far_end(interface))
    }

    /// A program of this computer, at this interface.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn local(interface: &str) -> Result<Self> {
        Ok(Self(CanFdSocket::open(interface).with_context(|| format!("cannot open {interface}"))?))
    }

    /// The same, in the band of the interface's transmit queue that is served before all others.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn urgent(interface: &str) -> Result<Self> {
        let this = Self::local(interface)?;
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

    /// Sends a frame that a [`Listener`](crate::listener::Listener) has recorded, exactly as it was; returns the
    /// moment before.
    ///
    /// # Errors
    /// The interface does not take it: an FD frame, if it carries classic ones only.
    pub fn send_seen(&self, seen: &Seen) -> Result<Moment> {
        let frame = again(seen).with_context(|| format!("{seen} is not a frame"))?;
        let before = Moment::now();
        self.0.write_frame(&frame).with_context(|| format!("cannot send {seen}"))?;
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

/// The frame that was seen; `None` if no such frame exists.
fn again(seen: &Seen) -> Option<CanAnyFrame> {
    let id: Id = if seen.extended {
        ExtendedId::new(seen.id)?.into()
    } else {
        StandardId::new(u16::try_from(seen.id).ok()?)?.into()
    };
    match seen.fd {
        Some(flags) => CanFdFrame::with_flags(id, &seen.data, flags).map(CanAnyFrame::Fd),
        None if seen.remote => CanFrame::new_remote(id, seen.data.len()).map(CanAnyFrame::from),
        None => CanFrame::new(id, &seen.data).map(CanAnyFrame::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socketcan::Frame as _;
    use socketcan::id::FdFlags;

    #[test]
    fn a_frame_is_sent_again_as_it_was() {
        let plain =
            Seen { at: Moment(0), id: 0x12, extended: false, remote: false, fd: None, data: vec![1, 2, 3] };
        for seen in [
            plain.clone(),
            Seen { extended: true, ..plain.clone() },
            Seen { remote: true, data: vec![0; 8], ..plain.clone() },
            Seen { fd: Some(FdFlags::BRS), data: vec![7; 48], extended: true, ..plain.clone() },
            Seen { fd: Some(FdFlags::ESI), ..plain.clone() },
        ] {
            let sent = again(&seen).expect("a frame");
            let flags = match &sent {
                CanAnyFrame::Fd(fd) => Some(fd.flags() & (FdFlags::BRS | FdFlags::ESI)),
                _ => None,
            };
            assert_eq!((sent.raw_id(), sent.is_extended()), (seen.id, seen.extended));
            assert_eq!((sent.is_remote_frame(), flags), (seen.remote, seen.fd));
            let length = if seen.remote { sent.dlc() } else { sent.data().len() };
            assert_eq!(length, seen.data.len());
            assert!(seen.remote || sent.data() == seen.data);
        }
        assert!(again(&Seen { id: 0x800, ..plain.clone() }).is_none());
        assert!(again(&Seen { data: vec![0; 9], ..plain }).is_none());
    }
}
