//! The kernel-armed stop: the supervisor hangs or is killed, and the kernel itself stops the motors.
//!
//! The front, which would notice, is kept from helping: it is stopped first. Whether stop frames come from
//! the kernel is not asked of the frames but follows from who can still send any.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::clock::Moment;
use tests::expect::within;
use tests::fd_store::FdStore;
use tests::holder;
use tests::interface::{Changed, Removed};
use tests::listener::Listener;
use tests::python::{Client, Clients};
use tests::robot::{ARM, LATE, LEFT, RIGHT, Robot, START, STILL, Setup};
use tests::shipped;
use tests::status::Event;
use tests::wire::{Motor, Seen};

use crate::scene::play;

/// `kernel_stop` where lateness is measured. The rig as a whole can stand still for longer than the 50 ms of an installed
/// robot, and the kernel is right to stop the motors then, before the test wants it to.
const MEASURED: Duration = Duration::from_millis(200);
/// What it is elsewhere.
const PATIENT: Duration = Duration::from_millis(500);
/// How long after it the first stop frame may come at most.
const PROMPT: Duration = Duration::from_millis(10);
/// How long the holder of a dead supervisor may take to see that an interface is back.
const LOOK: Duration = Duration::from_millis(100);
/// The witness hears what the simulated drive sends as an echo. The kernel delivers that when the other end has had the frame, and
/// may have answered it.
const ECHO: Duration = Duration::from_millis(1);
/// How long a round over all frames of the bus takes.
const ROUND: Duration = Duration::from_millis(10);
/// Jobs of these robots: the first stage of all motors, and, for the arm, the stage that holds it for ever.
const JOBS: usize = 2;
/// The identifiers that mean nothing to the drives of these tests: with ODrives on the bus, and without.
const MARKER: u32 = 0x1FBF_FFFF;
const MARKER_WITHOUT_ODRIVES: u32 = 0x7EF;
/// A supervisor that stops healthy motors has to have had a reason within that time: the shortest that a drive's silence is
/// borne is 100 ms.
const STARVED_WITHIN: Duration = Duration::from_secs(1);
const STARVED: Duration = Duration::from_millis(50);
/// How long the test that must see no stop lasts: some thousand times the kernel's stop is put off.
const HEALTHY: Duration = Duration::from_secs(120);

const ALL: [&Motor; 3] = [&LEFT, &RIGHT, &ARM];

/// `kernel_stop` where lateness is measured.
fn patience() -> Duration {
    shipped::or(shipped::KERNEL_STOP, MEASURED)
}

/// `kernel_stop` elsewhere.
fn patient() -> Duration {
    shipped::or(shipped::KERNEL_STOP, PATIENT)
}

/// Two ODrives and a CiA 402 drive. Front and sessions may be silent for long: what stops a motor within the
/// first seconds is the kernel. That goes for the arm's own watch over the supervisor's heartbeat (250 ms), too: it
/// stops by itself when the machine stands still, and then the front stops it.
fn setup(patience: Duration) -> Setup {
    Setup::base()
        .with_keys(&ARM, "heartbeat_ms = 5000", "")
        .window("10s")
        .supervisor_key("front_window", "\"5s\"")
        .kernel_stop(patience.as_millis())
        // The kernel sends the first stage for that long, and to the ODrives nothing more: they are to hold, and a stop that
        // went on would feed their own watchdogs. These tests are over before.
        .supervisor_key("stage_timeout", "\"5s\"")
}

fn drive_all(robot: &Robot, clients: &mut Clients) -> Result<Client> {
    let mut client = robot.client(clients)?;
    robot.drive_base(&mut client)?;
    robot.drive(&mut client, &ARM, 0.4)?;
    Ok(client)
}

/// The same where the kernel may be right to interfere at any time: tried a few times.
fn drive_all_anew(robot: &Robot, clients: &mut Clients) -> Result<Client> {
    /// Each can only fail by another standstill of the whole machine.
    const TRIES: u32 = 10;
    for _ in 1..TRIES {
        match drive_all(robot, clients) {
            Ok(client) => return Ok(client),
            Err(error) => println!("driven again: {error:#}"),
        }
    }
    drive_all(robot, clients)
}

fn is_any_stop(frame: &Seen) -> bool {
    ALL.iter().any(|motor| motor.is_stop(frame) || motor.is_torque_off(frame))
}

/// Waits for the kernel's stops after the supervisor came to grief: the first in time, the whole stop of every
/// motor within a round of it, and motors that stand still by it.
fn stopped_by_kernel(robot: &Robot, grief: Moment, patience: Duration) -> Result<()> {
    let first = robot.listener.wait(grief, START, "stop frame", is_any_stop)?;
    let took = robot.is_prompt(grief, patience + PROMPT, &first)?;
    for motor in ALL {
        robot.sim.wait_for_standstill(motor.node, STILL)?;
    }
    let mut last = first.clone();
    for motor in ALL {
        let set = robot.listener.wait_for_stop_set(motor, grief, START)?;
        last = set.into_iter().chain([last]).max_by_key(|frame| frame.at).context("frames")?;
    }
    let round = robot.is_prompt(first.at, ROUND + LATE, &last)?;
    println!("first stop after {took:.1} ms, every motor {round:.1} ms later");
    Ok(())
}

/// The trip with which the supervisor itself sent a stop frame. It notes the moment right after it has.
fn trip_of(robot: &Robot, stop: &Seen) -> Result<Option<Event>> {
    let began = |event: &Event| {
        event.first_stop().is_some_and(|at| at >= stop.at && at <= stop.at + Duration::from_millis(20))
    };
    let events = robot.lanyard.events()?;
    Ok(events.into_iter().find(|event| event.kind() == "trip" && began(event)))
}

/// Fails if there is a stop frame within `span` from now.
fn no_stop_at_all(listener: &Listener, span: Duration) -> Result<()> {
    let from = Moment::now();
    std::thread::sleep(span);
    let stop = listener.first(from, is_any_stop)?;
    ensure!(
        stop.is_none(),
        "{stop:?} {:.1} ms later",
        stop.as_ref().map_or(0.0, |f| f.at.millis_since(from))
    );
    Ok(())
}

/// Fails if a supervisor that does not run any more, though it lives, leaves the motors turning.
#[test]
fn stopped_supervisor_is_overtaken_by_the_kernel() -> Result<()> {
    play(setup(patience()), |robot, clients| {
        let _client = drive_all(robot, clients)?;
        robot.signal_front(Signal::SIGSTOP)?;
        let grief = Moment::now();
        robot.supervisor()?.signal(Signal::SIGSTOP)?;
        stopped_by_kernel(robot, grief, patience())?;
        // It is repeated: a motor that somebody else moves meanwhile is stopped again.
        let later = Moment::now();
        for motor in ALL {
            robot.listener.wait_for_stop(motor, later, START)?;
        }
        robot.supervisor()?.signal(Signal::SIGCONT)?;
        Ok(())
    })
}

/// Fails if a front that lives goes on driving for a supervisor that hangs, between the stops that the kernel sends in
/// its stead: until `front_window`, 5 s here, is over.
#[test]
fn living_front_does_not_drive_against_the_kernel() -> Result<()> {
    /// Many refreshes (40 ms): a front that drives on is seen.
    const A_WHILE: Duration = Duration::from_millis(500);
    /// It looks at the supervisor's clock before every frame; as an ordinary thread it may have to wait between the two.
    const ON_ITS_WAY: Duration = Duration::from_millis(100);
    play(setup(patience()), |robot, clients| {
        let _client = drive_all(robot, clients)?;
        let grief = Moment::now();
        robot.supervisor()?.signal(Signal::SIGSTOP)?;
        stopped_by_kernel(robot, grief, patience())?;
        std::thread::sleep(A_WHILE);
        for motor in ALL {
            if let Some(frame) = robot.listener.last_drive(motor, grief)? {
                let after = robot.is_prompt(grief, patience() + ON_ITS_WAY, &frame)?;
                println!("{}: last motion frame {after:.1} ms after", motor.name);
            }
            robot.sim.wait_for_standstill(motor.node, STILL)?;
        }
        robot.supervisor()?.signal(Signal::SIGCONT)?;
        Ok(())
    })
}

/// Puts the kernel's limit for real-time threads back as it was.
#[derive(Debug)]
struct Throttled(String);

/// Lets the kernel give other threads a twentieth of the time (its own default). Without it one real-time
/// thread that loops has the rig's only processor for itself, this test included.
const THROTTLE: &str = "/proc/sys/kernel/sched_rt_runtime_us";

impl Throttled {
    fn begin() -> Result<Self> {
        let before = std::fs::read_to_string(THROTTLE)?;
        std::fs::write(THROTTLE, "950000").context("cannot limit real-time threads")?;
        Ok(Self(before))
    }
}

impl Drop for Throttled {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(THROTTLE, &self.0) {
            eprintln!("{THROTTLE} is left as it is: {error}");
        }
    }
}

/// Fails if a real-time thread that loops for ever keeps the kernel from stopping the motors. Debug builds loop
/// on SIGUSR2.
///
/// On the rig's kernel (6.1) such a loop holds up the broadcast manager's timers, most of the time: what is
/// seen here first is the fuse (RLIMIT_RTTIME), whose signal sends the stops before it ends the process.
#[test]
fn looping_supervisor_is_overtaken_by_the_kernel() -> Result<()> {
    let _throttled = Throttled::begin()?;
    play(setup(patience()), |robot, clients| {
        let _client = drive_all(robot, clients)?;
        robot.signal_front(Signal::SIGSTOP)?;
        let grief = Moment::now();
        robot.supervisor()?.signal(Signal::SIGUSR2)?;
        stopped_by_kernel(robot, grief, patience())?;
        // The handler cannot wait; what it leaves to the kernel outlives it: stops still come.
        let later = Moment::now() + patience();
        for motor in ALL {
            robot.listener.wait_for_stop(motor, later, START)?;
        }
        // Nothing is gained by a loop that goes on.
        let ended = robot.supervisor()?.wait(START)?;
        ensure!(ended.code.is_none(), "the supervisor ended with {ended:?}");
        Ok(())
    })
}

/// Fails if the stops end with the supervisor's process, though the holder lives.
#[test]
fn killed_supervisor_is_overtaken_by_the_kernel() -> Result<()> {
    play(setup(patience()), |robot, clients| {
        let _client = drive_all(robot, clients)?;
        robot.signal_front(Signal::SIGSTOP)?;
        let holder = holder::of(robot.supervisor()?.pid())?;
        // What is meant for the supervisor does not reach the holder.
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            nix::sys::signal::kill(holder, signal)?;
        }
        let grief = Moment::now();
        robot.supervisor()?.kill()?;
        stopped_by_kernel(robot, grief, patience())?;
        nix::sys::signal::kill(holder, Signal::SIGTERM)?;
        std::thread::sleep(Duration::from_millis(300));
        let later = Moment::now();
        for motor in ALL {
            robot.listener.wait_for_stop(motor, later, START)?;
        }
        ensure!(holder::all()?.iter().any(|(pid, _)| *pid == holder), "the holder obeyed SIGTERM");
        Ok(())
    })
}

/// Fails if the end of the holder stops a robot whose supervisor is well, or goes unnoticed. That nothing stops
/// the motors afterwards, when the supervisor is killed, too, shows what the other tests would see without
/// their remedy.
#[test]
fn without_holder_a_killed_supervisor_is_not_covered_and_says_so_before() -> Result<()> {
    play(setup(patient()), |robot, clients| {
        let _client = drive_all(robot, clients)?;
        let holder = holder::of(robot.supervisor()?.pid())?;
        holder::murder(holder)?;
        robot.supervisor()?.wait_for_line("lanyard-holder has ended", START)?;
        within(START, "the status says so", || {
            let status = robot.lanyard.status().map_err(|error| format!("{error:#}"))?.to_string();
            if status.contains("no kernel-armed stop") { Ok(()) } else { Err(status) }
        })?;
        no_stop_at_all(&robot.listener, Duration::from_secs(1))?;
        robot.signal_front(Signal::SIGSTOP)?;
        robot.supervisor()?.kill()?;
        no_stop_at_all(&robot.listener, Duration::from_millis(500))?;
        ensure!(robot.sim.report(LEFT.node)?.velocity().abs() > 0.5, "something else stopped the motor");
        Ok(())
    })
}

/// Starts the robot's supervisor as a service of a systemd that keeps descriptors.
pub fn start_as_service(robot: &mut Robot, store: &FdStore) -> Result<()> {
    let program = robot.programs.join("lanyard-supervisor");
    let config = robot.config.to_str().context("a path in UTF-8")?.to_owned();
    let process = store.start(&program, &["--config", &config])?;
    robot.take_supervisor(process)
}

/// Fails if systemd's store cannot take the holder's place, if the next supervisor does not take over what is
/// in it, or if it stays there for ever.
#[test]
fn systemd_keeps_the_stops_of_a_killed_supervisor() -> Result<()> {
    play(setup(patient()).drives_only(), |robot, clients| {
        let store = FdStore::open(&robot.file("notify.sock"))?;
        start_as_service(robot, &store)?;
        robot.start_front()?;
        let names = ["handover", "door-front", "door-operator", "estop", "kernel-stop-0", "verdicts-0"];
        ensure!(store.names() == names, "systemd was given {:?}", store.said());
        within(START, "systemd is told", || {
            if store.said().iter().any(|word| word == "READY=1") { Ok(()) } else { Err(String::new()) }
        })?;
        let client = drive_all(robot, clients)?;
        // systemd ends whatever is left of a service before it starts it again.
        let holder = holder::of(robot.supervisor()?.pid())?;
        robot.signal_front(Signal::SIGSTOP)?;
        let grief = Moment::now();
        robot.supervisor()?.kill()?;
        nix::sys::signal::kill(holder, Signal::SIGTERM)?;
        holder::wait_for_end(holder)?;
        stopped_by_kernel(robot, grief, patient())?;
        drop(client);

        robot.front()?.kill()?;
        start_as_service(robot, &store)?;
        within(START, "systemd keeps the new socket only", || {
            let names = store.names();
            if names == ["handover", "door-front", "door-operator", "estop", "kernel-stop-1", "verdicts-1"] {
                Ok(())
            } else {
                Err(format!("{names:?}: {:?}", store.said()))
            }
        })?;
        robot.start_front()?;
        for motor in ALL {
            robot.verified(motor)?;
        }
        let _client = drive_all(robot, clients)?;
        no_stop_at_all(&robot.listener, Duration::from_secs(1))?;

        // And once more, with nothing but the store.
        holder::murder(holder::of(robot.supervisor()?.pid())?)?;
        robot.signal_front(Signal::SIGSTOP)?;
        let grief = Moment::now();
        robot.supervisor()?.kill()?;
        stopped_by_kernel(robot, grief, patient())?;
        store.forget_all();
        // What the kernel had on its way.
        std::thread::sleep(Duration::from_millis(50));
        no_stop_at_all(&robot.listener, Duration::from_millis(500))
    })
}

/// Fails if a service that ends cleanly leaves a job in the store, or leaves the jobs themselves to whoever still holds
/// their socket; or if it takes along what the next start is to know and where clients are to wait.
#[test]
fn service_that_ends_cleanly_leaves_nothing_with_systemd() -> Result<()> {
    play(setup(patient()).drives_only(), |robot, _| {
        let store = FdStore::open(&robot.file("notify.sock"))?;
        start_as_service(robot, &store)?;
        let copies = store.copies()?;
        ensure!(!copies.is_empty() && jobs()?.len() == JOBS, "{copies:?} hold {:?}", jobs()?);
        robot.supervisor()?.signal(Signal::SIGTERM)?;
        let ended = robot.supervisor()?.wait(START)?;
        ensure!(ended.code == Some(0), "the supervisor ended with {ended:?}");
        within(START, "the store has no job", || {
            if store.names() == ["handover", "door-front", "door-operator", "estop", "verdicts-0"] {
                Ok(())
            } else {
                Err(format!("{:?}", store.said()))
            }
        })?;
        ensure!(jobs()?.is_empty(), "jobs: {:?}", jobs()?);
        drop(copies);
        Ok(())
    })
}

/// Fails if the next supervisor does not end the kernel's stops for the one before, or ends them before it is
/// armed itself, or if more than its own jobs are left.
#[test]
fn next_supervisor_takes_over_from_the_kernel() -> Result<()> {
    play(setup(patient()), |robot, clients| {
        let client = drive_all(robot, clients)?;
        let first = holder::of(robot.supervisor()?.pid())?;
        let grief = Moment::now();
        robot.supervisor()?.kill()?;
        drop(client);
        // The front ends what it drove as soon as it sees the supervisor's end; the kernel's stops go on.
        for motor in ALL {
            robot.sim.wait_for_standstill(motor.node, STILL)?;
        }
        robot.start_supervisor()?;
        let told = robot.supervisor()?.wait_for_line("the kernel's stops of the supervisor before", START)?;
        holder::wait_for_end(first)?;
        let armed = robot.lanyard.events()?.iter().find(|event| event.kind() == "armed").map(|e| e.at());
        let armed = armed.with_context(|| format!("{told}, but not armed"))?;
        // Not once did the stops pause until then.
        let mut before = grief + patient();
        for frame in robot.listener.since(grief)?.iter().filter(|frame| is_any_stop(frame)) {
            if frame.at > armed {
                break;
            }
            robot.is_prompt(before, patient() + PROMPT, frame)?;
            before = before.max(frame.at);
        }
        for motor in ALL {
            robot.verified(motor)?;
        }
        robot.front()?.wait_for_line("attached to the supervisor again", START)?;
        let _client = drive_all(robot, clients)?;
        no_stop_at_all(&robot.listener, Duration::from_secs(2))?;
        let holders = holder::all()?;
        ensure!(holders.len() == 1, "holders: {holders:?}");
        let jobs = jobs()?;
        ensure!(jobs.len() == JOBS, "jobs: {jobs:?}");
        Ok(())
    })
}

/// The jobs of the kernel's broadcast manager.
fn jobs() -> Result<Vec<String>> {
    let mut jobs = Vec::new();
    for entry in std::fs::read_dir("/proc/net/can-bcm")? {
        let text = std::fs::read_to_string(entry?.path())?;
        jobs.extend(text.lines().filter(|line| line.starts_with("tx_op")).map(str::to_owned));
    }
    Ok(jobs)
}

/// Fails if supervisors that die one after the other, some before they are armed, leave a holder behind that
/// nobody can reach.
#[test]
fn chain_of_dead_supervisors_ends_with_the_next_living_one() -> Result<()> {
    play(setup(patient()).without_front(), |robot, _| {
        let first = holder::of(robot.supervisor()?.pid())?;
        robot.supervisor()?.kill()?;
        robot.start_supervisor()?;
        let second = holder::of(robot.supervisor()?.pid())?;
        robot.supervisor()?.kill()?;
        // One that cannot start: its holder goes with it, the one before stays.
        let good = std::fs::read_to_string(&robot.config)?;
        std::fs::write(
            &robot.config,
            good.replace("name = \"vcan0\"", "name = \"vcan0\"\ninterface = \"vcan77\""),
        )?;
        robot.spawn("lanyard-supervisor")?.wait(START)?;
        ensure!(holder::all()?.iter().any(|(pid, _)| *pid == second), "nobody holds any more");
        std::fs::write(&robot.config, good)?;
        robot.start_supervisor()?;
        holder::wait_for_end(first)?;
        holder::wait_for_end(second)?;
        ensure!(holder::all()?.len() == 1 && jobs()?.len() == JOBS, "{:?}, {:?}", holder::all()?, jobs()?);
        Ok(())
    })
}

/// Fails if a supervisor that has proven every motor still leaves a job or a holder behind.
#[test]
fn clean_end_leaves_nothing_armed() -> Result<()> {
    play(setup(patient()), |robot, clients| {
        let _client = drive_all(robot, clients)?;
        let holder = holder::of(robot.supervisor()?.pid())?;
        robot.supervisor()?.signal(Signal::SIGTERM)?;
        let ended = robot.supervisor()?.wait(START)?;
        let end = Moment::now();
        ensure!(ended.code == Some(0), "the supervisor ended with {ended:?}");
        holder::wait_for_end(holder)?;
        robot.front()?.kill()?;
        std::thread::sleep(patient() * 2);
        let of_kernel = |frame: &Seen| frame.id == MARKER || is_any_stop(frame);
        let left = robot.listener.since(end + patient())?.into_iter().find(of_kernel);
        ensure!(left.is_none(), "the kernel still sends {left:?}");
        ensure!(jobs()?.is_empty(), "jobs: {:?}", jobs()?);
        let place = holder::place(&robot.lanyard.socket);
        ensure!(!place.exists(), "{} is left", place.display());
        Ok(())
    })
}

/// Fails if a supervisor that ends without proof takes the kernel's stops with it, or does not say that they
/// go on.
#[test]
fn end_without_proof_leaves_the_kernel_sending() -> Result<()> {
    play(setup(patient()).supervisor_key("stage_timeout", "\"200ms\""), |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive_base(&mut client)?;
        robot.sim.order("6 mute on")?;
        robot.supervisor()?.signal(Signal::SIGTERM)?;
        let ended = robot.supervisor()?.wait(START)?;
        let end = Moment::now();
        ensure!(ended.code == Some(1), "the supervisor ended with {ended:?}");
        ensure!(ended.printed.iter().any(|line| line.contains("goes on sending")), "{ended:?}");
        robot.listener.wait_for_stop(&RIGHT, end + patient() + PROMPT, START).map(drop)
    })
}

/// Fails if the job is lost with an interface that goes down, or is gone and comes back under its name.
#[test]
fn job_outlives_its_interface() -> Result<()> {
    play(setup(patient()).on("vcan1"), |robot, clients| {
        let client = drive_all(robot, clients)?;
        Changed::down("vcan1")?.restore()?;
        for motor in ALL {
            robot.verified(motor)?;
        }
        let later = Moment::now();
        robot.listener.wait(later, START, "marker", |frame| frame.id == MARKER)?;
        drop(client);
        robot.front()?.kill()?;

        Removed::pair("vcan1")?.restore()?;
        robot.listener = Listener::open("vcan1")?;
        let later = Moment::now();
        robot.listener.wait(later, START, "marker", |frame| frame.id == MARKER)?;
        let grief = Moment::now();
        robot.supervisor()?.kill()?;
        // A marker may be the last thing the supervisor did, and its own stops may have gone out before.
        let stop = robot.listener.wait(grief + patient() / 2, START, "stop frame", is_any_stop)?;
        robot.is_prompt(grief, patient() + PROMPT, &stop).map(drop)
    })
}

/// Fails if the stops end with the interface when that goes while no supervisor lives, and comes back under its name: an
/// adapter that falls off the bus at the moment of the crash. It goes and comes more than once.
#[test]
fn holder_stops_the_motors_of_an_interface_that_comes_back() -> Result<()> {
    play(setup(PATIENT).on("vcan1"), |robot, clients| {
        let _client = drive_all(robot, clients)?;
        robot.signal_front(Signal::SIGSTOP)?;
        robot.supervisor()?.kill()?;
        for _ in 0..2 {
            Removed::pair("vcan1")?.restore()?;
            let back = Moment::now();
            robot.listener = Listener::open("vcan1")?;
            for motor in ALL {
                let set = robot.listener.wait_for_stop_set(motor, back, START)?;
                // It looks twenty times a second, and a job waits for `kernel_stop` before it stops.
                robot.is_prompt(back, PATIENT + LOOK + PROMPT + ROUND, &set[0])?;
            }
        }
        // The next supervisor ends these stops like any others.
        let holder = holder::all()?;
        ensure!(holder.len() == 1, "{holder:?}");
        robot.start_supervisor()?;
        holder::wait_for_end(holder[0].0)?;
        within(START, "only the jobs of the new one are left", || {
            let jobs = jobs().map_err(|error| format!("{error:#}"))?;
            if jobs.len() == JOBS { Ok(()) } else { Err(format!("{jobs:?}")) }
        })
    })
}

/// Fails if an interface that is removed and made anew with the very same number, as a move to another network namespace and
/// back does, is taken for the old one: deaf, shown as up, and stopped by the kernel for ever.
#[test]
fn interface_of_the_same_number_is_bound_anew() -> Result<()> {
    play(setup(patient()).on("vcan1").without_front(), |robot, _| {
        let number = std::fs::read_to_string("/sys/class/net/vcan1/ifindex")?;
        Removed::pair("vcan1")?.restore_as(number.trim().parse()?)?;
        robot.listener = Listener::open("vcan1")?;
        let later = Moment::now();
        // More than one: the first could be the last word of the old job.
        within(START, "the jobs are put off again", || {
            let markers = robot.listener.count(later, Moment::now(), |frame| frame.id == MARKER);
            let markers = markers.map_err(|error| format!("{error:#}"))?;
            if markers > 10 { Ok(()) } else { Err(format!("{markers} markers")) }
        })?;
        no_stop_by_the_kernel(robot)
    })
}

/// Fails if the jobs are not put off for a second: the kernel's stops would come in between.
fn no_stop_by_the_kernel(robot: &Robot) -> Result<()> {
    let from = Moment::now();
    std::thread::sleep(Duration::from_secs(1));
    let markers = robot.listener.count(from, Moment::now(), |frame| frame.id == MARKER)?;
    ensure!(markers > 20, "only {markers} markers in a second");
    Ok(())
}

/// Fails if a robot that is driven, and whose supervisor is well, gets a single stop frame.
///
/// When the whole machine stands still for longer than half of `kernel_stop`, the kernel may be right to stop
/// the motors: such stops are told, and the robot is driven again.
#[test]
fn no_stop_while_healthy() -> Result<()> {
    let span = HEALTHY;
    let patience = patience();
    play(setup(patience), |robot, clients| {
        let mut client = drive_all_anew(robot, clients)?;
        let start = Instant::now();
        let mut from = Moment::now();
        let (mut markers, mut excused) = (0, 0);
        while start.elapsed() < span {
            std::thread::sleep(Duration::from_secs(1));
            let now = Moment::now();
            let frames = robot.listener.since(from)?;
            markers += frames.iter().filter(|frame| frame.id == MARKER).count();
            if let Some(stop) = frames.iter().find(|frame| is_any_stop(frame)) {
                if let Some(trip) = trip_of(robot, stop)? {
                    // Starved simulated drives say nothing, and then the supervisor is right to trip. It is wrong to if nothing
                    // was starved.
                    let stalled = robot.stalls.between(stop.at - STARVED_WITHIN, stop.at);
                    ensure!(
                        stalled > STARVED,
                        "the supervisor itself stopped the motors ({}), and the machine stood still for {stalled:?} only",
                        trip.reason()
                    );
                    println!(
                        "the machine stood still for {stalled:?}, the supervisor stopped the motors: {}",
                        trip.reason()
                    );
                } else {
                    let stalled = robot.stalls.between(stop.at - patience * 2, stop.at);
                    ensure!(
                        stalled > patience / 2,
                        "{stop} after {:.1?}, and the machine stood still for {stalled:?} only",
                        start.elapsed()
                    );
                    println!(
                        "the machine stood still for {stalled:?}, the kernel stopped the motors: {stop}"
                    );
                }
                excused += 1;
                for motor in ALL {
                    robot.lanyard.wait_for_motor(motor.name, STILL, "is at peace", |status| {
                        matches!(status.state(), "stopped" | "idle" | "granted")
                    })?;
                }
                client = drive_all_anew(robot, clients)?;
                from = Moment::now();
            } else {
                from = now;
            }
        }
        client.ask("set_power", json!({ "name": "left", "power": 0.3 }))?;
        println!("{span:?} without a stop but {excused} with other reasons; {markers} markers");
        // Each is the kernel's stop put off once more: every 10 ms as this robot is set up.
        let expected = span.as_millis() / 10;
        ensure!(markers as u128 * 2 > expected, "only {markers} markers");
        Ok(())
    })
}

/// Fails if what the kernel sends by itself keeps an ODrive's own watchdog content: the front hangs, so nobody
/// feeds it, and the supervisor, which is well, goes on putting off the kernel's stop.
#[test]
fn marker_feeds_no_watchdog() -> Result<()> {
    let watchdog = Duration::from_millis(300);
    let keys = "watchdog_ms=300,watchdog_idle=off";
    let setup = Setup::new()
        .with_keys(&LEFT, "", keys)
        .window("10s")
        .supervisor_key("front_window", "\"5s\"")
        .kernel_stop(200);
    play(setup, |robot, clients| {
        let mut client = robot.client(clients)?;
        robot.drive(&mut client, &LEFT, 0.4)?;
        let silence = robot.signal_front(Signal::SIGSTOP)?;
        // Heartbeat of node 3: axis error 0x01000000 is the watchdog's.
        let bitten = robot.listener.wait(silence, START, "watchdog error", |frame| {
            frame.id == 0x061 && frame.data.starts_with(&[0, 0, 0, 1])
        })?;
        let took = robot.is_prompt(silence, watchdog + Duration::from_millis(100) + LATE, &bitten)?;
        let markers = robot.listener.count(silence, bitten.at, |frame| frame.id == MARKER)?;
        println!("watchdog after {took:.0} ms and {markers} markers");
        ensure!(markers >= 10, "only {markers} markers, which shows nothing");
        let stop = robot.listener.first(silence, |frame| LEFT.is_stop(frame))?;
        ensure!(stop.is_none_or(|stop| stop.at + ECHO > bitten.at), "it was stopped before");
        Ok(())
    })
}

/// Fails if the marker is taken for a sign of life on a bus of CANopen drives only.
#[test]
fn canopen_marker_is_no_heartbeat() -> Result<()> {
    let setup = Setup::new().with(&ARM).without_front().kernel_stop(200);
    play(setup, |robot, _| {
        let now = Moment::now();
        let marker = |frame: &Seen| frame.id == MARKER_WITHOUT_ODRIVES;
        let seen = robot.listener.wait(now, START, "marker", marker)?;
        ensure!(seen.data.is_empty() && !seen.remote, "{seen}");
        robot.verified(&ARM)?;
        Ok(())
    })
}
