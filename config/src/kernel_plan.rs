//! What the kernel sends on a bus when the supervisor no longer puts it off, from the configuration.
//!
//! The supervisor arms it, `lanyard check` and `lanyard doctor` tell how long it takes: all three ask here.

use std::time::Duration;

use drivers::unattended::{self, BitRates, Job, Times};
use drivers::{Drive, marker};

use crate::{Config, Motor};

/// A robot whose last motor hears its first stop so much later than the first one is better spread over two buses: at
/// 1.5 m/s it is 15 cm.
const LONG_SPREAD: Duration = Duration::from_millis(100);

/// The jobs of one bus.
#[derive(Clone, Debug)]
pub struct KernelPlan {
    /// The times they keep to.
    pub times: Times,
    /// The jobs, by key.
    pub jobs: Vec<Job>,
    /// From the last word of the supervisor until the last motor was sent its first stop, on a bus that carries what is sent.
    pub last_first_stop: Duration,
    /// From the last word of the supervisor until the last frame that feeds a drive's own watchdog.
    pub last_fed: Duration,
}

impl KernelPlan {
    /// The jobs of the bus with that number. Without motors there are none.
    ///
    /// # Errors
    ///
    /// When its drives hear every identifier there is; the text says what to do.
    pub fn of(config: &Config, bus: usize, rates: Option<BitRates>) -> Result<Self, String> {
        let motors: Vec<&Motor> = config.motors.iter().filter(|motor| motor.is_on(bus)).collect();
        let drives: Vec<&Drive> = motors.iter().map(|motor| &motor.drive).collect();
        let Some(marker) = marker::unheard(drives.iter().copied()) else {
            let name = config.buses.get(bus).map_or("", |bus| bus.name.as_str());
            return Err(format!(
                "bus \"{name}\": its drives hear every identifier there is, so there is none for the frame that puts \
                 the kernel's stops off; spread them over two buses"
            ));
        };
        let own = motors.iter().map(|motor| motor.stage_timeout);
        let times = Times {
            wait: config.supervisor.kernel_stop,
            // One list has the stages of all motors, so the most patient one decides.
            stage: own.max().unwrap_or(config.supervisor.stage_timeout),
            shortest_gap: unattended::shortest_gap(&drives, rates),
        };
        let jobs = unattended::jobs(&drives, marker, &times);
        let last_first_stop = unattended::last_first_stop(&drives, &jobs);
        let last_fed = jobs.iter().filter_map(Job::end).max().unwrap_or(Duration::ZERO);
        Ok(Self { times, jobs, last_first_stop, last_fed })
    }

    /// How much later than the first stop the last motor's comes.
    #[must_use]
    pub fn spread(&self) -> Duration {
        self.last_first_stop.saturating_sub(self.times.wait)
    }

    /// Whether that is so much later that it should be known.
    #[must_use]
    pub fn is_spread_out(&self) -> bool {
        self.spread() > LONG_SPREAD
    }
}
