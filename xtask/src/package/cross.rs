//! arm64 on an amd64 machine, out of Debian's packages alone.
//!
//! What lives here: what such a machine needs and how it is told apart from this one. No other compiler than the
//! machine's own may get into its PATH's way: Debian's is named for this build alone, which has a target folder of its own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::install::{Tool, apt_get, ensure_packages, ensure_tool, run_quietly};
use crate::workspace::{Workspace, find_program, is_root, say};

/// How Rust calls the target.
const TRIPLE: &str = "aarch64-unknown-linux-gnu";

/// The compiler that Debian has the standard library of arm64 for; rustup's has it only when somebody downloads it.
const RUSTC: &str = "/usr/bin/rustc";

/// Links, and compiles the C and assembly of `ring`.
const GCC: &str = "aarch64-linux-gnu-gcc";

/// Takes the symbols out of a program of the other architecture.
pub const STRIP: Tool = Tool { program: "aarch64-linux-gnu-strip", package: "binutils-aarch64-linux-gnu" };

/// Runs programs of the other architecture.
const QEMU: Tool = Tool { program: "qemu-aarch64-static", package: "qemu-user-static" };

/// Where Debian's cross packages have the C library of arm64.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";

/// What has to be installed, as dpkg calls it.
const PACKAGES: [&str; 4] =
    ["rustc-web", "libstd-rust-web-dev:arm64", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

/// Builds programs of these crates, with these arguments of `cargo build` for the profile; returns the folder with them.
///
/// # Errors
/// When the compiler cannot be installed, or something does not build.
pub fn build(workspace: &Workspace, crates: &[&str], profile: &[&str], folder: &str) -> Result<PathBuf> {
    ensure()?;
    let target = workspace.target.join("arm64");
    let mut command = workspace.cargo();
    command.args(["build", "--locked", "--bins", "--target", TRIPLE]).args(profile);
    command.args(crates.iter().flat_map(|name| ["-p", name])).arg("--target-dir").arg(&target);
    command.env("RUSTC", RUSTC).env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", GCC);
    command.env("CC_aarch64_unknown_linux_gnu", GCC);
    say(format!("cargo build --target {TRIPLE} with {RUSTC}"));
    let status = command.stdout(std::io::stderr()).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("building for arm64 failed ({status}); its messages are above");
    }
    Ok(target.join(TRIPLE).join(folder))
}

/// A command that runs a program of arm64 here.
///
/// # Errors
/// When the emulator or the C library cannot be installed.
pub fn run(program: &std::path::Path) -> Result<Command> {
    let mut command = Command::new(ensure_tool(QEMU)?);
    command.args(["-L", SYSROOT]).arg(program);
    Ok(command)
}

/// Installs what is missing of [`PACKAGES`].
fn ensure() -> Result<()> {
    let missing: Vec<&str> = PACKAGES.into_iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let why = "an arm64 compiler is missing";
    if is_root() && find_program("apt-get").is_some() {
        // Packages of another architecture are unknown until dpkg is told about it.
        say(format!("dpkg --add-architecture arm64, apt-get update: {why}"));
        run_quietly(Command::new("dpkg").args(["--add-architecture", "arm64"]))?;
        run_quietly(apt_get().arg("update"))?;
    }
    ensure_packages(&missing, &format!("{why} (before: dpkg --add-architecture arm64 && apt-get update)"))
}

fn installed(package: &str) -> bool {
    let state = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).output();
    state.is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}
