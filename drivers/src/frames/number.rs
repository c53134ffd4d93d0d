//! Numbers in a payload: their width, their order of bytes, and how they become physical values.

use crate::frame::{Format, Frame, MAX_PAYLOAD};
use crate::math::round;

/// The names of all types, as the configuration has them.
pub const NAMES: &[&str] =
    &["i8", "u8", "i16le", "i16be", "u16le", "u16be", "i32le", "i32be", "u32le", "u32be", "f32le", "f32be"];

/// How a number is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Signed,
    Unsigned,
    Float,
}

/// The type of a number in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    coding: Coding,
    bytes: usize,
    big_endian: bool,
}

impl Number {
    /// The type of that name, one of [`NAMES`].
    pub fn named(name: &str) -> Option<Self> {
        let (coding, rest) = match name.as_bytes().first()? {
            b'i' => (Coding::Signed, &name[1..]),
            b'u' => (Coding::Unsigned, &name[1..]),
            b'f' => (Coding::Float, &name[1..]),
            _ => return None,
        };
        let (bytes, big_endian) = match rest {
            "8" => (1, false),
            "16le" => (2, false),
            "16be" => (2, true),
            "32le" => (4, false),
            "32be" => (4, true),
            _ => return None,
        };
        Some(Self { coding, bytes, big_endian })
    }

    /// How many bytes it takes.
    pub const fn bytes(self) -> usize {
        self.bytes
    }

    /// Whether it counts in steps of 1; a float has no coarsest step.
    pub fn has_steps(self) -> bool {
        self.coding != Coding::Float
    }

    /// The smallest and the largest number it can say.
    pub fn range(self) -> (f64, f64) {
        match (self.coding, self.bytes) {
            (Coding::Signed, 1) => (f64::from(i8::MIN), f64::from(i8::MAX)),
            (Coding::Signed, 2) => (f64::from(i16::MIN), f64::from(i16::MAX)),
            (Coding::Signed, _) => (f64::from(i32::MIN), f64::from(i32::MAX)),
            (Coding::Unsigned, 1) => (0.0, f64::from(u8::MAX)),
            (Coding::Unsigned, 2) => (0.0, f64::from(u16::MAX)),
            (Coding::Unsigned, _) => (0.0, f64::from(u32::MAX)),
            (Coding::Float, _) => (f64::from(f32::MIN), f64::from(f32::MAX)),
        }
    }

    /// The number at `at`; `None` when the payload does not reach so far, or it is not finite.
    pub fn read(self, payload: &[u8], at: usize) -> Option<f64> {
        // The most significant byte first, whatever the width, so that one shift brings it down with its
        // sign.
        let mut word = [0; 4];
        for (place, byte) in payload.get(at..at + self.bytes)?.iter().enumerate() {
            word[if self.big_endian { place } else { self.bytes - 1 - place }] = *byte;
        }
        let unused = 32 - 8 * self.bytes;
        let number = match self.coding {
            Coding::Float => f64::from(f32::from_be_bytes(word)),
            Coding::Unsigned => f64::from(u32::from_be_bytes(word) >> unused),
            Coding::Signed => f64::from(i32::from_be_bytes(word) >> unused),
        };
        number.is_finite().then_some(number)
    }

    /// Writes the nearest number it can say at `at`; what is not a number becomes 0.
    pub fn write(self, number: f64, payload: &mut [u8], at: usize) {
        let Some(bytes) = payload.get_mut(at..at + self.bytes) else { return };
        let (least, most) = self.range();
        let number = if number.is_nan() { 0.0 } else { number.clamp(least, most) };
        #[expect(clippy::cast_possible_truncation, reason = "within the bounds of the type")]
        let word: [u8; 8] = match self.coding {
            Coding::Float => i64::from((number as f32).to_bits()).to_be_bytes(),
            Coding::Signed | Coding::Unsigned => (round(number) as i64).to_be_bytes(),
        };
        bytes.copy_from_slice(&word[8 - self.bytes..]);
        if !self.big_endian {
            bytes.reverse();
        }
    }
}

/// A number at a place, with its scale: physical value = (number - zero) * step.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its type.
    pub number: Number,
    /// Its first byte.
    pub at: usize,
    /// The number that means 0.
    pub zero: f64,
    /// The physical value of 1.
    pub step: f64,
}

impl Field {
    /// The physical value in a payload.
    pub fn read(&self, payload: &[u8]) -> Option<f64> {
        Some((self.number.read(payload, self.at)? - self.zero) * self.step)
    }

    /// `frame` with that physical value at its place.
    pub fn written(&self, frame: &Frame, value: f64) -> Frame {
        let mut payload = [0; MAX_PAYLOAD];
        let length = frame.payload().len();
        payload[..length].copy_from_slice(frame.payload());
        self.number.write(self.zero + value / self.step, &mut payload[..length], self.at);
        match frame.format() {
            Format::Classic => Frame::classic(frame.id(), &payload[..length]),
            Format::FdBrs => Frame::fd(frame.id(), &payload[..length]),
            Format::Remote => *frame,
        }
    }
}
