//! The simulated drives as a running program, and what they say of themselves.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::expect;
use crate::interface::far_end;
use crate::process::Process;

/// Below this speed, rev/s, a shaft stands still. Half of what the drives' proof demands of an ODrive
/// (0.05 rev/s), and above the 0.002 at which the simulated friction ends a coasting motion.
pub const STILL: f64 = 0.025;

/// Below the supervisor, which has 80, and above all that is no real-time program: a drive does not fall silent
/// because the robot's computer is busy.
const PRIORITY: &str = "40";

/// A running `lanyard-sim`.
#[derive(Debug)]
pub struct Simulation {
    /// The program.
    pub process: Process,
    /// How its drives are ordered about.
    pub remote: Remote,
}

/// The way to the simulated drives, for any thread.
#[derive(Clone, Debug)]
pub struct Remote {
    control: PathBuf,
}

/// What a simulated drive says of itself.
#[derive(Clone, Debug)]
pub struct Report(pub Value);

impl Report {
    /// The true speed of the shaft, rev/s.
    #[must_use]
    pub fn velocity(&self) -> f64 {
        self.0["velocity"].as_f64().unwrap_or(f64::NAN)
    }

    /// Whether the drive has torque.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.0["enabled"] == true
    }

    /// How many stop commands of a kind (`controlled`, `quick`, `torque_off`) have arrived.
    #[must_use]
    pub fn stops(&self, kind: &str) -> u64 {
        self.0["stops_seen"][kind].as_u64().unwrap_or_default()
    }
}

impl Remote {
    /// Gives one command and returns the answer.
    ///
    /// # Errors
    /// The simulation refuses the command or does not answer.
    pub fn order(&self, command: &str) -> Result<Value> {
        let explain = || format!("simulation: {command}");
        let mut stream = UnixStream::connect(&self.control).with_context(explain)?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).with_context(explain)?;
        writeln!(stream, "{command}").with_context(explain)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).with_context(explain)?;
        let answer: Value = serde_json::from_str(&line).with_context(explain)?;
        ensure!(answer["ok"] == true, "simulation: {command}: {answer}");
        Ok(answer)
    }

    /// What a drive says of itself.
    ///
    /// # Errors
    /// See [`Remote::order`].
    pub fn report(&self, node: u8) -> Result<Report> {
        Ok(Report(self.order(&format!("{node} status"))?))
    }
}

impl Simulation {
    /// Starts it with these drives at the wire of an interface and waits until they are on the bus.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(programs: &Path, bus: &str, drives: &[String], control: PathBuf) -> Result<Self> {
        let mut arguments = vec!["--bus".to_owned(), far_end(bus), "--exit-with-parent".to_owned()];
        arguments.extend(["--control".to_owned(), control.display().to_string()]);
        arguments.extend(["--priority".to_owned(), PRIORITY.to_owned()]);
        arguments.extend(drives.iter().flat_map(|drive| ["--drive".to_owned(), drive.clone()]));
        let mut process = Process::start(programs, "lanyard-sim", arguments)?;
        process.wait_for_line("lanyard-sim: ready", Duration::from_secs(10))?;
        Ok(Self { process, remote: Remote { control } })
    }

    /// Gives one command and returns the answer.
    ///
    /// # Errors
    /// See [`Remote::order`].
    pub fn order(&self, command: &str) -> Result<Value> {
        self.remote.order(command)
    }

    /// What a drive says of itself.
    ///
    /// # Errors
    /// See [`Remote::order`].
    pub fn report(&self, node: u8) -> Result<Report> {
        self.remote.report(node)
    }

    /// Waits until a shaft turns at least that fast, in the direction of the sign.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_for_speed(&self, node: u8, speed: f64, limit: Duration) -> Result<()> {
        expect::within(limit, &format!("drive {node} turns at {speed} rev/s"), || {
            let report = self.report(node).map_err(|error| format!("{error:#}"))?;
            let fast = report.velocity() * speed.signum() >= speed.abs();
            if fast { Ok(()) } else { Err(report.0.to_string()) }
        })
    }

    /// Waits until a shaft stands still.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_for_standstill(&self, node: u8, limit: Duration) -> Result<()> {
        expect::within(limit, &format!("drive {node} stands still"), || {
            let report = self.report(node).map_err(|error| format!("{error:#}"))?;
            if report.velocity().abs() < STILL { Ok(()) } else { Err(report.0.to_string()) }
        })
    }
}
