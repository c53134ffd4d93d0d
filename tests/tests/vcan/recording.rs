//! Recordings of a supervisor at work, and the same supervisor played again from them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::clock::Moment;
use tests::process::Process;
use tests::robot::{LEFT, RIGHT, Robot, START, STILL, Setup};

use crate::scene::play;

fn spawn_recorded(robot: &Robot, file: &Path) -> Result<Process> {
    let arguments: [&OsStr; 4] =
        ["--config".as_ref(), robot.config.as_os_str(), "--record".as_ref(), file.as_os_str()];
    Process::start(&robot.programs, "lanyard-supervisor", arguments)
}

fn start_recorded(robot: &mut Robot, file: &Path) -> Result<()> {
    let process = spawn_recorded(robot, file)?;
    robot.take_supervisor(process)?;
    robot.start_front()
}

/// What `--replay` says of a file, and its exit code.
fn replay(robot: &Robot, file: &Path) -> Result<(Option<i32>, String)> {
    let mut program = Command::new(robot.programs.join("lanyard-supervisor"));
    let output = program.arg("--replay").arg(file).output().context("the replay does not start")?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Fails if a supervisor that has stopped a disobedient drive, was reset, pressed and told to exit, cannot be played again
/// from its recording; if one that was killed cannot; if a changed byte of it passes; or if it has used the heap meanwhile.
#[test]
fn a_recorded_supervisor_is_played_again_with_the_same_frames() -> Result<()> {
    play(Setup::base().manual().window("1s").drives_only(), |robot, clients| {
        let file = robot.file("recording");
        start_recorded(robot, &file)?;
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        robot.sim.order(&format!("{} ignore controlled on", LEFT.node))?;
        robot.sim.order(&format!("{} ignore-velocity-zero on", LEFT.node))?;
        let death = Moment::now();
        client.kill()?;
        robot.lanyard.wait_for_event(death, START, "escalated", |event| event.kind() == "escalated")?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        let stopped = robot
            .lanyard
            .wait_for_motor(LEFT.name, STILL, "is stopped", |motor| motor.state() == "stopped")?;
        let trip = stopped.trip().context("the trip")?;
        robot.sim.order(&format!("{} ignore controlled off", LEFT.node))?;
        robot.sim.order(&format!("{} ignore-velocity-zero off", LEFT.node))?;
        let reset = robot.lanyard.reset(trip)?;
        ensure!(reset.code == Some(0), "the reset was refused: {}", reset.stderr);
        let mut second = robot.client(clients)?;
        // The drive of the other has latched its last stage as a fault.
        robot.drive(&mut second, &RIGHT, 0.4)?;
        robot.lanyard.estop()?;
        robot.verified(&RIGHT)?;
        let counters = robot.lanyard.status()?["counters"].clone();
        ensure!(counters["allocations"] == 0, "the recording costs allocations: {counters}");
        robot.supervisor()?.signal(Signal::SIGTERM)?;
        robot.supervisor()?.wait(START)?;
        let bytes = std::fs::read(&file)?;
        let (code, said) = replay(robot, &file)?;
        println!("{} bytes: {}", bytes.len(), said.trim());
        ensure!(code == Some(0) && said.trim().ends_with("identical"), "{said}");

        let changed = robot.file("changed");
        let mut other = bytes.clone();
        other[bytes.len() / 2] ^= 1;
        std::fs::write(&changed, other)?;
        let (code, said) = replay(robot, &changed)?;
        println!("changed: {}", said.trim());
        ensure!(code == Some(1) && said.contains("damaged here"), "{said}");

        spawn_recorded(robot, &file)?.wait(START)?;
        ensure!(std::fs::read(&file)? == bytes, "a recording that was there was written over");

        // One that dies in the middle of its work, after one whose trips it takes over.
        let killed = robot.file("killed");
        start_recorded(robot, &killed)?;
        robot.verified(&RIGHT)?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        robot.supervisor()?.signal(Signal::SIGKILL)?;
        robot.supervisor()?.wait(START)?;
        let (code, said) = replay(robot, &killed)?;
        println!("killed: {}", said.trim());
        ensure!(code == Some(0) && said.contains("ends in the middle"), "{said}");
        Ok(())
    })
}
