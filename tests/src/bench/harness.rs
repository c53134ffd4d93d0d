//! A front and the drives in one thread, around a real-time thread whose frames are timed.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use shm_proto::layout::BeatLayout;
use shm_proto::verdicts::MotorState;
use shm_proto::{
    BeatSegment, BeatView, BeatWriter, Generation, MotorIndex, Nanos, Owner, SessionId, SlotIndex, Window,
};
use supervisor::bus::Buses;
use supervisor::queue::Command;
use supervisor::sys;

use super::ports::{Drives, Meter, Stamps, sink};
use super::realtime::{self, Armed};
use super::robot::{Shape, at_rest};

/// The harness's own priority: above the load, so that it keeps its times, and below what is measured.
const PRIORITY: u8 = 10;
/// How often it looks while it waits.
const LOOK: Duration = Duration::from_millis(2);
/// Drives that report at once: more than a bus carries would be lost, or keep the supervisor busy.
const AT_A_TIME: usize = 2;
/// How long anything that takes milliseconds may take on a machine that is starved.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the frames go.
#[derive(Clone, Copy, Debug)]
pub enum Outlet<'a> {
    /// Nowhere.
    Sink,
    /// To a CAN interface.
    Can(&'a str),
}

/// Everything around the real-time thread.
#[derive(Debug)]
pub struct Harness {
    /// What the real-time thread publishes, and its queues.
    pub armed: Armed,
    /// When frames were handed over.
    pub stamps: Arc<Stamps>,
    beats: Arc<BeatSegment>,
    front: BeatWriter,
    writers: Vec<BeatWriter>,
    drives: Drives,
    sessions: u128,
}

impl Harness {
    /// Starts the real-time thread with that many motors, attaches, and has every motor proven to stand still.
    /// The calling thread becomes the harness's.
    ///
    /// # Errors
    /// The system refuses anything, or nothing comes of it in time.
    pub fn start(outlet: Outlet<'_>, motors: u16) -> Result<Self> {
        let interface = match outlet {
            Outlet::Sink => "lo",
            Outlet::Can(interface) => interface,
        };
        let config =
            Shape { interface, sessions: 64, motors, socket: Path::new("/nowhere"), listen: "127.0.0.1:0" }
                .config()?;
        let stamps = Stamps::new(motors);
        let measured = Arc::clone(&stamps);
        let (armed, drives) = match outlet {
            Outlet::Sink => {
                let (inner, drives) = sink()?;
                (realtime::arm(&config, Meter { inner, stamps: measured }, None)?, drives)
            }
            Outlet::Can(interface) => {
                let inner = Buses::open(&config).map_err(|problems| anyhow!(problems.join("; ")))?;
                let drives = Drives::on(interface)?;
                (realtime::arm(&config, Meter { inner, stamps: measured }, None)?, drives)
            }
        };
        // On the other CPU, if there is one.
        realtime::pin(0)?;
        if let Outlet::Sink = outlet {
            // On a CAN interface the drives' frames travel through ksoftirqd, which must get its turn, and there is
            // no load there that would keep the harness waiting.
            sys::set_fifo(PRIORITY)?;
        }

        let (capacity, generation) = (config.supervisor.capacity, Generation(1));
        let fd = shm_proto::memory::create("lanyard-beats", BeatLayout::new(capacity).words())?;
        let beats = BeatSegment::map(fd.as_fd(), capacity, generation)?;
        shm_proto::memory::seal(fd.as_fd())?;
        let view = BeatView::map(fd.as_fd(), capacity, generation)?;
        let mut front = beats.front_writer();
        let front_window = u64::try_from(config.supervisor.front_window.as_nanos())?;
        front.open(SessionId(1), Window(front_window));
        let writers = capacity.slots().filter_map(|slot| beats.writer(slot)).collect();
        let mut harness = Self { armed, stamps, beats, front, writers, drives, sessions: 1 };
        let pid = std::process::id();
        let attach = Command::Attach { view, pid, pidfd: sys::pidfd_open(pid)? };
        harness
            .armed
            .requesters
            .fronts
            .commands
            .push(attach)
            .map_err(|_| anyhow!("the queue of commands is full"))?;
        harness.until("the front is attached", |harness| harness.armed.verdicts.front().1 != 0)?;
        harness.settle(motors)?;
        Ok(harness)
    }

    /// The front's own beat.
    pub fn beat(&mut self) {
        self.front.beat();
    }

    /// Waits, beating, until something holds.
    ///
    /// # Errors
    /// It does not in time.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !holds(self) {
            ensure!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
            self.beat();
            sleep(LOOK);
        }
        Ok(())
    }

    /// Has the first motors say that they stand still until the supervisor believes it.
    ///
    /// # Errors
    /// It never does.
    pub fn settle(&mut self, motors: u16) -> Result<()> {
        self.until("every motor stands still", |harness| {
            let moving: Vec<u16> = (0..motors).filter(|motor| !harness.is_at_rest(*motor)).collect();
            harness.let_some_rest(&moving);
            moving.is_empty()
        })
    }

    /// As many of these drives as a bus carries at a time say that they stand still.
    pub fn let_some_rest(&self, motors: &[u16]) {
        motors.iter().take(AT_A_TIME).for_each(|motor| self.let_rest(*motor));
    }

    /// Opens a session in a slot that is silent from then on and takes these motors. Its window is chosen so
    /// that it is over at `deadline`.
    ///
    /// # Errors
    /// There is no such slot.
    pub fn open(&mut self, slot: SlotIndex, motors: &[u16], deadline: Nanos) -> Result<Owner> {
        self.sessions += 1;
        let writer = self.writers.get_mut(usize::from(slot.0)).context("no such slot")?;
        let now = Nanos::now();
        let owner = writer.open_at(SessionId(self.sessions), Window(deadline.since(now)), now);
        for motor in motors {
            self.stamps.clear(*motor);
            self.beats.take_motor(MotorIndex(*motor), owner);
        }
        Ok(owner)
    }

    /// Whether the supervisor lets that session move the motor.
    pub fn is_granted(&self, motor: u16, owner: Owner) -> bool {
        self.armed.verdicts.granted(MotorIndex(motor)) == Some(owner)
    }

    /// Whether the supervisor has the motor for standing still.
    pub fn is_at_rest(&self, motor: u16) -> bool {
        let verdict = self.armed.verdicts.motor(MotorIndex(motor));
        verdict.is_some_and(|verdict| matches!(verdict.state, MotorState::Idle | MotorState::Stopped))
    }

    /// The drive says that it stands still.
    pub fn let_rest(&self, motor: u16) {
        at_rest(motor).iter().for_each(|frame| self.drives.say(frame));
    }
}
