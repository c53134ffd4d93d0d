//! Which methods move nothing. What is not known here moves something, for all we know.
//!
//! The numbers are those of generation 2.6 of Kinova's Base (Base.proto of ros_kortex). Above 226 generation 3 has other
//! meanings for some, so that those count as moving.

use super::super::frame::Method;

/// `Base`'s methods that read or subscribe.
const BASE: &[u16] = &[
    3, 5, 6, 10, 12, 22, 24, 27, 30, 40, 43, 44, 59, 62, 63, 64, 67, 70, 97, 98, 99, 100, 101, 102, 103, 104,
    105, 106, 107, 108, 115, 116, 117, 122, 123, 126, 127, 134, 135, 137, 138, 150, 151, 153, 154, 156, 157,
    164, 166, 167, 171, 173, 174, 175, 176, 177, 179, 181, 183, 184, 185, 186, 195, 196, 198, 207, 208, 209,
    210, 211, 213, 219, 220, 224,
];
/// `BaseCyclic`'s.
const CYCLIC: &[u16] = &[3];
/// `DeviceManager`'s.
const DEVICES: &[u16] = &[1];

/// Whether a call may move something.
#[must_use]
pub fn moves(method: Method) -> bool {
    let reads = match method.service {
        2 => BASE,
        3 => CYCLIC,
        23 => DEVICES,
        _ => return true,
    };
    !reads.contains(&method.function)
}

#[cfg(test)]
mod tests {
    use super::super::super::method;
    use super::*;

    #[test]
    fn what_is_served_here_is_told_apart_as_it_is_there() {
        for reading in [
            method::GET_ARM_STATE,
            method::GET_SERVOING_MODE,
            method::GET_MEASURED_JOINT_ANGLES,
            method::GET_MEASURED_JOINT_SPEEDS,
            method::ARM_STATE_TOPIC,
            method::SERVOING_MODE_TOPIC,
            method::UNSUBSCRIBE,
            method::GET_ACTUATOR_COUNT,
            method::REFRESH_FEEDBACK,
        ] {
            assert!(!moves(reading), "{reading:?}");
        }
        for moving in [
            method::SEND_JOINT_SPEEDS,
            method::SEND_SELECTED_JOINT_SPEED,
            method::SET_SERVOING_MODE,
            method::CLEAR_FAULTS,
            method::REFRESH,
            // SendTwistCommand, ExecuteAction, ExecuteWaypointTrajectory, SelectOperatingMode of generation 3.
            Method::of(0x2_0079),
            Method::of(0x2_0030),
            Method::of(0x2_00E2),
            Method::of(0x2_00F3),
            // Another service, and one that there is not.
            Method::of(0x10_0001),
            Method::of(0xFFF_0001),
        ] {
            assert!(moves(moving), "{moving:?}");
        }
    }
}
