//! From the deadline of a session that fell silent to its stop frame in the hands of the kernel.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use shm_proto::{Nanos, Owner, SlotIndex};

use super::harness::{Harness, Outlet};

/// From opening a session to its motor being proven to stand still again, with some to spare, nanoseconds.
const ROUND: u64 = 62_000_000;
/// Sessions at most, each with a motor of its own.
const MOST_SESSIONS: u16 = 64;
/// How far ahead of its deadline a session is opened, nanoseconds: at least the shortest window there is, and
/// longer than a grant takes.
const AHEAD: std::ops::Range<u64> = 31_000_000..45_000_000;
/// How often the harness looks: a fraction of the pitch.
const LOOK: Duration = Duration::from_micros(400);
/// A trip that has not come by then never will: the session had no grant yet when it ended.
const LOST: u64 = 200_000_000;

/// What a session and its motor are doing.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// May begin anew.
    Free,
    /// Opened, and silent since.
    Silent { owner: Owner, deadline: Nanos, granted: bool },
    /// Tripped; its drive has said since then that it stands still.
    Tripped { told: Nanos },
}

/// Latency and deadline of one trip.
#[derive(Clone, Copy, Debug)]
struct Trip {
    deadline: Nanos,
    handed_over: Nanos,
}

/// Trips sessions for that time, one every `pitch`, and returns how long after its deadline each motor's first
/// stop frame was handed over, nanoseconds.
///
/// A deadline that passed while the one before it was still waiting is no sample of its own: cyclictest, too,
/// counts one wake-up per stall, however many periods it lasted.
///
/// # Errors
/// The real-time thread cannot be had.
pub fn run(outlet: Outlet<'_>, time: Duration, pitch: Duration) -> Result<Vec<u64>> {
    let pitch = u64::try_from(pitch.as_nanos())?;
    let sessions = u16::try_from(ROUND.div_ceil(pitch))?.min(MOST_SESSIONS);
    let mut harness = Harness::start(outlet, sessions)?;
    let mut steps = vec![Step::Free; usize::from(sessions)];
    let mut trips = Vec::new();
    let mut next = Nanos::ZERO;
    let begun = Instant::now();
    while begun.elapsed() < time {
        harness.beat();
        for (motor, step) in (0..sessions).zip(&mut steps) {
            *step = advance(&mut harness, motor, *step, (&mut next, pitch), &mut trips)?;
        }
        sleep(LOOK);
    }
    Ok(latencies(trips))
}

fn advance(
    harness: &mut Harness,
    motor: u16,
    step: Step,
    (next, pitch): (&mut Nanos, u64),
    trips: &mut Vec<Trip>,
) -> Result<Step> {
    let now = Nanos::now();
    Ok(match step {
        Step::Free => {
            let deadline = Nanos(next.0.max(now.after(AHEAD.start).0));
            if deadline > now.after(AHEAD.end) {
                return Ok(Step::Free);
            }
            *next = deadline.after(pitch);
            let owner = harness.open(SlotIndex(motor), &[motor], deadline)?;
            Step::Silent { owner, deadline, granted: false }
        }
        Step::Silent { owner, deadline, granted } => match harness.stamps.first(motor) {
            Some(handed_over) => {
                // One that was sent for any other reason than the deadline is no trip of this kind.
                if granted && handed_over >= deadline {
                    trips.push(Trip { deadline, handed_over });
                }
                harness.let_rest(motor);
                Step::Tripped { told: now }
            }
            None if now.since(deadline) > LOST => Step::Free,
            None => Step::Silent { owner, deadline, granted: granted || harness.is_granted(motor, owner) },
        },
        Step::Tripped { .. } if harness.is_at_rest(motor) => Step::Free,
        Step::Tripped { told } if now.since(told) > 5_000_000 => {
            harness.let_rest(motor);
            Step::Tripped { told: now }
        }
        tripped @ Step::Tripped { .. } => tripped,
    })
}

fn latencies(mut trips: Vec<Trip>) -> Vec<u64> {
    trips.sort_unstable_by_key(|trip| trip.deadline);
    let mut overdue_until = Nanos::ZERO;
    let mut latencies = Vec::new();
    for Trip { deadline, handed_over } in trips {
        if deadline >= overdue_until {
            latencies.push(handed_over.since(deadline));
        }
        overdue_until = overdue_until.max(handed_over);
    }
    latencies
}
