//! The identifier that means nothing to anybody on a bus.
//!
//! The kernel-armed stop needs a first frame that may be sent as often as one likes, by a kernel that does
//! not know whether anything is well: no drive may react to it, and none may take it for a sign of life. An
//! ODrive's own watchdog is fed by *any* frame that is addressed to its axis, and a CANopen heartbeat is
//! nothing but its identifier, so it is the identifier that has to be free.

use crate::drive::Drive;
use crate::frame::ArbitrationId;

/// The standard identifier of lowest priority. Above it the first seven bits are all recessive, which CAN 2.0
/// as Bosch wrote it forbids and old controllers treat as an error; ISO 11898-1 allows it.
const LAST_STANDARD: u16 = 0x7EF;
/// The extended identifier of lowest priority, for the same reason.
const LAST_EXTENDED: u32 = 0x1FBF_FFFF;

/// Families that hear extended identifiers hear whole ranges of them: the last one of each range of this size
/// is tried before all of them one by one, which takes minutes.
const RANGE: u32 = 0x1_0000;

/// The identifier of lowest priority that none of these drives, and no other drive of their families on the
/// same bus, would hear; nearly the lowest among extended ones. Standard if there is one: it is 25 bits
/// shorter. `None`: every identifier is heard by somebody.
#[must_use]
pub fn unheard<'a>(drives: impl Iterator<Item = &'a Drive> + Clone) -> Option<ArbitrationId> {
    let standard = (0..=LAST_STANDARD).rev().map(ArbitrationId::standard);
    let last_of_each = (0..=LAST_EXTENDED / RANGE).rev().map(|range| range * RANGE + (RANGE - 1));
    let extended = last_of_each.chain((0..=LAST_EXTENDED).rev()).map(ArbitrationId::extended);
    standard.chain(extended).find(|id| !drives.clone().any(|drive| drive.may_hear(*id)))
}
