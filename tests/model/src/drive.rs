//! The drive: does what the last frame on the wire says, and reports it when it pleases.

use crate::wire::FrontFrame;

/// Stages of the stop programme: controlled, torque off, latch.
pub const STAGES: u8 = 3;

/// What the drive is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drive {
    /// No torque.
    Off,
    /// Torque, standing still.
    Holding,
    /// Follows a motion frame.
    Turning,
    /// It has given up by itself.
    Faulted,
}

impl Drive {
    /// A frame of the front arrives.
    pub const fn obey(&mut self, frame: FrontFrame) {
        match frame {
            // Whatever it was doing: enabling clears faults, too.
            FrontFrame::Motion => *self = Self::Turning,
            FrontFrame::Stop => self.stop(0),
        }
    }

    /// The frames of a stage arrive. None of them energises anything.
    pub const fn stop(&mut self, stage: u8) {
        *self = match (stage, *self) {
            (0, Self::Turning | Self::Holding) => Self::Holding,
            (_, Self::Faulted) => Self::Faulted,
            _ => Self::Off,
        };
    }

    /// Whether a report of this meets the proof of a stage: standing still for the first, no torque for
    /// the others (`drivers/src/odrive.rs`).
    #[must_use]
    pub const fn proves(self, stage: u8) -> bool {
        match self {
            Self::Off | Self::Faulted => true,
            Self::Holding => stage == 0,
            Self::Turning => false,
        }
    }

    /// Whether a report of this says that a motor proven to stand still does so no longer
    /// (`Motor::violates`).
    #[must_use]
    pub const fn violates(self, stage: u8) -> bool {
        match self {
            Self::Off | Self::Faulted => false,
            Self::Holding => stage != 0,
            Self::Turning => true,
        }
    }
}
