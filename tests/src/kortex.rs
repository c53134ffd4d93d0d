//! An arm of two joints for programs that speak Kinova's Kortex, and such programs.
//!
//! The programs are `clients/kortex.py`, which was written from what the real clients do on the wire.

use std::net::{TcpListener, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::clock::Moment;
use crate::expect;
use crate::python::{Client, Clients, Refusal};
use crate::robot::{LEFT, MOVE, RIGHT, Robot, START, Setup};
use crate::wire::Motor;

/// The motor of each joint, and how often it turns for one revolution of the joint.
pub const JOINTS: [(Motor, f64); 2] = [(LEFT, 1.0), (RIGHT, 2.0)];
/// Both motors turn at 2 revolutions a second: degrees per second of each joint.
pub const BRISK: [f64; 2] = [720.0, 360.0];
/// `stop_hold` of the configuration: a command that is meant comes that long after the answer to the call before it by which
/// its program shows that it knows of a stop.
pub const STOP_HOLD: Duration = Duration::from_millis(250);
/// How far a turning shaft may be from what was commanded: the simulated regulator settles within a hundredth.
const TOLERANCE: f64 = 0.05;

/// What carries a program's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Generation 2.
    Tcp,
    /// Both generations.
    Udp,
    /// Generation 3.
    Mqtt,
}

impl Transport {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Mqtt => "mqtt",
        }
    }
}

/// Where the front listens for Kortex.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    tcp: u16,
    udp: u16,
    mqtt: u16,
}

impl Ports {
    /// Ports that are free now; nobody else on the machine takes any meanwhile.
    ///
    /// # Errors
    /// There are none.
    pub fn free() -> Result<Self> {
        let [ports] = Self::several()?;
        Ok(ports)
    }

    /// As many, and no port twice.
    ///
    /// # Errors
    /// There are none.
    pub fn several<const COUNT: usize>() -> Result<[Self; COUNT]> {
        // All held until all are known, so that they differ.
        let mut held = Vec::new();
        for _ in 0..COUNT {
            let (tcp, mqtt) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
            held.push((tcp, UdpSocket::bind("127.0.0.1:0")?, mqtt));
        }
        let ports = held.iter().map(|(tcp, udp, mqtt)| {
            let [tcp, udp, mqtt] = [tcp.local_addr(), udp.local_addr(), mqtt.local_addr()];
            Ok(Self { tcp: tcp?.port(), udp: udp?.port(), mqtt: mqtt?.port() })
        });
        let ports: Vec<Self> = ports.collect::<Result<_>>()?;
        ports.try_into().ok().context("not as many ports as were bound")
    }

    /// The port of a transport.
    #[must_use]
    pub const fn port(&self, transport: Transport) -> u16 {
        match transport {
            Transport::Tcp => self.tcp,
            Transport::Udp => self.udp,
            Transport::Mqtt => self.mqtt,
        }
    }

    /// Where a transport is served.
    #[must_use]
    pub fn address(&self, transport: Transport) -> String {
        format!("127.0.0.1:{}", self.port(transport))
    }

    fn addresses(&self, transports: &[Transport]) -> String {
        let key =
            |transport: &Transport| format!("{} = \"{}\"\n", transport.name(), self.address(*transport));
        transports.iter().map(key).collect()
    }

    /// The section of the configuration, with further keys in TOML.
    #[must_use]
    pub fn section(&self, keys: &str) -> String {
        let addresses = self.addresses(&[Transport::Tcp, Transport::Udp, Transport::Mqtt]);
        let joint = |(motor, ratio): &(Motor, f64)| {
            format!("[[kortex.joint]]\nmotor = \"{}\"\ngear_ratio = {ratio:?}\n", motor.name)
        };
        let joints: String = JOINTS.iter().map(joint).collect();
        format!("[kortex]\n{addresses}{keys}\n{joints}")
    }

    /// A robot whose arm is the one of a base behind, over TCP and UDP. The base drives the left motor on CAN; the right
    /// one is Lanyard's own.
    #[must_use]
    pub fn in_front_of(&self, base: &Self) -> Setup {
        let both = [Transport::Tcp, Transport::Udp];
        let (here, there) = (self.addresses(&both), base.addresses(&both));
        let section = format!("[kortex]\n{here}[kortex.upstream]\n{there}motors = [\"{}\"]\n", LEFT.name);
        Setup::new().with(&LEFT).with(&RIGHT).section(&section)
    }

    /// A robot whose arm is served there.
    #[must_use]
    pub fn robot(&self, keys: &str) -> Setup {
        Setup::new().with(&LEFT).with(&RIGHT).section(&self.section(keys))
    }
}

/// How long a session may be silent, in milliseconds, as its program says.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Then what it drives is stopped.
    pub connection: u32,
    /// Then it is closed.
    pub session: u32,
}

impl Times {
    /// What Kinova's examples say.
    pub const USUAL: Self = Self { connection: 2_000, session: 60_000 };

    /// With another time until what it drives is stopped.
    #[must_use]
    pub const fn connection(connection: u32) -> Self {
        Self { connection, ..Self::USUAL }
    }

    /// The same as the time in which it is stopped.
    #[must_use]
    pub fn window(self) -> Duration {
        Duration::from_millis(self.connection.into())
    }
}

/// A program in a process of its own. It is killed when this is dropped.
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
        Ok(Self(clients.fork_kortex()?))
    }

    /// One that is connected and has no session.
    ///
    /// # Errors
    /// It cannot connect.
    pub fn connected(clients: &mut Clients, ports: &Ports, transport: Transport) -> Result<Self> {
        Self::connected_at(clients, &ports.address(transport), transport)
    }

    /// One that is connected to that address and has no session.
    ///
    /// # Errors
    /// It cannot connect.
    pub fn connected_at(clients: &mut Clients, address: &str, transport: Transport) -> Result<Self> {
        let mut program = Self::idle(clients)?;
        let place = json!({ "address": address, "transport": transport.name() });
        program.call_within(START, "connect", place)?.value().context("cannot connect")?;
        Ok(program)
    }

    /// One with a session.
    ///
    /// # Errors
    /// It gets none.
    pub fn open(clients: &mut Clients, ports: &Ports, transport: Transport, times: Times) -> Result<Self> {
        let mut program = Self::connected(clients, ports, transport)?;
        program.create_session(times)?;
        Ok(program)
    }

    /// Creates a session; returns its number.
    ///
    /// # Errors
    /// It is refused.
    pub fn create_session(&mut self, times: Times) -> Result<u64> {
        let wish = json!({ "session_ms": times.session, "connection_ms": times.connection });
        self.ask("create_session", wish)?.as_u64().context("a session without number")
    }

    /// Calls a method by its name.
    ///
    /// # Errors
    /// It is refused.
    pub fn method(&mut self, method: &str, values: Value) -> Result<Value> {
        self.ask("call", json!({ "method": method, "values": values }))
    }

    /// Calls a method by its name, which must be refused.
    ///
    /// # Errors
    /// It is not.
    pub fn refused(&mut self, method: &str, values: Value) -> Result<Refusal> {
        self.0.call("call", json!({ "method": method, "values": values }))?.refusal()
    }

    /// What became of its connection.
    ///
    /// # Errors
    /// It has died.
    pub fn state(&mut self) -> Result<Value> {
        self.ask("state", json!({}))
    }

    /// Commands the joints, in degrees per second.
    ///
    /// # Errors
    /// It is refused.
    pub fn speeds(&mut self, speeds: [f64; 2]) -> Result<()> {
        self.ask("speeds", json!({ "speeds": speeds })).map(drop)
    }

    /// Shows by a call, Stop or ClearFaults, that it knows of a stop, and waits until its next command counts as one that
    /// follows the answer.
    ///
    /// # Errors
    /// It is refused.
    pub fn acknowledge(&mut self, method: &str) -> Result<()> {
        self.method(method, json!({}))?;
        std::thread::sleep(STOP_HOLD);
        Ok(())
    }

    /// Drives after a stop of which it has shown that it knows.
    ///
    /// # Errors
    /// As for [`Program::drive`].
    pub fn drive_again(&mut self, robot: &Robot, speeds: [f64; 2]) -> Result<()> {
        self.acknowledge("Stop")?;
        self.drive(robot, speeds)
    }

    /// Commands the joints, and waits until the bus and the shafts show it.
    ///
    /// # Errors
    /// They do not turn, or not at these speeds.
    pub fn drive(&mut self, robot: &Robot, speeds: [f64; 2]) -> Result<()> {
        let from = Moment::now();
        self.speeds(speeds)?;
        for ((motor, _), speed) in JOINTS.iter().zip(speeds) {
            if speed != 0.0 {
                robot.listener.wait_for_drive(motor, from, MOVE)?;
            }
        }
        turns(robot, speeds)
    }
}

/// Waits until the shafts turn so that the joints have these speeds, in degrees per second.
///
/// # Errors
/// They do not.
pub fn turns(robot: &Robot, speeds: [f64; 2]) -> Result<()> {
    for ((motor, ratio), degrees) in JOINTS.iter().zip(speeds) {
        let wanted = degrees / 360.0 * ratio;
        expect::within(MOVE, &format!("{} turns at {wanted} rev/s", motor.name), || {
            let speed = robot.sim.report(motor.node).map_err(|error| format!("{error:#}"))?.velocity();
            if (speed - wanted).abs() <= TOLERANCE { Ok(()) } else { Err(speed.to_string()) }
        })?;
    }
    Ok(())
}

/// Fails unless a refusal has these codes, and says something.
///
/// # Errors
/// It has others.
pub fn has_codes(refusal: &Refusal, codes: &str) -> Result<()> {
    ensure!(
        refusal.status.as_deref() == Some(codes) && !refusal.message.is_empty(),
        "expected the error {codes}, not {refusal:?}"
    );
    Ok(())
}
