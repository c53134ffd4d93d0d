//! What is wrong with a file of keys.

use core::fmt;
use core::ops::Range;
use std::path::{Path, PathBuf};

/// What is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysError {
    path: PathBuf,
    line: Option<usize>,
    text: String,
}

impl KeysError {
    /// Wrong with the file as a whole.
    pub(crate) fn of_file(path: &Path, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, text: text.into() }
    }

    /// Wrong at a place in its text.
    pub(crate) fn at(path: &Path, source: &str, span: &Range<usize>, text: impl Into<String>) -> Self {
        let before = source.get(..span.start).unwrap_or(source);
        Self { path: path.to_owned(), line: Some(before.matches('\n').count() + 1), text: text.into() }
    }
}

impl fmt::Display for KeysError {
    /// `keys.toml:14: key "panel": ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.text),
            None => write!(f, "{}: {}", self.path.display(), self.text),
        }
    }
}

impl std::error::Error for KeysError {}
