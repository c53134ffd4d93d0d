//! Simulated motor drives on a CAN bus, for tests that must not need a robot.
//!
//! A simulated drive shares no code with the `drivers` crate: it is a second, independent reading of the
//! protocols, so that a mistake made there is not repeated here and found correct. Each model is pure: frames
//! and the time go in, frames come out. Only [`bus`] and [`control`] touch sockets.

pub mod agilex;
pub mod bus;
pub mod cia402;
pub mod control;
pub mod cubemars_mit;
pub mod cubemars_servo;
pub mod cycle;
pub mod cyphal;
pub mod damiao;
pub mod dji;
pub mod dronecan;
pub mod frame;
pub mod frames;
pub mod inject;
pub mod mit;
pub mod model;
pub mod moteus;
pub mod num;
pub mod odrive;
pub mod params;
pub mod physics;
pub mod registry;
pub mod rev_spark;
pub mod rmd;
pub mod roboteq;
pub mod robstride;
pub mod tinymovr;
pub mod transfer;
pub mod vesc;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use frame::{Frame, IdRange};
use inject::Order;
use model::Model;
use params::Params;

/// Time since the simulation began.
pub type Time = Duration;

/// One simulated drive: a model, and between it and the bus what is the same for all of them.
#[derive(Debug)]
pub struct Drive(Box<dyn Model>);

impl Drive {
    /// Builds a drive from `KIND:key=value,key=value...`, powered on at time zero.
    ///
    /// # Errors
    /// An unknown kind or key, a value that cannot be read or is out of range, a missing node id.
    pub fn from_spec(spec: &str) -> Result<Self> {
        let (kind, rest) = spec.split_once(':').unwrap_or((spec, ""));
        let build = || -> Result<Self> {
            let mut params = Params::parse(rest)?;
            let model = (registry::find(kind)?.build)(&mut params)?;
            params.finish()?;
            Ok(Self(model))
        };
        build().with_context(|| format!("in drive {spec:?}"))
    }

    /// The node id, which also names the drive in control commands.
    pub fn node(&self) -> u8 {
        self.0.node()
    }

    /// The identifiers this drive listens to.
    pub fn heard_ids(&self) -> Vec<IdRange> {
        self.0.heard_ids()
    }

    /// Identifiers of this drive that mean something else to `other`. Drives of one kind listen to some
    /// together on purpose: broadcasts, and frames with a part for each of several motors.
    fn clash(&self, other: &Self) -> Option<(IdRange, IdRange)> {
        let mut theirs = other.0.own_ids();
        if self.0.kind() != other.0.kind() {
            theirs.extend(other.0.heard_ids());
        }
        let pairs = self.0.own_ids().into_iter().flat_map(|x| theirs.iter().map(move |y| (x, *y)));
        pairs.into_iter().find(|(x, y)| x.overlaps(y))
    }

    /// Takes a frame seen on the bus at `now`; answers are added to `out`.
    pub fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>) {
        // A controller without CAN FD makes nothing of such a frame.
        if self.0.behaviour().offline || (frame.is_fd() && !self.0.has_fd()) {
            return;
        }
        let (before, stops) = (out.len(), self.0.behaviour().stops());
        self.0.on_frame(now, frame, out);
        self.0.behaviour().note_stops(stops, now);
        self.account(before, out);
    }

    /// Lets time pass until `now`; cyclic frames that are due are added to `out`.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Frame>) {
        let before = out.len();
        self.0.tick(now, out);
        self.account(before, out);
    }

    /// When `tick` has to be called next.
    pub fn next_due(&self) -> Time {
        self.0.next_due()
    }

    /// Carries out an order from the control socket.
    pub fn order(&mut self, now: Time, order: &Order, out: &mut Vec<Frame>) {
        let before = out.len();
        self.0.order(now, order, out);
        self.account(before, out);
    }

    /// What the drive is doing, as JSON.
    pub fn status(&mut self, now: Time) -> Value {
        self.0.status(now)
    }

    /// Counts what the drive sends, and withholds it while the drive is mute.
    fn account(&mut self, before: usize, out: &mut Vec<Frame>) {
        let behaviour = self.0.behaviour();
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
    use inject::Behaviour;

    fn problem(spec: &str) -> String {
        format!("{:#}", Drive::from_spec(spec).expect_err("must be refused"))
    }

    #[test]
    fn bad_specs_are_explained() {
        assert!(problem("toaster:node=1").contains("unknown kind of drive \"toaster\""));
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
        // NMT, SYNC and heartbeats are for every CANopen node, and so are no reason.
        assert!(check_together(&both("cia402:node=5", "cia402:node=6")).is_ok());
    }

    /// Listens to one identifier with all of its kind, and has one of its own.
    #[derive(Debug)]
    struct Shared {
        kind: &'static str,
        node: u8,
        fd: bool,
        behaviour: Behaviour,
    }

    impl Model for Shared {
        fn kind(&self) -> &'static str {
            self.kind
        }

        fn node(&self) -> u8 {
            self.node
        }

        fn own_ids(&self) -> Vec<IdRange> {
            vec![IdRange::one(0x200 + u32::from(self.node))]
        }

        fn heard_ids(&self) -> Vec<IdRange> {
            vec![IdRange::one(0x200), IdRange::one(0x201)]
        }

        fn has_fd(&self) -> bool {
            self.fd
        }

        fn behaviour(&mut self) -> &mut Behaviour {
            &mut self.behaviour
        }

        fn on_frame(&mut self, _: Time, frame: &Frame, out: &mut Vec<Frame>) {
            out.push(*frame);
        }

        fn tick(&mut self, _: Time, _: &mut Vec<Frame>) {}

        fn next_due(&self) -> Time {
            Time::MAX
        }

        fn order(&mut self, _: Time, _: &Order, _: &mut Vec<Frame>) {}

        fn status(&mut self, _: Time) -> Value {
            Value::Null
        }
    }

    fn shared(kind: &'static str, node: u8, fd: bool) -> Drive {
        Drive(Box::new(Shared { kind, node, fd, behaviour: Behaviour::default() }))
    }

    #[test]
    fn drives_of_one_kind_may_listen_to_one_frame() {
        // Node 2 listens to 0x201 too, which belongs to node 1.
        assert!(check_together(&[shared("a", 1, false), shared("a", 2, false)]).is_ok());
        assert!(check_together(&[shared("a", 1, false), shared("b", 2, false)]).is_err());
        assert!(check_together(&[shared("b", 2, false), shared("a", 1, false)]).is_err());
        // What both only listen to means nothing else to anybody else.
        assert!(check_together(&[shared("a", 2, false), shared("b", 3, false)]).is_ok());
    }

    #[test]
    fn a_drive_without_fd_makes_nothing_of_an_fd_frame() {
        let heard = |fd: bool, frame: Frame| {
            let mut out = Vec::new();
            shared("a", 1, fd).on_frame(Time::ZERO, &frame, &mut out);
            out.len()
        };
        assert_eq!(heard(false, Frame::fd(0x200, &[1])), 0);
        assert_eq!(heard(true, Frame::fd(0x200, &[1])), 1);
        assert_eq!(heard(true, Frame::data(0x200, &[1])), 1);
        assert_eq!(heard(false, Frame::data(0x200, &[1])), 1);
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
