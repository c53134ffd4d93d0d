//! Whether a session may move a motor: the supervisor's word, read from the verdict segment.

use std::sync::Arc;
use std::time::Duration;

use shm_proto::verdicts::{MotorState, MotorVerdict, SessionState};
use shm_proto::{MotorIndex, Nanos, Owner, TripId};
use tokio::time::{Instant, sleep};

use super::error::MotionError;
use crate::link::Attachment;
use crate::sessions::Hold;

/// How often the grant is looked for. The supervisor answers within its tick of some milliseconds; a
/// look costs nanoseconds.
const LOOK: Duration = Duration::from_millis(1);
/// How long the reason for a lost grant is waited for: at a trip the supervisor stops the motors first
/// and publishes the session's end after that.
const REASON: Duration = Duration::from_millis(20);

/// One session's claim to one motor.
#[derive(Clone)]
pub struct Permit {
    attachment: Arc<Attachment>,
    owner: Owner,
    motor: MotorIndex,
    name: String,
    patience: Duration,
    /// When the command was looked at: a trip since then ends it, whatever is granted later.
    judged: Nanos,
}

impl Permit {
    /// The claim of the session in `hold`. A supervisor that has been silent for `patience` is gone.
    pub fn new(hold: &Hold, motor: MotorIndex, name: &str, patience: Duration) -> Self {
        Self {
            attachment: Arc::clone(&hold.attachment),
            owner: hold.owner,
            motor,
            name: name.to_owned(),
            patience,
            judged: Nanos::now(),
        }
    }

    /// When the command that it belongs to was looked at.
    pub const fn judged(&self) -> Nanos {
        self.judged
    }

    /// The supervisor's verdict on the motor; `None` if it does not know it.
    pub fn verdict(&self) -> Option<MotorVerdict> {
        self.attachment.verdicts.motor(self.motor)
    }

    /// The trip that keeps everything stopped.
    pub fn latch(&self) -> TripId {
        self.attachment.verdicts.latch()
    }

    /// Says whether the motor was tripped since the command was looked at.
    fn tripped_since(&self) -> bool {
        self.verdict().is_some_and(|verdict| verdict.trip != TripId::NONE && verdict.first_stop > self.judged)
    }

    /// Whether supervisor and session live.
    ///
    /// # Errors
    ///
    /// When either does not.
    pub fn alive(&self) -> Result<(), MotionError> {
        alive(&self.attachment, self.owner, self.patience)
    }

    /// Whether the motor may be moved right now: to be asked before and after every frame. A grant that was given anew after
    /// a trip is a newer command's.
    pub fn holds(&self) -> bool {
        self.attachment.verdicts.granted(self.motor) == Some(self.owner)
            && self.alive().is_ok()
            && !self.tripped_since()
    }

    /// Takes the motor's owner word and waits for the supervisor's grant.
    ///
    /// # Errors
    ///
    /// When the session or the supervisor ends, or the motor trips meanwhile, at once: a command that waited out a trip
    /// moves nothing. When the grant does not come within `timeout`, with what keeps it.
    pub async fn obtain(&self, timeout: Duration) -> Result<(), MotionError> {
        self.alive()?;
        self.attachment.beats.take_motor(self.motor, self.owner);
        let deadline = Instant::now() + timeout;
        loop {
            let holds = self.holds();
            self.alive()?;
            if self.tripped_since() {
                return Err(self.refusal(Duration::ZERO));
            }
            if holds {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.refusal(timeout));
            }
            sleep(LOOK).await;
        }
    }

    /// Why the grant is gone.
    pub async fn explain_loss(&self) -> MotionError {
        let deadline = Instant::now() + REASON;
        loop {
            if let Err(error) = self.alive() {
                return error;
            }
            if Instant::now() >= deadline {
                return self.lost();
            }
            sleep(LOOK).await;
        }
    }

    /// Why the grant is gone, as far as it is known right now.
    pub fn lost(&self) -> MotionError {
        self.refusal(Duration::ZERO)
    }

    fn refusal(&self, waited: Duration) -> MotionError {
        if let Err(error) = self.alive() {
            return error;
        }
        let verdicts = &self.attachment.verdicts;
        let facts = Facts { latch: verdicts.latch(), owner: self.owner, waited };
        let why = match verdicts.motor(self.motor) {
            Some(verdict) => facts.explain(&verdict),
            None => "the supervisor does not know this motor; restart supervisor and front, so that both \
                     read the same configuration"
                .to_owned(),
        };
        MotionError::NotGranted { motor: self.name.clone(), why }
    }
}

/// Whether the supervisor publishes and the session is not over. A session that the supervisor has not
/// seen yet is not over.
///
/// # Errors
///
/// When either is gone.
pub fn alive(attachment: &Attachment, owner: Owner, patience: Duration) -> Result<(), MotionError> {
    let (_, published) = attachment.verdicts.beat();
    if attachment.is_gone() || u128::from(Nanos::now().since(published)) > patience.as_nanos() {
        return Err(MotionError::SupervisorGone);
    }
    let (incarnation, state) = attachment.verdicts.session_state(owner.slot);
    let over =
        incarnation > owner.incarnation || (incarnation == owner.incarnation && state != SessionState::Live);
    if over { Err(MotionError::SessionExpired) } else { Ok(()) }
}

/// What an explanation is made from, besides the motor's own verdict.
#[derive(Clone, Copy, Debug)]
struct Facts {
    latch: TripId,
    owner: Owner,
    waited: Duration,
}

impl Facts {
    fn explain(&self, verdict: &MotorVerdict) -> String {
        let cause = cause(verdict);
        let latched = (verdict.latched != 0).then_some(verdict.trip);
        let latch = Some(self.latch).filter(|latch| *latch != TripId::NONE).or(latched);
        let then = latch.map_or_else(
            || "give the command again once it is proven to stand still".to_owned(),
            |trip| format!("run `lanyard reset {trip}` when it may move again"),
        );
        match verdict.state {
            MotorState::Stopping => {
                format!("it is being stopped{cause}, stage {}; {then}", verdict.stage + 1)
            }
            MotorState::Unverified => format!(
                "it is not proven to stand still since it was stopped{cause}; look at the motor and at its \
                 drive's feedback; {then}"
            ),
            MotorState::Stopped if latched.is_some() => format!("it was stopped{cause}; {then}"),
            _ if self.latch != TripId::NONE => {
                format!("trip {} keeps everything stopped; {then}", self.latch)
            }
            MotorState::Granted if verdict.grant.is_some_and(|grant| grant != self.owner) => {
                "another session took it at the same moment; give the command again".to_owned()
            }
            _ if self.waited.is_zero() => {
                "the supervisor has taken the grant back; give the command again".to_owned()
            }
            _ => format!(
                "the supervisor has not granted it within {} ms; see `lanyard status`",
                self.waited.as_millis()
            ),
        }
    }
}

/// " by trip 7 (session expired)", as far as known.
fn cause(verdict: &MotorVerdict) -> String {
    let reason = verdict.reason.map_or("unknown reason", |reason| reason.name());
    if verdict.trip == TripId::NONE { String::new() } else { format!(" by trip {} ({reason})", verdict.trip) }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Facts, MotorState, Owner, TripId};
    use crate::motion::tests::nothing_known;
    use shm_proto::verdicts::Reason;
    use shm_proto::{Incarnation, SlotIndex};

    fn explain(state: MotorState, trip: u64, latched: u64, latch: u64) -> String {
        let mut verdict = nothing_known();
        verdict.state = state;
        verdict.stage = 1;
        verdict.trip = TripId(trip);
        verdict.reason = Some(Reason::Expired);
        verdict.latched = latched;
        let owner = Owner { slot: SlotIndex(0), incarnation: Incarnation::new(1) };
        Facts { latch: TripId(latch), owner, waited: Duration::from_millis(500) }.explain(&verdict)
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        use MotorState::{Granted, Idle, Stopped, Stopping, Unverified};
        for (state, trip, latched, latch, expected) in [
            (
                Stopping,
                7,
                1,
                0,
                "it is being stopped by trip 7 (session expired), stage 2; run `lanyard reset 7` when it may \
                 move again",
            ),
            (
                Stopping,
                7,
                0,
                0,
                "it is being stopped by trip 7 (session expired), stage 2; give the command again once it is \
                 proven to stand still",
            ),
            (
                Stopped,
                7,
                1,
                0,
                "it was stopped by trip 7 (session expired); run `lanyard reset 7` when it may move again",
            ),
            (
                Unverified,
                7,
                1,
                0,
                "it is not proven to stand still since it was stopped by trip 7 (session expired); look at \
                 the motor and at its drive's feedback; run `lanyard reset 7` when it may move again",
            ),
            (Idle, 0, 0, 9, "trip 9 keeps everything stopped; run `lanyard reset 9` when it may move again"),
            (Stopped, 7, 0, 0, "the supervisor has not granted it within 500 ms; see `lanyard status`"),
            (Granted, 0, 0, 0, "the supervisor has not granted it within 500 ms; see `lanyard status`"),
        ] {
            assert_eq!(explain(state, trip, latched, latch), expected);
        }
    }
}
