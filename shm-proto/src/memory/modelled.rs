//! What stands for a mapped memfd under loom: words of the model checker.
//!
//! Every mapping of the same memfd is the same words, as in a kernel. What no model has (pages, seals,
//! children) stays the memfd's own business.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Weak};

use super::Access;
use crate::sync::AtomicU64;

thread_local! {
    /// The words of each memfd, by inode, while somebody maps it. Loom runs all threads of a model on one.
    static MAPPED: RefCell<HashMap<u64, Weak<[AtomicU64]>>> = RefCell::default();
}

/// A mapping of whole words.
#[derive(Debug)]
pub(super) struct Memory {
    words: Arc<[AtomicU64]>,
}

/// Words that follow one another inside a mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a>(&'a [AtomicU64]);

impl Memory {
    /// The words of the file, zero when nobody maps it yet.
    pub(super) fn map(file: &File, words: usize, _access: Access) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        let words = MAPPED.with_borrow_mut(|mapped| {
            let known = mapped.get(&inode).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let words: Arc<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
                mapped.insert(inode, Arc::downgrade(&words));
                words
            })
        });
        Ok(Self { words })
    }

    pub(super) fn keep_from_children(&self) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn words(&self) -> usize {
        self.words.len()
    }

    /// All words.
    pub(super) fn all(&self) -> Run<'_> {
        Run(&self.words)
    }
}

impl<'a> Run<'a> {
    /// `count` of these words, from `offset` on; `None` when not all of them are among them.
    pub(super) fn part(self, offset: usize, count: usize) -> Option<Self> {
        self.0.get(offset..offset.checked_add(count)?).filter(|run| !run.is_empty()).map(Self)
    }

    /// One of the words; `None` behind the last.
    pub(super) fn word(self, offset: usize) -> Option<&'a AtomicU64> {
        self.0.get(offset)
    }
}
