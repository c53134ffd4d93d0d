//! Programs that a test starts, stops, and reads the messages of.
//!
//! With `LANYARD_SHOW` in the environment everything they have printed is shown when they end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::expect;

/// Where the programs under test are.
///
/// # Errors
/// `LANYARD_BIN_DIR` is not set.
pub fn programs() -> Result<PathBuf> {
    std::env::var_os("LANYARD_BIN_DIR").map(PathBuf::from).context(
        "LANYARD_BIN_DIR is not set: it must name the folder with lanyard-supervisor, lanyard-front, lanyard \
         and lanyard-sim; `cargo xtask test` sets it",
    )
}

/// A running program and what it has printed. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    printed: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a program of `folder`. It ends with its parent, should that be killed.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start<I, S>(folder: &std::path::Path, program: &str, arguments: I) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let path = folder.join(program);
        let mut command = Command::new(&path);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec the closure makes one system call, which is allowed there, and
        // touches no memory.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", path.display()))?;
        let printed = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().context("no stdout")?;
        let stderr = child.stderr.take().context("no stderr")?;
        let readers = vec![collect(stdout, Arc::clone(&printed))?, collect(stderr, Arc::clone(&printed))?];
        Ok(Self { name: program.to_owned(), child, printed, readers, ended: None })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Every line it has printed.
    #[must_use]
    pub fn printed(&self) -> Vec<String> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has printed a line with `text` in it.
    ///
    /// # Errors
    /// It does not in time, or ends first.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> Result<String> {
        let name = self.name.clone();
        let what = format!("{name} prints {text:?}");
        let waited = expect::within(limit, &what, || {
            let printed = self.printed();
            if let Some(line) = printed.iter().find(|line| line.contains(text)) {
                return Ok(Ok(line.clone()));
            }
            match self.exited() {
                Some(status) => {
                    Ok(Err(format!("{name} ended with {status}: {}", self.printed().join(" | "))))
                }
                None => Err(printed.join(" | ")),
            }
        })?;
        waited.map_err(anyhow::Error::msg)
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.exited().is_none()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exited() {
            bail!("{} has ended with {status}: {}", self.name, self.printed().join(" | "));
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("process id")?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait(&mut self, limit: Duration) -> Result<Ended> {
        let what = format!("{} ends", self.name);
        let status =
            expect::within(limit, &what, || self.exited().ok_or_else(|| self.printed().join(" | ")))?;
        // Its last words may still be in the pipes, which end with it.
        for reader in self.readers.drain(..) {
            // It cannot fail but by a panic, which has been shown.
            drop(reader.join());
        }
        Ok(Ended { code: status.code(), signal: status.signal(), printed: self.printed() })
    }

    /// How much memory it has resident, in KiB.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// It has ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.ended = Some(self.child.wait().context("cannot wait")?);
        Ok(())
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it had printed.
    pub printed: Vec<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited().is_none() {
            // It may have ended just now.
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::env::var_os("LANYARD_SHOW").is_some() {
            for line in self.printed() {
                eprintln!("{} | {line}", self.name);
            }
        }
    }
}

fn collect(stream: impl Read + Send + 'static, into: Arc<Mutex<Vec<String>>>) -> Result<JoinHandle<()>> {
    let read = move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    };
    std::thread::Builder::new().name("messages".to_owned()).spawn(read).context("cannot start a thread")
}
