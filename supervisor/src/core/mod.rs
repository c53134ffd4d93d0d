//! What the supervisor decides: a state machine without I/O, clocks or threads.
//!
//! What lives here: sessions and their deadlines, motors and their stops, trips, grants, resets. Inputs
//! are the present moment, the front's beats (read through [`shm_proto::BeatView`]), received frames and
//! operator commands; outputs are frames handed to a [`Wire`] and words in the verdict segment.
//!
//! What must never live here: a system call, be it for the clock (time comes in as a parameter, and how long a pass takes
//! through [`Wire::now`]), an allocation after [`Core::new`], a lock, a log line, or
//! anything that waits. Every pass over sessions or motors is bounded by their number.
//!
//! What must hold whatever the inputs were is in `invariants`; debug builds look at it after every step.
//!
//! To see what happens on expiry, read [`Core::step`], then `Core::trip_session`.

mod arrival;
mod evidence;
mod foreign_stops;
mod grants;
mod health;
mod heard;
mod heartbeats;
mod inherited;
mod invariants;
mod latches;
mod motor;
mod origin;
mod plausibility;
mod rest;
mod sessions;
mod together;
mod trips;
mod unpowered;
pub mod wire;

use drivers::{Frame, FrameList};
use shm_proto::beat::Reject;
use shm_proto::beats::SlotReader;
use shm_proto::verdicts::{BusVerdict, Counter, Event, EventKind, Phase, Reason, ResetPolicy};
use shm_proto::{BeatView, MotorIndex, Nanos, Owner, TripId, VerdictSegment, Window};

pub use arrival::Arrival;
pub use health::Report;
pub use heartbeats::Periodic;
pub use inherited::{Inheritance, Inherited};
pub use latches::Kept;
pub use motor::{Latch, Motor};
pub use origin::Origin;
pub use plausibility::SpeedLimits;
pub use trips::ResetRefused;
pub use wire::{SendError, Wire};

use sessions::Sessions;
use together::Broadcast;

use crate::kernel_stop;

/// What the core needs to know, in nanoseconds where times.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long the front may be silent.
    pub front_window: Window,
    /// Shortest and longest window a session may have.
    pub windows: (Window, Window),
    /// How often a stop stage is repeated.
    pub stop_repeat: u64,
    /// How often grants, stops and health are looked after.
    pub tick: u64,
    /// A pass that is later than this is a reason to stop everything.
    pub max_lateness: u64,
    /// For how long a drive must tell that its motor stands still before that is proven.
    pub proof_span: u64,
    /// How often a motor's violations are told in the event log; all are answered and counted.
    pub violation_pause: u64,
    /// How trips are cleared.
    pub policy: ResetPolicy,
}

/// How long a granted, running drive may say nothing before its session is tripped.
const FEEDBACK_WINDOW: u64 = shm_proto::verdicts::MotorVerdict::FEEDBACK_WINDOW_NS;

/// Which supervisor this is, as far as it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// There was none before.
    SinceTheMachineStarted,
    /// There was.
    AfterAnother,
}

/// What the real-time thread has cost since arming, for the record. Only the first three may hurt: each of
/// them can take longer than a stop may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Heap allocations and releases.
    pub allocations: u64,
    /// Page faults without a disk.
    pub minor_faults: u64,
    /// Page faults with a disk.
    pub major_faults: u64,
    /// Times it went to sleep.
    pub voluntary_switches: u64,
    /// Times it was pushed off its CPU.
    pub involuntary_switches: u64,
}

/// Whether an operator's stop still holds every motor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Nothing was reset since.
    All,
    /// Another trip was reset meanwhile, and its motors with it.
    Some,
}

/// One CAN bus as the core sees it.
#[derive(Debug)]
struct Bus {
    verdict: BusVerdict,
    log: health::BusLog,
    drives: origin::Drives,
}

/// The attached front.
#[derive(Debug)]
struct Front {
    view: BeatView,
    pid: u32,
}

/// The whole state.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    phase: Phase,
    front: Option<Front>,
    readers: Vec<SlotReader>,
    sessions: Sessions,
    motors: Vec<Motor>,
    /// For each motor, the unit of those it shares a command frame with.
    units: Vec<Option<usize>>,
    /// For each motor, the session that the front wanted to give it to, as of the last look at all of them.
    wishes: Vec<Option<Owner>>,
    /// For each motor, the session that was looked at in this tick because it might be new.
    looked_at: Vec<Option<Owner>>,
    broadcasts: Vec<Broadcast>,
    buses: Vec<Bus>,
    heartbeats: Vec<Periodic>,
    verdicts: VerdictSegment,
    trips: TripId,
    latch: TripId,
    /// What became of the motors that the operator's stop holds.
    held: Held,
    /// Whether the latches are on disk.
    kept: Kept,
    /// The trip of motors that were driven when the supervisor before died, and when that one was last seen; until told.
    died: Option<(TripId, Nanos)>,
    next_tick: Nanos,
    /// Ticks since the start.
    ticks: u64,
    /// How many more rings may be looked into in this tick because the front says so.
    looks: usize,
    degraded: u64,
    /// Jobs of the kernel-armed stop that were put off too late, as far as they were noticed.
    overtaken: u64,
    tally: Tally,
    /// The last step.
    stepped: Nanos,
    /// The latest moment at which a ring was read.
    observed: Nanos,
    /// The last trip when the invariants were looked at.
    counted: TripId,
}

/// Counters that are published.
#[derive(Debug, Default)]
struct Tally {
    loops: u64,
    late: u64,
    worst_lateness: u64,
    beats: u64,
    stop_frames: u64,
    send_errors: u64,
    guarded: u64,
    bad_owners: u64,
    worst_trip: u64,
    overruns: u64,
    cost: Cost,
    rejects: [u64; Reject::ALL.len()],
}

impl Core {
    /// A core for these motors and buses; the only place that allocates.
    #[must_use]
    pub fn new(
        settings: Settings,
        motors: Vec<Motor>,
        buses: usize,
        heartbeats: Vec<Periodic>,
        verdicts: VerdictSegment,
        sessions: u16,
    ) -> Self {
        Self {
            settings,
            phase: Phase::Starting,
            front: None,
            readers: vec![SlotReader::default(); usize::from(sessions) + 1],
            sessions: Sessions::new(sessions),
            units: together::units(&motors),
            wishes: vec![None; motors.len()],
            looked_at: vec![None; motors.len()],
            broadcasts: together::broadcasts(&motors, buses),
            motors,
            buses: (0..buses).map(|_| Bus::FRESH).collect(),
            heartbeats,
            verdicts,
            trips: TripId::NONE,
            latch: TripId::NONE,
            held: Held::All,
            kept: Kept::OnDisk { changes: 0 },
            died: None,
            next_tick: Nanos::ZERO,
            ticks: 0,
            looks: 0,
            degraded: 0,
            overtaken: 0,
            tally: Tally::default(),
            stepped: Nanos::ZERO,
            observed: Nanos::ZERO,
            counted: TripId::NONE,
        }
    }

    /// Publishes what the system refused, as a sum of [`shm_proto::verdicts::Degraded`] bits; what was refused
    /// before stays.
    pub fn degraded(&mut self, bits: u64) {
        self.degraded |= bits;
        self.publish_degraded();
    }

    /// Publishes how often the kernel-armed stop was put off, and how often the kernel refused to. Where the kernel has begun to
    /// send the stops, whatever moves is stopped for good: drives have obeyed, and must not go on by themselves.
    pub fn kernel_stop(&mut self, tally: kernel_stop::Tally, now: Nanos, wire: &mut dyn Wire) {
        self.verdicts.counter(Counter::KernelStopRearms, tally.rearms);
        self.verdicts.counter(Counter::KernelStopErrors, tally.errors);
        if tally.overtaken > self.overtaken {
            self.overtaken = tally.overtaken;
            self.tally.overruns += 1;
            self.trip_late(now, wire);
        }
    }

    /// The hardware watchdog has reset this machine. Told once, by the first supervisor since; shown by all of them.
    pub fn was_reset_by_watchdog(&mut self, first: First, now: Nanos) {
        self.verdicts.watchdog_reset();
        if first == First::SinceTheMachineStarted {
            self.verdicts.event(&Event::new(EventKind::WatchdogReset, now));
        }
    }

    /// Stops every motor, because nobody knows what they are doing, then watches.
    pub fn start(&mut self, now: Nanos, wire: &mut dyn Wire) {
        self.stop_all(Reason::Startup, TripId::NONE, now, wire);
        self.tell_of_death(now);
        self.publish_all(now);
        self.phase = Phase::Armed;
        // Not at once: a drive that has just been sent its stop is not asked in the same breath.
        self.next_tick = now.after(self.settings.tick);
        self.verdicts.phase(Phase::Armed);
        self.verdicts.event(&Event::new(EventKind::Armed, now));
    }

    /// One pass: expiries first, everything else after.
    pub fn step(&mut self, now: Nanos, wire: &mut dyn Wire) {
        self.expire(now, wire);
        if now >= self.next_tick {
            self.note_lateness(now, wire);
            self.next_tick = now.after(self.settings.tick);
            self.ticks += 1;
            self.look_for_changes(now, wire);
            self.settle_grants(now, wire);
            self.tend_motors(now, wire);
            self.beat_on_buses(now, wire);
            self.publish_counters();
        }
        self.tally.loops += 1;
        self.verdicts.beat(self.tally.loops, now);
        self.stepped = now;
        // A core that contradicts itself must not go on: the panic sends all stops.
        #[cfg(debug_assertions)]
        if let Some(broken) = self.check_invariants() {
            panic!("broken: {broken}");
        }
    }

    /// Takes note of what the loop has cost; published with the next tick.
    pub fn costs(&mut self, cost: Cost) {
        self.tally.cost = cost;
    }

    /// When [`Core::step`] wants to be called next.
    #[must_use]
    pub fn next_wakeup(&self) -> Nanos {
        self.next_tick.min(self.sessions.first_deadline())
    }

    /// A frame came in on a bus.
    pub fn received(
        &mut self,
        bus: usize,
        origin: Origin,
        frame: &Frame,
        arrival: impl Into<Arrival>,
        wire: &mut dyn Wire,
    ) {
        let arrival = arrival.into();
        if let Some(bus) = self.buses.get_mut(bus) {
            bus.verdict.received += 1;
        }
        for index in 0..self.motors.len() {
            if self.motors[index].is_on(bus) {
                self.observe(index, (bus, origin), frame, arrival, wire);
            }
        }
    }

    /// A front has mapped its beat segment; from now on it is watched. Returns the segment of the
    /// front before it, if any: unmapping is not this thread's work.
    pub fn attach(&mut self, view: BeatView, pid: u32, now: Nanos, wire: &mut dyn Wire) -> Option<BeatView> {
        let before = self.detach(Reason::FrontDead, now, wire);
        self.readers.fill(SlotReader::default());
        self.sessions.forget_all();
        self.verdicts.front(view.generation(), pid);
        self.front = Some(Front { view, pid });
        self.sessions.watch_front(now.after(self.settings.front_window.0));
        self.verdicts.event(&Event::new(EventKind::FrontAttached, now));
        self.publish_all(now);
        before
    }

    /// The front is gone: its sessions are tripped, its motors stopped. Returns its segment.
    pub fn detach(&mut self, reason: Reason, now: Nanos, wire: &mut dyn Wire) -> Option<BeatView> {
        let generation = self.front.as_ref()?.view.generation();
        self.trip_front(reason, now, wire);
        self.sessions.unwatch_front();
        // The number stays: no later hand-over may have it, not even one of the next supervisor.
        self.verdicts.front(generation, 0);
        self.front.take().map(|front| front.view)
    }

    /// Process id of the attached front.
    #[must_use]
    pub fn front_pid(&self) -> Option<u32> {
        self.front.as_ref().map(|front| front.pid)
    }

    /// Told to exit: stops everything. Ask [`Core::is_at_rest`] when it is done.
    pub fn shut_down(&mut self, now: Nanos, wire: &mut dyn Wire) {
        if self.phase == Phase::Stopping {
            return;
        }
        self.phase = Phase::Stopping;
        self.trip_all(Reason::Shutdown, now, wire);
        self.verdicts.phase(Phase::Stopping);
    }

    /// Whether every motor is proven to stand still.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.motors.iter().all(Motor::is_at_rest)
    }

    /// The longest a whole stop programme of any motor may take before it counts as unverified.
    #[must_use]
    pub fn longest_stop(&self) -> u64 {
        self.motors.iter().map(Motor::longest_stop).max().unwrap_or(0)
    }

    /// The last word before exit.
    pub fn end(&mut self, now: Nanos) {
        self.phase = Phase::Ended;
        self.publish_all(now);
        let open = |motor: &&Motor| motor.latch == Latch::Held || !motor.is_at_rest();
        self.verdicts.left_open(self.motors.iter().filter(open).count() as u64);
        // Last: who finds it relies upon the rest.
        self.verdicts.phase(Phase::Ended);
    }

    /// Sends frames, counts, and notes what failed; `true` when all were handed over.
    fn send(&mut self, bus: usize, frames: &FrameList, now: Nanos, wire: &mut dyn Wire) -> bool {
        let mut all = true;
        for frame in frames.as_slice() {
            all &= self.send_one(bus, frame, now, wire);
        }
        all
    }

    fn send_one(&mut self, bus: usize, frame: &Frame, now: Nanos, wire: &mut dyn Wire) -> bool {
        let outcome = wire.send(bus, frame);
        let Some(state) = self.buses.get_mut(bus) else { return false };
        match outcome {
            Ok(()) => {
                state.verdict.sent += 1;
                true
            }
            Err(error) => {
                state.verdict.errors += 1;
                state.verdict.last_error = u64::from(error.errno().unsigned_abs());
                state.verdict.queue_full += u64::from(error == SendError::QueueFull);
                self.tally.send_errors += 1;
                if error.is_fatal_for_bus() {
                    self.mark_down(bus, now);
                }
                false
            }
        }
    }

    /// How long ago the next tick should have been; 0 before the start.
    fn lateness(&self, now: Nanos) -> u64 {
        if self.next_tick == Nanos::ZERO { 0 } else { now.since(self.next_tick) }
    }

    /// A supervisor that was late once cannot promise to be in time the next time: whoever drives has to
    /// begin anew.
    fn note_lateness(&mut self, now: Nanos, wire: &mut dyn Wire) {
        let lateness = self.lateness(now);
        self.tally.worst_lateness = self.tally.worst_lateness.max(lateness);
        if lateness > self.settings.tick {
            self.tally.late += 1;
        }
        if lateness > self.settings.max_lateness {
            self.tally.overruns += 1;
            self.trip_late(now, wire);
        }
    }

    fn publish_bus(&self, bus: usize) {
        if let Some(state) = self.buses.get(bus) {
            self.verdicts.bus(bus, &state.verdict);
        }
    }

    fn publish_counters(&self) {
        self.publish_degraded();
        let tally = &self.tally;
        for (counter, value) in [
            (Counter::Loops, tally.loops),
            (Counter::LateLoops, tally.late),
            (Counter::WorstLatenessNanos, tally.worst_lateness),
            (Counter::Beats, tally.beats),
            (Counter::Trips, self.trips.0),
            (Counter::StopFrames, tally.stop_frames),
            (Counter::SendErrors, tally.send_errors),
            (Counter::Guarded, tally.guarded),
            (Counter::BadOwners, tally.bad_owners),
            (Counter::WorstTripNanos, tally.worst_trip),
            (Counter::SelfOverruns, tally.overruns),
            (Counter::Allocations, tally.cost.allocations),
            (Counter::MinorFaults, tally.cost.minor_faults),
            (Counter::MajorFaults, tally.cost.major_faults),
            (Counter::VoluntarySwitches, tally.cost.voluntary_switches),
            (Counter::InvoluntarySwitches, tally.cost.involuntary_switches),
        ] {
            self.verdicts.counter(counter, value);
        }
        for (reject, count) in Reject::ALL.into_iter().zip(tally.rejects) {
            self.verdicts.rejects(reject, count);
        }
    }

    fn publish_all(&mut self, now: Nanos) {
        for index in 0..self.motors.len() {
            self.publish_motor(index);
        }
        for bus in 0..self.buses.len() {
            self.publish_bus(bus);
        }
        self.publish_sessions();
        self.publish_counters();
        self.verdicts.latch(self.latch);
        self.verdicts.beat(self.tally.loops, now);
    }
}

/// The index of a motor by its place in the configuration.
fn motor_index(place: usize) -> MotorIndex {
    // Places come from a list of at most `Capacity::MOST_MOTORS`.
    MotorIndex(u16::try_from(place).unwrap_or(u16::MAX))
}
