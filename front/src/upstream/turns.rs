//! The tasks around [`Admission`]: each call waits for its turn here, and hears when it must end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shm_proto::Nanos;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;

use super::admission::{Admission, End, Fate, SETTLES_WITHIN, STOPPED_AFTER, Scope, Step, Ticket, Turn, Why};
use crate::order::Origin;

/// How long a command waits for what came before it: as long as a Stop takes whose older calls have to be reset, and
/// some time for the server's answer. A command that is older than that is nothing to surprise anybody with.
const PATIENCE: Duration =
    Duration::from_millis(750).saturating_add(STOPPED_AFTER).saturating_add(SETTLES_WITHIN);

/// All calls that move or stop something.
#[derive(Debug)]
pub struct Turns {
    admission: Mutex<Admission>,
    changes: watch::Sender<u64>,
}

impl Turns {
    /// None yet. `hold`: how long a Stop holds its sender's other connections off.
    #[must_use]
    pub fn new(hold: Duration) -> Arc<Self> {
        Arc::new(Self { admission: Mutex::new(Admission::new(hold)), changes: watch::Sender::new(0) })
    }

    /// Checks whether a command comes in time, before anything is done for it.
    ///
    /// # Errors
    ///
    /// ABORTED when something newer has arrived, or a Stop of its sender holds it off.
    pub fn check(&self, origin: &Origin, scope: &Scope, resource: &str) -> Result<(), Status> {
        self.look(|admission, _| admission.check(origin, scope)).map_err(|why| refusal(why, resource))
    }

    /// Takes a command in, to be called as soon as its resource and its session are known.
    ///
    /// # Errors
    ///
    /// ABORTED when something newer has arrived, or a Stop of its sender holds it off.
    pub fn command(self: &Arc<Self>, origin: &Origin, scope: Scope, resource: &str) -> Result<Place, Status> {
        let taken = self.change(|admission, _| admission.command(origin, scope));
        let ticket = taken.map_err(|why| refusal(why, resource))?;
        let patience = Instant::now() + PATIENCE;
        Ok(Place { turns: Arc::clone(self), ticket, resource: resource.into(), end: End::Unsent, patience })
    }

    /// Takes a Stop in: what waits and is older is void from now on.
    #[must_use]
    pub fn stop(self: &Arc<Self>, origin: &Origin, scope: Scope) -> Stopping {
        let ticket = self.change(|admission, now| admission.stop(origin, scope, now));
        Stopping { turns: Arc::clone(self), ticket, end: End::Unsent }
    }

    /// Whether nothing newer than this request has arrived for what it is for.
    #[must_use]
    pub fn is_newest(&self, origin: &Origin, scope: &Scope) -> bool {
        self.look(|admission, _| admission.is_newest(origin, scope))
    }

    /// How long the server may still be at work for calls of a scope that were reset.
    #[must_use]
    pub fn unsettled(&self, scope: &Scope) -> Option<Duration> {
        self.look(|admission, now| admission.unsettled(scope, now))
    }

    fn look<T>(&self, act: impl FnOnce(&mut Admission, Nanos) -> T) -> T {
        let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut admission, Nanos::now())
    }

    fn change<T>(&self, act: impl FnOnce(&mut Admission, Nanos) -> T) -> T {
        let done = self.look(act);
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
        done
    }

    /// Looks, whenever something has changed or the moment has come that the last look named, until there is an answer.
    async fn until<T>(&self, mut look: impl FnMut(&mut Admission, Nanos) -> Result<T, Option<Nanos>>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let again = match self.look(&mut look) {
                Ok(answer) => return answer,
                Err(again) => again,
            };
            let moment = async {
                match again {
                    Some(moment) => sleep(Duration::from_nanos(moment.since(Nanos::now()))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives in `self`.
                _ = changes.changed() => {}
                () = moment => {}
            }
        }
    }
}

/// What the sender of a command is told.
fn refusal(why: Why, resource: &str) -> Status {
    Status::aborted(match why {
        Why::Replaced => format!("a newer command for {resource} has taken its place"),
        Why::Stopped => format!("a newer Stop for {resource} has taken its place"),
        Why::Held { left } => format!(
            "{resource} was told to stop over another connection of yours; commands over this one are taken again \
             in {} ms",
            left.as_millis().max(1)
        ),
    })
}

/// A command's place in the order; it has ended when this is dropped.
#[derive(Debug)]
pub struct Place {
    turns: Arc<Turns>,
    ticket: Ticket,
    resource: Box<str>,
    end: End,
    patience: Instant,
}

impl Place {
    /// Returns when the command may leave.
    ///
    /// # Errors
    ///
    /// ABORTED when something newer has arrived; UNAVAILABLE when what came before it takes too long.
    pub async fn turn(&self) -> Result<(), Status> {
        let ticket = self.ticket;
        if self.turns.look(|admission, now| admission.may_leave(ticket, now)) == Turn::Now {
            return Ok(());
        }
        self.turns.change(|admission, now| admission.ready(ticket, now));
        let turn = self.turns.until(|admission, now| match admission.may_leave(ticket, now) {
            Turn::Now => Ok(Ok(())),
            Turn::Never(why) => Ok(Err(why)),
            Turn::Later(again) => Err(again),
        });
        match timeout_at(self.patience, turn).await {
            Ok(turn) => turn.map_err(|why| refusal(why, &self.resource)),
            Err(_) => Err(Status::unavailable(format!(
                "a Stop or a command for {} that came before this one was not answered within {} ms; this one was \
                 not passed on",
                self.resource,
                PATIENCE.as_millis()
            ))),
        }
    }

    /// Lets the command leave, if it still may: it has to be sent before anything is waited for.
    ///
    /// # Errors
    ///
    /// ABORTED when something newer has arrived.
    pub fn leave(&mut self) -> Result<bool, Status> {
        let ticket = self.ticket;
        match self.turns.look(|admission, now| admission.turn(ticket, now)) {
            Turn::Now => {
                // Until its answer is there.
                self.end = End::Reset;
                Ok(true)
            }
            Turn::Later(_) => Ok(false),
            Turn::Never(why) => Err(refusal(why, &self.resource)),
        }
    }

    /// It could not be sent after all, or the server has not begun with it.
    pub const fn not_sent(&mut self) {
        self.end = End::Unsent;
    }

    /// Its answer is all there.
    pub const fn answered(&mut self) {
        self.end = End::Answered;
    }

    /// Resolves when something newer has arrived while it waits.
    pub async fn voided(&self) -> Status {
        let ticket = self.ticket;
        let why = self.turns.until(|admission, _| admission.void(ticket).ok_or(None)).await;
        refusal(why, &self.resource)
    }

    /// Resolves when it was sent and must be reset.
    pub fn cut(&self) -> impl Future<Output = Status> + Send + 'static {
        let (turns, ticket, resource) = (Arc::clone(&self.turns), self.ticket, self.resource.clone());
        async move {
            let cut = turns.until(|admission, now| match admission.fate(ticket, now) {
                Fate::Reset(why) => Ok(why),
                Fate::GoesOn(again) => Err(again),
            });
            refusal(cut.await, &resource)
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (ticket, end) = (self.ticket, self.end);
        self.turns.change(|admission, now| admission.ended(ticket, end, now));
    }
}

/// A Stop's place in the order; it has ended when this is dropped.
#[derive(Debug)]
pub struct Stopping {
    turns: Arc<Turns>,
    ticket: Ticket,
    end: End,
}

/// What a Stop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is sent.
    Send,
    /// Its last answer is waited for.
    Done,
}

impl Stopping {
    /// Waits for what is to be done next.
    pub async fn next(&mut self) -> Next {
        let ticket = self.ticket;
        let next = self.turns.until(|admission, now| match admission.step(ticket, now) {
            Step::Send => Ok(Next::Send),
            Step::Done => Ok(Next::Done),
            Step::Wait(again) => Err(again),
        });
        let next = next.await;
        if next == Next::Send {
            self.end = End::Reset;
        }
        next
    }

    /// Every message of it was answered.
    pub const fn answered(&mut self) {
        self.end = End::Answered;
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        let (ticket, end) = (self.ticket, self.end);
        self.turns.change(|admission, now| admission.ended(ticket, end, now));
    }
}
