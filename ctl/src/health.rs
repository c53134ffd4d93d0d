//! What is not in order and what to do about it: the loud part of `lanyard status`, and its exit code.

use std::collections::BTreeSet;

use shm_proto::verdicts::{BusHealth, Counter, Degraded, MotorState, Phase};
use shm_proto::{TripId, TripSeen, VerdictView};

use crate::spans::{coarse, fine};
use crate::status::{Bus, Motor, Status};

/// The loop passes at least every 20 ms (the longest tick); fifty times that is no hiccup.
const LOOP_IS_STALE: u64 = 1_000_000_000;

/// A stop is repeated every 20 ms (`stop_repeat`, at most 100 ms) while it is not proven, and a frame takes
/// 0.3 ms on the slowest usual bus: in this time several were sent, and none arrived.
const STOP_IS_UNCONFIRMED: u64 = 500_000_000;

/// A simulated drive speaks every 100 ms at least; what was forged this long ago is in the events.
const DISBELIEVED_LATELY: u64 = 5_000_000_000;

/// Whether the supervisor's last pass, that many nanoseconds ago, is too long ago.
pub const fn loop_is_stale(age: u64) -> bool {
    age > LOOP_IS_STALE
}

/// All that needs a human, most urgent first.
pub fn alerts(status: &Status, view: &VerdictView, loop_age: u64) -> Vec<String> {
    let mut alerts = Vec::new();
    if loop_is_stale(loop_age) {
        alerts.push(format!(
            "THE SUPERVISOR DOES NOT RUN ITS LOOP: its last pass was {} ago. Nobody watches the sessions, \
             and everything below is as old as that",
            coarse(loop_age)
        ));
    }
    match view.phase() {
        Some(Phase::Armed) => {}
        Some(Phase::Starting) => {
            alerts.push("not armed yet: every motor is being stopped before anything may move".to_owned());
        }
        Some(Phase::Stopping | Phase::Ended) => {
            alerts.push("the supervisor was told to exit: every motor is being stopped".to_owned());
        }
        None => alerts.push(
            "the supervisor is in a phase that this program does not know; are both of one version?"
                .to_owned(),
        ),
    }
    alerts.extend(status.motors.iter().filter_map(motor));
    alerts.extend(status.motors.iter().filter_map(|motor| moves(motor, status.at_ns)));
    alerts.extend(status.motors.iter().filter_map(|motor| unconfirmed(motor, status)));
    if let Some(trip) = status.latch {
        let seen = seen(status, trip);
        alerts.push(format!(
            "trip {trip} keeps EVERY motor stopped{}. When you know why and all is clear: lanyard reset {seen}",
            violated(seen)
        ));
    }
    alerts.extend(latched(status));
    alerts.extend(status.buses.iter().filter_map(bus));
    alerts.extend(status.buses.iter().filter_map(|bus| disbelieved(bus, status.at_ns)));
    alerts.extend(broken_promises(view));
    alerts.extend(self_overruns(view));
    alerts.extend(view.degraded().map(|flag| format!("DEGRADED, {}: {}", flag.name(), consequence(flag))));
    alerts
}

fn motor(motor: &Motor) -> Option<String> {
    let why = || {
        let trip = motor.trip.map_or(String::new(), |trip| format!("trip {trip}: "));
        format!("{trip}{}", motor.reason.unwrap_or("reason unknown"))
    };
    let name = &motor.name;
    if motor.state == MotorState::Unverified.name() {
        Some(format!(
            "motor {name} is NOT PROVEN TO STAND STILL ({}). Every stage of its stop was sent; the last one \
             is repeated. Keep away and cut its power",
            why()
        ))
    } else if motor.state == MotorState::Stopping.name() {
        Some(format!("motor {name} is being stopped ({})", why()))
    } else {
        let words = motor.fault_words.as_ref().map_or(String::new(), |words| format!(": {words}"));
        motor.fault.map(|fault| format!("motor {name}: its drive reports fault {fault:#x}{words}"))
    }
}

/// That a motor turns with its power off, if so.
fn moves(motor: &Motor, now: u64) -> Option<String> {
    let age = now.saturating_sub(motor.moves_since_ns?);
    Some(format!(
        "motor {} MOVES WITH ITS POWER OFF since {}: somebody pushes it, or it rolls. No frame can hold it, and it is sent \
         none: keep clear, chock it or apply its brake",
        motor.name,
        coarse(age),
    ))
}

/// A stop that nobody on the bus has acknowledged, where the interface would tell.
///
/// That frames were sent and not confirmed says nothing by itself: those that were queued when an interface
/// went down never will be. Stops that are repeated and of which none arrives say everything.
fn unconfirmed(motor: &Motor, status: &Status) -> Option<String> {
    let repeated = [MotorState::Stopping.name(), MotorState::Unverified.name()].contains(&motor.state);
    let bus = status.buses.iter().find(|bus| bus.name == motor.bus)?;
    let age = status.at_ns.saturating_sub(motor.first_stop_ns?);
    let silent = repeated && bus.confirms && motor.confirmed_ns.is_none() && age > STOP_IS_UNCONFIRMED;
    silent.then(|| {
        format!(
            "motor {}: none of its stop frames was acknowledged on bus {} since {}: nobody else is on that \
             bus, or its transmit queue does not move. Check power and connector of the drives",
            motor.name,
            bus.name,
            coarse(age),
        )
    })
}

/// What is wrong with a bus, if anything.
fn bus(bus: &Bus) -> Option<String> {
    let name = &bus.name;
    let counters = format!("transmit errors {}, receive errors {}", bus.tx_errors, bus.rx_errors);
    let is = |health: BusHealth| bus.health == health.name();
    if is(BusHealth::Warning) {
        Some(format!(
            "bus {name} is disturbed ({}; {counters}). It still works: look at termination (120 ohm at both \
             ends), connectors and bit rate now. `ip link set {name} type can berr-reporting on` makes the \
             interface tell each error",
            bus.health
        ))
    } else if is(BusHealth::Passive) {
        Some(format!(
            "bus {name} CANNOT BE RELIED UPON ({}; {counters}): who drove on it was stopped. Mostly nobody \
             acknowledges: are the drives powered and connected, is the bit rate the same everywhere, is the \
             bus terminated at both ends? `ip -details link show {name}` shows bit rate and state",
            bus.health
        ))
    } else if is(BusHealth::BusOff) {
        Some(format!(
            "bus {name} DOES NOT WORK ({}; {counters}): no stop frame reaches its motors. Look for a short \
             circuit or a wrong bit rate, then: ip link set {name} type can restart (restart-ms does it by \
             itself)",
            bus.health
        ))
    } else if bus.up {
        None
    } else {
        let reason = bus.last_error.map_or(String::new(), |number| format!(" ({})", error_text(number)));
        Some(format!(
            "bus {name} DOES NOT WORK{reason}: no stop frame reaches its motors. Plug the adapter in, then: \
             ip link set {name} up"
        ))
    }
}

/// That a program of this computer speaks for the drives of a bus, if one has lately.
fn disbelieved(bus: &Bus, now: u64) -> Option<String> {
    let age = now.saturating_sub(bus.disbelieved_ns?);
    (age < DISBELIEVED_LATELY).then(|| {
        format!(
            "feedback on {} comes from a program of this computer and is NOT BELIEVED ({} frames): nothing is proven or \
             granted by it. Set local_drives = true in its [[bus]] if the drives are simulated here. If they are real, \
             that program forges what they say: find and end it",
            bus.name, bus.disbelieved
        )
    })
}

/// What the real-time thread promises never to do, and has done.
fn broken_promises(view: &VerdictView) -> Vec<String> {
    let mut broken = Vec::new();
    let allocations = view.counter(Counter::Allocations);
    if allocations > 0 {
        broken.push(format!(
            "a promise is broken: the real-time thread used the heap {allocations} times since arming, and \
             each time may delay a stop. This is a mistake in Lanyard: please report it"
        ));
    }
    let (minor, major) = (view.counter(Counter::MinorFaults), view.counter(Counter::MajorFaults));
    if minor > 0 || major > 0 {
        broken.push(format!(
            "a promise is broken: the real-time thread took {minor} page faults without and {major} with a \
             disk since arming, and each may delay a stop. Is all memory locked (LimitMEMLOCK=infinity), and \
             does nobody trace or migrate the process?"
        ));
    }
    broken
}

/// The loop was so late that it stopped everything.
fn self_overruns(view: &VerdictView) -> Option<String> {
    let overruns = view.counter(Counter::SelfOverruns);
    let worst = fine(view.counter(Counter::WorstLatenessNanos));
    (overruns > 0).then(|| {
        format!(
            "self-overrun: the supervisor's loop was later than max_lateness {overruns} times (at worst \
             {worst}), and whatever was driven was stopped. Look for what held its CPU: other real-time \
             programs, a laptop's or virtual machine's pauses, firmware (hwlatdetect); cyclictest shows what \
             this machine can do"
        )
    })
}

/// A trip as it is shown, for the reset that may follow.
fn seen(status: &Status, trip: u64) -> TripSeen {
    let holds = |motor: &&Motor| motor.latched && motor.trip == Some(trip);
    let violations = status.motors.iter().filter(holds).map(|motor| motor.violations).max().unwrap_or(0);
    TripSeen { trip: TripId(trip), violations }
}

/// Says that the stop of a trip was violated.
fn violated(seen: TripSeen) -> String {
    match seen.violations {
        0 => String::new(),
        1 => "; its stop was VIOLATED once: somebody moved or energised a motor of it".to_owned(),
        count => format!("; its stop was VIOLATED {count} times: somebody moves or energises a motor of it"),
    }
}

/// Trips of single motors that wait for a reset, each once.
fn latched(status: &Status) -> Vec<String> {
    let trips: BTreeSet<u64> =
        status.motors.iter().filter(|motor| motor.latched).filter_map(|motor| motor.trip).collect();
    let waiting = trips.into_iter().filter(|trip| status.latch != Some(*trip));
    waiting
        .map(|trip| {
            let motors: Vec<&Motor> =
                status.motors.iter().filter(|motor| motor.latched && motor.trip == Some(trip)).collect();
            let names: Vec<&str> = motors.iter().map(|motor| motor.name.as_str()).collect();
            let reason = motors.iter().find_map(|motor| motor.reason).unwrap_or("reason unknown");
            let seen = seen(status, trip);
            format!(
                "trip {trip} ({reason}) holds {}{}: lanyard reset {seen}",
                names.join(", "),
                violated(seen)
            )
        })
        .collect()
}

fn consequence(flag: Degraded) -> &'static str {
    match flag {
        Degraded::Scheduling => "other programs can delay a stop",
        Degraded::Affinity => "work on other CPUs can delay a stop",
        Degraded::Memory => "a page fault can delay a stop",
        Degraded::Privileges => "a fault in the supervisor could do more harm than it need",
        Degraded::SystemCalls => "a fault in the supervisor could do more harm than it need",
        Degraded::Latency => "an idle CPU can delay a stop by the time it takes to wake",
        Degraded::KernelStop => "nothing but the drives' own watchdogs stops them if the supervisor hangs",
        Degraded::Watchdog => {
            "a machine that hangs stays so: the log of the supervisor says why it is not fed"
        }
        Degraded::LocalDrives => {
            "every program of this computer can speak for its drives (local_drives = true in a [[bus]]): for simulated \
             drives only, never on a robot"
        }
        Degraded::LatchesNotKept => {
            "an operator's stop, and whatever else waits for a reset, may be forgotten when the supervisor is stopped or the \
             computer loses power. The log of the supervisor says why it cannot be written"
        }
        Degraded::LatchesLost => {
            "what was held before the supervisor was started is not known, so every motor waits for a reset. Look at the \
             robot first"
        }
    }
}

/// The kernel's words for an error number.
pub fn error_text(number: u64) -> String {
    match i32::try_from(number) {
        Ok(number) => std::io::Error::from_raw_os_error(number).to_string(),
        Err(_) => format!("error {number}"),
    }
}

#[cfg(test)]
mod tests {
    use shm_proto::Nanos;
    use shm_proto::verdicts::{BusVerdict, MotorVerdict};

    use super::*;
    use crate::fixture::{self, SECOND};

    #[test]
    fn a_hanging_supervisor_comes_first() {
        let (_segment, view) = fixture::healthy();
        let late = shm_proto::Nanos(fixture::NOW.0 + SECOND);
        let status = Status::read(&view, late, None);
        assert!(!status.healthy);
        assert!(
            status.alerts[0].starts_with("THE SUPERVISOR DOES NOT RUN ITS LOOP: its last pass was 1.0 s")
        );
        assert_eq!(status.alerts.len(), 1);
    }

    #[test]
    fn each_health_of_a_bus_has_its_remedy() {
        let cases = [
            (BusHealth::Unknown, 1, None),
            (BusHealth::Active, 1, None),
            (BusHealth::Warning, 1, Some("berr-reporting")),
            (BusHealth::Passive, 0, Some("bit rate")),
            (BusHealth::BusOff, 0, Some("ip link set can0 type can restart")),
            (BusHealth::Down, 0, Some("ip link set can0 up")),
        ];
        for (health, up, remedy) in cases {
            let (segment, view) = fixture::bare(&["left"], &["can0"]);
            segment.motor(shm_proto::MotorIndex(0), &fixture::idle());
            segment.bus(0, &BusVerdict { up, health, ..fixture::WELL });
            let alerts = Status::read(&view, fixture::NOW, None).alerts;
            assert_eq!(alerts.len(), usize::from(remedy.is_some()), "{alerts:#?}");
            let told = alerts.first().map_or("", String::as_str);
            assert!(told.contains(remedy.unwrap_or_default()), "{health:?}: {told}");
        }
    }

    /// Fails if a motor that rolls or is pushed looks like one that rests.
    #[test]
    fn a_motor_that_moves_without_power_is_told() {
        let (segment, view) = fixture::healthy();
        segment.motor(
            shm_proto::MotorIndex(1),
            &MotorVerdict {
                moves: Nanos(fixture::NOW.0 - 2 * SECOND),
                velocity: Some(0.5),
                ..fixture::idle()
            },
        );
        let status = Status::read(&view, fixture::NOW, None);
        let [alert] = &status.alerts[..] else { panic!("{:?}", status.alerts) };
        assert!(alert.starts_with("motor right MOVES WITH ITS POWER OFF since 2.0 s: "), "{alert}");
        assert!(!status.healthy);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!((&json["motors"][1]["moves"], &json["motors"][0]["moves"]), (&true.into(), &false.into()));
        let lines = crate::text::render(&status);
        assert!(
            lines.iter().any(|line| line.text.starts_with("right  can0  MOVES        -     -  30.0  off")),
            "{lines:#?}"
        );
    }

    #[test]
    fn feedback_of_a_local_program_is_told_while_it_goes_on() {
        for (age, expected) in [(SECOND / 10, true), (10 * SECOND, false)] {
            let (segment, view) = fixture::bare(&["left"], &["can0"]);
            segment.motor(shm_proto::MotorIndex(0), &fixture::idle());
            let disbelieved_at = Nanos(fixture::NOW.0 - age);
            segment.bus(0, &BusVerdict { disbelieved: 7, disbelieved_at, ..fixture::WELL });
            let alerts = Status::read(&view, fixture::NOW, None).alerts;
            assert_eq!(alerts.len(), usize::from(expected), "{alerts:#?}");
            let words = ["can0", "NOT BELIEVED (7 frames)", "local_drives = true"];
            assert!(alerts.iter().all(|alert| words.iter().all(|word| alert.contains(word))), "{alerts:#?}");
        }
    }

    #[test]
    fn a_stop_that_nobody_acknowledges_is_told_where_it_can_be_known() {
        let stopping = |age: u64, confirmed: u64| MotorVerdict {
            state: MotorState::Stopping,
            first_stop: Nanos(fixture::NOW.0 - age),
            confirmed: Nanos(confirmed),
            ..fixture::idle()
        };
        let cases = [
            (1, stopping(SECOND, 0), true),
            (1, stopping(SECOND, fixture::NOW.0), false),
            (1, stopping(SECOND / 4, 0), false),
            // vcan and slcan do not tell.
            (0, stopping(SECOND, 0), false),
            // Proven: the frames have arrived, whatever became of their echoes.
            (1, MotorVerdict { state: MotorState::Stopped, ..stopping(SECOND, 0) }, false),
        ];
        for (confirms, motor, expected) in cases {
            let (segment, view) = fixture::bare(&["left"], &["can0"]);
            segment.bus(0, &BusVerdict { confirms, ..fixture::WELL });
            segment.motor(shm_proto::MotorIndex(0), &motor);
            let alerts = Status::read(&view, fixture::NOW, None).alerts;
            let told = alerts.iter().any(|alert| alert.contains("none of its stop frames was acknowledged"));
            assert_eq!(told, expected, "{motor:?} {alerts:#?}");
        }
    }

    #[test]
    fn every_trouble_is_named_with_its_remedy() {
        let (segment, view) = fixture::tripped();
        let counters = [
            (Counter::Allocations, 2),
            (Counter::MinorFaults, 3),
            (Counter::MajorFaults, 1),
            (Counter::SelfOverruns, 1),
            (Counter::WorstLatenessNanos, 45_000_000),
        ];
        for (counter, value) in counters {
            segment.counter(counter, value);
        }
        let alerts = Status::read(&view, fixture::NOW, None).alerts;
        let expected = [
            "told to exit",
            "right is NOT PROVEN TO STAND STILL (trip 6: session expired)",
            "right: none of its stop frames was acknowledged on bus can0 since 2.9 s",
            "trip 7 keeps EVERY motor stopped",
            "trip 6 (session expired) holds right: lanyard reset 6",
            "bus can0 DOES NOT WORK (bus-off; transmit errors 248, receive errors 0)",
            "a promise is broken: the real-time thread used the heap 2 times",
            "a promise is broken: the real-time thread took 3 page faults without and 1 with a disk",
            "self-overrun: the supervisor's loop was later than max_lateness 1 times (at worst 45.000 ms)",
            "DEGRADED, not SCHED_FIFO",
            "DEGRADED, memory not locked",
        ];
        assert_eq!(alerts.len(), expected.len(), "{alerts:#?}");
        for (alert, expected) in alerts.iter().zip(expected) {
            assert!(alert.contains(expected), "{alert:?} lacks {expected:?}");
        }
    }
}
