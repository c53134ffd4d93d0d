//! A writer that is killed at any instruction harms its own session only, and never holds up the reader.
//!
//! The writer is a process of its own: this program, started once more with [`JOB`] in its environment.

mod common;

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::env;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{GENERATION, SESSION, WINDOW, vacant};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};
use shm_proto::beat::{Context, Reject};
use shm_proto::beats::{BeatSegment, BeatView, BeatWriter, Look, SlotReader};
use shm_proto::layout::{BeatLayout, HEADER_WORDS, MAGIC, RECORD_WORDS};
use shm_proto::memory::{self, Access, Segment};
use shm_proto::{Capacity, Ending, MotorIndex, Nanos, Owner, SessionId, SlotIndex};

/// What the writer shall do, and the number of its descriptor of the segment.
const JOB: &str = "LANYARD_TEST_WRITER";
/// A word of the segment's header that nobody else uses: the thread to trace.
const TRACED_THREAD: usize = HEADER_WORDS - 1;
const VICTIM: SlotIndex = SlotIndex(0);
const OTHER: SlotIndex = SlotIndex(1);
const MOTOR: MotorIndex = MotorIndex(1);

fn capacity() -> Capacity {
    Capacity::new(2, 2).expect("capacity")
}

/// The writer's process; an ordinary test run passes through.
#[test]
fn writer_process() {
    let Ok(job) = env::var(JOB) else { return };
    let (job, fd) = job.split_once(' ').expect("job and descriptor");
    let fd: RawFd = fd.parse().expect("a descriptor");
    // SAFETY: the descriptor was inherited for this and stays open for the life of the process.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let step_by_step = job == "stepped";
    // All that is written through is mapped before the mark that lets the other side seal the segment.
    let note = Segment::map(fd, BeatLayout::new(capacity()).words(), Access::ReadWrite).expect("mapping");
    let beats = BeatSegment::map(fd, capacity(), GENERATION).expect("mapping");
    let mut writer = beats.writer(VICTIM).expect("slot");
    if step_by_step {
        ptrace::traceme().expect("a parent that traces");
        // The harness runs this in a thread of its own, and it is threads that are traced.
        note.store(TRACED_THREAD, u64::try_from(gettid().as_raw()).expect("a thread id"), Relaxed);
        raise(Signal::SIGSTOP).expect("stopped");
        live(&beats, &mut writer, 1);
        raise(Signal::SIGSTOP).expect("stopped");
    } else {
        loop {
            live(&beats, &mut writer, 20);
        }
    }
}

/// The life of a session: every way to write there is.
fn live(beats: &BeatSegment, writer: &mut BeatWriter, count: u32) {
    let owner = writer.open(SESSION, WINDOW);
    beats.take_motor(MOTOR, owner);
    (0..count).for_each(|_| writer.beat());
    writer.close(Ending::Client);
}

/// A segment with a writer process in its first slot, and a reader's view of it.
struct Rig {
    child: Child,
    wild: Segment,
    beats: Arc<BeatSegment>,
    view: BeatView,
    layout: BeatLayout,
}

impl Rig {
    fn new(job: &str) -> Self {
        let layout = BeatLayout::new(capacity());
        let fd: OwnedFd = memory::create("lanyard-test", layout.words()).expect("memfd");
        let wild = Segment::map(fd.as_fd(), layout.words(), Access::ReadWrite).expect("wild mapping");
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).expect("inherited");
        let child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "writer_process", "--test-threads=1"])
            .env(JOB, format!("{job} {}", fd.as_raw_fd()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a second process");
        Self::wait_until_mapped(&child, &wild);
        let beats = BeatSegment::map(fd.as_fd(), capacity(), GENERATION).expect("front's mapping");
        memory::seal(fd.as_fd()).expect("seals");
        let view = BeatView::map(fd.as_fd(), capacity(), GENERATION).expect("supervisor's mapping");
        Self { child, wild, beats, view, layout }
    }

    /// The writer marks the segment when it has mapped it.
    fn wait_until_mapped(child: &Child, wild: &Segment) {
        wait_for(child, || wild.load(0, Relaxed) == MAGIC);
    }

    /// The thread that waits to be led.
    fn traced_thread(&self) -> Pid {
        wait_for(&self.child, || self.wild.load(TRACED_THREAD, Relaxed) != 0);
        Pid::from_raw(self.wild.load(TRACED_THREAD, Relaxed).try_into().expect("a thread id"))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a process id"))
    }

    fn look(&self, reader: &mut SlotReader, slot: SlotIndex, how: Look) -> (Vec<u64>, Vec<Reject>) {
        let (mut counters, mut rejects) = (Vec::new(), Vec::new());
        // Beats go on while this looks, and none of them lies in this reader's future.
        let context = Context { now: Nanos::NEVER, ..vacant(slot) };
        reader.look(&self.view, how, context, |found| match found {
            Ok(beat) => counters.push(beat.counter),
            Err(reject) => rejects.push(reject),
        });
        (counters, rejects)
    }

    /// All words the writer process may write.
    fn its_words(&self) -> Vec<u64> {
        let ring = (1..=4).flat_map(|counter| {
            let record = self.layout.record(VICTIM, counter);
            record..record + RECORD_WORDS
        });
        let single = [self.layout.change(VICTIM), self.layout.owner(MOTOR)];
        ring.chain(single).map(|place| self.wild.load(place, Relaxed)).collect()
    }
}

fn wait_for(child: &Child, come: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !come() {
        assert!(Instant::now() < patience, "process {} does not get ready", child.id());
        thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A process that is gone already is as good.
        let _ = self.child.kill();
        // A traced thread has to be buried before its process, whatever became of either; other
        // tests' children belong to other threads.
        let own = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        while waitpid(None, Some(own)).is_ok() {}
    }
}

#[test]
fn a_writer_stopped_at_any_instruction_harms_nobody_else() {
    // Nine stores a beat, one for a change word and one for an owner word: open, take, beat, close.
    const STORES: usize = (9 + 1) + 1 + 9 + (9 + 1);
    let rig = Rig::new("stepped");
    let pid = rig.traced_thread();
    let wait = || waitpid(pid, Some(WaitPidFlag::__WALL)).expect("the writer");
    let stopped = WaitStatus::Stopped(pid, Signal::SIGSTOP);
    assert_eq!(wait(), stopped, "it waits to be led");
    let mut other = rig.beats.writer(OTHER).expect("slot");
    other.open(SessionId(9), WINDOW);
    let mut others_reader = SlotReader::default();
    let mut others_beats = 1;
    rig.look(&mut others_reader, OTHER, Look::Everywhere);

    let mut before = rig.its_words();
    let mut stores = 0;
    let mut newest = 0;
    loop {
        ptrace::step(pid, None).expect("one instruction");
        match wait() {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            status => {
                assert_eq!(status, stopped, "it went its whole way");
                break;
            }
        }
        let words = rig.its_words();
        if words == before {
            continue;
        }
        let changed = words.iter().zip(&before).filter(|(now, before)| now != before).count();
        assert_eq!(changed, 1, "one instruction stores one word");
        stores += 1;
        before = words;

        // Killed here, this is what it leaves for ever: nothing, or a torn record, or a whole beat.
        for how in [Look::Onward, Look::Everywhere] {
            let (counters, rejects) = rig.look(&mut SlotReader::default(), VICTIM, how);
            assert!(rejects.is_empty() || rejects == [Reject::Torn], "after {stores} stores: {rejects:?}");
            let whole = counters.last().copied().unwrap_or(0);
            assert!(whole == newest || whole == newest + 1, "after {stores} stores: {counters:?}");
            assert!(counters.iter().copied().eq(1..=whole), "after {stores} stores: {counters:?}");
            newest = newest.max(whole);
        }
        let owner = rig.view.owner_word(MOTOR);
        assert!(owner == Owner::NOBODY || Owner::from_word(owner).is_some_and(|owner| owner.slot == VICTIM));

        other.beat();
        others_beats += 1;
        let found = rig.look(&mut others_reader, OTHER, Look::Everywhere);
        assert_eq!(found, (vec![others_beats], vec![]), "after {stores} stores");
    }
    assert_eq!((stores, newest), (STORES, 3), "every store was seen alone");
}

/// Sets a flag when it goes, by a failed assertion, too: a thread that is waited for must not go on.
struct SetAtTheEnd<'a>(&'a AtomicBool);

impl Drop for SetAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn sessions_outlive_a_writer_killed_in_their_midst() {
    const KILLS: u64 = 25;
    let mut torn = 0;
    for kill in 0..KILLS {
        let mut rig = Rig::new("unhurried");
        let mut other = rig.beats.writer(OTHER).expect("slot");
        other.open(SessionId(9), WINDOW);
        let done = AtomicBool::new(false);
        let (mut victims, mut others) = (SlotReader::default(), SlotReader::default());
        let written = thread::scope(|scope| {
            let beating = scope.spawn(|| {
                let mut count = 1;
                while !done.load(Relaxed) {
                    other.beat();
                    count += 1;
                }
                count
            });
            let stop = SetAtTheEnd(&done);
            // Odd lengths, so that the kills fall all over the writer's life.
            let until = Instant::now() + Duration::from_micros(kill * 137 % 2_000);
            let mut last = 0;
            let mut look_around = || {
                // Whatever the victim is doing or has left: at most what a ring holds.
                let (counters, rejects) = rig.look(&mut victims, VICTIM, Look::Everywhere);
                assert!(counters.len() + rejects.len() <= 64);
                let (counters, rejects) = rig.look(&mut others, OTHER, Look::Everywhere);
                assert!(rejects.iter().all(|reject| *reject == Reject::Torn), "{rejects:?}");
                assert!(
                    counters.is_sorted_by(|a, b| a < b) && counters.iter().all(|counter| *counter > last)
                );
                last = counters.last().copied().unwrap_or(last);
                last
            };
            while Instant::now() < until {
                look_around();
            }
            let before = look_around();
            nix::sys::signal::kill(rig.pid(), Signal::SIGKILL).expect("it lives");
            waitpid(rig.pid(), None).expect("it is dead");
            // The others go on beating and being read.
            let patience = Instant::now() + Duration::from_secs(60);
            while look_around() == before {
                assert!(Instant::now() < patience, "the other session is no longer read");
            }
            drop(stop);
            beating.join().expect("the other session")
        });
        let (counters, rejects) = rig.look(&mut SlotReader::default(), OTHER, Look::Everywhere);
        assert_eq!((counters.last(), rejects), (Some(&written), vec![]), "kill {kill}");
        let (_, rejects) = rig.look(&mut SlotReader::default(), VICTIM, Look::Everywhere);
        let unfinished = rejects.iter().filter(|reject| **reject == Reject::Torn).count();
        assert!(unfinished <= 1, "kill {kill}: one writer leaves one record unfinished: {rejects:?}");
        torn += unfinished;
        rig.child.wait().ok();
    }
    println!("{torn} of {KILLS} kills fell into a write");
}
