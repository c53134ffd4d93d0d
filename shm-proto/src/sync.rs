//! Atomics and fences: the machine's own, or those of the model checker loom under `--cfg loom`.
//!
//! Everything that touches shared memory takes them from here, so that `tests/loom.rs` explores the very
//! code that runs on a robot.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
