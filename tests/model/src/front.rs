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
}

impl Front {
    /// A process that has just started.
    pub const STARTED: Self = Self { alive: true, actor: Actor::Idle, engaged: false, late: 0 };

    /// `Permit::holds`.
    #[must_use]
    pub fn holds(core: &Core, owner: Owner) -> bool {
        core.motor.owner() == Some(owner) && Self::session_alive(core, owner)
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
        if Self::holds(core, owner) {
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
                self.late = if Self::holds(core, owner) { 0 } else { (self.late + 1).min(2) };
                Actor::Sent(owner)
            }
            Sent::QueueFull => Actor::Sent(owner),
            Sent::Down => Actor::Stopping,
        };
    }

    /// The second look of `send_permitted`.
    pub fn look_again(&mut self, core: &Core, owner: Owner) {
        self.actor = if Self::holds(core, owner) { Actor::Driving(owner) } else { Actor::Stopping };
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
        *self = Self { alive: false, actor: Actor::Idle, engaged: false, late: 0 };
    }
}
