//! Other people's reverse proxies: what stands between clients and Lanyard in the tests.
//!
//! What lives here: finding haproxy and nginx, or getting Debian's packages of them. They are only unpacked, never
//! installed: installing either would start a server on this machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::install::output_of;
use crate::packages;
use crate::workspace::{Workspace, find_program};

/// What haproxy of Debian 12 needs and a small Debian lacks.
const HAPROXY_LIBRARIES: [&str; 3] = ["liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"];

/// Both proxies.
pub struct Proxies {
    /// haproxy's program.
    pub haproxy: PathBuf,
    /// nginx's program.
    pub nginx: PathBuf,
    /// Where their libraries are, besides the system's own places; as `LD_LIBRARY_PATH` has it.
    pub libraries: OsString,
}

/// Both, from this machine or unpacked.
///
/// # Errors
/// When one is not installed and cannot be downloaded, or does not start.
pub fn ensure(workspace: &Workspace) -> Result<Proxies> {
    let mut folders = Vec::new();
    let haproxy = match find_program("haproxy") {
        Some(installed) => installed,
        None => {
            for package in HAPROXY_LIBRARIES {
                folders.extend(library_folders(&unpacked(workspace, package)?)?);
            }
            unpacked(workspace, "haproxy")?.join("usr/sbin/haproxy")
        }
    };
    let nginx = match find_program("nginx") {
        Some(installed) => installed,
        None => unpacked(workspace, "nginx")?.join("usr/sbin/nginx"),
    };
    let libraries = std::env::join_paths(folders).context("a folder of libraries has a colon in its path")?;
    for program in [&haproxy, &nginx] {
        output_of(Command::new(program).arg("-v").env("LD_LIBRARY_PATH", &libraries)).with_context(|| {
            let name = program.file_name().unwrap_or_default().display();
            format!("run `sudo apt-get install --no-install-recommends {name}` and try again")
        })?;
    }
    Ok(Proxies { haproxy, nginx, libraries })
}

fn unpacked(workspace: &Workspace, package: &str) -> Result<PathBuf> {
    packages::unpacked(workspace, package, |_| Ok(package.to_owned()))
}

/// The folders of an unpacked package that hold libraries: `usr/lib/x86_64-linux-gnu` or the like.
fn library_folders(package: &Path) -> Result<Vec<PathBuf>> {
    let folder = package.join("usr/lib");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| path.is_dir()).collect())
}
