//! `lanyard events`: what happened, oldest first.

use std::io::Write;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use shm_proto::verdicts::{Event, Reason};
use shm_proto::{SessionId, VerdictView};

use crate::clock::WallClock;
use crate::source::Source;
use crate::spans::fine;
use crate::status::{moment, motor_names, trip};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One event; its fields are the JSON of `lanyard events --json`, what is absent is null.
#[derive(Clone, Debug, Serialize)]
struct Record {
    /// Number of the event since the supervisor started, from 1.
    number: u64,
    /// The moment by the wall clock, RFC 3339 in UTC.
    time: String,
    /// The same moment on `CLOCK_BOOTTIME`.
    at_ns: u64,
    kind: &'static str,
    trip: Option<u64>,
    reason: Option<&'static str>,
    session: Option<String>,
    slot: Option<u16>,
    motors: Vec<String>,
    last_beat_ns: Option<u64>,
    /// The deadline that passed; for everything that is no silence, when the supervisor was told.
    deadline_ns: Option<u64>,
    /// What `deadline_ns` is.
    #[serde(skip)]
    begins: &'static str,
    first_stop_ns: Option<u64>,
    all_stopped_ns: Option<u64>,
}

impl Record {
    fn new(number: u64, event: &Event, names: &[String], clock: &WallClock) -> Self {
        let has_session = event.session != SessionId::default();
        let name = |index: usize| names.get(index).cloned().unwrap_or_else(|| format!("motor {index}"));
        Self {
            number,
            time: clock.show(event.at),
            at_ns: event.at.0,
            kind: event.kind.name(),
            trip: trip(event.trip),
            reason: event.reason.map(|reason| reason.name()),
            session: has_session.then(|| event.session.to_string()),
            slot: has_session.then_some(event.slot.0),
            motors: event.motors.iter().map(|motor| name(usize::from(motor.0))).collect(),
            last_beat_ns: moment(event.last_beat),
            deadline_ns: moment(event.deadline),
            begins: beginning(event.reason),
            first_stop_ns: moment(event.first_stop),
            all_stopped_ns: moment(event.all_stopped),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}  {}", self.time, self.kind);
        if let Some(trip) = self.trip {
            text += &if self.kind == "trip" { format!(" {trip}") } else { format!(" (trip {trip})") };
        }
        if let Some(reason) = self.reason {
            text += &format!(": {reason}");
        }
        if !self.motors.is_empty() {
            text += &format!("  {}", self.motors.join(", "));
        }
        if let (Some(session), Some(slot)) = (&self.session, self.slot) {
            text += &format!("\n    session {session} in slot {slot}");
        }
        let figures = self.figures();
        if !figures.is_empty() {
            text += &format!("\n    {figures}");
        }
        text
    }

    /// The known moments in order, each with its distance from the one before.
    fn figures(&self) -> String {
        let moments = [
            ("last beat", self.last_beat_ns),
            (self.begins, self.deadline_ns),
            ("first stop", self.first_stop_ns),
            ("last motor", self.all_stopped_ns),
        ];
        let known: Vec<(&str, u64)> =
            moments.iter().filter_map(|(name, at)| at.map(|at| (*name, at))).collect();
        let Some((first, _)) = known.first() else { return String::new() };
        let steps = known.windows(2).map(|pair| match pair {
            [(_, from), (name, to)] if to >= from => format!(" -> {name} +{}", fine(to - from)),
            [(_, from), (name, to)] => format!(" -> {name} -{}", fine(from - to)),
            _ => String::new(),
        });
        let steps: String = steps.collect();
        if steps.is_empty() { steps } else { format!("{first}{steps}") }
    }
}

/// What the moment is from which motors should have been stopped.
fn beginning(reason: Option<Reason>) -> &'static str {
    match reason {
        Some(Reason::Expired | Reason::FrontSilent | Reason::Corrupt) => "deadline",
        Some(Reason::SupervisorDied) => "last seen alive",
        _ => "told",
    }
}

/// Writes all events kept, and with `follow` those to come.
pub fn run(source: &mut Source, json: bool, follow: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut printed = 0;
    loop {
        printed = print(source.view(), printed, json, out)?;
        out.flush()?;
        if !follow {
            return Ok(());
        }
        thread::sleep(LOOK_EVERY);
        if source.renew() {
            printed = 0;
            if !json {
                writeln!(out, "-- another supervisor runs now, pid {} --", source.view().pid())?;
            }
        }
    }
}

/// Writes the events after number `printed`; returns the number of the last one.
fn print(view: &VerdictView, printed: u64, json: bool, out: &mut dyn Write) -> anyhow::Result<u64> {
    if view.event_count() == printed {
        return Ok(printed);
    }
    let (names, clock) = (motor_names(view), WallClock::now());
    let mut last = printed;
    for (number, event) in view.events().filter(|(number, _)| *number > printed) {
        let record = Record::new(number, &event, &names, &clock);
        if json {
            writeln!(out, "{}", serde_json::to_string(&record)?)?;
        } else {
            if number > last + 1 {
                writeln!(out, "-- {} older events are no longer kept --", number - last - 1)?;
            }
            writeln!(out, "{}", record.text())?;
        }
        last = number;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shm_proto::verdicts::{EVENTS, EventKind};
    use shm_proto::{Nanos, TripId};

    use super::*;
    use crate::fixture::{self, NOW, SECOND};

    fn printed(view: &VerdictView, from: u64, json: bool) -> (u64, String) {
        let mut out = Vec::new();
        let last = print(view, from, json, &mut out).unwrap();
        (last, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_trip_with_its_figures() {
        let (_segment, view) = fixture::tripped();
        let (last, text) = printed(&view, 0, false);
        assert_eq!(last, 3);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("Z  armed"), "{text}");
        assert!(lines[1].ends_with("Z  trip 6: session expired  left, right"), "{text}");
        assert_eq!(lines[2], "    session 00000000-0000-0000-0000-0000000000ff in slot 1");
        assert_eq!(
            lines[3],
            "    last beat -> deadline +2000.000 ms -> first stop +43.000 us \
             -> last motor +12.500 us"
        );
        assert!(lines[4].ends_with("Z  unverified (trip 6)"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn one_json_object_a_line() {
        let (_segment, view) = fixture::tripped();
        let (_, text) = printed(&view, 1, true);
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0]["time"].take().as_str().is_some_and(|time| time.ends_with('Z')));
        assert_eq!(
            lines[0],
            json!({
                "number": 2,
                "time": null,
                "at_ns": NOW.0 - 3 * SECOND + 40_000,
                "kind": "trip",
                "trip": 6,
                "reason": "session expired",
                "session": "00000000-0000-0000-0000-0000000000ff",
                "slot": 1,
                "motors": ["left", "right"],
                "last_beat_ns": NOW.0 - 5 * SECOND,
                "deadline_ns": NOW.0 - 3 * SECOND,
                "first_stop_ns": NOW.0 - 3 * SECOND + 43_000,
                "all_stopped_ns": NOW.0 - 3 * SECOND + 55_500,
            })
        );
        assert_eq!(lines[1]["session"], json!(null));
        assert_eq!(lines[1]["slot"], json!(null));
        assert_eq!(lines[1]["motors"], json!([]));
        assert_eq!(lines[1]["deadline_ns"], json!(null));
    }

    #[test]
    fn an_end_at_rest_is_told_without_a_trip() {
        let trip = TripId::NONE;
        let kind = EventKind::EndedAtRest;
        let event = Event { kind, trip, reason: Some(Reason::ClosedByClient), ..fixture::trip_event() };
        let names = ["left".to_owned(), "right".to_owned()];
        let record = Record::new(1, &event, &names, &WallClock::now());
        let text = record.text();
        assert!(
            text.lines()
                .next()
                .is_some_and(|line| line.ends_with("Z  ended at rest: closed by client  left, right")),
            "{text}"
        );
        assert!(text.contains("-> told +"), "{text}");
        assert_eq!(record.trip, None);
    }

    #[test]
    fn of_a_deadline_only_silence_speaks() {
        let figures = |reason| {
            let event = Event { reason: Some(reason), ..fixture::trip_event() };
            Record::new(1, &event, &[], &WallClock::now()).figures()
        };
        assert!(figures(Reason::FrontSilent).contains("-> deadline +2000.000 ms"));
        assert!(figures(Reason::SupervisorDied).contains("-> last seen alive +"));
        for reason in [Reason::ClosedByClient, Reason::ClientLost, Reason::OperatorStop, Reason::DriveFault] {
            let figures = figures(reason);
            assert!(figures.contains("-> told +") && !figures.contains("deadline"), "{figures}");
        }
    }

    #[test]
    fn a_stop_before_the_deadline_has_a_negative_figure() {
        let mut event = fixture::trip_event();
        event.deadline = Nanos(event.first_stop.0 + 1_500_000_000);
        event.all_stopped = Nanos::ZERO;
        let record = Record::new(1, &event, &[], &WallClock::now());
        assert!(record.figures().ends_with("-> first stop -1500.000 ms"), "{}", record.figures());
        assert_eq!(record.motors, ["motor 0", "motor 1"]);
    }

    #[test]
    fn following_prints_each_event_once_and_tells_of_lost_ones() {
        let (mut segment, view) = fixture::bare(&["left"], &["can0"]);
        assert_eq!(printed(&view, 0, false), (0, String::new()));
        segment.event(&Event::new(EventKind::Armed, NOW));
        let (last, text) = printed(&view, 0, false);
        assert_eq!((last, text.lines().count()), (1, 1));
        assert_eq!(printed(&view, 1, false), (1, String::new()));
        for _ in 0..EVENTS + 9 {
            segment.event(&Event::new(EventKind::Reset, NOW));
        }
        let (last, text) = printed(&view, 1, false);
        assert_eq!(last, 266);
        assert_eq!(text.lines().next(), Some("-- 9 older events are no longer kept --"));
        assert_eq!(text.lines().count(), 257);
    }
}
