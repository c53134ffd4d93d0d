//! Other people's packages for the same drives, one test each: what they would send is what Lanyard sends, what
//! they encode Lanyard reads, and what the simulated drives send they read.
//!
//! The comparing is done by the scripts in `../python`, each of which says at its head what it compares, and what
//! it leaves out because the package is wrong there.

use std::path::Path;
use std::process::Command;

/// Runs a script with the interpreter that has the packages, and fails with what it prints.
fn agrees(script: &str) {
    let Some(python) = std::env::var_os("LANYARD_PEERS_PYTHON") else {
        panic!(
            "LANYARD_PEERS_PYTHON is not set: it must name a Python with the packages that Lanyard is compared \
             with; `cargo xtask test --only unit` makes one and sets it"
        );
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let output = Command::new(&python)
        .arg(&script)
        .arg(env!("CARGO_BIN_EXE_lanyard-frames"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}", Path::new(&python).display()));
    let print = |bytes: &[u8]| print!("{}", String::from_utf8_lossy(bytes));
    print(&output.stdout);
    print(&output.stderr);
    assert!(output.status.success(), "{} has failed ({}), see above", script.display(), output.status);
}

#[test]
fn odrive_can() {
    agrees("check_odrive.py");
}

#[test]
fn canopen() {
    agrees("check_canopen.py");
}

#[test]
fn moteus() {
    agrees("check_moteus.py");
}

#[test]
fn damiao_motor() {
    agrees("check_damiao.py");
}

#[test]
fn dronecan() {
    agrees("check_dronecan.py");
}

#[test]
fn tinymovr() {
    agrees("check_tinymovr.py");
}
