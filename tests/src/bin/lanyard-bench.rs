//! `lanyard-bench`: what one beat costs, beside a well-known queue in the same minute.
//!
//! Absolute times of a shared machine say little; the ratio to a peer that ran in the same run does.
//! Prints a table; `--json FILE` writes one flat object, name to number.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use shm_proto::beat::Context;
use shm_proto::beats::{Look, SlotReader};
use shm_proto::layout::BeatLayout;
use shm_proto::{
    BeatSegment, BeatView, Capacity, Generation, Incarnation, Nanos, SessionId, SlotIndex, Window,
};

/// Rounds per measurement; the median is reported, so that a preempted round does not count.
const ROUNDS: usize = 15;
/// Operations per round: some milliseconds, far above the clock's resolution.
const OPERATIONS: u32 = 200_000;

/// Measures what Lanyard's hot paths cost.
#[derive(Parser)]
#[command(name = "lanyard-bench", version)]
struct Arguments {
    /// Also write the figures to this file as one flat JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut figures = BTreeMap::new();
    figures.insert("shm.publish_read_ns", publish_and_read()?);
    figures.insert("shm.publish_ns", publish()?);
    figures.insert("shm.peer.rtrb_ns", peer());
    figures.insert("clock_ns", median(|| _ = black_box(Nanos::now())));
    for (name, figure) in &figures {
        println!("{name:<24} {figure:>10.1}");
    }
    let ratio = figures["shm.publish_read_ns"] / figures["shm.peer.rtrb_ns"];
    println!("publish and read costs {ratio:.2} times rtrb's push and pop of 32 bytes");
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&figures)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Median over rounds of the nanoseconds one operation takes.
fn median(mut operation: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..OPERATIONS).for_each(|_| operation());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(OPERATIONS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// One beat written with its CRC, found, checked and validated, without the clock reads of either side.
fn publish_and_read() -> Result<f64> {
    let (beats, view) = segments()?;
    let mut writer = beats.writer(SlotIndex(0)).context("slot 0 exists")?;
    let window = Window::from_millis(2_000);
    let at = Nanos::now();
    writer.open_at(SessionId(7), window, at);
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
    let nanos = median(|| {
        writer.beat_at(at);
        reader.look(&view, Look::Onward, context, |found| match found {
            Ok(beat) => {
                accepted += 1;
                context.bound = Some(shm_proto::beat::Bound {
                    session: beat.session,
                    incarnation: beat.incarnation,
                    window: beat.window,
                });
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
    Ok(median(|| writer.beat()))
}

/// A 32-byte message through rtrb in one thread.
fn peer() -> f64 {
    let (mut sender, mut receiver) = rtrb::RingBuffer::<[u64; 4]>::new(64);
    median(|| {
        let _ = sender.push(black_box([1, 2, 3, 4]));
        let _ = black_box(receiver.pop());
    })
}

fn segments() -> Result<(std::sync::Arc<BeatSegment>, BeatView)> {
    let (capacity, generation) = (Capacity::DEFAULT, Generation(1));
    let fd = shm_proto::memory::create("lanyard-bench", BeatLayout::new(capacity).words())?;
    let beats = BeatSegment::map(fd.as_fd(), capacity, generation)?;
    shm_proto::memory::seal(fd.as_fd())?;
    let view = BeatView::map(fd.as_fd(), capacity, generation)?;
    Ok((beats, view))
}
