//! Numbers for sessions.
//!
//! A client keeps the number that it was given last. Over MQTT it subscribes to what is for its session only when that
//! number changes (reference: kortex.md, 1.3), so a number that it gets a second time leaves it deaf. Numbers are drawn at
//! random, so that this program begins elsewhere than the one before it, and none is given that was given lately or that
//! the client still has.

use std::collections::VecDeque;

use super::frame::SessionNumber;

/// How many numbers are remembered as given lately: a client that opens ten sessions a second needs seven minutes to see one
/// of them again, and seven of eight numbers stay free.
const LATELY: usize = 4096;

/// The numbers that were given lately.
#[derive(Debug, Default)]
pub struct Numbers {
    given: VecDeque<SessionNumber>,
    /// What a test wants to be drawn next.
    #[cfg(test)]
    promised: Option<SessionNumber>,
}

impl Numbers {
    /// Draws a number that no session has, that was not given lately, and that is not `held`, the one that the client
    /// says it has.
    ///
    /// # Errors
    ///
    /// When this computer has no random numbers.
    pub fn draw(
        &mut self,
        held: SessionNumber,
        is_taken: impl Fn(SessionNumber) -> bool,
    ) -> Result<SessionNumber, getrandom::Error> {
        #[cfg(test)]
        if let Some(promised) = self.promised.take() {
            return Ok(promised);
        }
        let [low, high, ..] = getrandom::u32()?.to_le_bytes();
        let number = self.first_free(u16::from_le_bytes([low, high]), held, is_taken);
        if self.given.len() >= LATELY {
            self.given.pop_front();
        }
        self.given.push_back(number);
        Ok(number)
    }

    /// Finds the first number from `start` on that may be given.
    fn first_free(
        &self,
        start: u16,
        held: SessionNumber,
        is_taken: impl Fn(SessionNumber) -> bool,
    ) -> SessionNumber {
        let is_free = |number: &SessionNumber| {
            *number != SessionNumber::default()
                && *number != held
                && !self.given.contains(number)
                && !is_taken(*number)
        };
        let all = (0..=u16::MAX).map(|step| SessionNumber(start.wrapping_add(step)));
        // Sessions and remembered numbers are a tenth of all, so that there is always one.
        all.into_iter().find(is_free).unwrap_or(SessionNumber(start))
    }

    /// Has that number drawn next.
    #[cfg(test)]
    pub const fn promise(&mut self, number: SessionNumber) {
        self.promised = Some(number);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{LATELY, Numbers, SessionNumber};

    const NONE: SessionNumber = SessionNumber(0);

    #[test]
    fn what_may_not_be_given_is_passed_over() {
        let mut numbers = Numbers::default();
        numbers.given.extend([SessionNumber(8), SessionNumber(10)]);
        let is_taken = |number| number == SessionNumber(9);
        assert_eq!(numbers.first_free(7, NONE, is_taken), SessionNumber(7));
        assert_eq!(numbers.first_free(8, NONE, is_taken), SessionNumber(11));
        assert_eq!(numbers.first_free(8, SessionNumber(11), is_taken), SessionNumber(12));
        assert_eq!(numbers.first_free(u16::MAX, SessionNumber(u16::MAX), is_taken), SessionNumber(1));
        assert_eq!(numbers.first_free(0, NONE, is_taken), SessionNumber(1), "0 is no session");
    }

    #[test]
    fn no_number_is_given_twice_within_what_is_remembered() {
        let mut numbers = Numbers::default();
        let given: HashSet<_> = (0..LATELY).map(|_| numbers.draw(NONE, |_| false).unwrap()).collect();
        assert_eq!(given.len(), LATELY);
        for _ in 0..LATELY {
            numbers.draw(NONE, |_| false).unwrap();
        }
        assert_eq!(numbers.given.len(), LATELY, "what is remembered is bounded");
    }

    /// Eight numbers in a row are the same by chance once in 2^128 times.
    #[test]
    fn two_programs_in_a_row_begin_with_different_numbers() {
        let [first, second] = [(); 2].map(|()| {
            let mut numbers = Numbers::default();
            [(); 8].map(|()| numbers.draw(NONE, |_| false).unwrap())
        });
        assert_ne!(first, second);
        assert_ne!(first, [1, 2, 3, 4, 5, 6, 7, 8].map(SessionNumber));
    }
}
