//! What a family of drives says of itself: how one drive answers frames, the clock and orders.

use std::fmt::Debug;

use serde_json::Value;

use super::Time;
use super::frame::{Frame, IdRange};
use super::inject::{Behaviour, Order};

/// The model of one drive. It is pure: what it sends it adds to `out`.
///
/// What is the same for every drive is done around it, in [`Drive`](super::Drive): a drive that is offline
/// hears nothing, a silent one is not heard, and frames sent are counted. A model counts the frames it has
/// seen and refused, and asks [`Behaviour::refuses`] before it carries out a stop.
pub trait Model: Debug {
    /// The name of its kind, as in the registry.
    fn kind(&self) -> &'static str;

    /// The node id, which also names the drive in control commands.
    fn node(&self) -> u8;

    /// The identifiers that belong to this drive alone, whoever sends them.
    fn own_ids(&self) -> Vec<IdRange>;

    /// The identifiers this drive listens to: those of its own, unless it says otherwise. Only frames with
    /// these reach it.
    fn heard_ids(&self) -> Vec<IdRange> {
        self.own_ids()
    }

    /// Whether its controller knows CAN FD. Without, FD frames do not reach it.
    fn has_fd(&self) -> bool {
        false
    }

    /// Injected misbehaviour and counters.
    fn behaviour(&mut self) -> &mut Behaviour;

    /// Takes a frame seen on the bus at `now`. Frames for other drives of the simulation come here too, and
    /// must have no effect.
    fn on_frame(&mut self, now: Time, frame: &Frame, out: &mut Vec<Frame>);

    /// Lets time pass until `now` and sends what is due.
    fn tick(&mut self, now: Time, out: &mut Vec<Frame>);

    /// When `tick` has to be called next; [`Time::MAX`] if never.
    fn next_due(&self) -> Time;

    /// Carries out an order from the control socket.
    fn order(&mut self, now: Time, order: &Order, out: &mut Vec<Frame>);

    /// What the drive is doing, as JSON.
    fn status(&mut self, now: Time) -> Value;
}
