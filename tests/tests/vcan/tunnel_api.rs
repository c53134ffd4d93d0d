//! Who may open what: targets that are not configured, however they are written; keys that go; and thousands of listeners that
//! leave nothing behind.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tests::clock::Moment;
use tests::expect;
use tests::folder::Folder;
use tests::process::programs;
use tests::robot::{LEFT, Robot, STILL};
use tests::status::Lanyard;
use tests::tunnel::{Program, Site, WINDOW};

use crate::tunnel::{play_changed, play_tunnel};

/// The front looks each second whether its keys have changed; three times that on a rig that may stand still.
const NOTICED: Duration = Duration::from_secs(3);
/// Listeners that are opened and closed, one after the other. Ten thousand are in `front/src/tunnel/tests.rs`, where each
/// takes no hundredth of a second.
const CYCLES: u32 = 1_000;
/// How long that may take: it is 20 s on the slowest rig, if nothing else is.
const CHURN: Duration = Duration::from_secs(600);

/// How many descriptors the front has.
fn descriptors(robot: &mut Robot) -> Result<usize> {
    let pid = robot.front()?.pid();
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd")).context("no descriptors to be seen")?.count())
}

/// How many sockets of this computer's listen, for TCP over IPv4.
fn listening() -> Result<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    // 0A is LISTEN.
    Ok(table.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")).count())
}

/// Waits until the front has no more descriptors, and the computer no more listening sockets, than before.
fn is_as_before(robot: &mut Robot, before: (usize, usize)) -> Result<()> {
    expect::within(STILL, "nothing is left open", || {
        let now = descriptors(robot).and_then(|open| Ok((open, listening()?)));
        let now = now.map_err(|error| format!("{error:#}"))?;
        if now.0 <= before.0 && now.1 == before.1 {
            Ok(())
        } else {
            Err(format!("{before:?} became {now:?}"))
        }
    })
}

/// Fails if a target that is not configured is reached, looked up or listened for, however it is written, or if that is not
/// said in the log.
#[test]
fn nothing_but_the_targets_is_reached() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        let port = scene.site.target().rsplit(':').next().context("no port")?.to_owned();
        // The first request, and the first name that is looked up, leave something open for good.
        scene.office.create(&scene.site, "tcp", &format!("nobody.invalid:{port}"))?;
        let before = (descriptors(scene.robot)?, listening()?);
        for target in [
            "169.254.169.254:80".to_owned(),
            format!("169.254.169.254:{port}"),
            format!("0.0.0.0:{port}"),
            format!("[::ffff:127.0.0.1]:{port}"),
            format!("[::]:{port}"),
            format!("127.0.0.2:{port}"),
            format!("127.1:{port}"),
            format!("2130706433:{port}"),
            format!("nobody.invalid:{port}"),
            "127.0.0.1:22".to_owned(),
            format!("127.0.0.1:{port}/../../x"),
            String::new(),
        ] {
            let answer = scene.office.create(&scene.site, "tcp", &target)?;
            ensure!(
                answer.status == 422 && answer.body["status"] == "UNKNOWN_FAILURE",
                "{target:?}: {answer:?}"
            );
            let error = answer.body["error"].as_str().unwrap_or_default();
            ensure!(!error.is_empty(), "{target:?}: no reason");
        }
        for wish in [json!({ "Service": 7 }), json!({ "Sealed": "AAEC" })] {
            let answer =
                scene.office.rest(&scene.site, "create", json!({ "protocol": "tcp", "target": wish }))?;
            ensure!(answer.status == 422, "{wish}: {answer:?}");
        }
        ensure!(scene.office.listed(&scene.site, "tcp")?.is_empty(), "a listener");
        is_as_before(scene.robot, before)?;
        scene.robot.front()?.wait_for_line("169.254.169.254", STILL)?;
        Ok(())
    })
}

/// Gives a name another address than it had.
fn rename(hosts: &Path, address: &str) -> Result<()> {
    std::fs::write(hosts, format!("127.0.0.1 localhost\n{address} can.robot\n")).context("cannot write hosts")
}

/// Runs `act` in a thread whose programs, and nobody else's, have a file of names of their own.
fn with_own_names(act: impl FnOnce(&Path) -> Result<()> + Send) -> Result<()> {
    let folder = Folder::new()?;
    let hosts = folder.file("hosts");
    rename(&hosts, "127.0.0.1")?;
    let run = || {
        unshare(CloneFlags::CLONE_NEWNS).context("no namespace of mounts")?;
        let none: Option<&Path> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .context("cannot make / private")?;
        mount(Some(&hosts), "/etc/hosts", none, MsFlags::MS_BIND, none).context("cannot mount hosts")?;
        act(&hosts)
    };
    std::thread::scope(|scope| scope.spawn(run).join()).map_err(|_| anyhow!("the test panicked"))?
}

/// Fails if a listener follows a name that has become another address since, or if a target's name is taken for
/// what it resolves to the second time.
#[test]
fn name_that_changes_changes_no_listener() -> Result<()> {
    with_own_names(|hosts| {
        play_tunnel(&[LEFT], "", "", |scene| {
            let named = format!("can.robot:{}", scene.site.target().rsplit(':').next().context("no port")?);
            let answer = scene.office.create(&scene.site, "tcp", &named)?;
            ensure!(answer.status == 200, "its name was not taken: {answer:?}");
            let port = answer.body["port"].as_u64().context("no port")?;
            rename(hosts, "169.254.169.254")?;
            let second = scene.office.create(&scene.site, "tcp", &named)?;
            ensure!(second.status == 422, "the second time it is another: {second:?}");
            let mut program = Program::idle(scene.clients)?;
            program.open_bus(&format!("127.0.0.1:{port}"))?;
            program.turn(scene.robot, &[LEFT])
        })
    })
}

/// Fails if listeners leave a descriptor, a port or a session behind.
#[test]
fn thousands_of_listeners_leave_nothing_behind() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        let wish = json!({ "Plain": scene.site.target() });
        let churn = |count: u32| json!({ "address": scene.site.api(), "target": wish, "count": count });
        // What the front keeps for good after its first requests is not to be counted.
        scene.office.ask("churn", churn(20))?;
        let before = (descriptors(scene.robot)?, listening()?);
        let done = scene.office.call_within(CHURN, "churn", churn(CYCLES))?;
        println!("{CYCLES} listeners in {:.1} s", done.seconds);
        let done = done.value()?;
        ensure!(done["opened"] == CYCLES && done["closed"] == CYCLES, "not all: {done}");
        ensure!(scene.office.listed(&scene.site, "tcp")?.is_empty(), "a listener is left");
        expect::within(STILL, "nothing is left open", || {
            let now = descriptors(scene.robot).and_then(|open| Ok((open, listening()?)));
            let now = now.map_err(|error| format!("{error:#}"))?;
            if now.0 <= before.0 && now.1 == before.1 {
                Ok(())
            } else {
                Err(format!("{before:?} became {now:?}"))
            }
        })?;
        ensure!(scene.robot.lanyard.status()?["sessions"].as_array().is_some_and(Vec::is_empty), "a session");
        scene.driver(&[LEFT]).map(drop)
    })
}

/// Fails if links that drive leave a descriptor or a session behind when they have been cut and closed, many times.
#[test]
fn links_that_drove_leave_nothing_behind() -> Result<()> {
    play_tunnel(&[LEFT], "", "", |scene| {
        let mut before = None;
        for _ in 0..12 {
            let (mut program, address) = scene.driver(&[LEFT])?;
            ensure!(scene.office.close(&scene.site, "tcp", &address)? == 204, "not closed");
            program.ask("bus_is_over", json!({}))?;
            scene.robot.verified(&LEFT)?;
            // The first one has opened what stays for good.
            let now = descriptors(scene.robot)?;
            ensure!(*before.get_or_insert(now) >= now, "{before:?} descriptors became {now}");
        }
        expect::within(STILL, "no session is left", || {
            let status = scene.robot.lanyard.status().map_err(|error| format!("{error:#}"))?;
            let sessions = status["sessions"].as_array().cloned().unwrap_or_default();
            let live = sessions.iter().filter(|session| session["state"] == "live").count();
            if live == 0 { Ok(()) } else { Err(format!("{sessions:?}")) }
        })
    })
}

/// Runs `lanyard keys` on a file.
fn lanyard_keys(file: &Path, arguments: &[&str]) -> Result<String> {
    let lanyard = Lanyard { program: programs()?.join("lanyard"), socket: "/none".into() };
    let file = file.display().to_string();
    let answer = lanyard.run(&[&["keys", "--file", &file], arguments].concat())?;
    ensure!(answer.code == Some(0), "lanyard keys {arguments:?}: {}", answer.stderr);
    Ok(answer.stdout)
}

/// Makes a key; returns its id and the token.
fn add_key(file: &Path, role: &str) -> Result<(String, String)> {
    let printed = lanyard_keys(file, &["add", role, "--role", role])?;
    let after = |word: &str| {
        let line = printed.lines().find_map(|line| line.trim().strip_prefix(word));
        line.map(|rest| rest.trim().to_owned()).with_context(|| format!("no {word} in: {printed}"))
    };
    let id = after("id")?;
    let token = format!("{id}.{}", after("secret")?);
    Ok((id, token))
}

/// Fails if somebody without a key, or with one that may only look, opens or closes anything; or if a listener outlives the
/// key that it was opened with, or what it drives goes on.
#[test]
fn listener_ends_with_the_key_it_was_opened_with() -> Result<()> {
    let folder = Folder::new()?;
    let keys = folder.file("keys.toml");
    let (id, token) = add_key(&keys, "operate")?;
    let (_, looker) = add_key(&keys, "observe")?;
    let guarded = format!("\"{}\"", keys.display());
    let target = Site::socketcand(&[LEFT], "");
    play_changed(
        &[LEFT],
        "",
        &target,
        |setup| setup.front_key("keys", &guarded),
        |scene| {
            let wish = |token: Option<&str>| json!({ "protocol": "tcp", "target": { "Plain": scene.site.target() }, "listen_host": "127.0.0.1:0", "token": token });
            for (token, status) in [(None, 401), (Some("1234.5678"), 401), (Some(looker.as_str()), 403)] {
                let answer = scene.office.rest(&scene.site, "create", wish(token))?;
                ensure!(answer.status == status, "{token:?}: {answer:?}");
            }
            let mut program = Program::idle(scene.clients)?;
            let answer = program.rest(&scene.site, "create", wish(Some(&token)))?;
            ensure!(answer.status == 200, "not with its key: {answer:?}");
            let port = answer.body["port"].as_u64().context("no port")?;
            let address = format!("127.0.0.1:{port}");
            program.open_bus(&address)?;
            program.turn(scene.robot, &[LEFT])?;
            let from = Moment::now();
            lanyard_keys(&keys, &["revoke", &id])?;
            let stop = scene.robot.listener.wait_for_stop(&LEFT, from, STILL)?;
            scene.robot.is_prompt(from, NOTICED, &stop)?;
            program.ask("bus_is_over", json!({}))?;
            scene.rests(&LEFT, stop.at, stop.at)?;
            let listed =
                scene.office.rest(&scene.site, "listed", json!({ "protocol": "tcp", "token": looker }))?;
            ensure!(listed.body == json!([]), "it is in the list still: {listed:?}");
            std::thread::sleep(WINDOW);
            scene.rests(&LEFT, stop.at, stop.at)
        },
    )
}
