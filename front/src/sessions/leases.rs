//! Leases: sessions for clients that never open one.
//!
//! A lease belongs to a connection and lives for as long as that is heard. A client over HTTP/2 answers our pings for as
//! long as its program runs; one over HTTP/1 answers nothing, so only what it sends keeps its lease alive. Either way a
//! beat is dated back to when the client was heard, and the supervisor counts the window from there.
//!
//! A client that fell silent while something moved may come back with commands that have waited in a buffer since.
//! So the first one after that is refused, as with an expired session. Over HTTP/1 it may come over another connection, so
//! there the refusal waits for its address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use config::Sessionless;
use shm_proto::{Nanos, SessionId};
use tracing::warn;

use super::identity::{Entity, Peer};
use super::{Hold, SessionError, Sessions};
use crate::transport::{Connection, Liveness};

/// How long a refusal waits for its client: as long as an unheard HTTP/2 connection is kept open.
const KEPT: u64 = 60_000_000_000;
/// How often a lease is kept alive within its window: a ping and its answer fit between.
const LOOKS_PER_WINDOW: u32 = 8;

/// Whose lease it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    entity: Box<str>,
    tie: Tie,
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
        entity: Entity,
        connection: Weak<Connection>,
        /// What a refusal waits for when it runs out.
        refused_at: Tie,
    },
    /// It ended while something moved; since when, and why.
    RanOut { since: Nanos, why: String },
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
    /// The open lease of that holder.
    ///
    /// # Errors
    ///
    /// Once after one ran out whose refusal waits for `refused`.
    fn look(&self, holder: &Holder, refused: &Holder) -> Result<Option<SessionId>, SessionError> {
        let mut held = locked(&self.held);
        if let Some(Lease::Open { id, .. }) = held.get(holder) {
            return Ok(Some(*id));
        }
        match held.get(refused) {
            Some(Lease::RanOut { why, .. }) => {
                let why = why.clone();
                held.remove(refused);
                Err(SessionError::LeaseRanOut(why))
            }
            Some(Lease::Open { .. }) | None => Ok(None),
        }
    }

    /// Forgets an open lease that has ended.
    fn forget(&self, holder: &Holder, ended: SessionId) {
        let mut held = locked(&self.held);
        if matches!(held.get(holder), Some(Lease::Open { id, .. }) if *id == ended) {
            held.remove(holder);
        }
    }

    /// Notes that a session has ended which had not brought everything to rest. Most are no leases.
    pub fn note_end(&self, id: SessionId, why: &str) {
        let mut held = locked(&self.held);
        let of = |(holder, lease): (&Holder, &Lease)| match lease {
            Lease::Open { id: open, refused_at, .. } if *open == id => Some((holder.clone(), *refused_at)),
            _ => None,
        };
        if let Some((holder, tie)) = held.iter().find_map(of) {
            held.remove(&holder);
            let why = why.to_owned();
            held.insert(Holder { entity: holder.entity, tie }, Lease::RanOut { since: Nanos::now(), why });
        }
    }
}

impl Sessions {
    /// The session of a client that has none of its own: the one it has, else a new one. The check before every motion,
    /// as [`Self::hold`] is for clients with sessions.
    ///
    /// # Errors
    ///
    /// [`SessionError::LeaseRanOut`] once after its client fell silent while something moved; else as for
    /// [`Self::open`].
    pub fn lease(&self, entity: &Entity, connection: &Arc<Connection>) -> Result<Hold, SessionError> {
        let own = Tie::Connection(connection.id);
        let (tie, refused_at) = match (self.rules.sessionless, connection.liveness()) {
            (Sessionless::Viam, _) => (Tie::Nothing, Tie::Nothing),
            (_, Liveness::Pings) => (own, own),
            (_, Liveness::OwnBytes) => (own, Tie::Address(connection.remote.ip())),
        };
        let entity = if tie == Tie::Nothing { Entity::new("without session") } else { entity.clone() };
        let holder = Holder { entity: entity.name().into(), tie };
        let refused = Holder { entity: entity.name().into(), tie: refused_at };
        let _turn = locked(&self.leases.turn);
        if let Some(id) = self.leases.look(&holder, &refused)? {
            match self.hold(&entity, id) {
                Err(SessionError::Expired) => {}
                held => return held,
            }
            self.leases.forget(&holder, id);
            self.leases.look(&holder, &refused)?;
        }
        if tie == Tie::Nothing {
            warn!(
                "a client without session moves something; nothing will stop it when that client is gone \
                 (sessionless = \"viam\" in [front])"
            );
        }
        let peer = Peer { remote: Some(connection.remote), local: Some(connection.local) };
        let id = self.open(&entity, peer, self.rules.lease_window)?.id;
        let connection = Arc::downgrade(connection);
        let now = Nanos::now();
        let mut held = locked(&self.leases.held);
        held.retain(|_, lease| !matches!(lease, Lease::RanOut { since, .. } if now.since(*since) > KEPT));
        held.insert(holder, Lease::Open { id, entity: entity.clone(), connection, refused_at });
        drop(held);
        self.hold(&entity, id)
    }

    /// Keeps leases alive whose clients are heard, for as long as the program runs.
    pub async fn keep_leases(&self) {
        let window = std::time::Duration::from_nanos(self.rules.lease_window.0);
        let mut ticks = tokio::time::interval(window / LOOKS_PER_WINDOW);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.beat_leases();
        }
    }

    fn beat_leases(&self) {
        let open: Vec<(Holder, SessionId, Entity, Option<Nanos>)> = locked(&self.leases.held)
            .iter()
            .filter_map(|(holder, lease)| match lease {
                Lease::RanOut { .. } => None,
                Lease::Open { id, entity, connection, .. } => {
                    let heard = match holder.tie {
                        Tie::Nothing => Some(Nanos::now()),
                        Tie::Connection(_) | Tie::Address(_) => connection.upgrade().map(|open| open.heard()),
                    };
                    Some((holder.clone(), *id, entity.clone(), heard))
                }
            })
            .collect();
        for (holder, id, entity, heard) in open {
            // Also without news: this is how the end of a lease is noticed.
            if self.beat_of(&entity, id, heard).is_err() {
                self.leases.forget(&holder, id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::thread::sleep;
    use std::time::Duration;

    use config::Sessionless;
    use shm_proto::Window;

    use super::{Arc, Connection, Entity, SessionError, Sessions};
    use crate::link::Link;
    use crate::sessions::Rules;
    use crate::sessions::testing::Watcher;

    const SHORT: Window = Window::from_millis(200);
    const AFTER_SHORT: Duration = Duration::from_millis(220);

    fn sessions(sessionless: Sessionless) -> (Watcher, Sessions) {
        let watcher = Watcher::with_room(4);
        let rules = Rules { lease_window: SHORT, sessionless, ..Rules::relaxed() };
        let sessions = Sessions::new(Link::to(watcher.attachment.clone()), rules);
        (watcher, sessions)
    }

    fn connection(port: u16, version: http::Version) -> Arc<Connection> {
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let connection = Connection::new(address, address);
        connection.note_call(version);
        connection
    }

    #[test]
    fn a_client_that_is_heard_keeps_its_lease() {
        let (_watcher, sessions) = sessions(Sessionless::Lease);
        let (me, connection) = (Entity::anonymous(), connection(1, http::Version::HTTP_2));
        let first = sessions.lease(&me, &connection).unwrap();
        for _ in 0..4 {
            sleep(Duration::from_millis(100));
            connection.note_heard();
            sessions.beat_leases();
        }
        assert_eq!(sessions.lease(&me, &connection).unwrap().owner, first.owner);
    }

    #[test]
    fn an_unheard_client_loses_it_and_is_refused_once_if_something_moved() {
        for moving in [true, false] {
            let (_watcher, sessions) = sessions(Sessionless::Lease);
            let (me, connection) = (Entity::anonymous(), connection(1, http::Version::HTTP_2));
            let hold = sessions.lease(&me, &connection).unwrap();
            drop(sessions.use_resource(&hold, "motor/left", &[]).unwrap());
            if !moving {
                sessions.rest("motor/left");
            }
            sleep(AFTER_SHORT);
            sessions.beat_leases();
            let next = sessions.lease(&me, &connection);
            assert_eq!(matches!(next, Err(SessionError::LeaseRanOut(_))), moving);
            let again = sessions.lease(&me, &connection).unwrap();
            assert_ne!(again.owner, hold.owner);
        }
    }

    #[test]
    fn clients_of_one_address_do_not_keep_each_others_leases_alive() {
        for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
            let (_watcher, sessions) = sessions(Sessionless::Lease);
            let me = Entity::anonymous();
            let (silent, heard) = (connection(1, version), connection(2, version));
            let lost = sessions.lease(&me, &silent).unwrap();
            drop(sessions.use_resource(&lost, "motor/left", &[]).unwrap());
            let kept = sessions.lease(&me, &heard).unwrap();
            for _ in 0..4 {
                sleep(Duration::from_millis(100));
                heard.note_heard();
                sessions.beat_leases();
            }
            assert_eq!(sessions.lease(&me, &heard).unwrap().owner, kept.owner);
            assert_ne!(kept.owner, lost.owner);
            assert!(matches!(sessions.lease(&me, &silent), Err(SessionError::LeaseRanOut(_))), "{version:?}");
        }
    }

    #[test]
    fn over_http_1_the_refusal_also_meets_another_connection() {
        let (_watcher, sessions) = sessions(Sessionless::Lease);
        let me = Entity::anonymous();
        let hold = sessions.lease(&me, &connection(1, http::Version::HTTP_11)).unwrap();
        drop(sessions.use_resource(&hold, "motor/left", &[]).unwrap());
        sleep(AFTER_SHORT);
        sessions.beat_leases();
        let next = connection(2, http::Version::HTTP_11);
        assert!(matches!(sessions.lease(&me, &next), Err(SessionError::LeaseRanOut(_))));
        assert!(sessions.lease(&me, &next).is_ok());
    }

    #[test]
    fn unprotected_motion_outlives_its_client() {
        let (_watcher, sessions) = sessions(Sessionless::Viam);
        let me = Entity::anonymous();
        let first = sessions.lease(&me, &connection(1, http::Version::HTTP_2)).unwrap();
        for _ in 0..4 {
            sleep(Duration::from_millis(100));
            sessions.beat_leases();
        }
        let second = sessions.lease(&Entity::new("x"), &connection(2, http::Version::HTTP_11)).unwrap();
        assert_eq!(first.owner, second.owner);
    }
}
