//! The longest silence that a motor may be driven through, and what follows for everything that drives it.
//!
//! The supervisor holds every session to it, whatever window the front names. Here the windows of the configuration are
//! shortened to it, so that clients are told what holds.

use std::time::Duration;

use crate::sessions::Sessionless;
use crate::{Base, Front, Kortex, Motor, ResourceRules, Tunnel, Upstream};

/// Everything of a configuration that drives motors.
pub struct Drivers<'a> {
    /// Viam's sessions and leases.
    pub front: &'a Front,
    /// Bases.
    pub bases: &'a mut [Base],
    /// Resources of the server behind.
    pub upstream: Option<&'a mut Upstream>,
    /// The arm that Kortex's clients drive.
    pub kortex: Option<&'a mut Kortex>,
    /// Links.
    pub tunnel: Option<&'a mut Tunnel>,
}

/// Settles the longest window of each motor. `given` are those that the configuration gives; by default it is the longest
/// that it gives to anything that drives the motor.
pub fn settle(motors: &mut [Motor], given: &[Option<Duration>], mut drivers: Drivers<'_>) {
    let mut shorter = Vec::new();
    for (index, motor) in motors.iter_mut().enumerate() {
        let (given, longest) = (given.get(index).copied().flatten(), drivers.longest(index));
        motor.max_window = given.unwrap_or(longest);
        let given = given.filter(|given| *given < longest);
        if let Some(most) = given {
            shorten(&mut motor.rules, most);
        }
        shorter.push(given);
    }
    drivers.shorten(motors, &shorter);
}

/// The motors that Kortex's clients drive: those of joints here, or those that a base behind drives.
fn motors_of(arm: &Kortex) -> impl Iterator<Item = usize> {
    let behind = arm.upstream.iter().flat_map(|upstream| upstream.motors.iter().copied());
    arm.joints.iter().map(|joint| joint.motor).chain(behind)
}

/// Makes a rule allow no longer silence than that.
fn shorten(rules: &mut ResourceRules, most: Duration) {
    rules.window = Some(rules.window.map_or(most, |own| own.min(most)));
}

impl Drivers<'_> {
    /// The longest window that the configuration gives to anything that drives that motor.
    fn longest(&self, motor: usize) -> Duration {
        let lease = match self.front.sessions.sessionless {
            Sessionless::Lease => Some(self.front.sessions.lease_window),
            Sessionless::Refuse | Sessionless::Viam => None,
        };
        // Clients of the arm name their own; this is for those that name none.
        let arm = self.kortex.as_ref().filter(|arm| motors_of(arm).any(|driven| driven == motor));
        let links = self.tunnel.iter().flat_map(|tunnel| &tunnel.targets);
        let links = links.filter(|target| target.motors.contains(&motor)).map(|target| target.window);
        let all = links.chain(lease).chain(arm.map(|arm| arm.connection_timeout));
        all.fold(self.front.heartbeat_window, Duration::max)
    }

    /// Shortens what drives motors whose longest window is shorter than what the configuration gives otherwise.
    fn shorten(&mut self, motors: &[Motor], given: &[Option<Duration>]) {
        let limit =
            |among: &mut dyn Iterator<Item = usize>| among.filter_map(|motor| *given.get(motor)?).min();
        for base in self.bases.iter_mut() {
            if let Some(most) = limit(&mut base.left.iter().chain(&base.right).copied()) {
                shorten(&mut base.rules, most);
            }
        }
        for resource in self.upstream.iter_mut().flat_map(|upstream| &mut upstream.resources) {
            if let Some(most) = limit(&mut resource.motors.iter().copied()) {
                shorten(&mut resource.rules, most);
            }
        }
        if let Some(arm) = &mut self.kortex {
            let driven = motors_of(arm).filter_map(|motor| motors.get(motor));
            if let Some(most) = driven.map(|motor| motor.max_window).min() {
                shorten(&mut arm.rules, most);
            }
        }
        for target in self.tunnel.iter_mut().flat_map(|tunnel| &mut tunnel.targets) {
            if let Some(most) = limit(&mut target.motors.iter().copied()) {
                target.window = target.window.min(most);
            }
        }
    }
}
