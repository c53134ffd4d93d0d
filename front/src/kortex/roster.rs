//! Kortex's sessions on top of ours.
//!
//! A session of Kortex has two times. Silent for the first, what it drives is stopped: that is a session of ours, its
//! *watch*, which begins with its first command and, once ended, never moves anything again. Another one begins only when
//! the client has shown that it has noticed ([`Intent`]). Silent for the second, the session is closed.
//!
//! A session belongs to the connection that opened it. Its number is worth nothing to any other, and nobody is told
//! whether it exists.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::{Kortex, LONGEST_SESSION_TIMEOUT, LONGEST_WINDOW, SHORTEST_WINDOW};
use keys::Role;
use shm_proto::verdicts::{MotorVerdict, Reason};
use shm_proto::{Capacity, MotorIndex, Nanos, SessionId, TripId, Window};
use tracing::{debug, info};

use super::channel::{Channel, Transport};
use super::frame::{Header, SessionNumber};
use super::intake::Heard;
use super::intent::{Intent, Kind, Notice};
use super::numbers::Numbers;
use super::refusal::{Refusal, Sub};
use super::sequence::{Late, Sequence, Urge};
use crate::access::{Caller, Rejection};
use crate::order::{Arrival, Origin};
use crate::proto::kortex::CreateSessionInfo;
use crate::sessions::{Cause, Hold, Peer, SessionError, Sessions};

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
    watch: Option<Watch>,
    /// The watch that ended last: what it leaves behind is seen to under its id.
    ended: Option<SessionId>,
    intent: Intent,
    /// The order of its datagrams; other transports keep the order themselves.
    sequence: Option<Sequence>,
    temporary: Option<Temporary>,
}

/// The session of ours under which a session of Kortex drives.
#[derive(Debug)]
struct Watch {
    id: SessionId,
    hold: Hold,
}

impl Watch {
    /// The trip that has ended it, as far as the supervisor has said so.
    fn trip(&self) -> Option<(TripId, Reason)> {
        let verdicts = &self.hold.attachment.verdicts;
        let session = verdicts.session(self.hold.owner.slot).filter(|session| session.session == self.id)?;
        let motors = (0..Capacity::MOST_MOTORS).filter_map(|motor| verdicts.motor(MotorIndex(motor)));
        let stopped = |motor: &MotorVerdict| motor.trip == session.trip && motor.trip != TripId::NONE;
        let reason = motors.into_iter().find(stopped)?.reason?;
        Some((session.trip, reason))
    }
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
}

/// A frame of a session that lives.
#[derive(Clone, Debug)]
pub struct Heeded {
    /// Its session.
    pub standing: Standing,
    /// When it arrived.
    pub heard: Heard,
    /// The same, and from which party.
    pub origin: Origin,
    /// Whether it comes too late to move anything.
    pub order: Result<(), Late>,
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
    numbers: Numbers,
}

impl Book {
    /// The session of that number, if it is that connection's.
    fn tenant(&mut self, channel: &Channel, number: SessionNumber) -> Result<&mut Tenant, Refusal> {
        let tenant = self.tenants.get_mut(&number).filter(|tenant| tenant.channel == channel.id());
        tenant.ok_or_else(Refusal::no_session)
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

    /// Opens a session for who has logged in. `asked` is the header of the request.
    ///
    /// # Errors
    ///
    /// INVALID_PARAM for times that cannot be kept, METHOD_FAILED when there are too many sessions.
    pub fn open(
        &self,
        channel: &Channel,
        caller: Caller,
        info: &CreateSessionInfo,
        asked: &Header,
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
            ended: None,
            intent: Intent::default(),
            sequence: (channel.transport == Transport::Udp).then(|| Sequence::beginning(asked.message)),
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
        let Book { tenants, numbers } = &mut *book;
        let drawn = numbers.draw(asked.session, |number| tenants.contains_key(&number));
        let number = drawn.map_err(|_| Refusal::from(Rejection::NoRandomness))?;
        debug!("Kortex session {number} of \"{}\" from {}", tenant.user.escape_debug(), connection.remote);
        book.tenants.insert(number, tenant);
        Ok(number)
    }

    /// A frame of a session has come: it is alive. `urge` is what the frame does to the arm.
    ///
    /// # Errors
    ///
    /// When there is no such session of this connection.
    pub fn heed(
        &self,
        channel: &Channel,
        header: &Header,
        urge: Urge,
        heard: Heard,
    ) -> Result<Heeded, Refusal> {
        let mut book = self.book();
        let tenant = book.tenant(channel, header.session)?;
        let role = self.beaten(tenant, heard.began)?;
        let order = tenant.sequence.as_mut().map_or(Ok(()), |sequence| sequence.take(header.message, urge));
        let standing = Standing { session: header.session, role };
        Ok(Heeded { standing, heard, origin: heard.origin(&tenant.caller.entity, channel), order })
    }

    /// A session has shown that it is alive.
    ///
    /// # Errors
    ///
    /// When there is no such session of this connection.
    pub fn beat(&self, channel: &Channel, number: SessionNumber) -> Result<Standing, Refusal> {
        let mut book = self.book();
        let role = self.beaten(book.tenant(channel, number)?, Arrival::now())?;
        Ok(Standing { session: number, role })
    }

    /// Notes a sign of life; `noticed` is the arrival by which it is noticed if its watch is over. Returns what the session
    /// may do now.
    fn beaten(&self, tenant: &mut Tenant, noticed: Arrival) -> Result<Role, Refusal> {
        let now = Nanos::now();
        if tenant.is_over(now) {
            // Closed when it is looked for next, within milliseconds.
            return Err(Refusal::no_session());
        }
        tenant.last = now;
        if let Some(watch) = &tenant.watch
            && self.sessions.beat(&tenant.caller.entity, watch.id).is_err()
        {
            self.lapse(tenant, noticed);
        }
        Ok(tenant.role(now))
    }

    /// Notes that the watch of a session is over: what it drove is stopped.
    fn lapse(&self, tenant: &mut Tenant, noticed: Arrival) {
        let Some(watch) = tenant.watch.take() else { return };
        let (kind, why) = match watch.trip() {
            Some((trip, Reason::DriveFault)) => {
                (Kind::DriveFault, format!("trip {trip}, {}", Reason::DriveFault.name()))
            }
            Some((trip, reason)) => (Kind::Other, format!("trip {trip}, {}", reason.name())),
            None => {
                let why = self.sessions.why(&tenant.caller.entity, watch.id);
                (Kind::Other, why.unwrap_or_else(|| "the supervisor is gone".to_owned()))
            }
        };
        tenant.intent.stopped(noticed, kind, why);
        tenant.ended = Some(watch.id);
    }

    /// The right to move something, for as long as the session is watched.
    ///
    /// # Errors
    ///
    /// As for [`Self::beat`], when what the session drove was stopped and the command does not show that its client knows,
    /// and when nobody can watch.
    pub fn hold(&self, channel: &Channel, command: &Heeded) -> Result<Hold, Refusal> {
        let mut book = self.book();
        let tenant = book.tenant(channel, command.standing.session)?;
        let entity = tenant.caller.entity.clone();
        if let Some(watch) = &tenant.watch {
            match self.sessions.hold(&entity, watch.id) {
                Err(SessionError::Expired) => self.lapse(tenant, command.heard.began),
                held => return Ok(held?),
            }
        }
        tenant.intent.may_drive(command.heard, nanos(self.sessions.rules().stop_hold))?;
        let opened = self.sessions.open(&entity, tenant.peer, tenant.window)?;
        let hold = self.sessions.hold(&entity, opened.id)?;
        tenant.watch = Some(Watch { id: opened.id, hold: hold.clone() });
        tenant.intent.drives();
        Ok(hold)
    }

    /// Notes that a call was carried out and is answered now by which a client shows that it knows of a stop.
    pub fn noticed(&self, call: &Heeded, notice: Notice) {
        if let Some(tenant) = self.book().tenants.get_mut(&call.standing.session) {
            tenant.intent.answered(call.heard, notice, Nanos::now());
        }
    }

    /// Says whether a fault of a drive has stopped a session whose client has not cleared it.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        self.book().tenants.values().any(|tenant| tenant.intent.has_fault())
    }

    /// Has the next session get that number.
    #[cfg(test)]
    pub fn promise(&self, number: SessionNumber) {
        self.book().numbers.promise(number);
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
            drop(self.sessions.close_for(&caller.entity, watch.id, Cause::UpstreamLost));
        }
    }

    fn dismiss(&self, book: &mut Book, session: SessionNumber, why: &str, cause: Cause) -> Option<Gone> {
        let tenant = book.tenants.remove(&session)?;
        let user = tenant.user.escape_debug();
        let Some(watch) = tenant.watch.as_ref().map(|watch| watch.id).or(tenant.ended) else {
            // Anybody may open sessions; only one that moved something is worth a line to everybody.
            debug!("Kortex session {session} of \"{user}\" is closed: {why}");
            return Some(Gone { session, leaving: Leaving::Nothing });
        };
        info!("Kortex session {session} of \"{user}\" is closed: {why}");
        // It may be over already.
        drop(self.sessions.close_for(&tenant.caller.entity, watch, cause));
        Some(Gone { session, leaving: Leaving::Moving })
    }

    /// Notes that a watch is over. Returns which session it was for, if it is one of these.
    pub fn departed(&self, watch: SessionId) -> Option<SessionNumber> {
        let noticed = Arrival::now();
        let mut book = self.book();
        let is_its = |tenant: &Tenant| {
            tenant.ended == Some(watch) || tenant.watch.as_ref().is_some_and(|own| own.id == watch)
        };
        let (number, tenant) = book.tenants.iter_mut().find(|(_, tenant)| is_its(tenant))?;
        if tenant.ended != Some(watch) {
            self.lapse(tenant, noticed);
        }
        Some(*number)
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
