//! Tokens: what a client gets for its key, and shows with every call.
//!
//! A token is a JSON Web Token signed with HMAC-SHA256 under a secret that this process made and never tells, so
//! that none outlives it. Only this one algorithm is ever verified, whatever the token claims of itself.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use keys::KeyId;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use shm_proto::Nanos;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const ISSUER: &str = "lanyard";
const AUDIENCE: &str = "lanyard-front";
/// A whole block of SHA-256, so that nothing is padded.
const SECRET_BYTES: usize = 64;
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

/// Gives and checks tokens.
pub struct Tokens {
    signer: Hmac<Sha256>,
    header: String,
    lifetime: Duration,
    clock: Clock,
}

#[derive(Serialize, Deserialize)]
struct Claims<'a> {
    iss: Cow<'a, str>,
    aud: Cow<'a, str>,
    sub: Cow<'a, str>,
    iat: u64,
    exp: u64,
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
        Ok(Self { signer, header: BASE64.encode(HEADER), lifetime, clock: Clock::start() })
    }

    /// A token for who has proven this.
    #[must_use]
    pub fn issue(&self, proof: Proof, now: Nanos) -> String {
        let Self { header, lifetime, clock, .. } = self;
        let now = clock.unix(now);
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: proof.key.to_string().into(),
            iat: now.as_secs(),
            // Whole seconds, none too few.
            exp: (now + *lifetime + Duration::from_nanos(999_999_999)).as_secs(),
            mark: format!("{:x}", proof.mark).into(),
        };
        let claims = serde_json::to_string(&claims).unwrap_or_default();
        let signed = format!("{header}.{}", BASE64.encode(claims));
        let signature = self.signer.clone().chain_update(&signed).finalize().into_bytes();
        format!("{signed}.{}", BASE64.encode(signature))
    }

    /// What a token proves; `None` if it is not one of ours, or no longer good.
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
        let is_good =
            claims.iss == ISSUER && claims.aud == AUDIENCE && self.clock.unix(now).as_secs() < claims.exp;
        let mark = u64::from_str_radix(&claims.mark, 16).ok()?;
        KeyId::parse(&claims.sub).filter(|_| is_good).map(|key| Proof { key, mark })
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
    fn a_token_proves_its_key_for_its_lifetime() {
        let (tokens, proof, now) = (tokens(), proof(), Nanos::now());
        let token = tokens.issue(proof, now);
        assert_eq!(tokens.verify(&token, now), Some(proof));
        assert_eq!(tokens.verify(&token, after(now, HOUR)), Some(proof));
        assert_eq!(tokens.verify(&token, after(now, HOUR + Duration::from_secs(2))), None);
    }

    #[test]
    fn a_token_is_a_web_token() {
        let (tokens, now) = (tokens(), Nanos::now());
        let token = tokens.issue(proof(), now);
        let parts: Vec<Vec<u8>> = token.split('.').map(|part| BASE64.decode(part).unwrap()).collect();
        assert_eq!((parts.len(), parts[0].as_slice()), (3, HEADER.as_bytes()));
        let claims: serde_json::Value = serde_json::from_slice(&parts[1]).unwrap();
        let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        assert!((3_600..=3_601).contains(&lifetime) && claims["iss"] == "lanyard", "{claims}");
    }

    #[test]
    fn whatever_is_changed_in_a_token_makes_it_worthless() {
        let (tokens, now) = (tokens(), Nanos::now());
        let token = tokens.issue(proof(), now);
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
        let theirs = Tokens::new(HOUR).unwrap().issue(proof(), now);
        assert!(tokens.verify(&theirs, now).is_none(), "signed by another process");
        let sign = |header: &str, claims: &str| {
            let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
            let signature = tokens.signer.clone().chain_update(&signed).finalize().into_bytes();
            format!("{signed}.{}", BASE64.encode(signature))
        };
        let claims = |aud: &str| {
            let (sub, exp) = (KeyId::random(), u64::MAX);
            format!(r#"{{"iss":"lanyard","aud":"{aud}","sub":"{sub}","iat":0,"exp":{exp},"mark":"7"}}"#)
        };
        assert!(tokens.verify(&sign(HEADER, &claims("lanyard-front")), now).is_some());
        assert!(tokens.verify(&sign(HEADER, &claims("others")), now).is_none());
        let none = r#"{"alg":"none","typ":"JWT"}"#;
        assert!(tokens.verify(&sign(none, &claims("lanyard-front")), now).is_none());
        let unsigned = format!("{}.{}.", BASE64.encode(none), BASE64.encode(claims("lanyard-front")));
        assert!(tokens.verify(&unsigned, now).is_none());
    }
}
