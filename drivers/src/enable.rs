//! The programme that brings a drive from any state to following velocity commands.
//!
//! Only the front runs it, and only under a grant: to the bus guard some of its frames are motion. A
//! programme that does not come to its end in time is run again from its first step.

use alloc::sync::Arc;

use crate::feedback::{Observation, Power, Refusal};
use crate::frame::FrameList;

/// One step: send the frames, then wait until the drive reports one of the wanted states.
#[derive(Clone, Copy, Debug)]
pub struct EnableStep {
    /// What is sent, in order; repeated while waiting.
    pub frames: FrameList,
    /// What the drive must report before the next step; `None`: go on at once.
    pub until: Option<Until>,
}

/// What ends the waiting of an [`EnableStep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The power stage is in this state.
    Power(Power),
    /// The power stage is in any state but this one.
    NotPower(Power),
    /// This family-specific state word is reported (see the family's file).
    State(u16),
    /// The drive has confirmed the request of this number ([`crate::Observation::answer`]). When it
    /// refuses that request instead, the programme has failed.
    Answer(u32),
}

impl Until {
    /// Whether an observation made after the step's frames were first sent ends the step.
    #[must_use]
    pub fn met_by(self, seen: &Observation) -> bool {
        match self {
            Self::Power(power) => seen.power == Some(power),
            Self::NotPower(power) => seen.power.is_some_and(|now| now != power),
            Self::State(state) => seen.state == Some(state),
            Self::Answer(request) => seen.answer == Some(request),
        }
    }

    /// The refusal, if the observation is one of the request that is waited for.
    #[must_use]
    pub fn refused_by(self, seen: &Observation) -> Option<Refusal> {
        seen.refused.filter(|refusal| self == Self::Answer(refusal.request))
    }
}

/// The most steps of a programme: CiA 402 with PDOs has 27, since each object it writes is a step of its
/// own; and some room.
pub const MAX_STEPS: usize = 32;

/// All steps in order.
///
/// On the heap and shared by all copies: the supervisor, whose memory is locked, keeps the drives of up to 256
/// motors and runs none of their programmes.
#[derive(Clone, Debug)]
pub struct EnableProgramme {
    steps: Arc<[EnableStep]>,
}

impl EnableProgramme {
    /// The given steps.
    ///
    /// # Panics
    ///
    /// With more than [`MAX_STEPS`] steps: a mistake in a family's own code.
    #[must_use]
    pub fn new(steps: &[EnableStep]) -> Self {
        assert!(steps.len() <= MAX_STEPS, "an enable programme has too many steps");
        Self { steps: steps.into() }
    }

    /// The steps in order.
    #[must_use]
    pub fn steps(&self) -> &[EnableStep] {
        &self.steps
    }
}
