//! What the machine's kernel starts with: a small file system in memory, with the package and the tests in it.
//!
//! What lives here: [`write`]. Its first program (first-init.sh) finds the disk, on the first boot has the package installed there by
//! dpkg itself and everything else laid out (install.sh), and hands over to systemd. So nothing on the host has to
//! be root for it, and the maintainer's scripts of the package run in the Debian they are made for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::rig::cpio::Archive;
use crate::rig::guest::ensure_busybox;
use crate::rig::modules::{content, load_order, module_name};
use crate::rig::qemu::Kernel;
use crate::workspace::Workspace;

/// Its first program.
const INIT: &str = include_str!("first-init.sh");
/// What is done in the Debian before its first boot.
const INSTALL: &str = include_str!("install.sh");
/// What runs the tests, started by systemd.
const RUNNER: &str = include_str!("runner.sh");

/// What it takes to reach the disk, the journal's console and random numbers.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "ext4", "crc32c_generic", "crc32c_intel"];

/// What is brought into the machine.
#[derive(Debug)]
pub struct Payload<'a> {
    /// Lanyard's package.
    pub package: &'a Path,
    /// The test program.
    pub program: &'a Path,
    /// The simulated drives.
    pub sim: &'a Path,
    /// The folder `systemd/`: what is copied by hand on a robot comes from there.
    pub units: &'a Path,
    /// What the test program is told to run; empty: everything.
    pub arguments: &'a [&'a str],
}

/// Writes the file system into the folder of a run.
///
/// # Errors
/// When something of it is missing.
pub fn write(workspace: &Workspace, kernel: &Kernel, payload: &Payload<'_>, run: &Path) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "disk", "rig", "rig/modules", "payload"] {
        archive.folder(folder);
    }
    let mut order = String::new();
    for file in load_order(&kernel.modules, MODULES, &[])? {
        let name = module_name(&file).context("a module without a name")?;
        archive.file(&format!("rig/modules/{name}.ko"), false, &content(&file)?);
        order.push_str(&format!("/rig/modules/{name}.ko\n"));
    }
    archive.file("rig/order", false, order.as_bytes());
    archive.file("rig/busybox", true, &read(&ensure_busybox(workspace)?)?);
    archive.file("init", true, format!("#!/rig/busybox sh\n{INIT}").as_bytes());
    archive.file("payload/install", true, INSTALL.as_bytes());
    archive.file("payload/runner", true, RUNNER.as_bytes());
    archive.file("payload/arguments", false, lines(payload.arguments).as_bytes());
    archive.file("payload/lanyard.deb", false, &read(payload.package)?);
    archive.file("payload/system-test", true, &read(payload.program)?);
    archive.file("payload/lanyard-sim", true, &read(payload.sim)?);
    let by_hand = [
        ("cpu.conf", "examples/lanyard-supervisor.service.d/cpu.conf"),
        ("watchdog.conf", "examples/system.conf.d/lanyard-watchdog.conf"),
        ("can.link", "network/gs_usb/80-lanyard-gs_usb.link"),
        ("can.network", "network/gs_usb/80-lanyard-gs_usb.network"),
    ];
    for (name, file) in by_hand {
        archive.file(&format!("payload/{name}"), false, &read(&payload.units.join(file))?);
    }
    let path = run.join("initramfs");
    fs::write(&path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn lines(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word}\n")).collect()
}
