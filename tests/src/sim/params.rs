//! The `key=value,key=value` part of a drive on the command line.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

/// Keys and values that were given and not yet taken, and the keys that were asked for.
#[derive(Debug)]
pub struct Params {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Params {
    /// Splits `key=value,key=value...`; nothing at all is fine too.
    ///
    /// # Errors
    /// A part without `=`, or a key given twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut given: Vec<(String, String)> = Vec::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (key, value) =
                part.split_once('=').with_context(|| format!("expected key=value, found {part:?}"))?;
            if given.iter().any(|(k, _)| k == key) {
                bail!("key {key} is given twice");
            }
            given.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self { given, known: Vec::new() })
    }

    fn take_text(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        let at = self.given.iter().position(|(k, _)| k == key)?;
        Some(self.given.swap_remove(at).1)
    }

    /// The value of `key`, if given.
    ///
    /// # Errors
    /// The value is not of type `T` or outside `range`.
    pub fn optional<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Result<Option<T>>
    where
        T: FromStr<Err: Display> + PartialOrd + std::fmt::Debug,
    {
        let Some(text) = self.take_text(key) else { return Ok(None) };
        let value: T = text.parse().map_err(|e| anyhow!("{key}={text}: {e}"))?;
        if !range.contains(&value) {
            bail!("{key}={text}: must be in {range:?}");
        }
        Ok(Some(value))
    }

    /// The value of `key`, or `default`.
    ///
    /// # Errors
    /// As [`Self::optional`].
    pub fn number<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> Result<T>
    where
        T: FromStr<Err: Display> + PartialOrd + std::fmt::Debug,
    {
        Ok(self.optional(key, range)?.unwrap_or(default))
    }

    /// A time in milliseconds up to a minute; 0 stands for "never".
    ///
    /// # Errors
    /// As [`Self::optional`].
    pub fn millis(&mut self, key: &'static str, default: u64) -> Result<Duration> {
        Ok(Duration::from_millis(self.number(key, default, 0..=60_000)?))
    }

    /// The node id, which has no default.
    ///
    /// # Errors
    /// As [`Self::optional`], and if it is missing.
    pub fn node(&mut self, range: RangeInclusive<u8>) -> Result<u8> {
        self.optional("node", range)?.context("key node is missing")
    }

    /// One of a few words; the first is the default.
    ///
    /// # Errors
    /// The value is not one of them.
    pub fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Result<T> {
        let text = self.take_text(key);
        let found = match &text {
            None => words.first(),
            Some(text) => words.iter().find(|(word, _)| word == text),
        };
        found.map(|(_, value)| *value).with_context(|| {
            let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!("{key}={}: must be one of {}", text.unwrap_or_default(), all.join(", "))
        })
    }

    /// To be called when everything has been asked for.
    ///
    /// # Errors
    /// A key was given that nobody asked for.
    pub fn finish(mut self) -> Result<()> {
        let Some((key, _)) = self.given.first() else { return Ok(()) };
        self.known.sort_unstable();
        bail!("unknown key {key} (known: {})", self.known.join(", "))
    }
}
