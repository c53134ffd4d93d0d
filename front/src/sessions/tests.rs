//! The rules of sessions, with a supervisor that says what each test needs.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use shm_proto::beat::{Context, Word};
use shm_proto::beats::Look;
use shm_proto::layout::BeatLayout;
use shm_proto::verdicts::SessionState::{Closed, Live, Tripped};
use shm_proto::{
    BeatSegment, BeatView, Capacity, Ending, Generation, Incarnation, Nanos, SessionId, SlotIndex,
    SlotReader, Window, memory,
};

use super::slot::Slot;
use super::testing::Watcher;
use super::{Cause, Entity, Opened, Peer, Rules, SessionError, Sessions};
use crate::link::Link;

const LONG: Window = Window::from_millis(60_000);
const SHORT: Window = Window::from_millis(30);
const AFTER_SHORT: Duration = Duration::from_millis(40);

struct Setting {
    watcher: Watcher,
    link: std::sync::Arc<Link>,
    sessions: Sessions,
    me: Entity,
}

fn setting(room: u16) -> Setting {
    let watcher = Watcher::with_room(room);
    let link = Link::to(watcher.attachment.clone());
    let sessions = Sessions::new(link.clone(), Rules::relaxed());
    Setting { watcher, link, sessions, me: Entity::anonymous() }
}

impl Setting {
    fn open(&self, window: Window) -> Result<Opened, SessionError> {
        self.sessions.open(&self.me, Peer::default(), window)
    }

    fn beat(&self, id: SessionId) -> Result<(), SessionError> {
        self.sessions.beat(&self.me, id)
    }
}

#[test]
fn a_new_session_lives_before_the_supervisor_has_seen_it() {
    let setting = setting(2);
    let opened = setting.open(LONG).unwrap();
    assert_eq!(setting.beat(opened.id), Ok(()));
    let hold = setting.sessions.hold(&setting.me, opened.id).unwrap();
    setting.watcher.says(opened.id, hold.owner, Live);
    assert_eq!(setting.beat(opened.id), Ok(()));
    assert_eq!(setting.sessions.list().len(), 1);
}

#[test]
fn the_supervisors_word_ends_a_session_at_once_and_for_good() {
    for verdict in [Tripped, Closed] {
        let setting = setting(2);
        let opened = setting.open(LONG).unwrap();
        let hold = setting.sessions.hold(&setting.me, opened.id).unwrap();
        setting.watcher.says(opened.id, hold.owner, verdict);
        assert_eq!(setting.sessions.list().len(), 0);
        assert_eq!(setting.beat(opened.id), Err(SessionError::Expired));
        setting.watcher.says(opened.id, hold.owner, Live);
        assert_eq!(setting.beat(opened.id), Err(SessionError::Expired), "it must not come back");
        assert!(setting.sessions.hold(&setting.me, opened.id).is_err());
    }
}

#[test]
fn a_silent_session_does_not_revive_even_if_the_supervisor_is_late() {
    let setting = setting(2);
    let opened = setting.open(SHORT).unwrap();
    setting.beat(opened.id).unwrap();
    sleep(AFTER_SHORT);
    assert_eq!(setting.beat(opened.id), Err(SessionError::Expired));
    assert_eq!(setting.beat(opened.id), Err(SessionError::Expired));
}

#[test]
fn beats_and_commands_alike_keep_a_session_alive() {
    let setting = setting(2);
    let opened = setting.open(Window::from_millis(1_000)).unwrap();
    for turn in 0..6 {
        sleep(Duration::from_millis(200));
        if turn % 2 == 0 {
            setting.beat(opened.id).unwrap();
        } else {
            setting.sessions.hold(&setting.me, opened.id).unwrap();
        }
    }
}

#[test]
fn the_first_beat_is_never_refused_but_revives_nothing() {
    let setting = setting(1);
    let opened = setting.open(SHORT).unwrap();
    sleep(AFTER_SHORT);
    assert_eq!(setting.beat(opened.id), Ok(()), "this answer would deadlock the Python client");
    assert_eq!(setting.beat(opened.id), Err(SessionError::Expired));

    let stranger = Entity::new("somebody else");
    let setting = self::setting(1);
    let opened = setting.open(SHORT).unwrap();
    sleep(AFTER_SHORT);
    assert_eq!(setting.sessions.hold(&setting.me, opened.id).err(), Some(SessionError::Expired));
    assert_eq!(setting.sessions.beat(&stranger, opened.id), Err(SessionError::Expired));
    assert_eq!(setting.beat(opened.id), Ok(()));
}

#[test]
fn unknown_and_foreign_sessions_are_one_answer() {
    let setting = setting(2);
    let mine = setting.sessions.open(&Entity::new("me"), Peer::default(), LONG).unwrap();
    let other = Entity::new("mf");
    assert_eq!(setting.sessions.beat(&other, mine.id), Err(SessionError::Expired));
    assert_eq!(setting.sessions.hold(&other, mine.id).err(), Some(SessionError::Expired));
    assert_eq!(setting.sessions.beat(&other, SessionId(7)), Err(SessionError::Expired));
    assert!(setting.sessions.resume(&other, mine.id).unwrap().is_none());
    assert_eq!(setting.sessions.beat(&Entity::new("me"), mine.id), Ok(()), "the owner's goes on");
}

#[test]
fn resume_gives_the_same_id_while_it_lives() {
    let setting = setting(2);
    let opened = setting.open(LONG).unwrap();
    let resumed = setting.sessions.resume(&setting.me, opened.id).unwrap().unwrap();
    assert_eq!((resumed.id, resumed.window), (opened.id, LONG));
    assert!(setting.sessions.resume(&setting.me, SessionId(7)).unwrap().is_none());
    setting.sessions.close(&setting.me, opened.id).unwrap();
    assert!(setting.sessions.resume(&setting.me, opened.id).unwrap().is_none());
}

#[test]
fn two_thousand_opened_sessions_harm_none_of_those_that_live() {
    let setting = setting(64);
    let mut ids = HashSet::new();
    for number in 0..2_000 {
        match setting.open(LONG) {
            Ok(opened) => assert!(ids.insert(opened.id)),
            Err(error) => assert!(number >= 64 && error == SessionError::TooMany, "{number}: {error}"),
        }
    }
    assert_eq!(ids.len(), 64);
    assert!(ids.iter().all(|id| setting.beat(*id) == Ok(())));
}

#[test]
fn a_slot_is_used_again_only_after_the_supervisor_has_seen_the_end() {
    let setting = setting(1);
    let first = setting.open(LONG).unwrap();
    let hold = setting.sessions.hold(&setting.me, first.id).unwrap();
    setting.watcher.says(first.id, hold.owner, Live);
    setting.sessions.close(&setting.me, first.id).unwrap();
    assert_eq!(setting.beat(first.id), Err(SessionError::Expired));
    assert_eq!(setting.open(LONG).err(), Some(SessionError::TooMany));

    setting.watcher.says(first.id, hold.owner, Closed);
    let second = setting.open(LONG).unwrap();
    let next = setting.sessions.hold(&setting.me, second.id).unwrap();
    assert_eq!(next.owner.slot, hold.owner.slot);
    assert!(next.owner.incarnation > hold.owner.incarnation);
    assert_eq!(setting.beat(first.id), Err(SessionError::Expired), "the old id is not the new session");
}

#[test]
fn what_another_front_left_in_the_verdicts_ends_nothing() {
    let setting = setting(1);
    let opened = setting.open(LONG).unwrap();
    let hold = setting.sessions.hold(&setting.me, opened.id).unwrap();
    setting.watcher.says(SessionId(7), hold.owner, Tripped);
    assert_eq!(setting.beat(opened.id), Ok(()));
}

#[test]
fn with_the_supervisor_all_sessions_go_and_the_rings_of_the_next_one_begin_anew() {
    let setting = setting(2);
    let used = setting.open(LONG).unwrap();
    setting.beat(used.id).unwrap();
    let fresh = setting.open(LONG).unwrap();

    setting.link.set(None);
    assert!(setting.watcher.attachment.is_gone());
    assert_eq!(setting.beat(used.id), Err(SessionError::Expired));
    assert_eq!(setting.beat(fresh.id), Ok(()), "its first beat");
    assert_eq!(setting.open(LONG).err(), Some(SessionError::NO_SUPERVISOR));
    assert_eq!(setting.sessions.hold(&setting.me, used.id).err(), Some(SessionError::NO_SUPERVISOR));
    assert_eq!(setting.sessions.list().len(), 0);

    let next = Watcher::with_room(2);
    setting.link.set(Some(next.attachment.clone()));
    assert_eq!(setting.beat(used.id), Err(SessionError::Expired));
    assert_eq!(setting.sessions.hold(&setting.me, fresh.id).err(), Some(SessionError::Expired));
    let opened = setting.open(LONG).unwrap();
    assert_eq!(setting.sessions.hold(&setting.me, opened.id).unwrap().owner.incarnation.get(), 1);
}

#[test]
fn a_supervisor_that_hangs_gets_no_new_work_but_beats_go_on() {
    let watcher = Watcher::with_room(2);
    let sessions = Sessions::new(
        Link::to(watcher.attachment.clone()),
        Rules { patience: 300_000_000, ..Rules::relaxed() },
    );
    let me = Entity::anonymous();
    watcher.verdicts.beat(2, Nanos::now());
    let opened = sessions.open(&me, Peer::default(), LONG).unwrap();
    sleep(Duration::from_millis(350));
    assert_eq!(sessions.hold(&me, opened.id).err(), Some(SessionError::SUPERVISOR_SILENT));
    assert_eq!(sessions.open(&me, Peer::default(), LONG).err(), Some(SessionError::SUPERVISOR_SILENT));
    assert_eq!(sessions.beat(&me, opened.id), Ok(()));
}

#[test]
fn the_end_of_a_session_tells_what_it_used_last() {
    let watcher = Watcher::with_room(2);
    let book = super::Book::new(watcher.attachment.clone());
    let [a, b] = [SessionId(1), SessionId(2)].map(|id| {
        let owner = book.open(id, Entity::anonymous(), Peer::default(), LONG).unwrap();
        (id, owner)
    });
    for (resource, owner) in [("left", a.1), ("right", a.1), ("left", b.1)] {
        let command =
            super::Command { resource, motors: &[], owner, progress: None, arrived: shm_proto::Nanos::ZERO };
        book.begin(command, config::Takeover::LastUsed, None, |_| false).unwrap();
    }
    let departed = book.empty(super::Cause::Goodbye);
    assert_eq!(departed.iter().map(|session| session.id).collect::<Vec<_>>(), [a.0, b.0]);
    let names = |used: Vec<super::LastUse>| used.into_iter().map(|last| last.resource).collect::<Vec<_>>();
    assert_eq!(names(book.strike(&departed[0])), ["right".into()]);
    assert_eq!(names(book.strike(&departed[1])), ["left".into()]);
}

fn with_rules(room: u16, rules: Rules) -> Setting {
    let watcher = Watcher::with_room(room);
    let link = Link::to(watcher.attachment.clone());
    let sessions = Sessions::new(link.clone(), rules);
    Setting { watcher, link, sessions, me: Entity::anonymous() }
}

fn with_resource_rules(rules: config::ResourceRules) -> Setting {
    let text = include_str!("../../../lanyard.example.toml");
    let mut config = config::Config::parse(std::path::Path::new("lanyard.example.toml"), text).unwrap();
    config.motors[0].rules = rules;
    with_rules(4, Rules { patience: 60_000_000_000, ..Rules::of(&config) })
}

#[test]
fn the_window_of_a_resource_holds_for_who_has_used_it() {
    let window = Some(Duration::from_millis(100));
    let setting = with_resource_rules(config::ResourceRules { window, progress: None });
    let mut departures = setting.sessions.departures();
    let user = setting.open(LONG).unwrap();
    assert_eq!(user.window, Window::from_millis(100), "what the client is told");
    let other = setting.open(LONG).unwrap();
    let hold = setting.sessions.hold(&setting.me, user.id).unwrap();
    drop(setting.sessions.use_resource(&hold, "motor/left", &[]).unwrap());
    sleep(Duration::from_millis(120));
    assert_eq!(setting.beat(user.id), Err(SessionError::Expired));
    assert_eq!(setting.beat(other.id), Ok(()), "it used nothing");
    let departure = departures.try_recv().unwrap();
    assert_eq!((departure.id, departure.cause), (user.id, super::Cause::Overdue));
    assert_eq!(departure.used[0].resource, "motor/left".into());
    assert!(departure.used[0].moving && departure.hold.owner == hold.owner);
    let why = setting.sessions.why(&setting.me, user.id).unwrap();
    assert!(why.contains("window of something it drove"), "{why}");
    assert_eq!(setting.sessions.why(&Entity::new("x"), user.id), None);
}

#[test]
fn who_beats_but_commands_nothing_is_gone_where_progress_is_required() {
    let progress = Some(Duration::from_millis(100));
    let setting = with_resource_rules(config::ResourceRules { window: None, progress });
    let use_left = |id| {
        let hold = setting.sessions.hold(&setting.me, id).unwrap();
        setting.sessions.use_resource(&hold, "motor/left", &[]).unwrap()
    };
    let book = setting.sessions.book().unwrap();
    let user = setting.open(LONG).unwrap();
    let under_way = use_left(user.id);
    sleep(Duration::from_millis(120));
    setting.sessions.clear(&book);
    assert_eq!(setting.beat(user.id), Ok(()), "its command is under way");
    drop(under_way);
    setting.sessions.rest("motor/left");
    sleep(Duration::from_millis(120));
    setting.sessions.clear(&book);
    assert_eq!(setting.beat(user.id), Ok(()), "nothing moves");
    drop(use_left(user.id));
    sleep(Duration::from_millis(120));
    setting.beat(user.id).unwrap();
    setting.sessions.clear(&book);
    assert_eq!(setting.beat(user.id), Err(SessionError::Expired));
}

#[test]
fn what_is_held_exclusively_is_kept_until_its_session_ends() {
    let rules = Rules { takeover: config::Takeover::Exclusive, ..Rules::relaxed() };
    let setting = with_rules(4, rules);
    let [first, second] = [(), ()].map(|()| setting.open(LONG).unwrap().id);
    let take = |id, resource| {
        let hold = setting.sessions.hold(&setting.me, id).unwrap();
        setting.sessions.use_resource(&hold, resource, &[shm_proto::MotorIndex(0)]).map(drop)
    };
    take(first, "motor/left").unwrap();
    let refused = take(second, "base/base1").unwrap_err();
    assert!(refused.to_string().starts_with("base/base1 is held by another session"), "{refused}");
    assert_eq!(take(first, "base/base1"), Ok(()), "its own motor");
    setting.sessions.close(&setting.me, first).unwrap();
    assert_eq!(take(second, "base/base1"), Ok(()));
}

#[test]
fn one_entity_gets_only_so_many_sessions() {
    let setting = with_rules(4, Rules { most_per_entity: 2, ..Rules::relaxed() });
    let [_, last] = [(), ()].map(|()| setting.open(LONG).unwrap().id);
    assert_eq!(setting.open(LONG).err(), Some(SessionError::TooManyOfYours(2)));
    assert!(setting.sessions.open(&Entity::new("other"), Peer::default(), LONG).is_ok());
    setting.sessions.close(&setting.me, last).unwrap();
    assert!(setting.open(LONG).is_ok());
}

#[tokio::test]
async fn who_waits_for_the_end_of_a_session_is_told() {
    let setting = setting(2);
    let id = setting.open(LONG).unwrap().id;
    let hold = setting.sessions.hold(&setting.me, id).unwrap();
    drop(setting.sessions.use_resource(&hold, "arm/arm1", &[]).unwrap());
    let mut ended = std::pin::pin!(setting.sessions.ended(&hold));
    let early = tokio::time::timeout(Duration::from_millis(20), ended.as_mut()).await;
    assert!(early.is_err(), "it lives");
    setting.sessions.close_users_of(|key| key == "arm/other", super::Cause::UpstreamLost);
    assert_eq!(setting.beat(id), Ok(()));
    setting.sessions.close_users_of(|key| key == "arm/arm1", super::Cause::UpstreamLost);
    assert_eq!(ended.await, SessionError::Expired);
    setting.link.set(None);
    assert_eq!(setting.sessions.ended(&hold).await, SessionError::Expired, "with the supervisor");
}

/// Fails if the supervisor is told another cause than the one for which a session ends here, or is told one where it
/// has to find the silence itself.
#[test]
fn the_supervisor_is_told_why_a_session_ends() {
    let capacity = Capacity::new(1, 1).unwrap();
    let memfd = memory::create("beats", BeatLayout::new(capacity).words()).unwrap();
    let beats = BeatSegment::map(memfd.as_fd(), capacity, Generation(1)).unwrap();
    memory::seal(memfd.as_fd()).unwrap();
    let view = BeatView::map(memfd.as_fd(), capacity, Generation(1)).unwrap();
    let mut slot = Slot::new(beats.writer(SlotIndex(0)).unwrap());
    let mut reader = SlotReader::default();
    for (cause, told) in [
        (Cause::Silent, Word::Alive),
        (Cause::Overdue, Word::Close(Ending::Overdue)),
        (Cause::NoProgress, Word::Close(Ending::NoProgress)),
        (Cause::UpstreamLost, Word::Close(Ending::UpstreamLost)),
        (Cause::TargetLost, Word::Close(Ending::TargetLost)),
        (Cause::ListenerClosed, Word::Close(Ending::ListenerClosed)),
        (Cause::CutOff, Word::Close(Ending::CutOff)),
        (Cause::ClientLost, Word::Close(Ending::ClientLost)),
        (Cause::Goodbye, Word::Close(Ending::Client)),
        (Cause::ProgramEnds, Word::Close(Ending::FrontEnds)),
        (Cause::Verdict, Word::Alive),
        (Cause::Forgotten, Word::Alive),
    ] {
        slot.open(SessionId(1), Entity::anonymous(), Peer::default(), LONG);
        let departed = slot.leave(cause).unwrap();
        assert_eq!(departed.cause, cause);
        let context = Context {
            slot: SlotIndex(0),
            generation: Generation(1),
            now: Nanos::now(),
            bound: None,
            newest: Incarnation::NONE,
            shortest: LONG,
            longest: LONG,
        };
        let mut words = Vec::new();
        reader.look(&view, Look::Everywhere, context, |beat| words.push(beat.unwrap().word));
        assert_eq!(words.last(), Some(&told), "{cause:?}");
    }
}
