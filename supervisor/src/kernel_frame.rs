//! A CAN frame as the kernel wants and gives it: `struct can_frame` and `struct canfd_frame`.
//!
//! Source of the layout: `include/uapi/linux/can.h`. Both begin with the identifier and its flags, the
//! length, and for CAN FD the flags; the payload begins at byte 8.

use drivers::{ArbitrationId, Format, Frame};

/// Bytes of `struct can_frame`.
pub const CLASSIC: usize = libc::CAN_MTU;
/// Bytes of `struct canfd_frame`.
pub const FD: usize = libc::CANFD_MTU;
const AT_LENGTH: usize = 4;
const AT_FLAGS: usize = 5;
/// A byte that no wire carries, in both forms (`__res0`, "reserved / padding"): the kernel hands it to other programs of this
/// computer as it was written.
const AT_RESERVED: usize = 6;
/// What marks a frame there that a job of the kernel sends, so that it can be told from those of programs. Any other
/// number but 0, which is what almost everybody writes, would do. It proves nothing: any program may write it. Only a stop may
/// follow from it.
const OF_A_JOB: u8 = 0x4C;
const AT_PAYLOAD: usize = 8;
/// The payload at the higher bit rate.
const BIT_RATE_SWITCH: u8 = 0x01;

/// One frame in the kernel's form, ready to be written to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFrame {
    bytes: [u8; FD],
    length: usize,
}

/// What the kernel delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// A frame of some node.
    Frame(Frame),
    /// A report of the interface itself: error classes (`CAN_ERR_*`) and details.
    Error {
        /// The classes.
        classes: u32,
        /// The eight bytes of detail.
        details: [u8; 8],
    },
}

impl KernelFrame {
    /// The kernel's form of a frame.
    #[must_use]
    pub fn new(frame: &Frame) -> Self {
        let mut bytes = [0; FD];
        let mut id = match frame.id() {
            ArbitrationId::Standard(id) => u32::from(id),
            ArbitrationId::Extended(id) => id | libc::CAN_EFF_FLAG,
        };
        let length = match frame.format() {
            Format::Classic => CLASSIC,
            Format::Remote => {
                id |= libc::CAN_RTR_FLAG;
                CLASSIC
            }
            Format::FdBrs => {
                bytes[AT_FLAGS] = BIT_RATE_SWITCH;
                FD
            }
        };
        bytes[..AT_LENGTH].copy_from_slice(&id.to_ne_bytes());
        let payload = frame.payload();
        for (to, from) in bytes[AT_PAYLOAD..length].iter_mut().zip(payload) {
            *to = *from;
        }
        bytes[AT_LENGTH] = u8::try_from(payload.len()).unwrap_or(0);
        Self { bytes, length }
    }

    /// The same frame, marked as one that a job of the kernel sends.
    #[must_use]
    pub fn of_a_job(mut self) -> Self {
        self.bytes[AT_RESERVED] = OF_A_JOB;
        self
    }

    /// The bytes to write.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Whether what came from a program of this computer was sent by a job of the kernel that some supervisor has armed.
#[must_use]
pub fn is_of_a_job(bytes: &[u8]) -> bool {
    bytes.get(AT_RESERVED) == Some(&OF_A_JOB)
}

/// Reads what came from a CAN socket; `None` for anything that is no frame.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Delivered> {
    let word = u32::from_ne_bytes(bytes.get(..AT_LENGTH)?.try_into().ok()?);
    let length = usize::from(*bytes.get(AT_LENGTH)?);
    let payload = bytes.get(AT_PAYLOAD..AT_PAYLOAD + length)?;
    if word & libc::CAN_ERR_FLAG != 0 {
        let details = bytes.get(AT_PAYLOAD..AT_PAYLOAD + 8)?.try_into().ok()?;
        return Some(Delivered::Error { classes: word & libc::CAN_ERR_MASK, details });
    }
    let id = if word & libc::CAN_EFF_FLAG == 0 {
        ArbitrationId::standard(u16::try_from(word & libc::CAN_SFF_MASK).ok()?)
    } else {
        ArbitrationId::extended(word & libc::CAN_EFF_MASK)
    };
    Some(Delivered::Frame(match bytes.len() {
        CLASSIC if word & libc::CAN_RTR_FLAG != 0 => Frame::remote(id),
        CLASSIC => Frame::classic(id, payload),
        FD => Frame::fd(id, payload),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::{Delivered, KernelFrame, is_of_a_job, read};
    use drivers::{ArbitrationId, Frame};

    #[test]
    fn every_format_survives_the_way_through_the_kernel() {
        let standard = ArbitrationId::standard(0x7FF);
        let extended = ArbitrationId::extended(0x1FFF_FFFF);
        for frame in [
            Frame::classic(standard, &[1, 2, 3, 4, 5, 6, 7, 8]),
            Frame::classic(extended, &[]),
            Frame::remote(standard),
            Frame::fd(extended, &[9; 64]),
            Frame::classic(ArbitrationId::standard(0x123), &[1]),
            Frame::remote(ArbitrationId::standard(0x123)),
            Frame::remote(ArbitrationId::extended(0x12345)),
            Frame::fd(ArbitrationId::extended(0x12345), &[]),
        ] {
            let there = KernelFrame::new(&frame);
            assert_eq!(read(there.as_bytes()), Some(Delivered::Frame(frame)));
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_kernel_headers() {
        let frame = KernelFrame::new(&Frame::classic(ArbitrationId::extended(0x12345), &[0xAA]));
        let mut expected = [0_u8; 16];
        expected[..4].copy_from_slice(&(0x12345_u32 | 0x8000_0000).to_ne_bytes());
        expected[4] = 1;
        expected[8] = 0xAA;
        assert_eq!(frame.as_bytes(), expected);
    }

    /// Fails if the state of the controller is read from the wrong place: a bus-off would go unseen.
    #[test]
    fn a_report_of_the_interface_has_its_classes_and_details() {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&(0x2000_0000_u32 | 0x244).to_ne_bytes());
        bytes[4] = 8;
        bytes[8..].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let details = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(read(&bytes), Some(Delivered::Error { classes: 0x244, details }));
    }

    /// Fails if the mark changes what is sent, or is not found again.
    #[test]
    fn a_frame_of_a_job_is_marked_where_no_wire_has_it() {
        let id = ArbitrationId::standard(0x123);
        for frame in [Frame::classic(id, &[9; 8]), Frame::remote(id), Frame::fd(id, &[9; 64])] {
            let (plain, marked) = (KernelFrame::new(&frame), KernelFrame::new(&frame).of_a_job());
            assert!(is_of_a_job(marked.as_bytes()) && !is_of_a_job(plain.as_bytes()));
            assert_eq!(read(marked.as_bytes()), Some(Delivered::Frame(frame)));
        }
        assert!(!is_of_a_job(&[]));
    }

    #[test]
    fn nonsense_is_no_frame() {
        for length in 0..100 {
            let bytes = vec![0xFF; length];
            assert!(matches!(read(&bytes), None | Some(Delivered::Error { .. })), "{length} bytes of 0xFF");
        }
        let mut long = [0_u8; 16];
        long[4] = 9;
        assert_eq!(read(&long), None, "nine bytes in a classic frame");
    }
}
