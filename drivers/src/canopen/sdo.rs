//! Expedited SDO transfers: one frame out, one frame back (CiA 301; bytes as python-canopen 2.4.1).
//!
//! A node's SDO server takes **one request at a time**. A second one sent before the first is answered
//! may be dropped without a word, so a programme never sends two in one step.

use super::Object;
use crate::frame::{ArbitrationId, Format, Frame};

/// Master to drive: 0x600 + node.
pub(crate) const fn request_id(node: u8) -> ArbitrationId {
    ArbitrationId::standard(0x600 + node as u16)
}

/// Drive to master: 0x580 + node.
pub(crate) const fn answer_id(node: u8) -> ArbitrationId {
    ArbitrationId::standard(0x580 + node as u16)
}

/// Command bytes of an expedited download whose size is given: 0x23 four bytes, 0x2B two, 0x2F one.
const DOWNLOAD_4: u8 = 0x23;
const DOWNLOAD_2: u8 = 0x2B;
const DOWNLOAD_1: u8 = 0x2F;
const UPLOAD: u8 = 0x40;
/// Answers: written; value of four or two bytes or of a size not given; refused.
const WRITTEN: u8 = 0x60;
const VALUE_4: u8 = 0x43;
const VALUE_2: u8 = 0x4B;
const VALUE_UNSIZED: u8 = 0x42;
const ABORT: u8 = 0x80;

fn request(node: u8, command: u8, object: Object, data: [u8; 4]) -> Frame {
    let [low, high] = object.index.to_le_bytes();
    let [a, b, c, d] = data;
    Frame::classic(request_id(node), &[command, low, high, object.sub, a, b, c, d])
}

/// Asks for an object.
pub(crate) fn upload(node: u8, object: Object) -> Frame {
    request(node, UPLOAD, object, [0; 4])
}

/// Writes one byte.
pub(crate) fn write_u8(node: u8, object: Object, value: u8) -> Frame {
    request(node, DOWNLOAD_1, object, [value, 0, 0, 0])
}

/// Writes two bytes.
pub(crate) fn write_u16(node: u8, object: Object, value: u16) -> Frame {
    let [low, high] = value.to_le_bytes();
    request(node, DOWNLOAD_2, object, [low, high, 0, 0])
}

/// Writes four bytes.
pub(crate) fn write_u32(node: u8, object: Object, value: u32) -> Frame {
    request(node, DOWNLOAD_4, object, value.to_le_bytes())
}

/// Writes two bytes, signed.
pub(crate) fn write_i16(node: u8, object: Object, value: i16) -> Frame {
    write_u16(node, object, value.cast_unsigned())
}

/// Writes four bytes, signed.
pub(crate) fn write_i32(node: u8, object: Object, value: i32) -> Frame {
    request(node, DOWNLOAD_4, object, value.to_le_bytes())
}

/// What an SDO server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The write was done.
    Written(Object),
    /// The value asked for.
    Value(Object, Content),
    /// The request was refused, with the abort code.
    Refused(Object, u32),
}

/// The value of an answer, as wide as the drive says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Two(u16),
    Four(u32),
    /// The drive did not say how many of the four bytes count.
    Unsized(u32),
}

impl Content {
    /// As a u16, unless the drive says that it has another width.
    pub(crate) fn u16(self) -> Option<u16> {
        match self {
            Self::Two(value) => Some(value),
            #[expect(clippy::cast_possible_truncation, reason = "the lower two bytes are meant")]
            Self::Unsized(value) => Some(value as u16),
            Self::Four(_) => None,
        }
    }

    /// As a signed number of two bytes or four, whichever the drive says; four when it does not.
    pub(crate) fn signed(self) -> i32 {
        match self {
            Self::Two(value) => i32::from(value.cast_signed()),
            Self::Four(value) | Self::Unsized(value) => value.cast_signed(),
        }
    }

    /// As an i32, unless the drive says that it has another width.
    pub(crate) fn i32(self) -> Option<i32> {
        match self {
            Self::Four(value) | Self::Unsized(value) => Some(value.cast_signed()),
            Self::Two(_) => None,
        }
    }
}

/// Reads an answer; anything but eight bytes is none (CiA 301: always eight).
pub(crate) fn answer(payload: &[u8]) -> Option<Answer> {
    let [command, low, high, sub, a, b, c, d] = <[u8; 8]>::try_from(payload).ok()?;
    let object = Object { index: u16::from_le_bytes([low, high]), sub };
    let four = u32::from_le_bytes([a, b, c, d]);
    match command {
        WRITTEN => Some(Answer::Written(object)),
        VALUE_2 => Some(Answer::Value(object, Content::Two(u16::from_le_bytes([a, b])))),
        VALUE_4 => Some(Answer::Value(object, Content::Four(four))),
        VALUE_UNSIZED => Some(Answer::Value(object, Content::Unsized(four))),
        ABORT => Some(Answer::Refused(object, four)),
        _ => None,
    }
}

/// What a frame on the request id asks of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Nothing that changes an object: reads, aborts, remote frames (the request channel does not answer those).
    Harmless,
    /// Writes these bytes; those behind the written ones are 0 or not looked at.
    Write(Object, [u8; 4]),
    /// Begins to write more than four bytes.
    LongWrite(Object),
    /// Cannot be understood, or writes an object that it does not name.
    Unknown,
}

/// Reads a frame on the request id.
pub(crate) fn request_of(frame: &Frame) -> Request {
    match frame.format() {
        Format::Remote => return Request::Harmless,
        Format::FdBrs => return Request::Unknown,
        Format::Classic => {}
    }
    let Ok([command, low, high, sub, data @ ..]) = <[u8; 8]>::try_from(frame.payload()) else {
        return Request::Unknown;
    };
    let object = Object { index: u16::from_le_bytes([low, high]), sub };
    // The upper three bits say what is asked: 1 write, 2 and 3 read, 4 abort, 5 block read. The others
    // (segments of a long write, block writes) do not name their object.
    match command >> 5 {
        1 if command & 0b10 != 0 => Request::Write(object, data),
        1 => Request::LongWrite(object),
        2..=5 => Request::Harmless,
        _ => Request::Unknown,
    }
}
