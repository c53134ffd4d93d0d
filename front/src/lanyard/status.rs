//! The supervisor's verdicts in words.

use std::time::Duration;

use config::Config;
use shm_proto::verdicts::{MotorState, MotorVerdict};
use shm_proto::{MotorIndex, Nanos, TripId, VerdictView};

use crate::proto::lanyard::{GetStatusResponse, MotorStatus};

/// What the supervisor says. One that has been silent for longer than `patience` watches nobody.
pub fn of(config: &Config, verdicts: &VerdictView, patience: Duration) -> GetStatusResponse {
    let now = Nanos::now();
    let (_, last) = verdicts.beat();
    let motors =
        (0..).map(MotorIndex).zip(&config.motors).map(|(index, motor)| match verdicts.motor(index) {
            Some(verdict) => told(&motor.name, &verdict, now),
            None => unknown(&motor.name),
        });
    GetStatusResponse {
        watched: u128::from(now.since(last)) <= patience.as_nanos(),
        phase: verdicts.phase().map_or("", |phase| phase.name()).to_owned(),
        latch: verdicts.latch().0,
        reset: verdicts.policy().map_or("", |policy| policy.name()).to_owned(),
        motors: motors.collect(),
    }
}

/// What can be said when there is no supervisor.
pub fn unwatched(config: &Config) -> GetStatusResponse {
    let motors = config.motors.iter().map(|motor| unknown(&motor.name)).collect();
    GetStatusResponse { motors, ..GetStatusResponse::default() }
}

fn unknown(name: &str) -> MotorStatus {
    let text = "unknown: the supervisor does not say; it is not running, or runs with another configuration";
    MotorStatus { name: name.to_owned(), text: text.to_owned(), ..MotorStatus::default() }
}

fn told(name: &str, verdict: &MotorVerdict, now: Nanos) -> MotorStatus {
    let heard = (verdict.feedback != Nanos::ZERO).then(|| now.since(verdict.feedback) / 1_000_000);
    MotorStatus {
        name: name.to_owned(),
        state: verdict.state.name().to_owned(),
        trip: verdict.trip.0,
        reason: verdict.reason.map_or("", |reason| reason.name()).to_owned(),
        needs_reset: verdict.latched != 0,
        velocity_rpm: verdict.velocity.map(|velocity| f64::from(velocity) * 60.0),
        heard_ms_ago: heard,
        text: sentence(verdict, heard),
    }
}

fn sentence(verdict: &MotorVerdict, heard_ms_ago: Option<u64>) -> String {
    let mut text = match verdict.state {
        MotorState::Idle => "idle, may be driven".to_owned(),
        MotorState::Granted => "driven by a session".to_owned(),
        MotorState::Stopping => format!("being stopped, stage {}", verdict.stage + 1),
        MotorState::Stopped => "proven to stand still".to_owned(),
        MotorState::Unverified => {
            "told to stop and NOT proven to stand still: every stage was sent, the last one is repeated"
                .to_owned()
        }
    };
    if verdict.trip != TripId::NONE {
        let reason = verdict.reason.map_or("unknown reason", |reason| reason.name());
        text += &format!("; stopped last by trip {} ({reason})", verdict.trip);
    }
    if verdict.latched != 0 {
        text += &format!("; it needs a reset of trip {}", verdict.trip);
    }
    if verdict.fault != 0 {
        text += &format!("; its drive reports fault {:#x}", verdict.fault);
    }
    if heard_ms_ago.is_none() {
        text += "; its drive was never heard";
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shm_proto::verdicts::{MotorVerdict, Phase, Reason};

    use super::*;
    use crate::sessions::testing::Watcher;

    const ROBOT: &str = "[[bus]]\nname = \"can0\"\n[[motor]]\nname = \"left\"\nbus = \"can0\"\ndriver = \"odrive\"\n\
        firmware = \"0.6\"\nnode = 1\nafter_stop = \"hold\"\nmax_rpm = 100\n";

    fn config() -> Config {
        Config::parse(Path::new("robot.toml"), ROBOT).unwrap()
    }

    fn verdict() -> MotorVerdict {
        MotorVerdict {
            grant: None,
            state: MotorState::Stopped,
            stage: 0,
            trip: TripId(7),
            reason: Some(Reason::Expired),
            first_stop: Nanos(1),
            confirmed: Nanos::ZERO,
            standstill: Nanos(2),
            stops_sent: 2,
            velocity: Some(-0.5),
            position: None,
            power: 0,
            fault: 0,
            feedback: Nanos(1),
            bus: 0,
            guarded: 0,
            violations: 0,
            moves: Nanos::ZERO,
            latched: 1,
        }
    }

    #[test]
    fn a_stopped_motor_is_told_with_its_trip_and_its_reason() {
        let watcher = Watcher::with_room(1);
        watcher.verdicts.phase(Phase::Armed);
        watcher.verdicts.motor(MotorIndex(0), &verdict());
        let status = of(&config(), &watcher.attachment.verdicts, Duration::from_secs(60));
        assert!(status.watched);
        assert_eq!((status.phase.as_str(), status.reset.as_str()), ("armed", "auto"));
        let left = &status.motors[0];
        assert_eq!((left.name.as_str(), left.state.as_str(), left.trip), ("left", "stopped", 7));
        assert_eq!((left.reason.as_str(), left.needs_reset), ("session expired", true));
        assert_eq!(left.velocity_rpm, Some(-30.0));
        assert!(left.heard_ms_ago.is_some());
        assert_eq!(
            left.text,
            "proven to stand still; stopped last by trip 7 (session expired); it needs a reset of trip 7"
        );
        watcher.verdicts.beat(2, Nanos(1));
        assert!(!of(&config(), &watcher.attachment.verdicts, Duration::from_millis(1)).watched);
    }

    #[test]
    fn what_is_not_proven_is_not_called_stopped() {
        let unverified = MotorVerdict {
            state: MotorState::Unverified,
            trip: TripId::NONE,
            latched: 0,
            fault: 16,
            feedback: Nanos::ZERO,
            ..verdict()
        };
        assert_eq!(
            sentence(&unverified, None),
            "told to stop and NOT proven to stand still: every stage was sent, the last one is repeated; its drive \
             reports fault 0x10; its drive was never heard"
        );
    }

    #[test]
    fn without_a_supervisor_nothing_is_made_up() {
        let status = unwatched(&config());
        assert!(!status.watched && status.phase.is_empty());
        assert!(status.motors[0].state.is_empty() && status.motors[0].text.starts_with("unknown: "));
    }
}
