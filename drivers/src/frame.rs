//! A CAN frame as a value: arbitration id, format, payload. No heap, freely copyable.

use core::fmt;

/// The identifier of a frame, 11 or 29 bits, always in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArbitrationId {
    /// 11 bits, `0..=0x7FF`.
    Standard(u16),
    /// 29 bits, `0..=0x1FFF_FFFF`.
    Extended(u32),
}

impl ArbitrationId {
    /// A standard id; bits above the eleventh are cut off, so the value is always in range.
    #[must_use]
    pub const fn standard(id: u16) -> Self {
        Self::Standard(id & 0x7FF)
    }

    /// An extended id; bits above the 29th are cut off, so the value is always in range.
    #[must_use]
    pub const fn extended(id: u32) -> Self {
        Self::Extended(id & 0x1FFF_FFFF)
    }
}

impl fmt::Display for ArbitrationId {
    /// Three hex digits for a standard id, eight for an extended one, as `candump` prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(id) => write!(f, "{id:03X}"),
            Self::Extended(id) => write!(f, "{id:08X}"),
        }
    }
}

/// How a frame travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Classic data frame, 0 to 8 bytes.
    Classic,
    /// Classic remote request; its payload is empty.
    Remote,
    /// CAN FD with bit-rate switch, a legal FD length up to 64 bytes.
    FdBrs,
}

/// The longest payload of any format (CAN FD).
pub const MAX_PAYLOAD: usize = 64;

/// One CAN frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    id: ArbitrationId,
    format: Format,
    len: u8,
    data: [u8; MAX_PAYLOAD],
}

impl Frame {
    /// A classic data frame; of a longer payload only the first eight bytes are kept.
    #[must_use]
    pub const fn classic(id: ArbitrationId, payload: &[u8]) -> Self {
        Self::with(id, Format::Classic, payload, 8)
    }

    /// A classic remote request without payload.
    #[must_use]
    pub const fn remote(id: ArbitrationId) -> Self {
        Self::with(id, Format::Remote, &[], 0)
    }

    /// A CAN FD frame with bit-rate switch. The caller pads to a legal FD length
    /// (0-8, 12, 16, 20, 24, 32, 48, 64): what pads is the family's choice.
    #[must_use]
    pub const fn fd(id: ArbitrationId, payload: &[u8]) -> Self {
        Self::with(id, Format::FdBrs, payload, MAX_PAYLOAD)
    }

    const fn with(id: ArbitrationId, format: Format, payload: &[u8], most: usize) -> Self {
        let kept = if payload.len() < most { payload.len() } else { most };
        let mut data = [0; MAX_PAYLOAD];
        let mut at = 0;
        while at < kept {
            data[at] = payload[at];
            at += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "kept is at most 64")]
        Self { id, format, len: kept as u8, data }
    }

    /// The arbitration id.
    #[must_use]
    pub const fn id(&self) -> ArbitrationId {
        self.id
    }

    /// The format.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The same frame with these bits set in its first eight bytes, as far as it has them.
    #[must_use]
    pub fn marked(mut self, bits: [u8; 8]) -> Self {
        for (byte, bits) in self.data[..usize::from(self.len)].iter_mut().zip(bits) {
            *byte |= bits;
        }
        self
    }

    /// The payload, 0 to 64 bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.data[..usize::from(self.len)]
    }
}

impl fmt::Display for Frame {
    /// `067#0100000000000000`, as `cansend` takes it (`##1` for FD with bit-rate switch).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            Format::Classic => write!(f, "{}#", self.id)?,
            Format::Remote => return write!(f, "{}#R", self.id),
            Format::FdBrs => write!(f, "{}##1", self.id)?,
        }
        self.payload().iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The most frames one step of a programme may hold: what ODrive needs to be enabled. Families whose
/// requests must be answered one by one make a step of each instead.
pub const MAX_FRAMES: usize = 4;

/// Frames in the order in which they are sent; fixed size, no heap.
#[derive(Clone, Copy)]
pub struct FrameList {
    len: u8,
    frames: [Frame; MAX_FRAMES],
}

impl FrameList {
    /// No frames.
    pub const EMPTY: Self = Self { len: 0, frames: [Frame::remote(ArbitrationId::Standard(0)); MAX_FRAMES] };

    /// The given frames in order.
    ///
    /// # Panics
    ///
    /// With more than [`MAX_FRAMES`] frames. Lists are built from a family's fixed tables at start-up
    /// or from one or two frames, so this is a mistake in the family's own code.
    #[must_use]
    pub const fn new(frames: &[Frame]) -> Self {
        assert!(frames.len() <= MAX_FRAMES, "a programme step has more frames than fit");
        let mut list = Self::EMPTY;
        let mut at = 0;
        while at < frames.len() {
            list.frames[at] = frames[at];
            at += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_FRAMES")]
        {
            list.len = frames.len() as u8;
        }
        list
    }

    /// The frames in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Frame] {
        &self.frames[..usize::from(self.len)]
    }
}

impl fmt::Debug for FrameList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}
