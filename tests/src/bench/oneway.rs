//! How long a beat takes from one process to another: one process per CPU, the reader spinning.

use std::hint::spin_loop;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use shm_proto::beat::{Bound, Context};
use shm_proto::beats::{BeatWriter, Look, SlotReader};
use shm_proto::layout::BeatLayout;
use shm_proto::{
    BeatSegment, BeatView, Capacity, Generation, Incarnation, Nanos, SessionId, SlotIndex, Window,
};

use supervisor::sys;

use super::child::{numbers, role};
use super::figures::Figures;
use super::realtime;
use tests::stats::quantile;

/// The names this measures.
pub const NAMES: &[&str] = &["shm.oneway_p50_ns", "shm.oneway_p99_ns"];

/// Of both, so that what else runs here does not decide the p99. Half a second of it does no harm.
const PRIORITY: u8 = 1;
/// Beats that are timed.
const BEATS: usize = 200_000;
/// Between two beats, nanoseconds: longer than a beat is on its way, so that none waits behind another.
const PAUSE: u64 = 2_000;
/// A reader that has not seen its beats by then never will.
const PATIENCE: Duration = Duration::from_secs(20);
const GENERATION: Generation = Generation(1);
const SLOT: SlotIndex = SlotIndex(0);
/// The longest window there is: what expires is not the matter here.
const WINDOW: Window = Window::from_millis(60_000);

/// Writes beats on CPU 0 while the role `read-beats` reads them on the last CPU.
///
/// # Errors
/// Shared memory or the second process cannot be had.
pub fn measure(figures: &mut Figures) -> Result<()> {
    let capacity = Capacity::DEFAULT;
    let fd = shm_proto::memory::create("lanyard-bench", BeatLayout::new(capacity).words())?;
    let beats = BeatSegment::map(fd.as_fd(), capacity, GENERATION)?;
    shm_proto::memory::seal(fd.as_fd())?;
    let mut writer = beats.writer(SLOT).context("slot 0 exists")?;
    writer.open(SessionId(7), WINDOW);
    let mut reader = role("read-beats", [] as [&str; 0])?;
    reader.stdin(Stdio::from(fd));

    let enough = AtomicBool::new(false);
    let mut latencies = std::thread::scope(|scope| {
        scope.spawn(|| beat_until(&mut writer, &enough));
        let read = numbers(&mut reader);
        enough.store(true, Ordering::Relaxed);
        read
    })?;
    ensure!(latencies.len() == BEATS, "only {} beats arrived", latencies.len());
    latencies.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 ns")]
    let at = |per_mille| quantile(&latencies, per_mille) as f64;
    figures.note("shm.oneway_p50_ns", at(500));
    figures.note("shm.oneway_p99_ns", at(990));
    Ok(())
}

fn beat_until(writer: &mut BeatWriter, enough: &AtomicBool) {
    // Neither would break anything; both show in the figures.
    let _ = realtime::pin(0);
    let _ = sys::set_fifo(PRIORITY);
    while !enough.load(Ordering::Relaxed) {
        let last = Nanos::now();
        while Nanos::now().since(last) < PAUSE {
            spin_loop();
        }
        writer.beat();
    }
}

/// The role `read-beats`: reads the segment that is its stdin, and prints how many nanoseconds ago each beat
/// was written when it was believed.
///
/// # Errors
/// Its stdin is no sealed beat segment, or too few beats come.
pub fn read_beats() -> Result<()> {
    realtime::pin(realtime::last_cpu())?;
    sys::set_fifo(PRIORITY)?;
    let view = BeatView::map(std::io::stdin().as_fd(), Capacity::DEFAULT, GENERATION)?;
    let mut reader = SlotReader::default();
    let mut context = Context {
        slot: SLOT,
        generation: GENERATION,
        now: Nanos::now(),
        bound: None,
        newest: Incarnation::NONE,
        shortest: WINDOW,
        longest: WINDOW,
    };
    let mut latencies = Vec::with_capacity(BEATS);
    let begun = Instant::now();
    while latencies.len() < BEATS {
        // A beat written while the ring is read is younger than this; it is believed in the next look.
        context.now = Nanos::now();
        let mut bound = context.bound;
        reader.look(&view, Look::Onward, context, |found| {
            if let Ok(beat) = found {
                if bound.is_some() {
                    latencies.push(Nanos::now().since(beat.at));
                }
                let (session, incarnation, window) = (beat.session, beat.incarnation, beat.window);
                bound = Some(Bound { session, incarnation, window });
            }
        });
        context.bound = bound;
        ensure!(begun.elapsed() < PATIENCE, "only {} beats came", latencies.len());
    }
    let mut text = String::new();
    for latency in &latencies[..BEATS] {
        text.push_str(&latency.to_string());
        text.push('\n');
    }
    std::io::stdout().write_all(text.as_bytes()).context("cannot print")
}
