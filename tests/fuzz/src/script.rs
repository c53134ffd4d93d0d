//! What the bytes mean: some deeds of fixed size, and the content of the segment.

/// Bytes of one deed.
const DEED: usize = 24;

/// The bytes, divided.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    deeds: &'a [u8],
    content: &'a [u8],
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// Any word anywhere.
    Poke {
        /// The word's place, taken modulo the segment's size.
        place: u64,
        /// Its new value.
        word: u64,
    },
    /// A record whose checksum fits.
    Record(Record),
    /// An owner word.
    Owner {
        /// The motor, modulo their number.
        motor: u8,
        /// The alleged slot.
        slot: u16,
        /// The alleged incarnation.
        incarnation: u64,
    },
    /// A drive says something.
    Frame {
        /// The bus, modulo their number; the next bit: a program of this computer says it in the drive's name.
        bus: u8,
        /// The standard identifier.
        id: u16,
        /// The payload.
        payload: [u8; 8],
    },
    /// Time passes, and the core steps once.
    Step {
        /// Nanoseconds.
        later: u32,
    },
    /// The core is woken when it wants to be.
    Wake {
        /// How often.
        times: u8,
    },
}

/// A record that a front signs properly; all in it may be a lie.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The slot whose ring it is written to, modulo their number.
    pub slot: u8,
    /// Its counter.
    pub counter: u64,
    /// Its time, nanoseconds from now.
    pub from_now: i64,
    /// Which window: some valid ones, or this number of nanoseconds.
    pub window: u32,
    /// Which incarnation.
    pub incarnation: u8,
    /// Its flags: two that may be known, and why it is a goodbye.
    pub flags: u8,
}

impl<'a> Script<'a> {
    /// The first byte says how many deeds follow; the rest is the segment.
    pub fn new(bytes: &'a [u8]) -> Self {
        let (count, rest) =
            bytes.split_first().map_or((0, bytes), |(count, rest)| (usize::from(*count), rest));
        let (deeds, content) = rest.split_at(rest.len().min(count * DEED));
        Self { deeds, content }
    }

    /// What the segment holds at first; shorter content is repeated, none is zeros.
    pub fn content(&self) -> &'a [u8] {
        self.content
    }

    /// What happens then.
    pub fn deeds(&self) -> impl Iterator<Item = Deed> {
        self.deeds.as_chunks::<DEED>().0.iter().map(Deed::new)
    }
}

impl Deed {
    fn new(bytes: &[u8; DEED]) -> Self {
        let [kind, a, b, c, rest @ ..] = bytes;
        let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| rest[at * 8 + byte]));
        let tail = u32::from_le_bytes(core::array::from_fn(|byte| rest[16 + byte]));
        match kind % 6 {
            0 => Self::Poke { place: word(0), word: word(1) },
            1 => Self::Record(Record {
                slot: *a,
                // Half of all counters within reach of one another, the others anywhere.
                counter: if b % 2 == 0 { word(0) % 256 } else { word(0) },
                from_now: i64::from_le_bytes(word(1).to_le_bytes()),
                window: tail,
                incarnation: *c,
                flags: b / 2,
            }),
            2 => Self::Owner { motor: *a, slot: u16::from(*b % 4), incarnation: u64::from(*c) },
            3 => Self::Frame {
                bus: *a,
                id: u16::from_le_bytes([*b, *c]) & 0x7ff,
                payload: word(0).to_le_bytes(),
            },
            4 => Self::Step { later: tail },
            _ => Self::Wake { times: a % 16 },
        }
    }
}
