//! A witness on the bus: a CAN socket of its own that keeps every frame, classic or FD, with the kernel's time stamp.
//!
//! The stamps are made when the kernel queues a frame, so they do not depend on when this thread runs.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimestampns, RxqOvfl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use socketcan::id::FdFlags;
use socketcan::{CanFdSocket, Socket};

use crate::bound::OutOfTime;
use crate::clock::{self, Moment};
use crate::interface::far_end;
use crate::wire::{Motor, Seen};

/// Room for some seconds of a busy bus while this thread does not run.
const BUFFER: usize = 4 << 20;
/// How often the thread looks whether it shall end, and compares the clocks.
const PASS: u16 = 100;

/// Layout of `struct can_frame` and `struct canfd_frame`: identifier, length, flags (FD only), two more bytes,
/// data. The kernel tells the two apart by the size of what it hands over.
const LENGTH_AT: usize = 4;
const FLAGS_AT: usize = 5;
const DATA_AT: usize = 8;
const FD_SIZE: usize = 72;

#[derive(Debug, Default)]
struct Shared {
    frames: Mutex<Vec<Seen>>,
    news: Condvar,
    lost: AtomicU32,
    ending: AtomicBool,
}

impl Shared {
    fn frames(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The witness.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens at the wire of an interface from now on.
    ///
    /// # Errors
    /// There is no such interface, or the kernel cannot stamp frames.
    pub fn open(interface: &str) -> Result<Self> {
        let interface = &far_end(interface);
        let explain = || format!("cannot listen on {interface}");
        let socket = CanFdSocket::open(interface).with_context(explain)?;
        socket.set_nonblocking(true).with_context(explain)?;
        setsockopt(&socket.as_fd(), ReceiveTimestampns, &true).with_context(explain)?;
        setsockopt(&socket.as_fd(), RxqOvfl, &1).with_context(explain)?;
        // Without privileges the smaller buffer has to do; what is lost is noticed.
        let _ = setsockopt(&socket.as_fd(), RcvBufForce, &BUFFER);
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("listener".to_owned())
            .spawn(move || listen(&socket, &for_thread))
            .with_context(explain)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Every frame from a moment on. Fails if the kernel dropped any: a witness that missed something
    /// proves nothing.
    ///
    /// # Errors
    /// Frames were lost.
    pub fn since(&self, from: Moment) -> Result<Vec<Seen>> {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > 0 {
            bail!("the listener lost {lost} frames");
        }
        let frames = self.shared.frames();
        let first = frames.partition_point(|frame| frame.at < from);
        Ok(frames[first..].to_vec())
    }

    /// Forgets every frame before a moment: a witness of many minutes would fill the memory.
    pub fn forget(&self, before: Moment) {
        let mut frames = self.shared.frames();
        let kept = frames.partition_point(|frame| frame.at < before);
        frames.drain(..kept);
    }

    /// The first frame from a moment on that matches.
    ///
    /// # Errors
    /// Frames were lost.
    pub fn first(&self, from: Moment, matches: impl Fn(&Seen) -> bool) -> Result<Option<Seen>> {
        Ok(self.since(from)?.into_iter().find(|frame| matches(frame)))
    }

    /// How many frames within a time match.
    ///
    /// # Errors
    /// Frames were lost.
    pub fn count(&self, from: Moment, until: Moment, matches: impl Fn(&Seen) -> bool) -> Result<usize> {
        Ok(self.since(from)?.iter().filter(|frame| frame.at <= until && matches(frame)).count())
    }

    /// Waits for the first frame from a moment on that matches.
    ///
    /// # Errors
    /// There is none in time.
    pub fn wait(
        &self,
        from: Moment,
        limit: Duration,
        what: &str,
        matches: impl Fn(&Seen) -> bool,
    ) -> Result<Seen> {
        self.wait_until(from, Instant::now() + limit, limit, what, matches)
    }

    /// The same until a moment; `limit` is the time that began somewhere before and ends there.
    fn wait_until(
        &self,
        from: Moment,
        until: Instant,
        limit: Duration,
        what: &str,
        matches: impl Fn(&Seen) -> bool,
    ) -> Result<Seen> {
        let mut frames = self.shared.frames();
        let mut looked_at = frames.partition_point(|frame| frame.at < from);
        loop {
            if let Some(found) = frames[looked_at..].iter().find(|frame| matches(frame)) {
                return Ok(found.clone());
            }
            looked_at = frames.len();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let heard = frames.len() - frames.partition_point(|frame| frame.at < from);
                let text =
                    format!("no {what} on the bus within {limit:?} ({heard} other frames since {from})");
                return Err(OutOfTime::error(limit, text));
            }
            frames = self.shared.news.wait_timeout(frames, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a motor's first stop frame.
    ///
    /// # Errors
    /// There is none in time.
    pub fn wait_for_stop(&self, motor: &Motor, from: Moment, limit: Duration) -> Result<Seen> {
        self.wait(from, limit, &format!("stop frame for {}", motor.name), |frame| motor.is_stop(frame))
    }

    /// Waits until a motor is told to turn.
    ///
    /// # Errors
    /// It is not in time.
    pub fn wait_for_drive(&self, motor: &Motor, from: Moment, limit: Duration) -> Result<Seen> {
        self.wait(from, limit, &format!("motion frame for {}", motor.name), |frame| motor.drives(frame))
    }

    /// Waits for the complete set of a motor's stop frames from a moment on, and returns each at its first appearance.
    /// Who sent them may have ended before this witness, which is a thread of its own, has read the last.
    ///
    /// # Errors
    /// One of them does not come in time.
    pub fn wait_for_stop_set(&self, motor: &Motor, from: Moment, limit: Duration) -> Result<Vec<Seen>> {
        let until = Instant::now() + limit;
        let first = |(id, data): &(u32, Vec<u8>)| {
            let what = format!("stop frame {id:03X}#{data:02X?} for {}", motor.name);
            self.wait_until(from, until, limit, &what, |frame| frame.id == *id && frame.data == *data)
        };
        motor.stop_frames().iter().map(first).collect()
    }

    /// The last frame that told a motor to turn.
    ///
    /// # Errors
    /// Frames were lost.
    pub fn last_drive(&self, motor: &Motor, from: Moment) -> Result<Option<Seen>> {
        Ok(self.since(from)?.into_iter().rfind(|frame| motor.drives(frame)))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot fail but by a panic, which has been shown.
            drop(thread.join());
        }
    }
}

fn listen(socket: &CanFdSocket, shared: &Shared) {
    while !shared.ending.load(Ordering::Relaxed) {
        // Newly for every batch: the wall clock may be set while a test runs.
        let offset = clock::boottime_minus_realtime();
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PollTimeout::from(PASS)).is_err() {
            continue;
        }
        let mut batch = Vec::new();
        while let Some(frame) = receive(socket, offset, &shared.lost) {
            batch.push(frame);
        }
        if !batch.is_empty() {
            shared.frames().append(&mut batch);
            shared.news.notify_all();
        }
    }
}

/// One frame, or `None` when there is none at present.
fn receive(socket: &CanFdSocket, offset: i64, lost: &AtomicU32) -> Option<Seen> {
    loop {
        let mut buffer = [0; FD_SIZE];
        let mut control = cmsg_space!(TimeSpec, u32);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT);
        let message = match message {
            Ok(message) => message,
            // An interface that goes down says so once; it may come up again.
            Err(Errno::EINTR | Errno::ENETDOWN) => continue,
            Err(_) => return None,
        };
        let mut at = None;
        for part in message.cmsgs().ok()? {
            match part {
                ControlMessageOwned::ScmTimestampns(time) => {
                    at = Some(Moment(clock::nanos_of(time) + offset))
                }
                ControlMessageOwned::RxqOvfl(count) => lost.store(count, Ordering::Relaxed),
                _ => {}
            }
        }
        let at = at.unwrap_or_else(Moment::now);
        let size = message.bytes;
        // An error frame is no frame of the bus.
        if let Some(seen) = read(at, buffer.get(..size)?) {
            return Some(seen);
        }
    }
}

/// What the kernel has handed over; `None` if it is an error frame.
fn read(at: Moment, bytes: &[u8]) -> Option<Seen> {
    let id = u32::from_ne_bytes(bytes.get(..LENGTH_AT)?.try_into().ok()?);
    if id & libc::CAN_ERR_FLAG != 0 {
        return None;
    }
    let data = bytes.get(DATA_AT..)?;
    let length = usize::from(*bytes.get(LENGTH_AT)?).min(data.len());
    let flags = FdFlags::from_bits_truncate(*bytes.get(FLAGS_AT)?) & (FdFlags::BRS | FdFlags::ESI);
    Some(Seen {
        at,
        id: id & libc::CAN_EFF_MASK,
        extended: id & libc::CAN_EFF_FLAG != 0,
        remote: id & libc::CAN_RTR_FLAG != 0,
        fd: (bytes.len() == FD_SIZE).then_some(flags),
        data: data.get(..length)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel lays a frame out.
    fn laid_out(id: u32, flags: u8, data: &[u8], size: usize) -> Vec<u8> {
        let mut bytes = id.to_ne_bytes().to_vec();
        bytes.extend([u8::try_from(data.len()).expect("short"), flags, 0, 0]);
        bytes.extend(data);
        bytes.resize(size, 0);
        bytes
    }

    #[test]
    fn frames_are_read_with_their_form() {
        let read = |bytes: Vec<u8>| read(Moment(0), &bytes);
        let plain =
            Seen { at: Moment(0), id: 0x12, extended: false, remote: false, fd: None, data: vec![1, 2] };
        assert_eq!(read(laid_out(0x12, 0, &[1, 2], 16)), Some(plain.clone()));
        let extended = Seen { extended: true, ..plain.clone() };
        assert_eq!(read(laid_out(libc::CAN_EFF_FLAG | 0x12, 0, &[1, 2], 16)), Some(extended));
        let remote = Seen { remote: true, data: vec![0, 0], ..plain.clone() };
        assert_eq!(read(laid_out(libc::CAN_RTR_FLAG | 0x12, 0, &[0, 0], 16)), Some(remote));
        // The kernel marks FD frames as such (0x04) in their flags since 5.14.
        let fd = Seen { fd: Some(FdFlags::BRS), ..plain.clone() };
        assert_eq!(read(laid_out(0x12, 0x05, &[1, 2], 72)), Some(fd));
        let long = Seen { fd: Some(FdFlags::ESI), data: vec![7; 64], ..plain };
        assert_eq!(read(laid_out(0x12, 0x02, &[7; 64], 72)), Some(long));
        assert_eq!(read(laid_out(libc::CAN_ERR_FLAG | 0x12, 0, &[1, 2], 16)), None);
    }
}
