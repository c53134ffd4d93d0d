//! Waiting for something to become true, and saying what was seen instead when it does not.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bound::OutOfTime;

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `probe` yields a value; what it says instead of one is shown when the time is up.
///
/// # Errors
/// The time is up.
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Result<T, String>) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match probe() {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if start.elapsed() >= limit {
            let text = format!("expected within {limit:?}: {what}; seen instead: {seen}");
            return Err(OutOfTime::error(limit, text));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks during the whole of `span`, and fails as soon as `probe` complains.
///
/// # Errors
/// The complaint.
pub fn throughout(span: Duration, what: &str, mut probe: impl FnMut() -> Result<(), String>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(seen) = probe() {
            bail!("expected for {span:?}: {what}; after {:?}: {seen}", start.elapsed());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
