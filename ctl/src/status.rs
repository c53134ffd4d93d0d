//! One look at the verdict segment, as plain data. Its fields are the JSON of `lanyard status --json`:
//! names are stable, `_ns` is a moment on `CLOCK_BOOTTIME`, `_ms` a length of time, and what is absent
//! is null.

use std::collections::BTreeMap;

use config::Config;
use drivers::Fault;
use serde::Serialize;
use shm_proto::verdicts::{
    Counter, MotorState, MotorVerdict, PastEvidence, Predecessor as Ending, SessionState,
};
use shm_proto::{MotorIndex, Nanos, Reject, SlotIndex, TripId, VerdictView};

use crate::health;
use crate::spans::millis;

/// Everything the supervisor publishes.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Armed and nothing to report; then the exit code is 0.
    pub healthy: bool,
    /// What needs a human, most urgent first; empty when healthy.
    pub alerts: Vec<String>,
    /// Moment of the look.
    pub at_ns: u64,
    /// What the supervisor is doing: `armed` is the good one.
    pub phase: &'static str,
    /// Its process.
    pub pid: u64,
    /// When it started.
    pub started_ns: u64,
    /// How long it runs.
    pub uptime_ms: f64,
    /// Passes of its loop.
    pub loop_count: u64,
    /// How long ago the last pass was; above 1000 the supervisor hangs or is gone.
    pub loop_age_ms: f64,
    /// Hash of its configuration file, hexadecimal.
    pub config_hash: String,
    /// `auto` or `manual`.
    pub reset_policy: &'static str,
    /// The trip that keeps everything stopped until it is reset.
    pub latch: Option<u64>,
    /// Whether whatever waits for a reset is kept over a stop, a reboot, a power loss: `on disk`, `pending` or `refused`.
    pub latches_kept: &'static str,
    /// What the system refused the supervisor.
    pub degraded: Vec<&'static str>,
    /// The attached front.
    pub front: Option<Front>,
    /// The supervisor before this one, if it left anything.
    pub predecessor: Option<Predecessor>,
    /// Whether this machine was last reset by its hardware watchdog.
    pub watchdog_reset: bool,
    /// In the order of the configuration.
    pub buses: Vec<Bus>,
    /// Sessions of all slots that are not vacant.
    pub sessions: Vec<Session>,
    /// In the order of the configuration.
    pub motors: Vec<Motor>,
    /// Whole-supervisor counters.
    pub counters: BTreeMap<String, u64>,
    /// Beats that were not believed, by kind.
    pub rejects: BTreeMap<String, u64>,
    /// How many events there have been since start.
    pub event_count: u64,
}

/// The supervisor before this one.
#[derive(Clone, Debug, Serialize)]
pub struct Predecessor {
    /// `ended`, `died`, or `unreadable`: what it left cannot be read.
    pub ending: &'static str,
    /// When its loop last passed.
    pub seen_ns: Option<u64>,
}

/// What was last known of a motor before the restart. It proves nothing now.
#[derive(Clone, Debug, Serialize)]
pub struct BeforeRestart {
    /// When it was last proven to stand still.
    pub standstill_ns: Option<u64>,
    /// When its drive was last heard.
    pub feedback_ns: Option<u64>,
}

/// The attached front.
#[derive(Clone, Debug, Serialize)]
pub struct Front {
    /// Its process.
    pub pid: u64,
    /// Which hand-over it is, from 1.
    pub generation: u64,
    /// How long ago it beat.
    pub last_beat_age_ms: Option<f64>,
}

/// A CAN bus.
#[derive(Clone, Debug, Serialize)]
pub struct Bus {
    /// Its name.
    pub name: String,
    /// Whether it works.
    pub up: bool,
    /// Frames handed to the kernel.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Frames the kernel refused.
    pub errors: u64,
    /// The last error number of the kernel (errno).
    pub last_error: Option<u64>,
    /// How well it is: `unknown` where the interface does not tell, else `error-active`, `error-warning`,
    /// `error-passive`, `bus-off` or `down`.
    pub health: &'static str,
    /// Whether the interface tells which frames were acknowledged on the wire.
    pub confirms: bool,
    /// Frames that were; 0 where the interface does not tell.
    pub confirmed: u64,
    /// Error frames the interface reported.
    pub error_frames: u64,
    /// Frames refused because the transmit queue was full.
    pub queue_full: u64,
    /// The controller's transmit error counter, as last reported.
    pub tx_errors: u64,
    /// The controller's receive error counter, as last reported.
    pub rx_errors: u64,
    /// Frames of programs of this computer that spoke for a drive or for the interface, and were not believed.
    pub disbelieved: u64,
    /// When the last of them came, by CLOCK_BOOTTIME.
    pub disbelieved_ns: Option<u64>,
}

/// A session.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// Its slot.
    pub slot: u16,
    /// The session's id, a UUID.
    pub id: String,
    /// Which session of the slot.
    pub incarnation: u64,
    /// `live`, `tripped` or `closed`.
    pub state: &'static str,
    /// How long it may be silent.
    pub window_ms: f64,
    /// When it will count as silent; live sessions only.
    pub deadline_ns: Option<u64>,
    /// How long until then; negative when it is past.
    pub deadline_in_ms: Option<f64>,
    /// How long ago it beat.
    pub last_beat_age_ms: Option<f64>,
    /// Beats accepted.
    pub beats: u64,
    /// The trip that ended it.
    pub trip: Option<u64>,
}

/// Who holds a motor.
#[derive(Clone, Debug, Serialize)]
pub struct Holder {
    /// The session's slot.
    pub slot: u16,
    /// Which session of the slot.
    pub incarnation: u64,
    /// The session's id, if it is still in the slot.
    pub session: Option<String>,
}

/// A motor.
#[derive(Clone, Debug, Serialize)]
pub struct Motor {
    /// Its name.
    pub name: String,
    /// Name of its bus.
    pub bus: String,
    /// `idle`, `granted`, `stopping`, `stopped` or `unverified`.
    pub state: &'static str,
    /// Stage of the stop, from 1: controlled, torque off, latch; null while it is not being stopped.
    pub stage: Option<u64>,
    /// Whether it is proven to stand still: since its last stop, and not driven since.
    pub standstill: bool,
    /// When it was last proven since its last stop, whatever it has done afterwards.
    pub standstill_ns: Option<u64>,
    /// Whether its trip must be reset before it may be granted again.
    pub latched: bool,
    /// The session it is granted to.
    pub granted_to: Option<Holder>,
    /// Whether it turns with its power off, and no session has it: it is pushed, or it rolls.
    pub moves: bool,
    /// Since when.
    pub moves_since_ns: Option<u64>,
    /// Measured speed.
    pub velocity_rpm: Option<f64>,
    /// Measured position, revolutions.
    pub position_rev: Option<f64>,
    /// The drive's word on its power stage.
    pub power: &'static str,
    /// The drive's own fault code.
    pub fault: Option<u64>,
    /// The same in words, when the configuration at hand is the supervisor's.
    pub fault_words: Option<String>,
    /// How long ago the drive was heard.
    pub feedback_age_ms: Option<f64>,
    /// What the supervisor before this one last knew of it.
    pub before_restart: Option<BeforeRestart>,
    /// The trip that stopped it last.
    pub trip: Option<u64>,
    /// Why.
    pub reason: Option<&'static str>,
    /// When the first stop frame of that trip was handed to the kernel.
    pub first_stop_ns: Option<u64>,
    /// When a stop frame of that trip was first acknowledged on the wire; null where the interface of its
    /// bus does not tell.
    pub confirmed_ns: Option<u64>,
    /// Stop frames sent since the supervisor started.
    pub stops_sent: u64,
    /// Motion frames of others answered with the stop.
    pub guarded: u64,
    /// How often the stop of that trip was violated; a reset has to name it.
    pub violations: u64,
}

/// A moment, unless it never happened.
pub fn moment(at: Nanos) -> Option<u64> {
    (at != Nanos::ZERO && at != Nanos::NEVER).then_some(at.0)
}

/// The trip's number, unless there is none.
pub fn trip(trip: TripId) -> Option<u64> {
    (trip != TripId::NONE).then_some(trip.0)
}

/// Names of all motors, by index.
pub fn motor_names(view: &VerdictView) -> Vec<String> {
    (0..view.motor_count()).map(|index| view.motor_name(MotorIndex(index))).collect()
}

impl Status {
    /// Reads everything; `now` is taken before, so that no age is too large. With the supervisor's own
    /// configuration, drives' faults are told in words.
    pub fn read(view: &VerdictView, now: Nanos, config: Option<&Config>) -> Self {
        let config = config.filter(|config| config.hash == view.config_hash());
        let (loop_count, looped) = view.beat();
        // Before its first pass the supervisor is as old as its start.
        let loop_age = now.since(looped.max(view.started()));
        let (generation, front_pid) = view.front();
        let mut status = Self {
            healthy: false,
            alerts: Vec::new(),
            at_ns: now.0,
            phase: view.phase().map_or("unknown", |phase| phase.name()),
            pid: view.pid(),
            started_ns: view.started().0,
            uptime_ms: millis(now.since(view.started())),
            loop_count,
            loop_age_ms: millis(loop_age),
            config_hash: format!("{:016x}", view.config_hash()),
            reset_policy: view.policy().map_or("unknown", |policy| policy.name()),
            latch: trip(view.latch()),
            latches_kept: view.keeping().name(),
            degraded: view.degraded().map(|flag| flag.name()).collect(),
            front: (front_pid != 0).then(|| Front {
                pid: front_pid,
                generation: generation.0,
                last_beat_age_ms: age(now, view.front_beat()),
            }),
            predecessor: predecessor(view),
            watchdog_reset: view.watchdog_reset(),
            buses: (0..view.bus_count()).filter_map(|index| bus(view, index)).collect(),
            sessions: view.capacity().slots().filter_map(|slot| session(view, slot, now)).collect(),
            motors: (0..view.motor_count()).filter_map(|i| motor(view, MotorIndex(i), now)).collect(),
            counters: Counter::ALL.iter().map(|c| (snake(c.name()), view.counter(*c))).collect(),
            rejects: Reject::ALL.iter().map(|r| (snake(r.name()), view.rejects(*r))).collect(),
            event_count: view.event_count(),
        };
        for motor in &mut status.motors {
            motor.fault_words = config.and_then(|config| words(config, motor));
        }
        status.alerts = health::alerts(&status, view, loop_age);
        status.healthy = status.alerts.is_empty();
        status
    }
}

/// A drive's fault in the words of its family.
fn words(config: &Config, motor: &Motor) -> Option<String> {
    let fault = u32::try_from(motor.fault?).ok()?;
    let drive = &config.motors.iter().find(|known| known.name == motor.name)?.drive;
    Some(drive.explain(Fault(fault)))
}

/// The name of a counter as JSON has it.
pub fn snake(name: &str) -> String {
    name.replace('-', "_")
}

fn age(now: Nanos, at: Nanos) -> Option<f64> {
    moment(at).map(|_| millis(now.since(at)))
}

fn predecessor(view: &VerdictView) -> Option<Predecessor> {
    let (ending, seen) = view.predecessor();
    (ending != Ending::None).then(|| Predecessor { ending: ending.name(), seen_ns: moment(seen) })
}

fn before_restart(past: PastEvidence) -> Option<BeforeRestart> {
    (past != PastEvidence::default())
        .then(|| BeforeRestart { standstill_ns: moment(past.standstill), feedback_ns: moment(past.feedback) })
}

fn bus(view: &VerdictView, index: usize) -> Option<Bus> {
    let bus = view.bus(index)?;
    Some(Bus {
        name: view.bus_name(index),
        up: bus.up == 1,
        sent: bus.sent,
        received: bus.received,
        errors: bus.errors,
        last_error: (bus.last_error != 0).then_some(bus.last_error),
        health: bus.health.name(),
        confirms: bus.confirms == 1,
        confirmed: bus.confirmed,
        error_frames: bus.error_frames,
        queue_full: bus.queue_full,
        tx_errors: bus.tx_errors,
        rx_errors: bus.rx_errors,
        disbelieved: bus.disbelieved,
        disbelieved_ns: moment(bus.disbelieved_at),
    })
}

fn session(view: &VerdictView, slot: SlotIndex, now: Nanos) -> Option<Session> {
    let session = view.session(slot).filter(|session| session.state != SessionState::Vacant)?;
    let deadline = Some(session.deadline)
        .filter(|deadline| session.state == SessionState::Live && moment(*deadline).is_some());
    Some(Session {
        slot: slot.0,
        id: session.session.to_string(),
        incarnation: session.incarnation.get(),
        state: session.state.name(),
        window_ms: millis(session.window),
        deadline_ns: deadline.map(|deadline| deadline.0),
        deadline_in_ms: deadline.map(|deadline| millis(deadline.since(now)) - millis(now.since(deadline))),
        last_beat_age_ms: age(now, session.last_beat),
        beats: session.beats,
        trip: trip(session.trip),
    })
}

fn motor(view: &VerdictView, index: MotorIndex, now: Nanos) -> Option<Motor> {
    let motor = view.motor(index)?;
    let stops = matches!(motor.state, MotorState::Stopping | MotorState::Stopped | MotorState::Unverified);
    let bus = usize::try_from(motor.bus).unwrap_or(usize::MAX);
    let power = usize::try_from(motor.power).ok().and_then(|at| MotorVerdict::POWER_NAMES.get(at));
    Some(Motor {
        name: view.motor_name(index),
        bus: view.bus_name(bus),
        state: motor.state.name(),
        stage: stops.then(|| motor.stage.saturating_add(1)),
        standstill: motor.is_proven_to_stand_still(now),
        standstill_ns: moment(motor.standstill),
        latched: motor.latched != 0,
        granted_to: motor.grant.map(|owner| Holder {
            slot: owner.slot.0,
            incarnation: owner.incarnation.get(),
            session: view
                .session(owner.slot)
                .filter(|session| session.incarnation == owner.incarnation)
                .map(|session| session.session.to_string()),
        }),
        moves: motor.moves != Nanos::ZERO,
        moves_since_ns: moment(motor.moves),
        velocity_rpm: motor.velocity.map(|velocity| f64::from(velocity) * 60.0),
        position_rev: motor.position,
        power: power.copied().unwrap_or("unknown"),
        fault: (motor.fault != 0).then_some(motor.fault),
        fault_words: None,
        feedback_age_ms: age(now, motor.feedback),
        before_restart: view.past_evidence(index).and_then(before_restart),
        trip: trip(motor.trip),
        reason: motor.reason.map(|reason| reason.name()),
        first_stop_ns: moment(motor.first_stop),
        confirmed_ns: moment(motor.confirmed),
        stops_sent: motor.stops_sent,
        guarded: motor.guarded,
        violations: motor.violations,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::{self, SECOND};

    #[test]
    fn a_healthy_robot_as_json() {
        let (_segment, view) = fixture::healthy();
        let status = Status::read(&view, fixture::NOW, None);
        assert_eq!(status.alerts, [""; 0]);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["healthy"], true);
        assert_eq!(json["phase"], "armed");
        assert_eq!(json["pid"], 4242);
        assert_eq!(json["uptime_ms"], 90_000.0);
        assert_eq!(json["loop_age_ms"], 2.0);
        assert_eq!(json["config_hash"], "00000000000000ab");
        assert_eq!(json["reset_policy"], "manual");
        assert_eq!(json["latch"], json!(null));
        assert_eq!(json["latches_kept"], "on disk");
        assert_eq!(json["degraded"], json!([]));
        assert_eq!((&json["predecessor"], &json["watchdog_reset"]), (&json!(null), &json!(false)));
        assert_eq!(json["front"], json!({"pid": 4300, "generation": 3, "last_beat_age_ms": 4.0}));
        assert_eq!(
            json["buses"],
            json!([{
                "name": "can0",
                "up": true,
                "sent": 10,
                "received": 20,
                "errors": 0,
                "last_error": null,
                "health": "error-active",
                "confirms": true,
                "confirmed": 9,
                "error_frames": 0,
                "queue_full": 0,
                "tx_errors": 0,
                "rx_errors": 0,
                "disbelieved": 0,
                "disbelieved_ns": null,
            }])
        );
        assert_eq!(
            json["sessions"],
            json!([{
                "slot": 1,
                "id": "00000000-0000-0000-0000-0000000000ff",
                "incarnation": 2,
                "state": "live",
                "window_ms": 2000.0,
                "deadline_ns": fixture::NOW.0 + 1_900_000_000,
                "deadline_in_ms": 1900.0,
                "last_beat_age_ms": 100.0,
                "beats": 77,
                "trip": null,
            }])
        );
        assert_eq!(
            json["motors"][0],
            json!({
                "name": "left",
                "bus": "can0",
                "state": "granted",
                "stage": null,
                "standstill": false,
                "standstill_ns": null,
                "latched": false,
                "granted_to": {
                    "slot": 1, "incarnation": 2, "session": "00000000-0000-0000-0000-0000000000ff"
                },
                "moves": false,
                "moves_since_ns": null,
                "velocity_rpm": 90.0,
                "position_rev": -12.5,
                "power": "on",
                "fault": null,
                "fault_words": null,
                "feedback_age_ms": 10.0,
                "before_restart": null,
                "trip": null,
                "reason": null,
                "first_stop_ns": null,
                "confirmed_ns": null,
                "stops_sent": 5,
                "guarded": 0,
                "violations": 0,
            })
        );
        assert_eq!(json["motors"][1]["granted_to"], json!(null));
        assert_eq!(json["counters"]["late_loops"], 0);
        assert_eq!(json["counters"]["worst_trip_ns"], 43_000);
        assert_eq!(json["rejects"]["wrong_session"], 6);
        assert_eq!(json["event_count"], 0);
    }

    /// Fails if a fault stays a number where its meaning is known, or is explained by another robot's file.
    #[test]
    fn faults_are_told_in_words_by_the_supervisors_own_configuration() {
        let robot = "[[bus]]\nname = \"can0\"\n[[motor]]\nname = \"right\"\nbus = \"can0\"\ndriver = \"odrive\"\n\
            firmware = \"0.6\"\nnode = 1\nafter_stop = \"hold\"\nmax_rpm = 100\n";
        let mut config = Config::parse(std::path::Path::new("robot.toml"), robot).unwrap();
        let (_segment, view) = fixture::tripped();
        let words =
            |config: &Config| Status::read(&view, fixture::NOW, Some(config)).motors[1].fault_words.clone();
        assert_eq!(words(&config), None, "another file");
        config.hash = view.config_hash();
        assert_eq!(words(&config).as_deref(), Some("watchdog expired"));
    }

    #[test]
    fn a_tripped_robot_as_json() {
        let (_segment, view) = fixture::tripped();
        let json = serde_json::to_value(Status::read(&view, fixture::NOW, None)).unwrap();
        assert_eq!(json["healthy"], false);
        assert_eq!(json["latch"], 7);
        assert_eq!(json["latches_kept"], "pending");
        assert_eq!(json["degraded"], json!(["not SCHED_FIFO", "memory not locked"]));
        assert_eq!(json["front"], json!(null));
        assert_eq!(json["sessions"][0]["state"], "tripped");
        assert_eq!(json["sessions"][0]["deadline_in_ms"], json!(null));
        assert_eq!(json["sessions"][0]["trip"], 6);
        let [left, right] = [&json["motors"][0], &json["motors"][1]];
        assert_eq!((&left["state"], &left["stage"]), (&json!("stopped"), &json!(1)));
        assert_eq!((&left["standstill"], &left["latched"]), (&json!(true), &json!(true)));
        assert_eq!(left["standstill_ns"], fixture::NOW.0 - SECOND);
        assert_eq!(left["confirmed_ns"], fixture::NOW.0 - 2 * SECOND + 1_000_000);
        assert_eq!((&right["state"], &right["stage"]), (&json!("unverified"), &json!(3)));
        assert_eq!((&right["reason"], &right["trip"]), (&json!("session expired"), &json!(6)));
        assert_eq!((&right["fault"], &right["velocity_rpm"]), (&json!(0x0100_0000), &json!(null)));
        assert_eq!(json["buses"][0]["up"], false);
        assert_eq!(json["buses"][0]["health"], "bus-off");
        assert_eq!(
            (&json["buses"][0]["tx_errors"], &json["buses"][0]["queue_full"]),
            (&json!(248), &json!(4))
        );
        assert_eq!(json["buses"][0]["last_error"], 105);
    }

    #[test]
    fn what_was_before_the_restart_is_told_and_no_more() {
        let (segment, view) = fixture::healthy();
        segment.predecessor(Ending::Died, Nanos(5 * SECOND));
        let past = PastEvidence { standstill: Nanos(3 * SECOND), feedback: Nanos(4 * SECOND) };
        segment.past_evidence(MotorIndex(1), &past);
        let json = serde_json::to_value(Status::read(&view, fixture::NOW, None)).unwrap();
        assert_eq!(json["predecessor"], json!({"ending": "died", "seen_ns": 5 * SECOND}));
        let before = json!({"standstill_ns": 3 * SECOND, "feedback_ns": 4 * SECOND});
        assert_eq!(json["motors"][1]["before_restart"], before);
        assert_eq!((&json["motors"][1]["standstill"], &json["healthy"]), (&json!(false), &json!(true)));
    }

    #[test]
    fn a_motor_that_is_driven_again_does_not_stand_still() {
        let (segment, view) = fixture::bare(&["left"], &["can0"]);
        for (state, still) in [
            (MotorState::Idle, true),
            (MotorState::Stopped, true),
            (MotorState::Granted, false),
            (MotorState::Stopping, false),
            (MotorState::Unverified, false),
        ] {
            let verdict = MotorVerdict { state, standstill: Nanos(3 * SECOND), ..fixture::idle() };
            segment.motor(MotorIndex(0), &verdict);
            let json = serde_json::to_value(Status::read(&view, fixture::NOW, None)).unwrap();
            let motor = &json["motors"][0];
            assert_eq!(motor["standstill"], still, "{state:?}");
            assert_eq!(motor["standstill_ns"], 3 * SECOND, "the moment stays: {state:?}");
        }
        let pushed =
            MotorVerdict { standstill: Nanos(3 * SECOND), moves: Nanos(4 * SECOND), ..fixture::idle() };
        segment.motor(MotorIndex(0), &pushed);
        let json = serde_json::to_value(Status::read(&view, fixture::NOW, None)).unwrap();
        assert_eq!(json["motors"][0]["standstill"], false, "it is pushed");
        for (age, still) in
            [(MotorVerdict::FEEDBACK_WINDOW_NS, true), (MotorVerdict::FEEDBACK_WINDOW_NS + 1, false)]
        {
            let feedback = Nanos(fixture::NOW.0 - age);
            let silent = MotorVerdict { standstill: Nanos(3 * SECOND), feedback, ..fixture::idle() };
            segment.motor(MotorIndex(0), &silent);
            let json = serde_json::to_value(Status::read(&view, fixture::NOW, None)).unwrap();
            assert_eq!(json["motors"][0]["standstill"], still, "its drive has said nothing for {age} ns");
        }
    }
}
