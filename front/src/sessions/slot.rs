//! One place for a session: its ring of beats, and who is in it.

use std::fmt;

use shm_proto::verdicts::SessionState;
use shm_proto::{BeatWriter, Ending, Nanos, Owner, SessionId, VerdictView, Window};

use super::identity::{Entity, Peer};

/// The session in a slot.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub entity: Entity,
    /// Where it was opened from.
    pub peer: Peer,
    /// How long it may be silent.
    pub window: Window,
    /// What of its window is left to it: less if something it uses allows less.
    allowed: Window,
    /// Its last beat.
    last: Nanos,
    /// Whether its client has beaten or used it since it was opened or resumed.
    fledged: bool,
}

#[derive(Debug)]
enum Place {
    Free,
    Taken(Tenant),
    /// Over here; the supervisor has not said so yet.
    Leaving(SessionId),
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was silent for longer than its window.
    Silent,
    /// It was silent for longer than something it uses allows.
    Overdue,
    /// It beat, but sent no command for longer than something it keeps moving allows.
    NoProgress,
    /// The server behind what it uses is lost.
    UpstreamLost,
    /// The target of a tunnel that it drove through is lost.
    TargetLost,
    /// The listener that it came through was closed.
    ListenerClosed,
    /// Its client sent what it may not.
    CutOff,
    /// Its client's connection ended without a goodbye.
    ClientLost,
    /// Its client said goodbye.
    Goodbye,
    /// This program ends.
    ProgramEnds,
    /// The supervisor ended it.
    Verdict,
    /// The supervisor itself is gone.
    Forgotten,
}

impl Cause {
    /// What the supervisor is told; `None` for what it knows by itself, or finds by itself.
    const fn ending(self) -> Option<Ending> {
        match self {
            Self::Overdue => Some(Ending::Overdue),
            Self::NoProgress => Some(Ending::NoProgress),
            Self::UpstreamLost => Some(Ending::UpstreamLost),
            Self::TargetLost => Some(Ending::TargetLost),
            Self::ListenerClosed => Some(Ending::ListenerClosed),
            Self::CutOff => Some(Ending::CutOff),
            Self::ClientLost => Some(Ending::ClientLost),
            Self::Goodbye => Some(Ending::Client),
            Self::ProgramEnds => Some(Ending::FrontEnds),
            Self::Silent | Self::Verdict | Self::Forgotten => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "it was silent for longer than its window",
            Self::Overdue => "it was silent for longer than the window of something it drove",
            Self::NoProgress => {
                "its heartbeats went on, but it sent no command for longer than require_progress of something \
                 it kept moving"
            }
            Self::UpstreamLost => "the server behind what it drove does not answer any more",
            Self::TargetLost => "the target that it drove is lost",
            Self::ListenerClosed => "the listener that it came through was closed",
            Self::CutOff => "its client sent what it may not",
            Self::ClientLost => "its client's connection ended",
            Self::Goodbye => "its client closed it",
            Self::ProgramEnds => "the front ends",
            Self::Verdict => "the supervisor ended it",
            Self::Forgotten => "the supervisor is gone",
        })
    }
}

/// A session that has just ended.
#[derive(Debug)]
pub struct Departed {
    /// Who it was.
    pub id: SessionId,
    /// Whose it was.
    pub entity: Entity,
    /// Where it was opened from.
    pub peer: Peer,
    /// How the motors know it.
    pub owner: Owner,
    /// Why it ended.
    pub cause: Cause,
    /// It ended before its client's first beat.
    pub unfledged: bool,
}

/// A ring of beats and the session in it. The writer stays for as long as the attachment: its counter
/// must never begin anew within one.
#[derive(Debug)]
pub struct Slot {
    writer: BeatWriter,
    place: Place,
}

impl Slot {
    /// A slot that nobody has been in.
    pub const fn new(writer: BeatWriter) -> Self {
        Self { writer, place: Place::Free }
    }

    /// Puts a new session in, with its first beat.
    pub fn open(&mut self, id: SessionId, entity: Entity, peer: Peer, window: Window) -> Owner {
        // The stamp of the beat, so that both sides have the same deadline.
        let now = Nanos::now();
        let owner = self.writer.open_at(id, window, now);
        let tenant = Tenant { id, entity, peer, window, allowed: window, last: now, fledged: false };
        self.place = Place::Taken(tenant);
        owner
    }

    /// The session in the slot, dead or alive.
    pub const fn tenant(&self) -> Option<&Tenant> {
        match &self.place {
            Place::Taken(tenant) => Some(tenant),
            Place::Free | Place::Leaving(_) => None,
        }
    }

    /// How the motors know the session in the slot.
    pub const fn owner(&self) -> Owner {
        self.writer.owner()
    }

    /// Why the session in the slot is over, if it is: its time has passed, or the supervisor said so. Its own silence comes
    /// first: it is why the supervisor said so, as a rule a moment before anybody looks here.
    pub fn over(&self, verdicts: &VerdictView, now: Nanos) -> Option<Cause> {
        let tenant = self.tenant()?;
        if now >= tenant.last.after(tenant.window.0) {
            Some(Cause::Silent)
        } else if ended(verdicts, self.owner(), tenant.id) {
            Some(Cause::Verdict)
        } else if now >= tenant.last.after(tenant.allowed.0) {
            Some(Cause::Overdue)
        } else {
            None
        }
    }

    /// A beat of the session in the slot, at `at`, not later than now; one that is older than the last says
    /// nothing. Look at [`Self::over`] first: a silent session must not revive.
    pub fn beat(&mut self, at: Nanos) {
        if let Place::Taken(tenant) = &mut self.place
            && at > tenant.last
        {
            self.writer.beat_at(at);
            tenant.last = at;
            tenant.fledged = true;
        }
    }

    /// From now on the session in the slot may be silent for no longer than this. The supervisor goes on watching over
    /// the whole window, for a front that does not do its part is stopped within its own.
    pub fn tighten(&mut self, allowed: Window) {
        if let Place::Taken(tenant) = &mut self.place
            && allowed.0 < tenant.allowed.0
        {
            tenant.allowed = allowed;
        }
    }

    /// The client was given this session's id anew: its next beat counts as the first.
    pub const fn unfledge(&mut self) {
        if let Place::Taken(tenant) = &mut self.place {
            tenant.fledged = false;
        }
    }

    /// Takes the session out. For good: the slot stays closed until the supervisor has seen the end too.
    pub fn leave(&mut self, cause: Cause) -> Option<Departed> {
        let Tenant { id, entity, peer, fledged, .. } = self.tenant()?.clone();
        if let Some(ending) = cause.ending() {
            self.writer.close(ending);
        }
        let owner = self.owner();
        self.place = Place::Leaving(id);
        Some(Departed { id, entity, peer, owner, cause, unfledged: !fledged })
    }

    /// Frees the slot when the supervisor has seen the end of its last session. True once per end.
    pub fn clear(&mut self, verdicts: &VerdictView) -> bool {
        let over = matches!(&self.place, Place::Leaving(id) if ended(verdicts, self.owner(), *id));
        if over {
            self.place = Place::Free;
        }
        over
    }
}

/// Whether the supervisor has ended a session. An entry of an older session, or none at all, means that
/// it has not looked yet; and an entry that only has the same number may be left from another front.
fn ended(verdicts: &VerdictView, owner: Owner, id: SessionId) -> bool {
    let (incarnation, state) = verdicts.session_state(owner.slot);
    incarnation >= owner.incarnation
        && state != SessionState::Live
        && verdicts.session(owner.slot).is_some_and(|verdict| verdict.session == id)
}
