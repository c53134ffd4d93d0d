//! Whether the programs of a package start, and say what they should: under emulation for another architecture.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use crate::install::run_quietly;
use crate::workspace::{Workspace, say};

use super::Arch;
use super::programs::{self, NAMES};

/// Unpacks the package and starts every program of it, with what needs no CAN.
///
/// # Errors
/// With what a program said instead of what it should.
pub fn check(workspace: &Workspace, arch: Arch, package: &Path) -> Result<()> {
    let how = programs::how(arch);
    say(format!("smoke test of {} ({how}):", arch.name()));
    let root = workspace.target.join("packages").join(format!("smoke-{}", arch.name()));
    let _ = fs::remove_dir_all(&root);
    run_quietly(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))?;
    let bin = root.join("usr/bin");
    let version = workspace.version()?;
    let run = |name: &str, args: &[&str]| -> Result<Said> {
        let output = programs::command(arch, &bin.join(name))?
            .args(args)
            .current_dir(&root)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Said::of(&format!("{name} {}", args.join(" ")), &output))
    };
    for name in NAMES {
        run(name, &["--version"])?.must(0, &format!("{name} {version}"))?;
        run(name, &["--help"])?.must(0, "--config")?;
    }
    run("lanyard", &["check", "etc/lanyard/lanyard.toml"])?.must(0, "etc/lanyard/lanyard.toml: ok")?;
    run("lanyard-supervisor", &["--config", "none.toml"])?
        .must(78, "none.toml: cannot read the configuration")?;
    run("lanyard-supervisor", &["--nonsense"])?.must(64, "unknown argument --nonsense")?;
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))
}

/// What a program printed, and how it ended.
struct Said {
    command: String,
    code: Option<i32>,
    text: String,
}

impl Said {
    fn of(command: &str, output: &Output) -> Self {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Self { command: command.to_owned(), code: output.status.code(), text }
    }

    fn must(&self, code: i32, part: &str) -> Result<()> {
        ensure!(
            self.code == Some(code) && self.text.contains(part),
            "`{}` must end with {code} and say \"{part}\"; it ended with {:?} and said:\n{}",
            self.command,
            self.code,
            self.text
        );
        let line = self.text.lines().find(|line| line.contains(part)).unwrap_or(part).trim();
        say(format!("  {} -> {code}: {line}", self.command));
        Ok(())
    }
}
