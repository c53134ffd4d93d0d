//! What clients are called: their answers come to topics of that name.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Longest name that a client may choose.
const LONGEST: usize = 64;
/// What names begin with that are given here.
const GIVEN: &str = "auto-";

/// The names in use.
#[derive(Debug, Default)]
pub struct Names {
    chosen: Mutex<HashSet<String>>,
}

/// A client's name; free again when this is dropped.
#[derive(Debug)]
pub struct Name {
    names: Arc<Names>,
    text: String,
}

impl Names {
    fn chosen(&self) -> MutexGuard<'_, HashSet<String>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name that a client asks for, if it is plain and nobody has it; else one of that connection's own. Nobody is
    /// thrown out by who asks for the same.
    #[must_use]
    pub fn take(self: &Arc<Self>, asked: &str, connection: u64) -> Name {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let may =
            (1..=LONGEST).contains(&asked.len()) && asked.bytes().all(is_plain) && !asked.starts_with(GIVEN);
        let text = if may && self.chosen().insert(asked.to_owned()) {
            asked.to_owned()
        } else {
            // No other connection of this process ever has that number.
            format!("{GIVEN}{connection:08}")
        };
        Name { names: Arc::clone(self), text }
    }
}

impl Name {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.names.chosen().remove(&self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_the_name_of_another() {
        let names = Arc::new(Names::default());
        let first = names.take("arm", 1);
        let second = names.take("arm", 2);
        assert_eq!((first.as_str(), second.as_str()), ("arm", "auto-00000002"));
        drop(second);
        assert_eq!(names.take("arm", 3).as_str(), "auto-00000003");
        drop(first);
        assert_eq!(names.take("arm", 4).as_str(), "arm");
    }

    #[test]
    fn names_are_plain_and_not_like_those_that_are_given() {
        let names = Arc::new(Names::default());
        let long = "a".repeat(LONGEST + 1);
        for asked in ["", "a/b", "#", "+", "a b", "auto-00000009", "é", &long] {
            assert_eq!(names.take(asked, 1).as_str(), "auto-00000001", "{asked}");
        }
    }
}
