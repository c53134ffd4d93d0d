//! What may be a password.

use core::fmt;

/// Fewest characters: what NIST SP 800-63B asks for at least. The front slows guessing down; a file that was copied
/// is guessed at as fast as Argon2 goes.
const SHORTEST: usize = 8;
/// Most bytes: clients of Kinova's arms are not listened to with more.
const LONGEST: usize = 256;

/// A password as somebody has thought it up: what may be one, so that it can also be typed again.
pub struct Password(String);

impl Password {
    /// That text, if it may be a password of the user of that name.
    ///
    /// # Errors
    ///
    /// With what a password has to be; it says nothing of the text.
    pub fn new(text: String, user: &str) -> Result<Self, String> {
        let wrong = if text.chars().count() < SHORTEST {
            format!("has at least {SHORTEST} characters")
        } else if text.len() > LONGEST {
            format!("has at most {LONGEST} bytes")
        } else if text.chars().any(char::is_control) {
            "has no control characters (nobody can type them in everywhere)".to_owned()
        } else if text.trim() != text {
            "has no spaces at its ends (they get lost)".to_owned()
        } else if text.to_lowercase() == user.to_lowercase() {
            "is not the user's name".to_owned()
        } else {
            return Ok(Self(text));
        };
        Err(format!("a password {wrong}"))
    }

    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_password() {
        let long = "x".repeat(257);
        for (text, words) in [
            ("", "at least 8 characters"),
            ("secret7", "at least 8 characters"),
            ("\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}", "at least 8 characters"),
            (long.as_str(), "at most 256 bytes"),
            ("with a\ttab", "no control characters"),
            ("with a return\r", "no control characters"),
            (" in front", "no spaces at its ends"),
            ("behind it ", "no spaces at its ends"),
            ("Operator", "not the user's name"),
        ] {
            let error = Password::new(text.to_owned(), "operator").unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
            assert!(text.len() < 3 || !error.contains(text), "the error shows {text:?}");
        }
    }

    #[test]
    fn what_is_one_and_no_log_shows_it() {
        for text in ["secret-8", "correct horse battery staple", &"x".repeat(256), "gr\u{fc}n-gelb-rot"] {
            let password = Password::new(text.to_owned(), "operator").unwrap();
            assert_eq!((password.reveal(), format!("{password:?}").as_str()), (text, "Password(..)"));
        }
    }
}
