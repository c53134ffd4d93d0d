//! Counts what the real-time thread does with the heap after arming: it must be nothing.
//!
//! Every program that contains the supervisor allocates through this. It passes everything on to the
//! system's allocator and counts, on the one thread that has said [`watch_this_thread`], each allocation
//! and each release. Nothing is refused: a supervisor that aborts for having allocated would stop a robot
//! for a blemish. The count is published and shown by `lanyard status`, and a test holds it at 0.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator with a counter.
#[derive(Debug)]
pub struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Constant and without a destructor: looking at it neither allocates nor can fail.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// From now on what this thread allocates and releases is counted.
pub fn watch_this_thread() {
    WATCHED.set(true);
}

/// Allocations and releases of watched threads so far.
#[must_use]
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

fn note() {
    if WATCHED.get() {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note();
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.dealloc(block, layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::{count, watch_this_thread};

    #[test]
    fn only_the_watched_thread_is_counted() {
        let work = || drop(std::hint::black_box(vec![1_u8, 2, 3]));
        let before = count();
        work();
        assert_eq!(count(), before);
        std::thread::spawn(move || {
            watch_this_thread();
            work();
            assert_eq!(count(), before + 2, "one allocation, one release");
        })
        .join()
        .expect("the thread ends well");
    }
}
