//! The Debian that the machine boots: built once, used by every run as it is.
//!
//! What lives here: what is in it, and [`ensure`], which builds it with mmdebstrap as a disk image. A run never
//! changes it: what its machine writes goes elsewhere and is lost (see [`super::machine`]). Lanyard is not in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::timed;
use crate::install::{Tool, apt_get, ensure_tool, output_of, run_quietly};
use crate::packages::{lock_cache, remove_folder};
use crate::rig::modules::load_order;
use crate::rig::qemu::Kernel;
use crate::workspace::{Workspace, is_root, say};

/// Makes a Debian in a folder.
const MMDEBSTRAP: Tool = Tool { program: "mmdebstrap", package: "mmdebstrap" };
/// Makes a file system with that folder's content in it.
const MKE2FS: Tool = Tool { program: "mke2fs", package: "e2fsprogs" };

/// The release of Debian, the oldest that docs/install.md promises.
const SUITE: &str = "bookworm";
/// Where its packages are, unless this machine's own apt has them from a mirror.
const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";

/// Besides Debian's minimum: what boots and looks after devices, networks and modules, and what presses on the memory.
const PACKAGES: &[&str] = &["systemd", "systemd-sysv", "udev", "iproute2", "kmod", "stress-ng"];

/// What nobody reads in there.
const LEFT_OUT: &[&str] =
    &["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// The kernel's modules: its package is not installed, these files are copied.
const MODULES: &[&str] = &["can-raw", "can-bcm", "can-dev", "sja1000", "kvaser_pci", "i6300esb", "veth"];

/// Units that do nothing for a robot of half an hour, and cost seconds of an emulated processor.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "systemd-timesyncd.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-networkd-wait-online.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service",
];

/// Size of the disk: three times what is on it, so that there is something to fill.
const SIZE: &str = "700M";

/// The image, built when there is none of these inputs.
///
/// # Errors
/// Without root, or when a package cannot be had.
pub fn ensure(workspace: &Workspace, folder: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let path = folder.join(format!("base-{:016x}.ext4", inputs(kernel)));
    if path.is_file() {
        return Ok(path);
    }
    let _lock = lock_cache(workspace)?;
    if path.is_file() {
        return Ok(path);
    }
    if !is_root() {
        bail!(
            "building the system machine's Debian takes root: its files belong to root; try again with sudo"
        );
    }
    // Those of other inputs: nothing will ask for them again.
    for old in fs::read_dir(folder)?.flatten().map(|entry| entry.path()) {
        if old.extension().is_some_and(|end| end == "ext4") {
            fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    let root = folder.join("base");
    remove_folder(&root)?;
    timed(&format!("Debian {SUITE} with {} (mmdebstrap)", PACKAGES.join(", ")), || debian(&root))?;
    modules(kernel, &root)?;
    for unit in MASKED {
        let link = root.join("etc/systemd/system").join(unit);
        std::os::unix::fs::symlink("/dev/null", &link).with_context(|| format!("cannot mask {unit}"))?;
    }
    let part = folder.join("base.part");
    let mut mke2fs = Command::new(ensure_tool(MKE2FS)?);
    // No lazy initialisation: the machine's kernel would do it while the tests run.
    mke2fs.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-J",
        "size=8",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=0",
        "-d",
    ]);
    run_quietly(mke2fs.arg(&root).arg(&part).arg(SIZE))?;
    fs::rename(&part, &path)?;
    remove_folder(&root)?;
    Ok(path)
}

/// A number that is another one when anything else goes into the image. This file is among it: what it does
/// is what it says.
fn inputs(kernel: &Kernel) -> u64 {
    let modules = kernel.modules.display().to_string();
    hash([include_str!("image.rs"), modules.as_str()])
}

/// FNV-1a, which is the same with every compiler; each text ends with a byte that no text has.
fn hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = texts.into_iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// Debian's minimum and the packages, in a folder.
fn debian(root: &Path) -> Result<()> {
    let mut command = Command::new(ensure_tool(MMDEBSTRAP)?);
    command.args(["--quiet", "--variant=minbase", "--aptopt=Acquire::Retries \"3\""]);
    command.arg(format!("--include={}", PACKAGES.join(",")));
    command.args(LEFT_OUT.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    command.arg(SUITE).arg(root);
    let (archive, security) = mirrors(&known_to_apt());
    command.arg(format!("deb {archive} {SUITE} main"));
    command.arg(format!("deb {security} {SUITE}-security main"));
    run_quietly(&mut command)
}

/// What this machine's apt has lists of: codename and address, a line each. Without lists nothing.
fn known_to_apt() -> String {
    let targets = apt_get().args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)"]).output();
    targets.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Where the release and its security updates come from: where this machine's own do, if it is of the same release.
fn mirrors(known: &str) -> (String, String) {
    let of = |codename: &str, otherwise: &str| {
        let lines = known.lines().filter_map(|line| line.split_once(' '));
        let mut debian = lines.filter(|(name, address)| *name == codename && address.contains("debian"));
        debian.next().map_or(otherwise, |(_, address)| address.trim_end_matches('/')).to_owned()
    };
    (of(SUITE, MIRROR), of(&format!("{SUITE}-security"), SECURITY))
}

/// Copies the modules and what they need, and lists them for udev and modprobe.
fn modules(kernel: &Kernel, root: &Path) -> Result<()> {
    let release = kernel.release()?;
    let from = kernel.modules.parent().context("modules have a folder")?;
    let to = root.join("usr/lib/modules").join(&release);
    let mut files = load_order(&kernel.modules, MODULES, &[])?;
    files.extend(["modules.builtin", "modules.builtin.modinfo", "modules.order"].map(|name| from.join(name)));
    for file in files {
        let copy = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().context("a file has a folder")?)?;
        fs::copy(&file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    say(format!("system: {} modules of {release}", MODULES.len()));
    output_of(Command::new("chroot").arg(root).args(["depmod", &release])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{MIRROR, SECURITY, hash, mirrors};

    #[test]
    fn other_inputs_are_another_image() {
        let all =
            [hash(["ab", "c"]), hash(["a", "bc"]), hash(["abc"]), hash(["ab", "d"]), hash(["ab", "c", ""])];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        assert_eq!(hash(["ab", "c"]), all[0]);
    }

    #[test]
    fn packages_come_from_where_the_machine_has_its_own() {
        let apt = "nodistro https://deb.example/node\nbookworm https://mirror.example/debian/\n\
                   bookworm-updates https://mirror.example/debian/\n\
                   bookworm-security https://mirror.example/debian-security/\n";
        let expected = ("https://mirror.example/debian", "https://mirror.example/debian-security");
        let found = mirrors(apt);
        assert_eq!((found.0.as_str(), found.1.as_str()), expected);
    }

    #[test]
    fn a_machine_of_another_release_has_no_mirror_of_this_one() {
        let expected = (MIRROR.to_owned(), SECURITY.to_owned());
        assert_eq!(mirrors("trixie https://mirror.example/debian\n"), expected);
        assert_eq!(mirrors(""), expected);
    }
}
