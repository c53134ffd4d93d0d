//! One motor's drive with everything prebuilt: what the supervisor and the front hold per motor.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use crate::enable::EnableProgramme;
use crate::feedback::Observation;
use crate::frame::{ArbitrationId, Format, Frame, FrameList};
use crate::stop::StopProgramme;
use crate::units::RevolutionsPerSecond;

/// What only a family's own code can say of a drive, in frames. None of it allocates.
pub trait Protocol: fmt::Debug + Send + Sync {
    /// The frames that make an enabled drive turn at this speed, which may be any.
    fn velocity(&self, velocity: RevolutionsPerSecond) -> FrameList;

    /// What a received frame says of this drive; `None` for frames of others, of wrong length, or without news.
    fn decode(&self, frame: &Frame) -> Option<Observation>;

    /// Whether a frame, sent by anyone, would energise or move this drive. When a frame cannot be understood
    /// but is addressed to a command id of the drive, the answer is yes.
    fn is_motion(&self, frame: &Frame) -> bool;

    /// Whether a frame with this identifier could mean anything to this drive, or to a drive of its family on
    /// the same bus that nobody has configured here. Those of [`Drive::owns`], [`Drive::reports`] and
    /// [`Drive::commands`] need not be repeated.
    fn may_hear(&self, id: ArbitrationId) -> bool;
}

/// One motor's drive.
#[derive(Clone, Debug)]
pub struct Drive {
    /// The family's name.
    pub family: &'static str,
    /// The family's own code, with this drive's parameters.
    pub protocol: Arc<dyn Protocol>,
    /// How it is stopped.
    pub stop: StopProgramme,
    /// How it is brought to follow velocity commands.
    pub enable: EnableProgramme,
    /// Frames that ask the drive for feedback and do nothing else: they neither enable the motor nor
    /// feed the drive's own watchdog. Empty for families whose polls would.
    ///
    /// **One frame a turn**: each poll turn sends the next frame of the list, and the first after the
    /// last. A drive may take only one request at a time and drop a second that comes before its answer.
    pub poll: FrameList,
    /// A sign of life that the supervisor itself sends and the drive watches; `None` for families
    /// without. Drives of one bus may have the same frame in common: it is sent once for all.
    pub heartbeat: Option<Heartbeat>,
    /// Every id that is this drive's by its protocol, used or not: no other drive of the bus may have any
    /// of them.
    pub owns: Vec<ArbitrationId>,
    /// Ids on which this drive reports.
    pub reports: Vec<ArbitrationId>,
    /// Ids on which this drive takes commands; the bus guard watches them.
    pub commands: Vec<ArbitrationId>,
    /// Largest speed that may be commanded.
    pub max_speed: RevolutionsPerSecond,
    /// Format of its frames: an FD family needs an FD bus.
    pub format: Format,
}

/// A frame whose absence makes the drive stop by itself.
///
/// It is sent by the very thread that watches over the sessions and never by a timer of the kernel: the
/// kernel goes on sending when that thread hangs.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// The frame.
    pub frame: Frame,
    /// How long the drive waits for the next one. Send at least three times as often.
    pub window: Duration,
}

/// A speed that may not be commanded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VelocityError {
    /// Not a finite number.
    NotFinite,
    /// Faster than the motor's configured maximum.
    TooFast {
        /// What was asked for.
        asked: RevolutionsPerSecond,
        /// The configured maximum.
        most: RevolutionsPerSecond,
    },
}

impl fmt::Display for VelocityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite => write!(f, "the speed is not a finite number"),
            Self::TooFast { asked, most } => {
                write!(f, "{:.1} rpm is faster than this motor's max_rpm {:.1}", asked.rpm(), most.rpm())
            }
        }
    }
}

impl std::error::Error for VelocityError {}

impl Drive {
    /// The frames that make an enabled drive turn at `velocity`.
    ///
    /// # Errors
    ///
    /// When the speed is not finite or above the configured maximum.
    pub fn velocity(&self, velocity: RevolutionsPerSecond) -> Result<FrameList, VelocityError> {
        if !velocity.0.is_finite() {
            return Err(VelocityError::NotFinite);
        }
        if velocity.0.abs() > self.max_speed.0 {
            return Err(VelocityError::TooFast { asked: velocity, most: self.max_speed });
        }
        Ok(self.protocol.velocity(velocity))
    }

    /// See [`Protocol::decode`].
    #[must_use]
    pub fn decode(&self, frame: &Frame) -> Option<Observation> {
        self.protocol.decode(frame)
    }

    /// See [`Protocol::is_motion`].
    #[must_use]
    pub fn is_motion(&self, frame: &Frame) -> bool {
        self.protocol.is_motion(frame)
    }

    /// Whether a frame with this identifier could mean anything to this drive, or to a drive of its family
    /// on the same bus that nobody has configured here.
    #[must_use]
    pub fn may_hear(&self, id: ArbitrationId) -> bool {
        let heartbeat = self.heartbeat.iter().map(|heartbeat| heartbeat.frame.id());
        let own = self.owns.iter().chain(&self.reports).chain(&self.commands).copied();
        own.chain(heartbeat).any(|known| known == id) || self.protocol.may_hear(id)
    }
}
