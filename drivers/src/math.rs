//! What `core` lacks of arithmetic, exact.

/// The nearest whole number, halves away from zero: what `f64::round` of the standard library gives.
pub(crate) fn round(number: f64) -> f64 {
    /// From here on every f64 is whole.
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    if number.is_nan() || number.abs() >= WHOLE {
        return number;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "below 2^52, so exact")]
    let whole = number as i64 as f64;
    if (number - whole).abs() >= 0.5 { whole + 1f64.copysign(number) } else { whole }
}

/// 2 to that power, -1022 to 1023; beyond, the nearest of these.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    #[expect(clippy::cast_sign_loss, reason = "1 to 2046")]
    let bits = (exponent.clamp(-1022, 1023) + 1023) as u64;
    f64::from_bits(bits << 52)
}

#[cfg(test)]
mod tests {
    use super::{power_of_two, round};

    #[test]
    fn as_the_standard_library_does() {
        let mut numbers =
            std::vec![0.0, -0.0, 0.49999999999999994, 0.5, 2.5, 4503599627370495.5, 1e300, f64::INFINITY];
        numbers.extend((0..1000).map(|step| f64::from(step) * 0.37));
        for number in numbers.iter().flat_map(|number| [*number, -number]) {
            assert_eq!(round(number), number.round(), "{number}");
        }
        assert!(round(f64::NAN).is_nan());
    }

    #[test]
    fn powers() {
        for exponent in -1022..=1023 {
            assert_eq!(power_of_two(exponent), 2f64.powi(exponent));
        }
    }
}
