//! What makes a thread a real-time one, and what keeps the machine from delaying it.
//!
//! Each step that the system refuses is said, with what to do, and weakens a promise: its bit is published
//! as `degraded`. None of them keeps the supervisor from starting: a robot with a degraded supervisor is
//! still better watched than one with none.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::Pid;
use shm_proto::verdicts::Degraded;

use crate::kernel_stop::limit_loops;
use crate::{log, sys};

/// Locks all memory: the present one is read in. Of what comes until [`lock_later_memory_whole`], only what is touched: these are
/// the stacks of ordinary threads, most of whose pages are never needed.
pub fn lock_memory() -> u64 {
    // Only root may; otherwise the limit stays what the service was given.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    sys::trim_heap();
    // nix does not name it.
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let present = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE);
    // What is locked stays so: without MCL_CURRENT the kernel takes flags for new mappings alone.
    match present.and_then(|()| mlockall(MlockAllFlags::MCL_FUTURE | on_fault)) {
        Ok(()) => 0,
        Err(error) => {
            log::line(&format!(
                "WARNING: degraded: memory cannot be locked ({error}); page faults may delay a stop. Give \
                 the service LimitMEMLOCK=infinity"
            ));
            Degraded::Memory.number()
        }
    }
}

/// Has what is mapped from now on read in as a whole, and locked: a front's segments, which the real-time thread reads. While pages
/// are locked as they are touched, the kernel reads in none, whatever whoever maps them asks for.
pub fn lock_later_memory_whole() -> u64 {
    match mlockall(MlockAllFlags::MCL_FUTURE) {
        Ok(()) => 0,
        Err(error) => {
            log::line(&format!(
                "WARNING: degraded: memory of fronts to come cannot be locked ({error}); page faults may delay a stop"
            ));
            Degraded::Memory.number()
        }
    }
}

/// Keeps idle CPUs from sleeping so deeply that they wake late, for as long as the file is held.
///
/// A kernel without that file does not let CPUs sleep deeply.
pub fn limit_cpu_sleep() -> (Option<File>, u64) {
    const PATH: &str = "/dev/cpu_dma_latency";
    let held = OpenOptions::new().write(true).open(PATH).and_then(|mut file| {
        // The longest wake-up latency that is accepted, microseconds.
        file.write_all(&0_i32.to_ne_bytes())?;
        Ok(file)
    });
    match held {
        Ok(file) => (Some(file), 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (None, 0),
        Err(error) => {
            log::line(&format!(
                "WARNING: degraded: {PATH}: {error}; an idle CPU may sleep deeply and wake late. Run as \
                 root, or give the service's user write access to it"
            ));
            (None, Degraded::Latency.number())
        }
    }
}

/// Pins the calling thread, unless it is pinned there already: a hardened service may not even ask.
fn pin(cpu: usize) -> nix::Result<()> {
    let this = Pid::from_raw(0);
    let mut set = CpuSet::new();
    set.set(cpu)?;
    if sched_getaffinity(this).is_ok_and(|current| current == set) {
        return Ok(());
    }
    sched_setaffinity(this, &set)
}

/// Sets the fuse of the calling thread, which is the real-time one: see [`limit_loops`].
pub fn set_fuse(kernel_stop: Duration) -> u64 {
    // What a thread has run without sleeping counts from before there was a limit: starting may take longer.
    std::thread::sleep(Duration::from_millis(1));
    match limit_loops(kernel_stop) {
        Ok(()) => 0,
        Err(error) => {
            log::line(&format!(
                "WARNING: degraded: a busy loop of the real-time thread would not be ended ({error}) and could \
                 keep the kernel from stopping the motors. Do not lower RLIMIT_RTTIME for it (LimitRTTIME=)"
            ));
            Degraded::KernelStop.number()
        }
    }
}

/// Makes the calling thread one that real-time threads need not wait for, whatever the process was started as.
pub fn become_ordinary() -> u64 {
    match sys::set_ordinary() {
        Ok(()) => 0,
        Err(error) => {
            log::line(&format!(
                "WARNING: degraded: housekeeping runs at real-time priority ({error}) and may delay a stop. Give \
                 the service CPUSchedulingResetOnFork=yes"
            ));
            Degraded::Scheduling.number()
        }
    }
}

/// Makes the calling thread the real-time one.
pub fn become_real_time(cpu: Option<usize>, priority: u8) -> u64 {
    let mut degraded = 0;
    if let Some(cpu) = cpu
        && let Err(error) = pin(cpu)
    {
        log::line(&format!(
            "WARNING: degraded: cannot pin to cpu {cpu} ({error}); other work may delay a stop. Choose a CPU \
             this machine has in [supervisor] cpu, and give the service CPUAffinity={cpu}"
        ));
        degraded |= Degraded::Affinity.number();
    }
    if let Err(error) = sys::set_fifo(priority) {
        log::line(&format!(
            "WARNING: degraded: no SCHED_FIFO at priority {priority} ({error}); busy programs may delay a stop. \
             Run as root, or give the service CPUSchedulingPolicy=fifo and CPUSchedulingPriority={priority}"
        ));
        degraded |= Degraded::Scheduling.number();
    }
    sys::prefault_stack();
    degraded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::Command;

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

    use super::{CpuSet, Pid, become_ordinary, pin, sched_getaffinity, sched_setaffinity, sys};

    /// Says to [`child`] that it is one.
    const ORDER: &str = "LANYARD_TEST_HARDENED";
    /// What [`child`] ends with when all is well.
    const WELL: i32 = 42;

    /// What the unit of systemd forbids: to change priority, processor or capabilities.
    fn forbid_asking() {
        let calls = [
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setparam,
            libc::SYS_capset,
        ];
        let rules: BTreeMap<_, _> = calls.into_iter().map(|call| (call, Vec::new())).collect();
        let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let architecture = std::env::consts::ARCH.try_into().expect("a known architecture");
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, eperm, architecture).expect("a filter");
        let program: BpfProgram = filter.try_into().expect("a program");
        seccompiler::apply_filter(&program).expect("the kernel takes it");
    }

    /// Does nothing in an ordinary run. In its own process, it is set up as systemd would, and then may not ask.
    #[test]
    fn child() {
        if std::env::var_os(ORDER).is_none() {
            return;
        }
        let this = Pid::from_raw(0);
        let all = sched_getaffinity(this).expect("a mask");
        let cpu = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false)).expect("a processor");
        let mut one = CpuSet::new();
        one.set(cpu).expect("it is one");
        sched_setaffinity(this, &one).expect("anybody may");
        // Only who may has real-time priority; who may not shows the rest.
        let real_time = sys::set_fifo(1).is_ok();
        sys::drop_capabilities().expect("anybody may");
        forbid_asking();
        assert_eq!(pin(cpu), Ok(()), "pinned there already");
        assert!(pin(cpu + 1).is_err(), "not pinned there");
        assert!(sys::drop_capabilities().is_ok(), "it has none");
        if real_time {
            assert!(sys::set_fifo(1).is_ok(), "it has that priority already");
            assert!(sys::set_fifo(2).is_err(), "it has another");
            // Threads are ordinary again, as CPUSchedulingResetOnFork= makes them.
            assert_eq!(std::thread::spawn(become_ordinary).join().expect("no panic"), 0);
            assert!(sys::set_ordinary().is_err(), "it is not");
        } else {
            assert!(sys::set_fifo(1).is_err(), "it has no such priority");
            assert_eq!(become_ordinary(), 0);
        }
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(WELL) };
    }

    /// Fails if a supervisor that systemd has given everything asks for it again, which the unit forbids; or is content
    /// with something else.
    #[test]
    fn what_systemd_has_given_is_not_asked_for() {
        let program = std::env::current_exe().expect("this program");
        let arguments = ["--exact", "realtime::tests::child", "--test-threads=1"];
        let output = Command::new(program).args(arguments).env(ORDER, "").output().expect("the child starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(WELL), "{said}");
    }
}
