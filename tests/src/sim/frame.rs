//! A CAN frame, classic or FD, as plain data, and ranges of identifiers.

use std::fmt;

/// The data lengths that an FD frame can have beyond 8 bytes (ISO 11898-1).
const FD_LENGTHS: [u8; 7] = [12, 16, 20, 24, 32, 48, 64];

/// A CAN frame: classic (up to 8 data bytes) or FD (up to 64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Identifier without flags: 11 or 29 bits.
    pub id: u32,
    /// The identifier is of the 29-bit form.
    pub extended: bool,
    /// Remote request: `len` is the length asked for and there is no data.
    pub remote: bool,
    fd: bool,
    len: u8,
    bytes: [u8; 64],
}

impl Frame {
    /// A classic data frame with an 11-bit identifier. Data beyond 8 bytes is cut off.
    pub fn data(id: u32, data: &[u8]) -> Self {
        Self::carrying(id, data.get(..8).unwrap_or(data))
    }

    /// An FD frame with an 11-bit identifier. Zeros fill it up to the next length that exists; data beyond
    /// 64 bytes is cut off.
    pub fn fd(id: u32, data: &[u8]) -> Self {
        let plain = Self::carrying(id, data);
        let len = match plain.len {
            0..=8 => plain.len,
            more => FD_LENGTHS.into_iter().find(|len| *len >= more).unwrap_or(64),
        };
        Self { fd: true, len, ..plain }
    }

    /// A remote request with an 11-bit identifier.
    pub fn request(id: u32, len: u8) -> Self {
        Self { id, extended: false, remote: true, fd: false, len: len.min(8), bytes: [0; 64] }
    }

    fn carrying(id: u32, data: &[u8]) -> Self {
        let mut bytes = [0; 64];
        let mut len = 0;
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
            len += 1;
        }
        Self { id, extended: false, remote: false, fd: false, len, bytes }
    }

    /// Whether it is an FD frame.
    pub fn is_fd(&self) -> bool {
        self.fd
    }

    /// The same frame with an identifier of the given form.
    pub fn with_extended(self, extended: bool) -> Self {
        Self { extended, ..self }
    }

    /// The data bytes: none in a remote request.
    pub fn payload(&self) -> &[u8] {
        if self.remote { &[] } else { self.bytes.get(..usize::from(self.len)).unwrap_or_default() }
    }

    /// The number of data bytes, or of those asked for.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether that is zero.
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
    pub fn i16_at(&self, at: usize) -> Option<i16> {
        self.bytes_at(at).map(i16::from_le_bytes)
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

    /// The big-endian number at `at`.
    pub fn be_u16_at(&self, at: usize) -> Option<u16> {
        self.bytes_at(at).map(u16::from_be_bytes)
    }

    /// The big-endian number at `at`.
    pub fn be_i16_at(&self, at: usize) -> Option<i16> {
        self.bytes_at(at).map(i16::from_be_bytes)
    }

    /// The big-endian number at `at`.
    pub fn be_u32_at(&self, at: usize) -> Option<u32> {
        self.bytes_at(at).map(u32::from_be_bytes)
    }

    /// The big-endian number at `at`.
    pub fn be_i32_at(&self, at: usize) -> Option<i32> {
        self.bytes_at(at).map(i32::from_be_bytes)
    }

    /// The big-endian finite number at `at`.
    pub fn be_f32_at(&self, at: usize) -> Option<f32> {
        self.bytes_at(at).map(f32::from_be_bytes).filter(|v| v.is_finite())
    }
}

/// The identifiers that agree with `first` in the bits of `mask`. With the zero bits of `mask` at its low end,
/// they are one range; a protocol with the node id in the low bits has them elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The lowest identifier: zero in all bits that `mask` does not have.
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

    /// The 29-bit identifiers that agree with `first` in the bits of `mask`.
    pub fn extended(first: u32, mask: u32) -> Self {
        Self { first: first & mask, mask: mask & 0x1FFF_FFFF, extended: true }
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
        let any = all & !self.mask;
        if last == self.first {
            write!(f, "0x{:03X}", self.first)
        } else if any & any.wrapping_add(1) == 0 {
            write!(f, "0x{:03X}..0x{last:03X}", self.first)
        } else {
            write!(f, "0x{:03X} with mask 0x{:03X}", self.first, self.mask)
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

    #[test]
    fn numbers_are_read_in_either_order() {
        let frame = Frame::data(0x123, &[0xFF, 0xFE, 0x3F, 0x80, 0, 0, 0x80, 0x3F]);
        assert_eq!((frame.be_i16_at(0), frame.i16_at(0)), (Some(-2), Some(-257)));
        assert_eq!((frame.be_u16_at(0), frame.u16_at(0)), (Some(0xFFFE), Some(0xFEFF)));
        assert_eq!((frame.be_u32_at(1), frame.u32_at(1)), (Some(0xFE3F_8000), Some(0x0080_3FFE)));
        assert_eq!((frame.be_i32_at(1), frame.i32_at(1)), (Some(-29_392_896), Some(0x0080_3FFE)));
        assert_eq!((frame.be_f32_at(2), frame.f32_at(4)), (Some(1.0), Some(1.0)));
        assert_eq!(Frame::data(0, &[0x7F, 0xC0, 0, 0]).be_f32_at(0), None);
        assert_eq!(frame.be_u32_at(5), None);
    }

    #[test]
    fn an_fd_frame_has_a_length_that_exists() {
        for (given, len) in
            [(0, 0), (7, 7), (8, 8), (9, 12), (21, 24), (25, 32), (33, 48), (64, 64), (65, 64)]
        {
            let frame = Frame::fd(0x123, &vec![0xAA; given]);
            assert!(frame.is_fd() && usize::from(frame.len()) == len, "{given}: {frame:?}");
            assert_eq!(frame.payload().iter().filter(|b| **b == 0xAA).count(), given.min(64));
        }
        let classic = Frame::data(0x123, &[0xAA; 64]);
        assert!(!classic.is_fd() && classic.payload() == [0xAA; 8]);
        assert_ne!(Frame::fd(0x123, &[1]), Frame::data(0x123, &[1]));
    }

    #[test]
    fn a_node_id_in_the_low_bits_is_a_range_too() {
        let of = |node: u32| IdRange::extended(node, 0xFF);
        assert!(!of(3).overlaps(&of(4)) && of(3).overlaps(&IdRange::extended(0x0903, 0x1FFF_FFFF)));
        assert!(!of(3).overlaps(&IdRange::one(3)), "another form");
        assert_eq!(of(3).to_string(), "0x003 with mask 0x0FF");
        assert_eq!(IdRange::extended(0x0900, !0xFF).to_string(), "0x900..0x9FF");
    }
}
