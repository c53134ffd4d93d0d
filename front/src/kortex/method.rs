//! The methods that are served here, by their numbers. (Reference: kortex.md, section 2, and Kinova's Base.proto for
//! 0x2007E, 0x20086, 0x200AB and 0x200AF.)

use super::frame::Method;

/// Opens a session.
pub const CREATE_SESSION: Method = Method::of(0x1_0001);
/// Ends it.
pub const CLOSE_SESSION: Method = Method::of(0x1_0002);
/// "I am alive."
pub const KEEP_ALIVE: Method = Method::of(0x1_0003);
/// Every session.
pub const GET_CONNECTIONS: Method = Method::of(0x1_0004);
/// Generation 3: more rights for this session.
pub const ADD_TEMPORARY_USER_ROLE: Method = Method::of(0x1_0005);
/// Generation 3: takes them back.
pub const REMOVE_TEMPORARY_USER_ROLE: Method = Method::of(0x1_0006);
/// Generation 3: how control is arbitrated.
pub const SET_ACCESS_CONTROL: Method = Method::of(0x1_0007);
/// Generation 3.
pub const GET_ACCESS_CONTROL: Method = Method::of(0x1_0008);

/// Ends a subscription.
pub const UNSUBSCRIBE: Method = Method::of(0x2_0061);
/// The arm stands still.
pub const STOP: Method = Method::of(0x2_0070);
/// Where the joints are.
pub const GET_MEASURED_JOINT_ANGLES: Method = Method::of(0x2_007E);
/// The arm's joints turn.
pub const SEND_JOINT_SPEEDS: Method = Method::of(0x2_0084);
/// One joint turns.
pub const SEND_SELECTED_JOINT_SPEED: Method = Method::of(0x2_0085);
/// How fast the joints turn.
pub const GET_MEASURED_JOINT_SPEEDS: Method = Method::of(0x2_0086);
/// Everything stops and stays stopped.
pub const APPLY_EMERGENCY_STOP: Method = Method::of(0x2_0091);
/// It may move again.
pub const CLEAR_FAULTS: Method = Method::of(0x2_0092);
/// Who closes the control loop.
pub const SET_SERVOING_MODE: Method = Method::of(0x2_0098);
/// Who closes the control loop.
pub const GET_SERVOING_MODE: Method = Method::of(0x2_0099);
/// Tells of changes of the servoing mode.
pub const SERVOING_MODE_TOPIC: Method = Method::of(0x2_009A);
/// How many joints there are.
pub const GET_ACTUATOR_COUNT: Method = Method::of(0x2_00AB);
/// What the arm does.
pub const GET_ARM_STATE: Method = Method::of(0x2_00AF);
/// Tells of changes of it.
pub const ARM_STATE_TOPIC: Method = Method::of(0x2_00B0);

/// Commands and feedback, 1000 times a second on a real arm.
pub const REFRESH: Method = Method::of(0x3_0001);
/// Feedback alone.
pub const REFRESH_FEEDBACK: Method = Method::of(0x3_0003);

/// What an arm of this robot's own serves, though a base stands behind it.
pub const NATIVE: [Method; 13] = [
    UNSUBSCRIBE,
    GET_MEASURED_JOINT_ANGLES,
    SEND_JOINT_SPEEDS,
    SEND_SELECTED_JOINT_SPEED,
    GET_MEASURED_JOINT_SPEEDS,
    SET_SERVOING_MODE,
    GET_SERVOING_MODE,
    SERVOING_MODE_TOPIC,
    GET_ACTUATOR_COUNT,
    GET_ARM_STATE,
    ARM_STATE_TOPIC,
    REFRESH,
    REFRESH_FEEDBACK,
];

/// Services of which something is served.
pub const SERVICES: [u16; 3] = [1, 2, 3];
