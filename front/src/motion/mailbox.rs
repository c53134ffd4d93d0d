//! What waits for one motor: at most one command and one stop, in the order in which they arrived.
//!
//! The newest command takes the place of an older one, and a stop voids every command that arrived before it, however late
//! either is handled. Over one connection a command that arrived after a stop is meant after it. Between connections there
//! is no such order: a stop ends what came over another one, and for a while the same party moves the motor over no other.
//!
//! What must never live here: a wait, a clock, or a look at a grant.

use std::time::Duration;

use crate::order::{Arrival, Origin};

/// Stops over different connections that are remembered at once; the oldest is forgotten. More than drive one motor.
const MAX_REMEMBERED_STOPS: usize = 64;

/// What is to be done next.
#[derive(Debug)]
pub enum Errand<J> {
    /// Stop; the number is that of [`AskedStop::Wait`].
    Stop(u64),
    /// Carry out a command.
    Move(J),
}

/// Why a command is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A command or a stop that arrived later has been taken already.
    Older,
    /// The same party has stopped the motor over another connection; it is held for so much longer.
    Held(Duration),
}

/// What becomes of a stop.
#[derive(Debug)]
pub enum AskedStop<J> {
    /// It is carried out under this number; the command that it voids, if one waited.
    Wait(u64, Option<J>),
    /// A command that was sent after it, over the same connection, moves the motor already.
    Overtaken,
}

/// How far the command is that is being carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It waits for its grant, its drive or its other motors.
    Preparing,
    /// A stop that was sent before it is carried out in between; the command waits again meanwhile.
    Interrupted,
    /// It has told the motor something.
    Started,
    /// A stop has come after it.
    Voided,
}

/// The command that is being carried out.
#[derive(Debug)]
struct Active {
    origin: Origin,
    progress: Progress,
}

#[derive(Debug)]
struct Waiting<J> {
    origin: Origin,
    job: J,
}

/// A motor's mailbox.
#[derive(Debug)]
pub struct Mailbox<J> {
    waiting: Option<Waiting<J>>,
    active: Option<Active>,
    /// The command that arrived last, of those that were taken.
    newest: Option<Arrival>,
    /// The stop that arrived last.
    newest_stop: Option<Arrival>,
    /// The newest stop over each connection, the one that was asked for last at the end.
    stops: Vec<Origin>,
    stops_asked: u64,
    stops_taken: u64,
}

impl<J> Mailbox<J> {
    /// An empty mailbox.
    pub const fn new() -> Self {
        Self {
            waiting: None,
            active: None,
            newest: None,
            newest_stop: None,
            stops: Vec::new(),
            stops_asked: 0,
            stops_taken: 0,
        }
    }

    /// Says whether there is nothing to be done.
    pub const fn is_empty(&self) -> bool {
        self.stops_asked == self.stops_taken && self.waiting.is_none()
    }

    /// Takes a command in; returns the one whose place it takes. `hold`: for how long after a stop its party moves the
    /// motor over no other connection.
    ///
    /// # Errors
    ///
    /// When it must not be carried out: with the command itself, and why.
    pub fn post(&mut self, origin: &Origin, job: J, hold: Duration) -> Result<Option<J>, (J, Refused)> {
        if let Some(refused) = self.objection(origin, hold) {
            return Err((job, refused));
        }
        self.newest = Some(origin.began());
        let older = self.waiting.replace(Waiting { origin: origin.clone(), job });
        Ok(older.map(|older| older.job))
    }

    fn objection(&self, origin: &Origin, hold: Duration) -> Option<Refused> {
        let began = origin.began();
        if [self.newest, self.newest_stop].into_iter().flatten().any(|newer| began.is_before(newer)) {
            return Some(Refused::Older);
        }
        let elsewhere = |stop: &&Origin| stop.sender().is_elsewhere(origin.sender());
        let left = |stop: &Origin| began.left_of(hold, stop.complete().at());
        self.stops.iter().filter(elsewhere).filter_map(left).max().map(Refused::Held)
    }

    /// Takes a stop in that some party has asked for.
    pub fn ask_stop(&mut self, origin: &Origin) -> AskedStop<J> {
        self.remember(origin);
        let is_after =
            |command: &Origin| origin.complete().is_before(command.began()) && is_in_order(origin, command);
        let waiting = self.waiting.take_if(|waiting| !is_after(&waiting.origin));
        if let Some(active) = &mut self.active {
            active.progress = match active.progress {
                Progress::Voided => Progress::Voided,
                _ if !is_after(&active.origin) => Progress::Voided,
                Progress::Started if waiting.is_none() && self.stops_asked == self.stops_taken => {
                    return AskedStop::Overtaken;
                }
                Progress::Started => Progress::Started,
                // What was told last to the motor may be older than the stop.
                Progress::Preparing | Progress::Interrupted => Progress::Interrupted,
            };
        }
        self.stops_asked += 1;
        AskedStop::Wait(self.stops_asked, waiting.map(|waiting| waiting.job))
    }

    /// Takes a stop in that this program itself has reason for: whatever waits or is carried out ends.
    pub fn ask_own_stop(&mut self) -> (u64, Option<J>) {
        self.stops_asked += 1;
        if let Some(active) = &mut self.active {
            active.progress = Progress::Voided;
        }
        (self.stops_asked, self.waiting.take().map(|waiting| waiting.job))
    }

    fn remember(&mut self, stop: &Origin) {
        if self.newest_stop.is_none_or(|newest| newest.is_before(stop.complete())) {
            self.newest_stop = Some(stop.complete());
        }
        let same = |other: &Origin| {
            other.sender().is_same_connection(stop.sender()) && other.sender().is_same_party(stop.sender())
        };
        // The newest counts; an older one that is handled later says nothing new.
        let newest = match self.stops.iter().position(same).map(|place| self.stops.remove(place)) {
            Some(other) if stop.complete().is_before(other.complete()) => other,
            Some(_) | None => stop.clone(),
        };
        if self.stops.len() >= MAX_REMEMBERED_STOPS {
            self.stops.remove(0);
        }
        self.stops.push(newest);
    }

    /// Notes that the command that is being carried out has told the motor something.
    pub fn note_started(&mut self) {
        if let Some(active) = &mut self.active
            && active.progress == Progress::Preparing
        {
            active.progress = Progress::Started;
        }
    }

    /// Takes back a command that was interrupted, if that was by a stop that was sent before it and nothing newer waits.
    /// Returns one that is not taken back.
    pub fn put_back(&mut self, job: J) -> Option<J> {
        match self.active.take() {
            Some(Active { origin, progress: Progress::Interrupted }) if self.waiting.is_none() => {
                self.waiting = Some(Waiting { origin, job });
                None
            }
            _ => Some(job),
        }
    }

    /// Notes that the command that was being carried out has failed. One that was carried out stays: a stop that was sent
    /// before it has had its time, and a server behind may be moving the motor by it.
    pub fn note_failed(&mut self) {
        self.active = None;
    }

    /// Gives out what is to be done next, a stop before any command. What was given out before is over then.
    pub fn take(&mut self) -> Option<Errand<J>> {
        if self.stops_taken < self.stops_asked {
            self.active = None;
            self.stops_taken = self.stops_asked;
            return Some(Errand::Stop(self.stops_taken));
        }
        let Waiting { origin, job } = self.waiting.take()?;
        self.active = Some(Active { origin, progress: Progress::Preparing });
        Some(Errand::Move(job))
    }
}

/// Says whether the order in which both arrived is the order in which they were sent.
fn is_in_order(one: &Origin, other: &Origin) -> bool {
    one.sender().is_same_connection(other.sender())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use shm_proto::Nanos;

    use super::{AskedStop, Duration, Errand, Mailbox, Origin, Refused};
    use crate::order::{Arrival, Sender};
    use crate::sessions::Entity;
    use crate::transport::Connection;

    const HOLD: Duration = Duration::from_millis(250);
    const MS: u64 = 1_000_000;

    fn sender(entity: &str) -> Sender {
        let address: SocketAddr = ([127, 0, 0, 1], 1).into();
        Sender::new(Entity::new(entity), &Connection::new(address, address))
    }

    fn arrived(sender: &Sender, number: u64) -> Origin {
        let arrival = Arrival::of(number, Nanos(number * MS));
        Origin::between(arrival, arrival, sender.clone())
    }

    /// What a client sends.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Sent {
        Go(u8),
        Stop,
    }

    /// When a request gets its number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Numbered {
        AtTheSocket,
        WhenHandled,
    }

    /// A motor with its mailbox: what it was told last.
    struct Motor {
        mailbox: Mailbox<u8>,
        /// The command that was taken and has told the motor nothing yet.
        preparing: Option<u8>,
        told: Sent,
    }

    impl Motor {
        fn new() -> Self {
            Self { mailbox: Mailbox::new(), preparing: None, told: Sent::Go(0) }
        }

        fn handle(&mut self, sent: Sent, origin: &Origin) {
            match sent {
                // Refused or taken, its client is told; what counts here is the motor.
                Sent::Go(speed) => {
                    let _ = self.mailbox.post(origin, speed, HOLD);
                }
                Sent::Stop => drop(self.mailbox.ask_stop(origin)),
            }
        }

        /// Does one step of what the actor does: interrupts, takes, or tells the motor.
        fn work(&mut self) {
            if !self.mailbox.is_empty() {
                if let Some(speed) = self.preparing.take() {
                    // One that is not put back is superseded.
                    let _ = self.mailbox.put_back(speed);
                }
                match self.mailbox.take() {
                    Some(Errand::Stop(_)) => self.told = Sent::Stop,
                    Some(Errand::Move(speed)) => self.preparing = Some(speed),
                    None => {}
                }
            } else if let Some(speed) = self.preparing.take() {
                self.told = Sent::Go(speed);
                self.mailbox.note_started();
            }
        }

        fn is_idle(&self) -> bool {
            self.mailbox.is_empty() && self.preparing.is_none()
        }
    }

    /// The schedules of some requests over one connection: in which order they are handled, and after which of them the
    /// motor works a step or two. Calls `check` with what the motor was told last in each.
    fn schedules(sent: &[Sent], numbered: Numbered, mut check: impl FnMut(&[usize], u32, Sent)) {
        let me = sender("me");
        for order in permutations(sent.len()) {
            for works in 0..1_u32 << (2 * sent.len()) {
                let mut motor = Motor::new();
                for (turn, place) in order.iter().enumerate() {
                    let number = match numbered {
                        Numbered::AtTheSocket => place + 1,
                        Numbered::WhenHandled => turn + 1,
                    };
                    motor.handle(sent[*place], &arrived(&me, number as u64));
                    for _ in 0..works >> (2 * turn) & 3 {
                        motor.work();
                    }
                }
                while !motor.is_idle() {
                    motor.work();
                }
                check(&order, works, motor.told);
            }
        }
    }

    fn permutations(length: usize) -> Vec<Vec<usize>> {
        if length == 0 {
            return vec![Vec::new()];
        }
        let shorter = permutations(length - 1);
        let longer = shorter.iter().flat_map(|order| {
            (0..length).map(|place| {
                let mut order = order.clone();
                order.insert(place, length - 1);
                order
            })
        });
        longer.collect()
    }

    fn sequences(length: usize) -> Vec<Vec<Sent>> {
        (0..length).fold(vec![Vec::new()], |sequences, _| {
            let more = |sequence: &Vec<Sent>| {
                [Sent::Go(1), Sent::Go(2), Sent::Stop]
                    .map(|sent| sequence.iter().copied().chain([sent]).collect::<Vec<_>>())
            };
            sequences.iter().flat_map(more).collect()
        })
    }

    #[test]
    fn in_every_schedule_the_motor_ends_as_it_was_told_last() {
        for sent in (1..=4).flat_map(sequences) {
            let last = *sent.last().unwrap();
            schedules(&sent, Numbered::AtTheSocket, |order, works, told| {
                assert_eq!(told, last, "{sent:?} handled in the order {order:?}, works {works:b}");
            });
        }
    }

    /// A stop of the other party in between takes nothing back from the first, and neither do many of them.
    #[test]
    fn the_hold_of_one_connection_outlasts_the_stops_of_others() {
        let me = sender("me");
        let mut mailbox = Mailbox::new();
        for number in 0..100 {
            let _ = mailbox.ask_stop(&arrived(&sender(&format!("{number}")), number));
        }
        let _ = mailbox.ask_stop(&arrived(&me, 200));
        let _ = mailbox.ask_stop(&arrived(&sender("me"), 210));
        let refused = mailbox.post(&arrived(&sender("me"), 211), 1, HOLD).unwrap_err().1;
        assert_eq!(refused, Refused::Held(Duration::from_millis(249)));
        let elsewhere = arrived(&sender("other"), 150);
        assert_eq!(mailbox.post(&elsewhere, 1, HOLD), Err((1, Refused::Older)), "whatever was forgotten");
    }

    /// Shows that the test above would notice a number that is taken one step later than at the socket.
    #[test]
    fn with_numbers_taken_when_a_request_is_handled_some_schedule_ends_wrong() {
        let mut wrong = 0;
        schedules(&[Sent::Go(1), Sent::Stop], Numbered::WhenHandled, |_, _, told| {
            wrong += usize::from(told != Sent::Stop);
        });
        assert!(wrong > 0, "no schedule shows it");
    }

    #[test]
    fn a_stop_over_one_connection_holds_the_others_of_its_party_for_a_while() {
        let (phone, page, other) = (sender("me"), sender("me"), sender("other"));
        let mut mailbox = Mailbox::new();
        assert!(matches!(mailbox.ask_stop(&arrived(&phone, 100)), AskedStop::Wait(1, None)));
        let held = Refused::Held(Duration::from_millis(249));
        assert_eq!(mailbox.post(&arrived(&page, 101), 1, HOLD), Err((1, held)));
        assert_eq!(mailbox.post(&arrived(&page, 99), 1, HOLD), Err((1, Refused::Older)));
        assert_eq!(mailbox.post(&arrived(&phone, 102), 2, HOLD), Ok(None), "its own order is known");
        assert_eq!(mailbox.post(&arrived(&other, 103), 3, HOLD), Ok(Some(2)), "another party means it");
        assert_eq!(mailbox.post(&arrived(&page, 350), 4, HOLD), Ok(Some(3)));
        // A stop of the other party in between takes nothing back from the first.
        let mut mailbox = Mailbox::new();
        let _ = mailbox.ask_stop(&arrived(&phone, 100));
        let _ = mailbox.ask_stop(&arrived(&other, 110));
        assert!(matches!(mailbox.post(&arrived(&page, 120), 1, HOLD), Err((1, Refused::Held(_)))));
    }

    #[test]
    fn a_stop_ends_what_came_over_another_connection_whenever_that_came() {
        let (one, other) = (sender("one"), sender("other"));
        for number in [99, 101] {
            let mut mailbox = Mailbox::new();
            mailbox.post(&arrived(&one, number), 1, HOLD).unwrap();
            assert!(matches!(mailbox.ask_stop(&arrived(&other, 100)), AskedStop::Wait(1, Some(1))));
            let mut mailbox = Mailbox::new();
            mailbox.post(&arrived(&one, number), 1, HOLD).unwrap();
            assert!(matches!(mailbox.take(), Some(Errand::Move(1))));
            mailbox.note_started();
            assert!(matches!(mailbox.ask_stop(&arrived(&other, 100)), AskedStop::Wait(1, None)));
            assert!(!mailbox.is_empty(), "it interrupts what is carried out");
            assert_eq!(mailbox.put_back(1), Some(1), "and that is over");
        }
    }

    #[test]
    fn a_stop_is_overtaken_only_by_a_command_that_moves_the_motor() {
        let me = sender("me");
        let mut mailbox = Mailbox::new();
        mailbox.post(&arrived(&me, 1), 1, HOLD).unwrap();
        assert!(matches!(mailbox.take(), Some(Errand::Move(1))));
        mailbox.note_started();
        mailbox.post(&arrived(&me, 3), 3, HOLD).unwrap();
        assert_eq!(mailbox.put_back(1), Some(1));
        assert!(matches!(mailbox.take(), Some(Errand::Move(3))));
        // It waits for its grant, and the motor still turns by the first one.
        assert!(matches!(mailbox.ask_stop(&arrived(&me, 2)), AskedStop::Wait(1, None)));
        assert_eq!(mailbox.put_back(3), None, "it comes after the stop");
        assert!(matches!(mailbox.take(), Some(Errand::Stop(1))));
        assert!(matches!(mailbox.take(), Some(Errand::Move(3))));
        mailbox.note_started();
        assert!(matches!(mailbox.ask_stop(&arrived(&me, 2)), AskedStop::Overtaken));
        assert!(mailbox.take().is_none());
        assert!(
            matches!(mailbox.ask_stop(&arrived(&me, 2)), AskedStop::Overtaken),
            "carried out, and left alone"
        );
        mailbox.note_failed();
        assert!(matches!(mailbox.ask_stop(&arrived(&me, 2)), AskedStop::Wait(2, None)));
    }

    #[test]
    fn a_stop_of_ones_own_is_remembered_by_nobody() {
        let me = sender("me");
        let mut mailbox = Mailbox::new();
        mailbox.post(&arrived(&me, 1), 1, HOLD).unwrap();
        assert_eq!(mailbox.ask_own_stop(), (1, Some(1)));
        assert_eq!(mailbox.post(&arrived(&sender("me"), 2), 2, HOLD), Ok(None));
    }

    #[test]
    fn parties_that_only_stop_use_up_no_memory() {
        let mut mailbox: Mailbox<u8> = Mailbox::new();
        for number in 0..1_000 {
            let _ = mailbox.ask_stop(&arrived(&sender(&number.to_string()), number));
        }
        assert_eq!(mailbox.stops.len(), super::MAX_REMEMBERED_STOPS);
    }
}
