//! Other processes of a measurement: this program again, in one of its roles.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

/// This program, to be started once more with that role and these arguments. It dies with its parent.
///
/// # Errors
/// The kernel does not say where this program is.
pub fn role<I, S>(role: &str, arguments: I) -> Result<Command>
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg(role).args(arguments).stdin(Stdio::null());
    die_with_parent(&mut command);
    Ok(command)
}

/// Makes a command's process die with this one.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes one system call, which is allowed there, and touches
    // no memory.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
}

/// Keeps what a process says from the terminal, unless `LANYARD_SHOW` is in the environment.
pub fn hush(command: &mut Command) {
    if std::env::var_os("LANYARD_SHOW").is_none() {
        command.stderr(Stdio::null());
    }
}

/// A process in the background; killed when this is dropped.
#[derive(Debug)]
pub struct Background(Child);

impl Background {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn().context("cannot start a process of the benchmark")?))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or fails.
pub fn printed(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}; `cargo xtask bench` installs what is missing"))?;
    let mut text = String::new();
    child.stdout.take().context("no stdout")?.read_to_string(&mut text)?;
    let status = child.wait()?;
    ensure!(status.success(), "{name} failed ({status}): {text}");
    Ok(text)
}

/// The numbers that a command prints, one a line.
///
/// # Errors
/// It fails, or prints anything else.
pub fn numbers(command: &mut Command) -> Result<Vec<u64>> {
    let text = printed(command)?;
    text.lines().map(|line| line.parse().with_context(|| format!("not a number: {line}"))).collect()
}
