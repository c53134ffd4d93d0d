//! Programs for an arm of Kinova's, generation 3, over MQTT 5: they send nothing by themselves that shows that they run, and
//! are asked instead. What does not depend on how frames are carried is in `kortex.rs`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::clock::Moment;
use tests::folder::Folder;
use tests::kortex::{BRISK, Program, Times, Transport, has_codes, turns};
use tests::robot::{LEFT, STILL};

use crate::kortex::{
    CLOSED, HUNG_UP, add_user, driver, play_arm, play_changed, stopped_at_deadline, stopped_at_once,
};
use crate::scene::no_stop_for;

/// Long enough for four PINGs and their answers on a rig that stands still now and then.
const TIMES: Times = Times::connection(1_000);

/// Fails if a client cannot find out who is there before it has a session, or drive, ask and stop when it has one.
#[test]
fn arm_is_driven_over_mqtt() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = Program::connected(clients, ports, Transport::Mqtt)?;
        // Session and Base are there, nobody knows service 3000.
        for (service, there) in [(1, true), (2, true), (3_000, false)] {
            let alive = program.ask("is_alive", json!({ "service": service }))?;
            ensure!(alive == there, "service {service}: {alive}");
        }
        has_codes(&program.refused("Stop", json!({}))?, "1/54")?;
        program.create_session(Times::USUAL)?;
        program.drive(robot, BRISK)?;
        let speeds = program.method("GetMeasuredJointSpeeds", json!({}))?;
        let first = speeds["joint_speeds"][0]["value"].as_f64();
        ensure!(first.is_some_and(|speed| (speed - BRISK[0]).abs() < 36.0), "joint 0 of {speeds}");
        let listed = program.method("GetConnections", json!({}))?;
        ensure!(listed["connection"][0]["connection_inactivity_timeout"] == 2_000, "listed: {listed}");
        program.method("Stop", json!({}))?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        program.drive(robot, [360.0, 90.0])?;
        let from = Moment::now();
        program.ask("close_session", json!({}))?;
        stopped_at_once(robot, CLOSED, from)?;
        has_codes(&program.refused("Stop", json!({}))?, "1/54")
    })
}

/// Fails if answering PINGs does not keep the arm turning, or if a program that answers none, though its connection is
/// served, is not stopped.
#[test]
fn pongs_keep_joints_turning() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Mqtt, TIMES)?;
        let before = program.state()?["pings"].as_u64();
        no_stop_for(&robot.listener, &LEFT, 5 * TIMES.window())?;
        let pings = program.state()?["pings"].as_u64().zip(before).map(|(now, then)| now - then);
        // Five windows cannot be kept with fewer.
        ensure!(pings.is_some_and(|pings| pings >= 5), "{pings:?} PINGs in five windows");
        turns(robot, BRISK)?;
        let silent = Moment::now();
        program.ask("answer_pings", json!({ "answers": false }))?;
        stopped_at_deadline(robot, silent, TIMES.window())?;
        program.ask("answer_pings", json!({ "answers": true }))?;
        program.drive_again(robot, BRISK)
    })
}

/// Fails if the arm of a suspended program is not stopped at its deadline, or if its session does not live on until
/// session_inactivity_timeout and no longer.
#[test]
fn suspended_program_is_stopped_over_mqtt() -> Result<()> {
    let times = Times { session: 8_000, ..TIMES };
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Mqtt, times)?;
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        let stops = stopped_at_deadline(robot, asleep, times.window())?;
        program.signal(Signal::SIGCONT)?;
        std::thread::sleep(Duration::from_millis(500));
        robot.no_motion_after(&LEFT, &stops[0])?;
        program.drive_again(robot, BRISK)?;
        program.signal(Signal::SIGSTOP)?;
        std::thread::sleep(Duration::from_millis((times.session + 1_000).into()));
        program.signal(Signal::SIGCONT)?;
        has_codes(&program.refused("GetArmState", json!({}))?, "1/54")?;
        ensure!(program.state()?["open"] == true, "the connection was closed");
        program.create_session(times)?;
        program.drive(robot, BRISK)
    })
}

/// Fails if a killed program's arm waits for its deadline.
#[test]
fn killed_program_is_stopped_over_mqtt() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut program = driver(robot, clients, ports, Transport::Mqtt, Times::USUAL)?;
        let death = program.kill()?;
        stopped_at_once(robot, HUNG_UP, death)
    })
}

/// Fails if a temporary role is not listed, lasts beyond its end, or is given to who may not have it.
#[test]
fn temporary_roles_come_and_go() -> Result<()> {
    play_arm("temporary_role_lifetime = \"3s\"\n", |_, clients, ports| {
        let mut program = Program::open(clients, ports, Transport::Mqtt, Times::USUAL)?;
        let roles = |program: &mut Program| -> Result<Vec<String>> {
            let listed = program.method("GetConnections", json!({}))?;
            let roles = listed["connection"][0]["roles"].as_array().context("no roles")?;
            Ok(roles.iter().filter_map(|role| role["identifier"].as_str().map(str::to_owned)).collect())
        };
        let own = roles(&mut program)?;
        program.method("AddTemporaryUserRole", json!({ "role_identifier": "Operator", "password": "" }))?;
        let with = roles(&mut program)?;
        ensure!(
            with.len() == own.len() + 1 && with.contains(&"Operator".to_owned()),
            "{own:?} became {with:?}"
        );
        program.method("RemoveTemporaryUserRole", json!({}))?;
        ensure!(roles(&mut program)? == own, "the role is still there");
        has_codes(&program.refused("AddTemporaryUserRole", json!({ "role_identifier": "" }))?, "1/3")
    })
}

/// Fails if a role is given without its password, if one that was given with it does not count, or if it outlives Remove, its
/// time, or its session.
#[test]
fn temporary_roles_take_a_password_and_end() -> Result<()> {
    let folder = Folder::new()?;
    let keys = folder.file("keys.toml");
    for (name, role) in [("driver", "operate"), ("admin", "administer")] {
        add_user(&keys, name, role, &format!("password of {name}"))?;
    }
    let key = format!("\"{}\"", keys.display());
    let lifetime = Duration::from_secs(5);
    play_changed(
        "temporary_role_lifetime = \"5s\"\n",
        |setup| setup.front_key("keys", &key),
        |_, clients, ports| {
            let mut program = Program::connected(clients, ports, Transport::Mqtt)?;
            let wish = json!({ "user": "driver", "password": "password of driver" });
            program.ask("create_session", wish.clone())?;
            let role = |password: &str| json!({ "role_identifier": "Admin", "password": password });
            // Nobody but an administrator may say how control is arbitrated.
            let may = |program: &mut Program| -> Result<bool> {
                let wish = json!({ "single_source_control": true });
                let said = program.call("call", json!({ "method": "SetAccessControl", "values": wish }))?;
                match said.result {
                    Ok(_) => Ok(true),
                    Err(refusal) => has_codes(&refusal, "1/54").map(|()| false),
                }
            };
            ensure!(!may(&mut program)?, "a driver has changed how control is arbitrated");
            has_codes(&program.refused("AddTemporaryUserRole", role("wrong"))?, "3/15")?;
            ensure!(!may(&mut program)?, "a wrong password did");
            program.method("AddTemporaryUserRole", role("password of admin"))?;
            ensure!(may(&mut program)?, "the right password did not");
            program.method("RemoveTemporaryUserRole", json!({}))?;
            ensure!(!may(&mut program)?, "the role is still there");

            program.method("AddTemporaryUserRole", role("password of admin"))?;
            ensure!(may(&mut program)?, "it was not given again");
            program.ask("close_session", json!({}))?;
            program.ask("create_session", wish)?;
            ensure!(!may(&mut program)?, "it has passed to another session");

            program.method("AddTemporaryUserRole", role("password of admin"))?;
            // By now it is given, after a password that took its time to be looked at.
            let given = Instant::now();
            ensure!(may(&mut program)?, "it was not given to that one");
            std::thread::sleep((lifetime + Duration::from_millis(500)).saturating_sub(given.elapsed()));
            ensure!(!may(&mut program)?, "it has outlived its time");
            Ok(())
        },
    )
}

/// Fails if a client that breaks MQTT's rules, or asks for what is not to be had, stops another's arm, takes its connection
/// along, or is put up with.
#[test]
fn nonsense_over_mqtt_costs_its_sender_only() -> Result<()> {
    play_arm("", |robot, clients, ports| {
        let mut other = driver(robot, clients, ports, Transport::Mqtt, Times::connection(3_000))?;
        let from = Moment::now();
        let mut rude = Program::idle(clients)?;
        for kind in [
            "mqtt_3",
            "mqtt_no_connect",
            "mqtt_garbage",
            "mqtt_noise",
            "mqtt_too_long",
            "mqtt_qos_2",
            "mqtt_retained",
            "mqtt_will",
            "mqtt_others",
            "http",
        ] {
            let order = json!({ "kind": kind, "address": ports.address(Transport::Mqtt) });
            let outcome = rude.call_within(Duration::from_secs(60), "misbehave", order)?.value()?;
            println!("{kind}: {outcome}");
            let text = outcome.as_str().unwrap_or_default();
            ensure!(!text.contains("TimeoutError"), "{kind} was put up with: {text}");
        }
        let stop = robot.listener.first(from, |frame| LEFT.is_stop(frame) || LEFT.is_torque_off(frame))?;
        ensure!(stop.is_none(), "the arm of another program was stopped by {stop:?}");
        turns(robot, BRISK)?;
        let state = other.state()?;
        ensure!(state["open"] == true && state["garbled"] == 0, "it has noticed: {state}");
        other.drive(robot, [360.0, 180.0])
    })
}

/// Fails if a client can listen to what is for others: answers, PINGs and all topics at once.
#[test]
fn nobody_listens_to_others() -> Result<()> {
    play_arm("", |_, clients, ports| {
        let mut victim = Program::open(clients, ports, Transport::Mqtt, Times::USUAL)?;
        let mut curious = Program::open(clients, ports, Transport::Mqtt, Times::USUAL)?;
        for topic in ["#", "res/#", "res/+", "ping/+", "+/+", "$share/all/res/#", "res/somebody", "req/2/112"]
        {
            let code = curious.ask("subscribe", json!({ "topic": topic }))?;
            // Reasons of MQTT 5 from 128 on are refusals.
            ensure!(code.as_u64().is_some_and(|code| code >= 128), "{topic}: {code}");
        }
        let number = victim.state()?["session"].clone();
        let theft = json!({ "uid": 0x2_0070, "session": number });
        let answer: Value = curious.ask("call_bytes", theft)?;
        ensure!(answer["codes"] == "1/54", "another's session: {answer}");
        victim.method("GetArmState", json!({})).map(drop)
    })
}
