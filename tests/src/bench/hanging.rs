//! Whether heartbeats wait for anything: how long they take while a hundred commands hang in the server behind the front,
//! beside how long they take while nothing does.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::child::{Background, hush, role};
use super::figures::Figures;
use super::grpc::{Client, HEARTBEAT, START_SESSION, Text, connect_all, free_address, runtime};
use super::progress;
use super::proxy::one_by_one;
use super::supervise::{self, Program};
use tests::stats::summary;

/// What this measures.
pub const NAMES: &[&str] = &["front.beats."];

/// A command that moves something, and never returns there.
pub const COMMAND: &str = "/viam.component.arm.v1.ArmService/MoveToPosition";
/// Commands that hang.
const COMMANDS: usize = 100;
/// Each has a lease of its own, and the beating client a session; leases of one slice may live into the next.
const SESSIONS: u16 = 256;
/// Both take turns, so that both see the same machine.
const SLICES: usize = 10;
/// Heartbeats in one slice: 10 slices have 20 beyond the p99.9.
const BEATS: usize = 2_000;
/// Until every command has reached the server.
const ON_THEIR_WAY: Duration = Duration::from_millis(100);

/// Measures both.
///
/// # Errors
/// A process does not come up, or a heartbeat is refused.
pub fn measure(figures: &mut Figures) -> Result<()> {
    let (address, behind) = (free_address()?, free_address()?);
    let section = format!("[upstream]\naddress = \"http://{behind}\"\n");
    let supervisor = supervise::start_with(Program::Sink, SESSIONS, &address, &section)?;
    let _behind = Background::start(&mut role("echo", [&behind])?)?;
    let mut front = role("front", [&supervisor.file])?;
    hush(&mut front);
    let _front = Background::start(&mut front)?;
    runtime()?.block_on(async {
        let mut clients = connect_all(&address).await?;
        let (beating, others) = clients.split_first_mut().context("no client")?;
        beating.text = beating.call(START_SESSION, Text::default()).await?;
        beating.path = HEARTBEAT;
        one_by_one(beating, BEATS).await?;
        let (mut idle, mut beside) = (Vec::new(), Vec::new());
        for slice in 1..=SLICES {
            progress(&format!(
                "heartbeats beside nothing and beside hanging commands, slice {slice} of {SLICES}"
            ));
            idle.extend(one_by_one(beating, BEATS).await?);
            let hanging = hang(others);
            sleep(ON_THEIR_WAY).await;
            beside.extend(one_by_one(beating, BEATS).await?);
            let ended = hanging.iter().filter(|command| command.is_finished()).count();
            ensure!(ended == 0, "{ended} commands did not hang");
            hanging.iter().for_each(tokio::task::JoinHandle::abort);
        }
        let (idle, beside) = (summary(idle).context("no beat")?, summary(beside).context("no beat")?);
        figures.note_quantiles("front.beats.idle", &idle);
        figures.note_quantiles("front.beats.hanging", &beside);
        Ok(())
    })
}

/// Gives the commands, over all connections, each to an arm of its own: of two for one the older ends.
fn hang(clients: &[Client]) -> Vec<tokio::task::JoinHandle<()>> {
    let command = |place: usize| {
        let mut client = clients[place % clients.len()].another();
        tokio::spawn(async move {
            // It ends only with the measurement.
            drop(client.call::<Text>(COMMAND, Text { id: format!("arm{place}") }).await);
        })
    };
    (0..COMMANDS).map(command).collect()
}
