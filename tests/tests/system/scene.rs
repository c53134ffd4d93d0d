//! What every test begins with: a robot that is armed and stands still, a drive and a witness at the far end of the
//! wire; and what it leaves behind when it fails: what the machine has said.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::clock::Moment;
use tests::expect;
use tests::listener::Listener;
use tests::robot::{LEFT, MOVE, STILL};
use tests::simulation::Simulation;
use tests::status::{Event, Lanyard};
use tests::wire::Seen;

use crate::client::Client;
use crate::machine::{Bookmark, FRONT, SOON, SUPERVISOR, TARGET, Unit, run, started};

/// The supervisor's interface.
pub const NEAR: &str = "can0";
/// The drive's interface, and the witness's.
pub const FAR: &str = "can1";
/// Where clients call.
pub const ADDRESS: &str = "127.0.0.1:8080";
/// `heartbeat_window` in the configuration (install.sh).
pub const WINDOW: Duration = Duration::from_secs(2);
/// Two revolutions a second.
const RPM: f64 = 120.0;

/// The simulated drives run on when a test is over: a drive does not end with the robot's programs.
static DRIVES: Mutex<Option<Simulation>> = Mutex::new(None);

/// The robot, between tests.
#[derive(Debug)]
pub struct Scene {
    /// The witness on the bus.
    pub listener: Listener,
    /// The operator's command.
    pub lanyard: Lanyard,
    drives: MutexGuard<'static, Option<Simulation>>,
}

/// Plays a test: waits for a robot that is armed and stands still, and shows what the services have said if it fails.
///
/// # Errors
/// The test's own.
pub fn play(act: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let (started, journal) = (Instant::now(), Bookmark::now()?);
    let scene = Scene::open()?;
    scene.ready().context("before the test began")?;
    println!("ready after {:.1} s", started.elapsed().as_secs_f64());
    let outcome = act(&scene);
    println!("over after {:.1} s", started.elapsed().as_secs_f64());
    if outcome.is_err() {
        show(&journal);
    }
    outcome
}

/// Prints what both services have said since.
fn show(journal: &Bookmark) {
    for unit in [SUPERVISOR, FRONT] {
        for line in journal.since(unit).unwrap_or_default() {
            println!("  {unit} | {line}");
        }
    }
}

/// Whether a service neither runs nor is about to. One that waits for its adapter, or for another service, is: if it were
/// started anew, it could be replaced in the moment in which it arms, and what it had to tell once would be gone.
fn is_left_stopped(name: &str) -> Result<bool> {
    let unit = Unit::show(name)?;
    Ok(matches!(unit.state(), "inactive" | "failed") && unit.get("Job").is_empty())
}

impl Scene {
    fn open() -> Result<Self> {
        let mut drives = DRIVES.lock().unwrap_or_else(PoisonError::into_inner);
        if drives.is_none() {
            *drives = Some(simulation()?);
        }
        Ok(Self { listener: Listener::open(FAR)?, lanyard: lanyard(), drives })
    }

    /// The simulated drives.
    ///
    /// # Errors
    /// They were never started.
    pub fn sim(&self) -> Result<&Simulation> {
        self.drives.as_ref().context("started when the scene was opened")
    }

    /// Waits until both services run, the supervisor is armed, and the wheel is proven to stand still; starts what
    /// a failed test has left stopped.
    fn ready(&self) -> Result<()> {
        if is_left_stopped(SUPERVISOR)? || is_left_stopped(FRONT)? {
            run("systemctl", &["restart", "--no-block", TARGET])?;
        }
        Unit::wait(SUPERVISOR, "runs", |unit| unit.state() == "active")?;
        Unit::wait(FRONT, "runs", |unit| unit.state() == "active")?;
        // In this order: what is not proven to stand still cannot be reset.
        self.verified()?;
        self.reset()
    }

    /// Takes back whatever trip is latched.
    ///
    /// # Errors
    /// It is refused.
    pub fn reset(&self) -> Result<()> {
        let status = self.lanyard.status()?;
        if let Some(trip) = status["latch"].as_u64() {
            let answer = self.lanyard.reset(trip)?;
            ensure!(answer.code == Some(0), "trip {trip}: {}", answer.stderr);
        }
        Ok(())
    }

    /// Fails if an operator's stop does not hold: if it is not shown, under its number, or if a client may drive.
    ///
    /// # Errors
    /// It does not.
    pub fn is_held_by(&self, trip: u64) -> Result<()> {
        ensure!(self.lanyard.status()?["latch"] == trip, "trip {trip} is forgotten");
        let from = Moment::now();
        let Err(refusal) = Client::connect(ADDRESS)?.turn(LEFT.name, RPM) else {
            anyhow::bail!("a client may drive");
        };
        let refusal = format!("{refusal:#}");
        ensure!(refusal.contains(&format!("lanyard reset {trip}")), "{refusal}");
        let moved = self.listener.first(from, |frame| LEFT.drives(frame) || LEFT.energises(frame))?;
        ensure!(moved.is_none(), "the wheel was moved: {moved:?}");
        Ok(())
    }

    /// Waits until the supervisor says that the wheel is proven to stand still, and checks with the shaft.
    ///
    /// # Errors
    /// It is not proven in time, or not true.
    pub fn verified(&self) -> Result<()> {
        self.lanyard.wait_for_motor(LEFT.name, STILL, "is proven to stand still", |motor| {
            matches!(motor.state(), "stopped" | "idle") && motor.standstill().is_some()
        })?;
        self.sim()?.wait_for_standstill(LEFT.node, STILL)
    }

    /// A new client drives the wheel; returns when the shaft turns.
    ///
    /// # Errors
    /// It does not.
    pub fn drive(&self) -> Result<Client> {
        let client = Client::connect(ADDRESS)?;
        self.turn(&client)?;
        Ok(client)
    }

    /// This client drives the wheel; returns when the shaft turns. A supervisor that has just been started may have
    /// to prove first that the wheel stands still, so the client asks again.
    ///
    /// # Errors
    /// It does not.
    pub fn turn(&self, client: &Client) -> Result<()> {
        let from = Moment::now();
        expect::within(MOVE, "the front takes the command", || {
            client.turn(LEFT.name, RPM).map_err(|error| {
                std::thread::sleep(Duration::from_millis(200));
                format!("{error:#}")
            })
        })?;
        self.listener.wait_for_drive(&LEFT, from, MOVE)?;
        self.sim()?.wait_for_speed(LEFT.node, 0.5, MOVE)
    }

    /// Waits for the first stop frame at the far end, and until the shaft stands still.
    ///
    /// # Errors
    /// There is none in time, or it is not heeded.
    pub fn stopped_since(&self, from: Moment, limit: Duration) -> Result<Seen> {
        let stop = self.listener.wait_for_stop(&LEFT, from, SOON)?;
        let took = stop.at.millis_since(from);
        println!("stop {took:.0} ms after");
        ensure!(stop.at <= from + limit, "the stop came after {took:.0} ms, at most {limit:?} is right");
        self.sim()?.wait_for_standstill(LEFT.node, STILL)?;
        Ok(stop)
    }

    /// Waits for the stop of a session that has fallen silent: not before its deadline, and the story told fits. The
    /// client's last beat was answered before `from`. Returns the trip and the first stop frame at the far end.
    ///
    /// # Errors
    /// There is none, or it is another story.
    pub fn stopped_at_deadline(&self, from: Moment) -> Result<(Event, Seen)> {
        let stop = self.stopped_since(from, WINDOW + PROMPT)?;
        let trip = self.lanyard.wait_for_trip(from, "session expired", LEFT.name, SOON)?;
        let deadline = trip.deadline().context("the trip has no deadline")?;
        println!("stop {:.0} ms after the deadline", stop.at.millis_since(deadline));
        ensure!(stop.at >= deadline, "stopped {} ms before the deadline", deadline.millis_since(stop.at));
        ensure!(Some(deadline) == trip.last_beat().map(|beat| beat + WINDOW), "another window: {}", trip.0);
        ensure!(trip.first_stop().is_some(), "the trip names no stop frame: {}", trip.0);
        self.nobody_drives_since(&stop)?;
        Ok((trip, stop))
    }

    /// Fails if anything has driven the wheel since its stop.
    ///
    /// # Errors
    /// It has.
    pub fn nobody_drives_since(&self, stop: &Seen) -> Result<()> {
        let drives = |frame: &Seen| frame.at > stop.at && (LEFT.drives(frame) || LEFT.energises(frame));
        match self.listener.first(stop.at, drives)? {
            None => Ok(()),
            Some(frame) => {
                anyhow::bail!("{frame} drives {} ms after the stop", frame.at.millis_since(stop.at))
            }
        }
    }
}

/// The operator's command.
pub fn lanyard() -> Lanyard {
    Lanyard {
        program: Path::new("/usr/bin/lanyard").to_owned(),
        socket: Path::new("/run/lanyard/supervisor.sock").to_owned(),
    }
}

/// Starts the drives, once there is a wire.
fn simulation() -> Result<Simulation> {
    expect::within(SOON, &format!("{FAR} is up"), || {
        match fs::read_to_string(format!("/sys/class/net/{FAR}/operstate")) {
            Ok(state) if state.trim() == "up" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    let programs = tests::process::programs()?;
    let specs = [format!("odrive:node={}", LEFT.node)];
    let (tell, told) = mpsc::channel();
    // A program ends with the thread that started it, and each test has one of its own.
    let keep = move || {
        let _ = tell.send(Simulation::start(&programs, FAR, &specs, "/run/drives.sock".into()));
        loop {
            std::thread::park();
        }
    };
    std::thread::Builder::new().name("drives".to_owned()).spawn(keep)?;
    told.recv().context("the thread has ended")?
}

/// Fails if a stop came when systemd had already started the next supervisor, which sends its own. Returns when that was.
///
/// # Errors
/// It did.
pub fn before_the_next_supervisor(stop: &Seen) -> Result<Moment> {
    let started = started(SUPERVISOR)?;
    ensure!(stop.at < started, "stopped {:.0} ms after the next was started", stop.at.millis_since(started));
    Ok(started)
}

/// Sends a signal to a process; returns the moment before.
///
/// # Errors
/// There is none.
pub fn signal(pid: i32, signal: Signal) -> Result<Moment> {
    let before = Moment::now();
    kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {pid}"))?;
    Ok(before)
}

/// How long the far end may take to see a stop that somebody's death, or silence for `kernel_stop` (400 ms), brings
/// about. A second on top for a machine that stands still at times, for some tenths of one; what follows later, a new
/// supervisor's own stop, comes after it on every machine seen so far, and is told apart by order where it matters.
pub const PROMPT: Duration = Duration::from_millis(1400);

/// How long nobody may drive after a stop, for a test to believe that nobody does: longer than the front's refresh and
/// a client's beats by far.
pub const A_WHILE: Duration = Duration::from_secs(1);
