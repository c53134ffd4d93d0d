//! Each drive's own watchdog: the last layer, which stops the motor when this whole computer is gone.

use std::time::Duration;

use config::{Config, Motor};
use drivers::{WatchdogReading, WatchdogSet};

use super::wire::{Answer, Wire};
use super::{Finding, Verdict};
use crate::status::Status;

/// Looks at the drive of every motor.
pub fn examine(config: &Config, status: Option<&Status>, wire: &mut impl Wire) -> Vec<Finding> {
    config.motors.iter().map(|motor| examine_one(motor, status, wire)).collect()
}

/// What the drive said, or why it was not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Reading(WatchdogReading),
    Nothing,
    CannotTell,
    InUse,
    NoBus(String),
}

fn examine_one(motor: &Motor, status: Option<&Status>, wire: &mut impl Wire) -> Finding {
    let said = ask(motor, status, wire);
    let (verdict, found) = judge(motor.drive.watchdog.set, &said);
    let remedy = (verdict != Verdict::Good).then(|| match &said {
        Said::NoBus(what) => what.clone(),
        Said::InUse => "run this again while nobody drives it".to_owned(),
        Said::Nothing => "check its supply, its cabling and its id; then run this again".to_owned(),
        Said::Reading(_) | Said::CannotTell => motor.drive.watchdog.advice.clone(),
    });
    Finding { subject: format!("motor \"{}\" ({})", motor.name, motor.driver), verdict, found, remedy }
}

fn ask(motor: &Motor, status: Option<&Status>, wire: &mut impl Wire) -> Said {
    let questions = motor.drive.watchdog.ask;
    if questions.as_slice().is_empty() {
        return Said::CannotTell;
    }
    let state = status.and_then(|status| status.motors.iter().find(|seen| seen.name == motor.name));
    if state.is_some_and(|seen| seen.state != "idle" && seen.state != "stopped") {
        // A question may feed the very watchdog that is asked for.
        return Said::InUse;
    }
    let mut said = Said::Nothing;
    for question in questions.as_slice() {
        match wire.ask(motor.bus, question, &|frame| motor.drive.protocol.watchdog(frame)) {
            Answer::Reading(WatchdogReading::Off) => return Said::Reading(WatchdogReading::Off),
            Answer::Reading(reading) => said = Said::Reading(reading),
            Answer::Nothing => return Said::Nothing,
            Answer::NoBus(what) => return Said::NoBus(what),
        }
    }
    said
}

const WITHOUT: &str = "nothing stops the motor when this computer is gone";

fn judge(set: WatchdogSet, said: &Said) -> (Verdict, String) {
    let millis = |window: Duration| format!("{} ms", window.as_millis());
    match (set, said) {
        (WatchdogSet::Off, _) => {
            (Verdict::Attention, format!("own watchdog switched off in the configuration: {WITHOUT}"))
        }
        (WatchdogSet::Missing, _) => {
            (Verdict::Attention, format!("the drive has no watchdog of its own that is known of: {WITHOUT}"))
        }
        (_, Said::NoBus(_)) => (Verdict::Attention, "own watchdog cannot be asked for".to_owned()),
        (_, Said::Nothing) => (Verdict::Attention, "the drive does not answer".to_owned()),
        (_, Said::Reading(WatchdogReading::On(window))) => {
            (Verdict::Good, format!("own watchdog {}, read from the drive", millis(*window)))
        }
        (WatchdogSet::ByLanyard(window), Said::Reading(WatchdogReading::Off) | Said::CannotTell) => (
            Verdict::Good,
            format!("own watchdog {}, set whenever Lanyard enables the drive or commands it", millis(window)),
        ),
        (WatchdogSet::ByHand, Said::Reading(WatchdogReading::Off)) => {
            (Verdict::Attention, format!("own watchdog is off, read from the drive: {WITHOUT}"))
        }
        (WatchdogSet::ByHand, Said::CannotTell) => (
            Verdict::Unknown,
            format!("own watchdog cannot be read over CAN; unless somebody has set it, {WITHOUT}"),
        ),
        (_, Said::InUse) => (Verdict::Unknown, "is being driven, and was not asked".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::Frame;
    use std::path::Path;

    /// Answers every question with the same bytes on the drive's answer id, or not at all.
    struct Bus {
        answer: Option<Frame>,
        asked: Vec<Frame>,
    }

    impl Wire for Bus {
        fn ask(
            &mut self,
            _bus: usize,
            question: &Frame,
            read: &dyn Fn(&Frame) -> Option<WatchdogReading>,
        ) -> Answer {
            self.asked.push(*question);
            self.answer.as_ref().and_then(read).map_or(Answer::Nothing, Answer::Reading)
        }
    }

    const ROBOT: &str = "[[bus]]\nname = \"can0\"\n\
        [[motor]]\nname = \"wheel\"\nbus = \"can0\"\ndriver = \"odrive\"\nfirmware = \"0.6\"\nnode = 3\n\
        after_stop = \"hold\"\nmax_rpm = 100\n\
        [[motor]]\nname = \"arm\"\nbus = \"can0\"\ndriver = \"cia402\"\nnode = 5\ncounts_per_rev = 100\n\
        after_stop = \"hold\"\nmax_rpm = 100\n";

    fn examined(text: &str, answer: Option<&[u8]>) -> (Vec<Finding>, Bus) {
        let config = Config::parse(Path::new("robot.toml"), text).unwrap_or_else(|error| panic!("{error}"));
        let id = drivers::ArbitrationId::standard(0x585);
        let mut bus = Bus { answer: answer.map(|bytes| Frame::classic(id, bytes)), asked: Vec::new() };
        (examine(&config, None, &mut bus), bus)
    }

    #[test]
    fn a_drive_that_can_be_asked_is_and_one_that_cannot_is_not() {
        // 1016:01 = node 127, 250 ms.
        let answer = [0x43, 0x16, 0x10, 0x01, 0xFA, 0x00, 0x7F, 0x00];
        let (findings, bus) = examined(ROBOT, Some(&answer));
        assert_eq!(bus.asked.iter().map(ToString::to_string).collect::<Vec<_>>(), ["605#4016100100000000"]);
        assert_eq!((findings[0].verdict, findings[1].verdict), (Verdict::Unknown, Verdict::Good));
        assert!(findings[0].remedy.as_ref().is_some_and(|remedy| remedy.contains("enable_watchdog = True")));
        assert!(findings[1].found.contains("250 ms, read from the drive"), "{findings:?}");
    }

    #[test]
    fn silence_and_a_watchdog_that_is_off_need_attention() {
        let (findings, _) = examined(ROBOT, None);
        assert_eq!(findings[1].verdict, Verdict::Attention);
        assert!(findings[1].found.contains("does not answer"));
        let off = ROBOT.to_owned() + "heartbeat_ms = 0\n";
        let (findings, _) = examined(&off, Some(&[0x43, 0x16, 0x10, 0x01, 0, 0, 0, 0]));
        assert_eq!(findings[1].verdict, Verdict::Attention);
        assert!(findings[1].found.contains("switched off in the configuration"), "{findings:?}");
    }

    #[test]
    fn every_state_of_things_is_judged() {
        let on = Said::Reading(WatchdogReading::On(Duration::from_millis(100)));
        let off = Said::Reading(WatchdogReading::Off);
        let by_lanyard = WatchdogSet::ByLanyard(Duration::from_millis(200));
        for (set, said, expected) in [
            (by_lanyard, &on, Verdict::Good),
            // Not enabled since its supply came up.
            (by_lanyard, &off, Verdict::Good),
            (by_lanyard, &Said::CannotTell, Verdict::Good),
            (by_lanyard, &Said::Nothing, Verdict::Attention),
            (by_lanyard, &Said::InUse, Verdict::Unknown),
            (WatchdogSet::ByHand, &on, Verdict::Good),
            (WatchdogSet::ByHand, &off, Verdict::Attention),
            (WatchdogSet::ByHand, &Said::CannotTell, Verdict::Unknown),
            (WatchdogSet::ByHand, &Said::NoBus(String::new()), Verdict::Attention),
            (WatchdogSet::Off, &on, Verdict::Attention),
            (WatchdogSet::Missing, &Said::CannotTell, Verdict::Attention),
        ] {
            assert_eq!(judge(set, said).0, expected, "{set:?} {said:?}");
        }
    }
}
