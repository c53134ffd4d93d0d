//! The maintainer scripts: put together, and looked at.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::install::{Tool, ensure_tool};
use crate::workspace::{Workspace, say};

/// The scripts, as dpkg calls them.
pub const NAMES: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// The line of a script that stands for what the scripts share, `motors.sh`.
const SHARED: &str = "#MOTORS#\n";

/// Knows what is wrong with scripts of a shell.
const SHELLCHECK: Tool = Tool { program: "shellcheck", package: "shellcheck" };

/// A script with what it shares with the others put in.
///
/// # Errors
/// When it or the shared part cannot be read, or it has no place for that.
pub fn assemble(debian: &Path, name: &str) -> Result<String> {
    let read = |name: &str| {
        let path = debian.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (own, shared) = (read(name)?, read("motors.sh")?);
    ensure!(own.contains(SHARED), "{name} has no line {SHARED}");
    Ok(own.replacen(SHARED, &shared, 1))
}

/// Looks at every script as it is packed, and at the one that tries them.
///
/// # Errors
/// With what shellcheck finds.
pub fn check(workspace: &Workspace) -> Result<()> {
    say("shellcheck: maintainer scripts");
    let folder = workspace.target.join("scripts");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut command = Command::new(ensure_tool(SHELLCHECK)?);
    command.args(["--shell=sh", "--format=gcc"]);
    for name in NAMES {
        let path = folder.join(name);
        fs::write(&path, assemble(&workspace.root.join("systemd/debian"), name)?)?;
        command.arg(path);
    }
    command.arg(workspace.root.join("xtask/src/package/life.sh"));
    let output = command.stdin(Stdio::null()).output().context("cannot start shellcheck")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "shellcheck:\n{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{NAMES, assemble};
    use crate::workspace::Workspace;

    #[test]
    fn every_script_can_be_read_by_a_shell_and_ends_when_something_fails() {
        let debian = Workspace::find().unwrap().root.join("systemd/debian");
        for name in NAMES {
            let script = assemble(&debian, name).unwrap();
            assert!(script.starts_with("#!/bin/sh\n") && script.contains("\nset -e\n"), "{name}");
            assert!(script.contains("\nstop_motors() {\n"), "{name}");
            let output = Command::new("sh").args(["-n", "-c", &script]).output().unwrap();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
