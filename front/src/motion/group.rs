//! The motors of one command: they start together, and when one fails the others stop.

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    ready: usize,
    broken: bool,
}

/// What the motors of one command know of each other.
#[derive(Debug)]
pub struct Group {
    size: usize,
    progress: watch::Sender<Progress>,
}

impl Group {
    /// A group of that many motors.
    pub fn new(size: usize) -> Self {
        Self { size, progress: watch::Sender::new(Progress::default()) }
    }

    /// One motor is granted and enabled.
    pub fn ready(&self) {
        self.progress.send_modify(|progress| progress.ready += 1);
    }

    /// One motor has failed.
    pub fn break_up(&self) {
        self.progress.send_modify(|progress| progress.broken = true);
    }

    /// Returns when every motor is ready.
    pub async fn all_ready(&self) {
        self.until(|progress| progress.ready >= self.size).await;
    }

    /// Returns when a motor has failed.
    pub async fn broken(&self) {
        self.until(|progress| progress.broken).await;
    }

    async fn until(&self, met: impl FnMut(&Progress) -> bool) {
        // The sender lives in `self`, so the wait cannot end for want of one.
        let _ = self.progress.subscribe().wait_for(met).await;
    }
}
