//! Who may call: every way of dialling that the unmodified SDK has with a key, and everybody who is kept out.

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tests::clock::Moment;
use tests::expect;
use tests::folder::Folder;
use tests::process::programs;
use tests::python::{Client, Clients, Refusal};
use tests::robot::{LEFT, RIGHT, Robot, START, STILL, Setup};
use tests::status::Lanyard;

use crate::scene::{is_session_expired, no_stop_for, play, start_session};

/// The window where a test does not need the default of 2 s.
const WINDOW: Duration = Duration::from_secs(1);
/// The front looks each second whether its keys or its certificate have changed; three times that on a rig that
/// may stand still.
const NOTICED: Duration = Duration::from_secs(3);

/// What is made before a guarded robot starts: keys, and certificates.
struct Safe {
    folder: Folder,
    lanyard: Lanyard,
}

/// A key as a client has it.
#[derive(Clone)]
struct Key {
    id: String,
    secret: String,
}

impl Key {
    fn json(&self) -> Value {
        json!({ "id": self.id, "secret": self.secret })
    }
}

impl Safe {
    fn new() -> Result<Self> {
        let program = programs()?.join("lanyard");
        Ok(Self { folder: Folder::new()?, lanyard: Lanyard { program, socket: "/none".into() } })
    }

    fn keys(&self) -> PathBuf {
        self.folder.file("keys.toml")
    }

    /// Runs `lanyard keys`; returns what it printed.
    fn lanyard_keys(&self, arguments: &[&str]) -> Result<String> {
        let file = self.keys().display().to_string();
        let answer = self.lanyard.run(&[&["keys", "--file", &file], arguments].concat())?;
        ensure!(answer.code == Some(0), "lanyard keys {arguments:?}: {}", answer.stderr);
        Ok(answer.stdout)
    }

    /// Makes a key with the command, and reads id and secret where a person would.
    fn add(&self, name: &str, role: &str) -> Result<Key> {
        let printed = self.lanyard_keys(&["add", name, "--role", role])?;
        let after = |word: &str| {
            let line = printed.lines().find_map(|line| line.trim().strip_prefix(word));
            line.map(|rest| rest.trim().to_owned()).with_context(|| format!("no {word} in: {printed}"))
        };
        Ok(Key { id: after("id")?, secret: after("secret")? })
    }

    fn revoke(&self, key: &Key) -> Result<()> {
        self.lanyard_keys(&["revoke", &key.id]).map(drop)
    }

    /// Puts a certificate and its key where the front looks for them.
    fn certify(&self, pair: &Pair) -> Result<()> {
        let key = self.folder.file("key.pem");
        write(self.folder.file("cert.pem"), &pair.certificate)?;
        write(&key, &pair.key)?;
        Ok(set_permissions(key, Permissions::from_mode(0o640))?)
    }

    /// The wheels, with a front that knows these keys.
    fn robot(&self) -> Setup {
        Setup::base().window("1s").front_key("keys", &text(&self.keys()))
    }

    /// The same with TLS.
    fn robot_with_tls(&self) -> Setup {
        let (certificate, key) = (self.folder.file("cert.pem"), self.folder.file("key.pem"));
        self.robot().front_key("certificate", &text(&certificate)).front_key("private_key", &text(&key))
    }
}

/// A path as a value in TOML.
fn text(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// A certificate and its private key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

fn for_localhost() -> Result<CertificateParams> {
    Ok(CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?)
}

fn self_signed() -> Result<Pair> {
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: for_localhost()?.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// An authority, and a pair that it vouches for.
fn signed() -> Result<(String, Pair)> {
    let (authority_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut authority = CertificateParams::new([])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key)?.pem();
    let leaf = for_localhost()?.signed_by(&key, &Issuer::new(authority, authority_key))?;
    Ok((certificate, Pair { certificate: leaf.pem(), key: key.serialize_pem() }))
}

/// A new client that has tried to connect like this.
fn dial(
    robot: &Robot,
    clients: &mut Clients,
    mut arguments: Value,
) -> Result<(Client, Result<Value, Refusal>)> {
    let mut client = clients.fork()?;
    arguments["address"] = json!(robot.address.replace("127.0.0.1", "localhost"));
    let outcome = client.call_within(START, "connect", arguments)?;
    Ok((client, outcome.result))
}

/// A new client that has connected like this.
fn dialled(robot: &Robot, clients: &mut Clients, arguments: Value) -> Result<Client> {
    let (client, outcome) = dial(robot, clients, arguments)?;
    outcome.map_err(|refusal| anyhow::anyhow!("cannot connect: {refusal:?}"))?;
    Ok(client)
}

/// A client in plain text that has called nothing yet.
fn bare(robot: &Robot, clients: &mut Clients) -> Result<Client> {
    let mut client = clients.fork()?;
    client.ask("connect_bare", json!({ "address": robot.address }))?;
    Ok(client)
}

/// Fails unless the client drives on for two windows, which takes heartbeats that are let in, too, and is stopped when
/// it is killed.
fn drives_and_is_guarded(robot: &Robot, mut client: Client) -> Result<()> {
    robot.drive(&mut client, &LEFT, 0.4)?;
    no_stop_for(&robot.listener, &LEFT, 2 * WINDOW)?;
    let death = client.kill()?;
    robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
    robot.verified(&LEFT).map(drop)
}

fn is(refusal: &Refusal, status: &str, words: &str) -> Result<()> {
    ensure!(
        refusal.status.as_deref() == Some(status) && refusal.message.contains(words),
        "expected {status} {words:?}, not {refusal:?}"
    );
    Ok(())
}

/// Fails if a client with a key cannot drive over TLS with a certificate that only the robot itself vouches for, which
/// the SDK accepts from this computer; or if its second connection, for the heartbeats, is not let in.
#[test]
fn key_over_tls_with_a_self_signed_certificate() -> Result<()> {
    let safe = Safe::new()?;
    let key = safe.add("panel", "operate")?;
    safe.certify(&self_signed()?)?;
    play(safe.robot_with_tls(), |robot, clients| {
        let client = dialled(robot, clients, json!({ "tls": true, "key": key.json() }))?;
        drives_and_is_guarded(robot, client)
    })
}

/// Fails if a key cannot be used in plain text on this computer, the SDK's default way of dialling, with TLS on the
/// same port and without.
#[test]
fn key_in_plain_text_on_this_computer() -> Result<()> {
    let safe = Safe::new()?;
    let key = safe.add("panel", "operate")?;
    safe.certify(&self_signed()?)?;
    for setup in [safe.robot(), safe.robot_with_tls()] {
        play(setup, |robot, clients| {
            let client = dialled(robot, clients, json!({ "webrtc": true, "key": key.json() }))?;
            drives_and_is_guarded(robot, client)
        })?;
    }
    Ok(())
}

/// Fails if the SDK's default way of dialling over TLS does not work with a certificate of an authority that the
/// system trusts; or works without that trust, so that the first half would show nothing.
#[test]
fn certificate_of_a_trusted_authority() -> Result<()> {
    let safe = Safe::new()?;
    let key = safe.add("panel", "operate")?;
    let (authority, pair) = signed()?;
    safe.certify(&pair)?;
    let trust = safe.folder.file("ca.pem");
    write(&trust, authority)?;
    play(safe.robot_with_tls(), |robot, clients| {
        let options = json!({ "tls": true, "webrtc": true, "key": key.json() });
        let (_, outcome) = dial(robot, clients, options.clone())?;
        ensure!(outcome.is_err(), "a certificate that nobody vouches for was accepted");
        let mut options = options;
        options["trust"] = json!(trust);
        let client = dialled(robot, clients, options)?;
        drives_and_is_guarded(robot, client)
    })
}

/// Fails if a client that tries TLS first does not find out that there is none.
#[test]
fn client_that_may_do_without_tls_finds_out() -> Result<()> {
    play(Setup::base().window("1s"), |robot, clients| {
        let client = dialled(robot, clients, json!({ "tls": true, "downgrade": true }))?;
        drives_and_is_guarded(robot, client)
    })
}

/// Fails if anybody gets in without a key, or with a wrong one, or if the answers are not those of Viam's own server.
#[test]
fn without_the_right_key_nobody_gets_in() -> Result<()> {
    let safe = Safe::new()?;
    let key = safe.add("panel", "operate")?;
    play(safe.robot(), |robot, clients| {
        let (_, outcome) = dial(robot, clients, json!({}))?;
        ensure!(outcome.is_err(), "connected without a key");
        let mut client = bare(robot, clients)?;
        for call in ["start_session", "heartbeat", "set_power_as"] {
            let arguments = match call {
                "start_session" => json!({}),
                "heartbeat" => json!({ "id": "x" }),
                _ => json!({ "name": "left", "power": 0.4, "session": "" }),
            };
            is(&client.call(call, arguments)?.refusal()?, "UNAUTHENTICATED", "authentication required")?;
        }
        let mut log_in = |id: &str, secret: &str, kind: &str| -> Result<Refusal> {
            client.call("log_in", json!({ "id": id, "secret": secret, "type": kind }))?.refusal()
        };
        let unknown = "6ec5d3c6-49a4-4f0b-9d1e-6e5a2f1f7b01";
        for (id, secret) in [(key.id.as_str(), "wrong"), (unknown, &key.secret), ("panel", &key.secret)] {
            is(
                &log_in(id, secret, "api-key")?,
                "PERMISSION_DENIED",
                "failed to authenticate: invalid credentials",
            )?;
        }
        let words = "do not know how to handle credential type \"robot-secret\"";
        is(&log_in(&key.id, &key.secret, "robot-secret")?, "INVALID_ARGUMENT", words)?;
        is(&log_in(&key.id, &key.secret, "")?, "INVALID_ARGUMENT", "credentials required")?;

        client.ask("log_in", json!({ "id": key.id, "secret": key.secret }))?;
        let again = client.call("log_in", json!({ "id": key.id, "secret": key.secret }))?.refusal()?;
        is(&again, "INVALID_ARGUMENT", "already authenticated; cannot re-authenticate")?;
        start_session(&mut client, "").map(drop)
    })
}

/// Fails if a key that may only look can move anything, or cannot look, or cannot stop.
#[test]
fn an_observer_looks_and_stops_and_moves_nothing() -> Result<()> {
    let safe = Safe::new()?;
    let (watcher, driver) = (safe.add("watcher", "observe")?, safe.add("driver", "operate")?);
    safe.certify(&self_signed()?)?;
    play(safe.robot_with_tls(), |robot, clients| {
        let mut driver = dialled(robot, clients, json!({ "tls": true, "key": driver.json() }))?;
        robot.drive(&mut driver, &LEFT, 0.4)?;
        let options = json!({ "tls": true, "key": watcher.json(), "sessions": false });
        let mut watcher = dialled(robot, clients, options)?;
        ensure!(watcher.ask("is_moving", json!({ "name": "left" }))? == true, "it cannot see that it moves");
        let session = driver.ask("session", json!({}))?;
        for session in [json!(""), session] {
            let attempt = json!({ "name": "right", "power": 0.4, "session": session });
            let refusal = watcher.call("set_power_as", attempt)?.refusal()?;
            is(
                &refusal,
                "PERMISSION_DENIED",
                "role \"observe\" may not call viam.component.motor.v1.MotorService",
            )?;
        }
        let refusal = watcher.call("start_session", json!({}))?.refusal()?;
        is(&refusal, "PERMISSION_DENIED", "it takes the role \"operate\"")?;
        let from = Moment::now();
        watcher.ask("stop", json!({ "name": "left" }))?;
        robot.listener.wait_for_stop(&LEFT, from, STILL)?;
        robot.sim.wait_for_standstill(LEFT.node, STILL)
    })
}

/// RDK's TestSessionsMixedOwnersImplicitAuth, its two owners two keys. Fails if the session of one key can be used,
/// resumed or kept alive with the other, or if the answer tells that it exists.
#[test]
fn mixed_owners_with_keys_share_nothing() -> Result<()> {
    let safe = Safe::new()?;
    let (mine, other) = (safe.add("mine", "operate")?, safe.add("other", "operate")?);
    safe.certify(&self_signed()?)?;
    play(safe.robot_with_tls(), |robot, clients| {
        let mut first = dialled(robot, clients, json!({ "tls": true, "key": mine.json() }))?;
        let options = json!({ "tls": true, "key": other.json(), "sessions": false });
        let mut second = dialled(robot, clients, options)?;
        robot.drive(&mut first, &LEFT, 0.2)?;
        let id = first.ask("session", json!({}))?;
        let id = id.as_str().context("no id")?;
        for id in [id, "6ec5d3c6-49a4-4f0b-9d1e-6e5a2f1f7b01"] {
            let attempt = json!({ "name": "left", "power": 0.4, "session": id });
            is_session_expired(&second.call("set_power_as", attempt)?.refusal()?)?;
            is_session_expired(&second.call("heartbeat", json!({ "id": id }))?.refusal()?)?;
        }
        let resumed = start_session(&mut second, id)?;
        ensure!(resumed != id && !resumed.is_empty(), "resumed the session of another key");
        let death = first.kill()?;
        robot.stopped_at_deadline(&LEFT, death, WINDOW)?;
        robot.verified(&LEFT).map(drop)
    })
}

/// Fails if who uses a revoked key is not shut out within [`NOTICED`] and stopped a window later; if it gets in again;
/// if somebody else is disturbed by it; or if the first key of a running front is not asked for.
#[test]
fn keys_come_and_go_while_the_front_runs() -> Result<()> {
    let safe = Safe::new()?;
    play(safe.robot(), |robot, clients| {
        let mut early = bare(robot, clients)?;
        start_session(&mut early, "")?;
        let (lost, kept) = (safe.add("lost", "operate")?, safe.add("kept", "operate")?);
        expect::within(NOTICED, "a login is required", || match start_session(&mut early, "") {
            Ok(id) => Err(id),
            Err(_) => Ok(()),
        })?;
        let options = |key: &Key| json!({ "webrtc": true, "key": key.json() });
        let mut first = dialled(robot, clients, options(&lost))?;
        let mut second = dialled(robot, clients, options(&kept))?;
        robot.drive(&mut first, &LEFT, 0.4)?;
        robot.drive(&mut second, &RIGHT, 0.4)?;
        let from = Moment::now();
        safe.revoke(&lost)?;
        robot.listener.wait_for_stop(&LEFT, from, NOTICED + WINDOW)?;
        robot.lanyard.wait_for_trip(from, "session expired", "left", STILL)?;
        robot.verified(&LEFT)?;
        let attempt = bare(robot, clients)?
            .call("log_in", json!({ "id": lost.id, "secret": lost.secret }))?
            .refusal()?;
        is(&attempt, "PERMISSION_DENIED", "invalid credentials")?;
        let disturbed = robot.listener.first(from, |frame| RIGHT.is_stop(frame))?;
        ensure!(disturbed.is_none(), "the other key's motor was stopped by {disturbed:?}");
        second.ask("stop", json!({ "name": "right" })).map(drop)
    })
}

/// Fails if a token that nobody used for its lifetime is still good, if a new one cannot be had, or if the one of a
/// client that drives ends under its hands: the SDK could not renew it.
#[test]
fn a_token_ends_when_it_is_not_used() -> Result<()> {
    let safe = Safe::new()?;
    let key = safe.add("panel", "operate")?;
    play(safe.robot().front_key("token_lifetime", "\"2s\""), |robot, clients| {
        let mut busy = dialled(robot, clients, json!({ "webrtc": true, "key": key.json() }))?;
        robot.drive(&mut busy, &LEFT, 0.4)?;
        let from = Moment::now();
        for _ in 0..2 {
            let mut idle = bare(robot, clients)?;
            idle.ask("log_in", json!({ "id": key.id, "secret": key.secret }))?;
            start_session(&mut idle, "")?;
            for _ in 0..3 {
                std::thread::sleep(Duration::from_secs(1));
                busy.ask("set_power", json!({ "name": "left", "power": 0.4 }))?;
            }
            is(
                &idle.call("start_session", json!({}))?.refusal()?,
                "UNAUTHENTICATED",
                "authentication required",
            )?;
        }
        let stop = robot.listener.first(from, |frame| LEFT.is_stop(frame))?;
        ensure!(stop.is_none(), "who drives was stopped by {stop:?}");
        Ok(())
    })
}

/// Fails if a new certificate is not shown to new clients, if a broken one is, or if either disturbs who drives.
#[test]
fn a_new_certificate_is_shown_and_a_broken_one_is_not() -> Result<()> {
    let safe = Safe::new()?;
    let key = safe.add("panel", "operate")?;
    let (first, second) = (self_signed()?, self_signed()?);
    safe.certify(&first)?;
    play(safe.robot_with_tls(), |robot, clients| {
        let mut client = dialled(robot, clients, json!({ "tls": true, "key": key.json() }))?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let from = Moment::now();
        let address = json!({ "address": robot.address });
        let mut looker = clients.fork()?;
        let mut shown = || -> Result<String> {
            let shown = looker.ask("certificate", address.clone())?;
            Ok(shown.as_str().unwrap_or_default().split_whitespace().collect())
        };
        let plain = |pair: &Pair| pair.certificate.split_whitespace().collect::<String>();
        ensure!(shown()? == plain(&first), "another certificate is shown than the one there is");
        safe.certify(&Pair { certificate: second.certificate.clone(), key: first.key.clone() })?;
        robot.front()?.wait_for_line("The certificate stays as it was", NOTICED)?;
        ensure!(shown()? == plain(&first), "half a pair was taken");
        safe.certify(&second)?;
        expect::within(NOTICED, "the new certificate is shown", || match shown() {
            Ok(shown) if shown == plain(&second) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        let stop = robot.listener.first(from, |frame| LEFT.is_stop(frame))?;
        ensure!(stop.is_none(), "who was in was disturbed: {stop:?}");
        client.ask("stop", json!({ "name": "left" })).map(drop)
    })
}

/// Fails if a front that other computers can reach starts without keys, or with keys in plain text; or if it does so
/// on purpose and says nothing of it.
#[test]
fn nothing_is_open_to_others_by_accident() -> Result<()> {
    let safe = Safe::new()?;
    play(safe.robot().without_front(), |robot, _| {
        let config = robot.config.clone();
        let change = |from: &str, to: &str| -> Result<()> {
            let text = std::fs::read_to_string(&config)?;
            ensure!(text.contains(from), "{from:?} is not in the configuration");
            Ok(write(&config, text.replacen(from, to, 1))?)
        };
        let refuses = |words: &str| -> Result<()> {
            let ended = robot.spawn("lanyard-front")?.wait(START)?;
            let said = ended.printed.join("\n");
            ensure!(ended.code == Some(1) && said.contains(words), "it ended with {ended:?}");
            let doctor = robot.lanyard.run(&["doctor", &config.display().to_string()])?.stdout;
            let doctor = doctor.split_whitespace().collect::<Vec<_>>().join(" ");
            ensure!(doctor.contains("the front does not start"), "{doctor}");
            Ok(())
        };
        change("127.0.0.1:", "0.0.0.0:")?;
        refuses("whoever reaches this address can drive the robot")?;
        safe.add("panel", "operate")?;
        refuses("keys go over the network in plain text")?;
        set_permissions(safe.keys(), Permissions::from_mode(0o644))?;
        let ended = robot.spawn("lanyard-front")?.wait(START)?;
        ensure!(ended.printed.join("\n").contains("chmod 640"), "{ended:?}");
        Ok(())
    })?;
    let safe = Safe::new()?;
    play(safe.robot().front_key("insecure", "true").drives_only(), |robot, _| {
        let text = std::fs::read_to_string(&robot.config)?;
        write(&robot.config, text.replacen("127.0.0.1:", "0.0.0.0:", 1))?;
        robot.start_supervisor()?;
        robot.start_front()?;
        robot.front()?.wait_for_line("INSECURE", START)?;
        let doctor = robot.lanyard.run(&["doctor", &robot.config.display().to_string()])?;
        ensure!(doctor.stdout.contains("insecure = true") && doctor.code == Some(1), "{}", doctor.stdout);
        Ok(())
    })
}
