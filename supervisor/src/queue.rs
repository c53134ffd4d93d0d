//! What housekeeping and the real-time thread tell each other, through two wait-free queues.

use std::os::fd::OwnedFd;

use shm_proto::verdicts::BusHealth;
use shm_proto::{BeatView, TripId};

use crate::core::{Kept, ResetRefused};

/// Entries each queue holds. Housekeeping sends one command per client request and passes 20 times a
/// second; the real-time thread takes all of them within a tick.
pub const DEPTH: usize = 64;

/// From housekeeping to the real-time thread.
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
        /// Which.
        trip: TripId,
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

/// From the real-time thread to housekeeping.
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
    /// Something to release: unmapping and closing is housekeeping's work.
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
