//! Amounts as hoprd's newer clients write them: `"4 MiB"`, `"2 Mb/s"`.
//!
//! They say how many reply blocks are kept ready for a session. There are none on a link inside the robot, so that an amount is
//! read, remembered and shown again, and changes nothing.

use serde::{Deserialize, Serialize};

const SIZES: [&str; 16] =
    ["", "b", "k", "kb", "kib", "ki", "m", "mb", "mib", "mi", "g", "gb", "gib", "gi", "tb", "tib"];
const BANDWIDTHS: [&str; 12] =
    ["bps", "kbps", "mbps", "gbps", "tbps", "b/s", "kb/s", "mb/s", "gb/s", "tb/s", "bit/s", "kbit/s"];
/// No amount has more characters than a number of 64 bits and a unit.
const LONGEST: usize = 32;

/// A number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(String);

/// A number of bits or bytes in a second.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bandwidth(String);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        is_amount(&text, &SIZES)
            .then_some(Self(text))
            .ok_or_else(|| "must be like \"2 MB\" or \"4MiB\"".to_owned())
    }
}

impl TryFrom<String> for Bandwidth {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_one = is_amount(&text, &BANDWIDTHS);
        is_one.then_some(Self(text)).ok_or_else(|| "must be like \"2000 kb/s\" or \"2 Mbps\"".to_owned())
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.0
    }
}

impl From<Bandwidth> for String {
    fn from(bandwidth: Bandwidth) -> Self {
        bandwidth.0
    }
}

/// A number and one of these units, which are written in any case.
fn is_amount(text: &str, units: &[&str]) -> bool {
    if text.len() > LONGEST {
        return false;
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    number.starts_with(|c: char| c.is_ascii_digit())
        && number.parse::<f64>().is_ok()
        && units.contains(&unit.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_a_number_and_a_unit() {
        for size in ["2 MB", "4MiB", "128 kiB", "3MiB", "0", "1.5 GB"] {
            assert!(Size::try_from(size.to_owned()).is_ok(), "{size}");
        }
        for bandwidth in ["2000 kb/s", "2 Mbps", "1.2Mbps", "300 kb/s", "1.23 Mb/s"] {
            assert!(Bandwidth::try_from(bandwidth.to_owned()).is_ok(), "{bandwidth}");
        }
        for wrong in ["", "MB", "1 2", "1.2.3 MB", ".5 MB", "-1 MB", "2 mbps/s", "1e9 B", "2 MB\n", "٣ MB"] {
            assert!(Size::try_from(wrong.to_owned()).is_err(), "{wrong}");
            assert!(Bandwidth::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        let long = "1".repeat(100_000);
        assert!(Size::try_from(long).is_err());
    }
}
