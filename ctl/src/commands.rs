//! `lanyard reset`.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use shm_proto::TripSeen;
use shm_proto::handover::{self, Error};

use crate::groups;

/// Clears a trip.
pub fn reset(socket: &Path, seen: TripSeen, out: &mut dyn Write) -> anyhow::Result<()> {
    let cleared = handover::reset(socket, seen)
        .map_err(|error| match &error {
            Error::Io(_, why) if why.kind() == io::ErrorKind::PermissionDenied => {
                anyhow::anyhow!("{error}{}", groups::remedy(socket, "lanyard-operators"))
            }
            Error::Io(..) | Error::Refused(_) | Error::Unexpected => error.into(),
        })
        .with_context(|| format!("trip {seen} was not reset"))?;
    writeln!(out, "trip {cleared} is reset: its motors may be driven again.")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use shm_proto::TripId;

    use super::*;

    #[test]
    fn a_reset_that_reached_nobody_says_so_first() {
        let mut out = Vec::new();
        let text =
            format!("{:#}", reset(Path::new("/no/such/socket"), TripId(7).into(), &mut out).unwrap_err());
        assert!(text.starts_with("trip 7 was not reset: cannot reach the supervisor"), "{text}");
        assert!(out.is_empty());
    }
}
