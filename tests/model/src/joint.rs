//! Two motors that one frame commands (DJI), as a second model: small, and complete without budgets.
//!
//! Whoever sends such a frame commands both. So the supervisor stops both together and lets them follow one session
//! (`core/together.rs`, `core/grants.rs`), and the front mixes into each frame what the other motor was told last, as long
//! as its grant holds (`front/src/motion/line.rs`).
//!
//! It differs from the large model. The drive has one stage, a frame of zeros, and the front's stop is the same frame.
//! There is no manual reset, no operator, no fault of the bus, no silent drive, no death of the supervisor: the large model
//! has them. Both sessions are open from the beginning. The front's tasks look, mix, hand over and look again, and
//! anything may happen in between. A tick reads the owner word of each motor once, before it settles the first; what the
//! front writes between the two readings is as good as written before or after both.

use stateright::{Model, Property};

use crate::queue::Queue;

/// The motors of the frame.
pub const MOTORS: [usize; 2] = [0, 1];
/// The sessions.
const SESSIONS: [u8; 2] = [0, 1];
/// Ticks after which the one stage has timed out.
const STAGE_TIMEOUT: u8 = 2;

/// The part of a frame for one motor, or what it does by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Nothing.
    Zero,
    /// It turns.
    Motion,
}

/// A frame: a part for each motor.
pub type Joint = [Part; 2];
/// The stop of both.
pub const ZEROS: Joint = [Part::Zero; 2];

/// `core::motor::State`, of a motor with one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Proven to stand still, and heard since.
    AtRest,
    /// Follows that session.
    Granted(u8),
    /// Its stop is sent, for so many ticks.
    Stopping(u8),
    /// Its stop has timed out and is sent all the same.
    Unverified,
}

impl State {
    const fn owner(self) -> Option<u8> {
        match self {
            Self::Granted(session) => Some(session),
            _ => None,
        }
    }

    const fn is_being_stopped(self) -> bool {
        matches!(self, Self::Stopping(_) | Self::Unverified)
    }
}

/// Whether a frame of a stop was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handed {
    /// The kernel has taken none yet: no report proves anything.
    No,
    /// It has.
    Yes,
}

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Session {
    /// It lives.
    Live,
    /// It is over.
    Over,
}

/// The front's hold of the bus: `Line::send`, whose lock lets one frame after the other through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// Nobody has it.
    Free,
    /// A motor's task has seen its grant, or wants to stop it.
    Taken {
        /// The motor.
        motor: u8,
        /// The session under whose grant it moves; none to stop it.
        claim: Option<u8>,
    },
    /// A frame is mixed and is handed over next.
    Mixed(Joint),
    /// It was handed over; the grants of its parts are looked at next.
    Sent,
}

/// A rule about steps that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A stop ended without proof.
    StopForgotten,
    /// A tick sent no stop though one was under way.
    StopNotSent,
    /// A motor without grant was given motion in a frame of its neighbour.
    MixedWithoutGrant,
}

/// Everything there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The sessions.
    pub sessions: [Session; 2],
    /// The owner words.
    pub words: [Option<u8>; 2],
    /// The motors as the supervisor has them.
    pub motors: [State; 2],
    /// Whether a frame of their stops was handed over.
    pub handed: [Handed; 2],
    /// Whether it has decided on a stop and not handed it over.
    pub outbox: Option<()>,
    /// Whether a stop waits in the kernel.
    pub stop: Option<()>,
    /// The session under whose claim each motor was told to move last: `Mixer`.
    pub parts: [Option<u8>; 2],
    /// The front's hold of the bus.
    pub line: Line,
    /// Frames of the front that wait in the kernel.
    pub queue: Queue<Joint>,
    /// For which motors a motion frame was on the wire that the supervisor has not read.
    pub unread: Joint,
    /// What the motors do.
    pub drives: Joint,
    /// The first rule a step has broken.
    pub broken: Option<Broken>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A tick.
    Tick,
    /// A session's deadline passes.
    Expire(u8),
    /// The kernel takes or refuses the supervisor's stop.
    SupervisorSends,
    /// The supervisor reads the motion frames that it has not read.
    Receive,
    /// A drive reports.
    Report(usize),
    /// The front gives a motor to a session.
    Take(usize, u8),
    /// A task wants to move its motor, and finds its grant.
    Look(usize, u8),
    /// A task wants to stop its motor.
    Stop(usize),
    /// The line goes on.
    LineSteps,
    /// The front does not get its correction out, or is killed and started again; what waits in the kernel stays.
    LineIsLost,
    /// The front's oldest frame goes onto the wire.
    FrontFrame,
    /// The supervisor's stop does.
    SupervisorFrame,
}

impl Pair {
    /// Both motors at rest, both sessions open.
    #[must_use]
    pub fn started() -> Self {
        Self {
            sessions: [Session::Live; 2],
            words: [None; 2],
            motors: [State::AtRest; 2],
            handed: [Handed::Yes; 2],
            outbox: None,
            stop: None,
            parts: [None; 2],
            line: Line::Free,
            queue: Queue::EMPTY,
            unread: ZEROS,
            drives: ZEROS,
            broken: None,
        }
    }

    fn lives(&self, session: u8) -> bool {
        self.sessions[usize::from(session)] == Session::Live
    }

    /// `Permit::holds`.
    fn holds(&self, motor: usize, session: u8) -> bool {
        self.motors[motor].owner() == Some(session) && self.lives(session)
    }

    fn actions(&self, actions: &mut Vec<Action>) {
        match self.outbox {
            Some(()) => actions.push(Action::SupervisorSends),
            None => {
                actions.push(Action::Tick);
                let live = SESSIONS.into_iter().filter(|session| self.lives(*session));
                actions.extend(live.map(Action::Expire));
                if self.unread == ZEROS {
                    actions.extend(MOTORS.map(Action::Report));
                } else {
                    actions.push(Action::Receive);
                }
            }
        }
        for motor in MOTORS {
            for session in SESSIONS {
                if self.lives(session) && self.words[motor] != Some(session) {
                    actions.push(Action::Take(motor, session));
                }
                if self.line == Line::Free && self.holds(motor, session) {
                    actions.push(Action::Look(motor, session));
                }
            }
            if self.line == Line::Free && self.parts[motor].is_some() {
                actions.push(Action::Stop(motor));
            }
        }
        match self.line {
            Line::Free => {}
            Line::Taken { .. } => actions.push(Action::LineSteps),
            Line::Mixed(_) | Line::Sent => actions.extend([Action::LineSteps, Action::LineIsLost]),
        }
        if self.queue.first().is_some_and(|frame| frame == ZEROS || self.unread == ZEROS) {
            actions.push(Action::FrontFrame);
        }
        if self.stop.is_some() {
            actions.push(Action::SupervisorFrame);
        }
    }

    /// What the action makes of this state.
    #[must_use]
    pub fn after(mut self, action: Action) -> Self {
        let before = self;
        match action {
            Action::Tick => {
                self.settle(0);
                self.settle(1);
                self.tend();
            }
            Action::Expire(session) => self.expire(session),
            Action::SupervisorSends => {
                self.outbox = None;
                if self.stop.is_none() {
                    self.stop = Some(());
                    for motor in MOTORS.into_iter().filter(|motor| before.motors[*motor].is_being_stopped()) {
                        self.handed[motor] = Handed::Yes;
                    }
                }
            }
            Action::Receive => {
                self.unread = ZEROS;
                for motor in MOTORS {
                    if before.unread[motor] == Part::Motion && self.motors[motor].owner().is_none() {
                        self.guard(motor);
                    }
                }
            }
            Action::Report(motor) => self.observe(motor),
            Action::Take(motor, session) => self.words[motor] = Some(session),
            Action::Look(motor, session) => {
                self.line = Line::Taken { motor: index(motor), claim: Some(session) }
            }
            Action::Stop(motor) => self.line = Line::Taken { motor: index(motor), claim: None },
            Action::LineSteps => self.line_steps(),
            Action::LineIsLost => (self.line, self.parts) = (Line::Free, [None; 2]),
            Action::FrontFrame => {
                if let Some(frame) = self.queue.pop() {
                    self.drives = frame;
                    if frame != ZEROS {
                        self.unread = frame;
                    }
                }
            }
            Action::SupervisorFrame => (self.stop, self.drives) = (None, ZEROS),
        }
        self.broken = self.broken.or_else(|| broken(&before, action, &self));
        self
    }

    /// `grants::settle_grant`.
    fn settle(&mut self, motor: usize) {
        let held = self.motors[motor].owner();
        let wished = self.words[motor];
        if wished.is_some() && wished == held {
            return;
        }
        match (wished.filter(|session| self.lives(*session)), held) {
            (Some(session), _) if self.mates_agree(motor, session) => self.grant(motor, session),
            (Some(_), _) | (None, None) => {}
            (None, Some(_)) => self.begin_stop(motor),
        }
    }

    /// `grants::mates_agree`.
    fn mates_agree(&self, motor: usize, session: u8) -> bool {
        let mate = mate(motor);
        match self.motors[mate] {
            State::Granted(other) => other == session || self.words[mate] == Some(session),
            state => !state.is_being_stopped(),
        }
    }

    /// `grants::grant`.
    fn grant(&mut self, motor: usize, session: u8) {
        match self.motors[motor] {
            State::Granted(_) | State::AtRest => self.motors[motor] = State::Granted(session),
            State::Stopping(_) | State::Unverified => {}
        }
    }

    /// `grants::hand_over_taken` and `trips::trip_session`.
    fn expire(&mut self, session: u8) {
        for motor in MOTORS {
            let taker = self.words[motor]
                .filter(|taker| *taker != session && self.lives(*taker) && self.mates_agree(motor, *taker));
            if self.motors[motor].owner() == Some(session)
                && let Some(taker) = taker
            {
                self.grant(motor, taker);
            }
        }
        for motor in MOTORS {
            if self.motors[motor].owner() == Some(session) {
                self.begin_stop(motor);
            }
        }
        self.sessions[usize::from(session)] = Session::Over;
    }

    /// `motor::begin_stop`: the same for those that share a command frame with it.
    fn begin_stop(&mut self, motor: usize) {
        self.begin_own_stop(motor);
        if self.motors[mate(motor)].owner().is_some() {
            self.begin_own_stop(mate(motor));
        }
    }

    fn begin_own_stop(&mut self, motor: usize) {
        self.motors[motor] = State::Stopping(0);
        self.handed[motor] = Handed::No;
        self.outbox = Some(());
    }

    /// `motor::tend_motors`.
    fn tend(&mut self) {
        for motor in MOTORS {
            match self.motors[motor] {
                // Decided on within this very tick.
                State::Stopping(0) if self.handed[motor] == Handed::No && self.outbox.is_some() => {}
                State::Stopping(since) => {
                    let over = since + 1 >= STAGE_TIMEOUT;
                    self.motors[motor] = if over { State::Unverified } else { State::Stopping(since + 1) };
                    self.outbox = Some(());
                }
                State::Unverified => self.outbox = Some(()),
                State::AtRest | State::Granted(_) => {}
            }
        }
    }

    /// `motor::observe`.
    fn observe(&mut self, motor: usize) {
        match (self.motors[motor], self.drives[motor]) {
            (State::Stopping(_) | State::Unverified, Part::Zero) if self.handed[motor] == Handed::Yes => {
                self.motors[motor] = State::AtRest;
            }
            (State::AtRest, Part::Motion) => self.begin_stop(motor),
            _ => {}
        }
    }

    /// `motor::guard`.
    fn guard(&mut self, motor: usize) {
        if self.motors[motor].is_being_stopped() {
            self.outbox = Some(());
        } else {
            self.begin_stop(motor);
        }
    }

    /// `Mixer::forget_lost`; says whether there were any.
    fn forget_lost(&mut self) -> bool {
        let before = self.parts;
        for motor in MOTORS {
            self.parts[motor] = self.parts[motor].filter(|session| self.holds(motor, *session));
        }
        self.parts != before
    }

    fn mixture(&self) -> Joint {
        self.parts.map(|part| if part.is_some() { Part::Motion } else { Part::Zero })
    }

    /// `send_mixed`, in its steps.
    fn line_steps(&mut self) {
        let line = self.line;
        self.line = match line {
            Line::Free => Line::Free,
            Line::Taken { motor, claim } => {
                self.parts[usize::from(motor)] = claim;
                self.forget_lost();
                Line::Mixed(self.mixture())
            }
            Line::Mixed(frame) => {
                // A stop right behind a stop is as good as one. A frame that is refused is as good as never sent; its grants
                // are looked at all the same.
                if frame != ZEROS || self.queue.last() != Some(ZEROS) {
                    let _ = self.queue.push(frame);
                }
                Line::Sent
            }
            Line::Sent if self.forget_lost() => Line::Mixed(self.mixture()),
            Line::Sent => Line::Free,
        };
    }
}

impl Pair {
    /// The same with the sessions in a certain order, as which is which makes no difference, and without what nothing
    /// depends on: an owner word, or a claim that is about to be looked at, of a session that is over is as good as none.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        let before = self;
        let live = |session: Option<u8>| session.filter(|session| before.lives(*session));
        self.words = self.words.map(live);
        if let Line::Taken { motor, claim } = self.line {
            self.line = Line::Taken { motor, claim: live(claim) };
        }
        let other = self.with_sessions_swapped();
        if other.names() < self.names() { other } else { self }
    }

    fn with_sessions_swapped(mut self) -> Self {
        let swap = |session: Option<u8>| session.map(|session| 1 - session);
        self.sessions.swap(0, 1);
        self.words = self.words.map(swap);
        self.parts = self.parts.map(swap);
        for motor in &mut self.motors {
            if let State::Granted(session) = motor {
                *session = 1 - *session;
            }
        }
        if let Line::Taken { claim, .. } = &mut self.line {
            *claim = swap(*claim);
        }
        self
    }

    /// Everything in which a session is named.
    fn names(&self) -> ([Session; 2], [[Option<u8>; 2]; 3], Option<u8>) {
        let claim = match self.line {
            Line::Taken { claim, .. } => claim,
            Line::Free | Line::Mixed(_) | Line::Sent => None,
        };
        (self.sessions, [self.words, self.motors.map(State::owner), self.parts], claim)
    }
}

const fn mate(motor: usize) -> usize {
    1 - motor
}

const fn index(motor: usize) -> u8 {
    if motor == 0 { 0 } else { 1 }
}

fn broken(before: &Pair, action: Action, after: &Pair) -> Option<Broken> {
    for motor in MOTORS {
        let (old, new) = (before.motors[motor], after.motors[motor]);
        let proven = action == Action::Report(motor) && before.drives[motor] == Part::Zero;
        if old.is_being_stopped() && !new.is_being_stopped() && !proven {
            return Some(Broken::StopForgotten);
        }
        if action == Action::Tick && new.is_being_stopped() && after.outbox.is_none() {
            return Some(Broken::StopNotSent);
        }
        if let (Line::Taken { .. }, Line::Mixed(frame)) = (before.line, after.line)
            && frame[motor] == Part::Motion
            && before.motors[motor].owner().is_none()
        {
            return Some(Broken::MixedWithoutGrant);
        }
    }
    None
}

/// While a motor of the frame is being stopped, the other is not driven.
fn a_stop_is_for_both(pair: &Pair) -> bool {
    MOTORS
        .iter()
        .all(|motor| !pair.motors[*motor].is_being_stopped() || pair.motors[mate(*motor)].owner().is_none())
}

/// A motor that turns and is nobody's is being stopped, or its stop is behind, or the supervisor has yet to read why.
fn what_turns_is_stopped(pair: &Pair) -> bool {
    MOTORS.iter().all(|motor| {
        let unwanted = pair.drives[*motor] == Part::Motion && pair.motors[*motor].owner().is_none();
        !unwanted
            || pair.motors[*motor].is_being_stopped()
            || pair.outbox.is_some()
            || pair.stop.is_some()
            || pair.unread[*motor] == Part::Motion
    })
}

/// Both motors of the frame follow one session.
#[must_use]
pub fn both_follow_one(pair: &Pair) -> bool {
    match (pair.motors[0].owner(), pair.motors[1].owner()) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct TwoMotors;

impl Model for TwoMotors {
    type State = Pair;
    type Action = Action;

    fn init_states(&self) -> Vec<Pair> {
        vec![Pair::started()]
    }

    fn actions(&self, state: &Pair, actions: &mut Vec<Action>) {
        if state.broken.is_none() {
            state.actions(actions);
        }
    }

    fn next_state(&self, state: &Pair, action: Action) -> Option<Pair> {
        let next = state.after(action).canonical();
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("while one of a frame is being stopped, none of it is driven", |_, pair| {
                a_stop_is_for_both(pair)
            }),
            Property::always("motors of one frame follow one session", |_, pair| both_follow_one(pair)),
            Property::always("a motor that turns and is nobody's is being stopped", |_, pair| {
                what_turns_is_stopped(pair)
            }),
            Property::always("a stop goes on until it is proven", |_, pair: &Pair| {
                pair.broken != Some(Broken::StopForgotten)
            }),
            Property::always("a stop is sent on every tick", |_, pair: &Pair| {
                pair.broken != Some(Broken::StopNotSent)
            }),
            Property::always("a frame for one moves no other without its grant", |_, pair: &Pair| {
                pair.broken != Some(Broken::MixedWithoutGrant)
            }),
            Property::sometimes("both turn for one session", |_, pair: &Pair| {
                pair.drives == [Part::Motion; 2] && pair.motors[0].owner().is_some()
            }),
            Property::sometimes("both are taken over as they turn", |_, pair: &Pair| {
                let lost = |motor: usize| {
                    pair.parts[motor].is_some() && pair.parts[motor] != pair.motors[motor].owner()
                };
                let granted = pair.motors.iter().all(|motor| motor.owner().is_some());
                granted && MOTORS.into_iter().all(lost) && pair.drives == [Part::Motion; 2]
            }),
            Property::sometimes("both are being stopped", |_, pair: &Pair| {
                pair.motors.iter().all(|motor| matches!(motor, State::Stopping(_)))
            }),
            Property::sometimes(
                "a frame for one is under way when the other is stopped",
                |_, pair: &Pair| pair.motors[1].is_being_stopped() && pair.queue.contains([Part::Motion; 2]),
            ),
            Property::sometimes("a stop is unverified", |_, pair: &Pair| pair.motors[0] == State::Unverified),
        ]
    }
}
