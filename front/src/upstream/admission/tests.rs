//! What may leave, and when: single cases, and any schedule against a server that runs what it has in any order.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proptest::prelude::*;
use shm_proto::{MotorIndex, Nanos};

use super::{
    Admission, End, Fate, PREEMPTED_AFTER, SETTLES_WITHIN, STOPPED_AFTER, Scope, Step, Ticket, Turn, Why,
    after,
};
use crate::order::{Arrival, Origin, Sender};
use crate::sessions::Entity;
use crate::transport::Connection;

const HOLD: Duration = Duration::from_millis(250);
const START: Nanos = Nanos(1_000_000_000_000);

fn at(ms: u64) -> Nanos {
    after(START, Duration::from_millis(ms))
}

fn scope(key: &str, motors: &[u16]) -> Scope {
    Scope::Resource { key: key.into(), motors: motors.iter().map(|motor| MotorIndex(*motor)).collect() }
}

fn arm() -> Scope {
    scope("arm/arm1", &[])
}

fn from(connection: usize, number: u64, ms: u64) -> Origin {
    of("me", connection, number, ms)
}

fn of(entity: &str, connection: usize, number: u64, ms: u64) -> Origin {
    static CONNECTIONS: OnceLock<[Arc<Connection>; 4]> = OnceLock::new();
    let here = ([127, 0, 0, 1], 1).into();
    let connections = CONNECTIONS.get_or_init(|| std::array::from_fn(|_| Connection::new(here, here)));
    let arrival = Arrival::of(number, at(ms));
    Origin::between(arrival, arrival, Sender::new(Entity::new(entity), &connections[connection]))
}

/// The machine and the number of the next request over connection 1.
struct Desk {
    admission: Admission,
    number: u64,
}

impl Desk {
    fn new() -> Self {
        Self { admission: Admission::new(HOLD), number: 0 }
    }

    fn origin(&mut self, ms: u64) -> Origin {
        self.number += 1;
        from(1, self.number, ms)
    }

    fn command(&mut self, scope: Scope, ms: u64) -> Ticket {
        let origin = self.origin(ms);
        let ticket = self.admission.command(&origin, scope).unwrap();
        self.admission.ready(ticket, at(ms));
        ticket
    }

    /// A command that has left.
    fn sent(&mut self, scope: Scope, ms: u64) -> Ticket {
        let ticket = self.command(scope, ms);
        assert_eq!(self.admission.turn(ticket, at(ms)), Turn::Now);
        ticket
    }

    fn stop(&mut self, scope: Scope, ms: u64) -> Ticket {
        let origin = self.origin(ms);
        self.admission.stop(&origin, scope, at(ms))
    }

    fn turn(&mut self, ticket: Ticket, ms: u64) -> Turn {
        self.admission.turn(ticket, at(ms))
    }

    fn step(&mut self, ticket: Ticket, ms: u64) -> Step {
        self.admission.step(ticket, at(ms))
    }

    fn ended(&mut self, ticket: Ticket, end: End, ms: u64) {
        self.admission.ended(ticket, end, at(ms));
    }
}

#[test]
fn a_command_waits_for_the_answers_to_what_came_before_it() {
    let mut desk = Desk::new();
    let first = desk.sent(arm(), 0);
    let second = desk.command(arm(), 1);
    assert_eq!(desk.turn(second, 2), Turn::Later(None));
    desk.ended(first, End::Answered, 3);
    assert_eq!(desk.turn(second, 3), Turn::Now);
}

#[test]
fn a_waiting_command_is_replaced_by_a_newer_one_and_voided_by_a_stop() {
    let mut desk = Desk::new();
    let first = desk.sent(arm(), 0);
    let second = desk.command(arm(), 1);
    let third = desk.command(arm(), 2);
    assert_eq!(desk.turn(second, 2), Turn::Never(Why::Replaced));
    assert_eq!(desk.admission.void(third), None);
    let stop = desk.stop(arm(), 3);
    assert_eq!(desk.admission.void(third), Some(Why::Stopped));
    assert_eq!(desk.step(stop, 3), Step::Send);
    desk.ended(first, End::Answered, 4);
    assert_eq!(desk.turn(third, 4), Turn::Never(Why::Stopped));
}

#[test]
fn what_is_older_than_the_newest_is_refused_whenever_it_comes() {
    let mut desk = Desk::new();
    let late = [desk.origin(0), desk.origin(0)];
    desk.stop(arm(), 1);
    assert_eq!(desk.admission.command(&late[0], arm()), Err(Why::Stopped));
    desk.command(arm(), 3);
    assert_eq!(desk.admission.command(&late[1], arm()), Err(Why::Replaced));
    assert!(desk.admission.command(&late[1], scope("arm/arm2", &[])).is_ok(), "another arm");
}

#[test]
fn resources_that_share_a_motor_share_an_order_and_the_stop_of_everything_is_in_all() {
    let mut desk = Desk::new();
    let base = desk.sent(scope("base/b", &[0, 1]), 0);
    let motor = desk.command(scope("motor/m", &[1]), 1);
    let other = desk.command(scope("motor/n", &[2]), 1);
    assert_eq!(desk.turn(motor, 1), Turn::Later(None));
    assert_eq!(desk.turn(other, 1), Turn::Now);
    let all = desk.stop(Scope::Everything, 2);
    assert_eq!(desk.turn(motor, 2), Turn::Never(Why::Stopped));
    assert_eq!(desk.step(all, 2), Step::Send);
    desk.ended(base, End::Answered, 3);
    assert_eq!(desk.step(all, 3), Step::Wait(None), "the other motor's call is not done");
    desk.ended(other, End::Answered, 4);
    assert_eq!(desk.step(all, 4), Step::Send);
    assert_eq!(desk.step(all, 5), Step::Done);
}

#[test]
fn a_long_call_that_a_newer_command_pre_empts_is_reset_and_given_time() {
    let mut desk = Desk::new();
    let long = desk.sent(arm(), 0);
    assert_eq!(desk.admission.fate(long, at(60_000)), Fate::GoesOn(None));
    let newer = desk.command(arm(), 60_000);
    let due = after(at(60_000), PREEMPTED_AFTER);
    assert_eq!(desk.admission.fate(long, at(60_000)), Fate::GoesOn(Some(due)));
    assert_eq!(desk.admission.fate(long, due), Fate::Reset(Why::Replaced));
    desk.admission.ended(long, End::Reset, due);
    let settled = after(due, SETTLES_WITHIN);
    assert_eq!(desk.admission.turn(newer, due), Turn::Later(Some(settled)));
    assert_eq!(desk.admission.turn(newer, settled), Turn::Now);
}

#[test]
fn a_command_that_is_refused_after_all_ends_nothing() {
    let mut desk = Desk::new();
    let long = desk.sent(arm(), 0);
    let origin = desk.origin(1);
    let refused = desk.admission.command(&origin, arm()).unwrap();
    assert_eq!(desk.admission.fate(long, at(1_000)), Fate::GoesOn(None), "it has not been granted yet");
    desk.admission.ready(refused, at(1_000));
    desk.ended(refused, End::Unsent, 1_010);
    assert_eq!(desk.admission.fate(long, at(60_000)), Fate::GoesOn(None));
}

#[test]
fn a_stop_is_sent_once_where_nothing_is_under_way() {
    let mut desk = Desk::new();
    let done = desk.sent(arm(), 0);
    desk.ended(done, End::Answered, 1);
    let stop = desk.stop(arm(), 2);
    assert_eq!(desk.step(stop, 2), Step::Send);
    assert_eq!(desk.step(stop, 2), Step::Done);
}

#[test]
fn a_stop_is_sent_at_once_and_again_when_older_calls_are_answered() {
    let mut desk = Desk::new();
    let older = desk.sent(arm(), 0);
    let stop = desk.stop(arm(), 1);
    assert_eq!(desk.step(stop, 1), Step::Send);
    assert_eq!(desk.step(stop, 2), Step::Wait(None));
    desk.ended(older, End::Answered, 3);
    assert_eq!(desk.step(stop, 3), Step::Send);
    assert_eq!(desk.step(stop, 3), Step::Done);
}

#[test]
fn what_is_unanswered_is_reset_a_second_after_a_stop_which_is_sent_once_more_when_that_has_settled() {
    let mut desk = Desk::new();
    let hung = desk.sent(arm(), 0);
    let stop = desk.stop(arm(), 10);
    assert_eq!(desk.step(stop, 10), Step::Send);
    let due = after(at(10), STOPPED_AFTER);
    assert_eq!(desk.admission.fate(hung, at(11)), Fate::GoesOn(Some(due)));
    assert_eq!(desk.admission.fate(hung, due), Fate::Reset(Why::Stopped));
    desk.admission.ended(hung, End::Reset, due);
    assert_eq!(desk.admission.step(stop, due), Step::Send);
    let settled = after(due, SETTLES_WITHIN);
    assert_eq!(desk.admission.step(stop, due), Step::Wait(Some(settled)));
    assert_eq!(desk.admission.step(stop, settled), Step::Send);
    assert_eq!(desk.admission.step(stop, settled), Step::Done);
}

#[test]
fn a_stop_soon_after_a_reset_is_sent_again_when_that_has_settled() {
    let mut desk = Desk::new();
    let taken_back = desk.sent(arm(), 0);
    desk.ended(taken_back, End::Reset, 10);
    let stop = desk.stop(arm(), 20);
    assert_eq!(desk.step(stop, 20), Step::Send);
    let settled = after(at(10), SETTLES_WITHIN);
    assert_eq!(desk.step(stop, 20), Step::Wait(Some(settled)));
    assert_eq!(desk.admission.step(stop, settled), Step::Send);
    assert_eq!(desk.admission.unsettled(&arm(), at(20)), Some(Duration::from_millis(240)));
    assert_eq!(desk.admission.unsettled(&arm(), settled), None);
}

#[test]
fn a_command_behind_a_stop_waits_for_its_end() {
    let mut desk = Desk::new();
    let stop = desk.stop(arm(), 0);
    let next = desk.command(arm(), 1);
    assert_eq!(desk.step(stop, 1), Step::Send);
    assert_eq!(desk.turn(next, 2), Turn::Later(None));
    desk.ended(stop, End::Answered, 3);
    assert_eq!(desk.turn(next, 3), Turn::Now);
}

#[test]
fn a_stop_that_is_looked_at_after_the_same_clients_next_command_was_sent_does_not_undo_it() {
    let mut desk = Desk::new();
    let stops = [desk.origin(0), desk.origin(0)];
    let other = from(2, 0, 0);
    desk.sent(arm(), 1);
    let stop = desk.admission.stop(&stops[0], arm(), at(1));
    assert_eq!(desk.step(stop, 1), Step::Done);
    let all = desk.admission.stop(&stops[1], Scope::Everything, at(1));
    assert_eq!(desk.step(all, 1), Step::Send, "there is more to be stopped");
    let foreign = desk.admission.stop(&other, arm(), at(1));
    assert_eq!(desk.step(foreign, 1), Step::Send, "between clients there is no such order");
}

#[test]
fn a_stop_holds_off_its_senders_other_connections_and_nobody_else() {
    let mut desk = Desk::new();
    desk.stop(arm(), 0);
    let refused = desk.admission.command(&from(2, 10, 100), arm());
    assert_eq!(refused, Err(Why::Held { left: Duration::from_millis(150) }));
    let stranger = of("somebody else", 3, 11, 100);
    assert!(desk.admission.command(&stranger, arm()).is_ok());
    assert!(desk.admission.command(&from(1, 12, 100), arm()).is_ok(), "its own connection");
    assert!(desk.admission.command(&from(2, 13, 100), scope("arm/arm2", &[])).is_ok());
    assert!(desk.admission.command(&from(2, 14, 250), arm()).is_ok(), "later");
}

/// A request of a schedule.
#[derive(Clone, Copy, Debug)]
struct Ask {
    /// How long after the one before it arrives, milliseconds.
    gap: u64,
    kind: Kind,
    connection: usize,
    /// How long it takes to be looked at.
    delay: u64,
    /// How long the server takes; `None`: for ever.
    takes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Command(usize),
    Stop(usize),
    StopAll,
}

/// Resources: the first two share a motor, the others are on their own.
fn resource(place: usize) -> Scope {
    match place {
        0 => scope("base/b", &[0, 1]),
        1 => scope("motor/m", &[1]),
        2 => scope("arm/a", &[2]),
        _ => scope("servo/s", &[]),
    }
}

impl Kind {
    fn scope(self) -> Scope {
        match self {
            Self::Command(place) | Self::Stop(place) => resource(place),
            Self::StopAll => Scope::Everything,
        }
    }
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let kind = prop_oneof![
        5 => (0..4_usize).prop_map(Kind::Command),
        3 => (0..4_usize).prop_map(Kind::Stop),
        1 => Just(Kind::StopAll),
    ];
    let takes = prop_oneof![
        6 => (0..40_u64).prop_map(Some),
        2 => (50..600_u64).prop_map(Some),
        1 => Just(None),
    ];
    let delay = prop_oneof![4 => Just(0), 2 => 1..5_u64, 1 => 10..400_u64];
    let gap = prop_oneof![4 => Just(0), 3 => 1..60_u64, 1 => 60..2_000_u64];
    let ask = (gap, kind, 1..3_usize, delay, takes);
    let ask =
        ask.prop_map(|(gap, kind, connection, delay, takes)| Ask { gap, kind, connection, delay, takes });
    prop::collection::vec(ask, 1..14)
}

/// One message to the server, and until when it may be at work for it.
#[derive(Clone, Copy, Debug)]
struct Message {
    ask: usize,
    sent: u64,
    /// When it answers by itself.
    answers: Option<u64>,
    /// From then on it does nothing more for it.
    over: Option<u64>,
}

/// A request as it goes.
#[derive(Debug, Default)]
struct Course {
    looked_at: Option<u64>,
    ticket: Option<Ticket>,
    refused: Option<Why>,
    messages: Vec<usize>,
    done: bool,
}

/// How long a Stop may go unanswered in these schedules.
const STOP_GIVEN_UP: u64 = 3_000;
/// A schedule is over by then.
const END: u64 = 60_000;

struct World {
    asks: Vec<Ask>,
    arrivals: Vec<u64>,
    courses: Vec<Course>,
    messages: Vec<Message>,
    admission: Admission,
}

impl World {
    fn new(asks: Vec<Ask>) -> Self {
        let mut now = 0;
        let arrivals = asks
            .iter()
            .map(|ask| {
                now += ask.gap;
                now
            })
            .collect();
        let courses = asks.iter().map(|_| Course::default()).collect();
        Self { asks, arrivals, courses, messages: Vec::new(), admission: Admission::new(HOLD) }
    }

    fn settles() -> u64 {
        u64::try_from(SETTLES_WITHIN.as_millis()).unwrap()
    }

    fn send(&mut self, place: usize, now: u64) {
        let answers = self.asks[place].takes.map(|takes| now + takes);
        self.courses[place].messages.push(self.messages.len());
        self.messages.push(Message { ask: place, sent: now, answers, over: None });
    }

    fn end(&mut self, place: usize, end: End, now: u64) {
        self.admission.ended(self.courses[place].ticket.unwrap(), end, at(now));
        self.courses[place].done = true;
    }

    fn look_at(&mut self, place: usize, now: u64) {
        let ask = self.asks[place];
        let origin = from(ask.connection, u64::try_from(place).unwrap(), self.arrivals[place]);
        let course = &mut self.courses[place];
        course.looked_at = Some(now);
        match ask.kind {
            Kind::Command(_) => match self.admission.command(&origin, ask.kind.scope()) {
                Ok(ticket) => course.ticket = Some(ticket),
                Err(why) => {
                    course.refused = Some(why);
                    course.done = true;
                }
            },
            Kind::Stop(_) | Kind::StopAll => {
                course.ticket = Some(self.admission.stop(&origin, ask.kind.scope(), at(now)));
            }
        }
    }

    fn advance_command(&mut self, place: usize, now: u64) {
        let ticket = self.courses[place].ticket.unwrap();
        let Some(message) = self.courses[place].messages.first().copied() else {
            self.admission.ready(ticket, at(now));
            match self.admission.turn(ticket, at(now)) {
                Turn::Now => self.send(place, now),
                Turn::Later(_) => {}
                Turn::Never(why) => {
                    self.courses[place].refused = Some(why);
                    self.end(place, End::Unsent, now);
                }
            }
            return;
        };
        if self.messages[message].answers.is_some_and(|answers| answers <= now) {
            self.messages[message].over = Some(now);
            self.end(place, End::Answered, now);
        } else if let Fate::Reset(_) = self.admission.fate(ticket, at(now)) {
            self.messages[message].over = Some(now + Self::settles());
            self.end(place, End::Reset, now);
        }
    }

    fn advance_stop(&mut self, place: usize, now: u64) {
        let ticket = self.courses[place].ticket.unwrap();
        for message in self.courses[place].messages.clone() {
            let message = &mut self.messages[message];
            if message.over.is_none() && message.answers.is_some_and(|answers| answers <= now) {
                message.over = Some(now);
            }
        }
        match self.admission.step(ticket, at(now)) {
            Step::Send => self.send(place, now),
            Step::Wait(_) => {}
            Step::Done => {
                let Some(last) = self.courses[place].messages.last().map(|last| self.messages[*last]) else {
                    return self.end(place, End::Answered, now);
                };
                if last.over.is_some() || now >= last.sent + STOP_GIVEN_UP {
                    // Whatever of it is not answered by now is taken back.
                    let mut end = End::Answered;
                    for message in self.courses[place].messages.clone() {
                        let message = &mut self.messages[message];
                        if message.over.is_none() {
                            message.over = Some(now + Self::settles());
                            end = End::Reset;
                        }
                    }
                    self.end(place, end, now);
                }
            }
        }
    }

    fn run(&mut self) {
        for now in 0..END {
            for place in 0..self.asks.len() {
                if self.arrivals[place] + self.asks[place].delay == now {
                    self.look_at(place, now);
                }
                if self.courses[place].done || self.courses[place].looked_at.is_none() {
                    continue;
                }
                match self.asks[place].kind {
                    Kind::Command(_) => self.advance_command(place, now),
                    Kind::Stop(_) | Kind::StopAll => self.advance_stop(place, now),
                }
            }
            let everything = now > *self.arrivals.last().unwrap() + 400;
            // A long call that nothing pre-empts goes on for ever, which is its right.
            let left = |course: &Course| course.done || !course.messages.is_empty();
            if everything && self.courses.iter().all(left) && now > 4 * STOP_GIVEN_UP {
                return;
            }
        }
    }

    /// Whether a Stop was looked at only when something newer had been sent: then it stops that, too.
    fn is_late(&self, stop: usize, newer: usize) -> bool {
        let looked_at = self.courses[stop].looked_at;
        let sent = self.courses[newer].messages.first().map(|message| self.messages[*message].sent);
        !matches!(self.asks[stop].kind, Kind::Command(_)) && sent <= looked_at
    }

    fn check(&self) {
        for (older, newer) in (0..self.asks.len()).flat_map(|b| (0..b).map(move |a| (a, b))) {
            if !self.asks[older].kind.scope().overlaps(&self.asks[newer].kind.scope()) {
                continue;
            }
            let came = self.courses[newer].looked_at.unwrap();
            if self.courses[newer].refused.is_none() || self.courses[newer].ticket.is_some() {
                for sent in self.sends(older).filter(|_| matches!(self.asks[older].kind, Kind::Command(_))) {
                    assert!(sent <= came, "{older} was sent at {sent}, after {newer} had come at {came}");
                }
            }
            // What is sent last of the newer one must come after everything that is done for the older one.
            let Some(last) = self.sends(newer).last() else { continue };
            if self.is_late(older, newer) {
                continue;
            }
            let is_stop = |place: usize| !matches!(self.asks[place].kind, Kind::Command(_));
            if is_stop(newer) && is_stop(older) {
                continue;
            }
            for message in self.messages.iter().filter(|message| message.ask == older) {
                assert!(
                    message.over.is_some_and(|over| over <= last),
                    "{newer} was sent for the last time at {last}, while {older} was under way: {message:?}"
                );
            }
        }
        for (place, course) in self.courses.iter().enumerate() {
            let was_sent = !course.messages.is_empty();
            let outdated = matches!(self.asks[place].kind, Kind::Stop(_)) && course.done;
            assert!(was_sent || course.refused.is_some() || outdated, "{place} was forgotten: {course:?}");
        }
    }

    fn sends(&self, place: usize) -> impl Iterator<Item = u64> {
        self.messages.iter().filter(move |message| message.ask == place).map(|message| message.sent)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// After any schedule a server that runs what it has in any order was told last what arrived last.
    #[test]
    fn the_newest_is_what_the_server_does_last(asks in asks()) {
        let mut world = World::new(asks);
        world.run();
        world.check();
    }
}
