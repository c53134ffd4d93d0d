//! The uml rig: user-mode Linux, a kernel that is an ordinary program.
//!
//! What lives here: getting Debian's user-mode-linux (unpacked, not installed) and starting it with
//! the host's files as its own, and with the library that it needs where the processor has AMX. It needs neither
//! root nor hardware virtualisation.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::guest::{CAN_MODULES, EXTRA_MODULES, Guest, ensure_busybox};
use super::modules::load_order;
use super::sandbox::{Sandbox, Sink};
use super::{Kind, Request};
use crate::install::run_quietly;
use crate::packages;
use crate::workspace::Workspace;

/// Runs the command in a user-mode Linux.
///
/// # Errors
/// When the kernel cannot be had or dies.
pub fn run(workspace: &Workspace, request: &Request, stdout: Sink<'_>) -> Result<u8> {
    if env::consts::ARCH != "x86_64" {
        bail!("Debian has user-mode Linux for x86_64 only, this machine is {}", env::consts::ARCH);
    }
    let kernel = packages::unpacked(workspace, "uml", |_| Ok("user-mode-linux".into()))?;
    let modules =
        load_order(&module_folder(&kernel.join("usr/lib/uml/modules"))?, CAN_MODULES, EXTRA_MODULES)?;
    let busybox = ensure_busybox(workspace)?;
    let guest = Guest::new(workspace, request, Kind::Uml, &busybox)?;
    // Under the run's own folder, because an interpreter's path may not contain blanks.
    let shell = guest.folder.join("busybox");
    std::os::unix::fs::symlink(&busybox, &shell).context("cannot link busybox")?;
    guest.write_init(request, &shell, &modules)?;

    let folder = guest.folder.display();
    let args: Vec<OsString> = [
        format!("mem={}", request.place.mem),
        format!("uml_dir={folder}/uml"),
        "umid=rig".into(),
        "root=/dev/root rootfstype=hostfs ro".into(),
        // Console 0 is the kernel's log; 1 and 2 carry the command's stdout and stderr.
        "con=null con0=null,fd:3 con1=null,fd:4 con2=null,fd:5".into(),
        "quiet noreboot panic=-1".into(),
        format!("init={folder}/init"),
    ]
    .iter()
    .flat_map(|group| group.split(' '))
    .map(OsString::from)
    .collect();
    fs::create_dir(guest.folder.join("uml")).context("cannot create the machine's control folder")?;
    let memory = memory_folder(&request.place.mem, &guest.folder);
    let sandbox = Sandbox::new(request.timeout)?
        .with_descriptors(guest.folder.join("klog").as_os_str(), guest.folder.join("console").as_os_str());
    let preloaded = preloaded(workspace, &guest)?;
    let adjust = |command: &mut Command| {
        command.env("TMPDIR", &memory).env("LD_PRELOAD", &preloaded);
    };
    let ending = sandbox.run(kernel.join("usr/bin/linux.uml").as_os_str(), &args, adjust, stdout)?;
    guest.result(ending, request.timeout)
}

/// Builds the library that completes what user-mode Linux writes of a process's registers (xtask/xstate). Returns the list of
/// libraries to preload: that one, and what this process is told to preload itself.
fn preloaded(workspace: &Workspace, guest: &Guest) -> Result<OsString> {
    run_quietly(workspace.cargo().args(["build", "--quiet", "--package", "xstate"]))?;
    let built = workspace.target.join("debug/libxstate.so");
    // Under the run's own folder, because the list is separated by blanks and colons; and a copy, because another
    // xtask may build it anew.
    let copy = guest.folder.join("libxstate.so");
    fs::copy(&built, &copy).with_context(|| format!("cannot copy {}", built.display()))?;
    let mut list = copy.into_os_string();
    if let Some(others) = env::var_os("LD_PRELOAD") {
        list.push(":");
        list.push(others);
    }
    Ok(list)
}

/// The folder with the modules of the only kernel version below `parent`.
///
/// # Errors
/// When there is none.
pub fn module_folder(parent: &Path) -> Result<PathBuf> {
    fs::read_dir(parent)
        .ok()
        .and_then(|entries| entries.flatten().map(|entry| entry.path().join("kernel")).find(|p| p.is_dir()))
        .with_context(|| {
            format!("no kernel modules in {}; delete that folder and try again", parent.display())
        })
}

/// Where the machine's memory is kept as a file: /dev/shm if it is big enough and allows running code
/// (in containers often neither), else the run's folder, which is slower.
fn memory_folder(size: &str, fallback: &Path) -> PathBuf {
    let shm = Path::new("/dev/shm");
    if allows_code(shm) && free_megabytes(shm) > megabytes(size) { shm.into() } else { fallback.into() }
}

fn megabytes(size: &str) -> u64 {
    let number = |suffix| size.strip_suffix(suffix).and_then(|digits: &str| digits.parse::<u64>().ok());
    number('M').or_else(|| number('G').map(|gigabytes| gigabytes * 1024)).unwrap_or(u64::MAX)
}

fn allows_code(folder: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .rfind(|fields| fields.get(1).is_some_and(|mounted| Path::new(mounted) == folder))
        .is_some_and(|fields| fields.get(3).is_some_and(|options| options.split(',').all(|o| o != "noexec")))
}

fn free_megabytes(folder: &Path) -> u64 {
    let output = Command::new("df")
        .args([OsStr::new("--output=avail"), OsStr::new("-BM"), folder.as_os_str()])
        .output();
    output
        .ok()
        .and_then(|output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().nth(1)?.trim().trim_end_matches('M').parse().ok()
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::megabytes;

    #[test]
    fn sizes() {
        assert_eq!(megabytes("512M"), 512);
        assert_eq!(megabytes("2G"), 2048);
    }
}
