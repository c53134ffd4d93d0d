//! Sealed memfds and their mappings.
//!
//! A mapping is never seen as bytes, slices or structs: other processes write it at any time. All that
//! leaves this module are loads and stores of single 64-bit atomics at checked places. The mapping itself
//! is in `mapped`; under loom, words of the model checker (`modelled`) stand for it.

#[cfg(not(loom))]
mod mapped;
#[cfg(loom)]
mod modelled;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[cfg(not(loom))]
use mapped::{Memory, Run};
#[cfg(loom)]
use modelled::{Memory, Run};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sync::Ordering;

/// What a mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// A mapped segment: an array of 64-bit atomics shared with another process.
#[derive(Debug)]
pub struct Segment {
    memory: Memory,
    access: Access,
}

/// Some words of a segment, checked at once to lie inside it. For loads.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a>(Run<'a>);

/// Some words of a segment that is mapped for writing, checked at once to lie inside it.
#[derive(Clone, Copy, Debug)]
pub struct WritableWords<'a>(Run<'a>);

impl Words<'_> {
    /// `count` of these words, from `offset` on; `None` when not all of them are among them.
    #[inline]
    #[must_use]
    pub fn part(self, offset: usize, count: usize) -> Option<Self> {
        self.0.part(offset, count).map(Self)
    }

    /// Loads a word; behind the last one reads as 0.
    #[inline]
    #[must_use]
    pub fn load(self, offset: usize, order: Ordering) -> u64 {
        self.0.word(offset).map_or(0, |word| word.load(order))
    }
}

impl WritableWords<'_> {
    /// `count` of these words, from `offset` on; `None` when not all of them are among them.
    #[inline]
    #[must_use]
    pub fn part(self, offset: usize, count: usize) -> Option<Self> {
        self.0.part(offset, count).map(Self)
    }

    /// Stores a word; behind the last one nothing happens.
    #[inline]
    pub fn store(self, offset: usize, value: u64, order: Ordering) {
        if let Some(word) = self.0.word(offset) {
            word.store(value, order);
        }
    }
}

/// Seals that every segment ends up with. FUTURE_WRITE is the one that matters most: without it a
/// writer can punch a hole, and the reader takes a page fault or reads zeros (measured).
fn final_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL
}

/// Creates a memfd of `words` zeroed words that can still be mapped for writing.
///
/// # Errors
///
/// When the kernel refuses the memfd or its size.
pub fn create(name: &str, words: usize) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Never to be executed; kernels before 6.3 do not know the flag.
    let no_exec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let fd = match memfd_create(name, flags | no_exec) {
        Err(nix::Error::EINVAL) => memfd_create(name, flags),
        made => made,
    }?;
    let bytes = libc::off_t::try_from(words * 8).map_err(io::Error::other)?;
    nix::unistd::ftruncate(&fd, bytes)?;
    Ok(fd)
}

/// Adds the final seals: from here on nobody can resize the memfd or map it writable anew; mappings
/// that exist keep working.
///
/// # Errors
///
/// When the kernel refuses, or when the seals are not all in place afterwards.
pub fn seal(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(final_seals()))?;
    check_sealed(fd)
}

/// Whether a memfd carries all final seals.
///
/// # Errors
///
/// When it does not, or is no memfd.
pub fn check_sealed(fd: BorrowedFd<'_>) -> io::Result<()> {
    let seals = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    if seals.contains(final_seals()) {
        Ok(())
    } else {
        Err(io::Error::other(format!("the shared memory lacks seals: has {seals:?}")))
    }
}

impl Segment {
    /// Maps `words` words of a memfd, after checking that it has exactly that size.
    ///
    /// # Errors
    ///
    /// When the size differs or the kernel refuses the mapping.
    pub fn map(fd: BorrowedFd<'_>, words: usize, access: Access) -> io::Result<Self> {
        let file = File::from(fd.try_clone_to_owned()?);
        let bytes = file.metadata()?.len();
        if bytes != words as u64 * 8 {
            return Err(io::Error::other(format!(
                "the shared memory has {bytes} bytes where {} are expected",
                words * 8
            )));
        }
        Ok(Self { memory: Memory::map(&file, words, access)?, access })
    }

    /// A segment of this process alone, for tests and benchmarks.
    ///
    /// # Errors
    ///
    /// When the kernel refuses memory.
    pub fn private(words: usize) -> io::Result<Self> {
        Self::map(create("lanyard-private", words)?.as_fd(), words, Access::ReadWrite)
    }

    /// Keeps the mapping out of children: a forked child of the front must not be able to beat.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn keep_from_children(&self) -> io::Result<()> {
        self.memory.keep_from_children()
    }

    /// Number of words.
    #[must_use]
    pub fn words(&self) -> usize {
        self.memory.words()
    }

    /// `count` words from `place` on, for loads; `None` when not all of them lie in the segment.
    #[inline]
    #[must_use]
    pub fn readable(&self, place: usize, count: usize) -> Option<Words<'_>> {
        self.run(place, count).map(Words)
    }

    /// `count` words from `place` on; `None` when not all of them lie in the segment, or when it is mapped
    /// for reading only.
    #[inline]
    #[must_use]
    pub fn writable(&self, place: usize, count: usize) -> Option<WritableWords<'_>> {
        match self.access {
            Access::ReadWrite => self.run(place, count).map(WritableWords),
            Access::Read => None,
        }
    }

    /// Loads a word; a place outside the segment reads as 0.
    #[inline]
    #[must_use]
    pub fn load(&self, place: usize, order: Ordering) -> u64 {
        self.readable(place, 1).map_or(0, |words| words.load(0, order))
    }

    /// Stores a word; outside the segment, or on a read-only mapping, nothing happens.
    #[inline]
    pub fn store(&self, place: usize, value: u64, order: Ordering) {
        if let Some(words) = self.writable(place, 1) {
            words.store(0, value, order);
        }
    }

    #[inline]
    fn run(&self, place: usize, count: usize) -> Option<Run<'_>> {
        let run = self.memory.all().part(place, count);
        debug_assert!(
            run.is_some(),
            "word {place} (and {count} in all) lies outside a segment of {} words",
            self.words()
        );
        run
    }
}
