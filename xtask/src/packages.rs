//! Debian packages that are only unpacked, never installed.
//!
//! What lives here: [`unpacked`], which downloads a package with apt into the cache folder and
//! unpacks it there. It needs no root: when the system's package lists are missing and only root
//! could fetch them, apt gets private lists inside the cache folder.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::install::{apt_get, output_of, run_quietly};
use crate::workspace::{Workspace, find_program, is_root, say};

/// Keeps a second xtask from installing the same thing at the same time. Released when dropped.
pub struct CacheLock(#[expect(dead_code, reason = "held for its lock")] File);

/// Waits for the cache folder to be free and takes it.
///
/// # Errors
/// When the lock file cannot be created or locked.
pub fn lock_cache(workspace: &Workspace) -> Result<CacheLock> {
    let folder = workspace.cache();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        say("waiting for another xtask that is installing something");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(CacheLock(file))
}

/// The folder `<cache>/<label>-<version>` with a package's files, fetched when there is none yet.
/// `choose` names the package; it is only asked when something has to be fetched.
///
/// # Errors
/// Without apt, or when the package cannot be found, downloaded or unpacked.
pub fn unpacked(
    workspace: &Workspace,
    label: &str,
    choose: impl Fn(&Apt) -> Result<String>,
) -> Result<PathBuf> {
    if let Some(folder) = cached(workspace, label) {
        return Ok(folder);
    }
    let _lock = lock_cache(workspace)?;
    if let Some(folder) = cached(workspace, label) {
        return Ok(folder);
    }
    if find_program("apt-get").is_none() || find_program("dpkg").is_none() {
        bail!("this machine has no apt-get or no dpkg, and {label} comes as a Debian package");
    }
    let system = Apt { options: Vec::new() };
    match fetch(workspace, label, &system, &choose) {
        Ok(folder) => Ok(folder),
        Err(first) => {
            let apt = Apt::refreshed(workspace).with_context(|| format!("after: {first:#}"))?;
            fetch(workspace, label, &apt, &choose)
        }
    }
}

/// What was unpacked earlier. A folder is complete once it has its final name.
fn cached(workspace: &Workspace, label: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(workspace.cache())
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.strip_prefix(label).is_some_and(|rest| rest.starts_with('-')) && path.is_dir()
        })
        .collect();
    found.sort();
    found.pop()
}

fn fetch(
    workspace: &Workspace,
    label: &str,
    apt: &Apt,
    choose: impl Fn(&Apt) -> Result<String>,
) -> Result<PathBuf> {
    let package = choose(apt)?;
    say(format!("downloading {package} (apt): only unpacked into {}", workspace.cache().display()));
    let scratch = workspace.cache().join(format!("fetching.{label}"));
    remove_folder(&scratch)?;
    fs::create_dir_all(scratch.join("root"))?;
    run_quietly(apt.command("apt-get").args(["download", &package]).current_dir(&scratch))?;
    let archive = fs::read_dir(&scratch)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .with_context(|| format!("apt-get download {package} left no .deb in {}", scratch.display()))?;
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // PACKAGE_EPOCH%3aVERSION_ARCHITECTURE.deb, where the epoch is often missing.
    let version = name.split('_').nth(1).unwrap_or("unknown").rsplit("%3a").next().unwrap_or("unknown");
    run_quietly(Command::new("dpkg").arg("-x").arg(&archive).arg(scratch.join("root")))?;
    let folder = workspace.cache().join(format!("{label}-{version}"));
    fs::rename(scratch.join("root"), &folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    remove_folder(&scratch)?;
    Ok(folder)
}

/// Removes a folder that may not exist.
///
/// # Errors
/// When it exists and cannot be removed.
pub fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// Apt with the system's package lists, or with private ones.
pub struct Apt {
    options: Vec<OsString>,
}

impl Apt {
    /// Fresh package lists: the system's own for root, else private ones in the cache folder.
    fn refreshed(workspace: &Workspace) -> Result<Self> {
        let mut options = Vec::new();
        if !is_root() {
            let state = workspace.cache().join("apt");
            for folder in ["lists/partial", "cache/archives/partial"] {
                fs::create_dir_all(state.join(folder))?;
            }
            for (option, folder) in [("Dir::State::lists=", "lists"), ("Dir::Cache=", "cache")] {
                let mut value = OsString::from(option);
                value.push(state.join(folder));
                options.extend(["-o".into(), value]);
            }
        }
        say("refreshing the package lists (apt-get update)");
        let apt = Self { options };
        run_quietly(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = if program == "apt-get" { apt_get() } else { Command::new(program) };
        if is_root() {
            // The unprivileged download user cannot write into the cache folder.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command.args(&self.options).env("LC_ALL", "C");
        command
    }

    /// The package that a package of changing content depends on at the moment, chosen by prefix.
    ///
    /// # Errors
    /// When apt does not know the package or it has no such dependency.
    pub fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let text = output_of(self.command("apt-cache").args(["depends", package]))?;
        String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .with_context(|| format!("the package {package} depends on nothing named {prefix}..."))
    }
}
