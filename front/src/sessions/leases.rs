//! Leases: sessions for clients that never open one.
//!
//! A lease belongs to a connection and to one thing that is driven over it, and lives for as long as commands for that thing
//! come. Nothing else is a sign of life, unless the configuration says so: behind a connection may stand a proxy, or a
//! browser, that answers pings for a program that is gone, and the commands of another program.
//!
//! A client that fell silent while something moved may come back with commands that have waited in a buffer since. So what it
//! drove is refused to it until it has sent a Stop, and has had time to read the answer. Over HTTP/1 it may come back over
//! another connection, so there the refusal waits for its address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use config::{LeaseFeed, Sessionless};
use shm_proto::{Nanos, Owner, SessionId};
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
        /// What a refusal waits for when it runs out.
        refused_at: Tie,
    },
    /// It ended while something moved.
    RanOut {
        since: Nanos,
        why: String,
        sender: Sender,
        connection: Weak<Connection>,
        /// When its client was answered to a Stop since.
        stopped: Option<Nanos>,
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
    /// After one ran out whose refusal waits for `refused`, for commands that are not given after a Stop.
    fn look(
        &self,
        holder: &Holder,
        refused: &Holder,
        origin: &Origin,
        hold: Duration,
    ) -> Result<Option<SessionId>, SessionError> {
        let mut held = locked(&self.held);
        if let Some(Lease::Open { id, .. }) = held.get(holder) {
            return Ok(Some(*id));
        }
        if held.get(refused).is_some_and(|lease| is_old(refused, lease, Nanos::now())) {
            held.remove(refused);
        }
        let Some(Lease::RanOut { why, stopped, .. }) = held.get(refused) else { return Ok(None) };
        let Some(stopped) = *stopped else { return Err(SessionError::LeaseRanOut(why.clone())) };
        if let Some(left) = origin.began().left_of(hold, stopped) {
            return Err(SessionError::TooSoonAfterStop(left));
        }
        held.remove(refused);
        Ok(None)
    }

    /// Notes that a session has ended; `why` it has, if it had not brought everything to rest. Most are no leases.
    pub fn note_end(&self, id: SessionId, why: Option<&str>) {
        let mut held = locked(&self.held);
        let of = |(holder, lease): (&Holder, &Lease)| {
            matches!(lease, Lease::Open { id: open, .. } if *open == id).then(|| holder.clone())
        };
        let Some(holder) = held.iter().find_map(of) else { return };
        let Some(Lease::Open { connection, sender, refused_at, .. }) = held.remove(&holder) else { return };
        // What belongs to everybody can be refused to nobody.
        if let Some(why) = why.filter(|_| refused_at != Tie::Nothing) {
            let (since, why) = (Nanos::now(), why.to_owned());
            let lease = Lease::RanOut { since, why, sender, connection, stopped: None };
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
    /// [`SessionError::LeaseRanOut`] after its client fell silent while the resource moved, until it has sent a Stop;
    /// else as for [`Self::open`].
    pub fn lease(
        &self,
        origin: &Origin,
        connection: &Arc<Connection>,
        resource: &str,
    ) -> Result<Hold, SessionError> {
        let (holder, refused) = self.holders(origin, connection, resource);
        let entity = Entity::new(&holder.entity);
        let _turn = locked(&self.leases.turn);
        if let Some(id) = self.leases.look(&holder, &refused, origin, self.rules.stop_hold)? {
            match self.hold(&entity, id) {
                Err(SessionError::Expired) => {}
                held => return held,
            }
            // Its end is noted by whoever found it, which may be another thread that is not done yet.
            if self.leases.look(&holder, &refused, origin, self.rules.stop_hold)?.is_some() {
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
        held.insert(holder, Lease::Open { id, owner, entity, connection, sender, refused_at: refused.tie });
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
    pub fn note_stop(&self, origin: &Origin, is_stopped: impl Fn(&str) -> bool) {
        let now = Nanos::now();
        for (holder, lease) in locked(&self.leases.held).iter_mut() {
            if let Lease::RanOut { since, sender, stopped, .. } = lease
                && origin.complete().at() > *since
                && is_stopped(&holder.resource)
                && sender.is_same_party(origin.sender())
            {
                stopped.get_or_insert(now);
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

    use super::{Arc, Connection, Entity, Hold, Origin, SessionError, Sessions};
    use crate::link::Link;
    use crate::sessions::Rules;
    use crate::sessions::testing::Watcher;

    const SHORT: Window = Window::from_millis(200);
    const AFTER_SHORT: Duration = Duration::from_millis(220);
    const HOLD: Duration = Duration::from_millis(50);
    const AFTER_HOLD: Duration = Duration::from_millis(60);
    const LEFT: &str = "motor/left";
    const RIGHT: &str = "motor/right";

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
        sessions.lease(&from(over), over, resource)
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
                sessions.note_stop(&from(&connection), |resource| resource == RIGHT);
                assert!(lease(&sessions, &connection, LEFT).is_err(), "another thing was stopped");
                sessions.note_stop(&from(&connection), |resource| resource == LEFT);
                let soon = lease(&sessions, &connection, LEFT);
                assert!(matches!(soon, Err(SessionError::TooSoonAfterStop(_))), "from the same buffer");
                sleep(AFTER_HOLD);
            }
            assert_ne!(lease(&sessions, &connection, LEFT).unwrap().owner, hold.owner);
        }
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
        sessions.note_stop(&from(&next), |_| true);
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
        assert_eq!(take(&one, "base/base1"), Ok(()));
        assert!(matches!(take(&other, "base/base1"), Err(SessionError::Held { .. })));
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
