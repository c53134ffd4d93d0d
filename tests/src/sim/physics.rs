//! A motor shaft: how velocity and position follow from what the power stage does.
//!
//! Every case has a closed solution, so the shaft is moved on only when somebody looks, by any span of time.

use anyhow::Result;

use super::Time;
use super::params::Params;

/// Below this speed (rev/s) a coasting shaft is held by static friction.
const STICTION: f64 = 0.002;

/// What the power stage does with the shaft.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Demand {
    /// No current: the shaft coasts.
    Off,
    /// Closed loop: towards `velocity` (rev/s), changing it by at most `rate` (rev/s²).
    Velocity {
        /// Where to.
        velocity: f64,
        /// How fast.
        rate: f64,
    },
    /// Constant torque, given as the acceleration (rev/s²) it causes without friction.
    Torque {
        /// The acceleration.
        acceleration: f64,
    },
}

/// The properties of one shaft and its load.
#[derive(Clone, Debug)]
pub struct Mechanics {
    /// Acceleration limit of normal motion, rev/s².
    pub accel: f64,
    /// Deceleration of a quick stop, rev/s².
    pub quick_decel: f64,
    /// Time constant with which friction slows a coasting shaft, s.
    pub friction: f64,
    /// Largest deviation that the encoder adds to the velocity it reports, rev/s.
    pub noise: f64,
}

impl Mechanics {
    /// Takes `accel`, `quick_decel`, `friction` and `noise`.
    ///
    /// # Errors
    /// A value that is not a number or out of range.
    pub fn take(params: &mut Params) -> Result<Self> {
        Ok(Self {
            accel: params.number("accel", 20.0, 0.001..=1e6)?,
            quick_decel: params.number("quick_decel", 60.0, 0.001..=1e6)?,
            friction: params.number("friction", 0.15, 0.001..=1e4)?,
            noise: params.number("noise", 0.0, 0.0..=1e3)?,
        })
    }
}

/// A shaft at some moment.
#[derive(Debug)]
pub struct Shaft {
    friction: f64,
    noise: f64,
    velocity: f64,
    position: f64,
    at: Time,
    /// Something blocks the shaft: it does not turn whatever the drive does.
    pub jammed: bool,
    /// Something turns the shaft at this velocity (rev/s) whatever the drive does.
    pub pushed: Option<f64>,
    random: u64,
}

impl Shaft {
    /// A shaft that turns at `velocity` rev/s at time zero. `seed` makes its noise its own.
    pub fn new(mechanics: &Mechanics, velocity: f64, seed: u8) -> Self {
        Self {
            friction: mechanics.friction,
            noise: mechanics.noise,
            velocity,
            position: 0.0,
            at: Time::ZERO,
            jammed: false,
            pushed: None,
            random: 0x9E37_79B9_7F4A_7C15 ^ (u64::from(seed) << 32),
        }
    }

    /// Moves the shaft on to `now` under one unchanged demand.
    pub fn advance(&mut self, now: Time, demand: Demand) {
        let dt = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        if self.jammed {
            self.velocity = 0.0;
        } else if let Some(velocity) = self.pushed {
            self.velocity = velocity;
            self.position += velocity * dt;
        } else {
            match demand {
                Demand::Off => self.coast(dt, 0.0),
                Demand::Torque { acceleration } => self.coast(dt, acceleration),
                Demand::Velocity { velocity, rate } => self.ramp(dt, velocity, rate),
            }
        }
    }

    /// v' = a - v/τ
    fn coast(&mut self, dt: f64, acceleration: f64) {
        let end = acceleration * self.friction;
        let before = self.velocity;
        self.velocity = end + (before - end) * (-dt / self.friction).exp();
        self.position += end * dt + self.friction * (before - self.velocity);
        if end.abs() < STICTION && self.velocity.abs() < STICTION {
            self.velocity = 0.0;
        }
    }

    fn ramp(&mut self, dt: f64, target: f64, rate: f64) {
        let missing = target - self.velocity;
        let ramp_time = (missing.abs() / rate).min(dt);
        let before = self.velocity;
        if missing.abs() <= rate * dt {
            self.velocity = target;
        } else {
            self.velocity += (rate * dt).copysign(missing);
        }
        self.position += 0.5 * (before + self.velocity) * ramp_time + self.velocity * (dt - ramp_time);
    }

    /// Up to when it has been moved on.
    pub fn time(&self) -> Time {
        self.at
    }

    /// The true velocity, rev/s.
    pub fn velocity(&self) -> f64 {
        self.velocity
    }

    /// The position, rev.
    pub fn position(&self) -> f64 {
        self.position
    }

    /// What the power stage has to push for that demand, as the acceleration (rev/s²) it would cause without
    /// friction: what a drive measures as torque or current.
    pub fn effort(&self, demand: Demand) -> f64 {
        match demand {
            Demand::Off => 0.0,
            Demand::Torque { acceleration } => acceleration,
            Demand::Velocity { velocity, rate } => {
                let missing = velocity - self.velocity;
                let change = if missing == 0.0 { 0.0 } else { rate.copysign(missing) };
                change + self.velocity / self.friction
            }
        }
    }

    /// The velocity as the encoder reports it, rev/s.
    pub fn measured_velocity(&mut self) -> f64 {
        if self.noise > 0.0 {
            // xorshift64
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let [a, b, ..] = self.random.to_le_bytes();
            let unit = f64::from(u16::from_le_bytes([a, b])) / 32767.5 - 1.0;
            self.velocity + self.noise * unit
        } else {
            self.velocity
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MECHANICS: Mechanics = Mechanics { accel: 20.0, quick_decel: 60.0, friction: 0.15, noise: 0.0 };

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn a_ramp_takes_its_time_and_ends_exactly() {
        let mut shaft = Shaft::new(&MECHANICS, 0.0, 0);
        let up = Demand::Velocity { velocity: 10.0, rate: 20.0 };
        shaft.advance(Time::from_millis(250), up);
        assert!(near(shaft.velocity(), 5.0) && near(shaft.position(), 0.625));
        shaft.advance(Time::from_millis(1000), up);
        assert!(near(shaft.velocity(), 10.0) && near(shaft.position(), 2.5 + 5.0));
        shaft.advance(Time::from_millis(2000), Demand::Velocity { velocity: 0.0, rate: 60.0 });
        assert!(shaft.velocity() == 0.0);
    }

    #[test]
    fn steps_do_not_matter() {
        let mut fine = Shaft::new(&MECHANICS, 7.0, 0);
        let mut coarse = Shaft::new(&MECHANICS, 7.0, 0);
        for ms in 1..=400 {
            fine.advance(Time::from_millis(ms), Demand::Off);
        }
        coarse.advance(Time::from_millis(400), Demand::Off);
        assert!(near(fine.velocity(), coarse.velocity()) && near(fine.position(), coarse.position()));
    }

    #[test]
    fn coasting_ends_in_a_true_standstill() {
        let mut shaft = Shaft::new(&MECHANICS, 5.0, 0);
        shaft.advance(Time::from_millis(150), Demand::Off);
        assert!(near(shaft.velocity(), 5.0 / std::f64::consts::E));
        shaft.advance(Time::from_secs(3), Demand::Off);
        assert!(shaft.velocity() == 0.0);
    }

    #[test]
    fn effort_is_what_changes_the_speed_and_what_keeps_it() {
        let mut shaft = Shaft::new(&MECHANICS, 0.0, 0);
        let up = Demand::Velocity { velocity: 3.0, rate: 20.0 };
        assert!(near(shaft.effort(up), 20.0));
        shaft.advance(Time::from_millis(1000), up);
        assert!(near(shaft.effort(up), 3.0 / 0.15));
        assert!(shaft.effort(Demand::Velocity { velocity: 0.0, rate: 60.0 }) < 0.0);
        assert!(shaft.effort(Demand::Off) == 0.0);
        shaft.jammed = true;
        shaft.advance(Time::from_millis(1001), up);
        assert!(near(shaft.effort(up), 20.0), "it pushes against the jam");
    }

    #[test]
    fn a_push_or_a_jam_wins_over_the_drive() {
        let mut shaft = Shaft::new(&MECHANICS, 5.0, 0);
        shaft.pushed = Some(2.0);
        shaft.advance(Time::from_secs(1), Demand::Velocity { velocity: 0.0, rate: 60.0 });
        assert!(near(shaft.velocity(), 2.0) && near(shaft.position(), 2.0));
        shaft.jammed = true;
        shaft.advance(Time::from_secs(2), Demand::Velocity { velocity: 9.0, rate: 60.0 });
        assert!(shaft.velocity() == 0.0 && near(shaft.position(), 2.0));
    }

    #[test]
    fn noise_stays_within_its_bound_and_is_not_zero() {
        let mut shaft = Shaft::new(&Mechanics { noise: 0.05, ..MECHANICS }, 0.0, 3);
        let seen: Vec<f64> = (0..1000).map(|_| shaft.measured_velocity()).collect();
        assert!(seen.iter().all(|v| v.abs() <= 0.05));
        assert!(seen.iter().any(|v| *v > 0.03) && seen.iter().any(|v| *v < -0.03));
    }
}
