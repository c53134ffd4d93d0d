//! Grants: a motor follows the live session that used it last, once it may.

use shm_proto::verdicts::{Phase, Reason};
use shm_proto::{Nanos, Owner};

use super::motor::{Run, State};
use super::wire::Wire;
use super::{Core, motor_index};

/// What is known of a session that the front wants to give a motor to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// This one lives.
    Live(Owner),
    /// It does not, or nothing was wished.
    Over,
    /// Too many sessions have changed in this tick to look at this one, too.
    NotLookedAt,
}

impl Core {
    /// Compares what the front wishes (owner words) with what holds (grants), motor by motor.
    pub(super) fn settle_grants(&mut self, now: Nanos, wire: &mut dyn Wire) {
        if self.front.is_none() {
            return;
        }
        self.read_wishes();
        for index in 0..self.motors.len() {
            self.look_at_wish(index, now, wire);
        }
        // Anew: to look at a session may have ended another one, whose motors went elsewhere.
        self.read_wishes();
        for index in 0..self.motors.len() {
            self.settle_grant(index, now, wire);
        }
    }

    /// Looks at a session that is to have a motor, if it may have opened just now. Beyond the looks of a tick none is, until the
    /// next.
    fn look_at_wish(&mut self, index: usize, now: Nanos, wire: &mut dyn Wire) {
        self.looked_at[index] = None;
        let Some(owner) = self.wishes[index] else { return };
        if self.motors[index].owner() == Some(owner) || !self.sessions.may_be_new(owner) || self.looks == 0 {
            return;
        }
        self.looks -= 1;
        self.welcome(owner.slot, now, wire);
        self.looked_at[index] = Some(owner);
    }

    /// Reads every owner word, for decisions that have to go by the same words: the front may write one at any time, and motors
    /// of one frame would follow two sessions.
    fn read_wishes(&mut self) {
        for index in 0..self.wishes.len() {
            self.wishes[index] = self.wish(index);
        }
    }

    /// The session that the front wants to give a motor to, by its owner word as it is now.
    fn wish(&self, index: usize) -> Option<Owner> {
        Owner::from_word(self.front.as_ref()?.view.owner_word(motor_index(index)))
    }

    fn settle_grant(&mut self, index: usize, now: Nanos, wire: &mut dyn Wire) {
        let held = self.motors[index].owner();
        let wished = self.wishes[index];
        if wished.is_some() && wished == held {
            return;
        }
        let standing = wished.map_or(Standing::Over, |owner| self.standing(index, owner, now));
        match (standing, held) {
            // It has been silent for longer than the motor allows. The session that has the motor commands it no more.
            (Standing::Live(owner), Some(_)) if !self.may_have(owner, index, now) => {
                self.stop_motor(index, Reason::Overdue, now, wire);
            }
            (Standing::Live(owner), _) if self.mates_agree(index, owner) => self.grant(index, owner, now),
            // Another session drives motors that one frame commands together with this one.
            (Standing::Live(_), _) => {}
            // Whatever holds the motor goes on holding it until that session was looked at.
            (Standing::NotLookedAt, _) => {}
            // The word no longer names the session that holds the motor, nor any other that lives:
            // nobody answers for this motor.
            (Standing::Over, Some(_)) => {
                self.tally.bad_owners += 1;
                self.stop_motor(index, Reason::Corrupt, now, wire);
            }
            (Standing::Over, None) => {}
        }
    }

    /// What is known of a session that is to have a motor, which may have changed since the look at what it was.
    fn standing(&self, index: usize, owner: Owner, now: Nanos) -> Standing {
        if self.sessions.may_be_new(owner) && self.looked_at[index] != Some(owner) {
            Standing::NotLookedAt
        } else if self.may_drive(owner, now) {
            Standing::Live(owner)
        } else {
            Standing::Over
        }
    }

    /// Whether a session lives, and the front speaks that answers for it: a front that is silent has stopped looking at its
    /// clients, whatever its sessions' beats say.
    fn may_drive(&self, owner: Owner, now: Nanos) -> bool {
        let is_due_later = |slot| self.sessions.deadline(slot) > now;
        let front = self.sessions.front_slot();
        let front_is_watched = self.sessions.deadline(front) != Nanos::NEVER;
        self.sessions.live(owner).is_some()
            && is_due_later(owner.slot)
            && front_is_watched
            && is_due_later(front)
    }

    /// Whether nobody else drives, or is being stopped in, the frame that commands this motor: its other motors
    /// are at rest, or follow the same session, or are about to.
    fn mates_agree(&self, index: usize, owner: Owner) -> bool {
        (0..self.motors.len()).filter(|mate| self.are_mates(index, *mate)).all(|mate| {
            match self.motors[mate].owner() {
                Some(other) => other == owner || self.wishes[mate] == Some(owner),
                None => self.motors[mate].is_at_rest(),
            }
        })
    }

    /// Whether a session was heard within what the motor allows.
    fn may_have(&self, owner: Owner, index: usize, now: Nanos) -> bool {
        self.sessions.has_beaten_within(owner.slot, self.motors[index].max_window, now)
    }

    fn grant(&mut self, index: usize, owner: Owner, now: Nanos) {
        // One that was silent for longer than the motor allows would be stopped at once.
        if !self.may_have(owner, index, now) {
            return;
        }
        let window = self.motors[index].max_window;
        let may_begin = self.phase == Phase::Armed && !self.lacks_sign_of_life(index);
        let motor = &mut self.motors[index];
        let run = match motor.state {
            // The session that used it last takes it over as it runs.
            State::Granted { run, .. } => run,
            _ if may_begin && motor.may_be_granted(now) => Run::NotSeen,
            _ => return,
        };
        motor.follow(owner, run);
        self.sessions.limit(owner.slot, window);
        self.publish_session(owner.slot);
        self.verdicts.grant(motor_index(index), Some(owner));
        self.publish_motor(index);
    }

    /// Before a session's motors are stopped: those that another live session has taken meanwhile go
    /// to that session instead. Those that one frame commands go to one session, or are stopped.
    pub(super) fn hand_over_taken(&mut self, loser: Owner, now: Nanos) {
        // Most sessions that end have no motor, or leave it to nobody. The stop waits for this look, so it is a short one.
        let names_another = |index: usize| self.wish(index) != Some(loser);
        let is_taken = |index: usize| self.motors[index].owner() == Some(loser) && names_another(index);
        if !(0..self.motors.len()).any(is_taken) {
            return;
        }
        self.read_wishes();
        for index in 0..self.motors.len() {
            if self.motors[index].owner() != Some(loser) {
                continue;
            }
            let taker = self.wishes[index]
                .filter(|owner| *owner != loser)
                .filter(|owner| self.may_drive(*owner, now) && self.mates_agree(index, *owner));
            if let Some(taker) = taker {
                self.grant(index, taker, now);
            }
        }
    }
}
