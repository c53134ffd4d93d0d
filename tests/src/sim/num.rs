//! The few lossy number conversions that a wire format asks for, in one place.

/// To single precision, as drives send it.
#[expect(clippy::cast_possible_truncation, reason = "the wire carries f32")]
pub fn to_f32(value: f64) -> f32 {
    value as f32
}

/// To the nearest integer, saturating.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and saturation is what a drive does")]
pub fn to_i32(value: f64) -> i32 {
    value.round() as i32
}

/// To the nearest integer, saturating; negative becomes zero.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
pub fn to_u32(value: f64) -> u32 {
    value.round() as u32
}
