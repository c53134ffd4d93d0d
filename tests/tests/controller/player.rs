//! A front with one session, played by the test: it beats for both and drives one motor under its grant.
//!
//! The real front with a real client is slow on this machine (a client's import of its SDK alone takes up to a
//! minute) and sends when it likes; here a test decides what is in the transmit queue. The crate under test is
//! its tool for beats, grants and waiting, never the judge of what crossed the wire; frames are encoded here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use shm_proto::handover::{self, Attached};
use shm_proto::verdicts::{BusVerdict, MotorState, MotorVerdict};
use shm_proto::{BeatWriter, MotorIndex, SessionId, SlotIndex, VerdictView, Window};
use tests::clock::Moment;
use tests::expect;
use tests::intruder::Intruder;
use tests::processor;
use tests::robot::{LEFT, Robot, START};

/// How often it beats and sends: a real front refreshes every 20 ms.
const PERIOD: Duration = Duration::from_millis(20);
/// Before the programs of the test, behind interrupt handlers (50): it stands for another process, with a
/// machine of its own.
const PRIORITY: i32 = 40;
/// How long the front may be silent: long, for a machine that stands still at times.
const FRONT_WINDOW: Window = Window::from_millis(2000);
/// How long its session may be silent.
pub const WINDOW: Duration = Duration::from_millis(1000);
const SESSION_WINDOW: Window = Window::from_millis(1000);
/// The motor that is driven: the first of the configuration.
const MOTOR: MotorIndex = MotorIndex(0);

/// Identifiers of the ODrive [`LEFT`]: node << 5 | command.
const AXIS: u16 = (LEFT.node as u16) << 5;
const SET_STATE: u16 = AXIS | 0x07;
const SET_MODE: u16 = AXIS | 0x0B;
const CLEAR_ERRORS: u16 = AXIS | 0x18;
/// The command that sets the speed.
pub const SET_VELOCITY: u16 = AXIS | 0x0D;
const CLOSED_LOOP: [u8; 4] = [8, 0, 0, 0];
/// Velocity control, input passed through.
const VELOCITY_CONTROL: [u8; 8] = [2, 0, 0, 0, 1, 0, 0, 0];
/// 2.0 revolutions a second as an f32, no torque in addition.
pub const FORWARD: [u8; 8] = [0, 0, 0, 0x40, 0, 0, 0, 0];

/// Whether the session beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Alive,
    Dead,
}

/// Whether set-points go out as long as there is a grant, which outlives the client, as with a real front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Motion {
    Sent,
    Withheld,
}

#[derive(Debug)]
struct Session {
    beats: BeatWriter,
    client: Client,
    motion: Motion,
}

#[derive(Debug)]
struct Shared {
    attached: Attached,
    can: Intruder,
    session: Mutex<Session>,
    ending: AtomicBool,
}

impl Shared {
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds_grant(&self, session: &BeatWriter) -> bool {
        self.attached.verdicts.granted(MOTOR) == Some(session.owner())
    }
}

/// The front.
#[derive(Debug)]
pub struct Player {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Player {
    /// Takes the front's place at the supervisor of a robot, and sends on `interface`.
    ///
    /// # Errors
    /// The supervisor refuses.
    pub fn attach(robot: &Robot, interface: &str) -> Result<Self> {
        let status = robot.lanyard.status()?;
        let hash = status["config_hash"].as_str().context("no config_hash in the status")?;
        let hash = u64::from_str_radix(hash.trim_start_matches("0x"), 16)?;
        let attached = handover::attach(&robot.lanyard.front_socket(), hash)?;
        let mut front = attached.beats.front_writer();
        front.open(SessionId(1), FRONT_WINDOW);
        let beats = attached.beats.writer(SlotIndex(0)).context("slot 0 exists")?;
        let shared = Arc::new(Shared {
            attached,
            can: Intruder::local(interface)?,
            session: Mutex::new(Session { beats, client: Client::Dead, motion: Motion::Withheld }),
            ending: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("front".to_owned()).spawn(move || run(&for_thread, front))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A new client opens a session and drives [`LEFT`] forward; returns when the shaft turns.
    ///
    /// # Errors
    /// It gets no grant, or the shaft does not turn.
    pub fn drive(&self, robot: &Robot) -> Result<()> {
        let from = Moment::now();
        let owner = {
            let mut session = self.shared.session();
            session.client = Client::Alive;
            session.motion = Motion::Withheld;
            session.beats.open(SessionId(7), SESSION_WINDOW)
        };
        self.shared.attached.beats.take_motor(MOTOR, owner);
        expect::within(START, "the grant", || match self.shared.attached.verdicts.granted(MOTOR) {
            Some(granted) if granted == owner => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        expect::within(START, "the enabling frames are taken", || {
            // An interface that was down is told once to every socket, and is then as good as before.
            self.enable().map_err(|error| format!("{error:#}"))
        })?;
        self.shared.session().motion = Motion::Sent;
        robot.moves(&LEFT, from, 1.0)
    }

    fn enable(&self) -> Result<()> {
        let can = &self.shared.can;
        can.send(CLEAR_ERRORS, &[])?;
        can.send(SET_MODE, &VELOCITY_CONTROL)?;
        can.send(SET_STATE, &CLOSED_LOOP).map(drop)
    }

    /// What the supervisor publishes. Looking at it takes no time, while a run of `lanyard status` takes a second
    /// on this machine.
    pub fn verdicts(&self) -> &VerdictView {
        &self.shared.attached.verdicts
    }

    /// The supervisor's present word on [`LEFT`].
    ///
    /// # Errors
    /// There is no such motor.
    pub fn left(&self) -> Result<MotorVerdict> {
        self.verdicts().motor(MOTOR).context("no motor 0 in the verdicts")
    }

    /// The supervisor's present word on its only bus.
    ///
    /// # Errors
    /// There is no such bus.
    pub fn bus(&self) -> Result<BusVerdict> {
        self.verdicts().bus(0).context("no bus 0 in the verdicts")
    }

    /// Waits until [`LEFT`] is in this state.
    ///
    /// # Errors
    /// It is not in time.
    pub fn wait_for_left(&self, state: MotorState) -> Result<()> {
        expect::within(START, &format!("left is {}", state.name()), || match self.left() {
            Ok(motor) if motor.state == state => Ok(()),
            other => Err(format!("{other:?}")),
        })
    }

    /// The shaft turns on, but no more set-points go out.
    pub fn withhold(&self) {
        self.shared.session().motion = Motion::Withheld;
    }

    /// The client dies; returns the moment after its last beat.
    pub fn lose_client(&self) -> Moment {
        self.shared.session().client = Client::Dead;
        Moment::now()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot fail but by a panic, which has been shown.
            drop(thread.join());
        }
    }
}

fn run(shared: &Shared, mut front: BeatWriter) {
    // Where it is refused, sessions end too early now and then, which the tests show.
    let _ = processor::run_before_others(0, PRIORITY);
    while !shared.ending.load(Ordering::Relaxed) {
        front.beat();
        let mut session = shared.session();
        if session.client == Client::Alive {
            session.beats.beat();
        }
        if session.motion == Motion::Sent && shared.holds_grant(&session.beats) {
            // A queue that is full, or an interface that is down, is what the tests are about.
            let _ = shared.can.send(SET_VELOCITY, &FORWARD);
        }
        drop(session);
        std::thread::sleep(PERIOD);
    }
}
