//! The supervisor hangs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::robot::LEFT;

use crate::machine::{Bookmark, SOON, SUPERVISOR, Unit};
use crate::scene::{A_WHILE, PROMPT, before_the_next_supervisor, play, signal};

/// `kernel_stop` in the configuration (install.sh): when the kernel sends the first stop, the front sends its last motion
/// frame. How late that may be is asserted where time does not stand still as it does here: vcan, `kernel_stop.rs`.
const KERNEL_STOP: Duration = Duration::from_millis(400);

/// Fails if the kernel does not stop the wheel of a supervisor that hangs, before anybody else could; if the front drives on; if systemd's
/// watchdog does not end it and start another; or if that one does not know what happened.
#[test]
fn hanging_supervisor_is_a_stop_by_the_kernel_and_is_started_again() -> Result<()> {
    play(|scene| {
        let client = scene.drive()?;
        let journal = Bookmark::now()?;
        let before = Unit::show(SUPERVISOR)?.pid()?;
        let from = signal(before, Signal::SIGSTOP)?;
        let stop = scene.stopped_since(from, PROMPT)?;
        Unit::wait_for_successor(SUPERVISOR, before)?;
        let started = before_the_next_supervisor(&stop)?;
        println!("started again {:.0} ms after", started.millis_since(from));
        journal.wait(SUPERVISOR, "Watchdog timeout")?;
        scene.lanyard.wait_for_trip(from, "supervisor died", LEFT.name, SOON)?;
        let last = scene.listener.last_drive(&LEFT, from)?.map_or(from, |frame| frame.at);
        println!("the last motion frame {:.0} ms after", last.millis_since(from));
        ensure!(
            last <= from + KERNEL_STOP + A_WHILE,
            "the front drove on for {:.0} ms",
            last.millis_since(from)
        );
        ensure!(last < started, "somebody drove on under the next supervisor");
        drop(client);
        scene.verified()?;
        scene.drive().map(drop).context("a new client, after the supervisor came back")
    })
}
