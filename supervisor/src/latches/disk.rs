//! The thread that waits for the disk. Writing to a slow card can take seconds, and housekeeping has a watchdog to feed, an
//! operator to answer and a front to attach meanwhile.

use std::io;
use std::thread;
use std::time::Duration;

use super::store::Store;
use crate::handoff::{Giver, Taker, Waited, handoff};
use crate::start::STACK;
use crate::syscalls;

/// The thread, from the side of who has something to write: one file at a time.
#[derive(Debug)]
pub struct Disk {
    orders: Giver<Vec<u8>>,
    answers: Taker<io::Result<()>>,
}

impl Disk {
    /// Starts the thread, as the user who is to write. Returns what the system refused it, too, as a sum of
    /// [`Degraded`](shm_proto::verdicts::Degraded) bits. Should there be no more threads, the disk counts as one that
    /// refuses.
    #[must_use]
    pub fn start(store: Store) -> (Self, u64) {
        let (orders, taken) = handoff::<Vec<u8>>();
        let (answer, answers) = handoff();
        let (tell, told) = handoff();
        let run = move || {
            tell.give(syscalls::confine_disk(store.number()));
            while let Some(bytes) = taken.wait() {
                answer.give(store.write(&bytes));
            }
            // Releasing the folder would take system calls that this thread may not make: the end of the process does it.
            loop {
                thread::park();
            }
        };
        let thread = thread::Builder::new().name("lanyard-disk".to_owned()).stack_size(STACK).spawn(run);
        let refused = thread.ok().and_then(|_| told.wait()).unwrap_or(0);
        (Self { orders, answers }, refused)
    }

    /// Has these bytes written. The answer comes later, exactly one.
    pub(super) fn order(&self, bytes: Vec<u8>) {
        // There is room: the one before was answered. A thread that has ended answers by itself.
        self.orders.give(bytes);
    }

    /// The answer, if it has come.
    pub(super) fn answer(&self) -> Option<io::Result<()>> {
        self.wait(Duration::ZERO)
    }

    /// The answer, once it has come, if it comes within that time.
    pub(super) fn wait(&self, patience: Duration) -> Option<io::Result<()>> {
        match self.answers.wait_for(patience) {
            Waited::Value(answer) => Some(answer),
            Waited::Nothing => None,
            Waited::Gone => Some(Err(ended())),
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread for the disk has ended")
}

#[cfg(test)]
impl Disk {
    /// Without a thread: the test is the disk.
    pub(super) fn by_hand() -> (Self, Taker<Vec<u8>>, Giver<io::Result<()>>) {
        let (orders, taken) = handoff();
        let (answer, answers) = handoff();
        (Self { orders, answers }, taken, answer)
    }
}
