//! Something runs out while a trip has to be carried out: room on the disk, memory.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use tests::clock::Moment;
use tests::expect;
use tests::robot::LEFT;

use crate::machine::{SOON, SUPERVISOR, Unit};
use crate::scene::play;

/// A disk without room; there is again when this is dropped.
struct FullDisk;

impl FullDisk {
    const FILE: &str = "/var/full";

    fn fill() -> Result<Self> {
        let mut file = File::create(Self::FILE)?;
        let full = Self;
        // Ever smaller pieces, until not even a block is left; then byte by byte.
        let mut at = 0;
        for power in (12..=27).rev() {
            let piece = 1_i64 << power;
            while fallocate(&file, FallocateFlags::empty(), at, piece).is_ok() {
                at += piece;
            }
        }
        let mut other = File::create("/var/full.more")?;
        let refused = loop {
            match other.write_all(&[0; 4096]).and_then(|()| other.sync_data()) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        file.flush()?;
        ensure!(refused.raw_os_error() == Some(Errno::ENOSPC as i32), "the disk is not full: {refused}");
        Ok(full)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        for file in [Self::FILE, "/var/full.more"] {
            drop(fs::remove_file(file));
        }
    }
}

/// Fails if a full disk keeps a stop from being sent, or the supervisor from telling it.
#[test]
fn full_disk_keeps_no_stop_back() -> Result<()> {
    play(|scene| {
        let client = scene.drive()?;
        let _full = FullDisk::fill()?;
        client.fall_silent()?;
        scene.stopped_at_deadline(Moment::now())?;
        scene.verified()
    })
}

/// Programs that want more memory than there is; none of them when this is dropped.
struct Pressure(Child);

impl Pressure {
    fn begin() -> Result<Self> {
        let mut command = Command::new("stress-ng");
        // Twice the machine's memory, all of it at once, and none of them more than the kernel believes in; each is
        // started again when it is killed.
        command.args(["--vm", "3", "--vm-bytes", "1500M", "--vm-populate", "--vm-keep", "--timeout", "300s"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.context("cannot start stress-ng")?))
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
        // Its workers are told by its death; whoever is late is told again.
        drop(Command::new("pkill").args(["-KILL", "stress-ng"]).status());
    }
}

/// How many processes the kernel has killed for their memory.
fn killed_for_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(line.context("no oom_kill")?.parse()?)
}

/// How long it may take until the memory is used up: an emulated processor clears some 10 MB of it in a second on a
/// slow host. Only says when to give up.
const FILLED: Duration = Duration::from_secs(180);

/// How late a stop may be after its deadline with the machine out of memory. The supervisor's own is locked, and it has
/// a processor's first turn: nothing of it waits for memory. What remains is an emulated machine whose kernel looks for
/// memory on both processors, with locks held.
const LATE: Duration = Duration::from_millis(1000);

/// Fails if a machine without memory takes the supervisor, or keeps it from stopping in time. What trips first is open:
/// the client that falls silent, or the front or the drive, which have no memory of their own any more.
#[test]
fn shortage_of_memory_neither_takes_the_supervisor_nor_delays_a_stop() -> Result<()> {
    play(|scene| {
        let before = Unit::show(SUPERVISOR)?.pid()?;
        let client = scene.drive()?;
        let killed = killed_for_memory()?;
        let from = Moment::now();
        let pressure = Pressure::begin()?;
        // A machine that only looks for memory, and kills nobody, can starve the drive: that is such a trip, too.
        expect::within(FILLED, "the kernel kills for memory, or somebody starves", || {
            let stopped = scene.listener.first(from, |frame| LEFT.is_stop(frame));
            match (killed_for_memory(), stopped) {
                (Ok(now), Ok(None)) if now == killed => Err("no kill and no stop".to_owned()),
                (Ok(_), Ok(_)) => Ok(()),
                trouble => Err(format!("{trouble:?}")),
            }
        })?;
        println!("memory is short after {:.0} ms", Moment::now().millis_since(from));
        client.fall_silent()?;
        let stop = scene.listener.wait_for_stop(&LEFT, from, SOON)?;
        drop(pressure);
        println!("{} processes were killed for memory", killed_for_memory()? - killed);
        let trip = scene.lanyard.wait_for_event(from, SOON, "trip", |event| {
            event.kind() == "trip" && event.concerns(LEFT.name)
        })?;
        let due = trip.deadline().unwrap_or(trip.at());
        let sent = trip.first_stop().context("the trip names no stop frame")?;
        println!(
            "{}: sent {:.1} ms after it was due, across the wire {:.1} ms",
            trip.reason(),
            sent.millis_since(due),
            stop.at.millis_since(due)
        );
        ensure!(sent >= due && sent <= due + LATE, "the stop was sent too late, or too early: {}", trip.0);
        ensure!(stop.at <= due + LATE, "the stop came {:.0} ms after it was due", stop.at.millis_since(due));
        ensure!(Unit::show(SUPERVISOR)?.pid()? == before, "the supervisor was killed");
        scene.verified()
    })
}
