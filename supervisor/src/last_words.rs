//! The stops of a process that is about to die: whatever breaks in it, every motor is told to stop first.
//!
//! The frames are built, and sockets of their own opened, before arming. A panic in any thread and every
//! deadly signal (a bad access, a forbidden system call, the runaway fuse, a termination nobody planned)
//! hand the frames to the kernel; then the process ends. In between runs nothing but what POSIX allows in a
//! signal handler: loads, `write`, `raise`.
//!
//! They cannot wait, so they are the first stage alone, in the form that fits every mode of a drive. What has to follow is
//! left to the kernel's jobs ([`crate::kernel_stop`]), whose sockets outlive this process: nothing here deletes them.

use std::fmt::Write as _;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use config::Config;
use nix::sys::signal::Signal;

use crate::bus::{Buses, Rebind};
use crate::kernel_frame::KernelFrame;
use crate::sys;

/// How often the frames go out: once more for a full queue that has drained meanwhile.
const ROUNDS: usize = 2;

/// One frame and where it goes.
#[derive(Debug)]
struct Shot {
    socket: RawFd,
    frame: KernelFrame,
}

#[derive(Debug)]
struct LastWords {
    /// Keeps the sockets open.
    _buses: Buses,
    stops: Vec<Shot>,
}

static LAST_WORDS: OnceLock<LastWords> = OnceLock::new();

/// The signals that end a process unless it takes them otherwise. Those that people send on purpose to end
/// it (SIGTERM, SIGINT) are read from a descriptor and are not among them; SIGKILL cannot be taken.
const DEADLY: [Signal; 18] = [
    Signal::SIGABRT,
    Signal::SIGALRM,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGIO,
    Signal::SIGPROF,
    Signal::SIGPWR,
    Signal::SIGQUIT,
    Signal::SIGSEGV,
    Signal::SIGSTKFLT,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGVTALRM,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
];

/// Prepares the first stop stage of every motor, and arms the panic hook and the signal handlers.
///
/// # Errors
///
/// When a bus cannot be opened; the texts say which and what to do.
pub fn prepare(config: &Config, rebind: &mut Rebind) -> Result<(), Vec<String>> {
    let buses = Buses::open(config)?;
    let explain = |error: std::io::Error| vec![format!("CAN sockets for a panic: {error}")];
    buses.deafen().map_err(explain)?;
    rebind.add(&buses).map_err(explain)?;
    let stops = config
        .motors
        .iter()
        .flat_map(|motor| motor.buses().map(|bus| (bus, motor.drive.stop.stage(0).frames)))
        .filter_map(|(bus, frames)| Some((buses.socket(bus)?.as_raw_fd(), frames)))
        .flat_map(|(socket, frames)| {
            let shot = |frame| Shot { socket, frame: KernelFrame::new(frame) };
            frames.as_slice().iter().map(shot).collect::<Vec<_>>()
        })
        .collect();
    // Only the first call counts; there is only one.
    let _ = LAST_WORDS.set(LastWords { _buses: buses, stops });
    std::panic::set_hook(Box::new(|info| {
        send_all();
        let mut text = Line::default();
        let _ = writeln!(text, "lanyard-supervisor: {info}; stop frames were sent");
        text.say();
        std::process::abort();
    }));
    for signal in DEADLY {
        sys::on_death(signal, die_of).map_err(|error| vec![format!("signal {signal}: {error}")])?;
    }
    Ok(())
}

/// Sends the stops, then lets the signal do what it does.
fn die_of(signal: libc::c_int, forbidden: Option<libc::c_int>) {
    send_all();
    let mut text = Line::default();
    let _ = match forbidden {
        None => writeln!(text, "lanyard-supervisor: ends by signal {signal}; stop frames were sent"),
        Some(call) => writeln!(
            text,
            "lanyard-supervisor: ends by signal {signal}: system call {call} is forbidden to the thread that made it; stop \
             frames were sent"
        ),
    };
    text.say();
    sys::raise_again(signal);
}

/// Sends every prepared stop. What the kernel does not take is lost: there is nobody left to retry.
fn send_all() {
    let Some(LastWords { stops, .. }) = LAST_WORDS.get() else { return };
    for _ in 0..ROUNDS {
        for Shot { socket, frame } in stops {
            sys::write_raw(*socket, frame.as_bytes());
        }
    }
}

/// A line of text without heap or lock; what does not fit is cut off.
struct Line {
    bytes: [u8; 512],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 512], length: 0 }
    }
}

impl Line {
    fn say(&self) {
        sys::write_raw(libc::STDERR_FILENO, &self.bytes[..self.length]);
    }
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = &mut self.bytes[self.length..];
        let kept = text.len().min(room.len());
        room[..kept].copy_from_slice(&text.as_bytes()[..kept]);
        self.length += kept;
        Ok(())
    }
}
