//! The copy of the working tree in which mutants are built.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Brings the copy to the state of the working tree. Files that are the same are left alone, so that only what
/// has changed is built again; a mutant that an interrupted run has left is undone.
///
/// # Errors
/// When git does not list the files, or the copy cannot be written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.arg("-C").arg(from).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().context("cannot start git")?;
    if !output.status.success() {
        bail!("git ls-files failed in {}: {}", from.display(), String::from_utf8_lossy(&output.stderr));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    let wanted: Vec<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    let sources = to.join("sources.txt");
    for gone in fs::read_to_string(&sources).unwrap_or_default().lines() {
        if !from.join(gone).is_file() {
            let _ = fs::remove_file(to.join(gone));
        }
    }
    for name in &wanted {
        let Ok(content) = fs::read(from.join(name)) else { continue };
        let copy = to.join(name);
        if fs::read(&copy).is_ok_and(|old| old == content) {
            continue;
        }
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        fs::write(&copy, content).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    fs::write(&sources, wanted.join("\n"))?;
    Ok(())
}
