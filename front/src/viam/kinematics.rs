//! Where a differential base goes when its wheels turn, and the other way round. Pure functions.
//!
//! Forwards is positive; a turn to the left (counter-clockwise from above) is positive.

use std::f64::consts::PI;

/// The wheels of a base.
#[derive(Clone, Copy, Debug)]
pub struct Wheels {
    /// Way per revolution, millimetres.
    pub circumference_mm: f64,
    /// Distance between left and right, millimetres.
    pub width_mm: f64,
}

/// One number for each side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sides {
    /// Left.
    pub left: f64,
    /// Right.
    pub right: f64,
}

/// A way of known length: both sides turn equally far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// Speed and direction of each side, rpm.
    pub rpm: Sides,
    /// How far each side turns, revolutions, at least 0.
    pub revolutions: f64,
}

impl Sides {
    /// Scales both sides by the same factor so that neither exceeds its limit in `most`. The ratio, and
    /// with it the curve, stays: the base drives where it was told to, only slower.
    #[must_use]
    pub fn within(self, most: Self) -> Self {
        let excess = (self.left.abs() / most.left).max(self.right.abs() / most.right).max(1.0);
        Self { left: self.left / excess, right: self.right / excess }
    }

    /// Whether both sides stand still.
    #[must_use]
    pub fn is_still(self) -> bool {
        self.left == 0.0 && self.right == 0.0
    }
}

impl Wheels {
    /// Speeds of the sides, rpm, for a speed of the base.
    #[must_use]
    pub fn velocity(self, mm_per_sec: f64, degs_per_sec: f64) -> Sides {
        let turn = degs_per_sec.to_radians() * self.width_mm / 2.0;
        Sides { left: self.rpm(mm_per_sec - turn), right: self.rpm(mm_per_sec + turn) }
    }

    /// A straight way. The signs of distance and speed together give the direction.
    #[must_use]
    pub fn straight(self, distance_mm: f64, mm_per_sec: f64) -> Course {
        let rpm = self.rpm(mm_per_sec).abs() * sign(distance_mm, mm_per_sec);
        Course {
            rpm: Sides { left: rpm, right: rpm },
            revolutions: distance_mm.abs() / self.circumference_mm,
        }
    }

    /// A turn on the spot. The signs of angle and speed together give the direction.
    #[must_use]
    pub fn spin(self, angle_deg: f64, degs_per_sec: f64) -> Course {
        let round = PI * self.width_mm / self.circumference_mm;
        let rpm = round * (degs_per_sec / 360.0 * 60.0).abs() * sign(angle_deg, degs_per_sec);
        Course { rpm: Sides { left: -rpm, right: rpm }, revolutions: round * (angle_deg / 360.0).abs() }
    }

    fn rpm(self, mm_per_sec: f64) -> f64 {
        mm_per_sec / self.circumference_mm * 60.0
    }
}

/// Mixes forward and turning power, each -1 to 1, to the power of the sides, each -1 to 1.
///
/// Backwards the turn is mirrored, as Viam's wheeled base does it: the base follows the same arc back.
/// Where Viam cuts a side off at full power, both are scaled, so that the arc stays.
#[must_use]
pub fn mix(forward: f64, turn: f64) -> Sides {
    let turn = if forward < 0.0 { -turn } else { turn };
    Sides { left: forward - turn, right: forward + turn }.within(Sides { left: 1.0, right: 1.0 })
}

fn sign(a: f64, b: f64) -> f64 {
    if (a < 0.0) == (b < 0.0) { 1.0 } else { -1.0 }
}

#[cfg(test)]
mod tests {
    use super::{Sides, Wheels, mix};

    const WHEELS: Wheels = Wheels { circumference_mm: 500.0, width_mm: 400.0 };

    #[track_caller]
    fn assert_sides(sides: Sides, left: f64, right: f64) {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(sides.left, left) && close(sides.right, right), "{sides:?}, expected {left} {right}");
    }

    #[test]
    fn straight_ahead_is_one_wheel_round_per_circumference() {
        assert_sides(WHEELS.velocity(500.0, 0.0), 60.0, 60.0);
        assert_sides(WHEELS.velocity(-250.0, 0.0), -30.0, -30.0);
        let course = WHEELS.straight(1_000.0, 250.0);
        assert_sides(course.rpm, 30.0, 30.0);
        assert!((course.revolutions - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_turn_to_the_left_drives_the_right_side_forwards() {
        let around = std::f64::consts::PI * 400.0 / 500.0;
        assert_sides(WHEELS.velocity(0.0, 360.0), -around * 60.0, around * 60.0);
        let course = WHEELS.spin(90.0, 36.0);
        assert_sides(course.rpm, -around * 6.0, around * 6.0);
        assert!((course.revolutions - around / 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_curve_is_the_sum_of_both() {
        let (ahead, turn) = (WHEELS.velocity(300.0, 0.0), WHEELS.velocity(0.0, 20.0));
        assert_sides(WHEELS.velocity(300.0, 20.0), ahead.left + turn.left, ahead.right + turn.right);
    }

    #[test]
    fn two_signs_give_one_direction() {
        for (distance, speed, direction) in
            [(100.0, 50.0, 1.0), (-100.0, 50.0, -1.0), (100.0, -50.0, -1.0), (-100.0, -50.0, 1.0)]
        {
            let course = WHEELS.straight(distance, speed);
            assert_sides(course.rpm, 6.0 * direction, 6.0 * direction);
            assert!((course.revolutions - 0.2).abs() < 1e-9);
            assert!((WHEELS.spin(distance, speed).rpm.right > 0.0) == (direction > 0.0));
        }
    }

    #[test]
    fn a_speed_out_of_reach_becomes_slower_on_the_same_curve() {
        let most = Sides { left: 100.0, right: 50.0 };
        assert_sides(Sides { left: 80.0, right: 40.0 }.within(most), 80.0, 40.0);
        assert_sides(Sides { left: 400.0, right: 100.0 }.within(most), 100.0, 25.0);
        assert_sides(Sides { left: -80.0, right: 100.0 }.within(most), -40.0, 50.0);
    }

    #[test]
    fn power_is_mixed_as_viam_does_it_but_keeps_the_arc() {
        assert_sides(mix(1.0, 0.0), 1.0, 1.0);
        assert_sides(mix(0.0, 1.0), -1.0, 1.0);
        assert_sides(mix(0.5, 0.25), 0.25, 0.75);
        assert_sides(mix(-0.5, 0.25), -0.25, -0.75);
        assert_sides(mix(1.0, 0.5), 1.0 / 3.0, 1.0);
        assert_sides(mix(0.0, 0.0), 0.0, 0.0);
        assert!(mix(0.0, -0.0).is_still());
    }
}
