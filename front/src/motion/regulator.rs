//! Keeps the speed of a drive that takes currents: proportional and integral, within a limit, and nothing at
//! all without a fresh measurement.

use std::time::Duration;

use drivers::{Amperes, RevolutionsPerSecond, SpeedLoop};
use tokio::time::Instant;

/// How often a current is computed and sent, unless `refresh` is shorter. The drives report every
/// millisecond; five of them are well below the time in which gentle gains change the speed, and well above
/// what timers resolve.
pub const EVERY: Duration = Duration::from_millis(5);

/// A speed older than this is none: fifty reports that did not come. A current that nobody corrects any more
/// would accelerate the motor for as long as it stays.
pub const STALE: Duration = Duration::from_millis(50);

/// The longest time a step may integrate over: what was in between nobody knows.
const LONGEST_STEP: Duration = Duration::from_millis(20);

/// The regulator of one motor.
#[derive(Debug)]
pub struct Regulator {
    law: SpeedLoop,
    /// What has been integrated, amperes.
    integral: f32,
    /// When the last step was; `None`: the next one is the first.
    last: Option<Instant>,
}

impl Regulator {
    /// A regulator that has integrated nothing.
    pub const fn new(law: SpeedLoop) -> Self {
        Self { law, integral: 0.0, last: None }
    }

    /// Forgets what was integrated: the motor has been told something else.
    pub const fn rest(&mut self) {
        self.integral = 0.0;
        self.last = None;
    }

    /// The current that brings the measured speed to the wanted one; zero without a measurement.
    pub fn step(
        &mut self,
        wanted: RevolutionsPerSecond,
        measured: Option<RevolutionsPerSecond>,
        now: Instant,
    ) -> Amperes {
        let missing = measured.map_or(f32::NAN, |measured| wanted.0 - measured.0);
        if !missing.is_finite() {
            self.rest();
            return Amperes(0.0);
        }
        let passed = self.last.replace(now).map_or(Duration::ZERO, |last| now.duration_since(last));
        let passed = passed.min(LONGEST_STEP).as_secs_f32();
        let limit = self.law.limit.0.abs();
        let integral = (self.integral + self.law.integral * missing * passed).clamp(-limit, limit);
        let asked = self.law.proportional * missing + integral;
        let given = asked.clamp(-limit, limit);
        // At the limit the integral may only shrink: otherwise it grows for as long as the motor accelerates,
        // and has to be worked off far beyond the wanted speed.
        let winds_up = (asked - given) * missing > 0.0;
        if !winds_up {
            self.integral = integral;
        }
        Amperes(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAW: SpeedLoop = SpeedLoop { proportional: 0.2, integral: 1.0, limit: Amperes(5.0) };

    /// A rotor that 1 A accelerates by this much, rev/s²; friction takes a tenth of the speed a second.
    const ACCELERATION: f32 = 20.0;

    /// Lets the regulator drive that rotor to a speed, and returns the speeds it went through.
    fn drive(regulator: &mut Regulator, wanted: f32, seconds: f32) -> Vec<f32> {
        let mut now = Instant::now();
        let (mut speed, mut speeds) = (0.0_f32, Vec::new());
        let step = EVERY.as_secs_f32();
        let mut left = seconds;
        while left > 0.0 {
            let wanted = RevolutionsPerSecond(wanted);
            let current = regulator.step(wanted, Some(RevolutionsPerSecond(speed)), now).0;
            assert!(current.abs() <= LAW.limit.0, "{current} A is beyond the limit");
            speed += (current * ACCELERATION - 0.1 * speed) * step;
            speeds.push(speed);
            now += EVERY;
            left -= step;
        }
        speeds
    }

    #[test]
    fn the_speed_is_reached_and_kept() {
        for wanted in [10.0, -10.0, 0.5] {
            let speeds = drive(&mut Regulator::new(LAW), wanted, 5.0);
            let last = speeds.last().copied().unwrap_or_default();
            assert!((last - wanted).abs() < wanted.abs() * 0.01, "{last} instead of {wanted}");
        }
    }

    /// A second at the limit: without the remedy the integral is at the limit, too, by then, and carries the
    /// rotor a sixth past the wanted speed before it is worked off.
    #[test]
    fn what_is_out_of_reach_for_long_does_not_wind_up() {
        let wanted = 100.0;
        let mut regulator = Regulator::new(SpeedLoop { integral: 0.2, ..LAW });
        let speeds = drive(&mut regulator, wanted, 12.0);
        let most = speeds.iter().copied().fold(0.0, f32::max);
        assert!(most < wanted * 1.05, "{most} instead of {wanted}");
        assert!((speeds.last().copied().unwrap_or_default() - wanted).abs() < wanted * 0.02);
    }

    #[test]
    fn no_measurement_no_current() {
        let mut regulator = Regulator::new(LAW);
        let wanted = RevolutionsPerSecond(10.0);
        let mut now = Instant::now();
        for _ in 0..100 {
            regulator.step(wanted, Some(RevolutionsPerSecond(8.0)), now);
            now += EVERY;
        }
        let still = Some(RevolutionsPerSecond(10.0));
        assert!(regulator.step(wanted, still, now).0 > 0.5, "the integral holds the speed");
        assert_eq!(regulator.step(wanted, None, now), Amperes(0.0));
        assert_eq!(regulator.step(wanted, still, now), Amperes(0.0), "what was integrated is forgotten");
        for wrong in [f32::NAN, f32::INFINITY] {
            assert_eq!(regulator.step(wanted, Some(RevolutionsPerSecond(wrong)), now), Amperes(0.0));
        }
    }

    #[test]
    fn a_long_pause_counts_as_a_short_one() {
        let mut regulator = Regulator::new(LAW);
        let (wanted, measured) = (RevolutionsPerSecond(2.0), Some(RevolutionsPerSecond(1.0)));
        let now = Instant::now();
        let first = regulator.step(wanted, measured, now).0;
        let later = regulator.step(wanted, measured, now + Duration::from_secs(3600)).0;
        assert!((later - first - LONGEST_STEP.as_secs_f32()).abs() < 1e-6, "{first} A, then {later} A");
    }
}
