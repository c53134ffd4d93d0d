//! The machine as systemd and its own files show it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Gid, Group, Uid, User};
use tests::clock::Moment;
use tests::expect;

/// The supervisor's unit.
pub const SUPERVISOR: &str = "lanyard-supervisor.service";
/// The front's unit.
pub const FRONT: &str = "lanyard-front.service";
/// Both.
pub const TARGET: &str = "lanyard.target";

/// How long systemd may take for what it does at once elsewhere: starting a service is half a second here, ten times
/// that while the host is busy. Only says when to give up.
pub const SOON: Duration = Duration::from_secs(60);
/// Between two questions: each starts a program.
const PAUSE: Duration = Duration::from_millis(150);

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or fails; what it complained about is in the error.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}: {}", arguments.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What systemd says of a unit.
#[derive(Clone, Debug)]
pub struct Unit(BTreeMap<String, String>);

impl Unit {
    /// Asks.
    ///
    /// # Errors
    /// systemd does not answer.
    pub fn show(name: &str) -> Result<Self> {
        let text = run("systemctl", &["show", name])?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    /// A property; empty if there is no such.
    pub fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    /// A property that is a number.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self, property: &str) -> Result<u64> {
        let text = self.get(property);
        text.parse().with_context(|| format!("{property}={text}"))
    }

    /// `active`, `failed`, ...
    pub fn state(&self) -> &str {
        self.get("ActiveState")
    }

    /// The main process.
    ///
    /// # Errors
    /// It has none.
    pub fn pid(&self) -> Result<i32> {
        let pid = i32::try_from(self.number("MainPID")?)?;
        ensure!(pid > 0, "no main process; it is {}", self.state());
        Ok(pid)
    }

    fn summary(&self) -> String {
        let keys =
            ["ActiveState", "SubState", "Result", "ExecMainStatus", "MainPID", "NRestarts", "StatusText"];
        keys.map(|key| format!("{key}={}", self.get(key))).join(" ")
    }

    /// Waits until a unit is as it should be.
    ///
    /// # Errors
    /// It is not in time.
    pub fn wait(name: &str, what: &str, is: impl Fn(&Self) -> bool) -> Result<Self> {
        expect::within(SOON, &format!("{name} {what}"), || {
            let unit = Self::show(name).map_err(|error| format!("{error:#}"))?;
            if is(&unit) {
                return Ok(unit);
            }
            std::thread::sleep(PAUSE);
            Err(unit.summary())
        })
    }

    /// Waits until a service runs with another main process than `before`.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_for_successor(name: &str, before: i32) -> Result<Self> {
        Self::wait(name, &format!("runs again, not as {before}"), |unit| {
            unit.state() == "active" && unit.pid().is_ok_and(|pid| pid != before)
        })
    }
}

/// When the main process of a service was started last.
///
/// # Errors
/// It never was.
pub fn started(name: &str) -> Result<Moment> {
    moment(name, "ExecMainStartTimestampMonotonic")
}

/// When a service had ended last, with every process of it.
///
/// # Errors
/// It never has.
pub fn ended(name: &str) -> Result<Moment> {
    moment(name, "InactiveEnterTimestampMonotonic")
}

/// This machine never sleeps: the two clocks since boot are one.
fn moment(name: &str, property: &str) -> Result<Moment> {
    let micros = i64::try_from(Unit::show(name)?.number(property)?)?;
    ensure!(micros > 0, "{name}: {property} is none");
    Ok(Moment(micros * 1000))
}

/// A drop-in for a unit until the next boot; taken away when this is dropped.
#[derive(Debug)]
pub struct Dropin(PathBuf);

impl Dropin {
    /// Adds it and has systemd read it.
    ///
    /// # Errors
    /// It cannot be written, or systemd does not answer.
    pub fn add(unit: &str, text: &str) -> Result<Self> {
        let folder = PathBuf::from(format!("/run/systemd/system/{unit}.d"));
        fs::create_dir_all(&folder)?;
        let dropin = Self(folder.join("test.conf"));
        fs::write(&dropin.0, text)?;
        run("systemctl", &["daemon-reload"])?;
        Ok(dropin)
    }
}

impl Drop for Dropin {
    fn drop(&mut self) {
        let gone = fs::remove_file(&self.0).map_err(anyhow::Error::from);
        if let Err(error) = gone.and_then(|()| run("systemctl", &["daemon-reload"])) {
            eprintln!("{} is left: {error:#}", self.0.display());
        }
    }
}

/// A place in the journal: what was said from then on. Not a cursor of its own, which journalctl of systemd 252 mistakes
/// for the first line of another unit and leaves out.
#[derive(Clone, Debug)]
pub struct Bookmark(String);

impl Bookmark {
    /// Here.
    ///
    /// # Errors
    /// The clock is before 1970.
    pub fn now() -> Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Self(format!("--since=@{}.{:06}", since.as_secs(), since.subsec_micros())))
    }

    /// What a unit has said since.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn since(&self, unit: &str) -> Result<Vec<String>> {
        let text = run("journalctl", &["--quiet", "--output=cat", "--unit", unit, &self.0])?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Waits for a line of a unit with `text` in it.
    ///
    /// # Errors
    /// There is none in time.
    pub fn wait(&self, unit: &str, text: &str) -> Result<String> {
        expect::within(SOON, &format!("{unit} says {text:?}"), || {
            let lines = self.since(unit).map_err(|error| format!("{error:#}"))?;
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            std::thread::sleep(PAUSE);
            Err(lines.join(" | "))
        })
    }
}

/// What a unit has said since the machine booted.
///
/// # Errors
/// The journal cannot be read.
pub fn journal_of_this_boot(unit: &str) -> Result<Vec<String>> {
    let text = run("journalctl", &["--quiet", "--output=cat", "--boot", "--unit", unit])?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// A line of `/proc/PID/status`, without its name.
///
/// # Errors
/// There is no such process or line.
pub fn status_line(pid: i32, key: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    Ok(line.with_context(|| format!("no {key} of process {pid}"))?.trim().to_owned())
}

/// A thread: its name, policy and priority (`rtprio` of ps(1)), and the processors it may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// What it calls itself.
    pub name: String,
    /// As the kernel numbers them; 1 is SCHED_FIFO, 0 the ordinary one.
    pub policy: u32,
    /// 0 of an ordinary one.
    pub priority: u32,
    /// A list, `0-1`.
    pub processors: String,
}

/// The threads of a process.
///
/// # Errors
/// There is no such process.
pub fn threads(pid: i32) -> Result<Vec<Thread>> {
    /// Places in `stat` behind the name, from 0: rt_priority and policy are fields 40 and 41 from 1, the name is 2.
    const RT_PRIORITY: usize = 37;
    const POLICY: usize = 38;
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let stat = fs::read_to_string(entry.path().join("stat"))?;
        let rest: Vec<&str> = stat.rsplit_once(") ").context("stat")?.1.split(' ').collect();
        let number = |place: usize| -> Result<u32> { Ok(rest.get(place).context("stat is short")?.parse()?) };
        let status = fs::read_to_string(entry.path().join("status"))?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        threads.push(Thread {
            name: fs::read_to_string(entry.path().join("comm"))?.trim().to_owned(),
            policy: number(POLICY)?,
            priority: number(RT_PRIORITY)?,
            processors: allowed.context("Cpus_allowed_list")?.trim().to_owned(),
        });
    }
    Ok(threads)
}

/// Owner, group and permissions of a file, as `user:group mode`.
///
/// # Errors
/// There is no such file.
pub fn ownership(path: &str) -> Result<String> {
    let data = fs::metadata(Path::new(path)).with_context(|| format!("no {path}"))?;
    let user = User::from_uid(Uid::from_raw(data.uid()))?.map_or(data.uid().to_string(), |user| user.name);
    let group =
        Group::from_gid(Gid::from_raw(data.gid()))?.map_or(data.gid().to_string(), |group| group.name);
    Ok(format!("{user}:{group} {:o}", data.permissions().mode() & 0o7777))
}
