//! Kortex's sessions on top of ours.
//!
//! A session of Kortex has two times. Silent for the first, what it drives is stopped: that is a session of ours, its
//! *watch*, which begins with its first command and, once ended, never moves anything again; the next command begins another
//! one. Silent for the second, it is closed.
//!
//! A session belongs to the connection that opened it. Its number is worth nothing to any other, and nobody is told
//! whether it exists.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::{Kortex, LONGEST_SESSION_TIMEOUT, LONGEST_WINDOW, SHORTEST_WINDOW};
use keys::Role;
use shm_proto::{Nanos, SessionId, Window};
use tracing::{debug, info};

use super::channel::Channel;
use super::frame::SessionNumber;
use super::refusal::{Refusal, Sub};
use crate::access::Caller;
use crate::proto::kortex::CreateSessionInfo;
use crate::sessions::{Cause, Entity, Hold, Peer, Sessions};

/// Why a session is closed that nobody closes.
const SILENT: &str = "it was silent for longer than session_inactivity_timeout";
/// Sessions at once, those that only look included.
const MOST: usize = 256;

/// What a session may do for a while.
#[derive(Clone, Debug)]
struct Temporary {
    /// As its client called it.
    name: String,
    role: Role,
    until: Option<Nanos>,
}

#[derive(Debug)]
struct Tenant {
    channel: u64,
    peer: Peer,
    caller: Caller,
    user: String,
    /// Silent for so long, what it drives is stopped.
    window: Window,
    /// Silent for so long, it is closed; nanoseconds.
    patience: u64,
    last: Nanos,
    watch: Option<SessionId>,
    temporary: Option<Temporary>,
}

impl Tenant {
    fn role(&self, now: Nanos) -> Role {
        let raised = self.temporary.as_ref().filter(|role| role.until.is_none_or(|until| now < until));
        raised.map_or(self.caller.role, |raised| raised.role.max(self.caller.role))
    }

    fn is_over(&self, now: Nanos) -> bool {
        now.since(self.last) >= self.patience
    }
}

/// A session that has just beaten.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its number.
    pub session: SessionNumber,
    /// What it may do now.
    pub role: Role,
    /// Whose it is.
    pub entity: Entity,
}

/// A session as others see it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its number.
    pub session: SessionNumber,
    /// Its user.
    pub user: String,
    /// Where it comes from.
    pub peer: Peer,
    /// What it may do now.
    pub role: Role,
    /// The role it was given for a while, by its client's name for it.
    pub temporary: Option<String>,
    /// Silent for so long, what it drives is stopped.
    pub window: Window,
}

/// A session that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its number.
    pub session: SessionNumber,
    /// What it leaves behind.
    pub leaving: Leaving,
}

/// What a session that is over leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It may have set something moving.
    Moving,
    /// It has only looked.
    Nothing,
}

#[derive(Debug, Default)]
struct Book {
    tenants: HashMap<SessionNumber, Tenant>,
    last: u16,
}

impl Book {
    /// A number that nobody has, and nobody had lately.
    fn number(&mut self) -> SessionNumber {
        loop {
            self.last = self.last.wrapping_add(1);
            let number = SessionNumber(self.last);
            if self.last != 0 && !self.tenants.contains_key(&number) {
                return number;
            }
        }
    }
}

/// All of Kortex's sessions.
#[derive(Debug)]
pub struct Roster {
    sessions: Arc<Sessions>,
    settings: Kortex,
    book: Mutex<Book>,
}

impl Roster {
    /// No session yet.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, settings: Kortex) -> Self {
        Self { sessions, settings, book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session for who has logged in.
    ///
    /// # Errors
    ///
    /// INVALID_PARAM for times that cannot be kept, METHOD_FAILED when there are too many sessions.
    pub fn open(
        &self,
        channel: &Channel,
        caller: Caller,
        info: &CreateSessionInfo,
    ) -> Result<SessionNumber, Refusal> {
        let window = SHORTEST_WINDOW..=LONGEST_WINDOW;
        let connection = time(
            "connection_inactivity_timeout",
            info.connection_inactivity_timeout,
            window,
            self.settings.connection_timeout,
        )?;
        let session = SHORTEST_WINDOW..=LONGEST_SESSION_TIMEOUT;
        let patience = time(
            "session_inactivity_timeout",
            info.session_inactivity_timeout,
            session,
            self.settings.session_timeout,
        )?;
        // Closing it stops what it drives, so that the shorter of both counts.
        let shortest = [Some(connection), Some(patience), caller.window, self.settings.rules.window];
        let window = shortest.into_iter().flatten().min().unwrap_or(connection);
        let connection = &channel.connection;
        let tenant = Tenant {
            channel: channel.id(),
            peer: Peer { remote: Some(connection.remote), local: Some(connection.local) },
            window: crate::sessions::window(window),
            patience: crate::sessions::window(patience).0,
            last: Nanos::now(),
            watch: None,
            temporary: None,
            user: info.username.clone(),
            caller,
        };
        let most = self.sessions.rules().most_per_entity.min(MOST);
        let mut book = self.book();
        let same = |other: &&Tenant| other.caller.entity.is(&tenant.caller.entity);
        if book.tenants.len() >= MOST || book.tenants.values().filter(same).count() >= most {
            let text = "too many sessions; close some, or wait until silent ones have run out";
            return Err(Refusal::device(Sub::MethodFailed, text));
        }
        let number = book.number();
        debug!("Kortex session {number} of \"{}\" from {}", tenant.user.escape_debug(), connection.remote);
        book.tenants.insert(number, tenant);
        Ok(number)
    }

    /// A frame of a session has come: it is alive.
    ///
    /// # Errors
    ///
    /// When there is no such session of this connection.
    pub fn beat(&self, channel: &Channel, number: SessionNumber) -> Result<Standing, Refusal> {
        let mut book = self.book();
        let now = Nanos::now();
        let tenant = book.tenants.get_mut(&number).filter(|tenant| tenant.channel == channel.id());
        let tenant = tenant.ok_or_else(Refusal::no_session)?;
        if tenant.is_over(now) {
            // Closed when it is looked for next, within milliseconds.
            return Err(Refusal::no_session());
        }
        tenant.last = now;
        if let Some(watch) = tenant.watch {
            // Over already: what it drove is stopped, and its next command begins another.
            drop(self.sessions.beat(&tenant.caller.entity, watch));
        }
        Ok(Standing { session: number, role: tenant.role(now), entity: tenant.caller.entity.clone() })
    }

    /// The right to move something, for as long as the session is watched.
    ///
    /// # Errors
    ///
    /// As for [`Self::beat`], and when nobody can watch.
    pub fn hold(&self, channel: &Channel, number: SessionNumber) -> Result<Hold, Refusal> {
        self.beat(channel, number)?;
        let mut book = self.book();
        let tenant = book.tenants.get_mut(&number).ok_or_else(Refusal::no_session)?;
        let entity = tenant.caller.entity.clone();
        if let Some(hold) = tenant.watch.and_then(|watch| self.sessions.hold(&entity, watch).ok()) {
            return Ok(hold);
        }
        let opened = self.sessions.open(&entity, tenant.peer, tenant.window)?;
        tenant.watch = Some(opened.id);
        Ok(self.sessions.hold(&entity, opened.id)?)
    }

    /// Ends a session at its client's wish.
    ///
    /// # Errors
    ///
    /// When there is no such session of this connection.
    pub fn close(&self, channel: &Channel, number: SessionNumber) -> Result<Option<Gone>, Refusal> {
        self.beat(channel, number)?;
        Ok(self.dismiss(&mut self.book(), number, "its client closed it", Cause::Goodbye))
    }

    /// Ends the sessions of a connection that is over. Returns them.
    pub fn leave(&self, channel: &Channel) -> Vec<Gone> {
        let mut book = self.book();
        let of = |tenant: &Tenant| tenant.channel == channel.id();
        let gone: Vec<_> =
            book.tenants.iter().filter(|(_, tenant)| of(tenant)).map(|(number, _)| *number).collect();
        let why = "its connection has ended";
        let cause = Cause::ClientLost;
        gone.into_iter().filter_map(|number| self.dismiss(&mut book, number, why, cause)).collect()
    }

    /// Closes the sessions that have been silent for too long. Returns them.
    pub fn sweep(&self) -> Vec<Gone> {
        let mut book = self.book();
        let now = Nanos::now();
        let over: Vec<_> = book
            .tenants
            .iter()
            .filter(|(_, tenant)| tenant.is_over(now))
            .map(|(number, _)| *number)
            .collect();
        let cause = Cause::Silent;
        over.into_iter().filter_map(|number| self.dismiss(&mut book, number, SILENT, cause)).collect()
    }

    /// Stops what a session drives, because the base behind is lost. The session goes on itself.
    pub fn stop(&self, number: SessionNumber) {
        if let Some(Tenant { watch: Some(watch), caller, .. }) = self.book().tenants.get(&number) {
            // It may be over already.
            drop(self.sessions.close_for(&caller.entity, *watch, Cause::UpstreamLost));
        }
    }

    fn dismiss(&self, book: &mut Book, session: SessionNumber, why: &str, cause: Cause) -> Option<Gone> {
        let tenant = book.tenants.remove(&session)?;
        let user = tenant.user.escape_debug();
        let Some(watch) = tenant.watch else {
            // Anybody may open sessions; only one that moved something is worth a line to everybody.
            debug!("Kortex session {session} of \"{user}\" is closed: {why}");
            return Some(Gone { session, leaving: Leaving::Nothing });
        };
        info!("Kortex session {session} of \"{user}\" is closed: {why}");
        // It may be over already.
        drop(self.sessions.close_for(&tenant.caller.entity, watch, cause));
        Some(Gone { session, leaving: Leaving::Moving })
    }

    /// Which session a watch was for, if it is one of these.
    #[must_use]
    pub fn watched_by(&self, watch: SessionId) -> Option<SessionNumber> {
        let book = self.book();
        book.tenants.iter().find(|(_, tenant)| tenant.watch == Some(watch)).map(|(number, _)| *number)
    }

    /// Gives a session more rights, until it ends or the time for that is over.
    ///
    /// # Errors
    ///
    /// When there is no such session of this connection.
    pub fn promote(
        &self,
        channel: &Channel,
        number: SessionNumber,
        name: String,
        role: Role,
    ) -> Result<(), Refusal> {
        self.beat(channel, number)?;
        let until = self.settings.temporary_role_lifetime.map(|time| Nanos::now().after(nanos(time)));
        if let Some(tenant) = self.book().tenants.get_mut(&number) {
            tenant.temporary = Some(Temporary { name, role, until });
        }
        Ok(())
    }

    /// Takes them back.
    ///
    /// # Errors
    ///
    /// When there is no such session of this connection.
    pub fn demote(&self, channel: &Channel, number: SessionNumber) -> Result<(), Refusal> {
        self.beat(channel, number)?;
        if let Some(tenant) = self.book().tenants.get_mut(&number) {
            tenant.temporary = None;
        }
        Ok(())
    }

    /// The sessions of a connection, and how long each may be silent.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> Vec<(SessionNumber, Window)> {
        let book = self.book();
        let of = book.tenants.iter().filter(|(_, tenant)| tenant.channel == channel.id());
        of.map(|(number, tenant)| (*number, tenant.window)).collect()
    }

    /// Every session, by number.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let now = Nanos::now();
        let book = self.book();
        let mut all: Vec<_> = book
            .tenants
            .iter()
            .map(|(number, tenant)| Listed {
                session: *number,
                user: tenant.user.clone(),
                peer: tenant.peer,
                role: tenant.role(now),
                temporary: tenant.temporary.as_ref().map(|role| role.name.clone()),
                window: tenant.window,
            })
            .collect();
        all.sort_by_key(|listed| listed.session);
        all
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A time in milliseconds, as a client names it; 0 is none.
fn time(
    name: &str,
    millis: u32,
    range: std::ops::RangeInclusive<Duration>,
    default: Duration,
) -> Result<Duration, Refusal> {
    if millis == 0 {
        return Ok(default);
    }
    let time = Duration::from_millis(millis.into());
    if range.contains(&time) {
        return Ok(time);
    }
    let text = format!(
        "{name} must be {} to {} ms, or 0 for {} ms, not {millis}",
        range.start().as_millis(),
        range.end().as_millis(),
        default.as_millis()
    );
    Err(Refusal::protocol(Sub::InvalidParam, text))
}
