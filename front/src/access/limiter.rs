//! How many logins may fail: who guesses waits, and nobody else does.
//!
//! Failures are counted for the address they come from and for the key they are about. A spent address is not
//! listened to for a while. A spent key, which is being tried from many addresses, is still open to an address
//! that has not failed: its owner gets in, and each of the others has one guess. A client that has logged in from its
//! address before has a count of its own, so that somebody who fails beside it, behind the same router or on the
//! same computer, does not shut it out. What is remembered is bounded; the longest untouched is forgotten first.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use keys::KeyId;
use lru::LruCache;
use shm_proto::Nanos;

/// Entries of each kind: a few hundred kilobytes at most.
const MOST: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// A person mistypes now and then, and a program that was given the wrong key tries again each second: ten
/// at once, then one in six seconds.
const OF_ADDRESS: Rate = Rate { burst: 10, pause: Duration::from_secs(6) };
/// A key that several programs use may be mistyped in each.
const OF_KEY: Rate = Rate { burst: 30, pause: Duration::from_secs(2) };

/// How many failures at once, and how soon one is forgotten.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    pause: Duration,
}

/// The failures not yet forgotten, as the time at which they all will be.
#[derive(Clone, Copy, Debug, Default)]
struct Debt(Nanos);

impl Debt {
    fn charge(&mut self, rate: Rate, now: Nanos) {
        self.0 = Nanos(self.0.0.max(now.0).saturating_add(nanos(rate.pause)));
    }

    /// How long nothing more is listened to.
    fn wait(self, rate: Rate, now: Nanos) -> Option<Duration> {
        let left = self.0.0.saturating_sub(now.0);
        let allowed = nanos(rate.pause).saturating_mul(u64::from(rate.burst) - 1);
        left.checked_sub(allowed).filter(|wait| *wait > 0).map(Duration::from_nanos)
    }

    fn is_paid(self, now: Nanos) -> bool {
        self.0 <= now
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Who counts as one address: of IPv6 everybody has a whole network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
        }
    }
}

/// All failures that are remembered.
#[derive(Debug)]
pub struct Limiter {
    sources: LruCache<Source, Debt>,
    keys: LruCache<KeyId, Debt>,
    /// Who has logged in before, from where.
    known: LruCache<(Source, KeyId), Debt>,
}

impl Limiter {
    /// Nobody has failed.
    #[must_use]
    pub fn new() -> Self {
        Self { sources: LruCache::new(MOST), keys: LruCache::new(MOST), known: LruCache::new(MOST) }
    }

    /// Whether a login is listened to at all. `key` is `None` for one that names none.
    ///
    /// # Errors
    ///
    /// With the time after which it may be again.
    pub fn check(&self, address: IpAddr, key: Option<KeyId>, now: Nanos) -> Result<(), Duration> {
        let source = Source::of(address);
        if let Some(debt) = key.and_then(|key| self.known.peek(&(source, key))) {
            return debt.wait(OF_ADDRESS, now).map_or(Ok(()), Err);
        }
        let from_here = self.sources.peek(&source).copied().unwrap_or_default();
        if let Some(wait) = from_here.wait(OF_ADDRESS, now) {
            return Err(wait);
        }
        let of_key = key.and_then(|key| self.keys.peek(&key)).and_then(|debt| debt.wait(OF_KEY, now));
        match of_key {
            Some(wait) if !from_here.is_paid(now) => Err(wait),
            Some(_) | None => Ok(()),
        }
    }

    /// A login has failed. True: from now on nothing more is listened to from there.
    pub fn failed(&mut self, address: IpAddr, key: Option<KeyId>, now: Nanos) -> bool {
        let source = Source::of(address);
        if let Some(key) = key {
            self.keys.get_or_insert_mut(key, Debt::default).charge(OF_KEY, now);
            if let Some(debt) = self.known.get_mut(&(source, key)) {
                debt.charge(OF_ADDRESS, now);
                return debt.wait(OF_ADDRESS, now).is_some();
            }
        }
        let debt = self.sources.get_or_insert_mut(source, Debt::default);
        debt.charge(OF_ADDRESS, now);
        debt.wait(OF_ADDRESS, now).is_some()
    }

    /// A login has succeeded.
    pub fn succeeded(&mut self, address: IpAddr, key: KeyId) {
        self.known.put((Source::of(address), key), Debt::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = Nanos(1_000_000_000_000);

    fn address(number: u32) -> IpAddr {
        IpAddr::V4((0x0A00_0000 + number).into())
    }

    fn later(time: Duration) -> Nanos {
        Nanos(NOW.0 + nanos(time))
    }

    /// How many guesses of `key` an address has at this moment.
    fn guesses(limiter: &mut Limiter, address: IpAddr, key: Option<KeyId>) -> usize {
        let mut count = 0;
        while limiter.check(address, key, NOW).is_ok() {
            limiter.failed(address, key, NOW);
            count += 1;
        }
        count
    }

    #[test]
    fn who_guesses_waits_and_may_try_again_one_at_a_time() {
        let (mut limiter, key) = (Limiter::new(), Some(KeyId::random()));
        assert_eq!(guesses(&mut limiter, address(1), key), 10);
        assert_eq!(limiter.check(address(1), key, NOW), Err(Duration::from_secs(6)));
        assert_eq!(limiter.check(address(1), Some(KeyId::random()), NOW), Err(Duration::from_secs(6)));
        assert_eq!(limiter.check(address(1), None, NOW), Err(Duration::from_secs(6)));
        let soon = later(Duration::from_secs(6));
        assert_eq!(limiter.check(address(1), key, soon), Ok(()));
        assert!(limiter.failed(address(1), key, soon), "one guess more, and it is spent again");
        assert_eq!(limiter.check(address(1), key, later(Duration::from_secs(66))), Ok(()));
    }

    #[test]
    fn failures_elsewhere_and_with_other_keys_shut_nobody_out() {
        let (mut limiter, key) = (Limiter::new(), Some(KeyId::random()));
        for number in 0..100 {
            // After three addresses the key is spent: the others have one guess each.
            let expected = if number < 3 { 10 } else { 1 };
            assert_eq!(guesses(&mut limiter, address(number), key), expected, "address {number}");
        }
        assert_eq!(
            limiter.check(address(200), key, NOW),
            Ok(()),
            "the owner of the key, from an address of its own"
        );
    }

    #[test]
    fn who_has_been_in_from_there_is_not_shut_out_by_a_neighbour() {
        let (mut limiter, key) = (Limiter::new(), KeyId::random());
        limiter.succeeded(address(1), key);
        assert_eq!(guesses(&mut limiter, address(1), Some(KeyId::random())), 10);
        assert_eq!(limiter.check(address(1), Some(key), NOW), Ok(()));
        assert_eq!(
            guesses(&mut limiter, address(1), Some(key)),
            10,
            "but even it cannot be guessed for ever"
        );
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let mut limiter = Limiter::new();
        let host =
            |network: u16, host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host));
        assert_eq!(guesses(&mut limiter, host(1, 1), None), 10);
        assert_eq!(guesses(&mut limiter, host(1, 2), None), 0);
        assert_eq!(guesses(&mut limiter, host(2, 1), None), 10);
        let mapped = |last: u16| IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a00, last));
        assert_eq!(guesses(&mut limiter, mapped(1), None), 10);
        assert_eq!(guesses(&mut limiter, address(1), None), 0, "the same machine");
        assert_eq!(guesses(&mut limiter, mapped(2), None), 10);
    }

    #[test]
    fn a_flood_is_forgotten_and_fills_no_memory() {
        let mut limiter = Limiter::new();
        for number in 0..100_000 {
            limiter.failed(address(number), Some(KeyId::random()), NOW);
        }
        let most = MOST.get();
        assert_eq!((limiter.sources.len(), limiter.keys.len(), limiter.known.len()), (most, most, 0));
        assert_eq!(limiter.check(address(100_001), Some(KeyId::random()), NOW), Ok(()));
    }
}
