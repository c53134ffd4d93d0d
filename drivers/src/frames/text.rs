//! Frames as people write them: the notation of `cansend`, with a dot for a digit that may be anything.
//!
//! `141#8100000000000000` is a classic frame, `00000141#81` one with an extended identifier, `141##1`
//! followed by bytes a CAN FD frame with bit-rate switch, `141#R` a remote request. `241#9C..............`
//! stands for every frame with this identifier, this length and this first byte.

use crate::frame::{ArbitrationId, Format, Frame, MAX_PAYLOAD};
use alloc::format;
use alloc::string::String;

/// Frames that are alike: one identifier, one format, one length, and the digits that are given.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// Free digits are 0.
    frame: Frame,
    /// Which bits of the payload are given.
    given: [u8; MAX_PAYLOAD],
}

impl Pattern {
    /// Reads the text of a frame, or of frames that are alike.
    ///
    /// # Errors
    ///
    /// With what is wrong with the text and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (id, rest) = text.split_once('#').ok_or_else(|| {
            format!(
                "cannot be \"{text}\": a frame is written like 141#8100000000000000, identifier, #, bytes"
            )
        })?;
        let id = parse_id(id)?;
        let none = [0; MAX_PAYLOAD];
        if rest == "R" {
            return Ok(Self { frame: Frame::remote(id), given: none });
        }
        let (is_fd, digits) = match rest.strip_prefix('#') {
            None => (false, rest),
            Some(fd) => match fd.strip_prefix('1') {
                Some(digits) => (true, digits),
                None => {
                    return Err(format!(
                        "cannot be \"{text}\": CAN FD frames are sent with bit-rate switch, written ##1"
                    ));
                }
            },
        };
        if digits.len() % 2 != 0 {
            return Err(format!("cannot be \"{text}\": a byte has two digits, and one digit is over"));
        }
        let length = digits.len() / 2;
        let fits =
            if is_fd { matches!(length, 0..=8 | 12 | 16 | 20 | 24 | 32 | 48 | 64) } else { length <= 8 };
        if !fits {
            let lengths = if is_fd { "0 to 8, 12, 16, 20, 24, 32, 48 or 64" } else { "0 to 8" };
            return Err(format!(
                "cannot be \"{text}\": it has {length} bytes, and such a frame has {lengths}"
            ));
        }
        let (mut payload, mut given) = (none, none);
        for (place, digit) in digits.bytes().enumerate() {
            let shift = if place % 2 == 0 { 4 } else { 0 };
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'A'..=b'F' => digit - b'A' + 10,
                b'a'..=b'f' => digit - b'a' + 10,
                b'.' => continue,
                _ => {
                    return Err(format!(
                        "cannot be \"{text}\": bytes are written in hexadecimal digits, or dots where any \
                         may be"
                    ));
                }
            };
            payload[place / 2] |= value << shift;
            given[place / 2] |= 0xF << shift;
        }
        let frame =
            if is_fd { Frame::fd(id, &payload[..length]) } else { Frame::classic(id, &payload[..length]) };
        Ok(Self { frame, given })
    }

    /// The frame, if every digit of it is given.
    pub fn exact(&self) -> Option<Frame> {
        let given = self.given.get(..self.frame.payload().len())?;
        given.iter().all(|byte| *byte == 0xFF).then_some(self.frame)
    }

    /// Whether `frame` is one of these.
    pub fn matches(&self, frame: &Frame) -> bool {
        let alike = |((got, wanted), given): ((&u8, &u8), &u8)| (got ^ wanted) & given == 0;
        frame.id() == self.frame.id()
            && frame.format() == self.frame.format()
            && frame.payload().len() == self.frame.payload().len()
            && frame.payload().iter().zip(self.frame.payload()).zip(&self.given).all(alike)
    }

    /// Their identifier.
    pub const fn id(&self) -> ArbitrationId {
        self.frame.id()
    }

    /// Their format.
    pub const fn format(&self) -> Format {
        self.frame.format()
    }

    /// Their length in bytes.
    pub fn length(&self) -> usize {
        self.frame.payload().len()
    }

    /// Whether none of the digits of these bytes is given.
    pub fn leaves_free(&self, bytes: core::ops::Range<usize>) -> bool {
        self.given.get(bytes).is_some_and(|given| given.iter().all(|byte| *byte == 0))
    }
}

/// Reads an identifier: three hexadecimal digits for a standard one, eight for an extended one.
///
/// # Errors
///
/// With what is wrong with the text and what would be right.
pub fn parse_id(text: &str) -> Result<ArbitrationId, String> {
    let wrong = || {
        format!(
            "has the identifier \"{text}\", which must have three hexadecimal digits up to 7FF, or eight up \
             to \
             1FFFFFFF"
        )
    };
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    match (text.len(), u16::from_str_radix(text, 16), u32::from_str_radix(text, 16)) {
        (3, Ok(id @ 0..=0x7FF), _) => Ok(ArbitrationId::standard(id)),
        (8, _, Ok(id @ 0..=0x1FFF_FFFF)) => Ok(ArbitrationId::extended(id)),
        _ => Err(wrong()),
    }
}
