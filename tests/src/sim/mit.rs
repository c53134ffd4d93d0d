//! The frame of the MIT mini cheetah, as the drives that have it read and answer it: position 16, velocity 12,
//! kp 12, kd 12, torque 12 bits; back come position 16, velocity 12, torque 12.

use std::f64::consts::TAU;

use super::num::to_u16;
use super::physics::{Demand, Shaft};

/// The last byte of the frames that begin with seven times FF.
pub const CLEAR_ERROR: u8 = 0xFB;
/// Power on.
pub const ENTER: u8 = 0xFC;
/// Power off.
pub const EXIT: u8 = 0xFD;
/// The present position is zero from now on.
pub const ZERO: u8 = 0xFE;

/// What the numbers of one drive stand for.
#[derive(Clone, Copy, Debug)]
pub struct Ranges {
    /// rad.
    pub position: f64,
    /// rad/s.
    pub velocity: f64,
    /// Nm.
    pub torque: f64,
}

/// Full scale of kd, Nm s/rad.
const KD: f64 = 5.0;

/// A command in units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Command {
    /// rev/s.
    pub velocity: f64,
    /// Whether there is stiffness, to whatever position.
    pub stiff: bool,
    /// Nm s/rad.
    pub kd: f64,
    /// Nm.
    pub torque: f64,
}

/// The last byte, if it is one of those frames.
pub fn special(data: [u8; 8]) -> Option<u8> {
    data.starts_with(&[0xFF; 7]).then_some(data[7])
}

/// What `raw` of `steps` steps is in `-most ..= most`.
fn from_raw(raw: u16, steps: f64, most: f64) -> f64 {
    f64::from(raw) * 2.0 * most / steps - most
}

/// Cut off, as the makers' code does, and saturating.
fn to_raw(value: f64, steps: f64, most: f64) -> u16 {
    to_u16(((value + most) * steps / (2.0 * most)).clamp(0.0, steps).floor())
}

impl Ranges {
    /// Reads a command.
    pub fn command(&self, data: [u8; 8]) -> Command {
        let all = u64::from_be_bytes(data);
        let twelve = |shift: u32| {
            let [.., high, low] = (all >> shift & 0xFFF).to_be_bytes();
            u16::from_be_bytes([high, low])
        };
        Command {
            velocity: from_raw(twelve(36), 4095.0, self.velocity) / TAU,
            stiff: twelve(24) != 0,
            kd: f64::from(twelve(12)) * KD / 4095.0,
            torque: from_raw(twelve(0), 4095.0, self.torque),
        }
    }

    /// Whether the command asks for no motion: nothing but damping, as near to zero as twelve bits come.
    pub fn is_stop(&self, command: &Command) -> bool {
        let half = |most: f64| most / 4095.0 * 1.001;
        !command.stiff
            && (command.velocity * TAU).abs() <= half(self.velocity)
            && command.torque.abs() <= half(self.torque)
    }

    /// Position, velocity and torque of a shaft, which turns in rev and rev/s.
    pub fn reply(&self, position: f64, velocity: f64, torque: f64) -> [u8; 5] {
        let [p0, p1] = to_raw(position * TAU, 65_535.0, self.position).to_be_bytes();
        let [v0, v1] = to_raw(velocity * TAU, 4095.0, self.velocity).to_be_bytes();
        let [t0, t1] = to_raw(torque, 4095.0, self.torque).to_be_bytes();
        [p0, p1, v0 << 4 | v1 >> 4, v1 << 4 | t0, t1]
    }
}

impl Command {
    /// What a drive that is on does with its shaft: damping pulls it to the speed, at most `rate` (rev/s²) at a
    /// time; torque alone accelerates it, by `gain` rev/s² for each Nm. Stiffness holds where it is.
    pub fn demand(&self, rate: f64, gain: f64) -> Demand {
        if self.stiff {
            Demand::Velocity { velocity: 0.0, rate }
        } else if self.kd > 0.0 {
            Demand::Velocity { velocity: self.velocity + self.torque / self.kd / TAU, rate }
        } else {
            Demand::Torque { acceleration: self.torque * gain }
        }
    }
}

/// The torque (Nm) that a drive measures, at `gain` rev/s² for each Nm.
pub fn torque(shaft: &Shaft, demand: Demand, gain: f64) -> f64 {
    shaft.effort(demand) / gain
}

#[cfg(test)]
mod tests {
    use super::*;

    const DM4310: Ranges = Ranges { position: 12.5, velocity: 30.0, torque: 10.0 };
    const AK80_9: Ranges = Ranges { position: 12.5, velocity: 50.0, torque: 18.0 };

    #[test]
    fn the_published_damping_frames_are_stops_that_creep() {
        let damiao = DM4310.command([0x7F, 0xFF, 0x7F, 0xF0, 0x00, 0x33, 0x37, 0xFF]);
        assert!(DM4310.is_stop(&damiao) && (damiao.velocity * TAU + 0.0073).abs() < 1e-4);
        assert!((damiao.kd - 1.0).abs() < 1e-3 && !damiao.stiff);
        let cubemars = AK80_9.command([0x80, 0x00, 0x80, 0x00, 0x00, 0x33, 0x38, 0x00]);
        assert!(AK80_9.is_stop(&cubemars) && (cubemars.velocity * TAU - 0.0122).abs() < 1e-4);
    }

    #[test]
    fn speeds_torques_and_stiffness_are_no_stops() {
        for data in [
            [0x7F, 0xFF, 0x80, 0x10, 0x00, 0x33, 0x37, 0xFF],
            [0x7F, 0xFF, 0x7F, 0xF0, 0x01, 0x33, 0x37, 0xFF],
            [0x7F, 0xFF, 0x7F, 0xF0, 0x00, 0x33, 0x38, 0x01],
        ] {
            assert!(!DM4310.is_stop(&DM4310.command(data)), "{data:X?}");
        }
    }

    #[test]
    fn a_shaft_at_rest_replies_as_published() {
        assert_eq!(DM4310.reply(0.0, 0.0, 0.0), [0x7F, 0xFF, 0x7F, 0xF7, 0xFF]);
        assert_eq!(DM4310.reply(99.0, 99.0, -99.0), [0xFF, 0xFF, 0xFF, 0xF0, 0x00]);
    }
}
