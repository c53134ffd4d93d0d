//! What a method needs of its caller, by its path `/package.Service/Method`.

use keys::Role;

/// What a method needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: clients call it before they could have logged in, or to find out whether anybody is here.
    Nothing,
    /// A key of this role, or a more powerful one.
    Role(Role),
}

/// Services that nobody has to log in for. Signalling is only ever refused; health tells nothing of the robot.
const OPEN: [&str; 2] = ["proto.rpc.webrtc.v1.SignalingService", "grpc.health.v1.Health"];
/// How methods that only read begin, in Viam's interfaces as in those of others.
const READING: [&str; 4] = ["Get", "Is", "List", "Stream"];
/// Methods that only read and are called otherwise.
const ALSO_READING: [(&str, &[&str]); 4] = [
    (
        "viam.robot.v1.RobotService",
        &[
            "ResourceNames",
            "ResourceRPCSubtypes",
            "FrameSystemConfig",
            "TransformPose",
            "TransformPCD",
            "BlockForOperation",
        ],
    ),
    ("viam.component.board.v1.BoardService", &["ReadAnalogReader", "PWM", "PWMFrequency"]),
    ("grpc.reflection.v1.ServerReflection", &["ServerReflectionInfo"]),
    ("grpc.reflection.v1alpha.ServerReflection", &["ServerReflectionInfo"]),
];
/// Whoever may look may also stop: it is never wrong to.
const STOPPING: [&str; 2] = ["Stop", "StopAll"];
/// The package of Lanyard's own services, and what in it is not for everybody who drives.
const OWN_PACKAGE: &str = "lanyard.v1.";
const ADMINISTERING: [&str; 2] = ["Reset", "EmergencyStop"];

/// What the method of that path needs. What is not known here moves things, for all we know.
#[must_use]
pub fn need(path: &str) -> Need {
    let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
    if OPEN.contains(&service) {
        return Need::Nothing;
    }
    let also_reads = |(other, methods): &(&str, &[&str])| *other == service && methods.contains(&method);
    if STOPPING.contains(&method) || reads(method) || ALSO_READING.iter().any(also_reads) {
        Need::Role(Role::Observe)
    } else if service.starts_with(OWN_PACKAGE) && ADMINISTERING.contains(&method) {
        Need::Role(Role::Administer)
    } else {
        Need::Role(Role::Operate)
    }
}

/// Whether a name begins with a word for reading: a whole word, `Issue` does not.
fn reads(method: &str) -> bool {
    let rest = READING.iter().find_map(|word| method.strip_prefix(word));
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_method_has_its_role() {
        let cases = [
            ("/proto.rpc.webrtc.v1.SignalingService/Call", Need::Nothing),
            ("/grpc.health.v1.Health/Check", Need::Nothing),
            ("/viam.component.motor.v1.MotorService/Stop", Need::Role(Role::Observe)),
            ("/viam.robot.v1.RobotService/StopAll", Need::Role(Role::Observe)),
            ("/viam.component.motor.v1.MotorService/GetPosition", Need::Role(Role::Observe)),
            ("/viam.component.base.v1.BaseService/IsMoving", Need::Role(Role::Observe)),
            ("/viam.service.worldstatestore.v1.WorldStateStoreService/ListUUIDs", Need::Role(Role::Observe)),
            ("/viam.component.board.v1.BoardService/StreamTicks", Need::Role(Role::Observe)),
            ("/viam.robot.v1.RobotService/ResourceNames", Need::Role(Role::Observe)),
            ("/viam.component.board.v1.BoardService/PWM", Need::Role(Role::Observe)),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::Role(Role::Observe)),
            ("/lanyard.v1.LanyardService/GetTrips", Need::Role(Role::Observe)),
            ("/viam.component.board.v1.BoardService/SetPWM", Need::Role(Role::Operate)),
            ("/viam.component.motor.v1.MotorService/SetPower", Need::Role(Role::Operate)),
            ("/viam.component.motor.v1.MotorService/DoCommand", Need::Role(Role::Operate)),
            ("/viam.robot.v1.RobotService/StartSession", Need::Role(Role::Operate)),
            (
                "/viam.component.arm.v1.ArmService/MoveThroughJointPositionsStreamed",
                Need::Role(Role::Operate),
            ),
            ("/others.v1.Service/ResourceNames", Need::Role(Role::Operate)),
            ("/others.v1.Service/Issue", Need::Role(Role::Operate)),
            ("/others.v1.Service/Getaway", Need::Role(Role::Operate)),
            ("/others.v1.Service/StopNothing", Need::Role(Role::Operate)),
            ("/others.v1.Service/EmergencyStop", Need::Role(Role::Operate)),
            ("/lanyard.v1.LanyardService/EndSession", Need::Role(Role::Operate)),
            ("/lanyard.v1.LanyardService/Reset", Need::Role(Role::Administer)),
            ("/lanyard.v1.LanyardService/EmergencyStop", Need::Role(Role::Administer)),
            ("/proto.rpc.webrtc.v1.SignalingServiceX/Call", Need::Role(Role::Operate)),
            ("", Need::Role(Role::Operate)),
            ("/", Need::Role(Role::Operate)),
            ("grpc.health.v1.Health/Check", Need::Role(Role::Operate)),
            ("//grpc.health.v1.Health/Check", Need::Role(Role::Operate)),
        ];
        for (path, expected) in cases {
            assert_eq!(need(path), expected, "{path}");
        }
    }
}
