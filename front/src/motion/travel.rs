//! How fast to turn so that the shaft comes to rest close to a given distance.
//!
//! Position feedback alone decides. The speed falls with the root of what is left, as a constant
//! deceleration needs it, so the end does not depend on how quickly the drive itself can brake.

use std::time::Duration;

use drivers::{Drive, Revolutions, RevolutionsPerSecond};

/// From the motor's largest speed to rest within this many seconds: gentle for what the motor was
/// configured for, so that ramps of the drive itself are steeper, and slow enough for drives that report
/// their position every 100 ms only.
const SECONDS_TO_REST: f64 = 2.0;
/// The last bit is done at this part of the largest speed: slower would take for ever.
const CREEP: f64 = 0.01;

/// One motor's part of a travel, in the drive's own direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leg {
    /// Speed on the way, with the sign of the direction.
    pub speed: RevolutionsPerSecond,
    /// How far, 0 or more.
    pub distance: f64,
}

impl Leg {
    /// A leg; the direction is that of `speed` times `revolutions`, as clients mean it.
    pub fn new(speed: RevolutionsPerSecond, revolutions: f64) -> Self {
        let speed = if revolutions < 0.0 { RevolutionsPerSecond(-speed.0) } else { speed };
        Self { speed, distance: revolutions.abs() }
    }
}

/// A travel under way.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    start: f64,
    direction: f64,
    distance: f64,
    speed: f64,
    creep: f64,
    deceleration: f64,
    /// What is left when the stop is due: what one refresh and the stop itself still add.
    allowance: f64,
}

impl Plan {
    /// The plan of a leg that starts at `start`.
    pub fn new(leg: &Leg, start: Revolutions, drive: &Drive, refresh: Duration) -> Self {
        let most = f64::from(drive.max_speed.0);
        let still = f64::from(drive.stop.stage(0).proof.max_speed.0);
        let speed = f64::from(leg.speed.0).abs();
        // Twice what counts as standing still, or the drive might hold it for that.
        let creep = (most * CREEP).max(still * 2.0).min(speed);
        let deceleration = most / SECONDS_TO_REST;
        let allowance = creep * creep / (2.0 * deceleration) + creep * refresh.as_secs_f64() / 2.0;
        Self {
            start: start.0,
            direction: f64::from(leg.speed.0).signum(),
            distance: leg.distance,
            speed,
            creep,
            deceleration,
            allowance,
        }
    }

    /// The speed to command now; `None` when it is time to stop. `age` is how long the shaft has turned
    /// at `commanded` since the position was measured.
    pub fn speed(
        &self,
        position: Revolutions,
        age: Duration,
        commanded: RevolutionsPerSecond,
    ) -> Option<RevolutionsPerSecond> {
        let left = self.distance - (position.0 - self.start) * self.direction;
        let commanded = f64::from(commanded.0).abs();
        // A drive still on its ramp is slower than commanded. To slow down for distance not yet done
        // costs some time, to stop for it would end short: that is decided at the speed of the last bit.
        if left - commanded.min(self.creep) * age.as_secs_f64() <= self.allowance {
            return None;
        }
        let left = (left - commanded * age.as_secs_f64()).max(0.0);
        let speed = (2.0 * self.deceleration * left).sqrt().clamp(self.creep, self.speed);
        #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution drives take")]
        Some(RevolutionsPerSecond((speed * self.direction) as f32))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Drive, Leg, Plan, Revolutions, RevolutionsPerSecond};

    fn drive() -> Drive {
        crate::motion::tests::configuration().motors.remove(0).drive
    }

    /// Where a drive with that acceleration, which reports its position every `report` milliseconds,
    /// comes to rest, and after how many seconds.
    fn run(leg: &Leg, report: u32, acceleration: f64) -> Option<(f64, f64)> {
        let drive = drive();
        let start = Revolutions(-3.5);
        let plan = Plan::new(leg, start, &drive, Duration::from_millis(20));
        let (mut position, mut speed) = (start.0, 0.0_f64);
        let (mut reported, mut age) = (start, 0);
        let mut commanded = Some(RevolutionsPerSecond::ZERO);
        for millisecond in 0..120_000_u32 {
            if millisecond % report == 0 {
                (reported, age) = (Revolutions(position), 0);
            }
            if millisecond % 20 == 0
                && let Some(last) = commanded
            {
                let turned = Duration::from_millis(u64::from(age.min(millisecond)));
                commanded = plan.speed(reported, turned, last);
            }
            let wanted = commanded.map_or(0.0, |speed| f64::from(speed.0));
            let change = (wanted - speed).clamp(-acceleration / 1000.0, acceleration / 1000.0);
            speed += change;
            position += speed / 1000.0;
            age += 1;
            if commanded.is_none() && speed.abs() < 1e-6 {
                return Some((position - start.0, f64::from(millisecond) / 1000.0));
            }
        }
        None
    }

    #[test]
    fn comes_to_rest_close_to_the_distance() {
        for (speed, revolutions) in [(8.0, 20.0), (8.0, -20.0), (-2.0, 1.0), (10.0, 0.5), (0.05, 0.2)] {
            for (report, acceleration) in [(10, 100.0), (100, 100.0), (10, 10.0), (100, 15.0)] {
                let leg = Leg::new(RevolutionsPerSecond(speed), revolutions);
                let arrived = run(&leg, report, acceleration);
                let wanted = revolutions * f64::from(speed).signum();
                let about =
                    format!("{speed} rev/s, {revolutions} rev, {report} ms, {acceleration}: {arrived:?}");
                let Some((arrived, seconds)) = arrived else { panic!("never arrived: {about}") };
                assert!((arrived - wanted).abs() < 0.06, "{about}");
                assert!(seconds < 12.0, "{about}");
            }
        }
    }

    #[test]
    fn nothing_to_do_is_nothing_done() {
        let leg = Leg::new(RevolutionsPerSecond(1.0), 0.0);
        let plan = Plan::new(&leg, Revolutions(7.0), &drive(), Duration::from_millis(20));
        assert_eq!(plan.speed(Revolutions(7.0), Duration::ZERO, RevolutionsPerSecond::ZERO), None);
    }
}
