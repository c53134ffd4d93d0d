//! Units of motion at the motor shaft, so that no bare float says which it is.

/// A shaft speed in revolutions per second; positive is the drive's own positive direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct RevolutionsPerSecond(pub f32);

impl RevolutionsPerSecond {
    /// Standing still.
    pub const ZERO: Self = Self(0.0);

    /// Converts from revolutions per minute.
    #[must_use]
    pub fn from_rpm(rpm: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution drives take")]
        Self((rpm / 60.0) as f32)
    }

    /// This speed in revolutions per minute.
    #[must_use]
    pub fn rpm(self) -> f64 {
        f64::from(self.0) * 60.0
    }
}

/// A shaft position in revolutions from the drive's own zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Revolutions(pub f64);

/// A motor current; positive is the drive's own positive direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Amperes(pub f32);
