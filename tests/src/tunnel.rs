//! Robots that are reached through a tunnel, what is at its end, and programs that drive over it.
//!
//! The programs are `clients/tunnel.py`: python-can's own client of socketcand, unchanged, or datagrams of cannelloni's. What
//! is at the end, `clients/socketcand_server.py` and `clients/cannelloni_end.py`, stands in for the real ones, which are in
//! no registry; it sends on real CAN sockets.

use std::net::{TcpListener, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::clock::Moment;
use crate::expect;
use crate::python::{Client, Clients};
use crate::robot::{Robot, START, STILL, Setup};
use crate::wire::Motor;

/// The bus that a target at the other end serves.
pub const BUS: &str = "vcan0";
/// The window of a link: twenty of [`EVERY`], for a rig that stands still now and then.
pub const WINDOW: Duration = Duration::from_secs(2);
/// How often a program repeats its command, in seconds. Programs with socketcand send every 10 to 100 ms.
pub const EVERY: f64 = 0.1;
/// What programs have motors turn at, revolutions a second.
pub const BRISK: f64 = 2.0;
/// How long the end of a link may take to be seen at either end of it.
pub const CUT: Duration = Duration::from_secs(2);

/// Where everything of a tunnel is on this computer.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    api: u16,
    target: u16,
    source: u16,
}

impl Site {
    /// Ports that are free now; nobody else on the machine takes any meanwhile.
    ///
    /// # Errors
    /// There are none.
    pub fn free() -> Result<Self> {
        // All held until all are known, so that they differ.
        let api = TcpListener::bind("127.0.0.1:0")?;
        let target = TcpListener::bind("127.0.0.1:0")?;
        let source = UdpSocket::bind("127.0.0.1:0")?;
        Ok(Self {
            api: api.local_addr()?.port(),
            target: target.local_addr()?.port(),
            source: source.local_addr()?.port(),
        })
    }

    /// Where the session API is.
    #[must_use]
    pub fn api(&self) -> String {
        format!("127.0.0.1:{}", self.api)
    }

    /// Where the target is.
    #[must_use]
    pub fn target(&self) -> String {
        format!("127.0.0.1:{}", self.target)
    }

    /// From where datagrams reach the target.
    #[must_use]
    pub fn source(&self) -> String {
        format!("127.0.0.1:{}", self.source)
    }

    /// `[tunnel]` with further keys, and one target with all of its own.
    #[must_use]
    pub fn section(&self, keys: &str, target: &str) -> String {
        let (api, address) = (self.api(), self.target());
        format!(
            "[tunnel]\nlisten = \"{api}\"\n{keys}\n[[tunnel.target]]\nname = \"can\"\naddress = \"{address}\"\n{target}\n"
        )
    }

    /// The keys of a target that is a socketcand with these motors behind it, and more.
    #[must_use]
    pub fn socketcand(motors: &[Motor], more: &str) -> String {
        let window = WINDOW.as_millis();
        let motors = names(motors);
        format!(
            "protocol = \"tcp\"\nspeaks = \"socketcand\"\nbus = \"{BUS}\"\nmotors = {motors}\nwindow = \"{window}ms\"\n{more}"
        )
    }

    /// The keys of a target that is a cannelloni with these motors behind it, and more.
    #[must_use]
    pub fn cannelloni(&self, motors: &[Motor], more: &str) -> String {
        let (window, source) = (WINDOW.as_millis(), self.source());
        let motors = names(motors);
        format!(
            "protocol = \"udp\"\nspeaks = \"cannelloni\"\nmotors = {motors}\nwindow = \"{window}ms\"\nsource = \
             \"{source}\"\n{more}"
        )
    }

    /// The keys of a target that is a cannelloni over TCP with these motors behind it.
    #[must_use]
    pub fn cannelloni_over_tcp(motors: &[Motor]) -> String {
        let (window, motors) = (WINDOW.as_millis(), names(motors));
        format!("protocol = \"tcp\"\nspeaks = \"cannelloni\"\nmotors = {motors}\nwindow = \"{window}ms\"")
    }

    /// A robot of these motors with that tunnel.
    #[must_use]
    pub fn robot(&self, motors: &[Motor], keys: &str, target: &str) -> Setup {
        motors.iter().fold(Setup::new(), Setup::with).section(&self.section(keys, target))
    }
}

fn names(motors: &[Motor]) -> String {
    let names: Vec<_> = motors.iter().map(|motor| format!("\"{}\"", motor.name)).collect();
    format!("[{}]", names.join(", "))
}

/// What is at the end of a tunnel, in a process of its own. It is killed when this is dropped.
#[derive(Debug)]
pub struct Target(Client);

impl Deref for Target {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

impl DerefMut for Target {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.0
    }
}

impl Target {
    /// A server with socketcand's protocol.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn socketcand(clients: &mut Clients, site: &Site) -> Result<Self> {
        let mut server = Self(clients.fork_socketcand()?);
        server.ask("serve", json!({ "buses": [BUS], "port": site.target }))?;
        Ok(server)
    }

    /// The end of a cannelloni, which sends what is on the bus to the one address that it was given.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn cannelloni(clients: &mut Clients, site: &Site) -> Result<Self> {
        let mut end = Self(clients.fork_cannelloni()?);
        end.ask("serve", json!({ "bus": BUS, "port": site.target, "remote": site.source() }))?;
        Ok(end)
    }

    /// The end of a cannelloni that others connect to.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn cannelloni_over_tcp(clients: &mut Clients, site: &Site) -> Result<Self> {
        let mut end = Self(clients.fork_cannelloni()?);
        end.ask("serve_tcp", json!({ "bus": BUS, "port": site.target }))?;
        Ok(end)
    }

    /// What it has noted from a moment on; of a server its elements and ends, of a cannelloni the datagrams.
    ///
    /// # Errors
    /// It has died.
    pub fn seen(&mut self, since: Moment) -> Result<Vec<Value>> {
        let seen = self.ask("seen", json!({ "since": since.0 }))?;
        seen.as_array().cloned().context("no list")
    }

    /// Waits for the end of a connection of a server's; returns when the server had seen it.
    ///
    /// # Errors
    /// None has ended.
    pub fn wait_for_end(&mut self, since: Moment) -> Result<Moment> {
        expect::within(STILL, "the server's connection ends", || {
            let seen = self.seen(since).map_err(|error| format!("{error:#}"))?;
            let end = seen.iter().find(|note| note[0] == "end").and_then(|note| note[2].as_i64());
            end.map(Moment).ok_or_else(|| format!("{} notes", seen.len()))
        })
    }

    /// Fails if a server has got anything from a moment on that may move something.
    ///
    /// # Errors
    /// It has.
    pub fn got_no_command_since(&mut self, since: Moment) -> Result<()> {
        let seen = self.seen(since)?;
        let is_command = |note: &&Value| {
            let element = note[1].as_str().unwrap_or_default();
            note[0] == "element"
                && ["< send", "< add", "< update"].iter().any(|word| element.starts_with(word))
        };
        match seen.iter().find(is_command) {
            None => Ok(()),
            Some(note) => anyhow::bail!("{note} reached the target after {since}"),
        }
    }
}

/// What the session API answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u64,
    /// The body, as JSON where it is some.
    pub body: Value,
}

/// A program, and who opens tunnels for it. It is killed when this is dropped.
#[derive(Debug)]
pub struct Program(Client);

impl Deref for Program {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.0
    }
}

impl Program {
    /// A program that is not connected to anything.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn idle(clients: &mut Clients) -> Result<Self> {
        Ok(Self(clients.fork_tunnel()?))
    }

    /// One call of the session API; `arguments` are those of `clients/hoprd.py`, but for the address.
    ///
    /// # Errors
    /// There is no answer.
    pub fn rest(&mut self, site: &Site, call: &str, mut arguments: Value) -> Result<Answer> {
        arguments["call"] = json!(call);
        arguments["address"] = json!(site.api());
        let answer = self.ask("rest", arguments)?;
        let status = answer["status"].as_u64().context("no status")?;
        Ok(Answer { status, body: answer["body"].clone() })
    }

    /// Asks for a listener of TCP to a target.
    ///
    /// # Errors
    /// There is no answer.
    pub fn create(&mut self, site: &Site, protocol: &str, target: &str) -> Result<Answer> {
        let wish =
            json!({ "protocol": protocol, "target": { "Plain": target }, "listen_host": "127.0.0.1:0" });
        self.rest(site, "create", wish)
    }

    /// A new listener to the site's target; returns its address.
    ///
    /// # Errors
    /// There is none.
    pub fn opened(&mut self, site: &Site, protocol: &str) -> Result<String> {
        let answer = self.create(site, protocol, &site.target())?;
        ensure!(answer.status == 200, "no listener: {answer:?}");
        address_of(&answer.body)
    }

    /// The addresses of all listeners.
    ///
    /// # Errors
    /// There is no answer, or another than a list.
    pub fn listed(&mut self, site: &Site, protocol: &str) -> Result<Vec<String>> {
        let answer = self.rest(site, "listed", json!({ "protocol": protocol }))?;
        ensure!(answer.status == 200, "no list: {answer:?}");
        answer.body.as_array().context("no list")?.iter().map(address_of).collect()
    }

    /// Closes a listener; port 0: all of that address. Returns the status.
    ///
    /// # Errors
    /// There is no answer.
    pub fn close(&mut self, site: &Site, protocol: &str, address: &str) -> Result<u64> {
        let (ip, port) = address.rsplit_once(':').context("no port")?;
        let ip = ip.trim_matches(['[', ']']);
        Ok(self.rest(site, "close", json!({ "protocol": protocol, "ip": ip, "port": port }))?.status)
    }

    /// What is known of a listener, also of one that has ended lately.
    ///
    /// # Errors
    /// There is no answer, or nothing is known.
    pub fn stats(&mut self, site: &Site, protocol: &str, address: &str) -> Result<Value> {
        let (ip, port) = address.rsplit_once(':').context("no port")?;
        let path = format!("/api/v3/session/stats/{protocol}/{ip}/{port}");
        let answer = self.rest(site, "request", json!({ "method": "GET", "path": path }))?;
        ensure!(answer.status == 200, "no stats of {address}: {answer:?}");
        Ok(answer.body)
    }

    /// Connects python-can to a listener.
    ///
    /// # Errors
    /// It cannot.
    pub fn open_bus(&mut self, address: &str) -> Result<()> {
        self.call_within(START, "open_bus", json!({ "address": address, "channel": BUS }))?.value().map(drop)
    }

    /// Has motors turn over python-can, which repeats the commands by itself, and waits until bus and shafts show it.
    ///
    /// # Errors
    /// They do not turn.
    pub fn turn(&mut self, robot: &Robot, motors: &[Motor]) -> Result<()> {
        let from = Moment::now();
        for motor in motors {
            self.ask("turn", json!({ "node": motor.node, "speed": BRISK, "every": EVERY }))?;
        }
        motors.iter().try_for_each(|motor| robot.moves(motor, from, BRISK))
    }
}

fn address_of(listener: &Value) -> Result<String> {
    let ip = listener["ip"].as_str().context("a listener without ip")?;
    let port = listener["port"].as_u64().context("a listener without port")?;
    Ok(if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") })
}

/// Waits until a listener is in no list any more.
///
/// # Errors
/// It still is.
pub fn is_gone(program: &mut Program, site: &Site, protocol: &str, address: &str) -> Result<()> {
    expect::within(CUT, "the listener is gone", || {
        let listed = program.listed(site, protocol).map_err(|error| format!("{error:#}"))?;
        if listed.iter().any(|other| other == address) { Err(format!("{listed:?}")) } else { Ok(()) }
    })
}

/// An address of this computer's own, on its loopback interface, that can vanish like a network.
#[derive(Debug)]
pub struct Network {
    address: &'static str,
}

impl Network {
    /// A network with this address of ours in it.
    ///
    /// # Errors
    /// See [`crate::interface::ip`].
    pub fn with(address: &'static str) -> Result<Self> {
        crate::interface::ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
        Ok(Self { address })
    }

    /// Our address.
    #[must_use]
    pub const fn address(&self) -> &'static str {
        self.address
    }
}

impl Drop for Network {
    /// Nothing is told to anybody: what is sent to the address from now on is lost.
    fn drop(&mut self) {
        let taken = crate::interface::ip(&["address", "del", &format!("{}/32", self.address), "dev", "lo"]);
        if let Err(error) = taken {
            eprintln!("{} is left on lo: {error:#}", self.address);
        }
    }
}
