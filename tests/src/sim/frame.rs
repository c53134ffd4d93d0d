//! A classic CAN frame as plain data, and ranges of identifiers.

use std::fmt;

/// A classic CAN frame (up to 8 data bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Identifier without flags: 11 or 29 bits.
    pub id: u32,
    /// The identifier is of the 29-bit form.
    pub extended: bool,
    /// Remote request: `len` is the length asked for and there is no data.
    pub remote: bool,
    len: u8,
    bytes: [u8; 8],
}

impl Frame {
    /// A data frame with an 11-bit identifier. Data beyond 8 bytes is cut off.
    pub fn data(id: u32, data: &[u8]) -> Self {
        let mut bytes = [0; 8];
        let mut len = 0;
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
            len += 1;
        }
        Self { id, extended: false, remote: false, len, bytes }
    }

    /// A remote request with an 11-bit identifier.
    pub fn request(id: u32, len: u8) -> Self {
        Self { id, extended: false, remote: true, len: len.min(8), bytes: [0; 8] }
    }

    /// The same frame with an identifier of the given form.
    pub fn with_extended(self, extended: bool) -> Self {
        Self { extended, ..self }
    }

    /// The data bytes: none in a remote request.
    pub fn payload(&self) -> &[u8] {
        if self.remote { &[] } else { self.bytes.get(..usize::from(self.len)).unwrap_or_default() }
    }

    /// The data length code.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether the data length code is zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `N` bytes at `at`, if the frame is long enough.
    pub fn bytes_at<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.payload().get(at..at.checked_add(N)?)?.try_into().ok()
    }

    /// The little-endian number at `at`.
    pub fn u16_at(&self, at: usize) -> Option<u16> {
        self.bytes_at(at).map(u16::from_le_bytes)
    }

    /// The little-endian number at `at`.
    pub fn u32_at(&self, at: usize) -> Option<u32> {
        self.bytes_at(at).map(u32::from_le_bytes)
    }

    /// The little-endian number at `at`.
    pub fn i32_at(&self, at: usize) -> Option<i32> {
        self.bytes_at(at).map(i32::from_le_bytes)
    }

    /// The little-endian finite number at `at`.
    pub fn f32_at(&self, at: usize) -> Option<f32> {
        self.bytes_at(at).map(f32::from_le_bytes).filter(|v| v.is_finite())
    }
}

/// Identifiers `first ..= first + !mask`, where `mask` has its zero bits at the low end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The lowest identifier.
    pub first: u32,
    /// Which bits of an identifier must agree with `first`.
    pub mask: u32,
    /// The identifiers are of the 29-bit form.
    pub extended: bool,
}

impl IdRange {
    /// A single 11-bit identifier.
    pub fn one(id: u32) -> Self {
        Self { first: id, mask: 0x7FF, extended: false }
    }

    /// Whether some identifier is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let mask = self.mask & other.mask;
        self.extended == other.extended && self.first & mask == other.first & mask
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.extended { 0x1FFF_FFFF } else { 0x7FF };
        let last = self.first | (all & !self.mask);
        if last == self.first {
            write!(f, "0x{:03X}", self.first)
        } else {
            write!(f, "0x{:03X}..0x{last:03X}", self.first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_frames_have_no_numbers_beyond_their_end() {
        let frame = Frame::data(0x123, &[1, 2, 3]);
        assert_eq!(frame.u16_at(0), Some(0x0201));
        assert_eq!(frame.u16_at(2), None);
        assert_eq!(frame.u32_at(usize::MAX), None);
        assert_eq!(Frame::request(1, 8).u32_at(0), None);
    }
}
