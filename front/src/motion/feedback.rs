//! What one drive said last: the newest value of every field with its moment.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drivers::frame::MAX_FRAMES;
use drivers::{Drive, Fault, Observation, Output, Power, Refusal, Revolutions, RevolutionsPerSecond};
use shm_proto::Nanos;
use tokio::sync::watch;
use tokio::time::Instant;

/// A drive heard within this time counts as heard now. Drives report every 10 to 100 ms; five of the
/// slowest reports may be lost.
pub const FRESH: Duration = Duration::from_millis(500);

/// A value with its moment.
#[derive(Clone, Copy, Debug)]
pub struct Stamped<T> {
    /// The value.
    pub value: T,
    /// When it arrived.
    pub at: Instant,
    /// Which observation it came with, counted from 1.
    pub turn: u64,
}

impl<T> Stamped<T> {
    /// Whether it arrived within [`FRESH`].
    pub fn fresh(&self) -> bool {
        self.at.elapsed() <= FRESH
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    turn: u64,
    heard: Option<Instant>,
    power: Option<Stamped<Power>>,
    output: Option<Stamped<Output>>,
    state: Option<Stamped<u16>>,
    velocity: Option<Stamped<RevolutionsPerSecond>>,
    position: Option<Stamped<Revolutions>>,
    fault: Option<Stamped<Option<Fault>>>,
    /// Since when it reports a fault, by the clock of arrivals.
    fault_since: Option<Nanos>,
    /// The newest answers, in a ring: they may come faster than who waits for one of them wakes up.
    answers: [Option<Stamped<u32>>; ANSWERS],
    next_answer: usize,
    refused: Option<Stamped<Refusal>>,
}

/// How many answers are kept: twice the most frames of a step, each of which may be answered.
const ANSWERS: usize = 2 * MAX_FRAMES;

impl Seen {
    /// Says whether the drive reports a fault. A drive that has a word on its power stage says it with that.
    fn is_faulty(&self) -> bool {
        match self.power {
            Some(power) => power.value == Power::Fault,
            None => self.fault.is_some_and(|fault| fault.value.is_some()),
        }
    }

    fn note_answer(&mut self, value: u32, at: Instant, turn: u64) {
        self.answers[self.next_answer] = Some(Stamped { value, at, turn });
        self.next_answer = (self.next_answer + 1) % ANSWERS;
    }

    /// The answer that is waited for if it is among those after that turn, else the newest of them.
    fn answer(&self, turn: u64, wanted: Option<u32>) -> Option<u32> {
        let later = || self.answers.iter().flatten().filter(|answer| answer.turn > turn);
        let newest = || later().max_by_key(|answer| answer.turn).map(|answer| answer.value);
        wanted.filter(|wanted| later().any(|answer| answer.value == *wanted)).or_else(newest)
    }
}

/// Newest feedback of one drive. Its lock is held for some copies and never across a wait.
pub struct Feedback {
    seen: Mutex<Seen>,
    news: watch::Sender<u64>,
}

impl Feedback {
    /// Nothing heard yet.
    pub fn new() -> Self {
        Self { seen: Mutex::default(), news: watch::Sender::new(0) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in one observation and wakes who waits for news.
    pub fn take_in(&self, observation: &Observation) {
        let turn = {
            let mut seen = self.seen();
            let at = Instant::now();
            seen.turn += 1;
            seen.heard = Some(at);
            let turn = seen.turn;
            let Observation { power, output, state, velocity, position, fault, answer, refused } =
                *observation;
            put(&mut seen.power, power, at, turn);
            put(&mut seen.output, output, at, turn);
            put(&mut seen.state, state, at, turn);
            put(&mut seen.velocity, velocity, at, turn);
            put(&mut seen.position, position, at, turn);
            put(&mut seen.fault, fault, at, turn);
            if let Some(answer) = answer {
                seen.note_answer(answer, at, turn);
            }
            put(&mut seen.refused, refused, at, turn);
            seen.fault_since =
                if seen.is_faulty() { seen.fault_since.or_else(|| Some(Nanos::now())) } else { None };
            turn
        };
        self.news.send_replace(turn);
    }

    /// Number of the newest observation.
    pub fn turn(&self) -> u64 {
        self.seen().turn
    }

    /// Tells the number of every new observation, beginning with the next one.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The newest values of all observations after that one.
    pub fn since(&self, turn: u64) -> Observation {
        self.since_asking(turn, None)
    }

    /// The same; of several answers, the one to this request.
    pub fn since_asking(&self, turn: u64, request: Option<u32>) -> Observation {
        let seen = *self.seen();
        Observation {
            power: newer(seen.power, turn),
            output: newer(seen.output, turn),
            state: newer(seen.state, turn),
            velocity: newer(seen.velocity, turn),
            position: newer(seen.position, turn),
            fault: newer(seen.fault, turn),
            answer: seen.answer(turn, request),
            refused: newer(seen.refused, turn),
        }
    }

    /// Since when the drive reports a fault; `None` while it reports none.
    pub fn fault_since(&self) -> Option<Nanos> {
        self.seen().fault_since
    }

    /// The newest word on the power stage.
    pub fn power(&self) -> Option<Stamped<Power>> {
        self.seen().power
    }

    /// The newest speed.
    pub fn velocity(&self) -> Option<Stamped<RevolutionsPerSecond>> {
        self.seen().velocity
    }

    /// The newest position.
    pub fn position(&self) -> Option<Stamped<Revolutions>> {
        self.seen().position
    }

    /// Whether the drive was heard within [`FRESH`].
    pub fn fresh(&self) -> bool {
        self.seen().heard.is_some_and(|at| at.elapsed() <= FRESH)
    }

    /// What was heard last from that drive, for messages.
    pub fn describe(&self, drive: &Drive) -> String {
        let seen = *self.seen();
        let Some(heard) = seen.heard else {
            return "nothing was ever heard from this drive: check its supply, its cabling, its node \
                    number and that it reports by itself"
                .to_owned();
        };
        let mut text = format!("heard {} ms ago", heard.elapsed().as_millis());
        // Writing to a string cannot fail.
        if let Some(power) = seen.power {
            let _ = write!(text, ", power {}", power_name(power.value));
        }
        if let Some(state) = seen.state {
            let _ = write!(text, ", state {:#06x}", state.value);
        }
        if let Some(Stamped { value: Some(fault), .. }) = seen.fault {
            let _ = write!(text, ", fault {:#x} ({})", fault.0, drive.explain(fault));
        }
        text
    }
}

fn put<T>(place: &mut Option<Stamped<T>>, value: Option<T>, at: Instant, turn: u64) {
    if let Some(value) = value {
        *place = Some(Stamped { value, at, turn });
    }
}

fn newer<T>(stamped: Option<Stamped<T>>, turn: u64) -> Option<T> {
    stamped.filter(|stamped| stamped.turn > turn).map(|stamped| stamped.value)
}

/// The name of a power state in messages.
pub const fn power_name(power: Power) -> &'static str {
    match power {
        Power::Off => "off",
        Power::Transition => "in transition",
        Power::On => "on",
        Power::QuickStop => "in quick stop",
        Power::Fault => "off with a fault",
    }
}

#[cfg(test)]
mod tests {
    use super::{Feedback, Observation, Power, Revolutions};

    #[test]
    fn only_what_came_later_counts() {
        let feedback = Feedback::new();
        feedback.take_in(&Observation { power: Some(Power::On), ..Observation::default() });
        let turn = feedback.turn();
        assert_eq!(feedback.since(turn), Observation::default());
        feedback.take_in(&Observation { position: Some(Revolutions(2.0)), ..Observation::default() });
        let seen = feedback.since(turn);
        assert_eq!(seen.power, None, "that was said before");
        assert_eq!(seen.position, Some(Revolutions(2.0)));
        assert_eq!(feedback.power().map(|power| power.value), Some(Power::On));
        assert!(feedback.fresh());
    }

    /// Fails if an answer is lost because another one came right behind it.
    #[test]
    fn an_answer_is_not_hidden_by_the_next() {
        let feedback = Feedback::new();
        let answer = |request| Observation { answer: Some(request), ..Observation::default() };
        feedback.take_in(&answer(0xA2));
        let turn = feedback.turn();
        for request in [0xA2, 0x92, 0x9C] {
            feedback.take_in(&answer(request));
        }
        assert_eq!(feedback.since_asking(turn, Some(0xA2)).answer, Some(0xA2));
        assert_eq!(feedback.since_asking(turn + 1, Some(0xA2)).answer, Some(0x9C), "that one came before");
        assert_eq!(feedback.since(turn).answer, Some(0x9C));
        assert_eq!(feedback.since(turn + 3).answer, None);
    }

    #[test]
    fn silence_is_explained() {
        let feedback = Feedback::new();
        let drive = &crate::motion::tests::configuration().motors[0].drive;
        assert!(feedback.describe(drive).contains("nothing was ever heard"));
        feedback.take_in(&Observation {
            power: Some(Power::Fault),
            state: Some(8),
            fault: Some(Some(drivers::Fault(0x0100_0000))),
            ..Observation::default()
        });
        let text = feedback.describe(drive);
        let expected = "power off with a fault, state 0x0008, fault 0x1000000 (watchdog expired)";
        assert!(text.contains(expected), "{text}");
    }
}
