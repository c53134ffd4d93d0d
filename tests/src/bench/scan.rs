//! What one pass of the supervisor's core costs, by its own clock: once with nothing due, as most passes are, and
//! once with a session due that has beaten meanwhile, which makes the core go through all deadlines.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use drivers::Frame;
use shm_proto::layout::BeatLayout;
use shm_proto::verdicts::{Identity, ResetPolicy, SessionState};
use shm_proto::{
    BeatSegment, BeatView, BeatWriter, Capacity, Generation, Nanos, SessionId, VerdictSegment, VerdictView,
    Window,
};
use supervisor::core::{Core, SendError, Settings, Wire};

use super::figures::Figures;
use super::robot::Shape;
use tests::stats::median;

/// What is measured begins with this.
pub const NAMES: &[&str] = &["scan."];

/// Rounds; the median counts.
const ROUNDS: u32 = 60;
/// Passes in a round.
const PASSES: u32 = 1000;
/// The window of the session that comes due in every pass, the shortest there is, and that of all others, the
/// longest.
const DUE: Window = Window::from_millis(30);
const OTHERS: Window = Window::from_millis(60_000);
/// By the core's clock, nanoseconds: a round (30 s) fits between two ticks, and the window of the others is longer
/// still.
const TICK: u64 = 31_000_000_000;
/// Longer than the whole measurement by the core's clock: the front's silence is not the matter.
const NEVER: u64 = 1 << 60;

/// Takes nothing: there are no motors.
#[derive(Debug)]
struct NoWire;

impl Wire for NoWire {
    fn send(&mut self, _bus: usize, _frame: &Frame) -> Result<(), SendError> {
        Ok(())
    }

    fn now(&mut self) -> Nanos {
        Nanos::now()
    }
}

/// Measures with one session and with as many as there can be.
///
/// # Errors
/// Shared memory cannot be had, or a session was lost on the way.
pub fn measure(figures: &mut Figures) -> Result<()> {
    for sessions in [1, Capacity::MOST_SESSIONS] {
        let mut scene = Scene::new(sessions)?;
        let (mut idle, mut due) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            idle.push(scene.nothing_due());
            due.push(scene.one_due());
            scene.tick();
        }
        ensure!(scene.all_live(), "a session was lost: what was measured is something else");
        figures.note(format!("scan.idle_ns.{sessions}"), median(idle));
        let due = median(due);
        figures.note(format!("scan.due_ns.{sessions}"), due);
        // The last one stands for both: the most there can be.
        figures.note("scan.due_ns", due);
    }
    Ok(())
}

/// A core without motors, and its sessions.
struct Scene {
    core: Core,
    verdicts: VerdictView,
    writers: Vec<BeatWriter>,
    now: Nanos,
    next_tick: Nanos,
    /// When the session with the short window comes due.
    due: Nanos,
}

impl Scene {
    fn new(sessions: u16) -> Result<Self> {
        let capacity = Capacity::new(sessions, 1).context("no such capacity")?;
        let (socket, listen) = (Path::new("/nowhere"), "127.0.0.1:0");
        let config = Shape { interface: "lo", sessions, motors: 1, socket, listen }.config()?;
        let settings = Settings {
            front_window: Window(NEVER),
            windows: (DUE, OTHERS),
            tick: TICK,
            ..supervisor::start::settings(&config)
        };
        let identity = Identity { config_hash: 1, pid: 1, started: Nanos(1), policy: ResetPolicy::Auto };
        let (segment, fd) = VerdictSegment::create(capacity, &identity, &[], &[])?;
        let verdicts = VerdictView::map(fd.as_fd(), capacity)?;
        let mut core = Core::new(settings, Vec::new(), 0, Vec::new(), segment, sessions);

        let generation = Generation(1);
        let fd = shm_proto::memory::create("lanyard-beats", BeatLayout::new(capacity).words())?;
        let beats = BeatSegment::map(fd.as_fd(), capacity, generation)?;
        shm_proto::memory::seal(fd.as_fd())?;
        let view = BeatView::map(fd.as_fd(), capacity, generation)?;
        let now = Nanos::now();
        core.start(now, &mut NoWire);
        core.attach(view, 1, now, &mut NoWire);
        let mut writers: Vec<BeatWriter> = capacity.slots().filter_map(|slot| beats.writer(slot)).collect();
        for (writer, session) in writers.iter_mut().zip(1..) {
            writer.open_at(SessionId(session), if session == 1 { DUE } else { OTHERS }, now);
        }
        let mut scene =
            Self { core, verdicts, writers, now, next_tick: now.after(TICK), due: now.after(DUE.0) };
        // New sessions are noticed some at a time.
        for _ in 0..sessions {
            scene.tick();
            if scene.all_live() {
                return Ok(scene);
            }
        }
        bail!("the core does not notice its sessions");
    }

    fn all_live(&self) -> bool {
        let capacity = self.verdicts.capacity();
        capacity.slots().all(|slot| self.verdicts.session_state(slot).1 == SessionState::Live)
    }

    /// Everybody beats, and the core does what it does on a tick.
    fn tick(&mut self) {
        while self.now < self.next_tick {
            self.come_due();
        }
        self.next_tick = self.next_tick.after(TICK);
        for writer in &mut self.writers {
            writer.beat_at(self.now);
        }
        self.due = self.now.after(DUE.0);
        self.core.step(self.now, &mut NoWire);
    }

    /// A pass at the deadline of the session with the short window, which has beaten just in time: a beat from
    /// after the deadline would save nobody.
    fn come_due(&mut self) {
        self.now = self.due;
        let in_time = Nanos(self.now.0 - 1);
        self.writers[0].beat_at(in_time);
        self.due = in_time.after(DUE.0);
        self.core.step(self.now, &mut NoWire);
    }

    /// Nanoseconds of a pass before any deadline.
    fn nothing_due(&mut self) -> f64 {
        let begun = Instant::now();
        for _ in 0..PASSES {
            self.now = self.now.after(1);
            self.core.step(self.now, &mut NoWire);
        }
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(PASSES)
    }

    /// Nanoseconds of a pass at the deadline of a session, and of the beat that lets it live on.
    fn one_due(&mut self) -> f64 {
        let begun = Instant::now();
        for _ in 0..PASSES {
            self.come_due();
        }
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(PASSES)
    }
}
