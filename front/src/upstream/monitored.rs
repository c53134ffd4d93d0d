//! Viam's components whose methods move something: which of them Viam calls monitored, and how each is stopped.
//!
//! The list is Viam's own, of its API as of 2026-07 (the option `safety_heartbeat_monitored` of each method). A
//! method that is not in it is none for Viam either.

/// A kind of component.
#[derive(Debug, PartialEq, Eq)]
pub struct Component {
    /// Its short name, as resources have it: `arm`.
    pub kind: &'static str,
    /// Its service.
    service: &'static str,
    /// Its monitored methods.
    monitored: &'static [&'static str],
    /// Whether it can be stopped at all.
    stop: Stop,
}

/// Whether a component has a Stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// A method of that name.
    Method,
    /// None: what it does is done at once.
    None,
}

/// What a call is to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It moves a component.
    Monitored(&'static Component),
    /// It stops one.
    Stop(&'static Component),
    /// Another method of a component.
    Other(&'static Component),
    /// It is for no component that moves.
    Foreign,
}

const fn component(
    kind: &'static str,
    service: &'static str,
    monitored: &'static [&'static str],
    stop: Stop,
) -> Component {
    Component { kind, service, monitored, stop }
}

/// Everything that moves.
pub const COMPONENTS: [Component; 9] = [
    component(
        "arm",
        "viam.component.arm.v1.ArmService",
        &[
            "MoveToPosition",
            "MoveToJointPositions",
            "MoveThroughJointPositions",
            "MoveThroughJointPositionsStreamed",
        ],
        Stop::Method,
    ),
    component(
        "base",
        "viam.component.base.v1.BaseService",
        &["MoveStraight", "Spin", "SetPower", "SetVelocity"],
        Stop::Method,
    ),
    component("button", "viam.component.button.v1.ButtonService", &["Push"], Stop::None),
    component("gantry", "viam.component.gantry.v1.GantryService", &["MoveToPosition"], Stop::Method),
    component(
        "gripper",
        "viam.component.gripper.v1.GripperService",
        &["Open", "Grab", "GoToInputs"],
        Stop::Method,
    ),
    component(
        "motor",
        "viam.component.motor.v1.MotorService",
        &["SetPower", "GoFor", "GoTo", "SetRPM"],
        Stop::Method,
    ),
    component("servo", "viam.component.servo.v1.ServoService", &["Move"], Stop::Method),
    component("switch", "viam.component.switch.v1.SwitchService", &["SetPosition"], Stop::None),
    component("testecho", "viam.component.testecho.v1.TestEchoService", &["EchoMultiple"], Stop::Method),
];

/// What the call of a path (`/service/Method`) is.
#[must_use]
pub fn call(path: &str) -> Call {
    // Most calls of other services part here.
    if !path.starts_with("/viam.component.") {
        return Call::Foreign;
    }
    let Some((service, method)) = path[1..].split_once('/') else { return Call::Foreign };
    match COMPONENTS.iter().find(|component| component.service == service) {
        None => Call::Foreign,
        Some(component) if component.monitored.contains(&method) => Call::Monitored(component),
        Some(component) if method == "Stop" && component.stop == Stop::Method => Call::Stop(component),
        Some(component) => Call::Other(component),
    }
}

/// The path of the method that stops a kind of component (`arm`); `None` when it has none.
#[must_use]
pub fn stop_path(kind: &str) -> Option<String> {
    let component = COMPONENTS.iter().find(|component| component.kind == kind)?;
    (component.stop == Stop::Method).then(|| format!("/{}/Stop", component.service))
}

#[cfg(test)]
mod tests {
    use super::{COMPONENTS, Call, call, stop_path};

    #[test]
    fn there_are_the_twenty_methods_of_viams_api() {
        assert_eq!(COMPONENTS.iter().map(|component| component.monitored.len()).sum::<usize>(), 20);
        for component in &COMPONENTS {
            for method in component.monitored {
                let path = format!("/{}/{method}", component.service);
                assert_eq!(call(&path), Call::Monitored(component), "{path}");
                assert_eq!(component.service.split('.').nth(2), Some(component.kind));
            }
        }
    }

    #[test]
    fn stops_and_everything_else_are_not_monitored() {
        let kinds = |wanted: fn(&Call) -> bool| {
            let is = |component: &&super::Component| wanted(&call(&format!("/{}/Stop", component.service)));
            COMPONENTS.iter().filter(is).map(|component| component.kind).collect::<Vec<_>>()
        };
        assert_eq!(
            kinds(|call| matches!(call, Call::Stop(_))),
            ["arm", "base", "gantry", "gripper", "motor", "servo", "testecho"]
        );
        assert_eq!(kinds(|call| matches!(call, Call::Other(_))), ["button", "switch"]);
        for path in [
            "/viam.component.arm.v1.ArmService/MoveToPositionX",
            "/viam.component.arm.v1.ArmService/DoCommand",
            "/viam.component.motor.v1.MotorService/IsMoving",
        ] {
            assert!(matches!(call(path), Call::Other(_)), "{path}");
        }
        for path in [
            "/viam.component.arm.v2.ArmService/MoveToPosition",
            "/viam.component.camera.v1.CameraService/GetImages",
            "/viam.robot.v1.RobotService/StopAll",
            "viam.component.arm.v1.ArmService/MoveToPosition",
            "/viam.component.arm.v1.ArmService",
            "/",
            "",
        ] {
            assert_eq!(call(path), Call::Foreign, "{path}");
        }
        assert_eq!(stop_path("arm").as_deref(), Some("/viam.component.arm.v1.ArmService/Stop"));
        assert_eq!(stop_path("switch"), None);
        assert_eq!(stop_path("camera"), None);
    }
}
