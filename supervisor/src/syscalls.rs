//! The system calls each thread may make once it is armed; any other ends the process, stops first.
//!
//! A forbidden call raises SIGSYS, whose handler sends the stops (`last_words`). So a supervisor that was
//! taken over by a fault cannot open files or sockets, start programs or map code, and one that was changed
//! by mistake fails its first test.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use shm_proto::verdicts::Degraded;

use crate::latches::DRAFT_FLAGS;
use crate::log;

/// What every thread needs: the clock where it is no plain memory read, and an orderly death.
const EVERY: &[c_long] = &[
    libc::SYS_clock_gettime,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_ppoll,
    // Goes on with a wait after the process was stopped and continued.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sendto,
    libc::SYS_tgkill,
    // CAN frames out; the last line on standard error.
    libc::SYS_write,
];

/// The real-time thread: frames in, signals, its own account.
const REAL_TIME: &[c_long] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_getrusage,
    libc::SYS_read,
    libc::SYS_recvmsg,
];

/// What threads that are not real-time need besides: memory, an orderly end of a thread.
const ORDINARY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
];

/// A door: its peers, and the hand-over of shared memory.
const DOOR: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_getsockopt,
    libc::SYS_memfd_create,
    libc::SYS_newfstatat,
    libc::SYS_pidfd_open,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_statx,
    libc::SYS_writev,
];

/// Housekeeping: interfaces that come back, words to systemd.
const HOUSEKEEPING: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_fcntl,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    // What lies in the FIFO of the operator's stop.
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    // Filters of a CAN socket whose interface came back.
    libc::SYS_setsockopt,
    libc::SYS_unlinkat,
    libc::SYS_writev,
];

/// The thread that writes what waits for a reset: a draft, which takes the place of the file. What it opens and renames is
/// bound to the folder, see [`confine_disk`].
const DISK: &[c_long] = &[libc::SYS_fsync];

/// Calls that the C library of this architecture still makes by their old names.
#[cfg(target_arch = "x86_64")]
const OLD_NAMES: &[c_long] = &[libc::SYS_poll, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const OLD_NAMES: &[c_long] = &[];

/// Allows the calling thread nothing but what the armed real-time loop needs.
pub fn confine_real_time() -> u64 {
    confine(&[EVERY, REAL_TIME], Vec::new())
}

/// Allows the calling thread nothing but what housekeeping needs; memory it maps cannot hold code, and of devices it can
/// only ask how much there is to read.
pub fn confine_housekeeping() -> u64 {
    let on_condition = [
        (libc::SYS_mmap, not_executable()),
        (libc::SYS_mprotect, not_executable()),
        (libc::SYS_ioctl, asks_what_is_unread()),
    ];
    confine(&[EVERY, ORDINARY, HOUSEKEEPING, OLD_NAMES], on_condition.into())
}

/// Allows the calling thread nothing but to make new files in the folder with that descriptor, to rename and to remove
/// files there, and to wait until the disk has them. Without a folder nothing of that either.
pub fn confine_disk(folder: Option<RawFd>) -> u64 {
    let mut on_condition = vec![
        (libc::SYS_mmap, not_executable()),
        (libc::SYS_mprotect, not_executable()),
        (libc::SYS_fcntl, looks_at_a_descriptor()),
    ];
    if let Some(folder) = folder {
        on_condition.extend([
            (libc::SYS_openat, makes_a_file_in(folder)),
            (libc::SYS_unlinkat, is_in(folder, &[0])),
            (libc::SYS_renameat, is_in(folder, &[0, 2])),
            (libc::SYS_renameat2, is_in(folder, &[0, 2])),
        ]);
    }
    confine(&[EVERY, ORDINARY, DISK], on_condition)
}

/// Allows the calling thread nothing but to write to descriptors that are open: what a recording's file needs.
pub fn confine_recording() -> u64 {
    let on_condition = [(libc::SYS_mmap, not_executable()), (libc::SYS_mprotect, not_executable())];
    confine(&[EVERY, ORDINARY], on_condition.into())
}

/// Allows the calling thread nothing but what a door needs; memory it maps cannot hold code.
pub fn confine_door() -> u64 {
    let on_condition = [(libc::SYS_mmap, not_executable()), (libc::SYS_mprotect, not_executable())];
    confine(&[EVERY, ORDINARY, DOOR, OLD_NAMES], on_condition.into())
}

/// What the arguments of a call must be.
type Condition = Result<SeccompRule, seccompiler::BackendError>;

fn confine(allowed: &[&[c_long]], on_condition: Vec<(c_long, Condition)>) -> u64 {
    let applied = program(allowed, on_condition).and_then(|program| {
        // Never freed: from the moment it is in force the real-time thread may not touch the heap.
        let program = ManuallyDrop::new(program);
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())
    });
    match applied {
        Ok(()) => 0,
        Err(error) => {
            log::line(&format!(
                "WARNING: degraded: system calls cannot be restricted ({error}); this kernel lacks \
                 CONFIG_SECCOMP_FILTER"
            ));
            Degraded::SystemCalls.number()
        }
    }
}

fn program(allowed: &[&[c_long]], on_condition: Vec<(c_long, Condition)>) -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    for call in allowed.iter().copied().flatten() {
        rules.insert(*call, Vec::new());
    }
    for (call, condition) in on_condition {
        rules.insert(call, vec![condition.map_err(|error| error.to_string())?]);
    }
    let architecture = std::env::consts::ARCH.try_into().map_err(|_| "unknown architecture".to_owned())?;
    SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, architecture)
        .and_then(TryInto::try_into)
        .map_err(|error| error.to_string())
}

/// The third argument of `mmap` and `mprotect` lacks PROT_EXEC.
fn not_executable() -> Condition {
    const EXECUTABLE: c_int = libc::PROT_EXEC;
    let mask = u64::from(EXECUTABLE.unsigned_abs());
    let condition = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), 0)?;
    SeccompRule::new(vec![condition])
}

/// The second argument of `ioctl` is FIONREAD.
fn asks_what_is_unread() -> Condition {
    #[allow(clippy::useless_conversion, reason = "32 bits wide on some processors")]
    let request = libc::FIONREAD.into();
    let wanted = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?;
    SeccompRule::new(vec![wanted])
}

/// These arguments are the folder's descriptor. A path from the root would leave it, which the kernel cannot be asked to
/// see here; what this user may write at all is the service's affair (ProtectSystem=strict).
fn is_in(folder: RawFd, arguments: &[u8]) -> Condition {
    SeccompRule::new(arguments.iter().map(|at| equals(*at, folder)).collect::<Result<_, _>>()?)
}

/// A file is made that was not there: none that is there can be opened, be it for reading.
fn makes_a_file_in(folder: RawFd) -> Condition {
    /// What C libraries add for files larger than 2 GB, as the kernel numbers it. It gives no right.
    const LARGE_FILE: u32 = if cfg!(target_arch = "aarch64") { 0o400_000 } else { 0o100_000 };
    let wanted = u64::from(bits(DRAFT_FLAGS.bits()) & !LARGE_FILE);
    let mask = SeccompCmpOp::MaskedEq(u64::from(!LARGE_FILE));
    let flags = SeccompCondition::new(2, SeccompCmpArgLen::Dword, mask, wanted)?;
    SeccompRule::new(vec![equals(0, folder)?, flags])
}

/// The second argument of `fcntl` is F_GETFD: the standard library's own check before it closes a descriptor.
fn looks_at_a_descriptor() -> Condition {
    SeccompRule::new(vec![equals(1, libc::F_GETFD)?])
}

fn equals(argument: u8, value: c_int) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(bits(value)))
}

/// A number of 32 bits as the kernel's filter compares it.
const fn bits(value: c_int) -> u32 {
    u32::from_ne_bytes(value.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    use nix::fcntl::{AT_FDCWD, OFlag};

    use super::{
        DRAFT_FLAGS, confine_disk, confine_door, confine_housekeeping, confine_real_time, confine_recording,
    };
    use crate::latches::{Disk, Store};
    use crate::privileges::Become;

    /// Says to [`child`] which thread to play and what to try.
    const ORDER: &str = "LANYARD_TEST_SYSTEM_CALL";
    /// Says to it where there is a folder of its own.
    const FOLDER: &str = "LANYARD_TEST_FOLDER";

    /// Runs this very test program again, with only [`child`] in it.
    fn play(order: &str) -> ExitStatus {
        let program = std::env::current_exe().expect("this program");
        let arguments = ["--exact", "syscalls::tests::child", "--test-threads=1"];
        let folder = std::env::temp_dir().join(format!("lanyard-confined-{}", std::process::id()));
        let mut command = Command::new(program);
        let command = command.args(arguments).env(ORDER, order).env(FOLDER, &folder);
        let status = command.output().expect("the child starts").status;
        let _ = std::fs::remove_dir_all(folder);
        status
    }

    /// Does nothing in an ordinary run.
    #[test]
    fn child() {
        let Ok(order) = std::env::var(ORDER) else { return };
        let Some((thread, deed)) = order.split_once(' ') else { panic!("{order}") };
        // While one may still be made.
        let (before, _writer) = nix::unistd::pipe().expect("a pipe");
        let path = std::env::var_os(FOLDER).expect("the parent says where");
        let path = std::path::Path::new(&path);
        let (store, _) = Store::open(path, Become::SamePerson);
        let folder = nix::fcntl::openat(AT_FDCWD, path, OFlag::O_DIRECTORY, nix::sys::stat::Mode::empty());
        let folder = folder.expect("the store has made it");
        store.write(b"before").expect("a folder of its own");
        let refused = match thread {
            "real-time" => confine_real_time(),
            "disk" => confine_disk(store.number()),
            "none" => 0,
            "housekeeping" => confine_housekeeping(),
            "door" => confine_door(),
            "recording" => confine_recording(),
            other => panic!("{other}"),
        };
        assert_eq!(refused, 0);
        match deed {
            "socket" => {
                _ = nix::sys::socket::socket(
                    nix::sys::socket::AddressFamily::Inet,
                    nix::sys::socket::SockType::Stream,
                    nix::sys::socket::SockFlag::empty(),
                    None,
                )
            }
            "open" => _ = std::fs::File::open("/dev/null"),
            "exec" => _ = nix::unistd::execv(c"/bin/true", &[c"true"]),
            "draft" => store.write(b"latches").expect("the disk's thread may"),
            "disk's end" => {
                drop(Disk::start(store));
                // A thread that makes a forbidden call ends all of them.
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
            "elsewhere" => {
                let flags = DRAFT_FLAGS;
                _ = nix::fcntl::openat(
                    AT_FDCWD,
                    "/tmp/lanyard-elsewhere",
                    flags,
                    nix::sys::stat::Mode::empty(),
                );
            }
            "read" => {
                _ = nix::fcntl::openat(&folder, "latches", OFlag::O_RDONLY, nix::sys::stat::Mode::empty())
            }
            "rename" => _ = nix::fcntl::renameat(&folder, "latches", AT_FDCWD, "/tmp/lanyard-elsewhere"),
            "thread" => _ = std::thread::Builder::new().spawn(|| ()),
            "kill" => _ = nix::sys::signal::kill(nix::unistd::Pid::this(), None),
            "code" => {
                let length = std::num::NonZeroUsize::MIN;
                let prot = nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_EXEC;
                let flags = nix::sys::mman::MapFlags::MAP_PRIVATE;
                // SAFETY: a fresh mapping that nobody uses.
                _ = unsafe { nix::sys::mman::mmap_anonymous(None, length, prot, flags) };
            }
            "memfd" => shm_proto::memory::create("test", 8).map(drop).expect("a door may"),
            "unread" => assert_eq!(crate::sys::unread(before.as_fd()).ok(), Some(0)),
            "terminal" => _ = std::io::IsTerminal::is_terminal(&std::io::stdin()),
            "clock" => _ = shm_proto::Nanos::now(),
            other => panic!("{other}"),
        }
        // Whoever comes here was allowed; without the test harness's own needs.
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(42) };
    }

    #[test]
    fn what_is_not_needed_is_deadly() {
        for thread in ["real-time", "housekeeping", "door", "disk", "recording"] {
            for deed in ["socket", "open", "exec", "thread", "kill", "code"] {
                let status = play(&format!("{thread} {deed}"));
                assert_eq!(status.signal(), Some(libc::SIGSYS), "{thread}: {deed}: {status}");
            }
            assert_eq!(play(&format!("{thread} clock")).code(), Some(42), "{thread}");
        }
        // Files are for one thread, and of them only new ones in the folder.
        assert_eq!(play("disk draft").code(), Some(42));
        for order in [
            "disk elsewhere",
            "disk read",
            "disk rename",
            "disk memfd",
            "housekeeping draft",
            "real-time draft",
            "recording draft",
            "recording memfd",
            "recording unread",
        ] {
            assert_eq!(play(order).signal(), Some(libc::SIGSYS), "{order}");
        }
        assert_eq!(
            play("none disk's end").code(),
            Some(42),
            "the end of housekeeping is not the disk's thread's"
        );
        assert_eq!(play("real-time memfd").signal(), Some(libc::SIGSYS));
        assert_eq!(play("housekeeping memfd").signal(), Some(libc::SIGSYS));
        assert_eq!(play("door memfd").code(), Some(42));
        assert_eq!(play("door unread").signal(), Some(libc::SIGSYS));
        // Of a device housekeeping may ask how much there is to read, and nothing else; the other thread not even that.
        assert_eq!(play("housekeeping unread").code(), Some(42));
        assert_eq!(play("housekeeping terminal").signal(), Some(libc::SIGSYS));
        assert_eq!(play("real-time unread").signal(), Some(libc::SIGSYS));
    }
}
