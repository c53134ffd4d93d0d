//! The qemu rig: an emulated PC with Debian's PREEMPT_RT kernel.
//!
//! What lives here: getting the kernel (unpacked, not installed) and QEMU (installed), and starting
//! it with the host's files over 9p. Everything is emulated (TCG): hardware virtualisation is absent
//! or unreliable on the machines that need a rig.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::guest::{CAN_MODULES, EXTRA_MODULES, Guest, ensure_busybox};
use super::modules::{content, load_order, module_name};
use super::sandbox::{Sandbox, Sink};
use super::uml::module_folder;
use super::{Clock, Controllers, Kind, Request};
use crate::install::{QEMU, Tool, XZ, ensure_tool};
use crate::packages;
use crate::workspace::{Workspace, find_program, say};

/// What the guest needs before it can see the host's files and be heard.
const BOOT_MODULES: &[&str] = &["virtio_pci", "virtio_console", "9pnet_virtio", "9p"];

/// The drivers of the emulated CAN controllers.
const CONTROLLER_MODULES: &[&str] = &["can-dev", "sja1000", "kvaser_pci"];

/// Where the guest finds its own files, before anything is mounted.
const INSIDE: &str = "/rig";

/// Runs the command in the emulated PC.
///
/// # Errors
/// When QEMU or the kernel cannot be had, or the machine dies.
pub fn run(workspace: &Workspace, request: &Request, stdout: Sink<'_>) -> Result<u8> {
    if env::consts::ARCH != "x86_64" {
        bail!(
            "the qemu rig is an x86_64 PC and shares the host's programs; this machine is {}",
            env::consts::ARCH
        );
    }
    let qemu = ensure_tool(QEMU)?;
    let Kernel { image, modules } = kernel(workspace)?;
    let busybox = ensure_busybox(workspace)?;
    let guest = Guest::new(workspace, request, Kind::Qemu, &busybox)?;
    let initramfs = write_initramfs(&guest, request, &modules, &busybox)?;

    let klog = guest.folder.join("klog");
    let sandbox = Sandbox::new(request.timeout)?
        .with_descriptors(klog.as_os_str(), guest.folder.join("console").as_os_str());
    let mut args = machine(request);
    args.extend(["-kernel".into(), image.into(), "-initrd".into(), initramfs.into()]);
    share(&mut args, "root", Path::new("/"), ",readonly=on");
    for (number, folder) in guest.shares.iter().enumerate() {
        share(&mut args, &format!("share{number}"), folder, "");
    }
    let ending = sandbox.run(qemu.as_os_str(), &args, |_| {}, stdout)?;
    guest.result(ending, request.timeout)
}

/// A kernel that is not installed.
#[derive(Debug)]
pub struct Kernel {
    /// The kernel proper, uncompressed.
    pub image: PathBuf,
    /// The folder with its modules, in folders: `lib/modules/RELEASE/kernel`.
    pub modules: PathBuf,
}

impl Kernel {
    /// What it calls itself (`uname -r`).
    ///
    /// # Errors
    /// Its modules are not where they belong.
    pub fn release(&self) -> Result<String> {
        let folder = self.modules.parent().and_then(Path::file_name);
        Ok(folder.context("the kernel's modules have no folder")?.to_string_lossy().into_owned())
    }
}

/// Debian's PREEMPT_RT kernel, fetched when there is none yet.
///
/// # Errors
/// When it cannot be had.
pub fn kernel(workspace: &Workspace) -> Result<Kernel> {
    let package =
        packages::unpacked(workspace, "qemu", |apt| apt.dependency("linux-image-rt-amd64", "linux-image-"))?;
    let image = ensure_vmlinux(&package)?;
    let modules = ["lib/modules", "usr/lib/modules"].map(|folder| package.join(folder));
    let modules = module_folder(modules.iter().find(|folder| folder.is_dir()).unwrap_or(&modules[0]))?;
    Ok(Kernel { image, modules })
}

/// The emulated hardware and the kernel's arguments.
fn machine(request: &Request) -> Vec<OsString> {
    // The clock arguments keep the kernel from giving up the time stamp counter for the slow hpet.
    let kernel = format!(
        "quiet panic=-1 console=ttyS0 mitigations=off tsc=reliable nokaslr no_timer_check rdinit={INSIDE}/init"
    );
    let (clock, cpus) = match request.clock {
        Clock::Host => ("-accel tcg,thread=multi", request.place.cpus.unwrap_or(2)),
        // Every instruction takes 2^3 ns, so the machine has 125 MIPS and seems fast enough for a kernel's
        // ticks; while it idles, its clock jumps to the next timer instead of waiting for the host's.
        Clock::Instructions => ("-accel tcg,thread=single -icount shift=3,sleep=off,align=off", 1),
    };
    let controllers = match request.controllers {
        Controllers::None => None,
        Controllers::Pair => {
            Some("-object can-bus,id=wire -device kvaser_pci,canbus=wire -device kvaser_pci,canbus=wire")
        }
    };
    let words = [
        "-nodefaults -no-user-config -display none -no-reboot -M q35 -cpu max",
        clock,
        "-chardev file,id=log,path=/dev/fd/3,append=on -serial chardev:log",
        "-device virtio-serial-pci",
        "-chardev file,id=out,path=/dev/fd/4,append=on -device virtserialport,chardev=out,name=out",
        "-chardev file,id=err,path=/dev/fd/5,append=on -device virtserialport,chardev=err,name=err",
    ];
    let mut args: Vec<OsString> =
        words.into_iter().chain(controllers).flat_map(|group| group.split(' ')).map(OsString::from).collect();
    for (option, value) in [("-smp", &cpus.to_string()), ("-m", &request.place.mem), ("-append", &kernel)] {
        args.extend([option.into(), value.into()]);
    }
    args
}

/// Shares a folder of the host under a tag.
fn share(args: &mut Vec<OsString>, tag: &str, folder: &Path, more: &str) {
    let mut backend =
        OsString::from(format!("local,id={tag},security_model=none,multidevs=remap{more},path="));
    backend.push(folder);
    args.extend(["-fsdev".into(), backend]);
    args.extend(["-device".into(), format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}").into()]);
}

/// The first file system: busybox, the modules, and the files of this run.
fn write_initramfs(guest: &Guest, request: &Request, modules: &Path, busybox: &Path) -> Result<PathBuf> {
    let controllers = match request.controllers {
        Controllers::None => &[],
        Controllers::Pair => CONTROLLER_MODULES,
    };
    let required: Vec<&str> = BOOT_MODULES.iter().chain(CAN_MODULES).chain(controllers).copied().collect();
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "rig", "rig/modules.d"] {
        archive.folder(folder);
    }
    let mut inside = Vec::new();
    for file in load_order(modules, &required, EXTRA_MODULES)? {
        let name = module_name(&file).context("a module without a name")?;
        archive.file(&format!("rig/modules.d/{name}.ko"), false, &content(&file)?);
        inside.push(PathBuf::from(format!("{INSIDE}/modules.d/{name}.ko")));
    }
    archive.file("rig/busybox", true, &fs::read(busybox).context("cannot read busybox")?);
    guest.write_init(request, Path::new(&format!("{INSIDE}/busybox")), &inside)?;
    for name in ["init", "settings", "modules", "shares"] {
        let bytes = fs::read(guest.folder.join(name)).with_context(|| format!("cannot read back {name}"))?;
        archive.file(&format!("rig/{name}"), name == "init", &bytes);
    }
    let path = guest.folder.join("initramfs");
    fs::write(&path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The kernel proper. QEMU starts it much faster than the compressed image it comes in.
fn ensure_vmlinux(package: &Path) -> Result<PathBuf> {
    let path = package.join("vmlinux");
    if path.exists() {
        return Ok(path);
    }
    let boot = package.join("boot");
    let image = fs::read_dir(&boot)
        .ok()
        .and_then(|entries| {
            entries
                .flatten()
                .map(|entry| entry.path())
                .find(|p| p.file_name().is_some_and(|name| name.as_bytes().starts_with(b"vmlinuz")))
        })
        .with_context(|| {
            format!("no kernel in {}; delete {} and try again", boot.display(), package.display())
        })?;
    say(format!("unpacking {}", image.display()));
    let bytes = fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
    let kernel = decompressed(&bytes)?
        .with_context(|| format!("{}: found no compressed kernel in it", image.display()))?;
    let part = package.join("vmlinux.part");
    fs::write(&part, kernel).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, &path)?;
    Ok(path)
}

/// The ELF file inside a boot image: tries every place that looks like the start of a compressed
/// stream until one contains it.
fn decompressed(image: &[u8]) -> Result<Option<Vec<u8>>> {
    const ZSTD: Tool = Tool { program: "zstd", package: "zstd" };
    const GZIP: Tool = Tool { program: "gzip", package: "gzip" };
    let formats: [(&[u8], Tool, &[&str]); 3] = [
        (b"\xfd7zXZ\0", XZ, &["-dc", "--single-stream"]),
        (b"\x28\xb5\x2f\xfd", ZSTD, &["-dc"]),
        (b"\x1f\x8b\x08", GZIP, &["-dc"]),
    ];
    for (magic, tool, args) in formats {
        // Only the first format of the list is worth an installation.
        let program = match find_program(tool.program) {
            Some(program) => program,
            None if tool.program == XZ.program => ensure_tool(tool)?,
            None => continue,
        };
        let starts = image.windows(magic.len()).enumerate().filter(|(_, window)| *window == magic);
        for (start, _) in starts {
            let output = filter(&program, args, &image[start..])?;
            if output.starts_with(b"\x7fELF") {
                return Ok(Some(output));
            }
        }
    }
    Ok(None)
}

/// Sends bytes through a program. That it complains about what follows the stream is no error here.
fn filter(program: &Path, args: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output().map(|output| output.stdout).context("cannot read what was unpacked")
    })
}
