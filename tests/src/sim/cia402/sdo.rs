//! Expedited SDO: requests and answers of up to four data bytes.

use crate::sim::frame::Frame;

/// Why an SDO is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort(pub u32);

impl Abort {
    /// A command specifier that is not understood: here also all that is not expedited.
    pub const COMMAND: Self = Self(0x0504_0001);
    /// Writing what can only be read.
    pub const READ_ONLY: Self = Self(0x0601_0002);
    /// The object cannot be mapped to the PDO, or not now.
    pub const NOT_MAPPABLE: Self = Self(0x0604_0041);
    /// No such object.
    pub const NO_OBJECT: Self = Self(0x0602_0000);
    /// The length does not fit the object.
    pub const LENGTH: Self = Self(0x0607_0010);
    /// No such sub-index.
    pub const NO_SUBINDEX: Self = Self(0x0609_0011);
    /// A value out of range.
    pub const VALUE: Self = Self(0x0609_0030);
}

/// A value in the object dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
}

impl Value {
    /// The bytes on the wire: the length, and the bytes padded with zeros.
    fn wire(self) -> (u8, [u8; 4]) {
        let two = |[a, b]: [u8; 2]| (2, [a, b, 0, 0]);
        match self {
            Self::U8(v) => (1, [v, 0, 0, 0]),
            Self::I8(v) => (1, [v.cast_unsigned(), 0, 0, 0]),
            Self::U16(v) => two(v.to_le_bytes()),
            Self::I16(v) => two(v.to_le_bytes()),
            Self::U32(v) => (4, v.to_le_bytes()),
            Self::I32(v) => (4, v.to_le_bytes()),
        }
    }

    /// Another value of the same type, from the bytes of a download.
    ///
    /// # Errors
    /// The client states a length that is not that of the type.
    pub fn same_type(self, data: [u8; 4], stated: Option<u8>) -> Result<Self, Abort> {
        let (length, _) = self.wire();
        if stated.is_some_and(|s| s != length) {
            return Err(Abort::LENGTH);
        }
        let [a, b, ..] = data;
        Ok(match self {
            Self::U8(_) => Self::U8(a),
            Self::I8(_) => Self::I8(a.cast_signed()),
            Self::U16(_) => Self::U16(u16::from_le_bytes([a, b])),
            Self::I16(_) => Self::I16(i16::from_le_bytes([a, b])),
            Self::U32(_) => Self::U32(u32::from_le_bytes(data)),
            Self::I32(_) => Self::I32(i32::from_le_bytes(data)),
        })
    }
}

/// Index and sub-index.
pub type Address = (u16, u8);

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read an object.
    Upload(Address),
    /// Write an object: the bytes, and their number if the client states it.
    Download(Address, [u8; 4], Option<u8>),
    /// Something that only a segmented or block transfer would understand.
    Unsupported(Address),
}

impl Request {
    /// None for frames that are not answered: short ones and the client's own aborts.
    pub fn parse(frame: &Frame) -> Option<Self> {
        let [command, low, high, sub, a, b, c, d] = frame.bytes_at(0)?;
        let address = (u16::from_le_bytes([low, high]), sub);
        let (expedited, sized, unused) = (command & 2 != 0, command & 1 != 0, (command >> 2) & 3);
        Some(match command >> 5 {
            1 if expedited => Self::Download(address, [a, b, c, d], sized.then_some(4 - unused)),
            2 => Self::Upload(address),
            4 => return None,
            _ => Self::Unsupported(address),
        })
    }
}

fn answer(command: u8, (index, sub): Address, [a, b, c, d]: [u8; 4]) -> [u8; 8] {
    let [low, high] = index.to_le_bytes();
    [command, low, high, sub, a, b, c, d]
}

/// The answer to a read.
pub fn uploaded(address: Address, value: Value) -> [u8; 8] {
    let (length, data) = value.wire();
    answer(0x43 | ((4 - length) << 2), address, data)
}

/// The answer to a write.
pub fn downloaded(address: Address) -> [u8; 8] {
    answer(0x60, address, [0; 4])
}

/// The answer to a request that is refused.
pub fn aborted(address: Address, abort: Abort) -> [u8; 8] {
    answer(0x80, address, abort.0.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let parse = |data: [u8; 8]| Request::parse(&Frame::data(0x605, &data));
        assert_eq!(
            parse([0x2B, 0x40, 0x60, 0, 0x0F, 0x01, 0, 0]),
            Some(Request::Download((0x6040, 0), [0x0F, 1, 0, 0], Some(2)))
        );
        assert_eq!(
            parse([0x22, 0xFF, 0x60, 0, 1, 2, 3, 4]),
            Some(Request::Download((0x60FF, 0), [1, 2, 3, 4], None))
        );
        assert_eq!(parse([0x40, 0x41, 0x60, 0, 0, 0, 0, 0]), Some(Request::Upload((0x6041, 0))));
        assert_eq!(parse([0x21, 0x08, 0x10, 0, 9, 0, 0, 0]), Some(Request::Unsupported((0x1008, 0))));
        assert_eq!(parse([0x80, 0x41, 0x60, 0, 0, 0, 4, 5]), None);
        assert_eq!(Request::parse(&Frame::data(0x605, &[0x40, 0x41, 0x60, 0])), None);
    }

    #[test]
    fn answers() {
        assert_eq!(uploaded((0x6041, 0), Value::U16(0x0227)), [0x4B, 0x41, 0x60, 0, 0x27, 0x02, 0, 0]);
        assert_eq!(uploaded((0x6061, 0), Value::I8(-1)), [0x4F, 0x61, 0x60, 0, 0xFF, 0, 0, 0]);
        assert_eq!(uploaded((0x606C, 0), Value::I32(-2)), [0x43, 0x6C, 0x60, 0, 0xFE, 0xFF, 0xFF, 0xFF]);
        assert_eq!(downloaded((0x6040, 0)), [0x60, 0x40, 0x60, 0, 0, 0, 0, 0]);
        assert_eq!(aborted((0x2000, 1), Abort::NO_OBJECT), [0x80, 0x00, 0x20, 1, 0, 0, 2, 6]);
    }
}
