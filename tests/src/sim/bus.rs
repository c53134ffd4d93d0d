//! The one loop that joins simulated drives to a CAN interface, the clock and the control socket.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use socketcan::id::FdFlags;
use socketcan::{
    CanAnyFrame, CanFdFrame, CanFdSocket, CanFilter, CanFrame, EmbeddedFrame, ExtendedId, Frame as _, Id,
    Socket, SocketOptions, StandardId,
};

use super::control::Control;
use super::frame::{Frame, IdRange};
use super::{Drive, Time};

/// Frames taken from the socket before the clock is read again and cyclic frames are sent.
const BURST: usize = 64;

/// A drive is looked at no more often than this, however soon it is due.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// An open CAN interface: frames of both formats, if it carries both.
#[derive(Debug)]
pub struct Bus {
    socket: CanFdSocket,
    name: String,
}

impl Bus {
    /// Opens the interface and asks the kernel for the frames that some drive listens to.
    ///
    /// # Errors
    /// There is no such interface, or it does not carry CAN.
    pub fn open(name: &str, drives: &[Drive]) -> Result<Self> {
        let explain = || format!("cannot open CAN interface {name:?}");
        if let Err(e) = nix::net::if_::if_nametoindex(name) {
            bail!("{}: {} (does it exist?)", explain(), e.desc());
        }
        let socket = CanFdSocket::open(name).with_context(explain)?;
        socket.set_nonblocking(true).with_context(explain)?;
        let filters: Vec<CanFilter> = drives.iter().flat_map(Drive::heard_ids).map(filter).collect();
        socket.set_filters(&filters).with_context(explain)?;
        Ok(Self { socket, name: name.to_owned() })
    }

    /// Runs the drives until a signal arrives on `signals`.
    ///
    /// # Errors
    /// The interface has been removed, or a system call fails for no reason known here.
    pub fn run(&self, drives: &mut [Drive], mut control: Option<Control>, signals: &SignalFd) -> Result<()> {
        let start = Instant::now();
        let mut out = Vec::new();
        loop {
            let now = start.elapsed();
            for drive in drives.iter_mut().filter(|d| d.next_due() <= now) {
                drive.tick(now, &mut out);
            }
            self.send(&mut out)?;
            let due = drives.iter().map(Drive::next_due).min().unwrap_or(Time::MAX);
            let ready = wait(&self.socket, control.as_ref(), signals, due.saturating_sub(now))?;
            if ready.signal {
                return Ok(());
            }
            let now = start.elapsed();
            if ready.bus {
                self.receive(now, drives, &mut out)?;
            }
            if ready.control
                && let Some(control) = &mut control
            {
                control.serve(now, drives, &mut out);
            }
            self.send(&mut out)?;
        }
    }

    fn receive(&self, now: Time, drives: &mut [Drive], out: &mut Vec<Frame>) -> Result<()> {
        for _ in 0..BURST {
            match self.socket.read_frame() {
                Ok(frame) => {
                    let Some(frame) = from_socket(&frame) else { continue };
                    for drive in &mut *drives {
                        drive.on_frame(now, &frame, out);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => self.tolerate(e)?,
            }
        }
        Ok(())
    }

    /// A frame that does not fit into the transmit queue is lost, as on a real bus that is overloaded; and an
    /// FD frame on an interface without FD, as where no other controller acknowledges it.
    fn send(&self, out: &mut Vec<Frame>) -> Result<()> {
        for frame in out.drain(..) {
            let Some(sent) = to_socket(&frame) else { continue };
            match self.socket.write_frame(&sent) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if frame.is_fd() && is_format_refused(&e) => {}
                Err(e) => self.tolerate(e)?,
            }
        }
        Ok(())
    }

    /// A drive lives on while its bus is down or busy, but not without any.
    fn tolerate(&self, error: std::io::Error) -> Result<()> {
        match error.raw_os_error() {
            Some(libc::ENETDOWN | libc::ENOBUFS | libc::EINTR) => Ok(()),
            _ => Err(error).with_context(|| format!("CAN interface {:?} is lost", self.name)),
        }
    }
}

/// What there is to do.
#[derive(Clone, Copy, Debug)]
struct Ready {
    signal: bool,
    bus: bool,
    control: bool,
}

/// Waits until there is something to do or `span` has passed.
fn wait(
    socket: &CanFdSocket,
    control: Option<&Control>,
    signals: &SignalFd,
    span: Duration,
) -> Result<Ready> {
    let mut all =
        vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    all.extend(control.iter().flat_map(|c| c.descriptors()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    // Milliseconds, rounded up: waking before the time would only mean waiting again.
    let millis = span.max(SHORTEST_WAIT).as_nanos().div_ceil(1_000_000);
    let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::NONE);
    match poll(&mut all, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(e) => return Err(e).context("cannot wait for frames"),
    }
    let mut ready = all.iter().map(|p| p.any().unwrap_or_default());
    Ok(Ready {
        signal: ready.next().unwrap_or_default(),
        bus: ready.next().unwrap_or_default(),
        control: ready.any(|r| r),
    })
}

fn filter(range: IdRange) -> CanFilter {
    // Data and remote frames of one identifier form: the flag for the form is part of the mask.
    let form = if range.extended { libc::CAN_EFF_FLAG } else { 0 };
    CanFilter::new(range.first | form, range.mask | libc::CAN_EFF_FLAG)
}

/// Whether the interface does not carry frames of that size.
fn is_format_refused(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE))
}

fn from_socket(frame: &CanAnyFrame) -> Option<Frame> {
    let id = frame.raw_id();
    let plain = match frame {
        CanAnyFrame::Normal(f) => Frame::data(id, f.data()),
        CanAnyFrame::Remote(f) => Frame::request(id, u8::try_from(f.dlc()).ok()?),
        CanAnyFrame::Fd(f) => Frame::fd(id, f.data()),
        CanAnyFrame::Error(_) => return None,
    };
    Some(plain.with_extended(frame.is_extended()))
}

fn to_socket(frame: &Frame) -> Option<CanAnyFrame> {
    let id: Id = if frame.extended {
        ExtendedId::new(frame.id)?.into()
    } else {
        StandardId::new(u16::try_from(frame.id).ok()?)?.into()
    };
    if frame.is_fd() {
        // Drives with FD send the data at the faster rate.
        CanFdFrame::with_flags(id, frame.payload(), FdFlags::BRS).map(CanAnyFrame::Fd)
    } else if frame.remote {
        CanFrame::new_remote(id, usize::from(frame.len())).map(CanAnyFrame::from)
    } else {
        CanFrame::new(id, frame.payload()).map(CanAnyFrame::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_pass_the_socket_unchanged() {
        let long: Vec<u8> = (0..48).collect();
        for frame in [
            Frame::data(0x123, &[1, 2, 3]),
            Frame::data(0x123, &[1, 2, 3]).with_extended(true),
            Frame::request(0x123, 8),
            Frame::fd(0x123, &[]),
            Frame::fd(0x123, &[1, 2, 3]),
            Frame::fd(0x1800_0001, &long).with_extended(true),
        ] {
            let sent = to_socket(&frame).expect("can be sent");
            assert_eq!(from_socket(&sent), Some(frame));
            assert_eq!(matches!(&sent, CanAnyFrame::Fd(f) if f.is_brs()), frame.is_fd());
        }
        assert!(to_socket(&Frame::data(0x800, &[])).is_none());
    }
}
