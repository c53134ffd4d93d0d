//! `lanyard estop`: presses stop, then looks whether it was heard.
//!
//! The FIFO comes first: its byte reaches the real-time thread whatever else of the supervisor hangs. The supervisor's
//! socket shows afterwards what came of it, and takes the stop itself where the FIFO cannot be written.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use shm_proto::estop::{NotPressed, press};
use shm_proto::verdicts::Keeping;
use shm_proto::{MotorIndex, Nanos, TripId, VerdictView, handover};

use crate::{groups, source};

/// What to say first when nothing was stopped.
pub const NOT_STOPPED: &str = "THIS COMMAND STOPPED NOTHING, use the red button";
/// What to say first when the stop was pressed, and nothing shows that it was heard.
const NOT_CONFIRMED: &str = "STOP WAS PRESSED AND IS NOT CONFIRMED, use the red button";

/// How long an answer is waited for. A supervisor that is started again takes a second; its socket waits five.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long the same verdicts are looked at before they are asked for anew: their supervisor may have died.
const LOOK: Duration = Duration::from_secs(1);
/// How long a proof of standstill is waited for: most ramps are shorter. What is not proven then is named.
const RAMP: Duration = Duration::from_secs(3);
/// How long the disk is waited for: a slow card takes tenths of a second at times. The stop itself needs no disk.
const DISK: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// The ways to the supervisor: a stop takes the first that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways {
    /// The FIFO.
    pub fifo: PathBuf,
    /// The socket.
    pub socket: PathBuf,
    /// The socket of operators, at which trips are reset.
    pub operator: PathBuf,
}

/// Stops everything and says how to go on.
///
/// # Errors
///
/// When the supervisor does not show that it stopped the motors.
pub fn run(ways: &Ways, out: &mut dyn Write, notes: &mut dyn Write) -> anyhow::Result<()> {
    match press(&ways.fifo) {
        Ok(since) => confirm(ways, since, out),
        Err(why) => by_socket(ways, &why, out, notes),
    }
}

/// Waits until the supervisor shows a stop that is not older than the press, and then for standstill.
fn confirm(ways: &Ways, since: Nanos, out: &mut dyn Write) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    let (view, trip) = find_stop(&ways.socket, since, until).with_context(|| {
        format!(
            "{NOT_CONFIRMED}. The supervisor stops every motor as soon as it notices the byte in {}; look at the robot, \
             then at: lanyard status",
            ways.fifo.display()
        )
    })?;
    writeln!(out, "trip {trip}: every motor was told to stop and stays stopped.")?;
    out.flush()?;
    let moving = wait_for_standstill(&view, Instant::now() + RAMP);
    if moving.is_empty() {
        writeln!(out, "Every motor is proven to stand still.")?;
    } else {
        writeln!(
            out,
            "NOT PROVEN TO STAND STILL: {}. Stay clear; lanyard status says what they do.",
            moving.join(", ")
        )?;
    }
    writeln!(out, "{}", kept(&view, Instant::now() + DISK))?;
    writeln!(out, "To allow motion again:  lanyard reset {trip}")?;
    Ok(())
}

/// Whether the stop outlives the supervisor and the computer, in words. Waits for the disk while it has yet to answer.
fn kept(view: &VerdictView, until: Instant) -> &'static str {
    loop {
        match view.keeping() {
            Keeping::OnDisk => {
                return "It is on disk: it holds over a restart of the supervisor and of the computer.";
            }
            Keeping::Refused => {
                return "NOT ON DISK: it holds while this supervisor runs, and may be forgotten when that is stopped or the \
                        computer loses power. Why: lanyard status, journalctl -u lanyard-supervisor";
            }
            Keeping::Pending if Instant::now() >= until => {
                return "NOT ON DISK YET: it holds while this supervisor runs; lanyard status says when it is on disk.";
            }
            Keeping::Pending => thread::sleep(PAUSE),
        }
    }
}

/// Looks for the stop in the verdicts of whichever supervisor answers.
fn find_stop(socket: &Path, since: Nanos, until: Instant) -> anyhow::Result<(VerdictView, TripId)> {
    loop {
        let view = observe(socket, until)?;
        let next = until.min(Instant::now() + LOOK);
        while Instant::now() < next {
            if let Some(trip) = view.stopped_since(since) {
                return Ok((view, trip));
            }
            thread::sleep(PAUSE);
        }
        if Instant::now() >= until {
            return Err(anyhow!("the supervisor shows no stop since"));
        }
    }
}

/// Asks for the verdicts, on a thread of its own: a supervisor that hangs takes longer not to answer than an operator waits.
fn observe(socket: &Path, until: Instant) -> anyhow::Result<VerdictView> {
    let (answer, asked) = channel();
    let path = socket.to_owned();
    thread::spawn(move || answer.send(source::observe(&path)));
    match asked.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(answer) => Ok(answer?),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(anyhow!("the supervisor at {} does not answer", socket.display()))
        }
    }
}

/// Waits until every motor is proven to stand still. Returns those that are not.
fn wait_for_standstill(view: &VerdictView, until: Instant) -> Vec<String> {
    loop {
        let moving = not_proven(view);
        if moving.is_empty() || Instant::now() >= until {
            return moving;
        }
        thread::sleep(PAUSE);
    }
}

fn not_proven(view: &VerdictView) -> Vec<String> {
    let motors = (0..view.motor_count()).map(MotorIndex);
    let now = Nanos::now();
    let rests =
        |motor: &MotorIndex| view.motor(*motor).is_some_and(|motor| motor.is_proven_to_stand_still(now));
    motors.filter(|motor| !rests(motor)).map(|motor| view.motor_name(motor)).collect()
}

/// Sends the stop over the socket, and says why not by the FIFO.
fn by_socket(
    ways: &Ways,
    why: &NotPressed,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> anyhow::Result<()> {
    let fifo = ways.fifo.display();
    let remedy = if matches!(why, NotPressed::Forbidden) {
        groups::remedy(&ways.fifo, "lanyard-estop")
    } else {
        String::new()
    };
    let trip =
        handover::estop(&ways.socket).with_context(|| format!("{NOT_STOPPED}: {fifo}: {why}{remedy}"))?;
    if !matches!(why, NotPressed::Absent | NotPressed::NotHeard) {
        writeln!(
            notes,
            "lanyard: {fifo}: {why}{remedy}. The stop went over the supervisor's socket instead, which does not work \
             when the supervisor's housekeeping hangs."
        )?;
    }
    writeln!(
        out,
        "trip {trip}: every motor was told to stop and stays stopped.\n\
         Told is not proven: lanyard status says which motors stand still."
    )?;
    out.flush()?;
    // Who does not answer now has stopped the motors all the same.
    if let Ok(view) = observe(&ways.socket, Instant::now() + DISK) {
        writeln!(out, "{}", kept(&view, Instant::now() + DISK))?;
    }
    writeln!(out, "To allow motion again:  lanyard reset {trip}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use shm_proto::verdicts::MotorState;

    use super::*;
    use crate::fixture;

    #[test]
    fn a_stop_that_reached_nobody_says_so_first() {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let ways =
            Ways { fifo: "/no/such/fifo".into(), socket: "/no/such/socket".into(), operator: PathBuf::new() };
        let text = format!("{:#}", run(&ways, &mut out, &mut notes).unwrap_err());
        assert!(text.starts_with("THIS COMMAND STOPPED NOTHING"), "{text}");
        assert!(text.contains("/no/such/fifo: there is no such FIFO"), "{text}");
        assert!(text.contains("cannot reach the supervisor at /no/such/socket"), "{text}");
        assert!(out.is_empty() && notes.is_empty());
    }

    #[test]
    fn a_motor_that_is_being_stopped_is_named_until_it_is_proven() {
        let (segment, view) = fixture::bare(&["left", "right"], &["can0"]);
        let now = Nanos::now();
        let motor = |state| shm_proto::verdicts::MotorVerdict {
            state,
            standstill: now,
            feedback: Nanos(now.0 + 60_000_000_000),
            ..fixture::idle()
        };
        segment.motor(MotorIndex(0), &motor(MotorState::Stopped));
        for state in [MotorState::Stopping, MotorState::Unverified, MotorState::Granted] {
            segment.motor(MotorIndex(1), &motor(state));
            assert_eq!(wait_for_standstill(&view, Instant::now()), ["right"], "{state:?}");
        }
        segment.motor(MotorIndex(1), &motor(MotorState::Stopped));
        assert!(wait_for_standstill(&view, Instant::now() + Duration::from_secs(60)).is_empty());
    }

    /// Fails if a stop is called kept that is not, or if the disk is waited for when it has refused.
    #[test]
    fn whether_the_stop_is_on_disk_is_told() {
        let (segment, view) = fixture::bare(&["left"], &["can0"]);
        let now = || kept(&view, Instant::now());
        segment.latch(TripId(7));
        assert!(now().starts_with("NOT ON DISK YET"));
        segment.degraded(shm_proto::verdicts::Degraded::LatchesNotKept.number());
        let long = Instant::now() + Duration::from_secs(3600);
        assert!(kept(&view, long).starts_with("NOT ON DISK: it holds while this supervisor runs"));
        segment.degraded(0);
        segment.latches_kept(view.latch_changes());
        assert!(kept(&view, long).starts_with("It is on disk"));
    }
}
