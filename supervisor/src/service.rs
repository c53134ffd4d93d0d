//! Housekeeping: words to systemd and to the hardware watchdog, interfaces that come and go, the log.
//!
//! Runs with ordinary scheduling. It may be slow or stuck; the real-time thread does not notice. What must never live
//! here is anything that another process can keep waiting: that is what the doors have threads of their own for.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use config::Config;
use drivers::Fault;
use nix::poll::{PollTimeout, poll};
use shm_proto::verdicts::{BusHealth, Event, EventKind, Reason};
use shm_proto::{Nanos, TripId, VerdictView};

use crate::bus::Rebind;
use crate::estop::Drain;
use crate::hardware_watchdog::HardwareWatchdog;
use crate::keeper::{self, Rest};
use crate::latches::Keeping;
use crate::netlink::{Link, Netlink};
use crate::notify::{Notifier, Watchdog};
use crate::queue::{Command, Reply, Requester};
use crate::{bus, log};

/// How often housekeeping looks at queues and interfaces, milliseconds.
const PASS_MS: u8 = 50;

/// Everything housekeeping owns.
#[derive(Debug)]
pub struct Service {
    config: Arc<Config>,
    /// The sockets that are to be removed at the end.
    paths: Vec<PathBuf>,
    verdicts: Arc<VerdictView>,
    requester: Requester,
    interfaces: Vec<Interface>,
    logged: u64,
    notifier: Notifier,
    watchdog: Watchdog,
    rebind: Rebind,
    netlink: Netlink,
    keeper: keeper::Keeper,
    hardware_watchdog: Option<HardwareWatchdog>,
    estop: Drain,
    latches: Keeping,
}

/// What was last seen of a bus's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interface {
    number: Option<u32>,
    health: BusHealth,
    counters: Option<(u16, u16)>,
}

impl Interface {
    const GONE: Self = Self { number: None, health: BusHealth::Down, counters: None };
}

/// What housekeeping is given to work with.
#[derive(Debug)]
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// The doors' sockets that nothing keeps when the supervisor ends.
    pub paths: Vec<PathBuf>,
    /// The verdict segment, for reading events. Those that are there already were told before.
    pub verdicts: Arc<VerdictView>,
    /// To the real-time thread.
    pub requester: Requester,
    /// To systemd.
    pub notifier: Notifier,
    /// Every CAN socket, for interfaces that vanish and come back.
    pub rebind: Rebind,
    /// To ask the kernel about interfaces.
    pub netlink: Netlink,
    /// The other holders of the kernel-armed stop.
    pub keeper: keeper::Keeper,
    /// What resets the machine when the loop stands still, if anything does.
    pub watchdog: Option<HardwareWatchdog>,
    /// The FIFO of the operator's stop, of which it reads what the real-time thread has noticed.
    pub estop: Drain,
}

impl Service {
    /// Housekeeping over these parts, and over what waits for a reset on disk.
    #[must_use]
    pub fn new(parts: Parts, latches: Keeping) -> Self {
        let number = |bus: &config::Bus| bus::interface_number(&bus.interface);
        // Open a moment ago; how they are is looked up in the first pass.
        let seen = |bus| Interface { number: number(bus), health: BusHealth::Unknown, counters: None };
        let interfaces = parts.config.buses.iter().map(seen).collect();
        Self {
            config: parts.config,
            paths: parts.paths,
            // Taken over from the supervisor before, and told with that.
            logged: parts.verdicts.event_count(),
            verdicts: parts.verdicts,
            requester: parts.requester,
            interfaces,
            notifier: parts.notifier,
            watchdog: Watchdog::from_environment(),
            rebind: parts.rebind,
            netlink: parts.netlink,
            keeper: parts.keeper,
            hardware_watchdog: parts.watchdog,
            estop: parts.estop,
            latches,
        }
    }

    /// Runs until the real-time thread has ended.
    pub fn run(mut self) -> ExitCode {
        loop {
            // Nothing wakes it: whatever it looks at is looked at 20 times a second.
            let _ = poll(&mut [], PollTimeout::from(PASS_MS));
            self.watch_interfaces();
            self.watch_kernel_stop();
            self.keep_latches();
            self.log_events();
            let (passes, _) = self.verdicts.beat();
            self.estop.pass(passes);
            let now = Nanos::now();
            self.watchdog.feed(&self.notifier, passes, now);
            if let Some(watchdog) = &mut self.hardware_watchdog {
                watchdog.feed(&self.notifier, passes, now);
            }
            if let Some(code) = self.take_replies() {
                self.log_events();
                self.latches.end(&self.verdicts, &self.notifier);
                if let Some(watchdog) = &mut self.hardware_watchdog {
                    watchdog.end(&self.notifier);
                }
                // A socket that systemd keeps is found again by the next supervisor; it goes when the service is stopped.
                for path in &self.paths {
                    let _ = std::fs::remove_file(path);
                }
                return code;
            }
        }
    }

    /// Takes the real-time thread's answers; `Some` when it has ended.
    fn take_replies(&mut self) -> Option<ExitCode> {
        while let Ok(reply) = self.requester.replies.pop() {
            match reply {
                Reply::Ended { at_rest: true } => {
                    log::line("every motor is proven to stand still; bye");
                    self.keeper.end(Rest::Proven);
                    return Some(ExitCode::SUCCESS);
                }
                Reply::Ended { at_rest: false } => {
                    log::line("WARNING: not every motor was proven to stand still; stop frames were sent");
                    self.keeper.end(Rest::Unproven);
                    return Some(ExitCode::FAILURE);
                }
                Reply::Retired(retired) => drop(retired),
                // Answers to what only doors ask.
                Reply::Attached | Reply::FrontGone | Reply::Stopped { .. } | Reply::Reset { .. } => {}
            }
        }
        None
    }

    /// Tells the real-time thread how the interfaces are whenever that has changed.
    fn watch_interfaces(&mut self) {
        for bus in 0..self.interfaces.len() {
            let (before, mut seen) = (self.interfaces[bus], self.look_at(bus));
            if seen.health == BusHealth::Down {
                // The sockets change over to a new interface when it is up, not when it appears.
                seen.number = before.number;
            }
            // What the real-time thread has found out by itself counts until the interface is looked at.
            let believed = self.verdicts.bus(bus).map(|verdict| verdict.health);
            // A driver that does not tell contradicts nobody, but for an interface that is up again.
            let agrees = believed == Some(seen.health)
                || (seen.health == BusHealth::Unknown && believed != Some(BusHealth::Down));
            let is_deaf = seen.health != BusHealth::Down
                && seen.number.is_some_and(|number| !self.rebind.is_bound(bus, number));
            if before == seen && agrees && !is_deaf {
                continue;
            }
            self.interfaces[bus] = seen;
            if (seen.number != before.number || is_deaf)
                && let Some(number) = seen.number
                && let Err(error) =
                    self.rebind.rebind(bus, number).and_then(|()| self.keeper.rebind(bus, number))
            {
                let name = &self.config.buses[bus].interface;
                log::line(&format!("interface \"{name}\" is back, but cannot be used: {error}"));
                self.interfaces[bus] = Interface::GONE;
                continue;
            }
            let Interface { health, counters, .. } = seen;
            if self.requester.commands.push(Command::Bus { bus, health, counters }).is_err() {
                self.interfaces[bus] = before;
                continue;
            }
            if health == BusHealth::BusOff && before.health != health {
                let name = &self.config.buses[bus].interface;
                log::line(&format!(
                    "interface \"{name}\" is bus-off: the controller has left the bus. Look for a short or a \
                     wrong bit rate, then: ip link set {name} type can restart (or set restart-ms)"
                ));
            }
        }
    }

    fn look_at(&self, bus: usize) -> Interface {
        let name = &self.config.buses[bus].interface;
        match self.netlink.look_at(name) {
            Ok(Some(Link { number, health, counters, .. })) => {
                Interface { number: Some(number), health, counters }
            }
            // Not to know is no reason to stop: sending tells, too.
            Err(_) => self.interfaces[bus],
            Ok(None) => Interface::GONE,
        }
    }

    fn watch_kernel_stop(&mut self) {
        let bits = self.keeper.pass(&self.verdicts);
        if bits != 0 {
            // Should the queue be full, the log has it.
            let _ = self.requester.commands.push(Command::Degraded { bits });
        }
    }

    fn keep_latches(&mut self) {
        if let Some(kept) = self.latches.pass(&self.verdicts, Nanos::now())
            && self.requester.commands.push(Command::Latches(kept)).is_err()
        {
            self.latches.was_not_heard();
        }
    }

    fn log_events(&mut self) {
        let newest = self.verdicts.event_count();
        let view = &self.verdicts;
        for (number, event) in view.events() {
            if number > self.logged {
                log::line(&(describe(view, &event) + &faults(view, &event, &self.config)));
                if event.kind == EventKind::Armed {
                    self.notifier.say("READY=1");
                    self.notifier.say("STATUS=Armed");
                }
            }
        }
        self.logged = newest;
    }
}

/// For a trip because of a drive: what its motors' drives say of themselves, in their own words.
fn faults(view: &VerdictView, event: &Event, config: &Config) -> String {
    if event.kind != EventKind::Trip || event.reason != Some(Reason::DriveFault) {
        return String::new();
    }
    let words = event.motors.iter().filter_map(|motor| {
        let fault = u32::try_from(view.motor(motor)?.fault).ok().filter(|fault| *fault != 0)?;
        let known = config.motors.get(usize::from(motor.0))?;
        Some(format!("; {}: {}", known.name, known.drive.explain(Fault(fault))))
    });
    words.collect()
}

/// One line about an event.
fn describe(view: &VerdictView, event: &Event) -> String {
    let names: Vec<String> = event.motors.iter().map(|motor| view.motor_name(motor)).collect();
    let motors = if names.is_empty() { "no motor".to_owned() } else { names.join(", ") };
    let reason = event.reason.map_or("", |reason| reason.name());
    let session = if event.session.0 == 0 { String::new() } else { format!(" {}", event.session) };
    match event.kind {
        EventKind::Trip => format!("trip {}: {reason}{session}: stopped {motors}", event.trip),
        EventKind::EndedAtRest => format!("no trip: {reason}{session}: at rest already: {motors}"),
        EventKind::Reset => format!("trip {} reset by operator: {motors}", event.trip),
        EventKind::FrontAttached => {
            let (generation, pid) = view.front();
            format!("front attached: process {pid}, generation {}", generation.0)
        }
        EventKind::Armed => "armed".to_owned(),
        EventKind::MovesWithoutPower => {
            format!("WARNING: {motors} moves with its power off: pushed, or rolling; no frame can hold it")
        }
        EventKind::Disbelieved => {
            let concerned = |bus: &usize| view.bus(*bus).is_some_and(|verdict| verdict.disbelieved > 0);
            let buses: Vec<_> =
                (0..view.bus_count()).filter(concerned).map(|bus| view.bus_name(bus)).collect();
            format!(
                "WARNING: feedback on bus {} comes from a program of this computer and is not believed, so nothing is proven \
                 or granted by it: set local_drives = true in its [[bus]] if the drives are simulated here; if they are real, \
                 that program forges what they say",
                buses.join(", ")
            )
        }
        EventKind::ForeignStops => format!(
            "WARNING: somebody else sends stops for {motors}, which a session drives: another supervisor of the same motors, or \
             the process lanyard-holder left by a killed one, or a program that imitates it, or another computer on the \
             bus. End it: the grant ends if they go on"
        ),
        kind if event.trip == TripId::NONE => format!("{}: {motors}", kind.name()),
        kind => format!("{}: {motors} (trip {}, {reason})", kind.name(), event.trip),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use shm_proto::verdicts::{BusVerdict, Identity, MotorState, MotorVerdict, ResetPolicy};
    use shm_proto::{Capacity, Generation, MotorIndex, SessionId, VerdictSegment};

    use super::*;

    const ARM: MotorIndex = MotorIndex(0);
    const WHEEL: MotorIndex = MotorIndex(1);
    const ROBOT: &str = r#"
[[bus]]
name = "can0"
[[motor]]
name = "arm"
bus = "can0"
driver = "odrive"
node = 3
firmware = "0.6"
after_stop = "hold"
max_rpm = 300
[[motor]]
name = "wheel"
bus = "can0"
driver = "odrive"
node = 4
firmware = "0.6"
after_stop = "release"
max_rpm = 300
"#;

    /// What the real-time thread publishes, and what housekeeping reads of it.
    fn segment() -> (VerdictSegment, VerdictView) {
        let capacity = Capacity::new(8, 8).unwrap();
        let identity = Identity { config_hash: 1, pid: 1, started: Nanos(1), policy: ResetPolicy::Manual };
        let (segment, fd) =
            VerdictSegment::create(capacity, &identity, &["arm", "wheel"], &["can0", "can1"]).unwrap();
        let view = VerdictView::map(fd.as_fd(), capacity).unwrap();
        (segment, view)
    }

    fn event(kind: EventKind, trip: u64, reason: Option<Reason>, motors: &[MotorIndex]) -> Event {
        let mut event = Event { trip: TripId(trip), reason, ..Event::new(kind, Nanos(1)) };
        motors.iter().for_each(|motor| event.motors.insert(*motor));
        event
    }

    /// Fails if the journal does not say what was stopped, by which trip, and why.
    #[test]
    fn each_event_is_told_with_its_trip_its_cause_and_its_motors() {
        let (segment, view) = segment();
        segment.front(Generation(2), 4711);
        let expired = Some(Reason::Expired);
        for (event, line) in [
            (
                event(EventKind::Trip, 7, expired, &[ARM, WHEEL]),
                "trip 7: session expired: stopped arm, wheel",
            ),
            (event(EventKind::Trip, 7, expired, &[]), "trip 7: session expired: stopped no motor"),
            (
                event(EventKind::EndedAtRest, 0, Some(Reason::ClosedByClient), &[WHEEL]),
                "no trip: closed by client: at rest already: wheel",
            ),
            (event(EventKind::Reset, 7, None, &[ARM]), "trip 7 reset by operator: arm"),
            (event(EventKind::FrontAttached, 0, None, &[]), "front attached: process 4711, generation 2"),
            (event(EventKind::Armed, 0, None, &[]), "armed"),
            (event(EventKind::Standstill, 7, expired, &[ARM]), "standstill: arm (trip 7, session expired)"),
            (event(EventKind::Standstill, 0, expired, &[ARM]), "standstill: arm"),
        ] {
            assert_eq!(describe(&view, &event), line);
        }
        let of_a_session = Event { session: SessionId(0xABC), ..event(EventKind::Trip, 7, expired, &[ARM]) };
        let told = describe(&view, &of_a_session);
        assert!(told.contains(&format!(": session expired {}: ", SessionId(0xABC))), "{told}");
    }

    /// Fails if an operator looks for the forger on the wrong bus.
    #[test]
    fn only_the_buses_with_local_feedback_are_named() {
        let (segment, view) = segment();
        segment.bus(1, &BusVerdict { disbelieved: 3, ..BusVerdict::FRESH });
        let told = describe(&view, &event(EventKind::Disbelieved, 0, None, &[]));
        assert!(
            told.starts_with("WARNING: feedback on bus can1 comes from a program of this computer"),
            "{told}"
        );
    }

    /// Fails if a trip for a fault does not say which drive has which, or if another trip tells of one that has nothing
    /// to do with it.
    #[test]
    fn a_trip_for_a_fault_says_which() {
        let config = Config::parse(Path::new("test.toml"), ROBOT).unwrap();
        let (segment, view) = segment();
        let fine = MotorVerdict {
            moves: Nanos::ZERO,
            grant: None,
            state: MotorState::Stopping,
            stage: 0,
            trip: TripId(7),
            reason: Some(Reason::DriveFault),
            first_stop: Nanos::ZERO,
            confirmed: Nanos::ZERO,
            standstill: Nanos::ZERO,
            stops_sent: 0,
            velocity: None,
            position: None,
            power: 0,
            fault: 0,
            feedback: Nanos::ZERO,
            guarded: 0,
            bus: 0,
            latched: 0,
            violations: 0,
        };
        segment.motor(ARM, &fine);
        segment.motor(WHEEL, &MotorVerdict { fault: 0x0100_0000, ..fine });
        let fault = Some(Reason::DriveFault);
        let told = |kind, reason| faults(&view, &event(kind, 7, reason, &[ARM, WHEEL]), &config);
        assert_eq!(told(EventKind::Trip, fault), "; wheel: watchdog expired");
        assert_eq!(told(EventKind::Trip, Some(Reason::Expired)), "");
        assert_eq!(told(EventKind::Standstill, fault), "");
    }
}
