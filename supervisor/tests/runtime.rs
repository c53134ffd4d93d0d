//! The real-time thread by itself: what it notices without housekeeping beside it.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::Command as Program;
use std::thread;
use std::time::{Duration, Instant};

use config::Config;
use drivers::Frame;
use rtrb::RingBuffer;
use shm_proto::layout::BeatLayout;
use shm_proto::verdicts::Identity;
use shm_proto::{BeatSegment, BeatView, Generation, Nanos, VerdictSegment};
use supervisor::bus::Received;
use supervisor::core::{SendError, Wire};
use supervisor::kernel_stop::KernelStop;
use supervisor::queue::{Command, DEPTH, Reply};
use supervisor::runtime::{Ports, Runtime};
use supervisor::{start, sys};

/// A bus that takes everything and never has anything to say.
struct Silence;

impl Wire for Silence {
    fn send(&mut self, _bus: usize, _frame: &Frame) -> Result<(), SendError> {
        Ok(())
    }
}

impl Ports for Silence {
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

const ROBOT: &str = r#"
[[bus]]
name = "can0"
[[motor]]
name = "a"
bus = "can0"
driver = "odrive"
node = 3
firmware = "0.6"
after_stop = "hold"
max_rpm = 300
"#;

/// Fails if the thread leaves it to housekeeping, which has no priority, to notice that the front has died.
#[test]
fn the_end_of_the_front_is_seen_without_housekeeping() {
    let config = Config::parse(Path::new("test.toml"), ROBOT).expect("the test robot is valid");
    let capacity = config.supervisor.capacity;
    let policy = config.supervisor.reset;
    let identity = Identity { config_hash: 1, pid: 1, started: Nanos::now(), policy };
    let (segment, _fd) =
        VerdictSegment::create(capacity, &identity, &["a"], &["can0"]).expect("a verdict segment");
    let (mut to_thread, commands) = RingBuffer::new(DEPTH);
    let (replies, mut from_thread) = RingBuffer::new(DEPTH);
    let signals = start::take_signals().expect("signals");
    let wakeups = Silence.wakeups(&signals).expect("epoll");
    let core = start::build_core(&config, 1, segment);
    let kernel_stop = KernelStop::none();
    let mut runtime =
        Runtime { core, buses: Silence, commands, replies, wakeups, signals, front: None, kernel_stop };
    thread::spawn(move || runtime.run());

    let fd = shm_proto::memory::create("test-beats", BeatLayout::new(capacity).words()).expect("a memfd");
    let beats = BeatSegment::map(fd.as_fd(), capacity, Generation(1)).expect("the front's mapping");
    shm_proto::memory::seal(fd.as_fd()).expect("seals");
    let view = BeatView::map(fd.as_fd(), capacity, Generation(1)).expect("the supervisor's mapping");
    let mut front = Program::new("sleep").arg("600").spawn().expect("a process to be the front");
    let pidfd = sys::pidfd_open(front.id()).expect("a pidfd");
    assert!(to_thread.push(Command::Attach { view, pid: front.id(), pidfd }).is_ok());

    let mut wait_for = |what: &str, wanted: fn(&Reply) -> bool| {
        let patience = Instant::now() + Duration::from_secs(30);
        while !from_thread.pop().is_ok_and(|reply| wanted(&reply)) {
            assert!(Instant::now() < patience, "{what}: not within 30 s");
            thread::sleep(Duration::from_millis(1));
        }
    };
    wait_for("attached", |reply| matches!(reply, Reply::Attached));
    front.kill().expect("it lives");
    wait_for("the end of the front", |reply| matches!(reply, Reply::FrontGone));
    front.wait().expect("it has ended");
    drop(beats);
}
