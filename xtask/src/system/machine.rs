//! The emulated PC: two processors, two CAN controllers on one wire, a hardware watchdog, a disk.
//!
//! What lives here: QEMU's arguments, starting it, and what is left of its words when it dies. The disk is the image
//! with whatever the machine writes beside it, in a file that QEMU removes when it ends; a reset by the watchdog
//! does not end QEMU, so the second boot finds what the first has written.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::install::{QEMU, ensure_tool, last_lines};
use crate::rig::qemu::Kernel;
use crate::rig::sandbox::{Ending, Sandbox, Sink};

/// What its kernel says, and what systemd says before there is a journal.
pub const KERNEL_LOG: &str = "console";
/// What the journal says.
pub const JOURNAL: &str = "journal";
/// What QEMU itself says.
const QEMU_LOG: &str = "qemu";
/// How much of each is shown of a machine that died.
const LAST: usize = 40;

/// Memory: what the tests need beside a Debian, and little more, because one test uses it up.
const MEMORY: &str = "768M";

/// Switches the machine on and waits until it switches itself off; what the tests in it print goes to `stdout`.
///
/// # Errors
/// When QEMU cannot be had or started.
pub fn run(
    kernel: &Kernel,
    image: &Path,
    initramfs: &Path,
    run: &Path,
    timeout: Duration,
    stdout: Sink<'_>,
) -> Result<Ending> {
    let qemu = ensure_tool(QEMU)?;
    let (log, own) = (run.join(KERNEL_LOG), run.join(QEMU_LOG));
    let sandbox = Sandbox::new(timeout)?.with_descriptors(log.as_os_str(), own.as_os_str());
    let temporary = run.to_owned();
    sandbox.run(
        qemu.as_os_str(),
        &arguments(kernel, image, initramfs, run),
        |command| {
            command.env("TMPDIR", &temporary);
        },
        stdout,
    )
}

/// The end of what kernel, journal and QEMU have said.
pub fn last_words(run: &Path) -> String {
    let mut words = String::new();
    for file in [JOURNAL, KERNEL_LOG, QEMU_LOG] {
        let text = fs::read(run.join(file)).unwrap_or_default();
        let end = last_lines(&String::from_utf8_lossy(&text), LAST);
        if !end.is_empty() {
            words.push_str(&format!("\n--- end of its {file} ---\n{end}"));
        }
    }
    words
}

fn arguments(kernel: &Kernel, image: &Path, initramfs: &Path, run: &Path) -> Vec<OsString> {
    // The clock arguments keep the kernel from giving up the time stamp counter for the slow hpet. A kernel that
    // panics stays as it is: what then resets the machine is its watchdog, or it is switched off in the end.
    const KERNEL: &str = "quiet panic=0 console=ttyS0 mitigations=off tsc=reliable nokaslr no_timer_check \
                          systemd.unit=boot-test.target";
    const HARDWARE: [&str; 10] = [
        "-nodefaults -no-user-config -display none -M q35 -cpu max -accel tcg,thread=multi -smp 2",
        "-chardev file,id=log,path=/dev/fd/3,append=on -serial chardev:log",
        // Two cards for each boot, see first-init.sh.
        "-object can-bus,id=first -device kvaser_pci,canbus=first -device kvaser_pci,canbus=first",
        "-object can-bus,id=second -device kvaser_pci,canbus=second -device kvaser_pci,canbus=second",
        // A reset and not the end: the watchdog remembers for the next boot that it was the reason.
        "-device i6300esb -action watchdog=reset",
        "-device virtio-serial-pci",
        "-chardev file,id=out,path=/dev/fd/4,append=on -device virtserialport,chardev=out,name=out",
        "-device virtconsole,chardev=journal",
        "-device virtio-blk-pci,drive=disk",
        "-device virtio-rng-pci",
    ];
    let words = HARDWARE.into_iter().flat_map(|group| group.split(' '));
    let mut args: Vec<OsString> = words.map(OsString::from).collect();
    args.extend(["-m", MEMORY, "-append", KERNEL].map(OsString::from));
    args.extend(["-kernel".into(), kernel.image.clone().into(), "-initrd".into(), initramfs.into()]);
    let journal = with_path("file,id=journal,path=", &run.join(JOURNAL));
    // Nothing of it has to outlive QEMU, so nothing has to reach the host's disk.
    let disk = with_path("if=none,id=disk,format=raw,snapshot=on,cache=unsafe,file=", image);
    args.extend(["-chardev".into(), journal, "-drive".into(), disk]);
    args
}

/// An option of QEMU's with a path in it, whose commas are doubled.
fn with_path(before: &str, path: &Path) -> OsString {
    OsString::from(format!("{before}{}", path.display().to_string().replace(',', ",,")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{last_words, with_path};

    #[test]
    fn a_path_with_a_comma_is_one_path() {
        assert_eq!(with_path("file=", Path::new("/a,b/c")), "file=/a,,b/c");
    }

    #[test]
    fn a_machine_that_never_spoke_has_no_last_words() {
        assert_eq!(last_words(Path::new("/no/such/folder")), "");
    }
}
