//! Half-precision floating point (IEEE 754 binary16), as DroneCAN and Cyphal put it on the bus.

/// Exponent bias, and bits of the fraction.
const BIAS: i32 = 15;
const FRACTION: u32 = 10;

/// The number those 16 bits stand for.
pub(crate) fn from_half(bits: u16) -> f32 {
    let exponent = i32::from(bits >> FRACTION & 0x1F);
    let fraction = f32::from(bits & 0x3FF) / 1024.0;
    let size = match exponent {
        0 => fraction * 2f32.powi(1 - BIAS),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction) * 2f32.powi(exponent - BIAS),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::from_half;

    /// Values and bits as Python's `struct.pack("<e", x)` gives them.
    #[test]
    fn known_values() {
        for (value, bits) in [(0.0, 0), (1.0, 0x3C00), (-2.0, 0xC000), (12.5, 0x4A40), (65504.0, 0x7BFF)] {
            assert_eq!(from_half(bits).to_bits(), f32::to_bits(value), "{value}");
        }
        assert!(from_half(0x7E00).is_nan() && from_half(0xFC00) == f32::NEG_INFINITY);
    }
}
