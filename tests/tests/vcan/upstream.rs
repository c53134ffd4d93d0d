//! A server behind Lanyard: the component server of Viam's Python SDK, whose components drive motors over CAN by
//! themselves. Clients reach it through Lanyard and are guarded as if it were Lanyard's own.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::clock::Moment;
use tests::expect;
use tests::python::{Client, Clients, Refusal};
use tests::robot::{LATE, LEFT, RIGHT, Robot, START, STILL, Setup};
use tests::wire::Seen;

use crate::scene::{is_session_expired, no_stop_for, play, sessionless, start_session, undisturbed};

/// The window of sessions, where a test does not say otherwise.
const WINDOW: Duration = Duration::from_secs(1);
/// How long the upstream may be silent in these tests. A quarter of a second is its default divided by four; the rig
/// needs the whole of it.
const UPSTREAM_WINDOW: Duration = Duration::from_secs(1);
/// Everything the upstream has. All of it turns the left wheel; the right one is Lanyard's own.
const RESOURCES: [&str; 9] = [
    "arm/arm1",
    "base/base1",
    "button/button1",
    "gantry/gantry1",
    "gripper/gripper1",
    "motor/motor1",
    "servo/servo1",
    "switch/switch1",
    "testecho/testecho1",
];

/// A running upstream and where it is.
pub struct Upstream {
    pub process: Client,
    port: u16,
}

impl Upstream {
    fn start(clients: &mut Clients, port: u16) -> Result<Self> {
        let mut process = clients.fork_upstream()?;
        let nodes = |key: &str| (key.to_owned(), json!([LEFT.node]));
        let resources: serde_json::Map<String, Value> = RESOURCES.into_iter().map(nodes).collect();
        process.ask("serve", json!({ "port": port, "bus": "vcan0", "resources": resources }))?;
        Ok(Self { process, port })
    }

    /// What a resource was told since a moment, and when.
    pub fn told(&mut self, resource: &str, since: Moment) -> Result<Vec<(Moment, String)>> {
        let notes = self.process.ask("told", json!({}))?;
        let notes = notes.as_array().context("no notes")?;
        let of = |note: &Value| {
            let at = Moment(note["at"].as_i64()?);
            let ours = note["resource"] == resource && at >= since;
            ours.then(|| note["did"].as_str().map(|did| (at, did.to_owned()))).flatten()
        };
        Ok(notes.iter().filter_map(of).collect())
    }

    /// Waits until clients see what it has.
    pub fn wait_for_names(&self, robot: &Robot, clients: &mut Clients) -> Result<()> {
        client(robot, clients).map(drop)
    }

    /// Waits until a resource was told something.
    pub fn wait_for(&mut self, resource: &str, what: &str, since: Moment) -> Result<Moment> {
        expect::within(STILL, &format!("{resource} is told {what}"), || {
            let told = self.told(resource, since).map_err(|error| format!("{error:#}"))?;
            told.iter().find(|(_, did)| did == what).map(|(at, _)| *at).ok_or_else(|| format!("{told:?}"))
        })
    }
}

/// The left wheel behind the upstream, the right one Lanyard's own. Sessions and the upstream may be silent for so long.
fn setup(port: u16, session: Duration, upstream: Duration, more: &str) -> Setup {
    let map: String = RESOURCES.iter().map(|key| format!("\"{key}\" = [\"left\"]\n")).collect();
    let window = format!("{}ms", session.as_millis());
    Setup::new().with(&LEFT).with(&RIGHT).window(&window).section(&format!(
        "[upstream]\naddress = \"http://127.0.0.1:{port}\"\nwindow = \"{}ms\"\n{more}[upstream.resources]\n{map}",
        upstream.as_millis()
    ))
}

/// Starts robot and upstream and runs `act` with both.
fn play_behind(
    more: &str,
    act: impl FnOnce(&mut Robot, &mut Clients, &mut Upstream) -> Result<()>,
) -> Result<()> {
    play_behind_within(WINDOW, UPSTREAM_WINDOW, more, act)
}

/// The same with other windows.
pub fn play_behind_within(
    session: Duration,
    window: Duration,
    more: &str,
    act: impl FnOnce(&mut Robot, &mut Clients, &mut Upstream) -> Result<()>,
) -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    play(setup(port, session, window, more), |robot, clients| {
        let mut upstream = Upstream::start(clients, port)?;
        act(robot, clients, &mut upstream)
    })
}

/// A client that sees the upstream's resources: whoever comes before the upstream must ask again.
fn client(robot: &Robot, clients: &mut Clients) -> Result<Client> {
    expect::within(START, "a client sees the upstream's resources", || {
        let mut client = robot.client(clients).map_err(|error| format!("{error:#}"))?;
        let names = client.ask("resource_names", json!({})).map_err(|error| format!("{error:#}"))?;
        let seen =
            names.as_array().is_some_and(|names| names.iter().any(|name| name == "rdk:component:arm/arm1"));
        if seen { Ok(client) } else { Err(names.to_string()) }
    })
}

/// Has a client call something that turns the left wheel, and waits until it turns. Returns when it began.
fn drive(robot: &Robot, client: &mut Client, call: &str, name: &str) -> Result<Moment> {
    let from = Moment::now();
    client.ask("move", json!({ "call": call, "name": name }))?;
    robot.moves(&LEFT, from, 1.0)?;
    Ok(from)
}

fn is_unavailable(refusal: &Refusal, word: &str) -> Result<()> {
    ensure!(
        refusal.status.as_deref() == Some("UNAVAILABLE") && refusal.message.contains(word),
        "expected UNAVAILABLE with {word:?}, not {refusal:?}"
    );
    Ok(())
}

/// Another client drives the right wheel, and must not notice anything of what `act` does.
fn while_another_drives(
    robot: &mut Robot,
    clients: &mut Clients,
    act: impl FnOnce(&mut Robot, &mut Clients) -> Result<()>,
) -> Result<()> {
    let mut other = undisturbed(robot, clients, act)?;
    let id = other.ask("session", json!({}))?;
    let worst = other.ask("slowest_heartbeat", json!({ "id": id, "count": 20 }))?;
    // A round trip takes 5 to 30 ms on the slowest rig.
    ensure!(worst.as_f64().is_some_and(|worst| worst < 0.3), "a heartbeat took {worst} s");
    robot.drive(&mut other, &RIGHT, 0.2)
}

/// Whether the stop on CAN came before the upstream was told to stop.
fn can_came_first(stop: &Seen, told: Moment) -> Result<()> {
    ensure!(
        stop.at <= told,
        "the upstream's Stop came {} ms before the one on CAN",
        stop.at.millis_since(told)
    );
    Ok(())
}

/// Fails if any monitored method that the server has does not reach it, does not take the wheel for the caller's
/// session, or if the wheel is not stopped on CAN at the caller's deadline; or if the component's own Stop is not
/// called, or before the one on CAN.
fn every_method(calls: &[(&str, &str)]) -> Result<()> {
    play_behind("", |robot, clients, upstream| {
        for (call, did) in calls {
            let kind = call.split('/').next().context("a kind")?;
            let (name, key) = (format!("{kind}1"), format!("{kind}/{kind}1"));
            let mut client = client(robot, clients)?;
            let from = drive(robot, &mut client, call, &name).with_context(|| (*call).to_owned())?;
            let reached = upstream.told(&key, from)?;
            ensure!(reached.iter().any(|(_, told)| told == did), "{call} did not reach {key}: {reached:?}");
            let death = client.kill()?;
            let (trip, stop) =
                robot.stopped_at_deadline(&LEFT, death, WINDOW).with_context(|| (*call).to_owned())?;
            println!("{call}: trip {}, stop frame {stop}", trip.0["trip"]);
            if !["button", "switch"].contains(&kind) {
                let told = upstream.wait_for(&key, "stop", death)?;
                can_came_first(&stop, told).with_context(|| (*call).to_owned())?;
            }
            robot.verified(&LEFT)?;
            upstream.process.ask("still", json!({}))?;
        }
        Ok(())
    })
}

#[test]
fn every_method_of_arms_is_guarded() -> Result<()> {
    every_method(&[
        ("arm/MoveToPosition", "move_to_position"),
        ("arm/MoveToJointPositions", "move_to_joint_positions"),
        ("arm/MoveThroughJointPositions", "move_through_joint_positions"),
        ("arm/MoveThroughJointPositionsStreamed", "move_through_joint_positions_streamed 1"),
    ])
}

#[test]
fn every_method_of_bases_and_motors_is_guarded() -> Result<()> {
    every_method(&[
        ("base/MoveStraight", "move_straight"),
        ("base/Spin", "spin"),
        ("base/SetPower", "set_power"),
        ("base/SetVelocity", "set_velocity"),
        ("motor/SetPower", "set_power"),
        ("motor/GoFor", "go_for"),
        ("motor/GoTo", "go_to"),
        ("motor/SetRPM", "set_rpm"),
    ])
}

#[test]
fn every_method_of_all_other_components_is_guarded() -> Result<()> {
    every_method(&[
        ("button/Push", "push"),
        ("gantry/MoveToPosition", "move_to_position"),
        ("gripper/Open", "open"),
        ("gripper/Grab", "grab"),
        ("gripper/GoToInputs", "go_to_inputs"),
        ("servo/Move", "move"),
        ("switch/SetPosition", "set_position"),
        ("testecho/EchoMultiple", "echo_multiple abc"),
    ])
}

/// Fails if the parts of either side are missing from what clients see, if a motor that stands behind the upstream is
/// offered twice, or if Lanyard's own motor does not turn beside the upstream's.
#[test]
fn the_parts_of_both_are_one_robot() -> Result<()> {
    play_behind("", |robot, clients, upstream| {
        let mut client = client(robot, clients)?;
        let names = client.ask("resource_names", json!({}))?;
        let names: Vec<&str> =
            names.as_array().context("no names")?.iter().filter_map(Value::as_str).collect();
        for key in RESOURCES.iter().chain(&["motor/right"]) {
            let wanted = format!("rdk:component:{key}");
            ensure!(names.iter().filter(|name| **name == wanted).count() == 1, "{wanted} in {names:?}");
        }
        ensure!(!names.contains(&"rdk:component:motor/left"), "the left motor is the upstream's: {names:?}");
        drive(robot, &mut client, "base/SetPower", "base1")?;
        robot.drive(&mut client, &RIGHT, 0.4)?;
        no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
        let from = Moment::now();
        client.ask("stop_all", json!({}))?;
        upstream.wait_for("base/base1", "stop", from)?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        robot.sim.wait_for_standstill(RIGHT.node, STILL)?;
        // The stop of everything ends nothing for good.
        drive(robot, &mut client, "arm/MoveToPosition", "arm1")?;
        client.ask("stop_component", json!({ "kind": "arm", "name": "arm1" }))?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)
    })
}

/// Fails if a command of a session that is over, or of none, reaches the upstream.
#[test]
fn expired_session_is_refused_before_the_upstream() -> Result<()> {
    play_behind("", |robot, clients, upstream| {
        client(robot, clients)?;
        let mut client = sessionless(robot, clients)?;
        let id = start_session(&mut client, "")?;
        let command = |id: &str| json!({ "name": "motor1", "power": 0.4, "session": id });
        let from = Moment::now();
        client.ask("set_power_as", command(&id))?;
        robot.moves(&LEFT, from, 1.0)?;
        robot.lanyard.wait_for_trip(from, "session expired", "left", 3 * WINDOW)?;
        upstream.wait_for("motor/motor1", "stopped", from)?;
        let over = Moment::now();
        is_session_expired(&client.call("set_power_as", command(&id))?.refusal()?)?;
        let unknown = "00000000-0000-4000-8000-000000000000";
        is_session_expired(&client.call("set_power_as", command(unknown))?.refusal()?)?;
        let told = upstream.told("motor/motor1", over)?;
        ensure!(told.is_empty(), "the upstream was told {told:?}");
        robot.verified(&LEFT)?;
        Ok(())
    })
}

/// Fails if the upstream's death does not stop what its sessions drive, if it touches another session, if calls are
/// not refused with the reason, or if the robot is not whole again when the upstream is.
#[test]
fn killed_upstream_stops_what_it_drove() -> Result<()> {
    play_behind("", |robot, clients, upstream| {
        let mut driver = client(robot, clients)?;
        while_another_drives(robot, clients, |robot, clients| {
            drive(robot, &mut driver, "base/SetPower", "base1")?;
            let death = upstream.process.kill()?;
            let stop = robot.listener.wait_for_stop(&LEFT, death, STILL)?;
            // A connection that is closed is noticed at once; the supervisor reads the front's word on its next tick.
            let took = robot.is_prompt(death, Duration::from_millis(250) + LATE, &stop)?;
            println!("upstream killed: stop frame after {took:.1} ms");
            robot.verified(&LEFT)?;
            robot.no_motion_after(&LEFT, &stop)?;
            let again = json!({ "call": "base/SetPower", "name": "base1" });
            let refusal = driver.call("move", again.clone())?.refusal()?;
            // Its session was ended; the next one is told why nothing moves.
            let refusal = match is_session_expired(&refusal) {
                Ok(()) => driver.call("move", again)?.refusal()?,
                Err(_) => refusal,
            };
            is_unavailable(&refusal, "upstream")?;
            *upstream = Upstream::start(clients, upstream.port)?;
            expect::within(START, "the upstream drives again", || {
                drive(robot, &mut driver, "base/SetPower", "base1").map_err(|error| format!("{error:#}"))
            })?;
            Ok(())
        })
    })
}

/// Fails if an upstream that hangs does not stop what its sessions drive, if calls wait for it, or if it is not told
/// to stop what it was doing when it goes on.
#[test]
fn hung_upstream_stops_what_it_drove() -> Result<()> {
    play_behind("", |robot, clients, upstream| {
        let mut driver = client(robot, clients)?;
        while_another_drives(robot, clients, |robot, _| {
            let began = drive(robot, &mut driver, "arm/MoveToPosition", "arm1")?;
            let hung = Moment::now();
            upstream.process.signal(Signal::SIGSTOP)?;
            let stop = robot.listener.wait_for_stop(&LEFT, hung, STILL)?;
            let took = robot.is_prompt(hung, UPSTREAM_WINDOW + Duration::from_millis(500), &stop)?;
            println!("upstream hung: stop frame after {took:.1} ms, its window is {UPSTREAM_WINDOW:?}");
            robot.verified(&LEFT)?;
            let again = json!({ "call": "arm/MoveToPosition", "name": "arm1" });
            // Its session was ended, which the first call may be told instead.
            driver.call("move", again.clone())?.refusal()?;
            let refused = driver.call("move", again)?;
            ensure!(refused.seconds < 1.0, "a refusal took {} s", refused.seconds);
            is_unavailable(&refused.refusal()?, "upstream")?;
            upstream.process.signal(Signal::SIGCONT)?;
            upstream.wait_for("arm/arm1", "stopped", began)?;
            expect::within(START, "the upstream drives again", || {
                drive(robot, &mut driver, "arm/MoveToPosition", "arm1").map_err(|error| format!("{error:#}"))
            })?;
            Ok(())
        })
    })
}

/// Fails if a Stop that hangs keeps the wheel, the Stop of another resource, or any other client waiting.
#[test]
fn hung_stop_holds_nothing_up() -> Result<()> {
    play_behind("", |robot, clients, upstream| {
        let mut driver = client(robot, clients)?;
        while_another_drives(robot, clients, |robot, clients| {
            upstream.process.ask("trouble", json!({ "key": "arm/arm1", "kind": "hang" }))?;
            drive(robot, &mut driver, "arm/MoveToPosition", "arm1")?;
            drive(robot, &mut driver, "gripper/Open", "gripper1")?;
            let death = driver.kill()?;
            let (_, stop) = robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
            let arm = upstream.wait_for("arm/arm1", "stop", death)?;
            let gripper = upstream.wait_for("gripper/gripper1", "stopped", death)?;
            can_came_first(&stop, arm)?;
            // The arm's Stop is given up after a second; the gripper's was not behind it.
            ensure!(gripper.millis_since(arm) < 900.0, "it waited {} ms", gripper.millis_since(arm));
            upstream.process.ask("trouble", json!({ "key": "arm/arm1", "kind": null }))?;
            upstream.wait_for("arm/arm1", "stopped", death)?;
            robot.verified(&LEFT)?;
            let mut next = client(robot, clients)?;
            drive(robot, &mut next, "arm/MoveToPosition", "arm1")?;
            Ok(())
        })
    })
}

/// Fails if a Stop that fails is not tried again, or the wheel waits for it.
#[test]
fn failed_stop_is_tried_again() -> Result<()> {
    play_behind("", |robot, clients, upstream| {
        let mut driver = client(robot, clients)?;
        upstream.process.ask("trouble", json!({ "key": "gantry/gantry1", "kind": 2 }))?;
        drive(robot, &mut driver, "gantry/MoveToPosition", "gantry1")?;
        let death = driver.kill()?;
        robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
        upstream.wait_for("gantry/gantry1", "stopped", death)?;
        let told = upstream.told("gantry/gantry1", death)?;
        let told: Vec<&str> = told.iter().map(|(_, did)| did.as_str()).collect();
        ensure!(told == ["stop", "stop", "stop", "stopped"], "it was told {told:?}");
        robot.verified(&LEFT)?;
        Ok(())
    })
}

/// Fails if the end of a session stops what another one has taken over, on CAN or upstream; or if a command that
/// comes while a Stop is under way is overtaken by it.
#[test]
fn takeover_is_not_undone_by_the_end_of_the_first() -> Result<()> {
    play_behind("", |robot, clients, upstream| {
        let mut first = client(robot, clients)?;
        let mut second = client(robot, clients)?;
        drive(robot, &mut first, "arm/MoveToPosition", "arm1")?;
        let taken = drive(robot, &mut second, "arm/MoveToJointPositions", "arm1")?;
        first.kill()?;
        no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
        let told = upstream.told("arm/arm1", taken)?;
        ensure!(told.iter().all(|(_, did)| did != "stop"), "the upstream was told {told:?}");

        // Now the second's Stop is under way, and takes 0.6 s, when the third takes the arm.
        upstream.process.ask("trouble", json!({ "key": "arm/arm1", "kind": "slow" }))?;
        let mut third = client(robot, clients)?;
        let death = second.kill()?;
        upstream.wait_for("arm/arm1", "stop", death)?;
        expect::within(STILL, "the third drives", || {
            drive(robot, &mut third, "arm/MoveToPosition", "arm1").map_err(|error| format!("{error:#}"))
        })?;
        no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
        let told = upstream.told("arm/arm1", death)?;
        let told: Vec<&str> = told.iter().map(|(_, did)| did.as_str()).collect();
        let moved = told.iter().position(|did| *did == "move_to_position").context("it was not moved")?;
        ensure!(!told[moved..].contains(&"stopped"), "the Stop came after the third's command: {told:?}");
        Ok(())
    })
}

/// Fails if a command that is being carried out when its session expires goes on upstream, or is answered with
/// anything else than that.
#[test]
fn command_in_flight_is_taken_back_at_expiry() -> Result<()> {
    play_behind("", |robot, clients, upstream| {
        client(robot, clients)?;
        upstream.process.ask("endless_commands", json!({ "key": "motor/motor1" }))?;
        let mut client = sessionless(robot, clients)?;
        let id = start_session(&mut client, "")?;
        let from = Moment::now();
        let command = json!({ "name": "motor1", "power": 0.4, "session": id });
        let call = client.begin("set_power_as", command)?;
        robot.moves(&LEFT, from, 1.0)?;
        let outcome = client.finish(call, 3 * WINDOW)?;
        is_session_expired(&outcome.refusal()?)?;
        upstream.wait_for("motor/motor1", "cancelled", from)?;
        upstream.wait_for("motor/motor1", "stopped", from)?;
        robot.lanyard.wait_for_trip(from, "session expired", "left", STILL)?;
        robot.verified(&LEFT)?;
        Ok(())
    })
}

/// Fails if the end of the front leaves the upstream driving.
#[test]
fn front_that_is_told_to_end_stops_the_upstream_too() -> Result<()> {
    play_behind("", |robot, clients, upstream| {
        let mut driver = client(robot, clients)?;
        drive(robot, &mut driver, "servo/Move", "servo1")?;
        let told = robot.signal_front(Signal::SIGTERM)?;
        robot.listener.wait_for_stop(&LEFT, told, STILL)?;
        upstream.wait_for("servo/servo1", "stopped", told)?;
        robot.verified(&LEFT)?;
        Ok(())
    })
}
