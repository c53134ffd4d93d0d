//! What the program ends with, for whoever starts it: see [`config::exit`].
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::{Command, Output};

use config::exit::{WRONG_COMMAND_LINE, WRONG_CONFIGURATION};

fn front(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lanyard-front")).args(arguments).output().expect("it starts")
}

fn file(text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("lanyard-front-exit-{}.toml", std::process::id()));
    std::fs::write(&path, text).expect("a folder for temporary files");
    path
}

/// Fails if systemd would start a front with a wrong configuration over and over.
#[test]
fn a_wrong_configuration_is_told_from_other_trouble() {
    let path = file("[supervisor]\nwindow_of = 3\n");
    let name = path.display().to_string();
    for wrong in [name.as_str(), "/no/such/lanyard.toml"] {
        let output = front(&["--config", wrong]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(WRONG_CONFIGURATION.into()), "{said}");
        assert!(said.starts_with("lanyard-front: error: ") && said.contains(wrong), "{said}");
    }
    std::fs::remove_file(path).expect("it is there");
    assert_eq!(front(&["--configuration"]).status.code(), Some(WRONG_COMMAND_LINE.into()));
    for asked in ["--help", "--version"] {
        let output = front(&[asked]);
        assert!(output.status.success());
        assert!(!output.stdout.is_empty());
    }
}
