//! What frames mean to the motors of the tests: an independent reading of the two drive protocols.
//!
//! Sources are the protocols themselves (ODrive CANSimple; CiA 301 and 402), not the crate `drivers`: a
//! stop that Lanyard encodes wrongly must not be taken for one here.

use std::fmt;

use socketcan::id::FdFlags;

use crate::clock::Moment;

/// A frame as it was seen on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When the kernel had it.
    pub at: Moment,
    /// The identifier without flags.
    pub id: u32,
    /// The identifier is of the 29-bit form.
    pub extended: bool,
    /// A remote request.
    pub remote: bool,
    /// An FD frame, and which of BRS and ESI are set in it; `None`: a classic frame.
    pub fd: Option<FdFlags>,
    /// The payload; of a remote request, as many zeros as bytes are asked for.
    pub data: Vec<u8>,
}

impl fmt::Display for Seen {
    /// In the notation of `cansend`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.extended {
            write!(f, "{:08X}", self.id)?;
        } else {
            write!(f, "{:03X}", self.id)?;
        }
        match self.fd {
            Some(flags) => write!(f, "##{:X}", flags.bits())?,
            None => f.write_str("#")?,
        }
        if self.remote {
            return f.write_str("R");
        }
        self.data.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// The protocol of a motor's drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ODrive CANSimple.
    Odrive,
    /// CiA 402, commanded by SDO.
    Sdo,
    /// CiA 402, commanded by PDO.
    Pdo,
}

/// One motor of a test.
#[derive(Clone, Debug)]
pub struct Motor {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its node id.
    pub node: u8,
    /// What it speaks.
    pub family: Family,
}

/// ODrive: velocity control, input passed through.
const VELOCITY_PASSTHROUGH: [u8; 8] = [2, 0, 0, 0, 1, 0, 0, 0];

impl Motor {
    /// A motor.
    #[must_use]
    pub const fn new(name: &'static str, node: u8, family: Family) -> Self {
        Self { name, node, family }
    }

    /// Whether its drive takes the frame for a command at all: an 11-bit classic data frame.
    fn hears(&self, frame: &Seen) -> bool {
        match self.family {
            Family::Odrive | Family::Sdo | Family::Pdo => {
                !frame.extended && !frame.remote && frame.fd.is_none()
            }
        }
    }

    fn axis(&self, command: u32) -> u32 {
        u32::from(self.node) << 5 | command
    }

    /// The frames of a controlled stop, in order: identifier and payload.
    #[must_use]
    pub fn stop_frames(&self) -> Vec<(u32, Vec<u8>)> {
        let node = u32::from(self.node);
        match self.family {
            Family::Odrive => vec![
                (self.axis(0x0B), VELOCITY_PASSTHROUGH.to_vec()),
                // Velocity 0.0 and torque 0.0 as two f32.
                (self.axis(0x0D), vec![0; 8]),
            ],
            // Controlword 6040 := 2, quick stop.
            Family::Sdo => vec![(0x600 + node, vec![0x2B, 0x40, 0x60, 0, 2, 0, 0, 0])],
            Family::Pdo => vec![
                (0x200 + node, vec![2, 0, 0, 0, 0, 0]),
                (0x600 + node, vec![0x2B, 0x40, 0x60, 0, 2, 0, 0, 0]),
            ],
        }
    }

    /// Whether the frame is one of a controlled stop.
    #[must_use]
    pub fn is_stop(&self, frame: &Seen) -> bool {
        self.hears(frame)
            && self.stop_frames().iter().any(|(id, data)| frame.id == *id && frame.data == *data)
    }

    /// Whether the frame takes the motor's torque away.
    #[must_use]
    pub fn is_torque_off(&self, frame: &Seen) -> bool {
        let node = u32::from(self.node);
        let id = frame.id;
        if !self.hears(frame) {
            return false;
        }
        match self.family {
            // Axis state 1 is idle.
            Family::Odrive => id == self.axis(0x07) && frame.data.first() == Some(&1),
            // Controlword 0, disable voltage.
            Family::Sdo | Family::Pdo => {
                (id == 0x600 + node && frame.data == [0x2B, 0x40, 0x60, 0, 0, 0, 0, 0])
                    || (id == 0x200 + node && frame.data.starts_with(&[0, 0]))
            }
        }
    }

    /// Whether the frame asks for a speed other than 0.
    #[must_use]
    pub fn drives(&self, frame: &Seen) -> bool {
        let node = u32::from(self.node);
        let moving = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
        if !self.hears(frame) {
            return false;
        }
        match self.family {
            // Bit 31 alone is -0.0.
            Family::Odrive => {
                frame.id == self.axis(0x0D)
                    && frame.data.get(..4).is_some_and(|v| moving(&[v[0], v[1], v[2], v[3] & 0x7F]))
            }
            Family::Sdo | Family::Pdo => {
                let by_sdo = frame.id == 0x600 + node
                    && frame.data.starts_with(&[0x23, 0xFF, 0x60, 0])
                    && frame.data.get(4..8).is_some_and(moving);
                let by_pdo = frame.id == 0x200 + node
                    && frame.data.first().is_some_and(|low| low & 0x0F == 0x0F)
                    && frame.data.get(2..6).is_some_and(moving);
                by_sdo || by_pdo
            }
        }
    }

    /// Whether the frame switches the motor's torque on.
    #[must_use]
    pub fn energises(&self, frame: &Seen) -> bool {
        let node = u32::from(self.node);
        if !self.hears(frame) {
            return false;
        }
        match self.family {
            // Axis state 8 is closed-loop control.
            Family::Odrive => frame.id == self.axis(0x07) && frame.data.first() == Some(&8),
            Family::Sdo | Family::Pdo => {
                let enables = |low: u8| low & 0x0F == 0x0F;
                (frame.id == 0x600 + node
                    && frame.data.starts_with(&[0x2B, 0x40, 0x60, 0])
                    && frame.data.get(4).is_some_and(|low| enables(*low)))
                    || (frame.id == 0x200 + node && frame.data.first().is_some_and(|low| enables(*low)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: u32, data: &[u8]) -> Seen {
        Seen { at: Moment(0), id, extended: false, remote: false, fd: None, data: data.to_vec() }
    }

    #[test]
    fn frames_are_told_apart() {
        let wheel = Motor::new("left", 3, Family::Odrive);
        assert!(wheel.is_stop(&frame(0x06D, &[0; 8])));
        assert!(!wheel.is_stop(&frame(0x08D, &[0; 8])));
        assert!(wheel.drives(&frame(0x06D, &[0, 0, 0x80, 0x3F, 0, 0, 0, 0])));
        assert!(!wheel.drives(&frame(0x06D, &[0, 0, 0, 0x80, 0, 0, 0, 0])));
        assert!(wheel.energises(&frame(0x067, &[8, 0, 0, 0])));
        assert!(wheel.is_torque_off(&frame(0x067, &[1, 0, 0, 0, 0, 0, 0, 0])));

        let arm = Motor::new("arm", 5, Family::Sdo);
        assert!(arm.is_stop(&frame(0x605, &[0x2B, 0x40, 0x60, 0, 2, 0, 0, 0])));
        assert!(arm.energises(&frame(0x605, &[0x2B, 0x40, 0x60, 0, 0x0F, 0, 0, 0])));
        assert!(arm.drives(&frame(0x605, &[0x23, 0xFF, 0x60, 0, 1, 0, 0, 0])));
        assert!(!arm.drives(&frame(0x605, &[0x23, 0xFF, 0x60, 0, 0, 0, 0, 0])));
    }

    #[test]
    fn a_stop_in_another_form_is_none() {
        let arm = Motor::new("arm", 5, Family::Sdo);
        let stop = frame(0x605, &[0x2B, 0x40, 0x60, 0, 2, 0, 0, 0]);
        assert!(arm.is_stop(&stop));
        assert!(!arm.is_stop(&Seen { extended: true, ..stop.clone() }));
        assert!(!arm.is_stop(&Seen { remote: true, ..stop.clone() }));
        assert!(!arm.is_stop(&Seen { fd: Some(FdFlags::BRS), ..stop }));
    }

    #[test]
    fn frames_are_shown_for_cansend() {
        let plain = frame(0x067, &[1, 0xAB]);
        assert_eq!(plain.to_string(), "067#01AB");
        assert_eq!(Seen { extended: true, ..plain.clone() }.to_string(), "00000067#01AB");
        assert_eq!(Seen { remote: true, ..plain.clone() }.to_string(), "067#R");
        assert_eq!(Seen { fd: Some(FdFlags::BRS), ..plain.clone() }.to_string(), "067##101AB");
        assert_eq!(Seen { fd: Some(FdFlags::empty()), ..plain }.to_string(), "067##001AB");
    }
}
