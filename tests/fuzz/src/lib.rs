//! Any bytes as the whole beat segment, over several steps of time, against the supervisor's real core; and any bytes to each
//! parser of the front.
//!
//! What lives here: [`feed`], which the fuzzer (`src/main.rs`, started by `cargo xtask fuzz`) and a property
//! test (`tests/any_bytes.rs`) share, so that both ask the same. What must hold of the segment whatever the bytes are: no
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

/// What is fed: `beats`, the whole segment, or a parser of the front.
///
/// # Errors
///
/// With all names, when there is nothing of that one.
pub fn fed(name: &str) -> Result<fn(&[u8]), String> {
    if name == BEATS {
        return Ok(feed);
    }
    let found = front::parsers().find(|parser| parser.name == name);
    found.map(|parser| parser.feed).ok_or_else(|| {
        let names: Vec<_> =
            std::iter::once(BEATS).chain(front::parsers().map(|parser| parser.name)).collect();
        format!("nothing that is fed is called {name:?}; there are {}", names.join(", "))
    })
}

/// What is fed unless something else is named.
pub const BEATS: &str = "beats";
/// The variable of the environment that names it.
pub const OF: &str = "LANYARD_FUZZ";

/// What the environment names.
///
/// # Panics
///
/// When it names nothing that there is.
#[must_use]
pub fn chosen() -> fn(&[u8]) {
    static CHOSEN: std::sync::OnceLock<fn(&[u8])> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var(OF).unwrap_or_else(|_| BEATS.to_owned());
        fed(&name).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// Enough wake-ups for a tick and the deadline of every slot.
const LAST_LOOKS: usize = 6;
