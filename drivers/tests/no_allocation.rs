//! Once a drive is built, nothing that is done with it allocates.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use common::{all, enable_frames, frame, stop_frames};
use drivers::{Amperes, ArbitrationId, Frame, RevolutionsPerSecond, Standstill};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes unchanged to the system's allocator; counting touches a thread-local cell
// without destructor, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises about the layout are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc`, hence from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1);
}

#[test]
fn velocity_decode_and_is_motion_do_not_allocate() {
    for drive in all() {
        let mut frames = stop_frames(&drive);
        frames.extend(enable_frames(&drive));
        frames.extend(drive.poll.as_slice());
        for id in drive.reports.iter().chain(&drive.commands) {
            for length in 0..=8 {
                frames.push(Frame::classic(*id, &[0x43; 8][..length]));
            }
            for length in [3, 8, 12, 24, 64] {
                frames.push(Frame::fd(*id, &[0x21; 64][..length]));
            }
        }
        frames.extend([
            frame("585", "4b41600027060000"),
            frame("585", "8016100100000206"),
            frame("061", "0000000101030000"),
            frame("069", "00001040000000be"),
            Frame::remote(ArbitrationId::standard(0x605)),
        ]);
        let proof = drive.stop.stage(0).proof;
        let mut tracker = Standstill::NOTHING_SEEN;
        let count = allocations(|| {
            for frame in &frames {
                if let Some(seen) = black_box(drive.decode(frame)) {
                    black_box(tracker.observe(&proof, &seen));
                }
                black_box(drive.is_motion(frame));
                black_box(drive.protocol.watchdog(frame));
                black_box(drive.may_hear(frame.id()));
            }
            for speed in [0.0, 1.5, -50.0, 51.0, f32::NAN] {
                let _ = black_box(drive.velocity(RevolutionsPerSecond(speed)));
                black_box(drive.protocol.current(Amperes(speed)));
            }
        });
        assert_eq!(count, 0);
    }
}
