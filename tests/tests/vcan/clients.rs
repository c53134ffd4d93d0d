//! How clients find the robot: every way of dialling that the SDK has without an account.

use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;
use tests::robot::{LEFT, START, Setup};

use crate::scene::play;

/// Fails if signalling is answered with anything but "unimplemented": clients would wait for WebRTC
/// instead of falling back.
#[test]
fn signalling_is_unimplemented_at_once() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        for call in ["OptionalWebRTCConfig", "Call"] {
            let outcome = client.call("signalling", json!({ "call": call }))?;
            let took = outcome.seconds;
            let refusal = outcome.refusal()?;
            ensure!(refusal.status.as_deref() == Some("UNIMPLEMENTED"), "{call}: {refusal:?}");
            ensure!(took < 1.0, "{call} took {took} s");
        }
        Ok(())
    })
}

/// Fails if a client that changes nothing about dialling but "no TLS" cannot drive, or is not stopped.
#[test]
fn default_way_of_dialling_falls_back_and_is_guarded() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = clients.fork()?;
        let options = json!({ "address": robot.address, "webrtc": true });
        client.call_within(START, "connect", options)?.value()?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let death = client.kill()?;
        robot.stopped_at_deadline(&LEFT, death, Duration::from_secs(2))?;
        robot.verified(&LEFT)?;
        Ok(())
    })
}

/// Fails if the robot's parts are not listed by the names and types that clients look them up with.
#[test]
fn parts_are_listed() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        let names = client.ask("resource_names", json!({}))?;
        for wanted in ["rdk:component:motor/left", "rdk:component:motor/right", "rdk:component:base/base1"] {
            let listed = names.as_array().is_some_and(|names| names.iter().any(|name| name == wanted));
            ensure!(listed, "{wanted} is not among {names}");
        }
        Ok(())
    })
}

/// Fails if StopAll leaves a motor turning.
#[test]
fn stop_all_stops_all() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        client.ask("stop_all", json!({}))?;
        for motor in &robot.motors {
            robot.sim.wait_for_standstill(motor.node, START)?;
        }
        Ok(())
    })
}
