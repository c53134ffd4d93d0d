//! The thread that writes a recording to its file. A disk may stand still for as long as it likes.
//!
//! The file: a header, then entries of 64-bit words, least significant byte first. The first word of each entry holds its kind,
//! the number of its words, and a checksum over everything before it and itself.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use shm_proto::crc::Crc;

use super::entry::{Entry, Kind};
use super::header::Header;
use super::recorded::Taken;
use crate::handoff::{Giver, Taker, Waited, handoff};
use crate::start::STACK;
use crate::{log, syscalls};

/// How long the thread sleeps when nothing waits: the queue holds more than ten seconds.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the end of the process waits for the file: a disk that is slower is not worth the wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that are written at a time.
const BLOCK_BYTES: usize = 1 << 16;

/// Whether anything more is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Goes,
    /// The last entry is in the file, or the disk has refused one.
    Over,
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    taken: Taken,
    sum: Crc,
    block: Vec<u8>,
    state: State,
}

impl<W: Write> Writer<W> {
    /// Begins a recording with its header.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn new(mut out: W, header: &Header, taken: Taken) -> io::Result<Self> {
        let (bytes, sum) = header.to_bytes();
        out.write_all(&bytes)?;
        Ok(Self { out, taken, sum, block: Vec::with_capacity(2 * BLOCK_BYTES), state: State::Goes })
    }

    /// Writes what waits. Entries that were lost end the recording.
    pub fn pass(&mut self) {
        // In this order: what was lost was lost after all that is in the queue by then.
        let lost = self.taken.lost.load(Ordering::Acquire);
        while let Ok(entry) = self.taken.queue.pop() {
            self.add(&entry);
            if self.block.len() >= BLOCK_BYTES {
                self.write();
            }
        }
        if lost > 0 {
            self.close(Entry::new(Kind::Lost).with(lost));
        }
        self.write();
    }

    /// Ends the recording: everything that was to be written down waits by now.
    pub fn end(&mut self) {
        self.pass();
        self.close(Entry::new(Kind::Complete));
    }

    fn close(&mut self, last: Entry) {
        self.add(&last);
        self.write();
        if self.state == State::Goes && last.kind() == Kind::Lost {
            log::line(
                "WARNING: the recording is broken: its file could not be written as fast as things happened. What it has \
                 cannot be played; record to a faster disk",
            );
        }
        self.state = State::Over;
    }

    fn add(&mut self, entry: &Entry) {
        if self.state == State::Over {
            return;
        }
        let head = entry.head();
        self.sum = entry.words().iter().fold(self.sum.word(head), |sum, word| sum.word(*word));
        let signed = head | u64::from(self.sum.finish()) << 32;
        let words = [signed].into_iter().chain(entry.words().iter().copied());
        words.for_each(|word| self.block.extend(word.to_le_bytes()));
    }

    fn write(&mut self) {
        let written = self.out.write_all(&self.block);
        self.block.clear();
        if let (State::Goes, Err(error)) = (self.state, written) {
            self.state = State::Over;
            log::line(&format!("WARNING: the recording has ended: its file cannot be written: {error}"));
        }
    }
}

impl<W: Write + Send + 'static> Writer<W> {
    /// Starts the thread, as the user who is to write. Returns what the system refused it, too, as a sum of
    /// [`Degraded`](shm_proto::verdicts::Degraded) bits.
    ///
    /// # Errors
    /// There are no more threads.
    pub fn start(self) -> io::Result<(Finish, u64)> {
        let wanted = Arc::new(AtomicBool::new(false));
        let (tell, told) = handoff();
        let (done, finished) = handoff();
        let seen = Arc::clone(&wanted);
        let run = move || self.run(&tell, &seen, &done);
        thread::Builder::new().name("lanyard-record".to_owned()).stack_size(STACK).spawn(run)?;
        let refused = told.wait().unwrap_or(0);
        Ok((Finish { wanted, finished }, refused))
    }

    fn run(mut self, tell: &Giver<u64>, wanted: &AtomicBool, done: &Giver<()>) {
        tell.give(syscalls::confine_recording());
        while !wanted.load(Ordering::Acquire) {
            self.pass();
            thread::park_timeout(PAUSE);
        }
        self.end();
        done.give(());
        // Closing the file would take a system call that this thread may not make: the end of the process does it.
        loop {
            thread::park();
        }
    }
}

/// The thread, from the side of whoever ends the process.
#[derive(Debug)]
pub struct Finish {
    wanted: Arc<AtomicBool>,
    finished: Taker<()>,
}

impl Finish {
    /// Waits until everything is in the file, for some seconds at most. The real-time thread must have said its last word.
    pub fn wait(self) {
        self.wanted.store(true, Ordering::Release);
        if self.finished.wait_for(PATIENCE) != Waited::Value(()) {
            log::line("WARNING: the recording is not whole: its file is too slow");
        }
    }
}
