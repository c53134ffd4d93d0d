//! What Debian's own checker says of a package.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::install::{Tool, ensure_tool};
use crate::workspace::say;

/// Debian's checker of packages.
const LINTIAN: Tool = Tool { program: "lintian", package: "lintian" };

/// Runs lintian. What it may say is in `systemd/debian/lintian-overrides`, with the reason; an error beside that is one
/// here. Warnings are shown only: what is worth one differs from release to release.
///
/// # Errors
/// With what it found.
pub fn check(package: &Path) -> Result<()> {
    say(format!("lintian: {}", package.display()));
    let output = Command::new(ensure_tool(LINTIAN)?)
        .args(["--no-cfg", "--fail-on=error", "--allow-root"])
        .arg(package)
        .stdin(Stdio::null())
        .output()
        .context("cannot start lintian")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found = said.lines().filter(|line| line.starts_with(['E', 'W'])).collect::<Vec<_>>().join("\n");
    ensure!(output.status.success(), "lintian:\n{found}\n{}", String::from_utf8_lossy(&output.stderr));
    if !found.is_empty() {
        say(format!("lintian says, beside what is explained:\n{found}"));
    }
    Ok(())
}
