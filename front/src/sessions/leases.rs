//! Leases: sessions for clients that never open one.
//!
//! A client over HTTP/2 answers our pings for as long as its program runs, so its lease belongs to its connection and
//! lives as long as that is heard. A client over HTTP/1 answers nothing and uses several connections at once, so its
//! lease belongs to its address, and only what it sends keeps it alive. Either way a beat is dated back to when the
//! client was heard, and the supervisor counts the window from there.
//!
//! A client that fell silent while something moved may come back with commands that have waited in a buffer since.
//! So the first one after that is refused, as with an expired session.

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

/// What a lease is tied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Tie {
    Connection(u64),
    Address(IpAddr),
    /// To nothing: everybody's, kept alive by the front itself.
    Nothing,
}

#[derive(Debug)]
enum Lease {
    Open {
        id: SessionId,
        entity: Entity,
        connections: Vec<Weak<Connection>>,
    },
    /// It ended while something moved; since when, and why.
    RanOut {
        since: Nanos,
        why: String,
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
    /// The lease of that holder, which has just been heard over that connection.
    fn look(&self, holder: &Holder, connection: &Arc<Connection>) -> Result<Option<SessionId>, SessionError> {
        let mut held = locked(&self.held);
        match held.get_mut(holder) {
            None => Ok(None),
            Some(Lease::RanOut { .. }) => Err(Self::refuse(&mut held, holder)),
            Some(Lease::Open { id, connections, .. }) => {
                connections.retain(|known| known.strong_count() > 0);
                if !connections.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(connection))) {
                    connections.push(Arc::downgrade(connection));
                }
                Ok(Some(*id))
            }
        }
    }

    fn refuse(held: &mut HashMap<Holder, Lease>, holder: &Holder) -> SessionError {
        match held.remove(holder) {
            Some(Lease::RanOut { why, .. }) => SessionError::LeaseRanOut(why),
            Some(Lease::Open { .. }) | None => SessionError::Expired,
        }
    }

    /// Notes that a session has ended which had not brought everything to rest. Most are no leases.
    pub fn note_end(&self, id: SessionId, why: &str) {
        let mut held = locked(&self.held);
        let lease =
            held.values_mut().find(|lease| matches!(lease, Lease::Open { id: open, .. } if *open == id));
        if let Some(lease) = lease {
            *lease = Lease::RanOut { since: Nanos::now(), why: why.to_owned() };
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
        let tie = match (self.rules.sessionless, connection.liveness()) {
            (Sessionless::Viam, _) => Tie::Nothing,
            (_, Liveness::Pings) => Tie::Connection(connection.id),
            (_, Liveness::OwnBytes) => Tie::Address(connection.remote.ip()),
        };
        let entity = if tie == Tie::Nothing { Entity::new("without session") } else { entity.clone() };
        let holder = Holder { entity: entity.name().into(), tie };
        let _turn = locked(&self.leases.turn);
        if let Some(id) = self.leases.look(&holder, connection)? {
            match self.hold(&entity, id) {
                Err(SessionError::Expired) => {}
                held => return held,
            }
            let mut held = locked(&self.leases.held);
            if let Some(Lease::RanOut { .. }) = held.get(&holder) {
                return Err(Leases::refuse(&mut held, &holder));
            }
        }
        if tie == Tie::Nothing {
            warn!(
                "a client without session moves something; nothing will stop it when that client is gone \
                 (sessionless = \"viam\" in [front])"
            );
        }
        let peer = Peer { remote: Some(connection.remote), local: Some(connection.local) };
        let id = self.open(&entity, peer, self.rules.lease_window)?.id;
        let connections = vec![Arc::downgrade(connection)];
        let now = Nanos::now();
        let mut held = locked(&self.leases.held);
        held.retain(|_, lease| !matches!(lease, Lease::RanOut { since, .. } if now.since(*since) > KEPT));
        held.insert(holder, Lease::Open { id, entity: entity.clone(), connections });
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
        let heard = |connections: &[Weak<Connection>]| {
            let heard = connections.iter().filter_map(Weak::upgrade).map(|connection| connection.heard());
            heard.max_by_key(|at| at.0)
        };
        let open: Vec<(Holder, SessionId, Entity, Option<Nanos>)> = locked(&self.leases.held)
            .iter()
            .filter_map(|(holder, lease)| match lease {
                Lease::RanOut { .. } => None,
                Lease::Open { id, entity, connections } => {
                    let at = if holder.tie == Tie::Nothing { Some(Nanos::now()) } else { heard(connections) };
                    Some((holder.clone(), *id, entity.clone(), at))
                }
            })
            .collect();
        for (holder, id, entity, at) in open {
            // Also without news: this is how the end of a lease is noticed.
            if self.beat_of(&entity, id, at).is_err() {
                let mut held = locked(&self.leases.held);
                if matches!(held.get(&holder), Some(Lease::Open { id: open, .. }) if *open == id) {
                    held.remove(&holder);
                }
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
    fn over_http_2_every_connection_has_its_own_over_http_1_every_address() {
        let (_watcher, sessions) = sessions(Sessionless::Lease);
        let me = Entity::anonymous();
        let of = |port, version| sessions.lease(&me, &connection(port, version)).unwrap().owner;
        assert_ne!(of(1, http::Version::HTTP_2), of(2, http::Version::HTTP_2));
        assert_eq!(of(3, http::Version::HTTP_11), of(4, http::Version::HTTP_11));
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
