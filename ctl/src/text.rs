//! `lanyard status` as text of at most 100 columns.

use std::collections::BTreeMap;

use shm_proto::verdicts::{BusHealth, Counter, Keeping, MotorState, SessionState};

use crate::health::error_text;
use crate::spans::{coarse, fine};
use crate::status::{Bus, Motor, Session, Status, snake};
use crate::table::{Column, Lean, lines as table, wrap};

const WIDTH: usize = 100;
const NONE: &str = "-";

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// The title line of a table.
    Title,
    /// All is well.
    Good,
    /// Somebody must look at it.
    Loud,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How it is meant.
    pub tone: Tone,
    /// What it says.
    pub text: String,
}

/// The whole status.
pub fn render(status: &Status) -> Vec<Line> {
    let mut page = Page::default();
    head(&mut page, status);
    buses(&mut page, status);
    sessions(&mut page, status);
    motors(&mut page, status);
    stops(&mut page, status);
    before_restart(&mut page, status);
    counters(&mut page, status);
    page.0
}

#[derive(Default)]
struct Page(Vec<Line>);

impl Page {
    fn line(&mut self, tone: Tone, text: impl Into<String>) {
        self.0.push(Line { tone, text: text.into() });
    }

    fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) {
        self.line(Tone::Plain, "");
        let mut tone = Tone::Title;
        for line in table(columns, rows) {
            self.line(tone, line);
            tone = Tone::Plain;
        }
    }

    fn wrapped(&mut self, tone: Tone, prefix: &str, text: &str) {
        let indent = " ".repeat(prefix.chars().count());
        for (index, line) in wrap(text, WIDTH - indent.len()).into_iter().enumerate() {
            self.line(tone, format!("{}{line}", if index == 0 { prefix } else { &indent }));
        }
    }
}

fn head(page: &mut Page, status: &Status) {
    let latch = status.latch.map_or(NONE.to_owned(), |trip| format!("trip {trip}, {}", on_disk(status)));
    page.line(
        if status.healthy { Tone::Good } else { Tone::Loud },
        format!(
            "supervisor {}   pid {}   up {}   reset {}   latch {latch}",
            status.phase.to_uppercase(),
            status.pid,
            span(Some(status.uptime_ms)),
            status.reset_policy,
        ),
    );
    match &status.front {
        Some(front) => page.line(
            Tone::Plain,
            format!(
                "front      pid {}   generation {}   last beat {}",
                front.pid,
                front.generation,
                front.last_beat_age_ms.map_or("never".to_owned(), |age| format!("{} ago", span(Some(age)))),
            ),
        ),
        None => page.line(Tone::Plain, "front      NONE ATTACHED: nobody can drive the motors"),
    }
    if status.watchdog_reset {
        page.line(
            Tone::Loud,
            "machine    was last RESET BY ITS HARDWARE WATCHDOG: it had hung (journalctl -b -1; lanyard doctor)",
        );
    }
    if let Some(before) = &status.predecessor {
        let seen = before.seen_ns.map_or(String::new(), |at| format!(" {} ago", ago(status, at)));
        page.line(Tone::Plain, format!("before     the supervisor before this one: {}{seen}", before.ending));
    }
    for alert in &status.alerts {
        page.wrapped(Tone::Loud, "!! ", alert);
    }
}

/// Loud when a restart may forget it.
fn on_disk(status: &Status) -> &'static str {
    if status.latches_kept == Keeping::OnDisk.name() { "on disk" } else { "NOT ON DISK" }
}

fn buses(page: &mut Page, status: &Status) {
    let columns = [
        Column("BUS", 20, Lean::Left),
        Column("STATE", 13, Lean::Left),
        Column("SENT", 14, Lean::Right),
        Column("CONFIRMED", 14, Lean::Right),
        Column("RECEIVED", 14, Lean::Right),
    ];
    let row = |bus: &Bus| {
        vec![
            bus.name.clone(),
            bus_state(bus),
            bus.sent.to_string(),
            if bus.confirms { bus.confirmed.to_string() } else { NONE.to_owned() },
            bus.received.to_string(),
        ]
    };
    page.table(&columns, &status.buses.iter().map(row).collect::<Vec<_>>());
    bus_errors(page, status);
}

/// Loud when the bus cannot be relied upon.
fn bus_state(bus: &Bus) -> String {
    match (bus.up, bus.health == BusHealth::Unknown.name()) {
        (true, true) => "up".to_owned(),
        (true, false) => bus.health.to_owned(),
        (false, true) => "DOWN".to_owned(),
        (false, false) => bus.health.to_uppercase(),
    }
}

/// What went wrong on the buses on which something did.
fn bus_errors(page: &mut Page, status: &Status) {
    let columns = [
        Column("BUS", 20, Lean::Left),
        Column("REFUSED", 10, Lean::Right),
        Column("QUEUE FULL", 10, Lean::Right),
        Column("ERROR FRAMES", 12, Lean::Right),
        Column("TX/RX", 9, Lean::Right),
        Column("LAST ERROR", 26, Lean::Left),
    ];
    let row = |bus: &Bus| {
        vec![
            bus.name.clone(),
            bus.errors.to_string(),
            bus.queue_full.to_string(),
            bus.error_frames.to_string(),
            format!("{}/{}", bus.tx_errors, bus.rx_errors),
            bus.last_error.map_or(NONE.to_owned(), error_text),
        ]
    };
    let disturbed = |bus: &&Bus| {
        [bus.errors, bus.error_frames, bus.tx_errors, bus.rx_errors].iter().any(|count| *count > 0)
    };
    let rows: Vec<_> = status.buses.iter().filter(disturbed).map(row).collect();
    if !rows.is_empty() {
        page.table(&columns, &rows);
    }
}

fn sessions(page: &mut Page, status: &Status) {
    let columns = [
        Column("SLOT", 4, Lean::Right),
        Column("SESSION", 36, Lean::Left),
        Column("STATE", 7, Lean::Left),
        Column("WINDOW", 8, Lean::Right),
        Column("DEADLINE", 12, Lean::Right),
        Column("BEATS", 10, Lean::Right),
        Column("TRIP", 6, Lean::Right),
    ];
    let row = |session: &Session| {
        vec![
            session.slot.to_string(),
            session.id.clone(),
            session.state.to_owned(),
            format!("{:.0} ms", session.window_ms),
            session.deadline_in_ms.map_or(NONE.to_owned(), |left| format!("{left:.0} ms")),
            session.beats.to_string(),
            number(session.trip),
        ]
    };
    let closed = SessionState::Closed.name();
    // A session that said goodbye stays in its slot until the next one comes: no news.
    let (quiet, shown): (Vec<&Session>, Vec<&Session>) =
        status.sessions.iter().partition(|session| session.state == closed);
    if shown.is_empty() {
        page.line(Tone::Plain, "");
        page.line(Tone::Plain, "no session is open");
    } else {
        page.table(&columns, &shown.into_iter().map(row).collect::<Vec<_>>());
    }
    if !quiet.is_empty() {
        page.line(Tone::Plain, format!("(and {} closed by their clients)", quiet.len()));
    }
}

fn motors(page: &mut Page, status: &Status) {
    let columns = [
        Column("MOTOR", 20, Lean::Left),
        Column("BUS", 8, Lean::Left),
        Column("STATE", 10, Lean::Left),
        Column("STAGE", 5, Lean::Right),
        Column("SLOT", 4, Lean::Right),
        Column("RPM", 9, Lean::Right),
        Column("POWER", 10, Lean::Left),
        Column("FAULT", 10, Lean::Left),
        Column("HEARD", 8, Lean::Right),
    ];
    let row = |motor: &Motor| {
        vec![
            motor.name.clone(),
            motor.bus.clone(),
            motor_state(motor),
            number(motor.stage),
            motor.granted_to.as_ref().map_or(NONE.to_owned(), |holder| holder.slot.to_string()),
            motor.velocity_rpm.map_or(NONE.to_owned(), |rpm| format!("{rpm:.1}")),
            motor.power.to_owned(),
            motor.fault.map_or(NONE.to_owned(), |fault| format!("{fault:#x}")),
            motor.feedback_age_ms.map_or("never".to_owned(), |age| span(Some(age))),
        ]
    };
    page.table(&columns, &status.motors.iter().map(row).collect::<Vec<_>>());
}

/// Loud when the motor may move, or does.
fn motor_state(motor: &Motor) -> String {
    if motor.moves {
        "MOVES".to_owned()
    } else if motor.state == MotorState::Unverified.name() {
        motor.state.to_uppercase()
    } else {
        motor.state.to_owned()
    }
}

/// The last stop of every motor that had one.
fn stops(page: &mut Page, status: &Status) {
    let columns = [
        Column("TRIP", 6, Lean::Right),
        Column("MOTOR", 20, Lean::Left),
        Column("REASON", 15, Lean::Left),
        Column("STOPPED", 11, Lean::Right),
        Column("STANDSTILL", 12, Lean::Left),
        Column("FRAMES", 7, Lean::Right),
        Column("GUARDED", 7, Lean::Right),
        Column("RESET", 6, Lean::Left),
    ];
    let row = |motor: &Motor| {
        let ago = motor.first_stop_ns.map_or(NONE.to_owned(), |at| coarse(status.at_ns.saturating_sub(at)));
        let standstill = match (motor.first_stop_ns, motor.standstill_ns) {
            (Some(stop), Some(still)) => format!("after {}", coarse(still.saturating_sub(stop))),
            (None, Some(_)) => "proven".to_owned(),
            (_, None) => "NOT PROVEN".to_owned(),
        };
        vec![
            number(motor.trip),
            motor.name.clone(),
            motor.reason.unwrap_or(NONE).to_owned(),
            ago,
            standstill,
            motor.stops_sent.to_string(),
            motor.guarded.to_string(),
            if motor.latched { "needed" } else { NONE }.to_owned(),
        ]
    };
    let stopped = |motor: &&Motor| motor.trip.is_some() || motor.reason.is_some() || motor.guarded > 0;
    let rows: Vec<_> = status.motors.iter().filter(stopped).map(row).collect();
    if !rows.is_empty() {
        page.table(&columns, &rows);
    }
}

/// Of motors that have not proven anything since, what was known before the restart. It must not be mistaken for what
/// is known now, so it has a table of its own.
fn before_restart(page: &mut Page, status: &Status) {
    let columns = [
        Column("BEFORE THE RESTART", 20, Lean::Left),
        Column("LAST PROVEN STILL", 18, Lean::Right),
        Column("LAST HEARD", 14, Lean::Right),
    ];
    let row = |motor: &Motor| {
        let before = motor.before_restart.as_ref()?;
        let at = |at: Option<u64>| at.map_or("never".to_owned(), |at| format!("{} ago", ago(status, at)));
        Some(vec![motor.name.clone(), at(before.standstill_ns), at(before.feedback_ns)])
    };
    let rows: Vec<_> =
        status.motors.iter().filter(|motor| motor.standstill_ns.is_none()).filter_map(row).collect();
    if !rows.is_empty() {
        page.table(&columns, &rows);
    }
}

fn ago(status: &Status, at: u64) -> String {
    coarse(status.at_ns.saturating_sub(at))
}

fn counters(page: &mut Page, status: &Status) {
    let show = |(name, value): (&String, &u64)| match name.strip_suffix("_ns") {
        Some(name) => format!("{} {}", name.replace('_', " "), fine(*value)),
        None => format!("{} {value}", name.replace('_', " ")),
    };
    let list = |entries: &BTreeMap<String, u64>, wanted: &dyn Fn(&str, u64) -> bool| {
        let shown = entries.iter().filter(|(name, value)| wanted(name, **value)).map(show);
        shown.collect::<Vec<_>>().join(", ")
    };
    page.line(Tone::Plain, "");
    page.wrapped(Tone::Plain, "cost       ", &cost(status));
    let rest = |name: &str, _| !COST.iter().any(|cost| snake(cost.name()) == name);
    page.wrapped(Tone::Plain, "counters   ", &list(&status.counters, &rest));
    let rejects = list(&status.rejects, &|_, value| value > 0);
    page.wrapped(Tone::Plain, "rejects    ", if rejects.is_empty() { "none" } else { &rejects });
}

/// What the real-time thread has cost since arming: shown on a line of its own.
const COST: [Counter; 5] = [
    Counter::Allocations,
    Counter::MinorFaults,
    Counter::MajorFaults,
    Counter::VoluntarySwitches,
    Counter::InvoluntarySwitches,
];

fn cost(status: &Status) -> String {
    let count = |counter: Counter| status.counters.get(&snake(counter.name())).copied().unwrap_or_default();
    let [allocations, minor, major, slept, pushed] = COST.map(count);
    format!(
        "since arming: {allocations} allocations, {minor} minor and {major} major page faults; slept {slept} \
         times, pushed off its CPU {pushed} times"
    )
}

fn number(number: Option<u64>) -> String {
    number.map_or(NONE.to_owned(), |number| number.to_string())
}

/// A length of time that JSON gives in milliseconds.
fn span(millis: Option<f64>) -> String {
    let millis = millis.unwrap_or(0.0).max(0.0);
    let length = std::time::Duration::try_from_secs_f64(millis / 1e3).unwrap_or(std::time::Duration::MAX);
    coarse(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use shm_proto::verdicts::{BusVerdict, Counter, MotorState as State, MotorVerdict, Reason};
    use shm_proto::{MotorIndex, Nanos, TripId};

    use super::*;
    use crate::fixture;

    fn text(status: &Status) -> String {
        render(status).into_iter().map(|line| line.text + "\n").collect()
    }

    #[test]
    fn a_healthy_robot() {
        let (_segment, view) = fixture::healthy();
        let expected = "\
supervisor ARMED   pid 4242   up 1 min 30 s   reset manual   latch -
front      pid 4300   generation 3   last beat 4 ms ago

BUS   STATE         SENT  CONFIRMED  RECEIVED
can0  error-active    10          9        20

SLOT  SESSION                               STATE   WINDOW  DEADLINE  BEATS  TRIP
   1  00000000-0000-0000-0000-0000000000ff  live   2000 ms   1900 ms     77     -

MOTOR  BUS   STATE    STAGE  SLOT   RPM  POWER  FAULT  HEARD
left   can0  granted      -     1  90.0  on     -      10 ms
right  can0  idle         -     -   0.0  off    -      10 ms

cost       since arming: 0 allocations, 0 minor and 0 major page faults; slept 0 times, pushed off
           its CPU 0 times
counters   bad owners 0, beats 0, guarded 0, kernel stop errors 0, kernel stop rearms 0, late loops
           0, loops 0, self overruns 0, send errors 0, stop frames 0, trips 0, worst lateness 0.000
           us, worst trip 43.000 us
rejects    wrong session 6
";
        assert_eq!(text(&Status::read(&view, fixture::NOW, None)), expected);
    }

    #[test]
    fn a_tripped_robot_is_loud() {
        let (_segment, view) = fixture::tripped();
        let status = Status::read(&view, fixture::NOW, None);
        let lines = render(&status);
        let loud: Vec<&str> =
            lines.iter().filter(|line| line.tone == Tone::Loud).map(|line| line.text.as_str()).collect();
        assert!(loud[0].starts_with("supervisor STOPPING"), "{loud:#?}");
        assert!(loud.iter().any(|line| line.starts_with("!! DEGRADED, not SCHED_FIFO")), "{loud:#?}");
        let expected = "\
MOTOR  BUS   STATE       STAGE  SLOT  RPM  POWER       FAULT      HEARD
left   can0  stopped         1     -  0.0  quick stop  -          10 ms
right  can0  UNVERIFIED      3     -    -  fault       0x1000000  never

TRIP  MOTOR  REASON           STOPPED  STANDSTILL   FRAMES  GUARDED  RESET
   7  left   operator stop      2.0 s  after 1.0 s       5        2  needed
   6  right  session expired    2.9 s  NOT PROVEN        5        0  needed
";
        let text = text(&status);
        assert!(text.contains(expected), "{text}");
        let buses = "\
BUS   STATE    SENT  CONFIRMED  RECEIVED
can0  BUS-OFF    10          9        20

BUS   REFUSED  QUEUE FULL  ERROR FRAMES  TX/RX  LAST ERROR
can0        9           4             3  248/0  No buffer space available…
";
        assert!(text.contains(buses), "{text}");
        assert!(text.contains("front      NONE ATTACHED"), "{text}");
    }

    #[test]
    fn nothing_is_wider_than_a_hundred_columns() {
        let names = ["m".repeat(32), "n".repeat(32)];
        let (segment, view) =
            fixture::bare(&[names[0].as_str(), names[1].as_str()], &["b".repeat(32).as_str()]);
        let huge = MotorVerdict {
            state: State::Unverified,
            stage: 2,
            trip: TripId(123_456),
            reason: Some(Reason::Expired),
            first_stop: Nanos(1),
            standstill: Nanos(fixture::NOW.0),
            stops_sent: 9_999_999,
            velocity: Some(-3_333.3),
            power: 4,
            fault: u64::from(u32::MAX),
            feedback: Nanos(1),
            guarded: 9_999_999,
            latched: 1,
            ..fixture::idle()
        };
        for index in [0, 1] {
            segment.motor(MotorIndex(index), &huge);
        }
        let bus = BusVerdict {
            up: 0,
            sent: u64::MAX,
            errors: u64::MAX,
            last_error: 105,
            received: u64::MAX,
            health: BusHealth::Passive,
            confirms: 1,
            confirmed: u64::MAX,
            error_frames: u64::MAX,
            queue_full: u64::MAX,
            tx_errors: 65_535,
            rx_errors: 65_535,
            disbelieved: u64::MAX,
            disbelieved_at: fixture::NOW,
        };
        segment.bus(0, &bus);
        for counter in Counter::ALL {
            segment.counter(*counter, u64::MAX);
        }
        for line in render(&Status::read(&view, fixture::NOW, None)) {
            assert!(line.text.chars().count() <= WIDTH, "{}", line.text);
        }
    }

    #[test]
    fn what_was_known_before_the_restart_stands_apart_until_it_is_known_anew() {
        let (segment, view) = fixture::healthy();
        assert!(!text(&Status::read(&view, fixture::NOW, None)).contains("WATCHDOG"));
        segment.watchdog_reset();
        segment.predecessor(shm_proto::verdicts::Predecessor::Died, Nanos(97 * fixture::SECOND));
        let past = shm_proto::verdicts::PastEvidence {
            standstill: Nanos(40 * fixture::SECOND),
            feedback: Nanos(97 * fixture::SECOND),
        };
        segment.past_evidence(MotorIndex(1), &past);
        let shown = text(&Status::read(&view, fixture::NOW, None));
        assert!(shown.contains("\nmachine    was last RESET BY ITS HARDWARE WATCHDOG"), "{shown}");
        assert!(shown.contains("\nbefore     the supervisor before this one: died 3.0 s ago\n"), "{shown}");
        assert!(
            shown.contains(
                "\nBEFORE THE RESTART  LAST PROVEN STILL  LAST HEARD\nright                   1 min 0 s ago   3.0 s ago\n"
            ),
            "{shown}"
        );
        let still = MotorVerdict { standstill: Nanos(99 * fixture::SECOND), ..fixture::idle() };
        segment.motor(MotorIndex(1), &still);
        let shown = text(&Status::read(&view, fixture::NOW, None));
        assert!(!shown.contains("BEFORE THE RESTART"), "{shown}");
    }
}
