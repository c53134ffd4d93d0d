//! The truth of a cell: what the simulated shaft did, and when stops reached its drive.
//!
//! A thread asks the simulation again and again. Nothing here comes from the product.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::clock::Moment;
use tests::sim::inject::Stop;
use tests::simulation::{Remote, Report};

/// How often the shaft is looked at: much shorter than any bound, and a few percent of the slowest machine's time.
pub const PAUSE: Duration = Duration::from_millis(20);

/// The longest time without a look: a stop that is missed lasts longer, and so does a turn of the shaft at the slowest speed that
/// is motion.
const GAP: Duration = Duration::from_millis(200);

/// Below this speed, rev/s, a shaft counts as at rest: a turn in 20 s, at which most families' proofs begin.
pub const REST_REV_PER_S: f64 = 0.05;

/// One look at the drive.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When it was.
    pub at: Moment,
    /// The true speed of the shaft, rev/s.
    pub speed: f64,
}

/// The thread and what it has seen.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    drive: Drive,
}

#[derive(Debug, Default)]
struct Shared {
    looks: Mutex<Vec<Look>>,
    ending: AtomicBool,
}

/// A simulated drive that can be asked.
#[derive(Clone, Debug)]
struct Drive {
    remote: Remote,
    node: u8,
}

impl Watch {
    /// Looks from now on.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn begin(remote: Remote, node: u8) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let drive = Drive { remote, node };
        let (for_thread, asked) = (Arc::clone(&shared), drive.clone());
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                while !for_thread.ending.load(Ordering::Relaxed) {
                    if let Ok(report) = asked.remote.report(asked.node) {
                        let look = Look { at: Moment::now(), speed: report.velocity() };
                        for_thread.looks.lock().unwrap_or_else(PoisonError::into_inner).push(look);
                    }
                    std::thread::sleep(PAUSE);
                }
            })
            .context("cannot start a thread")?;
        Ok(Self { shared, thread: Some(thread), drive })
    }

    /// Every look since a moment.
    pub fn since(&self, from: Moment) -> Vec<Look> {
        let looks = self.shared.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.iter().filter(|look| look.at >= from).copied().collect()
    }

    /// Every look between two moments. A shaft that nobody looked at for a while may have turned.
    ///
    /// # Errors
    /// There is a gap.
    pub fn without_a_gap(&self, from: Moment, until: Moment) -> Result<Vec<Look>> {
        let looks = self.since(from);
        let moments = looks.iter().map(|look| look.at).filter(|at| *at <= until);
        let mut last = from;
        for at in moments.chain([until]) {
            ensure!(at <= last + GAP, "the shaft was not looked at between {last} and {at}");
            last = at;
        }
        Ok(looks)
    }

    /// When the first stop of each of these kinds reached the drive, since its last mark.
    ///
    /// # Errors
    /// The simulation does not answer.
    pub fn first_stops(&self) -> Result<FirstStops> {
        let before = Moment::now();
        let report = self.drive.remote.report(self.drive.node)?;
        let after = Moment::now();
        // The simulation counts from its own start; its answer was written between the two.
        let middle = before.0 + (after.0 - before.0) / 2;
        Ok(FirstStops { report, answered: Moment(middle) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot fail but by a panic, which has been shown.
            drop(thread.join());
        }
    }
}

/// When the first stops reached a drive.
#[derive(Debug)]
pub struct FirstStops {
    report: Report,
    answered: Moment,
}

impl FirstStops {
    /// That of a kind.
    pub fn of(&self, kind: Stop) -> Option<Moment> {
        let word = match kind {
            Stop::Controlled => "controlled",
            Stop::Quick => "quick",
            Stop::TorqueOff => "torque_off",
        };
        let ago = self.report.0["time"].as_f64()? - self.report.0["first_stops"][word].as_f64()?;
        Some(self.answered - Duration::from_secs_f64(ago.max(0.0)))
    }

    /// The first of any kind.
    pub fn first(&self) -> Option<Moment> {
        [Stop::Controlled, Stop::Quick, Stop::TorqueOff].into_iter().filter_map(|kind| self.of(kind)).min()
    }
}
