//! Recordings: what the core was given and what it has answered is played again and comes out the same, and nothing else does.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use config::Config;
use drivers::{ArbitrationId, Frame};
use shm_proto::crc::Crc;
use shm_proto::layout::BeatLayout;
use shm_proto::verdicts::{EventKind, Identity, Reason};
use shm_proto::{
    BeatSegment, BeatView, BeatWriter, Capacity, Ending, Generation, MotorIndex, Nanos, SessionId, SlotIndex,
    TripId, TripSeen, VerdictSegment, VerdictView, Window, memory,
};
use supervisor::bus::Received;
use supervisor::core::{Core, Inheritance, Origin, SendError, Wire};
use supervisor::recording::{End, Header, Input, Recorded, Replayed, Tape, Writer, replay};
use supervisor::runtime::Ports;
use supervisor::start;

const MS: u64 = 1_000_000;
const START: Nanos = Nanos(5_000_000 * MS);

const ROBOT: &str = r#"
[supervisor]
reset = "manual"
stop_repeat = "20ms"
[[bus]]
name = "can0"
[[motor]]
name = "a"
bus = "can0"
driver = "odrive"
node = 3
firmware = "0.6"
after_stop = "release"
stage_timeout = "100ms"
max_rpm = 300
"#;

/// A bus that takes most of what is sent.
#[derive(Debug)]
struct Bus {
    now: Nanos,
    refusals: Refusals,
}

/// What becomes of the next frames, as the test has it.
type Refusals = Arc<Mutex<VecDeque<SendError>>>;

impl Wire for Bus {
    fn send(&mut self, _bus: usize, _frame: &Frame) -> Result<(), SendError> {
        let next = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        next.map_or(Ok(()), Err)
    }

    fn now(&mut self) -> Nanos {
        self.now = self.now.after(1_000);
        self.now
    }
}

impl Ports for Bus {
    fn count(&self) -> usize {
        1
    }

    fn fd(&self, _bus: usize) -> Option<BorrowedFd<'_>> {
        None
    }

    fn receive(&mut self, _bus: usize) -> Received {
        Received::Nothing
    }
}

/// A file of this process, on a disk that may refuse.
#[derive(Clone, Debug, Default)]
struct File(Arc<Mutex<(Vec<u8>, Option<usize>)>>);

impl File {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (written, room) = &mut *file;
        if room.is_some_and(|room| written.len() + bytes.len() > room) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        written.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A core that is recorded, and what is around it.
struct Scene {
    core: Core,
    ports: Recorded<Bus>,
    refusals: Refusals,
    writer: Writer<File>,
    file: File,
    view: Arc<VerdictView>,
    capacity: Capacity,
    beats: Option<(Arc<BeatSegment>, BeatWriter)>,
    now: Nanos,
}

impl Scene {
    /// One with a tape of so many entries.
    fn new(entries: usize) -> Self {
        let config = Config::parse(Path::new("test.toml"), ROBOT).expect("the test robot is valid");
        let capacity = config.supervisor.capacity;
        let policy = config.supervisor.reset;
        let identity = Identity { config_hash: config.hash, pid: 77, started: START, policy };
        let (segment, fd) =
            VerdictSegment::create(capacity, &identity, &["a"], &["can0"]).expect("a verdict segment");
        let view = Arc::new(VerdictView::map(fd.as_fd(), capacity).expect("a view"));
        let inheritance =
            Inheritance { trips: TripId(40), generation: Generation(5), ..Inheritance::nothing(1) };
        let mut core = start::build_core(&config, 1, segment);
        core.inherit(&inheritance);
        let (tape, taken) = Tape::new(entries, capacity, Arc::clone(&view)).expect("a tape");
        let header = Header { config: ROBOT.to_owned(), pid: 77, started: START, inheritance };
        let file = File::default();
        let writer = Writer::new(file.clone(), &header, taken).expect("a file");
        let refusals = Refusals::default();
        let ports = Recorded::new(Bus { now: START, refusals: Arc::clone(&refusals) }, tape);
        Self { core, ports, refusals, writer, file, view, capacity, beats: None, now: START }
    }

    fn give(&mut self, input: Input) {
        self.ports.note(&input);
        input.give(&mut self.core, &mut self.ports, |_| None);
    }

    /// Moves time on in ticks, as the real-time thread does, with a drive that says the same every 10 ms.
    fn run(&mut self, millis: u64, axis: u8, velocity: f32) {
        let end = self.now.after(millis * MS);
        while self.now < end {
            self.now = self.core.next_wakeup().max(self.now.after(1)).min(end);
            if let Some((_, front)) = &mut self.beats {
                front.beat_at(self.now);
            }
            let now = self.now;
            if now >= self.core.next_wakeup() {
                self.ports.look();
                self.give(Input::Step { now });
                self.ports.looked();
            } else {
                self.give(Input::Step { now });
            }
            self.says(axis, velocity);
            self.writer.pass();
        }
    }

    fn says(&mut self, axis: u8, velocity: f32) {
        let mut encoder = [0; 8];
        encoder[4..].copy_from_slice(&velocity.to_le_bytes());
        for (command, payload) in [(0x61, [0, 0, 0, 0, axis, 0, 0, 0]), (0x69, encoder)] {
            let frame = Frame::classic(ArbitrationId::standard(command), &payload);
            self.give(Input::Received { bus: 0, origin: Origin::Wire, frame, arrival: self.now.into() });
        }
    }

    fn attach(&mut self, generation: u64) {
        let fd = memory::create("test-beats", BeatLayout::new(self.capacity).words()).expect("a memfd");
        let generation = Generation(generation);
        let beats = BeatSegment::map(fd.as_fd(), self.capacity, generation).expect("a mapping");
        memory::seal(fd.as_fd()).expect("seals");
        let segment = BeatView::map(fd.as_fd(), self.capacity, generation).expect("a mapping");
        let mut front = beats.front_writer();
        front.open_at(SessionId(7), Window::from_millis(250), self.now);
        let before = self.beats.replace((beats, front)).map(|(beats, _)| beats);
        let now = self.now;
        self.ports.note(&Input::Attach { generation, pid: 42, now });
        let view = self.ports.come(segment);
        let given_back = self.core.attach(view, 42, now, &mut self.ports).map(|view| self.ports.go(view));
        // What is released is the front's own segment and not the copy.
        assert_eq!(given_back.map(|view| view.generation()), before.map(|_| Generation(generation.0 - 1)));
    }

    fn detach(&mut self) {
        let (now, reason) = (self.now, Reason::FrontDead);
        self.ports.note(&Input::Detach { reason, now });
        let view = self.core.detach(reason, now, &mut self.ports).expect("a front");
        assert!(self.ports.go(view).generation() > Generation(5));
        self.beats = None;
    }

    /// A session opens and takes the motor.
    fn open(&mut self, slot: u16) -> BeatWriter {
        let (beats, _) = self.beats.as_ref().expect("a front");
        let mut session = beats.writer(SlotIndex(slot)).expect("the slot");
        session.open_at(SessionId(u128::from(slot) + 1), Window::from_millis(200), self.now);
        beats.take_motor(MotorIndex(0), session.owner());
        session
    }

    /// The whole life: driven, silent, escalated, reset, pressed, another front, told to exit.
    fn lives(&mut self) {
        self.give(Input::Start { now: self.now });
        self.run(100, 1, 0.0);
        self.attach(6);
        let mut session = self.open(0);
        self.run(30, 1, 0.0);
        assert_eq!(self.view.granted(MotorIndex(0)), Some(session.owner()));
        for _ in 0..20 {
            session.beat_at(self.now);
            self.give(Input::Received {
                bus: 0,
                origin: Origin::Local,
                frame: Frame::classic(ArbitrationId::standard(0x6D), &[0, 0, 0, 0x40, 0, 0, 0, 0]),
                arrival: self.now.into(),
            });
            self.run(20, 8, 2.0);
        }
        let refusals = [SendError::QueueFull; 3];
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).extend(refusals);
        // It falls silent, and its drive does not obey.
        self.run(400, 8, 2.0);
        self.run(300, 1, 0.0);
        let events = |kind| self.view.events().filter(|(_, event)| event.kind == kind).count();
        assert!(events(EventKind::Escalated) > 0 && events(EventKind::Trip) > 0);
        let trip = self.view.motor(MotorIndex(0)).expect("the motor").trip;
        self.give(Input::Reset { seen: TripSeen { trip, violations: 0 }, now: self.now });
        self.attach(7);
        let mut session = self.open(3);
        self.run(30, 1, 0.0);
        assert_eq!(self.view.granted(MotorIndex(0)), Some(session.owner()), "it was reset");
        session.close_at(Ending::Client, self.now);
        self.run(30, 1, 0.0);
        self.give(Input::Press { now: self.now });
        self.run(50, 1, 0.0);
        self.detach();
        self.run(20, 1, 0.0);
        self.attach(8);
        self.run(20, 1, 0.0);
        self.give(Input::ShutDown { now: self.now });
        self.run(50, 1, 0.0);
        self.give(Input::End { now: self.now });
        self.ports.looked();
    }
}

/// The recording of a whole life, and what replaying it says.
fn recorded() -> (Vec<u8>, Replayed) {
    let mut scene = Scene::new(65_536);
    scene.lives();
    scene.writer.end();
    let bytes = scene.file.bytes();
    let replayed = replay(&bytes);
    (bytes, replayed.expect("it comes out the same"))
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect()
}

/// The same recording with another header or other entries, and with checksums that fit: what somebody might make who wants
/// to deceive, or a program that decides otherwise.
fn forged(bytes: &[u8], change: impl FnOnce(&mut Header, &mut Vec<Vec<u64>>)) -> Vec<u8> {
    let words = words(bytes);
    let (mut header, mut rest, _) = Header::read(&words).expect("a header");
    let mut entries = Vec::new();
    while let Some(first) = rest.first() {
        let length = 1 + usize::try_from(first >> 8 & 0xff).expect("small");
        let mut entry = rest[..length].to_vec();
        entry[0] &= u64::from(u32::MAX);
        entries.push(entry);
        rest = &rest[length..];
    }
    change(&mut header, &mut entries);
    let (mut bytes, mut sum) = header.to_bytes();
    for mut entry in entries {
        sum = entry.iter().fold(sum, |sum: Crc, word| sum.word(*word));
        entry[0] |= u64::from(sum.finish()) << 32;
        entry.into_iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    }
    bytes
}

/// Kinds of entries, by their number in the file.
const SENT: u64 = 3;
const RECEIVED: u64 = 17;
const WORD: u64 = 1;

fn place_of(entries: &[Vec<u64>], kind: u64, nth: usize) -> usize {
    let of_it = entries.iter().enumerate().filter(|(_, entry)| entry[0] & 0xff == kind);
    of_it.map(|(place, _)| place).nth(nth).expect("so many entries")
}

/// Fails if the core decides by anything that is not written down.
#[test]
fn a_recording_is_played_with_the_same_outcome() {
    let (bytes, replayed) = recorded();
    assert_eq!(replayed.end, End::Complete);
    assert!(replayed.inputs > 500 && replayed.outputs > 200, "{replayed}");
    assert_eq!(forged(&bytes, |_, _| ()), bytes, "forging changes nothing by itself");
    assert!(replayed.to_string().ends_with("identical"), "{replayed}");
}

/// Fails if any changed byte is played as if nothing were.
#[test]
fn a_changed_byte_is_noticed() {
    let (bytes, whole) = recorded();
    // Each of the header's, and of the entries every one that a step without a common factor with 8 comes by.
    for place in (0..2_000).chain((2_000..bytes.len()).step_by(1_009)).chain(bytes.len() - 100..bytes.len()) {
        let mut changed = bytes.clone();
        changed[place] ^= 0x10;
        assert_ne!(replay(&changed), Ok(whole), "byte {place}");
    }
}

/// Fails if what the core does otherwise, or is given otherwise, is not noticed although the file is well-formed.
#[test]
fn another_decision_is_noticed() {
    let (bytes, _) = recorded();
    let difference = |change: &dyn Fn(&mut Header, &mut Vec<Vec<u64>>)| {
        replay(&forged(&bytes, change)).expect_err("it is another one")
    };
    let slower = difference(&|header, _| {
        header.config = header.config.replace("stop_repeat = \"20ms\"", "stop_repeat = \"30ms\"");
    });
    assert!(slower.starts_with("at "), "{slower}");
    let gentler = difference(&|header, _| header.config = header.config.replace("\"100ms\"", "\"150ms\""));
    assert!(gentler.starts_with("at "), "{gentler}");
    let numbered = difference(&|header, _| header.inheritance.trips = TripId(41));
    assert!(numbered.contains("published"), "{numbered}");
    let sent = difference(&|_, entries| {
        let place = place_of(entries, SENT, 5);
        *entries[place].last_mut().expect("a payload") ^= 1;
    });
    assert!(sent.contains("the core sends ") && sent.contains("recorded: it sends "), "{sent}");
    let silent = difference(&|_, entries| drop(entries.remove(place_of(entries, SENT, 5))));
    assert!(silent.contains("the core sends "), "{silent}");
    let heard = difference(&|_, entries| {
        let place = place_of(entries, RECEIVED, 401);
        *entries[place].last_mut().expect("a payload") ^= 1 << 62;
    });
    assert!(heard.starts_with("at "), "{heard}");
    let unheard = difference(&|_, entries| drop(entries.remove(place_of(entries, RECEIVED, 300))));
    assert!(unheard.starts_with("at "), "{unheard}");
    let beat = difference(&|_, entries| entries.retain(|entry| entry[0] & 0xff != WORD));
    assert!(beat.starts_with("at "), "{beat}");
}

/// Fails if a recording of which something is missing is called the same, or if one that merely ends early is called broken.
#[test]
fn what_was_lost_is_told() {
    let mut scene = Scene::new(8);
    scene.lives();
    scene.writer.end();
    let refused = replay(&scene.file.bytes()).expect_err("entries are missing");
    assert!(refused.contains("the recording is broken: "), "{refused}");

    let (bytes, whole) = recorded();
    let cut = replay(&bytes[..bytes.len() / 2]).expect("so far it is the same");
    assert_eq!(cut.end, End::Cut);
    assert!(cut.inputs < whole.inputs && cut.inputs > 100, "{cut}");

    let mut scene = Scene::new(65_536);
    scene.file.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(20_000);
    scene.lives();
    scene.writer.end();
    let full = replay(&scene.file.bytes()).expect("so far it is the same");
    assert_eq!(full.end, End::Cut, "the disk was full");
    assert!(replay(b"what is this").is_err_and(|error| error.contains("no recording")));
}
