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
    /// The same party has stopped the motor a moment ago over another connection, and nothing tells which was sent first.
    #[error(
        "motor \"{motor}\" was stopped over another connection of yours; a command over this one is taken in {left_ms} ms \
         (stop_hold in [front])"
    )]
    HeldAfterStop {
        /// The motor.
        motor: String,
        /// How much longer, milliseconds.
        left_ms: u64,
    },
    /// The command arrived before the end of a trip of its motor.
    #[error(
        "motor \"{motor}\": this command came before the end of trip {trip}, which stopped it; give it again if it is \
         still meant"
    )]
    OlderThanTrip {
        /// The motor.
        motor: String,
        /// The trip.
        trip: shm_proto::TripId,
    },
    /// The motor was stopped, and its driver has not shown that the stop was noticed.
    #[error(
        "motor \"{motor}\" was stopped by trip {trip}: send Stop first, or speed 0, then drive (reset = \"neutral\" in \
         [supervisor])"
    )]
    StopFirst {
        /// The motor.
        motor: String,
        /// The trip.
        trip: shm_proto::TripId,
    },
    /// The driver has sent Stop, but this command is too close behind it to be meant.
    #[error(
        "motor \"{motor}\": this command came too soon after the Stop that followed its trip; give it again in {left_ms} \
         ms (stop_hold in [front])"
    )]
    TooSoonAfterStop {
        /// The motor.
        motor: String,
        /// How much longer, milliseconds.
        left_ms: u64,
    },
    /// The drive reports a fault, or was stopped for one, that its driver has not acknowledged.
    #[error(
        "motor \"{motor}\" is stopped for a fault of its drive ({what}); look at it, then send Stop (Kortex: ClearFaults) \
         to acknowledge the fault, and drive again"
    )]
    DriveFault {
        /// The motor.
        motor: String,
        /// What the drive says.
        what: String,
    },
    /// The time that the client gave the command was over before it could be carried out.
    #[error("the time that this command was given (grpc-timeout) was over before it reached a motor")]
    DeadlineOver,
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
