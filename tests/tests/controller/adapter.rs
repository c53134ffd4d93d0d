//! A CAN adapter that stalls: it takes frames and does not say that they have left.
//!
//! Under PREEMPT_RT a driver's interrupt handler is a thread. It is kept on a processor of its own, and a
//! thread with a higher priority can occupy that processor: then nobody learns that the controller's one
//! transmit buffer is empty, and the queue before it fills, as with an adapter that hangs. Everything else on
//! the machine is moved to the other processor, and does not notice.
//!
//! One thing is different from a real wire: frames take no time on it, and a controller has room for five.
//! The handler of the far end therefore runs before that of the near end, on the same processor: each frame
//! is taken off the wire before the next one is sent.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::clock::Moment;
use tests::expect;
use tests::processor;

/// Where everything runs but the interrupt handler of the adapter that stalls.
pub const COMMON: usize = 0;
/// Where the handlers of both ends run.
const OWN: usize = 1;
/// What occupies the processor: above interrupt handlers, which have 50.
const OCCUPIER: i32 = 60;
/// The handler of the far end: never kept from its work, neither by the stall nor by the near end.
const FAR_END: i32 = 70;
/// The longest stall: the kernel complains of a processor that does nothing else for 21 s.
const LONGEST: Duration = Duration::from_secs(15);
/// How long starting and ending a thread may take: only says when to give up.
const SOON: Duration = Duration::from_secs(10);

/// Moves everything to the common processor that can be moved, but for the interrupt handlers of the two ends
/// of the wire.
///
/// # Errors
/// The machine has one processor only, or no such interfaces.
pub fn separate(near: &str, far: &str) -> Result<()> {
    // The default would end a thread that occupies its processor.
    std::fs::write("/proc/sys/kernel/sched_rt_runtime_us", "-1").context("sched_rt_runtime_us")?;
    processor::keep_on(0, COMMON)?;
    // A few interrupts of the machine itself, and threads that belong to a processor, cannot be moved: they
    // have nothing to do with these tests.
    let _ = std::fs::write("/sys/devices/virtual/workqueue/cpumask", mask(COMMON));
    for interrupt in numbers_in(Path::new("/proc/irq"))? {
        let _ = std::fs::write(format!("/proc/irq/{interrupt}/smp_affinity"), mask(COMMON));
    }
    for process in numbers_in(Path::new("/proc"))? {
        let folder = format!("/proc/{process}/task");
        for thread in numbers_in(Path::new(&folder)).unwrap_or_default() {
            let _ = processor::keep_on(thread, COMMON);
        }
    }
    keep_handler_apart(near)?;
    processor::run_before_others(keep_handler_apart(far)?, FAR_END)
}

fn mask(processor: usize) -> String {
    format!("{:x}", 1 << processor)
}

fn numbers_in(folder: &Path) -> Result<Vec<i32>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Moves the interrupt handler of an interface to its processor and returns its thread, which is a new one
/// whenever the interface comes up.
fn keep_handler_apart(interface: &str) -> Result<i32> {
    let name = format!("-{interface}");
    let handler = numbers_in(Path::new("/proc"))?.into_iter().find_map(|thread| {
        let comm = std::fs::read_to_string(format!("/proc/{thread}/comm")).ok()?;
        let interrupt = comm.trim().strip_prefix("irq/")?.strip_suffix(&name)?.to_owned();
        Some((thread, interrupt))
    });
    let (thread, interrupt) =
        handler.with_context(|| format!("{interface} has no interrupt handler with a thread of its own"))?;
    // The thread follows its interrupt when it runs next; until then it would stay where it is.
    std::fs::write(format!("/proc/irq/{interrupt}/smp_affinity"), mask(OWN))
        .with_context(|| format!("interrupt {interrupt} cannot be moved to processor {OWN}"))?;
    processor::keep_on(thread, OWN)?;
    Ok(thread)
}

/// A stall; it ends when this is dropped.
#[derive(Debug)]
pub struct Stall {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stall {
    /// From now on nobody serves the interrupts of this interface. Call [`separate`] first.
    ///
    /// # Errors
    /// Its processor cannot be occupied.
    pub fn begin(interface: &str) -> Result<Self> {
        keep_handler_apart(interface)?;
        let ending = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicBool::new(false));
        let (for_thread, tell) = (Arc::clone(&ending), Arc::clone(&begun));
        let occupy = move || {
            let placed = processor::keep_on(0, OWN).and_then(|()| processor::run_before_others(0, OCCUPIER));
            if placed.is_err() {
                return;
            }
            tell.store(true, Ordering::Release);
            let start = Instant::now();
            while !for_thread.load(Ordering::Acquire) && start.elapsed() < LONGEST {
                std::hint::spin_loop();
            }
        };
        let thread = std::thread::Builder::new().name("stall".to_owned()).spawn(occupy)?;
        let stall = Self { ending, thread: Some(thread) };
        expect::within(SOON, "a processor is occupied", || {
            if begun.load(Ordering::Acquire) { Ok(()) } else { Err("it is not".to_owned()) }
        })?;
        Ok(stall)
    }

    /// The adapter goes on; returns the moment before.
    ///
    /// # Errors
    /// It has gone on before by itself, so the test took longer than a stall may.
    pub fn end(self) -> Result<Moment> {
        let running = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        ensure!(running, "the stall was over after {LONGEST:?}, before the test was");
        Ok(Moment::now())
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It cannot fail but by a panic, which has been shown.
            drop(thread.join());
        }
    }
}
