//! Drives as the tests build them, and frames from text.
#![allow(dead_code, reason = "each test file uses a part")]

use drivers::{AfterStop, ArbitrationId, Drive, Frame, RevolutionsPerSecond, Settings, Value, registry};

/// Common settings: release, 50 rev/s at most, the family's own standstill.
pub const COMMON: registry::Common =
    registry::Common { after: AfterStop::Release, standstill: None, max_speed: RevolutionsPerSecond(50.0) };

pub fn settings(pairs: &[(&str, Value)]) -> Settings {
    let mut settings = Settings::default();
    for (key, value) in pairs {
        settings.insert(*key, value.clone());
    }
    settings
}

pub fn text(word: &str) -> Value {
    Value::Text(word.to_owned())
}

pub fn build(
    family: &str,
    common: &registry::Common,
    pairs: &[(&str, Value)],
) -> Result<Drive, drivers::SettingsError> {
    let family = registry::family(family).expect("a known family");
    registry::build(family, &settings(pairs), common)
}

pub fn odrive(node: i64, firmware: &str) -> Drive {
    build("odrive", &COMMON, &[("node", Value::Integer(node)), ("firmware", text(firmware))]).unwrap()
}

pub fn odrive_extended(node: i64) -> Drive {
    let keys = [("node", Value::Integer(node)), ("firmware", text("0.6")), ("id_format", text("extended"))];
    build("odrive", &COMMON, &keys).unwrap()
}

/// 1000 counts a turn.
pub fn cia402(node: i64, transport: &str, after: AfterStop) -> Drive {
    let keys = [
        ("node", Value::Integer(node)),
        ("transport", text(transport)),
        ("counts_per_rev", Value::Integer(1000)),
    ];
    build("cia402", &registry::Common { after, ..COMMON }, &keys).unwrap()
}

/// The example of every family, as the registry has it. A family that cannot hold is released.
pub fn examples() -> Vec<Drive> {
    let drive = |family: &registry::Family| registry::build(family, &(family.example)(), &COMMON).unwrap();
    registry::FAMILIES.iter().map(drive).collect()
}

/// One drive of every kind: every family's example, and more of those with variants.
pub fn all() -> Vec<Drive> {
    let mut all = examples();
    all.extend([
        odrive(3, "0.5"),
        odrive(3, "0.6"),
        odrive_extended(3),
        cia402(5, "sdo", AfterStop::Release),
        cia402(5, "pdo", AfterStop::Release),
        cia402(5, "pdo", AfterStop::Hold),
    ]);
    all
}

pub fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A classic frame with a standard id from hexadecimal text.
pub fn frame(id: &str, hex: &str) -> Frame {
    let id = u16::from_str_radix(id, 16).unwrap();
    Frame::classic(ArbitrationId::standard(id), &bytes(hex))
}

pub fn stop_frames(drive: &Drive) -> Vec<Frame> {
    drive.stop.stages().iter().flat_map(|stage| stage.frames.as_slice().to_vec()).collect()
}

pub fn enable_frames(drive: &Drive) -> Vec<Frame> {
    drive.enable.steps().iter().flat_map(|step| step.frames.as_slice().to_vec()).collect()
}
