//! A few words that pass from the real-time thread to the file, of one size, so that a queue of them needs no heap.

use core::fmt;

/// Words of an entry behind its first: what the longest CAN FD frame needs with its moment and its name.
const MOST_WORDS: usize = 12;

/// What an entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A word of the front's memory has changed.
    Word = 1,
    /// The core asked for the moment, and was answered.
    Now,
    /// The core has sent a frame, and was answered.
    Sent,
    /// What the core has published by the end of a pass.
    Verdicts,
    /// The recording is whole up to here and ends here.
    Complete,
    /// Entries are missing from here on.
    Lost,
    /// An input: whether an interface tells what was acknowledged.
    Confirms,
    /// An input: the hardware watchdog has reset the machine.
    WatchdogReset,
    /// An input: what the system refused.
    Degraded,
    /// An input: what the disk has of the latches.
    Kept,
    /// An input: the first.
    Start,
    /// An input: a pass.
    Step,
    /// An input: what the loop has cost.
    Costs,
    /// An input: what became of the kernel-armed stop.
    KernelStop,
    /// An input: a front has come.
    Attach,
    /// An input: the front is gone.
    Detach,
    /// An input: a frame.
    Received,
    /// An input: a frame of ours was acknowledged.
    Confirmed,
    /// An input: an interface reports something.
    Reported,
    /// An input: an interface does not work.
    BusDown,
    /// An input: how well a bus is.
    Health,
    /// An input: a controller's error counters.
    Counters,
    /// An input: somebody presses stop.
    Press,
    /// An input: an operator resets a trip.
    Reset,
    /// An input: told to exit.
    ShutDown,
    /// An input: the last.
    End,
}

impl Kind {
    /// Every one there is.
    const ALL: [Self; 26] = [
        Self::Word,
        Self::Now,
        Self::Sent,
        Self::Verdicts,
        Self::Complete,
        Self::Lost,
        Self::Confirms,
        Self::WatchdogReset,
        Self::Degraded,
        Self::Kept,
        Self::Start,
        Self::Step,
        Self::Costs,
        Self::KernelStop,
        Self::Attach,
        Self::Detach,
        Self::Received,
        Self::Confirmed,
        Self::Reported,
        Self::BusDown,
        Self::Health,
        Self::Counters,
        Self::Press,
        Self::Reset,
        Self::ShutDown,
        Self::End,
    ];
}

/// Why an entry cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an entry that is none: damaged, or recorded by another version of this program")
    }
}

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    kind: Kind,
    used: u8,
    words: [u64; MOST_WORDS],
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:x?}", self.kind, self.words())
    }
}

impl Entry {
    /// One without words.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self { kind, used: 0, words: [0; MOST_WORDS] }
    }

    /// The same with one word more. Of more than fit the last is lost, which is a mistake in this program.
    #[must_use]
    pub fn with(mut self, word: u64) -> Self {
        let place = self.words.get_mut(usize::from(self.used));
        debug_assert!(place.is_some(), "an entry has at most {MOST_WORDS} words");
        if let Some(place) = place {
            *place = word;
            self.used += 1;
        }
        self
    }

    /// What it tells.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its words.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        self.words.get(..usize::from(self.used)).unwrap_or_default()
    }

    /// The first word in the file: kind and number of words, with 32 bits left for a checksum.
    pub(super) fn head(&self) -> u64 {
        u64::from(self.kind as u8) | u64::from(self.used) << 8
    }

    /// How many words follow that first word.
    pub(super) fn length(head: u64) -> Result<usize, Damaged> {
        let length = usize::try_from(head >> 8 & 0xff).map_err(|_| Damaged)?;
        if length <= MOST_WORDS && head & 0xffff_0000 == 0 { Ok(length) } else { Err(Damaged) }
    }

    /// The entry of that first word and these others.
    pub(super) fn read(head: u64, words: &[u64]) -> Result<Self, Damaged> {
        let kind = Kind::ALL.into_iter().find(|kind| u64::from(*kind as u8) == head & 0xff);
        Ok(words.iter().fold(Self::new(kind.ok_or(Damaged)?), |entry, word| entry.with(*word)))
    }

    /// Its words, one after the other.
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields(self.words())
    }
}

/// Words that are taken one after the other.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub &'a [u64]);

impl<'a> Fields<'a> {
    /// The next word.
    pub(super) fn take(&mut self) -> Result<u64, Damaged> {
        let (first, rest) = self.0.split_first().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    /// The next words, so many of them.
    pub(super) fn take_some(&mut self, count: u64) -> Result<&'a [u64], Damaged> {
        let count = usize::try_from(count).map_err(|_| Damaged)?;
        let (some, rest) = self.0.split_at_checked(count).ok_or(Damaged)?;
        self.0 = rest;
        Ok(some)
    }

    /// The next word as a smaller number.
    pub(super) fn number<T: TryFrom<u64>>(&mut self) -> Result<T, Damaged> {
        T::try_from(self.take()?).map_err(|_| Damaged)
    }

    /// The next word, looked up.
    pub(super) fn known<T>(&mut self, known: impl FnOnce(u64) -> Option<T>) -> Result<T, Damaged> {
        known(self.take()?).ok_or(Damaged)
    }

    /// Says that there must be no more.
    pub(super) fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}
