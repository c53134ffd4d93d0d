//! One key.

use core::fmt;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{Hash, Role, Secret};

/// What a client says first: which key it is. No secret. A UUID, because Viam's clients want one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Uuid);

impl KeyId {
    /// One that nobody has.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Always the same one for a name, and nobody's: whom failed logins of users that do not exist are counted for.
    #[must_use]
    pub(crate) fn of_nobody(name: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(name).into();
        let [a, b, ..] = digest.as_chunks::<8>().0 else { unreachable!("it has four times eight bytes") };
        Self(Uuid::from_u64_pair(u64::from_be_bytes(*a), u64::from_be_bytes(*b)))
    }

    /// The id in a text of 36 characters; nothing else is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // The crate also reads forms with braces, without dashes, and URNs.
        Uuid::try_parse(text).ok().filter(|_| text.len() == 36).map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A key as the file knows it: everything but the secret.
#[derive(Clone, Debug)]
pub struct Key {
    /// Which one: sessions belong to it.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// A shorter window for its sessions than the configuration's.
    pub window: Option<Duration>,
    /// When it was made, to the second.
    pub created: SystemTime,
    /// What proves its secret.
    pub hash: Hash,
}

impl Key {
    /// The key as one text, for clients that have no login and send it with every request: its id, a dot, its secret.
    #[must_use]
    pub fn token(&self, secret: &Secret) -> String {
        format!("{}.{}", self.id, secret.reveal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_form() {
        let id = KeyId::random();
        let text = id.to_string();
        assert_eq!(KeyId::parse(&text), Some(id));
        let bare = text.replace('-', "");
        for wrong in [bare.as_str(), &format!("{{{text}}}"), &format!("urn:uuid:{text}"), "", &text[1..]] {
            assert_eq!(KeyId::parse(wrong), None, "{wrong}");
        }
    }
}
