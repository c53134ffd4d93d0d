//! One beat written and read in one thread, beside three well-known ways to pass 32 bytes.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use iceoryx2::prelude::{LogLevel, NodeBuilder, ServiceName, ipc, set_log_level};
use shm_proto::beat::{Bound, Context};
use shm_proto::beats::{Look, SlotReader};
use shm_proto::layout::BeatLayout;
use shm_proto::{
    BeatSegment, BeatView, Capacity, Generation, Incarnation, Nanos, SessionId, SlotIndex, Window,
};

use super::figures::Figures;
use tests::stats::median;

/// Rounds per measurement; the median is reported, so that a preempted round does not count.
const ROUNDS: usize = 15;
/// Operations per round: some milliseconds, far above the clock's resolution.
const OPERATIONS: u32 = 200_000;

/// The names this measures begin with one of these.
pub const NAMES: &[&str] = &[
    "shm.publish_read_ns",
    "shm.publish_ns",
    "shm.peer.rtrb_ns",
    "shm.peer.array_queue_ns",
    "shm.peer.iceoryx2_ns",
    "clock_ns",
];

/// Measures ours and the peers.
///
/// # Errors
/// Shared memory cannot be had, or a beat was not believed.
pub fn measure(figures: &mut Figures) -> Result<()> {
    figures.note("shm.publish_read_ns", publish_and_read()?);
    figures.note("shm.peer.rtrb_ns", rtrb());
    figures.note("shm.peer.array_queue_ns", array_queue());
    figures.note("shm.peer.iceoryx2_ns", iceoryx2()?);
    figures.note("shm.publish_ns", publish()?);
    figures.note("clock_ns", cost(|| _ = black_box(Nanos::now())));
    Ok(())
}

/// Median over rounds of the nanoseconds one operation takes.
fn cost(mut operation: impl FnMut()) -> f64 {
    let round = |_| {
        let start = Instant::now();
        (0..OPERATIONS).for_each(|_| operation());
        start.elapsed().as_secs_f64() * 1e9 / f64::from(OPERATIONS)
    };
    median((0..ROUNDS).map(round).collect())
}

/// One beat written with its CRC, found, checked and validated, without the clock reads of either side.
fn publish_and_read() -> Result<f64> {
    let (beats, view) = segments()?;
    let mut writer = beats.writer(SlotIndex(0)).context("slot 0 exists")?;
    let at = Nanos::now();
    writer.open_at(SessionId(7), Window::from_millis(2_000), at);
    let mut reader = SlotReader::default();
    let mut context = Context {
        slot: SlotIndex(0),
        generation: view.generation(),
        now: at,
        bound: None,
        newest: Incarnation::NONE,
        shortest: Window::from_millis(30),
        longest: Window::from_millis(60_000),
    };
    let mut accepted = 0_u64;
    let mut rejected = 0_u64;
    let nanos = cost(|| {
        writer.beat_at(at);
        reader.look(&view, Look::Onward, context, |found| match found {
            Ok(beat) => {
                accepted += 1;
                context.bound =
                    Some(Bound { session: beat.session, incarnation: beat.incarnation, window: beat.window });
            }
            Err(_) => rejected += 1,
        });
    });
    anyhow::ensure!(rejected == 0 && accepted > u64::from(OPERATIONS), "every beat must be believed");
    Ok(nanos)
}

/// One beat written as the front does it, clock read included.
fn publish() -> Result<f64> {
    let (beats, _view) = segments()?;
    let mut writer = beats.writer(SlotIndex(0)).context("slot 0 exists")?;
    writer.open(SessionId(7), Window::from_millis(2_000));
    Ok(cost(|| writer.beat()))
}

/// Push and pop of rtrb's ring buffer.
fn rtrb() -> f64 {
    let (mut sender, mut receiver) = rtrb::RingBuffer::<[u64; 4]>::new(64);
    cost(|| {
        let _ = sender.push(black_box([1, 2, 3, 4]));
        let _ = black_box(receiver.pop());
    })
}

/// Push and pop of crossbeam's bounded queue.
fn array_queue() -> f64 {
    let queue = crossbeam_queue::ArrayQueue::<[u64; 4]>::new(64);
    cost(|| {
        let _ = queue.push(black_box([1, 2, 3, 4]));
        let _ = black_box(queue.pop());
    })
}

/// Loan, send and receive of iceoryx2, the way its own benchmarks use it.
fn iceoryx2() -> Result<f64> {
    set_log_level(LogLevel::Error);
    let explain =
        |what: &'static str| move |error: &dyn std::fmt::Debug| anyhow!("iceoryx2: {what}: {error:?}");
    let node = NodeBuilder::new().create::<ipc::Service>().map_err(|e| explain("no node")(&e))?;
    let name = format!("lanyard-bench-{}", std::process::id());
    let name = ServiceName::new(&name).map_err(|e| explain("no name")(&e))?;
    let service = node
        .service_builder(&name)
        .publish_subscribe::<[u64; 4]>()
        .create()
        .map_err(|e| explain("no service")(&e))?;
    let subscriber = service.subscriber_builder().create().map_err(|e| explain("no subscriber")(&e))?;
    let publisher = service.publisher_builder().create().map_err(|e| explain("no publisher")(&e))?;
    let mut received = 0_u64;
    let nanos = cost(|| {
        if let Ok(sample) = publisher.loan_uninit() {
            let _ = sample.write_payload(black_box([1, 2, 3, 4])).send();
        }
        if let Ok(Some(sample)) = subscriber.receive() {
            black_box(*sample);
            received += 1;
        }
    });
    anyhow::ensure!(received > u64::from(OPERATIONS), "iceoryx2 must deliver every message");
    Ok(nanos)
}

/// Both sides of a fresh beat segment.
fn segments() -> Result<(Arc<BeatSegment>, BeatView)> {
    let (capacity, generation) = (Capacity::DEFAULT, Generation(1));
    let fd = shm_proto::memory::create("lanyard-bench", BeatLayout::new(capacity).words())?;
    let beats = BeatSegment::map(fd.as_fd(), capacity, generation)?;
    shm_proto::memory::seal(fd.as_fd())?;
    let view = BeatView::map(fd.as_fd(), capacity, generation)?;
    Ok((beats, view))
}
