//! A whole robot in a folder of its own: simulated drives, supervisor, front, and a witness on the bus.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::bound::{self, ensure_within};
use crate::clock::Moment;
use crate::folder::Folder;
use crate::holder;
use crate::interface::peer;
use crate::listener::Listener;
use crate::process::Process;
use crate::python::{Client, Clients};
use crate::shipped;
use crate::simulation::Simulation;
use crate::stalls::Stalls;
use crate::status::{Event, Lanyard, MotorStatus};
use crate::wire::{Family, Motor, Seen};

/// How long a program may take to start. With the page cache cold a second; ten times that on a rig whose
/// machine is busy with others. Like the next two, this only says when to give up.
pub const START: Duration = Duration::from_secs(30);
/// How long a drive may take to come up and turn: enabling has 3 s of its own, a CiA 402 drive needs some
/// twenty round trips over the bus.
pub const MOVE: Duration = Duration::from_secs(30);
/// How long a stopped motor may take to be proven still: the ramp, three readings, and the status command.
pub const STILL: Duration = Duration::from_secs(30);
/// Where the supervisor keeps what waits for a reset: in the folder of its robot.
pub const STATE: &str = "state";
/// A little longer than `stop_hold` by default: a command after that counts as given after the answer to a Stop.
pub const AFTER_STOP: Duration = Duration::from_millis(350);
/// How late a stop frame may come after its deadline, besides what the machine itself stood still (see
/// [`Stalls`]). The supervisor sleeps until the deadline, so a millisecond is usual; the rest is for the rig's
/// one processor, on which every clock read is a trip to the host (25 us), and where a pass over all motors
/// may be under way.
pub const LATE: Duration = Duration::from_millis(15);
/// For how long after a stop a motion frame may come that was under way: the front had to wait for a processor. In the longest
/// case that was seen, 32 ms, the machine had four times more to do than it can.
const UNDER_WAY: Duration = Duration::from_millis(100);
/// By when a motion frame that came after a stop is answered: the bus guard does it as soon as it reads the frame, and a stop
/// under way is repeated within 20 ms anyway. The rest is for the machine.
const ANSWERED: Duration = Duration::from_millis(100);

/// The two wheels of [`Setup::base`].
pub const LEFT: Motor = Motor::new("left", 3, Family::Odrive);
/// The other wheel. Not node 4: its identifiers from 0x080 on would hold CANopen's SYNC and emergencies.
pub const RIGHT: Motor = Motor::new("right", 6, Family::Odrive);
/// A CiA 402 drive commanded by SDO. Its emergency message, 0x080 + node, is none of an ODrive 3 or 6.
pub const ARM: Motor = Motor::new("arm", 40, Family::Sdo);
/// A CiA 402 drive commanded by PDO.
pub const ARM_PDO: Motor = Motor::new("arm", 40, Family::Pdo);

/// One motor of a setup.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    /// What the witness knows of it.
    motor: Option<Motor>,
    /// Its table in the configuration, but for name and bus.
    table: String,
    /// Its simulated drive, as `lanyard-sim` takes it.
    drive: String,
}

/// What robot to start.
#[derive(Clone, Debug)]
pub struct Setup {
    bus: String,
    /// The interface of the simulated drives and of the witness, if not `bus`.
    far_end: Option<String>,
    /// A second interface that reaches every motor.
    second: Option<String>,
    parts: Vec<Part>,
    fd: bool,
    base: bool,
    supervisor: Vec<(String, String)>,
    front: Vec<(String, String)>,
    /// What stands at the end of the configuration.
    more: String,
    programs: Option<PathBuf>,
    installed: Option<Installed>,
    started: Started,
}

/// A configuration that was written otherwise.
#[derive(Clone, Debug)]
struct Installed {
    config: PathBuf,
    address: String,
    socket: PathBuf,
}

/// What is started at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    Everything,
    NoFront,
    DrivesOnly,
}

impl Setup {
    /// A robot without motors on `vcan0`. Trips clear themselves unless [`Setup::manual`] is called. Unless
    /// [`Setup::as_installed`] is called, the front may be silent for 1 s, the loop late by 1 s, and the kernel
    /// waits 1 s for the supervisor, because the rig as a whole can stand still for longer than the defaults,
    /// and the supervisor, or the kernel, is right to stop everything then; and what is
    /// done at regular times is done half as often, because the rig has one slow processor for everything.
    #[must_use]
    pub fn new() -> Self {
        let text = |key: &str, value: &str| (key.to_owned(), format!("\"{value}\""));
        Self {
            bus: "vcan0".to_owned(),
            far_end: None,
            second: None,
            parts: Vec::new(),
            fd: false,
            base: false,
            supervisor: vec![
                text("reset", "auto"),
                text("front_window", "1s"),
                text("tick", "10ms"),
                text("max_lateness", "900ms"),
                text("kernel_stop", "1s"),
                text("user", "nobody"),
            ],
            front: vec![text("heartbeat_window", "2s"), text("refresh", "40ms")],
            more: String::new(),
            programs: None,
            installed: None,
            started: Started::Everything,
        }
    }

    /// Two ODrive wheels with a base called `base1`.
    #[must_use]
    pub fn base() -> Self {
        let mut setup = Self::new().with(&LEFT).with(&RIGHT);
        setup.base = true;
        setup
    }

    /// Adds a motor.
    #[must_use]
    pub fn with(self, motor: &Motor) -> Self {
        self.with_keys(motor, "", "")
    }

    /// Adds a motor with more lines in its table and more keys for its simulated drive.
    #[must_use]
    pub fn with_keys(mut self, motor: &Motor, config: &str, drive: &str) -> Self {
        let family = match motor.family {
            Family::Odrive => "driver = \"odrive\"\nfirmware = \"0.6\"",
            Family::Sdo => "driver = \"cia402\"\ntransport = \"sdo\"\ncounts_per_rev = 4096",
            Family::Pdo => "driver = \"cia402\"\ntransport = \"pdo\"\ncounts_per_rev = 4096",
        };
        let kind = match motor.family {
            Family::Odrive => "odrive",
            Family::Sdo | Family::Pdo => "cia402",
        };
        let more = if drive.is_empty() { String::new() } else { format!(",{drive}") };
        self.parts.push(Part {
            name: motor.name.to_owned(),
            motor: Some(motor.clone()),
            table: format!("node = {}\nafter_stop = \"hold\"\nmax_rpm = 300\n{family}\n{config}", motor.node),
            drive: format!("{kind}:node={}{more}", motor.node),
        });
        self
    }

    /// Adds a motor of any family: its table in the configuration, but for name and bus, and its simulated drive.
    #[must_use]
    pub fn with_drive(mut self, name: &str, table: &str, drive: &str) -> Self {
        let (table, drive) = (table.to_owned(), drive.to_owned());
        self.parts.push(Part { name: name.to_owned(), motor: None, table, drive });
        self
    }

    /// Every motor is reached over this interface, too.
    #[must_use]
    pub fn also_on(mut self, bus: &str) -> Self {
        self.second = Some(bus.to_owned());
        self
    }

    /// The bus carries CAN FD.
    #[must_use]
    pub fn fd(mut self) -> Self {
        self.fd = true;
        self
    }

    /// On another interface.
    #[must_use]
    pub fn on(mut self, bus: &str) -> Self {
        bus.clone_into(&mut self.bus);
        self
    }

    /// The drives, and the witness with them, are on another interface of the same wire: what is seen there
    /// has left the supervisor's interface.
    #[must_use]
    pub fn drives_on(mut self, bus: &str) -> Self {
        self.far_end = Some(bus.to_owned());
        self
    }

    /// Trips wait for `lanyard reset`.
    #[must_use]
    pub fn manual(self) -> Self {
        self.supervisor_key("reset", "\"manual\"")
    }

    /// With the times an installed robot has unless it is told otherwise: front window 250 ms, tick 5 ms,
    /// refresh 20 ms. What the rig's own lateness alone would break stays: `max_lateness`, `kernel_stop`.
    #[must_use]
    pub fn as_installed(mut self) -> Self {
        self.supervisor.retain(|(name, _)| !["front_window", "tick"].contains(&name.as_str()));
        self.front.retain(|(name, _)| name != "refresh");
        self
    }

    /// With every time an installed robot has unless it is told otherwise: `front_window` 250 ms, `tick` 5 ms, `max_lateness`
    /// 20 ms, `kernel_stop` 50 ms, `refresh` 20 ms; and trips wait for `lanyard reset`. Only for a machine whose clock does not
    /// run while it stands still (QEMU's clock of instructions).
    #[must_use]
    pub fn as_shipped(mut self) -> Self {
        const KEPT: [&str; 1] = ["user"];
        self.supervisor.retain(|(name, _)| KEPT.contains(&name.as_str()));
        self.front.clear();
        self
    }

    /// The window of client sessions, as the configuration has it.
    #[must_use]
    pub fn window(self, window: &str) -> Self {
        self.front_key("heartbeat_window", &format!("\"{window}\""))
    }

    /// How long the kernel waits before it stops the motors, milliseconds, more than 5. The loop may be late by a little
    /// less: a later one would be stopped without a trip. Where time can be trusted it may not be late for longer than an
    /// installed robot's.
    #[must_use]
    pub fn kernel_stop(self, millis: u128) -> Self {
        let rig = Duration::from_millis(u64::try_from(millis - 5).unwrap_or(u64::MAX));
        let max_lateness = shipped::or(shipped::MAX_LATENESS, rig);
        self.supervisor_key("kernel_stop", &format!("\"{millis}ms\""))
            .supervisor_key("max_lateness", &format!("\"{}ms\"", max_lateness.as_millis()))
    }

    /// A key of `[supervisor]`, its value in TOML.
    #[must_use]
    pub fn supervisor_key(mut self, key: &str, value: &str) -> Self {
        self.supervisor.retain(|(name, _)| name != key);
        self.supervisor.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A key of `[front]`, its value in TOML.
    #[must_use]
    pub fn front_key(mut self, key: &str, value: &str) -> Self {
        self.front.retain(|(name, _)| name != key);
        self.front.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Further sections of the configuration, in TOML.
    #[must_use]
    pub fn section(mut self, text: &str) -> Self {
        self.more.push_str(text);
        self
    }

    /// The programs are here, instead of where `LANYARD_BIN_DIR` says.
    #[must_use]
    pub fn programs(mut self, folder: &Path) -> Self {
        self.programs = Some(folder.to_owned());
        self
    }

    /// With this configuration instead of one that says what this setup says; clients connect there.
    #[must_use]
    pub fn installed(mut self, config: &Path, address: &str, socket: &Path) -> Self {
        let (config, socket) = (config.to_owned(), socket.to_owned());
        self.installed = Some(Installed { config, address: address.to_owned(), socket });
        self
    }

    /// The supervisor is started, the front is not.
    #[must_use]
    pub fn without_front(mut self) -> Self {
        self.started = Started::NoFront;
        self
    }

    /// Only the simulated drives are started.
    #[must_use]
    pub fn drives_only(mut self) -> Self {
        self.started = Started::DrivesOnly;
        self
    }

    fn text(&self, socket: &Path, port: u16) -> String {
        let mut lines = vec!["[supervisor]".to_owned(), format!("socket = \"{}\"", socket.display())];
        if !self.supervisor.iter().any(|(key, _)| key == "state") {
            lines.push(format!("state = \"{}\"", socket.with_file_name(STATE).display()));
        }
        lines.extend(self.supervisor.iter().map(|(key, value)| format!("{key} = {value}")));
        lines.extend(["[front]".to_owned(), format!("listen = \"127.0.0.1:{port}\"")]);
        if !self.front.iter().any(|(key, _)| key == "keys") {
            // Not those of the machine that runs the tests.
            lines.push(format!("keys = \"{}\"", socket.with_file_name("keys.toml").display()));
        }
        lines.extend(self.front.iter().map(|(key, value)| format!("{key} = {value}")));
        for bus in std::iter::once(&self.bus).chain(&self.second) {
            lines.extend(["[[bus]]".to_owned(), format!("name = \"{bus}\"")]);
            // At an interface without a wire the drives are programs like any other.
            if self.far_end.is_none() && peer(bus).is_none() {
                lines.push("local_drives = true".to_owned());
            }
            if self.fd && bus == &self.bus {
                lines.push("fd = true".to_owned());
            }
        }
        let second = self.second.iter().map(|bus| format!("second_bus = \"{bus}\"\n")).collect::<String>();
        for Part { name, table, .. } in &self.parts {
            lines.push(format!("[[motor]]\nname = \"{name}\"\nbus = \"{}\"\n{second}{table}", self.bus));
        }
        if self.base {
            lines.push(
                "[[base]]\nname = \"base1\"\nleft = [\"left\"]\nright = [\"right\"]\nwheel_circumference_mm = \
                 400\nwidth_mm = 500"
                    .to_owned(),
            );
        }
        lines.push(self.more.clone());
        lines.join("\n") + "\n"
    }

    fn drives(&self) -> Vec<String> {
        self.parts.iter().map(|part| part.drive.clone()).collect()
    }

    /// Writes the configuration.
    fn install(&self, folder: &Folder) -> Result<Installed> {
        let socket = folder.file("supervisor.sock");
        // Free a moment ago, and nobody else on the machine takes ports meanwhile.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = folder.file("lanyard.toml");
        std::fs::write(&config, self.text(&socket, port)).context("cannot write the configuration")?;
        Ok(Installed { config, address: format!("127.0.0.1:{port}"), socket })
    }

    /// Starts it.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(self) -> Result<Robot> {
        let programs = match &self.programs {
            Some(folder) => folder.clone(),
            None => crate::process::programs()?,
        };
        let folder = Folder::new()?;
        let Installed { config, address, socket } = match &self.installed {
            Some(installed) => installed.clone(),
            None => self.install(&folder)?,
        };
        let far_end = self.far_end.as_ref().unwrap_or(&self.bus);
        let listener = Listener::open(far_end)?;
        let stalls = Stalls::watch()?;
        let sim = Simulation::start(&programs, far_end, &self.drives(), folder.file("sim.sock"))?;
        let lanyard = Lanyard { program: programs.join("lanyard"), socket };
        let motors = self.parts.iter().filter_map(|part| part.motor.clone()).collect();
        let mut robot = Robot {
            listener,
            stalls,
            lanyard,
            address,
            config,
            motors,
            front: None,
            supervisor: None,
            sim,
            programs,
            folder,
        };
        if self.started != Started::DrivesOnly {
            robot.start_supervisor()?;
            if self.started == Started::Everything {
                robot.start_front()?;
            }
        }
        Ok(robot)
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// A running robot. Everything it started ends with it; the drives last.
#[derive(Debug)]
pub struct Robot {
    /// The witness on the bus.
    pub listener: Listener,
    /// The witness of the machine's own lateness.
    pub stalls: Stalls,
    /// The operator's command.
    pub lanyard: Lanyard,
    /// Where clients connect.
    pub address: String,
    /// The configuration file.
    pub config: PathBuf,
    /// Its motors that the witness knows.
    pub motors: Vec<Motor>,
    front: Option<Process>,
    supervisor: Option<Process>,
    /// The simulated drives.
    pub sim: Simulation,
    /// Where the programs are.
    pub programs: PathBuf,
    folder: Folder,
}

impl Robot {
    /// Starts the supervisor and waits until it is armed.
    ///
    /// # Errors
    /// It does not arm.
    pub fn start_supervisor(&mut self) -> Result<()> {
        let process = self.spawn("lanyard-supervisor")?;
        self.take_supervisor(process)
    }

    /// Takes a supervisor that was started otherwise for the robot's own, and waits until it is armed.
    ///
    /// # Errors
    /// It does not arm.
    pub fn take_supervisor(&mut self, process: Process) -> Result<()> {
        let supervisor = self.supervisor.insert(process);
        supervisor.wait_for_line("lanyard-supervisor: armed", START)?;
        Ok(())
    }

    /// Starts the front and waits until it listens.
    ///
    /// # Errors
    /// It does not.
    pub fn start_front(&mut self) -> Result<()> {
        let process = self.spawn("lanyard-front")?;
        let front = self.front.insert(process);
        front.wait_for_line("lanyard-front: listening on", START)?;
        Ok(())
    }

    /// Starts a program with the robot's configuration.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, program: &str) -> Result<Process> {
        Process::start(&self.programs, program, ["--config".as_ref(), self.config.as_os_str()])
    }

    /// The supervisor.
    ///
    /// # Errors
    /// It was not started.
    pub fn supervisor(&mut self) -> Result<&mut Process> {
        self.supervisor.as_mut().context("no supervisor was started")
    }

    /// The front.
    ///
    /// # Errors
    /// It was not started.
    pub fn front(&mut self) -> Result<&mut Process> {
        self.front.as_mut().context("no front was started")
    }

    /// Sends the front a signal; returns the moment before.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal_front(&mut self, signal: Signal) -> Result<Moment> {
        let before = Moment::now();
        self.front()?.signal(signal)?;
        Ok(before)
    }

    /// A file in the robot's folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// A new client, connected.
    ///
    /// # Errors
    /// It cannot connect.
    pub fn client(&self, clients: &mut Clients) -> Result<Client> {
        self.client_with(clients, json!({}))
    }

    /// A new client, connected with these arguments.
    ///
    /// # Errors
    /// It cannot connect.
    pub fn client_with(&self, clients: &mut Clients, mut arguments: serde_json::Value) -> Result<Client> {
        let mut client = clients.fork()?;
        arguments["address"] = json!(self.address);
        client.call_within(START, "connect", arguments)?.value().context("cannot connect")?;
        Ok(client)
    }

    /// Has a client set a motor's power, and waits until the bus and the shaft show it.
    ///
    /// # Errors
    /// The motor does not turn.
    pub fn drive(&self, client: &mut Client, motor: &Motor, power: f64) -> Result<()> {
        let from = Moment::now();
        client.ask("set_power", json!({ "name": motor.name, "power": power }))?;
        self.moves(motor, from, power)
    }

    /// Has a client drive the base forward at 2 revolutions a second, and waits until both wheels turn.
    ///
    /// # Errors
    /// They do not.
    pub fn drive_base(&self, client: &mut Client) -> Result<()> {
        let from = Moment::now();
        // 800 mm/s are 2 revolutions a second of the configured wheels.
        client.ask("base_set_velocity", json!({ "name": "base1", "forward": 800.0 }))?;
        self.moves(&LEFT, from, 0.4)?;
        self.moves(&RIGHT, from, 0.4)
    }

    /// Waits until a motor has been told to turn since `from`, and turns the way of `direction`.
    ///
    /// # Errors
    /// It does not.
    pub fn moves(&self, motor: &Motor, from: Moment, direction: f64) -> Result<()> {
        self.listener.wait_for_drive(motor, from, MOVE)?;
        // Half a revolution a second is far above any threshold of standstill.
        self.sim.wait_for_speed(motor.node, 0.5_f64.copysign(direction), MOVE)
    }

    /// Waits until the supervisor has proven that a motor stands still, and checks with the shaft itself.
    /// Returns the status.
    ///
    /// # Errors
    /// It is not proven, or not true.
    pub fn verified(&self, motor: &Motor) -> Result<MotorStatus> {
        let status =
            self.lanyard.wait_for_motor(motor.name, STILL, "is proven to stand still", |status| {
                matches!(status.state(), "stopped" | "idle") && status.standstill().is_some()
            })?;
        let speed = self.sim.report(motor.node)?.velocity();
        // Proof is allowed up to the drives' own threshold of 0.05 rev/s; the shaft then still slows down.
        ensure!(speed.abs() <= 0.05, "{} is called still and turns at {speed} rev/s", motor.name);
        Ok(status)
    }

    /// Waits for the stop of a motor after its session has expired, and checks it against the deadline:
    /// not before it, and not later than [`LATE`] after it. Returns the trip and the stop frame.
    ///
    /// # Errors
    /// There is no such stop, or it is too early or too late.
    pub fn stopped_at_deadline(
        &self,
        motor: &Motor,
        from: Moment,
        window: Duration,
    ) -> Result<(Event, Seen)> {
        let limit = window + Duration::from_secs(3);
        let stop = self.listener.wait_for_stop(motor, from, limit)?;
        let trip = self.lanyard.wait_for_trip(from, "session expired", motor.name, STILL)?;
        let deadline = trip.deadline().context("the trip has no deadline")?;
        let last_beat = trip.last_beat().context("the trip has no last beat")?;
        let late = stop.at.millis_since(deadline);
        ensure!(late >= 0.0, "{} was stopped {} ms before its deadline", motor.name, -late);
        self.is_prompt(deadline, LATE, &stop)?;
        ensure!(deadline == last_beat + window, "the deadline is not the last beat plus {window:?}");
        // The client cannot have beaten after its death, and beats five times a window: this holds
        // whatever the supervisor's own account says. What was under way when it died may arrive later;
        // a beat may be late by its round trip and by the client's own scheduling.
        let since_death = stop.at.millis_since(from);
        let window_ms = window.as_secs_f64() * 1e3;
        let stalled = self.stalls.between(from, stop.at);
        let limit = window + Duration::from_millis(100) + LATE + stalled;
        ensure_within(stop.at.since(from), limit, || {
            let name = motor.name;
            format!("{name} was stopped {since_death} ms after the client's death, its window is {window:?}")
        })?;
        ensure!(
            since_death >= window_ms * 0.8 - 250.0 - stalled.as_secs_f64() * 1e3,
            "{} was stopped only {since_death} ms after the client's death, its window is {window:?}",
            motor.name
        );
        Ok((trip, stop))
    }

    /// Fails if a frame came later than `limit` after `from`, not counting the time in which the machine
    /// stood still. Returns how much later it came, in milliseconds, that time included.
    ///
    /// # Errors
    /// It came too late.
    pub fn is_prompt(&self, from: Moment, limit: Duration, frame: &Seen) -> Result<f64> {
        let took = frame.at.millis_since(from);
        let stalled = self.stalls.between(from, frame.at);
        // What was seen standing still is part of the limit: it cannot excuse what came later than that, too.
        ensure_within(frame.at.since(from), limit + stalled, || {
            format!(
                "{frame} came after {took:.3} ms (the machine itself stood still for {stalled:?} of them), at \
                 most {limit:?} is right"
            )
        })?;
        Ok(took)
    }

    /// Fails if a motor was told to turn, or given torque, after its stop: by a second frame, or by one that no stop followed.
    ///
    /// One frame may have been under way (P12): the front has looked at its grant, and then had to wait for a processor. Only
    /// a filter in the kernel could hold it back; until then the bus guard answers it.
    ///
    /// # Errors
    /// It was.
    pub fn no_motion_after(&self, motor: &Motor, stop: &Seen) -> Result<()> {
        let moves = |frame: &Seen| frame.at > stop.at && (motor.drives(frame) || motor.energises(frame));
        let Some(under_way) = self.listener.first(stop.at, moves)? else { return Ok(()) };
        let millis = under_way.at.millis_since(stop.at);
        let told = format!("{under_way} moves {} {millis} ms after its stop {stop}", motor.name);
        ensure!(millis <= UNDER_WAY.as_secs_f64() * 1000.0, "{told}: too late to have been under way");
        let answer = self
            .listener
            .wait_for_stop(motor, under_way.at, ANSWERED)
            .with_context(|| format!("{told}, and it was not answered"))?;
        println!("{told}; answered {:.3} ms later", answer.at.millis_since(under_way.at));
        match self.listener.first(under_way.at, |frame| frame.at > under_way.at && moves(frame))? {
            None => Ok(()),
            Some(next) => anyhow::bail!("{told}, and so does {next}: more than one frame that was under way"),
        }
    }

    /// Prints what a test that failed leaves behind: what the programs have said, and the line by which `cargo xtask test`
    /// judges whether the machine excuses the failure.
    pub fn report_failure(&self, error: &anyhow::Error) {
        eprintln!("{}{}", self.printed(), bound::verdict(self.stalls.longest(), error));
    }

    /// Everything the programs have printed, for the message of a test that failed.
    #[must_use]
    pub fn printed(&self) -> String {
        let mut text = String::new();
        for (name, process) in [
            ("supervisor", self.supervisor.as_ref()),
            ("front", self.front.as_ref()),
            ("sim", Some(&self.sim.process)),
        ] {
            for line in process.map(Process::printed).unwrap_or_default() {
                let _ = writeln!(text, "  {name} | {line}");
            }
        }
        if let Ok(status) = self.lanyard.status() {
            for key in ["front", "sessions", "counters", "rejects"] {
                let _ = writeln!(text, "  {key} | {}", status[key]);
            }
        }
        if let Ok(events) = self.lanyard.events() {
            for event in events {
                let _ = writeln!(text, "  event | {}", event.0);
            }
        }
        let _ = writeln!(text, "  the machine stood still | {}", self.stalls);
        text
    }
}

impl Drop for Robot {
    /// A supervisor that is killed leaves the kernel sending stops: they must not reach the next test.
    fn drop(&mut self) {
        drop(self.front.take());
        drop(self.supervisor.take());
        if let Err(error) = holder::dismiss(&self.lanyard.socket) {
            eprintln!("the kernel goes on sending stops: {error:#}");
        }
    }
}
