//! Time limits that failed, with their length: what a retried test's failure is judged by.
//!
//! What lives here: [`OutOfTime`], the error of every wait and of every limit on lateness, and [`verdict`], the line that a
//! failing test prints for `cargo xtask test`. That command counts a test that failed once as passed only if the machine
//! stood still for longer than the limit (docs/rig.md). A wrong value or a wrong order is no [`OutOfTime`].

use std::error::Error;
use std::fmt;
use std::time::Duration;

use anyhow::Result;

/// How the line begins that `cargo xtask test` reads: `xtask/src/retried.rs` has the other half.
const METER: &str = "stall-meter: longest";

/// An error that says that a time limit has passed, and which.
#[derive(Debug)]
pub struct OutOfTime {
    bound: Duration,
    text: String,
}

impl OutOfTime {
    /// Makes the error of a limit of that length.
    #[must_use]
    pub fn error(bound: Duration, text: String) -> anyhow::Error {
        Self { bound, text }.into()
    }

    /// Finds the limit that made an error; `None` if no limit did.
    #[must_use]
    pub fn bound_of(error: &anyhow::Error) -> Option<Duration> {
        error.downcast_ref::<Self>().map(|failed| failed.bound)
    }
}

impl fmt::Display for OutOfTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for OutOfTime {}

/// Fails if something took longer than its limit.
///
/// # Errors
/// It did; the text says what.
pub fn ensure_within(took: Duration, bound: Duration, text: impl FnOnce() -> String) -> Result<()> {
    if took <= bound { Ok(()) } else { Err(OutOfTime::error(bound, text())) }
}

/// Makes the line on a failed test: the longest stall of the machine while it ran, and the limit that failed.
#[must_use]
pub fn verdict(longest_stall: Duration, error: &anyhow::Error) -> String {
    let longest = longest_stall.as_millis();
    match OutOfTime::bound_of(error) {
        // Rounded up: a stall that was not longer must not seem so.
        Some(bound) => {
            format!("{METER} {longest} ms, bound that failed {} ms", bound.as_nanos().div_ceil(1_000_000))
        }
        None => format!("{METER} {longest} ms, no bound failed"),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    const STALL: Duration = Duration::from_micros(312_900);

    #[test]
    fn a_limit_is_found_behind_whatever_was_said_of_it() {
        let late = ensure_within(STALL, Duration::from_millis(15), || "too late".to_owned());
        let error = late.context("the left one").context("round 3").unwrap_err();
        assert_eq!(verdict(STALL, &error), "stall-meter: longest 312 ms, bound that failed 15 ms");
        assert_eq!(format!("{error:#}"), "round 3: the left one: too late");
    }

    #[test]
    fn a_wrong_value_has_no_limit() {
        let error = anyhow!("expected within 15ms: left, not right").context("round 3");
        assert_eq!(verdict(STALL, &error), "stall-meter: longest 312 ms, no bound failed");
    }

    #[test]
    fn a_limit_is_never_made_shorter_than_it_is() {
        let error = OutOfTime::error(Duration::from_micros(312_100), String::new());
        assert_eq!(verdict(STALL, &error), "stall-meter: longest 312 ms, bound that failed 313 ms");
    }

    #[test]
    fn what_is_in_time_is_right() {
        assert!(ensure_within(STALL, STALL, String::new).is_ok());
    }
}
