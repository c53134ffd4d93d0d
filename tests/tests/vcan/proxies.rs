//! Reverse proxies before Lanyard. They keep connections of their own and may answer for a client that is dead, so only
//! commands tell that the program lives that drives without a session.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::clock::Moment;
use tests::pipeline::{Call, OK, Pipeline};
use tests::proxy::{Kind, Proxy};
use tests::python::Clients;
use tests::robot::{LATE, LEFT, MOVE, RIGHT, Robot, START, Setup};

use crate::scene::play;

/// Long enough for a rig that stands still now and then.
const WINDOW: Duration = Duration::from_secs(3);

fn behind(kind: Kind, act: impl FnOnce(&mut Robot, &mut Clients, &Proxy) -> Result<()>) -> Result<()> {
    play(Setup::base().front_key("lease_window", "\"3s\""), |robot, clients| {
        let proxy = Proxy::start(kind, &robot.address)?;
        act(robot, clients, &proxy)
    })
    .with_context(|| format!("{kind:?}"))
}

/// A client without session commands once and is killed; returns when it was.
fn drive_and_die(robot: &Robot, clients: &mut Clients, proxy: &Proxy) -> Result<Moment> {
    let mut client = Pipeline::connect(clients, &proxy.address)?;
    let commanded = Moment::now();
    client.ask(&Call::set_power("left", 0.4))?;
    robot.listener.wait_for_drive(&LEFT, commanded, MOVE)?;
    client.kill()
}

/// Has a client die behind a proxy.
fn dies(kind: Kind) -> Result<()> {
    behind(kind, |robot, clients, proxy| {
        let death = drive_and_die(robot, clients, proxy)?;
        let stop = robot.listener.wait_for_stop(&LEFT, death, 3 * WINDOW)?;
        robot.is_prompt(death, WINDOW + LATE, &stop)?;
        let trip = robot.lanyard.wait_for_trip(death, "session expired", "left", START)?;
        ensure!(stop.at >= trip.deadline().context("no deadline")?, "stopped before its deadline");
        robot.verified(&LEFT)?;
        Ok(())
    })
}

/// Fails if a proxy that goes on answering keeps the motor of a dead client turning.
#[test]
fn a_client_that_dies_behind_haproxy_is_stopped() -> Result<()> {
    dies(Kind::Haproxy)
}

/// Fails if a proxy that goes on answering keeps the motor of a dead client turning.
#[test]
fn a_client_that_dies_behind_nginx_is_stopped() -> Result<()> {
    dies(Kind::Nginx)
}

/// Has a client command again and again behind a proxy.
fn goes_on(kind: Kind) -> Result<()> {
    behind(kind, |robot, clients, proxy| {
        let mut client = Pipeline::connect(clients, &proxy.address)?;
        client.ask(&Call::set_power("left", 0.4))?;
        // To switch the drive on takes a frame that a stop has, too.
        let from = Moment::now();
        while Moment::now() < from + 3 * WINDOW {
            client.ask(&Call::set_power("left", 0.4))?;
            std::thread::sleep(WINDOW / 4);
        }
        let stop = robot.listener.first(from, |frame| LEFT.is_stop(frame) || LEFT.is_torque_off(frame))?;
        ensure!(stop.is_none(), "it was stopped by {stop:?}");
        robot.sim.wait_for_speed(LEFT.node, 1.9, START)
    })
}

/// Fails if a client behind a proxy is stopped although it goes on commanding.
#[test]
fn a_client_that_goes_on_commanding_behind_haproxy_drives_on() -> Result<()> {
    goes_on(Kind::Haproxy)
}

/// Fails if a client behind a proxy is stopped although it goes on commanding.
#[test]
fn a_client_that_goes_on_commanding_behind_nginx_drives_on() -> Result<()> {
    goes_on(Kind::Nginx)
}

/// Has a client die behind a proxy, and another one come the same way.
fn another_comes(kind: Kind) -> Result<()> {
    behind(kind, |robot, clients, proxy| {
        let death = drive_and_die(robot, clients, proxy)?;
        robot.listener.wait_for_stop(&LEFT, death, 3 * WINDOW)?;
        robot.lanyard.wait_for_trip(death, "session expired", "left", START)?;
        robot.verified(&LEFT)?;
        let mut other = Pipeline::connect(clients, &proxy.address)?;
        let commanded = Moment::now();
        let answer = other.call(&Call::set_power("right", 0.4))?;
        ensure!(answer.status == Some(OK), "its first command was answered with {answer:?}");
        robot.listener.wait_for_drive(&RIGHT, commanded, MOVE).map(drop)
    })
}

/// Fails if a client is told, in another's place, that its lease is over: both come from the proxy's address.
#[test]
fn a_refusal_for_one_client_is_not_given_to_another_behind_haproxy() -> Result<()> {
    another_comes(Kind::Haproxy)
}

/// Fails if a client is told, in another's place, that its lease is over: both come from the proxy's address.
#[test]
fn a_refusal_for_one_client_is_not_given_to_another_behind_nginx() -> Result<()> {
    another_comes(Kind::Nginx)
}
