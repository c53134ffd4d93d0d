//! What the integration tests and the demo share: simulated drives, a whole robot, real clients, and a
//! listener on the bus that knows nothing of Lanyard.
//!
//! What must never live here: anything of the crates under test. A test that decodes frames with the
//! code that encoded them, or reads shared memory with the code that wrote it, would agree with a mistake.

pub mod bound;
pub mod clock;
pub mod demo;
pub mod expect;
pub mod families;
pub mod fd_store;
pub mod folder;
pub mod holder;
pub mod interface;
pub mod intruder;
pub mod kortex;
pub mod listener;
pub mod order;
pub mod pipeline;
pub mod process;
pub mod processor;
pub mod proxy;
pub mod python;
pub mod readings;
pub mod relay;
pub mod robot;
pub mod shipped;
pub mod sim;
pub mod simulation;
pub mod stalls;
pub mod stats;
pub mod status;
pub mod tunnel;
pub mod typescript;
#[cfg(target_arch = "x86_64")]
pub mod vectors;
pub mod wire;
