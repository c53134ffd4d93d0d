//! `ptrace`, which completes the writing of an extended state that is cut short.
//!
//! The extended state is what XSAVE stores: the registers of x87, SSE, AVX and so on. User-mode Linux 6.1 reads the
//! first 2696 bytes of it (PTRACE_GETREGSET, NT_X86_XSTATE), and later writes just these back (PTRACE_SETREGSET).
//! The host's kernel takes only the whole (`xstateregs_set` in arch/x86/kernel/fpu/regset.c), which is 11008 bytes where the
//! processor has AMX: EFAULT, and user-mode Linux dies at its first process. Since 6.13 it asks for the size.
//!
//! What is missing is filled with zeros, the state after a reset. It is the state of AMX in any guest, too: a program gets
//! AMX by arch_prctl(2) only, which user-mode Linux refuses. What stands in the header of the state is left as it is.
//!
//! No call here allocates or needs more than a little of the stack: user-mode Linux has 16 KB of it for each process,
//! and one page in the process that becomes a guest's.

use std::cell::UnsafeCell;
use std::ffi::{c_long, c_uint, c_void};
use std::mem::transmute;
use std::ptr::{null_mut, without_provenance_mut};
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use libc::{PTRACE_GETREGSET, PTRACE_SETREGSET, RTLD_NEXT, dlsym, iovec, pid_t};

/// The number of the extended state among the sets of registers (linux/elf.h).
const NT_X86_XSTATE: usize = 0x202;

/// Where the header of the extended state ends. It says which registers are stored; a shorter piece cannot be completed.
const HEADER_END: usize = 576;

/// More than any processor has: six times the size with AMX, the largest so far.
const MOST: usize = 64 * 1024;

/// What `ptrace` is to its callers. C declares it with any number of arguments after the first; the C library
/// always reads four.
type Ptrace = unsafe extern "C" fn(c_uint, pid_t, *mut c_void, *mut c_void) -> c_long;

/// The C library's `ptrace`, or that of a library that is preloaded, too; null when there is none.
static NEXT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// The size of the whole extended state on this machine; 0 until it is known.
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// Where a state is completed.
static STATE: State = State { taken: AtomicBool::new(false), bytes: UnsafeCell::new([0; MOST]) };

/// Has [`find_next`] run when the library is loaded: later, there may be no more than a page of stack.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = find_next;

extern "C" fn find_next() {
    // SAFETY: the name ends with a zero byte.
    NEXT.store(unsafe { dlsym(RTLD_NEXT, c"ptrace".as_ptr()) }, Ordering::Release);
}

/// A place for one extended state.
struct State {
    taken: AtomicBool,
    bytes: UnsafeCell<[u8; MOST]>,
}

// SAFETY: the bytes are reached through `Taken` only, of which there is one at a time.
unsafe impl Sync for State {}

impl State {
    /// Takes the place, unless it is taken: a signal may have interrupted its user, who must not be waited for.
    fn take(&self) -> Option<Taken<'_>> {
        (!self.taken.swap(true, Ordering::Acquire)).then_some(Taken(self))
    }
}

/// The right to use a [`State`], until it is dropped.
struct Taken<'a>(&'a State);

impl Taken<'_> {
    fn bytes(&mut self) -> &mut [u8; MOST] {
        // SAFETY: there is one `Taken`, and it is borrowed for as long as the bytes are.
        unsafe { &mut *self.0.bytes.get() }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}

/// What a process calls instead of the C library's `ptrace`: the same, but an extended state that is cut short is
/// completed before it is written.
///
/// # Safety
/// As for ptrace(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptrace(request: c_uint, pid: pid_t, addr: *mut c_void, data: *mut c_void) -> c_long {
    if request == PTRACE_SETREGSET && addr.addr() == NT_X86_XSTATE && !data.is_null() {
        // SAFETY: this request comes with an iovec.
        let given = unsafe { data.cast::<iovec>().read() };
        // SAFETY: and the iovec with bytes to be read.
        if let Some(result) = unsafe { write_completed(pid, given) } {
            return result;
        }
    }
    // SAFETY: nothing is changed, so what holds for the caller's call holds for this one.
    unsafe { next(request, pid, addr, data) }
}

/// Completes a piece of an extended state and writes it. Returns `None` if it is not one to complete.
///
/// # Safety
/// `given` names bytes that can be read.
unsafe fn write_completed(pid: pid_t, given: iovec) -> Option<c_long> {
    let size = size(pid)?;
    if given.iov_len < HEADER_END || given.iov_len >= size {
        return None;
    }
    let mut state = STATE.take()?;
    let (piece, rest) = state.bytes().get_mut(..size)?.split_at_mut_checked(given.iov_len)?;
    // SAFETY: the caller says so.
    piece.copy_from_slice(unsafe { slice::from_raw_parts(given.iov_base.cast(), given.iov_len) });
    rest.fill(0);
    // SAFETY: the kernel reads the bytes that the last two lines have written.
    Some(unsafe { next_on_state(PTRACE_SETREGSET, pid, state.bytes(), size).0 })
}

/// The size of the whole extended state, from the kernel by way of a process that is traced.
fn size(pid: pid_t) -> Option<usize> {
    let known = SIZE.load(Ordering::Relaxed);
    if known != 0 {
        return Some(known);
    }
    let mut state = STATE.take()?;
    // SAFETY: the kernel writes no more than these bytes.
    let (result, size) = unsafe { next_on_state(PTRACE_GETREGSET, pid, state.bytes(), MOST) };
    // A state that fills the place may have been cut.
    if result < 0 || size >= MOST {
        return None;
    }
    SIZE.store(size, Ordering::Relaxed);
    Some(size)
}

/// Reads or writes an extended state of this length. Returns the result, and the length the kernel has put in its place.
///
/// # Safety
/// The length is at most that of `bytes`.
unsafe fn next_on_state(
    request: c_uint,
    pid: pid_t,
    bytes: &mut [u8; MOST],
    length: usize,
) -> (c_long, usize) {
    let mut place = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
    let kind = without_provenance_mut(NT_X86_XSTATE);
    // SAFETY: the place is valid for its length, and outlives the call.
    let result = unsafe { next(request, pid, kind, (&raw mut place).cast()) };
    (result, place.iov_len)
}

/// The `ptrace` behind this one.
///
/// # Safety
/// As for ptrace(2).
unsafe fn next(request: c_uint, pid: pid_t, addr: *mut c_void, data: *mut c_void) -> c_long {
    let next = NEXT.load(Ordering::Acquire);
    if next.is_null() {
        // SAFETY: as the caller says.
        return unsafe { kernels(request, pid, addr, data) };
    }
    // SAFETY: the dynamic linker has found it by its name, whose type is this one.
    let next = unsafe { transmute::<*mut c_void, Ptrace>(next) };
    // SAFETY: as the caller says.
    unsafe { next(request, pid, addr, data) }
}

/// The system call itself, for want of a library's.
///
/// # Safety
/// As for ptrace(2).
unsafe fn kernels(request: c_uint, pid: pid_t, addr: *mut c_void, data: *mut c_void) -> c_long {
    // A word that is read is the C library's result, whereas the kernel wants a place for it.
    let reads_word = matches!(request, libc::PTRACE_PEEKTEXT | libc::PTRACE_PEEKDATA | libc::PTRACE_PEEKUSER);
    let mut word: c_long = 0;
    let data = if reads_word { (&raw mut word).cast() } else { data };
    // SAFETY: as the caller says, and the word outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, request, pid, addr, data) };
    if !reads_word || result < 0 {
        return result;
    }
    // SAFETY: the C library has a place for each thread's error number. A word of -1 is no error.
    unsafe { *libc::__errno_location() = 0 };
    word
}

#[cfg(test)]
mod tests {
    use std::cell::UnsafeCell;
    use std::process::{Child, Command};
    use std::ptr::{null_mut, without_provenance_mut};
    use std::sync::atomic::AtomicBool;

    use super::{MOST, State, kernels, next, size};

    /// A process that is traced and stands still.
    struct Traced(Child);

    impl Traced {
        fn start() -> Self {
            let child = Command::new("sleep").arg("60").spawn().unwrap();
            let traced = Self(child);
            // SAFETY: no memory is passed.
            let result = unsafe { next(libc::PTRACE_ATTACH, traced.pid(), null_mut(), null_mut()) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            // SAFETY: a null pointer stands for a status that is not wanted.
            assert_eq!(unsafe { libc::waitpid(traced.pid(), null_mut(), 0) }, traced.pid());
            traced
        }

        fn pid(&self) -> libc::pid_t {
            libc::pid_t::try_from(self.0.id()).unwrap()
        }
    }

    impl Drop for Traced {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    #[test]
    fn size_is_the_one_the_processor_names() {
        let traced = Traced::start();
        // Leaf 0xD: the size of all that the operating system has enabled.
        let size_of_enabled = std::arch::x86_64::__cpuid_count(0xd, 0).ebx;
        assert_eq!(size(traced.pid()), usize::try_from(size_of_enabled).ok());
        assert_eq!(size(-1), size(traced.pid()), "asked for once");
    }

    #[test]
    fn system_call_reads_words_as_the_library_does() {
        const NO_REQUEST: u32 = 0xffff;
        let traced = Traced::start();
        // The processor's flags: never zero.
        let flags = without_provenance_mut(18 * 8);
        for request in [libc::PTRACE_PEEKUSER, NO_REQUEST] {
            // SAFETY: a register is read, and nothing is done for what is no request: no memory is passed.
            let own = unsafe { kernels(request, traced.pid(), flags, null_mut()) };
            // SAFETY: the same call.
            assert_eq!(own, unsafe { next(request, traced.pid(), flags, null_mut()) });
            assert_eq!(own == -1, request == NO_REQUEST);
            assert_ne!(own, 0);
        }
    }

    #[test]
    fn place_for_a_state_is_given_to_one_at_a_time() {
        static PLACE: State = State { taken: AtomicBool::new(false), bytes: UnsafeCell::new([0; MOST]) };
        let taken = PLACE.take();
        assert!(taken.is_some());
        assert!(PLACE.take().is_none());
        drop(taken);
        assert!(PLACE.take().is_some());
    }
}
