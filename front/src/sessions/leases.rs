//! Leases: sessions for clients that never open one.
//!
//! A lease belongs to a connection and to one thing that is driven over it, and lives for as long as commands for that thing
//! come. Nothing else is a sign of life, unless the configuration says so: behind a connection may stand a proxy, or a
//! browser, that answers pings for a program that is gone, and the commands of another program.
//!
//! A client that fell silent while something moved may come back with commands that have waited in a buffer since. So what it
//! drove is refused to it until it has sent a Stop, and has had time to read the answer: motor by motor, because the wheels of
//! a base are motors, too. Over HTTP/1 it may come back over another connection, so there the refusal waits for its address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use config::{LeaseFeed, Sessionless};
use shm_proto::{MotorIndex, Nanos, Owner, SessionId};
use tracing::warn;

use super::identity::{Entity, Peer};
use super::{Hold, SessionError, Sessions};
use crate::order::{Origin, Sender};
use crate::transport::{Connection, Liveness};

/// How long a refusal waits for the address of a client, nanoseconds: a page whose computer slept longer has lost its
/// connections, and what waited in them. A refusal for a connection lasts as long as that.
const REFUSAL_NANOS: u64 = 600_000_000_000;
/// Refusals that are kept; the oldest is forgotten.
const MAX_REFUSALS: usize = 1024;
/// How often a lease is looked after within its window: a ping and its answer fit between.
const LOOKS_PER_WINDOW: u32 = 8;

/// The client that has a lease, and what it drives under it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    entity: Box<str>,
    tie: Tie,
    /// The key of what is driven.
    resource: Box<str>,
}

/// A thing that is driven.
#[derive(Clone, Copy, Debug)]
pub struct Driven<'a> {
    /// The key of the resource.
    pub resource: &'a str,
    /// Its motors; none where they are not known here.
    pub motors: &'a [MotorIndex],
}

/// What a Stop was for.
#[derive(Clone, Copy, Debug)]
pub enum Stopped<'a> {
    /// Everything there is.
    Everything,
    /// One thing.
    One(Driven<'a>),
}

/// What of a thing that was driven is refused until it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Motor(MotorIndex),
    /// The resource itself, where its motors are not known here.
    Whole,
}

/// A part, and when its client was answered to a Stop of it since.
#[derive(Clone, Copy, Debug)]
struct Refused {
    part: Part,
    stopped: Option<Nanos>,
}

impl Driven<'_> {
    fn parts(&self) -> Vec<Refused> {
        let motors = self.motors.iter().map(|motor| Part::Motor(*motor));
        let whole = self.motors.is_empty().then_some(Part::Whole);
        motors.chain(whole).map(|part| Refused { part, stopped: None }).collect()
    }

    /// Says whether that part of a resource is one of this thing's.
    fn has(&self, part: Part, resource: &str) -> bool {
        match part {
            Part::Motor(motor) => self.motors.contains(&motor),
            Part::Whole => self.resource == resource,
        }
    }
}

/// What a lease, or a refusal, is tied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Tie {
    Connection(u64),
    /// Only refusals are: clients of one address must not keep each other's motors running.
    Address(IpAddr),
    /// To nothing: everybody's, kept alive by the front itself.
    Nothing,
}

#[derive(Debug)]
enum Lease {
    Open {
        id: SessionId,
        owner: Owner,
        entity: Entity,
        connection: Weak<Connection>,
        sender: Sender,
        parts: Vec<Refused>,
        /// What a refusal waits for when it runs out.
        refused_at: Tie,
    },
    /// It ended while something moved.
    RanOut {
        since: Nanos,
        why: String,
        sender: Sender,
        connection: Weak<Connection>,
        /// What is refused still.
        parts: Vec<Refused>,
    },
}

/// All leases.
#[derive(Debug, Default)]
pub struct Leases {
    /// One lease is looked for, or opened, at a time: a client's first commands come together.
    turn: Mutex<()>,
    held: Mutex<HashMap<Holder, Lease>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Leases {
    /// Looks up the open lease of that holder.
    ///
    /// # Errors
    ///
    /// After one ran out that had a motor in common with what is driven, and whose refusal waits where `refused` says, for
    /// commands that are not given after a Stop of that motor.
    fn look(
        &self,
        holder: &Holder,
        refused: &Holder,
        asked: &Asked<'_>,
    ) -> Result<Option<SessionId>, SessionError> {
        let mut held = locked(&self.held);
        if let Some(Lease::Open { id, .. }) = held.get(holder) {
            return Ok(Some(*id));
        }
        let now = Nanos::now();
        let concerns = |other: &Holder| other.tie == refused.tie && other.entity == refused.entity;
        for (other, lease) in held.iter().filter(|(other, _)| concerns(other)) {
            if !is_old(other, lease, now) {
                asked.objection(&other.resource, lease)?;
            }
        }
        // Nothing of it is refused any more.
        held.retain(|other, lease| {
            if let Lease::RanOut { parts, .. } = lease
                && concerns(other)
            {
                parts.retain(|refused| !asked.driven.has(refused.part, &other.resource));
                return !parts.is_empty();
            }
            true
        });
        Ok(None)
    }

    /// Notes that a session has ended; `why` it has, if it had not brought everything to rest. Most are no leases.
    pub fn note_end(&self, id: SessionId, why: Option<&str>) {
        let mut held = locked(&self.held);
        let of = |(holder, lease): (&Holder, &Lease)| {
            matches!(lease, Lease::Open { id: open, .. } if *open == id).then(|| holder.clone())
        };
        let Some(holder) = held.iter().find_map(of) else { return };
        let Some(Lease::Open { connection, sender, parts, refused_at, .. }) = held.remove(&holder) else {
            return;
        };
        // What belongs to everybody can be refused to nobody.
        if let Some(why) = why.filter(|_| refused_at != Tie::Nothing) {
            let (since, why) = (Nanos::now(), why.to_owned());
            let lease = Lease::RanOut { since, why, sender, connection, parts };
            held.insert(Holder { tie: refused_at, ..holder }, lease);
        }
    }

    /// Says whether that session is a lease whose connection is still open.
    pub fn is_connected(&self, id: SessionId) -> bool {
        locked(&self.held).values().any(|lease| match lease {
            Lease::Open { id: open, connection, .. } => *open == id && connection.strong_count() > 0,
            Lease::RanOut { .. } => false,
        })
    }

    /// Says whether both are leases of one connection.
    pub fn are_of_one_connection(&self, one: Owner, other: Owner) -> bool {
        let held = locked(&self.held);
        let of = |wanted: Owner| {
            held.iter().find_map(|(holder, lease)| match lease {
                Lease::Open { owner, .. } if *owner == wanted => Some(holder.tie),
                Lease::Open { .. } | Lease::RanOut { .. } => None,
            })
        };
        of(one).is_some_and(|tie| of(other) == Some(tie))
    }
}

/// A command for a thing that is driven.
#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    driven: Driven<'a>,
    origin: &'a Origin,
    /// For how long after the answer to a Stop a command cannot be meant as one after it.
    hold: Duration,
}

impl Asked<'_> {
    /// Says what a lease that ran out has against the command.
    fn objection(&self, resource: &str, lease: &Lease) -> Result<(), SessionError> {
        let Lease::RanOut { why, parts, .. } = lease else { return Ok(()) };
        for refused in parts.iter().filter(|refused| self.driven.has(refused.part, resource)) {
            let Some(stopped) = refused.stopped else { return Err(SessionError::LeaseRanOut(why.clone())) };
            if let Some(left) = self.origin.began().left_of(self.hold, stopped) {
                return Err(SessionError::TooSoonAfterStop(left));
            }
        }
        Ok(())
    }
}

/// Says whether it is a refusal that means nobody any more.
fn is_old(holder: &Holder, lease: &Lease, now: Nanos) -> bool {
    match (lease, holder.tie) {
        (Lease::Open { .. }, _) => false,
        (Lease::RanOut { connection, .. }, Tie::Connection(_)) => connection.strong_count() == 0,
        (Lease::RanOut { since, .. }, Tie::Address(_) | Tie::Nothing) => now.since(*since) >= REFUSAL_NANOS,
    }
}

/// Keeps the refusals that still mean somebody.
fn forget_old(held: &mut HashMap<Holder, Lease>, now: Nanos) {
    held.retain(|holder, lease| !is_old(holder, lease, now));
    let refusals = held.iter().filter_map(|(holder, lease)| match lease {
        Lease::RanOut { since, .. } => Some((*since, holder)),
        Lease::Open { .. } => None,
    });
    if refusals.clone().count() >= MAX_REFUSALS
        && let Some(oldest) = refusals.min_by_key(|(since, _)| *since).map(|(_, holder)| holder.clone())
    {
        held.remove(&oldest);
    }
}

impl Sessions {
    /// Takes the session under which a client without one of its own drives a resource: the one it has, else a new one. The
    /// check before every motion, as [`Self::hold`] is for clients with sessions.
    ///
    /// # Errors
    ///
    /// [`SessionError::LeaseRanOut`] after its client fell silent while the resource, or another with the same motor, moved,
    /// until it has sent a Stop; else as for [`Self::open`].
    pub fn lease(
        &self,
        origin: &Origin,
        connection: &Arc<Connection>,
        driven: Driven<'_>,
    ) -> Result<Hold, SessionError> {
        let (holder, refused) = self.holders(origin, connection, driven.resource);
        let asked = Asked { driven, origin, hold: self.rules.stop_hold };
        let entity = Entity::new(&holder.entity);
        let _turn = locked(&self.leases.turn);
        if let Some(id) = self.leases.look(&holder, &refused, &asked)? {
            match self.hold(&entity, id) {
                Err(SessionError::Expired) => {}
                held => return held,
            }
            // Its end is noted by whoever found it, which may be another thread that is not done yet.
            if self.leases.look(&holder, &refused, &asked)?.is_some() {
                return Err(SessionError::LeaseEnds);
            }
        }
        if holder.tie == Tie::Nothing {
            warn!(
                "a client without session moves something; nothing will stop it when that client is gone \
                 (sessionless = \"viam\" in [front])"
            );
        }
        let peer = Peer { remote: Some(connection.remote), local: Some(connection.local) };
        let id = self.open(&entity, peer, self.rules.lease_window)?.id;
        let hold = self.hold(&entity, id)?;
        let (owner, sender) = (hold.owner, origin.sender().clone());
        let connection = Arc::downgrade(connection);
        let mut held = locked(&self.leases.held);
        forget_old(&mut held, Nanos::now());
        let (parts, refused_at) = (driven.parts(), refused.tie);
        held.insert(holder, Lease::Open { id, owner, entity, connection, sender, parts, refused_at });
        Ok(hold)
    }

    /// Counts a command as a sign of life that needs no lease of its own, such as speed 0.
    pub fn feed_lease(&self, origin: &Origin, connection: &Arc<Connection>, resource: &str) {
        let (holder, _) = self.holders(origin, connection, resource);
        let open = match locked(&self.leases.held).get(&holder) {
            Some(Lease::Open { id, entity, .. }) => Some((*id, entity.clone())),
            Some(Lease::RanOut { .. }) | None => None,
        };
        if let Some((id, entity)) = open {
            // It may be over; then there is nothing to keep alive.
            drop(self.beat(&entity, id));
        }
    }

    /// Names the holder of a lease, and the holder of its refusal.
    fn holders(&self, origin: &Origin, connection: &Arc<Connection>, resource: &str) -> (Holder, Holder) {
        let own = Tie::Connection(connection.id);
        let (tie, refused_at) = match (self.rules.sessionless, connection.liveness()) {
            (Sessionless::Viam, _) => (Tie::Nothing, Tie::Nothing),
            (_, Liveness::Pings) => (own, own),
            (_, Liveness::OwnBytes) => (own, Tie::Address(connection.remote.ip())),
        };
        let (entity, resource) = match tie {
            Tie::Nothing => ("without session", ""),
            Tie::Connection(_) | Tie::Address(_) => (origin.sender().entity().name(), resource),
        };
        let holder = Holder { entity: entity.into(), tie, resource: resource.into() };
        (holder.clone(), Holder { tie: refused_at, ..holder })
    }

    /// Notes that a party was answered to a Stop: what it had under leases that ran out it may have again, a little later.
    pub fn note_stop(&self, origin: &Origin, what: Stopped<'_>) {
        let now = Nanos::now();
        let is_meant = |part: Part, resource: &str| match what {
            Stopped::Everything => true,
            Stopped::One(driven) => driven.has(part, resource),
        };
        for (holder, lease) in locked(&self.leases.held).iter_mut() {
            if let Lease::RanOut { since, sender, parts, .. } = lease
                && origin.complete().at() > *since
                && sender.is_same_party(origin.sender())
            {
                for refused in parts.iter_mut().filter(|refused| is_meant(refused.part, &holder.resource)) {
                    refused.stopped.get_or_insert(now);
                }
            }
        }
    }

    /// Looks after leases, for as long as the program runs.
    pub async fn keep_leases(&self) {
        let window = Duration::from_nanos(self.rules.lease_window.0);
        let mut ticks = tokio::time::interval(window / LOOKS_PER_WINDOW);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look_after_leases();
        }
    }

    fn look_after_leases(&self) {
        let open: Vec<(SessionId, Entity, Option<Nanos>)> = locked(&self.leases.held)
            .iter()
            .filter_map(|(holder, lease)| match lease {
                Lease::RanOut { .. } => None,
                Lease::Open { id, entity, connection, .. } => {
                    let heard = match (holder.tie, self.rules.lease) {
                        (Tie::Nothing, _) => Some(Nanos::now()),
                        // Its commands beat by themselves.
                        (Tie::Connection(_) | Tie::Address(_), LeaseFeed::Commands) => None,
                        (Tie::Connection(_) | Tie::Address(_), LeaseFeed::Pings) => {
                            connection.upgrade().map(|open| open.heard())
                        }
                    };
                    Some((*id, entity.clone(), heard))
                }
            })
            .collect();
        for (id, entity, heard) in open {
            // Also without news: this is how the end of a lease is noticed, and noted.
            drop(self.beat_of(&entity, id, heard));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::thread::sleep;
    use std::time::Duration;

    use config::{LeaseFeed, Sessionless, Takeover};
    use shm_proto::Window;

    use super::{Arc, Connection, Driven, Entity, Hold, MotorIndex, Origin, SessionError, Sessions, Stopped};
    use crate::link::Link;
    use crate::sessions::Rules;
    use crate::sessions::testing::Watcher;

    const SHORT: Window = Window::from_millis(200);
    const AFTER_SHORT: Duration = Duration::from_millis(220);
    const HOLD: Duration = Duration::from_millis(50);
    const AFTER_HOLD: Duration = Duration::from_millis(60);
    const LEFT: &str = "motor/left";
    const RIGHT: &str = "motor/right";
    const BASE: &str = "base/base1";
    /// Its motors are not known here.
    const ARM: &str = "arm/arm1";

    fn sessions(rules: Rules) -> (Watcher, Sessions) {
        let watcher = Watcher::with_room(8);
        let rules = Rules { lease_window: SHORT, stop_hold: HOLD, ..rules };
        let sessions = Sessions::new(Link::to(watcher.attachment.clone()), rules);
        (watcher, sessions)
    }

    fn fed_by(lease: LeaseFeed) -> (Watcher, Sessions) {
        sessions(Rules { lease, sessionless: Sessionless::Lease, ..Rules::relaxed() })
    }

    fn connection(port: u16, version: http::Version) -> Arc<Connection> {
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let connection = Connection::new(address, address);
        connection.note_call(version);
        connection
    }

    fn from(connection: &Connection) -> Origin {
        Origin::new(Entity::anonymous(), connection)
    }

    fn lease(sessions: &Sessions, over: &Arc<Connection>, resource: &str) -> Result<Hold, SessionError> {
        sessions.lease(&from(over), over, driven(resource))
    }

    /// The things of these tests: two motors, and a base with both.
    fn driven(resource: &str) -> Driven<'_> {
        const LEFT_MOTOR: &[MotorIndex] = &[MotorIndex(0)];
        const RIGHT_MOTOR: &[MotorIndex] = &[MotorIndex(1)];
        const BOTH: &[MotorIndex] = &[MotorIndex(0), MotorIndex(1)];
        let motors = match resource {
            LEFT => LEFT_MOTOR,
            RIGHT => RIGHT_MOTOR,
            BASE => BOTH,
            _ => &[],
        };
        Driven { resource, motors }
    }

    /// Has a client drive something, as far as the sessions know.
    fn drives(sessions: &Sessions, over: &Arc<Connection>, resource: &str) -> Hold {
        let hold = lease(sessions, over, resource).unwrap();
        drop(sessions.use_resource(&hold, resource, &[]).unwrap());
        hold
    }

    #[test]
    fn pings_keep_a_lease_only_where_that_is_wanted() {
        for (fed_by_pings, fed) in [(true, LeaseFeed::Pings), (false, LeaseFeed::Commands)] {
            let (_watcher, sessions) = fed_by(fed);
            let connection = connection(1, http::Version::HTTP_2);
            let first = drives(&sessions, &connection, LEFT);
            for _ in 0..4 {
                sleep(Duration::from_millis(100));
                connection.note_heard();
                sessions.look_after_leases();
            }
            match lease(&sessions, &connection, LEFT) {
                Ok(kept) => assert!(fed_by_pings && kept.owner == first.owner, "{fed:?}"),
                Err(SessionError::LeaseRanOut(why)) => {
                    assert!(!fed_by_pings, "{why}");
                    assert!(why.contains("no command came for 200 ms (lease_window)"), "{why}");
                    assert!(why.contains("lease = \"pings\" in [front]"), "{why}");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn commands_keep_the_lease_of_what_they_drive_and_no_other() {
        let (_watcher, sessions) = fed_by(LeaseFeed::Commands);
        let connection = connection(1, http::Version::HTTP_2);
        let left = drives(&sessions, &connection, LEFT);
        let right = drives(&sessions, &connection, RIGHT);
        assert_ne!(left.owner, right.owner);
        for _ in 0..4 {
            sleep(Duration::from_millis(100));
            assert_eq!(lease(&sessions, &connection, LEFT).unwrap().owner, left.owner);
            sessions.look_after_leases();
        }
        assert!(matches!(lease(&sessions, &connection, RIGHT), Err(SessionError::LeaseRanOut(_))));
        assert!(lease(&sessions, &connection, LEFT).is_ok(), "it is refused what it did not lose");
    }

    #[test]
    fn speed_0_is_a_command_too() {
        let (_watcher, sessions) = fed_by(LeaseFeed::Commands);
        let connection = connection(1, http::Version::HTTP_2);
        let first = drives(&sessions, &connection, LEFT);
        for _ in 0..4 {
            sleep(Duration::from_millis(100));
            sessions.feed_lease(&from(&connection), &connection, LEFT);
            sessions.look_after_leases();
        }
        assert_eq!(lease(&sessions, &connection, LEFT).unwrap().owner, first.owner);
    }

    #[test]
    fn what_a_silent_client_drove_is_refused_to_it_until_it_has_stopped_it() {
        for moving in [true, false] {
            let (_watcher, sessions) = fed_by(LeaseFeed::Commands);
            let connection = connection(1, http::Version::HTTP_2);
            let hold = drives(&sessions, &connection, LEFT);
            if !moving {
                sessions.rest(LEFT);
            }
            sleep(AFTER_SHORT);
            sessions.look_after_leases();
            if moving {
                // A whole buffer of commands is refused, not only the first.
                for _ in 0..5 {
                    let refused = lease(&sessions, &connection, LEFT);
                    assert!(matches!(refused, Err(SessionError::LeaseRanOut(_))));
                }
                sessions.note_stop(&from(&connection), Stopped::One(driven(RIGHT)));
                assert!(lease(&sessions, &connection, LEFT).is_err(), "another thing was stopped");
                sessions.note_stop(&from(&connection), Stopped::One(driven(LEFT)));
                let soon = lease(&sessions, &connection, LEFT);
                assert!(matches!(soon, Err(SessionError::TooSoonAfterStop(_))), "from the same buffer");
                sleep(AFTER_HOLD);
            }
            assert_ne!(lease(&sessions, &connection, LEFT).unwrap().owner, hold.owner);
        }
    }

    #[test]
    fn what_a_base_lost_is_refused_to_its_motors_and_the_other_way_round() {
        for (lost, asked, other) in [(BASE, LEFT, ARM), (LEFT, BASE, RIGHT), (ARM, ARM, BASE)] {
            let (_watcher, sessions) = fed_by(LeaseFeed::Commands);
            let connection = connection(1, http::Version::HTTP_2);
            drives(&sessions, &connection, lost);
            sleep(AFTER_SHORT);
            sessions.look_after_leases();
            let refused = lease(&sessions, &connection, asked);
            assert!(matches!(refused, Err(SessionError::LeaseRanOut(_))), "{lost} lost, {asked} given");
            assert!(lease(&sessions, &connection, other).is_ok(), "{lost} lost, {other} refused");
            sessions.note_stop(&from(&connection), Stopped::One(driven(asked)));
            sleep(AFTER_HOLD);
            assert!(lease(&sessions, &connection, asked).is_ok(), "{asked} was stopped");
        }
    }

    #[test]
    fn the_wheel_of_a_base_that_was_stopped_may_turn_and_the_base_waits_for_the_other() {
        let (_watcher, sessions) = fed_by(LeaseFeed::Commands);
        let connection = connection(1, http::Version::HTTP_2);
        drives(&sessions, &connection, BASE);
        sleep(AFTER_SHORT);
        sessions.look_after_leases();
        sessions.note_stop(&from(&connection), Stopped::One(driven(LEFT)));
        sleep(AFTER_HOLD);
        assert!(lease(&sessions, &connection, LEFT).is_ok());
        assert!(lease(&sessions, &connection, RIGHT).is_err());
        assert!(lease(&sessions, &connection, BASE).is_err());
        sessions.note_stop(&from(&connection), Stopped::One(driven(BASE)));
        sleep(AFTER_HOLD);
        assert!(lease(&sessions, &connection, BASE).is_ok());
    }

    #[test]
    fn clients_of_one_address_do_not_keep_each_others_leases_alive() {
        for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
            let (_watcher, sessions) = fed_by(LeaseFeed::Pings);
            let (silent, heard) = (connection(1, version), connection(2, version));
            let lost = drives(&sessions, &silent, LEFT);
            let kept = lease(&sessions, &heard, RIGHT).unwrap();
            for _ in 0..4 {
                sleep(Duration::from_millis(100));
                heard.note_heard();
                sessions.look_after_leases();
            }
            assert_eq!(lease(&sessions, &heard, RIGHT).unwrap().owner, kept.owner);
            assert_ne!(kept.owner, lost.owner);
            let refused = lease(&sessions, &silent, LEFT);
            assert!(matches!(refused, Err(SessionError::LeaseRanOut(_))), "{version:?}");
        }
    }

    #[test]
    fn over_http_1_the_refusal_also_meets_another_connection() {
        let (_watcher, sessions) = fed_by(LeaseFeed::Commands);
        drives(&sessions, &connection(1, http::Version::HTTP_11), LEFT);
        sleep(AFTER_SHORT);
        sessions.look_after_leases();
        let next = connection(2, http::Version::HTTP_11);
        assert!(matches!(lease(&sessions, &next, LEFT), Err(SessionError::LeaseRanOut(_))));
        assert!(lease(&sessions, &next, RIGHT).is_ok());
        sessions.note_stop(&from(&next), Stopped::Everything);
        sleep(AFTER_HOLD);
        assert!(lease(&sessions, &next, LEFT).is_ok());
    }

    #[test]
    fn leases_of_one_connection_keep_nothing_from_each_other() {
        let rules = Rules { takeover: Takeover::Exclusive, ..Rules::relaxed() };
        let (_watcher, sessions) = sessions(rules);
        let (one, other) = (connection(1, http::Version::HTTP_2), connection(2, http::Version::HTTP_2));
        let motor = [shm_proto::MotorIndex(0)];
        let take = |over: &Arc<Connection>, resource: &str| {
            let hold = lease(&sessions, over, resource).unwrap();
            sessions.use_resource(&hold, resource, &motor).map(drop)
        };
        take(&one, LEFT).unwrap();
        assert_eq!(take(&one, BASE), Ok(()));
        assert!(matches!(take(&other, BASE), Err(SessionError::Held { .. })));
    }

    #[test]
    fn unprotected_motion_outlives_its_client() {
        let (_watcher, sessions) = sessions(Rules { sessionless: Sessionless::Viam, ..Rules::relaxed() });
        let first = lease(&sessions, &connection(1, http::Version::HTTP_2), LEFT).unwrap();
        for _ in 0..4 {
            sleep(Duration::from_millis(100));
            sessions.look_after_leases();
        }
        let second = lease(&sessions, &connection(2, http::Version::HTTP_11), RIGHT).unwrap();
        assert_eq!(first.owner, second.owner);
    }
}
