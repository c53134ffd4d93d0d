//! What the file keeps in place of a secret.
//!
//! A secret of ours has 256 random bits, so one round of SHA-256 is right for it: nobody can try so many, and a
//! login costs the front a microsecond however many are tried. What people think up themselves has few: for
//! passwords there is [`Argon2id`]. The text form says its scheme first, so that both can stand in one file:
//! `$sha256$SALT$DIGEST`, the salt (16 bytes) and the digest of salt and secret in hexadecimal digits, or
//! `$argon2id$...`.

use core::fmt;
use core::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Secret;
use crate::argon2id::{self, Argon2id};
use crate::secret::{hex, random_bytes, unhex};

const SHA256: &str = "sha256";

/// What proves a secret without holding it.
#[derive(Clone, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256 of salt and secret; for secrets with full entropy only.
    Sha256 {
        /// Keeps equal secrets from having equal hashes.
        salt: [u8; 16],
        /// The digest.
        digest: [u8; 32],
    },
    /// For passwords.
    Argon2id(Argon2id),
}

/// What proves that somebody has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A secret of ours, with full entropy.
    Secret,
    /// What somebody has thought up.
    Password,
}

impl Kind {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "key",
            Self::Password => "password",
        }
    }
}

impl Hash {
    /// The hash of a secret, with a new salt.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        let salt = random_bytes();
        Self::Sha256 { salt, digest: sha256(&salt, secret.reveal()) }
    }

    /// The hash of a password, with a new salt. Slow on purpose.
    ///
    /// # Panics
    ///
    /// Without memory or random numbers.
    #[must_use]
    pub fn of_password(password: &str) -> Self {
        Self::Argon2id(Argon2id::of(password))
    }

    /// What it is a hash of.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Sha256 { .. } => Kind::Secret,
            Self::Argon2id(_) => Kind::Password,
        }
    }

    /// Tells this hash from every other, so that a token can say which secret it was given for. It helps nobody to
    /// find that secret.
    #[must_use]
    pub fn mark(&self) -> u64 {
        match self {
            Self::Sha256 { digest: [a, b, c, d, e, f, g, h, ..], .. } => {
                u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])
            }
            Self::Argon2id(hash) => hash.mark(),
        }
    }

    /// Whether this is the secret; the time it takes does not tell how much of it was right. For a password that is tens of
    /// milliseconds.
    #[must_use]
    pub fn admits(&self, secret: &str) -> bool {
        match self {
            Self::Sha256 { salt, digest } => sha256(salt, secret).ct_eq(digest).into(),
            Self::Argon2id(hash) => hash.admits(secret),
        }
    }
}

fn sha256(salt: &[u8; 16], secret: &str) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(secret).finalize().into()
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256 { salt, digest } => write!(f, "${SHA256}${}${}", hex(salt), hex(digest)),
            Self::Argon2id(hash) => hash.fmt(f),
        }
    }
}

impl fmt::Debug for Hash {
    /// The scheme only: nothing that helps whoever reads a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256 { .. } => f.write_str("Hash(sha256)"),
            Self::Argon2id(hash) => write!(f, "Hash({hash:?})"),
        }
    }
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('$').collect();
        match parts[..] {
            ["", SHA256, ref rest @ ..] => match *rest {
                [salt, digest] => unhex(salt).zip(unhex(digest)),
                _ => None,
            }
            .map(|(salt, digest)| Self::Sha256 { salt, digest })
            .ok_or_else(|| format!("a {SHA256} hash is ${SHA256}$, 32 digits, $, 64 digits")),
            ["", argon2id::NAME, ..] => text.parse().map(Self::Argon2id),
            ["", scheme, ..] => {
                let known = argon2id::NAME;
                Err(format!("the scheme \"{scheme}\" is not known; known: {SHA256}, {known}"))
            }
            _ => Err(format!("a hash begins with its scheme, like ${SHA256}$")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fails if files written today could not be read by a later version: the digest is `sha256sum`'s of
    /// the salt's bytes and "secret".
    #[test]
    fn the_format_is_fixed() {
        let text = "$sha256$000102030405060708090a0b0c0d0e0f$\
                    67557c0d86179c45199f096d85b7aeb2b8b34bf423c403ba517f72bcc5913c4c";
        let hash: Hash = text.parse().unwrap();
        assert!(hash.admits("secret") && !hash.admits("Secret") && !hash.admits(""));
        assert_eq!(hash.to_string(), text);
        assert_eq!(format!("{hash:?}"), "Hash(sha256)");
    }

    #[test]
    fn equal_secrets_have_different_hashes() {
        let secret = Secret::random();
        let (one, other) = (Hash::of(&secret), Hash::of(&secret));
        assert_ne!(one, other);
        assert_ne!(one.mark(), other.mark());
        assert!(one.admits(secret.reveal()) && other.admits(secret.reveal()));
    }

    #[test]
    fn a_password_has_a_hash_of_the_other_kind() {
        let hash = Hash::of_password("correct horse");
        assert!(hash.admits("correct horse") && !hash.admits("correct Horse"));
        assert_eq!((hash.kind(), Hash::of(&Secret::random()).kind()), (Kind::Password, Kind::Secret));
        assert_eq!(hash.to_string().parse(), Ok(hash.clone()));
        assert_eq!(format!("{hash:?}"), "Hash(argon2id)");
        assert_ne!(hash.mark(), Hash::of_password("correct horse").mark());
    }

    #[test]
    fn what_is_no_hash() {
        let digits = "0".repeat(64);
        for (text, word) in [
            ("", "begins with its scheme"),
            ("sha256", "begins with its scheme"),
            ("$md5$00$00", "\"md5\" is not known; known: sha256, argon2id"),
            ("$argon2id$00$00", "an argon2id hash is"),
            ("$sha256$00$00", "32 digits"),
            (&format!("$sha256${}${digits}x", &digits[..32]), "64 digits"),
            (&format!("$sha256${}${digits}$", &digits[..32]), "64 digits"),
        ] {
            let error = text.parse::<Hash>().unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_hash_is_read_as_it_is_written(salt: [u8; 16], digest: [u8; 32]) {
            let hash = Hash::Sha256 { salt, digest };
            prop_assert_eq!(hash.to_string().parse(), Ok(hash));
        }

        #[test]
        fn any_text_is_a_hash_or_an_error(text in "[$0-9a-fsh\\PC]{0,120}") {
            if let Ok(hash) = text.parse::<Hash>() {
                prop_assert_eq!(hash.to_string(), text.to_lowercase());
            }
        }
    }
}
