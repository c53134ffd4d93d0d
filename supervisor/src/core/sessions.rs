//! Sessions: who is bound to which slot, and when each counts as silent.

use shm_proto::beat::{Bound, Context, Ending, ValidBeat, Word};
use shm_proto::beats::{Look, SlotReader};
use shm_proto::verdicts::{Reason, SessionState, SessionVerdict};
use shm_proto::{BeatView, Incarnation, Nanos, Owner, SessionId, SlotIndex, TripId, Window};

use super::wire::Wire;
use super::{Core, Tally};

/// One slot.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub bound: Option<Bound>,
    pub state: SessionState,
    pub last_beat: Nanos,
    pub trip: TripId,
    pub beats: u64,
    /// The shortest of what the motors allow that it has had.
    pub(super) limit: Window,
}

impl Session {
    /// Of a slot that nobody has used.
    pub(super) const VACANT: Self = Self {
        bound: None,
        state: SessionState::Vacant,
        last_beat: Nanos::ZERO,
        trip: TripId::NONE,
        beats: 0,
        limit: Window(u64::MAX),
    };

    /// How long it may be silent: its own window, or less if a motor that it has had allows less.
    const fn window(&self, own: Window) -> Window {
        if self.limit.0 < own.0 { self.limit } else { own }
    }
}

/// All slots, and apart from them their deadlines, close together because they are scanned most.
/// The slot behind the last session is the front itself.
#[derive(Debug)]
pub struct Sessions {
    pub(super) slots: Vec<Session>,
    pub(super) deadlines: Vec<Nanos>,
    pub(super) first: Nanos,
    turn: u16,
}

impl Sessions {
    pub fn new(sessions: u16) -> Self {
        let slots = usize::from(sessions) + 1;
        Self {
            slots: vec![Session::VACANT; slots],
            deadlines: vec![Nanos::NEVER; slots],
            first: Nanos::NEVER,
            turn: 0,
        }
    }

    /// The slot after the one this gave last, in a circle.
    fn next_in_turn(&mut self) -> SlotIndex {
        let slot = SlotIndex(self.turn);
        self.turn = if self.turn + 1 < self.len() { self.turn + 1 } else { 0 };
        slot
    }

    /// Number of session slots, the front's not counted.
    pub fn len(&self) -> u16 {
        u16::try_from(self.slots.len() - 1).unwrap_or(u16::MAX)
    }

    pub fn front_slot(&self) -> SlotIndex {
        SlotIndex(self.len())
    }

    pub fn get(&self, slot: SlotIndex) -> Option<&Session> {
        self.slots.get(usize::from(slot.0))
    }

    pub fn deadline(&self, slot: SlotIndex) -> Nanos {
        self.deadlines.get(usize::from(slot.0)).copied().unwrap_or(Nanos::NEVER)
    }

    /// The earliest deadline of all.
    pub fn first_deadline(&self) -> Nanos {
        self.first
    }

    pub fn forget_all(&mut self) {
        self.slots.fill(Session::VACANT);
        self.deadlines.fill(Nanos::NEVER);
        self.first = Nanos::NEVER;
    }

    pub fn watch_front(&mut self, deadline: Nanos) {
        self.set_deadline(self.front_slot(), deadline);
    }

    pub fn unwatch_front(&mut self) {
        self.set_deadline(self.front_slot(), Nanos::NEVER);
    }

    fn set_deadline(&mut self, slot: SlotIndex, deadline: Nanos) {
        let Some(place) = self.deadlines.get_mut(usize::from(slot.0)) else { return };
        let before = std::mem::replace(place, deadline);
        if deadline <= self.first {
            self.first = deadline;
        } else if before == self.first {
            // Only the end of the earliest one makes it necessary to go through all the others.
            self.first = self.earliest();
        }
        debug_assert_eq!(self.first, self.earliest(), "a deadline would be missed, or looked at for nothing");
    }

    pub(super) fn earliest(&self) -> Nanos {
        self.deadlines.iter().fold(Nanos::NEVER, |first, deadline| first.min(*deadline))
    }

    /// The session an owner word names, if it lives.
    pub fn live(&self, owner: Owner) -> Option<&Session> {
        if owner.slot >= self.front_slot() {
            return None;
        }
        self.get(owner.slot).filter(|session| {
            session.state == SessionState::Live
                && session.bound.is_some_and(|bound| bound.incarnation == owner.incarnation)
        })
    }

    /// Whether the owner word may name a session that has not been looked at yet. One that is known and does
    /// not live never will: the motors it drove name it for as long as nobody else takes them, and looking
    /// into its ring for each of them on every tick kept a slow processor busy for good.
    pub fn may_be_new(&self, owner: Owner) -> bool {
        let known = self.get(owner.slot).and_then(|session| session.bound);
        owner.slot < self.front_slot() && known.is_none_or(|bound| bound.incarnation < owner.incarnation)
    }

    /// The owner word of the live session in a slot.
    pub fn owner(&self, slot: SlotIndex) -> Option<Owner> {
        let session = self.get(slot).filter(|session| session.state == SessionState::Live)?;
        Some(Owner { slot, incarnation: session.bound?.incarnation })
    }

    /// The last beat of whichever living session beat last; zero if none lives.
    pub fn newest_beat(&self) -> Nanos {
        let sessions = self.slots.iter().take(usize::from(self.len()));
        let living = sessions.filter(|session| session.state == SessionState::Live);
        living.map(|session| session.last_beat).max().unwrap_or(Nanos::ZERO)
    }

    /// Ends a session; nothing revives it.
    pub fn end(&mut self, slot: SlotIndex, state: SessionState, trip: TripId) {
        if let Some(session) = self.slots.get_mut(usize::from(slot.0)) {
            session.state = state;
            session.trip = trip;
        }
        self.set_deadline(slot, Nanos::NEVER);
    }

    /// Takes in a beat of the session that lives in the slot, or of a new one.
    fn accept(&mut self, slot: SlotIndex, beat: &ValidBeat) {
        let Some(session) = self.slots.get_mut(usize::from(slot.0)) else { return };
        let known = session.bound.is_some_and(|bound| bound.incarnation == beat.incarnation);
        if !known {
            *session = Session {
                bound: Some(Bound {
                    session: beat.session,
                    incarnation: beat.incarnation,
                    window: beat.window,
                }),
                state: SessionState::Live,
                ..Session::VACANT
            };
        }
        if session.state != SessionState::Live {
            return;
        }
        let earlier = self.deadlines[usize::from(slot.0)];
        if known && beat.at > earlier {
            // It was silent for longer than its window, only nobody was awake to see it: the machine was
            // suspended or paused, or this loop was late. The deadline stands.
            return;
        }
        session.beats += 1;
        session.last_beat = session.last_beat.max(beat.at);
        let deadline = beat.at.after(session.window(beat.window).0);
        if !known || earlier == Nanos::NEVER || deadline > earlier {
            self.set_deadline(slot, deadline);
        }
    }

    /// Whether a session has beaten within that time.
    pub fn has_beaten_within(&self, slot: SlotIndex, window: Window, now: Nanos) -> bool {
        self.get(slot).is_some_and(|session| session.last_beat.after(window.0) > now)
    }

    /// Holds a session to that window from its last beat on, whatever window it was opened with.
    pub fn limit(&mut self, slot: SlotIndex, window: Window) {
        let Some(session) = self.slots.get_mut(usize::from(slot.0)) else { return };
        if window.0 >= session.limit.0 {
            return;
        }
        session.limit = window;
        let deadline = session.last_beat.after(window.0);
        if deadline < self.deadline(slot) {
            self.set_deadline(slot, deadline);
        }
    }

    pub fn verdict(&self, slot: SlotIndex) -> SessionVerdict {
        let session = self.get(slot).copied().unwrap_or(Session::VACANT);
        SessionVerdict {
            session: session.bound.map_or(SessionId::default(), |bound| bound.session),
            incarnation: session.bound.map_or(Incarnation::NONE, |bound| bound.incarnation),
            state: session.state,
            deadline: self.deadline(slot),
            last_beat: session.last_beat,
            trip: session.trip,
            beats: session.beats,
            window: session.bound.map_or(0, |bound| session.window(bound.window).0),
        }
    }
}

/// What one look into a ring brought besides accepted beats.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    end: End,
    rejected: bool,
}

/// Whether the session that lived in the slot said goodbye or was replaced.
#[derive(Clone, Copy, Debug, Default)]
enum End {
    /// It did not.
    #[default]
    None,
    /// It did; its motors must be stopped before a successor is let in.
    Ended { ending: Ending, successor: Successor },
}

/// Who came after a session that ended, within one look.
#[derive(Clone, Copy, Debug)]
enum Successor {
    /// Nobody.
    None,
    /// A session that lives; its last beat.
    Lives(ValidBeat),
    /// A session that has said goodbye already; its last beat before, and what it said.
    Left(ValidBeat, Ending),
}

impl Successor {
    fn after(self, beat: ValidBeat) -> Self {
        match (beat.word, self) {
            (Word::Alive, _) => Self::Lives(beat),
            (Word::Close(ending), Self::Lives(before) | Self::Left(before, _)) => Self::Left(before, ending),
            (Word::Close(_), Self::None) => Self::None,
        }
    }
}

/// Looks into one ring and takes in what is new.
fn look(
    sessions: &mut Sessions,
    reader: &mut SlotReader,
    view: &BeatView,
    tally: &mut Tally,
    how: Look,
    context: Context,
) -> Looked {
    let slot = context.slot;
    let mut looked = Looked::default();
    let mut current = context.bound;
    reader.look(view, how, context, |found| match found {
        Ok(beat) => {
            tally.beats += 1;
            let replaced = current.is_some_and(|bound| bound.incarnation != beat.incarnation);
            match &mut looked.end {
                End::Ended { successor, .. } => *successor = successor.after(beat),
                End::None if replaced => {
                    let successor = Successor::None.after(beat);
                    looked.end = End::Ended { ending: Ending::Unsaid, successor };
                }
                End::None => match beat.word {
                    Word::Alive => {
                        sessions.accept(slot, &beat);
                        current = sessions.get(slot).and_then(|session| session.bound);
                    }
                    Word::Close(ending) if current.is_some() => {
                        looked.end = End::Ended { ending, successor: Successor::None };
                    }
                    Word::Close(_) => {}
                },
            }
        }
        Err(reject) => {
            looked.rejected = true;
            tally.rejects[reject as usize] += 1;
        }
    });
    looked
}

/// Rings looked into in one tick because the front says that something is new there: by its change words, and
/// by owner words that name a session nobody knows. One that changes all of them on every tick costs this much
/// and no more.
const MOST_LOOKS: usize = 64;

impl Core {
    /// Trips every session whose deadline has passed and that has not beaten since.
    pub(super) fn expire(&mut self, now: Nanos, wire: &mut dyn Wire) {
        if self.sessions.first_deadline() > now {
            return;
        }
        // The front's own silence first: it covers every session at once.
        let front_slot = self.sessions.front_slot();
        if self.sessions.deadline(front_slot) <= now {
            self.look_at(front_slot, Look::Everywhere, now, wire);
            if self.sessions.deadline(front_slot) <= now {
                self.trip_front(Reason::FrontSilent, now, wire);
                // It may beat again; until then it is not due again either.
                self.sessions.unwatch_front();
            }
        }
        for slot in (0..self.sessions.len()).map(SlotIndex) {
            if self.sessions.deadline(slot) > now {
                continue;
            }
            let looked = self.look_at(slot, Look::Everywhere, now, wire);
            if let End::Ended { ending, successor } = looked.end {
                self.close(slot, ending, successor, now, wire);
            } else if self.sessions.deadline(slot) <= now {
                let reason = if looked.rejected { Reason::Corrupt } else { Reason::Expired };
                self.trip_session(slot, reason, SessionState::Tripped, now, wire);
            } else {
                self.publish_session(slot);
            }
        }
    }

    /// Looks into the rings whose change word says that a session opened or closed.
    pub(super) fn look_for_changes(&mut self, now: Nanos, wire: &mut dyn Wire) {
        let Some(front) = &self.front else { return };
        self.looks = MOST_LOOKS;
        let mut looks = 0;
        let mut changed = [SlotIndex(0); MOST_LOOKS];
        for slot in (0..self.sessions.len()).map(SlotIndex) {
            if looks == MOST_LOOKS {
                break;
            }
            if self.readers[usize::from(slot.0)].changed(&front.view, slot) {
                changed[looks] = slot;
                looks += 1;
            }
        }
        self.looks -= looks;
        for slot in &changed[..looks] {
            self.welcome(*slot, now, wire);
        }
        self.refresh(now, wire);
        let front_slot = self.sessions.front_slot();
        self.look_at(front_slot, Look::Onward, now, wire);
        let beat = self.sessions.get(front_slot).map_or(Nanos::ZERO, |front| front.last_beat);
        self.verdicts.front_beat(beat);
    }

    /// Looks into a slot for a session that opened or closed. Everywhere: the last beat of a session that
    /// was tripped in the same moment may lie before the first of its successor.
    pub(super) fn welcome(&mut self, slot: SlotIndex, now: Nanos, wire: &mut dyn Wire) {
        self.attend_to(slot, Look::Everywhere, now, wire);
    }

    /// Takes in what is new in a ring, and publishes it.
    fn attend_to(&mut self, slot: SlotIndex, how: Look, now: Nanos, wire: &mut dyn Wire) {
        if let End::Ended { ending, successor } = self.look_at(slot, how, now, wire).end {
            self.close(slot, ending, successor, now, wire);
        }
        self.publish_session(slot);
    }

    /// Looks into a few rings in turn, so that what is published of sessions is fresh. Deadlines do not
    /// need it: their rings are looked into when they are due.
    fn refresh(&mut self, now: Nanos, wire: &mut dyn Wire) {
        // The default 64 sessions are fresh to 40 ms at the default tick, for some 16 records a tick.
        const AT_A_TIME: u16 = 8;
        for _ in 0..AT_A_TIME.min(self.sessions.len()) {
            let slot = self.sessions.next_in_turn();
            if self.sessions.owner(slot).is_some() {
                self.attend_to(slot, Look::Onward, now, wire);
            }
        }
    }

    /// After a stop of everything: what the last beats were, for the record.
    pub(super) fn look_everywhere(&mut self, now: Nanos, wire: &mut dyn Wire) {
        for slot in (0..self.sessions.len()).map(SlotIndex) {
            if self.sessions.owner(slot).is_some() {
                self.look_at(slot, Look::Everywhere, now, wire);
            }
        }
    }

    fn close(
        &mut self,
        slot: SlotIndex,
        ending: Ending,
        successor: Successor,
        now: Nanos,
        wire: &mut dyn Wire,
    ) {
        self.trip_session(slot, ending.reason(), SessionState::Closed, now, wire);
        if let Successor::Lives(beat) | Successor::Left(beat, _) = successor {
            self.sessions.accept(slot, &beat);
            self.publish_session(slot);
        }
        if let Successor::Left(_, ending) = successor {
            self.trip_session(slot, ending.reason(), SessionState::Closed, now, wire);
        }
    }

    fn look_at(&mut self, slot: SlotIndex, how: Look, now: Nanos, wire: &mut dyn Wire) -> Looked {
        let Some(front) = &self.front else { return Looked::default() };
        let Some(reader) = self.readers.get_mut(usize::from(slot.0)) else { return Looked::default() };
        if how == Look::Everywhere && !reader.may_have_news(&front.view, slot) {
            return Looked::default();
        }
        let (shortest, longest) = if slot == self.sessions.front_slot() {
            (self.settings.front_window, self.settings.front_window)
        } else {
            self.settings.windows
        };
        // A beat written since the caller read the clock is not from the future.
        let present = now.max(wire.now());
        self.observed = self.observed.max(present);
        let session = self.sessions.get(slot);
        let newest = session.and_then(|session| session.bound);
        let context = Context {
            slot,
            generation: front.view.generation(),
            now: present,
            bound: newest.filter(|_| session.is_some_and(|session| session.state == SessionState::Live)),
            newest: newest.map_or(Incarnation::NONE, |bound| bound.incarnation),
            shortest,
            longest,
        };
        look(&mut self.sessions, reader, &front.view, &mut self.tally, how, context)
    }

    /// Of the front's own slot, for which there is no place, nothing is published.
    pub(super) fn publish_session(&self, slot: SlotIndex) {
        self.verdicts.session(slot, &self.sessions.verdict(slot));
    }

    pub(super) fn publish_sessions(&self) {
        for slot in (0..self.sessions.len()).map(SlotIndex) {
            self.publish_session(slot);
        }
    }
}
