//! How failures of sessions and motion are told to Viam clients.

use tonic::{Code, Status};

use crate::motion::MotionError;
use crate::sessions::SessionError;

/// The whole message by which clients recognise that they need a new session. They compare it, so it
/// is never longer.
const SESSION_EXPIRED: &str = "SESSION_EXPIRED";

fn session_expired() -> Status {
    Status::invalid_argument(SESSION_EXPIRED)
}

/// Where a refusal says more than its message may.
const REASON: &str = "lanyard-reason";

/// The refusal with its reason in the metadata, for people; clients compare the message and must find it as it is.
pub fn because(mut status: Status, why: Option<String>) -> Status {
    // Only what can stand in a header; our own reasons can.
    if let Some(why) = why.and_then(|why| why.parse().ok()) {
        status.metadata_mut().insert(REASON, why);
    }
    status
}

impl From<SessionError> for Status {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Expired => session_expired(),
            SessionError::TooMany => Self::unknown(error.to_string()),
            SessionError::TooManyOfYours(_) => Self::resource_exhausted(error.to_string()),
            SessionError::TooSoonAfterStop(_) | SessionError::LeaseEnds => Self::aborted(error.to_string()),
            SessionError::Held { .. } | SessionError::LeaseRanOut(_) => {
                Self::failed_precondition(error.to_string())
            }
            SessionError::Unavailable(_) => Self::unavailable(error.to_string()),
        }
    }
}

impl From<MotionError> for Status {
    fn from(error: MotionError) -> Self {
        let code = match &error {
            MotionError::SessionExpired => return session_expired(),
            MotionError::NotGranted { .. }
            | MotionError::OlderThanTrip { .. }
            | MotionError::StopFirst { .. }
            | MotionError::TooSoonAfterStop { .. }
            | MotionError::DriveFault { .. } => Code::FailedPrecondition,
            MotionError::Drive { .. } => Code::Internal,
            MotionError::Speed { .. } => Code::InvalidArgument,
            MotionError::Bus { .. } | MotionError::SupervisorGone => Code::Unavailable,
            MotionError::DeadlineOver => Code::DeadlineExceeded,
            MotionError::Superseded | MotionError::HeldAfterStop { .. } => Code::Aborted,
        };
        Self::new(code, error.to_string())
    }
}

/// A number that is infinite or none at all.
///
/// # Errors
///
/// INVALID_ARGUMENT, naming the field.
pub fn finite(field: &str, number: f64) -> Result<f64, Status> {
    if number.is_finite() {
        Ok(number)
    } else {
        Err(Status::invalid_argument(format!("{field} must be a finite number, not {number}")))
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, MotionError, REASON, SessionError, Status, because, finite};
    use drivers::{RevolutionsPerSecond, VelocityError};

    #[test]
    fn an_expired_session_is_told_in_exactly_viams_words() {
        for status in [Status::from(SessionError::Expired), Status::from(MotionError::SessionExpired)] {
            assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "SESSION_EXPIRED"));
        }
    }

    #[test]
    fn every_other_failure_keeps_its_reason() {
        let motor = || "left".to_owned();
        let too_fast =
            VelocityError::TooFast { asked: RevolutionsPerSecond(2.0), most: RevolutionsPerSecond(1.0) };
        for (error, code) in [
            (MotionError::NotGranted { motor: motor(), why: "a trip".into() }, Code::FailedPrecondition),
            (MotionError::Drive { motor: motor(), what: "a fault".into() }, Code::Internal),
            (MotionError::Speed { motor: motor(), error: too_fast }, Code::InvalidArgument),
            (MotionError::Bus { bus: "can0".into(), what: "down".into() }, Code::Unavailable),
            (MotionError::SupervisorGone, Code::Unavailable),
            (MotionError::Superseded, Code::Aborted),
        ] {
            let text = error.to_string();
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, text.as_str()));
        }
        let status = Status::from(SessionError::TooMany);
        assert_eq!((status.code(), status.message()), (Code::Unknown, "too many concurrent sessions"));
        assert_eq!(Status::from(SessionError::NO_SUPERVISOR).code(), Code::Unavailable);
    }

    #[test]
    fn a_reason_stands_beside_the_message() {
        let status = because(SessionError::Expired.into(), Some("it was silent".into()));
        assert_eq!(status.message(), "SESSION_EXPIRED");
        assert_eq!(status.metadata().get(REASON).unwrap(), "it was silent");
        assert!(because(SessionError::Expired.into(), Some("two\nlines".into())).metadata().is_empty());
    }

    #[test]
    fn no_call_moves_by_a_number_that_is_none() {
        assert_eq!(finite("rpm", 1.5).unwrap(), 1.5);
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(finite("rpm", number).unwrap_err().code(), Code::InvalidArgument);
        }
    }
}
