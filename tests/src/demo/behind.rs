//! `--viam-upstream`: docs/viam.md, performed. A robot that is driven by a server of Viam's gets Lanyard in front of it;
//! then the client dies, and then the server.
//!
//! The server is the component server that comes with Viam's SDK for Python; its base turns two motors over CAN by itself,
//! as viam-server would. Every step that the page asks a person to do is done here with the same commands and the same file.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Act, Expired, NOTICED, PROMPT, Report, Timeline, expired, figures, proven, show, wait_for_stops,
};
use crate::clock::Moment;
use crate::expect;
use crate::folder::Folder;
use crate::interface::peer;
use crate::python::{Client, Clients};
use crate::robot::{LEFT, RIGHT, Robot, START, STATE, STILL, Setup};
use crate::wire::Motor;

/// What the server turns.
const MOTORS: [Motor; 2] = [LEFT, RIGHT];

/// The robot as viam-server has it until now, listening at that port.
fn robot_json(port: u16) -> Value {
    let motor = |name: &str, node: u8| {
        json!({
            "name": name, "api": "rdk:component:motor", "model": "viam:odrive:canbus",
            "attributes": { "canbus_node_id": node, "max_rpm": 300 },
        })
    };
    json!({
        "network": { "bind_address": format!("127.0.0.1:{port}"), "sessions": { "heartbeat_window": "2s" } },
        "components": [
            motor(LEFT.name, LEFT.node),
            motor(RIGHT.name, RIGHT.node),
            {
                "name": "base1", "api": "rdk:component:base", "model": "rdk:builtin:wheeled",
                "attributes": {
                    "left": [LEFT.name], "right": [RIGHT.name], "wheel_circumference_mm": 400, "width_mm": 500,
                },
            },
        ],
    })
}

/// The file that the page ends with, and where things are.
struct Installed {
    config: PathBuf,
    address: String,
    socket: PathBuf,
    upstream_port: u16,
    _folder: Folder,
}

/// Plays all acts; what was measured until something fails is in the report.
pub fn play(bus: &str, programs: &Path, clients: &mut Clients, timeline: &mut Timeline) -> Report {
    let mut result = Report::default();
    let outcome = follow_the_page(bus, programs, timeline).and_then(|installed| {
        let setup = Setup::new().with(&LEFT).with(&RIGHT).on(bus).programs(programs);
        let setup = setup.installed(&installed.config, &installed.address, &installed.socket);
        let mut robot = setup.start().context("the robot does not start")?;
        let played = play_acts(&mut robot, &installed, bus, clients, timeline, &mut result.acts);
        played.with_context(|| format!("the programs have printed:\n{}", robot.printed()))
    });
    match outcome {
        Ok(()) => result.ok = true,
        Err(error) => {
            timeline.say(&format!("FAILED: {error:#}"));
            result.error = Some(format!("{}", error.root_cause()));
        }
    }
    result
}

/// Steps 1 to 3 of the page: import, fill in, check.
fn follow_the_page(bus: &str, programs: &Path, timeline: &mut Timeline) -> Result<Installed> {
    timeline.act("docs/viam.md, step by step");
    let folder = Folder::new()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let (robot, config) = (folder.file("robot.json"), folder.file("lanyard.toml"));
    fs::write(&robot, serde_json::to_string_pretty(&robot_json(port))?)?;
    let lanyard = |arguments: &[&std::ffi::OsStr]| -> Result<std::process::Output> {
        let output = Command::new(programs.join("lanyard")).args(arguments).output();
        output.context("cannot start lanyard")
    };
    let imported =
        lanyard(&["import-viam".as_ref(), robot.as_os_str(), "--out".as_ref(), config.as_os_str()])?;
    ensure!(imported.status.success(), "import-viam: {}", String::from_utf8_lossy(&imported.stderr));
    let text = fs::read_to_string(&config)?;
    let numbered = (1..).zip(text.lines());
    let marked: Vec<usize> =
        numbered.filter(|(_, line)| line.contains("FILL IN:")).map(|(number, _)| number).collect();
    timeline.say(&format!(
        "lanyard import-viam robot.json --out lanyard.toml: {} lines to fill in",
        marked.len()
    ));

    let checked = lanyard(&["check".as_ref(), config.as_os_str()])?;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    let named: Vec<usize> = said.lines().filter_map(line_of).collect();
    ensure!(
        !checked.status.success() && named == marked,
        "lines {marked:?} are to be filled in, check says: {said}"
    );
    timeline.say("lanyard check lanyard.toml names these lines, and no other");

    let socket = folder.file("supervisor.sock");
    let text = fill_in(&text, bus, &socket)?;
    let upstream_port = upstream_port(&text)?;
    fs::write(&config, text)?;
    let checked = lanyard(&["check".as_ref(), config.as_os_str()])?;
    ensure!(checked.status.success(), "check: {}", String::from_utf8_lossy(&checked.stderr));
    timeline.say("filled in bus, drive family and node of each motor; lanyard check: right");
    timeline.say(&format!("viam-server moves to port {upstream_port}; clients go on calling port {port}"));
    let address = format!("127.0.0.1:{port}");
    Ok(Installed { config, address, socket, upstream_port, _folder: folder })
}

/// The line of the file that a mistake is on.
fn line_of(mistake: &str) -> Option<usize> {
    mistake.split_once(".toml:")?.1.split(':').next()?.parse().ok()
}

/// What a person fills in; and what makes this robot fit beside others on one machine.
fn fill_in(text: &str, bus: &str, socket: &Path) -> Result<String> {
    let mut nodes = MOTORS.iter().map(|motor| motor.node);
    let mut filled = Vec::new();
    for line in text.lines() {
        filled.push(match line.split(" = ").next() {
            Some("name") if line.ends_with("\"can0\"") => {
                // On an interface without a wire the simulated drives are programs like any other.
                let local = if peer(bus).is_none() { "\nlocal_drives = true" } else { "" };
                format!("name = \"{bus}\"{local}")
            }
            Some("bus") => format!("bus = \"{bus}\""),
            Some("driver") => {
                let node = nodes.next().context("more motors than were imported")?;
                format!("driver = \"odrive\"\nnode = {node}\nfirmware = \"0.6\"")
            }
            Some("after_stop") => "after_stop = \"hold\"".to_owned(),
            Some("[supervisor]") => {
                let state = socket.with_file_name(STATE);
                format!(
                    "[supervisor]\nsocket = \"{}\"\nstate = \"{}\"\nuser = \"nobody\"",
                    socket.display(),
                    state.display()
                )
            }
            _ => line.to_owned(),
        });
    }
    Ok(filled.join("\n") + "\n")
}

/// The port to which the import moves the server.
fn upstream_port(text: &str) -> Result<u16> {
    let address = text.lines().find_map(|line| line.strip_prefix("address = \"http://127.0.0.1:"));
    let port = address.and_then(|rest| rest.strip_suffix('"')).context("no address of the server")?;
    Ok(port.parse()?)
}

fn play_acts(
    robot: &mut Robot,
    installed: &Installed,
    bus: &str,
    clients: &mut Clients,
    timeline: &mut Timeline,
    acts: &mut Vec<Act>,
) -> Result<()> {
    timeline.say("lanyard-supervisor and lanyard-front run; every motor was stopped first");
    let mut server = start_server(installed, bus, clients)?;
    timeline
        .say("the server of Viam's Python SDK runs, with base1 and its motors; it knows nothing of Lanyard");
    timeline.act("The client is killed");
    acts.push(client_killed(robot, &mut server, clients, timeline)?);
    timeline.act("A new client drives, and the server is killed");
    acts.push(server_killed(robot, server, clients, timeline)?);
    timeline.act("The server is started again");
    let _server = start_server(installed, bus, clients)?;
    drop(drive(robot, clients, timeline)?);
    Ok(())
}

fn start_server(installed: &Installed, bus: &str, clients: &mut Clients) -> Result<Client> {
    let mut server = clients.fork_upstream()?;
    let resources = json!({
        "base/base1": [LEFT.node, RIGHT.node], "motor/left": [LEFT.node], "motor/right": [RIGHT.node],
    });
    server.ask("serve", json!({ "port": installed.upstream_port, "bus": bus, "resources": resources }))?;
    Ok(server)
}

/// A client as it was before Lanyard, at the address it knows.
fn drive(robot: &Robot, clients: &mut Clients, timeline: &mut Timeline) -> Result<Client> {
    let mut client = expect::within(START, "a client sees the server's base", || {
        let mut client = robot.client(clients).map_err(|error| format!("{error:#}"))?;
        let names = client.ask("resource_names", json!({})).map_err(|error| format!("{error:#}"))?;
        let base = "rdk:component:base/base1";
        let seen = names.as_array().is_some_and(|names| names.iter().any(|name| name == base));
        if seen { Ok(client) } else { Err(names.to_string()) }
    })?;
    // Lanyard knows the names of a server that was there before; whether it is there again the first command shows.
    let from = expect::within(START, "the server takes a command", || {
        let from = Moment::now();
        let command = json!({ "name": "base1", "forward": 600.0 });
        client.ask("base_set_velocity", command).map(|_| from).map_err(|error| format!("{error:#}"))
    })?;
    for motor in &MOTORS {
        robot.moves(motor, from, 1.0)?;
    }
    timeline.say("an unmodified viam-sdk client drives base1; the server turns its motors over CAN");
    Ok(client)
}

fn client_killed(
    robot: &Robot,
    server: &mut Client,
    clients: &mut Clients,
    timeline: &mut Timeline,
) -> Result<Act> {
    let mut client = drive(robot, clients, timeline)?;
    let Expired { last_beat, deadline, stops } = expired(robot, &mut client, &MOTORS, timeline)?;
    let asked = expect::within(STILL, "the server is told to stop base1", || {
        let told = server.ask("told", json!({})).map_err(|error| format!("{error:#}"))?;
        let stop = |note: &&Value| note["resource"] == "base/base1" && note["did"] == "stop";
        let stop = told.as_array().and_then(|notes| notes.iter().find(stop));
        stop.and_then(|note| note["at"].as_i64()).map(Moment).ok_or_else(|| told.to_string())
    })?;
    timeline.at(asked, "the server is told to stop base1, too");
    let first = stops.iter().map(|stop| stop.first).min().context("no stop")?;
    ensure!(asked >= first, "the server was told before the stop on CAN");
    let motors = proven(robot, timeline, &stops)?;
    figures("client killed", &stops, Some(last_beat), deadline, motors)
}

fn server_killed(
    robot: &Robot,
    mut server: Client,
    clients: &mut Clients,
    timeline: &mut Timeline,
) -> Result<Act> {
    let mut client = drive(robot, clients, timeline)?;
    let death = server.kill()?;
    timeline.at(death, "SIGKILL for the server; its client is alive and well");
    let stops = wait_for_stops(robot, &MOTORS, death, NOTICED + PROMPT)?;
    show(timeline, &stops, death);
    let trip = robot.lanyard.wait_for_trip(death, "upstream lost", LEFT.name, START)?;
    // The library forgets its session with the first refusal; the second says what is wrong.
    let command = json!({ "name": "base1", "forward": 600.0 });
    let refused = expect::within(STILL, "the client is told why", || {
        let outcome = client.call("base_set_velocity", command.clone());
        let refusal = outcome.and_then(|outcome| outcome.refusal()).map_err(|error| format!("{error:#}"))?;
        if refusal.status.as_deref() == Some("UNAVAILABLE") {
            Ok(refusal)
        } else {
            Err(format!("{refusal:?}"))
        }
    })?;
    timeline.say(&format!("the client's next command: UNAVAILABLE, \"{}\"", refused.message));
    let motors = proven(robot, timeline, &stops)?;
    figures("server killed", &stops, trip.last_beat(), death, motors)
}
