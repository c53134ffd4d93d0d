//! A core with a front beside it in one process: real segments, a recording wire, a clock that the
//! test moves. Nothing here sleeps.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use config::Config;
use drivers::{ArbitrationId, Drive, Frame};
use shm_proto::beat::Reject;
use shm_proto::layout::BeatLayout;
use shm_proto::verdicts::{Event, EventKind, Identity, Remains, ResetPolicy};
use shm_proto::{
    BeatSegment, BeatView, BeatWriter, Capacity, Generation, MotorIndex, Nanos, Owner, SessionId, SlotIndex,
    VerdictSegment, VerdictView, Window,
};
use supervisor::core::{Arrival, Core, Inheritance, Origin, SendError, Settings, Wire};
use supervisor::inheritance::{self, Found};
use supervisor::latches::{self, Clock, take_over};
use supervisor::start;

/// The calendar of whoever begins with a disk.
pub const CALENDAR_MS: u64 = 1_800_000_000_000;
/// When every bench begins: no test depends on the machine's clock.
const START: Nanos = Nanos(5_000_000 * MS);
/// One millisecond.
pub const MS: u64 = 1_000_000;
/// The window tests use.
pub const WINDOW: Window = Window::from_millis(200);
/// The tick tests use.
pub const TICK: u64 = 5 * MS;
/// How often a sign of life goes to drives that watch one.
pub const HEARTBEAT: u64 = 60 * MS;

/// How long handing over a frame takes.
pub const SENDING: u64 = MS / 1_000;

/// Keeps what was sent, and fails as told.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Frames that were taken, with their bus.
    pub sent: Vec<(usize, Frame)>,
    /// What the next sends on a bus answer.
    pub failures: Vec<(usize, VecDeque<SendError>)>,
    /// Who looks at the verdicts whenever a frame is taken, and whether any motor was granted then.
    pub on_send: Option<(Arc<VerdictView>, Vec<bool>)>,
    /// The moment after the last frame.
    pub now: Nanos,
}

impl Wire for Recorder {
    fn send(&mut self, bus: usize, frame: &Frame) -> Result<(), SendError> {
        if let Some((_, failures)) = self.failures.iter_mut().find(|(failing, _)| *failing == bus)
            && let Some(error) = failures.pop_front()
        {
            return Err(error);
        }
        self.sent.push((bus, *frame));
        self.now = self.now.after(SENDING);
        if let Some((view, granted)) = &mut self.on_send {
            granted.push([A, B, C].iter().any(|motor| view.granted(*motor).is_some()));
        }
        Ok(())
    }

    fn now(&mut self) -> Nanos {
        self.now
    }
}

/// A supervisor's core and a front.
#[derive(Debug)]
pub struct Bench {
    /// The core under test.
    pub core: Core,
    /// What it sent.
    pub wire: Recorder,
    /// What it published.
    pub view: Arc<VerdictView>,
    /// What the next supervisor finds of it.
    pub left: OwnedFd,
    /// The front's segment.
    pub beats: Arc<BeatSegment>,
    /// The front's own beats.
    pub front: BeatWriter,
    /// The present moment.
    pub now: Nanos,
    front_beats: bool,
}

/// Two ODrives on bus 0 (nodes 3 and 4), one on bus 1 (node 3); `a` and `b` are released at standstill,
/// `c` is held.
pub const ROBOT: &str = r#"
[[bus]]
name = "can0"
[[bus]]
name = "can1"
[[motor]]
name = "a"
bus = "can0"
driver = "odrive"
node = 3
firmware = "0.6"
after_stop = "release"
max_rpm = 300
[[motor]]
name = "b"
bus = "can0"
driver = "odrive"
node = 4
firmware = "0.6"
after_stop = "release"
max_rpm = 300
[[motor]]
name = "c"
bus = "can1"
driver = "odrive"
node = 3
firmware = "0.6"
after_stop = "hold"
max_rpm = 300
"#;

/// Motors of [`ROBOT`].
pub const A: MotorIndex = MotorIndex(0);
/// The second motor.
pub const B: MotorIndex = MotorIndex(1);
/// The motor on the other bus.
pub const C: MotorIndex = MotorIndex(2);

impl Bench {
    /// A core that has started, proven all motors at rest, and has a front attached.
    pub fn new(policy: ResetPolicy) -> Self {
        Self::cold(policy).at_rest()
    }

    pub fn at_rest(mut self) -> Self {
        self.core.start(self.now, &mut self.wire);
        self.rest_all();
        self.run(40 * TICK);
        self.wire.sent.clear();
        self
    }

    /// A core that has not started.
    pub fn cold(policy: ResetPolicy) -> Self {
        Self::of(ROBOT, 8, policy)
    }

    /// As [`Bench::new`], with drives that no configuration gives.
    pub fn with_drives(policy: ResetPolicy, change: impl Fn(&mut Drive)) -> Self {
        let mut config = Config::parse(Path::new("test.toml"), ROBOT).expect("the test robot is valid");
        config.motors.iter_mut().for_each(|motor| change(&mut motor.drive));
        Self::build(&config, 8, policy, None).at_rest()
    }

    /// The supervisor after those that left these segments, not started; with what it said of them.
    pub fn heir(left: &[&OwnedFd], robot: &str, policy: ResetPolicy) -> (Self, Vec<String>) {
        Self::heir_with_disk(left, &latches::Found::FirstStart, robot, policy)
    }

    /// The same with what is on disk.
    pub fn heir_with_disk(
        left: &[&OwnedFd],
        disk: &latches::Found,
        robot: &str,
        policy: ResetPolicy,
    ) -> (Self, Vec<String>) {
        let mut config = Config::parse(Path::new("test.toml"), robot).expect("the test robot is valid");
        config.supervisor.reset = policy;
        // A bench's present runs ahead of the machine's clock.
        let now = START.after(60_000 * MS);
        let found = left.iter().map(|fd| Remains::read(fd.as_fd(), now)).collect();
        let found = inheritance::newest(found).map_or(Found::Nothing, Found::Left);
        let (mut inheritance, mut told) = inheritance::inherit(found, &config, now);
        let clock = Clock { now, calendar_ms: CALENDAR_MS };
        let taken = take_over(&mut inheritance, disk, &config, clock);
        told.extend(taken.told);
        (Self::build(&config, 8, policy, Some(&inheritance)), told)
    }

    /// A core that has not started, for another robot with up to that many motors.
    pub fn of(robot: &str, motors: u16, policy: ResetPolicy) -> Self {
        let config = Config::parse(Path::new("test.toml"), robot).expect("the test robot is valid");
        Self::build(&config, motors, policy, None)
    }

    /// As [`Bench::new`], with room for that many sessions.
    pub fn with_sessions(sessions: u16, policy: ResetPolicy) -> Self {
        let config = Config::parse(Path::new("test.toml"), ROBOT).expect("the test robot is valid");
        let capacity = Capacity::new(sessions, 8).expect("in range");
        Self::build_for(&config, capacity, policy, None).at_rest()
    }

    /// As [`Bench::cold`], with a proof of standstill that takes as long as in the supervisor itself.
    pub fn with_the_supervisors_proof(policy: ResetPolicy) -> Self {
        let config = Config::parse(Path::new("test.toml"), ROBOT).expect("the test robot is valid");
        let capacity = Capacity::new(8, 8).expect("in range");
        let settings = Settings { proof_span: start::settings(&config).proof_span, ..settings(policy) };
        Self::build_with(&config, capacity, settings, None)
    }

    fn build(config: &Config, motors: u16, policy: ResetPolicy, heritage: Option<&Inheritance>) -> Self {
        let capacity = Capacity::new(8, motors).expect("in range");
        Self::build_for(config, capacity, policy, heritage)
    }

    fn build_for(
        config: &Config,
        capacity: Capacity,
        policy: ResetPolicy,
        heritage: Option<&Inheritance>,
    ) -> Self {
        Self::build_with(config, capacity, settings(policy), heritage)
    }

    fn build_with(
        config: &Config,
        capacity: Capacity,
        settings: Settings,
        heritage: Option<&Inheritance>,
    ) -> Self {
        let policy = settings.policy;
        let names: Vec<&str> = config.motors.iter().map(|motor| motor.name.as_str()).collect();
        let identity = Identity { config_hash: 1, pid: 1, started: Nanos(1), policy };
        let (verdicts, fd) =
            VerdictSegment::create(capacity, &identity, &names, &["can0", "can1"]).expect("a memfd");
        let view = Arc::new(VerdictView::map(fd.as_fd(), capacity).expect("a mapping"));
        let motor =
            |(index, motor): (usize, &config::Motor)| start::build_motor(config, index, motor, 100 * MS);
        let motors = config.motors.iter().enumerate().map(motor).collect();
        let mut heartbeats = supervisor::start::heartbeats(config);
        heartbeats.iter_mut().for_each(|heartbeat| heartbeat.period = HEARTBEAT);
        let mut core = Core::new(settings, motors, 2, heartbeats, verdicts, capacity.sessions());
        heritage.into_iter().for_each(|heritage| core.inherit(heritage));
        let mut wire = Recorder::default();
        let now = START;
        let (beats, beat_view) = segment(capacity, Generation(1));
        core.attach(beat_view, 42, now, &mut wire);
        let front = beats.front_writer();
        let mut bench = Self { core, wire, view, left: fd, beats, front, now, front_beats: true };
        bench.front.open_at(SessionId(7), Window::from_millis(100), now);
        bench
    }

    /// Opens a session in a slot, beating at the present moment.
    pub fn open(&mut self, slot: u16) -> BeatWriter {
        let mut writer = self.beats.writer(SlotIndex(slot)).expect("the slot exists");
        writer.open_at(SessionId(u128::from(slot) + 1), WINDOW, self.now);
        writer
    }

    /// Beats at the bench's present moment.
    pub fn beat(&mut self, writer: &mut BeatWriter) {
        writer.beat_at(self.now);
    }

    /// The front notes the session as the motor's last user.
    pub fn take(&mut self, writer: &BeatWriter, motor: MotorIndex) -> Owner {
        self.beats.take_motor(motor, writer.owner());
        writer.owner()
    }

    /// Opens a session and waits until it holds the motors.
    pub fn drive(&mut self, slot: u16, motors: &[MotorIndex]) -> BeatWriter {
        let writer = self.open(slot);
        for motor in motors {
            self.take(&writer, *motor);
        }
        self.run(2 * TICK);
        for motor in motors {
            assert_eq!(self.view.granted(*motor), Some(writer.owner()), "motor {motor:?} is granted");
        }
        writer
    }

    /// The front falls silent, or beats again.
    pub fn front_beats(&mut self, beats: bool) {
        self.front_beats = beats;
    }

    /// Moves time on, tick by tick, waking the core whenever it asked to be woken.
    ///
    /// # Panics
    ///
    /// When it asks far more often than ticks and deadlines explain: it would keep its CPU busy.
    pub fn run(&mut self, nanos: u64) {
        // After whatever the test has done; each step looks by itself.
        assert_eq!(self.core.check_invariants(), None);
        let end = self.now.after(nanos);
        let most = 2 * nanos / TICK + 100;
        for passes in 0.. {
            if self.now >= end {
                return;
            }
            assert!(passes < most, "{passes} passes in {nanos} ns");
            let next = self.core.next_wakeup().max(self.now.after(1)).min(end);
            self.now = next;
            if self.front_beats {
                self.front.beat_at(self.now);
            }
            self.wire.now = self.now;
            self.core.step(self.now, &mut self.wire);
        }
    }

    /// Moves time on, little by little, until something has tripped.
    ///
    /// # Panics
    ///
    /// When nothing does within 100 ms.
    pub fn run_until_trip(&mut self) {
        for _ in 0..1_000 {
            if !self.events(EventKind::Trip).is_empty() {
                return;
            }
            self.run(MS / 10);
        }
        panic!("nothing trips");
    }

    /// An ODrive's heartbeat and encoder frame.
    pub fn odrive_says(&mut self, motor: MotorIndex, axis_state: u8, velocity: f32) {
        self.is_said_in_its_name(Origin::Wire, motor, axis_state, velocity);
    }

    /// The same from whoever it may be.
    pub fn is_said_in_its_name(&mut self, origin: Origin, motor: MotorIndex, axis_state: u8, velocity: f32) {
        // Handing over frames has taken its time.
        let now = self.now.max(self.wire.now);
        self.was_said(origin, motor, (axis_state, velocity), now.into());
    }

    /// The same, read out of a socket in which it may have waited for some time.
    pub fn odrive_said(&mut self, motor: MotorIndex, axis_state: u8, velocity: f32, waited: u64) {
        let arrival = Arrival { earliest: Nanos(self.now.0 - waited), now: self.now };
        self.was_said(Origin::Wire, motor, (axis_state, velocity), arrival);
    }

    fn was_said(
        &mut self,
        origin: Origin,
        motor: MotorIndex,
        (axis_state, velocity): (u8, f32),
        arrival: Arrival,
    ) {
        let (bus, node) = place(motor);
        let heartbeat = [0, 0, 0, 0, axis_state, 0, 0, 0];
        let mut encoder = [0; 8];
        encoder[4..].copy_from_slice(&velocity.to_le_bytes());
        for (command, payload) in [(1, heartbeat), (9, encoder)] {
            let frame = Frame::classic(ArbitrationId::standard(node << 5 | command), &payload);
            self.core.received(bus, origin, &frame, arrival, &mut self.wire);
            assert_eq!(self.core.check_invariants(), None);
        }
    }

    /// The front's frame for one motor, half a revolution per second, is heard.
    pub fn front_commands(&mut self, motor: MotorIndex) {
        self.is_commanded(Origin::Local, motor);
    }

    /// The same from whoever it may be.
    pub fn is_commanded(&mut self, origin: Origin, motor: MotorIndex) {
        let (bus, node) = place(motor);
        let mut velocity = [0; 8];
        velocity[..4].copy_from_slice(&0.5_f32.to_le_bytes());
        let frame = Frame::classic(ArbitrationId::standard(node << 5 | 0x0D), &velocity);
        self.core.received(bus, origin, &frame, self.now, &mut self.wire);
    }

    /// The front has a motor turn, and its drive says often enough that it stands still again, with torque.
    pub fn comes_to_rest(&mut self, motor: MotorIndex) {
        self.front_commands(motor);
        for velocity in [1.0, 0.0, 0.0, 0.0] {
            self.odrive_says(motor, 8, velocity);
        }
    }

    /// Every motor says that it is idle and still, often enough for any proof.
    pub fn rest_all(&mut self) {
        for motor in [A, B, C] {
            self.rest(motor);
        }
    }

    /// One motor says that it is idle and still, often enough for every stage.
    pub fn rest(&mut self, motor: MotorIndex) {
        for _ in 0..12 {
            self.odrive_says(motor, 1, 0.0);
        }
    }

    /// Frames sent to one motor.
    pub fn sent_to(&self, motor: MotorIndex) -> Vec<String> {
        let (bus, node) = place(motor);
        let ids = (node << 5)..(node << 5) + 32;
        self.wire
            .sent
            .iter()
            .filter(|(sent_on, frame)| {
                *sent_on == bus && matches!(frame.id(), ArbitrationId::Standard(id) if ids.contains(&id))
            })
            .map(|(_, frame)| frame.to_string())
            .collect()
    }

    /// Records that were looked at and not believed, of every kind.
    pub fn rejects(&self) -> u64 {
        Reject::ALL.map(|reject| self.view.rejects(reject)).iter().sum()
    }

    /// Events of a kind, oldest first.
    pub fn events(&self, kind: EventKind) -> Vec<Event> {
        self.view.events().map(|(_, event)| event).filter(|event| event.kind == kind).collect()
    }
}

/// Short times, for short tests.
fn settings(policy: ResetPolicy) -> Settings {
    Settings {
        front_window: Window::from_millis(100),
        windows: (Window::from_millis(30), Window::from_millis(60_000)),
        stop_repeat: 20 * MS,
        tick: TICK,
        max_lateness: 4 * TICK,
        // Readings of one moment are enough, but for the tests that are about that.
        proof_span: 0,
        violation_pause: 5_000 * MS,
        policy,
    }
}

fn place(motor: MotorIndex) -> (usize, u16) {
    match motor.0 {
        0 => (0, 3),
        1 => (0, 4),
        _ => (1, 3),
    }
}

/// Both sides of a fresh beat segment.
pub fn segment(capacity: Capacity, generation: Generation) -> (Arc<BeatSegment>, BeatView) {
    let fd = shm_proto::memory::create("test-beats", BeatLayout::new(capacity).words()).expect("a memfd");
    let beats = BeatSegment::map(fd.as_fd(), capacity, generation).expect("a mapping");
    shm_proto::memory::seal(fd.as_fd()).expect("seals");
    let view = BeatView::map(fd.as_fd(), capacity, generation).expect("a mapping");
    (beats, view)
}
