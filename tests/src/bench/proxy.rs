//! What a call through the front to a server behind it costs, beside the same call to that server itself: same
//! messages, same client, in turns. The front and the server have a core each; the client takes what is left of both.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::child::{Background, hush, role};
use super::figures::Figures;
use super::footprint::processor_time;
use super::grpc::{Client, Empty, calls_per_second, connect_all, free_address, runtime};
use super::progress;
use super::supervise::{self, Program};
use tests::stats::summary;

/// What this measures.
pub const NAMES: &[&str] = &["front.proxy."];

/// Both ways take turns, so that both see the same machine.
const SLICES: usize = 10;
/// Calls one after the other in one slice: 10 slices have 200 beyond the p99.
const CALLS: usize = 2_000;
/// Time of one slice of as many calls as there can be.
const SLICE: Duration = Duration::from_millis(1_000);
/// Before the first slice: connections and caches warm up.
const WARM_UP: Duration = Duration::from_millis(500);
/// Calls before the first one whose time is taken.
const WARM_UP_CALLS: usize = 500;

/// The core of each server; the last one is the supervisor's, too, which hardly needs it.
const FRONT_CORE: &str = "1";
const SERVER_CORE: &str = "0";

/// Measures both.
///
/// # Errors
/// A server does not come up, or a call fails.
pub fn measure(figures: &mut Figures) -> Result<()> {
    let (ours, bare) = (free_address()?, free_address()?);
    let section = format!("[upstream]\naddress = \"http://{bare}\"\n");
    let supervisor = supervise::start_with(Program::Sink, 64, &ours, &section)?;
    let echo = Background::start(&mut role("echo", [&bare, SERVER_CORE])?)?;
    let file: &Path = &supervisor.file;
    let mut front = role("front", [file, Path::new(FRONT_CORE)])?;
    hush(&mut front);
    let front = Background::start(&mut front)?;
    runtime()?.block_on(async {
        let mut through = connect_all(&ours).await?;
        let mut direct = connect_all(&bare).await?;
        latencies(figures, &mut through[0], &mut direct[0]).await?;
        calls_per_second(&mut through, WARM_UP).await?;
        calls_per_second(&mut direct, WARM_UP).await?;
        let (mut ours, mut bare) = (Load::default(), Load::default());
        for slice in 1..=SLICES {
            progress(&format!("calls through the front and direct, slice {slice} of {SLICES}"));
            ours.add(&front, &mut through).await?;
            bare.add(&echo, &mut direct).await?;
        }
        ours.note("front.proxy", figures);
        bare.note("front.proxy.direct", figures);
        Ok(())
    })
}

/// How long single calls take, one after the other.
async fn latencies(figures: &mut Figures, through: &mut Client, direct: &mut Client) -> Result<()> {
    one_by_one(through, WARM_UP_CALLS).await?;
    one_by_one(direct, WARM_UP_CALLS).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for slice in 1..=SLICES {
        progress(&format!("single calls through the front and direct, slice {slice} of {SLICES}"));
        ours.extend(one_by_one(through, CALLS).await?);
        bare.extend(one_by_one(direct, CALLS).await?);
    }
    let (ours, bare) = (summary(ours).context("no call")?, summary(bare).context("no call")?);
    figures.note_quantiles("front.proxy.through", &ours);
    figures.note_quantiles("front.proxy.direct", &bare);
    figures.note("front.proxy.added_p50_us", ours.p50 - bare.p50);
    figures.note("front.proxy.added_p99_us", ours.p99 - bare.p99);
    Ok(())
}

/// How long each of that many calls takes, in nanoseconds.
///
/// # Errors
/// One fails.
pub async fn one_by_one(client: &mut Client, calls: usize) -> Result<Vec<u64>> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begun = Instant::now();
        let Empty {} = client.call(client.path, client.text.clone()).await?;
        times.push(u64::try_from(begun.elapsed().as_nanos())?);
    }
    Ok(times)
}

/// Calls under full load, and what they cost the server they were made to.
#[derive(Debug, Default)]
struct Load {
    per_second: f64,
    calls: f64,
    busy: f64,
}

impl Load {
    async fn add(&mut self, server: &Background, clients: &mut Vec<Client>) -> Result<()> {
        let (begun, before) = (Instant::now(), processor_time(server)?);
        let per_second = calls_per_second(clients, SLICE).await?;
        self.busy += processor_time(server)?.saturating_sub(before).as_secs_f64();
        self.calls += per_second * begun.elapsed().as_secs_f64();
        self.per_second += per_second;
        Ok(())
    }

    fn note(&self, prefix: &str, figures: &mut Figures) {
        #[expect(clippy::cast_precision_loss, reason = "there are ten")]
        figures.note(format!("{prefix}.calls_per_s"), self.per_second / SLICES as f64);
        // Where the client takes from the server's core, this is what the whole core would have given.
        figures.note(format!("{prefix}.calls_per_core_s"), self.calls / self.busy);
    }
}
