//! A beat makes no system call but the clock read, and neither does a look.
//!
//! The kernel is told to turn every system call of this thread into a signal ("syscall user dispatch",
//! x86-64 and Linux 5.11); the handler notes the call's number. Elsewhere there is nothing to test.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod common;

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicI64, AtomicU8, Ordering::SeqCst};

use common::{Rig, SESSION, WINDOW, vacant};
use shm_proto::beats::{Look, SlotReader};
use shm_proto::{Ending, MotorIndex, Nanos, SlotIndex};

const PR_SET_SYSCALL_USER_DISPATCH: c_int = 59;
const OFF: usize = 0;
const ON: usize = 1;
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;
const NONE: i64 = -1;

/// The kernel reads it at every system call of the thread that turned dispatching on.
static SELECTOR: AtomicU8 = AtomicU8::new(ALLOW);
/// The first call that was made although blocked.
static CAUGHT: AtomicI64 = AtomicI64::new(NONE);

extern "C" fn note(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // The handler's own return is a system call too.
    SELECTOR.store(ALLOW, SeqCst);
    // `si_syscall` of the kernel's siginfo: behind three ints, an alignment gap and one pointer.
    // SAFETY: the kernel hands a whole siginfo_t of 128 bytes to a SA_SIGINFO handler.
    let number = unsafe { info.cast::<c_int>().add(6).read() };
    CAUGHT.store(number.into(), SeqCst);
}

fn dispatch(mode: usize) -> bool {
    let selector = if mode == ON { SELECTOR.as_ptr() } else { ptr::null_mut() };
    // SAFETY: the selector is a static byte, so it outlives the thread.
    unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, mode, 0_usize, 0_usize, selector) == 0 }
}

/// The first system call made during `work`, if any; none after it is noted.
fn first_call(work: impl FnOnce()) -> Option<i64> {
    CAUGHT.store(NONE, SeqCst);
    SELECTOR.store(BLOCK, SeqCst);
    work();
    SELECTOR.store(ALLOW, SeqCst);
    Some(CAUGHT.load(SeqCst)).filter(|number| *number != NONE)
}

fn catch_signals() {
    // SAFETY: all zeros is a valid sigaction.
    let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = note;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler only touches atomics.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) }, 0);
}

#[test]
fn beats_and_looks_stay_out_of_the_kernel() {
    catch_signals();
    if !dispatch(ON) {
        eprintln!("skipped: this kernel cannot turn system calls into signals");
        return;
    }
    // SAFETY: getppid has no arguments and always succeeds.
    let caught = first_call(|| _ = unsafe { libc::getppid() });
    assert_eq!(caught, Some(libc::SYS_getppid), "the trap works");

    let rig = Rig::new(2, 2);
    let slot = SlotIndex(0);
    let mut writer = rig.beats.writer(slot).expect("slot");
    let mut reader = SlotReader::default();

    // With a clock that the kernel cannot serve from the vDSO, the clock read is a system call.
    let clock = first_call(|| _ = Nanos::now());
    assert!(clock.is_none_or(|number| number == libc::SYS_clock_gettime), "{clock:?}");
    if clock.is_none() {
        let timed = first_call(|| {
            writer.open(SESSION, WINDOW);
            (0..100).for_each(|_| writer.beat());
            writer.close(Ending::Client);
        });
        assert_eq!(timed, None, "a beat");
    }
    let untimed = first_call(|| (0..100).for_each(|number| writer.beat_at(Nanos(number))));
    assert_eq!(untimed, None, "a beat without the clock");
    let owner = writer.owner();
    assert_eq!(first_call(|| rig.beats.take_motor(MotorIndex(0), owner)), None, "taking a motor");
    let looked = first_call(|| {
        for how in [Look::Onward, Look::Everywhere] {
            reader.look(&rig.view, how, vacant(slot), |_| ());
        }
        reader.changed(&rig.view, slot);
    });
    assert_eq!(looked, None, "a look");
    assert!(dispatch(OFF));
}
