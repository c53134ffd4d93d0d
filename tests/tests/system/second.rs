//! The second boot: the hardware watchdog has reset the machine, because nobody fed it.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::scene::play;

/// `WDIOF_CARDRESET`: the watchdog was the reason for the last reset.
const CARD_RESET: u32 = 0x20;

/// Fails if the watchdog does not say that it has reset the machine.
#[test]
fn the_hardware_watchdog_was_the_reason() -> Result<()> {
    play(|_| {
        let text = fs::read_to_string("/sys/class/watchdog/watchdog0/bootstatus").context("no bootstatus")?;
        let bits: u32 = text.trim().parse()?;
        ensure!(bits & CARD_RESET != 0, "bootstatus is {bits}");
        Ok(())
    })
}

/// Fails if a robot that was reset cannot drive again.
#[test]
fn the_robot_drives_again() -> Result<()> {
    play(|scene| scene.drive().map(drop))
}
