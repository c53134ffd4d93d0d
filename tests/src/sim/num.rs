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

/// To the nearest integer, saturating.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
pub fn to_i16(value: f64) -> i16 {
    value.round() as i16
}

/// To the nearest integer, saturating; negative becomes zero.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
pub fn to_u16(value: f64) -> u16 {
    value.round() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_saturate() {
        assert_eq!((to_i16(-1.5), to_i16(40_000.0), to_i16(-4e9)), (-2, i16::MAX, i16::MIN));
        assert_eq!((to_u16(1.5), to_u16(70_000.0), to_u16(-1.0)), (2, u16::MAX, 0));
    }
}
