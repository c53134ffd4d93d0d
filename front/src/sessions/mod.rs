//! Sessions: the one interface through which every client protocol opens, beats and uses them.
//!
//! A session lives in a slot of the beat segment. It is over as soon as the supervisor says so or its
//! own time has passed, whichever is seen first, and then for good: no late beat revives it, and its id
//! never comes back. With the supervisor all sessions go.
//!
//! What must never live here: anything of a particular protocol, CAN, or a lock held across an `.await`.

mod book;
mod error;
mod fledglings;
mod identity;
mod slot;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use shm_proto::{Nanos, Owner, SessionId, Window};
use tracing::{debug, info};

use book::Book;
pub use book::Listed;
pub use error::SessionError;
use fledglings::Fledglings;
pub use identity::{Entity, Peer};
use slot::{Cause, Departed, Slot};

use crate::link::{Attachment, Link};

/// How often sessions that are over are cleared away. Nothing but the reuse of slots waits for it.
const SWEEP: Duration = Duration::from_millis(50);

/// Proof that a call passed the session check. Whoever holds it may ask the supervisor for motors; what
/// it is worth by then the grant tells.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The attachment the session belongs to.
    pub attachment: Arc<Attachment>,
    /// How the motors know the session.
    pub owner: Owner,
}

/// A session as its client gets it.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Its id.
    pub id: SessionId,
    /// How long it may be silent.
    pub window: Window,
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    link: Arc<Link>,
    patience: u64,
    book: RwLock<Option<Arc<Book>>>,
    fledglings: Mutex<Fledglings>,
}

impl Sessions {
    /// No session yet. A supervisor that has been silent for longer than `patience` is given no new work.
    #[must_use]
    pub fn new(link: Arc<Link>, patience: Duration) -> Self {
        let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        Self { link, patience, book: RwLock::default(), fledglings: Mutex::default() }
    }

    /// Opens a session: when this returns, its first beat is written.
    ///
    /// # Errors
    ///
    /// When every slot is taken, or nobody watches.
    pub fn open(&self, entity: &Entity, peer: Peer, window: Window) -> Result<Opened, SessionError> {
        let book = self.book()?;
        self.is_watched(&book)?;
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
        Ok(resumed.ok().flatten().map(|window| Opened { id, window }))
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

    /// Notes that the session was the last to use a resource of the robot. Only for resources that exist:
    /// the notes must not grow with what clients make up.
    pub fn use_resource(&self, hold: &Hold, resource: &str) {
        if let Ok(book) = self.book()
            && Arc::ptr_eq(&book.attachment, &hold.attachment)
        {
            book.note_use(resource, hold.owner);
        }
    }

    /// Ends a session at its client's wish: the supervisor stops what it drives.
    ///
    /// # Errors
    ///
    /// As for [`Self::hold`].
    #[cfg_attr(not(test), expect(dead_code, reason = "Viam has no call for it; other protocols do"))]
    pub fn close(&self, entity: &Entity, id: SessionId) -> Result<(), SessionError> {
        let book = self.book()?;
        let departed = self.living(&book, entity, id, |slot, _| slot.leave(Cause::Goodbye))?;
        self.note(&book, departed);
        Ok(())
    }

    /// Ends every session, because the program ends.
    pub fn close_all(&self) {
        if let Ok(book) = self.book() {
            self.note(&book, book.empty(Cause::Goodbye));
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
    }

    fn note(&self, book: &Book, departed: impl IntoIterator<Item = Departed>) {
        for session in departed {
            let used = book.strike(&session);
            let from = session.peer.remote.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
            let Departed { id, cause, .. } = &session;
            // Anybody may open sessions; only one that moved something is worth a line to everybody.
            if used.is_empty() {
                debug!("session {id} from {from} ended: {cause}");
            } else {
                info!("session {id} from {from} ended: {cause}; it was the last to use {}", used.join(", "));
            }
            if session.unfledged && session.cause != Cause::Goodbye {
                let mut fledglings = self.fledglings.lock().unwrap_or_else(PoisonError::into_inner);
                fledglings.note(session.id, session.entity, Nanos::now());
            }
        }
    }

    /// Whether the supervisor still looks at the beats. A process that hangs keeps its connection.
    fn is_watched(&self, book: &Book) -> Result<(), SessionError> {
        let (_, last) = book.attachment.verdicts.beat();
        if Nanos::now().since(last) <= self.patience { Ok(()) } else { Err(SessionError::SUPERVISOR_SILENT) }
    }
}
