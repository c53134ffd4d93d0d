//! What a thousand clients cost the front that do nothing but keep their sessions alive.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::{Instant, interval_at, sleep};
use tonic::transport::Endpoint;

use super::child::{Background, hush, role};
use super::figures::Figures;
use super::footprint::processor_time;
use super::grpc::{Client, Empty, HEARTBEAT, START_SESSION, Text, connect, free_address, runtime};
use super::progress;
use super::supervise::{self, Program};

/// What this measures.
pub const NAMES: &[&str] = &["front.cpu_percent.1000"];

/// Clients, each with a connection and a session of its own.
const CLIENTS: u32 = 1_000;
/// A fifth of the window of 10 s that the configuration of the measurements gives.
const EVERY: Duration = Duration::from_secs(2);
/// Time over which processor time is counted: five beats of every client.
const SPAN: Duration = Duration::from_secs(10);
/// Descriptors besides the connections.
const OTHER_DESCRIPTORS: u64 = 128;

/// Processor time of the front as percent of one core.
///
/// # Errors
/// A process does not come up, or a heartbeat is refused.
pub fn measure(figures: &mut Figures) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = u64::from(CLIENTS) + OTHER_DESCRIPTORS;
    ensure!(most >= wanted, "{most} files may be open, {wanted} are needed (ulimit -n)");
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let address = free_address()?;
    let supervisor = supervise::start(Program::Sink, 1_024, &address)?;
    let mut front = role("front", [&supervisor.file])?;
    hush(&mut front);
    let front = Background::start(&mut front)?;
    runtime()?
        .block_on(async {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            progress(&format!("{CLIENTS} clients connect"));
            let begun = Instant::now();
            let mut beating = Vec::new();
            for number in 0..CLIENTS {
                let mut client = Client::new(connect(&endpoint).await?);
                let session: Text = client.call(START_SESSION, Text::default()).await?;
                beating.push(tokio::spawn(async move {
                    // Spread over the time, as clients are that come when they like.
                    let mut beats = interval_at(begun + EVERY + EVERY * number / CLIENTS, EVERY);
                    loop {
                        beats.tick().await;
                        let Empty {} = client.call(HEARTBEAT, session.clone()).await?;
                    }
                    #[expect(unreachable_code, reason = "says what type the error has")]
                    anyhow::Ok(())
                }));
            }
            // Until every client has beaten once.
            sleep(2 * EVERY).await;
            let (begun, before) = (Instant::now(), processor_time(&front)?);
            sleep(SPAN).await;
            let used = processor_time(&front)?.saturating_sub(before);
            let percent = 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64();
            let lost = beating.iter().filter(|beats| beats.is_finished()).count();
            ensure!(lost == 0, "{lost} clients were refused a heartbeat");
            beating.iter().for_each(tokio::task::JoinHandle::abort);
            figures.note("front.cpu_percent.1000", percent);
            Ok(())
        })
        .context("a thousand clients")
}
