//! What the real-time thread hands its frames to: drives at the other end of a socket, and around them, or around
//! real CAN sockets, the meter that notes when each motor's frames were handed over.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use drivers::{ArbitrationId, Frame};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use shm_proto::Nanos;
use socketcan::{CanDataFrame, CanSocket, EmbeddedFrame as _, Socket as _, StandardId};
use supervisor::bus::Received;
use supervisor::core::{Origin, SendError, Wire};
use supervisor::runtime::Ports;

use super::robot::motor_of;

/// An identifier and eight bytes.
const PACKET: usize = 10;

/// One bus whose frames go nowhere and whose feedback comes from [`Drives`]. Where there is no CAN it stands
/// for the kernel: handing a frame over costs nothing.
#[derive(Debug)]
pub struct Sink(OwnedFd);

/// The drives' end of a bus.
#[derive(Debug)]
pub enum Drives {
    /// Of a [`Sink`].
    Socket(OwnedFd),
    /// Of a CAN interface.
    Can(CanSocket),
}

/// A sink and the drives on it.
///
/// # Errors
/// There are no descriptors left.
pub fn sink() -> Result<(Sink, Drives)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok((Sink(ours), Drives::Socket(theirs)))
}

impl Drives {
    /// Drives on a CAN interface.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn on(interface: &str) -> Result<Self> {
        Ok(Self::Can(CanSocket::open(interface)?))
    }

    /// Sends a frame to the supervisor. What the other end has no room for is lost, as on a bus.
    pub fn say(&self, frame: &Frame) {
        let ArbitrationId::Standard(id) = frame.id() else { return };
        match self {
            Self::Socket(socket) => {
                let mut packet = [0; PACKET];
                packet[..2].copy_from_slice(&id.to_le_bytes());
                packet[2..].copy_from_slice(frame.payload());
                let _ = send(socket.as_raw_fd(), &packet, MsgFlags::MSG_DONTWAIT);
            }
            Self::Can(socket) => {
                let frame = StandardId::new(id).and_then(|id| CanDataFrame::new(id, frame.payload()));
                let _ = frame.map(|frame| socket.write_frame(&frame));
            }
        }
    }
}

impl Wire for Sink {
    fn send(&mut self, _bus: usize, _frame: &Frame) -> Result<(), SendError> {
        Ok(())
    }

    fn now(&mut self) -> Nanos {
        Nanos::now()
    }
}

impl Ports for Sink {
    fn count(&self) -> usize {
        1
    }

    fn fd(&self, _bus: usize) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn receive(&mut self, _bus: usize) -> Received {
        let mut packet = [0; PACKET];
        match recv(self.0.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
            Ok(PACKET) => {
                let id = u16::from_le_bytes([packet[0], packet[1]]);
                Received::Frame(Origin::Wire, Frame::classic(ArbitrationId::standard(id), &packet[2..]))
            }
            _ => Received::Nothing,
        }
    }
}

/// When frames for each motor were handed over, since the note was last cleared.
#[derive(Debug)]
pub struct Stamps {
    first: Vec<AtomicU64>,
    last: Vec<AtomicU64>,
}

impl Stamps {
    /// Nothing yet, for that many motors.
    pub fn new(motors: u16) -> Arc<Self> {
        let zeros = || (0..motors).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { first: zeros(), last: zeros() })
    }

    /// Forgets what was noted for a motor.
    pub fn clear(&self, motor: u16) {
        self.first[usize::from(motor)].store(0, Ordering::SeqCst);
    }

    /// When the first frame since then was handed over: when the call began that took it. What the kernel does
    /// within it, the driver's work and the delivery to every listener of a vcan, is the kernel's.
    pub fn first(&self, motor: u16) -> Option<Nanos> {
        let first = self.first[usize::from(motor)].load(Ordering::SeqCst);
        (first != 0).then_some(Nanos(first))
    }

    /// When the call that took the last one returned.
    pub fn last(&self, motor: u16) -> Nanos {
        Nanos(self.last[usize::from(motor)].load(Ordering::SeqCst))
    }

    fn note(&self, motor: usize, handed_over: Nanos) {
        let (Some(first), Some(last)) = (self.first.get(motor), self.last.get(motor)) else { return };
        last.store(Nanos::now().0, Ordering::SeqCst);
        let _ = first.compare_exchange(0, handed_over.0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// Notes when the ports inside it have taken a frame.
#[derive(Debug)]
pub struct Meter<P> {
    /// What is measured.
    pub inner: P,
    /// The notes.
    pub stamps: Arc<Stamps>,
}

impl<P: Ports> Wire for Meter<P> {
    fn send(&mut self, bus: usize, frame: &Frame) -> Result<(), SendError> {
        let handed_over = Nanos::now();
        self.inner.send(bus, frame)?;
        if let Some(motor) = motor_of(frame) {
            self.stamps.note(motor, handed_over);
        }
        Ok(())
    }

    fn now(&mut self) -> Nanos {
        self.inner.now()
    }
}

impl<P: Ports> Ports for Meter<P> {
    fn count(&self) -> usize {
        self.inner.count()
    }

    fn fd(&self, bus: usize) -> Option<BorrowedFd<'_>> {
        self.inner.fd(bus)
    }

    fn receive(&mut self, bus: usize) -> Received {
        self.inner.receive(bus)
    }
}
