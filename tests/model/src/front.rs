//! The front: the one task that moves the motor (`front/src/motion/actor.rs`) and its permit
//! (`front/src/motion/grant.rs`), cut wherever anything else may happen in between.
//!
//! Left out is what only adds stops (the repetitions of `repeat_stop`) or only delays motion (enabling,
//! groups): enabling frames pass `send_permitted` like every other motion frame.

use shm_proto::verdicts::SessionState;

use crate::shared::{Beats, Owner};
use crate::supervisor::Core;
use crate::wire::{FrontFrame, Sent, Wire};

/// Where the motor's task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// Nothing on the desk.
    Idle,
    /// `Permit::obtain` has found the session alive and takes the owner word next.
    Taking(Owner),
    /// `Permit::obtain` waits for the grant.
    Obtaining(Owner),
    /// `send_permitted` has seen the grant and hands the frame over next.
    Permitted(Owner),
    /// `send_permitted` has handed it over and looks at the grant again next.
    Sent(Owner),
    /// Waits for the next refresh.
    Driving(Owner),
    /// `send_stop`, again and again until it gets out.
    Stopping,
}

/// What the front sees of the supervisor's loop in the segment that it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Beat {
    /// It has come round within `kernel_stop`.
    Young,
    /// It has not: nothing is moved.
    Old,
}

/// The session that a task goes on for whose supervisor has died: what it was granted is in that one's segment.
pub const FORMER: Owner = Owner { slot: 0, incarnation: 0 };

/// The same of a session that had no grant there.
pub const FORMER_WITHOUT_GRANT: Owner = Owner { slot: 1, incarnation: 0 };

/// The front process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Front {
    /// Whether the process lives.
    pub alive: bool,
    /// The motor's task.
    pub actor: Actor,
    /// `Actor::engaged`: motion went out, and no stop since.
    pub engaged: bool,
    /// Motion frames handed over when the grant was gone already, and neither a stop nor a grant since.
    /// No part of the code: it is what the check after sending is for.
    pub late: u8,
    /// The loop of the supervisor that it is attached to.
    pub beat: Beat,
    /// That of the supervisor before, which has died.
    pub former: Beat,
}

impl Front {
    /// A process that has just started, and is attached.
    pub const STARTED: Self = Self {
        alive: true,
        actor: Actor::Idle,
        engaged: false,
        late: 0,
        beat: Beat::Young,
        former: Beat::Old,
    };

    /// `Permit::holds`.
    #[must_use]
    pub fn holds(&self, core: &Core, owner: Owner) -> bool {
        if owner == FORMER {
            return self.former == Beat::Young;
        }
        let lives = Self::session_alive(core, owner) && self.beat == Beat::Young;
        core.motor.owner() == Some(owner) && lives
    }

    /// Whether the grant is there, however long ago the supervisor said so.
    fn is_granted(&self, core: &Core, owner: Owner) -> bool {
        Self { beat: Beat::Young, ..*self }.holds(core, owner)
    }

    /// Whether a wait for the grant ends without it: `grant::alive`.
    #[must_use]
    pub fn waits_in_vain(&self, core: &Core, owner: Owner) -> bool {
        !Self::session_alive(core, owner) || self.beat == Beat::Old
    }

    /// Another supervisor has started in the place of the one that granted.
    pub fn outlive_supervisor(&mut self, core: &Core) {
        let held = |owner: Owner| self.holds(core, owner);
        self.actor = match self.actor {
            Actor::Driving(owner) if held(owner) => Actor::Driving(FORMER),
            Actor::Permitted(owner) if held(owner) => Actor::Permitted(FORMER),
            Actor::Permitted(_) => Actor::Permitted(FORMER_WITHOUT_GRANT),
            Actor::Sent(owner) if held(owner) => Actor::Sent(FORMER),
            Actor::Sent(_) => Actor::Sent(FORMER_WITHOUT_GRANT),
            Actor::Taking(_) | Actor::Obtaining(_) | Actor::Driving(_) if self.engaged => Actor::Stopping,
            Actor::Taking(_) | Actor::Obtaining(_) | Actor::Driving(_) | Actor::Idle => Actor::Idle,
            Actor::Stopping => Actor::Stopping,
        };
        (self.former, self.beat) = (self.beat, Beat::Old);
    }

    /// `grant::alive`: a session the supervisor has not seen yet is not over.
    #[must_use]
    pub fn session_alive(core: &Core, owner: Owner) -> bool {
        let session = core.sessions[usize::from(owner.slot)];
        let over = session.incarnation > owner.incarnation
            || (session.incarnation == owner.incarnation && session.state != SessionState::Live);
        !over
    }

    /// A command lies on the desk: whatever the task was waiting for ends. `engaged` stays, so a motor
    /// that was set moving is stopped or taken over, never forgotten.
    pub const fn command(&mut self, owner: Owner) {
        self.actor = Actor::Taking(owner);
    }

    /// `take_motor`.
    pub const fn take(&mut self, beats: &mut Beats, owner: Owner) {
        beats.owner_word = Some(owner);
        self.actor = Actor::Obtaining(owner);
    }

    /// The first look of `send_permitted`.
    pub fn look(&mut self, core: &Core, owner: Owner) {
        if self.holds(core, owner) {
            // From here on the motor is this session's to move; its set-point goes behind a late frame.
            self.late = 0;
            self.actor = Actor::Permitted(owner);
        } else {
            self.conclude();
        }
    }

    /// The frame is handed over.
    pub fn send(&mut self, core: &Core, wire: &mut Wire, owner: Owner) {
        self.engaged = true;
        self.actor = match wire.send_of_front(FrontFrame::Motion) {
            Sent::Ok => {
                // Two are one more than ever happens.
                self.late = if self.is_granted(core, owner) { 0 } else { (self.late + 1).min(2) };
                Actor::Sent(owner)
            }
            Sent::QueueFull => Actor::Sent(owner),
            Sent::Down => Actor::Stopping,
        };
    }

    /// The second look of `send_permitted`.
    pub fn look_again(&mut self, core: &Core, owner: Owner) {
        self.actor = if self.holds(core, owner) { Actor::Driving(owner) } else { Actor::Stopping };
    }

    /// `Actor::conclude`: the command ends other than by a newer one.
    pub const fn conclude(&mut self) {
        self.actor = if self.engaged { Actor::Stopping } else { Actor::Idle };
    }

    /// `send_stop`.
    pub fn send_stop(&mut self, wire: &mut Wire) {
        if wire.send_of_front(FrontFrame::Stop) == Sent::Ok {
            self.engaged = false;
            self.late = 0;
            self.actor = Actor::Idle;
        }
    }

    /// `STOP_FOR` is over and no stop got out: the answer is an error, the rest is the supervisor's.
    pub const fn give_up(&mut self) {
        self.late = 0;
        self.actor = Actor::Idle;
    }

    /// SIGKILL. What was handed to the kernel stays there.
    pub const fn die(&mut self) {
        *self = Self { alive: false, actor: Actor::Idle, engaged: false, late: 0, ..*self };
    }
}
