//! Stops that are not ours, for a motor that a session drives.
//!
//! The supervisor sends such a motor no stop, and its front says 0 where it wants 0. So stops that come in beside a session
//! are those of somebody else: another supervisor of the same motors, or what it has left in the kernel when it was
//! killed. Each of them is obeyed and then driven against: the motor jerks, and `granted` is not true.
//!
//! What lives here: which frames these are, and for how long they may come. A single one is told and nothing more: it has
//! stopped what it was to stop. What must never: a rule about frames of ordinary programs of this computer, among which
//! the front's own set-points of 0 cannot be told from stops.

use drivers::{Frame, meaning};
use shm_proto::Nanos;
use shm_proto::verdicts::{Event, EventKind, Reason};

use super::motor::Motor;
use super::origin::Origin;
use super::wire::Wire;
use super::{Core, motor_index};

/// For how long they come until the grant ends, nanoseconds. Whoever sends a stop once, of several frames or a few times
/// to be sure, is done by then.
const TOO_LONG: u64 = 250_000_000;
/// How many of them are seen until then at least.
const TOO_MANY: u32 = 3;
/// After which pause they count from the beginning, nanoseconds. A kernel's job for the largest bus comes round in half of it.
const PAUSE: u64 = 1_000_000_000;

/// What was seen of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForeignStops {
    first: Nanos,
    last: Nanos,
    count: u32,
    told: Nanos,
}

/// Whether they go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Few,
    GoesOn,
}

impl ForeignStops {
    /// None was seen.
    pub(super) const NONE: Self = Self { first: Nanos::ZERO, last: Nanos::ZERO, count: 0, told: Nanos::ZERO };

    /// Forgets them, but for when they were told: another session drives the motor.
    pub(super) fn begin(&mut self) {
        *self = Self { told: self.told, ..Self::NONE };
    }

    fn note(&mut self, now: Nanos) -> Course {
        if self.count == 0 || now.since(self.last) > PAUSE {
            (self.first, self.count) = (now, 0);
        }
        (self.last, self.count) = (now, self.count.saturating_add(1));
        if self.count >= TOO_MANY && now.since(self.first) >= TOO_LONG { Course::GoesOn } else { Course::Few }
    }
}

impl Motor {
    /// Whether a frame for a granted motor is a stop that is not ours. Over the wire it is one where others must not command the
    /// motor; over its second bus our own may come in, where both lead to one wire.
    fn is_stopped_by_others(&self, (bus, origin): (usize, Origin), frame: &Frame) -> bool {
        let counts = match origin {
            Origin::Job => true,
            Origin::Wire => self.is_driven_over(bus) && self.has_its_masters_here(),
            Origin::Local => false,
        };
        counts
            && self.owner().is_some()
            && self.drive.commands.contains(&frame.id())
            && matches!(self.drive.hears(frame), Some(meaning::Heard::Command(meaning)) if meaning.stops)
    }
}

impl Core {
    /// Tells stops that are not ours, and takes the grant away where they go on.
    pub(super) fn heed_foreign_stop(
        &mut self,
        index: usize,
        (bus, origin): (usize, Origin),
        frame: &Frame,
        now: Nanos,
        wire: &mut dyn Wire,
    ) {
        let cannot_be_told = origin == Origin::Wire && self.buses[bus].has_local_drives();
        let pause = self.settings.violation_pause;
        let motor = &mut self.motors[index];
        if cannot_be_told || !motor.is_stopped_by_others((bus, origin), frame) {
            return;
        }
        let stops = &mut motor.foreign_stops;
        let course = stops.note(now);
        if stops.told == Nanos::ZERO || now.since(stops.told) >= pause {
            stops.told = now;
            let mut event = Event::new(EventKind::ForeignStops, now);
            event.motors.insert(motor_index(index));
            self.verdicts.event(&event);
        }
        if course == Course::GoesOn {
            self.trip_owner_of(index, Reason::OtherMaster, now, wire);
        }
    }
}
