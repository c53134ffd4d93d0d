//! What Lanyard says of itself, through its own command `lanyard`, as an operator or a script gets it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::clock::Moment;
use crate::expect;

/// Pause between two looks: each starts a program.
const PAUSE: Duration = Duration::from_millis(40);

/// The command, for one supervisor.
#[derive(Clone, Debug)]
pub struct Lanyard {
    /// Where the program is.
    pub program: PathBuf,
    /// The supervisor's socket.
    pub socket: PathBuf,
}

/// How a run of the command ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The exit code.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event(pub Value);

/// One motor as `lanyard status` has it.
#[derive(Clone, Debug)]
pub struct MotorStatus(pub Value);

fn moment(value: &Value) -> Option<Moment> {
    value.as_i64().map(Moment)
}

impl Event {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0["kind"].as_str().unwrap_or_default()
    }

    /// When the first stop frame was handed to the kernel.
    #[must_use]
    pub fn first_stop(&self) -> Option<Moment> {
        moment(&self.0["first_stop_ns"])
    }

    /// The reason of a trip.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.0["reason"].as_str().unwrap_or_default()
    }

    /// The number of the trip.
    #[must_use]
    pub fn trip(&self) -> Option<u64> {
        self.0["trip"].as_u64()
    }

    /// When it happened.
    #[must_use]
    pub fn at(&self) -> Moment {
        moment(&self.0["at_ns"]).unwrap_or_default()
    }

    /// The session's last beat.
    #[must_use]
    pub fn last_beat(&self) -> Option<Moment> {
        moment(&self.0["last_beat_ns"])
    }

    /// The deadline that passed.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        moment(&self.0["deadline_ns"])
    }

    /// Whether it is about this motor.
    #[must_use]
    pub fn concerns(&self, motor: &str) -> bool {
        self.0["motors"].as_array().is_some_and(|motors| motors.iter().any(|name| name == motor))
    }
}

impl MotorStatus {
    /// `idle`, `granted`, `stopping`, `stopped` or `unverified`.
    #[must_use]
    pub fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or_default()
    }

    /// Whether and when it was proven to stand still.
    #[must_use]
    pub fn standstill(&self) -> Option<Moment> {
        (self.0["standstill"] == true).then(|| moment(&self.0["standstill_ns"])).flatten()
    }

    /// The stage of its stop, from 1.
    #[must_use]
    pub fn stage(&self) -> Option<u64> {
        self.0["stage"].as_u64()
    }

    /// Why it was stopped last.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.0["reason"].as_str().unwrap_or_default()
    }

    /// The trip that stopped it last.
    #[must_use]
    pub fn trip(&self) -> Option<u64> {
        self.0["trip"].as_u64()
    }

    /// Stop frames that the kernel took for it since the start.
    #[must_use]
    pub fn stops_sent(&self) -> u64 {
        self.0["stops_sent"].as_u64().unwrap_or_default()
    }

    /// Motion frames of others answered with its stop.
    #[must_use]
    pub fn guarded(&self) -> u64 {
        self.0["guarded"].as_u64().unwrap_or_default()
    }
}

/// Whether this is user-mode Linux, which maps a page only when it is touched for the first time, whatever was
/// locked or populated: each such page faults once there, and not at all on other kernels (measured). So the
/// real-time thread has page faults there that no remedy prevents.
#[must_use]
pub fn locked_pages_fault_once() -> bool {
    std::env::var("RIG").is_ok_and(|kind| kind == "uml")
}

impl Lanyard {
    /// Runs the command.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Answer> {
        let output = Command::new(&self.program)
            .arg("--socket")
            .arg(&self.socket)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        Ok(Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// `lanyard status --json`.
    ///
    /// # Errors
    /// There is no supervisor, or what it says is no JSON.
    pub fn status(&self) -> Result<Value> {
        let answer = self.run(&["status", "--json"])?;
        // 2 is a status, too: something needs a human.
        ensure!(matches!(answer.code, Some(0 | 2)), "lanyard status: {}", answer.stderr.trim());
        serde_json::from_str(&answer.stdout).context("lanyard status --json is no JSON")
    }

    /// Fails if `lanyard status` complains of anything, but page faults where [`locked_pages_fault_once`], or if
    /// its exit code does not say the same as its complaints.
    ///
    /// # Errors
    /// It complains, or see [`Lanyard::status`].
    pub fn is_well(&self) -> Result<()> {
        let answer = self.run(&["status", "--json"])?;
        let status: Value =
            serde_json::from_str(&answer.stdout).context("lanyard status --json is no JSON")?;
        let alerts = status["alerts"].as_array().context("no alerts in the status")?;
        let of_the_rig = |alert: &Value| {
            locked_pages_fault_once()
                && alert.as_str().is_some_and(|text| text.contains("page faults without and 0 with a disk"))
        };
        let complaints: Vec<&Value> = alerts.iter().filter(|alert| !of_the_rig(alert)).collect();
        ensure!(complaints.is_empty(), "lanyard status complains: {complaints:?}");
        let expected = if alerts.is_empty() { 0 } else { 2 };
        ensure!(answer.code == Some(expected), "exit code {:?} with alerts {alerts:?}", answer.code);
        Ok(())
    }

    /// The last beat of whichever living session beat last; `None` if none lives.
    ///
    /// # Errors
    /// See [`Lanyard::status`].
    pub fn last_beat(&self) -> Result<Option<Moment>> {
        let status = self.status()?;
        let now = status["at_ns"].as_i64().context("no moment in the status")?;
        let sessions = status["sessions"].as_array().context("no sessions in the status")?;
        let ages = sessions
            .iter()
            .filter(|session| session["state"] == "live")
            .filter_map(|session| session["last_beat_age_ms"].as_f64());
        #[expect(clippy::cast_possible_truncation, reason = "an age in a test is far below 2^52 ns")]
        let youngest = ages.map(|age| (age * 1e6) as i64).min();
        Ok(youngest.map(|age| Moment(now - age)))
    }

    /// One motor of the status.
    ///
    /// # Errors
    /// See [`Lanyard::status`]; or there is no such motor.
    pub fn motor(&self, name: &str) -> Result<MotorStatus> {
        let status = self.status()?;
        let motors = status["motors"].as_array().context("no motors in the status")?;
        let motor = motors.iter().find(|motor| motor["name"] == name);
        Ok(MotorStatus(motor.with_context(|| format!("no motor {name} in the status"))?.clone()))
    }

    /// `lanyard events --json`, oldest first.
    ///
    /// # Errors
    /// There is no supervisor, or what it says is no JSON.
    pub fn events(&self) -> Result<Vec<Event>> {
        let answer = self.run(&["events", "--json"])?;
        ensure!(answer.code == Some(0), "lanyard events: {}", answer.stderr.trim());
        let parse = |line: &str| serde_json::from_str(line).map(Event);
        answer.stdout.lines().map(parse).collect::<Result<_, _>>().context("lanyard events --json is no JSON")
    }

    /// Waits until a motor's status satisfies `is`.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_for_motor(
        &self,
        name: &str,
        limit: Duration,
        what: &str,
        is: impl Fn(&MotorStatus) -> bool,
    ) -> Result<MotorStatus> {
        expect::within(limit, &format!("motor {name} {what}"), || {
            let motor = self.motor(name).map_err(|error| format!("{error:#}"))?;
            if is(&motor) {
                return Ok(motor);
            }
            std::thread::sleep(PAUSE);
            Err(motor.0.to_string())
        })
    }

    /// Waits for an event from `from` on that satisfies `is`.
    ///
    /// # Errors
    /// There is none in time.
    pub fn wait_for_event(
        &self,
        from: Moment,
        limit: Duration,
        what: &str,
        is: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        expect::within(limit, &format!("event: {what}"), || {
            let events = self.events().map_err(|error| format!("{error:#}"))?;
            if let Some(found) = events.iter().find(|event| event.at() >= from && is(event)) {
                return Ok(found.clone());
            }
            std::thread::sleep(PAUSE);
            let last = events.iter().rev().take(4).map(|event| event.0.to_string());
            Err(last.collect::<Vec<_>>().join(" "))
        })
    }

    /// Waits for the trip of a motor for that reason.
    ///
    /// # Errors
    /// There is none in time.
    pub fn wait_for_trip(&self, from: Moment, reason: &str, motor: &str, limit: Duration) -> Result<Event> {
        self.wait_for_event(from, limit, &format!("trip of {motor}: {reason}"), |event| {
            event.kind() == "trip" && event.reason() == reason && event.concerns(motor)
        })
    }

    /// Waits until a session has ended, for that reason and without a trip, whose motors were all at rest, the motor among
    /// them.
    ///
    /// # Errors
    /// None has in time.
    pub fn wait_for_end_at_rest(
        &self,
        from: Moment,
        reason: &str,
        motor: &str,
        limit: Duration,
    ) -> Result<Event> {
        self.wait_for_event(from, limit, &format!("end at rest of {motor}: {reason}"), |event| {
            event.kind() == "ended at rest" && event.reason() == reason && event.concerns(motor)
        })
    }

    /// `lanyard estop`; returns the trip.
    ///
    /// # Errors
    /// The command fails or names no trip.
    pub fn estop(&self) -> Result<u64> {
        let answer = self.run(&["estop"])?;
        ensure!(answer.code == Some(0), "lanyard estop: {}", answer.stderr.trim());
        let number = answer.stdout.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty());
        let Some(number) = number else { bail!("lanyard estop names no trip: {}", answer.stdout) };
        Ok(number.parse()?)
    }

    /// `lanyard reset`.
    ///
    /// # Errors
    /// The command cannot be started. A refusal is an answer.
    pub fn reset(&self, trip: u64) -> Result<Answer> {
        self.run(&["reset", &trip.to_string()])
    }

    /// Where the front attaches.
    #[must_use]
    pub fn front_socket(&self) -> PathBuf {
        self.beside("front")
    }

    /// Where trips are reset.
    #[must_use]
    pub fn operator_socket(&self) -> PathBuf {
        self.beside("operator")
    }

    fn beside(&self, folder: &str) -> PathBuf {
        let name = self.socket.file_name().unwrap_or_default();
        self.socket.with_file_name(folder).join(name)
    }
}
