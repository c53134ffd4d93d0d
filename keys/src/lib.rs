//! The keys with which clients log in to Lanyard.
//!
//! What lives here: the file of keys as `lanyard keys` writes it and the front reads it, what a key may do,
//! and the check of a secret or a password. The file holds neither: whoever reads it can log in with nothing of it.
//!
//! What must never live here: a network, a token, a session; the front builds these on [`Keys`].
#![forbid(unsafe_code)]

mod argon2id;
mod edit;
mod error;
mod file;
mod hash;
mod key;
mod parse;
mod password;
mod role;
mod secret;

use std::collections::HashMap;

pub use argon2id::Argon2id;
pub use edit::Draft;
pub use error::KeysError;
pub use file::KeysFile;
pub use hash::{Hash, Kind};
pub use key::{Key, KeyId};
pub use password::Password;
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
    /// What a password is compared with when it is nobody's, or of a key that has none.
    password_decoy: Hash,
}

impl Keys {
    /// No key at all.
    #[must_use]
    pub fn none() -> Self {
        Self::of(Vec::new())
    }

    fn of(keys: Vec<Key>) -> Self {
        let places = keys.iter().enumerate().map(|(place, key)| (key.id, place)).collect();
        let passwords = keys.iter().find_map(|key| match &key.hash {
            Hash::Argon2id(hash) => Some(hash.decoy()),
            Hash::Sha256 { .. } => None,
        });
        let password_decoy = Hash::Argon2id(passwords.unwrap_or_else(Argon2id::new_decoy));
        Self { keys, places, decoy: Hash::of(&Secret::random()), password_decoy }
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
    /// so that the time an answer takes tells nobody which ids there are. No password is looked at: the caller beats.
    #[must_use]
    pub fn authenticate(&self, id: &str, secret: &str) -> Option<&Key> {
        self.check(KeyId::parse(id).and_then(|id| self.get(id)), Kind::Secret, secret)
    }

    /// The key of that name whose secret this is, as [`Self::authenticate`]: a microsecond.
    #[must_use]
    pub fn authenticate_named(&self, name: &str, secret: &str) -> Option<&Key> {
        self.check(self.named(name), Kind::Secret, secret)
    }

    /// The key of that name whose *password* this is: tens of milliseconds, and tens of mebibytes of memory. It takes the same
    /// work whether there is no such key, its password is another, or it has none, as long as all passwords of the file are
    /// hashed with the same work; one at a time, please.
    #[must_use]
    pub fn authenticate_password(&self, name: &str, password: &str) -> Option<&Key> {
        self.check(self.named(name), Kind::Password, password)
    }

    /// Whom failed logins under a name are counted for; also for a name that nobody has, so that the counting does not
    /// tell which there are.
    #[must_use]
    pub fn claimed(&self, name: &str) -> KeyId {
        let nobody = KeyId::of_nobody(name);
        self.named(name).map_or(nobody, |key| key.id)
    }

    fn named(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The key that is claimed, if it is of that kind and this proves it. Always the work of one hash of that kind.
    fn check<'a>(&'a self, claimed: Option<&'a Key>, kind: Kind, secret: &str) -> Option<&'a Key> {
        let claimed = claimed.filter(|key| key.hash.kind() == kind);
        let decoy = match kind {
            Kind::Secret => &self.decoy,
            Kind::Password => &self.password_decoy,
        };
        let hash = claimed.map_or(decoy, |key| &key.hash);
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
        named("panel", Hash::of(secret))
    }

    fn named(name: &str, hash: Hash) -> Key {
        let (id, created) = (KeyId::random(), SystemTime::UNIX_EPOCH);
        Key { id, name: name.to_owned(), role: Role::Operate, window: None, created, hash }
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
            for _ in 0..100 {
                assert!(keys.authenticate(black_box(id), black_box(secret.reveal())).is_none());
            }
        };
        // The hash is by far the most of the work: without it the quotient would be a small fraction.
        let [known, unknown] = quickest(200, [&|| batch(&known), &|| batch(&unknown)]);
        let quotient = unknown / known;
        assert!((0.5..2.0).contains(&quotient), "an unknown id takes {quotient} times as long");
    }

    /// How long each takes in seconds. In turn, so that whatever else the machine does slows all; the quickest run of each is
    /// undisturbed.
    fn quickest<const N: usize>(times: usize, of: [&dyn Fn(); N]) -> [f64; N] {
        let mut quickest = [Duration::MAX; N];
        for _ in 0..times {
            for (quickest, work) in quickest.iter_mut().zip(of) {
                let start = Instant::now();
                work();
                *quickest = start.elapsed().min(*quickest);
            }
        }
        quickest.map(|time| time.as_secs_f64())
    }

    #[test]
    fn only_name_and_password_together_are_a_key() {
        let secret = Secret::random();
        let ada = named("ada", Hash::of_password("correct horse"));
        let grace = named("grace", Hash::of_password("battery staple"));
        let ids = [&ada, &grace].map(|key| key.id.to_string());
        let keys = Keys::of(vec![ada, grace, key(&secret)]);
        let found = |name, password| keys.authenticate_password(name, password).map(|key| key.id.to_string());
        assert_eq!(found("ada", "correct horse").as_ref(), Some(&ids[0]));
        assert_eq!(found("grace", "battery staple").as_ref(), Some(&ids[1]));
        for (name, password) in [
            ("ada", "battery staple"),
            ("ada", ""),
            ("Ada", "correct horse"),
            ("", "correct horse"),
            (&ids[0], "correct horse"),
            ("nobody", "correct horse"),
            // Not by this, slow way.
            ("panel", secret.reveal()),
        ] {
            assert_eq!(found(name, password), None, "{name} {password}");
        }
        let long = "correct horse".repeat(LONGEST_SECRET);
        assert_eq!(found("ada", &long), None);
        assert_eq!(
            keys.authenticate_named("panel", secret.reveal()).map(|key| key.name.as_str()),
            Some("panel")
        );
        assert!(keys.authenticate_named("ada", "correct horse").is_none());
        assert!(keys.authenticate_named("ada", secret.reveal()).is_none());
    }

    /// Who asks is on a thread that beats: one Argon2 there would keep every heartbeat waiting.
    #[test]
    fn a_password_is_no_secret_and_costs_nobody_else_anything() {
        let keys = Keys::of(vec![named("ada", Hash::of_password("correct horse")), key(&Secret::random())]);
        let [ada, panel] = [0, 1].map(|place: usize| keys.keys[place].id.to_string());
        assert!(keys.authenticate(&ada, "correct horse").is_none());
        let login = |id: &str| {
            for _ in 0..100 {
                assert!(keys.authenticate(black_box(id), black_box("correct horse")).is_none());
            }
        };
        let [ada, panel] = quickest(200, [&|| login(&ada), &|| login(&panel)]);
        let quotient = ada / panel;
        assert!((0.5..2.0).contains(&quotient), "the id of a password takes {quotient} times as long");
    }

    #[test]
    fn an_unknown_user_costs_as_much_as_a_wrong_password() {
        let keys = Keys::of(vec![key(&Secret::random()), named("ada", Hash::of_password("correct horse"))]);
        let login = |name| assert!(keys.authenticate_password(black_box(name), black_box("wrong")).is_none());
        let [known, unknown, without] = quickest(7, [&|| login("ada"), &|| login("eve"), &|| login("panel")]);
        for (who, time) in [("an unknown user", unknown), ("a key without a password", without)] {
            let quotient = time / known;
            assert!((0.5..2.0).contains(&quotient), "{who} takes {quotient} times as long");
        }
        // With hashes from elsewhere their work is what counts.
        let foreign =
            "$argon2id$v=19$m=7168,t=1,p=1$bGFueWFyZC10ZXN0LXNhbHQ$CA9KyhvEUT/AWzXvKfPTdOJMGqjGFWbA";
        let keys = Keys::of(vec![named("ada", foreign.parse().unwrap())]);
        let login = |name| assert!(keys.authenticate_password(black_box(name), black_box("wrong")).is_none());
        let [known, unknown] = quickest(7, [&|| login("ada"), &|| login("eve")]);
        let quotient = unknown / known;
        assert!(
            (0.5..2.0).contains(&quotient),
            "beside foreign hashes an unknown user takes {quotient} times as long"
        );
    }

    #[test]
    fn failures_of_every_name_are_counted_for_somebody() {
        let keys = Keys::of(vec![key(&Secret::random())]);
        assert_eq!(keys.claimed("panel"), keys.keys[0].id);
        assert_eq!(
            keys.claimed("eve"),
            Keys::none().claimed("eve"),
            "and go on to be after the file was read again"
        );
        assert_ne!(keys.claimed("eve"), keys.claimed("mallory"));
    }
}
