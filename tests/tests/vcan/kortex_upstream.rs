//! A base of Kinova's behind Lanyard, `clients/kortex_base.py`: it drives the left motor over CAN by itself, for programs
//! that reach it through Lanyard, and nothing but a Stop stops it. The right motor is Lanyard's own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::clock::Moment;
use tests::expect;
use tests::kortex::{Ports, Program, Times, Transport, has_codes};
use tests::python::{Client, Clients};
use tests::robot::{LATE, LEFT, RIGHT, Robot, START, STILL};

use crate::kortex::NOTICED;
use crate::scene::{play, undisturbed};

/// Long enough for keep-alives every 164 ms on a rig that stands still now and then.
const TIMES: Times = Times::connection(1_000);
/// Lanyard gives a base up to whose keep-alives it hears nothing for so long.
const SILENCE: Duration = Duration::from_secs(2);
/// A Stop that is not answered is sent five times, half a second and a tenth apart.
const STOP_TRIES: usize = 5;
const ALL_TRIES: Duration = Duration::from_secs(3);
/// What `clients/kortex_base.py` begins with.
const FIRST_SESSION: u64 = 500;
/// `DeviceManager.ReadAllDevices`, and what the base answers.
const DEVICES: u32 = 0x17_0001;
const TWO_DEVICES: &str = "0a0608011003180c0a0608021003180c";
/// `Base.ExecuteAction`, which this base does not know.
const ACTION: u32 = 0x2_0030;

/// A running base and where it is.
struct Base {
    process: Client,
    ports: Ports,
}

impl Base {
    fn start(clients: &mut Clients, ports: Ports) -> Result<Self> {
        let mut process = clients.fork_kortex_base()?;
        let (tcp, udp) = (ports.port(Transport::Tcp), ports.port(Transport::Udp));
        process.ask("serve", json!({ "bus": "vcan0", "nodes": [LEFT.node], "tcp": tcp, "udp": udp }))?;
        Ok(Self { process, ports })
    }

    /// What it was asked since a moment, but for keep-alives.
    fn notes(&mut self, since: Moment) -> Result<Vec<Value>> {
        let notes = self.process.ask("told", json!({}))?;
        let notes = notes.as_array().context("no notes")?;
        let is_new = |note: &&Value| note["at"].as_i64().is_some_and(|at| Moment(at) >= since);
        Ok(notes.iter().filter(is_new).cloned().collect())
    }

    /// The methods that it was asked for.
    fn told(&mut self, since: Moment) -> Result<Vec<String>> {
        let notes = self.notes(since)?;
        Ok(notes.iter().filter_map(|note| note["did"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until it was asked for a method. Returns when.
    fn wait_for(&mut self, method: &str, since: Moment) -> Result<Moment> {
        expect::within(STILL, &format!("the base is asked for {method}"), || {
            let notes = self.notes(since).map_err(|error| format!("{error:#}"))?;
            let found = notes.iter().find(|note| note["did"] == method).and_then(|note| note["at"].as_i64());
            found.map(Moment).ok_or_else(|| format!("{notes:?}"))
        })
    }

    /// Its sessions.
    fn sessions(&mut self) -> Result<Vec<u64>> {
        let state = self.process.ask("state", json!({}))?;
        Ok(state["sessions"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect())
    }

    /// Has it leave so many calls of a method unanswered ("deaf") or refuse them ("stuck").
    fn trouble(&mut self, method: &str, kind: &str, times: usize) -> Result<()> {
        self.process.ask("trouble", json!({ "method": method, "kind": kind, "times": times })).map(drop)
    }
}

/// Starts robot and base and runs `act` with both.
fn play_behind(act: impl FnOnce(&mut Robot, &mut Clients, &Ports, &mut Base) -> Result<()>) -> Result<()> {
    let [here, there] = Ports::several()?;
    play(here.in_front_of(&there), |robot, clients| {
        let mut base = Base::start(clients, there)?;
        act(robot, clients, &here, &mut base)
    })
}

/// Has a program command the base's joint, and waits until it turns.
fn turn(robot: &Robot, program: &mut Program) -> Result<()> {
    let from = Moment::now();
    program.ask("speeds", json!({ "speeds": [540.0] }))?;
    robot.moves(&LEFT, from, 1.0)
}

/// A program that has the base turn its joint.
fn driver(
    robot: &Robot,
    clients: &mut Clients,
    ports: &Ports,
    transport: Transport,
    times: Times,
) -> Result<Program> {
    let mut program = Program::open(clients, ports, transport, times)?;
    turn(robot, &mut program)?;
    Ok(program)
}

/// A client of another protocol drives the right motor, and must not notice anything of what `act` does.
fn while_another_drives(
    robot: &mut Robot,
    clients: &mut Clients,
    act: impl FnOnce(&mut Robot, &mut Clients) -> Result<()>,
) -> Result<()> {
    let mut other = undisturbed(robot, clients, act)?;
    robot.drive(&mut other, &RIGHT, 0.2)
}

/// Fails if a call that Lanyard does not serve does not reach the base as it is, if an answer, an error or what was subscribed
/// to does not come back as it is under the client's own numbers, or if Lanyard's own calls reach the base.
#[test]
fn calls_pass_and_come_back_under_numbers_of_their_own() -> Result<()> {
    for transport in [Transport::Tcp, Transport::Udp] {
        play_behind(|robot, clients, ports, base| {
            // So that the numbers differ.
            let mut other = Program::open(clients, ports, transport, Times::USUAL)?;
            let mut program = Program::open(clients, ports, transport, Times::USUAL)?;
            let own = program.state()?["session"].clone();
            ensure!(base.sessions()? == [FIRST_SESSION, FIRST_SESSION + 1], "not a session for each");
            // Drawn at random, so that they could be the same once in 65000 times.
            ensure!(own.as_u64() != Some(FIRST_SESSION + 1), "the base's own number");
            program.ask("preset", json!({ "message": 0x7000 }))?;
            let from = Moment::now();
            let answer = program.ask("call_bytes", json!({ "uid": DEVICES, "payload": "08071004" }))?;
            ensure!(answer["codes"] == "0/0" && answer["payload"] == TWO_DEVICES, "answered with {answer}");
            ensure!(answer["session"] == own && answer["uid"] == DEVICES, "not its own numbers: {answer}");
            let message = answer["message"].as_u64();
            // A keep-alive or two may have come between.
            ensure!(message.is_some_and(|message| (0x7001..0x7010).contains(&message)), "{answer}");
            let asked = base.notes(from)?;
            let [asked] = &asked[..] else { anyhow::bail!("the base was asked {asked:?}") };
            ensure!(asked["did"] == "ReadAllDevices" && asked["payload"] == "08071004", "asked {asked}");
            ensure!(
                asked["session"] == FIRST_SESSION + 1 && asked["message"] != answer["message"],
                "{asked}"
            );
            let refused = program.ask("call_bytes", json!({ "uid": ACTION }))?;
            ensure!(
                refused["codes"] == "1/5" && refused["text"] == "the base does not serve ExecuteAction",
                "refused with {refused}"
            );
            let handle = program.method("ArmStateTopic", json!({}))?["identifier"].clone();
            base.process.ask("announce", json!({ "values": { "active_state": 9 } }))?;
            let notes = expect::within(STILL, "the base's news come", || {
                let notes = program.ask("notifications", json!({})).map_err(|error| format!("{error:#}"))?;
                if notes[0].is_null() { Err(notes.to_string()) } else { Ok(notes) }
            })?;
            ensure!(
                notes[0]["handle"] == handle && notes[0]["session"] == own && notes[0]["active_state"] == 9,
                "told {notes} under {handle}"
            );
            ensure!(other.ask("notifications", json!({}))? == json!([]), "told without having asked");
            let from = Moment::now();
            let listed = program.method("GetConnections", json!({}))?;
            ensure!(listed["connection"].as_array().is_some_and(|all| all.len() == 2), "listed: {listed}");
            turn(robot, &mut program)?;
            program.method("Stop", json!({}))?;
            robot.sim.wait_for_standstill(LEFT.node, STILL)?;
            let told = base.told(from)?;
            ensure!(told == ["SendJointSpeedsCommand", "Stop"], "the base was asked {told:?}");
            program.ask("close_session", json!({}))?;
            base.wait_for("CloseSession", from)?;
            ensure!(base.sessions()? == [FIRST_SESSION], "the session there lives on");
            Ok(())
        })?;
    }
    Ok(())
}

/// Fails if the base is not told to stop what a killed program has left turning, if the stop on CAN is any later than without
/// a base, or if another session notices.
#[test]
fn killed_program_is_stopped_on_can_and_at_the_base() -> Result<()> {
    play_behind(|robot, clients, ports, base| {
        while_another_drives(robot, clients, |robot, clients| {
            let mut program = driver(robot, clients, ports, Transport::Tcp, Times::USUAL)?;
            let death = program.kill()?;
            let stop = robot.listener.wait_for_stop(&LEFT, death, STILL)?;
            robot.is_prompt(death, NOTICED, &stop)?;
            robot.lanyard.wait_for_trip(death, "client connection ended", "left", STILL)?;
            base.wait_for("Stop", death)?;
            base.wait_for("CloseSession", death)?;
            ensure!(base.told(death)? == ["Stop", "CloseSession"], "asked {:?}", base.told(death)?);
            robot.verified(&LEFT)?;
            driver(robot, clients, ports, Transport::Tcp, Times::USUAL).map(drop)
        })
    })
}

/// Fails if the motors of a suspended program are not stopped at its deadline, if the base hears of it first or not at all, or
/// if the session, here or there, does not live on.
#[test]
fn suspended_program_is_stopped_on_can_and_at_the_base() -> Result<()> {
    for transport in [Transport::Tcp, Transport::Udp] {
        play_behind(|robot, clients, ports, base| {
            let mut program = driver(robot, clients, ports, transport, TIMES)?;
            let asleep = Moment::now();
            program.signal(Signal::SIGSTOP)?;
            let (_, stop) = robot.stopped_at_deadline(&LEFT, asleep, TIMES.window())?;
            let told = base.wait_for("Stop", asleep)?;
            ensure!(
                stop.at <= told,
                "the base's Stop came {} ms before the one on CAN",
                stop.at.millis_since(told)
            );
            robot.verified(&LEFT)?;
            program.signal(Signal::SIGCONT)?;
            let refusal = program.call("speeds", json!({ "speeds": [540.0] }))?.refusal()?;
            has_codes(&refusal, "3/54")?;
            program.acknowledge("Stop")?;
            turn(robot, &mut program)?;
            ensure!(base.sessions()? == [FIRST_SESSION], "another session there: {:?}", base.sessions()?);
            Ok(())
        })?;
    }
    Ok(())
}

/// Fails if a Stop that the base does not answer, or refuses, is not sent again, if it is sent when one has been answered, or if
/// the stop on CAN waits for any of it.
#[test]
fn stop_is_repeated_until_the_base_answers() -> Result<()> {
    play_behind(|robot, clients, ports, base| {
        for kind in ["deaf", "stuck"] {
            let program = driver(robot, clients, ports, Transport::Tcp, TIMES)?;
            base.trouble("Stop", kind, 2)?;
            let asleep = Moment::now();
            program.signal(Signal::SIGSTOP)?;
            robot.stopped_at_deadline(&LEFT, asleep, TIMES.window())?;
            expect::within(STILL, "the base is told three times", || {
                let told = base.told(asleep).map_err(|error| format!("{error:#}"))?;
                if told.len() >= 3 { Ok(()) } else { Err(format!("{told:?}")) }
            })?;
            std::thread::sleep(ALL_TRIES);
            ensure!(base.told(asleep)? == ["Stop"; 3], "{kind}: it was told {:?}", base.told(asleep)?);
            robot.verified(&LEFT)?;
        }
        Ok(())
    })
}

/// Fails if a base that answers no Stop at all, and goes on turning its joint, keeps it turning: on CAN it is stopped all the
/// same. Or if the base is told for ever.
#[test]
fn base_that_ignores_stops_is_stopped_on_can() -> Result<()> {
    play_behind(|robot, clients, ports, base| {
        while_another_drives(robot, clients, |robot, clients| {
            let program = driver(robot, clients, ports, Transport::Tcp, TIMES)?;
            base.trouble("Stop", "deaf", 100)?;
            let asleep = Moment::now();
            program.signal(Signal::SIGSTOP)?;
            robot.stopped_at_deadline(&LEFT, asleep, TIMES.window())?;
            robot.verified(&LEFT)?;
            // Long enough for all tries, and for more if there were more.
            std::thread::sleep(2 * ALL_TRIES);
            ensure!(base.told(asleep)? == ["Stop"; STOP_TRIES], "it was told {:?}", base.told(asleep)?);
            let now = Moment::now();
            let driving =
                robot.listener.wait(now, STILL, "the base still drives", |seen| LEFT.drives(seen))?;
            robot.sim.wait_for_standstill(LEFT.node, STILL).with_context(|| format!("driven by {driving}"))
        })
    })
}

/// Fails if a base that hangs leaves its clients without a clear answer until they give up by themselves, keeps the motors from
/// being stopped at the deadline, or is not told to stop when it goes on.
#[test]
fn hung_base_keeps_nobody_waiting() -> Result<()> {
    play_behind(|robot, clients, ports, base| {
        while_another_drives(robot, clients, |robot, clients| {
            let mut program = driver(robot, clients, ports, Transport::Tcp, TIMES)?;
            let hung = Moment::now();
            base.process.signal(Signal::SIGSTOP)?;
            for limit in [SILENCE + Duration::from_millis(800), Duration::from_millis(500)] {
                let refused = program.call("call", json!({ "method": "GetArmState" }))?;
                // The second finds it known already. C++ clients give up after 3 s.
                ensure!(refused.seconds < limit.as_secs_f64(), "a refusal took {} s", refused.seconds);
                let refusal = refused.refusal()?;
                has_codes(&refusal, "3/131")?;
                ensure!(refusal.message.contains("the base behind says nothing"), "{}", refusal.message);
            }
            // Whoever asks lives: nothing is stopped on its account.
            let asleep = Moment::now();
            program.signal(Signal::SIGSTOP)?;
            robot.stopped_at_deadline(&LEFT, asleep, TIMES.window())?;
            robot.verified(&LEFT)?;
            base.process.signal(Signal::SIGCONT)?;
            base.wait_for("Stop", hung)?;
            program.signal(Signal::SIGCONT)?;
            expect::within(START, "the base drives again", || {
                let driven = program.acknowledge("Stop").and_then(|()| turn(robot, &mut program));
                driven.map_err(|error| format!("{error:#}"))
            })
        })
    })
}

/// Fails if the death of the base does not stop what its sessions drive, if another session notices, if a call to it gets no clear
/// error, or if a new base cannot be used.
#[test]
fn killed_base_stops_what_it_drove() -> Result<()> {
    for transport in [Transport::Tcp, Transport::Udp] {
        play_behind(|robot, clients, ports, base| {
            while_another_drives(robot, clients, |robot, clients| {
                let mut program = driver(robot, clients, ports, transport, Times::USUAL)?;
                let death = base.process.kill()?;
                let stop = robot.listener.wait_for_stop(&LEFT, death, STILL)?;
                // A closed connection shows at once, a closed port with the next keep-alive, which comes within 150 ms.
                let took = robot.is_prompt(death, NOTICED + Duration::from_millis(150), &stop)?;
                println!("base killed, {transport:?}: stop frame after {took:.1} ms");
                robot.verified(&LEFT)?;
                robot.no_motion_after(&LEFT, &stop)?;
                let refusal = program.call("speeds", json!({ "speeds": [540.0] }))?.refusal()?;
                has_codes(&refusal, "3/108")?;
                ensure!(
                    refusal.message.contains("close this session and open another"),
                    "{}",
                    refusal.message
                );
                *base = Base::start(clients, base.ports)?;
                program.ask("close_session", json!({}))?;
                program.create_session(Times::USUAL)?;
                turn(robot, &mut program)
            })
        })?;
    }
    Ok(())
}

/// Fails if a session that was silent for too long is let through to the base because it lives on there.
#[test]
fn session_that_is_over_here_is_refused_though_the_base_has_it() -> Result<()> {
    play_behind(|robot, clients, ports, base| {
        let times = Times { connection: 500, session: 1_500 };
        let mut program = driver(robot, clients, ports, Transport::Tcp, times)?;
        base.trouble("CloseSession", "deaf", 100)?;
        let asleep = Moment::now();
        program.signal(Signal::SIGSTOP)?;
        robot.stopped_at_deadline(&LEFT, asleep, times.window())?;
        base.wait_for("CloseSession", asleep)?;
        program.signal(Signal::SIGCONT)?;
        let over = Moment::now();
        has_codes(&program.refused("GetArmState", json!({}))?, "1/54")?;
        has_codes(&program.call("speeds", json!({ "speeds": [540.0] }))?.refusal()?, "1/54")?;
        // Nor is the base's own number worth anything here.
        let theirs = json!({ "uid": DEVICES, "session": FIRST_SESSION });
        ensure!(program.ask("call_bytes", theirs)?["codes"] == "1/54", "the base's number was taken");
        ensure!(base.sessions()? == [FIRST_SESSION], "this was no test: {:?}", base.sessions()?);
        let told = base.told(over)?;
        ensure!(told.is_empty(), "the base was asked {told:?}");
        robot.verified(&LEFT)?;
        Ok(())
    })
}

/// Fails if a front that is told to end leaves the base driving.
#[test]
fn front_that_is_told_to_end_stops_the_base_too() -> Result<()> {
    play_behind(|robot, clients, ports, base| {
        let _program = driver(robot, clients, ports, Transport::Tcp, Times::USUAL)?;
        base.trouble("Stop", "deaf", 1)?;
        let told = robot.signal_front(Signal::SIGTERM)?;
        let stop = robot.listener.wait_for_stop(&LEFT, told, STILL)?;
        robot.is_prompt(told, Duration::from_millis(500) + LATE, &stop)?;
        base.wait_for("CloseSession", told)?;
        ensure!(base.told(told)? == ["Stop", "Stop", "CloseSession"], "asked {:?}", base.told(told)?);
        robot.verified(&LEFT)?;
        Ok(())
    })
}
