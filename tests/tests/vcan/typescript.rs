//! The TypeScript SDK in Node, over both of its transports. It never opens a session, so what protects its motors is
//! the lease of its client.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::clock::Moment;
use tests::expect;
use tests::python::Client;
use tests::robot::{AFTER_STOP, LATE, LEFT, RIGHT, Robot, START, STILL, Setup};
use tests::typescript::{Node, OPEN, Transport};

use crate::scene::no_stop_for;

const BOTH: [Transport; 2] = [Transport::GrpcWeb, Transport::Grpc];
/// Long enough for Node on a rig that stands still now and then.
const WINDOW: Duration = Duration::from_secs(2);

fn leases() -> Setup {
    Setup::base().front_key("lease_window", "\"2s\"")
}

/// Starts the robot and runs `act`; shows what the programs said if it fails.
fn play(setup: Setup, act: impl FnOnce(&mut Robot, &mut Node) -> Result<()>) -> Result<()> {
    let mut robot = setup.start()?;
    let outcome = act(&mut robot, &mut Node::find()?);
    if let Err(error) = &outcome {
        robot.report_failure(error);
    }
    outcome
}

/// Has a client command a motor four times a window, as a page with a joystick does, and waits until it turns.
fn keep_driving(robot: &Robot, client: &mut Client, name: &str) -> Result<()> {
    let motor = if name == "left" { &LEFT } else { &RIGHT };
    let from = Moment::now();
    client.ask("keep_driving", json!({ "name": name, "power": 0.4, "every": 0.5 }))?;
    robot.moves(motor, from, 0.4)
}

/// Fails if the SDK cannot connect, list, drive, read or stop, or if it has begun to open sessions, which the other
/// tests here assume that it does not.
#[test]
fn connects_lists_drives_reads_and_stops() -> Result<()> {
    for transport in BOTH {
        play(leases(), |robot, node| {
            let mut client = node.client(robot, transport)?;
            let names = client.ask("resource_names", json!({}))?;
            for name in ["rdk:component:motor/left", "rdk:component:motor/right", "rdk:component:base/base1"]
            {
                ensure!(names.as_array().is_some_and(|names| names.iter().any(|n| n == name)), "{names}");
            }
            ensure!(client.ask("version", json!({}))? == "lanyard");
            robot.drive(&mut client, &LEFT, 0.4)?;
            ensure!(client.ask("is_moving", json!({ "name": "left" }))? == true);
            ensure!(client.ask("is_powered", json!({ "name": "left" }))?[0] == true);
            ensure!(client.ask("get_position", json!({ "name": "left" }))?.is_f64());
            ensure!(client.ask("session", json!({}))? == "", "the SDK has begun to open sessions");
            let told = Moment::now();
            client.ask("stop", json!({ "name": "left" }))?;
            robot.listener.wait_for_stop(&LEFT, told, START)?;
            robot.sim.wait_for_standstill(LEFT.node, STILL)?;

            robot.drive_base(&mut client)?;
            let told = Moment::now();
            client.ask("stop_all", json!({}))?;
            robot.listener.wait_for_stop(&RIGHT, told, START)?;
            robot.sim.wait_for_standstill(RIGHT.node, STILL)
        })
        .with_context(|| format!("{transport:?}"))?;
    }
    Ok(())
}

/// Fails if a client that dies or is suspended leaves its motor running, if one that goes on commanding is stopped, or if
/// a stop is not for the reason that its client was silent.
#[test]
fn a_client_that_falls_silent_is_stopped() -> Result<()> {
    for transport in BOTH {
        for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
            play(leases(), |robot, node| {
                let mut client = node.client(robot, transport)?;
                keep_driving(robot, &mut client, "left")?;
                no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
                ensure!(client.ask("failures", json!({}))? == json!([]));
                let silent = Moment::now();
                client.signal(signal)?;
                let stop = robot.listener.wait_for_stop(&LEFT, silent, 3 * WINDOW)?;
                robot.is_prompt(silent, WINDOW + LATE, &stop)?;
                let trip = robot.lanyard.wait_for_trip(silent, "session expired", "left", START)?;
                ensure!(stop.at >= trip.deadline().context("no deadline")?, "stopped before its deadline");
                robot.verified(&LEFT)?;
                robot.no_motion_after(&LEFT, &stop)
            })
            .with_context(|| format!("{transport:?}, {signal}"))?;
        }
    }
    Ok(())
}

/// Fails if over HTTP/2, where answers to pings count, a client has to repeat its commands; or if over HTTP/1, where only its
/// commands tell that it runs, a command that is never repeated keeps a motor running.
#[test]
fn a_command_that_is_not_repeated_lasts_as_long_as_its_client_is_heard() -> Result<()> {
    play(leases().front_key("lease", "\"pings\""), |robot, node| {
        let mut client = node.client(robot, Transport::Grpc)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        no_stop_for(&robot.listener, &LEFT, 3 * WINDOW)?;
        client.ask("stop", json!({ "name": "left" }))?;

        let mut page = node.client(robot, Transport::GrpcWeb)?;
        let from = Moment::now();
        page.ask("set_power", json!({ "name": "right", "power": 0.4 }))?;
        robot.moves(&RIGHT, from, 0.4)?;
        robot.lanyard.wait_for_trip(from, "session expired", "right", START)?;
        robot.verified(&RIGHT)?;
        // What comes after that may have waited in a buffer, until the page has said that it knows.
        for _ in 0..2 {
            let refusal = page.call("set_power", json!({ "name": "right", "power": 0.4 }))?.refusal()?;
            ensure!(refusal.status.as_deref() == Some("FAILED_PRECONDITION"), "got {refusal:?}");
        }
        page.ask("stop", json!({ "name": "right" }))?;
        std::thread::sleep(AFTER_STOP);
        keep_driving(robot, &mut page, "right")
    })
}

/// Fails if the death of one client stops the motor of another, or keeps its own running.
#[test]
fn two_clients_do_not_disturb_each_other() -> Result<()> {
    // The last of them commands once, and is held by its answers to pings.
    play(leases().front_key("lease", "\"pings\""), |robot, node| {
        let mut page = node.client(robot, Transport::GrpcWeb)?;
        let mut program = node.client(robot, Transport::Grpc)?;
        keep_driving(robot, &mut page, "left")?;
        keep_driving(robot, &mut program, "right")?;
        let death = page.kill()?;
        let stop = robot.listener.wait_for_stop(&LEFT, death, 3 * WINDOW)?;
        robot.is_prompt(death, WINDOW + LATE, &stop)?;
        robot.verified(&LEFT)?;
        no_stop_for(&robot.listener, &RIGHT, WINDOW)?;
        ensure!(program.ask("failures", json!({}))? == json!([]));
        let mut other = node.client(robot, Transport::Grpc)?;
        robot.drive(&mut other, &LEFT, 0.4)?;
        let death = program.kill()?;
        let stop = robot.listener.wait_for_stop(&RIGHT, death, 3 * WINDOW)?;
        robot.is_prompt(death, WINDOW + LATE, &stop)?;
        no_stop_for(&robot.listener, &LEFT, WINDOW)
    })
}

/// Fails if a client without session may drive where the configuration forbids it, or is not told why it may not.
#[test]
fn refused_where_only_sessions_may_drive() -> Result<()> {
    play(leases().front_key("sessionless", "\"refuse\""), |robot, node| {
        for transport in BOTH {
            let mut client = node.client(robot, transport)?;
            let from = Moment::now();
            let refusal = client.call("set_power", json!({ "name": "left", "power": 0.4 }))?.refusal()?;
            ensure!(
                refusal.status.as_deref() == Some("FAILED_PRECONDITION")
                    && refusal.message.contains("under a session"),
                "{transport:?}: {refusal:?}"
            );
            ensure!(robot.listener.last_drive(&LEFT, from)?.is_none(), "it was driven all the same");
            client.ask("stop", json!({ "name": "left" }))?;
        }
        Ok(())
    })
}

/// Fails if an operation cannot be found, if cancelling it leaves its motor running or its caller waiting, or if who waits
/// for it is not told.
#[test]
fn a_cancelled_motion_is_stopped_and_its_caller_is_told() -> Result<()> {
    const GO_FOR: &str = "/viam.component.motor.v1.MotorService/GoFor";
    play(leases(), |robot, node| {
        let mut driver = node.client(robot, Transport::Grpc)?;
        let mut operator = node.client(robot, Transport::GrpcWeb)?;
        let from = Moment::now();
        let motion = driver.begin("go_for", json!({ "name": "left", "rpm": 90.0, "revolutions": 500.0 }))?;
        robot.moves(&LEFT, from, 1.0)?;
        let operations = operator.ask("operations", json!({}))?;
        let found =
            operations.as_array().into_iter().flatten().find(|operation| operation["method"] == GO_FOR);
        let id = found.with_context(|| format!("no GoFor among {operations}"))?["id"].clone();
        let waiting = driver.begin("block_for_operation", json!({ "id": id }))?;

        let told = Moment::now();
        operator.ask("cancel_operation", json!({ "id": id }))?;
        robot.listener.wait_for_stop(&LEFT, told, START)?;
        let refusal = driver.finish(motion, STILL)?.refusal()?;
        ensure!(refusal.status.as_deref() == Some("CANCELLED"), "got {refusal:?}");
        driver.finish(waiting, STILL)?.value()?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        let again = operator.call("cancel_operation", json!({ "id": id }))?.refusal()?;
        ensure!(again.status.as_deref() == Some("NOT_FOUND"), "got {again:?}");
        let left =
            expect::within(STILL, "the operation is gone", || match operator.ask("operations", json!({})) {
                Ok(left) if !left.to_string().contains(GO_FOR) => Ok(left),
                other => Err(format!("{other:?}")),
            })?;
        ensure!(left.is_array());
        Ok(())
    })
}

/// A real browser. Fails if a page of this computer cannot drive, read and stop (preflights and readable headers among
/// it), if it is not told why it is refused, or if its motor runs on when the browser is gone.
#[test]
fn a_page_in_a_browser_drives_and_is_guarded() -> Result<()> {
    // A browser on the slowest rig sometimes draws breath for seconds.
    let window = Duration::from_secs(8);
    play(Setup::base().front_key("lease_window", "\"8s\""), |robot, node| {
        let mut page = node.page("localhost")?;
        page.call_within(OPEN, "connect", json!({ "address": robot.address }))?.value()?;
        let names = page.ask("resource_names", json!({}))?;
        ensure!(names.to_string().contains("rdk:component:motor/left"), "{names}");
        let from = Moment::now();
        page.ask("keep_driving", json!({ "name": "left", "power": 0.4, "every": 0.5 }))?;
        robot.moves(&LEFT, from, 0.4)?;
        no_stop_for(&robot.listener, &LEFT, 2 * window)?;
        ensure!(page.ask("failures", json!({}))? == json!([]));
        ensure!(page.ask("get_position", json!({ "name": "left" }))?.is_f64());
        let refusal = page.call("set_power", json!({ "name": "none", "power": 0.4 }))?.refusal()?;
        ensure!(
            refusal.status.as_deref() == Some("NOT_FOUND")
                && refusal.message.contains("configured: left, right"),
            "the page was told {refusal:?}"
        );
        let death = page.kill()?;
        let stop = robot.listener.wait_for_stop(&LEFT, death, 3 * window)?;
        // The processes of the browser die one after the other, and the last command may be on its way.
        robot.is_prompt(death, window + Duration::from_secs(2) + LATE, &stop)?;
        robot.lanyard.wait_for_trip(death, "session expired", "left", START)?;
        robot.verified(&LEFT)?;
        Ok(())
    })
}

/// Fails if a page of somebody else, opened in a browser beside the robot, reaches it.
#[test]
fn a_foreign_page_in_a_browser_reaches_nothing() -> Result<()> {
    play(leases(), |robot, node| {
        let from = Moment::now();
        let mut page = node.page("evil.example")?;
        page.call_within(OPEN, "connect", json!({ "address": robot.address }))?.refusal()?;
        ensure!(robot.listener.last_drive(&LEFT, from)?.is_none());
        Ok(())
    })
}

/// Fails if a client over HTTP/1 keeps the motor of another one running that has died, because both come from one
/// address; or if it is stopped with it.
#[test]
fn clients_of_one_address_do_not_keep_each_others_motors_running() -> Result<()> {
    play(leases(), |robot, node| {
        let mut one = node.client(robot, Transport::GrpcWeb)?;
        let mut two = node.client(robot, Transport::GrpcWeb)?;
        keep_driving(robot, &mut one, "left")?;
        keep_driving(robot, &mut two, "right")?;
        let death = one.kill()?;
        let stop = robot.listener.wait_for_stop(&LEFT, death, 3 * WINDOW)?;
        robot.is_prompt(death, WINDOW + LATE, &stop)?;
        no_stop_for(&robot.listener, &RIGHT, WINDOW)
    })
}
