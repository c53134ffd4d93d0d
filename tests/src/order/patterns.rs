//! Sequences of commands for one motor, some of which move or stop others, too.

use std::fmt;
use std::time::Duration;

use crate::pipeline::{Call, Spacing};

/// Revolutions a second at full power: `max_rpm` is 300.
const FULL_SPEED: f64 = 5.0;
/// Of the base, mm/s: 1.5 revolutions a second of wheels of 400 mm, a speed that no other command has.
const BASE_MM_PER_S: f64 = 600.0;
const BASE_SPEED: f64 = 1.5;
/// Of the travel: half a revolution a second, for longer than any trial lasts.
const TRAVEL_RPM: f64 = 30.0;
const TRAVEL_REVOLUTIONS: f64 = 10_000.0;
const TRAVEL_SPEED: f64 = 0.5;

/// The parts of a robot by the names that it gives them.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The motor that is judged.
    pub motor: &'a str,
    /// A base that has it for a wheel.
    pub base: &'a str,
}

/// One command. Each that moves asks for a speed of its own, so the speed tells which one is in force.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command {
    /// `Motor.SetPower` with this power; with 0 it ends motion as a stop does.
    Power(f64),
    /// `Base.SetVelocity`.
    Base,
    /// `Motor.GoFor`, far away.
    Travel,
    /// `Motor.Stop`.
    Stop,
    /// `Robot.StopAll`.
    StopAll,
}

impl Command {
    /// Every one that is paired with every other.
    pub const ALL: [Self; 7] = [
        Self::Power(0.5),
        Self::Power(0.2),
        Self::Base,
        Self::Travel,
        Self::Power(0.0),
        Self::Stop,
        Self::StopAll,
    ];

    /// The call.
    #[must_use]
    pub fn call(self, names: Names<'_>) -> Call {
        match self {
            Self::Power(power) => Call::set_power(names.motor, power),
            Self::Base => Call::set_velocity(names.base, BASE_MM_PER_S),
            Self::Travel => Call::go_for(names.motor, TRAVEL_RPM, TRAVEL_REVOLUTIONS),
            Self::Stop => Call::stop(names.motor),
            Self::StopAll => Call::stop_all(),
        }
    }

    /// The set-point of the motor while this is the command in force, in revolutions a second.
    #[must_use]
    pub fn speed(self) -> f64 {
        match self {
            Self::Power(power) => power * FULL_SPEED,
            Self::Base => BASE_SPEED,
            Self::Travel => TRAVEL_SPEED,
            Self::Stop | Self::StopAll => 0.0,
        }
    }

    /// The set-point of the base's other wheel, if this command says anything of it.
    #[must_use]
    pub fn other_wheel(self) -> Option<f64> {
        match self {
            Self::Base | Self::StopAll => Some(self.speed()),
            Self::Power(_) | Self::Travel | Self::Stop => None,
        }
    }

    /// Whether it is answered as soon as it is in force, and not when a distance has been travelled.
    #[must_use]
    pub fn is_answered_at_once(self) -> bool {
        match self {
            Self::Power(_) | Self::Base | Self::Stop | Self::StopAll => true,
            Self::Travel => false,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Power(power) if *power == 0.0 => f.write_str("0"),
            Self::Power(power) => write!(f, "SetPower({power})"),
            Self::Base => f.write_str("SetVelocity"),
            Self::Travel => f.write_str("GoFor"),
            Self::Stop => f.write_str("Stop"),
            Self::StopAll => f.write_str("StopAll"),
        }
    }
}

/// What the motor does before the sequence begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing: it was stopped.
    Stopped,
    /// It turns faster than any command of the sequence asks for.
    Turning,
}

/// The power before the sequence, if it turns.
pub const TURNING: f64 = 0.9;

/// How a sequence reaches the robot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In one TCP segment.
    OneSegment,
    /// Two milliseconds between one call and the next.
    TwoMillisApart,
    /// 20 ms between one call and the next, all held back by the network for this long, and then delivered at once.
    Held(Duration),
}

impl Way {
    /// How the calls follow one another where the client sends them.
    #[must_use]
    pub const fn spacing(self) -> Spacing {
        match self {
            Self::OneSegment => Spacing::OneSegment,
            Self::TwoMillisApart => Spacing::Apart(Duration::from_millis(2)),
            Self::Held(_) => Spacing::Apart(Duration::from_millis(20)),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneSegment => f.write_str("one segment"),
            Self::TwoMillisApart => f.write_str("2 ms apart"),
            Self::Held(gap) => write!(f, "held {} ms", gap.as_millis()),
        }
    }
}

/// A sequence of commands, how it is sent, and what goes before.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// The commands in the order in which they are sent.
    pub commands: Vec<Command>,
    /// How.
    pub way: Way,
    /// What the motor does before.
    pub start: Start,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = match self.start {
            Start::Stopped => "stopped",
            Start::Turning => "turning",
        };
        write!(f, "{start}, {}:", self.way)?;
        self.commands.iter().try_for_each(|command| write!(f, " {command}"))
    }
}

/// Every command after every command, itself included.
#[must_use]
pub fn pairs(way: Way, start: Start) -> Vec<Pattern> {
    let pair = |first, second| Pattern { commands: vec![first, second], way, start };
    let all = Command::ALL;
    all.into_iter().flat_map(|first| all.into_iter().map(move |second| pair(first, second))).collect()
}

/// Every sequence of three.
#[must_use]
pub fn triples(way: Way, start: Start) -> Vec<Pattern> {
    let longer = |pair: Pattern| {
        Command::ALL.into_iter().map(move |third| {
            let commands = [&pair.commands[..], &[third]].concat();
            Pattern { commands, way, start }
        })
    };
    pairs(way, start).into_iter().flat_map(longer).collect()
}

/// Some of them, chosen by a seed: as many as are asked for, none twice.
#[must_use]
pub fn some_of(mut patterns: Vec<Pattern>, count: usize, mut seed: u64) -> Vec<Pattern> {
    let mut chosen = Vec::new();
    while chosen.len() < count && !patterns.is_empty() {
        let left = u64::try_from(patterns.len()).unwrap_or(u64::MAX);
        let place = usize::try_from(next(&mut seed) % left).unwrap_or_default();
        chosen.push(patterns.swap_remove(place));
    }
    chosen
}

/// The next number of a sequence that looks random (SplitMix64, Steele and others 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_follows_every_command_once() {
        let all = pairs(Way::OneSegment, Start::Stopped);
        assert_eq!(all.len(), 49);
        assert_eq!(all.iter().filter(|one| all.iter().any(|other| *one == other)).count(), 49);
        assert_eq!(all[0].to_string(), "stopped, one segment: SetPower(0.5) SetPower(0.5)");
        assert_eq!(triples(Way::OneSegment, Start::Stopped).len(), 343);
    }

    #[test]
    fn a_seed_chooses_the_same_ones_again_and_none_twice() {
        let all = || triples(Way::OneSegment, Start::Turning);
        let chosen = some_of(all(), 100, 17);
        assert_eq!(chosen, some_of(all(), 100, 17));
        assert_ne!(chosen, some_of(all(), 100, 18));
        let twice = |one: &Pattern| chosen.iter().filter(|other| *other == one).count() > 1;
        assert!(chosen.len() == 100 && !chosen.iter().any(twice));
        assert_eq!(some_of(all(), 1000, 17).len(), 343);
    }

    #[test]
    fn every_speed_tells_its_command() {
        let speeds: Vec<f64> = Command::ALL.into_iter().map(Command::speed).filter(|s| *s != 0.0).collect();
        assert_eq!(speeds, [2.5, 1.0, 1.5, 0.5]);
    }
}
