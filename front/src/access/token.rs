//! Tokens: what a client gets for its key, and shows with every call.
//!
//! A token is a JSON Web Token signed with HMAC-SHA256 under a secret that this process made and never tells, so
//! that none outlives it. Only this one algorithm is ever verified, whatever the token claims of itself.
//!
//! It ends when it has not been used for its lifetime, and not in the middle of its use: Viam's clients cannot
//! renew one. (Measured with viam-sdk 0.85.1: the connection logs in again after some seconds, motors and bases that the
//! program holds go on with the old token until it is started anew.) What ends a token in use is that its key goes.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use keys::{Key, KeyId};
use lru::LruCache;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use shm_proto::Nanos;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const ISSUER: &str = "lanyard";
const AUDIENCE: &str = "lanyard-front";
/// A whole block of SHA-256, so that nothing is padded.
const SECRET_BYTES: usize = 64;
/// Tokens whose last use is remembered, those used last: two for each of twice as many clients as there can be
/// sessions. One that is forgotten ends when it says itself.
const MOST_REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// Longer ones are none of ours, and not looked into.
const LONGEST: usize = 1_024;

/// What a token proves: that its holder had this key's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The key.
    pub key: KeyId,
    /// Which secret of the key, see [`keys::Hash::mark`].
    pub mark: u64,
}

impl Proof {
    /// What somebody has proven who has this key.
    #[must_use]
    pub fn of(key: &Key) -> Self {
        Self { key: key.id, mark: key.hash.mark() }
    }
}

/// Gives and checks tokens.
pub struct Tokens {
    signer: Hmac<Sha256>,
    header: String,
    lifetime: Duration,
    clock: Clock,
    /// When each token was used last, by its number.
    used: Mutex<LruCache<u64, Nanos>>,
}

#[derive(Serialize, Deserialize)]
struct Claims<'a> {
    iss: Cow<'a, str>,
    aud: Cow<'a, str>,
    sub: Cow<'a, str>,
    iat: u64,
    exp: u64,
    /// The token's number, in hexadecimal digits like the mark.
    jti: Cow<'a, str>,
    /// The mark in hexadecimal digits: not every reader of JSON has 64 bits for a number.
    mark: Cow<'a, str>,
}

impl Tokens {
    /// Tokens that are good for that long.
    ///
    /// # Errors
    ///
    /// When the kernel has no random numbers.
    pub fn new(lifetime: Duration) -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        let signer = Hmac::new(&secret.into());
        let used = Mutex::new(LruCache::new(MOST_REMEMBERED));
        Ok(Self { signer, header: BASE64.encode(HEADER), lifetime, clock: Clock::start(), used })
    }

    /// A token for who has proven this.
    ///
    /// # Errors
    ///
    /// When the kernel has no random numbers.
    pub fn issue(&self, proof: Proof, now: Nanos) -> Result<String, getrandom::Error> {
        let number = getrandom::u64()?;
        let Self { header, lifetime, clock, .. } = self;
        let now = clock.unix(now);
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: proof.key.to_string().into(),
            iat: now.as_secs(),
            // Whole seconds, none too few.
            exp: (now + *lifetime + Duration::from_nanos(999_999_999)).as_secs(),
            jti: format!("{number:x}").into(),
            mark: format!("{:x}", proof.mark).into(),
        };
        let claims = serde_json::to_string(&claims).unwrap_or_default();
        let signed = format!("{header}.{}", BASE64.encode(claims));
        let signature = self.signer.clone().chain_update(&signed).finalize().into_bytes();
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }

    /// Gives a name to a login that is none of ours: the same for the same login, and nothing to learn the login from.
    #[must_use]
    pub fn pseudonym(&self, login: &[u8]) -> String {
        // No token that is signed here begins like this.
        let mac = self.signer.clone().chain_update(b"login\0").chain_update(login).finalize().into_bytes();
        BASE64.encode(mac)
    }

    /// What a token proves, which counts as its use; `None` if it is not one of ours, or no longer good.
    #[must_use]
    pub fn verify(&self, token: &str, now: Nanos) -> Option<Proof> {
        if token.len() > LONGEST {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = BASE64.decode(signature).ok()?;
        // In constant time.
        self.signer.clone().chain_update(signed).verify_slice(&signature).ok()?;
        let claims = signed.strip_prefix(&self.header)?.strip_prefix('.')?;
        let claims = BASE64.decode(claims).ok()?;
        let claims: Claims<'_> = serde_json::from_slice(&claims).ok()?;
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let proof = Proof { key: KeyId::parse(&claims.sub)?, mark: number(&claims.mark)? };
        let is_ours = claims.iss == ISSUER && claims.aud == AUDIENCE;
        (is_ours && self.goes_on(number(&claims.jti)?, claims.exp, now)).then_some(proof)
    }

    /// Whether a token has not ended; if so, it is used now.
    fn goes_on(&self, number: u64, end: u64, now: Nanos) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = used.get(&number).map(|last| Duration::from_nanos(now.0.saturating_sub(last.0)));
        let goes_on = self.clock.unix(now).as_secs() < end || idle.is_some_and(|idle| idle <= self.lifetime);
        if goes_on {
            used.put(number, now);
        }
        goes_on
    }
}

impl fmt::Debug for Tokens {
    /// Without what they are signed with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// Unix time that goes on evenly: a robot whose clock is set right after its start, or set back, neither shuts
/// everybody out nor lets tokens live longer.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Unix time at the start of the process.
    unix: Duration,
    /// The same moment since boot.
    boot: Nanos,
}

impl Clock {
    fn start() -> Self {
        Self { unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), boot: Nanos::now() }
    }

    fn unix(&self, at: Nanos) -> Duration {
        self.unix.saturating_add(Duration::from_nanos(at.0.saturating_sub(self.boot.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn tokens() -> Tokens {
        Tokens::new(HOUR).unwrap()
    }

    fn proof() -> Proof {
        Proof { key: KeyId::random(), mark: u64::MAX - 7 }
    }

    fn after(now: Nanos, time: Duration) -> Nanos {
        Nanos(now.0 + u64::try_from(time.as_nanos()).unwrap())
    }

    #[test]
    fn a_token_that_is_not_used_ends() {
        let (tokens, proof, now) = (tokens(), proof(), Nanos::now());
        let token = tokens.issue(proof, now).unwrap();
        assert_eq!(tokens.verify(&token, after(now, HOUR + Duration::from_secs(2))), None);
        assert_eq!(tokens.verify(&token, after(now, HOUR)), Some(proof));
        assert_eq!(tokens.verify(&token, after(now, 2 * HOUR + Duration::from_secs(1))), None);
    }

    #[test]
    fn a_token_in_use_goes_on_and_does_not_come_back() {
        let (tokens, proof, now) = (tokens(), proof(), Nanos::now());
        let (used, idle) = (tokens.issue(proof, now).unwrap(), tokens.issue(proof, now).unwrap());
        for hours in 1..100 {
            assert_eq!(tokens.verify(&used, after(now, hours * HOUR)), Some(proof), "after {hours} h");
            assert_eq!(tokens.verify(&idle, after(now, (hours + 1) * HOUR)), None);
        }
        for hours in 101..103 {
            assert_eq!(tokens.verify(&used, after(now, hours * HOUR)), None);
        }
    }

    #[test]
    fn what_is_remembered_of_tokens_is_bounded() {
        let (tokens, now) = (tokens(), Nanos::now());
        for _ in 0..2 * MOST_REMEMBERED.get() {
            let token = tokens.issue(proof(), now).unwrap();
            assert!(tokens.verify(&token, now).is_some());
        }
        assert_eq!(tokens.used.lock().unwrap().len(), MOST_REMEMBERED.get());
    }

    #[test]
    fn a_token_is_a_web_token() {
        let (tokens, now) = (tokens(), Nanos::now());
        let token = tokens.issue(proof(), now).unwrap();
        let parts: Vec<Vec<u8>> = token.split('.').map(|part| BASE64.decode(part).unwrap()).collect();
        assert_eq!((parts.len(), parts[0].as_slice()), (3, HEADER.as_bytes()));
        let claims: serde_json::Value = serde_json::from_slice(&parts[1]).unwrap();
        let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        assert!((3_600..=3_601).contains(&lifetime) && claims["iss"] == "lanyard", "{claims}");
    }

    #[test]
    fn whatever_is_changed_in_a_token_makes_it_worthless() {
        let (tokens, now) = (tokens(), Nanos::now());
        let token = tokens.issue(proof(), now).unwrap();
        for place in 0..token.len() {
            for other in ["A", "B", ".", ""] {
                let mut forged = token.clone();
                forged.replace_range(place..=place, other);
                // The last digit has two bits that nothing depends on; a strict reader wants them to be zero.
                assert!(forged == token || tokens.verify(&forged, now).is_none(), "{forged}\n{token}");
            }
        }
        for wrong in ["", ".", "..", "a.b.c", &token[1..], &format!("{token}."), &format!(" {token}")] {
            assert!(tokens.verify(wrong, now).is_none(), "{wrong}");
        }
    }

    #[test]
    fn nobody_elses_word_counts() {
        let (tokens, now) = (tokens(), Nanos::now());
        let theirs = Tokens::new(HOUR).unwrap().issue(proof(), now).unwrap();
        assert!(tokens.verify(&theirs, now).is_none(), "signed by another process");
        let sign = |header: &str, claims: &str| {
            let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
            let signature = tokens.signer.clone().chain_update(&signed).finalize().into_bytes();
            format!("{signed}.{}", BASE64.encode(signature))
        };
        let claims = |aud: &str| {
            let (sub, exp) = (KeyId::random(), u64::MAX);
            format!(
                r#"{{"iss":"lanyard","aud":"{aud}","sub":"{sub}","iat":0,"exp":{exp},"jti":"1","mark":"7"}}"#
            )
        };
        assert!(tokens.verify(&sign(HEADER, &claims("lanyard-front")), now).is_some());
        assert!(tokens.verify(&sign(HEADER, &claims("others")), now).is_none());
        let none = r#"{"alg":"none","typ":"JWT"}"#;
        assert!(tokens.verify(&sign(none, &claims("lanyard-front")), now).is_none());
        let unsigned = format!("{}.{}.", BASE64.encode(none), BASE64.encode(claims("lanyard-front")));
        assert!(tokens.verify(&unsigned, now).is_none());
    }
}
