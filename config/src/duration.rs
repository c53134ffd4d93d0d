//! Durations as people write them, in one unit: `30ms`, `2s`, `1.5s`, `1m`, `24h`, `500us`.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The duration in a text.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds_per_unit).ok()
}

/// A duration as [`parse`] reads it.
#[must_use]
pub fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration < Duration::from_secs(1) {
        format!("{}ms", duration.as_secs_f64() * 1e3)
    } else if duration.subsec_nanos() == 0 && seconds.is_multiple_of(HOUR) {
        format!("{}h", seconds / HOUR)
    } else if duration.subsec_nanos() == 0 && seconds.is_multiple_of(MINUTE) {
        format!("{}m", seconds / MINUTE)
    } else {
        format!("{}s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_one_unit() {
        assert_eq!(parse("30ms"), Some(Duration::from_millis(30)));
        assert_eq!(parse("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse("1m"), Some(Duration::from_secs(60)));
        assert_eq!(parse("24h"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse("500us"), Some(Duration::from_micros(500)));
        for wrong in ["", "5", "s", "-1s", "1d", "1e3s", "1.2.3s", "2s "] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_read() {
        for text in ["30ms", "1.5s", "90s", "1m", "90m", "24h", "0.5ms"] {
            assert_eq!(parse(text).map(show).as_deref(), Some(text));
        }
    }
}
