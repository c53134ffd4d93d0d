//! `systemd/`: whether systemd understands the files, and how much a fault in a service could reach.
//!
//! What lives here: the checks of `cargo xtask test` over that folder, with systemd's own programs. Nothing is
//! installed or started: they work on a folder in `target/` that looks like a machine with Lanyard on it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::install::{Tool, ensure_tool};
use crate::package;
use crate::workspace::{Workspace, say};

/// Reads units; its package brings the others, too.
const ANALYZE: Tool = Tool { program: "systemd-analyze", package: "systemd" };
/// Makes users.
const SYSUSERS: Tool = Tool { program: "systemd-sysusers", package: "systemd" };
/// Makes folders and sets permissions.
const TMPFILES: Tool = Tool { program: "systemd-tmpfiles", package: "systemd" };
/// Applies `.link` files, and rules.
const UDEV: Tool = Tool { program: "udevadm", package: "udev" };

/// Where networkd is on Debian: not on PATH.
const NETWORKD: &str = "/lib/systemd/systemd-networkd";

/// What systemd brings: targets, sockets, slices that every unit refers to.
const SYSTEM_UNITS: &str = "/usr/lib/systemd/system";

/// How exposed a service may be at most, in tenths of `systemd-analyze security`: nothing to 100.
///
/// Read from what is left when everything is forbidden that the program can live without, see systemd/README.md. A new
/// directive may be weighed by a new systemd, hence the one tenth the supervisor has to spare.
const LIMITS: [(&str, u8); 2] = [("lanyard-supervisor.service", 10), ("lanyard-front.service", 20)];

/// Looks at everything in `systemd/`.
///
/// # Errors
/// With everything that is wrong, in the words of the programs that read it.
pub fn check(workspace: &Workspace) -> Result<()> {
    say("systemd-analyze: units and their exposure");
    let (folder, root) = (workspace.root.join("systemd"), workspace.target.join("units"));
    let mut problems = Vec::new();
    let mut note = |outcome: Result<()>| problems.extend(outcome.err().map(|error| format!("{error:#}")));
    let units = install(&folder, &root)?;
    note(verify(&root, &units));
    for (service, limit) in LIMITS {
        note(exposure(&folder.join(service), limit));
        // With every device that a drop-in lets in.
        note(with_dropins(&root, service).and_then(|whole| exposure(&whole, limit)));
    }
    note(users_and_folders(&folder, &root));
    note(keys_are_known(&folder.join("network")));
    note(package::check_scripts(workspace));
    ensure!(problems.is_empty(), "systemd/: {}", problems.join("\n"));
    Ok(())
}

/// Makes the folder that looks like a machine with Lanyard on it; returns the names of its units.
fn install(folder: &Path, root: &Path) -> Result<Vec<String>> {
    let _ = fs::remove_dir_all(root);
    let (own, systems) = (root.join("etc/systemd/system"), root.join("usr/lib/systemd/system"));
    for made in [&own, &systems, &root.join("usr/bin")] {
        fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
    }
    ensure_tool(ANALYZE)?;
    let files = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for unit in files(Path::new(SYSTEM_UNITS))? {
        fs::copy(&unit, systems.join(name(&unit)))?;
    }
    let mut units: Vec<String> = Vec::new();
    for unit in files(folder)?.into_iter().filter(|path| path.extension().is_some_and(|end| end != "md")) {
        fs::copy(&unit, own.join(name(&unit)))?;
        units.push(name(&unit));
    }
    for program in ["lanyard-supervisor", "lanyard-front"] {
        let path = root.join("usr/bin").join(program);
        fs::write(&path, "")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    // A drop-in with a mistake is a unit with a mistake.
    for (unit, dropin) in [
        ("lanyard-supervisor.service.d", "examples/lanyard-supervisor.service.d/cpu.conf"),
        ("lanyard-supervisor.service.d", "examples/lanyard-supervisor.service.d/watchdog.conf"),
        ("lanyard-front.service.d", "examples/lanyard-front.service.d/no-can.conf"),
    ] {
        fs::create_dir_all(own.join(unit))?;
        fs::copy(folder.join(dropin), own.join(unit).join(name(Path::new(dropin))))
            .with_context(|| format!("cannot copy {dropin}"))?;
    }
    ensure!(!units.is_empty(), "there is no unit in {}", folder.display());
    Ok(units)
}

/// systemd says what it does not know and goes on, with exit code 0: whatever it says is a failure.
fn verify(root: &Path, units: &[String]) -> Result<()> {
    let mut command = Command::new(ensure_tool(ANALYZE)?);
    command.arg("verify").arg(format!("--root={}", root.display())).arg("--man=no").args(units);
    silently(&mut command)
}

/// A service and all its drop-ins as one file: what systemd makes of them, and `security --offline` does not.
fn with_dropins(root: &Path, service: &str) -> Result<PathBuf> {
    let own = root.join("etc/systemd/system");
    let mut text = fs::read_to_string(own.join(service))?;
    let mut dropins: Vec<PathBuf> =
        fs::read_dir(own.join(format!("{service}.d")))?.flatten().map(|entry| entry.path()).collect();
    dropins.sort();
    for dropin in dropins {
        text += &format!("\n{}", fs::read_to_string(&dropin)?);
    }
    let folder = root.join("whole");
    fs::create_dir_all(&folder)?;
    let whole = folder.join(service);
    fs::write(&whole, text).with_context(|| format!("cannot write {}", whole.display()))?;
    Ok(whole)
}

fn exposure(service: &Path, limit: u8) -> Result<()> {
    let mut command = Command::new(ensure_tool(ANALYZE)?);
    command.args(["security", "--offline=true", "--no-pager", &format!("--threshold={limit}")]).arg(service);
    let output = command.stdin(Stdio::null()).output().context("cannot start systemd-analyze")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        let missing = text.lines().filter(|line| line.starts_with(['✗', '→'])).collect::<Vec<_>>().join("\n");
        bail!(
            "{}: its exposure is above {}.{}:\n{missing}\n{}",
            service.display(),
            limit / 10,
            limit % 10,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// The users are made in the folder; then the other file must find them.
fn users_and_folders(folder: &Path, root: &Path) -> Result<()> {
    let at = format!("--root={}", root.display());
    let mut users = Command::new(ensure_tool(SYSUSERS)?);
    let made = users.args([&at, "--"]).arg(folder.join("sysusers.d/lanyard.conf")).output()?;
    ensure!(made.status.success(), "sysusers.d: {}", String::from_utf8_lossy(&made.stderr));
    let mut permissions = Command::new(ensure_tool(TMPFILES)?);
    // Every line is read, none is carried out.
    permissions.args(["--create", "--prefix=/nowhere", &at]).arg(folder.join("tmpfiles.d/lanyard.conf"));
    silently(&mut permissions)
}

/// Runs a program that says something only when something is wrong.
fn silently(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("cannot start it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.trim().is_empty(),
        "{}: {}\n{said}",
        command.get_program().display(),
        output.status
    );
    Ok(())
}

/// There is no `verify` for network files. Each program has the keys it knows as plain texts in it, "CAN.BitRate",
/// and ignores others: so a misspelt bit rate would be none.
fn keys_are_known(folder: &Path) -> Result<()> {
    ensure_tool(ANALYZE)?;
    let networkd = fs::read(NETWORKD).with_context(|| format!("cannot read {NETWORKD}"))?;
    let udev = fs::read(ensure_tool(UDEV)?).context("cannot read udevadm")?;
    let mut unknown = Vec::new();
    let mut seen = 0;
    for adapter in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        for file in fs::read_dir(adapter?.path())? {
            let path = file?.path();
            let text = fs::read_to_string(&path)?;
            let reader = if path.extension().is_some_and(|end| end == "link") { &udev } else { &networkd };
            for key in keys_of(&text) {
                seen += 1;
                if !contains(reader, key.as_bytes()) {
                    unknown.push(format!("{}: {key} is not known", path.display()));
                }
            }
        }
    }
    ensure!(unknown.is_empty(), "{}", unknown.join("\n"));
    ensure!(seen > 0, "there is not a single key in {}", folder.display());
    Ok(())
}

/// The keys of a file as systemd writes them, with their section: `CAN.BitRate`.
fn keys_of(text: &str) -> Vec<String> {
    let mut section = "";
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            keys.push(format!("{section}.{}", key.trim()));
        }
    }
    keys
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    // With the zero behind it: a key that is the beginning of another is not that one.
    let part: Vec<u8> = part.iter().copied().chain([0]).collect();
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::{contains, keys_of};

    #[test]
    fn keys_carry_their_section_and_comments_are_none() {
        let text = "# x=1\n[Match]\nDriver=gs_usb\n\n[CAN]\n#Old=1\nBitRate = 500K\nRestartSec=100ms\n";
        assert_eq!(keys_of(text), ["Match.Driver", "CAN.BitRate", "CAN.RestartSec"]);
    }

    #[test]
    fn a_key_is_known_as_a_whole_only() {
        let program = b"\0CAN.BitRate\0CAN.BitRateX\0";
        assert!(contains(program, b"CAN.BitRate"));
        assert!(!contains(program, b"CAN.Bit"));
        assert!(!contains(program, b"CAN.RestartSecs"));
    }
}
