//! What DroneCAN and Cyphal have in common on CAN: the checksum of a transfer, half-precision numbers, and how a
//! receiver tells a new transfer from the repetition of the last one.

use std::time::Duration;

use super::Time;

/// After this long any transfer number is new (Cyphal: 2 s; DroneCAN's libraries: 1 to 2 s).
const FORGET: Duration = Duration::from_secs(2);

/// CRC-16/CCITT-FALSE over `data`, going on from `crc`, which begins as 0xFFFF.
pub fn crc(crc: u16, data: &[u8]) -> u16 {
    data.iter().fold(crc, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            },
        )
    })
}

/// The nearest half-precision number towards zero; too small ones become zero.
pub fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = u16::try_from(bits >> 16 & 0x8000).unwrap_or_default();
    let fraction = u16::try_from(bits >> 13 & 0x3FF).unwrap_or_default();
    match (bits >> 23 & 0xFF).checked_sub(112) {
        _ if value.is_nan() => 0x7E00,
        None | Some(0) => sign,
        Some(exponent @ 1..=30) => sign | u16::try_from(exponent << 10).unwrap_or_default() | fraction,
        Some(_) => sign | 0x7BFF,
    }
}

/// The number that sixteen bits stand for.
pub fn from_half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3FF) / 1024.0;
    let size = match bits >> 10 & 0x1F {
        0 => fraction / 16384.0,
        31 => f64::NAN,
        exponent => (1.0 + fraction) * 2f64.powi(i32::from(exponent) - 15),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

/// The last transfer number of every kind of message from every node.
#[derive(Debug, Default)]
pub struct Receiver(Vec<(u32, u8, Time)>);

impl Receiver {
    /// Whether a transfer of this session (message and source) is a new one: it is not when the one before had
    /// the same number a short while ago.
    pub fn is_new(&mut self, now: Time, session: u32, number: u8) -> bool {
        let Some(known) = self.0.iter_mut().find(|(known, ..)| *known == session) else {
            self.0.push((session, number, now));
            return true;
        };
        let (_, last, at) = *known;
        let new = last != number || now.saturating_sub(at) > FORGET;
        if new {
            *known = (session, number, now);
        }
        new
    }

    /// After a power cycle nothing is known.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_ccitt_false() {
        assert_eq!(crc(0xFFFF, b"123456789"), 0x29B1);
    }

    #[test]
    fn halves() {
        for (value, bits) in
            [(0.0, 0), (1.0, 0x3C00), (-2.0, 0xC000), (24.0, 0x4E00), (300.0, 0x5CB0), (1e9, 0x7BFF)]
        {
            assert_eq!(half(value), bits, "{value}");
        }
        assert!(from_half(0x4E00) == 24.0 && from_half(0xC000) == -2.0 && from_half(0x7E00).is_nan());
    }

    #[test]
    fn a_repeated_number_is_no_new_transfer_until_it_is_forgotten() {
        let mut receiver = Receiver::default();
        let at = Time::from_millis;
        assert!(receiver.is_new(at(0), 1, 0));
        assert!(!receiver.is_new(at(20), 1, 0) && receiver.is_new(at(20), 2, 0));
        assert!(receiver.is_new(at(21), 1, 1) && receiver.is_new(at(40), 1, 0));
        assert!(!receiver.is_new(at(2040), 1, 0) && receiver.is_new(at(2041), 1, 0));
    }
}
