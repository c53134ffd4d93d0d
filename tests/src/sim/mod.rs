//! Simulated motor drives on a CAN bus, for tests that must not need a robot.
//!
//! A simulated drive shares no code with the `drivers` crate: it is a second, independent reading of the
//! protocols, so that a mistake made there is not repeated here and found correct. Each model is pure: frames
//! and the time go in, frames come out. Only [`bus`] and [`control`] touch sockets.

pub mod bus;
pub mod cia402;
pub mod control;
pub mod cycle;
pub mod frame;
pub mod inject;
pub mod num;
pub mod odrive;
pub mod params;
pub mod physics;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use cia402::Cia402;
use frame::{Frame, IdRange};
use inject::{Behaviour, Order};
use odrive::Odrive;
use params::Params;

/// Time since the simulation began.
pub type Time = Duration;

/// One simulated drive.
#[derive(Debug)]
pub enum Drive {
    /// An ODrive axis speaking CANSimple.
    Odrive(Box<Odrive>),
    /// A CANopen drive with the CiA 402 profile.
    Cia402(Box<Cia402>),
}

impl Drive {
    /// Builds a drive from `KIND:key=value,key=value...`, powered on at time zero.
    ///
    /// # Errors
    /// An unknown kind or key, a value that cannot be read or is out of range, a missing node id.
    pub fn from_spec(spec: &str) -> Result<Self> {
        let (kind, rest) = spec.split_once(':').unwrap_or((spec, ""));
        let build = || {
            let mut params = Params::parse(rest)?;
            let drive = match kind {
                "odrive" => Self::Odrive(Box::new(Odrive::new(odrive::Config::take(&mut params)?))),
                "cia402" => Self::Cia402(Box::new(Cia402::new(cia402::Config::take(&mut params)?))),
                other => bail!("unknown kind of drive {other:?} (known: odrive, cia402)"),
            };
            params.finish()?;
            Ok(drive)
        };
        build().with_context(|| format!("in drive {spec:?}"))
    }

    /// The node id, which also names the drive in control commands.
    pub fn node(&self) -> u8 {
        match self {
            Self::Odrive(d) => d.node(),
            Self::Cia402(d) => d.node(),
        }
    }

    /// The identifiers that belong to this drive, whoever sends them.
    pub fn own_ids(&self) -> Vec<IdRange> {
        match self {
            Self::Odrive(d) => d.own_ids(),
            Self::Cia402(d) => d.own_ids(),
        }
    }

    /// The identifiers this drive listens to.
    pub fn heard_ids(&self) -> Vec<IdRange> {
        match self {
            Self::Odrive(d) => d.own_ids(),
            Self::Cia402(d) => d.heard_ids(),
        }
    }

    /// Identifiers of this drive that mean something else to `other`. Drives of one kind share some on purpose.
    fn clash(&self, other: &Self) -> Option<(IdRange, IdRange)> {
        let mut theirs = other.own_ids();
        if std::mem::discriminant(self) != std::mem::discriminant(other) {
            theirs.extend(other.heard_ids());
        }
        let pairs = self.own_ids().into_iter().flat_map(|x| theirs.iter().map(move |y| (x, *y)));
        pairs.into_iter().find(|(x, y)| x.overlaps(y))
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        match self {
            Self::Odrive(d) => &mut d.behaviour,
            Self::Cia402(d) => &mut d.behaviour,
        }
    }

    /// Takes a frame seen on the bus at `now`; answers are added to `out`.
    pub fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        if self.behaviour().offline {
            return;
        }
        let before = out.len();
        match self {
            Self::Odrive(d) => d.on_frame(now, frame, out),
            Self::Cia402(d) => d.on_frame(now, frame, out),
        }
        self.account(before, out);
    }

    /// Lets time pass until `now`; cyclic frames that are due are added to `out`.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        let before = out.len();
        match self {
            Self::Odrive(d) => d.tick(now, out),
            Self::Cia402(d) => d.tick(now, out),
        }
        self.account(before, out);
    }

    /// When `tick` has to be called next.
    pub fn next_due(&self) -> Time {
        match self {
            Self::Odrive(d) => d.next_due(),
            Self::Cia402(d) => d.next_due(),
        }
    }

    /// Carries out an order from the control socket.
    pub fn order(&mut self, now: Time, order: &Order, out: &mut Vec<Frame>) {
        let before = out.len();
        match self {
            Self::Odrive(d) => d.order(now, order),
            Self::Cia402(d) => d.order(now, order, out),
        }
        self.account(before, out);
    }

    /// What the drive is doing, as JSON.
    pub fn status(&mut self, now: Time) -> Value {
        match self {
            Self::Odrive(d) => d.status(now),
            Self::Cia402(d) => d.status(now),
        }
    }

    /// Counts what the drive sends, and withholds it while the drive is mute.
    fn account(&mut self, before: usize, out: &mut Vec<Frame>) {
        let behaviour = self.behaviour();
        if behaviour.silent() {
            out.truncate(before);
        } else {
            behaviour.frames_sent += out.len().saturating_sub(before);
        }
    }
}

/// Refuses drives that could not share one bus: two with the same name, or whose identifiers overlap.
///
/// # Errors
/// Names the two drives and what they have in common.
pub fn check_together(drives: &[Drive]) -> Result<()> {
    for (i, a) in drives.iter().enumerate() {
        for b in drives.get(i.saturating_add(1)..).unwrap_or_default() {
            if a.node() == b.node() {
                bail!("two drives have node {}: a node id must name one drive", a.node());
            }
            if let Some((x, y)) = a.clash(b).or_else(|| b.clash(a)) {
                bail!("drives with node {} and {} would both use CAN id {x} / {y}", a.node(), b.node());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(spec: &str) -> String {
        format!("{:#}", Drive::from_spec(spec).expect_err("must be refused"))
    }

    #[test]
    fn bad_specs_are_explained() {
        assert!(problem("moteus:node=1").contains("unknown kind of drive \"moteus\""));
        assert!(problem("odrive:firmware=0.6").contains("key node is missing"));
        assert!(problem("odrive:node=3,firmware=0.7").contains("0.5"));
        assert!(problem("odrive:node=99").contains("0..=63"));
        assert!(problem("cia402:node=5,speed=3").contains("unknown key speed"));
        assert!(problem("cia402:node=5,node=5").contains("given twice"));
        assert!(problem("cia402:node=5,accel=fast").contains("accel"));
        assert!(problem("cia402:node=0").contains("1..=127"));
    }

    #[test]
    fn drives_that_would_collide_are_refused() {
        let both = |a, b| [Drive::from_spec(a).expect("valid"), Drive::from_spec(b).expect("valid")];
        assert!(check_together(&both("odrive:node=3", "cia402:node=5")).is_ok());
        assert!(check_together(&both("odrive:node=3", "odrive:node=3")).is_err());
        // 0x205 is both RPDO 1 of CANopen node 5 and command 5 of ODrive node 16.
        assert!(check_together(&both("odrive:node=16", "cia402:node=5")).is_err());
        // ODrive node 0 answers Get_Version on the identifier of NMT commands.
        assert!(check_together(&both("odrive:node=0", "cia402:node=5")).is_err());
    }

    #[test]
    fn mute_and_offline_touch_one_drive_only() {
        let mut a = Drive::from_spec("odrive:node=1").expect("valid");
        let mut b = Drive::from_spec("odrive:node=2").expect("valid");
        let mut out = Vec::new();
        a.order(Time::ZERO, &Order::Mute(true), &mut out);
        for ms in (0..200).step_by(5) {
            a.tick(Time::from_millis(ms), &mut out);
            b.tick(Time::from_millis(ms), &mut out);
        }
        assert!(!out.is_empty());
        assert!(out.iter().all(|f| f.id >> 5 == 2));
    }
}
