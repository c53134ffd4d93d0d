//! A front in a process of its own that does nothing but keep sessions alive.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use config::Config;
use shm_proto::{BeatWriter, Nanos, SessionId, Window, handover};

use super::child::{Background, role};

/// The window clients get unless the configuration says otherwise, and how often a client beats in it.
const WINDOW: Window = Window::from_millis(2_000);
const BEATS_PER_WINDOW: u64 = 5;
/// The sessions beat in turn, some with every step, so that all beats together are spread evenly.
const STEP: Duration = Duration::from_millis(4);

/// Starts the role `beat` with that many sessions.
///
/// # Errors
/// It cannot be started.
pub fn start(config: &Path, sessions: u16) -> Result<Background> {
    let arguments = [config.as_os_str().to_owned(), sessions.to_string().into()];
    Background::start(&mut role("beat", arguments)?)
}

/// The role `beat`: attaches and beats for ever.
///
/// # Errors
/// The supervisor refuses.
pub fn run(config: &Path, sessions: u16) -> Result<()> {
    let config = Config::load(config)?;
    let attached = handover::attach(&config.supervisor.front_socket, config.hash)?;
    let mut front = attached.beats.front_writer();
    front.open(SessionId(1), Window(u64::try_from(config.supervisor.front_window.as_nanos())?));
    let slots = attached.beats.capacity().slots().take(usize::from(sessions));
    let mut writers: Vec<BeatWriter> = slots.filter_map(|slot| attached.beats.writer(slot)).collect();
    for (writer, session) in writers.iter_mut().zip(2..) {
        writer.open(SessionId(session), WINDOW);
    }
    let steps = WINDOW.0 / BEATS_PER_WINDOW / u64::try_from(STEP.as_nanos())?;
    let steps = usize::try_from(steps).context("steps")?;
    for step in 0.. {
        front.beat();
        let now = Nanos::now();
        writers.iter_mut().skip(step % steps).step_by(steps).for_each(|writer| writer.beat_at(now));
        sleep(STEP);
    }
    Ok(())
}
