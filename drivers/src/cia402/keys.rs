//! The family's own keys of a motor, checked.

use super::{Model, Transport};
use crate::registry::{Common, Key};
use crate::settings::{Settings, SettingsError, Value};
use crate::stop::AfterStop;
use alloc::format;
use alloc::string::String;
use alloc::string::ToString as _;
use alloc::vec::Vec;

/// What they mean.
pub(super) const ALL: &[Key] = &[
    Key { name: "node", about: "CANopen node id, 1 to 127. Required." },
    Key {
        name: "transport",
        about: "How commands travel: \"sdo\" (the default, works with every drive as it comes) or \"pdo\" (sets up \
                RPDO1 and TPDO1, a fraction of the bus time).",
    },
    Key {
        name: "counts_per_rev",
        about: "Position units (encoder counts) of one revolution of the motor shaft. Required.",
    },
    Key {
        name: "velocity_units_per_rps",
        about: "What the drive calls one revolution per second. Default: counts_per_rev; 60 for drives that count \
                in rpm.",
    },
    Key {
        name: "quick_stop_option",
        about: "Written to 605A: 1, 2 (then torque off), 5 or 6 (then hold). Default: 6 with after_stop = \"hold\", \
                2 with \"release\".",
    },
    Key {
        name: "halt_option",
        about: "Written to 605D, how a drive stops on *halt*: 1 slow ramp or 2 quick-stop ramp. Not written unless \
                given: Lanyard never halts, another master may.",
    },
    Key {
        name: "abort_option",
        about: "Written to 6007, the reaction to the supervisor's silence: 3 quick stop (default) or 2 disable \
                voltage.",
    },
    Key {
        name: "heartbeat_ms",
        about: "Written to 1016: after how long without the supervisor's heartbeat the drive stops by itself, 0 to \
                65535 ms; 0: not written. Default: 250.",
    },
    Key {
        name: "master_node",
        about: "Node id under which the supervisor sends that heartbeat, 1 to 127. Default: 127.",
    },
    Key {
        name: "drive_heartbeat_ms",
        about: "Written to 1017, the drive's own heartbeat, 0 to 65535 ms; 0: not written. Default: 100.",
    },
    Key { name: "mode", about: "\"profile-velocity\" (default) or \"cyclic-velocity\", written to 6060." },
];

/// Modes of operation 6060: 3 profile velocity, 9 cyclic synchronous velocity.
const PROFILE_VELOCITY: u8 = 3;
const CYCLIC_VELOCITY: u8 = 9;

/// The family's own keys, checked.
pub(super) struct Keys {
    pub model: Model,
    pub quick_stop_option: u16,
    /// `None`: not written.
    pub halt_option: Option<u16>,
    pub abort_option: u16,
    pub master_node: u8,
    /// 0: not written.
    pub heartbeat_ms: u16,
    /// 0: not written.
    pub drive_heartbeat_ms: u16,
    pub mode: u8,
}

/// One of a few whole numbers.
fn one_of(settings: &Settings, key: &str, allowed: &[u16], default: u16) -> Result<u16, SettingsError> {
    let given = match settings.get(key) {
        None => return Ok(default),
        Some(Value::Integer(number)) => u16::try_from(*number).ok(),
        Some(_) => None,
    };
    given.filter(|number| allowed.contains(number)).ok_or_else(|| {
        let words: Vec<String> = allowed.iter().map(u16::to_string).collect();
        SettingsError::new(key, format!("must be one of {}", words.join(", ")))
    })
}

/// Reads them all.
pub(super) fn read(settings: &Settings, common: &Common) -> Result<Keys, SettingsError> {
    // At least one unit a turn, and no more than an i32 can count in one turn.
    let counts = 1.0..=f64::from(i32::MAX);
    let counts_per_rev = settings.number("counts_per_rev", counts.clone(), None)?;
    let units_per_rps = settings.number("velocity_units_per_rps", counts, Some(counts_per_rev))?;
    let transport = match settings.choice("transport", &["sdo", "pdo"], Some("sdo"))? {
        "pdo" => Transport::Pdo,
        _ => Transport::Sdo,
    };
    let model =
        Model { node: settings.small("node", 1..=127, None)?, transport, counts_per_rev, units_per_rps };
    if f64::from(common.max_speed.0) * units_per_rps > f64::from(i32::MAX) {
        return Err(SettingsError::new("max_rpm", "is more than the drive's 32-bit target velocity can say"));
    }

    let fitting = match common.after {
        AfterStop::Hold => 6,
        AfterStop::Release => 2,
    };
    let quick_stop_option = one_of(settings, "quick_stop_option", &[1, 2, 5, 6], fitting)?;
    if common.after == AfterStop::Hold && matches!(quick_stop_option, 1 | 2) {
        return Err(SettingsError::new(
            "quick_stop_option",
            format!(
                "{quick_stop_option} takes the torque away at standstill, but the motor is to hold: use 5 or 6"
            ),
        ));
    }
    let halt_option =
        settings.get("halt_option").map(|_| one_of(settings, "halt_option", &[1, 2], 1)).transpose()?;
    let master_node = settings.small("master_node", 1..=127, Some(0x7F))?;
    if master_node == model.node {
        return Err(SettingsError::new("master_node", format!("must differ from \"node\" ({master_node})")));
    }
    Ok(Keys {
        model,
        quick_stop_option,
        halt_option,
        abort_option: one_of(settings, "abort_option", &[2, 3], 3)?,
        master_node,
        heartbeat_ms: settings.small("heartbeat_ms", 0..=65_535, Some(250))?,
        drive_heartbeat_ms: settings.small("drive_heartbeat_ms", 0..=65_535, Some(100))?,
        mode: match settings.choice(
            "mode",
            &["profile-velocity", "cyclic-velocity"],
            Some("profile-velocity"),
        )? {
            "cyclic-velocity" => CYCLIC_VELOCITY,
            _ => PROFILE_VELOCITY,
        },
    })
}
