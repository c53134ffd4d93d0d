//! What the next supervisor makes of the file: whatever is held there is held, besides what systemd's store says.
//!
//! The store is newer and knows more, so its word on a motor that it holds counts. But a latch in either of both holds: a
//! reset that the disk has not heard of is one reset too many, and nothing worse.

use config::Config;
use shm_proto::verdicts::{Event, EventKind, Predecessor, Reason};
use shm_proto::{MotorIndex, Nanos, TripId};

use super::format::{HeldMotor, Latches};
use super::store::Found;
use crate::core::{Inheritance, Inherited, Latch};

/// How many numbers a file gives out ahead. A client that opens and loses sessions in a loop uses up a hundred a second, and
/// must not wear the disk out; after a loss of power as many numbers may be skipped.
const AHEAD: u64 = 1024;

/// The present moment, by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Since the machine was started.
    pub now: Nanos,
    /// Milliseconds since 1970, as far as the machine knows.
    pub calendar_ms: u64,
}

impl Clock {
    /// A number above any that was counted up to: one for each millisecond.
    fn above_all(self) -> u64 {
        self.calendar_ms.max(self.now.0 / 1_000_000)
    }
}

/// What became of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Held motors that are not in the configuration. They stay in the file: a motor that comes back is held, too.
    pub elsewhere: Vec<HeldMotor>,
    /// What to tell the log.
    pub told: Vec<String>,
}

/// Adds what the disk says to what the supervisor before has left.
#[must_use]
pub fn take_over(inheritance: &mut Inheritance, found: &Found, config: &Config, at: Clock) -> Taken {
    match found {
        Found::FirstStart => Taken::default(),
        Found::Latches(latches) => add(inheritance, latches, config, at.now),
        Found::Lost(why) => {
            let known = is_known(inheritance);
            if !known {
                inheritance.trips = inheritance.trips.max(TripId(at.above_all()));
            }
            let why = format!("what was held before cannot be read from disk ({why})");
            Taken { told: hold_all(inheritance, &why, at.now), ..Taken::default() }
        }
    }
}

/// Holds every motor that is not held yet: nobody knows whether something held it, or nothing can be kept on disk.
#[must_use]
pub fn hold_all(inheritance: &mut Inheritance, why: &str, now: Nanos) -> Vec<String> {
    let trip = TripId(inheritance.trips.0 + 1);
    let lost = Inherited { trip, reason: Reason::LatchesLost, latch: Latch::Held, violations: 0 };
    let held = hold(inheritance, now, |_| Some(lost));
    if held == 0 {
        return vec![format!("WARNING: degraded: {why}. Every motor is held already")];
    }
    inheritance.trips = trip;
    vec![format!(
        "WARNING: degraded: {why}. Every motor is held until somebody has looked: lanyard status, then lanyard reset {trip}"
    )]
}

impl Latches {
    /// What a core that has taken this over holds.
    #[must_use]
    pub fn of(inheritance: &Inheritance, config: &Config, elsewhere: &[HeldMotor]) -> Self {
        let held = config.motors.iter().zip(&inheritance.motors).filter_map(|(motor, inherited)| {
            let Inherited { trip, reason, latch, .. } = (*inherited)?;
            (latch == Latch::Held).then(|| HeldMotor { name: motor.name.clone(), trip, reason })
        });
        let held = held.chain(elsewhere.iter().cloned()).collect();
        Self { last: inheritance.trips, reserved: TripId::NONE, stop: inheritance.latch, held }
            .with_numbers_ahead()
    }

    /// With numbers for trips to come.
    #[must_use]
    pub fn with_numbers_ahead(self) -> Self {
        Self { reserved: TripId(self.last.0 + AHEAD), ..self }
    }

    /// With no more numbers than were given: nobody will count on.
    #[must_use]
    pub fn with_no_numbers_ahead(self) -> Self {
        Self { reserved: self.last, ..self }
    }

    /// Whether so few numbers are left before `last` is past them that it is time to write the file anew.
    #[must_use]
    pub const fn run_out_of_numbers(&self, last: TripId) -> bool {
        last.0 + AHEAD / 2 > self.reserved.0
    }
}

/// Whether the supervisor before has left its last number itself.
const fn is_known(inheritance: &Inheritance) -> bool {
    match inheritance.ending {
        Predecessor::Ended | Predecessor::Died => true,
        Predecessor::None | Predecessor::Unreadable => false,
    }
}

fn add(inheritance: &mut Inheritance, latches: &Latches, config: &Config, now: Nanos) -> Taken {
    let numbers = if is_known(inheritance) { latches.last } else { latches.reserved };
    count_on_from(inheritance, numbers);
    inheritance.latch = inheritance.latch.max(latches.stop);
    let of_motor = |place: usize| {
        let name = &config.motors.get(place)?.name;
        let own = latches.held.iter().find(|held| held.name == *name);
        let stop = (latches.stop != TripId::NONE).then_some((latches.stop, Reason::OperatorStop));
        // Whatever an operator stopped is everything there is, also what came into the configuration later.
        let (trip, reason) = own.map(|held| (held.trip, held.reason)).or(stop)?;
        // How often the stop was violated is not on disk: an operator who comes after a new start looks anyway.
        Some(Inherited { trip, reason, latch: Latch::Held, violations: 0 })
    };
    let held = hold(inheritance, now, of_motor);
    let is_elsewhere = |held: &&HeldMotor| !config.motors.iter().any(|motor| motor.name == held.name);
    let elsewhere: Vec<HeldMotor> = latches.held.iter().filter(is_elsewhere).cloned().collect();
    let mut told = Vec::new();
    if held > 0 {
        let stop = if latches.stop == TripId::NONE { "" } else { ", among them an operator's stop" };
        told.push(format!("{held} motors are held by trips that the disk has kept{stop}: lanyard status"));
    }
    told.extend(elsewhere.iter().map(|held| {
        format!(
            "WARNING: motor \"{}\" is held by trip {} ({}) and is not in the configuration: nobody watches it, and it \
             will be held when it comes back",
            held.name,
            held.trip,
            held.reason.name()
        )
    }));
    Taken { elsewhere, told }
}

/// Sees to it that no number comes twice, neither the one that stands for the death of the supervisor before.
fn count_on_from(inheritance: &mut Inheritance, numbers: TripId) {
    if let Some(died) = inheritance.died.filter(|died| *died <= numbers) {
        let anew = TripId(numbers.0 + 1);
        for inherited in inheritance.motors.iter_mut().flatten().filter(|inherited| inherited.trip == died) {
            inherited.trip = anew;
        }
        inheritance.died = Some(anew);
        inheritance.trips = anew;
    }
    inheritance.trips = inheritance.trips.max(numbers);
}

/// Holds motors that are not held yet, as `by` says of each place. Returns how many.
fn hold(inheritance: &mut Inheritance, now: Nanos, by: impl Fn(usize) -> Option<Inherited>) -> usize {
    let mut begun: Vec<Event> = Vec::new();
    let mut count = 0;
    for (place, slot) in inheritance.motors.iter_mut().enumerate() {
        let is_held = slot.is_some_and(|inherited| inherited.latch == Latch::Held);
        let Some(inherited) = by(place).filter(|_| !is_held) else { continue };
        *slot = Some(inherited);
        count += 1;
        let known = begun.iter().position(|event| event.trip == inherited.trip);
        let at = known.unwrap_or_else(|| {
            // When it began is not kept: the clock of another start of the machine says nothing now.
            let event = Event { trip: inherited.trip, ..Event::new(EventKind::Trip, now) };
            begun.push(Event { reason: Some(inherited.reason), ..event });
            begun.len() - 1
        });
        begun[at].motors.insert(MotorIndex(u16::try_from(place).unwrap_or(u16::MAX)));
    }
    begun.retain(|event| !inheritance.events.iter().any(|known| known.trip == event.trip));
    begun.sort_unstable_by_key(|event| event.trip);
    inheritance.events.extend(begun);
    // Its motors may be held by other trips now.
    let died = inheritance
        .died
        .filter(|died| inheritance.motors.iter().flatten().any(|inherited| inherited.trip == *died));
    inheritance.died = died;
    count
}
