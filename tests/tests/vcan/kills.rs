//! Front and supervisor are killed in any order, at any moment, again and again: each time the drive is stopped, no
//! trip is lost, no number is given twice, and nothing moves before somebody has reset the trip.
//!
//! A hundred times a real front and its clients would take minutes to start. The front here is this test program once
//! more ([`puppet`]): a process of its own, with a segment, a session and beats, that drives while it has the grant.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use shm_proto::handover;
use shm_proto::verdicts::{MotorVerdict, Reason};
use shm_proto::{Generation, MotorIndex, SessionId, SlotIndex, TripId, VerdictView, Window};
use tests::clock::Moment;
use tests::expect::within;
use tests::fd_store::FdStore;
use tests::holder;
use tests::intruder::Intruder;
use tests::process::Process;
use tests::robot::{LATE, LEFT, RIGHT, Robot, START, STILL, Setup};

use crate::impostor::config_hash;
use crate::scene::play;

/// What tells [`puppet`] that it is one, and where the supervisor is.
const ORDER: &str = "LANYARD_TEST_PUPPET";
/// What repeats a run.
const SEED: &str = "LANYARD_KILLS_SEED";
/// Rounds as a service of systemd, which keeps what is left, and alone, where the holder does.
const AS_SERVICE: u32 = 70;
const ALONE: u32 = 30;
/// As where lateness is not measured in `kernel_stop.rs`: the rig as a whole can stand still for longer than 50 ms.
const KERNEL_STOP: Duration = Duration::from_millis(500);
/// How long after it the first stop frame may come.
const PROMPT: Duration = Duration::from_millis(10);
/// How long after the front's end it may: the supervisor waits for that as for a frame.
const FRONT_DEAD: Duration = Duration::from_millis(50);
const DRIVEN: MotorIndex = MotorIndex(0);
const OTHER: MotorIndex = MotorIndex(1);

/// A machine that stands still for so long within a round may end the supervisor by its own fuse (four fifths of
/// `kernel_stop`), or make a drive seem silent. Both stop the motor, as they should; the round is then another one.
const STARVED: Duration = Duration::from_millis(300);

/// What no machine excuses.
#[derive(Debug)]
struct Violation(String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// Fails with a violation.
fn must(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Violation(what()).into()) }
}

/// Numbers without a pattern: splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    fn wait(&mut self, most_millis: u64) {
        std::thread::sleep(Duration::from_micros(self.below(most_millis * 1000 + 1)));
    }
}

/// The puppet: attaches again whenever its supervisor is gone, each time with a new session, asks for the motor, and
/// has it turn while it is granted. Does nothing in an ordinary run.
#[test]
fn puppet() -> Result<()> {
    let Ok(order) = std::env::var(ORDER) else { return Ok(()) };
    let (hash, socket) = order.split_once(' ').context("hash and socket")?;
    let (hash, socket) = (hash.parse()?, PathBuf::from(socket));
    let bus = Intruder::local("vcan0")?;
    loop {
        match handover::attach(&socket, hash) {
            Ok(attached) => drive(&attached, &bus)?,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn drive(attached: &handover::Attached, bus: &Intruder) -> Result<()> {
    let mut own = attached.beats.front_writer();
    own.open(SessionId(1), Window::from_millis(1_000));
    let mut session = attached.beats.writer(SlotIndex(0)).context("slot 0")?;
    session.open(SessionId(2), Window::from_millis(2_000));
    attached.beats.take_motor(DRIVEN, session.owner());
    let mut enabled = false;
    loop {
        let mut fds = [PollFd::new(attached.connection.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(10_u8))? > 0 {
            return Ok(());
        }
        own.beat();
        session.beat();
        if attached.verdicts.granted(DRIVEN) == Some(session.owner()) {
            if !enabled {
                // Velocity control, then closed loop.
                bus.send(0x6B, &[2, 0, 0, 0, 1, 0, 0, 0])?;
                bus.send(0x67, &[8, 0, 0, 0])?;
                enabled = true;
            }
            let [a, b, c, d] = 1.0_f32.to_le_bytes();
            bus.send(0x6D, &[a, b, c, d, 0, 0, 0, 0])?;
        }
    }
}

/// Who keeps what a killed supervisor left.
enum Keeper {
    Systemd(FdStore),
    Holder,
}

/// What a round kills, and in which order.
#[derive(Clone, Copy, Debug)]
enum Victims {
    Front,
    Supervisor,
    FrontThenSupervisor,
    SupervisorThenFront,
}

/// The robot and what must not be forgotten about it.
struct Scene<'a> {
    robot: &'a mut Robot,
    keeper: Keeper,
    puppet: Process,
    hash: u64,
    dice: Dice,
    trips: BTreeSet<u64>,
    generations: Vec<u64>,
    reasons: Vec<Reason>,
}

fn start_puppet(socket: &Path, hash: u64) -> Result<Process> {
    let script = format!(
        "{ORDER}='{hash} {}' exec '{}' --exact kills::puppet --test-threads=1",
        socket.display(),
        std::env::current_exe()?.display()
    );
    Process::start(Path::new("/bin"), "sh", ["-c", &script])
}

impl Scene<'_> {
    fn view(&self) -> Result<VerdictView> {
        within(START, "a look at the verdicts", || {
            handover::observe(&self.robot.lanyard.socket).map_err(|error| error.to_string())
        })
    }

    fn spawn_supervisor(&self) -> Result<Process> {
        match &self.keeper {
            Keeper::Systemd(store) => {
                // systemd ends whatever is left of a service before it starts it again.
                for (pid, _) in holder::all()? {
                    let _ = kill(pid, Signal::SIGTERM);
                    holder::wait_for_end(pid)?;
                }
                let program = self.robot.programs.join("lanyard-supervisor");
                let config = self.robot.config.to_str().context("a path in UTF-8")?;
                store.start(&program, &["--config", config])
            }
            Keeper::Holder => self.robot.spawn("lanyard-supervisor"),
        }
    }

    /// Starts it; now and then it is killed at some moment before it is armed, or shortly after.
    fn start_supervisor(&mut self) -> Result<()> {
        while self.dice.below(4) == 0 {
            let mut unlucky = self.spawn_supervisor()?;
            self.dice.wait(400);
            unlucky.kill()?;
        }
        let process = self.spawn_supervisor()?;
        self.robot.take_supervisor(process)
    }

    fn motor(&self, view: &VerdictView, motor: MotorIndex) -> Result<MotorVerdict> {
        view.motor(motor).context("a motor")
    }

    /// Waits until the puppet drives.
    fn is_driven(&mut self) -> Result<()> {
        let view = self.view()?;
        within(START, "the puppet has the motor", || match view.granted(DRIVEN) {
            Some(_) => Ok(()),
            None => Err(format!("{:?}", view.motor(DRIVEN))),
        })?;
        let (Generation(generation), pid) = view.front();
        ensure!(pid == u64::from(self.puppet.pid()), "process {pid} is the front");
        let newest = self.generations.last().copied().unwrap_or(0);
        must(generation > newest, || format!("generation {generation} after {newest}"))?;
        self.generations.push(generation);
        self.robot.sim.wait_for_speed(LEFT.node, 0.5, START)
    }

    fn murder(&mut self, victims: Victims) -> Result<(Moment, Duration)> {
        let begun = Moment::now();
        let kernel = KERNEL_STOP + PROMPT;
        let gap = self.dice.below(20);
        let pause = Duration::from_millis(gap);
        Ok(match victims {
            Victims::Front => {
                self.puppet.kill()?;
                (begun, FRONT_DEAD + LATE)
            }
            Victims::Supervisor => {
                self.robot.supervisor()?.kill()?;
                (begun, kernel)
            }
            Victims::FrontThenSupervisor => {
                self.puppet.kill()?;
                std::thread::sleep(pause);
                self.robot.supervisor()?.kill()?;
                // The front's end may have been answered just before: then the stops go on without a pause.
                (begun, pause + kernel)
            }
            Victims::SupervisorThenFront => {
                self.robot.supervisor()?.kill()?;
                std::thread::sleep(pause);
                self.puppet.kill()?;
                (begun, kernel)
            }
        })
    }

    fn round(&mut self) -> Result<()> {
        self.is_driven()?;
        self.dice.wait(30);
        let victims = match self.dice.below(4) {
            0 => Victims::Front,
            1 => Victims::Supervisor,
            2 => Victims::FrontThenSupervisor,
            _ => Victims::SupervisorThenFront,
        };
        let (begun, bound) = self.murder(victims)?;
        // systemd starts it again at once; a person, or a machine that is slow, does not.
        let at_once = !matches!(victims, Victims::Front) && self.dice.below(2) == 0;
        if at_once {
            self.start_supervisor()?;
        }
        let stop = self.robot.listener.wait_for_stop(&LEFT, begun, START)?;
        self.robot.is_prompt(begun, bound, &stop)?;
        self.robot.sim.wait_for_standstill(LEFT.node, STILL)?;
        let still = Moment::now();
        if !at_once && !matches!(victims, Victims::Front) {
            self.start_supervisor()?;
        }
        if !matches!(victims, Victims::Supervisor) {
            self.puppet = start_puppet(&self.robot.lanyard.front_socket(), self.hash)?;
        }
        let trip = self.is_held(victims)?;
        // A front that lives, or a new one, asks for the motor all the time.
        let view = self.view()?;
        within(START, "a front is attached", || {
            if view.front().1 == 0 { Err("none".to_owned()) } else { Ok(()) }
        })?;
        std::thread::sleep(Duration::from_millis(30));
        must(view.granted(DRIVEN).is_none(), || "granted before the reset".to_owned())?;
        let moved = self.robot.listener.first(still, |frame| LEFT.drives(frame) || LEFT.energises(frame))?;
        must(moved.is_none(), || format!("{moved:?} moves what trip {trip} holds"))?;
        within(STILL, "the reset", || {
            handover::reset(&self.robot.lanyard.operator_socket(), TripId(trip).into())
                .map_err(|error| error.to_string())
        })?;
        Ok(())
    }

    /// After a round that the machine has spoilt: a supervisor, a front, and nothing held.
    fn recover(&mut self) -> Result<()> {
        if !self.robot.supervisor()?.runs() {
            let process = self.spawn_supervisor()?;
            self.robot.take_supervisor(process)?;
        }
        if self.puppet.runs() {
            self.puppet.kill()?;
        }
        let view = self.view()?;
        within(STILL, "nothing is held", || {
            let verdict = view.motor(DRIVEN).ok_or("no motor")?;
            if verdict.latched == 0 && verdict.grant.is_none() {
                return Ok(());
            }
            handover::reset(&self.robot.lanyard.operator_socket(), verdict.trip.into())
                .map(drop)
                .map_err(|error| error.to_string())?;
            Err("it was held".to_owned())
        })?;
        self.trips.extend(view.events().map(|(_, event)| event.trip.0));
        self.puppet = start_puppet(&self.robot.lanyard.front_socket(), self.hash)?;
        Ok(())
    }

    /// The motor that was driven is held by a trip that is new, and the other one by none.
    fn is_held(&mut self, victims: Victims) -> Result<u64> {
        let view = self.view()?;
        let verdict = within(START, "the trip", || {
            let verdict = view.motor(DRIVEN).ok_or("no motor")?;
            if verdict.latched == 1 { Ok(verdict) } else { Err(format!("{verdict:?}")) }
        })?;
        let trip = verdict.trip.0;
        let newest = self.trips.last().copied().unwrap_or(0);
        must(trip > newest, || format!("{victims:?}: trip {trip} after {newest}"))?;
        let reason = verdict.reason.context("a reason")?;
        let fitting: &[Reason] = match victims {
            Victims::Front => &[Reason::FrontDead],
            Victims::Supervisor => &[Reason::SupervisorDied],
            Victims::FrontThenSupervisor | Victims::SupervisorThenFront => {
                &[Reason::FrontDead, Reason::SupervisorDied]
            }
        };
        ensure!(fitting.contains(&reason), "{victims:?}: trip {trip}: {}", reason.name());
        self.reasons.push(reason);
        let told = view.events().filter(|(_, event)| event.trip.0 == trip && event.motors.contains(DRIVEN));
        must(told.count() > 0, || format!("{victims:?}: no event tells of trip {trip}"))?;
        let other = self.motor(&view, OTHER)?;
        must(other.latched == 0, || format!("{victims:?}: {other:?}"))?;
        self.trips.extend(view.events().map(|(_, event)| event.trip.0));
        self.trips.insert(trip);
        Ok(trip)
    }
}

fn kill_them(rounds: u32, keeper: impl FnOnce(&Robot) -> Result<Keeper>) -> Result<()> {
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}={text}"))?,
        Err(_) => u64::from(std::process::id()) ^ Moment::now().0.unsigned_abs(),
    };
    println!("{SEED}={seed}");
    let setup =
        Setup::new().with(&LEFT).with(&RIGHT).manual().kernel_stop(KERNEL_STOP.as_millis()).drives_only();
    play(setup, |robot, _| {
        let keeper = keeper(robot)?;
        let socket = robot.lanyard.front_socket();
        // Until it is known which configuration that supervisor has, there is no front to start.
        let placeholder = Process::start(Path::new("/bin"), "true", [""; 0])?;
        let mut scene = Scene {
            robot,
            keeper,
            puppet: placeholder,
            hash: 0,
            dice: Dice(seed),
            trips: BTreeSet::new(),
            generations: Vec::new(),
            reasons: Vec::new(),
        };
        let first = scene.spawn_supervisor()?;
        scene.robot.take_supervisor(first)?;
        scene.hash = config_hash(scene.robot)?;
        scene.puppet = start_puppet(&socket, scene.hash)?;
        let mut starved = 0;
        for round in 0..rounds {
            let begun = Moment::now();
            if let Err(error) = scene.round() {
                let stalled = scene.robot.stalls.between(begun, Moment::now());
                let excused = stalled > STARVED && error.downcast_ref::<Violation>().is_none();
                starved += u32::from(excused);
                ensure!(excused && starved <= rounds / 5, "round {round} of {SEED}={seed}: {error:#}");
                println!("round {round}: the machine stood still for {stalled:?}: {error:#}");
                scene.recover().with_context(|| format!("after round {round} of {SEED}={seed}"))?;
            }
        }
        let died = scene.reasons.iter().filter(|reason| **reason == Reason::SupervisorDied).count();
        println!(
            "{rounds} rounds, {} trips, {died} of them by the supervisor's death, {starved} rounds spoilt; the machine stood \
             still {}",
            scene.trips.len(),
            scene.robot.stalls
        );
        std::io::stdout().flush()?;
        ensure!(died > 0 && died < scene.reasons.len(), "every round was the same");
        Ok(())
    })
}

/// Fails if a kill of either, in any order and at any moment, leaves a drive turning for longer than its bound, loses a
/// trip or gives its number again, or if anything moves before the reset.
#[test]
fn killed_in_any_order_as_a_service() -> Result<()> {
    kill_them(AS_SERVICE, |robot| Ok(Keeper::Systemd(FdStore::open(&robot.file("notify.sock"))?)))
}

/// The same without systemd: the holder has what the supervisor left.
#[test]
fn killed_in_any_order_alone() -> Result<()> {
    kill_them(ALONE, |_| Ok(Keeper::Holder))
}
