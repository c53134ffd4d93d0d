//! Which call for the server's resources may leave, and when: a state machine without a clock or a task of its own.
//!
//! A server may run the calls that it has in any order, so only an answered call is done. Calls whose scopes overlap
//! share an order, that of their arrival:
//!
//! * A command leaves after everything older was answered. While it waits, anything newer takes its place.
//! * An older call that is not answered soon is reset, and counts as done some time after that.
//! * A Stop leaves at once, and again when everything older is done.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use shm_proto::{MotorIndex, Nanos};

use crate::order::{Arrival, Origin, Sender};

/// How long a newer command waits for the answer to an older call before that is reset. Set-points are answered in
/// milliseconds; a move that goes on for longer than this is one that the newer command is meant to end.
pub const PREEMPTED_AFTER: Duration = Duration::from_millis(100);
/// How long a Stop waits for the answers to older calls before they are reset.
pub const STOPPED_AFTER: Duration = Duration::from_secs(1);
/// How long the server may still be at work for a call after its reset: the reset has to reach it, and whatever runs
/// there has to notice.
pub const SETTLES_WITHIN: Duration = Duration::from_millis(250);
/// How long resets are remembered; longer than any Stop waits because of one.
const RESETS_KEPT: Duration = Duration::from_secs(5);
/// Stops whose hold is remembered at a time. Each lasts for a fraction of a second.
const MOST_HOLDS: usize = 1024;

/// What a call is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All resources.
    Everything,
    /// One resource.
    Resource {
        /// Its key, such as `arm/arm1`.
        key: Box<str>,
        /// The motors behind it.
        motors: Box<[MotorIndex]>,
    },
}

impl Scope {
    /// Whether both may move the same motor.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, _) | (_, Self::Everything) => true,
            (Self::Resource { key, motors }, Self::Resource { key: other, motors: others }) => {
                key == other || motors.iter().any(|motor| others.contains(motor))
            }
        }
    }
}

/// Names a call in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Why a command is not sent, or is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A newer command takes its place.
    Replaced,
    /// A newer Stop has come.
    Stopped,
    /// The same party sent a Stop over another connection a moment ago.
    Held {
        /// How long that still counts.
        left: Duration,
    },
}

/// Whether a command may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Now: it counts as sent.
    Now,
    /// Not before something changes, or this moment comes.
    Later(Option<Nanos>),
    /// Never.
    Never(Why),
}

/// What becomes of a command that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on until something changes, or this moment comes.
    GoesOn(Option<Nanos>),
    /// It must be reset.
    Reset(Why),
}

/// What a Stop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is sent.
    Send,
    /// Nothing before something changes, or this moment comes.
    Wait(Option<Nanos>),
    /// Nothing more; the answer to the last that was sent counts.
    Done,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It never left.
    Unsent,
    /// The server has answered it.
    Answered,
    /// It was reset by either side, or its connection was lost.
    Reset,
}

/// How far a Stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// It was not sent.
    Nothing,
    /// It was sent once, and older calls are not done.
    Early,
    /// It was sent when every older call had ended, or there was none.
    Ended,
    /// It was sent for the last time.
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// `ready`: since when nothing but its turn keeps it from leaving.
    Waiting {
        ready: Option<Nanos>,
    },
    Void(Why),
    Sent,
    Stop {
        since: Nanos,
        said: Said,
    },
}

#[derive(Debug)]
struct Call {
    arrival: Arrival,
    scope: Scope,
    sender: Sender,
    stage: Stage,
}

/// What has arrived last.
#[derive(Clone, Copy, Debug)]
struct Mark {
    arrival: Arrival,
    why: Why,
}

impl Mark {
    fn newer(self, other: Self) -> Self {
        if self.arrival.is_before(other.arrival) { other } else { self }
    }
}

/// A Stop that holds its sender's other connections off.
#[derive(Debug)]
struct Held {
    arrival: Arrival,
    scope: Scope,
    sender: Sender,
    until: Nanos,
}

/// The newest arrivals. There are as many entries as resources were used or stopped.
#[derive(Debug, Default)]
struct Newest {
    everything: Option<Mark>,
    keys: HashMap<Box<str>, Mark>,
    motors: HashMap<MotorIndex, Mark>,
}

impl Newest {
    fn of(&self, scope: &Scope) -> Option<Mark> {
        let marks: Vec<Mark> = match scope {
            Scope::Everything => self
                .everything
                .iter()
                .chain(self.keys.values())
                .chain(self.motors.values())
                .copied()
                .collect(),
            Scope::Resource { key, motors } => {
                let motors = motors.iter().filter_map(|motor| self.motors.get(motor));
                self.everything.iter().chain(self.keys.get(key)).chain(motors).copied().collect()
            }
        };
        marks.into_iter().reduce(Mark::newer)
    }

    fn note(&mut self, scope: &Scope, new: Mark) {
        let newer = |known: Option<Mark>| known.map_or(new, |known| new.newer(known));
        match scope {
            Scope::Everything => self.everything = Some(newer(self.everything)),
            Scope::Resource { key, motors } => {
                let known = self.keys.get(key).copied();
                self.keys.insert(key.clone(), newer(known));
                for motor in motors {
                    let known = self.motors.get(motor).copied();
                    self.motors.insert(*motor, newer(known));
                }
            }
        }
    }
}

/// All calls that move or stop something, from their arrival to their end.
#[derive(Debug)]
pub struct Admission {
    /// How long a Stop holds its sender's other connections off.
    hold: Duration,
    next: u64,
    calls: BTreeMap<Ticket, Call>,
    newest: Newest,
    /// The newest command of each resource that was sent, and over which connection it came.
    sent: HashMap<Box<str>, (Arrival, Sender)>,
    resets: Vec<(Nanos, Scope)>,
    holds: Vec<Held>,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn after(moment: Nanos, duration: Duration) -> Nanos {
    moment.after(nanos(duration))
}

impl Admission {
    /// Nothing has arrived. `hold`: how long a Stop holds its sender's other connections off.
    #[must_use]
    pub fn new(hold: Duration) -> Self {
        Self {
            hold,
            next: 0,
            calls: BTreeMap::new(),
            newest: Newest::default(),
            sent: HashMap::new(),
            resets: Vec::new(),
            holds: Vec::new(),
        }
    }

    /// Checks whether a command comes in time.
    ///
    /// # Errors
    ///
    /// When something newer has arrived already, or a Stop of its sender holds it off.
    pub fn check(&self, origin: &Origin, scope: &Scope) -> Result<(), Why> {
        if let Some(mark) = self.newest.of(scope).filter(|mark| origin.began().is_before(mark.arrival)) {
            return Err(mark.why);
        }
        self.held(origin, scope).map_or(Ok(()), |left| Err(Why::Held { left }))
    }

    /// Takes a command in. What waits and is older is void from now on.
    ///
    /// # Errors
    ///
    /// As for [`Self::check`].
    pub fn command(&mut self, origin: &Origin, scope: Scope) -> Result<Ticket, Why> {
        self.check(origin, &scope)?;
        let arrival = origin.began();
        self.newest.note(&scope, Mark { arrival, why: Why::Replaced });
        self.void_older(arrival, &scope, Why::Replaced);
        let stage = Stage::Waiting { ready: None };
        Ok(self.add(Call { arrival, scope, sender: origin.sender().clone(), stage }))
    }

    /// From now on nothing but its turn keeps a command from leaving: older calls have to come to an end.
    pub fn ready(&mut self, ticket: Ticket, now: Nanos) {
        if let Some(Stage::Waiting { ready }) = self.calls.get_mut(&ticket).map(|call| &mut call.stage) {
            ready.get_or_insert(now);
        }
    }

    /// Takes a Stop in. What waits and is older is void from now on.
    pub fn stop(&mut self, origin: &Origin, scope: Scope, now: Nanos) -> Ticket {
        let arrival = origin.complete();
        self.newest.note(&scope, Mark { arrival, why: Why::Stopped });
        self.void_older(arrival, &scope, Why::Stopped);
        self.note_hold(origin, &scope, now);
        // What the same client sent after it, and what is sent already, must not be undone by it.
        let said = if self.is_outdated(origin, &scope) { Said::Last } else { Said::Nothing };
        let stage = Stage::Stop { since: now, said };
        self.add(Call { arrival, scope, sender: origin.sender().clone(), stage })
    }

    /// Whether a command may leave.
    #[must_use]
    pub fn may_leave(&self, ticket: Ticket, now: Nanos) -> Turn {
        let Some(call) = self.calls.get(&ticket) else { return Turn::Never(Why::Replaced) };
        match call.stage {
            Stage::Waiting { .. } => {}
            Stage::Void(why) => return Turn::Never(why),
            Stage::Sent | Stage::Stop { .. } => return Turn::Now,
        }
        if self.older(call).any(|older| matches!(older.stage, Stage::Sent | Stage::Stop { .. })) {
            return Turn::Later(None);
        }
        let settled = self.last_reset(&call.scope).map(|reset| after(reset, SETTLES_WITHIN));
        settled.filter(|settled| *settled > now).map_or(Turn::Now, |settled| Turn::Later(Some(settled)))
    }

    /// Lets a command leave, if it may: from then on it counts as sent.
    pub fn turn(&mut self, ticket: Ticket, now: Nanos) -> Turn {
        let turn = self.may_leave(ticket, now);
        if let (Turn::Now, Some(call)) = (turn, self.calls.get_mut(&ticket))
            && let Stage::Waiting { .. } = call.stage
        {
            call.stage = Stage::Sent;
            if let Scope::Resource { key, .. } = &call.scope {
                self.sent.insert(key.clone(), (call.arrival, call.sender.clone()));
            }
        }
        turn
    }

    /// Why a command that has not left never will.
    #[must_use]
    pub fn void(&self, ticket: Ticket) -> Option<Why> {
        match self.calls.get(&ticket)?.stage {
            Stage::Void(why) => Some(why),
            Stage::Waiting { .. } | Stage::Sent | Stage::Stop { .. } => None,
        }
    }

    /// What becomes of a command that was sent.
    #[must_use]
    pub fn fate(&self, ticket: Ticket, now: Nanos) -> Fate {
        let Some(call) = self.calls.get(&ticket).filter(|call| call.stage == Stage::Sent) else {
            return Fate::GoesOn(None);
        };
        let newer = self
            .calls
            .values()
            .filter(|newer| call.arrival.is_before(newer.arrival) && newer.scope.overlaps(&call.scope));
        let resets = newer.filter_map(|newer| match newer.stage {
            Stage::Waiting { ready } => Some((after(ready?, PREEMPTED_AFTER), Why::Replaced)),
            Stage::Stop { since, .. } => Some((after(since, STOPPED_AFTER), Why::Stopped)),
            Stage::Void(_) | Stage::Sent => None,
        });
        match resets.min_by_key(|(at, _)| *at) {
            Some((at, why)) if at <= now => Fate::Reset(why),
            Some((at, _)) => Fate::GoesOn(Some(at)),
            None => Fate::GoesOn(None),
        }
    }

    /// What a Stop does next. The answer [`Step::Send`] counts as done.
    pub fn step(&mut self, ticket: Ticket, now: Nanos) -> Step {
        let Some(call) = self.calls.get(&ticket) else { return Step::Done };
        let Stage::Stop { since, said } = call.stage else { return Step::Done };
        let pending = self.older(call).any(|older| older.stage == Stage::Sent);
        // A reset of before counts as long as the server may be at work for it.
        let reset = self.last_reset(&call.scope).map(|reset| after(reset, SETTLES_WITHIN));
        let settles = reset.filter(|settled| *settled > since);
        let (step, said) = match (said, pending, settles) {
            (Said::Nothing, true, _) => (Step::Send, Said::Early),
            (Said::Nothing, false, None) => (Step::Send, Said::Last),
            (Said::Nothing, false, Some(_)) | (Said::Early, false, Some(_)) => (Step::Send, Said::Ended),
            (Said::Early, true, _) => (Step::Wait(None), said),
            (Said::Early, false, None) => (Step::Send, Said::Last),
            (Said::Ended, _, Some(settled)) if settled > now => (Step::Wait(Some(settled)), said),
            (Said::Ended, _, _) => (Step::Send, Said::Last),
            (Said::Last, _, _) => (Step::Done, said),
        };
        if let Some(call) = self.calls.get_mut(&ticket) {
            call.stage = Stage::Stop { since, said };
        }
        step
    }

    /// A call has ended.
    pub fn ended(&mut self, ticket: Ticket, end: End, now: Nanos) {
        let Some(call) = self.calls.remove(&ticket) else { return };
        if let (Stage::Sent | Stage::Stop { .. }, End::Reset) = (call.stage, end) {
            self.resets.retain(|(at, _)| now.since(*at) < nanos(RESETS_KEPT));
            self.resets.push((now, call.scope));
        }
    }

    /// Whether nothing newer than this request has arrived.
    #[must_use]
    pub fn is_newest(&self, origin: &Origin, scope: &Scope) -> bool {
        self.newest.of(scope).is_none_or(|mark| !origin.complete().is_before(mark.arrival))
    }

    /// How long the server may still be at work for calls of a scope that were reset.
    #[must_use]
    pub fn unsettled(&self, scope: &Scope, now: Nanos) -> Option<Duration> {
        let settled = after(self.last_reset(scope)?, SETTLES_WITHIN);
        (settled > now).then(|| Duration::from_nanos(settled.since(now)))
    }

    fn add(&mut self, call: Call) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.calls.insert(ticket, call);
        ticket
    }

    /// Voids what waits and is older.
    fn void_older(&mut self, arrival: Arrival, scope: &Scope, why: Why) {
        let older = |call: &&mut Call| call.arrival.is_before(arrival) && call.scope.overlaps(scope);
        for call in self.calls.values_mut().filter(older) {
            if let Stage::Waiting { .. } = call.stage {
                call.stage = Stage::Void(why);
            }
        }
    }

    fn older(&self, than: &Call) -> impl Iterator<Item = &Call> {
        self.calls
            .values()
            .filter(|call| call.arrival.is_before(than.arrival) && call.scope.overlaps(&than.scope))
    }

    fn last_reset(&self, scope: &Scope) -> Option<Nanos> {
        let resets = self.resets.iter().filter(|(_, of)| of.overlaps(scope));
        resets.map(|(at, _)| *at).max()
    }

    /// Whether a newer command of the same client was sent before this Stop was looked at.
    fn is_outdated(&self, origin: &Origin, scope: &Scope) -> bool {
        let Scope::Resource { key, .. } = scope else { return false };
        self.sent.get(key).is_some_and(|(arrival, sender)| {
            origin.complete().is_before(*arrival) && sender.is_same_connection(origin.sender())
        })
    }

    fn note_hold(&mut self, origin: &Origin, scope: &Scope, now: Nanos) {
        self.holds.retain(|held| held.until > now);
        if self.holds.len() == MOST_HOLDS {
            self.holds.remove(0);
        }
        self.holds.push(Held {
            arrival: origin.complete(),
            scope: scope.clone(),
            sender: origin.sender().clone(),
            until: after(origin.complete().at(), self.hold),
        });
    }

    /// How long a command is still held off by a Stop of its sender over another connection.
    fn held(&self, origin: &Origin, scope: &Scope) -> Option<Duration> {
        let holds = self.holds.iter().filter(|held| {
            held.arrival.is_before(origin.began())
                && held.until > origin.began().at()
                && held.sender.is_elsewhere(origin.sender())
                && held.scope.overlaps(scope)
        });
        holds.map(|held| Duration::from_nanos(held.until.since(origin.began().at()))).max()
    }
}

#[cfg(test)]
mod tests;
