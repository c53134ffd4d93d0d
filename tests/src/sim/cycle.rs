//! Something that happens again and again: a cyclic message.

use std::time::Duration;

use super::Time;

/// Due every `period`; never, if the period is zero.
#[derive(Clone, Copy, Debug)]
pub struct Cycle {
    period: Duration,
    next: Time,
}

impl Cycle {
    /// First due one period after `now`.
    pub fn new(now: Time, period: Duration) -> Self {
        Self { period, next: now.saturating_add(period) }
    }

    /// Whether it is due at `now`; if so, it is not due again for one period. After a pause, the turns missed
    /// are skipped: a drive does not send them in one burst.
    pub fn due(&mut self, now: Time) -> bool {
        if self.period.is_zero() || now < self.next {
            return false;
        }
        self.next = self.next.saturating_add(self.period);
        if self.next <= now {
            self.next = now.saturating_add(self.period);
        }
        true
    }

    /// When it is due next.
    pub fn next(&self) -> Time {
        if self.period.is_zero() { Time::MAX } else { self.next }
    }

    /// How long one turn takes; zero is never.
    pub fn period(&self) -> Duration {
        self.period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_turns_are_skipped() {
        let ms = Time::from_millis;
        let mut cycle = Cycle::new(ms(0), ms(10));
        assert!(!cycle.due(ms(9)));
        assert!(cycle.due(ms(12)));
        assert!(!cycle.due(ms(19)));
        assert!(cycle.due(ms(20)));
        assert!(cycle.due(ms(95)));
        assert!(!cycle.due(ms(96)));
        assert!(cycle.due(ms(105)));
    }

    #[test]
    fn a_period_of_zero_is_never() {
        let mut cycle = Cycle::new(Time::ZERO, Duration::ZERO);
        assert!(!cycle.due(Time::from_secs(9)));
        assert_eq!(cycle.next(), Time::MAX);
    }
}
