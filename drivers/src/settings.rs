//! The family's own keys of a `[[motor]]` table, as plain values without any file format.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A value as it stands in the configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Text(String),
    /// `true` or `false`.
    Flag(bool),
    /// A list of whole numbers.
    Integers(Vec<i64>),
    /// A list of texts; an empty list is one of these.
    Texts(Vec<String>),
}

/// The family's own keys with their values, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    entries: Vec<(String, Value)>,
}

/// A key that is missing, unknown, or has a value the family cannot take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The key the error is about; a missing key is named too.
    pub key: String,
    /// What is wrong and what would be right, e.g. `must be 0 to 63, not 64`.
    pub problem: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" {}", self.key, self.problem)
    }
}

impl core::error::Error for SettingsError {}

impl SettingsError {
    /// An error about `key`.
    pub fn new(key: &str, problem: impl Into<String>) -> Self {
        Self { key: key.to_owned(), problem: problem.into() }
    }
}

impl Settings {
    /// Adds a key.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) {
        self.entries.push((key.into(), value));
    }

    /// All keys with their values, in order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`, if it is there.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Refuses every key that is not in `known`.
    ///
    /// # Errors
    ///
    /// For the first unknown key, naming the known ones.
    pub fn only(&self, known: &[&str]) -> Result<(), SettingsError> {
        match self.entries.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(SettingsError::new(
                name,
                format!("is not a key of this driver; its keys are {}", known.join(", ")),
            )),
        }
    }

    /// A whole number within `range`, or `default` when absent; without a default the key is required.
    ///
    /// # Errors
    ///
    /// When the key is missing without default, not a whole number, or out of range.
    pub fn integer(
        &self,
        key: &str,
        range: core::ops::RangeInclusive<i64>,
        default: Option<i64>,
    ) -> Result<i64, SettingsError> {
        match (self.get(key), default) {
            (Some(Value::Integer(number)), _) if range.contains(number) => Ok(*number),
            (Some(Value::Integer(number)), _) => Err(SettingsError::new(
                key,
                format!("must be {} to {}, not {number}", range.start(), range.end()),
            )),
            (Some(_), _) => Err(SettingsError::new(key, "must be a whole number")),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(SettingsError::new(
                key,
                format!("is missing; give a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// A whole number within `range` as a narrower type, or `default` when absent; without a default the key is
    /// required.
    ///
    /// # Errors
    ///
    /// As [`Settings::integer`], and when the type cannot hold it.
    pub fn small<T: TryFrom<i64>>(
        &self,
        key: &str,
        range: core::ops::RangeInclusive<i64>,
        default: Option<i64>,
    ) -> Result<T, SettingsError> {
        let number = self.integer(key, range, default)?;
        T::try_from(number).map_err(|_| SettingsError::new(key, format!("is too large: {number}")))
    }

    /// A finite number within `range`, or `default` when absent; without a default the key is required.
    ///
    /// # Errors
    ///
    /// When the key is missing without default, not a number, or out of range.
    pub fn number(
        &self,
        key: &str,
        range: core::ops::RangeInclusive<f64>,
        default: Option<f64>,
    ) -> Result<f64, SettingsError> {
        #[expect(clippy::cast_precision_loss, reason = "a configured number far below 2^52")]
        let given = match (self.get(key), default) {
            (Some(Value::Float(number)), _) => *number,
            (Some(Value::Integer(number)), _) => *number as f64,
            (Some(_), _) => return Err(SettingsError::new(key, "must be a number")),
            (None, Some(default)) => return Ok(default),
            (None, None) => {
                return Err(SettingsError::new(
                    key,
                    format!("is missing; give a number from {} to {}", range.start(), range.end()),
                ));
            }
        };
        if range.contains(&given) {
            Ok(given)
        } else {
            Err(SettingsError::new(key, format!("must be {} to {}, not {given}", range.start(), range.end())))
        }
    }

    /// One of the words of `choices`, or `default` when absent; without a default the key is required.
    ///
    /// # Errors
    ///
    /// When the key is missing without default, or is not one of the choices.
    pub fn choice<'a>(
        &self,
        key: &str,
        choices: &[&'a str],
        default: Option<&'a str>,
    ) -> Result<&'a str, SettingsError> {
        match (self.get(key), default) {
            (Some(Value::Text(text)), _) => {
                choices.iter().find(|choice| *choice == text).copied().ok_or_else(|| {
                    SettingsError::new(key, format!("must be one of {}, not \"{text}\"", choices.join(", ")))
                })
            }
            (Some(_), _) => {
                Err(SettingsError::new(key, format!("must be a text, one of {}", choices.join(", "))))
            }
            (None, Some(default)) => Ok(default),
            (None, None) => {
                Err(SettingsError::new(key, format!("is missing; give one of {}", choices.join(", "))))
            }
        }
    }

    /// A text, or `None` when absent.
    ///
    /// # Errors
    ///
    /// When the key is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, SettingsError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(SettingsError::new(key, "must be a text")),
        }
    }

    /// `true` or `false`, or `default` when absent.
    ///
    /// # Errors
    ///
    /// When the key is neither.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, SettingsError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Flag(flag)) => Ok(*flag),
            Some(_) => Err(SettingsError::new(key, "must be true or false")),
        }
    }

    /// A list of texts, empty when absent.
    ///
    /// # Errors
    ///
    /// When the key is no list of texts.
    pub fn texts(&self, key: &str) -> Result<&[String], SettingsError> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::Texts(texts)) => Ok(texts),
            Some(_) => Err(SettingsError::new(key, "must be a list of texts")),
        }
    }

    /// A list of whole numbers within `range`, empty when absent.
    ///
    /// # Errors
    ///
    /// When the key is no list of whole numbers, or one of them is out of range.
    pub fn integers(
        &self,
        key: &str,
        range: core::ops::RangeInclusive<i64>,
    ) -> Result<&[i64], SettingsError> {
        let numbers: &[i64] = match self.get(key) {
            None => &[],
            Some(Value::Integers(numbers)) => numbers,
            Some(Value::Texts(texts)) if texts.is_empty() => &[],
            Some(_) => return Err(SettingsError::new(key, "must be a list of whole numbers")),
        };
        match numbers.iter().find(|number| !range.contains(number)) {
            None => Ok(numbers),
            Some(number) => Err(SettingsError::new(
                key,
                format!("must hold numbers from {} to {}, not {number}", range.start(), range.end()),
            )),
        }
    }
}
