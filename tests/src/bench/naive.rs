//! The watchdog a user would write in tokio: a task per session that sleeps until the deadline.
//!
//! In its favour: it sleeps to the deadline itself instead of polling, and sending costs nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};

/// Sessions, and their window: the deadlines of all come about once a millisecond, as those of our trips do.
const SESSIONS: u32 = 32;
const WINDOW: Duration = Duration::from_millis(32);

/// The role `naive-tokio`: how late each stop was sent, nanoseconds.
///
/// # Errors
/// There is no runtime.
pub fn run(time: Duration) -> Result<Vec<u64>> {
    let late = Arc::new(Mutex::new(Vec::new()));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let end = Instant::now() + time;
        let watch = |session| watch(session, end, Arc::clone(&late));
        let tasks: Vec<_> = (0..SESSIONS).map(|session| tokio::spawn(watch(session))).collect();
        for task in tasks {
            task.await?;
        }
        anyhow::Ok(())
    })?;
    let late = late.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(late)
}

async fn watch(session: u32, end: Instant, late: Arc<Mutex<Vec<u64>>>) {
    let mut last_heartbeat = Instant::now() + WINDOW / SESSIONS * session;
    while last_heartbeat < end {
        let deadline = last_heartbeat + WINDOW;
        sleep_until(deadline).await;
        // Here it would send the stop.
        let sent = Instant::now();
        let nanos = u64::try_from((sent - deadline).as_nanos()).unwrap_or(u64::MAX);
        late.lock().unwrap_or_else(PoisonError::into_inner).push(nanos);
        last_heartbeat = sent;
    }
}
