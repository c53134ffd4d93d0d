//! Why a motion command failed, said so that the reader knows what to do next.

use thiserror::Error;

/// Why a motion command failed. After any of these the motors of the command do not follow it any more:
/// what it had set moving was told to stop, unless a newer command took over.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum MotionError {
    /// The session that gave the command is over.
    #[error(
        "the session is over: its heartbeats stopped or it was closed, and what it drove was stopped; \
         open a new session"
    )]
    SessionExpired,
    /// The supervisor does not let this session move the motor.
    #[error("motor \"{motor}\" may not move: {why}")]
    NotGranted {
        /// The motor.
        motor: String,
        /// What keeps it from moving, and what to do.
        why: String,
    },
    /// The drive does not do, or does not say, what the command needs.
    #[error("motor \"{motor}\": {what}")]
    Drive {
        /// The motor.
        motor: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A speed that may not be commanded.
    #[error("motor \"{motor}\": {error}")]
    Speed {
        /// The motor.
        motor: String,
        /// Why not.
        error: drivers::VelocityError,
    },
    /// Frames do not get onto the bus.
    #[error("CAN bus \"{bus}\": {what}")]
    Bus {
        /// The bus.
        bus: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A newer command for one of the same motors, or its stop, came in between.
    #[error("a newer command, or a stop, for one of the same motors took its place")]
    Superseded,
    /// Nobody watches: the supervisor has stopped publishing.
    #[error(
        "the supervisor does not answer, and nothing moves without it; see that it runs (`lanyard status`)"
    )]
    SupervisorGone,
}

/// Why motion could not start at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("CAN bus \"{bus}\", interface \"{interface}\": {what}")]
pub struct MotionStartError {
    /// The bus.
    pub bus: String,
    /// Its network interface.
    pub interface: String,
    /// What is wrong, and what to do.
    pub what: String,
}
