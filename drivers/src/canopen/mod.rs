//! What drives over CANopen have in common, whatever their profile: the SDO transfers that read and write objects
//! (CiA 301). What an object means, and which of them move a motor, is the family's own and never here.

pub(crate) mod sdo;

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
