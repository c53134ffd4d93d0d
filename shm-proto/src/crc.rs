//! CRC-32C (Castagnoli) over 64-bit words, one at a time, so that a sum over words that rarely change can
//! be kept and continued.
//!
//! One instruction per word where the build targets a processor that has it (`.cargo/config.toml`: every
//! x86-64 since 2009, every ARM Cortex-A of 64 bits), else the crate `crc32c`, which looks for the
//! instruction at run time. This file exists for the `unsafe` that intrinsics need.

/// The sum over the words so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc(u32);

impl Crc {
    /// The sum over nothing.
    pub const START: Self = Self(u32::MAX);

    /// The sum with one more word, least significant byte first.
    #[inline]
    #[must_use]
    pub fn word(self, word: u64) -> Self {
        Self(step(self.0, word))
    }

    /// The checksum of all words.
    #[inline]
    #[must_use]
    pub const fn finish(self) -> u32 {
        !self.0
    }
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse4.2"))]
#[inline]
fn step(state: u32, word: u64) -> u32 {
    // SAFETY: this function is only compiled for processors that have SSE 4.2.
    let sum = unsafe { core::arch::x86_64::_mm_crc32_u64(u64::from(state), word) };
    #[expect(clippy::cast_possible_truncation, reason = "the instruction leaves the upper half 0")]
    let sum = sum as u32;
    sum
}

#[cfg(all(target_arch = "aarch64", target_feature = "crc"))]
#[inline]
fn step(state: u32, word: u64) -> u32 {
    // SAFETY: this function is only compiled for processors that have the CRC extension.
    unsafe { core::arch::aarch64::__crc32cd(state, word) }
}

#[cfg(not(any(
    all(target_arch = "x86_64", target_feature = "sse4.2"),
    all(target_arch = "aarch64", target_feature = "crc")
)))]
#[inline]
fn step(state: u32, word: u64) -> u32 {
    !crc32c::crc32c_append(!state, &word.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::Crc;

    #[test]
    fn both_ways_agree() {
        let mut words = Vec::new();
        let mut word = 1_u64;
        for _ in 0..200 {
            word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ 0x5851_f42d_4c95_7f2d;
            words.push(word);
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let sum = words.iter().fold(Crc::START, |crc, word| crc.word(*word));
            assert_eq!(sum.finish(), crc32c::crc32c(&bytes), "{} words", words.len());
        }
        assert_eq!(Crc::START.finish(), crc32c::crc32c(&[]));
    }

    #[test]
    fn the_check_value_of_the_catalogue() {
        let sum = Crc::START.word(u64::from_le_bytes(*b"12345678"));
        assert_eq!(sum.finish(), 0x6087_809a);
    }
}
