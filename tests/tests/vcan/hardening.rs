//! A supervisor that is armed has nothing left to lose: no root, no capability, no way back to either, and
//! whatever kills it, it stops the motors first.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::User;
use tests::clock::Moment;
use tests::expect;
use tests::robot::{ARM, LEFT, RIGHT, Robot, START, STILL, Setup};

use crate::scene::play;

/// One thread, as the kernel describes it in /proc.
struct Thread {
    name: String,
    status: String,
    stat: String,
}

impl Thread {
    fn all(pid: u32) -> Result<Vec<Self>> {
        let folder = format!("/proc/{pid}/task");
        let read = |entry: &Path, file: &str| {
            std::fs::read_to_string(entry.join(file)).with_context(|| format!("{}", entry.display()))
        };
        std::fs::read_dir(&folder)
            .context(folder)?
            .map(|entry| {
                let path = entry?.path();
                Ok(Self {
                    name: read(&path, "comm")?.trim().to_owned(),
                    status: read(&path, "status")?,
                    stat: read(&path, "stat")?,
                })
            })
            .collect()
    }

    /// A line of `status`.
    fn says(&self, key: &str) -> Result<Vec<&str>> {
        let line = self.status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        Ok(line
            .with_context(|| format!("no {key} in the status of {}", self.name))?
            .split_whitespace()
            .collect())
    }

    /// A field of `stat`, numbered as in proc(5), from the fourth on: the name before it may hold anything.
    fn field(&self, number: usize) -> Result<&str> {
        let (_, behind) = self.stat.rsplit_once(')').context("no name in stat")?;
        behind.split_whitespace().nth(number - 3).context("too few fields in stat")
    }
}

fn degraded(robot: &Robot) -> Result<Vec<String>> {
    let status = robot.lanyard.status()?;
    let list = status["degraded"].as_array().context("no list")?;
    Ok(list.iter().filter_map(|flag| flag.as_str().map(str::to_owned)).collect())
}

fn has_no_capabilities(thread: &Thread) -> Result<()> {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let held = thread.says(set)?;
        ensure!(held == ["0000000000000000"], "{} keeps {set} {held:?}", thread.name);
    }
    ensure!(thread.says("NoNewPrivs")? == ["1"], "{} could gain privileges", thread.name);
    ensure!(thread.says("Seccomp")? == ["2"], "{} may make any system call", thread.name);
    Ok(())
}

/// Fails if an armed supervisor keeps root, a group, a capability or a way back to one in any of its threads, if
/// its system calls are not filtered, or if its threads are not scheduled as they should be.
#[test]
fn armed_supervisor_has_given_up_all_privileges() -> Result<()> {
    play(Setup::base(), |robot, _| {
        let user = User::from_name("nobody")?.context("no user nobody")?;
        let threads = Thread::all(robot.supervisor()?.pid())?;
        // The real-time thread, housekeeping, the three doors, and the one that waits for the disk.
        ensure!(threads.len() == 6, "{} threads", threads.len());
        for thread in &threads {
            let all_four = |id: u32| vec![id.to_string(); 4];
            ensure!(
                thread.says("Uid")? == all_four(user.uid.as_raw()),
                "{}: {:?}",
                thread.name,
                thread.says("Uid")
            );
            ensure!(
                thread.says("Gid")? == all_four(user.gid.as_raw()),
                "{}: {:?}",
                thread.name,
                thread.says("Gid")
            );
            ensure!(
                thread.says("Groups")?.is_empty(),
                "{} is in groups {:?}",
                thread.name,
                thread.says("Groups")
            );
            has_no_capabilities(thread)?;
            // Priority and policy: 40 and 41 in proc(5); SCHED_FIFO is 1, SCHED_OTHER 0.
            let scheduled = (thread.field(40)?, thread.field(41)?);
            let expected = if thread.name == "lanyard-rt" { ("80", "1") } else { ("0", "0") };
            ensure!(scheduled == expected, "{} is scheduled {scheduled:?}", thread.name);
        }
        ensure!(threads.iter().any(|thread| thread.name == "lanyard-rt"), "no real-time thread");
        ensure!(degraded(robot)?.is_empty(), "degraded: {:?}", degraded(robot)?);
        Ok(())
    })
}

/// Fails if a supervisor whose user does not exist hides it, keeps capabilities, or does not watch.
#[test]
fn missing_user_is_named_and_capabilities_go_all_the_same() -> Result<()> {
    play(Setup::base().supervisor_key("user", "\"no-such-user\""), |robot, clients| {
        let said = robot.supervisor()?.printed().join("\n");
        for word in ["WARNING", "\"no-such-user\"", "adduser", "[supervisor] user"] {
            ensure!(said.contains(word), "{word:?} is not in: {said}");
        }
        ensure!(degraded(robot)? == ["privileges kept"], "degraded: {:?}", degraded(robot)?);
        for thread in Thread::all(robot.supervisor()?.pid())? {
            has_no_capabilities(&thread)?;
        }
        // Every name service was asked in vain; none of them is left behind in locked memory.
        let mapped = std::fs::read_to_string(format!("/proc/{}/maps", robot.supervisor()?.pid()))?;
        ensure!(mapped.contains("libc.so"), "what are these mappings? {mapped}");
        ensure!(!mapped.contains("libnss_"), "a name service is loaded: {mapped}");
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)
    })
}

/// A signal that ends the supervisor while it drives: the stops must be its own. The front, which would stop
/// what it drives when the supervisor is gone, is kept from helping; the kernel's turn comes after 1 s only.
fn dies_stopping(deadly: Signal) -> Result<()> {
    let setup = Setup::base().with(&ARM).supervisor_key("front_window", "\"5s\"");
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        robot.drive(&mut client, &ARM, 0.4)?;
        robot.signal_front(Signal::SIGSTOP)?;
        let front = robot.front()?.pid();
        expect::within(START, "every thread of the front stands still", || {
            let threads = Thread::all(front).map_err(|error| format!("{error:#}"))?;
            let running = threads.iter().find(|thread| thread.field(3).ok() != Some("T"));
            running.map_or(Ok(()), |thread| Err(thread.stat.clone()))
        })?;
        let told = Moment::now();
        robot.supervisor()?.signal(deadly)?;
        let ended = robot.supervisor()?.wait(START)?;
        ensure!(ended.signal == Some(deadly as i32), "{deadly}: it ended with {ended:?}");
        let line = format!("ends by signal {}; stop frames were sent", deadly as i32);
        ensure!(ended.printed.iter().any(|printed| printed.contains(&line)), "{deadly}: {ended:?}");
        for motor in [&LEFT, &RIGHT, &ARM] {
            robot.sim.wait_for_standstill(motor.node, STILL)?;
            let set = robot.listener.wait_for_stop_set(motor, told, START)?;
            let first = set.first().context("no stop frame")?;
            let after = robot.is_prompt(told, Duration::from_millis(50), first)?;
            println!("{deadly}: {} stopped after {after:.1} ms", motor.name);
        }
        Ok(())
    })
}

/// Fails if a bad memory access takes the stops with it.
#[test]
fn bad_access_stops_everything_first() -> Result<()> {
    dies_stopping(Signal::SIGSEGV)
}

/// Fails if the runaway fuse takes the stops with it.
#[test]
fn fuse_stops_everything_first() -> Result<()> {
    dies_stopping(Signal::SIGXCPU)
}

/// Fails if a forbidden system call takes the stops with it.
#[test]
fn forbidden_system_call_stops_everything_first() -> Result<()> {
    dies_stopping(Signal::SIGSYS)
}

/// Fails if a termination nobody planned for takes the stops with it.
#[test]
fn unplanned_signal_stops_everything_first() -> Result<()> {
    dies_stopping(Signal::SIGQUIT)
}

/// Fails if a supervisor that has given up everything cannot let front after front in: each needs new shared
/// memory, a new descriptor of its process, and its motors.
#[test]
fn hardened_supervisor_lets_front_after_front_in() -> Result<()> {
    play(Setup::base(), |robot, clients| {
        for round in 1..=3 {
            let mut client = robot.client(clients)?;
            robot.drive(&mut client, &LEFT, 0.4)?;
            let death = Moment::now();
            robot.front()?.kill()?;
            robot.lanyard.wait_for_trip(death, "front dead", "left", START)?;
            robot.verified(&LEFT)?;
            robot.start_front()?;
            let generation = robot.lanyard.status()?["front"]["generation"].as_u64();
            ensure!(generation == Some(round + 1), "round {round}: generation {generation:?}");
        }
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, -0.4)
    })
}
