//! The stop programme of a drive: stages from gentle to final, each with the proof that ends it.
//!
//! A stop is never "sent, therefore done": a stage is repeated until the drive's own feedback meets
//! its [`Proof`], and the next, harder stage follows when it does not in time.

use crate::feedback::{Observation, Output, Power};
use crate::frame::FrameList;
use crate::units::RevolutionsPerSecond;

/// What a stage does to the motor, from gentle to final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StageKind {
    /// A ramp or quick stop under the drive's own control.
    Controlled,
    /// The hardest brake the drive has, still with torque.
    Quick,
    /// Torque is taken away.
    TorqueOff,
    /// The drive's own emergency function, which latches inside the drive.
    Latch,
}

impl StageKind {
    /// The name used in status, events and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Controlled => "controlled",
            Self::Quick => "quick",
            Self::TorqueOff => "torque-off",
            Self::Latch => "latch",
        }
    }

    /// Whether the drive may have torque when the stage is done.
    #[must_use]
    pub const fn leaves_torque(self) -> bool {
        match self {
            Self::Controlled | Self::Quick => true,
            Self::TorqueOff | Self::Latch => false,
        }
    }
}

/// What becomes of the torque once the motor stands still. The configuration must say: an arm that is
/// released falls, a wheel that is held may be what pins somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterStop {
    /// Keep the drive holding at standstill (stop category 2).
    Hold,
    /// Take the torque away at standstill (stop category 1).
    Release,
}

/// What the drive must say of its power stage for a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerProof {
    /// Standing still is enough.
    Any,
    /// Commands must no longer be followed: quick stop, off or fault.
    NotFollowing,
    /// No torque: off or fault.
    Off,
    /// No current and no voltage are measured: for families that have no word on their power stage.
    NoOutput,
}

impl PowerProof {
    /// Whether what the drive says of its power stage, and of what it pushes, meets the demand.
    #[must_use]
    pub const fn met_by(self, power: Option<Power>, output: Option<Output>) -> bool {
        match self {
            Self::Any => true,
            Self::NotFollowing => matches!(power, Some(Power::QuickStop | Power::Off | Power::Fault)),
            Self::Off => matches!(power, Some(Power::Off | Power::Fault)),
            Self::NoOutput => matches!(output, Some(Output::Zero)),
        }
    }
}

/// What must be seen before a stage counts as done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proof {
    /// Largest speed that counts as standing still, never below the resolution of the drive.
    pub max_speed: RevolutionsPerSecond,
    /// How many speed readings in a row must be at or below `max_speed`; at least 1.
    pub samples: u8,
    /// What the power stage must be in.
    pub power: PowerProof,
}

/// One stage.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// What it does.
    pub kind: StageKind,
    /// Its frames, sent together, repeated until proof.
    pub frames: FrameList,
    /// What ends it.
    pub proof: Proof,
}

/// The most stages a programme has: controlled, quick, torque off, latch.
pub const MAX_STAGES: usize = 4;

/// All stages of one motor, built at start-up.
#[derive(Clone, Copy, Debug)]
pub struct StopProgramme {
    len: u8,
    stages: [Stage; MAX_STAGES],
    /// What becomes of the torque at proven standstill.
    pub after: AfterStop,
}

impl StopProgramme {
    /// The given stages, gentlest first.
    ///
    /// # Panics
    ///
    /// With no stage or more than [`MAX_STAGES`]: a mistake in a family's own code.
    #[must_use]
    pub fn new(stages: &[Stage], after: AfterStop) -> Self {
        assert!(!stages.is_empty() && stages.len() <= MAX_STAGES, "a programme has 1 to 4 stages");
        let mut all = [stages[0]; MAX_STAGES];
        all[..stages.len()].copy_from_slice(stages);
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_STAGES")]
        Self { len: stages.len() as u8, stages: all, after }
    }

    /// The stages, gentlest first; never empty.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages[..usize::from(self.len)]
    }

    /// The stage at `index`, or the last one for any larger index: there is always a stage to send.
    #[must_use]
    pub fn stage(&self, index: usize) -> &Stage {
        &self.stages[index.min(usize::from(self.len) - 1)]
    }

    /// The stage that takes the torque away once the motor stands still in stage `index`; `None` when that stage
    /// leaves none, when it is to be held, or when nothing can take it away.
    #[must_use]
    pub fn release(&self, index: usize) -> Option<usize> {
        if self.after == AfterStop::Hold || !self.stage(index).kind.leaves_torque() {
            return None;
        }
        let later = self.stages().iter().enumerate().skip(index + 1);
        later.filter(|(_, stage)| !stage.kind.leaves_torque()).map(|(place, _)| place).next()
    }
}

/// Collects feedback since the first frame of a stage until its [`Proof`] is met.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standstill {
    slow_in_a_row: u8,
    power: Option<Power>,
    output: Option<Output>,
}

impl Standstill {
    /// Nothing seen yet: what was known before the stage began proves nothing.
    pub const NOTHING_SEEN: Self = Self { slow_in_a_row: 0, power: None, output: None };

    /// Takes in one observation and says whether the proof is now met.
    pub fn observe(&mut self, proof: &Proof, seen: &Observation) -> bool {
        if let Some(power) = seen.power {
            self.power = Some(power);
        }
        if let Some(velocity) = seen.velocity {
            // Written so that NaN counts as moving.
            let slow = velocity.0.abs() <= proof.max_speed.0;
            self.slow_in_a_row = if slow { self.slow_in_a_row.saturating_add(1) } else { 0 };
        }
        if let Some(output) = seen.output {
            self.output = Some(output);
        }
        proof.power.met_by(self.power, self.output) && self.slow_in_a_row >= proof.samples.max(1)
    }
}
