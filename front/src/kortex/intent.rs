//! Whether a session whose motors were stopped means to move them again.
//!
//! A command that was sent before its client knew of the stop looks like any other when it arrives. So a session that was
//! stopped drives again only after a Stop or ClearFaults of its own that arrived after the stop, and with a command that
//! arrived when its client had time to read the answer to that. After a fault of a drive only ClearFaults counts, as with
//! Kinova's own arms.

use shm_proto::Nanos;

use super::intake::Heard;
use super::refusal::{Refusal, Sub};
use crate::order::Arrival;

/// What stopped a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A drive reported a fault.
    DriveFault,
    /// Anything else.
    Other,
}

/// The call by which a client shows that it has noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Base.Stop.
    Stop,
    /// Base.ClearFaults.
    ClearFaults,
}

/// What stopped a session, and what its client has done about it.
#[derive(Clone, Debug)]
struct Stopped {
    /// When it was noticed here.
    noticed: Arrival,
    kind: Kind,
    why: String,
    /// When the first call was answered that shows that the client has noticed, too.
    answered: Option<Nanos>,
}

/// Whether a session may drive.
#[derive(Clone, Debug, Default)]
pub struct Intent(Option<Stopped>);

impl Intent {
    /// Notes that what the session drives was stopped; `noticed` is the arrival by which it was seen.
    pub fn stopped(&mut self, noticed: Arrival, kind: Kind, why: String) {
        self.0 = Some(Stopped { noticed, kind, why, answered: None });
    }

    /// Notes that a call of the session was carried out and is answered now.
    pub fn answered(&mut self, call: Heard, notice: Notice, now: Nanos) {
        let Some(stopped) = &mut self.0 else { return };
        let counts = match (stopped.kind, notice) {
            (Kind::DriveFault, Notice::Stop) => false,
            (Kind::DriveFault, Notice::ClearFaults) | (Kind::Other, _) => true,
        };
        if counts && !call.complete.is_before(stopped.noticed) {
            stopped.answered.get_or_insert(now);
        }
    }

    /// Notes that the session drives again, which [`Self::may_drive`] has allowed.
    pub fn drives(&mut self) {
        self.0 = None;
    }

    /// Says whether a command that arrived then may move anything. `hold`: how long after an answer a command cannot yet be
    /// meant as one that follows it, in nanoseconds.
    ///
    /// # Errors
    ///
    /// INVALID_USER_SESSION_ACCESS, or ROBOT_IN_FAULT after a fault of a drive, with what to do.
    pub fn may_drive(&self, command: Heard, hold: u64) -> Result<(), Refusal> {
        let Some(Stopped { kind, why, answered, .. }) = &self.0 else { return Ok(()) };
        let (sub, call) = match kind {
            Kind::DriveFault => (Sub::RobotInFault, "ClearFaults"),
            Kind::Other => (Sub::SessionAccess, "ClearFaults or Stop"),
        };
        let Some(answered) = *answered else {
            let text =
                format!("the motors of this session were stopped ({why}); call {call}, then command again");
            return Err(Refusal::device(sub, text));
        };
        let ready = answered.after(hold);
        if command.began.at() >= ready {
            return Ok(());
        }
        let left = ready.since(command.began.at()).div_ceil(1_000_000);
        let text = format!(
            "the motors of this session were stopped ({why}), and this command came before the answer to {call} can have \
             been read; command again in {left} ms"
        );
        Err(Refusal::device(sub, text))
    }

    /// Says whether a fault of a drive has stopped the session that its client has not cleared.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        self.0.as_ref().is_some_and(|stopped| stopped.kind == Kind::DriveFault && stopped.answered.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Heard, Intent, Kind, Nanos, Notice};

    const MS: u64 = 1_000_000;
    const HOLD: u64 = 250 * MS;

    fn at(millis: u64) -> Arrival {
        Arrival::of(millis, Nanos(millis * MS))
    }

    fn heard(millis: u64) -> Heard {
        Heard { began: at(millis), complete: at(millis) }
    }

    fn stopped(kind: Kind) -> Intent {
        let mut intent = Intent::default();
        intent.stopped(at(1_000), kind, "it was silent".to_owned());
        intent
    }

    fn told(intent: &Intent, millis: u64) -> ((u8, u16), String) {
        let refusal = intent.may_drive(heard(millis), HOLD).unwrap_err();
        (refusal.codes(), refusal.message().error_sub_string)
    }

    #[test]
    fn who_was_never_stopped_needs_nothing() {
        let mut intent = Intent::default();
        assert!(intent.may_drive(heard(1), HOLD).is_ok());
        intent.answered(heard(2), Notice::Stop, Nanos(3));
        assert!(intent.may_drive(heard(4), HOLD).is_ok(), "right after a Stop, too");
    }

    #[test]
    fn who_was_stopped_has_to_say_that_it_has_noticed() {
        for notice in [Notice::Stop, Notice::ClearFaults] {
            let mut intent = stopped(Kind::Other);
            let text = "the motors of this session were stopped (it was silent); call ClearFaults or Stop, then command \
                        again";
            assert_eq!(told(&intent, 99_000), ((3, 54), text.to_owned()));
            intent.answered(heard(999), notice, Nanos(1_001 * MS));
            assert_eq!(told(&intent, 99_000).1, text, "it came before the stop");
            intent.answered(heard(2_000), notice, Nanos(2_010 * MS));
            let (codes, text) = told(&intent, 2_100);
            assert_eq!(codes, (3, 54));
            assert!(text.contains("command again in 160 ms"), "{text}");
            intent.answered(heard(2_200), notice, Nanos(2_210 * MS));
            assert!(intent.may_drive(heard(2_260), HOLD).is_ok(), "the first answer counts");
            intent.drives();
            assert!(intent.may_drive(heard(2_261), HOLD).is_ok());
        }
    }

    /// Its first bytes waited out the stop, and its last ones came after the answer.
    #[test]
    fn a_command_counts_from_its_first_bytes_and_a_stop_from_its_last() {
        let mut intent = stopped(Kind::Other);
        let long = Heard { began: at(900), complete: at(3_000) };
        intent.answered(long, Notice::Stop, Nanos(3_000 * MS));
        assert!(intent.may_drive(Heard { began: at(3_249), complete: at(9_000) }, HOLD).is_err());
        assert!(intent.may_drive(heard(3_250), HOLD).is_ok());
    }

    #[test]
    fn a_fault_of_a_drive_takes_clear_faults() {
        let mut intent = stopped(Kind::DriveFault);
        assert!(intent.has_fault());
        intent.answered(heard(2_000), Notice::Stop, Nanos(2_000 * MS));
        let (codes, text) = told(&intent, 99_000);
        assert_eq!(codes, (3, 22));
        assert!(text.contains("call ClearFaults, then command again"), "{text}");
        intent.answered(heard(3_000), Notice::ClearFaults, Nanos(3_000 * MS));
        assert!(!intent.has_fault() && intent.may_drive(heard(3_250), HOLD).is_ok());
        assert_eq!(told(&intent, 3_100).0, (3, 22));
    }

    #[test]
    fn another_stop_begins_anew() {
        let mut intent = stopped(Kind::Other);
        intent.answered(heard(2_000), Notice::Stop, Nanos(2_000 * MS));
        intent.stopped(at(4_000), Kind::Other, "again".to_owned());
        assert!(intent.may_drive(heard(9_000), HOLD).is_err());
    }
}
