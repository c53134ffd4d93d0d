//! The hash of a password: slow and with much memory on purpose, because people think up little.
//!
//! The text form is that of the PHC (`$argon2id$v=19$m=19456,t=2,p=1$SALT$DIGEST`), as the `argon2` command and most
//! libraries write it. How much work one is stands in it; what would keep the front busy for seconds, or is so little that
//! it protects nothing, is refused when the file is read.

use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64Unpadded, Encoding};
use subtle::ConstantTimeEq;

use crate::secret::random_bytes;

/// The scheme's name in the text form.
pub const NAME: &str = "argon2id";
/// The only version of the algorithm since 2015: 0x13.
const VERSION: &str = "v=19";

/// Work of a new hash: OWASP's choice of 19 MiB, two passes, one lane. RFC 9106's own second choice (64 MiB, three
/// passes, four lanes) would take what a small robot's computer has least of: memory bandwidth, which every core shares with
/// those that keep the heartbeats, for several times as long.
const WORK: Work = Work { memory_kib: 19 * 1_024, passes: 2, lanes: 1 };

/// Least memory: the smallest that OWASP still lists. Most: beyond it a login could push a small computer's programs out of
/// memory.
const MEMORY_KIB: RangeInclusive<u32> = 7 * 1_024..=256 * 1_024;
/// More would take seconds for one login.
const PASSES: RangeInclusive<u32> = 1..=10;
/// They are computed one after the other here; hashes made elsewhere have some.
const LANES: RangeInclusive<u32> = 1..=16;
/// Bytes of a salt: what the algorithm wants at least; twice what is usual at most.
const SALT_BYTES: RangeInclusive<usize> = 8..=32;
/// Bytes of a digest: fewer could be met by chance; more is of no use.
const DIGEST_BYTES: RangeInclusive<usize> = 16..=64;

/// How much work a hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Work {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Argon2id of a salt and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Argon2id {
    work: Work,
    /// Keeps equal passwords from having equal hashes.
    salt: Vec<u8>,
    digest: Vec<u8>,
}

impl Argon2id {
    /// The hash of a password, with a new salt.
    ///
    /// # Panics
    ///
    /// When there is no memory for it: there is nobody yet who could log in with it.
    #[must_use]
    pub fn of(password: &str) -> Self {
        let salt = random_bytes::<16>().to_vec();
        let digest = digest(WORK, &salt, password, 32).expect("there are 19 MiB of memory");
        Self { work: WORK, salt, digest }
    }

    /// A hash of nothing, which takes as much work as this one.
    #[must_use]
    pub fn decoy(&self) -> Self {
        Self::of_nothing(self.work, self.digest.len())
    }

    /// A hash of nothing, which takes as much work as a new one.
    #[must_use]
    pub fn new_decoy() -> Self {
        Self::of_nothing(WORK, 32)
    }

    fn of_nothing(work: Work, bytes: usize) -> Self {
        let digest = random_bytes::<{ *DIGEST_BYTES.end() }>();
        Self { work, salt: random_bytes::<16>().to_vec(), digest: digest[..bytes].to_vec() }
    }

    /// Whether this is the password. Slow: tens of milliseconds, and tens of mebibytes. Without that memory nobody's is.
    #[must_use]
    pub fn admits(&self, password: &str) -> bool {
        let found = digest(self.work, &self.salt, password, self.digest.len());
        found.is_some_and(|found| found.ct_eq(&self.digest).into())
    }

    /// The beginning of the digest.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.digest.iter().take(8).fold(0, |mark, byte| mark << 8 | u64::from(*byte))
    }
}

/// What a password makes with a salt; `None` without memory for it.
fn digest(work: Work, salt: &[u8], password: &str, bytes: usize) -> Option<Vec<u8>> {
    let params = Params::new(work.memory_kib, work.passes, work.lanes, Some(bytes)).ok()?;
    let mut digest = vec![0; bytes];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut digest)
        .ok()?;
    Some(digest)
}

impl fmt::Debug for Argon2id {
    /// Nothing that helps whoever reads a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

impl fmt::Display for Argon2id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Work { memory_kib, passes, lanes } = self.work;
        let [salt, digest] = [&self.salt, &self.digest].map(|bytes| Base64Unpadded::encode_string(bytes));
        write!(f, "${NAME}${VERSION}$m={memory_kib},t={passes},p={lanes}${salt}${digest}")
    }
}

impl FromStr for Argon2id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            format!(
                "an {NAME} hash is ${NAME}${VERSION}$m=KIBIBYTES,t=PASSES,p=LANES$, the salt, $, the digest, both in \
                 base64 without ="
            )
        };
        let parts: Vec<&str> = text.split('$').collect();
        let ["", NAME, version, work, salt, digest] = parts[..] else { return Err(form()) };
        if version != VERSION {
            return Err(format!("of {NAME} only {VERSION} is known, not \"{version}\""));
        }
        let work = work.parse()?;
        let bytes = |text| Base64Unpadded::decode_vec(text).map_err(|_| form());
        let (salt, digest) = (bytes(salt)?, bytes(digest)?);
        for (what, bytes, allowed) in [("salt", &salt, SALT_BYTES), ("digest", &digest, DIGEST_BYTES)] {
            if !allowed.contains(&bytes.len()) {
                let (least, most) = allowed.into_inner();
                return Err(format!(
                    "the {what} of an {NAME} hash has {least} to {most} bytes, not {}",
                    bytes.len()
                ));
            }
        }
        Ok(Self { work, salt, digest })
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let mut number = |name: &str, allowed: RangeInclusive<u32>| {
            let (least, most) = allowed.clone().into_inner();
            let part = parts.next().and_then(|part| part.strip_prefix(name)?.strip_prefix('='));
            part.and_then(|digits| digits.parse().ok().filter(|number: &u32| number.to_string() == digits))
                .filter(|number| allowed.contains(number))
                .ok_or_else(|| {
                    format!("the work of an {NAME} hash is m=KIBIBYTES,t=PASSES,p=LANES with \"{name}\" from {least} to \
                             {most}, not \"{text}\"")
                })
        };
        let work = Self {
            memory_kib: number("m", MEMORY_KIB)?,
            passes: number("t", PASSES)?,
            lanes: number("p", LANES)?,
        };
        match parts.next() {
            None => Ok(work),
            Some(more) => Err(format!("the work of an {NAME} hash is m, t and p; \"{more}\" is not known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// "correct horse", as the reference implementation (argon2-cffi) has it.
    const FOREIGN: &str =
        "$argon2id$v=19$m=8192,t=1,p=4$bGFueWFyZC10ZXN0LXNhbHQ$CA9KyhvEUT/AWzXvKfPTdOJMGqjGFWbA";

    /// Fails if hashes made by others, or by an earlier version, could not be used.
    #[test]
    fn the_format_is_everybodys() {
        let hash: Argon2id = FOREIGN.parse().unwrap();
        assert_eq!(hash.work, Work { memory_kib: 8_192, passes: 1, lanes: 4 });
        assert!(hash.admits("correct horse") && !hash.admits("correct horsf") && !hash.admits(""));
        assert_eq!(hash.to_string(), FOREIGN);
    }

    #[test]
    fn a_new_hash_is_salted_and_as_much_work_as_is_said() {
        let (one, other) = (Argon2id::of("correct horse"), Argon2id::of("correct horse"));
        assert!(one.to_string().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert!(one != other && one.mark() != other.mark() && one.salt != other.salt);
        assert!(one.admits("correct horse") && other.admits("correct horse"));
        assert!(one.to_string().parse() == Ok(one.clone()));
        assert!(!one.decoy().admits("correct horse") && one.decoy().work == one.work);
        assert!(Argon2id::new_decoy().work == one.work);
    }

    #[test]
    fn what_is_absurd_is_refused() {
        for (old, new, words) in [
            ("v=19", "v=16", "only v=19"),
            ("$v=19", "", "an argon2id hash is"),
            ("m=8192", "m=262145", "\"m\" from 7168 to 262144"),
            ("m=8192", "m=4294967296", "\"m\" from 7168"),
            ("m=8192", "m=64", "\"m\" from 7168"),
            ("m=8192", "m=08192", "\"m\" from 7168"),
            ("t=1", "t=0", "\"t\" from 1 to 10"),
            ("t=1", "t=11", "\"t\" from 1 to 10"),
            ("p=4", "p=17", "\"p\" from 1 to 16"),
            ("p=4", "p=+4", "\"p\" from 1 to 16"),
            ("p=4", "p=4,keyid=aa", "\"keyid=aa\" is not known"),
            ("m=8192,t=1", "t=1,m=8192", "m=KIBIBYTES,t=PASSES"),
            ("p=4$", "p=4$YWJj$", "an argon2id hash is"),
        ] {
            let text = FOREIGN.replacen(old, new, 1);
            let error = text.parse::<Argon2id>().err().unwrap_or_default();
            assert!(error.contains(words), "{text}: {error}");
        }
        let (head, _) = FOREIGN.split_once("p=4").unwrap();
        for (tail, words) in [
            ("YWJj$AAAAAAAAAAAAAAAAAAAAAA", "the salt of an argon2id hash has 8 to 32 bytes, not 3"),
            ("AAAAAAAAAAAAAAAAAAAAAA$YWJj", "the digest of an argon2id hash has 16 to 64 bytes, not 3"),
            ("AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAA", "base64 without ="),
            ("AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAA_", "base64"),
            ("AAAAAAAAAAAAAAAAAAAAAA", "an argon2id hash is"),
        ] {
            let text = format!("{head}p=4${tail}");
            let error = text.parse::<Argon2id>().err().unwrap_or_default();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_hash_is_read_as_it_is_written(
            memory_kib in MEMORY_KIB, passes in PASSES, lanes in LANES,
            salt in prop::collection::vec(any::<u8>(), SALT_BYTES),
            digest in prop::collection::vec(any::<u8>(), DIGEST_BYTES),
        ) {
            let hash = Argon2id { work: Work { memory_kib, passes, lanes }, salt, digest };
            prop_assert!(hash.to_string().parse() == Ok(hash.clone()));
            prop_assert!(hash.decoy().work == hash.work && hash.decoy().digest.len() == hash.digest.len());
        }

        #[test]
        fn any_text_is_a_hash_or_an_error(text in "\\$argon2id\\$v=19\\$m=[0-9]{1,6},t=[0-9]{1,2},p=[0-9]\\$[A-Za-z0-9+/=]{8,40}\\$[A-Za-z0-9+/=]{20,90}") {
            if let Ok(hash) = text.parse::<Argon2id>() {
                prop_assert_eq!(hash.to_string(), text);
            }
        }
    }
}
