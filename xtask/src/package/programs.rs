//! The three programs of the package, built for an architecture and without symbols.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::install::{STRIP, ensure_tool, run_quietly};
use crate::workspace::Workspace;

use super::{Arch, Profile, cross};

/// What is in `/usr/bin`.
pub const NAMES: [&str; 3] = ["lanyard", "lanyard-front", "lanyard-supervisor"];

/// The packages of the workspace they come from.
const CRATES: [&str; 3] = ["ctl", "front", "supervisor"];

/// The programs of an architecture.
pub struct Programs {
    /// The folder with them, and nothing else in it.
    pub folder: PathBuf,
    /// What they run on.
    pub arch: Arch,
}

impl Programs {
    /// The path of one.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A command that runs one of them here.
    ///
    /// # Errors
    /// When it needs an emulator that cannot be installed.
    pub fn command(&self, name: &str) -> Result<Command> {
        command(self.arch, &self.path(name))
    }
}

/// A command that runs a program of an architecture here.
///
/// # Errors
/// When it needs an emulator that cannot be installed.
pub fn command(arch: Arch, program: &Path) -> Result<Command> {
    match arch {
        Arch::Amd64 => Ok(Command::new(program)),
        Arch::Arm64 => cross::run(program),
    }
}

/// What [`command`] runs it with, for people.
pub fn how(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "natively",
        Arch::Arm64 => "emulated by qemu-user",
    }
}

/// Builds the programs; those of [`Profile::Dev`] for this machine are taken as they were built last.
///
/// # Errors
/// When they cannot be built or stripped.
pub fn build(workspace: &Workspace, arch: Arch, profile: Profile) -> Result<Programs> {
    let built = match (arch, profile) {
        // By whoever tries them: another choice of crates here would build half of them again.
        (Arch::Amd64, Profile::Dev) => workspace.target.join("debug"),
        (Arch::Amd64, Profile::Release) => {
            let mut args = vec!["build", "--release", "--locked", "--bins"];
            args.extend(CRATES.iter().flat_map(|name| ["-p", name]));
            workspace.run_cargo(&args)?;
            workspace.target.join("release")
        }
        (Arch::Arm64, Profile::Dev) => cross::build(workspace, &CRATES, &[], "debug")?,
        (Arch::Arm64, Profile::Release) => cross::build(workspace, &CRATES, &["--release"], "release")?,
    };
    let strip = ensure_tool(match arch {
        Arch::Amd64 => STRIP,
        Arch::Arm64 => cross::STRIP,
    })?;
    let folder = workspace.target.join("packages").join(format!("programs-{}", arch.name()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let programs = Programs { folder, arch };
    for name in NAMES {
        let from = built.join(name);
        // What the tests use keeps its symbols.
        run_quietly(
            Command::new(&strip).arg("--strip-unneeded").arg("-o").arg(programs.path(name)).arg(&from),
        )
        .with_context(|| format!("cannot strip {}", from.display()))?;
    }
    Ok(programs)
}
