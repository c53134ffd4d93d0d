//! Durations as Go writes them: "1m30s", "1.5s", "500ms".

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

/// Nanoseconds of each unit. Both signs that look like a Greek mu are one.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A session's heartbeat window: within viam-server's bounds, or 0 for "the default".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatWindow(pub Option<Duration>);

impl<'de> Deserialize<'de> for HeartbeatWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) else {
            return Ok(Self(None));
        };
        let window = parse(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "heartbeat_window must be a duration like \"2s\" or \"500ms\", not {text:?}"
            ))
        })?;
        let allowed = config::SHORTEST_WINDOW..=config::LONGEST_WINDOW;
        if window.is_zero() {
            Ok(Self(None))
        } else if allowed.contains(&window) {
            Ok(Self(Some(window)))
        } else {
            Err(D::Error::custom(format!("heartbeat_window must be between [30ms, 1m], not {text:?}")))
        }
    }
}

/// The duration, if it is one and not negative.
fn parse(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos = nanos.checked_add(whole.checked_mul(*unit)?)?.checked_add(part(fraction, *unit)?)?;
        rest = after;
    }
    Some(Duration::from_nanos(nanos))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The decimals of a number of that unit; what is finer than a nanosecond falls away, as in Go.
fn part(decimals: &str, unit: u64) -> Option<u64> {
    let decimals = &decimals[..decimals.len().min(18)];
    if decimals.is_empty() {
        return Some(0);
    }
    let number: u128 = decimals.parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(decimals.len()).ok()?);
    u64::try_from(number * u128::from(unit) / scale).ok()
}

/// As lanyard.toml has it: one number and one unit.
pub fn show(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, size) in [("s", 1_000_000_000), ("ms", 1_000_000)] {
        if nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    let text = format!("{}.{:03}", nanos / 1_000, nanos % 1_000);
    format!("{}us", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::{Duration, parse, show};

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let nanos = |nanos| Some(Duration::from_nanos(nanos));
        for (text, expected) in [
            ("2s", nanos(2_000_000_000)),
            ("500ms", nanos(500_000_000)),
            ("1m30s", nanos(90_000_000_000)),
            ("1h0m0.25s", nanos(3_600_250_000_000)),
            (".5s", nanos(500_000_000)),
            ("5.s", nanos(5_000_000_000)),
            ("+30ms", nanos(30_000_000)),
            ("100µs", nanos(100_000)),
            ("1.0000000009s", nanos(1_000_000_000)),
            ("0", nanos(0)),
            ("0s", nanos(0)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        for wrong in
            ["", "+", "2", "s", ".s", "2 s", "-2s", "1d", "1s ", "2S", "99999999999999999999s", "1e3s"]
        {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn durations_are_written_in_one_unit_and_lose_nothing() {
        for (nanos, expected) in [
            (2_000_000_000, "2s"),
            (60_000_000_000, "60s"),
            (1_500_000_000, "1500ms"),
            (30_000_000, "30ms"),
            (40_500_000, "40500us"),
            (40_500_010, "40500.01us"),
        ] {
            assert_eq!(show(Duration::from_nanos(nanos)), expected);
        }
    }
}
