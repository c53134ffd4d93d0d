//! Sessions: the one interface through which every client protocol opens, beats and uses them.
//!
//! A session lives in a slot of the beat segment. It is over as soon as the supervisor says so or its
//! own time has passed, whichever is seen first, and then for good: no late beat revives it, and its id
//! never comes back. With the supervisor all sessions go.
//!
//! What must never live here: anything of a particular protocol, CAN, or a lock held across an `.await`.

mod book;
mod endings;
mod error;
mod fledglings;
mod identity;
mod leases;
#[cfg(test)]
mod rdk;
mod rules;
mod slot;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod uses;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use config::LeaseFeed;
use shm_proto::{MotorIndex, Nanos, Owner, SessionId, Window};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

use book::Book;
pub use book::Listed;
use endings::Endings;
pub use error::SessionError;
use fledglings::Fledglings;
pub use identity::{Entity, Peer};
use leases::Leases;
pub use leases::{Driven, Stopped};
pub use rules::{Rules, window};
pub use slot::Cause;
use slot::{Departed, Slot};
use uses::Command;
pub use uses::LastUse;

use crate::link::{Attachment, Link};

/// How often sessions that are over are looked for. The supervisor does not wait for it; windows of single resources,
/// calls under way and the reuse of slots do. Viam's own server looks as often.
const SWEEP: Duration = Duration::from_millis(10);

/// Proof that a call passed the session check. Whoever holds it may ask the supervisor for motors; what
/// it is worth by then the grant tells.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The attachment the session belongs to.
    pub attachment: Arc<Attachment>,
    /// How the motors know the session.
    pub owner: Owner,
}

/// A command for a resource that is being carried out; it has ended when this is dropped.
#[derive(Debug)]
pub struct Use {
    book: Arc<Book>,
    resource: Box<str>,
    owner: Owner,
}

impl Drop for Use {
    fn drop(&mut self) {
        self.book.uses().end(&self.resource, self.owner);
    }
}

/// A session that has ended, and what it left behind.
#[derive(Clone, Debug)]
pub struct Departure {
    /// Which one.
    pub id: SessionId,
    /// How the motors know it, and whose verdicts tell when the supervisor has seen its end.
    pub hold: Hold,
    /// Why it ended.
    pub cause: Cause,
    /// What it was the last to use.
    pub used: Vec<LastUse>,
}

/// A session as its client gets it.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Its id.
    pub id: SessionId,
    /// How long it may be silent, as its client is told: never longer than what holds for anything it may use.
    pub window: Window,
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    link: Arc<Link>,
    rules: Rules,
    book: RwLock<Option<Arc<Book>>>,
    fledglings: Mutex<Fledglings>,
    endings: Mutex<Endings>,
    leases: Leases,
    /// Counts the sessions that have ended.
    ended: watch::Sender<u64>,
    mourners: Mutex<Vec<mpsc::UnboundedSender<Departure>>>,
}

impl Sessions {
    /// No session yet.
    #[must_use]
    pub fn new(link: Arc<Link>, rules: Rules) -> Self {
        Self {
            link,
            rules,
            book: RwLock::default(),
            fledglings: Mutex::default(),
            endings: Mutex::default(),
            leases: Leases::default(),
            ended: watch::Sender::new(0),
            mourners: Mutex::default(),
        }
    }

    /// The rules they must keep to.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Opens a session: when this returns, its first beat is written.
    ///
    /// # Errors
    ///
    /// When every slot is taken, this entity has as many as it may, or nobody watches.
    pub fn open(&self, entity: &Entity, peer: Peer, window: Window) -> Result<Opened, SessionError> {
        let book = self.book()?;
        self.is_watched(&book)?;
        let most = self.rules.most_per_entity;
        if most < usize::from(book.attachment.beats.capacity().sessions()) && book.count(entity) >= most {
            return Err(SessionError::TooManyOfYours(most));
        }
        let id = SessionId(uuid::Uuid::new_v4().as_u128());
        let open = || book.open(id, entity.clone(), peer, window);
        let opened = open().or_else(|| {
            self.clear(&book);
            open()
        });
        if book.attachment.is_gone() {
            // The book may have been closed just before this entry: the client must not get its id.
            self.note(&book, book.empty(Cause::Forgotten));
            return Err(SessionError::NO_SUPERVISOR);
        }
        let window = self.rules.told(window);
        opened.map(|_| Opened { id, window }).ok_or(SessionError::TooMany)
    }

    /// Takes up a session that lives, with a beat; `None` when there is no such one.
    ///
    /// # Errors
    ///
    /// When nobody watches.
    pub fn resume(&self, entity: &Entity, id: SessionId) -> Result<Option<Opened>, SessionError> {
        let book = self.book()?;
        let resumed = self.living(&book, entity, id, |slot, now| {
            slot.beat(now);
            slot.unfledge();
            slot.tenant().map(|tenant| tenant.window)
        });
        Ok(resumed.ok().flatten().map(|window| Opened { id, window: self.rules.told(window) }))
    }

    /// "I am alive", from memory: no await, no system call but the clock read.
    ///
    /// # Errors
    ///
    /// [`SessionError::Expired`], whether the session is unknown, another owner's, over or forgotten.
    pub fn beat(&self, entity: &Entity, id: SessionId) -> Result<(), SessionError> {
        let beaten = match self.book() {
            Ok(book) => self.living(&book, entity, id, Slot::beat),
            Err(_) => Err(SessionError::Expired),
        };
        beaten.or_else(|expired| {
            let mut fledglings = self.fledglings.lock().unwrap_or_else(PoisonError::into_inner);
            if fledglings.take(id, entity, Nanos::now()) { Ok(()) } else { Err(expired) }
        })
    }

    /// The check before every motion: the session lives, and somebody watches it. Counts as a beat.
    ///
    /// # Errors
    ///
    /// [`SessionError::Expired`] as for [`Self::beat`]; [`SessionError::Unavailable`] when nobody watches.
    pub fn hold(&self, entity: &Entity, id: SessionId) -> Result<Hold, SessionError> {
        let book = self.book()?;
        let owner = self.living(&book, entity, id, |slot, now| {
            slot.beat(now);
            slot.owner()
        })?;
        self.is_watched(&book)?;
        Ok(Hold { attachment: Arc::clone(&book.attachment), owner })
    }

    /// A beat that its client gave at `at`, not by a call of its own; `None`: there is no news, and only whether it
    /// still lives is looked at.
    fn beat_of(&self, entity: &Entity, id: SessionId, at: Option<Nanos>) -> Result<(), SessionError> {
        let book = self.book()?;
        self.living(&book, entity, id, |slot, _| at.map_or((), |at| slot.beat(at)))
    }

    /// Notes that a command of the session for a resource of the robot begins: from now on it was the last to use it, and
    /// the motors behind it. The command is under way until the [`Use`] is dropped.
    ///
    /// Only for resources that exist: the notes must not grow with what clients make up.
    ///
    /// # Errors
    ///
    /// [`SessionError::Held`] where another session has it and keeps it; [`SessionError::Expired`] when the session has
    /// gone with its supervisor.
    pub fn use_resource(
        &self,
        hold: &Hold,
        resource: &str,
        motors: &[MotorIndex],
    ) -> Result<Use, SessionError> {
        self.use_resource_since(hold, resource, motors, Nanos::now())
    }

    /// Notes the same of a command that arrived at `arrived`.
    ///
    /// # Errors
    ///
    /// As for [`Self::use_resource`].
    pub fn use_resource_since(
        &self,
        hold: &Hold,
        resource: &str,
        motors: &[MotorIndex],
        arrived: Nanos,
    ) -> Result<Use, SessionError> {
        let book = self.book()?;
        if !Arc::ptr_eq(&book.attachment, &hold.attachment) {
            return Err(SessionError::Expired);
        }
        let rules = self.rules.resource(resource);
        let progress = rules.progress.map(|progress| window(progress).0);
        let command = Command { resource, motors, owner: hold.owner, progress, arrived };
        let is_own = |owner| self.leases.are_of_one_connection(owner, hold.owner);
        book.begin(command, self.rules.takeover, rules.window.map(window), is_own).map_err(|holder| {
            let from = holder.remote.map_or_else(String::new, |remote| format!(" (from {remote})"));
            SessionError::Held { resource: resource.to_owned(), from }
        })?;
        Ok(Use { book, resource: resource.into(), owner: hold.owner })
    }

    /// Notes that a resource was brought to rest: nothing more is expected of who used it last.
    pub fn rest(&self, resource: &str) {
        self.rest_before(resource, Nanos::now());
    }

    /// Notes that a resource was brought to rest by what arrived at `at`. A command that arrived later keeps it moving.
    pub fn rest_before(&self, resource: &str, at: Nanos) {
        if let Ok(book) = self.book() {
            book.uses().rest(resource, at);
        }
    }

    /// Whether a session that lives was the last to use a resource.
    #[must_use]
    pub fn is_used(&self, resource: &str) -> bool {
        self.book().is_ok_and(|book| {
            let owners = book.uses().owners(|key| key == resource);
            owners.into_iter().any(|owner| book.lives(owner))
        })
    }

    /// Whether a session has any of these motors at present.
    #[must_use]
    pub fn has_any(&self, motors: &[MotorIndex]) -> bool {
        self.book()
            .is_ok_and(|book| motors.iter().any(|motor| book.attachment.verdicts.granted(*motor).is_some()))
    }

    /// Whether any resource of that kind is kept moving by a session.
    #[must_use]
    pub fn is_anything_moving(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.book().is_ok_and(|book| book.uses().is_anything_moving(wanted))
    }

    /// Notes that everything was brought to rest by what arrived at `at`.
    pub fn rest_all_before(&self, at: Nanos) {
        if let Ok(book) = self.book() {
            book.uses().rest_all(at);
        }
    }

    /// Returns when the session behind a hold is over.
    pub async fn ended(&self, hold: &Hold) -> SessionError {
        let mut ended = self.ended.subscribe();
        loop {
            let lives = self
                .book()
                .is_ok_and(|book| Arc::ptr_eq(&book.attachment, &hold.attachment) && book.lives(hold.owner));
            // The sender lives in `self`, so the wait cannot end for want of one.
            if !lives || ended.changed().await.is_err() {
                return SessionError::Expired;
            }
        }
    }

    /// Every session that ends from now on.
    pub fn departures(&self) -> mpsc::UnboundedReceiver<Departure> {
        // As many as there are slots at most can end at once.
        let (sender, receiver) = mpsc::unbounded_channel();
        self.mourners.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Why a session of that entity has ended, in words, for as long as that is remembered.
    pub fn why(&self, entity: &Entity, id: SessionId) -> Option<String> {
        let endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        endings.why(id, entity).map(str::to_owned)
    }

    /// Ends every session that was the last to use a resource of that kind: the supervisor stops what they drive.
    pub fn close_users_of(&self, wanted: impl Fn(&str) -> bool, cause: Cause) {
        if let Ok(book) = self.book() {
            let owners = book.uses().owners(wanted);
            self.note(&book, book.expel(&owners, cause));
        }
    }

    /// Ends a session at its client's wish: the supervisor stops what it drives.
    ///
    /// # Errors
    ///
    /// As for [`Self::hold`].
    pub fn close(&self, entity: &Entity, id: SessionId) -> Result<(), SessionError> {
        self.close_for(entity, id, Cause::Goodbye)
    }

    /// Ends a session for that cause: the supervisor stops what it drives, and tells why.
    ///
    /// # Errors
    ///
    /// As for [`Self::hold`].
    pub fn close_for(&self, entity: &Entity, id: SessionId, cause: Cause) -> Result<(), SessionError> {
        let book = self.book()?;
        let departed = self.living(&book, entity, id, |slot, _| slot.leave(cause))?;
        self.note(&book, departed);
        Ok(())
    }

    /// Ends every session, because the program ends.
    pub fn close_all(&self) {
        if let Ok(book) = self.book() {
            self.note(&book, book.empty(Cause::ProgramEnds));
        }
    }

    /// Every session that lives.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        self.book().map(|book| book.list()).unwrap_or_default()
    }

    /// Clears away what is over, for as long as the program runs.
    pub async fn reap(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Ok(book) = self.book() {
                self.clear(&book);
            }
        }
    }

    /// The book of the present attachment.
    fn book(&self) -> Result<Arc<Book>, SessionError> {
        let known = self.book.read().unwrap_or_else(PoisonError::into_inner).clone();
        let book = match (&known, &self.link.current()) {
            (Some(book), Some(present)) if Arc::ptr_eq(&book.attachment, present) => known,
            (None, None) => None,
            _ => self.turn_over(),
        };
        book.ok_or(SessionError::NO_SUPERVISOR)
    }

    /// Puts the book of the present attachment in the place of an older one.
    fn turn_over(&self) -> Option<Arc<Book>> {
        let mut known = self.book.write().unwrap_or_else(PoisonError::into_inner);
        // Looked up under the lock: nobody can put an older attachment's book back, and none gets two.
        let present = self.link.current();
        let up_to_date = match (&*known, &present) {
            (Some(book), Some(present)) => Arc::ptr_eq(&book.attachment, present),
            (None, None) => true,
            _ => false,
        };
        if up_to_date {
            return known.clone();
        }
        let new = present.map(|attachment| Arc::new(Book::new(attachment)));
        let old = std::mem::replace(&mut *known, new.clone());
        if let Some(old) = old {
            // Still under the lock: whoever finds the new book finds its fledglings noted.
            self.note(&old, old.empty(Cause::Forgotten));
        }
        new
    }

    fn living<T>(
        &self,
        book: &Book,
        entity: &Entity,
        id: SessionId,
        act: impl FnOnce(&mut Slot, Nanos) -> T,
    ) -> Result<T, SessionError> {
        book.with(id, entity, act).map_err(|departed| {
            self.note(book, departed.map(|departed| *departed));
            SessionError::Expired
        })
    }

    fn clear(&self, book: &Book) {
        self.note(book, book.sweep());
        let overdue = book.uses().overdue(Nanos::now());
        if !overdue.is_empty() {
            self.note(book, book.expel(&overdue, Cause::NoProgress));
        }
    }

    fn note(&self, book: &Book, departed: impl IntoIterator<Item = Departed>) {
        let mut count = 0;
        for session in departed {
            count += 1;
            let used = book.strike(&session);
            let from = session.peer.remote.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
            let Departed { id, cause, entity, owner, unfledged, .. } = session;
            let why = self.explained(id, cause);
            // Anybody may open sessions; only one that moved something is worth a line to everybody.
            if used.is_empty() {
                debug!("session {id} from {from} ended: {why}");
            } else {
                let names: Vec<&str> = used.iter().map(|last| &*last.resource).collect();
                info!("session {id} from {from} ended: {why}; it was the last to use {}", names.join(", "));
            }
            if unfledged && cause != Cause::Goodbye {
                let mut fledglings = self.fledglings.lock().unwrap_or_else(PoisonError::into_inner);
                fledglings.note(id, entity.clone(), Nanos::now());
            }
            let moved = used.iter().any(|last| last.moving);
            self.leases.note_end(id, moved.then_some(&*why));
            self.endings.lock().unwrap_or_else(PoisonError::into_inner).note(id, entity, why);
            let hold = Hold { attachment: Arc::clone(&book.attachment), owner };
            let departure = Departure { id, hold, cause, used };
            let mut mourners = self.mourners.lock().unwrap_or_else(PoisonError::into_inner);
            mourners.retain(|mourner| mourner.send(departure.clone()).is_ok());
        }
        if count > 0 {
            self.ended.send_modify(|ended| *ended += count);
        }
    }

    /// Says in words why a session has ended. A client whose lease ran out while it was connected is told what was missing.
    fn explained(&self, id: SessionId, cause: Cause) -> String {
        let counts_commands = self.rules.lease == LeaseFeed::Commands;
        if cause != Cause::Silent || !counts_commands || !self.leases.is_connected(id) {
            return cause.to_string();
        }
        format!(
            "no command came for {} ms (lease_window), though its connection was open; lease = \"pings\" in [front] counts \
             answers to pings, where neither a proxy nor a browser stands between",
            self.rules.lease_window.0 / 1_000_000
        )
    }

    /// Whether the supervisor still looks at the beats. A process that hangs keeps its connection.
    fn is_watched(&self, book: &Book) -> Result<(), SessionError> {
        let (_, last) = book.attachment.verdicts.beat();
        if Nanos::now().since(last) <= self.rules.patience {
            Ok(())
        } else {
            Err(SessionError::SUPERVISOR_SILENT)
        }
    }
}
