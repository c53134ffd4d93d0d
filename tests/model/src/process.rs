//! Whether the supervisor's loop comes round, and what the kernel does when it does not.
//!
//! A pass of the loop looks at the FIFO, at the deadlines and the tick, puts the kernel's jobs off, then reads frames and
//! obeys. It may stand still between any two of these, or be killed there.

use crate::drive::STAGES;
use crate::supervisor::Pause;
use drivers::AfterStop;

/// The supervisor's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    /// Its loop comes round in time, and each time puts the kernel's jobs off.
    Runs,
    /// It stands still, and may go on.
    Hangs,
    /// It goes on after such a pause, and has not come to the kernel's jobs.
    Returns(Pause),
    /// The same behind its deadlines and its tick: the jobs are next.
    Ticked,
    /// It has just started in the place of one that died. Its jobs are next.
    Starts,
    /// It was killed.
    Dead,
}

impl Process {
    /// Whether it does nothing.
    #[must_use]
    pub const fn is_absent(self) -> bool {
        matches!(self, Self::Hangs | Self::Dead)
    }

    /// For how long its loop did not come round.
    #[must_use]
    pub const fn pause(self) -> Pause {
        match self {
            Self::Returns(pause) => pause,
            Self::Runs | Self::Hangs | Self::Ticked | Self::Starts | Self::Dead => Pause::Short,
        }
    }
}

/// The jobs of the kernel-armed stop (`supervisor/src/kernel_stop.rs`, `drivers/src/unattended.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// Put off so many units of the kernel's time ago.
    PutOff {
        /// How many.
        ago: u8,
    },
    /// It sends this stage, again and again.
    Sends {
        /// Which one.
        stage: u8,
    },
}

/// `kernel_stop`, in units of the kernel's time.
pub const KERNEL_STOP: u8 = 1;

impl Job {
    /// Just put off.
    pub const ARMED: Self = Self::PutOff { ago: 0 };

    /// A unit of time is over.
    pub const fn pass_time(&mut self, after: AfterStop) {
        *self = match *self {
            Self::PutOff { ago } if ago + 1 < KERNEL_STOP => Self::PutOff { ago: ago + 1 },
            Self::PutOff { .. } => Self::Sends { stage: 0 },
            Self::Sends { stage } if stage + 1 < unattended_stages(after) => Self::Sends { stage: stage + 1 },
            Self::Sends { stage } => Self::Sends { stage },
        };
    }

    /// The stage that it sends, if it does.
    #[must_use]
    pub const fn sends(self) -> Option<u8> {
        match self {
            Self::PutOff { .. } => None,
            Self::Sends { stage } => Some(stage),
        }
    }
}

/// `Drive::unattended_stages`: an axis that is to be held is sent no stage that takes its torque away.
const fn unattended_stages(after: AfterStop) -> u8 {
    match after {
        AfterStop::Release => STAGES,
        AfterStop::Hold => 1,
    }
}

/// The FIFO of the operator's stop (`supervisor/src/estop.rs`, `wakeups.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fifo {
    /// Nothing lies in it.
    Empty,
    /// Something does, since after the pass under way began.
    Pressed,
    /// Something does that wakes the next pass, which looks at it before anything else.
    Wakes,
    /// The loop has seen it; housekeeping has not read it yet.
    Seen,
}

/// A bystander's memory of the presses of stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pressed {
    /// Nothing was pressed, or it was reset.
    No,
    /// A press after the pass under way began.
    Lately,
    /// A press before the present pass began.
    Before,
    /// The supervisor has heard it, and the operator has not read its number yet.
    Heard,
    /// The operator has read it since.
    Read,
}

/// A bystander's memory of the kernel's stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interference {
    /// None, or the motor was tripped since.
    None,
    /// The kernel has begun to stop the motor.
    Stopped,
}
