"""Kortex's messages, from the .proto that Lanyard is built from, and its methods by their numbers.

What both had wrong would not show here: that is what the recorded bytes of real clients are for, which this client must
reproduce one by one (`tests/vcan/kortex_client.rs`).
"""

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, json_format, message_factory

# Made by the build of the crate `tests`.
DESCRIPTORS = Path(__file__).with_name("kortex.binpb")
PACKAGE = "lanyard.kortex.v1"

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
    "ServoingModeTopic": (0x2009A, "Empty", "NotificationHandle"),
    "GetActuatorCount": (0x200AB, "Empty", "ActuatorInformation"),
    "GetArmState": (0x200AF, "Empty", "ArmStateInformation"),
    "ArmStateTopic": (0x200B0, "Empty", "NotificationHandle"),
    "Refresh": (0x30001, "Command", "Feedback"),
    "RefreshFeedback": (0x30003, "Empty", "Feedback"),
    "ReadAllDevices": (0x170001, "Empty", "Empty"),
}

# What the notifications of a topic carry.
TOPICS = {0x2009A: "ServoingModeNotification", 0x200B0: "ArmStateNotification"}


def classes():
    """A class for each message."""
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    for file in files:
        pool.Add(file)
    names = [message.name for file in files if file.package == PACKAGE for message in file.message_type]
    found = {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in names}
    return found | {"Empty": empty_pb2.Empty}


CLASSES = classes()


def encode(kind, values):
    """A message of those values, as it is sent."""
    return json_format.ParseDict(values, CLASSES[kind]()).SerializeToString()


def decode(kind, data):
    """The values of a message, those that were not sent as 0; enumerations are numbers."""
    return json_format.MessageToDict(
        CLASSES[kind].FromString(data),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        use_integers_for_enums=True,
    )
