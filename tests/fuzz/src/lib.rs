//! Any bytes as the whole beat segment, over several steps of time, against the supervisor's real core.
//!
//! What lives here: [`feed`], which the fuzzer (`src/main.rs`, started by `cargo xtask fuzz`) and a property
//! test (`tests/any_bytes.rs`) share, so that both ask the same. What must hold whatever the bytes are: no
//! panic; every deadline at most the moment of observation plus the window, and not beyond the last beat plus
//! the window; a bounded number of frames per step; and a core that wants to be woken again.
//!
//! What must never live here: a second opinion on what a valid beat is. `shm-proto` has tests for that.
#![forbid(unsafe_code)]

mod rig;
mod script;

use script::Script;

/// Lets the core live through what the bytes say.
///
/// # Panics
///
/// When something does not hold that must.
pub fn feed(bytes: &[u8]) {
    let script = Script::new(bytes);
    let mut rig = rig::Rig::new();
    rig.fill(script.content());
    for deed in script.deeds() {
        rig.play(&deed);
    }
    // Whatever was written last is looked at, at its deadline and after.
    for _ in 0..LAST_LOOKS {
        rig.wake();
    }
}

/// Enough wake-ups for a tick and the deadline of every slot.
const LAST_LOOKS: usize = 6;
