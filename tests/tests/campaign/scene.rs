//! One cell, played: the robot is brought into its state, everything goes wrong at once, and the shaft is watched.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tests::clock::Moment;
use tests::families;
use tests::interface::{Changed, far_end};
use tests::intruder::Intruder;
use tests::robot::{MOVE, Robot, START, STILL, Setup};
use tests::sim::inject::Stop;

use crate::bounds::{DISTURBED, Demand, FLAP, WINDOW, can_be_stopped, demand, first_stop, stage_bounds};
use crate::cell::{Bus, Cell, Fault, Front, State, Supervisor};
use crate::client::Client;
use crate::outcome::{Outcome, Verdict};
use crate::watch::{FirstStops, Look, REST_REV_PER_S, Watch};

/// The motor's name.
pub const NAME: &str = "joint";
/// The interface of the supervisor and the front.
const INTERFACE: &str = "vcan0";
/// What the client asks for: 2 revolutions a second of the 5 that are allowed.
const RPM: f64 = 120.0;
/// Three fifths of that, rev/s: reached on the ramp by every drive, and by none that was not told.
const TURNING_REV_PER_S: f64 = 1.2;
/// How long a motor is driven in peace before anything goes wrong: many beats, refreshes and reports.
const PEACE: Duration = Duration::from_millis(700);
/// How long it is watched after its bound: what has come to rest has to stay there.
const AFTERWARDS: Duration = Duration::from_millis(400);
/// The pause between two looks at `lanyard status`, which takes some ten milliseconds of the slowest machine.
const STATUS_PAUSE: Duration = Duration::from_millis(250);
/// Class and detail of error frames (`include/uapi/linux/can/error.h`): the controller is error-passive; bus-off; restarted.
const ERROR_PASSIVE: (u32, [u8; 8]) = (0x004, [0, 0x20, 0, 0, 0, 0, 0, 0]);
const BUS_OFF: (u32, [u8; 8]) = (0x040, [0; 8]);
const RESTARTED: (u32, [u8; 8]) = (0x100, [0; 8]);

/// How much later than meant an interface may come back, nanoseconds: later, the cell has shown nothing.
const LATE_RETURN_NS: i64 = 1_000_000_000;

/// Plays a cell. What went wrong with the scene itself is an outcome, too: it has shown nothing.
pub fn play(cell: &Cell) -> Outcome {
    let mut robot = match robot(cell) {
        Ok(robot) => robot,
        Err(error) => return Outcome::unplayed(&error),
    };
    let outcome = play_with(cell, &mut robot).unwrap_or_else(|error| Outcome::unplayed(&error));
    match outcome.verdict {
        Verdict::Stays | Verdict::Rest | Verdict::Told => outcome,
        Verdict::Missed | Verdict::False | Verdict::Unplayed => outcome.with_log(robot.printed()),
    }
}

fn robot(cell: &Cell) -> Result<Robot> {
    let family = cell.family;
    let setup = Setup::new().as_shipped().window(&format!("{}ms", WINDOW.as_millis())).with_drive(
        NAME,
        &family.table(),
        family.drive,
    );
    match family.bus {
        families::Bus::Classic => setup.start(),
        families::Bus::Fd => setup.fd().start(),
    }
}

fn play_with(cell: &Cell, robot: &mut Robot) -> Result<Outcome> {
    let node = cell.family.node;
    let watch = Watch::begin(robot.sim.remote.clone(), node)?;
    let at_rest = |status: &tests::status::MotorStatus| status.state() == "idle";
    robot.lanyard.wait_for_motor(NAME, STILL, "is proven at rest after the start", at_rest)?;
    let mut client = None;
    if cell.state != State::Idle {
        client = Some(drive(robot, node)?);
    }
    if let Some(early) = stopped_without_reason(robot, cell, &watch)? {
        return Ok(Outcome::new(Verdict::False, early));
    }
    bring_to_state(cell, robot, client.as_ref(), &watch)?;
    robot.sim.order(&format!("{node} mark"))?;
    let before = Moment::now();
    let (disturbance, from) = inject(cell, robot, client.as_ref())?;
    let from = undo(disturbance, from)?;
    let proofs = watch_until_the_end(cell, robot, from)?;
    judge(cell, robot, &watch, &Times { before, from }, &proofs)
}

/// Has a client drive the motor in peace.
fn drive(robot: &Robot, node: u8) -> Result<Client> {
    let client = Client::connect(&robot.address)?;
    client.turn(NAME, RPM)?;
    robot.sim.wait_for_speed(node, TURNING_REV_PER_S, MOVE)?;
    Ok(client)
}

/// Says what has stopped a motor that was driven in peace; `None` if nothing has.
fn stopped_without_reason(robot: &Robot, cell: &Cell, watch: &Watch) -> Result<Option<String>> {
    if cell.state == State::Idle {
        return Ok(None);
    }
    robot.sim.order(&format!("{} mark", cell.family.node))?;
    std::thread::sleep(PEACE);
    let first = watch.first_stops()?.first();
    let trip =
        robot.lanyard.events()?.into_iter().find(|event| event.kind() == "trip" && event.concerns(NAME));
    Ok(match (first, trip) {
        (None, None) => None,
        (stop, trip) => Some(format!("stopped while all was well: stop {stop:?}, trip {trip:?}")),
    })
}

fn bring_to_state(cell: &Cell, robot: &Robot, client: Option<&Client>, watch: &Watch) -> Result<()> {
    let node = cell.family.node;
    let second = cell.family.stages.get(1);
    let until = match (cell.state, second) {
        (State::Idle | State::Granted, _) => return Ok(()),
        (State::Stage2, Some(kind)) => Some(*kind),
        (State::Stage1 | State::Stage2 | State::Stopped, _) => None,
    };
    if until.is_some() {
        robot.sim.order(&format!("{node} ignore controlled on"))?;
    }
    client.context("a state that needs a client")?.fall_silent()?;
    let begun = |stops: &FirstStops| match until {
        Some(kind) => stops.of(kind).is_some(),
        None => stops.first().is_some(),
    };
    tests::expect::within(START, "its stop is under way", || match watch.first_stops() {
        Ok(stops) if begun(&stops) => Ok(()),
        Ok(_) => Err("no stop has reached the drive".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    })?;
    if until.is_some() {
        robot.sim.order(&format!("{node} ignore controlled off"))?;
    }
    if cell.state == State::Stopped {
        let is_proven = |status: &tests::status::MotorStatus| {
            status.state() == "stopped" && status.standstill().is_some()
        };
        robot.lanyard.wait_for_motor(NAME, STILL, "is proven to stand still", is_proven)?;
    }
    Ok(())
}

/// What goes on with the bus while the shaft is watched.
#[derive(Debug)]
enum Disturbance {
    Nothing,
    Flapping(Intruder),
    Gone(Changed),
}

/// Lets everything go wrong, as near to one moment as a program can. The supervisor's end comes last: returns the moment
/// from which on everything counts.
fn inject(cell: &Cell, robot: &mut Robot, client: Option<&Client>) -> Result<(Disturbance, Moment)> {
    let node = cell.family.node;
    for order in orders(cell.fault) {
        robot.sim.order(&format!("{node} {order}"))?;
    }
    if cell.front == Front::Hangs {
        robot.signal_front(Signal::SIGSTOP)?;
    }
    if let Some(client) = client {
        client.fall_silent()?;
    }
    let disturbance = disturb(cell.bus)?;
    let from = Moment::now();
    match cell.supervisor {
        Supervisor::Alive => {}
        Supervisor::Hung => robot.supervisor()?.signal(Signal::SIGSTOP)?,
        Supervisor::Dead => robot.supervisor()?.kill()?,
    }
    Ok((disturbance, from))
}

/// Begins what the bus does.
fn disturb(bus: Bus) -> Result<Disturbance> {
    let wire = Intruder::node(INTERFACE)?;
    let report = |(classes, details): (u32, [u8; 8])| wire.report(classes, details).map(drop);
    Ok(match bus {
        Bus::Well => Disturbance::Nothing,
        Bus::Doubtful => {
            report(ERROR_PASSIVE)?;
            Disturbance::Nothing
        }
        Bus::Flapping => {
            report(BUS_OFF)?;
            Disturbance::Flapping(wire)
        }
        Bus::Gone => {
            report(BUS_OFF)?;
            let changed = Changed::down(&far_end(INTERFACE))?;
            Disturbance::Gone(changed)
        }
    })
}

/// What the simulation is told of a fault.
fn orders(fault: Fault) -> &'static [&'static str] {
    match fault {
        Fault::None => &[],
        Fault::DeafToGentle => &["ignore controlled on"],
        Fault::DeafToZero => &["ignore-velocity-zero on"],
        Fault::DeafToRamps => &["ignore controlled on", "ignore quick on"],
        Fault::DeafToAll => &["ignore all on", "ignore-velocity-zero on"],
        Fault::Mute => &["mute on"],
        Fault::Offline => &["offline on"],
        Fault::NoFeedback => &["feedback-loss on"],
        // A code that most families have.
        Fault::Reports => &["fault 4"],
        Fault::Jammed => &["jam on"],
        Fault::Pushed => &["push 2"],
        Fault::PowerCycled => &["power-cycle"],
    }
}

/// A proof that the supervisor has published.
#[derive(Clone, Copy, Debug)]
struct Proof {
    /// When it was given.
    at: Moment,
    /// When it was last read.
    read: Moment,
}

/// Everything the supervisor has said until the end.
#[derive(Debug, Default)]
struct Said {
    proofs: Vec<Proof>,
    last_state: Option<String>,
    /// Whether it said at last that the motor turns although it has no power.
    moves: bool,
}

/// Lets the cell run to its end: a supervisor that lives is read again and again.
fn watch_until_the_end(cell: &Cell, robot: &mut Robot, from: Moment) -> Result<Said> {
    let bound = demand(cell).bound();
    let mut said = Said::default();
    let end = from + bound + AFTERWARDS;
    while Moment::now() < end {
        if cell.supervisor == Supervisor::Alive {
            let status = robot.lanyard.motor(NAME)?;
            if let Some(at) = status.standstill() {
                said.proofs.push(Proof { at, read: Moment::now() });
            }
            said.moves = status.0["moves"] == true;
            said.last_state = Some(status.state().to_owned());
        }
        std::thread::sleep(STATUS_PAUSE);
    }
    Ok(said)
}

/// Lets the bus do what it does, and recover. Returns the moment from which bounds count: to bring an interface back takes a slow
/// machine a while, and by so much later a bus was gone.
fn undo(disturbance: Disturbance, from: Moment) -> Result<Moment> {
    let report =
        |wire: &Intruder, (classes, details): (u32, [u8; 8])| wire.report(classes, details).map(drop);
    let end = from + DISTURBED;
    match disturbance {
        Disturbance::Nothing => {}
        Disturbance::Flapping(wire) => {
            while Moment::now() < end {
                std::thread::sleep(FLAP);
                report(&wire, RESTARTED)?;
                std::thread::sleep(FLAP);
                report(&wire, BUS_OFF)?;
            }
            report(&wire, RESTARTED)?;
        }
        Disturbance::Gone(changed) => {
            let left = Duration::from_nanos(u64::try_from(end.0 - Moment::now().0).unwrap_or(0));
            std::thread::sleep(left);
            changed.restore()?;
            // The old socket has yet to say that its interface was down.
            report(&Intruder::node(INTERFACE)?, RESTARTED)?;
            let late = (Moment::now().0 - end.0).max(0);
            ensure!(late < LATE_RETURN_NS, "the interface came back {late} ns too late");
            return Ok(Moment(from.0 + late));
        }
    }
    Ok(from)
}

/// The moments between which everything went wrong.
#[derive(Clone, Copy, Debug)]
struct Times {
    before: Moment,
    from: Moment,
}

fn judge(cell: &Cell, robot: &mut Robot, watch: &Watch, times: &Times, said: &Said) -> Result<Outcome> {
    let stops = watch.first_stops()?;
    let mut outcome = Outcome::new(Verdict::Rest, String::new());
    if let Some(lie) = false_proof(cell, watch, said) {
        return Ok(Outcome::new(Verdict::False, lie));
    }
    if cell.state == State::Granted && cell.fault != Fault::Offline && cell.fault != Fault::PowerCycled {
        let bound = first_stop(cell);
        outcome.first_stop_bound = Some(bound);
        let Some(first) = stops.first() else {
            return Ok(outcome.missed("no stop has reached the drive".to_owned()));
        };
        if first < times.before {
            bail!("a stop before anything went wrong: the scene is at fault");
        }
        let took = since(first, times.from);
        outcome.first_stop = Some(took);
        if took > bound {
            return Ok(outcome.missed(format!("the first stop came after {took:?}, the bound is {bound:?}")));
        }
    }
    let bound = demand(cell).bound();
    let looks = watch.without_a_gap(times.before, times.from + bound + AFTERWARDS)?;
    let turning = |look: &&Look| look.speed.abs() > REST_REV_PER_S;
    match demand(cell) {
        Demand::Stays(_) => {
            outcome.verdict = Verdict::Stays;
            // One that was proven to stand still may run out from that speed, but it has to come to rest.
            let slow = standstill_rev_per_s(cell);
            let turned = looks.iter().find(|look| look.speed.abs() > slow).or(looks.last().filter(turning));
            if let Some(look) = turned {
                return Ok(outcome.missed(format!("it stood still, and turned at {:.2} rev/s", look.speed)));
            }
        }
        Demand::Rest(bound) => {
            outcome.rest_bound = Some(bound);
            let last = looks.iter().rfind(turning);
            let took = last.map_or(Duration::ZERO, |look| since(look.at, times.from));
            outcome.rest = Some(took);
            if took > bound {
                let speed = last.map_or(0.0, |look| look.speed);
                let text = format!("it turned at {speed:.2} rev/s after {took:?}, the bound is {bound:?}");
                return Ok(outcome.missed(text));
            }
        }
        Demand::Told(bound) => {
            // It may have come to rest all the same: its stop was under way when it became deaf.
            if looks.iter().filter(|look| look.at >= times.from + bound).any(|look| turning(&look)) {
                outcome.verdict = Verdict::Told;
                if let Some(problem) = untold(cell, &stops, times.from, said) {
                    return Ok(outcome.missed(problem));
                }
            }
        }
    }
    stays_at_rest_when_it_goes_on(cell, robot, watch, outcome)
}

/// How much later a moment is, 0 if it is earlier.
fn since(at: Moment, from: Moment) -> Duration {
    Duration::from_nanos(u64::try_from(at.0 - from.0).unwrap_or(0))
}

/// The speed up to which a motor of that family is called still, revolutions a second: what a drive reports is rounded.
fn standstill_rev_per_s(cell: &Cell) -> f64 {
    (cell.family.standstill_rpm / 60.0 * 1.05).max(REST_REV_PER_S)
}

/// Says which proof was none: the shaft turned at the moment of the proof, or turned for a second while it stood.
fn false_proof(cell: &Cell, watch: &Watch, said: &Said) -> Option<String> {
    const NOTICED: Duration = Duration::from_secs(1);
    let turning = standstill_rev_per_s(cell);
    let looks = watch.since(Moment(0));
    let turned_all_the_time = |from: Moment, until: Moment| {
        let mut within = looks.iter().filter(|look| look.at >= from && look.at <= until).peekable();
        within.peek().is_some() && within.all(|look| look.speed.abs() > turning)
    };
    let around = crate::watch::PAUSE * 2;
    said.proofs.iter().find_map(|proof| {
        if turned_all_the_time(proof.at - around, proof.at + around) {
            return Some(format!("called still at {} while it turned", proof.at));
        }
        turned_all_the_time(proof.read - NOTICED, proof.read)
            .then(|| format!("still called still at {} after it had turned for {NOTICED:?}", proof.read))
    })
}

/// Says what is missing of the stop of a drive that cannot be stopped: a stage, or the word that it turns.
fn untold(cell: &Cell, stops: &FirstStops, from: Moment, said: &Said) -> Option<String> {
    let is_pushed_by_hand = cell.fault == Fault::Pushed && matches!(cell.state, State::Idle | State::Stopped);
    // Stages that were sent before are not sent again: what is asked of a stop that is under way is its last stage. The kernel
    // begins at the first. A drive that hears nothing cannot say what came.
    let heard = cell.fault != Fault::Offline && !is_pushed_by_hand;
    let from_the_first = cell.state == State::Granted || cell.supervisor != Supervisor::Alive;
    let wanted: Vec<(Stop, Duration)> = match (heard, from_the_first, stage_bounds(cell)) {
        (false, _, _) => Vec::new(),
        (true, true, all) => all,
        (true, false, all) => all.last().copied().into_iter().collect(),
    };
    let missing = wanted.into_iter().find_map(|(kind, bound)| match stops.of(kind) {
        None => Some(format!("a stage was never sent: {kind:?}")),
        Some(at) if since(at, from) > bound => {
            Some(format!("the stage {kind:?} came after {:?}, the bound is {bound:?}", since(at, from)))
        }
        Some(_) => None,
    });
    if missing.is_some() {
        return missing;
    }
    match (cell.supervisor, said.last_state.as_deref()) {
        (Supervisor::Hung | Supervisor::Dead, _) => None,
        (Supervisor::Alive, Some("unverified" | "stopping")) => None,
        (Supervisor::Alive, Some("idle" | "stopped")) if is_pushed_by_hand && said.moves => None,
        (Supervisor::Alive, state) => {
            Some(format!("it turns and cannot be stopped, and is called {state:?}"))
        }
    }
}

/// A supervisor and a front that were stopped go on: nothing may turn again by that.
fn stays_at_rest_when_it_goes_on(
    cell: &Cell,
    robot: &mut Robot,
    watch: &Watch,
    outcome: Outcome,
) -> Result<Outcome> {
    // What only its own watchdog has stopped is fed again by a supervisor that lives, and told.
    if (cell.supervisor != Supervisor::Hung && cell.front != Front::Hangs) || !can_be_stopped(cell) {
        return Ok(outcome);
    }
    if cell.supervisor == Supervisor::Hung {
        robot.supervisor()?.signal(Signal::SIGCONT)?;
    }
    if cell.front == Front::Hangs {
        robot.signal_front(Signal::SIGCONT)?;
    }
    let from = Moment::now();
    std::thread::sleep(AFTERWARDS);
    ensure!(!watch.since(from).is_empty(), "nothing was watched");
    let turns = watch.since(from).into_iter().find(|look| look.speed.abs() > REST_REV_PER_S);
    Ok(match (outcome.verdict, turns) {
        (Verdict::Rest | Verdict::Stays, Some(look)) => {
            outcome.missed(format!("it turned again, at {:.2} rev/s, when what had hung went on", look.speed))
        }
        _ => outcome,
    })
}
