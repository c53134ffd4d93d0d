//! Frames as the crate `socketcan` has them, for programs that use it. Only with the feature `socketcan`: the
//! supervisor writes the kernel's own form.

use socketcan::id::FdFlags;
use socketcan::{
    CanAnyFrame, CanDataFrame, CanFdFrame, CanRemoteFrame, EmbeddedFrame, ExtendedId, Id, StandardId,
};

use crate::frame::{ArbitrationId, Format, Frame};

/// A frame to be sent; `None` when its length is none that its format has.
#[must_use]
pub fn to_socket(frame: &Frame) -> Option<CanAnyFrame> {
    let id = match frame.id() {
        ArbitrationId::Standard(id) => Id::Standard(StandardId::new(id)?),
        ArbitrationId::Extended(id) => Id::Extended(ExtendedId::new(id)?),
    };
    Some(match frame.format() {
        Format::Classic => CanDataFrame::new(id, frame.payload())?.into(),
        Format::Remote => CanRemoteFrame::new_remote(id, 0)?.into(),
        Format::FdBrs => CanFdFrame::with_flags(id, frame.payload(), FdFlags::BRS)?.into(),
    })
}

/// A frame that was received; `None` for a report of the interface itself.
#[must_use]
pub fn from_socket(frame: &CanAnyFrame) -> Option<Frame> {
    let id = match frame.id() {
        Id::Standard(id) => ArbitrationId::standard(id.as_raw()),
        Id::Extended(id) => ArbitrationId::extended(id.as_raw()),
    };
    match frame {
        CanAnyFrame::Normal(frame) => Some(Frame::classic(id, frame.data())),
        CanAnyFrame::Fd(frame) => Some(Frame::fd(id, frame.data())),
        CanAnyFrame::Remote(_) => Some(Frame::remote(id)),
        CanAnyFrame::Error(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{ArbitrationId, Frame, from_socket, to_socket};

    #[test]
    fn frames_survive_the_way_through_the_socket() {
        let (standard, extended) = (ArbitrationId::standard(0x7FF), ArbitrationId::extended(0x7FF));
        for frame in [
            Frame::classic(standard, &[1, 2, 3]),
            Frame::classic(extended, &[]),
            Frame::remote(standard),
            Frame::fd(extended, &[0x50; 12]),
        ] {
            let there = to_socket(&frame);
            assert_eq!(there.as_ref().and_then(from_socket), Some(frame));
        }
    }
}
