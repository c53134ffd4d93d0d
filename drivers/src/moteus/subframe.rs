//! The pieces of a moteus payload (mjbots/mjlib, `multiplex/format.h`): nothing here knows what a register
//! means.

/// How wide the values of a subframe are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Int8,
    Int16,
    Int32,
    Float,
}

impl Width {
    /// Bits 2 and 3 of a subframe's kind.
    fn of(kind: u8) -> Self {
        match kind >> 2 & 3 {
            0 => Self::Int8,
            1 => Self::Int16,
            2 => Self::Int32,
            _ => Self::Float,
        }
    }

    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Int8 => 1,
            Self::Int16 => 2,
            Self::Int32 | Self::Float => 4,
        }
    }

    /// A whole number. The most negative one of each width stands for "none".
    pub(super) fn integer(self, value: &[u8]) -> Option<i32> {
        match (self, value) {
            (Self::Int8, &[a]) => Some(a.cast_signed()).filter(|n| *n != i8::MIN).map(i32::from),
            (Self::Int16, &[a, b]) => {
                Some(i16::from_le_bytes([a, b])).filter(|n| *n != i16::MIN).map(i32::from)
            }
            (Self::Int32, &[a, b, c, d]) => Some(i32::from_le_bytes([a, b, c, d])).filter(|n| *n != i32::MIN),
            _ => None,
        }
    }

    /// A finite float.
    pub(super) fn float(self, value: &[u8]) -> Option<f32> {
        match (self, value) {
            (Self::Float, &[a, b, c, d]) => Some(f32::from_le_bytes([a, b, c, d])).filter(|n| n.is_finite()),
            _ => None,
        }
    }
}

/// One piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subframe<'a> {
    /// Writes registers from `first` on.
    Write { first: u32, width: Width, values: &'a [u8] },
    /// Asks for registers.
    Read,
    /// Tells registers from `first` on.
    Reply { first: u32, width: Width, values: &'a [u8] },
    /// Text for the drive's console.
    ToServer(&'a [u8]),
    /// Refused registers, text from the console or the question for it, filling.
    Other,
}

/// A payload that ends in the middle of a piece, or has one of an unknown kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The pieces of a payload, up to the first that is malformed.
pub(super) struct Subframes<'a> {
    rest: &'a [u8],
}

impl<'a> Subframes<'a> {
    pub(super) const fn of(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Seven bits a byte, least significant first, at most 32 of them.
    fn number(&mut self) -> Option<u32> {
        let mut number = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).ok();
            }
        }
        None
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// How many registers: in the two lowest bits of the kind, or after it if these are 0.
    fn registers(&mut self, kind: u8) -> Option<(u32, usize)> {
        let count = match kind & 3 {
            0 => usize::try_from(self.number()?).ok()?,
            count => usize::from(count),
        };
        Some((self.number()?, count))
    }

    fn values(&mut self, kind: u8) -> Option<(u32, Width, &'a [u8])> {
        let (first, count) = self.registers(kind)?;
        let width = Width::of(kind);
        Some((first, width, self.bytes(count.checked_mul(width.bytes())?)?))
    }

    fn piece(&mut self) -> Option<Subframe<'a>> {
        let kind = self.byte()?;
        Some(match kind {
            0x00..=0x0F => {
                let (first, width, values) = self.values(kind)?;
                Subframe::Write { first, width, values }
            }
            0x10..=0x1F => {
                self.registers(kind)?;
                Subframe::Read
            }
            0x20..=0x2F => {
                let (first, width, values) = self.values(kind)?;
                Subframe::Reply { first, width, values }
            }
            // Register and error; channel and length.
            0x30 | 0x31 | 0x42 => {
                self.number()?;
                self.number()?;
                Subframe::Other
            }
            0x40 | 0x41 => {
                let _channel = self.number()?;
                let length = usize::try_from(self.number()?).ok()?;
                let text = self.bytes(length)?;
                if kind == 0x40 { Subframe::ToServer(text) } else { Subframe::Other }
            }
            0x50 => Subframe::Other,
            _ => return None,
        })
    }
}

impl<'a> Iterator for Subframes<'a> {
    type Item = Result<Subframe<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let piece = self.piece();
        if piece.is_none() {
            self.rest = &[];
        }
        Some(piece.ok_or(Malformed))
    }
}
