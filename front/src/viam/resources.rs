//! The robot's parts under the names by which Viam clients know them.

use config::{Base, Config, Motor};
use shm_proto::MotorIndex;
use tonic::Status;

use super::proto::common::ResourceName;

/// Motors, as a Viam subtype.
pub const MOTOR: &str = "motor";
/// Bases, as a Viam subtype.
pub const BASE: &str = "base";

/// The full name of a part; an empty name stands for the kind itself.
#[must_use]
pub fn resource(subtype: &str, name: &str) -> ResourceName {
    ResourceName {
        namespace: "rdk".to_owned(),
        r#type: "component".to_owned(),
        subtype: subtype.to_owned(),
        name: name.to_owned(),
    }
}

/// What notes on the use of a part are filed under: names are unique per kind only.
#[must_use]
pub fn key(subtype: &str, name: &str) -> String {
    format!("{subtype}/{name}")
}

/// Every motor of the configuration with its index.
pub fn motors(config: &Config) -> impl Iterator<Item = (MotorIndex, &Motor)> {
    (0..).map(MotorIndex).zip(&config.motors)
}

/// Those of them that clients drive through this server, and not through one behind it.
pub fn native(config: &Config) -> impl Iterator<Item = (MotorIndex, &Motor)> {
    motors(config).filter(|(index, _)| config.is_native(usize::from(index.0)))
}

/// The motor of that name.
///
/// # Errors
///
/// NOT_FOUND, with the names that exist.
pub fn motor<'a>(config: &'a Config, name: &str) -> Result<(MotorIndex, &'a Motor), Status> {
    native(config)
        .find(|(_, motor)| motor.name == name)
        .ok_or_else(|| not_found(MOTOR, name, native(config).map(|(_, motor)| motor.name.as_str())))
}

/// The base of that name.
///
/// # Errors
///
/// NOT_FOUND, with the names that exist.
pub fn base<'a>(config: &'a Config, name: &str) -> Result<&'a Base, Status> {
    config
        .bases
        .iter()
        .find(|base| base.name == name)
        .ok_or_else(|| not_found(BASE, name, config.bases.iter().map(|base| base.name.as_str())))
}

fn not_found<'a>(subtype: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Status {
    let known: Vec<_> = known.collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Status::not_found(format!("resource \"rdk:component:{subtype}/{name}\" not found; configured: {known}"))
}
