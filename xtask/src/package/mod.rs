//! `cargo xtask package`: the Debian package, for amd64 and arm64.
//!
//! What lives here: the command line and the order of the work. Where every file goes is in [`layout`], the programs are
//! built in [`programs`] (for arm64 by [`cross`]), the `.deb` is put together in [`archive`], with what [`written`] adds; then
//! it is tried ([`lint`], [`smoke`], [`life`]). What a maintainer script says or does is in `systemd/debian/`, never here.

mod archive;
mod cross;
mod layout;
mod life;
mod lint;
mod manual;
mod programs;
mod scripts;
mod smoke;
mod written;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::workspace::{Workspace, say};

/// A processor architecture, as Debian calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// 64-bit x86: single-board computers and PCs
    Amd64,
    /// 64-bit ARM: Raspberry Pi and the like
    Arm64,
}

impl Arch {
    /// Debian's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// How the programs are built and packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Optimised, and packed as small as can be
    Release,
    /// As for tests, and packed fast: for trying the package, never for a robot
    Dev,
}

/// Arguments of `cargo xtask package`.
#[derive(Args, Debug)]
pub struct PackageArgs {
    /// Build for this architecture only
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// How to build
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Copy the packages to this folder, too
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// `cargo xtask package`. Prints the paths of the packages on stdout.
///
/// # Errors
/// When something cannot be built, or a package does not pass its checks.
pub fn main(workspace: &Workspace, args: &PackageArgs) -> Result<u8> {
    let wanted = [Arch::Amd64, Arch::Arm64];
    for arch in wanted.into_iter().filter(|arch| args.arch.is_none_or(|only| only == *arch)) {
        if (arch, args.profile) == (Arch::Amd64, Profile::Dev) {
            workspace.run_cargo(&["build", "--workspace", "--bins"])?;
        }
        let package = build(workspace, arch, args.profile)?;
        lint::check(&package)?;
        smoke::check(workspace, arch, &package)?;
        match arch {
            Arch::Amd64 => life::check(&package)?,
            Arch::Arm64 => {
                say("install, upgrade, remove, purge: tried with amd64 only, the scripts are the same");
            }
        }
        let size = fs::metadata(&package)?.len();
        say(format!("{}: {size} bytes", package.display()));
        if let Some(folder) = &args.out {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            let copy = folder.join(package.file_name().unwrap_or_default());
            fs::copy(&package, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
            println!("{}", copy.display());
        } else {
            println!("{}", package.display());
        }
    }
    Ok(0)
}

/// Looks at the maintainer scripts, without building anything.
///
/// # Errors
/// With what is wrong with them.
pub fn check_scripts(workspace: &Workspace) -> Result<()> {
    scripts::check(workspace)
}

/// Builds the package of an architecture and returns its path, `target/packages/lanyard_VERSION_ARCH.deb`. It is not
/// tried in any way. With [`Profile::Dev`] the programs of this machine are those that were built last.
///
/// # Errors
/// When a program cannot be built, or a file of the package is missing.
pub fn build(workspace: &Workspace, arch: Arch, profile: Profile) -> Result<PathBuf> {
    let programs = programs::build(workspace, arch, profile)?;
    let written = workspace.target.join("packages").join(format!("written-{}", arch.name()));
    let mut entries = layout::files(&workspace.root)?;
    entries.extend(programs::NAMES.map(|name| layout::Entry::program(programs.path(name), name)));
    entries.extend(written::write(workspace, &programs, &written)?);
    let package = archive::pack(workspace, profile, &programs, &entries)?;
    for folder in [&written, &programs.folder] {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(package)
}
