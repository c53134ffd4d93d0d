//! How a step of an enable programme ends, and what to say when it does not.

use std::time::Duration;

use drivers::{Drive, Observation, Until};

use super::feedback::{Feedback, power_name};

/// How often the frames of a step are sent again while its end is waited for.
pub const RESEND: Duration = Duration::from_millis(50);

/// One step and its place in the programme.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Counted from 1.
    pub step: usize,
    /// How many there are.
    pub of: usize,
    /// What ends it; `None`: at once.
    pub until: Option<Until>,
}

impl Place {
    /// Whether what was seen since its frames first went out ends the step.
    ///
    /// # Errors
    ///
    /// With what to say when the drive has refused it.
    pub fn judge(&self, seen: &Observation) -> Result<bool, String> {
        let Some(until) = self.until else { return Ok(true) };
        match until.refused_by(seen) {
            Some(refusal) => Err(format!(
                "the drive refused request {:#x} in step {} of {} of its enable programme, with code {:#010x}; \
                 see the drive's manual",
                refusal.request, self.step, self.of, refusal.code
            )),
            None => Ok(until.met_by(seen)),
        }
    }

    /// The request whose answer ends the step, if one does.
    pub const fn request(&self) -> Option<u32> {
        match self.until {
            Some(Until::Answer(request)) => Some(request),
            _ => None,
        }
    }

    /// What to say when the step did not end in time.
    pub fn timed_out(&self, within: Duration, feedback: &Feedback, drive: &Drive) -> String {
        let wanted = match self.until {
            None => "its frames to get onto the bus".to_owned(),
            Some(Until::Power(power)) => format!("power {}", power_name(power)),
            Some(Until::NotPower(power)) => format!("power other than {}", power_name(power)),
            Some(Until::State(state)) => format!("state {state:#06x}"),
            Some(Until::Answer(request)) => format!("an answer to request {request:#x}"),
        };
        format!(
            "the drive did not come up within {} ms: step {} of {} of its enable programme waits for {wanted} \
             ({})",
            within.as_millis(),
            self.step,
            self.of,
            feedback.describe(drive)
        )
    }
}
