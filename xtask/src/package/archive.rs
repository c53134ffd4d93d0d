//! The package itself: a folder that looks like the robot's file system, and `dpkg-deb`.
//!
//! What lives here: laying out that folder, what dpkg wants to know of it (`control`, `md5sums`,
//! `conffiles`).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::install::{Tool, ensure_tool, output_of, run_quietly};
use crate::workspace::Workspace;

use super::layout::{Entry, Form};
use super::programs::{NAMES, Programs};
use super::{Profile, scripts};

/// Packs.
const DPKG_DEB: Tool = Tool { program: "dpkg-deb", package: "dpkg" };
/// Compresses manual pages.
const GZIP: Tool = Tool { program: "gzip", package: "gzip" };
/// Sums of every file, for `dpkg --verify`.
const MD5SUM: Tool = Tool { program: "md5sum", package: "coreutils" };
/// Says which C library a program needs, of whatever architecture it is.
const READELF: Tool = Tool { program: "readelf", package: "binutils" };

/// Packs files; returns the path of the package.
///
/// # Errors
/// When a file is missing, or dpkg-deb refuses.
pub fn pack(
    workspace: &Workspace,
    profile: Profile,
    programs: &Programs,
    entries: &[Entry],
) -> Result<PathBuf> {
    let arch = programs.arch;
    let packages = workspace.target.join("packages");
    let root = packages.join(format!("root-{}", arch.name()));
    let _ = fs::remove_dir_all(&root);
    for entry in entries {
        place(entry, &root)?;
    }
    let version = workspace.version()?;
    let debian = workspace.root.join("systemd/debian");
    let into = root.join("DEBIAN");
    make_folder(&into)?;
    let template = read(&debian.join("control"))?;
    write(&into.join("control"), &control(&template, &version, &root, programs)?, 0o644)?;
    let conffiles: String = entries
        .iter()
        .filter(|entry| entry.form == Form::Conffile)
        .map(|entry| format!("/{}\n", entry.to))
        .collect();
    write(&into.join("conffiles"), &conffiles, 0o644)?;
    write(&into.join("md5sums"), &sums(&root, entries)?, 0o644)?;
    for name in scripts::NAMES {
        write(&into.join(name), &scripts::assemble(&debian, name)?, 0o755)?;
    }
    let package = packages.join(format!("lanyard_{version}_{}.deb", arch.name()));
    let mut command = Command::new(ensure_tool(DPKG_DEB)?);
    command.args(["--root-owner-group", "--uniform-compression"]);
    match profile {
        Profile::Release => command.args(["-Zxz", "-z9"]),
        // Ten times as fast; who builds it unpacks it.
        Profile::Dev => command.args(["-Zxz", "-z0"]),
    };
    run_quietly(command.arg("--build").arg(&root).arg(&package))?;
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    Ok(package)
}

/// Copies a file to where it goes.
fn place(entry: &Entry, root: &Path) -> Result<()> {
    let to = root.join(&entry.to);
    make_folder(to.parent().unwrap_or(root))?;
    match entry.form {
        Form::Plain | Form::Conffile => {
            fs::copy(&entry.from, &to)
                .with_context(|| format!("cannot copy {} to {}", entry.from.display(), to.display()))?;
        }
        Form::Gzip => {
            // Without name and time: the same input is the same package.
            let packed = output_of(Command::new(ensure_tool(GZIP)?).args(["-9nc"]).arg(&entry.from))?;
            fs::write(&to, packed).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    fs::set_permissions(&to, fs::Permissions::from_mode(entry.mode))
        .with_context(|| format!("cannot set the permissions of {}", to.display()))
}

/// `control` with everything filled in that is not known before.
fn control(template: &str, version: &str, root: &Path, programs: &Programs) -> Result<String> {
    let text = template
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", programs.arch.name())
        .replace("@SIZE@", &kibibytes(root)?.to_string())
        .replace("@GLIBC@", &glibc(programs)?);
    Ok(text)
}

/// The space the files take, as `Installed-Size` counts it: each rounded up to a KiB, each folder one.
fn kibibytes(folder: &Path) -> Result<u64> {
    let mut sum = 1;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        sum += if path.is_dir() { kibibytes(&path)? } else { fs::metadata(&path)?.len().div_ceil(1024) };
    }
    Ok(sum)
}

/// The C library the programs need at least, by the versions of the symbols they ask for.
fn glibc(programs: &Programs) -> Result<String> {
    let mut newest = (0, 0);
    for name in NAMES {
        let text = output_of(
            Command::new(ensure_tool(READELF)?).args(["-W", "--version-info"]).arg(programs.path(name)),
        )?;
        newest = newest.max(newest_glibc(&String::from_utf8_lossy(&text)));
    }
    ensure!(newest > (0, 0), "no program in {} asks for a C library", programs.folder.display());
    Ok(format!("{}.{}", newest.0, newest.1))
}

/// The highest `GLIBC_X.Y` of a text.
fn newest_glibc(text: &str) -> (u32, u32) {
    text.split("GLIBC_")
        .skip(1)
        .filter_map(|rest| {
            let version = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
            let mut parts = version.split('.');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        })
        .max()
        .unwrap_or_default()
}

fn sums(root: &Path, entries: &[Entry]) -> Result<String> {
    let mut command = Command::new(ensure_tool(MD5SUM)?);
    // dpkg looks after conffiles itself.
    let files = entries.iter().filter(|entry| entry.form != Form::Conffile).map(|entry| &entry.to);
    let text = output_of(command.args(files).current_dir(root))?;
    String::from_utf8(text).context("md5sum: not UTF-8")
}

/// Makes a folder with permissions that do not depend on who builds.
fn make_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folder(parent)?;
    }
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the permissions of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::newest_glibc;
    use crate::workspace::Workspace;

    #[test]
    fn the_newest_symbol_says_which_c_library_is_needed() {
        let text =
            "0x1: Name: GLIBC_2.9  Flags: none\n0x2: Name: GLIBC_2.34 Flags\n0x3: Name: GLIBC_2.4.1 GCC_3.0";
        assert_eq!(newest_glibc(text), (2, 34));
        assert_eq!(newest_glibc("GLIBC_PRIVATE GCC_3.0"), (0, 0));
    }

    /// dpkg compares it with what is installed, people read it.
    #[test]
    fn the_newest_entry_of_the_changelog_is_of_this_version() {
        let workspace = Workspace::find().unwrap();
        let changelog = fs::read_to_string(workspace.root.join("systemd/debian/changelog")).unwrap();
        let version = workspace.version().unwrap();
        assert!(changelog.starts_with(&format!("lanyard ({version}) ")), "{version}");
    }
}
