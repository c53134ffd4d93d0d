//! The supervisor's doors: what comes through one must be in nobody's way at another.

use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use shm_proto::handover::{Message, observe, receive, send};
use shm_proto::layout::layout_hash;
use shm_proto::{TripId, TripSeen};
use tests::clock::Moment;
use tests::expect::within;
use tests::fd_store::FdStore;
use tests::intruder::Intruder;
use tests::robot::{LEFT, RIGHT, Robot, START, Setup};

use crate::impostor::config_hash;
use crate::kernel_stop::start_as_service;
use crate::scene::play;

/// Connections that a door holds.
pub const PLACES: usize = 32;
/// Connections that wait at its socket.
pub const QUEUE: usize = 16;
/// How long closing the socket in [`block_door`] waits, seconds.
const LINGER: i32 = 20;
/// A user and groups that the rig's machine does not know.
const STRANGER: u32 = 4242;
const FRONTS: u32 = 7777;
const OPERATORS: u32 = 8888;

fn come(path: &Path) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// Comes that often, and says nothing. The last may find the queue full.
pub fn take_places(door: &Path, count: usize) -> Vec<OwnedFd> {
    let next = || {
        std::thread::sleep(Duration::from_millis(20));
        come(door).ok()
    };
    std::iter::from_fn(next).take(count).collect()
}

/// Sends a door a socket whose `close` waits: it has a long time to send what its other end does not take. Returns that
/// other end.
pub fn block_door(robot: &mut Robot, door: &Path) -> Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut slow = TcpStream::connect(listener.local_addr()?)?;
    let (deaf, _) = listener.accept()?;
    slow.set_nonblocking(true)?;
    loop {
        match slow.write(&[0; 65_536]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    // A socket that does not block does not linger either.
    slow.set_nonblocking(false)?;
    let linger = libc::linger { l_onoff: 1, l_linger: LINGER };
    setsockopt(&slow, sockopt::Linger, &linger)?;
    // The last one to close it is the one who waits, so it must be the supervisor, which therefore does not run until the own
    // copy is closed. That takes less than it may be late.
    robot.supervisor()?.signal(Signal::SIGSTOP)?;
    let sent = come(door).and_then(|way| {
        send(way.as_fd(), &Message::Mapped, &[slow.as_fd()])?;
        Ok(way)
    });
    drop(slow);
    robot.supervisor()?.signal(Signal::SIGCONT)?;
    // The connection must not end before its packet is taken.
    let _way = sent?;
    std::thread::sleep(Duration::from_millis(200));
    Ok(deaf)
}

/// Says something at a door and returns the answer.
fn say(door: &Path, message: &Message) -> Result<Message> {
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(connection.as_raw_fd(), &UnixAddr::new(door)?)?;
    send(connection.as_fd(), message, &[])?;
    let (answer, _) = receive(connection.as_fd())?.context("the supervisor hung up")?;
    Ok(answer)
}

/// Fails if a front can clear a trip, or be one at another door than its own.
#[test]
fn each_door_takes_what_it_is_for() -> Result<()> {
    play(Setup::base().without_front(), |robot, _| {
        let trip = robot.lanyard.estop()?;
        let layout = layout_hash();
        let (front, looker, operator) =
            (robot.lanyard.front_socket(), robot.lanyard.socket.clone(), robot.lanyard.operator_socket());
        let reset = Message::Reset { seen: TripSeen::from(TripId(trip)) };
        let attach = Message::Attach { layout, config: config_hash(robot)? };
        for (door, message, told) in [
            (&front, &reset, "trips are reset at"),
            (&looker, &reset, "trips are reset at"),
            (&looker, &attach, "the front attaches at"),
            (&operator, &attach, "the front attaches at"),
            (&front, &Message::Observe { layout }, "the verdicts are shown at"),
        ] {
            let Message::Refused(why) = say(door, message)? else {
                bail!("{message:?} was taken at {}", door.display());
            };
            ensure!(why.contains(told), "it says: {why}");
        }
        ensure!(robot.lanyard.status()?["latch"] == trip, "the stop was cleared");
        // A stop is taken everywhere.
        for door in [&front, &looker, &operator] {
            let Message::Done { trip: latest } = say(door, &Message::Estop)? else { bail!("no stop") };
            ensure!(latest.0 > trip, "trip {latest} is no new one");
        }
        let latch = robot.lanyard.status()?["latch"].as_u64().context("no latch")?;
        ensure!(robot.lanyard.reset(latch)?.code == Some(0), "trip {latch} cannot be reset");
        robot.start_front()
    })
}

/// Fails if silent connections at any door, or a packet that keeps a door waiting, are in an operator's way, or in systemd's.
#[test]
fn blocked_doors_delay_no_operator_and_no_watchdog() -> Result<()> {
    play(Setup::base().drives_only(), |robot, clients| {
        let store = FdStore::open(&robot.file("notify.sock"))?;
        start_as_service(robot, &store)?;
        robot.start_front()?;
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        let (front, looker, operator) =
            (robot.lanyard.front_socket(), robot.lanyard.socket.clone(), robot.lanyard.operator_socket());
        let before = Moment::now();
        let trip = robot.lanyard.estop()?;
        robot.verified(&LEFT)?;
        robot.verified(&RIGHT)?;
        let deaf = [block_door(robot, &front)?, block_door(robot, &looker)?];
        std::thread::sleep(Duration::from_millis(500));
        let looks = std::thread::spawn(move || observe(&looker).map(drop));
        let silent = [take_places(&front, PLACES + QUEUE), take_places(&operator, PLACES + QUEUE)];
        ensure!(!looks.is_finished(), "the door answers: this shows nothing");
        let words = || store.said().iter().filter(|word| word.contains("WATCHDOG=1")).count();
        let before_reset = words();
        let reset = robot.lanyard.reset(trip)?;
        ensure!(reset.code == Some(0), "{reset:?}");
        let took = Moment::now().millis_since(before);
        ensure!(!looks.is_finished(), "the door answered after {took:.0} ms: this shows nothing");
        // Each four times within WatchdogSec=2.
        within(START, "words to systemd's watchdog", || match words() {
            said if said > before_reset + 1 => Ok(()),
            said => Err(format!("{said} words, before {before_reset}")),
        })?;
        ensure!(!looks.is_finished(), "the door answers again: this shows nothing of the watchdog");
        drop((deaf, silent));
        let _ = looks.join();
        Ok(())
    })
}

/// Runs `lanyard` as another user with one group; a change of user drops all others.
fn run_as(robot: &Robot, group: u32, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(robot.programs.join("lanyard"));
    command.arg("--socket").arg(&robot.lanyard.socket).args(arguments).uid(STRANGER).gid(group);
    let output = command.output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Fails if a door lets other groups in than its own.
#[test]
fn each_door_has_its_group() -> Result<()> {
    let setup = Setup::base()
        .supervisor_key("front_group", &format!("\"{FRONTS}\""))
        .supervisor_key("operator_group", &format!("\"{OPERATORS}\""))
        .without_front();
    play(setup, |robot, _| {
        for (door, group) in
            [(robot.lanyard.front_socket(), FRONTS), (robot.lanyard.operator_socket(), OPERATORS)]
        {
            for (path, mode) in [(door.parent().context("a folder")?, 0o2710), (&door, 0o660)] {
                let found = std::fs::metadata(path)?;
                let actual = (found.permissions().mode() & 0o7777, found.gid());
                ensure!(actual == (mode, group), "{}: {:o}, {}", path.display(), actual.0, actual.1);
            }
        }
        let trip = robot.lanyard.estop()?;
        robot.verified(&LEFT)?;
        robot.verified(&RIGHT)?;
        // Everybody may pass to the folder, and copy the program from there.
        std::fs::set_permissions(robot.file(""), std::fs::Permissions::from_mode(0o755))?;
        let trip = trip.to_string();
        for group in [STRANGER, FRONTS] {
            let (code, told) = run_as(robot, group, &["reset", &trip])?;
            ensure!(code == Some(1) && told.contains("Permission denied"), "group {group}: {code:?} {told}");
            ensure!(told.contains(&format!("members of the group {OPERATORS} may")), "it says: {told}");
        }
        let (code, told) = run_as(robot, OPERATORS, &["reset", &trip])?;
        ensure!(code == Some(0), "an operator's reset: {code:?} {told}");
        Ok(())
    })
}

/// Fails if a reset clears a violation that the operator has not seen.
#[test]
fn a_reset_names_the_violation_it_was_meant_for() -> Result<()> {
    play(Setup::base(), |robot, _| {
        let trip = robot.lanyard.estop()?;
        robot.verified(&LEFT)?;
        robot.verified(&RIGHT)?;
        // 2.0 rev/s for node 3: 0x0D is the velocity.
        Intruder::local("vcan0")?.send(0x06D, &[0, 0, 0, 0x40, 0, 0, 0, 0])?;
        within(START, "the violation", || {
            let status = robot.lanyard.status().map_err(|error| format!("{error:#}"))?;
            let motor = &status["motors"][0];
            match (motor["violations"].as_u64(), motor["standstill"].as_bool()) {
                (Some(count), Some(true)) if count > 0 => Ok(count),
                _ => Err(motor.to_string()),
            }
        })?;
        let blind = robot.lanyard.reset(trip)?;
        ensure!(blind.code == Some(1), "a bare number cleared a violation: {blind:?}");
        // Pressed again, the stop has another number, and is no less violated.
        let trip = robot.lanyard.estop()?;
        let blind = robot.lanyard.reset(trip)?;
        ensure!(blind.code == Some(1), "another press wiped out a violation: {blind:?}");
        let status = robot.lanyard.status()?;
        let count = status["motors"][0]["violations"].as_u64().context("a number")?;
        ensure!(blind.stderr.contains(&format!("lanyard reset {trip}.{count}")), "{blind:?}");
        let told = robot.lanyard.run(&["status"])?.stdout;
        ensure!(told.contains(&format!("lanyard reset {trip}.{count}")), "{told}");
        let seen = robot.lanyard.run(&["reset", &format!("{trip}.{count}")])?;
        ensure!(seen.code == Some(0), "{seen:?}");
        Ok(())
    })
}
