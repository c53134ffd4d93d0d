//! The benchmark: what Lanyard's hot paths cost, beside peers that run in the same minute.
//!
//! What lives here: one file per measurement, and what they share. `figures` and `goals` are what comes out;
//! `child` starts this program again in another role, because most measurements need processes of their own;
//! `realtime` and `harness` are a supervisor's real-time thread over `ports` that are timed. What needs no CAN
//! runs on this machine against a sink; what needs CAN runs in QEMU (`guest`), whose clock counts instructions.
//!
//! What must never live here: a figure from user-mode Linux, or one that was not measured.

pub mod beats;
pub mod child;
pub mod crowd;
pub mod cyclictest;
pub mod figures;
pub mod footprint;
pub mod goals;
pub mod grpc;
pub mod guest;
pub mod hanging;
pub mod harness;
pub mod latency;
pub mod load;
pub mod naive;
pub mod oneway;
pub mod ports;
pub mod proxy;
pub mod realtime;
pub mod relay;
pub mod robot;
pub mod scan;
pub mod shm;
pub mod stop64;
pub mod supervise;
pub mod trips;
pub mod tunnel;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use child::{numbers, role};
use figures::Figures;
use tests::stats::micros;

/// Programs of others.
#[derive(Clone, Debug)]
pub struct Tools {
    /// cyclictest of rt-tests.
    pub cyclictest: PathBuf,
    /// A Python that has python-can.
    pub python: PathBuf,
    /// The real supervisor, built for release.
    pub supervisor: PathBuf,
    /// The program with `rig --kind qemu --icount`: xtask.
    pub rig: Option<PathBuf>,
}

/// One line of progress on stderr; stdout belongs to the figures.
pub fn progress(text: &str) {
    eprintln!("bench: {text}");
}

/// A measurement and the beginnings of the names it gives.
struct Measurement {
    names: &'static [&'static str],
    run: fn(&Tools, &mut Figures) -> Result<()>,
}

const MEASUREMENTS: &[Measurement] = &[
    Measurement { names: shm::NAMES, run: |_, figures| shm::measure(figures) },
    Measurement { names: oneway::NAMES, run: |_, figures| oneway::measure(figures) },
    Measurement { names: scan::NAMES, run: |_, figures| scan::measure(figures) },
    Measurement { names: latency::IDLE, run: latency::idle },
    Measurement { names: latency::LOADED, run: latency::loaded },
    Measurement { names: &["stop64.frames_us", "stop64.max_us"], run: stop_64 },
    Measurement { names: footprint::CPU, run: |_, figures| footprint::cpu(figures) },
    Measurement { names: grpc::NAMES, run: |_, figures| grpc::measure(figures) },
    Measurement { names: crowd::NAMES, run: |_, figures| crowd::measure(figures) },
    Measurement { names: hanging::NAMES, run: |_, figures| hanging::measure(figures) },
    Measurement { names: proxy::NAMES, run: |_, figures| proxy::measure(figures) },
    Measurement { names: tunnel::NAMES, run: |_, figures| tunnel::measure(figures) },
    Measurement { names: guest::NAMES, run: guest::measure },
];

/// Measures everything that has names beginning with `only`.
///
/// # Errors
/// There is no such name, or a measurement fails.
pub fn run(tools: &Tools, only: &str) -> Result<Figures> {
    let mut figures = Figures::default();
    let mut any = false;
    for Measurement { names, run } in MEASUREMENTS {
        if names.iter().any(|name| name.starts_with(only) || only.starts_with(name)) {
            any = true;
            progress(&format!("measuring {}", names.join(" ")));
            run(tools, &mut figures).with_context(|| format!("measuring {}", names.join(" ")))?;
        }
    }
    ensure!(any, "nothing that is measured has a name that begins with {only:?}");
    Ok(figures)
}

fn stop_64(_: &Tools, figures: &mut Figures) -> Result<()> {
    const ROUNDS: usize = 25;
    let mut spans = numbers(&mut role("stop64", [ROUNDS.to_string()])?)?;
    spans.sort_unstable();
    figures.note("stop64.frames_us", micros(spans[spans.len() / 2]));
    figures.note("stop64.max_us", micros(spans[spans.len() - 1]));
    Ok(())
}
