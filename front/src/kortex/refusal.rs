//! Refusals in Kortex's numbers. (Reference: kortex.md, 1.5. Which main code the firmware pairs with which sub-code is not
//! known but for 130; clients only look whether it is 0.)

use std::borrow::Cow;
use std::fmt;

use prost::Message as _;

use super::frame::Frame;
use crate::access::Rejection;
use crate::motion::MotionError;
use crate::proto::kortex as wire;
use crate::sessions::SessionError;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Main {
    /// The frame, or what it asks for.
    ProtocolServer = 1,
    /// The robot.
    Device = 3,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sub {
    /// It was tried, and failed.
    MethodFailed = 1,
    /// A value is out of its range.
    InvalidParam = 3,
    /// Nobody serves that service.
    UnsupportedService = 4,
    /// Nobody serves that method.
    UnsupportedMethod = 5,
    /// These bytes are no frame.
    FrameDecoding = 8,
    /// Another version of the header.
    HeaderVersion = 9,
    /// Another kind of frame.
    FrameType = 10,
    /// The payload is not the method's message.
    PayloadDecoding = 13,
    /// The password is wrong, or there is no such user: who guesses must not learn which.
    InvalidPassword = 15,
    /// The arm cannot do that now.
    RobotNotReady = 21,
    /// A motor has tripped.
    RobotInFault = 22,
    /// There is no such device.
    InvalidDevice = 52,
    /// No session, another one's, one that is over, or one that may not.
    SessionAccess = 54,
    /// Not in this servoing mode.
    ServoingMode = 75,
    /// Nobody there to do it.
    RouterUnavailable = 108,
    /// Another session has the arm.
    NotInControl = 130,
    /// It took too long.
    MethodTimeout = 131,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    main: u8,
    sub: u16,
    text: Cow<'static, str>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {}, sub-error {})", self.text, self.main, self.sub)
    }
}

impl Refusal {
    /// One for what was asked.
    #[must_use]
    pub fn protocol(sub: Sub, text: impl Into<Cow<'static, str>>) -> Self {
        Self { main: Main::ProtocolServer as u8, sub: sub as u16, text: text.into() }
    }

    /// One for the state the robot is in.
    #[must_use]
    pub fn device(sub: Sub, text: impl Into<Cow<'static, str>>) -> Self {
        Self { main: Main::Device as u8, sub: sub as u16, text: text.into() }
    }

    /// No session, another one's, or one that is over: nobody learns which.
    #[must_use]
    pub const fn no_session() -> Self {
        Self {
            main: Main::ProtocolServer as u8,
            sub: Sub::SessionAccess as u16,
            text: Cow::Borrowed("no session: call CreateSession"),
        }
    }

    /// What another one's answer refuses, if it does.
    #[must_use]
    pub fn of(answer: &Frame) -> Option<Self> {
        let (main, sub) = answer.header.error;
        // What it says beside the codes is for people.
        let said = wire::Error::decode(&answer.payload[..]).unwrap_or_default();
        (main != 0).then(|| Self { main, sub, text: said.error_sub_string.into() })
    }

    /// The codes of a header.
    #[must_use]
    pub const fn codes(&self) -> (u8, u16) {
        (self.main, self.sub)
    }

    /// The payload.
    #[must_use]
    pub fn message(&self) -> wire::Error {
        wire::Error {
            error_code: self.main.into(),
            error_sub_code: self.sub.into(),
            error_sub_string: self.text.clone().into_owned(),
        }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Wrong => Self::device(Sub::InvalidPassword, "invalid user name or password"),
            Rejection::NoRandomness => Self::device(Sub::MethodFailed, "this computer has no random numbers"),
            Rejection::Later(wait) => {
                let text = format!("too many failed logins; try again in {} s", wait.as_secs() + 1);
                Self::device(Sub::InvalidPassword, text)
            }
            Rejection::Busy(wait) => {
                let text = format!("too many logins at once; try again in {} s", wait.as_secs());
                Self::device(Sub::MethodFailed, text)
            }
        }
    }
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Expired => Self::no_session(),
            SessionError::Held { .. } => Self::device(Sub::NotInControl, error.to_string()),
            SessionError::LeaseRanOut(_) | SessionError::LeaseEnds | SessionError::TooSoonAfterStop(_) => {
                Self::protocol(Sub::SessionAccess, error.to_string())
            }
            SessionError::TooMany | SessionError::TooManyOfYours(_) => {
                Self::device(Sub::MethodFailed, error.to_string())
            }
            SessionError::Unavailable(_) => Self::device(Sub::RouterUnavailable, error.to_string()),
        }
    }
}

impl From<MotionError> for Refusal {
    fn from(error: MotionError) -> Self {
        let text = error.to_string();
        match error {
            MotionError::SessionExpired => Self::device(
                Sub::SessionAccess,
                "the motors of this session have been stopped meanwhile; call ClearFaults or Stop, then command again",
            ),
            // A speed of 0 is a command like any other here.
            MotionError::StopFirst { motor, trip } => Self::device(
                Sub::RobotInFault,
                format!(
                    "motor \"{motor}\" was stopped by trip {trip}: call ClearFaults or Stop, then command again (reset = \
                     \"neutral\" in [supervisor])"
                ),
            ),
            MotionError::NotGranted { .. }
            | MotionError::OlderThanTrip { .. }
            | MotionError::TooSoonAfterStop { .. }
            | MotionError::DriveFault { .. } => Self::device(Sub::RobotInFault, text),
            MotionError::Drive { .. } => Self::device(Sub::RobotNotReady, text),
            MotionError::Speed { .. } => Self::protocol(Sub::InvalidParam, text),
            MotionError::Bus { .. } | MotionError::SupervisorGone => {
                Self::device(Sub::RouterUnavailable, text)
            }
            MotionError::Superseded | MotionError::DeadlineOver | MotionError::HeldAfterStop { .. } => {
                Self::device(Sub::MethodFailed, text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_comes_when_the_line_is_full_is_not_told_of_failed_logins() {
        let told = |rejection| {
            let refusal = Refusal::from(rejection);
            (refusal.codes(), refusal.message().error_sub_string)
        };
        let busy = told(Rejection::Busy(Duration::from_secs(2)));
        assert_eq!(busy, ((3, 1), "too many logins at once; try again in 2 s".to_owned()));
        let later = told(Rejection::Later(Duration::from_millis(5_500)));
        assert_eq!(later, ((3, 15), "too many failed logins; try again in 6 s".to_owned()));
    }
}
