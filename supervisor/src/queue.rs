//! What the real-time thread and the others of this process tell each other, each through two wait-free queues of its own.
//!
//! One pair for each thread: none of them waits for another, and one that floods its queue fills no other.

use std::os::fd::OwnedFd;

use rtrb::{Consumer, Producer, RingBuffer};
use shm_proto::verdicts::BusHealth;
use shm_proto::{BeatView, TripId, TripSeen};

use crate::core::{Kept, ResetRefused};

/// Entries each queue holds. A thread sends one command per client request and passes 20 times a
/// second; the real-time thread takes all of them within a tick.
const QUEUE_ENTRIES: usize = 64;

/// A thread that may ask something of the real-time one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Housekeeping.
    Housekeeping,
    /// The door of the front.
    Fronts,
    /// The door of programs that look.
    Lookers,
    /// The door of operators.
    Operators,
}

impl Asker {
    /// Every one there is.
    pub const ALL: [Self; 4] = [Self::Housekeeping, Self::Fronts, Self::Lookers, Self::Operators];
}

/// The side of a thread that asks.
#[derive(Debug)]
pub struct Requester {
    /// To the real-time thread.
    pub commands: Producer<Command>,
    /// From it.
    pub replies: Consumer<Reply>,
}

/// The real-time thread's side.
#[derive(Debug)]
pub struct Responder {
    /// What is asked.
    pub commands: Consumer<Command>,
    /// What is answered.
    pub replies: Producer<Reply>,
}

/// The sides of all threads that ask.
#[derive(Debug)]
pub struct Requesters {
    /// Housekeeping's.
    pub housekeeping: Requester,
    /// The front door's.
    pub fronts: Requester,
    /// The door's of programs that look.
    pub lookers: Requester,
    /// The operators' door's.
    pub operators: Requester,
}

/// The real-time thread's sides of all pairs.
#[derive(Debug)]
pub struct Responders([Responder; Asker::ALL.len()]);

impl Responders {
    /// The side towards one thread.
    pub const fn of(&mut self, asker: Asker) -> &mut Responder {
        // `ALL` lists them in the order of their numbers.
        &mut self.0[asker as usize]
    }
}

/// Connects every thread that asks with the real-time one.
#[must_use]
pub fn connect() -> (Requesters, Responders) {
    let (housekeeping, first) = pair();
    let (fronts, second) = pair();
    let (lookers, third) = pair();
    let (operators, fourth) = pair();
    let requesters = Requesters { housekeeping, fronts, lookers, operators };
    (requesters, Responders([first, second, third, fourth]))
}

fn pair() -> (Requester, Responder) {
    let (to_real_time, commands) = RingBuffer::new(QUEUE_ENTRIES);
    let (replies, from_real_time) = RingBuffer::new(QUEUE_ENTRIES);
    (Requester { commands: to_real_time, replies: from_real_time }, Responder { commands, replies })
}

/// To the real-time thread.
#[derive(Debug)]
pub enum Command {
    /// A front has mapped its beats.
    Attach {
        /// The sealed segment, mapped for reading.
        view: BeatView,
        /// Its process.
        pid: u32,
        /// Becomes readable when the process ends.
        pidfd: OwnedFd,
    },
    /// The front has closed its connection, whether its process lives or not.
    Detach,
    /// Stop everything until reset.
    Estop,
    /// Clear a trip.
    Reset {
        /// The trip as the operator saw it.
        seen: TripSeen,
    },
    /// What was last seen of a bus.
    Bus {
        /// Which bus.
        bus: usize,
        /// How well it is.
        health: BusHealth,
        /// The controller's transmit and receive error counters, where its driver tells.
        counters: Option<(u16, u16)>,
    },
    /// Something that was there is missing from now on.
    Degraded {
        /// A sum of [`shm_proto::verdicts::Degraded`] bits.
        bits: u64,
    },
    /// What the disk has of the latches.
    Latches(Kept),
}

/// From the real-time thread.
#[derive(Debug)]
pub enum Reply {
    /// The front is watched.
    Attached,
    /// The front's process has ended.
    FrontGone,
    /// Everything is being stopped.
    Stopped {
        /// By this trip.
        trip: TripId,
    },
    /// What came of a reset.
    Reset {
        /// The trip it was about.
        trip: TripId,
        /// Whether it was cleared.
        outcome: Result<(), ResetRefused>,
    },
    /// Something to release: unmapping and closing is not the real-time thread's work.
    Retired(Retired),
    /// The real-time thread has ended.
    Ended {
        /// Whether every motor was proven to stand still.
        at_rest: bool,
    },
}

/// What is released outside the real-time thread.
#[derive(Debug)]
pub enum Retired {
    /// The segment of a front that is gone.
    View(BeatView),
    /// The descriptor of its process.
    Process(OwnedFd),
}
