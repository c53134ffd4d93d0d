//! What must hold in every state and every step, and what must be reached somewhere.
//!
//! A reachable state is a counterexample when an `always` property fails in it. A rule about a *step* is
//! judged where the step is made ([`broken`]) and kept in the state, so that the explorer finds it too.
//! What must be reached is there so that an exploration of nothing is noticed.
//!
//! **Motion and grants.** "No motion frame without a grant" cannot hold on the wire: a frame may be under
//! way when the grant is revoked. What holds, and is checked, is:
//!
//! 1. the front hands over at most one motion frame after its grant is gone, and is then bound to hand
//!    over a stop behind it on the same socket, unless the bus refuses it for half a second or the process
//!    is killed ([`front_makes_up`]);
//! 2. whatever front and bus do: when a motor that is nobody's follows a motion frame, a stop is behind it,
//!    or the supervisor has not read that frame yet and will answer it, or it is repeating the stop
//!    ([`motion_is_answered`]).
//!
//! **Ends of stops.** There is no fairness to assume. A tick is possible in every state (as soon as the
//! frames of the step before are handed over); every tick takes a stop that is neither proven nor reported
//! a tick nearer to its end, and nothing but a new stop takes it back ([`Broken::NoProgress`]). A bus that came back begins
//! it again, three times at most. So it is over [`MOST_TICKS`] after its trip, whatever the bus does. A supervisor
//! that hangs or is dead has no ticks; then the kernel's time counts ([`the_kernel_steps_in`]).
//!
//! **Stops of the kernel.** It sends them to motors that a session drives, and drives obey. A supervisor that goes on after
//! them may publish its pass, and so let the front go on, before it comes to the jobs and finds them sent. So "nothing moves
//! again without a trip" holds from the end of that pass on ([`a_kernel_stop_is_a_trip`]).

use drivers::AfterStop;
use shm_proto::verdicts::{Reason, ResetPolicy, SessionState};
use stateright::Property;

use crate::drive::{Drive, STAGES};
use crate::front::{Actor, FORMER};
use crate::process::{Fifo, Interference, KERNEL_STOP, Pressed, Process};
use crate::shared::Owner;
use crate::supervisor::{
    Before, Bus, Core, Held, Latch, MOST_RESTARTS, Motor, NO_TRIP, Occasion, Run, STAGE_TIMEOUT, State,
    TripSeen,
};
use crate::wire::FrontFrame;
use crate::{Action, Mover, Reset, Scope, System, is_over};

/// A rule about steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A reset changed something that its trip did not hold.
    ResetOfAnother,
    /// A reset was accepted for a motor that is not proven to stand still.
    ResetWhileMoving,
    /// A reset cleared a violation that the operator had not seen.
    ResetOfUnseenViolation,
    /// A held motor was let go by something else than a reset.
    LatchLost,
    /// A session that was over lives again.
    Revived,
    /// The end of one session stopped a motor that a live one had taken.
    TakenMotorStopped,
    /// A motor that may be granted was not granted to the live session that wants it.
    NotGranted,
    /// A motor was granted whose drive had been silent for too long.
    GrantedUnheard,
    /// A stop did not get on with its programme.
    NoProgress,
    /// A motor lost its grant, and no stop was sent.
    RevokedWithoutStop,
    /// A motor that is nobody's was heard turning, and was left alone.
    TurnsUnattended,
    /// A harder stage was decided on, and a gentler one was sent over a bus that was there.
    GentlerThanSaid,
    /// A motor was granted though stop was pressed before the pass began.
    GrantedThoughPressed,
    /// A reset cleared a press that came after the operator had read the number it names.
    ResetOfUnseenPress,
    /// Something was made of what a program of this computer said in the drive's name.
    ForgedReportCounted,
    /// A session ended without a trip, and its motor was not proven to be at rest since the last motion frame.
    EndedInMotion,
}

/// Whether a session lives, in the words of this file: a rule must not be judged by the function that it
/// is about.
fn lives(core: &Core, owner: Owner) -> bool {
    let session = core.sessions[usize::from(owner.slot)];
    session.incarnation == owner.incarnation && session.state == SessionState::Live
}

/// The rule that the step has broken, if any.
#[must_use]
pub fn broken(before: &System, action: Action, accepted: bool, after: &System) -> Option<Broken> {
    let (old, new) = (&before.core, &after.core);
    if accepted {
        let TripSeen { trip, violations } = before.operator.noted;
        let held = old.motor.trip == trip && old.motor.latch == Latch::Held;
        if (!held && old.motor != new.motor) || (old.latch != trip && old.latch != new.latch) {
            return Some(Broken::ResetOfAnother);
        }
        if held && old.motor.violations != violations {
            return Some(Broken::ResetOfUnseenViolation);
        }
        if before.pressed == Pressed::Heard && old.latch == trip {
            return Some(Broken::ResetOfUnseenPress);
        }
        let is_heard = before.witness.has_heard_lately();
        if held && !(old.motor.is_at_rest() && is_heard) {
            return Some(Broken::ResetWhileMoving);
        }
    } else if old.motor.latch == Latch::Held && new.motor.latch == Latch::Open {
        return Some(Broken::LatchLost);
    }
    for (was, is) in old.sessions.iter().zip(&new.sessions) {
        let same = was.incarnation == is.incarnation;
        if same && is_over(was.state) && is.state == SessionState::Live {
            return Some(Broken::Revived);
        }
    }
    if let Action::Expire(due) = action
        && let (Some(loser), Some(taker)) = (old.motor.owner(), before.beats.owner_word)
        && due[usize::from(loser.slot)]
        && !due[usize::from(taker.slot)]
        && loser != taker
        && lives(old, taker)
        && new.motor.owner() != Some(taker)
    {
        return Some(Broken::TakenMotorStopped);
    }
    if action == Action::Tick
        && let Some(wished) = after.beats.owner_word
        && new.front_watched
        && lives(new, wished)
        && new.motor.may_be_granted()
    {
        return Some(Broken::NotGranted);
    }
    if !what_turns_is_granted_or_stopped(before, action, after) {
        return Some(Broken::TurnsUnattended);
    }
    if new.bus != Bus::Gone && new.outbox.is_some_and(|stage| stage != new.motor.stage_in_force()) {
        return Some(Broken::GentlerThanSaid);
    }
    if !progresses(before, action, after) {
        return Some(Broken::NoProgress);
    }
    if old.motor.owner().is_some() && new.motor.owner().is_none() && new.outbox != Some(0) {
        return Some(Broken::RevokedWithoutStop);
    }
    let is_granted_anew = old.motor.owner().is_none() && new.motor.owner().is_some();
    if is_granted_anew && !before.witness.after(before, action).has_heard_lately() {
        return Some(Broken::GrantedUnheard);
    }
    if is_granted_anew && before.pressed == Pressed::Before {
        return Some(Broken::GrantedThoughPressed);
    }
    if matches!(action, Action::Forge(_)) && old != new {
        return Some(Broken::ForgedReportCounted);
    }
    let ended_at_rest = old.motor.owner().is_some() && new.motor.occasion == Occasion::EndAtRest;
    if ended_at_rest && !before.witness.after(before, action).has_seen_rest() {
        return Some(Broken::EndedInMotion);
    }
    None
}

/// What somebody beside the supervisor has seen who reads the same frames and knows nothing of its rules: of a granted
/// motor, whether the drive has said, since the last motion frame and not too long ago, that it stands still; of another
/// one, when the drive was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Witness {
    /// It has not.
    Doubts,
    /// It has, so many ticks ago.
    HasSeenRest(u8),
    /// The drive of a motor that is nobody's was heard so many ticks ago.
    HasHeard(u8),
}

impl Witness {
    /// After that action in that state.
    #[must_use]
    pub fn after(self, before: &System, action: Action) -> Self {
        match (action, self) {
            (Action::Report, _) if before.core.motor.owner().is_none() => Self::HasHeard(0),
            (Action::Tick, Self::HasHeard(0)) if before.core.motor.is_at_rest() => Self::HasHeard(1),
            (action, heard) if before.core.motor.owner().is_none() => {
                if action == Action::Tick {
                    Self::Doubts
                } else {
                    heard
                }
            }
            (Action::Report, _) if matches!(before.drive, Drive::Off | Drive::Holding) => {
                Self::HasSeenRest(0)
            }
            (Action::Report | Action::Receive, _) => Self::Doubts,
            (Action::Tick, Self::HasSeenRest(0)) => Self::HasSeenRest(1),
            (Action::Tick, _) | (_, Self::HasHeard(_)) => Self::Doubts,
            (_, seen) => seen,
        }
    }

    const fn has_heard_lately(self) -> bool {
        matches!(self, Self::HasHeard(_))
    }

    const fn has_seen_rest(self) -> bool {
        matches!(self, Self::HasSeenRest(_))
    }
}

/// After a session has ended without a trip its motor turns by nothing but a frame that was under way, which the
/// supervisor has yet to read.
#[must_use]
pub fn an_end_at_rest_interrupts_nothing(system: &System) -> bool {
    system.core.motor.occasion == Occasion::Trip
        || system.drive != Drive::Turning
        || system.mover == Mover::Itself
        || system.wire.motion_unread
}

/// Rule 1 of this file.
#[must_use]
pub fn front_makes_up(system: &System) -> bool {
    match system.front.actor {
        Actor::Sent(_) | Actor::Stopping => system.front.late <= 1,
        // A newer command has come before the stop got out: the task still owes it.
        Actor::Taking(_) | Actor::Obtaining(_) | Actor::Permitted(_) => {
            system.front.late == 0 || (system.front.late == 1 && system.front.engaged)
        }
        Actor::Idle | Actor::Driving(_) => system.front.late == 0,
    }
}

/// Rule 2 of this file.
#[must_use]
pub fn motion_is_answered(system: &System) -> bool {
    let follows = system.drive == Drive::Turning && system.mover == Mover::Frame;
    let unwanted = follows && system.core.motor.owner().is_none();
    let stop_is_behind = system.core.outbox.is_some()
        || system.wire.supervisor.is_some()
        || system.wire.front.contains(FrontFrame::Stop);
    let guard_will_see = system.wire.motion_unread;
    let repeating = matches!(system.core.motor.state, State::Stopping { .. } | State::Unverified);
    // Of a supervisor that does nothing, what it has decided on is worth nothing; its jobs are armed or being sent.
    let absent = system.process.is_absent() && the_kernel_steps_in(system);
    !unwanted || stop_is_behind || guard_will_see || repeating || absent
}

/// The kernel sends its stops from `kernel_stop` after the last word of the supervisor on.
#[must_use]
pub fn the_kernel_steps_in(system: &System) -> bool {
    system.absent < KERNEL_STOP || system.job.sends().is_some()
}

/// Once a supervisor that was overtaken by the kernel has ended its pass, or another one has, what the kernel stopped is
/// nobody's.
#[must_use]
pub fn a_kernel_stop_is_a_trip(system: &System) -> bool {
    system.process != Process::Runs
        || system.interference == Interference::None
        || system.core.motor.owner().is_none()
}

/// What was pressed holds the motor until it is reset, over any death of the supervisor.
#[must_use]
pub fn a_press_holds(system: &System) -> bool {
    let motor = &system.core.motor;
    match system.pressed {
        Pressed::No | Pressed::Lately => true,
        // It lies in the FIFO, before everything else that the supervisor does.
        Pressed::Before => system.fifo == Fifo::Wakes,
        Pressed::Heard | Pressed::Read => motor.owner().is_none() && motor.latch == Latch::Held,
    }
}

/// The most ticks from one beginning of a stop to its end.
const TICKS_OF_A_RUN: u8 = STAGES * STAGE_TIMEOUT;
/// The most ticks from a trip to its end: it begins once, and again whenever the bus comes back, a few times.
pub const MOST_TICKS: u8 = (1 + MOST_RESTARTS) * TICKS_OF_A_RUN;

/// After how many ticks at the latest a stop is over; `None` when it is.
fn ticks_left(motor: &Motor) -> Option<u8> {
    match motor.state {
        State::Stopping { stage, since } => {
            let runs = (MOST_RESTARTS - motor.restarts) * TICKS_OF_A_RUN;
            Some(runs + (STAGES - stage) * STAGE_TIMEOUT - since)
        }
        State::Idle | State::Granted { .. } | State::Stopped { .. } | State::Unverified => None,
    }
}

/// Whether the step did what a step must do about a stop under way.
fn progresses(before: &System, action: Action, after: &System) -> bool {
    let (old, new) = (&before.core.motor, &after.core.motor);
    let (Some(was), Some(is)) = (ticks_left(old), ticks_left(new)) else {
        // A stop that is over was proven or is reported.
        let over = matches!(new.state, State::Idle | State::Stopped { .. } | State::Unverified);
        return ticks_left(old).is_none() && ticks_left(new).is_none_or(|left| left <= MOST_TICKS) || over;
    };
    let begins = match action {
        // An operator stops for good what is being stopped, once.
        Action::Estop | Action::HeedStop => before.core.latch == NO_TRIP || before.core.held == Held::Some,
        Action::SupervisorStarts => true,
        _ => false,
    };
    if begins {
        is <= MOST_TICKS
    } else if action == Action::Tick {
        is < was
    } else {
        is <= was
    }
}

/// A grant is that of a session that lives, and none is given while the motor is held.
#[must_use]
pub fn grant_is_sound(system: &System) -> bool {
    let motor = &system.core.motor;
    motor.owner().is_none_or(|owner| lives(&system.core, owner) && motor.latch == Latch::Open)
}

/// No session drives for a front that has fallen silent.
#[must_use]
pub fn a_silent_front_has_no_grants(system: &System) -> bool {
    system.core.motor.owner().is_none() || system.core.front_watched
}

/// A motor that turns is granted, or it is being stopped, or the supervisor has yet to hear of it.
#[must_use]
pub fn what_turns_is_granted_or_stopped(before: &System, action: Action, after: &System) -> bool {
    let heard = action == Action::Report && before.drive == Drive::Turning;
    let resting = matches!(after.core.motor.state, State::Idle | State::Stopped { .. });
    !(heard && resting)
}

/// Whatever holds the motor has a number that a reset can name, and an operator stop holds it.
#[must_use]
pub fn a_held_motor_can_be_reset(system: &System) -> bool {
    let motor = &system.core.motor;
    (motor.latch == Latch::Open || motor.trip != NO_TRIP)
        && (system.core.latch == NO_TRIP || motor.latch == Latch::Held)
}

/// Under manual policy a motor that was stopped for a reason of its own is held, unless that interrupted nothing.
#[must_use]
pub fn manual_policy_holds(scope: &Scope, system: &System) -> bool {
    let motor = &system.core.motor;
    let stopped = !matches!(motor.state, State::Idle | State::Granted { .. })
        && motor.reason != Reason::Startup
        && motor.occasion == Occasion::Trip;
    scope.settings.policy != ResetPolicy::Manual || !stopped || motor.latch == Latch::Held
}

/// A condition on a state.
type Condition = fn(&Scope, &System) -> bool;

/// All properties.
#[must_use]
pub fn all(scope: &Scope) -> Vec<Property<Scope>> {
    let always = ALWAYS.iter().map(|(name, condition)| Property::always(name, *condition));
    let sometimes = reached(scope).into_iter().map(|(name, condition)| Property::sometimes(name, condition));
    always.chain(sometimes).collect()
}

const ALWAYS: &[(&str, Condition)] = &[
    ("the front makes up for a late motion frame", |_, s| front_makes_up(s)),
    ("motion for a motor that is nobody's is answered", |_, s| motion_is_answered(s)),
    ("a stop ends proven or reported, within 24 ticks of its trip", |_, s| {
        s.broken != Some(Broken::NoProgress)
    }),
    ("a grant is that of a live session, and none while held", |_, s| grant_is_sound(s)),
    ("a silent front has no grants", |_, s| a_silent_front_has_no_grants(s)),
    ("a motor that turns and is nobody's is being stopped", |_, s| s.broken != Some(Broken::TurnsUnattended)),
    ("the kernel's stop is sent when the supervisor is hung or dead", |_, s| the_kernel_steps_in(s)),
    ("after a kernel stop nothing moves again without a trip", |_, s| a_kernel_stop_is_a_trip(s)),
    ("a pressed stop holds until it is reset", |_, s| a_press_holds(s)),
    ("a pressed stop comes before any grant", |_, s| s.broken != Some(Broken::GrantedThoughPressed)),
    ("a reset clears no unseen press", |_, s| s.broken != Some(Broken::ResetOfUnseenPress)),
    ("a forged report counts for nothing", |_, s| s.broken != Some(Broken::ForgedReportCounted)),
    ("a held motor can be reset", |_, s| a_held_motor_can_be_reset(s)),
    ("manual policy holds what was stopped", manual_policy_holds),
    ("a reset clears its trip and no other", |_, s| s.broken != Some(Broken::ResetOfAnother)),
    ("a reset clears no unseen violation", |_, s| s.broken != Some(Broken::ResetOfUnseenViolation)),
    ("a reset needs proof", |_, s| s.broken != Some(Broken::ResetWhileMoving)),
    ("only a reset lets go", |_, s| s.broken != Some(Broken::LatchLost)),
    ("what is recorded as sent was sent", |_, s| s.broken != Some(Broken::GentlerThanSaid)),
    ("what is granted was heard lately", |_, s| s.broken != Some(Broken::GrantedUnheard)),
    ("a session that is over stays over", |_, s| s.broken != Some(Broken::Revived)),
    ("a taken motor goes to its taker", |_, s| s.broken != Some(Broken::TakenMotorStopped)),
    ("who may have the motor gets it on a tick", |_, s| s.broken != Some(Broken::NotGranted)),
    ("a grant ends with a stop", |_, s| s.broken != Some(Broken::RevokedWithoutStop)),
    ("an end without a trip is one at proven rest", |_, s| s.broken != Some(Broken::EndedInMotion)),
    ("an end at rest interrupts nothing", |_, s| an_end_at_rest_interrupts_nothing(s)),
];

fn tripped_by(system: &System, reason: Reason) -> bool {
    system.core.outbox.is_some() && system.core.motor.reason == reason
}

/// What an exploration of the scope must come across.
fn reached(scope: &Scope) -> Vec<(&'static str, Condition)> {
    let mut all: Vec<(&'static str, Condition)> = vec![
        ("the motor turns under a grant", |_, s| s.drive == Drive::Turning && s.core.motor.owner().is_some()),
        ("a session expires", |_, s| tripped_by(s, Reason::Expired)),
        ("a session closes", |_, s| tripped_by(s, Reason::ClosedByClient)),
        ("a session ends at rest", |_, s| {
            s.core.outbox.is_some() && s.core.motor.occasion == Occasion::EndAtRest
        }),
        ("a motion frame was under way when a session ended at rest", |_, s| {
            s.core.motor.occasion == Occasion::EndAtRest && s.drive == Drive::Turning
        }),
        ("a motor is given to nobody because its drive is silent", |_, s| {
            s.core.motor.is_at_rest()
                && !s.core.motor.is_heard()
                && s.core.front_watched
                && s.beats.owner_word.is_some_and(|owner| lives(&s.core, owner))
        }),
        ("feedback is lost", |_, s| tripped_by(s, Reason::FeedbackLost)),
        ("a stop is violated", |_, s| tripped_by(s, Reason::Violation)),
        ("a stop is unverified", |_, s| s.core.motor.state == State::Unverified),
        (
            "the grant goes between looking and sending",
            |_, s| matches!(s.front.actor, Actor::Permitted(owner) if !s.front.holds(&s.core, owner)),
        ),
        ("a motion frame is late", |_, s| s.front.late > 0),
        ("a motion frame outlives the stop in the queue", |_, s| {
            matches!(s.core.motor.state, State::Stopped { .. }) && s.wire.front.contains(FrontFrame::Motion)
        }),
        ("the motor follows a motion frame as nobody's", |_, s| {
            matches!(s.core.motor.state, State::Stopped { .. }) && s.drive == Drive::Turning
        }),
        ("the kernel refuses a stop", |_, s| s.core.outbox.is_some() && s.wire.supervisor.is_some()),
    ];
    let mut want = |possible: bool, name, condition: Condition| {
        if possible {
            all.push((name, condition));
        }
    };
    let manual = scope.settings.policy == ResetPolicy::Manual;
    let latches = manual || scope.estops + scope.presses > 0;
    want(scope.opens > 1, "a running motor changes hands", |_, s| {
        let State::Granted { owner, run: Run::Seen { .. } } = s.core.motor.state else { return false };
        s.core.sessions[1 - usize::from(owner.slot)].state != SessionState::Vacant
            && s.front.actor == Actor::Obtaining(owner)
    });
    want(scope.opens > 1, "an owner word names nobody alive", |_, s| tripped_by(s, Reason::Corrupt));
    want(scope.front_deaths > 0, "the front dies", |_, s| tripped_by(s, Reason::FrontDead));
    want(scope.front_silences > 0, "the front is silent", |_, s| tripped_by(s, Reason::FrontSilent));
    want(scope.estops > 0, "the operator stops", |_, s| tripped_by(s, Reason::OperatorStop));
    want(scope.bus_failures > 0, "the bus fails", |_, s| tripped_by(s, Reason::BusFault));
    want(scope.front_silences > 0 && scope.opens > 1, "a silent front's session wants a motor", |_, s| {
        !s.core.front_watched && s.core.front && s.beats.owner_word.is_some_and(|owner| lives(&s.core, owner))
    });
    want(scope.drive_starts > 0, "a motor that is nobody's turns by itself", |_, s| {
        s.core.motor.state == State::Idle && s.drive == Drive::Turning && s.mover == Mover::Itself
    });
    want(scope.bus_doubts > 0, "a stop goes on over a doubtful bus", |_, s| {
        s.core.bus == Bus::Doubtful && s.core.outbox.is_some_and(|stage| stage > 0)
    });
    want(scope.bus_failures > 4, "a bus that comes and goes no longer begins the stop again", |_, s| {
        s.core.motor.restarts == 3 && matches!(s.core.motor.state, State::Stopping { stage: 2, .. })
    });
    want(scope.drive_faults > 0, "the drive faults", |_, s| tripped_by(s, Reason::DriveFault));
    want(latches && scope.opens > 1, "a reset lets a session move again", |_, s| {
        s.operator.reset == Reset::Granted
    });
    want(manual && scope.opens > 1, "a reset comes too late for its trip", |_, s| {
        let motor = &s.core.motor;
        let too_late = s.operator.noted.trip != NO_TRIP && s.operator.noted.trip < motor.trip;
        too_late && motor.latch == Latch::Held
    });
    want(latches, "a reset comes too late for a violation", |_, s| {
        let motor = &s.core.motor;
        let is_of_it = s.operator.noted.trip != NO_TRIP && s.operator.noted.trip == motor.trip;
        is_of_it && motor.latch == Latch::Held && motor.violations > s.operator.noted.violations
    });
    want(!manual && scope.opens > 1, "a motor is granted again without a reset", |_, s| {
        s.core.motor.owner().is_some() && s.core.motor.trip != NO_TRIP && s.operator.reset == Reset::None
    });
    let inherited = scope.before != Before::None;
    want(inherited, "what the supervisor before left open still names the motor's stop", |_, s| {
        s.core.motor.trip == 1 && matches!(s.core.motor.state, State::Stopped { .. })
    });
    want(inherited, "a session moves after the supervisor's death", |_, s| {
        s.core.motor.owner().is_some() && s.drive == Drive::Turning
    });
    want(scope.hangs > 0, "the kernel stops what a hung supervisor has granted", |_, s| {
        s.process == Process::Hangs
            && s.job.sends().is_some()
            && s.core.motor.owner().is_some()
            && s.drive == Drive::Holding
    });
    want(scope.hangs > 0, "a supervisor that was overtaken trips", |_, s| {
        s.process == Process::Runs && tripped_by(s, Reason::SelfOverrun)
    });
    want(scope.hangs > 0, "a motion frame comes after the kernel's first stop", |_, s| {
        s.process == Process::Hangs
            && s.job.sends().is_some()
            && s.drive == Drive::Turning
            && s.mover == Mover::Frame
    });
    let (dies, presses) = (scope.supervisor_deaths > 0, scope.presses > 0);
    want(dies, "the kernel comes to its last stage", |scope, s| {
        let last = if scope.settings.after == AfterStop::Hold { 0 } else { STAGES - 1 };
        s.process == Process::Dead && s.job.sends() == Some(last)
    });
    want(dies, "the next supervisor trips what was driven", |_, s| {
        s.process == Process::Starts && tripped_by(s, Reason::SupervisorDied)
    });
    want(dies, "the front goes on for a supervisor that is dead", |_, s| {
        s.process == Process::Starts
            && s.front.holds(&s.core, FORMER)
            && s.front.actor == Actor::Driving(FORMER)
    });
    want(dies && scope.opens > 1, "a session moves under the next supervisor", |_, s| {
        s.process == Process::Runs
            && s.spent.supervisor_deaths > 0
            && s.core.motor.owner().is_some()
            && s.drive == Drive::Turning
    });
    want(presses, "the operator presses", |_, s| tripped_by(s, Reason::OperatorStop));
    want(scope.estops + scope.presses > 1, "an operator presses again while everything is held", |_, s| {
        s.pressed == Pressed::Heard
            && s.operator.noted.trip != NO_TRIP
            && s.operator.noted.trip < s.core.latch
    });
    want(presses && dies, "a supervisor dies with a press that it has not seen", |_, s| {
        s.process == Process::Dead && s.pressed == Pressed::Lately && s.core.motor.owner().is_some()
    });
    want(presses && dies, "the next supervisor holds what was pressed before", |_, s| {
        s.process == Process::Runs
            && s.spent.supervisor_deaths > 0
            && s.pressed == Pressed::Read
            && s.operator.noted.trip == s.core.latch
    });
    want(scope.front_starts > 0 && scope.opens > 1, "a new front's session moves", |_, s| {
        s.core.motor.owner().is_some() && s.spent.front_starts > 0 && s.drive == Drive::Turning
    });
    all
}
