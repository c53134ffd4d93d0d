//! Evidence of standstill: what the proof of a stage asks for, seen over a span of time.
//!
//! Readings in a row are not enough. A shaft that reverses is slow for a moment, in which a drive that reports a thousand
//! times a second tells several speeds near zero; and frames that waited behind a busy bus arrive in one burst.

use drivers::{Observation, Proof, Standstill};
use shm_proto::Nanos;

use super::arrival::Arrival;

/// What was seen since a moment from which on it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    readings: Standstill,
    /// The first of the readings in a row that were slow; zero while the last one was not.
    slow_since: Nanos,
}

impl Evidence {
    /// Nothing seen yet: what was known before proves nothing.
    pub(super) const NONE: Self = Self { readings: Standstill::NOTHING_SEEN, slow_since: Nanos::ZERO };

    /// Takes in one observation and says whether the proof is now met, by readings that were slow for `span` nanoseconds: at
    /// least for so long, whenever within its [`Arrival`] each of them came.
    pub(super) fn observe(&mut self, proof: &Proof, seen: &Observation, arrival: Arrival, span: u64) -> bool {
        if let Some(velocity) = seen.velocity {
            // Written so that NaN counts as moving.
            let is_slow = velocity.0.abs() <= proof.max_speed.0;
            self.slow_since = match (is_slow, self.slow_since) {
                (false, _) => Nanos::ZERO,
                (true, Nanos::ZERO) => arrival.now,
                (true, since) => since,
            };
        }
        let is_met = self.readings.observe(proof, seen);
        is_met && self.slow_since != Nanos::ZERO && arrival.earliest.since(self.slow_since) >= span
    }
}

#[cfg(test)]
mod tests {
    use drivers::{PowerProof, RevolutionsPerSecond};

    use super::*;

    const SPAN: u64 = 10_000_000;
    const PROOF: Proof = Proof { max_speed: RevolutionsPerSecond(0.05), samples: 3, power: PowerProof::Any };

    /// Whether these speeds, one each so many nanoseconds, prove standstill at any time.
    fn proves(speeds: &[f32], period: u64) -> bool {
        let mut evidence = Evidence::NONE;
        let mut now = Nanos(1_000_000_000);
        speeds.iter().any(|speed| {
            now = now.after(period);
            let seen = Observation { velocity: Some(RevolutionsPerSecond(*speed)), ..Observation::default() };
            evidence.observe(&PROOF, &seen, now.into(), SPAN)
        })
    }

    /// Fails if frames that come in one burst prove anything, however many they are.
    #[test]
    fn a_burst_is_no_evidence() {
        assert!(!proves(&[0.0; 40], SPAN / 40));
        assert!(proves(&[0.0; 42], SPAN / 40));
        // Three readings all the same, however far apart.
        assert!(!proves(&[0.0; 2], SPAN));
        assert!(proves(&[0.0; 3], SPAN));
    }

    /// Fails if a shaft that reverses, as a drive tells it a thousand times a second, counts as standing still.
    #[test]
    fn a_reversal_is_no_evidence() {
        let speeds: Vec<f32> = (-100_i16..=100).map(|step| f32::from(step) / 100.0 * 2.0).collect();
        assert!(!proves(&speeds, SPAN / 10));
        let slow = speeds.iter().filter(|speed| speed.abs() <= 0.05).count();
        assert!(slow >= 3, "{slow} readings: this shows nothing");
    }

    /// Fails if a reading that is fast, or no number, does not end a row.
    #[test]
    fn one_fast_reading_ends_the_row() {
        for fast in [0.06, -0.06, f32::NAN, f32::INFINITY] {
            let speeds = [0.0, 0.0, fast, 0.0, 0.0];
            assert!(!proves(&speeds, SPAN / 2), "{fast}");
        }
    }
}
