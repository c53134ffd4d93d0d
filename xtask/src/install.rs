//! What a fresh Debian lacks, installed when it is needed and never earlier.
//!
//! What lives here: finding a system program and installing its Debian package when it is missing.
//! Every installation is announced on stderr. Without root nothing can be installed; then the error
//! says which command to run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{find_program, is_root, say};

/// A program and the Debian package that brings it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// The program's name on PATH.
    pub program: &'static str,
    /// The package.
    pub package: &'static str,
}

/// Makes namespaces: nothing the rig starts survives it.
pub const UNSHARE: Tool = Tool { program: "unshare", package: "util-linux" };
/// Ties a process's life to its parent's.
pub const SETPRIV: Tool = Tool { program: "setpriv", package: "util-linux" };
/// Ends a run that takes too long.
pub const TIMEOUT: Tool = Tool { program: "timeout", package: "coreutils" };
/// Creates network interfaces.
pub const IP: Tool = Tool { program: "ip", package: "iproute2" };
/// Unpacks kernels and their modules.
pub const XZ: Tool = Tool { program: "xz", package: "xz-utils" };
/// The emulated PC.
pub const QEMU: Tool = Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" };
/// The yardstick for how late a machine wakes a thread.
pub const CYCLICTEST: Tool = Tool { program: "cyclictest", package: "rt-tests" };
/// Takes out of a program of this machine what only a debugger reads.
pub const STRIP: Tool = Tool { program: "strip", package: "binutils" };
/// Runs the reference clients.
pub const PYTHON: Tool = Tool { program: "python3", package: "python3" };
/// Runs the TypeScript client.
pub const NODE: Tool = Tool { program: "node", package: "nodejs" };
/// Opens pages, as a person's browser does.
pub const CHROMIUM: Tool = Tool { program: "chromium", package: "chromium" };
/// Installs Node's packages.
pub const NPM: Tool = Tool { program: "npm", package: "npm" };

/// The path of a program, which is installed first when it is missing.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn ensure_tool(tool: Tool) -> Result<PathBuf> {
    if let Some(path) = find_program(tool.program) {
        return Ok(path);
    }
    ensure_packages(&[tool.package], &format!("`{}` is missing", tool.program))?;
    find_program(tool.program).with_context(|| {
        format!("`{}` is still missing after installing the package {}", tool.program, tool.package)
    })
}

/// Makes a copy of a program without what only a debugger reads: an emulated machine loads every byte of it.
///
/// # Errors
/// When `strip` cannot be had, or refuses.
pub fn stripped(program: &Path, copy: &Path) -> Result<()> {
    let mut command = Command::new(ensure_tool(STRIP)?);
    run_quietly(command.arg("-o").arg(copy).arg(program))
}

/// Installs Debian packages with apt.
///
/// # Errors
/// Without apt, without root, or when apt fails twice (the second time with fresh package lists).
pub fn ensure_packages(packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    if find_program("apt-get").is_none() {
        bail!("{why}, and this machine has no apt-get; install what Debian calls {list} and try again");
    }
    if !is_root() {
        bail!("{why}; run `sudo apt-get install --no-install-recommends {list}` and try again");
    }
    say(format!("installing {list} (apt): {why}"));
    if apt_install(packages).is_ok() {
        return Ok(());
    }
    say("refreshing the package lists (apt-get update)");
    run_quietly(apt_get().arg("update"))?;
    apt_install(packages).with_context(|| format!("{why}, and installing {list} failed"))
}

fn apt_install(packages: &[&str]) -> Result<()> {
    run_quietly(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages))
}

/// `apt-get`, patient with mirrors and with another apt that holds the lock.
pub fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["-q", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Runs a command and shows what it printed only when it fails.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    output_of(command).map(drop)
}

/// Runs a command and returns its stdout.
///
/// # Errors
/// When it cannot be started or fails; the last lines it printed are part of the error.
pub fn output_of(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{name}`"))?;
    if !output.status.success() {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        bail!("`{name} {}` failed ({}):\n{}", args.join(" "), output.status, last_lines(&text, 12));
    }
    Ok(output.stdout)
}

/// The last `count` lines of a text, without trailing blanks.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
