"""Kortex's messages and methods, restated from what is known of the real API, not from what Lanyard was built from: a field
that both had wrong would not show otherwise.

Names and numbers are interface facts of Kortex 2.6 (Base, BaseCyclic, Session) and 3.3 (temporary roles).
"""

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

# Name: {field: (number, type)}. A type is a scalar, another message, or either after "repeated ". Enumerations are
# numbers here, as they are on the wire.
MESSAGES = {
    "Header": {
        "frame_info": (1, "fixed32"),
        "message_info": (2, "fixed32"),
        "service_info": (3, "fixed32"),
        "payload_info": (4, "fixed32"),
    },
    "Frame": {"header": (1, "Header"), "payload": (2, "bytes")},
    "Error": {"error_code": (1, "uint32"), "error_sub_code": (2, "uint32"), "error_sub_string": (3, "string")},
    "Empty": {},
    "CreateSessionInfo": {
        "username": (1, "string"),
        "session_inactivity_timeout": (2, "uint32"),
        "password": (3, "string"),
        "connection_inactivity_timeout": (4, "uint32"),
    },
    "UserProfileHandle": {"identifier": (1, "uint32"), "permission": (2, "fixed32")},
    "Connection": {
        "user_handle": (1, "UserProfileHandle"),
        "connection_information": (2, "string"),
        "connection_identifier": (3, "uint32"),
    },
    "ConnectionList": {"connection": (1, "repeated Connection")},
    "UserRole": {"identifier": (1, "string"), "permissions": (2, "repeated uint32")},
    "Connection3": {
        "user_handle": (1, "UserProfileHandle"),
        "connection_information": (2, "string"),
        "is_local": (4, "bool"),
        "session_identifier": (5, "uint32"),
        "connection_inactivity_timeout": (6, "uint32"),
        "roles": (7, "repeated UserRole"),
        "connection_type": (8, "uint32"),
        "is_webapp": (9, "bool"),
        "username": (10, "string"),
    },
    "ConnectionList3": {"connection": (1, "repeated Connection3"), "user_connections": (2, "repeated Connection3")},
    "TemporaryRoleRequest": {"role_identifier": (1, "string"), "password": (2, "string")},
    "AccessControlOptions": {"single_source_control": (1, "bool"), "bypass_remote_access": (2, "bool")},
    "SessionStatusHandle": {
        "session_identifier": (1, "uint32"),
        "user_identifier": (2, "uint32"),
        "roles": (3, "repeated UserRole"),
    },
    "SessionStatus": {"sessions": (1, "repeated SessionStatusHandle")},
    "JointSpeed": {"joint_identifier": (1, "uint32"), "value": (2, "float"), "duration": (3, "uint32")},
    "JointSpeeds": {"joint_speeds": (1, "repeated JointSpeed"), "duration": (2, "uint32")},
    "JointAngle": {"joint_identifier": (1, "uint32"), "value": (2, "float")},
    "JointAngles": {"joint_angles": (1, "repeated JointAngle")},
    "ActuatorInformation": {"count": (1, "uint32")},
    "ServoingModeInformation": {"servoing_mode": (1, "uint32")},
    "ArmStateInformation": {"active_state": (1, "uint32"), "connection": (2, "Connection")},
    "NotificationOptions": {"type": (1, "uint32"), "rate_m_sec": (2, "uint32"), "threshold_value": (3, "float")},
    "NotificationHandle": {"identifier": (1, "uint32")},
    "Timestamp": {"sec": (1, "uint32"), "usec": (2, "uint32")},
    "ServoingModeNotification": {"servoing_mode": (1, "uint32"), "timestamp": (2, "Timestamp")},
    "ArmStateNotification": {"active_state": (1, "uint32"), "timestamp": (2, "Timestamp")},
    "ActuatorCommand": {
        "command_id": (1, "fixed32"),
        "flags": (2, "fixed32"),
        "position": (3, "float"),
        "velocity": (4, "float"),
    },
    "Command": {"frame_id": (1, "fixed32"), "actuators": (2, "repeated ActuatorCommand")},
    "ActuatorFeedback": {
        "command_id": (1, "fixed32"),
        "status_flags": (2, "fixed32"),
        "position": (4, "float"),
        "velocity": (5, "float"),
    },
    "BaseFeedback": {
        "active_state_connection_identifier": (1, "uint32"),
        "active_state": (2, "uint32"),
        "fault_bank_a": (31, "fixed32"),
    },
    "Feedback": {
        "frame_id": (1, "fixed32"),
        "base": (2, "BaseFeedback"),
        "actuators": (3, "repeated ActuatorFeedback"),
    },
}

# Name: (number, what it takes, what it answers with).
METHODS = {
    "CreateSession": (0x10001, "CreateSessionInfo", "Empty"),
    "CloseSession": (0x10002, "Empty", "Empty"),
    "KeepAlive": (0x10003, "Empty", "Empty"),
    "GetConnections": (0x10004, "Empty", "ConnectionList"),
    "AddTemporaryUserRole": (0x10005, "TemporaryRoleRequest", "Empty"),
    "RemoveTemporaryUserRole": (0x10006, "Empty", "Empty"),
    "SetAccessControl": (0x10007, "AccessControlOptions", "Empty"),
    "GetAccessControl": (0x10008, "Empty", "AccessControlOptions"),
    "ExecuteAction": (0x20030, "Empty", "Empty"),
    "Unsubscribe": (0x20061, "NotificationHandle", "Empty"),
    "Stop": (0x20070, "Empty", "Empty"),
    "GetMeasuredJointAngles": (0x2007E, "Empty", "JointAngles"),
    "SendJointSpeedsCommand": (0x20084, "JointSpeeds", "Empty"),
    "SendSelectedJointSpeedCommand": (0x20085, "JointSpeed", "Empty"),
    "GetMeasuredJointSpeeds": (0x20086, "Empty", "JointSpeeds"),
    "ApplyEmergencyStop": (0x20091, "Empty", "Empty"),
    "ClearFaults": (0x20092, "Empty", "Empty"),
    "SetServoingMode": (0x20098, "ServoingModeInformation", "Empty"),
    "GetServoingMode": (0x20099, "Empty", "ServoingModeInformation"),
    "ServoingModeTopic": (0x2009A, "NotificationOptions", "NotificationHandle"),
    "GetActuatorCount": (0x200AB, "Empty", "ActuatorInformation"),
    "GetArmState": (0x200AF, "Empty", "ArmStateInformation"),
    "ArmStateTopic": (0x200B0, "NotificationOptions", "NotificationHandle"),
    "Refresh": (0x30001, "Command", "Feedback"),
    "RefreshFeedback": (0x30003, "Empty", "Feedback"),
    "ReadAllDevices": (0x170001, "Empty", "Empty"),
}

# What the notifications of a topic carry.
TOPICS = {0x2009A: "ServoingModeNotification", 0x200B0: "ArmStateNotification"}

PACKAGE = "kortex"


def classes():
    """A class for each message."""
    proto = descriptor_pb2.FileDescriptorProto(name="kortex.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = proto.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            repeated, kind = kind.startswith("repeated "), kind.removeprefix("repeated ")
            added = message.field.add(name=field, number=number)
            added.label = added.LABEL_REPEATED if repeated else added.LABEL_OPTIONAL
            if kind in MESSAGES:
                added.type, added.type_name = added.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                added.type = getattr(added, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


CLASSES = classes()


def encode(kind, values):
    """A message of those values, as it is sent."""
    return json_format.ParseDict(values, CLASSES[kind]()).SerializeToString()


def decode(kind, data):
    """The values of a message, those that were not sent as 0."""
    message = CLASSES[kind].FromString(data)
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
