//! Starting wrongly: the programs say what is wrong and what to do, and do not run half-configured.

use anyhow::{Result, ensure};
use tests::interface::Changed;
use tests::process::{Ended, Process, programs};
use tests::robot::{LEFT, Robot, START, Setup};

use crate::scene::play;

/// Runs a supervisor that must refuse, and checks that it says all of `words` and never arms.
fn refuses(robot: &Robot, words: &[&str]) -> Result<Ended> {
    refuses_with(robot, 1, words)
}

/// The same, and it must end with that exit code: systemd starts it again after some and not after others.
fn refuses_with(robot: &Robot, code: i32, words: &[&str]) -> Result<Ended> {
    let mut supervisor = robot.spawn("lanyard-supervisor")?;
    let ended = supervisor.wait(START)?;
    ensure!(ended.code == Some(code), "it ended with {ended:?}");
    let said = ended.printed.join("\n");
    println!("{said}");
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    ensure!(!said.contains("armed"), "it armed: {said}");
    Ok(ended)
}

/// Puts another text into the configuration in the place of one that is there.
fn change(robot: &Robot, from: &str, to: &str) -> Result<()> {
    let text = std::fs::read_to_string(&robot.config)?;
    ensure!(text.contains(from), "{from:?} is not in the configuration");
    Ok(std::fs::write(&robot.config, text.replacen(from, to, 1))?)
}

/// Fails if a supervisor arms without the interface of one of its buses, or does not name it.
#[test]
fn missing_interface_is_named() -> Result<()> {
    play(Setup::base().drives_only(), |robot, _| {
        change(robot, "name = \"vcan0\"", "name = \"vcan0\"\ninterface = \"vcan77\"")?;
        refuses(robot, &["vcan77"]).map(drop)
    })
}

/// Fails if a supervisor arms over an interface that is down, or does not say how to bring it up.
#[test]
fn interface_that_is_down_is_named() -> Result<()> {
    play(Setup::base().drives_only(), |robot, _| {
        change(robot, "name = \"vcan0\"", "name = \"vcan0\"\ninterface = \"vcan1\"")?;
        let down = Changed::down("vcan1")?;
        let refused = refuses(robot, &["vcan1", "ip link set"]);
        down.restore()?;
        refused.map(drop)
    })
}

/// Fails if a supervisor that is to wait for its interface ends, does not say what it waits for, or does not arm when
/// it comes up.
#[test]
fn interface_that_comes_late_is_waited_for() -> Result<()> {
    play(Setup::base().drives_only(), |robot, _| {
        change(robot, "name = \"vcan0\"", "name = \"vcan0\"\ninterface = \"vcan1\"")?;
        let down = Changed::down("vcan1")?;
        let config = robot.config.display().to_string();
        let arguments = ["--config", config.as_str(), "--wait-for-can"];
        let mut supervisor = Process::start(&programs()?, "lanyard-supervisor", arguments)?;
        supervisor.wait_for_line("waiting: bus \"vcan0\": interface \"vcan1\" is down", START)?;
        ensure!(supervisor.runs(), "it has ended");
        down.restore()?;
        supervisor.wait_for_line("armed", START).map(drop)
    })
}

/// Fails if a bus that is to carry CAN FD is opened on an interface that cannot.
#[test]
fn fd_bus_on_a_classic_interface_is_refused() -> Result<()> {
    play(Setup::base().drives_only(), |robot, _| {
        change(robot, "name = \"vcan0\"", "name = \"vcan0\"\ninterface = \"vcan1\"\nfd = true")?;
        let classic = Changed::classic("vcan1")?;
        let refused = refuses(robot, &["vcan1", "FD"]);
        classic.restore()?;
        refused.map(drop)
    })
}

/// Fails if a second supervisor takes the place of the first, or disturbs it.
#[test]
fn second_supervisor_is_refused() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let from = tests::clock::Moment::now();
        refuses(robot, &["another supervisor is running"])?;
        let stop = robot.listener.first(from, |frame| LEFT.is_stop(frame))?;
        ensure!(stop.is_none(), "the running motor was stopped: {stop:?}");
        robot.lanyard.is_well()
    })
}

/// Fails if mistakes in the configuration are not all told at once, each with file, line and key, by the
/// supervisor, the front and `lanyard check` alike.
#[test]
fn mistakes_are_told_with_file_and_line() -> Result<()> {
    play(Setup::base().drives_only(), |robot, _| {
        change(robot, "node = 3", "node = 99")?;
        change(robot, "heartbeat_window", "hartbeat_window")?;
        let text = std::fs::read_to_string(&robot.config)?;
        let line_of = |key: &str| text.lines().position(|line| line.starts_with(key)).map_or(0, |at| at + 1);
        let file = robot.config.display();
        let node = format!("{file}:{}", line_of("node = 99"));
        let typo = format!("{file}:{}", line_of("hartbeat"));
        // 78: both units stay failed until the file is mended.
        refuses_with(robot, 78, &[&node, "\"node\"", &typo, "hartbeat_window"])?;
        let mut front = robot.spawn("lanyard-front")?;
        let ended = front.wait(START)?;
        ensure!(ended.code == Some(78) && ended.printed.join("\n").contains(&node), "the front: {ended:?}");
        let checked = robot.lanyard.run(&["check", &file.to_string()])?;
        ensure!(checked.code == Some(1) && checked.stderr.contains(&typo), "lanyard check: {checked:?}");
        Ok(())
    })
}

/// Fails if a socket left behind by a supervisor that was killed keeps the next one from starting.
#[test]
fn socket_left_behind_is_replaced() -> Result<()> {
    play(Setup::base().without_front(), |robot, _| {
        robot.supervisor()?.kill()?;
        ensure!(robot.lanyard.socket.exists(), "the killed supervisor cleaned up, which it cannot");
        robot.start_supervisor()?;
        ensure!(robot.lanyard.run(&["status"])?.code.is_some_and(|code| code != 1), "nobody answers");
        Ok(())
    })
}
