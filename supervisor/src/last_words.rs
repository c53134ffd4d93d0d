//! The stops of a panic: whatever breaks in this process, every motor is told to stop before it ends.
//!
//! The frames are built and sockets of their own opened before arming. The panic hook hands the frames
//! to the kernel, then aborts; no other code of the process runs in between.

use std::sync::OnceLock;

use config::Config;
use drivers::Frame;

use crate::bus::{Buses, Rebind};

/// How often the frames go out: once more for a full queue that has drained meanwhile.
const ROUNDS: usize = 2;

#[derive(Debug)]
struct LastWords {
    buses: Buses,
    stops: Vec<(usize, Frame)>,
}

static LAST_WORDS: OnceLock<LastWords> = OnceLock::new();

/// Prepares the first stop stage of every motor and arms the panic hook.
///
/// # Errors
///
/// When a bus cannot be opened; the texts say which and what to do.
pub fn prepare(config: &Config, rebind: &mut Rebind) -> Result<(), Vec<String>> {
    let buses = Buses::open(config)?;
    buses.deafen().map_err(|error| vec![format!("CAN sockets for a panic: {error}")])?;
    rebind.add(&buses).map_err(|error| vec![format!("CAN sockets for a panic: {error}")])?;
    let frames_of = |motor: &config::Motor| {
        let frames = motor.drive.stop.stage(0).frames;
        frames.as_slice().iter().map(|frame| (motor.bus, *frame)).collect::<Vec<_>>()
    };
    let stops = config.motors.iter().flat_map(frames_of).collect();
    // Only the first call counts; there is only one.
    let _ = LAST_WORDS.set(LastWords { buses, stops });
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        send_all();
        report(info);
        std::process::abort();
    }));
    Ok(())
}

/// Sends every prepared stop. What the kernel does not take is lost: there is nobody left to retry.
fn send_all() {
    let Some(LastWords { buses, stops }) = LAST_WORDS.get() else { return };
    for _ in 0..ROUNDS {
        for (bus, frame) in stops {
            let _ = buses.hand_over(*bus, frame);
        }
    }
}
