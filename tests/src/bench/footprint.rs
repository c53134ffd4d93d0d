//! What a supervisor costs the computer: processor time, memory, and what its real-time thread promised not to do.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::time::TimeSpec;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use shm_proto::Capacity;
use shm_proto::handover;
use shm_proto::verdicts::{Counter, SessionState};
use tests::readings::{kib, private_kib};

use super::child::Background;
use super::figures::Figures;
use super::supervise::{self, Program, Supervisor};
use super::{beats, progress};

/// What processor time is measured with.
pub const CPU: &[&str] = &["supervisor.cpu_percent."];

/// How both shared segments are named in a list of mappings.
const SHARED: &str = "/memfd:lanyard-";
/// Until all sessions are noticed and every first deadline is long past.
const WARM_UP: Duration = Duration::from_millis(2_500);
/// Time over which processor time is counted.
const SPAN: Duration = Duration::from_secs(5);

/// Processor time with 1, 64 and 1024 sessions that beat, as percent of one core. Both threads count.
///
/// # Errors
/// A process does not come up, or loses a session.
pub fn cpu(figures: &mut Figures) -> Result<()> {
    for sessions in [1, 64, Capacity::MOST_SESSIONS] {
        progress(&format!("processor time with {sessions} sessions"));
        let room = sessions.max(Capacity::DEFAULT.sessions());
        let supervisor = supervise::start(Program::Sink, room, "127.0.0.1:0")?;
        let _beats = beats::start(&supervisor.file, sessions)?;
        sleep(WARM_UP);
        let (begun, before) = (Instant::now(), processor_time(&supervisor.process)?);
        sleep(SPAN);
        let used = processor_time(&supervisor.process)?.saturating_sub(before);
        let percent = 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64();
        anyhow::ensure!(live_sessions(&supervisor)? == usize::from(sessions), "a session was lost");
        figures.note(format!("supervisor.cpu_percent.{sessions}"), percent);
    }
    Ok(())
}

/// What a process has used of all processors, by its own processor clock: ticks of /proc/PID/stat miss a thread that
/// runs for microseconds.
///
/// # Errors
/// It has ended.
pub fn processor_time(process: &Background) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(process.pid())?);
    let time: TimeSpec = clock_gettime(clock_getcpuclockid(pid)?)?;
    Ok(time.into())
}

fn live_sessions(supervisor: &Supervisor) -> Result<usize> {
    let verdicts = handover::observe(&supervisor.config.supervisor.socket)?;
    let live = |slot: &_| verdicts.session_state(*slot).1 == SessionState::Live;
    Ok(verdicts.capacity().slots().filter(live).count())
}

/// Memory of the real supervisor on a CAN interface: all that is resident at the default capacity, and what is its
/// alone with as many sessions as there can be.
///
/// # Errors
/// A process does not come up.
pub fn memory(program: &Path, interface: &str, figures: &mut Figures) -> Result<()> {
    let default = Capacity::DEFAULT.sessions();
    let supervisor = supervise::start(Program::Real(program, interface), default, "127.0.0.1:0")?;
    let running = beats::start(&supervisor.file, default)?;
    sleep(WARM_UP);
    figures.note("supervisor.rss_kib", kib(&file_of(&supervisor, "status")?, "VmRSS:")?);
    drop((running, supervisor));

    let most = Capacity::MOST_SESSIONS;
    let supervisor = supervise::start(Program::Real(program, interface), most, "127.0.0.1:0")?;
    let _running = beats::start(&supervisor.file, most)?;
    sleep(WARM_UP);
    anyhow::ensure!(live_sessions(&supervisor)? == usize::from(most), "a session was lost");
    figures.note("supervisor.private_kib.1024", private_kib(&file_of(&supervisor, "smaps")?, SHARED)?);
    let verdicts = handover::observe(&supervisor.config.supervisor.socket)?;
    #[expect(clippy::cast_precision_loss, reason = "counters that ought to be 0")]
    let count = |counter| verdicts.counter(counter) as f64;
    figures.note("supervisor.faults", count(Counter::MinorFaults) + count(Counter::MajorFaults));
    figures.note("supervisor.allocations", count(Counter::Allocations));
    Ok(())
}

fn file_of(supervisor: &Supervisor, name: &str) -> Result<String> {
    let path = format!("/proc/{}/{name}", supervisor.process.pid());
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}
