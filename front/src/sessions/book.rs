//! All sessions of one attachment. A new supervisor means a new, empty book.
//!
//! No lock in here is held for longer than it takes to look something up or to write one beat, and none
//! across an `.await`: a heartbeat never waits behind a command.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use config::Takeover;
use shm_proto::{Nanos, Owner, SessionId, SlotIndex, Window};

use super::identity::{Entity, Peer};
use super::slot::{Cause, Departed, Slot};
use super::uses::{Command, LastUse, Uses};
use crate::link::Attachment;

/// The sessions and their slots.
#[derive(Debug)]
pub struct Book {
    /// The attachment whose rings these are.
    pub attachment: Arc<Attachment>,
    slots: Box<[Mutex<Slot>]>,
    index: RwLock<HashMap<SessionId, SlotIndex>>,
    free: Mutex<VecDeque<SlotIndex>>,
    /// Taken before that of a slot when both are needed, never after it.
    uses: Mutex<Uses>,
}

/// A session that lives.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: SessionId,
    /// Where it was opened from.
    pub peer: Peer,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    /// An empty book. There must be only one per attachment, as there may be only one writer per ring.
    pub fn new(attachment: Arc<Attachment>) -> Self {
        let beats = &attachment.beats;
        let slots: Box<[_]> = beats
            .capacity()
            .slots()
            .filter_map(|slot| beats.writer(slot))
            .map(|writer| Mutex::new(Slot::new(writer)))
            .collect();
        let free = beats.capacity().slots().collect();
        Self { slots, index: RwLock::default(), free: Mutex::new(free), uses: Mutex::default(), attachment }
    }

    fn slot(&self, slot: SlotIndex) -> Option<MutexGuard<'_, Slot>> {
        self.slots.get(usize::from(slot.0)).map(locked)
    }

    /// Opens a session in a free slot; `None` when there is none.
    pub fn open(&self, id: SessionId, entity: Entity, peer: Peer, window: Window) -> Option<Owner> {
        let free = locked(&self.free).pop_front()?;
        let owner = self.slot(free)?.open(id, entity, peer, window);
        self.index.write().unwrap_or_else(PoisonError::into_inner).insert(id, free);
        Some(owner)
    }

    /// Finds a living session of that owner and does something with its slot.
    ///
    /// # Errors
    ///
    /// When there is none; with the session if it was found to be over just now.
    pub fn with<T>(
        &self,
        id: SessionId,
        entity: &Entity,
        act: impl FnOnce(&mut Slot, Nanos) -> T,
    ) -> Result<T, Option<Box<Departed>>> {
        let place = self.index.read().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        let mut slot = place.and_then(|place| self.slot(place)).ok_or(None)?;
        // The slot may have changed hands since the look into the index.
        let known = slot.tenant().is_some_and(|tenant| tenant.id == id && tenant.entity.is(entity));
        if !known {
            return Err(None);
        }
        // Read under the lock, so that the beats of a ring are in order.
        let now = Nanos::now();
        match slot.over(&self.attachment.verdicts, now) {
            None => Ok(act(&mut slot, now)),
            Some(cause) => Err(slot.leave(cause).map(Box::new)),
        }
    }

    /// Takes out every session that is over and frees the slots whose end the supervisor has seen.
    pub fn sweep(&self) -> Vec<Departed> {
        let verdicts = &self.attachment.verdicts;
        let mut departed = Vec::new();
        for place in (0..).map(SlotIndex).take(self.slots.len()) {
            let Some(mut slot) = self.slot(place) else { continue };
            if let Some(cause) = slot.over(verdicts, Nanos::now()) {
                departed.extend(slot.leave(cause));
            }
            let cleared = slot.clear(verdicts);
            drop(slot);
            if cleared {
                locked(&self.free).push_back(place);
            }
        }
        departed
    }

    /// Takes out every session.
    pub fn empty(&self, cause: Cause) -> Vec<Departed> {
        self.slots.iter().filter_map(|slot| locked(slot).leave(cause)).collect()
    }

    /// Removes what is noted of a session that has departed, and tells which resources it used last.
    pub fn strike(&self, departed: &Departed) -> Vec<LastUse> {
        self.index.write().unwrap_or_else(PoisonError::into_inner).remove(&departed.id);
        self.uses().strike(departed.owner)
    }

    /// Who uses what.
    pub fn uses(&self) -> MutexGuard<'_, Uses> {
        locked(&self.uses)
    }

    /// Notes that a command begins, and holds its session to `allowed` from now on. `is_own`: another session of the same
    /// client, which keeps nothing from it.
    ///
    /// # Errors
    ///
    /// Where who has the resource keeps it: with where that session was opened from.
    pub fn begin(
        &self,
        command: Command<'_>,
        takeover: Takeover,
        allowed: Option<Window>,
        is_own: impl Fn(Owner) -> bool,
    ) -> Result<(), Peer> {
        let is_rival = |owner| self.lives(owner) && !is_own(owner);
        let began = self.uses().begin(command, takeover, is_rival);
        began.map_err(|holder| {
            let slot = self.slot(holder.slot);
            slot.and_then(|slot| slot.tenant().map(|tenant| tenant.peer)).unwrap_or_default()
        })?;
        if let Some(allowed) = allowed
            && let Some(mut slot) = self.slot(command.owner.slot).filter(|slot| slot.owner() == command.owner)
        {
            slot.tighten(allowed);
        }
        Ok(())
    }

    /// Whether the session that the motors know by that name lives.
    pub fn lives(&self, owner: Owner) -> bool {
        let slot = self.slot(owner.slot).filter(|slot| slot.owner() == owner && slot.tenant().is_some());
        slot.is_some_and(|slot| slot.over(&self.attachment.verdicts, Nanos::now()).is_none())
    }

    /// Takes out the sessions that the motors know by these names.
    pub fn expel(&self, owners: &[Owner], cause: Cause) -> Vec<Departed> {
        let slots =
            owners.iter().filter_map(|owner| self.slot(owner.slot).filter(|slot| slot.owner() == *owner));
        slots.filter_map(|mut slot| slot.leave(cause)).collect()
    }

    /// How many sessions of that entity there are.
    pub fn count(&self, entity: &Entity) -> usize {
        let theirs =
            |slot: &&Mutex<Slot>| locked(slot).tenant().is_some_and(|tenant| tenant.entity.is(entity));
        self.slots.iter().filter(theirs).count()
    }

    /// Every session that lives.
    pub fn list(&self) -> Vec<Listed> {
        let living = |slot: &Mutex<Slot>| {
            let slot = locked(slot);
            if slot.over(&self.attachment.verdicts, Nanos::now()).is_some() {
                return None;
            }
            slot.tenant().map(|tenant| Listed { id: tenant.id, peer: tenant.peer })
        };
        self.slots.iter().filter_map(living).collect()
    }
}
