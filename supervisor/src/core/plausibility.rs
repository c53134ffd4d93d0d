//! Whether a granted motor does what it is told: not faster than it may be told, and not the other way round.
//!
//! The commands are those that are heard on the bus. They tell nothing of their sender: what this catches is their effect.

use drivers::RevolutionsPerSecond;
use drivers::meaning::{Meaning, Role};
use shm_proto::Nanos;
use shm_proto::verdicts::Reason;

/// What a motor's speed is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeedLimits {
    /// Above this it is too fast.
    pub most: RevolutionsPerSecond,
    /// Above this it counts as turning the wrong way.
    pub wrong_way: RevolutionsPerSecond,
    /// For how long it has to be wrong, nanoseconds: speed controllers overshoot.
    pub patience: u64,
}

/// For how long every set-point must have asked for one direction before the other is wrong: a second covers a reversal, and
/// whatever waited in a queue.
const ONE_WAY: u64 = 1_000_000_000;

/// The direction of a set-point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forward,
    Backward,
}

impl Way {
    fn of(speed: f32) -> Option<Self> {
        match speed {
            speed if speed > 0.0 => Some(Self::Forward),
            speed if speed < 0.0 => Some(Self::Backward),
            _ => None,
        }
    }
}

/// What was commanded and measured lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plausibility {
    /// The direction that all set-points have asked for, and since when.
    told: Option<(Way, Nanos)>,
    too_fast_since: Option<Nanos>,
    wrong_way_since: Option<Nanos>,
}

impl Plausibility {
    /// Nothing was commanded yet.
    pub(super) const NOTHING_TOLD: Self = Self { told: None, too_fast_since: None, wrong_way_since: None };

    /// Takes in a command that was heard. One whose speed is not known may ask for anything.
    pub(super) fn told(&mut self, meaning: &Meaning, now: Nanos) {
        let Role::SetPoint(_) = meaning.role else { return };
        let way = meaning.speed().and_then(|speed| Way::of(speed.0));
        self.told = match (way, self.told) {
            (None, _) => None,
            (Some(way), Some((before, since))) if way == before => Some((way, since)),
            (Some(way), _) => Some((way, now)),
        };
    }

    /// Takes in a measured speed; says why the motor must not go on, if so.
    pub(super) fn measured(
        &mut self,
        speed: RevolutionsPerSecond,
        limits: &SpeedLimits,
        now: Nanos,
    ) -> Option<Reason> {
        let told_otherwise = self.told.is_some_and(|(way, since)| {
            now.since(since) >= ONE_WAY && Way::of(speed.0).is_some_and(|measured| measured != way)
        });
        let is_too_fast = speed.0.is_nan() || speed.0.abs() > limits.most.0;
        let is_wrong_way = told_otherwise && speed.0.abs() > limits.wrong_way.0;
        let lasts = |since: &mut Option<Nanos>, is_wrong: bool| {
            *since = is_wrong.then(|| since.unwrap_or(now));
            since.is_some_and(|since| now.since(since) >= limits.patience)
        };
        let (fast, wrong) =
            (lasts(&mut self.too_fast_since, is_too_fast), lasts(&mut self.wrong_way_since, is_wrong_way));
        if fast {
            return Some(Reason::Overspeed);
        }
        wrong.then_some(Reason::WrongWay)
    }
}
