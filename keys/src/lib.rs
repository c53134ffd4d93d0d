//! The keys with which clients log in to Lanyard.
//!
//! What lives here: the file of keys as `lanyard keys` writes it and the front reads it, what a key may do,
//! and the check of a secret. The file holds no secret: whoever reads it can log in with nothing of it.
//!
//! What must never live here: a network, a token, a session; the front builds these on [`Keys`].
#![forbid(unsafe_code)]

mod edit;
mod error;
mod file;
mod hash;
mod key;
mod parse;
mod role;
mod secret;

use std::collections::HashMap;

pub use edit::Draft;
pub use error::KeysError;
pub use file::KeysFile;
pub use hash::Hash;
pub use key::{Key, KeyId};
pub use role::Role;
pub use secret::Secret;

/// Longest secret that is looked at, in bytes: ours have 64, an attacker's may be as long as a message.
const LONGEST_SECRET: usize = 1_024;

/// All keys of a file.
#[derive(Clone, Debug)]
pub struct Keys {
    keys: Vec<Key>,
    places: HashMap<KeyId, usize>,
    /// What a secret is compared with when nobody has the id it came with.
    decoy: Hash,
}

impl Keys {
    /// No key at all.
    #[must_use]
    pub fn none() -> Self {
        Self::of(Vec::new())
    }

    fn of(keys: Vec<Key>) -> Self {
        let places = keys.iter().enumerate().map(|(place, key)| (key.id, place)).collect();
        Self { keys, places, decoy: Hash::of(&Secret::random()) }
    }

    /// Whether there is no key, so that nobody could log in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Every key, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// The key of that id.
    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<&Key> {
        self.places.get(&id).and_then(|place| self.keys.get(*place))
    }

    /// The key whose id and secret these are. It takes the same work whether the id or the secret is wrong,
    /// so that the time an answer takes tells nobody which ids there are.
    #[must_use]
    pub fn authenticate(&self, id: &str, secret: &str) -> Option<&Key> {
        let claimed = KeyId::parse(id).and_then(|id| self.get(id));
        let hash = claimed.map_or(&self.decoy, |key| &key.hash);
        let proven = secret.len() <= LONGEST_SECRET && hash.admits(secret);
        claimed.filter(|_| proven)
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::{Duration, Instant, SystemTime};

    use super::*;

    fn key(secret: &Secret) -> Key {
        Key {
            id: KeyId::random(),
            name: "panel".to_owned(),
            role: Role::Operate,
            window: None,
            created: SystemTime::UNIX_EPOCH,
            hash: Hash::of(secret),
        }
    }

    #[test]
    fn only_id_and_secret_together_are_a_key() {
        let (mine, others) = (Secret::random(), Secret::random());
        let keys = Keys::of(vec![key(&mine), key(&others)]);
        let ids: Vec<String> = keys.iter().map(|key| key.id.to_string()).collect();
        let found = keys.authenticate(&ids[0], mine.reveal()).map(|key| key.id.to_string());
        assert_eq!(found.as_ref(), Some(&ids[0]));
        for (id, secret) in [
            (ids[0].as_str(), others.reveal()),
            (ids[1].as_str(), mine.reveal()),
            (ids[0].as_str(), ""),
            (ids[0].as_str(), &mine.reveal()[1..]),
            ("", mine.reveal()),
            ("panel", mine.reveal()),
            (&KeyId::random().to_string(), mine.reveal()),
        ] {
            assert!(keys.authenticate(id, secret).is_none(), "{id} {secret}");
        }
        let long = mine.reveal().repeat(LONGEST_SECRET);
        assert!(keys.authenticate(&ids[0], &long).is_none());
        assert!(Keys::none().authenticate(&ids[0], mine.reveal()).is_none());
    }

    #[test]
    fn an_unknown_id_costs_as_much_as_a_wrong_secret() {
        let keys = Keys::of(vec![key(&Secret::random())]);
        let known = keys.keys[0].id.to_string();
        let unknown = KeyId::random().to_string();
        let secret = Secret::random();
        let batch = |id: &str| {
            let start = Instant::now();
            for _ in 0..100 {
                assert!(keys.authenticate(black_box(id), black_box(secret.reveal())).is_none());
            }
            start.elapsed()
        };
        // In turn, so that whatever else the machine does slows both; the quickest of each is undisturbed.
        let mut quickest = [Duration::MAX; 2];
        for _ in 0..200 {
            quickest[0] = quickest[0].min(batch(&known));
            quickest[1] = quickest[1].min(batch(&unknown));
        }
        // The hash is by far the most of the work: without it the quotient would be a small fraction.
        let quotient = quickest[1].as_secs_f64() / quickest[0].as_secs_f64();
        assert!((0.5..2.0).contains(&quotient), "an unknown id takes {quotient} times as long");
    }
}
