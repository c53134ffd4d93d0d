//! What drives over CANopen have in common, whatever their profile: the SDO transfers that read and write objects
//! (CiA 301). What an object means, and which of them move a motor, is the family's own and never here.

pub(crate) mod sdo;

use crate::frame::{ArbitrationId, Format, Frame};

/// Services of the network, which have no identifier of one node (CiA 301): commands to its management, the clock's tick,
/// the time of day; and the requests of the layer settings (CiA 305).
const NMT: u16 = 0x000;
const SYNC: u16 = 0x080;
const TIME: u16 = 0x100;
const LSS_REQUEST: u16 = 0x7E5;
/// The node number in a command to the network's management that means all nodes.
const ALL_NODES: u8 = 0;

/// Whether a frame of the network's services reaches this node; `None` for other frames. What is too short to name a node
/// may be taken by any.
pub(crate) fn is_for_everybody(frame: &Frame, node: u8) -> Option<bool> {
    match frame.id() {
        ArbitrationId::Standard(NMT) => {
            Some(frame.payload().get(1).is_none_or(|named| [ALL_NODES, node].contains(named)))
        }
        ArbitrationId::Standard(SYNC | TIME | LSS_REQUEST) => Some(true),
        _ => None,
    }
}

/// Command specifiers of the network's management (CANopenNode `CO_NMT_Heartbeat.h`).
const START: u8 = 0x01;
const STOP: u8 = 0x02;
const PRE_OPERATIONAL: u8 = 0x80;
const RESET_NODE: u8 = 0x81;
const RESET_COMMUNICATION: u8 = 0x82;

fn command(specifier: u8, node: u8) -> Frame {
    Frame::classic(ArbitrationId::standard(NMT), &[specifier, node])
}

/// Has the node take and send PDOs, whatever its state. One that is started already does nothing. It moves no motor.
pub(crate) fn start(node: u8) -> Frame {
    command(START, node)
}

/// Has the node stop its PDOs; SDO goes on.
pub(crate) fn make_pre_operational(node: u8) -> Frame {
    command(PRE_OPERATIONAL, node)
}

/// Whether the frame ends both PDO and SDO of the node, for good or until it has booted.
pub(crate) fn deafens(frame: &Frame, node: u8) -> bool {
    let is_command = frame.id() == ArbitrationId::standard(NMT) && frame.format() == Format::Classic;
    let named = [ALL_NODES, node];
    match frame.payload() {
        [STOP | RESET_NODE | RESET_COMMUNICATION, whom] => is_command && named.contains(whom),
        _ => false,
    }
}

/// The address of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub index: u16,
    pub sub: u8,
}

impl Object {
    pub(crate) const fn at(index: u16, sub: u8) -> Self {
        Self { index, sub }
    }

    /// Index and subindex as one number: the numbering of answers ([`crate::Observation::answer`]).
    pub(crate) const fn key(self) -> u32 {
        (self.index as u32) << 8 | self.sub as u32
    }
}
