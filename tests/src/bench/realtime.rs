//! The real-time thread as the supervisor starts it, with something else in the place of CAN interfaces.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, anyhow};
use config::Config;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use shm_proto::verdicts::Identity;
use shm_proto::{Nanos, VerdictSegment, VerdictView};
use supervisor::intake::Intake;
use supervisor::kernel_stop::KernelStop;
use supervisor::queue::{self, Requesters};
use supervisor::runtime::{Ports, Presses, Runtime};
use supervisor::{realtime, start};

/// The priority of what is measured, ours and cyclictest's: the supervisor's default.
pub const PRIORITY: u8 = 80;

/// The CPU the real-time thread and cyclictest run on: the last one, because interrupts and everything that
/// nobody pinned tend to the first.
pub fn last_cpu() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) - 1
}

/// Pins the calling thread to a CPU.
///
/// # Errors
/// There is no such CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot pin to CPU {cpu}"))
}

/// What is left in our hands of a real-time thread that runs.
#[derive(Debug)]
pub struct Armed {
    /// What it publishes.
    pub verdicts: VerdictView,
    /// The same, to hand out.
    pub verdicts_fd: OwnedFd,
    /// To it, and from it.
    pub requesters: Requesters,
    /// Keeps idle CPUs from sleeping deeply, as the supervisor and cyclictest do.
    _cpu_sleep_limit: Option<File>,
}

/// Starts it: memory locked, pinned, SCHED_FIFO, stack pre-faulted, in the order of `supervisor::start`.
/// `ports` must have one bus for each of the configuration's.
///
/// # Errors
/// The system refuses any of it: a figure from a thread that is not real-time would be worthless.
pub fn arm<P: Ports + Send + 'static>(
    config: &Config,
    ports: P,
    stop: Option<BorrowedFd<'_>>,
) -> Result<Armed> {
    let signals = start::take_signals()?;
    let names: Vec<&str> = config.motors.iter().map(|motor| motor.name.as_str()).collect();
    let bus_names: Vec<&str> = config.buses.iter().map(|bus| bus.name.as_str()).collect();
    let identity = Identity {
        config_hash: config.hash,
        pid: std::process::id(),
        started: Nanos::now(),
        policy: config.supervisor.reset,
    };
    let capacity = config.supervisor.capacity;
    let (segment, verdicts_fd) = VerdictSegment::create(capacity, &identity, &names, &bus_names)?;
    let verdicts = VerdictView::map(verdicts_fd.as_fd(), capacity)?;
    anyhow::ensure!(realtime::lock_memory() == 0, "memory cannot be locked; run the benchmark as root");

    let (cpu_sleep_limit, _) = realtime::limit_cpu_sleep();
    let core = start::build_core(config, ports.count(), segment);
    let (requesters, responders) = queue::connect();
    let kernel_stop = KernelStop::none();
    let mut wakeups = ports.wakeups(&signals)?;
    stop.map_or(Ok(()), |stop| wakeups.watch_stop(stop))?;
    let mut runtime = Runtime {
        core,
        buses: ports,
        responders,
        wakeups,
        signals,
        front: None,
        kernel_stop,
        presses: Presses::default(),
        intake: Intake::NOTHING_READ,
    };
    let (cpu, priority) = (config.supervisor.cpu, config.supervisor.priority);
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name("lanyard-rt".to_owned()).stack_size(start::STACK).spawn(move || {
        let degraded = realtime::become_real_time(cpu, priority);
        runtime.core.degraded(degraded);
        let _ = ready.send(degraded);
        runtime.run();
    })?;
    match is_ready.recv() {
        Ok(0) => Ok(Armed { verdicts, verdicts_fd, requesters, _cpu_sleep_limit: cpu_sleep_limit }),
        _ => Err(anyhow!("the thread was not made real-time (see above); run the benchmark as root")),
    }
}
