//! Half-precision floating point (IEEE 754 binary16), as DroneCAN and Cyphal put it on the bus. A number too large
//! for it becomes the largest there is, never infinity: an infinite setpoint may be taken for 0 or for anything.

use crate::math::power_of_two;

/// Exponent bias, and bits of the fraction.
const BIAS: i32 = 15;
const FRACTION: u32 = 10;
/// The largest finite one.
const MOST: u16 = 0x7BFF;

/// The number those 16 bits stand for.
#[expect(clippy::cast_possible_truncation, reason = "an f32 holds every one of them")]
pub(crate) fn from_half(bits: u16) -> f32 {
    let exponent = i32::from(bits >> FRACTION & 0x1F);
    let fraction = f32::from(bits & 0x3FF) / 1024.0;
    let size = match exponent {
        0 => fraction * power_of_two(1 - BIAS) as f32,
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction) * power_of_two(exponent - BIAS) as f32,
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

/// The nearest 16 bits; NaN becomes 0.
pub(crate) fn to_half(value: f32) -> u16 {
    if value.is_nan() {
        return 0;
    }
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    // Halves of one sign are in the order of their bits, so the nearest is found by halving the interval.
    let size = value.abs();
    let (mut low, mut high) = (0, MOST);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if from_half(middle) <= size { low = middle } else { high = middle }
    }
    let nearest = if size - from_half(low) <= from_half(high) - size { low } else { high };
    sign | nearest
}

#[cfg(test)]
mod tests {
    use super::{from_half, to_half};

    /// Values and bits as Python's `struct.pack("<e", x)` gives them.
    #[test]
    fn known_values() {
        for (value, bits) in [
            (0.0, 0),
            (1.0, 0x3C00),
            (-2.0, 0xC000),
            (0.1, 0x2E66),
            (12.5, 0x4A40),
            (65504.0, 0x7BFF),
            (6e-8, 1),
        ] {
            assert_eq!(to_half(value), bits, "{value}");
        }
        assert_eq!(from_half(0x4A40).to_bits(), 12.5f32.to_bits());
        assert!(from_half(0x7E00).is_nan() && from_half(0xFC00) == f32::NEG_INFINITY);
    }

    #[test]
    fn every_finite_half_survives() {
        for bits in (0..=0x7BFFu16).chain(0x8000..=0xFBFF) {
            assert_eq!(to_half(from_half(bits)), bits);
        }
    }

    #[test]
    fn what_does_not_fit_stays_finite() {
        for (value, bits) in [(f32::MAX, 0x7BFF), (f32::NEG_INFINITY, 0xFBFF), (f32::NAN, 0)] {
            assert_eq!(to_half(value), bits);
        }
    }
}
