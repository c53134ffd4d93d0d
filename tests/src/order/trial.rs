//! One sequence on a robot, and what becomes of its motor.

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::patterns::{Command, Names, Pattern, Start, TURNING, Way};
use crate::clock::Moment;
use crate::expect;
use crate::pipeline::{Answer, Call, OK, Pipeline};
use crate::python::Clients;
use crate::relay::Relay;
use crate::robot::{LEFT, RIGHT, Robot};
use crate::wire::Motor;

/// What the robot of [`crate::robot::Setup::base`] calls its parts.
pub const NAMES: Names<'_> = Names { motor: LEFT.name, base: "base1" };

/// After everything was answered: three refreshes of the set-point (40 ms in tests), in which a command that was carried
/// out late shows.
const SETTLES: Duration = Duration::from_millis(120);
/// How long an answer may take on the slowest rig: the first command has to switch the drive on.
const ANSWERED: Duration = Duration::from_secs(8);
/// A beat often enough for windows from half a second on.
const BEAT: Duration = Duration::from_millis(100);
/// How long a set-point may take that has been answered for.
const REACHED: Duration = Duration::from_secs(10);
/// What a client is told whose session is over.
const SESSION_EXPIRED: &str = "SESSION_EXPIRED";
/// What an f32 keeps of a speed, and more.
const EXACT: f64 = 1e-3;

/// Whether a client's commands are guarded by a session or by a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A session that beats.
    Session,
    /// None of its own.
    Lease,
}

/// What became of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The last command is in force; or, where nothing may move, nothing did.
    Right,
    /// The drive has another set-point: which.
    Wrong(f64),
    /// The base's other wheel has another set-point: which.
    OtherWheel(f64),
    /// The last command was refused.
    Refused(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right => f.write_str("right"),
            Self::Wrong(speed) => write!(f, "{speed} rev/s"),
            Self::OtherWheel(speed) => write!(f, "other wheel {speed} rev/s"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

/// A robot, a client that awaits nothing, and the network between them.
#[derive(Debug)]
pub struct Bench<'a> {
    robot: &'a Robot,
    /// The network.
    pub relay: Relay,
    /// The client.
    pub client: Pipeline,
    session: Option<String>,
}

impl<'a> Bench<'a> {
    /// Connects a client over a network that can be held back.
    ///
    /// # Errors
    /// It cannot connect, or has no session.
    pub fn new(robot: &'a Robot, clients: &mut Clients, guard: Guard) -> Result<Self> {
        let relay = Relay::start(&robot.address)?;
        let client = Pipeline::connect(clients, &relay.address)?;
        let mut bench = Self { robot, relay, client, session: None };
        if guard == Guard::Session {
            bench.open_session()?;
        }
        // The drive is switched on once for all: that takes longer than a trial.
        let turn = bench.guarded(Command::Power(TURNING).call(NAMES));
        bench.client.ask(&turn)?;
        let turn = bench.guarded(Command::Base.call(NAMES));
        bench.client.ask(&turn)?;
        bench.reaches(&LEFT, Command::Base.speed())?;
        bench.reaches(&RIGHT, Command::Base.speed())?;
        Ok(bench)
    }

    /// Opens a session that beats from now on, in the place of the one before.
    ///
    /// # Errors
    /// It is refused.
    pub fn open_session(&mut self) -> Result<()> {
        self.session = Some(self.client.open_session(BEAT)?);
        Ok(())
    }

    /// The call as this client makes it: under its session, if it has one.
    #[must_use]
    pub fn guarded(&self, call: Call) -> Call {
        match &self.session {
            Some(session) => call.under(session),
            None => call,
        }
    }

    /// Waits until a drive has that set-point.
    ///
    /// # Errors
    /// It does not in time.
    pub fn reaches(&self, motor: &Motor, speed: f64) -> Result<()> {
        expect::within(REACHED, &format!("{} has the set-point {speed}", motor.name), || {
            let target = target(self.robot, motor).map_err(|error| format!("{error:#}"))?;
            if is(target, speed) { Ok(()) } else { Err(format!("{target}")) }
        })
    }

    /// The set-point that a drive has.
    ///
    /// # Errors
    /// The simulation does not answer.
    pub fn target(&self, motor: &Motor) -> Result<f64> {
        target(self.robot, motor)
    }

    /// Brings the motors to what a sequence begins with.
    fn begin(&mut self, start: Start) -> Result<()> {
        let stop = self.guarded(Call::stop_all());
        self.client.ask(&stop)?;
        self.reaches(&LEFT, 0.0)?;
        self.reaches(&RIGHT, 0.0)?;
        match start {
            Start::Stopped => Ok(()),
            Start::Turning => {
                let turn = Command::Power(TURNING);
                let call = self.guarded(turn.call(NAMES));
                self.client.ask(&call)?;
                self.reaches(&LEFT, turn.speed())
            }
        }
    }

    /// Plays a sequence that arrives within the client's window, and judges it by the set-points at the end.
    ///
    /// # Errors
    /// It cannot be played.
    pub fn play(&mut self, pattern: &Pattern) -> Result<Verdict> {
        self.begin(pattern.start).with_context(|| format!("before {pattern}"))?;
        let last = *pattern.commands.last().context("no command")?;
        let calls: Vec<Call> =
            pattern.commands.iter().map(|command| self.guarded(command.call(NAMES))).collect();
        let sent = match pattern.way {
            Way::OneSegment | Way::TwoMillisApart => self.client.send(&calls, pattern.way.spacing())?,
            Way::Held(gap) => {
                self.relay.hold();
                let sent = self.client.send(&calls, pattern.way.spacing());
                sleep(gap);
                self.relay.release();
                sent?
            }
        };
        let mut answer = None;
        for (one, command) in sent.each().iter().zip(&pattern.commands) {
            // What travels is answered when it arrives, or by the stop before the next sequence.
            answer = if command.is_answered_at_once() {
                let told = self.client.answers(one, ANSWERED)?.pop().flatten();
                let told = told.with_context(|| format!("{pattern}: {command} was not answered"))?;
                // A rig that stood still for a window has shown nothing.
                ensure!(told.message != SESSION_EXPIRED, "{pattern}: the session was lost");
                Some(told)
            } else {
                None
            };
        }
        if answer.is_none() {
            // Without an answer only the drive tells when the command has come through; if it never does, it is wrong.
            let _ = self.reaches(&LEFT, last.speed());
        }
        sleep(SETTLES);
        let verdict = self.judge(last, answer)?;
        if verdict != Verdict::Right {
            self.is_alive().with_context(|| format!("{pattern}: {verdict}"))?;
        }
        Ok(verdict)
    }

    /// Makes sure that the client's session lives: one that was lost on a rig that stood still has stopped its motors. A
    /// stop would be obeyed from anybody.
    fn is_alive(&mut self) -> Result<()> {
        let turn = self.guarded(Command::Power(TURNING).call(NAMES));
        self.client.ask(&turn).context("the session was lost")
    }

    fn judge(&self, last: Command, answer: Option<Answer>) -> Result<Verdict> {
        let speed = target(self.robot, &LEFT)?;
        let other = target(self.robot, &RIGHT)?;
        Ok(match answer {
            // First: what was refused is not in force, and the answer says why.
            Some(answer) if answer.status != Some(OK) => Verdict::Refused(answer.message),
            _ if !is(speed, last.speed()) => Verdict::Wrong(speed),
            _ if last.other_wheel().is_some_and(|wanted| !is(other, wanted)) => Verdict::OtherWheel(other),
            _ => Verdict::Right,
        })
    }

    /// Plays a sequence that the network holds back for longer than the client's window: nothing of it may move. The
    /// client has a new session afterwards, if it had one.
    ///
    /// # Errors
    /// It cannot be played.
    pub fn play_too_late(&mut self, pattern: &Pattern) -> Result<Verdict> {
        let Way::Held(gap) = pattern.way else { anyhow::bail!("{pattern} is not held back") };
        self.begin(pattern.start).with_context(|| format!("before {pattern}"))?;
        let calls: Vec<Call> =
            pattern.commands.iter().map(|command| self.guarded(command.call(NAMES))).collect();
        self.relay.hold();
        let sent = self.client.send(&calls, pattern.way.spacing());
        sleep(gap);
        self.reaches(&LEFT, 0.0).context("the silent client was not stopped")?;
        let late = Moment::now();
        self.relay.release();
        let answers = self.client.answers(&sent?, ANSWERED)?;
        ensure!(answers.iter().all(Option::is_some), "{pattern}: not everything was answered");
        sleep(SETTLES);
        let moved = self.robot.listener.last_drive(&LEFT, late)?;
        let verdict = match moved {
            Some(_) => Verdict::Wrong(target(self.robot, &LEFT)?),
            None => Verdict::Right,
        };
        if self.session.is_some() {
            self.open_session()?;
        }
        Ok(verdict)
    }
}

/// The set-point that a simulated drive has taken, revolutions a second; 0 when it has no torque.
///
/// # Errors
/// The simulation does not answer.
pub fn target(robot: &Robot, motor: &Motor) -> Result<f64> {
    let report = robot.sim.report(motor.node)?;
    report.0["target"].as_f64().with_context(|| format!("{} has no set-point: {}", motor.name, report.0))
}

/// Whether a set-point is this one.
#[must_use]
pub fn is(target: f64, speed: f64) -> bool {
    (target - speed).abs() < EXACT
}
