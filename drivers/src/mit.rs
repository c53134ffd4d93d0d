//! The command frame that came with the MIT mini cheetah and that several makers of actuators have taken over:
//! position 16, velocity 12, kp 12, kd 12 and torque 12 bits, big-endian and without gaps; the reply has
//! position 16, velocity 12 and torque 12 bits.
//!
//! What lives here: the bits. Which ranges they stand for, and what else a drive understands, is each family's
//! own.
//!
//! **There is no exact zero.** Twelve bits over a range of equal halves have two middle values, half a step to
//! either side of it: a drive with kp = 0 that is told "velocity 0" creeps by half a step.

use core::f64::consts::TAU;

use crate::frame::{ArbitrationId, Frame};
use crate::meaning::Demand;
use crate::units::{Revolutions, RevolutionsPerSecond};

/// The last byte of the frames that begin with seven times FF.
pub mod special {
    /// Clears an error (Damiao only).
    pub const CLEAR_ERROR: u8 = 0xFB;
    /// Power on.
    pub const ENTER: u8 = 0xFC;
    /// Power off.
    pub const EXIT: u8 = 0xFD;
}

/// A frame of seven FF and one byte that says what is meant.
pub fn special(id: ArbitrationId, meaning: u8) -> Frame {
    Frame::classic(id, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, meaning])
}

/// Which special frame a payload is.
pub fn special_of(payload: &[u8]) -> Option<u8> {
    match payload {
        [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, meaning] => Some(*meaning),
        _ => None,
    }
}

/// The two middle values of twelve bits.
const MIDDLE: [u16; 2] = [0x7FF, 0x800];

/// How many steps an encoder divides a range into. Decoders all use the first; the makers' encoders differ, and
/// the golden bytes with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// 2^bits - 1: the largest value stands for the end of the range.
    Between,
    /// 2^bits.
    Power,
}

impl Steps {
    /// `value` within `-most ..= most` in so many bits, cut off as the makers' code does. What is beyond the
    /// range is its end, what is no number its middle.
    pub fn encode(self, value: f64, most: f64, bits: u32) -> u16 {
        self.encode_from(if value.is_nan() { most } else { value + most }, 2.0 * most, bits)
    }

    /// `value` within `0 ..= span` in so many bits.
    pub fn encode_from(self, value: f64, span: f64, bits: u32) -> u16 {
        let last = f64::from((1u32 << bits) - 1);
        let steps = match self {
            Self::Between => last,
            Self::Power => last + 1.0,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 16 bits")]
        let bits = (value * steps / span).clamp(0.0, last) as u16;
        bits
    }
}

/// What one step of a decoded number in `-most ..= most` is.
pub fn step(most: f64, bits: u32) -> f64 {
    2.0 * most / f64::from((1u32 << bits) - 1)
}

/// A command as the numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// 16 bits.
    pub position: u16,
    /// 12 bits.
    pub velocity: u16,
    /// 12 bits.
    pub kp: u16,
    /// 12 bits.
    pub kd: u16,
    /// 12 bits.
    pub torque: u16,
}

impl Command {
    pub fn bytes(self) -> [u8; 8] {
        let Self { position, velocity, kp, kd, torque } = self;
        let [p0, p1] = position.to_be_bytes();
        let [k0, k1] = (kp & 0xFFF).to_be_bytes();
        let [t0, t1] = (torque & 0xFFF).to_be_bytes();
        let [v0, v1] = (velocity << 4).to_be_bytes();
        let [d0, d1] = (kd << 4).to_be_bytes();
        [p0, p1, v0, v1 | k0, k1, d0, d1 | t0, t1]
    }

    fn read(payload: [u8; 8]) -> Self {
        let [p0, p1, v, vk, k, d, dt, t] = payload;
        let upper = |high: u8, low: u8| u16::from(high) << 4 | u16::from(low >> 4);
        let lower = |high: u8, low: u8| u16::from(high & 0xF) << 8 | u16::from(low);
        Self {
            position: u16::from_be_bytes([p0, p1]),
            velocity: upper(v, vk),
            kp: lower(vk, k),
            kd: upper(d, dt),
            torque: lower(dt, t),
        }
    }

    /// Whether it makes a drive that is on do nothing but damp: no stiffness, which would drive to a position,
    /// no torque, and no speed to follow.
    fn only_damps(self) -> bool {
        let middle = |value| MIDDLE.contains(&value);
        self.kp == 0 && middle(self.torque) && (self.kd == 0 || middle(self.velocity))
    }
}

/// Whether a command frame's payload, sent to a drive in this mode, can at most slow it down. What is not
/// understood cannot be known to.
pub fn only_damps(payload: &[u8]) -> bool {
    <[u8; 8]>::try_from(payload).is_ok_and(|payload| Command::read(payload).only_damps())
}

/// What a command frame's payload asks for, of a range of `-most ..= most` radians per second. Without stiffness and torque
/// it is a speed that the shaft is pulled to.
pub fn demand(payload: &[u8], most: f64) -> Demand {
    let Ok(payload) = <[u8; 8]>::try_from(payload) else { return Demand::Other };
    let command = Command::read(payload);
    if command.only_damps() {
        Demand::Still
    } else if command.kp == 0 && MIDDLE.contains(&command.torque) {
        Demand::Speed(revolutions_per_second(f64::from(command.velocity) * step(most, 12) - most))
    } else {
        Demand::Other
    }
}

/// The numbers of a reply: position, velocity, torque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    position: u16,
    velocity: u16,
    /// 12 bits.
    pub torque: u16,
}

impl Reply {
    pub fn read(bytes: [u8; 5]) -> Self {
        let [p0, p1, v, vt, t] = bytes;
        Self {
            position: u16::from_be_bytes([p0, p1]),
            velocity: u16::from(v) << 4 | u16::from(vt >> 4),
            torque: u16::from(vt & 0xF) << 8 | u16::from(t),
        }
    }

    /// The speed, of a range of `-most ..= most` radians per second.
    pub fn velocity(self, most: f64) -> RevolutionsPerSecond {
        revolutions_per_second(f64::from(self.velocity) * step(most, 12) - most)
    }

    /// The position, of a range of `-most ..= most` radians; `None` at both ends, where it is what the range
    /// holds and not where the shaft is.
    pub fn position(self, most: f64) -> Option<Revolutions> {
        position(self.position, most)
    }

    /// How many steps the torque is from zero: half a step at least.
    pub fn torque_steps(self) -> f64 {
        (f64::from(self.torque) - 2047.5).abs()
    }
}

/// A position of 16 bits in `-most ..= most` radians; `None` at both ends of the range.
pub fn position(raw: u16, most: f64) -> Option<Revolutions> {
    (raw != 0 && raw != u16::MAX).then(|| Revolutions((f64::from(raw) * step(most, 16) - most) / TAU))
}

/// From radians per second.
pub fn revolutions_per_second(radians_per_second: f64) -> RevolutionsPerSecond {
    #[expect(clippy::cast_possible_truncation, reason = "f32 is the resolution of speeds here")]
    RevolutionsPerSecond((radians_per_second / TAU) as f32)
}

/// In radians per second.
pub fn radians_per_second(velocity: RevolutionsPerSecond) -> f64 {
    f64::from(velocity.0) * TAU
}
