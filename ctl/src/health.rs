//! What is not in order and what to do about it: the loud part of `lanyard status`, and its exit code.

use std::collections::BTreeSet;

use shm_proto::VerdictView;
use shm_proto::verdicts::{Degraded, MotorState, Phase};

use crate::spans::coarse;
use crate::status::{Motor, Status};

/// The loop passes at least every 20 ms (the longest tick); fifty times that is no hiccup.
const LOOP_IS_STALE: u64 = 1_000_000_000;

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
    if let Some(trip) = status.latch {
        alerts.push(format!(
            "trip {trip} keeps EVERY motor stopped. When you know why and all is clear: lanyard reset {trip}"
        ));
    }
    alerts.extend(latched(status));
    alerts.extend(status.buses.iter().filter(|bus| !bus.up).map(|bus| {
        let reason = bus.last_error.map_or(String::new(), |number| format!(" ({})", error_text(number)));
        format!("bus {} DOES NOT WORK{reason}: no stop frame reaches its motors", bus.name)
    }));
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
        motor.fault.map(|fault| format!("motor {name}: its drive reports fault {fault:#x}"))
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
            format!("trip {trip} ({reason}) holds {}: lanyard reset {trip}", names.join(", "))
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
    use super::*;
    use crate::fixture::{self, SECOND};

    #[test]
    fn a_hanging_supervisor_comes_first() {
        let (_segment, view) = fixture::healthy();
        let late = shm_proto::Nanos(fixture::NOW.0 + SECOND);
        let status = Status::read(&view, late);
        assert!(!status.healthy);
        assert!(
            status.alerts[0].starts_with("THE SUPERVISOR DOES NOT RUN ITS LOOP: its last pass was 1.0 s")
        );
        assert_eq!(status.alerts.len(), 1);
    }

    #[test]
    fn every_trouble_is_named_with_its_remedy() {
        let (_segment, view) = fixture::tripped();
        let alerts = Status::read(&view, fixture::NOW).alerts;
        let expected = [
            "told to exit",
            "right is NOT PROVEN TO STAND STILL (trip 6: session expired)",
            "trip 7 keeps EVERY motor stopped",
            "trip 6 (session expired) holds right: lanyard reset 6",
            "bus can0 DOES NOT WORK (No buffer space available",
            "DEGRADED, not SCHED_FIFO",
            "DEGRADED, memory not locked",
        ];
        assert_eq!(alerts.len(), expected.len(), "{alerts:#?}");
        for (alert, expected) in alerts.iter().zip(expected) {
            assert!(alert.contains(expected), "{alert:?} lacks {expected:?}");
        }
    }
}
