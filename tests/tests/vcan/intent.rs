//! What moves again after a trip, and who has to mean it.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::clock::Moment;
use tests::python::{Client, Refusal};
use tests::robot::{AFTER_STOP, LEFT, RIGHT, START, STILL, Setup};

use crate::scene::play;

const WINDOW: Duration = Duration::from_secs(1);

fn setup(policy: &str) -> Setup {
    Setup::base().window("1s").supervisor_key("reset", &format!("\"{policy}\""))
}

fn refused(client: &mut Client) -> Result<Refusal> {
    client.call("set_power", json!({ "name": "left", "power": 0.4 }))?.refusal()
}

fn stop(client: &mut Client) -> Result<()> {
    client.ask("stop", json!({ "name": "left" }))?;
    std::thread::sleep(AFTER_STOP);
    Ok(())
}

/// Fails if what was stopped under `neutral` moves by a command of somebody who has not sent a Stop for it, though a new
/// session gives it, or if it does not move after one.
#[test]
fn after_a_trip_neutral_wants_a_stop_first() -> Result<()> {
    play(setup("neutral"), |robot, clients| {
        let mut first = robot.client(clients)?;
        robot.drive(&mut first, &LEFT, 0.4)?;
        let death = first.kill()?;
        let (_, stopped) = robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
        robot.verified(&LEFT)?;
        let mut second = robot.client(clients)?;
        for _ in 0..3 {
            let refusal = refused(&mut second)?;
            ensure!(
                refusal.status.as_deref() == Some("FAILED_PRECONDITION")
                    && refusal.message.contains("send Stop first"),
                "got {refusal:?}"
            );
        }
        // A motor that nothing has stopped is none of it.
        robot.drive(&mut second, &RIGHT, 0.4)?;
        robot.no_motion_after(&LEFT, &stopped)?;
        stop(&mut second)?;
        robot.drive(&mut second, &LEFT, 0.4)
    })
}

/// Fails if a laptop that wakes drives on under `neutral` by commands that are given again, as libraries do by themselves.
#[test]
fn who_wakes_up_does_not_drive_on() -> Result<()> {
    play(setup("neutral"), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let asleep = Moment::now();
        client.signal(Signal::SIGSTOP)?;
        let (_, stopped) = robot.stopped_at_deadline(&LEFT, asleep, WINDOW)?;
        robot.verified(&LEFT)?;
        client.signal(Signal::SIGCONT)?;
        for _ in 0..5 {
            refused(&mut client)?;
        }
        robot.no_motion_after(&LEFT, &stopped)?;
        stop(&mut client)?;
        robot.drive(&mut client, &LEFT, 0.4)
    })
}

/// Fails if a drive's fault is cleared by a command, or is not cleared after the client has sent a Stop; under every policy
/// that needs no hand.
#[test]
fn a_drive_fault_wants_a_stop_of_whoever_drives() -> Result<()> {
    for policy in ["auto", "neutral"] {
        play(setup(policy), |robot, clients| {
            let mut client = robot.client(clients)?;
            robot.drive(&mut client, &LEFT, 0.4)?;
            let fault = Moment::now();
            robot.sim.order("3 fault 0x1000")?;
            robot.lanyard.wait_for_trip(fault, "drive fault", "left", START)?;
            let stopped = robot.listener.wait_for_stop(&LEFT, fault, START)?;
            robot.sim.wait_for_standstill(LEFT.node, STILL)?;
            robot.verified(&LEFT)?;
            let mut fresh = robot.client(clients)?;
            for _ in 0..3 {
                let refusal = refused(&mut fresh)?;
                ensure!(
                    refusal.status.as_deref() == Some("FAILED_PRECONDITION")
                        && refusal.message.contains("fault of its drive"),
                    "{policy}: got {refusal:?}"
                );
            }
            robot.no_motion_after(&LEFT, &stopped)?;
            stop(&mut fresh)?;
            robot.drive(&mut fresh, &LEFT, 0.4)
        })?;
    }
    Ok(())
}

/// Fails if a refusal under a trip that must be reset takes as long as a grant that does not come.
#[test]
fn a_latched_trip_refuses_at_once() -> Result<()> {
    play(setup("manual").front_key("grant_timeout", "\"5s\""), |robot, clients| {
        let mut first = robot.client(clients)?;
        robot.drive(&mut first, &LEFT, 0.4)?;
        let death = first.kill()?;
        robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
        robot.verified(&LEFT)?;
        let mut second = robot.client(clients)?;
        let asked = Moment::now();
        let refusal = refused(&mut second)?;
        ensure!(refusal.message.contains("lanyard reset"), "got {refusal:?}");
        ensure!(Moment::now().millis_since(asked) < 4e3, "it waited for a grant");
        Ok(())
    })
}
