//! What has to follow in a cell, and by when: from the times of an installed robot and from what its drive is able to do.
//!
//! Nothing here is measured, and nothing is asked of the product: it is the sum of the times that the documentation promises.

use std::time::Duration;

use tests::families::Family;
use tests::sim::inject::Stop;

use crate::cell::{Bus, Cell, Fault, Front, State, Supervisor};

/// The client's session window, ms: a quarter of the default, so that the front's own window is not always the shorter one.
pub const WINDOW: Duration = Duration::from_millis(500);
/// `front_window` as it comes.
const FRONT_WINDOW: Duration = Duration::from_millis(250);
/// `max_lateness` as it comes: a loop that is later than this stops what moves.
const LATENESS: Duration = Duration::from_millis(20);
/// `kernel_stop` as it comes.
const KERNEL_STOP: Duration = Duration::from_millis(50);
/// `stage_timeout` as it comes.
const STAGE: Duration = Duration::from_millis(500);
/// How much longer the kernel gives a stage at most (docs/realtime.md).
const KERNEL_SLACK: Duration = Duration::from_millis(200);
/// From the end of a wait to its first frame: a round over the frames of the bus, 10 ms, and a tick of the supervisor, 5 ms.
const ROUND: Duration = Duration::from_millis(15);
/// How long a shaft takes to come to rest from 2 rev/s, at most: coasting takes 0.7 s, a ramp 0.1 s; the proof's own time and
/// the pause between two looks are in it.
const RUN_OUT: Duration = Duration::from_millis(1000);
/// A beat that was on its way when the client fell silent counts from its arrival.
const ON_ITS_WAY: Duration = Duration::from_millis(20);
/// How long a bus is gone, and how long one flaps. Longer than a stage.
pub const DISTURBED: Duration = Duration::from_millis(700);
/// How long the bus works between two bus-offs of one that flaps.
pub const FLAP: Duration = Duration::from_millis(100);
/// From the return of a bus to the first stop: the kernel's word of the link, and a tick.
const BACK: Duration = Duration::from_millis(60);
/// How often a stop may begin anew because its bus came back (docs/realtime.md).
const RESTARTS: u32 = 3;

/// What has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// The shaft stood still, and goes on to.
    Stays(Duration),
    /// The shaft is at rest that long after the last of the faults began.
    Rest(Duration),
    /// Nothing that reaches this drive can stop it: the stages have to be sent all the same, the last by then, and it is never
    /// called still.
    Told(Duration),
}

impl Demand {
    /// By when.
    pub const fn bound(self) -> Duration {
        match self {
            Self::Stays(bound) | Self::Rest(bound) | Self::Told(bound) => bound,
        }
    }
}

/// Which stops a drive carries out.
fn obeys(cell: &Cell, kind: Stop) -> bool {
    match cell.fault {
        Fault::None
        | Fault::Mute
        | Fault::NoFeedback
        | Fault::Reports
        | Fault::Jammed
        | Fault::PowerCycled => true,
        Fault::DeafToGentle => kind != Stop::Controlled,
        Fault::DeafToZero | Fault::DeafToRamps => {
            kind == Stop::TorqueOff && !is_zero_all(cell.family, cell.fault)
        }
        Fault::DeafToAll | Fault::Offline | Fault::Pushed => false,
    }
}

/// Whether a command of zero is the only stop of this family.
fn is_zero_all(family: &Family, fault: Fault) -> bool {
    fault == Fault::DeafToZero && family.stages == [Stop::TorqueOff]
}

/// The stages that are sent: an axis that is to be held keeps its torque when only the kernel is left, and every stage of the
/// families behind the first takes it, an ODrive's e-stop included.
fn sent(cell: &Cell) -> impl Iterator<Item = Stop> {
    let unattended = cell.supervisor != Supervisor::Alive;
    let held = cell.family.is_held();
    cell.family.stages.iter().copied().filter(move |kind| !(unattended && held && *kind != Stop::Controlled))
}

/// How long a stage lasts at most.
fn stage(cell: &Cell) -> Duration {
    match cell.supervisor {
        Supervisor::Alive => STAGE + LATENESS,
        Supervisor::Hung | Supervisor::Dead => STAGE + KERNEL_SLACK,
    }
}

/// By when the first stop reaches a drive that was driven, if it can.
pub fn first_stop(cell: &Cell) -> Duration {
    let silent = match cell.front {
        Front::Lives => WINDOW + ON_ITS_WAY,
        Front::Hangs => FRONT_WINDOW,
    };
    let unattended = match cell.supervisor {
        Supervisor::Alive => Duration::MAX,
        Supervisor::Hung | Supervisor::Dead => KERNEL_STOP + ROUND,
    };
    let bus = match (cell.bus, cell.supervisor) {
        (Bus::Doubtful | Bus::Flapping, Supervisor::Alive) => LATENESS,
        _ => Duration::MAX,
    };
    let first = (silent + LATENESS).min(unattended).min(bus);
    if cell.bus == Bus::Gone { first.max(DISTURBED + BACK) } else { first }
}

/// By when a stop has begun that nothing interrupts any more. The frames of a bus that flaps get through; only a supervisor that
/// lives begins anew each time.
fn begun(cell: &Cell) -> Duration {
    match (cell.bus, cell.supervisor) {
        (Bus::Well | Bus::Doubtful, _) | (Bus::Flapping, Supervisor::Hung | Supervisor::Dead) => {
            first_stop(cell)
        }
        (Bus::Gone, _) | (Bus::Flapping, Supervisor::Alive) => first_stop(cell).max(DISTURBED + BACK),
    }
}

/// By when each stage that is sent has reached the drive, unless the one before it has had its effect.
pub fn stage_bounds(cell: &Cell) -> Vec<(Stop, Duration)> {
    let restarts = restarts(cell);
    let bound = |count: usize| {
        begun(cell) + restarts + stage(cell) * u32::try_from(count).unwrap_or(u32::MAX) + ROUND
    };
    sent(cell).enumerate().map(|(place, kind)| (kind, bound(place))).collect()
}

/// What a bus that flaps adds.
fn restarts(cell: &Cell) -> Duration {
    match (cell.bus, cell.supervisor) {
        (Bus::Flapping, Supervisor::Alive) => FLAP * 2 * RESTARTS,
        _ => Duration::ZERO,
    }
}

/// Whether some stage that is sent has an effect on this drive.
pub fn can_be_stopped(cell: &Cell) -> bool {
    sent(cell).any(|kind| obeys(cell, kind))
}

/// What has to follow in a cell.
pub fn demand(cell: &Cell) -> Demand {
    let begun = begun(cell);
    // A power-cycled drive is off, a jammed shaft and a motor that nothing drives stand still.
    let place = sent(cell).position(|kind| obeys(cell, kind));
    let stages = |count: usize| stage(cell) * u32::try_from(count).unwrap_or(u32::MAX);
    let restarts = restarts(cell);
    let idle = matches!(cell.state, State::Idle | State::Stopped) && cell.fault != Fault::Pushed;
    match place {
        _ if idle => Demand::Stays(begun),
        Some(place) => Demand::Rest(begun + restarts + stages(place) + RUN_OUT),
        None => match own_watchdog(cell) {
            Some(bite) => Demand::Rest(begun + stages(sent(cell).count()) + bite + RUN_OUT),
            None => Demand::Told(begun + restarts + stages(sent(cell).count()) + ROUND),
        },
    }
}

/// The drive's own watchdog, where only that is left: nothing feeds it any more once the kernel's list is through.
fn own_watchdog(cell: &Cell) -> Option<Duration> {
    let starved =
        cell.supervisor != Supervisor::Alive && matches!(cell.fault, Fault::DeafToAll | Fault::Offline);
    // Of a held axis the last stage goes on where it feeds no watchdog.
    if starved { cell.family.watchdog } else { None }
}
