//! The order of one session's datagrams.
//!
//! Datagrams overtake each other on the way and come twice, so the order in which they arrive says nothing. A client counts
//! its requests with 16 bits over all of its threads, from 1 on, and wraps from 0xFFFF to 0 (reference: kortex.md, 1.4).
//! What it sent last counts: a command that is older than the newest command or Stop that was seen moves nothing. A Stop
//! is never too old.

use super::frame::MessageNumber;

/// What a request does to the arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urge {
    /// It moves something, or takes back that something moves.
    Moves,
    /// It stops something.
    Stops,
    /// Neither.
    Neither,
}

/// A command that is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// The newest command or Stop itself, again.
    Repeated,
    /// One that was sent before it.
    Overtaken,
}

/// The numbers of a session's requests so far, unwrapped: they count on where the client's wrap.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    newest: u64,
    /// The newest command or Stop.
    decided: Option<u64>,
}

impl Sequence {
    /// Begins with the request that opened the session.
    #[must_use]
    pub const fn beginning(first: MessageNumber) -> Self {
        // One round ahead, so that a number that was sent before the first has a place, too.
        Self { newest: (1 << 16) + first.0 as u64, decided: None }
    }

    /// Takes a request in.
    ///
    /// # Errors
    ///
    /// When it moves something and was sent before the newest command or Stop.
    pub fn take(&mut self, number: MessageNumber, urge: Urge) -> Result<(), Late> {
        let place = self.place(number);
        match (urge, self.decided) {
            (Urge::Neither, _) => Ok(()),
            (Urge::Moves, Some(decided)) if place == decided => Err(Late::Repeated),
            (Urge::Moves, Some(decided)) if place < decided => Err(Late::Overtaken),
            (Urge::Moves | Urge::Stops, decided) => {
                self.decided = Some(decided.map_or(place, |decided| decided.max(place)));
                Ok(())
            }
        }
    }

    /// Unwraps a number to the place nearest to the newest one.
    fn place(&mut self, number: MessageNumber) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "the lowest 16 bits are what clients count")]
        let ahead = number.0.wrapping_sub(self.newest as u16).cast_signed();
        let place = self.newest.saturating_add_signed(ahead.into());
        self.newest = self.newest.max(place);
        place
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Late, MessageNumber, Sequence, Urge};

    fn taken(first: u16, requests: &[(u16, Urge)]) -> Vec<Result<(), Late>> {
        let mut sequence = Sequence::beginning(MessageNumber(first));
        requests.iter().map(|(number, urge)| sequence.take(MessageNumber(*number), *urge)).collect()
    }

    #[test]
    fn what_was_sent_last_counts_in_whatever_order_it_comes() {
        use Urge::{Moves, Neither, Stops};
        let ok = Ok(());
        let (repeated, overtaken) = (Err(Late::Repeated), Err(Late::Overtaken));
        for (requests, expected) in [
            (&[(2, Moves), (3, Stops)][..], [ok, ok]),
            (&[(3, Stops), (2, Moves)], [ok, overtaken]),
            (&[(3, Moves), (2, Moves)], [ok, overtaken]),
            (&[(3, Moves), (2, Stops)], [ok, ok]),
            (&[(2, Moves), (2, Moves)], [ok, repeated]),
            (&[(2, Stops), (2, Stops)], [ok, ok]),
            (&[(3, Neither), (2, Moves)], [ok, ok]),
            (&[(3, Neither), (3, Moves)], [ok, ok]),
            (&[(2, Stops), (3, Moves)], [ok, ok]),
        ] {
            for first in [1_u16, 0x7FFF, 0xFFFC, 0xFFFD, 0xFFFE] {
                let of = |number: u16| first.wrapping_add(number - 1);
                let requests: Vec<_> = requests.iter().map(|(number, urge)| (of(*number), *urge)).collect();
                assert_eq!(taken(first, &requests), expected, "{requests:?} after {first}");
            }
        }
    }

    /// A late Stop is carried out, and takes nothing back of what was sent after it.
    #[test]
    fn a_late_stop_does_not_let_older_commands_in() {
        use Urge::{Moves, Stops};
        let seen = taken(1, &[(5, Moves), (3, Stops), (4, Moves), (6, Moves)]);
        assert_eq!(seen, [Ok(()), Ok(()), Err(Late::Overtaken), Ok(())]);
    }

    #[test]
    fn numbers_from_before_the_session_are_older() {
        use Urge::{Moves, Stops};
        assert_eq!(taken(1, &[(2, Stops), (0xFFFF, Moves)]), [Ok(()), Err(Late::Overtaken)]);
        assert_eq!(taken(0, &[(1, Stops), (0xFFFF, Moves)]), [Ok(()), Err(Late::Overtaken)]);
    }

    proptest! {
        /// Fails if, of commands that come in any order, the one that was sent last is refused, or anything is taken
        /// after a later one: over several rounds of the numbers.
        #[test]
        fn only_what_is_newer_than_all_before_is_taken(
            first: u16,
            steps in proptest::collection::vec(0..3_000_u64, 1..60),
            swaps in proptest::collection::vec(any::<bool>(), 60),
        ) {
            let mut sent: Vec<u64> = Vec::new();
            let mut last = u64::from(first);
            for step in steps {
                last += step + 1;
                sent.push(last);
            }
            for (at, swap) in swaps.iter().enumerate() {
                if *swap && at + 1 < sent.len() {
                    sent.swap(at, at + 1);
                }
            }
            let mut sequence = Sequence::beginning(MessageNumber(first));
            let mut newest = 0;
            for number in sent {
                #[expect(clippy::cast_possible_truncation, reason = "as clients wrap them")]
                let taken = sequence.take(MessageNumber(number as u16), Urge::Moves);
                prop_assert_eq!(taken.is_ok(), number > newest);
                newest = newest.max(number);
            }
        }
    }
}
