//! A memfd mapped into this process: with [`crate::crc`] the only `unsafe` of this crate.
//!
//! What leaves this file are single 64-bit atomics at checked places, never bytes, slices or structs.

use core::marker::PhantomData;
use core::ptr::NonNull;
use std::fs::File;
use std::io;

use memmap2::{MmapOptions, MmapRaw};

use super::Access;
use crate::sync::AtomicU64;

/// A mapping of whole words.
#[derive(Debug)]
pub(super) struct Memory {
    map: MmapRaw,
    words: usize,
}

/// Words that follow one another inside a mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    first: NonNull<u64>,
    count: usize,
    mapping: PhantomData<&'a Memory>,
}

impl Memory {
    /// Maps the first `words` words of a file that has so many.
    pub(super) fn map(file: &File, words: usize, access: Access) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(words * 8).populate();
        let map = match access {
            Access::Read => options.map_raw_read_only(file)?,
            Access::ReadWrite => options.map_raw(file)?,
        };
        Ok(Self { map, words })
    }

    pub(super) fn keep_from_children(&self) -> io::Result<()> {
        self.map.advise(memmap2::Advice::DontFork)
    }

    #[inline]
    pub(super) const fn words(&self) -> usize {
        self.words
    }

    /// All words.
    #[inline]
    pub(super) fn all(&self) -> Run<'_> {
        // A mapping begins at no null pointer; were it so, it would have no words.
        match NonNull::new(self.map.as_mut_ptr().cast()) {
            Some(first) => Run { first, count: self.words, mapping: PhantomData },
            None => Run { first: NonNull::dangling(), count: 0, mapping: PhantomData },
        }
    }
}

impl<'a> Run<'a> {
    /// `count` of these words, from `offset` on; `None` when not all of them are among them.
    #[inline]
    pub(super) fn part(self, offset: usize, count: usize) -> Option<Self> {
        if offset >= self.count || count > self.count - offset {
            return None;
        }
        // SAFETY: the offset lies before the end of this run, which lies inside the mapping.
        let first = unsafe { self.first.add(offset) };
        Some(Self { first, count, mapping: PhantomData })
    }

    /// One of the words; `None` behind the last.
    #[inline]
    pub(super) fn word(self, offset: usize) -> Option<&'a AtomicU64> {
        if offset >= self.count {
            return None;
        }
        // SAFETY: `count` words from `first` on lie inside the mapping, which is page-aligned, so the word is
        // aligned; it lives as long as the `Memory` that is borrowed; every process accesses it only as a
        // 64-bit atomic; on a read-only mapping only `load` is called (`super::Segment::writable`), and size
        // and presence of the pages are sealed.
        Some(unsafe { AtomicU64::from_ptr(self.first.add(offset).as_ptr()) })
    }
}
