//! What was commanded last is what happens: a Stop that was answered OK means standstill until motion is commanded after
//! it, however soon after one another the commands were sent, and whatever the network did to them on the way.
//!
//! Judged by the set-point that the simulated drive has in the end. `cargo xtask order` plays far more of it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::clock::Moment;
use tests::order::patterns::{Names, pairs, some_of, triples};
use tests::order::trial::{Guard, is, target};
use tests::order::{Bench, Command, Pattern, Start, Verdict, Way};
use tests::pipeline::{Call, OK, Pipeline, Spacing};
use tests::python::Clients;
use tests::relay::Relay;
use tests::robot::{LEFT, Robot, STILL, Setup};
use tests::typescript::{Node, Transport};

use crate::scene::play;

const NAMES: Names<'_> = Names { motor: "left", base: "base1" };
const ABORTED: i64 = 10;
/// The window of sessions and leases where commands are held back: long enough for a rig that stands still now and then.
const WINDOW: Duration = Duration::from_secs(3);
/// An outage that nobody is stopped for.
const SHORT: Duration = Duration::from_millis(800);
/// A joystick's usual rate.
const TEN_HERTZ: Duration = Duration::from_millis(100);
/// Chooses the triples; any number would do.
const SEED: u64 = 17;
/// A set-point that has not changed for so long changes no more: every command has been answered before.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Fails if one of these went wrong; says which.
fn all_right(tried: &[(String, Verdict)]) -> Result<()> {
    let wrong: Vec<String> = tried
        .iter()
        .filter(|(_, verdict)| *verdict != Verdict::Right)
        .map(|(what, verdict)| format!("  {what} -> {verdict}"))
        .collect();
    ensure!(wrong.is_empty(), "{} of {} went wrong:\n{}", wrong.len(), tried.len(), wrong.join("\n"));
    Ok(())
}

fn each(bench: &mut Bench<'_>, patterns: &[Pattern]) -> Result<Vec<(String, Verdict)>> {
    patterns.iter().map(|pattern| Ok((pattern.to_string(), bench.play(pattern)?))).collect()
}

/// The windows are long: a rig that stands still must not end the session, which is not what is tried here.
fn patient() -> Setup {
    Setup::base().window("10s").supervisor_key("front_window", "\"5s\"")
}

fn with_bench(setup: Setup, guard: Guard, act: impl FnOnce(&mut Bench<'_>) -> Result<()>) -> Result<()> {
    play(setup, |robot, clients| act(&mut Bench::new(robot, clients, guard)?))
}

/// Fails if the last of two commands is not the one in force, or a Stop that was answered OK does not hold.
#[test]
fn of_two_commands_the_last_holds() -> Result<()> {
    with_bench(patient(), Guard::Session, |bench| {
        let patterns = [
            pairs(Way::OneSegment, Start::Turning),
            pairs(Way::OneSegment, Start::Stopped),
            pairs(Way::TwoMillisApart, Start::Turning),
        ]
        .concat();
        all_right(&each(bench, &patterns)?)
    })
}

/// Fails if the last of three commands is not the one in force.
#[test]
fn of_three_commands_the_last_holds() -> Result<()> {
    with_bench(patient(), Guard::Session, |bench| {
        let stopped = some_of(triples(Way::OneSegment, Start::Stopped), 50, SEED);
        let turning = some_of(triples(Way::OneSegment, Start::Turning), 50, SEED + 1);
        all_right(&each(bench, &[stopped, turning].concat())?)
    })
}

/// Fails if a slider that was moved and let go leaves the motor at any speed.
#[test]
fn a_stop_after_many_commands_holds() -> Result<()> {
    const TRIES: usize = 6;
    with_bench(patient(), Guard::Session, |bench| {
        let powers = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7].map(Command::Power);
        let commands = [&powers[..], &[Command::Stop]].concat();
        let pattern = Pattern { commands, way: Way::OneSegment, start: Start::Turning };
        all_right(&each(bench, &vec![pattern; TRIES])?)
    })
}

/// Fails if a motion command that began before a Stop came is carried out because it was complete only after it, or if a
/// Stop voids nothing of what came while it was itself on its way.
#[test]
fn a_stop_voids_what_began_before_it_was_complete() -> Result<()> {
    const TRIES: usize = 4;
    const BETWEEN_READS: Duration = Duration::from_millis(50);
    with_bench(patient(), Guard::Session, |bench| {
        let mut tried = Vec::new();
        for (first, second) in [(Command::Power(0.5), Command::Stop), (Command::Stop, Command::Power(0.5))] {
            for _ in 0..TRIES {
                let turning = Pattern {
                    commands: vec![Command::Power(0.2)],
                    way: Way::OneSegment,
                    start: Start::Stopped,
                };
                ensure!(bench.play(&turning)? == Verdict::Right, "it does not turn to begin with");
                let calls = [first, second].map(|command| bench.guarded(command.call(NAMES)));
                // Of what comes in one read only the order of the beginnings is known.
                let sent = bench.client.send_with(&calls, Spacing::Apart(BETWEEN_READS), &[0])?;
                bench.client.answers(&sent, STILL)?;
                sleep(AFTERWARDS);
                let speed = bench.target(&LEFT)?;
                let verdict = if is(speed, 0.0) { Verdict::Right } else { Verdict::Wrong(speed) };
                tried.push((format!("{first} whose message ends after {second}"), verdict));
            }
        }
        all_right(&tried)
    })
}

/// A person drives with a joystick, lets it go while the network delivers nothing, and goes on watching.
fn joystick(bench: &mut Bench<'_>, outage: Duration) -> Result<Moment> {
    let drive = bench.guarded(Command::Power(0.4).call(NAMES));
    let stop = bench.guarded(Command::Stop.call(NAMES));
    bench.client.ask(&drive)?;
    bench.reaches(&LEFT, Command::Power(0.4).speed())?;
    bench.relay.hold();
    for _ in 0..outage.as_millis() / TEN_HERTZ.as_millis() {
        bench.client.send(std::slice::from_ref(&drive), Spacing::OneSegment)?;
        sleep(TEN_HERTZ);
    }
    let last = bench.client.send(std::slice::from_ref(&stop), Spacing::OneSegment)?;
    let delivered = Moment::now();
    bench.relay.release();
    let answer = bench.client.answers(&last, STILL)?.pop().flatten().context("the Stop was not answered")?;
    // A session that is over is told so; a Stop stops all the same.
    ensure!(answer.status.is_some(), "the Stop was answered with {answer:?}");
    sleep(AFTERWARDS);
    Ok(delivered)
}

fn leases() -> Setup {
    Setup::base().window("3s").front_key("lease_window", "\"3s\"").supervisor_key("front_window", "\"5s\"")
}

/// Fails if a joystick that was released while the network held everything back leaves the motor turning, under a session
/// or under a lease.
#[test]
fn a_joystick_released_during_a_short_outage_has_stopped() -> Result<()> {
    const TRIES: usize = 3;
    let mut tried = Vec::new();
    for guard in [Guard::Session, Guard::Lease] {
        with_bench(leases(), guard, |bench| {
            for _ in 0..TRIES {
                joystick(bench, SHORT)?;
                let speed = bench.target(&LEFT)?;
                let verdict = if is(speed, 0.0) { Verdict::Right } else { Verdict::Wrong(speed) };
                tried.push((format!("{guard:?}, held back {SHORT:?}"), verdict));
            }
            Ok(())
        })?;
    }
    all_right(&tried)
}

/// Fails if anything moves that the network has held back for longer than the client's window.
#[test]
fn what_is_later_than_the_window_moves_nothing() -> Result<()> {
    // A session's commands are refused with it. A lease has no name by which old commands are known: there it takes the
    // policy that wants a Stop first.
    let neutral = leases().supervisor_key("reset", "\"neutral\"");
    for (setup, guard) in [(leases(), Guard::Session), (neutral, Guard::Lease)] {
        play(setup, |robot, clients| {
            let mut bench = Bench::new(robot, clients, guard)?;
            let delivered = joystick(&mut bench, 2 * WINDOW)?;
            let moved = robot.listener.last_drive(&LEFT, delivered)?;
            ensure!(moved.is_none(), "{guard:?}: {moved:?} {:?} after it", delivered);
            robot.verified(&LEFT)?;
            Ok(())
        })?;
    }
    Ok(())
}

/// Fails if a command over another connection is carried out right after a Stop, although no order exists between
/// connections; or if the hold concerns another motor, the connection of the Stop itself, or what comes later.
#[test]
fn a_stop_holds_against_other_connections_for_a_while() -> Result<()> {
    const HOLD: Duration = Duration::from_secs(1);
    let setup = patient().front_key("lease_window", "\"10s\"").front_key("stop_hold", "\"1s\"");
    play(setup, |robot, clients| {
        let mut one = Pipeline::connect(clients, &robot.address)?;
        let mut other = Pipeline::connect(clients, &robot.address)?;
        let turn = |motor: &str| Call::set_power(motor, 0.2);
        one.ask(&turn("left"))?;
        other.ask(&turn("right"))?;
        one.ask(&Call::stop("left"))?;
        let stopped = Moment::now();
        let refused = other.call(&turn("left"))?;
        let answered = Moment::now();
        if answered.millis_since(stopped) < HOLD.as_secs_f64() * 1e3 {
            ensure!(
                refused.status == Some(ABORTED) && refused.message.contains("ms"),
                "over another connection: {refused:?}"
            );
        }
        ensure!(other.call(&turn("right"))?.status == Some(OK), "the other motor was not stopped");
        ensure!(one.call(&turn("left"))?.status == Some(OK), "the same connection has an order");
        one.ask(&Call::stop("left"))?;
        sleep(HOLD + Duration::from_millis(100));
        ensure!(other.call(&turn("left"))?.status == Some(OK), "the hold is over");
        Ok(())
    })
}

/// The unmodified TypeScript SDK: six commands and a Stop, none awaited. Over HTTP/1 each call has a connection of its own,
/// and no order exists between them.
#[test]
fn the_typescript_sdk_may_await_nothing() -> Result<()> {
    const TRIES: usize = 4;
    let mut tried = Vec::new();
    for transport in [Transport::Grpc, Transport::GrpcWeb] {
        play(leases(), |robot, _| {
            let mut node = Node::find()?;
            let mut client = node.client(robot, transport)?;
            for _ in 0..TRIES {
                // Something may still hold from the Stop of the try before.
                sleep(AFTERWARDS);
                robot.drive(&mut client, &LEFT, 0.9)?;
                let powers = json!([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
                let stopped = client.ask("burst", json!({ "name": "left", "powers": powers }))?;
                ensure!(stopped == "OK", "{transport:?}: the Stop was answered with {stopped}");
                sleep(AFTERWARDS);
                tried.push((format!("{transport:?}"), standstill(robot)?));
            }
            Ok(())
        })?;
    }
    all_right(&tried)
}

fn standstill(robot: &Robot) -> Result<Verdict> {
    let speed = target(robot, &LEFT)?;
    Ok(if is(speed, 0.0) { Verdict::Right } else { Verdict::Wrong(speed) })
}

/// The unmodified Python SDK: a command each 50 ms, none awaited, and the Stop while the network delivers nothing for
/// 0.15 s. The SDK itself may send commands after the Stop, so only tries count in which the Stop was last on the wire.
#[test]
fn the_python_sdk_may_await_nothing() -> Result<()> {
    const WANTED: usize = 3;
    const MOST: usize = 10;
    const RATE: f64 = 0.05;
    const OUTAGE: Duration = Duration::from_millis(150);
    play(leases(), |robot, clients| {
        let relay = Relay::start(&robot.address)?;
        let mut client = clients.fork()?;
        client.ask("connect", json!({ "address": relay.address }))?;
        let mut tried = Vec::new();
        for _ in 0..MOST {
            client.ask("joystick", json!({ "name": "left", "power": 0.4, "every": RATE }))?;
            robot.sim.wait_for_speed(LEFT.node, 1.0, STILL)?;
            relay.hold();
            sleep(OUTAGE);
            let release = client.begin("release_joystick", json!({ "name": "left" }))?;
            // Until the Stop has been written.
            sleep(Duration::from_millis(50));
            relay.release();
            client.finish(release, STILL)?.value()?;
            sleep(AFTERWARDS);
            if stop_was_last(clients, &relay)? {
                tried.push(("the Stop last on the wire".to_owned(), standstill(robot)?));
            }
            client.ask("stop", json!({ "name": "left" }))?;
            robot.sim.wait_for_standstill(LEFT.node, STILL)?;
            if tried.len() == WANTED {
                break;
            }
        }
        ensure!(
            tried.len() == WANTED,
            "the Stop was last on the wire in {} of {MOST} tries only",
            tried.len()
        );
        all_right(&tried)
    })
}

/// Whether the last call for a motor that was sent over the relay is a Stop.
fn stop_was_last(clients: &mut Clients, relay: &Relay) -> Result<bool> {
    let mut reader = clients.fork()?;
    let mut last = None;
    for passed in relay.passed() {
        let hex: String = passed.iter().map(|byte| format!("{byte:02x}")).collect();
        let paths = reader.ask("paths_of", json!({ "sent": hex }))?;
        let paths = paths.as_array().context("no paths")?;
        let motors =
            |path: &&serde_json::Value| path.as_str().is_some_and(|path| path.contains("MotorService"));
        // The SDK makes its calls over one connection; the others carry heartbeats.
        last = paths.iter().rfind(motors).and_then(|path| path.as_str()).map(str::to_owned).or(last);
    }
    Ok(last.context("no call for a motor was seen")?.ends_with("/Stop"))
}
