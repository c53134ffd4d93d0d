//! The times of an installed robot, where they can be trusted.
//!
//! A rig as a whole can stand still for longer than these; the emulated PC whose clock counts instructions cannot. `cargo xtask
//! campaign` says which it is.

use std::time::Duration;

/// `kernel_stop` as it comes.
pub const KERNEL_STOP: Duration = Duration::from_millis(50);
/// `max_lateness` as it comes.
pub const MAX_LATENESS: Duration = Duration::from_millis(20);
/// What says that the clock does not run while the machine stands still.
const TOLD_BY: &str = "LANYARD_SHIPPED_TIMES";

/// The first of the two where time can be trusted, else the other.
#[must_use]
pub fn or(shipped: Duration, rig: Duration) -> Duration {
    if std::env::var_os(TOLD_BY).is_some() { shipped } else { rig }
}
