//! Which motors stand behind a component, as far as viam-server's configuration tells.

use serde_json::Value;

use super::robot::Component;

/// The kinds that have methods which viam-server keeps a session for (`safety_heartbeat_monitored` in Viam's API).
const MONITORED: [&str; 8] = ["arm", "base", "button", "gantry", "gripper", "motor", "servo", "switch"];

/// Whether viam-server ties calls of this kind to sessions.
pub fn is_monitored(component: &Component) -> bool {
    MONITORED.contains(&component.kind())
}

/// What is known of the motors behind a component.
#[derive(Debug, PartialEq, Eq)]
pub enum Behind {
    /// It is a motor, and a module drives it: over CAN, perhaps.
    Itself,
    /// These components, by name.
    Others(Vec<String>),
    /// Driven by viam-server itself, none of whose own drivers uses CAN.
    NotOnCan,
    /// A module's: only a person knows.
    Unknown,
}

impl Behind {
    /// What stands behind a component.
    ///
    /// # Errors
    ///
    /// In words, for settings that viam-server would refuse.
    pub fn of(component: &Component) -> Result<Self, String> {
        let names = |keys: &[&str]| -> Result<Self, String> {
            let lists = keys.iter().map(|key| names(component, key)).collect::<Result<Vec<_>, _>>()?;
            let all = lists.concat();
            Ok(if all.is_empty() { Self::Unknown } else { Self::Others(all) })
        };
        match (component.kind(), component.model().as_str()) {
            (_, "rdk:builtin:wheeled") => names(&["left", "right"]),
            (_, "rdk:builtin:single-axis") => names(&["motor"]),
            (_, "rdk:builtin:multi-axis") => names(&["subaxes_list"]),
            (_, model) if model.starts_with("rdk:builtin:") => Ok(Self::NotOnCan),
            ("motor", _) => Ok(Self::Itself),
            // A module's base often has the settings of viam-server's own.
            ("base", _) => names(&["left", "right"]),
            _ => Ok(Self::Unknown),
        }
    }
}

/// One name or a list of them; nothing when the setting is missing.
fn names(component: &Component, key: &str) -> Result<Vec<String>, String> {
    let wrong = || {
        format!(
            "component {:?}: \"{key}\" must be the name of a component or a list of names",
            component.name
        )
    };
    match component.attribute(key) {
        None => Ok(Vec::new()),
        Some(Value::String(name)) => Ok(vec![name.clone()]),
        Some(Value::Array(names)) => {
            names.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// The motors behind a component, through others that stand between; `None` for those only a person knows.
///
/// # Errors
///
/// In words, for settings that viam-server would refuse.
pub fn motors(component: &Component, all: &[Component]) -> Result<Option<Vec<String>>, String> {
    let mut found = Vec::new();
    let mut seen = vec![component.name.as_str()];
    let mut open = vec![component];
    while let Some(next) = open.pop() {
        match Behind::of(next)? {
            Behind::Itself => found.push(next.name.clone()),
            Behind::NotOnCan => {}
            Behind::Unknown => return Ok(None),
            Behind::Others(names) => {
                for name in names {
                    // One that a fragment or another machine brings is not in the file.
                    let mut named = all.iter().filter(|other| other.name == name);
                    let kind = if next.kind() == "gantry" { ["motor", "gantry"] } else { ["motor", "motor"] };
                    let Some(other) = named.find(|other| kind.contains(&other.kind())) else {
                        return Ok(None);
                    };
                    if !seen.contains(&other.name.as_str()) {
                        seen.push(&other.name);
                        open.push(other);
                    }
                }
            }
        }
    }
    // In the order of the file, whichever way they were found.
    let order = |name: &String| all.iter().position(|other| other.name == *name);
    found.sort_by_key(order);
    Ok(Some(found))
}
