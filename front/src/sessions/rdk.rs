//! What Viam's server tests about sessions without a motor in it, under its own names and in our form. The others are in
//! `tests/tests/vcan/rdk.rs`.
#![expect(non_snake_case, reason = "the names are theirs")]

use std::thread::sleep;
use std::time::Duration;

use shm_proto::verdicts::SessionState;
use shm_proto::{SessionId, Window};

use super::testing::Watcher;
use super::{Cause, Entity, Peer, Rules, SessionError, Sessions};
use crate::link::Link;

const LONG: Window = Window::from_millis(60_000);
const SHORT: Window = Window::from_millis(30);
const AFTER_SHORT: Duration = Duration::from_millis(40);

fn robot() -> (Watcher, Sessions) {
    let watcher = Watcher::with_room(4);
    let sessions = Sessions::new(Link::to(watcher.attachment.clone()), Rules::relaxed());
    (watcher, sessions)
}

/// Two owners: each finds its own session, neither the other's, and the list has both.
#[test]
fn TestSessionManager() {
    let (_watcher, sessions) = robot();
    let (one, other) = (Entity::new("owner1"), Entity::new("owner2"));
    let first = sessions.open(&one, Peer::default(), LONG).unwrap();
    let second = sessions.open(&other, Peer::default(), LONG).unwrap();
    assert_eq!(sessions.beat(&one, first.id), Ok(()));
    assert_eq!(sessions.beat(&other, second.id), Ok(()));
    assert_eq!(sessions.beat(&other, first.id), Err(SessionError::Expired));
    assert_eq!(sessions.beat(&one, second.id), Err(SessionError::Expired));
    assert_eq!(sessions.beat(&one, SessionId(7)), Err(SessionError::Expired));
    let mut listed: Vec<_> = sessions.list().into_iter().map(|session| session.id.0).collect();
    let mut both = [first.id.0, second.id.0];
    listed.sort_unstable();
    both.sort_unstable();
    assert_eq!(listed, both);
}

/// Sessions that are over are found by themselves, without anybody calling.
#[test]
fn TestSessionManagerExpiredSessions() {
    let (_watcher, sessions) = robot();
    let mut departures = sessions.departures();
    let me = Entity::anonymous();
    let id = sessions.open(&me, Peer::default(), SHORT).unwrap().id;
    sleep(AFTER_SHORT);
    sessions.clear(&sessions.book().unwrap());
    let departure = departures.try_recv().unwrap();
    assert_eq!((departure.id, departure.cause), (id, Cause::Silent));
    assert!(departures.try_recv().is_err(), "told once");
    assert!(sessions.list().is_empty());
}

/// The end of a session tells which one it was and what it was the last to use.
#[test]
fn TestSessionManagerExpiredActivity() {
    let (watcher, sessions) = robot();
    let mut departures = sessions.departures();
    let me = Entity::anonymous();
    let id = sessions.open(&me, Peer::default(), LONG).unwrap().id;
    let hold = sessions.hold(&me, id).unwrap();
    for resource in ["motor/m1", "arm/a1"] {
        drop(sessions.use_resource(&hold, resource, &[]).unwrap());
    }
    watcher.says(id, hold.owner, SessionState::Tripped);
    sessions.clear(&sessions.book().unwrap());
    let mut departure = departures.try_recv().unwrap();
    departure.used.sort_by(|a, b| a.resource.cmp(&b.resource));
    let used: Vec<&str> = departure.used.iter().map(|last| &*last.resource).collect();
    assert_eq!((departure.id, departure.cause, used), (id, Cause::Verdict, vec!["arm/a1", "motor/m1"]));
}

/// A session lives for its window and not longer, and a heartbeat gives it another one.
#[test]
fn TestNew() {
    let (_watcher, sessions) = robot();
    let me = Entity::new("owner1");
    let window = Window::from_millis(400);
    let id = sessions.open(&me, Peer::default(), window).unwrap().id;
    for _ in 0..3 {
        sleep(Duration::from_millis(200));
        assert_eq!(sessions.beat(&me, id), Ok(()));
    }
    sleep(Duration::from_millis(420));
    assert_eq!(sessions.beat(&me, id), Err(SessionError::Expired));
}

/// A known id is taken up by its owner only.
#[test]
fn TestNewWithID() {
    let (_watcher, sessions) = robot();
    let me = Entity::new("owner1");
    let id = sessions.open(&me, Peer::default(), LONG).unwrap().id;
    assert_eq!(sessions.resume(&me, id).unwrap().unwrap().id, id);
    assert!(sessions.resume(&Entity::new("owner2"), id).unwrap().is_none());
}

/// A session that is over is not noted as the user of anything.
#[test]
fn TestSafetyMonitor() {
    let (_watcher, sessions) = robot();
    let mut departures = sessions.departures();
    let me = Entity::anonymous();
    let id = sessions.open(&me, Peer::default(), SHORT).unwrap().id;
    sleep(AFTER_SHORT);
    assert_eq!(sessions.hold(&me, id).err(), Some(SessionError::Expired));
    assert!(departures.try_recv().unwrap().used.is_empty());
}
