//! The life of a package: installed, upgraded, given up, removed, purged by the real dpkg.
//!
//! It happens in a copy of this machine that nobody sees and of which nothing stays: an overlay in memory over its files,
//! in namespaces of its own. What is done and expected there is in `life.sh`. systemd does not run in it, and is played
//! where a script would talk to it; with the real one the package is tried by the test that boots a machine.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::install::{Tool, UNSHARE, ensure_packages, ensure_tool};
use crate::rig::sandbox::{Ending, Sandbox};
use crate::workspace::{find_program, is_root, say};

/// The scripts of the package call it; it comes with every Debian that has systemd.
const HELPER: Tool = Tool { program: "deb-systemd-helper", package: "init-system-helpers" };

/// Ten times what it takes on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Installs, upgrades, removes and purges a package of this machine's architecture in every way that matters.
///
/// # Errors
/// Without root, and with the step that went wrong and what was printed then.
pub fn check(package: &Path) -> Result<()> {
    if !is_root() {
        bail!("a package can only be tried by root (in a copy of this machine): run this with sudo");
    }
    ensure_tool(HELPER)?;
    if find_program("systemd-sysusers").is_none() || find_program("udevadm").is_none() {
        ensure_packages(
            &["systemd", "udev"],
            "the package needs them, and is tried on a copy of this machine",
        )?;
    }
    say(format!("install, upgrade, remove, purge: {}", package.display()));
    // The sandbox's namespaces are of processes; this one is of mounts.
    let mut words: Vec<OsString> =
        ["--mount", "--", "sh", "-c", include_str!("life.sh"), "life.sh"].map(OsString::from).into();
    words.push(package.into());
    let ending =
        Sandbox::new(PATIENCE)?.run(ensure_tool(UNSHARE)?.as_os_str(), &words, |_| {}, &mut |_| {})?;
    ensure!(
        ending == Ending::Exit(0),
        "the package does not live as it should ({ending:?}); the step is above"
    );
    Ok(())
}
