//! The real-time thread by itself: what it notices without housekeeping beside it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use config::Config;
use drivers::{ArbitrationId, Frame};
use nix::sys::eventfd::EventFd;
use shm_proto::estop::press;
use shm_proto::layout::BeatLayout;
use shm_proto::verdicts::{Identity, Reason};
use shm_proto::{BeatSegment, BeatView, Capacity, Generation, Nanos, VerdictSegment, VerdictView};
use supervisor::bus::Received;
use supervisor::core::{Origin, SendError, Wire};
use supervisor::estop;
use supervisor::intake::Intake;
use supervisor::kernel_stop::KernelStop;
use supervisor::privileges::Access;
use supervisor::queue::{self, Command, Reply, Requester, Requesters};
use supervisor::runtime::{Ports, Presses, Runtime};
use supervisor::{start, sys};

/// A bus that takes everything and never has anything to say.
struct Silence;

impl Wire for Silence {
    fn send(&mut self, _bus: usize, _frame: &Frame) -> Result<(), SendError> {
        Ok(())
    }

    fn now(&mut self) -> Nanos {
        Nanos::now()
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

/// A bus that brings motion frames without end, as fast as they are read.
struct Flood {
    readable: EventFd,
    read: Arc<AtomicU64>,
}

impl Wire for Flood {
    fn send(&mut self, _bus: usize, _frame: &Frame) -> Result<(), SendError> {
        Ok(())
    }

    fn now(&mut self) -> Nanos {
        Nanos::now()
    }
}

impl Ports for Flood {
    fn count(&self) -> usize {
        1
    }

    fn fd(&self, _bus: usize) -> Option<BorrowedFd<'_>> {
        Some(self.readable.as_fd())
    }

    fn receive(&mut self, _bus: usize) -> Received {
        self.read.fetch_add(1, Ordering::Relaxed);
        // 2 rev/s for node 3.
        Received::Frame(
            Origin::Wire,
            Frame::classic(ArbitrationId::standard(0x06D), &[0, 0, 0, 0x40, 0, 0, 0, 0]),
        )
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

/// The real-time thread, running, and what housekeeping would have of it.
struct Thread {
    requesters: Requesters,
    verdicts: VerdictView,
    capacity: Capacity,
}

/// Starts the thread on a silent bus, with that FIFO of the operator's stop.
fn start(stop: Option<BorrowedFd<'_>>) -> Thread {
    start_on(Silence, stop)
}

/// Starts the thread on that bus.
fn start_on(buses: impl Ports + Send + 'static, stop: Option<BorrowedFd<'_>>) -> Thread {
    let config = Config::parse(Path::new("test.toml"), ROBOT).expect("the test robot is valid");
    let capacity = config.supervisor.capacity;
    let policy = config.supervisor.reset;
    let identity = Identity { config_hash: 1, pid: 1, started: Nanos::now(), policy };
    let (segment, fd) =
        VerdictSegment::create(capacity, &identity, &["a"], &["can0"]).expect("a verdict segment");
    let verdicts = VerdictView::map(fd.as_fd(), capacity).expect("a view");
    let (requesters, responders) = queue::connect();
    let signals = start::take_signals().expect("signals");
    let mut wakeups = buses.wakeups(&signals).expect("epoll");
    if let Some(stop) = stop {
        wakeups.watch_stop(stop).expect("epoll");
    }
    let core = start::build_core(&config, 1, segment);
    let (kernel_stop, presses) = (KernelStop::none(), Presses::default());
    let mut runtime = Runtime {
        core,
        buses,
        responders,
        wakeups,
        signals,
        front: None,
        kernel_stop,
        presses,
        intake: Intake::NOTHING_READ,
    };
    thread::spawn(move || runtime.run());
    Thread { requesters, verdicts, capacity }
}

/// Waits for something that must come.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < patience, "{what}: not within 30 s");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Fails if the thread leaves it to housekeeping, which has no priority, to notice that the front has died.
#[test]
fn the_end_of_the_front_is_seen_without_housekeeping() {
    let Thread { requesters, capacity, .. } = start(None);
    let Requester { mut commands, mut replies } = requesters.fronts;
    let fd = shm_proto::memory::create("test-beats", BeatLayout::new(capacity).words()).expect("a memfd");
    let beats = BeatSegment::map(fd.as_fd(), capacity, Generation(1)).expect("the front's mapping");
    shm_proto::memory::seal(fd.as_fd()).expect("seals");
    let view = BeatView::map(fd.as_fd(), capacity, Generation(1)).expect("the supervisor's mapping");
    let mut front = Program::new("sleep").arg("600").spawn().expect("a process to be the front");
    let pidfd = sys::pidfd_open(front.id()).expect("a pidfd");
    assert!(commands.push(Command::Attach { view, pid: front.id(), pidfd }).is_ok());

    let mut wait_for = |what: &str, wanted: fn(&Reply) -> bool| {
        wait_for(what, || replies.pop().is_ok_and(|reply| wanted(&reply)).then_some(()));
    };
    wait_for("attached", |reply| matches!(reply, Reply::Attached));
    front.kill().expect("it lives");
    wait_for("the end of the front", |reply| matches!(reply, Reply::FrontGone));
    front.wait().expect("it has ended");
    drop(beats);
}

/// Fails if a flood is read as fast as it comes: the thread would never sleep, and its fuse would end it. Also if a bus that
/// was left unread is never read again.
#[test]
fn a_flood_is_read_no_faster_than_a_real_bus_could_bring_it() {
    let read = Arc::new(AtomicU64::new(0));
    let readable = EventFd::from_value(1).expect("an eventfd");
    let begun = Instant::now();
    let _thread = start_on(Flood { readable, read: Arc::clone(&read) }, None);
    thread::sleep(Duration::from_millis(500));
    let frames = read.load(Ordering::Relaxed);
    // 128 in each 5 ms, in which the first and the last of the time count whole.
    let most = (u64::try_from(begun.elapsed().as_millis()).expect("short") / 5 + 2) * 128;
    assert!(frames <= most, "{frames} frames, at most {most}");
    assert!(frames > 3 * 128, "only {frames} frames: the bus is not read again");
}

/// A FIFO of its own for each test.
fn fifo(name: &str) -> (PathBuf, OwnedFd) {
    let path = std::env::temp_dir().join(format!("lanyard-runtime-{name}-{}", std::process::id()));
    let fifo = estop::open_or_make(&path, Access::default()).expect("a FIFO");
    (path, fifo)
}

/// Fails if a stop needs housekeeping, of which there is none here, or if bytes that nobody has read swallow one.
#[test]
fn a_press_stops_without_housekeeping() {
    let (path, fifo) = fifo("press");
    let before = Nanos::now();
    // Before anything listens.
    press(&path).expect("a press");
    let thread = start(Some(fifo.as_fd()));
    let first =
        wait_for("a stop that was pressed before the start", || thread.verdicts.stopped_since(before));
    let since = press(&path).expect("a press");
    let second = wait_for("the second stop", || thread.verdicts.stopped_since(since));
    assert!(second > first, "{second} is not later than {first}");
    assert_eq!(sys::unread(fifo.as_fd()).ok(), Some(2), "the real-time thread reads nothing");
    let stops = thread.verdicts.events().filter(|(_, event)| event.reason == Some(Reason::OperatorStop));
    assert_eq!(stops.count(), 1, "the second begins nothing anew");
    std::fs::remove_file(path).expect("its path");
}

/// Fails if whoever writes without end keeps the thread awake, which would end the supervisor (RLIMIT_RTTIME).
#[test]
fn presses_without_end_wake_a_bounded_number_of_times() {
    /// Wakes for each tick of 5 ms: eight presses, the tick, the end of the silence, and as many once more, because
    /// ticks and counting begin at different moments.
    const PER_TICK: u64 = 22;
    let (path, fifo) = fifo("flood");
    let thread = start(Some(fifo.as_fd()));
    wait_for("a pass", || (thread.verdicts.beat().0 > 0).then_some(()));
    let (passes, _) = thread.verdicts.beat();
    let begun = Instant::now();
    let mut presses: u64 = 0;
    while begun.elapsed() < Duration::from_millis(500) {
        presses += u64::from(press(&path).is_ok());
        let _ = nix::unistd::read(&fifo, &mut [0; 4096]);
    }
    let ticks = u64::try_from(begun.elapsed().as_millis()).expect("a time") / 5 + 1;
    let woken = thread.verdicts.beat().0 - passes;
    assert!(woken <= ticks * PER_TICK, "{woken} passes in {ticks} ticks, {presses} presses");
    // It must be able to fail.
    assert!(
        presses > 2 * ticks * PER_TICK,
        "only {presses} presses in {ticks} ticks: too few to show anything"
    );
    let since = press(&path).expect("a press");
    wait_for("the last stop", || thread.verdicts.stopped_since(since));
    std::fs::remove_file(path).expect("its path");
}
