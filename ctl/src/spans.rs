//! Lengths of time as people read them.

use std::time::Duration;

/// Milliseconds, as JSON gives lengths of time.
pub fn millis(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e3
}

/// Coarse, for ages: `4 ms`, `12.3 s`, `5 min 3 s`, `2 h 7 min`, `3 d 4 h`.
pub fn coarse(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    match seconds {
        0 => format!("{} ms", nanos / 1_000_000),
        1..60 => format!("{seconds}.{} s", nanos / 100_000_000 % 10),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Fine, for figures: `43.210 us` below 10 ms, else `2000.043 ms`.
pub fn fine(nanos: u64) -> String {
    if nanos < 10_000_000 {
        format!("{}.{:03} us", nanos / 1_000, nanos % 1_000)
    } else {
        format!("{}.{:03} ms", nanos / 1_000_000, nanos / 1_000 % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_readable() {
        assert_eq!(coarse(4_999_999), "4 ms");
        assert_eq!(coarse(12_345_000_000), "12.3 s");
        assert_eq!(coarse(303_000_000_000), "5 min 3 s");
        assert_eq!(coarse(7_620_000_000_000), "2 h 7 min");
        assert_eq!(coarse(273_600_000_000_000), "3 d 4 h");
        assert_eq!(fine(43_210), "43.210 us");
        assert_eq!(fine(2_000_043_999), "2000.043 ms");
        assert!((millis(1_500_000) - 1.5).abs() < 1e-9);
    }
}
