//! Something else stands where the front should be: of another version, with another configuration, or a
//! front that lies. Here the crate under test is the tool of the attack, and never the judge.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use shm_proto::beat::{RawBeat, checksum, tag};
use shm_proto::handover::{self, Attached, Message};
use shm_proto::layout::layout_hash;
use shm_proto::{Generation, MotorIndex, Nanos, SessionId, SlotIndex, Window};
use tests::clock::Moment;
use tests::expect;
use tests::robot::{LATE, LEFT, Robot, START, Setup};

use crate::scene::play;

fn say(door: &Path, message: &Message) -> Result<Message> {
    let connection: OwnedFd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(connection.as_raw_fd(), &UnixAddr::new(door)?)?;
    handover::send(connection.as_fd(), message, &[])?;
    let (answer, _) = handover::receive(connection.as_fd())?.context("the supervisor hung up")?;
    Ok(answer)
}

/// The hash of the configuration the supervisor runs with; a front must have the same.
pub fn config_hash(robot: &Robot) -> Result<u64> {
    let status = robot.lanyard.status()?;
    let hash = status["config_hash"].as_str().context("no config_hash in the status")?;
    Ok(u64::from_str_radix(hash.trim_start_matches("0x"), 16)?)
}

/// Fails if a front or an observer with another layout of the shared memory is let in, or not told why.
#[test]
fn another_version_is_refused_and_told_so() -> Result<()> {
    play(Setup::base().without_front(), |robot, _| {
        let layout = layout_hash() ^ 1;
        let (front, looker) = (robot.lanyard.front_socket(), robot.lanyard.socket.clone());
        let attach = Message::Attach { layout, config: config_hash(robot)? };
        for (door, message) in [(front, attach), (looker, Message::Observe { layout })] {
            let Message::Refused(why) = say(&door, &message)? else { bail!("{message:?} was let in") };
            ensure!(why.contains("of different versions"), "it says: {why}");
        }
        robot.start_front()
    })
}

/// Fails if a front that has read another file is let in: its motor numbers may be other motors.
#[test]
fn another_configuration_is_refused_and_told_so() -> Result<()> {
    play(Setup::base().without_front(), |robot, _| {
        let config = robot.file("other.toml");
        std::fs::write(&config, std::fs::read_to_string(&robot.config)? + "\n# edited meanwhile\n")?;
        let arguments = ["--config".as_ref(), config.as_os_str()];
        let mut front = tests::process::Process::start(&robot.programs, "lanyard-front", arguments)?;
        let ended = front.wait(START)?;
        ensure!(ended.code == Some(1), "the front ended with {ended:?}");
        let told = ended.printed.iter().any(|line| line.contains("the configuration differs"));
        ensure!(told, "it says: {ended:?}");
        robot.start_front()
    })
}

/// A front that holds `LEFT` for a session with that window; returns when its first beat was.
pub fn seize(robot: &Robot, window: Window) -> Result<(Attached, shm_proto::BeatWriter, Nanos)> {
    let attached = handover::attach(&robot.lanyard.front_socket(), config_hash(robot)?)?;
    let mut writer = attached.beats.writer(SlotIndex(0)).context("slot 0 exists")?;
    let opened = Nanos::now();
    writer.open_at(SessionId(7), window, opened);
    attached.beats.take_motor(MotorIndex(0), writer.owner());
    expect::within(START, "the grant", || match attached.verdicts.granted(MotorIndex(0)) {
        Some(owner) if owner == writer.owner() => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    Ok((attached, writer, opened))
}

/// Fails if the front's word is enough to let a motor run unattended for longer than the configuration allows (2 s here).
#[test]
fn a_front_cannot_choose_the_window() -> Result<()> {
    // Nothing beats for the front itself here.
    let setup = Setup::base().without_front().supervisor_key("front_window", "\"5s\"");
    play(setup, |robot, _| {
        let (attached, _writer, opened) = seize(robot, Window::from_millis(60_000))?;
        let verdict = attached.verdicts.session(SlotIndex(0)).context("slot 0 exists")?;
        let most = opened.after(2_000_000_000);
        ensure!(verdict.deadline <= most, "{:?} is later than {most:?}", verdict.deadline);
        expect::within(START, "the end of the grant", || match attached.verdicts.granted(MotorIndex(0)) {
            None => Ok(()),
            held => Err(format!("{held:?}")),
        })?;
        ensure!(Nanos::now() >= most, "it ended before its time");
        Ok(())
    })
}

/// Fails if anything a front can write keeps a session alive beyond its window, stops the supervisor, or goes
/// uncounted.
#[test]
fn lies_extend_nothing() -> Result<()> {
    // Long enough that the lies are written well before the deadline, shorter than the front's own window.
    let window = Window::from_millis(800);
    let setup = Setup::base().without_front().supervisor_key("front_window", "\"5s\"");
    play(setup, |robot, _| {
        let (attached, mut writer, opened) = seize(robot, window)?;
        let opened_at = Moment(i64::try_from(opened.0)?);
        let deadline = Moment(i64::try_from(opened.0 + window.0)?);
        // Properly signed beats from the future, then every counter and stamp there is, signed and not.
        for hours in 1..=100 {
            writer.beat_at(opened.after(hours * 3_600_000_000_000));
        }
        for step in 0..2_000_u64 {
            let noise = step.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut lie = RawBeat {
                counter: if step % 3 == 0 { noise } else { step },
                session: 7,
                window: if step % 5 == 0 { noise } else { window.0 },
                timestamp: noise,
                tag: tag(step % 4, writer.owner().incarnation),
                crc: noise,
            };
            if step % 2 == 0 {
                lie.crc = u64::from(checksum(&lie, SlotIndex(0), Generation(1)));
            }
            writer.write_raw(&lie);
        }
        let stop = robot.listener.wait_for_stop(&LEFT, opened_at, START)?;
        ensure!(stop.at >= deadline, "stopped before the deadline");
        robot.is_prompt(deadline, LATE, &stop)?;
        let status = robot.lanyard.status()?;
        ensure!(status["phase"] == "armed", "the supervisor is {}", status["phase"]);
        let counted = |kind: &str| status["rejects"][kind].as_u64().unwrap_or_default();
        ensure!(counted("future") > 0 && counted("corrupt") > 0, "not counted: {}", status["rejects"]);
        robot.verified(&LEFT)?;
        drop(attached);
        // The impostor has hung up: the real front may come.
        robot.start_front()
    })
}

/// Fails if a front that writes nonsense into owner words keeps a motor, or breaks the supervisor.
#[test]
fn owner_words_that_name_nobody_stop_the_motor() -> Result<()> {
    let setup = Setup::base().without_front().supervisor_key("front_window", "\"5s\"");
    play(setup, |robot, _| {
        let (attached, writer, _) = seize(robot, Window::from_millis(30_000))?;
        let from = Moment::now();
        let mut ghost = writer.owner();
        ghost.slot = SlotIndex(u16::MAX);
        attached.beats.take_motor(MotorIndex(0), ghost);
        robot.listener.wait_for_stop(&LEFT, from, START)?;
        robot.verified(&LEFT)?;
        ensure!(robot.lanyard.status()?["counters"]["bad_owners"] != 0, "not counted");
        Ok(())
    })
}
