//! `lanyard estop` and `lanyard reset`: the two things this program may ask for.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use shm_proto::{TripId, handover};

/// What to say first when the supervisor was not reached.
pub const NOT_STOPPED: &str = "THIS COMMAND STOPPED NOTHING, use the red button";

/// Stops everything and says how to go on.
pub fn estop(socket: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let trip = handover::estop(socket).context(NOT_STOPPED)?;
    writeln!(
        out,
        "trip {trip}: every motor was told to stop and stays stopped.\n\
         Told is not proven: lanyard status says which motors stand still.\n\
         To allow motion again:  lanyard reset {trip}"
    )?;
    Ok(())
}

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
    fn a_stop_that_reached_nobody_says_so_first() {
        let mut out = Vec::new();
        let error = estop(Path::new("/no/such/socket"), &mut out).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with("THIS COMMAND STOPPED NOTHING"), "{text}");
        assert!(text.contains("cannot reach the supervisor at /no/such/socket"), "{text}");
        assert!(out.is_empty());
        let text = format!("{:#}", reset(Path::new("/no/such/socket"), TripId(7), &mut out).unwrap_err());
        assert!(text.starts_with("trip 7 was not reset: cannot reach the supervisor"), "{text}");
    }
}
