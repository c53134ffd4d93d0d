//! Who has the arm: one session at a time, and for some time after its last command. (Gen3 User Guide, p. 127.)

use std::sync::{Mutex, PoisonError};

use shm_proto::Nanos;

use super::frame::SessionNumber;
use super::refusal::{Refusal, Sub};

/// How commands of several sessions get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arbitration {
    /// Who has the arm keeps it for the time of grace.
    SingleSource,
    /// Who commands last has it.
    Open,
}

/// Who has it.
#[derive(Debug)]
pub struct Control {
    /// Nanoseconds.
    grace: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    arbitration: Arbitration,
    holder: Option<Holder>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    session: SessionNumber,
    commanded: Nanos,
}

impl Control {
    /// Nobody has it yet. `grace`: how long it stays with a session that commands nothing, nanoseconds.
    #[must_use]
    pub const fn new(grace: u64) -> Self {
        Self { grace, state: Mutex::new(State { arbitration: Arbitration::SingleSource, holder: None }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session commands the arm.
    ///
    /// # Errors
    ///
    /// SESSION_NOT_IN_CONTROL while another one has it.
    pub fn take(&self, session: SessionNumber, now: Nanos) -> Result<(), Refusal> {
        let mut state = self.state();
        let other = state.holder.filter(|holder| holder.session != session);
        if let (Arbitration::SingleSource, Some(other)) = (state.arbitration, other)
            && now.since(other.commanded) < self.grace
        {
            let left = self.grace.saturating_sub(now.since(other.commanded)) / 1_000_000;
            let text =
                format!("session {} has the arm, for {left} ms more unless it commands again", other.session);
            return Err(Refusal::device(Sub::NotInControl, text));
        }
        state.holder = Some(Holder { session, commanded: now });
        Ok(())
    }

    /// A session does not need it any more.
    pub fn release(&self, session: SessionNumber) {
        let mut state = self.state();
        state.holder = state.holder.filter(|holder| holder.session != session);
    }

    /// Who has it.
    #[must_use]
    pub fn holder(&self, now: Nanos) -> Option<SessionNumber> {
        let holder = self.state().holder?;
        (now.since(holder.commanded) < self.grace).then_some(holder.session)
    }

    /// How commands of several sessions get on.
    #[must_use]
    pub fn arbitration(&self) -> Arbitration {
        self.state().arbitration
    }

    /// How they are to get on from now on.
    pub fn arbitrate(&self, arbitration: Arbitration) {
        self.state().arbitration = arbitration;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: u64 = 7_500_000_000;
    const ONE: SessionNumber = SessionNumber(1);
    const TWO: SessionNumber = SessionNumber(2);

    #[test]
    fn who_has_the_arm_keeps_it_until_it_is_silent_for_long() {
        let control = Control::new(GRACE);
        let at = |seconds: u64| Nanos(1_000_000_000 * seconds);
        assert_eq!(control.holder(at(1)), None);
        control.take(ONE, at(1)).unwrap();
        let refused = control.take(TWO, at(8)).unwrap_err();
        assert_eq!(refused.codes(), (3, 130));
        assert!(refused.message().error_sub_string.contains("session 1 has the arm, for 500 ms more"));
        control.take(ONE, at(8)).unwrap();
        assert!(control.take(TWO, at(15)).is_err());
        control.take(TWO, at(16)).unwrap();
        assert_eq!((control.holder(at(17)), control.holder(at(24))), (Some(TWO), None));
    }

    #[test]
    fn whose_session_ends_lets_go() {
        let control = Control::new(GRACE);
        control.take(ONE, Nanos(1)).unwrap();
        control.release(TWO);
        assert!(control.take(TWO, Nanos(2)).is_err());
        control.release(ONE);
        control.take(TWO, Nanos(2)).unwrap();
    }

    #[test]
    fn without_arbitration_the_last_command_counts() {
        let control = Control::new(GRACE);
        control.arbitrate(Arbitration::Open);
        control.take(ONE, Nanos(1)).unwrap();
        control.take(TWO, Nanos(2)).unwrap();
        assert_eq!(control.holder(Nanos(3)), Some(TWO));
    }
}
