//! A secret, as it is made and shown once.

use core::fmt;

/// Random bytes of a secret: 256 bits cannot be guessed, however many machines try.
const BYTES: usize = 32;

/// What a client proves to have. It is shown once, when it is made, and kept nowhere.
pub struct Secret(String);

impl Secret {
    /// A new one, from the kernel's random numbers.
    ///
    /// # Panics
    ///
    /// When the kernel has none: a key that can be guessed is worse than none.
    #[must_use]
    pub fn random() -> Self {
        Self(hex(&random_bytes::<BYTES>()))
    }

    /// The text that the client needs.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Bytes that nobody can guess.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random numbers");
    bytes
}

/// Two digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of such digits, if they are exactly that many.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_different_each_time_and_shown_by_no_log() {
        let (one, other) = (Secret::random(), Secret::random());
        assert_eq!(one.reveal().len(), 64);
        assert_ne!(one.reveal(), other.reveal());
        assert_eq!(format!("{one:?}"), "Secret(..)");
    }

    #[test]
    fn digits_are_bytes() {
        assert_eq!(hex(&[0, 0x9f, 255]), "009fff");
        assert_eq!(unhex::<3>("009fFF"), Some([0, 0x9f, 255]));
        for wrong in ["", "00", "009fff00", "00 fff", "+09fff", "00é1f"] {
            assert_eq!(unhex::<3>(wrong), None, "{wrong:?}");
        }
    }
}
