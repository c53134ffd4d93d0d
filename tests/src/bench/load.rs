//! Load: four threads per core that never wait, with ordinary scheduling.

use std::hint::black_box;
use std::thread;

use anyhow::Result;

use super::child::{Background, role};

/// Busy threads per core.
const THREADS_PER_CORE: usize = 4;
/// What each of them walks through over and over: together more than the second-level caches, so that the
/// real-time thread does not find its memory in them either.
const BYTES: usize = 512 * 1024;

/// Starts the load in a process of its own.
///
/// # Errors
/// It cannot be started.
pub fn start() -> Result<Background> {
    Background::start(&mut role("burn", [] as [&str; 0])?)
}

/// The role `burn`: never ends.
pub fn burn() {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores * THREADS_PER_CORE {
            scope.spawn(|| {
                let mut memory = vec![1_u64; BYTES / 8];
                loop {
                    for word in &mut memory {
                        *word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    }
                    black_box(&mut memory);
                }
            });
        }
    });
}
