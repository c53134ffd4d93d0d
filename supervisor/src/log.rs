//! Lines on standard error, for the journal. Never from the real-time thread.

use std::io::Write;

/// Writes one line; a closed standard error is no reason to stop.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "lanyard-supervisor: {text}");
}
