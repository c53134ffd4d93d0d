//! `lanyard reset`.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use shm_proto::{TripId, handover};

/// Clears a trip.
pub fn reset(socket: &Path, trip: TripId, out: &mut dyn Write) -> anyhow::Result<()> {
    let cleared = handover::reset(socket, trip).with_context(|| format!("trip {trip} was not reset"))?;
    writeln!(out, "trip {cleared} is reset: its motors may be driven again.")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_that_reached_nobody_says_so_first() {
        let mut out = Vec::new();
        let text = format!("{:#}", reset(Path::new("/no/such/socket"), TripId(7), &mut out).unwrap_err());
        assert!(text.starts_with("trip 7 was not reset: cannot reach the supervisor"), "{text}");
        assert!(out.is_empty());
    }
}
