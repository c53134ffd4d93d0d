//! What wakes the real-time thread: signals, the end of the front, frames, an operator's stop, and the time.
//!
//! All of it is one epoll descriptor. With `ppoll` the kernel would put the thread into the queue of every
//! descriptor each time it goes to sleep, and take it out of all of them between the timer and the stop frame: 9 us of
//! the 46 that a deadline took on the slow processor of the benchmark (docs/benchmark.md).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use shm_proto::verdicts::MOST_BUSES;

use crate::sys;

/// What one sleep ended with; nothing of it: its time was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// The front's process has ended.
    pub front_ended: bool,
    /// Somebody has pressed stop since the last sleep.
    pub pressed: bool,
    /// A signal has come.
    pub signalled: bool,
    /// Which buses have something to receive.
    pub readable: [bool; MOST_BUSES],
}

/// Marks of the descriptors; a bus has its number.
const SIGNALS: u64 = 1 << 32;
const FRONT: u64 = 1 << 33;
const STOP: u64 = 1 << 34;
/// Signals, the front, the operator's stop, and the buses.
const MOST_EVENTS: usize = MOST_BUSES + 3;
/// Each press wakes once, although nobody reads the FIFO at once: what is readable and stays so would wake for ever.
const ON_PRESS: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

/// How the kernel is told how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clockwork {
    /// In one call.
    Epoll,
    /// Before Linux 5.11 epoll counts whole milliseconds: `ppoll` waits for the epoll descriptor instead.
    Ppoll,
}

/// The descriptors the thread waits for.
#[derive(Debug)]
pub struct Wakeups {
    epoll: Epoll,
    clockwork: Clockwork,
    /// The FIFO of the operator's stop, if there is one.
    stop: Option<OwnedFd>,
}

impl Wakeups {
    /// For these signals and buses, in their order.
    ///
    /// # Errors
    ///
    /// The kernel has no descriptor or memory left.
    pub fn new<'a>(
        signals: BorrowedFd<'_>,
        buses: impl IntoIterator<Item = Option<BorrowedFd<'a>>>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        for (bus, fd) in (0..).zip(buses) {
            if let Some(fd) = fd {
                epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, bus))?;
            }
        }
        let clockwork = match sys::epoll_pwait2(epoll.0.as_fd(), &mut [EpollEvent::empty()], 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Clockwork::Ppoll,
            _ => Clockwork::Epoll,
        };
        Ok(Self { epoll, clockwork, stop: None })
    }

    /// From now on an operator's stop is a reason to wake. Bytes that lie in the FIFO already are one.
    ///
    /// # Errors
    ///
    /// The kernel has no descriptor or memory left.
    pub fn watch_stop(&mut self, fifo: BorrowedFd<'_>) -> io::Result<()> {
        let fifo = fifo.try_clone_to_owned()?;
        self.epoll.add(&fifo, EpollEvent::new(ON_PRESS, STOP))?;
        self.stop = Some(fifo);
        Ok(())
    }

    /// Presses wake no more, until [`Wakeups::heed_stop`].
    pub fn ignore_stop(&self) {
        self.wait_for_stop(EpollFlags::EPOLLET);
    }

    /// Presses wake again.
    pub fn heed_stop(&self) {
        self.wait_for_stop(ON_PRESS);
    }

    fn wait_for_stop(&self, flags: EpollFlags) {
        if let Some(fifo) = &self.stop {
            // It changes what is there already, which takes no memory: it cannot fail.
            let _ = self.epoll.modify(fifo, &mut EpollEvent::new(flags, STOP));
        }
    }

    /// Frames of this bus wake no more, until [`Wakeups::heed_bus`].
    pub fn ignore_bus(&self, bus: usize, fd: BorrowedFd<'_>) {
        self.wait_for_bus(bus, fd, EpollFlags::empty());
    }

    /// Frames of this bus wake again.
    pub fn heed_bus(&self, bus: usize, fd: BorrowedFd<'_>) {
        self.wait_for_bus(bus, fd, EpollFlags::EPOLLIN);
    }

    fn wait_for_bus(&self, bus: usize, fd: BorrowedFd<'_>, flags: EpollFlags) {
        // As with the operator's stop: it cannot fail.
        let _ = self.epoll.modify(fd, &mut EpollEvent::new(flags, bus as u64));
    }

    /// From now on the end of this process is a reason to wake.
    ///
    /// # Errors
    ///
    /// The kernel has no memory left.
    pub fn watch_front(&self, process: BorrowedFd<'_>) -> Result<(), Errno> {
        self.epoll.add(process, EpollEvent::new(EpollFlags::EPOLLIN, FRONT))
    }

    /// No longer. Without this an ended process would wake the thread again and again.
    pub fn forget_front(&self, process: BorrowedFd<'_>) {
        // It can only fail for a process that is not watched.
        let _ = self.epoll.delete(process);
    }

    /// Sleeps until there is something to do, at most that many nanoseconds. An error ends the sleep with nothing:
    /// the loop then does what it does on a tick.
    pub fn sleep(&self, nanos: u64) -> Wake {
        let mut events = [EpollEvent::empty(); MOST_EVENTS];
        let epoll = self.epoll.0.as_fd();
        let count = match self.clockwork {
            Clockwork::Epoll => sys::epoll_pwait2(epoll, &mut events, nanos),
            Clockwork::Ppoll => {
                let wait = TimeSpec::from_duration(Duration::from_nanos(nanos));
                match ppoll(&mut [PollFd::new(epoll, PollFlags::POLLIN)], Some(wait), None) {
                    Ok(1..) => sys::epoll_take(epoll, &mut events),
                    _ => Ok(0),
                }
            }
        };
        let mut wake = Wake::default();
        for event in events.iter().take(count.unwrap_or(0)) {
            match event.data() {
                SIGNALS => wake.signalled = true,
                FRONT => wake.front_ended = true,
                STOP => wake.pressed = true,
                bus => {
                    let place = usize::try_from(bus).ok().and_then(|bus| wake.readable.get_mut(bus));
                    if let Some(readable) = place {
                        *readable = true;
                    }
                }
            }
        }
        wake
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::process::Command;
    use std::time::{Duration, Instant};

    use nix::sys::eventfd::EventFd;

    use super::{Clockwork, Wake, Wakeups};
    use crate::sys;

    struct Scene {
        signals: EventFd,
        buses: [EventFd; 2],
        wakeups: Wakeups,
    }

    fn scene(clockwork: Clockwork) -> Scene {
        let new = || EventFd::new().unwrap();
        let (signals, buses) = (new(), [new(), new()]);
        let fds = [Some(buses[0].as_fd()), None, Some(buses[1].as_fd())];
        let wakeups = Wakeups { clockwork, ..Wakeups::new(signals.as_fd(), fds).unwrap() };
        Scene { signals, buses, wakeups }
    }

    fn both(test: impl Fn(Scene)) {
        [Clockwork::Epoll, Clockwork::Ppoll].map(scene).into_iter().for_each(test);
    }

    #[test]
    fn nothing_but_time_passes() {
        both(|scene| {
            let begun = Instant::now();
            assert_eq!(scene.wakeups.sleep(1_200_000), Wake::default());
            // Rounded to milliseconds it would be one.
            assert!(begun.elapsed() >= Duration::from_micros(1_200));
            assert_eq!(scene.wakeups.sleep(0), Wake::default());
        });
    }

    #[test]
    fn each_bus_and_the_signals_are_told_apart_until_they_are_read() {
        both(|scene| {
            scene.buses[1].write(1).unwrap();
            for _ in 0..2 {
                let wake = scene.wakeups.sleep(u64::MAX / 4);
                assert_eq!((wake.readable[0], wake.readable[1], wake.readable[2]), (false, false, true));
                assert!(!wake.signalled && !wake.front_ended);
            }
            scene.buses[1].read().unwrap();
            scene.signals.write(1).unwrap();
            assert_eq!(scene.wakeups.sleep(u64::MAX / 4), Wake { signalled: true, ..Wake::default() });
        });
    }

    /// As the supervisor opens its FIFO.
    fn pipe() -> (OwnedFd, OwnedFd) {
        nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap()
    }

    #[test]
    fn each_press_wakes_once_whether_it_is_read_or_not() {
        both(|mut scene| {
            let (reader, writer) = pipe();
            let press = || nix::unistd::write(&writer, b"!").unwrap();
            press();
            scene.wakeups.watch_stop(reader.as_fd()).unwrap();
            let pressed = Wake { pressed: true, ..Wake::default() };
            for _ in 0..3 {
                assert_eq!(scene.wakeups.sleep(u64::MAX / 4), pressed, "the first lay there before");
                assert_eq!(scene.wakeups.sleep(1), Wake::default(), "once for each");
                press();
            }
            assert_eq!(scene.wakeups.sleep(u64::MAX / 4), pressed);
            press();
            press();
            assert_eq!(scene.wakeups.sleep(u64::MAX / 4), pressed);
            assert_eq!(scene.wakeups.sleep(1), Wake::default(), "two at once are one");
        });
    }

    #[test]
    fn what_is_ignored_wakes_when_it_is_heeded_again() {
        both(|mut scene| {
            let (reader, writer) = pipe();
            let press = || nix::unistd::write(&writer, b"!").unwrap();
            scene.wakeups.watch_stop(reader.as_fd()).unwrap();
            scene.wakeups.ignore_stop();
            press();
            assert_eq!(scene.wakeups.sleep(1), Wake::default());
            scene.wakeups.heed_stop();
            let pressed = Wake { pressed: true, ..Wake::default() };
            assert_eq!(scene.wakeups.sleep(u64::MAX / 4), pressed);
            assert_eq!(scene.wakeups.sleep(1), Wake::default());
        });
    }

    fn process(command: &str) -> (std::process::Child, OwnedFd) {
        let child = Command::new(command).arg("60").spawn().unwrap();
        let fd = sys::pidfd_open(child.id()).unwrap();
        (child, fd)
    }

    #[test]
    fn the_end_of_the_front_wakes_until_it_is_forgotten() {
        both(|scene| {
            let (mut child, fd) = process("sleep");
            scene.wakeups.watch_front(fd.as_fd()).unwrap();
            assert_eq!(scene.wakeups.sleep(1), Wake::default(), "it lives");
            child.kill().unwrap();
            assert!(scene.wakeups.sleep(u64::MAX / 4).front_ended);
            scene.wakeups.forget_front(fd.as_fd());
            assert_eq!(scene.wakeups.sleep(1), Wake::default());
            child.wait().unwrap();
        });
    }
}
