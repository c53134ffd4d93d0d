//! What makes a thread a real-time one, and what keeps the machine from delaying it.
//!
//! Each step that the system refuses is said, with what to do, and weakens a promise: its bit is published
//! as `degraded`. None of them keeps the supervisor from starting: a robot with a degraded supervisor is
//! still better watched than one with none.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::Pid;
use shm_proto::verdicts::Degraded;

use crate::{log, sys};

/// Locks all memory, present and future.
pub fn lock_memory() -> u64 {
    // Only root may; otherwise the limit stays what the service was given.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    match mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
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

/// Makes the calling thread the real-time one.
pub fn become_real_time(cpu: Option<usize>, priority: u8) -> u64 {
    let mut degraded = 0;
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        if let Err(error) = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)) {
            log::line(&format!(
                "WARNING: degraded: cannot pin to cpu {cpu} ({error}); other work may delay a stop. Choose a \
                 CPU this machine has in [supervisor] cpu"
            ));
            degraded |= Degraded::Affinity.number();
        }
    }
    if let Err(error) = sys::set_fifo(priority) {
        log::line(&format!(
            "WARNING: degraded: no SCHED_FIFO ({error}); any busy program may delay a stop. Run as root, \
             or give the service CPUSchedulingPolicy=fifo or LimitRTPRIO={priority}"
        ));
        degraded |= Degraded::Scheduling.number();
    }
    sys::prefault_stack();
    degraded
}
