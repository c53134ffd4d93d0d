//! Sealed memfds and their mappings: the only `unsafe` of this crate.
//!
//! A mapping is never seen as bytes, slices or structs: other processes write it at any time. All that
//! leaves this file are loads and stores of single 64-bit atomics at checked places.

use core::sync::atomic::{AtomicU64, Ordering};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

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
    map: MmapRaw,
    words: usize,
    access: Access,
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
        let options = {
            let mut options = MmapOptions::new();
            options.len(words * 8).populate();
            options
        };
        let map = match access {
            Access::Read => options.map_raw_read_only(&file)?,
            Access::ReadWrite => options.map_raw(&file)?,
        };
        Ok(Self { map, words, access })
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
        self.map.advise(memmap2::Advice::DontFork)
    }

    /// Number of words.
    #[must_use]
    pub const fn words(&self) -> usize {
        self.words
    }

    /// Loads a word; a place outside the segment reads as 0.
    #[inline]
    #[must_use]
    pub fn load(&self, place: usize, order: Ordering) -> u64 {
        self.word(place).map_or(0, |word| word.load(order))
    }

    /// Stores a word; outside the segment, or on a read-only mapping, nothing happens.
    #[inline]
    pub fn store(&self, place: usize, value: u64, order: Ordering) {
        if self.access == Access::ReadWrite
            && let Some(word) = self.word(place)
        {
            word.store(value, order);
        }
    }

    #[inline]
    fn word(&self, place: usize) -> Option<&AtomicU64> {
        if place >= self.words {
            debug_assert!(false, "word {place} lies outside a segment of {} words", self.words);
            return None;
        }
        // SAFETY: the mapping is page-aligned and `words * 8` bytes long, so the word is inside it and
        // aligned; it lives as long as `self`; every process accesses it only as a 64-bit atomic; on a
        // read-only mapping only `load` is called, and size and presence of the pages are sealed.
        Some(unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(place)) })
    }
}
