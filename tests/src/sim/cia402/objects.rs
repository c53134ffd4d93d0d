//! The object dictionary: what a drive can be asked and told by SDO.

use std::time::Duration;

use super::sdo::{Abort, Address, Value};
use super::{Cia402, Consumer};
use crate::sim::Time;
use crate::sim::cycle::Cycle;
use crate::sim::num::to_i32;

/// Bit 31 of a PDO's identifier: the PDO is not used.
const NOT_VALID: u32 = 0x8000_0000;
/// Bit 30 of a PDO's identifier: no remote requests. This drive answers none anyway.
const NO_REMOTE: u32 = 0x4000_0000;
/// What the PDOs carry. A master may write the mapping in CiA 301's order (PDO off, number to 0, objects,
/// number, PDO on), but these are the only objects this drive can map.
const RPDO_MAPPING: [u32; 2] = [0x6040_0010, 0x60FF_0020];
const TPDO_MAPPING: [u32; 2] = [0x6041_0010, 0x606C_0020];

/// The objects that keep what was written to them.
#[derive(Clone, Debug)]
pub struct Objects {
    /// 1029:1, what a communication error does to the NMT state: 0 pre-operational, 1 nothing, 2 stopped.
    pub error_behaviour: u8,
    /// 1400:1
    pub rpdo_valid: bool,
    /// 1400:2: up to 240, the PDO takes effect with the next SYNC.
    pub rpdo_type: u8,
    /// 1600:0, how many objects RPDO1 has; 0 while it is being mapped.
    pub rpdo_objects: u8,
    /// 1A00:0, how many objects TPDO1 has; 0 while it is being mapped.
    pub tpdo_objects: u8,
    /// 1800:3, in 100 us; kept, but this drive's TPDO is slower anyway.
    pub tpdo_inhibit: u16,
    /// 1800:1
    pub tpdo_valid: bool,
    /// 1800:2: up to 240, the PDO is sent with every n-th SYNC.
    pub tpdo_type: u8,
    /// 6007, what the loss of the connection does: 0 nothing, 1 fault, 2 disable voltage, 3 quick stop.
    pub abort_option: i16,
    /// 605A
    pub quick_stop_option: i16,
    /// 605D
    pub halt_option: i16,
    /// 605E: 0 torque off, else ramp.
    pub fault_reaction: i16,
    /// 6060
    pub mode: i8,
    /// 60FF, counts/s.
    pub target: i32,
    /// 6083, counts/s².
    pub acceleration: u32,
    /// 6084, counts/s².
    pub deceleration: u32,
    /// 6085, counts/s².
    pub quick_deceleration: u32,
}

impl Cia402 {
    /// Reads an object.
    pub(super) fn read(&mut self, address: Address) -> Result<Value, Abort> {
        use Value::{I8, I16, I32, U8, U16, U32};
        let node = u32::from(self.config.node);
        let validity = |valid: bool| if valid { 0 } else { NOT_VALID };
        let millis = |cycle: &Cycle| U16(u16::try_from(cycle.period().as_millis()).unwrap_or(u16::MAX));
        Ok(match address {
            // A servo drive with the profile 402.
            (0x1000, 0) => U32(0x0002_0192),
            (0x1001, 0) => U8(self.error_register()),
            (0x1005, 0) => U32(0x80),
            (0x1014, 0) => U32(0x80 + node),
            (0x1016 | 0x1029, 0) => U8(1),
            (0x1016, 1) => U32(self.consumer.raw),
            (0x1017, 0) => millis(&self.heartbeat),
            (0x1018, 0) => U8(4),
            (0x1018, 1..=3) => U32(0),
            (0x1018, 4) => U32(node),
            (0x1029, 1) => U8(self.objects.error_behaviour),
            (0x1400, 0) => U8(2),
            (0x1600, 0) => U8(self.objects.rpdo_objects),
            (0x1A00, 0) => U8(self.objects.tpdo_objects),
            (0x1400, 1) => U32((0x200 + node) | validity(self.objects.rpdo_valid)),
            (0x1400, 2) => U8(self.objects.rpdo_type),
            (0x1600, 1) => U32(RPDO_MAPPING[0]),
            (0x1600, 2) => U32(RPDO_MAPPING[1]),
            (0x1800, 0) => U8(5),
            (0x1800, 1) => U32((0x180 + node) | validity(self.objects.tpdo_valid)),
            (0x1800, 2) => U8(self.objects.tpdo_type),
            (0x1800, 3) => U16(self.objects.tpdo_inhibit),
            (0x1800, 5) => millis(&self.tpdo),
            (0x1A00, 1) => U32(TPDO_MAPPING[0]),
            (0x1A00, 2) => U32(TPDO_MAPPING[1]),
            (0x6007, 0) => I16(self.objects.abort_option),
            (0x603F, 0) => U16(self.error_code),
            (0x6040, 0) => U16(self.controlword),
            (0x6041, 0) => U16(self.statusword()),
            (0x605A, 0) => I16(self.objects.quick_stop_option),
            (0x605D, 0) => I16(self.objects.halt_option),
            (0x605E, 0) => I16(self.objects.fault_reaction),
            (0x6060 | 0x6061, 0) => I8(self.objects.mode),
            (0x6064, 0) => I32(to_i32(self.shaft.position() * self.counts())),
            (0x606B, 0) => I32(to_i32(self.demanded_velocity() * self.counts())),
            (0x606C, 0) => I32(self.velocity_counts()),
            (0x6083, 0) => U32(self.objects.acceleration),
            (0x6084, 0) => U32(self.objects.deceleration),
            (0x6085, 0) => U32(self.objects.quick_deceleration),
            (0x60FF, 0) => I32(self.objects.target),
            // Profile velocity (bit 2) and cyclic synchronous velocity (bit 8).
            (0x6502, 0) => U32(0x104),
            (_, 0) => return Err(Abort::NO_OBJECT),
            (index, _) => return Err(self.read((index, 0)).err().unwrap_or(Abort::NO_SUBINDEX)),
        })
    }

    /// Writes an object.
    pub(super) fn write(
        &mut self,
        now: Time,
        address: Address,
        data: [u8; 4],
        stated: Option<u8>,
    ) -> Result<(), Abort> {
        use Value::{I8, I16, I32, U8, U16, U32};
        let value = self.read(address)?.same_type(data, stated)?;
        let node = u32::from(self.config.node);
        match (address, value) {
            ((0x1016, 1), U32(v)) => self.consumer = Consumer::new(v),
            ((0x1017, 0), U16(v)) => self.heartbeat = Cycle::new(now, Duration::from_millis(v.into())),
            ((0x1029, 1), U8(v @ 0..=2)) => self.objects.error_behaviour = v,
            ((0x1400, 1), U32(v)) if v & !NOT_VALID == 0x200 + node => {
                self.objects.rpdo_valid = v & NOT_VALID == 0;
            }
            ((0x1400, 2), U8(v @ (0..=240 | 254 | 255))) => self.objects.rpdo_type = v,
            ((0x1600, 0), U8(v @ (0 | 2))) if !self.objects.rpdo_valid => self.objects.rpdo_objects = v,
            ((0x1600, 1), U32(v)) if self.objects.rpdo_objects == 0 && v == RPDO_MAPPING[0] => {}
            ((0x1600, 2), U32(v)) if self.objects.rpdo_objects == 0 && v == RPDO_MAPPING[1] => {}
            ((0x1A00, 0), U8(v @ (0 | 2))) if !self.objects.tpdo_valid => self.objects.tpdo_objects = v,
            ((0x1A00, 1), U32(v)) if self.objects.tpdo_objects == 0 && v == TPDO_MAPPING[0] => {}
            ((0x1A00, 2), U32(v)) if self.objects.tpdo_objects == 0 && v == TPDO_MAPPING[1] => {}
            ((0x1600 | 0x1A00, 1..), _) => return Err(Abort::NOT_MAPPABLE),
            ((0x1800, 3), U16(v)) => self.objects.tpdo_inhibit = v,
            ((0x1800, 1), U32(v)) if v & !(NOT_VALID | NO_REMOTE) == 0x180 + node => {
                self.objects.tpdo_valid = v & NOT_VALID == 0;
            }
            ((0x1800, 2), U8(v @ (1..=240 | 254 | 255))) => self.objects.tpdo_type = v,
            ((0x1800, 5), U16(v)) => self.tpdo = Cycle::new(now, Duration::from_millis(v.into())),
            ((0x6007, 0), I16(v @ 0..=3)) => self.objects.abort_option = v,
            ((0x6040, 0), U16(v)) => self.set_controlword(v),
            ((0x605A, 0), I16(v @ (0..=2 | 5 | 6))) => self.objects.quick_stop_option = v,
            ((0x605D, 0), I16(v @ 0..=2)) => self.objects.halt_option = v,
            ((0x605E, 0), I16(v @ 0..=2)) => self.objects.fault_reaction = v,
            ((0x6060, 0), I8(v @ (0 | 3 | 9))) => self.objects.mode = v,
            ((0x6083, 0), U32(v @ 1..)) => self.objects.acceleration = v,
            ((0x6084, 0), U32(v @ 1..)) => self.objects.deceleration = v,
            ((0x6085, 0), U32(v @ 1..)) => self.objects.quick_deceleration = v,
            ((0x60FF, 0), I32(v)) => self.set_target(v),
            // One of the above, so it is the value that is wrong.
            (
                (0x1029 | 0x1400 | 0x1800, 1..)
                | (0x1600 | 0x1A00 | 0x6007 | 0x605A..=0x6060 | 0x6083..=0x6085, 0),
                _,
            ) => {
                return Err(Abort::VALUE);
            }
            _ => return Err(Abort::READ_ONLY),
        }
        Ok(())
    }
}
