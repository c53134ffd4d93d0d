//! The real-time thread: sleeps until the earliest deadline, tick or frame, and feeds the core.
//!
//! After arming it makes no system call but the clock, `epoll_pwait2`, and non-blocking CAN reads and writes (to the
//! kernel-armed stop, too); `epoll_ctl` when a front comes or goes, while nothing is granted, and when a bus brings more than
//! a real one carries. It takes no lock, allocates nothing, and says nothing to anyone but through its queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use shm_proto::verdicts::{BusHealth, MOST_BUSES, Reason};
use shm_proto::{BeatView, Nanos, TripId};

use crate::bus::Received;
use crate::core::{Core, Wire};
use crate::intake::{Intake, Reading};
use crate::kernel_stop::KernelStop;
use crate::meter::Meter;
use crate::queue::{Asker, Command, Reply, Responders, Retired};
use crate::recording::Input;
use crate::wakeups::{Wake, Wakeups};

/// Frames taken from one bus before deadlines are looked at again. A classic bus at 1 Mbit/s carries
/// about 20 of the shortest frames per millisecond.
const FRAMES_AT_A_TIME: usize = 32;
/// Presses of stop that are answered one by one within [`CROWD`]. So many people do not press at once; whatever presses
/// more often must not keep the thread awake, which would use up its fuse (RLIMIT_RTTIME).
const MOST_PRESSES: u8 = 8;
/// Within what time presses are counted together, nanoseconds: a tick, after which the thread is awake anyway.
const CROWD: u64 = 5_000_000;
/// How much longer than its stop programmes a shutdown waits before it gives up on proof.
const SHUTDOWN_GRACE: u64 = 200_000_000;

/// The buses as the real-time thread needs them: [`Buses`](crate::bus::Buses), or whatever a benchmark puts in their place.
pub trait Ports: Wire {
    /// Number of buses.
    fn count(&self) -> usize;
    /// The descriptor to wait on for frames.
    fn fd(&self, bus: usize) -> Option<BorrowedFd<'_>>;
    /// Receives without waiting.
    fn receive(&mut self, bus: usize) -> Received;

    /// Takes note of what the core is given next. Nothing, unless it is recorded; the same holds of all that follow.
    fn note(&mut self, _input: &Input) {}

    /// The core is about to look at what the front has written.
    fn look(&mut self) {}

    /// The core has looked, and published what follows.
    fn looked(&mut self) {}

    /// A front has come with this segment. Returns what the core is to read.
    fn come(&mut self, segment: BeatView) -> BeatView {
        segment
    }

    /// The core has given back what it read. Returns the segment to release.
    fn go(&mut self, view: BeatView) -> BeatView {
        view
    }

    /// What wakes the thread: these signals, and frames.
    ///
    /// # Errors
    /// The kernel has no descriptor or memory left.
    fn wakeups(&self, signals: &SignalFd) -> io::Result<Wakeups> {
        Wakeups::new(signals.as_fd(), (0..self.count()).map(|bus| self.fd(bus)))
    }
}

/// Everything the real-time thread owns.
#[derive(Debug)]
pub struct Runtime<P> {
    /// The decisions.
    pub core: Core,
    /// The buses.
    pub buses: P,
    /// What the other threads ask, and what they are answered.
    pub responders: Responders,
    /// What ends its sleep: the buses, the signals, and a front while there is one.
    pub wakeups: Wakeups,
    /// SIGTERM, SIGINT and SIGHUP.
    pub signals: SignalFd,
    /// The front's process.
    pub front: Option<OwnedFd>,
    /// What the kernel does when this thread no longer comes round.
    pub kernel_stop: KernelStop,
    /// How often stop was pressed lately.
    pub presses: Presses,
    /// How much the buses have brought lately.
    pub intake: Intake,
}

/// Presses of stop since a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presses {
    since: Nanos,
    count: u8,
}

impl Presses {
    /// Counts one more.
    fn add(&mut self, now: Nanos) {
        if now.since(self.since) >= CROWD {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
    }

    /// Whether no more are to be answered one by one.
    const fn are_too_many(self) -> bool {
        self.count >= MOST_PRESSES
    }
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Continue,
    Stop,
}

impl<P> Runtime<P> {
    /// The same over other buses.
    #[must_use]
    pub fn over<Q>(self, change: impl FnOnce(P) -> Q) -> Runtime<Q> {
        Runtime {
            core: self.core,
            buses: change(self.buses),
            responders: self.responders,
            wakeups: self.wakeups,
            signals: self.signals,
            front: self.front,
            kernel_stop: self.kernel_stop,
            presses: self.presses,
            intake: self.intake,
        }
    }
}

impl<P: Ports> Runtime<P> {
    /// Publishes what the system refused, as a sum of [`shm_proto::verdicts::Degraded`] bits.
    pub fn degraded(&mut self, bits: u64) {
        self.buses.note(&Input::Degraded { bits });
        self.core.degraded(bits);
    }

    /// Runs until told to exit, then stops every motor and says so.
    pub fn run(&mut self) {
        let mut meter = Meter::arm();
        let now = Nanos::now();
        self.buses.note(&Input::Start { now });
        self.core.start(now, &mut self.buses);
        self.put_off_kernel_stop();
        let mut leave_by = None;
        loop {
            let asleep_since = Nanos::now();
            let wake = self.sleep();
            let now = Nanos::now();
            // Before anything else of this pass, like the end of the front: all its sessions are over.
            self.heed_stop(&wake, now);
            if wake.front_ended {
                self.front_ended(now);
            }
            self.step(now);
            if let Some(cost) = meter.read(now) {
                self.buses.note(&Input::Costs { cost });
                self.core.costs(cost);
            }
            // Only here: whoever comes this far has looked at every deadline.
            self.put_off_kernel_stop();
            self.receive(&wake, asleep_since);
            self.obey();
            if wake.signalled && self.read_signal() == Then::Stop && leave_by.is_none() {
                let now = Nanos::now();
                self.buses.note(&Input::ShutDown { now });
                self.core.shut_down(now, &mut self.buses);
                leave_by = Some(now.after(self.core.longest_stop() + SHUTDOWN_GRACE));
            }
            if let Some(latest) = leave_by {
                let now = Nanos::now();
                if self.core.is_at_rest() || now >= latest {
                    self.leave(now);
                    return;
                }
            }
        }
    }

    /// One pass of the core.
    fn step(&mut self, now: Nanos) {
        let looks = now >= self.core.next_wakeup();
        if looks {
            self.buses.look();
        }
        self.buses.note(&Input::Step { now });
        self.core.step(now, &mut self.buses);
        if looks {
            self.buses.looked();
        }
    }

    fn put_off_kernel_stop(&mut self) {
        if let Some(tally) = self.kernel_stop.put_off(Nanos::now) {
            let now = Nanos::now();
            self.buses.note(&Input::KernelStop { tally, now });
            self.core.kernel_stop(tally, now, &mut self.buses);
        }
    }

    /// Waits for a frame, the end of the front, a signal, or the core's next wakeup.
    fn sleep(&mut self) -> Wake {
        let now = Nanos::now();
        for bus in 0..self.buses.count().min(MOST_BUSES) {
            if self.intake.resume(bus, now)
                && let Some(fd) = self.buses.fd(bus)
            {
                self.wakeups.heed_bus(bus, fd);
            }
        }
        self.wakeups.sleep(self.core.next_wakeup().since(Nanos::now()))
    }

    /// Stops everything if somebody has pressed stop.
    fn heed_stop(&mut self, wake: &Wake, now: Nanos) {
        if self.presses.are_too_many() {
            if now.since(self.presses.since) < CROWD {
                return;
            }
            // What was pressed meanwhile may have been read by housekeeping, so it is not asked whether anything was.
            self.presses = Presses::default();
            self.wakeups.heed_stop();
        } else if !wake.pressed {
            return;
        }
        self.press(now);
        self.presses.add(now);
        if self.presses.are_too_many() {
            self.wakeups.ignore_stop();
        }
    }

    /// Stops everything until it is reset.
    fn press(&mut self, now: Nanos) -> TripId {
        self.buses.note(&Input::Press { now });
        self.core.press(now, &mut self.buses)
    }

    fn front_ended(&mut self, now: Nanos) {
        let reason = Reason::FrontDead;
        self.buses.note(&Input::Detach { reason, now });
        let Some(view) = self.core.detach(reason, now, &mut self.buses) else { return };
        let view = self.buses.go(view);
        self.tell(Asker::Fronts, Reply::Retired(Retired::View(view)));
        if let Some(process) = self.front.take() {
            self.wakeups.forget_front(process.as_fd());
            self.tell(Asker::Fronts, Reply::Retired(Retired::Process(process)));
        }
        self.tell(Asker::Fronts, Reply::FrontGone);
    }

    /// Reads what has come on the buses. Those that are not readable were looked at after `asleep_since`.
    fn receive(&mut self, wake: &Wake, asleep_since: Nanos) {
        for bus in 0..self.buses.count().min(MOST_BUSES) {
            if !wake.readable[bus] {
                if self.intake.is_read(bus) {
                    self.intake.note_empty(bus, asleep_since);
                }
                continue;
            }
            // An error of its socket wakes the loop also for a bus that is left unread.
            if !self.intake.is_read(bus) {
                continue;
            }
            let mut asked = Nanos::now();
            for _ in 0..FRAMES_AT_A_TIME {
                match self.buses.receive(bus) {
                    Received::Frame(origin, frame) => {
                        let now = Nanos::now();
                        let arrival = self.intake.arrival(bus, now);
                        self.buses.note(&Input::Received { bus, origin, frame, arrival });
                        self.core.received(bus, origin, &frame, arrival, &mut self.buses);
                    }
                    Received::Confirmed(frame) => {
                        let now = Nanos::now();
                        self.buses.note(&Input::Confirmed { bus, frame, now });
                        self.core.confirmed(bus, &frame, now);
                    }
                    Received::Report(origin, report) => {
                        let now = Nanos::now();
                        self.buses.note(&Input::Reported { bus, origin, report, now });
                        self.core.reported(bus, origin, report, now, &mut self.buses);
                    }
                    Received::Other => {}
                    Received::Nothing => {
                        self.intake.note_empty(bus, asked);
                        break;
                    }
                    Received::Broken(errno) => {
                        let now = Nanos::now();
                        self.buses.note(&Input::BusDown { bus, errno, now });
                        self.core.bus_down(bus, errno, now, &mut self.buses);
                        break;
                    }
                }
                asked = Nanos::now();
                if self.intake.add(bus, asked) == Reading::Ends {
                    if let Some(fd) = self.buses.fd(bus) {
                        self.wakeups.ignore_bus(bus, fd);
                    }
                    break;
                }
            }
        }
    }

    /// Does what the other threads ask. One that asks without end is answered once for each place of its queue.
    fn obey(&mut self) {
        for asker in Asker::ALL {
            let waiting = self.responders.of(asker).commands.slots();
            for _ in 0..waiting {
                let Ok(command) = self.responders.of(asker).commands.pop() else { break };
                self.carry_out(command, asker, Nanos::now());
            }
        }
    }

    fn carry_out(&mut self, command: Command, asker: Asker, now: Nanos) {
        match command {
            Command::Attach { view, pid, pidfd } => {
                self.buses.note(&Input::Attach { generation: view.generation(), pid, now });
                let view = self.buses.come(view);
                if let Some(before) = self.core.attach(view, pid, now, &mut self.buses) {
                    let before = self.buses.go(before);
                    self.tell(asker, Reply::Retired(Retired::View(before)));
                }
                if let Some(before) = self.front.take() {
                    self.wakeups.forget_front(before.as_fd());
                    self.tell(asker, Reply::Retired(Retired::Process(before)));
                }
                let watched = self.wakeups.watch_front(pidfd.as_fd());
                self.front = Some(pidfd);
                self.tell(asker, Reply::Attached);
                if watched.is_err() {
                    // A front whose end nobody would see is none.
                    self.front_ended(now);
                }
            }
            Command::Detach => self.front_ended(now),
            Command::Estop => {
                let trip = self.press(now);
                self.tell(asker, Reply::Stopped { trip });
            }
            Command::Reset { seen } => {
                self.buses.note(&Input::Reset { seen, now });
                let outcome = self.core.reset(seen, now);
                self.tell(asker, Reply::Reset { trip: seen.trip, outcome });
            }
            Command::Bus { bus, health, counters } => {
                if let Some((transmit, receive)) = counters {
                    self.buses.note(&Input::Counters { bus, transmit, receive });
                    self.core.bus_counters(bus, transmit, receive);
                }
                if health != BusHealth::Down {
                    self.kernel_stop.restore(bus);
                }
                self.buses.note(&Input::Health { bus, health, now });
                self.core.bus_health(bus, health, now, &mut self.buses);
            }
            Command::Degraded { bits } => self.degraded(bits),
            Command::Latches(kept) => {
                self.buses.note(&Input::Kept { kept });
                self.core.latches_kept(kept);
            }
        }
    }

    /// Says something to another thread. Should its queue ever be full, the word is lost and its content
    /// leaks: that thread is then stuck, and waiting for it is the one thing not to do.
    fn tell(&mut self, asker: Asker, reply: Reply) {
        if let Err(rtrb::PushError::Full(reply)) = self.responders.of(asker).replies.push(reply) {
            std::mem::forget(reply);
        }
    }

    fn read_signal(&mut self) -> Then {
        let Ok(Some(info)) = self.signals.read_signal() else { return Then::Continue };
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        match signal {
            // Debug builds can be asked to panic, so that a test can see what a panic does.
            #[cfg(debug_assertions)]
            Some(Signal::SIGUSR1) => panic!("asked to panic by SIGUSR1"),
            // Or to hang, so that a test can see who stops the motors then.
            #[cfg(debug_assertions)]
            Some(Signal::SIGUSR2) => loop {
                std::hint::spin_loop();
            },
            Some(Signal::SIGTERM | Signal::SIGINT) => Then::Stop,
            _ => Then::Continue,
        }
    }

    fn leave(&mut self, now: Nanos) {
        let at_rest = self.core.is_at_rest();
        if at_rest {
            self.kernel_stop.disarm();
        }
        self.buses.note(&Input::End { now });
        self.core.end(now);
        self.buses.looked();
        self.tell(Asker::Housekeeping, Reply::Ended { at_rest });
    }
}
