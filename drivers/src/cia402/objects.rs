//! The objects of the drive's dictionary that Lanyard reads or writes (CiA 301, CiA 402).

use super::statusword::{may_energise, resets_fault};
use crate::canopen::Object;
use crate::canopen::sdo::Request;
use crate::meaning::{Demand, Told};
use crate::units::RevolutionsPerSecond;

/// u32, consumer heartbeat: node << 16 | milliseconds. The drive's own watchdog on its master.
pub(super) const CONSUMER_HEARTBEAT: Object = Object::at(0x1016, 1);
/// u16, milliseconds between the drive's own heartbeats.
pub(super) const PRODUCER_HEARTBEAT: Object = Object::at(0x1017, 0);

/// u32, identifier of the first receive PDO; bit 31 switches it off.
pub(super) const RPDO1_ID: Object = Object::at(0x1400, 1);
/// u8, transmission type of the first receive PDO.
pub(super) const RPDO1_TYPE: Object = Object::at(0x1400, 2);
/// u8, how many objects the first receive PDO carries.
pub(super) const RPDO1_COUNT: Object = Object::at(0x1600, 0);
/// u32, first and second mapped object: index << 16 | subindex << 8 | bits.
pub(super) const RPDO1_FIRST: Object = Object::at(0x1600, 1);
pub(super) const RPDO1_SECOND: Object = Object::at(0x1600, 2);
/// The same for the first transmit PDO.
pub(super) const TPDO1_ID: Object = Object::at(0x1800, 1);
pub(super) const TPDO1_TYPE: Object = Object::at(0x1800, 2);
/// u16, shortest pause between two transmissions in 100 us.
pub(super) const TPDO1_INHIBIT: Object = Object::at(0x1800, 3);
pub(super) const TPDO1_COUNT: Object = Object::at(0x1A00, 0);
pub(super) const TPDO1_FIRST: Object = Object::at(0x1A00, 1);
pub(super) const TPDO1_SECOND: Object = Object::at(0x1A00, 2);

/// i16, what the drive does when the connection breaks: 2 disable voltage, 3 quick stop.
pub(super) const ABORT_OPTION: Object = Object::at(0x6007, 0);
/// u16.
pub(super) const CONTROLWORD: Object = Object::at(0x6040, 0);
/// u16.
pub(super) const STATUSWORD: Object = Object::at(0x6041, 0);
/// i16, how the quick stop brakes and where it ends.
pub(super) const QUICK_STOP_OPTION: Object = Object::at(0x605A, 0);
/// i16, how *halt* brakes.
pub(super) const HALT_OPTION: Object = Object::at(0x605D, 0);
/// i8, mode of operation.
pub(super) const MODE: Object = Object::at(0x6060, 0);
/// i32, position actual value.
pub(super) const POSITION: Object = Object::at(0x6064, 0);
/// i32, velocity actual value.
pub(super) const VELOCITY: Object = Object::at(0x606C, 0);
/// i32, target velocity of the velocity modes.
pub(super) const TARGET_VELOCITY: Object = Object::at(0x60FF, 0);

/// Whether a request would energise or move the drive; yes if it cannot be understood.
pub(super) fn is_motion(request: Request) -> bool {
    match request {
        Request::Harmless => false,
        Request::Unknown => true,
        Request::Write(object, _) | Request::LongWrite(object) if is_configuration(object.index) => false,
        Request::LongWrite(_) => true,
        Request::Write(object, data) if object.index == CONTROLWORD.index => may_energise(data[0]),
        Request::Write(object, data) => !is_harmless_when_zero(object.index) || data != [0; 4],
    }
}

/// What a request tells the drive; `speed` is that of so many velocity units. Objects of the maker's own are settings, for
/// all that is known.
pub(super) fn told(request: Request, speed: impl Fn(i32) -> RevolutionsPerSecond) -> Told {
    match request {
        Request::Write(CONTROLWORD, [low, ..]) if resets_fault(low) => Told::Clear,
        Request::Write(CONTROLWORD, _) => Told::AsListed,
        Request::Write(TARGET_VELOCITY, data) => {
            Told::SetPoint(Demand::Speed(speed(i32::from_le_bytes(data))))
        }
        Request::Write(object, _) if is_setpoint(object.index) => Told::SetPoint(Demand::Other),
        Request::Write(object, _) if is_configuration(object.index) => Told::AsListed,
        Request::Harmless | Request::Unknown | Request::Write(..) | Request::LongWrite(_) => Told::Other,
    }
}

/// Set-points of all modes: vl target velocity, target torque and position, offsets, target velocity.
const fn is_setpoint(index: u16) -> bool {
    is_harmless_when_zero(index) || matches!(index, 0x607A | 0x60B0)
}

/// Objects that set a drive up but neither energise nor move it: the communication profile, what
/// happens on faults and stops, the mode, and the ramps.
const fn is_configuration(index: u16) -> bool {
    matches!(index, 0x1000..=0x1FFF | 0x6007 | 0x605A..=0x605E | 0x6060 | 0x6083..=0x6086)
}

/// Setpoints that move nothing when they are 0: vl target velocity, target torque, torque and velocity
/// offset, target velocity. A target *position* of 0 (607A) is a place to go to, so it is not here.
const fn is_harmless_when_zero(index: u16) -> bool {
    matches!(index, 0x6042 | 0x6071 | 0x60B1 | 0x60B2 | 0x60FF)
}
