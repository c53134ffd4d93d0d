//! The supervisor's core with a beat segment that anybody may write, and what must hold after every step.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::LazyLock;

use config::Config;
use drivers::{ArbitrationId, Frame};
use shm_proto::beat::{RawBeat, checksum, high_word, low_word, tag};
use shm_proto::layout::BeatLayout;
use shm_proto::memory::{self, Access, Segment};
use shm_proto::sync::Ordering::Relaxed;
use shm_proto::verdicts::{Identity, ResetPolicy, SessionState};
use shm_proto::{
    BeatSegment, BeatView, Capacity, Generation, Incarnation, MotorIndex, Nanos, Owner, SlotIndex,
    VerdictSegment, VerdictView, Window,
};
use supervisor::core::{Core, Motor, Origin, SendError, Settings, Wire};
use supervisor::start::speed_limits;

use crate::script::{Deed, Record};

const MS: u64 = 1_000_000;
/// When every play begins: the same bytes give the same play.
const START: Nanos = Nanos(5_000_000 * MS);
const SESSIONS: u16 = 2;
const MOTORS: u16 = 2;
const GENERATION: Generation = Generation(1);
const TICK: u64 = 5 * MS;
const FRONT_WINDOW: Window = Window::from_millis(100);
const SHORTEST: Window = Window::from_millis(30);
const LONGEST: Window = Window::from_millis(60_000);

/// Two motors, each with at most a few frames per stage and one stage begun, repeated or answered per cause: far
/// more than a step can have use for, and far less than a loop would send.
const MOST_FRAMES_A_STEP: usize = 200;

static ROBOT: LazyLock<Config> = LazyLock::new(|| {
    let text = r#"
[[bus]]
name = "can0"
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
after_stop = "hold"
max_rpm = 300
"#;
    match Config::parse(Path::new("fuzz.toml"), text) {
        Ok(config) => config,
        Err(error) => panic!("the fuzzer's robot is not valid: {error}"),
    }
});

/// Takes every frame and counts them.
#[derive(Debug, Default)]
struct Counting {
    frames: usize,
}

impl Wire for Counting {
    fn send(&mut self, _bus: usize, _frame: &Frame) -> Result<(), SendError> {
        self.frames += 1;
        Ok(())
    }

    fn now(&mut self) -> Nanos {
        Nanos::ZERO
    }
}

/// A core, what it publishes, and a mapping of its beat segment that can write anything.
#[derive(Debug)]
pub struct Rig {
    core: Core,
    wire: Counting,
    verdicts: VerdictView,
    wild: Segment,
    layout: BeatLayout,
    now: Nanos,
}

impl Rig {
    /// A core that has started and has a front attached whose segment is all zeros.
    ///
    /// # Panics
    ///
    /// When the kernel has no memory to give.
    pub fn new() -> Self {
        let capacity = Capacity::new(SESSIONS, MOTORS).expect("in range");
        let policy = ResetPolicy::Auto;
        let identity = Identity { config_hash: 1, pid: 1, started: Nanos(1), policy };
        let (segment, fd) =
            VerdictSegment::create(capacity, &identity, &["a", "b"], &["can0"]).expect("a memfd");
        let verdicts = VerdictView::map(fd.as_fd(), capacity).expect("a mapping");
        let settings = Settings {
            front_window: FRONT_WINDOW,
            windows: (SHORTEST, LONGEST),
            stop_repeat: 20 * MS,
            max_lateness: 20 * MS,
            // Every report comes at the same moment here.
            proof_span: 0,
            violation_pause: 5_000 * MS,
            tick: TICK,
            policy,
        };
        let motors = ROBOT
            .motors
            .iter()
            .map(|motor| {
                let max_window = Window(u64::try_from(motor.max_window.as_nanos()).expect("short"));
                Motor::new(motor.bus, motor.drive.clone(), 100 * MS, speed_limits(motor), max_window)
            })
            .collect();
        let core = Core::new(settings, motors, 1, Vec::new(), segment, SESSIONS);

        let layout = BeatLayout::new(capacity);
        let fd = memory::create("lanyard-fuzz", layout.words()).expect("a memfd");
        let front = BeatSegment::map(fd.as_fd(), capacity, GENERATION).expect("the front's mapping");
        let wild = Segment::map(fd.as_fd(), layout.words(), Access::ReadWrite).expect("a wild mapping");
        memory::seal(fd.as_fd()).expect("seals");
        let view = BeatView::map(fd.as_fd(), capacity, GENERATION).expect("the supervisor's mapping");
        drop(front);

        let now = START;
        let mut rig = Self { core, wire: Counting::default(), verdicts, wild, layout, now };
        rig.core.start(now, &mut rig.wire);
        rig.core.attach(view, 42, now, &mut rig.wire);
        // Motors at rest can be granted.
        for node in [3, 4] {
            for _ in 0..12 {
                rig.received(0, Origin::Wire, node << 5 | 1, &[0, 0, 0, 0, 1, 0, 0, 0]);
                rig.received(0, Origin::Wire, node << 5 | 9, &[0; 8]);
            }
        }
        rig
    }

    /// The whole segment from these bytes, over and over.
    pub fn fill(&mut self, content: &[u8]) {
        let mut bytes = content.iter().copied().cycle();
        for place in 0..self.wild.words() {
            let word = core::array::from_fn(|_| bytes.next().unwrap_or(0));
            self.wild.store(place, u64::from_le_bytes(word), Relaxed);
        }
    }

    /// One deed, and after it what must hold.
    pub fn play(&mut self, deed: &Deed) {
        match *deed {
            Deed::Poke { place, word } => {
                let places = self.wild.words() as u64;
                let place = usize::try_from(place % places).unwrap_or(0);
                self.wild.store(place, word, Relaxed);
            }
            Deed::Record(record) => self.write(&record),
            Deed::Owner { motor, slot, incarnation } => {
                let motor = MotorIndex(u16::from(motor) % MOTORS);
                let owner = Owner { slot: SlotIndex(slot), incarnation: Incarnation::new(incarnation) };
                self.wild.store(self.layout.owner(motor), owner.to_word(), Relaxed);
            }
            Deed::Frame { bus, id, payload } => {
                let origin = match bus >> 1 & 3 {
                    0 | 2 => Origin::Wire,
                    1 => Origin::Local,
                    _ => Origin::Job,
                };
                self.received(usize::from(bus % 2), origin, id, &payload);
            }
            Deed::Step { later } => self.step(self.now.after(later.into())),
            Deed::Wake { times } => (0..times).for_each(|_| self.wake()),
        }
    }

    /// The core's next wake-up.
    pub fn wake(&mut self) {
        let next = self.core.next_wakeup();
        assert!(next <= self.now.after(TICK), "it must be woken within a tick, not at {next:?}");
        self.step(next.max(self.now.after(1)));
    }

    fn write(&mut self, record: &Record) {
        let slot = SlotIndex(u16::from(record.slot) % (SESSIONS + 1));
        let window = match record.window % 8 {
            0..=3 => FRONT_WINDOW.0,
            4 => SHORTEST.0,
            5 => LONGEST.0,
            _ => u64::from(record.window) << 8,
        };
        let mut raw = RawBeat {
            counter: record.counter,
            session: u128::from(slot.0) + 1,
            window,
            timestamp: self.now.0.saturating_add_signed(record.from_now),
            tag: tag(
                u64::from(record.flags & 3) | u64::from(record.flags >> 2) << 8,
                Incarnation::new(u64::from(record.incarnation)),
            ),
            crc: 0,
        };
        raw.crc = u64::from(checksum(&raw, slot, GENERATION));
        let session = (high_word(raw.session), low_word(raw.session));
        let words = [
            raw.counter.wrapping_mul(2),
            raw.counter,
            session.0,
            session.1,
            raw.window,
            raw.timestamp,
            raw.tag,
            raw.crc,
        ];
        let place = self.layout.record(slot, raw.counter);
        for (offset, word) in words.into_iter().enumerate() {
            self.wild.store(place + offset, word, Relaxed);
        }
    }

    fn received(&mut self, bus: usize, origin: Origin, id: u16, payload: &[u8]) {
        let frame = Frame::classic(ArbitrationId::standard(id), payload);
        self.wire.frames = 0;
        self.core.received(bus, origin, &frame, self.now, &mut self.wire);
        self.check();
    }

    fn step(&mut self, now: Nanos) {
        self.now = now;
        self.wire.frames = 0;
        self.core.step(now, &mut self.wire);
        self.check();
    }

    fn check(&mut self) {
        assert_eq!(self.core.check_invariants(), None);
        let observed = self.now;
        let sent = self.wire.frames;
        assert!(sent <= MOST_FRAMES_A_STEP, "{sent} frames in one step");
        for slot in (0..SESSIONS).map(SlotIndex) {
            let Some(session) = self.verdicts.session(slot) else { panic!("slot {} is gone", slot.0) };
            if session.state != SessionState::Live {
                continue;
            }
            let window = Window(session.window);
            assert!(window >= SHORTEST && window <= LONGEST, "{session:?}");
            assert!(session.last_beat <= observed, "a beat from the future: {session:?} at {observed:?}");
            assert!(session.deadline <= session.last_beat.after(window.0), "too late: {session:?}");
            assert!(session.deadline <= observed.after(window.0), "too late: {session:?} at {observed:?}");
        }
        let front = self.verdicts.front_beat();
        assert!(front <= observed, "the front beats in the future: {front:?} at {observed:?}");
    }
}
