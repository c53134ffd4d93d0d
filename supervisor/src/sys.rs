//! System calls that no crate wraps safely: the only `unsafe` of the supervisor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::epoll::EpollEvent;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::time::TimeSpec;
use nix::unistd::ForkResult;

/// Turns the -1 of a system call into its error.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor that becomes readable when the process ends, whatever its number is used for later.
///
/// # Errors
///
/// When there is no such process, or the kernel is older than 5.3.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor; nobody else here knows of it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // A child must not hold it; pidfds are close-on-exec from the start.
    Ok(fd)
}

/// Waits for events of an epoll descriptor, at most that many nanoseconds, and returns how many there are.
///
/// # Errors
///
/// A signal came first, or the kernel is older than 5.11 (`ENOSYS`).
pub fn epoll_pwait2(epoll: BorrowedFd<'_>, events: &mut [EpollEvent], nanos: u64) -> io::Result<usize> {
    let wait = TimeSpec::from_duration(Duration::from_nanos(nanos));
    let (place, room) = (events.as_mut_ptr(), events.len());
    let no_mask = std::ptr::null::<libc::sigset_t>();
    // SAFETY: place and room describe `events`, whose type has the layout of `epoll_event`; the wait is only read;
    // without a mask its size does not matter.
    let count = check(unsafe {
        libc::syscall(libc::SYS_epoll_pwait2, epoll.as_raw_fd(), place, room, wait.as_ref(), no_mask, 0)
    })?;
    usize::try_from(count).map_err(io::Error::other)
}

/// Takes what events an epoll descriptor has, without waiting. The call is the same on every architecture, which
/// those of the C library are not.
///
/// # Errors
///
/// It is no epoll descriptor.
pub fn epoll_take(epoll: BorrowedFd<'_>, events: &mut [EpollEvent]) -> io::Result<usize> {
    let (place, room) = (events.as_mut_ptr(), events.len());
    let no_mask = std::ptr::null::<libc::sigset_t>();
    // SAFETY: as in `epoll_pwait2`.
    let count = check(unsafe {
        libc::syscall(libc::SYS_epoll_pwait, epoll.as_raw_fd(), place, room, 0, no_mask, 0)
    })?;
    usize::try_from(count).map_err(io::Error::other)
}

/// Binds a CAN socket to the interface with that number; one that is bound already changes over.
///
/// # Errors
///
/// When there is no such interface, or it is no CAN interface.
pub fn bind_can(socket: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    let address = socketcan::CanAddr::new(interface);
    let length = libc::socklen_t::try_from(socketcan::CanAddr::len()).map_err(io::Error::other)?;
    // SAFETY: pointer and length describe `address`, which lives until the call returns.
    check(unsafe { libc::bind(socket.as_raw_fd(), address.as_sockaddr_ptr(), length) }.into()).map(|_| ())
}

/// The filters of a CAN socket, at most `most` of them.
///
/// # Errors
///
/// When it is no CAN socket, or has more.
pub fn can_filters(socket: BorrowedFd<'_>, most: usize) -> io::Result<Vec<libc::can_filter>> {
    const EACH: usize = size_of::<libc::can_filter>();
    let mut filters = vec![libc::can_filter { can_id: 0, can_mask: 0 }; most];
    let mut length = libc::socklen_t::try_from(most * EACH).map_err(io::Error::other)?;
    let (fd, place) = (socket.as_raw_fd(), filters.as_mut_ptr().cast());
    // SAFETY: pointer and length describe `filters`, which lives until the call returns; any bits are a filter.
    let got =
        unsafe { libc::getsockopt(fd, libc::SOL_CAN_RAW, libc::CAN_RAW_FILTER, place, &raw mut length) };
    check(got.into())?;
    filters.truncate(usize::try_from(length).map_err(io::Error::other)? / EACH);
    Ok(filters)
}

/// Gives a CAN socket these filters.
///
/// # Errors
///
/// When it is no CAN socket, or they are too many.
pub fn set_can_filters(socket: BorrowedFd<'_>, filters: &[libc::can_filter]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(filters)).map_err(io::Error::other)?;
    let (fd, place) = (socket.as_raw_fd(), filters.as_ptr().cast());
    // SAFETY: pointer and length describe `filters`, which the kernel only reads.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_CAN_RAW, libc::CAN_RAW_FILTER, place, length) };
    check(set.into()).map(|_| ())
}

/// Who sent a frame that a CAN socket received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The very socket it was received on: an echo (`MSG_CONFIRM`).
    ThisSocket,
    /// Another socket of this computer (`MSG_DONTROUTE`).
    AnotherSocket,
    /// No socket of this computer: it came over the wire, or from the interface's driver.
    NoSocket,
}

/// A received frame.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// How many bytes it has.
    pub length: usize,
    /// Who sent it.
    pub sender: Sender,
}

/// Receives one frame without waiting.
///
/// # Errors
///
/// EAGAIN when nothing is there, or what is wrong with the interface.
pub fn receive_frame(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Arrival> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zero is a valid msghdr: no name, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    // SAFETY: `message` points to `part`, which points to `bytes`; all three outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // Source: `net/can/raw.c`, `raw_rcv`.
    let is_set = |flag| message.msg_flags & flag != 0;
    let sender = match (is_set(libc::MSG_CONFIRM), is_set(libc::MSG_DONTROUTE)) {
        (true, _) => Sender::ThisSocket,
        (false, true) => Sender::AnotherSocket,
        (false, false) => Sender::NoSocket,
    };
    Ok(Arrival { length, sender })
}

/// Schedules the calling thread with SCHED_FIFO at that priority; threads it starts are ordinary again. A
/// thread that is scheduled so already is left as it is: a hardened service may not even ask.
///
/// # Errors
///
/// When the system refuses: no CAP_SYS_NICE and no RLIMIT_RTPRIO, or a cgroup without real-time budget.
pub fn set_fifo(priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: libc::c_int::from(priority) };
    if is_fifo(&parameters) {
        return Ok(());
    }
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the structure lives until the call returns; 0 means the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }.into()).map(|_| ())
}

fn is_fifo(wanted: &libc::sched_param) -> bool {
    let mut current = libc::sched_param { sched_priority: 0 };
    // SAFETY: it takes an integer; 0 means the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    // SAFETY: the structure is written to by this call only, and lives until it returns.
    let known = unsafe { libc::sched_getparam(0, &raw mut current) } == 0;
    known
        && policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_FIFO
        && current.sched_priority == wanted.sched_priority
}

/// Schedules the calling thread as ordinary programs are, if it is not.
///
/// # Errors
///
/// When the system refuses: a hardened service may not change what it was started with.
pub fn set_ordinary() -> io::Result<()> {
    // SAFETY: it takes an integer; 0 means the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    if policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_OTHER {
        return Ok(());
    }
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure lives until the call returns; 0 means the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameters) }.into()).map(|_| ())
}

/// What to do when a signal comes, once: then it does again what it does by itself.
///
/// # Errors
///
/// When the signal cannot be taken.
fn on_signal(signal: Signal, handler: SigHandler, masked: SigSet) -> nix::Result<()> {
    // On the thread's other stack, so that it runs after an overflow of the first.
    let flags = SaFlags::SA_ONSTACK | SaFlags::SA_RESETHAND;
    // SAFETY: the only handler passed here (`last_words`) restricts itself to what POSIX calls
    // async-signal-safe: atomic loads, `write` and `raise`.
    unsafe { sigaction(signal, &SigAction::new(handler, flags, masked)) }.map(|_| ())
}

/// What is to be done when a deadly signal comes: its number, and the system call that was forbidden if that is why.
pub type Dying = fn(libc::c_int, Option<libc::c_int>);

/// What [`on_death`] was given.
static DYING: OnceLock<Dying> = OnceLock::new();

/// Has a deadly signal do that first. `act` must be async-signal-safe, and the same for all signals: the first counts.
///
/// # Errors
///
/// When the signal cannot be handled.
pub fn on_death(signal: Signal, act: Dying) -> nix::Result<()> {
    let _ = DYING.set(act);
    on_signal(signal, SigHandler::SigAction(die), SigSet::empty())
}

extern "C" fn die(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel calls a handler with a whole siginfo_t that lives as long as the call.
    let call = unsafe { info.as_ref() }.and_then(forbidden_call);
    if let Some(act) = DYING.get() {
        act(signal, call);
    }
}

/// The system call for which a seccomp filter raised the signal; `None` for any other, and for one that somebody sent.
fn forbidden_call(info: &libc::siginfo_t) -> Option<libc::c_int> {
    // What the kernel tells of SIGSYS begins behind three numbers and, where pointers have 64 bits, a gap: an address, then
    // the number of the call (siginfo_t in the kernel's headers).
    const AT: usize = 3 * size_of::<*const u8>();
    /// `si_code` of a signal that a seccomp filter raised (SYS_SECCOMP).
    const BY_SECCOMP: libc::c_int = 1;
    if info.si_signo != libc::SIGSYS || info.si_code != BY_SECCOMP {
        return None;
    }
    // SAFETY: it is 128 bytes long, and for this signal and code it has this field.
    Some(unsafe { std::ptr::from_ref(info).cast::<u8>().add(AT).cast::<libc::c_int>().read() })
}

/// Raises a signal again from within its own handler: it takes effect when the handler returns.
pub fn raise_again(signal: libc::c_int) {
    // SAFETY: `raise` takes an integer and is async-signal-safe.
    unsafe { libc::raise(signal) };
}

/// Writes bytes to a descriptor, whatever comes of it. For the last moments of a process.
pub fn write_raw(fd: RawFd, bytes: &[u8]) {
    // SAFETY: pointer and length are those of `bytes`; `write` is async-signal-safe and a descriptor that
    // is not open makes it fail.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
}

/// Gives up what programs started from this thread could gain; what is not held cannot be given up.
pub fn drop_capability_bounds() {
    // Numbers above the kernel's last capability are refused, which is as good.
    for capability in 0..64_u64 {
        // SAFETY: prctl with these options takes integers only.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    // SAFETY: as above.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
}

/// Gives up every capability of the calling thread. One that has none does not ask: a hardened service may not.
///
/// # Errors
///
/// When the kernel refuses, which giving up never is.
pub fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: two sets of 32.
    const VERSION: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    let header = Header { version: VERSION, pid: 0 };
    // Effective, permitted, inheritable, twice.
    let none = [0_u32; 6];
    let mut current = [u32::MAX; 6];
    // SAFETY: the kernel reads a header and writes six words, which is what they are; pid 0 is this thread.
    let known = unsafe { libc::syscall(libc::SYS_capget, &raw const header, current.as_mut_ptr()) } == 0;
    if known && current == none {
        return Ok(());
    }
    // SAFETY: the kernel reads a header and six words, which is what they are; pid 0 is this thread.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(|_| ())
}

/// Has all threads allocate from one heap. The C library would give housekeeping one of its own, 64 MB of addresses
/// that count as locked memory; and the real-time thread, for whose sake it would be, does not allocate. Nothing goes back
/// to the kernel either: that takes a system call, which may be forbidden to the thread that happens to free the last piece.
pub fn share_heap() {
    // SAFETY: each takes two integers. A refusal leaves things as they are.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    };
}

/// Gives the free pages at the heap's end back to the kernel: reading the configuration leaves more of them than all that comes
/// later needs, and they would be locked for life. Those between pieces in use are read in again when memory is locked.
pub fn trim_heap() {
    // SAFETY: it takes an integer, and touches nothing that is allocated.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    };
}

/// Touches as much stack as the thread will use, so that no page fault comes later.
#[inline(never)]
pub fn prefault_stack() {
    /// Three times what the deepest path was seen to use in a debug build (about 20 KiB).
    const BYTES: usize = 64 * 1024;
    let mut stack = [0_u8; BYTES];
    for byte in stack.iter_mut().step_by(1024) {
        // SAFETY: a volatile store to our own array, so that the compiler keeps it.
        unsafe { std::ptr::write_volatile(byte, 1) };
    }
}

/// How many bytes can be read from a descriptor at once.
///
/// # Errors
///
/// When it is nothing that could be read.
pub fn unread(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the request writes one int, which lives until the call returns.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) }.into())?;
    usize::try_from(count).map_err(io::Error::other)
}

/// Takes ownership of a descriptor that `accept` has just returned.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes a descriptor that `accept` or `recvmsg` has just made, known to nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The CAN broadcast manager among the protocols of PF_CAN (linux/can.h).
const CAN_BCM: libc::c_int = 2;

/// A socket for jobs that the kernel does by itself: CAN_BCM, non-blocking, not yet connected.
///
/// # Errors
///
/// When the kernel has no CAN or no broadcast manager.
pub fn bcm_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes three integers and touches no memory of ours.
    let fd = check(unsafe { libc::socket(libc::PF_CAN, kind, CAN_BCM) }.into())?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor; nobody else here knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of the interface that a CAN_RAW socket is bound to; 0 when that interface was removed.
///
/// # Errors
///
/// When it is no CAN socket.
pub fn interface_of(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: all bytes zero are a `sockaddr_can`, which is numbers throughout.
    let mut address: libc::sockaddr_can = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: pointer and length describe `address`, which lives until the call returns.
    let code = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
    check(code.into())?;
    u32::try_from(address.can_ifindex).map_err(io::Error::other)
}

/// Connects a broadcast manager socket to the interface with that number: all its jobs send there.
///
/// # Errors
///
/// When there is no such interface, it is no CAN interface, or the socket is connected to one that exists.
pub fn connect_can(socket: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    let address = socketcan::CanAddr::new(interface);
    let length = libc::socklen_t::try_from(socketcan::CanAddr::len()).map_err(io::Error::other)?;
    // SAFETY: pointer and length describe `address`, which lives until the call returns.
    check(unsafe { libc::connect(socket.as_raw_fd(), address.as_sockaddr_ptr(), length) }.into()).map(|_| ())
}

/// Splits the process in two.
///
/// # Errors
///
/// When this process already has threads, or the system has no room for another process.
pub fn fork() -> io::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other("a process with threads cannot be split"));
    }
    // SAFETY: there is one thread, this one: no lock can be held by a thread that the child does not have.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Closes every descriptor of this process but the standard ones and those given, whoever opened them. Only
/// for a process that goes on to use nothing but those, and never returns to who believes to own others.
///
/// # Errors
///
/// When the kernel is older than 5.9.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<libc::c_uint> =
        kept.iter().filter_map(|fd| libc::c_uint::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut first: libc::c_uint = 3;
    for end in kept.into_iter().chain([libc::c_uint::MAX]) {
        if first < end {
            let last = if end == libc::c_uint::MAX { end } else { end - 1 };
            // SAFETY: close_range takes three integers. What it closes is used by nobody afterwards: that is
            // the caller's promise, and a descriptor that is used all the same only yields EBADF.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
        first = end.saturating_add(1);
    }
    Ok(())
}

/// Asks a watchdog device to wait that long, seconds; returns what it took.
///
/// # Errors
///
/// When it is no watchdog (`ENOTTY`), or cannot be set (`EOPNOTSUPP`).
pub fn watchdog_set_timeout(device: BorrowedFd<'_>, seconds: libc::c_int) -> io::Result<libc::c_int> {
    /// `_IOWR('W', 6, int)` of linux/watchdog.h.
    const WDIOC_SETTIMEOUT: libc::Ioctl = 0xC004_5706_u32 as libc::Ioctl;
    watchdog_number(device, WDIOC_SETTIMEOUT, seconds)?;
    watchdog_timeout(device)
}

/// How long a watchdog device waits, seconds.
///
/// # Errors
///
/// When it is no watchdog.
pub fn watchdog_timeout(device: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    /// `_IOR('W', 7, int)` of linux/watchdog.h.
    const WDIOC_GETTIMEOUT: libc::Ioctl = 0x8004_5707_u32 as libc::Ioctl;
    watchdog_number(device, WDIOC_GETTIMEOUT, 0)
}

fn watchdog_number(
    device: BorrowedFd<'_>,
    request: libc::Ioctl,
    number: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut number = number;
    // SAFETY: both requests read or write one int, which lives until the call returns.
    check(unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut number) }.into())?;
    Ok(number)
}

/// Takes ownership of a descriptor that was open when this program began; `None` if it is not open.
pub fn inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: the command takes two integers; on a number that is no open descriptor it fails. Close-on-exec,
    // because nothing this program might ever start has to do with it.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }.into()).ok()?;
    // SAFETY: it is open, and by systemd's convention it is this program's; its only reader of that convention
    // calls this once for each number.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
